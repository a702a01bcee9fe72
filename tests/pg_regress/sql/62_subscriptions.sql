-- Subscriptions: how they begin, change, pause and end, and what each change costs. They are of a time to come, so that
-- nothing depends on when the test is run: 2040 has a leap day, April has 30 days of 24 hours in UTC.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set ECHO none
\i :billing
\set ECHO all
SET meterflow.tenant = 'subscriptions';
INSERT INTO meterflow.customers (id, timezone) VALUES ('utc', 'UTC'), ('berlin', 'Europe/Berlin'), ('york', 'America/New_York'), ('apia', 'Pacific/Apia'), ('lord', 'Australia/Lord_Howe');
INSERT INTO meterflow.plans (key, version, currency, interval_unit, interval_count, aligned) VALUES
  ('basic', 1, 'EUR', 'month', 1, true), ('pro', 1, 'EUR', 'month', 1, true), ('yearly', 1, 'EUR', 'year', 1, false), ('dollars', 1, 'USD', 'month', 1, true),
  ('monthly', 1, 'EUR', 'month', 1, false), ('daily', 1, 'EUR', 'day', 1, true), ('weekly', 1, 'EUR', 'week', 2, true), ('storage', 1, 'EUR', 'month', 1, true), ('trial', 1, 'EUR', 'month', 1, true), ('old', 1, 'EUR', 'month', 1, true);
INSERT INTO meterflow.plan_phases (plan_key, ordinal, name, duration, free) VALUES ('trial', 1, 'trial', '14 days', true), ('trial', 2, 'ramp', '2 months', false), ('trial', 3, 'full', NULL, false);
INSERT INTO meterflow.prices (plan_key, key, model, advance, once, phase) VALUES
  ('basic', 'base', '{"model":"flat","amount":"30"}', true, false, NULL), ('basic', 'seat', '{"model":"per_unit","unit_amount":"6"}', true, false, NULL),
  ('pro', 'base', '{"model":"flat","amount":"90"}', true, false, NULL), ('pro', 'seat', '{"model":"per_unit","unit_amount":"9"}', true, false, NULL), ('pro', 'setup', '{"model":"flat","amount":"50"}', false, true, NULL),
  ('yearly', 'base', '{"model":"flat","amount":"365"}', true, false, NULL), ('dollars', 'base', '{"model":"flat","amount":"30"}', true, false, NULL),
  ('monthly', 'base', '{"model":"flat","amount":"31"}', true, false, NULL), ('daily', 'base', '{"model":"flat","amount":"1"}', true, false, NULL), ('weekly', 'base', '{"model":"flat","amount":"14"}', true, false, NULL),
  ('storage', 'gb', '{"model":"per_unit","unit_amount":"2"}', true, false, NULL),
  ('trial', 'ramp', '{"model":"flat","amount":"60"}', true, false, 'ramp'), ('trial', 'full', '{"model":"flat","amount":"100"}', true, false, 'full');
UPDATE meterflow.plans SET archived_at = now() WHERE tenant_id = 'subscriptions' AND key = 'old';

-- What can't begin.
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'an unknown plan', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key) VALUES ('utc', 'none')$$),
  (2, 'a plan that is no longer offered', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key) VALUES ('utc', 'old')$$),
  (3, 'an unknown version', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key, plan_version) VALUES ('utc', 'basic', 7)$$),
  (4, 'an unknown customer', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key) VALUES ('nobody', 'basic')$$),
  (5, 'an end before its start', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at, ends_at) VALUES ('utc', 'basic', '2040-04-02', '2040-04-01')$$),
  (6, 'no start', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('utc', 'basic', 'infinity')$$),
  (7, 'quantities that are a list', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key, quantities) VALUES ('utc', 'basic', '[5]')$$),
  (8, 'fewer seats than none', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key, quantities) VALUES ('utc', 'basic', '{"seat": -5}')$$),
  (9, 'a number of words', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key, quantities) VALUES ('utc', 'basic', '{"seat": "five"}')$$),
  (10, 'no number', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key, quantities) VALUES ('utc', 'basic', '{"seat": null}')$$),
  (12, 'more than can be counted', $$INSERT INTO meterflow.subscriptions (customer_id, plan_key, quantities) VALUES ('utc', 'basic', '{"seat": 1e60}')$$),
  (11, 'an unknown zone', $$INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, timezone) VALUES (6299, 'utc', 'basic', 'CEST')$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
-- A name of one's own makes creating it twice an error.
INSERT INTO meterflow.subscriptions (id, key, customer_id, plan_key, starts_at, quantities) VALUES (6201, 'order 1', 'utc', 'basic', '2040-04-01', '{"seat": 5}')
RETURNING plan_version, timezone, anchor, next_bill_at;
\set VERBOSITY terse
INSERT INTO meterflow.subscriptions (customer_id, key, plan_key, starts_at) VALUES ('utc', 'order 1', 'basic', '2040-04-01');
\set VERBOSITY default
-- How it began is for ever.
\pset format unaligned
\pset tuples_only on
SELECT pg_temp.try($$UPDATE meterflow.subscriptions SET starts_at = '2040-03-01' WHERE tenant_id = 'subscriptions' AND id = 6201$$)
UNION ALL SELECT pg_temp.try($$DELETE FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id = 6201$$)
UNION ALL SELECT pg_temp.try($$UPDATE meterflow.subscription_changes SET reason = 'none'$$)
UNION ALL SELECT pg_temp.try($$DELETE FROM meterflow.subscription_changes$$);
\pset tuples_only off
\pset format aligned
SELECT change, effective_at, details FROM meterflow.subscription_changes WHERE tenant_id = 'subscriptions' AND subscription_id = 6201;

-- Periods. The 31st, and a start in the middle of a month of the calendar.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at, ends_at) VALUES
  (6202, 'berlin', 'monthly', '2040-01-31 10:00 Europe/Berlin', NULL), (6203, 'berlin', 'basic', '2040-03-10 12:00 Europe/Berlin', '2040-05-20 Europe/Berlin'),
  (6204, 'york', 'daily', '2040-03-09 America/New_York', NULL), (6205, 'york', 'weekly', '2040-03-05 12:00 America/New_York', NULL), (6206, 'apia', 'monthly', '2040-01-30 02:30 Pacific/Apia', NULL),
  (6207, 'lord', 'daily', '2040-03-30 Australia/Lord_Howe', NULL);
SELECT d::date AS at, p.period_start AT TIME ZONE 'Europe/Berlin' AS period_start, p.period_end AT TIME ZONE 'Europe/Berlin' AS period_end, p.period_end - p.period_start AS length
  FROM unnest('{2040-01-31,2040-02-01,2040-03-01,2040-04-15,2041-02-28,2041-03-15}'::timestamptz[]) AS d, LATERAL meterflow.current_period(6202, d) AS p;
SELECT d AT TIME ZONE 'Europe/Berlin' AS at, p.period_start AT TIME ZONE 'Europe/Berlin' AS period_start, p.period_end AT TIME ZONE 'Europe/Berlin' AS period_end
  FROM unnest('{2040-03-10 10:59:59+00,2040-03-10 11:00+00,2040-04-01,2040-05-19 21:59+00,2040-05-19 22:00+00}'::timestamptz[]) AS d, LATERAL meterflow.current_period(6203, d) AS p;
SELECT p.period_start AT TIME ZONE 'America/New_York' AS period_start, p.period_end - p.period_start AS length
  FROM unnest('{2040-03-10 17:00+00,2040-03-11 17:00+00,2040-11-04 17:00+00,2040-11-05 17:00+00}'::timestamptz[]) AS d, LATERAL meterflow.current_period(6204, d) AS p;
-- None overlaps, none leaves a gap: each time is in its period, which ends where the next begins.
SELECT s.id, count(DISTINCT p.period_start) AS periods, bool_and(d >= p.period_start AND d < p.period_end) AS inside, bool_and(n.period_start = p.period_end) AS tiled
  FROM meterflow.subscriptions AS s, generate_series(s.starts_at, s.starts_at + interval '400 days', '13 hours') AS d,
       LATERAL meterflow.current_period(s.id, d) AS p, LATERAL meterflow.current_period(s.id, p.period_end) AS n
 WHERE s.tenant_id = 'subscriptions' AND s.id BETWEEN 6202 AND 6207 AND s.ends_at IS NULL GROUP BY 1 ORDER BY 1;

-- Billed as they begin: whole periods, and what of the first one there is.
SELECT * FROM pg_temp.bill('2040-04-01');
SELECT count(*) AS faults FROM bill_faults;
SELECT description, period_start, period_end, quantity, amount FROM bill_lines WHERE subscription_id = 6201;
-- 22 of 31 days less 12 hours, and April has an hour less for daylight saving time, which moved the end of March.
SELECT description, amount, amount = meterflow.prorate(CASE description WHEN 'base' THEN 30 ELSE 6 END, period_start, period_end, '2040-03-01 Europe/Berlin', '2040-04-01 Europe/Berlin')::numeric(10,2) AS prorated
  FROM bill_lines WHERE subscription_id = 6203 AND period_start < '2040-03-31';
SELECT subscription_id, count(*), sum(amount) FROM bill_lines WHERE subscription_id IN (6202, 6204, 6205, 6206, 6207) GROUP BY 1 ORDER BY 1;
SELECT meterflow.cancel_subscription(id, 'away ' || id, at => '2040-04-03') > 0 AS cancelled FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id BETWEEN 6202 AND 6207;
SELECT count(*) > 0 AS billed FROM pg_temp.bill('2040-04-05');
-- What was paid in advance came back: in all, each has paid for the time it ran.
SELECT s.id, (SELECT sum(l.amount) FROM bill_lines AS l WHERE l.subscription_id = s.id) AS paid,
       (SELECT sum(round(meterflow.prorate(meterflow.price(r.model, 1), greatest(p.period_start, s.starts_at), least(p.period_end, s.ends_at), p.period_start, p.period_end), 2))
          FROM meterflow.plans AS l JOIN meterflow.prices AS r ON (r.tenant_id, r.plan_key) = (l.tenant_id, l.key),
               LATERAL meterflow.billing_periods(s.anchor, l.interval_unit, l.interval_count, l.aligned, s.timezone, s.starts_at, s.ends_at) AS p
         WHERE (l.tenant_id, l.key) = (s.tenant_id, s.plan_key)) AS by_the_calendar
  FROM meterflow.subscriptions AS s WHERE s.tenant_id = 'subscriptions' AND s.id BETWEEN 6202 AND 6207 ORDER BY 1;
SELECT customer_id, amount, source FROM meterflow.account_credits WHERE tenant_id = 'subscriptions' ORDER BY 1, 2;

-- A change of plan in the middle of April, seats and all, as it would be: half of each, by the second, and May.
CREATE TEMPORARY VIEW preview AS SELECT kind, plan_key, description, period_start::date AS from, period_end::date AS to, quantity, due_amount AS due, billed_before AS before, amount FROM meterflow.preview_invoice(6201);
CREATE TEMPORARY VIEW timeline AS
  SELECT plan_key, plan_version AS v, add_on, quantities, starts_at::date, ends_at::date FROM meterflow.subscription_items WHERE tenant_id = 'subscriptions' AND subscription_id = 6201 ORDER BY subscription_items.starts_at, id;
SELECT * FROM preview;
SELECT plan_key, description, period_start::date AS from, period_end::date AS to, quantity, due_amount AS due, billed_before AS before, amount FROM meterflow.preview_plan_change(6201, 'pro', at => '2040-04-16');
SELECT sum(amount) = (-30 + 90 - 5 * 6 + 5 * 9) / 2.0 + 50 + 90 + 5 * 9 AS adds_up FROM meterflow.preview_plan_change(6201, 'pro', at => '2040-04-16');
-- It has left nothing behind.
SELECT * FROM timeline;
SELECT count(*) FROM meterflow.subscription_changes WHERE tenant_id = 'subscriptions' AND subscription_id = 6201;
-- Done, and again with the same key: once; with the same key and another body: an error.
SELECT meterflow.change_plan(6201, 'pro', 'up', at => '2040-04-16', reason => 'they grow') AS up \gset
SELECT meterflow.change_plan(6201, 'pro', 'up', at => '2040-04-16') = :up AS same;
SET TimeZone = 'Asia/Tokyo';
SELECT meterflow.change_plan(6201, 'pro', 'up', at => '2040-04-16 09:00') = :up AS same_from_elsewhere;
RESET TimeZone;
SELECT next_bill_at AS with_the_next_invoice FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id = 6201;
SELECT sum(amount) = 17.5 + 20 + 50 + 90 + 45 AS as_previewed FROM preview;
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'the key for another plan', $$SELECT meterflow.change_plan(6201, 'yearly', 'up', at => '2040-04-16')$$),
  (2, 'the key for another change', $$SELECT meterflow.cancel_subscription(6201, 'up')$$),
  (3, 'the key for another subscription', $$SELECT meterflow.change_plan(6202, 'pro', 'up', at => '2040-04-16')$$),
  (4, 'no key', $$SELECT meterflow.change_plan(6201, 'pro', '')$$),
  (5, 'an unknown subscription', $$SELECT meterflow.change_plan(1, 'pro', 'k')$$),
  (6, 'an unknown plan', $$SELECT meterflow.change_plan(6201, 'none', 'k', at => '2040-04-20')$$),
  (7, 'an unknown version', $$SELECT meterflow.change_plan(6201, 'basic', 'k', at => '2040-04-20', plan_version => 3)$$),
  (8, 'a plan that is no longer offered', $$SELECT meterflow.change_plan(6201, 'old', 'k', at => '2040-04-20')$$),
  (9, 'another currency', $$SELECT meterflow.change_plan(6201, 'dollars', 'k', at => '2040-04-20')$$),
  (10, 'the plan it has', $$SELECT meterflow.change_plan(6201, 'pro', 'k', at => '2040-04-20')$$),
  (11, 'before it began', $$SELECT meterflow.change_plan(6201, 'basic', 'k')$$),
  (12, 'before another change', $$SELECT meterflow.change_plan(6201, 'yearly', 'k', at => '2040-04-10')$$),
  (13, 'some time', $$SELECT meterflow.change_plan(6201, 'basic', 'k', timing => 'soon')$$),
  (14, 'two times', $$SELECT meterflow.change_plan(6201, 'basic', 'k', timing => 'period_end', at => '2040-04-20')$$),
  (15, 'at the end of time', $$SELECT meterflow.change_plan(6201, 'basic', 'k', at => 'infinity')$$),
  (16, 'to be billed some time', $$SELECT meterflow.change_plan(6201, 'basic', 'k', at => '2040-04-20', bill => 'later')$$),
  (17, 'a quantity of what is no fee', $$SELECT meterflow.change_quantity(6201, 'calls', 5, 'k', at => '2040-04-20')$$),
  (18, 'a quantity below zero', $$SELECT meterflow.change_quantity(6201, 'seat', -5, 'k', at => '2040-04-20')$$),
  (19, 'an unknown add-on', $$SELECT meterflow.add_add_on(6201, 'none', 'k', at => '2040-04-20')$$),
  (20, 'an add-on in another currency', $$SELECT meterflow.add_add_on(6201, 'dollars', 'k', at => '2040-04-20')$$),
  (21, 'an add-on that it has not', $$SELECT meterflow.remove_add_on(6201, 'storage', 'k', at => '2040-04-20')$$),
  (22, 'a pause that ends before it begins', $$SELECT meterflow.pause_subscription(6201, 'k', at => '2040-04-20', until => '2040-04-19')$$),
  (23, 'resumed without a pause', $$SELECT meterflow.resume_subscription(6201, 'k', at => '2040-04-20')$$),
  (24, 'not cancelled', $$SELECT meterflow.uncancel_subscription(6201, 'k')$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
-- And back, at the same time: as if nothing had been, whatever the set-up of pro costs.
SELECT meterflow.change_plan(6201, 'basic', 'down', at => '2040-04-16') > :up AS later;
SELECT * FROM preview;
SELECT * FROM timeline;
-- All that is still to come is taken back.
SELECT meterflow.cancel_scheduled_change(6201, 'as it was') > 0 AS undone;
SELECT * FROM timeline;
SELECT pg_temp.try($$SELECT meterflow.cancel_scheduled_change(6201, 'nothing left')$$);
-- At the end of the period: nothing of April changes.
SELECT meterflow.change_plan(6201, 'pro', 'at the end', timing => 'period_end') > 0 AS planned;
SELECT * FROM preview;
SELECT meterflow.cancel_scheduled_change(6201, 'not yet') > 0 AS undone;

-- Seats: three more for the last ten days.
SELECT meterflow.change_quantity(6201, 'seat', 8, 'hired', at => '2040-04-21') > 0 AS changed;
SELECT * FROM preview;
SELECT sum(amount) FILTER (WHERE "from" < '2040-05-01') = 3 * 6 / 3.0 AS three_seats_for_a_third FROM preview;
-- An add-on for the last six days, and its end.
SELECT meterflow.add_add_on(6201, 'storage', 'more room', at => '2040-04-25', quantities => '{"gb": 10}') > 0 AS added;
SELECT * FROM preview WHERE description = 'gb';
SELECT meterflow.remove_add_on(6201, 'storage', 'less room', at => '2040-04-28') > 0 AS removed;
SELECT * FROM preview WHERE description = 'gb';
SELECT 3 * 10 * 2 / 30.0 AS three_days;
SELECT * FROM timeline;
-- A pause of ten days gives back a third, of what was billed and of what would be.
SELECT meterflow.pause_subscription(6201, 'holidays', at => '2040-04-06', until => '2040-04-16') > 0 AS paused;
SELECT * FROM preview WHERE "from" < '2040-05-01';
SELECT pg_temp.try($$SELECT meterflow.pause_subscription(6201, 'holidays 2', at => '2040-04-10')$$);
SELECT meterflow.resume_subscription(6201, 'back early', at => '2040-04-11') > 0 AS resumed;
SELECT * FROM preview WHERE "from" < '2040-05-01' AND description = 'base';
SELECT meterflow.pause_subscription(6201, 'for good', at => '2040-04-29') > 0 AS paused, paused FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id = 6201;
SELECT d, meterflow.subscription_status(6201, d) AS status FROM unnest('{2040-03-31 23:59:59,2040-04-01,2040-04-06,2040-04-11,2040-04-29,2041-01-01}'::timestamptz[]) AS d;
SELECT meterflow.resume_subscription(6201, 'after all', at => '2040-04-29') > 0 AS resumed;
SELECT meterflow.pause_subscription(6201, 'for ever', at => '2040-04-29', until => 'infinity') > 0 AS paused;
SELECT count(*) FROM preview;
SELECT paused FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id = 6201;
SELECT meterflow.resume_subscription(6201, 'for ever is over', at => '2040-04-29') > 0 AS resumed;
-- On the invoice of May it is what was previewed.
SELECT sum(amount) AS expected FROM preview \gset
SELECT * FROM pg_temp.bill('2040-05-01') WHERE customer_id = 'utc';
SELECT subtotal = :expected AS as_previewed FROM bills WHERE customer_id = 'utc' ORDER BY bill_at DESC LIMIT 1;
SELECT kind, description, period_start::date AS from, period_end::date AS to, quantity, due_amount AS due, billed_before AS before, amount, adjusts FROM bill_lines WHERE subscription_id = 6201 AND number = (SELECT max(number) FROM bills WHERE customer_id = 'utc');
SELECT count(*) AS faults FROM bill_faults;
SELECT * FROM pg_temp.bill('2040-05-01');

-- Cancelled at the end of the period, and not; at once, with what was paid for the rest of it given back; and no more after its end.
SELECT meterflow.cancel_subscription(6201, 'leaving', timing => 'period_end') > 0 AS cancelled;
SELECT ends_at, meterflow.subscription_status(6201, '2040-04-30') AS status, meterflow.subscription_status(6201, ends_at) AS after FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id = 6201;
SELECT meterflow.uncancel_subscription(6201, 'staying') > 0 AS uncancelled;
SELECT ends_at, meterflow.subscription_status(6201, '2040-05-30') AS status FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id = 6201;
SELECT meterflow.cancel_subscription(6201, 'leaving at last', at => '2040-05-11') > 0 AS cancelled;
SELECT pg_temp.try($$SELECT meterflow.change_plan(6201, 'pro', 'too late', at => '2040-06-01')$$);
SELECT * FROM pg_temp.bill('2040-06-01') WHERE customer_id = 'utc';
SELECT description, due_amount, billed_before, amount, due_amount = round(CASE description WHEN 'base' THEN 30 ELSE 48 END * 10 / 31.0, 2) AS ten_of_31_days FROM bill_lines
 WHERE subscription_id = 6201 AND number = (SELECT max(number) FROM bills WHERE customer_id = 'utc');
SELECT amount, currency, source FROM meterflow.account_credits WHERE tenant_id = 'subscriptions' AND customer_id = 'utc';
-- What it paid over its life is what its timeline comes to.
SELECT sum(amount) = 30 - 5 + 5 * 6 * 15 / 30.0 + 8 * 6 * 10 / 30.0 + 3 * 10 * 2 / 30.0 + round(300/31.0, 2) + round(480/31.0, 2) AS whole FROM bill_lines WHERE subscription_id = 6201;
-- Cancelled before it began: it never runs, and nothing is billed.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6208, 'utc', 'basic', '2040-07-01');
SELECT meterflow.cancel_subscription(6208, 'never') > 0 AS cancelled;
SELECT meterflow.subscription_status(6208, d) FROM unnest('{2040-06-30,2040-07-01}'::timestamptz[]) AS d;
SELECT * FROM pg_temp.bill('2040-08-01') WHERE customer_id = 'utc';

-- To periods of another kind: they begin with the change, which is billed there and then.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6209, 'york', 'basic', '2040-04-01 America/New_York');
SELECT outcome, amount_due FROM pg_temp.bill('2040-04-02 America/New_York') WHERE customer_id = 'york';
SELECT meterflow.change_plan(6209, 'yearly', 'a year', at => '2040-04-16 America/New_York') > 0 AS changed;
SELECT next_bill_at AT TIME ZONE 'America/New_York' AS next_bill_at FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id = 6209;
SELECT bill_at AT TIME ZONE 'America/New_York' AS bill_at, outcome, amount_due FROM pg_temp.bill('2040-05-02') WHERE customer_id = 'york';
SELECT plan_key, description, l.cycle_start AT TIME ZONE 'America/New_York' AS cycle_start, l.cycle_end AT TIME ZONE 'America/New_York' AS cycle_end, l.amount
  FROM meterflow.invoice_lines AS l WHERE tenant_id = 'subscriptions' AND subscription_id = 6209 ORDER BY invoice_id, line;
-- And from a year to months, which would else not be billed before the year is over.
SELECT meterflow.change_plan(6209, 'basic', 'months again', at => '2040-08-01 America/New_York') > 0 AS changed;
SELECT next_bill_at AT TIME ZONE 'America/New_York' AS next_bill_at FROM meterflow.subscriptions WHERE tenant_id = 'subscriptions' AND id = 6209;
SELECT bill_at AT TIME ZONE 'America/New_York' AS bill_at, outcome, amount_due FROM pg_temp.bill('2040-10-02') WHERE customer_id = 'york';
-- 107 days of a year of 365, and what was billed in April and May of the basic plan.
SELECT sum(amount) FILTER (WHERE plan_key = 'yearly') AS yearly, round(365 * 107 / 365.0, 2) AS of_it, sum(amount) FILTER (WHERE plan_key = 'basic' AND cycle_end <= '2040-05-02') AS first, 36 / 2.0 AS half_a_month
  FROM meterflow.invoice_lines WHERE tenant_id = 'subscriptions' AND subscription_id = 6209;
SELECT count(*) AS faults FROM bill_faults;

-- A trial, a ramp, and what follows; in the zone of the customer, prorated around the free days.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6210, 'berlin', 'trial', '2040-03-20 09:00 Europe/Berlin');
SELECT d AT TIME ZONE 'Europe/Berlin' AS at, meterflow.subscription_status(6210, d) AS status FROM unnest('{2040-03-20 07:59:59+00,2040-03-20 08:00+00,2040-04-03 06:59:59+00,2040-04-03 07:00+00,2040-07-01}'::timestamptz[]) AS d;
SELECT bill_at AT TIME ZONE 'Europe/Berlin' AS bill_at, outcome, amount_due FROM pg_temp.bill('2040-07-15') WHERE customer_id = 'berlin';
SELECT description, period_start AT TIME ZONE 'Europe/Berlin' AS from, period_end AT TIME ZONE 'Europe/Berlin' AS to, amount FROM bill_lines WHERE subscription_id = 6210;
SELECT sum(amount) = round(60 * meterflow.prorate(1, '2040-04-03 09:00 Europe/Berlin', '2040-05-01 Europe/Berlin', '2040-04-01 Europe/Berlin', '2040-05-01 Europe/Berlin'), 2) + 60
         + round(60 * meterflow.prorate(1, '2040-06-01 Europe/Berlin', '2040-06-03 09:00 Europe/Berlin', '2040-06-01 Europe/Berlin', '2040-07-01 Europe/Berlin'), 2)
         + round(100 * meterflow.prorate(1, '2040-06-03 09:00 Europe/Berlin', '2040-07-01 Europe/Berlin', '2040-06-01 Europe/Berlin', '2040-07-01 Europe/Berlin'), 2) + 100 AS adds_up
  FROM bill_lines WHERE subscription_id = 6210;
-- An override for one subscription, and a price group for some customers: they come before the price of everybody.
INSERT INTO meterflow.customers (id, price_group) VALUES ('partner', 'partners');
INSERT INTO meterflow.prices (plan_key, key, model, advance, price_group) VALUES ('pro', 'base', '{"model":"flat","amount":"80"}', true, 'partners');
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6211, 'partner', 'pro', '2040-09-01'), (6212, 'partner', 'pro', '2040-09-01');
INSERT INTO meterflow.prices (plan_key, key, model, advance, subscription_id) VALUES ('pro', 'base', '{"model":"flat","amount":"70"}', true, 6212);
SELECT subscription_id, description, amount FROM meterflow.preview_invoice(6211, '2040-09-01') UNION ALL SELECT subscription_id, description, amount FROM meterflow.preview_invoice(6212, '2040-09-01');
-- A price that ends in the middle of a period, and the one that follows: each by its days; what was billed stays.
SELECT outcome, amount_due FROM pg_temp.bill('2040-09-02') WHERE customer_id = 'partner';
UPDATE meterflow.prices SET valid_to = '2040-10-16' WHERE tenant_id = 'subscriptions' AND subscription_id = 6212;
INSERT INTO meterflow.prices (plan_key, key, model, advance, subscription_id, valid_from) VALUES ('pro', 'base', '{"model":"flat","amount":"62"}', true, 6212, '2040-10-16');
SELECT outcome, amount_due FROM pg_temp.bill('2040-10-02') WHERE customer_id = 'partner';
SELECT description, period_start::date AS from, period_end::date AS to, amount, round(CASE WHEN period_start < '2040-10-16' THEN 70 * 15 ELSE 62 * 16 END / 31.0, 2) AS days
  FROM bill_lines WHERE subscription_id = 6212 AND description = 'base' AND period_start >= '2040-10-01';
SELECT count(*) AS faults FROM bill_faults;
