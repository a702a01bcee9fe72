//! The bound on a meter's groups: a dimension that turns out to be an id must not fill the disk with rollups.
//!
//! The first sight of a group is recorded in `meter_groups` by the ingest transaction. The table has no unique index:
//! two sessions that see a group first at once both record it, and neither waits for the other. Each session keeps the
//! groups it knows; when a meter is full it reads them again before it refuses. Concurrent sessions may each admit
//! new groups up to the limit, so the bound is the limit times the sessions, at worst.

use std::cell::RefCell;

use pgrx::{PgSubXactCallbackEvent, PgXactCallbackEvent, register_subxact_callback, register_xact_callback};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::core::event::{Code, Fault, excerpt};
use crate::core::key::Secret;
use crate::pg::error::Outcome;
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::batch::{Candidate, Failure, Measured, Report};

thread_local! {
    /// Known groups by tenant and meter. Dropped whole when a transaction that may have recorded some rolls back.
    /// They are of one installation, which its secret tells from the next.
    static KNOWN: RefCell<Known> = RefCell::default();
}

#[derive(Default)]
struct Known {
    secret: Option<Secret>,
    groups: FxHashMap<(String, i32), FxHashSet<String>>,
}

/// Refuses candidates whose group is one too many; records the new groups of the others.
pub fn admit(
    tenant: &str,
    secret: &Secret,
    measured: &Measured,
    candidates: &mut Vec<Candidate<'_>>,
    report: &mut Report,
) -> Outcome<()> {
    if measured.groups.iter().all(String::is_empty) {
        return Ok(());
    }
    KNOWN.with_borrow_mut(|known| {
        if known.secret != Some(*secret) {
            *known = Known { secret: Some(*secret), ..Known::default() };
        }
    });
    let limit = settings::max_groups();
    let mut settled: FxHashMap<(i32, u32), bool> = FxHashMap::default();
    let (mut new_meters, mut new_groups): (Vec<i32>, Vec<String>) = (Vec::new(), Vec::new());
    let mut refused: FxHashMap<usize, Fault> = FxHashMap::default();
    for candidate in candidates.iter() {
        for measure in &measured.measures[candidate.measures.clone()] {
            let group = &measured.groups[measure.group as usize];
            let admitted = match settled.get(&(measure.meter, measure.group)) {
                Some(&admitted) => admitted,
                None => {
                    let admitted = match look_up(tenant, measure.meter, group, limit)? {
                        Standing::Known => true,
                        Standing::New => {
                            new_meters.push(measure.meter);
                            new_groups.push(group.clone());
                            true
                        }
                        Standing::TooMany => false,
                    };
                    settled.insert((measure.meter, measure.group), admitted);
                    admitted
                }
            };
            if !admitted {
                let message = format!("group {} would be one more than the {limit} a meter may have", excerpt(group));
                refused.insert(
                    candidate.index,
                    Fault {
                        transaction_id: Some(candidate.event.transaction_id.to_string()),
                        ..Fault::new(Code::TooManyGroups, message)
                    },
                );
                break;
            }
        }
    }
    if !refused.is_empty() {
        candidates.retain(|candidate| !refused.contains_key(&candidate.index));
        report.failures.extend(refused.into_iter().map(|(index, fault)| Failure { index, fault }));
    }
    if !new_groups.is_empty() {
        forget_on_rollback();
        spi::run(
            "INSERT INTO meterflow.meter_groups (tenant_id, meter_id, group_key) SELECT $1, m, g FROM unnest($2::int[], $3::text[]) AS n(m, g)",
            &[tenant.into(), new_meters.into(), new_groups.into()],
            See::Write,
            |_| Ok(()),
        )?;
    }
    Ok(())
}

enum Standing {
    Known,
    New,
    TooMany,
}

fn look_up(tenant: &str, meter: i32, group: &str, limit: usize) -> Outcome<Standing> {
    if group.is_empty() {
        return Ok(Standing::Known);
    }
    let key = (tenant.to_string(), meter);
    let check = |reload: bool| -> Outcome<Standing> {
        if reload || !KNOWN.with_borrow(|known| known.groups.contains_key(&key)) {
            let mut groups = FxHashSet::default();
            spi::run(
                "SELECT group_key FROM meterflow.meter_groups WHERE tenant_id = $1 AND meter_id = $2",
                &[tenant.into(), meter.into()],
                See::Latest,
                |row| {
                    groups.insert(row.text(0)?);
                    Ok(())
                },
            )?;
            KNOWN.with_borrow_mut(|known| known.groups.insert(key.clone(), groups));
        }
        Ok(KNOWN.with_borrow_mut(|known| {
            let groups = known.groups.entry(key.clone()).or_default();
            if groups.contains(group) {
                Standing::Known
            } else if groups.len() < limit {
                groups.insert(group.to_string());
                Standing::New
            } else {
                Standing::TooMany
            }
        }))
    };
    match check(false)? {
        // The limit may have been raised, or groups of a dropped meter removed, since they were read.
        Standing::TooMany => check(true),
        standing => Ok(standing),
    }
}

fn forget_on_rollback() {
    let forget = || KNOWN.with_borrow_mut(|known| known.groups.clear());
    register_xact_callback(PgXactCallbackEvent::Abort, forget);
    register_subxact_callback(PgSubXactCallbackEvent::AbortSub, move |_, _| forget());
}
