#!/bin/sh
# Brings MariaDB up on the data directory /var/lib/mysql. Arguments go to the
# server. The server is as small as it can be: the tests ask it for little.
set -eu

data=/var/lib/mysql
if [ ! -e "$data/mysql" ]; then
  chown mysql:mysql "$data"
  mariadb-install-db --user=mysql --datadir="$data" --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >&2
fi

exec mariadbd --user=mysql --datadir="$data" --socket=/tmp/mysql.sock --skip-networking --skip-log-bin --performance-schema=off \
  --innodb-buffer-pool-size=16M --innodb-log-file-size=8M "$@"
