//! `commitment`: an amount that is promised a period, or over several.
//!
//! Of the cost, what is left of the commitment after earlier periods' costs covers a part; the rest, the overage, costs
//! `overage_factor` (1 unless given) times as much. With `true_up` the last period pays what is still left. In one
//! period, for a cost U and a commitment C: C + (U − C) · factor when U ≥ C, else C with true_up and U without.
//!
//! A commitment to a `quantity` is one to what that quantity costs by the same price.

use super::read::Fields;
use super::{Amount, ModelError, PriceError, Recorder, Step, Terms};

#[derive(Clone, Debug, PartialEq)]
pub struct Commitment {
    pub(super) to: To,
    overage_factor: Amount,
    true_up: bool,
    periods: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum To {
    Amount(Amount),
    Quantity(Amount),
}

impl Commitment {
    /// `by_quantity`: whether the price is one of a quantity alone, so that a committed quantity has one.
    pub(super) fn read(
        fields: &mut Fields<'_>,
        by_quantity: bool,
        nested: bool,
    ) -> Result<Option<Commitment>, ModelError> {
        let Some(mut commitment) = fields.optional_object("commitment")? else { return Ok(None) };
        let amount = commitment.optional_amount("amount")?;
        let quantity = commitment.optional_amount("quantity")?;
        let to = match (amount, quantity) {
            (Some(amount), None) => To::Amount(amount),
            (None, Some(quantity)) if by_quantity => To::Quantity(quantity),
            (None, Some(_)) => {
                return Err(commitment.fault("quantity", "has no price by this model: commit to an amount"));
            }
            (None, None) => return Err(commitment.fault("amount", "is missing")),
            (Some(_), Some(_)) => return Err(commitment.fault("quantity", "must not stand beside an amount")),
        };
        let overage_factor = commitment.optional_amount("overage_factor")?.unwrap_or(Amount::ONE);
        let true_up = commitment.flag("true_up")?;
        // A part of the usage has no history of its own.
        let periods = if nested { None } else { commitment.optional_count("periods", 1..=1200)? };
        commitment.finish("a commitment")?;
        Ok(Some(Commitment { to, overage_factor, true_up, periods: periods.unwrap_or(1) as u32 }))
    }

    /// How many periods it is for.
    pub fn periods(&self) -> u32 {
        self.periods
    }

    /// What is due of `cost`, with `committed` as the amount of the commitment.
    pub(super) fn settle(
        &self,
        cost: &Amount,
        committed: &Amount,
        terms: &Terms,
        recorder: &mut impl Recorder,
    ) -> Result<Amount, PriceError> {
        let (prior_cost, last) =
            if self.periods == 1 { (Amount::ZERO, true) } else { (terms.prior_cost, terms.commitment_closing) };
        let remaining = committed.checked_sub(&prior_cost)?.max(Amount::ZERO);
        let within = remaining.min(*cost);
        let overage = cost.checked_sub(&within)?;
        let true_up =
            if self.true_up && last && terms.closing { remaining.checked_sub(&within)? } else { Amount::ZERO };
        let due = within.checked_add(&overage.checked_mul(&self.overage_factor)?)?.checked_add(&true_up)?;
        let amount = due.checked_sub(cost)?;
        recorder.record(|| Step::Commitment {
            commitment: *committed,
            prior_cost,
            within,
            overage,
            overage_factor: self.overage_factor,
            true_up,
            amount,
        });
        Ok(due)
    }
}
