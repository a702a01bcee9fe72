//! Value of the latest event. Not invertible: the one before it is not kept.

use super::codec::{put_int, take_int};
use super::{Aggregate, Ask, Quantity, Sample, StateError};

/// Ordered by time, then arrival. The value ends the order only so that it is total; arrival numbers are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    at: i64,
    seq: i64,
    value: Quantity,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latest(Option<Reading>);

impl Aggregate for Latest {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        // None sorts before every reading.
        self.0 = self.0.max(Some(Reading { at: sample.at, seq: sample.seq, value: sample.value }));
        Ok(())
    }

    fn merge(&mut self, other: &Latest) -> Result<(), StateError> {
        self.0 = self.0.max(other.0);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if let Some(reading) = &self.0 {
            put_int(reading.at, out);
            put_int(reading.seq, out);
            reading.value.encode(out);
        }
    }

    fn decode(input: &mut &[u8]) -> Result<Latest, StateError> {
        if input.is_empty() {
            return Ok(Latest(None));
        }
        let (at, seq) = (take_int(input)?, take_int(input)?);
        Ok(Latest(Some(Reading { at, seq, value: Quantity::decode(input)? })))
    }

    fn value(&self, _: &Ask) -> Result<Option<Quantity>, StateError> {
        Ok(self.0.map(|reading| reading.value))
    }
}
