-- What the tests of prepaid credit share; billing.sql comes first.

-- g1, g2, ... are a customer's grants in the order in which they were made; t counts its transactions.
CREATE TEMPORARY VIEW grants AS
  SELECT w.customer_id, 'g' || row_number() OVER (PARTITION BY w.customer_id ORDER BY g.id) AS "grant", g.id, w.name AS wallet, g.kind, g.amount, g.remaining, g.effective_at <= now() AND now() < g.expires_at AS live
    FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (g.tenant_id, g.wallet_id) WHERE g.tenant_id = meterflow.current_tenant();
CREATE TEMPORARY VIEW entries AS
  SELECT t.customer_id, dense_rank() OVER (PARTITION BY t.customer_id ORDER BY t.id) AS t, t.kind, t.amount AS worth, o.kind AS reverses, w.name AS wallet, g."grant", e.account, e.amount
    FROM meterflow.wallet_transactions AS t LEFT JOIN meterflow.wallet_transactions AS o ON (o.tenant_id, o.id) = (t.tenant_id, t.reverses)
    LEFT JOIN meterflow.ledger_entries AS e ON (e.tenant_id, e.transaction_id) = (t.tenant_id, t.id) LEFT JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (e.tenant_id, e.wallet_id) LEFT JOIN grants AS g ON g.id = e.grant_id
   WHERE t.tenant_id = meterflow.current_tenant() ORDER BY t.id, e.entry;
CREATE FUNCTION pg_temp.left_of(customer text) RETURNS TABLE (name text, unit text, balance numeric, held numeric, available numeric) LANGUAGE sql
AS $$ SELECT b.name, coalesce(b.credit_unit, b.currency), coalesce(b.credits, b.balance), b.held, b.available FROM meterflow.wallet_balance(customer) AS b $$;
-- What a statement answers, without ids and times.
CREATE FUNCTION pg_temp.refused(statement text) RETURNS text LANGUAGE sql AS $$
  SELECT regexp_replace(regexp_replace(pg_temp.try(statement), '((?:wallet|hold|grant|transaction)) \d+', '\1 N', 'gi'), '\d{4}-\d\d-\d\dT[0-9:.]+Z', 'T', 'g')
$$;
