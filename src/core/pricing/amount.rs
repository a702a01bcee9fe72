//! Exact numbers for prices and money: products are exact or an error, and rounding happens only where it is asked for.
//!
//! A [`Quantity`] keeps 24 decimals, enough to measure and to quote a price but not for their product: an average of
//! 24 decimals times a price of four has 28. So an amount carries its own scale.

use std::fmt;

use ethnum::I256;

use crate::core::decimal::{Quantity, QuantityError, SCALE};

/// The largest power of ten that 255 bits hold, and so the most decimals that can still be rounded away.
const MAX_SCALE: u32 = 76;

/// `coefficient` · 10^-`scale`, with no more scale than it needs: equal numbers are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Amount {
    coefficient: I256,
    scale: u32,
}

impl Amount {
    pub const ZERO: Amount = Amount { coefficient: I256::ZERO, scale: 0 };

    /// Reads a number as JSON or `numeric` writes it: up to 24 decimals, and up to 52 digits before the point.
    pub fn parse(text: &str) -> Result<Amount, QuantityError> {
        Quantity::parse_sum(text).map(Amount::from)
    }

    pub fn is_zero(&self) -> bool {
        self.coefficient == I256::ZERO
    }

    pub fn is_negative(&self) -> bool {
        self.coefficient.is_negative()
    }

    /// The exact product, or an error when it has more digits than 255 bits hold.
    pub fn checked_mul(&self, other: &Amount) -> Result<Amount, QuantityError> {
        let coefficient = self.coefficient.checked_mul(other.coefficient).ok_or(QuantityError::TooLarge)?;
        let product = Amount::shortest(coefficient, self.scale.saturating_add(other.scale));
        if product.scale > MAX_SCALE { Err(QuantityError::TooPrecise) } else { Ok(product) }
    }

    /// Rounds half away from zero to `digits` decimals.
    pub fn round(&self, digits: u32) -> Result<Money, QuantityError> {
        let minor = match self.scale.checked_sub(digits) {
            None | Some(0) => {
                let factor = power_of_ten(digits - self.scale).ok_or(QuantityError::TooLarge)?;
                self.coefficient.checked_mul(factor).ok_or(QuantityError::TooLarge)?
            }
            Some(excess) => {
                let divisor = power_of_ten(excess).ok_or(QuantityError::TooPrecise)?;
                let (quotient, remainder) =
                    self.coefficient.checked_div_rem(divisor).ok_or(QuantityError::TooPrecise)?;
                // |remainder| < 10^76, so twice that still fits; the quotient is ten times below the limit at least.
                let away = remainder.wrapping_abs().wrapping_mul(I256::new(2)) >= divisor;
                quotient.wrapping_add(if away { self.coefficient.signum() } else { I256::ZERO })
            }
        };
        Ok(Money { minor, digits })
    }

    /// The number `coefficient` · 10^-`scale`.
    pub fn new(coefficient: I256, scale: u32) -> Amount {
        Amount::shortest(coefficient, scale)
    }

    /// Whole units of 10^-[`scale`](Amount::scale).
    pub fn coefficient(&self) -> I256 {
        self.coefficient
    }

    /// Decimals that this number needs.
    pub fn scale(&self) -> u32 {
        self.scale
    }

    /// This number times `numerator` / `denominator` (> 0), in units of 10^-`digits`, rounded once: half away from zero.
    pub fn round_ratio(&self, numerator: i64, denominator: i64, digits: u32) -> Result<I256, QuantityError> {
        let shared = gcd(numerator.unsigned_abs(), denominator.unsigned_abs()).max(1);
        let numerator = I256::from(numerator).wrapping_div(I256::from(shared));
        let denominator = I256::from(denominator).wrapping_div(I256::from(shared));
        let power = power_of_ten(self.scale.abs_diff(digits)).ok_or(QuantityError::TooLarge)?;
        let (up, down) = if digits >= self.scale { (power, I256::ONE) } else { (I256::ONE, power) };
        let dividend = self.coefficient.checked_mul(numerator).and_then(|product| product.checked_mul(up));
        let divisor = denominator.checked_mul(down).ok_or(QuantityError::TooLarge)?;
        let (quotient, remainder) =
            dividend.ok_or(QuantityError::TooLarge)?.checked_div_rem(divisor).ok_or(QuantityError::DivisionByZero)?;
        // Twice the remainder may not fit; what is missing to the divisor does.
        let missing = divisor.wrapping_sub(remainder.wrapping_abs());
        let away = remainder.wrapping_abs() >= missing;
        let sign = I256::new(if remainder.is_negative() { -1 } else { 1 });
        quotient.checked_add(if away { sign } else { I256::ZERO }).ok_or(QuantityError::TooLarge)
    }

    fn shortest(mut coefficient: I256, mut scale: u32) -> Amount {
        let ten = I256::new(10);
        while scale > 0 {
            let (quotient, remainder) = coefficient.div_rem(ten);
            if remainder != I256::ZERO {
                break;
            }
            (coefficient, scale) = (quotient, scale - 1);
        }
        Amount { coefficient, scale }
    }
}

impl From<Quantity> for Amount {
    fn from(quantity: Quantity) -> Amount {
        Amount::shortest(quantity.mantissa(), SCALE)
    }
}

/// Plain decimal notation without trailing zeros.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.coefficient, self.scale)
    }
}

/// A sum of money in whole minor units of its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    minor: I256,
    digits: u32,
}

impl Money {
    /// `minor` units of a currency of so many decimals.
    pub fn new(minor: I256, digits: u32) -> Money {
        Money { minor, digits }
    }

    pub fn minor(&self) -> I256 {
        self.minor
    }

    /// Decimals of the currency.
    pub fn digits(&self) -> u32 {
        self.digits
    }
}

impl From<Money> for Amount {
    fn from(money: Money) -> Amount {
        Amount::shortest(money.minor, money.digits)
    }
}

/// With all the decimals of the currency: 50.00.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.minor, self.digits)
    }
}

fn write_decimal(f: &mut fmt::Formatter<'_>, coefficient: I256, scale: u32) -> fmt::Result {
    let width = scale as usize + 1; // at least one digit before the point
    let digits = format!("{:0>width$}", coefficient.unsigned_abs());
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let sign = if coefficient.is_negative() { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    write!(f, "{sign}{whole}{point}{fraction}")
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn power_of_ten(n: u32) -> Option<I256> {
    I256::new(10).checked_pow(n)
}
