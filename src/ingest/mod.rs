//! Ingest: from JSON to events, keys and deltas in the caller's transaction.
//!
//! # Protocol
//! A batch is written in this order:
//! 1. **Fence**: RowExclusiveLock on `deltas` (and `events`, `dedup_keys`), held to the end of the transaction.
//! 2. **Number**: the batch number is drawn from `batch_seq`, one by one, never cached.
//! 3. **Catalogue**: `engine` is read with the newest snapshot: meters, open slot, key generations.
//! 4. **Events** are parsed, validated and measured; faults are set aside, each alone.
//! 5. **Keys** decide: known keys are duplicates or conflicts, the rest are inserted (`dedup.rs`).
//! 6. **Rows**: events, deltas, one `batches` row.
//!
//! # Invariants
//! - Fence before number: whoever draws a number up to S holds the fence, so `WaitForLockers` on `deltas` after reading
//!   S means that every batch up to S is decided. The folder relies on it (`rollup/fold.rs`).
//! - Number before catalogue: a batch numbered after a meter's commit was visible counts for that meter
//!   (`rollup/dirty.rs`); likewise for slots and generations.
//! - Event, key and delta are in one transaction: they are all there or none is.
//!
//! # Crash and rollback
//! Nothing outside the transaction is touched but the sequence, whose gaps mean nothing.
//!
//! Proof: tests/isolation/specs/same_key_commit, same_key_rollback, fold_ingest, partition, rotation, meter_ingest, drain;
//! tests/client crash and oracle.

mod batch;
mod correct;
mod dedup;
mod engine;
mod groups;
mod inbox;
mod partitions;
mod reject;
mod rotate;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

use crate::core::event::{self, Event};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::session::{self, AsOwner};
use crate::pg::settings;

use batch::{Report, Source};

#[pg_extern(sql = "")]
fn ingest(
    events: Option<&str>,
    tenant_id: Option<&str>,
) -> TableIterator<'static, (name!(accepted, i32), name!(duplicates, i32), name!(failed, pgrx::JsonB))> {
    raise(ingest_text(events.unwrap_or_default(), tenant_id)).row()
}

fn ingest_text(events: &str, tenant_id: Option<&str>) -> Outcome<Report> {
    let raws = event::split(events).map_err(|fault| {
        Fail::new(SqlState::ERRCODE_INVALID_TEXT_REPRESENTATION, "events must be a JSON object or an array of objects")
            .detail(fault.message)
            .hint("Send {\"transaction_id\": ..., \"customer_id\": ..., \"event_name\": ...} or an array of such.")
    })?;
    let sources: Vec<Source<'_>> = raws.iter().map(|raw| Source::Json(raw.get())).collect();
    run("ingest", tenant_id, &sources)
}

#[pg_extern(sql = "")]
#[allow(clippy::too_many_arguments)]
fn ingest_text_rows(
    transaction_ids: Vec<Option<String>>,
    customer_ids: Vec<Option<String>>,
    event_names: Vec<Option<String>>,
    timestamps: Vec<Option<TimestampWithTimeZone>>,
    properties: Vec<Option<String>>,
    sources: Option<Vec<Option<String>>>,
    tenant_id: Option<&str>,
) -> TableIterator<'static, (name!(accepted, i32), name!(duplicates, i32), name!(failed, pgrx::JsonB))> {
    let rows = transaction_ids.len();
    let lengths = [
        ("customer_ids", customer_ids.len()),
        ("event_names", event_names.len()),
        ("timestamps", timestamps.len()),
        ("properties", properties.len()),
        ("sources", sources.as_ref().map_or(rows, Vec::len)),
    ];
    if let Some((name, length)) = lengths.into_iter().find(|(_, length)| *length != rows) {
        raise::<()>(Err(Fail::new(SqlState::ERRCODE_ARRAY_ELEMENT_ERROR, "the arrays differ in length")
            .detail(format!("transaction_ids has {rows} elements, {name} has {length}."))
            .hint("Pass one element an event in every array; NULL where an event has none.")));
    }
    let text = |values: &[Option<String>], i: usize| values[i].clone().unwrap_or_default();
    let events: Vec<Event<'_>> = (0..rows)
        .map(|i| Event {
            transaction_id: text(&transaction_ids, i).into(),
            customer_id: text(&customer_ids, i).into(),
            event_name: text(&event_names, i).into(),
            source: sources.as_ref().map(|sources| text(sources, i)).unwrap_or_default().into(),
            timestamp: timestamps[i].map(|at| crate::pg::datum::unix_micros(at.into_inner())),
            properties: properties[i].as_deref().unwrap_or("{}").into(),
        })
        .collect();
    let events: Vec<Source<'_>> = events.into_iter().map(Source::Row).collect();
    raise(run("ingest_rows", tenant_id, &events)).row()
}

/// Runs events through the pipeline as the extension's owner. The right to do so is INSERT on `inbox`, the door that
/// comes to the same: nobody needs, or gets, rights on the tables behind it.
fn run(verb: &str, tenant_id: Option<&str>, sources: &[Source<'_>]) -> Outcome<Report> {
    let _owner = AsOwner::of(session::relation("inbox")?, pg_sys::ACL_INSERT, verb)?;
    let tenant = tenant_id.map_or_else(settings::tenant, str::to_string);
    batch::ingest(&tenant, sources, session::now(), batch::Rejects::Keep)
}
