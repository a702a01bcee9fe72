-- Meters: what is measured. Rows people write; each change of a definition is a version of its own.

CREATE TABLE meterflow.meters (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  key          text COLLATE "C" NOT NULL,
  event_name   text COLLATE "C" NOT NULL,
  aggregation  text NOT NULL,
  property     text,
  filters      jsonb NOT NULL DEFAULT '{}',
  dimensions   text[] NOT NULL DEFAULT '{}',
  multiplier   numeric,
  percentile   numeric,
  bucket_size  interval,
  approximate  boolean NOT NULL DEFAULT false,
  description  text,
  version      integer NOT NULL DEFAULT 1,
  archived_at  timestamptz,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
) USING heap;
COMMENT ON TABLE meterflow.meters IS 'Meters as they are now. INSERT one, UPDATE it (a new version from that moment on), or archive it by setting archived_at.';
COMMENT ON COLUMN meterflow.meters.aggregation IS 'count, sum, avg, min, max, latest, unique_count, weighted_sum, percentile, or bucket_sum/bucket_max (per bucket_size, then summed).';
COMMENT ON COLUMN meterflow.meters.property IS 'Path of the measured property, nested by dots: usage.tokens.input.';
COMMENT ON COLUMN meterflow.meters.filters IS '{"model": "gpt-4", "region": ["eu","us"], "bytes": {"gte": 100}}; operators eq ne in nin lt lte gt gte exists; and/or lists.';
COMMENT ON COLUMN meterflow.meters.dimensions IS 'Properties usage can be grouped and filtered by from rollups.';
COMMENT ON COLUMN meterflow.meters.multiplier IS 'Factor on every measured value.';

CREATE TABLE meterflow.meter_versions (
  tenant_id    text COLLATE "C" NOT NULL,
  id           integer GENERATED ALWAYS AS IDENTITY,
  meter_key    text COLLATE "C" NOT NULL,
  version      integer NOT NULL,
  event_name   text COLLATE "C" NOT NULL,
  aggregation  text NOT NULL,
  property     text,
  filters      jsonb NOT NULL,
  dimensions   text[] NOT NULL,
  multiplier   numeric,
  percentile   numeric,
  bucket_size  interval,
  approximate  boolean NOT NULL,
  -- Events with valid_from <= timestamp < valid_to count by this version.
  valid_from   timestamptz NOT NULL,
  valid_to     timestamptz NOT NULL DEFAULT 'infinity',
  -- Events before this had been dropped by retention when the version was made: it can't know them.
  complete_from timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, meter_key, version)
) USING heap;
COMMENT ON TABLE meterflow.meter_versions IS 'Every definition a meter has had, and the event times it is valid for.';

CREATE FUNCTION meterflow.check_meter(event_name text, aggregation text, property text, filters text, dimensions text[],
                                      multiplier text, percentile text, bucket_size interval, approximate boolean)
RETURNS void LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'check_meter_wrapper';
COMMENT ON FUNCTION meterflow.check_meter(text, text, text, text, text[], text, text, interval, boolean) IS
  'Raises an error that explains what is wrong with a meter definition; returns nothing when it is sound.';

-- Takes the write fence for a change that readers and the folder must see in batch order (src/rollup/dirty.rs).
CREATE FUNCTION meterflow.fence_batch() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'fence_batch_wrapper';
COMMENT ON FUNCTION meterflow.fence_batch() IS 'Internal: holds the write fence to the end of the transaction and draws a batch number.';

CREATE FUNCTION meterflow.meters_before() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'meter "%" can not be deleted', OLD.key
      USING ERRCODE = '55000', DETAIL = 'Its usage may have been billed.',
            HINT = 'Archive it: UPDATE meterflow.meters SET archived_at = now() WHERE key = ' || quote_literal(OLD.key) || '.';
  END IF;
  IF NEW.key IS NULL OR NEW.key = '' THEN
    RAISE EXCEPTION 'a meter needs a key' USING ERRCODE = '23502', HINT = 'Name it, for instance ''api_requests''.';
  END IF;
  NEW.filters := coalesce(NEW.filters, '{}');
  NEW.dimensions := coalesce(NEW.dimensions, '{}');
  PERFORM meterflow.check_meter(NEW.event_name, NEW.aggregation, NEW.property, NEW.filters::text, NEW.dimensions,
                                NEW.multiplier::text, NEW.percentile::text, NEW.bucket_size, NEW.approximate);
  IF TG_OP = 'INSERT' THEN
    -- A row that pg_restore brings back has its version, and meter_versions has the history.
    NEW.version := CASE WHEN NEW.created_at = now() THEN 1 ELSE NEW.version END;
    RETURN NEW;
  END IF;
  IF (NEW.tenant_id, NEW.key) IS DISTINCT FROM (OLD.tenant_id, OLD.key) THEN
    RAISE EXCEPTION 'the key of meter "%" can not change', OLD.key
      USING ERRCODE = '55000', HINT = 'Create a meter with the new key and archive this one.';
  END IF;
  IF (NEW.aggregation, NEW.approximate, NEW.bucket_size) IS DISTINCT FROM (OLD.aggregation, OLD.approximate, OLD.bucket_size) THEN
    RAISE EXCEPTION 'the % of meter "%" can not change', CASE WHEN NEW.aggregation <> OLD.aggregation THEN 'aggregation'
           WHEN NEW.approximate <> OLD.approximate THEN 'exactness' ELSE 'bucket size' END, OLD.key
      USING ERRCODE = '55000', DETAIL = 'Usage before and after the change could not be combined.',
            HINT = 'Create a meter with another key; it is filled from stored events.';
  END IF;
  IF meterflow.meter_definition(NEW) IS DISTINCT FROM meterflow.meter_definition(OLD) THEN
    NEW.version := OLD.version + 1;
  ELSE
    NEW.version := OLD.version;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION meterflow.meter_definition(m meterflow.meters) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_array(m.event_name, m.aggregation, m.property, m.filters, m.dimensions, m.multiplier, m.percentile,
                         m.bucket_size, m.approximate);
COMMENT ON FUNCTION meterflow.meter_definition(meterflow.meters) IS 'The part of a meter whose change makes a new version.';

CREATE FUNCTION meterflow.meters_after() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fence bigint;
  moment timestamptz := CASE WHEN TG_OP = 'INSERT' THEN '-infinity' ELSE clock_timestamp() END;
  changed_from timestamptz := moment;
  old_id integer;
  new_id integer;
BEGIN
  IF TG_OP = 'INSERT' AND NEW.created_at <> now() THEN
    RETURN NULL; -- restored by pg_restore together with its versions; maintain() makes a version that is missing
  END IF;
  IF TG_OP = 'UPDATE' AND NEW.version = OLD.version AND NEW.archived_at IS NOT DISTINCT FROM OLD.archived_at THEN
    RETURN NULL;
  END IF;
  fence := meterflow.fence_batch();
  -- A number nobody else has had: a session that read its own change keeps nothing of it when it rolls back.
  UPDATE meterflow.engine SET catalog_version = fence;
  IF TG_OP = 'UPDATE' THEN
    IF NEW.archived_at IS DISTINCT FROM OLD.archived_at THEN
      moment := coalesce(NEW.archived_at, 'infinity');
      changed_from := least(OLD.archived_at, NEW.archived_at, clock_timestamp());
    END IF;
    UPDATE meterflow.meter_versions SET valid_to = moment
     WHERE tenant_id = NEW.tenant_id AND meter_key = NEW.key AND version = OLD.version
    RETURNING id INTO old_id;
    -- Writers that had not seen the change counted on by the old version: its buckets from here on are rebuilt.
    PERFORM meterflow.mark_dirty(NEW.tenant_id, old_id, NULL, changed_from, 'infinity', fence);
    IF NEW.version = OLD.version THEN
      RETURN NULL;
    END IF;
  END IF;
  INSERT INTO meterflow.meter_versions
    (tenant_id, meter_key, version, event_name, aggregation, property, filters, dimensions, multiplier, percentile,
     bucket_size, approximate, valid_from, valid_to, complete_from)
  SELECT NEW.tenant_id, NEW.key, NEW.version, NEW.event_name, NEW.aggregation, NEW.property, NEW.filters, NEW.dimensions,
         NEW.multiplier, NEW.percentile, NEW.bucket_size, NEW.approximate, moment, coalesce(NEW.archived_at, 'infinity'),
         raw_floor
    FROM meterflow.fold_state
  RETURNING id INTO new_id;
  PERFORM meterflow.mark_dirty(NEW.tenant_id, new_id, NULL, moment, 'infinity', fence);
  RETURN NULL;
END $$;

CREATE TRIGGER meters_before BEFORE INSERT OR UPDATE OR DELETE ON meterflow.meters
  FOR EACH ROW EXECUTE FUNCTION meterflow.meters_before();
CREATE TRIGGER meters_after AFTER INSERT OR UPDATE ON meterflow.meters
  FOR EACH ROW EXECUTE FUNCTION meterflow.meters_after();

COMMENT ON FUNCTION meterflow.meters_before() IS 'Trigger: checks a meter and numbers its versions.';
COMMENT ON FUNCTION meterflow.meters_after() IS 'Trigger: records the version a change makes, and what has to be counted anew.';
COMMENT ON TRIGGER meters_before ON meterflow.meters IS 'Explains what is wrong with a meter; refuses what would change the past.';
COMMENT ON TRIGGER meters_after ON meterflow.meters IS 'Keeps meter_versions.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.meters', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.meter_versions', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.meter_versions_id_seq', '');
