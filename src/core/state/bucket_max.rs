//! Maximum per bucket of the meter's own, summed over the buckets: peak billing.

use std::collections::BTreeMap;

use super::keyed::{Keyed, Rule};
use super::max::Max;
use super::{Ask, Quantity, Sample, StateError};

pub type BucketMax = Keyed<MaxByBucket>;

pub struct MaxByBucket;

impl Rule for MaxByBucket {
    type Key = i64;
    type Part = Max;

    fn key(sample: &Sample) -> i64 {
        sample.bucket
    }

    fn value(parts: &BTreeMap<i64, Max>, _: &Ask) -> Result<Option<Quantity>, StateError> {
        if parts.is_empty() {
            return Ok(None);
        }
        let mut peaks = parts.values().filter_map(|part| part.get());
        Ok(Some(peaks.try_fold(Quantity::ZERO, Quantity::checked_add)?))
    }
}
