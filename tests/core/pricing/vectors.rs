//! What the tests of other systems expect of prices: each case of ../shared/vectors/pricing.json is written as a model
//! of ours and priced. It agrees, or it stands in tests/vectors/pricing.md with both answers and our reason; a row there
//! that differs in nothing, or says what isn't so, fails as well.
//!
//! How a case is translated, the same for all of its kind:
//! - Its parameters are ours by name; a parameter of null, and a free_total_amount of 0, is one that is not set.
//! - Lago and OpenMeter charge the first tier's flat amount at zero usage: flat_at_zero.
//! - flexprice closes some tiers and Kill Bill all of them: the last tier's bound is left off, its price goes on.
//! - Rounding is to the currency's digits where the case expects so many, else none.
//! - A line of a period billed in parts is the price of all usage to date less what was billed, or what the usage
//!   before it cost; `mid_split` is before the end of the period.
//! - OpenMeter's ceiling and floor are up and down, its precision is digits. What only converts or discounts units is
//!   priced at 1 each.
//! - Kill Bill's blocks are tiers of packages; several units are a matrix by unit, and a capacity is the dearest of them.
//! - Lago's single tier of a range charge stands between two tiers that cost nothing; whole bounds begin one above the
//!   bound before. Its groups and filters are a matrix. Cents carried by events have a multiplier of 0.01.
//! - flexprice's window commitment is a bucketed price with a commitment; its hours are a dimension of the buckets.

use serde_json::{Map, Value, json};

use crate::core::currency;
use crate::core::pricing::{Amount, Before, Model, PeriodUsage, Silent, Step, UnitPrice, price_rest, price_with};
use crate::peers::{self, Comparison};

#[test]
fn peers() {
    let Some(cases) = peers::cases("pricing.json") else { return };
    let mut compared = Comparison::by("pricing.md");
    for case in cases.iter().map(Case) {
        let (theirs, ours) = case.answers();
        compared.case(case.id(), theirs == ours, &theirs, &ours);
    }
    compared.finish("prices");
}

struct Case<'a>(&'a Value);

impl Case<'_> {
    fn id(&self) -> &str {
        self.0["id"].as_str().expect("an id")
    }

    fn model(&self) -> &str {
        self.0["model"].as_str().expect("a model")
    }

    fn param(&self, name: &str) -> Option<&Value> {
        self.0["params"].get(name).filter(|value| !value.is_null())
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn list(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn peer(&self, name: &str) -> bool {
        self.0["source"]["repo"].as_str().is_some_and(|repo| repo.starts_with(name))
    }

    /// What they say and what we say, of all that the case expects and that we have a word for.
    fn answers(&self) -> (String, String) {
        let mut theirs = self.0["expected"].as_object().cloned().unwrap_or_default();
        if let Some(amount) = self.field("expected_amount") {
            theirs.insert("amount".to_string(), amount.clone());
        }
        if self.model() == "currency_precision" {
            let digits = self.param("currency").and_then(Value::as_str).and_then(|code| currency::digits(code).ok());
            let ours = digits.map_or("no such currency".to_string(), |digits| format!("decimals: {digits}"));
            return (facts(&theirs), ours);
        }
        let model = match self
            .translated()
            .and_then(|json| Model::parse(&json.to_string()).map_err(|error| format!("refused: {}", error.message)))
        {
            Ok(model) => model,
            Err(refused) => return (facts(&known(&theirs)), refused),
        };
        let usage = self.usage();
        let period = PeriodUsage::parse(&usage.to_string()).unwrap_or_else(|error| panic!("{usage}: {error}"));
        let mut steps: Vec<Step> = Vec::new();
        let priced = match &period.before {
            None => price_with(&model, &period.usage, &period.terms, &mut steps),
            Some(earlier) => price_rest(&model, &period.usage, &period.terms, earlier.before(), &mut steps),
        };
        let priced = priced.unwrap_or_else(|error| panic!("{}: {error:?}", self.id()));
        let amount = match (self.field("currency").and_then(Value::as_str), self.rounds()) {
            (Some(code), true) => priced.in_currency(code).expect("money").to_string(),
            _ => priced.amount.to_string(),
        };
        let remaining = self.0["expected"]["already_billed"].as_str().map(|billed| {
            let billed = Before::Billed(parsed(billed));
            let rest = price_rest(&model, &period.usage, &period.terms, billed, &mut Silent);
            json!(rest.expect("a price").amount.to_string())
        });
        let theirs = known(&theirs);
        let ours: Map<String, Value> = theirs
            .keys()
            .map(|name| match name.as_str() {
                "amount" => json!(amount),
                "remaining" => remaining.clone().unwrap_or_default(),
                name => fact(name, &steps),
            })
            .zip(theirs.keys())
            .map(|(fact, name)| (name.clone(), fact))
            .collect();
        (facts(&theirs), facts(&ours))
    }

    /// Rounding, and OpenMeter's lines, which are money.
    fn rounds(&self) -> bool {
        self.peer("openmeter") || self.model() == "rounding" || self.model().ends_with("block")
    }

    /// As a model of ours, or why there is none.
    fn translated(&self) -> Result<Value, String> {
        let mut model = self.0["params"].as_object().cloned().unwrap_or_default();
        model.retain(|_, value| !value.is_null());
        for ignored in ["full_units_number", "payment_term", "pricing_group_keys", "precise_total_amount_cents"] {
            model.remove(ignored);
        }
        if model.get("free_total_amount").is_some_and(|amount| amount == "0") {
            model.remove("free_total_amount");
        }
        if let Some(conversion) = model.get_mut("unit_conversion") {
            *conversion = self::conversion(conversion);
        }
        let name = match self.model() {
            "unit_conversion" => {
                return Ok(
                    json!({ "model": "per_unit", "unit_amount": 1, "unit_conversion": conversion(&model.into()) }),
                );
            }
            "usage_discount" => "per_unit",
            "rounding" => {
                return Ok(json!({ "model": "per_unit", "unit_amount": 1 }));
            }
            "graduated_block" | "volume_block" => return Ok(self.blocks()),
            "capacity" => return Ok(self.capacity()),
            "graduated_single_tier" | "graduated_percentage_single_tier" => return Ok(self.single_tier()),
            "window_commitment" => return Ok(self.window_commitment()),
            name => name,
        };
        model.insert("model".to_string(), json!(name));
        if self.model() == "usage_discount" {
            model.insert("unit_amount".to_string(), json!(1));
        }
        let tiered = ["graduated", "volume", "graduated_percentage"].contains(&name);
        if tiered && !self.peer("flexprice") {
            model.insert("flat_at_zero".to_string(), json!(true));
        }
        if self.peer("getlago") && name == "dynamic" {
            model.insert("multiplier".to_string(), json!("0.01"));
        }
        if let Some(group_by) = model.remove("group_by") {
            return Ok(json!({ "model": "matrix", "dimensions": group_by, "per_group": true, "default": model }));
        }
        if let Some(filters) = model.remove("filters") {
            let cell =
                |filter: &Value| json!({ "match": { "cloud": filter["cloud"] }, "unit_amount": filter["unit_amount"] });
            let cells: Vec<Value> = filters.as_array().into_iter().flatten().map(cell).collect();
            return Ok(json!({ "model": "matrix", "cells": cells, "default": model }));
        }
        let model = Value::from(model);
        Ok(if self.field("bucket_values").is_some() { json!({ "model": "bucketed", "price": model }) } else { model })
    }

    fn blocks(&self) -> Value {
        let model = self.model().trim_end_matches("_block");
        let blocks = |params: &Value| {
            let tiers = params["tiers"].as_array().expect("tiers");
            let tier = |(i, tier): (usize, &Value)| {
                let up_to = if i + 1 < tiers.len() { &tier["up_to"] } else { &Value::Null };
                json!({ "up_to": up_to, "package_size": tier["block_size"], "amount": tier["block_amount"] })
            };
            json!({ "model": model, "tiers": tiers.iter().enumerate().map(tier).collect::<Vec<_>>() })
        };
        match self.param("units") {
            None => blocks(&self.0["params"]),
            Some(units) => {
                by_unit(units.as_object().expect("units").iter().map(|(unit, of)| (unit, blocks(of))), "sum")
            }
        }
    }

    fn capacity(&self) -> Value {
        let tiers = self.0["params"]["tiers"].as_array().expect("tiers");
        let units = tiers[0]["limits"].as_object().expect("limits").keys();
        let price = |unit: &String| {
            let tier = |(i, tier): (usize, &Value)| {
                let up_to = if i + 1 < tiers.len() { &tier["limits"][unit] } else { &Value::Null };
                json!({ "up_to": up_to, "flat_amount": tier["amount"] })
            };
            json!({ "model": "volume", "tiers": tiers.iter().enumerate().map(tier).collect::<Vec<_>>() })
        };
        by_unit(units.map(|unit| (unit, price(unit))), "max")
    }

    fn single_tier(&self) -> Value {
        let params = &self.0["params"];
        let (name, price) = if self.model().starts_with("graduated_percentage") {
            ("graduated_percentage", "rate")
        } else {
            ("graduated", "unit_amount")
        };
        let from = params["from_value"].as_str().expect("a bound");
        let tier = json!({ "up_to": params["up_to"], price: params[price], "flat_amount": params["flat_amount"] });
        let before = match from.parse::<u64>() {
            Ok(0) => None,
            Ok(whole) => Some((whole - 1).to_string()),
            Err(_) => Some(from.to_string()),
        };
        let mut tiers: Vec<Value> = before.map(|bound| json!({ "up_to": bound, price: 0 })).into_iter().collect();
        tiers.extend([tier, json!({ price: 0 })]);
        json!({ "model": name, "tiers": tiers, "flat_at_zero": true })
    }

    fn window_commitment(&self) -> Value {
        let window = |params: &Value| {
            let commitment = json!({
                "amount": params.get("commitment_amount"), "quantity": params.get("commitment_quantity"),
                "overage_factor": params.get("overage_factor"), "true_up": params.get("true_up"),
            });
            let committed = !commitment["amount"].is_null() || !commitment["quantity"].is_null();
            json!({ "unit_amount": params["unit_amount"], "commitment": committed.then_some(commitment) })
        };
        let price = match self.param("time_buckets").and_then(Value::as_array) {
            None => window(&self.0["params"]),
            Some(buckets) => {
                let cell = |bucket: &Value| {
                    let hour =
                        |name: &str| bucket[name].as_str().and_then(|hour| hour.parse::<u32>().ok()).expect(name);
                    let mut cell = window(bucket);
                    cell["match"] = json!({ "hour": (hour("start_hour")..hour("end_hour")).collect::<Vec<_>>() });
                    cell
                };
                let cells: Vec<Value> = buckets.iter().map(cell).collect();
                // A window belongs to one cell; the others have no commitment to it.
                json!({ "model": "matrix", "per_group": true, "cells": cells, "default": window(&self.0["params"]) })
            }
        };
        json!({ "model": "bucketed", "price": price })
    }

    /// What was used, as price_usage() takes it.
    fn usage(&self) -> Value {
        let quantity = self.field("quantity").and_then(Value::as_str);
        let mut usage = Map::new();
        let mut terms = Map::new();
        if let Some(quantity) = quantity {
            let before = self.field("pre_line_quantity").and_then(Value::as_str).unwrap_or("0");
            let sum = |a: &str, b: &str| parsed(a).checked_add(&parsed(b)).expect("a sum").to_string();
            usage.insert("quantity".to_string(), json!(sum(quantity, before)));
            let later = self.field("line_mode").is_some_and(|mode| mode == "mid_split" || mode == "last_split");
            if later || before != "0" {
                terms.insert("before".to_string(), json!({ "quantity": before }));
            }
        }
        if self.field("line_mode").is_some_and(|mode| mode == "mid_split") {
            terms.insert("closing".to_string(), json!(false));
        }
        // Where Kill Bill tells what remains, its amount is the whole.
        let whole = self.0["expected"].get("remaining").is_some();
        let before = self.0["expected"].get("already_billed").filter(|_| !whole);
        let billed = self.field("previous_billed_amount").or(before);
        if let Some(billed) = billed {
            terms.insert("billed".to_string(), billed.clone());
        }
        if let Some(count) = self.field("events_count").and_then(Value::as_str) {
            usage.insert("events".to_string(), json!(count));
        }
        if self.model() == "percentage" {
            let values = self.event_values(quantity.expect("a quantity"));
            usage.extend(values.map(|values| ("values".to_string(), json!(values))));
        }
        if self.peer("getlago") && self.model() == "dynamic" {
            let cents = |of: &Value| of["precise_total_amount_cents"].as_str().map(parsed);
            let events = self.list("events").iter().map(cents);
            let carried = events
                .chain([self.param("precise_total_amount_cents").map(|cents| parsed(cents.as_str().expect("cents")))]);
            let sum = carried.flatten().fold(Amount::ZERO, |sum, cents| sum.checked_add(&cents).expect("cents"));
            usage.insert("quantity".to_string(), json!(sum.to_string()));
        }
        if let Some(components) = self.param("components").and_then(Value::as_array) {
            usage.insert("values".to_string(), json!(components));
        }
        if let Some(quantities) = self.field("quantities").and_then(Value::as_object) {
            let group = |(unit, quantity): (&String, &Value)| json!({ "by": { "unit": unit }, "quantity": quantity });
            usage.insert("groups".to_string(), quantities.iter().map(group).collect());
        }
        if self.param("group_by").is_some() || self.param("filters").is_some() {
            let group = |event: &Value| {
                let mut by = event.as_object().cloned().unwrap_or_default();
                let quantity = by.remove("hours").unwrap_or(json!(1));
                json!({ "by": by, "quantity": quantity })
            };
            usage.insert("groups".to_string(), self.list("events").iter().map(group).collect());
        }
        if let Some(values) = self.field("bucket_values").and_then(Value::as_array) {
            let hours = self.list("bucket_start_hours");
            let bucket = |(i, value): (usize, &Value)| match hours.get(i).and_then(Value::as_str) {
                None => json!({ "quantity": value }),
                Some(hour) => json!({ "groups": [{ "by": { "hour": hour }, "quantity": value }] }),
            };
            usage.insert("buckets".to_string(), values.iter().enumerate().map(bucket).collect());
        }
        if !terms.is_empty() {
            usage.insert("terms".to_string(), terms.into());
        }
        usage.into()
    }

    /// The events in order: as given, or from the running total that Lago hands in, the rest of the quantity as one.
    fn event_values(&self, quantity: &str) -> Option<Vec<String>> {
        let given = self.list("events");
        if !given.is_empty() {
            let value = |event: &Value| event.as_str().or(event["amount"].as_str()).expect("a value").to_string();
            return Some(given.iter().map(value).collect());
        }
        let mut before = Amount::ZERO;
        let mut values = Vec::new();
        let running = self.list("free_running_total").iter().filter_map(Value::as_str);
        for total in running.map(parsed).chain([parsed(quantity)]) {
            values.push(total.checked_sub(&before).expect("a value").to_string());
            before = total;
        }
        let count = self.field("events_count").and_then(Value::as_str)?.parse::<usize>().ok()?;
        match (values.len() == count, count) {
            (true, _) => Some(values),
            (false, 0) => Some(Vec::new()),
            (false, _) => None,
        }
    }
}

fn parsed(text: &str) -> Amount {
    Amount::parse(text).expect(text)
}

fn by_unit<'a>(units: impl Iterator<Item = (&'a String, Value)>, combine: &str) -> Value {
    let cell = |(unit, mut price): (&'a String, Value)| {
        price["match"] = json!({ "unit": unit });
        price
    };
    let cells: Vec<Value> = units.map(cell).collect();
    json!({ "model": "matrix", "combine": combine, "cells": cells, "default": { "unit_amount": 0 } })
}

fn conversion(theirs: &Value) -> Value {
    let rounding = match theirs["rounding"].as_str() {
        Some("ceiling") => "up",
        Some("floor") => "down",
        None => "none",
        Some(other) => other,
    };
    json!({ "operation": theirs["operation"], "factor": theirs["factor"], "rounding": rounding, "digits": theirs.get("precision") })
}

/// What of the expected there is a word for in our steps.
fn known(expected: &Map<String, Value>) -> Map<String, Value> {
    const KNOWN: [&str; 14] = [
        "amount",
        "remaining",
        "billed_quantity",
        "billable_quantity",
        "commitment_line",
        "free_events",
        "free_units",
        "packages",
        "paid_events",
        "per_window",
        "percent_part",
        "fixed_part",
        "per_tier",
        "selected_tier_index",
    ];
    expected.iter().filter(|(name, _)| KNOWN.contains(&name.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The same of our steps.
fn fact(name: &str, steps: &[Step]) -> Value {
    let find = |wanted: &dyn Fn(&Step) -> Option<Value>| steps.iter().find_map(wanted).unwrap_or(json!("nothing"));
    let all = |wanted: &dyn Fn(&Step) -> Option<Value>| steps.iter().filter_map(wanted).collect::<Vec<Value>>();
    let text = |amount: &Amount| Some(json!(amount.to_string()));
    match name {
        "billed_quantity" | "billable_quantity" => find(&|step| match step {
            Step::Units { quantity, .. } | Step::NoUsage { quantity } => text(quantity),
            _ => None,
        }),
        "packages" => find(&|step| match step {
            Step::Units { packages: Some(packages), .. } => text(packages),
            Step::NoUsage { .. } => Some(json!("0")),
            _ => None,
        }),
        "commitment_line" => find(&|step| match step {
            Step::Minimum { amount, .. } => text(amount),
            _ => None,
        }),
        "per_window" => all(&|step| match step {
            Step::Part { amount, .. } => text(amount),
            _ => None,
        })
        .into(),
        "per_tier" => all(&|step| match step {
            Step::Tier { amount, .. } => text(amount),
            _ => None,
        })
        .into(),
        "selected_tier_index" => all(&|step| match step {
            Step::Tier { tier, price: UnitPrice::Each { .. }, .. } => Some(json!((tier - 1).to_string())),
            _ => None,
        })
        .pop()
        .unwrap_or(json!("none")),
        _ => find(&|step| match step {
            Step::Transactions(all) => match name {
                "free_events" => Some(json!(all.free_events.to_string())),
                "paid_events" => Some(json!(all.paid_events.to_string())),
                "free_units" => text(&all.free_quantity),
                "percent_part" => text(&all.percent_amount),
                "fixed_part" => text(&all.fixed_amount),
                _ => None,
            },
            _ => None,
        }),
    }
}

/// As one line, numbers without zeros at the end.
fn facts(of: &Map<String, Value>) -> String {
    fn short(value: &Value) -> String {
        match value {
            Value::String(text) => Amount::parse(text).map_or(text.clone(), |number| number.to_string()),
            Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        }
    }
    of.iter().map(|(name, value)| format!("{name}: {}", short(value))).collect::<Vec<_>>().join("; ")
}
