//! `per_unit`: every unit costs the same.

use super::model::Fields;
use super::{Amount, ModelError, Step};
use crate::core::decimal::QuantityError;

#[derive(Clone, Debug, PartialEq)]
pub struct PerUnit {
    unit_amount: Amount,
}

impl PerUnit {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<PerUnit, ModelError> {
        Ok(PerUnit { unit_amount: fields.price("unit_amount")? })
    }

    pub(super) fn price(&self, quantity: &Amount) -> Result<Step, QuantityError> {
        if quantity.is_zero() {
            return Ok(Step::NoUsage);
        }
        let amount = quantity.checked_mul(&self.unit_amount)?;
        Ok(Step::Units { quantity: *quantity, unit_amount: self.unit_amount, amount })
    }
}
