//! A price's explanation, as JSON for people and programs. Numbers are strings: JSON's own would lose digits.

use serde_json::{Map, Value, json};

use super::{Amount, Model, PartOf, Priced, RoundError, Rounding, Step, UnitPrice, Usage};

/// The steps, the exact sum and, with a currency, the rounded amount.
pub fn explain(
    model: &Model,
    usage: &Usage,
    steps: &[Step],
    priced: &Priced,
    currency: Option<&str>,
) -> Result<Value, RoundError> {
    let mut explanation = object([
        ("model", json!(model.name())),
        ("quantity", number(&usage.quantity)),
        ("steps", steps.iter().map(step).collect()),
        ("unrounded", number(&priced.amount)),
        ("amount", number(&priced.amount)),
    ]);
    if let Some(code) = currency {
        explanation.insert("amount".to_string(), json!(priced.in_currency(code)?.to_string()));
        explanation.insert("currency".to_string(), json!(code));
        explanation.insert("rounding".to_string(), json!("half away from zero"));
    }
    Ok(explanation.into())
}

fn step(step: &Step) -> Value {
    let (name, mut members) = match step {
        Step::Converted { from, to } => ("unit conversion", numbers([("from", from), ("to", to)])),
        Step::Free { field, quantity, left } => {
            let mut members = numbers([("quantity", quantity), ("left", left)]);
            members.insert("field".to_string(), json!(field));
            ("free", members)
        }
        Step::Units { quantity, price, packages, .. } => {
            let mut members = unit_price(price, packages.as_ref());
            members.insert("quantity".to_string(), number(quantity));
            ("units", members)
        }
        Step::Tier { tier, from, up_to, quantity, price, packages, flat_amount, .. } => {
            let mut members = unit_price(price, packages.as_ref());
            members.insert("tier".to_string(), json!(tier));
            members.insert("up_to".to_string(), up_to.as_ref().map_or(Value::Null, number));
            members.extend(numbers([("from", from), ("quantity", quantity), ("flat_amount", flat_amount)]));
            ("tier", members)
        }
        Step::Transactions(all) => {
            let mut members = numbers([
                ("rate", &all.rate),
                ("free_quantity", &all.free_quantity),
                ("paid_quantity", &all.paid_quantity),
                ("percent_amount", &all.percent_amount),
                ("fixed_amount", &all.fixed_amount),
                ("bounded_amount", &all.bounded_amount),
            ]);
            members.insert("free_events".to_string(), json!(all.free_events));
            members.insert("paid_events".to_string(), json!(all.paid_events));
            ("transactions", members)
        }
        Step::Fixed { .. } => ("fixed", Map::new()),
        Step::NoUsage { quantity } => ("no usage", numbers([("quantity", quantity)])),
        Step::Deferred { quantity } => ("due when the period is over", numbers([("quantity", quantity)])),
        Step::Part { of, steps, .. } => {
            let (name, mut members) = part(of);
            members.insert("steps".to_string(), steps.iter().map(self::step).collect());
            (name, members)
        }
        Step::DearestOnly { .. } => ("dearest only", Map::new()),
        Step::Discount { percentage, .. } => ("percentage discount", numbers([("percentage", percentage)])),
        Step::Maximum { maximum, .. } => ("maximum spend", numbers([("maximum", maximum)])),
        Step::Minimum { minimum, .. } => ("minimum spend", numbers([("minimum", minimum)])),
        Step::Commitment { commitment, prior_cost, within, overage, overage_factor, true_up, .. } => {
            let members = numbers([
                ("commitment", commitment),
                ("prior_cost", prior_cost),
                ("within", within),
                ("overage", overage),
                ("overage_factor", overage_factor),
                ("true_up", true_up),
            ]);
            ("commitment", members)
        }
        Step::Billed { .. } => ("billed before", Map::new()),
    };
    members.insert("step".to_string(), json!(name));
    members.insert("amount".to_string(), number(&step.amount()));
    members.into()
}

fn part(of: &PartOf) -> (&'static str, Map<String, Value>) {
    match of {
        PartOf::Bucket { bucket } => ("bucket", object([("bucket", json!(bucket))])),
        PartOf::Cell { cell, group } => {
            let mut members = object([("cell", cell.map_or(json!("default"), |cell| json!(cell)))]);
            if let Some(group) = group {
                let by: Map<String, Value> = group.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
                members.insert("group".to_string(), by.into());
            }
            ("cell", members)
        }
    }
}

fn unit_price(price: &UnitPrice, packages: Option<&Amount>) -> Map<String, Value> {
    match price {
        UnitPrice::Each { unit_amount } => numbers([("unit_amount", unit_amount)]),
        UnitPrice::Percent { rate } => numbers([("rate", rate)]),
        UnitPrice::Carried { multiplier } => numbers([("multiplier", multiplier)]),
        UnitPrice::Package { amount, package_size, rounding } => {
            let mut members = numbers([("package_amount", amount), ("package_size", package_size)]);
            members.extend(packages.map(|packages| ("packages".to_string(), number(packages))));
            let rounding = if *rounding == Rounding::Down { "down" } else { "up" };
            members.insert("rounding".to_string(), json!(rounding));
            members
        }
    }
}

fn number(amount: &Amount) -> Value {
    json!(amount.to_string())
}

fn numbers<const N: usize>(members: [(&str, &Amount); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, amount)| (name.to_string(), number(amount))).collect()
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
