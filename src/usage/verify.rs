//! The proof an operator can run: usage recomputed from raw events against what is stored.
//!
//! Every meter version is compared hour by hour (rollups plus deltas of the same snapshot, as a reader would merge
//! them), then days against their hours and months against their days; states are compared as stored bytes, so a
//! difference of a single unit shows. Dirty ranges are left out: readers don't use those rollups either; so is what
//! lies below the floor that retention has announced, for a meter made since then is not filled from what is about to
//! be dropped. Then keys: no two live events with one identity, and no event in the dedup window whose key is not
//! remembered.

use std::rc::Rc;

use pgrx::prelude::*;
use rustc_hash::FxHashMap;

use crate::core::cover::{self, EARLIEST, LATEST, Source};
use crate::core::delta::{self, hour_of};
use crate::core::key::Secret;
use crate::core::meter::Meter;
use crate::core::state::State;
use crate::meters::{self, raw};
use crate::pg::datum::{timestamptz, unix_micros};
use crate::pg::error::{Fail, Outcome, raise};
use crate::pg::lock::check_for_interrupts;
use crate::pg::spi::{self, See};
use crate::pg::{partition, session, settings};

/// problem, meter_key, customer_id, group_key, grain, bucket, expected, found.
type Row = (
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<TimestampWithTimeZone>,
    Option<String>,
    Option<String>,
);

#[pg_extern(sql = "")]
fn verify_usage(
    meter_key: Option<&str>,
    start_time: TimestampWithTimeZone,
    end_time: TimestampWithTimeZone,
) -> TableIterator<
    'static,
    (
        name!(problem, String),
        name!(meter_key, Option<String>),
        name!(customer_id, Option<String>),
        name!(group_key, Option<String>),
        name!(grain, Option<String>),
        name!(bucket, Option<TimestampWithTimeZone>),
        name!(expected, Option<String>),
        name!(found, Option<String>),
    ),
> {
    let (from, to) = (unix_micros(start_time.into_inner()), unix_micros(end_time.into_inner()));
    TableIterator::new(raise(check(meter_key, from.max(EARLIEST), to.min(LATEST))))
}

/// States of one grain by (customer, group, bucket).
type States = FxHashMap<(String, String, i64), State>;

fn check(meter_key: Option<&str>, from: i64, to: i64) -> Outcome<Vec<Row>> {
    let tenant = settings::tenant();
    let secret = meters::secret()?;
    let mut versions: Vec<(String, Rc<Meter>)> = Vec::new();
    let sql = format!(
        "SELECT {} FROM meterflow.meter_versions WHERE tenant_id = $1 AND ($2::text IS NULL OR meter_key = $2) ORDER BY event_name, id",
        meters::COLUMNS
    );
    spi::run(&sql, &[tenant.as_str().into(), meter_key.into()], See::Statement, |row| {
        versions.push((row.text(1)?, meters::read(row)?));
        Ok(())
    })?;
    let mut rows = Vec::new();
    let floor =
        spi::one("SELECT greatest(raw_floor, hour_floor) FROM meterflow.fold_state", &[], See::Statement, |row| {
            row.time(0)
        })?
        .ok_or_else(|| Fail::corrupt("meterflow.fold_state is empty"))?;
    let audits: Vec<Audit<'_>> =
        versions.iter().map(|(key, meter)| Audit { tenant: &tenant, key, meter, secret: &secret }).collect();
    for (from, to) in days(from.max(floor), to)? {
        for same_events in audits.chunk_by(|a, b| a.meter.event_name == b.meter.event_name) {
            let mut expected = raw_hours(same_events, from, to)?;
            for audit in same_events {
                audit.hours(expected.remove(&audit.meter.id).unwrap_or_default(), from, to, &mut rows)?;
            }
        }
    }
    for audit in &audits {
        audit.climbed("d", "h", "day", from, to, &mut rows)?;
        audit.climbed("m", "d", "month", from, to, &mut rows)?;
    }
    if meter_key.is_none() {
        keys(&tenant, from, to, &mut rows)?;
    }
    Ok(rows)
}

/// The days of [from, to) that raw events are stored for; memory is bounded by the busiest of them.
fn days(from: i64, to: i64) -> Outcome<Vec<(i64, i64)>> {
    let mut days = Vec::new();
    for leaf in partition::leaves(session::relation("events")?) {
        let mut at = cover::floor(Source::Day, leaf.from.max(from));
        while at < leaf.to.min(to) {
            let next = at + 24 * delta::HOUR;
            if days.last().is_none_or(|&(last, _)| last < at) {
                days.push((at, next));
            }
            at = next;
        }
    }
    Ok(days)
}

/// Hour states by meter from raw events: one pass for all meters that measure the same events.
fn raw_hours(audits: &[Audit<'_>], from: i64, to: i64) -> Outcome<FxHashMap<i32, States>> {
    let mut hours: FxHashMap<i32, States> = FxHashMap::default();
    let Some(first) = audits.first() else { return Ok(hours) };
    let meters: Vec<Rc<Meter>> = audits.iter().map(|audit| audit.meter.clone()).collect();
    let scope =
        raw::Scope { tenant: first.tenant, customer: None, event_name: &first.meter.event_name, from, to, known: raw::Known::ALL };
    raw::samples(&scope, &meters, first.secret, See::Statement, |customer, meter, tape, sample| {
        let mut group = String::new();
        meter.group(tape, &mut group);
        hours
            .entry(meter.id)
            .or_default()
            .entry((customer.to_string(), group, hour_of(sample.at)))
            .or_insert_with(|| State::empty(meter.kind))
            .add(sample)
            .map_err(|error| Fail::corrupt(error.to_string()))
    })?;
    Ok(hours)
}

struct Audit<'a> {
    tenant: &'a str,
    key: &'a str,
    meter: &'a Rc<Meter>,
    secret: &'a Secret,
}

impl Audit<'_> {
    /// What raw events say of a day against its hours.
    fn hours(&self, expected: States, from: i64, to: i64, rows: &mut Vec<Row>) -> Outcome<()> {
        let mut found = self.stored("h", from, to)?;
        self.add_deltas(from, to, &mut found)?;
        let dirty = self.dirty()?;
        let usable = |key: &(String, String, i64)| {
            !dirty.iter().any(|(customer, low, high)| {
                customer.as_ref().is_none_or(|customer| *customer == key.0) && (*low..*high).contains(&key.2)
            })
        };
        self.compare("rollup differs from raw events", "h", expected, found, usable, rows);
        Ok(())
    }

    /// Rollups of a grain against the finer ones they were made from, where both are stored.
    fn climbed(&self, grain: &str, finer: &str, unit: &str, from: i64, to: i64, rows: &mut Vec<Row>) -> Outcome<()> {
        let sql = format!(
            "WITH base AS (SELECT closed_day AS closed, CASE WHEN $3 = 'd' THEN greatest(hour_floor, day_floor) ELSE day_floor END AS floor FROM meterflow.fold_state), \
                  fine AS (SELECT customer_id, group_key, date_trunc('{unit}', bucket, 'UTC') AS bucket, meterflow.merge(state) AS state \
                             FROM meterflow.rollups, base WHERE tenant_id = $1 AND meter_id = $2 AND grain = $4::\"char\" AND bucket >= floor AND bucket < closed GROUP BY 1, 2, 3), \
                  coarse AS (SELECT customer_id, group_key, bucket, meterflow.merge(state) AS state \
                             FROM meterflow.rollups, base WHERE tenant_id = $1 AND meter_id = $2 AND grain = $3::\"char\" AND bucket >= floor GROUP BY 1, 2, 3) \
             SELECT customer_id, group_key, bucket, fine.state::text, coarse.state::text FROM fine FULL JOIN coarse USING (customer_id, group_key, bucket) \
              WHERE bucket >= $5 AND bucket < $6 AND fine.state::bytea IS DISTINCT FROM coarse.state::bytea \
                AND NOT EXISTS (SELECT FROM meterflow.dirty_ranges r WHERE r.tenant_id = $1 AND r.meter_id = $2 AND (r.customer_id IS NULL OR r.customer_id = customer_id) \
                                  AND r.from_time < bucket + interval '1 {unit}' AND r.to_time > bucket) \
              LIMIT 1000"
        );
        let args =
            [self.tenant.into(), self.meter.id.into(), grain.into(), finer.into(), spi::time(from), spi::time(to)];
        spi::run(&sql, &args, See::Statement, |row| {
            let text = |column: usize| if row.is_null(column) { Ok(None) } else { row.text(column).map(Some) };
            rows.push((
                format!("{unit} rollup differs from the finer ones"),
                Some(self.key.to_string()),
                text(0)?,
                text(1)?,
                Some(grain.to_string()),
                Some(timestamptz(row.time(2)?)),
                text(3)?,
                text(4)?,
            ));
            Ok(())
        })?;
        Ok(())
    }

    fn stored(&self, grain: &str, from: i64, to: i64) -> Outcome<States> {
        let mut states = States::default();
        spi::stream(
            "SELECT customer_id, group_key, bucket, state FROM meterflow.rollups WHERE tenant_id = $1 AND meter_id = $2 AND grain = $3::\"char\" AND bucket >= $4 AND bucket < $5",
            &[self.tenant.into(), self.meter.id.into(), grain.into(), spi::time(from), spi::time(to)],
            See::Statement,
            |row| {
                check_for_interrupts();
                let key = (row.text(0)?, row.text(1)?, row.time(2)?);
                row.with_bytes(3, |bytes| merge(&mut states, key, bytes))?
            },
        )?;
        Ok(states)
    }

    fn add_deltas(&self, from: i64, to: i64, states: &mut States) -> Outcome<()> {
        spi::stream(
            "SELECT entries FROM meterflow.deltas WHERE tenant_id = $1 AND batch > (SELECT folded_batch FROM meterflow.fold_state)",
            &[self.tenant.into()],
            See::Statement,
            |row| {
                row.with_bytes(0, |customers| {
                    for customer in delta::customers(customers) {
                        let (customer, packed) = customer.map_err(|error| Fail::corrupt(error.to_string()))?;
                        for entry in delta::entries(packed) {
                            let entry = entry.map_err(|error| Fail::corrupt(error.to_string()))?;
                            if entry.meter == self.meter.id && (from..to).contains(&entry.bucket) {
                                merge(
                                    states,
                                    (customer.to_string(), entry.group.to_string(), entry.bucket),
                                    entry.state,
                                )?;
                            }
                        }
                    }
                    Ok(())
                })?
            },
        )
    }

    fn dirty(&self) -> Outcome<Vec<(Option<String>, i64, i64)>> {
        let mut dirty = Vec::new();
        spi::run(
            "SELECT customer_id, from_time, to_time FROM meterflow.dirty_ranges WHERE tenant_id = $1 AND meter_id = $2",
            &[self.tenant.into(), self.meter.id.into()],
            See::Statement,
            |row| {
                dirty.push((if row.is_null(0) { None } else { Some(row.text(0)?) }, row.time(1)?, row.time(2)?));
                Ok(())
            },
        )?;
        Ok(dirty)
    }

    fn compare(
        &self,
        problem: &str,
        grain: &str,
        mut expected: States,
        found: States,
        usable: impl Fn(&(String, String, i64)) -> bool,
        rows: &mut Vec<Row>,
    ) {
        let mut report = |key: (String, String, i64), expected: Option<State>, found: Option<State>| {
            let hex = |state: Option<State>| {
                state.map(|state| {
                    let mut bytes = Vec::new();
                    state.encode(&mut bytes);
                    bytes.iter().fold("\\x".to_string(), |text, byte| text + &format!("{byte:02x}"))
                })
            };
            if usable(&key) {
                let (customer, group, bucket) = key;
                rows.push((
                    problem.to_string(),
                    Some(self.key.to_string()),
                    Some(customer),
                    Some(group),
                    Some(grain.to_string()),
                    Some(timestamptz(bucket)),
                    hex(expected),
                    hex(found),
                ));
            }
        };
        for (key, found) in found {
            let expected = expected.remove(&key);
            // A rollup whose events have all been taken back may stay as an empty state.
            if expected.as_ref() != Some(&found) && !(expected.is_none() && found.is_empty()) {
                report(key, expected, Some(found));
            }
        }
        for (key, expected) in expected {
            report(key, Some(expected), None);
        }
    }
}

fn merge(states: &mut States, key: (String, String, i64), bytes: &[u8]) -> Outcome<()> {
    let state = State::decode(bytes).map_err(|error| Fail::corrupt(error.to_string()))?;
    match states.entry(key) {
        std::collections::hash_map::Entry::Occupied(mut merged) => {
            merged.get_mut().merge(&state).map_err(|error| Fail::corrupt(error.to_string()))
        }
        std::collections::hash_map::Entry::Vacant(place) => {
            place.insert(state);
            Ok(())
        }
    }
}

/// Events that share an identity (within the dedup window: after it an id may be used again), and events whose key is
/// not remembered though it should be.
fn keys(tenant: &str, from: i64, to: i64, rows: &mut Vec<Row>) -> Outcome<()> {
    let window = settings::backdate_window() + settings::future_window();
    spi::run(
        "SELECT source, transaction_id, count(*)::text FROM meterflow.events e \
          WHERE tenant_id = $1 AND timestamp >= $2 AND timestamp < $3 \
            AND NOT EXISTS (SELECT FROM meterflow.event_corrections c WHERE c.tenant_id = e.tenant_id AND c.seq = e.seq) \
          GROUP BY 1, 2 HAVING count(*) > 1 AND max(timestamp) - min(timestamp) <= $4 * interval '1 microsecond' LIMIT 1000",
        &[tenant.into(), spi::time(from), spi::time(to), (window as f64).into()],
        See::Statement,
        |row| {
            let identity = format!("source {:?}, transaction_id {:?}", row.text(0)?, row.text(1)?);
            rows.push((
                format!("event stored more than once: {identity}"),
                None,
                None,
                None,
                None,
                None,
                Some("1".to_string()),
                Some(row.text(2)?),
            ));
            Ok(())
        },
    )?;
    // Every key row is one event (of some tenant); amendments reuse the key of their original.
    spi::run(
        "SELECT e.n, k.n FROM (SELECT count(*) AS n FROM meterflow.events WHERE seq NOT IN (SELECT replaced_by FROM meterflow.event_corrections WHERE replaced_by IS NOT NULL)) e, \
                (SELECT count(*) AS n FROM meterflow.dedup_keys) k, meterflow.engine g, meterflow.fold_state s \
          WHERE g.dedup_floor = '-infinity' AND s.raw_floor = '-infinity' AND g.generation_phase = 'steady' \
            AND NOT EXISTS (SELECT FROM meterflow.dedup_generations WHERE closed_at IS NOT NULL) AND e.n <> k.n",
        &[],
        See::Statement,
        |row| {
            rows.push((
                "events and dedup keys differ in number".to_string(),
                None,
                None,
                None,
                None,
                None,
                Some(row.int8(0)?.to_string()),
                Some(row.int8(1)?.to_string()),
            ));
            Ok(())
        },
    )?;
    Ok(())
}
