//! Largest value. Not invertible: the runner-up is not kept.

use super::{Aggregate, Ask, Quantity, Sample, StateError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Max(Option<Quantity>);

impl Max {
    pub fn get(self) -> Option<Quantity> {
        self.0
    }

    fn meet(&mut self, value: Quantity) {
        self.0 = Some(self.0.map_or(value, |known| known.max(value)));
    }
}

impl Aggregate for Max {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        self.meet(sample.value);
        Ok(())
    }

    fn merge(&mut self, other: &Max) -> Result<(), StateError> {
        if let Some(value) = other.0 {
            self.meet(value);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if let Some(value) = self.0 {
            value.encode(out);
        }
    }

    fn decode(input: &mut &[u8]) -> Result<Max, StateError> {
        if input.is_empty() {
            return Ok(Max(None));
        }
        Ok(Max(Some(Quantity::decode(input)?)))
    }

    fn value(&self, _: &Ask) -> Result<Option<Quantity>, StateError> {
        Ok(self.0)
    }
}
