-- The arithmetic of billing on the calendar: periods of a cycle, what a piece of a period pays, sums spread over lines.
-- Time zones are those built into the extension, so these functions are immutable whatever the server is given.

CREATE FUNCTION meterflow.billing_period(anchor timestamptz, interval_unit text, interval_count integer, aligned boolean,
                                         timezone text, at timestamptz)
RETURNS TABLE (number bigint, period_start timestamptz, period_end timestamptz)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'billing_period_wrapper';
COMMENT ON FUNCTION meterflow.billing_period(timestamptz, text, integer, boolean, text, timestamptz) IS
  'The billing period [period_start, period_end) that a time is in. interval_unit: day, week, month, quarter or year. Aligned periods start at local midnight, on Mondays, the first of the month, of the quarter or of January; others on the anchor''s day and local time, or on the last day of a month that has no such day (31 Jan, 28 Feb, 31 Mar). Period 0 has the anchor.';

CREATE FUNCTION meterflow.billing_periods(anchor timestamptz, interval_unit text, interval_count integer, aligned boolean,
                                          timezone text, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (number bigint, period_start timestamptz, period_end timestamptz)
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 12 AS 'MODULE_PATHNAME', 'billing_periods_wrapper';
COMMENT ON FUNCTION meterflow.billing_periods(timestamptz, text, integer, boolean, text, timestamptz, timestamptz) IS
  'The whole billing periods that share time with [from_time, to_time), in order, as billing_period() gives them; none if that is empty.';

CREATE FUNCTION meterflow.prorate(amount numeric, piece_start timestamptz, piece_end timestamptz,
                                  period_start timestamptz, period_end timestamptz,
                                  method text DEFAULT 'second', timezone text DEFAULT 'UTC') RETURNS numeric
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'prorate_wrapper';
COMMENT ON FUNCTION meterflow.prorate(numeric, timestamptz, timestamptz, timestamptz, timestamptz, text, text) IS
  'What a piece of a period pays of the period''s amount, to 24 decimals (or as many as the amount has). Pieces that tile a period always add up to exactly the amount. method: second (elapsed time); day (local days; a day belongs to the piece that begins in it); ended_day (to the one that ends in it); day_30, ended_day_30 (months of 30 days, or of 28 to 31); none (the piece that begins with the period pays for all of it). Of a piece that sticks out of the period the rest counts. Rounded one by one, pieces may not add up: see split_amount().';

CREATE FUNCTION meterflow.split_amount(total numeric, weights numeric[], currency text) RETURNS numeric[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'split_amount_wrapper';
COMMENT ON FUNCTION meterflow.split_amount(numeric, numeric[], text) IS
  'Money spread in proportion to weights, one part for each, by largest remainder: the parts add up to the total, each is less than one minor unit off its exact share, and of equal remainders the first gets the unit.';
