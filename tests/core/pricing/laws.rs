//! Laws of prices, on random models and quantities, and where it fits a second opinion by `rust_decimal`.

use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{amount, decimal, model};
use crate::core::pricing::{Amount, Before, Model, Silent, Step, Terms, Usage, explain, price, price_rest, price_with};

fn cost(model: &Model, quantity: &Amount) -> Amount {
    price(model, &Usage::of(*quantity)).expect("a price").amount
}

fn add(a: &Amount, b: &Amount) -> Amount {
    a.checked_add(b).expect("a sum")
}

fn sub(a: &Amount, b: &Amount) -> Amount {
    a.checked_sub(b).expect("a difference")
}

/// As rust_decimal has it: at most 28 digits, so the inputs are kept short.
fn opinion(of: &Amount) -> Decimal {
    of.to_string().parse().expect("a decimal of 28 digits")
}

/// Bounds that rise, the last tier without one.
fn tiers() -> impl Strategy<Value = Vec<(Option<Amount>, Amount, Amount)>> {
    proptest::collection::vec((decimal(3, 3), decimal(2, 4), decimal(2, 2)), 1..5).prop_map(|parts| {
        let mut bound = Amount::ZERO;
        let last = parts.len() - 1;
        let tier = |(i, (width, unit, flat)): (usize, (String, String, String))| {
            bound = add(&add(&bound, &amount(&width)), &amount("0.001"));
            ((i < last).then_some(bound), amount(&unit), amount(&flat))
        };
        parts.into_iter().enumerate().map(tier).collect()
    })
}

fn tiered(name: &str, tiers: &[(Option<Amount>, Amount, Amount)], more: Value) -> Model {
    let tier = |(up_to, unit, flat): &(Option<Amount>, Amount, Amount)| {
        let price = if name == "graduated_percentage" { "rate" } else { "unit_amount" };
        json!({
            "up_to": up_to.map(|bound| bound.to_string()), price: unit.to_string(), "flat_amount": flat.to_string(),
        })
    };
    let mut json = more;
    json["model"] = name.into();
    json["tiers"] = tiers.iter().map(tier).collect();
    model(&json.to_string())
}

/// Quantities at and around the bounds, and others.
fn probes(tiers: &[(Option<Amount>, Amount, Amount)], other: &Amount) -> Vec<Amount> {
    let step = amount("0.0001");
    let around = |bound: Amount| [sub(&bound, &step), bound, add(&bound, &step)];
    tiers.iter().filter_map(|(bound, ..)| *bound).flat_map(around).chain([*other, Amount::ZERO]).collect()
}

/// Any model that prices a quantity, with any of the steps around it that a line in parts must agree with.
fn any_model() -> impl Strategy<Value = Model> {
    let around = (
        proptest::option::of(decimal(2, 2)),
        proptest::option::of(decimal(2, 1)),
        proptest::option::of(decimal(3, 2)),
        proptest::option::of((decimal(3, 2), decimal(1, 2), any::<bool>())),
        any::<bool>(),
    );
    let inner = prop_oneof![
        decimal(2, 4).prop_map(|unit| json!({"model": "per_unit", "unit_amount": unit})),
        (decimal(2, 2), decimal(2, 2)).prop_map(|(price, size)| {
            let size = add(&amount(&size), &amount("0.01")).to_string();
            json!({"model": "package", "amount": price, "package_size": size})
        }),
        tiers().prop_map(|tiers| {
            let tier = |(up_to, unit, flat): &(Option<Amount>, Amount, Amount)| {
                json!({
                    "up_to": up_to.map(|bound| bound.to_string()), "unit_amount": unit.to_string(),
                    "flat_amount": flat.to_string(),
                })
            };
            json!({"model": "graduated", "tiers": tiers.iter().map(tier).collect::<Vec<_>>()})
        }),
        tiers().prop_map(|tiers| {
            let tier = |(up_to, _, flat): &(Option<Amount>, Amount, Amount)| {
                json!({"up_to": up_to.map(|bound| bound.to_string()), "flat_amount": flat.to_string()})
            };
            json!({"model": "volume", "tiers": tiers.iter().map(tier).collect::<Vec<_>>()})
        }),
    ];
    (inner, around).prop_map(|(mut json, (free, discount, minimum, commitment, convert))| {
        json["free_units"] = json!(free);
        json["percentage_discount"] = json!(discount);
        json["minimum_spend"] = json!(minimum);
        json["maximum_spend"] = json!(minimum.map(|minimum| add(&amount(&minimum), &amount("50")).to_string()));
        json["commitment"] = match commitment {
            Some((promised, factor, true_up)) => {
                json!({"amount": promised, "overage_factor": factor, "true_up": true_up})
            }
            None => Value::Null,
        };
        if convert {
            json["unit_conversion"] = json!({"factor": "3", "rounding": "up", "digits": 1});
        }
        model(&json.to_string())
    })
}

proptest! {
    /// The amounts of the steps add up to the price, and the record doesn't change it.
    #[test]
    fn steps_add_up(model in any_model(), quantity in decimal(3, 3), closing: bool) {
        let usage = Usage::of(amount(&quantity));
        let terms = Terms { closing, ..Terms::default() };
        let mut steps: Vec<Step> = Vec::new();
        let priced = price_with(&model, &usage, &terms, &mut steps).expect("a price");
        let sum = steps.iter().fold(Amount::ZERO, |sum, step| add(&sum, &step.amount()));
        prop_assert_eq!(sum, priced.amount, "{:?}", steps);
        prop_assert_eq!(priced, price_with(&model, &usage, &terms, &mut Silent).expect("a price"));
        let explained = explain(&model, &usage, &steps, &priced, Some("EUR")).expect("an explanation");
        prop_assert_eq!(&explained["unrounded"], &json!(priced.amount.to_string()));
        prop_assert_eq!(explained["steps"].as_array().map(Vec::len), Some(steps.len()));
    }

    /// A period that is billed in parts costs what it costs as a whole, whatever came when and whatever the model.
    #[test]
    fn parts_add_up_to_the_whole(model in any_model(), pieces in proptest::collection::vec((decimal(2, 3), any::<bool>()), 1..6)) {
        let (mut to_date, mut billed) = (Amount::ZERO, Amount::ZERO);
        for (i, (piece, negative)) in pieces.iter().enumerate() {
            let before = Usage::of(to_date);
            let piece = amount(piece);
            to_date = if *negative { sub(&to_date, &piece) } else { add(&to_date, &piece) };
            let terms = Terms { closing: i + 1 == pieces.len(), ..Terms::default() };
            let by_amount =
                price_rest(&model, &Usage::of(to_date), &terms, Before::Billed(billed), &mut Silent).expect("a price");
            if i > 0 {
                let before = Before::Usage(&before);
                let by_usage = price_rest(&model, &Usage::of(to_date), &terms, before, &mut Silent).expect("a price");
                prop_assert_eq!(by_amount, by_usage);
            }
            billed = add(&billed, &by_amount.amount);
        }
        prop_assert_eq!(billed, cost(&model, &to_date));
    }

    /// Graduated: the sum over slices of the axis, each at the price of the tier that it lies in, plus the flat amounts
    /// of the tiers that it enters; by rust_decimal.
    #[test]
    fn graduated_is_the_sum_of_its_slices(tiers in tiers(), other in decimal(4, 4), percentage: bool) {
        let name = if percentage { "graduated_percentage" } else { "graduated" };
        let model = tiered(name, &tiers, json!({}));
        let hundredth = if percentage { Decimal::new(1, 2) } else { Decimal::ONE };
        for quantity in probes(&tiers, &amount(&other)) {
            let (mut expected, mut from) = (Decimal::ZERO, Decimal::ZERO);
            for (up_to, unit, flat) in &tiers {
                let to = up_to.map_or(opinion(&quantity), |bound| opinion(&bound).min(opinion(&quantity)));
                if to > from {
                    expected += (to - from) * opinion(unit) * hundredth + opinion(flat);
                }
                from = up_to.as_ref().map_or(from, opinion);
            }
            prop_assert_eq!(opinion(&cost(&model, &quantity)), expected, "{} of {:?}", quantity, tiers);
        }
    }

    /// Graduated never falls, is additive within a tier, and doesn't jump at a bound but by the next flat amount.
    #[test]
    fn graduated_is_monotone(tiers in tiers(), a in decimal(3, 3), b in decimal(3, 3)) {
        let model = tiered("graduated", &tiers, json!({}));
        let (a, b) = (amount(&a), amount(&b));
        prop_assert!(cost(&model, &a.min(b)) <= cost(&model, &a.max(b)));
        for pair in tiers.windows(2) {
            let (bound, above) = (pair[0].0.expect("a bound"), add(&pair[0].0.expect("a bound"), &amount("0.0001")));
            let jump = sub(&cost(&model, &above), &cost(&model, &bound));
            let slope = amount("0.0001").checked_mul(&pair[1].1).expect("a product");
            prop_assert_eq!(jump, add(&pair[1].2, &slope));
        }
    }

    /// Volume: one tier has it all, bounds inclusive; the full quantity alone selects it.
    #[test]
    fn volume_is_one_tier(tiers in tiers(), other in decimal(4, 4), full in decimal(4, 4)) {
        let model = tiered("volume", &tiers, json!({}));
        let holds = |quantity: &Amount| {
            tiers.iter().find(|(up_to, ..)| up_to.is_none_or(|bound| *quantity <= bound)).expect("the last tier")
        };
        for quantity in probes(&tiers, &amount(&other)).into_iter().filter(Amount::is_positive) {
            for full in [None, Some(amount(&full)).filter(Amount::is_positive)] {
                let (_, unit, flat) = holds(&full.unwrap_or(quantity));
                let usage = Usage { full_quantity: full, ..Usage::of(quantity) };
                let priced = price(&model, &usage).expect("a price").amount;
                prop_assert_eq!(opinion(&priced), opinion(&quantity) * opinion(unit) + opinion(flat));
            }
        }
    }

    /// per_unit and dynamic are additive, also below zero.
    #[test]
    fn a_price_per_unit_is_additive(unit in decimal(6, 12), a in decimal(6, 12), b in decimal(6, 12), negative: bool) {
        for json in [json!({"model": "per_unit", "unit_amount": unit}), json!({"model": "dynamic", "multiplier": unit})] {
            let model = model(&json.to_string());
            let (a, b) = (amount(&a), if negative { -amount(&b) } else { amount(&b) });
            prop_assert_eq!(cost(&model, &add(&a, &b)), add(&cost(&model, &a), &cost(&model, &b)));
        }
    }

    /// Packages: the least whole number of them that holds the quantity, or the greatest that is full.
    #[test]
    fn packages_are_whole(size in decimal(4, 6), quantity in decimal(9, 6), whole in 0_u32..1000) {
        prop_assume!(amount(&size).is_positive());
        let package = |rounding: &str| {
            model(&json!({"model": "package", "amount": 1, "package_size": size, "rounding": rounding}).to_string())
        };
        let exactly = amount(&size).checked_mul(&amount(&whole.to_string())).expect("a product");
        for quantity in [amount(&quantity), exactly] {
            let (up, down) = (cost(&package("up"), &quantity), cost(&package("down"), &quantity));
            let units = |packages: &Amount| packages.checked_mul(&amount(&size)).expect("a product");
            prop_assert!(units(&up) >= quantity && sub(&units(&up), &amount(&size)) < quantity || quantity.is_zero());
            prop_assert!(units(&down) <= quantity && add(&units(&down), &amount(&size)) > quantity);
            prop_assert!(up.to_string().parse::<u64>().is_ok());
        }
        prop_assert_eq!(cost(&package("up"), &exactly), amount(&whole.to_string()));
    }

    /// Conversion: to the nearest, or the next above or below, at the digits asked for; by rust_decimal.
    #[test]
    fn units_are_converted_and_rounded(factor in decimal(3, 2), quantity in decimal(6, 4), digits in 0_u32..4, divide: bool) {
        use rust_decimal::RoundingStrategy::{AwayFromZero, MidpointAwayFromZero, ToZero};
        prop_assume!(amount(&factor).is_positive());
        for (rounding, strategy) in [("up", AwayFromZero), ("down", ToZero), ("half_up", MidpointAwayFromZero)] {
            let operation = if divide { "divide" } else { "multiply" };
            let conversion = json!({"factor": factor, "operation": operation, "rounding": rounding, "digits": digits});
            let json = json!({"model": "per_unit", "unit_amount": 1, "unit_conversion": conversion});
            let (quantity, by) = (opinion(&amount(&quantity)), opinion(&amount(&factor)));
            let expected = if divide {
                // The quotient has 28 digits: its tail can't be mistaken for an exact half or whole, for a factor of so
                // few digits.
                (quantity / by).round_dp(20).round_dp_with_strategy(digits, strategy)
            } else {
                (quantity * by).round_dp_with_strategy(digits, strategy)
            };
            let priced = cost(&model(&json.to_string()), &amount(&quantity.to_string()));
            prop_assert_eq!(opinion(&priced), expected, "{} {} {} {}", quantity, operation, by, rounding);
            let credit = cost(&model(&json.to_string()), &-amount(&quantity.to_string()));
            prop_assert_eq!(credit, -priced);
        }
    }

    /// Percentage, event by event as one would do it by hand; and the events of any parts of a period add up.
    #[test]
    fn a_percentage_goes_event_by_event(
        values in proptest::collection::vec(0_i64..10_000, 0..12), free_events in proptest::option::of(0_usize..6),
        free_total in proptest::option::of(0_i64..20_000), bounds in proptest::option::of((0_i64..50, 0_i64..50)), cut in 0_usize..12,
    ) {
        // In cents, at 1 percent: all results are whole numbers of ten-thousandths.
        let cents = |value: i64| amount(&Decimal::new(value, 2).to_string());
        let (min, max) = bounds.map_or((None, None), |(a, b)| (Some(a.min(b)), Some(a.max(b))));
        let model = model(&json!({
            "model": "percentage", "rate": 1, "fixed_amount": "0.30", "free_events": free_events,
            "free_total_amount": free_total.map(|total| Decimal::new(total, 2).to_string()),
            "per_transaction_min": min.map(|min| Decimal::new(min, 2).to_string()),
            "per_transaction_max": max.map(|max| Decimal::new(max, 2).to_string()),
        }).to_string());
        let allowance = free_events.is_some() || free_total.is_some();
        let (mut running, mut ended, mut expected) = (0, !allowance, 0);
        for (i, value) in values.iter().enumerate() {
            let before = running;
            running += value;
            ended = ended || free_events.is_some_and(|most| i >= most);
            let free = match free_total {
                _ if ended => 0,
                Some(total) if running > total => total - before,
                _ => *value,
            };
            if !ended && free == *value {
                continue;
            }
            ended = true;
            let fee = (value - free) + 30 * 100; // ten-thousandths: 1 % of cents, and 30 cents
            let fee = min.map_or(fee, |min| fee.max(min * 100));
            expected += max.map_or(fee, |max| fee.min(max * 100));
        }
        let usage = |values: &[i64]| Usage {
            events: Some(values.len() as u64),
            values: Some(values.iter().map(|value| cents(*value)).collect()),
            ..Usage::of(cents(values.iter().sum()))
        };
        let priced = price(&model, &usage(&values)).expect("a price").amount;
        prop_assert_eq!(opinion(&priced), Decimal::new(expected, 4));
        let first = usage(values.get(..cut).unwrap_or(&values));
        let terms = Terms::default();
        let rest = price_rest(&model, &usage(&values), &terms, Before::Usage(&first), &mut Silent).expect("a price");
        prop_assert_eq!(add(&price(&model, &first).expect("a price").amount, &rest.amount), priced);
    }

    /// A commitment over several periods: what is within it is paid once and what is beyond at the factor, wherever the
    /// borders of the periods are; with true-up at least the commitment is paid in all.
    #[test]
    fn a_commitment_over_periods_is_one(costs in proptest::collection::vec(decimal(2, 2), 1..6), promised in decimal(3, 2), factor in decimal(1, 2), true_up: bool) {
        let commitment = json!({"amount": promised, "overage_factor": factor, "true_up": true_up, "periods": costs.len()});
        let model = model(&json!({"model": "per_unit", "unit_amount": 1, "commitment": commitment}).to_string());
        let (mut prior_cost, mut paid) = (Amount::ZERO, Amount::ZERO);
        for (i, used) in costs.iter().enumerate() {
            let commitment_closing = i + 1 == costs.len();
            let terms = Terms { prior_cost, commitment_closing, ..Terms::default() };
            let priced = price_with(&model, &Usage::of(amount(used)), &terms, &mut Silent).expect("a price");
            prior_cost = add(&prior_cost, &priced.cost);
            paid = add(&paid, &priced.amount);
        }
        let (used, promised, factor) = (opinion(&prior_cost), opinion(&amount(&promised)), opinion(&amount(&factor)));
        let expected = if used >= promised {
            promised + (used - promised) * factor
        } else if true_up { promised } else { used };
        prop_assert_eq!(opinion(&paid), expected);
    }

    /// Sums, differences and comparisons of amounts, against rust_decimal.
    #[test]
    fn amounts_add_and_compare(a in decimal(9, 9), b in decimal(9, 9), negative: bool) {
        let (a, b) = (amount(&a), if negative { -amount(&b) } else { amount(&b) });
        prop_assert_eq!(opinion(&add(&a, &b)), opinion(&a) + opinion(&b));
        prop_assert_eq!(opinion(&sub(&a, &b)), opinion(&a) - opinion(&b));
        prop_assert_eq!(a.cmp(&b), opinion(&a).cmp(&opinion(&b)));
        prop_assert_eq!(sub(&a, &a), Amount::ZERO);
    }

    /// Digits in base 10,000, as numeric has them, and the same number as text.
    #[test]
    fn base_10000_reads_as_text(whole in decimal(52, 24), negative: bool) {
        let (integer, fraction) = whole.split_once('.').unwrap_or((&whole, ""));
        let integer = format!("{}{integer}", "0".repeat((4 - integer.len() % 4) % 4));
        let fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
        let digits: Vec<u16> = [integer.as_bytes(), fraction.as_bytes()]
            .concat()
            .chunks(4)
            .map(|four| std::str::from_utf8(four).expect("digits").parse().expect("a number"))
            .collect();
        // Without the zeros at both ends, as numeric keeps them.
        let first = digits.iter().take_while(|digit| **digit == 0).count();
        let last = digits.len() - digits.iter().rev().take_while(|digit| **digit == 0).count();
        let weight = (integer.len() / 4) as i32 - 1 - first as i32;
        let digits = digits.get(first..last).unwrap_or_default().iter().copied();
        let signed = if negative { format!("-{whole}") } else { whole.clone() };
        let read = Amount::from_base_10000(negative, digits, weight);
        prop_assert_eq!(read, Amount::parse(&signed));
    }
}
