-- Invoices and credit notes as documents: all that is printed, as text that is printed as it is. What a document holds is
-- said by render_html(). Nothing is computed here but sums that are shown.

CREATE FUNCTION meterflow.document_lines(value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE jsonb_typeof(value)
           WHEN 'array' THEN value
           WHEN 'string' THEN (SELECT coalesce(jsonb_agg(trim(t) ORDER BY n), '[]') FROM regexp_split_to_table(value#>>'{}', '\r?\n') WITH ORDINALITY AS l (t, n) WHERE trim(t) <> '')
           ELSE '[]' END
$$;
COMMENT ON FUNCTION meterflow.document_lines(jsonb) IS 'Internal: a text of several lines, or an array of them, as an array.';

CREATE FUNCTION meterflow.document_party(party jsonb, fallback text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT jsonb_strip_nulls(party - 'payment' - 'tax_number' - 'timezone' || jsonb_build_object(
           'name', coalesce(party->>'name', party->>'id', fallback), 'address', meterflow.document_lines(party->'address'), 'tax_id', coalesce(party->>'tax_id', party->>'tax_number')))
$$;
COMMENT ON FUNCTION meterflow.document_party(jsonb, text) IS 'Internal: a seller or customer as documents have them.';

-- Half-open in tables; for people both days belong to a period.
CREATE FUNCTION meterflow.document_period(first timestamptz, before timestamptz, timezone text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN first < before THEN jsonb_build_object('start', to_char(first AT TIME ZONE timezone, 'YYYY-MM-DD'), 'end', to_char((before - interval '1 microsecond') AT TIME ZONE timezone, 'YYYY-MM-DD')) END
$$;
COMMENT ON FUNCTION meterflow.document_period(timestamptz, timestamptz, text) IS 'Internal: a period by its first and last day, null when it is empty.';

-- Steps are exact; money with more digits than the currency has is shown with all of them, so that steps add up.
CREATE FUNCTION meterflow.document_steps(steps jsonb, model jsonb, currency text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
           'description', CASE s->>'step'
             WHEN 'tier' THEN CASE WHEN s->>'up_to' IS NULL THEN 'above ' || meterflow.format_quantity((s->>'from')::numeric)
                                   WHEN (s->>'from')::numeric = 0 THEN 'first ' || meterflow.format_quantity((s->>'up_to')::numeric)
                                   ELSE 'up to ' || meterflow.format_quantity((s->>'up_to')::numeric) END
                              || CASE WHEN (s->>'flat_amount')::numeric <> 0 THEN ', with a flat ' || meterflow.format_quantity((s->>'flat_amount')::numeric) ELSE '' END
                              || coalesce(', ' || (s->>'rate') || ' %', '')
             WHEN 'units' THEN CASE WHEN s ? 'package_size' THEN 'packages of ' || meterflow.format_quantity((s->>'package_size')::numeric) WHEN s ? 'rate' THEN (s->>'rate') || ' %' ELSE 'units' END
             WHEN 'fixed' THEN 'fixed amount'
             WHEN 'unit conversion' THEN 'counted as ' || meterflow.format_quantity((s->>'to')::numeric)
             WHEN 'transactions' THEN (s->>'rate') || ' %' || CASE WHEN (s->>'fixed_amount')::numeric <> 0 THEN ', and fees for ' || (s->>'paid_events') || ' events' ELSE '' END
             WHEN 'percentage discount' THEN 'discount of ' || (s->>'percentage') || ' %'
             WHEN 'commitment' THEN 'commitment of ' || meterflow.format_quantity((s->>'commitment')::numeric)
             WHEN 'cell' THEN coalesce((SELECT string_agg(g.key || ' ' || coalesce(g.value, '-'), ', ' ORDER BY g.key)
                                           FROM jsonb_each_text(coalesce(s->'group', CASE WHEN s->>'cell' <> 'default' THEN model->'cells'->((s->>'cell')::integer - 1)->'match' END)) AS g), 'all others')
             WHEN 'bucket' THEN 'bucket ' || (s->>'bucket')
             ELSE s->>'step' END,
           'quantity', meterflow.format_quantity(coalesce(s->>'packages', s->>'quantity')::numeric),
           'unit_amount', meterflow.format_quantity(coalesce(s->>'unit_amount', s->>'package_amount')::numeric),
           'amount', CASE WHEN scale(trim_scale((s->>'amount')::numeric)) <= meterflow.currency_digits(currency) THEN meterflow.format_amount((s->>'amount')::numeric, currency)
                          ELSE meterflow.format_quantity((s->>'amount')::numeric) END)) ORDER BY n), '[]')
    FROM jsonb_array_elements(steps) WITH ORDINALITY AS e (s, n)
$$;
COMMENT ON FUNCTION meterflow.document_steps(jsonb, jsonb, text) IS 'Internal: steps of explain_price() as the details of a line.';

CREATE FUNCTION meterflow.document_line(line meterflow.invoice_lines, currency text, of_invoice jsonb, on_line boolean) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  period CONSTANT jsonb := meterflow.document_period(line.period_start, line.period_end, line.timezone);
  computed jsonb := coalesce(meterflow.explain_line_price(line, currency), '{}');
  steps jsonb := coalesce(computed->'steps', '[]');
  whole boolean;
  details jsonb := '[]';
  unit_amount text;
BEGIN
  -- Whether the line is the price itself, and not a share or a rest of it.
  whole := line.adjusts IS NULL AND (computed->>'unrounded')::numeric IS NOT DISTINCT FROM line.unrounded;
  IF line.adjusts IS NOT NULL THEN
    details := jsonb_build_array(
      jsonb_strip_nulls(jsonb_build_object('description', 'now', 'quantity', meterflow.format_quantity(line.quantity), 'amount', meterflow.format_amount(line.due_amount, currency))),
      jsonb_build_object('description', 'billed before', 'amount', meterflow.format_amount(-line.billed_before, currency)));
  ELSIF whole AND line.kind = 'one_off' THEN
    unit_amount := computed->>'unit_amount';
  ELSIF whole AND jsonb_array_length(steps) = 1 AND steps->0->>'step' = 'units' AND steps->0 ? 'unit_amount' THEN
    unit_amount := steps->0->>'unit_amount';
  ELSIF jsonb_array_length(steps) > 1 OR steps->0->>'step' IN ('units', 'tier', 'transactions') OR NOT whole THEN
    -- A peak that is priced hour by hour would fill pages: explain_invoice() has them all.
    details := meterflow.document_steps(CASE WHEN jsonb_array_length(steps) <= 40 THEN steps ELSE '[]' END, line.model, currency);
    IF NOT whole AND computed ? 'unrounded' THEN
      details := details || jsonb_build_array(jsonb_build_object('description', 'share of the period', 'amount', meterflow.format_amount(line.due_amount, currency)));
    END IF;
  END IF;
  RETURN jsonb_strip_nulls(jsonb_build_object(
    'description', line.description,
    'amount', meterflow.format_amount(line.amount - CASE WHEN on_line THEN line.discount ELSE 0 END, currency),
    'discount', CASE WHEN on_line AND line.discount <> 0 THEN meterflow.format_amount(-line.discount, currency) END,
    'quantity', CASE WHEN line.adjusts IS NULL AND (line.meter_key IS NOT NULL OR unit_amount IS NOT NULL OR line.quantity <> 1) THEN meterflow.format_quantity(line.quantity) END,
    'unit_amount', meterflow.format_quantity(unit_amount::numeric),
    'tax_rate', (SELECT string_agg(meterflow.format_quantity((t->>'rate')::numeric) || ' %', ' + ' ORDER BY n) FROM jsonb_array_elements(line.taxes) WITH ORDINALITY AS e (t, n)),
    'adjusts', CASE WHEN line.adjusts IS NOT NULL THEN period END,
    'period', CASE WHEN line.adjusts IS NULL AND period <> of_invoice THEN period END,
    'customer_id', line.customer_id, 'details', nullif(details, '[]')));
END $$;
COMMENT ON FUNCTION meterflow.document_line(meterflow.invoice_lines, text, jsonb, boolean) IS
  'Internal: a line of invoice_document(). on_line: its discount is shown on it, and taken off.';

CREATE FUNCTION meterflow.invoice_document(invoice_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  i meterflow.invoices := meterflow.find_invoice(invoice_document.invoice_id);
  zone text;
  period jsonb;
  on_line boolean;
  lines jsonb;
  paid numeric;
  due numeric;
  payments jsonb;
BEGIN
  zone := coalesce(i.customer->>'timezone', 'UTC');
  -- The period that most lines are of; the others say theirs.
  SELECT meterflow.document_period(l.period_start, l.period_end, l.timezone) INTO period FROM meterflow.invoice_lines AS l
   WHERE l.tenant_id = tenant AND l.invoice_id = i.id AND l.adjusts IS NULL AND l.period_start IS NOT NULL
   GROUP BY 1 ORDER BY count(*) DESC, min(l.period_start) LIMIT 1;
  -- Line coupons are shown on their lines, if they are all there is: what a line gave to which coupon is not kept.
  on_line := NOT EXISTS (SELECT FROM meterflow.invoice_discounts AS d WHERE d.tenant_id = tenant AND d.invoice_id = i.id AND d.level <> 'line');
  SELECT coalesce(jsonb_agg(meterflow.document_line(l, i.currency, period, on_line) ORDER BY l.line), '[]') INTO lines
    FROM meterflow.invoice_lines AS l WHERE l.tenant_id = tenant AND l.invoice_id = i.id;
  -- What has settled the invoice, or undone that. A negative total settles itself by becoming credit.
  SELECT coalesce(sum(p.amount), 0), coalesce(jsonb_agg(jsonb_build_object('name', p.name, 'amount', meterflow.format_amount(p.amount, i.currency)) ORDER BY p.at NULLS FIRST, p.kind, p.id), '[]')
    INTO paid, payments
    FROM (SELECT NULL::timestamptz AS at, 1 AS kind, c.ordinal::bigint AS id, CASE c.source WHEN 'wallet' THEN 'Prepaid credit' ELSE 'Credit from ' || CASE a.source
                   WHEN 'credit_note' THEN 'credit note ' || n.number WHEN 'overpayment' THEN 'overpayment' ELSE 'invoice ' || o.number END END AS name, -c.amount AS amount
            FROM meterflow.invoice_credits AS c
            LEFT JOIN meterflow.account_credits AS a ON c.source = 'account' AND a.tenant_id = c.tenant_id AND a.id = c.source_id
            LEFT JOIN meterflow.credit_notes AS n ON a.source = 'credit_note' AND n.tenant_id = a.tenant_id AND n.id = a.source_id
            LEFT JOIN meterflow.invoices AS o ON a.source = 'invoice' AND o.tenant_id = a.tenant_id AND o.id = a.source_id
           WHERE c.tenant_id = tenant AND c.invoice_id = i.id AND NOT c.promotional
          UNION ALL
          SELECT r.received_at, 2, r.id, format('%s %s%s', CASE WHEN r.kind = 'refund' THEN 'Refunded' ELSE 'Paid' END, to_char(r.received_at AT TIME ZONE zone, 'YYYY-MM-DD'), ', ' || r.method),
                 CASE WHEN r.kind = 'refund' THEN r.amount ELSE -r.amount END
            FROM meterflow.payments AS r WHERE r.tenant_id = tenant AND r.invoice_id = i.id AND r.credit_note_id IS NULL
          UNION ALL
          SELECT r.received_at, 3, r.id, 'Kept as credit', r.overpaid FROM meterflow.payments AS r WHERE r.tenant_id = tenant AND r.invoice_id = i.id AND r.overpaid > 0
          UNION ALL
          SELECT n.issued_at, 4, n.id, 'Credit note ' || n.number, -n.offset_amount FROM meterflow.credit_notes AS n WHERE n.tenant_id = tenant AND n.invoice_id = i.id AND n.offset_amount > 0
          UNION ALL
          SELECT NULL, 5, i.id, 'Kept as credit', -i.total WHERE i.total < 0) AS p;
  due := i.total + paid;
  RETURN jsonb_strip_nulls(jsonb_build_object(
    'kind', 'invoice', 'status', i.status, 'number', i.number, 'currency', i.currency, 'timezone', zone,
    'issued_at', to_char(i.issued_at AT TIME ZONE zone, 'YYYY-MM-DD'), 'due_at', to_char(i.due_at AT TIME ZONE zone, 'YYYY-MM-DD'), 'period', period,
    'seller', meterflow.document_party(i.seller, tenant), 'customer', meterflow.document_party(i.customer, i.customer_id),
    'lines', lines,
    'discounts', CASE WHEN NOT on_line THEN (SELECT jsonb_agg(jsonb_build_object('name', coalesce(d.name, d.code), 'amount', meterflow.format_amount(-d.amount, i.currency)) ORDER BY d.ordinal)
                                               FROM meterflow.invoice_discounts AS d WHERE d.tenant_id = tenant AND d.invoice_id = i.id) END,
    'credits', CASE WHEN i.promotional <> 0 THEN jsonb_build_array(jsonb_build_object('name', 'Promotional credit', 'amount', meterflow.format_amount(-i.promotional, i.currency))) END,
    'taxes', (SELECT jsonb_agg(jsonb_build_object('name', t.name, 'rate', meterflow.format_quantity(t.rate) || ' %', 'base', meterflow.format_amount(t.base, i.currency),
                       'amount', meterflow.format_amount(t.amount, i.currency), 'inclusive', t.inclusive) ORDER BY t.ordinal)
                FROM meterflow.invoice_taxes AS t WHERE t.tenant_id = tenant AND t.invoice_id = i.id),
    'payments', payments,
    'totals', jsonb_build_object(
      'subtotal', meterflow.format_amount(i.subtotal - CASE WHEN on_line THEN i.discount ELSE 0 END, i.currency),
      'discounts', CASE WHEN NOT on_line AND i.discount <> 0 THEN meterflow.format_amount(-i.discount, i.currency) END,
      'credits', CASE WHEN i.promotional <> 0 THEN meterflow.format_amount(-i.promotional, i.currency) END,
      'tax', CASE WHEN i.tax <> 0 THEN meterflow.format_amount(i.tax, i.currency) END,
      'total', meterflow.format_amount(i.total, i.currency),
      'paid', CASE WHEN payments <> '[]' THEN meterflow.format_amount(paid, i.currency) END,
      'due', meterflow.format_amount(CASE WHEN i.status = 'void' THEN 0 WHEN i.status = 'draft' THEN i.amount_due ELSE due END, i.currency)),
    'notes', meterflow.document_lines(to_jsonb(i.notes)), 'payment_instructions', meterflow.document_lines(i.seller->'payment')));
END $$;
COMMENT ON FUNCTION meterflow.invoice_document(bigint) IS
  'An invoice as it is printed: every amount and date as text, in the customer''s time zone. For invoice_html() and invoice_pdf(); what it holds is said by render_html().';

CREATE FUNCTION meterflow.credit_note_document(credit_note_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  n meterflow.credit_notes;
  i meterflow.invoices;
  zone text;
BEGIN
  SELECT c.* INTO n FROM meterflow.credit_notes AS c WHERE c.tenant_id = tenant AND c.id = credit_note_document.credit_note_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no credit note %', coalesce(credit_note_id::text, 'null') USING ERRCODE = '23503',
      DETAIL = format('Tenant "%s" has none with this id.', tenant), HINT = 'SELECT id, number, invoice_id FROM meterflow.credit_notes lists them.';
  END IF;
  SELECT v.* INTO STRICT i FROM meterflow.invoices AS v WHERE v.tenant_id = tenant AND v.id = n.invoice_id;
  zone := coalesce(i.customer->>'timezone', 'UTC');
  RETURN jsonb_strip_nulls(jsonb_build_object(
    'kind', 'credit_note', 'status', 'finalized', 'number', n.number, 'original_number', i.number, 'reason', n.reason, 'currency', n.currency, 'timezone', zone,
    'issued_at', to_char(n.issued_at AT TIME ZONE zone, 'YYYY-MM-DD'),
    'seller', meterflow.document_party(i.seller, tenant), 'customer', meterflow.document_party(i.customer, i.customer_id),
    'lines', (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                       'description', l.description, 'amount', meterflow.format_amount(c.amount - c.discount, n.currency),
                       'discount', CASE WHEN c.discount <> 0 THEN meterflow.format_amount(-c.discount, n.currency) END,
                       'period', meterflow.document_period(l.period_start, l.period_end, l.timezone),
                       'tax_rate', (SELECT string_agg(meterflow.format_quantity((t->>'rate')::numeric) || ' %', ' + ' ORDER BY o) FROM jsonb_array_elements(c.taxes) WITH ORDINALITY AS e (t, o)))) ORDER BY c.line)
                FROM meterflow.credit_note_lines AS c JOIN meterflow.invoice_lines AS l ON l.tenant_id = c.tenant_id AND l.invoice_id = c.invoice_id AND l.line = c.line
               WHERE c.tenant_id = tenant AND c.credit_note_id = n.id),
    'credits', CASE WHEN n.promotional <> 0 THEN jsonb_build_array(jsonb_build_object('name', 'Promotional credit', 'amount', meterflow.format_amount(-n.promotional, n.currency))) END,
    'taxes', (SELECT jsonb_agg(jsonb_build_object('name', x.name, 'rate', meterflow.format_quantity(x.rate) || ' %', 'base', meterflow.format_amount(x.base, n.currency),
                       'amount', meterflow.format_amount(x.amount, n.currency), 'inclusive', x.inclusive) ORDER BY x.ordinal)
                FROM (SELECT v.ordinal, v.name, v.rate, v.inclusive, sum(c.taxable) AS base, sum((t->>'amount')::numeric) AS amount
                        FROM meterflow.credit_note_lines AS c, jsonb_array_elements(c.taxes) AS t
                        JOIN meterflow.invoice_taxes AS v ON v.tenant_id = tenant AND v.invoice_id = i.id AND v.tax_key = t->>'key'
                       WHERE c.tenant_id = tenant AND c.credit_note_id = n.id GROUP BY v.ordinal, v.name, v.rate, v.inclusive) AS x),
    'payments', (SELECT jsonb_agg(jsonb_build_object('name', p.name, 'amount', meterflow.format_amount(-p.amount, n.currency)) ORDER BY p.ordinal)
                   FROM (VALUES (1, 'Taken off invoice ' || i.number, n.offset_amount), (2, 'Kept as credit', n.credit), (3, 'To be refunded', n.refund)) AS p (ordinal, name, amount) WHERE p.amount > 0),
    'totals', jsonb_build_object('subtotal', meterflow.format_amount(n.subtotal - n.discount, n.currency),
      'credits', CASE WHEN n.promotional <> 0 THEN meterflow.format_amount(-n.promotional, n.currency) END,
      'tax', CASE WHEN n.tax <> 0 THEN meterflow.format_amount(n.tax, n.currency) END,
      'total', meterflow.format_amount(n.total, n.currency), 'paid', meterflow.format_amount(-n.total, n.currency), 'due', meterflow.format_amount(0, n.currency))));
END $$;
COMMENT ON FUNCTION meterflow.credit_note_document(bigint) IS 'A credit note as it is printed, for render_html() and render_pdf(): amounts are what the customer gets back.';

CREATE FUNCTION meterflow.credit_note_html(credit_note_id bigint, template_name text DEFAULT 'invoice') RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN meterflow.render_html(meterflow.credit_note_document(credit_note_id), meterflow.document_template('html', template_name));
END $$;
COMMENT ON FUNCTION meterflow.credit_note_html(bigint, text) IS 'A credit note as HTML, by the tenant''s template or the built-in one. See render_html().';

CREATE FUNCTION meterflow.credit_note_pdf(credit_note_id bigint, template_name text DEFAULT 'invoice') RETURNS bytea
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN meterflow.render_pdf(meterflow.credit_note_document(credit_note_id), meterflow.document_template('pdf', template_name));
END $$;
COMMENT ON FUNCTION meterflow.credit_note_pdf(bigint, text) IS 'A credit note as PDF, by the tenant''s template or the built-in one. See render_pdf().';
