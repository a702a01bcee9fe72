-- What usage costs: price models, their explanation, and what is wrong with a bad one.
\set SHOW_CONTEXT never

-- A price is exact, and rounded half away from zero only when there is a currency to round to.
SELECT meterflow.price('{"model":"per_unit","unit_amount":"5.12345"}', 10) AS exact,
       meterflow.price('{"model":"per_unit","unit_amount":"5.12345"}', 10, 'EUR') AS eur,
       meterflow.price('{"model":"per_unit","unit_amount":"5.12345"}', 10, 'JPY') AS jpy,
       meterflow.price('{"model":"per_unit","unit_amount":"5.12345"}', 10, 'KWD') AS kwd,
       meterflow.price('{"model":"per_unit","unit_amount":"0.005"}', -1, 'USD') AS refund;
SELECT meterflow.price('{"model":"per_unit","unit_amount":0.123456789012345678901234}', 1000000) AS all_digits;
SELECT meterflow.price('{"model":"flat","amount":"20"}', 3) AS flat,
       meterflow.price('{"model":"flat","amount":"20"}', 0) AS unused,
       meterflow.price('{"model":"flat","amount":"20","flat_at_zero":true}', 0) AS flat_at_zero;
SELECT meterflow.price(NULL, 1) IS NULL AND meterflow.price('{"model":"flat","amount":"1"}', NULL) IS NULL AS null_in_null_out;
SELECT jsonb_pretty(meterflow.explain_price('{"model":"per_unit","unit_amount":"0.0333"}', 10, 'EUR'));

-- Every model. Bounds are inclusive, packages round up, nothing used costs nothing unless the model says so.
WITH models (name, model) AS (VALUES
  ('graduated', '{"model":"graduated","tiers":[{"up_to":"100","unit_amount":"0.10","flat_amount":"5"},{"up_to":null,"unit_amount":"0.05"}]}'::jsonb),
  ('volume', '{"model":"volume","tiers":[{"up_to":100,"unit_amount":2},{"unit_amount":1}]}'),
  ('volume, flat_at_zero', '{"model":"volume","tiers":[{"up_to":100,"unit_amount":2,"flat_amount":7},{"unit_amount":1}],"flat_at_zero":true}'),
  ('package', '{"model":"package","amount":"5","package_size":"0.3"}'),
  ('package, down', '{"model":"package","amount":"5","package_size":"0.3","rounding":"down"}'),
  ('tiers of packages', '{"model":"graduated","tiers":[{"up_to":100,"amount":3,"package_size":40},{"amount":4,"package_size":40}]}'),
  ('percentage', '{"model":"percentage","rate":"2.9"}'),
  ('graduated_percentage', '{"model":"graduated_percentage","tiers":[{"up_to":50,"rate":1},{"rate":"0.5","flat_amount":1}]}'),
  ('dynamic', '{"model":"dynamic","multiplier":"1.2"}'),
  ('free units', '{"model":"per_unit","unit_amount":1,"free_units":60,"usage_discount":"0.9"}'),
  ('hours of seconds', '{"model":"per_unit","unit_amount":1,"unit_conversion":{"factor":3600,"rounding":"up","digits":4}}'),
  ('discount, limits', '{"model":"per_unit","unit_amount":1,"percentage_discount":10,"minimum_spend":20,"maximum_spend":90}'),
  ('commitment', '{"model":"per_unit","unit_amount":1,"commitment":{"amount":"99.95","overage_factor":3,"true_up":true}}')
)
SELECT name, meterflow.price(model, 0) AS "0", meterflow.price(model, 0.3) AS "0.3", meterflow.price(model, 100) AS "100",
       meterflow.price(model, 100.1) AS "100.1", meterflow.price(model, -1) AS "-1" FROM models;
SELECT jsonb_pretty(meterflow.explain_price('{"model":"graduated","tiers":[{"up_to":"100","unit_amount":"0.10","flat_amount":"5"},{"up_to":null,"unit_amount":"0.05"}],"free_units":10,"percentage_discount":50,"minimum_spend":20}', 250, 'USD'));

-- Usage of which more is known: events in order, groups, time buckets.
SELECT meterflow.price_usage('{"model":"percentage","rate":1,"fixed_amount":"0.5","free_events":2,"per_transaction_max":10}',
                             '{"values":[100,200,300,5000]}') AS percentage,
       meterflow.price_usage('{"model":"percentage","rate":1,"fixed_amount":"0.5"}', '{"quantity":5600,"events":4}') AS counted,
       meterflow.price_usage('{"model":"matrix","cells":[{"match":{"region":["eu","us"]},"unit_amount":2}],"default":{"unit_amount":3}}',
                             '{"groups":[{"by":{"region":"eu"},"quantity":5},{"by":{"region":"asia"},"quantity":1},{"by":{"region":"us"},"quantity":2}]}') AS matrix,
       meterflow.price_usage('{"model":"bucketed","price":{"model":"package","amount":1,"package_size":10}}', '{"buckets":[9,0,11]}') AS bucketed;
SELECT jsonb_pretty(meterflow.explain_price_usage(
  '{"model":"matrix","cells":[{"match":{"region":"eu"},"model":"volume","tiers":[{"up_to":5,"unit_amount":2},{"unit_amount":1}]}],"default":{"unit_amount":3}}',
  '{"groups":[{"by":{"region":"eu"},"quantity":6},{"by":{"region":null},"quantity":1}],"terms":{"billed":"4"}}'));
SELECT meterflow.price_needs('{"model":"flat","amount":5}') AS flat,
       meterflow.price_needs('{"model":"bucketed","price":{"model":"matrix","per_group":true,"cells":[{"match":{"zone":"a"},"model":"percentage","rate":1,"free_events":1}],"default":{"unit_amount":1}},"commitment":{"amount":100,"periods":12}}') AS bucketed;

-- Numerics in and out, as PostgreSQL itself reads, multiplies and shows them.
WITH numbers (n) AS (
  SELECT (m::text || repeat('0', z))::numeric * 10::numeric ^ -s
    FROM unnest('{0,1,-1,7,10,9999,10000,10001,-12345678,99999999,100000000,1234567890123456789,98765432109876543210987654321}'::numeric[]) AS m,
         generate_series(0, 13, 3) AS z, generate_series(0, 21) AS s
)
SELECT count(*), count(*) FILTER (WHERE meterflow.price('{"model":"per_unit","unit_amount":1}', n) IS DISTINCT FROM n) AS value_differs,
       count(*) FILTER (WHERE meterflow.price('{"model":"per_unit","unit_amount":1}', n)::text IS DISTINCT FROM trim_scale(n)::text) AS text_differs,
       count(*) FILTER (WHERE meterflow.price('{"model":"per_unit","unit_amount":"0.000371"}', n) IS DISTINCT FROM n * 0.000371) AS product_differs,
       count(*) FILTER (WHERE meterflow.price('{"model":"per_unit","unit_amount":"3"}', n, 'KWD')::text IS DISTINCT FROM round(n * 3, 3)::text) AS money_differs,
       count(*) FILTER (WHERE numeric_send(meterflow.price('{"model":"per_unit","unit_amount":1}', n)) <> numeric_send(trim_scale(n))) AS bytes_differ
  FROM numbers;
-- Quantities and models out of a table, short, long and compressed; models that change from row to row.
CREATE TEMPORARY TABLE priced AS
SELECT n, (n * 0.7)::numeric(12,3) AS quantity,
       CASE n % 3 WHEN 0 THEN '{"model":"per_unit","unit_amount":2}'
                  WHEN 1 THEN '{"model":"flat","amount":"1.50"}'
                  ELSE (SELECT jsonb_build_object('model', 'graduated', 'tiers',
                               jsonb_agg(jsonb_build_object('up_to', CASE WHEN t < 400 THEN t END, 'unit_amount', 1)))
                          FROM generate_series(1, 400) AS t) END AS model
  FROM generate_series(0, 99) AS n;
SELECT count(*), count(*) FILTER (WHERE meterflow.price(model, quantity) IS DISTINCT FROM
         CASE n % 3 WHEN 0 THEN quantity * 2 WHEN 1 THEN 1.5 ELSE quantity END) AS differ FROM priced WHERE n > 0;

-- What can't be priced is refused, and says why.
SELECT meterflow.price('{"model":"graduated","tiers":[{"up_to":10,"unit_amount":1},{"up_to":5,"unit_amount":1},{"unit_amount":1}]}', 1);
SELECT meterflow.price('{"model":"volume","tiers":[{"up_to":10,"unit_amount":1}]}', 1);
SELECT meterflow.price('{"model":"matrix","cells":[{"match":{"region":"eu"},"unit_price":1}],"default":{"unit_amount":1}}', 1);
SELECT meterflow.price('{"model":"per_unit","unit_amount":"1","package_size":"5"}', 1);
SELECT meterflow.price('{"model":"bucketed","price":{"unit_amount":1}}', 1);
SELECT meterflow.price_usage('{"model":"percentage","rate":1,"free_events":2}', '{"quantity":5,"events":3}');
SELECT meterflow.price_usage('{"model":"percentage","rate":1,"free_events":2}', '{"values":[5,"x"]}');
SELECT meterflow.price('{"model":"perunit","unit_amount":"1"}', 1);
SELECT meterflow.price('{"model":"per_unit","unit_amount":"ten"}', 1);
SELECT meterflow.price('{"model":"per_unit","unit_amount":"1"}', 'NaN');
SELECT meterflow.price('{"model":"per_unit","unit_amount":"1"}', 1e-30);
SELECT meterflow.price('{"model":"per_unit","unit_amount":"1e52"}', 1e52);
SELECT meterflow.price('{"model":"per_unit","unit_amount":"1"}', 1, 'usd');
SELECT meterflow.price('{"model":"per_unit","unit_amount":"1"}', 1, 'XAU');
