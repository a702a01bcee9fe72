//! Credits, promotional or paid: one after the other, each as far as it and the lines it applies to go.

use super::pool::Pool;
use super::{Credit, CreditUse, InvoiceError};

pub(super) fn apply(credits: &[Credit], pool: &mut Pool<'_>) -> Result<Vec<CreditUse>, InvoiceError> {
    let uses = credits.iter().map(|credit| {
        if credit.left < 0 {
            return Err(InvoiceError::NegativeCredit(credit.key.clone()));
        }
        let taken = pool.take(&pool.covered(&credit.scope), |_| Ok(credit.left))?;
        Ok(CreditUse {
            key: credit.key.clone(),
            base: taken.base,
            used: taken.used,
            left: credit.left - taken.used,
            shares: taken.shares,
        })
    });
    uses.collect()
}
