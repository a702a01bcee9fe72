//! Mean of the values: a sum, divided only when read, rounded half away from zero at 24 decimals.

use super::sum::Sum;
use super::{Aggregate, Ask, Quantity, Sample, StateError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Avg(Sum);

impl Aggregate for Avg {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        self.0.add(sample)
    }

    fn merge(&mut self, other: &Avg) -> Result<(), StateError> {
        self.0.merge(&other.0)
    }

    fn negate(&self) -> Option<Avg> {
        self.0.negate().map(Avg)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(input: &mut &[u8]) -> Result<Avg, StateError> {
        Sum::decode(input).map(Avg)
    }

    /// None unless events outnumber voids: a delta that only undoes has no mean of its own.
    fn value(&self, _: &Ask) -> Result<Option<Quantity>, StateError> {
        match self.0.count.get() {
            ..=0 => Ok(None),
            n => Ok(Some(self.0.total.div_round(n.into())?)),
        }
    }
}
