//! What is thrown away, and in which order, so that no answer changes silently.
//!
//! - **Raw events**: partitions older than the retention (never younger than the backdate window).
//! - **Hour rollups** once their day rollups exist and their setting is past; **day rollups** likewise.
//!
//! # Protocol: announce, then clear
//! One transaction raises the floor: readers of later snapshots don't read below it, corrections below it are refused.
//! A later transaction clears what lies below, when
//! - the announcement has committed, and `WaitForLockers(deltas)` has outlasted the corrections that may not have seen it;
//! - no dirty range reaches below the floor: what a correction under way has touched is rebuilt first, from what is
//!   still there;
//! - for raw events: every snapshot in the cluster sees the floor, for DROP TABLE is not bound by snapshots. (A standby
//!   without feedback may have older ones: its readers look, and refuse; usage/source.rs.)
//!
//! DROP takes AccessExclusiveLock on `events` for an instant; it waits for it as long as lock_timeout lets it.
//!
//! # Crash behaviour
//! A floor that is announced and not cleared is cleared by the next call.
//!
//! Proof: tests/client/retention.rs.

use pgrx::prelude::*;

use crate::pg::error::{Outcome, raise};
use crate::pg::lock::{all_snapshots_see, wait_for_lockers};
use crate::pg::partition;
use crate::pg::session;
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::ladder::{self, Grain};
use super::{FoldState, enter};

const DAY: i64 = 86_400_000_000;

/// What of `fold_state` belongs to one kind of detail.
struct Detail {
    grain: Grain,
    floor_column: &'static str,
    cleared_column: &'static str,
    floor: i64,
    cleared: i64,
}

/// Clears what was announced, announces what is due; returns how many partitions and rollup rows went.
#[pg_extern(sql = "")]
fn apply_retention() -> i64 {
    raise(run())
}

fn run() -> Outcome<i64> {
    let Some(_owner) = enter("apply_retention")? else { return Ok(0) };
    let state = FoldState::read(See::Write)?;
    let details = [
        Detail {
            grain: Grain::Raw,
            floor_column: "raw_floor",
            cleared_column: "raw_cleared",
            floor: state.raw_floor,
            cleared: state.raw_cleared,
        },
        Detail {
            grain: Grain::Hour,
            floor_column: "hour_floor",
            cleared_column: "hour_cleared",
            floor: state.hour_floor,
            cleared: state.hour_cleared,
        },
        Detail {
            grain: Grain::Day,
            floor_column: "day_floor",
            cleared_column: "day_cleared",
            floor: state.day_floor,
            cleared: state.day_cleared,
        },
    ];
    let mut gone = 0;
    if details.iter().any(|detail| detail.cleared < detail.floor) {
        let announced = spi::one(
            "SELECT floors_xid::text::bigint FROM meterflow.fold_state WHERE floors_xid IS DISTINCT FROM pg_catalog.pg_current_xact_id_if_assigned() OR floors_xid IS NULL",
            &[],
            See::Write,
            |row| Ok(row.get::<i64>(0)),
        )?;
        if let Some(xid) = announced {
            let deltas = session::relation("deltas")?;
            wait_for_lockers(deltas, pg_sys::ShareLock);
            let seen_by_all = xid.is_none_or(|xid| all_snapshots_see(xid.cast_unsigned(), deltas));
            for detail in details.iter().filter(|detail| detail.cleared < detail.floor) {
                if (detail.grain != Grain::Raw || seen_by_all) && !dirty_before(detail.floor)? {
                    gone += clear(detail)?;
                }
            }
        }
    }
    announce(&details, &state)?;
    Ok(gone)
}

/// Raises the floors that are due.
fn announce(details: &[Detail], state: &FoldState) -> Outcome<()> {
    let now = session::now();
    // An event may arrive this late, and a void of it later still.
    let keep = settings::backdate_window() + 2 * DAY;
    for detail in details {
        let (span, coarser, bound) = match detail.grain {
            Grain::Raw => (settings::retention(), Grain::Day, i64::MAX),
            Grain::Hour => (settings::hour_rollups(), Grain::Day, state.closed_day),
            Grain::Day | Grain::Month => {
                (settings::day_rollups(), Grain::Month, ladder::floor(Grain::Month, state.closed_day))
            }
        };
        let Some(span) = span else { continue };
        let mut floor = ladder::floor(coarser, now - span.max(keep)).min(bound);
        if detail.grain == Grain::Raw {
            // No further than there is something to drop: a floor ahead of it would refuse answers for nothing.
            let leaves = partition::leaves(session::relation("events")?);
            let last = leaves.iter().filter(|leaf| leaf.to <= floor).map(|leaf| leaf.to).max();
            floor = last.map_or(i64::MIN, |last| ladder::floor(Grain::Day, last));
        }
        if floor > detail.floor && !dirty_before(floor)? && !unfolded_before(floor, state)? {
            let sql = format!(
                "UPDATE meterflow.fold_state SET {} = $1, floors_xid = pg_catalog.pg_current_xact_id()",
                detail.floor_column
            );
            spi::run(&sql, &[spi::time(floor)], See::Write, |_| Ok(()))?;
        }
    }
    Ok(())
}

/// Removes what lies below an announced floor.
fn clear(detail: &Detail) -> Outcome<i64> {
    let gone = match detail.grain {
        Grain::Raw => drop_partitions(detail.floor)?,
        grain => spi::run(
            "DELETE FROM meterflow.rollups WHERE grain = $1::\"char\" AND bucket < $2",
            &[ladder::letter(grain).into(), spi::time(detail.floor)],
            See::Write,
            |_| Ok(()),
        )? as i64,
    };
    let sql = format!("UPDATE meterflow.fold_state SET {} = $1", detail.cleared_column);
    spi::run(&sql, &[spi::time(detail.floor)], See::Write, |_| Ok(()))?;
    Ok(gone)
}

fn drop_partitions(floor: i64) -> Outcome<i64> {
    let leaves = partition::leaves(session::relation("events")?);
    let mut gone = 0;
    for leaf in leaves.iter().filter(|leaf| leaf.to <= floor) {
        let name = spi::one("SELECT $1::regclass::text", &[leaf.oid.into()], See::Write, |row| row.text(0))?;
        spi::command(&format!("DROP TABLE {}", name.unwrap_or_default()))?;
        gone += 1;
    }
    spi::run(
        "DELETE FROM meterflow.event_corrections WHERE greatest(timestamp, replaced_at) < $1",
        &[spi::time(floor)],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(gone)
}

fn dirty_before(time: i64) -> Outcome<bool> {
    let found = spi::one(
        "SELECT EXISTS (SELECT FROM meterflow.dirty_ranges WHERE from_time < $1)",
        &[spi::time(time)],
        See::Write,
        |row| row.bool(0),
    )?;
    Ok(found == Some(true))
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
