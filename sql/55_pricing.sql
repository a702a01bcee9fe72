-- What a quantity costs: models, their checks and explanations. The arithmetic is src/core/pricing.


CREATE FUNCTION meterflow.currency_digits(currency text) RETURNS integer
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'currency_digits_wrapper';
COMMENT ON FUNCTION meterflow.currency_digits(text) IS
  'Decimals of money in a currency by ISO 4217: 2 for USD, 0 for JPY. An error for a code that is not an active currency.';

-- Models go to Rust as text, with all their digits. The functions over them are bound to these when created, so they
-- need no search_path of their own; without one PostgreSQL inlines them and the cast is all they cost.
CREATE FUNCTION meterflow.price_text(model text, quantity numeric, currency text) RETURNS numeric
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'price_text_wrapper';
COMMENT ON FUNCTION meterflow.price_text(text, numeric, text) IS 'Internal: price() of a model as text.';
CREATE FUNCTION meterflow.explain_price_text(model text, quantity numeric, currency text) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'explain_price_text_wrapper';
COMMENT ON FUNCTION meterflow.explain_price_text(text, numeric, text) IS 'Internal: explain_price() of a model as text.';
CREATE FUNCTION meterflow.check_price_text(model text, meter_key text) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'check_price_text_wrapper';
COMMENT ON FUNCTION meterflow.check_price_text(text, text) IS
  'Internal: true, or an error that explains what is wrong with a price model or why it needs a meter.';

CREATE FUNCTION meterflow.price(model jsonb, quantity numeric, currency text DEFAULT NULL) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN meterflow.price_text(model::text, quantity, currency);
COMMENT ON FUNCTION meterflow.price(jsonb, numeric, text) IS
  'What a quantity costs by a price model: exact without a currency, rounded half away from zero to its digits with one. Null for a null model or quantity.';

CREATE FUNCTION meterflow.explain_price(model jsonb, quantity numeric, currency text DEFAULT NULL) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN meterflow.explain_price_text(model::text, quantity, currency);
COMMENT ON FUNCTION meterflow.explain_price(jsonb, numeric, text) IS
  'How price() arrives at its amount: the steps, the exact sum, the rounded amount. Numbers are strings, to keep their digits.';
