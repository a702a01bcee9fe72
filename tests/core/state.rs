//! Aggregation states. The laws are checked on stored bytes, for every kind; the values against the plainest
//! computation over the raw samples in i128.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::core::decimal::Quantity;
use crate::core::state::{Ask, Kind, Sample, State, StateError, Tally};
use crate::decimal_tests::{quantity, rounded, scaled};

/// A sample and its value in thousandths.
#[derive(Clone, Debug)]
struct Raw {
    milli: i64,
    sample: Sample,
}

const ASK: Ask = Ask { from: 1_000, to: 2_000_001, percentile: Quantity::ONE };

/// Few distinct values, instants and buckets, so that samples meet; arrival numbers are given by position.
fn raws(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Raw>> {
    let milli = prop_oneof![-5..5_i64, select(vec![0, 1_000, -1_000, 250_000]), -10_000_000..10_000_000_i64];
    let digest = prop_oneof![0..6_u128, any::<u128>()];
    let raw = (milli, digest, 1_000..2_000_000_i64, 0..4_i64).prop_map(|(milli, digest, at, coarse)| {
        let at = if coarse == 0 { at } else { coarse * 1_000 };
        Raw { milli, sample: Sample { value: scaled(milli.into(), 3), digest, at, seq: 0, bucket: at / 500_000 } }
    });
    prop::collection::vec(raw, size).prop_map(|mut raws| {
        raws.iter_mut().zip(1..).for_each(|(raw, seq)| raw.sample.seq = seq);
        raws
    })
}

fn state<'a>(kind: Kind, raws: impl IntoIterator<Item = &'a Raw>) -> State {
    let mut state = State::empty(kind);
    raws.into_iter().for_each(|raw| state.add(&raw.sample).unwrap());
    state
}

fn merged(left: &State, right: &State) -> State {
    let mut state = left.clone();
    state.merge(right).unwrap();
    state
}

fn bytes(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&mut out);
    out
}

proptest! {
    #[test]
    fn any_partition_in_any_order_gives_the_same_bytes(
        raws in raws(0..40), parts in prop::collection::vec((0..5_usize, any::<u32>()), 40), order in any::<[u8; 5]>(),
    ) {
        // Each sample goes to a part and to a random place within it; the parts are merged in random order.
        let mut shuffled: Vec<_> = raws.iter().zip(&parts).collect();
        shuffled.sort_by_key(|(_, (_, place))| *place);
        let mut sequence: Vec<usize> = (0..5).collect();
        sequence.sort_by_key(|part| order[*part]);
        for kind in Kind::ALL {
            let mut whole = State::empty(*kind);
            for part in &sequence {
                let mine = shuffled.iter().filter(|(_, (owner, _))| owner == part).map(|(raw, _)| *raw);
                whole.merge(&state(*kind, mine)).unwrap();
            }
            prop_assert_eq!(bytes(&whole), bytes(&state(*kind, &raws)), "{:?}", kind);
        }
    }

    #[test]
    fn a_tally_has_the_value_of_the_merged_state(a in raws(0..20), b in raws(0..20), c in raws(0..20), undo: bool) {
        for kind in Kind::ALL {
            let (mut whole, mut tally) = (state(*kind, &a), Tally::empty(*kind));
            a.iter().for_each(|raw| tally.add(&raw.sample).unwrap());
            let (b, c) = (state(*kind, &b), state(*kind, &c));
            let undone = if undo { c.negate() } else { None };
            for part in [Some(b), Some(c), undone].into_iter().flatten() {
                whole.merge(&part).unwrap();
                tally.merge(&bytes(&part)).unwrap();
            }
            prop_assert_eq!(tally.value(&ASK), whole.value(&ASK), "{:?}", kind);
            prop_assert_eq!(tally.is_empty(), whole.is_empty(), "{:?}", kind);
        }
    }

    #[test]
    fn merge_is_a_commutative_monoid(a in raws(0..12), b in raws(0..12), c in raws(0..12)) {
        for kind in Kind::ALL {
            let (a, b, c, none) = (state(*kind, &a), state(*kind, &b), state(*kind, &c), State::empty(*kind));
            prop_assert_eq!(bytes(&merged(&a, &b)), bytes(&merged(&b, &a)), "{:?}", kind);
            prop_assert_eq!(bytes(&merged(&merged(&a, &b), &c)), bytes(&merged(&a, &merged(&b, &c))), "{:?}", kind);
            prop_assert_eq!(bytes(&merged(&a, &none)), bytes(&a));
            prop_assert_eq!(bytes(&merged(&none, &a)), bytes(&a));
        }
    }

    /// Undoing any of the events, before or after the others are there, leaves the state of the rest.
    #[test]
    fn voids_are_exact(raws in raws(0..30), void in prop::collection::vec(any::<bool>(), 30)) {
        for kind in Kind::ALL {
            let of = |wanted: bool| state(*kind, raws.iter().zip(&void).filter(|(_, v)| **v == wanted).map(|(r, _)| r));
            let (all, gone, rest) = (state(*kind, &raws), of(true), of(false));
            prop_assert_eq!(gone.negate().is_some(), kind.invertible());
            let Some(undo) = gone.negate() else { continue };
            prop_assert_eq!(bytes(&merged(&undo, &all)), bytes(&rest), "{:?}", kind);
            prop_assert_eq!(bytes(&merged(&all, &undo)), bytes(&rest), "{:?}", kind);
            prop_assert_eq!(undo.negate(), Some(gone.clone()));
            prop_assert_eq!(State::decode(&bytes(&undo)), Ok(undo.clone()));
            let nothing = merged(&gone, &undo);
            prop_assert!(nothing.is_empty());
            prop_assert_eq!(bytes(&nothing), bytes(&State::empty(*kind)));
        }
    }

    #[test]
    fn values_agree_with_the_raw_samples(raws in raws(1..40), permille in 0..=1_000_i64) {
        let ask = Ask { percentile: scaled(permille.into(), 3), ..ASK };
        let value = |kind| state(kind, &raws).value(&ask).unwrap().unwrap();
        let n = raws.len() as i128;
        let mut sorted: Vec<i128> = raws.iter().map(|raw| raw.milli.into()).collect();
        sorted.sort();
        let sum: i128 = sorted.iter().sum();
        let latest = raws.iter().max_by_key(|raw| (raw.sample.at, raw.sample.seq)).unwrap();
        let distinct = raws.iter().map(|raw| raw.sample.digest).collect::<BTreeSet<_>>().len() as i128;
        let area: i128 = raws.iter().map(|raw| i128::from(raw.milli) * i128::from(ASK.to - raw.sample.at)).sum();
        let rank = ((permille * n as i64 + 999) / 1_000).max(1) as usize;
        let exact = sorted[rank - 1];
        let mut buckets = BTreeMap::<i64, Vec<i128>>::new();
        raws.iter().for_each(|raw| buckets.entry(raw.sample.bucket).or_default().push(raw.milli.into()));
        let peaks: i128 = buckets.values().map(|values| values.iter().max().unwrap()).sum();

        prop_assert_eq!(value(Kind::Count), scaled(n, 0));
        prop_assert_eq!(value(Kind::Sum), scaled(sum, 3));
        prop_assert_eq!(value(Kind::Avg), scaled(rounded(sum * 10_i128.pow(21), n), 24));
        prop_assert_eq!(value(Kind::Min), scaled(sorted[0], 3));
        prop_assert_eq!(value(Kind::Max), scaled(sorted[raws.len() - 1], 3));
        prop_assert_eq!(value(Kind::Latest), latest.sample.value);
        prop_assert_eq!(value(Kind::Unique), scaled(distinct, 0));
        let level = rounded(area * 10_i128.pow(21), i128::from(ASK.to - ASK.from));
        prop_assert_eq!(value(Kind::WeightedSum), scaled(level, 24));
        prop_assert_eq!(value(Kind::Percentile), scaled(exact, 3));
        prop_assert_eq!(value(Kind::BucketSum), scaled(sum, 3));
        prop_assert_eq!(value(Kind::BucketMax), scaled(peaks, 3));
        let sums = buckets.iter().map(|(start, values)| (*start, scaled(values.iter().sum(), 3))).collect::<Vec<_>>();
        prop_assert_eq!(state(Kind::BucketSum, &raws).buckets(), sums);
        let maxima = buckets.iter().map(|(start, values)| (*start, scaled(*values.iter().max().unwrap(), 3)));
        prop_assert_eq!(state(Kind::BucketMax, &raws).buckets(), maxima.collect::<Vec<_>>());
        // 256 · |approximate − exact| ≤ |exact|.
        let error = value(Kind::ApproxPercentile).checked_sub(scaled(exact, 3)).unwrap();
        prop_assert!(error.max(-error).checked_mul_int(256).unwrap() <= scaled(exact.abs(), 3), "{}", error);
    }

    #[test]
    fn states_read_back(raws in raws(0..40)) {
        for kind in Kind::ALL {
            let state = state(*kind, &raws);
            prop_assert_eq!(State::decode(&bytes(&state)), Ok(state));
        }
    }

    /// Whatever is read at all is written the same way: one encoding a state, no panic.
    #[test]
    fn damaged_bytes_are_refused_or_canonical(
        raws in raws(0..20), place in any::<Index>(), byte: u8, noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        for kind in Kind::ALL {
            let intact = bytes(&state(*kind, &raws));
            let place = place.index(intact.len());
            let mut changed = intact.clone();
            changed[place] ^= byte;
            let mut inserted = intact.clone();
            inserted.insert(place, byte);
            let mut removed = intact.clone();
            removed.remove(place);
            let mut extended = intact.clone();
            extended.push(byte);
            let random = [&[1, *kind as u8], &noise[..]].concat();
            for damaged in [changed, inserted, removed, extended, intact[..place].to_vec(), random, noise.clone()] {
                if let Ok(read) = State::decode(&damaged) {
                    prop_assert_eq!(&bytes(&read), &damaged);
                    let _ = (read.value(&ASK), read.negate(), read.buckets(), merged_or_error(&read));
                }
                prop_assert_eq!(Tally::empty(*kind).merge(&damaged).is_ok(), decoded(*kind, &damaged), "{:?}", kind);
            }
        }
    }
}

fn decoded(kind: Kind, bytes: &[u8]) -> bool {
    State::decode(bytes).is_ok_and(|state| state.kind() == kind)
}

fn merged_or_error(state: &State) -> Result<State, StateError> {
    let mut twice = state.clone();
    twice.merge(state).map(|()| twice)
}

#[test]
fn nothing_has_a_count_but_no_value() {
    for kind in Kind::ALL {
        let empty = State::empty(*kind);
        let counts = matches!(kind, Kind::Count | Kind::Unique | Kind::ApproxUnique);
        assert!(empty.is_empty());
        assert_eq!(empty.value(&ASK), Ok(counts.then_some(Quantity::ZERO)), "{kind:?}");
        assert_eq!((Kind::parse(kind.name()), Kind::from_code(*kind as u8)), (Some(*kind), Some(*kind)));
    }
    // Values that cancel are still events.
    let pair = [5_000, -5_000].map(|milli| Raw { milli, sample: sample(milli, 1) });
    for kind in [Kind::Sum, Kind::Avg, Kind::WeightedSum, Kind::BucketSum] {
        assert_eq!(state(kind, &pair).value(&ASK), Ok(Some(Quantity::ZERO)), "{kind:?}");
    }
    // A delta of voids alone has no distinct value, no rank and no mean.
    for (kind, value) in [(Kind::Unique, Some(Quantity::ZERO)), (Kind::Percentile, None), (Kind::Avg, None)] {
        assert_eq!(state(kind, &pair).negate().unwrap().value(&ASK), Ok(value), "{kind:?}");
    }
}

fn sample(milli: i64, digest: u128) -> Sample {
    Sample { value: scaled(milli.into(), 3), digest, at: 1_000, seq: 1, bucket: 3 }
}

/// What is on disk must be read by every later release.
#[test]
fn stored_bytes_are_fixed() {
    let raw = Raw { milli: 2_500, sample: sample(2_500, 0x0102) };
    let value = [1, 1, 25];
    let digest = [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (kind, code, body) in [
        (Kind::Count, 1, vec![2]),
        (Kind::Sum, 2, [&[2], &value[..]].concat()),
        (Kind::Avg, 3, [&[2], &value[..]].concat()),
        (Kind::Min, 4, value.to_vec()),
        (Kind::Max, 5, value.to_vec()),
        (Kind::Latest, 6, [&[0xd0, 0x0f, 2], &value[..]].concat()),
        (Kind::Unique, 7, [&digest[..], &[2]].concat()),
        // Register 0; 64-bit hash 0x102 has 55 zeros in front, 14 of them the register's: rank 42.
        (Kind::ApproxUnique, 8, vec![42, 0, 0]),
        (Kind::WeightedSum, 9, [&[2], &value[..], &[0, 2, 0xc4, 0x09]].concat()),
        (Kind::Percentile, 10, [&value[..], &[2]].concat()),
        // 2.5e24 has 82 bits, the highest eight are 0x84: slot 128 · 74 + 132 = 9604, zigzag 19208.
        (Kind::ApproxPercentile, 11, vec![0x88, 0x96, 0x01, 2]),
        (Kind::BucketSum, 12, [&[6, 2], &value[..]].concat()),
        (Kind::BucketMax, 13, [&[6], &value[..]].concat()),
    ] {
        assert_eq!(bytes(&state(kind, [&raw])), [&[1, code], &body[..]].concat(), "{kind:?}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let sum = State::empty(Kind::Sum);
    assert_eq!(State::empty(Kind::Max).merge(&sum), Err(StateError::Mismatch(Kind::Max, Kind::Sum)));
    assert_eq!(State::decode(&[]), Err(StateError::Malformed("header")));
    assert_eq!(State::decode(&[2, 1, 0]), Err(StateError::Version(2)));
    assert_eq!(State::decode(&[1, 14, 0]), Err(StateError::Kind(14)));
    assert_eq!(State::decode(&[1, 1, 0, 0]), Err(StateError::Malformed("trailing bytes")));
    // i64::MIN, which has no negative, and eleven-byte, padded and 65-bit integers.
    let tail = [0xff; 9];
    for body in
        [&[&tail[..], &[1]].concat()[..], &[&tail[..], &[0x81, 0]].concat(), &[0x80, 0], &[&tail[..], &[2]].concat()]
    {
        assert!(matches!(State::decode(&[&[1, 1], body].concat()), Err(StateError::Malformed(_))), "{body:?}");
    }
    // Entries out of order, repeated or empty; slots just inside and outside of 256 bits.
    for body in [&[4, 2, 0, 1, 5, 2, 2, 0, 1, 5][..], &[2, 2, 0, 1, 5, 2, 2, 0, 1, 5], &[2, 0, 0, 0]] {
        assert_eq!(State::decode(&[&[1, 12], body].concat()), Err(StateError::Malformed("entries")), "{body:?}");
    }
    assert!(State::decode(&[1, 11, 0xfe, 0xf1, 0x03, 2]).is_ok());
    assert_eq!(State::decode(&[1, 11, 0x80, 0xf2, 0x03, 2]), Err(StateError::Malformed("slot")));
    for (from, to) in [(5, 5), (6, 5), (i64::MAX, i64::MIN)] {
        assert_eq!(State::empty(Kind::WeightedSum).value(&Ask { from, to, ..ASK }), Err(StateError::Period));
    }
    for percentile in ["-1e-24", "1.000000000000000000000001"] {
        let ask = Ask { percentile: quantity(percentile), ..ASK };
        assert_eq!(State::empty(Kind::Percentile).value(&ask), Err(StateError::Percentile));
        assert_eq!(State::empty(Kind::ApproxPercentile).value(&ask), Err(StateError::Percentile));
    }
}

#[test]
fn overflow_is_an_error() {
    // Zigzag LEB128 by hand: i64::MAX is 2^64 - 2, its negative 2^64 - 3 and -1 is 1.
    let count_of = |n: i64| {
        let body = if n == -1 { vec![1] } else { [&[if n > 0 { 0xfe } else { 0xfd }], &[0xff; 8][..], &[1]].concat() };
        let count = State::decode(&[vec![1, 1], body].concat()).unwrap();
        assert_eq!(count.value(&ASK), Ok(Some(Quantity::from_i64(n))));
        count
    };
    let mut count = count_of(i64::MAX);
    assert_eq!(count.add(&sample(0, 0)), Err(StateError::Overflow));
    let mut undone = count_of(-i64::MAX);
    assert_eq!(undone.merge(&count_of(-1)), Err(StateError::Overflow));
    let huge = Sample { value: quantity("4e52"), ..sample(0, 0) };
    for kind in [Kind::Sum, Kind::Avg, Kind::BucketSum] {
        let mut state = State::empty(kind);
        state.add(&huge).unwrap();
        assert_eq!(state.add(&huge), Err(StateError::Overflow), "{kind:?}");
    }
    assert_eq!(State::empty(Kind::WeightedSum).add(&huge), Err(StateError::Overflow));
}

/// The promise of `decimal`: the largest value, at the latest time, a trillion times, still has a weighted sum.
#[test]
fn the_documented_bounds_hold() {
    let value = quantity("999999999999999999999999.999999999999999999999999");
    let (at, events) = (9_999_999_999_999_999, 1_000_000_000_000);
    let moment = value.checked_mul_int(at).and_then(|moment| moment.checked_mul_int(events)).unwrap();
    let level = value.checked_mul_int(events).and_then(|level| level.checked_mul_int(at + 1)).unwrap();
    assert_eq!(level.checked_sub(moment), value.checked_mul_int(events));
    assert!(value.checked_mul_int(i64::MAX).is_ok());
}

/// SplitMix64 (Steele, Lea, Flood 2014): hashes that are the same in every run.
fn hash(n: u64) -> u128 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).into()
}

fn approximate(numbers: impl IntoIterator<Item = u64>) -> State {
    let mut state = State::empty(Kind::ApproxUnique);
    numbers.into_iter().for_each(|n| state.add(&sample(0, hash(n))).unwrap());
    state
}

/// Six bits each, the first lowest, in three bytes.
fn four_registers([a, b, c, d]: [u8; 4]) -> [u8; 3] {
    [a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2]
}

#[test]
fn approximate_counts_are_close() {
    let float = |state: State| state.value(&ASK).unwrap().unwrap().to_string().parse::<f64>().unwrap();
    let estimate = |numbers| float(approximate(numbers));
    assert_eq!([estimate(0..1), estimate(0..10)], [1.0, 10.0]);
    for n in [100, 1_000, 10_000, 100_000, 1_000_000] {
        let relative = estimate(0..n) / n as f64;
        assert!((relative - 1.0).abs() < 0.03, "{n}: {relative}");
        assert_eq!(approximate((0..n).chain(0..n)), approximate(0..n));
    }
    // Unbiased, also where registers are few and where the raw estimate of plain HyperLogLog is high: the mean of 100
    // sets stays within 4 standard errors of a mean.
    for n in [100, 2_000, 20_000, 40_000] {
        let sum: f64 = (1..=100).map(|set| estimate(set << 32..(set << 32) + n)).sum();
        let relative = sum / 100.0 / n as f64;
        assert!((relative - 1.0).abs() < 4.0 * 0.0081 / 10.0, "{n}: {relative}");
    }
    // Near the end of the range, where τ counts: half of the registers at rank 48, half at 51, against the series.
    let high = State::decode(&[&[1, 8][..], &four_registers([48, 51, 48, 51]).repeat(4096)].concat()).unwrap();
    let tau = (1..60).fold(0.5, |sum, k| sum - (1.0 - 0.5_f64.powf(0.5_f64.powi(k))).powi(2) * 0.5_f64.powi(k)) / 3.0;
    let z = 16_384.0 * tau * 0.5_f64.powi(50) + 8_192.0 * 0.5_f64.powi(48);
    let expected = 16_384.0 * 16_384.0 / (2.0 * std::f64::consts::LN_2 * z);
    assert!((float(high) / expected - 1.0).abs() < 1e-9);
    // All registers at their largest rank: as many as can be counted, and no panic.
    let full = State::decode(&[&[1, 8][..], &four_registers([51; 4]).repeat(4096)].concat()).unwrap();
    assert_eq!(full.value(&ASK), Ok(Some(Quantity::from_i64(i64::MAX))));
}

#[test]
fn registers_are_sparse_or_dense_by_content_alone() {
    // About 4,100 registers are hit by 4,720 values, so the parts lie on both sides of the limit.
    let sizes = [0, 1, 4_000, 4_600, 4_720, 4_900, 30_000];
    for (left, right) in sizes.iter().flat_map(|a| sizes.iter().map(move |b| (*a, *b))) {
        let (a, b) = (approximate(0..left), approximate(left / 2..left / 2 + right));
        let both = approximate((0..left).chain(left / 2..left / 2 + right).rev());
        assert_eq!(bytes(&merged(&a, &b)), bytes(&both));
        assert_eq!(bytes(&merged(&b, &a)), bytes(&both));
        assert_eq!(State::decode(&bytes(&both)), Ok(both.clone()));
        assert!(bytes(&both).len() <= 2 + 12_288);
    }
    // Dense bytes with few registers hit, sparse ones with too many, ranks above 51, and a wrong length.
    let sparse = |entries: u32| (0..entries).flat_map(|n| (n << 6 | 1).to_le_bytes()[..3].to_vec()).collect::<Vec<_>>();
    let mut full = State::decode(&[vec![1, 8], sparse(4_095)].concat()).unwrap();
    full.add(&sample(0, 4_095 << 50 | 1 << 49)).unwrap();
    let dense = [[1, 8].to_vec(), four_registers([1; 4]).repeat(1_024), vec![0; 9_216]].concat();
    assert_eq!(bytes(&full), dense);
    for body in [sparse(4_097), vec![0; 12_288], vec![52, 0, 0], vec![0xff; 12_288], vec![0x41, 0], vec![1, 0, 16]] {
        assert!(State::decode(&[vec![1, 8], body].concat()).is_err());
    }
}
