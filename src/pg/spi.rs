//! SPI with the snapshot said out loud. pgrx's own client decides read-only by what the transaction has done
//! before; here a read always uses the statement's snapshot, so that several reads in one function are one
//! consistent read, and a write always sees the newest state its isolation level allows. So is the search_path: names in
//! our queries mean the same whoever calls.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

use pgrx::datum::DatumWithOid;
use pgrx::{FromDatum, pg_sys};

use super::error::{Fail, Outcome, SqlState};
use super::numeric::is_plain;
use super::session::PinnedSearchPath;

/// Which state of the database a query sees.
#[derive(Clone, Copy, PartialEq)]
pub enum See {
    /// The snapshot of the statement that called us.
    Statement,
    /// All that has committed by now, even under REPEATABLE READ; for decisions that locks have made safe.
    Latest,
    /// A new command: may write; sees its own writes and, under READ COMMITTED, all that has committed.
    Write,
}

thread_local! {
    /// Plans by query text. SPI re-plans them itself when a table changes.
    static PLANS: RefCell<HashMap<String, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// Where a version of a row stands in its table.
#[derive(Clone, Copy)]
pub struct Tid(pub(super) pg_sys::ItemPointerData);

/// A row of a result.
pub struct Row<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    tid: Option<Tid>,
}

impl<'a> Row<'a> {
    /// Of a row's values as PostgreSQL has them in memory, for as long as they are.
    pub(super) fn of(values: &'a [pg_sys::Datum], nulls: &'a [bool]) -> Row<'a> {
        Row { values, nulls, tid: None }
    }

    pub(super) fn at(self, tid: pg_sys::ItemPointerData) -> Row<'a> {
        Row { tid: Some(Tid(tid)), ..self }
    }

    /// Where it stands, if it was read from a table and not by a query.
    pub fn tid(&self) -> Option<Tid> {
        self.tid
    }

    pub fn get<T: FromDatum>(&self, column: usize) -> Option<T> {
        // SAFETY: the datum and its null flag come from this row's deforming; callers name the SQL type.
        unsafe { T::from_datum(self.values[column], self.nulls[column]) }
    }

    pub fn require<T: FromDatum>(&self, column: usize) -> Outcome<T> {
        self.get(column).ok_or_else(|| Fail::corrupt(format!("unexpected null in result column {column}")))
    }

    /// The payload of a varlena column (text, bytea, json, usage_state).
    pub fn bytes(&self, column: usize) -> Outcome<Bytes<'_>> {
        if self.nulls[column] {
            return Err(Fail::corrupt(format!("unexpected null in result column {column}")));
        }
        // SAFETY: the column is a varlena by contract; it lives as long as the row.
        unsafe {
            let stored: *mut pg_sys::varlena = self.values[column].cast_mut_ptr();
            let packed = if is_plain(stored) { stored } else { pg_sys::pg_detoast_datum_packed(stored) };
            let copy = if packed == stored { std::ptr::null_mut() } else { packed };
            Ok(Bytes { bytes: pgrx::varlena::varlena_to_byte_slice(packed), copy })
        }
    }

    /// Whether a text column says this.
    pub fn is(&self, column: usize, text: &str) -> Outcome<bool> {
        Ok(*self.bytes(column)? == *text.as_bytes())
    }

    pub fn with_bytes<R>(&self, column: usize, f: impl FnOnce(&[u8]) -> R) -> Outcome<R> {
        self.bytes(column).map(|bytes| f(&bytes))
    }

    pub fn text(&self, column: usize) -> Outcome<String> {
        Ok(self.bytes(column)?.text().into_owned())
    }

    pub fn int8(&self, column: usize) -> Outcome<i64> {
        self.require::<i64>(column)
    }

    pub fn int4(&self, column: usize) -> Outcome<i32> {
        self.require::<i32>(column)
    }

    pub fn bool(&self, column: usize) -> Outcome<bool> {
        self.require::<bool>(column)
    }

    /// A `timestamptz` in Unix microseconds.
    pub fn time(&self, column: usize) -> Outcome<i64> {
        if self.nulls[column] {
            return Err(Fail::corrupt(format!("unexpected null in result column {column}")));
        }
        Ok(super::datum::unix_micros(self.values[column].value() as i64))
    }

    pub fn is_null(&self, column: usize) -> bool {
        self.nulls[column]
    }
}

/// The payload of a value. What had to be detoasted is a copy and goes with it: a read of many rows has only one memory
/// context.
pub struct Bytes<'a> {
    bytes: &'a [u8],
    copy: *mut pg_sys::varlena,
}

impl Bytes<'_> {
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes)
    }
}

impl std::ops::Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for Bytes<'_> {
    fn drop(&mut self) {
        if !self.copy.is_null() && !std::thread::panicking() {
            // SAFETY: allocated by detoasting, and nobody else's.
            unsafe { pg_sys::pfree(self.copy.cast()) }
        }
    }
}

/// A `timestamptz` argument from Unix microseconds.
pub fn time<'a>(unix_micros: i64) -> DatumWithOid<'a> {
    // SAFETY: timestamptz is an i64 passed by value.
    unsafe { DatumWithOid::new(super::datum::timestamptz(unix_micros), pg_sys::TIMESTAMPTZOID) }
}

/// An argument of type "char".
pub fn letter<'a>(letter: u8) -> DatumWithOid<'a> {
    // SAFETY: "char" is one byte passed by value.
    unsafe { DatumWithOid::new(letter as i8, pg_sys::CHAROID) }
}

/// A null `timestamptz` argument.
pub fn no_time<'a>() -> DatumWithOid<'a> {
    DatumWithOid::null_oid(pg_sys::TIMESTAMPTZOID)
}

/// A `timestamptz[]` argument from Unix microseconds.
pub fn times<'a>(unix_micros: &[i64]) -> DatumWithOid<'a> {
    let values: Vec<pgrx::datum::TimestampWithTimeZone> =
        unix_micros.iter().map(|&at| super::datum::timestamptz(at)).collect();
    DatumWithOid::from(values)
}

/// Rows a cursor hands over at a time: enough to forget the cost of a call, little enough to stay in cache.
const FETCH: i64 = 1000;

/// Runs `sql` with its plan kept for the session, handing each row to `each`; returns the rows processed.
pub fn run(
    sql: &str,
    args: &[DatumWithOid<'_>],
    see: See,
    mut each: impl FnMut(&Row<'_>) -> Outcome<()>,
) -> Outcome<u64> {
    let mut args = Args::of(args);
    let _path = PinnedSearchPath::pin();
    // SAFETY: the SPI frame is opened and closed here; rows are read before SPI_finish frees them; an ERROR inside
    // unwinds to the transaction's abort, which cleans up the frame, the snapshot stack and the plan.
    unsafe {
        connect()?;
        let plan = plan(sql, &args.oids)?;
        if see == See::Latest {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        let code = pg_sys::SPI_execute_plan(plan, args.values.as_mut_ptr(), args.nulls.as_ptr(), see != See::Write, 0);
        if see == See::Latest {
            pg_sys::PopActiveSnapshot();
        }
        if code < 0 {
            pg_sys::SPI_finish();
            return Err(spi_failed(code, sql));
        }
        let processed = pg_sys::SPI_processed;
        let outcome = hand_over(pg_sys::SPI_tuptable, &mut each);
        pg_sys::SPI_finish();
        outcome.map(|()| processed)
    }
}

/// Runs `work` with a snapshot of its own, of now: for a verb that has waited for locks and then reads with
/// [`See::Statement`] as one consistent state.
pub fn in_new_snapshot<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    // SAFETY: pushed and popped here; an ERROR in between leads to the transaction's abort, which clears the stack.
    unsafe {
        super::lock::command_done();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let outcome = work();
        pg_sys::PopActiveSnapshot();
        outcome
    }
}

/// Like `run` for a query of any size: rows come through a cursor, so memory stays bounded.
pub fn stream(
    sql: &str,
    args: &[DatumWithOid<'_>],
    see: See,
    mut each: impl FnMut(&Row<'_>) -> Outcome<()>,
) -> Outcome<()> {
    let mut args = Args::of(args);
    let _path = PinnedSearchPath::pin();
    // SAFETY: as in `run`; the portal is closed here, or by the abort that an ERROR leads to.
    unsafe {
        connect()?;
        let plan = plan(sql, &args.oids)?;
        let portal = pg_sys::SPI_cursor_open(
            std::ptr::null(),
            plan,
            args.values.as_mut_ptr(),
            args.nulls.as_ptr(),
            see != See::Write,
        );
        let mut outcome = Ok(());
        while outcome.is_ok() {
            pg_sys::SPI_cursor_fetch(portal, true, FETCH as std::ffi::c_long);
            if pg_sys::SPI_processed == 0 {
                break;
            }
            outcome = hand_over(pg_sys::SPI_tuptable, &mut each);
        }
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
        outcome
    }
}

/// Arguments in the three arrays SPI takes.
struct Args {
    oids: Vec<pg_sys::Oid>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<std::ffi::c_char>,
}

impl Args {
    fn of(args: &[DatumWithOid<'_>]) -> Args {
        Args {
            oids: args.iter().map(DatumWithOid::oid).collect(),
            values: args
                .iter()
                .map(|arg| arg.datum().map_or(pg_sys::Datum::from(0), |datum| datum.sans_lifetime()))
                .collect(),
            nulls: args.iter().map(|arg| if arg.datum().is_some() { b' ' } else { b'n' } as std::ffi::c_char).collect(),
        }
    }
}

/// SAFETY: needs a transaction; pairs with SPI_finish.
unsafe fn connect() -> Outcome<()> {
    // SAFETY: by contract.
    if unsafe { pg_sys::SPI_connect() } != pg_sys::SPI_OK_CONNECT as i32 {
        return Err(Fail::new(SqlState::ERRCODE_INTERNAL_ERROR, "could not connect to SPI"));
    }
    Ok(())
}

fn spi_failed(code: i32, sql: &str) -> Fail {
    Fail::new(SqlState::ERRCODE_INTERNAL_ERROR, format!("SPI error {code}")).detail(sql.to_string())
}

/// Hands each row of a result over and frees the result.
///
/// SAFETY: `table` is what the last SPI call of this frame left in SPI_tuptable.
unsafe fn hand_over(table: *mut pg_sys::SPITupleTable, each: &mut impl FnMut(&Row<'_>) -> Outcome<()>) -> Outcome<()> {
    // SAFETY: by contract; a result without rows to read has no descriptor.
    unsafe {
        if table.is_null() {
            return Ok(());
        }
        let mut outcome = Ok(());
        let desc = (*table).tupdesc;
        if !desc.is_null() {
            let width = (*desc).natts as usize;
            let mut values = vec![pg_sys::Datum::from(0); width];
            let mut nulls = vec![false; width];
            for i in 0..(*table).numvals as usize {
                pg_sys::heap_deform_tuple(*(*table).vals.add(i), desc, values.as_mut_ptr(), nulls.as_mut_ptr());
                outcome = each(&Row::of(&values, &nulls));
                if outcome.is_err() {
                    break;
                }
            }
        }
        pg_sys::SPI_freetuptable(table);
        outcome
    }
}

/// SAFETY: must run inside an SPI frame.
unsafe fn plan(sql: &str, oids: &[pg_sys::Oid]) -> Outcome<pg_sys::SPIPlanPtr> {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(sql).copied()) {
        return Ok(plan);
    }
    let text = CString::new(sql).map_err(|_| Fail::parameter("a query can not contain a NUL byte"))?;
    // SAFETY: inside an SPI frame; the kept plan lives in its own context until the backend ends.
    let plan = unsafe {
        // One plan for all arguments: queries here are written for one shape, and over a partitioned table PostgreSQL
        // would rather plan each call anew, which costs more than the call.
        let plan = pg_sys::SPI_prepare_cursor(
            text.as_ptr(),
            oids.len() as i32,
            oids.as_ptr().cast_mut(),
            pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
        );
        if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
            pg_sys::SPI_finish();
            return Err(
                Fail::new(SqlState::ERRCODE_INTERNAL_ERROR, "could not prepare a query").detail(sql.to_string())
            );
        }
        plan
    };
    PLANS.with_borrow_mut(|plans| plans.insert(sql.to_string(), plan));
    Ok(plan)
}

/// Runs a command once, its plan not kept: for DDL and other rare statements.
pub fn command(sql: &str) -> Outcome<()> {
    let text = CString::new(sql).map_err(|_| Fail::parameter("a command can not contain a NUL byte"))?;
    let _path = PinnedSearchPath::pin();
    // SAFETY: as in `run`.
    unsafe {
        connect()?;
        let code = pg_sys::SPI_execute(text.as_ptr(), false, 0);
        pg_sys::SPI_finish();
        if code < 0 {
            return Err(spi_failed(code, sql));
        }
    }
    Ok(())
}

/// The only row's value of a query, or None when there is no row.
pub fn one<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    see: See,
    mut read: impl FnMut(&Row<'_>) -> Outcome<T>,
) -> Outcome<Option<T>> {
    let mut found = None;
    run(sql, args, see, |row| {
        found = Some(read(row)?);
        Ok(())
    })?;
    Ok(found)
}
