//! What became of an invoice after it was finalized: payments, refunds and credit notes, and what is due after them.

use super::InvoiceError;
use super::arithmetic::{add, subtract, sum};

/// The money that came and went for an invoice, each a sum that is not negative, in minor units.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// [`Invoice::total`](super::Invoice::total).
    pub total: i128,
    /// Paid credit used for it, when it was finalized or later.
    pub paid_credit: i128,
    pub payments: i128,
    /// Given back without a credit note: it is due again.
    pub refunds: i128,
    /// Overpayment that was already booked as account credit of the customer, and so isn't here any more.
    pub moved: i128,
    pub notes: NoteTotals,
}

/// How credit notes were settled. Their total is the sum of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoteTotals {
    /// Given back in money.
    pub refund: i128,
    /// Given back as account credit, for other invoices.
    pub credit: i128,
    /// Taken off what is due on the invoice itself.
    pub offset: i128,
}

/// How an invoice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// `total − paid_credit − payments + refunds + moved − notes.offset`. Credit notes that gave back money or credit
    /// leave it as it was: what they took off the invoice, they handed out.
    pub balance: i128,
    /// The balance, if it is positive.
    pub amount_due: i128,
    /// The negative of the balance, if that is positive: an overpayment, or a negative total. It belongs to the customer
    /// and pays other invoices.
    pub account_credit: i128,
    /// The most that can be refunded: what was paid in money and neither given back nor moved.
    pub refundable: i128,
}

impl Account {
    pub fn standing(&self) -> Result<Standing, InvoiceError> {
        let owed = sum([self.total, self.refunds, self.moved])?;
        let settled = sum([self.paid_credit, self.payments, self.notes.offset])?;
        let balance = subtract(owed, settled)?;
        let given_back = sum([self.refunds, self.notes.refund, self.moved])?;
        Ok(Standing {
            balance,
            amount_due: balance.max(0),
            account_credit: subtract(0, balance.min(0))?,
            refundable: subtract(self.payments, given_back)?.max(0),
        })
    }
}

impl Standing {
    /// How a credit note is settled when nobody says otherwise: it is taken off what is due, and the rest is account
    /// credit. Money goes back only when it is asked for.
    pub fn settle(&self, note: i128) -> NoteTotals {
        let offset = note.clamp(0, self.amount_due);
        NoteTotals { refund: 0, credit: note - offset, offset }
    }

    /// Whether a credit note that is worth `note` can be settled so: the parts add up to it, no more is refunded than was
    /// paid, and no more is offset than is due.
    pub fn check(&self, note: i128, settlement: &NoteTotals) -> Result<(), InvoiceError> {
        let NoteTotals { refund, credit, offset } = *settlement;
        if refund < 0 || credit < 0 || offset < 0 || add(add(refund, credit)?, offset)? != note {
            return Err(InvoiceError::Unbalanced { total: note });
        }
        if refund > self.refundable {
            return Err(InvoiceError::ExceedsPaid { refundable: self.refundable });
        }
        if offset > self.amount_due {
            return Err(InvoiceError::ExceedsDue { amount_due: self.amount_due });
        }
        Ok(())
    }
}
