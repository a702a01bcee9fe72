-- What the tests of billing share. Identifiers of rows are given by the tests; what the server chooses is not shown.

-- What a statement answers: its value, or its error with code, detail and hint.
CREATE FUNCTION pg_temp.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer text; code text; message text; detail text; hint text;
BEGIN
  IF statement LIKE 'SELECT%' THEN
    EXECUTE statement INTO answer;
  ELSE
    EXECUTE statement;
  END IF;
  RETURN coalesce(answer, 'done');
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  -- Times of now and numbers from sequences.
  detail := regexp_replace(regexp_replace(detail, '(Change|Redemption|transaction|Grant|Reset) \d+', '\1 N', 'g'), to_char(now(), 'YYYY-MM-DD') || ' [0-9:.+]+', 'NOW', 'g');
  RETURN concat_ws(E'\n    ', code || ' ' || message, nullif(CASE WHEN detail NOT LIKE 'Failing row%' THEN detail END, ''), nullif(hint, ''));
END $$;

-- A billing run, repeated until it has nothing more to do.
CREATE FUNCTION pg_temp.bill(until timestamptz) RETURNS TABLE (customer_id text, bill_at timestamptz, outcome text, number text, amount_due text) LANGUAGE plpgsql AS $$
DECLARE
  goes_on boolean := true;
  due record;
BEGIN
  WHILE goes_on LOOP
    goes_on := false;
    FOR due IN SELECT * FROM meterflow.bill_due(until) LOOP
      IF due.outcome <> 'nothing to charge' THEN
        customer_id := due.customer_id; bill_at := due.bill_at; outcome := due.outcome;
        SELECT i.number, concat_ws(' ', i.amount_due, i.currency) INTO number, amount_due
          FROM meterflow.invoices AS i WHERE i.tenant_id = meterflow.current_tenant() AND i.id = due.invoice_id;
        RETURN NEXT;
      END IF;
      goes_on := goes_on OR due.outcome IN ('finalized', 'nothing to charge');
    END LOOP;
  END LOOP;
END $$;

CREATE TEMPORARY VIEW bills AS
  SELECT i.number, i.customer_id, i.kind, i.status, i.bill_at, i.subtotal, i.discount, i.tax, i.total, i.credited, i.amount_due
    FROM meterflow.invoices AS i WHERE i.tenant_id = meterflow.current_tenant() ORDER BY i.id;
CREATE TEMPORARY VIEW bill_lines AS
  SELECT i.number, l.line, l.kind, l.customer_id, l.description, l.period_start, l.period_end, l.quantity, l.due_amount, l.billed_before, l.amount, l.discount, l.tax, l.total,
         (SELECT o.number FROM meterflow.invoices AS o WHERE o.tenant_id = l.tenant_id AND o.id = l.adjusts) AS adjusts, l.subscription_id
    FROM meterflow.invoices AS i JOIN meterflow.invoice_lines AS l ON l.tenant_id = i.tenant_id AND l.invoice_id = i.id
   WHERE i.tenant_id = meterflow.current_tenant() ORDER BY i.id, l.line;
-- Whatever was billed: lines add up to totals, and each amount is due less billed before.
CREATE TEMPORARY VIEW bill_faults AS
  SELECT i.number, l.*
    FROM meterflow.invoices AS i,
         LATERAL (SELECT sum(l.amount) AS amount, sum(l.discount) AS discount, sum(l.tax) AS tax, sum(l.total) AS total, bool_and(l.amount = coalesce(l.due_amount, l.amount) - l.billed_before) AS due,
                         bool_and(l.amount = round(l.amount, meterflow.currency_digits(i.currency))) AS rounded
                    FROM meterflow.invoice_lines AS l WHERE l.tenant_id = i.tenant_id AND l.invoice_id = i.id) AS l
   WHERE i.tenant_id = meterflow.current_tenant()
     AND NOT (i.subtotal = l.amount AND i.discount = l.discount AND i.tax = l.tax AND i.total = l.total AND l.due AND l.rounded
              AND i.amount_due = greatest(i.total, 0) - i.credited
              AND i.discount = (SELECT coalesce(sum(d.amount), 0) FROM meterflow.invoice_discounts AS d WHERE d.tenant_id = i.tenant_id AND d.invoice_id = i.id)
              AND i.tax = (SELECT coalesce(sum(t.amount) FILTER (WHERE true), 0) FROM meterflow.invoice_taxes AS t WHERE t.tenant_id = i.tenant_id AND t.invoice_id = i.id)
              AND i.credited = (SELECT coalesce(sum(c.amount), 0) FROM meterflow.invoice_credits AS c WHERE c.tenant_id = i.tenant_id AND c.invoice_id = i.id));
