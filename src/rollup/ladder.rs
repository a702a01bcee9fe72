//! The ladder: hours become days, days become months.
//!
//! A day before `closed_day` has day rollups that hold exactly what its hour rollups hold; so for months. Closing a
//! day merges its hours in the fold's transaction; from then on the fold adds a late event's delta to the hour and
//! the day alike (`store.rs`). A month of usage is then some thirty rows a group, however many events it had.

pub use crate::core::cover::{Source as Grain, ceil, floor};
use crate::pg::error::Outcome;
use crate::pg::spi::{self, See};

use super::FoldState;

/// How a grain is written in `rollups.grain`.
pub fn letter(grain: Grain) -> &'static str {
    match grain {
        Grain::Month => "m",
        Grain::Day => "d",
        Grain::Hour | Grain::Raw => "h",
    }
}

/// Buckets before this time exist in this grain.
pub fn closed(grain: Grain, fold: &FoldState) -> i64 {
    match grain {
        Grain::Month => fold.closed_month,
        Grain::Day => fold.closed_day,
        Grain::Hour | Grain::Raw => i64::MAX,
    }
}

/// Closes the days and months that have ended by `now`.
pub fn close(state: &mut FoldState, now: i64) -> Outcome<()> {
    let day = floor(Grain::Day, now);
    if day > state.closed_day {
        climb(Grain::Hour, Grain::Day, state.closed_day, day, None)?;
        state.closed_day = day;
    }
    let month = floor(Grain::Month, now);
    if month > state.closed_month {
        climb(Grain::Day, Grain::Month, state.closed_month, month, None)?;
        state.closed_month = month;
    }
    Ok(())
}

/// One meter, and one of its customers or all.
pub struct Whose<'a> {
    pub tenant: &'a str,
    pub meter: i32,
    pub customer: Option<&'a str>,
}

/// Makes the coarser rollups of [from, to) anew from the finer ones. The range is whole buckets of `to_grain`.
pub fn climb(from_grain: Grain, to_grain: Grain, from: i64, to: i64, whose: Option<&Whose<'_>>) -> Outcome<()> {
    let unit = if to_grain == Grain::Day { "day" } else { "month" };
    let one = whose.is_some();
    let scope = if one {
        "tenant_id = $5 AND meter_id = $6 AND ($7::text IS NULL OR customer_id = $7)"
    } else {
        "$5::text IS NULL AND $6::int IS NULL AND $7::text IS NULL"
    };
    let args = || {
        [
            spi::time(from),
            spi::time(to),
            letter(from_grain).into(),
            letter(to_grain).into(),
            whose.map(|whose| whose.tenant).into(),
            whose.map(|whose| whose.meter).into(),
            whose.and_then(|whose| whose.customer).into(),
        ]
    };
    spi::run(
        &format!(
            "DELETE FROM meterflow.rollups WHERE grain = $4::\"char\" AND bucket >= $1 AND bucket < $2 AND $3::text IS NOT NULL AND {scope}"
        ),
        &args(),
        See::Write,
        |_| Ok(()),
    )?;
    spi::run(
        &format!(
            "INSERT INTO meterflow.rollups (tenant_id, meter_id, grain, customer_id, bucket, group_key, part, state) \
             SELECT tenant_id, meter_id, $4::\"char\", customer_id, date_trunc('{unit}', bucket, 'UTC'), group_key, 0, meterflow.merge(state) \
               FROM meterflow.rollups WHERE grain = $3::\"char\" AND bucket >= $1 AND bucket < $2 AND {scope} \
              GROUP BY 1, 2, 4, 5, 6"
        ),
        &args(),
        See::Write,
        |_| Ok(()),
    )?;
    Ok(())
}
