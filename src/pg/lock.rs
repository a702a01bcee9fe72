//! The locks of the protocols: the write fence, its wait, and horizons.

use pgrx::pg_sys;

use super::error::{Fail, Outcome, SqlState};
use super::spi::{self, See};

/// Takes a relation lock for the rest of the transaction, without opening the relation.
pub fn lock_relation(oid: pg_sys::Oid, mode: u32) {
    // SAFETY: waits for and takes a heavyweight lock; an unknown oid only locks a number.
    unsafe { pg_sys::LockRelationOid(oid, mode as pg_sys::LOCKMODE) }
}

/// Waits until every transaction that now holds a lock conflicting with `mode` on the relation has ended.
/// New holders are not waited for, and our own locks don't count.
pub fn wait_for_lockers(oid: pg_sys::Oid, mode: u32) {
    // SAFETY: MyDatabaseId is set in any backend that runs SQL; the tag is a plain value.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.into(),
            locktag_field2: oid.into(),
            locktag_field3: 0,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        pg_sys::WaitForLockers(tag, mode as pg_sys::LOCKMODE, false);
    }
}

/// Whether no snapshot in the cluster (standbys with feedback and slots included) can miss the effects of `xid`.
/// `rel` only tells which database is meant.
pub fn all_snapshots_see(xid: u64, rel: pg_sys::Oid) -> bool {
    // SAFETY: the relation is opened and closed here; the horizon is a plain value.
    unsafe {
        let relation = pg_sys::table_open(rel, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let horizon = pg_sys::GetOldestNonRemovableTransactionId(relation);
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        let next = pg_sys::ReadNextFullTransactionId().value;
        // The horizon is at most 2^31 behind the next id: widen it with the epoch of the next.
        let behind = (next as u32).wrapping_sub(horizon.into_inner());
        xid < next - u64::from(behind)
    }
}

/// Makes what this transaction wrote visible to its own next command.
pub fn command_done() {
    // SAFETY: only legal outside parallel mode, which write functions (PARALLEL UNSAFE) guarantee.
    unsafe { pg_sys::CommandCounterIncrement() }
}

pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether the transaction takes a new snapshot for every statement.
pub fn is_serializable() -> bool {
    // SAFETY: reads a backend-local integer.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

pub fn is_read_committed() -> bool {
    // SAFETY: reads a backend-local integer.
    unsafe { pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Refuses a fixed snapshot to the function `verb`.
pub fn need_read_committed(verb: &str) -> Outcome<()> {
    if is_read_committed() {
        return Ok(());
    }
    Err(Fail::new(SqlState::ERRCODE_ACTIVE_SQL_TRANSACTION, format!("{verb}() needs a transaction in READ COMMITTED"))
        .hint("Call it by itself, or SET TRANSACTION ISOLATION LEVEL READ COMMITTED."))
}

/// Makes this transaction the only one that works on a relation, until it ends; false when another already is. The
/// lock's name is the relation it guards; advisory locks of applications use other classes.
pub fn alone_at(relation: pg_sys::Oid) -> Outcome<bool> {
    let alone =
        spi::one("SELECT pg_catalog.pg_try_advisory_xact_lock($1::int, 0)", &[relation.into()], See::Write, |row| {
            row.bool(0)
        })?;
    Ok(alone == Some(true))
}

/// Marks locks on a number as those of writers of the outbox: pg_locks shows them as locktype `userlock`, objsubid
/// OUTBOX, the number in classid (its upper half) and objid. No SQL function takes locks of this type.
const OUTBOX: u16 = 0x6f62; // "ob"

/// Takes the lock that tells readers of the outbox of a writer whose numbers are all above `last`. Shared, so that it
/// never waits; it ends with the transaction, or with the subtransaction that took it.
pub fn fence_outbox(last: i64) {
    // SAFETY: inside a transaction; the tag is copied.
    unsafe {
        pg_sys::LockAcquire(&outbox_tag(last), pg_sys::ShareLock as pg_sys::LOCKMODE, false, false);
    }
}

/// Whether this transaction holds that lock.
pub fn outbox_is_fenced(last: i64) -> bool {
    let (tag, mode) = (outbox_tag(last), pg_sys::ShareLock as pg_sys::LOCKMODE);
    // SAFETY: looks into the table of this process's own locks.
    unsafe {
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pg_sys::LockHeldByMe(&tag, mode, false);
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        return pg_sys::LockHeldByMe(&tag, mode);
    }
}

fn outbox_tag(last: i64) -> pg_sys::LOCKTAG {
    // SAFETY: MyDatabaseId is set in any backend that runs SQL.
    let database = unsafe { pg_sys::MyDatabaseId };
    pg_sys::LOCKTAG {
        locktag_field1: database.into(),
        locktag_field2: (last >> 32) as u32,
        locktag_field3: last as u32,
        locktag_field4: OUTBOX,
        locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}
