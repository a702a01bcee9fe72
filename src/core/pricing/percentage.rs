//! `percentage`: a rate on the value of each event, and a fixed fee an event.
//!
//! Of a paid event: paid value · rate / 100 + fixed_amount, not below per_transaction_min and not above
//! per_transaction_max, which both include the fee. Events are free, in order of time, as long as both allowances last:
//! at most `free_events` of them, with at most `free_total_amount` of value in all. The event that exceeds the latter
//! is free up to it, pays for the rest of its value and its fee, and ends both. The value of an event that is below zero
//! (a refund) gives its rate back, and neither pays a fee nor uses up an allowance.
//!
//! Without allowances and bounds the sums are enough: quantity · rate / 100 + events · fixed_amount.

use super::read::Fields;
use super::usage::{Needs, Usage};
use super::{Amount, Missing, ModelError, PriceError, Recorder, Step};

#[derive(Clone, Debug, PartialEq)]
pub struct Percentage {
    rate: Amount,
    fixed_amount: Amount,
    free_events: Option<u64>,
    free_total_amount: Option<Amount>,
    per_transaction_min: Option<Amount>,
    per_transaction_max: Option<Amount>,
}

/// How the price of events came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Transactions {
    pub rate: Amount,
    pub free_events: u64,
    pub free_quantity: Amount,
    pub paid_events: u64,
    pub paid_quantity: Amount,
    /// The rate's part and the fees' part, and what minimum and maximum per event changed of their sum.
    pub percent_amount: Amount,
    pub fixed_amount: Amount,
    pub bounded_amount: Amount,
    pub amount: Amount,
}

impl Percentage {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Percentage, ModelError> {
        let percentage = Percentage {
            rate: fields.amount("rate")?,
            fixed_amount: fields.optional_amount("fixed_amount")?.unwrap_or(Amount::ZERO),
            free_events: fields.optional_count("free_events", 0..=u64::MAX)?,
            free_total_amount: fields.optional_amount("free_total_amount")?,
            per_transaction_min: fields.optional_amount("per_transaction_min")?,
            per_transaction_max: fields.optional_amount("per_transaction_max")?,
        };
        match (percentage.per_transaction_min, percentage.per_transaction_max) {
            (Some(min), Some(max)) if max < min => {
                Err(fields.fault("per_transaction_max", "must not be below the per_transaction_min"))
            }
            _ => Ok(percentage),
        }
    }

    pub(super) fn needs(&self) -> Needs {
        let values = self.one_by_one();
        Needs { quantity: !values, events: !values && !self.fixed_amount.is_zero(), values, ..Needs::default() }
    }

    fn one_by_one(&self) -> bool {
        self.has_allowance() || self.per_transaction_min.is_some() || self.per_transaction_max.is_some()
    }

    fn has_allowance(&self) -> bool {
        self.free_events.is_some() || self.free_total_amount.is_some()
    }

    pub(super) fn price(&self, usage: &Usage, recorder: &mut impl Recorder) -> Result<Amount, PriceError> {
        let transactions = if self.one_by_one() {
            self.of_each(usage.values.as_deref().ok_or(PriceError::Missing(Missing::Values))?)?
        } else {
            self.of_all(usage)?
        };
        let amount = transactions.amount;
        recorder.record(|| Step::Transactions(transactions));
        Ok(amount)
    }

    fn of_all(&self, usage: &Usage) -> Result<Transactions, PriceError> {
        let events = match (usage.events, usage.values.as_deref()) {
            (Some(events), _) => events,
            (None, Some(values)) => values.iter().filter(|value| !value.is_negative()).count() as u64,
            (None, None) if self.fixed_amount.is_zero() => 0,
            (None, None) => return Err(PriceError::Missing(Missing::Events)),
        };
        let percent_amount = usage.quantity.percent(&self.rate)?;
        let fixed_amount = self.fixed_amount.checked_mul(&Amount::from(events))?;
        Ok(Transactions {
            rate: self.rate,
            free_events: 0,
            free_quantity: Amount::ZERO,
            paid_events: events,
            paid_quantity: usage.quantity,
            percent_amount,
            fixed_amount,
            bounded_amount: Amount::ZERO,
            amount: percent_amount.checked_add(&fixed_amount)?,
        })
    }

    fn of_each(&self, values: &[Amount]) -> Result<Transactions, PriceError> {
        let mut sum = Transactions {
            rate: self.rate,
            free_events: 0,
            free_quantity: Amount::ZERO,
            paid_events: 0,
            paid_quantity: Amount::ZERO,
            percent_amount: Amount::ZERO,
            fixed_amount: Amount::ZERO,
            bounded_amount: Amount::ZERO,
            amount: Amount::ZERO,
        };
        let mut free = self.has_allowance();
        for value in values {
            let mut paid = *value;
            let refund = value.is_negative();
            if free && !refund {
                free = self.free_events.is_none_or(|most| sum.free_events < most);
            }
            if free && !refund {
                let left = match &self.free_total_amount {
                    Some(total) => total.checked_sub(&sum.free_quantity)?,
                    None => *value,
                };
                let given = left.min(*value);
                sum.free_quantity = sum.free_quantity.checked_add(&given)?;
                paid = value.checked_sub(&given)?;
                if paid.is_zero() {
                    sum.free_events += 1;
                    continue;
                }
                free = false;
            }
            let percent = paid.percent(&self.rate)?;
            sum.paid_quantity = sum.paid_quantity.checked_add(&paid)?;
            sum.percent_amount = sum.percent_amount.checked_add(&percent)?;
            let mut amount = percent;
            if !refund {
                sum.paid_events += 1;
                sum.fixed_amount = sum.fixed_amount.checked_add(&self.fixed_amount)?;
                let unbounded = percent.checked_add(&self.fixed_amount)?;
                amount = self.per_transaction_min.map_or(unbounded, |min| unbounded.max(min));
                amount = self.per_transaction_max.map_or(amount, |max| amount.min(max));
                sum.bounded_amount = sum.bounded_amount.checked_add(&amount.checked_sub(&unbounded)?)?;
            }
            sum.amount = sum.amount.checked_add(&amount)?;
        }
        Ok(sum)
    }
}
