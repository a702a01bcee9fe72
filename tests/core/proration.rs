//! Proration: what a piece of a period pays, and that the pieces always pay the whole.

use jiff::civil::DateTime;
use proptest::prelude::*;

use crate::core::calendar::{CalendarError, Cycle, Interval, zone};
use crate::core::decimal::QuantityError;
use crate::core::pricing::Amount;
use crate::core::proration::{Days, Method, Proration, SharedDay};

const DAY: i64 = 86_400_000_000;

const BY_DAY: Method = Method::Day(Days { shared_day: SharedDay::Begun, month_days: None });
const BY_ENDED_DAY: Method = Method::Day(Days { shared_day: SharedDay::Ended, month_days: None });

fn by_days_of(month_days: u8) -> Method {
    Method::Day(Days { shared_day: SharedDay::Begun, month_days: Some(month_days) })
}

/// A local time in a zone, as Unix microseconds.
fn at(text: &str, zone_name: &str) -> i64 {
    let local: DateTime = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    zone(zone_name).unwrap().to_timestamp(local).unwrap().as_microsecond()
}

fn between(piece: (&str, &str), period: (&str, &str), method: Method, zone_name: &str) -> Proration {
    let times = |(start, end)| (at(start, zone_name), at(end, zone_name));
    Proration::between(times(piece), times(period), method, &zone(zone_name).unwrap()).unwrap()
}

/// Numerator and denominator, not reduced.
fn share(part: &Proration) -> (i64, i64) {
    (part.to - part.from, part.whole)
}

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}

#[test]
fn methods() {
    let days = |shared_day, month_days| Some(Method::Day(Days { shared_day, month_days }));
    for (text, expected) in [
        ("second", Some(Method::Second)),
        ("none", Some(Method::Whole)),
        ("day", days(SharedDay::Begun, None)),
        ("ended_day", days(SharedDay::Ended, None)),
        ("day_30", days(SharedDay::Begun, Some(30))),
        ("ended_day_28", days(SharedDay::Ended, Some(28))),
        ("day_31", days(SharedDay::Begun, Some(31))),
        ("day_29", days(SharedDay::Begun, Some(29))),
        ("day_27", None),
        ("day_030", None),
        ("second_30", None),
        ("none_30", None),
        ("ended", None),
        ("30", None),
        ("_30", None),
        ("Day", None),
        ("", None),
    ] {
        assert_eq!(Method::parse(text), expected, "{text}");
    }
    assert_eq!(Method::default(), Method::Second);
}

#[test]
fn shares() {
    let march = ("2026-03-01T00:00", "2026-04-01T00:00");
    let late = ("2026-03-15T18:00", "2026-04-01T00:00");
    let early = ("2026-03-01T00:00", "2026-03-15T18:00");
    for (method, piece, expected) in [
        (Method::Second, march, (31 * DAY, 31 * DAY)),
        (Method::Second, late, (16 * DAY + DAY / 4, 31 * DAY)),
        // The 15th is shared: the new price's by one rule, the old one's by the other.
        (BY_DAY, late, (17, 31)),
        (BY_DAY, early, (14, 31)),
        (BY_ENDED_DAY, late, (16, 31)),
        (BY_ENDED_DAY, early, (15, 31)),
        (by_days_of(30), late, (16, 30)),
        (by_days_of(30), early, (14, 30)),
        (Method::Whole, march, (1, 1)),
        (Method::Whole, early, (1, 1)),
        (Method::Whole, late, (0, 1)),
    ] {
        assert_eq!(share(&between(piece, march, method, "UTC")), expected, "{method:?} {piece:?}");
    }
    // In Berlin that March is an hour short; days don't see it.
    assert_eq!(share(&between(late, march, Method::Second, "Europe/Berlin")).1, 31 * DAY - DAY / 24);
    assert_eq!(share(&between(late, march, BY_DAY, "Europe/Berlin")), (17, 31));
    // Days are the zone's: a change at 01:00 UTC on the 15th is on the 14th in Los Angeles.
    let (start, end) = (at("2026-03-01T00:00", "UTC"), at("2026-04-01T00:00", "UTC"));
    let change = at("2026-03-15T01:00", "UTC");
    let los_angeles = zone("America/Los_Angeles").unwrap();
    let there = |from, to| share(&Proration::between((from, to), (start, end), BY_DAY, &los_angeles).unwrap());
    assert_eq!((there(start, change), there(change, end)), ((14, 31), (17, 31))); // 28 Feb to 30 March there
}

#[test]
fn months_of_so_many_days() {
    for (piece, period, days, expected) in [
        (("2026-02-01T00:00", "2026-02-28T00:00"), ("2026-02-01T00:00", "2026-03-01T00:00"), 30, (27, 30)),
        (("2026-02-28T00:00", "2026-03-01T00:00"), ("2026-02-01T00:00", "2026-03-01T00:00"), 30, (3, 30)),
        (("2026-01-30T00:00", "2026-01-31T00:00"), ("2026-01-01T00:00", "2026-02-01T00:00"), 30, (1, 30)),
        (("2026-01-31T00:00", "2026-02-01T00:00"), ("2026-01-01T00:00", "2026-02-01T00:00"), 30, (0, 30)),
        (("2026-01-10T00:00", "2026-03-01T00:00"), ("2026-01-01T00:00", "2027-01-01T00:00"), 30, (51, 360)),
        (("2026-01-10T00:00", "2026-03-01T00:00"), ("2026-01-01T00:00", "2027-01-01T00:00"), 28, (47, 336)),
    ] {
        assert_eq!(share(&between(piece, period, by_days_of(days), "UTC")), expected, "{piece:?} of {days}");
    }
    // Of days that count nothing there is no share: measured by time instead, so that someone pays.
    let last = ("2026-01-31T00:00", "2026-02-01T00:00");
    let noon = ("2026-01-31T00:00", "2026-01-31T12:00");
    assert_eq!(share(&between(noon, last, by_days_of(30), "UTC")), (DAY / 2, DAY));
    let hours = ("2026-01-31T00:00", "2026-01-31T18:00");
    assert_eq!(share(&between(noon, hours, BY_DAY, "UTC")), (DAY / 2, DAY / 4 * 3));
}

#[test]
fn what_sticks_out_and_what_is_empty() {
    let utc = zone("UTC").unwrap();
    for method in [Method::Second, BY_DAY, BY_ENDED_DAY, by_days_of(30), Method::Whole] {
        let counts = |start, end| {
            let (part, whole) = share(&Proration::between((start, end), (0, 10 * DAY), method, &utc).unwrap());
            (part.signum(), part == whole)
        };
        assert_eq!(counts(-DAY, 11 * DAY), (1, true), "{method:?}");
        assert_eq!(counts(i64::MIN, i64::MAX), (1, true), "{method:?}");
        for (start, end) in
            [(-DAY, 0), (10 * DAY, 11 * DAY), (3 * DAY, 3 * DAY), (5 * DAY, 4 * DAY), (i64::MAX, i64::MIN)]
        {
            assert_eq!(counts(start, end), (0, false), "{method:?} {start} {end}");
        }
        for period in [(0, 0), (1, 0), (i64::MAX, i64::MIN)] {
            assert_eq!(Proration::between((0, 1), period, method, &utc), Err(CalendarError::EmptyPeriod));
        }
    }
    let beyond = Proration::between((0, 1), (i64::MIN, i64::MAX), Method::Second, &utc);
    assert_eq!(beyond, Err(CalendarError::OutOfRange));
    assert_eq!(Proration::between((0, 1), (0, i64::MAX), BY_DAY, &utc), Err(CalendarError::OutOfRange));
}

#[test]
fn amounts() {
    let march = ("2026-03-01T00:00", "2026-04-01T00:00");
    let part = |from, to| between((from, to), march, Method::Second, "UTC");
    let ten = part("2026-03-01T00:00", "2026-03-11T00:00");
    for (full, digits, money, unrounded) in [
        ("100", 2, "32.26", "32.258064516129032258064516"),
        ("-100", 2, "-32.26", "-32.258064516129032258064516"),
        ("100", 0, "32", "32.258064516129032258064516"),
        ("1000", 0, "323", "322.580645161290322580645161"),
        ("3.1", 3, "1.000", "1"),
        ("0", 2, "0.00", "0"),
        ("0.0031", 2, "0.00", "0.001"),
    ] {
        assert_eq!(ten.money(&amount(full), digits).unwrap().to_string(), money, "{full}");
        assert_eq!(ten.unrounded(&amount(full)).unwrap().to_string(), unrounded, "{full}");
    }
    // Half a cent up, and the other half is what is left.
    let half = "2026-03-16T12:00";
    assert_eq!(part(march.0, half).money(&amount("0.01"), 2).unwrap().to_string(), "0.01");
    assert_eq!(part(half, march.1).money(&amount("0.01"), 2).unwrap().to_string(), "0.00");
    // The whole is the amount itself, with all its decimals.
    let precise = amount("0.123456789012345678901234").checked_mul(&amount("0.1")).unwrap();
    assert_eq!(part(march.0, march.1).unrounded(&precise), Ok(precise));
    // An error rather than a wrong number.
    let huge = amount("1000000000000000000000000000000000000000000000000000");
    assert_eq!(part("2026-03-01T00:00", "2026-03-11T00:00:00.000001").unrounded(&huge), Err(QuantityError::TooLarge));
    assert_eq!(ten.money(&huge, 40), Err(QuantityError::TooLarge));
}

/// Upgrade and back on the same day, downgrade and back days later: credits and charges net to what was used.
#[test]
fn change_and_change_back() {
    let name = "America/New_York";
    let month = Cycle::anniversary(Interval::Months(1), "2026-01-31T09:30".parse().unwrap(), name).unwrap();
    let period = month.period(1).unwrap();
    let (old, new) = (amount("49.99"), amount("120"));
    for method in [Method::Second, BY_DAY, BY_ENDED_DAY, by_days_of(30), Method::Whole] {
        let paid = |full: &Amount, start, end| {
            let part = Proration::between((start, end), (period.start, period.end), method, &zone(name).unwrap());
            part.unwrap().money(full, 2).unwrap().minor().as_i64()
        };
        let (first, second) = (period.start + 3 * DAY + 12_345, period.start + 20 * DAY + 999_999_999);
        let whole = paid(&old, period.start, period.end);
        assert_eq!(whole, 4999);
        for back in [first, second] {
            let net = whole - paid(&old, first, period.end) + paid(&new, first, period.end)
                - paid(&new, back, period.end)
                + paid(&old, back, period.end);
            let used = paid(&old, period.start, first) + paid(&new, first, back) + paid(&old, back, period.end);
            assert_eq!(net, used, "{method:?}");
            assert!(back != first || net == whole, "{method:?}");
        }
    }
}

fn any_method() -> impl Strategy<Value = Method> {
    let shared_day = || prop_oneof![Just(SharedDay::Begun), Just(SharedDay::Ended)];
    prop_oneof![
        Just(Method::Second),
        Just(Method::Whole),
        shared_day().prop_map(|shared_day| Method::Day(Days { shared_day, month_days: None })),
        (shared_day(), 28_u8..=31)
            .prop_map(|(shared_day, days)| Method::Day(Days { shared_day, month_days: Some(days) })),
    ]
}

fn any_period() -> impl Strategy<Value = (&'static str, (i64, i64))> {
    let zones = proptest::sample::select(
        &["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe", "America/Sao_Paulo"][..],
    );
    (zones, 0_i64..1_900_000_000_000_000, 1..=13_i32, 0..4).prop_map(|(name, at, count, unit)| {
        let interval = match unit {
            0 => Interval::Days(count),
            1 => Interval::Weeks(count),
            2 => Interval::Months(count),
            _ => Interval::Years(count),
        };
        let period = Cycle::at(interval, at, at % 2 == 0, name).unwrap().containing(at).unwrap();
        (name, (period.start, period.end))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Pieces that tile a period have shares of exactly 1 together, and pay the rounded whole: in money, unrounded, for
    /// every method, in every order. A piece pays what its parts pay, and less than a minor unit off its exact share.
    #[test]
    fn pieces_add_up(
        method in any_method(),
        (name, period) in any_period(),
        cuts in proptest::collection::vec(any::<u64>(), 0..6),
        minor in -1_000_000_000_i64..1_000_000_000,
        decimals in 0_u32..8,
        digits in 0_u32..5,
    ) {
        let zone = zone(name).unwrap();
        let full = Amount::new(minor.into(), decimals);
        let length = (period.1 - period.0) as u64;
        let mut bounds: Vec<i64> = cuts.iter().map(|cut| period.0 + (cut % length) as i64).collect();
        bounds.extend([period.0, period.1]);
        bounds.sort_unstable();
        let measure = |from, to| Proration::between((from, to), period, method, &zone).unwrap();
        let pieces: Vec<Proration> = bounds.windows(2).map(|pair| measure(pair[0], pair[1])).collect();

        let shares: Vec<(i64, i64)> = pieces.iter().map(share).collect();
        prop_assert!(shares.iter().all(|(part, whole)| 0 <= *part && part <= whole && *whole == shares[0].1));
        prop_assert_eq!(shares.iter().map(|(part, _)| part).sum::<i64>(), shares[0].1);

        let money: Vec<i64> = pieces.iter().map(|piece| piece.money(&full, digits).unwrap().minor().as_i64()).collect();
        prop_assert_eq!(money.iter().sum::<i64>(), full.round(digits).unwrap().minor().as_i64());
        let unrounded = pieces.iter().map(|piece| {
            let paid = piece.unrounded(&full).unwrap();
            paid.coefficient() * ethnum::I256::new(10).pow(24 - paid.scale())
        });
        prop_assert_eq!(unrounded.fold(ethnum::I256::ZERO, |sum, part| sum + part), full.coefficient() * ethnum::I256::new(10).pow(24 - full.scale()));

        for ((part, whole), paid) in shares.iter().zip(&money) {
            // |paid − full · part / whole| ≤ 1, all multiplied by whole · 10^decimals.
            let up = |n: i128, power: u32| ethnum::I256::new(n) * ethnum::I256::new(10).pow(power);
            let exact = up(i128::from(minor) * i128::from(*part), digits);
            let off = up(i128::from(*paid) * i128::from(*whole), decimals) - exact;
            prop_assert!(off.abs() <= up(i128::from(*whole), decimals));
        }
        for pair in bounds.windows(3) {
            let paid = |from, to| measure(from, to).money(&full, digits).unwrap().minor();
            prop_assert_eq!(paid(pair[0], pair[2]), paid(pair[0], pair[1]) + paid(pair[1], pair[2]));
        }
    }

    /// What begins or ends with the period is its own share, rounded on its own, but for exact halves.
    #[test]
    fn first_and_last_pieces_are_rounded_as_if_alone((name, period) in any_period(), cut in any::<u64>(), minor in 0_i64..1_000_000, method in any_method()) {
        let zone = zone(name).unwrap();
        let cut = period.0 + (cut % (period.1 - period.0) as u64) as i64;
        let full = Amount::new(minor.into(), 2);
        for piece in [(period.0, cut), (cut, period.1)] {
            let proration = Proration::between(piece, period, method, &zone).unwrap();
            let (part, whole) = share(&proration);
            let twice = 2 * i128::from(minor) * i128::from(part);
            let (twice_whole, half) = (2 * i128::from(whole), twice % (2 * i128::from(whole)) == i128::from(whole));
            let alone = (twice + i128::from(whole)).div_euclid(twice_whole);
            let paid = i128::from(proration.money(&full, 2).unwrap().minor().as_i64());
            prop_assert!(paid == alone || (half && piece.1 == period.1 && paid == alone - 1), "{paid} {alone}");
        }
    }

    #[test]
    fn methods_never_panic(text in "\\PC{0,12}", name in "(second|none|day|ended_day)?_?[0-9]{0,3}") {
        let _ = Method::parse(&text);
        let _ = Method::parse(&name);
    }
}
