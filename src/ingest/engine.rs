//! The state writers share, read fresh for every batch, and the relations they write.

use pgrx::pg_sys;

use crate::core::key::Secret;
use crate::meters::secret_of;
use crate::pg::error::{Fail, Outcome};
use crate::pg::lock::lock_relation;
use crate::pg::session;
use crate::pg::spi::{self, See};

/// `meterflow.engine` as of the newest commit.
pub struct Engine {
    pub secret: Secret,
    pub catalog_version: i64,
    pub open_slot: i16,
    /// Generations a new key goes into; during a rotation there are two.
    pub insert_generations: Vec<i32>,
    /// Older generations a new key must not be in.
    pub probe_generations: Vec<i32>,
    /// Unix microseconds; nothing at or before it is accepted.
    pub dedup_floor: i64,
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
    spi::one(
        "SELECT secret, catalog_version, open_slot, insert_generations, probe_generations, dedup_floor FROM meterflow.engine",
        &[],
        See::Latest,
        |row| {
            Ok(Engine {
                secret: row.with_bytes(0, secret_of)??,
                catalog_version: row.int8(1)?,
                open_slot: row.require(2)?,
                insert_generations: row.require(3)?,
                probe_generations: row.require(4)?,
                dedup_floor: row.time(5)?,
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
