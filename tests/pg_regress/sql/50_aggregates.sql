-- Two-step aggregates, on tables of one's own: state, merge, value; in any grouping, in parallel, to the same bytes.
\set SHOW_CONTEXT never
CREATE TEMPORARY TABLE few (g text, n numeric, at timestamptz, who text);
INSERT INTO few VALUES ('a', 1, '2026-01-01 00:00+00', 'x'), ('a', 2.5, '2026-01-01 06:00+00', 'y'), ('b', -4, '2026-01-01 12:00+00', 'x'), ('b', 10, '2026-01-01 18:00+00', 'z'), ('b', NULL, '2026-01-01 23:00+00', NULL);

-- Each against what PostgreSQL itself says.
SELECT meterflow.value(meterflow.count_state(*)) = count(*) AS count, meterflow.value(meterflow.sum_state(n)) = sum(n) AS sum,
       meterflow.value(meterflow.avg_state(n)) = avg(n) AS avg, meterflow.value(meterflow.min_state(n)) = min(n) AS min, meterflow.value(meterflow.max_state(n)) = max(n) AS max,
       meterflow.value(meterflow.latest_state(n, at)) = 10 AS latest, meterflow.value(meterflow.unique_state(who)) = count(DISTINCT who) AS "unique",
       meterflow.value(meterflow.approx_unique_state(who)) = 3 AS "unique~",
       meterflow.value(meterflow.percentile_state(n), 0.5) = percentile_disc(0.5) WITHIN GROUP (ORDER BY n) AS median,
       meterflow.value(meterflow.percentile_state(n), 1) = max(n) AS p100, meterflow.value(meterflow.percentile_state(n), 0.01) = min(n) AS p1,
       abs(meterflow.value(meterflow.approx_percentile_state(n), 0.75) - 2.5) < 0.01 AS "p75~",
       meterflow.value(meterflow.weighted_sum_state(n, at), from_time => '2026-01-01', to_time => '2026-01-02') = 1 + 2.5 * 0.75 - 4 * 0.5 + 10 * 0.25 AS level
  FROM few;
SELECT meterflow.aggregation(meterflow.count_state(*)), meterflow.aggregation(meterflow.sum_state(n)), meterflow.aggregation(meterflow.latest_state(n, at)),
       meterflow.aggregation(meterflow.approx_unique_state(who)), meterflow.aggregation(meterflow.approx_percentile_state(n)), meterflow.aggregation(meterflow.weighted_sum_state(n, at)) FROM few;
-- Nothing in is null out, or what is nothing; nulls are passed over.
SELECT meterflow.sum_state(n) IS NULL AS sum, meterflow.count_state(*) IS NULL AS count, meterflow.merge(NULL::meterflow.usage_state) IS NULL AS merge FROM few WHERE false;
SELECT meterflow.value(meterflow.count_state(*)) AS count, meterflow.value(meterflow.sum_state(n)) AS sum, meterflow.value(meterflow.max_state(n)) AS max, meterflow.value(meterflow.unique_state(who)) AS "unique" FROM few WHERE n IS NULL;
SELECT meterflow.value(NULL) IS NULL AS value, meterflow.aggregation(NULL) IS NULL AS aggregation, meterflow.merge_states(NULL, NULL) IS NULL AS merged;

-- States are values: kept in a table, merged later in any grouping, written out as text and read back.
CREATE TEMPORARY TABLE kept AS SELECT g, meterflow.sum_state(n) AS total, meterflow.unique_state(who) AS people, meterflow.percentile_state(n) AS spread FROM few GROUP BY g;
SELECT g, meterflow.value(total) AS total, meterflow.value(people) AS people, meterflow.value(spread, 0.5) AS median FROM kept ORDER BY g;
SELECT meterflow.value(meterflow.merge(total)) AS total, meterflow.value(meterflow.merge(people)) AS people, meterflow.value(meterflow.merge(spread), 0.5) AS median FROM kept;
SELECT (SELECT meterflow.merge(total ORDER BY g) FROM kept)::bytea = (SELECT meterflow.merge(total ORDER BY g DESC) FROM kept)::bytea AS any_order,
       (SELECT meterflow.merge(spread) FROM kept)::bytea = (SELECT meterflow.percentile_state(n) FROM few)::bytea AS as_if_at_once,
       (SELECT meterflow.merge_states(a.people, b.people) FROM kept AS a, kept AS b WHERE a.g < b.g)::bytea = (SELECT meterflow.unique_state(who) FROM few)::bytea AS by_two;
SELECT total, total::text::meterflow.usage_state::bytea = total::bytea AS text_and_back FROM kept WHERE g = 'a';
COPY (SELECT total FROM kept WHERE g = 'a') TO stdout;
-- As a window function, growing row by row.
SELECT g, n, meterflow.value(meterflow.sum_state(n) OVER (ORDER BY at)) AS running FROM few ORDER BY at;

-- Ties of the latest: of values at one instant the largest wins, so that order does not.
SELECT meterflow.value(meterflow.latest_state(n, '2026-01-01 00:00+00' ORDER BY n)) AS up, meterflow.value(meterflow.latest_state(n, '2026-01-01 00:00+00' ORDER BY n DESC)) AS down FROM few;

-- Exact: what a float would lose.
SELECT meterflow.value(meterflow.sum_state(n)) FROM (VALUES (1e23), (1e-24), (0.1), (0.2), (-1e23)) AS v (n);
SELECT meterflow.value(meterflow.avg_state(n)) FROM (VALUES (1), (1), (2)) AS v (n);
SELECT meterflow.value(meterflow.sum_state(0.1)) FROM generate_series(1, 1000000);

-- Parallel plans give the same bytes as serial ones.
CREATE TABLE many AS SELECT n % 7 AS g, (n * 7919 % 10007)::numeric / 100 AS n, timestamptz '2026-01-01 00:00+00' + n * interval '1 second' AS at, 'u' || n * 31 % 5000 AS who FROM generate_series(1, 200000) AS n;
ANALYZE many;
CREATE TEMPORARY VIEW states AS
  SELECT g, meterflow.count_state(*) AS c, meterflow.sum_state(n) AS s, meterflow.avg_state(n) AS a, meterflow.min_state(n) AS i, meterflow.max_state(n) AS x, meterflow.latest_state(n, at) AS l,
         meterflow.unique_state(who) AS u, meterflow.approx_unique_state(who) AS uu, meterflow.percentile_state(n) AS p, meterflow.approx_percentile_state(n) AS pp, meterflow.weighted_sum_state(n, at) AS w
    FROM many GROUP BY g;
SET max_parallel_workers_per_gather = 0;
CREATE TEMPORARY TABLE serial AS SELECT g, md5(states::text) AS digest FROM states;
SET max_parallel_workers_per_gather = 4;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
DO $$
DECLARE line text; plan text := '';
BEGIN
  FOR line IN EXPLAIN (COSTS OFF) SELECT * FROM states LOOP plan := plan || line; END LOOP;
  RAISE NOTICE 'parallel: %', plan ~ 'Partial (Hash|Group)Aggregate';
END $$;
SELECT count(*) AS groups, count(*) FILTER (WHERE serial.digest = md5(states::text)) AS equal FROM states JOIN serial USING (g);
SELECT meterflow.value(meterflow.merge(c)) AS count, meterflow.value(meterflow.merge(s)) = (SELECT sum(n) FROM many) AS sum, meterflow.value(meterflow.merge(u)) AS "unique",
       abs(meterflow.value(meterflow.merge(uu)) / 5000 - 1) < 0.03 AS "unique~", meterflow.value(meterflow.merge(p), 0.95) = (SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY n) FROM many) AS p95,
       abs(meterflow.value(meterflow.merge(pp), 0.95) / meterflow.value(meterflow.merge(p), 0.95) - 1) <= 1 / 256.0 AS "p95~" FROM states;
RESET max_parallel_workers_per_gather;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
DROP TABLE many CASCADE;

-- The rollups are such states, too.
SET meterflow.tenant = 'aggregates';
SELECT meterflow.pause_worker();
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('sum', 'e', 'sum', 'n');
SELECT accepted FROM meterflow.ingest((SELECT json_agg(json_build_object('transaction_id', n, 'customer_id', 'c' || n % 3, 'event_name', 'e', 'properties', json_build_object('n', n))) FROM generate_series(1, 10) AS n));
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT customer_id, meterflow.value(meterflow.merge(state)) FROM meterflow.rollups WHERE tenant_id = 'aggregates' AND grain = 'h' GROUP BY 1 ORDER BY 1;

-- What is no state, or can't be used so, is refused.
SELECT 'abc'::meterflow.usage_state;
SELECT '\x'::meterflow.usage_state;
SELECT '\x01zz'::meterflow.usage_state;
SELECT '\x02010000'::meterflow.usage_state;
SELECT '\x01ff00'::meterflow.usage_state;
SELECT '\x0102'::meterflow.usage_state;
SELECT meterflow.value('\x0102'::bytea::meterflow.usage_state);
SELECT (total::text || '00')::meterflow.usage_state FROM kept LIMIT 1;
SELECT meterflow.aggregation('\xdeadbeef'::bytea::meterflow.usage_state);
SELECT meterflow.merge(s) FROM (SELECT total FROM kept UNION ALL SELECT people FROM kept) AS v (s);
SELECT meterflow.merge_states(total, spread) FROM kept LIMIT 1;
SELECT meterflow.value(spread) FROM kept LIMIT 1;
SELECT meterflow.value(spread, 95) FROM kept LIMIT 1;
SELECT meterflow.value(meterflow.weighted_sum_state(n, at)) FROM few;
SELECT meterflow.value(meterflow.weighted_sum_state(n, at), from_time => '2026-01-02', to_time => '2026-01-01') FROM few;
SELECT meterflow.sum_state('NaN');
SELECT meterflow.sum_state('Infinity');
SELECT meterflow.sum_state(1e60);
SELECT meterflow.value(meterflow.sum_state(n)) FROM (SELECT 5e52 FROM generate_series(1, 3)) AS v (n);
SELECT meterflow.sum_state(1e-30);
