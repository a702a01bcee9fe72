//! The worker of one database: runs the jobs of meterflow.jobs() when they are due, each in a transaction of its own.
//!
//! It ends by itself, with exit code 0, when the extension is gone, when the settings no longer want it, when another
//! worker has the database, and when somebody waits for the database to be free of sessions: DROP DATABASE succeeds
//! while a worker is idle. During a job that runs for more than 5 seconds DROP DATABASE fails as it does with any
//! other session; DROP DATABASE ... WITH (FORCE) ends the job.
//!
//! A job that fails is tried again after 1, 2, 4, ... 300 seconds (at most 5 when it only lost a race for a lock);
//! the others go on as before. meterflow.job_status shows it, the log has it once, until it works again.
//!
//! While a dump is restored the worker must not touch what isn't complete yet. CREATE EXTENSION run by a restore (known
//! by row_security = off, which every dump sets) pauses the worker until its session ends; pg_restore --jobs is also
//! known by its sessions' name.
//!
//! A job that brings the server down must not do so once a second. So before the first run of a job in the life of a
//! worker the start is written down, durably; a worker that finds a start without an end counts it as a failure and
//! waits accordingly. That costs one commit a job in a worker's life. Successes are written at most every REPORT,
//! so that idle databases write (almost) nothing.
//!
//! Crash behaviour: jobs are transactions, nothing is in memory but when to run them next.

use std::time::{Duration, Instant};

use pgrx::{PgLogLevel, PgSqlErrorCode};

use super::wanted;
use crate::pg::bell;
use crate::pg::error::Outcome;
use crate::pg::spi::{self, See};
use crate::pg::worker as pg;

/// Longest sleep: how soon a dropped extension, or somebody who waits for the database, is noticed.
const TICK: Duration = Duration::from_secs(1);
/// The job that a COPY into the inbox calls, and the least time between two such calls: a client that commits row by row
/// must not make the worker look for each.
const INBOX_JOB: &str = "drain_inbox";
const INBOX_PAUSE: Duration = Duration::from_millis(100);
const REPORT: Duration = Duration::from_secs(10);
const RELOAD: Duration = Duration::from_secs(60);
const LONGEST_DELAY: Duration = Duration::from_secs(300);
const LONGEST_WAIT_FOR_LOCK: Duration = Duration::from_secs(5);

struct Job {
    name: String,
    call: String,
    /// A result this large says that there is more to do.
    full: Option<i64>,
    every: Duration,
    due: Instant,
    began: Option<Instant>,
    failures: u32,
    /// It has not run yet in the life of this worker.
    first: bool,
    reported: Option<Instant>,
    logged: Option<String>,
}

pg::worker_entry!(meterflow_worker_main, run);

fn run(database: u32) {
    pg::connect(Some(database));
    // ALTER DATABASE and ALTER ROLE may have set anything.
    pg::set(c"application_name", c"meterflow worker");
    pg::set(c"search_path", c"pg_catalog, pg_temp");
    pg::set(c"default_transaction_isolation", c"read committed"); // folding needs a snapshot for each statement
    pg::set(c"default_transaction_read_only", c"off");
    pg::set(c"default_transaction_deferrable", c"off");
    pg::set(c"lock_timeout", c"2s"); // never in the way of users: what can't be had soon is tried again later
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    pg::set(c"transaction_timeout", c"0"); // a long rebuild is not an accident; pg_cancel_backend() ends a job
    // Jobs rearrange what users have committed; the last of them lost in a crash are done again. This also keeps the
    // worker from waiting for a standby.
    pg::set(c"synchronous_commit", c"off");
    pg::set(c"jit", c"off");

    match pg::attempt("starting", || Ok(installed()?.filter(|_| pg::claim_database()))) {
        Ok(Some(extension)) => {
            bell::sit_down();
            serve(extension);
            bell::stand_up();
        }
        Ok(None) => {}
        Err(failure) => pg::log(PgLogLevel::WARNING, &failure),
    }
}

/// Whether jobs may run now; until the end of the transaction nobody can change that.
fn may_work() -> Outcome<bool> {
    const QUERY: &str = "
        SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pg_restore')";
    let restoring = spi::one(QUERY, &[], See::Statement, |row| row.bool(0))?;
    Ok(restoring == Some(false) && pg::may_work())
}

/// The extension's oid while there is something to do here. Dropped and created again it is another one: what this
/// worker knows is out of date then, and the launcher has been rung for the next.
fn installed() -> Outcome<Option<i64>> {
    const QUERY: &str = "
        SELECT current_database()::text, (SELECT oid::bigint FROM pg_extension WHERE extname = 'meterflow')";
    let here = spi::one(QUERY, &[], See::Statement, |row| Ok((row.text(0)?, row.get::<i64>(1))))?;
    Ok(match here {
        Some((name, Some(extension))) if wanted(&name) && pg::database_is_ours_to_use() => Some(extension),
        _ => None,
    })
}

/// What the worker does next.
enum Round {
    Leave,
    Pause,
    Reload(Vec<Job>),
    Work,
}

fn serve(extension: i64) {
    let mut jobs: Vec<Job> = Vec::new();
    let mut reload_at = Instant::now();
    let mut trouble: Option<String> = None;
    loop {
        if pg::heed_signals() {
            reload_at = Instant::now();
        }
        let reload = Instant::now() >= reload_at;
        let round = pg::attempt("looking for work", || match installed()? {
            Some(same) if same != extension => Ok(Round::Leave),
            None => Ok(Round::Leave),
            Some(_) if !may_work()? => Ok(Round::Pause),
            Some(_) if reload => Ok(Round::Reload(list()?)),
            Some(_) => Ok(Round::Work),
        });
        match round {
            Ok(Round::Leave) => return,
            Ok(Round::Pause) => {
                reload_at = Instant::now();
                pg::wait(TICK);
                continue;
            }
            Ok(Round::Reload(listed)) => {
                trouble = None;
                jobs = keep(jobs, listed);
                reload_at = Instant::now() + RELOAD;
            }
            Ok(Round::Work) => trouble = None,
            Err(failure) => {
                if trouble.as_ref() != Some(&failure.message) {
                    pg::log(PgLogLevel::WARNING, &failure);
                }
                trouble = Some(failure.message);
                pg::wait(LONGEST_WAIT_FOR_LOCK);
                continue;
            }
        }
        for job in &mut jobs {
            if job.due <= Instant::now() {
                pg::heed_signals();
                job.run();
            }
        }
        let next =
            jobs.iter().map(|job| job.due).min().map_or(TICK, |due| due.saturating_duration_since(Instant::now()));
        if !next.is_zero() {
            pg::wait(next.min(TICK));
        }
        if bell::inbox_rang()
            && let Some(job) = jobs.iter_mut().find(|job| job.name == INBOX_JOB && job.failures == 0)
        {
            job.due = job.due.min(job.began.map_or_else(Instant::now, |began| began + INBOX_PAUSE));
        }
    }
}

/// The jobs as the database has them, with what became of them in the life of the last worker.
fn list() -> Outcome<Vec<Job>> {
    const QUERY: &str = "
        SELECT j.job, j.call, j.full_batch, extract(epoch FROM j.every)::float8,
               coalesce(s.failures, 0),
               coalesce(extract(epoch FROM s.next_run - clock_timestamp()), 0)::float8,
               coalesce(s.last_started > greatest(s.last_finished, s.last_error_at, '-infinity'), false)
          FROM meterflow.jobs() j LEFT JOIN meterflow.job_status s USING (job)
         ORDER BY j.position";
    let now = Instant::now();
    let mut jobs = Vec::new();
    spi::run(QUERY, &[], See::Statement, |row| {
        let (recorded, interrupted) = (row.int4(4)?, row.bool(6)?);
        let failures = u32::try_from(recorded).unwrap_or(0) + u32::from(interrupted);
        let pause = if interrupted { delay(failures, false) } else { seconds(row.require(5)?).min(LONGEST_DELAY) };
        jobs.push(Job {
            name: row.text(0)?,
            call: row.text(1)?,
            full: row.get(2),
            every: seconds(row.require(3)?),
            due: if failures > 0 { now + pause } else { now },
            began: None,
            failures,
            first: true,
            reported: None,
            logged: None,
        });
        Ok(())
    })?;
    Ok(jobs)
}

/// The list as read again, with what this worker knows of each job.
fn keep(known: Vec<Job>, mut listed: Vec<Job>) -> Vec<Job> {
    for old in known {
        if let Some(job) = listed.iter_mut().find(|job| job.name == old.name) {
            let (call, full, every) = (std::mem::take(&mut job.call), job.full, job.every);
            let due = if old.failures == 0 { old.due.min(Instant::now() + every) } else { old.due };
            *job = Job { call, full, every, due, ..old };
        }
    }
    listed
}

impl Job {
    fn run(&mut self) {
        if self.first {
            // A start that can't be written is no reason not to work.
            let _ = record(&self.name, "started", 0.0, None, Duration::ZERO);
            self.first = false;
        }
        let began = Instant::now();
        self.began = Some(began);
        let outcome = pg::attempt(&self.call, || match pg::may_work() {
            true => spi::one(&self.call, &[], See::Write, |row| Ok(row.get::<i64>(0))),
            false => Ok(None), // paused since this round began: nothing done
        });
        let took = began.elapsed();
        match outcome {
            Ok(done) => {
                let more = self.full.is_some_and(|full| done.flatten().is_some_and(|done| done >= full));
                self.due = if more { Instant::now() } else { Instant::now() + self.every };
                if self.logged.take().is_some() {
                    log_recovery(&self.name);
                }
                if self.failures > 0 || self.reported.is_none_or(|at| at.elapsed() >= REPORT) {
                    let written = record(&self.name, "finished", took.as_secs_f64(), None, self.every);
                    self.reported = written.then(Instant::now);
                }
                self.failures = 0;
            }
            Err(failure) => {
                self.failures += 1;
                let pause = delay(self.failures, lost_a_race(failure.state));
                self.due = Instant::now() + pause;
                record(&self.name, "failed", took.as_secs_f64(), Some(&failure), pause);
                if self.logged.as_ref() != Some(&failure.message) {
                    log_failure(&self.name, &failure);
                    self.logged = Some(failure.message);
                }
            }
        }
    }
}

/// Another session had what the job needed: nothing is wrong, and it may be free in a moment.
fn lost_a_race(state: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode::*;
    matches!(state, ERRCODE_LOCK_NOT_AVAILABLE | ERRCODE_T_R_SERIALIZATION_FAILURE | ERRCODE_T_R_DEADLOCK_DETECTED)
}

fn delay(failures: u32, lost_a_race: bool) -> Duration {
    let longest = if lost_a_race { LONGEST_WAIT_FOR_LOCK } else { LONGEST_DELAY };
    Duration::from_secs(1 << failures.saturating_sub(1).min(9)).min(longest)
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0)).unwrap_or(LONGEST_DELAY)
}

/// Writes down how a job goes, in a transaction of its own; false when that was not possible.
fn record(job: &str, phase: &str, took: f64, failure: Option<&pg::Failure>, next: Duration) -> bool {
    const QUERY: &str = "SELECT meterflow.record_job($1, $2, $3, $4, $5, $6)";
    let text = failure.map(|failure| {
        let more = [("DETAIL", &failure.detail), ("HINT", &failure.hint)];
        let more = more.iter().filter_map(|(what, text)| text.as_ref().map(|text| format!("\n{what}: {text}")));
        failure.message.clone() + &more.collect::<String>()
    });
    let written = pg::attempt("recording", || {
        let code = failure.map(pg::Failure::sqlstate);
        let args = [
            job.to_string().into(),
            phase.to_string().into(),
            took.into(),
            code.into(),
            text.clone().into(),
            next.as_secs_f64().into(),
        ];
        spi::run(QUERY, &args, See::Write, |_| Ok(()))
    });
    if let Err(failure) = &written {
        pg::log(PgLogLevel::DEBUG1, failure);
    }
    written.is_ok()
}

fn log_failure(job: &str, failure: &pg::Failure) {
    let message = format!("meterflow job {job} failed: {}", failure.message);
    let level = if lost_a_race(failure.state) { PgLogLevel::LOG } else { PgLogLevel::WARNING };
    pg::log(level, &pg::Failure { message, ..failure.clone() });
}

fn log_recovery(job: &str) {
    let message = format!("meterflow job {job} works again");
    let state = PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION;
    pg::log(PgLogLevel::LOG, &pg::Failure { state, message, detail: None, hint: None });
}
