//! The first stage: every line is rounded, once.

use super::arithmetic::{round as round_amount, subtract, sum};
use super::{Amount, Draft, InvoiceError, InvoiceLine};

pub(super) fn round(draft: &Draft) -> Result<Vec<InvoiceLine>, InvoiceError> {
    let rounded = draft.lines.iter().map(|line| {
        let amount = round_amount(&line.unrounded, draft.digits)?;
        Ok(InvoiceLine {
            key: line.key.clone(),
            unrounded: line.unrounded,
            amount,
            discount: 0,
            promotional_credit: 0,
            taxable: amount,
            taxes: Vec::new(),
            total: amount,
            paid_credit: 0,
        })
    });
    rounded.collect()
}

/// What a true-up line must bill, in minor units, so that it and the `billed` lines (their rounded amounts) make the
/// commitment (in major units): 0 when they do already. Computed on rounded amounts, because a true-up of the unrounded
/// ones, rounded by itself, could miss the commitment by a unit.
pub fn true_up(commitment: &Amount, billed: &[i128], digits: u32) -> Result<i128, InvoiceError> {
    let missing = subtract(round_amount(commitment, digits)?, sum(billed.iter().copied())?)?;
    Ok(missing.max(0))
}
