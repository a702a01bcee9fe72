-- The outbox: messages to the outside, written in the transaction that they tell of, read by any number of consumers.
--
-- Order. The messages of a customer come in order of id. Whoever writes the same thing one after the other (two entries
-- of one wallet) draws ids in that order, for the second draws its own after the first has committed; whoever does not
-- wait for the other has no order to keep.
--
-- The trap. Ids are drawn before transactions commit: a reader that goes on after the last id it has seen would pass over
-- one that is open still. So:
-- 1. Fence: before a transaction draws its first id it takes a shared lock on the last id drawn so far (src/outbox.rs). All
--    its ids are above that number; the lock ends with the transaction, or with what is rolled back of it.
-- 2. Horizon: a reader notes S, the last id drawn, then looks at the locks. No id up to H = least(S, the lowest of them)
--    can become visible any more: whoever drew it did so before S was noted, hence had fenced a lower number, and would
--    be seen; or has ended, and then the snapshot of the next statement knows how.
-- 3. A consumer takes messages up to H only, so an id that has been passed over was rolled back. Unlike the oldest open
--    transaction of the server, H waits only for those that write messages. An open one delays the messages after its
--    own, nothing else: no writer ever waits, for a reader or for another writer.
--
-- A consumer has a cursor, outbox_consumers.taken, and its exceptions, outbox_deliveries: messages up to the cursor that it
-- has not acknowledged. What it is done with leaves nothing behind. A read takes new messages to the exceptions (one
-- session at a time; others pass on), locks some that are free (SKIP LOCKED) and hands them out under a lease:
-- - A customer with a leased message has no other handed out: order is kept even if many sessions share the work.
-- - Of the locked ones only those are leased that have none of their customer before them that is not locked too. This is
--   looked at by a later statement than the locking one, so that it sees what a session left that has just committed.
-- At most WINDOW messages are exceptions at a time, so that a read never looks through more, however many wait; a
-- customer whose messages are never acknowledged can fill it, and then stands in the way of the others.
--
-- Crash behaviour. A message is there if and only if its transaction committed. A reader that dies keeps its lease until
-- it ends, and then the messages are handed out again, with `attempts` counted up: at least once, never less.
--
-- Proof: tests/isolation/specs/outbox_order.spec, outbox_lease.spec; tests/client/outbox.rs.

CREATE TABLE meterflow.outbox (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id           bigint GENERATED ALWAYS AS IDENTITY,
  customer_id  text COLLATE "C" NOT NULL,
  kind         text COLLATE "C" NOT NULL CHECK (kind <> ''),
  payload      jsonb NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, id)
) USING heap;
COMMENT ON TABLE meterflow.outbox IS 'Messages to the outside, committed with what they tell of. Read them by outbox_read(): rows become visible out of order. maintain() drops those that every consumer is done with.';
COMMENT ON COLUMN meterflow.outbox.id IS 'In the order in which they were written; the same for every consumer, so that a message that comes again can be known.';
COMMENT ON COLUMN meterflow.outbox.kind IS 'usage_updated, wallet_balance_changed, low_balance, limit_reached, invoice_finalized, grant_expiring, ...; outbox_kinds() has them all.';
COMMENT ON COLUMN meterflow.outbox.payload IS 'What there is to say. Amounts and quantities are strings, exact as they are.';
CREATE TRIGGER refuse_change BEFORE UPDATE OR TRUNCATE ON meterflow.outbox
  FOR EACH STATEMENT EXECUTE FUNCTION meterflow.refuse_change();
COMMENT ON TRIGGER refuse_change ON meterflow.outbox IS 'Messages are as they were written.';

CREATE FUNCTION meterflow.outbox_kinds() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '{usage_updated,wallet_balance_changed,low_balance,limit_reached,invoice_finalized,grant_expiring,top_up_requested}'::text[];
COMMENT ON FUNCTION meterflow.outbox_kinds() IS 'The kinds of messages that there are.';

CREATE TABLE meterflow.outbox_consumers (
  tenant_id   text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  name        text COLLATE "C" NOT NULL CHECK (name <> ''),
  kinds       text[],
  notify      boolean NOT NULL DEFAULT true,
  starts_at   timestamptz NOT NULL DEFAULT now(),
  taken       bigint NOT NULL,
  done        bigint NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, name)
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE meterflow.outbox_consumers IS 'Who reads the outbox. INSERT one to have messages written for it from then on, DELETE it to have them no more. Any number of sessions can read as one consumer.';
COMMENT ON COLUMN meterflow.outbox_consumers.kinds IS 'The kinds it wants. Null: all. Messages other than alerts are written only if a consumer wants them.';
COMMENT ON COLUMN meterflow.outbox_consumers.notify IS 'Messages it wants are announced: LISTEN meterflow_outbox, the payload is the tenant. Transactions that NOTIFY commit one after the other, so turn it off, and poll, where thousands of messages are written a second.';
COMMENT ON COLUMN meterflow.outbox_consumers.starts_at IS 'Messages from before are not handed out. INSERT it with a time in the past to have those that are still there.';
COMMENT ON COLUMN meterflow.outbox_consumers.taken IS 'Up to this id all messages are acknowledged, not wanted, or in outbox_deliveries.';
COMMENT ON COLUMN meterflow.outbox_consumers.done IS 'Up to this id none is in outbox_deliveries: reads begin there, and not among what has been deleted since the last vacuum.';

CREATE TABLE meterflow.outbox_deliveries (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  consumer     text COLLATE "C" NOT NULL,
  id           bigint NOT NULL,
  customer_id  text COLLATE "C" NOT NULL,
  ready_at     timestamptz NOT NULL DEFAULT '-infinity',
  attempts     integer NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, consumer, id)
) USING heap WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE meterflow.outbox_deliveries IS 'Messages that a consumer has been given, or is to be given next, and has not acknowledged.';
COMMENT ON COLUMN meterflow.outbox_deliveries.ready_at IS 'In the future: handed out, and hidden until then.';
COMMENT ON COLUMN meterflow.outbox_deliveries.attempts IS 'How often it was handed out.';

CREATE FUNCTION meterflow.check_consumer() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  unknown text;
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM meterflow.outbox_deliveries AS d WHERE d.tenant_id = OLD.tenant_id AND d.consumer = OLD.name;
    RETURN OLD;
  END IF;
  SELECT string_agg(coalesce(quote_literal(k), 'null'), ', ') INTO unknown FROM unnest(NEW.kinds) AS k
   WHERE k IS NULL OR k <> ALL (meterflow.outbox_kinds());
  IF unknown IS NOT NULL OR NEW.kinds = '{}' THEN
    RAISE EXCEPTION 'consumer "%" wants messages that there are not', NEW.name USING ERRCODE = '23514',
      DETAIL = CASE WHEN unknown IS NULL THEN 'Its kinds are empty.' ELSE format('Unknown: %s.', unknown) END,
      HINT = format('Leave kinds null for all messages, or choose of %s.', array_to_string(meterflow.outbox_kinds(), ', '));
  END IF;
  IF TG_OP = 'UPDATE' AND (NEW.tenant_id, NEW.name) IS DISTINCT FROM (OLD.tenant_id, OLD.name) THEN
    RAISE EXCEPTION 'consumer "%" can not be renamed', OLD.name USING ERRCODE = '55000',
      DETAIL = 'What it has not acknowledged is kept under its name.', HINT = 'INSERT another, and DELETE this one when it is done.';
  END IF;
  -- A row that pg_restore brings back knows how far it is.
  IF NEW.taken IS NULL THEN
    NEW.taken := CASE WHEN NEW.starts_at < now()
      THEN coalesce((SELECT o.id FROM meterflow.outbox AS o WHERE o.tenant_id = NEW.tenant_id AND o.created_at < NEW.starts_at ORDER BY o.id DESC LIMIT 1), 0)
      ELSE (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM meterflow.outbox_id_seq AS s) END;
  END IF;
  NEW.done := coalesce(NEW.done, NEW.taken);
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.check_consumer() IS 'Trigger: refuses a consumer of messages that do not exist, gives a new one its place, takes the deliveries of a deleted one along.';
CREATE TRIGGER check_consumer BEFORE INSERT OR UPDATE OF tenant_id, name, kinds OR DELETE ON meterflow.outbox_consumers
  FOR EACH ROW EXECUTE FUNCTION meterflow.check_consumer();
COMMENT ON TRIGGER check_consumer ON meterflow.outbox_consumers IS 'Explains what is wrong with a consumer.';

-- Whether anybody waits for credit to change is asked by every verb that changes it: each session keeps the answer.
CREATE FUNCTION meterflow.announce_change() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'announce_change';
COMMENT ON FUNCTION meterflow.announce_change() IS 'Trigger: sessions that keep something of the table look again.';
CREATE TRIGGER announce_change AFTER INSERT OR DELETE OR UPDATE OF tenant_id, kinds ON meterflow.outbox_consumers
  FOR EACH ROW EXECUTE FUNCTION meterflow.announce_change();
ALTER TABLE meterflow.outbox_consumers ENABLE ALWAYS TRIGGER announce_change;
COMMENT ON TRIGGER announce_change ON meterflow.outbox_consumers IS 'Verbs of credit keep whether anybody waits for messages.';

CREATE FUNCTION meterflow.outbox_fence() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'outbox_fence_wrapper';
COMMENT ON FUNCTION meterflow.outbox_fence() IS 'Internal: what a transaction calls before it writes a message.';

-- Every verb that has something to tell calls this, thousands of times a second: nobody listens, nothing is done but one look.
CREATE FUNCTION meterflow.emit(tenant text, customer_id text, kind text, payload jsonb, always boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  announce CONSTANT boolean := (SELECT bool_or(c.notify) FROM meterflow.outbox_consumers AS c
                                 WHERE c.tenant_id = tenant AND (c.kinds IS NULL OR emit.kind = ANY (c.kinds)));
  message bigint;
BEGIN
  IF announce IS NULL AND NOT always THEN
    RETURN NULL;
  END IF;
  PERFORM meterflow.outbox_fence();
  INSERT INTO meterflow.outbox AS o (tenant_id, customer_id, kind, payload)
  VALUES (tenant, emit.customer_id, emit.kind, emit.payload) RETURNING o.id INTO message;
  IF announce THEN
    PERFORM pg_notify('meterflow_outbox', tenant);
  END IF;
  RETURN message;
END $$;
COMMENT ON FUNCTION meterflow.emit(text, text, text, jsonb, boolean) IS
  'Internal: writes a message if a consumer of the tenant wants its kind, or always; returns its id, or null.';

CREATE FUNCTION meterflow.emit_all(kind text, tenants text[], customer_ids text[], payloads jsonb[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  written bigint;
BEGIN
  PERFORM meterflow.outbox_fence();
  INSERT INTO meterflow.outbox (tenant_id, customer_id, kind, payload)
  SELECT m.tenant_id, m.customer_id, emit_all.kind, m.payload FROM unnest(tenants, customer_ids, payloads) AS m (tenant_id, customer_id, payload)
   WHERE m.tenant_id IN (SELECT c.tenant_id FROM meterflow.outbox_consumers AS c WHERE c.kinds IS NULL OR emit_all.kind = ANY (c.kinds));
  GET DIAGNOSTICS written = ROW_COUNT;
  PERFORM pg_notify('meterflow_outbox', c.tenant_id) FROM meterflow.outbox_consumers AS c
    WHERE c.notify AND (c.kinds IS NULL OR emit_all.kind = ANY (c.kinds)) AND c.tenant_id = ANY (tenants);
  RETURN written;
END $$;
COMMENT ON FUNCTION meterflow.emit_all(text, text[], text[], jsonb[]) IS 'Internal: emit() for many customers, of any tenants, at once; returns how many messages were written.';

CREATE FUNCTION meterflow.outbox_horizon() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- First this, then the locks, and messages by a later statement: see the top of the file.
  drawn CONSTANT bigint := (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM meterflow.outbox_id_seq AS s);
BEGIN
  RETURN (SELECT least(drawn, min((l.classid::bigint << 32) | l.objid::bigint)) FROM pg_locks AS l
           WHERE l.locktype = 'userlock' AND l.objsubid = 28514 AND l.pid IS DISTINCT FROM pg_backend_pid()
             AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()));
END $$;
COMMENT ON FUNCTION meterflow.outbox_horizon() IS 'Internal: the id up to which it is decided which messages there are.';

CREATE FUNCTION meterflow.outbox_take(consumer text, wanted integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  -- A read looks through so many in some milliseconds.
  WINDOW_SIZE CONSTANT integer := 10000;
  reader record;
  horizon bigint;
  unacked record;
  fresh record;
BEGIN
  SELECT c.taken, c.done, c.kinds INTO reader FROM meterflow.outbox_consumers AS c
   WHERE c.tenant_id = tenant AND c.name = outbox_take.consumer FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  horizon := meterflow.outbox_horizon();
  IF horizon <= reader.taken THEN
    RETURN 0;
  END IF;
  SELECT count(*) AS messages, min(d.id) - 1 AS done INTO unacked
    FROM meterflow.outbox_deliveries AS d WHERE d.tenant_id = tenant AND d.consumer = outbox_take.consumer AND d.id > reader.done;
  wanted := least(wanted, WINDOW_SIZE - unacked.messages);
  IF wanted <= 0 THEN
    RETURN 0;
  END IF;
  WITH new AS MATERIALIZED (
    SELECT o.id, o.customer_id FROM meterflow.outbox AS o
     WHERE o.tenant_id = tenant AND o.id > reader.taken AND o.id <= horizon
       AND (reader.kinds IS NULL OR o.kind = ANY (reader.kinds))
     ORDER BY o.id LIMIT wanted),
  added AS (
    INSERT INTO meterflow.outbox_deliveries (tenant_id, consumer, id, customer_id)
    SELECT tenant, outbox_take.consumer, n.id, n.customer_id FROM new AS n)
  SELECT count(*) AS messages, max(n.id) AS last INTO fresh FROM new AS n;
  UPDATE meterflow.outbox_consumers AS c
     SET taken = CASE WHEN fresh.messages < wanted THEN horizon ELSE fresh.last END, done = coalesce(unacked.done, reader.taken)
   WHERE c.tenant_id = tenant AND c.name = outbox_take.consumer;
  RETURN fresh.messages;
END $$;
COMMENT ON FUNCTION meterflow.outbox_take(text, integer) IS
  'Internal: moves the cursor of a consumer over so many messages that it wants; returns how many it found, 0 when another session is at it.';

CREATE FUNCTION meterflow.consumer_done(consumer text) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  done CONSTANT bigint := (SELECT c.done FROM meterflow.outbox_consumers AS c WHERE c.tenant_id = meterflow.current_tenant() AND c.name = consumer);
BEGIN
  IF done IS NULL THEN
    RAISE EXCEPTION 'there is no consumer "%"', coalesce(consumer, 'null') USING ERRCODE = '23503',
      DETAIL = format('Tenant "%s" has none of this name.', meterflow.current_tenant()), HINT = 'INSERT INTO meterflow.outbox_consumers (name) first.';
  END IF;
  RETURN done;
END $$;
COMMENT ON FUNCTION meterflow.consumer_done(text) IS 'Internal: the id up to which a consumer is done with all messages, or an error if there is no such consumer.';

-- What the statistics say of a queue was true of another moment: it is read by its indexes, and what is joined is small.
CREATE FUNCTION meterflow.outbox_read(consumer text, max integer DEFAULT 100, visibility_timeout interval DEFAULT '30 seconds')
RETURNS TABLE (id bigint, customer_id text, kind text, payload jsonb, created_at timestamptz, attempts integer)
LANGUAGE plpgsql VOLATILE ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_nestloop = off
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  clock CONSTANT timestamptz := clock_timestamp();
  -- More than this session needs: while it has the cursor, others find something to do all the same.
  chunk integer := greatest(4 * outbox_read.max, 100);
  done bigint;
  locked bigint[];
  owners text[];
  free bigint[];
BEGIN
  IF coalesce(outbox_read.max, 0) <= 0 OR NOT coalesce(visibility_timeout > '0' AND isfinite(visibility_timeout), false) THEN
    RAISE EXCEPTION 'outbox_read() needs a number of messages and a time above zero' USING ERRCODE = '22023',
      DETAIL = format('max is %s, visibility_timeout %s.', coalesce(outbox_read.max::text, 'null'), coalesce(visibility_timeout::text, 'null')),
      HINT = 'Leave them out for 100 messages and 30 seconds.';
  END IF;
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'outbox_read() can not run in a % transaction', upper(current_setting('transaction_isolation')) USING ERRCODE = '25001',
      DETAIL = 'It must see what other sessions have just committed.', HINT = 'Call it outside a transaction block, or BEGIN ISOLATION LEVEL READ COMMITTED.';
  END IF;
  done := meterflow.consumer_done(outbox_read.consumer);
  LOOP
    SELECT array_agg(f.id), array_agg(f.customer_id) INTO locked, owners
      FROM (SELECT d.id, d.customer_id FROM meterflow.outbox_deliveries AS d
             WHERE d.tenant_id = tenant AND d.consumer = outbox_read.consumer AND d.id > done AND d.ready_at <= clock
               AND d.customer_id NOT IN (SELECT l.customer_id FROM meterflow.outbox_deliveries AS l
                                          WHERE l.tenant_id = tenant AND l.consumer = outbox_read.consumer AND l.id > done AND l.ready_at > clock)
             ORDER BY d.id LIMIT outbox_read.max FOR UPDATE OF d SKIP LOCKED) AS f;
    EXIT WHEN cardinality(locked) >= outbox_read.max OR meterflow.outbox_take(outbox_read.consumer, chunk) = 0;
    -- Behind many messages of customers that are being served there may be some of others.
    chunk := chunk * 2;
  END LOOP;
  SELECT array_agg(l.id) INTO free
    FROM unnest(locked, owners) AS l (id, customer_id)
    LEFT JOIN (SELECT d.customer_id, min(d.id) AS id FROM meterflow.outbox_deliveries AS d
                WHERE d.tenant_id = tenant AND d.consumer = outbox_read.consumer AND d.id > done AND d.id < locked[cardinality(locked)]
                  AND d.id NOT IN (SELECT unnest(locked))
                GROUP BY 1) AS before ON before.customer_id = l.customer_id
   WHERE before.id IS NULL OR l.id < before.id;
  RETURN QUERY
    WITH leased AS (
      UPDATE meterflow.outbox_deliveries AS d SET ready_at = clock + visibility_timeout, attempts = d.attempts + 1
       WHERE d.tenant_id = tenant AND d.consumer = outbox_read.consumer AND d.id = ANY (free)
      RETURNING d.id, d.attempts)
    SELECT o.id, o.customer_id, o.kind, o.payload, o.created_at, l.attempts
      FROM leased AS l JOIN meterflow.outbox AS o ON o.id = l.id
     WHERE o.tenant_id = tenant AND o.id = ANY (free)
     ORDER BY o.id;
END $$;
COMMENT ON FUNCTION meterflow.outbox_read(text, integer, interval) IS
  'Hands out up to max messages that the consumer has not acknowledged, in order per customer, and hides them from its other sessions for the time given: acknowledge them before. Call it in a transaction of its own: until that commits, nobody knows who has them.';

CREATE FUNCTION meterflow.outbox_ack(consumer text, ids bigint[]) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  done integer;
BEGIN
  PERFORM meterflow.consumer_done(outbox_ack.consumer);
  WITH known AS MATERIALIZED (
    SELECT d.id FROM meterflow.outbox_deliveries AS d
     WHERE d.tenant_id = meterflow.current_tenant() AND d.consumer = outbox_ack.consumer AND d.id = ANY (ids) AND d.attempts > 0
     ORDER BY d.id FOR UPDATE)
  DELETE FROM meterflow.outbox_deliveries AS d USING known AS k
   WHERE d.tenant_id = meterflow.current_tenant() AND d.consumer = outbox_ack.consumer AND d.id = k.id;
  GET DIAGNOSTICS done = ROW_COUNT;
  RETURN done;
END $$;
COMMENT ON FUNCTION meterflow.outbox_ack(text, bigint[]) IS
  'The consumer is done with these messages and will not be given them again. Returns how many it had not acknowledged before; late is better than never, for a message whose lease has ended is handed out again.';

CREATE FUNCTION meterflow.outbox_nack(consumer text, ids bigint[], delay interval DEFAULT '0') RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  given_back integer;
BEGIN
  IF NOT coalesce(delay >= '0' AND isfinite(delay), false) THEN
    RAISE EXCEPTION 'outbox_nack() needs a delay that is not below zero' USING ERRCODE = '22023',
      DETAIL = format('It is %s.', coalesce(delay::text, 'null')), HINT = 'Leave it out to have the messages handed out again at once.';
  END IF;
  PERFORM meterflow.consumer_done(outbox_nack.consumer);
  WITH known AS MATERIALIZED (
    SELECT n.id FROM (SELECT d.customer_id, min(d.id) AS first FROM meterflow.outbox_deliveries AS d
                       WHERE d.tenant_id = tenant AND d.consumer = outbox_nack.consumer AND d.id = ANY (ids) AND d.ready_at > clock_timestamp()
                       GROUP BY 1) AS f
      JOIN meterflow.outbox_deliveries AS n ON n.tenant_id = tenant AND n.consumer = outbox_nack.consumer AND n.customer_id = f.customer_id AND n.id >= f.first
     WHERE n.ready_at > clock_timestamp()
     ORDER BY n.id FOR UPDATE OF n)
  UPDATE meterflow.outbox_deliveries AS d SET ready_at = clock_timestamp() + delay FROM known AS k
   WHERE d.tenant_id = tenant AND d.consumer = outbox_nack.consumer AND d.id = k.id;
  GET DIAGNOSTICS given_back = ROW_COUNT;
  RETURN given_back;
END $$;
COMMENT ON FUNCTION meterflow.outbox_nack(text, bigint[], interval) IS
  'Gives messages back before their time, to be handed out again after the delay; with each the later ones of its customer that are out, for they come after it. Returns how many.';

-- The oldest first, and no further than there is something to drop: what is kept is not looked through.
CREATE FUNCTION meterflow.trim_outbox(max_messages integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
  cutoff CONSTANT timestamptz := clock_timestamp() - coalesce(current_setting('meterflow.outbox_retention', true), '1 day')::interval;
  dropped bigint;
BEGIN
  WITH RECURSIVE tenants (tenant_id) AS (
    (SELECT o.tenant_id FROM meterflow.outbox AS o ORDER BY 1 LIMIT 1)
    UNION ALL
    SELECT (SELECT o.tenant_id FROM meterflow.outbox AS o WHERE o.tenant_id > t.tenant_id ORDER BY 1 LIMIT 1) FROM tenants AS t WHERE t.tenant_id IS NOT NULL),
  old AS MATERIALIZED (
    SELECT t.tenant_id, o.id
      FROM tenants AS t
      LEFT JOIN LATERAL (
        SELECT min(least(c.taken, (SELECT min(d.id) - 1 FROM meterflow.outbox_deliveries AS d WHERE d.tenant_id = c.tenant_id AND d.consumer = c.name AND d.id > c.done))) AS done
          FROM meterflow.outbox_consumers AS c WHERE c.tenant_id = t.tenant_id) AS b ON true
     CROSS JOIN LATERAL (SELECT m.* FROM meterflow.outbox AS m WHERE m.tenant_id = t.tenant_id ORDER BY m.id LIMIT max_messages) AS o
     WHERE (b.done IS NULL OR o.id <= b.done) AND o.created_at < cutoff
     LIMIT max_messages)
  DELETE FROM meterflow.outbox AS o USING old WHERE o.tenant_id = old.tenant_id AND o.id = old.id;
  GET DIAGNOSTICS dropped = ROW_COUNT;
  -- Of messages that somebody deleted by hand.
  DELETE FROM meterflow.outbox_deliveries AS d WHERE NOT EXISTS (SELECT FROM meterflow.outbox AS o WHERE o.tenant_id = d.tenant_id AND o.id = d.id);
  RETURN dropped;
END $$;
COMMENT ON FUNCTION meterflow.trim_outbox(integer) IS 'Drops messages that are older than meterflow.outbox_retention and that no consumer still needs; returns how many.';

CREATE FUNCTION meterflow.outbox_waiting() RETURNS TABLE (tenant_id text, consumer text, since timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 5
BEGIN ATOMIC
  SELECT c.tenant_id, c.name, o.created_at
    FROM meterflow.outbox_consumers AS c,
         LATERAL (SELECT coalesce(min(d.id) - 1, c.taken) AS done FROM meterflow.outbox_deliveries AS d
                   WHERE d.tenant_id = c.tenant_id AND d.consumer = c.name AND d.id > c.done) AS p,
         LATERAL (SELECT m.created_at FROM meterflow.outbox AS m WHERE m.tenant_id = c.tenant_id AND m.id > p.done ORDER BY m.id LIMIT 1) AS o
   ORDER BY o.created_at, c.tenant_id, c.name;
END;
COMMENT ON FUNCTION meterflow.outbox_waiting() IS 'Consumers that have not read, or not acknowledged, everything yet, and the time of the first such message; the slowest first.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.outbox', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.outbox_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.outbox_consumers', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.outbox_deliveries', '');
