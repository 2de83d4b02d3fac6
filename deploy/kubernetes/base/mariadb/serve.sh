#!/usr/bin/env bash
# Becomes the server: the primary, which is writable, or a read-only replica of it.
set -euo pipefail
umask 0027

primary=$(</etc/pair/primary)
secret() { cat "/run/secrets/mariadb/$1"; }

# The accounts are made on each server by itself and stay out of its binlog: a start adds no transaction to it. Passwords
# are letters and digits, for they stand in SQL here and in a URL in shipmate.yaml.
role=/tmp/role.sql
cat >"$role" <<SQL
SET SESSION sql_log_bin = 0;
CREATE OR REPLACE USER replication IDENTIFIED BY '$(secret replication)';
GRANT REPLICATION SLAVE, BINLOG MONITOR, SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, RELOAD, PROCESS ON *.* TO replication;
CREATE OR REPLACE USER shipmate@localhost IDENTIFIED BY '$(secret shipmate)';
GRANT REPLICA MONITOR, BINLOG MONITOR ON *.* TO shipmate@localhost;
SET SESSION sql_log_bin = 1;
SQL
read_only=OFF
if [[ $NODE != "$primary" ]]; then
  # An old primary goes on after all that it has: gtid_current_pos. Where the new one lacks some of that, replication stops
  # with an error, and the daemon says "fork".
  read_only=ON
  cat >>"$role" <<SQL
SET GLOBAL gtid_slave_pos = @@gtid_current_pos;
CHANGE MASTER TO MASTER_HOST = '$primary.mariadb', MASTER_USER = 'replication', MASTER_PASSWORD = '$(secret replication)', MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1;
START SLAVE;
SQL
fi
exec mariadbd --defaults-file=/etc/mariadb/my.cnf --server-id=$((101 + ${NODE##*-})) --read-only="$read_only" \
  --skip-slave-start --init-file="$role"
