//! What is true of a tenant by tables that hardly ever change, kept by each backend until one of them does.
//!
//! # Protocol
//! A trigger on the rows of these tables, `announce_change()`, in a replica too, has PostgreSQL tell all backends of a changed
//! relation. That message goes out with the commit, just after the rows can be seen, and every look here first takes in
//! what messages there are. So whoever asks after a COMMIT has returned knows of it; who asks at the same moment may have
//! come before.
//!
//! A value is read in a snapshot of its own, taken after the count of messages that it is kept under: a change that commits
//! later than that snapshot sends its message later than the count, and the value is not found again. What the own
//! transaction has changed counts at once, and is forgotten with it: an abort sends the same messages to itself.
//!
//! Proof: tests/isolation/specs/credit_watched.spec.

use std::cell::{Cell, RefCell};

use pgrx::{pg_guard, pg_sys};
use rustc_hash::FxHashMap;

use super::error::Outcome;
use super::{lock, session, spi};

thread_local! {
    /// Relations that somebody keeps something of; None: nobody listens yet.
    static WATCHED: RefCell<Option<Vec<pg_sys::Oid>>> = const { RefCell::new(None) };
    /// Messages about them so far.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Tenants that a backend keeps a value of at most.
const MOST: usize = 10_000;

/// Values by tenant, each with the count of messages that it is good for.
pub type Cache<T> = RefCell<FxHashMap<String, (u64, T)>>;

/// What `read` says of the tenant, or has said since the last change of these tables.
pub fn kept<T: Copy>(cache: &Cache<T>, tables: &[&str], tenant: &str, read: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    for table in tables {
        listen(session::relation(table)?);
    }
    // What is not read leaves no trace for SERIALIZABLE to see a conflict by.
    if lock::is_serializable() {
        return read();
    }
    // SAFETY: legal in a transaction; what it does is what taking a lock would have done.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    let changes = CHANGES.get();
    if let Some((_, value)) = cache.borrow().get(tenant).filter(|(known, _)| *known == changes) {
        return Ok(*value);
    }
    let value = spi::in_new_snapshot(read)?;
    let mut values = cache.borrow_mut();
    if values.len() >= MOST {
        values.clear();
    }
    values.insert(tenant.to_string(), (changes, value));
    Ok(value)
}

fn listen(relation: pg_sys::Oid) {
    WATCHED.with_borrow_mut(|watched| {
        let watched = watched.get_or_insert_with(|| {
            // SAFETY: registered once a backend; the function stays as long as the library, which is never unloaded.
            unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(changed), pg_sys::Datum::from(0)) };
            Vec::new()
        });
        if !watched.contains(&relation) {
            watched.push(relation);
        }
    });
}

/// SAFETY: called by PostgreSQL when it hears of a change; touches nothing but a count, and may be called at any time.
unsafe extern "C-unwind" fn changed(_: pg_sys::Datum, relation: pg_sys::Oid) {
    let concerned = WATCHED.with(|watched| match watched.try_borrow() {
        Ok(watched) => relation == pg_sys::InvalidOid || watched.as_ref().is_some_and(|all| all.contains(&relation)),
        Err(_) => true,
    });
    if concerned {
        CHANGES.set(CHANGES.get() + 1);
    }
}

/// Trigger after a change: whoever keeps something of the table will look again. One of pgrx's own would read the row.
#[pg_guard]
#[unsafe(no_mangle)] // looked up by name; the name is ours alone
pub extern "C-unwind" fn announce_change(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: a trigger's context is its TriggerData, which lives while it runs; anyone else who calls is told.
    unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            pgrx::error!("announce_change() is a trigger");
        }
        pg_sys::CacheInvalidateRelcache((*context.cast::<pg_sys::TriggerData>()).tg_relation);
    }
    pg_sys::Datum::from(0)
}

#[doc(hidden)]
#[unsafe(no_mangle)] // PG_FUNCTION_INFO_V1(announce_change)
pub extern "C" fn pg_finfo_announce_change() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}
