//! A sum of money spread over weights without losing or inventing a minor unit: a discount over the lines of an
//! invoice, a tax, a credit.
//!
//! Largest remainder (Hamilton's method): every part gets its exact share rounded towards zero, and the units left over
//! go one each to the parts that lost the largest fraction; of equal fractions the first wins. So
//! - the parts add up to the total;
//! - every part is less than one unit from its exact share, has the sign of the total, and is 0 where the weight is 0;
//! - the parts of a negative total are those of the positive one, negated: what is given back is what was charged;
//! - weights in another order give the parts in that order, but among equal fractions the leftover units stay in front.

use std::cmp::Reverse;
use std::fmt;

use ethnum::I256;

use super::pricing::{Amount, Money};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    NegativeWeight,
    /// There is something to split, and no weight above zero takes it.
    NoWeight,
    /// The total times a weight, or the sum of the weights, exceeds 255 bits.
    TooLarge,
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SplitError::NegativeWeight => "a weight is negative",
            SplitError::NoWeight => "no weight is above zero",
            SplitError::TooLarge => "the total and the weights have too many digits",
        })
    }
}

impl std::error::Error for SplitError {}

/// Splits money in proportion to `weights`: one part for each, in their order.
pub fn split_money(total: Money, weights: &[Amount]) -> Result<Vec<Money>, SplitError> {
    let scale = weights.iter().map(Amount::scale).max().unwrap_or(0);
    let whole = |weight: &Amount| {
        let factor = I256::new(10).checked_pow(scale - weight.scale());
        factor.and_then(|factor| weight.coefficient().checked_mul(factor)).ok_or(SplitError::TooLarge)
    };
    let weights = weights.iter().map(whole).collect::<Result<Vec<I256>, SplitError>>()?;
    let parts = split(total.minor(), &weights)?;
    Ok(parts.into_iter().map(|part| Money::new(part, total.digits())).collect())
}

/// Splits `total` minor units in proportion to `weights`: one part for each, in their order.
pub fn split(total: I256, weights: &[I256]) -> Result<Vec<I256>, SplitError> {
    if weights.iter().any(|weight| weight.is_negative()) {
        return Err(SplitError::NegativeWeight);
    }
    if total == I256::ZERO {
        return Ok(vec![I256::ZERO; weights.len()]);
    }
    let sum =
        weights.iter().try_fold(I256::ZERO, |sum, weight| sum.checked_add(*weight)).ok_or(SplitError::TooLarge)?;
    if sum == I256::ZERO {
        return Err(SplitError::NoWeight);
    }
    let share = |weight: &I256| total.checked_mul(*weight)?.checked_div_rem(sum);
    let shares: Vec<(I256, I256)> = weights.iter().map(share).collect::<Option<_>>().ok_or(SplitError::TooLarge)?;
    let (mut parts, lost): (Vec<I256>, Vec<I256>) = shares.into_iter().unzip();
    // Truncated parts have the total's sign and are no further from zero than it, so these sums can't overflow.
    let mut left = parts.iter().fold(total, |left, part| left.wrapping_sub(*part));
    let mut order: Vec<(Reverse<I256>, &mut I256)> =
        lost.into_iter().map(|lost| Reverse(lost.wrapping_abs())).zip(parts.iter_mut()).collect();
    // Stable, so that the first of equals stays first.
    order.sort_by_key(|(lost, _)| *lost);
    // The fractions lost add up to `left`, each below one: there are more parts with a fraction than units left.
    for (_, part) in order {
        if left == I256::ZERO {
            break;
        }
        *part = part.wrapping_add(total.signum());
        left = left.wrapping_sub(total.signum());
    }
    Ok(parts)
}
