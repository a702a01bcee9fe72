-- Alerts: on a balance that falls, on usage and spend that rise; each crossing is told once. What happens between sessions is
-- in tests/isolation.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'alerts';
SELECT meterflow.pause_worker();
INSERT INTO meterflow.customers (id, timezone) VALUES ('acme', 'America/New_York'), ('bolt', 'UTC'), ('child', 'UTC');
UPDATE meterflow.customers SET payer_id = 'bolt' WHERE id = 'child' AND tenant_id = 'alerts';
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('calls', 'call', 'sum', 'n'), ('peak', 'call', 'max', 'n'), ('others', 'other', 'count', NULL);
INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'USD');
INSERT INTO meterflow.prices (plan_key, key, meter_key, model) VALUES ('pro', 'calls', 'calls', '{"model":"per_unit","unit_amount":"0.5"}');
CREATE FUNCTION pg_temp.use(customer text, n numeric, id text DEFAULT gen_random_uuid()::text, name text DEFAULT 'call') RETURNS integer LANGUAGE sql
RETURN (SELECT accepted FROM meterflow.ingest(json_build_object('transaction_id', id, 'customer_id', customer, 'event_name', name, 'properties', json_build_object('n', n))));
-- What has been said since the last look, without the times of now.
CREATE SEQUENCE pg_temp.seen;
CREATE FUNCTION pg_temp.said() RETURNS TABLE (customer_id text, kind text, payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY SELECT o.customer_id, o.kind, o.payload - '{period_start,period_end}'::text[] FROM meterflow.outbox AS o
    WHERE o.tenant_id = 'alerts' AND o.id > (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM pg_temp.seen) ORDER BY o.id;
  PERFORM setval('pg_temp.seen', o.id) FROM meterflow.outbox AS o WHERE o.tenant_id = 'alerts' ORDER BY o.id DESC LIMIT 1;
END $$;
CREATE FUNCTION pg_temp.work() RETURNS TABLE (customer_id text, kind text, payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM meterflow.fold();
  PERFORM meterflow.work_off_alerts();
  RETURN QUERY SELECT * FROM pg_temp.said();
END $$;

-- Alerts that can not be say why.
INSERT INTO meterflow.alerts (key, what, currency, warning) VALUES ('wrong', 'credit', 'USD', 1);
INSERT INTO meterflow.alerts (key, what, warning) VALUES ('wrong', 'balance', 1);
INSERT INTO meterflow.alerts (key, what, currency, warning) VALUES ('wrong', 'usage', 'USD', 1);
INSERT INTO meterflow.alerts (key, what, currency, warning, period) VALUES ('wrong', 'spend', 'USD', 1, 'month');
INSERT INTO meterflow.alerts (key, what, meter_key, warning, period) VALUES ('wrong', 'usage', 'calls', 1, 'hour');
INSERT INTO meterflow.alerts (key, what, currency) VALUES ('wrong', 'spend', 'USD');
INSERT INTO meterflow.alerts (key, what, currency, warning, critical) VALUES ('wrong', 'balance', 'USD', 1, 2);
INSERT INTO meterflow.alerts (key, what, currency, warning, critical) VALUES ('wrong', 'spend', 'USD', 2, 1);
INSERT INTO meterflow.alerts (key, what, currency, warning) VALUES ('wrong', 'spend', 'USD', 'NaN');
INSERT INTO meterflow.alerts (key, what, currency, warning, hysteresis) VALUES ('wrong', 'spend', 'USD', 1, -1);
INSERT INTO meterflow.alerts (key, what, currency, warning) VALUES ('wrong', 'spend', 'XXQ', 1);
INSERT INTO meterflow.alerts (key, what, meter_key, warning) VALUES ('wrong', 'usage', 'no such meter', 1);
INSERT INTO meterflow.alerts (key, customer_id, what, meter_key, warning) VALUES ('wrong', 'nobody', 'usage', 'calls', 1);

-- The level of a value, from each level: entered at the threshold, left beyond the hysteresis. A balance is upside down.
SELECT v.value, level, meterflow.alert_level(r, level, v.value) AS rising
  FROM (VALUES (89), (90), (99), (100), (189), (190), (199), (200), (NULL)) AS v (value), unnest('{ok,warning,critical}'::text[]) AS level,
       LATERAL jsonb_populate_record(NULL::meterflow.alerts, '{"what":"usage","warning":100,"critical":200,"hysteresis":10}') AS r
 ORDER BY v.value, array_position('{ok,warning,critical}', level)
\crosstabview level value rising
SELECT count(*) FILTER (WHERE meterflow.alert_level(r, level, v.value) <> meterflow.alert_level(f, level, -v.value)) AS different_upside_down
  FROM generate_series(80, 210) AS v (value), unnest('{ok,warning,critical}'::text[]) AS level,
       LATERAL jsonb_populate_record(NULL::meterflow.alerts, '{"what":"usage","warning":100,"critical":200,"hysteresis":10}') AS r,
       LATERAL jsonb_populate_record(NULL::meterflow.alerts, '{"what":"balance","warning":-100,"critical":-200,"hysteresis":10}') AS f;
SELECT level, meterflow.alert_level(jsonb_populate_record(NULL::meterflow.alerts, '{"what":"usage","critical":200,"hysteresis":0}'), level, 199.5) AS only_critical,
       meterflow.alert_level(jsonb_populate_record(NULL::meterflow.alerts, '{"what":"usage","warning":200,"hysteresis":0}'), level, 200) AS only_warning
  FROM unnest('{ok,warning,critical}'::text[]) AS level;

-- No alert, nothing is queued: a fold has nobody to tell.
SELECT pg_temp.use('acme', 1, 'before');
SELECT meterflow.fold();
SELECT count(*) FROM meterflow.alert_queue WHERE tenant_id = 'alerts';

-- Usage, for every customer; nothing is said until a threshold is reached, and then once.
INSERT INTO meterflow.alerts (key, what, meter_key, period, warning, critical, hysteresis) VALUES ('calls', 'usage', 'calls', 'month', 100, 200, 20);
SELECT * FROM pg_temp.work();
SELECT pg_temp.use('acme', 98), pg_temp.use('bolt', 50);
SELECT * FROM pg_temp.work();
SELECT pg_temp.use('acme', 1, 'hundred');
SELECT * FROM pg_temp.work();
SELECT pg_temp.use('acme', 50);
SELECT * FROM pg_temp.work();
SELECT alert_key, customer_id, level, value, look_at < 'infinity' AS looks_again, error FROM meterflow.alert_states WHERE tenant_id = 'alerts' ORDER BY 1, 2;
-- By two levels at once; a customer nobody has heard of.
SELECT pg_temp.use('bolt', 500), pg_temp.use('unknown', 1000.50);
SELECT * FROM pg_temp.work();
-- Taken back: within the hysteresis the level stays.
SELECT pg_temp.use('acme', -60), pg_temp.use('acme', -5);
SELECT * FROM pg_temp.work();
SELECT pg_temp.use('acme', -5);
SELECT * FROM pg_temp.work();
SELECT pg_temp.use('acme', 200);
SELECT * FROM pg_temp.work();
-- Events that are not measured by an alert's meter queue nobody.
SELECT pg_temp.use('acme', 1, 'other', 'other');
SELECT meterflow.fold();
SELECT count(*) FROM meterflow.alert_queue WHERE tenant_id = 'alerts';

-- A voided maximum is rebuilt from raw events: that is a fold, too.
INSERT INTO meterflow.alerts (key, customer_id, what, meter_key, period, warning) VALUES ('peak', 'bolt', 'usage', 'peak', 'year', 1000);
SELECT pg_temp.use('bolt', 5000, 'most');
SELECT * FROM pg_temp.work();
SELECT meterflow.void_event('most', 'a mistake') IS NOT NULL AS voided;
SELECT * FROM pg_temp.work();

-- Thresholds change: looked at anew. Switched off, nothing is said.
UPDATE meterflow.alerts SET warning = 10, critical = 50 WHERE tenant_id = 'alerts' AND key = 'calls';
SELECT * FROM pg_temp.work();
UPDATE meterflow.alerts SET enabled = false WHERE tenant_id = 'alerts' AND key = 'calls';
SELECT pg_temp.use('acme', 10000);
SELECT * FROM pg_temp.work();
UPDATE meterflow.alerts SET meter_key = 'peak' WHERE tenant_id = 'alerts' AND key = 'calls';

-- A new period begins at ok: those who were told of are told so when it begins, used or not.
UPDATE meterflow.alerts SET enabled = true, warning = 100, critical = 200 WHERE tenant_id = 'alerts' AND key = 'calls';
SELECT count(*) FROM pg_temp.work();
BEGIN;
UPDATE meterflow.alert_states SET period_start = period_start - interval '1 month', look_at = now() - interval '1 day' WHERE tenant_id = 'alerts' AND alert_key = 'calls';
-- Of this month all is voided but what 'bolt' used: that is critical again.
INSERT INTO meterflow.alerts (key, what, meter_key, period, warning) VALUES ('nothing', 'usage', 'others', 'day', 1000);
DELETE FROM meterflow.alert_queue;
SELECT pg_temp.use('acme', -value) FROM meterflow.usage('calls', date_trunc('month', now()) - interval '1 day', now() + interval '1 day', 'acme');
SELECT meterflow.work_off_alerts() > 0 AS looked;
SELECT customer_id, payload->>'level' AS level, payload->>'previous_level' AS previous_level FROM pg_temp.said() ORDER BY 1;
SELECT meterflow.work_off_alerts();
ROLLBACK;

-- The period: of the customer's calendar, or of the subscription that prices the meter.
CREATE FUNCTION pg_temp.period(customer text, period text) RETURNS TABLE (period_start timestamptz, period_end timestamptz) LANGUAGE sql AS $$
  SELECT p.* FROM meterflow.alert_period(jsonb_populate_record(NULL::meterflow.alerts, jsonb_build_object('tenant_id', 'alerts', 'what', 'usage', 'meter_key', 'calls', 'period', period)), customer) AS p $$;
SELECT p AS period, w.period_start = date_trunc(p, now(), 'America/New_York') AS starts, w.period_end = (date_trunc(p, now() AT TIME ZONE 'America/New_York') + ('1 ' || replace(p, 'quarter', 'month') )::interval * CASE p WHEN 'quarter' THEN 3 ELSE 1 END) AT TIME ZONE 'America/New_York' AS ends
  FROM unnest('{day,week,month,quarter,year}'::text[]) AS p, pg_temp.period('acme', p) AS w;
SELECT period_start = date_trunc('month', now(), 'America/New_York') AS a_month_without_a_subscription FROM pg_temp.period('acme', 'billing');
SELECT period_start = date_trunc('month', now(), 'UTC') AS of_utc_without_a_customer FROM pg_temp.period('unknown', 'billing');
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (7701, 'acme', 'pro', date_trunc('hour', now()) - interval '1 hour');
SELECT p.period_start = c.period_start AND p.period_end = c.period_end AS of_the_subscription, p.period_start = date_trunc('hour', now()) - interval '1 hour' AS from_its_start
  FROM pg_temp.period('acme', 'billing') AS p, meterflow.current_period(7701) AS c;

-- Spend: what is not invoiced yet.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (7702, 'bolt', 'pro', date_trunc('hour', now()) - interval '1 hour');
INSERT INTO meterflow.alerts (key, customer_id, what, currency, warning, critical) VALUES ('spend', 'bolt', 'spend', 'USD', 250, 1000);
SELECT * FROM pg_temp.work() WHERE payload->>'alert' = 'spend';
SELECT * FROM pg_temp.work();

-- A balance, looked at by the verbs that write to the ledger, in their transaction; it has no wallet yet, so no balance.
INSERT INTO meterflow.alerts (key, customer_id, what, currency, warning, critical, hysteresis) VALUES ('low', 'bolt', 'balance', 'USD', 50, 10, 5);
SELECT * FROM pg_temp.work();
SELECT meterflow.top_up('bolt', 325, 'USD', '1') > 0 AS paid;
SELECT available FROM meterflow.wallet_balance('bolt', 'USD');
SELECT meterflow.credit_changed('bolt', 'USD', '[]'), meterflow.credit_changed('bolt', 'EUR', '[]'), meterflow.credit_changed('acme', 'USD', '[]');
SELECT * FROM pg_temp.said();
-- Usage lowers it: also that of a customer it pays for.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (7703, 'child', 'pro', date_trunc('hour', now()) - interval '1 hour');
SELECT pg_temp.use('child', 80);
SELECT * FROM pg_temp.work() WHERE kind = 'low_balance';
BEGIN;
SELECT meterflow.top_up('bolt', 15, 'USD', '2') > 0 AS paid;
SELECT meterflow.credit_changed('bolt', 'USD', '[]');
SELECT available FROM meterflow.wallet_balance('bolt', 'USD');
SELECT * FROM pg_temp.said();
SELECT meterflow.top_up('bolt', 0.01, 'USD', '3') > 0 AS paid;
SELECT meterflow.credit_changed('bolt', 'USD', '[]');
SELECT * FROM pg_temp.said();
ROLLBACK;
SELECT level FROM meterflow.alert_states WHERE tenant_id = 'alerts' AND alert_key = 'low';
SELECT * FROM meterflow.evaluate_alerts('child');

-- Consumers hear of usage, once a fold and customer, and of invoices; the alerts' spend is looked at when it is invoiced.
INSERT INTO meterflow.outbox_consumers (name, notify, kinds) VALUES ('u', false, '{usage_updated,invoice_finalized}');
SELECT pg_temp.use('acme', 1), pg_temp.use('acme', 2), pg_temp.use('bolt', 1), pg_temp.use('unknown', 1, 'u', 'other');
SELECT * FROM pg_temp.work() WHERE kind NOT IN ('low_balance', 'limit_reached') ORDER BY 1;
CALL meterflow.run_billing(now() + interval '2 months');
SELECT customer_id, kind, payload - '{invoice_id,due_at}'::text[] AS payload FROM pg_temp.said() WHERE kind NOT IN ('low_balance', 'limit_reached') ORDER BY 1;
SELECT customer_id, payload FROM pg_temp.work() WHERE payload->>'alert' = 'spend';

-- A batch of debits tells of those whose credit it changed: not of one it refused, nor of one debited before.
INSERT INTO meterflow.outbox_consumers (name, notify, kinds) VALUES ('b', false, '{wallet_balance_changed}');
SELECT ordinal, code FROM meterflow.debit_rows('{bolt,acme}', '{0.01,1}', 'USD', '{b 1,b 2}');
SELECT customer_id, kind FROM pg_temp.said() WHERE kind = 'wallet_balance_changed';
SELECT ordinal, code FROM meterflow.debit_rows('{bolt,acme}', '{0.01,1}', 'USD', '{b 1,b 2}');
SELECT customer_id, kind FROM pg_temp.said();

-- One that can't be computed does not stop the others, nor the write: it is written down, and tried again.
BEGIN;
UPDATE meterflow.alerts SET warning = 1, critical = 2 WHERE tenant_id = 'alerts' AND key = 'calls';
INSERT INTO meterflow.alerts (key, customer_id, what, currency, warning) VALUES ('again', 'bolt', 'spend', 'USD', 0.01);
ALTER TABLE meterflow.wallets RENAME TO hidden;
SELECT meterflow.credit_changed('bolt', 'USD', '[]');
SELECT alert_key, error, look_at > now() AS again FROM meterflow.alert_states WHERE error IS NOT NULL;
SELECT count(*) FROM pg_temp.work() WHERE payload->>'alert' = 'again';
ALTER TABLE meterflow.hidden RENAME TO wallets;
SELECT meterflow.credit_changed('bolt', 'USD', '[]');
SELECT count(*) AS failing FROM meterflow.alert_states WHERE error IS NOT NULL;
ROLLBACK;

-- Alerts go with what they have said.
DELETE FROM meterflow.alerts WHERE tenant_id = 'alerts';
DELETE FROM meterflow.outbox_consumers WHERE tenant_id = 'alerts';
SELECT count(*) FROM meterflow.alert_states WHERE tenant_id = 'alerts';
