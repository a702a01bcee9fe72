//! The asynchronous door: rows COPYed into `inbox` go through ingest later, exactly once.
//!
//! A drain deletes rows and ingests them in one transaction: a crash or an ERROR leaves them where they were. One
//! drain works at a time, and a second finds nothing to do: locking row by row so that two could share the work took
//! as long as ingesting them. A line that is no event becomes a rejected event; it can't block the rest.
//!
//! Proof: tests/isolation/specs/drain.spec.

use std::cell::Cell;

use pgrx::prelude::*;

use crate::core::event;
use crate::pg::error::{Outcome, raise};
use crate::pg::lock;
use crate::pg::session::{self, AsOwner};
use crate::pg::spi::{self, See};

use super::batch::{self, Rejects, Source};

#[pg_extern(sql = "")]
fn drain_inbox(max_rows: i32) -> i64 {
    raise(drain(max_rows))
}

thread_local! {
    /// Block to go on from. Deleted rows stay until VACUUM: to begin at the first block each time would read all of a
    /// backlog again for every part of it.
    static RESUME_AT: Cell<i64> = const { Cell::new(0) };
}

/// Deletes up to `max_rows` rows from a block on; returns the last block it took a row from.
fn take(max_rows: i32, from_block: i64, rows: &mut Vec<(String, i64, String)>) -> Outcome<i64> {
    let mut last_block = from_block;
    spi::run(
        "DELETE FROM meterflow.inbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM meterflow.inbox WHERE ctid >= $2::tid LIMIT $1)) \
         RETURNING tenant_id, received_at, event, ctid",
        &[i64::from(max_rows).into(), format!("({from_block},0)").into()],
        See::Write,
        |row| {
            let place: pg_sys::ItemPointerData = row.require(3)?;
            last_block = last_block.max(i64::from(place.ip_blkid.bi_hi) << 16 | i64::from(place.ip_blkid.bi_lo));
            rows.push((row.text(0)?, row.time(1)?, row.text(2)?));
            Ok(())
        },
    )?;
    Ok(last_block)
}

fn drain(max_rows: i32) -> Outcome<i64> {
    let max_rows = max_rows.max(1);
    let inbox = session::relation("inbox")?;
    let _owner = AsOwner::of(inbox, pg_sys::ACL_INSERT, "drain_inbox")?;
    if !lock::alone_at(inbox)? {
        return Ok(0);
    }
    let mut rows: Vec<(String, i64, String)> = Vec::new();
    let start = RESUME_AT.get();
    let mut next = take(max_rows, start, &mut rows)?;
    if start > 0 && rows.len() < max_rows as usize {
        // Behind where we began there may be room that VACUUM has freed and COPY has filled.
        next = take(max_rows - rows.len() as i32, 0, &mut rows)?;
    }
    RESUME_AT.set(if rows.len() < max_rows as usize { 0 } else { next });
    // Stable: rows of a tenant stay in the order they were read.
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    for tenant_rows in rows.chunk_by(|a, b| a.0 == b.0) {
        let mut sources = Vec::with_capacity(tenant_rows.len());
        for (_, received_at, text) in tenant_rows {
            match event::split(text) {
                Ok(raws) => sources.extend(raws.into_iter().map(|raw| Source::Inbox(raw.get(), *received_at))),
                // Not JSON: as one event it fails with that message and is kept.
                Err(_) => sources.push(Source::Inbox(text, *received_at)),
            }
        }
        batch::ingest(&tenant_rows[0].0, &sources, session::now(), Rejects::Keep)?;
    }
    Ok(rows.len() as i64)
}
