//! Billing periods, proration and splits in SQL: `billing_period`, `billing_periods`, `prorate`, `split_amount`. The
//! arithmetic is `core::calendar`'s, `core::proration`'s and `core::split`'s; this is only the way in and out. All are
//! strict: a null argument gives null, or no rows.

use pgrx::prelude::*;

use crate::core::calendar::{self, CalendarError, Cycle, Interval, Period};
use crate::core::currency;
use crate::core::decimal::QuantityError;
use crate::core::pricing::{Amount, Money};
use crate::core::proration::{Method, Proration};
use crate::core::split::{SplitError, split_money};
use crate::pg::datum::{timestamptz, unix_micros};
use crate::pg::error::{Fail, Outcome, SqlState, raise};

use super::{no_money, out_of_range};

/// number, period_start, period_end.
type PeriodRow = (i64, TimestampWithTimeZone, TimestampWithTimeZone);

#[pg_extern(sql = "")]
fn billing_period(
    anchor: TimestampWithTimeZone,
    interval_unit: &str,
    interval_count: i32,
    aligned: bool,
    timezone: &str,
    at: TimestampWithTimeZone,
) -> TableIterator<
    'static,
    (name!(number, i64), name!(period_start, TimestampWithTimeZone), name!(period_end, TimestampWithTimeZone)),
> {
    let period = cycle(anchor, interval_unit, interval_count, aligned, timezone)
        .and_then(|cycle| cycle.containing(micros(at)).map_err(no_period));
    TableIterator::once(row(raise(period)))
}

#[pg_extern(sql = "")]
fn billing_periods(
    anchor: TimestampWithTimeZone,
    interval_unit: &str,
    interval_count: i32,
    aligned: bool,
    timezone: &str,
    from_time: TimestampWithTimeZone,
    to_time: TimestampWithTimeZone,
) -> TableIterator<
    'static,
    (name!(number, i64), name!(period_start, TimestampWithTimeZone), name!(period_end, TimestampWithTimeZone)),
> {
    let periods = cycle(anchor, interval_unit, interval_count, aligned, timezone)
        .and_then(|cycle| cycle.periods(micros(from_time), micros(to_time)).map_err(no_period));
    TableIterator::new(raise(periods).into_iter().map(row))
}

fn cycle(anchor: TimestampWithTimeZone, unit: &str, count: i32, aligned: bool, timezone: &str) -> Outcome<Cycle> {
    let interval = Interval::parse(unit, count).map_err(no_period)?;
    Cycle::at(interval, micros(anchor), aligned, timezone).map_err(no_period)
}

fn row(period: Period) -> PeriodRow {
    (period.number, timestamptz(period.start), timestamptz(period.end))
}

#[pg_extern(sql = "")]
fn prorate(
    amount: AnyNumeric,
    piece_start: TimestampWithTimeZone,
    piece_end: TimestampWithTimeZone,
    period_start: TimestampWithTimeZone,
    period_end: TimestampWithTimeZone,
    method: &str,
    timezone: &str,
) -> AnyNumeric {
    let piece = (micros(piece_start), micros(piece_end));
    raise(prorated(&amount.to_string(), piece, (micros(period_start), micros(period_end)), method, timezone))
}

fn prorated(amount: &str, piece: (i64, i64), period: (i64, i64), method: &str, timezone: &str) -> Outcome<AnyNumeric> {
    let full = number("an amount", amount)?;
    let method = Method::parse(method).ok_or_else(|| {
        Fail::parameter("this method of proration is not known")
            .detail(format!("It is \"{method}\"."))
            .hint("Use 'second', 'day', 'ended_day' or 'none'; for months of 28 to 31 days 'day_30' or 'ended_day_30'.")
    })?;
    let zone = calendar::zone(timezone).map_err(no_period)?;
    let part = Proration::between(piece, period, method, &zone).map_err(no_period)?;
    let paid = part.unrounded(&full).map_err(|error| {
        out_of_range("this part can not be computed exactly", error, format!("the amount is {amount}"))
    })?;
    numeric(&paid.to_string())
}

#[pg_extern(sql = "")]
fn split_amount(total: AnyNumeric, weights: Vec<Option<AnyNumeric>>, currency: &str) -> Vec<AnyNumeric> {
    raise(parts(&total.to_string(), &weights, currency))
}

fn parts(total: &str, weights: &[Option<AnyNumeric>], currency: &str) -> Outcome<Vec<AnyNumeric>> {
    let digits = currency::digits(currency).map_err(|error| no_money(error, currency))?;
    let exact = number("a total", total)?;
    let money = exact
        .round(digits)
        .map_err(|error| out_of_range("this total can not be held in money", error, format!("the total is {total}")))?;
    if Amount::from(money) != exact {
        return Err(Fail::parameter("a total to be split must be in whole minor units of its currency")
            .detail(format!("It is {total}, and {currency} has {digits} decimals."))
            .hint("Round it first: round(total, meterflow.currency_digits(currency))."));
    }
    let weight = |(i, weight): (usize, &Option<AnyNumeric>)| match weight {
        Some(weight) => number("a weight", &weight.to_string()),
        None => Err(Fail::new(SqlState::ERRCODE_NULL_VALUE_NOT_ALLOWED, "a weight must not be null")
            .detail(format!("Number {} of the {} weights is.", i + 1, weights.len()))
            .hint("Give what takes no part the weight 0.")),
    };
    let weights = weights.iter().enumerate().map(weight).collect::<Outcome<Vec<Amount>>>()?;
    let parts = split_money(money, &weights).map_err(|error| unsplit(error, money, currency))?;
    parts.iter().map(|part| numeric(&part.to_string())).collect()
}

fn unsplit(error: SplitError, total: Money, currency: &str) -> Fail {
    let (state, hint) = match error {
        SplitError::NegativeWeight => (
            SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
            "Weigh credits by their size, or leave them out; a negative total splits like a positive one.",
        ),
        SplitError::NoWeight => {
            (SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "Give at least one part a weight above zero.")
        }
        SplitError::TooLarge => (
            SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            "Only the ratio of weights counts: round or scale them down.",
        ),
    };
    Fail::new(state, "this amount can not be split").detail(format!("{total} {currency}: {error}.")).hint(hint)
}

fn number(what: &str, text: &str) -> Outcome<Amount> {
    Amount::parse(text).map_err(|error| match error {
        // `numeric` writes nothing else that is no number.
        QuantityError::Syntax => Fail::parameter(format!("{what} must be a finite number"))
            .detail(format!("It is {text}."))
            .hint("Find out where it comes from."),
        _ => out_of_range("this number has too many digits", error, format!("{what} of {text}")),
    })
}

fn numeric(text: &str) -> Outcome<AnyNumeric> {
    AnyNumeric::try_from(text).map_err(|error| {
        Fail::new(SqlState::ERRCODE_INTERNAL_ERROR, error.to_string()).detail(format!("The number is {text}."))
    })
}

fn micros(at: TimestampWithTimeZone) -> i64 {
    unix_micros(at.into_inner())
}

fn no_period(error: CalendarError) -> Fail {
    let detail = error.to_string();
    match error {
        CalendarError::UnknownZone(_) => Fail::parameter("this time zone is not known")
            .detail(detail)
            .hint("Use an IANA name such as Europe/Berlin."),
        CalendarError::UnknownInterval(_) | CalendarError::IntervalCount(_) | CalendarError::UnknownWindow(_) => {
            Fail::parameter("this billing interval is not understood")
                .detail(detail)
                .hint("For instance interval_unit 'month' and interval_count 1; a 'quarter' is 3 months.")
        }
        CalendarError::EmptyPeriod => Fail::parameter("the end of a period must be after its start")
            .detail("Periods are half-open: [period_start, period_end).")
            .hint("Pass the whole period, of which the piece is a part."),
        CalendarError::TooManyPeriods | CalendarError::TooManyWindows => {
            Fail::new(SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many billing periods")
                .detail(detail)
                .hint("Ask for a shorter stretch of time.")
        }
        CalendarError::OutOfRange => {
            Fail::new(SqlState::ERRCODE_DATETIME_FIELD_OVERFLOW, "the calendar does not reach that far")
                .detail("A billing period begins and ends in the years 1 to 9999.")
                .hint("Pass finite times; leave 'infinity' out.")
        }
    }
}
