//! The SQL surface over real connections, each number beside a baseline from the same minutes. Needs a server:
//!
//!     tests/cluster run bench15 -- tests/cargo bench --bench surface
//!
//! Settings: MF_BENCH_QUICK=1 for a run of a minute or two. Names of parts as arguments (ingest, reads, pricing,
//! billing, ledger, balances) run those only.

#[path = "surface/billing.rs"]
mod billing;
#[path = "surface/doors.rs"]
mod doors;
#[path = "surface/ledger.rs"]
mod ledger;
#[path = "surface/machine.rs"]
mod machine;
#[path = "surface/pricing.rs"]
mod pricing;
#[path = "surface/race.rs"]
mod race;
#[path = "surface/reads.rs"]
mod reads;
mod server;
#[path = "surface/sizes.rs"]
mod sizes;
mod workload;

use std::time::SystemTime;

use doors::Door;
use race::{Arena, Race, Side};
use server::{Result, grouped};
use workload::{HOUR, Ids, Workload};

pub const DATABASE: &str = "meterflow_bench";
pub const CUSTOMERS: u32 = 1_000;

fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

fn main() -> Result<()> {
    let quick = std::env::var_os("MF_BENCH_QUICK").is_some_and(|value| !value.is_empty() && value != "0");
    let parts: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);

    print!("{}", machine::settings(&mut server::connect("postgres")?)?);
    println!("{CUSTOMERS} customers, five meters: count, sum, filtered sum by a dimension, unique_count, max");
    if wanted("ingest") {
        let (rounds, events) = if quick { (3, 50_000) } else { (7, 200_000) };
        println!(
            "\nIngest from {} sessions in batches of {}, {rounds} rounds of {} events a side, of the last two hours in order of time;",
            race::SESSIONS,
            grouped(doors::BATCH as f64),
            grouped(events as f64),
        );
        println!(
            "settled: until all is folded, too; CPU of the whole server until then; ratios are medians over rounds"
        );
        ingest(rounds, events)?;
    }
    if wanted("reads") {
        let plan = if quick {
            reads::Plan { sizes: vec![200_000], calls: 500 }
        } else {
            reads::Plan { sizes: vec![1_000_000, 10_000_000], calls: 3_000 }
        };
        reads::measure(&plan)?;
    }
    if wanted("pricing") {
        let (rows, rounds) = if quick { (200_000, 5) } else { (1_000_000, 7) };
        pricing::measure(rows, rounds)?;
    }
    if wanted("billing") {
        billing::measure(if quick { &[500, 2_000] } else { &[1_000, 10_000, 100_000] })?;
    }
    if wanted("ledger") {
        let slice = |milliseconds| std::time::Duration::from_millis(milliseconds);
        ledger::measure(&if quick {
            ledger::Plan { sessions: &[2, 64], rounds: 3, slice: slice(400) }
        } else {
            ledger::Plan { sessions: &[2, 8, 64], rounds: 7, slice: slice(1_000) }
        })?;
    }
    if wanted("balances") {
        ledger::balances(if quick { 300 } else { 3_000 })?;
    }
    Ok(())
}

fn ingest(rounds: u64, events: u64) -> Result<()> {
    let baseline = || Side::new("COPY, no duplicates", Door::Copy);
    let race = |ids: Ids, title: &str, mut sides: Vec<Side>, rounds: u64| -> Result<()> {
        let mut arena = Arena::new(DATABASE)?;
        let workload = Workload::new(1, ids, CUSTOMERS, (now() - 2 * HOUR, now()), rounds * events);
        sides.push(baseline());
        let replayed = sides.len() > 2;
        Race::run(&mut arena, sides, &workload, rounds, events)?.print(title);
        if replayed {
            sizes::print(&mut arena.control, "two hours of events", Some((rounds * events) as f64))?;
        }
        arena.end()
    };
    let json = |name| Side::new(name, Door::Json);
    race(
        Ids::Random,
        "Random ids (UUIDv4), 1% duplicates",
        vec![json("ingest(json)"), json("ingest(json) of the same: all duplicates")],
        rounds,
    )?;
    race(Ids::TimeOrdered, "Time-ordered ids (UUIDv7), 1% duplicates", vec![json("ingest(json)")], rounds.min(3))?;
    race(Ids::Random, "Arrays", vec![Side::new("ingest_rows(...)", Door::Rows)], rounds.min(3))?;
    race(
        Ids::Random,
        "The asynchronous door",
        vec![Side::new("COPY inbox, and drained by the worker", Door::Inbox)],
        rounds.min(3),
    )
}
