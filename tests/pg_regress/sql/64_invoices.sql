-- Invoices: what is on them, when they are final, what comes after. All of 2025, billed as of then.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set settings :source '/sql/include/settings.sql'
\set billing :source '/sql/include/billing.sql'
SET meterflow.tenant = 'invoices';
SELECT meterflow.pause_worker();
-- Hours that long ago are days already, as the worker sees it; but there is nothing there yet.
UPDATE meterflow.fold_state SET hour_floor = '-infinity', hour_cleared = '-infinity', day_floor = '-infinity', day_cleared = '-infinity';
ALTER SYSTEM SET meterflow.backdate_window = '10000d';
\set setting meterflow.backdate_window
\set value 10000d
\set ECHO none
\i :settings
\i :billing
\set ECHO all
CREATE FUNCTION pg_temp.send(customer text, name text, at timestamptz, n numeric, id text DEFAULT NULL) RETURNS text LANGUAGE sql
AS $$ SELECT coalesce(failed->0->>'code', accepted || ' accepted') FROM meterflow.ingest(json_build_object('transaction_id', coalesce(id, concat_ws('-', customer, name, at)), 'customer_id', customer,
        'event_name', name, 'properties', json_build_object('n', n), 'timestamp', at)) $$;
INSERT INTO meterflow.billing_settings (invoice_format, grace_period, net_terms, seller) VALUES ('{year}-{seq:3}', '3 days', '14 days', '{"name":"Meters Inc."}');
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('calls', 'call', 'count', NULL), ('tokens', 'call', 'sum', 'n'), ('bytes', 'transfer', 'sum', 'n');
INSERT INTO meterflow.taxes (key, name, rate, inclusive, is_default) VALUES ('vat', 'VAT', 19, false, false), ('city', 'City tax', 1.5, false, false), ('gst', 'GST', 20, true, false);
INSERT INTO meterflow.customers (id, name, timezone, taxes, email) VALUES ('acme', 'Acme', 'Europe/Berlin', '{vat}', 'acme@example.com');
INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'EUR');
INSERT INTO meterflow.prices (plan_key, key, meter_key, name, model, advance) VALUES
  ('pro', 'calls', 'calls', 'API calls', '{"model":"per_unit","unit_amount":"0.105"}', false),
  ('pro', 'tokens', 'tokens', 'Tokens', '{"model":"graduated","tiers":[{"up_to":"1000","unit_amount":"0.01"},{"up_to":null,"unit_amount":"0.004"}]}', false),
  ('pro', 'base', NULL, 'Platform', '{"model":"flat","amount":"20"}', true), ('pro', 'seat', NULL, 'Seats', '{"model":"per_unit","unit_amount":"7"}', true);
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at, quantities) VALUES (6401, 'acme', 'pro', '2025-01-15 Europe/Berlin', '{"seat":3}');
-- 41 calls on three days of January, one of them in the last second of it in Berlin, and one in February.
SELECT DISTINCT pg_temp.send('acme', 'call', '2025-01-16 12:00+00'::timestamptz + g * interval '1 minute', 50) FROM generate_series(1, 40) AS g;
SELECT pg_temp.send('acme', 'call', '2025-01-31 22:59:59+00', 7.5), pg_temp.send('acme', 'call', '2025-01-31 23:00:00+00', 100), pg_temp.send('acme', 'call', '2025-01-14 12:00+00', 100) AS before_it_began;

-- At its beginning the fees of 17 of 31 days: a draft for three days, then final, once.
SELECT outcome, number, amount_due FROM pg_temp.bill('2025-01-15 Europe/Berlin');
SELECT outcome FROM meterflow.bill_due('2025-01-16');
SELECT status, bill_at, issued_at, due_at, subtotal, tax, total, amount_due FROM meterflow.invoices WHERE tenant_id = 'invoices';
SELECT outcome, number, amount_due FROM pg_temp.bill('2025-01-20 10:00');
SELECT status, bill_at, issued_at, due_at, subtotal, tax, total, amount_due, customer, seller FROM meterflow.invoices WHERE tenant_id = 'invoices' \gx
SELECT line, kind, description, period_start, period_end, quantity, amount, amount = round(CASE description WHEN 'Platform' THEN 20 ELSE 21 END * 17 / 31.0, 2) AS days FROM bill_lines;
SELECT base, amount, amount = round(base * 0.19, 2) AS nineteen FROM meterflow.invoice_taxes WHERE tenant_id = 'invoices';
-- The end of January and February's fees. What comes within the three days of grace is on it.
SELECT outcome, number, amount_due FROM pg_temp.bill('2025-02-02');
SELECT line, kind, description, quantity, amount FROM bill_lines WHERE number IS NULL;
SELECT pg_temp.send('acme', 'call', '2025-01-31 12:00+00', 0.5);
SELECT outcome, number, amount_due FROM pg_temp.bill('2025-02-05');
SELECT line, kind, description, period_start, period_end, quantity, amount FROM bill_lines WHERE number = '2025-002';
-- It says what usage and price say.
SELECT l.meter_key, l.amount = meterflow.price(l.model, u.value, 'EUR') AS price_of_usage, l.unrounded = meterflow.price(l.model, u.value) AS exact, l.quantity = u.value AS usage
  FROM meterflow.invoice_lines AS l JOIN meterflow.invoices AS i ON i.tenant_id = l.tenant_id AND i.id = l.invoice_id, LATERAL meterflow.usage(l.meter_key, l.period_start, l.period_end, 'acme') AS u
 WHERE i.tenant_id = 'invoices' AND i.number = '2025-002' AND l.meter_key IS NOT NULL ORDER BY 1;
SELECT count(*) AS faults FROM bill_faults;
SELECT count(*) FROM pg_temp.bill('2025-02-28');
SELECT id AS january FROM meterflow.invoices WHERE tenant_id = 'invoices' AND number = '2025-002' \gset
SELECT line, description, quantity, reproduced_quantity, due_amount, reproduced_amount, equal FROM meterflow.reproduce_invoice(:january);

-- After that: a late event, one that is taken back, one that is corrected. The old invoice stays, and can still be told
-- from what was known; the next one charges the difference and names it.
SELECT pg_temp.send('acme', 'call', '2025-01-20 08:00+00', 1000, 'late');
SELECT meterflow.void_event('acme-call-2025-01-31 22:59:59+00', 'twice') IS NOT NULL AS voided, meterflow.amend_event('acme-call-2025-01-31 12:00:00+00', '{"properties":{"n":100}}', 'wrong') IS NOT NULL AS amended;
SELECT line, quantity, reproduced_quantity, due_amount, reproduced_amount, equal FROM meterflow.reproduce_invoice(:january);
SELECT outcome, number, amount_due FROM pg_temp.bill('2025-03-10');
SELECT line, kind, description, period_start, quantity, due_amount, billed_before, amount, adjusts FROM bill_lines WHERE number = '2025-003';
-- 2007.5 + 0.5 tokens of January became 3100: not the price of the difference, but the difference in price.
SELECT round(10 + 2100 * 0.004, 2) - round(10 + 1008 * 0.004, 2) AS difference;
SELECT bool_and(equal) AS january, (SELECT bool_and(r.equal) FROM meterflow.invoices AS i, LATERAL meterflow.reproduce_invoice(i.id) AS r WHERE i.tenant_id = 'invoices') AS all_of_them FROM meterflow.reproduce_invoice(:january);
-- In all: what the raw events cost at these prices, month by month, and the fees of the days.
SELECT sum(l.amount) = (SELECT sum(round(count * 0.105, 2) + round(least(n, 1000) * 0.01 + greatest(n - 1000, 0) * 0.004, 2))
                          FROM (SELECT count(*), sum((properties->>'n')::numeric) AS n FROM meterflow.events
                                 WHERE tenant_id = 'invoices' AND customer_id = 'acme' AND timestamp >= '2025-01-15 Europe/Berlin' AND timestamp < '2025-03-01 Europe/Berlin'
                                   AND NOT EXISTS (SELECT FROM meterflow.event_corrections AS c WHERE c.tenant_id = events.tenant_id AND c.seq = events.seq)
                                 GROUP BY date_trunc('month', timestamp, 'Europe/Berlin')) AS m)
       + (SELECT round(20 * 17 / 31.0, 2) + round(21 * 17 / 31.0, 2) + 2 * 41) AS from_raw_events
  FROM bill_lines AS l WHERE customer_id = 'acme';

-- finalize_invoice: before the grace is over; the same key again is the same invoice, another key or draft an error.
SELECT outcome, number, amount_due FROM pg_temp.bill('2025-04-01');
SELECT id AS draft FROM meterflow.invoices WHERE tenant_id = 'invoices' AND status = 'draft' \gset
SELECT meterflow.finalize_invoice(:draft, 'march') AS march \gset
SELECT meterflow.finalize_invoice(:draft, 'march') = :march AS same, meterflow.finalize_invoice(:march, 'march') = :march AS same_by_its_own_id, :march <> :draft AS another_row;
SELECT number LIKE '20__-004' AS next_number, status, bill_at, issued_at = now() OR issued_at > now() - interval '1 minute' AS issued_now, due_at - issued_at AS terms FROM meterflow.invoices WHERE tenant_id = 'invoices' AND id = :march;
\set VERBOSITY terse
SELECT meterflow.finalize_invoice(999999999, 'april');
SELECT meterflow.finalize_invoice(:march, '');
\set VERBOSITY default
SELECT regexp_replace(pg_temp.try(format('SELECT meterflow.finalize_invoice(%s, %L)', :march, 'april')), '(invoice |number )[0-9-]+', '\1N', 'g') AS no_draft;
SELECT outcome, number, amount_due FROM pg_temp.bill('2025-05-02');
SELECT regexp_replace(pg_temp.try(format('SELECT meterflow.finalize_invoice(%s, %L)', id, 'march')), '(invoice |number )[0-9-]+', '\1N', 'g') AS another_draft FROM meterflow.invoices WHERE tenant_id = 'invoices' AND status = 'draft';
SELECT meterflow.cancel_subscription(6401, 'done', at => '2025-05-01 Europe/Berlin') > 0 AS cancelled;
SELECT outcome, number, amount_due FROM pg_temp.bill('2025-05-10');
-- Late events of the last period, once more after the time for adjustments; then nothing more.
SELECT pg_temp.send('acme', 'call', '2025-04-30 08:00+00', 1, 'very late');
SELECT next_bill_at FROM meterflow.subscriptions WHERE tenant_id = 'invoices' AND id = 6401;
SELECT bill_at, outcome, amount_due FROM pg_temp.bill('2025-12-31');
SELECT kind, description, quantity, amount FROM bill_lines WHERE number = (SELECT number FROM bills ORDER BY bill_at DESC LIMIT 1);
SELECT next_bill_at FROM meterflow.subscriptions WHERE tenant_id = 'invoices' AND id = 6401;

-- A final invoice is for ever, and all its parts.
\pset format unaligned
\pset tuples_only on
SELECT regexp_replace(pg_temp.try(statement), ' [0-9]+-[0-9]+', ' N') FROM (VALUES
  (1, $$UPDATE meterflow.invoices SET total = 1 WHERE tenant_id = 'invoices' AND number = '2025-002'$$),
  (2, $$UPDATE meterflow.invoices SET status = 'draft' WHERE tenant_id = 'invoices' AND number = '2025-002'$$),
  (3, $$DELETE FROM meterflow.invoices WHERE tenant_id = 'invoices' AND number = '2025-002'$$),
  (4, $$UPDATE meterflow.invoice_lines SET amount = 1 WHERE tenant_id = 'invoices'$$),
  (5, $$DELETE FROM meterflow.invoice_lines WHERE tenant_id = 'invoices'$$),
  (6, $$INSERT INTO meterflow.invoice_lines (invoice_id, line, kind, description, customer_id, unrounded, amount, total) SELECT id, 99, 'one_off', 'More', 'acme', 1, 1, 1 FROM meterflow.invoices WHERE tenant_id = 'invoices' AND number = '2025-002'$$),
  (7, $$UPDATE meterflow.invoice_taxes SET amount = 0 WHERE tenant_id = 'invoices'$$),
  (8, $$DELETE FROM meterflow.invoice_taxes WHERE tenant_id = 'invoices'$$),
  (9, $$TRUNCATE meterflow.invoice_taxes$$)
) AS t (n, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned

-- Numbers: by the tenant's format, counted up without a gap.
SELECT meterflow.format_number(f, 42, '2025-03-31 23:59:59Z') FROM unnest(ARRAY['INV-{seq:6}', '{seq}', '{year}/{month}/{seq:1}', '{seq:2}-{seq}']) AS f;
SELECT meterflow.format_number('{seq:2}', 12345, '2025-01-01');
SELECT count(*) = max(substr(number, 6)::integer) AS no_gap FROM meterflow.invoices WHERE tenant_id = 'invoices' AND number IS NOT NULL;

-- Coupons, each for a customer of its own: 100 a month for a plan and 1 a byte, three months.
UPDATE meterflow.billing_settings SET grace_period = '0' WHERE tenant_id = 'invoices';
INSERT INTO meterflow.plans (key, currency) VALUES ('flat', 'USD'), ('extra', 'USD');
INSERT INTO meterflow.prices (plan_key, key, meter_key, model, advance) VALUES ('flat', 'base', NULL, '{"model":"flat","amount":"100"}', true), ('flat', 'bytes', 'bytes', '{"model":"per_unit","unit_amount":"1"}', false),
  ('extra', 'more', NULL, '{"model":"flat","amount":"9.99"}', true);
INSERT INTO meterflow.coupons (code, kind, value, currency, level, plans, meters, periods) VALUES
  ('once', 'percentage', 10, NULL, 'invoice', NULL, NULL, 1), ('twice', 'percentage', 10, NULL, 'invoice', NULL, NULL, 2), ('for ever', 'percentage', 12.5, NULL, 'invoice', NULL, NULL, NULL),
  ('fixed once', 'fixed', 150, 'USD', 'invoice', NULL, NULL, 1), ('fixed twice', 'fixed', 30, 'USD', 'invoice', NULL, NULL, 2), ('fixed for ever', 'fixed', 30, 'USD', 'line', NULL, NULL, NULL),
  ('of a plan', 'percentage', 50, NULL, 'line', '{extra}', NULL, NULL), ('of a meter', 'percentage', 50, NULL, 'invoice', NULL, '{bytes}', NULL), ('in yen', 'fixed', 50, 'JPY', 'invoice', NULL, NULL, NULL), ('all', 'percentage', 100, NULL, 'invoice', NULL, NULL, 2);
INSERT INTO meterflow.customers (id) SELECT code FROM meterflow.coupons WHERE tenant_id = 'invoices';
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) SELECT 6410 + row_number() OVER (ORDER BY code), code, 'flat', '2025-01-01' FROM meterflow.coupons WHERE tenant_id = 'invoices';
SELECT count(meterflow.add_add_on(id, 'extra', 'extra of ' || customer_id, at => '2025-01-01')) FROM meterflow.subscriptions WHERE tenant_id = 'invoices' AND plan_key = 'flat';
SELECT count(pg_temp.send(code, 'transfer', '2025-01-16', 33.33)) FROM meterflow.coupons WHERE tenant_id = 'invoices';
SELECT count(meterflow.redeem_coupon(code, code, 'redeems ' || code)) FROM meterflow.coupons WHERE tenant_id = 'invoices';
SELECT count(*), count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM pg_temp.bill('2025-03-01');
SELECT customer_id, string_agg(format('%s - %s = %s', subtotal, discount, amount_due), ' | ' ORDER BY bill_at) AS "January, February, March" FROM bills WHERE customer_id IN (SELECT code FROM meterflow.coupons) GROUP BY 1 ORDER BY 1;
-- By hand: 10 % of 109.99 and of 143.32, 12.5 % of them; 150 as 109.99 + 40.01; 50 % of 9.99 rounded on its line, of 33.33.
SELECT round(109.99 * 0.1, 2), round(143.32 * 0.1, 2), round(109.99 * 0.125, 2), round(143.32 * 0.125, 2), 150 - 109.99, round(9.99 * 0.5, 2), round(33.33 * 0.5, 2);
SELECT i.number, i.code, i.level, i.amount FROM (SELECT b.number, d.* FROM meterflow.invoice_discounts AS d JOIN meterflow.invoices AS b ON b.tenant_id = d.tenant_id AND b.id = d.invoice_id WHERE d.tenant_id = 'invoices' AND d.code IN ('fixed once', 'of a plan')) AS i ORDER BY 1;
SELECT count(*) AS faults FROM bill_faults;

-- Taxes: exclusive, inclusive, two, none, exempt; a price's own before the customer's, those before the default ones.
INSERT INTO meterflow.prices (plan_key, key, model, advance, taxes, valid_from) VALUES ('extra', 'book', '{"model":"flat","amount":"10"}', true, '{city}', '2025-03-01');
UPDATE meterflow.taxes SET is_default = true WHERE tenant_id = 'invoices' AND key = 'gst';
INSERT INTO meterflow.customers (id, taxes, tax_exempt) VALUES ('t default', NULL, false), ('t exclusive', '{vat}', false), ('t two', '{vat,city}', false), ('t none', '{}', false), ('t exempt', '{vat}', true), ('t exempt of inclusive', NULL, true);
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) SELECT 6430 + row_number() OVER (ORDER BY id), id, 'extra', '2025-06-01' FROM meterflow.customers WHERE tenant_id = 'invoices' AND id LIKE 't %';
SELECT count(*) FROM pg_temp.bill('2025-06-01') WHERE customer_id LIKE 't %';
SELECT b.customer_id, b.subtotal, b.tax, b.total, string_agg(format('%s %s of %s', t.name, t.amount, t.base), ', ' ORDER BY t.ordinal) AS taxes
  FROM bills AS b JOIN meterflow.invoices AS i ON i.tenant_id = 'invoices' AND i.number = b.number LEFT JOIN meterflow.invoice_taxes AS t ON t.tenant_id = i.tenant_id AND t.invoice_id = i.id WHERE b.customer_id LIKE 't %' GROUP BY 1, 2, 3, 4 ORDER BY 1;
SELECT round(9.99 * 0.19, 2) AS vat, round(9.99 * 0.015, 2) AS city, round(10 * 0.015, 2) AS of_the_book, round(9.99 * 20 / 120, 2) AS gst_within;
SELECT number, description, amount, tax, total, (SELECT taxes FROM meterflow.invoice_lines AS l JOIN meterflow.invoices AS i ON i.tenant_id = l.tenant_id AND i.id = l.invoice_id WHERE i.tenant_id = 'invoices' AND i.number = bill_lines.number AND l.line = bill_lines.line) FROM bill_lines WHERE customer_id IN ('t two', 't default');
UPDATE meterflow.taxes SET is_default = false WHERE tenant_id = 'invoices';

-- Who pays for others gets one invoice with the lines of all, each under its name.
INSERT INTO meterflow.customers (id, payer_id) VALUES ('group', NULL), ('north', 'group'), ('south', 'group');
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6441, 'group', 'extra', '2025-07-01'), (6442, 'north', 'flat', '2025-07-01'), (6443, 'south', 'flat', '2025-07-01');
SELECT pg_temp.send('north', 'transfer', '2025-07-10', 12), pg_temp.send('group', 'transfer', '2025-07-10', 1000);
SELECT customer_id, bill_at, amount_due FROM pg_temp.bill('2025-08-01') WHERE customer_id IN ('group', 'north', 'south');
SELECT customer_id, description, quantity, amount FROM bill_lines WHERE customer_id IN ('group', 'north', 'south') AND period_start < '2025-08-01';
SELECT count(*) FROM bills WHERE customer_id IN ('north', 'south');

-- An invoice below zero is not paid out: it is credit, which the next ones use.
INSERT INTO meterflow.customers (id) VALUES ('credit');
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6451, 'credit', 'flat', '2025-04-01'), (6452, 'credit', 'extra', '2025-05-01');
SELECT outcome, amount_due FROM pg_temp.bill('2025-04-01') WHERE customer_id = 'credit';
SELECT meterflow.cancel_subscription(6451, 'not for us', at => '2025-04-25') > 0 AS cancelled;
SELECT bill_at, outcome, amount_due FROM pg_temp.bill('2025-07-01') WHERE customer_id = 'credit';
SELECT bill_at, subtotal, total, credited, amount_due, status FROM bills WHERE customer_id = 'credit';
SELECT amount, amount = 100 * 6 / 30.0 AS six_days, (SELECT sum(c.amount) FROM meterflow.invoice_credits AS c WHERE c.tenant_id = 'invoices' AND c.source = 'account' AND c.source_id = a.id) AS used FROM meterflow.account_credits AS a WHERE tenant_id = 'invoices' AND customer_id = 'credit';
SELECT count(*) AS faults FROM bill_faults;

-- Progressive billing: what has been used is billed as a threshold is reached, once each.
INSERT INTO meterflow.plans (key, currency, progressive) VALUES ('eager', 'USD', '{50,100}');
INSERT INTO meterflow.prices (plan_key, key, meter_key, model) VALUES ('eager', 'bytes', 'bytes', '{"model":"per_unit","unit_amount":"1"}'), ('eager', 'calls', 'calls', '{"model":"per_unit","unit_amount":"1"}');
INSERT INTO meterflow.customers (id) VALUES ('eager');
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6461, 'eager', 'eager', '2025-09-01');
SELECT pg_temp.send('eager', 'transfer', '2025-09-05', 49.99);
SELECT subscription_id FROM meterflow.bill_progressive('2025-09-06');
SELECT pg_temp.send('eager', 'transfer', '2025-09-07', 20);
SELECT subscription_id FROM meterflow.bill_progressive('2025-09-08');
SELECT subscription_id FROM meterflow.bill_progressive('2025-09-08');
SELECT pg_temp.send('eager', 'call', '2025-09-09', 1);
SELECT subscription_id FROM meterflow.bill_progressive('2025-09-10') AS not_yet;
SELECT DISTINCT pg_temp.send('eager', 'call', '2025-09-11'::timestamptz + g * interval '1 second', 1) FROM generate_series(1, 30) AS g;
SELECT subscription_id FROM meterflow.bill_progressive('2025-09-12');
SELECT pg_temp.send('eager', 'transfer', '2025-09-20', 1000);
SELECT subscription_id FROM meterflow.bill_progressive('2025-09-21') AS no_more_thresholds;
SELECT count(*) FROM pg_temp.bill('2025-10-01') WHERE customer_id = 'eager';
SELECT kind, bill_at, total FROM bills WHERE customer_id = 'eager';
SELECT kind, description, quantity, due_amount, billed_before, amount FROM bill_lines WHERE customer_id = 'eager';
SELECT sum(total) = 49.99 + 20 + 31 + 1000 AS in_all FROM bills WHERE customer_id = 'eager';

-- Currencies without and with three decimals: rounded once, half away from zero.
INSERT INTO meterflow.plans (key, currency) VALUES ('yen', 'JPY'), ('dinar', 'KWD');
INSERT INTO meterflow.prices (plan_key, key, meter_key, model, advance) VALUES ('yen', 'bytes', 'bytes', '{"model":"per_unit","unit_amount":"0.5"}', false), ('yen', 'base', NULL, '{"model":"flat","amount":"1000"}', true),
  ('dinar', 'bytes', 'bytes', '{"model":"per_unit","unit_amount":"0.0005"}', false), ('dinar', 'base', NULL, '{"model":"flat","amount":"1.000"}', true);
INSERT INTO meterflow.customers (id, taxes) VALUES ('tokyo', '{vat}'), ('kuwait', '{vat}');
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6471, 'tokyo', 'yen', '2025-10-11'), (6472, 'kuwait', 'dinar', '2025-10-11');
SELECT pg_temp.send(c, 'transfer', '2025-10-15', 3) FROM unnest('{tokyo,kuwait}'::text[]) AS c;
SELECT count(*) FROM pg_temp.bill('2025-11-01') WHERE customer_id IN ('tokyo', 'kuwait');
SELECT b.customer_id, b.description, b.quantity, b.amount, b.tax, b.total FROM bill_lines AS b WHERE customer_id IN ('tokyo', 'kuwait') AND period_start < '2025-11-01';
SELECT round(1000 * 21 / 31.0) AS yen, round(1 * 21 / 31.0, 3) AS dinar, round(1000 * 21 / 31.0) * 0.19 AS vat;

-- What can't be billed is written down and does not stop the others; when it can be, it is.
INSERT INTO meterflow.taxes (key, name, rate) VALUES ('gone', 'Gone', 5);
INSERT INTO meterflow.customers (id, taxes) VALUES ('broken', '{gone}'), ('sound', '{}');
DELETE FROM meterflow.taxes WHERE tenant_id = 'invoices' AND key = 'gone';
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6481, 'broken', 'extra', '2025-11-05'), (6482, 'sound', 'extra', '2025-11-06');
SELECT customer_id, outcome, amount_due FROM pg_temp.bill('2025-11-07') WHERE customer_id IN ('broken', 'sound');
SELECT customer_id, currency, bill_at, code, message FROM meterflow.billing_failures WHERE tenant_id = 'invoices';
INSERT INTO meterflow.taxes (key, name, rate) VALUES ('gone', 'Back', 5);
SELECT count(*) AS not_again_for_5_minutes FROM pg_temp.bill('2025-11-07');
DELETE FROM meterflow.billing_failures WHERE tenant_id = 'invoices';
SELECT customer_id, outcome, amount_due FROM pg_temp.bill('2025-11-07') WHERE customer_id IN ('broken', 'sound');
SELECT count(*) FROM meterflow.billing_failures WHERE tenant_id = 'invoices';
-- Up to when it can't work, and in what.
SELECT pg_temp.try($$SELECT * FROM meterflow.bill_due('infinity')$$), pg_temp.try($$SELECT * FROM meterflow.bill_progressive(NULL)$$) \gx
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM meterflow.bill_due('2025-12-01');
ROLLBACK;
-- While grace lasts what has nothing to charge is an empty draft, which a run does not wait for.
UPDATE meterflow.billing_settings SET grace_period = '3 days' WHERE tenant_id = 'invoices';
INSERT INTO meterflow.plans (key, currency) VALUES ('usage', 'USD');
INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('usage', 'bytes', '{"model":"per_unit","unit_amount":"1"}');
INSERT INTO meterflow.customers (id) VALUES ('idle');
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6485, 'idle', 'usage', '2025-11-10');
SELECT customer_id, outcome, invoice_id FROM meterflow.bill_due('2025-11-11');
CALL meterflow.run_billing('2025-11-11');
UPDATE meterflow.billing_settings SET grace_period = '0' WHERE tenant_id = 'invoices';
-- All at once, in small transactions; and everything together has no fault.
CALL meterflow.run_billing('2025-12-15', 7);
SELECT count(*) AS due FROM meterflow.subscriptions WHERE tenant_id = 'invoices' AND next_bill_at <= '2025-12-15';
SELECT count(*) > 100 AS invoices, count(DISTINCT number) = count(*) AS numbered, count(*) = max(substr(number, 6)::integer) AS no_gap FROM meterflow.invoices WHERE tenant_id = 'invoices';
SELECT count(*) AS faults FROM bill_faults;

-- Voided: as if it had not been, but for its number. What it had used is there again, the coupon, too; what it charged is
-- charged by the invoice that replaces it, or else by the next.
INSERT INTO meterflow.customers (id) VALUES ('void'), ('void, next');
INSERT INTO meterflow.coupons (code, kind, value, currency, periods) VALUES ('ten off', 'fixed', 10, 'USD', 1);
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (6491, 'void', 'flat', '2025-12-16'), (6492, 'void, next', 'flat', '2025-12-01');
SELECT meterflow.top_up('void', 20, 'USD', 'void') IS NOT NULL AS paid, meterflow.redeem_coupon('void', 'ten off', 'void') IS NOT NULL AS redeemed;
SELECT pg_temp.send('void', 'transfer', '2025-12-20', 5), pg_temp.send('void, next', 'transfer', '2025-12-20', 7);
SELECT customer_id, bill_at, outcome, amount_due FROM pg_temp.bill('2025-12-16') WHERE customer_id LIKE 'void%';
SELECT max(id) FILTER (WHERE customer_id = 'void') AS first, max(id) FILTER (WHERE customer_id = 'void, next') AS other, max(id) FILTER (WHERE customer_id = 'credit' AND total < 0) AS negative FROM meterflow.invoices WHERE tenant_id = 'invoices' \gset
SELECT subtotal, discount, credited, amount_due FROM meterflow.invoices WHERE tenant_id = 'invoices' AND id = :first;
SELECT meterflow.void_invoice(:first, 'wrong address'), meterflow.void_invoice(:first, 'once more'), meterflow.void_invoice(:other, 'to be billed with the next');
SELECT status, voided_at IS NOT NULL AS voided, void_reason, number IS NOT NULL AS numbered FROM meterflow.invoices WHERE tenant_id = 'invoices' AND id IN (:first, :other) ORDER BY id;
SELECT w.kind, w.amount FROM meterflow.wallet_transactions AS w WHERE w.tenant_id = 'invoices' ORDER BY w.id;
SELECT meterflow.regenerate_invoice(:first, 'again') AS second \gset
SELECT meterflow.regenerate_invoice(:first, 'again') = :second AS same;
SELECT subtotal, discount, credited, amount_due, replaces = :first AS replaces, number <> (SELECT number FROM meterflow.invoices WHERE tenant_id = 'invoices' AND id = :first) AS another_number FROM meterflow.invoices WHERE tenant_id = 'invoices' AND id = :second;
SELECT customer_id, bill_at, outcome, amount_due FROM pg_temp.bill('2026-01-01') WHERE customer_id LIKE 'void%';
SELECT b.customer_id, b.kind, b.description, b.period_start::date, b.quantity, b.amount FROM bill_lines AS b WHERE customer_id LIKE 'void%' AND number NOT IN (SELECT number FROM meterflow.invoices WHERE tenant_id = 'invoices' AND status = 'void');
-- What can't be taken back so.
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || regexp_replace(pg_temp.try(statement), '(invoice|Invoice|replaces) [0-9-]+', '\1 N', 'g') FROM (VALUES
  (1, 'without a reason', format('SELECT meterflow.void_invoice(%s, %L)', :second, '')),
  (2, 'nothing', 'SELECT meterflow.void_invoice(999999999, ''why'')'),
  (3, 'one that a later one adjusts', format('SELECT meterflow.void_invoice(%s, %L)', :january, 'why')),
  (4, 'one whose credit has been used', format('SELECT meterflow.void_invoice(%s, %L)', :negative, 'why')),
  (5, 'regenerated twice', format('SELECT meterflow.regenerate_invoice(%s, %L)', :first, 'and again')),
  (6, 'regenerated though it is not void', format('SELECT meterflow.regenerate_invoice(%s, %L)', :second, 'and again'))
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
SELECT bool_and(r.equal) AS reproduced FROM meterflow.invoices AS i, LATERAL meterflow.reproduce_invoice(i.id) AS r WHERE i.tenant_id = 'invoices';
SELECT * FROM meterflow.verify_billing();
SELECT * FROM meterflow.verify();
ALTER SYSTEM RESET meterflow.backdate_window;
\set value 34d
\set ECHO none
\i :settings
\set ECHO all
