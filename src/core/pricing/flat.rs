//! `flat`: one amount, whatever the quantity; for no usage at all only with `flat_at_zero`.

use super::model::Fields;
use super::{Amount, ModelError, Step};

#[derive(Clone, Debug, PartialEq)]
pub struct Flat {
    amount: Amount,
    flat_at_zero: bool,
}

impl Flat {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Flat, ModelError> {
        Ok(Flat { amount: fields.price("amount")?, flat_at_zero: fields.flag("flat_at_zero")? })
    }

    pub(super) fn price(&self, quantity: &Amount) -> Step {
        if quantity.is_zero() && !self.flat_at_zero { Step::NoUsage } else { Step::Fixed { amount: self.amount } }
    }
}
