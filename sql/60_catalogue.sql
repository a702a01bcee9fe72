-- Who is billed, and what can be sold to them: customers, taxes, coupons, plans with phases and prices. Nouns: rows that
-- people insert and update; what they mean for money is src/billing.

CREATE TABLE meterflow.billing_settings (
  tenant_id           text COLLATE "C" PRIMARY KEY DEFAULT meterflow.current_tenant(),
  -- {seq} is the number, {seq:6} padded to six digits; {year} and {month} are those of issue.
  invoice_format      text NOT NULL DEFAULT 'INV-{seq:6}' CHECK (invoice_format ~ '\{seq(:[1-9])?\}'),
  credit_note_format  text NOT NULL DEFAULT 'CN-{seq:6}' CHECK (credit_note_format ~ '\{seq(:[1-9])?\}'),
  next_invoice        bigint NOT NULL DEFAULT 1 CHECK (next_invoice > 0),
  next_credit_note    bigint NOT NULL DEFAULT 1 CHECK (next_credit_note > 0),
  grace_period        interval NOT NULL DEFAULT '0' CHECK (grace_period >= '0'),
  net_terms           interval NOT NULL DEFAULT '30 days' CHECK (net_terms >= '0'),
  uncollectible_after interval NOT NULL DEFAULT '90 days' CHECK (uncollectible_after >= '0'),
  automatic           boolean NOT NULL DEFAULT false,
  adjust_for          interval NOT NULL DEFAULT '62 days' CHECK (adjust_for >= '0'),
  seller              jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(seller) = 'object')
) USING heap;
COMMENT ON TABLE meterflow.billing_settings IS 'How a tenant bills: numbering, grace, terms, who sells. A tenant without a row has the defaults.';
COMMENT ON COLUMN meterflow.billing_settings.invoice_format IS 'Of invoice numbers: {seq} or {seq:6}, {year}, {month}. Numbers count up without a gap, whatever the format.';
COMMENT ON COLUMN meterflow.billing_settings.grace_period IS 'How long after the end of a period its invoice stays a draft, so that late events still get on it.';
COMMENT ON COLUMN meterflow.billing_settings.automatic IS 'The worker, and maintain(), make this tenant''s invoices as they fall due. False: when bill_due() is called.';
COMMENT ON COLUMN meterflow.billing_settings.adjust_for IS 'How long after the end of a period late events and corrections are still billed, as adjustments on a later invoice. At least the backdate window and a period, to miss none.';
COMMENT ON COLUMN meterflow.billing_settings.uncollectible_after IS 'How long after it was due an unpaid invoice counts as uncollectible.';
COMMENT ON COLUMN meterflow.billing_settings.seller IS 'Printed on invoices: name, address (lines), tax_id, email, payment.';

-- What every verb that is idempotent by key says to a key that it knows with another body.
CREATE FUNCTION meterflow.refuse_key(idempotency_key text, holder text, kind text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION 'idempotency key "%" has been used for something else', idempotency_key USING ERRCODE = '23505',
    DETAIL = holder || ' has this key.', HINT = format('Send a retry just as the first call was; give another %s a key of its own.', kind);
END $$;
COMMENT ON FUNCTION meterflow.refuse_key(text, text, text) IS 'Internal: the error for an idempotency key that has been used for something else.';

CREATE TABLE meterflow.taxes (
  tenant_id   text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  key         text COLLATE "C" NOT NULL CHECK (key <> ''),
  name        text NOT NULL,
  rate        numeric NOT NULL CHECK (rate >= 0 AND rate <= 1000),
  inclusive   boolean NOT NULL DEFAULT false,
  is_default  boolean NOT NULL DEFAULT false,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
) USING heap;
COMMENT ON TABLE meterflow.taxes IS 'Tax rates. A price''s own come before its customer''s, those before the tenant''s default ones.';
COMMENT ON COLUMN meterflow.taxes.rate IS 'In percent.';
COMMENT ON COLUMN meterflow.taxes.inclusive IS 'Prices include it: it is shown and not added.';

CREATE TABLE meterflow.customers (
  tenant_id    text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id           text COLLATE "C" NOT NULL CHECK (id <> ''),
  name         text,
  timezone     text NOT NULL DEFAULT 'UTC',
  currency     text COLLATE "C" CHECK (meterflow.currency_digits(currency) >= 0),
  payer_id     text COLLATE "C",
  price_group  text COLLATE "C",
  taxes        text[],
  tax_exempt   boolean NOT NULL DEFAULT false,
  net_terms    interval CHECK (net_terms >= '0'),
  email        text,
  address      text,
  tax_number   text,
  metadata     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  CONSTRAINT customers_payer_check CHECK (payer_id <> id)
) USING heap;
CREATE INDEX customers_payer_idx ON meterflow.customers (tenant_id, payer_id) WHERE payer_id IS NOT NULL;
COMMENT ON TABLE meterflow.customers IS 'Who is billed. Events may come before their customer does: they count once it is here.';
COMMENT ON COLUMN meterflow.customers.id IS 'The customer_id that events carry.';
COMMENT ON COLUMN meterflow.customers.timezone IS 'Billing periods begin at midnight in this zone, an IANA name such as Europe/Berlin. A subscription keeps the zone it was made in.';
COMMENT ON COLUMN meterflow.customers.payer_id IS 'Who pays: this customer''s lines go on the payer''s invoices. Null: itself.';
COMMENT ON COLUMN meterflow.customers.price_group IS 'Prices of this group come before those of no group.';
COMMENT ON COLUMN meterflow.customers.taxes IS 'Keys of its taxes. Null: the tenant''s default ones; empty: none.';

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
    RAISE EXCEPTION 'unknown time zone "%" of % "%"', NEW.timezone, rtrim(TG_TABLE_NAME, 's'), NEW.id
      USING ERRCODE = '22023', DETAIL = 'Abbreviations and fixed offsets are not accepted: they say nothing of daylight saving time.',
            HINT = 'Use a name from pg_timezone_names, such as Europe/Berlin or UTC.';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.check_customer_timezone() IS 'Trigger: refuses a customer or subscription whose time zone has no name in pg_timezone_names.';
CREATE TRIGGER check_timezone BEFORE INSERT OR UPDATE OF timezone ON meterflow.customers
  FOR EACH ROW WHEN (NEW.timezone IS NOT NULL) EXECUTE FUNCTION meterflow.check_customer_timezone();

-- Whether rows come from a dump: every one turns row_security off. They may come before what they name.
CREATE FUNCTION meterflow.is_restoring() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN current_setting('row_security') = 'off';
COMMENT ON FUNCTION meterflow.is_restoring() IS 'Internal: whether this session restores a dump.';

CREATE FUNCTION meterflow.check_customer_taxes() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  missing text;
BEGIN
  SELECT string_agg(k, ', ') INTO missing FROM unnest(NEW.taxes) AS k
   WHERE NOT EXISTS (SELECT FROM meterflow.taxes AS t WHERE t.tenant_id = NEW.tenant_id AND t.key = k);
  IF missing IS NOT NULL AND NOT meterflow.is_restoring() THEN
    RAISE EXCEPTION 'unknown tax of customer "%"', NEW.id USING ERRCODE = '23503', DETAIL = format('Not in meterflow.taxes: %s.', missing),
      HINT = 'INSERT INTO meterflow.taxes first.';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.check_customer_taxes() IS 'Trigger: refuses a customer with a tax that is not there: its invoices could not be made.';
CREATE TRIGGER check_taxes BEFORE INSERT OR UPDATE OF taxes ON meterflow.customers
  FOR EACH ROW WHEN (NEW.taxes <> '{}') EXECUTE FUNCTION meterflow.check_customer_taxes();

-- Not a foreign key: pg_dump warns of a table that references itself. One step only: who pays for others pays for itself.
CREATE FUNCTION meterflow.check_payer() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  payer meterflow.customers;
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF EXISTS (SELECT FROM meterflow.customers AS c WHERE c.tenant_id = OLD.tenant_id AND c.payer_id = OLD.id) THEN
      RAISE EXCEPTION 'customer "%" pays for others', OLD.id USING ERRCODE = '23503', DETAIL = 'Their payer_id names it.', HINT = 'Set that to another payer, or to null, first.';
    END IF;
    RETURN OLD;
  END IF;
  IF meterflow.is_restoring() THEN
    RETURN NEW;
  END IF;
  SELECT c.* INTO payer FROM meterflow.customers AS c WHERE c.tenant_id = NEW.tenant_id AND c.id = NEW.payer_id FOR KEY SHARE;
  IF NOT FOUND OR payer.payer_id IS NOT NULL OR EXISTS (SELECT FROM meterflow.customers AS c WHERE c.tenant_id = NEW.tenant_id AND c.payer_id = NEW.id) THEN
    RAISE EXCEPTION 'customer "%" can not be paid for by "%"', NEW.id, NEW.payer_id USING ERRCODE = '23503',
      DETAIL = CASE WHEN payer.id IS NULL THEN format('Tenant "%s" has no such customer.', NEW.tenant_id)
                    WHEN payer.payer_id IS NOT NULL THEN format('"%s" itself is paid for by "%s".', payer.id, payer.payer_id)
                    ELSE format('"%s" itself pays for others.', NEW.id) END,
      HINT = 'A payer is a customer that pays for itself.';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.check_payer() IS 'Trigger: a payer is there, stays there, and pays for itself.';
CREATE TRIGGER check_payer BEFORE INSERT OR UPDATE OF payer_id ON meterflow.customers
  FOR EACH ROW WHEN (NEW.payer_id IS NOT NULL) EXECUTE FUNCTION meterflow.check_payer();
CREATE TRIGGER check_payer_gone BEFORE DELETE ON meterflow.customers
  FOR EACH ROW EXECUTE FUNCTION meterflow.check_payer();

CREATE TABLE meterflow.credit_units (
  tenant_id   text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  key         text COLLATE "C" NOT NULL CHECK (key <> ''),
  name        text,
  currency    text COLLATE "C" NOT NULL CHECK (meterflow.currency_digits(currency) >= 0),
  rate        numeric NOT NULL CHECK (rate > 0 AND rate < 'Infinity'),
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key),
  UNIQUE (tenant_id, key, currency)
) USING heap;
COMMENT ON TABLE meterflow.credit_units IS 'Units of the tenant''s own (credits, tokens) that a plan''s prices can be in.';
COMMENT ON COLUMN meterflow.credit_units.rate IS 'What one unit is worth in its currency. A unit that plans use keeps it: for another rate make another unit, and a plan version with it.';

CREATE TABLE meterflow.plans (
  tenant_id       text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  key             text COLLATE "C" NOT NULL CHECK (key <> ''),
  version         integer NOT NULL DEFAULT 1 CHECK (version > 0),
  name            text,
  currency        text COLLATE "C" NOT NULL CHECK (meterflow.currency_digits(currency) >= 0),
  credit_unit     text COLLATE "C",
  interval_unit   text NOT NULL DEFAULT 'month' CHECK (interval_unit IN ('day', 'week', 'month', 'year')),
  interval_count  integer NOT NULL DEFAULT 1 CHECK (interval_count BETWEEN 1 AND 1000),
  aligned         boolean NOT NULL DEFAULT true,
  progressive     numeric[] NOT NULL DEFAULT '{}' CHECK (0 < ALL (progressive)),
  created_at      timestamptz NOT NULL DEFAULT now(),
  archived_at     timestamptz,
  PRIMARY KEY (tenant_id, key, version),
  FOREIGN KEY (tenant_id, credit_unit, currency) REFERENCES meterflow.credit_units (tenant_id, key, currency)
) USING heap;
COMMENT ON TABLE meterflow.plans IS 'What can be subscribed to, by itself or as an add-on: prices in one currency. A new version is a new row; subscriptions keep theirs.';
COMMENT ON COLUMN meterflow.plans.credit_unit IS 'Amounts in its prices are in this unit and charged at its rate, in the plan''s currency. Null: they are in that currency.';
COMMENT ON COLUMN meterflow.plans.aligned IS 'Periods follow the calendar (from the first, from Monday). False: from the subscription''s anchor, with month-end clamp.';
COMMENT ON COLUMN meterflow.plans.progressive IS 'Thresholds: as soon as the usage of an open period that is not billed yet reaches the next one, it is billed at once.';

CREATE TABLE meterflow.plan_phases (
  tenant_id     text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  plan_key      text COLLATE "C" NOT NULL,
  plan_version  integer NOT NULL DEFAULT 1,
  ordinal       integer NOT NULL CHECK (ordinal > 0),
  name          text COLLATE "C" NOT NULL CHECK (name <> ''),
  duration      interval CHECK (duration > '0'),
  free          boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, plan_key, plan_version, ordinal),
  UNIQUE (tenant_id, plan_key, plan_version, name),
  FOREIGN KEY (tenant_id, plan_key, plan_version) REFERENCES meterflow.plans (tenant_id, key, version)
) USING heap;
COMMENT ON TABLE meterflow.plan_phases IS 'What a subscription to the plan goes through: a trial (free), a ramp. They follow each other from its start; after the last there is no phase.';
COMMENT ON COLUMN meterflow.plan_phases.duration IS 'In the subscription''s time zone: 14 days, 3 months. Null: for good, which only the last can be.';
COMMENT ON COLUMN meterflow.plan_phases.free IS 'Nothing is charged for this time: usage in it is free, fees are prorated around it.';

-- What subscriptions are billed by does not change under them: their past would.
CREATE FUNCTION meterflow.guard_plan() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  place record;
BEGIN
  IF TG_TABLE_NAME = 'plans' THEN
    place := ROW(OLD.tenant_id, OLD.key, OLD.version);
  ELSIF TG_OP = 'INSERT' THEN
    place := ROW(NEW.tenant_id, NEW.plan_key, NEW.plan_version);
  ELSE
    place := ROW(OLD.tenant_id, OLD.plan_key, OLD.plan_version);
  END IF;
  IF NOT meterflow.is_restoring() AND EXISTS (SELECT FROM meterflow.subscription_items AS i WHERE ROW(i.tenant_id, i.plan_key, i.plan_version) = place) THEN
    RAISE EXCEPTION 'plan "%" is in use and can not change', place.f2 USING ERRCODE = '55000',
      DETAIL = format('Subscriptions have its version %s: its currency, periods and phases are those of what has been billed.', place.f3),
      HINT = format('Make a version to change: SELECT meterflow.clone_plan(%L).', place.f2);
  END IF;
  IF TG_TABLE_NAME = 'plan_phases' AND TG_OP <> 'DELETE' THEN
    IF EXISTS (SELECT FROM meterflow.plan_phases AS f
                WHERE (f.tenant_id, f.plan_key, f.plan_version) = (NEW.tenant_id, NEW.plan_key, NEW.plan_version)
                  AND (f.ordinal < NEW.ordinal AND f.duration IS NULL OR f.ordinal > NEW.ordinal AND NEW.duration IS NULL)) THEN
      RAISE EXCEPTION 'only the last phase of plan "%" can be for good', NEW.plan_key USING ERRCODE = '23514',
        DETAIL = 'A phase without duration never ends: no other follows it.', HINT = 'Give it a duration.';
    END IF;
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
COMMENT ON FUNCTION meterflow.guard_plan() IS 'Trigger: a plan that somebody has keeps its currency, periods and phases.';
CREATE TRIGGER guard_plan BEFORE UPDATE ON meterflow.plans FOR EACH ROW
  WHEN ((OLD.tenant_id, OLD.key, OLD.version, OLD.currency, OLD.credit_unit, OLD.interval_unit, OLD.interval_count, OLD.aligned)
        IS DISTINCT FROM (NEW.tenant_id, NEW.key, NEW.version, NEW.currency, NEW.credit_unit, NEW.interval_unit, NEW.interval_count, NEW.aligned))
  EXECUTE FUNCTION meterflow.guard_plan();

CREATE FUNCTION meterflow.guard_credit_unit() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (SELECT FROM meterflow.plans AS p JOIN meterflow.subscription_items AS i ON (i.tenant_id, i.plan_key, i.plan_version) = (p.tenant_id, p.key, p.version)
              WHERE p.tenant_id = OLD.tenant_id AND p.credit_unit = OLD.key)
     OR EXISTS (SELECT FROM meterflow.wallets AS w JOIN meterflow.credit_grants AS g ON g.tenant_id = w.tenant_id AND g.wallet_id = w.id
                 WHERE w.tenant_id = OLD.tenant_id AND w.credit_unit = OLD.key) THEN
    RAISE EXCEPTION 'credit unit "%" is in use and keeps its rate', OLD.key USING ERRCODE = '55000',
      DETAIL = format('It is %s %s; subscriptions are billed or wallets filled by it.', OLD.rate, OLD.currency),
      HINT = 'Make another unit, and with it a version of the plan: SELECT meterflow.clone_plan(...).';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.guard_credit_unit() IS 'Trigger: a credit unit that subscriptions are billed or wallets filled in keeps its rate.';
CREATE TRIGGER guard_credit_unit BEFORE UPDATE ON meterflow.credit_units FOR EACH ROW
  WHEN (OLD.rate <> NEW.rate OR OLD.key <> NEW.key) EXECUTE FUNCTION meterflow.guard_credit_unit();
CREATE TRIGGER guard_plan BEFORE INSERT OR UPDATE OR DELETE ON meterflow.plan_phases
  FOR EACH ROW EXECUTE FUNCTION meterflow.guard_plan();

CREATE TABLE meterflow.prices (
  tenant_id        text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id               bigint GENERATED BY DEFAULT AS IDENTITY,
  plan_key         text COLLATE "C" NOT NULL,
  plan_version     integer NOT NULL DEFAULT 1,
  key              text COLLATE "C" NOT NULL DEFAULT '',
  name             text,
  meter_key        text COLLATE "C",
  model            jsonb NOT NULL,
  advance          boolean NOT NULL DEFAULT false,
  once             boolean NOT NULL DEFAULT false,
  proration        text NOT NULL DEFAULT 'second' CHECK (proration IN ('second', 'day', 'none')),
  phase            text COLLATE "C",
  price_group      text COLLATE "C",
  subscription_id  bigint,
  taxes            text[],
  valid_from       timestamptz NOT NULL DEFAULT '-infinity',
  valid_to         timestamptz NOT NULL DEFAULT 'infinity',
  created_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, plan_key, plan_version) REFERENCES meterflow.plans (tenant_id, key, version),
  FOREIGN KEY (tenant_id, meter_key) REFERENCES meterflow.meters (tenant_id, key),
  CONSTRAINT prices_model_check CHECK (meterflow.check_price_text(model::text, meter_key)),
  CONSTRAINT prices_validity_check CHECK (valid_from < valid_to),
  CONSTRAINT prices_usage_check CHECK (meter_key IS NULL OR NOT (advance OR once)),
  CONSTRAINT prices_key_check CHECK (key <> '')
) USING heap;
CREATE INDEX prices_plan_idx ON meterflow.prices (tenant_id, plan_key, plan_version);
COMMENT ON TABLE meterflow.prices IS 'What a plan charges: the usage of a meter, or without a meter a fee: each period, or once.';
COMMENT ON COLUMN meterflow.prices.key IS 'Names the charge through all its prices: a price of the subscription comes before one of the customer''s price group, that before one of neither. Default: the meter, or fee-<id>.';
COMMENT ON COLUMN meterflow.prices.model IS 'For instance {"model":"per_unit","unit_amount":"0.10"} or {"model":"flat","amount":"20"}. A fee prices the subscribed quantity of its key, 1 unless set.';
COMMENT ON COLUMN meterflow.prices.advance IS 'A fee is billed as its period begins; false: when it has ended.';
COMMENT ON COLUMN meterflow.prices.once IS 'A fee is charged one time, when the plan is subscribed to.';
COMMENT ON COLUMN meterflow.prices.proration IS 'How a fee is shared out when it applies to a part of its period: by the second, by the local day, or not: then whoever has the period''s beginning is charged it all.';
COMMENT ON COLUMN meterflow.prices.phase IS 'Applies in this phase of the plan only. Null: in all.';
COMMENT ON COLUMN meterflow.prices.subscription_id IS 'An override: for this subscription only.';
COMMENT ON COLUMN meterflow.prices.valid_from IS 'Applies from this time until before valid_to. To change a price, end it and insert the next: what was charged before stays as it was.';

CREATE FUNCTION meterflow.prices_before() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  missing text;
  needs jsonb;
  meter meterflow.meters;
  changed timestamptz;
  billed record;
BEGIN
  IF TG_OP = 'INSERT' AND NEW.created_at <> now() THEN
    RETURN NEW; -- restored by pg_restore, perhaps before what it names
  END IF;
  IF TG_OP <> 'INSERT' THEN
    IF (TG_OP = 'DELETE' OR (NEW.plan_key, NEW.plan_version, NEW.key, NEW.meter_key, NEW.model, NEW.advance, NEW.once, NEW.proration, NEW.phase,
         NEW.price_group, NEW.subscription_id, NEW.valid_from) IS DISTINCT FROM (OLD.plan_key, OLD.plan_version, OLD.key, OLD.meter_key,
         OLD.model, OLD.advance, OLD.once, OLD.proration, OLD.phase, OLD.price_group, OLD.subscription_id, OLD.valid_from))
       AND EXISTS (SELECT FROM meterflow.subscription_items AS i WHERE i.tenant_id = OLD.tenant_id AND i.plan_key = OLD.plan_key
                      AND i.plan_version = OLD.plan_version) THEN
      RAISE EXCEPTION 'price "%" is in use and can not change', OLD.key USING ERRCODE = '55000',
        DETAIL = format('Subscriptions have plan "%s", version %s.', OLD.plan_key, OLD.plan_version),
        HINT = 'Set its valid_to and INSERT the price that follows: what was charged before stays as it was.';
    END IF;
    IF TG_OP = 'DELETE' THEN
      RETURN OLD;
    END IF;
  END IF;
  needs := meterflow.price_needs(NEW.model);
  IF NEW.meter_key IS NULL AND NEW.key = '' AND (needs->'meter')::boolean THEN
    RAISE EXCEPTION 'this price needs a meter' USING ERRCODE = '23514',
      DETAIL = format('It prices a quantity, and both meter_key and key are empty: %s.', NEW.model),
      HINT = 'Name the meter whose usage it prices in meter_key; or give it a key, by which subscriptions say how many they have (seats).';
  END IF;
  IF NEW.key = '' THEN
    NEW.key := coalesce(NEW.meter_key, 'fee-' || NEW.id);
  END IF;
  IF NEW.meter_key IS NOT NULL THEN
    SELECT m.* INTO meter FROM meterflow.meters AS m WHERE m.tenant_id = NEW.tenant_id AND m.key = NEW.meter_key;
    SELECT string_agg(d, ', ') INTO missing FROM jsonb_array_elements_text(needs->'dimensions') AS d WHERE d <> ALL (meter.dimensions);
    IF meter.key IS NOT NULL AND (missing IS NOT NULL OR (needs ? 'buckets' AND meter.bucket_size IS NULL)) THEN
      RAISE EXCEPTION 'meter "%" can not be priced so', NEW.meter_key USING ERRCODE = '23514',
        DETAIL = CASE WHEN missing IS NOT NULL THEN format('It lacks the dimensions %s.', missing) ELSE 'It has no buckets: its bucket_size is null.' END,
        HINT = 'Create a meter that has them, or price this one by another model.';
    END IF;
  END IF;
  IF NEW.phase IS NOT NULL AND NOT EXISTS (SELECT FROM meterflow.plan_phases AS p WHERE p.tenant_id = NEW.tenant_id
         AND p.plan_key = NEW.plan_key AND p.plan_version = NEW.plan_version AND p.name = NEW.phase) THEN
    RAISE EXCEPTION 'plan "%" has no phase "%"', NEW.plan_key, NEW.phase USING ERRCODE = '23503',
      HINT = 'INSERT INTO meterflow.plan_phases first.';
  END IF;
  SELECT string_agg(k, ', ') INTO missing FROM unnest(NEW.taxes) AS k
   WHERE NOT EXISTS (SELECT FROM meterflow.taxes AS t WHERE t.tenant_id = NEW.tenant_id AND t.key = k);
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'unknown tax of price "%"', NEW.key USING ERRCODE = '23503', DETAIL = format('Not in meterflow.taxes: %s.', missing),
      HINT = 'INSERT INTO meterflow.taxes first.';
  END IF;
  -- From when on it changes what is charged: time that has been billed would be charged anew as an adjustment.
  changed := CASE WHEN TG_OP = 'INSERT' THEN NEW.valid_from WHEN NEW.valid_to <> OLD.valid_to THEN least(NEW.valid_to, OLD.valid_to) END;
  SELECT s.id, s.billed_to INTO billed
    FROM meterflow.subscription_items AS i
    JOIN meterflow.subscriptions AS s ON s.tenant_id = i.tenant_id AND s.id = i.subscription_id
    JOIN meterflow.customers AS c ON c.tenant_id = s.tenant_id AND c.id = s.customer_id
   WHERE i.tenant_id = NEW.tenant_id AND i.plan_key = NEW.plan_key AND i.plan_version = NEW.plan_version
     AND s.billed_to > greatest(changed, i.starts_at) AND i.starts_at < NEW.valid_to
     AND (i.ends_at IS NULL OR i.ends_at > changed) AND (s.ends_at IS NULL OR s.ends_at > changed)
     AND (NEW.subscription_id IS NULL OR s.id = NEW.subscription_id) AND (NEW.price_group IS NULL OR c.price_group = NEW.price_group)
     AND changed IS NOT NULL
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'price "%" would change what has been billed', NEW.key USING ERRCODE = '55000',
      DETAIL = format('It changes charges from %s on; subscription %s is billed up to %s.', changed, billed.id, billed.billed_to),
      HINT = CASE TG_OP WHEN 'INSERT' THEN 'Set its valid_from to a time that is not billed yet.' ELSE 'End it at a time that is not billed yet, and give a credit note for what was wrong.' END;
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION meterflow.prices_before() IS 'Trigger: names a price, and keeps one that is in use from changing the past.';
CREATE TRIGGER prices_before BEFORE INSERT OR UPDATE OR DELETE ON meterflow.prices
  FOR EACH ROW EXECUTE FUNCTION meterflow.prices_before();

-- Copies a version of a plan, its phases, entitlements and its prices that are not of one subscription, and returns the new version.
CREATE FUNCTION meterflow.clone_plan(plan_key text, to_key text DEFAULT NULL, name text DEFAULT NULL, version integer DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  source meterflow.plans;
  target text := coalesce(to_key, plan_key);
  new_version integer;
BEGIN
  SELECT p.* INTO source FROM meterflow.plans AS p
   WHERE p.tenant_id = tenant AND p.key = clone_plan.plan_key AND (clone_plan.version IS NULL OR p.version = clone_plan.version)
   ORDER BY p.version DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no plan "%"', plan_key USING ERRCODE = '23503',
      DETAIL = format('Tenant "%s" has none with this key%s.', tenant, ' and version ' || version), HINT = 'SELECT key, version FROM meterflow.plans lists them.';
  END IF;
  SELECT coalesce(max(p.version), 0) + 1 INTO new_version FROM meterflow.plans AS p WHERE p.tenant_id = tenant AND p.key = target;
  INSERT INTO meterflow.plans (tenant_id, key, version, name, currency, credit_unit, interval_unit, interval_count, aligned, progressive)
  VALUES (tenant, target, new_version, coalesce(clone_plan.name, source.name), source.currency, source.credit_unit, source.interval_unit, source.interval_count, source.aligned, source.progressive);
  INSERT INTO meterflow.plan_phases (tenant_id, plan_key, plan_version, ordinal, name, duration, free)
  SELECT f.tenant_id, target, new_version, f.ordinal, f.name, f.duration, f.free
    FROM meterflow.plan_phases AS f WHERE (f.tenant_id, f.plan_key, f.plan_version) = (tenant, source.key, source.version);
  INSERT INTO meterflow.prices (tenant_id, plan_key, plan_version, key, name, meter_key, model, advance, once, proration, phase, price_group, taxes, valid_from, valid_to)
  SELECT p.tenant_id, target, new_version, p.key, p.name, p.meter_key, p.model, p.advance, p.once, p.proration, p.phase, p.price_group, p.taxes, p.valid_from, p.valid_to
    FROM meterflow.prices AS p
   WHERE (p.tenant_id, p.plan_key, p.plan_version) = (tenant, source.key, source.version) AND p.subscription_id IS NULL;
  INSERT INTO meterflow.entitlements (tenant_id, feature_key, plan_key, plan_version, enabled, value, amount, soft, reset, reset_count, reset_anchor, preserve_overage, rollover_min, rollover_max, valid_from, valid_to)
  SELECT e.tenant_id, e.feature_key, target, new_version, e.enabled, e.value, e.amount, e.soft, e.reset, e.reset_count, e.reset_anchor, e.preserve_overage, e.rollover_min, e.rollover_max, e.valid_from, e.valid_to
    FROM meterflow.entitlements AS e WHERE (e.tenant_id, e.plan_key, e.plan_version) = (tenant, source.key, source.version);
  RETURN new_version;
END $$;
COMMENT ON FUNCTION meterflow.clone_plan(text, text, text, integer) IS
  'Copies a plan with its phases, prices and entitlements: to another key, or as the next version of its own. Returns the new version. Change the copy before anyone subscribes.';

CREATE TABLE meterflow.coupons (
  tenant_id        text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  code             text COLLATE "C" NOT NULL CHECK (code <> ''),
  name             text,
  kind             text NOT NULL CHECK (kind IN ('fixed', 'percentage')),
  value            numeric NOT NULL CHECK (value > 0 AND value < 'Infinity'),
  currency         text COLLATE "C" CHECK (meterflow.currency_digits(currency) >= 0),
  level            text NOT NULL DEFAULT 'invoice' CHECK (level IN ('line', 'invoice')),
  plans            text[],
  meters           text[],
  periods          integer CHECK (periods > 0),
  max_redemptions  integer CHECK (max_redemptions > 0),
  redemptions      integer NOT NULL DEFAULT 0 CHECK (redemptions >= 0),
  valid_from       timestamptz NOT NULL DEFAULT '-infinity',
  valid_to         timestamptz NOT NULL DEFAULT 'infinity',
  created_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, code),
  CONSTRAINT coupons_fixed_check CHECK ((kind = 'fixed') = (currency IS NOT NULL)),
  CONSTRAINT coupons_percentage_check CHECK (kind = 'fixed' OR value <= 100),
  CONSTRAINT coupons_limit_check CHECK (redemptions <= max_redemptions)
) USING heap;
COMMENT ON TABLE meterflow.coupons IS 'Discounts to be redeemed by their code: redeem_coupon().';
COMMENT ON COLUMN meterflow.coupons.value IS 'Money in its currency, or percent.';
COMMENT ON COLUMN meterflow.coupons.level IS 'line: taken off each line it is for. invoice: off their sum, shared out over them.';
COMMENT ON COLUMN meterflow.coupons.plans IS 'Only lines of these plans. Null: of all.';
COMMENT ON COLUMN meterflow.coupons.meters IS 'Only lines of these meters. Null: of all.';
COMMENT ON COLUMN meterflow.coupons.periods IS 'On how many invoices it applies once redeemed: 1 is once; null is for ever. A fixed one that applies once keeps what an invoice could not take for the next.';

CREATE TABLE meterflow.coupon_redemptions (
  tenant_id        text COLLATE "C" NOT NULL DEFAULT meterflow.current_tenant(),
  id               bigint GENERATED BY DEFAULT AS IDENTITY,
  code             text COLLATE "C" NOT NULL,
  customer_id      text COLLATE "C" NOT NULL,
  subscription_id  bigint,
  redeemed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at         timestamptz,
  idempotency_key  text COLLATE "C" NOT NULL CHECK (idempotency_key <> ''),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, idempotency_key),
  FOREIGN KEY (tenant_id, code) REFERENCES meterflow.coupons (tenant_id, code),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES meterflow.customers (tenant_id, id)
) USING heap;
CREATE INDEX coupon_redemptions_customer_idx ON meterflow.coupon_redemptions (tenant_id, customer_id);
COMMENT ON TABLE meterflow.coupon_redemptions IS 'Who redeemed which coupon. What it has taken off is in invoice_discounts; setting ended_at ends it.';
COMMENT ON COLUMN meterflow.coupon_redemptions.subscription_id IS 'Only for lines of this subscription. Null: of all that the customer pays for.';

SELECT pg_catalog.pg_extension_config_dump('meterflow.billing_settings', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.taxes', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.customers', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.credit_units', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.plans', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.plan_phases', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.prices', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.prices_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.coupons', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.coupon_redemptions', '');
SELECT pg_catalog.pg_extension_config_dump('meterflow.coupon_redemptions_id_seq', '');
