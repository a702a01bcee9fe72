//! The arithmetic of an invoice: from lines that cost something to what is due, in the one order of the design.
//!
//! ```text
//! lines ─ line coupons ─ invoice coupons ─ promotional credit ─ tax ─ paid credit ─ amount due
//! lines.rs └──── coupons.rs ────┘      credits.rs        taxes.rs   credits.rs
//! ```
//! [`compute`] does it all. [`credit_note`] takes an invoice back, in part or as a whole. An [`Account`] is the
//! money that came and went after it was finalized.
//!
//! **Units.** Money is an `i128` of minor units of the invoice's currency (cents; yen), except a line's unrounded amount,
//! which is an exact [`Amount`] of major units. Percentages are [`Amount`]s: 7.5 is 7.5 %. What does not fit is
//! [`InvoiceError::TooLarge`], never a wrong number.
//!
//! **Rounding.** A line is rounded once, half away from zero. From there on all money is whole minor units, every total
//! is the exact sum of its parts, and what is taken from several lines at once is spread over them by largest remainder
//! ([`split`](super::split)), in proportion to what earlier stages left of each.
//!
//! **Negative lines** (adjustments of earlier invoices) take part in the tax, and lower what coupons and credits are
//! allowed to take: none takes more than what is left of the lines it applies to, negative ones subtracted, or of the
//! whole invoice. So no coupon or credit can turn an invoice negative. An invoice that its own lines make negative is not
//! paid out: nothing is due, and it says what it is worth as [`Invoice::account_credit`].

pub mod account;
mod arithmetic;
mod coupons;
mod credits;
mod draft;
mod lines;
pub mod note;
mod outcome;
mod pool;
mod taxes;

use std::fmt;

pub use account::{Account, NoteTotals};
pub use draft::{Coupon, Credit, Discount, Draft, Level, Line, LineKind, Scope, Tax};
pub use note::{Item, NoteLine, credit_note};
pub use outcome::{CouponUse, CreditUse, Invoice, InvoiceLine, LineTax, Share, TaxTotal};

use super::pricing::Amount;
use arithmetic::{subtract, sum};
use pool::Pool;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvoiceError {
    /// A result has more digits than can be held.
    TooLarge,
    /// The coupon of this key has a negative percentage or amount.
    NegativeCoupon(String),
    /// The credit of this key is negative.
    NegativeCredit(String),
    /// The tax of this key has a negative percentage.
    NegativeTax(String),
    /// Two taxes of the invoice have this key, or a line names it twice.
    RepeatedTax(String),
    /// A line names a tax that the invoice doesn't have.
    UnknownTax(String),
    /// A note credits more of this line than is left of it, or with the other sign. `creditable` is what is left.
    ExceedsLine { line: String, creditable: i128 },
    /// A note is worth more than is left of its invoice, which is `creditable`.
    ExceedsInvoice { creditable: i128 },
    /// A credit note must lower what was invoiced; this one would raise it by so much.
    RaisesInvoice { by: i128 },
    /// The parts of a note's settlement are negative, or don't add up to its total.
    Unbalanced { total: i128 },
    /// More would be refunded than was paid and not refunded yet.
    ExceedsPaid { refundable: i128 },
    /// More would be offset than is due.
    ExceedsDue { amount_due: i128 },
}

impl fmt::Display for InvoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvoiceError::TooLarge => f.write_str("an amount of the invoice is too large"),
            InvoiceError::NegativeCoupon(key) => write!(f, "coupon {key:?} is negative"),
            InvoiceError::NegativeCredit(key) => write!(f, "credit {key:?} is negative"),
            InvoiceError::NegativeTax(key) => write!(f, "tax {key:?} is negative"),
            InvoiceError::RepeatedTax(key) => write!(f, "tax {key:?} is there twice"),
            InvoiceError::UnknownTax(key) => write!(f, "a line names the tax {key:?}, which the invoice doesn't have"),
            InvoiceError::ExceedsLine { line, creditable } => {
                write!(f, "line {line:?} has only {creditable} minor units left to credit")
            }
            InvoiceError::ExceedsInvoice { creditable } => {
                write!(f, "the invoice has only {creditable} minor units left to credit")
            }
            InvoiceError::RaisesInvoice { by } => {
                write!(f, "the credit note would raise the invoice by {by} minor units")
            }
            InvoiceError::Unbalanced { total } => {
                write!(f, "refund, credit and offset must add up to the credit note's {total} minor units")
            }
            InvoiceError::ExceedsPaid { refundable } => write!(f, "only {refundable} minor units can be refunded"),
            InvoiceError::ExceedsDue { amount_due } => write!(f, "only {amount_due} minor units are due"),
        }
    }
}

impl std::error::Error for InvoiceError {}

/// Works out an invoice. The result is a function of the draft alone, so computing it again gives the same invoice.
pub fn compute(draft: &Draft) -> Result<Invoice, InvoiceError> {
    let mut lines = lines::round(draft)?;

    let mut pool = Pool::new(&draft.lines, lines.iter().map(|line| line.amount).collect());
    let coupons = coupons::apply(&draft.coupons, &mut pool)?;
    for share in coupons.iter().flat_map(|coupon| &coupon.shares) {
        lines[share.line].discount += share.amount; // at most the line's amount
    }
    let promotional_credits = credits::apply(&draft.promotional_credits, &mut pool)?;
    for share in promotional_credits.iter().flat_map(|credit| &credit.shares) {
        lines[share.line].promotional_credit += share.amount; // at most the line's amount
    }

    let taxes = taxes::apply(draft, &pool.open, &mut lines)?;

    let mut pool = Pool::new(&draft.lines, lines.iter().map(|line| line.total).collect());
    let paid_credits = credits::apply(&draft.paid_credits, &mut pool)?;
    for share in paid_credits.iter().flat_map(|credit| &credit.shares) {
        lines[share.line].paid_credit += share.amount; // at most the line's total
    }

    let total = sum(lines.iter().map(|line| line.total))?;
    let paid_credit = sum(paid_credits.iter().map(|credit| credit.used))?;
    let left = subtract(total, paid_credit)?;
    Ok(Invoice {
        digits: draft.digits,
        exempt: draft.exempt,
        subtotal: sum(lines.iter().map(|line| line.amount))?,
        discount: sum(coupons.iter().map(|coupon| coupon.used))?,
        promotional_credit: sum(promotional_credits.iter().map(|credit| credit.used))?,
        taxable: sum(lines.iter().map(|line| line.taxable))?,
        tax: sum(taxes.iter().map(|tax| tax.amount))?,
        total,
        paid_credit,
        amount_due: left.max(0),
        account_credit: subtract(0, left.min(0))?,
        lines,
        coupons,
        promotional_credits,
        taxes,
        paid_credits,
    })
}
