//! The fold: deltas of committed batches into rollups, exactly once, without a lock that writers feel.
//!
//! # Protocol (one transaction, one folder at a time by advisory lock)
//! 1. Note the dirty ranges that are visible now.
//! 2. S = last number drawn from `batch_seq`.
//! 3. `WaitForLockers(deltas)`: every batch numbered up to S took the fence before its number, so when its holders
//!    have ended each batch up to S is committed and visible, or gone. Writers that come later are not waited for,
//!    and no writer ever waits for us.
//! 4. With new snapshots: merge deltas with folded_batch < batch <= S into the rollups, and set folded_batch = S.
//! 5. Rebuild the dirty ranges of step 1 (`dirty.rs`), note whose usage that was (`touched.rs`), close days (`ladder.rs`),
//!    turn slots (`slots.rs`).
//!
//! # Invariant
//! In every snapshot, usage = rollups + deltas with batch > folded_batch. The commit of a fold moves batches from one
//! side to the other at once, so a reader counts each exactly once, whichever side of the commit its snapshot is on.
//!
//! # Crash behaviour
//! The transaction is gone, nothing has happened. A prepared or idle transaction that holds the fence only delays
//! folding: `status()` names it, reads stay exact.
//!
//! Proof: tests/isolation/specs/fold_ingest.spec, fold_read.spec; tests/client crash and oracle.

use pgrx::prelude::*;

use crate::core::delta;
use crate::core::state::{State, StateError};
use crate::pg::error::{Fail, Outcome, raise};
use crate::pg::lock::{check_for_interrupts, wait_for_lockers};
use crate::pg::session;
use crate::pg::spi::{self, See};

use super::store::Rollups;
use super::touched::Touched;
use super::{FoldState, dirty, enter, ladder, slots};

#[pg_extern(sql = "")]
fn fold(max_batches: i32) -> Option<bool> {
    raise(run(i64::from(max_batches.max(1))))
}

fn run(max_batches: i64) -> Outcome<Option<bool>> {
    let Some(_owner) = enter("fold")? else { return Ok(None) };
    let marks = dirty::marks()?;
    let drawn = last_batch()?;
    wait_for_lockers(session::relation("deltas")?, pg_sys::ShareLock);

    let before = FoldState::read(See::Write)?;
    let mut state = before;
    state.folded_batch = drawn.min(before.folded_batch.saturating_add(max_batches)).max(before.folded_batch);
    let mut more = state.folded_batch < drawn;
    if state.folded_batch > before.folded_batch || !marks.is_empty() {
        let mut touched = Touched::new()?;
        if state.folded_batch > before.folded_batch {
            state.folds += 1;
            merge_deltas(&before, &state, &mut touched)?;
        }
        if !more && !marks.is_empty() {
            more = dirty::rebuild(&marks, &state, &mut touched)?;
        }
        touched.tell()?;
    }
    ladder::close(&mut state, session::now())?;
    // An idle database must not use up a transaction id a second.
    if state != before {
        save(&before, &state)?;
    }
    slots::turn(&state)?;
    Ok(Some(more))
}

/// The last batch number anyone has drawn; 0 before the first.
fn last_batch() -> Outcome<i64> {
    let last = spi::one(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM meterflow.batch_seq",
        &[],
        See::Write,
        |row| row.int8(0),
    )?;
    Ok(last.unwrap_or(0))
}

fn merge_deltas(before: &FoldState, state: &FoldState, touched: &mut Touched) -> Outcome<()> {
    let mut rollups = Rollups::default();
    spi::stream(
        "SELECT tenant_id, entries FROM meterflow.deltas WHERE batch > $1 AND batch <= $2",
        &[before.folded_batch.into(), state.folded_batch.into()],
        See::Write,
        |row| {
            check_for_interrupts();
            let tenant = row.text(0)?;
            row.with_bytes(1, |customers| {
                for customer in delta::customers(customers) {
                    let (customer, packed) = customer?;
                    for entry in delta::entries(packed) {
                        let entry = entry?;
                        rollups.merge(
                            &tenant,
                            customer,
                            entry.meter,
                            entry.bucket,
                            entry.group,
                            State::decode(entry.state)?,
                        )?;
                    }
                }
                Ok(())
            })?
            .map_err(unreadable)
        },
    )?;
    touched.add(&rollups);
    rollups.write(state)
}

/// A stored state that can't be read or merged.
pub fn unreadable(error: StateError) -> Fail {
    Fail::corrupt("a stored usage state can not be used").detail(error.to_string())
}

fn save(before: &FoldState, state: &FoldState) -> Outcome<()> {
    spi::run(
        "UPDATE meterflow.fold_state s SET folded_batch = $2, folds = $3, folded_at = clock_timestamp(), closed_day = $4, \
                accepted = s.accepted + b.accepted, duplicates = s.duplicates + b.duplicates, failed = s.failed + b.failed \
           FROM (SELECT coalesce(sum(accepted), 0) AS accepted, coalesce(sum(duplicates), 0) AS duplicates, coalesce(sum(failed), 0) AS failed \
                   FROM meterflow.batches WHERE batch > $1 AND batch <= $2) b",
        &[before.folded_batch.into(), state.folded_batch.into(), state.folds.into(), spi::time(state.closed_day)],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(())
}
