#!/usr/bin/env bash
# Becomes the server: the primary, or a standby of it.
set -euo pipefail

export PGDATA=/var/lib/postgresql/data/main
export PGPASSFILE=/tmp/pgpass PGCONNECT_TIMEOUT=3
config=/etc/postgres/postgresql.conf
primary=$(</etc/pair/primary)
say() { printf 'serve: %s\n' "$*" >&2; }

settings=(-c "config_file=$config")
if [[ $NODE != "$primary" ]]; then
  (umask 0077 && printf '*:*:*:replication:%s\n' "$(</run/secrets/postgres/replication)" >"$PGPASSFILE")
  slot=${NODE//-/_}
  source="host=$primary.postgres user=replication dbname=postgres"
  ask() { psql --no-psqlrc --quiet --tuples-only --no-align --dbname="$source" -c "$1"; }
  if [[ ! -e $PGDATA/standby.signal ]]; then
    say "this was the primary: waiting for $primary to be promoted, to rewind to where that went on"
    until [[ $(ask 'SELECT pg_is_in_recovery()' 2>/dev/null) == f ]]; do sleep 1; done
    pg_rewind --target-pgdata="$PGDATA" --source-server="$source" --config-file="$config"
    touch "$PGDATA/standby.signal"
  fi
  # The slot keeps on the primary what this standby has not received. A standby also starts while its primary is away.
  ask "SELECT pg_create_physical_replication_slot('$slot', true)
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$slot')" >/dev/null ||
    say "could not see to the slot $slot on $primary"
  settings+=(-c "primary_conninfo=$source passfile=$PGPASSFILE application_name=$slot" -c "primary_slot_name=$slot")
fi
exec postgres -D "$PGDATA" "${settings[@]}"
