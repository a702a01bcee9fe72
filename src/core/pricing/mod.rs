//! The one kernel for money: previews, balances and invoices all price a quantity here, so that an estimate can't
//! differ from the bill, and the explanation of a price is a record of how it was computed, not a second computation.
//!
//! All arithmetic is exact. A result that can't be held exactly is an error, and nothing is rounded before
//! [`Priced::in_currency`], once a line.

mod amount;
mod explain;
mod flat;
mod model;
mod per_unit;

pub use amount::{Amount, Money};
pub use model::{Model, ModelError, Trouble};

use super::currency::{self, CurrencyError};
use super::decimal::QuantityError;

/// A priced quantity: what it costs, unrounded, and the steps that led there, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Priced {
    pub quantity: Amount,
    pub steps: Vec<Step>,
    pub amount: Amount,
}

/// Something that was charged for. The amounts of all steps add up to the price.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Units at a price each.
    Units { quantity: Amount, unit_amount: Amount, amount: Amount },
    /// A fixed amount, whatever the quantity.
    Fixed { amount: Amount },
    /// Nothing was used, and a model charges for nothing only when it says so.
    NoUsage,
}

/// What `quantity` costs, unrounded.
pub fn price(model: &Model, quantity: &Amount) -> Result<Priced, QuantityError> {
    let step = match model {
        Model::PerUnit(per_unit) => per_unit.price(quantity)?,
        Model::Flat(flat) => flat.price(quantity),
    };
    let amount = step.amount();
    Ok(Priced { quantity: *quantity, steps: vec![step], amount })
}

impl Step {
    fn amount(&self) -> Amount {
        match self {
            Step::Units { amount, .. } | Step::Fixed { amount } => *amount,
            Step::NoUsage => Amount::ZERO,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundError {
    Currency(CurrencyError),
    Range(QuantityError),
}

impl Priced {
    /// The price in money: rounded half away from zero to the digits of the currency.
    pub fn in_currency(&self, code: &str) -> Result<Money, RoundError> {
        let digits = currency::digits(code).map_err(RoundError::Currency)?;
        self.amount.round(digits).map_err(RoundError::Range)
    }
}
