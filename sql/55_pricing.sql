-- What usage costs: currencies and price models.

CREATE FUNCTION meterflow.currency_digits(currency text) RETURNS integer
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'currency_digits_wrapper';
COMMENT ON FUNCTION meterflow.currency_digits(text) IS
  'Decimals of money in a currency by ISO 4217: 2 for USD, 0 for JPY. An error for a code that is not an active currency.';

CREATE FUNCTION meterflow.check_price_text(model text, meter_key text) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'check_price_text_wrapper';
COMMENT ON FUNCTION meterflow.check_price_text(text, text) IS
  'Internal: true, or an error that explains what is wrong with a price model or why it needs a meter.';

CREATE FUNCTION meterflow.price(model jsonb, quantity numeric, currency text DEFAULT NULL) RETURNS numeric
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'price_wrapper';
COMMENT ON FUNCTION meterflow.price(jsonb, numeric, text) IS
  'What a quantity costs by a price model: exact without a currency, rounded half away from zero to its digits with one. Null for a null model or quantity.';

CREATE FUNCTION meterflow.explain_price(model jsonb, quantity numeric, currency text DEFAULT NULL) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'explain_price_wrapper';
COMMENT ON FUNCTION meterflow.explain_price(jsonb, numeric, text) IS
  'How price() arrives at its amount: the steps, the exact sum, the rounded amount. Numbers are strings, to keep their digits.';

-- Usage of which a price needs to know more than a quantity.
CREATE FUNCTION meterflow.price_usage(model jsonb, usage jsonb, currency text DEFAULT NULL) RETURNS numeric
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'price_usage_wrapper';
COMMENT ON FUNCTION meterflow.price_usage(jsonb, jsonb, text) IS
  'As price(), for usage of which the model needs to know more: {quantity, events, values: [of each event, in order], groups: [{by: {dimension: value}, quantity}], buckets: [quantity of each], terms: {closing, billed, ...}}.';

CREATE FUNCTION meterflow.explain_price_usage(model jsonb, usage jsonb, currency text DEFAULT NULL) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'explain_price_usage_wrapper';
COMMENT ON FUNCTION meterflow.explain_price_usage(jsonb, jsonb, text) IS
  'How price_usage() arrives at its amount, as explain_price() says it.';

CREATE FUNCTION meterflow.price_needs(model jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'price_needs_wrapper';
COMMENT ON FUNCTION meterflow.price_needs(jsonb) IS
  'What a price model needs to know of usage (quantity, events, values, groups, buckets), whether it needs a meter and which dimensions of it, over how many periods its commitment runs.';
