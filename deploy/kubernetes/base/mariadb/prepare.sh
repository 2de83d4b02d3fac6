#!/usr/bin/env bash
# Makes this pod's data directory, once: an empty database on the primary, a copy of the primary's on the other.
set -euo pipefail
umask 0027

base=/var/lib/mysql
mkdir -p "$base/binlog" "$base/tmp"
chmod 2750 "$base/binlog"
[[ ! -d $base/data ]] || exit 0

say() { printf 'prepare: %s\n' "$*" >&2; }
primary=$(</etc/pair/primary)
MYSQL_PWD=$(</run/secrets/mariadb/replication) && export MYSQL_PWD
answers() { mariadb --no-defaults --host="$1.mariadb" --user=replication --connect-timeout=3 -e 'DO 1' 2>/dev/null; }

if [[ $NODE == "$primary" ]]; then
  other=mariadb-$((1 - ${NODE##*-}))
  # The other server may be on its way up just now: what was lost here is not to be replaced by an empty database.
  for ((look = 1; look <= LOOKS; look++)); do
    if answers "$other"; then
      say "$other has a database and this volume has none: make $other the primary (docs/kubernetes.md), then this one copies it"
      exit 1
    fi
    ((look == LOOKS)) || sleep 3
  done
fi

part=$base/data.part
rm -rf "$part"
mkdir -m 2750 "$part"
say "installing the system tables"
mariadb-install-db --no-defaults --datadir="$part" --skip-test-db --auth-root-socket-user=mysql >/tmp/install.log 2>&1 ||
  { cat /tmp/install.log >&2; exit 1; }

if [[ $NODE != "$primary" ]]; then
  say "waiting for $primary"
  until answers "$primary"; do sleep 1; done
  say "copying it"
  socket=/tmp/prepare.sock
  mariadbd --defaults-file=/etc/mariadb/my.cnf --datadir="$part" --socket="$socket" --pid-file=/tmp/prepare.pid \
    --skip-networking --skip-log-bin --skip-slave-start >/tmp/copy.log 2>&1 &
  server=$!
  local=(mariadb --no-defaults --socket="$socket" --user=mysql)
  until "${local[@]}" -e 'DO 1' 2>/dev/null; do
    kill -0 "$server" || { cat /tmp/copy.log >&2; exit 1; }
    sleep 0.2
  done
  mariadb-dump --no-defaults --host="$primary.mariadb" --user=replication --all-databases --single-transaction \
    --gtid --master-data=1 --routines --events --triggers | "${local[@]}"
  "${local[@]}" -e 'SHUTDOWN'
  wait "$server"
fi
mv "$part" "$base/data"
say "done"
