//! Sides that take turns: the same load through different doors, round after round, so that noise meets all alike.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use postgres::Client;

use crate::doors::{self, BASELINE, BATCH, Batch, Door, METERS};
use crate::machine::{self, Cpu, Machine};
use crate::server::{self, Result, grouped};
use crate::workload::Workload;

pub const SESSIONS: usize = 2;

pub struct Side {
    pub name: &'static str,
    pub door: Door,
}

impl Side {
    pub fn new(name: &'static str, door: Door) -> Side {
        Side { name, door }
    }
}

#[derive(Clone, Copy, Default)]
pub struct Run {
    pub events: f64,
    pub accepted: u64,
    /// Until the last batch was committed (for the inbox: until it was drained).
    pub seconds: f64,
    /// And until all of it was folded.
    pub settled: f64,
    /// Until settled.
    pub cpu: Cpu,
    pub wal: f64,
}

impl Run {
    pub fn rate(&self) -> f64 {
        self.events / self.seconds
    }
}

/// A database with the extension, the meters, the baseline's table, and sessions.
pub struct Arena {
    pub control: Client,
    sessions: Vec<Client>,
    pub machine: Machine,
    name: String,
}

impl Arena {
    pub fn new(name: &str) -> Result<Arena> {
        let mut control = server::create_database(name)?;
        control.batch_execute(METERS)?;
        control.batch_execute(BASELINE)?;
        server::settle(&mut control)?;
        control.batch_execute("CHECKPOINT")?;
        let sessions = (0..SESSIONS).map(|_| server::connect(name)).collect::<Result<_>>()?;
        Ok(Arena { machine: Machine::of(&mut control)?, control, sessions, name: name.to_string() })
    }

    pub fn end(self) -> Result<()> {
        drop((self.control, self.sessions));
        server::drop_database(&self.name)
    }

    /// Sends the batches and waits until they are folded, watching what that costs.
    pub fn measure(&mut self, door: Door, batches: &[Batch]) -> Result<Run> {
        let (cpu, wal) = (self.machine.cpu(), machine::wal(&mut self.control)?);
        let began = Instant::now();
        let (mut seconds, accepted) = self.send(door, batches)?;
        if door == Door::Inbox {
            server::wait_until(&mut self.control, "NOT EXISTS (SELECT FROM meterflow.inbox)")?;
            seconds = began.elapsed().as_secs_f64();
        }
        if matches!(door, Door::Json | Door::Rows | Door::Inbox) {
            server::settle(&mut self.control)?;
        }
        Ok(Run {
            events: batches.len() as f64 * BATCH as f64,
            accepted,
            seconds,
            settled: began.elapsed().as_secs_f64(),
            cpu: self.machine.cpu() - cpu,
            wal: machine::wal(&mut self.control)? - wal,
        })
    }

    /// Sends the batches through the door from all sessions at once, each session the next one that is left. Returns
    /// how long that took and how many events were accepted.
    pub fn send(&mut self, door: Door, batches: &[Batch]) -> Result<(f64, u64)> {
        let (next, start) = (AtomicUsize::new(0), Barrier::new(SESSIONS + 1));
        let work = |session: &mut Client| -> Result<u64> {
            let statement = door.prepare(session);
            start.wait();
            let statement = statement?;
            let mut accepted = 0;
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                accepted += doors::send(session, &statement, batch)?;
            }
            Ok(accepted)
        };
        thread::scope(|scope| {
            let threads: Vec<_> = self.sessions.iter_mut().map(|session| scope.spawn(|| work(session))).collect();
            start.wait();
            let began = Instant::now();
            let accepted = threads.into_iter().map(|thread| thread.join().expect("no panics")).sum::<Result<u64>>()?;
            Ok((began.elapsed().as_secs_f64(), accepted))
        })
    }
}

pub struct Race {
    pub sides: Vec<Side>,
    pub runs: Vec<Vec<Run>>,
}

impl Race {
    /// The last side is the baseline. In each round every side gets the round's batches of `events` events.
    pub fn run(arena: &mut Arena, sides: Vec<Side>, workload: &Workload, rounds: u64, events: u64) -> Result<Race> {
        let mut runs = vec![Vec::new(); sides.len()];
        for round in 0..rounds {
            // Sides with the same door get the same batches: the later one only duplicates.
            let mut made: HashMap<Door, Vec<Batch>> = HashMap::new();
            for (side, runs) in sides.iter().zip(&mut runs) {
                let places = round * events..(round + 1) * events;
                let replayed = made.contains_key(&side.door);
                let batches = match made.entry(side.door) {
                    Entry::Occupied(batches) => batches.into_mut(),
                    Entry::Vacant(place) => place.insert(side.door.batches(workload, places.start, events)?),
                };
                let run = arena.measure(side.door, batches)?;
                let fresh = places.filter(|&i| !replayed && !workload.repeats(i)).count() as u64;
                if matches!(side.door, Door::Json | Door::Rows) && run.accepted != fresh {
                    return Err(format!("{}: {} of {fresh} new events were accepted", side.name, run.accepted).into());
                }
                runs.push(run);
            }
        }
        Ok(Race { sides, runs })
    }

    pub fn median(&self, side: usize, measure: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs[side].iter().map(measure).collect())
    }

    /// Median over rounds of a side against the baseline in the same round.
    fn against(&self, side: usize, measure: impl Fn(&Run) -> f64) -> f64 {
        let Some(baseline) = self.runs.last() else { return f64::NAN };
        median(self.runs[side].iter().zip(baseline).map(|(run, base)| measure(run) / measure(base)).collect())
    }

    pub fn print(&self, title: &str) {
        println!("\n{title}");
        println!(
            "{:46} {:>9} {:>7} {:>7} {:>11} {:>7} {:>7} {:>8}",
            "", "events/s", "ratio", "settled", "CPU s/M ev", "ratio", "folding", "WAL B/ev"
        );
        for (i, side) in self.sides.iter().enumerate() {
            let is_baseline = i + 1 == self.sides.len();
            let ratio = |value: f64| if is_baseline { String::from("1") } else { format!("{value:.2}") };
            println!(
                "{:46} {:>9} {:>7} {:>6.2}s {:>11.2} {:>7} {:>7.2} {:>8}",
                format!("  {}{}", if is_baseline { "baseline: " } else { "" }, side.name),
                grouped(self.median(i, Run::rate)),
                ratio(self.against(i, Run::rate)),
                self.median(i, |run| run.settled - run.seconds),
                self.median(i, |run| run.cpu.server / run.events * 1e6),
                ratio(self.against(i, |run| run.cpu.server / run.events)),
                self.median(i, |run| run.cpu.worker / run.events * 1e6),
                grouped(self.median(i, |run| run.wal / run.events)),
            );
        }
        let all = || self.runs.iter().flatten();
        let share = |measure: &dyn Fn(&Run) -> f64| {
            100.0 * all().map(measure).sum::<f64>() / all().map(|run| run.settled).sum::<f64>()
        };
        println!(
            "  {} rounds; meanwhile the client took {:.0}% of a core, work that is none of ours {:.0}%",
            self.runs[0].len(),
            share(&|run| run.cpu.client),
            share(&|run| run.cpu.others()),
        );
    }
}

pub fn median(values: Vec<f64>) -> f64 {
    percentile(&values, 0.5)
}

/// The value that this share of them is not above.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or(f64::NAN)
}
