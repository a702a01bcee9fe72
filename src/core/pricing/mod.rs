//! The one kernel for money: previews, balances and invoices all price usage here, so that an estimate can't differ
//! from the bill, and the explanation of a price is a record of how it was computed, not a second computation.
//!
//! [`Model::parse`] reads a definition, [`Model::needs`] says what must be known of the usage, [`price_with`] prices a
//! [`Usage`] on the [`Terms`] of its period, and [`price_rest`] what is left of it after earlier lines. All arithmetic is
//! exact. A result that can't be held exactly is an error, and nothing is rounded before [`Priced::in_currency`], once
//! a line, except where a model says so: packages, a unit_conversion with a rounding. What a part of a period costs is
//! not said here: that is a part of what its whole costs ([`proration`](super::proration)).
//!
//! A negative quantity, as voids leave it, is a credit where a unit has one price: per_unit, dynamic and percentage give
//! it back. flat, package and tiers treat it as no usage: there is no tier or package below zero to give back.

mod amount;
mod bucketed;
mod commitment;
mod explain;
mod flat;
mod matrix;
mod model;
mod percentage;
mod read;
mod read_usage;
mod step;
mod tiers;
mod unit_price;
mod units;
mod usage;
mod write_usage;

pub use amount::{Amount, Money, Rounding, quotient};
pub use explain::explain;
pub use model::{EXAMPLES, Model, price_with};
pub use read::ModelError;
pub use read_usage::PeriodUsage;
pub use step::{PartOf, Recorder, Silent, Step};
pub use unit_price::UnitPrice;
pub use usage::{Group, GroupNeeds, Needs, Terms, Usage};

use std::fmt;

use super::currency::{self, CurrencyError};
use super::decimal::QuantityError;

/// What usage costs, unrounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priced {
    /// Before the commitment: what later periods of it take as [`Terms::prior_cost`].
    pub cost: Amount,
    /// What is due.
    pub amount: Amount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceError {
    /// A result that can't be held exactly.
    Range(QuantityError),
    /// The price needs to know more of the usage.
    Missing(Missing),
}

/// A part of [`Usage`] that a price needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Events,
    Values,
    Groups,
    Buckets,
}

impl From<QuantityError> for PriceError {
    fn from(error: QuantityError) -> PriceError {
        PriceError::Range(error)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Events => "the number of events",
            Missing::Values => "the values of the events, in order",
            Missing::Groups => "the usage by group",
            Missing::Buckets => "the usage by time bucket",
        })
    }
}

/// What `usage` of a whole period that is over costs.
#[inline]
pub fn price(model: &Model, usage: &Usage) -> Result<Priced, PriceError> {
    price_with(model, usage, &Terms::default(), &mut Silent)
}

/// What earlier lines of a period charged.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// Their amounts, unrounded.
    Billed(Amount),
    /// For the usage until then, while the period was not over.
    Usage(&'a Usage),
}

/// What is still to be charged of a period: the price of all `usage` in it to date, less what was charged before. It is
/// negative where usage was taken back. So late events and lines of a period that is billed in parts add up to what
/// the period costs as a whole: tiers go on where they stood, a flat amount or a package begun is not charged twice, a
/// maximum counts for all lines together, and minimum, true-up and volume prices come with the line that closes it.
pub fn price_rest(
    model: &Model,
    usage: &Usage,
    terms: &Terms,
    before: Before<'_>,
    recorder: &mut impl Recorder,
) -> Result<Priced, PriceError> {
    let whole = price_with(model, usage, terms, recorder)?;
    let billed = match before {
        Before::Billed(amount) => amount,
        Before::Usage(usage) => {
            let terms = Terms { closing: false, ..terms.clone() };
            price_with(model, usage, &terms, &mut Silent)?.amount
        }
    };
    recorder.record(|| Step::Billed { amount: -billed });
    Ok(Priced { cost: whole.cost, amount: whole.amount.checked_sub(&billed)? })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundError {
    Currency(CurrencyError),
    Range(QuantityError),
}

impl Priced {
    /// The amount in money: rounded half away from zero to the digits of the currency.
    pub fn in_currency(&self, code: &str) -> Result<Money, RoundError> {
        let digits = currency::digits(code).map_err(RoundError::Currency)?;
        self.amount.round(digits).map_err(RoundError::Range)
    }
}
