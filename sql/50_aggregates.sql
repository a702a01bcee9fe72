-- Two-step aggregates: a state from rows, merge() of states, value() of a state. Parallel safe; usable on any table.

CREATE FUNCTION meterflow.value(state meterflow.usage_state, percentile numeric DEFAULT NULL,
                                from_time timestamptz DEFAULT NULL, to_time timestamptz DEFAULT NULL) RETURNS numeric
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_value_wrapper';
COMMENT ON FUNCTION meterflow.value(meterflow.usage_state, numeric, timestamptz, timestamptz) IS
  'The result of a state. Percentile states need the percentile (0 to 1), weighted sums their period.';

CREATE FUNCTION meterflow.aggregation(state meterflow.usage_state) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_kind_wrapper';
COMMENT ON FUNCTION meterflow.aggregation(meterflow.usage_state) IS 'The aggregation a state belongs to.';

CREATE FUNCTION meterflow.buckets(state meterflow.usage_state) RETURNS TABLE (bucket timestamptz, value numeric)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_buckets_wrapper';
COMMENT ON FUNCTION meterflow.buckets(meterflow.usage_state) IS 'The buckets of a bucket_sum or bucket_max state and the value of each; none for other states.';

CREATE FUNCTION meterflow.state_combine(internal, internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_combine_wrapper';
COMMENT ON FUNCTION meterflow.state_combine(internal, internal) IS 'Internal: merges two transition states.';
CREATE FUNCTION meterflow.state_serialize(internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_serialize_wrapper';
COMMENT ON FUNCTION meterflow.state_serialize(internal) IS 'Internal: transition state for another process.';
CREATE FUNCTION meterflow.state_deserialize(bytea, internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_deserialize_wrapper';
COMMENT ON FUNCTION meterflow.state_deserialize(bytea, internal) IS 'Internal: transition state of another process.';
CREATE FUNCTION meterflow.state_final(internal) RETURNS meterflow.usage_state
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_final_wrapper';
COMMENT ON FUNCTION meterflow.state_final(internal) IS 'Internal: the state as a value; null when there were no rows.';

CREATE FUNCTION meterflow.count_step(internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'count_step_wrapper';
COMMENT ON FUNCTION meterflow.count_step(internal) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.count_state(*) (
  SFUNC = meterflow.count_step, STYPE = internal, SSPACE = 256, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.count_state(*) IS 'State that counts rows.';

CREATE FUNCTION meterflow.sum_step(internal, numeric) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'sum_step_wrapper';
COMMENT ON FUNCTION meterflow.sum_step(internal, numeric) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.sum_state(numeric) (
  SFUNC = meterflow.sum_step, STYPE = internal, SSPACE = 256, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.sum_state(numeric) IS 'State of a sum.';

CREATE FUNCTION meterflow.avg_step(internal, numeric) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'avg_step_wrapper';
COMMENT ON FUNCTION meterflow.avg_step(internal, numeric) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.avg_state(numeric) (
  SFUNC = meterflow.avg_step, STYPE = internal, SSPACE = 256, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.avg_state(numeric) IS 'State of an average: sum and count.';

CREATE FUNCTION meterflow.min_step(internal, numeric) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'min_step_wrapper';
COMMENT ON FUNCTION meterflow.min_step(internal, numeric) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.min_state(numeric) (
  SFUNC = meterflow.min_step, STYPE = internal, SSPACE = 256, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.min_state(numeric) IS 'State of a minimum.';

CREATE FUNCTION meterflow.max_step(internal, numeric) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'max_step_wrapper';
COMMENT ON FUNCTION meterflow.max_step(internal, numeric) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.max_state(numeric) (
  SFUNC = meterflow.max_step, STYPE = internal, SSPACE = 256, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.max_state(numeric) IS 'State of a maximum.';

CREATE FUNCTION meterflow.latest_step(internal, numeric, timestamptz) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'latest_step_wrapper';
COMMENT ON FUNCTION meterflow.latest_step(internal, numeric, timestamptz) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.latest_state(numeric, timestamptz) (
  SFUNC = meterflow.latest_step, STYPE = internal, SSPACE = 256, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.latest_state(numeric, timestamptz) IS 'State of the value at the latest time.';

CREATE FUNCTION meterflow.weighted_sum_step(internal, numeric, timestamptz) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'weighted_sum_step_wrapper';
COMMENT ON FUNCTION meterflow.weighted_sum_step(internal, numeric, timestamptz) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.weighted_sum_state(numeric, timestamptz) (
  SFUNC = meterflow.weighted_sum_step, STYPE = internal, SSPACE = 256, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.weighted_sum_state(numeric, timestamptz) IS 'State of a level given as changes over time: value(state, from_time => ..., to_time => ...) is its mean over the period.';

CREATE FUNCTION meterflow.unique_step(internal, text) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'unique_step_wrapper';
COMMENT ON FUNCTION meterflow.unique_step(internal, text) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.unique_state(text) (
  SFUNC = meterflow.unique_step, STYPE = internal, SSPACE = 16384, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.unique_state(text) IS 'State of an exact count of distinct values.';

CREATE FUNCTION meterflow.approx_unique_step(internal, text) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'approx_unique_step_wrapper';
COMMENT ON FUNCTION meterflow.approx_unique_step(internal, text) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.approx_unique_state(text) (
  SFUNC = meterflow.approx_unique_step, STYPE = internal, SSPACE = 16384, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.approx_unique_state(text) IS 'State of an approximate count of distinct values (HyperLogLog, standard error 0.8 %).';

CREATE FUNCTION meterflow.percentile_step(internal, numeric) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'percentile_step_wrapper';
COMMENT ON FUNCTION meterflow.percentile_step(internal, numeric) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.percentile_state(numeric) (
  SFUNC = meterflow.percentile_step, STYPE = internal, SSPACE = 16384, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.percentile_state(numeric) IS 'State of exact percentiles: value(state, 0.95).';

CREATE FUNCTION meterflow.approx_percentile_step(internal, numeric) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'approx_percentile_step_wrapper';
COMMENT ON FUNCTION meterflow.approx_percentile_step(internal, numeric) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.approx_percentile_state(numeric) (
  SFUNC = meterflow.approx_percentile_step, STYPE = internal, SSPACE = 16384, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.approx_percentile_state(numeric) IS 'State of approximate percentiles, within 1/256 of the value.';

CREATE FUNCTION meterflow.merge_step(internal, meterflow.usage_state) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'merge_step_wrapper';
COMMENT ON FUNCTION meterflow.merge_step(internal, meterflow.usage_state) IS 'Internal: transition of the aggregate below.';
CREATE AGGREGATE meterflow.merge(meterflow.usage_state) (
  SFUNC = meterflow.merge_step, STYPE = internal, SSPACE = 1024, FINALFUNC = meterflow.state_final, FINALFUNC_MODIFY = READ_ONLY,
  COMBINEFUNC = meterflow.state_combine, SERIALFUNC = meterflow.state_serialize, DESERIALFUNC = meterflow.state_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE meterflow.merge(meterflow.usage_state) IS 'The states of many groups as one.';
