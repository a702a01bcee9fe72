//! Which part of a period's price a piece of the period pays.
//!
//! # The mechanism
//! Every [`Method`] says how far into the period an instant is, in whole units: 0 at its start, `whole` at its end,
//! never falling in between. A piece `[start, end)` pays
//!
//! ```text
//! cumulative(end) − cumulative(start),   cumulative(t) = round(amount · position(t) / whole)
//! ```
//!
//! in money rounded half away from zero, and likewise unrounded at 24 decimals. So what a piece pays depends on nothing
//! but the piece: pieces that tile a period always add up to its amount to the last digit, a piece costs what its parts
//! cost, and to pay back the rest of a period and charge it again nets to zero. The price of it is that a piece in the
//! middle of a period may be one minor unit off its own share rounded on its own; a piece that begins or ends with the
//! period is so only at an exact half.

use ethnum::I256;
use jiff::tz::TimeZone;

use super::calendar::{CalendarError, DayCount};
use super::decimal::{QuantityError, SCALE};
use super::pricing::{Amount, Money};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Method {
    /// By elapsed time, to the microsecond: an hour is an hour, also on a day of 23.
    #[default]
    Second,
    /// By local calendar days.
    Day(Days),
    /// Not at all: the piece that begins with the period pays for all of it, others pay nothing.
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Days {
    pub shared_day: SharedDay,
    /// Count every month as so many days, 28 to 31, instead of its own. Days past them count nothing; if there are
    /// fewer, the last counts for what is missing (30 is the "30/360" of bonds).
    pub month_days: Option<u8>,
}

/// Whose a day is in which one piece ends and the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SharedDay {
    /// The piece's that begins in it: on the day of a change the new price is paid.
    #[default]
    Begun,
    /// The piece's that ends in it: the day on which something is ended is paid.
    Ended,
}

impl Method {
    /// Reads `second`, `day`, `ended_day` (a day belongs to the piece that ends in it) or `none`; a day may have a suffix
    /// of 28 to 31 for months of so many days: `day_30`. None for anything else.
    pub fn parse(text: &str) -> Option<Method> {
        let (name, month_days) = match text.rsplit_once('_') {
            Some((name, "28")) => (name, Some(28)),
            Some((name, "29")) => (name, Some(29)),
            Some((name, "30")) => (name, Some(30)),
            Some((name, "31")) => (name, Some(31)),
            _ => (text, None),
        };
        match (name, month_days) {
            ("second", None) => Some(Method::Second),
            ("none", None) => Some(Method::Whole),
            ("day", month_days) => Some(Method::Day(Days { shared_day: SharedDay::Begun, month_days })),
            ("ended_day", month_days) => Some(Method::Day(Days { shared_day: SharedDay::Ended, month_days })),
            _ => None,
        }
    }
}

/// A piece measured against its period: `from` to `to` of `whole` units (microseconds, days), 0 ≤ from ≤ to ≤ whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proration {
    pub from: i64,
    pub to: i64,
    pub whole: i64,
}

impl Proration {
    /// Measures `piece` against `period`, both half-open in Unix microseconds. Of a piece that sticks out, what is in
    /// the period counts; what ends before it starts is nothing. A period that the method measures as nothing, such as
    /// one of hours by days, is measured by time. `zone` is the customer's, and matters to days only.
    pub fn between(
        piece: (i64, i64),
        period: (i64, i64),
        method: Method,
        zone: &TimeZone,
    ) -> Result<Proration, CalendarError> {
        if period.0 >= period.1 {
            return Err(CalendarError::EmptyPeriod);
        }
        let start = piece.0.clamp(period.0, period.1);
        let end = piece.1.clamp(start, period.1);
        let measured = |position: &dyn Fn(i64) -> Result<i64, CalendarError>| {
            let zero = position(period.0)?;
            let at = |time| position(time)?.checked_sub(zero).ok_or(CalendarError::OutOfRange);
            Ok(Proration { from: at(start)?, to: at(end)?, whole: at(period.1)? })
        };
        let by_time = || measured(&Ok);
        match method {
            Method::Second => by_time(),
            Method::Whole => measured(&|time| Ok(i64::from(time > period.0))),
            Method::Day(days) => {
                let count = DayCount::new(zone);
                let by_day = measured(&|time| days.position(time, &count))?;
                if by_day.whole == 0 { by_time() } else { Ok(by_day) }
            }
        }
    }

    /// What the piece pays of `amount`, unrounded: at 24 decimals, or as many as the amount itself has if more.
    pub fn unrounded(&self, amount: &Amount) -> Result<Amount, QuantityError> {
        let digits = amount.scale().max(SCALE);
        Ok(Amount::new(self.minor(amount, digits)?, digits))
    }

    /// What the piece pays of `amount` in money of so many decimals.
    pub fn money(&self, amount: &Amount, digits: u32) -> Result<Money, QuantityError> {
        Ok(Money::new(self.minor(amount, digits)?, digits))
    }

    fn minor(&self, amount: &Amount, digits: u32) -> Result<I256, QuantityError> {
        let cumulative = |position| amount.round_ratio(position, self.whole, digits);
        // Both have the sign of the amount: their difference is smaller than either.
        Ok(cumulative(self.to)?.wrapping_sub(cumulative(self.from)?))
    }
}

impl Days {
    fn position(self, time: i64, count: &DayCount) -> Result<i64, CalendarError> {
        let (day, begun) = count.day(time)?;
        let day = match self.shared_day {
            SharedDay::Ended if begun => day + 1,
            SharedDay::Ended | SharedDay::Begun => day,
        };
        match self.month_days {
            None => Ok(day),
            Some(month_days) => {
                let date = DayCount::date(day)?;
                let months = i64::from(date.year()) * 12 + i64::from(date.month());
                // The day that starts at this position has date.day() − 1 days of its month before it.
                Ok(months * i64::from(month_days) + i64::from(date.day() - 1).min(i64::from(month_days)))
            }
        }
    }
}
