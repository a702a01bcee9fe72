-- What other systems get wrong about prepaid credit, one block a fault, and what is right: first how a real-time balance is
-- computed elsewhere, (a) to (g), then what users complain of. Each customer is a case of its own.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set wallets :source '/sql/include/wallets.sql'
\set ECHO none
\i :billing
\i :wallets
\set ECHO all
SET meterflow.tenant = 'faults';
CREATE FUNCTION pg_temp.use(customer text, n numeric, id text DEFAULT NULL, ago interval DEFAULT '0') RETURNS integer LANGUAGE sql
AS $$ SELECT accepted FROM meterflow.ingest(json_build_object('transaction_id', coalesce(id, concat_ws(' ', customer, n, ago)), 'customer_id', customer, 'event_name', 'use', 'properties', json_build_object('n', n), 'timestamp', now() - ago)) $$;
CREATE FUNCTION pg_temp.written() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('%s invoices, %s transactions, %s entries, %s left, %s holds, %s', (SELECT count(*) FROM meterflow.invoices WHERE tenant_id = 'faults'), (SELECT count(*) FROM meterflow.wallet_transactions WHERE tenant_id = 'faults'),
                (SELECT count(*) FROM meterflow.ledger_entries WHERE tenant_id = 'faults'), (SELECT sum(remaining) FROM meterflow.credit_grants WHERE tenant_id = 'faults'), (SELECT count(*) FROM meterflow.holds WHERE tenant_id = 'faults'),
                (SELECT md5(string_agg(concat(t.customer_id, t.totals, t.ctid, t.xmin), ',' ORDER BY t.customer_id, t.currency)) FROM meterflow.wallet_totals AS t WHERE tenant_id = 'faults'))
$$;
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('units', 'use', 'sum', 'n');
INSERT INTO meterflow.taxes (key, name, rate) VALUES ('vat', 'VAT', 10);
INSERT INTO meterflow.plans (key, currency, aligned, interval_unit, interval_count) VALUES ('usage', 'USD', false, 'month', 1), ('taxed', 'USD', false, 'month', 1), ('daily', 'USD', false, 'day', 1), ('euro', 'EUR', false, 'month', 1), ('small', 'USD', false, 'day', 1);
INSERT INTO meterflow.prices (plan_key, key, meter_key, model, taxes) VALUES
  ('usage', 'units', 'units', '{"model":"per_unit","unit_amount":"1"}', '{}'), ('taxed', 'units', 'units', '{"model":"per_unit","unit_amount":"1"}', '{vat}'), ('daily', 'units', 'units', '{"model":"per_unit","unit_amount":"1"}', '{}'),
  ('euro', 'units', 'units', '{"model":"per_unit","unit_amount":"2"}', '{}'), ('small', 'units', 'units', '{"model":"per_unit","unit_amount":"0.005"}', '{}');
INSERT INTO meterflow.customers (id) SELECT unnest('{a,b,c,d,e,f,g,new,currencies,cascade,cents,once,noted,hot,limit,many}'::text[]);
CREATE FUNCTION pg_temp.subscribe(customer text, plan text, ago interval DEFAULT '1 hour') RETURNS bigint LANGUAGE sql
AS $$ INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES (customer, plan, now() - ago) RETURNING id $$;
CREATE FUNCTION pg_temp.bill_now(customer text) RETURNS TABLE (outcome text, amount_due text) LANGUAGE sql
AS $$ SELECT b.outcome, b.amount_due FROM pg_temp.bill(now()) AS b WHERE b.customer_id = customer $$;

-- (a) Each of several wallets subtracts all usage: of 60 and 60 with 50 used, each would show 10.
SELECT pg_temp.subscribe('a', 'usage') > 0 AS subscribed, meterflow.top_up('a', 60, 'USD', 'a 1') > 0 AS paid, meterflow.top_up('a', 60, 'USD', 'a 2', wallet => 'second') > 0 AS paid_too, pg_temp.use('a', 50) AS used;
SELECT name, balance, open_usage, available, sum(available) OVER () AS in_all FROM meterflow.wallet_balance('a');
SELECT pg_temp.use('a', 30) AS used;
SELECT name, balance, open_usage, available, sum(available) OVER () AS in_all FROM meterflow.wallet_balance('a');

-- (b) A read computes drafts and stores them: here it may be in a read-only transaction, with two periods to be billed.
SELECT pg_temp.subscribe('b', 'daily', '49 hours') > 0 AS subscribed, meterflow.top_up('b', 50, 'USD', 'b 1') > 0 AS paid, pg_temp.use('b', 5, ago => '48 hours') AS first_period, pg_temp.use('b', 7, ago => '24 hours') AS second, pg_temp.use('b', 9) AS third;
SELECT pg_temp.written() AS before \gset
BEGIN READ ONLY;
SELECT balance, open_usage, available FROM meterflow.wallet_balance('b');
SELECT count(*) FROM meterflow.wallet_history('b', 'USD');
COMMIT;
SELECT pg_temp.written() = :'before' AS nothing_written;

-- (c) Discounts and taxes of an invoice are not in open usage: 100 less 20 % with 10 % tax is 88, and so is its invoice.
INSERT INTO meterflow.coupons (code, kind, value) VALUES ('FIFTH', 'percentage', 20);
SELECT pg_temp.subscribe('c', 'taxed') AS subscription \gset
SELECT meterflow.redeem_coupon('c', 'FIFTH', 'c 1') > 0 AS redeemed, meterflow.top_up('c', 100, 'USD', 'c 2') > 0 AS paid, pg_temp.use('c', 100) AS used;
SELECT open_usage, available FROM meterflow.wallet_balance('c');
SELECT meterflow.cancel_subscription(:subscription, 'c 3') > 0 AS ended;
SELECT * FROM pg_temp.bill_now('c');
SELECT total, credited FROM meterflow.invoices WHERE tenant_id = 'faults' AND customer_id = 'c';
SELECT balance, open_usage, unpaid, available FROM meterflow.wallet_balance('c');

-- (d) What has expired is in the balance until a job sweeps it: here it is gone with its last moment, and nobody has written that.
SELECT meterflow.top_up('d', 10, 'USD', 'd 1') > 0 AS stays, meterflow.grant_credit('d', 20, 'USD', 'd 2', expires_at => '2026-01-01', effective_at => '2025-01-01') > 0 AS has_expired,
       meterflow.grant_credit('d', 40, 'USD', 'd 3', expires_at => date_trunc('second', now()) + interval '2 hours') > 0 AS will;
SELECT w.at - date_trunc('second', now()) AS later, b.balance FROM (VALUES (now()), (date_trunc('second', now()) + interval '2 hours' - interval '1 microsecond'), (date_trunc('second', now()) + interval '2 hours')) AS w (at), LATERAL meterflow.wallet_balance('d', as_of => w.at) AS b WHERE w.at > now();
SELECT balance, (SELECT sum(remaining) FROM grants WHERE customer_id = 'd') AS as_stored FROM meterflow.wallet_balance('d');
SELECT pg_temp.refused($$SELECT meterflow.debit('d', 50.01, 'USD', 'x')$$);

-- (e) Eight seconds for usage, or else a balance that is half an hour old: here it is of the statement, with what the same
-- transaction did a line before, and as well with what it has not committed.
SELECT pg_temp.subscribe('e', 'usage') > 0 AS subscribed, meterflow.top_up('e', 10, 'USD', 'e 1') > 0 AS paid;
BEGIN;
SELECT pg_temp.use('e', 4) AS used, meterflow.debit('e', 1, 'USD', 'e 2') > 0 AS debited, meterflow.hold('e', 2, 'USD', '1 hour', 'e 3') > 0 AS held;
SELECT balance, open_usage, held, available, as_of = statement_timestamp() AS of_now FROM meterflow.wallet_balance('e');
ROLLBACK;
SELECT balance, open_usage, held, available FROM meterflow.wallet_balance('e');

-- (f) Duplicates count until they are merged away: here an event that is sent three times is used once, and is not another by the same name.
SELECT pg_temp.subscribe('f', 'usage') > 0 AS subscribed, meterflow.top_up('f', 10, 'USD', 'f 1') > 0 AS paid;
SELECT '{"transaction_id":"same","customer_id":"f","event_name":"use","properties":{"n":3}}' AS event \gset
SELECT accepted, duplicates FROM meterflow.ingest(:'event');
SELECT accepted, duplicates FROM meterflow.ingest(format('[%s,%s]', :'event', :'event')::json);
SELECT accepted, duplicates, failed->0->>'code' AS code FROM meterflow.ingest(replace(:'event', '3', '4')::json);
SELECT open_usage, available FROM meterflow.wallet_balance('f');

-- (g) Usage of a period that has ended and has no draft yet is in neither part: here a charge is open until it is billed.
SELECT pg_temp.subscribe('g', 'daily', '25 hours') > 0 AS subscribed, meterflow.top_up('g', 50, 'USD', 'g 1') > 0 AS paid, pg_temp.use('g', 20, ago => '24 hours 30 minutes') AS of_the_period_that_ended, pg_temp.use('g', 5) AS of_this_one;
SELECT open_usage, unpaid, available FROM meterflow.wallet_balance('g');
SELECT * FROM pg_temp.bill_now('g');
SELECT balance, open_usage, unpaid, available FROM meterflow.wallet_balance('g');

-- Complaint 2, a balance that is stale or wrong. A new wallet has its credit at once.
SELECT meterflow.top_up('new', 5, 'USD', 'new 1') > 0 AS paid, (SELECT available FROM meterflow.wallet_balance('new')) AS not_in_its_own_snapshot;
SELECT available FROM meterflow.wallet_balance('new');
-- Currencies are apart: 10 used are 10 USD and 20 EUR, each of its own wallet.
SELECT pg_temp.subscribe('currencies', 'usage') > 0 AND pg_temp.subscribe('currencies', 'euro') > 0 AS subscribed, meterflow.top_up('currencies', 30, 'USD', 'currencies 1') > 0 AS dollars, meterflow.top_up('currencies', 30, 'EUR', 'currencies 2') > 0 AS euros, pg_temp.use('currencies', 10) AS used;
SELECT currency, balance, open_usage, available FROM meterflow.wallet_balance('currencies') ORDER BY currency;
-- From one wallet to the next: what the first can't pay is the second's, and what is too much the last's that may pay it.
SELECT meterflow.top_up('cascade', 10, 'USD', 'cascade 1', wallet => 'units') > 0 AS for_units, meterflow.top_up('cascade', 10, 'USD', 'cascade 2') > 0 AS paid, meterflow.top_up('cascade', 10, 'USD', 'cascade 3', wallet => 'fees') > 0 AS for_fees;
UPDATE meterflow.wallets SET meters = '{units}', priority = 1 WHERE tenant_id = 'faults' AND customer_id = 'cascade' AND name = 'units';
UPDATE meterflow.wallets SET charges = '{fee}', priority = 99 WHERE tenant_id = 'faults' AND customer_id = 'cascade' AND name = 'fees';
SELECT pg_temp.subscribe('cascade', 'usage') > 0 AS subscribed, pg_temp.use('cascade', 15) AS used;
SELECT name, balance, open_usage, available FROM meterflow.wallet_balance('cascade');
SELECT pg_temp.use('cascade', 16) AS used;
SELECT name, balance, open_usage, available FROM meterflow.wallet_balance('cascade');
-- Half a cent is rounded once, on the line, in the balance as on the invoice: 0.15 and not 0.16, and nothing is below zero.
SELECT pg_temp.subscribe('cents', 'small', '25 hours') > 0 AS subscribed;
SELECT meterflow.top_up('cents', 0.15, 'USD', 'cents 1') > 0 AS paid, sum(pg_temp.use('cents', 1, 'cents ' || n, '24 hours 30 minutes')) AS used FROM generate_series(1, 29) AS n;
SELECT balance, open_usage, available FROM meterflow.wallet_balance('cents');
SELECT * FROM pg_temp.bill_now('cents');
SELECT i.total, i.credited, b.balance, b.available FROM meterflow.invoices AS i, meterflow.wallet_balance('cents') AS b WHERE i.tenant_id = 'faults' AND i.customer_id = 'cents';

-- Complaint 3, double spend and double credit: every verb again with its key does nothing. Races: tests/isolation.
SELECT meterflow.top_up('once', 100, 'USD', 'once 1') AS top_up, meterflow.top_up('once', 1, 'USD', 'once 3', wallet => 'second') > 0 AS second \gset
SELECT meterflow.debit('once', 30, 'USD', 'once 4') AS debit, meterflow.hold('once', 20, 'USD', '1 hour', 'once 5') AS hold \gset
SELECT (SELECT id FROM meterflow.wallets WHERE tenant_id = 'faults' AND customer_id = 'once' AND name = 'default') AS w1, (SELECT id FROM meterflow.wallets WHERE tenant_id = 'faults' AND customer_id = 'once' AND name = 'second') AS w2 \gset
SELECT meterflow.capture(:hold, 15) AS capture, meterflow.transfer(:w1, :w2, 5, 'once 6') AS transfer, meterflow.refund(:debit, 'once 7', 10) AS refund, meterflow.grant_credit('once', 10, 'USD', 'once 2') AS gift \gset
SELECT meterflow.void_grant(:gift, 'once 8', 'a mistake') AS voided \gset
SELECT pg_temp.written() AS before, sum(available) AS available FROM meterflow.wallet_balance('once') \gset
SELECT meterflow.top_up('once', 100, 'USD', 'once 1') = :top_up AS top_up, meterflow.grant_credit('once', 10, 'USD', 'once 2') = :gift AS grant, meterflow.debit('once', 30, 'USD', 'once 4') = :debit AS debit, meterflow.hold('once', 20, 'USD', '1 hour', 'once 5') = :hold AS hold,
       meterflow.capture(:hold, 15) = :capture AS capture, meterflow.transfer(:w1, :w2, 5, 'once 6') = :transfer AS transfer, meterflow.refund(:debit, 'once 7', 10) = :refund AS refund, meterflow.void_grant(:gift, 'once 8', 'a mistake') = :voided AS void;
SELECT pg_temp.written() = :'before' AS nothing_written, sum(available) AS available, :available = sum(available) AS same, 100 + 1 - 30 - 15 + 10 AS by_hand FROM meterflow.wallet_balance('once');
-- An invoice is voided once and gives back once; a credit note pays the next invoice, and not the one after it.
SELECT meterflow.top_up('noted', 50, 'USD', 'noted 1') > 0 AS paid, meterflow.create_invoice('noted', 'USD', '[{"description":"Setup","amount":"30"}]', 'noted 2') AS one, meterflow.create_invoice('noted', 'USD', '[{"description":"More","amount":"15"}]', 'noted 3') AS two \gset
SELECT meterflow.void_invoice(:one, 'a mistake') IS NOT NULL AS voided;
SELECT meterflow.void_invoice(:one, 'a mistake') AS again;
SELECT balance FROM meterflow.wallet_balance('noted');
SELECT meterflow.create_credit_note(:two, 'noted 4', 'a part', '{"1": 6}', refund => 0) > 0 AS noted;
SELECT meterflow.create_invoice('noted', 'USD', '[{"description":"Next","amount":"4"}]', 'noted 5') > 0 AS next, meterflow.create_invoice('noted', 'USD', '[{"description":"And next","amount":"4"}]', 'noted 6') > 0 AS and_next;
SELECT i.total, string_agg(format('%s %s', c.source, c.amount), ', ' ORDER BY c.ordinal) AS credits, i.amount_due FROM meterflow.invoices AS i LEFT JOIN meterflow.invoice_credits AS c ON (c.tenant_id, c.invoice_id) = (i.tenant_id, i.id)
 WHERE i.tenant_id = 'faults' AND i.customer_id = 'noted' AND i.status <> 'void' GROUP BY i.id, i.total, i.amount_due ORDER BY i.id;
SELECT balance FROM meterflow.wallet_balance('noted');

-- Complaint 6, the hot row: usage takes no lock and writes no row of a wallet, and a thousand debits write its sums once.
SELECT pg_temp.subscribe('hot', 'usage') > 0 AS subscribed, meterflow.top_up('hot', 1000, 'USD', 'hot 1') > 0 AS paid;
SELECT pg_temp.written() AS before \gset
BEGIN;
SELECT sum(pg_temp.use('hot', 0.1, 'hot ' || n)) AS used FROM generate_series(1, 100) AS n;
SELECT count(*) AS locks FROM pg_locks AS l WHERE l.pid = pg_backend_pid() AND l.relation IN ('meterflow.wallet_totals'::regclass, 'meterflow.credit_grants'::regclass, 'meterflow.wallets'::regclass, 'meterflow.ledger_entries'::regclass, 'meterflow.holds'::regclass) AND l.mode <> 'AccessShareLock';
COMMIT;
SELECT pg_temp.written() = :'before' AS untouched;
SELECT open_usage, available FROM meterflow.wallet_balance('hot');
SELECT count(*) FILTER (WHERE d.code IS NULL) AS done, count(*) FILTER (WHERE d.code = 'insufficient_credit') AS refused
  FROM meterflow.debit_rows(array_fill('hot'::text, ARRAY[1000]), array_fill(1::numeric, ARRAY[1000]), 'USD', (SELECT array_agg('hot debit ' || n) FROM generate_series(1, 1000) AS n)) AS d;
SELECT balance, open_usage, available FROM meterflow.wallet_balance('hot');

-- Of many debits at once the second finds what the first has left of what can be spent, also where a limited wallet pays for
-- what is open: 10 here.
INSERT INTO meterflow.wallets (customer_id, currency, name, priority, meters) VALUES ('many', 'USD', 'own', 1, '{units}');
SELECT pg_temp.subscribe('many', 'usage') > 0 AS subscribed, meterflow.top_up('many', 5, 'USD', 'many 1', wallet => 'own') > 0 AS paid, meterflow.top_up('many', 10, 'USD', 'many 2') > 0 AS paid_too, pg_temp.use('many', 5) AS used;
SELECT d.code, d.message FROM meterflow.debit_rows('{many,many,many}', '{6,3.99,0.02}', 'USD', '{many 3,many 4,many 5}') AS d ORDER BY d.ordinal;
SELECT name, balance, open_usage, available FROM meterflow.wallet_balance('many');

-- Complaint 10, a limit that is advice: here the event that there is no credit for is not let in. Each costs 0.40 of 2.00.
SELECT pg_temp.subscribe('limit', 'usage') > 0 AS subscribed, meterflow.top_up('limit', 2, 'USD', 'limit 1') > 0 AS paid;
CREATE TEMPORARY TABLE attempts (n integer, outcome text, available numeric);
DO $$
DECLARE
  held bigint;
BEGIN
  FOR n IN 1..8 LOOP
    BEGIN
      held := meterflow.hold('limit', NULL, 'USD', '1 minute', 'attempt ' || n, 'units', 0.4);
      PERFORM meterflow.capture(held, events => json_build_object('transaction_id', 'attempt ' || n, 'customer_id', 'limit', 'event_name', 'use', 'properties', json_build_object('n', 0.4), 'timestamp', now()));
      INSERT INTO attempts SELECT n, 'let in', b.available FROM meterflow.wallet_balance('limit') AS b;
    EXCEPTION WHEN configuration_limit_exceeded THEN
      INSERT INTO attempts SELECT n, SQLERRM, b.available FROM meterflow.wallet_balance('limit') AS b;
    END;
    -- The third is taken back: there is room for one more.
    IF n = 6 THEN
      PERFORM meterflow.void_event('attempt 3', 'a mistake');
    END IF;
  END LOOP;
END $$;
SELECT n, outcome, available FROM attempts ORDER BY n;
SELECT balance, open_usage, held, available FROM meterflow.wallet_balance('limit');
-- Holds that run at once share it too: for two of 1.00 there is room, for a third not until one is released.
SELECT meterflow.top_up('limit', 2, 'USD', 'limit 2') > 0 AS paid, meterflow.hold('limit', 1, 'USD', '1 hour', 'one') AS one, meterflow.hold('limit', 1, 'USD', '1 hour', 'two') AS two \gset
SELECT pg_temp.refused($$SELECT meterflow.hold('limit', 0.01, 'USD', '1 hour', 'three')$$);
SELECT meterflow.release(:one);
SELECT meterflow.hold('limit', 0.01, 'USD', '1 hour', 'three') > 0 AS room;

SELECT * FROM meterflow.verify_ledger();
SELECT count(*) AS faults FROM bill_faults;
