//! What holds for any quota and any usage; and a naive model, hour by hour, that comes to the same.

use proptest::collection::vec;
use proptest::option::{self, weighted};
use proptest::prelude::*;

use super::*;

/// Hours that a case lasts.
const LAST: i64 = 60;

fn at_hours(hours: impl Iterator<Item = i64>) -> Schedule {
    Schedule { cycle: None, also: hours.map(|hour| hour * HOUR).collect() }
}

/// Of some, besides: each day, by a calendar.
fn times() -> impl Strategy<Value = Schedule> {
    (by_hand(), weighted(0.2, Just(Cycle::at(Interval::Days(1), 0, true, "UTC").expect("a cycle"))))
        .prop_map(|(schedule, cycle)| Schedule { cycle, ..schedule })
}

fn by_hand() -> impl Strategy<Value = Schedule> {
    let every = |hours: usize| at_hours((0..LAST).step_by(hours));
    prop_oneof![
        1 => Just(LIFETIME),
        3 => (3..20_usize).prop_map(every),
        2 => proptest::collection::btree_set(0..LAST, 0..6).prop_map(|hours| at_hours(hours.into_iter())),
    ]
}

fn rollover() -> impl Strategy<Value = Rollover> {
    (0..10_i64, option::of(0..30_i64))
        .prop_map(|(min, max)| Rollover { min: number(min / 5 * min), max: max.map(number) })
}

fn source(id: i64, unlimited: bool) -> impl Strategy<Value = Source> {
    let amount = if unlimited { weighted(0.9, 1..60_i64).boxed() } else { (1..60_i64).prop_map(Some).boxed() };
    (amount, 0..3_i32, 0..LAST, 0..LAST, any::<bool>(), 0..2_i64, rollover(), times(), 0..4_u8).prop_map(
        move |(amount, priority, from, length, voided, created_at, rollover, times, kind)| {
            let to = if length > LAST - 10 { NEVER } else { (from + length) * HOUR };
            let (id, amount, renewal) = match kind {
                0 | 1 => (Id::Allowance(id), amount, Renewal::Allowance(times)),
                2 => (Id::Grant(id), amount.or(Some(7)), Renewal::Restored(times)),
                _ => (Id::Grant(id), amount.or(Some(7)), Renewal::Once),
            };
            let expires_at = if voided && to != NEVER { to + 20 * HOUR } else { to };
            let from = from * HOUR;
            Source { id, amount: amount.map(number), priority, from, to, expires_at, created_at, rollover, renewal }
        },
    )
}

fn quota(unlimited: bool) -> impl Strategy<Value = Quota> {
    let sources =
        (0..6_usize).prop_flat_map(move |n| (0..n).map(|id| source(id as i64, unlimited)).collect::<Vec<_>>());
    let rules = vec((1..LAST, 0..12_i64, times(), any::<bool>()), 0..3).prop_map(|list| {
        let mut from = 0;
        let mut rules = Vec::new();
        for (length, gap, resets, preserve_overage) in list {
            let start = from + gap / 4;
            from = start + length;
            rules.push(Rules { from: start * HOUR, to: from * HOUR, resets, preserve_overage });
        }
        rules
    });
    (sources, rules).prop_map(|(sources, rules)| Quota { sources, rules })
}

fn usage(signed: bool) -> impl Strategy<Value = Vec<(i64, Quantity)>> {
    let least = if signed { -20 } else { 0 };
    vec((0..LAST * 2, least..25_i64), 0..40)
        .prop_map(|list| list.into_iter().map(|(half, n)| (half * HOUR / 2, number(n))).collect())
}

fn sum(numbers: impl Iterator<Item = Quantity>) -> Quantity {
    numbers.fold(Quantity::ZERO, |sum, number| sum.checked_add(number).expect("a sum"))
}

/// A source, when it began and what is left of it, of all in effect.
type Left = Vec<(Id, i64, Option<Quantity>)>;

/// How things are: by source, overage, usage of the period.
fn state(quota: &Quota, from: i64, until: i64, used: &[(i64, Quantity)]) -> (Left, Quantity, Quantity) {
    let course = Course::of(quota, from, Until::Before(until)).expect("a course");
    let segments = course.run(&usage_of(&course, used)).expect("segments");
    let Some(last) = segments.last() else { return (Vec::new(), Quantity::ZERO, Quantity::ZERO) };
    let mut left: Left = Vec::new();
    for part in &last.parts {
        let source = course.source(part.source);
        left.push((source.id, source.from, part.closing));
    }
    (left, last.overage, last.period_usage)
}

fn has(times: &Schedule, at: i64) -> bool {
    times.also.contains(&at) || times.cycle.is_some() && at % (24 * HOUR) == 0
}

/// The same by the rules alone, hour by hour, usage as it comes.
fn naive(quota: &Quota, until: i64, used: &[(i64, Quantity)]) -> (Left, Quantity, Quantity) {
    struct One<'a> {
        source: &'a Source,
        left: Quantity,
        used: Quantity,
    }
    let add = |a: Quantity, b: Quantity| a.checked_add(b).expect("a sum");
    let mut ones: Vec<One<'_>> = Vec::new();
    let (mut overage, mut period) = (Quantity::ZERO, Quantity::ZERO);
    let burn = |ones: &mut Vec<One<'_>>, overage: &mut Quantity, mut rest: Quantity| {
        for one in ones.iter_mut() {
            let taken = if one.source.amount.is_some() { one.left.min(rest) } else { rest };
            if one.source.amount.is_some() {
                one.left = add(one.left, -taken);
            }
            one.used = add(one.used, taken);
            rest = add(rest, -taken);
        }
        *overage = add(*overage, rest);
    };
    for now in (0..=until / HOUR).map(|hour| hour * HOUR) {
        let mut succeeded = Quantity::ZERO;
        for one in ones.iter().filter(|one| one.source.to == now) {
            if let Renewal::Allowance(times) = &one.source.renewal
                && !has(times, now)
            {
                succeeded = add(succeeded, one.used);
            }
        }
        ones.retain(|one| one.source.to != now);
        let rules = quota.rules.iter().find(|rules| (rules.from..rules.to).contains(&now));
        let fresh = rules.is_some_and(|rules| rules.from == now && !quota.rules.iter().any(|before| before.to == now));
        if let Some(rules) = rules.filter(|rules| has(&rules.resets, now)) {
            period = Quantity::ZERO;
            if !rules.preserve_overage {
                overage = Quantity::ZERO;
            }
            for one in ones.iter_mut().filter(|one| !matches!(one.source.renewal, Renewal::Allowance(_))) {
                (one.left, one.used) = (one.source.rollover.of(one.left), Quantity::ZERO);
            }
        }
        if fresh {
            (period, overage) = (Quantity::ZERO, Quantity::ZERO);
        }
        for one in &mut ones {
            let amount = one.source.amount.unwrap_or(Quantity::ZERO);
            match &one.source.renewal {
                Renewal::Restored(times) if has(times, now) => (one.left, one.used) = (amount, Quantity::ZERO),
                Renewal::Allowance(times) if has(times, now) => {
                    one.left = if one.source.amount.is_some() {
                        add(one.source.rollover.of(one.left), amount)
                    } else {
                        amount
                    };
                    one.used = Quantity::ZERO;
                }
                _ => {}
            }
        }
        let mut starting: Vec<&Source> =
            quota.sources.iter().filter(|source| source.from == now && now < source.to).collect();
        let order = |source: &Source| (source.priority, source.expires_at, source.created_at, source.id, source.from);
        starting.sort_by_key(|source| order(source));
        for source in starting {
            let taken = match &source.renewal {
                Renewal::Allowance(times) if !has(times, now) => {
                    source.amount.map_or(succeeded, |amount| amount.min(succeeded))
                }
                _ => Quantity::ZERO,
            };
            succeeded = add(succeeded, -taken);
            let left = source.amount.map_or(Quantity::ZERO, |amount| add(amount, -taken));
            ones.push(One { source, left, used: taken });
        }
        ones.sort_by_key(|one| order(one.source));
        let owed = std::mem::replace(&mut overage, Quantity::ZERO);
        burn(&mut ones, &mut overage, owed);
        if now < until && (rules.is_some() || !ones.is_empty()) {
            for (_, quantity) in used.iter().filter(|(at, _)| (now..now + HOUR).contains(at)) {
                period = add(period, *quantity);
                burn(&mut ones, &mut overage, *quantity);
            }
        }
    }
    let left = |one: &One<'_>| (one.source.id, one.source.from, one.source.amount.map(|_| one.left));
    (ones.iter().map(left).collect(), overage, period)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// So usage may come in any pieces, at any time between two changes.
    #[test]
    fn it_comes_to_what_hour_by_hour_comes_to(quota in quota(true), used in usage(false), until in 0..LAST) {
        let began = quota.sources.iter().map(|s| s.from).chain(quota.rules.iter().map(|r| r.from)).any(|from| from <= until * HOUR);
        prop_assume!(began);
        prop_assert_eq!(state(&quota, until * HOUR, until * HOUR, &used), naive(&quota, until * HOUR, &used));
    }

    /// A course that begins at a reset which forgets the past ends as one from the beginning.
    #[test]
    fn what_is_forgotten_does_not_matter(quota in quota(true), used in usage(true), from in 0..LAST, until in 0..LAST) {
        let from = from.min(until) * HOUR;
        prop_assert_eq!(state(&quota, from, until * HOUR, &used), state(&quota, i64::MIN, until * HOUR, &used));
    }

    /// Granted = used + left + lapsed, with what is owed beside it; and no source is below nothing.
    #[test]
    fn nothing_is_lost_or_made(quota in quota(false), used in usage(true), until in 0..LAST) {
        let segments = segments(&quota, i64::MIN, Until::Before(until * HOUR), &used);
        let mut before = Quantity::ZERO;
        for segment in &segments {
            let opening = sum(segment.parts.iter().filter_map(|part| part.opening));
            let closing = sum(segment.parts.iter().filter_map(|part| part.closing));
            let taken = sum(segment.parts.iter().map(|part| part.used));
            prop_assert_eq!(opening, closing.checked_add(taken).expect("a sum"));
            prop_assert!(!segment.parts.iter().any(|part| part.closing.is_some_and(Quantity::is_negative)));
            let after = closing.checked_sub(segment.overage).expect("a difference");
            let expected = [segment.granted, segment.forgiven, -segment.lapsed, -segment.usage];
            prop_assert_eq!(after, sum(expected.into_iter().chain([before])));
            before = after;
        }
        // Nothing is owed while something is left.
        for segment in &segments {
            let closing = sum(segment.parts.iter().filter_map(|part| part.closing));
            prop_assert!(closing.is_zero() || segment.overage <= Quantity::ZERO);
        }
    }

    #[test]
    fn the_order_of_sources_and_of_usage_is_irrelevant((quota, mixed) in quota(true).prop_flat_map(|quota| {
        let sources = Just(quota.sources.clone()).prop_shuffle();
        let rules = quota.rules.clone();
        (Just(quota), sources.prop_map(move |sources| Quota { sources, rules: rules.clone() }))
    }), (used, stirred) in usage(true).prop_flat_map(|used| (Just(used.clone()), Just(used).prop_shuffle())), until in 0..LAST) {
        prop_assert_eq!(state(&quota, i64::MIN, until * HOUR, &used), state(&mixed, i64::MIN, until * HOUR, &stirred));
    }

    /// Segments follow each other without a gap and end where they were asked to; what is known now is all of its phase.
    #[test]
    fn segments_tile_time(quota in quota(true), used in usage(true), until in 0..LAST) {
        let until = until * HOUR;
        for end in [Until::Before(until), Until::Through(until)] {
            let segments = segments(&quota, i64::MIN, end, &used);
            prop_assert!(segments.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].from < pair[0].to));
            if let Some(last) = segments.last() {
                prop_assert!(last.from <= until);
                prop_assert_eq!((last.to == until, last.to > until), (end == Until::Before(until), end != Until::Before(until)));
            }
        }
    }
}
