-- Who may do what: nothing without a grant but to compute and to see what one may read; grant_access() for the rest.
\set SHOW_CONTEXT never
SET meterflow.tenant = 'permissions';
-- Left by a run that was stopped.
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_mf_stranger, regress_mf_ingest, regress_mf_read, regress_mf_consume, regress_mf_admin;
RESET client_min_messages;
CREATE ROLE regress_mf_stranger;
CREATE ROLE regress_mf_ingest;
CREATE ROLE regress_mf_read;
CREATE ROLE regress_mf_consume;
CREATE ROLE regress_mf_admin;
INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('calls', 'call', 'count');
INSERT INTO meterflow.customers (id) VALUES ('acme');
INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'USD'), ('big', 'USD');
INSERT INTO meterflow.prices (plan_key, key, meter_key, model, advance) VALUES ('pro', 'calls', 'calls', '{"model":"per_unit","unit_amount":1}', false), ('pro', 'seat', NULL, '{"model":"per_unit","unit_amount":10}', true);
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (1401, 'acme', 'pro', now() - interval '2 hours');
INSERT INTO meterflow.coupons (code, kind, value) VALUES ('TEN', 'percentage', 10);
INSERT INTO meterflow.features (key, kind, meter_key) VALUES ('api', 'metered', 'calls');
INSERT INTO meterflow.entitlements (feature_key, customer_id, amount) VALUES ('api', 'acme', 100);

-- Functions that PUBLIC may call. None of them changes anything: whatever is volatile is granted.
SELECT p.oid::regprocedure AS public_function
  FROM pg_proc AS p
 WHERE p.pronamespace = 'meterflow'::regnamespace AND p.prokind <> 'a' AND has_function_privilege('regress_mf_stranger', p.oid, 'EXECUTE')
   AND p.prorettype <> 'internal'::regtype AND NOT 'internal'::regtype = ANY (p.proargtypes)
 ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT p.oid::regprocedure AS volatile_public_function
  FROM pg_proc AS p
 WHERE p.pronamespace = 'meterflow'::regnamespace AND p.provolatile = 'v' AND has_function_privilege('regress_mf_stranger', p.oid, 'EXECUTE');
-- Relations, columns of relations and schemas that PUBLIC has anything of.
SELECT c.oid::regclass AS public_relation
  FROM pg_class AS c
 WHERE c.relnamespace = 'meterflow'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
   AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('regress_mf_stranger', c.oid, 'USAGE, SELECT, UPDATE')
            ELSE has_table_privilege('regress_mf_stranger', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                 OR has_any_column_privilege('regress_mf_stranger', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') END;
SELECT has_schema_privilege('regress_mf_stranger', 'meterflow', 'USAGE') AS usage, has_schema_privilege('regress_mf_stranger', 'meterflow', 'CREATE') AS create;

-- A role that knows of the schema but has been given nothing.
GRANT USAGE ON SCHEMA meterflow TO regress_mf_stranger;
SET ROLE regress_mf_stranger;
\set VERBOSITY sqlstate
SELECT * FROM meterflow.ingest('[]');
SELECT * FROM meterflow.ingest_rows('{}', '{}', '{}', '{}', '{}');
INSERT INTO meterflow.inbox (event) VALUES ('{}');
SELECT meterflow.drain_inbox();
SELECT * FROM meterflow.retry_rejected();
SELECT meterflow.void_event('a', 'because');
SELECT meterflow.amend_event('a', '{}', 'because');
SELECT meterflow.fold();
SELECT meterflow.prepare_partitions();
SELECT meterflow.rotate_dedup();
SELECT meterflow.apply_retention();
SELECT * FROM meterflow.maintain();
SELECT meterflow.mark_dirty('permissions', 1, NULL, '-infinity', 'infinity', 1);
SELECT meterflow.empty_slot(0::smallint);
SELECT meterflow.fence_batch();
SELECT meterflow.pause_worker();
SELECT meterflow.revoke_public();
SELECT meterflow.grant_access('regress_mf_stranger', 'admin');
SELECT meterflow.top_up('acme', 1, 'USD', 'key');
INSERT INTO meterflow.customers (id) VALUES ('me');
INSERT INTO meterflow.subscriptions (customer_id, plan_key) VALUES ('acme', 'pro');
UPDATE meterflow.prices SET model = '{"model":"flat","amount":"0"}';
SELECT meterflow.clone_plan('pro');
SELECT meterflow.change_plan(1401, 'big', 'key');
SELECT meterflow.cancel_subscription(1401, 'key');
SELECT meterflow.redeem_coupon('acme', 'TEN', 'key');
SELECT * FROM meterflow.preview_plan_change(1401, 'big');
SELECT * FROM meterflow.bill_due();
SELECT meterflow.make_invoice('acme', 'USD', now(), NULL, true, now(), NULL, NULL);
SELECT meterflow.finalize_invoice(1, 'key');
SELECT meterflow.void_invoice(1, 'why');
SELECT meterflow.record_payment(1, 1, 'key');
SELECT meterflow.create_invoice('acme', 'USD', '[]', 'key');
SELECT meterflow.emit('permissions', 'acme', 'low_balance', '{}');
SELECT * FROM meterflow.outbox_read('hook');
SELECT meterflow.outbox_ack('hook', '{1}');
SELECT meterflow.outbox_fence();
SELECT meterflow.evaluate_alerts('acme');
INSERT INTO meterflow.outbox_consumers (name) VALUES ('mine');
CALL meterflow.run_billing();
SELECT * FROM meterflow.current_charges('acme');
SELECT * FROM meterflow.preview_invoice(1401);
SELECT count(*) FROM meterflow.invoices;
SELECT * FROM meterflow.usage('calls', now() - interval '1 hour', now());
SELECT * FROM meterflow.verify();
SELECT * FROM meterflow.wallet_balance('acme');
SELECT * FROM meterflow.check_access('acme', 'api');
SELECT meterflow.grant_quota('acme', 'api', 1, 'key');
SELECT meterflow.void_quota(1, 'why');
SELECT meterflow.reset_quota('acme', 'api', 'key');
SELECT * FROM meterflow.ingest_within('acme', 'api', '[]');
INSERT INTO meterflow.entitlements (feature_key, customer_id) VALUES ('api', 'acme');
SELECT * FROM meterflow.status();
SELECT * FROM meterflow.health();
SELECT count(*) FROM meterflow.events;
SELECT secret FROM meterflow.engine;
\set VERBOSITY default
RESET ROLE;

-- EXECUTE alone is not enough: the verbs ask for INSERT on the inbox, and say so.
GRANT EXECUTE ON FUNCTION meterflow.ingest(json, text), meterflow.void_event(text, text, text) TO regress_mf_stranger;
SET ROLE regress_mf_stranger;
SELECT * FROM meterflow.ingest('[]');
SELECT meterflow.void_event('a', 'because');
RESET ROLE;
GRANT INSERT ON meterflow.inbox TO regress_mf_stranger;
SET ROLE regress_mf_stranger;
SELECT accepted FROM meterflow.ingest('{"transaction_id":"a","customer_id":"acme","event_name":"call"}');
SELECT count(*) FROM meterflow.events;
RESET ROLE;

-- grant_access: to send.
SELECT meterflow.grant_access('regress_mf_ingest', 'ingest');
SET ROLE regress_mf_ingest;
SELECT accepted, duplicates FROM meterflow.ingest('{"transaction_id":"b","customer_id":"acme","event_name":"call"}');
SELECT accepted, duplicates FROM meterflow.ingest_rows(ARRAY['c'], ARRAY['acme'], ARRAY['call'], ARRAY[now()], ARRAY['{}']::jsonb[]);
INSERT INTO meterflow.inbox (event) VALUES ('{"transaction_id":"d","customer_id":"acme","event_name":"call"}');
SELECT meterflow.void_event('c', 'a test') IS NOT NULL AS voided;
SELECT meterflow.amend_event('b', '{"properties":{"n":1}}', 'a test') IS NOT NULL AS amended;
\set VERBOSITY sqlstate
SELECT count(*) FROM meterflow.events;
SELECT count(*) FROM meterflow.inbox;
SELECT * FROM meterflow.usage('calls', now() - interval '1 hour', now() + interval '1 hour', 'acme');
SELECT * FROM meterflow.check_access('acme', 'api');
SELECT * FROM meterflow.ingest_within('acme', 'api', '{"transaction_id":"w","customer_id":"acme","event_name":"call"}');
INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('mine', 'call', 'count');
SELECT * FROM meterflow.maintain();
\set VERBOSITY default
RESET ROLE;

-- Verbs run queries as the owner: what a name means in them is not for the caller's search_path to say.
CREATE SCHEMA regress_mf_hijack;
CREATE FUNCTION regress_mf_hijack.equal(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  RAISE NOTICE 'run as %', CASE WHEN current_user = session_user THEN 'the owner' ELSE current_user END;
  RETURN a OPERATOR(pg_catalog.=) b;
END $$;
CREATE OPERATOR regress_mf_hijack.= (FUNCTION = regress_mf_hijack.equal, LEFTARG = text, RIGHTARG = text);
GRANT USAGE ON SCHEMA regress_mf_hijack TO regress_mf_ingest;
SET ROLE regress_mf_ingest;
SET search_path = regress_mf_hijack, pg_catalog;
SELECT 'its own'::text = 'its own'::text AS equal;
SELECT accepted FROM meterflow.ingest('{"transaction_id":"h","customer_id":"acme","event_name":"call"}');
SELECT accepted FROM meterflow.ingest_rows(ARRAY['i'], ARRAY['acme'], ARRAY['call'], ARRAY[now()], ARRAY['{}']::jsonb[]);
SELECT meterflow.amend_event('h', '{"properties":{"n":1}}', 'a test') IS NOT NULL AS amended;
SELECT meterflow.void_event('i', 'a test') IS NOT NULL AS voided;
SHOW search_path;
RESET search_path;
RESET ROLE;
DROP SCHEMA regress_mf_hijack CASCADE;

-- To read: everything but the secret of the hashes, and nothing to change.
SELECT meterflow.grant_access('regress_mf_read', 'read');
SET ROLE regress_mf_read;
SELECT value >= 2 AS counted FROM meterflow.usage('calls', now() - interval '1 hour', now() + interval '1 hour', 'acme');
SELECT count(*) FROM meterflow.verify();
SELECT count(*) > 0 AS rows FROM meterflow.status();
SELECT healthy IS NOT NULL AS told FROM meterflow.health();
SELECT count(*) > 0 AS events FROM meterflow.events WHERE tenant_id = 'permissions';
SELECT sum(quantity) >= 3 AS charged FROM meterflow.current_charges('acme');
SELECT count(*) > 0 AS projected FROM meterflow.projected_charges('acme');
SELECT count(*) AS balances FROM meterflow.wallet_balance('acme');
SELECT count(*) > 0 AS previewed FROM meterflow.preview_invoice(1401);
SELECT count(*) AS prices FROM meterflow.preview_plan('pro', '{"calls": 5}');
SELECT meterflow.subscription_status(1401), period_start IS NOT NULL AS period FROM meterflow.current_period(1401);
SELECT count(*) FROM meterflow.verify_billing();
SELECT count(*) AS receivables FROM meterflow.receivables();
SELECT allowed FROM meterflow.check_access('acme', 'api');
SELECT count(*) AS features FROM meterflow.customer_entitlements('acme');
SELECT count(*) > 0 AS history FROM meterflow.entitlement_history('acme', 'api', now() - interval '1 hour', now());
-- Nothing that reads is kept from it.
SELECT c.oid::regclass AS unreadable FROM pg_class AS c
 WHERE c.relnamespace = 'meterflow'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT has_table_privilege('regress_mf_read', c.oid, 'SELECT') AND c.relname NOT SIMILAR TO '(events|dedup_keys|deltas)_%' ORDER BY 1;
SELECT p.oid::regprocedure AS uncallable FROM pg_proc AS p WHERE p.pronamespace = 'meterflow'::regnamespace AND p.provolatile <> 'v' AND NOT has_function_privilege('regress_mf_read', p.oid, 'EXECUTE');
\set VERBOSITY sqlstate
SELECT secret FROM meterflow.engine;
SELECT * FROM meterflow.engine;
SELECT * FROM meterflow.ingest('[]');
UPDATE meterflow.meters SET archived_at = now();
SELECT meterflow.change_plan(1401, 'big', 'key');
SELECT * FROM meterflow.bill_due();
INSERT INTO meterflow.customers (id) VALUES ('mine');
DELETE FROM meterflow.events;
SELECT * FROM meterflow.maintain();
\set VERBOSITY default
RESET ROLE;

-- To read the outbox, as a consumer that there is.
INSERT INTO meterflow.outbox_consumers (name, notify) VALUES ('hook', false);
SELECT meterflow.emit('permissions', 'acme', 'low_balance', '"to the hook"') IS NOT NULL AS written;
SELECT meterflow.grant_access('regress_mf_consume', 'consume');
SET ROLE regress_mf_consume;
SELECT customer_id, kind, payload, attempts FROM meterflow.outbox_read('hook');
SELECT meterflow.outbox_nack('hook', ARRAY(SELECT id FROM meterflow.outbox WHERE tenant_id = 'permissions'));
SELECT attempts FROM meterflow.outbox_read('hook');
SELECT meterflow.outbox_ack('hook', ARRAY(SELECT id FROM meterflow.outbox WHERE tenant_id = 'permissions'));
\set VERBOSITY sqlstate
INSERT INTO meterflow.outbox_consumers (name) VALUES ('mine');
UPDATE meterflow.outbox_consumers SET kinds = NULL;
INSERT INTO meterflow.outbox (customer_id, kind, payload) VALUES ('acme', 'low_balance', '{}');
SELECT meterflow.emit('permissions', 'acme', 'low_balance', '{}', true);
SELECT meterflow.evaluate_alerts('acme');
SELECT count(*) FROM meterflow.alerts;
SELECT count(*) FROM meterflow.events;
\set VERBOSITY default
RESET ROLE;

-- To run it all.
SELECT meterflow.grant_access('regress_mf_admin', 'admin');
SET ROLE regress_mf_admin;
SELECT accepted FROM meterflow.ingest('{"transaction_id":"e","customer_id":"acme","event_name":"call"}');
INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('admins', 'call', 'count');
SELECT count(*) FILTER (WHERE outcome NOT LIKE 'ok%' AND outcome NOT LIKE 'left%') AS failed FROM meterflow.maintain();
SELECT accepted, duplicates, failed FROM meterflow.retry_rejected();
SELECT count(*) FROM meterflow.verify();
-- To sell, change and bill.
INSERT INTO meterflow.taxes (key, name, rate) VALUES ('vat', 'VAT', 20);
INSERT INTO meterflow.customers (id, taxes) VALUES ('admins', '{vat}');
INSERT INTO meterflow.plans (key, currency) VALUES ('add-on', 'USD');
INSERT INTO meterflow.plan_phases (plan_key, ordinal, name, duration, free) VALUES ('add-on', 1, 'trial', '1 day', true);
INSERT INTO meterflow.prices (plan_key, key, model) VALUES ('add-on', 'fee', '{"model":"flat","amount":1}');
SELECT meterflow.clone_plan('pro', 'pro2') AS version;
INSERT INTO meterflow.subscriptions (id, customer_id, plan_key, starts_at) VALUES (1402, 'admins', 'pro', now() - interval '2 hours');
SELECT meterflow.top_up('admins', 5, 'USD', 'top-up') > 0 AS paid, meterflow.redeem_coupon('admins', 'TEN', 'redeem') > 0 AS redeemed;
SELECT count(*) FROM meterflow.bill_due() WHERE outcome = 'finalized';
SELECT count(*) > 0 AS previewed FROM meterflow.preview_plan_change(1402, 'big');
SELECT meterflow.change_quantity(1402, 'seat', 2, '1') > 0, meterflow.add_add_on(1402, 'add-on', '2') > 0, meterflow.remove_add_on(1402, 'add-on', '3') > 0, meterflow.change_plan(1402, 'pro2', '4', timing => 'period_end') > 0,
       meterflow.cancel_scheduled_change(1402, '5') > 0, meterflow.pause_subscription(1402, '6', at => now() + interval '1 second') > 0, meterflow.resume_subscription(1402, '7', at => now() + interval '1 second') > 0,
       meterflow.cancel_subscription(1402, '8', timing => 'period_end') > 0, meterflow.uncancel_subscription(1402, '9') > 0;
SELECT max(id) AS invoice FROM meterflow.invoices WHERE tenant_id = 'permissions' AND customer_id = 'admins' \gset
SELECT meterflow.void_invoice(:invoice, 'a test');
SELECT meterflow.regenerate_invoice(:invoice, 'again') AS invoice \gset
SELECT meterflow.record_payment(:invoice, 1, 'paid') > 0 AS recorded, (SELECT bool_and(equal) FROM meterflow.reproduce_invoice(:invoice)) AS reproduced;
SELECT meterflow.create_invoice('admins', 'USD', '[{"description":"Setup","amount":"5"}]', 'by hand', finalize => false) AS draft \gset
SELECT meterflow.finalize_invoice(:draft, 'final') > 0 AS final;
CALL meterflow.run_billing();
SELECT count(*) FROM meterflow.bill_progressive();
INSERT INTO meterflow.alerts (key, what, currency, critical) VALUES ('low', 'balance', 'USD', 1000);
SELECT moved FROM meterflow.evaluate_alerts('admins');
SELECT customer_id, kind, payload->>'level' AS level FROM meterflow.outbox_read('hook') WHERE kind = 'low_balance';
DELETE FROM meterflow.outbox_consumers WHERE name = 'hook';
DELETE FROM meterflow.alerts WHERE key = 'low';
SELECT count(*) FROM meterflow.verify_billing();
INSERT INTO meterflow.features (key, kind, meter_key) VALUES ('admins', 'metered', 'admins');
INSERT INTO meterflow.entitlements (feature_key, plan_key, amount) VALUES ('admins', 'pro2', 1);
SELECT meterflow.grant_quota('admins', 'admins', 5, 'a gift') AS quota \gset
SELECT meterflow.void_quota(:quota, 'a test') IS NOT NULL AS voided, meterflow.reset_quota('admins', 'admins', 'a reset') > 0 AS reset;
SELECT accepted FROM meterflow.ingest_within('acme', 'api', '{"transaction_id":"within","customer_id":"acme","event_name":"call"}');
SELECT p.oid::regprocedure AS not_for_admins FROM pg_proc AS p WHERE p.pronamespace = 'meterflow'::regnamespace AND NOT has_function_privilege('regress_mf_admin', p.oid, 'EXECUTE');
RESET ROLE;

-- usage() finds rows by their indexes, not by queries: the caller still needs SELECT on each table, and policies count.
-- The worker or maintain() folds first, so that rollups answer.
DO $$ BEGIN
  WHILE EXISTS (SELECT FROM meterflow.dirty_ranges) OR EXISTS (SELECT FROM meterflow.batches WHERE batch > (SELECT folded_batch FROM meterflow.fold_state)) LOOP
    PERFORM meterflow.fold();
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;
PREPARE calls AS
  SELECT value > 0 AS counted
    FROM meterflow.usage('calls', date_trunc('day', now(), 'UTC') - interval '40 days', date_trunc('day', now(), 'UTC') + interval '2 days', 'acme');
DO $$
DECLARE name text; outcome text;
BEGIN
  FOREACH name IN ARRAY '{fold_state,meter_versions,dirty_ranges,rollups,deltas}'::text[] LOOP
    EXECUTE format('REVOKE SELECT ON meterflow.%I FROM regress_mf_read', name);
    SET LOCAL ROLE regress_mf_read;
    BEGIN
      PERFORM FROM meterflow.usage('calls', date_trunc('day', now(), 'UTC'), date_trunc('day', now(), 'UTC') + interval '2 days', 'acme');
      outcome := 'answered';
    EXCEPTION WHEN insufficient_privilege THEN
      outcome := SQLERRM;
    END;
    RESET ROLE;
    EXECUTE format('GRANT SELECT ON meterflow.%I TO regress_mf_read', name);
    RAISE NOTICE '%', outcome;
  END LOOP;
END $$;
SET ROLE regress_mf_read;
EXECUTE calls;
RESET ROLE;
ALTER TABLE meterflow.rollups ENABLE ROW LEVEL SECURITY;
ALTER TABLE meterflow.deltas ENABLE ROW LEVEL SECURITY;
CREATE POLICY regress_mf ON meterflow.rollups TO regress_mf_read USING (customer_id = 'acme');
CREATE POLICY regress_mf ON meterflow.deltas TO regress_mf_read USING (true);
SET ROLE regress_mf_read;
EXECUTE calls;
RESET ROLE;
ALTER POLICY regress_mf ON meterflow.rollups USING (customer_id = 'other');
SET ROLE regress_mf_read;
EXECUTE calls;
SET row_security = off;
EXECUTE calls;
RESET row_security;
RESET ROLE;
EXECUTE calls;
DROP POLICY regress_mf ON meterflow.rollups;
DROP POLICY regress_mf ON meterflow.deltas;
ALTER TABLE meterflow.rollups DISABLE ROW LEVEL SECURITY;
ALTER TABLE meterflow.deltas DISABLE ROW LEVEL SECURITY;

-- What was granted is taken back, and access that does not exist is refused.
SELECT meterflow.grant_access(r, 'none') FROM unnest('{regress_mf_stranger,regress_mf_ingest,regress_mf_read,regress_mf_consume,regress_mf_admin}'::regrole[]) AS r;
SELECT r.rolname, count(p.*) AS functions
  FROM pg_roles AS r LEFT JOIN pg_proc AS p ON p.pronamespace = 'meterflow'::regnamespace AND p.provolatile = 'v' AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
 WHERE r.rolname LIKE 'regress\_mf\_%' GROUP BY 1 ORDER BY 1;
SELECT meterflow.grant_access('regress_mf_read', 'write');
SELECT meterflow.grant_access(NULL, 'read');
-- A DROP would be refused if anything were left.
DROP ROLE regress_mf_stranger;
DROP ROLE regress_mf_ingest;
DROP ROLE regress_mf_read;
DROP ROLE regress_mf_consume;
DROP ROLE regress_mf_admin;
