//! Approximate number of distinct values: HyperLogLog with 2^14 registers (standard error 1.04 / √2^14 = 0.8 %).
//! Not invertible: a register forgets which value set it.
//!
//! The estimate is Ertl's improved raw estimator (O. Ertl, "New cardinality estimation algorithms for HyperLogLog
//! sketches", arXiv:1702.01284, algorithm 6): unbiased from 0 up without tables or a switch to linear counting. It uses
//! only + − · / and √ on f64, which IEEE 754 rounds correctly, so the answer is the same on every machine.

use std::collections::BTreeMap;
use std::f64::consts::LN_2;

use super::{Aggregate, Ask, Quantity, Sample, StateError};

const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;

/// Hash bits left for the rank after those that choose the register.
const RANK_BITS: u32 = 64 - PRECISION;

/// Ranks are 1 ..= 51; 0 is a register not hit.
const MAX_RANK: u8 = RANK_BITS as u8 + 1;

/// A register in six bits, all of them in 12 KiB.
const DENSE_BYTES: usize = REGISTERS * 6 / 8;

/// An entry of the sparse form: 14 bits of index, 6 of rank.
const ENTRY_BYTES: usize = 3;

/// Fewer registers hit than this and the sparse form is the shorter; the length of a body tells the form.
const SPARSE_LIMIT: usize = DENSE_BYTES / ENTRY_BYTES;

const MALFORMED: StateError = StateError::Malformed("registers");

/// Sparse below [`SPARSE_LIMIT`] registers hit and dense from there on, whatever the order of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApproxUnique {
    Sparse(BTreeMap<u16, u8>),
    Dense(Vec<u8>),
}

impl Default for ApproxUnique {
    fn default() -> ApproxUnique {
        ApproxUnique::Sparse(BTreeMap::new())
    }
}

impl ApproxUnique {
    fn raise(&mut self, index: u16, rank: u8) {
        match self {
            ApproxUnique::Dense(registers) => {
                if let Some(register) = registers.get_mut(usize::from(index)) {
                    *register = rank.max(*register);
                }
            }
            ApproxUnique::Sparse(entries) => {
                let register = entries.entry(index).or_default();
                *register = rank.max(*register);
                if entries.len() == SPARSE_LIMIT {
                    let mut registers = vec![0; REGISTERS];
                    self.hits().for_each(|(index, rank)| registers[usize::from(index)] = rank);
                    *self = ApproxUnique::Dense(registers);
                }
            }
        }
    }

    /// Registers hit, by index, with their ranks.
    fn hits(&self) -> Box<dyn Iterator<Item = (u16, u8)> + '_> {
        match self {
            ApproxUnique::Sparse(entries) => Box::new(entries.iter().map(|(index, rank)| (*index, *rank))),
            ApproxUnique::Dense(registers) => {
                Box::new((0..).zip(registers.iter().copied()).filter(|(_, rank)| *rank > 0))
            }
        }
    }

    fn estimate(&self) -> f64 {
        let mut histogram = [0_u32; MAX_RANK as usize + 1];
        let mut missed = REGISTERS as u32;
        for (_, rank) in self.hits() {
            missed -= 1;
            if let Some(count) = histogram.get_mut(usize::from(rank)) {
                *count += 1;
            }
        }
        let m = REGISTERS as f64;
        let [_, middle @ .., last] = histogram;
        let top = m * tau(1.0 - f64::from(last) / m);
        let z = middle.iter().rev().fold(top, |z, count| 0.5 * (z + f64::from(*count)));
        let z = z + m * sigma(f64::from(missed) / m);
        m * m / (2.0 * LN_2 * z)
    }
}

/// x + Σ x^(2^k) · 2^(k−1), k ≥ 1. With x at most 1 − 2^-14 the terms vanish within some 20 rounds.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut sum, mut weight) = (x, 1.0);
    loop {
        x *= x;
        let before = sum;
        sum += x * weight;
        weight += weight;
        if sum == before {
            return sum;
        }
    }
}

/// (1 − x − Σ (1 − x^(2^-k))² · 2^-k) / 3, k ≥ 1. Terms shrink eightfold a round in the end.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut sum, mut weight) = (1.0 - x, 1.0);
    loop {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * weight;
        if sum == before {
            return sum / 3.0;
        }
    }
}

impl Aggregate for ApproxUnique {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        let hash = sample.digest as u64;
        let index = (hash >> RANK_BITS) as u16;
        // The guard bit below the rank bits stops the run of zeros at the largest rank.
        let rank = (hash << PRECISION | 1 << (PRECISION - 1)).leading_zeros() + 1;
        self.raise(index, rank as u8);
        Ok(())
    }

    fn merge(&mut self, other: &ApproxUnique) -> Result<(), StateError> {
        other.hits().for_each(|(index, rank)| self.raise(index, rank));
        Ok(())
    }

    fn is_empty(&self) -> bool {
        *self == ApproxUnique::default()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ApproxUnique::Sparse(entries) => {
                for (index, rank) in entries {
                    let [low, middle, high, _] = (u32::from(*index) << 6 | u32::from(*rank)).to_le_bytes();
                    out.extend_from_slice(&[low, middle, high]);
                }
            }
            ApproxUnique::Dense(registers) => {
                // Four registers in three bytes.
                for four in registers.chunks_exact(4) {
                    let bits = four.iter().rev().fold(0_u32, |bits, rank| bits << 6 | u32::from(*rank));
                    let [low, middle, high, _] = bits.to_le_bytes();
                    out.extend_from_slice(&[low, middle, high]);
                }
            }
        }
    }

    fn decode(input: &mut &[u8]) -> Result<ApproxUnique, StateError> {
        let body = std::mem::take(input);
        let (words, []) = body.as_chunks::<ENTRY_BYTES>() else {
            return Err(MALFORMED);
        };
        let words = words.iter().map(|[low, middle, high]| u32::from_le_bytes([*low, *middle, *high, 0]));
        let state = if body.len() == DENSE_BYTES {
            let registers = words.flat_map(|word| [word, word >> 6, word >> 12, word >> 18]);
            ApproxUnique::Dense(registers.map(|word| word as u8 & 0x3f).collect())
        } else {
            ApproxUnique::Sparse(words.map(|word| ((word >> 6) as u16, word as u8 & 0x3f)).collect())
        };
        let mut hits = 0;
        for (index, rank) in state.hits() {
            hits += 1;
            if usize::from(index) >= REGISTERS || !(1..=MAX_RANK).contains(&rank) {
                return Err(MALFORMED);
            }
        }
        // One encoding a state: whatever reads back differently was out of order, repeated or too wide.
        let mut again = Vec::with_capacity(body.len());
        state.encode(&mut again);
        let dense = matches!(state, ApproxUnique::Dense(_));
        if again != body || dense != (hits >= SPARSE_LIMIT) { Err(MALFORMED) } else { Ok(state) }
    }

    fn value(&self, _: &Ask) -> Result<Option<Quantity>, StateError> {
        Ok(Some(Quantity::from_i64(self.estimate().round() as i64)))
    }
}
