//! Random timelines, made as the verbs make them: items follow each other, a plan with another interval begins a count
//! of its own, a plan goes on in its phase when only a quantity changes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::core::calendar::Interval;
use crate::core::pricing::Amount;
use crate::core::ranges::Ranges;
use crate::core::subscription::{Charge, Item, Length, NEVER, Phase, Plan, Price, Rank, Subscription};

pub const DAY: i64 = 86_400_000_000;
/// 2025-01-01 UTC.
pub const FIRST: i64 = 20_089 * DAY;

/// Beyond all changes; most subscriptions run on.
pub fn horizon() -> i64 {
    FIRST + 600 * DAY
}

#[derive(Clone, Debug)]
pub struct Timeline {
    pub subscription: Subscription,
    pub plans: Vec<Plan>,
}

impl Timeline {
    fn follows(&self, earlier: usize, later: usize) -> bool {
        let (a, b) = (&self.subscription.items[earlier], &self.subscription.items[later]);
        a.add_on == b.add_on && a.starts_at < a.ends_at && a.ends_at == b.starts_at
    }

    /// Whether a fee of one item may be that of a later one: each between them follows the one before, with the same plan
    /// and quantity.
    pub fn goes_on(&self, first: usize, position: usize, key: &str) -> bool {
        let same = |a: &Item, b: &Item| a.plan == b.plan && a.quantity(key) == b.quantity(key);
        let items = &self.subscription.items;
        first == position
            || (first < position
                && (first..position).any(|between| {
                    self.follows(between, position)
                        && same(&items[between], &items[position])
                        && self.goes_on(first, between, key)
                }))
    }

    pub fn only_goes_on(&self, position: usize) -> bool {
        let key = |item: usize| &self.plans[self.subscription.items[item].plan].key;
        (0..position).any(|earlier| self.follows(earlier, position) && key(earlier) == key(position))
    }
}

pub fn subscription(timezone: &str, items: Vec<Item>) -> Subscription {
    Subscription {
        id: 1,
        customer: "acme".to_string(),
        starts_at: items[0].starts_at,
        ends_at: NEVER,
        timezone: timezone.to_string(),
        paused: Ranges::default(),
        items,
    }
}

pub fn item(id: i64, plan: usize, starts_at: i64, ends_at: i64) -> Item {
    Item {
        id,
        plan,
        add_on: false,
        starts_at,
        ends_at,
        anchor: FIRST,
        phases_from: starts_at,
        quantities: BTreeMap::new(),
    }
}

pub fn plan(key: &str, interval: Interval, prices: Vec<Price>) -> Plan {
    Plan { key: key.to_string(), interval, aligned: true, phases: Vec::new(), prices }
}

pub fn priced(key: &str, charge: Charge) -> Price {
    Price { id: 0, key: key.to_string(), rank: Rank::Plan, phase: None, valid_from: i64::MIN, valid_to: NEVER, charge }
}

/// Some to the hour, so that changes coincide; some to the microsecond.
fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        (0_i64..500).prop_map(|day| FIRST + day * DAY),
        (0_i64..500 * 24).prop_map(|hour| FIRST + hour * DAY / 24),
        0..500 * DAY
    ]
    .prop_map(|at| if at < FIRST { FIRST + at } else { at })
}

fn prices() -> impl Strategy<Value = Vec<Price>> {
    let key = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")];
    let rank = prop_oneof![3 => Just(Rank::Plan), 1 => Just(Rank::Group), 1 => Just(Rank::Override)];
    let phase =
        prop_oneof![4 => Just(None), 1 => Just(Some("trial")), 1 => Just(Some("ramp")), 1 => Just(Some("full"))];
    let charge = prop_oneof![Just(Charge::Usage), Just(Charge::Arrears), Just(Charge::Advance), Just(Charge::Once)];
    let valid = prop_oneof![
        4 => Just((i64::MIN, NEVER)),
        1 => time().prop_map(|at| (at, NEVER)),
        1 => time().prop_map(|at| (i64::MIN, at)),
        1 => (time(), time()).prop_map(|(a, b)| (a.min(b), a.max(b) + 1)),
    ];
    let price = (key, rank, phase, valid, charge).prop_map(|(key, rank, phase, valid, charge)| Price {
        id: 0,
        key: key.to_string(),
        rank,
        phase: phase.map(str::to_string),
        valid_from: valid.0,
        valid_to: valid.1,
        charge,
    });
    prop::collection::vec(price, 1..5)
}

fn phases() -> impl Strategy<Value = Vec<Phase>> {
    let length = (0..3_i32, 0..20_i32, prop_oneof![Just(0_i64), 1..DAY]).prop_map(|(months, days, micros)| Length {
        months,
        days,
        micros: micros.max(1),
    });
    let lengths = (length.clone(), length, any::<bool>(), any::<bool>());
    prop_oneof![
        Just(Vec::new()),
        lengths.prop_map(|(trial, ramp, free, for_good)| {
            let phase = |name: &str, length, free| Phase { name: name.to_string(), length, free };
            let mut phases = vec![phase("trial", Some(trial), true), phase("ramp", Some(ramp), free)];
            if for_good {
                phases.push(phase("full", None, false));
            }
            phases
        }),
    ]
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let interval = prop_oneof![
        4 => Just(Interval::Months(1)),
        1 => Just(Interval::Months(3)),
        1 => Just(Interval::Weeks(1)),
        1 => Just(Interval::Weeks(2)),
        1 => Just(Interval::Days(10)),
        1 => Just(Interval::Years(1)),
    ];
    // Two versions of a plan, and another.
    let one = (interval, any::<bool>(), phases(), prices());
    prop::collection::vec(one, 3).prop_map(|plans| {
        plans
            .into_iter()
            .zip(["p", "p", "q"])
            .map(|((interval, aligned, phases, prices), key)| {
                let prices = prices.into_iter().filter(|price| {
                    // A price of a phase that the plan doesn't have can not be stored.
                    price.phase.as_ref().is_none_or(|name| phases.iter().any(|phase: &Phase| phase.name == *name))
                });
                let prices: Vec<Price> = prices.collect();
                let prices = if prices.is_empty() { vec![priced("a", Charge::Advance)] } else { prices };
                Plan { key: key.to_string(), interval, aligned, prices, phases }
            })
            .collect()
    })
}

/// What a change does: the plan, and the quantity of each of two keys.
type Step = (usize, u64, u64);

fn step() -> impl Strategy<Value = Step> {
    (0_usize..3, 1_u64..3, 1_u64..3)
}

fn quantities(step: Step) -> BTreeMap<String, Amount> {
    BTreeMap::from([("a".to_string(), Amount::from(step.1)), ("b".to_string(), Amount::from(step.2))])
}

/// Items one after the other, as `replace_item` in sql/63_subscription_changes.sql makes them.
fn chain(plans: &[Plan], times: &[i64], steps: &[Step], add_on: bool, anchor: i64, ends_at: i64) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for (number, (&at, &step)) in times.iter().zip(steps).enumerate() {
        let plan = if add_on { steps[0].0 } else { step.0 };
        let counted = |plan: usize| (plans[plan].interval, plans[plan].aligned);
        let (anchor, phases_from) = match items.last() {
            None => (anchor, at),
            Some(last) => (
                if counted(last.plan) == counted(plan) { last.anchor } else { at },
                if plans[last.plan].key == plans[plan].key { last.phases_from } else { at },
            ),
        };
        let ends_at = times.get(number + 1).copied().filter(|_| number + 1 < steps.len()).unwrap_or(ends_at);
        items.push(Item {
            id: 0,
            plan,
            add_on,
            starts_at: at,
            ends_at,
            anchor,
            phases_from,
            quantities: quantities(step),
        });
    }
    items
}

fn sorted(mut times: Vec<i64>) -> Vec<i64> {
    times.sort_unstable();
    times
}

pub fn timeline() -> impl Strategy<Value = Timeline> {
    let zone = prop_oneof![
        Just("UTC"),
        Just("Europe/Berlin"),
        Just("America/New_York"),
        Just("Australia/Lord_Howe"),
        Just("America/Santiago"),
        Just("Asia/Kolkata"),
    ];
    let base = (prop::collection::vec(time(), 1..6).prop_map(sorted), prop::collection::vec(step(), 6));
    let add_on =
        (prop::collection::vec(time(), 2..4).prop_map(sorted), prop::collection::vec(step(), 3), any::<bool>());
    let pauses = prop::collection::vec((time(), prop_oneof![4 => 1..40 * DAY, 1 => Just(NEVER / 2)]), 0..3);
    let ends = prop_oneof![2 => Just(NEVER), 1 => time()];
    (zone, plans(), base, prop::collection::vec(add_on, 0..3), pauses, ends, any::<bool>()).prop_map(
        |(zone, plans, (times, steps), add_ons, pauses, ends_at, backdated_anchor)| {
            let starts_at = times[0];
            let anchor = if backdated_anchor { starts_at - 33 * DAY } else { starts_at };
            let mut items = chain(&plans, &times, &steps[..times.len()], false, anchor, NEVER);
            for (times, steps, removed) in add_ons {
                let times: Vec<i64> = times.into_iter().map(|at| at.max(starts_at)).collect();
                let last = times[times.len() - 1];
                let anchor = items[0].anchor;
                let count = times.len() - 1;
                items.extend(chain(
                    &plans,
                    &times[..count],
                    &steps[..count],
                    true,
                    anchor,
                    if removed { last } else { NEVER },
                ));
            }
            items.sort_by_key(|item| item.starts_at);
            for (number, item) in items.iter_mut().enumerate() {
                item.id = number as i64 + 1;
            }
            let paused = pauses.into_iter().map(|(at, length)| (at, at.saturating_add(length))).collect();
            let mut subscription = subscription(zone, items);
            subscription.starts_at = starts_at;
            subscription.ends_at = ends_at.max(starts_at + 1);
            subscription.paused = Ranges::union(paused);
            Timeline { subscription, plans }
        },
    )
}
