-- Holds: credit set aside before it is spent, so that a limit is a limit.

CREATE FUNCTION meterflow.hold(customer_id text, amount numeric, currency text, ttl interval, idempotency_key text,
                               meter_key text DEFAULT NULL, quantity numeric DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'hold_wrapper';
COMMENT ON FUNCTION meterflow.hold(text, numeric, text, interval, text, text, numeric) IS
  'Sets credit aside until it is captured, released, or ttl has passed: an amount, or with a null amount what a quantity of a meter costs the customer on top of its usage and of other holds, which may be nothing. Returns the hold''s id; 53400 when less is available. Idempotent by key.';

CREATE FUNCTION meterflow.close_hold(verb text, hold_id bigint, amount numeric, description text, paid_by_usage boolean) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'close_hold_wrapper';
COMMENT ON FUNCTION meterflow.close_hold(text, bigint, numeric, text, boolean) IS 'Internal: capture() and release().';

CREATE FUNCTION meterflow.capture(hold_id bigint, amount numeric DEFAULT NULL, description text DEFAULT NULL, events json DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  outcome record;
BEGIN
  IF events IS NULL THEN
    RETURN meterflow.close_hold('capture', hold_id, amount, description, false);
  END IF;
  IF amount IS NOT NULL THEN
    RAISE EXCEPTION 'a hold is captured as an amount or by events' USING ERRCODE = '22023',
      DETAIL = 'Both are given: the events will be charged by their prices.', HINT = 'Leave out the amount.';
  END IF;
  -- The lock first, then the events: whoever asks what is available meanwhile sees the hold or the usage.
  PERFORM meterflow.close_hold('capture', hold_id, NULL, description, true);
  SELECT i.* INTO outcome FROM meterflow.ingest(events) AS i;
  IF jsonb_array_length(outcome.failed) > 0 THEN
    RAISE EXCEPTION 'a hold can not be captured by events that fail' USING ERRCODE = '22023',
      DETAIL = format('%s failed: %s', jsonb_array_length(outcome.failed), outcome.failed), HINT = 'Nothing was stored and the hold is still open: repair the events, or capture an amount.';
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION meterflow.capture(bigint, numeric, text, json) IS
  'Spends a hold, all of it or an amount, and lets go of the rest; returns the id of the transaction. Or ingests events in its place, which are charged by their prices: then there is no transaction, and null, as of a hold that costs nothing. Again with the same amount does nothing.';

CREATE FUNCTION meterflow.release(hold_id bigint, description text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM meterflow.close_hold('release', hold_id, NULL, description, false);
END $$;
COMMENT ON FUNCTION meterflow.release(bigint, text) IS 'Lets go of a hold. Again does nothing.';

CREATE VIEW meterflow.active_holds WITH (security_invoker = true) AS
  SELECT h.* FROM meterflow.holds AS h WHERE h.status = 'open' AND h.expires_at > statement_timestamp();
COMMENT ON VIEW meterflow.active_holds IS 'Holds that count now.';
