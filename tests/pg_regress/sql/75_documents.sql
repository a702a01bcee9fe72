-- Invoices on paper. What the pages look like is tested by tests/documents.rs; here is what SQL makes of it.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'documents';

-- Money and quantities as they are written, whatever the session's locale.
SELECT amount, currency, meterflow.format_amount(amount, currency)
  FROM (VALUES (1234.5, 'EUR'), (1234.5, 'JPY'), (1234.5, 'KWD'), (-0.004, 'USD'), (-0.005, 'USD'), (-1234567.891, 'USD'), (0, 'CLF'), (1e30, 'USD')) AS v (amount, currency);
SELECT meterflow.format_amount(1, 'XYZ');
SELECT quantity, meterflow.format_quantity(quantity)
  FROM (VALUES (0::numeric), (1), (12480000), (0.000018), (-12.50), (-0.5), (1234567.000000000001), (1.000)) AS v (quantity);

-- HTML: the sample has something of everything; nothing in a document is markup.
SELECT html LIKE '<!DOCTYPE html>%' AS html, html LIKE '%INV-2026-0042%' AS number, html LIKE '%−0.25%' AS negative, html ~ '<script|src=|http' AS reaches_out
  FROM meterflow.render_html(meterflow.sample_document()) AS html;
SELECT substring(html FROM '[^>]*alert[^<]*') AS customer
  FROM meterflow.render_html(jsonb_set(meterflow.sample_document(), '{customer,name}', '"<script>alert(''x'')</script> & \"Co\""')) AS html;
SELECT meterflow.render_html(meterflow.sample_document(), '{% for line in document.lines %}{{ line.description }}: {{ line.amount }}; {% endfor %}{{ document.customer.email is none }}');
SELECT meterflow.render_html(NULL), meterflow.render_pdf(NULL);

-- PDF: is one, and is the same when drawn again.
SELECT substring(pdf FOR 5) AS begins, length(pdf) > 10000 AS has_fonts, pdf = meterflow.render_pdf(meterflow.sample_document()) AS same
  FROM meterflow.render_pdf(meterflow.sample_document()) AS pdf;

-- Documents that are none, templates that are wrong, and where.
DO $$
DECLARE
  attempt record; state text; said text; detail text; hint text;
BEGIN
  FOR attempt IN SELECT * FROM (VALUES
    ('html', meterflow.sample_document() - 'totals', NULL),
    ('html', jsonb_set(meterflow.sample_document(), '{lines,1,amount}', '186.8'), NULL),
    ('pdf', jsonb_set(meterflow.sample_document(), '{seller,logo}', '"https://example.com/logo.png"'), NULL),
    ('html', meterflow.sample_document(), E'a\nb {{ document.number'),
    ('html', meterflow.sample_document(), E'a\n\n{{ document.nothing }}'),
    ('html', meterflow.sample_document(), '{% include "/etc/passwd" %}'),
    ('html', meterflow.sample_document(), '{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}'),
    ('pdf', meterflow.sample_document(), E'= Invoice\n#let x = ('),
    ('pdf', meterflow.sample_document(), E'#let doc = json("document.json")\n#doc.nothing'),
    ('pdf', meterflow.sample_document(), '#read("/etc/passwd")'),
    ('pdf', meterflow.sample_document(), '#import "@preview/cetz:0.3.4"'),
    ('pdf', meterflow.sample_document(), '#while true {}')) AS v (format, document, template) LOOP
    BEGIN
      IF attempt.format = 'html' THEN
        PERFORM meterflow.render_html(attempt.document, attempt.template);
      ELSE
        PERFORM meterflow.render_pdf(attempt.document, attempt.template);
      END IF;
      RAISE WARNING 'rendered: %', attempt.template;
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
      RAISE INFO E'% %: %\n  DETAIL: %\n  HINT: %', attempt.format, state, said, detail, hint;
    END;
  END LOOP;
END $$;

-- A template without an end: stopped by its own limit, by the statement's, and when it takes all memory; the backend
-- goes on.
\set endless '#for a in range(100000) { for b in range(100000) { for c in range(100000) { let x = a + b + c } } }'
\set VERBOSITY default
SELECT pg_backend_pid() AS pid \gset
SET meterflow.document_timeout = '1s';
SELECT meterflow.render_pdf(meterflow.sample_document(), :'endless');
RESET meterflow.document_timeout;
SET statement_timeout = '500ms';
SELECT meterflow.render_pdf(meterflow.sample_document(), :'endless');
RESET statement_timeout;
\set VERBOSITY terse
SELECT meterflow.render_pdf(meterflow.sample_document(), '#{ let x = "aaaaaaaa"; for i in range(60) { x = x + x }; x }');
SELECT meterflow.render_html(meterflow.sample_document(), '{% set n = namespace(x="aaaaaaaa") %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}');
\set VERBOSITY default
SELECT :pid = pg_backend_pid() AS same_backend;

-- Templates of tenants: one that can't be used is refused, one that can is, by its tenant.
INSERT INTO meterflow.document_templates (kind, body) VALUES ('html', '{% if %}');
INSERT INTO meterflow.document_templates (kind, body) VALUES ('pdf', '#invoice()');
\set VERBOSITY terse
INSERT INTO meterflow.document_templates (kind, body) VALUES ('docx', 'x');
\set VERBOSITY default
INSERT INTO meterflow.document_templates (kind, body) VALUES ('html', '{{ document.number }} by {{ document.seller.name }}');
UPDATE meterflow.document_templates SET body = '{{ document.numbr }}' WHERE kind = 'html';
INSERT INTO meterflow.document_templates (kind, name, body) VALUES ('html', 'short', '{{ document.totals.due }}'),
  ('pdf', 'invoice', E'#import "invoice.typ": invoice\n#invoice(json("document.json"), labels: (invoice: "Rechnung"))');
SELECT tenant_id, kind, name FROM meterflow.document_templates ORDER BY kind, name;
SELECT meterflow.document_template('html', 'short');
SELECT meterflow.document_template('html', 'shrt');
SET meterflow.tenant = 'another';
SELECT meterflow.document_template('html', 'invoice') IS NULL AS built_in;
SELECT meterflow.document_template('html', 'short');
SET meterflow.tenant = 'documents';
-- A restore takes what it finds.
SET row_security = off;
UPDATE meterflow.document_templates SET body = '{% if %}' WHERE name = 'short';
RESET row_security;
DELETE FROM meterflow.document_templates;

-- Invoices: whatever invoice_document() says of them, by the tenant's template.
BEGIN;
CREATE OR REPLACE FUNCTION meterflow.invoice_document(invoice_id bigint) RETURNS jsonb LANGUAGE sql STABLE
RETURN meterflow.sample_document() || jsonb_build_object('number', 'INV-' || invoice_id);
SELECT meterflow.invoice_html(42) LIKE '%<title>Invoice INV-42</title>%' AS html, substring(meterflow.invoice_pdf(42) FOR 5) AS pdf;
INSERT INTO meterflow.document_templates (kind, name, body) VALUES ('html', 'invoice', 'our {{ document.number }}'), ('html', 'reminder', 'pay {{ document.number }}!');
SELECT meterflow.invoice_html(42), meterflow.invoice_html(42, 'reminder');
ROLLBACK;
