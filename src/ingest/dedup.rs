//! Exactly once: which events of a batch are new.
//!
//! # Protocol
//! Keys are sorted (one order for all sessions, and neighbours in the index), and of equal keys in the batch the first
//! stands for all. Older generations, and the current one when a sample shows retries, are probed with the newest
//! snapshot: hits are duplicates, or conflicts when another payload was sent. The rest are inserted into every
//! generation of `engine.insert_generations`. The unique index is the only authority: a contested key is settled
//! (`pg/keys.rs`) before the next is inserted; it waits for a rival in flight, and if that commits, the event is a
//! duplicate.
//!
//! Rotation of generations keeps this strict: see `rotate.rs`.
//!
//! # Crash and rollback
//! Keys commit with their events; an abort frees them.
//!
//! Proof: tests/isolation/specs/same_key_commit, same_key_rollback, rotation; tests/client crash.

use pgrx::pg_sys;
use rustc_hash::FxHashMap;

use crate::core::event::{Code, Fault};
use crate::pg::bulk::{self, Contest, Table};
use crate::pg::datum::pg_micros;
use crate::pg::error::Outcome;
use crate::pg::keys::{Generation, Known};
use crate::pg::session;

use super::batch::{Candidate, Failure, Report};
use super::engine::Fenced;

/// Columns of a key generation, in order: key, payload, at.
const KEY_COLUMNS: usize = 3;

/// Keeps the candidates whose keys are new, and claims those keys; the others are counted or reported.
pub fn claim(fenced: &Fenced, candidates: &mut Vec<Candidate<'_>>, report: &mut Report) -> Outcome<()> {
    candidates.sort_unstable_by_key(|candidate| (candidate.key, candidate.seq));
    // The first of each key stands for it; the others are compared with what the key turns out to hold.
    let mut followers = Vec::new();
    if candidates.windows(2).any(|pair| pair[0].key == pair[1].key) {
        let mut leaders: Vec<Candidate<'_>> = Vec::with_capacity(candidates.len());
        for candidate in candidates.drain(..) {
            match leaders.last() {
                Some(leader) if leader.key == candidate.key => followers.push(candidate),
                _ => leaders.push(candidate),
            }
        }
        *candidates = leaders;
    }
    let mut held = Held::default();
    claim_leaders(fenced, candidates, &mut held, report)?;
    if !followers.is_empty() {
        held.extend(candidates.iter().map(|candidate| (candidate.key, candidate.payload)));
        for follower in followers {
            refuse(&follower, held.get(&follower.key).copied(), report);
        }
    }
    Ok(())
}

/// What the keys of a batch hold already, or now: the payload they were accepted with.
type Held = FxHashMap<[u8; 16], i64>;

fn claim_leaders(
    fenced: &Fenced,
    candidates: &mut Vec<Candidate<'_>>,
    held: &mut Held,
    report: &mut Report,
) -> Outcome<()> {
    let engine = &fenced.engine;
    for &generation in &engine.insert_generations {
        if candidates.len() <= SAMPLE || sample_has_retries(generation, candidates)? {
            probe(generation, candidates, |_| true, held, report)?;
        }
    }
    for closed in &engine.probe_generations {
        probe(closed.generation, candidates, |key| closed.may_hold(key), held, report)?;
    }

    // Rows placed so far, newest generation last: a key that turns out taken is taken back everywhere.
    let mut placed: Vec<(Table, FxHashMap<[u8; 16], pg_sys::ItemPointerData>)> = Vec::new();
    for &generation in &fenced.engine.insert_generations {
        if candidates.is_empty() {
            return Ok(());
        }
        let oid = table_of(generation)?;
        let values: Vec<pg_sys::Datum> = candidates
            .iter()
            .flat_map(|c| [bulk::uuid(&c.key), bulk::int8(c.payload), bulk::int8(pg_micros(c.at))])
            .collect();
        let mut table = Table::open(oid)?;
        let mut claims = Claims { rivals: Generation::open(oid)?, candidates, known: vec![None; candidates.len()] };
        let tids = table.append(&values, KEY_COLUMNS, &mut claims)?;
        let known = claims.known;
        for row in (0..tids.len()).filter(|&row| known[row].is_some()) {
            for (earlier, tids) in &placed {
                if let Some(&tid) = tids.get(&candidates[row].key) {
                    earlier.retract(tid);
                }
            }
        }
        if fenced.engine.insert_generations.len() > 1 {
            let tids = candidates.iter().map(|c| c.key).zip(tids).filter_map(|(key, tid)| Some((key, tid?)));
            placed.push((table, tids.collect()));
        }
        settle(candidates, &known, held, report);
    }
    Ok(())
}

/// Keys looked up before the rest of a batch.
const SAMPLE: usize = 48;

/// Whether enough of a batch is known that looking up all of it is cheaper than inserting and taking back. A look-up
/// costs a tenth of the ingest of a new event; a key that is inserted and loses costs some six times as much, and
/// leaves a dead row. Two hits in the sample are 4 %. Which way is taken makes no difference to the outcome.
fn sample_has_retries(generation: i32, candidates: &[Candidate<'_>]) -> Outcome<bool> {
    let step = candidates.len() / SAMPLE;
    let mut hits = 0;
    let keys = candidates.iter().map(|candidate| &candidate.key).enumerate().step_by(step);
    Generation::open(table_of(generation)?)?.probe(keys, |_, _| hits += 1);
    Ok(hits >= 2)
}

/// The keys of a batch on their way into a generation.
struct Claims<'c, 'a> {
    rivals: Generation,
    candidates: &'c [Candidate<'a>],
    /// What holds the keys that were lost.
    known: Vec<Option<Known>>,
}

impl Contest for Claims<'_, '_> {
    fn may_stay(&mut self, row: usize, tid: pg_sys::ItemPointerData) -> Outcome<bool> {
        Ok(self.rivals.is_alone(&self.candidates[row].key, tid))
    }

    fn is_lost(&mut self, row: usize) -> Outcome<bool> {
        self.known[row] = self.rivals.rival(&self.candidates[row].key);
        Ok(self.known[row].is_some())
    }
}

/// Settles the candidates whose keys a generation holds.
fn probe(
    generation: i32,
    candidates: &mut Vec<Candidate<'_>>,
    may_hold: impl Fn(&[u8; 16]) -> bool,
    held: &mut Held,
    report: &mut Report,
) -> Outcome<()> {
    let mut known: Vec<Option<Known>> = vec![None; candidates.len()];
    let mut keys =
        candidates.iter().map(|candidate| &candidate.key).enumerate().filter(|(_, key)| may_hold(key)).peekable();
    if keys.peek().is_some() {
        Generation::open(table_of(generation)?)?.probe(keys, |i, hit| known[i] = Some(hit));
        settle(candidates, &known, held, report);
    }
    Ok(())
}

fn table_of(generation: i32) -> Outcome<pg_sys::Oid> {
    session::relation(&format!("dedup_keys_{generation}"))
}

/// What a key's first use recorded, if it is remembered.
pub fn lookup(fenced: &Fenced, key: &[u8; 16]) -> Outcome<Option<Known>> {
    let engine = &fenced.engine;
    let closed = engine.probe_generations.iter().filter(|closed| closed.may_hold(key)).map(|closed| closed.generation);
    let mut found = None;
    for generation in engine.insert_generations.iter().copied().chain(closed) {
        Generation::open(table_of(generation)?)?.probe([(0, key)].into_iter(), |_, known| found = Some(known));
    }
    Ok(found)
}

/// Removes the candidates whose key is known.
fn settle(candidates: &mut Vec<Candidate<'_>>, known: &[Option<Known>], held: &mut Held, report: &mut Report) {
    if known.iter().all(Option::is_none) {
        return;
    }
    let mut i = 0;
    candidates.retain(|candidate| {
        let hit = known[i];
        i += 1;
        let Some(known) = hit else { return true };
        held.insert(candidate.key, known.payload);
        refuse(candidate, Some(known.payload), report);
        false
    });
}

/// Counts an event whose key is taken: a duplicate of what the key holds, or a conflict with it.
fn refuse(candidate: &Candidate<'_>, held: Option<i64>, report: &mut Report) {
    if held == Some(candidate.payload) {
        report.duplicates += 1;
        return;
    }
    let id = candidate.event.transaction_id.to_string();
    let message = format!("transaction {id} was accepted before with another payload");
    let fault = Fault { transaction_id: Some(id), ..Fault::new(Code::Conflict, message) };
    report.failures.push(Failure { index: candidate.index, fault });
}
