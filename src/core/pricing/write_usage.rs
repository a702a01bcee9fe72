//! Usage as JSON, as [`PeriodUsage::parse`](super::PeriodUsage::parse) reads it: what an invoice line keeps, so that its
//! price can be explained and computed again.

use serde_json::{Map, Value, json};

use super::{Group, Terms, Usage};

impl Usage {
    /// The usage and the terms it was priced on; terms are left out where they are the usual ones.
    pub fn to_json(&self, terms: &Terms) -> Value {
        let mut json = members(self);
        let usual = Terms::default();
        let mut on = Map::new();
        on.extend((terms.closing != usual.closing).then(|| ("closing".to_string(), json!(terms.closing))));
        if terms.prior_cost != usual.prior_cost || terms.commitment_closing != usual.commitment_closing {
            on.insert("prior_cost".to_string(), json!(terms.prior_cost.to_string()));
            on.insert("commitment_closing".to_string(), json!(terms.commitment_closing));
        }
        if !on.is_empty() {
            json.insert("terms".to_string(), on.into());
        }
        json.into()
    }
}

fn members(usage: &Usage) -> Map<String, Value> {
    let mut json = Map::new();
    json.insert("quantity".to_string(), json!(usage.quantity.to_string()));
    json.extend(usage.full_quantity.map(|full| ("full_quantity".to_string(), json!(full.to_string()))));
    json.extend(usage.events.map(|events| ("events".to_string(), json!(events))));
    if let Some(values) = &usage.values {
        json.insert("values".to_string(), values.iter().map(ToString::to_string).collect());
    }
    if let Some(groups) = &usage.groups {
        let group = |group: &Group| {
            let mut json = members(&group.usage);
            json.insert("by".to_string(), json!(group.by));
            Value::from(json)
        };
        json.insert("groups".to_string(), groups.iter().map(group).collect());
    }
    if let Some(buckets) = &usage.buckets {
        json.insert("buckets".to_string(), buckets.iter().map(|bucket| Value::from(members(bucket))).collect());
    }
    json
}
