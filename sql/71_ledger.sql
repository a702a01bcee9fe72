-- The verbs that move credit, and what the ledger tells. The protocol is in src/ledger/mod.rs.

CREATE FUNCTION meterflow.add_credit(verb text, customer_id text, amount numeric, currency text, idempotency_key text, description text, wallet text,
                                     promotional boolean, priority integer, effective_at timestamptz, expires_at timestamptz) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'add_credit_wrapper';
COMMENT ON FUNCTION meterflow.add_credit(text, text, numeric, text, text, text, text, boolean, integer, timestamptz, timestamptz) IS 'Internal: top_up() and grant_credit().';

CREATE FUNCTION meterflow.top_up(customer_id text, amount numeric, currency text, idempotency_key text, description text DEFAULT NULL, wallet text DEFAULT 'default',
                                 expires_at timestamptz DEFAULT 'infinity', effective_at timestamptz DEFAULT NULL, priority integer DEFAULT 50) RETURNS bigint
LANGUAGE sql VOLATILE
BEGIN ATOMIC
  SELECT meterflow.add_credit('top_up', $1, $2, $3, $4, $5, $6, false, $9, $8, $7);
END;
COMMENT ON FUNCTION meterflow.top_up(text, numeric, text, text, text, text, timestamptz, timestamptz, integer) IS
  'Adds purchased credit to a customer''s wallet, of a currency or a credit unit, creating the wallet when it is missing; returns the id of the wallet transaction. The same key with the same body returns the first id; with another body it is an error.';

CREATE FUNCTION meterflow.grant_credit(customer_id text, amount numeric, currency text, idempotency_key text, description text DEFAULT NULL, wallet text DEFAULT 'default',
                                       expires_at timestamptz DEFAULT 'infinity', effective_at timestamptz DEFAULT NULL, priority integer DEFAULT 50) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  granted CONSTANT bigint := meterflow.add_credit('grant_credit', customer_id, amount, currency, idempotency_key, description, wallet, true, priority, effective_at, expires_at);
BEGIN
  RETURN (SELECT g.id FROM meterflow.credit_grants AS g WHERE g.tenant_id = meterflow.current_tenant() AND g.transaction_id = granted);
END $$;
COMMENT ON FUNCTION meterflow.grant_credit(text, numeric, text, text, text, text, timestamptz, timestamptz, integer) IS
  'Gives a customer promotional credit, which comes before tax on an invoice; returns the id of the grant. Idempotent by key, as top_up().';

CREATE FUNCTION meterflow.debit(customer_id text, amount numeric, currency text, idempotency_key text, description text DEFAULT NULL, wallet text DEFAULT NULL,
                                meter_key text DEFAULT NULL, allow_overdraft boolean DEFAULT false) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'debit_wrapper';
COMMENT ON FUNCTION meterflow.debit(text, numeric, text, text, text, text, text, boolean) IS
  'Spends, in burn order, what open usage, unpaid invoices and holds leave of one wallet or of all that pay for the meter; 53400 when that is less, unless allow_overdraft. Returns the id of the transaction. Idempotent by key.';

CREATE FUNCTION meterflow.debit_rows(customer_ids text[], amounts numeric[], currency text, idempotency_keys text[])
RETURNS TABLE (ordinal integer, transaction_id bigint, code text, message text)
LANGUAGE c VOLATILE ROWS 1000 AS 'MODULE_PATHNAME', 'debit_rows_wrapper';
COMMENT ON FUNCTION meterflow.debit_rows(text[], numeric[], text, text[]) IS
  'Many debits in one transaction, for drivers that bind arrays: each succeeds or fails alone (insufficient_credit, conflict, invalid_amount, unknown_customer, missing), in the order given.';

CREATE FUNCTION meterflow.transfer(from_wallet bigint, to_wallet bigint, amount numeric, idempotency_key text, description text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'transfer_wrapper';
COMMENT ON FUNCTION meterflow.transfer(bigint, bigint, numeric, text, text) IS
  'Moves credit to another wallet in the same currency or unit; its kind, priority and expiry go with it. Returns the id of the transaction. Idempotent by key.';

CREATE FUNCTION meterflow.end_grant(verb text, grant_id bigint, idempotency_key text, reason text) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'end_grant_wrapper';
COMMENT ON FUNCTION meterflow.end_grant(text, bigint, text, text) IS 'Internal: void_grant() and expire_now().';

CREATE FUNCTION meterflow.void_grant(grant_id bigint, idempotency_key text, reason text) RETURNS bigint
LANGUAGE sql VOLATILE
BEGIN ATOMIC
  SELECT meterflow.end_grant('void_grant', $1, $2, $3);
END;
COMMENT ON FUNCTION meterflow.void_grant(bigint, text, text) IS 'Takes back what is left of a grant that should not have been given. What was spent of it stays spent. Idempotent by key.';

CREATE FUNCTION meterflow.expire_now(grant_id bigint, idempotency_key text, reason text) RETURNS bigint
LANGUAGE sql VOLATILE
BEGIN ATOMIC
  SELECT meterflow.end_grant('expire_now', $1, $2, $3);
END;
COMMENT ON FUNCTION meterflow.expire_now(bigint, text, text) IS 'Lets what is left of a grant expire before its time. Idempotent by key.';

CREATE FUNCTION meterflow.refund_transaction(transaction_id bigint, idempotency_key text, amount numeric, description text) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'refund_transaction_wrapper';
COMMENT ON FUNCTION meterflow.refund_transaction(bigint, text, numeric, text) IS 'Internal: refund().';

CREATE FUNCTION meterflow.refund(transaction_id bigint, idempotency_key text, amount numeric DEFAULT NULL, description text DEFAULT NULL) RETURNS bigint
LANGUAGE sql VOLATILE
BEGIN ATOMIC
  SELECT meterflow.refund_transaction($1, $2, $3, $4);
END;
COMMENT ON FUNCTION meterflow.refund(bigint, text, numeric, text) IS
  'Takes a transaction back, all that is left of it or an amount in its currency: what a debit or capture took returns to the grants it came from, the last first; what a top-up brought and nobody has spent is paid out. Returns the id of the transaction. Idempotent by key.';

CREATE FUNCTION meterflow.give_back_invoice(invoice_id bigint, customer_id text, currency text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'give_back_invoice_wrapper';
COMMENT ON FUNCTION meterflow.give_back_invoice(bigint, text, text) IS 'Internal: what a voided invoice took of wallets returns to the same grants.';

CREATE FUNCTION meterflow.balance_rows(customer_id text, currency text, as_of timestamptz)
RETURNS TABLE (wallet_id bigint, name text, currency text, credit_unit text, balance text, credits text, open_usage text, unpaid text, held text, credit_limit text, available text)
LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 2 AS 'MODULE_PATHNAME', 'balance_rows_wrapper';
COMMENT ON FUNCTION meterflow.balance_rows(text, text, timestamptz) IS 'Internal: wallet_balance() with numbers as text.';

CREATE FUNCTION meterflow.wallet_balance(customer_id text, currency text DEFAULT NULL, as_of timestamptz DEFAULT NULL)
RETURNS TABLE (wallet_id bigint, name text, currency text, credit_unit text, balance numeric, credits numeric, open_usage numeric, unpaid numeric, held numeric,
               credit_limit numeric, available numeric, as_of timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 2
BEGIN ATOMIC
  SELECT b.wallet_id, b.name, b.currency, b.credit_unit, b.balance::numeric, b.credits::numeric, b.open_usage::numeric, b.unpaid::numeric, b.held::numeric,
         b.credit_limit::numeric, b.available::numeric, coalesce($3, pg_catalog.statement_timestamp())
    FROM meterflow.balance_rows($1, $2, coalesce($3, pg_catalog.statement_timestamp())) b
   WHERE $1 IS NOT NULL;
END;
COMMENT ON FUNCTION meterflow.wallet_balance(text, text, timestamptz) IS
  'A customer''s wallets now, or at another time, in burn order: live credit less what it owes (balance), less open usage as its invoice will have it, unpaid invoices and holds (available, with what it may go below zero). Every committed event and those of this transaction included. A row without wallet_id is a debt in a currency that no wallet pays.';
