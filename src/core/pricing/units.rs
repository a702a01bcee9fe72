//! From units of the meter to units that are charged: conversion, then what is free.

use super::read::Fields;
use super::{Amount, ModelError, Recorder, Rounding, Step};
use crate::core::decimal::{QuantityError, SCALE};

/// `unit_conversion`: quantity / factor, or with `"operation":"multiply"` quantity · factor, rounded to `digits`
/// (0 unless given) decimals, or with `"rounding":"none"`, which is the default, kept exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    by: By,
    rounding: Option<(Rounding, u32)>,
}

#[derive(Clone, Debug, PartialEq)]
enum By {
    Divide(Amount),
    Multiply(Amount),
}

impl Conversion {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Option<Conversion>, ModelError> {
        let Some(mut conversion) = fields.optional_object("unit_conversion")? else { return Ok(None) };
        let factor = conversion.optional_size("factor")?;
        let factor = factor.ok_or_else(|| conversion.fault("factor", "is missing"))?;
        let divide = conversion.choice("operation", &[("divide", true), ("multiply", false)])?.unwrap_or(true);
        let modes = [
            ("none", None),
            ("up", Some(Rounding::Up)),
            ("down", Some(Rounding::Down)),
            ("half_up", Some(Rounding::HalfUp)),
        ];
        let rounding = conversion.choice("rounding", &modes)?.flatten();
        let digits = conversion.optional_count("digits", 0..=u64::from(SCALE))?.unwrap_or(0) as u32;
        let by = match (divide, rounding) {
            (false, _) => By::Multiply(factor),
            (true, Some(_)) => By::Divide(factor),
            // Exact: by the inverse, which exists as a decimal for powers of 2 and 5 only.
            (true, None) => By::Multiply(inverse(&factor).ok_or_else(|| {
                conversion.fault("factor", "does not divide without a remainder: name a rounding, and digits")
            })?),
        };
        conversion.finish("a unit_conversion")?;
        Ok(Some(Conversion { by, rounding: rounding.map(|rounding| (rounding, digits)) }))
    }

    pub(super) fn convert(&self, quantity: &Amount, recorder: &mut impl Recorder) -> Result<Amount, QuantityError> {
        let converted = match (&self.by, self.rounding) {
            (By::Multiply(factor), None) => quantity.checked_mul(factor)?,
            (By::Multiply(factor), Some((rounding, digits))) => {
                quantity.checked_mul(factor)?.round_to(digits, rounding)
            }
            // A division without a rounding was made a multiplication.
            (By::Divide(factor), rounding) => {
                let (rounding, digits) = rounding.unwrap_or((Rounding::HalfUp, SCALE));
                quantity.div_round(factor, digits, rounding)?
            }
        };
        recorder.record(|| Step::Converted { from: *quantity, to: converted });
        Ok(converted)
    }
}

/// 1 / `factor`, if it is a decimal of at most 24 digits after the point.
fn inverse(factor: &Amount) -> Option<Amount> {
    let inverse = Amount::ONE.div_round(factor, SCALE, Rounding::Down).ok()?;
    (inverse.checked_mul(factor).ok()? == Amount::ONE).then_some(inverse)
}

/// `free_units` and `usage_discount`: units that cost nothing, taken off before any are priced. Two names for what a
/// plan gives and what is granted on top: the explanation shows them apart. A negative quantity has none to take off.
#[derive(Clone, Debug, PartialEq)]
pub struct Free {
    field: &'static str,
    units: Amount,
}

impl Free {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Vec<Free>, ModelError> {
        let mut all = Vec::new();
        for field in ["free_units", "usage_discount"] {
            if let Some(units) = fields.optional_amount(field)? {
                all.push(Free { field, units });
            }
        }
        Ok(all)
    }

    pub(super) fn take_off(&self, quantity: &Amount, recorder: &mut impl Recorder) -> Result<Amount, QuantityError> {
        let given = self.units.min((*quantity).max(Amount::ZERO));
        let left = quantity.checked_sub(&given)?;
        recorder.record(|| Step::Free { field: self.field, quantity: given, left });
        Ok(left)
    }
}
