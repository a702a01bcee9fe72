//! Which entitlements are in force when: of all rows, the ones that count, and the quota that they make.

use std::cmp::Reverse;

use crate::core::calendar::CalendarError;
use crate::core::cover::EARLIEST;
use crate::core::entitlement::{Id, NEVER, Quota, Renewal, Rules, Source};
use crate::core::ranges::Ranges;

use super::load::{Entitlement, Feature, Holder};

/// An entitlement and when it is in force.
pub struct Held<'a> {
    pub entitlement: &'a Entitlement,
    pub ranges: Ranges,
}

/// The entitlements of a customer to one feature, each with the time in which it counts. Of several of one holder the one
/// that began last counts; a customer's own takes the place of all others, a subscription's that of its plan's. One that
/// is not enabled takes a place like any other.
pub fn held(feature: &Feature) -> Vec<Held<'_>> {
    let all = &feature.entitlements;
    let ranges: Vec<Ranges> = all.iter().map(|one| newest(all, one)).collect();
    let covered = |by: &dyn Fn(&Holder) -> bool| {
        let ranges = all.iter().zip(&ranges).filter(|(one, _)| by(&one.holder));
        Ranges::union(ranges.flat_map(|(_, ranges)| ranges.as_slice().iter().copied()).collect())
    };
    let of_customer = covered(&|holder| *holder == Holder::Customer);
    let mut held: Vec<Held<'_>> = Vec::with_capacity(all.len());
    for (entitlement, ranges) in all.iter().zip(&ranges) {
        let ranges = match entitlement.holder {
            Holder::Customer => ranges.clone(),
            Holder::Subscription(_) => ranges.subtract(&of_customer),
            Holder::Plan { subscription, .. } => {
                let of_subscription = covered(&|holder| *holder == Holder::Subscription(subscription));
                ranges.subtract(&of_customer).subtract(&of_subscription)
            }
        };
        // Items of a timeline that follow each other bring one allowance, not one each.
        match held.iter_mut().find(|held| is_same(held.entitlement, entitlement)) {
            Some(held) => {
                let both = [held.ranges.as_slice(), ranges.as_slice()].concat();
                held.ranges = Ranges::union(both);
            }
            None => held.push(Held { entitlement, ranges }),
        }
    }
    held
}

/// When it is valid and its item there, less the time of those of the same holder that began later.
fn newest(all: &[Entitlement], one: &Entitlement) -> Ranges {
    let later = all
        .iter()
        .filter(|other| other.holder == one.holder && (other.valid_from, other.id) > (one.valid_from, one.id));
    let later = Ranges::union(later.map(|other| (other.valid_from, other.valid_to)).collect());
    Ranges::of(one.valid_from.max(one.item.0), one.valid_to.min(one.item.1)).subtract(&later)
}

fn is_same(one: &Entitlement, other: &Entitlement) -> bool {
    one.id == other.id && one.holder == other.holder && one.cycle == other.cycle && one.add_on == other.add_on
}

/// The quota of a metered feature, for questions about `from` and later.
///
/// What is reset by a calendar and was always in force is taken to begin with the first period that can matter: that in
/// which it, or the first grant, was made. Before that nothing was left to roll over.
pub fn quota(held: &[Held<'_>], grants: &[Source], from: i64) -> Result<Quota, CalendarError> {
    let mut sources: Vec<(Source, usize)> = Vec::new();
    for (place, Held { entitlement, ranges }) in held.iter().enumerate().filter(|(_, held)| held.entitlement.enabled) {
        for &(start, to) in ranges.as_slice() {
            let start = if start > EARLIEST {
                start
            } else {
                let known = grants.iter().map(|grant| grant.from).chain([entitlement.created_at, from]);
                match known.filter(|at| *at > EARLIEST).min() {
                    Some(at) => entitlement.schedule.last(at)?.unwrap_or(EARLIEST),
                    None => EARLIEST,
                }
            };
            let source = Source {
                id: Id::Allowance(entitlement.id),
                amount: entitlement.amount,
                priority: 0,
                from: start,
                to,
                expires_at: NEVER,
                created_at: entitlement.created_at,
                rollover: entitlement.rollover,
                renewal: Renewal::Allowance(entitlement.schedule.clone()),
            };
            sources.push((source, place));
        }
    }
    let rules = rules(held, &sources);
    let sources = sources.into_iter().map(|(source, _)| source).chain(grants.iter().cloned()).collect();
    Ok(Quota { sources, rules })
}

/// At any time the rules are those of one entitlement in force: the plan's before an add-on's, then the older.
fn rules(held: &[Held<'_>], sources: &[(Source, usize)]) -> Vec<Rules> {
    let mut cuts: Vec<i64> = sources.iter().flat_map(|(source, _)| [source.from, source.to]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut rules: Vec<(Rules, usize)> = Vec::new();
    for pair in cuts.windows(2) {
        let in_force = sources.iter().filter(|(source, _)| source.is_effective(pair[0])).map(|(_, place)| *place);
        let Some(place) =
            in_force.min_by_key(|&place| (held[place].entitlement.add_on, held[place].entitlement.id, place))
        else {
            continue;
        };
        match rules.last_mut() {
            Some((last, of)) if *of == place && last.to == pair[0] => last.to = pair[1],
            _ => {
                let Entitlement { schedule, preserve_overage, .. } = held[place].entitlement;
                let (from, to, resets) = (pair[0], pair[1], schedule.clone());
                rules.push((Rules { from, to, resets, preserve_overage: *preserve_overage }, place));
            }
        }
    }
    rules.into_iter().map(|(rules, _)| rules).collect()
}

/// What is in force at a time, the most particular first: add-ons before the plan, then what began last.
pub fn in_force<'a>(held: &'a [Held<'_>], at: i64) -> Vec<&'a Entitlement> {
    let mut found: Vec<&Entitlement> =
        held.iter().filter(|held| held.ranges.contains(at)).map(|held| held.entitlement).collect();
    found.sort_by_key(|one| Reverse((one.add_on, one.valid_from, one.id)));
    found
}
