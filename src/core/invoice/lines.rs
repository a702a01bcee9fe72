//! The first stage: every line is rounded, once.

use super::arithmetic::round as round_amount;
use super::{Draft, InvoiceError, InvoiceLine};

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
