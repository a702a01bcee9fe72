-- Holds: credit that is set aside before it is spent. Ids and times are not shown.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set wallets :source '/sql/include/wallets.sql'
\set ECHO none
\i :billing
\i :wallets
\set ECHO all
SET meterflow.tenant = 'holds';
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('calls', 'call', 'count', NULL), ('bytes', 'transfer', 'sum', 'bytes'), ('peak', 'seats', 'max', 'seats');
INSERT INTO meterflow.customers (id) SELECT unnest('{holder,two,dead,units}'::text[]);

INSERT INTO meterflow.plans (key, currency, aligned) VALUES ('metered', 'USD', false);
INSERT INTO meterflow.prices (plan_key, key, meter_key, model) VALUES
  ('metered', 'bytes', 'bytes', '{"model":"graduated","tiers":[{"up_to":"20","unit_amount":"0.5"},{"up_to":null,"unit_amount":"2"}]}'),
  ('metered', 'by customer', 'calls', '{"model":"percentage","rate":"1","fixed_amount":"1"}');
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('holder', 'metered', now() - interval '1 hour');
-- Set aside, captured in part, and nothing of it twice.
SELECT meterflow.grant_credit('holder', 5, 'USD', 'holder 1') AS gift, meterflow.top_up('holder', 45, 'USD', 'holder 2') AS paid \gset
SELECT meterflow.hold('holder', 20, 'USD', '1 hour', 'hold 1') AS hold \gset
SELECT meterflow.hold('holder', 20, 'USD', '1 hour', 'hold 1') = :hold AS same;
SELECT * FROM pg_temp.left_of('holder');
SELECT pg_temp.refused($$SELECT meterflow.hold('holder', 30.01, 'USD', '1 hour', 'x')$$);
SELECT pg_temp.refused($$SELECT meterflow.debit('holder', 30.01, 'USD', 'x')$$);
SELECT pg_temp.refused(format($$SELECT meterflow.capture(%s, 20.01)$$, :hold));
SELECT meterflow.capture(:hold, 12.5, 'what it came to') AS capture \gset
SELECT meterflow.capture(:hold, 12.5, 'what it came to') = :capture AS same;
SELECT status, amount, captured, transaction_id = :capture AS by, closed_at IS NOT NULL AS closed FROM meterflow.holds WHERE tenant_id = 'holds' AND id = :hold;
SELECT * FROM pg_temp.left_of('holder');
SELECT pg_temp.refused(format('SELECT meterflow.capture(%s)', :hold));
SELECT pg_temp.refused(format('SELECT meterflow.release(%s)', :hold));
-- For a quantity: what it costs after what is used and held already, from the second tier on 2 each.
SELECT accepted FROM meterflow.ingest('{"transaction_id":"h0","customer_id":"holder","event_name":"transfer","properties":{"bytes":10}}');
SELECT meterflow.hold('holder', NULL, 'USD', '1 hour', 'hold 2', 'bytes', 8) AS eight, meterflow.hold('holder', NULL, 'USD', '1 hour', 'hold 3', 'bytes', 8) AS eight_more \gset
SELECT meter_key, quantity, amount FROM meterflow.active_holds WHERE tenant_id = 'holds' AND customer_id = 'holder' ORDER BY id;
SELECT * FROM pg_temp.left_of('holder');
-- Captured by events, in one transaction: usage takes the place of the hold. One that fails, and the hold stays.
SELECT pg_temp.refused(format($$SELECT meterflow.capture(%s, events => '{"transaction_id":"h1","customer_id":"holder","event_name":"transfer","properties":{"bytes":"many"}}')$$, :eight));
SELECT meterflow.capture(:eight, events => '{"transaction_id":"h1","customer_id":"holder","event_name":"transfer","properties":{"bytes":8}}') IS NULL AS no_transaction;
SELECT meterflow.capture(:eight, events => '{"transaction_id":"h1","customer_id":"holder","event_name":"transfer","properties":{"bytes":8}}') IS NULL AS again_is_no_more;
SELECT name, open_usage, held, available FROM meterflow.wallet_balance('holder');
SELECT meterflow.release(:eight_more);
SELECT meterflow.release(:eight_more);
SELECT meter_key, quantity, status, captured FROM meterflow.holds WHERE tenant_id = 'holds' AND customer_id = 'holder' ORDER BY id;
-- Expired without a job: it no longer counts, and can't be captured.
SELECT meterflow.hold('holder', 5, 'USD', '1 second', 'hold 4') AS short \gset
SELECT held FROM meterflow.wallet_balance('holder');
SELECT pg_sleep(1.1)::text AS slept \gset
SELECT held, (SELECT status FROM meterflow.holds WHERE tenant_id = 'holds' AND id = :short) AS marked FROM meterflow.wallet_balance('holder');
SELECT regexp_replace(pg_temp.refused(format('SELECT meterflow.capture(%s)', :short)), 'at .*Z\.', 'at T.');
-- What a hold needs stays.
SELECT meterflow.hold('holder', available, 'USD', '1 hour', 'hold 5') AS all_of_it FROM meterflow.wallet_balance('holder') \gset
SELECT status FROM meterflow.holds WHERE tenant_id = 'holds' AND id = :short;
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.refused(statement) FROM (VALUES
  (1, 'a top-up under a hold is paid out', format('SELECT meterflow.refund(%s, %L)', :paid, 'x')),
  (2, 'a grant of another', format('SELECT meterflow.void_grant(%s, %L, %L)', :gift, 'x', 'a mistake')),
  (3, 'another amount', $$SELECT meterflow.hold('holder', 21, 'USD', '1 hour', 'hold 1')$$),
  (4, 'for no time', $$SELECT meterflow.hold('holder', 1, 'USD', '0', 'x')$$),
  (5, 'no time', $$SELECT meterflow.hold('holder', 1, 'USD', NULL, 'x')$$),
  (6, 'nothing', $$SELECT meterflow.hold('holder', 0, 'USD', '1 hour', 'x')$$),
  (7, 'neither', $$SELECT meterflow.hold('holder', NULL, 'USD', '1 hour', 'x')$$),
  (8, 'both', $$SELECT meterflow.hold('holder', 1, 'USD', '1 hour', 'x', 'bytes', 1)$$),
  (9, 'a quantity of nothing', $$SELECT meterflow.hold('holder', NULL, 'USD', '1 hour', 'x', 'bytes', 0)$$),
  (10, 'a quantity of no meter', $$SELECT meterflow.hold('holder', NULL, 'USD', '1 hour', 'x', NULL, 1)$$),
  (11, 'of a meter without a price', $$SELECT meterflow.hold('holder', NULL, 'USD', '1 hour', 'x', 'peak', 1)$$),
  (12, 'of a price that must know more', $$SELECT meterflow.hold('holder', NULL, 'USD', '1 hour', 'x', 'calls', 1)$$),
  (13, 'of a meter in another currency', $$SELECT meterflow.hold('holder', NULL, 'EUR', '1 hour', 'x', 'bytes', 1)$$),
  (14, 'of nobody', $$SELECT meterflow.hold('nobody', 1, 'USD', '1 hour', 'x')$$),
  (15, 'capture of what is not there', 'SELECT meterflow.capture(999999999)'),
  (16, 'capture of nothing', 'SELECT meterflow.capture(NULL)'),
  (17, 'less than nothing', format('SELECT meterflow.capture(%s, -1)', :all_of_it)),
  (18, 'an amount and events', format($$SELECT meterflow.capture(%s, 1, events => '[]')$$, :all_of_it))
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
SELECT meterflow.release(:all_of_it);

-- A hold for a meter is set aside in what only this meter can use, if that is enough.
SELECT meterflow.top_up('two', 10, 'USD', 'two 1') > 0 AS paid, meterflow.top_up('two', 10, 'USD', 'two 2', wallet => 'bytes', priority => 60) > 0 AS for_bytes;
UPDATE meterflow.wallets SET meters = '{bytes}' WHERE tenant_id = 'holds' AND customer_id = 'two' AND name = 'bytes';
SELECT meterflow.hold('two', 12, 'USD', '1 hour', 'two 3', meter_key => 'bytes') > 0 AS for_the_meter;
SELECT * FROM pg_temp.left_of('two');
SELECT pg_temp.refused($$SELECT meterflow.hold('two', 8.01, 'USD', '1 hour', 'x')$$);
SELECT meterflow.hold('two', 8, 'USD', '1 hour', 'two 4') AS for_anything \gset
-- And is there when it is captured, whatever has been used meanwhile: usage comes after it then.
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('two', 'metered', now() - interval '1 hour');
SELECT accepted FROM meterflow.ingest('{"transaction_id":"t1","customer_id":"two","event_name":"transfer","properties":{"bytes":30}}');
SELECT name, balance, open_usage, held, available FROM meterflow.wallet_balance('two');
SELECT meterflow.capture(:for_anything) > 0 AS captured;
SELECT name, balance, open_usage, held, available FROM meterflow.wallet_balance('two');

-- A grant that expires under a hold is there for its capture, and for nothing else.
SELECT meterflow.grant_credit('dead', 10, 'USD', 'dead 1', expires_at => clock_timestamp() + interval '1 second') > 0 AS given, meterflow.hold('dead', 8, 'USD', '1 hour', 'dead 2') AS hold \gset
SELECT pg_sleep(1.1)::text AS slept \gset
SELECT name, balance, held, available FROM meterflow.wallet_balance('dead');
SELECT pg_temp.refused($$SELECT meterflow.debit('dead', 0.01, 'USD', 'x')$$);
SELECT meterflow.top_up('dead', 5, 'USD', 'dead 3') > 0 AS paid, meterflow.capture(:hold, 6) > 0 AS captured;
SELECT kind, worth, "grant", account, amount FROM entries WHERE customer_id = 'dead' AND kind = 'capture';
SELECT name, balance, held, available FROM meterflow.wallet_balance('dead');
-- It does not pay what is owed later.
SELECT meterflow.debit('dead', 7, 'USD', 'dead 4', allow_overdraft => true) > 0 AS forced, meterflow.top_up('dead', 1, 'USD', 'dead 5') > 0 AS a_part;
SELECT balance FROM meterflow.wallet_balance('dead');

-- Of credit units a hold is in money, rounded up.
INSERT INTO meterflow.credit_units (key, currency, rate) VALUES ('credits', 'USD', 1.123456);
SELECT meterflow.top_up('units', 100, 'credits', 'units 1') > 0 AS paid, meterflow.hold('units', 50, 'credits', '1 hour', 'units 2') AS hold \gset
SELECT name, credits, balance, held, available FROM meterflow.wallet_balance('units');
SELECT meterflow.capture(:hold) > 0 AS captured;
SELECT name, credits, balance, held, available FROM meterflow.wallet_balance('units');
SELECT * FROM meterflow.verify_ledger();

-- What is free is held for all the same: it costs nothing, and is no longer free for the next, who pays or is refused. 100 are
-- free, of more each costs 0.01.
INSERT INTO meterflow.customers (id) VALUES ('free');
INSERT INTO meterflow.plans (key, currency, aligned) VALUES ('freemium', 'USD', false);
INSERT INTO meterflow.prices (plan_key, key, meter_key, model) VALUES ('freemium', 'bytes', 'bytes', '{"model":"per_unit","unit_amount":"0.01","free_units":"100"}');
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('free', 'freemium', now() - interval '1 hour');
SELECT meterflow.hold('free', NULL, 'USD', '1 hour', 'free 1', 'bytes', 60) AS first \gset
SELECT meterflow.hold('free', NULL, 'USD', '1 hour', 'free 1', 'bytes', 60) = :first AS same;
SELECT pg_temp.refused($$SELECT meterflow.hold('free', NULL, 'USD', '1 hour', 'x', 'bytes', 60)$$);
SELECT meterflow.hold('free', NULL, 'USD', '1 second', 'free 2', 'bytes', 40) AS second \gset
SELECT pg_temp.refused($$SELECT meterflow.hold('free', NULL, 'USD', '1 hour', 'x', 'bytes', 1)$$);
SELECT meterflow.top_up('free', 0.05, 'USD', 'free 3') > 0 AS paid, meterflow.hold('free', NULL, 'USD', '1 hour', 'free 4', 'bytes', 5) > 0 AS held;
SELECT quantity, amount FROM meterflow.active_holds WHERE tenant_id = 'holds' AND customer_id = 'free' ORDER BY id;
SELECT held, available FROM meterflow.wallet_balance('free');
SELECT meterflow.capture(:first, events => '{"transaction_id":"f1","customer_id":"free","event_name":"transfer","properties":{"bytes":60}}') IS NULL AS captured;
SELECT pg_sleep(1.1)::text AS slept \gset
-- Expired, its 40 are free again, but for the 5 that another is for.
SELECT meterflow.hold('free', NULL, 'USD', '1 hour', 'free 5', 'bytes', 35) AS fifth \gset
SELECT pg_temp.refused(format('SELECT meterflow.capture(%s)', :second)) LIKE '55000%It expired%' AS expired, meterflow.capture(:fifth) IS NULL AS captured, meterflow.capture(:fifth) IS NULL AS again;
SELECT quantity, amount, status, captured FROM meterflow.holds WHERE tenant_id = 'holds' AND customer_id = 'free' ORDER BY id;
SELECT * FROM meterflow.verify_ledger();

-- What a hold costs may change with what others come to: B is captured by usage that is free after all, and A, which was free, is
-- not any more. What B lets go of is there for A.
INSERT INTO meterflow.customers (id) VALUES ('order');
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('order', 'freemium', now() - interval '1 hour');
SELECT meterflow.top_up('order', 0.05, 'USD', 'order 1') AS paid, meterflow.hold('order', NULL, 'USD', '1 hour', 'order A', 'bytes', 100) AS a,
       meterflow.hold('order', NULL, 'USD', '1 hour', 'order B', 'bytes', 5) AS b \gset
SELECT open_usage, held, available FROM meterflow.wallet_balance('order');
SELECT meterflow.capture(:b, events => '{"transaction_id":"o1","customer_id":"order","event_name":"transfer","properties":{"bytes":5}}') IS NULL AS captured;
SELECT open_usage, held, available FROM meterflow.wallet_balance('order');
SELECT pg_temp.refused($$SELECT meterflow.debit('order', 0.05, 'USD', 'x')$$);
SELECT pg_temp.refused($$SELECT meterflow.void_grant(g.id, 'x', 'x') FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON w.id = g.wallet_id WHERE w.tenant_id = 'holds' AND w.customer_id = 'order'$$);
SELECT meterflow.capture(:a, events => '{"transaction_id":"o2","customer_id":"order","event_name":"transfer","properties":{"bytes":100}}') IS NULL AS captured;
SELECT open_usage, held, available FROM meterflow.wallet_balance('order');
SELECT * FROM meterflow.verify_ledger();

-- Another tenant has none of them.
SET meterflow.tenant = 'elsewhere';
SELECT pg_temp.refused(format('SELECT meterflow.capture(%s)', :hold)) LIKE '23503 there is no hold%' AS no_capture, pg_temp.refused(format('SELECT meterflow.release(%s)', :hold)) LIKE '23503 there is no hold%' AS no_release;
