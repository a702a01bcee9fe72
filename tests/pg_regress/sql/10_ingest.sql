-- Ingest: every shape understood, every fault named, each event alone, and nothing that a rollback leaves behind.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'ingest';
SELECT to_char(date_trunc('hour', now() AT TIME ZONE 'UTC') - interval '2 hours', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS t,
       (extract(epoch FROM date_trunc('hour', now()) - interval '2 hours') * 1000)::bigint AS t_millis \gset

-- What became of a call: a row for each event that failed, or one without. Messages that name the time are left out.
CREATE FUNCTION pg_temp.send(events json) RETURNS TABLE (accepted int, duplicates int, index int, transaction_id text, code text, message text)
LANGUAGE sql AS $$
  SELECT r.accepted, r.duplicates, (f->>'index')::int, left(f->>'transaction_id', 20), f->>'code',
         CASE WHEN f->>'code' NOT IN ('too_old', 'in_future') THEN f->>'message' END
    FROM meterflow.ingest(events) AS r LEFT JOIN jsonb_array_elements(r.failed) AS f ON true
   ORDER BY 3
$$;
CREATE TEMPORARY VIEW stored AS
  SELECT transaction_id, source, customer_id, event_name, timestamp = date_trunc('hour', now()) - interval '2 hours' AS at_t, properties
    FROM meterflow.events WHERE tenant_id = meterflow.current_tenant() ORDER BY seq;

-- Shapes: our own, CloudEvents 1.0, Flexprice, the seeds' MeterFlow and billing-system. Times as text or milliseconds.
SELECT * FROM pg_temp.send(json_build_array(
  json_build_object('transaction_id', 'own', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t', 'properties', '{"n":1}'::json, 'source', 'api'),
  json_build_object('specversion', '1.0', 'id', 'cloud', 'source', '/gateway', 'type', 'call', 'subject', 'acme', 'time', :'t',
                    'datacontenttype', 'application/json', 'data', '{"n":2}'::json),
  json_build_object('event_id', 'flex', 'event_name', 'call', 'external_customer_id', 'acme', 'timestamp', :'t', 'properties', '{"n":3}'::json),
  json_build_object('transaction_id', 'seed', 'event_type', 'call', 'customer_id', 'acme', 'timestamp', :t_millis, 'properties', '{"n":4}'::json),
  json_build_object('idempotency_key', 'billing', 'organization_id', 'acme', 'metric_name', 'call', 'quantity', 5, 'timestamp', :'t_millis'),
  json_build_object('idempotency_key', 'text quantity', 'organization_id', 'acme', 'metric_name', 'call', 'quantity', '6.50', 'properties', '{"n":6}'::json, 'timestamp', :'t')
));
SELECT * FROM stored;

-- Fields of several shapes at once: our own name wins, null and empty count as not there, numbers are taken as ids.
SELECT * FROM pg_temp.send(json_build_object('transaction_id', '', 'event_id', NULL, 'id', 7, 'customer_id', 42, 'subject', 'other', 'type', 'call',
                                             'event_name', 'call2', 'timestamp', :'t', 'extra', '{"ignored":[]}'::json));
SELECT * FROM stored WHERE event_name = 'call2';
-- The envelope that some senders put around a batch, an empty batch, and a time left to the server.
SELECT * FROM pg_temp.send('{"events":[{"transaction_id":"env","customer_id":"acme","event_name":"call"}]}');
SELECT * FROM pg_temp.send('[]');
BEGIN;
SELECT * FROM pg_temp.send('{"transaction_id":"untimed","customer_id":"acme","event_name":"call"}');
SELECT timestamp BETWEEN now() AND clock_timestamp() AS now FROM meterflow.events WHERE tenant_id = 'ingest' AND transaction_id = 'untimed';
COMMIT;
-- Offsets are understood, microseconds kept, and what is finer is cut.
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'offset', 'customer_id', 'acme', 'event_name', 'time', 'timestamp',
  to_char(:'t'::timestamptz AT TIME ZONE 'UTC' + interval '5 hours 30 minutes', 'YYYY-MM-DD HH24:MI:SS') || '.1234569+05:30'));
SELECT timestamp - :'t' AS after_t FROM meterflow.events WHERE tenant_id = 'ingest' AND event_name = 'time';
-- Numbers keep every digit they came with.
SELECT * FROM pg_temp.send('{"transaction_id":"digits","customer_id":"acme","event_name":"digits","properties":{"n":123456789012345678901234567890.1234567890,"z":1.50}}');
SELECT properties FROM stored WHERE event_name = 'digits';

-- One bad event fails alone, with its place, its id as far as there is one, a code and a message.
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('amounts', 'metered', 'sum', 'n');
SELECT * FROM pg_temp.send(json_build_array(
  '{"customer_id":"acme","event_name":"call"}'::json,
  '{"transaction_id":"","customer_id":"acme","event_name":"call"}'::json,
  '{"transaction_id":"bad 2","event_name":"call"}'::json,
  '{"transaction_id":"bad 3","customer_id":"","event_name":"call"}'::json,
  '{"transaction_id":"bad 4","customer_id":"acme"}'::json,
  '{"transaction_id":"bad 5","customer_id":"acme","event_name":null}'::json,
  '{"transaction_id":"bad 6","customer_id":{"id":1},"event_name":"call"}'::json,
  '"text"'::json,
  'null'::json,
  '{"transaction_id":"good 9","customer_id":"acme","event_name":"call"}'::json));
SELECT * FROM pg_temp.send(json_build_array(
  '{"transaction_id":"time 0","customer_id":"acme","event_name":"call","timestamp":"yesterday"}'::json,
  '{"transaction_id":"time 1","customer_id":"acme","event_name":"call","timestamp":"2026-02-30T00:00:00Z"}'::json,
  '{"transaction_id":"time 2","customer_id":"acme","event_name":"call","timestamp":"2026-01-31T12:00:00"}'::json,
  '{"transaction_id":"time 3","customer_id":"acme","event_name":"call","timestamp":"2026-01-31T25:00:00Z"}'::json,
  '{"transaction_id":"time 4","customer_id":"acme","event_name":"call","timestamp":true}'::json,
  '{"transaction_id":"time 5","customer_id":"acme","event_name":"call","timestamp":""}'::json,
  '{"transaction_id":"time 6","customer_id":"acme","event_name":"call","timestamp":1e30}'::json,
  '{"transaction_id":"time 7","customer_id":"acme","event_name":"call","timestamp":"infinity"}'::json,
  json_build_object('transaction_id', 'old', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', now() - interval '34 days 1 minute'),
  json_build_object('transaction_id', 'not too old', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', now() - interval '33 days 23 hours 59 minutes'),
  json_build_object('transaction_id', 'ahead', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', now() + interval '1 day 1 minute'),
  json_build_object('transaction_id', 'not too far ahead', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', now() + interval '23 hours 59 minutes'),
  '{"transaction_id":"old millis","customer_id":"acme","event_name":"call","timestamp":0}'::json));
SELECT * FROM pg_temp.send(json_build_array(
  '{"transaction_id":"props 0","customer_id":"acme","event_name":"call","properties":[1]}'::json,
  '{"transaction_id":"props 1","customer_id":"acme","event_name":"call","properties":"{}"}'::json,
  '{"transaction_id":"props 2","customer_id":"acme","event_name":"call","properties":7}'::json,
  '{"transaction_id":"props 3","customer_id":"acme","event_name":"call","properties":null}'::json,
  '{"transaction_id":"props 4","customer_id":"acme","event_name":"call","properties":{"a":"x\u0000y"}}'::json,
  '{"transaction_id":"props 5","customer_id":"acme","event_name":"call","properties":{"a":"\ud800"}}'::json,
  '{"transaction_id":"props 6","customer_id":"acme","event_name":"call","properties":{"a":"\udc00\ud800"}}'::json,
  '{"transaction_id":"props 7","customer_id":"acme","event_name":"call","properties":{"\u0000":1}}'::json,
  '{"transaction_id":"props 8","customer_id":"acme","event_name":"call","properties":{"a":1e999999}}'::json,
  '{"transaction_id":"props 9","customer_id":"acme","event_name":"call","properties":{"a":-1e-999999999999999999999}}'::json,
  '{"transaction_id":"props 10","customer_id":"acme","event_name":"call","properties":{"a":"\ud83d\ude00"}}'::json,
  ('{"transaction_id":"props 11","customer_id":"acme","event_name":"call","properties":{"a":"' || repeat('x', 65536) || '"}}')::json,
  ('{"transaction_id":"props 12","customer_id":"acme","event_name":"call","properties":{"a":' || repeat('[', 100) || repeat(']', 100) || '}}')::json,
  ('{"transaction_id":"' || repeat('i', 513) || '","customer_id":"acme","event_name":"call"}')::json,
  '{"transaction_id":"id\u0000","customer_id":"acme","event_name":"call"}'::json));
-- A property that a meter needs: absent and null are passed over, a number in a text counts, anything else fails.
SELECT * FROM pg_temp.send(json_build_array(
  '{"transaction_id":"value 0","customer_id":"acme","event_name":"metered","properties":{"n":2.5}}'::json,
  '{"transaction_id":"value 1","customer_id":"acme","event_name":"metered","properties":{"n":" +1.5e0 "}}'::json,
  '{"transaction_id":"value 2","customer_id":"acme","event_name":"metered","properties":{"n":null}}'::json,
  '{"transaction_id":"value 3","customer_id":"acme","event_name":"metered"}'::json,
  '{"transaction_id":"value 4","customer_id":"acme","event_name":"metered","properties":{"n":-1}}'::json,
  '{"transaction_id":"value 5","customer_id":"acme","event_name":"metered","properties":{"n":"NaN"}}'::json,
  '{"transaction_id":"value 6","customer_id":"acme","event_name":"metered","properties":{"n":"Infinity"}}'::json,
  '{"transaction_id":"value 7","customer_id":"acme","event_name":"metered","properties":{"n":"1,000"}}'::json,
  '{"transaction_id":"value 8","customer_id":"acme","event_name":"metered","properties":{"n":true}}'::json,
  '{"transaction_id":"value 9","customer_id":"acme","event_name":"metered","properties":{"n":[1]}}'::json,
  '{"transaction_id":"value 10","customer_id":"acme","event_name":"metered","properties":{"n":""}}'::json,
  '{"transaction_id":"value 11","customer_id":"acme","event_name":"metered","properties":{"n":1e24}}'::json,
  '{"transaction_id":"value 12","customer_id":"acme","event_name":"metered","properties":{"n":1e-25}}'::json));
SELECT value FROM meterflow.usage('amounts', :'t', now() + interval '1 hour', 'acme');

-- Text that is not JSON at all is an error, and nothing is stored, whatever stands before the flaw.
\set VERBOSITY sqlstate
SELECT * FROM meterflow.ingest('[{"transaction_id":"torn","customer_id":"acme","event_name":"call"},{"tra');
\set VERBOSITY default
SELECT * FROM meterflow.ingest('"text"');
SELECT * FROM meterflow.ingest('17');
SELECT * FROM meterflow.ingest(NULL);
SELECT * FROM meterflow.ingest('[]', '');
SELECT count(*) FROM stored WHERE transaction_id = 'torn';

-- The setting that bounds an event's size is its owner's to change.
SET meterflow.max_event_bytes = 128;
SELECT size, r.* FROM unnest('{128,129}'::int[]) AS size, pg_temp.send((rpad('{"id":"' || size || '","subject":"acme","type":"call","data":{"a":"', size - 3, 'x')
                                                                           || '"}}')::json) AS r;
RESET meterflow.max_event_bytes;

-- The same key again: a duplicate if all that was sent is the same, however it is written; else a conflict.
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t',
                                             'properties', '{"a":1,"b":{"c":[1,2.5],"d":"é"}}'::json));
SELECT * FROM pg_temp.send(json_build_object('id', 'same', 'subject', 'acme', 'type', 'call', 'time', :t_millis,
                                             'data', '{"b":{"d":"\u00e9","c":[1.0,25e-1]},  "a":0.1e1}'::json));
SELECT * FROM pg_temp.send(json_build_array(
  json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t', 'properties', '{"a":2,"b":{"c":[1,2.5],"d":"é"}}'::json),
  json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t', 'properties', '{"a":1,"b":{"c":[2.5,1],"d":"é"}}'::json),
  json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t', 'properties', '{"a":"1","b":{"c":[1,2.5],"d":"é"}}'::json),
  json_build_object('transaction_id', 'same', 'customer_id', 'other', 'event_name', 'call', 'timestamp', :'t', 'properties', '{"a":1,"b":{"c":[1,2.5],"d":"é"}}'::json),
  json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call2', 'timestamp', :'t', 'properties', '{"a":1,"b":{"c":[1,2.5],"d":"é"}}'::json),
  json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t'::timestamptz + interval '1 us', 'properties', '{"a":1,"b":{"c":[1,2.5],"d":"é"}}'::json),
  json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call', 'properties', '{"a":1,"b":{"c":[1,2.5],"d":"é"}}'::json)));
-- The source is part of the key.
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call', 'source', 'elsewhere', 'timestamp', :'t'));
-- A retry that leaves the time out, as the first try did, is a duplicate, though the time is another.
SELECT * FROM pg_temp.send('{"transaction_id":"untimed","customer_id":"acme","event_name":"call"}');
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'untimed', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t'));
-- In one batch the first counts, and a conflict is a conflict.
SELECT * FROM pg_temp.send('[{"transaction_id":"twin","customer_id":"acme","event_name":"call","properties":{"n":1}},
                             {"transaction_id":"twin","customer_id":"acme","event_name":"call","properties":{"n":1}},
                             {"transaction_id":"twin","customer_id":"acme","event_name":"call","properties":{"n":2}}]');
SELECT properties FROM stored WHERE transaction_id = 'twin';
-- An event that a meter would refuse now, but that came before the meter, stays a duplicate.
SELECT * FROM pg_temp.send('{"transaction_id":"before","customer_id":"acme","event_name":"unmetered","properties":{"n":"many"}}');
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('later', 'unmetered', 'sum', 'n');
SELECT * FROM pg_temp.send('{"transaction_id":"before","customer_id":"acme","event_name":"unmetered","properties":{"n":"many"}}');
-- More than one batch of events in one call.
SELECT r.accepted, r.duplicates, r.failed->0->>'index' AS first, jsonb_array_length(r.failed) AS failed
  FROM meterflow.ingest((SELECT json_agg(json_build_object('transaction_id', 'bulk ' || n % 35000, 'customer_id', 'bulk', 'event_name',
                                                           CASE n WHEN 20000 THEN NULL ELSE 'bulk' END, 'timestamp', :'t') ORDER BY n)
                           FROM generate_series(1, 40000) AS n)) AS r;
SELECT count(*), count(DISTINCT seq) FROM meterflow.events WHERE tenant_id = 'ingest' AND customer_id = 'bulk';

-- The caller's transaction: a rollback leaves nothing, neither event nor key nor usage; so for a savepoint.
BEGIN;
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'gone', 'customer_id', 'tx', 'event_name', 'metered', 'timestamp', :'t', 'properties', '{"n":1}'::json));
SELECT * FROM pg_temp.send('{"transaction_id":"gone too","event_name":"metered"}');
SELECT value FROM meterflow.usage('amounts', :'t', now() + interval '1 hour', 'tx');
ROLLBACK;
SELECT count(*) FROM stored WHERE transaction_id = 'gone';
SELECT count(*) FROM meterflow.rejected_events WHERE transaction_id = 'gone too';
SELECT value FROM meterflow.usage('amounts', :'t', now() + interval '1 hour', 'tx');
BEGIN;
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'kept', 'customer_id', 'tx', 'event_name', 'metered', 'timestamp', :'t', 'properties', '{"n":10}'::json));
SAVEPOINT s;
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'gone', 'customer_id', 'tx', 'event_name', 'metered', 'timestamp', :'t', 'properties', '{"n":1}'::json));
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'gone', 'customer_id', 'tx', 'event_name', 'metered', 'timestamp', :'t', 'properties', '{"n":1}'::json));
ROLLBACK TO s;
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'gone', 'customer_id', 'tx', 'event_name', 'metered', 'timestamp', :'t', 'properties', '{"n":2}'::json));
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'kept', 'customer_id', 'tx', 'event_name', 'metered', 'timestamp', :'t', 'properties', '{"n":10}'::json));
COMMIT;
SELECT value FROM meterflow.usage('amounts', :'t', now() + interval '1 hour', 'tx');

-- What failed is kept as it came; a retry by the sender counts up; repaired, it is sent again and leaves.
TRUNCATE meterflow.rejected_events;
SELECT * FROM pg_temp.send('{"transaction_id":"repair","customer_id":"rep","event_name":"metered","properties":{"n":"3 pieces"}}');
SELECT * FROM pg_temp.send('{"transaction_id":"repair","customer_id":"rep","event_name":"metered","properties":{"n":"3 pieces"}}');
SELECT * FROM pg_temp.send('{"transaction_id":"repair 2","event_name":"metered"}');
SELECT tenant_id, transaction_id, code, message, times, event FROM meterflow.rejected_events ORDER BY id;
SELECT accepted, duplicates, failed->0->>'code' AS code, failed->1->>'code' AS code2 FROM meterflow.retry_rejected();
UPDATE meterflow.rejected_events SET event = replace(event, '"3 pieces"', '3') WHERE transaction_id = 'repair';
SELECT accepted, duplicates, failed FROM meterflow.retry_rejected(ARRAY(SELECT id FROM meterflow.rejected_events WHERE transaction_id = 'repair'));
SELECT transaction_id, code, times FROM meterflow.rejected_events ORDER BY id;
SELECT value FROM meterflow.usage('amounts', :'t', now() + interval '1 hour', 'rep');
UPDATE meterflow.rejected_events SET event = 'no JSON any more';
SELECT accepted, duplicates, failed->0->>'code' AS code, failed->0->>'message' AS message FROM meterflow.retry_rejected();
DELETE FROM meterflow.rejected_events;
SELECT accepted, duplicates, failed FROM meterflow.retry_rejected();

-- ingest_rows: the same for drivers that bind arrays.
SELECT * FROM meterflow.ingest_rows(ARRAY['row 1', 'row 2', 'row 2'], ARRAY['rows', 'rows', 'rows'], ARRAY['metered', 'metered', 'metered'],
                                    ARRAY[:'t', :'t', :'t']::timestamptz[], ARRAY['{"n":1}', '{"n":2}', '{"n":2.0}']::jsonb[]);
SELECT accepted, duplicates, f FROM meterflow.ingest_rows(ARRAY['row 1', NULL, 'row 4', 'row 5', 'row 6'], ARRAY['rows', 'rows', 'rows', 'rows', 'rows'],
                                    ARRAY['metered', 'metered', 'metered', 'metered', 'metered'],
                                    ARRAY[:'t', NULL, NULL, NULL, NULL]::timestamptz[], ARRAY['{"n":1}', NULL, '[]', '{"n":"x"}', NULL]::jsonb[],
                                    ARRAY['', NULL, NULL, NULL, 'src']) LEFT JOIN jsonb_array_elements(failed) AS f ON true;
SELECT value FROM meterflow.usage('amounts', :'t', now() + interval '1 hour', 'rows');
SELECT * FROM meterflow.ingest_rows('{}', '{}', '{}', '{}', '{}');
SELECT * FROM meterflow.ingest_rows(ARRAY['a', 'b'], ARRAY['rows'], ARRAY['metered'], ARRAY[now()], ARRAY['{}']::jsonb[]);
SELECT * FROM meterflow.ingest_rows(ARRAY['a'], ARRAY['rows'], ARRAY['metered'], ARRAY[now()], ARRAY['{}']::jsonb[], ARRAY['s', 's']);
SELECT * FROM meterflow.ingest_rows(ARRAY['a'], ARRAY['rows'], ARRAY['metered'], ARRAY['infinity']::timestamptz[], ARRAY['{}']::jsonb[]);
-- Text through ingest and rows through ingest_rows are one event.
SELECT * FROM pg_temp.send(json_build_object('transaction_id', 'row 2', 'customer_id', 'rows', 'event_name', 'metered', 'timestamp', :'t', 'properties', '{"n":2}'::json));
SELECT event FROM meterflow.rejected_events WHERE transaction_id = 'row 5';

-- The asynchronous door: what COPY brings in is stored by a drain, as if it had come when it was received.
BEGIN;
COPY meterflow.inbox (event) FROM stdin;
{"transaction_id":"inbox 1","customer_id":"box","event_name":"metered","properties":{"n":1}}
[{"transaction_id":"inbox 2","customer_id":"box","event_name":"metered","properties":{"n":2}},{"transaction_id":"inbox 3","customer_id":"box","event_name":"metered","properties":{"n":"x"}}]
{"transaction_id":"inbox 1","customer_id":"box","event_name":"metered","properties":{"n":1}}
not JSON
\.
INSERT INTO meterflow.inbox (event, tenant_id) VALUES ('{"transaction_id":"inbox 1","customer_id":"box","event_name":"metered","properties":{"n":100}}', 'ingest 2');
SELECT meterflow.drain_inbox(2);
SELECT meterflow.drain_inbox();
SELECT meterflow.drain_inbox();
SELECT count(*) FROM meterflow.inbox;
COMMIT;
SELECT value FROM meterflow.usage('amounts', :'t', now() + interval '1 hour', 'box');
SELECT transaction_id, code, event FROM meterflow.rejected_events WHERE transaction_id = 'inbox 3' OR event = 'not JSON' ORDER BY 3;

-- Tenants are separate: keys, events, rejected events, usage. An argument wins over the setting.
SET meterflow.tenant = 'ingest 2';
SELECT transaction_id FROM stored;
SELECT * FROM meterflow.usage('amounts', :'t', now(), 'acme');
SELECT accepted, duplicates, failed FROM meterflow.ingest(json_build_object('transaction_id', 'same', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t'));
SELECT accepted, duplicates, failed FROM meterflow.ingest(json_build_object('transaction_id', 'third', 'customer_id', 'acme', 'event_name', 'call', 'timestamp', :'t'), 'ingest 3');
SELECT tenant_id, transaction_id FROM meterflow.events WHERE tenant_id LIKE 'ingest _' ORDER BY 1, 2;
SELECT accepted, duplicates, failed FROM meterflow.retry_rejected();
RESET meterflow.tenant;
SELECT meterflow.current_tenant();
SET meterflow.tenant = 'ingest';

-- All of the above adds up.
SELECT * FROM meterflow.verify();

-- The same key several times in a batch: each is compared with what the key holds, not with the first of the batch.
SELECT accepted FROM meterflow.ingest('{"transaction_id":"thrice","customer_id":"c","event_name":"e","properties":{"v":1}}');
SELECT accepted, duplicates, (SELECT string_agg(f ->> 'index' || ' ' || (f ->> 'code'), ', ') FROM jsonb_array_elements(failed) AS f) AS failed
  FROM meterflow.ingest('[{"transaction_id":"thrice","customer_id":"c","event_name":"e","properties":{"v":2}},
                          {"transaction_id":"thrice","customer_id":"c","event_name":"e","properties":{"v":1}},
                          {"transaction_id":"thrice","customer_id":"c","event_name":"e","properties":{"v":2}}]');
