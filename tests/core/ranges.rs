//! Sets of time against sets of single instants.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::core::ranges::Ranges;

const LAST: i64 = 40;

fn pairs() -> impl Strategy<Value = Vec<(i64, i64)>> {
    prop::collection::vec((0..LAST, 0..LAST), 0..8)
}

/// The instants that ranges stand for.
fn instants(pairs: &[(i64, i64)]) -> BTreeSet<i64> {
    pairs.iter().flat_map(|&(start, end)| start..end).collect()
}

/// What they stand for, once they are known to be sorted, apart and not empty.
fn checked(ranges: &Ranges) -> BTreeSet<i64> {
    let slice = ranges.as_slice();
    assert!(slice.iter().all(|(start, end)| start < end), "an empty one in {slice:?}");
    assert!(slice.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{slice:?}");
    instants(slice)
}

proptest! {
    #[test]
    fn sets_of_time_are_sets(a in pairs(), b in pairs()) {
        let (x, y) = (Ranges::union(a.clone()), Ranges::union(b.clone()));
        let (in_x, in_y) = (instants(&a), instants(&b));
        prop_assert_eq!(checked(&x), in_x.clone());
        prop_assert!(x.as_slice().windows(2).all(|pair| pair[0].1 < pair[1].0), "two that touch: {:?}", x);
        prop_assert_eq!(checked(&x.intersect(&y)), &in_x & &in_y);
        prop_assert_eq!(x.intersect(&y), y.intersect(&x));
        prop_assert_eq!(checked(&x.subtract(&y)), &in_x - &in_y);
        prop_assert_eq!(x.is_empty(), in_x.is_empty());
        prop_assert_eq!(x.span(), in_x.first().map(|first| (*first, in_x.last().unwrap() + 1)));
        for at in -1..=LAST {
            prop_assert_eq!(x.contains(at), in_x.contains(&at), "at {}", at);
        }
    }

    #[test]
    fn what_is_taken_and_what_is_left_are_the_whole(a in pairs(), b in pairs()) {
        let (x, y) = (Ranges::union(a), Ranges::union(b));
        let parts = [x.intersect(&y), x.subtract(&y)];
        prop_assert!(parts[0].intersect(&parts[1]).is_empty());
        prop_assert_eq!(Ranges::union(parts.iter().flat_map(|part| part.as_slice().to_vec()).collect()), x);
    }

    #[test]
    fn one_range(start in -5_i64..5, end in -5_i64..5) {
        prop_assert_eq!(Ranges::of(start, end), Ranges::union(vec![(start, end)]));
    }
}

#[test]
fn the_ends_of_time() {
    let always = Ranges::of(i64::MIN, i64::MAX);
    assert_eq!(always.subtract(&Ranges::of(0, 5)).as_slice(), [(i64::MIN, 0), (5, i64::MAX)]);
    assert_eq!(always.intersect(&Ranges::of(0, i64::MAX)), Ranges::of(0, i64::MAX));
    assert!(always.subtract(&always).is_empty());
}
