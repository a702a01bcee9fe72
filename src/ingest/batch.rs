//! One batch through the pipeline.

use std::ops::Range;

use pgrx::prelude::*;
use rustc_hash::FxHashMap;

use crate::core::delta::{self, Accumulator};
use crate::core::event::{self, Code, Event, Fault, Limits, excerpt};
use crate::core::key;
use crate::core::properties::Scratch;
use crate::core::state::{Kind, Sample};
use crate::meters::raw::MAX_DEPTH;
use crate::meters::{self, Meters};
use crate::pg::bulk::{self, Table, Uncontested};
use crate::pg::datum::{TextArena, pg_micros};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::partition::{self, Leaf};
use crate::pg::{jsonb, lock, session, settings};

use super::engine::{self, Fenced};
use super::{dedup, groups, partitions, reject};

/// Events numbered within one batch; the number of an event is `batch << 16 | position`. Longer calls are cut.
const BATCH_EVENTS: usize = 16_384;

/// Longest transaction, customer, source or event name, in bytes: all are part of btree keys.
pub const MAX_ID_BYTES: usize = 512;

/// An event at the door.
pub enum Source<'a> {
    Json(&'a str),
    /// JSON that came to the inbox at a time (Unix microseconds): its timestamp if it names none.
    Inbox(&'a str, i64),
    /// Fields that came in arrays, not yet validated.
    Row(Event<'a>),
}

/// What to do with events that fail.
#[derive(Clone, Copy, PartialEq)]
pub enum Rejects {
    Keep,
    /// They are in `rejected_events` already.
    Known,
}

pub struct Failure {
    pub index: usize,
    pub fault: Fault,
}

#[derive(Default)]
pub struct Report {
    pub accepted: i32,
    pub duplicates: i32,
    /// In order of index.
    pub failures: Vec<Failure>,
}

impl Report {
    pub fn row(self) -> TableIterator<'static, (i32, i32, pgrx::JsonB)> {
        let failed: Vec<serde_json::Value> = self
            .failures
            .into_iter()
            .map(|Failure { index, fault }| {
                serde_json::json!({
                    "index": index, "transaction_id": fault.transaction_id, "code": fault.code.as_str(), "message": fault.message,
                })
            })
            .collect();
        TableIterator::once((self.accepted, self.duplicates, pgrx::JsonB(failed.into())))
    }
}

/// An event that is well formed, measured, and has its key.
pub struct Candidate<'a> {
    /// Position in the call.
    pub index: usize,
    pub seq: i64,
    pub event: Event<'a>,
    /// Unix microseconds.
    pub at: i64,
    pub key: [u8; 16],
    pub payload: i64,
    leaf: usize,
    /// Its part of `Measured::measures`.
    pub measures: Range<usize>,
}

/// What one meter read from one event.
pub struct Measure {
    pub meter: i32,
    pub kind: Kind,
    /// Position in `Measured::groups`.
    pub group: u32,
    pub sample: Sample,
}

/// The measures of a batch, with their groups numbered.
#[derive(Default)]
pub struct Measured {
    pub measures: Vec<Measure>,
    pub groups: Vec<String>,
    numbers: FxHashMap<String, u32>,
    scratch: String,
}

impl Measured {
    fn group(&mut self) -> u32 {
        if let Some(&number) = self.numbers.get(&self.scratch) {
            return number;
        }
        let number = self.groups.len() as u32;
        self.groups.push(self.scratch.clone());
        self.numbers.insert(self.scratch.clone(), number);
        number
    }
}

pub fn ingest(tenant: &str, sources: &[Source<'_>], now: i64, rejects: Rejects) -> Outcome<Report> {
    check_tenant(tenant)?;
    let mut report = Report::default();
    for (i, chunk) in sources.chunks(BATCH_EVENTS).enumerate() {
        bulk::in_batch_memory(|| one_batch(tenant, chunk, i * BATCH_EVENTS, now, rejects, &mut report))?;
    }
    Ok(report)
}

fn check_tenant(tenant: &str) -> Outcome<()> {
    if tenant.is_empty() || tenant.len() > MAX_ID_BYTES {
        return Err(Fail::parameter("the tenant must be 1 to 512 bytes long")
            .detail(format!("It is {} bytes long.", tenant.len()))
            .hint("Pass tenant_id, or set meterflow.tenant."));
    }
    Ok(())
}

fn one_batch(
    tenant: &str,
    sources: &[Source<'_>],
    first: usize,
    now: i64,
    rejects: Rejects,
    report: &mut Report,
) -> Outcome<()> {
    let fenced = engine::fence()?;
    let meters = meters::of_tenant(tenant, fenced.engine.catalogue)?;
    let before = (report.accepted, report.duplicates, report.failures.len());

    let mut intake = Intake {
        tenant,
        now,
        fenced: &fenced,
        meters: &meters,
        measured: Measured::default(),
        scratch: Scratch::default(),
        kept_time: None,
    };
    let mut candidates = Vec::with_capacity(sources.len());
    for (i, source) in sources.iter().enumerate() {
        match intake.take(first + i, (fenced.batch << 16) | i as i64, source) {
            Ok(candidate) => candidates.push(candidate),
            Err(Refused::For(fault)) => report.failures.push(Failure { index: first + i, fault }),
            Err(Refused::Measuring(candidate, fault)) => {
                // What was accepted before the meter was made stays a duplicate, though the meter would refuse it now.
                match dedup::lookup(&fenced, &candidate.key)? {
                    Some(known) if known.payload == candidate.payload => report.duplicates += 1,
                    _ => report.failures.push(Failure { index: first + i, fault }),
                }
            }
        }
    }
    let measured = intake.measured;

    groups::admit(tenant, &fenced.engine.secret, &measured, &mut candidates, report)?;
    let leaves = place(&fenced, &mut candidates)?;
    dedup::claim(&fenced, &mut candidates, report)?;
    write(tenant, &fenced, &mut candidates, &measured, &leaves)?;
    report.accepted += candidates.len() as i32;

    report.failures[before.2..].sort_unstable_by_key(|failure| failure.index);
    let failed = &report.failures[before.2..];
    if rejects == Rejects::Keep && !failed.is_empty() {
        reject::keep(
            tenant,
            &fenced.engine.secret,
            failed.iter().map(|failure| (&failure.fault, &sources[failure.index - first])),
        )?;
    }
    write_batch_row(tenant, &fenced, [report.accepted - before.0, report.duplicates - before.1, failed.len() as i32])?;
    lock::command_done();
    Ok(())
}

/// Stores one event whose key has been claimed before: an amendment. It is numbered as the first of the batch.
pub fn replace(tenant: &str, fenced: &Fenced, text: &str, kept_time: i64) -> Outcome<Result<(), Fault>> {
    bulk::in_batch_memory(|| {
        let meters = meters::of_tenant(tenant, fenced.engine.catalogue)?;
        let mut intake = Intake {
            tenant,
            now: session::now(),
            fenced,
            meters: &meters,
            measured: Measured::default(),
            scratch: Scratch::default(),
            kept_time: Some(kept_time),
        };
        let source = Source::Json(text);
        let mut candidates = match intake.take(0, fenced.batch << 16, &source) {
            Ok(candidate) => vec![candidate],
            Err(Refused::For(fault) | Refused::Measuring(_, fault)) => return Ok(Err(fault)),
        };
        let measured = intake.measured;
        let mut report = Report::default();
        groups::admit(tenant, &fenced.engine.secret, &measured, &mut candidates, &mut report)?;
        if let Some(failure) = report.failures.pop() {
            return Ok(Err(failure.fault));
        }
        let leaves = place(fenced, &mut candidates)?;
        write(tenant, fenced, &mut candidates, &measured, &leaves)?;
        // The original is counted as accepted already.
        write_batch_row(tenant, fenced, [0, 0, 0])?;
        Ok(Ok(()))
    })
}

/// Finds each candidate's partition, making those that are missing. Before any key is claimed: making a partition may
/// wait for another session that makes it, which must not wait for us.
fn place(fenced: &Fenced, candidates: &mut [Candidate<'_>]) -> Outcome<Vec<Leaf>> {
    let mut leaves = partition::leaves(fenced.events);
    partitions::ensure(fenced.events, &mut leaves, candidates.iter().map(|candidate| candidate.at))?;
    for candidate in candidates {
        candidate.leaf = partition::find(&leaves, candidate.at)
            .ok_or_else(|| Fail::corrupt(format!("no partition of meterflow.events for {}", shown(candidate.at))))?;
    }
    Ok(leaves)
}

/// Writes events and deltas. Sorted by partition, customer and time: neighbours meet the same index pages, and a
/// customer's events of a batch lie together.
fn write(
    tenant: &str,
    fenced: &Fenced,
    candidates: &mut [Candidate<'_>],
    measured: &Measured,
    leaves: &[Leaf],
) -> Outcome<()> {
    candidates.sort_unstable_by(|a, b| {
        (a.leaf, &a.event.customer_id, a.at, a.seq).cmp(&(b.leaf, &b.event.customer_id, b.at, b.seq))
    });
    write_events(tenant, candidates, leaves)?;
    write_deltas(tenant, fenced, candidates, measured)
}

enum Refused<'a> {
    For(Fault),
    /// Sound in itself, but a meter can't take its value.
    Measuring(Box<Candidate<'a>>, Fault),
}

struct Intake<'e> {
    tenant: &'e str,
    now: i64,
    fenced: &'e Fenced,
    meters: &'e Meters,
    measured: Measured,
    scratch: Scratch,
    /// A time that was accepted before, and so needs no window.
    kept_time: Option<i64>,
}

impl Intake<'_> {
    fn take<'a>(&mut self, index: usize, seq: i64, source: &'a Source<'_>) -> Result<Candidate<'a>, Refused<'a>> {
        let limits =
            Limits { max_event_bytes: settings::max_event_bytes(), max_depth: MAX_DEPTH, max_id_bytes: MAX_ID_BYTES };
        let mut default_time = self.now;
        let event = match source {
            Source::Json(text) => event::parse(text, &limits),
            Source::Inbox(text, received_at) => {
                default_time = *received_at;
                event::parse(text, &limits)
            }
            Source::Row(event) => event::check(borrowed(event), &limits).map_err(|fault| Fault {
                transaction_id: Some(event.transaction_id.to_string()).filter(|id| !id.is_empty()),
                ..fault
            }),
        }
        .map_err(Refused::For)?;
        let identified = |mut fault: Fault| {
            fault.transaction_id.get_or_insert_with(|| event.transaction_id.to_string());
            Refused::For(fault)
        };
        let at = event.timestamp.unwrap_or(default_time);
        if self.kept_time != Some(at) {
            self.check_time(at).map_err(identified)?;
        }

        let secret = &self.fenced.engine.secret;
        let tape = self.scratch.read(&event.properties, MAX_DEPTH + 1).map_err(identified)?;
        let key = key::event_key(secret, self.tenant, &event.source, &event.transaction_id);
        let content = key::content_hash(secret, &tape);
        let payload = key::payload_hash(secret, &event.customer_id, &event.event_name, event.timestamp, content);

        let start = self.measured.measures.len();
        let mut refused = None;
        for meter in self.meters.of(&event.event_name, at) {
            match meter.sample(&tape, at, seq, secret) {
                Ok(None) => {}
                Ok(Some(sample)) => {
                    self.measured.scratch.clear();
                    meter.group(&tape, &mut self.measured.scratch);
                    let group = self.measured.group();
                    self.measured.measures.push(Measure { meter: meter.id, kind: meter.kind, group, sample });
                }
                Err(mut fault) => {
                    fault.transaction_id = Some(event.transaction_id.to_string());
                    refused = Some(fault);
                    self.measured.measures.truncate(start);
                    break;
                }
            }
        }
        let measures = start..self.measured.measures.len();
        let candidate = Candidate { index, seq, event, at, key, payload, leaf: 0, measures };
        match refused {
            None => Ok(candidate),
            Some(fault) => Err(Refused::Measuring(Box::new(candidate), fault)),
        }
    }

    fn check_time(&self, at: i64) -> Result<(), Fault> {
        let oldest = self.now.saturating_sub(settings::backdate_window()).max(self.fenced.engine.floor);
        if at < oldest {
            return Err(Fault::new(
                Code::TooOld,
                format!("timestamp {} is before {}, the oldest accepted now", shown(at), shown(oldest)),
            ));
        }
        let newest = self.now.saturating_add(settings::future_window());
        if at > newest {
            return Err(Fault::new(
                Code::InFuture,
                format!("timestamp {} is after {}, the latest accepted now", shown(at), shown(newest)),
            ));
        }
        Ok(())
    }
}

/// A time for a message.
fn shown(at: i64) -> String {
    jiff::Timestamp::from_microsecond(at).map_or_else(|_| excerpt(&at.to_string()), |time| time.to_string())
}

/// The fields of a row, borrowed from it.
fn borrowed<'a>(event: &'a Event<'_>) -> Event<'a> {
    Event {
        transaction_id: (&*event.transaction_id).into(),
        customer_id: (&*event.customer_id).into(),
        event_name: (&*event.event_name).into(),
        source: (&*event.source).into(),
        timestamp: event.timestamp,
        properties: (&*event.properties).into(),
    }
}

/// Columns of `events`, in order: timestamp, seq, tenant, customer, name, source, transaction, properties.
const EVENT_COLUMNS: usize = 8;

/// Appends sorted candidates to their partitions.
fn write_events(tenant: &str, candidates: &[Candidate<'_>], leaves: &[Leaf]) -> Outcome<()> {
    let mut scratch = Scratch::default();
    for part in candidates.chunk_by(|a, b| a.leaf == b.leaf) {
        let mut arena = TextArena::with_capacity(part.len() * 384);
        let tenant = arena.push(tenant.as_bytes());
        let mut texts = Vec::with_capacity(part.len());
        for candidate in part {
            let event = &candidate.event;
            let [customer, name, source, transaction] =
                [&event.customer_id, &event.event_name, &event.source, &event.transaction_id]
                    .map(|text| arena.push(text.as_bytes()));
            let tape = scratch
                .read(&event.properties, MAX_DEPTH + 1)
                .map_err(|fault| Fail::corrupt(format!("accepted properties can not be read again: {fault}")))?;
            let properties = arena.push_with(|bytes| jsonb::write(tape.root(), bytes));
            texts.push([customer, name, source, transaction, properties]);
        }
        let mut values = Vec::with_capacity(part.len() * EVENT_COLUMNS);
        for (candidate, texts) in part.iter().zip(&texts) {
            values.push(bulk::int8(pg_micros(candidate.at)));
            values.push(bulk::int8(candidate.seq));
            values.push(arena.datum(tenant));
            values.extend(texts.map(|text| arena.datum(text)));
        }
        let Some(first) = part.first() else { continue };
        Table::open(leaves[first.leaf].oid)?.append(&values, EVENT_COLUMNS, &mut Uncontested)?;
    }
    Ok(())
}

/// Appends what the candidates add to usage, one row a customer, to the open slot.
fn write_deltas(tenant: &str, fenced: &Fenced, candidates: &[Candidate<'_>], measured: &Measured) -> Outcome<()> {
    let mut customers: Vec<&str> = Vec::new();
    let mut numbers: FxHashMap<&str, u32> = FxHashMap::default();
    let mut accumulator = Accumulator::default();
    for candidate in candidates {
        let customer: &str = &candidate.event.customer_id;
        let number = *numbers.entry(customer).or_insert_with(|| {
            customers.push(customer);
            customers.len() as u32 - 1
        });
        for measure in &measured.measures[candidate.measures.clone()] {
            accumulator.add(number, measure.meter, measure.kind, measure.group, &measure.sample).map_err(|error| {
                Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "a batch sums up to more than can be stored")
                    .detail(error.to_string())
            })?;
        }
    }
    let mut packed_customers: Vec<(i16, &str, Vec<u8>)> = Vec::with_capacity(customers.len());
    accumulator.pack(&measured.groups, |number, packed| {
        let customer = customers[number as usize];
        let bucket = delta::bucket_of(key::subject(&fenced.engine.secret, tenant, customer));
        packed_customers.push((bucket, customer, packed.to_vec()));
    });
    append_deltas(tenant, fenced, packed_customers)
}

/// Columns of a delta slot, in order: batch, bucket, tenant, entries.
const DELTA_COLUMNS: usize = 4;

/// Appends customers with their packed entries to the open slot, some to a row.
pub fn append_deltas(tenant: &str, fenced: &Fenced, mut customers: Vec<(i16, &str, Vec<u8>)>) -> Outcome<()> {
    if customers.is_empty() {
        return Ok(());
    }
    customers.sort_unstable();
    let mut arena = TextArena::default();
    let tenant = arena.push(tenant.as_bytes());
    let mut rows = Vec::new();
    let mut row = Vec::new();
    for bucket in customers.chunk_by(|(a, ..), (b, ..)| a == b) {
        for (i, (number, customer, packed)) in bucket.iter().enumerate() {
            delta::put_customer(&mut row, customer, packed);
            if row.len() >= delta::ROW_BYTES || i + 1 == bucket.len() {
                rows.push((*number, arena.push(&row)));
                row.clear();
            }
        }
    }
    let mut values = Vec::with_capacity(rows.len() * DELTA_COLUMNS);
    for (bucket, entries) in rows {
        values.push(bulk::int8(fenced.batch));
        values.push(bulk::int2(bucket));
        values.push(arena.datum(tenant));
        values.push(arena.datum(entries));
    }
    let slot = session::relation(&format!("deltas_{}", fenced.engine.open_slot))?;
    Table::open(slot)?.append(&values, DELTA_COLUMNS, &mut Uncontested)?;
    Ok(())
}

/// Appends the row of `batches`; counts are accepted, duplicates, failed.
pub fn write_batch_row(tenant: &str, fenced: &Fenced, counts: [i32; 3]) -> Outcome<()> {
    let mut arena = TextArena::default();
    let tenant = arena.push(tenant.as_bytes());
    let mut values = vec![bulk::int8(fenced.batch), arena.datum(tenant), bulk::int8(pg_micros(session::now()))];
    values.extend(counts.map(bulk::int4));
    let width = values.len();
    Table::open(session::relation("batches")?)?.append(&values, width, &mut Uncontested)?;
    Ok(())
}
