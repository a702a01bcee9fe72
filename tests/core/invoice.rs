//! Invoices: what adds up, what never exceeds what, and examples worked by hand. What peers say is in vectors.rs.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::core::invoice::account::Standing;
use crate::core::invoice::note::CreditNote;
use crate::core::invoice::*;
use crate::core::pricing::Amount;
use crate::decimal_tests::rounded;

#[path = "invoice/account.rs"]
mod account;
#[path = "invoice/examples.rs"]
mod examples;
#[path = "invoice/note.rs"]
mod note;
#[path = "invoice/vectors.rs"]
mod vectors;

pub fn amount(text: &str) -> Amount {
    Amount::parse(text).expect(text)
}

/// A line of so many minor units of a currency with two decimals.
pub fn line(key: &str, cents: i128, taxes: &[&str]) -> Line {
    Line {
        key: key.to_string(),
        kind: LineKind::Fee,
        plans: Vec::new(),
        meter: None,
        price: None,
        unrounded: amount(&format!("{cents}e-2")),
        taxes: texts(taxes),
    }
}

pub fn tax(key: &str, percent: &str, inclusive: bool) -> Tax {
    Tax { key: key.to_string(), percent: amount(percent), inclusive }
}

pub fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| text.to_string()).collect()
}

fn some_of(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    subsequence(all, 0..=all.len()).prop_map(|list| texts(&list))
}

fn kind() -> impl Strategy<Value = LineKind> {
    select(vec![LineKind::Usage, LineKind::Fee, LineKind::OneOff, LineKind::Adjustment])
}

/// Thousandths of a minor unit: small and round ones too, for ties and lines of a cent.
fn thousandths() -> impl Strategy<Value = i128> {
    prop_oneof![
        4 => -3_000_000..20_000_000_i128,
        2 => -3000..5000_i128,
        1 => (-20..20_i128).prop_map(|halves| halves * 500),
        1 => Just(0),
    ]
}

const TAXES: &[&str] = &["t0", "t1", "t2", "t3"];

prop_compose! {
    /// Its key says nothing yet.
    fn any_line()(
        kind in kind(),
        plans in some_of(&["p1", "p2"]),
        meter in proptest::option::of(select(vec!["m1", "m2"])),
        price in proptest::option::of(select(vec!["x1", "x2"])),
        thousandths in thousandths(),
        taxes in some_of(TAXES),
    ) -> (Line, i128) {
        let key = String::new();
        let (meter, price) = (meter.map(str::to_string), price.map(str::to_string));
        (Line { key, kind, plans, meter, price, unrounded: Amount::ZERO, taxes }, thousandths)
    }
}

fn scope() -> impl Strategy<Value = Scope> {
    let limited =
        (some_of(&["l0", "l1", "l2"]), some_of(&["x1"]), some_of(&["m1"]), some_of(&["p1", "p2"]), vec(kind(), 0..3));
    let limited =
        limited.prop_map(|(lines, prices, meters, plans, kinds)| Scope { lines, prices, meters, plans, kinds });
    prop_oneof![Just(Scope::default()), limited]
}

fn discount() -> impl Strategy<Value = Discount> {
    prop_oneof![
        (0..30_000_i128).prop_map(|left| Discount::Fixed { left }),
        (0..12_000_u32).prop_map(|n| Discount::Percentage(amount(&format!("{n}e-2")))),
    ]
}

fn level() -> impl Strategy<Value = Level> {
    select(vec![Level::Line, Level::Invoice])
}

fn coupons() -> impl Strategy<Value = Vec<Coupon>> {
    vec((level(), scope(), discount()), 0..4).prop_map(|list| {
        let coupon = |(n, (level, scope, discount))| Coupon { key: format!("c{n}"), level, scope, discount };
        list.into_iter().enumerate().map(coupon).collect()
    })
}

fn credits() -> impl Strategy<Value = Vec<Credit>> {
    vec((0..20_000_i128, scope()), 0..3).prop_map(|list| {
        let credit = |(n, (left, scope))| Credit { key: format!("k{n}"), left, scope };
        list.into_iter().enumerate().map(credit).collect()
    })
}

/// Percentages in hundredths.
fn taxes() -> impl Strategy<Value = Vec<Tax>> {
    vec((prop_oneof![0..3000_u32, 0..30_000_u32], any::<bool>()), TAXES.len()).prop_map(|list| {
        let tax = |(n, (percent, inclusive))| tax(TAXES[n], &format!("{percent}e-2"), inclusive);
        list.into_iter().enumerate().map(tax).collect()
    })
}

prop_compose! {
    /// With the lines' unrounded amounts in thousandths of a minor unit beside it.
    pub fn draft()(
        digits in select(vec![0, 2, 3]),
        lines in vec(any_line(), 0..7),
        coupons in coupons(),
        promotional_credits in credits(),
        taxes in taxes(),
        exempt in prop::bool::weighted(0.1),
        paid_credits in credits(),
    ) -> (Draft, Vec<i128>) {
        let (mut lines, thousandths): (Vec<Line>, Vec<i128>) = lines.into_iter().unzip();
        for (n, (line, thousandths)) in lines.iter_mut().zip(&thousandths).enumerate() {
            line.key = format!("l{n}");
            line.unrounded = amount(&format!("{thousandths}e-{}", digits + 3));
        }
        (Draft { digits, lines, coupons, promotional_credits, taxes, exempt, paid_credits }, thousandths)
    }
}

pub fn computed(draft: &Draft) -> Invoice {
    compute(draft).expect("an invoice")
}

fn all(invoice: &Invoice, part: fn(&InvoiceLine) -> i128) -> i128 {
    invoice.lines.iter().map(part).sum()
}

fn from_line(shares: &[Share], line: usize) -> i128 {
    shares.iter().filter(|share| share.line == line).map(|share| share.amount).sum()
}

/// Percentages as whole hundredths, to compute with.
fn hundredths(percent: &Amount) -> i128 {
    percent.round(2).expect("two decimals").to_string().replace('.', "").parse().expect("digits")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn everything_adds_up((draft, thousandths) in draft()) {
        let invoice = computed(&draft);
        for (place, (line, thousandths)) in invoice.lines.iter().zip(&thousandths).enumerate() {
            prop_assert_eq!(line.amount, rounded(*thousandths, 1000));
            let shares = |uses: &[CreditUse]| uses.iter().map(|credit| from_line(&credit.shares, place)).sum::<i128>();
            let discount: i128 = invoice.coupons.iter().map(|coupon| from_line(&coupon.shares, place)).sum();
            prop_assert_eq!(line.discount, discount);
            prop_assert_eq!(line.promotional_credit, shares(&invoice.promotional_credits));
            prop_assert_eq!(line.paid_credit, shares(&invoice.paid_credits));
            let of = |inclusive| line.taxes.iter().filter(|tax| tax.inclusive == inclusive).map(|tax| tax.amount).sum::<i128>();
            prop_assert_eq!(line.amount - line.discount - line.promotional_credit, line.taxable + of(true));
            prop_assert_eq!(line.total, line.taxable + of(true) + of(false));
        }
        prop_assert_eq!(invoice.subtotal, all(&invoice, |line| line.amount));
        prop_assert_eq!(invoice.discount, all(&invoice, |line| line.discount));
        prop_assert_eq!(invoice.promotional_credit, all(&invoice, |line| line.promotional_credit));
        prop_assert_eq!(invoice.taxable, all(&invoice, |line| line.taxable));
        prop_assert_eq!(invoice.tax, all(&invoice, |line| line.taxes.iter().map(|tax| tax.amount).sum()));
        prop_assert_eq!(invoice.total, all(&invoice, |line| line.total));
        prop_assert_eq!(invoice.paid_credit, all(&invoice, |line| line.paid_credit));
        prop_assert_eq!(invoice.total, invoice.taxable + invoice.tax);
        prop_assert_eq!(invoice.amount_due - invoice.account_credit, invoice.total - invoice.paid_credit);
        prop_assert!(invoice.amount_due >= 0 && invoice.account_credit >= 0);
        prop_assert!(invoice.amount_due == 0 || invoice.account_credit == 0);
        for tax in &invoice.taxes {
            let with_it = invoice.lines.iter().filter_map(|line| Some((line.taxable, line.taxes.iter().find(|one| one.key == tax.key)?.amount)));
            let (bases, amounts): (Vec<i128>, Vec<i128>) = with_it.unzip();
            prop_assert_eq!((tax.base, tax.amount), (bases.iter().sum(), amounts.iter().sum()));
        }
    }

    /// No part of a line has another sign than the line or is larger than what it is of.
    #[test]
    fn nothing_exceeds_what_it_is_of((draft, _) in draft()) {
        let invoice = computed(&draft);
        for (line, input) in invoice.lines.iter().zip(&draft.lines) {
            let parts = [line.discount, line.promotional_credit, line.paid_credit];
            let taxes = line.taxes.iter().map(|tax| tax.amount);
            if line.amount > 0 {
                prop_assert!(parts.into_iter().chain(taxes).chain([line.taxable]).all(|part| part >= 0), "{:?}", line);
                prop_assert!(line.paid_credit <= line.total);
            } else {
                prop_assert_eq!(parts, [0; 3]);
                prop_assert!(taxes.chain([line.taxable]).all(|part| part <= 0), "{:?}", line);
            }
            prop_assert_eq!(line.taxes.iter().map(|tax| tax.key.clone()).collect::<Vec<_>>(), input.taxes.clone());
        }
        for coupon in &invoice.coupons {
            let given = draft.coupons.iter().find(|given| given.key == coupon.key).expect("a coupon");
            prop_assert!(0 <= coupon.used && coupon.used <= coupon.base);
            prop_assert!(coupon.shares.iter().all(|share| share.amount > 0 && given.scope.covers(&draft.lines[share.line])));
            match given.discount {
                Discount::Fixed { left } => prop_assert_eq!(coupon.left, Some(left - coupon.used)),
                Discount::Percentage(_) => prop_assert_eq!(coupon.left, None),
            }
            prop_assert!(coupon.left.is_none_or(|left| left >= 0));
        }
        let given = draft.promotional_credits.iter().chain(&draft.paid_credits);
        for (credit, given) in invoice.promotional_credits.iter().chain(&invoice.paid_credits).zip(given) {
            prop_assert_eq!((&credit.key, credit.used + credit.left), (&given.key, given.left));
            prop_assert!(0 <= credit.used && 0 <= credit.left && credit.used <= credit.base);
            prop_assert!(credit.shares.iter().all(|share| share.amount > 0 && given.scope.covers(&draft.lines[share.line])));
        }
    }

    /// Coupons and credits stop at zero; below it, only the lines themselves get.
    #[test]
    fn no_coupon_or_credit_makes_an_invoice_negative((draft, _) in draft()) {
        let invoice = computed(&draft);
        let before_tax = invoice.subtotal - invoice.discount - invoice.promotional_credit;
        prop_assert!(before_tax >= invoice.subtotal.min(0));
        prop_assert!(invoice.total - invoice.paid_credit >= invoice.total.min(0));
        if invoice.subtotal <= 0 {
            prop_assert_eq!((invoice.discount, invoice.promotional_credit), (0, 0));
        }
    }

    /// An unlimited credit is used up, or nothing is left to use it on.
    #[test]
    fn credits_are_used_while_there_is_something((mut draft, _) in draft(), left in 0..50_000_i128) {
        let credit = Credit { key: "all".to_string(), left, scope: Scope::default() };
        draft.paid_credits.push(credit.clone());
        let invoice = computed(&draft);
        prop_assert!(invoice.amount_due == 0 || invoice.paid_credits.last().expect("it").left == 0);
        draft.promotional_credits.push(credit);
        let invoice = computed(&draft);
        let before_tax = invoice.subtotal - invoice.discount - invoice.promotional_credit;
        prop_assert!(before_tax <= 0 || invoice.promotional_credits.last().expect("it").left == 0);
    }

    #[test]
    fn taxes_are_what_the_rates_say((draft, _) in draft()) {
        let invoice = computed(&draft);
        for tax in &invoice.taxes {
            let rate = hundredths(&tax.percent);
            if draft.exempt {
                prop_assert_eq!(tax.amount, 0);
            } else if !tax.inclusive {
                prop_assert_eq!(tax.amount, rounded(tax.base * rate, 10_000));
            }
        }
        // Each line's share is the rate's, to the unit; where lines have both signs, to two.
        let units = if invoice.lines.iter().any(|line| line.amount < 0) { 2 } else { 1 };
        for line in invoice.lines.iter().filter(|_| !draft.exempt) {
            for tax in line.taxes.iter().filter(|tax| !tax.inclusive) {
                let off = tax.amount * 10_000 - line.taxable * hundredths(&tax.percent);
                prop_assert!(off.abs() <= units * 10_000, "{:?} {:?}", line, tax);
            }
        }
    }

    /// One inclusive rate for all: of the gross, the part that the rate is of rate and net together, rounded once.
    #[test]
    fn an_inclusive_tax_leaves_the_gross((mut draft, _) in draft(), percent in 0..5000_i128, exclusive in 0..5000_i128) {
        draft.exempt = false;
        draft.taxes = vec![tax("in", &format!("{percent}e-2"), true), tax("out", &format!("{exclusive}e-2"), false)];
        for line in &mut draft.lines {
            line.taxes = texts(&["in"]);
        }
        let alone = computed(&draft);
        let gross = alone.subtotal - alone.discount - alone.promotional_credit;
        prop_assert_eq!(alone.total, gross);
        prop_assert_eq!(alone.tax, rounded(gross * percent, 10_000 + percent));
        // The other tax is computed on the net.
        for line in &mut draft.lines {
            line.taxes.push("out".to_string());
        }
        let both = computed(&draft);
        prop_assert_eq!((both.taxable, both.taxes[0].amount), (alone.taxable, alone.tax));
        prop_assert_eq!(both.taxes[1].amount, rounded(both.taxable * exclusive, 10_000));
    }

    /// Several inclusive rates take as much as one rate that is their sum.
    #[test]
    fn inclusive_taxes_together_are_one((mut draft, _) in draft(), a in 0..5000_i128, b in 0..5000_i128) {
        draft.taxes = vec![tax("a", &format!("{a}e-2"), true), tax("b", &format!("{b}e-2"), true)];
        for line in &mut draft.lines {
            line.taxes = texts(&["a", "b"]);
        }
        let two = computed(&draft);
        draft.taxes = vec![tax("a", &format!("{}e-2", a + b), true)];
        for line in &mut draft.lines {
            line.taxes = texts(&["a"]);
        }
        let one = computed(&draft);
        prop_assert_eq!((two.tax, two.taxable, two.total), (one.tax, one.taxable, one.total));
    }

    #[test]
    fn how_limited_a_coupon_is_decides_its_turn((draft, _) in draft()) {
        let turn = |coupon: &Coupon| {
            let Scope { lines, prices, meters, plans, kinds } = &coupon.scope;
            let limited = [!lines.is_empty(), !prices.is_empty(), !meters.is_empty(), !plans.is_empty(), !kinds.is_empty(), true];
            (coupon.level == Level::Invoice, limited.iter().position(|limited| *limited))
        };
        let invoice = computed(&draft);
        let find = |key: &str| draft.coupons.iter().position(|coupon| coupon.key == key).expect("a coupon");
        let order: Vec<usize> = invoice.coupons.iter().map(|coupon| find(&coupon.key)).collect();
        let mut expected: Vec<usize> = (0..draft.coupons.len()).collect();
        expected.sort_by_key(|place| (turn(&draft.coupons[*place]), *place));
        prop_assert_eq!(order, expected);
        // So where no two are equally limited, the order in which they come is of no account.
        let mut turns: Vec<_> = draft.coupons.iter().map(turn).collect();
        turns.sort();
        turns.dedup();
        if turns.len() == draft.coupons.len() {
            let backwards = Draft { coupons: draft.coupons.iter().rev().cloned().collect(), ..draft.clone() };
            prop_assert_eq!(computed(&backwards), invoice);
        }
    }

    /// What is spread over all lines of one tax does not depend on the lines' order, nor fixed amounts on theirs.
    #[test]
    fn totals_do_not_depend_on_the_order_of_lines((mut draft, _) in draft()) {
        for coupon in &mut draft.coupons {
            coupon.scope = Scope::default();
            coupon.level = Level::Invoice;
        }
        for credit in draft.promotional_credits.iter_mut().chain(&mut draft.paid_credits) {
            credit.scope = Scope::default();
        }
        let taxes = draft.lines.first().map(|line| line.taxes.clone()).unwrap_or_default();
        for line in &mut draft.lines {
            line.taxes = taxes.clone();
        }
        let totals = |draft: &Draft| {
            let invoice = computed(draft);
            (invoice.subtotal, invoice.discount, invoice.promotional_credit, invoice.tax, invoice.paid_credit, invoice.amount_due)
        };
        let backwards = Draft { lines: draft.lines.iter().rev().cloned().collect(), ..draft.clone() };
        prop_assert_eq!(totals(&draft), totals(&backwards));
        draft.coupons.retain(|coupon| matches!(coupon.discount, Discount::Fixed { .. }));
        let backwards = Draft { coupons: draft.coupons.iter().rev().cloned().collect(), ..draft.clone() };
        prop_assert_eq!(totals(&draft), totals(&backwards));
    }

    /// Whatever the size: an answer, or an error that says it is too large.
    #[test]
    fn too_large_is_an_error((mut draft, _) in draft(), exponents in vec(0..52_u32, 7), left: i128, percent in 0..40_u32) {
        for (line, exponent) in draft.lines.iter_mut().zip(&exponents) {
            line.unrounded = amount(&format!("{}9e{exponent}", if exponent % 3 == 0 { "-" } else { "" }));
        }
        for credit in draft.promotional_credits.iter_mut().chain(&mut draft.paid_credits) {
            credit.left = left & i128::MAX;
        }
        draft.taxes[0].percent = amount(&format!("3e{percent}"));
        match compute(&draft) {
            Ok(invoice) => prop_assert_eq!(invoice.total, invoice.taxable + invoice.tax),
            Err(error) => {
                prop_assert_eq!(error, InvoiceError::TooLarge);
                prop_assert!(exponents.iter().any(|exponent| *exponent > 26) || percent > 6);
            }
        }
    }
}
