//! What is owed in the end: every subscription's time cut wherever anything changes, each stretch looked at by itself,
//! the events of the stretches counted, priced and rounded once.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rust_decimal::{Decimal, RoundingStrategy};

use super::catalogue::{Charge, Interval, Model, Plan, Price, Used, dec};
use super::world::{Event, Item, Subscription, World};

/// Subscription, plan and price by position, the start of the item whose fee it is, the whole period.
pub type Cell = (String, usize, usize, Option<i64>, i64, i64);

pub fn clock(zone: &str, at: i64) -> DateTime {
    TimeZone::get(zone).expect("a zone").to_datetime(Timestamp::from_microsecond(at).expect("a time"))
}

pub fn instant(zone: &str, local: DateTime) -> i64 {
    TimeZone::get(zone).expect("a zone").to_timestamp(local).expect("a local time").as_microsecond()
}

/// The period that a time is in: counted from the anchor, one after the other.
pub fn period(plan: &Plan, anchor: i64, zone: &str, at: i64) -> (i64, i64) {
    let anchor = clock(zone, anchor);
    let first = match (plan.aligned, plan.interval) {
        (false, _) => anchor,
        (true, Interval::Week) => {
            let monday = anchor.date().checked_sub(Span::new().days(anchor.weekday().to_monday_zero_offset()));
            monday.expect("a date").at(0, 0, 0, 0)
        }
        (true, Interval::Month(count)) => {
            let month = (anchor.month() - 1) / count as i8 * count as i8 + 1;
            jiff::civil::date(anchor.year(), month, 1).at(0, 0, 0, 0)
        }
    };
    let start = |number: i32| {
        let span = match plan.interval {
            Interval::Month(count) => Span::new().months(number * count),
            Interval::Week => Span::new().weeks(number),
        };
        instant(zone, first.checked_add(span).expect("a date"))
    };
    let number = (-2..).find(|&number| at < start(number + 1)).expect("it comes");
    (start(number), start(number + 1))
}

impl Subscription {
    fn phase_ends(&self, plan: &Plan, item: &Item) -> Vec<i64> {
        let (mut months, mut days, mut ends) = (0, 0, Vec::new());
        for phase in &plan.phases {
            let Some(length) = phase.length else { break };
            (months, days) = (months + length.0, days + length.1);
            let end = clock(&self.zone, item.phases_from).checked_add(Span::new().months(months).days(days));
            ends.push(instant(&self.zone, end.expect("a date")));
        }
        ends
    }

    /// The item's place in its chain: the start of the first that has the same plan and quantity of this fee.
    fn began(&self, item: &Item, key: &str) -> i64 {
        let before = self.items.iter().find(|other| {
            (other.add_on, other.plan, other.quantity(key)) == (item.add_on, item.plan, item.quantity(key))
                && other.ends == Some(item.starts)
                && other.starts < item.starts
        });
        before.map_or(item.starts, |before| self.began(before, key))
    }

    fn charged<'a>(&'a self, plan: &'a Plan, item: &Item, group: Option<&str>, at: i64, price: &Price) -> bool {
        let phase = plan
            .phases
            .iter()
            .zip(self.phase_ends(plan, item).into_iter().chain([i64::MAX]))
            .find(|(_, end)| at < *end);
        let applies = |price: &Price| {
            price.valid.0 <= at
                && at < price.valid.1
                && price.phase.is_none_or(|name| phase.is_some_and(|(phase, _)| phase.name == name))
                && price.group.is_none_or(|of| Some(of) == group)
                && price.subscription.as_ref().is_none_or(|key| *key == self.key)
        };
        let rank = |price: &Price| (price.subscription.is_some(), price.group.is_some());
        applies(price)
            && !plan.prices.iter().any(|other| other.key == price.key && rank(other) > rank(price) && applies(other))
    }

    fn is_free(&self, plan: &Plan, item: &Item, at: i64) -> bool {
        let paused = self.paused.iter().any(|&(from, to)| from <= at && at < to.unwrap_or(i64::MAX));
        let ends = self.phase_ends(plan, item).into_iter().chain([i64::MAX]);
        paused || plan.phases.iter().zip(ends).find(|(_, end)| at < *end).is_some_and(|(phase, _)| phase.free)
    }

    pub fn base(&self, at: i64) -> &Item {
        let runs = |item: &&Item| !item.add_on && item.starts <= at && item.ends.is_none_or(|end| at < end);
        self.items.iter().find(runs).expect("a plan at any time")
    }

    pub fn period(&self, world: &World, at: i64) -> (i64, i64) {
        let item = self.base(at);
        period(&world.plans[item.plan], item.anchor, &self.zone, at)
    }

    /// The stretches of each cell, in order; a fee that is charged once has one without length.
    fn cells(&self, world: &World) -> BTreeMap<Cell, Vec<(i64, i64)>> {
        let ends = self.ends.expect("all have ended");
        let group = world.customers[self.customer].group;
        let mut cuts = BTreeSet::from([self.starts, ends]);
        let mut at = self.starts;
        for item in &self.items {
            cuts.extend([Some(item.starts), item.ends].into_iter().flatten());
            cuts.extend(self.phase_ends(&world.plans[item.plan], item));
            cuts.extend(world.plans[item.plan].prices.iter().flat_map(|price| [price.valid.0, price.valid.1]));
        }
        for &(from, to) in &self.paused {
            cuts.extend([Some(from), to].into_iter().flatten());
        }
        while at < ends {
            let end = self.period(world, at).1;
            at = self.base(at).ends.map_or(end, |change| change.min(end));
            cuts.insert(at);
        }
        let cuts: Vec<i64> = cuts.into_iter().filter(|at| (self.starts..=ends).contains(at)).collect();
        let mut cells: BTreeMap<Cell, Vec<(i64, i64)>> = BTreeMap::new();
        for pair in cuts.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let (start, end) = self.period(world, from);
            for item in self.items.iter().filter(|item| item.starts <= from && item.ends.is_none_or(|end| from < end)) {
                let plan = &world.plans[item.plan];
                for (number, price) in plan.prices.iter().enumerate() {
                    if !self.charged(plan, item, group, from, price) {
                        continue;
                    }
                    let of = match price.charge {
                        Charge::Usage => None,
                        Charge::Once => Some(item.starts),
                        Charge::Advance | Charge::Arrears => Some(self.began(item, price.key)),
                    };
                    let cell = (self.key.clone(), item.plan, number, of, start, end);
                    if price.charge == Charge::Once {
                        if item.starts == from && !self.goes_on(item) {
                            cells.insert(cell, vec![(from, from)]);
                        }
                    } else if !self.is_free(plan, item, from) {
                        cells.entry(cell).or_default().push((from, to));
                    }
                }
            }
        }
        cells
    }

    /// Whether an item only goes on with the plan of the one before.
    fn goes_on(&self, item: &Item) -> bool {
        self.items.iter().any(|other| {
            other.add_on == item.add_on
                && other.plan == item.plan
                && other.ends == Some(item.starts)
                && other.starts < item.starts
        })
    }
}

fn used(events: &[Event], price: &Price, stretches: &[(i64, i64)]) -> Used {
    let meter = price.meter.expect("of usage");
    let name = match meter {
        "payments" => "payment",
        "peak" => "users",
        _ => "call",
    };
    let mut used = Used::default();
    for event in events.iter().filter(|event| event.name == name && event.counts()) {
        if !stretches.iter().any(|&(from, to)| from <= event.at && event.at < to) {
            continue;
        }
        used.events += 1;
        match meter {
            "calls" => used.quantity += Decimal::ONE,
            "peak" => {
                let bucket = used.buckets.entry(event.at.div_euclid(3_600_000_000)).or_insert(event.value);
                *bucket = event.value.max(*bucket);
            }
            _ => {
                used.quantity += event.value;
                *used.by_region.entry(event.region).or_default() += event.value;
            }
        }
    }
    used
}

/// In minor units, half away from zero.
fn rounded(amount: Decimal, digits: u32) -> i128 {
    let rounded = amount.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero);
    (rounded * Decimal::from(10_i64.pow(digits))).trunc().try_into().expect("money")
}

/// A fee's stretches: what is owed at the end of each, less what is at its beginning.
fn shares(
    subscription: &Subscription,
    whole: Decimal,
    stretches: &[(i64, i64)],
    period: (i64, i64),
    proration: &str,
    digits: u32,
) -> i128 {
    let days =
        |at: i64| clock(&subscription.zone, at).date().since(jiff::civil::date(2000, 1, 1)).expect("days").get_days();
    let position = |at: i64| match proration {
        "second" => i128::from(at - period.0),
        "day" => i128::from(days(at) - days(period.0)),
        _ => i128::from(at > period.0),
    };
    let of = position(period.1);
    let minor = whole * Decimal::from(10_i64.pow(digits));
    let (mantissa, ten) = (minor.mantissa(), 10_i128.pow(minor.scale()));
    // ⌊2·x + 1⌋ / 2: nothing is below zero here.
    let owed = |at: i64| (2 * mantissa * position(at) + ten * of).div_euclid(2 * ten * of);
    stretches.iter().map(|&(from, to)| owed(to) - owed(from)).sum()
}

/// What every cell comes to, in minor units; those of nothing are left out.
pub fn owed(world: &World) -> BTreeMap<Cell, i128> {
    let mut owed = BTreeMap::new();
    for subscription in world.subscriptions.values() {
        let mut commitments: BTreeMap<(usize, usize), Vec<Decimal>> = BTreeMap::new();
        let mut cells: Vec<_> = subscription.cells(world).into_iter().collect();
        cells.sort_by_key(|(cell, stretches)| (stretches[0].0, cell.5));
        for (cell, stretches) in cells {
            let plan = &world.plans[cell.1];
            let price = &plan.prices[cell.2];
            let digits = if plan.currency == "JPY" { 0 } else { 2 };
            let minor = if price.charge == Charge::Usage {
                let used = used(&world.customers[subscription.customer].events, price, &stretches);
                let cost = price.model.cost(&used);
                let amount = match price.model {
                    Model::Committed { amount, periods, factor, .. } => {
                        let costs = commitments.entry((cell.1, cell.2)).or_default();
                        let place = costs.len() % periods;
                        let before: Decimal = costs[costs.len() - place..].iter().sum();
                        costs.push(cost);
                        let left = (dec(amount) - before).max(Decimal::ZERO);
                        let within = left.min(cost);
                        // The subscription's end closes it early.
                        let last = place + 1 == periods
                            || subscription.period(world, subscription.ends.expect("an end") - 1) == (cell.4, cell.5);
                        within + (cost - within) * dec(factor) + if last { left - within } else { Decimal::ZERO }
                    }
                    _ => cost,
                };
                rounded(amount, digits)
            } else {
                let began = cell.3.expect("a fee's item");
                let item = subscription
                    .items
                    .iter()
                    .find(|item| item.plan == cell.1 && item.starts == began && item.ends != Some(began));
                let used = Used { quantity: item.expect("an item").quantity(price.key), ..Used::default() };
                let whole = price.model.cost(&used);
                if price.charge == Charge::Once {
                    rounded(whole, digits)
                } else {
                    shares(subscription, whole, &stretches, (cell.4, cell.5), price.proration, digits)
                }
            };
            if minor != 0 {
                owed.insert(cell, minor);
            }
        }
    }
    owed
}
