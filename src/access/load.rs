//! Features with the rows that say who is entitled to what, in the snapshot of the statement.

use crate::core::calendar::{Cycle, Interval};
use crate::core::decimal::Quantity;
use crate::core::entitlement::{Id, NEVER, Renewal, Rollover, Schedule, Source};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::spi::{self, Row, See};

use super::unreckonable;

pub struct Feature {
    pub key: String,
    pub kind: Kind,
    /// Of a metered feature.
    pub meter_key: Option<String>,
    pub entitlements: Vec<Entitlement>,
    pub grants: Vec<Source>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Metered,
    Boolean,
    Static,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Metered => "metered",
            Kind::Boolean => "boolean",
            Kind::Static => "static",
        }
    }
}

/// Whose an entitlement is. A customer's own comes before those of its subscriptions, and those before their plans'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Customer,
    Subscription(i64),
    /// A plan, by key and version, that a subscription has or has as an add-on.
    Plan {
        subscription: i64,
        plan: String,
    },
}

/// An entitlement as a customer has it: a row of `entitlements`, and for one of a subscription or plan an item of the
/// timeline that brings it.
pub struct Entitlement {
    pub id: i64,
    pub holder: Holder,
    pub enabled: bool,
    pub value: Option<String>,
    pub amount: Option<Quantity>,
    pub soft: bool,
    pub preserve_overage: bool,
    pub rollover: Rollover,
    pub schedule: Schedule,
    /// What distinguishes its schedule from another's of the same entitlement: where billing periods are counted from.
    pub cycle: Option<(i64, String, i32, bool)>,
    pub valid_from: i64,
    pub valid_to: i64,
    pub created_at: i64,
    /// Of the item; without bounds for a customer's own.
    pub item: (i64, i64),
    pub add_on: bool,
    pub paused: bool,
}

/// Where calendars without an anchor are counted from.
const EPOCH: i64 = 0;

const COLUMNS: &str = "e.id, e.enabled, e.value::text AS value, e.amount::text AS amount, e.soft, e.preserve_overage, e.rollover_min::text AS rollover_min, \
    e.rollover_max::text AS rollover_max, e.reset, e.reset_count, e.reset_anchor, e.valid_from, e.valid_to, e.created_at";

const ITEMS: &str = "s.timezone, s.id AS subscription_id, greatest(i.starts_at, s.starts_at) AS starts_at, least(i.ends_at, s.ends_at) AS ends_at, \
    i.add_on, s.paused @> $3 AS paused, i.anchor, p.interval_unit, p.interval_count, p.aligned";

const OF_ITEMS: &str = "meterflow.subscriptions s \
      JOIN meterflow.subscription_items i ON i.tenant_id = s.tenant_id AND i.subscription_id = s.id \
      JOIN meterflow.plans p ON p.tenant_id = i.tenant_id AND p.key = i.plan_key AND p.version = i.plan_version";

/// One feature, or all of the tenant by key, with all that a customer has ever had or will have of them. In one order: two
/// subscriptions may bring the same entitlement, and what burns first must not be a matter of chance.
pub fn features(tenant: &str, customer: &str, feature: Option<&str>, at: i64) -> Outcome<Vec<Feature>> {
    let (which, of_feature) = match feature {
        Some(_) => ("AND f.key = $4", "AND g.feature_key = $3"),
        None => ("AND $4::text IS NULL", "AND $3::text IS NULL"),
    };
    let sql = format!(
        "SELECT f.key, f.kind, f.meter_key, h.* \
           FROM meterflow.features f LEFT JOIN LATERAL ( \
             SELECT {COLUMNS}, c.timezone, NULL::bigint AS subscription_id, '-infinity'::timestamptz AS starts_at, 'infinity'::timestamptz AS ends_at, \
                    false AS add_on, false AS paused, NULL::timestamptz AS anchor, NULL::text AS interval_unit, NULL::integer AS interval_count, NULL::boolean AS aligned, NULL::text AS plan \
               FROM meterflow.entitlements e JOIN meterflow.customers c ON c.tenant_id = e.tenant_id AND c.id = e.customer_id \
              WHERE e.tenant_id = $1 AND e.customer_id = $2 AND e.feature_key = f.key \
             UNION ALL \
             SELECT {COLUMNS}, {ITEMS}, NULL FROM {OF_ITEMS} \
               JOIN meterflow.entitlements e ON e.tenant_id = s.tenant_id AND e.subscription_id = s.id \
              WHERE s.tenant_id = $1 AND s.customer_id = $2 AND e.feature_key = f.key AND NOT i.add_on \
             UNION ALL \
             SELECT {COLUMNS}, {ITEMS}, p.key || ' ' || p.version FROM {OF_ITEMS} \
               JOIN meterflow.entitlements e ON e.tenant_id = p.tenant_id AND e.plan_key = p.key AND e.plan_version = p.version \
              WHERE s.tenant_id = $1 AND s.customer_id = $2 AND e.feature_key = f.key \
           ) h ON true \
          WHERE f.tenant_id = $1 {which} ORDER BY f.key, h.id, h.subscription_id, h.starts_at"
    );
    let mut features: Vec<Feature> = Vec::new();
    spi::run(&sql, &[tenant.into(), customer.into(), spi::time(at), feature.into()], See::Statement, |row| {
        let key = row.text(0)?;
        if features.last().is_none_or(|last| last.key != key) {
            features.push(read_feature(key, row)?);
        }
        if let Some(last) = features.last_mut().filter(|_| !row.is_null(3)) {
            last.entitlements.push(read_entitlement(row)?);
        }
        Ok(())
    })?;
    if features.iter().all(|feature| feature.kind != Kind::Metered) {
        return Ok(features);
    }
    // A reset by hand comes as a row with nothing but its time.
    let sql = format!(
        "SELECT g.feature_key, g.id, g.amount::text, g.priority, g.effective_at, g.expires_at, g.voided_at, g.recurrence, g.recurrence_count, g.recurrence_anchor, \
                g.timezone, g.rollover_min::text, g.rollover_max::text, g.created_at \
           FROM meterflow.entitlement_grants g WHERE g.tenant_id = $1 AND g.customer_id = $2 {of_feature} \
         UNION ALL \
         SELECT g.feature_key, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, g.reset_at \
           FROM meterflow.entitlement_resets g WHERE g.tenant_id = $1 AND g.customer_id = $2 {of_feature}"
    );
    spi::run(&sql, &[tenant.into(), customer.into(), feature.into()], See::Statement, |row| {
        let key = row.text(0)?;
        if let Some(feature) = features.iter_mut().find(|feature| feature.key == key) {
            if row.is_null(1) {
                let at = row.time(13)?;
                feature.entitlements.iter_mut().for_each(|one| one.schedule.also.push(at));
            } else {
                feature.grants.push(read_grant(row)?);
            }
        }
        Ok(())
    })?;
    let schedules = features.iter_mut().flat_map(|feature| &mut feature.entitlements).map(|one| &mut one.schedule);
    schedules.for_each(|schedule| schedule.also.sort_unstable());
    Ok(features)
}

/// The one feature that was asked for.
pub fn feature(tenant: &str, customer: &str, key: &str, at: i64) -> Outcome<Feature> {
    features(tenant, customer, Some(key), at)?.pop().ok_or_else(|| {
        Fail::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("feature \"{key}\" does not exist"))
            .detail(format!("Tenant {tenant:?} has no such feature."))
            .hint("SELECT key FROM meterflow.features lists them; meterflow.tenant says whose they are.")
    })
}

fn read_feature(key: String, row: &Row<'_>) -> Outcome<Feature> {
    let kind = match row.text(1)?.as_str() {
        "metered" => Kind::Metered,
        "boolean" => Kind::Boolean,
        "static" => Kind::Static,
        other => return Err(Fail::corrupt(format!("feature \"{key}\" is of kind {other:?}"))),
    };
    Ok(Feature { key, kind, meter_key: text(row, 2)?, entitlements: Vec::new(), grants: Vec::new() })
}

fn read_entitlement(row: &Row<'_>) -> Outcome<Entitlement> {
    let id = row.int8(3)?;
    let timezone = row.text(17)?;
    let (item, add_on, paused) = ((row.time(19)?, time_or_never(row, 20)?), row.bool(21)?, row.bool(22)?);
    let holder = match (row.get::<i64>(18), text(row, 27)?) {
        (Some(subscription), Some(plan)) => Holder::Plan { subscription, plan },
        (Some(subscription), None) => Holder::Subscription(subscription),
        (None, _) => Holder::Customer,
    };
    let (mut schedule, mut cycle) = (Schedule::default(), None);
    match row.text(11)?.as_str() {
        "never" => {}
        "billing_period" => {
            let (anchor, unit, count, aligned) = (row.time(23)?, row.text(24)?, row.int4(25)?, row.bool(26)?);
            let interval = Interval::parse(&unit, count).map_err(unreckonable)?;
            schedule.cycle = Some(Cycle::at(interval, anchor, aligned, &timezone).map_err(unreckonable)?);
            cycle = Some((anchor, unit, count, aligned));
        }
        unit => {
            let anchor = if row.is_null(13) { None } else { Some(row.time(13)?) };
            schedule.cycle = Some(calendar(unit, row.int4(12)?, anchor, &timezone)?);
        }
    }
    Ok(Entitlement {
        id,
        holder,
        enabled: row.bool(4)?,
        value: text(row, 5)?,
        amount: number(row, 6)?,
        soft: row.bool(7)?,
        preserve_overage: row.bool(8)?,
        rollover: Rollover { min: number(row, 9)?.unwrap_or_default(), max: number(row, 10)? },
        schedule,
        cycle,
        valid_from: row.time(14)?,
        valid_to: row.time(15)?,
        created_at: row.time(16)?,
        item,
        add_on,
        paused,
    })
}

fn read_grant(row: &Row<'_>) -> Outcome<Source> {
    let (effective_at, expires_at) = (row.time(4)?, time_or_never(row, 5)?);
    let renewal = match text(row, 7)? {
        None => Renewal::Once,
        Some(unit) => {
            let anchor = if row.is_null(9) { effective_at } else { row.time(9)? };
            let cycle = calendar(&unit, row.int4(8)?, Some(anchor), &row.text(10)?)?;
            Renewal::Restored(Schedule { cycle: Some(cycle), also: Vec::new() })
        }
    };
    Ok(Source {
        id: Id::Grant(row.int8(1)?),
        amount: number(row, 2)?,
        priority: row.int4(3)?,
        from: effective_at,
        to: time_or_never(row, 6)?.min(expires_at),
        expires_at,
        created_at: row.time(13)?,
        rollover: Rollover { min: number(row, 11)?.unwrap_or_default(), max: number(row, 12)? },
        renewal,
    })
}

/// Periods of the calendar: from the anchor's day and local time, or as the calendar has them.
fn calendar(unit: &str, count: i32, anchor: Option<i64>, timezone: &str) -> Outcome<Cycle> {
    Interval::parse(unit, count)
        .and_then(|interval| Cycle::at(interval, anchor.unwrap_or(EPOCH), anchor.is_none(), timezone))
        .map_err(unreckonable)
}

fn text(row: &Row<'_>, column: usize) -> Outcome<Option<String>> {
    if row.is_null(column) { Ok(None) } else { row.text(column).map(Some) }
}

fn number(row: &Row<'_>, column: usize) -> Outcome<Option<Quantity>> {
    let unreadable = |text: &str| Fail::corrupt(format!("the stored quantity {text} can not be read"));
    text(row, column)?.map(|text| Quantity::parse_sum(&text).map_err(|_| unreadable(&text))).transpose()
}

fn time_or_never(row: &Row<'_>, column: usize) -> Outcome<i64> {
    if row.is_null(column) { Ok(NEVER) } else { row.time(column) }
}
