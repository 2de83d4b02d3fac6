#!/usr/bin/env bash
# Makes this pod's data directory, once: an empty cluster on the primary, a base backup of it on the other.
set -euo pipefail

export PGDATA=/var/lib/postgresql/data/main PGCONNECT_TIMEOUT=3
if [[ -d $PGDATA ]]; then
  # A volume that was brought back from elsewhere was made writable for its group, with which PostgreSQL does not start.
  chmod 0750 "$PGDATA"
  exit 0
fi

say() { printf 'prepare: %s\n' "$*" >&2; }
primary=$(</etc/pair/primary)
part=$PGDATA.part
rm -rf "$part"

if [[ $NODE == "$primary" ]]; then
  other=postgres-$((1 - ${NODE##*-}))
  # The other server may be on its way up just now: what was lost here is not to be replaced by an empty cluster.
  for ((look = 1; look <= LOOKS; look++)); do
    if pg_isready --quiet --host="$other.postgres"; then
      say "$other has a database and this volume has none: make $other the primary (docs/kubernetes.md), then this one copies it"
      exit 1
    fi
    ((look == LOOKS)) || sleep 3
  done
  say "making an empty cluster"
  # With group access, so that the daemon, in the group, may read.
  initdb --pgdata="$part" --username=postgres --allow-group-access --data-checksums --encoding=UTF8 --locale=C.UTF-8 >/dev/null
  # Passwords are letters and digits: they stand in SQL here, in a URL in shipmate.yaml.
  postgres --single -D "$part" postgres >/dev/null <<SQL
CREATE ROLE replication LOGIN REPLICATION PASSWORD '$(cat /run/secrets/postgres/replication)'
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) TO replication
CREATE ROLE shipmate LOGIN REPLICATION PASSWORD '$(cat /run/secrets/postgres/shipmate)'
GRANT pg_monitor TO shipmate
SQL
else
  say "waiting for $primary"
  until pg_isready --quiet --host="$primary.postgres"; do sleep 1; done
  say "copying it"
  PGPASSWORD=$(</run/secrets/postgres/replication) \
    pg_basebackup --pgdata="$part" --host="$primary.postgres" --username=replication --wal-method=stream --checkpoint=fast
  touch "$part/standby.signal"
fi
mv "$part" "$PGDATA"
say "done"
