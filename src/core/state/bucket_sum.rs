//! Sum per bucket of the meter's own, then over the buckets: each bucket can be priced by itself.

use std::collections::BTreeMap;

use super::keyed::{Keyed, Rule};
use super::sum::Sum;
use super::{Ask, Quantity, Sample, StateError};

pub type BucketSum = Keyed<SumByBucket>;

pub struct SumByBucket;

impl Rule for SumByBucket {
    type Key = i64;
    type Part = Sum;

    fn key(sample: &Sample) -> i64 {
        sample.bucket
    }

    fn value(parts: &BTreeMap<i64, Sum>, _: &Ask) -> Result<Option<Quantity>, StateError> {
        if parts.is_empty() {
            return Ok(None);
        }
        let total = parts.values().try_fold(Quantity::ZERO, |total, part| total.checked_add(part.total))?;
        Ok(Some(total))
    }
}
