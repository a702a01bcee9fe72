-- Running meterflow: the jobs, how they are doing, and who may do what. Workers: src/worker/.

-- Not dumped: what jobs went through on another server says nothing here, and CREATE EXTENSION makes the rows anew.
CREATE TABLE meterflow.job_status (
  job              text PRIMARY KEY,
  last_started     timestamptz,
  last_finished    timestamptz,               -- of a run that went well
  last_error       text,
  last_error_code  text,
  last_error_at    timestamptz,
  failures         integer NOT NULL DEFAULT 0,
  next_run         timestamptz
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE meterflow.job_status IS 'How each background job is doing. A job that goes well is written down every 10 seconds, a failing one each time.';
COMMENT ON COLUMN meterflow.job_status.failures IS 'Failures in a row: 0 once the job works again; last_error stays to be read.';
COMMENT ON COLUMN meterflow.job_status.next_run IS 'When the worker runs it next; null when maintain() ran it last.';

-- The one list of jobs: maintain() and the worker run these, in this order: what locks events for the rest of the
-- transaction comes after what waits for writers, who may be waiting for that lock to make a partition. Each call returns how much it did, null
-- when another session is at it; a full batch (for fold: 1, true) means there is more to do at once.
CREATE FUNCTION meterflow.jobs(OUT "position" integer, OUT job text, OUT call text, OUT full_batch bigint, OUT every interval)
RETURNS SETOF record LANGUAGE sql STABLE PARALLEL SAFE ROWS 5
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT j.*
    FROM (SELECT coalesce(current_setting('meterflow.fold_interval', true), '1s')::interval) AS fold (every),
         LATERAL (VALUES
           (1, 'drain_inbox', 'SELECT meterflow.drain_inbox(10000)', 10000::bigint, fold.every),
           (2, 'fold', 'SELECT meterflow.fold(5000)::integer::bigint', 1, fold.every),
           (3, 'rotate_dedup', 'SELECT meterflow.rotate_dedup()::integer::bigint', NULL, interval '1 minute'),
           (4, 'bill_automatically', 'SELECT meterflow.bill_automatically()', 100, interval '1 minute'),
           (5, 'watch_grants', 'SELECT meterflow.watch_grants()', 1000, interval '1 minute'),
           (6, 'work_off_alerts', 'SELECT meterflow.work_off_alerts()', 100, fold.every),
           (7, 'trim_outbox', 'SELECT meterflow.trim_outbox()', 10000, interval '1 minute'),
           (8, 'apply_retention', 'SELECT meterflow.apply_retention()::bigint', NULL, interval '5 minutes'),
           (9, 'prepare_partitions', 'SELECT meterflow.prepare_partitions()::bigint', NULL, interval '1 minute')
         ) j (pos, job, call, full_batch, every)
   ORDER BY j.pos
$$;
COMMENT ON FUNCTION meterflow.jobs() IS 'The background jobs: what is called, how large a full batch is, and how often.';
INSERT INTO meterflow.job_status (job) SELECT job FROM meterflow.jobs();

CREATE FUNCTION meterflow.record_job(job text, phase text, took_seconds double precision, code text, error text,
                                     next_seconds double precision) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  started timestamptz := clock_timestamp() - make_interval(secs => took_seconds);
  next timestamptz := clock_timestamp() + make_interval(secs => next_seconds);
BEGIN
  -- Whoever holds the row is running the job, and writes down how it went: nothing to wait for.
  PERFORM FROM meterflow.job_status s WHERE s.job = record_job.job FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    INSERT INTO meterflow.job_status (job) VALUES (record_job.job) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      RETURN;
    END IF;
  END IF;
  IF phase = 'started' THEN
    -- Must outlive a crash (src/worker/database.rs), and must not wait for a standby.
    PERFORM set_config('synchronous_commit', 'local', true);
    -- A start without an end, left by the last worker, counts as a failure.
    UPDATE meterflow.job_status s
       SET failures = s.failures + 1, last_error_at = s.last_started, last_error_code = 'XX000',
           last_error = 'The server or the worker stopped while this job ran.'
     WHERE s.job = record_job.job AND s.last_started > greatest(s.last_finished, s.last_error_at, '-infinity');
    UPDATE meterflow.job_status s SET last_started = started WHERE s.job = record_job.job;
  ELSIF phase = 'finished' THEN
    UPDATE meterflow.job_status s
       SET last_started = started, last_finished = clock_timestamp(), failures = 0, next_run = next
     WHERE s.job = record_job.job;
  ELSE
    UPDATE meterflow.job_status s
       SET last_started = started, last_error = record_job.error, last_error_code = record_job.code,
           last_error_at = clock_timestamp(), failures = s.failures + 1, next_run = next
     WHERE s.job = record_job.job;
  END IF;
END $$;
COMMENT ON FUNCTION meterflow.record_job(text, text, double precision, text, text, double precision) IS
  'Internal: writes down that a job started, finished or failed.';

-- With its owner's rights: jobs attach and drop partitions, and an operator needs no more than EXECUTE on this.
CREATE FUNCTION meterflow.maintain() RETURNS TABLE (job text, outcome text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  todo record; began timestamptz;
  done bigint; total bigint; batches integer;
  code text; message text; detail text; hint text;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'maintain() can not run on a standby'
      USING ERRCODE = '25006', HINT = 'Run it on the primary. Reads are exact here, too.';
  END IF;
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'maintain() can not run in a % transaction', upper(current_setting('transaction_isolation'))
      USING ERRCODE = '25001', DETAIL = 'Folding must see what other transactions commit while it waits for them.',
            HINT = 'Call it outside a transaction block, or BEGIN ISOLATION LEVEL READ COMMITTED.';
  END IF;
  FOR todo IN SELECT * FROM meterflow.jobs() LOOP
    job := todo.job;
    began := clock_timestamp();
    BEGIN
      total := NULL;
      batches := 0;
      LOOP
        EXECUTE todo.call INTO done;
        total := coalesce(total + done, done, total);
        batches := batches + 1;
        EXIT WHEN done IS NULL OR done < coalesce(todo.full_batch, done + 1) OR batches = 100;
      END LOOP;
      outcome := CASE WHEN total IS NULL THEN 'left to another session'
                      ELSE 'ok' || CASE WHEN total > 0 AND todo.full_batch IS DISTINCT FROM 1 THEN ': ' || total ELSE '' END
                                || CASE WHEN done >= todo.full_batch THEN ', there is more: call it again' ELSE '' END END;
      code := NULL;
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
      message := concat_ws(E'\n', message, 'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, ''));
      outcome := format('error %s: %s', code, message);
    END;
    PERFORM meterflow.record_job(todo.job, CASE WHEN code IS NULL THEN 'finished' ELSE 'failed' END,
                                 extract(epoch FROM clock_timestamp() - began)::double precision, code, message, NULL);
    RETURN NEXT;
  END LOOP;
END $$;
COMMENT ON FUNCTION meterflow.maintain() IS
  'Does once, now, what the background worker does: partitions, inbox, folding, key rotation, billing, alerts, retention. A failing job doesn''t stop the others. Call it from cron on servers that don''t preload meterflow.';

CREATE FUNCTION meterflow.wake_worker() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'wake_worker_wrapper';
COMMENT ON FUNCTION meterflow.wake_worker() IS
  'Asks the launcher to start this database''s worker as soon as this transaction has committed; false when meterflow isn''t preloaded.';

CREATE FUNCTION meterflow.pause_worker() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pause_worker_wrapper';
COMMENT ON FUNCTION meterflow.pause_worker() IS
  'Keeps this database''s worker from starting jobs until this session ends, and waits for the one that runs. maintain() still works.';

CREATE FUNCTION meterflow.worker_mode(database text DEFAULT current_database()) RETURNS text
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'worker_mode_wrapper';
COMMENT ON FUNCTION meterflow.worker_mode(text) IS
  'Whether this server''s settings give the database a worker: expected, or not preloaded, standby, switched off, database not selected.';

-- Told from locks of a kind that no SQL function takes (src/pg/worker.rs): everybody may see them.
CREATE FUNCTION meterflow.worker_session(OUT pid integer, OUT paused_by integer)
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
  SELECT min(l.pid) FILTER (WHERE l.objid = 1), min(l.pid) FILTER (WHERE l.objid = 2 AND l.mode = 'ShareLock')
    FROM pg_locks l
   WHERE l.locktype = 'userlock' AND l.classid = 1835428983 AND l.granted
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
$$;
COMMENT ON FUNCTION meterflow.worker_session() IS 'Process id of this database''s worker, null when none runs, and of a session that has paused it.';

CREATE FUNCTION meterflow.fence_holders()
RETURNS TABLE (pid integer, prepared text, application_name text, state text, since timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
  SELECT l.pid, p.gid, nullif(a.application_name, ''), a.state, coalesce(p.prepared, a.xact_start)
    FROM pg_locks l
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    -- A prepared transaction has no process; it is known by the lock it holds on its own number.
    LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.virtualtransaction = l.virtualtransaction
                        AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock'
    LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
   WHERE l.locktype = 'relation' AND l.relation = 'meterflow.deltas'::regclass
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
     AND l.mode = 'RowExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
   ORDER BY 5 NULLS LAST
$$;
COMMENT ON FUNCTION meterflow.fence_holders() IS
  'Open transactions that have ingested: folding waits for them, the oldest first. Names and times show to members of pg_read_all_stats.';

CREATE FUNCTION meterflow.verify(meter_key text DEFAULT NULL, start_time timestamptz DEFAULT '-infinity', end_time timestamptz DEFAULT 'infinity')
RETURNS TABLE (problem text, meter_key text, customer_id text, group_key text, grain text, bucket timestamptz, expected text, found text)
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
  SELECT u.problem, u.meter_key, u.customer_id, u.group_key, u.grain, u.bucket, u.expected, u.found
    FROM meterflow.verify_usage($1, $2, $3) AS u
  UNION ALL
  SELECT b.problem, NULL, i.customer_id, NULL, NULL, i.bill_at, NULL, concat_ws(' ', 'invoice ' || coalesce(i.number, b.invoice_id::text) || ':', b.detail)
    FROM meterflow.verify_billing() AS b
    LEFT JOIN meterflow.invoices AS i ON i.tenant_id = meterflow.current_tenant() AND i.id = b.invoice_id
   WHERE $1 IS NULL
  UNION ALL
  SELECT l.problem, NULL, l.customer_id, NULL, NULL, NULL, NULL, l.detail FROM meterflow.verify_ledger() AS l WHERE $1 IS NULL;
END;
COMMENT ON FUNCTION meterflow.verify(text, timestamptz, timestamptz) IS
  'The audit. Usage is recomputed from raw events and compared with what is stored (verify_usage, for one meter and period if given); invoices, payments and credits with each other (verify_billing); the ledger of prepaid credit with itself (verify_ledger). No rows: all well.';

CREATE FUNCTION meterflow.event_partitions()
RETURNS TABLE (partition regclass, from_time timestamptz, to_time timestamptz, bytes bigint)
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
AS $$
  SELECT c.oid::regclass, b.parts[1]::timestamptz, b.parts[2]::timestamptz, pg_total_relation_size(c.oid)
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid,
         LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS b (parts)
   WHERE i.inhparent = 'meterflow.events'::regclass
   ORDER BY 2
$$;
COMMENT ON FUNCTION meterflow.event_partitions() IS 'Partitions of meterflow.events: the times they hold, [from, to), and their size with indexes.';

CREATE FUNCTION meterflow.status() RETURNS TABLE (name text, value text, detail text)
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
  WITH clock (t) AS (SELECT date_trunc('second', statement_timestamp())),
  young AS (SELECT count(*) AS batches, min(b.recorded_at) AS oldest, coalesce(sum(b.accepted), 0) AS accepted,
           coalesce(sum(b.duplicates), 0) AS duplicates, coalesce(sum(b.failed), 0) AS failed
      FROM meterflow.batches b WHERE b.batch > (SELECT f.folded_batch FROM meterflow.fold_state f)),
  pending AS (SELECT count(*) AS deltas FROM meterflow.deltas d WHERE d.batch > (SELECT f.folded_batch FROM meterflow.fold_state f)),
  -- Counted up to a limit, so that looking stays cheap when something has piled up.
  inbox AS (SELECT count(*) AS n, min(i.received_at) AS oldest FROM (SELECT received_at FROM meterflow.inbox LIMIT 100000) i),
  rejected AS (SELECT count(*) AS n, max(r.last_seen_at) AS latest FROM (SELECT last_seen_at FROM meterflow.rejected_events LIMIT 100000) r),
  partitions AS (SELECT count(*) AS n, min(p.from_time) AS first, max(p.to_time) AS last, coalesce(sum(p.bytes), 0) AS bytes
      FROM meterflow.event_partitions() p),
  outbox AS (SELECT count(*) AS n FROM (SELECT FROM meterflow.outbox LIMIT 100000) o),
  slowest AS (SELECT * FROM meterflow.outbox_waiting() LIMIT 1),
  generations AS (SELECT count(*) AS n, min(g.opened_at) AS oldest FROM meterflow.dedup_generations g),
  holder AS (SELECT * FROM meterflow.fence_holders() LIMIT 1),
  worker AS (SELECT w.pid, w.paused_by, meterflow.worker_mode() AS mode FROM meterflow.worker_session() w)
  SELECT l.name, l.value, l.detail
    FROM clock, young, pending, inbox, rejected, partitions, outbox, generations, worker,
         meterflow.fold_state f CROSS JOIN meterflow.engine e LEFT JOIN holder h ON true LEFT JOIN slowest ON true,
         LATERAL (VALUES
           (1, 'accepted', (f.accepted + young.accepted)::text, 'events, since the extension was created'),
           (2, 'duplicates', (f.duplicates + young.duplicates)::text, NULL),
           (3, 'failed', (f.failed + young.failed)::text, NULL),
           (4, 'rejected events kept', rejected.n || CASE rejected.n WHEN 100000 THEN ' or more' ELSE '' END,
               'the last at ' || rejected.latest),
           (5, 'inbox waiting', inbox.n || CASE inbox.n WHEN 100000 THEN ' or more' ELSE '' END,
               'the oldest since ' || inbox.oldest),
           (6, 'pending batches', young.batches::text, pending.deltas || ' delta rows'),
           (7, 'fold lag', greatest(clock.t - date_trunc('second', young.oldest), interval '0')::text, 'age of the oldest batch not folded; reads include it'),
           (8, 'last fold', date_trunc('second', f.folded_at)::text, f.folds || ' folds, up to batch ' || f.folded_batch),
           (9, 'oldest open ingest', coalesce('pid ' || h.pid, 'prepared transaction ' || quote_literal(h.prepared)),
               concat_ws(', ', h.application_name, h.state, 'for ' || (clock.t - date_trunc('second', h.since)))),
           (10, 'dirty ranges', (SELECT count(*)::text FROM meterflow.dirty_ranges), 'read from raw events until rebuilt'),
           (11, 'event partitions', partitions.n::text,
                partitions.first || ' to ' || partitions.last || ', ' || pg_size_pretty(partitions.bytes)),
           (12, 'dedup generations', generations.n::text,
                format('%s; keys kept since %s', e.generation_phase, date_trunc('second', greatest(e.dedup_floor, generations.oldest)))),
           (13, 'outbox messages', outbox.n || CASE outbox.n WHEN 100000 THEN ' or more' ELSE '' END,
                'consumer ' || slowest.consumer || ' of tenant ' || slowest.tenant_id || ' has some since ' || date_trunc('second', slowest.since)),
           (14, 'worker', CASE WHEN worker.paused_by IS NOT NULL THEN 'paused' WHEN worker.pid IS NOT NULL THEN 'running' ELSE 'not running' END,
                coalesce('by pid ' || worker.paused_by, 'pid ' || worker.pid, CASE worker.mode WHEN 'expected' THEN 'starting, or failing: see the server log'
                  WHEN 'standby' THEN 'standby: the primary does the work' ELSE worker.mode || ': call meterflow.maintain()' END))
         ) l (pos, name, value, detail)
  UNION ALL
  SELECT * FROM (
    SELECT 'job ' || j.job,
           CASE WHEN s.failures > 0 AND s.last_error_code = '55P03' THEN 'waiting for a lock' WHEN s.failures > 0 THEN format('failing, %s in a row', s.failures)
                WHEN s.last_finished IS NULL THEN 'never ran' ELSE 'ok' END,
           concat_ws('; ', 'last ran ' || date_trunc('second', s.last_finished),
                     'error ' || s.last_error_code || ' at ' || date_trunc('second', s.last_error_at) || ': ' || s.last_error,
                     CASE WHEN s.failures > 0 AND s.next_run > statement_timestamp() THEN 'next try ' || date_trunc('second', s.next_run) END)
      FROM meterflow.jobs() j LEFT JOIN meterflow.job_status s USING (job)
     ORDER BY j.position) jobs
$$;
COMMENT ON FUNCTION meterflow.status() IS 'What there is to know at a glance: counters, what waits to be folded and for whom, storage, worker and jobs.';

CREATE FUNCTION meterflow.health(OUT healthy boolean, OUT reasons text[])
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- A fold a second is usual; a minute's tail is still read in milliseconds, an hour's is not.
  max_lag constant interval := '1 minute';
  -- First, because it loads the library and with it the settings' real values.
  mode constant text := meterflow.worker_mode();
  clock constant timestamptz := statement_timestamp();
  state meterflow.fold_state;
  floor timestamptz; oldest timestamptz; last timestamptz;
  way_out constant text := CASE mode WHEN 'not preloaded' THEN 'add meterflow to shared_preload_libraries, or call meterflow.maintain() from cron'
    WHEN 'expected' THEN 'see the server log' WHEN 'standby' THEN 'look at the primary' ELSE 'call meterflow.maintain() from cron' END;
  holder record; worker record; job record;
BEGIN
  reasons := '{}';
  SELECT * INTO state FROM meterflow.fold_state;
  SELECT e.dedup_floor INTO floor FROM meterflow.engine e;

  SELECT min(b.recorded_at) INTO oldest FROM meterflow.batches b WHERE b.batch > state.folded_batch;
  IF clock - oldest > max_lag THEN
    SELECT * INTO holder FROM meterflow.fence_holders() h WHERE h.since IS NULL OR clock - h.since > interval '5 seconds' LIMIT 1;
    reasons := reasons || format('folding is %s behind: reads stay exact but get slower%s', date_trunc('second', clock - oldest),
      CASE WHEN holder.prepared IS NOT NULL
             THEN format('; it waits for prepared transaction %L: commit it or roll it back', holder.prepared)
           WHEN holder.pid IS NOT NULL
             THEN format('; it waits for pid %s (%s), whose transaction is open for %s: pg_terminate_backend(%1$s) ends it',
                         holder.pid, concat_ws(', ', holder.application_name, holder.state),
                         coalesce(date_trunc('second', clock - holder.since)::text, 'a time you may not see'))
           ELSE '' END);
  END IF;

  SELECT min(i.received_at) INTO oldest FROM (SELECT received_at FROM meterflow.inbox LIMIT 1000) i;
  IF clock - oldest > max_lag THEN
    reasons := reasons || format('events wait in the inbox for %s', date_trunc('second', clock - oldest));
  END IF;

  -- Losing a race for a lock is nothing, unless it goes on.
  FOR job IN SELECT * FROM meterflow.job_status s
              WHERE s.failures > 0 AND (s.last_error_code NOT IN ('55P03', '40001', '40P01') OR clock - s.last_finished > max_lag) ORDER BY s.job LOOP
    reasons := reasons || format('job %s fails (%s in a row): %s', job.job, job.failures, split_part(job.last_error, E'\n', 1));
  END LOOP;

  SELECT count(*) AS n, min(f.message) AS message INTO job FROM meterflow.billing_failures f;
  IF job.n > 0 THEN
    reasons := reasons || format('invoices of %s customers can not be made, see meterflow.billing_failures: %s', job.n, job.message);
  END IF;

  SELECT count(*) AS n, min(s.error) AS message INTO job FROM meterflow.alert_states s WHERE s.error IS NOT NULL;
  IF job.n > 0 THEN
    reasons := reasons || format('%s alerts can not be evaluated, see meterflow.alert_states: %s', job.n, job.message);
  END IF;

  FOR job IN SELECT * FROM meterflow.outbox_waiting() w
              WHERE clock - w.since > coalesce(current_setting('meterflow.outbox_retention', true), '1 day')::interval + max_lag LOOP
    reasons := reasons || format('consumer %L of tenant %L has left messages since %s, which are kept for it: let it read, or delete it from meterflow.outbox_consumers',
                                 job.consumer, job.tenant_id, date_trunc('second', job.since));
  END LOOP;

  SELECT * INTO worker FROM meterflow.worker_session();
  IF mode = 'expected' AND worker.pid IS NULL THEN
    reasons := reasons || 'the worker is not running: see the server log, and max_worker_processes'::text;
  ELSIF worker.paused_by IS NOT NULL THEN
    reasons := reasons || format('the worker is paused until the session of pid %s ends', worker.paused_by);
  END IF;

  IF mode <> 'standby' THEN
    SELECT string_agg(s.job, ', ' ORDER BY j.position) AS names, min(s.last_finished) AS since INTO job
      FROM meterflow.jobs() j JOIN meterflow.job_status s USING (job)
     WHERE s.failures = 0
       AND coalesce(clock - s.last_finished > greatest(10 * j.every, interval '10 minutes'), worker.pid IS NULL);
    IF job.names IS NOT NULL THEN
      reasons := reasons || format('%s: not run %s; %s', job.names, coalesce('since ' || date_trunc('second', job.since), 'yet'), way_out);
    END IF;
  END IF;

  SELECT max(p.to_time) INTO last FROM meterflow.event_partitions() p;
  IF last IS NULL OR last < clock + coalesce(current_setting('meterflow.partition_interval', true), '1 day')::interval THEN
    reasons := reasons || format('partitions for coming events %s; %s', coalesce('reach to ' || last || ' only', 'are not made yet'), way_out);
  END IF;

  oldest := clock - coalesce(current_setting('meterflow.backdate_window', true), '34 days')::interval;
  IF floor > oldest THEN
    reasons := reasons || format('events before %s are refused although meterflow.backdate_window reaches back to %s: their keys were forgotten while the window was shorter',
      date_trunc('second', floor), date_trunc('second', oldest));
  END IF;

  healthy := reasons = '{}';
END $$;
COMMENT ON FUNCTION meterflow.health() IS 'Whether all is well, and if not, what is wrong and what to do, in plain words. For monitoring.';

CREATE FUNCTION meterflow.grant_access(role regrole, access text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  grantee constant text := role::text;
  item record; public_columns text;
BEGIN
  IF access IS NULL OR access NOT IN ('ingest', 'read', 'consume', 'admin', 'none') THEN
    RAISE EXCEPTION 'unknown access %', coalesce(quote_literal(access), 'null')
      USING ERRCODE = '22023', HINT = 'Access is ''ingest'', ''read'', ''consume'', ''admin'', or ''none'' to take all of it back.';
  END IF;
  IF role IS NULL THEN
    RAISE EXCEPTION 'grant_access needs a role' USING ERRCODE = '22004', HINT = 'Name one: SELECT meterflow.grant_access(''billing_app'', ''ingest'').';
  END IF;
  -- Attaching a partition writes the same catalogue row as a grant on events.
  LOCK TABLE meterflow.events IN SHARE UPDATE EXCLUSIVE MODE;
  IF access <> 'none' THEN
    EXECUTE format('GRANT USAGE ON SCHEMA meterflow TO %s', grantee);
  END IF;
  IF access = 'ingest' THEN
    -- The verbs ask for INSERT on the inbox and keep their own books as the owner of the tables.
    EXECUTE format('GRANT INSERT ON meterflow.inbox TO %s', grantee);
  ELSIF access = 'consume' THEN
    EXECUTE format('GRANT SELECT ON meterflow.outbox, meterflow.outbox_id_seq TO %s', grantee);
    EXECUTE format('GRANT SELECT, UPDATE (taken, done) ON meterflow.outbox_consumers TO %s', grantee);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON meterflow.outbox_deliveries TO %s', grantee);
  END IF;
  -- Members of the extension only: partitions and key generations are reached through their parents.
  FOR item IN
    SELECT c.oid::regclass::text AS name, c.relkind AS kind, NULL::text AS function, NULL::"char" AS volatility
      FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
     WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
       AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT x.oid FROM pg_extension x WHERE x.extname = 'meterflow')
    UNION ALL
    SELECT p.oid::regprocedure::text, 'f', p.proname, p.provolatile
      FROM pg_proc p WHERE p.pronamespace = 'meterflow'::regnamespace AND p.prokind IN ('f', 'p')
  LOOP
    IF access = 'none' THEN
      EXECUTE format('REVOKE ALL ON %s %s FROM %s', CASE item.kind WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'ROUTINE' ELSE 'TABLE' END, item.name, grantee);
    ELSIF item.kind = 'f' THEN
      IF access = 'admin' OR (access = 'read' AND item.volatility <> 'v')
         OR (access = 'ingest' AND item.function IN ('ingest', 'ingest_rows', 'ingest_text_rows', 'ingest_within', 'void_event', 'amend_event', 'current_tenant'))
         OR (access = 'consume' AND item.function IN ('outbox_read', 'outbox_take', 'outbox_horizon', 'outbox_ack', 'outbox_nack', 'consumer_done', 'current_tenant')) THEN
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', item.name, grantee);
      END IF;
    ELSIF item.kind = 'S' THEN
      IF access = 'admin' THEN
        EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %s TO %s', item.name, grantee);
      END IF;
    ELSIF access = 'admin' THEN
      EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO %s', item.name, grantee);
    ELSIF access = 'read' AND item.name = 'meterflow.engine' THEN
      -- Not the secret: who knows it can make keys that collide.
      SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO public_columns FROM pg_attribute a
       WHERE a.attrelid = 'meterflow.engine'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'secret';
      EXECUTE format('GRANT SELECT (%s) ON TABLE meterflow.engine TO %s', public_columns, grantee);
    ELSIF access = 'read' THEN
      EXECUTE format('GRANT SELECT ON TABLE %s TO %s', item.name, grantee);
    END IF;
  END LOOP;
  IF access = 'none' THEN
    EXECUTE format('REVOKE ALL ON SCHEMA meterflow FROM %s', grantee);
  END IF;
END $$;
COMMENT ON FUNCTION meterflow.grant_access(regrole, text) IS
  'Gives a role what it needs: ''ingest'' to send and correct events, ''read'' to see everything but the hash secret, ''consume'' to read the outbox as the consumers that there are, ''admin'' to configure, bill and maintain; ''none'' takes it back. Repeat it after ALTER EXTENSION meterflow UPDATE.';

-- What changes state is nobody's until granted. Everything else stays PUBLIC: it computes, or sees no more than its
-- caller may read. Upgrade scripts end with this call, and so does any file after this one that makes such a function.
CREATE FUNCTION meterflow.revoke_public() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE item record;
BEGIN
  FOR item IN SELECT p.oid::regprocedure AS name FROM pg_proc p
               WHERE p.pronamespace = 'meterflow'::regnamespace AND p.provolatile = 'v' AND p.prokind IN ('f', 'p') LOOP
    EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', item.name);
  END LOOP;
END $$;
COMMENT ON FUNCTION meterflow.revoke_public() IS 'Internal: takes state-changing functions from PUBLIC; the last word of install and upgrade scripts.';
DO $$ BEGIN PERFORM meterflow.revoke_public(); END $$;

-- A server that preloads meterflow starts the worker when this transaction has committed; but not into a restore, which
-- has only begun: its session (every dump turns row_security off) pauses the worker until it ends.
DO $$ BEGIN
  IF current_setting('row_security') = 'off' THEN
    PERFORM meterflow.pause_worker();
  END IF;
  PERFORM meterflow.wake_worker();
END $$;
