//! Credit that is counted in units of its own (tokens, points) and has a price in the invoice's currency.

use ethnum::I256;

use super::arithmetic::narrow;
use super::{Amount, InvoiceError};

/// A unit in which credit is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CreditUnit {
    /// What one unit pays, in major units of the currency: above 0.
    pub rate: Amount,
    /// Decimals to which units are counted.
    pub decimals: u32,
}

impl CreditUnit {
    /// What so many units can pay, in minor units of a currency of so many digits, rounded towards zero: a part of a cent
    /// pays nothing. This is what [`Credit::left`](super::Credit::left) is.
    pub fn worth(&self, units: &Amount, digits: u32) -> Result<i128, InvoiceError> {
        self.check()?;
        let exact = units.checked_mul(&self.rate).map_err(|_| InvoiceError::TooLarge)?;
        let (above, below) = ratio(exact.scale(), digits)?;
        let widened = exact.coefficient().checked_mul(above).ok_or(InvoiceError::TooLarge)?;
        narrow(widened.wrapping_div(below))
    }

    /// The units that paying so much takes, rounded up to the unit's decimals: units never pay more than they are worth,
    /// and what was [`worth`](CreditUnit::worth) so much never takes more units than there were. This is what an invoice
    /// takes for [`CreditUse::used`](super::CreditUse::used), which is not negative.
    pub fn units(&self, minor: i128, digits: u32) -> Result<Amount, InvoiceError> {
        self.check()?;
        let (above, below) = ratio(digits, self.rate.scale().saturating_add(self.decimals))?;
        let numerator = I256::new(minor).checked_mul(above).ok_or(InvoiceError::TooLarge)?;
        let denominator = self.rate.coefficient().checked_mul(below).ok_or(InvoiceError::TooLarge)?;
        let (quotient, remainder) = (numerator.wrapping_div(denominator), numerator.wrapping_rem(denominator));
        let up = if remainder.is_positive() { I256::ONE } else { I256::ZERO };
        Ok(Amount::new(quotient.wrapping_add(up), self.decimals))
    }

    fn check(&self) -> Result<(), InvoiceError> {
        if self.rate.is_zero() || self.rate.is_negative() { Err(InvoiceError::WorthlessUnit) } else { Ok(()) }
    }
}

/// 10^(`to` − `from`) as a numerator and a denominator.
fn ratio(from: u32, to: u32) -> Result<(I256, I256), InvoiceError> {
    let power = I256::new(10).checked_pow(from.abs_diff(to)).ok_or(InvoiceError::TooLarge)?;
    Ok(if to >= from { (power, I256::ONE) } else { (I256::ONE, power) })
}
