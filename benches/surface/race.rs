//! Sides that take turns: the same load through different doors, round after round, so that noise meets all alike.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use postgres::Client;

use crate::doors::{self, BASELINE, Batch, Door, METERS};
use crate::machine::{self, Cpu, Machine};
use crate::server::{self, Result, grouped};
use crate::workload::Workload;

pub const SESSIONS: usize = 2;
pub const BATCH: u64 = 1_000;

pub struct Side {
    pub name: &'static str,
    pub door: Door,
}

#[derive(Clone, Copy, Default)]
pub struct Run {
    pub events: f64,
    pub accepted: f64,
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
    pub sessions: Vec<Client>,
    machine: Machine,
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

    /// Sends the batches through the door from all sessions at once, each session the next one that is left.
    pub fn run(&mut self, door: Door, batches: &[Batch]) -> Result<Run> {
        let (next, start) = (AtomicUsize::new(0), Barrier::new(SESSIONS + 1));
        let (cpu, wal) = (self.machine.cpu(), machine::wal(&mut self.control)?);
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
        let (began, accepted) = thread::scope(|scope| {
            let threads: Vec<_> = self.sessions.iter_mut().map(|session| scope.spawn(|| work(session))).collect();
            start.wait();
            let began = Instant::now();
            let accepted = threads.into_iter().map(|thread| thread.join().expect("no panics")).sum::<Result<u64>>();
            (began, accepted)
        });
        let accepted = accepted?;
        if door == Door::Inbox {
            let waiting = self.control.prepare("SELECT EXISTS (SELECT FROM meterflow.inbox)")?;
            let worker: bool = self.control.query_one("SELECT meterflow.worker_mode() = 'expected'", &[])?.get(0);
            while self.control.query_one(&waiting, &[])?.get(0) {
                if worker {
                    thread::sleep(std::time::Duration::from_millis(5));
                } else {
                    self.control.batch_execute("SELECT meterflow.maintain()")?;
                }
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        if door != Door::Copy {
            server::settle(&mut self.control)?;
        }
        Ok(Run {
            events: batches.len() as f64 * BATCH as f64,
            accepted: accepted as f64,
            seconds,
            settled: began.elapsed().as_secs_f64(),
            cpu: self.machine.cpu() - cpu,
            wal: machine::wal(&mut self.control)? - wal,
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
            let mut made: HashMap<u8, Vec<Batch>> = HashMap::new();
            for (side, runs) in sides.iter().zip(&mut runs) {
                let batches = match made.entry(side.door as u8) {
                    std::collections::hash_map::Entry::Occupied(batches) => batches.into_mut(),
                    std::collections::hash_map::Entry::Vacant(place) => {
                        let firsts = (round * events..(round + 1) * events).step_by(BATCH as usize);
                        place.insert(firsts.map(|at| side.door.batch(workload, at..at + BATCH)).collect::<Result<_>>()?)
                    }
                };
                runs.push(arena.run(side.door, batches)?);
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
        println!("{:46} {:>9} {:>7} {:>7} {:>11} {:>7} {:>7} {:>8}", "", "events/s", "ratio", "settled", "CPU s/M ev", "ratio", "folding", "WAL B/ev");
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
        let share = |measure: &dyn Fn(&Run) -> f64| 100.0 * all().map(measure).sum::<f64>() / all().map(|run| run.settled).sum::<f64>();
        println!(
            "  {} rounds; meanwhile the client took {:.0}% of a core, work that is none of ours {:.0}%",
            self.runs[0].len(),
            share(&|run| run.cpu.client),
            share(&|run| run.cpu.others()),
        );
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
