//! The pieces of a stretch tile it, none overlap, and none is read where nothing is stored.

use proptest::prelude::*;

use crate::core::cover::{Piece, Source, Stored, ceil, cover, floor};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn whole(source: Source, at: i64) -> bool {
    floor(source, at) == at
}

/// Times around 2024, to the minute, so that hours, days and months are hit often enough.
fn time() -> impl Strategy<Value = i64> {
    (19_700_i64..20_200, 0_i64..24, prop_oneof![Just(0_i64), 0_i64..60])
        .prop_map(|(day, hour, minute)| day * DAY + hour * HOUR + minute * MINUTE)
}

fn stored() -> impl Strategy<Value = Stored> {
    (time(), time(), time(), time()).prop_map(|(closed, a, b, c)| {
        let closed_day = floor(Source::Day, closed);
        let mut floors = [a, b, c].map(|at| floor(Source::Month, at.min(closed_day)));
        floors.sort_unstable();
        Stored { closed_day, day_floor: floors[0], hour_floor: floors[1], raw_floor: floors[2] }
    })
}

proptest! {
    #[test]
    fn pieces_tile_the_stretch(from in time(), length in 1_i64..(500 * 24 * 60), dirty in prop::collection::vec((time(), 1_i64..72), 0..4), stored in stored()) {
        let to = from + length * MINUTE;
        let mut dirty: Vec<(i64, i64)> = dirty.into_iter().map(|(at, hours)| (floor(Source::Hour, at), floor(Source::Hour, at) + hours * HOUR)).collect();
        dirty.sort_unstable();
        match cover(from, to, &dirty, &stored) {
            Ok(pieces) => {
                let mut at = from;
                for piece in &pieces {
                    prop_assert_eq!(piece.from, at, "a gap or an overlap");
                    prop_assert!(piece.from < piece.to);
                    at = piece.to;
                    check(piece, &dirty, &stored)?;
                }
                prop_assert_eq!(at, to);
            }
            Err(gone) => {
                // Only raw events can be missing, and only where they are.
                prop_assert!(gone.from < stored.raw_floor && gone.from < gone.to && from <= gone.from && gone.to <= to);
            }
        }
    }

    #[test]
    fn floors_and_ceilings_enclose(at in time()) {
        for source in [Source::Raw, Source::Hour, Source::Day, Source::Month] {
            let (low, high) = (floor(source, at), ceil(source, at));
            prop_assert!(low <= at && at <= high);
            prop_assert!(whole(source, low) && whole(source, high));
            prop_assert_eq!(low == high, whole(source, at));
        }
    }

    #[test]
    fn months_are_those_of_the_calendar(at in time()) {
        let zoned = jiff::Timestamp::from_microsecond(at).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        let first = zoned.first_of_month().unwrap().start_of_day().unwrap();
        prop_assert_eq!(floor(Source::Month, at), first.timestamp().as_microsecond());
    }
}

fn check(piece: &Piece, dirty: &[(i64, i64)], stored: &Stored) -> Result<(), TestCaseError> {
    let finest = match piece.source {
        Source::Raw => {
            prop_assert!(piece.from >= stored.raw_floor);
            return Ok(());
        }
        Source::Hour => (i64::MAX, stored.hour_floor),
        Source::Day => (stored.closed_day, stored.day_floor),
        Source::Month => (stored.closed_day, i64::MIN),
    };
    // A month that is not over has a rollup of its closed days.
    let ends = whole(piece.source, piece.to) || piece.source == Source::Month && piece.to == stored.closed_day;
    prop_assert!(whole(piece.source, piece.from) && ends, "half a bucket: {:?}", piece);
    prop_assert!(piece.to <= finest.0 && piece.from >= finest.1, "nothing stored: {:?}", piece);
    prop_assert!(dirty.iter().all(|&(low, high)| high <= piece.from || piece.to <= low), "dirty: {:?}", piece);
    Ok(())
}

#[test]
fn a_closed_month_is_one_piece() {
    let stored = Stored { closed_day: 20_000 * DAY, hour_floor: i64::MIN, day_floor: i64::MIN, raw_floor: i64::MIN };
    let from = floor(Source::Month, 19_800 * DAY);
    let to = ceil(Source::Month, from + DAY);
    assert_eq!(cover(from, to, &[], &stored), Ok(vec![Piece { from, to, source: Source::Month }]));
}

#[test]
fn the_current_month_is_its_closed_days_and_the_hours_since() {
    let closed_day = 20_000 * DAY; // 2024-10-04
    let stored = Stored { closed_day, hour_floor: i64::MIN, day_floor: i64::MIN, raw_floor: i64::MIN };
    let (from, now) = (floor(Source::Month, closed_day), closed_day + 9 * HOUR + MINUTE);
    let piece = |from, to, source| Piece { from, to, source };
    let today = [piece(closed_day, now - MINUTE, Source::Hour), piece(now - MINUTE, now, Source::Raw)];
    let month = [piece(from, closed_day, Source::Month), today[0], today[1]];
    assert_eq!(cover(from, now, &[], &stored), Ok(month.to_vec()));
    // Without its first hour, or up to yesterday, it is days.
    let days =
        [piece(from + HOUR, from + DAY, Source::Hour), piece(from + DAY, closed_day, Source::Day), today[0], today[1]];
    assert_eq!(cover(from + HOUR, now, &[], &stored), Ok(days.to_vec()));
    let yesterday = closed_day - DAY;
    assert_eq!(cover(from, yesterday, &[], &stored), Ok(vec![piece(from, yesterday, Source::Day)]));
}
