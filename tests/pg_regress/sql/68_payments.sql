-- What becomes of invoices: given lines, payments, refunds, credit notes, what is overdue, how it is explained. A tenant of
-- its own keeps it apart from the other tests; ids are not shown, numbers are.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'payments';
INSERT INTO meterflow.billing_settings (invoice_format, net_terms, uncollectible_after, seller)
VALUES ('P-{seq:4}', '14 days', '60 days', '{"name": "Example GmbH", "address": ["Hafenstraße 12", "Hamburg"], "payment": "IBAN DE02\nBIC X"}');
INSERT INTO meterflow.taxes (key, name, rate, inclusive, is_default) VALUES ('vat', 'VAT', 19, false, true), ('books', 'Books', 7, true, false);
INSERT INTO meterflow.customers (id, name, email, address) VALUES ('acme', 'Acme', 'pay@acme.example', E'1 Riverside Walk\nLondon'), ('globex', NULL, NULL, NULL);
INSERT INTO meterflow.customers (id, payer_id) VALUES ('acme-lab', 'acme');
CREATE TEMPORARY VIEW invoice_list AS
  SELECT number, kind, status, subtotal, discount, tax, total, credited, amount_due, amount_paid AS paid, amount_offset AS "offset", paid_at IS NOT NULL AS has_paid_at
    FROM meterflow.invoices WHERE tenant_id = 'payments' ORDER BY sequence NULLS LAST, id;
CREATE TEMPORARY VIEW credit_list AS
  SELECT source, amount, left_over FROM (SELECT a.source, a.amount, c.left_over FROM meterflow.account_credits a
    LEFT JOIN meterflow.open_account_credits(a.customer_id, a.currency) c ON c.id = a.id WHERE a.tenant_id = 'payments' ORDER BY a.id) l;

-- Lines given by hand, with taxes: one with a rate of its own, included.
SELECT meterflow.create_invoice('acme-lab', 'EUR', '[{"description":"Setup","amount":"250"},{"description":"Hours","quantity":"3.5","unit_amount":"120.333"},
  {"description":"Manual","amount":10.70,"taxes":["books"]}]', 'one', notes => E'Thank you.\nCome again.') AS one \gset
SELECT * FROM invoice_list;
SELECT line, kind, description, customer_id, quantity, unrounded, amount, taxable, tax, total FROM meterflow.invoice_lines WHERE tenant_id = 'payments' ORDER BY line;
SELECT customer_id, due_at - issued_at AS terms, notes FROM meterflow.invoices WHERE id = :one AND tenant_id = 'payments';
-- Again is the same; something else under its key is not.
SELECT meterflow.create_invoice('acme-lab', 'EUR', '[{"description":"Setup","amount":"250"},{"description":"Hours","quantity":"3.5","unit_amount":"120.333"},
  {"description":"Manual","amount":10.70,"taxes":["books"]}]', 'one', notes => E'Thank you.\nCome again.') = :one AS same;
\set VERBOSITY terse
SELECT meterflow.create_invoice('acme-lab', 'EUR', '[{"description":"Setup","amount":"251"}]', 'one');
\set VERBOSITY default
-- What can be no invoice.
SELECT meterflow.create_invoice('nobody', 'EUR', '[{"description":"Setup","amount":"1"}]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '{}', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Setup","amount":"1","unit_amount":"1"}]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Setup"}]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":" ","amount":"1"}]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Setup","amount":"a lot"}]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Setup","amount":"1","tax":"vat"}]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Setup","amount":"1","taxes":["gst"]}]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Setup","amount":"-1"}]', 'bad');
SELECT meterflow.create_invoice('acme', 'XAU', '[{"description":"Setup","amount":"1"}]', 'bad');
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Setup","amount":"1"}]', '');
SELECT count(*) AS keys_of_refused FROM meterflow.invoice_requests WHERE idempotency_key = 'bad';

-- Payments: a part, a retry, the rest and more. What is too much is credit, and pays the next invoice.
SELECT meterflow.record_payment(:one, 300, 'p1', 'tr_1', 'card') AS p1 \gset
SELECT meterflow.record_payment(:one, 300.00, 'p1', 'tr_1', 'card') = :p1 AS same;
\set VERBOSITY terse
SELECT meterflow.record_payment(:one, 301, 'p1', 'tr_1', 'card');
SELECT meterflow.record_payment(:one, 300, 'p1', 'tr_2', 'card');
\set VERBOSITY default
SELECT * FROM invoice_list;
SELECT * FROM meterflow.invoice_standing(:one);
SELECT meterflow.record_payment(:one, 600, 'p2', received_at => now() + interval '3 days') AS p2 \gset
SELECT * FROM invoice_list;
SELECT * FROM meterflow.invoice_standing(:one);
SELECT * FROM credit_list;
SELECT meterflow.record_payment(:one, 0, 'p3');
SELECT meterflow.record_payment(:one, 'NaN', 'p3');
SELECT meterflow.record_payment(:one, 1.001, 'p3');
SELECT meterflow.record_payment(:one, 1, '');
SELECT meterflow.record_payment(-1, 1, 'p3');
UPDATE meterflow.payments SET amount = 1;
DELETE FROM meterflow.payments;

-- Coupon, tax and credit on an invoice of given lines: a draft first. What is final is computed when it is finalized.
INSERT INTO meterflow.coupons (code, kind, value) VALUES ('TEN', 'percentage', 10);
SELECT meterflow.redeem_coupon('acme', 'TEN', 'r1') > 0 AS redeemed;
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Seats","quantity":"3","unit_amount":"33.33"}]', 'two', finalize => false) AS two \gset
SELECT * FROM invoice_list WHERE number IS NULL;
\set VERBOSITY terse
SELECT meterflow.record_payment(:two, 1, 'p3');
SELECT meterflow.create_credit_note(:two, 'n0', 'draft');
\set VERBOSITY default
SELECT meterflow.invoice_state(:two);
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Quick","amount":"100"}]', 'three') AS three \gset
SELECT meterflow.finalize_invoice(:two, 'f1') = :two AS keeps_its_id;
SELECT meterflow.finalize_invoice(:two, 'f1') = :two AS same;
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Seats","quantity":"3","unit_amount":"33.33"}]', 'two', finalize => false) = :two AS same;
SELECT * FROM invoice_list;
SELECT * FROM credit_list;
SELECT meterflow.create_invoice('acme', 'EUR', '[{"description":"Mistake","amount":"1"}]', 'four', finalize => false) AS four \gset
SELECT meterflow.discard_draft(:four), meterflow.discard_draft(:four) AS again;
SELECT meterflow.discard_draft(:two);

-- Refunds: of no more than a payment was, nor of what became credit. Without a credit note the invoice is due again.
\set VERBOSITY terse
SELECT meterflow.refund_payment(:p1, 300.01, 'x1');
SELECT meterflow.refund_payment(:p2, 509.40, 'x1');
\set VERBOSITY default
SELECT meterflow.refund_payment(:p1, 200, 'x1', method => 'card') AS x1 \gset
SELECT meterflow.refund_payment(:p1, 200, 'x1', method => 'card') = :x1 AS same;
\set VERBOSITY terse
SELECT meterflow.refund_payment(:p1, 100, 'x1', method => 'card');
SELECT meterflow.record_payment(:one, 200, 'x1');
\set VERBOSITY sqlstate
SELECT meterflow.refund_payment(:x1, 1, 'x2');
\set VERBOSITY default
SELECT * FROM invoice_list LIMIT 1;
SELECT * FROM meterflow.invoice_standing(:one);
SELECT meterflow.record_payment(:one, 200, 'p4') > 0 AS paid_again;
SELECT * FROM invoice_list LIMIT 1;
SELECT kind, amount, overpaid, method, external_reference FROM meterflow.payments WHERE tenant_id = 'payments' ORDER BY id;

-- Credit notes in parts that add up to the invoice, to the cent in every column.
SELECT meterflow.create_invoice('globex', 'EUR', '[{"description":"A","amount":"100.01"},{"description":"B","amount":"33.33","taxes":["vat","books"]}]', 'five') AS five \gset
SELECT meterflow.record_payment(:five, 60, 'p5') AS p5 \gset
SELECT * FROM meterflow.invoice_standing(:five);
SELECT meterflow.create_credit_note(:five, 'n1', 'late', '{"1":"33.34","2":"11.11"}') AS n1 \gset
SELECT meterflow.create_credit_note(:five, 'n1', 'late', '{"1":"33.34","2":"11.11"}') = :n1 AS same;
\set VERBOSITY terse
SELECT meterflow.create_credit_note(:five, 'n1', 'late', '{"1":"33.34","2":"11.12"}');
\set VERBOSITY default
SELECT meterflow.create_credit_note(:five, 'n2', 'half', '{"1":"50","2":0.01}', refund => 20) AS n2 \gset
SELECT meterflow.create_credit_note(:five, 'n3', 'rest') AS n3 \gset
SELECT number, reason, subtotal, tax, total, refund, credit, offset_amount, refunded FROM meterflow.credit_notes WHERE tenant_id = 'payments' ORDER BY id;
SELECT line, sum(l.amount) = i.amount AS amount, sum(l.taxable) = i.taxable AS taxable, sum(l.tax) = i.tax AS tax, sum(l.total) = i.total AS total
  FROM meterflow.credit_note_lines AS l JOIN meterflow.invoice_lines AS i USING (tenant_id, invoice_id, line) WHERE l.tenant_id = 'payments' AND l.invoice_id = :five
 GROUP BY line, i.amount, i.taxable, i.tax, i.total ORDER BY line;
SELECT sum(n.total) = i.total AS whole FROM meterflow.credit_notes AS n JOIN meterflow.invoices AS i ON i.id = n.invoice_id WHERE n.invoice_id = :five GROUP BY i.total;
SELECT * FROM invoice_list OFFSET 3;
SELECT * FROM credit_list;
-- Not a cent more.
SELECT meterflow.create_credit_note(:five, 'n4', 'more', '{"1":"0.01"}');
SELECT meterflow.create_credit_note(:five, 'n4', 'more');
SELECT meterflow.create_credit_note(:three, 'n4', 'bad', '{"2":"1"}');
SELECT meterflow.create_credit_note(:three, 'n4', 'bad', '["1"]');
SELECT meterflow.create_credit_note(:three, 'n4', 'bad', '{"1":"0.001"}');
SELECT meterflow.create_credit_note(:three, 'n4', 'bad', '{"1":"-1"}');
SELECT meterflow.create_credit_note(:three, 'n4', 'bad', '{"1":"1"}', refund => 2);
SELECT meterflow.create_credit_note(:three, 'n4', 'bad', '{"1":"10"}', refund => 10.71);
SELECT meterflow.create_credit_note(:one, 'n4', 'bad', '{"1":"10"}', "offset" => 11.90);
SELECT meterflow.create_credit_note(:three, 'n4', '');
-- The refund that a note promised leaves the invoice as it is, and is not made twice.
SELECT meterflow.refund_payment(:p5, 20.01, 'x3', credit_note_id => :n2);
SELECT meterflow.refund_payment(:p5, 1, 'x3', credit_note_id => :n1);
SELECT meterflow.refund_payment(:p5, 40.01, 'x3');
SELECT meterflow.refund_payment(:p5, 15, 'x3', credit_note_id => :n2) > 0 AS refunded;
SELECT meterflow.refund_payment(:p5, 5.01, 'x4', credit_note_id => :n2);
SELECT meterflow.refund_payment(:p5, 5, 'x4', credit_note_id => :n2) > 0 AS refunded;
SELECT number, refund, refunded FROM meterflow.credit_notes WHERE tenant_id = 'payments' ORDER BY id;
SELECT * FROM invoice_list OFFSET 3;
UPDATE meterflow.credit_notes SET total = 1;
UPDATE meterflow.credit_notes SET refunded = 0;
DELETE FROM meterflow.credit_note_lines;

-- Dunning: what an invoice was is a function of time.
SELECT meterflow.create_invoice('globex', 'EUR', '[{"description":"Slow","amount":"100","taxes":[]}]', 'six') AS six \gset
SELECT total, credited, amount_due FROM meterflow.invoices WHERE id = :six;
SELECT meterflow.record_payment(:six, 10, 'p6', received_at => now() + interval '20 days') > 0 AS part;
SELECT days, meterflow.invoice_state(:six, i.issued_at + make_interval(days => days)) AS state, s.paid, s.open_amount, r.days_overdue, r.age
  FROM meterflow.invoices AS i, unnest(ARRAY[-1, 0, 14, 15, 20, 44, 45, 74, 75, 105]) AS days
  LEFT JOIN LATERAL meterflow.invoice_states(i.issued_at + make_interval(days => days)) AS s ON s.invoice_id = :six
  LEFT JOIN LATERAL meterflow.receivables(i.issued_at + make_interval(days => days)) AS r ON r.invoice_id = :six
 WHERE i.tenant_id = 'payments' AND i.id = :six ORDER BY days;
SELECT * FROM meterflow.receivables_by_age(now() + interval '50 days');
SELECT * FROM meterflow.receivables_by_age(now());
SELECT meterflow.invoice_state(-1) IS NULL AS none;
SELECT meterflow.create_invoice('globex', 'EUR', '[{"description":"Wrong","amount":"5","taxes":[]}]', 'seven') AS seven \gset
SELECT meterflow.void_invoice(:seven, 'wrong');
SELECT meterflow.invoice_state(:seven, now() - interval '1 day') AS before, meterflow.invoice_state(:seven, now() + interval '1 day') AS after;
SELECT meterflow.record_payment(:seven, 1, 'p7');
SELECT meterflow.create_credit_note(:seven, 'n7', 'void');

-- Invoices of usage: how the amounts came to be, and what is printed. Last month, in a zone with its own midnight.
INSERT INTO meterflow.customers (id, name, timezone) VALUES ('initech', 'Initech', 'America/New_York');
INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('tokens', 'gen', 'sum', 'n');
INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'USD');
INSERT INTO meterflow.prices (plan_key, key, name, meter_key, model) VALUES
  ('pro', 'tokens', 'Tokens', 'tokens', '{"model":"graduated","tiers":[{"up_to":"1000","unit_amount":"0"},{"up_to":"5000","unit_amount":"0.0123"},{"up_to":null,"unit_amount":"0.01"}]}'),
  ('pro', 'seat', 'Seats', NULL, '{"model":"per_unit","unit_amount":"10"}');
SELECT date_trunc('month', now() AT TIME ZONE 'America/New_York') AT TIME ZONE 'America/New_York' AS this_month,
       (date_trunc('month', now() AT TIME ZONE 'America/New_York') - interval '1 month') AT TIME ZONE 'America/New_York' AS last_month \gset
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at, quantities) VALUES ('initech', 'pro', :'last_month', '{"seat": 3}');
SELECT accepted FROM meterflow.ingest(json_build_object('transaction_id', 'e1', 'customer_id', 'initech', 'event_name', 'gen', 'timestamp', :'this_month'::timestamptz - interval '2 hours', 'properties', json_build_object('n', 7500)));
CALL meterflow.run_billing(:'this_month');
SELECT id AS usage_invoice FROM meterflow.invoices WHERE customer_id = 'initech' AND tenant_id = 'payments' \gset
SELECT jsonb_pretty(l - 'period' - 'charged_for' - 'subscription') AS line FROM jsonb_array_elements(meterflow.explain_invoice(:usage_invoice)->'lines') AS l;
SELECT jsonb_pretty(meterflow.explain_invoice(:usage_invoice) - 'lines' - 'invoice') AS explanation;
-- An event that comes late is an adjustment that names the invoice.
SELECT accepted FROM meterflow.ingest(json_build_object('transaction_id', 'e2', 'customer_id', 'initech', 'event_name', 'gen', 'timestamp', :'this_month'::timestamptz - interval '1 hour', 'properties', json_build_object('n', 500)));
CALL meterflow.run_billing(:'this_month'::timestamptz + interval '32 days');
SELECT id AS next_invoice FROM meterflow.invoices WHERE customer_id = 'initech' AND tenant_id = 'payments' AND id <> :usage_invoice \gset
SELECT jsonb_pretty(jsonb_build_object('due', l->'due', 'billed_before', l->'billed_before', 'adjusts', l#>'{adjusts,number}', 'amount', l->'amount', 'steps', jsonb_array_length(l#>'{computed,steps}'))) AS line
  FROM jsonb_array_elements(meterflow.explain_invoice(:next_invoice)->'lines') AS l WHERE l->>'kind' = 'adjustment';
SELECT meterflow.explain_invoice(-1);

-- The documents: amounts add up as they are printed.
SELECT jsonb_pretty(meterflow.invoice_document(:one) - 'issued_at' - 'due_at' #- '{payments,0,name}' #- '{payments,1,name}' #- '{payments,2,name}' #- '{payments,3,name}' #- '{payments,4,name}') AS given_lines;
SELECT jsonb_pretty((meterflow.invoice_document(:usage_invoice) - 'issued_at' - 'due_at' - 'period' - 'seller')) AS usage_lines;
SELECT meterflow.invoice_document(:usage_invoice)->'period' = jsonb_build_object('start', (:'last_month'::timestamptz AT TIME ZONE 'America/New_York')::date,
       'end', (:'this_month'::timestamptz AT TIME ZONE 'America/New_York')::date - 1) AS whole_month;
SELECT jsonb_pretty(jsonb_agg(l - 'adjusts' - 'period')) AS adjustment FROM jsonb_array_elements(meterflow.invoice_document(:next_invoice)->'lines') AS l WHERE l ? 'adjusts';
SELECT jsonb_pretty(meterflow.credit_note_document(:n2) - 'issued_at' - 'seller') AS credit_note;
SELECT number, d->'totals' AS totals, abs(n.subtotal + n.discounts + n.credits + n.tax - n.inclusive - n.total) + abs(n.total + n.paid - n.due) = 0 AS adds_up,
       n.subtotal = (SELECT sum(replace(l->>'amount', ',', '')::numeric) FROM jsonb_array_elements(d->'lines') AS l) AS lines_add_up
  FROM (SELECT i.number, i.sequence, meterflow.invoice_document(i.id) AS d FROM meterflow.invoices AS i WHERE i.tenant_id = 'payments' AND i.status <> 'void') AS i,
       LATERAL (SELECT coalesce(replace(d#>>'{totals,subtotal}', ',', '')::numeric, 0) AS subtotal, coalesce(replace(d#>>'{totals,discounts}', ',', '')::numeric, 0) AS discounts,
                       coalesce(replace(d#>>'{totals,credits}', ',', '')::numeric, 0) AS credits, coalesce(replace(d#>>'{totals,tax}', ',', '')::numeric, 0) AS tax,
                       (SELECT coalesce(sum(replace(t->>'amount', ',', '')::numeric), 0) FROM jsonb_array_elements(d->'taxes') AS t WHERE (t->>'inclusive')::boolean) AS inclusive,
                       replace(d#>>'{totals,total}', ',', '')::numeric AS total, coalesce(replace(d#>>'{totals,paid}', ',', '')::numeric, 0) AS paid, replace(d#>>'{totals,due}', ',', '')::numeric AS due) AS n
 ORDER BY sequence;

-- They can be drawn.
SELECT meterflow.invoice_html(:one) LIKE '%P-0001%809.39%' AS html, meterflow.credit_note_html(:n2) LIKE '%Credit note%CN-000002%59.52%' AS note,
       substring(meterflow.credit_note_pdf(:n2) FOR 5) = convert_to('%PDF-', 'UTF8') AS pdf;

-- Every kind of step, as it is printed; money below the cent is printed with all its digits.
SELECT m.name, d->>'description' AS description, d->>'quantity' AS quantity, d->>'unit_amount' AS unit_amount, d->>'amount' AS amount
  FROM (VALUES (1, 'graduated', '{"model":"graduated","tiers":[{"up_to":"10","unit_amount":"0.005","flat_amount":"2"},{"up_to":null,"unit_amount":"0.0025"}]}', '{"quantity":11}'),
               (2, 'volume', '{"model":"volume","tiers":[{"up_to":"10","unit_amount":"2"},{"up_to":null,"unit_amount":"1"}]}', '{"quantity":1200}'),
               (3, 'package', '{"model":"package","amount":"5","package_size":"100"}', '{"quantity":250}'),
               (4, 'percentage', '{"model":"percentage","rate":"2.5","fixed_amount":"0.30"}', '{"quantity":300,"values":[100,200]}'),
               (5, 'around', '{"model":"per_unit","unit_amount":"0.1","free_units":"100","percentage_discount":"10","maximum_spend":"50"}', '{"quantity":1000}'),
               (6, 'least', '{"model":"per_unit","unit_amount":"0.1","minimum_spend":"50","unit_conversion":{"factor":"0.001"}}', '{"quantity":1000}'),
               (7, 'matrix', '{"model":"matrix","dimensions":["region"],"cells":[{"match":{"region":"eu"},"unit_amount":"2"}],"default":{"unit_amount":"3"}}',
                '{"groups":[{"by":{"region":"eu"},"quantity":4},{"by":{"region":"us"},"quantity":1}]}')) AS m (n, name, model, usage),
       LATERAL jsonb_array_elements(meterflow.document_steps(meterflow.explain_price_usage(m.model::jsonb, m.usage::jsonb, 'EUR')->'steps', m.model::jsonb, 'EUR')) WITH ORDINALITY AS e (d, o)
 ORDER BY n, o;

-- A share of a period, prepaid credit, a coupon that is taken off line by line, a currency without decimals.
INSERT INTO meterflow.customers (id) VALUES ('hooli');
INSERT INTO meterflow.plans (key, currency, aligned) VALUES ('yen', 'JPY', true);
INSERT INTO meterflow.prices (plan_key, key, name, model, proration, taxes) VALUES ('yen', 'base', 'Base fee', '{"model":"flat","amount":"31000"}', 'day', '{}');
INSERT INTO meterflow.coupons (code, name, kind, value, level, plans) VALUES ('LINE', 'Launch', 'percentage', 50, 'line', '{yen}');
SELECT meterflow.redeem_coupon('hooli', 'LINE', 'r2') > 0 AS redeemed;
SELECT meterflow.top_up('hooli', 100, 'JPY', 't1') > 0 AS prepaid;
INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('hooli', 'yen', '2026-07-22');
CALL meterflow.run_billing('2026-08-01');
SELECT id AS yen FROM meterflow.invoices WHERE customer_id = 'hooli' AND tenant_id = 'payments' \gset
SELECT jsonb_pretty(l - 'subscription') AS share FROM jsonb_array_elements(meterflow.explain_invoice(:yen)->'lines') AS l;
SELECT jsonb_pretty(meterflow.explain_invoice(:yen)->'coupons') AS coupons, jsonb_array_length(meterflow.explain_invoice(:yen)->'credits') AS credits;
SELECT jsonb_pretty(meterflow.invoice_document(:yen) - 'seller' - 'payment_instructions') AS share;
SELECT meterflow.record_payment(:yen, 0.5, 'p8');
SELECT meterflow.record_payment(:yen, 4900, 'p8') > 0 AS paid;
SELECT meterflow.create_credit_note(:yen, 'n8', 'part', '{"1": 3}') AS n8 \gset
SELECT amount, discount, total FROM meterflow.credit_note_lines WHERE credit_note_id = :n8;
SELECT meterflow.create_credit_note(:yen, 'n9', 'rest') AS n9 \gset
SELECT amount, discount, total FROM meterflow.credit_note_lines WHERE credit_note_id = :n9;

-- The books are right, and it is seen when they are not.
SELECT * FROM meterflow.verify_billing();
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE meterflow.invoices SET amount_paid = amount_paid + 1 WHERE id = :six;
UPDATE meterflow.invoice_lines SET amount = amount + 1 WHERE tenant_id = 'payments' AND invoice_id = :one AND line = 1;
DELETE FROM meterflow.credit_notes WHERE id = :n2;
UPDATE meterflow.credit_note_lines SET amount = amount + 100 WHERE credit_note_id = :n3 AND line = 1;
UPDATE meterflow.account_credits SET amount = amount - 1 WHERE tenant_id = 'payments' AND source = 'overpayment';
DELETE FROM meterflow.invoices WHERE id = :three;
UPDATE meterflow.invoice_lines SET due_amount = due_amount + 1, billed_before = billed_before + 1 WHERE tenant_id = 'payments' AND invoice_id = :next_invoice AND adjusts IS NOT NULL;
UPDATE meterflow.wallet_transactions SET amount = -101 WHERE tenant_id = 'payments' AND kind = 'invoice';
UPDATE meterflow.invoice_credits SET amount = amount + 1 WHERE tenant_id = 'payments' AND source = 'account' AND invoice_id = :six;
INSERT INTO meterflow.payments (invoice_id, kind, amount, payment_id, received_at, idempotency_key, body_hash) VALUES (:one, 'refund', 1000, :p1, now(), 'forged', '');
SELECT problem, regexp_replace(detail, '(credit|of subscription|price|overpayment|credit_note) \d+|from .*:', '\1 ...', 'g') AS detail FROM meterflow.verify_billing() ORDER BY 1, 2;
ROLLBACK;
SELECT * FROM meterflow.verify_billing();

-- Whatever comes in whatever order, every cent is somewhere: what customers paid and did not get back is what they were
-- charged and not credited, less what they still owe, with their unused credit and what notes still promise to refund.
SET meterflow.tenant = 'payments at random';
INSERT INTO meterflow.customers (id) SELECT 'c' || c FROM generate_series(1, 5) AS c;
INSERT INTO meterflow.taxes (key, name, rate, inclusive, is_default) VALUES ('a', 'A', 19, false, true), ('b', 'B', 7.7, true, true);
INSERT INTO meterflow.coupons (code, kind, value) VALUES ('third', 'percentage', 33.3);
SELECT count(meterflow.redeem_coupon('c1', 'third', 'third')) AS redeemed;
CREATE TEMPORARY TABLE outcomes (step integer, verb text, outcome text);
SELECT setseed(0.42);
DO $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  verb text; invoice meterflow.invoices; payment bigint; note bigint; cents numeric;
BEGIN
  FOR step IN 1..1000 LOOP
    verb := (ARRAY['invoice', 'invoice', 'payment', 'payment', 'refund', 'refund a note', 'note', 'note', 'void'])[1 + floor(random() * 9)];
    cents := round((random() * random() * 200)::numeric, 2);
    SELECT i.* INTO invoice FROM meterflow.invoices AS i WHERE i.tenant_id = tenant
     ORDER BY verb = 'refund' AND i.amount_paid = 0, verb = 'refund a note' AND NOT EXISTS (SELECT FROM meterflow.credit_notes AS n WHERE n.tenant_id = tenant AND n.invoice_id = i.id AND n.refunded < n.refund), random() LIMIT 1;
    SELECT p.id INTO payment FROM meterflow.payments AS p WHERE p.tenant_id = tenant AND p.invoice_id = invoice.id AND p.kind = 'payment' ORDER BY random() LIMIT 1;
    SELECT n.id INTO note FROM meterflow.credit_notes AS n WHERE n.tenant_id = tenant AND n.invoice_id = invoice.id ORDER BY n.refund - n.refunded DESC LIMIT 1;
    BEGIN
      CASE verb
        WHEN 'invoice' THEN PERFORM meterflow.create_invoice('c' || 1 + floor(random() * 5), 'EUR', jsonb_build_array(
          jsonb_build_object('description', 'x', 'amount', cents), jsonb_build_object('description', 'y', 'quantity', '1.5', 'unit_amount', cents / 3)), 'i' || step);
        WHEN 'payment' THEN PERFORM meterflow.record_payment(invoice.id, cents, 'p' || step);
        WHEN 'refund' THEN PERFORM meterflow.refund_payment(payment, cents, 'p' || step);
        WHEN 'refund a note' THEN PERFORM meterflow.refund_payment(payment, round(cents / 5, 2), 'p' || step, credit_note_id => note);
        WHEN 'note' THEN PERFORM meterflow.create_credit_note(invoice.id, 'n' || step, 'r', CASE WHEN random() < 0.8 THEN jsonb_build_object(1 + floor(random() * 2), cents) END,
                                                              refund => CASE WHEN random() < 0.7 THEN round(cents * random()::numeric, 2) END);
        WHEN 'void' THEN PERFORM meterflow.void_invoice(invoice.id, 'r');
      END CASE;
      INSERT INTO outcomes VALUES (step, verb, 'done');
    EXCEPTION WHEN invalid_parameter_value OR object_not_in_prerequisite_state OR null_value_not_allowed OR foreign_key_violation THEN
      INSERT INTO outcomes VALUES (step, verb, 'refused');
    END;
    IF step % 50 = 0 AND EXISTS (SELECT FROM meterflow.verify_billing()) THEN
      RAISE EXCEPTION 'step %: after a % of % on %: %', step, verb, cents, invoice, (SELECT jsonb_agg(v) FROM meterflow.verify_billing() AS v);
    END IF;
  END LOOP;
END $$;
SELECT verb, count(*) FILTER (WHERE outcome = 'done') > 5 AS done, count(*) FILTER (WHERE outcome = 'refused') > 0 AS refused FROM outcomes GROUP BY verb ORDER BY verb;
SELECT count(*) > 50 AS many, bool_and(s.balance = i.amount_due - i.amount_paid - i.amount_offset) AS standing_agrees, bool_and(i.status = t.state OR t.state = 'open' AND i.status = 'finalized') AS state_agrees
  FROM meterflow.invoices AS i, meterflow.invoice_standing(i.id) AS s, meterflow.invoice_states(now() + interval '1 minute') AS t WHERE i.tenant_id = 'payments at random' AND i.status <> 'void' AND t.invoice_id = i.id;
SELECT paid - refunded = charged - noted - owed + unused + promised AS every_cent, least(paid, refunded, charged, noted, owed, unused, promised) > 0 AS some_of_each
  FROM (SELECT (SELECT sum(p.amount) FROM meterflow.payments AS p WHERE p.tenant_id = t AND p.kind = 'payment') AS paid, (SELECT sum(p.amount) FROM meterflow.payments AS p WHERE p.tenant_id = t AND p.kind = 'refund') AS refunded,
               (SELECT sum(i.total) FROM meterflow.invoices AS i WHERE i.tenant_id = t AND i.status <> 'void') AS charged, (SELECT sum(n.total) FROM meterflow.credit_notes AS n WHERE n.tenant_id = t) AS noted,
               (SELECT sum(r.open_amount) FROM meterflow.receivables(now() + interval '1 minute') AS r) AS owed,
               (SELECT sum(c.left_over) FROM meterflow.customers AS u, meterflow.open_account_credits(u.id, 'EUR') AS c WHERE u.tenant_id = t) AS unused, (SELECT sum(n.refund - n.refunded) FROM meterflow.credit_notes AS n WHERE n.tenant_id = t) AS promised
          FROM meterflow.current_tenant() AS t) AS m;
