//! Two bells, a few words of shared memory: by the doorbell a session asks the launcher to look at its database now, by
//! the other that the worker of its database looks into the inbox.
//!
//! Bells are hints only: without preloading, when there is no room, or after a crash emptied them, a database is found
//! by the launcher's next look, an inbox by the worker's. Nothing is remembered there that isn't in a table.

use std::cell::Cell;

use pgrx::{PGRXSharedMemory, PgLwLock, pg_guard, pg_shmem_init, pg_sys};

use super::worker::preloaded;

const BELLS: usize = 32;

/// Process id of the launcher, and databases that want to be looked at (0: free).
static DOORBELL: PgLwLock<(i32, [u32; BELLS])> =
    // SAFETY: the name is ours alone.
    unsafe { PgLwLock::new(c"meterflow_doorbell") };

/// Databases that can have a bell for their inbox: more than a server has worker processes.
const DESKS: usize = 64;

/// A worker at work, and whether there is something in its inbox.
#[derive(Clone, Copy, Default)]
struct Desk {
    database: u32,
    worker: i32,
    rang: bool,
}

// SAFETY: plain values, the same in every process.
unsafe impl PGRXSharedMemory for Desk {}

static INBOX_BELLS: PgLwLock<[Desk; DESKS]> =
    // SAFETY: the name is ours alone.
    unsafe { PgLwLock::new(c"meterflow_inbox_bells") };

/// Asks for the shared memory; only while preloading.
#[allow(unexpected_cfgs)] // the macro asks for versions of PostgreSQL that we do not build for
pub fn install() {
    pg_shmem_init!(DOORBELL = (0, [0; BELLS]));
    pg_shmem_init!(INBOX_BELLS = [Desk::default(); DESKS]);
}

/// Asks the launcher, once this transaction has committed, to look at this database; false when there is none.
pub fn ring_at_commit() -> bool {
    if preloaded() {
        pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, ring);
    }
    preloaded()
}

/// After commit, where an error would be a PANIC: nothing here can raise one.
fn ring() {
    // SAFETY: our own database; a process id that is no longer the launcher's finds no process, or sets a latch that
    // its owner finds set for no reason, as latches may be.
    unsafe {
        let database = u32::from(pg_sys::MyDatabaseId);
        let launcher = {
            let mut door = DOORBELL.exclusive();
            if !door.1.contains(&database)
                && let Some(free) = door.1.iter_mut().find(|bell| **bell == 0)
            {
                *free = database;
            }
            door.0
        };
        wake(launcher);
    }
}

/// SAFETY: in a process that is attached to shared memory.
unsafe fn wake(pid: i32) {
    // SAFETY: the process array outlives every process in it.
    unsafe {
        let process = if pid == 0 { std::ptr::null_mut() } else { pg_sys::BackendPidGetProc(pid) };
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

thread_local! {
    /// The transaction has asked for the bell already.
    static WILL_RING: Cell<bool> = const { Cell::new(false) };
}

/// Tells this database's worker, once this transaction has committed, that there is something in the inbox.
fn ring_for_inbox_at_commit() {
    if preloaded() && !WILL_RING.replace(true) {
        pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, ring_for_inbox);
        for end in [pgrx::PgXactCallbackEvent::Abort, pgrx::PgXactCallbackEvent::Prepare] {
            pgrx::register_xact_callback(end, || WILL_RING.set(false));
        }
    }
}

/// Trigger on the inbox, for each statement: what it costs a COPY is this call. pgrx's own triggers are for rows.
#[pg_guard]
#[unsafe(no_mangle)] // looked up by name; the name is ours alone
pub extern "C-unwind" fn inbox_filled(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    ring_for_inbox_at_commit();
    pg_sys::Datum::from(0)
}

#[doc(hidden)]
#[unsafe(no_mangle)] // PG_FUNCTION_INFO_V1(inbox_filled)
pub extern "C" fn pg_finfo_inbox_filled() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}

/// After commit, like `ring`. A bell that rings already has woken the worker: most writers pay for one look.
fn ring_for_inbox() {
    WILL_RING.set(false);
    // SAFETY: our own database; as for `ring`, whoever has the process id now.
    unsafe {
        let database = u32::from(pg_sys::MyDatabaseId);
        let waiting = |desk: &&Desk| desk.database == database && !desk.rang;
        if INBOX_BELLS.share().iter().any(|desk| waiting(&desk)) {
            let worker = INBOX_BELLS.exclusive().iter_mut().find(|desk| waiting(&&**desk)).map(|desk| {
                desk.rang = true;
                desk.worker
            });
            wake(worker.unwrap_or(0));
        }
    }
}

/// The worker's side: from now on the bell of its database wakes this process.
pub fn sit_down() {
    // SAFETY: our own database and process id.
    let (database, worker) = unsafe { (u32::from(pg_sys::MyDatabaseId), pg_sys::MyProcPid) };
    let mut desks = INBOX_BELLS.exclusive();
    // A worker that has ended leaves its desk to the next one of its database.
    let place = desks.iter().position(|desk| desk.database == database);
    if let Some(place) = place.or_else(|| desks.iter().position(|desk| desk.database == 0)) {
        desks[place] = Desk { database, worker, rang: false };
    }
}

/// And leaves the desk to any other.
pub fn stand_up() {
    // SAFETY: our own database.
    let database = unsafe { u32::from(pg_sys::MyDatabaseId) };
    if let Some(desk) = INBOX_BELLS.exclusive().iter_mut().find(|desk| desk.database == database) {
        *desk = Desk::default();
    }
}

/// Whether the bell has rung since the last call.
pub fn inbox_rang() -> bool {
    // SAFETY: our own database.
    let database = unsafe { u32::from(pg_sys::MyDatabaseId) };
    let desk = INBOX_BELLS
        .exclusive()
        .iter_mut()
        .find(|desk| desk.database == database)
        .map(|desk| std::mem::take(&mut desk.rang));
    desk == Some(true)
}

/// The launcher's side: who rang since the last call. The first call says who answers.
pub fn answer() -> Vec<u32> {
    let mut door = DOORBELL.exclusive();
    // SAFETY: reads our own process id.
    door.0 = unsafe { pg_sys::MyProcPid };
    std::mem::replace(&mut door.1, [0; BELLS]).into_iter().filter(|&bell| bell != 0).collect()
}
