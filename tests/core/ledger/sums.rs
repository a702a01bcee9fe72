//! Sums of grants: each grant is in the right one, and they burn as their grants do.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// A grant as one would write it down.
#[derive(Clone, Debug)]
struct Grant {
    wallet: i64,
    life: Life,
    left: i128,
}

fn life(priority: i32, promotional: bool, effective_at: i64, expires_at: i64) -> Life {
    Life { promotional, priority, effective_at, expires_at }
}

/// Times of expiry: close together, so that many are the same, and never.
const EXPIRIES: &[i64] = &[600, 980, 1001, 1002, 1003, 1005, 1010, 1020, 1050, 1100, i64::MAX];

fn grants(wallets: i64) -> impl Strategy<Value = Vec<Grant>> {
    let one =
        (1..=wallets, 1..3_i32, any::<bool>(), select(vec![100_i64, 400, 550, 990]), select(EXPIRIES), 1..5_000_i128);
    vec(one, 0..40).prop_map(|list| {
        let grant = |(wallet, priority, promotional, begun, expires, left): (i64, i32, bool, i64, i64, i128)| Grant {
            wallet,
            life: life(priority, promotional, begun.min(expires - 1), expires),
            left,
        };
        list.into_iter().map(grant).collect()
    })
}

fn is_in(sum: &Sum, grant: &Grant) -> bool {
    let at = grant.life.expires_at;
    sum.is_of(grant.wallet, &grant.life)
        && sum.dated.map_or(at == i64::MAX, |dated| dated.first <= at && at <= dated.last)
}

/// Each grant that has something left is in one sum, and each sum is that of its grants.
fn check(totals: &Totals, grants: &[Grant]) -> Result<(), TestCaseError> {
    for grant in grants.iter().filter(|grant| grant.left > 0) {
        prop_assert_eq!(
            totals.sums.iter().filter(|sum| is_in(sum, grant)).count(),
            1,
            "{:?} in {:?}",
            grant,
            totals.sums
        );
    }
    for sum in &totals.sums {
        let own = grants.iter().filter(|grant| is_in(sum, grant));
        prop_assert_eq!(sum.amount, cents(own.clone().map(|grant| grant.left).sum()));
        prop_assert!(!sum.amount.is_zero());
        if let Some(dated) = sum.dated {
            prop_assert!(dated.first <= dated.last);
            prop_assert!(own.clone().all(|grant| grant.left == 0 || grant.life.effective_at <= dated.begun));
        }
        let like = totals.sums.iter().filter(|other| {
            (other.wallet, other.priority, other.promotional) == (sum.wallet, sum.priority, sum.promotional)
        });
        let apart = |a: &Sum, b: &Sum| match (a.dated, b.dated) {
            (Some(a), Some(b)) => a.last < b.first || b.last < a.first,
            (a, b) => a.is_some() != b.is_some(),
        };
        prop_assert!(like.filter(|other| *other != sum).all(|other| apart(sum, other)), "{:?}", totals.sums);
    }
    Ok(())
}

proptest! {
    #[test]
    fn each_grant_is_in_one_sum_whatever_happens(
        given in grants(2), steps in vec((any::<prop::sample::Index>(), 0..3_u8, 0..30_i64), 0..80),
    ) {
        let (mut totals, mut grants, mut now) = (Totals::default(), Vec::<Grant>::new(), 950);
        let mut given = given.into_iter();
        for (which, deed, later) in steps {
            now += later;
            match deed {
                0 => if let Some(grant) = given.next() {
                    totals.add_grant(grant.wallet, &grant.life, &cents(grant.left), now).expect("a sum");
                    if grant.life.effective_at <= now {
                        grants.push(grant);
                    } else {
                        prop_assert!(totals.later_until >= Some(grant.life.expires_at));
                    }
                }
                // It is spent, or comes back; also after it has expired.
                _ if !grants.is_empty() => {
                    let place = which.index(grants.len());
                    let grant = &mut grants[place];
                    let change = if deed == 1 { -grant.left } else { 70 };
                    totals.change_grant(grant.wallet, &grant.life, &cents(change), now).expect("a sum");
                    grant.left += change;
                }
                _ => {}
            }
            check(&totals, &grants)?;
        }
        let text = serde_json::to_string(&totals).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Totals>(&text).expect("totals"), totals);
    }

    #[test]
    fn a_divided_sum_is_the_same_grants(
        left in vec((0..400_i64, 1..1_000_i128), 1..300), spread in select(vec![1_i64, 2, 3, 100, 400]), most in select(vec![2_u32, 3, 4, 60, 200]),
    ) {
        let mut grants: Vec<Grant> = left.into_iter().enumerate()
            .map(|(n, (at, left))| Grant { wallet: 1, life: life(50, true, n as i64 % 7, 2_000 + at % spread), left })
            .collect();
        grants.sort_by_key(|grant| grant.life.expires_at);
        let mut totals = Totals::default();
        for grant in &grants {
            totals.add_grant(1, &grant.life, &cents(grant.left), NOW).expect("a sum");
        }
        prop_assert_eq!(totals.sums.len(), 1);
        let sum = totals.sums.remove(0);
        let at_once = grants.iter().all(|grant| grant.life.expires_at == grants[0].life.expires_at);
        prop_assert_eq!(sum.is_too_large(most, NOW), !at_once && grants.len() > most as usize);
        prop_assert!(!sum.is_too_large(most, 10_000), "nobody divides what has expired");
        let parts: Vec<(Life, Amount)> = grants.iter().map(|grant| (grant.life, cents(grant.left))).collect();
        totals.sums = sum.divided(&parts, most).expect("sums");
        check(&totals, &grants)?;
        for part in &totals.sums {
            let dated = part.dated.expect("times");
            let own = grants.iter().filter(|grant| is_in(part, grant)).count();
            prop_assert_eq!(dated.grants as usize, own);
            prop_assert!(own <= most as usize / 2 || dated.first == dated.last, "{} grants", own);
            prop_assert!(!part.is_too_large(most, NOW), "it would be divided for ever");
        }
    }

    /// Sums that are used as one, and grants in the place of the others, give what each grant by itself would.
    #[test]
    fn sums_burn_as_their_grants_do(
        given in grants(3), later in lots(), minor in 0..150_000_i128, held in 0..40_000_i128, debt in select(vec![650_i64, 980, NOW]),
        charged_since in select(vec![500_i64, 985, NOW]), priorities in vec(1..3_i32, 3), only in proptest::option::of(1..4_i64),
    ) {
        let wallets: Vec<Wallet> = priorities.iter().zip(1..).map(|(priority, id)| wallet(id, *priority, None)).collect();
        let mut totals = Totals::default();
        let single = |(id, grant): (usize, &Grant)| {
            let Life { promotional, priority, effective_at, expires_at } = grant.life;
            let wallet = grant.wallet as usize - 1;
            Lot { wallet, promotional, priority, effective_at, expires_at, summed: true, ..lot(1_000 + id as i64, cents(grant.left)) }
        };
        let singles: Vec<Lot> = given.iter().enumerate().map(single).collect();
        for grant in &given {
            totals.add_grant(grant.wallet, &grant.life, &cents(grant.left), 995).expect("a sum");
        }
        // What began later is by itself in either case.
        let later = later.into_iter().map(|lot| Lot { remaining: cents(lot.remaining.whole_units(3).expect("whole") / 10), ..lot });
        let later: Vec<Lot> = later.collect();
        let mut apart = purse(wallets.clone(), singles.iter().chain(&later).cloned().collect());
        let sums = totals.sums.iter().map(|sum| sum.as_lot(sum.wallet as usize - 1));
        let mut together = Purse { digits: 2, wallets, lots: sums.chain(later).collect(), as_of: NOW };
        for place in together.sums_to_open(charged_since).into_iter().rev() {
            let sum = together.lots.swap_remove(place);
            let Source::Sum { last } = sum.source else { panic!("not a sum: {sum:?}") };
            let of_sum = |lot: &&Lot| (lot.wallet, lot.priority, lot.promotional) == (sum.wallet, sum.priority, sum.promotional)
                && sum.expires_at <= lot.expires_at && lot.expires_at <= last;
            together.lots.extend(singles.iter().filter(of_sum).cloned());
        }
        together.sort();

        let covers = |wallet: &Wallet| only.is_none_or(|id| wallet.id == id);
        let by_class = |purse: &Purse, taken: &[Taken]| {
            let mut sums = std::collections::BTreeMap::<_, i128>::new();
            for taken in taken {
                let lot = &purse.lots[taken.lot];
                let alike = lot.is_alike(NOW, charged_since);
                let class = (lot.wallet, lot.priority, lot.promotional, lot.is_lasting(), alike);
                *sums.entry((class, if alike { None } else { Some(lot.source) })).or_default() += taken.minor;
            }
            sums
        };
        let outcome = |purse: &mut Purse| {
            let (mut aside, mut burned) = (Vec::new(), Vec::new());
            let mut said = vec![purse.left(covers).expect("a sum")];
            said.push(purse.reserve(held, NOW, |_| true, |wallet| wallet.id != 2, &mut aside).expect("a reserve"));
            said.push(purse.burn(minor, debt.max(charged_since), covers, &mut burned).expect("a burn"));
            said.push(purse.left(|_| true).expect("a sum"));
            let balances: Vec<String> = (0..3).map(|wallet| purse.balance(wallet).expect("a sum").shortest().to_string()).collect();
            (said, balances, by_class(purse, &aside), by_class(purse, &burned))
        };
        prop_assert_eq!(outcome(&mut together), outcome(&mut apart));
    }
}

#[test]
fn a_sum_stands_for_its_grants_where_nothing_burns_between_them() {
    let sum = |wallet: i64, first: i64, last: i64, promotional: bool| {
        let mut totals = Totals::default();
        for at in [first, last] {
            totals.add_grant(wallet, &life(50, promotional, 0, at), &amount("1"), NOW).expect("a sum");
        }
        totals.sums[0].as_lot(wallet as usize - 1)
    };
    let purse =
        |lots: Vec<Lot>| Purse { digits: 2, wallets: vec![wallet(1, 1, None), wallet(2, 1, None)], lots, as_of: NOW };
    let open = |lots: Vec<Lot>| purse(lots).sums_to_open(NOW);
    const NONE: [usize; 0] = [];
    let never = i64::MAX;
    assert_eq!(open(vec![sum(1, 2000, 3000, true), sum(1, never, never, false), sum(1, 3001, 4000, true)]), NONE);
    // Of wallets of one priority the older start comes first, whoever's it is.
    assert_eq!(open(vec![sum(1, never, never, false), sum(2, never, never, false)]), [0, 1]);
    assert_eq!(open(vec![sum(1, never, never, true), sum(2, never, never, false)]), NONE);
    assert_eq!(open(vec![sum(1, 2000, 3000, true), sum(2, 3000, 4000, true)]), [0, 1]);
    assert_eq!(open(vec![sum(1, 2000, 3000, true), sum(2, 3001, 4000, true)]), NONE);
    // A grant by itself, within and beside.
    let single = |expires_at| Lot { expires_at, ..lot(9, amount("1")) };
    assert_eq!(open(vec![sum(1, 2000, 3000, true), single(2500)]), [0]);
    assert_eq!(open(vec![sum(1, 2000, 3000, true), single(3001)]), NONE);
    assert_eq!(open(vec![sum(1, 2000, 3000, true), Lot { priority: 51, ..single(2500) }]), NONE);
    // Some of it has expired; its wallet owes; each grant is rounded by itself.
    assert_eq!(open(vec![sum(1, NOW, 3000, true)]), [0]);
    let mut owing = purse(vec![sum(1, 2000, 3000, true)]);
    owing.wallets[0].overdraft = amount("1");
    assert_eq!(owing.sums_to_open(NOW), [0]);
    let mut units = purse(vec![sum(1, 2000, 3000, true)]);
    units.wallets[0] = wallet(1, 1, Some("3"));
    assert_eq!(units.sums_to_open(NOW), [0]);
    // Units that never expire are worth what they are together, beside whatever else: but for a wallet that owes.
    units.lots = vec![sum(1, never, never, false), sum(2, never, never, false)];
    assert_eq!(units.sums_to_open(NOW), NONE);
    units.wallets[0].overdraft = amount("1");
    assert_eq!(units.sums_to_open(NOW), [0]);
    // Promotional credit does not pay a charge from before it began.
    let begun = Lot { effective_at: 900, ..sum(1, 2000, 3000, true) };
    assert_eq!(purse(vec![begun.clone()]).sums_to_open(899), [0]);
    assert_eq!(purse(vec![Lot { promotional: false, ..begun }]).sums_to_open(899), NONE);
}
