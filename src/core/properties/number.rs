//! Numbers of any size compared by value, without a limit on digits and without allocation. A filter must not answer
//! "no" merely because a sender wrote more decimals than a `Quantity` keeps.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use crate::core::decimal::{Literal, trim_end, trim_start};

/// Longest run of padding zeros that the plain form spells out; past it the form has an exponent, so that the nine
/// bytes of 1.5e+900 don't become nine hundred.
const MAX_PADDING: i32 = 64;

/// ± 0.d₁d₂d₃… · 10^point, where d₁ and the last digit are not zero. Zero has no digits and is not negative. The
/// digits stand in two pieces, as they were written before and after the decimal point.
#[derive(Clone, Copy, Debug)]
pub struct Number<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    point: i32,
}

impl<'a> Number<'a> {
    /// Reads a JSON number; as `Quantity::parse` does, also with a leading `+` and white space around it.
    pub fn parse(text: &'a str) -> Option<Number<'a>> {
        let Literal { negative, mut whole, mut fraction, exponent } = Literal::split(text).ok()?;
        let exponent = exponent.clamp(-i64::from(i32::MAX), i64::from(i32::MAX)) as i32;
        let mut point = exponent.saturating_add(i32::try_from(whole.len()).ok()?);
        whole = drop_leading(whole, &mut point);
        if whole.is_empty() {
            fraction = drop_leading(fraction, &mut point);
        }
        fraction = trim_end(fraction);
        if fraction.is_empty() {
            whole = trim_end(whole);
        }
        let zero = whole.is_empty() && fraction.is_empty();
        Some(Number { negative: negative && !zero, whole, fraction, point: if zero { 0 } else { point } })
    }

    fn digits(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.whole.iter().chain(self.fraction).copied()
    }

    fn sign(&self) -> i32 {
        match (self.negative, self.whole.is_empty() && self.fraction.is_empty()) {
            (_, true) => 0,
            (true, _) => -1,
            (false, _) => 1,
        }
    }
}

/// Equal values are written equally: no padding, no `+`, no negative zero.
impl fmt::Display for Number<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = (self.whole.len() + self.fraction.len()) as i32;
        if count == 0 {
            return f.write_char('0');
        }
        if self.negative {
            f.write_char('-')?;
        }
        let plain = self.point - count <= MAX_PADDING && self.point >= -MAX_PADDING;
        let point = if plain { self.point } else { 1 };
        if point <= 0 {
            f.write_str("0.")?;
            (point..0).try_for_each(|_| f.write_char('0'))?;
        }
        for (index, digit) in (0_i32..).zip(self.digits()) {
            if index == point && index > 0 {
                f.write_char('.')?;
            }
            f.write_char(char::from(digit))?;
        }
        (count..point).try_for_each(|_| f.write_char('0'))?;
        if plain { Ok(()) } else { write!(f, "e{:+}", self.point.saturating_sub(1)) }
    }
}

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = || self.point.cmp(&other.point).then_with(|| self.digits().cmp(other.digits()));
        self.sign().cmp(&other.sign()).then_with(|| match self.sign() {
            0 => Ordering::Equal,
            1 => magnitude(),
            _ => magnitude().reverse(),
        })
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number<'_> {}

/// Whether JSON number text is already what [`Number`]'s `Display` writes, which nearly all numbers are.
pub fn is_canonical(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut point = false;
    for byte in bytes {
        match byte {
            b'.' => point = true,
            b'e' | b'E' => return false,
            _ => {}
        }
    }
    let integer = !point && bytes.len() <= MAX_PADDING as usize;
    let decimal = point && bytes.len() <= MAX_PADDING as usize && bytes.last() != Some(&b'0');
    bytes != b"-0" && (integer || decimal)
}

fn drop_leading<'a>(digits: &'a [u8], point: &mut i32) -> &'a [u8] {
    let kept = trim_start(digits);
    *point = point.saturating_sub((digits.len() - kept.len()) as i32);
    kept
}
