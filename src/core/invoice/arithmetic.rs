//! Whole minor units: checked, and rounded half away from zero where they are multiplied.

use ethnum::I256;

use super::{Amount, InvoiceError};
use crate::core::pricing::{Rounding, quotient};
use crate::core::split;

pub(super) fn add(a: i128, b: i128) -> Result<i128, InvoiceError> {
    a.checked_add(b).ok_or(InvoiceError::TooLarge)
}

pub(super) fn subtract(a: i128, b: i128) -> Result<i128, InvoiceError> {
    a.checked_sub(b).ok_or(InvoiceError::TooLarge)
}

pub(super) fn sum(parts: impl IntoIterator<Item = i128>) -> Result<i128, InvoiceError> {
    parts.into_iter().try_fold(0, add)
}

/// No line is larger: far more than there is money, and far less than would make a sum of lines overflow.
const LARGEST_LINE: i128 = 10_i128.pow(30);

/// An amount in major units as minor ones.
pub(super) fn round(amount: &Amount, digits: u32) -> Result<i128, InvoiceError> {
    let minor = narrow(amount.round(digits).map_err(|_| InvoiceError::TooLarge)?.minor())?;
    if (-LARGEST_LINE..=LARGEST_LINE).contains(&minor) { Ok(minor) } else { Err(InvoiceError::TooLarge) }
}

/// `base` · `percent` / 100.
pub(super) fn percent_of(base: i128, percent: &Amount) -> Result<i128, InvoiceError> {
    scaled(base, percent.coefficient(), hundred(percent)?)
}

/// What is in `gross` of a tax of `percent`: `gross` · `percent` / (100 + `percent`).
pub(super) fn included_in(gross: i128, percent: &Amount) -> Result<i128, InvoiceError> {
    let whole = hundred(percent)?.checked_add(percent.coefficient()).ok_or(InvoiceError::TooLarge)?;
    scaled(gross, percent.coefficient(), whole)
}

/// `value` · `numerator` / `denominator`, where the denominator is above zero.
pub(super) fn scaled(value: i128, numerator: I256, denominator: I256) -> Result<i128, InvoiceError> {
    let product = I256::new(value).checked_mul(numerator).ok_or(InvoiceError::TooLarge)?;
    narrow(quotient(product, denominator, Rounding::HalfUp))
}

/// Largest remainder, see [`split::split`]. Where `total` is at most the sum of the weights, no part exceeds its weight.
pub(super) fn spread(total: i128, weights: &[i128]) -> Result<Vec<i128>, InvoiceError> {
    let wide: Vec<I256> = weights.iter().copied().map(I256::new).collect();
    // Where there is something to spread, the callers' weights are above zero, or zero: it can only be too large.
    let parts = split::split(I256::new(total), &wide).map_err(|_| InvoiceError::TooLarge)?;
    parts.into_iter().map(narrow).collect()
}

/// 100 in units of the percentage's last decimal.
fn hundred(percent: &Amount) -> Result<I256, InvoiceError> {
    I256::new(10).checked_pow(percent.scale() + 2).ok_or(InvoiceError::TooLarge)
}

pub(super) fn narrow(value: I256) -> Result<i128, InvoiceError> {
    i128::try_from(value).map_err(|_| InvoiceError::TooLarge)
}
