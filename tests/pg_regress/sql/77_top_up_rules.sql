-- Automatic top-ups: a rule asks when credit runs low, once at a time, and whoever takes payments answers.
\set SHOW_CONTEXT never
\getenv source PG_ABS_SRCDIR
\set billing :source '/sql/include/billing.sql'
\set ECHO none
\i :billing
\set ECHO all
SET meterflow.tenant = 'top_ups';
INSERT INTO meterflow.customers (id, timezone) VALUES ('acme', 'Europe/Berlin'), ('bolt', 'UTC');
SELECT meterflow.top_up('acme', 50, 'EUR', 'first') > 0 AS paid;
SELECT w.id AS wallet FROM meterflow.wallets AS w WHERE w.tenant_id = 'top_ups' AND w.customer_id = 'acme' \gset
CREATE TEMPORARY VIEW requests AS
  SELECT row_number() OVER (ORDER BY q.id) AS n, q.amount, q.available, q.status, q.reason, q.transaction_id IS NOT NULL AS credited, q.settled_at IS NOT NULL AS settled
    FROM meterflow.top_up_requests AS q WHERE q.tenant_id = 'top_ups';

-- What a rule can't be.
SELECT pg_temp.try(format('INSERT INTO meterflow.top_up_rules (wallet_id, threshold, amount) VALUES (%s, 10, 0)', :wallet)) AS no_amount;
SELECT pg_temp.try(format('INSERT INTO meterflow.top_up_rules (wallet_id, threshold, amount, monthly_cap) VALUES (%s, 10, 30, 20)', :wallet)) AS cap_below_amount;

-- Above the threshold nothing is asked; at it neither.
INSERT INTO meterflow.top_up_rules (wallet_id, threshold, amount, cooldown, monthly_cap, expires_after) VALUES (:wallet, 10, 30, '0', 60, '1 year');
SELECT meterflow.debit('acme', 40, 'EUR', 'd1') > 0 AS spent;
SELECT * FROM requests;
-- Below it once, however often credit moves; the message is written though nobody consumes the outbox.
SELECT meterflow.debit('acme', 0.01, 'EUR', 'd2') > 0 AS spent;
SELECT meterflow.debit('acme', 1, 'EUR', 'd3') > 0 AS spent;
SELECT * FROM requests;
SELECT o.kind, o.payload - 'request_id' - 'wallet_id' AS payload FROM meterflow.outbox AS o WHERE o.tenant_id = 'top_ups';
SELECT meterflow.request_top_ups('acme', 'EUR') AS again;

-- Confirmed: the credit is there, once, and lives as long as the rule says.
SELECT max(q.id) AS request FROM meterflow.top_up_requests AS q WHERE q.tenant_id = 'top_ups' \gset
SELECT meterflow.confirm_top_up(:request) = meterflow.confirm_top_up(:request) AS same;
SELECT b.balance, b.available FROM meterflow.wallet_balance('acme', 'EUR') AS b;
SELECT g.kind, g.amount, g.expires_at > now() + interval '364 days' AND g.expires_at < now() + interval '367 days' AS a_year
  FROM meterflow.credit_grants AS g WHERE g.tenant_id = 'top_ups' AND g.expires_at < 'infinity';
SELECT pg_temp.try(format('SELECT meterflow.fail_top_up(%s, %L)', :request, 'declined after all')) AS settled;
SELECT * FROM requests;

-- A payment that fails may be asked for again; what fails does not count for the cap, what is confirmed does.
SELECT meterflow.debit('acme', 30, 'EUR', 'd4') > 0 AS spent;
SELECT max(q.id) AS request FROM meterflow.top_up_requests AS q WHERE q.tenant_id = 'top_ups' \gset
SELECT meterflow.fail_top_up(:request, 'card declined'), meterflow.fail_top_up(:request, 'card declined');
SELECT pg_temp.try(format('SELECT meterflow.confirm_top_up(%s)', :request)) AS settled;
SELECT meterflow.request_top_ups('acme', 'EUR') AS again;
SELECT max(q.id) AS request FROM meterflow.top_up_requests AS q WHERE q.tenant_id = 'top_ups' \gset
SELECT meterflow.confirm_top_up(:request, 'second try') > 0 AS paid;
SELECT meterflow.debit('acme', 30, 'EUR', 'd5') > 0 AS spent;
SELECT * FROM requests;

-- After the cooldown only.
UPDATE meterflow.top_up_rules AS r SET monthly_cap = NULL, cooldown = '1 hour' WHERE r.tenant_id = 'top_ups';
SELECT meterflow.request_top_ups('acme', 'EUR') AS within_cooldown;
UPDATE meterflow.top_up_rules AS r SET cooldown = '0', enabled = false WHERE r.tenant_id = 'top_ups';
SELECT meterflow.request_top_ups('acme', 'EUR') AS not_enabled;

-- A hold takes of what is available, and usage does when it is folded.
UPDATE meterflow.top_up_rules AS r SET enabled = true WHERE r.tenant_id = 'top_ups';
SELECT meterflow.hold('acme', 1, 'EUR', '1 hour', 'h1') > 0 AS held;
SELECT count(*) FROM requests;

SELECT meterflow.confirm_top_up(0);
SELECT meterflow.confirm_top_up(NULL);
SELECT * FROM meterflow.verify();
