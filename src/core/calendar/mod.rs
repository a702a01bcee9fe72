//! Time as people are billed: windows of a period, and the periods of a billing cycle, in a time zone.
//!
//! All times are Unix microseconds and all stretches half-open. The zones are those compiled into this build, not the
//! machine's: an invoice must come out the same on every server that runs the same version.
//!
//! # Local time to instants
//! There is one rule, [`first_instant`]: a local date and time stands for the first instant at which the clock there
//! shows it or anything later. Where the clock skips it, that is the moment of the jump; where the clock shows it
//! twice, the first time. The rule never puts a later local time before an earlier one, which is all that windows and
//! periods need to tile time.

mod cycle;
mod windows;

use std::fmt;
use std::sync::LazyLock;

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

pub use cycle::{Cycle, DayCount, Interval, MAX_PERIODS, Period, Piece};
pub use windows::{MAX_WINDOWS, Window, windows};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalendarError {
    UnknownZone(String),
    UnknownWindow(String),
    UnknownInterval(String),
    /// An interval of no or of a negative number of units.
    IntervalCount(i32),
    TooManyWindows,
    TooManyPeriods,
    /// Something was to be measured against a period that ends where it starts, or before.
    EmptyPeriod,
    /// Not within the years that the calendar knows.
    OutOfRange,
}

impl fmt::Display for CalendarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalendarError::UnknownZone(name) => {
                write!(f, "time zone {name:?} is unknown; write a name such as UTC or Europe/Berlin")
            }
            CalendarError::UnknownWindow(text) => write!(
                f,
                "window size {text:?} is unknown; write minute, hour, day, week, month, quarter or year, or a number of them such as 15 minutes"
            ),
            CalendarError::UnknownInterval(text) => {
                write!(f, "billing interval {text:?} is unknown; write day, week, month, quarter or year")
            }
            CalendarError::IntervalCount(count) => {
                write!(f, "a billing interval is of one or more units, not of {count}")
            }
            CalendarError::TooManyWindows => {
                write!(f, "the period has more than {MAX_WINDOWS} windows; ask for a shorter period or larger windows")
            }
            CalendarError::TooManyPeriods => {
                write!(f, "there are more than {MAX_PERIODS} billing periods; ask for a shorter stretch of time")
            }
            CalendarError::EmptyPeriod => f.write_str("the period ends where it starts, or before"),
            CalendarError::OutOfRange => f.write_str("time is outside of the years 1 to 9999"),
        }
    }
}

impl std::error::Error for CalendarError {}

/// Refuses a name that is no time zone.
pub fn check_zone(name: &str) -> Result<(), CalendarError> {
    zone(name).map(|_| ())
}

/// The time zone of an IANA name such as Europe/Berlin.
pub fn zone(name: &str) -> Result<TimeZone, CalendarError> {
    ZONES.get(name).map_err(|_| CalendarError::UnknownZone(name.to_owned()))
}

/// What the clock of a zone shows at `at`, and `span` on the calendar later, as an instant.
pub fn later(at: i64, span: jiff::Span, zone_name: &str) -> Result<i64, CalendarError> {
    let zone = zone(zone_name)?;
    let later = local(at, &zone)?.checked_add(span).map_err(|_| CalendarError::OutOfRange)?;
    first_instant(later, &zone)
}

/// The first instant at which the clock of `zone` shows `local` or anything later.
fn first_instant(local: DateTime, zone: &TimeZone) -> Result<i64, CalendarError> {
    let as_utc = Offset::UTC.to_timestamp(local).map_err(|_| CalendarError::OutOfRange)?;
    // No clock is 26 hours away from UTC, so before this instant none has shown `local`.
    let start = as_utc.checked_sub(SignedDuration::from_hours(26)).map_err(|_| CalendarError::OutOfRange)?;
    let as_utc = as_utc.as_microsecond();
    let (mut from, mut offset) = (start.as_microsecond(), zone.to_offset(start));
    // Between two transitions the clock runs evenly.
    for transition in zone.following(start) {
        let at = from.max(as_utc - micros(offset));
        let until = transition.timestamp().as_microsecond();
        if at < until {
            return Ok(at);
        }
        (from, offset) = (until, transition.offset());
    }
    Ok(from.max(as_utc - micros(offset)))
}

fn micros(offset: Offset) -> i64 {
    i64::from(offset.seconds()) * SECOND
}

fn local(at: i64, zone: &TimeZone) -> Result<DateTime, CalendarError> {
    Ok(zone.to_datetime(timestamp(at)?))
}

fn local_date(at: i64, zone: &TimeZone) -> Result<Date, CalendarError> {
    Ok(local(at, zone)?.date())
}

fn timestamp(micros: i64) -> Result<Timestamp, CalendarError> {
    Timestamp::from_microsecond(micros).map_err(|_| CalendarError::OutOfRange)
}
