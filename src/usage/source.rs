//! Where the states of an answer come from: which pieces of which meter version are read where, and the reading.

use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use rustc_hash::FxHashMap;

use crate::core::cover::{self, Piece, Source, Stored};
use crate::core::decimal::Quantity;
use crate::core::delta;
use crate::core::filter::Filter;
use crate::core::key::{self, Secret};
use crate::core::meter::{self, Meter};
use crate::core::properties::Path;
use crate::core::state::{Kind, State, StateError};
use crate::meters::{self, raw};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::lock;
use crate::pg::spi::{self, See};

pub struct Question<'a> {
    pub tenant: &'a str,
    pub meter_key: &'a str,
    /// Contiguous, ascending, Unix microseconds.
    pub windows: &'a [(i64, i64)],
    pub customer: Option<&'a str>,
    pub group_by: &'a [Path],
    pub filter: Option<&'a Filter>,
    /// All customers as one.
    pub total: bool,
}

/// States by window, customer (null in totals) and group: a JSON array of the values of `group_by`.
pub struct Answer {
    pub kind: Kind,
    pub percentile: Quantity,
    pub states: FxHashMap<(usize, Option<String>, String), State>,
}

/// What a snapshot says about the stored state of the whole database.
struct Base {
    folded_batch: i64,
    stored: Stored,
    secret: Secret,
}

struct Version {
    meter: Rc<Meter>,
    complete_from: i64,
    /// Sorted by start.
    dirty: Vec<(i64, i64)>,
}

pub fn answer(question: &Question<'_>) -> Outcome<Answer> {
    let base = base()?;
    let versions = versions(question)?;
    let Some(newest) = versions.last() else {
        return Err(Fail::new(
            SqlState::ERRCODE_UNDEFINED_OBJECT,
            format!("meter \"{}\" does not exist", question.meter_key),
        )
        .detail(format!("Tenant {:?} has no such meter.", question.tenant))
        .hint("SELECT key FROM meterflow.meters lists them; meterflow.tenant says whose they are."));
    };
    let mut answer =
        Answer { kind: newest.meter.kind, percentile: newest.meter.percentile, states: FxHashMap::default() };
    for version in &versions {
        let reader = Reader { question, base: &base, version };
        reader.read(&mut answer)?;
    }
    Ok(answer)
}

fn base() -> Outcome<Base> {
    let (folded_batch, stored) = spi::one(
        "SELECT s.folded_batch, s.closed_day, s.closed_month, s.hour_floor, s.day_floor, s.raw_floor FROM meterflow.fold_state s",
        &[],
        See::Statement,
        |row| {
            let stored = Stored { closed_day: row.time(1)?, closed_month: row.time(2)?, hour_floor: row.time(3)?, day_floor: row.time(4)?, raw_floor: row.time(5)? };
            Ok((row.int8(0)?, stored))
        },
    )?
    .ok_or_else(|| Fail::corrupt("meterflow.fold_state is empty"))?;
    Ok(Base { folded_batch, stored, secret: meters::secret()? })
}

/// Every version of the meter, oldest first, with the ranges its rollups can't answer.
fn versions(question: &Question<'_>) -> Outcome<Vec<Version>> {
    let mut versions: Vec<Version> = Vec::new();
    let sql = format!(
        "SELECT {} FROM meterflow.meter_versions WHERE tenant_id = $1 AND meter_key = $2 ORDER BY version",
        meters::COLUMNS
    );
    spi::run(&sql, &[question.tenant.into(), question.meter_key.into()], See::Statement, |row| {
        versions.push(Version { meter: meters::read(row)?, complete_from: row.time(13)?, dirty: Vec::new() });
        Ok(())
    })?;
    let ids: Vec<i32> = versions.iter().map(|version| version.meter.id).collect();
    // A range of one customer counts for a question about all: coarser than need be, and exact.
    spi::run(
        "SELECT meter_id, from_time, to_time FROM meterflow.dirty_ranges \
          WHERE tenant_id = $1 AND meter_id = ANY ($2) AND ($3::text IS NULL OR customer_id IS NULL OR customer_id = $3) ORDER BY from_time",
        &[question.tenant.into(), ids.into(), question.customer.into()],
        See::Statement,
        |row| {
            let (meter, range) = (row.int4(0)?, (row.time(1)?, row.time(2)?));
            versions
                .iter_mut()
                .filter(|version| version.meter.id == meter)
                .for_each(|version| version.dirty.push(range));
            Ok(())
        },
    )?;
    Ok(versions)
}

struct Reader<'q> {
    question: &'q Question<'q>,
    base: &'q Base,
    version: &'q Version,
}

impl Reader<'_> {
    fn read(&self, answer: &mut Answer) -> Outcome<()> {
        let meter = &self.version.meter;
        let (Some(&(first, _)), Some(&(_, last))) = (self.question.windows.first(), self.question.windows.last())
        else {
            return Ok(());
        };
        let (start, end) = (first, last);
        // Buckets that the version's validity cuts hold only its own events; outside, it has none.
        let valid_from = cover::floor(Source::Hour, meter.valid_from.clamp(cover::EARLIEST, cover::LATEST));
        let valid_to = meter.valid_to.clamp(cover::EARLIEST, cover::LATEST);
        if end <= valid_from || start >= valid_to {
            return Ok(());
        }
        if meter.valid_from < self.version.complete_from && start < self.version.complete_from {
            return Err(gone(self.question.meter_key, self.version.complete_from)
                .detail("The meter was made after older events had been dropped by retention."));
        }
        let grouping = self.grouping();
        let (start, end) = self.stretched(start, end)?;
        let mut ranges: FxHashMap<Source, Vec<(i64, i64)>> = FxHashMap::default();
        for &(from, to) in self.question.windows {
            let from = if from == first { start } else { from };
            let to = if to == last { end } else { to };
            let (from, to) = (from.max(valid_from), to.min(cover::ceil(Source::Hour, valid_to)));
            if from >= to {
                continue;
            }
            for Piece { from, to, source } in self.pieces(from, to, grouping.is_none())? {
                let ranges = ranges.entry(source).or_default();
                match ranges.last_mut() {
                    Some(last) if last.1 == from => last.1 = to,
                    _ => ranges.push((from, to)),
                }
            }
        }
        if let Some(grouping) = &grouping {
            let mut whole: Vec<(i64, i64)> = Vec::new();
            for source in [Source::Month, Source::Day, Source::Hour] {
                if let Some(ranges) = ranges.get(&source) {
                    self.rollups(source, ranges, grouping, answer)?;
                    whole.extend(ranges);
                }
            }
            whole.sort_unstable();
            if !whole.is_empty() {
                self.deltas(&whole, grouping, answer)?;
            }
        }
        for &(from, to) in ranges.get(&Source::Raw).map_or(&[][..], Vec::as_slice) {
            self.raw(from, to, answer)?;
        }
        Ok(())
    }

    /// The period grown to whole hours where the customer has no event in what that adds: the usual "up to now" then
    /// needs no raw events. One index probe an end, against reading an hour of events.
    fn stretched(&self, start: i64, end: i64) -> Outcome<(i64, i64)> {
        let Some(customer) = self.question.customer else { return Ok((start, end)) };
        let nothing = |from: i64, to: i64| -> Outcome<bool> {
            let args: [DatumWithOid<'_>; 4] =
                [self.question.tenant.into(), customer.into(), spi::time(from), spi::time(to)];
            let found = spi::one(
                "SELECT EXISTS (SELECT FROM meterflow.events WHERE tenant_id = $1 AND customer_id = $2 AND timestamp >= $3 AND timestamp < $4)",
                &args,
                See::Statement,
                |row| row.bool(0),
            )?;
            Ok(found == Some(false))
        };
        let (low, high) = (cover::floor(Source::Hour, start), cover::ceil(Source::Hour, end));
        let raw_floor = self.base.stored.raw_floor;
        let start = if low < start && low >= raw_floor && nothing(low, start)? { low } else { start };
        let end = if end < high && end >= raw_floor && nothing(end, high)? { high } else { end };
        Ok((start, end))
    }

    fn pieces(&self, from: i64, to: i64, all_raw: bool) -> Outcome<Vec<Piece>> {
        let everything = [(i64::MIN, i64::MAX)];
        let dirty = if all_raw { &everything[..] } else { &self.version.dirty };
        cover::cover(from, to, dirty, &self.base.stored).map_err(|missing| {
            let shown = |at: i64| {
                jiff::Timestamp::from_microsecond(at).map_or_else(|_| at.to_string(), |time| time.to_string())
            };
            let why = if all_raw {
                "The question needs raw events: it filters or groups by something that is no dimension of the meter."
            } else {
                "Only whole UTC hours, days or months are kept of that time."
            };
            gone(self.question.meter_key, self.base.stored.raw_floor).detail(format!(
                "{why} Raw events of {} to {} have been dropped by retention.",
                shown(missing.from),
                shown(missing.to)
            ))
        })
    }

    /// How a stored group answers the question, or None when only raw events can.
    fn grouping(&self) -> Option<Grouping> {
        let dimensions = self.version.meter.dimensions();
        let places = self
            .question
            .group_by
            .iter()
            .map(|path| dimensions.iter().position(|dimension| dimension == path))
            .collect::<Option<Vec<usize>>>()?;
        if let Some(filter) = self.question.filter {
            if !filter.references().iter().all(|path| dimensions.contains(path)) {
                return None;
            }
        }
        Some(Grouping { places })
    }

    /// The group of the answer that a stored group belongs to; None when the filter refuses it.
    fn regroup(&self, grouping: &Grouping, stored: &str) -> Outcome<Option<String>> {
        if grouping.places.is_empty() && self.question.filter.is_none() {
            return Ok(Some(String::new()));
        }
        let values = values_of(stored)?;
        if let Some(filter) = self.question.filter {
            let texts: Vec<Option<&str>> =
                values.iter().map(|value| Some(value.get()).filter(|text| *text != "null")).collect();
            if filter.matches_group(self.version.meter.dimensions(), &texts) != Some(true) {
                return Ok(None);
            }
        }
        let chosen: Vec<&str> =
            grouping.places.iter().filter_map(|&place| values.get(place)).map(|value| value.get()).collect();
        Ok(Some(if chosen.is_empty() { String::new() } else { format!("[{}]", chosen.join(",")) }))
    }

    fn rollups(&self, source: Source, ranges: &[(i64, i64)], grouping: &Grouping, answer: &mut Answer) -> Outcome<()> {
        let grain = match source {
            Source::Month => "m",
            Source::Day => "d",
            Source::Hour | Source::Raw => "h",
        };
        let by_customer =
            if self.question.customer.is_some() { "AND customer_id = $4" } else { "AND $4::text IS NULL" };
        let columns = "bucket, customer_id, group_key, state";
        let mut each = |row: &spi::Row<'_>| {
            let bucket = row.time(0)?;
            let customer = row.text(1)?;
            let group = row.text(2)?;
            row.with_bytes(3, |bytes| self.merge(answer, grouping, bucket, &customer, &group, bytes))?
        };
        let mut args: Vec<DatumWithOid<'_>> = vec![
            self.question.tenant.into(),
            self.version.meter.id.into(),
            grain.into(),
            self.question.customer.into(),
        ];
        // One stretch is the rule; a query without the array gets the better plan.
        if let [(from, to)] = ranges {
            let sql = format!(
                "SELECT {columns} FROM meterflow.rollups \
                  WHERE tenant_id = $1 AND meter_id = $2 AND grain = $3::\"char\" {by_customer} AND bucket >= $5 AND bucket < $6"
            );
            args.extend([spi::time(*from), spi::time(*to)]);
            spi::run(&sql, &args, See::Statement, &mut each)?;
        } else {
            let (from, to): (Vec<i64>, Vec<i64>) = ranges.iter().copied().unzip();
            let sql = format!(
                "SELECT {columns} FROM unnest($5::timestamptz[], $6::timestamptz[]) AS range (low, high) CROSS JOIN LATERAL \
                  (SELECT {columns} FROM meterflow.rollups \
                    WHERE tenant_id = $1 AND meter_id = $2 AND grain = $3::\"char\" {by_customer} AND bucket >= low AND bucket < high) r"
            );
            args.extend([spi::times(&from), spi::times(&to)]);
            spi::run(&sql, &args, See::Statement, &mut each)?;
        }
        Ok(())
    }

    /// Deltas that no rollup holds yet, of hours the answer takes from rollups.
    fn deltas(&self, whole: &[(i64, i64)], grouping: &Grouping, answer: &mut Answer) -> Outcome<()> {
        let wanted = self.question.customer;
        let bucket =
            wanted.map(|customer| delta::bucket_of(key::subject(&self.base.secret, self.question.tenant, customer)));
        let by_bucket = if bucket.is_some() { "AND bucket = $3" } else { "AND $3::smallint IS NULL" };
        let sql = format!("SELECT entries FROM meterflow.deltas WHERE batch > $1 AND tenant_id = $2 {by_bucket}");
        let args: [DatumWithOid<'_>; 3] = [self.base.folded_batch.into(), self.question.tenant.into(), bucket.into()];
        spi::stream(&sql, &args, See::Statement, |row| {
            row.with_bytes(0, |customers| {
                for customer in delta::customers(customers) {
                    let (customer, packed) = customer.map_err(unreadable)?;
                    if wanted.is_some_and(|wanted| wanted != customer) {
                        continue;
                    }
                    for entry in delta::entries(packed) {
                        let entry = entry.map_err(unreadable)?;
                        let next = whole.partition_point(|&(_, to)| to <= entry.bucket);
                        let inside = whole.get(next).is_some_and(|&(from, _)| from <= entry.bucket);
                        if entry.meter == self.version.meter.id && inside {
                            self.merge(answer, grouping, entry.bucket, customer, entry.group, entry.state)?;
                        }
                    }
                }
                Ok(())
            })?
        })?;
        self.check_not_emptied()
    }

    /// On a standby, deltas may have been thrown away that this snapshot still needs (`rollup/slots.rs`).
    fn check_not_emptied(&self) -> Outcome<()> {
        if !lock::in_recovery() {
            return Ok(());
        }
        let emptied =
            spi::one("SELECT coalesce(max(emptied_batch), 0) FROM meterflow.delta_slots", &[], See::Latest, |row| {
                row.int8(0)
            })?;
        if emptied.unwrap_or(0) > self.base.folded_batch {
            return Err(Fail::new(
                SqlState::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "this snapshot is too old to answer usage from a standby",
            )
            .detail("Deltas it needs have been folded and dropped on the primary since.")
            .hint("Retry in a new transaction, or set hot_standby_feedback = on."));
        }
        Ok(())
    }

    fn merge(
        &self,
        answer: &mut Answer,
        grouping: &Grouping,
        bucket: i64,
        customer: &str,
        group: &str,
        state: &[u8],
    ) -> Outcome<()> {
        let Some(group) = self.regroup(grouping, group)? else { return Ok(()) };
        let state = State::decode(state).map_err(unreadable)?;
        match answer.states.entry((self.window(bucket), self.row_customer(customer), group)) {
            std::collections::hash_map::Entry::Occupied(mut merged) => {
                merged.get_mut().merge(&state).map_err(unreadable)
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(state);
                Ok(())
            }
        }
    }

    fn raw(&self, from: i64, to: i64, answer: &mut Answer) -> Outcome<()> {
        let meter = &self.version.meter;
        let scope = raw::Scope {
            tenant: self.question.tenant,
            customer: self.question.customer,
            event_name: &meter.event_name,
            from,
            to,
            batch: None,
        };
        raw::samples(
            &scope,
            std::slice::from_ref(meter),
            &self.base.secret,
            See::Statement,
            |customer, meter, tape, sample| {
                if self.question.filter.is_some_and(|filter| !filter.matches(tape)) {
                    return Ok(());
                }
                let mut group = String::new();
                meter::write_group(self.question.group_by, tape, &mut group);
                let key = (self.window(sample.at), self.row_customer(customer), group);
                answer.states.entry(key).or_insert_with(|| State::empty(meter.kind)).add(sample).map_err(unreadable)
            },
        )
    }

    /// Windows are contiguous, so the window of a time is found by its end.
    fn window(&self, at: i64) -> usize {
        self.question.windows.partition_point(|&(_, to)| to <= at)
    }

    fn row_customer(&self, customer: &str) -> Option<String> {
        (!self.question.total).then(|| customer.to_string())
    }
}

/// Positions of the asked-for properties among the meter's dimensions.
struct Grouping {
    places: Vec<usize>,
}

fn values_of(group: &str) -> Outcome<Vec<&serde_json::value::RawValue>> {
    if group.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(group)
        .map_err(|error| Fail::corrupt("a stored group key is not a JSON array").detail(format!("{group}: {error}")))
}

/// The group of an answer as a JSON object of property and value; None when the question did not group.
pub fn group_object(names: &[String], group: &str) -> Outcome<Option<String>> {
    if names.is_empty() {
        return Ok(None);
    }
    let values = values_of(group)?;
    let members: Vec<String> = names
        .iter()
        .zip(&values)
        .map(|(name, value)| format!("{}:{}", serde_json::Value::from(name.as_str()), value.get()))
        .collect();
    Ok(Some(format!("{{{}}}", members.join(","))))
}

fn unreadable(error: StateError) -> Fail {
    Fail::corrupt("a stored usage state can not be used").detail(error.to_string())
}

fn gone(meter: &str, from: i64) -> Fail {
    let shown = jiff::Timestamp::from_microsecond(from).map_or_else(|_| from.to_string(), |time| time.to_string());
    Fail::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("usage of meter \"{meter}\" in this period can no longer be answered exactly"),
    )
    .hint(format!("Ask for whole UTC days before {shown}, or for a period that starts there."))
}
