-- How an invoice came to be, and whether the books are right. Both read what is stored and nothing else.

-- Prices are explained by the kernel that computed them. Usage that was kept with the line says all that the model asked
-- for; without it the quantity has to be enough.
CREATE FUNCTION meterflow.explain_line_price(line meterflow.invoice_lines, currency text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE
    WHEN line.kind = 'one_off' OR line.model IS NULL THEN
      jsonb_strip_nulls(jsonb_build_object('quantity', line.quantity::text, 'unit_amount', line.model->>'unit_amount', 'unrounded', line.due_unrounded::text, 'amount', line.due_amount::text))
    WHEN line.usage IS NOT NULL THEN meterflow.explain_price_usage(line.model, line.usage, explain_line_price.currency)
    WHEN meterflow.price_needs(line.model) - 'quantity' - 'meter' - 'dimensions' - 'commitment_periods' = '{}'
      THEN meterflow.explain_price(line.model, coalesce(line.quantity, 0), explain_line_price.currency)
  END
$$;
COMMENT ON FUNCTION meterflow.explain_line_price(meterflow.invoice_lines, text) IS 'Internal: what the whole period of a line costs, as explain_price() says it.';

CREATE FUNCTION meterflow.explain_line(line meterflow.invoice_lines, currency text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT jsonb_strip_nulls(jsonb_build_object(
           'line', line.line, 'kind', line.kind, 'description', line.description, 'customer', line.customer_id, 'subscription', line.subscription_id,
           'plan', line.plan_key, 'price', line.price_key, 'meter', line.meter_key, 'timezone', line.timezone, 'quantity', line.quantity::text,
           'period', CASE WHEN line.cycle_start IS NOT NULL THEN jsonb_build_object('start', line.cycle_start AT TIME ZONE line.timezone, 'end', line.cycle_end AT TIME ZONE line.timezone) END,
           'charged_for', (SELECT jsonb_agg(jsonb_build_object('start', lower(r) AT TIME ZONE line.timezone, 'end', upper(r) AT TIME ZONE line.timezone)) FROM unnest(line.applies) AS r)))
      || jsonb_build_object('computed', meterflow.explain_line_price(line, CASE WHEN line.credit_rate IS NULL THEN currency END))
      || jsonb_strip_nulls(jsonb_build_object('credit_rate', line.credit_rate::text))
      || jsonb_strip_nulls(jsonb_build_object(
           'proration', CASE WHEN line.meter_key IS NULL AND line.cycle_start IS NOT NULL AND line.applies <> tstzmultirange(tstzrange(line.cycle_start, line.cycle_end)) THEN
             CASE line.proration
               WHEN 'second' THEN jsonb_build_object('by', 'second', 'seconds', (SELECT sum(extract(epoch FROM upper(r) - lower(r)))::text FROM unnest(line.applies) AS r),
                                                     'of', extract(epoch FROM line.cycle_end - line.cycle_start)::text)
               WHEN 'day' THEN jsonb_build_object('by', 'day', 'days', (SELECT sum((upper(r) AT TIME ZONE line.timezone)::date - (lower(r) AT TIME ZONE line.timezone)::date)::text FROM unnest(line.applies) AS r),
                                                  'of', ((line.cycle_end AT TIME ZONE line.timezone)::date - (line.cycle_start AT TIME ZONE line.timezone)::date)::text)
               ELSE jsonb_build_object('by', 'none') END || jsonb_build_object('unrounded', line.due_unrounded::text) END,
           'due', line.due_amount::text,
           'billed_before', CASE WHEN line.adjusts IS NOT NULL THEN line.billed_before::text END,
           'adjusts', (SELECT jsonb_build_object('invoice', i.id, 'number', i.number) FROM meterflow.invoices AS i WHERE i.tenant_id = line.tenant_id AND i.id = line.adjusts),
           'unrounded', line.unrounded::text, 'amount', line.amount::text, 'discount', line.discount::text, 'promotional', line.promotional::text,
           'taxable', line.taxable::text, 'taxes', line.taxes, 'tax', line.tax::text, 'total', line.total::text))
$$;
COMMENT ON FUNCTION meterflow.explain_line(meterflow.invoice_lines, text) IS 'Internal: a line of explain_invoice().';

CREATE FUNCTION meterflow.explain_invoice(invoice_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  i meterflow.invoices := meterflow.find_invoice(explain_invoice.invoice_id);
BEGIN
  RETURN jsonb_build_object(
    'invoice', i.id, 'number', i.number, 'kind', i.kind, 'status', i.status, 'customer', i.customer_id, 'currency', i.currency,
    'order', jsonb_build_array('lines', 'line coupons', 'invoice coupons', 'promotional credit', 'taxes', 'credits', 'amount due'),
    'rounding', 'half away from zero, once a line and once a tax; shares by largest remainder',
    'lines', (SELECT coalesce(jsonb_agg(meterflow.explain_line(l, i.currency) ORDER BY l.line), '[]') FROM meterflow.invoice_lines AS l WHERE l.tenant_id = tenant AND l.invoice_id = i.id),
    'coupons', (SELECT coalesce(jsonb_agg(jsonb_build_object('coupon', d.code, 'name', d.name, 'level', d.level, 'amount', d.amount::text) ORDER BY d.ordinal), '[]')
                  FROM meterflow.invoice_discounts AS d WHERE d.tenant_id = tenant AND d.invoice_id = i.id),
    'taxes', (SELECT coalesce(jsonb_agg(jsonb_build_object('tax', t.tax_key, 'name', t.name, 'rate', t.rate::text, 'inclusive', t.inclusive, 'base', t.base::text, 'amount', t.amount::text) ORDER BY t.ordinal), '[]')
                FROM meterflow.invoice_taxes AS t WHERE t.tenant_id = tenant AND t.invoice_id = i.id),
    'credits', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('from', coalesce(a.source, c.source), 'id', coalesce(a.source_id, c.source_id), 'promotional', CASE WHEN c.promotional THEN true END, 'amount', c.amount::text)) ORDER BY c.ordinal), '[]')
                  FROM meterflow.invoice_credits AS c LEFT JOIN meterflow.account_credits AS a ON c.source = 'account' AND a.tenant_id = c.tenant_id AND a.id = c.source_id
                 WHERE c.tenant_id = tenant AND c.invoice_id = i.id),
    'totals', jsonb_build_object('subtotal', i.subtotal::text, 'discount', i.discount::text, 'promotional', i.promotional::text, 'tax', i.tax::text, 'total', i.total::text,
                                 'credited', i.credited::text, 'amount_due', i.amount_due::text),
    'since', jsonb_build_object(
      'payments', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('kind', p.kind, 'id', p.id, 'amount', p.amount::text, 'became_credit', nullif(p.overpaid, 0)::text,
                                                'of_payment', p.payment_id, 'credit_note', p.credit_note_id, 'reference', p.external_reference, 'received_at', p.received_at)) ORDER BY p.id), '[]')
                     FROM meterflow.payments AS p WHERE p.tenant_id = tenant AND p.invoice_id = i.id),
      'credit_notes', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', n.id, 'number', n.number, 'reason', n.reason, 'total', n.total::text, 'refund', n.refund::text, 'credit', n.credit::text,
                                                    'offset', n.offset_amount::text) ORDER BY n.id), '[]')
                         FROM meterflow.credit_notes AS n WHERE n.tenant_id = tenant AND n.invoice_id = i.id),
      'paid', i.amount_paid::text, 'offset', i.amount_offset::text, 'left_to_pay', greatest(i.amount_due - i.amount_paid - i.amount_offset, 0)::text));
END $$;
COMMENT ON FUNCTION meterflow.explain_invoice(bigint) IS
  'How an invoice came to its amounts: each line with its price step by step, the share of its period and what was billed before; then coupons, taxes and credits; then payments and credit notes since. Numbers are strings, to keep their digits.';

-- What must hold of every invoice, checked from the rows alone.
CREATE FUNCTION meterflow.verify_billing()
RETURNS TABLE (problem text, invoice_id bigint, detail text)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
BEGIN
  -- Totals are the sums of their parts.
  RETURN QUERY
    SELECT 'total is not the sum of its parts', i.id, format('%s is %s, its parts add up to %s', c.name, c.stored, c.parts)
      FROM meterflow.invoices AS i
      LEFT JOIN LATERAL (SELECT coalesce(sum(l.amount), 0) AS amount, coalesce(sum(l.discount), 0) AS discount, coalesce(sum(l.promotional), 0) AS promotional,
                                coalesce(sum(l.tax), 0) AS tax, coalesce(sum(l.total), 0) AS total
                           FROM meterflow.invoice_lines AS l WHERE l.tenant_id = i.tenant_id AND l.invoice_id = i.id) AS l ON true
      LEFT JOIN LATERAL (SELECT coalesce(sum(d.amount), 0) AS amount FROM meterflow.invoice_discounts AS d WHERE d.tenant_id = i.tenant_id AND d.invoice_id = i.id) AS d ON true
      LEFT JOIN LATERAL (SELECT coalesce(sum(t.amount), 0) AS amount, coalesce(sum(t.amount) FILTER (WHERE t.inclusive), 0) AS inclusive
                           FROM meterflow.invoice_taxes AS t WHERE t.tenant_id = i.tenant_id AND t.invoice_id = i.id) AS t ON true
      LEFT JOIN LATERAL (SELECT coalesce(sum(c.amount) FILTER (WHERE NOT c.promotional), 0) AS amount, coalesce(sum(c.amount) FILTER (WHERE c.promotional), 0) AS promotional
                           FROM meterflow.invoice_credits AS c WHERE c.tenant_id = i.tenant_id AND c.invoice_id = i.id) AS u ON true,
           LATERAL (VALUES ('subtotal of lines', i.subtotal, l.amount), ('discount of lines', i.discount, l.discount), ('discount of coupons', i.discount, d.amount),
                           ('promotional of lines', i.promotional, l.promotional), ('promotional of wallets', i.promotional, u.promotional), ('tax of lines', i.tax, l.tax), ('tax of taxes', i.tax, t.amount), ('total of lines', i.total, l.total),
                           ('total', i.total, i.subtotal - i.discount - i.promotional + i.tax - t.inclusive), ('credited', i.credited, u.amount),
                           ('amount_due', i.amount_due, greatest(i.total - i.credited, 0))) AS c (name, stored, parts)
     WHERE i.tenant_id = tenant AND c.stored IS DISTINCT FROM c.parts;
  RETURN QUERY
    SELECT 'line does not add up', l.invoice_id, format('line %s', l.line)
      FROM meterflow.invoice_lines AS l
     WHERE l.tenant_id = tenant AND (l.amount <> l.due_amount - l.billed_before
        OR l.total <> l.amount - l.discount - l.promotional + l.tax - (SELECT coalesce(sum((t->>'amount')::numeric), 0) FROM jsonb_array_elements(l.taxes) AS t WHERE (t->>'inclusive')::boolean)
        OR l.tax <> (SELECT coalesce(sum((t->>'amount')::numeric), 0) FROM jsonb_array_elements(l.taxes) AS t));
  -- Numbers: one each, none left out.
  RETURN QUERY
    SELECT 'gap in the numbers of ' || s.name, NULL::bigint, format('%s between %s and %s, next is %s', s.number, s.first, s.last, s.next)
      FROM (SELECT 'invoices' AS name, count(*) AS number, min(i.sequence) AS first, max(i.sequence) AS last, (SELECT b.next_invoice FROM meterflow.billing_settings AS b WHERE b.tenant_id = tenant) AS next
              FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.sequence IS NOT NULL
            UNION ALL
            SELECT 'credit notes', count(*), min(n.sequence), max(n.sequence), (SELECT b.next_credit_note FROM meterflow.billing_settings AS b WHERE b.tenant_id = tenant)
              FROM meterflow.credit_notes AS n WHERE n.tenant_id = tenant) AS s
     WHERE s.number > 0 AND (s.last - s.first + 1 <> s.number OR s.next IS DISTINCT FROM s.last + 1);
  -- Payments and credit notes.
  RETURN QUERY
    SELECT c.problem, i.id, c.detail
      FROM meterflow.invoices AS i,
           LATERAL (SELECT coalesce(sum(CASE WHEN p.kind = 'payment' THEN p.amount - p.overpaid WHEN p.credit_note_id IS NULL THEN -p.amount END), 0) AS paid,
                           coalesce(sum(CASE p.kind WHEN 'payment' THEN p.amount - p.overpaid ELSE -p.amount END), 0) AS kept
                      FROM meterflow.payments AS p WHERE p.tenant_id = i.tenant_id AND p.invoice_id = i.id) AS p,
           LATERAL (SELECT coalesce(sum(n.offset_amount), 0) AS off, coalesce(sum(n.total), 0) AS total FROM meterflow.credit_notes AS n WHERE n.tenant_id = i.tenant_id AND n.invoice_id = i.id) AS n,
           LATERAL (VALUES ('amount_paid is not what was paid', i.amount_paid <> p.paid, format('%s, by payments and refunds %s', i.amount_paid, p.paid)),
                           ('amount_offset is not what credit notes took off', i.amount_offset <> n.off, format('%s, by credit notes %s', i.amount_offset, n.off)),
                           ('more was refunded than paid', p.kept < 0, format('by %s', -p.kept)),
                           ('credit notes exceed the invoice', n.total > greatest(i.total, 0), format('%s of %s', n.total, i.total)),
                           ('status does not say what is left to pay', i.status IN ('finalized', 'paid') AND (i.status = 'paid') <> (i.amount_due - i.amount_paid - i.amount_offset <= 0),
                            format('%s, and %s is left', i.status, i.amount_due - i.amount_paid - i.amount_offset)),
                           ('more is booked than was due', i.amount_due - i.amount_paid - i.amount_offset < 0, format('by %s', i.amount_paid + i.amount_offset - i.amount_due))) AS c (problem, wrong, detail)
     WHERE i.tenant_id = tenant AND c.wrong;
  RETURN QUERY
    SELECT 'credit notes exceed a line', l.invoice_id, format('line %s: %s of %s', l.line, sum(n.amount), l.amount)
      FROM meterflow.credit_note_lines AS n
      JOIN meterflow.invoice_lines AS l ON l.tenant_id = n.tenant_id AND l.invoice_id = n.invoice_id AND l.line = n.line
     WHERE n.tenant_id = tenant
     GROUP BY l.invoice_id, l.line, l.amount
    HAVING abs(sum(n.amount)) > abs(l.amount) OR sign(sum(n.amount)) = -sign(l.amount);
  RETURN QUERY
    SELECT 'credit note does not add up', n.invoice_id, n.number
      FROM meterflow.credit_notes AS n,
           LATERAL (SELECT sum(l.amount) AS amount, sum(l.discount) AS discount, sum(l.promotional) AS promotional, sum(l.tax) AS tax, sum(l.total) AS total
                      FROM meterflow.credit_note_lines AS l WHERE l.tenant_id = n.tenant_id AND l.credit_note_id = n.id) AS l
     WHERE n.tenant_id = tenant
       AND ((n.subtotal, n.discount, n.promotional, n.tax, n.total) IS DISTINCT FROM (l.amount, l.discount, l.promotional, l.tax, l.total)
            OR n.refunded <> (SELECT coalesce(sum(p.amount), 0) FROM meterflow.payments AS p WHERE p.tenant_id = n.tenant_id AND p.credit_note_id = n.id));
  -- Credit: it comes from somewhere, and is used once.
  RETURN QUERY
    SELECT 'credit does not come from what it says', s.invoice_id, format('%s %s gives %s, account_credits has %s', s.source, s.id, s.amount, coalesce(a.amount, 0))
      FROM (SELECT 'overpayment' AS source, p.id, p.overpaid AS amount, p.invoice_id FROM meterflow.payments AS p WHERE p.tenant_id = tenant AND p.overpaid > 0
            UNION ALL SELECT 'credit_note', n.id, n.credit, n.invoice_id FROM meterflow.credit_notes AS n WHERE n.tenant_id = tenant AND n.credit > 0
            UNION ALL SELECT 'invoice', i.id, -i.total, i.id FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.total < 0 AND i.sequence IS NOT NULL) AS s
      FULL JOIN (SELECT * FROM meterflow.account_credits AS a WHERE a.tenant_id = tenant) AS a ON (a.source, a.source_id) = (s.source, s.id)
     WHERE a.amount IS DISTINCT FROM s.amount;
  RETURN QUERY
    SELECT 'more credit was used than there was', NULL::bigint, format('account credit %s of %s: %s of %s', a.id, a.customer_id, sum(u.amount), a.amount)
      FROM meterflow.account_credits AS a
      JOIN meterflow.invoice_credits AS u ON u.tenant_id = a.tenant_id AND u.source = 'account' AND u.source_id = a.id
      JOIN meterflow.invoices AS i ON i.tenant_id = u.tenant_id AND i.id = u.invoice_id AND i.status IN ('finalized', 'paid')
     WHERE a.tenant_id = tenant
     GROUP BY a.id, a.customer_id, a.amount
    HAVING sum(u.amount) > a.amount;
  RETURN QUERY
    SELECT 'wallets do not say what the invoice took', i.id, format('%s, wallets %s', c.used, w.taken)
      FROM meterflow.invoices AS i,
           LATERAL (SELECT coalesce(sum(c.amount), 0) AS used FROM meterflow.invoice_credits AS c WHERE c.tenant_id = i.tenant_id AND c.invoice_id = i.id AND c.source = 'wallet') AS c,
           LATERAL (SELECT -coalesce(sum(t.amount), 0) AS taken FROM meterflow.wallet_transactions AS t WHERE t.tenant_id = i.tenant_id AND t.invoice_id = i.id) AS w
     WHERE i.tenant_id = tenant AND w.taken <> CASE WHEN i.status IN ('finalized', 'paid') THEN c.used ELSE 0 END;
  -- All that live invoices charged of a price in a period is what the last of them says it came to: void_invoice() refuses
  -- one that a later one builds on.
  RETURN QUERY
    SELECT 'lines of a period do not add up', c.last_invoice, format('price %s of subscription %s from %s: %s charged, %s due', c.price_id, c.subscription_id, c.cycle_start, c.charged, c.due)
      FROM (SELECT l.subscription_id, l.price_id, l.cycle_start, sum(l.amount) AS charged, (array_agg(l.due_amount ORDER BY l.invoice_id DESC, l.line DESC))[1] AS due, max(l.invoice_id) AS last_invoice
              FROM meterflow.invoice_lines AS l
              JOIN meterflow.invoices AS i ON i.tenant_id = l.tenant_id AND i.id = l.invoice_id AND i.status IN ('finalized', 'paid')
             WHERE l.tenant_id = tenant AND l.subscription_id IS NOT NULL
             GROUP BY l.subscription_id, l.item_id, l.price_id, l.cycle_start, l.cycle_end) AS c
     WHERE c.charged <> c.due;
END $$;
COMMENT ON FUNCTION meterflow.verify_billing() IS 'Invoices, credit notes, payments and credits of the tenant against each other: what does not add up. No rows: all is well.';
