#!/bin/sh
# Makes a PostgreSQL data directory of pgbench: fill.sh DIR SCALE. It is run
# where PostgreSQL is, on the host or in the image of testdata/databases, as root.
# The server listens on a socket of its own alone, and is shut down in the end.
set -eu

dir=$1 scale=$2
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
socket=$(mktemp -d)
trap 'rm -rf -- "$socket"' EXIT
install -d -o postgres -g postgres -m 0700 -- "$dir" "$socket"
cd -- "$socket"

as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }

as_postgres "$bin/initdb" --pgdata="$dir" --auth=trust --encoding=UTF8 --locale=C --no-sync
as_postgres "$bin/pg_ctl" --pgdata="$dir" --wait --log="$socket/log" \
  --options="-c listen_addresses= -c unix_socket_directories=$socket -c max_wal_size=256MB -c fsync=off" start
as_postgres "$bin/pgbench" --host="$socket" --initialize --quiet --scale="$scale" postgres
as_postgres "$bin/pgbench" --host="$socket" --transactions=5000 --random-seed=7 --no-vacuum postgres
as_postgres "$bin/pg_ctl" --pgdata="$dir" --wait --mode=fast stop
