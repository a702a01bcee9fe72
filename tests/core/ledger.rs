//! Prepaid credit: what burns first, what adds up, which grant pays what. What peers say is in vectors.rs, recurring grants
//! in recurring.rs, sums of grants in sums.rs.

use std::cmp::Ordering;

use ethnum::I256;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::core::invoice::Scope;
use crate::core::ledger::*;
use crate::core::pricing::{Amount, Rounding};

#[path = "ledger/recurring.rs"]
mod recurring;
#[path = "ledger/sums.rs"]
mod sums;
#[path = "ledger/vectors.rs"]
mod vectors;

const NOW: i64 = 1000;

fn amount(text: &str) -> Amount {
    Amount::parse(text).expect(text)
}

/// So many thousandths.
fn thousandths(n: i128) -> Amount {
    Amount::new(I256::new(n), 3)
}

fn sum(amounts: impl IntoIterator<Item = Amount>) -> Amount {
    amounts.into_iter().fold(Amount::ZERO, |sum, amount| sum.checked_add(&amount).expect("a sum"))
}

fn less(a: &Amount, b: &Amount) -> Amount {
    a.checked_sub(b).expect("a difference")
}

/// What an amount of a wallet's unit is worth, exactly.
fn money(wallet: &Wallet, amount: &Amount) -> Amount {
    wallet.unit.as_ref().map_or(*amount, |unit| amount.checked_mul(&unit.rate).expect("money"))
}

fn cents(minor: i128) -> Amount {
    Amount::new(I256::new(minor), 2)
}

/// A wallet for everything that ends at zero; `rate`: of its unit.
fn wallet(id: i64, priority: i32, rate: Option<&str>) -> Wallet {
    Wallet {
        id,
        name: format!("w{id}"),
        priority,
        unit: rate.map(|rate| Unit { key: format!("u{id}"), rate: amount(rate) }),
        scope: Scope::default(),
        limit: Limit::Of(Amount::ZERO),
        overdraft: Amount::ZERO,
        owes_since: 0,
    }
}

/// Purchased, of the first wallet, for ever.
fn lot(id: i64, remaining: Amount) -> Lot {
    Lot {
        source: Source::Grant(id),
        wallet: 0,
        priority: 50,
        promotional: false,
        effective_at: 0,
        expires_at: i64::MAX,
        created_at: 0,
        summed: false,
        remaining,
    }
}

fn purse(wallets: Vec<Wallet>, lots: Vec<Lot>) -> Purse {
    let mut purse = Purse { digits: 2, wallets, lots, as_of: NOW };
    purse.sort();
    purse
}

/// Rates that cents do not divide, and one that they do.
const RATES: &[Option<&str>] = &[None, Some("3"), Some("0.0001"), Some("1.123456"), Some("0.5")];

fn wallets() -> impl Strategy<Value = Vec<Wallet>> {
    vec((1..4_i32, select(RATES), 0..2_i32), 1..4).prop_map(|list| {
        let one = |(id, (priority, rate, owes)): (usize, (i32, Option<&'static str>, i32))| Wallet {
            overdraft: thousandths(i128::from(owes) * 12_340),
            owes_since: 500,
            ..wallet(id as i64 + 1, priority, rate)
        };
        list.into_iter().enumerate().map(one).collect()
    })
}

fn lots() -> impl Strategy<Value = Vec<Lot>> {
    let times = (select(vec![0_i64, 400, 600, 900, 1000, 1100]), select(vec![700_i64, 950, 1001, 1200, i64::MAX]));
    let one = (0..3_usize, 1..4_i32, any::<bool>(), times, 0..3_i64, 0..200_000_i128);
    vec(one, 0..12).prop_map(|list| {
        let lot = |(id, (wallet, priority, promotional, (effective_at, expires_at), created_at, left))| Lot {
            wallet,
            priority,
            promotional,
            effective_at: i64::min(effective_at, expires_at - 1),
            expires_at,
            created_at,
            ..lot(id as i64, thousandths(left))
        };
        list.into_iter().enumerate().map(lot).collect()
    })
}

prop_compose! {
    fn any_purse()(wallets in wallets(), mut lots in lots()) -> Purse {
        lots.iter_mut().for_each(|lot| lot.wallet %= wallets.len());
        Purse { digits: 2, wallets, lots, as_of: NOW }
    }
}

/// The burn order as the design has it, written out.
fn burns_before(purse: &Purse, a: &Lot, b: &Lot) -> Ordering {
    let (of_a, of_b) = (&purse.wallets[a.wallet], &purse.wallets[b.wallet]);
    (of_a.priority.cmp(&of_b.priority))
        .then(a.priority.cmp(&b.priority))
        .then(a.expires_at.cmp(&b.expires_at))
        .then(b.promotional.cmp(&a.promotional))
        .then(a.effective_at.cmp(&b.effective_at))
        .then(a.created_at.cmp(&b.created_at))
        .then(a.source.cmp(&b.source))
}

fn sources(purse: &Purse) -> Vec<Source> {
    purse.lots.iter().map(|lot| lot.source).collect()
}

proptest! {
    #[test]
    fn minor_units_are_as_rounded_the_long_way(
        coefficient in prop_oneof![any::<i64>(), -100_000..100_000_i64], scale in 0..=24_u32, digits in 0..=12_u32,
        rounding in select(vec![Rounding::Up, Rounding::Down, Rounding::HalfUp]),
    ) {
        let money = Amount::new(coefficient.into(), scale);
        let rounded = money.round_to(digits, rounding).round(digits).unwrap().minor();
        prop_assert_eq!(minor_of(&money, digits, rounding).unwrap(), rounded.as_i128());
    }

    #[test]
    fn burn_order_is_total_and_the_same_whatever_comes_first(
        purse in any_purse(), seed in vec(any::<u32>(), 12), minor in 0..100_000_i128, debt in select(vec![650_i64, 980, NOW]),
    ) {
        let mut sorted = purse.clone();
        sorted.sort();
        for pair in sorted.lots.windows(2) {
            prop_assert_eq!(burns_before(&sorted, &pair[0], &pair[1]), Ordering::Less, "{:?}", pair);
        }
        let mut shuffled = purse.clone();
        let mut order: Vec<usize> = (0..purse.lots.len()).collect();
        order.sort_by_key(|place| seed[*place]);
        shuffled.lots = order.into_iter().map(|place| purse.lots[place].clone()).collect();
        shuffled.sort();
        prop_assert_eq!(sources(&shuffled), sources(&sorted));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        prop_assert_eq!(sorted.burn(minor, debt, |_| true, &mut first), shuffled.burn(minor, debt, |_| true, &mut second));
        prop_assert_eq!(first, second);
    }

    #[test]
    fn what_is_taken_was_there_and_is_gone(
        mut purse in any_purse(), minor in 0..100_000_i128, debt in select(vec![650_i64, 980, NOW]), only in proptest::option::of(1..3_i64),
    ) {
        purse.sort();
        let before = purse.clone();
        let covers = |wallet: &Wallet| only.is_none_or(|id| wallet.id == id);
        let mut taken = Vec::new();
        let missing = purse.burn(minor, debt, covers, &mut taken).expect("a burn");
        prop_assert_eq!(taken.iter().map(|taken| taken.minor).sum::<i128>() + missing, minor);
        for taken in &taken {
            let (was, is) = (&before.lots[taken.lot], &purse.lots[taken.lot]);
            let wallet = &purse.wallets[was.wallet];
            prop_assert!(was.serves(debt, NOW) && covers(wallet));
            prop_assert_eq!(sum([is.remaining, taken.amount]), was.remaining);
            prop_assert!(!is.remaining.is_negative());
            // Never worth less than what it pays; and more by less than the last decimal that units have.
            let worth = money(wallet, &taken.amount);
            prop_assert!(worth >= cents(taken.minor));
            let over = less(&worth, &cents(taken.minor));
            prop_assert!(wallet.unit.is_none() && over.is_zero() || over <= money(wallet, &amount("0.000000000001")));
        }
        // Lots that gave nothing are what they were, and the first that can pay pays all it has before the next is asked.
        for (place, (was, is)) in before.lots.iter().zip(&purse.lots).enumerate() {
            let gave = taken.iter().any(|taken| taken.lot == place);
            prop_assert!(gave || was.remaining == is.remaining);
            let can_pay = is.serves(debt, NOW) && covers(&purse.wallets[is.wallet]);
            let later = taken.iter().any(|taken| taken.lot > place) || missing > 0;
            prop_assert!(!(can_pay && later) || purse.worth(is).expect("worth") == 0, "{:?} has something left", is);
        }
        purse.put_back(&taken).expect("room");
        for (was, is) in before.lots.iter().zip(&purse.lots) {
            prop_assert_eq!(was.remaining, is.remaining);
        }
    }

    #[test]
    fn what_is_set_aside_is_as_much_from_the_other_end(purse in any_purse(), minor in 0..100_000_i128) {
        let (mut burned, mut reserved) = (purse.clone(), purse);
        burned.sort();
        reserved.sort();
        let before = reserved.clone();
        prop_assert_eq!(
            burned.burn(minor, NOW, |_| true, &mut Vec::new()),
            reserved.reserve(minor, NOW, |_| true, |_| true, &mut Vec::new())
        );
        let touched = |place: &usize| reserved.lots[*place].remaining != before.lots[*place].remaining;
        if let Some(first) = (0..before.lots.len()).find(touched) {
            for later in reserved.lots[first + 1..].iter().filter(|lot| lot.serves(NOW, NOW)) {
                prop_assert_eq!(reserved.worth(later), Ok(0));
            }
        }
    }

    #[test]
    fn what_debts_leave_can_be_taken_without_a_debt_noticing(
        mut purse in any_purse(), debts in vec((0..60_000_i128, select(vec![650_i64, 980, NOW]), proptest::option::of(1..3_i64)), 0..4),
        minor in 0..100_000_i128, only in proptest::option::of(1..3_i64),
    ) {
        purse.sort();
        let pay_debts = |purse: &mut Purse| -> Vec<i128> {
            let pay = |(minor, at, only): &(i128, i64, Option<i64>)| {
                purse.burn(*minor, *at, |wallet| only.is_none_or(|id| wallet.id == id), &mut Vec::new()).expect("a burn")
            };
            debts.iter().map(pay).collect()
        };
        let mut left = purse.clone();
        let missing = pay_debts(&mut left);
        let mut taken = Vec::new();
        left.burn(minor, NOW, |wallet| only.is_none_or(|id| wallet.id == id), &mut taken).expect("a burn");
        for taken in taken {
            let lot = &mut purse.lots[taken.lot];
            lot.remaining = less(&lot.remaining, &taken.amount);
        }
        prop_assert_eq!(pay_debts(&mut purse), missing);
    }

    #[test]
    fn grants_pay_what_their_wallets_owe(mut purse in any_purse()) {
        purse.sort();
        let before = purse.clone();
        let paid = purse.settle().expect("a settlement");
        for (place, (was, is)) in before.wallets.iter().zip(&purse.wallets).enumerate() {
            let by = paid.iter().filter(|taken| before.lots[taken.lot].wallet == place);
            prop_assert_eq!(sum([is.overdraft, sum(by.map(|taken| taken.amount))]), was.overdraft);
            prop_assert!(!is.overdraft.is_negative());
            // Owing, it has nothing left that lives.
            let live = purse.lots.iter().filter(|lot| lot.wallet == place && lot.is_live(NOW));
            prop_assert!(is.overdraft.is_zero() || sum(live.map(|lot| lot.remaining)).is_zero());
        }
        for taken in &paid {
            let lot = &before.lots[taken.lot];
            prop_assert!(lot.is_live(NOW) || (lot.effective_at > 500 && lot.effective_at <= NOW), "{:?}", lot);
            prop_assert_eq!(sum([purse.lots[taken.lot].remaining, taken.amount]), lot.remaining);
        }
        prop_assert_eq!(purse.settle(), Ok(Vec::new()));
    }

    #[test]
    fn units_are_spent_to_the_last_fraction(left in vec(1..50_000_i128, 1..5), rate in select(vec!["3", "0.0001", "1.123456"])) {
        let lots = left.iter().enumerate().map(|(n, left)| Lot { expires_at: 2000 + n as i64, ..lot(n as i64, thousandths(*left)) });
        let mut purse = purse(vec![wallet(1, 1, Some(rate))], lots.collect());
        let all = thousandths(left.iter().sum());
        let mut taken = Vec::new();
        prop_assert_eq!(purse.burn_amount(all, NOW, |_| true, &mut taken), Ok(Amount::ZERO));
        prop_assert_eq!(sum(taken.iter().map(|taken| taken.amount)), all);
        prop_assert!(purse.lots.iter().all(|lot| lot.remaining.is_zero()));
        prop_assert_eq!(purse.burn_amount(amount("0.000000000001"), NOW, |_| true, &mut taken), Ok(amount("0.000000000001")));
    }

    #[test]
    fn totals_are_what_their_json_says(changes in vec((0..3_i64, any::<bool>(), -50_000..50_000_i128), 0..20)) {
        let mut totals = Totals::default();
        for (n, (wallet, flag, change)) in changes.iter().enumerate() {
            let change = Amount::new(I256::new(*change), 4);
            totals.add_overdraft(*wallet, &change, n as i64).expect("a sum");
            totals.add_hold(flag.then_some("a \"meter\""), flag.then_some(&change), &change, (100 - n as i64, 500)).expect("a sum");
        }
        let text = serde_json::to_string(&totals).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Totals>(&text).expect("totals"), totals.clone());
        // Each sum is that of its changes, and none is kept that is nothing.
        for owed in &totals.overdrafts {
            let own = changes.iter().filter(|(wallet, _, _)| owed.wallet == *wallet);
            prop_assert_eq!(owed.amount, Amount::new(I256::new(own.map(|change| change.2).sum()), 4));
            prop_assert!(!owed.amount.is_zero());
        }
    }
}

#[test]
fn totals_know_since_when() {
    let mut totals = Totals::default();
    let mut owe = |change: &str, now| {
        totals.add_overdraft(1, &amount(change), now).expect("a sum");
        totals.overdrafts.first().map(|owed| (owed.amount.to_string(), owed.since))
    };
    let owed = |amount: &str, since| Some((amount.to_string(), since));
    // What was owed before has been settled by whoever makes it more; paying a part of it changes nothing.
    assert_eq!(owe("5", 10), owed("5", 10));
    assert_eq!(owe("2", 20), owed("7", 20));
    assert_eq!(owe("-4", 30), owed("3", 20));
    assert_eq!(owe("-3", 40), None);
    assert_eq!(owe("1", 50), owed("1", 50));
    // Of holds it is the oldest.
    let mut totals = Totals::default();
    for (change, since) in [("5", 10), ("2", 20), ("1", 5), ("-5", 10)] {
        totals.add_hold(None, None, &amount(change), (since, i64::MAX)).expect("a sum");
    }
    assert_eq!((totals.held[0].amount, totals.held[0].since), (amount("3"), 5));
    // None expires before the first that does, until there is none.
    let mut hold = |change: &str, ends| {
        totals.add_hold(None, None, &amount(change), (30, ends)).expect("a sum");
        totals.held_until
    };
    assert_eq!(
        [hold("1", 50), hold("-4", 40), hold("1", 60), hold("1", 55), hold("1", 70)],
        [Some(50), None, Some(60), Some(55), Some(55)]
    );
    assert!(serde_json::from_str::<Totals>(r#"{"sums":[],"more":1}"#).is_err());
}

/// June is 100 to 200 and July 200 to 300; it is July, 210.
#[test]
fn a_grant_pays_for_the_time_in_which_it_lived() {
    let june = Lot { promotional: true, effective_at: 100, expires_at: 200, ..lot(1, amount("10")) };
    let july = Lot { promotional: true, effective_at: 200, expires_at: 300, ..lot(2, amount("10")) };
    let bought = Lot { effective_at: 205, expires_at: 300, ..lot(3, amount("10")) };
    let coming = Lot { effective_at: 211, expires_at: 300, ..lot(4, amount("10")) };
    let who = |debt: i64| -> Vec<i64> {
        let pays = [&june, &july, &bought, &coming].into_iter().zip(1..).filter(|(lot, _)| lot.pays(debt, 210));
        pays.map(|(_, id)| id).collect()
    };
    assert_eq!(who(199), [1, 3], "the invoice for June, in July: June's allowance and money, whenever it was paid");
    assert_eq!(who(210), [2, 3], "what is used now");
    assert_eq!(who(200), [2, 3], "the end is not of June: it is exclusive, the start inclusive");
    assert!(june.is_live(100) && june.is_live(199) && !june.is_live(200) && !june.is_live(99));
}

#[test]
fn a_dead_grant_pays_no_debt_of_later() {
    let dead = Lot { effective_at: 100, expires_at: 200, ..lot(1, amount("10")) };
    let owing = |since| vec![Wallet { overdraft: amount("4"), owes_since: since, ..wallet(1, 1, None) }];
    let mut later = purse(owing(500), vec![dead.clone()]);
    assert_eq!(later.settle(), Ok(Vec::new()));
    assert_eq!(later.wallets[0].overdraft, amount("4"));
    // One that began after it paid at its start, though it is dead by now, and before one that lives.
    let mut earlier = purse(owing(50), vec![dead, Lot { effective_at: 300, ..lot(2, amount("10")) }]);
    assert_eq!(earlier.settle(), Ok(vec![Taken { lot: 0, amount: amount("4"), minor: 400 }]));
    assert_eq!(earlier.balance(0), Ok(amount("10")));
    // Not yet.
    let mut coming = purse(owing(50), vec![Lot { effective_at: NOW + 1, ..lot(1, amount("10")) }]);
    assert_eq!(coming.settle(), Ok(Vec::new()));
}

#[test]
fn money_that_does_not_fit_is_an_error() {
    let most = Amount::new(I256::new(i128::MAX), 2);
    let over = vec![lot(1, most), lot(2, amount("0.01"))];
    assert!(purse(vec![wallet(1, 1, None)], over).left(|_| true).is_err());
    let unit = vec![lot(1, most)];
    let mut purse = purse(vec![wallet(1, 1, Some("3"))], unit);
    assert!(purse.left(|_| true).is_err());
    assert!(purse.burn(1, NOW, |_| true, &mut Vec::new()).is_err());
    assert_eq!(purse.lots[0].remaining, most);
}
