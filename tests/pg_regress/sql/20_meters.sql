-- Meters: definitions that explain themselves when they can't be, versions, backfill, archive, and a bound on groups.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'meters';
-- What is folded when is for this test to say.
SELECT meterflow.pause_worker();
SELECT date_trunc('hour', now()) - interval '2 hours' AS t \gset
CREATE FUNCTION pg_temp.send(id text, name text, properties json, at timestamptz, customer text DEFAULT 'acme') RETURNS text LANGUAGE sql
AS $$ SELECT coalesce(failed->0->>'code', accepted || ' accepted') FROM meterflow.ingest(json_build_object('transaction_id', id, 'customer_id', customer,
        'event_name', name, 'properties', properties, 'timestamp', at)) $$;
-- The whole of today and the two days around it.
CREATE FUNCTION pg_temp.used(meter text, customer text DEFAULT 'acme', VARIADIC by text[] DEFAULT '{}') RETURNS TABLE (group_key jsonb, value numeric) LANGUAGE sql
AS $$ SELECT group_key, value FROM meterflow.usage(meter, date_trunc('day', now()) - interval '1 day', date_trunc('day', now()) + interval '2 days', customer, group_by => by) $$;

-- What is refused: one row a mistake, with its code, its place and the way out.
CREATE FUNCTION pg_temp.try(columns text, definition text) RETURNS TABLE (code text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('INSERT INTO meterflow.meters (%s) VALUES (%s)', columns, definition);
  message := 'accepted';
  RETURN NEXT;
  RAISE EXCEPTION SQLSTATE 'MF000';
EXCEPTION
  WHEN SQLSTATE 'MF000' THEN NULL;
  WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN NEXT;
END $$;
\pset format unaligned
\pset tuples_only on
SELECT format(E'%s: %s\n    %s\n    %s %s\n    %s', columns, definition, code, message, detail, hint)
  FROM (VALUES
    (1, 'event_name, aggregation', $$'e', 'count'$$),
    (2, 'key, aggregation', $$'k', 'count'$$),
    (3, 'key, event_name, aggregation', $$'', 'e', 'count'$$),
    (4, 'key, event_name, aggregation', $$'k', '', 'count'$$),
    (5, 'key, event_name, aggregation', $$'k', 'e', 'total'$$),
    (6, 'key, event_name, aggregation', $$'k', 'e', 'approx_unique_count'$$),
    (7, 'key, event_name, aggregation, property, approximate', $$'k', 'e', 'sum', 'n', true$$),
    (8, 'key, event_name, aggregation, property', $$'k', 'e', 'count', 'n'$$),
    (9, 'key, event_name, aggregation', $$'k', 'e', 'sum'$$),
    (10, 'key, event_name, aggregation, property', $$'k', 'e', 'sum', ''$$),
    (12, 'key, event_name, aggregation, filters', $$'k', 'e', 'count', '[]'$$),
    (13, 'key, event_name, aggregation, filters', $$'k', 'e', 'count', '{"a":{"like":"x"}}'$$),
    (14, 'key, event_name, aggregation, filters', $$'k', 'e', 'count', '{"a":[]}'$$),
    (15, 'key, event_name, aggregation, filters', $$'k', 'e', 'count', '{"a":{}}'$$),
    (16, 'key, event_name, aggregation, filters', $$'k', 'e', 'count', '{"or":{"a":1}}'$$),
    (17, 'key, event_name, aggregation, filters', $$'k', 'e', 'count', '{"a":{"exists":"yes"}}'$$),
    (18, 'key, event_name, aggregation, filters', $$'k', 'e', 'count', '{"a":{"gt":true}}'$$),
    (19, 'key, event_name, aggregation, filters', $$'k', 'e', 'count', '{"and":[{"a":[{"b":1}]}]}'$$),
    (20, 'key, event_name, aggregation, dimensions', $$'k', 'e', 'count', '{a,b,a}'$$),
    (21, 'key, event_name, aggregation, dimensions', $$'k', 'e', 'count', '{a,""}'$$),
    (22, 'key, event_name, aggregation, dimensions', $$'k', 'e', 'count', '{a,NULL}'$$),
    (23, 'key, event_name, aggregation, multiplier', $$'k', 'e', 'count', 2$$),
    (24, 'key, event_name, aggregation, property, multiplier', $$'k', 'e', 'sum', 'n', 0$$),
    (25, 'key, event_name, aggregation, property, multiplier', $$'k', 'e', 'sum', 'n', 'NaN'$$),
    (26, 'key, event_name, aggregation, property, multiplier', $$'k', 'e', 'sum', 'n', 1e-30$$),
    (27, 'key, event_name, aggregation, property', $$'k', 'e', 'percentile', 'n'$$),
    (28, 'key, event_name, aggregation, property, percentile', $$'k', 'e', 'percentile', 'n', 95$$),
    (29, 'key, event_name, aggregation, property, percentile', $$'k', 'e', 'sum', 'n', 0.95$$),
    (30, 'key, event_name, aggregation, property', $$'k', 'e', 'bucket_sum', 'n'$$),
    (31, 'key, event_name, aggregation, property, bucket_size', $$'k', 'e', 'bucket_max', 'n', '7 minutes'$$),
    (32, 'key, event_name, aggregation, property, bucket_size', $$'k', 'e', 'bucket_max', 'n', '30 seconds'$$),
    (33, 'key, event_name, aggregation, property, bucket_size', $$'k', 'e', 'bucket_max', 'n', '2 months'$$),
    (35, 'key, event_name, aggregation, property, bucket_size', $$'k', 'e', 'max', 'n', '1 hour'$$),
    (36, 'key, event_name, aggregation, filters, dimensions', $$'k', 'e', 'count', NULL, NULL$$),
    (37, 'key, event_name, aggregation, property, percentile, approximate', $$'k', 'e', 'percentile', 'n', 0.95, true$$),
    (38, 'key, event_name, aggregation, property, approximate', $$'k', 'e', 'unique_count', 'n', true$$),
    (39, 'key, event_name, aggregation, property, bucket_size', $$'k', 'e', 'bucket_max', 'n', '7 days'$$)
  ) AS d (n, columns, definition), pg_temp.try(columns, definition)
 ORDER BY n;
\pset tuples_only off
\pset format aligned
SELECT count(*) FROM meterflow.meters WHERE tenant_id = 'meters';

-- Every aggregation, on one stream. The property is nested, the values as senders write them.
SELECT pg_temp.send('e' || n, 'e', json_build_object('u', json_build_object('n', v, 'who', w), 'r', r, 'big', v * 1000), at)
  FROM (VALUES (1, 4, 'x', 'eu', :'t'::timestamptz), (2, -1, 'y', 'us', :'t'::timestamptz + interval '10 minutes'), (3, 2.5, 'x', 'eu', :'t'::timestamptz + interval '59 minutes'),
               (4, 10, 'z', 'us', :'t'::timestamptz + interval '1 hour'), (5, 3, NULL, NULL, :'t'::timestamptz + interval '70 minutes')) AS v (n, v, w, r, at);
INSERT INTO meterflow.meters (key, event_name, aggregation, property, filters, dimensions, multiplier, percentile, bucket_size, approximate) VALUES
  ('count', 'e', 'count', NULL, '{}', '{r}', NULL, NULL, NULL, false),
  ('sum', 'e', 'sum', 'u.n', '{}', '{r}', NULL, NULL, NULL, false),
  ('avg', 'e', 'avg', 'u.n', '{}', '{r}', NULL, NULL, NULL, false),
  ('min', 'e', 'min', 'u.n', '{}', '{r}', NULL, NULL, NULL, false),
  ('max', 'e', 'max', 'u.n', '{}', '{r}', NULL, NULL, NULL, false),
  ('latest', 'e', 'latest', 'u.n', '{}', '{r}', NULL, NULL, NULL, false),
  ('unique', 'e', 'unique_count', 'u.who', '{}', '{r}', NULL, NULL, NULL, false),
  ('unique~', 'e', 'unique_count', 'u.who', '{}', '{r}', NULL, NULL, NULL, true),
  ('median', 'e', 'percentile', 'u.n', '{}', '{r}', NULL, 0.5, NULL, false),
  ('p95~', 'e', 'percentile', 'u.n', '{}', '{r}', NULL, 0.95, NULL, true),
  ('bucket sum', 'e', 'bucket_sum', 'u.n', '{}', '{r}', NULL, NULL, '30 minutes', false),
  ('bucket max', 'e', 'bucket_max', 'u.n', '{}', '{r}', NULL, NULL, '1 hour', false),
  ('thousandths', 'e', 'sum', 'big', '{}', '{r}', 0.001, NULL, NULL, false),
  ('filtered', 'e', 'sum', 'u.n', '{"r": ["eu", "us"], "u.n": {"gt": 0, "lt": 10}}', '{r}', NULL, NULL, NULL, false),
  ('either', 'e', 'count', NULL, '{"or": [{"u.who": "z"}, {"r": null}, {"and": [{"r": {"ne": "eu"}}, {"u.n": {"lte": -1}}]}]}', '{r}', NULL, NULL, NULL, false),
  ('exists', 'e', 'count', NULL, '{"r": {"exists": true}, "u.who": {"nin": ["x", "q"]}}', '{r}', NULL, NULL, NULL, false);
-- A new meter knows the events that came before it.
CREATE TEMPORARY VIEW backfilled AS
  SELECT m.key, (SELECT CASE WHEN m.approximate THEN round(value, 1) ELSE value END FROM pg_temp.used(m.key)) AS value,
         (SELECT string_agg(concat_ws('=', coalesce(group_key->>'r', 'none'), CASE WHEN m.approximate THEN round(value, 1) ELSE value END), ' ' ORDER BY group_key->>'r') FROM pg_temp.used(m.key, 'acme', 'r')) AS by_r
    FROM meterflow.meters AS m WHERE m.tenant_id = 'meters' AND m.event_name = 'e' AND m.key <> 'level' ORDER BY m.key COLLATE "C";
SELECT * FROM backfilled;
-- A level that was 4 from t, 3 ten minutes later ..., as its mean over two hours.
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('level', 'e', 'weighted_sum', 'u.n');
SELECT round(value, 15) = round((4 * 120 - 1 * 110 + 2.5 * 61 + 10 * 60 + 3 * 50) / 120, 15) AS exact, round(value, 6) AS value
  FROM meterflow.usage('level', :'t', :'t'::timestamptz + interval '2 hours', 'acme');
-- The same from rollups, once they are built; and with an event more.
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT * FROM backfilled;
SELECT * FROM meterflow.verify();
SELECT pg_temp.send('e6', 'e', '{"u":{"n":7,"who":"new"},"r":"eu","big":7000}', :'t'::timestamptz + interval '30 minutes');
SELECT * FROM backfilled WHERE key <> 'avg';

-- Changes make versions: events before the change count by the old definition, events after it by the new one.
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('versioned', 'v', 'sum', 'n');
SELECT pg_temp.send('v1', 'v', '{"n":1,"m":100}', now() - interval '1 minute');
UPDATE meterflow.meters SET description = 'a note is no new version' WHERE tenant_id = 'meters' AND key = 'versioned';
UPDATE meterflow.meters SET property = 'm', version = 17, dimensions = '{r}' WHERE tenant_id = 'meters' AND key = 'versioned';
SELECT pg_temp.send('v2', 'v', '{"n":2,"m":200,"r":"eu"}', clock_timestamp());
SELECT pg_temp.send('v3', 'v', '{"n":4,"m":400}', now() - interval '1 minute');
SELECT * FROM pg_temp.used('versioned');
SELECT * FROM pg_temp.used('versioned', 'acme', 'r');
SELECT key, version, property, description FROM meterflow.meters WHERE tenant_id = 'meters' AND key = 'versioned';
SELECT version, property, dimensions, isfinite(valid_from) AS begins, isfinite(valid_to) AS ends,
       valid_from = lag(valid_to, 1, '-infinity') OVER (ORDER BY version) AS without_gap
  FROM meterflow.meter_versions WHERE tenant_id = 'meters' AND meter_key = 'versioned' ORDER BY version;
-- What would mix two kinds of usage is refused; so is a DELETE, and a new name.
UPDATE meterflow.meters SET aggregation = 'max' WHERE tenant_id = 'meters' AND key = 'versioned';
UPDATE meterflow.meters SET key = 'renamed' WHERE tenant_id = 'meters' AND key = 'versioned';
UPDATE meterflow.meters SET property = NULL WHERE tenant_id = 'meters' AND key = 'versioned';
DELETE FROM meterflow.meters WHERE tenant_id = 'meters' AND key = 'versioned';
INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('versioned', 'v', 'count');
-- A change that is rolled back has not been.
BEGIN;
UPDATE meterflow.meters SET property = 'n' WHERE tenant_id = 'meters' AND key = 'versioned';
SELECT pg_temp.send('v4', 'v', '{"n":8,"m":800}', clock_timestamp());
SELECT * FROM pg_temp.used('versioned');
ROLLBACK;
SELECT pg_temp.send('v4', 'v', '{"n":8,"m":800}', clock_timestamp());
SELECT * FROM pg_temp.used('versioned');

-- An archived meter counts no more, and keeps what it has; opened again, it counts from raw what came meanwhile.
INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('archived', 'a', 'count');
SELECT pg_temp.send('a1', 'a', '{}', now() - interval '1 minute');
UPDATE meterflow.meters SET archived_at = now() WHERE tenant_id = 'meters' AND key = 'archived';
SELECT pg_temp.send('a2', 'a', '{}', clock_timestamp());
SELECT pg_temp.send('a3', 'a', '{}', now() - interval '2 minutes');
SELECT * FROM pg_temp.used('archived');
UPDATE meterflow.meters SET archived_at = NULL WHERE tenant_id = 'meters' AND key = 'archived';
SELECT pg_temp.send('a4', 'a', '{}', clock_timestamp());
SELECT * FROM pg_temp.used('archived');

-- Values that a meter made later can't take are passed over: they were accepted, and can't fail any more.
SELECT pg_temp.send('o1', 'o', '{"n":"many"}', :'t'), pg_temp.send('o2', 'o', '{"n":2}', :'t');
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('other', 'o', 'sum', 'n');
SELECT * FROM pg_temp.used('other');
SELECT pg_temp.send('o3', 'o', '{"n":"many"}', :'t');
-- With a multiplier, too.
INSERT INTO meterflow.meters (key, event_name, aggregation, property, multiplier) VALUES ('product', 'p', 'sum', 'n', 1e-20);
SELECT pg_temp.send('p1', 'p', '{"n":1}', :'t'), pg_temp.send('p2', 'p', '{"n":0.00001}', :'t');

-- Distinct values: six. Numbers count by value, as texts or not; texts byte by byte; lists and objects by what they mean.
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('distinct', 'd', 'unique_count', 'x');
SELECT pg_temp.send('d' || n, 'd', ('{"x":' || x || '}')::json, :'t'::timestamptz + n * interval '1 minute')
  FROM unnest('{1,1.0,10e-1,"\"1\"","\"a\"","\"A\"","\"\\u0061\"",true,null,"[1,2]","[1, 2.0]","{\"b\":1,\"a\":2}","{\"a\":2,\"b\":1}"}'::text[]) WITH ORDINALITY AS v (x, n);
SELECT * FROM pg_temp.used('distinct');

-- A dimension explosion is bounded: the group that would be one too many is refused, the others go on.
SET meterflow.max_groups = 3;
INSERT INTO meterflow.meters (key, event_name, aggregation, dimensions) VALUES ('bounded', 'g', 'count', '{r}');
SELECT n, pg_temp.send('g' || n, 'g', json_build_object('r', n % 5), :'t') FROM generate_series(1, 10) AS n;
SELECT * FROM pg_temp.used('bounded', 'acme', 'r') ORDER BY 1;
SELECT failed->0->>'message' AS message FROM meterflow.ingest(json_build_object('transaction_id', 'g4', 'customer_id', 'acme', 'event_name', 'g', 'properties', '{"r":4}'::json));
-- A group that a rollback takes back gives its place back.
RESET meterflow.max_groups;
SET meterflow.max_groups = 4;
BEGIN;
SELECT pg_temp.send('g11', 'g', '{"r":"gone"}', :'t');
ROLLBACK;
SELECT pg_temp.send('g12', 'g', '{"r":"here"}', :'t'), pg_temp.send('g13', 'g', '{"r":"one too many"}', :'t');
RESET meterflow.max_groups;
SELECT accepted, duplicates, failed FROM meterflow.retry_rejected(ARRAY(SELECT id FROM meterflow.rejected_events WHERE tenant_id = 'meters' AND code = 'too_many_groups'));
SELECT * FROM pg_temp.used('bounded');

-- Definitions belong to a tenant.
SET meterflow.tenant = 'meters 2';
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('sum', 'other', 'sum', 'n');
SELECT pg_temp.send('e1', 'other', '{"n":1}', :'t'), pg_temp.send('e2', 'e', '{"u":{"n":"no meter here"}}', :'t');
SELECT * FROM pg_temp.used('sum');
SET meterflow.tenant = 'meters';

SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT * FROM meterflow.verify();
