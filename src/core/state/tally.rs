//! Many stored states merged for their value alone, as a reader does. What grows with the number of values is not built
//! as a state each time only to be taken apart again: a month of distinct values is thirty sorted sets, and entering
//! each in one table costs a tenth of merging them.

use rustc_hash::FxHashMap;

use super::codec::take_int;
use super::keyed::Key;
use super::{Ask, Kind, Quantity, Sample, State, StateError};

#[derive(Clone, Debug)]
pub enum Tally {
    /// Of `Kind::Unique`: the digests with the number of events that carried them, 0 after a void. A digest is a keyed
    /// hash already; nobody can choose colliding ones.
    Distinct(FxHashMap<u128, i64>),
    Merged(State),
}

impl Tally {
    pub fn empty(kind: Kind) -> Tally {
        match kind {
            Kind::Unique => Tally::Distinct(FxHashMap::default()),
            _ => Tally::Merged(State::empty(kind)),
        }
    }

    pub fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        match self {
            Tally::Distinct(counts) => count(counts, sample.digest, 1),
            Tally::Merged(state) => state.add(sample),
        }
    }

    /// Takes in a stored state. Any bytes are safe to pass.
    pub fn merge(&mut self, stored: &[u8]) -> Result<(), StateError> {
        match self {
            Tally::Distinct(counts) => {
                let (kind, mut body) = State::split(stored)?;
                if kind != Kind::Unique {
                    return Err(StateError::Mismatch(Kind::Unique, kind));
                }
                let mut last = None;
                while !body.is_empty() {
                    let (digest, n) = (u128::decode(&mut body)?, take_int(&mut body)?);
                    if n == 0 || n == i64::MIN || last.is_some_and(|last| last >= digest) {
                        return Err(StateError::Malformed("entries"));
                    }
                    count(counts, digest, n)?;
                    last = Some(digest);
                }
                Ok(())
            }
            Tally::Merged(state) => state.merge(&State::decode(stored)?),
        }
    }

    /// Takes in another tally of the same kind.
    pub fn join(&mut self, other: &Tally) -> Result<(), StateError> {
        match (self, other) {
            (Tally::Distinct(counts), Tally::Distinct(more)) => {
                more.iter().try_for_each(|(digest, n)| count(counts, *digest, *n))
            }
            (Tally::Merged(state), Tally::Merged(more)) => state.merge(more),
            (Tally::Merged(state), Tally::Distinct(_)) => Err(StateError::Mismatch(state.kind(), Kind::Unique)),
            (Tally::Distinct(_), Tally::Merged(more)) => Err(StateError::Mismatch(Kind::Unique, more.kind())),
        }
    }

    /// The value of each of the meter's own buckets, by start; none for kinds without buckets.
    pub fn buckets(&self) -> Vec<(i64, Quantity)> {
        match self {
            Tally::Distinct(_) => Vec::new(),
            Tally::Merged(state) => state.buckets(),
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Tally::Distinct(counts) => counts.values().all(|n| *n == 0),
            Tally::Merged(state) => state.is_empty(),
        }
    }

    pub fn value(&self, ask: &Ask) -> Result<Option<Quantity>, StateError> {
        match self {
            Tally::Distinct(counts) => Ok(Some(Quantity::from_i64(counts.values().filter(|n| **n > 0).count() as i64))),
            Tally::Merged(state) => state.value(ask),
        }
    }
}

fn count(counts: &mut FxHashMap<u128, i64>, digest: u128, n: i64) -> Result<(), StateError> {
    let sum = counts.entry(digest).or_default();
    *sum = sum.checked_add(n).filter(|sum| *sum != i64::MIN).ok_or(StateError::Overflow)?;
    Ok(())
}
