//! The periods that a subscription is billed by.

use jiff::Span;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::{CalendarError, first_instant, local, zone};

/// More periods than this in one answer are a mistake: three centuries of days.
pub const MAX_PERIODS: usize = 110_000;

const EPOCH: Date = Date::constant(1970, 1, 1);

/// How long a billing period is, on the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    Days(i32),
    Weeks(i32),
    Months(i32),
    Years(i32),
}

impl Interval {
    /// `count` times a day, week, month, quarter (of three months) or year; one or more.
    pub fn parse(unit: &str, count: i32) -> Result<Interval, CalendarError> {
        if count < 1 {
            return Err(CalendarError::IntervalCount(count));
        }
        Ok(match unit {
            "day" => Interval::Days(count),
            "week" => Interval::Weeks(count),
            "month" => Interval::Months(count),
            "quarter" => Interval::Months(count.checked_mul(3).ok_or(CalendarError::OutOfRange)?),
            "year" => Interval::Years(count),
            _ => return Err(CalendarError::UnknownInterval(unit.to_owned())),
        })
    }

    fn step(self) -> Result<Step, CalendarError> {
        let (step, count) = match self {
            Interval::Days(count) => (Step::Days(i64::from(count)), count),
            Interval::Weeks(count) => (Step::Days(i64::from(count) * 7), count),
            Interval::Months(count) => (Step::Months(i64::from(count)), count),
            Interval::Years(count) => (Step::Months(i64::from(count) * 12), count),
        };
        if count < 1 { Err(CalendarError::IntervalCount(count)) } else { Ok(step) }
    }

    /// The start of the calendar's own day, week, month or year that `at` is in; of several months, if a year is a
    /// multiple of them, the start of the part of the year: of the quarter, of the half.
    fn floor(self, at: Date) -> Result<Date, CalendarError> {
        let (year, month) = (at.year(), at.month());
        let floor = match self {
            Interval::Days(_) => Ok(at),
            Interval::Weeks(_) => at.checked_sub(Span::new().days(at.weekday().to_monday_zero_offset())),
            Interval::Months(count) if 12 % count == 0 => Date::new(year, month - (month - 1) % count as i8, 1), // ≤ 12
            Interval::Months(_) => Date::new(year, month, 1),
            Interval::Years(_) => Date::new(year, 1, 1),
        };
        floor.map_err(|_| CalendarError::OutOfRange)
    }
}

/// What lies between the starts of two periods, ≥ 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Days(i64),
    Months(i64),
}

/// Billing periods without end in both directions, numbered in the order of time; period 0 is the one with the anchor.
///
/// Period `n` starts at the anchor plus `n` intervals on the calendar, always counted from the anchor: a month that has
/// no such day gives its last one, and the next month has the anchor's day again (31 Jan, 28 Feb, 31 Mar). That local
/// time becomes an instant by the calendar's one rule, [`first_instant`]; so each period ends where the next starts.
///
/// A zone may skip a whole local day (Samoa, 2011-12-30). A daily period in it would be empty; it does not exist, and
/// its number is passed over.
#[derive(Clone, Debug)]
pub struct Cycle {
    anchor: DateTime,
    step: Step,
    zone: TimeZone,
}

/// A whole period of a cycle: `[start, end)` in Unix microseconds, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub number: i64,
    pub start: i64,
    pub end: i64,
}

/// The part of a period that is billed: `[start, end)`, never empty, within the period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub start: i64,
    pub end: i64,
    pub period: Period,
}

impl Period {
    /// The part of this period within `[start, end)`, say of a subscription (`i64::MAX`: it has no end). None if they
    /// have nothing in common.
    pub fn cut(self, start: i64, end: i64) -> Option<Piece> {
        let piece = Piece { start: self.start.max(start), end: self.end.min(end), period: self };
        (piece.start < piece.end).then_some(piece)
    }
}

impl Cycle {
    /// Periods that start on the anchor's day and time of day. Times within a microsecond are dropped.
    pub fn anniversary(interval: Interval, anchor: DateTime, zone_name: &str) -> Result<Cycle, CalendarError> {
        let whole = anchor.subsec_nanosecond() / 1_000 * 1_000;
        let anchor = anchor.with().subsec_nanosecond(whole).build().map_err(|_| CalendarError::OutOfRange)?;
        Ok(Cycle { anchor, step: interval.step()?, zone: zone(zone_name)? })
    }

    /// Periods that start with a day, on a Monday, on the first of a month or of a year. A quarter, or another number
    /// of months of which a year is a multiple, starts with a part of the year; any other number of units is counted
    /// from the day, week, month or year of the anchor.
    pub fn aligned(interval: Interval, anchor: DateTime, zone_name: &str) -> Result<Cycle, CalendarError> {
        let step = interval.step()?;
        let anchor = interval.floor(anchor.date())?.to_datetime(Time::midnight());
        Ok(Cycle { anchor, step, zone: zone(zone_name)? })
    }

    /// As [`Cycle::aligned`] or [`Cycle::anniversary`], with the anchor as an instant in Unix microseconds: it stands
    /// for what the clock of the zone shows then.
    pub fn at(interval: Interval, anchor: i64, aligned: bool, zone_name: &str) -> Result<Cycle, CalendarError> {
        let anchor = local(anchor, &zone(zone_name)?)?;
        let make = if aligned { Cycle::aligned } else { Cycle::anniversary };
        make(interval, anchor, zone_name)
    }

    /// The period with this number; the next one, as its number tells, where the zone passed over it.
    pub fn period(&self, number: i64) -> Result<Period, CalendarError> {
        let (mut number, start) = (number, self.start(number)?);
        loop {
            let next = number.checked_add(1).ok_or(CalendarError::OutOfRange)?;
            let end = self.start(next)?;
            if start < end {
                return Ok(Period { number, start, end });
            }
            number = next;
        }
    }

    /// The period that `at` is in.
    pub fn containing(&self, at: i64) -> Result<Period, CalendarError> {
        let mut number = self.estimate(local(at, &self.zone)?)?;
        // The estimate is by the day, and a clock that is put back shows times that have been before.
        while self.start(number)? > at {
            number -= 1;
        }
        while self.start(number + 1)? <= at {
            number += 1;
        }
        self.period(number)
    }

    /// The whole periods that have time in common with `[from, to)`, in order; at most [`MAX_PERIODS`].
    pub fn periods(&self, from: i64, to: i64) -> Result<Vec<Period>, CalendarError> {
        let mut periods = Vec::new();
        if from >= to {
            return Ok(periods);
        }
        let mut period = self.containing(from)?;
        loop {
            if periods.len() == MAX_PERIODS {
                return Err(CalendarError::TooManyPeriods);
            }
            periods.push(period);
            if period.end >= to {
                return Ok(periods);
            }
            period = self.period(period.number + 1)?;
        }
    }

    /// Where period `number` starts. Rises with the number, except that passed-over periods start with the next one.
    fn start(&self, number: i64) -> Result<i64, CalendarError> {
        let date = match self.step {
            Step::Days(days) => plus_days(self.anchor.date(), number.checked_mul(days)),
            Step::Months(months) => plus_months(self.anchor.date(), number.checked_mul(months)),
        };
        first_instant(date?.to_datetime(self.anchor.time()), &self.zone)
    }

    /// The number of a period at or near a local time.
    fn estimate(&self, local: DateTime) -> Result<i64, CalendarError> {
        let (date, anchor) = (local.date(), self.anchor.date());
        Ok(match self.step {
            Step::Days(days) => days_between(anchor, date)?.div_euclid(days),
            Step::Months(months) => (month_index(date) - month_index(anchor)).div_euclid(months),
        })
    }
}

/// Local days, counted from 1970-01-01.
#[derive(Clone, Debug)]
pub struct DayCount(Cycle);

impl DayCount {
    pub fn new(zone: &TimeZone) -> DayCount {
        DayCount(Cycle { anchor: EPOCH.to_datetime(Time::midnight()), step: Step::Days(1), zone: zone.clone() })
    }

    /// The day that `at` is in, and whether some of it has passed by then. Days never go back: where the clock is put
    /// back over midnight, the new day goes on while it shows the old date again. A day that the zone skipped is counted.
    pub fn day(&self, at: i64) -> Result<(i64, bool), CalendarError> {
        let day = self.0.containing(at)?;
        Ok((day.number, day.start < at))
    }

    /// The date of a day that was counted.
    pub fn date(day: i64) -> Result<Date, CalendarError> {
        plus_days(EPOCH, Some(day))
    }
}

fn days_between(from: Date, to: Date) -> Result<i64, CalendarError> {
    Ok(i64::from(to.since(from).map_err(|_| CalendarError::OutOfRange)?.get_days()))
}

/// Months since the year 0.
fn month_index(date: Date) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month()) - 1
}

fn plus_days(date: Date, days: Option<i64>) -> Result<Date, CalendarError> {
    days.and_then(|days| Span::new().try_days(days).ok())
        .and_then(|span| date.checked_add(span).ok())
        .ok_or(CalendarError::OutOfRange)
}

/// The same day of another month, or that month's last.
fn plus_months(date: Date, months: Option<i64>) -> Result<Date, CalendarError> {
    let index = months.and_then(|months| month_index(date).checked_add(months)).ok_or(CalendarError::OutOfRange)?;
    let year = i16::try_from(index.div_euclid(12)).map_err(|_| CalendarError::OutOfRange)?;
    let month = index.rem_euclid(12) as i8 + 1; // 1 to 12
    let first = Date::new(year, month, 1).map_err(|_| CalendarError::OutOfRange)?;
    Date::new(year, month, date.day().min(first.days_in_month())).map_err(|_| CalendarError::OutOfRange)
}
