//! Rotation of key generations: the active index stays small, old keys go in one DROP.
//!
//! # Protocol
//! `engine` says into which generations a new key is inserted and which older ones are probed. Each step is one short
//! transaction; before the next one, `WaitForLockers(dedup_keys)` outlasts every writer that read the state before.
//!
//! | phase   | insert into | probe        |
//! |---------|-------------|--------------|
//! | steady  | g           | g, older     |
//! | overlap | g and g+1   | g, g+1, older|
//! | steady  | g+1         | g+1, g, older|
//!
//! Writers of two adjacent phases always share a generation they both insert into, so the unique index of that one
//! decides between them; and when writers insert into g+1 only, all keys of g have been committed or rolled back,
//! so probing g is enough. No writer waits for a rotation.
//!
//! A generation is dropped when its last key, and the latest of its events, are older than the dedup window; `dedup_floor` then refuses events of its
//! time, whatever the window is set to later.
//!
//! # Crash behaviour
//! The phase is in `engine`; the next call goes on from it.
//!
//! Proof: tests/isolation/specs/rotation.spec.

use pgrx::prelude::*;

use crate::pg::error::{Fail, Outcome, raise};
use crate::pg::lock;
use crate::pg::session::{self, AsOwner};
use crate::pg::settings;
use crate::pg::spi::{self, See};

/// Takes the next step of a rotation that is due, and drops what has expired. True when it did something.
#[pg_extern(sql = "")]
fn rotate_dedup() -> bool {
    raise(run())
}

fn run() -> Outcome<bool> {
    lock::need_read_committed("rotate_dedup")?;
    let keys = session::relation("dedup_keys")?;
    let _owner = AsOwner::of(keys, pg_sys::ACL_UPDATE, "rotate_dedup")?;
    if !lock::alone_at(keys)? {
        return Ok(false);
    }
    let (phase, ours) = spi::one(
        "SELECT generation_phase, coalesce(phase_xid = pg_catalog.pg_current_xact_id_if_assigned(), false) FROM meterflow.engine",
        &[],
        See::Write,
        |row| Ok((row.text(0)?, row.bool(1)?)),
    )?
    .ok_or_else(|| Fail::corrupt("meterflow.engine is empty"))?;
    if ours {
        // Nobody else has seen the step this transaction has taken: the next one must wait for its commit.
        return Ok(false);
    }
    if phase == "overlap" {
        finish()?;
        return Ok(true);
    }
    let dropped = drop_expired()?;
    let (generation, age) = spi::one(
        "SELECT generation, (extract(epoch FROM clock_timestamp() - opened_at) * 1000000)::bigint FROM meterflow.dedup_generations ORDER BY generation DESC LIMIT 1",
        &[],
        See::Write,
        |row| Ok((row.int4(0)?, row.int8(1)?)),
    )?
    .ok_or_else(|| Fail::corrupt("meterflow.dedup_generations is empty"))?;
    if age < settings::dedup_generation() {
        return Ok(dropped);
    }
    begin(generation, generation + 1)?;
    Ok(true)
}

/// Steady to overlap: makes the next generation and has writers insert into both.
fn begin(current: i32, next: i32) -> Outcome<()> {
    // Writers that still insert by the phase before the last are outlasted: see the table above.
    lock::wait_for_lockers(session::relation("dedup_keys")?, pg_sys::ShareLock);
    spi::command(&format!("CREATE TABLE meterflow.dedup_keys_{next} () INHERITS (meterflow.dedup_keys) USING heap"))?;
    spi::command(&format!("CREATE UNIQUE INDEX dedup_keys_{next}_key ON meterflow.dedup_keys_{next} (key)"))?;
    spi::run("INSERT INTO meterflow.dedup_generations (generation) VALUES ($1)", &[next.into()], See::Write, |_| {
        Ok(())
    })?;
    spi::run(
        "UPDATE meterflow.engine SET phase_xid = pg_catalog.pg_current_xact_id(), generation_phase = 'overlap', insert_generations = ARRAY[$1, $2]::int[]",
        &[current.into(), next.into()],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(())
}

/// Overlap to steady: when all writers insert into both, the older one is closed.
fn finish() -> Outcome<()> {
    lock::wait_for_lockers(session::relation("dedup_keys")?, pg_sys::ShareLock);
    spi::run(
        "UPDATE meterflow.engine SET phase_xid = pg_catalog.pg_current_xact_id(), generation_phase = 'steady', probe_generations = insert_generations[1] || probe_generations, insert_generations = insert_generations[2:2]",
        &[],
        See::Write,
        |_| Ok(()),
    )?;
    let closed = spi::one("SELECT probe_generations[1] FROM meterflow.engine", &[], See::Write, |row| row.int4(0))?
        .ok_or_else(|| Fail::corrupt("meterflow.engine is empty"))?;
    // Keys that embed a time begin with its seconds, the others with four zero bytes (core/key.rs). No writer inserts
    // here any more, so the bounds hold for good.
    let edge = |order: &str| {
        format!(
            "(SELECT key FROM meterflow.dedup_keys_{closed} WHERE key >= '00000001-0000-0000-0000-000000000000' ORDER BY key {order} LIMIT 1)"
        )
    };
    spi::command(&format!(
        "UPDATE meterflow.dedup_generations SET closed_at = clock_timestamp(), min_timed = {}, max_timed = {}, \
                last_at = (SELECT max(at) FROM meterflow.dedup_keys_{closed}) WHERE generation = {closed}",
        edge("ASC"),
        edge("DESC")
    ))
}

/// Two steps: an expired generation is first no longer probed; when the writers that may still look for it have ended,
/// it is dropped.
fn drop_expired() -> Outcome<bool> {
    let mut forgotten = Vec::new();
    spi::run(
        "SELECT g.generation FROM meterflow.dedup_generations g, meterflow.engine e \
          WHERE g.generation <> ALL (e.probe_generations || e.insert_generations) ORDER BY 1",
        &[],
        See::Write,
        |row| {
            forgotten.push(row.int4(0)?);
            Ok(())
        },
    )?;
    if !forgotten.is_empty() {
        lock::wait_for_lockers(session::relation("dedup_keys")?, pg_sys::ShareLock);
    }
    for generation in &forgotten {
        spi::run(
            "DELETE FROM meterflow.dedup_generations WHERE generation = $1",
            &[(*generation).into()],
            See::Write,
            |_| Ok(()),
        )?;
        let table = format!("meterflow.dedup_keys_{generation}");
        if is_member(&table)? {
            spi::command(&format!("ALTER EXTENSION meterflow DROP TABLE {table}"))?;
        }
        spi::command(&format!("DROP TABLE {table}"))?;
    }
    let expired = spi::run(
        "WITH expired AS (SELECT max(generation) AS last, max(last_at) AS floor FROM meterflow.dedup_generations \
                           WHERE greatest(closed_at, last_at) + $1 * interval '1 microsecond' < clock_timestamp()) \
         UPDATE meterflow.engine e SET phase_xid = pg_catalog.pg_current_xact_id(), dedup_floor = greatest(e.dedup_floor, x.floor), \
                probe_generations = (SELECT coalesce(array_agg(g ORDER BY g DESC), '{}') FROM unnest(e.probe_generations) g WHERE g > x.last) \
           FROM expired x WHERE x.last = ANY (e.probe_generations)",
        &[(settings::backdate_window() as f64).into()],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(!forgotten.is_empty() || expired > 0)
}

/// Whether a table came with CREATE EXTENSION, as the first generation did.
fn is_member(table: &str) -> Outcome<bool> {
    let found = spi::one(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = $1::regclass AND deptype = 'e')",
        &[table.into()],
        See::Write,
        |row| row.bool(0),
    )?;
    Ok(found == Some(true))
}
