//! Number of events. Signed, because a void's delta may be folded before the event it undoes.

use super::codec::{put_int, take_int};
use super::{Aggregate, Ask, Quantity, Sample, StateError};

/// Never `i64::MIN`, so that every count has a negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(i64);

impl Count {
    pub fn get(self) -> i64 {
        self.0
    }

    pub fn neg(self) -> Count {
        Count(-self.0)
    }

    fn plus(self, n: i64) -> Result<Count, StateError> {
        self.0.checked_add(n).filter(|sum| *sum != i64::MIN).map(Count).ok_or(StateError::Overflow)
    }
}

impl Aggregate for Count {
    fn add(&mut self, _: &Sample) -> Result<(), StateError> {
        *self = self.plus(1)?;
        Ok(())
    }

    fn merge(&mut self, other: &Count) -> Result<(), StateError> {
        *self = self.plus(other.0)?;
        Ok(())
    }

    fn negate(&self) -> Option<Count> {
        Some(self.neg())
    }

    fn is_empty(&self) -> bool {
        self.0 == 0
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_int(self.0, out);
    }

    fn decode(input: &mut &[u8]) -> Result<Count, StateError> {
        match take_int(input)? {
            i64::MIN => Err(StateError::Malformed("count")),
            n => Ok(Count(n)),
        }
    }

    fn value(&self, _: &Ask) -> Result<Option<Quantity>, StateError> {
        Ok(Some(Quantity::from_i64(self.0)))
    }
}
