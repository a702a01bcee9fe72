-- Who is billed for what: customers, plans with their prices, subscriptions; what is owed so far; prepaid wallets.

CREATE FUNCTION meterflow.currency_digits(currency text) RETURNS integer
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'currency_digits_wrapper';
COMMENT ON FUNCTION meterflow.currency_digits(text) IS
  'Decimals of money in a currency by ISO 4217: 2 for USD, 0 for JPY. An error for a code that is not an active currency.';

-- Models go to Rust as text, with all their digits. The functions over them are bound to these when created, so they
-- need no search_path of their own; without one PostgreSQL inlines them and the cast is all they cost.
CREATE FUNCTION meterflow.price_text(model text, quantity numeric, currency text) RETURNS numeric
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'price_text_wrapper';
COMMENT ON FUNCTION meterflow.price_text(text, numeric, text) IS 'Internal: price() of a model as text.';
CREATE FUNCTION meterflow.explain_price_text(model text, quantity numeric, currency text) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'explain_price_text_wrapper';
COMMENT ON FUNCTION meterflow.explain_price_text(text, numeric, text) IS 'Internal: explain_price() of a model as text.';
CREATE FUNCTION meterflow.check_price_text(model text, meter_key text) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'check_price_text_wrapper';
COMMENT ON FUNCTION meterflow.check_price_text(text, text) IS
  'Internal: true, or an error that explains what is wrong with a price model or why it needs a meter.';

CREATE FUNCTION meterflow.price(model jsonb, quantity numeric, currency text DEFAULT NULL) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN meterflow.price_text(model::text, quantity, currency);
COMMENT ON FUNCTION meterflow.price(jsonb, numeric, text) IS
  'What a quantity costs by a price model: exact without a currency, rounded half away from zero to its digits with one. Null for a null model or quantity.';

CREATE FUNCTION meterflow.explain_price(model jsonb, quantity numeric, currency text DEFAULT NULL) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN meterflow.explain_price_text(model::text, quantity, currency);
COMMENT ON FUNCTION meterflow.explain_price(jsonb, numeric, text) IS
  'How price() arrives at its amount: the steps, the exact sum, the rounded amount. Numbers are strings, to keep their digits.';

CREATE TABLE meterflow.customers (
  tenant_id   text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id          text COLLATE "C" NOT NULL CHECK (id <> ''),
  name        text,
  timezone    text NOT NULL DEFAULT 'UTC',
  currency    text COLLATE "C" CHECK (meterflow.currency_digits(currency) >= 0),
  metadata    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
) USING heap;
COMMENT ON TABLE meterflow.customers IS 'Who is billed. Events may come before their customer does: they count once it is here.';
COMMENT ON COLUMN meterflow.customers.id IS 'The customer_id that events carry.';
COMMENT ON COLUMN meterflow.customers.timezone IS 'Billing months begin at midnight on the first in this zone, an IANA name such as Europe/Berlin.';

-- pg_timezone_names reads every zone file, 50 ms a time: too dear for loading customers. AT TIME ZONE looks up one
-- zone, but also takes abbreviations and POSIX rules (UTC+3 means three hours west); no such text looks like Area/City.
CREATE FUNCTION meterflow.check_customer_timezone() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  known boolean := NEW.timezone = 'UTC';
BEGIN
  IF NEW.timezone ~ '^[A-Za-z_]+(/[A-Za-z_-]+)+$' THEN
    BEGIN
      PERFORM now() AT TIME ZONE NEW.timezone;
      known := true;
    EXCEPTION WHEN invalid_parameter_value THEN
      known := false;
    END;
  ELSIF NOT known THEN
    known := EXISTS (SELECT FROM pg_catalog.pg_timezone_names AS z WHERE z.name = NEW.timezone);
  END IF;
  IF NOT known THEN
    RAISE EXCEPTION 'unknown time zone "%" of customer "%"', NEW.timezone, NEW.id
      USING ERRCODE = '22023', DETAIL = 'Abbreviations and fixed offsets are not accepted: they say nothing of daylight saving time.',
            HINT = 'Use a name from pg_timezone_names, such as Europe/Berlin or UTC.';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.check_customer_timezone() IS 'Internal: refuses a customer whose time zone has no name in pg_timezone_names.';
CREATE TRIGGER check_timezone BEFORE INSERT OR UPDATE OF timezone ON meterflow.customers
  FOR EACH ROW WHEN (NEW.timezone IS NOT NULL) EXECUTE FUNCTION meterflow.check_customer_timezone();

CREATE TABLE meterflow.plans (
  tenant_id   text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  key         text COLLATE "C" NOT NULL CHECK (key <> ''),
  name        text,
  currency    text COLLATE "C" NOT NULL CHECK (meterflow.currency_digits(currency) >= 0),
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
) USING heap;
COMMENT ON TABLE meterflow.plans IS 'What can be subscribed to: prices in one currency.';

CREATE TABLE meterflow.prices (
  tenant_id   text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id          bigint GENERATED BY DEFAULT AS IDENTITY,
  plan_key    text COLLATE "C" NOT NULL,
  meter_key   text COLLATE "C",
  model       jsonb NOT NULL,
  valid_from  timestamptz NOT NULL DEFAULT '-infinity',
  valid_to    timestamptz NOT NULL DEFAULT 'infinity',
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, plan_key) REFERENCES meterflow.plans (tenant_id, key),
  FOREIGN KEY (tenant_id, meter_key) REFERENCES meterflow.meters (tenant_id, key),
  CONSTRAINT prices_model_check CHECK (meterflow.check_price_text(model::text, meter_key)),
  CONSTRAINT prices_validity_check CHECK (valid_from < valid_to)
) USING heap;
CREATE INDEX prices_plan_idx ON meterflow.prices (tenant_id, plan_key);
COMMENT ON TABLE meterflow.prices IS 'What a plan charges: the usage of a meter by a price model, or without a meter a flat fee a month.';
COMMENT ON COLUMN meterflow.prices.model IS 'For instance {"model":"per_unit","unit_amount":"0.10"} or {"model":"flat","amount":"20"}.';
COMMENT ON COLUMN meterflow.prices.valid_from IS 'Usage from this time until before valid_to has this price. A fee is charged when it is valid as the period begins.';

CREATE TABLE meterflow.subscriptions (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id           bigint GENERATED BY DEFAULT AS IDENTITY,
  customer_id  text COLLATE "C" NOT NULL,
  plan_key     text COLLATE "C" NOT NULL,
  starts_at    timestamptz NOT NULL DEFAULT now() CHECK (isfinite(starts_at)),
  ends_at      timestamptz,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES meterflow.customers (tenant_id, id),
  FOREIGN KEY (tenant_id, plan_key) REFERENCES meterflow.plans (tenant_id, key),
  CONSTRAINT subscriptions_time_check CHECK (starts_at < ends_at)
) USING heap;
CREATE INDEX subscriptions_customer_idx ON meterflow.subscriptions (tenant_id, customer_id);
COMMENT ON TABLE meterflow.subscriptions IS 'Which customer is on which plan, from starts_at until before ends_at (null: until further notice). Billed by calendar months in the customer''s time zone.';

CREATE FUNCTION meterflow.current_period(subscription_id bigint, at timestamptz DEFAULT now(),
                                         OUT period_start timestamptz, OUT period_end timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT greatest(date_trunc('month', current_period.at AT TIME ZONE c.timezone) AT TIME ZONE c.timezone, s.starts_at),
         least((date_trunc('month', current_period.at AT TIME ZONE c.timezone) + interval '1 month') AT TIME ZONE c.timezone, s.ends_at)
    FROM meterflow.subscriptions s
    JOIN meterflow.customers c ON (c.tenant_id, c.id) = (s.tenant_id, s.customer_id)
   WHERE s.tenant_id = meterflow.current_tenant() AND s.id = current_period.subscription_id
     AND s.starts_at <= current_period.at AND coalesce(current_period.at < s.ends_at, true);
END;
COMMENT ON FUNCTION meterflow.current_period(bigint, timestamptz) IS
  'The billing period [period_start, period_end) of a subscription at a time: a calendar month of the customer, cut to the subscription. Nulls when it does not run then.';

-- One statement's snapshot throughout: this function is STABLE, and so is all it calls. Row by row in plpgsql rather
-- than one join: each query is a keyed lookup with a plan that is kept, which is what makes a balance cheap.
CREATE FUNCTION meterflow.open_charges(of_customer text, in_currency text, as_of timestamptz)
RETURNS TABLE (subscription_id bigint, price_id bigint, meter_key text, period_start timestamptz, period_end timestamptz,
               quantity numeric, unrounded numeric, amount numeric, currency text)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  zone text;
  month_end timestamptz;
  item record;
  first_month timestamp;
  -- Usage of all meters that are charged for one period, asked for at once.
  asked_from timestamptz;
  asked_to timestamptz;
  asked_keys text[];
  asked_values numeric[];
BEGIN
  SELECT c.timezone INTO zone FROM meterflow.customers AS c WHERE c.tenant_id = tenant AND c.id = of_customer;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  month_end := (date_trunc('month', as_of AT TIME ZONE zone) + interval '1 month') AT TIME ZONE zone;
  FOR item IN
    SELECT i.*, array_agg(i.meter_key) FILTER (WHERE i.meter_key IS NOT NULL) OVER (PARTITION BY i.starts, i.ends) AS meter_keys FROM (
    SELECT s.id AS subscription_id, p.id AS price_id, p.meter_key, p.model, l.currency, p.valid_from, p.valid_to,
           CASE WHEN p.meter_key IS NULL THEN s.starts_at ELSE greatest(s.starts_at, p.valid_from) END AS starts,
           CASE WHEN p.meter_key IS NULL THEN least(s.ends_at, month_end) ELSE least(s.ends_at, p.valid_to, month_end) END AS ends
      FROM meterflow.subscriptions AS s
      JOIN meterflow.plans AS l ON l.tenant_id = s.tenant_id AND l.key = s.plan_key
      JOIN meterflow.prices AS p ON p.tenant_id = s.tenant_id AND p.plan_key = s.plan_key
     WHERE s.tenant_id = tenant AND s.customer_id = of_customer AND s.starts_at <= as_of
       AND (in_currency IS NULL OR l.currency = in_currency)
    ) AS i ORDER BY i.subscription_id, i.price_id
  LOOP
    CONTINUE WHEN item.starts > as_of OR item.starts >= item.ends;
    subscription_id := item.subscription_id;
    price_id := item.price_id;
    meter_key := item.meter_key;
    currency := item.currency;
    first_month := date_trunc('month', item.starts AT TIME ZONE zone);

    IF item.meter_key IS NOT NULL AND (first_month + interval '1 month') AT TIME ZONE zone >= item.ends THEN
      period_start := item.starts;
      period_end := item.ends;
      IF (asked_from, asked_to) IS DISTINCT FROM (item.starts, item.ends) THEN
        SELECT array_agg(u.meter_key), array_agg(u.value::numeric) INTO asked_keys, asked_values
          FROM meterflow.usage_totals(item.meter_keys, item.starts, item.ends, of_customer) AS u;
        asked_from := item.starts;
        asked_to := item.ends;
      END IF;
      quantity := coalesce(asked_values[array_position(asked_keys, item.meter_key)], 0);
      unrounded := meterflow.price(item.model, quantity);
      amount := meterflow.price(item.model, quantity, currency);
      RETURN NEXT;
      CONTINUE;
    END IF;

    -- All months of the subscription that no invoice has taken yet, in one scan of the usage.
    FOR period_start, period_end, quantity IN
      SELECT greatest(m.month AT TIME ZONE zone, item.starts), least((m.month + interval '1 month') AT TIME ZONE zone, item.ends),
             CASE WHEN item.meter_key IS NULL THEN 1 ELSE coalesce(u.value, 0) END
        FROM generate_series(first_month, item.ends AT TIME ZONE zone, interval '1 month') AS m (month)
        LEFT JOIN (SELECT date_trunc('month', w.window_start AT TIME ZONE zone) AS month, w.value
                     FROM meterflow.usage(item.meter_key, item.starts, item.ends, of_customer, 'month', timezone => zone) AS w
                    WHERE item.meter_key IS NOT NULL) AS u ON u.month = m.month
       WHERE m.month AT TIME ZONE zone < item.ends
       ORDER BY m.month
    LOOP
      -- Of a fee that changes within a period one version is charged: that of the period's beginning.
      CONTINUE WHEN item.meter_key IS NULL AND (period_start < item.valid_from OR period_start >= item.valid_to);
      unrounded := meterflow.price(item.model, quantity);
      amount := meterflow.price(item.model, quantity, currency);
      RETURN NEXT;
    END LOOP;
  END LOOP;
END $$;
COMMENT ON FUNCTION meterflow.open_charges(text, text, timestamptz) IS
  'Internal: what a customer owes for all periods up to the one of as_of that no invoice has taken, a line for each subscription, price and month.';

-- Inlined like price(); so is wallet_balance().
CREATE FUNCTION meterflow.current_charges(customer_id text)
RETURNS TABLE (subscription_id bigint, price_id bigint, meter_key text, period_start timestamptz, period_end timestamptz,
               quantity numeric, unrounded numeric, amount numeric, currency text)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
  SELECT c.* FROM meterflow.open_charges(current_charges.customer_id, NULL, pg_catalog.statement_timestamp()) c;
END;
COMMENT ON FUNCTION meterflow.current_charges(text) IS
  'What a customer''s subscriptions cost so far, line by line: the current month and every earlier one that is not invoiced. amount is what an invoice line would say.';

CREATE TABLE meterflow.wallets (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id           bigint GENERATED BY DEFAULT AS IDENTITY,
  customer_id  text COLLATE "C" NOT NULL,
  currency     text COLLATE "C" NOT NULL CHECK (meterflow.currency_digits(currency) >= 0),
  name         text COLLATE "C" NOT NULL DEFAULT 'default' CHECK (name <> ''),
  priority     integer NOT NULL DEFAULT 50,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  CONSTRAINT wallets_name_key UNIQUE (tenant_id, customer_id, currency, name),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES meterflow.customers (tenant_id, id)
) USING heap;
COMMENT ON TABLE meterflow.wallets IS 'Prepaid money of a customer. Usage burns the wallets of its currency in order of priority, then id.';
COMMENT ON COLUMN meterflow.wallets.priority IS 'Lower burns first.';

CREATE TABLE meterflow.wallet_transactions (
  tenant_id        text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id               bigint GENERATED ALWAYS AS IDENTITY,
  wallet_id        bigint NOT NULL,
  kind             text NOT NULL CHECK (kind IN ('top_up')),
  amount           numeric NOT NULL CHECK (amount > 0 AND amount < 'Infinity'),
  description      text,
  idempotency_key  text COLLATE "C" NOT NULL CHECK (idempotency_key <> ''),
  body_hash        bytea NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_by       text NOT NULL DEFAULT session_user,
  PRIMARY KEY (tenant_id, id),
  CONSTRAINT wallet_transactions_idempotency_key UNIQUE (tenant_id, idempotency_key),
  FOREIGN KEY (tenant_id, wallet_id) REFERENCES meterflow.wallets (tenant_id, id)
) USING heap;
CREATE INDEX wallet_transactions_wallet_idx ON meterflow.wallet_transactions (tenant_id, wallet_id) INCLUDE (amount);
COMMENT ON TABLE meterflow.wallet_transactions IS 'Every movement of a wallet, append-only: a wallet''s balance is the sum of its amounts.';
COMMENT ON COLUMN meterflow.wallet_transactions.body_hash IS 'SHA-256 of what the idempotency key was first used for.';

CREATE FUNCTION meterflow.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_RELID::regclass
    USING ERRCODE = '55000', DETAIL = format('%s would change what is on record.', TG_OP),
          HINT = 'Record a correction as a new row.';
END $$;
COMMENT ON FUNCTION meterflow.refuse_change() IS 'Internal: keeps a table append-only.';
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON meterflow.wallet_transactions
  FOR EACH STATEMENT EXECUTE FUNCTION meterflow.refuse_change();

CREATE FUNCTION meterflow.top_up(customer_id text, amount numeric, currency text, idempotency_key text,
                                 description text DEFAULT NULL, wallet text DEFAULT 'default') RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  digits integer;
  body bytea;
  first record;
  target bigint;
  transaction_id bigint;
BEGIN
  IF customer_id IS NULL OR amount IS NULL OR currency IS NULL OR wallet IS NULL OR coalesce(idempotency_key, '') = '' THEN
    RAISE EXCEPTION 'top_up needs a customer_id, amount, currency, wallet and idempotency_key' USING ERRCODE = '22004',
      DETAIL = format('Missing: %s.', concat_ws(', ', CASE WHEN customer_id IS NULL THEN 'customer_id' END,
        CASE WHEN amount IS NULL THEN 'amount' END, CASE WHEN currency IS NULL THEN 'currency' END,
        CASE WHEN wallet IS NULL THEN 'wallet' END, CASE WHEN coalesce(idempotency_key, '') = '' THEN 'idempotency_key' END)),
      HINT = 'The idempotency_key names this payment: a retry with the same key never adds the money twice.';
  END IF;
  digits := meterflow.currency_digits(currency);
  IF amount <= 0 OR amount IN ('NaN', 'Infinity') THEN
    RAISE EXCEPTION 'the amount of a top-up must be a number above zero' USING ERRCODE = '22023',
      DETAIL = format('It is %s.', amount), HINT = 'Usage takes money out of a wallet; a top-up only adds.';
  END IF;
  IF scale(trim_scale(amount)) > digits THEN
    RAISE EXCEPTION 'money in % has no more than % decimals', currency, digits USING ERRCODE = '22023',
      DETAIL = format('The amount is %s.', amount), HINT = 'Round the amount to what was really paid.';
  END IF;
  body := sha256(convert_to(jsonb_build_array('top_up', customer_id, trim_scale(amount), currency, wallet, description)::text, 'UTF8'));

  -- Twice: the key may be taken while we work. Then the insert waits for the other transaction and, if that commits,
  -- inserts nothing; the second look, a statement of its own, sees the other row.
  FOR attempt IN 1..2 LOOP
    SELECT t.id, t.body_hash, t.created_at INTO first FROM meterflow.wallet_transactions AS t
     WHERE t.tenant_id = tenant AND t.idempotency_key = top_up.idempotency_key;
    IF FOUND THEN
      IF first.body_hash <> body THEN
        RAISE EXCEPTION 'idempotency key "%" has been used for something else', idempotency_key USING ERRCODE = '23505',
          DETAIL = format('Wallet transaction %s of %s has this key and another customer, amount, currency, wallet or description.', first.id, first.created_at),
          HINT = 'Send a retry just as the first call was; give another payment a key of its own.';
      END IF;
      RETURN first.id;
    END IF;
    IF NOT EXISTS (SELECT FROM meterflow.customers AS c WHERE c.tenant_id = tenant AND c.id = top_up.customer_id) THEN
      RAISE EXCEPTION 'there is no customer "%"', customer_id USING ERRCODE = '23503',
        DETAIL = format('Tenant "%s" has none with this id.', tenant), HINT = 'INSERT INTO meterflow.customers (id) first.';
    END IF;
    INSERT INTO meterflow.wallets (tenant_id, customer_id, currency, name)
    VALUES (tenant, top_up.customer_id, top_up.currency, wallet) ON CONFLICT ON CONSTRAINT wallets_name_key DO NOTHING;
    SELECT w.id INTO STRICT target FROM meterflow.wallets AS w
     WHERE w.tenant_id = tenant AND w.customer_id = top_up.customer_id AND w.currency = top_up.currency AND w.name = wallet;
    INSERT INTO meterflow.wallet_transactions AS t (tenant_id, wallet_id, kind, amount, description, idempotency_key, body_hash)
    VALUES (tenant, target, 'top_up', top_up.amount, top_up.description, top_up.idempotency_key, body)
    ON CONFLICT ON CONSTRAINT wallet_transactions_idempotency_key DO NOTHING
    RETURNING t.id INTO transaction_id;
    IF transaction_id IS NOT NULL THEN
      RETURN transaction_id;
    END IF;
  END LOOP;
  RAISE EXCEPTION 'idempotency key "%" is being used by another transaction', idempotency_key
    USING ERRCODE = '40001', HINT = 'Retry the transaction.';
END $$;
COMMENT ON FUNCTION meterflow.top_up(text, numeric, text, text, text, text) IS
  'Adds money to a customer''s wallet, creating the wallet when it is missing; returns the id of the wallet transaction. The same key with the same body returns the first id; with another body it is an error.';

CREATE FUNCTION meterflow.open_balances(of_customer text, in_currency text, as_of timestamptz)
RETURNS TABLE (wallet_id bigint, currency text, balance numeric, open_usage numeric, available numeric)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 2
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
BEGIN
  IF in_currency IS NOT NULL THEN
    PERFORM meterflow.currency_digits(in_currency);
  END IF;
  -- Each wallet takes what the wallets ahead of it leave, up to its balance; the last takes the rest, whatever it is.
  -- Usage in a currency without a wallet is shown too, with no wallet: a debt must not vanish for want of one.
  RETURN QUERY
    WITH owed AS (
      SELECT c.currency, sum(c.amount) AS amount
        FROM meterflow.open_charges(of_customer, in_currency, as_of) AS c GROUP BY c.currency
    ), held AS (
      SELECT w.id, w.currency, w.priority,
             (SELECT coalesce(sum(t.amount), 0) FROM meterflow.wallet_transactions AS t
               WHERE t.tenant_id = tenant AND t.wallet_id = w.id) AS balance
        FROM meterflow.wallets AS w
       WHERE w.tenant_id = tenant AND w.customer_id = of_customer AND (in_currency IS NULL OR w.currency = in_currency)
    ), burn AS (
      SELECT h.id, coalesce(h.currency, o.currency) AS currency, h.priority, coalesce(h.balance, 0) AS balance,
             coalesce(o.amount, 0) AS owed,
             coalesce(sum(greatest(h.balance, 0)) OVER (ahead ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS ahead,
             lead(1) OVER ahead IS NULL AS is_last
        FROM held AS h FULL JOIN owed AS o ON o.currency = h.currency
      WINDOW ahead AS (PARTITION BY coalesce(h.currency, o.currency) ORDER BY h.priority, h.id)
    ), shared AS (
      SELECT b.*, CASE WHEN b.is_last THEN b.owed - least(b.ahead, greatest(b.owed, 0))
                       ELSE least(greatest(b.balance, 0), greatest(b.owed - b.ahead, 0)) END AS share
        FROM burn AS b
    )
    SELECT s.id, s.currency, s.balance, s.share, s.balance - s.share
      FROM shared AS s
     WHERE s.id IS NOT NULL OR s.owed <> 0
     ORDER BY s.currency, s.priority, s.id;
END $$;
COMMENT ON FUNCTION meterflow.open_balances(text, text, timestamptz) IS 'Internal: a customer''s wallets with open usage shared out over them once, in burn order.';

CREATE FUNCTION meterflow.wallet_balance(customer_id text, currency text DEFAULT NULL)
RETURNS TABLE (wallet_id bigint, currency text, balance numeric, open_usage numeric, available numeric, as_of timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 2
BEGIN ATOMIC
  SELECT b.wallet_id, b.currency, b.balance, b.open_usage, b.available, pg_catalog.statement_timestamp()
    FROM meterflow.open_balances($1, $2, pg_catalog.statement_timestamp()) b;
END;
COMMENT ON FUNCTION meterflow.wallet_balance(text, text) IS
  'A customer''s wallets now, in burn order: balance less open usage, every committed event and those of this transaction included. A row without wallet_id is usage in a currency that has no wallet.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.customers', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.plans', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.prices', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.prices_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.subscriptions', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.subscriptions_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.wallets', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.wallets_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.wallet_transactions', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.wallet_transactions_id_seq', '');
