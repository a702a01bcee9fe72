//! Recurring grants, as grants: nothing happens at the end of a period, because what rolls over has been given a later
//! expiry from the start.
//!
//! With an amount A each period, and a rollover of at most M, what may be left of earlier periods when one begins is the
//! newest M of it: all of the last ⌊M/A⌋ grants, and M mod A of the one before. So of each grant M mod A lives one period
//! longer than the rest. Credit that expires first burns first, so what is left is always the newest, and
//! `min(M, what is left)` is there in the next period without anyone computing it.
//!
//! A minimum m tops up what rolls over. That is m more in each period but the first, of which nothing rolls over, burned
//! after the rest of it (its priority is one lower): `A + m + min(M − m, max(0, left − m)) = A + max(m, min(M, left))`.
//! Before the first period there was none that something could be left of: there m is a part of A.
//!
//! Semantics of minimum and maximum: OpenMeter's rollover, `min(max, max(min, left))`.

use crate::core::decimal::QuantityError;
use crate::core::pricing::{Amount, Rounding};

/// A rule for grants, one each period.
#[derive(Clone, Debug)]
pub struct Recurring {
    /// More than 0.
    pub amount: Amount,
    pub rollover_min: Amount,
    /// None: without limit.
    pub rollover_max: Option<Amount>,
}

/// A part of an occurrence: credit that expires at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub amount: Amount,
    /// Expires at the end of the period that is so many after its own; None: never.
    pub outlives: Option<i64>,
    /// Added to the rule's priority.
    pub priority: i32,
}

/// The parts of an occurrence, none of them zero; `first`: of the rule's first.
pub fn parts(rule: &Recurring, first: bool) -> Result<Vec<Part>, QuantityError> {
    let (amount, stays) = if first {
        let stays = rule.rollover_min.min(rule.amount);
        (rule.amount.checked_sub(&stays)?, stays)
    } else {
        (rule.amount, rule.rollover_min)
    };
    let mut parts = Vec::new();
    match &rule.rollover_max {
        None => parts.push(Part { amount, outlives: None, priority: 0 }),
        Some(max) => {
            let rolls = max.checked_sub(&rule.rollover_min)?;
            let rolls = if rolls.is_negative() { Amount::ZERO } else { rolls };
            let whole = rolls.div_round(&rule.amount, 0, Rounding::Down)?;
            let longer = rolls.checked_sub(&whole.checked_mul(&rule.amount)?)?.min(amount);
            let periods = i64::try_from(whole.round(0)?.minor()).map_err(|_| QuantityError::TooLarge)?;
            parts.push(Part { amount: amount.checked_sub(&longer)?, outlives: Some(periods), priority: 0 });
            parts.push(Part { amount: longer, outlives: Some(periods.saturating_add(1)), priority: 0 });
        }
    }
    parts.push(Part { amount: stays, outlives: Some(0), priority: 1 });
    parts.retain(|part| !part.amount.is_zero());
    Ok(parts)
}
