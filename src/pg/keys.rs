//! Key generations: probing them, and deciding between rivals.
//!
//! A key row is (key uuid, payload int8, at timestamptz), unique by key. `probe` answers from the newest committed
//! state; `rival` settles a key that `Table::append` found contested.
//!
//! # Protocol
//! The btree shows an inserter every row with its key that is committed or in flight. Of two sessions that insert one
//! key, the later sees the earlier, so at most one of them is not contested. The contested one looks at all rows with that key,
//! whatever their transactions' state. One that is in flight and that its own transaction has deleted again does not
//! count: it is another contested session's. If no other is left, the row stays. Else it is deleted, and we look again:
//! - a committed one: the key is taken;
//! - one in flight that counts: wait for its transaction, and look again;
//! - none: the key is free, insert anew (and perhaps be contested again).
//!
//! # Why nobody waits in a circle
//! Who waits at a key holds no live row with it, and has deleted its row before it looked. If B waits for C, B looked
//! before C deleted; if C waited for B, C looked before B deleted; and each looks after its own deletion. Across keys,
//! all sessions take keys in sorted order. (Two batches of one transaction are not sorted together: such transactions
//! can deadlock, and PostgreSQL's detector ends one with 40P01.)
//!
//! Proof: tests/isolation/specs/same_key*.spec; tests/client oracle.

use pgrx::pg_sys;

use super::error::Outcome;
use super::scan::begin_scan;

/// What the key's first use recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    pub payload: i64,
    /// The time the event is stored under, Unix microseconds.
    pub at: i64,
}

/// What stands in the way of a key.
enum Seen {
    Nobody,
    Committed(Known),
    InFlight(pg_sys::TransactionId, pg_sys::ItemPointerData),
}

/// One generation, open for probing.
pub struct Generation {
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Generation {
    /// Opens the key table. The unique index is the only one the extension makes on it.
    pub fn open(oid: pg_sys::Oid) -> Outcome<Generation> {
        // SAFETY: opened here, closed in drop.
        unsafe {
            let heap = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let list = pg_sys::RelationGetIndexList(heap);
            let first = if list.is_null() { pg_sys::InvalidOid } else { (*(*list).elements).oid_value };
            pg_sys::list_free(list);
            let index = pg_sys::index_open(first, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let slot = pg_sys::table_slot_create(heap, std::ptr::null_mut());
            Ok(Generation { heap, index, slot })
        }
    }

    /// Looks up sorted `keys` as of the newest committed state (and our own writes); calls `found` for each hit.
    pub fn probe<'k>(&self, keys: impl Iterator<Item = (usize, &'k [u8; 16])>, mut found: impl FnMut(usize, Known)) {
        // SAFETY: the snapshot is pushed for the scan and popped after it; scan keys point at live key bytes.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            let scan = begin_scan(self.heap, self.index, pg_sys::GetActiveSnapshot(), 1);
            for (position, key) in keys {
                let mut scan_key = equals(key);
                pg_sys::index_rescan(scan, &mut scan_key, 1, std::ptr::null_mut(), 0);
                if pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, self.slot) {
                    found(position, self.current());
                }
            }
            pg_sys::index_endscan(scan);
            pg_sys::PopActiveSnapshot();
        }
    }

    /// Whether the key of our row at `ours` is held by no other row that counts.
    pub fn is_alone(&self, key: &[u8; 16], ours: pg_sys::ItemPointerData) -> bool {
        matches!(self.look(key, Some(ours)), Seen::Nobody)
    }

    /// The row that holds a contested key for good, or None once the key is free. Our own row with it must have been
    /// deleted before; waits for transactions that may yet roll back.
    pub fn rival(&self, key: &[u8; 16]) -> Option<Known> {
        loop {
            match self.look(key, None) {
                Seen::Nobody => return None,
                Seen::Committed(known) => return Some(known),
                // SAFETY: a wait for a transaction, with nothing of ours pinned.
                Seen::InFlight(xid, mut tid) => unsafe {
                    pg_sys::XactLockTableWait(xid, self.heap, &mut tid, pg_sys::XLTW_Oper::XLTW_InsertIndex);
                },
            }
        }
    }

    /// What counts among the rows with a key, whatever their transactions' state.
    fn look(&self, key: &[u8; 16], ours: Option<pg_sys::ItemPointerData>) -> Seen {
        // SAFETY: a dirty snapshot lives on the stack for the scan; the slot is cleared before we return.
        unsafe {
            let mut dirty: pg_sys::SnapshotData = std::mem::zeroed();
            dirty.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_DIRTY;
            let scan = begin_scan(self.heap, self.index, &mut dirty, 1);
            let mut scan_key = equals(key);
            pg_sys::index_rescan(scan, &mut scan_key, 1, std::ptr::null_mut(), 0);
            let mut seen = Seen::Nobody;
            while pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, self.slot) {
                let tid = (*self.slot).tts_tid;
                if ours.is_some_and(|ours| same_tid(ours, tid)) {
                    continue;
                }
                // A dirty snapshot reports in xmin an inserter in flight, in xmax a deleter in flight.
                let in_flight = if dirty.xmin != pg_sys::InvalidTransactionId { dirty.xmin } else { dirty.xmax };
                if in_flight == pg_sys::InvalidTransactionId {
                    seen = Seen::Committed(self.current());
                    break;
                }
                if !deleted_by_its_inserter(self.slot) {
                    seen = Seen::InFlight(in_flight, tid);
                }
            }
            pg_sys::index_endscan(scan);
            clear(self.slot);
            seen
        }
    }

    /// SAFETY: the slot holds a row of this table.
    unsafe fn current(&self) -> Known {
        // SAFETY: columns 2 and 3 are NOT NULL and eight bytes by value.
        unsafe {
            pg_sys::slot_getsomeattrs_int(self.slot, 3);
            let values = (*self.slot).tts_values;
            Known {
                payload: (*values.add(1)).value() as i64,
                at: super::datum::unix_micros((*values.add(2)).value() as i64),
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // SAFETY: closes what open opened; while an ERROR unwinds, the transaction's abort does it.
        unsafe {
            if std::thread::panicking() {
                return;
            }
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::index_close(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::table_close(self.heap, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

/// SAFETY: the key must outlive the scan key.
unsafe fn equals(key: &[u8; 16]) -> pg_sys::ScanKeyData {
    // SAFETY: ScanKeyInit fills the whole struct.
    unsafe {
        let mut scan_key: pg_sys::ScanKeyData = std::mem::zeroed();
        pg_sys::ScanKeyInit(
            &mut scan_key,
            1,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(pg_sys::F_UUID_EQ),
            pg_sys::Datum::from(key.as_ptr()),
        );
        scan_key
    }
}

/// Lets go of the page a slot has pinned: nobody should wait for a transaction with a page in hand.
///
/// SAFETY: the slot is one of table_slot_create.
unsafe fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: every kind of slot has a clear callback.
    unsafe {
        if let Some(clear) = (*(*slot).tts_ops).clear {
            clear(slot);
        }
    }
}

/// Whether a row in flight has been deleted by the transaction that inserted it. A dirty snapshot does not say: it looks
/// no further than the inserter.
///
/// SAFETY: the slot holds a heap tuple, on a page it has pinned.
unsafe fn deleted_by_its_inserter(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: a slot of table_slot_create on a heap is a BufferHeapTupleTableSlot. The header may be changing under us;
    // each field is read once, and a deletion we miss only makes us wait for its transaction.
    unsafe {
        let tuple = (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tuple;
        let header = (*tuple).t_data;
        let no_deleter = (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) as u16;
        let heap = (*header).t_choice.t_heap;
        (*header).t_infomask & no_deleter == 0 && heap.t_xmax == heap.t_xmin
    }
}

fn same_tid(a: pg_sys::ItemPointerData, b: pg_sys::ItemPointerData) -> bool {
    a.ip_posid == b.ip_posid && a.ip_blkid.bi_hi == b.ip_blkid.bi_hi && a.ip_blkid.bi_lo == b.ip_blkid.bi_lo
}
