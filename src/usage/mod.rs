//! Usage: rollups, deltas not folded yet, and raw events at the edges, in one snapshot.
//!
//! # Exactness
//! All that one call reads it reads in the snapshot of the calling statement (`pg/scan.rs`, `See::Statement`). In it, a rollup holds
//! the batches up to `folded_batch` and the deltas after it the rest (`rollup/fold.rs`); raw events and corrections
//! are as of the same instant. Windows are tiled without gap or overlap (`core/cover.rs`), so every event visible to
//! the statement counts once. Under READ COMMITTED that includes all that has committed before the statement began,
//! and what the transaction itself has ingested.
//!
//! Proof: tests/isolation/specs/fold_read.spec; tests/client oracle; property tests of `core::cover`.

mod source;
mod stored;
mod verify;

use pgrx::prelude::*;
use rustc_hash::FxHashMap;

use crate::core::calendar::{self, CalendarError};
use crate::core::cover::{EARLIEST, LATEST};
use crate::core::filter::Filter;
use crate::core::properties::Path;
use crate::core::state::{Ask, Kind, Tally};
use crate::pg::datum::{timestamptz, unix_micros};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::settings;

pub use source::{Answer, Question, answer, group_values, unreadable};

/// window_start, window_end, customer_id, group_key, value.
type UsageRow = (TimestampWithTimeZone, TimestampWithTimeZone, Option<String>, Option<String>, Option<String>);

#[pg_extern(sql = "")]
#[allow(clippy::too_many_arguments)]
fn usage_rows(
    meter_key: Option<&str>,
    start_time: Option<TimestampWithTimeZone>,
    end_time: Option<TimestampWithTimeZone>,
    customer_id: Option<&str>,
    window_size: Option<&str>,
    group_by: Option<Vec<String>>,
    filters: Option<&str>,
    timezone: Option<&str>,
    total: Option<bool>,
) -> TableIterator<
    'static,
    (
        name!(window_start, TimestampWithTimeZone),
        name!(window_end, TimestampWithTimeZone),
        name!(customer_id, Option<String>),
        name!(group_key, Option<String>),
        name!(value, Option<String>),
    ),
> {
    let time = |at: Option<TimestampWithTimeZone>| at.map(|at| unix_micros(at.into_inner()));
    let rows = (|| {
        let meter_key = given("meter_key", meter_key)?;
        let period = (given("start_time", time(start_time))?, given("end_time", time(end_time))?);
        let timezone = given("timezone", timezone)?;
        usage(meter_key, period, customer_id, window_size, group_by, filters, timezone, total.unwrap_or(false))
    })();
    TableIterator::new(raise(rows))
}

fn given<T>(name: &str, value: Option<T>) -> Outcome<T> {
    value.ok_or_else(|| {
        Fail::new(SqlState::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{name} must not be null"))
            .hint("Only customer_id, window_size, group_by and filters may be null.")
    })
}

#[allow(clippy::too_many_arguments)]
fn usage(
    meter_key: &str,
    (start, end): (i64, i64),
    customer: Option<&str>,
    window_size: Option<&str>,
    group_by: Option<Vec<String>>,
    filters: Option<&str>,
    timezone: &str,
    total: bool,
) -> Outcome<Vec<UsageRow>> {
    if start >= end {
        return Err(Fail::parameter("the end of a period must be after its start")
            .detail("Periods are half-open: [start_time, end_time).")
            .hint("Swap them, or leave the call out for an empty period."));
    }
    let (start, end) = (start.max(EARLIEST), end.min(LATEST));
    let windows = match window_size {
        None => {
            calendar::check_zone(timezone)
                .map_err(|error| Fail::parameter("this time zone is not known").detail(error.to_string()))?;
            vec![(start, end)]
        }
        Some(size) => windows(start, end, size, timezone)?,
    };
    let group_by = group_by.unwrap_or_default();
    let paths = group_by
        .iter()
        .map(|name| {
            Path::parse(name).map_err(|error| {
                Fail::parameter("group_by names no property").detail(format!("{name:?}: {}.", error.message))
            })
        })
        .collect::<Outcome<Vec<Path>>>()?;
    let filter = filters.map(Filter::compile).transpose().map_err(|error| {
        Fail::parameter("these filters can not be used")
            .detail(format!("{}: {}.", error.path, error.message))
            .hint("Write them as for a meter: {\"model\": \"gpt-4\", \"bytes\": {\"gte\": 100}}.")
    })?;
    let tenant = settings::tenant();
    let answers = source::answer(&Question {
        tenant: &tenant,
        meter_keys: &[meter_key],
        windows: &windows,
        customer,
        group_by: &paths,
        filter: filter.as_ref(),
        total,
    })?;
    let Some(answer) = answers.into_iter().next() else { return Ok(Vec::new()) };
    rows(answer, &windows, customer, &group_by, window_size.is_some(), total)
}

fn windows(start: i64, end: i64, size: &str, timezone: &str) -> Outcome<Vec<(i64, i64)>> {
    let size = calendar::Window::parse(size).map_err(|error| {
        Fail::parameter("this window size is not understood")
            .detail(error.to_string())
            .hint("Write for instance 'hour', '15 minutes', 'day', 'week' or 'month'.")
    })?;
    calendar::windows(start, end, size, timezone).map_err(|error| match error {
        CalendarError::TooManyWindows => Fail::new(SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many windows")
            .detail(format!("At most {} are answered.", calendar::MAX_WINDOWS))
            .hint("Ask for larger windows or a shorter period."),
        _ => Fail::parameter("the period can not be cut into windows").detail(error.to_string()),
    })
}

/// Finished rows: with windows, every window of every customer and group that occurs has one; a customer asked for
/// by name always has.
fn rows(
    answer: Answer,
    windows: &[(i64, i64)],
    customer: Option<&str>,
    group_by: &[String],
    windowed: bool,
    total: bool,
) -> Outcome<Vec<UsageRow>> {
    let Answer { kind, percentile, states } = answer;
    let mut by_series: FxHashMap<(Option<String>, String), Vec<(usize, Tally)>> = FxHashMap::default();
    for ((window, customer, group), state) in states {
        if !state.is_empty() {
            by_series.entry((customer, group)).or_default().push((window, state));
        }
    }
    if by_series.is_empty() && (customer.is_some() || total) && group_by.is_empty() {
        by_series.insert((customer.map(str::to_string), String::new()), Vec::new());
    }
    let mut series: Vec<_> = by_series.into_iter().collect();
    series.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));

    let mut rows = Vec::new();
    for ((customer, group), found) in series {
        let mut found: FxHashMap<usize, Tally> = found.into_iter().collect();
        let group_key = source::group_object(group_by, &group)?;
        for (window, &(from, to)) in windows.iter().enumerate() {
            let state = found.remove(&window);
            if state.is_none() && !windowed && !found.is_empty() {
                continue;
            }
            let value = finish(kind, state, &Ask { from, to, percentile })?;
            rows.push((timestamptz(from), timestamptz(to), customer.clone(), group_key.clone(), value));
        }
    }
    rows.sort_by(|a, b| (a.0.into_inner(), &a.2, &a.3).cmp(&(b.0.into_inner(), &b.2, &b.3)));
    Ok(rows)
}

/// One customer's usage of several meters in a period, from one pass over rollups and deltas.
#[pg_extern(sql = "")]
fn usage_totals(
    meter_keys: Vec<String>,
    start_time: TimestampWithTimeZone,
    end_time: TimestampWithTimeZone,
    customer_id: &str,
) -> TableIterator<'static, (name!(meter_key, String), name!(value, Option<String>))> {
    let (from, to) = (unix_micros(start_time.into_inner()), unix_micros(end_time.into_inner()));
    let rows = (|| {
        let (from, to) = (from.max(EARLIEST), to.min(LATEST));
        let tenant = settings::tenant();
        let keys: Vec<&str> = meter_keys.iter().map(String::as_str).collect();
        let answers = source::answer(&Question {
            tenant: &tenant,
            meter_keys: &keys,
            windows: &[(from, to)],
            customer: Some(customer_id),
            group_by: &[],
            filter: None,
            total: false,
        })?;
        let values = answers.into_iter().map(|answer| {
            let ask = Ask { from, to, percentile: answer.percentile };
            finish(answer.kind, answer.states.into_values().next(), &ask)
        });
        meter_keys.iter().cloned().zip(values).map(|(key, value)| Ok((key, value?))).collect::<Outcome<Vec<_>>>()
    })();
    TableIterator::new(raise(rows))
}

/// The value of a window; what adds up is 0 where nothing happened, what is picked is null.
fn finish(kind: Kind, state: Option<Tally>, ask: &Ask) -> Outcome<Option<String>> {
    let value = state.unwrap_or_else(|| Tally::empty(kind)).value(ask).map_err(|error| {
        Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "usage out of range").detail(error.to_string())
    })?;
    let adds_up = matches!(kind, Kind::Sum | Kind::WeightedSum | Kind::BucketSum | Kind::BucketMax);
    Ok(value.map(|value| value.to_string()).or_else(|| adds_up.then(|| "0".to_string())))
}
