//! What runs by itself on a server that preloads meterflow: one launcher, and one worker in each database that has
//! the extension. Workers do what `SELECT meterflow.maintain()` does by hand and nothing else, so nothing depends on
//! them; the list of jobs is the SQL function meterflow.jobs().

mod database;
mod launcher;

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_extern};

use crate::pg;

/// Whether workers run, on or off (default on). Off stops those that run, for instance while an operator repairs
/// something by hand; reads stay exact and only get slower.
static WORKERS: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Time between two folds, and between two looks at the inbox that no COPY has asked for, in milliseconds. A fold costs by the groups it touches,
/// a read by the batches not folded. 2 seconds: at 100 batches a second a reader unpacks some 200 small rows, and
/// folding takes half of what it took at 1 second. Raise it on a server with many idle databases.
static FOLD_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(2_000);

/// Time between two looks of the launcher for databases and for workers that have ended, in seconds. 10: soon enough
/// for what is an accident; CREATE EXTENSION doesn't wait for it (see launcher.rs).
static LAUNCHER_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10);

/// Databases that get a worker, separated by commas; `*` (default) is every database. Name them on a server with
/// very many databases, each of which is otherwise looked into, once in 5 minutes, for the extension.
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));

pub fn define_settings() {
    GucRegistry::define_bool_guc(
        c"meterflow.workers",
        c"Runs a worker in each database that has meterflow.",
        c"Needs meterflow in shared_preload_libraries.",
        &WORKERS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"meterflow.fold_interval",
        c"Time between two folds.",
        c"Also between two looks at the inbox when nothing came in. Reads are exact whatever it is.",
        &FOLD_INTERVAL,
        10,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"meterflow.launcher_interval",
        c"Time between two looks for databases without a worker.",
        c"",
        &LAUNCHER_INTERVAL,
        1,
        3_600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_string_guc(
        c"meterflow.databases",
        c"Databases that get a worker, separated by commas; * is every database.",
        c"",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// Called from _PG_init. Without preloading there is nothing to register, and nothing is lost but convenience.
pub fn register() {
    if pg::worker::preloading() {
        pg::worker::register_launcher();
    }
}

/// Whether the settings give this database a worker.
fn wanted(database: &str) -> bool {
    let listed = |list: &str| {
        list.split(',').map(|name| name.trim().trim_matches('"')).any(|name| name == "*" || name == database)
    };
    WORKERS.get() && DATABASES.get().is_some_and(|list| listed(&list.to_string_lossy()))
}

/// Asks the launcher to look at this database as soon as the transaction has committed: CREATE EXTENSION does.
/// False when the library isn't preloaded, and so nobody listens.
#[pg_extern(sql = "")]
fn wake_worker() -> bool {
    pg::bell::ring_at_commit()
}

/// Keeps this database's worker from starting jobs until the session ends; waits for the job that runs.
#[pg_extern(sql = "")]
fn pause_worker() {
    pg::worker::pause();
}

/// Why the database has a worker or has none: `expected`, or the reason against it.
#[pg_extern(sql = "")]
fn worker_mode(database: &str) -> &'static str {
    if !pg::worker::preloaded() {
        "not preloaded"
    } else if pg::lock::in_recovery() {
        "standby"
    } else if !WORKERS.get() {
        "switched off"
    } else if !wanted(database) {
        "database not selected"
    } else {
        "expected"
    }
}
