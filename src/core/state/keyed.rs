//! A map from a key to a smaller aggregate, the shape that five kinds share. A multiset is a map from the element to
//! its signed count: counts, unlike sets, can be undone. An entry that becomes empty disappears, so that equal states
//! have equal bytes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Debug;

use super::codec::{put_int, take_int};
use super::{Aggregate, Ask, Quantity, Sample, StateError};

/// How one kind uses the map.
pub trait Rule {
    type Key: Key;
    type Part: Aggregate;

    fn key(sample: &Sample) -> Self::Key;
    fn value(parts: &BTreeMap<Self::Key, Self::Part>, ask: &Ask) -> Result<Option<Quantity>, StateError>;
}

pub trait Key: Copy + Debug + Ord {
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(input: &mut &[u8]) -> Result<Self, StateError>;
}

pub struct Keyed<R: Rule>(BTreeMap<R::Key, R::Part>);

impl<R: Rule> Keyed<R> {
    pub fn iter(&self) -> impl Iterator<Item = (&R::Key, &R::Part)> {
        self.0.iter()
    }

    fn change(
        &mut self,
        key: R::Key,
        change: impl FnOnce(&mut R::Part) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        match self.0.entry(key) {
            Entry::Vacant(entry) => {
                let mut part = R::Part::default();
                change(&mut part)?;
                entry.insert(part);
            }
            Entry::Occupied(mut entry) => {
                change(entry.get_mut())?;
                if entry.get().is_empty() {
                    entry.remove();
                }
            }
        }
        Ok(())
    }
}

impl<R: Rule> Aggregate for Keyed<R> {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
        self.change(R::key(sample), |part| part.add(sample))
    }

    fn merge(&mut self, other: &Self) -> Result<(), StateError> {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return Ok(());
        }
        other.0.iter().try_for_each(|(key, change)| self.change(*key, |part| part.merge(change)))
    }

    fn negate(&self) -> Option<Self> {
        self.0.iter().map(|(key, part)| Some((*key, part.negate()?))).collect::<Option<_>>().map(Keyed)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for (key, part) in &self.0 {
            key.encode(out);
            part.encode(out);
        }
    }

    fn decode(input: &mut &[u8]) -> Result<Self, StateError> {
        // An entry takes at least two bytes, which bounds the memory by the length of the input.
        let mut entries: Vec<(R::Key, R::Part)> = Vec::new();
        while !input.is_empty() {
            let (key, part) = (R::Key::decode(input)?, R::Part::decode(input)?);
            if part.is_empty() || entries.last().is_some_and(|(last, _)| *last >= key) {
                return Err(StateError::Malformed("entries"));
            }
            entries.push((key, part));
        }
        Ok(Keyed(entries.into_iter().collect()))
    }

    fn value(&self, ask: &Ask) -> Result<Option<Quantity>, StateError> {
        R::value(&self.0, ask)
    }
}

// Derived, these would ask of the rule what only its key and part must do.
impl<R: Rule> Clone for Keyed<R> {
    fn clone(&self) -> Self {
        Keyed(self.0.clone())
    }
}

impl<R: Rule> Debug for Keyed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<R: Rule> Default for Keyed<R> {
    fn default() -> Self {
        Keyed(BTreeMap::new())
    }
}

impl<R: Rule> PartialEq for Keyed<R> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Key for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_int(*self, out);
    }

    fn decode(input: &mut &[u8]) -> Result<i64, StateError> {
        take_int(input)
    }
}

/// Hashes don't compress: sixteen bytes, little-endian.
impl Key for u128 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn decode(input: &mut &[u8]) -> Result<u128, StateError> {
        let (bytes, rest) = input.split_first_chunk().ok_or(StateError::Malformed("digest"))?;
        *input = rest;
        Ok(u128::from_le_bytes(*bytes))
    }
}

impl Key for Quantity {
    fn encode(&self, out: &mut Vec<u8>) {
        Quantity::encode(self, out);
    }

    fn decode(input: &mut &[u8]) -> Result<Quantity, StateError> {
        Ok(Quantity::decode(input)?)
    }
}
