//! Billing periods: they tile time in every time zone there is, through every change of every clock.

use std::collections::HashSet;

use jiff::civil::{DateTime, Time, date};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use crate::core::calendar::{CalendarError, Cycle, DayCount, Interval, MAX_PERIODS, Period, zone};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}")).as_microsecond()
}

fn shown(micros: i64) -> String {
    Timestamp::from_microsecond(micros).unwrap().to_string()
}

fn local(text: &str) -> DateTime {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Starts of periods `numbers`, as UTC dates and times, or as local dates where they are all midnights.
fn starts(cycle: &Cycle, numbers: std::ops::RangeInclusive<i64>) -> Vec<String> {
    numbers.map(|number| shown(cycle.period(number).unwrap().start)).collect()
}

fn dates(cycle: &Cycle, zone_name: &str, numbers: std::ops::RangeInclusive<i64>) -> Vec<String> {
    let zone = zone(zone_name).unwrap();
    let local = |number| {
        let start = Timestamp::from_microsecond(cycle.period(number).unwrap().start).unwrap();
        let start = zone.to_datetime(start);
        assert_eq!(start.time(), Time::midnight());
        start.date().to_string()
    };
    numbers.map(local).collect()
}

fn anniversary(interval: Interval, anchor: &str, zone: &str) -> Cycle {
    Cycle::anniversary(interval, local(anchor), zone).unwrap()
}

fn aligned(interval: Interval, anchor: &str, zone: &str) -> Cycle {
    Cycle::aligned(interval, local(anchor), zone).unwrap()
}

#[test]
fn intervals() {
    for (unit, count, expected) in [
        ("day", 1, Ok(Interval::Days(1))),
        ("week", 2, Ok(Interval::Weeks(2))),
        ("month", 1, Ok(Interval::Months(1))),
        ("quarter", 1, Ok(Interval::Months(3))),
        ("quarter", 2, Ok(Interval::Months(6))),
        ("year", 3, Ok(Interval::Years(3))),
        ("quarter", i32::MAX, Err(CalendarError::OutOfRange)),
        ("month", 0, Err(CalendarError::IntervalCount(0))),
        ("day", -1, Err(CalendarError::IntervalCount(-1))),
        ("Month", 1, Err(CalendarError::UnknownInterval("Month".to_owned()))),
        ("", 1, Err(CalendarError::UnknownInterval(String::new()))),
    ] {
        assert_eq!(Interval::parse(unit, count), expected, "{unit} {count}");
    }
    let anchor = local("2026-01-01T00:00");
    for interval in [Interval::Days(0), Interval::Weeks(-1), Interval::Months(0), Interval::Years(i32::MIN)] {
        assert!(matches!(Cycle::aligned(interval, anchor, "UTC"), Err(CalendarError::IntervalCount(_))));
        assert!(matches!(Cycle::anniversary(interval, anchor, "UTC"), Err(CalendarError::IntervalCount(_))));
    }
    let unknown = Cycle::aligned(Interval::Months(1), anchor, "Mars/Olympus").map(|_| ());
    assert_eq!(unknown, Err(CalendarError::UnknownZone("Mars/Olympus".to_owned())));
}

#[test]
fn a_month_without_the_anchor_s_day_ends_early_and_the_next_has_it_again() {
    let month = Interval::Months(1);
    assert_eq!(
        dates(&anniversary(month, "2026-01-31T00:00", "UTC"), "UTC", -2..=5),
        [
            "2025-11-30",
            "2025-12-31",
            "2026-01-31",
            "2026-02-28",
            "2026-03-31",
            "2026-04-30",
            "2026-05-31",
            "2026-06-30"
        ]
    );
    assert_eq!(
        dates(&anniversary(month, "2024-01-30T00:00", "Europe/Berlin"), "Europe/Berlin", 0..=2),
        ["2024-01-30", "2024-02-29", "2024-03-30"]
    );
    assert_eq!(
        dates(&anniversary(Interval::Years(1), "2024-02-29T00:00", "Asia/Tokyo"), "Asia/Tokyo", -1..=4),
        ["2023-02-28", "2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]
    );
    assert_eq!(
        dates(&anniversary(Interval::Months(3), "2025-11-30T00:00", "UTC"), "UTC", 0..=2),
        ["2025-11-30", "2026-02-28", "2026-05-30"]
    );
    // In between the boundaries as well: 28 Feb is the third period's first day, 27 Feb the second's last.
    let cycle = anniversary(month, "2026-01-31T00:00", "UTC");
    assert_eq!(cycle.containing(at("2026-02-27T23:59:59.999999Z")).unwrap().number, 0);
    assert_eq!(cycle.containing(at("2026-02-28T00:00:00Z")).unwrap().number, 1);
    assert_eq!(cycle.containing(at("2026-03-30T23:59:59.999999Z")).unwrap().number, 1);
}

#[test]
fn aligned_periods_are_the_calendar_s() {
    let anchor = "2026-08-19T13:45:10";
    for (interval, expected) in [
        (Interval::Days(1), ["2026-08-18", "2026-08-19", "2026-08-20"]),
        (Interval::Days(10), ["2026-08-09", "2026-08-19", "2026-08-29"]),
        (Interval::Weeks(1), ["2026-08-10", "2026-08-17", "2026-08-24"]),
        (Interval::Weeks(2), ["2026-08-03", "2026-08-17", "2026-08-31"]),
        (Interval::Months(1), ["2026-07-01", "2026-08-01", "2026-09-01"]),
        (Interval::Months(2), ["2026-05-01", "2026-07-01", "2026-09-01"]),
        (Interval::Months(3), ["2026-04-01", "2026-07-01", "2026-10-01"]),
        (Interval::Months(4), ["2026-01-01", "2026-05-01", "2026-09-01"]),
        (Interval::Months(5), ["2026-03-01", "2026-08-01", "2027-01-01"]),
        (Interval::Months(6), ["2026-01-01", "2026-07-01", "2027-01-01"]),
        (Interval::Months(12), ["2025-01-01", "2026-01-01", "2027-01-01"]),
        (Interval::Months(13), ["2025-07-01", "2026-08-01", "2027-09-01"]),
        (Interval::Years(1), ["2025-01-01", "2026-01-01", "2027-01-01"]),
        (Interval::Years(2), ["2024-01-01", "2026-01-01", "2028-01-01"]),
    ] {
        for zone in ["UTC", "America/New_York", "Australia/Lord_Howe"] {
            assert_eq!(dates(&aligned(interval, anchor, zone), zone, -1..=1), expected, "{interval:?} {zone}");
        }
    }
}

#[test]
fn an_anchor_as_an_instant_is_what_the_clock_of_the_zone_shows() {
    let new_year = at("2026-01-01T00:30:00Z");
    let month = Interval::Months(1);
    let new_york = Cycle::at(month, new_year, false, "America/New_York").unwrap();
    assert_eq!(
        starts(&new_york, 0..=3),
        ["2026-01-01T00:30:00Z", "2026-02-01T00:30:00Z", "2026-03-01T00:30:00Z", "2026-03-31T23:30:00Z"]
    );
    let aligned = Cycle::at(month, new_year, true, "America/New_York").unwrap();
    assert_eq!(dates(&aligned, "America/New_York", 0..=1), ["2025-12-01", "2026-01-01"]);
    assert_eq!(Cycle::at(month, i64::MAX, true, "UTC").map(|_| ()), Err(CalendarError::OutOfRange));
    // What PostgreSQL can't keep is dropped from an anchor.
    let fine = Cycle::anniversary(month, date(2026, 1, 1).at(0, 0, 0, 1_999), "UTC").unwrap();
    assert_eq!(fine.period(0).unwrap().start, at("2026-01-01T00:00:00.000001Z"));
}

#[test]
fn boundaries_that_the_clock_skips_or_repeats() {
    let day = Interval::Days(1);
    // Half past two: skipped in Berlin on 29 March 2026, where the day's period starts with the jump at 1:00 UTC; shown
    // twice on 25 October, where it starts the first time.
    let berlin = anniversary(day, "2026-03-28T02:30", "Europe/Berlin");
    assert_eq!(starts(&berlin, 0..=2), ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    assert_eq!(starts(&berlin, 210..=212), ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    // No midnight: São Paulo 2018-11-04 begins at one o'clock.
    let sao_paulo = aligned(Interval::Weeks(1), "2018-11-04T12:00", "America/Sao_Paulo");
    assert_eq!(sao_paulo.containing(at("2018-11-04T03:00:00Z")).unwrap().number, 0);
    let sao_paulo = aligned(day, "2018-11-04T12:00", "America/Sao_Paulo");
    assert_eq!(starts(&sao_paulo, 0..=1), ["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]);
}

#[test]
fn a_skipped_day_has_no_period() {
    for (zone, anchor, jump) in [
        ("Pacific/Apia", "2011-12-29T00:00", "2011-12-30T10:00:00Z"),
        ("Pacific/Kwajalein", "1993-08-20T00:00", "1993-08-21T12:00:00Z"),
    ] {
        let days = anniversary(Interval::Days(1), anchor, zone);
        let jump = at(jump);
        assert_eq!(days.period(0), Ok(Period { number: 0, start: jump - DAY, end: jump }), "{zone}");
        let next = Period { number: 2, start: jump, end: jump + DAY };
        assert_eq!((days.period(1), days.period(2), days.containing(jump)), (Ok(next), Ok(next), Ok(next)), "{zone}");
        assert_eq!(days.containing(jump - 1).unwrap().number, 0);
        let found = days.periods(jump - 1, jump + DAY + 1).unwrap();
        assert_eq!(found.iter().map(|period| period.number).collect::<Vec<_>>(), [0, 2, 3]);
        // A daily period from noon to noon loses its middle, and two of them are twelve hours.
        let noons = anniversary(Interval::Days(1), &anchor.replace("T00", "T12"), zone);
        assert_eq!(noons.period(0).unwrap().end, jump);
        assert_eq!(noons.period(1), Ok(Period { number: 1, start: jump, end: jump + 12 * HOUR }));
        // A week has six days, and a month that starts on the skipped day starts the day after.
        let weeks = anniversary(Interval::Weeks(1), anchor, zone).period(0).unwrap();
        assert_eq!(weeks.end - weeks.start, 6 * DAY);
        let count = DayCount::new(&crate::core::calendar::zone(zone).unwrap());
        assert_eq!(count.day(jump).unwrap().0 - count.day(jump - 1).unwrap().0, 2);
    }
    let months = anniversary(Interval::Months(1), "2011-10-30T00:00", "Pacific/Apia");
    assert_eq!(months.period(2).unwrap().start, at("2011-12-30T10:00:00Z"));
}

#[test]
fn stubs_know_their_period() {
    let cycle = aligned(Interval::Months(1), "2026-01-01T00:00", "UTC");
    let (start, end) = (at("2026-01-20T12:00:00Z"), at("2026-03-05T00:00:00Z"));
    let periods = cycle.periods(start, end).unwrap();
    let pieces: Vec<_> = periods.iter().filter_map(|period| period.cut(start, end)).collect();
    assert_eq!(pieces.iter().map(|piece| piece.period).collect::<Vec<_>>(), periods);
    assert_eq!(pieces.iter().map(|piece| piece.start).collect::<Vec<_>>(), [start, periods[1].start, periods[2].start]);
    assert_eq!(pieces.iter().map(|piece| piece.end).collect::<Vec<_>>(), [periods[0].end, periods[1].end, end]);
    assert_eq!(periods[0].cut(periods[0].end, i64::MAX), None);
    assert_eq!(periods[0].cut(i64::MIN, periods[0].start), None);
    let whole = periods[0].cut(i64::MIN, i64::MAX).unwrap();
    assert_eq!((whole.start, whole.end), (periods[0].start, periods[0].end));
    assert_eq!(periods[0].cut(start, start), None);
}

#[test]
fn limits_and_errors() {
    let days = aligned(Interval::Days(1), "2026-01-01T00:00", "Europe/Berlin");
    let first = days.period(0).unwrap().start;
    assert_eq!(days.periods(first, first), Ok(vec![]));
    assert_eq!(days.periods(first + 1, first), Ok(vec![]));
    assert_eq!(days.periods(first, first + 1).unwrap().len(), 1);
    let utc = aligned(Interval::Days(1), "1900-01-01T00:00", "UTC");
    let first = utc.period(0).unwrap().start;
    assert_eq!(utc.periods(first, first + MAX_PERIODS as i64 * DAY).unwrap().len(), MAX_PERIODS);
    assert_eq!(utc.periods(first, first + MAX_PERIODS as i64 * DAY + 1), Err(CalendarError::TooManyPeriods));
    assert!(CalendarError::TooManyPeriods.to_string().contains("110000"));
    let extremes = [i64::MIN, i64::MIN + 1, -377_705_023_201_000_000, 253_402_207_200_999_999, i64::MAX - 1, i64::MAX];
    for count in [1, 2, 13, i32::MAX] {
        for interval in [Interval::Days(count), Interval::Weeks(count), Interval::Months(count), Interval::Years(count)]
        {
            for zone in ["UTC", "Pacific/Kiritimati", "America/New_York"] {
                let cycle = anniversary(interval, "2026-01-31T10:00", zone);
                for extreme in extremes {
                    assert_eq!(cycle.containing(extreme), Err(CalendarError::OutOfRange), "{interval:?} {extreme}");
                }
                assert_eq!(cycle.period(i64::MIN), Err(CalendarError::OutOfRange));
                assert_eq!(cycle.period(i64::MAX), Err(CalendarError::OutOfRange));
            }
        }
    }
    assert!(Cycle::aligned(Interval::Weeks(1), DateTime::MIN, "UTC").is_ok_and(|cycle| cycle.period(0).is_err()));
    assert!(Cycle::aligned(Interval::Years(1), DateTime::MAX, "UTC").is_ok_and(|cycle| cycle.period(0).is_err()));
}

/// The first instant at which the clock shows `local` or later, from the definition: no clock before it has shown it.
fn is_first(zone: &TimeZone, local: DateTime, instant: i64) -> bool {
    let stamp = Timestamp::from_microsecond(instant).unwrap();
    let reached = |at: Timestamp| zone.to_datetime(at) >= local;
    // Between transitions the clock only rises, so before them, and right before the instant, is where to look.
    let tick = 1.microsecond();
    let mut latest = zone.preceding(stamp).map(|transition| transition.timestamp() - tick);
    reached(stamp)
        && !reached(stamp - tick)
        && latest.by_ref().take_while(|at| instant - at.as_microsecond() < 3 * DAY).all(|at| !reached(at))
}

/// All that is promised of the periods around `at`.
fn check(cycle: &Cycle, zone: &TimeZone, interval: Interval, anchor: DateTime, at: i64) {
    let about = || format!("{interval:?} from {anchor} in {:?} at {}", zone.iana_name(), shown(at));
    let this = cycle.containing(at).unwrap();
    assert!(this.start <= at && at < this.end, "{}", about());
    let next = cycle.period(this.number + 1).unwrap();
    let last = cycle.containing(this.start - 1).unwrap();
    // They tile: each ends where the next starts, none is empty, numbers rise.
    assert!(last.end == this.start && this.end == next.start, "{}", about());
    assert!(last.start < last.end && next.start < next.end, "{}", about());
    assert!(last.number < this.number && this.number < next.number, "{}", about());
    // A number passed over is that of a skipped day, and leads to the period after it.
    for number in last.number + 1..=this.number {
        assert_eq!(cycle.period(number), Ok(this), "{}", about());
        assert!(number == this.number || interval == Interval::Days(1), "{}", about());
    }
    // Number to time to number, at both ends.
    assert_eq!(cycle.containing(this.start), Ok(this), "{}", about());
    assert_eq!(cycle.containing(this.end - 1), Ok(this), "{}", about());
    assert_eq!(cycle.containing(this.end), Ok(next), "{}", about());
    // Where the boundary is, by another calendar arithmetic and another way to an instant.
    let date = match interval {
        Interval::Days(count) => anchor + (i64::from(count) * this.number).days(),
        Interval::Weeks(count) => anchor + (i64::from(count) * this.number).weeks(),
        Interval::Months(count) => anchor + (i64::from(count) * this.number).months(),
        Interval::Years(count) => anchor + (i64::from(count) * this.number).years(),
    };
    assert!(is_first(zone, date, this.start), "{}: {date} is not {}", about(), shown(this.start));
}

/// Every zone of the database, every change of its clock to 2040, every unit: cycles with a boundary right at the
/// change, before it and after it, of any count, checked at the change, right before it or around it.
#[test]
fn every_change_of_every_clock() {
    let database = TimeZoneDatabase::bundled();
    let (mut zones, mut changes, mut skipped_days) = (0, 0_usize, 0);
    let mut histories = HashSet::new();
    for name in database.available() {
        zones += 1;
        let zone = database.get(name.as_str()).unwrap();
        let first = Timestamp::from_microsecond(at("1840-01-01T00:00:00Z")).unwrap();
        let last = at("2040-01-01T00:00:00Z");
        let history: Vec<(Timestamp, Offset)> = std::iter::once((first, zone.to_offset(first)))
            .chain(zone.following(first).map(|transition| (transition.timestamp(), transition.offset())))
            .take_while(|(jump, _)| jump.as_microsecond() < last)
            .collect();
        // Half of the names are other names of a zone.
        if !histories.insert(history.clone()) {
            continue;
        }
        for pair in history.windows(2) {
            let ((_, before), (jump, after)) = (pair[0], pair[1]);
            if before == after {
                continue;
            }
            changes += 1;
            for kind in 0..5 {
                around(name.as_str(), jump, before, after, changes * 5 + kind);
            }
            if after.seconds() - before.seconds() >= 86_400 {
                skipped_days += 1;
                let (days, jump) = (DayCount::new(&zone), jump.as_microsecond());
                assert_eq!(days.day(jump - 1).unwrap().0 + 2, days.day(jump).unwrap().0, "{name}");
            }
        }
    }
    assert!(zones > 500 && changes > 20_000 && skipped_days > 3, "{zones} zones, {changes}, {skipped_days}");
}

/// One cycle around one change of a clock; `mix` chooses which.
fn around(zone_name: &str, jump: Timestamp, before: Offset, after: Offset, mix: usize) {
    // Local times that the clock skips, repeats or just reaches; the 28th to 31st too, whatever day the change is on.
    let (shown_before, shown_after) = (before.to_datetime(jump), after.to_datetime(jump));
    let anchor = match mix * 7919 % 6 {
        0 => shown_before,
        1 => shown_after,
        2 => shown_before + 20.minutes(),
        3 => shown_before - 20.minutes(),
        4 => shown_before.date().to_datetime(Time::midnight()),
        _ => shown_after.with().day(1).build().unwrap() + (27 + (mix / 7 % 4) as i64).days(),
    };
    let count = 1 + (mix / 5 % 13) as i32;
    // The boundary near the change is not the anchor's own but some periods away.
    let away = i64::from(count) * ((mix / 11 % 9) as i64 - 4);
    let (interval, anchor) = match mix % 5 {
        0 => (Interval::Days(1), anchor + away.days()),
        1 => (Interval::Days(count), anchor + away.days()),
        2 => (Interval::Weeks(count), anchor + away.weeks()),
        3 => (Interval::Months(count), anchor + away.months()),
        _ => (Interval::Years(count), anchor + away.years()),
    };
    let (cycle, zone) = (Cycle::anniversary(interval, anchor, zone_name).unwrap(), zone(zone_name).unwrap());
    let jump = jump.as_microsecond();
    for probe in [jump - (mix / 3 % 2) as i64, jump + (mix % 97) as i64 * HOUR - 48 * HOUR] {
        check(&cycle, &zone, interval, anchor, probe);
    }
}

fn any_zone() -> impl Strategy<Value = String> {
    let names: Vec<String> = TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect();
    proptest::sample::select(names)
}

fn any_interval() -> impl Strategy<Value = Interval> {
    (0..4, 1..=13).prop_map(|(unit, count)| match unit {
        0 => Interval::Days(count),
        1 => Interval::Weeks(count),
        2 => Interval::Months(count),
        _ => Interval::Years(count),
    })
}

/// Any day, and the end of a month, which is where months differ, half of the time.
fn any_anchor() -> impl Strategy<Value = DateTime> {
    (1970_i16..2036, 1_i8..=12, prop_oneof![1_i8..=28, 28_i8..=31], 0_i8..24, prop_oneof![Just(0_i8), 0_i8..60])
        .prop_map(|(year, month, day, hour, minute)| {
            let last = date(year, month, 1).days_in_month();
            date(year, month, day.min(last)).at(hour, minute, 0, 0)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn periods_tile_time(
        name in any_zone(),
        interval in any_interval(),
        anchor in any_anchor(),
        probe in at("1900-01-01T00:00:00Z")..at("2100-01-01T00:00:00Z"),
    ) {
        let (cycle, zone) = (Cycle::anniversary(interval, anchor, &name).unwrap(), zone(&name).unwrap());
        check(&cycle, &zone, interval, anchor, probe);
        // Aligned periods are those of an anchor that the calendar gives, and their period 0 has the anchor.
        let aligned = Cycle::aligned(interval, anchor, &name).unwrap();
        let of_calendar = aligned.period(0).unwrap();
        let start = zone.to_datetime(Timestamp::from_microsecond(of_calendar.start).unwrap());
        let anchor_instant = zone.to_ambiguous_timestamp(anchor).compatible().unwrap().as_microsecond();
        prop_assert!(of_calendar.start <= anchor_instant && anchor_instant < of_calendar.end);
        match interval {
            Interval::Months(_) => prop_assert!(start.day() == 1),
            Interval::Years(_) => prop_assert!(start.day() == 1 && start.month() == 1),
            Interval::Weeks(_) => prop_assert!(start.weekday() == jiff::civil::Weekday::Monday),
            Interval::Days(_) => prop_assert!(start.date() == anchor.date()),
        }
        let midnight = Time::midnight();
        check(&aligned, &zone, interval, start.date().to_datetime(midnight), probe);
    }

    /// An anchor that is given as an instant is in period 0, also at a time that the clock shows twice.
    #[test]
    fn the_anchor_is_in_period_zero(
        name in any_zone(), interval in any_interval(), aligned in any::<bool>(),
        anchor in at("1900-01-01T00:00:00Z")..at("2100-01-01T00:00:00Z"),
    ) {
        let cycle = Cycle::at(interval, anchor, aligned, &name).unwrap();
        prop_assert_eq!(cycle.containing(anchor).unwrap().number, 0);
    }

    /// A stretch has the same periods as its parts, and they are the ones that each of its instants is in.
    #[test]
    fn stretches_of_periods(
        name in any_zone(),
        interval in any_interval(),
        anchor in any_anchor(),
        from in at("1990-01-01T00:00:00Z")..at("2036-01-01T00:00:00Z"),
        length in 1..800 * DAY,
        middle in 0..800 * DAY,
    ) {
        let cycle = Cycle::anniversary(interval, anchor, &name).unwrap();
        let (to, middle) = (from + length, from + middle % length);
        let found = cycle.periods(from, to).unwrap();
        prop_assert!(found[0].start <= from && from < found[0].end);
        prop_assert!(found[found.len() - 1].start < to && to <= found[found.len() - 1].end);
        prop_assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].number < pair[1].number));
        let mut parts = cycle.periods(from, middle).unwrap();
        parts.extend(cycle.periods(middle, to).unwrap());
        parts.dedup();
        prop_assert_eq!(&parts, &found);
        prop_assert!(found.contains(&cycle.containing(middle).unwrap()));
        let pieces: i64 = found.iter().filter_map(|period| period.cut(from, to)).map(|piece| piece.end - piece.start).sum();
        prop_assert_eq!(pieces, length);
    }

    /// Days never go back, and each is the date that the clock shows, unless it shows that date again.
    #[test]
    fn days_are_counted(name in any_zone(), start in at("1900-01-01T00:00:00Z")..at("2040-01-01T00:00:00Z"), step in 1..40 * HOUR) {
        let tz = zone(&name).unwrap();
        let count = DayCount::new(&tz);
        let shown = |at: i64| tz.to_datetime(Timestamp::from_microsecond(at).unwrap()).date();
        let ((day, begun), (later, _)) = (count.day(start).unwrap(), count.day(start + step).unwrap());
        prop_assert!(day <= later);
        prop_assert!(DayCount::date(day).unwrap() >= shown(start));
        prop_assert!(begun == (count.day(start - 1).unwrap().0 == day));
    }

    #[test]
    fn any_time_and_any_number_is_a_period_or_an_error(
        interval in any_interval(), anchor in any_anchor(), number in any::<i64>(), probe in any::<i64>(), name in any_zone(),
    ) {
        let cycle = Cycle::anniversary(interval, anchor, &name).unwrap();
        for period in [cycle.period(number), cycle.period(number >> 44), cycle.containing(probe), cycle.containing(probe >> 5)] {
            match period {
                Ok(period) => prop_assert!(period.start < period.end),
                Err(error) => prop_assert_eq!(error, CalendarError::OutOfRange),
            }
        }
    }
}
