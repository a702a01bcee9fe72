-- What is owed now, and making it an invoice: charges, previews, the billing run, finalizing and voiding. Paying is in
-- 68_payments.sql. The protocol is in src/billing/invoice.rs.

CREATE FUNCTION meterflow.open_charge_rows(of_customer text, in_currency text, as_of timestamptz)
RETURNS TABLE (subscription_id bigint, price_id bigint, meter_key text, period_start timestamptz, period_end timestamptz,
               quantity text, unrounded text, amount text, currency text)
LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'open_charge_rows_wrapper';
COMMENT ON FUNCTION meterflow.open_charge_rows(text, text, timestamptz) IS
  'Internal: what a customer owes for all periods that have begun by as_of and that no invoice has taken, numbers as text.';

CREATE FUNCTION meterflow.current_charges(customer_id text)
RETURNS TABLE (subscription_id bigint, price_id bigint, meter_key text, period_start timestamptz, period_end timestamptz,
               quantity numeric, unrounded numeric, amount numeric, currency text)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
  SELECT c.subscription_id, c.price_id, c.meter_key, c.period_start, c.period_end, c.quantity::numeric, c.unrounded::numeric, c.amount::numeric, c.currency
    FROM meterflow.open_charge_rows(current_charges.customer_id, NULL, pg_catalog.statement_timestamp()) c
   WHERE current_charges.customer_id IS NOT NULL;
END;
COMMENT ON FUNCTION meterflow.current_charges(text) IS
  'What a customer''s subscriptions cost so far, line by line: the open periods, and what is not on an invoice of earlier ones. amount is what an invoice line would say.';

-- Usage that adds up is taken to go on as it did; one that doesn't (a maximum, distinct users) to stay what it is.
CREATE FUNCTION meterflow.projected_charges(customer_id text)
RETURNS TABLE (subscription_id bigint, price_id bigint, meter_key text, period_start timestamptz, period_end timestamptz,
               quantity numeric, amount numeric, projected_quantity numeric, projected_amount numeric, currency text)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
  SELECT c.subscription_id, c.price_id, c.meter_key, c.period_start, c.period_end, c.quantity, c.amount, q.quantity,
         CASE WHEN q.quantity = c.quantity THEN c.amount
              ELSE c.amount + round(meterflow.price(p.model, q.quantity) * coalesce(u.rate, 1), meterflow.currency_digits(c.currency))
                            - round(meterflow.price(p.model, c.quantity) * coalesce(u.rate, 1), meterflow.currency_digits(c.currency)) END,
         c.currency
    FROM meterflow.current_charges(projected_charges.customer_id) AS c
    JOIN meterflow.prices AS p ON p.tenant_id = meterflow.current_tenant() AND p.id = c.price_id
    JOIN meterflow.plans AS l ON (l.tenant_id, l.key, l.version) = (p.tenant_id, p.plan_key, p.plan_version)
    LEFT JOIN meterflow.credit_units AS u ON (u.tenant_id, u.key) = (l.tenant_id, l.credit_unit)
    LEFT JOIN meterflow.meters AS m ON m.tenant_id = p.tenant_id AND m.key = c.meter_key,
         LATERAL (SELECT extract(epoch FROM least(statement_timestamp(), c.period_end) - c.period_start) AS elapsed,
                         extract(epoch FROM c.period_end - c.period_start) AS whole) AS t,
         LATERAL (SELECT CASE WHEN m.aggregation IN ('count', 'sum') AND t.elapsed > 0 AND t.elapsed < t.whole
                                AND meterflow.price_needs(p.model) - 'quantity' - 'meter' - 'dimensions' - 'commitment_periods' = '{}'
                              THEN round(c.quantity * t.whole / t.elapsed, 6) ELSE c.quantity END AS quantity) AS q
   ORDER BY c.subscription_id, c.period_start, c.price_id;
END;
COMMENT ON FUNCTION meterflow.projected_charges(text) IS
  'current_charges() with what they will come to at the end of their periods if usage goes on as it did: counts and sums in proportion to time. A forecast, not a promise.';

CREATE FUNCTION meterflow.preview_invoice_rows(subscription_id bigint, payer text, currency text, at timestamptz) RETURNS text
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'preview_invoice_rows_wrapper';
COMMENT ON FUNCTION meterflow.preview_invoice_rows(bigint, text, text, timestamptz) IS 'Internal: preview_invoice() as JSON.';

CREATE FUNCTION meterflow.preview_invoice(subscription_id bigint, at timestamptz DEFAULT NULL)
RETURNS SETOF meterflow.invoice_lines
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
  SELECT l.*
    FROM meterflow.subscriptions AS s
    JOIN meterflow.customers AS c ON (c.tenant_id, c.id) = (s.tenant_id, s.customer_id)
    JOIN meterflow.plans AS p ON (p.tenant_id, p.key, p.version) = (s.tenant_id, s.plan_key, s.plan_version),
         LATERAL json_populate_recordset(NULL::meterflow.invoice_lines, meterflow.preview_invoice_rows(s.id, coalesce(c.payer_id, c.id), p.currency,
           coalesce(preview_invoice.at, (meterflow.current_period(s.id, greatest(statement_timestamp(), s.starts_at))).period_end, s.ends_at))::json) AS l
   WHERE s.tenant_id = meterflow.current_tenant() AND s.id = preview_invoice.subscription_id;
END;
COMMENT ON FUNCTION meterflow.preview_invoice(bigint, timestamptz) IS
  'The lines that the next invoice of a subscription would have at a time (default: the end of its period), with discounts and taxes, by what is known now. Nothing is stored.';

CREATE FUNCTION meterflow.preview_plan_change(subscription_id bigint, plan_key text, timing text DEFAULT 'now', at timestamptz DEFAULT NULL, plan_version integer DEFAULT NULL)
RETURNS SETOF meterflow.invoice_lines
LANGUAGE plpgsql VOLATILE ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  lines meterflow.invoice_lines[];
BEGIN
  -- Done and undone: what it shows is computed by what would do it.
  BEGIN
    PERFORM meterflow.change_plan(preview_plan_change.subscription_id, preview_plan_change.plan_key, 'preview:' || gen_random_uuid(), preview_plan_change.timing,
                                  preview_plan_change.at, preview_plan_change.plan_version);
    SELECT array_agg(l) INTO lines FROM meterflow.preview_invoice(preview_plan_change.subscription_id) AS l;
    RAISE EXCEPTION USING ERRCODE = 'MF001', MESSAGE = 'undo';
  EXCEPTION WHEN SQLSTATE 'MF001' THEN
    NULL;
  END;
  RETURN QUERY SELECT * FROM unnest(lines);
END $$;
COMMENT ON FUNCTION meterflow.preview_plan_change(bigint, text, text, timestamptz, integer) IS
  'The lines of the next invoice if the plan changed so: credits for the old plan, charges for the new one. Nothing is changed.';

CREATE FUNCTION meterflow.preview_plan(plan_key text, usage jsonb DEFAULT '{}', quantities jsonb DEFAULT '{}', plan_version integer DEFAULT NULL, at timestamptz DEFAULT now())
RETURNS TABLE (price_id bigint, price_key text, meter_key text, quantity numeric, unrounded numeric, amount numeric, currency text)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
  SELECT r.id, r.key, r.meter_key, (q.usage->>'quantity')::numeric, c.unrounded, round(c.unrounded, meterflow.currency_digits(p.currency)), p.currency
    FROM (SELECT l.*, coalesce(u.rate, 1) AS rate FROM meterflow.plans AS l LEFT JOIN meterflow.credit_units AS u ON (u.tenant_id, u.key) = (l.tenant_id, l.credit_unit)
           WHERE l.tenant_id = meterflow.current_tenant() AND l.key = preview_plan.plan_key AND (preview_plan.plan_version IS NULL OR l.version = preview_plan.plan_version)
           ORDER BY l.version DESC LIMIT 1) AS p
    JOIN meterflow.prices AS r ON (r.tenant_id, r.plan_key, r.plan_version) = (p.tenant_id, p.key, p.version)
     AND r.subscription_id IS NULL AND r.price_group IS NULL AND r.phase IS NULL AND preview_plan.at >= r.valid_from AND preview_plan.at < r.valid_to,
         LATERAL (SELECT CASE WHEN r.meter_key IS NULL THEN jsonb_build_object('quantity', coalesce(preview_plan.quantities->r.key, '1'))
                              WHEN jsonb_typeof(preview_plan.usage->r.meter_key) = 'object' THEN preview_plan.usage->r.meter_key
                              WHEN preview_plan.usage ? r.meter_key THEN jsonb_build_object('quantity', preview_plan.usage->r.meter_key)
                              ELSE '{"quantity":0,"events":0,"values":[],"groups":[],"buckets":[]}' END AS usage) AS q,
         LATERAL (SELECT meterflow.price_usage(r.model, q.usage) * p.rate AS unrounded) AS c
   ORDER BY r.id;
END;
COMMENT ON FUNCTION meterflow.preview_plan(text, jsonb, jsonb, integer, timestamptz) IS
  'What a whole period of a plan costs for given usage by meter, {"tokens": 120000} or as price_usage() takes it, {"tokens": {"groups": [...]}}, and quantities by price, {"seat": 5}.';

-- Inlined where it is asked: each part of a balance is.
CREATE FUNCTION meterflow.open_account_credits(payer text, in_currency text)
RETURNS TABLE (id bigint, created_at timestamptz, left_over numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 5
BEGIN ATOMIC
  SELECT c.* FROM (
    SELECT a.id, a.created_at, a.amount - coalesce((
             SELECT sum(u.amount) FROM meterflow.invoice_credits AS u JOIN meterflow.invoices AS i ON i.tenant_id = u.tenant_id AND i.id = u.invoice_id
              WHERE u.tenant_id = a.tenant_id AND u.source = 'account' AND u.source_id = a.id AND i.status IN ('finalized', 'paid')), 0) AS left_over
      FROM meterflow.account_credits AS a
     WHERE a.tenant_id = meterflow.current_tenant() AND a.customer_id = payer AND a.currency = in_currency
       AND NOT (a.source = 'invoice' AND EXISTS (SELECT FROM meterflow.invoices AS i WHERE i.tenant_id = a.tenant_id AND i.id = a.source_id AND i.status = 'void'))) AS c
   WHERE c.left_over > 0;
END;
COMMENT ON FUNCTION meterflow.open_account_credits(text, text) IS 'What is left of a customer''s account_credits: of credit notes, overpayments, and invoices below zero.';

CREATE FUNCTION meterflow.make_invoice(payer text, currency text, bill_at timestamptz, progressive bigint, finalize boolean, issued_at timestamptz, idempotency_key text, replaces bigint) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'make_invoice_wrapper';
COMMENT ON FUNCTION meterflow.make_invoice(text, text, timestamptz, bigint, boolean, timestamptz, text, bigint) IS
  'Internal: makes the invoice of a payer for what is due by a time, as a draft or final; null when there is nothing to charge.';

-- {seq}, {seq:6}, {year}, {month} of a format.
CREATE FUNCTION meterflow.format_number(format text, seq bigint, at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT replace(replace(replace(regexp_replace(format, '\{seq:[1-9]\}',
           CASE WHEN length(seq::text) >= w.width THEN seq::text ELSE lpad(seq::text, w.width, '0') END), '{seq}', seq::text),
         '{year}', to_char(at AT TIME ZONE 'UTC', 'YYYY')), '{month}', to_char(at AT TIME ZONE 'UTC', 'MM'))
    FROM (SELECT coalesce(substring(format FROM '\{seq:([1-9])\}')::integer, 1) AS width) AS w;
END;
COMMENT ON FUNCTION meterflow.format_number(text, bigint, timestamptz) IS 'Internal: a number in the tenant''s format.';

CREATE FUNCTION meterflow.issue_invoice(tenant text, invoice_id bigint, at timestamptz, net_terms interval, account_credit numeric, idempotency_key text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  invoice meterflow.invoices;
  numbering record;
BEGIN
  SELECT i.* INTO STRICT invoice FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.id = invoice_id;
  IF account_credit IS NOT NULL THEN
    INSERT INTO meterflow.account_credits (tenant_id, customer_id, currency, amount, source, source_id)
    VALUES (tenant, invoice.customer_id, invoice.currency, account_credit, 'invoice', invoice_id);
  END IF;
  -- The last thing that can wait: from here on no other invoice of the tenant gets a number until this one has committed.
  LOOP
    UPDATE meterflow.billing_settings AS b SET next_invoice = b.next_invoice + 1 WHERE b.tenant_id = tenant
    RETURNING b.next_invoice - 1 AS seq, b.invoice_format AS format INTO numbering;
    EXIT WHEN FOUND;
    INSERT INTO meterflow.billing_settings (tenant_id) VALUES (tenant) ON CONFLICT DO NOTHING;
  END LOOP;
  UPDATE meterflow.invoices AS i
     SET number = meterflow.format_number(numbering.format, numbering.seq, at), sequence = numbering.seq, issued_at = at, due_at = at + net_terms,
         status = CASE WHEN i.amount_due = 0 THEN 'paid' ELSE 'finalized' END, paid_at = CASE WHEN i.amount_due = 0 THEN at END,
         idempotency_key = issue_invoice.idempotency_key
   WHERE i.tenant_id = tenant AND i.id = invoice_id
  RETURNING i.* INTO invoice;
  PERFORM meterflow.emit(tenant, invoice.customer_id, 'invoice_finalized', jsonb_build_object('invoice_id', invoice.id, 'number', invoice.number, 'kind', invoice.kind,
    'status', invoice.status, 'currency', invoice.currency, 'total', invoice.total::text, 'amount_due', invoice.amount_due::text, 'due_at', invoice.due_at));
  PERFORM meterflow.queue_alerts(tenant, invoice.customer_id);
END $$;
COMMENT ON FUNCTION meterflow.issue_invoice(text, bigint, timestamptz, interval, numeric, text) IS 'Internal: gives a draft its number and makes it final.';

CREATE FUNCTION meterflow.finalize_invoice(invoice_id bigint, idempotency_key text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  draft meterflow.invoices;
  final meterflow.invoices;
  done bigint;
BEGIN
  IF invoice_id IS NULL OR coalesce(idempotency_key, '') = '' THEN
    RAISE EXCEPTION 'finalize_invoice needs an invoice_id and an idempotency_key' USING ERRCODE = '22004', HINT = 'The key makes a retry return the first result.';
  END IF;
  SELECT i.* INTO draft FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.id = invoice_id;
  SELECT i.* INTO final FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.idempotency_key = finalize_invoice.idempotency_key;
  IF FOUND THEN
    -- The draft itself is gone: what is there under its id is the final one, or something else.
    IF draft.id <> final.id THEN
      PERFORM meterflow.refuse_key(idempotency_key, 'Invoice ' || coalesce(final.number, final.id::text), 'invoice');
    END IF;
    RETURN final.id;
  END IF;
  IF draft.id IS NULL THEN
    RAISE EXCEPTION 'there is no invoice %', invoice_id USING ERRCODE = '23503',
      DETAIL = format('Tenant "%s" has none with this id; a draft gets another id each time it is computed.', tenant), HINT = 'SELECT id, customer_id, status FROM meterflow.invoices lists them.';
  END IF;
  -- Whoever else finalizes it holds this lock until it is done.
  PERFORM FROM meterflow.customers AS c WHERE c.tenant_id = tenant AND c.id = draft.customer_id FOR NO KEY UPDATE;
  SELECT i.* INTO draft FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.id = invoice_id;
  IF NOT FOUND OR draft.status <> 'draft' THEN
    SELECT i.id INTO done FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.idempotency_key = finalize_invoice.idempotency_key;
    IF done IS NOT NULL THEN
      RETURN done;
    END IF;
    RAISE EXCEPTION 'invoice % is no draft', invoice_id USING ERRCODE = '55000',
      DETAIL = CASE WHEN draft.id IS NULL THEN 'It has been computed anew or finalized meanwhile.' ELSE format('It is %s, number %s.', draft.status, draft.number) END,
      HINT = 'It was finalized with another key; there is nothing to do.';
  END IF;
  IF draft.kind = 'one_off' THEN
    RETURN meterflow.finalize_one_off(draft.id, idempotency_key);
  END IF;
  RETURN meterflow.make_invoice(draft.customer_id, draft.currency, draft.bill_at, NULL, true, now(), idempotency_key, NULL);
END $$;
COMMENT ON FUNCTION meterflow.finalize_invoice(bigint, text) IS
  'Makes a draft final: computed once more by all that is known now, numbered, credits used up. Returns the id of the final invoice; again with the same key returns the same. Null when there is nothing left to charge.';

CREATE FUNCTION meterflow.void_invoice(invoice_id bigint, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  voided meterflow.invoices;
  obstacle text;
BEGIN
  IF coalesce(reason, '') = '' THEN
    RAISE EXCEPTION 'void_invoice needs a reason' USING ERRCODE = '22004', HINT = 'It is kept with the invoice.';
  END IF;
  voided := meterflow.lock_invoice(invoice_id);
  IF voided.status = 'void' THEN
    RETURN;
  END IF;
  obstacle := CASE
    WHEN voided.status = 'draft' THEN 'It is a draft, which is computed anew anyway.'
    WHEN voided.amount_paid <> 0 THEN format('%s %s has been paid on it: refund that first.', voided.amount_paid, voided.currency)
    WHEN EXISTS (SELECT FROM meterflow.credit_notes AS n WHERE n.tenant_id = tenant AND n.invoice_id = void_invoice.invoice_id) THEN 'It has credit notes: credit the rest of it instead.'
    WHEN EXISTS (SELECT FROM meterflow.account_credits AS a JOIN meterflow.invoice_credits AS u ON u.tenant_id = a.tenant_id AND u.source = 'account' AND u.source_id = a.id
                   JOIN meterflow.invoices AS i ON i.tenant_id = u.tenant_id AND i.id = u.invoice_id AND i.status IN ('finalized', 'paid')
                  WHERE a.tenant_id = tenant AND a.source = 'invoice' AND a.source_id = void_invoice.invoice_id)
      THEN 'Later invoices have used the credit it gave.'
    WHEN EXISTS (SELECT FROM meterflow.invoice_lines AS l JOIN meterflow.invoice_lines AS o ON o.tenant_id = l.tenant_id AND o.subscription_id = l.subscription_id
                    AND o.item_id IS NOT DISTINCT FROM l.item_id AND o.price_id = l.price_id AND (o.cycle_start, o.cycle_end) = (l.cycle_start, l.cycle_end) AND o.invoice_id > l.invoice_id
                   JOIN meterflow.invoices AS i ON i.tenant_id = o.tenant_id AND i.id = o.invoice_id AND i.status IN ('finalized', 'paid')
                  WHERE l.tenant_id = tenant AND l.invoice_id = void_invoice.invoice_id)
      THEN 'A later invoice adjusts it: void that one first, or give a credit note.'
  END;
  IF obstacle IS NOT NULL THEN
    RAISE EXCEPTION 'invoice % can not be voided', coalesce(voided.number, invoice_id::text) USING ERRCODE = '55000', DETAIL = obstacle,
      HINT = 'A credit note takes back what an invoice charged without voiding it.';
  END IF;
  PERFORM meterflow.give_back_invoice(void_invoice.invoice_id, voided.customer_id, voided.currency);
  UPDATE meterflow.invoices AS i SET status = 'void', voided_at = now(), void_reason = reason WHERE i.tenant_id = tenant AND i.id = void_invoice.invoice_id;
END $$;
COMMENT ON FUNCTION meterflow.void_invoice(bigint, text) IS
  'Takes back an invoice as if it had not been: credits it used are there again, what it charged is charged by the next invoice or by regenerate_invoice(). Its number stays taken. Again does nothing.';

CREATE FUNCTION meterflow.regenerate_invoice(invoice_id bigint, idempotency_key text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  voided meterflow.invoices := meterflow.lock_invoice(invoice_id);
  done meterflow.invoices;
BEGIN
  IF voided.status <> 'void' OR voided.kind = 'one_off' OR coalesce(idempotency_key, '') = '' THEN
    RAISE EXCEPTION 'invoice % can not be regenerated', coalesce(voided.number, invoice_id::text) USING ERRCODE = '55000',
      DETAIL = CASE WHEN voided.kind = 'one_off' THEN 'It was written by hand.'
                    WHEN voided.status <> 'void' THEN format('It is %s, not void.', voided.status) ELSE 'The idempotency_key is empty.' END,
      HINT = 'Void it first; the new one is computed by what is known now.';
  END IF;
  SELECT i.* INTO done FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND (i.idempotency_key = regenerate_invoice.idempotency_key OR (i.replaces = voided.id AND i.status <> 'void')) LIMIT 1;
  IF done.idempotency_key = idempotency_key AND done.replaces = voided.id THEN
    RETURN done.id;
  ELSIF done.id IS NOT NULL THEN
    RAISE EXCEPTION 'invoice % has been regenerated, or the key been used', voided.number USING ERRCODE = '23505',
      DETAIL = format('Invoice %s replaces %s and has the key "%s".', done.number, done.replaces, done.idempotency_key), HINT = 'Void that one first.';
  END IF;
  RETURN meterflow.make_invoice(voided.customer_id, voided.currency, voided.bill_at,
           CASE WHEN voided.kind = 'progressive' THEN (SELECT min(l.subscription_id) FROM meterflow.invoice_lines AS l WHERE l.tenant_id = tenant AND l.invoice_id = voided.id) END,
           true, now(), idempotency_key, voided.id);
END $$;
COMMENT ON FUNCTION meterflow.regenerate_invoice(bigint, text) IS 'Makes the invoice that takes the place of a voided one: the same subscriptions and periods, by what is known now. Returns its id.';

CREATE FUNCTION meterflow.reproduce_lines(invoice_id bigint)
RETURNS TABLE (line integer, quantity text, reproduced_quantity text, due_amount text, reproduced_amount text)
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'reproduce_lines_wrapper';
COMMENT ON FUNCTION meterflow.reproduce_lines(bigint) IS 'Internal: reproduce_invoice() with numbers as text.';

CREATE FUNCTION meterflow.reproduce_invoice(invoice_id bigint)
RETURNS TABLE (line integer, description text, quantity numeric, reproduced_quantity numeric, due_amount numeric, reproduced_amount numeric, equal boolean)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
  SELECT r.line, l.description, r.quantity::numeric, r.reproduced_quantity::numeric, r.due_amount::numeric, r.reproduced_amount::numeric,
         r.quantity::numeric = r.reproduced_quantity::numeric AND r.due_amount::numeric = r.reproduced_amount::numeric
    FROM meterflow.reproduce_lines(reproduce_invoice.invoice_id) AS r
    JOIN meterflow.invoice_lines AS l ON l.tenant_id = meterflow.current_tenant() AND l.invoice_id = reproduce_invoice.invoice_id AND l.line = r.line;
END;
COMMENT ON FUNCTION meterflow.reproduce_invoice(bigint) IS
  'An invoice computed again from the raw events that it knew and the prices that it kept, line by line, beside what it says. due_amount is what the period came to in all; an adjustment charged the rest of it.';

CREATE TABLE meterflow.billing_failures (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  customer_id  text COLLATE "C" NOT NULL,
  currency     text COLLATE "C" NOT NULL,
  bill_at      timestamptz NOT NULL,
  code         text NOT NULL,
  message      text NOT NULL,
  times        integer NOT NULL DEFAULT 1,
  failed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, customer_id, currency)
) USING heap;
COMMENT ON TABLE meterflow.billing_failures IS 'Invoices that bill_due() could not make, and why. They are tried again after 5 minutes, or at once when the row is deleted; it goes when the invoice has been made.';

CREATE FUNCTION meterflow.bill_due(at timestamptz DEFAULT now(), max_invoices integer DEFAULT 1000)
RETURNS TABLE (customer_id text, currency text, bill_at timestamptz, invoice_id bigint, outcome text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  grace CONSTANT interval := coalesce((SELECT b.grace_period FROM meterflow.billing_settings AS b WHERE b.tenant_id = tenant), '0');
  due record;
  final boolean;
  code text; message text; detail text;
BEGIN
  IF NOT coalesce(isfinite(bill_due.at), false) THEN
    RAISE EXCEPTION 'bill_due() needs a time' USING ERRCODE = '22023', DETAIL = format('It is given %s.', coalesce(bill_due.at::text, 'null')),
      HINT = 'Leave it out for now.';
  END IF;
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'bill_due() can not run in a % transaction', upper(current_setting('transaction_isolation')) USING ERRCODE = '25001',
      DETAIL = 'It waits for other work on a customer and must then see it.', HINT = 'Call it outside a transaction block, or BEGIN ISOLATION LEVEL READ COMMITTED.';
  END IF;
  -- In order of time, which puts those whose grace is over first; drafts are for a look, and made anew at most once an
  -- hour. Subscriptions are taken from the index as far as needed, however many are due. All payers, and then their credit, are locked before
  -- the first invoice takes the lock on numbers, in order of id: two runs, or a run and whoever finalizes one invoice, wait
  -- for each other in one direction only.
  FOR due IN
    WITH list AS MATERIALIZED (
      SELECT coalesce(c.payer_id, c.id) AS payer, p.currency, min(s.next_bill_at) AS moment
        FROM (SELECT n.* FROM meterflow.subscriptions AS n
                JOIN meterflow.customers AS o ON o.tenant_id = n.tenant_id AND o.id = n.customer_id
               WHERE n.tenant_id = tenant AND n.next_bill_at <= bill_due.at
                 AND (n.next_bill_at + grace <= bill_due.at OR NOT EXISTS (
                      SELECT FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.customer_id = coalesce(o.payer_id, o.id)
                         AND i.bill_at = n.next_bill_at AND i.status = 'draft' AND i.created_at > clock_timestamp() - interval '1 hour'))
                 AND NOT EXISTS (SELECT FROM meterflow.billing_failures AS f WHERE f.tenant_id = tenant AND f.customer_id = coalesce(o.payer_id, o.id)
                         AND f.failed_at > clock_timestamp() - interval '5 minutes')
               ORDER BY n.next_bill_at LIMIT max_invoices) AS s
        JOIN meterflow.customers AS c ON (c.tenant_id, c.id) = (s.tenant_id, s.customer_id)
        JOIN meterflow.plans AS p ON (p.tenant_id, p.key, p.version) = (s.tenant_id, s.plan_key, s.plan_version)
       GROUP BY 1, 2),
    locked AS MATERIALIZED (
      SELECT c.id FROM meterflow.customers AS c WHERE c.tenant_id = tenant AND c.id IN (SELECT l.payer FROM list AS l) ORDER BY c.id FOR NO KEY UPDATE),
    credit AS MATERIALIZED (
      SELECT t.customer_id FROM meterflow.wallet_totals AS t WHERE t.tenant_id = tenant AND t.customer_id IN (SELECT l.id FROM locked AS l)
       ORDER BY t.customer_id, t.currency FOR NO KEY UPDATE)
    SELECT l.payer, l.currency, l.moment FROM list AS l WHERE (SELECT count(*) FROM locked) > 0 AND (SELECT count(*) FROM credit) >= 0 ORDER BY l.moment, l.payer, l.currency
  LOOP
    customer_id := due.payer;
    currency := due.currency;
    bill_at := due.moment;
    final := due.moment + grace <= bill_due.at;
    BEGIN
      invoice_id := meterflow.make_invoice(due.payer, due.currency, due.moment, NULL, final, bill_due.at, NULL, NULL);
      -- A draft of nothing is a draft all the same: it is done with when its grace is over, and no progress before.
      outcome := CASE WHEN NOT final THEN 'draft' WHEN invoice_id IS NULL THEN 'nothing to charge' ELSE 'finalized' END;
      DELETE FROM meterflow.billing_failures AS f WHERE f.tenant_id = tenant AND f.customer_id = due.payer AND f.currency = due.currency;
    EXCEPTION WHEN OTHERS THEN
      -- One customer's fault is not another's: it is written down and the run goes on.
      GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
      IF code IN ('40001', '40P01', '55P03', '57014', '57P01') THEN
        RAISE;
      END IF;
      invoice_id := NULL;
      outcome := format('error %s: %s', code, concat_ws(' ', message, detail));
      INSERT INTO meterflow.billing_failures AS f (tenant_id, customer_id, currency, bill_at, code, message)
      VALUES (tenant, due.payer, due.currency, due.moment, code, concat_ws(' ', message, detail))
      ON CONFLICT ON CONSTRAINT billing_failures_pkey DO UPDATE
         SET bill_at = excluded.bill_at, code = excluded.code, message = excluded.message, times = f.times + 1, failed_at = excluded.failed_at;
    END;
    RETURN NEXT;
  END LOOP;
END $$;
COMMENT ON FUNCTION meterflow.bill_due(timestamptz, integer) IS
  'Makes the invoices that are due by a time: drafts while their grace lasts, final ones after it. Interrupted or repeated it makes none twice; call it until it returns no row but drafts and errors. CALL meterflow.run_billing() does, in small transactions.';

CREATE PROCEDURE meterflow.run_billing(at timestamptz DEFAULT now(), batch integer DEFAULT 100)
LANGUAGE plpgsql
AS $$
DECLARE
  goes_on boolean := true;
BEGIN
  WHILE goes_on LOOP
    -- A procedure that commits can't have a search_path of its own, but each of its transactions can.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    -- A draft that was made now is not made again for an hour, and leaves its place to the next.
    SELECT bool_or(b.outcome IN ('finalized', 'nothing to charge') OR b.outcome = 'draft' AND b.invoice_id IS NOT NULL) IS TRUE INTO goes_on
      FROM meterflow.bill_due(run_billing.at, run_billing.batch) AS b;
    COMMIT;
  END LOOP;
  PERFORM meterflow.bill_progressive(run_billing.at);
  COMMIT;
END $$;
COMMENT ON PROCEDURE meterflow.run_billing(timestamptz, integer) IS 'Bills everything that is due by a time, so many invoices a transaction. A run that is stopped goes on where it was.';

CREATE FUNCTION meterflow.bill_progressive(at timestamptz DEFAULT now())
RETURNS TABLE (subscription_id bigint, invoice_id bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  watched record;
BEGIN
  IF NOT coalesce(isfinite(bill_progressive.at), false) THEN
    RAISE EXCEPTION 'bill_progressive() needs a time' USING ERRCODE = '22023', DETAIL = format('It is given %s.', coalesce(bill_progressive.at::text, 'null')),
      HINT = 'Leave it out for now.';
  END IF;
  -- Locked as bill_due() does.
  FOR watched IN
    WITH list AS MATERIALIZED (
      SELECT s.id, coalesce(c.payer_id, c.id) AS payer, p.currency
        FROM meterflow.subscriptions AS s
        JOIN meterflow.customers AS c ON (c.tenant_id, c.id) = (s.tenant_id, s.customer_id)
        JOIN meterflow.subscription_items AS i ON i.tenant_id = s.tenant_id AND i.subscription_id = s.id AND i.starts_at <= bill_progressive.at AND (i.ends_at IS NULL OR bill_progressive.at < i.ends_at)
        JOIN meterflow.plans AS p ON (p.tenant_id, p.key, p.version) = (i.tenant_id, i.plan_key, i.plan_version)
       WHERE s.tenant_id = meterflow.current_tenant() AND p.progressive <> '{}' AND s.starts_at <= bill_progressive.at AND (s.ends_at IS NULL OR bill_progressive.at < s.ends_at)
       GROUP BY 1, 2, 3),
    locked AS MATERIALIZED (
      SELECT c.id FROM meterflow.customers AS c WHERE c.tenant_id = meterflow.current_tenant() AND c.id IN (SELECT l.payer FROM list AS l) ORDER BY c.id FOR NO KEY UPDATE),
    credit AS MATERIALIZED (
      SELECT t.customer_id FROM meterflow.wallet_totals AS t WHERE t.tenant_id = meterflow.current_tenant() AND t.customer_id IN (SELECT l.id FROM locked AS l)
       ORDER BY t.customer_id, t.currency FOR NO KEY UPDATE)
    SELECT l.* FROM list AS l WHERE (SELECT count(*) FROM locked) > 0 AND (SELECT count(*) FROM credit) >= 0 ORDER BY l.payer, l.id
  LOOP
    subscription_id := watched.id;
    invoice_id := meterflow.make_invoice(watched.payer, watched.currency, bill_progressive.at, watched.id, true, bill_progressive.at, NULL, NULL);
    IF invoice_id IS NOT NULL THEN
      RETURN NEXT;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION meterflow.bill_progressive(timestamptz) IS 'Bills at once what subscriptions have used since they were last billed, where it has reached a threshold of their plan.';

CREATE FUNCTION meterflow.bill_automatically() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  session_tenant CONSTANT text := current_setting('meterflow.tenant', true);
  tenant record;
  due bigint;
  made bigint := 0;
BEGIN
  FOR tenant IN SELECT b.tenant_id FROM meterflow.billing_settings AS b WHERE b.automatic ORDER BY 1 LOOP
    PERFORM set_config('meterflow.tenant', tenant.tenant_id, true);
    due := (SELECT count(*) FILTER (WHERE d.outcome IN ('finalized', 'nothing to charge')) FROM meterflow.bill_due(now(), 100) AS d);
    -- What is due first: and payers must not be locked by a transaction that has taken numbers.
    made := made + due + CASE WHEN due = 0 THEN (SELECT count(*) FROM meterflow.bill_progressive(now())) ELSE 0 END;
  END LOOP;
  PERFORM set_config('meterflow.tenant', session_tenant, true);
  RETURN made;
END $$;
COMMENT ON FUNCTION meterflow.bill_automatically() IS 'The background job that bills: up to 100 payers of each tenant whose settings say automatic. Returns how many invoices were made or found empty.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.billing_failures', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.invoices', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.invoices_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.invoice_lines', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.invoice_discounts', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.invoice_taxes', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.account_credits', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.account_credits_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.invoice_credits', '');
