-- Events, their keys, and the doors they come in by.

CREATE TABLE meterflow.events (
  timestamp       timestamptz NOT NULL,
  seq             bigint      NOT NULL,
  tenant_id       text COLLATE "C" NOT NULL,
  customer_id     text COLLATE "C" NOT NULL,
  event_name      text COLLATE "C" NOT NULL,
  source          text COLLATE "C" NOT NULL,
  transaction_id  text COLLATE "C" NOT NULL,
  properties      jsonb       NOT NULL
) PARTITION BY RANGE (timestamp);
COMMENT ON TABLE meterflow.events IS 'Accepted usage events as sent, partitioned by timestamp; never updated. A voided event stays and is named in event_corrections.';
-- Each partition has an index of its own on (customer_id, timestamp), made with it; the tenant is left to a filter, for
-- one more column to compare is a tenth of the time of ingest. Not one of the parent's:
-- pg_restore attaches partitions before it makes their indexes, and would find those made already.
COMMENT ON COLUMN meterflow.events.seq IS 'Unique arrival number: batch * 65536 + position in the batch.';

-- The number of a batch is drawn after its transaction holds the write fence; src/rollup/fold.rs needs that order.
CREATE SEQUENCE meterflow.batch_seq CACHE 1;
CREATE TABLE meterflow.batches (
  batch           bigint PRIMARY KEY,
  tenant_id       text COLLATE "C" NOT NULL,
  recorded_at     timestamptz NOT NULL,
  accepted        integer NOT NULL,
  duplicates      integer NOT NULL,
  failed          integer NOT NULL
) USING heap;
-- Batches are numbered by the database, not the tenant: folding takes them in that order.
COMMENT ON TABLE meterflow.batches IS 'One row per ingested batch: when it was recorded (events.seq >> 16 = batch) and how it ended.';

-- Parent of the key generations, which inherit from it; it stays empty. Writers hold RowExclusiveLock on it.
CREATE TABLE meterflow.dedup_keys (
  key      uuid   NOT NULL,
  payload  bigint NOT NULL,
  at       timestamptz NOT NULL
) USING heap;
COMMENT ON TABLE meterflow.dedup_keys IS 'Keyed 128-bit hash of (tenant, source, transaction_id) of every accepted event in the dedup window, with a hash of what was sent and the time it was stored under.';
CREATE TABLE meterflow.dedup_generations (
  generation  integer PRIMARY KEY,
  opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  closed_at   timestamptz,
  -- Latest time of an event in it, known once closed: nothing up to then may be accepted once it is dropped.
  last_at     timestamptz,
  -- Bounds of the keys with a time prefix, known once closed: lets probes for time-ordered ids skip it.
  min_timed   uuid,
  max_timed   uuid
) USING heap;
COMMENT ON TABLE meterflow.dedup_generations IS 'Key tables dedup_keys_N by the time their keys were accepted; dropped when no event that old can be accepted again.';
INSERT INTO meterflow.dedup_generations (generation) VALUES (1);
CREATE FUNCTION meterflow.replace_initial_generation() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM meterflow.dedup_generations WHERE generation = NEW.generation;
  RETURN NEW;
END $$;
CREATE TRIGGER replace_initial_generation BEFORE INSERT ON meterflow.dedup_generations
  FOR EACH ROW EXECUTE FUNCTION meterflow.replace_initial_generation();
CREATE TABLE meterflow.dedup_keys_1 () INHERITS (meterflow.dedup_keys) USING heap;
COMMENT ON TABLE meterflow.dedup_keys_1 IS 'The first generation of keys.';
CREATE UNIQUE INDEX dedup_keys_1_key ON meterflow.dedup_keys_1 (key);

COMMENT ON FUNCTION meterflow.replace_initial_generation() IS 'Trigger: a restored generation replaces the one CREATE EXTENSION made.';
COMMENT ON TRIGGER replace_initial_generation ON meterflow.dedup_generations IS 'For pg_restore.';

CREATE TABLE meterflow.event_corrections (
  tenant_id       text COLLATE "C" NOT NULL,
  seq             bigint NOT NULL,          -- the event taken back
  timestamp       timestamptz NOT NULL,     -- its time, so that joins can prune partitions
  replaced_by     bigint,                   -- events.seq of the amended event, null for a void
  replaced_at     timestamptz,              -- and its time
  batch           bigint NOT NULL,
  transaction_id  text COLLATE "C" NOT NULL,
  source          text COLLATE "C" NOT NULL,
  reason          text NOT NULL CHECK (reason <> ''),
  corrected_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  corrected_by    text NOT NULL DEFAULT session_user,
  PRIMARY KEY (tenant_id, seq)
) USING heap;
CREATE INDEX event_corrections_transaction_idx ON meterflow.event_corrections (tenant_id, transaction_id);
COMMENT ON TABLE meterflow.event_corrections IS 'Voided and amended events: who took them back, when, why, and what replaced them.';

CREATE TABLE meterflow.rejected_events (
  tenant_id       text COLLATE "C" NOT NULL,
  id              bigint GENERATED ALWAYS AS IDENTITY,
  fingerprint     uuid NOT NULL,            -- of (event, code): a client's retry counts up instead of piling up
  code            text NOT NULL,
  message         text NOT NULL,
  transaction_id  text,
  event           text NOT NULL,
  times           bigint NOT NULL DEFAULT 1,
  rejected_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  last_seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, fingerprint)
) USING heap;
COMMENT ON TABLE meterflow.rejected_events IS 'Events that failed, as they came. Repair the event column, then retry_rejected().';

CREATE TABLE meterflow.inbox (
  event        text NOT NULL,
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  received_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) USING heap;
COMMENT ON TABLE meterflow.inbox IS 'Asynchronous door: COPY meterflow.inbox (event) FROM ...; one JSON event or array a line, drained by the worker or maintain().';

CREATE FUNCTION meterflow.inbox_filled() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'inbox_filled';
COMMENT ON FUNCTION meterflow.inbox_filled() IS 'Trigger: the worker looks into the inbox as soon as the transaction has committed.';
CREATE TRIGGER inbox_filled AFTER INSERT ON meterflow.inbox
  FOR EACH STATEMENT EXECUTE FUNCTION meterflow.inbox_filled();
COMMENT ON TRIGGER inbox_filled ON meterflow.inbox IS 'Wakes the worker, where there is one.';

-- First sight of a group of a meter. Only appended to and counted; see src/ingest/groups.rs.
CREATE TABLE meterflow.meter_groups (
  tenant_id  text COLLATE "C" NOT NULL,
  meter_id   integer NOT NULL,
  group_key  text COLLATE "C" NOT NULL
) USING heap;
CREATE INDEX meter_groups_idx ON meterflow.meter_groups (tenant_id, meter_id);
COMMENT ON TABLE meterflow.meter_groups IS 'Groups seen per meter, which bounds a dimension explosion by meterflow.max_groups.';

CREATE FUNCTION meterflow.ingest(events json, tenant_id text DEFAULT NULL)
RETURNS TABLE (accepted integer, duplicates integer, failed jsonb)
LANGUAGE c VOLATILE ROWS 1 PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_wrapper';
COMMENT ON FUNCTION meterflow.ingest(json, text) IS
  'Accepts an event or an array of events in the caller''s transaction. Each is accepted, a duplicate, or listed in failed as {index, transaction_id, code, message}.';

-- The properties as text: numbers in them must not pass through anything but the ingest parser.
CREATE FUNCTION meterflow.ingest_text_rows(transaction_ids text[], customer_ids text[], event_names text[],
                                           timestamps timestamptz[], properties text[],
                                           sources text[] DEFAULT NULL, tenant_id text DEFAULT NULL)
RETURNS TABLE (accepted integer, duplicates integer, failed jsonb)
LANGUAGE c VOLATILE ROWS 1 PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ingest_text_rows_wrapper';
COMMENT ON FUNCTION meterflow.ingest_text_rows(text[], text[], text[], timestamptz[], text[], text[], text) IS
  'ingest_rows() with properties as JSON text, which saves building jsonb first.';

CREATE FUNCTION meterflow.ingest_rows(transaction_ids text[], customer_ids text[], event_names text[],
                                      timestamps timestamptz[], properties jsonb[],
                                      sources text[] DEFAULT NULL, tenant_id text DEFAULT NULL)
RETURNS TABLE (accepted integer, duplicates integer, failed jsonb)
LANGUAGE sql VOLATILE ROWS 1 PARALLEL UNSAFE
BEGIN ATOMIC
  SELECT * FROM meterflow.ingest_text_rows(transaction_ids, customer_ids, event_names, timestamps, properties::text[], sources, tenant_id);
END;
COMMENT ON FUNCTION meterflow.ingest_rows(text[], text[], text[], timestamptz[], jsonb[], text[], text) IS
  'ingest() for drivers that bind arrays: one element an event, all arrays of one length.';

-- The rows taken are deleted by their ctids. A plan made while the inbox is small, as it is when a worker starts, would
-- read the whole table instead and compare each row with each of ten thousand ctids.
CREATE FUNCTION meterflow.drain_inbox(max_rows integer DEFAULT 10000) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE STRICT SET enable_seqscan = off AS 'MODULE_PATHNAME', 'drain_inbox_wrapper';
COMMENT ON FUNCTION meterflow.drain_inbox(integer) IS 'Moves up to max_rows inbox rows through ingest; returns how many it took.';

CREATE FUNCTION meterflow.retry_rejected(ids bigint[] DEFAULT NULL)
RETURNS TABLE (accepted integer, duplicates integer, failed jsonb)
LANGUAGE c VOLATILE ROWS 1 PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_rejected_wrapper';
COMMENT ON FUNCTION meterflow.retry_rejected(bigint[]) IS
  'Sends rejected events (those ids, or all) of the current tenant through ingest again; those accepted or found duplicate leave rejected_events.';

CREATE FUNCTION meterflow.void_event(transaction_id text, reason text, source text DEFAULT '') RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'void_event_wrapper';
COMMENT ON FUNCTION meterflow.void_event(text, text, text) IS
  'Takes an accepted event out of all usage; it stays in events and its key stays used. Returns its seq. Voiding it again changes nothing.';

CREATE FUNCTION meterflow.amend_event(transaction_id text, event json, reason text, source text DEFAULT '') RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'amend_event_wrapper';
COMMENT ON FUNCTION meterflow.amend_event(text, json, text, text) IS
  'Replaces an accepted event: voids it and stores the fields given over its own. Returns the seq of the new event.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.events', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.batch_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.batches', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.dedup_keys', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.dedup_keys_1', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.dedup_generations', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.event_corrections', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.rejected_events', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.rejected_events_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.inbox', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.meter_groups', '');
