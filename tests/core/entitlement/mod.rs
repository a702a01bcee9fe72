//! Quotas: examples worked by hand, and laws that hold for any. What peers say is in vectors.rs.

use jiff::Timestamp;

use crate::core::calendar::{Cycle, Interval};
use crate::core::decimal::Quantity;
use crate::core::entitlement::*;

mod examples;
mod laws;
mod vectors;

pub const HOUR: i64 = 3_600_000_000;
pub const NOTHING: Rollover = Rollover { min: Quantity::ZERO, max: Some(Quantity::ZERO) };
pub const ALL: Rollover = Rollover { min: Quantity::ZERO, max: None };
pub const LIFETIME: Schedule = Schedule { cycle: None, also: Vec::new() };

pub fn at(text: &str) -> i64 {
    let text = if text.len() == 10 { format!("{text}T00:00Z") } else { text.to_string() };
    text.parse::<Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}")).as_microsecond()
}

pub fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).expect(text)
}

pub fn number(n: i64) -> Quantity {
    Quantity::from_i64(n)
}

pub fn monthly(anchor: &str, zone: &str) -> Schedule {
    let cycle = Cycle::at(Interval::Months(1), at(anchor), false, zone).expect("a cycle");
    Schedule { cycle: Some(cycle), also: Vec::new() }
}

pub fn grant(id: i64, amount: i64, from: &str) -> Source {
    Source {
        id: Id::Grant(id),
        amount: Some(number(amount)),
        priority: 50,
        from: at(from),
        to: NEVER,
        expires_at: NEVER,
        created_at: 0,
        rollover: ALL,
        renewal: Renewal::Once,
    }
}

pub fn allowance(id: i64, amount: Option<i64>, from: &str, to: i64, periods: &Schedule) -> Source {
    Source {
        id: Id::Allowance(id),
        amount: amount.map(number),
        priority: 0,
        from: at(from),
        to,
        expires_at: NEVER,
        created_at: 0,
        rollover: NOTHING,
        renewal: Renewal::Allowance(periods.clone()),
    }
}

pub fn rules(from: &str, resets: &Schedule) -> Vec<Rules> {
    vec![Rules { from: at(from), to: NEVER, resets: resets.clone(), preserve_overage: false }]
}

/// Usage of each window of a course, of what was used when.
pub fn usage_of(course: &Course<'_>, used: &[(i64, Quantity)]) -> Vec<Quantity> {
    let sum = |(from, to): (i64, i64)| {
        let within = used.iter().filter(|(at, _)| (from..to).contains(at));
        within.fold(Quantity::ZERO, |sum, (_, quantity)| sum.checked_add(*quantity).expect("a sum"))
    };
    course.windows().map(sum).collect()
}

pub fn segments(quota: &Quota, from: i64, until: Until, used: &[(i64, Quantity)]) -> Vec<Segment> {
    let course = Course::of(quota, from, until).expect("a course");
    course.run(&usage_of(&course, used)).expect("segments")
}

pub fn standing(quota: &Quota, until: Until, used: &[(i64, Quantity)]) -> Option<Standing> {
    let course = Course::of(quota, until.at(), until).expect("a course");
    course.standing(&course.run(&usage_of(&course, used)).expect("segments")).expect("a standing")
}

/// What is left of each source in effect, by id.
pub fn left(quota: &Quota, until: i64, used: &[(i64, Quantity)]) -> Vec<(Id, String)> {
    let course = Course::of(quota, until, Until::Before(until)).expect("a course");
    let segments = course.run(&usage_of(&course, used)).expect("segments");
    let parts = segments.last().map_or(&[][..], |last| &last.parts);
    let shown = |left: Option<Quantity>| left.map_or("unlimited".to_string(), |left| left.to_string());
    parts.iter().map(|part| (course.source(part.source).id, shown(part.closing))).collect()
}
