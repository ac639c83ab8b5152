#!/bin/sh
# As the entry point of Docker Hub's image does: the first time it makes a cluster in PGDATA with the
# user, the password and the database that the environment names; then it is PostgreSQL.
set -e
PGDATA=${PGDATA:-/var/lib/postgresql/data}
export PGDATA
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
mkdir -p "$PGDATA" /run/postgresql
chown postgres:postgres "$PGDATA" /run/postgresql
chmod 0700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?}"
  user=${POSTGRES_USER:-postgres}
  install -m 0600 -o postgres -g postgres /dev/null /run/postgresql/password
  printf '%s\n' "$POSTGRES_PASSWORD" >/run/postgresql/password
  as initdb --username="$user" --pwfile=/run/postgresql/password --auth-local=trust --auth-host=scram-sha-256
  rm /run/postgresql/password
  as pg_ctl -w -o "-c listen_addresses=''" start
  as psql -U "$user" -d postgres -c "CREATE DATABASE \"${POSTGRES_DB:-$user}\""
  as pg_ctl -w -m fast stop
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups postgres -c 'listen_addresses=*'
