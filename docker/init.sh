#!/usr/bin/env bash
# The postgres image runs this once, when it has made the cluster: the extension, and a role that can only look.
# In one transaction, because meterflow's worker starts on the tables as soon as the extension is committed.
set -euo pipefail

psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --no-psqlrc --quiet --single-transaction \
    --set ON_ERROR_STOP=1 --set password="${METRICS_PASSWORD:-}" <<'SQL'
CREATE EXTENSION meterflow;
SELECT :'password' <> '' AS watched \gset
\if :watched
CREATE ROLE metrics LOGIN PASSWORD :'password' IN ROLE pg_monitor;
SELECT meterflow.grant_access('metrics', 'read') \g /dev/null
\endif
SQL
