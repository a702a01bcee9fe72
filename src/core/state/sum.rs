//! Sum of the values. The count beside it tells a sum of 0 from no events at all.

use super::count::Count;
use super::{Aggregate, Ask, Quantity, Sample, StateError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: Count,
    pub total: Quantity,
}

impl Aggregate for Sum {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        self.count.add(sample)?;
        self.total = self.total.checked_add(sample.value)?;
        Ok(())
    }

    fn merge(&mut self, other: &Sum) -> Result<(), StateError> {
        self.count.merge(&other.count)?;
        self.total = self.total.checked_add(other.total)?;
        Ok(())
    }

    fn negate(&self) -> Option<Sum> {
        Some(Sum { count: self.count.neg(), total: -self.total })
    }

    fn is_empty(&self) -> bool {
        *self == Sum::default()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.count.encode(out);
        self.total.encode(out);
    }

    fn decode(input: &mut &[u8]) -> Result<Sum, StateError> {
        Ok(Sum { count: Count::decode(input)?, total: Quantity::decode(input)? })
    }

    fn value(&self, _: &Ask) -> Result<Option<Quantity>, StateError> {
        Ok((!self.is_empty()).then_some(self.total))
    }
}
