//! Credit in units of its own.

use super::*;

fn unit(rate: &str, decimals: u32) -> CreditUnit {
    CreditUnit { rate: amount(rate), decimals }
}

proptest! {
    #[test]
    fn units_pay_what_they_are_worth_and_no_more(rate in 1..100_000_u32, decimals in 0..6_u32, count in 0..1_000_000_000_i128, digits in select(vec![0, 2, 3])) {
        let unit = unit(&format!("{rate}e-4"), decimals);
        let units = amount(&format!("{count}e-{decimals}"));
        let worth = unit.worth(&units, digits).expect("a worth");
        // worth ≤ count · 10^-decimals · rate · 10^-4 · 10^digits < worth + 1
        let exact = count * i128::from(rate) * 10_i128.pow(digits);
        let whole = 10_i128.pow(decimals + 4);
        prop_assert!(worth * whole <= exact && exact < (worth + 1) * whole);
        // Paying it takes the fewest units that are worth as much.
        let taken = unit.units(worth, digits).expect("units");
        let taken: i128 = taken.round(decimals).expect("small").to_string().replace('.', "").parse().expect("digits");
        prop_assert!(taken <= count);
        let paid_by = |taken: i128| taken * i128::from(rate) * 10_i128.pow(digits);
        prop_assert!(paid_by(taken) >= worth * whole && (taken == 0 || paid_by(taken - 1) < worth * whole));
    }
}

#[test]
fn tokens_at_three_cents() {
    let token = unit("0.03", 2);
    assert_eq!(token.worth(&amount("33.40"), 2), Ok(100));
    assert_eq!(token.units(100, 2), Ok(amount("33.34")));
    assert_eq!(token.units(0, 2), Ok(Amount::ZERO));
    // A yen is more than one of these; a unit of 100 yen is less than a token.
    assert_eq!(unit("0.03", 0).worth(&amount("33"), 0), Ok(0));
    assert_eq!(unit("100", 3).units(1, 0), Ok(amount("0.01")));
}

#[test]
fn a_unit_is_worth_something() {
    for rate in ["0", "-1"] {
        assert_eq!(unit(rate, 0).worth(&amount("1"), 2), Err(InvoiceError::WorthlessUnit));
        assert_eq!(unit(rate, 0).units(1, 2), Err(InvoiceError::WorthlessUnit));
    }
    assert_eq!(unit("1e20", 0).worth(&amount("1e30"), 2), Err(InvoiceError::TooLarge));
    assert_eq!(unit("1e-24", 24).units(i128::MAX, 2), Err(InvoiceError::TooLarge));
}
