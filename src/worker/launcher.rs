//! The launcher sees to it that every database with meterflow has its worker.
//!
//! It is connected to no database and can't tell which of them have the extension: only a worker inside can. So it
//! starts a worker in each database, and a worker that finds no extension ends at once, with exit code 0.
//!
//! Cost. A database whose worker didn't stay is tried again after 10 seconds (meterflow.launcher_interval), then
//! 20, 40, ... up to PATIENCE. At most STARTING are tried at a time, each for some 10 ms: a hundred databases without
//! the extension cost one short process every 3 seconds, and never take the worker slots of the server.
//!
//! Speed. CREATE EXTENSION rings the doorbell (pg/worker.rs) when it commits: the database is tried at once.
//!
//! Crash behaviour. Everything here is in memory of this process. After a crash, or a kill of the launcher, all
//! databases are tried again, and a worker that finds another at work ends (database.rs, claim). A worker that fails
//! comes back with the same doubling patience, unless it had stayed for a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::PgLogLevel;
use pgrx::bgworkers::{BackgroundWorkerStatus, DynamicBackgroundWorker};

use super::{LAUNCHER_INTERVAL, wanted};
use crate::pg::bell;
use crate::pg::worker as pg;

const PATIENCE: Duration = Duration::from_secs(300);
const STARTING: usize = 2;
/// A worker that still runs after this has found work to do, and makes room for the next to be tried.
const SETTLED: Duration = Duration::from_secs(1);
/// A worker that ran for this long had no trouble of its own.
const STAYED: Duration = Duration::from_secs(60);

struct Database {
    name: String,
    worker: Option<DynamicBackgroundWorker>,
    started: Instant,
    due: Instant,
    delay: Duration,
    /// It rang while it had a worker: if that one ends, it is tried again without delay.
    rang: bool,
}

pg::worker_entry!(meterflow_launcher_main, run);

fn run(_: u32) {
    pg::connect(None);
    let mut databases: HashMap<u32, Database> = HashMap::new();
    let mut look_at = Instant::now();
    let mut complained = false;
    loop {
        if pg::heed_signals() {
            look_at = Instant::now();
        }
        let rang = bell::answer();
        if Instant::now() >= look_at || rang.iter().any(|oid| !databases.contains_key(oid)) {
            match pg::attempt("looking for databases", || Ok(pg::databases())) {
                Ok(found) => remember(&mut databases, found),
                Err(failure) => pg::log(PgLogLevel::WARNING, &failure),
            }
            look_at = Instant::now() + interval();
        }
        for oid in rang {
            if let Some(database) = databases.get_mut(&oid) {
                database.delay = interval();
                database.due = Instant::now();
                database.rang = database.worker.is_some();
            }
        }
        databases.values_mut().for_each(reap);
        start(&mut databases, &mut complained);
        pg::wait(next(&databases, look_at).saturating_duration_since(Instant::now()));
    }
}

fn interval() -> Duration {
    Duration::from_secs(u64::try_from(LAUNCHER_INTERVAL.get()).unwrap_or(10))
}

/// Takes in the databases that there are; one that is gone is forgotten once its worker is.
fn remember(databases: &mut HashMap<u32, Database>, found: Vec<(u32, String)>) {
    let now = Instant::now();
    databases.retain(|oid, database| database.worker.is_some() || found.iter().any(|(there, _)| there == oid));
    for (oid, name) in found {
        let new =
            Database { name: String::new(), worker: None, started: now, due: now, delay: interval(), rang: false };
        databases.entry(oid).or_insert(new).name = name;
    }
}

/// Notices that a worker has ended, and decides when the database is tried again.
fn reap(database: &mut Database) {
    let ended =
        database.worker.as_ref().is_some_and(|worker| matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped)));
    if !ended {
        return;
    }
    database.worker = None;
    if database.started.elapsed() >= STAYED {
        database.delay = interval();
    }
    database.due = if database.rang { Instant::now() } else { Instant::now() + database.delay };
    database.delay = (database.delay * 2).min(PATIENCE.max(interval()));
    database.rang = false;
}

/// Starts the workers that are due, the longest waiting first, few at a time.
fn start(databases: &mut HashMap<u32, Database>, complained: &mut bool) {
    let now = Instant::now();
    let starting = databases.values().filter(|d| d.worker.is_some() && d.started.elapsed() < SETTLED).count();
    let mut due: Vec<(&u32, &mut Database)> =
        databases.iter_mut().filter(|(_, d)| d.worker.is_none() && d.due <= now && wanted(&d.name)).collect();
    due.sort_by_key(|(_, database)| database.due);
    for (oid, database) in due.into_iter().take(STARTING.saturating_sub(starting)) {
        database.started = now;
        database.worker = pg::start_database_worker(*oid, &database.name);
        if database.worker.is_some() {
            *complained = false;
            continue;
        }
        database.due = now + interval();
        if !*complained {
            *complained = true;
            pg::log(
                PgLogLevel::WARNING,
                &pg::Failure {
                    state: pgrx::PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                    message: format!("meterflow could not start a worker for database \"{}\"", database.name),
                    detail: Some("All worker processes of the server are in use. It will be tried again.".to_string()),
                    hint: Some(
                        "Raise max_worker_processes, or name the databases that need a worker in meterflow.databases."
                            .to_string(),
                    ),
                },
            );
        }
    }
}

/// When there may be something to do. Workers that start or end set our latch, too.
fn next(databases: &HashMap<u32, Database>, look_at: Instant) -> Instant {
    let due = |database: &Database| match &database.worker {
        None if wanted(&database.name) => Some(database.due.max(Instant::now() + SETTLED / 4)),
        _ => None,
    };
    databases.values().filter_map(due).min().map_or(look_at, |first| first.min(look_at))
}
