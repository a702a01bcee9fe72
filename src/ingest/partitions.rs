//! Partitions of `events`: made ahead, and on demand.
//!
//! A partition is made as a table of its own and then attached: ATTACH takes ShareUpdateExclusiveLock on the parent,
//! which blocks neither ingest nor reads; CREATE ... PARTITION OF would take AccessExclusiveLock and stop both. Two
//! sessions that need the same partition queue on that lock, and the second finds it made. There is no default
//! partition: it would be locked and scanned by every ATTACH.
//!
//! Proof: tests/isolation/specs/partition.spec.

use pgrx::pg_sys;

use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::lock::lock_relation;
use crate::pg::partition::{self, Leaf};
use crate::pg::session::{self, AsOwner};
use crate::pg::{settings, spi};

/// Makes the partitions that `times` need and `leaves` lacks, and reads the leaves anew if it made any.
pub fn ensure(events: pg_sys::Oid, leaves: &mut Vec<Leaf>, times: impl Iterator<Item = i64>) -> Outcome<usize> {
    let mut missing: Vec<i64> = times.filter(|&at| partition::find(leaves, at).is_none()).collect();
    if missing.is_empty() {
        return Ok(0);
    }
    missing.sort_unstable();
    lock_relation(events, pg_sys::ShareUpdateExclusiveLock);
    *leaves = partition::leaves(events);
    let mut made = 0;
    for at in missing {
        if partition::find(leaves, at).is_none() {
            let (from, to) = free_range(leaves, at);
            make(from, to)?;
            *leaves = partition::leaves(events);
            made += 1;
        }
    }
    Ok(made)
}

/// The aligned interval around `at`, cut where existing partitions (of another interval) begin or end.
fn free_range(leaves: &[Leaf], at: i64) -> (i64, i64) {
    let interval = settings::partition_interval();
    let start = at - at.rem_euclid(interval);
    let from = leaves.iter().map(|leaf| leaf.to).filter(|&to| to <= at).max().map_or(start, |to| to.max(start));
    let to = leaves
        .iter()
        .map(|leaf| leaf.from)
        .filter(|&from| from > at)
        .min()
        .map_or(start + interval, |from| from.min(start + interval));
    (from, to)
}

fn make(from: i64, to: i64) -> Outcome<()> {
    let bound = |at: i64| {
        jiff::Timestamp::from_microsecond(at).map_err(|_| {
            Fail::new(SqlState::ERRCODE_DATETIME_FIELD_OVERFLOW, "a partition would lie beyond the calendar")
        })
    };
    let (from, to) = (bound(from)?, bound(to)?);
    let name = format!("events_p{}", from.strftime(if is_midnight(from) { "%Y%m%d" } else { "%Y%m%d_%H%M%S" }));
    spi::command(&format!(
        "CREATE TABLE meterflow.{name} (LIKE meterflow.events INCLUDING DEFAULTS INCLUDING STORAGE) USING heap"
    ))?;
    spi::command(&format!("CREATE INDEX {name}_customer ON meterflow.{name} (customer_id, timestamp)"))?;
    spi::command(&format!(
        "ALTER TABLE meterflow.events ATTACH PARTITION meterflow.{name} FOR VALUES FROM ('{from}') TO ('{to}')"
    ))
}

fn is_midnight(time: jiff::Timestamp) -> bool {
    time.as_microsecond().rem_euclid(86_400_000_000) == 0
}

/// Makes the current partition and those ahead of it; returns how many it made.
#[pgrx::pg_extern(sql = "")]
fn prepare_partitions() -> i32 {
    raise((|| {
        let events = session::relation("events")?;
        let _owner = AsOwner::of(session::relation("inbox")?, pg_sys::ACL_INSERT, "prepare_partitions")?;
        let now = session::now();
        let times = (0..=settings::partitions_ahead()).map(|n| now + n * settings::partition_interval());
        let mut leaves = partition::leaves(events);
        ensure(events, &mut leaves, times).map(|made| made as i32)
    })())
}
