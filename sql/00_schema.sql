-- The house rules every later file relies on: who the tenant is, and the state the writers share.
-- Files are concatenated in name order into the install script; each ends with what pg_dump must keep.

CREATE FUNCTION meterflow.current_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('meterflow.tenant', true), ''), 'default');
COMMENT ON FUNCTION meterflow.current_tenant() IS
  'Tenant of this session: the setting meterflow.tenant, ''default'' when unset.';

-- Writers read this row at the start of every batch, under a snapshot taken after they hold the write
-- fence (see src/ingest/mod.rs). It changes rarely: when a meter, a generation or the open slot does.
CREATE TABLE meterflow.engine (
  singleton        boolean  PRIMARY KEY DEFAULT true CHECK (singleton),
  secret           bytea    NOT NULL CHECK (octet_length(secret) = 16),
  catalog_version  bigint   NOT NULL DEFAULT 0, -- changes with every change of a meter, to a number never used before
  open_slot        smallint NOT NULL DEFAULT 0 CHECK (open_slot BETWEEN 0 AND 3),
  insert_generations integer[] NOT NULL DEFAULT '{1}',
  probe_generations  integer[] NOT NULL DEFAULT '{}',
  generation_phase text     NOT NULL DEFAULT 'steady' CHECK (generation_phase IN ('steady', 'overlap')),
  phase_xid        xid8,    -- who took the last step of a rotation
  -- Keys of events up to this time have been forgotten: nothing that old may be accepted again,
  -- however wide meterflow.backdate_window is opened later.
  dedup_floor      timestamptz NOT NULL DEFAULT '-infinity'
) USING heap;
COMMENT ON TABLE meterflow.engine IS 'What writers must agree on: hash secret, meter catalogue version, open delta slot, dedup generations. One row.';
INSERT INTO meterflow.engine (secret)
VALUES (decode(replace(gen_random_uuid()::text, '-', ''), 'hex'));

-- Only the folder writes this row; readers take it in the same snapshot as rollups and deltas.
CREATE TABLE meterflow.fold_state (
  singleton     boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  folded_batch  bigint  NOT NULL DEFAULT 0,
  folds         bigint  NOT NULL DEFAULT 0,
  folded_at     timestamptz NOT NULL DEFAULT now(),
  -- Days before closed_day have day rollups; a month rollup holds the days of its month before closed_day.
  closed_day    timestamptz NOT NULL DEFAULT date_trunc('day', now(), 'UTC'),
  -- Nobody reads hour rollups, day rollups or raw events from before these any more ...
  hour_floor    timestamptz NOT NULL DEFAULT '-infinity',
  day_floor     timestamptz NOT NULL DEFAULT '-infinity',
  raw_floor     timestamptz NOT NULL DEFAULT '-infinity',
  -- ... and up to here they have been removed, by a later transaction than floors_xid (src/rollup/retention.rs).
  hour_cleared  timestamptz NOT NULL DEFAULT '-infinity',
  day_cleared   timestamptz NOT NULL DEFAULT '-infinity',
  raw_cleared   timestamptz NOT NULL DEFAULT '-infinity',
  floors_xid    xid8,
  -- Counters of all folded batches; those of younger batches are added when read.
  accepted      bigint NOT NULL DEFAULT 0,
  duplicates    bigint NOT NULL DEFAULT 0,
  failed        bigint NOT NULL DEFAULT 0
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE meterflow.fold_state IS 'How far deltas are folded, days are closed, and old detail is dropped. One row.';
INSERT INTO meterflow.fold_state DEFAULT VALUES;

-- CREATE EXTENSION has made these rows when pg_restore brings back the real ones: the restored row replaces it.
CREATE FUNCTION meterflow.replace_initial_row() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('DELETE FROM %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
  -- Transaction numbers mean nothing in another cluster.
  IF TG_TABLE_NAME = 'engine' THEN
    NEW.phase_xid := NULL;
  ELSE
    NEW.floors_xid := NULL;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER replace_initial_row BEFORE INSERT ON meterflow.engine
  FOR EACH ROW EXECUTE FUNCTION meterflow.replace_initial_row();
CREATE TRIGGER replace_initial_row BEFORE INSERT ON meterflow.fold_state
  FOR EACH ROW EXECUTE FUNCTION meterflow.replace_initial_row();

COMMENT ON FUNCTION meterflow.replace_initial_row() IS 'Trigger: a restored row replaces the one CREATE EXTENSION made.';
COMMENT ON TRIGGER replace_initial_row ON meterflow.engine IS 'For pg_restore.';
COMMENT ON TRIGGER replace_initial_row ON meterflow.fold_state IS 'For pg_restore.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.engine', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.fold_state', '');
