//! The ladder: hours become days, days become months.
//!
//! A day before `closed_day` has day rollups that hold exactly what its hour rollups hold. A month has a rollup that
//! holds exactly its days before `closed_day`: all of them when the month is over, those so far while it runs. Closing
//! a day merges its hours, and adds it to its month, in the fold's transaction; from then on the fold adds a late
//! event's delta to the hour, the day and the month alike (`store.rs`). The current month of a customer is then a row and
//! the hours of today a group, however many events it had and whatever day it is.

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

/// Closes the days that have ended by `now`.
pub fn close(state: &mut FoldState, now: i64) -> Outcome<()> {
    let day = floor(Grain::Day, now);
    if day > state.closed_day {
        climb(Grain::Hour, Grain::Day, state.closed_day, day, None)?;
        add_to_months(state.closed_day, day)?;
        state.closed_day = day;
    }
    Ok(())
}

/// Merges newly closed days into their months.
fn add_to_months(from: i64, to: i64) -> Outcome<()> {
    spi::run(
        "INSERT INTO meterflow.rollups AS r (tenant_id, meter_id, grain, customer_id, bucket, group_key, part, state) \
         SELECT tenant_id, meter_id, 'm', customer_id, date_trunc('month', bucket, 'UTC'), group_key, 0, meterflow.merge(state) \
           FROM meterflow.rollups WHERE grain = 'd' AND bucket >= $1 AND bucket < $2 \
          GROUP BY 1, 2, 4, 5, 6 \
         ON CONFLICT (tenant_id, meter_id, grain, customer_id, bucket, group_key, part) \
         DO UPDATE SET state = meterflow.merge_states(r.state, excluded.state)",
        &[spi::time(from), spi::time(to)],
        See::Write,
        |_| Ok(()),
    )?;
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
