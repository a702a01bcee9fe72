//! Windows that a period is read in: of minutes to years, on the local clock.

use jiff::Span;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{CalendarError, DAY, SECOND, first_instant, local_date, timestamp, zone};

/// More windows than this in one answer are a mistake; a year of windows of five minutes is 105,408.
pub const MAX_WINDOWS: usize = 110_000;

/// The size of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A part of a day, in microseconds: divides a day.
    Time(i64),
    /// Any other length of time, in microseconds: counted from the start of the period.
    Elapsed(i64),
    /// Counted from the local day on which the period starts.
    Days(i32),
    /// Weeks start on Monday; several are counted from the week in which the period starts.
    Weeks(i32),
    /// 3 are calendar quarters; numbers that don't divide a year are counted from the month in which the period starts.
    Months(i32),
}

impl Window {
    pub fn parse(text: &str) -> Result<Window, CalendarError> {
        let unknown = || CalendarError::UnknownWindow(text.to_owned());
        let trimmed = text.trim_ascii();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = trimmed.split_at(digits);
        let count: i32 = if count.is_empty() { 1 } else { count.parse().map_err(|_| unknown())? };
        let unit = unit.trim_ascii().to_ascii_lowercase();
        if count <= 0 {
            return Err(unknown());
        }
        Ok(match unit.as_str() {
            "m" | "min" | "minute" | "minutes" => Window::time(count, 60 * SECOND),
            "h" | "hour" | "hours" => Window::time(count, 3_600 * SECOND),
            "d" | "day" | "days" => Window::Days(count),
            "w" | "week" | "weeks" => Window::Weeks(count),
            "month" | "months" => Window::Months(count),
            "quarter" | "quarters" => Window::Months(count.saturating_mul(3)),
            "y" | "year" | "years" => Window::Months(count.saturating_mul(12)),
            _ => return Err(unknown()),
        })
    }

    fn time(count: i32, unit: i64) -> Window {
        let size = i64::from(count) * unit;
        if DAY % size == 0 { Window::Time(size) } else { Window::Elapsed(size) }
    }
}

/// The windows of `[start, end)` in Unix microseconds: half-open, without gaps, cut off at both ends. Windows of a part
/// of a day start at its multiples on the local clock. Where the clock jumps into another window, that one starts at
/// the jump; so an hour that the clock repeats is two windows of one hour, and one that it skips is none.
pub fn windows(start: i64, end: i64, size: Window, zone_name: &str) -> Result<Vec<(i64, i64)>, CalendarError> {
    let zone = zone(zone_name)?;
    let mut cut = Cut { windows: Vec::new(), start, end };
    if start < end {
        match size {
            Window::Time(size) => cut_time(&mut cut, size, &zone)?,
            Window::Elapsed(size) => cut_elapsed(&mut cut, size)?,
            Window::Days(_) | Window::Weeks(_) | Window::Months(_) => cut_dates(&mut cut, size, &zone)?,
        }
        cut.windows.push((cut.start, cut.end));
    }
    Ok(cut.windows)
}

/// Windows cut so far; the last one, from `start` on, is still open.
struct Cut {
    windows: Vec<(i64, i64)>,
    start: i64,
    end: i64,
}

impl Cut {
    /// Closes the open window, unless the boundary falls outside of it.
    fn at(&mut self, boundary: i64) -> Result<(), CalendarError> {
        if boundary <= self.start || boundary >= self.end {
            return Ok(());
        }
        // The open window counts too.
        if self.windows.len() + 1 >= MAX_WINDOWS {
            return Err(CalendarError::TooManyWindows);
        }
        self.windows.push((self.start, boundary));
        self.start = boundary;
        Ok(())
    }
}

/// Between two transitions the local clock runs evenly: boundaries are plain arithmetic.
fn cut_time(cut: &mut Cut, size: i64, zone: &TimeZone) -> Result<(), CalendarError> {
    let first = timestamp(cut.start)?;
    let mut transitions = zone.following(first);
    let mut offset = i64::from(zone.to_offset(first).seconds()) * SECOND;
    let mut from = cut.start;
    loop {
        let transition =
            transitions.next().map(|transition| (transition.timestamp().as_microsecond(), transition.offset()));
        let to = transition.map_or(cut.end, |(at, _)| at.min(cut.end));
        let mut boundary = from + (-(from + offset)).rem_euclid(size);
        while boundary < to {
            cut.at(boundary)?;
            boundary += size;
        }
        let Some((at, next)) = transition.filter(|(at, _)| *at < cut.end) else {
            return Ok(());
        };
        let next = i64::from(next.seconds()) * SECOND;
        if (at - 1 + offset).div_euclid(size) != (at + next).div_euclid(size) {
            cut.at(at)?;
        }
        (from, offset) = (at, next);
    }
}

/// Hours of 36, minutes of 7: no local clock shows their multiples, so they run from the start.
fn cut_elapsed(cut: &mut Cut, size: i64) -> Result<(), CalendarError> {
    let mut boundary = cut.start.saturating_add(size);
    while boundary < cut.end {
        cut.at(boundary)?;
        boundary = boundary.saturating_add(size);
    }
    Ok(())
}

fn cut_dates(cut: &mut Cut, size: Window, zone: &TimeZone) -> Result<(), CalendarError> {
    let today = local_date(cut.start, zone)?;
    let mut date = match size {
        Window::Weeks(_) => {
            let monday = i32::from(today.weekday().to_monday_zero_offset());
            today.checked_sub(Span::new().days(monday)).unwrap_or(today)
        }
        Window::Months(size) => {
            let month = i32::from(today.month() - 1);
            let past = if 12 % size == 0 { month % size } else { 0 };
            Date::new(today.year(), (month - past + 1) as i8, 1).map_err(|_| CalendarError::OutOfRange)?
        }
        Window::Days(_) | Window::Time(_) | Window::Elapsed(_) => today,
    };
    // Past the last year the calendar knows, there is no further boundary.
    while let Some(next) = after(date, size) {
        let midnight = first_instant(next.at(0, 0, 0, 0), zone);
        let Some(boundary) = midnight.ok().filter(|boundary| *boundary < cut.end) else {
            return Ok(());
        };
        cut.at(boundary)?;
        date = next;
    }
    Ok(())
}

fn after(date: Date, size: Window) -> Option<Date> {
    let span = match size {
        Window::Days(count) => Span::new().try_days(count),
        Window::Weeks(count) => Span::new().try_weeks(count),
        Window::Months(count) => Span::new().try_months(count),
        Window::Time(_) | Window::Elapsed(_) => return None,
    };
    date.checked_add(span.ok()?).ok()
}
