-- Prepaid credit: what is owed of it now, the verbs that move it, and what the ledger tells of that. What is of now is
-- compared with the clock; ids and times are not shown.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set wallets :source '/sql/include/wallets.sql'
\set ECHO none
\i :billing
\i :wallets
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

-- Usage is taken once, in burn order; what exceeds is the last wallet's.
SELECT meterflow.top_up('acme', 50, 'USD', 'payment 1') AS first \gset
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
SELECT w.name, t.kind, e.account, e.amount FROM meterflow.wallet_transactions AS t JOIN meterflow.ledger_entries AS e ON (e.tenant_id, e.transaction_id) = (t.tenant_id, t.id)
  JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (e.tenant_id, e.wallet_id) WHERE t.tenant_id = 'wallets' ORDER BY t.id, e.entry;
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


-- top_up and grant_credit. A retry returns the first id, another body is an error, and money has the decimals of its currency.
INSERT INTO meterflow.customers (id) SELECT unnest('{buyer,unit,limited,post,late,steady,from,to,back,june,payer,rows,free}'::text[]);
SELECT meterflow.top_up('buyer', 50, 'USD', 'buyer 1', 'wire 4711') AS first \gset
SELECT meterflow.top_up('buyer', 50.00, 'USD', 'buyer 1', 'wire 4711') = :first AS same;
SELECT meterflow.grant_credit('buyer', 5, 'USD', 'buyer 2', 'welcome') AS gift \gset
SELECT meterflow.grant_credit('buyer', 5, 'USD', 'buyer 2', 'welcome') = :gift AS same, (SELECT kind FROM meterflow.credit_grants WHERE tenant_id = 'wallets' AND id = :gift) AS kind;
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.refused(statement) FROM (VALUES
  (1, 'another amount', $$SELECT meterflow.top_up('buyer', 51, 'USD', 'buyer 1', 'wire 4711')$$),
  (2, 'another verb', $$SELECT meterflow.grant_credit('buyer', 50, 'USD', 'buyer 1', 'wire 4711')$$),
  (3, 'another description', $$SELECT meterflow.top_up('buyer', 50, 'USD', 'buyer 1')$$),
  (4, 'a tenth of a cent', $$SELECT meterflow.top_up('buyer', 1.001, 'USD', 'x')$$),
  (5, 'a hundredth of a yen', $$SELECT meterflow.top_up('buyer', 1.01, 'JPY', 'x')$$),
  (6, 'nothing', $$SELECT meterflow.top_up('buyer', 0, 'USD', 'x')$$),
  (7, 'less than nothing', $$SELECT meterflow.grant_credit('buyer', -1, 'USD', 'x')$$),
  (8, 'no number', $$SELECT meterflow.top_up('buyer', 'NaN', 'USD', 'x')$$),
  (9, 'infinite', $$SELECT meterflow.top_up('buyer', 'Infinity', 'USD', 'x')$$),
  (10, 'more than there is', $$SELECT meterflow.top_up('buyer', 1e40, 'USD', 'x')$$),
  (11, 'and more than can be held', $$SELECT meterflow.top_up('buyer', 1e60, 'USD', 'x')$$),
  (12, 'nobody', $$SELECT meterflow.top_up('nobody', 1, 'USD', 'x')$$),
  (13, 'old money', $$SELECT meterflow.top_up('buyer', 1, 'DEM', 'x')$$),
  (14, 'no customer', $$SELECT meterflow.top_up(NULL, 1, 'USD', 'x')$$),
  (15, 'no amount', $$SELECT meterflow.top_up('buyer', NULL, 'USD', 'x')$$),
  (16, 'no currency', $$SELECT meterflow.top_up('buyer', 1, NULL, 'x')$$),
  (17, 'no key', $$SELECT meterflow.top_up('buyer', 1, 'USD', NULL)$$),
  (18, 'an empty key', $$SELECT meterflow.top_up('buyer', 1, 'USD', '')$$),
  (19, 'no wallet', $$SELECT meterflow.top_up('buyer', 1, 'USD', 'x', wallet => NULL)$$),
  (20, 'a wallet without a name', $$SELECT meterflow.top_up('buyer', 1, 'USD', 'x', wallet => '')$$),
  (21, 'no priority', $$SELECT meterflow.top_up('buyer', 1, 'USD', 'x', priority => NULL)$$),
  (22, 'it ends before it begins', $$SELECT meterflow.top_up('buyer', 1, 'USD', 'x', expires_at => '2025-01-01')$$),
  (23, 'it ends as it begins', $$SELECT meterflow.top_up('buyer', 1, 'USD', 'x', effective_at => '2025-01-01', expires_at => '2025-01-01')$$),
  (24, 'it never begins', $$SELECT meterflow.top_up('buyer', 1, 'USD', 'x', effective_at => 'infinity')$$),
  (25, 'it ends at no time', $$SELECT meterflow.top_up('buyer', 1, 'USD', 'x', expires_at => NULL)$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
-- Of what was refused nothing is there, no wallet either.
SELECT * FROM pg_temp.left_of('buyer');
SELECT t, kind, worth, "grant", account, amount FROM entries WHERE customer_id = 'buyer';

-- Burn order: priority of the wallet, of the grant, expiry, promotional first, start, creation. Dead and coming ones do not burn.
SELECT count(meterflow.top_up('free', n, 'USD', 'free ' || n, expires_at => expires_at, effective_at => effective_at, priority => priority, wallet => wallet))
  FROM (VALUES (1, now() + interval '2 days', now() - interval '2 days', 50, 'default'), (2, now() + interval '1 day', now() - interval '1 day', 50, 'default'),
               (4, 'infinity', now() - interval '1 day', 40, 'default'), (8, 'infinity', now() - interval '3 days', 50, 'first'), (16, now() + interval '1 day', now() - interval '2 days', 50, 'default'),
               (32, now() - interval '1 day', now() - interval '2 days', 1, 'first'), (64, now() + interval '2 days', now() + interval '1 day', 1, 'first')) AS g (n, expires_at, effective_at, priority, wallet);
SELECT meterflow.grant_credit('free', 128, 'USD', 'free 128', expires_at => date_trunc('day', now()) + interval '9 days', effective_at => now() - interval '1 hour') > 0 AS given,
       meterflow.top_up('free', 256, 'USD', 'free 256', expires_at => date_trunc('day', now()) + interval '9 days', effective_at => now() - interval '1 day') > 0 AS bought;
UPDATE meterflow.wallets SET priority = 1 WHERE tenant_id = 'wallets' AND customer_id = 'free' AND name = 'first';
SELECT meterflow.debit('free', 8 + 4 + 16 + 2 + 1 + 128 + 255.5, 'USD', 'free all') > 0 AS debited;
SELECT string_agg(-amount::numeric || '', ', ' ORDER BY entry) AS burned FROM meterflow.ledger_entries AS e WHERE tenant_id = 'wallets' AND account = 'revenue' AND wallet_id IN (SELECT id FROM meterflow.wallets WHERE tenant_id = 'wallets' AND customer_id = 'free');
SELECT amount, remaining, live FROM grants WHERE customer_id = 'free' AND remaining > 0 ORDER BY amount;

-- debit, and what it can't.
SELECT meterflow.debit('buyer', 20, 'USD', 'buyer 3', 'usage of last week') AS debit \gset
SELECT meterflow.debit('buyer', 20, 'USD', 'buyer 3', 'usage of last week') = :debit AS same;
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.refused(statement) FROM (VALUES
  (1, 'a cent too much', $$SELECT meterflow.debit('buyer', 35.01, 'USD', 'x')$$),
  (2, 'with the key of something else', $$SELECT meterflow.debit('buyer', 21, 'USD', 'buyer 3', 'usage of last week')$$),
  (3, 'with the key of a top-up', $$SELECT meterflow.debit('buyer', 1, 'USD', 'buyer 1')$$),
  (4, 'of a wallet that is not there', $$SELECT meterflow.debit('buyer', 1, 'USD', 'x', wallet => 'savings')$$),
  (5, 'in another currency', $$SELECT meterflow.debit('buyer', 1, 'EUR', 'x')$$),
  (6, 'nothing', $$SELECT meterflow.debit('buyer', 0, 'USD', 'x')$$),
  (7, 'no number', $$SELECT meterflow.debit('buyer', 'NaN', 'USD', 'x')$$),
  (8, 'of nobody', $$SELECT meterflow.debit('nobody', 1, 'USD', 'x')$$),
  (9, 'no customer', $$SELECT meterflow.debit(NULL, 1, 'USD', 'x')$$),
  (10, 'no key', $$SELECT meterflow.debit('buyer', 1, 'USD', NULL)$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
SELECT * FROM pg_temp.left_of('buyer');
SELECT kind, worth, "grant", account, amount FROM entries WHERE customer_id = 'buyer' AND kind = 'debit';
-- Many at once: each succeeds or fails alone, in order, and is a retry of debit() and the other way round. Holds count once.
SELECT meterflow.top_up('rows', 10, 'USD', 'rows 1') > 0 AS paid, meterflow.hold('rows', 4, 'USD', '1 hour', 'rows hold') > 0 AS held, meterflow.debit('rows', 1, 'USD', 'rows 2') AS debit \gset
SELECT r.ordinal, r.transaction_id IS NOT NULL AS done, r.transaction_id = :debit AS known, r.code, r.message
  FROM meterflow.debit_rows('{rows,rows,rows,nobody,rows,rows,NULL,rows,buyer}', '{1,3,2.01,1,-1,1,1,2,0.5}', 'USD', '{rows 2,rows 3,rows 4,x,x,rows 3,x,rows 5,buyer 4}') AS r;
SELECT * FROM pg_temp.left_of('rows');
SELECT pg_temp.refused($$SELECT * FROM meterflow.debit_rows('{rows}', '{1,2}', 'USD', '{x}')$$);
SELECT pg_temp.refused($$SELECT * FROM meterflow.debit_rows('{rows}', '{1}', 'usd', '{x}')$$);
SELECT pg_temp.refused($$SELECT * FROM meterflow.debit_rows('{rows}', NULL, 'USD', '{x}')$$);

-- Credit units: kept as they are, worth what their rate says, and spent to the last fraction.
INSERT INTO meterflow.credit_units (key, currency, rate) VALUES ('credits', 'USD', 1.123456), ('points', 'USD', 0.0001);
SELECT meterflow.top_up('unit', 100, 'credits', 'unit 1', wallet => 'credits') > 0 AS paid, meterflow.top_up('unit', 150, 'points', 'unit 2', wallet => 'points') > 0 AS paid_too;
SELECT name, credit_unit, credits, balance, available FROM meterflow.wallet_balance('unit');
SELECT pg_temp.refused($$SELECT meterflow.top_up('unit', 1, 'USD', 'x', wallet => 'credits')$$);
SELECT pg_temp.refused($$SELECT meterflow.top_up('unit', 1, 'euros', 'x')$$);
SELECT pg_temp.refused($$SELECT meterflow.debit('unit', 100.000000001, 'credits', 'x', wallet => 'credits')$$);
SELECT pg_temp.refused($$SELECT meterflow.debit('buyer', 1, 'credits', 'x')$$);
SELECT meterflow.debit('unit', 33.333, 'credits', 'unit 3') > 0 AS third, meterflow.debit('unit', 10, 'USD', 'unit 4') > 0 AS money, meterflow.debit('unit', 150, 'points', 'unit 5') > 0 AS points;
SELECT t, kind, worth, wallet, account, amount FROM entries WHERE customer_id = 'unit';
SELECT name, credits, balance, available FROM meterflow.wallet_balance('unit');
SELECT meterflow.debit('unit', credits, 'credits', 'unit 6') > 0 AS the_rest FROM meterflow.wallet_balance('unit') WHERE name = 'credits';
SELECT name, credits, balance FROM meterflow.wallet_balance('unit');

-- A wallet can be limited to meters, prices, plans and charges: a debit says what it is for.
SELECT meterflow.top_up('limited', 10, 'USD', 'limited 1') > 0 AS paid, meterflow.top_up('limited', 5, 'USD', 'limited 2', wallet => 'calls') > 0 AS for_calls,
       meterflow.top_up('limited', 3, 'USD', 'limited 3', wallet => 'fees') > 0 AS for_fees, meterflow.top_up('limited', 2, 'USD', 'limited 4', wallet => 'pro') > 0 AS for_pro;
UPDATE meterflow.wallets SET meters = '{calls}', priority = 1 WHERE tenant_id = 'wallets' AND customer_id = 'limited' AND name = 'calls';
UPDATE meterflow.wallets SET charges = '{fee,one_off}' WHERE tenant_id = 'wallets' AND customer_id = 'limited' AND name = 'fees';
UPDATE meterflow.wallets SET plans = '{pro}' WHERE tenant_id = 'wallets' AND customer_id = 'limited' AND name = 'pro';
SELECT pg_temp.refused($$SELECT meterflow.debit('limited', 10.01, 'USD', 'x')$$);
SELECT pg_temp.refused($$SELECT meterflow.debit('limited', 15.01, 'USD', 'x', meter_key => 'calls')$$);
SELECT pg_temp.refused($$SELECT meterflow.debit('limited', 10.01, 'USD', 'x', meter_key => 'bytes')$$);
SELECT pg_temp.refused($$SELECT meterflow.debit('limited', 1, 'USD', 'x', meter_key => 'cals')$$);
SELECT pg_temp.refused($$SELECT meterflow.hold('limited', 1, 'USD', '1 hour', 'x', 'cals')$$);
SELECT meterflow.debit('limited', 7, 'USD', 'limited 5', meter_key => 'calls') > 0 AS calls, meterflow.debit('limited', 1, 'USD', 'limited 6', wallet => 'fees') > 0 AS by_name;
SELECT * FROM pg_temp.left_of('limited');
SELECT pg_temp.refused($$INSERT INTO meterflow.wallets (customer_id, currency, name, charges) VALUES ('limited', 'USD', 'x', '{tax}')$$);

-- A postpaid wallet may owe as much as its limit; a prepaid one only if it must. What comes in pays that first.
INSERT INTO meterflow.wallets (customer_id, currency, kind, credit_limit) VALUES ('post', 'USD', 'postpaid', 100);
SELECT meterflow.top_up('post', 10, 'USD', 'post 1') > 0 AS paid, meterflow.debit('post', 60, 'USD', 'post 2') > 0 AS below_zero;
SELECT name, balance, credit_limit, available FROM meterflow.wallet_balance('post');
SELECT pg_temp.refused($$SELECT meterflow.debit('post', 50.01, 'USD', 'x')$$);
SELECT pg_temp.refused($$SELECT meterflow.hold('post', 50.01, 'USD', '1 hour', 'x')$$);
SELECT meterflow.top_up('post', 20, 'USD', 'post 3') > 0 AS pays_a_part, meterflow.grant_credit('post', 40, 'USD', 'post 4') > 0 AS and_the_rest;
SELECT t, kind, worth, "grant", account, amount FROM entries WHERE customer_id = 'post';
SELECT name, balance, credit_limit, available FROM meterflow.wallet_balance('post');
UPDATE meterflow.wallets SET credit_limit = NULL WHERE tenant_id = 'wallets' AND customer_id = 'post';
SELECT credit_limit, available FROM meterflow.wallet_balance('post');
SELECT meterflow.debit('post', 1000000, 'USD', 'post 5') > 0 AS without_limit;
SELECT pg_temp.refused($$INSERT INTO meterflow.wallets (customer_id, currency, name, credit_limit) VALUES ('post', 'USD', 'x', 5)$$);
-- By force; and paid by a grant that begins later, as soon as it begins, before anybody writes that down.
SELECT pg_temp.refused($$SELECT meterflow.debit('late', 30, 'USD', 'x')$$);
SELECT pg_temp.refused($$SELECT meterflow.debit('late', 30, 'USD', 'x', allow_overdraft => true)$$) AS no_wallet;
SELECT meterflow.top_up('late', 10, 'USD', 'late 1') > 0 AS paid, meterflow.debit('late', 30, 'USD', 'late 2', allow_overdraft => true) AS forced \gset
SELECT meterflow.top_up('late', 50, 'USD', 'late 3', effective_at => clock_timestamp() + interval '1 second') > 0 AS comes_later;
SELECT b.balance, b.available, f.balance AS in_an_hour FROM meterflow.wallet_balance('late') AS b, meterflow.wallet_balance('late', as_of => now() + interval '1 hour') AS f;
SELECT pg_sleep(1.1)::text AS slept \gset
SELECT balance, available FROM meterflow.wallet_balance('late');
SELECT count(*) AS written FROM entries WHERE customer_id = 'late' AND kind = 'settlement';
SELECT meterflow.debit('late', 1, 'USD', 'late 4') > 0 AS debited;
SELECT t, kind, worth, "grant", account, amount FROM entries WHERE customer_id = 'late' AND t > 2;
-- A refund of what was forced goes where the money is now.
SELECT meterflow.refund(:forced, 'late 5') > 0 AS refunded;
SELECT kind, worth, reverses, "grant", account, amount FROM entries WHERE customer_id = 'late' AND kind = 'refund';
SELECT "grant", remaining FROM grants WHERE customer_id = 'late';
SELECT balance FROM meterflow.wallet_balance('late');

-- Recurring credit: 100 a day of which 30 roll over, since three days and an hour; nothing is written while nobody writes.
INSERT INTO meterflow.wallets (customer_id, currency) VALUES ('steady', 'USD') RETURNING id AS wallet \gset
SELECT date_trunc('second', now() - interval '3 days 1 hour') AS start \gset
INSERT INTO meterflow.recurring_grants (wallet_id, amount, interval_unit, starts_at, ends_at, rollover_max) VALUES (:wallet, 100, 'day', :'start', :'start'::timestamptz + interval '6 days', 30) RETURNING id AS rule \gset
SELECT balance AS now, (SELECT count(*) FROM grants WHERE customer_id = 'steady') AS written FROM meterflow.wallet_balance('steady');
SELECT d AS day, (SELECT balance FROM meterflow.wallet_balance('steady', as_of => :'start'::timestamptz + d * interval '1 day' - interval '1 microsecond')) AS before,
       (SELECT balance FROM meterflow.wallet_balance('steady', as_of => :'start'::timestamptz + d * interval '1 day')) AS after FROM generate_series(4, 7) AS d;
SELECT meterflow.debit('steady', 115, 'USD', 'steady 1') > 0 AS debited;
SELECT kind, count(*), sum(worth) AS worth FROM (SELECT DISTINCT t, kind, worth FROM entries WHERE customer_id = 'steady') AS e GROUP BY kind ORDER BY kind;
SELECT occurrence, part, g.amount, g.remaining, g.effective_at - :'start' AS begins, g.expires_at - :'start' AS ends FROM meterflow.credit_grants AS g WHERE g.tenant_id = 'wallets' AND recurring_id = :rule ORDER BY occurrence, part;
SELECT d AS day, (SELECT balance FROM meterflow.wallet_balance('steady', as_of => :'start'::timestamptz + d * interval '1 day')) AS balance FROM generate_series(4, 7) AS d;
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.refused(statement) FROM (VALUES
  (1, 'more of it', format('UPDATE meterflow.recurring_grants SET amount = 200 WHERE id = %s', :rule)),
  (2, 'its end', format('DELETE FROM meterflow.recurring_grants WHERE id = %s', :rule)),
  (3, 'no time zone', format($$INSERT INTO meterflow.recurring_grants (wallet_id, amount, timezone) VALUES (%s, 1, 'Mars/Olympus')$$, :wallet)),
  (4, 'no such wallet', $$INSERT INTO meterflow.recurring_grants (wallet_id, amount) VALUES (999999999, 1)$$),
  (5, 'for no time', format('INSERT INTO meterflow.recurring_grants (wallet_id, amount, ends_at) VALUES (%s, 1, now() - interval %L)', :wallet, '1 day')),
  (6, 'more at least than at most', format('INSERT INTO meterflow.recurring_grants (wallet_id, amount, rollover_min) VALUES (%s, 1, 5)', :wallet))
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned

-- transfer: to another wallet or customer; kind, priority and expiry go with it.
SELECT meterflow.grant_credit('from', 10, 'USD', 'from 1', expires_at => now() + interval '9 days') > 0 AS given, meterflow.top_up('from', 20, 'USD', 'from 2', priority => 60) > 0 AS paid, meterflow.top_up('to', 1, 'USD', 'to 1', wallet => 'savings') > 0 AS other,
       meterflow.top_up('to', 1, 'EUR', 'to 2') > 0 AS euros, meterflow.top_up('from', 1, 'USD', 'from 3', wallet => 'savings') > 0 AS second;
SELECT (SELECT id FROM meterflow.wallets WHERE tenant_id = 'wallets' AND customer_id = 'from' AND name = 'default') AS w, (SELECT id FROM meterflow.wallets WHERE tenant_id = 'wallets' AND customer_id = 'from' AND name = 'savings') AS own,
       (SELECT id FROM meterflow.wallets WHERE tenant_id = 'wallets' AND customer_id = 'to' AND name = 'savings') AS other, (SELECT id FROM meterflow.wallets WHERE tenant_id = 'wallets' AND customer_id = 'to' AND currency = 'EUR') AS euros \gset
SELECT meterflow.transfer(:w, :other, 15, 'from 4', 'family') AS sent \gset
SELECT meterflow.transfer(:w, :other, 15, 'from 4', 'family') = :sent AS same, meterflow.transfer(:w, :own, 5, 'from 5') > :sent AS to_its_own;
SELECT customer_id, t, kind, worth, wallet, "grant", account, amount FROM entries WHERE customer_id IN ('from', 'to') AND kind = 'transfer' ORDER BY customer_id, t, "grant";
SELECT w.customer_id, w.name, g.kind, g.amount, g.remaining, g.priority, g.expires_at < 'infinity' AS expires FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (g.tenant_id, g.wallet_id)
 WHERE g.tenant_id = 'wallets' AND w.customer_id IN ('from', 'to') ORDER BY g.id;
SELECT customer, name, balance FROM unnest('{from,to}'::text[]) AS customer, pg_temp.left_of(customer);
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.refused(statement) FROM (VALUES
  (1, 'to itself', format('SELECT meterflow.transfer(%s, %s, 1, %L)', :w, :w, 'x')),
  (2, 'to another currency', format('SELECT meterflow.transfer(%s, %s, 1, %L)', :w, :euros, 'x')),
  (3, 'more than there is', format('SELECT meterflow.transfer(%s, %s, 10.01, %L)', :w, :other, 'x')),
  (4, 'from nowhere', format('SELECT meterflow.transfer(999999999, %s, 1, %L)', :w, 'x')),
  (5, 'to no wallet', format('SELECT meterflow.transfer(%s, NULL, 1, %L)', :w, 'x')),
  (6, 'another amount', format('SELECT meterflow.transfer(%s, %s, 14, %L, %L)', :w, :other, 'from 4', 'family')),
  (7, 'less than nothing', format('SELECT meterflow.transfer(%s, %s, -1, %L)', :w, :other, 'x'))
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned

-- refund: of a debit in parts, to the grants it came from, the last first; of a top-up what nobody has spent.
SELECT meterflow.grant_credit('back', 10, 'USD', 'back 1') AS gift, meterflow.top_up('back', 30, 'USD', 'back 2') AS paid, meterflow.debit('back', 25, 'USD', 'back 3') AS debit \gset
SELECT meterflow.refund(:debit, 'back 4', 16, 'half of it') AS part \gset
SELECT meterflow.refund(:debit, 'back 4', 16, 'half of it') = :part AS same;
SELECT "grant", remaining FROM grants WHERE customer_id = 'back';
SELECT pg_temp.refused(format($$SELECT meterflow.refund(%s, 'x', 9.01)$$, :debit));
SELECT meterflow.refund(:debit, 'back 5') > 0 AS the_rest;
SELECT pg_temp.refused(format($$SELECT meterflow.refund(%s, 'x')$$, :debit));
SELECT meterflow.debit('back', 32, 'USD', 'back 6') > 0 AS debited, pg_temp.refused(format($$SELECT meterflow.refund(%s, 'x', 8.01)$$, :paid)) AS more_than_nobody_spent;
SELECT meterflow.refund(:paid, 'back 7', 5) > 0 AS paid_out, meterflow.refund(:paid, 'back 8') > 0 AS the_rest;
SELECT t, kind, worth, reverses, "grant", account, amount FROM entries WHERE customer_id = 'back' AND t > 3;
-- void_grant takes back what should not have been given, expire_now ends it before its time; what is spent stays spent.
SELECT meterflow.grant_credit('back', 10, 'USD', 'back 9') AS mistake, meterflow.grant_credit('back', 10, 'USD', 'back 10') AS ended \gset
SELECT meterflow.debit('back', 4, 'USD', 'back 11') > 0 AS spent, meterflow.void_grant(:mistake, 'back 12', 'a mistake') AS voided, meterflow.expire_now(:ended, 'back 13', 'the contract has ended') > 0 AS expired \gset
SELECT meterflow.void_grant(:mistake, 'back 12', 'a mistake') = :voided AS same;
SELECT kind, worth, reverses, "grant", account, amount FROM entries WHERE customer_id = 'back' AND kind IN ('void', 'expiry');
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.refused(statement) FROM (VALUES
  (1, 'void again', format($$SELECT meterflow.void_grant(%s, 'x', 'a mistake')$$, :mistake)),
  (2, 'without a reason', format($$SELECT meterflow.void_grant(%s, 'x', '')$$, :mistake)),
  (3, 'a grant that is not there', $$SELECT meterflow.expire_now(999999999, 'x', 'why')$$),
  (4, 'no grant', $$SELECT meterflow.expire_now(NULL, 'x', 'why')$$),
  (5, 'refund of what is not there', $$SELECT meterflow.refund(999999999, 'x')$$),
  (6, 'refund of a refund', format($$SELECT meterflow.refund(%s, 'x')$$, :part)),
  (7, 'refund of less than nothing', format($$SELECT meterflow.refund(%s, 'x', -1)$$, :debit)),
  (8, 'refund of no number', format($$SELECT meterflow.refund(%s, 'x', 'NaN')$$, :debit)),
  (9, 'refund without a key', format($$SELECT meterflow.refund(%s, NULL)$$, :debit))
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned

-- An invoice: promotional credit before tax, paid credit after it, in burn order; a void gives back to the same grants.
INSERT INTO meterflow.taxes (key, name, rate) VALUES ('vat', 'VAT', 10);
INSERT INTO meterflow.plans (key, currency) VALUES ('flat', 'USD');
INSERT INTO meterflow.prices (plan_key, key, model, taxes) VALUES ('flat', 'base', '{"model":"flat","amount":"100"}', '{vat}');
SELECT meterflow.grant_credit('payer', 30, 'USD', 'payer 1') > 0 AS given, meterflow.top_up('payer', 50, 'USD', 'payer 2') > 0 AS paid, meterflow.hold('payer', 10, 'USD', '1 hour', 'payer hold') > 0 AS held;
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (7001, 'payer', 'flat', '2025-05-01');
SELECT meterflow.cancel_subscription(7001, 'end of May', at => '2025-06-01') > 0 AS cancelled;
SELECT name, balance, open_usage, held, available FROM meterflow.wallet_balance('payer');
SELECT outcome, amount_due FROM pg_temp.bill('2025-06-02') WHERE customer_id = 'payer';
-- 100 less 30 is 70, with tax 77, of which 40 are not held.
SELECT id AS invoice, subtotal, tax, total, credited, amount_due FROM meterflow.invoices WHERE tenant_id = 'wallets' AND customer_id = 'payer' \gset
SELECT :subtotal AS subtotal, :tax AS tax, :total AS total, :credited AS credited, :amount_due AS due;
SELECT ordinal, source, promotional, amount FROM meterflow.invoice_credits WHERE tenant_id = 'wallets' AND invoice_id = :invoice ORDER BY ordinal;
SELECT name, balance, unpaid, held, available FROM meterflow.wallet_balance('payer');
SELECT meterflow.void_invoice(:invoice, 'a mistake') IS NOT NULL AS voided;
SELECT t, kind, worth, reverses, "grant", account, amount FROM entries WHERE customer_id = 'payer' AND kind LIKE 'invoice%';
SELECT "grant", kind, amount, remaining FROM grants WHERE customer_id = 'payer';
SELECT pg_temp.refused(format('SELECT meterflow.refund(%s, %L)', id, 'x')) FROM meterflow.wallet_transactions WHERE tenant_id = 'wallets' AND customer_id = 'payer' AND kind = 'invoice';

-- An allowance for June pays for June in an invoice of July, though it has expired; that for July does not. Money always does.
SELECT meterflow.grant_credit('june', 40, 'USD', 'june 1', expires_at => '2025-07-01', effective_at => '2025-06-01') > 0 AS june, meterflow.grant_credit('june', 500, 'USD', 'june 2', expires_at => '2025-08-01', effective_at => '2025-07-01') > 0 AS july,
       meterflow.top_up('june', 7, 'USD', 'june 3', expires_at => '2025-08-01', effective_at => '2025-07-01') > 0 AS money;
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (7002, 'june', 'flat', '2025-06-01');
SELECT meterflow.cancel_subscription(7002, 'end of July', at => '2025-08-01') > 0 AS cancelled;
SELECT bill_at, outcome, amount_due FROM pg_temp.bill('2025-07-02') WHERE customer_id = 'june';
SELECT c.ordinal, c.promotional, c.amount FROM meterflow.invoice_credits AS c JOIN meterflow.invoices AS i ON (i.tenant_id, i.id) = (c.tenant_id, c.invoice_id) WHERE i.tenant_id = 'wallets' AND i.customer_id = 'june' ORDER BY i.id, ordinal;
SELECT bill_at, outcome, amount_due FROM pg_temp.bill('2025-08-02') WHERE customer_id = 'june';
SELECT "grant", amount, remaining FROM grants WHERE customer_id = 'june';

-- What was: by when it counted, and by when it was known. What a grant had left when it expired is a row, and what it paid
-- for its time afterwards did not expire.
SELECT effective_at AS at, known_at = effective_at AS known_then, kind, amount, grant_balance, wallet_balance, account FROM meterflow.wallet_history('june', 'USD', to_time => '2025-08-02');
SELECT count(*) AS entries_of_now, bool_and(kind = 'invoice') AS of_invoices, sum(amount) AS amount FROM meterflow.wallet_history('june', 'USD', from_time => '2025-08-02');
SELECT at, kind, remaining, live FROM unnest('{2025-05-31,2025-06-15,2025-07-15,2025-08-15}'::timestamptz[]) AS at, meterflow.ledger_balance('june', 'USD', at) ORDER BY at, kind, remaining;
SELECT count(*) AS known_yesterday FROM meterflow.ledger_balance('june', 'USD', '2025-06-15', now() - interval '1 day');
SELECT kind, amount, grant_balance, wallet_balance, account FROM meterflow.wallet_history('back', 'USD') WHERE kind <> 'expired';
SELECT count(*) FROM meterflow.wallet_history('nobody', 'USD');
SELECT count(*) FROM meterflow.ledger_balance(NULL, 'USD', now());
SELECT b.balance = h.wallet_balance AS history_ends_in_the_balance FROM meterflow.wallet_balance('back', 'USD') AS b, LATERAL (SELECT wallet_balance FROM meterflow.wallet_history('back', 'USD') AS h ORDER BY known_at DESC, transaction_id DESC LIMIT 1) AS h;

-- What is on record stays.
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.refused(statement) FROM (VALUES
  (1, 'a transaction', 'UPDATE meterflow.wallet_transactions SET amount = 1000'),
  (2, 'its end', 'DELETE FROM meterflow.wallet_transactions'),
  (3, 'all of them', 'TRUNCATE meterflow.wallet_transactions'),
  (4, 'an entry', 'UPDATE meterflow.ledger_entries SET amount = 1000'),
  (5, 'its end', 'DELETE FROM meterflow.ledger_entries'),
  (6, 'all of them', 'TRUNCATE meterflow.ledger_entries'),
  (7, 'the amount of a grant', 'UPDATE meterflow.credit_grants SET amount = 1000'),
  (8, 'its expiry', 'UPDATE meterflow.credit_grants SET expires_at = now()'),
  (9, 'its end', 'DELETE FROM meterflow.credit_grants'),
  (10, 'the amount of a hold', 'UPDATE meterflow.holds SET amount = 1000'),
  (11, 'its end', 'DELETE FROM meterflow.holds'),
  (12, 'the currency of a wallet', $$UPDATE meterflow.wallets SET currency = 'EUR' WHERE tenant_id = 'wallets' AND customer_id = 'buyer'$$),
  (13, 'its customer', $$UPDATE meterflow.wallets SET customer_id = 'other' WHERE tenant_id = 'wallets' AND customer_id = 'buyer'$$),
  (14, 'its end', $$DELETE FROM meterflow.wallets WHERE tenant_id = 'wallets' AND customer_id = 'buyer'$$),
  (15, 'a customer who has one', $$DELETE FROM meterflow.customers WHERE tenant_id = 'wallets' AND id = 'buyer'$$),
  (16, 'the rate of a unit', $$UPDATE meterflow.credit_units SET rate = 2 WHERE tenant_id = 'wallets' AND key = 'credits'$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
UPDATE meterflow.wallets SET name = 'main', priority = 7 WHERE tenant_id = 'wallets' AND customer_id = 'buyer' AND currency = 'USD';
INSERT INTO meterflow.wallets (customer_id, currency, name) VALUES ('buyer', 'USD', 'empty');
DELETE FROM meterflow.wallets WHERE tenant_id = 'wallets' AND customer_id = 'buyer' AND name = 'empty';

-- The ledger is whole: both sides of everything add up to zero, and it is seen when they do not.
SELECT unit, sum(amount) FROM meterflow.ledger_postings WHERE tenant_id = 'wallets' GROUP BY unit ORDER BY unit;
SELECT * FROM meterflow.verify_ledger();
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE meterflow.credit_grants SET remaining = remaining + 1 WHERE tenant_id = 'wallets' AND id = (SELECT id FROM grants WHERE customer_id = 'late' AND "grant" = 'g2');
UPDATE meterflow.wallet_transactions SET amount = amount + 1 WHERE tenant_id = 'wallets' AND idempotency_key = 'buyer 3';
DELETE FROM meterflow.wallet_transactions WHERE tenant_id = 'wallets' AND idempotency_key = 'buyer 4';
UPDATE meterflow.ledger_entries SET amount = amount + 1 WHERE tenant_id = 'wallets' AND account = 'overdraft' AND grant_id IS NULL AND transaction_id = (SELECT id FROM meterflow.wallet_transactions WHERE tenant_id = 'wallets' AND kind = 'settlement' ORDER BY id LIMIT 1);
UPDATE meterflow.holds SET captured = 1, amount = 5 WHERE tenant_id = 'wallets' AND idempotency_key = 'rows hold';
SELECT problem, customer_id, regexp_replace(detail, '(grant|transaction|settlement|hold|debit|overdraft|wallet) [0-9]+', '\1 N', 'g') AS detail FROM meterflow.verify_ledger() ORDER BY 1, 2, 3;
ROLLBACK;

-- Another tenant has none of this.
SET meterflow.tenant = 'elsewhere';
SELECT count(*) FROM meterflow.wallet_balance('acme');
SELECT count(*) FROM meterflow.current_charges('acme');
SELECT count(*) FROM meterflow.wallet_history('buyer', 'USD');
SELECT pg_temp.try(format('SELECT meterflow.change_plan(%s, %L, %L)', :subscription, 'pro', 'k')) LIKE '23503 there is no subscription%' AS not_there;
SELECT pg_temp.refused(format('SELECT meterflow.refund(%s, %L)', :debit, 'x')) LIKE '23503 there is no wallet transaction%' AS no_refund, pg_temp.refused(format('SELECT meterflow.transfer(%s, %s, 1, %L)', :w, :own, 'x')) LIKE '23503 there is no wallet%' AS no_transfer,
       pg_temp.refused(format('SELECT meterflow.void_grant(%s, %L, %L)', :gift, 'x', 'y')) LIKE '23503 there is no credit grant%' AS no_void;
-- The same key is another's there.
INSERT INTO meterflow.customers (id) VALUES ('buyer');
SELECT meterflow.top_up('buyer', 1, 'USD', 'buyer 1') > :first AS another;
