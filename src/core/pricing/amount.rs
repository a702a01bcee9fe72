//! Exact numbers for prices and money: sums and products are exact or an error, and rounding happens only where it is
//! asked for.
//!
//! A [`Quantity`] keeps 24 decimals, enough to measure and to quote a price but not for their product: an average of
//! 24 decimals times a price of four has 28. So an amount carries its own scale.

use std::cmp::Ordering;
use std::fmt;

use ethnum::I256;

use crate::core::decimal::{Quantity, QuantityError, SCALE, fits_i128, narrow, pow10, product};

/// The largest power of ten that 255 bits hold, and so the most decimals that can still be rounded away.
const MAX_SCALE: u32 = 76;

/// `coefficient` · 10^-`scale`. The same number can be written with more zeros: it is compared by value.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    coefficient: I256,
    scale: u32,
}

/// What to do with the digits that are not kept. All modes treat a negative number as the mirror of the positive one,
/// so that a credit is as large as the charge that it takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Away from zero.
    Up,
    /// Toward zero.
    Down,
    /// To the nearest, a half away from zero.
    HalfUp,
}

impl Amount {
    pub const ZERO: Amount = Amount { coefficient: I256::ZERO, scale: 0 };
    pub const ONE: Amount = Amount { coefficient: I256::ONE, scale: 0 };

    /// Reads a number as JSON or `numeric` writes it: up to 24 decimals, and up to 52 digits before the point.
    pub fn parse(text: &str) -> Result<Amount, QuantityError> {
        Quantity::parse_sum(text).map(Amount::from)
    }

    /// The number that digits in base 10,000 spell, the first one worth 10,000^`weight`, as `numeric` keeps them.
    /// The same limits as [`Amount::parse`].
    #[inline]
    pub fn from_base_10000(
        negative: bool,
        digits: impl ExactSizeIterator<Item = u16>,
        weight: i32,
    ) -> Result<Amount, QuantityError> {
        /// Nine digits of base 10,000 stay below 2^127.
        const NARROW: usize = 9;
        let length = digits.len();
        let after = (length as i32 - 1).saturating_sub(weight); // digits of base 10,000 after the point
        let amount = if length <= NARROW && (0..=6).contains(&after) {
            let magnitude = digits.fold(0_i128, |sum, digit| sum * 10_000 + i128::from(digit));
            Amount { coefficient: I256::new(magnitude), scale: after as u32 * 4 }
        } else {
            Amount::from_many(digits, after)?
        };
        Ok(if negative { -amount } else { amount })
    }

    /// As [`Amount::from_base_10000`], any number of digits, so many `after` the point.
    #[inline(never)]
    fn from_many(digits: impl Iterator<Item = u16>, after: i32) -> Result<Amount, QuantityError> {
        let base = I256::new(10_000);
        let mut coefficient = I256::ZERO;
        for digit in digits {
            let grown = coefficient.checked_mul(base).and_then(|sum| sum.checked_add(I256::from(digit)));
            coefficient = grown.ok_or(QuantityError::TooLarge)?;
        }
        if after < 0 {
            let zeros = after.unsigned_abs().saturating_mul(4);
            if zeros > MAX_SCALE {
                return Err(QuantityError::TooLarge);
            }
            coefficient = product(coefficient, pow10(zeros)).ok_or(QuantityError::TooLarge)?;
        }
        // Only up to three zeros can be left at the end: a digit of base 10,000 that is zero is not kept.
        let scale = after.max(0).cast_unsigned().saturating_mul(4);
        if scale > SCALE + 3 {
            return Err(QuantityError::TooPrecise);
        }
        let amount = Amount { coefficient, scale }.shortest();
        if amount.scale > SCALE { Err(QuantityError::TooPrecise) } else { Ok(amount) }
    }

    #[inline]
    pub fn is_zero(&self) -> bool {
        self.coefficient == I256::ZERO
    }

    #[inline]
    pub fn is_negative(&self) -> bool {
        self.coefficient.is_negative()
    }

    #[inline]
    pub fn is_positive(&self) -> bool {
        self.coefficient.is_positive()
    }

    #[inline]
    pub fn checked_add(&self, other: &Amount) -> Result<Amount, QuantityError> {
        match narrow_aligned(self, other) {
            Some((a, b, scale)) => Ok(Amount { coefficient: I256::new(a + b), scale }),
            None => self.add_wide(other),
        }
    }

    #[inline(never)]
    fn add_wide(&self, other: &Amount) -> Result<Amount, QuantityError> {
        // Zeros at the end must not make a sum too large that could be held without them.
        let sum = |a: &Amount, b: &Amount| {
            let (a, b, scale) = aligned(a, b)?;
            Some(Amount { coefficient: a.checked_add(b).filter(has_negative)?, scale })
        };
        sum(self, other).or_else(|| sum(&self.shortest(), &other.shortest())).ok_or(QuantityError::TooLarge)
    }

    #[inline]
    pub fn checked_sub(&self, other: &Amount) -> Result<Amount, QuantityError> {
        self.checked_add(&-*other)
    }

    /// The exact product, or an error when it has more digits than 255 bits hold.
    #[inline]
    pub fn checked_mul(&self, other: &Amount) -> Result<Amount, QuantityError> {
        let scale = self.scale + other.scale;
        match (narrow(self.coefficient), narrow(other.coefficient)) {
            (Some(a), Some(b)) if scale <= MAX_SCALE => {
                Ok(Amount { coefficient: I256::new(i128::from(a) * i128::from(b)), scale })
            }
            _ => self.mul_wide(other),
        }
    }

    #[inline(never)]
    fn mul_wide(&self, other: &Amount) -> Result<Amount, QuantityError> {
        let scale = self.scale + other.scale;
        if let Some(coefficient) = product(self.coefficient, other.coefficient).filter(has_negative)
            && scale <= MAX_SCALE
        {
            return Ok(Amount { coefficient, scale });
        }
        let (a, b) = (self.shortest(), other.shortest());
        let coefficient = product(a.coefficient, b.coefficient).filter(has_negative).ok_or(QuantityError::TooLarge)?;
        let product = Amount { coefficient, scale: a.scale + b.scale }.shortest();
        if product.scale > MAX_SCALE { Err(QuantityError::TooPrecise) } else { Ok(product) }
    }

    /// So many percent of it.
    #[inline]
    pub fn percent(&self, rate: &Amount) -> Result<Amount, QuantityError> {
        let hundredfold = self.checked_mul(rate)?;
        let hundredfold = if hundredfold.scale + 2 > MAX_SCALE { hundredfold.shortest() } else { hundredfold };
        if hundredfold.scale + 2 > MAX_SCALE {
            return Err(QuantityError::TooPrecise);
        }
        Ok(Amount { coefficient: hundredfold.coefficient, scale: hundredfold.scale + 2 })
    }

    /// The quotient, rounded to `digits` decimals. Nobody divides by less than zero.
    pub fn div_round(&self, divisor: &Amount, digits: u32, rounding: Rounding) -> Result<Amount, QuantityError> {
        if !divisor.is_positive() {
            return Err(QuantityError::DivisionByZero);
        }
        // The quotient of two coefficients at one scale, with `digits` more decimals above.
        let fraction = |above: &Amount, below: &Amount| {
            let zeros = (digits + below.scale).abs_diff(above.scale);
            if zeros > MAX_SCALE {
                return None;
            }
            let (mut numerator, mut denominator) = (above.coefficient, below.coefficient);
            let widened = if digits + below.scale >= above.scale { &mut numerator } else { &mut denominator };
            *widened = product(*widened, pow10(zeros)).filter(has_negative)?;
            Some((numerator, denominator))
        };
        let (numerator, denominator) = fraction(self, divisor)
            .or_else(|| fraction(&self.shortest(), &divisor.shortest()))
            .ok_or(QuantityError::TooLarge)?;
        Ok(Amount { coefficient: quotient(numerator, denominator, rounding), scale: digits })
    }

    /// Rounded to at most `digits` decimals.
    pub fn round_to(&self, digits: u32, rounding: Rounding) -> Amount {
        match self.scale.checked_sub(digits) {
            None | Some(0) => *self,
            Some(excess) => Amount { coefficient: quotient(self.coefficient, pow10(excess), rounding), scale: digits },
        }
    }

    /// Rounds half away from zero to `digits` decimals.
    pub fn round(&self, digits: u32) -> Result<Money, QuantityError> {
        let rounded = self.round_to(digits, Rounding::HalfUp);
        let minor = product(rounded.coefficient, pow10(digits - rounded.scale)).ok_or(QuantityError::TooLarge)?;
        Ok(Money { minor, digits })
    }

    /// How many units of 10^-`digits` it is, if it is a small and whole number of them, as most amounts of money are.
    #[inline]
    pub fn whole_units(&self, digits: u32) -> Option<i128> {
        let coefficient = narrow(self.coefficient)?;
        let unit = i64::checked_pow(10, self.scale.abs_diff(digits))?;
        match self.scale <= digits {
            true => Some(i128::from(coefficient) * i128::from(unit)),
            false => (coefficient % unit == 0).then(|| i128::from(coefficient / unit)),
        }
    }

    /// The number `coefficient` · 10^-`scale`.
    pub fn new(coefficient: I256, scale: u32) -> Amount {
        Amount { coefficient, scale }.shortest()
    }

    /// Whole units of 10^-[`scale`](Amount::scale).
    #[inline]
    pub fn coefficient(&self) -> I256 {
        self.coefficient
    }

    /// Decimals that it is written with. Zeros may be among them: the [`shortest`](Amount::shortest) needs them all.
    #[inline]
    pub fn scale(&self) -> u32 {
        self.scale
    }

    /// This number times `numerator` / `denominator` (> 0), in units of 10^-`digits`, rounded once: half away from zero.
    pub fn round_ratio(&self, numerator: i64, denominator: i64, digits: u32) -> Result<I256, QuantityError> {
        let shared = gcd(numerator.unsigned_abs(), denominator.unsigned_abs()).max(1);
        let numerator = I256::from(numerator).wrapping_div(I256::from(shared));
        let denominator = I256::from(denominator).wrapping_div(I256::from(shared));
        let power = I256::new(10).checked_pow(self.scale.abs_diff(digits)).ok_or(QuantityError::TooLarge)?;
        let (up, down) = if digits >= self.scale { (power, I256::ONE) } else { (I256::ONE, power) };
        let dividend = self.coefficient.checked_mul(numerator).and_then(|product| product.checked_mul(up));
        let divisor = denominator.checked_mul(down).ok_or(QuantityError::TooLarge)?;
        if !divisor.is_positive() {
            return Err(QuantityError::DivisionByZero);
        }
        Ok(quotient(dividend.ok_or(QuantityError::TooLarge)?, divisor, Rounding::HalfUp))
    }

    /// The same number with the fewest decimals that hold it.
    pub fn shortest(&self) -> Amount {
        let (mut coefficient, mut scale) = (self.coefficient, self.scale);
        for zeros in [64, 32, 16, 8, 4, 2, 1] {
            // 2^n divides what 10^n divides: the lowest bits tell most of the times that there is nothing to divide.
            if zeros <= scale.min(coefficient.trailing_zeros())
                && let (shorter, I256::ZERO) = div_rem(coefficient, pow10(zeros))
            {
                (coefficient, scale) = (shorter, scale - zeros);
            }
        }
        Amount { coefficient, scale }
    }
}

impl Default for Amount {
    fn default() -> Amount {
        Amount::ZERO
    }
}

impl std::ops::Neg for Amount {
    type Output = Amount;

    /// Every coefficient [`has_negative`].
    fn neg(self) -> Amount {
        Amount { coefficient: self.coefficient.wrapping_neg(), scale: self.scale }
    }
}

impl PartialEq for Amount {
    #[inline]
    fn eq(&self, other: &Amount) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    #[inline]
    fn partial_cmp(&self, other: &Amount) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    #[inline]
    fn cmp(&self, other: &Amount) -> Ordering {
        match narrow_aligned(self, other) {
            Some((a, b, _)) => a.cmp(&b),
            None => self.cmp_wide(other),
        }
    }
}

impl Amount {
    #[inline(never)]
    fn cmp_wide(&self, other: &Amount) -> Ordering {
        match aligned(self, other) {
            Some((a, b, _)) => a.cmp(&b),
            // The one with fewer decimals is too large to be written with as many as the other has, so its magnitude
            // is the larger one.
            None if self.scale < other.scale => self.coefficient.cmp(&I256::ZERO),
            None => I256::ZERO.cmp(&other.coefficient),
        }
    }
}

/// Two coefficients at one scale in 128 bits, with room for their sum: of numbers as they usually are.
#[inline]
fn narrow_aligned(a: &Amount, b: &Amount) -> Option<(i128, i128, u32)> {
    /// 2^63 · 10^18 is below 2^123.
    const ZEROS: usize = 18;
    const POWERS: [i64; ZEROS + 1] = {
        let mut powers = [1; ZEROS + 1];
        let mut n = 1;
        while n < powers.len() {
            powers[n] = powers[n - 1] * 10;
            n += 1;
        }
        powers
    };
    let (left, right) = (i128::from(narrow(a.coefficient)?), i128::from(narrow(b.coefficient)?));
    let power = i128::from(*POWERS.get(a.scale.abs_diff(b.scale) as usize)?);
    Some(if a.scale < b.scale { (left * power, right, b.scale) } else { (left, right * power, a.scale) })
}

/// −2^255 is the one number that fits and whose negative doesn't: it counts as too large.
fn has_negative(coefficient: &I256) -> bool {
    *coefficient != I256::MIN
}

/// Two coefficients at one scale, if they can be held at it.
fn aligned(a: &Amount, b: &Amount) -> Option<(I256, I256, u32)> {
    match a.scale.cmp(&b.scale) {
        Ordering::Equal => Some((a.coefficient, b.coefficient, a.scale)),
        Ordering::Less => Some((product(a.coefficient, pow10(b.scale - a.scale))?, b.coefficient, b.scale)),
        Ordering::Greater => Some((a.coefficient, product(b.coefficient, pow10(a.scale - b.scale))?, a.scale)),
    }
}

/// By a positive divisor, rounded.
pub fn quotient(numerator: I256, denominator: I256, rounding: Rounding) -> I256 {
    let (quotient, remainder) = div_rem(numerator, denominator);
    let away = match rounding {
        Rounding::Down => false,
        Rounding::Up => remainder != I256::ZERO,
        Rounding::HalfUp => {
            // Twice the remainder may not fit; what is missing to the denominator does.
            let remainder = remainder.wrapping_abs();
            remainder >= denominator.wrapping_sub(remainder)
        }
    };
    match (away, numerator.is_negative()) {
        (false, _) => quotient,
        (true, false) => quotient.wrapping_add(I256::ONE),
        (true, true) => quotient.wrapping_sub(I256::ONE),
    }
}

/// By a positive divisor. Division of 256 bits costs several times one of 128, which costs several times one of 64.
fn div_rem(a: I256, b: I256) -> (I256, I256) {
    if let (Some(a), Some(b)) = (narrow(a), narrow(b)) {
        return (I256::from(a.wrapping_div(b)), I256::from(a.wrapping_rem(b)));
    }
    if fits_i128(a) && fits_i128(b) {
        let (a, b) = (a.as_i128(), b.as_i128());
        return (I256::new(a.wrapping_div(b)), I256::new(a.wrapping_rem(b)));
    }
    (a.wrapping_div(b), a.wrapping_rem(b))
}

impl From<Quantity> for Amount {
    fn from(quantity: Quantity) -> Amount {
        Amount { coefficient: quantity.mantissa(), scale: SCALE }.shortest()
    }
}

impl From<u64> for Amount {
    fn from(count: u64) -> Amount {
        Amount { coefficient: I256::from(count), scale: 0 }
    }
}

/// Plain decimal notation without trailing zeros.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Amount { coefficient, scale } = self.shortest();
        write_decimal(f, coefficient, scale)
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
        Amount { coefficient: money.minor, scale: money.digits }.shortest()
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
