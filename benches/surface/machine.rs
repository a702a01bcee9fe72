//! What the server spends: CPU of its processes, WAL.

use std::collections::HashMap;
use std::fs;
use std::ops::Sub;
use std::process::{Command, Stdio};

use postgres::Client;

use crate::server::Result;

/// CPU seconds spent so far. All zero where there is no /proc, or no right to look.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// The whole server, processes that have ended included.
    pub server: f64,
    /// Of it, meterflow's worker: folding, draining the inbox.
    pub worker: f64,
    /// This process: making the requests and reading the answers.
    pub client: f64,
    /// The machine, all that it did.
    pub machine: f64,
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, earlier: Cpu) -> Cpu {
        Cpu {
            server: self.server - earlier.server,
            worker: self.worker - earlier.worker,
            client: self.client - earlier.client,
            machine: self.machine - earlier.machine,
        }
    }
}

impl Cpu {
    /// Work on the machine that was none of ours.
    pub fn others(&self) -> f64 {
        (self.machine - self.server - self.client).max(0.0)
    }
}

pub struct Machine {
    postmaster: u32,
}

struct Process {
    pid: u32,
    parent: u32,
    own: f64,
    /// Of its children that have ended.
    ended: f64,
}

/// The kernel counts in hundredths of a second on every platform that PostgreSQL is run on.
const TICKS: f64 = 100.0;

impl Machine {
    pub fn of(client: &mut Client) -> Result<Machine> {
        let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let postmaster = u32::try_from(backend).ok().and_then(process).map_or(0, |process| process.parent);
        Ok(Machine { postmaster })
    }

    pub fn cpu(&self) -> Cpu {
        let mut cpu = Cpu { machine: machine_cpu().unwrap_or_default(), ..Cpu::default() };
        if let Some(this) = process(std::process::id()) {
            cpu.client = this.own;
        }
        let Some(postmaster) = process(self.postmaster).filter(|_| self.postmaster > 1) else { return cpu };
        cpu.server = postmaster.own + postmaster.ended;
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for child in pids.filter_map(process).filter(|process| process.parent == self.postmaster) {
            cpu.server += child.own;
            let title = fs::read_to_string(format!("/proc/{}/cmdline", child.pid)).unwrap_or_default();
            if title.contains("meterflow worker") {
                cpu.worker += child.own;
            }
        }
        cpu
    }
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything: state, parent, ..., utime, stime, cutime, cstime.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let seconds = |field: usize| fields.get(field)?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    let (own, ended) = (seconds(11)? + seconds(12)?, seconds(13)? + seconds(14)?);
    Some(Process { pid, parent: fields.get(1)?.parse().ok()?, own, ended })
}

/// Seconds that a process has run so far; exact while it sleeps.
pub fn on_cpu(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).map_or(0.0, |ran| ran / 1e9)
}

/// Lets the thread that asks and the backend that answers run before all else (at a real-time priority), or not any more:
/// so they find a core free whenever a question comes, as they would on a machine with one more. False where that is not
/// ours to say. What they start then is as ever.
pub fn go_first(backend: i32, first: bool) -> bool {
    let this = std::process::id().to_string();
    let policy: &[&str] = if first { &["-R", "-f", "-p", "1"] } else { &["-o", "-p", "0"] };
    [this, backend.to_string()].iter().all(|pid| {
        let chrt = Command::new("chrt").args(policy).arg(pid).stderr(Stdio::null()).status();
        chrt.is_ok_and(|status| status.success())
    })
}

fn machine_cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system; not idle, iowait.
    Some(fields.get(..3)?.iter().sum::<f64>() / TICKS)
}

/// Bytes of WAL written so far.
pub fn wal(client: &mut Client) -> Result<f64> {
    Ok(client.query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8", &[])?.get(0))
}

/// PostgreSQL's version and the settings that numbers depend on, a line each.
pub fn settings(client: &mut Client) -> Result<String> {
    let version: String = client.query_one("SELECT 'PostgreSQL ' || current_setting('server_version')", &[])?.get(0);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut out = format!("{version}, {cores} cores, client on the same machine\n");
    let names = [
        "shared_buffers",
        "synchronous_commit",
        "fsync",
        "full_page_writes",
        "wal_compression",
        "max_wal_size",
        "checkpoint_timeout",
        "wal_level",
        "shared_preload_libraries",
    ];
    let shown: HashMap<String, String> = client
        .query("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY ($1)", &[&names.as_slice()])?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for line in names.chunks(5) {
        let line: Vec<String> =
            line.iter().filter_map(|name| Some(format!("{name} = {}", shown.get(*name)?))).collect();
        out += &format!("{}\n", line.join(", "));
    }
    Ok(out)
}
