//! The state writers share, read fresh for every batch, and the relations they write.

use pgrx::pg_sys;

use crate::core::key::{self, Secret};
use crate::meters::{Catalogue, secret_of};
use crate::pg::error::{Fail, Outcome};
use crate::pg::lock::lock_relation;
use crate::pg::session;
use crate::pg::spi::{self, See};

/// `meterflow.engine` as of the newest commit.
pub struct Engine {
    pub secret: Secret,
    pub catalogue: Catalogue,
    pub open_slot: i16,
    /// Generations a new key goes into; during a rotation there are two.
    pub insert_generations: Vec<i32>,
    /// Older generations a new key must not be in.
    pub probe_generations: Vec<Closed>,
    /// Unix microseconds; nothing before it is accepted: its keys are forgotten, or its events dropped by retention.
    pub floor: i64,
}

/// A generation no key goes into any more.
pub struct Closed {
    pub generation: i32,
    /// First and last of its keys that carry a time; None when it has none.
    timed: Option<([u8; 16], [u8; 16])>,
}

impl Closed {
    /// Whether the key can be in it. Ids that embed their time (UUIDv7, ULID) come in order, so nearly all of a batch
    /// are beyond the last one of an old generation; ids that don't must be looked for in all.
    pub fn may_hold(&self, key: &[u8; 16]) -> bool {
        key::locality(key).is_none() || self.timed.is_some_and(|(first, last)| (first..=last).contains(key))
    }
}

/// A batch that holds the fence and has its number.
pub struct Fenced {
    pub batch: i64,
    pub engine: Engine,
    pub events: pg_sys::Oid,
}

/// Steps 1 to 3 of the protocol, in their order.
pub fn fence() -> Outcome<Fenced> {
    let events = session::relation("events")?;
    let mode = pg_sys::RowExclusiveLock;
    lock_relation(session::relation("deltas")?, mode);
    lock_relation(session::relation("dedup_keys")?, mode);
    lock_relation(events, mode);
    let batch = session::next_value(session::relation("batch_seq")?);
    Ok(Fenced { batch, engine: read()?, events })
}

fn read() -> Outcome<Engine> {
    let mut engine = read_row()?;
    if engine.probe_generations.is_empty() {
        return Ok(engine);
    }
    spi::run("SELECT generation, min_timed, max_timed FROM meterflow.dedup_generations", &[], See::Latest, |row| {
        let generation = row.int4(0)?;
        let bound = |column: usize| row.get::<pgrx::Uuid>(column).map(|uuid| *uuid.as_bytes());
        for closed in engine.probe_generations.iter_mut().filter(|closed| closed.generation == generation) {
            closed.timed = bound(1).zip(bound(2));
        }
        Ok(())
    })?;
    Ok(engine)
}

fn read_row() -> Outcome<Engine> {
    spi::one(
        "SELECT secret, catalog_version, open_slot, insert_generations, probe_generations, \
                greatest(e.dedup_floor + interval '1 microsecond', s.raw_floor) FROM meterflow.engine e, meterflow.fold_state s",
        &[],
        See::Latest,
        |row| {
            let secret = row.with_bytes(0, secret_of)??;
            Ok(Engine {
                secret,
                catalogue: Catalogue { secret, version: row.int8(1)? },
                open_slot: row.require(2)?,
                insert_generations: row.require(3)?,
                probe_generations: row.require::<Vec<i32>>(4)?.into_iter().map(|generation| Closed { generation, timed: None }).collect(),
                floor: row.time(5)?,
            })
        },
    )?
    .ok_or_else(|| Fail::corrupt("meterflow.engine is empty"))
}

/// Holds the fence for a change of the catalogue and draws its number: see `sql/20_meters.sql`.
#[pgrx::pg_extern(sql = "")]
fn fence_batch() -> i64 {
    crate::pg::error::raise((|| {
        lock_relation(session::relation("deltas")?, pg_sys::RowExclusiveLock);
        Ok(session::next_value(session::relation("batch_seq")?))
    })())
}
