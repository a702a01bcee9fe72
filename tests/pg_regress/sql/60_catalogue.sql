-- What can be sold, and to whom: customers, taxes, plans with phases and prices, coupons; and what is wrong with a bad one.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set ECHO none
\i :billing
\set ECHO all
SET meterflow.tenant = 'catalogue';
INSERT INTO meterflow.meters (key, event_name, aggregation, property, dimensions, bucket_size) VALUES
  ('calls', 'call', 'count', NULL, '{region}', NULL), ('bytes', 'transfer', 'sum', 'bytes', '{}', NULL), ('peak', 'load', 'bucket_max', 'load', '{}', '1 hour');
INSERT INTO meterflow.customers (id, name, timezone) VALUES ('acme', 'Acme', 'Europe/Berlin'), ('plain', 'Plain', 'UTC');
INSERT INTO meterflow.taxes (key, name, rate) VALUES ('vat', 'VAT', 19);
INSERT INTO meterflow.plans (key, currency, name) VALUES ('pro', 'EUR', 'Professional');
INSERT INTO meterflow.plan_phases (plan_key, ordinal, name, duration, free) VALUES ('pro', 1, 'trial', '14 days', true), ('pro', 2, 'ramp', '2 months', false);

-- Prices are named by their meter, or fee-<id>.
INSERT INTO meterflow.prices (id, plan_key, meter_key, key, name, model, advance, phase, taxes) VALUES
  (6001, 'pro', 'calls', DEFAULT, 'API calls', '{"model":"per_unit","unit_amount":"0.10"}', false, NULL, NULL),
  (6002, 'pro', NULL, DEFAULT, 'Platform', '{"model":"flat","amount":"20"}', true, NULL, '{vat}'),
  (6003, 'pro', NULL, 'seat', 'Seats', '{"model":"per_unit","unit_amount":"7"}', true, NULL, '{}'),
  (6004, 'pro', 'bytes', 'traffic', NULL, '{"model":"per_unit","unit_amount":"0.5"}', false, 'ramp', NULL);
SELECT id, key, name, meter_key, advance, once, proration, phase, taxes FROM meterflow.prices WHERE tenant_id = 'catalogue' ORDER BY id;

-- What is refused: one row a mistake, with its code, its place and the way out.
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'an unknown zone', $$INSERT INTO meterflow.customers (id, timezone) VALUES ('mars', 'Mars/Olympus')$$),
  (2, 'an offset', $$INSERT INTO meterflow.customers (id, timezone) VALUES ('west', 'UTC+3')$$),
  (3, 'an abbreviation', $$INSERT INTO meterflow.customers (id, timezone) VALUES ('west', 'PST')$$),
  (4, 'an empty id', $$INSERT INTO meterflow.customers (id) VALUES ('')$$),
  (5, 'paying for itself', $$INSERT INTO meterflow.customers (id, payer_id) VALUES ('me', 'me')$$),
  (6, 'an unknown payer', $$INSERT INTO meterflow.customers (id, payer_id) VALUES ('me', 'nobody')$$),
  (7, 'an unknown currency', $$INSERT INTO meterflow.customers (id, currency) VALUES ('me', 'DEM')$$),
  (8, 'an unknown tax of a customer', $$INSERT INTO meterflow.customers (id, taxes) VALUES ('me', '{vat,gst}')$$),
  (9, 'terms below zero', $$INSERT INTO meterflow.customers (id, net_terms) VALUES ('me', '-1 day')$$),
  (10, 'a tax below zero', $$INSERT INTO meterflow.taxes (key, name, rate) VALUES ('gst', 'GST', -1)$$),
  (11, 'a plan in an old currency', $$INSERT INTO meterflow.plans (key, currency) VALUES ('old', 'DEM')$$),
  (12, 'an unknown interval', $$INSERT INTO meterflow.plans (key, currency, interval_unit) VALUES ('odd', 'EUR', 'fortnight')$$),
  (13, 'no interval', $$INSERT INTO meterflow.plans (key, currency, interval_count) VALUES ('odd', 'EUR', 0)$$),
  (14, 'a threshold of nothing', $$INSERT INTO meterflow.plans (key, currency, progressive) VALUES ('odd', 'EUR', '{0,10}')$$),
  (15, 'the same version again', $$INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'EUR')$$),
  (16, 'a phase of an unknown plan', $$INSERT INTO meterflow.plan_phases (plan_key, ordinal, name) VALUES ('none', 1, 'trial')$$),
  (17, 'a phase of no time', $$INSERT INTO meterflow.plan_phases (plan_key, ordinal, name, duration) VALUES ('pro', 3, 'late', '0')$$),
  (18, 'two phases of one name', $$INSERT INTO meterflow.plan_phases (plan_key, ordinal, name) VALUES ('pro', 3, 'ramp')$$),
  (19, 'an unknown plan', $$INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('none', 'calls', '{"model":"per_unit","unit_amount":"1"}')$$),
  (20, 'an unknown version', $$INSERT INTO meterflow.prices (plan_key, plan_version, meter_key, model) VALUES ('pro', 7, 'calls', '{"model":"per_unit","unit_amount":"1"}')$$),
  (21, 'an unknown meter', $$INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('pro', 'nothing', '{"model":"per_unit","unit_amount":"1"}')$$),
  (22, 'neither meter nor key', $$INSERT INTO meterflow.prices (plan_key, model) VALUES ('pro', '{"model":"per_unit","unit_amount":"1"}')$$),
  (23, 'no tiers', $$INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('pro', 'calls', '{"model":"volume","tiers":[]}')$$),
  (24, 'a negative amount', $$INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('pro', 'calls', '{"model":"per_unit","unit_amount":"-1"}')$$),
  (25, 'a dimension that the meter lacks', $$INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('pro', 'calls', '{"model":"matrix","cells":[{"match":{"zone":"a","region":"eu"},"unit_amount":2}],"default":{"unit_amount":1}}')$$),
  (26, 'buckets that the meter lacks', $$INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('pro', 'calls', '{"model":"bucketed","price":{"model":"per_unit","unit_amount":1}}')$$),
  (27, 'an unknown phase', $$INSERT INTO meterflow.prices (plan_key, key, phase, model) VALUES ('pro', 'x', 'beta', '{"model":"flat","amount":1}')$$),
  (28, 'an unknown tax of a price', $$INSERT INTO meterflow.prices (plan_key, key, taxes, model) VALUES ('pro', 'x', '{vat,gst,pst}', '{"model":"flat","amount":1}')$$),
  (29, 'usage in advance', $$INSERT INTO meterflow.prices (plan_key, meter_key, advance, model) VALUES ('pro', 'calls', true, '{"model":"per_unit","unit_amount":"1"}')$$),
  (30, 'usage once', $$INSERT INTO meterflow.prices (plan_key, meter_key, once, model) VALUES ('pro', 'calls', true, '{"model":"per_unit","unit_amount":"1"}')$$),
  (31, 'no time', $$INSERT INTO meterflow.prices (plan_key, key, valid_from, valid_to, model) VALUES ('pro', 'x', '2030-01-01', '2030-01-01', '{"model":"flat","amount":1}')$$),
  (32, 'an unknown proration', $$INSERT INTO meterflow.prices (plan_key, key, proration, model) VALUES ('pro', 'x', 'week', '{"model":"flat","amount":1}')$$),
  (33, 'an unknown subscription', $$INSERT INTO meterflow.prices (plan_key, key, subscription_id, model) VALUES ('pro', 'x', 1, '{"model":"flat","amount":1}')$$),
  (34, 'a coupon of 120 %', $$INSERT INTO meterflow.coupons (code, kind, value) VALUES ('X', 'percentage', 120)$$),
  (35, 'percent of a currency', $$INSERT INTO meterflow.coupons (code, kind, value, currency) VALUES ('X', 'percentage', 10, 'EUR')$$),
  (36, 'money of no currency', $$INSERT INTO meterflow.coupons (code, kind, value) VALUES ('X', 'fixed', 10)$$),
  (37, 'a coupon of nothing', $$INSERT INTO meterflow.coupons (code, kind, value, currency) VALUES ('X', 'fixed', 0, 'EUR')$$),
  (38, 'numbers without a number', $$INSERT INTO meterflow.billing_settings (invoice_format) VALUES ('INV-{year}')$$),
  (39, 'grace below zero', $$INSERT INTO meterflow.billing_settings (grace_period) VALUES ('-1 day')$$),
  (40, 'a phase after one for good', $$INSERT INTO meterflow.plan_phases (plan_key, ordinal, name, duration) VALUES ('pro', 3, 'for good', NULL), ('pro', 4, 'never', '1 day')$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
-- Nothing of it is there; and what a meter has can be priced.
SELECT (SELECT count(*) FROM meterflow.customers WHERE tenant_id = 'catalogue') AS customers, (SELECT count(*) FROM meterflow.plans WHERE tenant_id = 'catalogue') AS plans,
       (SELECT count(*) FROM meterflow.prices WHERE tenant_id = 'catalogue') AS prices, (SELECT count(*) FROM meterflow.coupons WHERE tenant_id = 'catalogue') AS coupons;
INSERT INTO meterflow.prices (id, plan_key, meter_key, key, model) VALUES
  (6005, 'pro', 'calls', 'by region', '{"model":"matrix","cells":[{"match":{"region":"eu"},"unit_amount":2}],"default":{"unit_amount":1}}'),
  (6006, 'pro', 'peak', DEFAULT, '{"model":"bucketed","price":{"model":"per_unit","unit_amount":1}}');

-- Versions: a copy is the next one, of its own key or the first of another; prices of one subscription stay behind.
SELECT meterflow.clone_plan('pro') AS version, meterflow.clone_plan('pro', 'pro-gbp', 'In Britain') AS of_another;
UPDATE meterflow.prices SET model = '{"model":"flat","amount":"25"}' WHERE tenant_id = 'catalogue' AND plan_key = 'pro' AND plan_version = 2 AND advance AND key LIKE 'fee-%';
SELECT p.key, p.version, p.name, p.currency, count(r.*) AS prices, array_agg(DISTINCT r.phase) FILTER (WHERE r.phase IS NOT NULL) AS phases_priced,
       (SELECT string_agg(format('%s %s', f.name, f.duration), ', ' ORDER BY f.ordinal) FROM meterflow.plan_phases AS f WHERE (f.tenant_id, f.plan_key, f.plan_version) = (p.tenant_id, p.key, p.version)) AS phases
  FROM meterflow.plans AS p LEFT JOIN meterflow.prices AS r ON (r.tenant_id, r.plan_key, r.plan_version) = (p.tenant_id, p.key, p.version)
 WHERE p.tenant_id = 'catalogue' GROUP BY p.tenant_id, p.key, p.version ORDER BY 1, 2;
SELECT pg_temp.try($$SELECT meterflow.clone_plan('none')$$), pg_temp.try($$SELECT meterflow.clone_plan('pro', version => 9)$$) \gx
-- The copy has what the original had, but for what was changed.
SELECT a.key, a.name, a.meter_key, a.advance, a.phase, a.taxes, a.model, b.model AS copied
  FROM meterflow.prices AS a LEFT JOIN meterflow.prices AS b ON (b.tenant_id, b.plan_key, b.plan_version, b.key) = (a.tenant_id, a.plan_key, 2, a.key)
 WHERE a.tenant_id = 'catalogue' AND a.plan_key = 'pro' AND a.plan_version = 1
   AND (b.id IS NULL OR (a.name, a.meter_key, a.advance, a.once, a.proration, a.phase, a.taxes, a.model) IS DISTINCT FROM (b.name, b.meter_key, b.advance, b.once, b.proration, b.phase, b.taxes, b.model));

-- What a plan would cost: of its newest version, by usage and quantities.
SELECT price_key, meter_key, quantity, amount, currency FROM meterflow.preview_plan('pro', '{}', '{"seat": 3}', plan_version => 1);
SELECT pg_temp.try($$SELECT amount FROM meterflow.preview_plan('pro', '{"calls": 1234}')$$) \gx
SELECT price_key, quantity, unrounded, amount FROM meterflow.preview_plan('pro', '{"calls": {"groups":[{"by":{"region":"eu"},"quantity":1000},{"by":{"region":"us"},"quantity":234}]}, "peak": {"buckets":[3,4.5]}}', '{"seat": 3}');
SELECT sum(amount) = 1234 * 0.10 + 25 + 3 * 7 + 1000 * 2 + 234 + 7.5 AS adds_up
  FROM meterflow.preview_plan('pro', '{"calls": {"groups":[{"by":{"region":"eu"},"quantity":1000},{"by":{"region":"us"},"quantity":234}]}, "peak": {"buckets":[3,4.5]}}', '{"seat": 3}');
SELECT count(*) FROM meterflow.preview_plan('none');

-- Once somebody has subscribed a price, a plan and its phases stay what they were; what was not of the past can change.
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, plan_version, starts_at) VALUES (6001, 'acme', 'pro', 1, '2040-01-01');
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'another amount', $$UPDATE meterflow.prices SET model = '{"model":"flat","amount":"1"}' WHERE tenant_id = 'catalogue' AND id = 6002$$),
  (2, 'another key', $$UPDATE meterflow.prices SET key = 'chairs' WHERE tenant_id = 'catalogue' AND id = 6003$$),
  (3, 'removed', $$DELETE FROM meterflow.prices WHERE tenant_id = 'catalogue' AND id = 6003$$),
  (4, 'another name', $$UPDATE meterflow.prices SET name = 'Chairs' WHERE tenant_id = 'catalogue' AND id = 6003$$),
  (5, 'an end', $$UPDATE meterflow.prices SET valid_to = '2041-01-01' WHERE tenant_id = 'catalogue' AND id = 6003$$),
  (6, 'another interval', $$UPDATE meterflow.plans SET interval_unit = 'year' WHERE tenant_id = 'catalogue' AND key = 'pro' AND version = 1$$),
  (7, 'another currency', $$UPDATE meterflow.plans SET currency = 'USD' WHERE tenant_id = 'catalogue' AND key = 'pro' AND version = 1$$),
  (8, 'removed', $$DELETE FROM meterflow.plans WHERE tenant_id = 'catalogue' AND key = 'pro' AND version = 1$$),
  (9, 'another name, and no longer offered', $$UPDATE meterflow.plans SET name = 'Old', archived_at = now() WHERE tenant_id = 'catalogue' AND key = 'pro' AND version = 1$$),
  (10, 'a longer trial', $$UPDATE meterflow.plan_phases SET duration = '1 month' WHERE tenant_id = 'catalogue' AND plan_key = 'pro' AND plan_version = 1 AND name = 'trial'$$),
  (11, 'one phase more', $$INSERT INTO meterflow.plan_phases (plan_key, ordinal, name) VALUES ('pro', 3, 'late')$$),
  (12, 'one phase less', $$DELETE FROM meterflow.plan_phases WHERE tenant_id = 'catalogue' AND plan_key = 'pro' AND plan_version = 1 AND name = 'ramp'$$),
  (13, 'of a version that nobody has: another amount', $$UPDATE meterflow.prices SET model = '{"model":"flat","amount":"1"}' WHERE tenant_id = 'catalogue' AND plan_version = 2 AND name = 'Platform'$$),
  (14, 'another interval', $$UPDATE meterflow.plans SET interval_unit = 'year' WHERE tenant_id = 'catalogue' AND key = 'pro' AND version = 2$$),
  (15, 'a longer trial', $$UPDATE meterflow.plan_phases SET duration = '1 month' WHERE tenant_id = 'catalogue' AND plan_key = 'pro' AND plan_version = 2 AND name = 'trial'$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned

-- Coupons: who may redeem what, once a key.
INSERT INTO meterflow.customers (id, payer_id) VALUES ('child', 'acme');
INSERT INTO meterflow.coupons (code, kind, value, currency, max_redemptions) VALUES ('TEN', 'fixed', 10, 'EUR', 2);
INSERT INTO meterflow.coupons (code, kind, value, valid_to) VALUES ('PAST', 'percentage', 10, '2020-01-01');
SELECT meterflow.redeem_coupon('acme', 'TEN', 'r1') AS first \gset
SELECT meterflow.redeem_coupon('acme', 'TEN', 'r1') = :first AS same;
\pset format unaligned
\pset tuples_only on
SELECT about || E'\n  ' || pg_temp.try(statement) FROM (VALUES
  (1, 'the same key for another customer', $$SELECT meterflow.redeem_coupon('plain', 'TEN', 'r1')$$),
  (2, 'an unknown code', $$SELECT meterflow.redeem_coupon('acme', 'ten', 'r2')$$),
  (3, 'an unknown customer', $$SELECT meterflow.redeem_coupon('nobody', 'TEN', 'r2')$$),
  (4, 'no key', $$SELECT meterflow.redeem_coupon('acme', 'TEN', '')$$),
  (5, 'too late', $$SELECT meterflow.redeem_coupon('acme', 'PAST', 'r2')$$),
  (6, 'for a subscription of somebody else', $$SELECT meterflow.redeem_coupon('plain', 'TEN', 'r2', 6001)$$),
  (7, 'by one who does not pay', $$SELECT meterflow.redeem_coupon('child', 'TEN', 'r2')$$),
  (8, 'the last one', $$SELECT meterflow.redeem_coupon('acme', 'TEN', 'r2', 6001) IS NOT NULL$$),
  (9, 'one more', $$SELECT meterflow.redeem_coupon('plain', 'TEN', 'r3')$$)
) AS t (n, about, statement) ORDER BY n;
\pset tuples_only off
\pset format aligned
SELECT code, redemptions, max_redemptions FROM meterflow.coupons WHERE tenant_id = 'catalogue' ORDER BY 1;
