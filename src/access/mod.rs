//! What customers may use: `check_access`, `customer_entitlements`, `entitlement_history`.
//!
//! ```text
//! load.rs (rows) ─ held.rs (which of them count, when) ─ core::entitlement ─ mod.rs (the answer)
//!                                        quantities.rs (usage) ┘
//! ```
//! An answer is computed of rows and usage in the snapshot of the statement, and nothing is written: it knows what its own
//! transaction has ingested, and is as good on a standby. Without a time it is of now, and all usage of the period counts,
//! though a clock that sends events may be ahead of this one.

mod held;
mod load;
mod quantities;

use pgrx::prelude::*;

use crate::core::calendar::CalendarError;
use crate::core::cover::{EARLIEST, LATEST};
use crate::core::decimal::{Quantity, QuantityError};
use crate::core::entitlement::{Course, Event, Id, Quota, Segment, Standing, Until};
use crate::core::pricing::Amount;
use crate::pg::datum::{timestamptz, unix_micros};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::numeric::NumericIn;
use crate::pg::{session, settings};

use held::Held;
use load::{Entitlement, Feature};

/// What is said of one feature.
#[derive(Default)]
struct Answer {
    allowed: bool,
    reason: Option<&'static str>,
    standing: Option<Standing>,
    soft: Option<bool>,
    value: Option<String>,
}

impl Answer {
    fn refused(reason: &'static str) -> Answer {
        Answer { reason: Some(reason), ..Answer::default() }
    }
}

#[pg_extern(sql = "")]
fn access_rows(
    of_customer: Option<&str>,
    of_feature: Option<&str>,
    quantity: Option<NumericIn<'_>>,
    at: Option<TimestampWithTimeZone>,
) -> TableIterator<
    'static,
    (
        name!(feature_key, String),
        name!(allowed, bool),
        name!(reason, Option<String>),
        name!(kind, String),
        name!(quota, Option<String>),
        name!(usage, Option<String>),
        name!(balance, Option<String>),
        name!(overage, Option<String>),
        name!(period_start, Option<TimestampWithTimeZone>),
        name!(period_end, Option<TimestampWithTimeZone>),
        name!(soft, Option<bool>),
        name!(value, Option<String>),
    ),
> {
    let rows = (|| {
        let quantity = wanted(quantity)?;
        let until = match at.map(|at| unix_micros(at.into_inner())) {
            None => Until::Through(session::now()),
            Some(at) if EARLIEST < at && at < LATEST => Until::Before(at),
            Some(_) => {
                return Err(Fail::parameter("the time asked for must be finite")
                    .detail("A quota is as of a time in the years 1 to 9999.")
                    .hint("Leave it out for now."));
            }
        };
        let answers = answers(of_customer.unwrap_or_default(), of_feature, &quantity, until)?;
        Ok(answers.into_iter().map(|(feature, answer)| {
            let standing = answer.standing.as_ref();
            let time = |at: i64| (EARLIEST < at && at < LATEST).then(|| timestamptz(at));
            (
                feature.key,
                answer.allowed,
                answer.reason.map(str::to_string),
                feature.kind.name().to_string(),
                standing.and_then(|standing| standing.quota).map(|quota| quota.to_string()),
                standing.map(|standing| standing.usage.to_string()),
                standing.and_then(|standing| standing.balance).map(|balance| balance.to_string()),
                standing.map(|standing| standing.overage.to_string()),
                standing.and_then(|standing| time(standing.period_start)),
                standing.and_then(|standing| standing.next_reset).and_then(time),
                answer.soft,
                answer.value,
            )
        }))
    })();
    TableIterator::new(raise(rows))
}

fn wanted(quantity: Option<NumericIn<'_>>) -> Outcome<Amount> {
    let refuse = |found: String| {
        Fail::parameter("the quantity asked for must be a number that is not below zero")
            .detail(format!("It is {found}."))
            .hint("Ask for as much as is to be used next; leave it out for one unit.")
    };
    let quantity = quantity.ok_or_else(|| refuse("null".to_string()))?;
    let amount = quantity.amount().map_err(|_| refuse(quantity.text()))?;
    if amount.is_negative() { Err(refuse(quantity.text())) } else { Ok(amount) }
}

/// One feature, or all of them.
fn answers(customer: &str, feature: Option<&str>, quantity: &Amount, until: Until) -> Outcome<Vec<(Feature, Answer)>> {
    let tenant = settings::tenant();
    let features = match feature {
        Some(key) => vec![load::feature(&tenant, customer, key, until.at())?],
        None => load::features(&tenant, customer, None, until.at())?,
    };
    let answers = answer_all(&tenant, customer, &features, quantity, until)?;
    Ok(features.into_iter().zip(answers).collect())
}

/// All at once: features of one period share what reading their usage costs.
fn answer_all(
    tenant: &str,
    customer: &str,
    features: &[Feature],
    quantity: &Amount,
    until: Until,
) -> Outcome<Vec<Answer>> {
    let at = until.at();
    let held: Vec<Vec<Held<'_>>> = features.iter().map(held::held).collect();
    let refusals: Vec<_> = features.iter().zip(&held).map(|(feature, held)| refusal(feature, held, at)).collect();
    let mut quotas = Vec::with_capacity(features.len());
    for ((feature, held), refused) in features.iter().zip(&held).zip(&refusals) {
        let asked = feature.meter_key.is_some() && refused.is_none();
        let quota =
            if asked { held::quota(held, &feature.grants, at).map_err(unreckonable)? } else { Quota::default() };
        quotas.push((feature.meter_key.as_deref().unwrap_or_default(), quota));
    }
    let courses = quotas.iter().map(|(meter, quota)| Ok((*meter, Course::of(quota, at, until).map_err(unreckonable)?)));
    let courses = courses.collect::<Outcome<Vec<_>>>()?;
    let usage = quantities::of(tenant, customer, &courses)?;
    let mut answers = Vec::with_capacity(features.len());
    for (((held, refused), (_, course)), usage) in held.iter().zip(refusals).zip(&courses).zip(usage) {
        answers.push(match refused {
            Some(reason) => Answer::refused(reason),
            None => {
                let segments = course.run(&usage).map_err(too_large)?;
                let standing = course.standing(&segments).map_err(too_large)?;
                answer(&held::in_force(held, at), standing, quantity)
            }
        });
    }
    Ok(answers)
}

/// Why a customer is not entitled to a feature at all, if it is not.
fn refusal(feature: &Feature, held: &[Held<'_>], at: i64) -> Option<&'static str> {
    let in_force = held::in_force(held, at);
    if in_force.iter().any(|one| one.enabled)
        || feature.grants.iter().any(|grant| in_force.is_empty() && grant.is_effective(at))
    {
        return None;
    }
    if !in_force.is_empty() {
        return Some("disabled");
    }
    let grants = feature.grants.iter().filter(|grant| grant.from < grant.to).map(|grant| (grant.from, grant.to));
    let enabled = held.iter().filter(|held| held.entitlement.enabled);
    let mut ranges = enabled.flat_map(|held| held.ranges.as_slice().iter().copied()).chain(grants).peekable();
    if ranges.peek().is_none() {
        Some("no_entitlement")
    } else if ranges.any(|(_, to)| to <= at) {
        Some("expired")
    } else {
        Some("not_yet")
    }
}

/// Of a feature that the customer is entitled to.
fn answer(in_force: &[&Entitlement], standing: Option<Standing>, quantity: &Amount) -> Answer {
    let enabled: Vec<&&Entitlement> = in_force.iter().filter(|one| one.enabled).collect();
    let value = enabled.iter().find_map(|one| one.value.clone());
    let paused = !enabled.is_empty() && enabled.iter().all(|one| one.paused);
    let soft = standing.is_some().then(|| enabled.iter().any(|one| one.soft));
    let reached =
        standing.as_ref().and_then(|standing| standing.balance).is_some_and(|left| Amount::from(left) < *quantity);
    let reason = match (paused, reached) {
        (true, _) => Some("paused"),
        (false, true) => Some("limit_reached"),
        (false, false) => None,
    };
    Answer { allowed: !paused && (!reached || soft == Some(true)), reason, standing, soft, value }
}

#[pg_extern(sql = "")]
fn entitlement_history_rows(
    of_customer: Option<&str>,
    of_feature: Option<&str>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: Option<TimestampWithTimeZone>,
) -> TableIterator<
    'static,
    (
        name!(segment_start, TimestampWithTimeZone),
        name!(segment_end, TimestampWithTimeZone),
        name!(began_with, Vec<String>),
        name!(usage, String),
        name!(overage, String),
        name!(entitlement_id, Option<i64>),
        name!(grant_id, Option<i64>),
        name!(opening, Option<String>),
        name!(used, Option<String>),
        name!(closing, Option<String>),
    ),
> {
    let rows = (|| {
        let time = |at: Option<TimestampWithTimeZone>| at.map(|at| unix_micros(at.into_inner()));
        let (from, to) = time(from_time).zip(time(to_time)).filter(|(from, to)| from < to).ok_or_else(|| {
            Fail::parameter("the end of a period must be after its start")
                .detail("Periods are half-open: [from_time, to_time), and both are given.")
                .hint("Swap them, or leave the call out for an empty period.")
        })?;
        let (tenant, customer) = (settings::tenant(), of_customer.unwrap_or_default());
        let feature = load::feature(&tenant, customer, of_feature.unwrap_or_default(), to)?;
        let Some(meter_key) = &feature.meter_key else {
            return Err(Fail::parameter(format!("feature \"{}\" has no history of use", feature.key))
                .detail(format!("It is {}: nothing of it is used up.", feature.kind.name()))
                .hint("Ask for a metered feature."));
        };
        let known_from = if from > EARLIEST { from } else { to };
        let quota = held::quota(&held::held(&feature), &feature.grants, known_from).map_err(unreckonable)?;
        let course = Course::of(&quota, from, Until::Before(to)).map_err(unreckonable)?;
        let courses = [(meter_key.as_str(), course)];
        let usage = quantities::of(&tenant, customer, &courses)?.pop().unwrap_or_default();
        let [(_, course)] = courses;
        let segments = course.run(&usage).map_err(too_large)?;
        Ok(segments
            .iter()
            .filter(|segment| segment.to > from)
            .flat_map(|segment| history(&course, segment))
            .collect::<Vec<_>>())
    })();
    TableIterator::new(raise(rows))
}

type HistoryRow = (
    TimestampWithTimeZone,
    TimestampWithTimeZone,
    Vec<String>,
    String,
    String,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// A row for each source in effect, or one for none.
fn history(course: &Course<'_>, segment: &Segment) -> Vec<HistoryRow> {
    let mut began_with: Vec<String> = Vec::new();
    for event in &segment.events {
        let name = match event {
            Event::End { .. } => "end",
            Event::Reset { .. } => "reset",
            Event::Renew(_) => "renewal",
            Event::Start { .. } => "start",
            Event::Rules { .. } => continue,
        };
        if !began_with.iter().any(|known| known == name) {
            began_with.push(name.to_string());
        }
    }
    let row = |entitlement, grant, opening: Option<Quantity>, used: Option<Quantity>, closing: Option<Quantity>| {
        let shown = |quantity: Option<Quantity>| quantity.map(|quantity| quantity.to_string());
        (
            timestamptz(segment.from),
            timestamptz(segment.to),
            began_with.clone(),
            segment.usage.to_string(),
            segment.overage.max(Quantity::ZERO).to_string(),
            entitlement,
            grant,
            shown(opening),
            shown(used),
            shown(closing),
        )
    };
    let parts = segment.parts.iter().map(|part| match course.source(part.source).id {
        Id::Allowance(id) => row(Some(id), None, part.opening, Some(part.used), part.closing),
        Id::Grant(id) => row(None, Some(id), part.opening, Some(part.used), part.closing),
    });
    let rows: Vec<HistoryRow> = parts.collect();
    if rows.is_empty() { vec![row(None, None, None, None, None)] } else { rows }
}

/// Periods that the calendar can't follow.
fn unreckonable(error: CalendarError) -> Fail {
    let detail = error.to_string();
    match error {
        CalendarError::TooManyPeriods => {
            Fail::new(SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "this quota has had too many periods")
                .detail(detail)
                .hint("End the entitlement, and make another that is valid from a later time.")
        }
        _ => Fail::parameter("the periods of this quota can not be computed")
            .detail(detail)
            .hint("Pass finite times, and look at reset and anchor of the entitlement and at the time zone it is in."),
    }
}

fn too_large(error: QuantityError) -> Fail {
    Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "this quota can not be computed exactly")
        .detail(error.to_string())
        .hint("An amount or the usage of the period is far too large.")
}
