//! Renders one document and ends: a request as JSON on stdin, the result on stdout.
//!
//! A program and no library, because templates are written by tenants. What they can do to the process that runs
//! them — loop, recurse until the stack ends, double a string until memory does (which no Rust code survives: a failed
//! allocation aborts) — must not happen inside a backend, whose abort restarts the whole server. Here it ends this
//! process; the backend waits for it, interruptible as any query, and reports. It also keeps Typst's threads away
//! from a process whose signal handlers know nothing of threads, and its size out of every backend.
//!
//! Nothing else comes in: no file, no network, no clock. Exit 0: stdout is the document. Exit 1: stdout is a `Fault` as JSON. Anything else: the process was ended.

#![deny(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod document;
mod fault;
mod html;
mod pdf;
mod request;
mod world;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use fault::Fault;
use request::{Request, render};
use rustix::process::{Resource, Rlimit, setrlimit};

/// A stack that Typst's own limits of depth never reach the end of.
const STACK: usize = 64 << 20;

fn main() -> ExitCode {
    // What a panic says is in the fault; the server's log, which is our stderr, has no use for it.
    std::panic::set_hook(Box::new(|_| {}));
    let (code, bytes) = match answer() {
        Ok(bytes) => (ExitCode::SUCCESS, bytes),
        Err(fault) => (ExitCode::FAILURE, serde_json::to_vec(&fault).unwrap_or_default()),
    };
    // Nobody may be reading any more: the backend was ended. Then there is nothing left to say.
    match std::io::stdout().lock().write_all(&bytes) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer() -> Result<Vec<u8>, Fault> {
    let mut input = Vec::new();
    std::io::stdin().lock().read_to_end(&mut input).map_err(|error| Fault::internal(error.to_string()))?;
    let request: Request = serde_json::from_slice(&input).map_err(|error| Fault::internal(error.to_string()))?;
    limit(&request)?;
    // One thread, ours, with all of the stack: a backend has one core, and so has its document.
    let thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .stack_size(STACK)
        .build()
        .map_err(|error| Fault::internal(error.to_string()))?;
    thread.install(|| {
        catch_unwind(AssertUnwindSafe(|| render(&request))).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            Err(Fault::internal(said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic").to_string()))
        })
    })
}

/// The backend stops us when its time is over. Should it be gone, the kernel does. No core is dumped: it would be full
/// of customers' data.
fn limit(request: &Request) -> Result<(), Fault> {
    let limits = [
        (Resource::As, request.max_bytes),
        (Resource::Cpu, request.max_seconds),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| Fault::internal(format!("the limit of {resource:?} can't be set: {error}")))?;
    }
    Ok(())
}
