//! Calendar windows: exact cover of the period in every time zone there is.

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use proptest::prelude::*;

use crate::core::calendar::{CalendarError, MAX_WINDOWS, Window, windows};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}")).as_microsecond()
}

fn cut(start: &str, end: &str, size: &str, zone: &str) -> Vec<String> {
    let found = windows(at(start), at(end), Window::parse(size).unwrap(), zone).unwrap();
    assert_cover(&found, at(start), at(end));
    found.iter().map(|(start, _)| Timestamp::from_microsecond(*start).unwrap().to_string()).collect()
}

fn assert_cover(found: &[(i64, i64)], start: i64, end: i64) {
    assert_eq!(found.first().map(|window| window.0), Some(start));
    assert_eq!(found.last().map(|window| window.1), Some(end));
    assert!(found.iter().all(|(start, end)| start < end));
    assert!(found.iter().zip(found.iter().skip(1)).all(|(left, right)| left.1 == right.0));
}

fn hours(start: &str, end: &str, size: &str, zone: &str) -> Vec<i64> {
    let found = windows(at(start), at(end), Window::parse(size).unwrap(), zone).unwrap();
    found.iter().map(|(start, end)| (end - start) / (HOUR / 2)).collect()
}

#[test]
fn sizes() {
    let minutes = |count: i64| Ok(Window::Time(count * 60 * SECOND));
    for (text, expected) in [
        ("minute", minutes(1)),
        ("5 minutes", minutes(5)),
        ("15m", minutes(15)),
        ("1 hour", minutes(60)),
        ("HOUR", minutes(60)),
        (" 3 hours ", minutes(180)),
        ("1440 min", minutes(1440)),
        ("day", Ok(Window::Days(1))),
        ("7 days", Ok(Window::Days(7))),
        ("week", Ok(Window::Weeks(1))),
        ("month", Ok(Window::Months(1))),
        ("1 month", Ok(Window::Months(1))),
        ("quarter", Ok(Window::Months(3))),
        ("2 quarters", Ok(Window::Months(6))),
        ("2 years", Ok(Window::Months(24))),
        ("36 hours", Ok(Window::Elapsed(36 * HOUR))),
        ("7 minutes", Ok(Window::Elapsed(7 * HOUR / 60))),
        ("year", Ok(Window::Months(12))),
    ] {
        assert_eq!(Window::parse(text), expected, "{text}");
    }
    for text in ["", "0 days", "-1 day", "1.5 hours", "fortnight", "day 1", "99999999999 days", "1 day 2 hours", "5"] {
        assert_eq!(Window::parse(text), Err(CalendarError::UnknownWindow(text.to_owned())), "{text}");
    }
    assert_eq!(Window::parse("2147483647 years"), Ok(Window::Months(i32::MAX)));
}

/// Lengths that no calendar has: from the start of the period, whatever the clock does.
#[test]
fn any_length_runs_from_the_start() {
    let (start, end) = (at("2026-03-28T12:00:00Z"), at("2026-04-01T00:00:00Z"));
    let bounds: Vec<i64> = ["2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z", "2026-03-31T12:00:00Z"].map(at).to_vec();
    let found = windows(start, end, Window::parse("36 hours").unwrap(), "Europe/Berlin").unwrap();
    assert_eq!(found.iter().map(|window| window.0).collect::<Vec<_>>(), bounds);
    assert_cover(&found, start, end);
    let found = windows(at("2026-02-10T00:00:00Z"), at("2027-01-01T00:00:00Z"), Window::Months(5), "UTC").unwrap();
    assert_eq!(
        found.iter().map(|window| window.0).skip(1).collect::<Vec<_>>(),
        ["2026-07-01T00:00:00Z", "2026-12-01T00:00:00Z"].map(at)
    );
}

#[test]
fn clips_both_ends() {
    assert_eq!(
        cut("2026-01-01T10:30:00Z", "2026-01-01T12:15:00Z", "hour", "UTC"),
        ["2026-01-01T10:30:00Z", "2026-01-01T11:00:00Z", "2026-01-01T12:00:00Z"]
    );
    assert_eq!(cut("2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", "hour", "UTC"), ["2026-01-01T10:00:00Z"]);
    assert_eq!(cut("2026-01-01T10:10:00Z", "2026-01-01T10:11:00Z", "year", "UTC").len(), 1);
    assert_eq!(windows(5, 5, Window::Days(1), "UTC"), Ok(vec![]));
    assert_eq!(windows(6, 5, Window::Time(HOUR), "UTC"), Ok(vec![]));
    assert_eq!(windows(5, 6, Window::Days(1), "UTC"), Ok(vec![(5, 6)]));
    assert_eq!(cut("1969-12-31T22:30:00Z", "1970-01-01T01:30:00Z", "hour", "UTC").len(), 4);
}

#[test]
fn weeks_months_quarters_and_years_are_the_calendar_s() {
    assert_eq!(
        cut("2026-01-01T00:00:00Z", "2026-01-13T00:00:00Z", "week", "UTC"),
        ["2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"]
    );
    assert_eq!(
        cut("2026-01-01T00:00:00Z", "2026-01-13T00:00:00Z", "2 weeks", "UTC"),
        ["2026-01-01T00:00:00Z", "2026-01-12T00:00:00Z"]
    );
    assert_eq!(
        cut("2026-01-02T06:00:00Z", "2026-01-17T00:00:00Z", "7 days", "UTC"),
        ["2026-01-02T06:00:00Z", "2026-01-09T00:00:00Z", "2026-01-16T00:00:00Z"]
    );
    assert_eq!(
        cut("2024-01-31T12:00:00Z", "2024-03-02T00:00:00Z", "month", "UTC"),
        ["2024-01-31T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"]
    );
    assert_eq!(
        cut("2026-02-15T00:00:00Z", "2026-10-02T00:00:00Z", "quarter", "UTC"),
        ["2026-02-15T00:00:00Z", "2026-04-01T00:00:00Z", "2026-07-01T00:00:00Z", "2026-10-01T00:00:00Z"]
    );
    assert_eq!(
        cut("2026-12-30T00:00:00Z", "2028-01-02T00:00:00Z", "year", "UTC"),
        ["2026-12-30T00:00:00Z", "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]
    );
    assert_eq!(
        cut("2026-02-10T00:00:00Z", "2026-05-10T00:00:00Z", "2 months", "UTC"),
        ["2026-02-10T00:00:00Z", "2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z"]
    );
}

#[test]
fn daylight_saving_changes_the_length_of_days() {
    // In half hours.
    assert_eq!(hours("2026-03-07T05:00:00Z", "2026-03-10T04:00:00Z", "day", "America/New_York"), [48, 46, 48]);
    assert_eq!(hours("2026-10-31T04:00:00Z", "2026-11-03T05:00:00Z", "day", "America/New_York"), [48, 50, 48]);
    assert_eq!(hours("2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", "hour", "America/New_York"), [2; 23]);
    assert_eq!(hours("2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", "hour", "America/New_York"), [2; 25]);
    assert_eq!(hours("2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", "6 hours", "America/New_York"), [10, 12, 12, 12]);
    assert_eq!(hours("2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", "6 hours", "America/New_York"), [14, 12, 12, 12]);
    // The skipped hour holds the boundary of the second window.
    assert_eq!(hours("2026-03-08T05:00:00Z", "2026-03-08T10:00:00Z", "2 hours", "America/New_York"), [4, 2, 4]);
}

#[test]
fn odd_zones() {
    assert_eq!(
        cut("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "day", "Asia/Kolkata"),
        ["2026-01-01T00:00:00Z", "2026-01-01T18:30:00Z"]
    );
    assert_eq!(
        cut("2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z", "hour", "Asia/Kathmandu"),
        ["2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z", "2026-01-01T01:15:00Z"]
    );
    // Lord Howe moves by half an hour: the hour after two is cut short in spring, the one before two is long in autumn.
    assert_eq!(hours("2026-10-03T13:30:00Z", "2026-10-04T12:30:00Z", "hour", "Australia/Lord_Howe")[..4], [2, 2, 1, 2]);
    assert_eq!(hours("2026-04-04T13:00:00Z", "2026-04-05T13:00:00Z", "hour", "Australia/Lord_Howe")[..3], [2, 3, 2]);
    // Midnight does not exist: São Paulo 2018-11-04 started at 1 o'clock, Toronto 1919-03-31 at half past midnight.
    assert_eq!(
        cut("2018-11-03T03:00:00Z", "2018-11-05T02:00:00Z", "day", "America/Sao_Paulo"),
        ["2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z"]
    );
    assert_eq!(
        cut("1919-03-30T05:00:00Z", "1919-04-01T04:00:00Z", "day", "America/Toronto"),
        ["1919-03-30T05:00:00Z", "1919-03-31T04:30:00Z"]
    );
    // Samoa skipped 2011-12-30.
    assert_eq!(
        cut("2011-12-29T10:00:00Z", "2012-01-01T10:00:00Z", "day", "Pacific/Apia"),
        ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"]
    );
}

#[test]
fn limits_and_errors() {
    let day = 24 * HOUR;
    let minute = Window::parse("minute").unwrap();
    let most = MAX_WINDOWS as i64 * 60 * SECOND;
    assert_eq!(windows(0, most, minute, "UTC").map(|found| found.len()), Ok(MAX_WINDOWS));
    assert_eq!(windows(0, most + 1, minute, "UTC"), Err(CalendarError::TooManyWindows));
    assert_eq!(windows(0, MAX_WINDOWS as i64 * day + 1, Window::Days(1), "UTC"), Err(CalendarError::TooManyWindows));
    assert!(CalendarError::TooManyWindows.to_string().contains("110000"));
    for zone in ["", "Mars/Olympus", "../etc/passwd", "utc\0"] {
        assert_eq!(windows(0, 1, minute, zone), Err(CalendarError::UnknownZone(zone.to_owned())));
    }
    for (start, end) in [(i64::MIN, 0), (i64::MAX - 1, i64::MAX), (i64::MIN, i64::MAX)] {
        for size in [minute, Window::Days(1), Window::Weeks(1), Window::Months(1)] {
            assert!(windows(start, end, size, "Europe/Berlin").is_err());
        }
    }
    assert_eq!(windows(0, i64::MAX, Window::Months(12), "UTC").unwrap().last().map(|window| window.1), Some(i64::MAX));
    assert_eq!(windows(0, day, Window::Days(i32::MAX), "UTC").map(|found| found.len()), Ok(1));
}

/// Every zone, several sizes, around every transition of a century: the windows cover the period exactly.
#[test]
fn every_zone_is_covered_exactly() {
    let database = TimeZoneDatabase::bundled();
    let sizes = ["30 minutes", "hour", "6 hours", "day", "7 days", "week", "month", "quarter"]
        .map(|size| Window::parse(size).unwrap());
    let mut zones = 0;
    for name in database.available() {
        zones += 1;
        let zone = database.get(name.as_str()).unwrap();
        let (first, last) = (at("1900-01-01T00:00:00Z"), at("2040-01-01T00:00:00Z"));
        for transition in zone.following(Timestamp::from_microsecond(first).unwrap()) {
            let jump = transition.timestamp().as_microsecond();
            if jump > last {
                break;
            }
            let (start, end) = (jump - 26 * HOUR - 17, jump + 31 * HOUR + 5);
            for size in sizes {
                let found = windows(start, end, size, name.as_str()).unwrap();
                assert_cover(&found, start, end);
                let longest = found.iter().map(|(start, end)| end - start).max().unwrap();
                if let Window::Time(size) = size {
                    assert!(longest <= size + 24 * HOUR, "{name} {jump}");
                }
            }
        }
    }
    assert!(zones > 300, "only {zones} zones");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A boundary belongs to the zone, not to the period asked for: asking for a part gives the same boundaries.
    #[test]
    fn parts_have_the_boundaries_of_the_whole(
        zone in prop_oneof![Just("UTC"), Just("America/New_York"), Just("Australia/Lord_Howe"), Just("America/St_Johns"), Just("Africa/Casablanca"), Just("Asia/Gaza")],
        size in prop_oneof![Just("30m"), Just("hour"), Just("4 hours"), Just("day"), Just("week"), Just("month"), Just("quarter")],
        start in at("1980-01-01T00:00:00Z")..at("2030-01-01T00:00:00Z"),
        length in 1..400 * HOUR,
        part in 0..400 * HOUR,
    ) {
        let (end, middle) = (start + length, start + part % length);
        let size = Window::parse(size).unwrap();
        let starts = |from| windows(from, end, size, zone).unwrap().iter().map(|window| window.0).filter(|start| *start > middle).collect::<Vec<_>>();
        prop_assert_eq!(starts(start), if middle < end { starts(middle) } else { vec![] });
        assert_cover(&windows(start, end, size, zone).unwrap(), start, end);
    }

    /// Days against the definition: a window never holds two local dates, unless the clock went back over midnight.
    #[test]
    fn days_are_local_dates(start in at("2000-01-01T00:00:00Z")..at("2030-01-01T00:00:00Z"), zone in prop_oneof![Just("America/Sao_Paulo"), Just("Pacific/Apia"), Just("Asia/Tehran"), Just("Europe/London")]) {
        let tz = TimeZoneDatabase::bundled().get(zone).unwrap();
        let date = |micros: i64| tz.to_datetime(Timestamp::from_microsecond(micros).unwrap()).date();
        let found = windows(start, start + 10 * 24 * HOUR, Window::Days(1), zone).unwrap();
        for window in &found {
            prop_assert_eq!(date(window.0), date(window.1 - 1));
        }
        for pair in found.windows(2) {
            prop_assert!(date(pair[0].0) < date(pair[1].0));
        }
    }

    #[test]
    fn sizes_never_panic(text in "\\PC{0,20}", count in any::<u64>(), unit in "[a-z]{0,8}") {
        let _ = Window::parse(&text);
        let _ = Window::parse(&format!("{count} {unit}"));
        let _ = Window::parse(&format!("{count} years"));
        let _ = Window::parse(&format!("{count}m"));
    }
}
