//! A program of ours that works for a backend: started, fed, waited for, never left behind.
//!
//! The wait is the server's own, on the latch: a cancelled query, a terminated session, a statement timeout and a
//! dead postmaster end it at once. However the caller leaves — by its result, by an ERROR that unwinds, by a FATAL
//! that does not — the program is killed and reaped first. A postmaster that is process 1, as in a container, would
//! otherwise inherit it, and take the death of a child that it doesn't know for a crashed backend.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::error::{Fail, Outcome, SqlState};

/// How a run ended and what it wrote.
pub struct Run {
    pub status: ExitStatus,
    pub output: Vec<u8>,
}

/// The one that is running. A backend does one thing at a time, so there is one.
static RUNNING: Mutex<Option<Child>> = Mutex::new(None);

/// A pipe takes this much at once without blocking, whenever it takes anything.
const PIPE_BUF: usize = 4096;

/// Runs `name`, which stands beside the extension's library, on `input`.
pub fn run(name: &str, input: &[u8], time: Duration, max_output: usize) -> Outcome<Run> {
    reap_at_exit();
    let deadline = Instant::now() + time;
    let path = beside_library(name);
    let mut child = Command::new(&path)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            let state = match error.kind() {
                std::io::ErrorKind::NotFound => SqlState::ERRCODE_UNDEFINED_FILE,
                std::io::ErrorKind::PermissionDenied => SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
                _ => SqlState::ERRCODE_SYSTEM_ERROR,
            };
            Fail::new(state, format!("the program {name} can not be started"))
                .detail(format!("{}: {error}.", path.display()))
                .hint("It is installed with the extension, by make install or from the package: install it again.")
        })?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    hold(Some(child));
    let reaped = Reaped;
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(broken("it has no pipes"));
    };

    // The program reads all before it writes, so the two directions never wait for each other. One that ends early
    // says why in its output, or by its status.
    let mut to = File::from(OwnedFd::from(stdin));
    for part in input.chunks(PIPE_BUF) {
        wait(to.as_raw_fd(), pg_sys::WL_SOCKET_WRITEABLE, deadline, time)?;
        if to.write_all(part).is_err() {
            break;
        }
    }
    drop(to);

    let mut from = File::from(OwnedFd::from(stdout));
    let mut output = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        wait(from.as_raw_fd(), pg_sys::WL_SOCKET_READABLE, deadline, time)?;
        let read = from.read(&mut buffer).map_err(|error| broken(&error.to_string()))?;
        if read == 0 {
            break;
        }
        output.extend_from_slice(&buffer[..read]);
        if output.len() > max_output {
            return Err(Fail::new(
                SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the output of {name} is too large"),
            )
            .detail(format!("It is more than {max_output} bytes.")));
        }
    }
    let child = hold(None);
    std::mem::forget(reaped);
    let status = child.ok_or_else(|| broken("it is gone"))?.wait().map_err(|error| broken(&error.to_string()))?;
    // The server signals our whole process group: what cancels the query can end the program first, which must not be
    // taken for its own failure.
    super::lock::check_for_interrupts();
    Ok(Run { status, output })
}

/// Kills and reaps what is running, when the caller leaves before its end.
struct Reaped;

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(mut child) = hold(None) {
            // Both fail only for one that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn hold(child: Option<Child>) -> Option<Child> {
    std::mem::replace(&mut *RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), child)
}

/// A FATAL leaves without unwinding, but not without this.
fn reap_at_exit() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        unsafe extern "C-unwind" fn reap(_code: std::ffi::c_int, _argument: pg_sys::Datum) {
            drop(Reaped);
        }
        // SAFETY: the callback raises nothing and uses nothing of PostgreSQL's. The library is never unloaded.
        unsafe { pg_sys::on_proc_exit(Some(reap), pg_sys::Datum::from(0)) }
    }
}

/// Until the pipe is ready; an interrupt raises its ERROR here.
fn wait(pipe: std::ffi::c_int, ready: u32, deadline: Instant, time: Duration) -> Outcome<()> {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH | ready;
    loop {
        super::lock::check_for_interrupts();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fail::new(SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "this document takes too long to render")
                .detail(format!("It was stopped after {} s.", time.as_secs()))
                .hint("A template that loops never ends; for a long document raise meterflow.document_timeout."));
        }
        let millis = left.as_millis().clamp(1, 60_000) as std::ffi::c_long;
        // SAFETY: MyLatch is this process's own, the pipe is open while its File is.
        let happened = unsafe {
            let happened = pg_sys::WaitLatchOrSocket(
                pg_sys::MyLatch,
                events as std::ffi::c_int,
                pipe as pg_sys::pgsocket,
                millis,
                pg_sys::PG_WAIT_EXTENSION,
            );
            if happened as u32 & pg_sys::WL_LATCH_SET != 0 {
                pg_sys::ResetLatch(pg_sys::MyLatch);
            }
            happened as u32
        };
        if happened & ready != 0 {
            return Ok(());
        }
    }
}

fn beside_library(name: &str) -> PathBuf {
    // SAFETY: set once at the start of the server, ends with a zero.
    let library = unsafe { CStr::from_ptr((&raw const pg_sys::pkglib_path).cast()) };
    PathBuf::from(OsStr::from_bytes(library.to_bytes())).join(name)
}

fn broken(what: &str) -> Fail {
    Fail::new(SqlState::ERRCODE_SYSTEM_ERROR, "the program that renders documents can not be talked to")
        .detail(format!("{what}."))
}
