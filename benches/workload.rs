//! Usage events as the gateway of an LLM API would send them, for the benches and the demo.
//!
//! Deterministic, and random access: event `i` of a workload depends on its seed and `i` alone, so sessions make their
//! batches independently and any batch can be made again to be replayed. A few customers send most of the events
//! (Zipf); timestamps follow working days; one event in a hundred is late by up to two hours.

// The benches and the demo use different parts.
#![allow(dead_code)]

use std::fmt::Write;

pub const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3_600 * SECOND;
pub const DAY: i64 = 24 * HOUR;

pub const EVENT_NAME: &str = "llm.request";
/// At most so many events are sent before one is sent again; some of these are in the same batch, and some on their way
/// in another session.
const RETRIED_WITHIN: u64 = 20_000;
pub const MODELS: [(&str, u32); 6] = [
    ("gpt-4o", 30),
    ("gpt-4o-mini", 28),
    ("claude-sonnet-4", 22),
    ("claude-haiku-4", 10),
    ("llama-3.3-70b", 6),
    ("o3", 4),
];
const REGIONS: [(&str, u32); 4] = [("us-east-1", 45), ("eu-west-1", 30), ("us-west-2", 15), ("ap-southeast-1", 10)];

/// splitmix64: small, fast, and every seed is a good one.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal: mean 0, deviation 1, within ±3.5.
    fn normal(&mut self) -> f64 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum();
        (sum as f64 / 65_536.0 - 2.0) * 3f64.sqrt()
    }

    fn pick(&mut self, weighted: &[(&'static str, u32)]) -> &'static str {
        let mut at = self.below(weighted.iter().map(|(_, weight)| u64::from(*weight)).sum());
        for (name, weight) in weighted {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return name,
            }
        }
        weighted[0].0
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Ids {
    /// UUIDv4.
    Random,
    /// UUIDv7 of the event's time.
    TimeOrdered,
}

pub struct Event {
    pub id: [u8; 16],
    /// Unix microseconds.
    pub at: i64,
    /// Below the number of customers.
    pub customer: u32,
    pub user: u32,
    pub model: &'static str,
    pub region: &'static str,
    pub tokens: u32,
    /// Tenths of a millisecond.
    pub latency: u32,
    pub cached: bool,
}

#[derive(Clone)]
pub struct Workload {
    pub seed: u64,
    pub ids: Ids,
    /// Events in the whole period; later ones stay at its end.
    pub len: u64,
    /// One event in this many is sent again later; 0: none.
    pub duplicates: u64,
    customers: Vec<f64>,
    curve: Curve,
}

impl Workload {
    /// `len` events over [start, end) in Unix microseconds, with 1% duplicates.
    pub fn new(seed: u64, ids: Ids, customers: u32, (start, end): (i64, i64), len: u64) -> Workload {
        Workload { seed, ids, len, duplicates: 100, customers: zipf(customers), curve: Curve::new(start, end) }
    }

    /// What is sent at place `i`: a new event, or at every hundredth place one that was sent before.
    pub fn sent(&self, i: u64) -> Event {
        match self.repeats(i) {
            true => self.event(self.original(i)),
            false => self.event(i),
        }
    }

    /// Whether what is sent at place `i` was sent before.
    pub fn repeats(&self, i: u64) -> bool {
        i > 0 && self.duplicates > 0 && self.rng(i, 1).below(self.duplicates) == 0
    }

    fn original(&self, i: u64) -> u64 {
        let mut j = i - 1 - self.rng(i, 2).below(i.min(RETRIED_WITHIN));
        while self.repeats(j) {
            j -= 1; // the first repeats nothing
        }
        j
    }

    fn rng(&self, i: u64, purpose: u64) -> Rng {
        let mut rng = Rng::new(self.seed.wrapping_mul(4).wrapping_add(purpose));
        Rng::new(rng.next() ^ i.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The new event of place `i`, whether or not it's sent there.
    pub fn event(&self, i: u64) -> Event {
        let mut rng = self.rng(i, 0);
        let mut at = self.curve.at((i as f64 + rng.unit()) / self.len as f64);
        if rng.below(100) == 0 {
            at = (at - rng.below(2 * HOUR as u64) as i64).max(self.curve.start);
        }
        let (share, familiarity) = (rng.unit(), rng.unit());
        let rank = self.customers.partition_point(|&up_to| up_to <= share).min(self.customers.len() - 1) as u64;
        let users = 5 + 3_000 / (rank + 1);
        let model = rng.pick(&MODELS);
        let weight = if model.contains("mini") || model.contains("haiku") { 0.6 } else { 1.0 };
        Event {
            id: self.id(at, &mut rng),
            at,
            // The ranks scattered over the names: neighbours by name are no neighbours by traffic.
            customer: (rank * 7_919 % self.customers.len() as u64) as u32,
            user: (familiarity * familiarity * users as f64) as u32,
            model,
            region: rng.pick(&REGIONS),
            tokens: (700.0 * weight * (1.1 * rng.normal()).exp()) as u32 + 1,
            latency: (6_000.0 * weight * (0.8 * rng.normal()).exp()) as u32 + 100,
            cached: rng.below(8) == 0,
        }
    }

    fn id(&self, at: i64, rng: &mut Rng) -> [u8; 16] {
        let mut id = (u128::from(rng.next()) << 64 | u128::from(rng.next())).to_be_bytes();
        let version = match self.ids {
            Ids::Random => 0x40,
            Ids::TimeOrdered => {
                id[..6].copy_from_slice(&(at / 1_000).to_be_bytes()[2..]);
                0x70
            }
        };
        id[6] = id[6] & 0x0f | version;
        id[8] = id[8] & 0x3f | 0x80;
        id
    }
}

/// Cumulative shares of customers by rank, the first with the most.
fn zipf(customers: u32) -> Vec<f64> {
    let total: f64 = (1..=customers).map(|rank| 1.0 / f64::from(rank)).sum();
    let mut sum = 0.0;
    (1..=customers)
        .map(|rank| {
            sum += 1.0 / f64::from(rank) / total;
            sum
        })
        .collect()
}

/// How traffic spreads over a period: cumulative shares of its hours.
#[derive(Clone)]
struct Curve {
    start: i64,
    ends: Vec<(f64, i64)>,
}

impl Curve {
    fn new(start: i64, end: i64) -> Curve {
        let mut ends = Vec::new();
        let (mut from, mut sum) = (start, 0.0);
        while from < end {
            let to = (from - from.rem_euclid(HOUR) + HOUR).min(end);
            let hour = from.div_euclid(HOUR).rem_euclid(24) as f64;
            // The epoch was a Thursday.
            let weekend = matches!(from.div_euclid(DAY).rem_euclid(7), 2 | 3);
            let daytime = (std::f64::consts::TAU * (hour - 9.0) / 24.0).sin();
            sum += (1.0 + 0.7 * daytime) * if weekend { 0.55 } else { 1.0 } * (to - from) as f64;
            ends.push((sum, to));
            from = to;
        }
        ends.iter_mut().for_each(|(share, _)| *share /= sum);
        Curve { start, ends }
    }

    /// The time by which this share of the traffic has come.
    fn at(&self, share: f64) -> i64 {
        let hour = self.ends.partition_point(|(sum, _)| *sum <= share);
        let Some(&(high, to)) = self.ends.get(hour) else {
            return self.ends.last().map_or(self.start, |(_, to)| to - 1);
        };
        let (low, from) = if hour == 0 { (0.0, self.start) } else { self.ends[hour - 1] };
        from + ((share - low) / (high - low) * (to - from) as f64) as i64
    }
}

pub fn customer_id(customer: u32) -> String {
    format!("cust_{customer:04}")
}

impl Event {
    /// As one would send it to `ingest`; about 300 bytes.
    pub fn push_json(&self, out: &mut String) {
        out.push_str(r#"{"transaction_id":""#);
        self.push_id(out);
        let (customer, at) = (self.customer, self.time());
        let _ = write!(
            out,
            r#"","customer_id":"cust_{customer:04}","event_name":"{EVENT_NAME}","timestamp":"{at}","properties":"#
        );
        self.push_properties(out);
        out.push('}');
    }

    /// As a line of COPY's text format: id, tenant, customer, name, timestamp, properties.
    pub fn push_copy(&self, out: &mut String) {
        self.push_id(out);
        let _ = write!(out, "\tdefault\tcust_{:04}\t{EVENT_NAME}\t{}\t", self.customer, self.time());
        self.push_properties(out);
        out.push('\n');
    }

    /// As a line of COPY's text format for a table with a column for each property that is asked for.
    pub fn push_flat(&self, out: &mut String) {
        let Event { customer, user, model, tokens, .. } = self;
        let _ =
            writeln!(out, "default\tcust_{customer:04}\t{}\t{tokens}\t{model}\tuser_{customer:04}_{user}", self.time());
    }

    pub fn push_properties(&self, out: &mut String) {
        let Event { customer, user, model, region, tokens, latency, cached, .. } = self;
        let _ = write!(
            out,
            r#"{{"model":"{model}","region":"{region}","tokens":{tokens},"latency_ms":{}.{},"user":"user_{customer:04}_{user}","cached":{cached}}}"#,
            latency / 10,
            latency % 10,
        );
    }

    pub fn push_id(&self, out: &mut String) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for (i, byte) in self.id.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                out.push('-');
            }
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }

    fn time(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.at).unwrap_or_default()
    }
}

/// A JSON array of events.
pub fn json(events: impl Iterator<Item = Event>) -> String {
    let mut out = String::with_capacity(320 * events.size_hint().0);
    out.push('[');
    for (i, event) in events.enumerate() {
        if i > 0 {
            out.push(',');
        }
        event.push_json(&mut out);
    }
    out.push(']');
    out
}

/// Lines for COPY, each written by `push`.
pub fn lines(events: impl Iterator<Item = Event>, push: impl Fn(&Event, &mut String)) -> String {
    let mut out = String::with_capacity(320 * events.size_hint().0);
    events.for_each(|event| push(&event, &mut out));
    out
}
