-- Alerts: thresholds on balances, usage and spend, and the credit that is about to expire.
--
-- Protocol. What an alert has said of a customer is a row of alert_states. An evaluation
-- 1. locks that row, making it first when it is missing;
-- 2. computes the value by a later statement, so that it sees all that had committed before it got the lock;
-- 3. moves the level and writes the message, if the value has crossed a threshold.
-- The lock is held to the end of the transaction. So two evaluations never say the same thing twice, and the later of
-- them sees what the earlier one's transaction did: whoever changes a value and evaluates afterwards, in the same
-- transaction or in a later one, leaves a level that is true of all changes before.
--
-- Who evaluates: ledger writes, in their own transaction (credit_changed()); for usage the worker or maintain(). A fold
-- notes in alert_queue, in its own transaction, whose usage it has folded: a crash leaves both or neither. The queue is
-- worked off without waiting for anybody: a state that another session has locked goes to the end of the queue, for that
-- session may not see what was folded. What time alone changes (a period that ends) is in alert_states.look_at.
--
-- Hysteresis. A level is entered at its threshold and left when the value is further away than the hysteresis. In a new
-- period the level begins anew.
--
-- Proof: tests/isolation/specs/alert_once.spec.

CREATE TABLE meterflow.alerts (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  key          text COLLATE "C" NOT NULL CHECK (key <> ''),
  customer_id  text COLLATE "C",
  what         text COLLATE "C" NOT NULL,
  currency     text COLLATE "C",
  meter_key    text COLLATE "C",
  period       text,
  warning      numeric,
  critical     numeric,
  hysteresis   numeric NOT NULL DEFAULT 0,
  enabled      boolean NOT NULL DEFAULT true,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES meterflow.customers (tenant_id, id),
  FOREIGN KEY (tenant_id, meter_key) REFERENCES meterflow.meters (tenant_id, key)
) USING heap;
CREATE INDEX alerts_customer_idx ON meterflow.alerts (tenant_id, what, customer_id) WHERE enabled;
COMMENT ON TABLE meterflow.alerts IS 'Thresholds to be told of. INSERT one, and customers beyond it are told of at the next maintenance; from then on each crossing is one message in the outbox: low_balance for a balance, limit_reached for usage and spend.';
COMMENT ON COLUMN meterflow.alerts.customer_id IS 'Null: every customer, each by itself.';
COMMENT ON COLUMN meterflow.alerts.what IS 'balance: what is available in the customer''s wallets, alerts when it falls to a threshold. usage: of a meter in a period; spend: what current_charges() come to, not invoiced yet. These alert when they rise to it.';
COMMENT ON COLUMN meterflow.alerts.currency IS 'Of a balance or spend.';
COMMENT ON COLUMN meterflow.alerts.meter_key IS 'Of usage.';
COMMENT ON COLUMN meterflow.alerts.period IS 'Of usage: billing (default; that of the subscription that prices the meter, or else the month), or day, week, month, quarter, year of the customer''s calendar.';
COMMENT ON COLUMN meterflow.alerts.hysteresis IS 'How far beyond a threshold the value must come back for the level to be left. 0: any distance.';

CREATE TABLE meterflow.alert_states (
  tenant_id     text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  alert_key     text COLLATE "C" NOT NULL,
  customer_id   text COLLATE "C" NOT NULL,
  level         text NOT NULL DEFAULT 'ok' CHECK (level IN ('ok', 'warning', 'critical')),
  value         numeric,
  period_start  timestamptz,
  since         timestamptz NOT NULL DEFAULT clock_timestamp(),
  look_at       timestamptz NOT NULL DEFAULT 'infinity',
  error         text,
  PRIMARY KEY (tenant_id, alert_key, customer_id),
  FOREIGN KEY (tenant_id, alert_key) REFERENCES meterflow.alerts (tenant_id, key) ON DELETE CASCADE
) USING heap WITH (fillfactor = 70);
CREATE INDEX alert_states_due_idx ON meterflow.alert_states (look_at) WHERE look_at < 'infinity';
CREATE INDEX alert_states_error_idx ON meterflow.alert_states (tenant_id) WHERE error IS NOT NULL;
COMMENT ON TABLE meterflow.alert_states IS 'What each alert last said of each customer that it has looked at.';
COMMENT ON COLUMN meterflow.alert_states.value IS 'At the last change of level; null when there was nothing to measure.';
COMMENT ON COLUMN meterflow.alert_states.since IS 'When the level was reached.';
COMMENT ON COLUMN meterflow.alert_states.look_at IS 'When to look again even if nothing happens.';
COMMENT ON COLUMN meterflow.alert_states.error IS 'Why the value can not be computed, if so; it is tried again every 10 minutes.';

CREATE TABLE meterflow.alert_queue (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id           bigint GENERATED ALWAYS AS IDENTITY,
  customer_id  text COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant_id, customer_id, id)
) USING heap WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE INDEX alert_queue_idx ON meterflow.alert_queue (id);
COMMENT ON TABLE meterflow.alert_queue IS 'Customers whose alerts are to be evaluated, as often as they were named.';

CREATE FUNCTION meterflow.check_alert() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fault text;
BEGIN
  IF TG_OP = 'UPDATE' AND (NEW.tenant_id, NEW.key, NEW.what, NEW.customer_id, NEW.currency, NEW.meter_key, NEW.period)
       IS DISTINCT FROM (OLD.tenant_id, OLD.key, OLD.what, OLD.customer_id, OLD.currency, OLD.meter_key, OLD.period) THEN
    RAISE EXCEPTION 'alert "%" can not watch something else', OLD.key USING ERRCODE = '55000',
      DETAIL = 'What it has said was of what it watched.', HINT = 'Thresholds, hysteresis and enabled can change. For the rest INSERT another, and DELETE this one.';
  END IF;
  IF NEW.what = 'usage' THEN
    NEW.period := coalesce(NEW.period, 'billing');
  END IF;
  fault := CASE
    WHEN NEW.what IS NULL OR NEW.what NOT IN ('balance', 'usage', 'spend') THEN format('what is %s: it must be balance, usage or spend.', coalesce(quote_literal(NEW.what), 'null'))
    WHEN NEW.what = 'usage' AND (NEW.meter_key IS NULL OR NEW.currency IS NOT NULL) THEN 'An alert on usage has a meter_key and no currency.'
    WHEN NEW.what <> 'usage' AND (NEW.currency IS NULL OR NEW.meter_key IS NOT NULL) THEN format('An alert on %s has a currency and no meter_key.', NEW.what)
    WHEN NEW.what <> 'usage' AND NEW.period IS NOT NULL THEN format('An alert on %s has no period: it is of now.', NEW.what)
    WHEN NEW.period NOT IN ('billing', 'day', 'week', 'month', 'quarter', 'year') THEN format('The period is %L: it must be billing, day, week, month, quarter or year.', NEW.period)
    WHEN NEW.warning IS NULL AND NEW.critical IS NULL THEN 'It has neither a warning nor a critical threshold.'
    WHEN 'NaN' IN (NEW.warning, NEW.critical, NEW.hysteresis) OR abs(NEW.warning) = 'Infinity' OR abs(NEW.critical) = 'Infinity' OR NEW.hysteresis = 'Infinity' THEN 'Thresholds and hysteresis are numbers.'
    WHEN NEW.what = 'balance' AND NEW.warning <= NEW.critical THEN format('A balance falls: the warning (%s) must be above the critical threshold (%s).', NEW.warning, NEW.critical)
    WHEN NEW.what <> 'balance' AND NEW.warning >= NEW.critical THEN format('The warning (%s) must be below the critical threshold (%s).', NEW.warning, NEW.critical)
    WHEN NEW.hysteresis < 0 THEN format('The hysteresis is %s, below zero.', NEW.hysteresis)
  END;
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION 'alert "%" is not valid', NEW.key USING ERRCODE = '23514', DETAIL = fault, HINT = '\d+ meterflow.alerts says what an alert takes.';
  END IF;
  IF NEW.currency IS NOT NULL THEN
    PERFORM meterflow.currency_digits(NEW.currency);
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.check_alert() IS 'Trigger: explains what is wrong with an alert.';
CREATE TRIGGER check_alert BEFORE INSERT OR UPDATE ON meterflow.alerts
  FOR EACH ROW EXECUTE FUNCTION meterflow.check_alert();
COMMENT ON TRIGGER check_alert ON meterflow.alerts IS 'Explains what is wrong with an alert.';

CREATE FUNCTION meterflow.queue_alert() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NEW.enabled AND NOT meterflow.is_restoring() THEN
    INSERT INTO meterflow.alert_queue (tenant_id, customer_id)
    SELECT c.tenant_id, c.id FROM meterflow.customers AS c WHERE c.tenant_id = NEW.tenant_id AND (NEW.customer_id IS NULL OR c.id = NEW.customer_id);
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION meterflow.queue_alert() IS 'Trigger: a new or changed alert looks at its customers, for some may be beyond it already.';
CREATE TRIGGER queue_alert AFTER INSERT OR UPDATE ON meterflow.alerts
  FOR EACH ROW EXECUTE FUNCTION meterflow.queue_alert();
COMMENT ON TRIGGER queue_alert ON meterflow.alerts IS 'Customers may be beyond a new alert already.';
CREATE TRIGGER announce_change AFTER INSERT OR DELETE OR UPDATE ON meterflow.alerts
  FOR EACH ROW EXECUTE FUNCTION meterflow.announce_change();
ALTER TABLE meterflow.alerts ENABLE ALWAYS TRIGGER announce_change;
COMMENT ON TRIGGER announce_change ON meterflow.alerts IS 'Verbs of credit keep whether there are alerts of a balance.';

CREATE FUNCTION meterflow.alert_period(alert meterflow.alerts, customer text, OUT period_start timestamptz, OUT period_end timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF alert.period = 'billing' THEN
    SELECT p.* INTO period_start, period_end
      FROM meterflow.subscriptions AS s, LATERAL meterflow.current_period(s.id, clock_timestamp()) AS p
     WHERE s.tenant_id = alert.tenant_id AND s.customer_id = customer AND p.period_start IS NOT NULL
       AND EXISTS (SELECT FROM meterflow.subscription_items AS i JOIN meterflow.prices AS r ON (r.tenant_id, r.plan_key, r.plan_version) = (i.tenant_id, i.plan_key, i.plan_version)
                    WHERE i.tenant_id = s.tenant_id AND i.subscription_id = s.id AND i.starts_at <= clock_timestamp() AND (i.ends_at IS NULL OR clock_timestamp() < i.ends_at)
                      AND r.meter_key = alert.meter_key AND (r.subscription_id IS NULL OR r.subscription_id = s.id))
     ORDER BY s.id LIMIT 1;
    IF FOUND THEN
      RETURN;
    END IF;
  END IF;
  SELECT b.period_start, b.period_end INTO period_start, period_end
    FROM meterflow.billing_period('2000-01-01', CASE alert.period WHEN 'billing' THEN 'month' ELSE alert.period END, 1, true,
           coalesce((SELECT c.timezone FROM meterflow.customers AS c WHERE c.tenant_id = alert.tenant_id AND c.id = customer), 'UTC'), clock_timestamp()) AS b;
END $$;
COMMENT ON FUNCTION meterflow.alert_period(meterflow.alerts, text) IS 'Internal: the period that an alert on usage looks at now.';

-- The level that a value means, given the one that the customer is at. Upside down for a balance.
CREATE FUNCTION meterflow.alert_level(alert meterflow.alerts, level text, value numeric) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  sign CONSTANT integer := CASE alert.what WHEN 'balance' THEN -1 ELSE 1 END;
BEGIN
  RETURN CASE
    WHEN sign * value >= sign * alert.critical OR (level = 'critical' AND sign * value >= sign * alert.critical - alert.hysteresis) THEN 'critical'
    WHEN sign * value >= sign * alert.warning OR (level <> 'ok' AND sign * value >= sign * alert.warning - alert.hysteresis) THEN 'warning'
    ELSE 'ok' END;
END $$;
COMMENT ON FUNCTION meterflow.alert_level(meterflow.alerts, text, numeric) IS 'Internal: the level of a value, after a level.';

CREATE FUNCTION meterflow.evaluate_alert(alert meterflow.alerts, customer text, wait boolean) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  state meterflow.alert_states;
  before text;
  now_at text;
  measured numeric;
  period record;
  code text; message text; detail text;
BEGIN
  LOOP
    IF wait THEN
      SELECT s.* INTO state FROM meterflow.alert_states AS s
       WHERE (s.tenant_id, s.alert_key, s.customer_id) = (alert.tenant_id, alert.key, customer) FOR NO KEY UPDATE;
    ELSE
      SELECT s.* INTO state FROM meterflow.alert_states AS s
       WHERE (s.tenant_id, s.alert_key, s.customer_id) = (alert.tenant_id, alert.key, customer) FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    EXIT WHEN FOUND;
    -- The INSERT would wait for whoever has locked it.
    IF NOT wait AND EXISTS (SELECT FROM meterflow.alert_states AS s WHERE (s.tenant_id, s.alert_key, s.customer_id) = (alert.tenant_id, alert.key, customer)) THEN
      RETURN 'busy';
    END IF;
    INSERT INTO meterflow.alert_states AS s (tenant_id, alert_key, customer_id) VALUES (alert.tenant_id, alert.key, customer)
    ON CONFLICT DO NOTHING RETURNING s.* INTO state;
    EXIT WHEN FOUND;
  END LOOP;
  BEGIN
    IF alert.what = 'balance' THEN
      -- Without a wallet there is no balance: a debt is another matter.
      SELECT CASE WHEN bool_or(b.wallet_id IS NOT NULL) THEN sum(b.available) END INTO measured FROM meterflow.wallet_balance(customer, alert.currency) AS b;
    ELSIF alert.what = 'spend' THEN
      SELECT coalesce(sum(c.amount), 0) INTO measured FROM meterflow.current_charges(customer) AS c WHERE c.currency = alert.currency;
    ELSE
      period := meterflow.alert_period(alert, customer);
      SELECT coalesce(sum(u.value), 0) INTO measured FROM meterflow.usage(alert.meter_key, period.period_start, period.period_end, customer) AS u;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    -- One alert's fault must not stop the others, nor the write that it was to look at.
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    IF code IN ('40001', '40P01', '55P03', '57014', '57P01') THEN
      RAISE;
    END IF;
    UPDATE meterflow.alert_states AS s SET error = concat_ws(' ', code, message, nullif(detail, '')), look_at = clock_timestamp() + interval '10 minutes'
     WHERE (s.tenant_id, s.alert_key, s.customer_id) = (alert.tenant_id, alert.key, customer);
    RETURN 'failed';
  END;
  IF alert.what <> 'usage' THEN
    SELECT NULL::timestamptz AS period_start, NULL::timestamptz AS period_end INTO period;
  END IF;
  before := CASE WHEN state.period_start IS DISTINCT FROM period.period_start THEN 'ok' ELSE state.level END;
  now_at := meterflow.alert_level(alert, before, measured);
  IF now_at = state.level AND now_at = before THEN
    -- Nothing to say; and mostly nothing to write.
    IF state.error IS NOT NULL OR state.look_at < clock_timestamp() OR state.period_start IS DISTINCT FROM period.period_start THEN
      UPDATE meterflow.alert_states AS s
         SET error = NULL, period_start = period.period_start,
             look_at = CASE WHEN now_at = 'ok' THEN 'infinity' ELSE coalesce(period.period_end, clock_timestamp() + interval '10 minutes') END
       WHERE (s.tenant_id, s.alert_key, s.customer_id) = (alert.tenant_id, alert.key, customer);
    END IF;
    RETURN 'same';
  END IF;
  UPDATE meterflow.alert_states AS s
     SET level = now_at, value = measured, period_start = period.period_start, since = clock_timestamp(), error = NULL,
         look_at = CASE WHEN now_at = 'ok' THEN 'infinity' ELSE coalesce(period.period_end, clock_timestamp() + interval '10 minutes') END
   WHERE (s.tenant_id, s.alert_key, s.customer_id) = (alert.tenant_id, alert.key, customer);
  PERFORM meterflow.emit(alert.tenant_id, customer, CASE alert.what WHEN 'balance' THEN 'low_balance' ELSE 'limit_reached' END,
    jsonb_strip_nulls(jsonb_build_object('alert', alert.key, 'what', alert.what, 'level', now_at,
      'previous_level', CASE WHEN now_at = 'ok' THEN state.level ELSE before END, 'value', trim_scale(measured)::text,
      'threshold', (CASE now_at WHEN 'critical' THEN alert.critical WHEN 'warning' THEN alert.warning ELSE coalesce(alert.warning, alert.critical) END)::text,
      'currency', alert.currency, 'meter', alert.meter_key, 'period_start', period.period_start, 'period_end', period.period_end)), true);
  RETURN 'moved';
END $$;
COMMENT ON FUNCTION meterflow.evaluate_alert(meterflow.alerts, text, boolean) IS
  'Internal: looks at one customer for one alert: moved (and told of), same, failed (see alert_states.error), or busy when another session is at it and this one does not wait.';

CREATE FUNCTION meterflow.alerts_of(customer text, what text) RETURNS SETOF meterflow.alerts
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
  SELECT a.* FROM meterflow.alerts AS a WHERE a.tenant_id = meterflow.current_tenant() AND a.what = alerts_of.what AND a.customer_id = customer AND a.enabled
  UNION ALL
  SELECT a.* FROM meterflow.alerts AS a WHERE a.tenant_id = meterflow.current_tenant() AND a.what = alerts_of.what AND a.customer_id IS NULL AND a.enabled;
END;
COMMENT ON FUNCTION meterflow.alerts_of(text, text) IS 'Internal: the alerts that look at a customer.';

CREATE FUNCTION meterflow.credit_changed(customer_id text, currency text, changes jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  alert meterflow.alerts;
  available numeric;
BEGIN
  BEGIN
    available := (SELECT sum(b.available) FROM meterflow.wallet_balance(credit_changed.customer_id, credit_changed.currency) AS b);
  EXCEPTION WHEN OTHERS THEN
    -- A price that can't be computed must not keep a payment out. Alerts say so in alert_states.error.
    IF SQLSTATE IN ('40001', '40P01', '55P03', '57014', '57P01') THEN
      RAISE;
    END IF;
  END;
  PERFORM meterflow.emit(meterflow.current_tenant(), credit_changed.customer_id, 'wallet_balance_changed',
                         jsonb_build_object('currency', credit_changed.currency, 'available', available::text, 'changes', changes));
  FOR alert IN SELECT a.* FROM meterflow.alerts_of(credit_changed.customer_id, 'balance') AS a WHERE a.currency = credit_changed.currency ORDER BY a.key LOOP
    PERFORM meterflow.evaluate_alert(alert, credit_changed.customer_id, true);
  END LOOP;
  IF available IS NOT NULL THEN
    PERFORM meterflow.request_top_ups(credit_changed.customer_id, credit_changed.currency, available);
  END IF;
END $$;
COMMENT ON FUNCTION meterflow.credit_changed(text, text, jsonb) IS
  'Internal: what every verb that moves a customer''s credit calls last, in its transaction: consumers are told, alerts on the balance speak, top-up rules ask.';

CREATE FUNCTION meterflow.evaluate_alerts(customer_id text, wait boolean DEFAULT true, OUT moved integer, OUT busy integer)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  payer CONSTANT text := (SELECT c.payer_id FROM meterflow.customers AS c WHERE c.tenant_id = meterflow.current_tenant() AND c.id = evaluate_alerts.customer_id);
  todo record;
  outcome text;
BEGIN
  moved := 0;
  busy := 0;
  -- In one order for everybody. What a customer uses is paid from the payer's wallets.
  FOR todo IN SELECT t.customer, a AS alert
                FROM (VALUES (evaluate_alerts.customer_id, 'usage'), (evaluate_alerts.customer_id, 'spend'), (coalesce(payer, evaluate_alerts.customer_id), 'balance')) AS t (customer, what),
                     LATERAL meterflow.alerts_of(t.customer, t.what) AS a
               ORDER BY t.customer, a.key LOOP
    outcome := meterflow.evaluate_alert(todo.alert, todo.customer, wait);
    moved := moved + (outcome = 'moved')::integer;
    busy := busy + (outcome = 'busy')::integer;
  END LOOP;
  BEGIN
    PERFORM meterflow.request_top_ups(w.customer_id, w.currency)
       FROM meterflow.wallets AS w JOIN meterflow.top_up_rules AS r ON r.tenant_id = w.tenant_id AND r.wallet_id = w.id AND r.enabled
      WHERE w.tenant_id = meterflow.current_tenant() AND w.customer_id = coalesce(payer, evaluate_alerts.customer_id)
      GROUP BY w.customer_id, w.currency;
  EXCEPTION WHEN OTHERS THEN
    -- As one alert's fault must not stop the others.
    IF SQLSTATE IN ('40001', '40P01', '55P03', '57014', '57P01') THEN
      RAISE;
    END IF;
    RAISE WARNING 'the top-up rules of customer "%" can not be looked at', coalesce(payer, evaluate_alerts.customer_id)
      USING ERRCODE = SQLSTATE, DETAIL = SQLERRM, HINT = 'SELECT * FROM meterflow.wallet_balance(...) of this customer fails in the same way.';
  END;
END $$;
COMMENT ON FUNCTION meterflow.evaluate_alerts(text, boolean) IS
  'Looks at a customer for all its alerts and top-up rules, now. Returns how many changed their level, and how many another session is looking at, if this one does not wait.';

CREATE FUNCTION meterflow.queue_alerts(tenant text, customer text) RETURNS void
LANGUAGE sql VOLATILE
BEGIN ATOMIC
  INSERT INTO meterflow.alert_queue (tenant_id, customer_id)
  SELECT queue_alerts.tenant, queue_alerts.customer
   WHERE EXISTS (SELECT FROM meterflow.alerts AS a WHERE a.tenant_id = queue_alerts.tenant AND a.enabled)
      OR EXISTS (SELECT FROM meterflow.top_up_rules AS r WHERE r.tenant_id = queue_alerts.tenant AND r.enabled);
END;
COMMENT ON FUNCTION meterflow.queue_alerts(text, text) IS 'Internal: has a customer looked at by the next maintenance, if the tenant has alerts at all.';

CREATE FUNCTION meterflow.usage_is_watched() RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM meterflow.alerts AS a WHERE a.enabled)
    OR EXISTS (SELECT FROM meterflow.top_up_rules AS r WHERE r.enabled)
    OR EXISTS (SELECT FROM meterflow.outbox_consumers AS c WHERE c.kinds IS NULL OR 'usage_updated' = ANY (c.kinds));
COMMENT ON FUNCTION meterflow.usage_is_watched() IS 'Internal: whether a fold has anybody to tell whose usage it has folded.';

CREATE FUNCTION meterflow.usage_folded(tenants text[], customer_ids text[], meter_ids integer[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  INSERT INTO meterflow.alert_queue (tenant_id, customer_id)
  SELECT DISTINCT u.tenant_id, u.customer_id
    FROM unnest(tenants, customer_ids, meter_ids) AS u (tenant_id, customer_id, meter_id)
    LEFT JOIN meterflow.meter_versions AS v ON (v.tenant_id, v.id) = (u.tenant_id, u.meter_id)
    LEFT JOIN meterflow.customers AS c ON (c.tenant_id, c.id) = (u.tenant_id, u.customer_id)
   WHERE EXISTS (SELECT FROM meterflow.alerts AS a
                  WHERE a.tenant_id = u.tenant_id AND a.enabled AND (a.meter_key IS NULL OR a.meter_key = v.meter_key)
                    AND (a.customer_id IS NULL OR a.customer_id IN (u.customer_id, c.payer_id)))
      OR EXISTS (SELECT FROM meterflow.wallets AS w JOIN meterflow.top_up_rules AS r ON r.tenant_id = w.tenant_id AND r.wallet_id = w.id AND r.enabled
                  WHERE w.tenant_id = u.tenant_id AND w.customer_id = coalesce(c.payer_id, u.customer_id));
  PERFORM meterflow.emit_all('usage_updated', array_agg(m.tenant_id), array_agg(m.customer_id), array_agg(m.payload))
     FROM (SELECT u.tenant_id, u.customer_id, jsonb_build_object('meters', jsonb_agg(DISTINCT v.meter_key)) AS payload
             FROM unnest(tenants, customer_ids, meter_ids) AS u (tenant_id, customer_id, meter_id)
             JOIN meterflow.meter_versions AS v ON (v.tenant_id, v.id) = (u.tenant_id, u.meter_id)
            WHERE u.tenant_id IN (SELECT c.tenant_id FROM meterflow.outbox_consumers AS c WHERE c.kinds IS NULL OR 'usage_updated' = ANY (c.kinds))
            GROUP BY 1, 2) AS m
   HAVING count(*) > 0;
END $$;
COMMENT ON FUNCTION meterflow.usage_folded(text[], text[], integer[]) IS
  'Internal: what a fold calls in its own transaction with the customers and meters that it has folded: alerts look at them next, and consumers of usage_updated are told.';

CREATE FUNCTION meterflow.work_off_alerts(max_customers integer DEFAULT 100) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  session_tenant CONSTANT text := current_setting('meterflow.tenant', true);
  todo record;
  outcome record;
  done bigint := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock('meterflow.alert_queue'::regclass::integer, 0) THEN
    RETURN NULL;
  END IF;
  FOR todo IN
    WITH named AS MATERIALIZED (
      SELECT DISTINCT q.tenant_id, q.customer_id FROM (SELECT * FROM meterflow.alert_queue ORDER BY id LIMIT max_customers) AS q),
    taken AS (
      -- However often it was named: what comes after this snapshot stays in the queue.
      DELETE FROM meterflow.alert_queue AS q USING named AS n WHERE (q.tenant_id, q.customer_id) = (n.tenant_id, n.customer_id)),
    due AS (
      SELECT s.tenant_id, s.customer_id FROM meterflow.alert_states AS s WHERE s.look_at <= clock_timestamp() ORDER BY s.look_at LIMIT max_customers)
    TABLE named UNION TABLE due ORDER BY 1, 2
  LOOP
    PERFORM set_config('meterflow.tenant', todo.tenant_id, true);
    outcome := meterflow.evaluate_alerts(todo.customer_id, false);
    IF outcome.busy > 0 THEN
      -- Whoever has it may not see what this customer was named for.
      INSERT INTO meterflow.alert_queue (tenant_id, customer_id) VALUES (todo.tenant_id, todo.customer_id);
    ELSE
      done := done + 1;
    END IF;
  END LOOP;
  PERFORM set_config('meterflow.tenant', session_tenant, true);
  RETURN done;
END $$;
COMMENT ON FUNCTION meterflow.work_off_alerts(integer) IS
  'The background job that evaluates alerts: of customers whose usage was folded, and where a period has ended. Returns how many customers it has looked at.';

CREATE TABLE meterflow.alert_grants (
  tenant_id   text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  grant_id    bigint NOT NULL,
  expires_at  timestamptz NOT NULL,
  expired     boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, grant_id)
) USING heap;
COMMENT ON TABLE meterflow.alert_grants IS 'Credit grants that alerts have seen come near their expiry.';
COMMENT ON COLUMN meterflow.alert_grants.expires_at IS 'As it was seen: one that is put off is announced again.';
COMMENT ON COLUMN meterflow.alert_grants.expired IS 'The balance alerts of its customer have been told that it is gone.';

-- No entry is written when a grant expires: the balance is a function of time. So what comes near its expiry is noted, and
-- when it is over the customer is looked at.
CREATE FUNCTION meterflow.watch_grants(max_grants integer DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  days CONSTANT integer := coalesce(current_setting('meterflow.grant_expiring_days', true), '7')::integer;
  clock CONSTANT timestamptz := clock_timestamp();
  soon record;
  done bigint := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock('meterflow.alert_grants'::regclass::integer, 0) THEN
    RETURN NULL;
  END IF;
  -- At least a day ahead, so that none expires unseen that lives for longer than the job rests.
  FOR soon IN
    SELECT g.tenant_id, g.id, g.expires_at, g.remaining, w.customer_id, w.currency
      FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (g.tenant_id, g.wallet_id)
     WHERE NOT g.spent AND g.expires_at < 'infinity' AND g.effective_at <= clock AND g.expires_at > clock AND g.expires_at <= clock + make_interval(days => greatest(days, 1))
       AND NOT EXISTS (SELECT FROM meterflow.alert_grants AS k WHERE (k.tenant_id, k.grant_id) = (g.tenant_id, g.id) AND k.expires_at = g.expires_at)
     ORDER BY g.expires_at, g.tenant_id, g.id LIMIT max_grants
  LOOP
    INSERT INTO meterflow.alert_grants AS k (tenant_id, grant_id, expires_at) VALUES (soon.tenant_id, soon.id, soon.expires_at)
    ON CONFLICT ON CONSTRAINT alert_grants_pkey DO UPDATE SET expires_at = excluded.expires_at, expired = false;
    IF days > 0 THEN
      PERFORM meterflow.emit(soon.tenant_id, soon.customer_id, 'grant_expiring', jsonb_build_object('grant_id', soon.id,
        'remaining', trim_scale(soon.remaining)::text, 'currency', soon.currency, 'expires_at', soon.expires_at));
    END IF;
    done := done + 1;
  END LOOP;
  WITH gone AS (
    UPDATE meterflow.alert_grants AS k SET expired = true
      FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (g.tenant_id, g.wallet_id)
     WHERE NOT k.expired AND k.expires_at <= clock AND (g.tenant_id, g.id) = (k.tenant_id, k.grant_id)
    RETURNING k.tenant_id, w.customer_id)
  SELECT count(*) INTO soon FROM (SELECT meterflow.queue_alerts(d.tenant_id, d.customer_id) FROM (SELECT DISTINCT * FROM gone) AS d) AS q;
  DELETE FROM meterflow.alert_grants AS k WHERE k.expired AND k.expires_at < clock - interval '1 day';
  RETURN done;
END $$;
COMMENT ON FUNCTION meterflow.watch_grants(integer) IS
  'The background job that announces credit grants meterflow.grant_expiring_days before they expire, and has balance alerts look at their customers once they have. Returns how many grants came near.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.alerts', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.alert_states', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.alert_queue', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.alert_queue_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.alert_grants', '');
