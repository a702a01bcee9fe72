//! Dirty ranges: what rollups can't answer, until it is rebuilt from raw events.
//!
//! One mechanism serves a new meter's past, a changed meter's present, and a min, max or latest whose event was
//! voided: a row of `dirty_ranges` says that for this meter (and customer) and these hours the rollups are not to be
//! used. Readers take the range from raw events of their snapshot, which is exact and slower; the folder rebuilds it.
//!
//! # Protocol
//! The transaction that makes a range dirty holds the fence and draws a batch number. The fold takes the ranges it
//! saw *before* it read S; after its wait it replaces their rollups by what raw events and corrections of batches up
//! to S say. That is the state as of S, and deltas after S come on top as everywhere.
//! - A batch after S drew its number after the range's transaction had committed, so it knew the new meter and wrote
//!   deltas for it: nothing is missing. A range that committed after S was read is left for the next fold.
//! - A void after S left an inverse delta (invertible kinds) or a younger range (the others): nothing is counted twice.
//!
//! A long range is rebuilt in slices, oldest first, each in the transaction that shortens the range by it.
//!
//! # Crash behaviour
//! The range is as long as it was before the transaction; readers have used raw events all along.
//!
//! Proof: tests/isolation/specs/void_fold.spec, meter_ingest.spec; tests/client oracle.

use crate::core::delta::hour_of;
use crate::meters::{self, raw};
use crate::pg::error::{Fail, Outcome};
use crate::pg::partition::{self, Leaf};
use crate::pg::session;
use crate::pg::spi::{self, See};

use super::ladder::{self, Grain, Whose};
use super::store::Rollups;
use super::touched::Touched;
use super::{FoldState, fold::unreadable};

/// Events a fold rebuilds before it commits: a second or two, so that folding of live deltas keeps its pace.
const EVENTS_PER_FOLD: usize = 300_000;

struct Mark {
    id: i64,
    tenant: String,
    meter: i32,
    customer: Option<String>,
    from: i64,
    to: i64,
}

/// The ids of the ranges visible now.
pub fn marks() -> Outcome<Vec<i64>> {
    let mut ids = Vec::new();
    spi::run("SELECT id FROM meterflow.dirty_ranges ORDER BY id", &[], See::Write, |row| {
        ids.push(row.int8(0)?);
        Ok(())
    })?;
    Ok(ids)
}

/// Rebuilds the ranges as of `state.folded_batch`; true when some are left for the next fold.
pub fn rebuild(ids: &[i64], state: &FoldState, touched: &mut Touched) -> Outcome<bool> {
    let mut marks = Vec::new();
    spi::run(
        "SELECT id, tenant_id, meter_id, customer_id, from_time, to_time FROM meterflow.dirty_ranges WHERE id = ANY ($1) ORDER BY id",
        &[ids.to_vec().into()],
        See::Write,
        |row| {
            let customer = if row.is_null(3) { None } else { Some(row.text(3)?) };
            marks.push(Mark {
                id: row.int8(0)?,
                tenant: row.text(1)?,
                meter: row.int4(2)?,
                customer,
                from: row.time(4)?,
                to: row.time(5)?,
            });
            Ok(())
        },
    )?;
    // Corrections of one hour leave a range each; they are rebuilt together.
    marks.sort_by(|a, b| a.what().cmp(&b.what()));
    let leaves = partition::leaves(session::relation("events")?);
    let mut budget = EVENTS_PER_FOLD;
    for same in marks.chunk_by(|a, b| a.what() == b.what()) {
        let mark = &same[0];
        if let (Some(first), Some(last)) = (leaves.first(), leaves.last()) {
            let end = mark.to.min(ladder::ceil(Grain::Day, last.to));
            let mut from = mark.from.max(ladder::floor(Grain::Day, first.from));
            while from < end {
                if budget == 0 {
                    shorten(same, from)?;
                    return Ok(true);
                }
                let to = slice_end(&leaves, from).min(end);
                let events = rebuild_slice(mark, from, to, state, touched)?;
                budget = budget.saturating_sub(events.max(1));
                from = to;
            }
        }
        forget(same)?;
    }
    Ok(false)
}

/// The end of the day, or of the empty stretch, that begins at `from`.
fn slice_end(leaves: &[Leaf], from: i64) -> i64 {
    let day_end = ladder::ceil(Grain::Day, from.saturating_add(1));
    match leaves.iter().find(|leaf| leaf.to > from) {
        Some(leaf) if leaf.from > day_end => ladder::floor(Grain::Day, leaf.from),
        _ => day_end,
    }
}

fn forget(marks: &[Mark]) -> Outcome<()> {
    let ids: Vec<i64> = marks.iter().map(|mark| mark.id).collect();
    spi::run("DELETE FROM meterflow.dirty_ranges WHERE id = ANY ($1)", &[ids.into()], See::Write, |_| Ok(()))?;
    Ok(())
}

fn shorten(marks: &[Mark], from: i64) -> Outcome<()> {
    let ids: Vec<i64> = marks.iter().map(|mark| mark.id).collect();
    let sql = "UPDATE meterflow.dirty_ranges SET from_time = $2 WHERE id = ANY ($1)";
    spi::run(sql, &[ids.into(), spi::time(from)], See::Write, |_| Ok(()))?;
    Ok(())
}

impl Mark {
    fn what(&self) -> (&str, i32, Option<&str>, i64, i64) {
        (&self.tenant, self.meter, self.customer.as_deref(), self.from, self.to)
    }
}

/// Rebuilds whole hours of at most some days; returns the events it read.
fn rebuild_slice(mark: &Mark, from: i64, to: i64, state: &FoldState, touched: &mut Touched) -> Outcome<usize> {
    let (from, to) = widened(from, to, state);
    spi::run(
        "DELETE FROM meterflow.rollups WHERE tenant_id = $1 AND meter_id = $2 AND grain = 'h' AND ($3::text IS NULL OR customer_id = $3) AND bucket >= $4 AND bucket < $5",
        &[
            mark.tenant.as_str().into(),
            mark.meter.into(),
            mark.customer.as_deref().into(),
            spi::time(from),
            spi::time(to),
        ],
        See::Write,
        |_| Ok(()),
    )?;
    let sql = format!("SELECT {} FROM meterflow.meter_versions WHERE tenant_id = $1 AND id = $2", meters::COLUMNS);
    let meter = spi::one(&sql, &[mark.tenant.as_str().into(), mark.meter.into()], See::Write, meters::read)?
        .ok_or_else(|| Fail::corrupt(format!("dirty range {} is of a meter that does not exist", mark.id)))?;
    let secret = meters::secret()?;

    let mut rollups = Rollups::default();
    let mut events = 0;
    let mut group = String::new();
    let scope = raw::Scope {
        tenant: &mark.tenant,
        customer: mark.customer.as_deref(),
        event_name: &meter.event_name,
        from,
        to,
        known: raw::Known { last: state.folded_batch, missing: &[] },
    };
    raw::samples(&scope, std::slice::from_ref(&meter), &secret, See::Write, |customer, meter, tape, sample| {
        events += 1;
        group.clear();
        meter.group(tape, &mut group);
        rollups
            .state(&mark.tenant, customer, meter.id, hour_of(sample.at), &group, meter.kind)
            .add(sample)
            .map_err(unreadable)
    })?;
    touched.add(&rollups);
    if let Some(customer) = &mark.customer {
        touched.add_customer(&mark.tenant, customer, mark.meter);
    }
    // Hours only: the coarser grains are made anew below, from all hours of their bucket.
    rollups.write(&FoldState { closed_day: i64::MIN, ..*state })?;

    let whose = Whose { tenant: &mark.tenant, meter: mark.meter, customer: mark.customer.as_deref() };
    for (finer, grain) in [(Grain::Hour, Grain::Day), (Grain::Day, Grain::Month)] {
        // Days after closed_day don't exist; a month that is not over has those before it.
        let (low, high) = (ladder::floor(grain, from), ladder::ceil(grain, to.min(state.closed_day)));
        // A month whose days are gone, and whose first raw events are too, stays as it was rolled up.
        let lost = grain == Grain::Month && low < state.day_cleared && low < state.raw_cleared;
        if from < state.closed_day && !lost {
            ladder::climb(finer, grain, low, high, Some(&whose))?;
        }
    }
    // What has been cleared has come back only for the climb.
    for (grain, cleared) in [(Grain::Hour, state.hour_cleared), (Grain::Day, state.day_cleared)] {
        if from < cleared {
            spi::run(
                "DELETE FROM meterflow.rollups WHERE tenant_id = $1 AND meter_id = $2 AND grain = $3::\"char\" AND bucket < $4",
                &[mark.tenant.as_str().into(), mark.meter.into(), ladder::letter(grain).into(), spi::time(cleared)],
                See::Write,
                |_| Ok(()),
            )?;
        }
    }
    Ok(events)
}

/// A slice grown to the whole days and months that are made from it, where the finer rollups of their other parts have
/// been cleared.
fn widened(from: i64, to: i64, state: &FoldState) -> (i64, i64) {
    let (mut from, mut to) = (from, to);
    for (grain, cleared) in [(Grain::Day, state.hour_cleared), (Grain::Month, state.day_cleared)] {
        let (low, high) = (ladder::floor(grain, from), ladder::ceil(grain, to));
        if from < cleared && low >= state.raw_cleared {
            (from, to) = (low, high);
        }
    }
    (from, to)
}
