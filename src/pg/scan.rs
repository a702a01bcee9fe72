//! Rows of the extension's own tables, found by an index without the executor. A read asks for a few rows of six
//! tables; started as SPI queries these took three quarters of its time, and a plan that another session's TRUNCATE or
//! ANALYZE had made invalid was planned again within the call.
//!
//! # What stays as in a query
//! - Snapshot: the active one, that is the calling statement's; all scans of a call see the same instant.
//! - Privileges: the caller must be allowed to SELECT the table, checked at each `open`; only `open_as_owner` leaves that
//!   out, for what verbs need and callers may not see.
//! - Row-level security: where a policy applies to the caller, the rows come from a query after all.
//! - Locks: AccessShareLock on tables and indexes, held to the end of the transaction; RowExclusiveLock where the reader is
//!   about to write the table, which is then locked once.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

use super::bulk;
use super::error::{Fail, Outcome};
use super::session::{self, Reach};
use super::spi::{self, Row, See};

/// A table, and by which columns its rows are looked for.
pub struct Table {
    /// What the caller must be allowed to read.
    pub name: &'static str,
    /// Where the rows are: the table itself or its children, each with an index that begins with `key`.
    pub parts: &'static [(&'static str, &'static str)],
    pub key: &'static [&'static str],
    /// The columns of the rows that are handed over; none named: all, as they stand in the table.
    pub columns: &'static [&'static str],
    /// What rows the index has, if not all: the condition of a partial one, as SQL. Its rows need no other check: a row
    /// that ceases to meet the condition leaves the index with the version that does so.
    pub only: Option<&'static str>,
    /// It is hardly ever without rows, so nobody looks whether it is.
    pub filled: bool,
    /// Whoever reads it here is about to write it.
    pub to_write: bool,
}

impl Table {
    /// What a table is unless it says otherwise.
    pub const PLAIN: Table =
        Table { name: "", parts: &[], key: &[], columns: &[], only: None, filled: false, to_write: false };
}

#[derive(Clone, Copy)]
pub enum Is {
    Equal,
    Above,
    AtLeast,
    Below,
    AtMost,
}

#[derive(Clone, Copy)]
pub enum Value<'a> {
    Text(&'a str),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    /// A value of type "char".
    Letter(u8),
    /// Unix microseconds.
    Time(i64),
    Bool(bool),
}

/// Terms of a question at most.
const MOST_TERMS: usize = 8;

/// What is asked of a column of the key.
pub type Term<'a> = (usize, Is, Value<'a>);

/// Whether a table has a row that meets the terms.
pub fn any(table: &'static Table, terms: &[Term<'_>]) -> Outcome<bool> {
    Reader::open(table)?.any(terms)
}

/// A table open for reading.
pub struct Reader {
    table: &'static Table,
    /// None: a policy applies to the caller.
    parts: Option<Vec<Part>>,
}

struct Part {
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    scan: pg_sys::IndexScanDesc,
    /// Where the columns stand; empty: all are wanted.
    places: Rc<[usize]>,
}

/// What opening a table takes, found out once for whoever may read all of it.
#[derive(Clone)]
struct Opening {
    by_policy: bool,
    parts: Rc<[PartOf]>,
}

/// A table or child, its index, and where the columns stand.
struct PartOf {
    heap: pg_sys::Oid,
    index: pg_sys::Oid,
    places: Rc<[usize]>,
}

/// The lock on a table has brought news of relations: what was kept of it may not be so.
struct Heard;

thread_local! {
    /// By table and reader; no reader: for what every reader needs.
    static OPENINGS: session::Kept<(*const Table, pg_sys::Oid), Opening> = RefCell::default();
}

/// Whether the caller may read all of a table, and not what policies show of it. Raises the error of a query when it may not
/// read the table.
pub fn reads_all(name: &str) -> Outcome<bool> {
    Ok(reach(name)? != Reach::ByPolicy)
}

/// How far the caller may read a table: all of it, or by policy.
fn reach(name: &str) -> Outcome<Reach> {
    match session::reach(name, pg_sys::ACL_SELECT)? {
        Reach::Less => Err(refuse(name)),
        reach => Ok(reach),
    }
}

/// Raises the error of a query that reads what it may not.
fn refuse(name: &str) -> Fail {
    let text = std::ffi::CString::new(name).unwrap_or_default();
    let (denied, kind) = (pg_sys::AclResult::ACLCHECK_NO_PRIV, pg_sys::ObjectType::OBJECT_TABLE);
    // SAFETY: raises an ERROR and does not come back. Nothing is held yet.
    unsafe { pg_sys::aclcheck_error(denied, kind, text.as_ptr()) };
    Fail::corrupt(format!("table {name} was refused without an error"))
}

impl Reader {
    pub fn open(table: &'static Table) -> Outcome<Reader> {
        Reader::open_for(table, session::current_user())
    }

    /// For what every reader needs and none may see.
    pub fn open_as_owner(table: &'static Table) -> Outcome<Reader> {
        Reader::open_for(table, pg_sys::InvalidOid)
    }

    fn open_for(table: &'static Table, reader: pg_sys::Oid) -> Outcome<Reader> {
        let key = (std::ptr::from_ref(table), reader);
        // Again when a lock has brought news. With all locks taken there is none any more.
        loop {
            let opening = OPENINGS.with(|cache| {
                session::of_relations(cache, key, || {
                    let reach = match reader {
                        pg_sys::InvalidOid => Reach::All { keeps: true },
                        _ => reach(table.name)?,
                    };
                    let Reach::All { keeps } = reach else {
                        return Ok((Opening { by_policy: true, parts: Rc::new([]) }, false));
                    };
                    let parts = table.parts.iter().map(|part| PartOf::find(part, table)).collect::<Outcome<_>>()?;
                    Ok((Opening { by_policy: false, parts }, keeps))
                })
            })?;
            if opening.by_policy {
                return Ok(Reader { table, parts: None });
            }
            let parts: Result<Vec<Option<Part>>, Heard> =
                opening.parts.iter().map(|part| Part::open(part, table)).collect();
            if let Ok(parts) = parts {
                return Ok(Reader { table, parts: Some(parts.into_iter().flatten().collect()) });
            }
        }
    }

    /// Hands over each row that meets the terms, which are in order of the key's columns.
    pub fn rows(&mut self, terms: &[Term<'_>], mut each: impl FnMut(&Row<'_>) -> Outcome<()>) -> Outcome<()> {
        self.until(terms, |row| each(row).map(ControlFlow::Continue))
    }

    /// As `rows`, in order of the key, until one breaks off.
    pub fn until(
        &mut self,
        terms: &[Term<'_>],
        mut each: impl FnMut(&Row<'_>) -> Outcome<ControlFlow<()>>,
    ) -> Outcome<()> {
        let Some(parts) = &mut self.parts else { return by_query(self.table, terms, each) };
        debug_assert!(terms.len() <= MOST_TERMS);
        // SAFETY: scan keys are copied by the rescan, and the texts they point to outlive it in the current context.
        let keys: Vec<pg_sys::ScanKeyData> = terms.iter().map(|term| unsafe { scan_key(term) }).collect();
        for part in parts {
            if part.rows(&keys, &mut each)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Whether the table has no row at all; false when nobody has looked.
    pub fn is_empty(&self) -> bool {
        self.parts.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether there is a row that meets the terms.
    pub fn any(&mut self, terms: &[Term<'_>]) -> Outcome<bool> {
        let mut found = false;
        self.until(terms, |_| {
            found = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }
}

impl PartOf {
    fn find((heap, index): &(&str, &str), table: &Table) -> Outcome<PartOf> {
        let heap = session::relation(heap)?;
        // SAFETY: opened and closed here, or by the abort that an ERROR leads to.
        let (index, places, valid) = unsafe {
            let rel = pg_sys::table_open(heap, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let places = bulk::places((*rel).rd_att, table.columns);
            let found = loop {
                // While the table is locked another may take the index's name, but the index is not dropped.
                let index = session::relation(index)?;
                let by = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
                let valid = (*(*by).rd_index).indisvalid;
                pg_sys::index_close(by, pg_sys::NoLock as pg_sys::LOCKMODE);
                if valid || !session::has_heard() {
                    break (index, places?, valid);
                }
            };
            pg_sys::table_close(rel, pg_sys::NoLock as pg_sys::LOCKMODE);
            found
        };
        if !valid {
            return Err(Fail::corrupt("an index of meterflow is not valid").hint("REINDEX the schema meterflow."));
        }
        Ok(PartOf { heap, index, places: places.into() })
    }
}

impl Part {
    /// None when the table has no page, unless nobody looks: then it has had no row since any snapshot that anyone holds.
    fn open(of: &PartOf, table: &Table) -> Result<Option<Part>, Heard> {
        let mode = if table.to_write { pg_sys::RowExclusiveLock } else { pg_sys::AccessShareLock };
        // SAFETY: opened here, closed in drop (or at the abort that an ERROR leads to). The active snapshot is that of
        // the statement that called us and outlives the call, and so the scan.
        unsafe {
            let heap = pg_sys::table_open(of.heap, mode as pg_sys::LOCKMODE);
            if session::has_heard() {
                pg_sys::table_close(heap, pg_sys::NoLock as pg_sys::LOCKMODE);
                return Err(Heard);
            }
            if !table.filled && pg_sys::RelationGetNumberOfBlocksInFork(heap, pg_sys::ForkNumber::MAIN_FORKNUM) == 0 {
                pg_sys::table_close(heap, pg_sys::NoLock as pg_sys::LOCKMODE);
                return Ok(None);
            }
            let index = pg_sys::index_open(of.index, mode as pg_sys::LOCKMODE);
            let slot = pg_sys::table_slot_create(heap, std::ptr::null_mut());
            let scan = begin_scan(heap, index, pg_sys::GetActiveSnapshot(), MOST_TERMS as i32);
            Ok(Some(Part { heap, index, slot, scan, places: of.places.clone() }))
        }
    }

    fn rows(
        &mut self,
        keys: &[pg_sys::ScanKeyData],
        each: &mut impl FnMut(&Row<'_>) -> Outcome<ControlFlow<()>>,
    ) -> Outcome<ControlFlow<()>> {
        let mut chosen = (vec![pg_sys::Datum::from(0); self.places.len()], vec![false; self.places.len()]);
        // SAFETY: the scan is open, with room for MOST_TERMS keys; a rescan copies as many as numberOfKeys says. A slot's values live until it takes the next row, and a
        // Row of them no longer than `each` runs. Places are those of the table's own columns.
        unsafe {
            (*self.scan).numberOfKeys = keys.len() as i32;
            pg_sys::index_rescan(self.scan, keys.as_ptr().cast_mut(), keys.len() as i32, std::ptr::null_mut(), 0);
            let natts = (*(*self.heap).rd_att).natts as usize;
            let width = self.places.iter().map(|place| place + 1).max().unwrap_or(natts);
            while pg_sys::index_getnext_slot(self.scan, pg_sys::ScanDirection::ForwardScanDirection, self.slot) {
                pgrx::check_for_interrupts!();
                pg_sys::slot_getsomeattrs_int(self.slot, width as i32);
                let values = std::slice::from_raw_parts((*self.slot).tts_values, width);
                let nulls = std::slice::from_raw_parts((*self.slot).tts_isnull, width);
                let row = if self.places.is_empty() {
                    Row::of(values, nulls)
                } else {
                    for (column, place) in self.places.iter().enumerate() {
                        (chosen.0[column], chosen.1[column]) = (values[*place], nulls[*place]);
                    }
                    Row::of(&chosen.0, &chosen.1)
                };
                if each(&row.at((*self.slot).tts_tid))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // SAFETY: closes what open opened; while an ERROR unwinds, the transaction's abort does it.
        unsafe {
            if std::thread::panicking() {
                return;
            }
            pg_sys::index_endscan(self.scan);
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::index_close(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::table_close(self.heap, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

/// SAFETY: relations are open, the snapshot outlives the scan.
pub unsafe fn begin_scan(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: by contract. PostgreSQL 18 added an instrumentation argument.
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::index_beginscan(heap, index, snapshot, std::ptr::null_mut(), keys, 0);
        #[cfg(not(feature = "pg18"))]
        pg_sys::index_beginscan(heap, index, snapshot, keys, 0)
    }
}

/// SAFETY: must run where an ERROR may be raised; a text is allocated in the current memory context.
pub(super) unsafe fn scan_key((column, is, value): &Term<'_>) -> pg_sys::ScanKeyData {
    use pg_sys::*;
    let (function, datum) = match (is, value) {
        // SAFETY: copies the text.
        (Is::Equal, Value::Text(text)) => unsafe {
            (F_TEXTEQ, Datum::from(cstring_to_text_with_len(text.as_ptr().cast(), text.len() as i32)))
        },
        (Is::Equal, Value::Int2(n)) => (F_INT2EQ, Datum::from(*n)),
        (Is::Equal, Value::Int4(n)) => (F_INT4EQ, Datum::from(*n)),
        (Is::Equal, Value::Int8(n)) => (F_INT8EQ, Datum::from(*n)),
        (Is::Equal, Value::Letter(letter)) => (F_CHAREQ, Datum::from(*letter as i8)),
        (Is::Equal, Value::Bool(flag)) => (F_BOOLEQ, Datum::from(*flag)),
        (Is::Equal, Value::Time(at)) => (F_TIMESTAMPTZ_EQ, Datum::from(super::datum::pg_micros(*at))),
        (Is::Above, Value::Int8(n)) => (F_INT8GT, Datum::from(*n)),
        (Is::Above, Value::Time(at)) => (F_TIMESTAMPTZ_GT, Datum::from(super::datum::pg_micros(*at))),
        (Is::AtMost, Value::Time(at)) => (F_TIMESTAMPTZ_LE, Datum::from(super::datum::pg_micros(*at))),
        (Is::AtLeast, Value::Time(at)) => (F_TIMESTAMPTZ_GE, Datum::from(super::datum::pg_micros(*at))),
        (Is::Below, Value::Time(at)) => (F_TIMESTAMPTZ_LT, Datum::from(super::datum::pg_micros(*at))),
        _ => unreachable!("no table is looked into that way"),
    };
    let strategy = match is {
        Is::Equal => BTEqualStrategyNumber,
        Is::Above => BTGreaterStrategyNumber,
        Is::AtLeast => BTGreaterEqualStrategyNumber,
        Is::Below => BTLessStrategyNumber,
        Is::AtMost => BTLessEqualStrategyNumber,
    };
    // SAFETY: ScanKeyInit fills the whole struct. It compares texts by the collation "C", which all of ours have.
    unsafe {
        let mut key: ScanKeyData = std::mem::zeroed();
        ScanKeyInit(&mut key, *column as AttrNumber + 1, strategy as StrategyNumber, Oid::from(function), datum);
        key
    }
}

/// The same rows by a query, to which PostgreSQL adds the policies.
fn by_query(
    table: &Table,
    terms: &[Term<'_>],
    mut each: impl FnMut(&Row<'_>) -> Outcome<ControlFlow<()>>,
) -> Outcome<()> {
    let operator = |is: &Is| match is {
        Is::Equal => "=",
        Is::Above => ">",
        Is::AtLeast => ">=",
        Is::Below => "<",
        Is::AtMost => "<=",
    };
    let mut conditions: Vec<String> = terms
        .iter()
        .enumerate()
        .map(|(n, (column, is, _))| format!("{} {} ${}", table.key[*column], operator(is), n + 1))
        .collect();
    conditions.extend(table.only.map(str::to_string));
    let args: Vec<DatumWithOid<'_>> = terms.iter().map(|(_, _, value)| argument(value)).collect();
    let columns = if table.columns.is_empty() { String::from("*") } else { table.columns.join(", ") };
    let sql = format!(
        "SELECT {columns} FROM meterflow.{} WHERE {} ORDER BY {}",
        table.name,
        conditions.join(" AND "),
        table.key.join(", ")
    );
    let mut over = false;
    spi::run(&sql, &args, See::Statement, |row| {
        over = over || each(row)?.is_break();
        Ok(())
    })?;
    Ok(())
}

pub(super) fn argument<'a>(value: &Value<'a>) -> DatumWithOid<'a> {
    match *value {
        Value::Text(text) => text.into(),
        Value::Int2(n) => n.into(),
        Value::Int4(n) => n.into(),
        Value::Int8(n) => n.into(),
        Value::Letter(letter) => spi::letter(letter),
        Value::Time(at) => spi::time(at),
        Value::Bool(flag) => flag.into(),
    }
}
