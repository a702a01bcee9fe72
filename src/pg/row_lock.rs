//! Rows locked by their keys, without a plan: what SELECT FOR NO KEY UPDATE does, of a row that is known by its key.
//!
//! # What stays as in a query
//! Whoever comes later waits, in a queue of the row; a deadlock is found, lock_timeout and cancelling work. Under READ
//! COMMITTED a row that has changed while we waited is looked for again, in a new snapshot; above it, that is a
//! serialization error. The table is locked as for the change that follows. Where the caller may not lock the whole table,
//! or a policy applies, it is such a query.
//!
//! Proof: tests/isolation/specs/hold_*.spec, debit_*.spec, transfer_crossed.spec.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

use super::error::{Fail, Outcome, SqlState};
use super::lock;
use super::scan;
use super::spi::{self, Row, See};
use super::write::{Deed, Plan, Target, find};

impl Target {
    /// Locks rows by their keys, one after the other, for the rest of the transaction, as SELECT FOR NO KEY UPDATE does,
    /// until one is not there. `each` gets what the columns of each are now, in the order in which the target names them.
    pub fn lock<'k, const KEYS: usize>(
        &'static self,
        keys: impl IntoIterator<Item = [scan::Value<'k>; KEYS]>,
        mut each: impl FnMut(&Row<'_>) -> Outcome<()>,
    ) -> Outcome<()> {
        let Some((plan, rel)) = Plan::open(self, Deed::Update(&[]), pg_sys::RowExclusiveLock)? else {
            let terms: Vec<String> =
                self.key.iter().enumerate().map(|(n, column)| format!("{column} = ${}", n + 1)).collect();
            let columns: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
            let (columns, terms) = (columns.join(", "), terms.join(" AND "));
            let sql = format!("SELECT {columns} FROM meterflow.{} WHERE {terms} FOR NO KEY UPDATE", self.name);
            for key in keys {
                let args: Vec<DatumWithOid<'_>> = key.iter().map(scan::argument).collect();
                if spi::run(&sql, &args, See::Write, &mut each)? == 0 {
                    break;
                }
            }
            return Ok(());
        };
        // SAFETY: what is opened is closed here, or by the abort that an ERROR leads to.
        unsafe {
            pg_sys::PreventCommandIfReadOnly(c"SELECT FOR NO KEY UPDATE".as_ptr());
            let index = pg_sys::index_open(plan.index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let slot = pg_sys::table_slot_create(rel, std::ptr::null_mut());
            for key in keys {
                if !lock_row(rel, index, slot, &key)? {
                    break;
                }
                plan.with_row(rel, slot, &mut each)?;
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::table_close(rel, pg_sys::NoLock as pg_sys::LOCKMODE);
            Ok(())
        }
    }
}

/// Locks the row with a key, waiting for whoever has it; false: there is none. Then the slot has it, pinned.
///
/// SAFETY: the relations are open, and the slot is of the table.
unsafe fn lock_row(
    rel: pg_sys::Relation,
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    key: &[scan::Value<'_>],
) -> Outcome<bool> {
    loop {
        lock::command_done();
        // SAFETY: the snapshot is in use while it is pushed, the scan ends before. The tuple's header lives while it is asked
        // for, and the buffer that comes back pinned is released.
        let result = unsafe {
            // Under READ COMMITTED a new one; above it that of the transaction, beyond which nothing may have changed.
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let scan = scan::begin_scan(rel, index, pg_sys::GetActiveSnapshot(), key.len() as i32);
            let there = find(scan, slot, key);
            let mut tuple = pg_sys::HeapTupleData { t_self: (*slot).tts_tid, ..Default::default() };
            pg_sys::index_endscan(scan);
            pg_sys::PopActiveSnapshot();
            if !there {
                return Ok(false);
            }
            let (mut buffer, mut failure) = (0, pg_sys::TM_FailureData::default());
            let result = pg_sys::heap_lock_tuple(
                rel,
                &mut tuple,
                pg_sys::GetCurrentCommandId(true),
                pg_sys::LockTupleMode::LockTupleNoKeyExclusive,
                pg_sys::LockWaitPolicy::LockWaitBlock,
                false,
                &mut buffer,
                &mut failure,
            );
            pg_sys::ReleaseBuffer(buffer);
            result
        };
        match result {
            pg_sys::TM_Result::TM_Ok => return Ok(true),
            // By another transaction, while we waited for it.
            pg_sys::TM_Result::TM_Updated | pg_sys::TM_Result::TM_Deleted if lock::is_read_committed() => {}
            pg_sys::TM_Result::TM_Updated | pg_sys::TM_Result::TM_Deleted => {
                return Err(Fail::new(
                    SqlState::ERRCODE_T_R_SERIALIZATION_FAILURE,
                    "could not serialize access due to concurrent update",
                )
                .hint("Retry the transaction."));
            }
            other => return Err(Fail::corrupt(format!("a row that is there can not be locked: {other}"))),
        }
    }
}
