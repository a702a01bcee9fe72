//! Exact percentile by nearest rank, as PostgreSQL's `percentile_disc`: the smallest value whose cumulative count is at
//! least percentile · n. Always one of the values, never between two.

use std::collections::BTreeMap;

use ethnum::I256;

use super::count::Count;
use super::keyed::{Keyed, Rule};
use super::{Ask, Quantity, Sample, StateError};

pub type Percentile = Keyed<ByValue>;

pub struct ByValue;

impl Rule for ByValue {
    type Key = Quantity;
    type Part = Count;

    fn key(sample: &Sample) -> Quantity {
        sample.value
    }

    fn value(parts: &BTreeMap<Quantity, Count>, ask: &Ask) -> Result<Option<Quantity>, StateError> {
        nearest_rank(parts, ask.percentile)
    }
}

/// The key at the percentile of a multiset; None when it is empty.
pub fn nearest_rank<K: Copy>(parts: &BTreeMap<K, Count>, percentile: Quantity) -> Result<Option<K>, StateError> {
    if percentile.is_negative() || percentile > Quantity::ONE {
        return Err(StateError::Percentile);
    }
    let positive = || parts.iter().filter(|(_, count)| count.get() > 0);
    let total: i128 = positive().map(|(_, count)| i128::from(count.get())).sum();
    // percentile · total, rounded up: the mantissa is below 2^80 and the total below 2^127, so the product fits.
    let one = Quantity::ONE.mantissa();
    let product = percentile.mantissa().wrapping_mul(I256::new(total));
    let rank = product.wrapping_add(one).wrapping_sub(I256::ONE).wrapping_div(one).as_i128();
    let mut seen = 0_i128;
    Ok(positive()
        .find(|(_, count)| {
            seen += i128::from(count.get());
            seen >= rank
        })
        .map(|(key, _)| *key))
}
