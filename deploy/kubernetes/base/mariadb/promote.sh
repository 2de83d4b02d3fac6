#!/usr/bin/env bash
# A failover's last step, in the pod that becomes the primary. Fence the old primary first: docs/kubernetes.md.
set -euo pipefail
sql() { mariadb --no-defaults --socket=/run/mysqld/mysqld.sock --user=mysql --batch --skip-column-names -e "$1"; }

sql 'STOP SLAVE IO_THREAD'
received=$(sql 'SHOW ALL SLAVES STATUS\G' | sed -n 's/^ *Gtid_IO_Pos: //p')
[[ $(sql "SELECT MASTER_GTID_WAIT('$received', 60)") == 0 ]] || {
  echo "promote: not all that was received ($received) is applied after a minute: see SHOW ALL SLAVES STATUS" >&2
  exit 1
}
sql 'STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF'
