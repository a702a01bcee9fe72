//! Exact number of distinct values: each digest with the number of events that carried it. Two values share a 128-bit
//! digest with probability n² · 2^-129: below 10^-20 for a billion values.

use std::collections::BTreeMap;

use super::count::Count;
use super::keyed::{Keyed, Rule};
use super::{Ask, Quantity, Sample, StateError};

pub type Unique = Keyed<ByDigest>;

pub struct ByDigest;

impl Rule for ByDigest {
    type Key = u128;
    type Part = Count;

    fn key(sample: &Sample) -> u128 {
        sample.digest
    }

    fn value(parts: &BTreeMap<u128, Count>, _: &Ask) -> Result<Option<Quantity>, StateError> {
        let distinct = parts.values().filter(|count| count.get() > 0).count();
        Ok(Some(Quantity::from_i64(distinct as i64)))
    }
}
