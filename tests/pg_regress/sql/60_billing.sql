-- The money half: charges to date, wallets. A tenant of its own keeps it apart from the other tests.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'billing';

-- Events may come first: they count once their customer is there.
INSERT INTO meterflow.meters (key, event_name, aggregation, property)
VALUES ('calls', 'call', 'count', NULL), ('bytes', 'transfer', 'sum', 'bytes'), ('peak', 'seats', 'max', 'seats');
SELECT accepted, duplicates, failed FROM meterflow.ingest((
  SELECT json_agg(json_build_object('transaction_id', 'call-' || n, 'customer_id', 'acme', 'event_name', 'call',
                                    'timestamp', now())) FROM generate_series(1, 1005) AS n));
SELECT count(*) FROM meterflow.wallet_balance('acme');

INSERT INTO meterflow.customers (id, timezone) VALUES ('acme', 'America/New_York'), ('other', 'UTC');
INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'USD'), ('extra', 'EUR');
INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES
  ('pro', 'calls', '{"model":"per_unit","unit_amount":"0.001"}'),
  ('pro', 'bytes', '{"model":"per_unit","unit_amount":"0.5"}'),
  ('pro', 'peak', '{"model":"per_unit","unit_amount":"3"}'),
  ('pro', NULL, '{"model":"flat","amount":"20"}');
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
  SELECT meter_key, CASE WHEN period_end > now() THEN 'this month' ELSE 'last month' END AS period, quantity, unrounded, amount, currency
    FROM meterflow.current_charges('acme');
SELECT * FROM charges;
SELECT * FROM meterflow.current_charges('other');

-- Top-ups: a retry returns the first id, another body is an error, and money has the decimals of its currency.
SELECT meterflow.top_up('acme', 50, 'USD', 'payment 1') AS first \gset
SELECT meterflow.top_up('acme', 50.00, 'USD', 'payment 1') = :first AS same;
\set VERBOSITY terse
SELECT meterflow.top_up('acme', 51, 'USD', 'payment 1') = :first AS same;
\set VERBOSITY default
SELECT meterflow.top_up('acme', 1.001, 'USD', 'payment 2');
SELECT meterflow.top_up('acme', 0, 'USD', 'payment 2');
SELECT meterflow.top_up('acme', 'NaN', 'USD', 'payment 2');
SELECT meterflow.top_up('nobody', 1, 'USD', 'payment 2');
SELECT meterflow.top_up('acme', 1, 'DEM', 'payment 2');
SELECT meterflow.top_up('acme', 1, NULL, '');
SELECT count(*) FROM meterflow.wallet_transactions WHERE tenant_id = 'billing';
UPDATE meterflow.wallet_transactions SET amount = 1000;
DELETE FROM meterflow.wallet_transactions;
TRUNCATE meterflow.wallet_transactions;

-- Usage is taken once, in burn order; what exceeds is the last wallet's.
SELECT meterflow.top_up('acme', 10, 'USD', 'gift', 'welcome', wallet => 'promotion') > :first AS given;
UPDATE meterflow.wallets SET priority = 1 WHERE tenant_id = 'billing' AND name = 'promotion';
SELECT meterflow.top_up('acme', 5, 'EUR', 'euros') > :first AS given;
SELECT w.name, b.currency, b.balance, b.open_usage, b.available, b.as_of = now() AS as_of_now
  FROM meterflow.wallet_balance('acme') AS b JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = ('billing', b.wallet_id);
SELECT sum(open_usage) = (SELECT sum(amount) FROM charges) AS usage_taken_once FROM meterflow.wallet_balance('acme', 'USD');

-- The balance knows of an event that the same transaction sent a line earlier, and forgets it with the transaction.
BEGIN;
SELECT accepted FROM meterflow.ingest('{"transaction_id":"now","customer_id":"acme","event_name":"seats","properties":{"seats":4}}');
SELECT sum(open_usage) FROM meterflow.wallet_balance('acme', 'USD');
ROLLBACK;
SELECT sum(open_usage) FROM meterflow.wallet_balance('acme', 'USD');

-- A debt in a currency that has no wallet is shown all the same.
SELECT wallet_id, currency, open_usage, available FROM meterflow.wallet_balance('other');
INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('extra', NULL, '{"model":"flat","amount":"9.99"}');
INSERT INTO meterflow.subscriptions (customer_id, plan_key) VALUES ('other', 'extra');
SELECT wallet_id, currency, open_usage, available FROM meterflow.wallet_balance('other');
SELECT count(*) FROM meterflow.wallet_balance('other', 'USD');
SELECT * FROM meterflow.wallet_balance('other', 'dollars');

-- A price that changes within a month: usage by the price of its time, a fee once.
UPDATE meterflow.prices SET valid_to = now() WHERE tenant_id = 'billing' AND plan_key = 'extra';
INSERT INTO meterflow.prices (plan_key, meter_key, model, valid_from) VALUES ('extra', NULL, '{"model":"flat","amount":"12"}', now());
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('acme', 'extra', now() - interval '1 microsecond');
SELECT amount, currency FROM meterflow.current_charges('acme') WHERE currency = 'EUR';

-- Tables that explain themselves.
INSERT INTO meterflow.customers (id, timezone) VALUES ('mars', 'Mars/Olympus');
INSERT INTO meterflow.customers (id, timezone) VALUES ('west', 'UTC+3');
INSERT INTO meterflow.plans (key, currency) VALUES ('old', 'DEM');
INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('pro', 'calls', '{"model":"volume","tiers":[]}');
INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('pro', 'calls', '{"model":"per_unit","unit_amount":"-1"}');
INSERT INTO meterflow.prices (plan_key, model) VALUES ('pro', '{"model":"per_unit","unit_amount":"1"}');
INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('pro', 'nothing', '{"model":"per_unit","unit_amount":"1"}');
\set VERBOSITY terse
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('acme', 'pro', 'infinity');
INSERT INTO meterflow.subscriptions (customer_id, plan_key, ends_at) VALUES ('acme', 'pro', now());
\set VERBOSITY default

-- Another tenant has none of this.
SET meterflow.tenant = 'elsewhere';
SELECT count(*) FROM meterflow.wallet_balance('acme');
SELECT count(*) FROM meterflow.current_charges('acme');
