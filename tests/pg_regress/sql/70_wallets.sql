-- Prepaid money, what is owed of it now, and charges to date. They are of now: what is asked is compared with the clock.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set ECHO none
\i :billing
\set ECHO all
SET meterflow.tenant = 'wallets';

-- Events may come first: they count once their customer is there.
INSERT INTO meterflow.meters (key, event_name, aggregation, property)
VALUES ('calls', 'call', 'count', NULL), ('bytes', 'transfer', 'sum', 'bytes'), ('peak', 'seats', 'max', 'seats');
SELECT accepted, duplicates, failed FROM meterflow.ingest((
  SELECT json_agg(json_build_object('transaction_id', 'call-' || n, 'customer_id', 'acme', 'event_name', 'call',
                                    'timestamp', now())) FROM generate_series(1, 1005) AS n));
SELECT count(*) FROM meterflow.wallet_balance('acme');

INSERT INTO meterflow.customers (id, timezone) VALUES ('acme', 'America/New_York'), ('other', 'UTC');
INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'USD'), ('extra', 'EUR');
INSERT INTO meterflow.prices (plan_key, key, meter_key, model) VALUES
  ('pro', 'calls', 'calls', '{"model":"per_unit","unit_amount":"0.001"}'),
  ('pro', 'bytes', 'bytes', '{"model":"per_unit","unit_amount":"0.5"}'),
  ('pro', 'peak', 'peak', '{"model":"per_unit","unit_amount":"3"}'),
  ('pro', 'base', NULL, '{"model":"flat","amount":"20"}');
-- Last month in full, and this one.
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at)
SELECT 'acme', 'pro', (date_trunc('month', now() AT TIME ZONE 'America/New_York') - interval '1 month') AT TIME ZONE 'America/New_York'
RETURNING id AS subscription \gset

-- A month of the customer, cut to the subscription.
SELECT period_start = date_trunc('month', now(), 'America/New_York') AS starts_at_local_midnight,
       period_end AT TIME ZONE 'America/New_York' = date_trunc('month', now() AT TIME ZONE 'America/New_York') + interval '1 month' AS one_month
  FROM meterflow.current_period(:subscription);
SELECT * FROM meterflow.current_period(:subscription, now() - interval '3 months');

-- Every month that has no invoice yet is a line of its own.
SELECT accepted FROM meterflow.ingest(json_build_array(
  json_build_object('transaction_id', 'late', 'customer_id', 'acme', 'event_name', 'transfer', 'properties', json_build_object('bytes', 7),
                    'timestamp', date_trunc('month', now(), 'America/New_York') - interval '1 microsecond'),
  json_build_object('transaction_id', 'first', 'customer_id', 'acme', 'event_name', 'transfer', 'properties', json_build_object('bytes', 2),
                    'timestamp', date_trunc('month', now(), 'America/New_York'))));
CREATE TEMPORARY VIEW charges AS
  SELECT coalesce(meter_key, 'fee') AS charge, CASE WHEN period_end > now() THEN 'this month' ELSE 'last month' END AS period, quantity, unrounded, amount, currency
    FROM meterflow.current_charges('acme');
SELECT * FROM charges;
SELECT * FROM meterflow.current_charges('other');
SELECT count(*) FROM meterflow.current_charges(NULL);
-- It is what an invoice at the end of the month would say, line by line.
SELECT count(*) FROM (SELECT price_id, period_start, quantity, amount FROM meterflow.current_charges('acme')
                      EXCEPT SELECT price_id, period_start, quantity, amount FROM meterflow.preview_invoice(:subscription)) AS differences;
-- What goes on as it did comes to more; a maximum and a fee do not, nor what is over.
SELECT p.price_id IS NOT NULL AS line, p.meter_key, p.period_end > now() AS open, p.projected_quantity > p.quantity AS more,
       p.projected_amount = CASE WHEN p.meter_key IS NULL OR p.period_end <= now() THEN p.amount ELSE round(p.projected_quantity * CASE p.meter_key WHEN 'calls' THEN 0.001 ELSE 0.5 END, 2) END AS priced
  FROM meterflow.projected_charges('acme') AS p;

-- Top-ups: a retry returns the first id, another body is an error, and money has the decimals of its currency.
SELECT meterflow.top_up('acme', 50, 'USD', 'payment 1') AS first \gset
SELECT meterflow.top_up('acme', 50.00, 'USD', 'payment 1') = :first AS same;
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'another amount', $$SELECT meterflow.top_up('acme', 51, 'USD', 'payment 1')$$),
  (2, 'a tenth of a cent', $$SELECT meterflow.top_up('acme', 1.001, 'USD', 'payment 2')$$),
  (3, 'nothing', $$SELECT meterflow.top_up('acme', 0, 'USD', 'payment 2')$$),
  (4, 'no number', $$SELECT meterflow.top_up('acme', 'NaN', 'USD', 'payment 2')$$),
  (5, 'nobody', $$SELECT meterflow.top_up('nobody', 1, 'USD', 'payment 2')$$),
  (6, 'old money', $$SELECT meterflow.top_up('acme', 1, 'DEM', 'payment 2')$$),
  (7, 'no currency, no key', $$SELECT meterflow.top_up('acme', 1, NULL, '')$$),
  (8, 'a change of what was', $$UPDATE meterflow.wallet_transactions SET amount = 1000$$),
  (9, 'and its end', $$DELETE FROM meterflow.wallet_transactions$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
SELECT count(*) FROM meterflow.wallet_transactions WHERE tenant_id = 'wallets';

-- Usage is taken once, in burn order; what exceeds is the last wallet's.
SELECT meterflow.top_up('acme', 10, 'USD', 'gift', 'welcome', wallet => 'promotion') > :first AS given;
UPDATE meterflow.wallets SET priority = 1 WHERE tenant_id = 'wallets' AND name = 'promotion';
SELECT meterflow.top_up('acme', 5, 'EUR', 'euros') > :first AS given;
CREATE TEMPORARY VIEW balances AS
  SELECT w.name, b.currency, b.balance, b.open_usage, b.unpaid, b.available, b.as_of = statement_timestamp() AS as_of_now
    FROM meterflow.wallet_balance('acme') AS b JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = ('wallets', b.wallet_id);
SELECT * FROM balances;
SELECT sum(open_usage) = (SELECT sum(amount) FROM charges) AS usage_taken_once FROM meterflow.wallet_balance('acme', 'USD');

-- The balance knows of an event that the same transaction sent a line earlier, and forgets it with the transaction.
BEGIN;
SELECT accepted FROM meterflow.ingest('{"transaction_id":"now","customer_id":"acme","event_name":"seats","properties":{"seats":4}}');
SELECT sum(open_usage) FROM meterflow.wallet_balance('acme', 'USD');
ROLLBACK;
SELECT sum(open_usage) FROM meterflow.wallet_balance('acme', 'USD');

-- An invoice takes what is there, in the same order, and what it leaves is unpaid; the rest stays open usage.
SELECT outcome, amount_due FROM pg_temp.bill(date_trunc('month', now(), 'America/New_York') + interval '1 minute') WHERE customer_id = 'acme';
SELECT b.subtotal, b.credited, b.amount_due, b.status, string_agg(format('%s %s', w.name, c.amount), ', ' ORDER BY c.ordinal) AS credits
  FROM bills AS b JOIN meterflow.invoices AS i ON i.tenant_id = 'wallets' AND i.number = b.number LEFT JOIN meterflow.invoice_credits AS c ON c.tenant_id = i.tenant_id AND c.invoice_id = i.id
  LEFT JOIN meterflow.wallets AS w ON w.tenant_id = c.tenant_id AND w.id = c.source_id AND c.source = 'wallet' GROUP BY b.number, 1, 2, 3, 4 ORDER BY b.number;
SELECT * FROM balances;
SELECT * FROM charges;
SELECT w.name, t.kind, t.amount FROM meterflow.wallet_transactions AS t JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (t.tenant_id, t.wallet_id) WHERE t.tenant_id = 'wallets' ORDER BY t.id;
-- One that there is not enough for.
INSERT INTO meterflow.prices (plan_key, key, model, once) VALUES ('extra', 'delivery', '{"model":"flat","amount":"12.50"}', true);
INSERT INTO meterflow.subscriptions (customer_id, plan_key) VALUES ('acme', 'extra');
SELECT outcome, amount_due FROM pg_temp.bill(now()) WHERE customer_id = 'acme' AND amount_due LIKE '% EUR';
SELECT * FROM balances;
SELECT sum(amount) FROM meterflow.wallet_transactions AS t WHERE tenant_id = 'wallets' AND kind = 'invoice';

-- A debt in a currency that has no wallet is shown all the same.
SELECT wallet_id, currency, open_usage, available FROM meterflow.wallet_balance('other');
INSERT INTO meterflow.prices (plan_key, key, model) VALUES ('extra', 'base', '{"model":"flat","amount":"9.99"}');
INSERT INTO meterflow.subscriptions (customer_id, plan_key) VALUES ('other', 'extra');
SELECT wallet_id, currency, open_usage = 12.50 + (SELECT amount FROM meterflow.current_charges('other') ORDER BY amount LIMIT 1) AS as_charged, available = - open_usage AS debt FROM meterflow.wallet_balance('other');
SELECT count(*) FROM meterflow.wallet_balance('other', 'USD');
SELECT pg_temp.try($$SELECT * FROM meterflow.wallet_balance('other', 'dollars')$$);

-- Who pays for others has what they use taken from its wallets; theirs are left alone.
INSERT INTO meterflow.plans (key, currency) VALUES ('bytes', 'USD');
INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('bytes', 'bytes', '{"model":"per_unit","unit_amount":"1"}');
INSERT INTO meterflow.customers (id, payer_id) VALUES ('group', NULL), ('north', 'group');
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('north', 'bytes', now() - interval '1 hour');
SELECT accepted FROM meterflow.ingest('{"transaction_id":"n","customer_id":"north","event_name":"transfer","properties":{"bytes":30}}');
SELECT meterflow.top_up('group', 100, 'USD', 'of the group') IS NOT NULL AS paid, meterflow.top_up('north', 5, 'USD', 'of the north') IS NOT NULL AS paid_too;
SELECT c, b.balance, b.open_usage, b.available FROM unnest('{group,north}'::text[]) AS c, LATERAL meterflow.wallet_balance(c) AS b;
SELECT c, b.quantity, b.amount FROM unnest('{group,north}'::text[]) AS c, LATERAL meterflow.current_charges(c) AS b;

-- Another tenant has none of this.
SET meterflow.tenant = 'elsewhere';
SELECT count(*) FROM meterflow.wallet_balance('acme');
SELECT count(*) FROM meterflow.current_charges('acme');
SELECT pg_temp.try(format('SELECT meterflow.change_plan(%s, %L, %L)', :subscription, 'pro', 'k')) LIKE '23503 there is no subscription%' AS not_there;
