//! What a subscription is charged for, as a function of its timeline.
//!
//! A timeline is items (a plan or an add-on, with quantities, from when until when) less pauses. The base items, those
//! of the plan itself, say which billing periods there are; every price of every item says what it charges in each.
//! That is a [`Cell`]: one price of one item in one period, with the stretches of time it applies to.
//!
//! Cells are the identity of everything that is billed. A change of plan, quantity, price or pause, a late event, a
//! cancellation: each changes what some cells come to, and what has been billed of them already is set off. So there is
//! no proration logic for one kind of change or another, and billing twice charges nothing twice.

mod phases;

use std::collections::{BTreeMap, BTreeSet};

use super::calendar::{CalendarError, Cycle, Interval, Piece};
use super::pricing::Amount;
use super::ranges::Ranges;

pub use phases::{Length, Phase};

/// Unix microseconds that nothing reaches: the end of what has no end.
pub const NEVER: i64 = i64::MAX;

#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: i64,
    pub customer: String,
    pub starts_at: i64,
    /// [`NEVER`] until further notice.
    pub ends_at: i64,
    /// IANA name.
    pub timezone: String,
    pub paused: Ranges,
    /// In order of start.
    pub items: Vec<Item>,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub id: i64,
    /// Position of its plan in the plans that go with the subscription.
    pub plan: usize,
    pub add_on: bool,
    pub starts_at: i64,
    pub ends_at: i64,
    pub anchor: i64,
    pub phases_from: i64,
    /// How many there are of what a fee is for, by the fee's key; one where nothing is said.
    pub quantities: BTreeMap<String, Amount>,
}

impl Item {
    pub fn quantity(&self, price_key: &str) -> Amount {
        self.quantities.get(price_key).copied().unwrap_or_else(|| Amount::from(1_u64))
    }
}

/// A version of a plan as far as time is concerned.
#[derive(Clone, Debug)]
pub struct Plan {
    pub key: String,
    pub interval: Interval,
    pub aligned: bool,
    /// In their order.
    pub phases: Vec<Phase>,
    pub prices: Vec<Price>,
}

/// When a price applies.
#[derive(Clone, Debug)]
pub struct Price {
    pub id: i64,
    /// Prices with the same key are the same charge; of those that apply, only the highest rank is charged.
    pub key: String,
    pub rank: Rank,
    pub phase: Option<String>,
    pub valid_from: i64,
    pub valid_to: i64,
    pub charge: Charge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// For everybody.
    Plan,
    /// For the customer's price group.
    Group,
    /// For this subscription.
    Override,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// What a meter has counted, when the period has ended.
    Usage,
    /// A fee for the period, when it has ended.
    Arrears,
    /// A fee for the period, as it begins.
    Advance,
    /// A fee when the item begins.
    Once,
}

/// One price in one billing period.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Position in `Subscription::items` of the item whose fee it is; of several that follow each other with the same
    /// plan and the same quantity of the fee, the first. None for usage: it goes on from item to item of a plan, so that a
    /// change of seats in the middle of a period doesn't begin its tiers anew.
    pub item: Option<usize>,
    /// Positions in the plans, and in `Plan::prices`.
    pub plan: usize,
    pub price: usize,
    /// The whole period of the cycle, and the part of it that the subscription and its cycle have: from the beginning of
    /// the first to the end of the last stretch, if its plan was left and taken again within it.
    pub period: Piece,
    /// When the price applies within that part; never empty.
    pub applies: Ranges,
}

impl Cell {
    /// From when on it is billed: as its period begins, or has ended.
    pub fn due_at(&self, charge: Charge) -> i64 {
        match charge {
            Charge::Usage | Charge::Arrears => self.period.end,
            Charge::Advance => self.period.start,
            Charge::Once => self.applies.span().map_or(self.period.start, |(start, _)| start),
        }
    }
}

/// A stretch of time in which periods are counted from one anchor by one interval.
struct Stretch {
    cycle: Cycle,
    start: i64,
    end: i64,
}

impl Subscription {
    /// The cells of all billing periods that begin before `to` and whose whole period ends after `from`, whatever part of it
    /// the subscription has: in order of period, then as items and prices are listed. No two have the same item, price and
    /// whole period.
    pub fn cells(&self, plans: &[Plan], from: i64, to: i64) -> Result<Vec<Cell>, CalendarError> {
        let mut cells = Vec::new();
        let charged = self.charged(plans)?;
        for (period, within) in self.joined_periods(plans, from, to)? {
            for (&(plan, price, item), applies) in &charged {
                let applies = applies.intersect(&within);
                if !applies.is_empty() {
                    cells.push(Cell { item, plan, price, period, applies });
                }
            }
        }
        Ok(cells)
    }

    /// The billing periods that begin before `to` and whose whole period ends after `from`, cut to the subscription. By
    /// their whole end, for that is what lines of an invoice keep: a year that was left in its second month is looked at
    /// as long as what was billed of it is.
    pub fn periods(&self, plans: &[Plan], from: i64, to: i64) -> Result<Vec<Piece>, CalendarError> {
        let mut periods = Vec::new();
        for stretch in self.stretches(plans)? {
            let (low, high) = (stretch.start.max(from.min(stretch.end - 1)), stretch.end.min(to));
            if low >= high {
                continue;
            }
            let whole = stretch.cycle.periods(low, high)?.into_iter().filter(|period| period.end > from);
            periods.extend(whole.filter_map(|period| period.cut(stretch.start, stretch.end)));
        }
        Ok(periods)
    }

    /// As [`Self::periods`], each once with all its pieces: between them may be a plan with another interval.
    fn joined_periods(&self, plans: &[Plan], from: i64, to: i64) -> Result<Vec<(Piece, Ranges)>, CalendarError> {
        let mut joined = Vec::new();
        let stretches = self.stretches(plans)?;
        let mut seen = BTreeSet::new();
        for piece in self.periods(plans, from, to)? {
            let whole = (piece.period.start, piece.period.end);
            if stretches.len() == 1 {
                joined.push((piece, Ranges::of(piece.start, piece.end)));
                continue;
            }
            if !seen.insert(whole) {
                continue;
            }
            let mut pieces = Vec::new();
            for stretch in &stretches {
                let (start, end) = (stretch.start.max(whole.0), stretch.end.min(whole.1));
                if start < end {
                    let period = stretch.cycle.containing(start)?;
                    pieces.extend(((period.start, period.end) == whole).then_some((start, end)));
                }
            }
            let pieces = Ranges::union(pieces);
            let (start, end) = pieces.span().unwrap_or((piece.start, piece.end));
            joined.push((Piece { start, end, ..piece }, pieces));
        }
        Ok(joined)
    }

    /// The first time after `at` at which a period begins or ends; None when the subscription has ended by then.
    pub fn next_boundary(&self, plans: &[Plan], at: i64) -> Result<Option<i64>, CalendarError> {
        for stretch in self.stretches(plans)? {
            if at < stretch.start {
                return Ok(Some(stretch.start));
            }
            if at < stretch.end {
                return Ok(Some(stretch.cycle.containing(at)?.end.min(stretch.end)));
            }
        }
        Ok(None)
    }

    fn stretches(&self, plans: &[Plan]) -> Result<Vec<Stretch>, CalendarError> {
        let mut stretches: Vec<(Stretch, (i64, Interval, bool))> = Vec::new();
        for item in self.items.iter().filter(|item| !item.add_on) {
            let plan = &plans[item.plan];
            let (start, end) = (item.starts_at.max(self.starts_at), item.ends_at.min(self.ends_at));
            if start >= end {
                continue;
            }
            let counted = (item.anchor, plan.interval, plan.aligned);
            match stretches.last_mut() {
                Some((last, same)) if *same == counted && last.end == start => last.end = end,
                _ => {
                    let cycle = Cycle::at(plan.interval, item.anchor, plan.aligned, &self.timezone)?;
                    stretches.push((Stretch { cycle, start, end }, counted));
                }
            }
        }
        Ok(stretches.into_iter().map(|(stretch, _)| stretch).collect())
    }

    /// When each price is charged, by plan, price and, for fees, item.
    fn charged(&self, plans: &[Plan]) -> Result<BTreeMap<(usize, usize, Option<usize>), Ranges>, CalendarError> {
        let mut charged: BTreeMap<(usize, usize, Option<usize>), Ranges> = BTreeMap::new();
        // Once for all prices: a year of daily changes is hundreds of items.
        let previous: Vec<Option<usize>> =
            (0..self.items.len()).map(|position| self.previous(plans, position)).collect();
        for (position, item) in self.items.iter().enumerate() {
            let plan = &plans[item.plan];
            let runs = Ranges::of(item.starts_at.max(self.starts_at), item.ends_at.min(self.ends_at));
            let Some((start, _)) = runs.span() else { continue };
            let phases = phases::timeline(&plan.phases, item.phases_from, &self.timezone)?;
            let paid = runs.subtract(&self.paused).subtract(&phases::free(&phases));
            let applies = |price: &Price| {
                let valid = Ranges::of(price.valid_from, price.valid_to);
                match &price.phase {
                    None => valid,
                    Some(name) => valid.intersect(&phases::named(&phases, name)),
                }
            };
            for (number, price) in plan.prices.iter().enumerate() {
                let preferred = plan.prices.iter().filter(|other| other.key == price.key && other.rank > price.rank);
                let chosen = preferred.fold(applies(price), |left, other| left.subtract(&applies(other)));
                let (item, time) = match price.charge {
                    Charge::Usage => (None, paid.clone()),
                    Charge::Advance | Charge::Arrears => {
                        (Some(self.first_of(&previous, position, &price.key)), paid.clone())
                    }
                    // Free or paused time puts off no fee for setting it up; a change of quantity is no new start.
                    Charge::Once if self.continues(plans, previous[position], position) => continue,
                    Charge::Once => (Some(position), Ranges::of(start, start + 1)),
                };
                let more = chosen.intersect(&time);
                let ranges = charged.entry((self.items[position].plan, number, item)).or_default();
                *ranges = Ranges::union(ranges.as_slice().iter().chain(more.as_slice()).copied().collect());
            }
        }
        Ok(charged)
    }

    /// The item that this one goes on from. Of add-ons there may be several: each goes on from one of its own plan, and the
    /// second of two from the second.
    fn previous(&self, plans: &[Plan], position: usize) -> Option<usize> {
        let item = &self.items[position];
        let alike = |other: &Item| {
            let of_plan = !item.add_on || plans[other.plan].key == plans[item.plan].key;
            other.add_on == item.add_on && of_plan && other.starts_at < other.ends_at
        };
        let begun_with = |other: &&Item| alike(other) && other.starts_at == item.starts_at;
        let place = self.items[..position].iter().filter(begun_with).count();
        let ended = |other: &usize| alike(&self.items[*other]) && self.items[*other].ends_at == item.starts_at;
        (0..position).filter(ended).nth(place)
    }

    /// Whether an item only goes on with the plan of the one before it.
    fn continues(&self, plans: &[Plan], previous: Option<usize>, position: usize) -> bool {
        let same = |other: usize| plans[self.items[other].plan].key == plans[self.items[position].plan].key;
        previous.is_some_and(same)
    }

    /// The first of the items that follow each other up to this one without a change of a fee.
    fn first_of(&self, previous: &[Option<usize>], mut position: usize, price_key: &str) -> usize {
        while let Some(before) = previous[position] {
            let (item, other) = (&self.items[position], &self.items[before]);
            if other.plan != item.plan || other.quantity(price_key) != item.quantity(price_key) {
                break;
            }
            position = before;
        }
        position
    }
}
