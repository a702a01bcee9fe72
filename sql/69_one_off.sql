-- Invoices of lines given by hand: src/billing/one_off.rs. Coupons, taxes and credits apply as on every invoice.

CREATE TABLE meterflow.invoice_requests (
  tenant_id        text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  idempotency_key  text COLLATE "C" NOT NULL CHECK (idempotency_key <> ''),
  body_hash        bytea NOT NULL,
  invoice_id       bigint,
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_by       text NOT NULL DEFAULT session_user,
  PRIMARY KEY (tenant_id, idempotency_key),
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES meterflow.invoices (tenant_id, id)
) USING heap;
CREATE INDEX invoice_requests_invoice_idx ON meterflow.invoice_requests (tenant_id, invoice_id);
COMMENT ON TABLE meterflow.invoice_requests IS 'Which key create_invoice() made which invoice for. The key that an invoice was finalized with is its own.';

CREATE FUNCTION meterflow.make_one_off(payer text, customer text, currency text, lines text, notes text, finalize boolean, issued_at timestamptz) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'make_one_off_wrapper';
COMMENT ON FUNCTION meterflow.make_one_off(text, text, text, text, text, boolean, timestamptz) IS 'Internal: what create_invoice() does once it has the lock and the key.';

CREATE FUNCTION meterflow.finalize_one_off(invoice_id bigint, idempotency_key text, issued_at timestamptz DEFAULT now()) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'finalize_one_off_wrapper';
COMMENT ON FUNCTION meterflow.finalize_one_off(bigint, text, timestamptz) IS 'Internal: what finalize_invoice() does with a draft of given lines once it has the lock.';

CREATE FUNCTION meterflow.create_invoice(customer_id text, currency text, lines jsonb, idempotency_key text, notes text DEFAULT NULL, finalize boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  body CONSTANT bytea := sha256(convert_to(jsonb_build_array('invoice', customer_id, currency, lines, notes, finalize)::text, 'UTF8'));
  payer text;
  first meterflow.invoice_requests;
  made bigint;
BEGIN
  IF customer_id IS NULL OR currency IS NULL OR lines IS NULL OR finalize IS NULL OR coalesce(idempotency_key, '') = '' THEN
    RAISE EXCEPTION 'create_invoice needs a customer_id, a currency, lines and an idempotency_key' USING ERRCODE = '22004',
      HINT = 'The key makes a retry return the first invoice.';
  END IF;
  SELECT coalesce(c.payer_id, c.id) INTO payer FROM meterflow.customers AS c WHERE c.tenant_id = tenant AND c.id = create_invoice.customer_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no customer "%"', customer_id USING ERRCODE = '23503',
      DETAIL = format('Tenant "%s" has none with this id.', tenant), HINT = 'INSERT INTO meterflow.customers (id) first.';
  END IF;
  -- As for every invoice: first the payer. Whoever else uses its credits waits here.
  PERFORM FROM meterflow.customers AS c WHERE c.tenant_id = tenant AND c.id = payer FOR NO KEY UPDATE;
  FOR attempt IN 1..2 LOOP
    SELECT r.* INTO first FROM meterflow.invoice_requests AS r WHERE r.tenant_id = tenant AND r.idempotency_key = create_invoice.idempotency_key;
    IF FOUND THEN
      IF first.body_hash <> body THEN
        PERFORM meterflow.refuse_key(idempotency_key, format('Invoice %s, created %s', first.invoice_id, first.created_at), 'invoice');
      END IF;
      RETURN first.invoice_id;
    END IF;
    INSERT INTO meterflow.invoice_requests (tenant_id, idempotency_key, body_hash) VALUES (tenant, create_invoice.idempotency_key, body) ON CONFLICT DO NOTHING;
    CONTINUE WHEN NOT FOUND;
    made := meterflow.make_one_off(payer, customer_id, currency, lines::text, notes, finalize, now());
    UPDATE meterflow.invoice_requests AS r SET invoice_id = made WHERE r.tenant_id = tenant AND r.idempotency_key = create_invoice.idempotency_key;
    RETURN made;
  END LOOP;
  RAISE EXCEPTION 'idempotency key "%" is being used by another transaction', idempotency_key USING ERRCODE = '40001', HINT = 'Retry the transaction.';
END $$;
COMMENT ON FUNCTION meterflow.create_invoice(text, text, jsonb, text, text, boolean) IS
$$Makes an invoice of lines given by hand, and returns its id: [{"description": "Setup", "amount": "250"}, {"description": "Hours", "quantity": "3.5", "unit_amount": "120", "taxes": ["vat"]}].
Without taxes of its own a line has those of who pays. Coupons that are limited to no plan, meter or subscription apply, and so do credits. With finalize => false it is a draft: finalize_invoice() or discard_draft(). The same key with the same body returns the first id; with another body it is an error.$$;

CREATE FUNCTION meterflow.discard_draft(invoice_id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  draft meterflow.invoices;
BEGIN
  IF NOT EXISTS (SELECT FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.id = discard_draft.invoice_id) THEN
    RETURN false;
  END IF;
  draft := meterflow.lock_invoice(invoice_id);
  IF draft.status <> 'draft' OR draft.kind <> 'one_off' THEN
    RAISE EXCEPTION 'invoice % can not be discarded', coalesce(draft.number, draft.id::text) USING ERRCODE = '55000',
      DETAIL = CASE WHEN draft.status = 'draft' THEN 'It is the draft of a billing period, which is computed anew anyway.' ELSE format('It is %s.', draft.status) END,
      HINT = 'What has been issued is taken back by meterflow.void_invoice() or meterflow.create_credit_note().';
  END IF;
  UPDATE meterflow.invoice_requests AS r SET invoice_id = NULL WHERE r.tenant_id = tenant AND r.invoice_id = draft.id;
  DELETE FROM meterflow.invoice_lines AS l WHERE l.tenant_id = tenant AND l.invoice_id = draft.id;
  DELETE FROM meterflow.invoice_discounts AS d WHERE d.tenant_id = tenant AND d.invoice_id = draft.id;
  DELETE FROM meterflow.invoice_taxes AS t WHERE t.tenant_id = tenant AND t.invoice_id = draft.id;
  DELETE FROM meterflow.invoice_credits AS c WHERE c.tenant_id = tenant AND c.invoice_id = draft.id;
  DELETE FROM meterflow.invoices AS i WHERE i.tenant_id = tenant AND i.id = draft.id;
  RETURN true;
END $$;
COMMENT ON FUNCTION meterflow.discard_draft(bigint) IS
  'Throws away a draft of given lines; false when there is none with this id. Its key stays used: create_invoice() with it returns null from then on.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.invoice_requests', '');
