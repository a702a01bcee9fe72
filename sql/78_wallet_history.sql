-- How a customer's credit came to be what it is, and whether the ledger is whole.

CREATE FUNCTION meterflow.wallet_history(customer_id text, currency text, from_time timestamptz DEFAULT '-infinity', to_time timestamptz DEFAULT 'infinity')
RETURNS TABLE (effective_at timestamptz, known_at timestamptz, wallet_id bigint, grant_id bigint, kind text, amount numeric, worth numeric, grant_balance numeric, wallet_balance numeric,
               transaction_id bigint, reverses bigint, account text, invoice_id bigint, hold_id bigint, description text)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  WITH ledger AS (
    SELECT e.effective_at, e.created_at AS known_at, e.wallet_id, e.grant_id, t.kind, e.amount, e.worth, e.transaction_id, e.entry, t.reverses, e.account, t.invoice_id, t.hold_id, t.description
      FROM meterflow.wallets AS w
      JOIN meterflow.ledger_entries AS e ON e.tenant_id = w.tenant_id AND e.wallet_id = w.id
      JOIN meterflow.wallet_transactions AS t ON t.tenant_id = e.tenant_id AND t.id = e.transaction_id
     WHERE w.tenant_id = meterflow.current_tenant() AND w.customer_id = wallet_history.customer_id AND w.currency = wallet_history.currency
    UNION ALL
    -- What a grant still had when it expired: nobody wrote that, it is so. Of that, what paid for a time in which it lived did
    -- not expire; and what comes back to it later does so at once.
    SELECT g.expires_at, g.expires_at, g.wallet_id, g.id, 'expired', -r.remaining, -r.remaining * coalesce(u.rate, 1), NULL, 0, NULL, 'breakage', NULL, NULL, NULL
      FROM meterflow.wallets AS w
      LEFT JOIN meterflow.credit_units AS u ON u.tenant_id = w.tenant_id AND u.key = w.credit_unit
      JOIN meterflow.credit_grants AS g ON g.tenant_id = w.tenant_id AND g.wallet_id = w.id AND g.expires_at <= statement_timestamp(),
           LATERAL (SELECT sum(e.amount) AS remaining FROM meterflow.ledger_entries AS e
                     WHERE e.tenant_id = g.tenant_id AND e.wallet_id = g.wallet_id AND e.grant_id = g.id AND (e.effective_at < g.expires_at OR e.amount < 0)) AS r
     WHERE w.tenant_id = meterflow.current_tenant() AND w.customer_id = wallet_history.customer_id AND w.currency = wallet_history.currency AND r.remaining <> 0
    UNION ALL
    SELECT e.effective_at, e.created_at, e.wallet_id, e.grant_id, 'expired', -e.amount, -e.worth, e.transaction_id, e.entry, NULL, 'breakage', NULL, NULL, NULL
      FROM meterflow.wallets AS w
      JOIN meterflow.credit_grants AS g ON g.tenant_id = w.tenant_id AND g.wallet_id = w.id AND g.expires_at <= statement_timestamp()
      JOIN meterflow.ledger_entries AS e ON e.tenant_id = g.tenant_id AND e.wallet_id = g.wallet_id AND e.grant_id = g.id AND e.effective_at >= g.expires_at AND e.amount > 0
     WHERE w.tenant_id = meterflow.current_tenant() AND w.customer_id = wallet_history.customer_id AND w.currency = wallet_history.currency
  ), running AS (
    SELECT l.*, sum(l.amount) OVER (PARTITION BY l.wallet_id, l.grant_id ORDER BY l.effective_at, l.known_at, l.transaction_id NULLS FIRST, l.entry, l.kind <> 'expired' DESC, l.grant_id) AS grant_balance,
           sum(l.amount) OVER (PARTITION BY l.wallet_id ORDER BY l.effective_at, l.known_at, l.transaction_id NULLS FIRST, l.entry, l.kind <> 'expired' DESC, l.grant_id) AS wallet_balance
      FROM ledger AS l
  )
  SELECT r.effective_at, r.known_at, r.wallet_id, r.grant_id, r.kind, r.amount, r.worth, r.grant_balance, r.wallet_balance, r.transaction_id, r.reverses, r.account, r.invoice_id, r.hold_id, r.description
    FROM running AS r
   WHERE r.effective_at >= wallet_history.from_time AND r.effective_at < wallet_history.to_time
   ORDER BY r.effective_at, r.known_at, r.transaction_id NULLS FIRST, r.entry, r.kind <> 'expired' DESC, r.grant_id;
END;
COMMENT ON FUNCTION meterflow.wallet_history(text, text, timestamptz, timestamptz) IS
  'A customer''s ledger in one currency, entry by entry and grant by grant, with what each grant and wallet had after it; what a grant had left when it expired is a row of its own.';

CREATE FUNCTION meterflow.ledger_balance(customer_id text, currency text, as_of timestamptz, known_at timestamptz DEFAULT NULL)
RETURNS TABLE (wallet_id bigint, grant_id bigint, kind text, effective_at timestamptz, expires_at timestamptz, amount numeric, remaining numeric, live boolean)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT e.wallet_id, e.grant_id, g.kind, g.effective_at, g.expires_at, g.amount, sum(e.amount),
         coalesce(g.effective_at <= ledger_balance.as_of AND ledger_balance.as_of < g.expires_at, true)
    FROM meterflow.wallets AS w
    JOIN meterflow.ledger_entries AS e ON e.tenant_id = w.tenant_id AND e.wallet_id = w.id
     AND e.effective_at <= ledger_balance.as_of AND e.created_at <= coalesce(ledger_balance.known_at, 'infinity')
    LEFT JOIN meterflow.credit_grants AS g ON g.tenant_id = e.tenant_id AND g.id = e.grant_id
   WHERE w.tenant_id = meterflow.current_tenant() AND w.customer_id = ledger_balance.customer_id AND w.currency = ledger_balance.currency
   GROUP BY w.priority, e.wallet_id, e.grant_id, g.priority, g.kind, g.effective_at, g.expires_at, g.amount, g.created_at
   ORDER BY w.priority, g.priority, g.expires_at, g.kind, g.effective_at, g.created_at, e.grant_id, e.wallet_id;
END;
COMMENT ON FUNCTION meterflow.ledger_balance(text, text, timestamptz, timestamptz) IS
  'What each grant had at a time, of the past too, and by what was known at another; a row without grant_id is what the wallet owed. Credit that was not live then is shown and does not count.';

CREATE FUNCTION meterflow.verify_ledger() RETURNS TABLE (problem text, customer_id text, detail text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
BEGIN
  RETURN QUERY
    SELECT 'a grant is not what its entries say', w.customer_id, format('grant %s has %s left, by its entries %s', g.id, g.remaining, coalesce(e.amount, 0))
      FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON w.tenant_id = g.tenant_id AND w.id = g.wallet_id,
           LATERAL (SELECT sum(e.amount) AS amount, sum(e.amount) FILTER (WHERE e.transaction_id = g.transaction_id AND e.amount > 0) AS given
                      FROM meterflow.ledger_entries AS e WHERE e.tenant_id = g.tenant_id AND e.wallet_id = g.wallet_id AND e.grant_id = g.id) AS e
     WHERE g.tenant_id = tenant AND (g.remaining <> coalesce(e.amount, 0) OR g.amount IS DISTINCT FROM e.given);
  RETURN QUERY
    SELECT 'an entry has no grant, wallet or transaction', t.customer_id, format('transaction %s, entry %s', e.transaction_id, e.entry)
      FROM meterflow.ledger_entries AS e
      LEFT JOIN meterflow.wallet_transactions AS t ON t.tenant_id = e.tenant_id AND t.id = e.transaction_id
      LEFT JOIN meterflow.wallets AS w ON w.tenant_id = e.tenant_id AND w.id = e.wallet_id
      LEFT JOIN meterflow.credit_grants AS g ON g.tenant_id = e.tenant_id AND g.id = e.grant_id
     WHERE e.tenant_id = tenant AND (t.id IS NULL OR w.id IS NULL OR t.customer_id <> w.customer_id OR t.currency <> w.currency OR (e.grant_id IS NOT NULL AND g.wallet_id IS DISTINCT FROM e.wallet_id));
  RETURN QUERY
    SELECT 'a transaction is not worth what its entries are', t.customer_id, format('%s %s: %s, by its entries %s', t.kind, t.id, t.amount, coalesce(e.worth, 0))
      FROM meterflow.wallet_transactions AS t,
           LATERAL (SELECT sum(e.worth) AS worth FROM meterflow.ledger_entries AS e WHERE e.tenant_id = t.tenant_id AND e.transaction_id = t.id AND e.account <> 'overdraft') AS e
     WHERE t.tenant_id = tenant AND t.amount <> coalesce(e.worth, 0);
  RETURN QUERY
    SELECT 'accounts do not add up to zero', min(t.customer_id), format('%s of %s: %s', e.account, t.kind, sum(e.amount))
      FROM meterflow.ledger_entries AS e JOIN meterflow.wallet_transactions AS t ON t.tenant_id = e.tenant_id AND t.id = e.transaction_id
      JOIN meterflow.wallets AS w ON w.tenant_id = e.tenant_id AND w.id = e.wallet_id
     WHERE e.tenant_id = tenant AND e.account IN ('transfers', 'overdraft')
     GROUP BY e.account, t.kind, coalesce(w.credit_unit, w.currency), CASE e.account WHEN 'overdraft' THEN e.transaction_id END
    HAVING sum(e.amount) <> 0;
  RETURN QUERY
    SELECT 'a transaction took back more than there was', o.customer_id, format('%s %s: %s of %s', o.kind, o.id, r.amount, o.amount)
      FROM meterflow.wallet_transactions AS o,
           LATERAL (SELECT -sum(r.amount) AS amount FROM meterflow.wallet_transactions AS r WHERE r.tenant_id = o.tenant_id AND r.reverses = o.id) AS r
     -- To its customer a transfer between wallets of its own is worth nothing, and the grants that it made can be voided.
     WHERE o.tenant_id = tenant AND o.kind <> 'transfer' AND abs(r.amount) > abs(o.amount);
  -- The copies that reads use. A sum without times is of grants that never expire.
  RETURN QUERY
    WITH sums AS (
      SELECT t.customer_id, t.currency, l.wallet, l.priority, CASE WHEN l.promotional THEN 'promotional' ELSE 'purchased' END AS kind, l.amount,
             (l.dated->>'first')::bigint AS first, (l.dated->>'last')::bigint AS last, (l.dated->>'begun')::bigint AS begun, row_number() OVER () AS number
        FROM meterflow.wallet_totals AS t, json_to_recordset(coalesce(t.totals->'sums', '[]')) AS l (wallet bigint, priority integer, promotional boolean, amount numeric, dated json)
       WHERE t.tenant_id = tenant
    ), grants AS (
      SELECT w.customer_id, w.currency, g.wallet_id, g.id, g.remaining, count(s.number) AS sums, min(s.number) AS number, extract(epoch FROM g.effective_at) * 1000000 > min(s.begun) AS later
        FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON w.tenant_id = g.tenant_id AND w.id = g.wallet_id
        LEFT JOIN sums AS s ON (s.customer_id, s.currency, s.wallet, s.priority, s.kind) = (w.customer_id, w.currency, g.wallet_id, g.priority, g.kind)
         AND CASE WHEN g.expires_at = 'infinity' THEN s.first IS NULL ELSE extract(epoch FROM g.expires_at) * 1000000 BETWEEN s.first AND s.last END
       WHERE g.tenant_id = tenant AND g.summed AND NOT g.spent GROUP BY 1, 2, 3, 4, 5, g.effective_at
    )
    SELECT 'a sum is not that of its grants', s.customer_id, format('%s in wallet %s: %s kept, %s found', s.currency, s.wallet, s.amount, coalesce(sum(g.remaining), 0))
      FROM sums AS s LEFT JOIN grants AS g USING (number) GROUP BY s.number, s.customer_id, s.currency, s.wallet, s.amount HAVING s.amount <> coalesce(sum(g.remaining), 0)
    UNION ALL
    SELECT 'a grant is not in one sum', g.customer_id, format('grant %s of wallet %s is in %s', g.id, g.wallet_id, g.sums) FROM grants AS g WHERE g.sums <> 1
    UNION ALL
    SELECT 'a grant began after its sum', g.customer_id, format('grant %s of wallet %s', g.id, g.wallet_id) FROM grants AS g WHERE g.later
    UNION ALL
    SELECT 'a grant is not looked for', w.customer_id, format('grant %s expires %s', g.id, g.expires_at)
      FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON w.tenant_id = g.tenant_id AND w.id = g.wallet_id
      LEFT JOIN meterflow.wallet_totals AS t ON (t.tenant_id, t.customer_id, t.currency) = (w.tenant_id, w.customer_id, w.currency)
     WHERE g.tenant_id = tenant AND NOT g.summed AND NOT g.spent
       AND CASE WHEN g.expires_at = 'infinity' THEN 9223372036854775807 ELSE extract(epoch FROM g.expires_at) * 1000000 END > coalesce((t.totals->>'later_until')::numeric, '-infinity');
  RETURN QUERY
    SELECT 'totals are not those of grants and holds', coalesce(k.customer_id, r.customer_id), format('%s %s: %s kept, %s found', coalesce(k.currency, r.currency), coalesce(k.what, r.what), coalesce(k.amount, 0), coalesce(r.amount, 0))
      FROM (SELECT t.customer_id, t.currency, format('overdraft %s', l->>'wallet') AS what, (l->>'amount')::numeric AS amount
              FROM meterflow.wallet_totals AS t, json_array_elements(coalesce(t.totals->'overdrafts', '[]')) AS l WHERE t.tenant_id = tenant
            UNION ALL
            SELECT t.customer_id, t.currency, format('held %s', l->>'meter'), sum((l->>'amount')::numeric)
              FROM meterflow.wallet_totals AS t, json_array_elements(coalesce(t.totals->'held', '[]')) AS l WHERE t.tenant_id = tenant GROUP BY 1, 2, 3 HAVING sum((l->>'amount')::numeric) <> 0
            UNION ALL
            SELECT t.customer_id, t.currency, format('quantity held of %s', l->>'meter'), (l->>'quantity')::numeric
              FROM meterflow.wallet_totals AS t, json_array_elements(coalesce(t.totals->'held', '[]')) AS l WHERE t.tenant_id = tenant AND (l->>'quantity')::numeric <> 0) AS k
      FULL JOIN (
            SELECT w.customer_id, w.currency, format('overdraft %s', w.id) AS what, -sum(e.amount) AS amount
              FROM meterflow.ledger_entries AS e JOIN meterflow.wallets AS w ON w.tenant_id = e.tenant_id AND w.id = e.wallet_id
             WHERE e.tenant_id = tenant AND e.grant_id IS NULL GROUP BY 1, 2, 3 HAVING sum(e.amount) <> 0
            UNION ALL
            SELECT h.customer_id, h.currency, format('held %s', h.meter_key), sum(h.amount)
              FROM meterflow.holds AS h WHERE h.tenant_id = tenant AND h.status = 'open' GROUP BY 1, 2, 3 HAVING sum(h.amount) <> 0
            UNION ALL
            SELECT h.customer_id, h.currency, format('quantity held of %s', h.meter_key), sum(h.quantity)
              FROM meterflow.holds AS h WHERE h.tenant_id = tenant AND h.status = 'open' AND h.quantity IS NOT NULL GROUP BY 1, 2, 3) AS r
        ON (r.customer_id, r.currency, r.what) = (k.customer_id, k.currency, k.what)
     WHERE k.amount IS DISTINCT FROM r.amount;
  RETURN QUERY
    SELECT 'a hold expires before it is looked at', h.customer_id, format('hold %s expires %s', h.id, h.expires_at)
      FROM meterflow.wallet_totals AS t
      JOIN meterflow.holds AS h ON (h.tenant_id, h.customer_id, h.currency, h.status) = (t.tenant_id, t.customer_id, t.currency, 'open')
     WHERE t.tenant_id = tenant AND extract(epoch FROM h.expires_at) * 1000000 < (t.totals->>'held_until')::numeric;
  RETURN QUERY
    SELECT 'a capture is not what its hold says', h.customer_id, format('hold %s: %s captured, transaction %s of %s', h.id, h.captured, t.id, t.amount)
      FROM meterflow.holds AS h LEFT JOIN meterflow.wallet_transactions AS t ON t.tenant_id = h.tenant_id AND t.id = h.transaction_id
     WHERE h.tenant_id = tenant AND (h.captured <> 0) IS DISTINCT FROM (t.id IS NOT NULL) OR (h.tenant_id = tenant AND h.captured <> -t.amount)
        OR (h.tenant_id = tenant AND t.hold_id <> h.id);
END $$;
COMMENT ON FUNCTION meterflow.verify_ledger() IS 'The tenant''s ledger against its grants, holds, transactions and totals: what does not add up. No rows: all is well.';
