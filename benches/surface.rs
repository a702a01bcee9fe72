//! The SQL surface over real connections, each number beside a baseline from the same minutes. Needs a server:
//!
//!     tests/cluster run bench15 -- tests/cargo bench --bench surface
//!
//! Settings: MF_BENCH_QUICK=1 for a run of a minute or two. Names of parts as arguments (ingest, reads) run those only.

#[path = "surface/doors.rs"]
mod doors;
#[path = "surface/machine.rs"]
mod machine;
#[path = "surface/race.rs"]
mod race;
mod server;
mod workload;

use std::time::SystemTime;

use doors::Door;
use race::{Arena, Race, Side};
use server::Result;
use workload::{HOUR, Ids, Workload};

pub const CUSTOMERS: u32 = 1_000;

/// How much is measured.
pub struct Size {
    pub rounds: u64,
    /// Per round and side.
    pub events: u64,
}

fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

fn main() -> Result<()> {
    let quick = std::env::var_os("MF_BENCH_QUICK").is_some_and(|value| !value.is_empty() && value != "0");
    let size = if quick { Size { rounds: 3, events: 60_000 } } else { Size { rounds: 7, events: 200_000 } };
    let mut control = server::connect("postgres")?;
    println!("{}", machine::settings(&mut control)?);
    ingest(&size)
}

/// Two sessions, batches of 1,000, the events of the last two hours in order of time.
fn ingest(size: &Size) -> Result<()> {
    let mut arena = Arena::new("meterflow_bench")?;
    let workload = Workload::new(1, Ids::Random, CUSTOMERS, (now() - 2 * HOUR, now()), size.rounds * size.events);
    let sides = vec![
        Side { name: "ingest(json)", door: Door::Json },
        Side { name: "ingest(json), everything a duplicate", door: Door::Json },
        Side { name: "COPY, no duplicates", door: Door::Copy },
    ];
    let race = Race::run(&mut arena, sides, &workload, size.rounds, size.events)?;
    race.print("Random v4 ids, 1% duplicates");
    arena.end()
}
