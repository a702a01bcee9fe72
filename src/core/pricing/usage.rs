//! What a price is computed from: what was used, and the terms of the period.

use std::collections::{BTreeMap, BTreeSet};

use super::Amount;
use crate::core::decimal::QuantityError;

/// What was used in a period. [`Model::needs`](super::Model::needs) says which parts a price looks at; a part that it
/// needs and that is not there is an error, never a zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The value of the meter, in its units. It may be negative, after voids.
    pub quantity: Amount,
    /// The quantity before it was prorated, where it was: it alone selects the tier of a `volume` price.
    pub full_quantity: Option<Amount>,
    /// How many events there were.
    pub events: Option<u64>,
    /// The value of each event, in order of time.
    pub values: Option<Vec<Amount>>,
    /// The quantity by the dimensions that the price asks for.
    pub groups: Option<Vec<Group>>,
    /// The quantity of each time bucket of the meter.
    pub buckets: Option<Vec<Usage>>,
}

/// What was used with these values of the dimensions; a dimension that the events don't have is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    pub by: BTreeMap<String, Option<String>>,
    pub usage: Usage,
}

impl Usage {
    pub fn of(quantity: Amount) -> Usage {
        Usage { quantity, ..Usage::default() }
    }

    /// Adds what another group used, part by part; a part that one of them lacks is lacking.
    pub(super) fn add(&mut self, other: &Usage) -> Result<(), QuantityError> {
        fn joined<T: Clone>(a: &mut Option<Vec<T>>, b: &Option<Vec<T>>) {
            match (a.as_mut(), b) {
                (Some(a), Some(b)) => a.extend_from_slice(b),
                _ => *a = None,
            }
        }
        self.full_quantity = match (self.full_quantity, other.full_quantity) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(self.quantity).checked_add(&b.unwrap_or(other.quantity))?),
        };
        self.quantity = self.quantity.checked_add(&other.quantity)?;
        self.events = match (self.events, other.events) {
            (Some(a), Some(b)) => Some(a.checked_add(b).ok_or(QuantityError::TooLarge)?),
            _ => None,
        };
        joined(&mut self.values, &other.values);
        joined(&mut self.groups, &other.groups);
        joined(&mut self.buckets, &other.buckets);
        Ok(())
    }

    /// Nothing used, and nothing of anything: what [`Usage::add`] starts from.
    pub(super) fn nothing() -> Usage {
        Usage {
            quantity: Amount::ZERO,
            full_quantity: None,
            events: Some(0),
            values: Some(Vec::new()),
            groups: Some(Vec::new()),
            buckets: Some(Vec::new()),
        }
    }
}

/// The parts of a [`Usage`] that a price looks at, so that only those are collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub quantity: bool,
    /// How many events there were.
    pub events: bool,
    /// The value of each event, in order of time.
    pub values: bool,
    pub groups: Option<GroupNeeds>,
    /// What is needed of each time bucket.
    pub buckets: Option<Box<Needs>>,
}

/// Usage by these dimensions, and what is needed of each group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNeeds {
    pub dimensions: BTreeSet<String>,
    pub each: Box<Needs>,
}

impl Needs {
    /// What two prices of the same usage need together.
    pub(super) fn and(mut self, other: Needs) -> Needs {
        self.quantity |= other.quantity;
        self.events |= other.events;
        self.values |= other.values;
        self.groups = match (self.groups, other.groups) {
            (Some(mut a), Some(b)) => {
                a.dimensions.extend(b.dimensions);
                Some(GroupNeeds { dimensions: a.dimensions, each: Box::new(a.each.and(*b.each)) })
            }
            (a, b) => a.or(b),
        };
        self.buckets = match (self.buckets, other.buckets) {
            (Some(a), Some(b)) => Some(Box::new(a.and(*b))),
            (a, b) => a.or(b),
        };
        self
    }

    /// All dimensions that usage is asked for by, at any depth: the meter must have them.
    pub fn dimensions(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        if let Some(groups) = &self.groups {
            all.extend(groups.dimensions.iter().cloned());
            all.extend(groups.each.dimensions());
        }
        if let Some(buckets) = &self.buckets {
            all.extend(buckets.dimensions());
        }
        all
    }
}

/// What holds for one period of a price, whatever was used in it. The default is a whole period that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Whether this is the price of the period as a whole. Before its end, minimum spend, true-up and volume prices
    /// are not due yet.
    pub closing: bool,
    /// For a commitment over several periods: what earlier periods of it cost ([`Priced::cost`](super::Priced)).
    pub prior_cost: Amount,
    /// For a commitment over several periods: whether this one is the last of them.
    pub commitment_closing: bool,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { closing: true, prior_cost: Amount::ZERO, commitment_closing: true }
    }
}
