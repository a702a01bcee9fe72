//! Quantities, against text handled as text and integers handled in i128.

use proptest::prelude::*;

use crate::core::decimal::{Quantity, QuantityError};

pub fn quantity(text: &str) -> Quantity {
    Quantity::parse_sum(text).expect(text)
}

/// n · 10^-decimals.
pub fn scaled(n: i128, decimals: u32) -> Quantity {
    quantity(&format!("{n}e-{decimals}"))
}

/// n / d, half away from zero, d > 0.
pub fn rounded(n: i128, d: i128) -> i128 {
    n.signum() * ((2 * n.abs() + d) / (2 * d))
}

#[test]
fn parse_accepts_json_numbers_and_numeric_strings() {
    for (text, canonical) in [
        ("0", "0"),
        ("-0", "0"),
        ("-0.000e5", "0"),
        ("0e999999999999999999999", "0"),
        ("+7", "7"),
        (" \t42\n", "42"),
        ("1.50", "1.5"),
        ("-0.001", "-0.001"),
        ("12e2", "1200"),
        ("1.25E+1", "12.5"),
        ("100e-2", "1"),
        ("1e-24", "0.000000000000000000000001"),
        ("1e23", "100000000000000000000000"),
        ("999999999999999999999999.999999999999999999999999", "999999999999999999999999.999999999999999999999999"),
        ("1.0000000000000000000000000000000000000000", "1"),
        ("0.00000000000000000000000000000000000001e38", "1"),
    ] {
        assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(canonical.to_string()), "{text}");
    }
}

#[test]
fn parse_refuses_the_rest() {
    for text in [
        "", " ", "-", "+", ".", ".5", "5.", "1.e3", "1e", "1e+", "--1", "+-1", "01", "-00", "1 2", "1_000", "0x1F",
        "NaN", "Infinity", "-inf", "1e5.5", "1,5", "٣", "1\u{a0}",
    ] {
        assert_eq!(Quantity::parse(text), Err(QuantityError::Syntax), "{text}");
    }
    for text in ["1e24", "1e999999999", "-1000000000000000000000000", "9e99999999999999999999"] {
        assert_eq!(Quantity::parse(text), Err(QuantityError::TooLarge), "{text}");
    }
    for text in ["1e-25", "1e-999999999", "0.1000000000000000000000001", "3e-99999999999999999999"] {
        assert_eq!(Quantity::parse(text), Err(QuantityError::TooPrecise), "{text}");
    }
    // Long texts cost their length and no more.
    let long = "9".repeat(1 << 20);
    assert_eq!(Quantity::parse(&long), Err(QuantityError::TooLarge));
    assert_eq!(Quantity::parse(&format!("{long}e-1048570")), Err(QuantityError::TooPrecise));
    assert_eq!(Quantity::parse(&format!("1{}e-1048576", "0".repeat(1 << 20))), Ok(Quantity::ONE));
}

#[test]
fn sums_use_all_256_bits_and_no_more() {
    // 2^255 - 1 by hand: 57896044618658097711785492504343953926634992332820282019728792003956564819967.
    let largest = "57896044618658097711785492504343953926634992332820282.019728792003956564819967";
    let smallest_too_large = "57896044618658097711785492504343953926634992332820282.019728792003956564819968";
    let tiny = quantity("1e-24");
    assert_eq!(quantity(largest).to_string(), largest);
    assert_eq!(Quantity::parse_sum(&format!("-{largest}")).map(|q| -q), Ok(quantity(largest)));
    assert_eq!(Quantity::parse_sum(smallest_too_large), Err(QuantityError::TooLarge));
    assert_eq!(Quantity::parse_sum(&format!("-{smallest_too_large}")), Err(QuantityError::TooLarge));
    assert_eq!(quantity(largest).checked_add(tiny), Err(QuantityError::TooLarge));
    assert_eq!((-quantity(largest)).checked_sub(tiny), Err(QuantityError::TooLarge));
    assert_eq!(quantity(largest).checked_mul_int(2), Err(QuantityError::TooLarge));
    assert_eq!(quantity(largest).div_round(0), Err(QuantityError::DivisionByZero));
}

#[test]
fn encodings_are_fixed() {
    for (text, bytes) in [
        ("0", &[0, 0][..]),
        ("1", &[0, 1, 1]),
        ("-1", &[0, 1, 0xff]),
        ("127", &[0, 1, 0x7f]),
        ("128", &[0, 2, 0x80, 0]),
        ("-128", &[0, 1, 0x80]),
        ("-129", &[0, 2, 0x7f, 0xff]),
        ("0.5", &[1, 1, 5]),
        ("10", &[0, 1, 10]),
        ("1e-24", &[24, 1, 1]),
    ] {
        let mut out = Vec::new();
        quantity(text).encode(&mut out);
        assert_eq!(out, bytes, "{text}");
    }
    // Second ways of writing 0, 1, -1, 1 and 10; too many decimals, too long, cut short.
    for bytes in
        [&[1, 0][..], &[0, 2, 1, 0], &[0, 2, 0xff, 0xff], &[1, 1, 10], &[0, 1, 0], &[25, 1, 1], &[0, 33], &[0, 1]]
    {
        assert_eq!(Quantity::decode(&mut &bytes[..]), Err(QuantityError::Malformed), "{bytes:?}");
    }
}

proptest! {
    /// The canonical text comes from moving the point in a string of digits, without arithmetic.
    #[test]
    fn parse_and_display_agree_with_text(
        negative: bool, whole in "[1-9][0-9]{0,23}|0", fraction in "[0-9]{0,24}", shift in 0..60_usize,
    ) {
        let sign = if negative { "-" } else { "" };
        let trimmed = fraction.trim_end_matches('0');
        let magnitude = if trimmed.is_empty() { whole.clone() } else { format!("{whole}.{trimmed}") };
        let canonical = if magnitude == "0" { magnitude } else { format!("{sign}{magnitude}") };
        // Shifted left until only a fraction remains, and back by the exponent.
        let digits = format!("{:0>60}{fraction}", whole);
        let (left, right) = digits.split_at(60 - shift);
        let left = if left.trim_start_matches('0').is_empty() { "0" } else { left.trim_start_matches('0') };
        let text = format!("{sign}{left}.{right}0e{shift}");
        prop_assert_eq!(Quantity::parse(&text).map(|q| q.to_string()), Ok(canonical), "{}", text);
    }

    #[test]
    fn addition_agrees_with_i128(a in any::<i128>(), b in any::<i128>(), decimals in 0..=24_u32) {
        let (a, b) = (a >> 1, b >> 1);
        let (x, y) = (scaled(a, decimals), scaled(b, decimals));
        prop_assert_eq!(x.checked_add(y), Ok(scaled(a + b, decimals)));
        prop_assert_eq!(x.checked_sub(y), Ok(scaled(a - b, decimals)));
        prop_assert_eq!(-x, scaled(-a, decimals));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }

    /// Exponents reach products that fit although the product of the mantissas doesn't, and ones that don't fit.
    #[test]
    fn multiplication_is_exact_or_an_error(a in any::<i64>(), b in any::<i64>(), i in -24..30_i32, j in -24..30_i32) {
        let factors = (Quantity::parse_sum(&format!("{a}e{i}")), Quantity::parse_sum(&format!("{b}e{j}")));
        if let (Ok(x), Ok(y)) = factors {
            let product = Quantity::parse_sum(&format!("{}e{}", i128::from(a) * i128::from(b), i + j));
            prop_assert_eq!(x.checked_mul(y), product);
        }
    }

    /// Factors that cancel only together: 2^k / 10^m and 5^k · 10^m.
    #[test]
    fn multiplication_cancels_twos_with_fives(k in 0..=24_u32, m in 0..=24_u32, n in 1..=i64::MAX) {
        let x = scaled(2_i128.pow(k), m);
        let y = quantity(&format!("{}e-{}", 5_i128.pow(k) , 24 - m)).checked_mul_int(n).unwrap();
        let product = Quantity::parse_sum(&format!("{n}e{}", k as i32 - 24));
        prop_assert_eq!(x.checked_mul(y), product);
    }

    #[test]
    fn division_rounds_half_away(n in any::<i64>(), small in -20..20_i64, d in 1..100_i64, wide in 1..i64::MAX) {
        for (n, d) in [(n, d), (small, d), (n, wide)] {
            let (n, d) = (i128::from(n), i128::from(d));
            prop_assert_eq!(scaled(n, 24).div_round(d), Ok(scaled(rounded(n, d), 24)));
            prop_assert_eq!(scaled(n, 24).div_round(-d), Ok(scaled(-rounded(n, d), 24)));
        }
    }

    #[test]
    fn quantities_read_back(n in any::<i128>(), decimals in 0..=24_u32, factor in any::<i64>()) {
        let value = scaled(n >> 48, decimals).checked_mul_int(factor).unwrap();
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        bytes.push(77);
        let mut input = &bytes[..];
        prop_assert_eq!(Quantity::decode(&mut input), Ok(value));
        prop_assert_eq!(input, &[77]);
        prop_assert_eq!(quantity(&value.to_string()), value);
    }
}

/// Sums and products as rust_decimal has them, where its 96 bits hold them exactly.
mod second_opinion {
    use super::*;
    use rust_decimal::Decimal;

    fn both(n: i64, decimals: u32) -> (Quantity, Decimal) {
        let decimal = Decimal::new(n, decimals);
        (quantity(&decimal.to_string()), decimal)
    }

    fn text(decimal: Decimal) -> String {
        decimal.normalize().to_string()
    }

    proptest! {
        #[test]
        fn sums_agree(a in any::<i32>(), m in 0..=12_u32, b in any::<i32>(), n in 0..=12_u32) {
            let ((x, a), (y, b)) = (both(a.into(), m), both(b.into(), n));
            prop_assert_eq!(x.checked_add(y).unwrap().to_string(), text(a + b));
            prop_assert_eq!(x.checked_sub(y).unwrap().to_string(), text(a - b));
        }

        #[test]
        fn products_agree(a in any::<i32>(), m in 0..=12_u32, b in any::<i32>(), n in 0..=12_u32) {
            let ((x, a), (y, b)) = (both(a.into(), m), both(b.into(), n));
            prop_assert_eq!(x.checked_mul(y).unwrap().to_string(), text(a * b));
        }

        #[test]
        fn order_agrees(a in any::<i64>(), m in 0..=18_u32, b in any::<i64>(), n in 0..=18_u32) {
            let ((x, a), (y, b)) = (both(a, m), both(b, n));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }
    }
}
