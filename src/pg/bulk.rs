//! Many rows into one table in a few calls: `heap_multi_insert` and the table's indexes, without executor, SPI or
//! triggers. Only for the extension's own tables and partitions, whose columns are all NOT NULL.
//!
//! What this path leaves out is the caller's to know: privileges (checked by the verb), row-level security and
//! triggers (not applied to direct writes; the README says so).

use std::cell::RefCell;

use pgrx::pg_sys;

use super::error::{Fail, Outcome, SqlState};
use super::index::{Entries, Index, indexes_of};

/// Rows per `heap_multi_insert`: COPY's own figure; more only costs memory.
const ROWS_PER_CALL: usize = 1000;

/// A row whose key stands in a unique index is entered all the same, and said to be contested.
const CHECK: pg_sys::IndexUniqueCheck::Type = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_PARTIAL;

/// A table open for writing. The lock is held to the end of the transaction, the rest until drop.
pub struct Table {
    rel: pg_sys::Relation,
    indexes: Vec<Index>,
}

/// What to do about a row whose key another row has in a unique index. Rows are named by their position in the call.
pub trait Contest {
    /// The row is in: may it stay, since the others are none that count?
    fn may_stay(&mut self, row: usize, tid: pg_sys::ItemPointerData) -> Outcome<bool>;
    /// The row has been taken back: is its key taken for good? If not, the row is appended anew.
    fn is_lost(&mut self, row: usize) -> Outcome<bool>;
}

/// For tables without a unique index, or whose keys are unique by making: a contest is a fault.
pub struct Uncontested;

impl Contest for Uncontested {
    fn may_stay(&mut self, row: usize, _tid: pg_sys::ItemPointerData) -> Outcome<bool> {
        Err(Fail::corrupt("a key that is made only once stands in its table already").detail(format!("Row {row}.")))
    }

    fn is_lost(&mut self, _row: usize) -> Outcome<bool> {
        Ok(true)
    }
}

impl Table {
    pub fn open(oid: pg_sys::Oid) -> Outcome<Table> {
        // SAFETY: relations and index descriptions are opened here and closed in drop; IndexInfo lives in the
        // current memory context, which outlives the table.
        unsafe {
            let rel = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let mut table = Table { rel, indexes: Vec::new() };
            for index in indexes_of(rel).into_iter().filter_map(|oid| Index::open(oid)) {
                if index.entries() != Entries::All {
                    return Err(Fail::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, "ingest can not maintain an index on an expression, with a WHERE clause, or of a constraint that excludes or is deferred")
                        .detail(format!("Index \"{}\" is one.", index.name()))
                        .hint("Drop it; create it on closed partitions only, or index a copy of the data."));
                }
                table.indexes.push(index);
            }
            Ok(table)
        }
    }

    /// Appends rows given row by row in `values` (`width` datums each); says where each is, or None if it lost.
    ///
    /// A row that meets another with its key in a unique index is settled by `contest` before the next row enters the
    /// index; see `keys.rs` for what follows from that.
    pub fn append(
        &mut self,
        values: &[pg_sys::Datum],
        width: usize,
        contest: &mut impl Contest,
    ) -> Outcome<Vec<Option<pg_sys::ItemPointerData>>> {
        let mut tids = Vec::with_capacity(values.len() / width);
        for chunk in values.chunks(ROWS_PER_CALL * width) {
            let first = tids.len();
            SLOTS.with_borrow_mut(|pool| -> Outcome<()> {
                // SAFETY: rel is open and locked; slots match its columns (checked by SlotPool); datums are valid for
                // this call by contract of the callers, who keep arenas and contexts alive.
                unsafe {
                    let slots = pool.of((*self.rel).rd_att, width, chunk.len() / width)?;
                    for (row, &mut slot) in chunk.chunks_exact(width).zip(slots.iter_mut()) {
                        (*slot).tts_flags |= pg_sys::TTS_FLAG_EMPTY as u16;
                        std::ptr::copy_nonoverlapping(row.as_ptr(), (*slot).tts_values, width);
                        std::ptr::write_bytes((*slot).tts_isnull, 0, width);
                        pg_sys::ExecStoreVirtualTuple(slot);
                    }
                    let slots = &mut slots[..chunk.len() / width];
                    self.put(slots);
                    tids.extend(slots.iter().map(|&slot| Some((*slot).tts_tid)));
                    for index in &self.indexes {
                        for (i, row) in chunk.chunks_exact(width).enumerate() {
                            while let Some(tid) = tids[first + i] {
                                let nulls = (*slots[i]).tts_isnull;
                                if index.insert(self.rel, row.as_ptr(), nulls, tid, CHECK)
                                    || contest.may_stay(first + i, tid)?
                                {
                                    break;
                                }
                                self.retract(tid);
                                tids[first + i] = if contest.is_lost(first + i)? {
                                    None
                                } else {
                                    self.put(&mut slots[i..=i]);
                                    Some((*slots[i]).tts_tid)
                                };
                            }
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(tids)
    }

    /// Writes the rows in `slots` to the table, not yet to its indexes.
    ///
    /// SAFETY: the slots hold rows of this table.
    unsafe fn put(&self, slots: &mut [*mut pg_sys::TupleTableSlot]) {
        // SAFETY: by contract.
        unsafe {
            let cid = pg_sys::GetCurrentCommandId(true);
            pg_sys::heap_multi_insert(self.rel, slots.as_mut_ptr(), slots.len() as i32, cid, 0, std::ptr::null_mut());
        }
    }

    /// Takes back a row this transaction has appended.
    pub fn retract(&self, mut tid: pg_sys::ItemPointerData) {
        // SAFETY: the row is our own, so the delete neither waits nor fails; only a later command than the one that
        // made a row can delete it.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::simple_heap_delete(self.rel, &mut tid);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: closes what open opened. While an ERROR unwinds, the transaction's abort releases them instead.
        unsafe {
            if std::thread::panicking() {
                return;
            }
            self.indexes.clear();
            pg_sys::table_close(self.rel, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

thread_local! {
    static SLOTS: RefCell<SlotPool> = const { RefCell::new(SlotPool { shapes: Vec::new() }) };
}

/// Virtual tuple slots kept for the session, by row shape: making a thousand of them for every batch would cost
/// as much as a tenth of inserting the rows.
struct SlotPool {
    shapes: Vec<Shape>,
}

struct Shape {
    types: Vec<pg_sys::Oid>,
    desc: pg_sys::TupleDesc,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
}

impl SlotPool {
    /// SAFETY: `desc` is a valid descriptor.
    unsafe fn of(
        &mut self,
        desc: pg_sys::TupleDesc,
        width: usize,
        rows: usize,
    ) -> Outcome<&mut Vec<*mut pg_sys::TupleTableSlot>> {
        // SAFETY: attributes 0..natts of a descriptor are valid; slots live in TopMemoryContext with their own copy
        // of the descriptor, so that no relation's reference count is held between transactions.
        unsafe {
            let natts = (*desc).natts as usize;
            let types: Vec<pg_sys::Oid> = (0..natts).map(|i| attribute(desc, i).atttypid).collect();
            if natts != width || (0..natts).any(|i| attribute(desc, i).attisdropped) {
                return Err(Fail::new(
                    SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "a table of meterflow has other columns than its version defines",
                )
                .detail(format!("It has {natts} columns where {width} are written."))
                .hint("Drop the added columns: meterflow writes its tables directly."));
            }
            let at = match self.shapes.iter().position(|shape| shape.types == types) {
                Some(at) => at,
                None => {
                    let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
                    let copy = pg_sys::CreateTupleDescCopy(desc);
                    pg_sys::MemoryContextSwitchTo(previous);
                    self.shapes.push(Shape { types, desc: copy, slots: Vec::new() });
                    self.shapes.len() - 1
                }
            };
            let shape = &mut self.shapes[at];
            while shape.slots.len() < rows {
                let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
                shape.slots.push(pg_sys::MakeSingleTupleTableSlot(shape.desc, &pg_sys::TTSOpsVirtual));
                pg_sys::MemoryContextSwitchTo(previous);
            }
            Ok(&mut shape.slots)
        }
    }
}

/// Where columns of these names stand in a table.
///
/// SAFETY: `desc` is a valid descriptor.
pub(super) unsafe fn places(desc: pg_sys::TupleDesc, columns: &[&str]) -> Outcome<Vec<usize>> {
    // SAFETY: attributes 0..natts of a descriptor are valid, a name ends with a zero.
    let is = |place: usize, column: &str| unsafe {
        let attribute = attribute(desc, place);
        !attribute.attisdropped
            && std::ffi::CStr::from_ptr(attribute.attname.data.as_ptr()).to_bytes() == column.as_bytes()
    };
    // SAFETY: by contract.
    let natts = unsafe { (*desc).natts } as usize;
    let mut next = 0;
    let place = |column: &&str| {
        // Nearly always in the order of the table.
        let found = (next..natts).chain(0..next).find(|place| is(*place, column));
        next = found.map_or(0, |place| place + 1);
        found.ok_or_else(|| {
            Fail::new(SqlState::ERRCODE_UNDEFINED_COLUMN, "a table of meterflow lacks a column of its version")
                .detail(format!("The column is \"{column}\"."))
                .hint("ALTER EXTENSION meterflow UPDATE, or restore what was dropped by hand.")
        })
    };
    columns.iter().map(place).collect()
}

/// SAFETY: `i` is below natts. PostgreSQL 18 moved attributes behind a compact array; pgrx's helper knows both.
pub(super) unsafe fn attribute<'a>(desc: pg_sys::TupleDesc, i: usize) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: by contract.
    unsafe { &*tuple_attribute(desc, i) }
}

#[cfg(not(feature = "pg18"))]
unsafe fn tuple_attribute(desc: pg_sys::TupleDesc, i: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: attrs is an array of natts elements.
    unsafe { (*desc).attrs.as_ptr().add(i) }
}

#[cfg(feature = "pg18")]
unsafe fn tuple_attribute(desc: pg_sys::TupleDesc, i: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the full attributes follow the natts compact ones (TupleDescAttr in access/tupdesc.h).
    unsafe { (*desc).compact_attrs.as_ptr().add((*desc).natts as usize).cast::<pg_sys::FormData_pg_attribute>().add(i) }
}

/// Datums of fixed-size columns.
pub fn int8(value: i64) -> pg_sys::Datum {
    pg_sys::Datum::from(value)
}

pub fn int2(value: i16) -> pg_sys::Datum {
    pg_sys::Datum::from(value)
}

pub fn int4(value: i32) -> pg_sys::Datum {
    pg_sys::Datum::from(value)
}

/// A uuid datum; valid as long as the bytes are.
pub fn uuid(bytes: &[u8; 16]) -> pg_sys::Datum {
    pg_sys::Datum::from(bytes.as_ptr())
}

thread_local! {
    static BATCH_MEMORY: std::cell::Cell<pg_sys::MemoryContext> = const { std::cell::Cell::new(std::ptr::null_mut()) };
}

/// What the context keeps between batches, in bytes: a batch of a thousand rows fits, so that its memory is not given
/// back to the system and faulted in again each time (an eighth of all ingest time when it was).
const KEPT_BYTES: usize = 2 * 1024 * 1024;

/// Runs `work` in a memory context of its own, which is emptied afterwards.
pub fn in_batch_memory<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: the context lives as long as the backend; it is emptied before use, so what an ERROR left goes too.
    // `work` does not call itself in here: no verb ingests within a batch.
    unsafe {
        let mut context = BATCH_MEMORY.get();
        if context.is_null() {
            context = pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"meterflow batch".as_ptr(),
                KEPT_BYTES,
                KEPT_BYTES,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            BATCH_MEMORY.set(context);
        }
        pg_sys::MemoryContextReset(context);
        let previous = pg_sys::MemoryContextSwitchTo(context);
        let result = work();
        pg_sys::MemoryContextSwitchTo(previous);
        pg_sys::MemoryContextReset(context);
        result
    }
}
