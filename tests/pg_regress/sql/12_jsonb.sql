-- Properties are written as jsonb without jsonb_in: the bytes must be the same as its.
SELECT pg_catalog.set_config('meterflow.tenant', 'jsonb', false);
CREATE TEMP TABLE sent (id int PRIMARY KEY, properties text);
INSERT INTO sent VALUES
  (1, '{}'), (2, '{"a": 1}'), (3, '{"bb": 1, "a": 2, "ccc": 3, "ab": 4}'), (4, '{"a": 1, "a": 2, "b": 3, "a": null}'),
  (5, '{"n": [0, -0, 0.0, -0.0, 0.00, 1, 10, 100, 1000, 10000, 100000, 1.0, 1.50, 0.1, 0.01, 0.0001, 0.00001, 0.000123, 12345.6789, -12345.6789]}'),
  (6, '{"e": [1e0, 1E5, 1e-5, 1.5e3, -2.5E-10, 0e10, 123456789012345678901234567890.12345678901234567890123456789]}'),
  (7, '{"s": ["", "x", "\"\\\/\b\f\n\r\t", "\u00e9\u20ac\ud83d\ude00", "é€😀"]}'),
  (8, '{"nested": {"a": {"b": {"c": [1, [2, [3, {"d": []}]]]}}, "x": {}}, "t": true, "f": false, "z": null}'),
  (9, '{"99999999999999999999999999999999999999999999999999999999999": 99999999999999999999999999999999999999999999999999999999999, "d": 0.99999999999999999999999999999999999999999999999999999999}'),
  (10, '{"0": 9999, "1": 99990000, "2": 0.9999, "3": 0.00009999, "4": 10000.0001, "5": 1000000000000000000000.0000000000000000000001}');
-- More entries than one stride, of all kinds; then random ones.
INSERT INTO sent SELECT 11, jsonb_object_agg('key' || i, CASE i % 5 WHEN 0 THEN to_jsonb(i) WHEN 1 THEN to_jsonb('v' || i) WHEN 2 THEN 'null' WHEN 3 THEN to_jsonb(i * 1.25) ELSE jsonb_build_array(i, i::text) END)::text FROM generate_series(1, 100) i;
INSERT INTO sent SELECT 12, json_build_object('list', array_agg(i * 0.5))::text FROM generate_series(1, 200) i;
SELECT pg_catalog.setseed(0.42);
INSERT INTO sent SELECT 100 + n, '{' || string_agg(format('"%s": %s', left(md5(random()::text), 1 + (random() * 9)::int),
    CASE (random() * 3)::int WHEN 0 THEN trim_scale((random() * 10 ^ (random() * 20)::int)::numeric)::text WHEN 1 THEN round((random() - 0.5)::numeric, (random() * 12)::int)::text WHEN 2 THEN '"' || md5(random()::text) || '"' ELSE (random() > 0.5)::text END), ', ') || '}'
  FROM generate_series(1, 500) n, generate_series(1, 8) GROUP BY n;
SELECT accepted, failed FROM meterflow.ingest((SELECT json_agg(json_build_object('transaction_id', 'jsonb-' || id, 'customer_id', 'c', 'event_name', 'e', 'properties', properties::json)) FROM sent));
SELECT count(*) AS compared,
       count(*) FILTER (WHERE e.properties = s.properties::jsonb) AS equal,
       count(*) FILTER (WHERE e.properties::text = s.properties::jsonb::text) AS same_text,
       count(*) FILTER (WHERE pg_column_size(e.properties || '{}') = pg_column_size(s.properties::jsonb || '{}')) AS same_size
  FROM sent s JOIN meterflow.events e ON e.tenant_id = 'jsonb' AND e.transaction_id = 'jsonb-' || s.id;
-- Operators walk the stored bytes.
SELECT s.id, key FROM sent s JOIN meterflow.events e ON e.tenant_id = 'jsonb' AND e.transaction_id = 'jsonb-' || s.id, jsonb_each(s.properties::jsonb)
 WHERE NOT e.properties ? key OR e.properties -> key IS DISTINCT FROM value OR NOT e.properties @> jsonb_build_object(key, value);
