//! Rows of the extension's own tables, written one by one with all their indexes, but without a plan. Of the time that
//! an INSERT of one row takes as a query, most goes into making it ready: each time the executor starts, it reads the
//! table's constraints from text. And where rows are found by joining a list, a plan made when the table was small goes
//! through all of it for ever.
//!
//! # What a query does instead
//! `Writer::open` gives none, and the same row is written by a query,
//! - where the caller may not write the whole table: the query knows of columns, and says no as queries do;
//! - where a policy applies to the caller, or a trigger to what is done;
//! - where the table has a column that its version of meterflow does not know.
//!
//! # What stays as in a query
//! Locks, identities, indexes (unique ones wait and raise their error), TOAST, WAL, what a standby and a subscription see,
//! serializable's checks, statistics.
//!
//! # What is left out
//! CHECK and NOT NULL. Verbs compute what is written here, and what they compute meets them; the proof is
//! tests/pg_regress/sql/71_ledger_writes.sql, which has the same rows written by queries, under a trigger, and compares.

use std::cell::RefCell;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

use super::bulk;
use super::cell::{Cell, Kind};
use super::error::Outcome;
use super::index::{Entries, Index, indexes_of};
use super::lock;
use super::scan;
use super::session::{self, Reach};
use super::spi::{self, Row, See, Tid};

/// A table that is written to.
pub struct Target {
    pub name: &'static str,
    /// All columns that it has.
    pub columns: &'static [(&'static str, Kind)],
    /// The index that finds a row, and its columns.
    pub index: &'static str,
    pub key: &'static [&'static str],
}

/// Which row: the one with a key. Where it was read last, under the lock that keeps others from changing it, it is looked for
/// first; this transaction may have changed it since.
pub struct At<'k, const KEYS: usize> {
    pub key: [scan::Value<'k>; KEYS],
    pub read_at: Option<Tid>,
}

/// What is done to a table.
#[derive(Clone, Copy)]
pub(super) enum Deed {
    Insert,
    /// Of these columns.
    Update(&'static [&'static str]),
}

impl Target {
    /// Inserts rows, each with a value for every column.
    pub fn insert<'a, const WIDTH: usize>(
        &'static self,
        rows: impl IntoIterator<Item = [Cell<'a>; WIDTH]>,
    ) -> Outcome<()> {
        debug_assert!(WIDTH == self.columns.len());
        match Writer::open(self, Deed::Insert)? {
            Some(mut writer) => rows.into_iter().for_each(|row| writer.insert(&row)),
            None => {
                let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
                let values: Vec<String> = (1..=WIDTH).map(|n| format!("${n}")).collect();
                let sql = format!(
                    "INSERT INTO meterflow.{} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
                    self.name,
                    names.join(", "),
                    values.join(", ")
                );
                for row in rows {
                    let args: Vec<DatumWithOid<'_>> =
                        row.iter().zip(self.columns).map(|(cell, (_, kind))| cell.argument(*kind)).collect();
                    spi::run(&sql, &args, See::Write, |_| Ok(()))?;
                }
            }
        }
        Ok(())
    }

    /// Changes columns of rows, each once, that nobody else may change: `change` gets what comes with the row's place and
    /// what its columns are now, in the order in which the target names them. Returns how many rows were there.
    pub fn update<'k, 'c, T, const KEYS: usize, const CHANGES: usize>(
        &'static self,
        columns: &'static [&'static str],
        rows: impl IntoIterator<Item = (At<'k, KEYS>, T)>,
        mut change: impl FnMut(T, &Row<'_>) -> Outcome<[Cell<'c>; CHANGES]>,
    ) -> Outcome<u64> {
        debug_assert!(KEYS == self.key.len() && CHANGES == columns.len());
        let mut changed = 0;
        match Writer::open(self, Deed::Update(columns))? {
            Some(mut writer) => {
                for (at, what) in rows {
                    changed += u64::from(writer.update(&at, |row| change(what, row))?);
                }
            }
            None => {
                let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
                let by = |first: usize| -> String {
                    let terms = self.key.iter().enumerate().map(|(n, column)| format!("{column} = ${}", first + n));
                    terms.collect::<Vec<_>>().join(" AND ")
                };
                let read = format!("SELECT {} FROM meterflow.{} WHERE {}", names.join(", "), self.name, by(1));
                let sets: Vec<String> =
                    columns.iter().enumerate().map(|(n, column)| format!("{column} = ${}", n + 1)).collect();
                let write =
                    format!("UPDATE meterflow.{} SET {} WHERE {}", self.name, sets.join(", "), by(columns.len() + 1));
                for (At { key, .. }, what) in rows {
                    let args: Vec<DatumWithOid<'_>> = key.iter().map(scan::argument).collect();
                    let mut what = Some(what);
                    let cells = spi::one(&read, &args, See::Write, |row| {
                        what.take().map(|what| change(what, row)).transpose()
                    })?;
                    let Some(cells) = cells.flatten() else { continue };
                    let kinds = columns.iter().filter_map(|name| self.columns.iter().find(|(known, _)| known == name));
                    let mut args: Vec<DatumWithOid<'_>> =
                        cells.iter().zip(kinds).map(|(cell, (_, kind))| cell.argument(*kind)).collect();
                    args.extend(key.iter().map(scan::argument));
                    changed += spi::run(&write, &args, See::Write, |_| Ok(()))?;
                }
            }
        }
        Ok(changed)
    }
}

/// Finds the row with a key. It stays in the slot, pinned, until the next.
///
/// SAFETY: the scan is open, with room for the key, and the slot is of its table.
pub(super) unsafe fn find(
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    key: &[scan::Value<'_>],
) -> bool {
    // SAFETY: by contract; a rescan copies the keys, and the texts they point to outlive it in the current context.
    unsafe {
        let keys: Vec<pg_sys::ScanKeyData> =
            key.iter().enumerate().map(|(n, value)| scan::scan_key(&(n, scan::Is::Equal, *value))).collect();
        pg_sys::index_rescan(scan, keys.as_ptr().cast_mut(), keys.len() as i32, std::ptr::null_mut(), 0);
        pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot)
    }
}

/// What a deed takes, found out once.
#[derive(Clone)]
pub(super) struct Plan {
    rel: pg_sys::Oid,
    /// The index that finds a row.
    pub index: pg_sys::Oid,
    /// Where the target's columns stand, and which of these change.
    places: Rc<[usize]>,
    changes: Rc<[usize]>,
    /// What enters which index.
    entries: Rc<[(pg_sys::Oid, Entries)]>,
    /// It is for a query to do: the caller may not do it to the whole table, that has other columns, or a trigger would fire.
    by_query: bool,
}

thread_local! {
    /// By target and deed, and by whom it is to be done.
    static PLANS: session::Kept<(*const Target, (u8, *const [&'static str]), pg_sys::Oid), Plan> = RefCell::default();
}

impl Plan {
    fn of(target: &'static Target, deed: Deed) -> Outcome<Plan> {
        let key = match deed {
            Deed::Insert => (0, &[] as *const [&'static str]),
            Deed::Update(columns) => (1, std::ptr::from_ref(columns)),
        };
        let key = (std::ptr::from_ref(target), key, session::current_user());
        PLANS.with(|cache| session::of_relations(cache, key, || Plan::find(target, deed)))
    }

    /// With the table open; None: it is for a query to do.
    pub fn open(target: &'static Target, deed: Deed, mode: u32) -> Outcome<Option<(Plan, pg_sys::Relation)>> {
        // Again when the lock has brought news, as for reading.
        loop {
            let plan = Plan::of(target, deed)?;
            if plan.by_query {
                return Ok(None);
            }
            // SAFETY: the caller closes it, or the abort that an ERROR leads to; or it is closed here, and its lock stays.
            unsafe {
                let rel = pg_sys::table_open(plan.rel, mode as pg_sys::LOCKMODE);
                if !session::has_heard() {
                    return Ok(Some((plan, rel)));
                }
                pg_sys::table_close(rel, pg_sys::NoLock as pg_sys::LOCKMODE);
            }
        }
    }

    /// Hands over the row in a slot, by the target's columns.
    ///
    /// SAFETY: the slot has a row of the table, which is open.
    pub unsafe fn with_row<T>(
        &self,
        rel: pg_sys::Relation,
        slot: *mut pg_sys::TupleTableSlot,
        each: impl FnOnce(&Row<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        // SAFETY: by contract; what a slot has of a row lives until it takes the next.
        unsafe {
            pg_sys::slot_getsomeattrs_int(slot, (*(*rel).rd_att).natts.into());
            let column = |place: &usize| (*(*slot).tts_values.add(*place), *(*slot).tts_isnull.add(*place));
            let (values, nulls): (Vec<pg_sys::Datum>, Vec<bool>) = self.places.iter().map(column).unzip();
            each(&Row::of(&values, &nulls).at((*slot).tts_tid))
        }
    }

    fn find(target: &Target, deed: Deed) -> Outcome<(Plan, bool)> {
        let (rights, columns): (u32, &[&str]) = match deed {
            Deed::Insert => (pg_sys::ACL_INSERT, &[]),
            Deed::Update(columns) => (pg_sys::ACL_UPDATE | pg_sys::ACL_SELECT, columns),
        };
        let (whole, keeps) = match session::reach(target.name, rights)? {
            Reach::All { keeps } => (true, keeps),
            Reach::ByPolicy => (false, false),
            Reach::Less => (false, true),
        };
        let (rel, index) = (session::relation(target.name)?, session::relation(target.index)?);
        let names: Vec<&str> = target.columns.iter().map(|(name, _)| *name).collect();
        // SAFETY: the table is open while it is asked; it is closed here, or by the abort that an ERROR leads to.
        let (plan, complete) = unsafe {
            let open = pg_sys::table_open(rel, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let desc = (*open).rd_att;
            let of_kind =
                |(place, column): (&usize, &(&str, Kind))| bulk::attribute(desc, *place).atttypid == column.1.oid();
            let places = bulk::places(desc, &names).unwrap_or_default();
            let as_known = (*desc).natts as usize == places.len() && places.iter().zip(target.columns).all(of_kind);
            let mut entries = Vec::new();
            let oids = indexes_of(open);
            for oid in &oids {
                entries.extend(Index::open(*oid).map(|index| (*oid, index.entries())));
            }
            // One that takes no entries yet will.
            let complete = entries.len() == oids.len();
            let plan = Plan {
                rel,
                index,
                places: places.into(),
                changes: bulk::places(desc, columns)?.into(),
                entries: entries.into(),
                by_query: !whole || !as_known || has_trigger(open, deed),
            };
            pg_sys::table_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
            (plan, complete)
        };
        Ok((plan, keeps && complete))
    }
}

struct Writer {
    rel: pg_sys::Relation,
    plan: Plan,
    indexes: Option<Indexes>,
    /// A row to be written, and one to be replaced.
    slot: *mut pg_sys::TupleTableSlot,
    found: *mut pg_sys::TupleTableSlot,
    finder: Option<Finder>,
}

/// What finds rows by their key, as they were when it was made.
struct Finder {
    snapshot: pg_sys::Snapshot,
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
}

/// What enters a row into all indexes of its table. Most updates need none: they are made only when one does.
enum Indexes {
    /// One by one, each opened for the first row that belongs into it; None: not yet.
    Plain(Vec<Option<Index>>),
    /// By the executor, which knows of all there are.
    Complex(Executor),
}

struct Executor {
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
}

impl Writer {
    fn open(target: &'static Target, deed: Deed) -> Outcome<Option<Writer>> {
        let Some((plan, rel)) = Plan::open(target, deed, pg_sys::RowExclusiveLock)? else { return Ok(None) };
        // SAFETY: the relation and the slots are open until drop closes them, or the abort that an ERROR leads to.
        unsafe {
            pg_sys::PreventCommandIfReadOnly(if matches!(deed, Deed::Insert) { c"INSERT" } else { c"UPDATE" }.as_ptr());
            let slot = pg_sys::MakeSingleTupleTableSlot((*rel).rd_att, &pg_sys::TTSOpsVirtual);
            let found = match deed {
                Deed::Insert => std::ptr::null_mut(),
                Deed::Update(_) => pg_sys::table_slot_create(rel, std::ptr::null_mut()),
            };
            Ok(Some(Writer { rel, plan, indexes: None, slot, found, finder: None }))
        }
    }

    fn insert(&mut self, row: &[Cell<'_>]) {
        // SAFETY: the slot has room for all columns of the table, of which each gets a value or a null; datums live in the
        // current memory context until the tuple is made of them.
        unsafe {
            self.empty();
            for (cell, place) in row.iter().zip(self.plan.places.iter()) {
                *(*self.slot).tts_isnull.add(*place) = matches!(cell, Cell::Null);
                *(*self.slot).tts_values.add(*place) = cell.datum();
            }
            pg_sys::ExecStoreVirtualTuple(self.slot);
            pg_sys::simple_table_tuple_insert(self.rel, self.slot);
            self.index(false, false);
        }
    }

    /// Whether there is such a row.
    fn update<'c, const KEYS: usize, const CHANGES: usize>(
        &mut self,
        at: &At<'_, KEYS>,
        change: impl FnOnce(&Row<'_>) -> Outcome<[Cell<'c>; CHANGES]>,
    ) -> Outcome<bool> {
        // SAFETY: the row that is found stays pinned in its slot until the new one has been made of its values and the datums.
        unsafe {
            if !self.find(at) {
                return Ok(false);
            }
            let found = self.found;
            let cells = self.plan.with_row(self.rel, found, change)?;
            let width = (*(*self.rel).rd_att).natts as usize;
            self.empty();
            std::ptr::copy_nonoverlapping((*found).tts_values, (*self.slot).tts_values, width);
            std::ptr::copy_nonoverlapping((*found).tts_isnull, (*self.slot).tts_isnull, width);
            for (cell, place) in cells.iter().zip(self.plan.changes.iter()) {
                *(*self.slot).tts_isnull.add(*place) = matches!(cell, Cell::Null);
                *(*self.slot).tts_values.add(*place) = cell.datum();
            }
            pg_sys::ExecStoreVirtualTuple(self.slot);
            self.replace(&raw mut (*found).tts_tid);
            Ok(true)
        }
    }

    /// Finds a row to be replaced.
    ///
    /// SAFETY: the writer is one for updates.
    unsafe fn find<const KEYS: usize>(&mut self, at: &At<'_, KEYS>) -> bool {
        // SAFETY: by contract. What was read there is still the row, unless this transaction has changed it since: then
        // SnapshotSelf does not see that version, and the key tells.
        unsafe {
            if let Some(Tid(mut tid)) = at.read_at {
                let fetch = (*(*self.rel).rd_tableam).tuple_fetch_row_version;
                let seen = &raw mut pg_sys::SnapshotSelfData;
                if fetch.is_some_and(|fetch| fetch(self.rel, &mut tid, seen, self.found)) {
                    return true;
                }
            }
            let finder = match self.finder.take() {
                Some(finder) => finder,
                None => Finder::open(self.rel, self.plan.index, at.key.len()),
            };
            let there = find(finder.scan, self.found, &at.key);
            self.finder = Some(finder);
            there
        }
    }

    /// Puts the row of the slot in the place of another.
    ///
    /// SAFETY: the slot holds a row of the table, and nobody else may change the one at `tid`.
    unsafe fn replace(&mut self, tid: pg_sys::ItemPointer) {
        // SAFETY: by contract. Before PostgreSQL 16, indexes were all concerned or none.
        unsafe {
            let snapshot = pg_sys::GetActiveSnapshot();
            #[cfg(feature = "pg15")]
            {
                let mut concerned = false;
                pg_sys::simple_table_tuple_update(self.rel, tid, self.slot, snapshot, &mut concerned);
                if concerned {
                    self.index(true, false);
                }
            }
            #[cfg(not(feature = "pg15"))]
            {
                let mut concerned = pg_sys::TU_UpdateIndexes::TU_None;
                pg_sys::simple_table_tuple_update(self.rel, tid, self.slot, snapshot, &mut concerned);
                if concerned != pg_sys::TU_UpdateIndexes::TU_None {
                    self.index(true, concerned == pg_sys::TU_UpdateIndexes::TU_Summarizing);
                }
            }
        }
    }

    /// Enters the row of the slot into the table's indexes.
    ///
    /// SAFETY: the row has just been written.
    unsafe fn index(&mut self, update: bool, only_summarizing: bool) {
        let rel = self.rel;
        let entries = &self.plan.entries;
        // SAFETY: the relation is open and stays so; by contract.
        unsafe {
            let of_all = update || entries.iter().any(|(_, entries)| *entries == Entries::Complex);
            let indexes = self.indexes.get_or_insert_with(|| {
                if of_all {
                    Indexes::Complex(Executor::of(rel))
                } else {
                    Indexes::Plain(entries.iter().map(|_| None).collect())
                }
            });
            let opened = match indexes {
                Indexes::Complex(executor) => return executor.enter(self.slot, update, only_summarizing),
                Indexes::Plain(opened) => opened,
            };
            for (index, (oid, entries)) in opened.iter_mut().zip(entries.iter()) {
                let (values, nulls) = ((*self.slot).tts_values, (*self.slot).tts_isnull);
                if matches!(*entries, Entries::NotNull(column) if *nulls.add(column)) {
                    continue;
                }
                if index.is_none() {
                    *index = Index::open(*oid);
                }
                if let Some(index) = index {
                    let check = pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES;
                    index.insert(rel, values, nulls, (*self.slot).tts_tid, check);
                }
            }
        }
    }

    /// SAFETY: the slot is a virtual one: what it points to is not its own.
    unsafe fn empty(&mut self) {
        // SAFETY: by contract; a virtual slot has a clear callback like any other.
        unsafe {
            if let Some(clear) = (*(*self.slot).tts_ops).clear {
                clear(self.slot);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: closes what open opened; while an ERROR unwinds, the transaction's abort does it.
        unsafe {
            if std::thread::panicking() {
                return;
            }
            (self.indexes, self.finder) = (None, None);
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            if !self.found.is_null() {
                pg_sys::ExecDropSingleTupleTableSlot(self.found);
            }
            pg_sys::table_close(self.rel, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

impl Finder {
    /// SAFETY: the relation is open, and closed only after this.
    unsafe fn open(rel: pg_sys::Relation, index: pg_sys::Oid, keys: usize) -> Finder {
        // What this transaction has written before is to be found.
        lock::command_done();
        // SAFETY: by contract; closed in drop, or by the abort that an ERROR leads to.
        unsafe {
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let scan = scan::begin_scan(rel, index, snapshot, keys as i32);
            Finder { snapshot, index, scan }
        }
    }
}

impl Drop for Finder {
    fn drop(&mut self) {
        // SAFETY: closes what `open` opened; while an ERROR unwinds, the transaction's abort does it.
        unsafe {
            if !std::thread::panicking() {
                pg_sys::index_endscan(self.scan);
                pg_sys::UnregisterSnapshot(self.snapshot);
                pg_sys::index_close(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
            }
        }
    }
}

impl Executor {
    /// SAFETY: the relation is open, and closed only after this.
    unsafe fn of(rel: pg_sys::Relation) -> Executor {
        // SAFETY: by contract; closed in drop, or by the abort that an ERROR leads to. A ResultRelInfo that stands in no
        // range table is what triggers on other tables and subscriptions use.
        unsafe {
            let estate = pg_sys::CreateExecutorState();
            let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let result: *mut pg_sys::ResultRelInfo = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast();
            pg_sys::InitResultRelInfo(result, rel, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(result, false);
            pg_sys::MemoryContextSwitchTo(previous);
            Executor { estate, result }
        }
    }

    /// SAFETY: the slot holds a row that has just been written to the table.
    unsafe fn enter(&mut self, slot: *mut pg_sys::TupleTableSlot, update: bool, only_summarizing: bool) {
        let (no_conflict, no_arbiters) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: by contract; without arbiters a row that a unique index has already is an ERROR, and no list comes back
        // but of deferred constraints, which ours are not. What predicates allocate goes with the row.
        unsafe {
            #[cfg(feature = "pg15")]
            {
                let _ = only_summarizing;
                pg_sys::ExecInsertIndexTuples(self.result, slot, self.estate, update, false, no_conflict, no_arbiters);
            }
            #[cfg(not(feature = "pg15"))]
            pg_sys::ExecInsertIndexTuples(
                self.result,
                slot,
                self.estate,
                update,
                false,
                no_conflict,
                no_arbiters,
                only_summarizing,
            );
            let context = (*self.estate).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // SAFETY: closes what `of` opened; while an ERROR unwinds, the transaction's abort does it.
        unsafe {
            if !std::thread::panicking() {
                pg_sys::ExecCloseIndices(self.result);
                pg_sys::FreeExecutorState(self.estate);
            }
        }
    }
}

/// Whether a trigger would fire. Ours that keep facts from being changed are for columns that no verb changes.
///
/// SAFETY: the relation is open.
unsafe fn has_trigger(rel: pg_sys::Relation, deed: Deed) -> bool {
    const DISABLED: std::ffi::c_char = b'D' as std::ffi::c_char;
    // SAFETY: by contract; a trigger of columns has as many numbers as it says.
    unsafe {
        let triggers = (*rel).trigdesc;
        if triggers.is_null() {
            return false;
        }
        let list = std::slice::from_raw_parts((*triggers).triggers, (*triggers).numtriggers as usize);
        list.iter().filter(|trigger| trigger.tgenabled != DISABLED).any(|trigger| match deed {
            Deed::Insert => trigger.tgtype as u32 & pg_sys::TRIGGER_TYPE_INSERT != 0,
            Deed::Update(columns) => {
                let of = match trigger.tgnattr {
                    0 => &[],
                    count => std::slice::from_raw_parts(trigger.tgattr, count as usize),
                };
                let named = |place: &i16| {
                    let attribute = bulk::attribute((*rel).rd_att, *place as usize - 1);
                    let name = std::ffi::CStr::from_ptr(attribute.attname.data.as_ptr());
                    columns.iter().any(|column| name.to_bytes() == column.as_bytes())
                };
                trigger.tgtype as u32 & pg_sys::TRIGGER_TYPE_UPDATE != 0 && (of.is_empty() || of.iter().any(named))
            }
        })
    }
}
