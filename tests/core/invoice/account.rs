//! What is due after payments, refunds and credit notes.

use super::*;

/// Something that happens to an invoice, as large as asked or as is possible.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Payment(i128),
    PaidCredit(i128),
    Refund(i128),
    Note(i128, bool),
    Move,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..2000_i128).prop_map(Happening::Payment),
        (0..2000_i128).prop_map(Happening::PaidCredit),
        (0..2000_i128).prop_map(Happening::Refund),
        (0..1000_i128, any::<bool>()).prop_map(|(size, in_money)| Happening::Note(size, in_money)),
        Just(Happening::Move),
    ]
}

fn standing(account: &Account) -> Standing {
    account.standing().expect("small numbers")
}

proptest! {
    /// What the customer gave, owes and has back is always what was charged and not credited.
    #[test]
    fn no_money_is_lost(total in -2000..5000_i128, story in vec(happening(), 0..12)) {
        let mut account = Account { total, ..Account::default() };
        let (mut given, mut back, mut credited) = (0, 0, 0);
        for happening in story {
            let before = standing(&account);
            match happening {
                Happening::Payment(amount) => {
                    account.payments += amount;
                    given += amount;
                }
                Happening::PaidCredit(amount) => {
                    let amount = amount.min(before.amount_due);
                    account.paid_credit += amount;
                    given += amount;
                }
                Happening::Refund(amount) => {
                    let amount = amount.min(before.refundable);
                    account.refunds += amount;
                    back += amount;
                }
                Happening::Note(amount, in_money) => {
                    let note = amount.min(total - credited).max(0);
                    let mut settlement = before.settle(note);
                    if in_money {
                        settlement.refund = settlement.credit.min(before.refundable);
                        settlement.credit -= settlement.refund;
                    }
                    prop_assert_eq!(before.check(note, &settlement), Ok(()));
                    account.notes.refund += settlement.refund;
                    account.notes.credit += settlement.credit;
                    account.notes.offset += settlement.offset;
                    credited += note;
                    back += settlement.refund + settlement.credit;
                }
                Happening::Move => {
                    account.moved += before.account_credit;
                    back += before.account_credit;
                }
            }
            let after = standing(&account);
            prop_assert!(after.amount_due >= 0 && after.account_credit >= 0 && after.refundable >= 0);
            prop_assert_eq!(after.amount_due - after.account_credit, after.balance);
            prop_assert_eq!(given - back + after.balance, total - credited);
        }
    }

    #[test]
    fn a_settlement_is_checked(due in 0..1000_i128, paid in 0..1000_i128, refund in -10..1000_i128, credit in -10..1000_i128, offset in -10..1000_i128, off in -1..=1_i128) {
        let standing = standing(&Account { total: due + paid, payments: paid, ..Account::default() });
        prop_assert_eq!((standing.amount_due, standing.refundable), (due, paid));
        let settlement = NoteTotals { refund, credit, offset };
        let fine = off == 0 && refund.min(credit).min(offset) >= 0 && refund <= paid && offset <= due;
        prop_assert_eq!(standing.check(refund + credit + offset + off, &settlement).is_ok(), fine);
    }
}

#[test]
fn the_three_ways_of_a_credit_note() {
    let unpaid = standing(&Account { total: 1000, ..Account::default() });
    assert_eq!(unpaid.settle(400), NoteTotals { refund: 0, credit: 0, offset: 400 });
    let paid = Account { total: 1000, payments: 700, ..Account::default() };
    assert_eq!(standing(&paid).settle(400), NoteTotals { refund: 0, credit: 100, offset: 300 });
    let refund = NoteTotals { refund: 701, credit: 0, offset: 0 };
    assert_eq!(standing(&paid).check(701, &refund), Err(InvoiceError::ExceedsPaid { refundable: 700 }));
    let offset = NoteTotals { refund: 0, credit: 0, offset: 301 };
    assert_eq!(standing(&paid).check(301, &offset), Err(InvoiceError::ExceedsDue { amount_due: 300 }));
    assert_eq!(standing(&paid).check(300, &offset), Err(InvoiceError::Unbalanced { total: 300 }));
    // A note that is refunded leaves the balance; a refund without one is due again.
    let with_note = Account { notes: NoteTotals { refund: 200, ..NoteTotals::default() }, ..paid };
    assert_eq!((standing(&with_note).balance, standing(&with_note).refundable), (300, 500));
    assert_eq!(standing(&Account { refunds: 200, ..paid }).balance, 500);
}

#[test]
fn an_overpayment_is_account_credit_until_it_is_moved() {
    let overpaid = Account { total: 1000, payments: 1200, ..Account::default() };
    assert_eq!((standing(&overpaid).amount_due, standing(&overpaid).account_credit), (0, 200));
    let moved = Account { moved: 200, ..overpaid };
    assert_eq!((standing(&moved).balance, standing(&moved).refundable), (0, 1000));
}
