//! Cells of random timelines, against what is said instant by instant.

#[path = "subscription/timeline.rs"]
mod timeline;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::core::calendar;
use crate::core::pricing::Amount;
use crate::core::proration::{Method, Proration};
use crate::core::ranges::Ranges;
use crate::core::subscription::{Cell, Charge, Item, NEVER, Plan, Price, Subscription};
use timeline::{DAY, FIRST, Timeline, horizon, timeline};

/// Identity of a cell.
type Key = (Option<usize>, usize, usize, i64, i64);

fn key(cell: &Cell) -> Key {
    (cell.item, cell.plan, cell.price, cell.period.period.start, cell.period.period.end)
}

fn cells(of: &Timeline, from: i64, to: i64) -> Vec<Cell> {
    of.subscription.cells(&of.plans, from, to).expect("within the calendar")
}

fn price<'a>(of: &'a Timeline, cell: &Cell) -> &'a Price {
    &of.plans[cell.plan].prices[cell.price]
}

/// Whether time is paid for, and whether a price is charged then: one instant at a time, without sets.
struct Instant<'a> {
    of: &'a Timeline,
    at: i64,
}

impl Instant<'_> {
    fn runs(&self, item: &Item) -> bool {
        let Subscription { starts_at, ends_at, .. } = self.of.subscription;
        item.starts_at.max(starts_at) <= self.at && self.at < item.ends_at.min(ends_at)
    }

    /// The name of the phase that the item is in, and whether that is free.
    fn phase(&self, item: &Item) -> Option<(&str, bool)> {
        let mut total = jiff::Span::new();
        for phase in &self.of.plans[item.plan].phases {
            let Some(length) = phase.length else { return Some((&phase.name, phase.free)) };
            total = jiff::Span::new()
                .months(total.get_months() + length.months)
                .days(total.get_days() + length.days)
                .microseconds(total.get_microseconds() + length.micros);
            let end =
                calendar::later(item.phases_from, total, &self.of.subscription.timezone).expect("in the calendar");
            if self.at < end {
                return (item.phases_from <= self.at).then_some((&phase.name, phase.free));
            }
        }
        None
    }

    fn is_paid(&self, item: &Item) -> bool {
        !self.of.subscription.paused.contains(self.at) && !self.phase(item).is_some_and(|(_, free)| free)
    }

    fn is_charged(&self, item: &Item, price: &Price) -> bool {
        let applies = |price: &Price| {
            (price.valid_from..price.valid_to).contains(&self.at)
                && price.phase.as_deref().is_none_or(|name| self.phase(item).is_some_and(|phase| phase.0 == name))
        };
        let plan = &self.of.plans[item.plan];
        applies(price)
            && !plan.prices.iter().any(|other| other.key == price.key && other.rank > price.rank && applies(other))
    }
}

/// Where something may change, a microsecond around each, and a few times in between.
fn instants(of: &Timeline, cells: &[Cell]) -> BTreeSet<i64> {
    let ends = cells.iter().flat_map(|cell| cell.applies.as_slice().iter().flat_map(|&(start, end)| [start, end]));
    let items = of.subscription.items.iter().flat_map(|item| [item.starts_at, item.ends_at]);
    let pauses = of.subscription.paused.as_slice().iter().flat_map(|&(start, end)| [start, end]);
    let prices = of.plans.iter().flat_map(|plan| &plan.prices).flat_map(|price| [price.valid_from, price.valid_to]);
    let grid = (0..30).map(|number| FIRST + number * 17 * DAY + 12_345);
    ends.chain(items)
        .chain(pauses)
        .chain(prices)
        .chain(grid)
        .filter(|at| (FIRST - 400 * DAY..horizon() + 400 * DAY).contains(at))
        .flat_map(|at| [at - 1, at, at + 1])
        .filter(|&at| at < horizon())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_price_of_paid_time_is_in_one_cell(of in timeline()) {
        let cells = cells(&of, i64::MIN, horizon());
        let keys: BTreeSet<Key> = cells.iter().map(key).collect();
        prop_assert_eq!(keys.len(), cells.len(), "two cells are told apart by nothing that a line keeps");
        for &at in &instants(&of, &cells) {
            let now = Instant { of: &of, at };
            let mut expected: BTreeMap<(usize, usize, Option<usize>), usize> = BTreeMap::new();
            for (position, item) in of.subscription.items.iter().enumerate().filter(|(_, item)| now.runs(item)) {
                for (number, price) in of.plans[item.plan].prices.iter().enumerate() {
                    if price.charge != Charge::Once && now.is_paid(item) && now.is_charged(item, price) {
                        let of_item = (price.charge != Charge::Usage).then_some(position);
                        expected.insert((item.plan, number, of_item), position);
                    }
                }
            }
            let found: Vec<&Cell> =
                cells.iter().filter(|cell| price(&of, cell).charge != Charge::Once && cell.applies.contains(at)).collect();
            prop_assert_eq!(found.len(), expected.len(), "at {}: {:?} for {:?}", at, found, expected);
            for &(plan, number, item) in expected.keys() {
                let holds = |cell: &&&Cell| {
                    let same_item = match (cell.item, item) {
                        (None, None) => true,
                        (Some(first), Some(position)) => of.goes_on(first, position, &of.plans[plan].prices[number].key),
                        _ => false,
                    };
                    (cell.plan, cell.price) == (plan, number) && same_item
                };
                let of_price: Vec<&&Cell> = found.iter().filter(holds).collect();
                // Fees of two add-ons of one plan that are the same are two cells; each holds for one of them.
                prop_assert!(!of_price.is_empty(), "at {}: nobody charges price {} of plan {} and item {:?}", at, number, plan, item);
            }
        }
    }

    #[test]
    fn cells_are_within_their_periods(of in timeline()) {
        for cell in cells(&of, i64::MIN, horizon()) {
            let piece = cell.period;
            prop_assert!(!cell.applies.is_empty());
            prop_assert!(piece.period.start <= piece.start && piece.start < piece.end && piece.end <= piece.period.end);
            let (start, end) = cell.applies.span().unwrap();
            prop_assert!(piece.start <= start && end <= piece.end, "{:?}", cell);
        }
    }

    #[test]
    fn periods_tile_the_subscription(of in timeline()) {
        let end = of.subscription.ends_at;
        let periods = of.subscription.periods(&of.plans, i64::MIN, horizon()).unwrap();
        let mut at = of.subscription.starts_at;
        for period in &periods {
            prop_assert_eq!(period.start, at, "a gap or an overlap");
            at = period.end;
        }
        let tiled = if end <= horizon() { at == end } else { at >= horizon() && at <= end };
        prop_assert!(tiled, "the last ends at {}", at);
        // The billing run stops at each of these, and at no other time.
        let mut boundary = of.subscription.starts_at;
        for period in &periods {
            prop_assert_eq!(of.subscription.next_boundary(&of.plans, boundary).unwrap(), Some(period.end));
            boundary = period.end;
        }
        prop_assert_eq!(of.subscription.next_boundary(&of.plans, FIRST - 1000 * DAY).unwrap(), Some(of.subscription.starts_at));
        prop_assert_eq!(of.subscription.next_boundary(&of.plans, boundary).unwrap().is_none(), end == boundary);
    }

    #[test]
    fn a_window_does_not_change_cells(of in timeline(), cuts in prop::collection::vec(0_i64..500 * 24, 3)) {
        let mut cuts: Vec<i64> = cuts.into_iter().map(|hours| FIRST + hours * DAY / 24).collect();
        cuts.sort_unstable();
        let of_keys = |cells: Vec<Cell>| cells.into_iter().map(|cell| (key(&cell), cell)).collect::<BTreeMap<_, _>>();
        let all = of_keys(cells(&of, i64::MIN, NEVER.min(horizon())));
        let mut parts = of_keys(cells(&of, cuts[0], cuts[1]));
        parts.extend(of_keys(cells(&of, cuts[1], cuts[2])));
        let whole = of_keys(cells(&of, cuts[0], cuts[2]));
        prop_assert_eq!(&parts, &whole);
        for (key, cell) in &all {
            // What lines of a cell keep is when its whole period ends: by that they are found.
            let begins = cell.period.start < cuts[2];
            prop_assert_eq!(whole.get(key), (begins && cell.period.period.end > cuts[0] && cuts[0] < cuts[2]).then_some(cell));
        }
        prop_assert!(whole.keys().all(|key| all.contains_key(key)));
    }

    #[test]
    fn once_is_once(of in timeline()) {
        let mut starts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for cell in cells(&of, i64::MIN, horizon()).iter().filter(|cell| price(&of, cell).charge == Charge::Once) {
            let item = &of.subscription.items[cell.item.expect("of an item")];
            prop_assert_eq!(cell.applies.as_slice(), [(item.starts_at, item.starts_at + 1)]);
            *starts.entry((cell.item.unwrap(), cell.price)).or_default() += 1;
        }
        prop_assert!(starts.values().all(|times| *times == 1));
        let mut begun = BTreeSet::new();
        for (position, item) in of.subscription.items.iter().enumerate() {
            let now = Instant { of: &of, at: item.starts_at };
            if !now.runs(item) || item.starts_at >= horizon() || of.only_goes_on(position) {
                continue;
            }
            for (number, price) in of.plans[item.plan].prices.iter().enumerate() {
                if price.charge == Charge::Once && now.is_charged(item, price) {
                    begun.insert((position, number));
                }
            }
        }
        prop_assert_eq!(starts.into_keys().collect::<BTreeSet<_>>(), begun);
    }

    #[test]
    fn shares_of_a_fee_add_up(of in timeline(), minor in 0_i64..100_000, method in 0..3) {
        // One fee that never changes: what is charged, and what is not for pauses and free time, is all of each period.
        let method = [Method::Second, Method::parse("day").unwrap(), Method::Whole][method as usize];
        let mut of = of;
        let fee = Price { charge: Charge::Arrears, valid_from: i64::MIN, valid_to: NEVER, phase: None, ..of.plans[0].prices[0].clone() };
        for plan in &mut of.plans {
            plan.prices = vec![fee.clone()];
        }
        of.subscription.items.retain(|item| !item.add_on);
        let whole = Amount::from(minor as u64);
        let share = |ranges: &Ranges, period: (i64, i64)| -> i128 {
            let zone = calendar::zone(&of.subscription.timezone).unwrap();
            let of_piece = |&piece: &(i64, i64)| {
                let money = Proration::between(piece, period, method, &zone).unwrap().money(&whole, 0).unwrap();
                i128::try_from(money.minor()).unwrap()
            };
            ranges.as_slice().iter().map(of_piece).sum()
        };
        let mut by_period: BTreeMap<(i64, i64), (i128, Vec<(i64, i64)>)> = BTreeMap::new();
        for cell in cells(&of, i64::MIN, horizon()) {
            let period = (cell.period.period.start, cell.period.period.end);
            let sum = by_period.entry(period).or_default();
            sum.0 += share(&cell.applies, period);
            sum.1.extend_from_slice(cell.applies.as_slice());
        }
        for (period, (sum, charged)) in by_period {
            let not_charged = Ranges::of(period.0, period.1).subtract(&Ranges::union(charged));
            prop_assert_eq!(sum + share(&not_charged, period), i128::from(minor), "{:?}", period);
        }
    }

    #[test]
    fn changed_and_changed_back_is_as_it_was(of in timeline(), at in 0_i64..500 * 24, other in 0_usize..3) {
        let at = FIRST + at * DAY / 24;
        let Some(position) = of.subscription.items.iter().position(|item| !item.add_on && item.starts_at < at && at < item.ends_at)
        else { return Ok(()) };
        let mut changed = of.clone();
        let old = of.subscription.items[position].clone();
        changed.subscription.items[position].ends_at = at;
        // To another plan for no time at all, and back, with the same quantities.
        let between = Item { id: 1000, plan: other % of.plans.len(), starts_at: at, ends_at: at, anchor: at, phases_from: at, ..old.clone() };
        let back = Item { id: 1001, starts_at: at, ..old };
        let after = changed.subscription.items.iter().position(|item| item.starts_at > at).unwrap_or(changed.subscription.items.len());
        changed.subscription.items.splice(after..after, [between, back]);
        let id = |of: &Timeline, cell: &Cell| (cell.item.map(|item| of.subscription.items[item].id), key(cell).3, cell.plan, cell.price, cell.applies.as_slice().to_vec());
        let of_all = |of: &Timeline| cells(of, i64::MIN, horizon()).iter().map(|cell| id(of, cell)).collect::<BTreeSet<_>>();
        prop_assert_eq!(of_all(&of), of_all(&changed));
    }
}

/// A month's plan, as lines of one kind of everything.
fn monthly(prices: Vec<Price>) -> Plan {
    timeline::plan("monthly", calendar::Interval::Months(1), prices)
}

#[test]
fn usage_goes_on_when_a_quantity_changes_and_fees_begin_anew() {
    let usage = timeline::priced("tokens", Charge::Usage);
    let (seats, base) = (timeline::priced("seats", Charge::Advance), timeline::priced("base", Charge::Advance));
    let quantity = |seats: u64| BTreeMap::from([("seats".to_string(), Amount::from(seats))]);
    let first = timeline::item(1, 0, FIRST, FIRST + 10 * DAY);
    let items = vec![
        Item { quantities: quantity(3), ..first.clone() },
        Item { id: 2, starts_at: FIRST + 10 * DAY, ends_at: NEVER, quantities: quantity(5), ..first },
    ];
    let of =
        Timeline { subscription: timeline::subscription("UTC", items), plans: vec![monthly(vec![usage, seats, base])] };
    let found: Vec<(Option<usize>, usize, Ranges)> =
        cells(&of, FIRST, FIRST + 31 * DAY).into_iter().map(|cell| (cell.item, cell.price, cell.applies)).collect();
    let (before, after) = ((FIRST, FIRST + 10 * DAY), (FIRST + 10 * DAY, FIRST + 31 * DAY));
    let whole = Ranges::of(before.0, after.1);
    let of_range = |(start, end): (i64, i64)| Ranges::of(start, end);
    assert_eq!(
        found,
        [(None, 0, whole.clone()), (Some(0), 1, of_range(before)), (Some(1), 1, of_range(after)), (Some(0), 2, whole)]
    );
}

#[test]
fn two_add_ons_that_change_at_once_each_go_on() {
    let setup = timeline::priced("setup", Charge::Once);
    let plans = vec![
        monthly(Vec::new()),
        timeline::plan("x", calendar::Interval::Months(1), vec![setup.clone()]),
        timeline::plan("y", calendar::Interval::Months(1), vec![setup]),
    ];
    let change = FIRST + 40 * DAY;
    let add_on = |id, plan, from, to| Item { add_on: true, ..timeline::item(id, plan, from, to) };
    let items = vec![
        timeline::item(1, 0, FIRST, NEVER),
        add_on(2, 1, FIRST, change),
        add_on(3, 2, FIRST, change),
        add_on(4, 1, change, NEVER),
        add_on(5, 2, change, NEVER),
    ];
    let of = Timeline { subscription: timeline::subscription("UTC", items), plans };
    let charged: Vec<Option<usize>> = cells(&of, FIRST, FIRST + 100 * DAY).into_iter().map(|cell| cell.item).collect();
    assert_eq!(charged, [Some(1), Some(2)], "a setup fee was charged again");
}

#[test]
fn a_plan_that_is_left_and_taken_again_within_a_month_has_one_cell_of_usage() {
    // In between another interval: three stretches, of which the first and the last are in one month.
    let usage = timeline::priced("tokens", Charge::Usage);
    let plans = vec![monthly(vec![usage]), timeline::plan("weekly", calendar::Interval::Weeks(1), Vec::new())];
    let (out, back) = (FIRST + 10 * DAY, FIRST + 20 * DAY);
    let items = vec![
        timeline::item(1, 0, FIRST, out),
        Item { anchor: out, ..timeline::item(2, 1, out, back) },
        Item { anchor: back, ..timeline::item(3, 0, back, NEVER) },
    ];
    let of = Timeline { subscription: timeline::subscription("UTC", items), plans };
    let found = cells(&of, FIRST, FIRST + 31 * DAY);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].applies.as_slice(), [(FIRST, out), (back, FIRST + 31 * DAY)]);
    assert_eq!((found[0].period.start, found[0].period.end), (FIRST, FIRST + 31 * DAY));
}

#[test]
fn a_period_that_was_left_early_is_looked_at_until_its_whole_end() {
    // Lines say when the whole period ends: a year that was left in February is not forgotten in March.
    let fee = timeline::priced("base", Charge::Advance);
    let plans = vec![timeline::plan("yearly", calendar::Interval::Years(1), vec![fee]), monthly(Vec::new())];
    let left = FIRST + 40 * DAY;
    let items = vec![timeline::item(1, 0, FIRST, left), Item { anchor: left, ..timeline::item(2, 1, left, NEVER) }];
    let of = Timeline { subscription: timeline::subscription("UTC", items), plans };
    assert_eq!(cells(&of, FIRST + 100 * DAY, FIRST + 130 * DAY).len(), 1);
}
