//! Usage as JSON, for prices that need more than a quantity:
//! `{"quantity", "full_quantity", "events", "values": [...], "groups": [{"by": {dimension: value}, ...usage}],
//! "buckets": [quantity or usage, ...]}`, and on the outside `"terms": {"closing", "prior_cost",
//! "commitment_closing", "billed" (an amount) or "before" (the usage that was billed)}`.
//!
//! A quantity that is left out is the sum of the values, groups or buckets.

use super::matrix::dimension_value;
use super::read::{Fields, Item};
use super::usage::{Group, Terms, Usage};
use super::{Amount, Before, ModelError};

const NOUN: &str = "usage";

/// Groups of buckets of groups: as deep as a price can be nested.
const MAX_DEPTH: usize = 8;

/// Usage with the terms of its period, and what earlier lines charged.
#[derive(Clone, Debug, PartialEq)]
pub struct PeriodUsage {
    pub usage: Usage,
    pub terms: Terms,
    pub before: Option<Earlier>,
}

/// As [`Before`], with usage of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Earlier {
    Billed(Amount),
    Usage(Box<Usage>),
}

impl Earlier {
    pub fn before(&self) -> Before<'_> {
        match self {
            Earlier::Billed(amount) => Before::Billed(*amount),
            Earlier::Usage(usage) => Before::Usage(usage),
        }
    }
}

impl PeriodUsage {
    pub fn parse(json: &str) -> Result<PeriodUsage, ModelError> {
        let mut fields = Fields::whole(json, NOUN, NOUN)?;
        let (mut terms, mut before) = (Terms::default(), None);
        if let Some(mut given) = fields.optional_object("terms")? {
            terms.closing = given.optional_flag("closing")?.unwrap_or(true);
            terms.prior_cost = given.optional_number("prior_cost")?.unwrap_or(Amount::ZERO);
            terms.commitment_closing = given.optional_flag("commitment_closing")?.unwrap_or(true);
            let billed = given.optional_number("billed")?.map(Earlier::Billed);
            let used = given.optional_object("before")?.map(|fields| usage(fields, 0)).transpose()?;
            before = billed.or(used.map(|usage| Earlier::Usage(Box::new(usage))));
            given.finish("terms")?;
        }
        Ok(PeriodUsage { usage: usage(fields, 0)?, terms, before })
    }
}

fn usage(mut fields: Fields<'_>, depth: usize) -> Result<Usage, ModelError> {
    if depth > MAX_DEPTH {
        return Err(fields.fault("quantity", "is nested too deeply"));
    }
    let quantity = fields.optional_number("quantity")?;
    let full_quantity = fields.optional_number("full_quantity")?;
    let events = fields.optional_count("events", 0..=u64::MAX)?;
    let list = |items: Option<Vec<Item<'_>>>| items.map(|items| items.into_iter().map(Item::number).collect());
    let values: Option<Vec<Amount>> = list(fields.optional_items("values")?).transpose()?;
    let groups = fields.optional_objects("groups")?;
    let groups: Option<Vec<Group>> =
        groups.map(|groups| groups.into_iter().map(|item| group(item, depth)).collect()).transpose()?;
    let bucket = |item: Item<'_>| match item.raw.starts_with('{') {
        true => usage(item.object()?, depth + 1),
        false => item.number().map(Usage::of),
    };
    let buckets = fields.optional_items("buckets")?;
    let buckets: Option<Vec<Usage>> = buckets.map(|buckets| buckets.into_iter().map(bucket).collect()).transpose()?;
    let quantity = match (quantity, &values, &groups, &buckets) {
        (Some(quantity), ..) => quantity,
        (None, Some(values), ..) => sum(&fields, values.iter())?,
        (None, None, Some(groups), _) => sum(&fields, groups.iter().map(|group| &group.usage.quantity))?,
        (None, None, None, Some(buckets)) => sum(&fields, buckets.iter().map(|bucket| &bucket.quantity))?,
        _ => return Err(fields.fault("quantity", "is missing")),
    };
    fields.finish(NOUN)?;
    Ok(Usage { quantity, full_quantity, events, values, groups, buckets })
}

fn group(mut fields: Fields<'_>, depth: usize) -> Result<Group, ModelError> {
    let mut by = fields.optional_object("by")?.ok_or_else(|| fields.fault("by", "is missing"))?;
    let mut group = Group::default();
    for (dimension, raw) in by.rest() {
        let value = dimension_value(raw).ok_or_else(|| by.fault(&dimension, "must be one value"))?;
        group.by.insert(dimension, value);
    }
    group.usage = usage(fields, depth + 1)?;
    Ok(group)
}

fn sum<'a>(fields: &Fields<'_>, amounts: impl Iterator<Item = &'a Amount>) -> Result<Amount, ModelError> {
    let mut amounts = amounts;
    amounts
        .try_fold(Amount::ZERO, |sum, amount| sum.checked_add(amount))
        .map_err(|error| fields.fault("quantity", &format!("is not usable: {error}")))
}
