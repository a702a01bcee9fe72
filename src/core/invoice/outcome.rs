//! A computed invoice. All money is in minor units.

use super::Amount;

/// `subtotal − discount − promotional_credit` is `taxable` and the inclusive taxes; `taxable + tax` is `total`; and
/// `total − paid_credit` is `amount_due − account_credit`, one of which is 0. Every total is the sum of the lines', and
/// every discount, credit and tax the sum of its shares in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Invoice {
    /// Decimals of the currency.
    pub digits: u32,
    pub exempt: bool,
    /// As the draft has them.
    pub lines: Vec<InvoiceLine>,
    /// In the order in which they were applied.
    pub coupons: Vec<CouponUse>,
    pub promotional_credits: Vec<CreditUse>,
    pub taxes: Vec<TaxTotal>,
    pub paid_credits: Vec<CreditUse>,
    pub subtotal: i128,
    pub discount: i128,
    pub promotional_credit: i128,
    /// Net of discounts, promotional credit and all taxes.
    pub taxable: i128,
    /// Of all rates, inclusive ones too.
    pub tax: i128,
    /// Negative when adjustments exceed what is charged.
    pub total: i128,
    pub paid_credit: i128,
    /// Never negative.
    pub amount_due: i128,
    /// What a negative total is worth. It is for the customer's next invoices; it isn't paid out.
    pub account_credit: i128,
}

/// `amount − discount − promotional_credit` is `taxable` and the inclusive taxes; `total` is `taxable` and all taxes.
/// On a line that is not negative nothing here is negative; a negative line has neither discount nor credit.
#[derive(Clone, Debug, PartialEq)]
pub struct InvoiceLine {
    pub key: String,
    /// In major units, exact.
    pub unrounded: Amount,
    /// `unrounded`, rounded half away from zero.
    pub amount: i128,
    pub discount: i128,
    pub promotional_credit: i128,
    /// What its taxes are computed on, the inclusive ones taken out.
    pub taxable: i128,
    pub taxes: Vec<LineTax>,
    pub total: i128,
    pub paid_credit: i128,
}

/// A line's share in a tax of the invoice.
#[derive(Clone, Debug, PartialEq)]
pub struct LineTax {
    pub key: String,
    pub percent: Amount,
    pub inclusive: bool,
    pub amount: i128,
}

/// `base` is the taxable amount of the lines that have this tax.
#[derive(Clone, Debug, PartialEq)]
pub struct TaxTotal {
    pub key: String,
    pub percent: Amount,
    pub inclusive: bool,
    pub base: i128,
    pub amount: i128,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CouponUse {
    pub key: String,
    /// What was left of the lines it applies to. `used` is at most that, and at most what was left of the invoice.
    pub base: i128,
    pub used: i128,
    /// Of a fixed amount; `None` of a percentage.
    pub left: Option<i128>,
    pub shares: Vec<Share>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditUse {
    pub key: String,
    /// What was left of the lines it applies to. `used` is at most that, and at most what was left of the invoice.
    pub base: i128,
    pub used: i128,
    pub left: i128,
    pub shares: Vec<Share>,
}

/// What was taken from the line at this place in [`Invoice::lines`]: more than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub line: usize,
    pub amount: i128,
}
