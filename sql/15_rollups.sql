-- Usage states, and the tables that carry them from the ingest transaction to the ladder of rollups.

CREATE TYPE meterflow.usage_state;
CREATE FUNCTION meterflow.usage_state_in(cstring) RETURNS meterflow.usage_state
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_state_in_wrapper';
CREATE FUNCTION meterflow.usage_state_out(meterflow.usage_state) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'usage_state_out_wrapper';
CREATE FUNCTION meterflow.usage_state_recv(internal) RETURNS meterflow.usage_state
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bytearecv'; -- any bytes are safe to hold: every use decodes them
CREATE FUNCTION meterflow.usage_state_send(meterflow.usage_state) RETURNS bytea
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteasend';
COMMENT ON FUNCTION meterflow.usage_state_in(cstring) IS 'Reads the text form and checks it.';
COMMENT ON FUNCTION meterflow.usage_state_out(meterflow.usage_state) IS 'Writes the text form.';
COMMENT ON FUNCTION meterflow.usage_state_recv(internal) IS 'Reads the binary form.';
COMMENT ON FUNCTION meterflow.usage_state_send(meterflow.usage_state) IS 'Writes the binary form.';
CREATE TYPE meterflow.usage_state (
  INPUT = meterflow.usage_state_in, OUTPUT = meterflow.usage_state_out,
  RECEIVE = meterflow.usage_state_recv, SEND = meterflow.usage_state_send,
  INTERNALLENGTH = VARIABLE, STORAGE = extended, ALIGNMENT = int4
);
CREATE CAST (bytea AS meterflow.usage_state) WITHOUT FUNCTION;
CREATE CAST (meterflow.usage_state AS bytea) WITHOUT FUNCTION;
COMMENT ON TYPE meterflow.usage_state IS 'A partial aggregate: merge() combines states in any order and grouping, value() finishes one. Text form is hex of the stored bytes.';

CREATE FUNCTION meterflow.merge_states(meterflow.usage_state, meterflow.usage_state) RETURNS meterflow.usage_state
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'merge_states_wrapper';
COMMENT ON FUNCTION meterflow.merge_states(meterflow.usage_state, meterflow.usage_state) IS 'The two states as one; an error when they are of different aggregations.';

-- Deltas: what each batch adds to usage, some customers to a row, appended in the ingest transaction.
-- Four slots take turns so that folded deltas can be dropped whole (src/rollup/slots.rs).
CREATE TABLE meterflow.deltas (
  batch        bigint   NOT NULL,
  bucket       smallint NOT NULL,            -- of the hash of (tenant_id, customer_id)
  tenant_id    text COLLATE "C" NOT NULL,
  entries      bytea    NOT NULL            -- packed customers, meters, hours, groups and states: src/core/delta.rs
) USING heap;
COMMENT ON TABLE meterflow.deltas IS 'Parent of the delta slots; stays empty. Writers hold RowExclusiveLock on it: the write fence.';
CREATE TABLE meterflow.deltas_0 () INHERITS (meterflow.deltas) USING heap;
CREATE TABLE meterflow.deltas_1 () INHERITS (meterflow.deltas) USING heap;
CREATE TABLE meterflow.deltas_2 () INHERITS (meterflow.deltas) USING heap;
CREATE TABLE meterflow.deltas_3 () INHERITS (meterflow.deltas) USING heap;
COMMENT ON TABLE meterflow.deltas_0 IS 'Delta slot 0.';
COMMENT ON TABLE meterflow.deltas_1 IS 'Delta slot 1.';
COMMENT ON TABLE meterflow.deltas_2 IS 'Delta slot 2.';
COMMENT ON TABLE meterflow.deltas_3 IS 'Delta slot 3.';
CREATE INDEX deltas_0_idx ON meterflow.deltas_0 (bucket, batch);
CREATE INDEX deltas_1_idx ON meterflow.deltas_1 (bucket, batch);
CREATE INDEX deltas_2_idx ON meterflow.deltas_2 (bucket, batch);
CREATE INDEX deltas_3_idx ON meterflow.deltas_3 (bucket, batch);

CREATE TABLE meterflow.delta_slots (
  slot          smallint PRIMARY KEY CHECK (slot BETWEEN 0 AND 3),
  -- Transaction that named the next slot in its place; null while open or empty.
  left_xid      xid8,
  -- Highest batch the slot could hold when it was closed.
  closed_batch  bigint,
  -- Transaction that folded the last of it: the slot is emptied once no snapshot is older.
  folded_xid    xid8,
  -- Highest batch ever emptied from here: a snapshot with an older fold_state can't be answered any more.
  emptied_batch bigint NOT NULL DEFAULT 0
) USING heap;
COMMENT ON TABLE meterflow.delta_slots IS 'State of the four delta slots.';
INSERT INTO meterflow.delta_slots (slot) SELECT generate_series(0, 3);
CREATE FUNCTION meterflow.replace_initial_slot() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM meterflow.delta_slots WHERE slot = NEW.slot;
  -- Transaction numbers mean nothing in another cluster: emptying waits for the next fold there.
  NEW.folded_xid := NULL;
  NEW.left_xid := NULL;
  RETURN NEW;
END $$;
CREATE TRIGGER replace_initial_slot BEFORE INSERT ON meterflow.delta_slots
  FOR EACH ROW EXECUTE FUNCTION meterflow.replace_initial_slot();

COMMENT ON FUNCTION meterflow.replace_initial_slot() IS 'Trigger: a restored slot replaces the one CREATE EXTENSION made.';
COMMENT ON TRIGGER replace_initial_slot ON meterflow.delta_slots IS 'For pg_restore.';

CREATE TABLE meterflow.rollups (
  tenant_id    text COLLATE "C" NOT NULL,
  meter_id     integer NOT NULL,
  grain        "char"  NOT NULL CHECK (grain IN ('h', 'd', 'm')),
  customer_id  text COLLATE "C" NOT NULL,
  bucket       timestamptz NOT NULL,         -- start of the UTC hour, day or month
  group_key    text COLLATE "C" NOT NULL,    -- JSON array of the dimension values, '' without dimensions
  part         integer NOT NULL,             -- large sets are kept in several rows; see src/rollup/fold.rs
  state        meterflow.usage_state NOT NULL,
  PRIMARY KEY (tenant_id, meter_id, grain, customer_id, bucket, group_key, part)
) USING heap WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE meterflow.rollups IS 'Usage per meter version, customer, group and hour/day/month of everything folded; deltas after fold_state.folded_batch come on top.';

-- What rollups can't answer for now: readers take these ranges from raw events, the folder rebuilds them.
CREATE TABLE meterflow.dirty_ranges (
  tenant_id    text COLLATE "C" NOT NULL,
  id           bigint GENERATED ALWAYS AS IDENTITY,
  meter_id     integer NOT NULL,
  customer_id  text COLLATE "C",             -- null: all customers
  from_time    timestamptz NOT NULL,         -- whole hours, or infinite
  to_time      timestamptz NOT NULL,
  batch        bigint NOT NULL,
  PRIMARY KEY (tenant_id, id),
  CHECK (from_time < to_time)
) USING heap;
CREATE INDEX dirty_ranges_idx ON meterflow.dirty_ranges (tenant_id, meter_id);
COMMENT ON TABLE meterflow.dirty_ranges IS 'Buckets to rebuild from raw events: a new meter''s past, a changed meter''s present, a min or max whose event was voided.';

CREATE FUNCTION meterflow.mark_dirty(tenant_id text, meter_id integer, customer_id text,
                                     from_time timestamptz, to_time timestamptz, batch bigint) RETURNS void
LANGUAGE sql VOLATILE
BEGIN ATOMIC
  INSERT INTO meterflow.dirty_ranges (tenant_id, meter_id, customer_id, from_time, to_time, batch)
  SELECT mark_dirty.tenant_id, mark_dirty.meter_id, mark_dirty.customer_id, lo, hi, mark_dirty.batch
    FROM (SELECT greatest(CASE WHEN isfinite(mark_dirty.from_time) THEN date_trunc('hour', mark_dirty.from_time, 'UTC') ELSE mark_dirty.from_time END,
                          CASE WHEN mark_dirty.customer_id IS NULL THEN s.raw_floor ELSE '-infinity' END) AS lo,
                 CASE WHEN NOT isfinite(mark_dirty.to_time) THEN mark_dirty.to_time
                      ELSE date_trunc('hour', mark_dirty.to_time + interval '1 hour - 1 microsecond', 'UTC') END AS hi
            FROM meterflow.fold_state s) r
   WHERE lo < hi;
END;
COMMENT ON FUNCTION meterflow.mark_dirty(text, integer, text, timestamptz, timestamptz, bigint) IS
  'Internal: from now on reads of the range use raw events, until the folder has rebuilt it. What retention dropped stays as it was rolled up; a correction under way is not cut, for its event is still there.';

-- Empties a slot that no snapshot needs; false when a reader is in it just now.
CREATE FUNCTION meterflow.empty_slot(slot smallint) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('LOCK TABLE meterflow.%I IN ACCESS EXCLUSIVE MODE NOWAIT', 'deltas_' || slot);
  EXECUTE format('TRUNCATE meterflow.%I', 'deltas_' || slot);
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END $$;
COMMENT ON FUNCTION meterflow.empty_slot(smallint) IS 'Internal: truncates a delta slot unless it is in use.';

CREATE FUNCTION meterflow.fold(max_batches integer DEFAULT 5000) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'fold_wrapper';
COMMENT ON FUNCTION meterflow.fold(integer) IS
  'Folds the deltas of committed batches into rollups, rebuilds dirty ranges, closes days. True when there is more to do at once, null when another session is at it.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.deltas', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.deltas_0', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.deltas_1', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.deltas_2', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.deltas_3', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.delta_slots', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.rollups', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.dirty_ranges', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.dirty_ranges_id_seq', '');
