//! Invoices worked out by hand, and what is refused.

use super::*;

fn fixed(key: &str, left: i128, scope: Scope) -> Coupon {
    Coupon { key: key.to_string(), level: Level::Invoice, scope, discount: Discount::Fixed { left } }
}

fn percent(key: &str, percent: &str, level: Level) -> Coupon {
    let discount = Discount::Percentage(amount(percent));
    Coupon { key: key.to_string(), level, scope: Scope::default(), discount }
}

fn credit(key: &str, left: i128) -> Credit {
    Credit { key: key.to_string(), left, scope: Scope::default() }
}

fn draft_of(lines: Vec<Line>) -> Draft {
    Draft { digits: 2, lines, ..Draft::default() }
}

/// The whole way: 120.00 − 20 % − 6.00 promotional = 90.00, 10 % tax on two thirds of it, 50.00 of it paid.
#[test]
fn from_lines_to_the_amount_due() {
    let mut draft = draft_of(vec![line("a", 8000, &["vat"]), line("b", 4000, &[])]);
    draft.coupons = vec![percent("fifth", "20", Level::Invoice)];
    draft.promotional_credits = vec![credit("gift", 600)];
    draft.taxes = vec![tax("vat", "10", false)];
    draft.paid_credits = vec![credit("wallet", 5000)];
    let invoice = computed(&draft);
    let of_line = |line: &InvoiceLine| (line.discount, line.promotional_credit, line.taxable, line.total);
    assert_eq!(
        invoice.lines.iter().map(of_line).collect::<Vec<_>>(),
        [(1600, 400, 6000, 6600), (800, 200, 3000, 3000)]
    );
    assert_eq!((invoice.taxes[0].base, invoice.taxes[0].amount), (6000, 600));
    assert_eq!((invoice.total, invoice.paid_credit, invoice.amount_due), (9600, 5000, 4600));
}

#[test]
fn the_unrounded_amount_stays_beside_the_rounded_one() {
    let mut one = line("a", 0, &[]);
    one.unrounded = amount("0.125");
    let invoice = computed(&draft_of(vec![one]));
    assert_eq!(invoice.lines[0].amount, 13);
    assert_eq!(invoice.lines[0].unrounded, amount("0.125"));
}

/// Three cents over equal lines: no cent is lost, and the first line has the odd one.
#[test]
fn a_discount_is_spread_to_the_cent() {
    let mut draft = draft_of(vec![line("a", 100, &[]), line("b", 100, &[]), line("c", 100, &[])]);
    draft.coupons = vec![fixed("ten", 10, Scope::default())];
    let discounts: Vec<i128> = computed(&draft).lines.iter().map(|line| line.discount).collect();
    assert_eq!(discounts, [4, 3, 3]);
}

/// 10 % of 0.05 is a cent on each line, but of 0.15 together it is two.
#[test]
fn a_line_coupon_rounds_on_every_line_an_invoice_coupon_once() {
    let mut draft = draft_of(vec![line("a", 5, &[]), line("b", 5, &[]), line("c", 5, &[])]);
    for (level, expected) in [(Level::Line, 3), (Level::Invoice, 2)] {
        draft.coupons = vec![percent("tenth", "10", level)];
        assert_eq!(computed(&draft).discount, expected);
    }
    draft.coupons = vec![Coupon { level: Level::Line, ..fixed("seven", 7, Scope::default()) }];
    let discounts: Vec<i128> = computed(&draft).lines.iter().map(|line| line.discount).collect();
    assert_eq!(discounts, [5, 2, 0]);
}

/// A coupon for one plan only goes first, so that the general one finds what is left.
#[test]
fn the_most_limited_coupon_comes_first() {
    let mut pro = line("a", 1000, &[]);
    pro.plans = texts(&["pro"]);
    let mut draft = draft_of(vec![pro, line("b", 1000, &[])]);
    let for_plan = Scope { plans: texts(&["pro"]), ..Scope::default() };
    draft.coupons = vec![fixed("general", 1500, Scope::default()), fixed("pro", 1000, for_plan)];
    let invoice = computed(&draft);
    assert_eq!(invoice.coupons.iter().map(|coupon| coupon.key.as_str()).collect::<Vec<_>>(), ["pro", "general"]);
    assert_eq!(invoice.coupons.iter().map(|coupon| coupon.left).collect::<Vec<_>>(), [Some(0), Some(500)]);
}

/// 100.00 with 20 % inclusive: 16.67 of it are tax; 10 % exclusive come on top of the net 83.33.
#[test]
fn inclusive_and_exclusive_taxes_have_one_base() {
    let mut draft = draft_of(vec![line("a", 10_000, &["in", "out"])]);
    draft.taxes = vec![tax("in", "20", true), tax("out", "10", false)];
    let invoice = computed(&draft);
    assert_eq!(invoice.taxes.iter().map(|tax| (tax.base, tax.amount)).collect::<Vec<_>>(), [(8333, 1667), (8333, 833)]);
    assert_eq!((invoice.taxable, invoice.tax, invoice.total), (8333, 2500, 10_833));
    draft.exempt = true;
    let invoice = computed(&draft);
    assert_eq!((invoice.taxable, invoice.tax, invoice.total), (10_000, 0, 10_000));
}

/// Each of these lines bears 0.4 cents of tax: by line they would bear nothing.
#[test]
fn a_tax_is_rounded_once_for_the_invoice() {
    let lines = ["a", "b", "c", "d", "e"].map(|key| line(key, 2, &["vat"])).to_vec();
    let invoice = computed(&Draft { taxes: vec![tax("vat", "20", false)], ..draft_of(lines) });
    assert_eq!(invoice.tax, 2);
    assert_eq!(invoice.lines.iter().map(|line| line.total).collect::<Vec<_>>(), [3, 3, 2, 2, 2]);
}

/// Seven cents with two inclusive taxes of a seventh each: both taxes' cent must not fall on one line.
#[test]
fn inclusive_taxes_never_exceed_a_line() {
    let lines = ["a", "b", "c", "d", "e", "f", "g"].map(|key| line(key, 1, &["x", "y"])).to_vec();
    let invoice = computed(&Draft { taxes: vec![tax("x", "20", true), tax("y", "20", true)], ..draft_of(lines) });
    assert_eq!(invoice.lines.iter().map(|line| line.taxable).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 1, 1]);
}

/// An adjustment of −80.00 leaves 20.00: a coupon of 50.00 takes these and no more.
#[test]
fn an_adjustment_lowers_what_coupons_can_take() {
    let mut draft = draft_of(vec![line("a", 10_000, &[]), line("b", -8000, &[])]);
    draft.coupons = vec![fixed("fifty", 5000, Scope::default())];
    let invoice = computed(&draft);
    assert_eq!((invoice.discount, invoice.total, invoice.coupons[0].left), (2000, 0, Some(3000)));
    // A percentage is of what its lines come to: here of both, or of the first alone.
    draft.coupons = vec![percent("half", "50", Level::Invoice)];
    assert_eq!(computed(&draft).discount, 1000);
    draft.coupons[0].scope.lines = texts(&["a"]);
    draft.coupons[0].discount = Discount::Percentage(amount("10"));
    assert_eq!(computed(&draft).discount, 1000);
    draft.coupons[0].discount = Discount::Percentage(amount("30"));
    assert_eq!(computed(&draft).discount, 2000, "not more than the invoice has left");
}

#[test]
fn a_negative_invoice_is_account_credit() {
    let mut draft = draft_of(vec![line("a", 1000, &["vat"]), line("b", -3000, &["vat"])]);
    draft.taxes = vec![tax("vat", "20", false)];
    draft.coupons = vec![percent("half", "50", Level::Invoice)];
    draft.promotional_credits = vec![credit("gift", 100)];
    draft.paid_credits = vec![credit("wallet", 100)];
    let invoice = computed(&draft);
    assert_eq!((invoice.subtotal, invoice.tax, invoice.total), (-2000, -400, -2400));
    assert_eq!((invoice.amount_due, invoice.account_credit), (0, 2400));
    assert_eq!((invoice.discount, invoice.promotional_credit, invoice.paid_credit), (0, 0, 0));
}

/// What is taxed at 0 % and taken back at 20 % comes to nothing before tax, and to less than nothing after it.
#[test]
fn taxes_of_both_signs() {
    let mut draft = draft_of(vec![line("a", 1000, &[]), line("b", -1000, &["vat"])]);
    draft.taxes = vec![tax("vat", "20", false)];
    let invoice = computed(&draft);
    assert_eq!((invoice.taxable, invoice.tax, invoice.account_credit), (0, -200, 200));
    // Opposite lines of one tax: each has its own, and together there is none.
    draft.lines[0].taxes = texts(&["vat"]);
    let taxes: Vec<i128> = computed(&draft).lines.iter().map(|line| line.taxes[0].amount).collect();
    assert_eq!(taxes, [200, -200]);
}

#[test]
fn a_credit_applies_to_its_lines_only() {
    let mut usage = line("usage", 1000, &["vat"]);
    usage.kind = LineKind::Usage;
    let mut draft = draft_of(vec![line("fee", 9000, &["vat"]), usage]);
    draft.taxes = vec![tax("vat", "10", false)];
    let for_usage = Scope { kinds: vec![LineKind::Usage], ..Scope::default() };
    draft.paid_credits = vec![Credit { scope: for_usage.clone(), ..credit("wallet", 5000) }];
    // A paid credit pays the tax too.
    assert_eq!(computed(&draft).lines.iter().map(|line| line.paid_credit).collect::<Vec<_>>(), [0, 1100]);
    draft.promotional_credits = vec![Credit { scope: for_usage, ..credit("gift", 5000) }];
    let invoice = computed(&draft);
    assert_eq!((invoice.promotional_credit, invoice.tax, invoice.paid_credit), (1000, 900, 0));
}

#[test]
fn a_scope_covers_what_is_in_all_its_lists() {
    let of_line = Line {
        kind: LineKind::Usage,
        plans: texts(&["pro", "extra"]),
        meter: Some("calls".to_string()),
        price: Some("by call".to_string()),
        ..line("a", 1, &[])
    };
    let all = Scope {
        lines: texts(&["b", "a"]),
        prices: texts(&["by call"]),
        meters: texts(&["calls", "bytes"]),
        plans: texts(&["extra"]),
        kinds: vec![LineKind::Usage],
    };
    assert!(all.covers(&of_line) && Scope::default().covers(&of_line));
    for other in [
        Scope { lines: texts(&["by call"]), ..all.clone() },
        Scope { prices: texts(&["calls"]), ..all.clone() },
        Scope { meters: texts(&["by call"]), ..all.clone() },
        Scope { plans: texts(&["basic"]), ..all.clone() },
        Scope { kinds: vec![LineKind::Fee, LineKind::OneOff], ..all.clone() },
    ] {
        assert!(!other.covers(&of_line), "{other:?}");
    }
    let bare = line("a", 1, &[]);
    for limited in [
        Scope { prices: texts(&["by call"]), ..Scope::default() },
        Scope { meters: texts(&["calls"]), ..Scope::default() },
        Scope { plans: texts(&["pro"]), ..Scope::default() },
    ] {
        assert!(!limited.covers(&bare), "{limited:?}");
    }
}

/// In yen, which have no decimals: each stage takes from what those before it left, and says from how much.
#[test]
fn every_stage_says_what_it_took_of_what() {
    let mut only = line("fee", 0, &["vat"]);
    only.unrounded = amount("1000.4");
    let invoice = computed(&Draft {
        digits: 0,
        lines: vec![only],
        coupons: vec![fixed("hundred", 150, Scope::default()), percent("tenth", "10", Level::Line)],
        promotional_credits: vec![credit("gift", 65)],
        taxes: vec![tax("vat", "8.25", false)],
        exempt: false,
        paid_credits: vec![credit("wallet", 700), credit("note", 800)],
    });
    let coupons = invoice.coupons.iter().map(|coupon| (&coupon.key[..], coupon.base, coupon.used, coupon.left));
    assert_eq!(coupons.collect::<Vec<_>>(), [("tenth", 1000, 100, None), ("hundred", 900, 150, Some(0))]);
    let credits = invoice.promotional_credits.iter().chain(&invoice.paid_credits);
    let credits = credits.map(|credit| (&credit.key[..], credit.base, credit.used, credit.left));
    assert_eq!(credits.collect::<Vec<_>>(), [("gift", 750, 65, 0), ("wallet", 742, 700, 0), ("note", 42, 42, 758)]);
    assert_eq!((invoice.taxes[0].base, invoice.taxes[0].amount), (685, 57));
    assert_eq!((invoice.subtotal, invoice.discount, invoice.promotional_credit), (1000, 250, 65));
    assert_eq!((invoice.taxable, invoice.tax, invoice.total), (685, 57, 742));
    assert_eq!((invoice.paid_credit, invoice.amount_due, invoice.account_credit), (742, 0, 0));
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let good = Draft { taxes: vec![tax("vat", "20", false)], ..draft_of(vec![line("a", 100, &["vat"])]) };
    let refused = |change: fn(&mut Draft)| {
        let mut draft = good.clone();
        change(&mut draft);
        compute(&draft).expect_err("refused")
    };
    let named = |error: fn(String) -> InvoiceError, key: &str| error(key.to_string());
    assert_eq!(
        refused(|draft| draft.coupons = vec![fixed("c", -1, Scope::default())]),
        named(InvoiceError::NegativeCoupon, "c")
    );
    assert_eq!(
        refused(|draft| draft.coupons = vec![percent("c", "-0.1", Level::Line)]),
        named(InvoiceError::NegativeCoupon, "c")
    );
    assert_eq!(refused(|draft| draft.paid_credits = vec![credit("w", -1)]), named(InvoiceError::NegativeCredit, "w"));
    assert_eq!(
        refused(|draft| draft.promotional_credits = vec![credit("w", -1)]),
        named(InvoiceError::NegativeCredit, "w")
    );
    assert_eq!(refused(|draft| draft.taxes = vec![tax("vat", "-1", true)]), named(InvoiceError::NegativeTax, "vat"));
    assert_eq!(refused(|draft| draft.taxes.push(tax("vat", "1", false))), named(InvoiceError::RepeatedTax, "vat"));
    assert_eq!(refused(|draft| draft.lines[0].taxes.push("vat".to_string())), named(InvoiceError::RepeatedTax, "vat"));
    assert_eq!(refused(|draft| draft.lines[0].taxes.push("gst".to_string())), named(InvoiceError::UnknownTax, "gst"));
    assert_eq!(refused(|draft| draft.lines[0].unrounded = amount("1e30")), InvoiceError::TooLarge);
}
