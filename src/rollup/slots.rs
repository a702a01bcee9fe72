//! The four delta slots: how folded deltas are thrown away without reading them again.
//!
//! Writers append to the open slot named in `engine`. When it has grown, the folder names the next empty one; writers
//! that read the old name may still append to the old slot until they end, so it is *closed* only by the next fold,
//! whose wait has outlasted them and whose S covers all they wrote. (The next transaction's: folds in one transaction
//! change the open slot for nobody else until it commits, hence `left_xid`.) Once that fold's transaction is visible to every
//! snapshot in the cluster, no reader can need the slot's rows (they are at or below everyone's folded_batch) and it
//! is truncated. Deleting rows one by one instead would cost more than folding them.
//!
//! TRUNCATE is not MVCC-safe, hence the horizon. It covers this server, standbys with feedback, and slots. A standby
//! without feedback may hold an older snapshot: its reader compares `emptied_batch` with its own folded_batch and
//! refuses (usage/source.rs).
//!
//! # Crash behaviour
//! All of it is in the fold's transaction.
//!
//! Proof: tests/isolation/specs/slots.spec.

use pgrx::pg_sys;

use crate::pg::error::Outcome;
use crate::pg::lock::all_snapshots_see;
use crate::pg::session;
use crate::pg::spi::{self, See};

use super::FoldState;

/// Size at which the open slot is followed by the next, in bytes. A fold reads the open slot whole, so it should be
/// no more than a few folds' worth under load; 32 MB is some 150,000 rows, ten milliseconds.
const SLOT_BYTES: i64 = 32 * 1024 * 1024;

struct Slot {
    number: i16,
    closed_batch: Option<i64>,
    folded_xid: Option<i64>,
    /// Left by a transaction that has committed, so that nobody finds it named as the open one any more.
    left_before: bool,
    bytes: i64,
}

/// Moves every slot one step on, if it can.
pub fn turn(state: &FoldState) -> Outcome<()> {
    let mut slots = Vec::new();
    spi::run(
        "SELECT slot, closed_batch, folded_xid::text::bigint, coalesce(left_xid <> pg_catalog.pg_current_xact_id_if_assigned(), true), pg_catalog.pg_relation_size(('meterflow.deltas_' || slot)::regclass) \
           FROM meterflow.delta_slots ORDER BY slot",
        &[],
        See::Write,
        |row| {
            slots.push(Slot {
                number: row.require(0)?,
                closed_batch: row.get(1),
                folded_xid: row.get(2),
                left_before: row.bool(3)?,
                bytes: row.int8(4)?,
            });
            Ok(())
        },
    )?;
    let open: i16 =
        spi::one("SELECT open_slot FROM meterflow.engine", &[], See::Write, |row| row.require(0))?.unwrap_or(0);
    let deltas = session::relation("deltas")?;
    for slot in slots.iter().filter(|slot| slot.number != open && slot.bytes > 0) {
        step(slot, state, deltas)?;
    }
    let full = slots.iter().any(|slot| slot.number == open && slot.bytes > SLOT_BYTES);
    let next = (1..4).map(|n| (open + n) % 4).find(|n| slots.iter().any(|slot| slot.number == *n && slot.bytes == 0));
    if let (true, Some(next)) = (full, next) {
        spi::run("UPDATE meterflow.engine SET open_slot = $1", &[next.into()], See::Write, |_| Ok(()))?;
        spi::run(
            "UPDATE meterflow.delta_slots SET left_xid = pg_catalog.pg_current_xact_id() WHERE slot = $1",
            &[open.into()],
            See::Write,
            |_| Ok(()),
        )?;
    }
    Ok(())
}

fn step(slot: &Slot, state: &FoldState, deltas: pg_sys::Oid) -> Outcome<()> {
    match (slot.closed_batch, slot.folded_xid) {
        // Left by the fold before this one, or restored: this fold's wait has outlasted its last writer. The highest
        // number in it is read from it once; it is folded when folded_batch has reached that.
        (None, _) if slot.left_before => {
            spi::run(
                &format!(
                    "UPDATE meterflow.delta_slots SET closed_batch = (SELECT coalesce(max(batch), 0) FROM ONLY meterflow.deltas_{}) WHERE slot = $1",
                    slot.number
                ),
                &[slot.number.into()],
                See::Write,
                |_| Ok(()),
            )?;
        }
        (Some(closed), None) if closed <= state.folded_batch => {
            spi::run(
                "UPDATE meterflow.delta_slots SET folded_xid = pg_catalog.pg_current_xact_id() WHERE slot = $1",
                &[slot.number.into()],
                See::Write,
                |_| Ok(()),
            )?;
        }
        (Some(_), Some(xid)) if all_snapshots_see(xid.cast_unsigned(), deltas) => {
            spi::run(
                "UPDATE meterflow.delta_slots SET left_xid = NULL, closed_batch = NULL, folded_xid = NULL, emptied_batch = greatest(emptied_batch, closed_batch) \
                  WHERE slot = $1 AND meterflow.empty_slot(slot)",
                &[slot.number.into()],
                See::Write,
                |_| Ok(()),
            )?;
        }
        _ => {}
    }
    Ok(())
}
