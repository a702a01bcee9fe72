//! What a price costs to compute, without a database: reading a definition, and pricing a quantity with and without a
//! record of the steps. `price` beside `multiply`, the one product that plain arithmetic can't do without.

#[path = "../src/core/mod.rs"]
#[allow(dead_code, unused_imports, clippy::type_complexity)]
mod core;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

use crate::core::pricing::{Amount, Model, Silent, Step, Terms, Usage, price_with};

const MODELS: [(&str, &str); 6] = [
    ("flat", r#"{"model":"flat","amount":"20"}"#),
    ("per_unit", r#"{"model":"per_unit","unit_amount":"0.10"}"#),
    (
        "graduated",
        r#"{"model":"graduated","tiers":[{"up_to":"100","unit_amount":"0.10","flat_amount":"5"},
            {"up_to":"500","unit_amount":"0.07"},{"unit_amount":"0.05"}]}"#,
    ),
    ("volume", r#"{"model":"volume","tiers":[{"up_to":"100","unit_amount":"0.10"},{"unit_amount":"0.05"}]}"#),
    ("package", r#"{"model":"package","amount":"5","package_size":"100"}"#),
    (
        "all steps",
        r#"{"model":"per_unit","unit_amount":"0.10","unit_conversion":{"factor":60,"rounding":"up"},"free_units":1,
            "percentage_discount":10,"maximum_spend":1000,"minimum_spend":1,"commitment":{"amount":1,"overage_factor":2}}"#,
    ),
];

fn pricing(criterion: &mut Criterion) {
    let usage = Usage::of(Amount::parse("612.37").expect("a quantity"));
    let unit = Amount::parse("0.10").expect("an amount");
    criterion
        .bench_function("multiply", |bench| bench.iter(|| black_box(&usage.quantity).checked_mul(black_box(&unit))));
    for (name, json) in MODELS {
        let model = Model::parse(json).expect(name);
        criterion.bench_function(&format!("read {name}"), |bench| bench.iter(|| Model::parse(black_box(json))));
        criterion.bench_function(&format!("price {name}"), |bench| {
            bench.iter(|| price_with(black_box(&model), black_box(&usage), &Terms::default(), &mut Silent));
        });
        criterion.bench_function(&format!("explain {name}"), |bench| {
            bench.iter(|| {
                let mut steps: Vec<Step> = Vec::new();
                let priced = price_with(black_box(&model), black_box(&usage), &Terms::default(), &mut steps);
                (priced, steps)
            });
        });
    }
}

criterion_group!(benches, pricing);
criterion_main!(benches);
