//! What was used in each phase of a course, by the same reading as usage().
//!
//! In a phase is used what has been used of its period by its end, less what had been by its beginning: so a distinct
//! value is used when it first occurs in a period, and quantities that add up come to what they add up to.

use std::collections::BTreeSet;

use crate::core::cover::{EARLIEST, LATEST};
use crate::core::decimal::Quantity;
use crate::core::entitlement::Course;
use crate::core::state::{Ask, Tally};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::usage::{Answer, Question, answer, unreadable};

/// Usage of each window of each course, by its meter. Courses of the same windows are read at once.
pub fn of(tenant: &str, customer: &str, courses: &[(&str, Course<'_>)]) -> Outcome<Vec<Vec<Quantity>>> {
    let windows: Vec<Vec<(i64, i64)>> = courses
        .iter()
        .map(|(_, course)| course.windows().map(|(from, to)| (from.max(EARLIEST), to.min(LATEST))).collect())
        .collect();
    let mut usage: Vec<Vec<Quantity>> = vec![Vec::new(); courses.len()];
    let distinct: BTreeSet<&Vec<(i64, i64)>> = windows.iter().filter(|windows| !windows.is_empty()).collect();
    for asked in distinct {
        let places: Vec<usize> = (0..courses.len()).filter(|&place| windows[place] == *asked).collect();
        let keys: Vec<&str> =
            places.iter().map(|&place| courses[place].0).collect::<BTreeSet<_>>().into_iter().collect();
        let question = Question {
            tenant,
            meter_keys: &keys,
            windows: asked,
            customer: Some(customer),
            group_by: &[],
            filter: None,
            total: true,
        };
        let answers = answer(&question)?;
        for place in places {
            let (key, course) = &courses[place];
            if let Some(answer) = keys.iter().position(|known| known == key).map(|at| &answers[at]) {
                usage[place] = by_phase(answer, course)?;
            }
        }
    }
    Ok(usage)
}

fn by_phase(answer: &Answer, course: &Course<'_>) -> Outcome<Vec<Quantity>> {
    // The kinds that can be burned down look at neither.
    let ask = Ask { from: EARLIEST, to: LATEST, percentile: answer.percentile };
    let too_large = |why: String| {
        Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "usage out of range")
            .detail(why)
            .hint("Look for an absurd value among the customer's events, and void it.")
    };
    let mut so_far = Tally::empty(answer.kind);
    let mut before = Quantity::ZERO;
    let mut used = Vec::new();
    for (window, (begins_period, counts)) in course.marks().enumerate() {
        if begins_period {
            (so_far, before) = (Tally::empty(answer.kind), Quantity::ZERO);
        }
        if let Some(state) = answer.states.get(&(window, None, String::new())).filter(|_| counts) {
            so_far.join(state).map_err(unreadable)?;
        }
        let after = so_far.value(&ask).map_err(|error| too_large(error.to_string()))?.unwrap_or(Quantity::ZERO);
        used.push(after.checked_sub(before).map_err(|error| too_large(error.to_string()))?);
        before = after;
    }
    Ok(used)
}
