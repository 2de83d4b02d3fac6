#!/usr/bin/env bash
# A failover's last step, in the pod that becomes the primary. Fence the old primary first: docs/kubernetes.md.
set -euo pipefail
sql() { psql --no-psqlrc --host=/run/postgresql --username=postgres --dbname=postgres --quiet --tuples-only --no-align -c "$1"; }

[[ $(sql 'SELECT pg_promote(true, 60)') == t ]] || { echo "promote: the server is not promoted after a minute: see its log" >&2; exit 1; }
# Until the first checkpoint pg_rewind takes this server to be on the old timeline.
sql 'CHECKPOINT'
