#!/usr/bin/env bash
# The postgres image runs this once, when it has made the cluster: the extension, and a role that can only look.
set -euo pipefail

sql() { psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 --no-psqlrc --quiet "$@"; }

sql --command 'CREATE EXTENSION meterflow'
if [[ -n ${METRICS_PASSWORD:-} ]]; then
    sql --set password="$METRICS_PASSWORD" <<'SQL'
CREATE ROLE metrics LOGIN PASSWORD :'password' IN ROLE pg_monitor;
SELECT meterflow.grant_access('metrics', 'read');
SQL
fi
