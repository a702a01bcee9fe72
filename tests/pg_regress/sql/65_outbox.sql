-- The outbox: messages are written for those who want them, read in order, handed out until they are acknowledged, dropped
-- when nobody needs them. What happens between sessions is in tests/isolation.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'outbox';
SELECT meterflow.pause_worker();
CREATE FUNCTION pg_temp.say(customer text, said text, kind text DEFAULT 'usage_updated') RETURNS boolean LANGUAGE sql
RETURN meterflow.emit('outbox', customer, kind, to_jsonb(said)) IS NOT NULL;
CREATE FUNCTION pg_temp.got(consumer text, most integer DEFAULT 100, hidden interval DEFAULT '1 hour') RETURNS TABLE (customer_id text, kind text, payload jsonb, attempts integer) LANGUAGE sql AS
'SELECT r.customer_id, r.kind, r.payload, r.attempts FROM meterflow.outbox_read(consumer, most, hidden) AS r ORDER BY r.id';
-- Messages of this tenant by what they say.
CREATE FUNCTION pg_temp.ids(VARIADIC said text[]) RETURNS bigint[] LANGUAGE sql
RETURN (SELECT array_agg(o.id ORDER BY o.id) FROM meterflow.outbox AS o WHERE o.tenant_id = 'outbox' AND o.payload #>> '{}' = ANY (said));

-- Nobody listens, nothing is written; but what must not be lost is.
SELECT pg_temp.say('a', 'to nobody');
SELECT meterflow.emit('outbox', 'a', 'low_balance', '"always"', true) IS NOT NULL AS written;
SELECT customer_id, kind, payload, created_at <= clock_timestamp() AS now FROM meterflow.outbox WHERE tenant_id = 'outbox';

-- Consumers: of everything, of some kinds, of what there was before; of this tenant.
INSERT INTO meterflow.outbox_consumers (name, notify) VALUES ('all', false);
INSERT INTO meterflow.outbox_consumers (name, kinds, notify, starts_at) VALUES ('alerts', '{low_balance,limit_reached}', false, now() - interval '1 day');
SELECT name, kinds, notify, taken = done AS nothing_taken FROM meterflow.outbox_consumers WHERE tenant_id = 'outbox' ORDER BY name;
SELECT * FROM pg_temp.got('all');
SELECT * FROM pg_temp.got('alerts');
INSERT INTO meterflow.outbox_consumers (name, kinds) VALUES ('wrong', '{low_balance,lowbalance,NULL}');
INSERT INTO meterflow.outbox_consumers (name, kinds) VALUES ('wrong', '{}');
UPDATE meterflow.outbox_consumers SET name = 'alarms' WHERE name = 'alerts';
SET meterflow.tenant = 'outbox, another';
SELECT * FROM meterflow.outbox_read('all');
SET meterflow.tenant = 'outbox';

-- Read, acknowledge, read on; what is handed out is hidden, what is given back comes again, counted.
SELECT pg_temp.say('a', 'a1'), pg_temp.say('b', 'b1', 'low_balance'), pg_temp.say('a', 'a2'), pg_temp.say('c', 'c1');
SELECT * FROM pg_temp.got('all', 2);
SELECT * FROM pg_temp.got('all', 2);
SELECT * FROM pg_temp.got('alerts');
SELECT meterflow.outbox_ack('all', pg_temp.ids('a1', 'b1')) AS acknowledged, meterflow.outbox_ack('all', pg_temp.ids('a1', 'b1')) AS again;
SELECT * FROM pg_temp.got('all');
SELECT meterflow.outbox_nack('all', pg_temp.ids('a2')) AS given_back, meterflow.outbox_nack('all', pg_temp.ids('a2')) AS again, meterflow.outbox_nack('all', pg_temp.ids('c1'), '1 hour') AS later;
SELECT * FROM pg_temp.got('all');
-- The lease ends.
SELECT meterflow.outbox_nack('all', pg_temp.ids('a2'));
SELECT * FROM pg_temp.got('all', 1, '1 millisecond');
SELECT FROM pg_sleep(0.01);
SELECT * FROM pg_temp.got('all');
-- Only what was handed out can be acknowledged; numbers that mean nothing are passed over.
SELECT pg_temp.say('a', 'a3');
SELECT meterflow.outbox_ack('all', pg_temp.ids('a3')) AS not_yet, meterflow.outbox_ack('all', '{}') AS none, meterflow.outbox_ack('all', '{-1,NULL,9223372036854775807}') AS unknown, meterflow.outbox_ack('all', NULL) AS "null";
SELECT meterflow.outbox_ack('all', pg_temp.ids('a2', 'c1'));
-- Acknowledged out of order: the exception stays, the rest is forgotten.
SELECT pg_temp.say('d', 'd1'), pg_temp.say('e', 'e1'), pg_temp.say('f', 'f1');
SELECT * FROM pg_temp.got('all');
SELECT meterflow.outbox_ack('all', pg_temp.ids('a3', 'e1', 'f1'));
SELECT o.payload, d.attempts FROM meterflow.outbox_deliveries AS d JOIN meterflow.outbox AS o USING (tenant_id, id) WHERE d.consumer = 'all' AND d.tenant_id = 'outbox';
SELECT pg_temp.say('g', 'g1');
SELECT * FROM pg_temp.got('all');
SELECT done = (pg_temp.ids('d1'))[1] - 1 AS begins_at_the_exception, taken >= (pg_temp.ids('g1'))[1] AS took_all FROM meterflow.outbox_consumers WHERE tenant_id = 'outbox' AND name = 'all';
SELECT meterflow.outbox_ack('all', pg_temp.ids('d1', 'g1'));

-- What no consumer needs any more goes when it is old: not what is younger, nor what one of them has not acknowledged.
SELECT meterflow.outbox_ack('alerts', pg_temp.ids('always', 'b1'));
INSERT INTO meterflow.outbox (customer_id, kind, payload, created_at) SELECT 'old', 'low_balance', to_jsonb('old ' || i), now() - interval '25 hours' FROM generate_series(1, 4) AS i;
SELECT * FROM pg_temp.got('all');
SELECT meterflow.outbox_ack('all', pg_temp.ids('old 1', 'old 2', 'old 3', 'old 4'));
SELECT meterflow.trim_outbox() AS not_taken_by_the_alerts_consumer;
SELECT * FROM pg_temp.got('alerts');
SELECT meterflow.outbox_ack('alerts', pg_temp.ids('old 1', 'old 2', 'old 4'));
SELECT since < now() - interval '24 hours' AS waits_for_an_old_one FROM meterflow.outbox_waiting() WHERE tenant_id = 'outbox' AND consumer = 'alerts';
BEGIN;
INSERT INTO meterflow.outbox (customer_id, kind, payload, created_at) VALUES ('old', 'low_balance', '"old 5"', now() - interval '30 hours');
SELECT consumer, round(extract(epoch FROM now() - since) / 3600) AS hours FROM meterflow.outbox_waiting() WHERE tenant_id = 'outbox';
SELECT regexp_replace(reason, '\d{4}-\S+ [0-9:+]+', 'T') AS reason FROM meterflow.health(), unnest(reasons) AS reason WHERE reason LIKE 'consumer%';
ROLLBACK;
SELECT meterflow.trim_outbox() AS dropped;
SELECT payload FROM meterflow.outbox WHERE tenant_id = 'outbox' AND customer_id = 'old';
SELECT meterflow.outbox_ack('alerts', pg_temp.ids('old 3'));
SELECT meterflow.trim_outbox() AS dropped;
SELECT count(*) AS younger FROM meterflow.outbox WHERE tenant_id = 'outbox';
-- Deleted by hand, it is forgotten.
SELECT pg_temp.say('h', 'by hand');
SELECT * FROM pg_temp.got('all');
DELETE FROM meterflow.outbox WHERE payload = '"by hand"';
SELECT meterflow.trim_outbox() AS dropped;
SELECT count(*) FROM meterflow.outbox_deliveries WHERE tenant_id = 'outbox' AND consumer = 'all';

-- A long queue of one customer, and others behind it: they are found, in order, and few at a time are open.
SELECT count(*) FROM generate_series(1, 12000) AS i WHERE pg_temp.say('hot', 'hot ' || i);
SELECT count(*), min(payload #>> '{}'), max(attempts) FROM pg_temp.got('all', 10);
SELECT pg_temp.say('cold', 'cold');
SELECT count(*) FROM pg_temp.got('all', 10);
SELECT count(*) AS open FROM meterflow.outbox_deliveries WHERE tenant_id = 'outbox' AND consumer = 'all';
CREATE FUNCTION pg_temp.drain(consumer text, most integer) RETURNS TABLE (messages bigint, in_order boolean, reads integer) LANGUAGE plpgsql AS $$
DECLARE got bigint[]; last bigint := 0;
BEGIN
  messages := 0; in_order := true; reads := 0;
  LOOP
    SELECT array_agg(r.id) INTO got FROM meterflow.outbox_read(consumer, most) AS r;
    EXIT WHEN got IS NULL;
    in_order := in_order AND got[1] > last AND got = ARRAY(SELECT unnest(got) ORDER BY 1);
    last := got[cardinality(got)]; messages := messages + cardinality(got); reads := reads + 1;
    PERFORM meterflow.outbox_ack(consumer, got);
  END LOOP;
  RETURN NEXT;
END $$;
SELECT meterflow.outbox_ack('all', ARRAY(SELECT id FROM meterflow.outbox_deliveries WHERE tenant_id = 'outbox' AND consumer = 'all' AND attempts > 0)) AS acknowledged;
SELECT * FROM pg_temp.drain('all', 1000);
SELECT count(*) AS open FROM meterflow.outbox_deliveries WHERE tenant_id = 'outbox' AND consumer = 'all';

-- Many at once, of several tenants: only those whom somebody listens to.
SELECT meterflow.emit_all('usage_updated', '{outbox,"outbox, another",outbox}', '{x,y,z}', ARRAY['"x"', '"y"', '"z"']::jsonb[]);
SELECT customer_id, payload FROM pg_temp.got('all');
SELECT * FROM pg_temp.got('alerts');

-- Messages are not changed, and rolled back with what they tell of.
UPDATE meterflow.outbox SET payload = '{}' WHERE tenant_id = 'outbox';
TRUNCATE meterflow.outbox;
BEGIN;
SELECT pg_temp.say('r', 'taken back');
ROLLBACK;
SELECT count(*) FROM meterflow.outbox WHERE payload = '"taken back"';

-- A consumer that goes takes its deliveries along.
SELECT pg_temp.say('n', 'n1');
SELECT count(*) > 0 AS open FROM pg_temp.got('all');
DELETE FROM meterflow.outbox_consumers WHERE tenant_id = 'outbox';
SELECT count(*) FROM meterflow.outbox_deliveries WHERE tenant_id = 'outbox';

-- What does not work says why.
SELECT * FROM meterflow.outbox_read('all');
SELECT meterflow.outbox_ack('all', '{1}');
SELECT meterflow.outbox_nack('all', '{1}');
SELECT * FROM meterflow.outbox_read('all', 0);
SELECT * FROM meterflow.outbox_read('all', 1, '0');
SELECT * FROM meterflow.outbox_read('all', NULL, NULL);
SELECT meterflow.outbox_nack('all', '{1}', '-1 second');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM meterflow.outbox_read('all');
ROLLBACK;
