-- Usage in one snapshot, and the jobs that keep its tables in shape.

CREATE FUNCTION meterflow.usage_rows(meter_key text, start_time timestamptz, end_time timestamptz, customer_id text,
                                     window_size text, group_by text[], filters text, timezone text, total boolean)
RETURNS TABLE (window_start timestamptz, window_end timestamptz, customer_id text, group_key text, value text)
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'usage_rows_wrapper';
COMMENT ON FUNCTION meterflow.usage_rows(text, timestamptz, timestamptz, text, text, text[], text, text, boolean) IS
  'Internal: usage() with exact numbers and group keys as text.';

-- Inlined into the calling query, hence without a search_path of its own: the body is bound when created.
CREATE FUNCTION meterflow.usage(meter_key text, start_time timestamptz, end_time timestamptz, customer_id text DEFAULT NULL,
                                window_size text DEFAULT NULL, group_by text[] DEFAULT NULL, filters jsonb DEFAULT NULL,
                                timezone text DEFAULT 'UTC', total boolean DEFAULT false)
RETURNS TABLE (window_start timestamptz, window_end timestamptz, customer_id text, group_key jsonb, value numeric)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
  SELECT r.window_start, r.window_end, r.customer_id, r.group_key::jsonb, r.value::numeric
    FROM meterflow.usage_rows(usage.meter_key, usage.start_time, usage.end_time, usage.customer_id, usage.window_size, usage.group_by,
                              usage.filters::text, usage.timezone, usage.total) r;
END;
COMMENT ON FUNCTION meterflow.usage(text, timestamptz, timestamptz, text, text, text[], jsonb, text, boolean) IS
  'Usage of a meter in [start_time, end_time): exact, with every event committed before the statement began. One customer, or a row for each; total => true merges all customers. window_size: minute ... year or any such interval, at calendar boundaries of the time zone.';

CREATE FUNCTION meterflow.usage_totals(meter_keys text[], start_time timestamptz, end_time timestamptz, customer_id text)
RETURNS TABLE (meter_key text, value text)
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED ROWS 5 AS 'MODULE_PATHNAME', 'usage_totals_wrapper';
COMMENT ON FUNCTION meterflow.usage_totals(text[], timestamptz, timestamptz, text) IS
  'Internal: one customer''s usage of several meters in [start_time, end_time), in the order of meter_keys, for what a plan costs.';

CREATE FUNCTION meterflow.verify_usage(meter_key text DEFAULT NULL, start_time timestamptz DEFAULT '-infinity', end_time timestamptz DEFAULT 'infinity')
RETURNS TABLE (problem text, meter_key text, customer_id text, group_key text, grain text, bucket timestamptz, expected text, found text)
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'verify_usage_wrapper';
COMMENT ON FUNCTION meterflow.verify_usage(text, timestamptz, timestamptz) IS
  'Recomputes usage from raw events and compares it, bucket by bucket, with rollups and deltas of the same snapshot; checks keys against events. Works in whole UTC days that the period touches. No rows: all well.';

CREATE FUNCTION meterflow.prepare_partitions() RETURNS integer
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'prepare_partitions_wrapper';
COMMENT ON FUNCTION meterflow.prepare_partitions() IS 'Makes the partitions of events for now and meterflow.partitions_ahead; returns how many were missing.';

CREATE FUNCTION meterflow.rotate_dedup() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rotate_dedup_wrapper';
COMMENT ON FUNCTION meterflow.rotate_dedup() IS 'Takes the next step of a due rotation of key generations and drops expired ones; true when it did something.';

CREATE FUNCTION meterflow.apply_retention() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'apply_retention_wrapper';
COMMENT ON FUNCTION meterflow.apply_retention() IS 'Drops raw partitions and downsamples rollups as the settings say; returns how many partitions and rows went.';
