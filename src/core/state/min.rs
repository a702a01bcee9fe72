//! Smallest value. Not invertible: the runner-up is not kept.

use super::{Aggregate, Ask, Quantity, Sample, StateError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Min(Option<Quantity>);

impl Min {
    fn meet(&mut self, value: Quantity) {
        self.0 = Some(self.0.map_or(value, |known| known.min(value)));
    }
}

impl Aggregate for Min {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        self.meet(sample.value);
        Ok(())
    }

    fn merge(&mut self, other: &Min) -> Result<(), StateError> {
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

    fn decode(input: &mut &[u8]) -> Result<Min, StateError> {
        if input.is_empty() {
            return Ok(Min(None));
        }
        Ok(Min(Some(Quantity::decode(input)?)))
    }

    fn value(&self, _: &Ask) -> Result<Option<Quantity>, StateError> {
        Ok(self.0)
    }
}
