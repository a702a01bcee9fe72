//! What is thrown away, and in which order, so that no answer changes silently.
//!
//! - **Raw events**: a partition goes when all of it is older than the retention (never younger than the backdate
//!   window), its deltas are folded and no dirty range needs it. `raw_floor` tells readers; rollups stay.
//! - **Hour rollups** older than their setting go once their day rollups exist (`hour_floor`), day rollups likewise
//!   (`day_floor`). Late events can't come that late; voids that old are refused.
//!
//! Each step is one transaction with the floor that announces it. DROP takes AccessExclusiveLock on `events` for an
//! instant, so it waits for it only as long as lock_timeout lets it and is tried again next time.

use pgrx::prelude::*;

use crate::pg::error::{Outcome, raise};
use crate::pg::partition;
use crate::pg::session;
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::ladder::{self, Grain};
use super::{FoldState, enter};

const DAY: i64 = 86_400_000_000;

/// Drops what the settings say; returns how many partitions and rollup rows went.
#[pg_extern(sql = "")]
fn apply_retention() -> i64 {
    raise(run())
}

fn run() -> Outcome<i64> {
    let Some(_owner) = enter("apply_retention")? else { return Ok(0) };
    let now = session::now();
    let state = FoldState::read(See::Write)?;
    // An event may arrive this late, and a void of it later still.
    let keep = settings::backdate_window() + 2 * DAY;
    let mut gone = 0;
    if let Some(span) = settings::retention() {
        gone += drop_partitions(ladder::floor(Grain::Day, now - span.max(keep)), &state)?;
    }
    for (grain, span, floor, column, bound) in [
        (Grain::Hour, settings::hour_rollups(), state.hour_floor, "hour_floor", state.closed_day),
        (Grain::Day, settings::day_rollups(), state.day_floor, "day_floor", state.closed_month),
    ] {
        let Some(span) = span else { continue };
        let coarser = if grain == Grain::Hour { Grain::Day } else { Grain::Month };
        let new_floor = ladder::floor(coarser, now - span.max(keep)).min(bound);
        if new_floor > floor && !dirty_before(new_floor)? {
            gone += downsample(grain, new_floor, column)?;
        }
    }
    Ok(gone)
}

/// Drops the partitions that end at or before `before`.
fn drop_partitions(before: i64, state: &FoldState) -> Outcome<i64> {
    let leaves: Vec<_> =
        partition::leaves(session::relation("events")?).into_iter().filter(|leaf| leaf.to <= before).collect();
    let Some(last) = leaves.last() else { return Ok(0) };
    // Whole days only: a day of which a part is gone could not be rebuilt.
    let floor = ladder::floor(Grain::Day, last.to);
    if floor <= state.raw_floor || dirty_before(floor)? || unfolded_before(floor, state)? {
        return Ok(0);
    }
    let mut gone = 0;
    for leaf in leaves.iter().filter(|leaf| leaf.to <= floor) {
        let name = spi::one("SELECT $1::regclass::text", &[leaf.oid.into()], See::Write, |row| row.text(0))?
            .unwrap_or_default();
        spi::command(&format!("DROP TABLE {name}"))?;
        gone += 1;
    }
    spi::run("UPDATE meterflow.fold_state SET raw_floor = $1", &[spi::time(floor)], See::Write, |_| Ok(()))?;
    spi::run("DELETE FROM meterflow.event_corrections WHERE timestamp < $1", &[spi::time(floor)], See::Write, |_| {
        Ok(())
    })?;
    Ok(gone)
}

fn dirty_before(time: i64) -> Outcome<bool> {
    Ok(spi::one(
        "SELECT EXISTS (SELECT FROM meterflow.dirty_ranges WHERE from_time < $1)",
        &[spi::time(time)],
        See::Write,
        |row| row.bool(0),
    )? == Some(true))
}

/// Whether a batch that is not folded yet may hold events of that time: when it was recorded, they were accepted.
fn unfolded_before(time: i64, state: &FoldState) -> Outcome<bool> {
    let oldest = spi::one(
        "SELECT min(recorded_at) FROM meterflow.batches WHERE batch > $1",
        &[state.folded_batch.into()],
        See::Write,
        |row| Ok(if row.is_null(0) { i64::MAX } else { row.time(0)? }),
    )?;
    Ok(oldest.is_some_and(|recorded_at| recorded_at.saturating_sub(settings::backdate_window()) < time))
}

fn downsample(grain: Grain, floor: i64, column: &str) -> Outcome<i64> {
    let rows = spi::run(
        "DELETE FROM meterflow.rollups WHERE grain = $1::\"char\" AND bucket < $2",
        &[ladder::letter(grain).into(), spi::time(floor)],
        See::Write,
        |_| Ok(()),
    )?;
    spi::run(&format!("UPDATE meterflow.fold_state SET {column} = $1"), &[spi::time(floor)], See::Write, |_| Ok(()))?;
    Ok(rows as i64)
}
