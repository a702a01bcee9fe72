//! Percentile from a log-linear histogram: every octave of magnitude is cut into 128 equal slots and a slot answers
//! with its midpoint, so an answer is within 1/256 of a true value of that rank. The layout is HdrHistogram's
//! (<https://hdrhistogram.org>) with the sign added; slots come from the decimal mantissa by integer arithmetic, so
//! they are the same on every machine. At most 63,743 slots whatever the number of events.

use std::collections::BTreeMap;

use ethnum::I256;

use super::codec::{put_int, take_int};
use super::count::Count;
use super::keyed::{Key, Keyed, Rule};
use super::percentile::nearest_rank;
use super::{Ask, Quantity, Sample, StateError};

pub type ApproxPercentile = Keyed<BySlot>;

pub struct BySlot;

impl Rule for BySlot {
    type Key = Slot;
    type Part = Count;

    fn key(sample: &Sample) -> Slot {
        Slot::of(sample.value)
    }

    fn value(parts: &BTreeMap<Slot, Count>, ask: &Ask) -> Result<Option<Quantity>, StateError> {
        let slot = nearest_rank(parts, ask.percentile)?;
        slot.map(Slot::midpoint).transpose()
    }
}

/// Slots of an octave. Mantissas below twice this have a slot each.
const STEPS: u32 = 128;

/// The slot of 2^255 - 1: 247 octaves after the exact ones, and the last step.
const LAST: u16 = 247 * 128 + 255;

/// Zero is slot 0, and the slot of -v is minus the slot of v.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(i16);

impl Slot {
    /// With the mantissa's eight highest bits kept and `shift` bits dropped: 128 · shift + those eight bits.
    fn of(value: Quantity) -> Slot {
        let magnitude = value.mantissa().wrapping_abs();
        let shift = (256 - magnitude.leading_zeros()).saturating_sub(8);
        let slot = (STEPS * shift + magnitude.wrapping_shr(shift).as_u32()) as i16; // ≤ LAST
        Slot(if value.is_negative() { -slot } else { slot })
    }

    fn midpoint(self) -> Result<Quantity, StateError> {
        let slot = u32::from(self.0.unsigned_abs());
        let shift = (slot / STEPS).saturating_sub(1);
        let low = I256::from(slot - STEPS * shift).wrapping_shl(shift);
        let half = I256::ONE.wrapping_shl(shift).wrapping_shr(1);
        let middle = Quantity::from_mantissa(low.wrapping_add(half))?;
        Ok(if self.0 < 0 { -middle } else { middle })
    }
}

impl Key for Slot {
    fn encode(&self, out: &mut Vec<u8>) {
        put_int(self.0.into(), out);
    }

    fn decode(input: &mut &[u8]) -> Result<Slot, StateError> {
        let slot = i16::try_from(take_int(input)?).ok().filter(|slot| slot.unsigned_abs() <= LAST);
        slot.map(Slot).ok_or(StateError::Malformed("slot"))
    }
}
