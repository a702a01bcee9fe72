//! Time-weighted mean of a level that each event changes by its value: Σ d·(to − t) / (to − from). With Σ d and Σ d·t
//! kept, the period need not be known until the value is read. The level starts at 0 at `from`; a caller that knows
//! the level carried over adds it as a sample at `from`.

use super::count::Count;
use super::{Aggregate, Ask, Quantity, Sample, StateError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightedSum {
    count: Count,
    /// Σ d.
    level: Quantity,
    /// Σ d·t, t in Unix microseconds. `decimal` says why it fits.
    moment: Quantity,
}

impl Aggregate for WeightedSum {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        self.count.add(sample)?;
        self.level = self.level.checked_add(sample.value)?;
        self.moment = self.moment.checked_add(sample.value.checked_mul_int(sample.at)?)?;
        Ok(())
    }

    fn merge(&mut self, other: &WeightedSum) -> Result<(), StateError> {
        self.count.merge(&other.count)?;
        self.level = self.level.checked_add(other.level)?;
        self.moment = self.moment.checked_add(other.moment)?;
        Ok(())
    }

    fn negate(&self) -> Option<WeightedSum> {
        Some(WeightedSum { count: self.count.neg(), level: -self.level, moment: -self.moment })
    }

    fn is_empty(&self) -> bool {
        *self == WeightedSum::default()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.count.encode(out);
        self.level.encode(out);
        self.moment.encode(out);
    }

    fn decode(input: &mut &[u8]) -> Result<WeightedSum, StateError> {
        Ok(WeightedSum {
            count: Count::decode(input)?,
            level: Quantity::decode(input)?,
            moment: Quantity::decode(input)?,
        })
    }

    fn value(&self, ask: &Ask) -> Result<Option<Quantity>, StateError> {
        if ask.to <= ask.from {
            return Err(StateError::Period);
        }
        if self.is_empty() {
            return Ok(None);
        }
        let area = self.level.checked_mul_int(ask.to)?.checked_sub(self.moment)?;
        Ok(Some(area.div_round(i128::from(ask.to) - i128::from(ask.from))?))
    }
}
