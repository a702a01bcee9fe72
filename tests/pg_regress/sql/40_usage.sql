-- Usage: windows in any zone, edges inside an hour, groups and filters, one customer, each, or all as one.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set settings :source '/sql/include/settings.sql'
SET meterflow.tenant = 'usage';
SELECT meterflow.pause_worker();
-- Days with a change of the clock lie where they lie: the door is opened for old events.
ALTER SYSTEM SET meterflow.backdate_window = '10000d';
\set setting meterflow.backdate_window
\set value 10000d
\set ECHO none
\i :settings
\set ECHO all
CREATE FUNCTION pg_temp.send(name text, customer text, VARIADIC at_and_n text[]) RETURNS text LANGUAGE sql AS $$
  SELECT coalesce(failed->0->>'message', accepted || ' accepted')
    FROM meterflow.ingest((SELECT json_agg(json_build_object('transaction_id', concat_ws(' ', name, customer, v), 'customer_id', customer, 'event_name', name,
           'timestamp', split_part(v, ' ', 1), 'properties', json_build_object('n', split_part(v, ' ', 2)::numeric, 'model', nullif(split_part(v, ' ', 3), ''),
           'region', nullif(split_part(v, ' ', 4), ''), 'user', json_build_object('id', nullif(split_part(v, ' ', 5), ''))))) FROM unnest(at_and_n) AS v)) $$;
INSERT INTO meterflow.meters (key, event_name, aggregation, property, dimensions) VALUES
  ('calls', 'call', 'count', NULL, '{model,region}'), ('tokens', 'call', 'sum', 'n', '{model,region}'), ('peak', 'call', 'max', 'n', '{model,region}'),
  ('last', 'call', 'latest', 'n', '{model,region}'), ('users', 'call', 'unique_count', 'user.id', '{model,region}'), ('mean', 'call', 'avg', 'n', '{model,region}'),
  ('level', 'call', 'weighted_sum', 'n', '{}'), ('hourly', 'clock', 'count', NULL, '{}');
SELECT pg_temp.send('call', 'acme', '2025-06-02T10:00:00Z 1 gpt eu u1', '2025-06-02T10:59:59.999999Z 2 gpt us u2', '2025-06-02T11:00:00Z 4 llama eu u1',
                    '2025-06-02T11:30:00Z 8 llama', '2025-06-04T23:59:59Z 16 gpt eu u3', '2025-06-09T00:00:00Z 32 gpt eu u1', '2025-07-01T00:00:00Z 64 gpt us u2');
SELECT pg_temp.send('call', 'other', '2025-06-02T10:30:00Z 100 gpt eu u1', '2025-06-03T00:00:00Z 200 other');
-- Asked before the fold and after it, everything below is the same: this part twice.
CREATE FUNCTION pg_temp.ask(question text) RETURNS TABLE (answer text) LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY EXECUTE format('SELECT concat_ws('' | '', to_char(window_start, ''MM-DD HH24:MI:SS''), to_char(window_end, ''MM-DD HH24:MI:SS''), customer_id, group_key, coalesce(value::text, ''null''))
                                 FROM meterflow.usage(%s) WITH ORDINALITY ORDER BY ordinality', question);
EXCEPTION WHEN OTHERS THEN
  RETURN QUERY SELECT SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE TEMPORARY TABLE questions (n int GENERATED ALWAYS AS IDENTITY, about text, question text);
INSERT INTO questions (about, question) VALUES
  ('one customer', $$'tokens', '2025-06-01', '2025-07-01', 'acme'$$),
  ('each customer', $$'tokens', '2025-06-01', '2025-07-01'$$),
  ('all as one', $$'tokens', '2025-06-01', '2025-07-01', total => true$$),
  ('a customer without events', $$'tokens', '2025-06-01', '2025-07-01', 'nobody'$$),
  ('nothing in the period, each', $$'tokens', '2025-05-01', '2025-06-01'$$),
  ('nothing in the period, all', $$'tokens', '2025-05-01', '2025-06-01', total => true$$),
  ('nothing: count', $$'calls', '2025-05-01', '2025-06-01', 'acme'$$),
  ('nothing: max', $$'peak', '2025-05-01', '2025-06-01', 'acme'$$),
  ('nothing: unique', $$'users', '2025-05-01', '2025-06-01', 'acme'$$),
  ('from minus to plus infinity', $$'tokens', '-infinity', 'infinity', total => true$$),
  ('the start counts, the end does not', $$'tokens', '2025-06-02 10:00:00+00', '2025-06-02 11:00:00+00', 'acme'$$),
  ('edges inside an hour', $$'tokens', '2025-06-02 10:00:00.000001+00', '2025-06-02 11:30:00+00', total => true$$),
  ('edges inside an hour', $$'tokens', '2025-06-02 10:59:59.999999+00', '2025-06-02 11:30:00.000001+00', 'acme'$$),
  ('inside of one hour', $$'tokens', '2025-06-02 11:00:00.000001+00', '2025-06-02 11:59:00+00', 'acme'$$),
  ('by model', $$'tokens', '2025-06-01', '2025-07-01', group_by => '{model}'$$),
  ('by two, in the other order', $$'tokens', '2025-06-01', '2025-07-01', 'acme', group_by => '{region,model}'$$),
  ('by model, all as one', $$'users', '2025-06-01', '2025-07-01', total => true, group_by => '{model}'$$),
  ('by what is no dimension', $$'tokens', '2025-06-01', '2025-07-01', 'acme', group_by => '{user.id}'$$),
  ('by both kinds', $$'tokens', '2025-06-01', '2025-06-03', 'acme', group_by => '{model,user.id}'$$),
  ('filtered by dimensions', $$'tokens', '2025-06-01', '2025-07-01', filters => '{"model": ["gpt", "other"]}'$$),
  ('filtered by an absent dimension', $$'tokens', '2025-06-01', '2025-07-01', filters => '{"region": null}'$$),
  ('filtered by or and ne', $$'tokens', '2025-06-01', '2025-07-01', filters => '{"or": [{"region": "us"}, {"model": {"ne": "gpt"}}]}'$$),
  ('filtered by what is no dimension', $$'tokens', '2025-06-01', '2025-07-01', 'acme', filters => '{"user.id": "u1"}'$$),
  ('filtered by the value itself', $$'calls', '2025-06-01', '2025-07-01', filters => '{"n": {"gt": 4, "lte": 100}}'$$),
  ('filtered and grouped', $$'peak', '2025-06-01', '2025-07-01', 'acme', group_by => '{model}', filters => '{"region": {"exists": true}}'$$),
  ('filtered to nothing', $$'tokens', '2025-06-01', '2025-07-01', 'acme', filters => '{"model": "none"}'$$),
  ('weeks begin on Monday', $$'tokens', '2025-06-01', '2025-06-16', 'acme', 'week'$$),
  ('days, of an aggregation that picks', $$'peak', '2025-06-02', '2025-06-06', 'acme', 'day'$$),
  ('days, each customer', $$'calls', '2025-06-02', '2025-06-05', NULL, 'day'$$),
  ('days by model', $$'calls', '2025-06-02', '2025-06-04', 'acme', 'day', '{model}'$$),
  ('the first and last window are cut by the period', $$'tokens', '2025-06-02 10:30:00+00', '2025-06-03 12:00:00+00', 'acme', 'day'$$),
  ('hours', $$'tokens', '2025-06-02 09:00+00', '2025-06-02 12:00+00', 'acme', 'hour'$$),
  ('quarters of an hour', $$'tokens', '2025-06-02 10:45+00', '2025-06-02 11:45+00', 'acme', '15 minutes'$$),
  ('minutes', $$'calls', '2025-06-02 10:58:30+00', '2025-06-02 11:00:30+00', 'acme', 'minute'$$),
  ('six hours', $$'tokens', '2025-06-02', '2025-06-03', 'acme', '6 hours'$$),
  ('months', $$'tokens', '2025-05-15', '2025-07-15', 'acme', 'month'$$),
  ('quarters', $$'tokens', '2025-01-01', '2026-01-01', total => true, window_size => '3 months'$$),
  ('a year', $$'tokens', '2025-01-01', '2026-01-01', total => true, window_size => 'year'$$),
  ('months of Tokyo', $$'tokens', '2025-06-01', '2025-08-01', 'acme', 'month', timezone => 'Asia/Tokyo'$$),
  ('days of Kolkata, half past', $$'tokens', '2025-06-01 18:30+00', '2025-06-04 18:30+00', 'acme', 'day', timezone => 'Asia/Kolkata'$$),
  ('mean', $$'mean', '2025-06-02', '2025-06-03', 'acme'$$),
  ('latest', $$'last', '2025-06-02', '2025-06-05', 'acme', 'day'$$),
  ('level of the periods', $$'level', '2025-06-02 10:00+00', '2025-06-02 12:00+00', 'acme', 'hour'$$);
SELECT q.about, string_agg(a.answer, E'\n' ORDER BY a.ordinality) AS answer
  FROM questions AS q LEFT JOIN pg_temp.ask(q.question) WITH ORDINALITY AS a (answer, ordinality) ON true GROUP BY q.n, q.about ORDER BY q.n;
CREATE TEMPORARY TABLE before AS SELECT q.n, q.about, a.answer, a.ordinality FROM questions AS q, pg_temp.ask(q.question) WITH ORDINALITY AS a (answer, ordinality);
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT count(*) > 50 AS rolled_up FROM meterflow.rollups WHERE tenant_id = 'usage';
CREATE TEMPORARY TABLE after AS SELECT q.n, q.about, a.answer, a.ordinality FROM questions AS q, pg_temp.ask(q.question) WITH ORDINALITY AS a (answer, ordinality);
(TABLE before EXCEPT ALL TABLE after) UNION ALL (TABLE after EXCEPT ALL TABLE before);

-- Days of 23 and 25 hours, in zones of either side; a day of 23 and a half on Lord Howe, at half past; no midnight in Beirut.
SELECT meterflow.ingest((SELECT json_agg(json_build_object('transaction_id', h, 'customer_id', 'acme', 'event_name', 'clock', 'timestamp', h)) FROM generate_series(timestamptz '2025-03-07 00:30+00', '2025-04-08 00:00+00', '1 hour') AS h));
SELECT meterflow.ingest((SELECT json_agg(json_build_object('transaction_id', h, 'customer_id', 'acme', 'event_name', 'clock', 'timestamp', h)) FROM generate_series(timestamptz '2025-10-03 00:30+00', '2025-11-05 00:00+00', '1 hour') AS h));
CREATE FUNCTION pg_temp.days(zone text, first date, days int, size text DEFAULT 'day') RETURNS TABLE (from_local text, to_local text, hours numeric, events numeric) LANGUAGE sql AS $$
  SELECT to_char(window_start AT TIME ZONE zone, 'Dy YYYY-MM-DD HH24:MI'), to_char(window_end AT TIME ZONE zone, 'Dy HH24:MI'),
         round(extract(epoch FROM window_end - window_start) / 3600, 2), value
    FROM meterflow.usage('hourly', first::timestamp AT TIME ZONE zone, (first + days)::timestamp AT TIME ZONE zone, 'acme', size, timezone => zone) $$;
SELECT * FROM pg_temp.days('America/New_York', '2025-03-08', 3);
SELECT * FROM pg_temp.days('America/New_York', '2025-11-01', 3);
SELECT * FROM pg_temp.days('Europe/Berlin', '2025-03-29', 3);
SELECT * FROM pg_temp.days('Europe/Berlin', '2025-10-25', 3);
SELECT * FROM pg_temp.days('Australia/Lord_Howe', '2025-04-05', 2);
SELECT * FROM pg_temp.days('Australia/Lord_Howe', '2025-10-04', 3);
SELECT * FROM pg_temp.days('Asia/Beirut', '2025-03-29', 2);
SELECT * FROM pg_temp.days('Asia/Kathmandu', '2025-03-29', 2);
-- Hours across the change: each is an hour long; six-hour windows count the clock on the wall.
SELECT * FROM pg_temp.days('America/New_York', '2025-03-09', 1, 'hour') LIMIT 4;
SELECT * FROM pg_temp.days('America/New_York', '2025-11-02', 1, 'hour') LIMIT 4;
SELECT * FROM pg_temp.days('America/New_York', '2025-03-09', 1, '6 hours');
SELECT * FROM pg_temp.days('America/New_York', '2025-11-02', 1, '6 hours');
-- A week and a month with a change in it.
SELECT * FROM pg_temp.days('Europe/Berlin', '2025-03-24', 14, 'week');
SELECT * FROM pg_temp.days('America/New_York', '2025-03-10', 20, 'month');
-- Every stretch adds up: the windows of a period to the period, whatever their size and zone.
SELECT count(*) AS sizes, count(DISTINCT (n, first, last)) AS totals, min(n) AS events
  FROM unnest('{minute,hour,15 minutes,day,week,month,7 days,12 hours,year}'::text[]) AS size, unnest('{UTC,America/New_York,Asia/Kathmandu}'::text[]) AS zone,
       LATERAL (SELECT sum(value) AS n, min(window_start) AS first, max(window_end) AS last FROM meterflow.usage('hourly', '2025-10-31 17:11+00', '2025-11-03 04:07+00', 'acme', size, timezone => zone)) AS u;

-- What can't be answered, says why.
SELECT * FROM meterflow.usage('nothing', '2025-06-01', '2025-07-01');
SELECT * FROM meterflow.usage('tokens', '2025-06-01', '2025-06-01');
SELECT * FROM meterflow.usage('tokens', '2025-07-01', '2025-06-01');
SELECT * FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', window_size => 'fortnight');
SELECT * FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', window_size => '0 days');
SELECT * FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', window_size => '-1 day');
SELECT * FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', window_size => 'day', timezone => 'Mars/Olympus');
SELECT count(*) AS a_year_of_five_minutes FROM meterflow.usage('tokens', '2025-01-01', '2026-01-01', total => true, window_size => '5 minutes');
SELECT * FROM meterflow.usage('tokens', '2024-06-01', '2025-07-01', window_size => 'minute');
SELECT * FROM meterflow.usage('tokens', '-infinity', 'infinity', window_size => 'day');
SELECT * FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', group_by => '{""}');
SELECT * FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', filters => '{"model": {"like": "g%"}}');
SELECT * FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', filters => '[]');
\set VERBOSITY sqlstate
SELECT count(*) FROM meterflow.usage(NULL, '2025-06-01', '2025-07-01');
SELECT count(*) FROM meterflow.usage('tokens', NULL, '2025-07-01');
SELECT count(*) FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', timezone => NULL);
\set VERBOSITY default

-- usage() is a table like any other: joined, filtered, aggregated; for many customers at once.
SELECT c.id, u.value FROM (VALUES ('acme'), ('other'), ('nobody')) AS c (id), LATERAL meterflow.usage('calls', '2025-06-01', '2025-07-01', c.id) AS u ORDER BY 1;
PREPARE monthly (text) AS SELECT value FROM meterflow.usage('tokens', '2025-06-01', '2025-07-01', $1);
EXECUTE monthly ('acme');
EXECUTE monthly ('other');
-- One snapshot: what this transaction has sent counts at once.
BEGIN;
SELECT pg_temp.send('call', 'acme', '2025-06-30T23:59:59Z 1000 gpt eu u1');
EXECUTE monthly ('acme');
ROLLBACK;
EXECUTE monthly ('acme');

SELECT * FROM meterflow.verify();
ALTER SYSTEM RESET meterflow.backdate_window;
\set value 34d
\set ECHO none
\i :settings
\set ECHO all
