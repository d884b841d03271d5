#!/bin/sh
# Brings PostgreSQL up on two volumes: the data directory $PGDATA and the
# directory of a tablespace, $TABLESPACE. Arguments go to the server.
set -eu

bin=$(echo /usr/lib/postgresql/*/bin)

for dir in "$PGDATA" "$TABLESPACE"; do
  mkdir -p "$dir"
  # Only where it is not so yet: on restored data this must be nothing to do,
  # so that a test sees what the restore did and not what this script mended.
  if [ "$(stat -c '%U %a' "$dir")" != 'postgres 700' ]; then
    if [ -n "$(ls -A "$dir")" ]; then
      echo "entrypoint: $dir holds data but is $(stat -c '%U %a' "$dir"), not postgres 700" >&2
      exit 1
    fi
    chown postgres:postgres "$dir"
    chmod 0700 "$dir"
  fi
done

as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }

if [ ! -e "$PGDATA/PG_VERSION" ]; then
  as_postgres "$bin/initdb" --pgdata="$PGDATA" --auth=trust --data-checksums --encoding=UTF8 --locale=C.UTF-8 >&2
  echo 'host all all samenet trust' >>"$PGDATA/pg_hba.conf"
fi

exec setpriv --reuid=postgres --regid=postgres --init-groups -- \
  "$bin/postgres" -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
