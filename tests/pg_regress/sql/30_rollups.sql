-- Rollups: what the fold makes of deltas, late events on every rung of the ladder, corrections, and verify as witness.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'rollups';
-- What is folded when is for this test to say.
SELECT meterflow.pause_worker();
-- The last day of last month and the day before it: closed. And this hour, which is not.
SELECT date_trunc('month', now()) - interval '38 hours' AS first_day, date_trunc('month', now()) - interval '14 hours' AS last_day,
       date_trunc('hour', now()) AS this_hour,
       date_trunc('month', now()) - interval '2 months' AS from_time, now() + interval '1 day' AS to_time \gset
CREATE FUNCTION pg_temp.send(id text, properties json, at timestamptz) RETURNS text LANGUAGE sql
AS $$ SELECT coalesce(failed->0->>'code', accepted || ' accepted') FROM meterflow.ingest(json_build_object('transaction_id', id, 'customer_id', 'acme',
        'event_name', 'e', 'properties', properties, 'timestamp', at)) $$;
INSERT INTO meterflow.meters (key, event_name, aggregation, property, percentile, bucket_size, approximate, dimensions) VALUES
  ('count', 'e', 'count', NULL, NULL, NULL, false, '{r}'), ('sum', 'e', 'sum', 'n', NULL, NULL, false, '{r}'), ('avg', 'e', 'avg', 'n', NULL, NULL, false, '{}'),
  ('min', 'e', 'min', 'n', NULL, NULL, false, '{}'), ('max', 'e', 'max', 'n', NULL, NULL, false, '{}'), ('latest', 'e', 'latest', 'n', NULL, NULL, false, '{}'),
  ('unique', 'e', 'unique_count', 'n', NULL, NULL, false, '{}'), ('unique~', 'e', 'unique_count', 'n', NULL, NULL, true, '{}'),
  ('level', 'e', 'weighted_sum', 'n', NULL, NULL, false, '{}'), ('median', 'e', 'percentile', 'n', 0.5, NULL, false, '{}'),
  ('median~', 'e', 'percentile', 'n', 0.5, NULL, true, '{}'), ('bucket sum', 'e', 'bucket_sum', 'n', NULL, '15 minutes', false, '{}'),
  ('bucket max', 'e', 'bucket_max', 'n', NULL, '15 minutes', false, '{}');
CREATE TEMPORARY VIEW used AS
  SELECT m.key, (SELECT round(value, 1) FROM meterflow.usage(m.key, date_trunc('month', now()) - interval '2 months', now() + interval '1 day', 'acme')) AS value
    FROM meterflow.meters AS m WHERE m.tenant_id = 'rollups' AND m.aggregation <> 'weighted_sum' ORDER BY m.key COLLATE "C";
-- A rollup as a path: what is in each grain of one meter.
CREATE FUNCTION pg_temp.ladder(meter text) RETURNS TABLE (grain "char", before_this_month interval, group_key text, value numeric) LANGUAGE sql AS $$
  SELECT r.grain, CASE r.grain WHEN 'd' THEN date_trunc('month', now()) - r.bucket END, r.group_key, meterflow.value(meterflow.merge(r.state))
    FROM meterflow.rollups AS r JOIN meterflow.meter_versions AS v ON (v.tenant_id, v.id) = (r.tenant_id, r.meter_id)
   WHERE r.tenant_id = 'rollups' AND v.meter_key = meter AND r.grain IN ('d', 'm')
   GROUP BY r.grain, 2, 3 ORDER BY r.grain, 2 DESC, 3
$$;

-- A batch is usage at once, whether it is folded or not. A fold takes it into hours, and into days and months that are closed.
SELECT n, pg_temp.send('e' || n, json_build_object('n', n, 'r', r), at)
  FROM (VALUES (1, 'eu', :'first_day'::timestamptz), (2, 'us', :'first_day'::timestamptz + interval '20 minutes'), (4, 'eu', :'first_day'::timestamptz + interval '70 minutes'),
               (8, 'eu', :'last_day'::timestamptz), (16, 'us', :'last_day'::timestamptz + interval '90 minutes'), (32, 'eu', :'this_hour'::timestamptz)) AS v (n, r, at);
SELECT * FROM used;
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT folded_batch = (SELECT last_value FROM meterflow.batch_seq) AS all_folded FROM meterflow.fold_state;
SELECT * FROM used;
SELECT * FROM pg_temp.ladder('count');
SELECT * FROM pg_temp.ladder('sum');
SELECT count(*) FROM meterflow.rollups AS r JOIN meterflow.meter_versions AS v ON (v.tenant_id, v.id) = (r.tenant_id, r.meter_id)
 WHERE r.tenant_id = 'rollups' AND v.meter_key = 'count' AND r.grain = 'h';
SELECT * FROM meterflow.verify();

-- Late events: into a folded hour, an hour that has no rollup yet, a closed day and a closed month. Deltas first, then folded.
SELECT n, pg_temp.send('late' || n, json_build_object('n', n, 'r', 'eu'), at)
  FROM (VALUES (64, :'first_day'::timestamptz + interval '1 minute'), (128, :'first_day'::timestamptz + interval '5 hours'), (256, :'last_day'::timestamptz + interval '3 hours')) AS v (n, at);
SELECT * FROM used WHERE key IN ('count', 'sum', 'max', 'bucket max');
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT * FROM used WHERE key IN ('count', 'sum', 'max', 'bucket max');
SELECT * FROM pg_temp.ladder('sum');
SELECT * FROM meterflow.verify();
-- A second fold finds nothing to do, and changes nothing.
SELECT meterflow.fold() IS NOT TRUE AS no_more;
SELECT * FROM pg_temp.ladder('sum');

-- Void: the event is out of every aggregation at once, also of those that can't subtract, before a fold and after it.
SELECT meterflow.void_event('late128', 'sent by mistake') = seq AS seq FROM meterflow.events WHERE tenant_id = 'rollups' AND transaction_id = 'late128';
SELECT meterflow.void_event('late256', 'a test') > 0 AS voided, meterflow.void_event('e1', 'a test') > 0 AS voided_too;
SELECT * FROM used;
SELECT * FROM meterflow.verify();
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT count(*) AS dirty FROM meterflow.dirty_ranges WHERE tenant_id = 'rollups';
SELECT * FROM used;
SELECT * FROM pg_temp.ladder('sum');
SELECT * FROM pg_temp.ladder('max');
SELECT * FROM meterflow.verify();
-- Again changes nothing; the record says who and why; the event stays, its key stays used.
SELECT meterflow.void_event('e1', 'again') > 0 AS voided;
SELECT transaction_id, reason, replaced_by IS NULL AS voided, corrected_by = session_user AS by_me, timestamp < corrected_at AS later
  FROM meterflow.event_corrections WHERE tenant_id = 'rollups' ORDER BY transaction_id COLLATE "C";
SELECT count(*) FROM meterflow.events WHERE tenant_id = 'rollups' AND transaction_id = 'e1';
SELECT accepted, duplicates, failed FROM meterflow.ingest(json_build_object('transaction_id', 'e1', 'customer_id', 'acme', 'event_name', 'e',
  'properties', '{"n":1,"r":"eu"}'::json, 'timestamp', :'first_day'::timestamptz));
-- Voided in the transaction that sent it; and a void that is rolled back.
BEGIN;
SELECT pg_temp.send('brief', '{"n":1000}', :'this_hour');
SELECT meterflow.void_event('brief', 'second thoughts') > 0 AS voided;
COMMIT;
BEGIN;
SELECT meterflow.void_event('e8', 'second thoughts') > 0 AS voided, meterflow.void_event('e16', 'second thoughts') > 0 AS voided_too;
SELECT * FROM used WHERE key IN ('count', 'sum', 'latest', 'max');
ROLLBACK;
SELECT * FROM used WHERE key IN ('count', 'sum', 'latest', 'max');

-- Amend: other fields over its own; to another hour, another customer, another value. Again, and then voided.
SELECT meterflow.amend_event('e16', '{"properties":{"n":5000,"r":"eu"}}', 'a typing error') > 0 AS amended;
SELECT meterflow.amend_event('e8', json_build_object('timestamp', :'first_day'::timestamptz + interval '1 hour'), 'the wrong day') > 0 AS amended;
SELECT meterflow.amend_event('e2', '{"customer_id":"other"}', 'the wrong customer') > 0 AS amended;
SELECT * FROM used;
SELECT customer_id, value FROM meterflow.usage('sum', :'from_time', :'to_time');
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT * FROM used;
SELECT * FROM pg_temp.ladder('sum');
SELECT * FROM meterflow.verify();
SELECT meterflow.amend_event('e16', '{"properties":{"n":6000}}', 'once more') > 0 AS amended;
SELECT * FROM used WHERE key IN ('count', 'sum', 'max', 'latest');
SELECT meterflow.void_event('e16', 'enough') > 0 AS voided;
SELECT * FROM used WHERE key IN ('count', 'sum', 'max', 'latest');
SELECT transaction_id, reason, replaced_by IS NULL AS voided FROM meterflow.event_corrections WHERE tenant_id = 'rollups' AND transaction_id = 'e16' ORDER BY seq;
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT * FROM used WHERE key IN ('count', 'sum', 'max', 'latest');
SELECT * FROM meterflow.verify();

-- What can't be corrected says why.
SELECT meterflow.void_event('nothing', 'a test');
SELECT meterflow.void_event('e32', 'a test', source => 'elsewhere');
SELECT meterflow.void_event('e32', ' ');
SELECT meterflow.amend_event('e1', '{"properties":{}}', 'was voided');
SELECT meterflow.amend_event('e32', '[]', 'a test');
SELECT meterflow.amend_event('e32', '{"transaction_id":"e33"}', 'a test');
SELECT meterflow.amend_event('e32', '{"source":"elsewhere"}', 'a test');
SELECT meterflow.amend_event('e32', '{"properties":{"n":"x"}}', 'a test');
SELECT meterflow.amend_event('e32', ('{"customer_id":"' || repeat('x', 513) || '"}')::json, 'a test');
\set VERBOSITY terse
SELECT meterflow.amend_event('e32', '{"timestamp":0}', 'a test');
\set VERBOSITY default
SELECT * FROM used WHERE key IN ('count', 'sum');

-- verify is a witness: it finds a rollup, a day, a month, a delta and an event that someone has changed. All
-- is put back.
CREATE FUNCTION pg_temp.found() RETURNS TABLE (problem text, meter_key text, customer_id text, group_key text, grain text, expected text, found text) LANGUAGE sql AS $$
  SELECT v.problem, v.meter_key, v.customer_id, v.group_key, v.grain,
         CASE WHEN v.expected LIKE '\\x%' THEN meterflow.value(v.expected::meterflow.usage_state, 0.5, '2026-01-01', '2026-01-02')::text ELSE v.expected END,
         CASE WHEN v.found LIKE '\\x%' THEN meterflow.value(v.found::meterflow.usage_state, 0.5, '2026-01-01', '2026-01-02')::text ELSE v.found END
    FROM meterflow.verify() AS v ORDER BY v::text COLLATE "C"
$$;
CREATE TEMPORARY VIEW sum_rollups AS
  SELECT r.* FROM meterflow.rollups AS r WHERE r.tenant_id = 'rollups' AND r.customer_id = 'acme' AND r.group_key = '["eu"]'
     AND r.meter_id = (SELECT v.id FROM meterflow.meter_versions AS v WHERE v.tenant_id = 'rollups' AND v.meter_key = 'sum');
CREATE FUNCTION pg_temp.tamper(g "char", at timestamptz) RETURNS bigint LANGUAGE sql AS $$
  WITH changed AS (UPDATE meterflow.rollups AS r SET state = meterflow.merge_states(r.state, (SELECT meterflow.sum_state(1) FROM generate_series(1, 1)))
                    FROM sum_rollups AS s WHERE s.grain = g AND s.bucket = at AND (r.tenant_id, r.meter_id, r.grain, r.customer_id, r.bucket, r.group_key, r.part)
                       = (s.tenant_id, s.meter_id, s.grain, s.customer_id, s.bucket, s.group_key, s.part) RETURNING 1)
  SELECT count(*) FROM changed $$;
BEGIN;
SELECT pg_temp.tamper('h', :'this_hour');
SELECT * FROM pg_temp.found();
SELECT count(*) FROM meterflow.verify('count');
SELECT count(*) FROM meterflow.verify('sum');
SELECT count(*) FROM meterflow.verify('sum', now() - interval '40 days', date_trunc('day', :'this_hour'::timestamptz));
ROLLBACK;
BEGIN;
SELECT pg_temp.tamper('d', date_trunc('day', :'first_day'::timestamptz));
SELECT * FROM pg_temp.found();
ROLLBACK;
BEGIN;
SELECT pg_temp.tamper('m', date_trunc('month', :'first_day'::timestamptz));
SELECT * FROM pg_temp.found();
ROLLBACK;
BEGIN;
DELETE FROM meterflow.rollups AS r USING sum_rollups AS s WHERE s.grain = 'h' AND s.bucket = :'this_hour' AND (r.tenant_id, r.meter_id, r.grain, r.customer_id, r.bucket, r.group_key, r.part)
                       = (s.tenant_id, s.meter_id, s.grain, s.customer_id, s.bucket, s.group_key, s.part);
SELECT * FROM pg_temp.found();
ROLLBACK;
BEGIN;
UPDATE meterflow.events SET properties = '{"n":33,"r":"eu"}' WHERE tenant_id = 'rollups' AND transaction_id = 'e32';
SELECT meter_key, grain, expected, found FROM pg_temp.found() WHERE meter_key IN ('sum', 'max', 'unique');
ROLLBACK;
BEGIN;
DELETE FROM meterflow.events WHERE tenant_id = 'rollups' AND transaction_id = 'e32';
SELECT problem, meter_key, expected, found FROM pg_temp.found() WHERE meter_key IN ('sum', 'count');
ROLLBACK;
BEGIN;
INSERT INTO meterflow.events SELECT timestamp, seq + 1, tenant_id, customer_id, event_name, source, transaction_id, properties FROM meterflow.events WHERE tenant_id = 'rollups' AND transaction_id = 'e32';
SELECT problem, meter_key, expected, found FROM pg_temp.found() WHERE meter_key IS NULL AND problem LIKE '%once%' OR meter_key = 'count';
ROLLBACK;
BEGIN;
SELECT pg_temp.send('young', '{"n":1,"r":"eu"}', :'this_hour');
SELECT * FROM meterflow.verify();
DELETE FROM meterflow.deltas WHERE tenant_id = 'rollups' AND batch = (SELECT max(batch) FROM meterflow.batches);
SELECT meter_key, group_key, expected, found FROM pg_temp.found() WHERE meter_key IN ('sum', 'count');
ROLLBACK;
BEGIN;
DELETE FROM meterflow.event_corrections WHERE tenant_id = 'rollups' AND transaction_id = 'late128';
SELECT meter_key, group_key, expected, found FROM pg_temp.found() WHERE meter_key IN ('sum', 'count');
ROLLBACK;
-- A state that is no state at all is an error that says so.
BEGIN;
UPDATE meterflow.rollups SET state = '\xff'::bytea::meterflow.usage_state WHERE tenant_id = 'rollups' AND grain = 'h' AND bucket = :'this_hour';
SELECT * FROM meterflow.usage('sum', :'from_time', :'to_time', 'acme');
ROLLBACK;
SELECT * FROM meterflow.verify();
