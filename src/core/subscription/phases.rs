//! Phases of a plan: a trial, a ramp. They follow each other on the calendar of the subscription.

use jiff::Span;

use super::NEVER;
use crate::core::calendar::{self, CalendarError};
use crate::core::ranges::Ranges;

#[derive(Clone, Debug)]
pub struct Phase {
    pub name: String,
    /// None: for good.
    pub length: Option<Length>,
    pub free: bool,
}

/// How long a phase is, as PostgreSQL's `interval` keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

pub struct Placed<'a> {
    phase: &'a Phase,
    range: Ranges,
}

/// When each phase is. All lengths are counted from the beginning of the first, so that two months from 31 January end
/// on 31 March, by way of no other day than that.
pub fn timeline<'a>(phases: &'a [Phase], from: i64, zone: &str) -> Result<Vec<Placed<'a>>, CalendarError> {
    let mut placed = Vec::with_capacity(phases.len());
    let mut total = Span::new();
    let mut start = from;
    for phase in phases {
        let end = match phase.length {
            None => NEVER,
            Some(length) => {
                let longer = |span: Span| -> Result<Span, jiff::Error> {
                    span.try_months(i64::from(span.get_months()) + i64::from(length.months))?
                        .try_days(i64::from(span.get_days()) + i64::from(length.days))?
                        .try_microseconds(span.get_microseconds() + length.micros)
                };
                total = longer(total).map_err(|_| CalendarError::OutOfRange)?;
                calendar::later(from, total, zone)?
            }
        };
        placed.push(Placed { phase, range: Ranges::of(start, end) });
        start = end;
    }
    Ok(placed)
}

pub fn free(phases: &[Placed<'_>]) -> Ranges {
    let free = phases.iter().filter(|placed| placed.phase.free);
    Ranges::union(free.flat_map(|placed| placed.range.as_slice().iter().copied()).collect())
}

pub fn named(phases: &[Placed<'_>], name: &str) -> Ranges {
    phases.iter().find(|placed| placed.phase.name == name).map(|placed| placed.range.clone()).unwrap_or_default()
}
