//! Background workers as PostgreSQL wants them: signals, connections, transactions that survive an error.
//!
//! Signals. SIGTERM runs the server's own `die`, so that CHECK_FOR_INTERRUPTS ends even a running query and a fast
//! shutdown waits for no job; pgrx's handlers would only set a flag. SIGHUP sets ConfigReloadPending. SIGINT is the
//! server's too: pg_cancel_backend() cancels the job that runs, not the worker.
//!
//! Errors. `attempt` is a transaction of its own. Whatever is raised inside, by PostgreSQL or by Rust, is caught,
//! the transaction aborted, and the worker is where it was before: holding nothing, in no transaction.

use std::ffi::{CStr, CString, c_int};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, DynamicBackgroundWorker};
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::{IntoDatum, PgLogLevel, PgSqlErrorCode, PgTryBuilder, pg_sys};

use super::error::{Outcome, raise};

/// Marks the worker's own locks: pg_locks shows them as locktype `userlock`, classid MARK, objid 1 (held by the worker
/// of the database) or 2 (held by sessions that pause it). No SQL function takes locks of this type, so nobody can
/// keep the worker out as with an advisory lock; held by the session, they end with its process, however that dies.
pub const MARK: u32 = 0x6d66_6c77; // "mflw"

/// Set in the postmaster while it preloads, inherited by every process it forks.
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// What an attempt failed of.
#[derive(Clone, Debug)]
pub struct Failure {
    pub state: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Failure {
    /// The five characters of the SQLSTATE: six bits each, lowest first.
    pub fn sqlstate(&self) -> String {
        let code = self.state as i32;
        (0..5).map(|i| char::from(b'0' + (code >> (6 * i) & 0x3f) as u8)).collect()
    }
}

impl From<&ErrorReportWithLevel> for Failure {
    fn from(report: &ErrorReportWithLevel) -> Failure {
        Failure {
            state: report.sql_error_code(),
            message: report.message().to_string(),
            detail: report.detail().map(without_backtrace).filter(|detail| !detail.is_empty()),
            hint: report.hint().map(str::to_string),
        }
    }
}

/// pgrx appends a backtrace of Rust frames to the DETAIL of what passes through them when RUST_BACKTRACE is set.
fn without_backtrace(detail: &str) -> String {
    detail.split("\n   0: ").next().unwrap_or_default().trim().to_string()
}

/// Whether shared_preload_libraries is being read: the only time when shared memory and workers can be asked for.
pub fn preloading() -> bool {
    // SAFETY: reads process-local booleans. pg_upgrade's servers run nothing of ours (-b): they only move catalogues.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade }
}

/// Whether this server has preloaded the library, and so has a launcher.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Registers the launcher and its doorbell; only while preloading.
pub fn register_launcher() {
    super::bell::install();
    PRELOADED.store(true, Ordering::Relaxed);
    BackgroundWorkerBuilder::new("meterflow launcher")
        .set_library("meterflow")
        .set_function("meterflow_launcher_main")
        .enable_spi_access() // not before recovery has finished: a standby has no workers until it is promoted
        .set_restart_time(Some(Duration::from_secs(5)))
        .load();
}

/// Starts the worker of a database; None when max_worker_processes are in use.
pub fn start_database_worker(oid: u32, name: &str) -> Option<DynamicBackgroundWorker> {
    // SAFETY: reads our own process id and switches to a context that outlives transactions, where the handle stays.
    let own_pid = unsafe {
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        pg_sys::MyProcPid
    };
    BackgroundWorkerBuilder::new(&format!("meterflow worker ({name})"))
        .set_type("meterflow worker")
        .set_library("meterflow")
        .set_function("meterflow_worker_main")
        .set_argument(pg_sys::Oid::from(oid).into_datum())
        .enable_spi_access()
        .set_restart_time(None) // the launcher starts it again, with the patience that only it knows of
        .set_notify_pid(own_pid)
        .load_dynamic()
        .ok()
}

/// Defines the C entry point of a worker: `symbol` is what BackgroundWorkerBuilder names, `main` takes its argument.
macro_rules! worker_entry {
    ($symbol:ident, $main:path) => {
        /// Called by the postmaster's child; returning is exit code 0.
        #[pgrx::pg_guard]
        #[unsafe(no_mangle)] // looked up by name; the name is ours alone
        pub extern "C-unwind" fn $symbol(argument: pgrx::pg_sys::Datum) {
            $main(argument.value() as u32)
        }
    };
}
pub(crate) use worker_entry;

// The raw symbols: a signal handler must not run inside pgrx's guard, which is what pg_sys::die would do.
unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
}

/// First call of a worker: takes signals and connects. Without a database only shared catalogues can be read.
pub fn connect(database: Option<u32>) {
    // SAFETY: called once at the start of a worker's process, before any transaction, as bgworker.h asks. Database 0
    // and user 0 stand for none and for the bootstrap superuser.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        use pg_sys::pqsignal;
        #[cfg(feature = "pg18")]
        use pg_sys::pqsignal_be as pqsignal;
        pqsignal(pg_sys::SIGTERM as c_int, Some(die));
        pqsignal(pg_sys::SIGHUP as c_int, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
        match database {
            Some(oid) => {
                pg_sys::BackgroundWorkerInitializeConnectionByOid(pg_sys::Oid::from(oid), pg_sys::InvalidOid, 0)
            }
            None => pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0),
        }
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
    }
}

/// Sets a setting for the life of this worker, above what ALTER DATABASE and ALTER ROLE say.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: both are NUL-terminated and copied. An error ends the worker, which has done nothing yet.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
        )
    }
}

/// Ends the process if it was told to; reads the configuration again if it changed, and says so.
pub fn heed_signals() -> bool {
    super::lock::check_for_interrupts();
    // SAFETY: a flag that only our own signal handler sets; the file is read outside of any transaction.
    unsafe {
        let pending = &raw mut pg_sys::ConfigReloadPending;
        let reload = pending.read_volatile() != 0;
        if reload {
            pending.write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        reload
    }
}

/// Sleeps until the time is over or somebody sets our latch; ends the process when the postmaster has died.
pub fn wait(time: Duration) {
    let flags = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let millis = time.as_millis().clamp(1, 3_600_000) as std::ffi::c_long;
    // SAFETY: MyLatch is this process's own.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, flags as c_int, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// Runs `body` in a transaction of its own and commits it; whatever is raised inside is returned, and rolled back.
pub fn attempt<R>(activity: &str, body: impl FnOnce() -> Outcome<R>) -> Result<R, Failure> {
    let activity = CString::new(activity).unwrap_or_default();
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: no transaction is open between attempts; the calls and their order are those of worker_spi.c.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let result = raise(body());
        // SAFETY: ends what was begun above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(result)
    }))
    .catch_others(|cause| {
        Err(match &cause {
            CaughtError::PostgresError(report)
            | CaughtError::ErrorReport(report)
            | CaughtError::RustPanic { ereport: report, .. } => Failure::from(report),
        })
    })
    .execute();
    // SAFETY: outside of any frame that holds something of the aborted transaction. AbortCurrentTransaction is right
    // in every state, also when the error struck before or after the transaction. A cancel that came too late for
    // this attempt must not hit the next. Statistics are sent by hand in workers; autovacuum lives on them.
    unsafe {
        if outcome.is_err() {
            pg_sys::AbortCurrentTransaction();
            (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        }
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        pg_sys::pgstat_report_stat(outcome.is_err());
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    outcome
}

/// Writes to the server's log.
pub fn log(level: PgLogLevel, failure: &Failure) {
    let mut report = ErrorReport::new(failure.state, failure.message.clone(), "meterflow");
    if let Some(detail) = &failure.detail {
        report = report.set_detail(detail.clone());
    }
    if let Some(hint) = &failure.hint {
        report = report.set_hint(hint.clone());
    }
    report.report(level);
}

/// Databases that can be connected to and are no templates. Inside an attempt.
pub fn databases() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    // SAFETY: pg_database is a shared catalogue and can be read without a database; the fixed part of its rows is
    // FormData_pg_database. The scan takes its own catalogue snapshot and everything opened is closed.
    unsafe {
        let rel = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let scan =
            pg_sys::systable_beginscan(rel, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            // A connection limit of -2 marks a database whose DROP was interrupted.
            if row.datallowconn && !row.datistemplate && row.datconnlimit != -2 {
                let name = CStr::from_ptr(row.datname.data.as_ptr()).to_string_lossy().into_owned();
                found.push((row.oid.into(), name));
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(rel, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
    found
}

/// Makes this process the only worker of its database until it ends; false when another already is. In an attempt.
pub fn claim_database() -> bool {
    // Unlike other session locks, those of the user lock method survive an abort.
    // SAFETY: inside a transaction.
    unsafe { try_lock(&mark(1), pg_sys::ExclusiveLock, true) }
}

/// Whether no session has paused the worker; if so none can until this transaction ends. In an attempt.
pub fn may_work() -> bool {
    // SAFETY: inside a transaction, with which the lock is released.
    unsafe { try_lock(&mark(2), pg_sys::ExclusiveLock, false) }
}

/// Keeps the worker from starting a job until this session ends, and waits for the one that runs.
pub fn pause() {
    // SAFETY: the same tag as in `may_work`; waits, and can be cancelled. Several sessions may hold it.
    unsafe {
        pg_sys::LockAcquire(&mark(2), pg_sys::ShareLock as pg_sys::LOCKMODE, true, false);
    }
}

/// Whether nobody waits for this database to be free of sessions. DROP DATABASE, ALTER DATABASE RENAME or SET
/// TABLESPACE and CREATE DATABASE TEMPLATE lock it first and then give other sessions 5 seconds to leave: a worker
/// that asks every second, and leaves, is never in their way. In an attempt, whose end releases the probing lock.
pub fn database_is_ours_to_use() -> bool {
    // SAFETY: the lock that every session takes while it connects, here without waiting.
    unsafe {
        let class = u32::from(pg_sys::DatabaseRelationId);
        let database = u32::from(pg_sys::MyDatabaseId);
        let tag = lock_tag(0, class, database, pg_sys::LockTagType::LOCKTAG_OBJECT, pg_sys::DEFAULT_LOCKMETHOD);
        try_lock(&tag, pg_sys::RowExclusiveLock, false)
    }
}

/// SAFETY: inside a transaction; the tag's fields are those that the tag type has in lock.h.
unsafe fn try_lock(tag: &pg_sys::LOCKTAG, mode: u32, session: bool) -> bool {
    // SAFETY: does not wait; the tag is copied.
    unsafe {
        pg_sys::LockAcquire(tag, mode as pg_sys::LOCKMODE, session, true)
            != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// A lock of this database that is known by our mark and a number.
fn mark(number: u32) -> pg_sys::LOCKTAG {
    // SAFETY: MyDatabaseId is set in any backend that runs SQL.
    let database = unsafe { pg_sys::MyDatabaseId };
    lock_tag(database.into(), MARK, number, pg_sys::LockTagType::LOCKTAG_USERLOCK, pg_sys::USER_LOCKMETHOD)
}

fn lock_tag(field1: u32, field2: u32, field3: u32, kind: u32, method: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: field1,
        locktag_field2: field2,
        locktag_field3: field3,
        locktag_field4: 0,
        locktag_type: kind as u8,
        locktag_lockmethodid: method as u8,
    }
}
