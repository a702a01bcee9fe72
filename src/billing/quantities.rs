//! What was used in each cell that charges usage, in as much detail as its price looks at.
//!
//! A subscription asks one question a set of dimensions: all its meters, with windows cut wherever any of its cells
//! begins or ends. A cell is then the merge of the states of its windows, so it is exact for every aggregation, also when
//! it is in several pieces. Only prices that look at single events read those.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use crate::core::decimal::Quantity;
use crate::core::meter::write_group;
use crate::core::pricing::{Amount, Group, Needs, Usage};
use crate::core::properties::Path;
use crate::core::ranges::Ranges;
use crate::core::state::{Ask, Kind, Tally};
use crate::meters::{self, raw};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::spi::See;
use crate::usage::{Answer, Question, answer, group_values};

/// What a cell wants to know.
pub struct Wanted<'a> {
    pub meter_key: &'a str,
    pub applies: &'a Ranges,
    pub needs: Needs,
}

/// The usage of each of `wanted`, in their order, in the snapshot of the statement.
pub fn collect(tenant: &str, customer: &str, wanted: &[Wanted<'_>]) -> Outcome<Vec<Usage>> {
    let mut usages: Vec<Option<Usage>> = vec![None; wanted.len()];
    let mut by_dimensions: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
    for (place, wanted) in wanted.iter().enumerate() {
        if looks_at_events(&wanted.needs) {
            usages[place] = Some(from_events(tenant, customer, wanted, raw::Known::ALL)?);
            continue;
        }
        by_dimensions.entry(wanted.needs.dimensions().into_iter().collect()).or_default().push(place);
    }
    for (dimensions, places) in by_dimensions {
        let windows = windows(places.iter().map(|&place| wanted[place].applies));
        let keys: Vec<&str> =
            places.iter().map(|&place| wanted[place].meter_key).collect::<BTreeSet<_>>().into_iter().collect();
        let paths = dimensions.iter().map(|name| path(name)).collect::<Outcome<Vec<_>>>()?;
        let question = Question {
            tenant,
            meter_keys: &keys,
            windows: &windows,
            customer: Some(customer),
            group_by: &paths,
            filter: None,
            total: true,
        };
        let answers = answer(&question)?;
        for place in places {
            let wanted = &wanted[place];
            let Some(answer) = keys.iter().position(|key| *key == wanted.meter_key).map(|at| &answers[at]) else {
                continue;
            };
            usages[place] = Some(merged(answer, &windows, wanted.applies, &dimensions, &wanted.needs)?);
        }
    }
    Ok(usages.into_iter().map(Option::unwrap_or_default).collect())
}

/// Contiguous windows between all the times at which something begins or ends.
fn windows<'a>(cells: impl Iterator<Item = &'a Ranges>) -> Vec<(i64, i64)> {
    let cuts: BTreeSet<i64> = cells.flat_map(|ranges| ranges.as_slice()).flat_map(|&(from, to)| [from, to]).collect();
    let cuts: Vec<i64> = cuts.into_iter().collect();
    cuts.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

fn path(name: &str) -> Outcome<Path> {
    Path::parse(name)
        .map_err(|error| Fail::corrupt(format!("a price asks for the dimension {name:?}: {}", error.message)))
}

fn merged(
    answer: &Answer,
    windows: &[(i64, i64)],
    applies: &Ranges,
    dimensions: &[String],
    needs: &Needs,
) -> Outcome<Usage> {
    let mut groups: FxHashMap<&str, Found> = FxHashMap::default();
    for ((window, _, group), state) in &answer.states {
        if applies.contains(windows[*window].0) {
            merge(&mut groups.entry(group.as_str()).or_default().state, state)?;
        }
    }
    let groups = groups.into_iter().map(|(group, found)| (group.to_string(), found)).collect();
    complete(groups, answer.kind, answer.percentile, applies, dimensions, needs)
}

/// What was found of one group.
#[derive(Default)]
struct Found {
    state: Option<Tally>,
    /// Time, arrival and value of each event, where a price looks at events.
    events: Vec<(i64, i64, Amount)>,
}

fn complete(
    groups: FxHashMap<String, Found>,
    kind: Kind,
    percentile: Quantity,
    applies: &Ranges,
    dimensions: &[String],
    needs: &Needs,
) -> Outcome<Usage> {
    let (from, to) = applies.span().unwrap_or((0, 0));
    let ask = Ask { from, to, percentile };
    let mut all = Found::default();
    let mut by_group = Vec::new();
    for (group, found) in groups {
        // What was all taken back may still have a state; what was never there has none. They read the same.
        if found.events.is_empty() && found.state.as_ref().is_none_or(Tally::is_empty) {
            continue;
        }
        if let Some(state) = &found.state {
            merge(&mut all.state, state)?;
        }
        all.events.extend_from_slice(&found.events);
        if let Some(wanted) = &needs.groups {
            let by = dimensions.iter().cloned().zip(group_values(&group)?).collect();
            by_group.push(Group { by, usage: used(found, kind, &ask, &wanted.each)? });
        }
    }
    let mut usage = used(all, kind, &ask, needs)?;
    if needs.groups.is_some() {
        // In one order, whatever the hash map's: an explanation reads the same each time.
        by_group.sort_by(|a, b| a.by.cmp(&b.by));
        usage.groups = Some(by_group);
    }
    Ok(usage)
}

fn merge(merged: &mut Option<Tally>, more: &Tally) -> Outcome<()> {
    match merged {
        Some(merged) => merged.join(more).map_err(|error| Fail::corrupt(error.to_string())),
        None => {
            *merged = Some(more.clone());
            Ok(())
        }
    }
}

fn used(found: Found, kind: Kind, ask: &Ask, needs: &Needs) -> Outcome<Usage> {
    let Found { state, mut events } = found;
    let state = state.unwrap_or_else(|| Tally::empty(kind));
    let value = state.value(ask).map_err(|error| {
        Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "usage out of range").detail(error.to_string())
    })?;
    let mut usage = Usage::of(Amount::from(value.unwrap_or(Quantity::ZERO)));
    if needs.buckets.is_some() {
        let buckets = state.buckets().into_iter().map(|(_, value)| Usage::of(Amount::from(value)));
        usage.buckets = Some(buckets.collect());
    }
    events.sort_unstable_by_key(|&(at, seq, _)| (at, seq));
    usage.events = needs.events.then_some(events.len() as u64);
    usage.values = needs.values.then(|| events.into_iter().map(|(.., value)| value).collect());
    Ok(usage)
}

fn looks_at_events(needs: &Needs) -> bool {
    needs.events || needs.values || needs.groups.as_ref().is_some_and(|groups| looks_at_events(&groups.each))
}

/// The usage of a cell from the events themselves, of which only those of `known` batches count.
pub fn from_events(tenant: &str, customer: &str, wanted: &Wanted<'_>, known: raw::Known<'_>) -> Outcome<Usage> {
    let secret = meters::secret()?;
    let versions = meters::versions_of(tenant, wanted.meter_key)?;
    let dimensions: Vec<String> = wanted.needs.dimensions().into_iter().collect();
    let paths: Vec<Path> = dimensions.iter().map(|name| path(name)).collect::<Outcome<Vec<_>>>()?;
    let keep = looks_at_events(&wanted.needs);
    let mut groups: FxHashMap<String, Found> = FxHashMap::default();
    for meter in &versions {
        for &(from, to) in wanted.applies.as_slice() {
            let scope = raw::Scope { tenant, customer: Some(customer), event_name: &meter.event_name, from, to, known };
            raw::samples(&scope, std::slice::from_ref(meter), &secret, See::Statement, |_, meter, tape, sample| {
                let mut group = String::new();
                write_group(&paths, tape, &mut group);
                let found = groups.entry(group).or_default();
                if keep {
                    found.events.push((sample.at, sample.seq, Amount::from(sample.value)));
                }
                let state = found.state.get_or_insert_with(|| Tally::empty(meter.kind));
                state.add(sample).map_err(|error| Fail::corrupt(error.to_string()))
            })?;
        }
    }
    let newest =
        versions.last().ok_or_else(|| Fail::corrupt(format!("meter \"{}\" does not exist", wanted.meter_key)))?;
    complete(groups, newest.kind, newest.percentile, wanted.applies, &dimensions, &wanted.needs)
}
