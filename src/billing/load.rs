//! Subscriptions with their timelines, and plans with their prices, read from the catalogue.

use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;

use crate::core::calendar::{CalendarError, Interval};
use crate::core::currency;
use crate::core::pricing::{Amount, Model};
use crate::core::proration::Method;
use crate::core::ranges::Ranges;
use crate::core::subscription::{Charge, Item, Length, NEVER, Phase, Plan, Price, Rank, Subscription};
use crate::ledger::tables::PAID_FOR;
use crate::pg::error::{Fail, Outcome};
use crate::pg::scan::{Is, Reader, Value};
use crate::pg::spi::{self, Row, See};
use crate::rating::models;

use super::tables;

/// Whose subscriptions.
#[derive(Clone, Copy)]
pub enum Whose<'a> {
    /// Of one customer, whoever pays.
    Customer(&'a str),
    /// All that this customer pays for.
    Payer(&'a str),
    Subscription(i64),
}

/// A subscription with all that its charges are computed from.
pub struct Account {
    pub timeline: Subscription,
    /// What `Item::plan` counts, and for each plan what its prices charge.
    pub plans: Vec<Plan>,
    pub terms: Vec<PlanTerms>,
    pub currency: String,
    pub digits: u32,
    /// Everything that begins or ends until then has been billed; None when nothing has been.
    pub billed_to: Option<i64>,
    pub next_bill_at: Option<i64>,
}

pub struct PlanTerms {
    /// What a unit of its prices is worth in its currency; None when they are in money.
    pub credit_rate: Option<Amount>,
    pub progressive: Vec<Amount>,
    pub prices: Vec<PriceTerms>,
}

pub struct PriceTerms {
    pub name: Option<String>,
    pub meter_key: Option<String>,
    /// As stored, to be kept with what it has charged.
    pub model_text: String,
    pub model: Rc<Model>,
    pub proration: Method,
    pub proration_text: String,
    pub taxes: Option<Vec<String>>,
}

pub fn accounts(tenant: &str, whose: Whose<'_>) -> Outcome<Vec<Account>> {
    let (condition, argument): (&str, DatumWithOid<'_>) = match whose {
        Whose::Customer(id) => ("s.customer_id = $2", id.into()),
        Whose::Payer(id) => return paid_by(tenant, id),
        Whose::Subscription(id) => ("s.id = $2", id.into()),
    };
    let sql = format!(
        "SELECT s.id, s.customer_id, s.starts_at, s.ends_at, s.timezone, s.billed_to, \
                CASE WHEN s.paused <> '{{}}' THEN ARRAY(SELECT coalesce(extract(epoch FROM lower(r)) * 1000000, '-9223372036854775808')::bigint FROM unnest(s.paused) r) END, \
                CASE WHEN s.paused <> '{{}}' THEN ARRAY(SELECT coalesce(extract(epoch FROM upper(r)) * 1000000, '9223372036854775807')::bigint FROM unnest(s.paused) r) END, \
                c.price_group, i.id, i.plan_key, i.plan_version, i.add_on, i.starts_at, i.ends_at, i.anchor, i.phases_from, i.quantities::text, s.next_bill_at \
           FROM meterflow.subscriptions s \
           JOIN meterflow.subscription_items i ON i.tenant_id = s.tenant_id AND i.subscription_id = s.id \
           JOIN meterflow.customers c ON c.tenant_id = s.tenant_id AND c.id = s.customer_id \
          WHERE s.tenant_id = $1 AND {condition} ORDER BY s.id, i.starts_at, i.id"
    );
    let mut found: Vec<Found> = Vec::new();
    spi::run(&sql, &[tenant.into(), argument], See::Statement, |row| {
        let id = row.int8(0)?;
        if found.last().is_none_or(|last| last.timeline.id != id) {
            found.push(Found::read(id, row)?);
        }
        let Some(last) = found.last_mut() else { return Ok(()) };
        last.item(row)
    })?;
    found.into_iter().map(|found| found.complete(tenant)).collect()
}

/// Customer by customer: for a join with those that it pays for, a plan made before there are statistics goes through all
/// subscriptions of the tenant.
fn paid_by(tenant: &str, payer: &str) -> Outcome<Vec<Account>> {
    let mut found = Vec::new();
    for customer in &customers_of(tenant, payer)? {
        found.extend(accounts(tenant, Whose::Customer(customer))?);
    }
    found.sort_by_key(|account| account.timeline.id);
    Ok(found)
}

/// Whom a customer pays for: itself, unless another does, and those that name it.
pub fn customers_of(tenant: &str, payer: &str) -> Outcome<Vec<String>> {
    let of = [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Text(payer))];
    let mut customers = Vec::new();
    Reader::open(&tables::CUSTOMERS)?.rows(&of, |row| {
        if row.is_null(0) {
            customers.push(payer.to_string());
        }
        Ok(())
    })?;
    Reader::open(&PAID_FOR)?.rows(&of, |row| {
        customers.push(row.text(0)?);
        Ok(())
    })?;
    Ok(customers)
}

pub fn plan_currency(tenant: &str, key: &str, version: i32) -> Outcome<Option<String>> {
    let plan =
        [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Text(key)), (2, Is::Equal, Value::Int4(version))];
    let mut currency = None;
    Reader::open(&tables::PLANS)?.rows(&plan, |row| {
        currency = Some(row.text(0)?);
        Ok(())
    })?;
    Ok(currency)
}

/// A subscription before its plans are read.
struct Found {
    timeline: Subscription,
    billed_to: Option<i64>,
    next_bill_at: Option<i64>,
    price_group: Option<String>,
    plans: Vec<(String, i32)>,
}

impl Found {
    fn read(id: i64, row: &Row<'_>) -> Outcome<Found> {
        let paused = match (row.get::<Vec<i64>>(6), row.get::<Vec<i64>>(7)) {
            (Some(from), Some(to)) => Ranges::union(from.into_iter().zip(to).collect()),
            _ => Ranges::default(),
        };
        Ok(Found {
            timeline: Subscription {
                id,
                customer: row.text(1)?,
                starts_at: row.time(2)?,
                ends_at: time_or_never(row, 3)?,
                timezone: row.text(4)?,
                paused,
                items: Vec::new(),
            },
            billed_to: if row.is_null(5) { None } else { Some(row.time(5)?) },
            next_bill_at: if row.is_null(18) { None } else { Some(row.time(18)?) },
            price_group: if row.is_null(8) { None } else { Some(row.text(8)?) },
            plans: Vec::new(),
        })
    }

    fn item(&mut self, row: &Row<'_>) -> Outcome<()> {
        let version = (row.text(10)?, row.int4(11)?);
        let plan = self.plans.iter().position(|known| *known == version).unwrap_or_else(|| {
            self.plans.push(version);
            self.plans.len() - 1
        });
        self.timeline.items.push(Item {
            id: row.int8(9)?,
            plan,
            add_on: row.bool(12)?,
            starts_at: row.time(13)?,
            ends_at: time_or_never(row, 14)?,
            anchor: row.time(15)?,
            phases_from: row.time(16)?,
            quantities: quantities(&row.text(17)?)?,
        });
        Ok(())
    }

    fn complete(self, tenant: &str) -> Outcome<Account> {
        let (mut plans, mut terms, mut currency) = (Vec::new(), Vec::new(), String::new());
        for (key, version) in &self.plans {
            let (mut plan, mut plan_terms, plan_currency) = plan(tenant, key, *version)?;
            self.prices(tenant, key, *version, |price, price_terms| {
                plan.prices.push(price);
                plan_terms.prices.push(price_terms);
            })?;
            plans.push(plan);
            terms.push(plan_terms);
            currency = plan_currency;
        }
        let digits = currency::digits(&currency)
            .map_err(|error| Fail::corrupt(format!("the currency of a plan can not be used: {error}")))?;
        Ok(Account {
            timeline: self.timeline,
            plans,
            terms,
            currency,
            digits,
            billed_to: self.billed_to,
            next_bill_at: self.next_bill_at,
        })
    }

    fn prices(
        &self,
        tenant: &str,
        plan_key: &str,
        version: i32,
        mut each: impl FnMut(Price, PriceTerms),
    ) -> Outcome<()> {
        spi::run(
            "SELECT id, key, name, meter_key, model::text, advance, once, proration, phase, price_group, subscription_id, taxes, valid_from, valid_to \
               FROM meterflow.prices WHERE tenant_id = $1 AND plan_key = $2 AND plan_version = $3 \
                AND (subscription_id IS NULL OR subscription_id = $4) AND (price_group IS NULL OR price_group = $5) ORDER BY id",
            &[
                tenant.into(),
                plan_key.into(),
                version.into(),
                self.timeline.id.into(),
                self.price_group.as_deref().into(),
            ],
            See::Statement,
            |row| {
                let text = |column: usize| if row.is_null(column) { Ok(None) } else { row.text(column).map(Some) };
                let (meter_key, model_text, proration_text) = (text(3)?, row.text(4)?, row.text(7)?);
                let charge = match (&meter_key, row.bool(5)?, row.bool(6)?) {
                    (Some(_), _, _) => Charge::Usage,
                    (None, _, true) => Charge::Once,
                    (None, true, false) => Charge::Advance,
                    (None, false, false) => Charge::Arrears,
                };
                let rank = match (row.is_null(10), row.is_null(9)) {
                    (false, _) => Rank::Override,
                    (true, false) => Rank::Group,
                    (true, true) => Rank::Plan,
                };
                let price = Price {
                    id: row.int8(0)?,
                    key: row.text(1)?,
                    rank,
                    phase: text(8)?,
                    valid_from: row.time(12)?,
                    valid_to: row.time(13)?,
                    charge,
                };
                let proration = Method::parse(&proration_text)
                    .ok_or_else(|| Fail::corrupt(format!("price {} has no proration {proration_text:?}", price.id)))?;
                let model = models::of_text(&model_text)?;
                each(
                    price,
                    PriceTerms {
                        name: text(2)?,
                        meter_key,
                        model_text,
                        model,
                        proration,
                        proration_text,
                        taxes: row.get(11),
                    },
                );
                Ok(())
            },
        )?;
        Ok(())
    }
}

fn plan(tenant: &str, key: &str, version: i32) -> Outcome<(Plan, PlanTerms, String)> {
    let found = spi::one(
        "SELECT p.currency, p.interval_unit, p.interval_count, p.aligned, \
                CASE WHEN p.progressive <> '{}' THEN p.progressive::text[] END, \
                CASE WHEN p.credit_unit IS NOT NULL THEN (SELECT u.rate::text FROM meterflow.credit_units u WHERE u.tenant_id = p.tenant_id AND u.key = p.credit_unit) END, \
                EXISTS (SELECT FROM meterflow.plan_phases f WHERE f.tenant_id = p.tenant_id AND f.plan_key = p.key AND f.plan_version = p.version) \
           FROM meterflow.plans p WHERE p.tenant_id = $1 AND p.key = $2 AND p.version = $3",
        &[tenant.into(), key.into(), version.into()],
        See::Statement,
        |row| {
            let interval = Interval::parse(&row.text(1)?, row.int4(2)?).map_err(unreckonable)?;
            let progressive = row
                .get::<Vec<String>>(4)
                .unwrap_or_default()
                .iter()
                .map(|text| {
                    Amount::parse(text)
                        .map_err(|error| Fail::corrupt(format!("threshold {text} of plan \"{key}\": {error}")))
                })
                .collect::<Outcome<Vec<_>>>()?;
            let plan =
                Plan { key: key.to_string(), interval, aligned: row.bool(3)?, phases: Vec::new(), prices: Vec::new() };
            let credit_rate = if row.is_null(5) { None } else { Some(row.text(5)?) };
            let credit_rate = credit_rate
                .map(|rate| {
                    Amount::parse(&rate)
                        .map_err(|error| Fail::corrupt(format!("the credit unit of plan \"{key}\": {error}")))
                })
                .transpose()?;
            Ok((plan, PlanTerms { credit_rate, progressive, prices: Vec::new() }, row.text(0)?, row.bool(6)?))
        },
    )?;
    let (mut plan, terms, currency, phased) =
        found.ok_or_else(|| Fail::corrupt(format!("plan \"{key}\", version {version}, does not exist")))?;
    if !phased {
        return Ok((plan, terms, currency));
    }
    spi::run(
        "SELECT name, free, duration FROM meterflow.plan_phases \
          WHERE tenant_id = $1 AND plan_key = $2 AND plan_version = $3 ORDER BY ordinal",
        &[tenant.into(), key.into(), version.into()],
        See::Statement,
        |row| {
            let length = row.get::<pgrx::datum::Interval>(2).map(|interval| Length {
                months: interval.months(),
                days: interval.days(),
                micros: interval.micros(),
            });
            plan.phases.push(Phase { name: row.text(0)?, length, free: row.bool(1)? });
            Ok(())
        },
    )?;
    Ok((plan, terms, currency))
}

/// The quantities of an item: a JSON object of numbers, or of strings that hold one.
fn quantities(json: &str) -> Outcome<BTreeMap<String, Amount>> {
    let unreadable = |why: String| {
        Fail::corrupt("the quantities of a subscription item can not be read").detail(format!("{json}: {why}."))
    };
    let members: BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_str(json).map_err(|error| unreadable(error.to_string()))?;
    let amount = |raw: &serde_json::value::RawValue| Amount::parse(raw.get().trim_matches('"'));
    members
        .into_iter()
        .map(|(key, raw)| Ok((key, amount(raw).map_err(|error| unreadable(error.to_string()))?)))
        .collect()
}

fn time_or_never(row: &Row<'_>, column: usize) -> Outcome<i64> {
    if row.is_null(column) { Ok(NEVER) } else { row.time(column) }
}

/// A timeline that the calendar can't follow.
pub fn unreckonable(error: CalendarError) -> Fail {
    Fail::parameter("the billing periods can not be computed")
        .detail(error.to_string())
        .hint("Look at the subscription's start, anchor, time zone and the interval of its plan.")
}
