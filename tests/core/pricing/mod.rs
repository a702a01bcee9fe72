//! Prices and money, against arithmetic done digit by digit as on paper.

mod laws;
mod models;
mod vectors;

use proptest::prelude::*;

use crate::core::currency::{self, CurrencyError};
use crate::core::decimal::QuantityError;
use crate::core::pricing::{Amount, Model, PriceError, Priced, RoundError, Usage, price};

fn amount(text: &str) -> Amount {
    Amount::parse(text).expect(text)
}

fn model(json: &str) -> Model {
    Model::parse(json).expect(json)
}

fn priced(json: &str, quantity: &str) -> Priced {
    price(&model(json), &Usage::of(amount(quantity))).expect(json)
}

fn rounded(text: &str, currency: &str) -> String {
    let one = priced(r#"{"model":"per_unit","unit_amount":"1"}"#, text);
    one.in_currency(currency).expect(currency).to_string()
}

/// The product of two decimal texts by long multiplication, and nothing that the kernel uses.
fn product(a: &str, b: &str) -> String {
    let split = |text: &str| {
        let (whole, fraction) =
            text.trim_start_matches('-').split_once('.').unwrap_or((text.trim_start_matches('-'), ""));
        let digits: Vec<u32> = whole.chars().chain(fraction.chars()).rev().filter_map(|c| c.to_digit(10)).collect();
        (digits, fraction.len())
    };
    let ((a_digits, a_scale), (b_digits, b_scale)) = (split(a), split(b));
    let mut digits = vec![0; a_digits.len() + b_digits.len() + 1];
    for (i, x) in a_digits.iter().enumerate() {
        for (j, y) in b_digits.iter().enumerate() {
            digits[i + j] += x * y;
        }
    }
    let mut carry = 0;
    for digit in &mut digits {
        let sum = *digit + carry;
        (*digit, carry) = (sum % 10, sum / 10);
    }
    let scale = a_scale + b_scale;
    let text: String = digits.iter().rev().map(u32::to_string).collect();
    let (whole, fraction) = text.split_at(text.len() - scale);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.is_empty() && fraction.is_empty() {
        return "0".to_string();
    }
    let sign = if a.starts_with('-') != b.starts_with('-') { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}", if whole.is_empty() { "0" } else { whole })
}

/// Half away from zero, on the text: add one to the last kept digit when the first dropped one is five or more.
fn rounded_text(text: &str, digits: usize) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut kept: Vec<u32> = whole
        .chars()
        .chain(fraction.chars().chain("0".repeat(digits).chars()).take(digits))
        .filter_map(|c| c.to_digit(10))
        .collect();
    let mut carry = u32::from(fraction.chars().nth(digits).is_some_and(|c| c >= '5'));
    for digit in kept.iter_mut().rev() {
        (*digit, carry) = ((*digit + carry) % 10, (*digit + carry) / 10);
    }
    if carry > 0 {
        kept.insert(0, carry);
    }
    let sign = if kept.iter().all(|digit| *digit == 0) { "" } else { sign };
    let text: String = kept.iter().map(u32::to_string).collect();
    let (whole, fraction) = text.split_at(text.len() - digits);
    format!("{sign}{whole}{}{fraction}", if digits == 0 { "" } else { "." })
}

/// Decimal texts of at most so many digits before and after the point.
fn decimal(whole: usize, fraction: usize) -> impl Strategy<Value = String> {
    let pattern = format!("(0|[1-9][0-9]{{0,{}}})(\\.[0-9]{{1,{fraction}}})?", whole - 1);
    proptest::string::string_regex(&pattern).expect("a pattern")
}

proptest! {
    #[test]
    fn products_are_exact(quantity in decimal(20, 24), unit in decimal(9, 20), negative: bool) {
        let quantity = if negative { format!("-{quantity}") } else { quantity };
        let json = format!(r#"{{"model":"per_unit","unit_amount":"{unit}"}}"#);
        prop_assert_eq!(priced(&json, &quantity).amount.to_string(), product(&quantity, &unit));
    }

    #[test]
    fn a_product_is_exact_or_an_error(quantity in decimal(52, 24), unit in decimal(52, 24)) {
        let model = model(&format!(r#"{{"model":"per_unit","unit_amount":{unit}}}"#));
        match Amount::parse(&quantity)
            .map_err(PriceError::Range)
            .and_then(|quantity| price(&model, &Usage::of(quantity))) {
            Ok(priced) => prop_assert_eq!(priced.amount.to_string(), product(&quantity, &unit)),
            // 2^255 has 77 digits: what was refused had nearly that many.
            Err(_) => prop_assert!(quantity.len() + unit.len() > 70),
        }
    }

    #[test]
    fn rounding_is_half_away_from_zero(quantity in decimal(18, 24), negative: bool) {
        let text = if negative { format!("-{quantity}") } else { quantity };
        for (currency, digits) in [("JPY", 0), ("USD", 2), ("KWD", 3), ("CLF", 4)] {
            prop_assert_eq!(rounded(&text, currency), rounded_text(&text, digits));
        }
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".*") {
        let _ = Model::parse(&text);
        let _ = Model::parse(&format!(r#"{{"model":"per_unit","unit_amount":{text:?}}}"#));
        let _ = currency::digits(&text);
    }
}

#[test]
fn peers_cases() {
    for (json, quantity, expected) in [
        (r#"{"model":"per_unit","unit_amount":"5.12345"}"#, "10", "51.2345"),
        (r#"{"model":"per_unit","unit_amount":"5.12345"}"#, "20", "102.469"),
        (r#"{"model":"per_unit","unit_amount":"12.5"}"#, "4", "50"),
        (r#"{"model":"per_unit","unit_amount":"10"}"#, "0", "0"),
        (r#"{"model":"flat","amount":"100"}"#, "1", "100"),
    ] {
        assert_eq!(priced(json, quantity).amount, amount(expected), "{json} × {quantity}");
    }
    for (value, currency, expected) in [
        ("10.275", "USD", "10.28"),
        ("10.225", "EUR", "10.23"),
        ("-10.125", "USD", "-10.13"),
        ("-10.124", "USD", "-10.12"),
        ("0.001", "USD", "0.00"),
        ("-0.001", "USD", "0.00"),
        ("1000.5", "KRW", "1001"),
        ("-100.4", "JPY", "-100"),
        ("1", "KWD", "1.000"),
    ] {
        assert_eq!(rounded(value, currency), expected, "{value} {currency}");
    }
}

#[test]
fn no_usage_costs_nothing_unless_the_model_says_so() {
    assert_eq!(priced(r#"{"model":"flat","amount":"5"}"#, "0").amount, Amount::ZERO);
    assert_eq!(priced(r#"{"model":"flat","amount":"5","flat_at_zero":true}"#, "0").amount, amount("5"));
    assert_eq!(priced(r#"{"model":"flat","amount":"5"}"#, "0.001").amount, amount("5"));
}

#[test]
fn json_numbers_keep_all_their_digits() {
    let exact = priced(r#"{"model":"per_unit","unit_amount":0.123456789012345678901234}"#, "1");
    assert_eq!(exact.amount.to_string(), "0.123456789012345678901234");
}

#[test]
fn an_average_of_24_decimals_can_be_priced() {
    let third = priced(r#"{"model":"per_unit","unit_amount":"0.0015"}"#, "0.333333333333333333333333");
    assert_eq!(third.amount.to_string(), "0.0004999999999999999999999995");
}

#[test]
fn what_does_not_fit_is_an_error() {
    let widest = format!("1{}", "0".repeat(52));
    let model = model(&format!(r#"{{"model":"per_unit","unit_amount":"{widest}"}}"#));
    assert_eq!(price(&model, &Usage::of(amount(&widest))), Err(PriceError::Range(QuantityError::TooLarge)));
    // It fits as it is, but not as a number of cents.
    let nearly = priced(r#"{"model":"per_unit","unit_amount":"10"}"#, &format!("1{}.1", "0".repeat(51)));
    let scaled = price(&model, &Usage::of(amount(&format!("1{}", "0".repeat(23))))).expect("10^75");
    assert_eq!(scaled.in_currency("USD"), Err(RoundError::Range(QuantityError::TooLarge)));
    assert!(nearly.in_currency("USD").is_ok());
}

#[test]
fn currencies_have_the_digits_of_iso_4217() {
    let all: Vec<String> = (0..26 * 26 * 26)
        .map(|n| [n / 676, n / 26 % 26, n % 26].iter().map(|&letter| char::from(b'A' + letter as u8)).collect())
        .collect();
    let with = |digits| all.iter().filter(|code| currency::digits(code) == Ok(digits)).count();
    assert_eq!((0..6).map(with).collect::<Vec<_>>(), [17, 0, 139, 7, 2, 0]);
    assert_eq!(all.iter().filter(|code| currency::digits(code) == Err(CurrencyError::NoMinorUnit)).count(), 13);
    for unknown in ["", "usd", "USDT", "US", "DEM", "XYZ"] {
        assert_eq!(currency::digits(unknown), Err(CurrencyError::Unknown), "{unknown}");
    }
}
