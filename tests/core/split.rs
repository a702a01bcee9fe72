//! Splits by largest remainder: to the unit, whatever the weights.

use ethnum::I256;
use proptest::prelude::*;

use crate::core::pricing::{Amount, Money};
use crate::core::split::{SplitError, split, split_money};

fn whole(numbers: &[i64]) -> Vec<I256> {
    numbers.iter().map(|number| I256::from(*number)).collect()
}

fn parts(total: i64, weights: &[i64]) -> Vec<i64> {
    split(I256::from(total), &whole(weights)).unwrap().iter().map(|part| part.as_i64()).collect()
}

#[test]
fn leftover_units_go_to_the_largest_fractions_and_the_first_of_equals() {
    for (total, weights, expected) in [
        (100, &[1, 1, 1][..], &[34, 33, 33][..]),
        (101, &[1, 1, 1], &[34, 34, 33]),
        (-100, &[1, 1, 1], &[-34, -33, -33]),
        (10, &[2, 3, 5], &[2, 3, 5]),
        (7, &[2, 3, 5], &[1, 2, 4]), // 1.4, 2.1, 3.5
        (7, &[5, 3, 2], &[4, 2, 1]),
        (1, &[1, 1], &[1, 0]),
        (1, &[0, 1, 1], &[0, 1, 0]),
        (5, &[0, 0, 3], &[0, 0, 5]),
        (0, &[1, 2], &[0, 0]),
        (0, &[0, 0], &[0, 0]),
        (0, &[], &[]),
        (2, &[1, 1, 1, 1], &[1, 1, 0, 0]),
        (2, &[1_000_000_000_000, 1], &[2, 0]),
    ] {
        assert_eq!(parts(total, weights), expected, "{total} over {weights:?}");
    }
}

#[test]
fn what_can_not_be_split() {
    assert_eq!(split(I256::ONE, &whole(&[])), Err(SplitError::NoWeight));
    assert_eq!(split(I256::ONE, &whole(&[0, 0])), Err(SplitError::NoWeight));
    assert_eq!(split(I256::ZERO, &whole(&[1, -1])), Err(SplitError::NegativeWeight));
    assert_eq!(split(I256::MAX, &whole(&[2, 1])), Err(SplitError::TooLarge));
    assert_eq!(split(I256::MIN, &whole(&[2, 1])), Err(SplitError::TooLarge));
    assert_eq!(split(I256::ONE, &[I256::MAX, I256::ONE]), Err(SplitError::TooLarge));
    assert_eq!(split(I256::MAX, &whole(&[1, 0])), Ok(vec![I256::MAX, I256::ZERO]));
    assert_eq!(split(I256::MIN, &whole(&[0, 1])), Ok(vec![I256::ZERO, I256::MIN]));
}

#[test]
fn money_over_amounts() {
    let shown = |total: i64, digits, weights: &[&str]| -> Vec<String> {
        let weights: Vec<Amount> = weights.iter().map(|weight| Amount::parse(weight).unwrap()).collect();
        let parts = split_money(Money::new(I256::from(total), digits), &weights).unwrap();
        parts.iter().map(Money::to_string).collect()
    };
    assert_eq!(shown(1000, 2, &["0.1", "0.2", "0.03"]), ["3.03", "6.06", "0.91"]);
    assert_eq!(shown(-1, 0, &["19.99", "20"]), ["0", "-1"]);
    assert_eq!(shown(1, 3, &["1000000", "0.000000000000000000000001"]), ["0.001", "0.000"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parts_add_up_and_are_near_their_share(
        total in -1_000_000_000_i64..1_000_000_000,
        weights in proptest::collection::vec(prop_oneof![Just(0_i64), 1_i64..20, 0_i64..1_000_000_000_000], 1..12),
    ) {
        let sum: i64 = weights.iter().sum();
        prop_assume!(sum > 0);
        let found = parts(total, &weights);
        prop_assert_eq!(found.iter().sum::<i64>(), total);
        for (part, weight) in found.iter().zip(&weights) {
            // |part − total · weight / sum| < 1
            let off = i128::from(*part) * i128::from(sum) - i128::from(total) * i128::from(*weight);
            prop_assert!(off.abs() < i128::from(sum));
            prop_assert!(part.signum() == 0 || part.signum() == total.signum());
            prop_assert!(*weight != 0 || *part == 0);
        }
        let negated: Vec<i64> = found.iter().map(|part| -part).collect();
        prop_assert_eq!(parts(-total, &weights), negated);
        // Doubling the weights changes nothing.
        let doubled: Vec<i64> = weights.iter().map(|weight| weight * 2).collect();
        prop_assert_eq!(parts(total, &doubled), found);
    }

    /// No unit could be moved to a part that is further below its share: the least error of all splits.
    #[test]
    fn no_other_split_is_nearer(total in 0_i64..1000, weights in proptest::collection::vec(0_i64..50, 2..8)) {
        let sum: i64 = weights.iter().sum();
        prop_assume!(sum > 0);
        let found = parts(total, &weights);
        let below = |i: usize| total * weights[i] - found[i] * sum; // how much too little, in parts of `sum`
        for from in 0..weights.len() {
            for to in 0..weights.len() {
                let gained = below(to) - below(from);
                prop_assert!(gained < sum || (gained == sum && from < to), "{from} to {to} of {found:?}");
            }
        }
    }

    /// In another order the same parts, if no two fractions are equal; else the units left over stay in front.
    #[test]
    fn order_matters_to_equals_only(total in 0_i64..10_000, weights in proptest::collection::vec(1_i64..1000, 2..8)) {
        let sum: i64 = weights.iter().sum();
        let mut fractions: Vec<i64> = weights.iter().map(|weight| total * weight % sum).collect();
        let found = parts(total, &weights);
        let mut reversed: Vec<i64> = parts(total, &weights.iter().rev().copied().collect::<Vec<_>>());
        reversed.reverse();
        fractions.sort_unstable();
        if fractions.windows(2).all(|pair| pair[0] != pair[1]) {
            prop_assert_eq!(&reversed, &found);
        }
        let equals = |i: usize, j: usize| weights[i] == weights[j];
        for i in 0..weights.len() {
            for j in i + 1..weights.len() {
                prop_assert!(!equals(i, j) || (found[i] >= found[j] && reversed[i] <= reversed[j]));
            }
        }
    }
}
