//! Exact decimal quantities: a 256-bit integer that counts units of 10^-24.
//!
//! Why 256 bits: an event's value is below 10^24, so its mantissa is below 10^48. A sum of 10^19 of them stays below
//! 10^67. The largest thing kept is Σ value·time of a weighted sum: 10^48 · 10^16 µs (the year 2286) · 10^12 events =
//! 10^76, and 2^255 is 5.7·10^76. Overflow is therefore out of reach in practice; it is still checked everywhere and is
//! an error, never a wrap.

use std::fmt;

use ethnum::I256;

/// Decimal digits kept after the point.
pub const SCALE: u32 = 24;

/// Digits before the point that an event's value may have.
const VALUE_DIGITS: i64 = 24;

/// Digits before the point that any quantity can have: 2^255 / 10^24 is 5.7·10^52.
const SUM_DIGITS: i64 = 53;

/// 10^0 ..= 10^38, all the powers of ten below 2^127.
const POW10: [i128; 39] = {
    let mut powers = [1; 39];
    let mut n = 1;
    while n < powers.len() {
        powers[n] = powers[n - 1] * 10;
        n += 1;
    }
    powers
};

const ONE: I256 = I256::new(POW10[SCALE as usize]);

/// An exact decimal number with at most [`SCALE`] decimals. The mantissa is never `I256::MIN`, so that every quantity
/// has a negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(I256);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityError {
    /// The text is not a number as JSON writes one.
    Syntax,
    /// The exact result needs more than [`SCALE`] decimals.
    TooPrecise,
    /// The magnitude is 10^24 or more for a value, beyond 256 bits for a result.
    TooLarge,
    DivisionByZero,
    /// The bytes are not what [`Quantity::encode`] writes.
    Malformed,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuantityError::Syntax => "not a decimal number",
            QuantityError::TooPrecise => "number has more than 24 decimals",
            QuantityError::TooLarge => "number is too large",
            QuantityError::DivisionByZero => "division by zero",
            QuantityError::Malformed => "malformed quantity bytes",
        })
    }
}

impl std::error::Error for QuantityError {}

impl Quantity {
    pub const ZERO: Quantity = Quantity(I256::ZERO);
    pub const ONE: Quantity = Quantity(ONE);

    /// Reads an event's value: a JSON number, also with a leading `+` and surrounding white space as numeric strings
    /// have them. Linear in the length of the text whatever its exponent.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        Literal::split(text)?.quantity(VALUE_DIGITS)
    }

    /// Reads back a sum: as [`Quantity::parse`], over the full range of a quantity.
    pub fn parse_sum(text: &str) -> Result<Quantity, QuantityError> {
        Literal::split(text)?.quantity(SUM_DIGITS)
    }

    pub fn from_i64(value: i64) -> Quantity {
        // 2^63 · 10^24 is below 2^143.
        Quantity(I256::from(value).wrapping_mul(ONE))
    }

    /// The quantity `mantissa` · 10^-24.
    pub fn from_mantissa(mantissa: I256) -> Result<Quantity, QuantityError> {
        if mantissa == I256::MIN { Err(QuantityError::TooLarge) } else { Ok(Quantity(mantissa)) }
    }

    pub fn mantissa(self) -> I256 {
        self.0
    }

    pub fn is_zero(self) -> bool {
        self.0 == I256::ZERO
    }

    pub fn is_negative(self) -> bool {
        self.0.is_negative()
    }

    pub fn checked_add(self, other: Quantity) -> Result<Quantity, QuantityError> {
        in_range(self.0.checked_add(other.0))
    }

    pub fn checked_sub(self, other: Quantity) -> Result<Quantity, QuantityError> {
        in_range(self.0.checked_sub(other.0))
    }

    /// The exact product, or the reason why there is none.
    pub fn checked_mul(self, other: Quantity) -> Result<Quantity, QuantityError> {
        if let Some(product) = product(self.0, other.0) {
            return match product.div_rem(ONE) {
                (mantissa, I256::ZERO) => Quantity::from_mantissa(mantissa),
                _ => Err(QuantityError::TooPrecise),
            };
        }
        // The product of the mantissas is too wide, the result may not be: 10^24 divides a·b exactly when
        // 10^24 / gcd(a, 10^24) divides b, so both factors are reduced before they are multiplied.
        let divisor = gcd(ONE, self.0.wrapping_rem(ONE).wrapping_abs());
        match other.0.div_rem(ONE.wrapping_div(divisor)) {
            (reduced, I256::ZERO) => in_range(product(self.0.wrapping_div(divisor), reduced)),
            _ => Err(QuantityError::TooPrecise),
        }
    }

    pub fn checked_mul_int(self, factor: i64) -> Result<Quantity, QuantityError> {
        in_range(product(self.0, I256::from(factor)))
    }

    /// The quotient at 24 decimals, rounded half away from zero.
    pub fn div_round(self, divisor: i128) -> Result<Quantity, QuantityError> {
        let divisor = I256::new(divisor);
        let (quotient, remainder) = self.0.checked_div_rem(divisor).ok_or(QuantityError::DivisionByZero)?;
        // |remainder| < |divisor| ≤ 2^127: doubling it can't overflow.
        let away = remainder.wrapping_abs().wrapping_mul(I256::new(2)) >= divisor.wrapping_abs();
        let step = match (away, self.0.is_negative() != divisor.is_negative()) {
            (false, _) => I256::ZERO,
            (true, false) => I256::ONE,
            (true, true) => I256::MINUS_ONE,
        };
        in_range(quotient.checked_add(step))
    }

    /// Appends the one encoding of this value: the number of decimals, the number of bytes of the coefficient, and the
    /// coefficient in little-endian two's complement without redundant sign bytes. A small integer takes 3 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (decimals, coefficient) = strip_zeros(self.0);
        let length = byte_length(coefficient);
        out.push(decimals as u8); // ≤ 24
        out.push(length as u8); // ≤ 32
        out.extend(coefficient.to_le_bytes().iter().take(length));
    }

    /// Takes one encoded quantity off the front of `input`.
    pub fn decode(input: &mut &[u8]) -> Result<Quantity, QuantityError> {
        let (&[decimals, length], rest) = input.split_first_chunk().ok_or(QuantityError::Malformed)?;
        let (decimals, length) = (u32::from(decimals), usize::from(length));
        let (digits, rest) = rest.split_at_checked(length).ok_or(QuantityError::Malformed)?;
        let negative = digits.last().is_some_and(|byte| *byte >= 0x80);
        let mut bytes = [if negative { 0xff } else { 0 }; 32];
        bytes.get_mut(..length).ok_or(QuantityError::Malformed)?.copy_from_slice(digits);
        let coefficient = I256::from_le_bytes(bytes);
        let stripped = decimals == 0 || coefficient.wrapping_rem(I256::new(10)) != I256::ZERO;
        if decimals > SCALE || byte_length(coefficient) != length || !stripped {
            return Err(QuantityError::Malformed);
        }
        *input = rest;
        in_range(product(coefficient, pow10(SCALE - decimals))).map_err(|_| QuantityError::Malformed)
    }
}

impl std::ops::Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity(self.0.wrapping_neg())
    }
}

/// Plain decimal notation: no exponent, no trailing zeros, no negative zero.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = self.0.wrapping_abs().div_rem(ONE);
        if self.0.is_negative() {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if fraction != I256::ZERO {
            let (decimals, digits) = strip_zeros(fraction);
            write!(f, ".{:0width$}", digits.as_u128(), width = decimals as usize)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        Quantity::parse(text)
    }
}

fn in_range(mantissa: Option<I256>) -> Result<Quantity, QuantityError> {
    mantissa.ok_or(QuantityError::TooLarge).and_then(Quantity::from_mantissa)
}

/// `checked_mul` pays for its check with a division. Two factors within ±2^127 need none, and two within ±2^63, the usual
/// case, one multiplication of the processor.
#[inline]
pub(super) fn product(a: I256, b: I256) -> Option<I256> {
    if let (Some(a), Some(b)) = (narrow(a), narrow(b)) {
        return Some(I256::new(i128::from(a) * i128::from(b)));
    }
    if fits_i128(a) && fits_i128(b) { Some(a.wrapping_mul(b)) } else { a.checked_mul(b) }
}

#[inline]
pub(super) fn fits_i128(n: I256) -> bool {
    n == I256::new(n.as_i128())
}

/// The number in 64 bits, if they hold it.
#[inline]
pub(super) fn narrow(n: I256) -> Option<i64> {
    let low = n.as_i64();
    (n == I256::from(low)).then_some(low)
}

/// 10^n for n ≤ 76, the largest power of ten that fits; the callers' bounds keep within it.
#[inline]
pub(super) fn pow10(n: u32) -> I256 {
    match POW10.get(n as usize) {
        Some(power) => I256::new(*power),
        None => I256::new(POW10[38]).wrapping_mul(I256::new(POW10[(n - 38).min(38) as usize])),
    }
}

/// Splits a mantissa into the fewest decimals it needs and its coefficient at that scale.
fn strip_zeros(mantissa: I256) -> (u32, I256) {
    let (mut decimals, mut coefficient) = (SCALE, mantissa);
    // Whole numbers, the usual case, lose all 24 zeros in one division; others take at most six, and none that the
    // lowest bits rule out: 2^n divides what 10^n divides.
    for zeros in [SCALE, 16, 8, 4, 2, 1] {
        if zeros <= decimals.min(coefficient.trailing_zeros())
            && let (quotient, I256::ZERO) = coefficient.div_rem(pow10(zeros))
        {
            (decimals, coefficient) = (decimals - zeros, quotient);
        }
    }
    (decimals, coefficient)
}

/// Bytes of the shortest two's complement form: none for zero, else the magnitude's bits and a sign bit.
fn byte_length(value: I256) -> usize {
    if value == I256::ZERO {
        return 0;
    }
    let sign_bits = if value.is_negative() { value.leading_ones() } else { value.leading_zeros() };
    (256 - sign_bits as usize + 8) / 8
}

fn gcd(mut a: I256, mut b: I256) -> I256 {
    while b != I256::ZERO {
        (a, b) = (b, a.wrapping_rem(b));
    }
    a
}

/// A number as written, not yet weighed: `whole`.`fraction` · 10^`exponent`.
pub(super) struct Literal<'a> {
    pub negative: bool,
    pub whole: &'a [u8],
    pub fraction: &'a [u8],
    pub exponent: i64,
}

impl<'a> Literal<'a> {
    pub fn split(text: &'a str) -> Result<Literal<'a>, QuantityError> {
        let mut rest = text.trim_ascii().as_bytes();
        let negative = take_sign(&mut rest);
        let whole = take_digits(&mut rest);
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with(b"0")) {
            return Err(QuantityError::Syntax);
        }
        let mut fraction: &[u8] = &[];
        if let Some(after) = rest.strip_prefix(b".") {
            rest = after;
            fraction = take_digits(&mut rest);
            if fraction.is_empty() {
                return Err(QuantityError::Syntax);
            }
        }
        let mut exponent = 0;
        if let Some((b'e' | b'E', after)) = rest.split_first() {
            rest = after;
            let below_one = take_sign(&mut rest);
            let digits = take_digits(&mut rest);
            if digits.is_empty() {
                return Err(QuantityError::Syntax);
            }
            // Saturation keeps an absurd exponent absurd: no text is long enough to bring it back into range.
            let size = digits.iter().fold(0_i64, |n, digit| n.saturating_mul(10).saturating_add(value_of(*digit)));
            exponent = if below_one { -size } else { size };
        }
        if rest.is_empty() { Ok(Literal { negative, whole, fraction, exponent }) } else { Err(QuantityError::Syntax) }
    }

    fn quantity(self, digits_allowed: i64) -> Result<Quantity, QuantityError> {
        // Drop the zeros on both sides, so that only digits that matter are counted and multiplied.
        let fraction = trim_end(self.fraction);
        let whole = if fraction.is_empty() { trim_end(self.whole) } else { self.whole };
        let dropped = self.whole.len() - whole.len();
        let unit = self.exponent.saturating_add(dropped as i64).saturating_sub(fraction.len() as i64);
        let whole = trim_start(whole);
        let fraction = if whole.is_empty() { trim_start(fraction) } else { fraction };
        let digits = whole.len() + fraction.len();
        if digits == 0 {
            return Ok(Quantity::ZERO);
        }
        if unit.saturating_add(digits as i64) > digits_allowed {
            return Err(QuantityError::TooLarge);
        }
        // What passed both checks has at most 24 + digits_allowed ≤ 77 digits.
        let zeros = u32::try_from(unit.saturating_add(i64::from(SCALE))).map_err(|_| QuantityError::TooPrecise)?;
        let coefficient = join(whole, fraction).ok_or(QuantityError::TooLarge)?;
        let magnitude = in_range(product(coefficient, pow10(zeros)))?;
        Ok(if self.negative { -magnitude } else { magnitude })
    }
}

/// The integer that two runs of digits spell. Eighteen digits fit an `i64`, so that is the usual number of rounds: one.
fn join(whole: &[u8], fraction: &[u8]) -> Option<I256> {
    whole.chunks(18).chain(fraction.chunks(18)).try_fold(I256::ZERO, |sum, chunk| {
        let part = chunk.iter().fold(0_i64, |n, digit| n * 10 + value_of(*digit));
        if sum == I256::ZERO {
            return Some(I256::from(part));
        }
        product(sum, pow10(chunk.len() as u32))?.checked_add(I256::from(part))
    })
}

fn value_of(digit: u8) -> i64 {
    i64::from(digit - b'0')
}

fn take_sign(rest: &mut &[u8]) -> bool {
    match rest.split_first() {
        Some((sign @ (b'-' | b'+'), after)) => {
            *rest = after;
            *sign == b'-'
        }
        _ => false,
    }
}

fn take_digits<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    digits
}

pub(super) fn trim_start(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

pub(super) fn trim_end(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
    digits.get(..digits.len() - zeros).unwrap_or_default()
}
