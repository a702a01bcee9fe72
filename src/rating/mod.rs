//! Prices in SQL: `price`, `explain_price` and the checks of the tables that hold models and currencies. All
//! arithmetic is `core::pricing`'s; this is only the way in and out.
//!
//! Models come as text: pgrx reads `jsonb` into floats, which would take digits off a price. The functions that users
//! call cast and are inlined (sql/60_billing.sql).

mod calendar;

use pgrx::prelude::*;

use crate::core::currency::{self, CurrencyError};
use crate::core::decimal::QuantityError;
use crate::core::pricing::{self, Amount, Model, ModelError, Priced, RoundError, Trouble};
use crate::pg::error::{Fail, Outcome, SqlState, raise};

#[pg_extern(sql = "")]
fn price_text(model: Option<&str>, quantity: Option<AnyNumeric>, currency: Option<&str>) -> Option<AnyNumeric> {
    let (model, quantity) = (model?, quantity?);
    Some(raise(price(model, &quantity.to_string(), currency)))
}

fn price(model: &str, quantity: &str, currency: Option<&str>) -> Outcome<AnyNumeric> {
    let (_, priced) = priced(model, quantity)?;
    let amount = match currency {
        None => priced.amount.to_string(),
        Some(code) => priced.in_currency(code).map_err(|error| unroundable(error, &priced, code))?.to_string(),
    };
    AnyNumeric::try_from(amount.as_str()).map_err(|error| {
        Fail::new(SqlState::ERRCODE_INTERNAL_ERROR, error.to_string()).detail(format!("The amount is {amount}."))
    })
}

#[pg_extern(sql = "")]
fn explain_price_text(
    model: Option<&str>,
    quantity: Option<AnyNumeric>,
    currency: Option<&str>,
) -> Option<pgrx::JsonB> {
    let (model, quantity) = (model?, quantity?);
    Some(pgrx::JsonB(raise(explain(model, &quantity.to_string(), currency))))
}

fn explain(model: &str, quantity: &str, currency: Option<&str>) -> Outcome<serde_json::Value> {
    let (model, priced) = priced(model, quantity)?;
    priced.explain(&model, currency).map_err(|error| unroundable(error, &priced, currency.unwrap_or_default()))
}

fn priced(model: &str, quantity: &str) -> Outcome<(Model, Priced)> {
    let model =
        Model::parse(model).map_err(|error| unsound(error, model, SqlState::ERRCODE_INVALID_PARAMETER_VALUE))?;
    let amount = Amount::parse(quantity).map_err(|error| match error {
        // `numeric` writes nothing else that is no number.
        QuantityError::Syntax => Fail::parameter("a quantity must be a finite number")
            .detail(format!("It is {quantity}."))
            .hint("Find out where it comes from; usage() never returns it."),
        _ => out_of_range("this quantity can not be priced exactly", error, format!("the quantity is {quantity}")),
    })?;
    let priced = pricing::price(&model, &amount).map_err(|error| {
        out_of_range("this price can not be computed exactly", error, format!("the quantity is {quantity}"))
    })?;
    Ok((model, priced))
}

/// For the CHECK constraint of `prices`. A row that is restored passes it as it did when it was written.
#[pg_extern(sql = "")]
fn check_price_text(model: Option<&str>, meter_key: Option<&str>) -> bool {
    raise(check(model.unwrap_or("null"), meter_key))
}

fn check(model: &str, meter_key: Option<&str>) -> Outcome<bool> {
    let model = Model::parse(model).map_err(|error| unsound(error, model, SqlState::ERRCODE_CHECK_VIOLATION))?;
    if meter_key.is_none() && model.needs_usage() {
        return Err(Fail::new(SqlState::ERRCODE_CHECK_VIOLATION, "this price needs a meter")
            .detail(format!("The model \"{}\" prices usage, and meter_key is null.", model.name()))
            .hint("Name the meter in meter_key, or use {\"model\":\"flat\",\"amount\":...} for a fee each month."));
    }
    Ok(true)
}

#[pg_extern(sql = "")]
fn currency_digits(currency: &str) -> i32 {
    raise(currency::digits(currency).map(u32::cast_signed).map_err(|error| no_money(error, currency)))
}

fn unsound(error: ModelError, model: &str, invalid: SqlState) -> Fail {
    let place = if error.path.is_empty() { String::new() } else { format!("See \"{}\" in: ", error.path) };
    match error.trouble {
        Trouble::Invalid => Fail::new(invalid, error.message).hint(
            "For instance {\"model\":\"per_unit\",\"unit_amount\":\"0.10\"} or {\"model\":\"flat\",\"amount\":\"20\"}.",
        ),
        Trouble::NotSupportedYet => Fail::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, error.message)
            .hint("This version prices by per_unit {unit_amount} and flat {amount, flat_at_zero}."),
    }
    .detail(format!("{place}{model}"))
}

fn unroundable(error: RoundError, priced: &Priced, code: &str) -> Fail {
    match error {
        RoundError::Currency(error) => no_money(error, code),
        RoundError::Range(error) => {
            out_of_range("this price can not be held in money", error, format!("the price is {} {code}", priced.amount))
        }
    }
}

fn no_money(error: CurrencyError, code: &str) -> Fail {
    let capitals = code.to_ascii_uppercase();
    let hint = if capitals != code && currency::digits(&capitals).is_ok() {
        format!("Codes are written in capitals: {capitals}.")
    } else {
        "Use a three-letter code of a currency in use, such as USD, EUR or JPY.".to_string()
    };
    Fail::parameter(format!("\"{code}\" is not a currency that money can be in"))
        .detail(format!("\"{code}\": {error}."))
        .hint(hint)
}

fn out_of_range(message: &str, error: QuantityError, value: String) -> Fail {
    Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, message)
        .detail(format!("{error}: {value}."))
        .hint("Exact results have up to 76 digits in all, quantities up to 24 decimals.")
}
