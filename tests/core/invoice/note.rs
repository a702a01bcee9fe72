//! Credit notes: what is given back is what was charged.

use super::*;

fn items<'a>(invoice: &'a Invoice, before: &[i128], amounts: &[i128]) -> Vec<Item<'a>> {
    let each = invoice.lines.iter().zip(before).zip(amounts);
    each.map(|((line, before), amount)| Item { line, before: *before, amount: *amount }).collect()
}

/// What a part of this share of a line's amount is, in whole units towards zero.
fn part(amount: i128, permille: i128) -> i128 {
    amount * permille / 1000
}

/// Notes that each credit some share of every line, and a last one for what is left.
fn notes(invoice: &Invoice, cuts: &[Vec<i128>]) -> Vec<CreditNote> {
    let mut before = vec![0; invoice.lines.len()];
    let mut notes = Vec::new();
    let all = vec![1000; invoice.lines.len()];
    for permilles in cuts.iter().chain([&all]) {
        let left = invoice.lines.iter().zip(&before).map(|(line, before)| line.amount - before);
        let amounts: Vec<i128> = left.zip(permilles).map(|(left, permille)| part(left, *permille)).collect();
        // Where negative lines are still to be credited, a note can be worth more than the invoice, and waits.
        if let Ok(note) = credit_note(&items(invoice, &before, &amounts)) {
            notes.push(note);
            before.iter_mut().zip(&amounts).for_each(|(before, amount)| *before += amount);
        }
    }
    notes
}

fn of_tax(taxes: &[LineTax], key: &str) -> i128 {
    taxes.iter().filter(|tax| tax.key == key).map(|tax| tax.amount).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn notes_add_up_to_the_invoice((draft, _) in draft(), cuts in vec(vec(0..=1000_i128, 7), 0..4)) {
        let invoice = computed(&draft);
        let notes = notes(&invoice, &cuts);
        if invoice.total < 0 {
            prop_assert!(!notes.iter().any(|note| note.total > 0));
            return Ok(());
        }
        let all = |part: fn(&CreditNote) -> i128| notes.iter().map(part).sum::<i128>();
        prop_assert_eq!(all(|note| note.amount), invoice.subtotal);
        prop_assert_eq!(all(|note| note.discount), invoice.discount);
        prop_assert_eq!(all(|note| note.promotional_credit), invoice.promotional_credit);
        prop_assert_eq!(all(|note| note.taxable), invoice.taxable);
        prop_assert_eq!(all(|note| note.tax), invoice.tax);
        prop_assert_eq!(all(|note| note.total), invoice.total);
        for line in &invoice.lines {
            let credited: Vec<&NoteLine> = notes.iter().flat_map(|note| &note.lines).filter(|one| one.key == line.key).collect();
            prop_assert_eq!(credited.iter().map(|one| one.amount).sum::<i128>(), line.amount);
            prop_assert_eq!(credited.iter().map(|one| one.discount).sum::<i128>(), line.discount);
            prop_assert_eq!(credited.iter().map(|one| one.total).sum::<i128>(), line.total);
            for tax in &line.taxes {
                prop_assert_eq!(credited.iter().map(|one| of_tax(&one.taxes, &tax.key)).sum::<i128>(), tax.amount);
            }
        }
    }

    /// Every note's lines add up, and no part of them takes back what the customer has.
    #[test]
    fn a_note_adds_up((draft, _) in draft(), cuts in vec(vec(0..=1000_i128, 7), 0..4)) {
        for note in notes(&computed(&draft), &cuts) {
            prop_assert!(note.total >= 0);
            prop_assert_eq!(note.total, note.lines.iter().map(|line| line.total).sum::<i128>());
            prop_assert_eq!(note.total, note.taxable + note.tax);
            for line in &note.lines {
                let of = |inclusive| line.taxes.iter().filter(|tax| tax.inclusive == inclusive).map(|tax| tax.amount).sum::<i128>();
                prop_assert_eq!(line.amount - line.discount - line.promotional_credit, line.taxable + of(true));
                prop_assert_eq!(line.total, line.taxable + of(true) + of(false));
                let parts = [line.discount, line.promotional_credit, line.taxable, line.total];
                prop_assert!(parts.into_iter().chain(line.taxes.iter().map(|tax| tax.amount)).all(|part| part * line.amount.signum() >= 0), "{:?}", line);
            }
        }
    }

    /// Each part of a note is its share of the line, rounded: the discount to the nearest, the others within a unit and a
    /// half for each piece that was cut off before.
    #[test]
    fn a_note_is_the_share_of_the_line((draft, _) in draft(), permille in 0..=1000_i128) {
        for line in computed(&draft).lines.iter().filter(|line| line.amount != 0) {
            let item = Item { line, before: 0, amount: part(line.amount, permille) };
            let note = credit_note(&[item]);
            if line.total < 0 && item.amount != 0 {
                prop_assert!(note.is_err() || note.expect("nothing").total == 0);
                continue;
            }
            let note = note.expect("a note");
            prop_assert_eq!(note.discount, rounded(line.discount * item.amount * line.amount.signum(), line.amount.abs()));
            let off = note.total * line.amount - line.total * item.amount;
            prop_assert!(off.abs() <= 6 * line.amount.abs(), "{:?} {:?}", line, note);
        }
    }

    #[test]
    fn two_notes_come_to_one((draft, _) in draft(), first in 0..=1000_i128, second in 0..=1000_i128) {
        let invoice = computed(&draft);
        for line in invoice.lines.iter().filter(|line| line.amount > 0) {
            let one = part(line.amount, first);
            let two = part(line.amount - one, second);
            let note = |before, amount| credit_note(&[Item { line, before, amount }]).expect("a note");
            let (a, b, both) = (note(0, one), note(one, two), note(0, one + two));
            prop_assert_eq!((a.discount + b.discount, a.tax + b.tax, a.total + b.total), (both.discount, both.tax, both.total));
        }
    }

    #[test]
    fn no_more_is_credited_than_is_left((draft, _) in draft(), before in 0..=1000_i128, more in 1..1000_i128) {
        for line in &computed(&draft).lines {
            let before = part(line.amount, before);
            let left = line.amount - before;
            let amount = left + if line.amount < 0 { -more } else { more };
            let refused = InvoiceError::ExceedsLine { line: line.key.clone(), creditable: left };
            prop_assert_eq!(credit_note(&[Item { line, before, amount }]), Err(refused.clone()));
            // Nor with the other sign, which would be a charge.
            let against = if line.amount < 0 { more } else { -more };
            prop_assert_eq!(credit_note(&[Item { line, before, amount: against }]), Err(refused));
        }
    }
}

/// Of 100.00 and −80.00 together 20.00 were invoiced: the first line alone can't be credited.
#[test]
fn a_note_is_never_more_than_the_invoice() {
    let draft = Draft { digits: 2, lines: vec![line("a", 10_000, &[]), line("b", -8000, &[])], ..Draft::default() };
    let invoice = computed(&draft);
    let note = |before: &[i128], amounts: &[i128]| credit_note(&items(&invoice, before, amounts));
    assert_eq!(note(&[0, 0], &[10_000, 0]), Err(InvoiceError::ExceedsInvoice { creditable: 2000 }));
    assert_eq!(note(&[0, 0], &[10_000, -8000]).expect("all").total, 2000);
    assert_eq!(note(&[0, 0], &[0, -1]), Err(InvoiceError::RaisesInvoice { by: 1 }));
    assert_eq!(note(&[0, 0], &[1500, 0]).expect("a part").total, 1500);
    assert_eq!(note(&[1500, 0], &[501, 0]), Err(InvoiceError::ExceedsInvoice { creditable: 500 }));
    assert_eq!(note(&[1500, 0], &[500, 0]).expect("the rest").total, 500);
}

/// 9.00 of which 1.00 was discount, with 10 % tax on 8.00: a third is 3.00, 0.33 off, 0.27 tax.
#[test]
fn a_third_of_a_line() {
    let mut draft = Draft { digits: 2, lines: vec![line("a", 900, &["vat"])], ..Draft::default() };
    draft.taxes = vec![tax("vat", "10", false)];
    let discount = Discount::Fixed { left: 100 };
    draft.coupons = vec![Coupon { key: "c".to_string(), level: Level::Invoice, scope: Scope::default(), discount }];
    let invoice = computed(&draft);
    let thirds: Vec<CreditNote> =
        [0, 300, 600].map(|before| credit_note(&items(&invoice, &[before], &[300])).expect("a third")).to_vec();
    let parts: Vec<_> = thirds.iter().map(|note| (note.discount, note.tax, note.total)).collect();
    assert_eq!(parts, [(33, 27, 294), (34, 26, 292), (33, 27, 294)]);
}
