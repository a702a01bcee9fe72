-- What can be done with a subscription: every change of its timeline, with its idempotency key, its reason and its place
-- in the history; and redeeming coupons for it.

-- What every verb begins with: the lock that bill_due() takes too, and the idempotency key. Null when the verb is to go
-- on, else the change that a first call with this key made.
CREATE FUNCTION meterflow.begin_change(subscription_id bigint, change text, body jsonb, idempotency_key text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  first record;
BEGIN
  IF subscription_id IS NULL OR coalesce(idempotency_key, '') = '' THEN
    RAISE EXCEPTION 'the change "%" needs a subscription_id and an idempotency_key', change USING ERRCODE = '22004',
      HINT = 'The idempotency_key names this change: a retry with the same key changes nothing more.';
  END IF;
  PERFORM FROM meterflow.subscriptions AS s WHERE s.tenant_id = tenant AND s.id = begin_change.subscription_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no subscription %', subscription_id USING ERRCODE = '23503', DETAIL = format('Tenant "%s" has none with this id.', tenant),
      HINT = 'SELECT id, customer_id FROM meterflow.subscriptions lists them.';
  END IF;
  SELECT c.id, c.subscription_id, c.change, c.details, c.changed_at INTO first FROM meterflow.subscription_changes AS c
   WHERE c.tenant_id = tenant AND c.idempotency_key = begin_change.idempotency_key;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF (first.subscription_id, first.change) IS DISTINCT FROM (begin_change.subscription_id, begin_change.change) OR first.details->'asked' IS DISTINCT FROM body THEN
    PERFORM meterflow.refuse_key(idempotency_key, format('Change %s (%s of subscription %s) of %s: %s,', first.id, first.change, first.subscription_id, first.changed_at, first.details->'asked'), 'change');
  END IF;
  RETURN first.id;
END $$;
COMMENT ON FUNCTION meterflow.begin_change(bigint, text, jsonb, text) IS 'Internal: locks a subscription and looks up the idempotency key of a change.';

-- When a change takes effect: an instant, or the end of the period that runs now.
CREATE FUNCTION meterflow.change_time(subscription_id bigint, timing text, at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s meterflow.subscriptions;
  moment timestamptz;
BEGIN
  SELECT t.* INTO s FROM meterflow.subscriptions AS t WHERE t.tenant_id = meterflow.current_tenant() AND t.id = change_time.subscription_id;
  IF timing = 'period_end' AND at IS NULL THEN
    moment := (meterflow.current_period(subscription_id, greatest(now(), s.starts_at))).period_end;
  ELSIF timing = 'now' THEN
    moment := coalesce(at, now());
  ELSE
    RAISE EXCEPTION 'unknown timing %', coalesce(quote_literal(timing), 'null') USING ERRCODE = '22023',
      HINT = 'It is ''now'', also with a time in "at", or ''period_end'' without one.';
  END IF;
  IF NOT coalesce(isfinite(moment) AND moment >= s.starts_at AND (s.ends_at IS NULL OR moment <= s.ends_at), false) THEN
    RAISE EXCEPTION 'subscription % does not run at that time', subscription_id USING ERRCODE = '22023',
      DETAIL = format('The change is for %s; the subscription runs from %s%s.', coalesce(moment::text, 'no time'), s.starts_at, ' to ' || s.ends_at),
      HINT = 'Choose a time in between.';
  END IF;
  RETURN moment;
END $$;
COMMENT ON FUNCTION meterflow.change_time(bigint, text, timestamptz) IS 'Internal: when a change of a subscription takes effect.';

-- Ends an item at a time and begins the next one in its place. Nothing may be scheduled after that time: it would be lost.
CREATE FUNCTION meterflow.replace_item(item_id bigint, at timestamptz, plan_key text, plan_version integer, quantities jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  old meterflow.subscription_items;
  from_plan meterflow.plans;
  to_plan meterflow.plans;
  next_id bigint;
BEGIN
  SELECT i.* INTO STRICT old FROM meterflow.subscription_items AS i WHERE i.tenant_id = tenant AND i.id = item_id;
  IF old.ends_at IS NOT NULL THEN
    RAISE EXCEPTION 'subscription % has another change after that time', old.subscription_id USING ERRCODE = '55000',
      DETAIL = format('Plan "%s" ends at %s by an earlier change.', old.plan_key, old.ends_at),
      HINT = 'Undo it with meterflow.cancel_scheduled_change() if it is still to come, or choose a time after it.';
  END IF;
  SELECT p.* INTO STRICT from_plan FROM meterflow.plans AS p WHERE (p.tenant_id, p.key, p.version) = (tenant, old.plan_key, old.plan_version);
  SELECT p.* INTO to_plan FROM meterflow.plans AS p
   WHERE p.tenant_id = tenant AND p.key = replace_item.plan_key AND (p.version = replace_item.plan_version OR (replace_item.plan_version IS NULL AND p.archived_at IS NULL))
   ORDER BY p.version DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no plan "%"', plan_key USING ERRCODE = '23503',
      DETAIL = format('Tenant "%s" has none with this key%s.', tenant, coalesce(' and version ' || plan_version, ' that is not archived')),
      HINT = 'SELECT key, version FROM meterflow.plans lists them.';
  END IF;
  IF to_plan.currency <> from_plan.currency THEN
    RAISE EXCEPTION 'a subscription can not change its currency' USING ERRCODE = '22023',
      DETAIL = format('Plan "%s" is in %s, plan "%s" in %s.', from_plan.key, from_plan.currency, to_plan.key, to_plan.currency),
      HINT = 'Cancel it and create another subscription.';
  END IF;
  UPDATE meterflow.subscription_items AS i SET ends_at = at WHERE i.tenant_id = tenant AND i.id = old.id;
  INSERT INTO meterflow.subscription_items AS i (tenant_id, subscription_id, plan_key, plan_version, add_on, quantities, starts_at, anchor, phases_from)
  VALUES (tenant, old.subscription_id, to_plan.key, to_plan.version, old.add_on, replace_item.quantities, at,
          CASE WHEN (from_plan.interval_unit, from_plan.interval_count, from_plan.aligned) = (to_plan.interval_unit, to_plan.interval_count, to_plan.aligned)
               THEN old.anchor ELSE at END,
          CASE WHEN to_plan.key = from_plan.key THEN old.phases_from ELSE at END)
  RETURNING i.id INTO next_id;
  RETURN next_id;
END $$;
COMMENT ON FUNCTION meterflow.replace_item(bigint, timestamptz, text, integer, jsonb) IS 'Internal: the step of a timeline from one item to the next.';

CREATE FUNCTION meterflow.base_item(subscription_id bigint, at timestamptz) RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT i.id FROM meterflow.subscription_items AS i
   WHERE i.tenant_id = meterflow.current_tenant() AND i.subscription_id = base_item.subscription_id AND NOT i.add_on
     AND i.starts_at <= base_item.at AND (i.ends_at IS NULL OR base_item.at < i.ends_at)
   ORDER BY i.starts_at DESC, i.id DESC LIMIT 1;
END;
COMMENT ON FUNCTION meterflow.base_item(bigint, timestamptz) IS 'Internal: the item of the plan itself at a time.';

CREATE FUNCTION meterflow.end_change(subscription_id bigint, change text, effective_at timestamptz, details jsonb, reason text, idempotency_key text, bill text DEFAULT 'next')
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  change_id bigint;
BEGIN
  IF bill IS NULL OR bill NOT IN ('now', 'next') THEN
    RAISE EXCEPTION 'unknown time to bill %', coalesce(quote_literal(bill), 'null') USING ERRCODE = '22023',
      HINT = 'It is ''next'', with the next invoice, or ''now'', when bill_due() next runs.';
  END IF;
  -- What ends has to be billed when it does: the subscription, or the period in which the interval changes. And a
  -- subscription that had been billed to its end may go on.
  UPDATE meterflow.subscriptions AS s
     SET next_bill_at = least(coalesce(s.next_bill_at, 'infinity'), s.ends_at,
           CASE WHEN bill = 'now' THEN greatest(end_change.effective_at, now()) END,
           CASE WHEN s.next_bill_at IS NULL THEN greatest(end_change.effective_at, now()) END,
           (SELECT min(i.starts_at) FROM meterflow.subscription_items AS i
             WHERE i.tenant_id = s.tenant_id AND i.subscription_id = s.id AND NOT i.add_on AND i.starts_at = end_change.effective_at AND i.anchor = i.starts_at))
   WHERE s.tenant_id = meterflow.current_tenant() AND s.id = end_change.subscription_id;
  INSERT INTO meterflow.subscription_changes AS c (subscription_id, change, effective_at, details, reason, idempotency_key)
  VALUES (end_change.subscription_id, end_change.change, end_change.effective_at, end_change.details, end_change.reason, end_change.idempotency_key)
  RETURNING c.id INTO change_id;
  RETURN change_id;
END $$;
COMMENT ON FUNCTION meterflow.end_change(bigint, text, timestamptz, jsonb, text, text, text) IS 'Internal: records a change of a subscription and sees to it that it is billed.';

CREATE FUNCTION meterflow.change_plan(subscription_id bigint, plan_key text, idempotency_key text, timing text DEFAULT 'now', at timestamptz DEFAULT NULL,
                                      plan_version integer DEFAULT NULL, reason text DEFAULT NULL, bill text DEFAULT 'next') RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  asked CONSTANT jsonb := jsonb_build_object('plan', plan_key, 'version', plan_version, 'timing', timing, 'at', at AT TIME ZONE 'UTC');
  done bigint := meterflow.begin_change(subscription_id, 'plan', asked, idempotency_key);
  moment timestamptz;
  old meterflow.subscription_items;
  new_id bigint;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  moment := meterflow.change_time(subscription_id, timing, at);
  SELECT i.* INTO old FROM meterflow.subscription_items AS i
   WHERE i.tenant_id = meterflow.current_tenant() AND i.id = meterflow.base_item(change_plan.subscription_id, moment);
  IF old.plan_key = plan_key AND old.plan_version = coalesce(change_plan.plan_version, old.plan_version) THEN
    RAISE EXCEPTION 'subscription % has plan "%" already', subscription_id, plan_key USING ERRCODE = '22023',
      DETAIL = format('It has version %s of it at %s.', old.plan_version, moment), HINT = 'Name a plan_version to change to another version.';
  END IF;
  new_id := meterflow.replace_item(old.id, moment, plan_key, plan_version, old.quantities);
  RETURN meterflow.end_change(subscription_id, 'plan', moment, jsonb_build_object('asked', asked, 'from', old.plan_key, 'from_version', old.plan_version, 'item', new_id), reason, idempotency_key, bill);
END $$;
COMMENT ON FUNCTION meterflow.change_plan(bigint, text, text, text, timestamptz, integer, text, text) IS
  'Changes the plan of a subscription now, at a time or at period_end; returns the id of the change. What was billed in advance is credited for the rest of its period, the new plan is charged for it, on the next invoice or (bill => ''now'') on one of its own.';

CREATE FUNCTION meterflow.change_quantity(subscription_id bigint, price_key text, quantity numeric, idempotency_key text, timing text DEFAULT 'now',
                                          at timestamptz DEFAULT NULL, reason text DEFAULT NULL, bill text DEFAULT 'next') RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  asked CONSTANT jsonb := jsonb_build_object('price', price_key, 'quantity', trim_scale(quantity), 'timing', timing, 'at', at AT TIME ZONE 'UTC');
  done bigint := meterflow.begin_change(subscription_id, 'quantity', asked, idempotency_key);
  moment timestamptz;
  old meterflow.subscription_items;
  new_id bigint;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  IF quantity IS NULL OR quantity < 0 OR quantity IN ('NaN', 'Infinity') THEN
    RAISE EXCEPTION 'a quantity must be a number that is not below zero' USING ERRCODE = '22023', DETAIL = format('It is %s.', coalesce(quantity::text, 'null')),
      HINT = 'To stop being charged remove the add-on or cancel the subscription.';
  END IF;
  moment := meterflow.change_time(subscription_id, timing, at);
  SELECT i.* INTO old FROM meterflow.subscription_items AS i
   WHERE i.tenant_id = meterflow.current_tenant() AND i.subscription_id = change_quantity.subscription_id
     AND i.starts_at <= moment AND (i.ends_at IS NULL OR moment < i.ends_at)
     AND EXISTS (SELECT FROM meterflow.prices AS p WHERE (p.tenant_id, p.plan_key, p.plan_version, p.key) = (i.tenant_id, i.plan_key, i.plan_version, price_key) AND p.meter_key IS NULL)
   ORDER BY i.add_on, i.id LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'subscription % has no fee "%"', subscription_id, price_key USING ERRCODE = '22023',
      DETAIL = 'Quantities are of fees; usage has its own.', HINT = 'Use the key of a price without a meter of its plan or add-ons.';
  END IF;
  new_id := meterflow.replace_item(old.id, moment, old.plan_key, old.plan_version, old.quantities || jsonb_build_object(price_key, trim_scale(quantity)));
  RETURN meterflow.end_change(subscription_id, 'quantity', moment, jsonb_build_object('asked', asked, 'from', coalesce(old.quantities->price_key, '1'), 'item', new_id), reason, idempotency_key, bill);
END $$;
COMMENT ON FUNCTION meterflow.change_quantity(bigint, text, numeric, text, text, timestamptz, text, text) IS
  'Sets how many (seats, units) of a fee are subscribed to; returns the id of the change. Prorated like a change of plan.';

CREATE FUNCTION meterflow.add_add_on(subscription_id bigint, plan_key text, idempotency_key text, timing text DEFAULT 'now', at timestamptz DEFAULT NULL,
                                     plan_version integer DEFAULT NULL, quantities jsonb DEFAULT '{}', reason text DEFAULT NULL, bill text DEFAULT 'next') RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  asked CONSTANT jsonb := jsonb_build_object('plan', plan_key, 'version', plan_version, 'quantities', quantities, 'timing', timing, 'at', at AT TIME ZONE 'UTC');
  done bigint := meterflow.begin_change(subscription_id, 'add-on', asked, idempotency_key);
  moment timestamptz;
  base record;
  added meterflow.plans;
  new_id bigint;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  moment := meterflow.change_time(subscription_id, timing, at);
  SELECT i.anchor, p.currency INTO base FROM meterflow.subscription_items AS i
    JOIN meterflow.plans AS p ON (p.tenant_id, p.key, p.version) = (i.tenant_id, i.plan_key, i.plan_version)
   WHERE i.tenant_id = tenant AND i.id = meterflow.base_item(add_add_on.subscription_id, moment);
  SELECT p.* INTO added FROM meterflow.plans AS p
   WHERE p.tenant_id = tenant AND p.key = add_add_on.plan_key AND (p.version = add_add_on.plan_version OR (add_add_on.plan_version IS NULL AND p.archived_at IS NULL))
   ORDER BY p.version DESC LIMIT 1;
  IF NOT FOUND OR added.currency <> base.currency THEN
    RAISE EXCEPTION 'plan "%" can not be added to subscription %', plan_key, subscription_id USING ERRCODE = '22023',
      DETAIL = CASE WHEN added.key IS NULL THEN format('Tenant "%s" has no such plan.', tenant) ELSE format('It is in %s, the subscription in %s.', added.currency, base.currency) END,
      HINT = 'SELECT key, version, currency FROM meterflow.plans lists them.';
  END IF;
  INSERT INTO meterflow.subscription_items AS i (tenant_id, subscription_id, plan_key, plan_version, add_on, quantities, starts_at, anchor, phases_from)
  VALUES (tenant, add_add_on.subscription_id, added.key, added.version, true, coalesce(add_add_on.quantities, '{}'), moment, base.anchor, moment)
  RETURNING i.id INTO new_id;
  RETURN meterflow.end_change(subscription_id, 'add-on', moment, jsonb_build_object('asked', asked, 'item', new_id), reason, idempotency_key, bill);
END $$;
COMMENT ON FUNCTION meterflow.add_add_on(bigint, text, text, text, timestamptz, integer, jsonb, text, text) IS
  'Adds a plan beside that of a subscription; it is charged by the subscription''s periods. Returns the id of the change.';

CREATE FUNCTION meterflow.remove_add_on(subscription_id bigint, plan_key text, idempotency_key text, timing text DEFAULT 'now', at timestamptz DEFAULT NULL,
                                        reason text DEFAULT NULL, bill text DEFAULT 'next') RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  asked CONSTANT jsonb := jsonb_build_object('plan', plan_key, 'timing', timing, 'at', at AT TIME ZONE 'UTC');
  done bigint := meterflow.begin_change(subscription_id, 'remove add-on', asked, idempotency_key);
  moment timestamptz;
  removed bigint;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  moment := meterflow.change_time(subscription_id, timing, at);
  UPDATE meterflow.subscription_items AS i SET ends_at = moment
   WHERE i.tenant_id = meterflow.current_tenant() AND i.id = (
         SELECT o.id FROM meterflow.subscription_items AS o
          WHERE o.tenant_id = meterflow.current_tenant() AND o.subscription_id = remove_add_on.subscription_id AND o.add_on
            AND o.plan_key = remove_add_on.plan_key AND o.ends_at IS NULL AND o.starts_at <= moment
          ORDER BY o.starts_at DESC, o.id DESC LIMIT 1)
  RETURNING i.id INTO removed;
  IF removed IS NULL THEN
    RAISE EXCEPTION 'subscription % has no add-on "%" at that time', subscription_id, plan_key USING ERRCODE = '22023', DETAIL = format('Asked for %s.', moment),
      HINT = 'SELECT * FROM meterflow.subscription_items WHERE add_on lists them.';
  END IF;
  RETURN meterflow.end_change(subscription_id, 'remove add-on', moment, jsonb_build_object('asked', asked, 'item', removed), reason, idempotency_key, bill);
END $$;
COMMENT ON FUNCTION meterflow.remove_add_on(bigint, text, text, text, timestamptz, text, text) IS 'Ends an add-on of a subscription; returns the id of the change.';

CREATE FUNCTION meterflow.cancel_scheduled_change(subscription_id bigint, idempotency_key text, reason text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  done bigint := meterflow.begin_change(subscription_id, 'cancel scheduled', '{}', idempotency_key);
  undone jsonb;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  -- Items to come were never charged; their predecessors go on.
  WITH gone AS (
    DELETE FROM meterflow.subscription_items AS i
     WHERE i.tenant_id = tenant AND i.subscription_id = cancel_scheduled_change.subscription_id AND i.starts_at > now()
       AND NOT EXISTS (SELECT FROM meterflow.invoice_lines AS l WHERE l.tenant_id = i.tenant_id AND l.subscription_id = i.subscription_id AND l.item_id = i.id)
       AND i.starts_at > (SELECT s.starts_at FROM meterflow.subscriptions AS s WHERE s.tenant_id = tenant AND s.id = cancel_scheduled_change.subscription_id)
    RETURNING i.id, i.plan_key, i.starts_at, i.add_on)
  SELECT jsonb_agg(to_jsonb(g)) INTO undone FROM gone AS g;
  WITH reopened AS (
    UPDATE meterflow.subscription_items AS i SET ends_at = NULL
     WHERE i.tenant_id = tenant AND i.subscription_id = cancel_scheduled_change.subscription_id AND i.ends_at > now()
    RETURNING i.id, i.plan_key, i.add_on)
  SELECT coalesce(undone, '[]') || coalesce(jsonb_agg(to_jsonb(r)), '[]') INTO undone FROM reopened AS r;
  IF undone = '[]' THEN
    RAISE EXCEPTION 'subscription % has no change that is still to come', subscription_id USING ERRCODE = '55000',
      HINT = 'SELECT * FROM meterflow.subscription_items shows its timeline.';
  END IF;
  RETURN meterflow.end_change(subscription_id, 'cancel scheduled', now(), jsonb_build_object('asked', '{}'::jsonb, 'undone', undone), reason, idempotency_key);
END $$;
COMMENT ON FUNCTION meterflow.cancel_scheduled_change(bigint, text, text) IS 'Takes back the changes of plan, quantity and add-ons that are still to come; returns the id of this change.';

CREATE FUNCTION meterflow.pause_subscription(subscription_id bigint, idempotency_key text, timing text DEFAULT 'now', at timestamptz DEFAULT NULL,
                                             until timestamptz DEFAULT NULL, reason text DEFAULT NULL, bill text DEFAULT 'next') RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  asked CONSTANT jsonb := jsonb_build_object('timing', timing, 'at', at AT TIME ZONE 'UTC', 'until', until AT TIME ZONE 'UTC');
  done bigint := meterflow.begin_change(subscription_id, 'pause', asked, idempotency_key);
  moment timestamptz;
  s meterflow.subscriptions;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  moment := meterflow.change_time(subscription_id, timing, at);
  SELECT t.* INTO s FROM meterflow.subscriptions AS t WHERE t.tenant_id = tenant AND t.id = pause_subscription.subscription_id;
  IF until <= moment THEN
    RAISE EXCEPTION 'a pause must end after it begins' USING ERRCODE = '22023', DETAIL = format('It is to begin at %s and end at %s.', moment, until),
      HINT = 'Leave "until" out to pause until resume_subscription().';
  END IF;
  IF s.paused && tstzrange(moment, nullif(until, 'infinity')) THEN
    RAISE EXCEPTION 'subscription % is paused at that time already', subscription_id USING ERRCODE = '55000', DETAIL = format('Its pauses are %s.', s.paused),
      HINT = 'Resume it first.';
  END IF;
  UPDATE meterflow.subscriptions AS t SET paused = t.paused + tstzmultirange(tstzrange(moment, nullif(until, 'infinity')))
   WHERE t.tenant_id = tenant AND t.id = pause_subscription.subscription_id;
  RETURN meterflow.end_change(subscription_id, 'pause', moment, jsonb_build_object('asked', asked), reason, idempotency_key, bill);
END $$;
COMMENT ON FUNCTION meterflow.pause_subscription(bigint, text, text, timestamptz, timestamptz, text, text) IS
  'Pauses a subscription: neither fees nor usage of the pause are charged; periods go on. Ends at "until", or by resume_subscription(). Returns the id of the change.';

CREATE FUNCTION meterflow.resume_subscription(subscription_id bigint, idempotency_key text, at timestamptz DEFAULT NULL, reason text DEFAULT NULL, bill text DEFAULT 'next') RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  asked CONSTANT jsonb := jsonb_build_object('at', at AT TIME ZONE 'UTC');
  done bigint := meterflow.begin_change(subscription_id, 'resume', asked, idempotency_key);
  moment timestamptz;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  moment := meterflow.change_time(subscription_id, 'now', at);
  -- A pause that is still to come is taken back by resuming at or before its beginning.
  UPDATE meterflow.subscriptions AS t SET paused = t.paused - tstzmultirange(tstzrange(moment, NULL))
   WHERE t.tenant_id = tenant AND t.id = resume_subscription.subscription_id AND t.paused && tstzrange(moment, NULL);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'subscription % is not paused then or later', subscription_id USING ERRCODE = '55000', DETAIL = format('Asked for %s.', moment),
      HINT = 'SELECT paused FROM meterflow.subscriptions shows its pauses.';
  END IF;
  RETURN meterflow.end_change(subscription_id, 'resume', moment, jsonb_build_object('asked', asked), reason, idempotency_key, bill);
END $$;
COMMENT ON FUNCTION meterflow.resume_subscription(bigint, text, timestamptz, text, text) IS 'Ends the pause of a subscription, and takes back pauses still to come; returns the id of the change.';

CREATE FUNCTION meterflow.cancel_subscription(subscription_id bigint, idempotency_key text, timing text DEFAULT 'now', at timestamptz DEFAULT NULL,
                                              reason text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  asked CONSTANT jsonb := jsonb_build_object('timing', timing, 'at', at AT TIME ZONE 'UTC');
  done bigint := meterflow.begin_change(subscription_id, 'cancel', asked, idempotency_key);
  moment timestamptz;
  s meterflow.subscriptions;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  SELECT t.* INTO s FROM meterflow.subscriptions AS t WHERE t.tenant_id = tenant AND t.id = cancel_subscription.subscription_id;
  IF s.ends_at <= now() THEN
    RAISE EXCEPTION 'subscription % has ended', subscription_id USING ERRCODE = '55000', DETAIL = format('It ended at %s.', s.ends_at), HINT = 'There is nothing to cancel.';
  END IF;
  IF timing = 'now' AND at IS NULL AND now() < s.starts_at THEN
    moment := s.starts_at; -- before it began: it never runs
  ELSE
    moment := meterflow.change_time(subscription_id, timing, at);
  END IF;
  UPDATE meterflow.subscriptions AS t SET ends_at = moment WHERE t.tenant_id = tenant AND t.id = cancel_subscription.subscription_id;
  RETURN meterflow.end_change(subscription_id, 'cancel', moment, jsonb_build_object('asked', asked), reason, idempotency_key);
END $$;
COMMENT ON FUNCTION meterflow.cancel_subscription(bigint, text, text, timestamptz, text) IS
  'Ends a subscription now, at a time or at period_end; returns the id of the change. Usage until then is billed, what was billed in advance for later is credited.';

CREATE FUNCTION meterflow.uncancel_subscription(subscription_id bigint, idempotency_key text, reason text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  done bigint := meterflow.begin_change(subscription_id, 'uncancel', '{}', idempotency_key);
  s meterflow.subscriptions;
BEGIN
  IF done IS NOT NULL THEN
    RETURN done;
  END IF;
  SELECT t.* INTO s FROM meterflow.subscriptions AS t WHERE t.tenant_id = tenant AND t.id = uncancel_subscription.subscription_id;
  IF s.ends_at IS NULL OR s.ends_at <= now() THEN
    RAISE EXCEPTION 'subscription % can not be taken up again', subscription_id USING ERRCODE = '55000',
      DETAIL = CASE WHEN s.ends_at IS NULL THEN 'It has not been cancelled.' ELSE format('It ended at %s.', s.ends_at) END,
      HINT = 'Create a new subscription for a customer who comes back.';
  END IF;
  UPDATE meterflow.subscriptions AS t SET ends_at = NULL WHERE t.tenant_id = tenant AND t.id = uncancel_subscription.subscription_id;
  RETURN meterflow.end_change(subscription_id, 'uncancel', now(), jsonb_build_object('asked', '{}'::jsonb, 'had_ended_at', s.ends_at), reason, idempotency_key);
END $$;
COMMENT ON FUNCTION meterflow.uncancel_subscription(bigint, text, text) IS 'Takes back a cancellation that is still to come; returns the id of the change.';

CREATE FUNCTION meterflow.redeem_coupon(customer_id text, code text, idempotency_key text, subscription_id bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := meterflow.current_tenant();
  first meterflow.coupon_redemptions;
  c meterflow.coupons;
  payer text;
  redemption bigint;
BEGIN
  IF customer_id IS NULL OR code IS NULL OR coalesce(idempotency_key, '') = '' THEN
    RAISE EXCEPTION 'redeem_coupon needs a customer_id, a code and an idempotency_key' USING ERRCODE = '22004', HINT = 'The key makes a retry redeem it once.';
  END IF;
  -- The lock counts redemptions: of two sessions after the last one, the second waits and is refused.
  SELECT t.* INTO c FROM meterflow.coupons AS t WHERE t.tenant_id = tenant AND t.code = redeem_coupon.code FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no coupon "%"', code USING ERRCODE = '23503', DETAIL = format('Tenant "%s" has none with this code.', tenant), HINT = 'Codes are told apart by case.';
  END IF;
  SELECT r.* INTO first FROM meterflow.coupon_redemptions AS r WHERE r.tenant_id = tenant AND r.idempotency_key = redeem_coupon.idempotency_key;
  IF FOUND THEN
    IF (first.code, first.customer_id, first.subscription_id) IS DISTINCT FROM (redeem_coupon.code, redeem_coupon.customer_id, redeem_coupon.subscription_id) THEN
      PERFORM meterflow.refuse_key(idempotency_key, format('Redemption %s of coupon "%s" by customer "%s"', first.id, first.code, first.customer_id), 'redemption');
    END IF;
    RETURN first.id;
  END IF;
  -- A discount is for who pays: elsewhere it would never be seen.
  IF NOT EXISTS (SELECT FROM meterflow.customers AS t WHERE t.tenant_id = tenant AND t.id = redeem_coupon.customer_id) THEN
    RAISE EXCEPTION 'there is no customer "%"', customer_id USING ERRCODE = '23503',
      DETAIL = format('Tenant "%s" has none with this id.', tenant), HINT = 'INSERT INTO meterflow.customers (id) first.';
  END IF;
  SELECT t.payer_id INTO payer FROM meterflow.customers AS t WHERE t.tenant_id = tenant AND t.id = redeem_coupon.customer_id;
  IF payer IS NOT NULL THEN
    RAISE EXCEPTION 'customer "%" gets no invoices', customer_id USING ERRCODE = '22023', DETAIL = format('Its payer is "%s".', payer),
      HINT = 'Redeem it for the payer, and for one subscription if it is not for all.';
  END IF;
  IF subscription_id IS NOT NULL AND NOT EXISTS (
       SELECT FROM meterflow.subscriptions AS s JOIN meterflow.customers AS t ON (t.tenant_id, t.id) = (s.tenant_id, s.customer_id)
        WHERE s.tenant_id = tenant AND s.id = redeem_coupon.subscription_id AND coalesce(t.payer_id, t.id) = redeem_coupon.customer_id) THEN
    RAISE EXCEPTION 'subscription % is not paid for by customer "%"', subscription_id, customer_id USING ERRCODE = '22023',
      DETAIL = 'The coupon would never apply.', HINT = 'SELECT id, customer_id FROM meterflow.subscriptions lists them.';
  END IF;
  IF now() < c.valid_from OR now() >= c.valid_to OR c.redemptions >= c.max_redemptions THEN
    RAISE EXCEPTION 'coupon "%" can not be redeemed', code USING ERRCODE = '55000',
      DETAIL = CASE WHEN c.redemptions >= c.max_redemptions THEN format('It has been redeemed %s times, which is all.', c.redemptions)
                    ELSE format('It is valid from %s to %s.', c.valid_from, c.valid_to) END, HINT = 'Raise its max_redemptions or valid_to if it should be.';
  END IF;
  INSERT INTO meterflow.coupon_redemptions AS r (tenant_id, code, customer_id, subscription_id, idempotency_key)
  VALUES (tenant, c.code, redeem_coupon.customer_id, redeem_coupon.subscription_id, redeem_coupon.idempotency_key)
  RETURNING r.id INTO redemption;
  UPDATE meterflow.coupons AS t SET redemptions = t.redemptions + 1 WHERE t.tenant_id = tenant AND t.code = c.code;
  RETURN redemption;
END $$;
COMMENT ON FUNCTION meterflow.redeem_coupon(text, text, text, bigint) IS 'Redeems a coupon for a customer, or one subscription; its next invoices have the discount. Returns the id of the redemption.';
