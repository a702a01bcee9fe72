-- Operations: status, health and maintain, as an operator and a monitor meet them. Only what holds on any day is shown.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'operations';
SELECT meterflow.pause_worker();
SELECT accepted, duplicates, failed FROM meterflow.ingest('[]');
INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('calls', 'call', 'count');

-- maintain: each job, in order, as often as one likes.
SELECT job, outcome ~ '^ok(: \d+)?$' AS ok FROM meterflow.maintain();
SELECT job, outcome FROM meterflow.maintain() WHERE job <> 'rotate_dedup';
SELECT position, job, call, full_batch FROM meterflow.jobs();
SELECT job, last_finished > now() - interval '1 minute' AS ran, failures, last_finished >= last_started AS finished, next_run IS NULL AS by_hand FROM meterflow.job_status ORDER BY job COLLATE "C";
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM meterflow.maintain();
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT meterflow.fold();
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT meterflow.rotate_dedup();
ROLLBACK;

-- status: counters go up by what was done; what waits is said, and is gone after maintain().
CREATE TEMPORARY TABLE earlier AS SELECT name, value FROM meterflow.status();
SELECT accepted, duplicates, jsonb_array_length(failed) AS failed FROM meterflow.ingest('[{"transaction_id":"1","customer_id":"a","event_name":"call"},{"transaction_id":"2","customer_id":"a","event_name":"call"},
  {"transaction_id":"1","customer_id":"a","event_name":"call"},{"transaction_id":"3","customer_id":"a"}]');
INSERT INTO meterflow.inbox (event) VALUES ('{"transaction_id":"4","customer_id":"a","event_name":"call"}');
SELECT s.name, s.value::bigint - e.value::bigint AS more FROM meterflow.status() AS s JOIN earlier AS e USING (name) WHERE s.name IN ('accepted', 'duplicates', 'failed', 'rejected events kept', 'inbox waiting', 'pending batches');
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT s.name, s.value::bigint - e.value::bigint AS more FROM meterflow.status() AS s JOIN earlier AS e USING (name) WHERE s.name IN ('accepted', 'duplicates', 'failed', 'rejected events kept', 'inbox waiting', 'pending batches');
-- Its shape: a line for each thing there is to know.
SELECT name, CASE WHEN name IN ('pending batches', 'inbox waiting', 'dirty ranges', 'worker', 'oldest open ingest') OR name LIKE 'job %' THEN value END AS value, value IS NOT NULL AS has_value, detail IS NOT NULL AS has_detail FROM meterflow.status();
-- An open transaction that has ingested is named, but not one's own.
BEGIN;
SELECT accepted FROM meterflow.ingest('{"transaction_id":"5","customer_id":"a","event_name":"call"}');
SELECT count(*) FROM meterflow.fence_holders();
SELECT value FROM meterflow.status() WHERE name = 'oldest open ingest';
COMMIT;
BEGIN;
SELECT accepted FROM meterflow.ingest('{"transaction_id":"6","customer_id":"a","event_name":"call"}');
PREPARE TRANSACTION 'meterflow regress';
SELECT pid, prepared, since <= now() AS since FROM meterflow.fence_holders();
SELECT value FROM meterflow.status() WHERE name = 'oldest open ingest';
SELECT value FROM meterflow.usage('calls', now() - interval '1 hour', now() + interval '1 hour', 'a');
COMMIT PREPARED 'meterflow regress';
SELECT value FROM meterflow.usage('calls', now() - interval '1 hour', now() + interval '1 hour', 'a');

-- health: one boolean, and the reasons in words.
SELECT paused_by = pg_backend_pid() AS paused FROM meterflow.worker_session();
SELECT healthy, regexp_replace(array_to_string(reasons, E'\n'), '\d+', '#', 'g') AS reasons FROM meterflow.health();
-- A job that fails is a reason, and says how to find it; a lost race for a lock is none; the next good run clears it.
BEGIN;
UPDATE meterflow.job_status SET failures = 2, last_error = 'no space left', last_error_code = '53100', last_error_at = now() WHERE job = 'fold';
UPDATE meterflow.job_status SET failures = 1, last_error = 'canceling statement due to lock timeout', last_error_code = '55P03', last_error_at = now() WHERE job = 'apply_retention';
SELECT reason FROM meterflow.health(), unnest(reasons) AS reason WHERE reason NOT LIKE 'the worker is paused%';
SELECT name, value FROM meterflow.status() WHERE name LIKE 'job %';
SELECT count(*) FILTER (WHERE outcome LIKE 'error%') AS errors FROM meterflow.maintain();
SELECT name, value FROM meterflow.status() WHERE name LIKE 'job %';
ROLLBACK;
-- One job that fails does not stop the others, and its error is kept.
BEGIN;
ALTER TABLE meterflow.rejected_events ADD CONSTRAINT no_more CHECK (false) NOT VALID;
INSERT INTO meterflow.inbox (event) VALUES ('no event');
SELECT job, outcome !~ '^error' AS ok, substring(outcome FROM '^error [^"]*') AS error FROM meterflow.maintain();
SELECT job, failures, last_error_code FROM meterflow.job_status WHERE failures > 0;
SELECT count(*) AS still_there FROM meterflow.inbox;
ROLLBACK;
-- Old batches that no fold has taken, events that wait, days without a partition, a window that forgot its keys.
BEGIN;
UPDATE meterflow.fold_state SET folded_batch = folded_batch - 1;
UPDATE meterflow.batches SET recorded_at = now() - interval '2 hours' WHERE batch > (SELECT folded_batch FROM meterflow.fold_state);
INSERT INTO meterflow.inbox (event, received_at) VALUES ('{}', now() - interval '2 hours');
UPDATE meterflow.engine SET dedup_floor = now() - interval '10 days';
UPDATE meterflow.job_status SET last_finished = now() - interval '3 hours' WHERE job = 'rotate_dedup';
SELECT healthy, regexp_replace(reason, '\d\d+', '##', 'g') AS reason FROM meterflow.health(), unnest(reasons) AS reason WHERE reason NOT LIKE 'the worker is paused%';
ROLLBACK;

-- Partitions: those of today and the days ahead are there, and do not overlap.
SELECT count(*) FILTER (WHERE from_time <= now() AND to_time > now()) AS today, count(*) FILTER (WHERE from_time > now()) >= 3 AS ahead,
       count(*) FILTER (WHERE to_time <= from_time) AS empty FROM meterflow.event_partitions();
SELECT count(*) AS overlaps FROM meterflow.event_partitions() AS a JOIN meterflow.event_partitions() AS b ON a.from_time < b.from_time AND a.to_time > b.from_time;
SELECT meterflow.prepare_partitions();
-- The worker: which there is, and why.
SELECT meterflow.worker_mode(), meterflow.worker_mode('template1') <> '' AS other;

SELECT * FROM meterflow.verify();
