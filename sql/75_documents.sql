-- Invoices on paper: the document, a JSON that holds all that is shown, and its rendering as HTML and PDF. What a
-- document holds stands here, in the comment of render_html(), and field by field in src/documents/src/document.rs.

-- How money and quantities are written, in the one place that decides it. No setting of the session changes it: an
-- invoice that is drawn again must be the same.
CREATE FUNCTION meterflow.format_quantity(quantity numeric) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN quantity < 0 THEN '-' ELSE '' END
       || to_char(trunc(abs(quantity)), 'FM999,999,999,999,999,999,999,999,999,999,999,999,999,990')
       || coalesce(substring(trim_scale(abs(quantity))::text FROM '\.[0-9]+$'), '');
COMMENT ON FUNCTION meterflow.format_quantity(numeric) IS
  'A quantity or unit price as invoices show it, with every digit that it has: 1,234,567.5 or 0.000018.';

CREATE FUNCTION meterflow.format_amount(amount numeric, currency text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN round(amount, meterflow.currency_digits(currency)) < 0 THEN '-' ELSE '' END
       || to_char(trunc(abs(round(amount, meterflow.currency_digits(currency)))), 'FM999,999,999,999,999,999,999,999,999,999,999,999,999,990')
       || coalesce(substring(round(amount, meterflow.currency_digits(currency))::text FROM '\.[0-9]+$'), '');
COMMENT ON FUNCTION meterflow.format_amount(numeric, text) IS
  'Money as invoices show it, with the decimals of its currency: 1,234.50 for EUR, 1,235 for JPY, 1,234.500 for KWD. Without the currency, which stands beside it.';

-- Documents go to the renderer as text, with all their digits.
CREATE FUNCTION meterflow.render_html_text(document text, template text) RETURNS text
LANGUAGE c STABLE PARALLEL SAFE COST 100000 AS 'MODULE_PATHNAME', 'render_html_text_wrapper';
COMMENT ON FUNCTION meterflow.render_html_text(text, text) IS 'Internal: render_html() of a document as text.';
CREATE FUNCTION meterflow.render_pdf_text(document text, template text) RETURNS bytea
LANGUAGE c STABLE PARALLEL SAFE COST 1000000 AS 'MODULE_PATHNAME', 'render_pdf_text_wrapper';
COMMENT ON FUNCTION meterflow.render_pdf_text(text, text) IS 'Internal: render_pdf() of a document as text.';

CREATE FUNCTION meterflow.render_html(document jsonb, template text DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN meterflow.render_html_text(document::text, template);
COMMENT ON FUNCTION meterflow.render_html(jsonb, text) IS
$$A document as HTML for a browser or a mail: inline styles, no script, nothing fetched; whatever the document says is escaped. Without a template the built-in one. Templates are Jinja (minijinja) over "document"; {% extends "invoice.html" %} begins one that changes only blocks, colours (accent) or words.

A document holds everything that is shown, as it is shown: amounts by format_amount(), quantities and unit prices by format_quantity(), dates as the customer's calendar has them. sample_document() is one. Nothing is computed from it. Texts may be absent or null but those marked *, lists may be absent.
kind* invoice | credit_note; status* draft | finalized | paid | void; currency*; number; issued_at, due_at (YYYY-MM-DD); period {start*, end*: both days belong to it}; timezone; language (en); paper (a4);
original_number, reason: of a credit note, the invoice it corrects and why;
seller*, customer*: {name*, id, address [lines], tax_id, email, logo (of the seller, data:image/png;base64,... or jpeg or svg+xml)};
lines [{description*, amount* (after its discount), period, quantity, unit, unit_amount, discount, tax_rate ("19 %"), adjusts {start*, end*: the period billed before that this corrects}, details [{description*, quantity, unit_amount, amount}: tiers or steps]}];
discounts [{name*, amount*}], credits [the same: credit used before tax], taxes [{name*, amount*, rate, base, inclusive true | false}], payments [the same: paid so far, credit used after tax among it];
totals* {subtotal*, total*, due*, discounts, credits, tax, paid}; notes [paragraphs]; payment_instructions [lines]; labels {"invoice": "Rechnung", ...}. Other fields are kept for templates that know them.$$;

CREATE FUNCTION meterflow.render_pdf(document jsonb, template text DEFAULT NULL) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN meterflow.render_pdf_text(document::text, template);
COMMENT ON FUNCTION meterflow.render_pdf(jsonb, text) IS
$$A document as PDF; the same document and template give the same bytes. What a document holds: see render_html(). Without a template the built-in one. Templates are Typst and read json("document.json"); #import "invoice.typ": invoice gives the built-in one with parameters. They reach no other file, no package and no network, and are stopped after meterflow.document_timeout.$$;

CREATE FUNCTION meterflow.sample_document() RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '{
  "kind": "invoice", "status": "finalized", "number": "INV-2026-0042", "currency": "EUR",
  "issued_at": "2026-12-01", "due_at": "2026-12-15", "period": {"start": "2026-11-01", "end": "2026-11-30"}, "timezone": "Europe/Berlin",
  "seller": {"name": "Example Compute GmbH", "address": ["Hafenstraße 12", "20457 Hamburg", "Germany"],
             "tax_id": "DE 123 456 789", "email": "billing@compute.example"},
  "customer": {"name": "Acme Robotics Ltd", "id": "acme", "address": ["1 Riverside Walk", "London SE1 9PP", "United Kingdom"],
               "tax_id": "GB 987 6543 21"},
  "lines": [
    {"description": "Platform fee", "quantity": "1", "unit_amount": "49", "amount": "49.00", "tax_rate": "19 %"},
    {"description": "Completion tokens, large model", "quantity": "12,480,000", "unit": "tokens", "amount": "186.80", "tax_rate": "19 %", "details": [
      {"description": "first 1,000,000", "quantity": "1,000,000", "unit_amount": "0", "amount": "0.00"},
      {"description": "up to 10,000,000", "quantity": "9,000,000", "unit_amount": "0.000018", "amount": "162.00"},
      {"description": "above 10,000,000", "quantity": "2,480,000", "unit_amount": "0.00001", "amount": "24.80"}]},
    {"description": "Seats", "period": {"start": "2026-12-01", "end": "2026-12-31"}, "quantity": "12", "unit": "seats",
     "unit_amount": "8", "discount": "-9.60", "amount": "86.40", "tax_rate": "19 %"},
    {"description": "Object storage", "adjusts": {"start": "2026-10-01", "end": "2026-10-31"}, "quantity": "-12.5", "unit": "GB",
     "unit_amount": "0.02", "amount": "-0.25", "tax_rate": "19 %"}],
  "discounts": [{"name": "Coupon LAUNCH10, 10 %", "amount": "-32.20"}],
  "credits": [{"name": "Promotional credit", "amount": "-20.00"}],
  "taxes": [{"name": "VAT", "rate": "19 %", "base": "269.75", "amount": "51.25", "inclusive": false}],
  "payments": [{"name": "Paid 2026-12-02, by card", "amount": "-100.00"}],
  "totals": {"subtotal": "321.95", "discounts": "-32.20", "credits": "-20.00", "tax": "51.25", "total": "321.00", "paid": "-100.00", "due": "221.00"},
  "notes": ["Usage of October that arrived after its invoice is billed here as a correction.", "Thank you for your business."],
  "payment_instructions": ["IBAN DE02 1203 0000 0000 2020 51", "BIC BYLADEM1001", "Reference INV-2026-0042"]}'::jsonb;
COMMENT ON FUNCTION meterflow.sample_document() IS 'A document with something of everything, to try templates on: SELECT meterflow.render_html(meterflow.sample_document(), template).';

CREATE TABLE meterflow.document_templates (
  tenant_id   text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  kind        text COLLATE "C" NOT NULL CHECK (kind IN ('html', 'pdf')),
  name        text COLLATE "C" NOT NULL DEFAULT 'invoice' CHECK (name <> ''),
  body        text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, kind, name)
) USING heap;
COMMENT ON TABLE meterflow.document_templates IS 'What invoices look like. A tenant without a row has the built-in templates; delete the row to have them back.';
COMMENT ON COLUMN meterflow.document_templates.kind IS '''html'': a Jinja template, see render_html(). ''pdf'': a Typst template, see render_pdf().';
COMMENT ON COLUMN meterflow.document_templates.name IS '''invoice'' is used unless invoice_html() or invoice_pdf() is given another.';
SELECT pg_catalog.pg_extension_config_dump('meterflow.document_templates', '');

CREATE FUNCTION meterflow.check_document_template() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- Not in a restore, where every dump turns row_security off: what was accepted before must come back, and a server
  -- without the renderer must be able to take it.
  IF current_setting('row_security') = 'off' THEN
    RETURN NEW;
  END IF;
  IF NEW.kind = 'html' THEN
    PERFORM meterflow.render_html(meterflow.sample_document(), NEW.body);
  ELSIF NEW.kind = 'pdf' THEN
    PERFORM meterflow.render_pdf(meterflow.sample_document(), NEW.body);
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.check_document_template() IS 'Internal: refuses a template that can not render sample_document().';
CREATE TRIGGER check_template BEFORE INSERT OR UPDATE OF kind, body ON meterflow.document_templates
  FOR EACH ROW WHEN (NEW.body IS NOT NULL) EXECUTE FUNCTION meterflow.check_document_template();

CREATE FUNCTION meterflow.document_template(kind text, name text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found_body text;
BEGIN
  SELECT t.body INTO found_body FROM meterflow.document_templates t
   WHERE t.tenant_id = meterflow.current_tenant() AND t.kind = document_template.kind AND t.name = document_template.name;
  IF NOT FOUND AND name IS DISTINCT FROM 'invoice' THEN
    RAISE EXCEPTION 'unknown % template %', kind, coalesce(quote_literal(name), 'null')
      USING ERRCODE = '22023', DETAIL = format('Tenant %L has: %s.', meterflow.current_tenant(),
              coalesce((SELECT string_agg(quote_literal(t.name), ', ' ORDER BY t.name) FROM meterflow.document_templates t
                         WHERE t.tenant_id = meterflow.current_tenant() AND t.kind = document_template.kind), 'none')),
            HINT = 'INSERT it into meterflow.document_templates, or leave the name out for ''invoice'', which is built in.';
  END IF;
  RETURN found_body;
END $$;
COMMENT ON FUNCTION meterflow.document_template(text, text) IS
  'The tenant''s template of a kind (html, pdf) and name; null for ''invoice'' when the tenant has none: then the built-in one is used.';

CREATE FUNCTION meterflow.invoice_html(invoice_id bigint, template_name text DEFAULT 'invoice') RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN meterflow.render_html(meterflow.invoice_document(invoice_id), meterflow.document_template('html', template_name));
END $$;
COMMENT ON FUNCTION meterflow.invoice_html(bigint, text) IS
  'An invoice or credit note as HTML, by the tenant''s template or the built-in one. See render_html().';

CREATE FUNCTION meterflow.invoice_pdf(invoice_id bigint, template_name text DEFAULT 'invoice') RETURNS bytea
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN meterflow.render_pdf(meterflow.invoice_document(invoice_id), meterflow.document_template('pdf', template_name));
END $$;
COMMENT ON FUNCTION meterflow.invoice_pdf(bigint, text) IS
  'An invoice or credit note as PDF, by the tenant''s template or the built-in one. See render_pdf().';
