//! `per_unit`, `package` and `dynamic`, and the price of the units in a tier: what one quantity costs at one price.
//!
//! - `unit_amount`: quantity · amount.
//! - `rate`: quantity · rate / 100, for quantities that are money.
//! - `amount` per `package_size`: amount · ⌈quantity / size⌉, exactly; with `"rounding":"down"` only full packages count.
//! - `multiplier`: quantity · multiplier, for events that carry their price.

use super::read::Fields;
use super::{Amount, ModelError, Rounding};
use crate::core::decimal::QuantityError;

#[derive(Clone, Debug, PartialEq)]
pub enum UnitPrice {
    Each { unit_amount: Amount },
    Percent { rate: Amount },
    Package { amount: Amount, package_size: Amount, rounding: Rounding },
    Carried { multiplier: Amount },
}

impl UnitPrice {
    pub(super) fn per_unit(fields: &mut Fields<'_>) -> Result<UnitPrice, ModelError> {
        Ok(UnitPrice::Each { unit_amount: fields.amount("unit_amount")? })
    }

    pub(super) fn package(fields: &mut Fields<'_>) -> Result<UnitPrice, ModelError> {
        let amount = fields.amount("amount")?;
        let size = fields.optional_size("package_size")?;
        let package_size = size.ok_or_else(|| fields.fault("package_size", "is missing"))?;
        let roundings = [("up", Rounding::Up), ("down", Rounding::Down)];
        let rounding = fields.choice("rounding", &roundings)?.unwrap_or(Rounding::Up);
        Ok(UnitPrice::Package { amount, package_size, rounding })
    }

    pub(super) fn dynamic(fields: &mut Fields<'_>) -> Result<UnitPrice, ModelError> {
        Ok(UnitPrice::Carried { multiplier: fields.optional_amount("multiplier")?.unwrap_or(Amount::ONE) })
    }

    /// What `quantity` costs, and how many packages that is, where there are any.
    #[inline]
    pub(super) fn price(&self, quantity: &Amount) -> Result<(Amount, Option<Amount>), QuantityError> {
        match self {
            UnitPrice::Each { unit_amount: factor } | UnitPrice::Carried { multiplier: factor } => {
                Ok((quantity.checked_mul(factor)?, None))
            }
            UnitPrice::Percent { rate } => Ok((quantity.percent(rate)?, None)),
            UnitPrice::Package { amount, package_size, rounding } => {
                let packages = quantity.div_round(package_size, 0, *rounding)?;
                Ok((packages.checked_mul(amount)?, Some(packages)))
            }
        }
    }

    /// Whether less than nothing has a price: a credit. There is no such thing as a package to give back.
    #[inline]
    pub(super) fn credits(&self) -> bool {
        !matches!(self, UnitPrice::Package { .. })
    }
}
