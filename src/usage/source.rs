//! Where the states of an answer come from: which pieces of which meter version are read where, and the reading.

use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use rustc_hash::FxHashMap;

use crate::core::cover::{self, Piece, Source};
use crate::core::decimal::Quantity;
use crate::core::filter::Filter;
use crate::core::meter::{self, Meter};
use crate::core::properties::Path;
use crate::core::state::{Kind, StateError, Tally};
use crate::meters::{self, raw};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::spi::{self, See};

use super::stored::{self, Base};

pub struct Question<'a> {
    pub tenant: &'a str,
    pub meter_keys: &'a [&'a str],
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
    pub states: FxHashMap<(usize, Option<String>, String), Tally>,
}

/// A version of one of the meters, and how its part of the answer is read.
struct Version {
    /// Position of its meter in the question.
    place: usize,
    meter: Rc<Meter>,
    complete_from: i64,
    /// Sorted by start.
    dirty: Vec<(i64, i64)>,
    /// How its groups answer the question; None when only raw events can.
    grouping: Option<Grouping>,
    /// Stretches read from rollups, with the letter of their grain.
    stretches: Vec<(u8, i64, i64)>,
    /// The same stretches in order of time: what deltas add to.
    whole: Vec<(i64, i64)>,
    /// Stretches read from raw events.
    raw: Vec<(i64, i64)>,
}

/// Answers for the meters of the question, in its order. Meters share one pass over deltas, which is what a question costs
/// by; a balance asks for all meters of a plan at once.
pub fn answer(question: &Question<'_>) -> Outcome<Vec<Answer>> {
    let base = Base::read()?;
    let mut versions = versions(question, &base)?;
    let mut answers = Vec::with_capacity(question.meter_keys.len());
    for (place, key) in question.meter_keys.iter().enumerate() {
        let Some(newest) = versions.iter().rfind(|version| version.place == place) else {
            return Err(meters::unknown(question.tenant, key));
        };
        let meter = &newest.meter;
        answers.push(Answer { kind: meter.kind, percentile: meter.percentile, states: FxHashMap::default() });
    }
    let reader = Reader { question, base: &base };
    let period = reader.stretched()?;
    for version in &mut versions {
        reader.plan(version, period)?;
    }
    if versions.iter().any(|version| !version.stretches.is_empty()) {
        reader.rollups(&versions, &mut answers)?;
        reader.deltas(&versions, &mut answers)?;
    }
    for version in &versions {
        for &(from, to) in &version.raw {
            reader.raw(version, from, to, &mut answers)?;
        }
    }
    Ok(answers)
}

/// Every version of the meters, oldest first, with the ranges its rollups can't answer.
fn versions(question: &Question<'_>, base: &Base) -> Outcome<Vec<Version>> {
    let known = meters::versions(question.tenant, base.catalogue)?;
    let mut versions: Vec<Version> = Vec::new();
    for (place, key) in question.meter_keys.iter().enumerate() {
        versions.extend(known.get(*key).into_iter().flatten().map(|version| Version {
            place,
            meter: version.meter.clone(),
            complete_from: version.complete_from,
            dirty: Vec::new(),
            grouping: None,
            stretches: Vec::new(),
            whole: Vec::new(),
            raw: Vec::new(),
        }));
    }
    let mut ranges = stored::DirtyRanges::open(question)?;
    versions.iter_mut().try_for_each(|version| {
        version.dirty = ranges.of(version.meter.id)?;
        Ok(())
    })?;
    Ok(versions)
}

struct Reader<'q> {
    question: &'q Question<'q>,
    base: &'q Base,
}

impl Reader<'_> {
    /// Start of the first and end of the last window.
    fn period(&self) -> (i64, i64) {
        let windows = self.question.windows;
        windows.first().zip(windows.last()).map_or((0, 0), |(first, last)| (first.0, last.1))
    }

    /// Decides where each part of a version's answer is read. `stretched` is the period as `stretched` returns it.
    fn plan(&self, version: &mut Version, stretched: (i64, i64)) -> Outcome<()> {
        let meter = version.meter.clone();
        let (first, last) = self.period();
        // Buckets that the version's validity cuts hold only its own events; outside, it has none.
        let valid_from = cover::floor(Source::Hour, meter.valid_from.clamp(cover::EARLIEST, cover::LATEST));
        let valid_to = meter.valid_to.clamp(cover::EARLIEST, cover::LATEST);
        if last <= valid_from || first >= valid_to {
            return Ok(());
        }
        if meter.valid_from < version.complete_from && first < version.complete_from {
            return Err(gone(self.question.meter_keys[version.place], version.complete_from)
                .detail("The meter was made after older events had been dropped by retention."));
        }
        version.grouping = self.grouping(&meter);
        for &(from, to) in self.question.windows {
            let from = if from == first { stretched.0 } else { from };
            let to = if to == last { stretched.1 } else { to };
            let (from, to) = (from.max(valid_from), to.min(cover::ceil(Source::Hour, valid_to)));
            if from >= to {
                continue;
            }
            for Piece { from, to, source } in self.pieces(version, from, to)? {
                let letter = match source {
                    Source::Raw => {
                        join(&mut version.raw, from, to);
                        continue;
                    }
                    Source::Hour => b'h',
                    Source::Day => b'd',
                    Source::Month => b'm',
                };
                join(&mut version.whole, from, to);
                match version.stretches.last_mut() {
                    Some(last) if last.0 == letter && last.2 == from => last.2 = to,
                    _ => version.stretches.push((letter, from, to)),
                }
            }
        }
        Ok(())
    }

    /// The period grown to whole hours where the customer has no event in what that adds: the usual "up to now" then
    /// needs no raw events. One index probe an end, against reading an hour of events.
    fn stretched(&self) -> Outcome<(i64, i64)> {
        let (start, end) = self.period();
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

    fn pieces(&self, version: &Version, from: i64, to: i64) -> Outcome<Vec<Piece>> {
        let all_raw = version.grouping.is_none();
        let everything = [(i64::MIN, i64::MAX)];
        let dirty = if all_raw { &everything[..] } else { &version.dirty };
        cover::cover(from, to, dirty, &self.base.stored).map_err(|missing| {
            let shown = |at: i64| {
                jiff::Timestamp::from_microsecond(at).map_or_else(|_| at.to_string(), |time| time.to_string())
            };
            let why = if all_raw {
                "The question needs raw events: it filters or groups by something that is no dimension of the meter."
            } else {
                "Only whole UTC hours, days or months are kept of that time."
            };
            gone(self.question.meter_keys[version.place], self.base.stored.raw_floor).detail(format!(
                "{why} Raw events of {} to {} have been dropped by retention.",
                shown(missing.from),
                shown(missing.to)
            ))
        })
    }

    /// How a stored group answers the question, or None when only raw events can.
    fn grouping(&self, meter: &Meter) -> Option<Grouping> {
        let dimensions = meter.dimensions();
        let places = self
            .question
            .group_by
            .iter()
            .map(|path| dimensions.iter().position(|dimension| dimension == path))
            .collect::<Option<Vec<usize>>>()?;
        let filter = self.question.filter;
        if filter.is_some_and(|filter| !filter.references().iter().all(|path| dimensions.contains(path))) {
            return None;
        }
        Some(Grouping { places })
    }

    /// The group of the answer that a stored group belongs to; None when the filter refuses it.
    fn regroup(&self, meter: &Meter, grouping: &Grouping, stored: &str) -> Outcome<Option<String>> {
        if grouping.places.is_empty() && self.question.filter.is_none() {
            return Ok(Some(String::new()));
        }
        let values = values_of(stored)?;
        if let Some(filter) = self.question.filter {
            let texts: Vec<Option<&str>> =
                values.iter().map(|value| Some(value.get()).filter(|text| *text != "null")).collect();
            if filter.matches_group(meter.dimensions(), &texts) != Some(true) {
                return Ok(None);
            }
        }
        let chosen: Vec<&str> =
            grouping.places.iter().filter_map(|&place| values.get(place)).map(|value| value.get()).collect();
        Ok(Some(if chosen.is_empty() { String::new() } else { format!("[{}]", chosen.join(",")) }))
    }

    /// Rollups of all stretches of all versions.
    fn rollups(&self, versions: &[Version], answers: &mut [Answer]) -> Outcome<()> {
        let mut rollups = stored::Rollups::open(self.question)?;
        for version in versions {
            for &(letter, from, to) in &version.stretches {
                rollups.of(version.meter.id, letter, from, to, |bucket, customer, group, state| {
                    self.merge(version, answers, bucket, customer, group, state)
                })?;
            }
        }
        Ok(())
    }

    /// Deltas that no rollup holds yet, of hours the answer takes from rollups.
    fn deltas(&self, versions: &[Version], answers: &mut [Answer]) -> Outcome<()> {
        stored::deltas(self.question, self.base, |customer, entry| {
            for version in versions.iter().filter(|version| version.meter.id == entry.meter) {
                let next = version.whole.partition_point(|&(_, to)| to <= entry.bucket);
                if version.whole.get(next).is_some_and(|&(from, _)| from <= entry.bucket) {
                    self.merge(version, answers, entry.bucket, customer, entry.group, entry.state)?;
                }
            }
            Ok(())
        })
    }

    fn merge(
        &self,
        version: &Version,
        answers: &mut [Answer],
        bucket: i64,
        customer: &str,
        group: &str,
        state: &[u8],
    ) -> Outcome<()> {
        let Some(grouping) = &version.grouping else { return Ok(()) };
        let answer = &mut answers[version.place];
        let Some(group) = self.regroup(&version.meter, grouping, group)? else { return Ok(()) };
        let place = (self.window(bucket), self.row_customer(customer), group);
        answer.states.entry(place).or_insert_with(|| Tally::empty(version.meter.kind)).merge(state).map_err(unreadable)
    }

    fn raw(&self, version: &Version, from: i64, to: i64, answers: &mut [Answer]) -> Outcome<()> {
        let meter = &version.meter;
        let answer = &mut answers[version.place];
        let scope = raw::Scope {
            tenant: self.question.tenant,
            customer: self.question.customer,
            event_name: &meter.event_name,
            from,
            to,
            known: raw::Known::ALL,
        };
        raw::samples(
            &scope,
            std::slice::from_ref(meter),
            &self.base.catalogue.secret,
            See::Statement,
            |customer, meter, tape, sample| {
                if self.question.filter.is_some_and(|filter| !filter.matches(tape)) {
                    return Ok(());
                }
                let mut group = String::new();
                meter::write_group(self.question.group_by, tape, &mut group);
                let key = (self.window(sample.at), self.row_customer(customer), group);
                answer.states.entry(key).or_insert_with(|| Tally::empty(meter.kind)).add(sample).map_err(unreadable)
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

/// Appends a stretch, or lengthens the last one.
fn join(stretches: &mut Vec<(i64, i64)>, from: i64, to: i64) {
    match stretches.last_mut() {
        Some(last) if last.1 == from => last.1 = to,
        _ => stretches.push((from, to)),
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

/// The values of a group of an answer as texts, in the order of `group_by`; None for a property that is not there.
pub fn group_values(group: &str) -> Outcome<Vec<Option<String>>> {
    let text = |value: &serde_json::value::RawValue| match serde_json::from_str(value.get()) {
        Ok(serde_json::Value::Null) => None,
        Ok(serde_json::Value::String(text)) => Some(text),
        _ => Some(value.get().to_string()),
    };
    Ok(values_of(group)?.into_iter().map(text).collect())
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

pub fn unreadable(error: StateError) -> Fail {
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
