-- Retention and downsampling: what is dropped, what totals survive it, and the clear error where none can.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set settings :source '/sql/include/settings.sql'
SET meterflow.tenant = 'retention';
SELECT meterflow.pause_worker();
-- As the defaults have it, hours are kept for 400 days.
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
ALTER SYSTEM SET meterflow.backdate_window = '10000d';
\set setting meterflow.backdate_window
\set value 10000d
\set ECHO none
\i :settings
\set ECHO all
-- Two months that are long past, another one, and some days.
CREATE FUNCTION pg_temp.at(which text) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT CASE which WHEN 'first' THEN date_trunc('month', now() - interval '700 days') WHEN 'second' THEN date_trunc('month', now() - interval '700 days') + interval '1 month'
                    WHEN 'third' THEN date_trunc('month', now() - interval '700 days') + interval '2 months' WHEN 'later' THEN date_trunc('month', now() - interval '365 days')
                    WHEN 'after' THEN date_trunc('month', now() - interval '365 days') + interval '1 month'
                    WHEN 'young' THEN date_trunc('day', now()) - interval '100 days' END $$;
INSERT INTO meterflow.meters (key, event_name, aggregation, property, dimensions) VALUES
  ('calls', 'call', 'count', NULL, '{r}'), ('tokens', 'call', 'sum', 'n', '{r}'), ('peak', 'call', 'max', 'n', '{r}'), ('users', 'call', 'unique_count', 'n', '{r}');
-- Every ten hours for two months, and for another one, and for two days.
SELECT accepted > 200 AS accepted, duplicates, failed
  FROM meterflow.ingest((
    SELECT json_agg(json_build_object('transaction_id', h, 'customer_id', 'acme', 'event_name', 'call', 'timestamp', h,
                                      'properties', json_build_object('n', extract(day FROM h), 'r', CASE WHEN extract(hour FROM h)::int % 20 = 0 THEN 'eu' ELSE 'us' END)))
      FROM (SELECT generate_series(pg_temp.at('first'), pg_temp.at('third') - interval '1 second', '10 hours') UNION ALL
            SELECT generate_series(pg_temp.at('later'), pg_temp.at('after') - interval '1 second', '10 hours') UNION ALL
            SELECT generate_series(pg_temp.at('young'), pg_temp.at('young') + interval '2 days', '10 hours')) AS t (h)));
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();

-- What is asked before anything is dropped, to be compared with afterwards. Errors are answers, too.
CREATE FUNCTION pg_temp.ask(from_time timestamptz, to_time timestamptz, size text, by text, filter jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text; answer text;
BEGIN
  SELECT string_agg(concat_ws(' ', m, window_start, group_key, coalesce(value::text, 'null')), E'\n' ORDER BY m, window_start, group_key) INTO answer
    FROM unnest('{calls,tokens,peak,users}'::text[]) AS m,
         LATERAL meterflow.usage(m, from_time, to_time, 'acme', size, CASE WHEN by IS NOT NULL THEN ARRAY[by] END, filter);
  RETURN answer;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN SQLSTATE || ' ' || split_part(detail, '.', 1);
END $$;
CREATE TEMPORARY TABLE questions AS
  SELECT row_number() OVER () AS n, q.*, pg_temp.ask(from_time, to_time, size, by, filter) AS answer
    FROM (VALUES ('a month, the oldest', pg_temp.at('first'), pg_temp.at('second'), NULL, NULL, NULL::jsonb),
                 ('a month, another', pg_temp.at('later'), pg_temp.at('after'), NULL, NULL, NULL),
                 ('a month by a dimension', pg_temp.at('first'), pg_temp.at('second'), NULL, 'r', NULL),
                 ('a month filtered by a dimension', pg_temp.at('first'), pg_temp.at('second'), NULL, NULL, '{"r": "eu"}'),
                 ('two months as months', pg_temp.at('first'), pg_temp.at('third'), 'month', NULL, NULL),
                 ('everything', '-infinity', 'infinity', NULL, NULL, NULL),
                 ('days of the oldest month', pg_temp.at('first'), pg_temp.at('second'), 'day', NULL, NULL),
                 ('days of another', pg_temp.at('later'), pg_temp.at('after'), 'day', NULL, NULL),
                 ('some days of the oldest month', pg_temp.at('first') + interval '3 days', pg_temp.at('first') + interval '6 days', NULL, NULL, NULL),
                 ('some days of another', pg_temp.at('later') + interval '3 days', pg_temp.at('later') + interval '6 days', NULL, NULL, NULL),
                 ('hours of the oldest month', pg_temp.at('first'), pg_temp.at('first') + interval '1 day', 'hour', NULL, NULL),
                 ('hours of another', pg_temp.at('later'), pg_temp.at('later') + interval '1 day', 'hour', NULL, NULL),
                 ('half an hour', pg_temp.at('later'), pg_temp.at('later') + interval '30 minutes', NULL, NULL, NULL),
                 ('a month by what is no dimension', pg_temp.at('later'), pg_temp.at('after'), NULL, 'n', NULL),
                 ('a month filtered by what is no dimension', pg_temp.at('later'), pg_temp.at('after'), NULL, NULL, '{"n": 1}'),
                 ('half an hour that is young', pg_temp.at('young'), pg_temp.at('young') + interval '30 minutes', NULL, NULL, NULL),
                 ('young by what is no dimension', pg_temp.at('young'), pg_temp.at('young') + interval '2 days', NULL, 'n', NULL)
         ) AS q (about, from_time, to_time, size, by, filter);
SELECT count(*) AS questions, count(*) FILTER (WHERE answer ~ '^[0-9A-Z]{5} ' OR answer IS NULL) AS errors FROM questions;
CREATE TEMPORARY VIEW answers AS
  SELECT q.about, CASE WHEN a.answer = q.answer THEN 'the same' ELSE a.answer END AS answer
    FROM questions AS q, LATERAL (SELECT pg_temp.ask(from_time, to_time, size, by, filter) AS answer) AS a ORDER BY q.n;
CREATE TEMPORARY VIEW kept AS
  SELECT r.grain, count(*) FILTER (WHERE r.bucket < pg_temp.at('third')) AS oldest_months, count(*) FILTER (WHERE r.bucket >= pg_temp.at('later') AND r.bucket < pg_temp.at('after')) AS another_month
    FROM meterflow.rollups AS r JOIN meterflow.meter_versions AS v ON (v.tenant_id, v.id) = (r.tenant_id, r.meter_id)
   WHERE r.tenant_id = 'retention' AND v.meter_key = 'calls' AND r.group_key = '["eu"]' GROUP BY 1;

-- Nothing goes that the backdate window may still need; settings alone drop nothing before a job runs.
ALTER SYSTEM SET meterflow.hour_rollup_days = 0;
ALTER SYSTEM SET meterflow.retention_days = 200;
\set setting meterflow.retention_days
\set value 200
\set ECHO none
\i :settings
\set ECHO all
SELECT meterflow.apply_retention();
SELECT count(*) > 60 AS old_events FROM meterflow.events WHERE tenant_id = 'retention' AND timestamp < now() - interval '200 days';
-- The door is closed again: the partitions go, whole.
ALTER SYSTEM RESET meterflow.backdate_window;
\set setting meterflow.backdate_window
\set value 34d
\set ECHO none
\i :settings
\set ECHO all
-- One transaction announces what another clears.
SELECT meterflow.apply_retention() AS announced;
SELECT meterflow.apply_retention() > 60 AS dropped;
SELECT count(*) FILTER (WHERE timestamp < now() - interval '200 days') AS old_events, count(*) > 0 AS young_events FROM meterflow.events WHERE tenant_id = 'retention';
SELECT count(*) FROM meterflow.event_partitions() WHERE to_time < now() - interval '201 days';
SELECT * FROM answers;
SELECT * FROM meterflow.verify();
SELECT meterflow.apply_retention();
-- Too old to be taken back: the event is gone.
\set VERBOSITY sqlstate
SELECT meterflow.void_event(pg_temp.at('first')::text, 'a test');
\set VERBOSITY default
-- A meter made now can't know what is gone, and says so; it knows what is kept.
INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('late', 'call', 'count');
SELECT value = 5 AS complete FROM meterflow.usage('late', pg_temp.at('young'), now(), 'acme');
\set VERBOSITY sqlstate
SELECT * FROM meterflow.usage('late', pg_temp.at('later'), now(), 'acme');
\set VERBOSITY default

-- Hours become days: a month and its days stay as they are, its hours go.
SELECT grain, oldest_months > 0 AS oldest_months, another_month > 0 AS another_month FROM kept ORDER BY array_position('{h,d,m}'::"char"[], grain);
ALTER SYSTEM SET meterflow.hour_rollup_days = 300;
\set setting meterflow.hour_rollup_days
\set value 300
\set ECHO none
\i :settings
\set ECHO all
SELECT meterflow.fold();
-- One transaction announces what another clears.
SELECT meterflow.apply_retention() AS announced;
SELECT meterflow.apply_retention() > 60 AS dropped;
SELECT grain, oldest_months > 0 AS oldest_months, another_month > 0 AS another_month FROM kept ORDER BY array_position('{h,d,m}'::"char"[], grain);
SELECT * FROM answers;
SELECT * FROM meterflow.verify();
-- Days become months.
ALTER SYSTEM SET meterflow.day_rollup_days = 500;
\set setting meterflow.day_rollup_days
\set value 500
\set ECHO none
\i :settings
\set ECHO all
-- One transaction announces what another clears.
SELECT meterflow.apply_retention() AS announced;
SELECT meterflow.apply_retention() > 10 AS dropped;
SELECT grain, oldest_months > 0 AS oldest_months, another_month > 0 AS another_month FROM kept ORDER BY array_position('{h,d,m}'::"char"[], grain);
SELECT * FROM answers;
SELECT * FROM meterflow.verify();
SELECT meterflow.apply_retention();

-- And life goes on: an event of now counts, the totals of all time with it.
SELECT accepted FROM meterflow.ingest('{"transaction_id":"now","customer_id":"acme","event_name":"call","properties":{"n":1,"r":"eu"}}');
SELECT a.value - split_part(split_part(q.answer, E'\n', 1), ' ', -1)::numeric AS more
  FROM questions AS q, meterflow.usage('calls', '-infinity', 'infinity', 'acme') AS a WHERE q.about = 'everything';
ALTER SYSTEM RESET meterflow.retention_days;
ALTER SYSTEM RESET meterflow.hour_rollup_days;
ALTER SYSTEM RESET meterflow.day_rollup_days;
\set value 0
\set ECHO none
\i :settings
\set ECHO all
