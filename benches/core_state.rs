//! Cost of the aggregation states without PostgreSQL: what an event adds to ingest, and what a delta adds to a fold.
//! The baseline of `add` is the sum of i128, the least that any exact sum could cost.

#[allow(dead_code)]
#[path = "../src/core/decimal.rs"]
mod decimal;
#[allow(dead_code, unused_imports)]
#[path = "../src/core/state/mod.rs"]
mod state;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use decimal::Quantity;
use state::{Kind, Sample, State};

/// Samples with distinct values in thousandths and scattered digests, ten to a bucket.
fn samples(count: i64) -> Vec<Sample> {
    let sample = |n: i64| Sample {
        value: Quantity::from_i64(n).div_round(1_000).unwrap_or(Quantity::ZERO),
        digest: (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        at: 1_750_000_000_000_000 + n * 1_000,
        seq: n,
        bucket: n / 10 * 10,
    };
    (1..=count).map(sample).collect()
}

fn filled(kind: Kind, count: i64) -> State {
    let mut state = State::empty(kind);
    samples(count).iter().for_each(|sample| state.add(sample).expect("values are small"));
    state
}

fn stored(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    bytes
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for text in ["42", "1234.5678", "123456789012345678901234.123456789012345678901234"] {
        group.bench_function(text, |b| b.iter(|| Quantity::parse(black_box(text))));
    }
    group.finish();
}

/// One event into a state that has seen the like.
fn add(c: &mut Criterion) {
    let mut group = c.benchmark_group("add");
    let samples = samples(1_000);
    let mut next = samples.iter().cycle();
    let mut total = 0_i128;
    group.bench_function("baseline_i128", |b| b.iter(|| total = total.wrapping_add(black_box(1 << 80))));
    for kind in Kind::ALL {
        let mut state = filled(*kind, 1_000);
        group.bench_function(kind.name(), |b| b.iter(|| next.next().map(|sample| state.add(black_box(sample)))));
    }
    group.finish();
}

/// A fold: read the rollup and the delta of one event, merge, write.
fn fold(c: &mut Criterion) {
    let mut group = c.benchmark_group("fold");
    for kind in Kind::ALL {
        for size in [1, 10_000] {
            let (rollup, delta) = (stored(&filled(*kind, size)), stored(&filled(*kind, 1)));
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::new(kind.name(), size), |b| {
                b.iter(|| {
                    let mut state = State::decode(black_box(&rollup))?;
                    state.merge(&State::decode(black_box(&delta))?)?;
                    out.clear();
                    state.encode(&mut out);
                    Ok::<_, state::StateError>(out.len())
                })
            });
        }
    }
    group.finish();
}

criterion_group!(benches, parse, add, fold);
criterion_main!(benches);
