//! Definitions that are refused, with the place of the fault; what the models need; and by hand what the laws don't say.

use serde_json::json;

use super::{amount, model, priced};
use crate::core::pricing::{
    EXAMPLES, GroupNeeds, Model, Needs, PeriodUsage, PriceError, Step, Terms, Usage, explain, price, price_rest,
    price_with,
};

fn of_usage(json: &str, usage: &str) -> String {
    let period = PeriodUsage::parse(usage).expect(usage);
    let mut steps: Vec<Step> = Vec::new();
    let priced = match &period.before {
        None => price_with(&model(json), &period.usage, &period.terms, &mut steps),
        Some(earlier) => price_rest(&model(json), &period.usage, &period.terms, earlier.before(), &mut steps),
    };
    priced.expect(json).amount.to_string()
}

#[test]
fn definitions_are_refused_at_the_place_of_the_fault() {
    for (json, path) in [
        ("[]", ""),
        ("{", ""),
        ("{}", "model"),
        (r#"{"model":7}"#, "model"),
        (r#"{"model":"perunit"}"#, "model"),
        (r#"{"model":"per_unit"}"#, "unit_amount"),
        (r#"{"model":"per_unit","unit_amount":null}"#, "unit_amount"),
        (r#"{"model":"per_unit","unit_amount":"ten"}"#, "unit_amount"),
        (r#"{"model":"per_unit","unit_amount":[1]}"#, "unit_amount"),
        (r#"{"model":"per_unit","unit_amount":"-1"}"#, "unit_amount"),
        (r#"{"model":"per_unit","unit_amount":"1","unit_price":"2"}"#, "unit_price"),
        (r#"{"model":"per_unit","unit_amount":"1","flat_at_zero":true}"#, "flat_at_zero"),
        (r#"{"model":"flat","unit_amount":"1"}"#, "amount"),
        (r#"{"model":"flat","amount":"1","flat_at_zero":"yes"}"#, "flat_at_zero"),
        (r#"{"model":"flat","amount":"1","free_units":"1"}"#, "free_units"),
        (r#"{"model":"flat","amount":"1","proration":"day"}"#, "proration"),
        (r#"{"model":"graduated"}"#, "tiers"),
        (r#"{"model":"graduated","tiers":[]}"#, "tiers"),
        (r#"{"model":"graduated","tiers":{}}"#, "tiers"),
        (r#"{"model":"graduated","tiers":[1]}"#, "tiers[0]"),
        (r#"{"model":"graduated","tiers":[{"up_to":1,"unit_amount":1}]}"#, "tiers[0].up_to"),
        (r#"{"model":"graduated","tiers":[{"unit_amount":1},{"unit_amount":1}]}"#, "tiers[0].up_to"),
        (r#"{"model":"graduated","tiers":[{"up_to":0,"unit_amount":1},{"unit_amount":1}]}"#, "tiers[0].up_to"),
        (
            r#"{"model":"volume","tiers":[{"up_to":2,"unit_amount":1},{"up_to":"2.0","unit_amount":1},{"unit_amount":1}]}"#,
            "tiers[1].up_to",
        ),
        (r#"{"model":"volume","tiers":[{"up_to":null}]}"#, "tiers[0].unit_amount"),
        (r#"{"model":"graduated","tiers":[{"unit_amount":1,"rate":2}]}"#, "tiers[0].rate"),
        (r#"{"model":"graduated_percentage","tiers":[{"unit_amount":1}]}"#, "tiers[0].rate"),
        (r#"{"model":"graduated","tiers":[{"package_size":10}]}"#, "tiers[0].amount"),
        (r#"{"model":"package","amount":1}"#, "package_size"),
        (r#"{"model":"package","amount":1,"package_size":0}"#, "package_size"),
        (r#"{"model":"package","amount":1,"package_size":1,"rounding":"half_up"}"#, "rounding"),
        (r#"{"model":"percentage","rate":1,"free_events":1.5}"#, "free_events"),
        (r#"{"model":"percentage","rate":1,"free_units":1}"#, "free_units"),
        (r#"{"model":"percentage","rate":1,"per_transaction_min":2,"per_transaction_max":1}"#, "per_transaction_max"),
        (r#"{"model":"matrix","cells":[]}"#, "default"),
        (r#"{"model":"matrix","default":{"unit_amount":1}}"#, "cells"),
        (r#"{"model":"matrix","cells":[{"unit_amount":1}],"default":{"unit_amount":1}}"#, "cells[0].match"),
        (
            r#"{"model":"matrix","cells":[{"match":{"region":{}},"unit_amount":1}],"default":{"unit_amount":1}}"#,
            "cells[0].match.region",
        ),
        (
            r#"{"model":"matrix","dimensions":["zone"],"cells":[{"match":{"region":"eu"},"unit_amount":1}],"default":{"unit_amount":1}}"#,
            "cells[0].match.region",
        ),
        (
            r#"{"model":"matrix","cells":[{"match":{"region":"eu"},"model":"graduated","tiers":[{"up_to":5}]}],"default":{"unit_amount":1}}"#,
            "cells[0].tiers[0].up_to",
        ),
        (
            r#"{"model":"matrix","dimensions":["zone"],"default":{"model":"percentage","rate":1,"free_events":1}}"#,
            "per_group",
        ),
        (r#"{"model":"matrix","dimensions":["zone"],"default":{"unit_amount":1},"free_units":1}"#, "free_units"),
        (r#"{"model":"bucketed"}"#, "price"),
        (r#"{"model":"bucketed","price":{"model":"volume"}}"#, "price.tiers"),
        (r#"{"model":"bucketed","price":{"unit_amount":1,"price":"1"}}"#, "price.price"),
        (r#"{"model":"per_unit","unit_amount":1,"unit_conversion":{"factor":0}}"#, "unit_conversion.factor"),
        (r#"{"model":"per_unit","unit_amount":1,"unit_conversion":{"factor":3600}}"#, "unit_conversion.factor"),
        (
            r#"{"model":"per_unit","unit_amount":1,"unit_conversion":{"factor":3600,"rounding":"up","digits":25}}"#,
            "unit_conversion.digits",
        ),
        (r#"{"model":"per_unit","unit_amount":1,"percentage_discount":101}"#, "percentage_discount"),
        (r#"{"model":"per_unit","unit_amount":1,"minimum_spend":2,"maximum_spend":1}"#, "minimum_spend"),
        (r#"{"model":"per_unit","unit_amount":1,"commitment":{}}"#, "commitment.amount"),
        (r#"{"model":"per_unit","unit_amount":1,"commitment":{"amount":1,"quantity":1}}"#, "commitment.quantity"),
        (r#"{"model":"percentage","rate":1,"commitment":{"quantity":1}}"#, "commitment.quantity"),
        (r#"{"model":"per_unit","unit_amount":1,"commitment":{"amount":1,"periods":0}}"#, "commitment.periods"),
    ] {
        let error = Model::parse(json).expect_err(json);
        assert_eq!(error.path, path, "{json}: {error}");
        assert!(!error.message.is_empty() && !error.message.ends_with('.'), "{error}");
    }
    let nested = (0..20)
        .fold(r#"{"unit_amount":1}"#.to_string(), |price, _| format!(r#"{{"model":"bucketed","price":{price}}}"#));
    assert!(Model::parse(&nested).expect_err("too deep").path.ends_with("price.model"));
}

#[test]
fn examples_are_models() {
    for (name, example) in EXAMPLES {
        assert_eq!(model(example).name(), name);
        assert_eq!(model(example).needs_meter(), name != "flat");
    }
}

#[test]
fn usage_is_refused_at_the_place_of_the_fault() {
    for (json, path) in [
        ("3", ""),
        ("{}", "quantity"),
        (r#"{"quantity":"many"}"#, "quantity"),
        (r#"{"quantity":1,"price":2}"#, "price"),
        (r#"{"quantity":1,"events":-1}"#, "events"),
        (r#"{"values":[1,"x"]}"#, "values[1]"),
        (r#"{"groups":[{"quantity":1}]}"#, "groups[0].by"),
        (r#"{"groups":[{"by":{"region":["eu"]},"quantity":1}]}"#, "groups[0].by.region"),
        (r#"{"buckets":[1,{"values":3}]}"#, "buckets[1].values"),
        (r#"{"quantity":1,"terms":{"open":true}}"#, "terms.open"),
    ] {
        assert_eq!(PeriodUsage::parse(json).expect_err(json).path, path, "{json}");
    }
}

#[test]
fn a_model_says_what_it_needs() {
    let needs = |json: &str| model(json).needs();
    let quantity = Needs { quantity: true, ..Needs::default() };
    assert_eq!(needs(r#"{"model":"package","amount":1,"package_size":5}"#), quantity);
    assert_eq!(needs(r#"{"model":"percentage","rate":1}"#), quantity);
    let counted = Needs { events: true, ..quantity.clone() };
    assert_eq!(needs(r#"{"model":"percentage","rate":1,"fixed_amount":1}"#), counted);
    let values = Needs { values: true, ..Needs::default() };
    assert_eq!(needs(r#"{"model":"percentage","rate":1,"fixed_amount":1,"free_events":3}"#), values);
    let matrix = needs(
        r#"{"model":"bucketed","price":{"model":"matrix","cells":[{"match":{"region":"eu","tier":1},"unit_amount":1},
            {"match":{"zone":"a"},"model":"percentage","rate":1,"fixed_amount":1}],"default":{"unit_amount":1}}}"#,
    );
    let dimensions = ["region", "tier", "zone"].map(str::to_string).into();
    assert_eq!(matrix.dimensions(), dimensions);
    let groups = GroupNeeds { dimensions, each: Box::new(counted) };
    let each = Needs { groups: Some(groups), ..Needs::default() };
    assert_eq!(matrix, Needs { buckets: Some(Box::new(each)), ..Needs::default() });

    assert_eq!(model(r#"{"model":"flat","amount":"1"}"#).commitment_periods(), None);
    let yearly = model(r#"{"model":"per_unit","unit_amount":"1","commitment":{"amount":1000,"periods":12}}"#);
    assert_eq!(yearly.commitment_periods(), Some(12));
}

#[test]
fn what_is_needed_and_not_there_is_an_error() {
    for (json, part) in [
        (r#"{"model":"percentage","rate":1,"fixed_amount":1}"#, "the number of events"),
        (r#"{"model":"percentage","rate":1,"free_events":1}"#, "the values of the events, in order"),
        (r#"{"model":"matrix","dimensions":["region"],"default":{"unit_amount":1}}"#, "the usage by group"),
        (r#"{"model":"bucketed","price":{"unit_amount":1}}"#, "the usage by time bucket"),
    ] {
        match price(&model(json), &Usage::of(amount("5"))) {
            Err(PriceError::Missing(missing)) => assert_eq!(missing.to_string(), part),
            other => panic!("{json}: {other:?}"),
        }
    }
}

#[test]
fn less_than_nothing_is_a_credit_where_a_unit_has_one_price() {
    for (json, expected) in [
        (r#"{"model":"per_unit","unit_amount":"2"}"#, "-10"),
        (r#"{"model":"dynamic"}"#, "-5"),
        (r#"{"model":"percentage","rate":10}"#, "-0.5"),
        (r#"{"model":"per_unit","unit_amount":"2","free_units":3}"#, "-10"),
        (r#"{"model":"per_unit","unit_amount":"2","percentage_discount":10}"#, "-9"),
        (r#"{"model":"per_unit","unit_amount":"2","minimum_spend":1}"#, "1"),
        (r#"{"model":"flat","amount":"2"}"#, "0"),
        (r#"{"model":"flat","amount":"2","flat_at_zero":true}"#, "2"),
        (r#"{"model":"package","amount":"2","package_size":2}"#, "0"),
        (r#"{"model":"graduated","tiers":[{"unit_amount":1,"flat_amount":3}]}"#, "0"),
        (r#"{"model":"volume","tiers":[{"unit_amount":1,"flat_amount":3}],"flat_at_zero":true}"#, "3"),
    ] {
        assert_eq!(priced(json, "-5").amount, amount(expected), "{json}");
    }
}

#[test]
fn the_order_of_the_steps_is_the_published_one() {
    let json = r#"{"model":"per_unit","unit_amount":"10","unit_conversion":{"factor":1000,"rounding":"up"},"free_units":1,
                   "usage_discount":"0.5","percentage_discount":10,"maximum_spend":40,"minimum_spend":20,
                   "commitment":{"amount":30,"overage_factor":2}}"#;
    let mut steps: Vec<Step> = Vec::new();
    let (model, usage) = (model(json), Usage::of(amount("5400")));
    let priced = price_with(&model, &usage, &Terms::default(), &mut steps).expect("a price");
    let explained = explain(&model, &usage, &steps, &priced, Some("USD")).expect("an explanation");
    let told: Vec<(&str, &str)> = explained["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| (step["step"].as_str().expect("a name"), step["amount"].as_str().expect("an amount")))
        .collect();
    // 5400 → 6 thousands begun → 5 → 4.5 · 10 = 45, less 10 % = 40.5, at most 40; 30 of it promised, the rest double.
    assert_eq!(
        told,
        [
            ("unit conversion", "0"),
            ("free", "0"),
            ("free", "0"),
            ("units", "45"),
            ("percentage discount", "-4.5"),
            ("maximum spend", "-0.5"),
            ("commitment", "10"),
        ]
    );
    assert_eq!((priced.cost.to_string(), priced.amount.to_string()), ("40".to_string(), "50".to_string()));
    assert_eq!(explained["amount"], "50.00");
}

#[test]
fn a_matrix_prices_groups_by_their_cell() {
    let usage = r#"{"groups":[{"by":{"region":"eu","tier":1},"quantity":6},{"by":{"region":"us","tier":1.0},"quantity":5},
                    {"by":{"region":null},"quantity":4},{"by":{"region":"asia"},"quantity":3}]}"#;
    let matrix = |more: &str| {
        format!(
            r#"{{"model":"matrix","cells":[{{"match":{{"region":["eu","us"],"tier":1}},"model":"graduated",
                "tiers":[{{"up_to":10,"unit_amount":1}},{{"unit_amount":100}}]}},
                {{"match":{{"region":null}},"unit_amount":7}}],"default":{{"model":"flat","amount":1000}}{more}}}"#
        )
    };
    assert_eq!(of_usage(&matrix(""), usage), "1138"); // 11 units together: 10 + 100; 4 · 7; the rest
    assert_eq!(of_usage(&matrix(r#","per_group":true"#), usage), "1039"); // 6 and 5 apart: 11
    assert_eq!(of_usage(&matrix(r#","combine":"max""#), usage), "1000");
    assert_eq!(of_usage(&matrix(""), r#"{"groups":[]}"#), "0");
}

#[test]
fn minimum_and_volume_come_when_the_period_is_over() {
    let volume = r#"{"model":"volume","tiers":[{"up_to":10,"unit_amount":2},{"unit_amount":1}],"minimum_spend":15}"#;
    assert_eq!(of_usage(volume, r#"{"quantity":8,"terms":{"closing":false}}"#), "0");
    assert_eq!(of_usage(volume, r#"{"quantity":12,"terms":{"billed":0}}"#), "15");
    assert_eq!(of_usage(volume, r#"{"quantity":20,"terms":{"before":{"quantity":8}}}"#), "20");
    // What was charged too much comes back: 20 units were billed, 12 are left.
    assert_eq!(of_usage(volume, r#"{"quantity":12,"terms":{"billed":20}}"#), "-5");
}

#[test]
fn a_committed_quantity_costs_what_it_costs_by_the_same_price() {
    let tiers = json!([{"up_to": 10, "unit_amount": 2}, {"unit_amount": 1}]);
    let commitment = json!({"quantity": 20, "overage_factor": "1.5", "true_up": true});
    let graduated = json!({"model": "graduated", "tiers": tiers, "commitment": commitment}).to_string();
    // 20 units cost 30: 25 cost 35, of which 5 are beyond.
    for (quantity, expected) in [("0", "30"), ("20", "30"), ("25", "37.5")] {
        assert_eq!(priced(&graduated, quantity).amount, amount(expected), "{quantity}");
    }
}

#[test]
fn numbers_that_nearly_fit_are_exact_or_an_error() {
    let nines = "9".repeat(52);
    let graduated = format!(
        r#"{{"model":"graduated","tiers":[{{"up_to":"{nines}","unit_amount":"0.1"}},{{"unit_amount":"{nines}"}}]}}"#
    );
    assert_eq!(priced(&graduated, &nines).amount.to_string(), format!("{}.9", "9".repeat(51)));
    assert!(price(&model(&graduated), &Usage::of(amount(&format!("1{}", "0".repeat(52))))).is_ok());
    // The sum of both tiers is beyond 255 bits.
    let beyond = price(&model(&graduated), &Usage::of(amount(&format!("2{}", "0".repeat(52)))));
    assert!(matches!(beyond, Err(PriceError::Range(_))), "{beyond:?}");
    let least = format!("0.{}1", "0".repeat(23));
    let conversion = json!({"operation": "multiply", "factor": least});
    let tiny =
        json!({"model": "dynamic", "multiplier": least, "unit_conversion": conversion, "percentage_discount": least});
    let tiny = tiny.to_string();
    let lost = price(&model(&tiny), &Usage::of(amount(&least)));
    assert_eq!(lost, Err(PriceError::Range(crate::core::decimal::QuantityError::TooPrecise)));
}
