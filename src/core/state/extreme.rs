//! What smallest and largest value have in common: the one value that beats all others met so far. Not invertible, for
//! the runner-up is not kept.

use std::fmt::Debug;
use std::marker::PhantomData;

use super::{Aggregate, Ask, Quantity, Sample, StateError};

/// Which of two values stays.
pub trait Pick: Clone + Copy + Debug + Default + PartialEq {
    fn pick(a: Quantity, b: Quantity) -> Quantity;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extreme<P>(Option<Quantity>, PhantomData<P>);

impl<P: Pick> Extreme<P> {
    pub fn get(self) -> Option<Quantity> {
        self.0
    }

    fn meet(&mut self, value: Quantity) {
        self.0 = Some(self.0.map_or(value, |known| P::pick(known, value)));
    }
}

impl<P: Pick> Aggregate for Extreme<P> {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        self.meet(sample.value);
        Ok(())
    }

    fn merge(&mut self, other: &Self) -> Result<(), StateError> {
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

    fn decode(input: &mut &[u8]) -> Result<Self, StateError> {
        if input.is_empty() {
            return Ok(Extreme(None, PhantomData));
        }
        Ok(Extreme(Some(Quantity::decode(input)?), PhantomData))
    }

    fn value(&self, _: &Ask) -> Result<Option<Quantity>, StateError> {
        Ok(self.0)
    }
}
