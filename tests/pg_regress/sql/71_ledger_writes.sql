-- The ledger's rows are the same whether verbs write them themselves or, where a trigger or a policy has a say, by queries
-- (src/pg/write.rs); and whoever may not write them is refused either way.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set ECHO none
\i :billing
\set ECHO all
-- Left by a run that was stopped.
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_mf_bookkeeper;
RESET client_min_messages;
SET meterflow.tenant = 'writes';
INSERT INTO meterflow.credit_units (key, currency, rate) VALUES ('coin', 'USD', 0.03);
INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'USD');
INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('calls', 'call', 'count');

-- All verbs, for one customer.
CREATE FUNCTION pg_temp.live(c text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  held bigint;
  paid bigint;
BEGIN
  INSERT INTO meterflow.customers (id) VALUES (c);
  PERFORM meterflow.top_up(c, 10, 'USD', c || 1, 'ten');
  PERFORM meterflow.grant_credit(c, 2.50, 'USD', c || 2, expires_at => 'infinity', priority => 1);
  PERFORM meterflow.grant_credit(c, 1.25, 'USD', c || 3, wallet => 'calls only', expires_at => now() + interval '1 year');
  UPDATE meterflow.wallets SET meters = '{calls}', priority = 1 WHERE customer_id = c AND name = 'calls only';
  PERFORM meterflow.top_up(c, 100, 'coin', c || 4, wallet => 'coins', expires_at => now() + interval '1 year');
  -- Over the end of one grant into the next, and to the end of another.
  paid := meterflow.debit(c, 2.75, 'USD', c || 5, 'two grants');
  PERFORM meterflow.debit(c, 1.25, 'USD', c || 6, wallet => 'calls only', meter_key => 'calls');
  PERFORM meterflow.debit(c, 7.1, 'coin', c || 7);
  PERFORM d.code FROM meterflow.debit_rows(ARRAY[c, c, 'nobody', c], ARRAY[0.5, 1000, 1, 0.01], 'USD', ARRAY[c || 8, c || 9, c || 10, c || 11]) AS d;
  held := meterflow.hold(c, 1.5, 'USD', '1 hour', c || 12);
  PERFORM meterflow.capture(held, 1.05, 'most of it');
  PERFORM meterflow.hold(c, 0.75, 'USD', '1 hour', c || 13, 'calls');
  PERFORM meterflow.release(meterflow.hold(c, 0.25, 'USD', '1 hour', c || 14));
  held := meterflow.hold(c, 0.01, 'USD', '1 microsecond', c || 15);
  PERFORM meterflow.refund(paid, c || 16, 2.6, 'back over the end of a grant');
  PERFORM meterflow.debit(c, 30, 'USD', c || 17, allow_overdraft => true);
  PERFORM meterflow.top_up(c, 5, 'USD', c || 18, expires_at => now() + interval '1 day');
  PERFORM meterflow.top_up(c, 40, 'USD', c || 19);
  PERFORM meterflow.transfer(a.id, b.id, 3.33, c || 20)
     FROM meterflow.wallets AS a, meterflow.wallets AS b WHERE (a.customer_id, a.name, b.customer_id, b.name) = (c, 'default', c, 'calls only');
  PERFORM meterflow.void_grant((SELECT g.id FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON w.tenant_id = g.tenant_id AND w.id = g.wallet_id
                                 WHERE w.customer_id = c AND w.name = 'calls only' AND NOT g.spent ORDER BY g.id LIMIT 1), c || 21, 'a mistake');
END $$;
-- What is there of a customer, without what the server chose: ids as places, times as null or not.
CREATE FUNCTION pg_temp.written(c text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT format('%s %s', tableoid::regclass, replace(row_to_json(t)::jsonb::text, c, '...'))
    FROM (SELECT t.tableoid, rank() OVER (ORDER BY id), kind, amount::text, description, reverses - (SELECT min(id) FROM meterflow.wallet_transactions WHERE customer_id = c) AS reverses, invoice_id, hold_id IS NULL AS no_hold,
                 replace(idempotency_key, c, '') AS key, length(body_hash), created_at IS NULL AS no_time, created_by FROM meterflow.wallet_transactions AS t WHERE customer_id = c) AS t
  UNION ALL
  SELECT format('entry %s', row_to_json(e))
    FROM (SELECT dense_rank() OVER (ORDER BY transaction_id), entry, dense_rank() OVER (ORDER BY wallet_id), dense_rank() OVER (ORDER BY grant_id), account, e.amount::text, worth::text, effective_at IS NULL, e.created_at IS NULL
            FROM meterflow.ledger_entries AS e JOIN meterflow.wallets AS w ON w.id = e.wallet_id WHERE w.customer_id = c) AS e
  UNION ALL
  SELECT format('grant %s', row_to_json(g))
    FROM (SELECT rank() OVER (ORDER BY g.id), dense_rank() OVER (ORDER BY wallet_id), g.kind, amount::text, remaining::text, spent, g.priority, expires_at, summed, recurring_id, occurrence, part
            FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON w.id = g.wallet_id WHERE w.customer_id = c AND expires_at = 'infinity'
          UNION ALL
          SELECT rank() OVER (ORDER BY g.id), dense_rank() OVER (ORDER BY wallet_id), g.kind, amount::text, remaining::text, spent, g.priority, NULL, summed, recurring_id, occurrence, part
            FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON w.id = g.wallet_id WHERE w.customer_id = c AND expires_at < 'infinity') AS g
  UNION ALL
  SELECT format('hold %s', row_to_json(h))
    FROM (SELECT rank() OVER (ORDER BY id), amount::text, meter_key, quantity, status, captured::text, transaction_id IS NULL, closed_at IS NULL, replace(idempotency_key, c, ''), length(body_hash), created_by
            FROM meterflow.holds WHERE customer_id = c) AS h
  UNION ALL
  SELECT format('totals %s', regexp_replace(totals::text, '("wallet"|"since"|"held_until"|"first"|"last"|"begun"):\d+', '\1', 'g')) FROM meterflow.wallet_totals WHERE customer_id = c
$$;

SELECT pg_temp.live('direct');
-- Now triggers see all of it.
CREATE TEMPORARY TABLE seen (relation regclass, operation text);
CREATE FUNCTION pg_temp.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (TG_RELID, TG_OP); RETURN NULL; END $$;
CREATE TRIGGER regress_see AFTER INSERT OR UPDATE ON meterflow.wallet_transactions FOR EACH ROW EXECUTE FUNCTION pg_temp.see();
CREATE TRIGGER regress_see AFTER INSERT OR UPDATE ON meterflow.ledger_entries FOR EACH ROW EXECUTE FUNCTION pg_temp.see();
CREATE TRIGGER regress_see AFTER INSERT OR UPDATE ON meterflow.credit_grants FOR EACH ROW EXECUTE FUNCTION pg_temp.see();
CREATE TRIGGER regress_see AFTER INSERT OR UPDATE ON meterflow.holds FOR EACH ROW EXECUTE FUNCTION pg_temp.see();
CREATE TRIGGER regress_see AFTER UPDATE OF totals ON meterflow.wallet_totals FOR EACH ROW EXECUTE FUNCTION pg_temp.see();
SELECT pg_temp.live('queries');
SELECT relation, operation, count(*) > 0 AS seen FROM seen GROUP BY 1, 2 ORDER BY 1, 2;
DROP TRIGGER regress_see ON meterflow.wallet_transactions;
DROP TRIGGER regress_see ON meterflow.ledger_entries;
DROP TRIGGER regress_see ON meterflow.credit_grants;
DROP TRIGGER regress_see ON meterflow.holds;
DROP TRIGGER regress_see ON meterflow.wallet_totals;
SELECT count(*) > 40 AS many, count(*) - count(DISTINCT w) AS repeated FROM pg_temp.written('direct') AS w;
SELECT 'only written directly', w FROM (SELECT pg_temp.written('direct') EXCEPT ALL SELECT pg_temp.written('queries')) AS d (w)
UNION ALL SELECT 'only written by queries', w FROM (SELECT pg_temp.written('queries') EXCEPT ALL SELECT pg_temp.written('direct')) AS q (w);
SELECT w FROM pg_temp.written('direct') AS w WHERE w LIKE 'grant%' OR w LIKE 'hold%' OR w LIKE 'totals%';
-- Every CHECK and NOT NULL of the tables holds of what was written without looking at them.
CREATE FUNCTION pg_temp.broken(relation regclass, condition text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  rows bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s AS t WHERE NOT (%s)', relation, condition) INTO rows;
  RETURN rows;
END $$;
SELECT count(*) AS conditions, sum(pg_temp.broken(c.conrelid, pg_get_expr(c.conbin, c.conrelid))) AS broken
  FROM pg_constraint AS c WHERE c.contype = 'c' AND c.conrelid = ANY ('{meterflow.wallet_transactions,meterflow.ledger_entries,meterflow.credit_grants,meterflow.holds,meterflow.wallet_totals}'::regclass[]);
SELECT count(*) AS columns, sum(pg_temp.broken(a.attrelid, format('%I IS NOT NULL', a.attname))) AS broken
  FROM pg_attribute AS a WHERE a.attnotnull AND a.attnum > 0 AND a.attrelid = ANY ('{meterflow.wallet_transactions,meterflow.ledger_entries,meterflow.credit_grants,meterflow.holds,meterflow.wallet_totals}'::regclass[]);
-- And what was entered into indexes by hand is what they would be built of.
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT count(*) AS sound FROM (SELECT bt_index_check(i.indexrelid, true) FROM pg_index AS i
 WHERE i.indrelid = ANY ('{meterflow.wallet_transactions,meterflow.ledger_entries,meterflow.credit_grants,meterflow.holds,meterflow.wallet_totals}'::regclass[])) AS checked;
-- Somebody else's are kept as well: of rows in which a column is not null, of another condition, of an expression.
BEGIN;
CREATE INDEX regress_described ON meterflow.wallet_transactions (tenant_id, description) WHERE description IS NOT NULL;
SELECT meterflow.debit('direct', 0.01, 'USD', 'not described') IS NOT NULL AS one, meterflow.debit('direct', 0.01, 'USD', 'described', 'why') IS NOT NULL AS other;
SELECT bt_index_check(oid, true) FROM pg_class WHERE relname ~ '^wallet_transactions_|^regress_' AND relkind = 'i' AND relam = 403 AND relnamespace = 'meterflow'::regnamespace;
CREATE INDEX regress_some ON meterflow.wallet_transactions (tenant_id, id) WHERE description LIKE 'w%';
CREATE INDEX regress_upper ON meterflow.ledger_entries (tenant_id, upper(account));
SELECT meterflow.debit('direct', 0.01, 'USD', 'again', 'what') IS NOT NULL AS one, meterflow.debit('direct', 0.01, 'USD', 'and again') IS NOT NULL AS other;
SELECT count(*) AS sound FROM (SELECT bt_index_check(i.indexrelid, true) FROM pg_index AS i
 WHERE i.indrelid = ANY ('{meterflow.wallet_transactions,meterflow.ledger_entries}'::regclass[])) AS checked;
ROLLBACK;
DROP EXTENSION amcheck;
SELECT * FROM meterflow.verify_ledger();

-- A column of somebody else's gets its default.
BEGIN;
ALTER TABLE meterflow.wallet_transactions ADD COLUMN regress_note text DEFAULT 'from the default';
SELECT meterflow.debit('direct', 0.01, 'USD', 'with a note') IS NOT NULL AS debited;
SELECT regress_note FROM meterflow.wallet_transactions WHERE idempotency_key = 'with a note';
ROLLBACK;

-- A read-only transaction stays so, and a standby's, which is one.
BEGIN READ ONLY;
SELECT pg_temp.try($$SELECT meterflow.debit('direct', 0.01, 'USD', 'read only')$$);
ROLLBACK;

-- Rights: of the tables, of columns, and by policy.
CREATE ROLE regress_mf_bookkeeper;
GRANT USAGE ON SCHEMA meterflow TO regress_mf_bookkeeper;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA meterflow TO regress_mf_bookkeeper;
GRANT SELECT ON ALL TABLES IN SCHEMA meterflow TO regress_mf_bookkeeper;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA meterflow TO regress_mf_bookkeeper;
SET ROLE regress_mf_bookkeeper;
SELECT pg_temp.try($$SELECT meterflow.debit('direct', 0.01, 'USD', 'may not lock')$$);
RESET ROLE;
GRANT UPDATE ON meterflow.wallet_totals TO regress_mf_bookkeeper;
SET ROLE regress_mf_bookkeeper;
SELECT pg_temp.try($$SELECT meterflow.debit('direct', 0.01, 'USD', 'may not insert')$$);
RESET ROLE;
GRANT INSERT ON meterflow.wallet_transactions, meterflow.ledger_entries TO regress_mf_bookkeeper;
SET ROLE regress_mf_bookkeeper;
SELECT pg_temp.try($$SELECT meterflow.debit('direct', 0.01, 'USD', 'may not update')$$);
RESET ROLE;
GRANT UPDATE (remaining, spent) ON meterflow.credit_grants TO regress_mf_bookkeeper;
SET ROLE regress_mf_bookkeeper;
SELECT pg_temp.try($$SELECT meterflow.debit('direct', 0.01, 'USD', 'may update the columns') IS NOT NULL$$);
RESET ROLE;
ALTER TABLE meterflow.wallet_transactions ENABLE ROW LEVEL SECURITY;
CREATE POLICY regress_small ON meterflow.wallet_transactions TO regress_mf_bookkeeper USING (true) WITH CHECK (amount > -1);
SET ROLE regress_mf_bookkeeper;
SELECT pg_temp.try($$SELECT meterflow.debit('direct', 0.02, 'USD', 'small') IS NOT NULL$$);
SELECT pg_temp.try($$SELECT meterflow.debit('direct', 2, 'USD', 'large')$$);
RESET ROLE;
DROP POLICY regress_small ON meterflow.wallet_transactions;
ALTER TABLE meterflow.wallet_transactions DISABLE ROW LEVEL SECURITY;
REVOKE SELECT ON meterflow.credit_grants FROM regress_mf_bookkeeper;
SET ROLE regress_mf_bookkeeper;
SELECT pg_temp.try($$SELECT meterflow.debit('direct', 0.01, 'USD', 'may not read')$$);
RESET ROLE;
DROP OWNED BY regress_mf_bookkeeper;
DROP ROLE regress_mf_bookkeeper;
SELECT * FROM meterflow.verify_ledger();

-- Keys: a batch in which two debits have one key, which one of them was first used for.
SELECT d.ordinal, d.code, d.transaction_id = t.id AS the_same
  FROM meterflow.debit_rows('{direct,direct,direct}', '{0.02,0.03,0.02}', 'USD', '{small,small,small}') AS d, meterflow.wallet_transactions AS t
 WHERE t.tenant_id = 'writes' AND t.idempotency_key = 'small' ORDER BY d.ordinal;
-- A customer without credit is not unknown.
INSERT INTO meterflow.customers (id) VALUES ('poor');
SELECT ordinal, code, message FROM meterflow.debit_rows('{poor,nobody}', '{1,1}', 'USD', '{p,n}');
