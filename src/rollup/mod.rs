//! From deltas to the ladder of rollups: hour → day → month.

mod dirty;
mod fold;
mod ladder;
mod retention;
mod slots;
mod store;
mod touched;

use pgrx::prelude::*;

use crate::pg::error::{Fail, Outcome};
use crate::pg::lock;
use crate::pg::session::{self, AsOwner};
use crate::pg::spi::{self, See};

/// `meterflow.fold_state` as the folder finds and leaves it. Times are Unix microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoldState {
    pub folded_batch: i64,
    pub folds: i64,
    pub closed_day: i64,
    pub hour_floor: i64,
    pub day_floor: i64,
    pub raw_floor: i64,
    pub hour_cleared: i64,
    pub day_cleared: i64,
    pub raw_cleared: i64,
}

impl FoldState {
    pub fn read(see: See) -> Outcome<FoldState> {
        spi::one(
            "SELECT folded_batch, folds, closed_day, hour_floor, day_floor, raw_floor, \
                    hour_cleared, day_cleared, raw_cleared FROM meterflow.fold_state",
            &[],
            see,
            |row| {
                Ok(FoldState {
                    folded_batch: row.int8(0)?,
                    folds: row.int8(1)?,
                    closed_day: row.time(2)?,
                    hour_floor: row.time(3)?,
                    day_floor: row.time(4)?,
                    raw_floor: row.time(5)?,
                    hour_cleared: row.time(6)?,
                    day_cleared: row.time(7)?,
                    raw_cleared: row.time(8)?,
                })
            },
        )?
        .ok_or_else(|| Fail::corrupt("meterflow.fold_state is empty"))
    }
}

/// Enters work on rollups: as owner, under READ COMMITTED, alone. None when another session is at it.
fn enter(verb: &str) -> Outcome<Option<AsOwner>> {
    lock::need_read_committed(verb).map_err(|fail| {
        fail.detail("It waits for writers and must then see what they committed; a fixed snapshot would not.")
    })?;
    let rollups = session::relation("rollups")?;
    let owner = AsOwner::of(rollups, pg_sys::ACL_UPDATE, verb)?;
    Ok(if lock::alone_at(rollups)? { Some(owner) } else { None })
}
