//! What one event costs before it meets PostgreSQL: split, parse, hash, meter.

// Each bench uses its own part of the core.
#[allow(dead_code, unused_imports, clippy::type_complexity)]
#[path = "../src/core/mod.rs"]
mod core;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use crate::core::event::{self, Limits};
use crate::core::key::{self, Secret};
use crate::core::meter::{Definition, Meter};
use crate::core::properties::Scratch;

const LIMITS: Limits = Limits { max_event_bytes: 1 << 20, max_depth: 64, max_id_bytes: 512 };
const SECRET: Secret = Secret(*b"0123456789abcdef");

/// About 250 bytes, five properties.
const EVENT: &str = r#"{"transaction_id":"0190b4c2-7f3a-7c11-9d5e-2f6a8b1c0d3e","customer_id":"cust_000123","event_name":"llm.request","timestamp":"2026-03-14T15:09:26.535897Z","properties":{"model":"gpt-4","region":"eu-west","tokens":1842,"latency_ms":12.75,"cached":false}}"#;

fn meter(property: &str, filters: Option<&str>, dimensions: &[String]) -> Meter {
    let definition = Definition {
        key: "tokens",
        event_name: "llm.request",
        aggregation: "sum",
        property: Some(property),
        filters,
        dimensions,
        multiplier: None,
        bucket_size: None,
        percentile: None,
        approximate: false,
    };
    Meter::compile(1, &definition, i64::MIN, i64::MAX).expect("the definition is valid")
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("event");

    let batch = format!("[{}]", vec![EVENT; 1000].join(","));
    group.throughput(Throughput::Elements(1000));
    group.bench_function("split", |b| b.iter(|| event::split(black_box(&batch)).map(|events| events.len())));

    group.throughput(Throughput::Elements(1));
    group.bench_function("parse", |b| b.iter(|| event::parse(black_box(EVENT), &LIMITS).is_ok()));

    let parsed = event::parse(EVENT, &LIMITS).expect("the event is valid");
    let mut scratch = Scratch::default();
    group.bench_function("tape", |b| b.iter(|| scratch.read(black_box(&parsed.properties), 64).is_ok()));
    group.bench_function("content_hash", |b| {
        let tape = scratch.read(&parsed.properties, 64).expect("accepted");
        b.iter(|| key::content_hash(&SECRET, black_box(&tape)))
    });
    group.bench_function("event_key", |b| {
        b.iter(|| key::event_key(&SECRET, black_box("default"), "", black_box(&parsed.transaction_id)))
    });

    group.bench_function("parse and hash", |b| {
        b.iter(|| {
            let event = event::parse(black_box(EVENT), &LIMITS).expect("the event is valid");
            let tape = scratch.read(&event.properties, 64).expect("accepted");
            let content = key::content_hash(&SECRET, &tape);
            let key = key::event_key(&SECRET, "default", &event.source, &event.transaction_id);
            let payload = key::payload_hash(&SECRET, &event.customer_id, &event.event_name, event.timestamp, content);
            (key, payload, key::subject(&SECRET, "default", &event.customer_id))
        })
    });

    let dimensions = ["model".to_owned(), "region".to_owned()];
    let filtered = meter("tokens", Some(r#"{"model": ["gpt-4", "gpt-5"], "latency_ms": {"gt": 1}}"#), &dimensions);
    let plain = meter("tokens", None, &[]);
    let mut text = String::new();
    for (name, meter) in [("meter", &plain), ("meter with filters and dimensions", &filtered)] {
        group.bench_function(name, |b| {
            let tape = scratch.read(&parsed.properties, 64).expect("accepted");
            b.iter(|| {
                text.clear();
                meter.group(black_box(&tape), &mut text);
                meter.sample(&tape, 0, 0, &SECRET).map(|sample| sample.is_some())
            })
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
