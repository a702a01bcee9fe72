//! The record of how an amount was computed. Pricing tells each step to a [`Recorder`] as it goes; one that keeps them
//! explains the price, and [`Silent`], for when only the amount is wanted, costs nothing.

use super::percentage::Transactions;
use super::unit_price::UnitPrice;
use super::{Amount, PriceError};

/// Something that was computed. The amounts of all steps add up to the price: a step that takes off is negative.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Units of the meter became units of the price.
    Converted {
        from: Amount,
        to: Amount,
    },
    /// Units that cost nothing: `field` of the model gave `quantity` away, and `left` remain.
    Free {
        field: &'static str,
        quantity: Amount,
        left: Amount,
    },
    /// Units at one price. `packages` is how many were charged for, where they come in packages.
    Units {
        quantity: Amount,
        price: UnitPrice,
        packages: Option<Amount>,
        amount: Amount,
    },
    /// The units in tier `tier` (from 1), which holds those above `from` and up to `up_to`.
    Tier {
        tier: usize,
        from: Amount,
        up_to: Option<Amount>,
        quantity: Amount,
        price: UnitPrice,
        packages: Option<Amount>,
        flat_amount: Amount,
        amount: Amount,
    },
    /// A percentage of the values of events, and fees for them.
    Transactions(Transactions),
    /// A fixed amount, whatever the quantity.
    Fixed {
        amount: Amount,
    },
    /// Nothing was used (or less than nothing), and a model charges for that only when it says so.
    NoUsage {
        quantity: Amount,
    },
    /// Not due before the period is over.
    Deferred {
        quantity: Amount,
    },
    /// A part of the usage, priced by itself.
    Part {
        of: PartOf,
        steps: Vec<Step>,
        amount: Amount,
    },
    /// Of the parts only the dearest counts: takes the others off.
    DearestOnly {
        amount: Amount,
    },
    Discount {
        percentage: Amount,
        amount: Amount,
    },
    Maximum {
        maximum: Amount,
        amount: Amount,
    },
    Minimum {
        minimum: Amount,
        amount: Amount,
    },
    Commitment {
        commitment: Amount,
        prior_cost: Amount,
        /// Of the cost, what the commitment covers, and what goes beyond.
        within: Amount,
        overage: Amount,
        overage_factor: Amount,
        true_up: Amount,
        /// What the commitment adds to the cost: overage · (factor − 1) + true-up.
        amount: Amount,
    },
    /// What earlier lines charged already.
    Billed {
        amount: Amount,
    },
}

/// What a part of the usage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartOf {
    /// The groups of cell `cell` of a matrix (from 1), or the one group with these values.
    Cell { cell: Option<usize>, group: Option<Vec<(String, Option<String>)>> },
    /// Time bucket `bucket` (from 1).
    Bucket { bucket: usize },
}

impl Step {
    /// What it adds to the price.
    pub fn amount(&self) -> Amount {
        match self {
            Step::Converted { .. } | Step::Free { .. } | Step::NoUsage { .. } | Step::Deferred { .. } => Amount::ZERO,
            Step::Transactions(transactions) => transactions.amount,
            Step::Units { amount, .. }
            | Step::Tier { amount, .. }
            | Step::Fixed { amount }
            | Step::Part { amount, .. }
            | Step::DearestOnly { amount }
            | Step::Discount { amount, .. }
            | Step::Maximum { amount, .. }
            | Step::Minimum { amount, .. }
            | Step::Commitment { amount, .. }
            | Step::Billed { amount } => *amount,
        }
    }
}

pub trait Recorder: Sized {
    fn record(&mut self, step: impl FnOnce() -> Step);

    /// Prices a part of the usage, whose steps belong together.
    fn part(
        &mut self,
        of: impl FnOnce() -> PartOf,
        price: impl FnOnce(&mut Self) -> Result<Amount, PriceError>,
    ) -> Result<Amount, PriceError>;
}

/// Keeps nothing.
pub struct Silent;

impl Recorder for Silent {
    fn record(&mut self, _: impl FnOnce() -> Step) {}

    fn part(
        &mut self,
        _: impl FnOnce() -> PartOf,
        price: impl FnOnce(&mut Silent) -> Result<Amount, PriceError>,
    ) -> Result<Amount, PriceError> {
        price(self)
    }
}

impl Recorder for Vec<Step> {
    fn record(&mut self, step: impl FnOnce() -> Step) {
        self.push(step());
    }

    fn part(
        &mut self,
        of: impl FnOnce() -> PartOf,
        price: impl FnOnce(&mut Vec<Step>) -> Result<Amount, PriceError>,
    ) -> Result<Amount, PriceError> {
        let mut steps = Vec::new();
        let amount = price(&mut steps)?;
        self.push(Step::Part { of: of(), steps, amount });
        Ok(amount)
    }
}
