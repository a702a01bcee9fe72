//! Corrections: an accepted event is taken back, or replaced, and both stay on record.
//!
//! A correction is a row of `event_corrections` that names the event. In the same transaction, as a batch of its own,
//! usage follows: invertible aggregations get the inverse delta, for the others (min, max, latest, approximate unique
//! count, bucket maximum) the touched hour is marked dirty, which makes readers use raw events until it is rebuilt.
//! Row locks on the correction's primary key make two voids of one event wait for each other.
//!
//! The key of a voided event stays used, with what was first sent: a late retry is a duplicate, not a resurrection.

use std::rc::Rc;

use pgrx::prelude::*;

use crate::core::delta::{self, hour_of};
use crate::core::event::{self, Event, Limits};
use crate::core::key;
use crate::core::meter::Meter;
use crate::core::properties::Scratch;
use crate::core::state::State;
use crate::meters::raw::MAX_DEPTH;
use crate::meters::{self, Meters};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::session::{self, AsOwner};
use crate::pg::spi::{self, See};
use crate::pg::{lock, settings};

use super::engine::{self, Fenced};
use super::{batch, dedup};

/// An accepted event as stored.
struct Stored {
    seq: i64,
    at: i64,
    customer_id: String,
    event_name: String,
    properties: String,
}

#[pg_extern(sql = "")]
fn void_event(transaction_id: &str, reason: &str, source: &str) -> i64 {
    raise((|| {
        let (tenant, _owner) = enter("void_event", reason)?;
        let fenced = engine::fence()?;
        let mut stored = find(&tenant, &fenced, transaction_id, source)?;
        while !record(&tenant, &fenced, &stored, transaction_id, source, reason, None)? {
            let newest = find(&tenant, &fenced, transaction_id, source)?;
            if newest.seq == stored.seq {
                return Ok(stored.seq); // voided before
            }
            stored = newest; // amended meanwhile
        }
        take_back(&tenant, &fenced, &stored)?;
        batch::write_batch_row(&tenant, &fenced, [0, 0, 0])?;
        lock::command_done();
        Ok(stored.seq)
    })())
}

#[pg_extern(sql = "")]
fn amend_event(transaction_id: &str, event: &str, reason: &str, source: &str) -> i64 {
    raise((|| {
        let (tenant, _owner) = enter("amend_event", reason)?;
        let fenced = engine::fence()?;
        let limits = Limits {
            max_event_bytes: settings::max_event_bytes(),
            max_depth: MAX_DEPTH,
            max_id_bytes: batch::MAX_ID_BYTES,
        };
        let new_seq = fenced.batch << 16;
        let mut stored = find(&tenant, &fenced, transaction_id, source)?;
        let merged = loop {
            let merged = merge(&stored, transaction_id, source, event, &limits)?;
            let new_at = event::parse(&merged, &limits).map_err(refused)?.timestamp.unwrap_or(stored.at);
            if record(&tenant, &fenced, &stored, transaction_id, source, reason, Some((new_seq, new_at)))? {
                break merged;
            }
            let newest = find(&tenant, &fenced, transaction_id, source)?;
            if newest.seq == stored.seq {
                let state = SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
                return Err(Fail::new(state, "this event has been voided")
                    .detail(format!("Transaction {transaction_id}."))
                    .hint("Ingest the event under a new transaction_id."));
            }
            stored = newest; // amended meanwhile: this amendment goes on top
        };
        take_back(&tenant, &fenced, &stored)?;
        batch::replace(&tenant, &fenced, &merged, stored.at)?.map_err(refused)?;
        lock::command_done();
        Ok(new_seq)
    })())
}

fn enter(verb: &str, reason: &str) -> Outcome<(String, AsOwner)> {
    if reason.trim().is_empty() {
        return Err(Fail::parameter(format!("{verb} needs a reason")).hint("Say why; it is kept with the correction."));
    }
    let owner = AsOwner::of(session::relation("inbox")?, pg_sys::ACL_INSERT, verb)?;
    Ok((settings::tenant(), owner))
}

fn refused(fault: event::Fault) -> Fail {
    Fail::parameter("the amended event can not be accepted").detail(format!(
        "{}: {}",
        fault.code.as_str(),
        fault.message
    ))
}

/// The newest event of a transaction id: the last amendment, or the event itself.
fn find(tenant: &str, fenced: &Fenced, transaction_id: &str, source: &str) -> Outcome<Stored> {
    let key = key::event_key(&fenced.engine.secret, tenant, source, transaction_id);
    let missing = || {
        Fail::new(SqlState::ERRCODE_NO_DATA_FOUND, "no such event")
            .detail(format!("Transaction {transaction_id:?} of source {source:?} has not been accepted for tenant {tenant:?}, or its partition has been dropped."))
            .hint("Check the source: it is part of an event's identity.")
    };
    // The last amendment, else the key, tells the time and with it the partition; only when the key has been
    // forgotten are all partitions searched.
    let amended = spi::one(
        "SELECT replaced_at FROM meterflow.event_corrections \
          WHERE tenant_id = $1 AND transaction_id = $2 AND source = $3 AND replaced_by IS NOT NULL ORDER BY replaced_by DESC LIMIT 1",
        &[tenant.into(), transaction_id.into(), source.into()],
        See::Latest,
        |row| row.time(0),
    )?;
    let at = match amended {
        Some(at) => Some(at),
        None => dedup::lookup(fenced, &key)?.map(|known| known.at),
    };
    let (from, to) = at.map_or((i64::MIN, i64::MAX), |at| (at, at));
    spi::one(
        "SELECT seq, timestamp, customer_id, event_name, properties::text FROM meterflow.events \
          WHERE tenant_id = $1 AND transaction_id = $2 AND source = $3 AND timestamp BETWEEN $4 AND $5 ORDER BY seq DESC LIMIT 1",
        &[tenant.into(), transaction_id.into(), source.into(), spi::time(from), spi::time(to)],
        See::Latest,
        |row| Ok(Stored { seq: row.int8(0)?, at: row.time(1)?, customer_id: row.text(2)?, event_name: row.text(3)?, properties: row.text(4)? }),
    )?
    .ok_or_else(missing)
}

/// Writes the correction; false when the event had been taken back before.
fn record(
    tenant: &str,
    fenced: &Fenced,
    stored: &Stored,
    transaction_id: &str,
    source: &str,
    reason: &str,
    replaced_by: Option<(i64, i64)>,
) -> Outcome<bool> {
    let (hours, raw) = spi::one("SELECT hour_floor, raw_floor FROM meterflow.fold_state", &[], See::Latest, |row| {
        Ok((row.time(0)?, row.time(1)?))
    })?
    .unwrap_or((i64::MIN, i64::MIN));
    if stored.at < hours.max(raw) {
        let why = if stored.at < raw {
            "Other raw events of its time have been dropped by retention."
        } else {
            "The hours of its time have been downsampled to days."
        };
        let state = SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        return Err(Fail::new(state, "this event is too old to be corrected")
            .detail(why)
            .hint("Ingest a new event that makes up for it."));
    }
    let written = spi::run(
        "INSERT INTO meterflow.event_corrections (tenant_id, seq, timestamp, replaced_by, replaced_at, batch, transaction_id, source, reason) \
         VALUES ($1, $2, $3, $4, $9, $5, $6, $7, $8) ON CONFLICT (tenant_id, seq) DO NOTHING",
        &[
            tenant.into(),
            stored.seq.into(),
            spi::time(stored.at),
            replaced_by.map(|(seq, _)| seq).into(),
            fenced.batch.into(),
            transaction_id.into(),
            source.into(),
            reason.into(),
            replaced_by.map_or_else(spi::no_time, |(_, at)| spi::time(at)),
        ],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(written == 1)
}

/// Undoes what the event has added to usage.
fn take_back(tenant: &str, fenced: &Fenced, stored: &Stored) -> Outcome<()> {
    let meters: Rc<Meters> = meters::of_tenant(tenant, fenced.engine.catalogue)?;
    let mut scratch = Scratch::default();
    let tape = scratch
        .read(&stored.properties, MAX_DEPTH + 1)
        .map_err(|fault| Fail::corrupt(format!("stored event {} can not be read: {fault}", stored.seq)))?;
    let mut packed = Vec::new();
    let mut dirty: Vec<i32> = Vec::new();
    for meter in meters.of(&stored.event_name, stored.at) {
        // A meter that could not read the event when it was made has passed over it.
        let Ok(Some(sample)) = meter.sample(&tape, stored.at, stored.seq, &fenced.engine.secret) else { continue };
        let mut state = State::empty(meter.kind);
        state.add(&sample).map_err(|error| Fail::corrupt(error.to_string()))?;
        match state.negate() {
            Some(inverse) => {
                let mut group = String::new();
                Meter::group(meter, &tape, &mut group);
                let mut bytes = Vec::new();
                inverse.encode(&mut bytes);
                delta::put(&mut packed, meter.id, hour_of(stored.at), &group, &bytes);
            }
            None => dirty.push(meter.id),
        }
    }
    if !packed.is_empty() {
        let subject = key::subject(&fenced.engine.secret, tenant, &stored.customer_id);
        batch::append_deltas(tenant, fenced, vec![(delta::bucket_of(subject), &stored.customer_id, packed)])?;
    }
    for meter in dirty {
        spi::run(
            "SELECT meterflow.mark_dirty($1, $2, $3, $4, $5, $6)",
            &[
                tenant.into(),
                meter.into(),
                stored.customer_id.as_str().into(),
                spi::time(hour_of(stored.at)),
                spi::time(hour_of(stored.at) + delta::HOUR),
                fenced.batch.into(),
            ],
            See::Write,
            |_| Ok(()),
        )?;
    }
    Ok(())
}

/// The stored event with the given fields over its own; the identity stays.
fn merge(stored: &Stored, transaction_id: &str, source: &str, changes: &str, limits: &Limits) -> Outcome<String> {
    // The parser wants identity fields; changes need not repeat them, so they are put in front, where theirs win.
    let body = changes
        .trim()
        .strip_prefix('{')
        .ok_or_else(|| Fail::parameter("the amended event must be a JSON object").detail(event::excerpt(changes)))?;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let separator = if body.trim_start().starts_with('}') { "" } else { "," };
    let whole = format!(
        "{{\"transaction_id\":{},\"source\":{},\"customer_id\":{},\"event_name\":{}{separator}{body}",
        quoted(transaction_id),
        quoted(source),
        quoted(&stored.customer_id),
        quoted(&stored.event_name)
    );
    let changed = event::parse(&whole, limits).map_err(refused)?;
    if changed.transaction_id != transaction_id || changed.source != source {
        return Err(Fail::parameter("an amendment can not change the identity of an event")
            .detail(format!("It would become transaction {:?} of source {:?}.", changed.transaction_id, changed.source))
            .hint("Void the event and ingest another."));
    }
    let names_properties = ["properties", "data", "quantity"].iter().any(|name| has_field(body, name));
    let Event { customer_id, event_name, timestamp, properties, .. } = changed;
    let at = timestamp.unwrap_or(stored.at);
    let time =
        jiff::Timestamp::from_microsecond(at).map_err(|_| Fail::parameter("the timestamp is beyond the calendar"))?;
    Ok(format!(
        "{{\"transaction_id\":{},\"source\":{},\"customer_id\":{},\"event_name\":{},\"timestamp\":\"{time}\",\"properties\":{}}}",
        quoted(transaction_id),
        quoted(source),
        quoted(&customer_id),
        quoted(&event_name),
        if names_properties { &*properties } else { &stored.properties }
    ))
}

fn has_field(body: &str, name: &str) -> bool {
    let object = format!("{{{body}");
    serde_json::from_str::<std::collections::BTreeMap<String, &serde_json::value::RawValue>>(&object)
        .is_ok_and(|fields| fields.contains_key(name))
}
