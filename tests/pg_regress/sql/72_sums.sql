-- Sums of grants: what is read as a sum is what its grants say one by one, whatever has expired, begun later or belongs to
-- another wallet; and what burns is what burns first.
SET meterflow.tenant = 'sums';
INSERT INTO meterflow.customers (id) VALUES ('many'), ('mixed'), ('units');
INSERT INTO meterflow.credit_units (key, currency, rate) VALUES ('token', 'USD', 0.003);

CREATE TEMP TABLE base AS SELECT date_trunc('hour', now()) + interval '2 hours' AS at;

-- 2,000 grants in one wallet: they expire in the seconds 1 to 499 of an hour to come, four at a time, or have expired; some never.
SELECT count(meterflow.grant_credit('many', 1 + n % 7, 'USD', 'many ' || n,
         effective_at => at - interval '2 days', expires_at => at + CASE WHEN n % 10 = 0 THEN interval '-1 day' ELSE interval '1 day' END + n % 500 * interval '1 second'))
  FROM base, generate_series(1, 2000) AS n;
SELECT count(meterflow.top_up('many', 2, 'USD', 'paid ' || n)) FROM generate_series(1, 3) AS n;
-- Begins later.
SELECT count(meterflow.grant_credit('many', 5, 'USD', 'later', effective_at => at + interval '90 minutes', expires_at => at + interval '1 day 100 seconds')) FROM base;

CREATE FUNCTION pg_temp.naive(customer text, at timestamptz) RETURNS numeric LANGUAGE sql AS $$
  SELECT coalesce(sum(g.remaining * coalesce(u.rate, 1)), 0) FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (g.tenant_id, g.wallet_id)
    LEFT JOIN meterflow.credit_units AS u ON (u.tenant_id, u.key) = (w.tenant_id, w.credit_unit)
   WHERE w.tenant_id = 'sums' AND w.customer_id = customer AND g.effective_at <= at AND at < g.expires_at $$;
CREATE FUNCTION pg_temp.compare(customer text) RETURNS TABLE (hours numeric, right_balance boolean, balance numeric) LANGUAGE sql AS $$
  SELECT h, b.available = pg_temp.naive(customer, a.at), b.available
    FROM unnest('{0,1,2,24.01,24.03,24.1,24.2,48,480}'::numeric[]) AS h, LATERAL (SELECT at + h * interval '1 hour' AS at FROM base) AS a,
         LATERAL (SELECT sum(available) AS available FROM meterflow.wallet_balance(customer, 'USD', a.at)) AS b $$;
SELECT * FROM pg_temp.compare('many');
-- Each sum is of some hundred grants at most; what has expired is one.
CREATE VIEW pg_temp.sums AS
  SELECT t.customer_id, l.wallet, l.priority, l.promotional, l.amount, (l.dated->>'grants')::integer AS grants, (l.dated->>'last')::numeric / 1000000 < extract(epoch FROM now()) AS dead
    FROM meterflow.wallet_totals AS t, json_to_recordset(t.totals->'sums') AS l (wallet bigint, priority integer, promotional boolean, amount numeric, dated json) WHERE t.tenant_id = 'sums';
SELECT promotional, dead, count(*) AS sums, sum(grants) AS grants, max(grants) <= 512 AS small, sum(amount) FROM pg_temp.sums WHERE customer_id = 'many' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT problem, detail FROM meterflow.verify_ledger();

-- Spent is what expires first, to the cent.
CREATE FUNCTION pg_temp.burned_first(customer text) RETURNS boolean LANGUAGE sql AS $$
  -- Nothing is left of what burns before the last that something was taken of.
  SELECT coalesce(bool_and(remaining = 0) FILTER (WHERE place < last), true) FROM (
    SELECT g.remaining, row_number() OVER burn AS place,
           (SELECT max(n) FROM (SELECT o.remaining < o.amount AS touched, row_number() OVER (ORDER BY v.priority, o.priority, o.expires_at, o.kind, o.effective_at, o.created_at, o.id) AS n
                                  FROM meterflow.credit_grants AS o JOIN meterflow.wallets AS v ON (v.tenant_id, v.id) = (o.tenant_id, o.wallet_id)
                                 WHERE v.tenant_id = 'sums' AND v.customer_id = customer AND o.effective_at <= now() AND o.expires_at > now()) AS t WHERE touched) AS last
      FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON (w.tenant_id, w.id) = (g.tenant_id, g.wallet_id)
     WHERE w.tenant_id = 'sums' AND w.customer_id = customer AND g.effective_at <= now() AND g.expires_at > now()
    WINDOW burn AS (ORDER BY w.priority, g.priority, g.expires_at, g.kind, g.effective_at, g.created_at, g.id)) AS g $$;
SELECT count(meterflow.debit('many', 33, 'USD', 'spent ' || n)) FROM generate_series(1, 60) AS n;
SELECT pg_temp.burned_first('many');
SELECT * FROM pg_temp.compare('many');
-- A hold is on what burns last, so spending up to it leaves it all; and no cent is there beyond.
SELECT meterflow.hold('many', 100, 'USD', '1 hour', 'held') AS hold \gset
SELECT available AS rest FROM meterflow.wallet_balance('many', 'USD') \gset
SELECT meterflow.debit('many', :rest + 0.01, 'USD', 'too much');
SELECT meterflow.debit('many', :rest, 'USD', 'all') > 0 AS spent;
SELECT pg_temp.burned_first('many'), available, held FROM meterflow.wallet_balance('many', 'USD');
-- What comes back is there again, in sums made anew.
SELECT meterflow.refund((SELECT id FROM meterflow.wallet_transactions WHERE tenant_id = 'sums' AND idempotency_key = 'all'), 'back') > 0 AS refunded;
SELECT meterflow.release(:hold);
SELECT available = :rest + 100 AS all_of_it FROM meterflow.wallet_balance('many', 'USD');
SELECT * FROM pg_temp.compare('many');
SELECT problem, detail FROM meterflow.verify_ledger();

-- Wallets of one priority burn as one: by expiry and start, whichever wallet a grant is in, also what never expires.
INSERT INTO meterflow.wallets (customer_id, currency, name, priority) VALUES ('mixed', 'USD', 'one', 50), ('mixed', 'USD', 'two', 50), ('mixed', 'USD', 'last', 60);
SELECT count(meterflow.grant_credit('mixed', 1, 'USD', 'mixed ' || n, wallet => CASE WHEN n % 5 = 0 THEN 'last' WHEN n % 2 = 0 THEN 'one' ELSE 'two' END,
         effective_at => now() - n * interval '1 minute', expires_at => CASE n % 3 WHEN 0 THEN 'infinity' ELSE at + n * 7 % 50 * interval '1 day' END))
  FROM base, generate_series(8, 97) AS n WHERE n * 7 % 50 > 1;
SELECT * FROM pg_temp.compare('mixed');
SELECT count(meterflow.debit('mixed', 0.7, 'USD', 'of mixed ' || n)) FROM generate_series(1, 90) AS n;
SELECT pg_temp.burned_first('mixed');
SELECT * FROM pg_temp.compare('mixed');
-- The older start first, though the other wallet is older.
INSERT INTO meterflow.customers (id) VALUES ('tied');
SELECT meterflow.top_up('tied', 5, 'USD', 'in one', wallet => 'one', effective_at => now() - interval '1 day') > 0 AS one,
       meterflow.top_up('tied', 5, 'USD', 'in two', wallet => 'two', effective_at => now() - interval '2 days') > 0 AS two;
SELECT meterflow.debit('tied', 6, 'USD', 'of both') > 0 AS spent;
SELECT name, balance FROM meterflow.wallet_balance('tied', 'USD') ORDER BY name;

-- Credit units that are no whole cents: grant by grant, as each is rounded.
SELECT count(meterflow.grant_credit('units', 1 + n * 0.1, 'token', 'units ' || n, expires_at => at + n * interval '1 day')) FROM base, generate_series(2, 40) AS n;
SELECT balance, available FROM meterflow.wallet_balance('units', 'USD');
SELECT meterflow.debit('units', 30.5, 'token', 'some') > 0 AS spent, pg_temp.burned_first('units');
SELECT problem, detail FROM meterflow.verify_ledger();

-- A fraction of a cent is worth nothing in money, but comes back with the rest; and beside another wallet it is worth what it was.
INSERT INTO meterflow.customers (id) VALUES ('dust');
SELECT meterflow.grant_credit('dust', 1, 'token', 'dust 1', expires_at => at + interval '1 day') > 0 AS one,
       meterflow.grant_credit('dust', 100, 'token', 'dust 2', expires_at => at + interval '2 days') > 0 AS hundred, meterflow.debit('dust', 0.30, 'USD', 'dust 3') AS debit FROM base \gset
SELECT meterflow.refund(:debit, 'dust 4', 0.1) > 0 AS a_part, meterflow.refund(:debit, 'dust 5') > 0 AS the_rest;
SELECT g.amount, g.remaining FROM meterflow.credit_grants AS g JOIN meterflow.wallets AS w ON w.id = g.wallet_id WHERE w.tenant_id = 'sums' AND w.customer_id = 'dust' ORDER BY g.id;
SELECT count(meterflow.top_up('dust', 3, 'token', 'dust top ' || n, wallet => 'tokens')) FROM generate_series(1, 10) AS n;
SELECT name, available FROM meterflow.wallet_balance('dust', 'USD') ORDER BY name;
SELECT meterflow.top_up('dust', 1, 'USD', 'dust 6', wallet => 'money') > 0 AS paid;
SELECT name, available FROM meterflow.wallet_balance('dust', 'USD') ORDER BY name;
INSERT INTO meterflow.recurring_grants (tenant_id, wallet_id, amount) SELECT tenant_id, id, 0.004 FROM meterflow.wallets WHERE tenant_id = 'sums' AND customer_id = 'dust' AND name = 'money';

-- Many grants that expire at once, and one that expires before them: no sum of them can be divided any more, and nobody tries for ever.
SET statement_timeout = '30s';
INSERT INTO meterflow.customers (id) VALUES ('at once');
SELECT meterflow.grant_credit('at once', 1, 'USD', 'at once 0', expires_at => at + interval '1 day') > 0 AS before,
       (SELECT count(meterflow.grant_credit('at once', 1, 'USD', 'at once ' || n, expires_at => at + interval '2 days')) FROM generate_series(1, 600) AS n) FROM base;
SELECT meterflow.debit('at once', 3, 'USD', 'spent at once') > 0 AS spent;
SELECT sum(sums.amount), count(*), max(grants) FROM pg_temp.sums WHERE customer_id = 'at once';
RESET statement_timeout;
SELECT problem, detail FROM meterflow.verify_ledger();

-- A debt is paid when there is credit, and was one until then, also where that never expires.
INSERT INTO meterflow.customers (id) VALUES ('owing');
INSERT INTO meterflow.wallets (customer_id, currency, kind) VALUES ('owing', 'USD', 'postpaid');
SELECT meterflow.debit('owing', 5, 'USD', 'owing 1') > 0 AS lent;
INSERT INTO meterflow.recurring_grants (wallet_id, amount, rollover_max, interval_unit, starts_at)
SELECT id, 8, NULL, 'year', clock_timestamp() FROM meterflow.wallets WHERE tenant_id = 'sums' AND customer_id = 'owing';
SELECT meterflow.debit('owing', 1, 'USD', 'owing 2') > 0 AS spent;
SELECT t.kind, e.account, e.amount, e.effective_at >= r.starts_at AS after_it_began FROM meterflow.wallet_transactions AS t JOIN meterflow.ledger_entries AS e ON (e.tenant_id, e.transaction_id) = (t.tenant_id, t.id)
  JOIN meterflow.recurring_grants AS r ON (r.tenant_id, r.wallet_id) = (e.tenant_id, e.wallet_id) WHERE t.tenant_id = 'sums' AND t.customer_id = 'owing' ORDER BY e.transaction_id, e.entry;

-- verify_ledger() sees a sum that is not that of its grants, a grant that is in none, and grants and holds that nobody looks for.
SELECT meterflow.hold('tied', 1, 'USD', '1 hour', 'of tied') > 0 AS held;
BEGIN;
UPDATE meterflow.wallet_totals SET totals = replace(replace(totals::text, '"amount":"4"', '"amount":"3"'), '"held_until":', '"held_until":9')::json WHERE tenant_id = 'sums' AND customer_id = 'tied';
UPDATE meterflow.wallet_totals SET totals = jsonb_set(totals::jsonb, '{sums}', '[]')::json WHERE tenant_id = 'sums' AND customer_id = 'units';
UPDATE meterflow.wallet_totals SET totals = (totals::jsonb - 'later_until')::json WHERE tenant_id = 'sums' AND customer_id = 'many';
UPDATE meterflow.wallet_totals SET totals = regexp_replace(totals::text, '"begun":1', '"begun":-1', 'g')::json WHERE tenant_id = 'sums' AND customer_id = 'dust';
SELECT problem, customer_id, count(*) FROM meterflow.verify_ledger() GROUP BY 1, 2 ORDER BY 1, 2;
ROLLBACK;
