-- What customers may use: the rules by which entitlements count, their periods, grants and resets, and the limit enforced.
-- Times are of 2025, so that nothing depends on when the test is run.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set settings :source '/sql/include/settings.sql'
\set ECHO none
\i :billing
ALTER SYSTEM SET meterflow.backdate_window = '10000d';
\set setting meterflow.backdate_window
\set value 10000d
\i :settings
\set ECHO all
SET meterflow.tenant = 'entitlements';
SELECT meterflow.pause_worker();
-- Hours that long ago are days already, as the worker sees it; but there is nothing there yet.
UPDATE meterflow.fold_state SET hour_floor = '-infinity', hour_cleared = '-infinity', day_floor = '-infinity', day_cleared = '-infinity';
CREATE FUNCTION pg_temp.use(customer text, at timestamptz, n numeric DEFAULT 1, name text DEFAULT 'call') RETURNS text LANGUAGE sql
AS $$ SELECT coalesce(failed->0->>'code', accepted || ' accepted') FROM meterflow.ingest(json_build_object('transaction_id', concat_ws('-', customer, name, at, n), 'customer_id', customer,
        'event_name', name, 'timestamp', at, 'properties', json_build_object('n', n, 'user', 'user ' || n))) $$;
-- How a feature stands at each of several times.
CREATE FUNCTION pg_temp.at(customer text, feature text, VARIADIC times timestamptz[])
RETURNS TABLE (at timestamptz, allowed boolean, reason text, quota numeric, usage numeric, balance numeric, overage numeric, period_start timestamptz, period_end timestamptz) LANGUAGE sql
AS $$ SELECT t, a.allowed, a.reason, a.quota, a.usage, a.balance, a.overage, a.period_start, a.period_end
        FROM unnest(times) AS t, LATERAL meterflow.check_access(customer, feature, 1, t) AS a ORDER BY t $$;

INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('calls', 'call', 'sum', 'n'), ('logins', 'login', 'unique_count', 'user'), ('seats', 'seat', 'sum', 'n'),
  ('peak', 'call', 'max', 'n'), ('mean', 'call', 'avg', 'n'), ('level', 'call', 'weighted_sum', 'n'), ('last', 'call', 'latest', 'n');
INSERT INTO meterflow.customers (id, timezone) VALUES ('acme', 'Europe/Berlin'), ('beta', 'UTC'), ('gamma', 'UTC'), ('delta', 'UTC'), ('free', 'UTC'), ('nothing', 'UTC');
INSERT INTO meterflow.plans (key, currency, aligned) VALUES ('basic', 'EUR', true), ('pro', 'EUR', true), ('add-on', 'EUR', true), ('rolling', 'EUR', false);
INSERT INTO meterflow.prices (plan_key, key, model) VALUES ('basic', 'seat', '{"model":"per_unit","unit_amount":1}'), ('pro', 'seat', '{"model":"per_unit","unit_amount":2}');
INSERT INTO meterflow.features (key, kind, meter_key) VALUES ('api', 'metered', 'calls'), ('mau', 'metered', 'logins'), ('seats', 'metered', 'seats'), ('trial', 'metered', 'calls'),
  ('sso', 'boolean', NULL), ('region', 'static', NULL);
INSERT INTO meterflow.entitlements (feature_key, plan_key, amount) VALUES ('api', 'basic', 100), ('api', 'pro', 1000), ('api', 'add-on', 50), ('mau', 'basic', 3);
INSERT INTO meterflow.entitlements (feature_key, plan_key, enabled) VALUES ('sso', 'basic', false), ('sso', 'pro', true);
INSERT INTO meterflow.entitlements (feature_key, plan_key, value) VALUES ('region', 'basic', '"eu"'), ('region', 'pro', '["eu", "us"]');
INSERT INTO meterflow.entitlements (feature_key, plan_key, amount, reset) VALUES ('trial', 'basic', 150, 'never');

-- What means nothing is refused.
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'a maximum', $$INSERT INTO meterflow.features (key, kind, meter_key) VALUES ('x', 'metered', 'peak')$$),
  (2, 'a mean', $$INSERT INTO meterflow.features (key, kind, meter_key) VALUES ('x', 'metered', 'mean')$$),
  (3, 'a level', $$INSERT INTO meterflow.features (key, kind, meter_key) VALUES ('x', 'metered', 'level')$$),
  (4, 'the last value', $$INSERT INTO meterflow.features (key, kind, meter_key) VALUES ('x', 'metered', 'last')$$),
  (5, 'another kind', $$UPDATE meterflow.features SET kind = 'boolean', meter_key = NULL WHERE tenant_id = 'entitlements' AND key = 'api'$$),
  (6, 'of nobody', $$INSERT INTO meterflow.entitlements (feature_key, amount) VALUES ('api', 1)$$),
  (7, 'of two', $$INSERT INTO meterflow.entitlements (feature_key, plan_key, customer_id, amount) VALUES ('api', 'basic', 'acme', 1)$$),
  (8, 'of no plan', $$INSERT INTO meterflow.entitlements (feature_key, plan_key, amount) VALUES ('api', 'none', 1)$$),
  (9, 'no billing period', $$INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, reset) VALUES ('api', 'acme', 1, 'billing_period')$$),
  (10, 'a lifetime with an anchor', $$INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, reset, reset_anchor) VALUES ('api', 'acme', 1, 'never', '2025-01-01')$$),
  (11, 'a static feature without a value', $$INSERT INTO meterflow.entitlements (feature_key, customer_id) VALUES ('region', 'acme')$$),
  (12, 'a value of a metered one', $$INSERT INTO meterflow.entitlements (feature_key, customer_id, value) VALUES ('api', 'acme', '1')$$),
  (13, 'an amount of a boolean one', $$INSERT INTO meterflow.entitlements (feature_key, customer_id, amount) VALUES ('sso', 'acme', 1)$$),
  (14, 'no feature', $$SELECT meterflow.check_access('acme', 'apis')$$),
  (15, 'less than nothing', $$SELECT meterflow.check_access('acme', 'api', -1)$$),
  (16, 'no number', $$SELECT meterflow.check_access('acme', 'api', 'NaN')$$),
  (18, 'a history of a value', $$SELECT meterflow.entitlement_history('acme', 'region', '2025-01-01', '2025-02-01')$$),
  (19, 'a history of no time', $$SELECT meterflow.entitlement_history('acme', 'api', '2025-02-01', '2025-02-01')$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
-- The same twice is no second one.
\set VERBOSITY terse
INSERT INTO meterflow.entitlements (feature_key, plan_key, amount) VALUES ('api', 'basic', 100);
\set VERBOSITY default

-- A month of the subscription in its time zone: the whole at its start, nothing before it, and what is used counts before a time.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (7401, 'acme', 'basic', '2025-01-10'), (7402, 'beta', 'basic', '2025-01-01');
SELECT pg_temp.try($$SELECT meterflow.check_access('beta', 'api', 1, 'infinity')$$);
SELECT pg_temp.use('acme', '2025-01-09 23:00+00', 7), pg_temp.use('acme', '2025-01-15', 30), pg_temp.use('acme', '2025-01-31 22:59:59.999999+00', 80), pg_temp.use('acme', '2025-01-31 23:00+00', 1);
SELECT * FROM pg_temp.at('acme', 'api', '2025-01-09', '2025-01-10', '2025-01-15', '2025-01-15 00:00:00.000001+00', '2025-01-31 23:00+00', '2025-02-01');
SELECT quantity, a.allowed, a.reason, a.balance FROM unnest('{0,69.5,70,70.000001}'::numeric[]) AS quantity, LATERAL meterflow.check_access('acme', 'api', quantity, '2025-01-20') AS a;
SELECT quantity, a.allowed, a.reason, a.balance, a.overage FROM unnest('{0,1}'::numeric[]) AS quantity, LATERAL meterflow.check_access('acme', 'api', quantity, timestamptz '2025-01-31 23:00+00') AS a;
-- For a lifetime is for a lifetime: it is not granted anew each period (peers.md 2.6).
SELECT * FROM pg_temp.at('acme', 'trial', '2025-01-31', '2025-02-15', '2025-06-15');
SELECT pg_temp.use('acme', '2025-02-20', 45);
SELECT * FROM pg_temp.at('acme', 'trial', '2025-02-15', '2025-03-15', '2026-03-15');
-- Distinct values are used when they first occur in a period; a retry is no use at all.
SELECT pg_temp.use('acme', '2025-01-12', 1, 'login'), pg_temp.use('acme', '2025-01-13', 2, 'login'), pg_temp.use('acme', '2025-01-20', 1, 'login'), pg_temp.use('acme', '2025-02-03', 1, 'login'), pg_temp.use('acme', '2025-02-03', 1, 'login');
SELECT * FROM pg_temp.at('acme', 'mau', '2025-01-12', '2025-01-13', '2025-01-14', '2025-01-31', '2025-02-04');
SELECT meterflow.grant_quota('acme', 'mau', 5, 'more users', effective_at => '2025-01-13 12:00') IS NOT NULL AS granted;
SELECT segment_start, segment_end, began_with, usage, overage, entitlement_id IS NOT NULL AS plan, opening, used, closing FROM meterflow.entitlement_history('acme', 'mau', '2025-01-01', '2025-02-05');
-- To have or not to have, and values.
SELECT feature_key, allowed, reason, kind, quota, usage, balance, value FROM meterflow.customer_entitlements('acme', '2025-02-15');
SELECT feature_key, allowed, reason FROM meterflow.customer_entitlements('nothing', '2025-02-15');
SELECT feature_key, allowed, reason FROM meterflow.customer_entitlements('unheard of');
SELECT feature_key, allowed, reason FROM meterflow.customer_entitlements(NULL);

-- Of now: what this transaction has sent counts, also from a clock that is ahead, and goes with the transaction.
BEGIN;
SELECT pg_temp.use('beta', now(), 3) , pg_temp.use('beta', now() + interval '1 hour', 4);
SELECT a.allowed, a.quota, a.usage BETWEEN 3 AND 7 AS counted, a.period_start = date_trunc('month', now(), 'UTC') AS this_month FROM meterflow.check_access('beta', 'trial') AS t, LATERAL meterflow.check_access('beta', 'api') AS a WHERE t.usage = 7;
ROLLBACK;
SELECT usage FROM meterflow.check_access('beta', 'trial');
-- What is used is what usage() says, and nothing is written.
SELECT a.usage = u.value AS same FROM meterflow.check_access('acme', 'api', 1, '2025-01-28') AS a, LATERAL meterflow.usage('calls', a.period_start, '2025-01-28', 'acme') AS u;
BEGIN TRANSACTION READ ONLY;
SELECT allowed FROM meterflow.check_access('acme', 'api', 1, '2025-01-28');
COMMIT;
-- A void gives back, and a late event takes.
SELECT meterflow.void_event('acme-call-2025-01-15 00:00:00+00-30', 'a test') IS NOT NULL AS voided;
SELECT * FROM pg_temp.at('acme', 'api', '2025-01-31');
SELECT pg_temp.use('acme', '2025-01-16', 11);
SELECT * FROM pg_temp.at('acme', 'api', '2025-01-31');

-- A change of plan within a period: the new amount, less what was used; and no fresh one by changing to and fro.
SELECT meterflow.change_plan(7402, 'pro', 'up', at => '2025-03-10') > 0 AS changed;
SELECT meterflow.change_plan(7402, 'basic', 'down', at => '2025-03-20') > 0 AS changed;
SELECT pg_temp.use('beta', '2025-03-05', 60), pg_temp.use('beta', '2025-03-15', 10);
SELECT * FROM pg_temp.at('beta', 'api', '2025-03-06', '2025-03-10', '2025-03-16', '2025-03-20', '2025-04-01');
SELECT segment_start, segment_end, began_with, usage, overage, opening, used, closing FROM meterflow.entitlement_history('beta', 'api', '2025-03-01', '2025-04-02');
SELECT feature_key, a.allowed, a.reason, a.value FROM unnest('{sso,region}'::text[]) AS feature_key, unnest('{2025-03-06,2025-03-16}'::timestamptz[]) WITH ORDINALITY AS t (at, n), LATERAL meterflow.check_access('beta', feature_key, 1, t.at) AS a ORDER BY n, 1;
-- A change of quantity changes nothing; an add-on adds to the plan; paused, there is no access.
SELECT meterflow.change_quantity(7402, 'seat', 3, 'seats', at => '2025-04-10') > 0 AS changed;
SELECT meterflow.add_add_on(7402, 'add-on', 'more', at => '2025-04-15') > 0 AS added;
SELECT meterflow.pause_subscription(7402, 'pause', at => '2025-06-10') > 0 AS paused;
SELECT pg_temp.use('beta', '2025-04-05', 90), pg_temp.use('beta', '2025-04-16', 30);
SELECT * FROM pg_temp.at('beta', 'api', '2025-04-09', '2025-04-11', '2025-04-15', '2025-04-17', '2025-05-01', '2025-06-11');
SELECT segment_start, segment_end, began_with, usage, opening, used, closing FROM meterflow.entitlement_history('beta', 'api', '2025-04-02', '2025-05-02');
-- When it has ended, or not begun.
SELECT meterflow.cancel_subscription(7401, 'end', at => '2025-05-15') > 0 AS cancelled;
SELECT * FROM pg_temp.at('acme', 'api', '2024-12-01', '2025-05-14', '2025-05-15');

-- The most particular counts: a customer's own before a subscription's, that before the plan's. Of one holder the one that began last.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (7403, 'gamma', 'basic', '2025-01-01'), (7404, 'gamma', 'pro', '2025-01-01');
INSERT INTO meterflow.entitlements (feature_key, subscription_id, amount, valid_from, valid_to) VALUES ('api', 7403, 500, '2025-02-01', '2025-03-01');
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, valid_from, soft) VALUES ('api', 'gamma', 5, '2025-04-01', true), ('api', 'gamma', NULL, '2025-05-01', false), ('api', 'gamma', 8, '2025-06-01', false);
INSERT INTO meterflow.entitlements (feature_key, customer_id, enabled, valid_from, valid_to) VALUES ('api', 'gamma', false, '2025-07-01', '2025-08-01'), ('sso', 'gamma', false, '2025-07-01', '2025-08-01');
SELECT pg_temp.use('gamma', '2025-04-02', 7), pg_temp.use('gamma', '2025-05-02', 1000000), pg_temp.use('gamma', '2025-06-02', 9);
SELECT a.at, a.allowed, a.reason, a.quota, a.usage, a.balance, a.overage, s.soft FROM pg_temp.at('gamma', 'api', '2025-01-15', '2025-02-15', '2025-03-15', '2025-04-15', '2025-05-15', '2025-06-15', '2025-07-15', '2025-08-15') AS a, LATERAL meterflow.check_access('gamma', 'api', 1, a.at) AS s;
SELECT at, a.allowed, a.reason FROM unnest('{2025-06-15,2025-07-15,2025-08-15}'::timestamptz[]) AS at, LATERAL meterflow.check_access('gamma', 'sso', 1, at) AS a;

-- Calendars, in the customer's time zone: month-end clamped from the anchor; days; weeks counted from 1970.
INSERT INTO meterflow.customers (id, timezone) VALUES ('kolkata', 'Asia/Kolkata'), ('york', 'America/New_York'), ('weekly', 'UTC');
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, reset, reset_anchor) VALUES ('api', 'kolkata', 10, 'month', '2025-01-31 10:00+05:30');
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, reset) VALUES ('api', 'york', 10, 'day');
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, reset, reset_count) VALUES ('api', 'weekly', 10, 'week', 2);
SELECT at, period_start AT TIME ZONE 'Asia/Kolkata' AS period_start, period_end AT TIME ZONE 'Asia/Kolkata' AS period_end FROM pg_temp.at('kolkata', 'api', '2025-02-15', '2025-03-15', '2025-04-15');
SELECT at, period_end - period_start AS length FROM pg_temp.at('york', 'api', '2025-03-08 12:00', '2025-03-09 12:00', '2025-11-02 12:00');
SELECT count(*) AS of_its_day FROM meterflow.entitlement_history('york', 'api', '-infinity', '2025-03-09 12:00');
SELECT at, period_start, period_end FROM pg_temp.at('weekly', 'api', '2025-03-01', '2025-03-10', '2025-03-16');

-- Rollover, and overage that is preserved.
INSERT INTO meterflow.customers (id) VALUES ('saver'), ('debtor');
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, rollover_max, valid_from) VALUES ('api', 'saver', 100, 40, '2025-01-01');
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, preserve_overage, valid_from) VALUES ('api', 'debtor', 100, true, '2025-01-01');
SELECT pg_temp.use('saver', '2025-01-05', 80), pg_temp.use('saver', '2025-03-05', 130), pg_temp.use('debtor', '2025-01-05', 250);
SELECT * FROM pg_temp.at('saver', 'api', '2025-01-31', '2025-02-15', '2025-03-01', '2025-03-15', '2025-04-15');
SELECT * FROM pg_temp.at('debtor', 'api', '2025-01-31', '2025-02-15', '2025-03-15', '2025-04-15');

-- Grants: by priority, expiry, age; start inclusive, end exclusive; what the plan gives burns first.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (7405, 'delta', 'basic', '2025-01-01');
SELECT meterflow.grant_quota('delta', 'api', 50, 'pack', effective_at => '2025-01-01') AS pack \gset
SELECT meterflow.grant_quota('delta', 'api', 50.0, 'pack', effective_at => '2025-01-01') = :pack AS same;
SELECT meterflow.grant_quota('delta', 'api', 20, 'gift', effective_at => '2025-01-10', expires_at => '2025-01-20', reason => 'sorry') > :pack AS given,
       meterflow.grant_quota('delta', 'api', 5, 'daily', effective_at => '2025-01-05', expires_at => '2025-01-08', priority => -1, recurrence => 'day') > :pack AS given_daily;
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'another amount', $$SELECT meterflow.grant_quota('delta', 'api', 51, 'pack', effective_at => '2025-01-01')$$),
  (2, 'another time', $$SELECT meterflow.grant_quota('delta', 'api', 50, 'pack')$$),
  (3, 'nothing', $$SELECT meterflow.grant_quota('delta', 'api', 0, 'k')$$),
  (4, 'no number', $$SELECT meterflow.grant_quota('delta', 'api', 'NaN', 'k')$$),
  (5, 'no key', $$SELECT meterflow.grant_quota('delta', NULL, 1, '')$$),
  (6, 'nobody', $$SELECT meterflow.grant_quota('nobody', 'api', 1, 'k')$$),
  (7, 'nothing of the kind', $$SELECT meterflow.grant_quota('delta', 'sso', 1, 'k')$$),
  (8, 'no feature', $$SELECT meterflow.grant_quota('delta', 'apis', 1, 'k')$$),
  (9, 'an end before its beginning', $$SELECT meterflow.grant_quota('delta', 'api', 1, 'k', effective_at => '2025-01-02', expires_at => '2025-01-02')$$),
  (11, 'its end', $$DELETE FROM meterflow.entitlement_grants WHERE tenant_id = 'entitlements'$$),
  (12, 'a void for no reason', format('SELECT meterflow.void_quota(%s, %L)', :pack, '')),
  (13, 'a void of nothing', $$SELECT meterflow.void_quota(0, 'a test')$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
SELECT pg_temp.use('delta', '2025-01-03', 90), pg_temp.use('delta', '2025-01-05', 7), pg_temp.use('delta', '2025-01-06', 2), pg_temp.use('delta', '2025-01-12', 30), pg_temp.use('delta', '2025-02-02', 120);
SELECT * FROM pg_temp.at('delta', 'api', '2025-01-04', '2025-01-05', '2025-01-05 01:00', '2025-01-06', '2025-01-07', '2025-01-08', '2025-01-10', '2025-01-13', '2025-01-20', '2025-02-01', '2025-02-03', '2025-03-01');
SELECT h.segment_start, h.began_with, h.usage, h.overage, coalesce(g.idempotency_key, 'the plan') AS source, h.opening, h.used, h.closing
  FROM meterflow.entitlement_history('delta', 'api', '2025-01-01', '2025-02-03') WITH ORDINALITY AS h LEFT JOIN meterflow.entitlement_grants AS g ON g.tenant_id = 'entitlements' AND g.id = h.grant_id ORDER BY h.ordinality;
-- Nothing is lost or made between one segment and the next: what was there, and what came and went, less what was used.
SELECT bool_and(s.opening - s.used = s.closing AND s.closing >= 0) AS burned_down, sum(s.used) + max(s.overage) FILTER (WHERE s.segment_end = '2025-02-03') = sum(DISTINCT s.total) AS all_of_it
  FROM (SELECT h.*, (SELECT value FROM meterflow.usage('calls', '2025-01-01', '2025-02-03', 'delta')) AS total FROM meterflow.entitlement_history('delta', 'api', '2025-01-01', '2025-02-03') AS h) AS s;
-- A void ends a grant; what was used of it stays used. At its beginning, it never was. Again does nothing.
SELECT meterflow.void_quota(:pack, 'paid back', at => '2025-02-02 12:00') AS voided;
SELECT meterflow.void_quota(:pack, 'again') AS voided;
SELECT * FROM pg_temp.at('delta', 'api', '2025-02-02 11:00', '2025-02-02 12:00', '2025-03-01');
SELECT regexp_replace(pg_temp.try(format('UPDATE meterflow.entitlement_grants SET %s WHERE tenant_id = %L AND id = %s', change, 'entitlements', :pack)), 'grant \d+', 'grant N') AS refused FROM unnest('{voided_at = now(),voided_at = NULL,amount = 1000}'::text[]) AS change;
-- A grant needs no entitlement; and one that is taken away leaves none.
SELECT meterflow.grant_quota('free', 'api', 10, 'try it', effective_at => '2025-01-01', expires_at => '2025-02-01') IS NOT NULL AS granted, pg_temp.use('free', '2025-01-02', 4), pg_temp.use('free', '2024-12-31', 9);
SELECT * FROM pg_temp.at('free', 'api', '2024-12-31', '2025-01-03', '2025-02-01');
INSERT INTO meterflow.entitlements (feature_key, customer_id, enabled) VALUES ('api', 'free', false);
SELECT * FROM pg_temp.at('free', 'api', '2025-01-03');
DELETE FROM meterflow.entitlements WHERE tenant_id = 'entitlements' AND customer_id = 'free';

-- A reset by hand: the whole amount again, until the next reset of the calendar; a lifetime begins anew.
SELECT meterflow.reset_quota('acme', 'api', 'r1', at => '2025-01-31 12:00', reason => 'our fault') AS reset \gset
SELECT meterflow.reset_quota('acme', 'api', 'r1', at => '2025-01-31 12:00', reason => 'our fault') = :reset AS same;
SELECT * FROM pg_temp.at('acme', 'api', '2025-01-31 11:59', '2025-01-31 12:00', '2025-02-01');
SELECT meterflow.reset_quota('acme', 'trial', 'r2', at => '2025-02-25') > :reset AS reset;
SELECT * FROM pg_temp.at('acme', 'trial', '2025-02-24', '2025-02-25', '2025-03-15');
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'another time', $$SELECT meterflow.reset_quota('acme', 'api', 'r1')$$),
  (2, 'no key', $$SELECT meterflow.reset_quota('acme', 'api', NULL)$$),
  (3, 'nobody', $$SELECT meterflow.reset_quota('nobody', 'api', 'k')$$),
  (4, 'nothing of the kind', $$SELECT meterflow.reset_quota('acme', 'region', 'k')$$),
  (5, 'its end', $$DELETE FROM meterflow.entitlement_resets$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned

-- Where values go down, as of seats, they are given back.
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, reset) VALUES ('seats', 'delta', 3, 'never');
SELECT pg_temp.use('delta', '2025-01-02', 3, 'seat'), pg_temp.use('delta', '2025-01-03', -2, 'seat');
SELECT * FROM pg_temp.at('delta', 'seats', '2025-01-03', '2025-01-04');

-- The limit enforced: all or nothing, a retry passes, and what is not allowed is not stored.
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount, valid_from) VALUES ('api', 'nothing', 10, '2025-01-01');
CREATE FUNCTION pg_temp.within(feature text, id text, n numeric, customer text DEFAULT 'nothing') RETURNS text LANGUAGE sql
AS $$ SELECT pg_temp.try(format('SELECT accepted || %L || duplicates FROM meterflow.ingest_within(%L, %L, %L)', ' accepted, duplicates ', customer, feature,
        json_build_object('transaction_id', id, 'customer_id', customer, 'event_name', 'call', 'properties', json_build_object('n', n)))) $$;
\pset format unaligned
\pset tuples_only on
SELECT regexp_replace(pg_temp.within(feature, id, n, customer), '\d{4}-\d\d-\d\d [0-9:.+]+', 'TIME', 'g') FROM (VALUES (1, 'api', 'a', 8, 'nothing'), (2, 'api', 'b', 3, 'nothing'), (3, 'api', 'c', 2, 'nothing'),
  (4, 'api', 'a', 8, 'nothing'), (5, 'api', 'd', 0.1, 'nothing'), (6, 'trial', 'e', 1, 'nothing'), (7, 'apis', 'f', 1, 'nothing'), (8, 'api', 'g', 1, NULL)) AS t (step, feature, id, n, customer) ORDER BY step;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.within('api', 'h', 0);
ROLLBACK;
\pset tuples_only off
\pset format aligned
SELECT usage, balance, overage FROM meterflow.check_access('nothing', 'api');
SELECT transaction_id FROM meterflow.events WHERE tenant_id = 'entitlements' AND customer_id = 'nothing' ORDER BY seq;
-- Beyond a soft limit goes on.
UPDATE meterflow.entitlements SET soft = true WHERE tenant_id = 'entitlements' AND customer_id = 'nothing';
SELECT pg_temp.within('api', 'i', 5);
SELECT allowed, reason, usage, overage, soft FROM meterflow.check_access('nothing', 'api');

-- A copy of a plan has its entitlements; its first version keeps its own.
SELECT meterflow.clone_plan('basic') AS version;
SELECT feature_key, plan_version, enabled, value, amount, reset FROM meterflow.entitlements WHERE tenant_id = 'entitlements' AND plan_key = 'basic' ORDER BY feature_key, plan_version;

-- Whatever is folded or not, the answer is the same.
CREATE TEMPORARY VIEW standing AS
  SELECT c.id, t, a.* FROM meterflow.customers AS c, generate_series('2025-01-05'::timestamptz, '2025-06-05', '17 days 5 hours') AS t, LATERAL meterflow.customer_entitlements(c.id, t) AS a WHERE c.tenant_id = 'entitlements';
CREATE TEMPORARY TABLE before AS SELECT * FROM standing;
DO $$ BEGIN
  WHILE EXISTS (SELECT FROM meterflow.dirty_ranges) OR EXISTS (SELECT FROM meterflow.batches WHERE batch > (SELECT folded_batch FROM meterflow.fold_state)) LOOP
    PERFORM meterflow.fold();
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;
SELECT count(*) > 500 AS many FROM before;
SELECT * FROM (TABLE before EXCEPT SELECT * FROM standing) AS differences;
SELECT count(*) AS unlike_alone FROM standing AS s, LATERAL meterflow.check_access(s.id, s.feature_key, 1, s.t) AS a
 WHERE (s.allowed, s.reason, s.kind, s.quota, s.usage, s.balance, s.overage, s.period_start, s.period_end, s.soft, s.value)
       IS DISTINCT FROM (a.allowed, a.reason, a.kind, a.quota, a.usage, a.balance, a.overage, a.period_start, a.period_end, a.soft, a.value);
SELECT * FROM meterflow.verify_usage();

-- Another tenant has none of this.
SET meterflow.tenant = 'elsewhere';
SELECT count(*) FROM meterflow.customer_entitlements('acme');
SELECT pg_temp.try($$SELECT meterflow.check_access('acme', 'api')$$);
SELECT pg_temp.try(format('SELECT meterflow.void_quota(%s, %L)', :pack, 'a test')) LIKE '23503 there is no grant%' AS not_there;

ALTER SYSTEM RESET meterflow.backdate_window;
\set ECHO none
\set setting meterflow.backdate_window
\set value 34d
\i :settings
