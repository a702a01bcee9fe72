//! Prices in SQL: `price`, `explain_price`, `price_usage`, `explain_price_usage` and the checks of the tables that hold
//! models and currencies. All arithmetic is `core::pricing`'s; this is only the way in and out.
//!
//! Models are read from the text of their jsonb: pgrx reads `jsonb` into floats, which would take digits off a price.
//! A model that was read is kept (`models`), so a query over many rows reads it once.

mod calendar;
pub mod models;

use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Map, Value, json};

use crate::core::currency::{self, CurrencyError};
use crate::core::decimal::QuantityError;
use crate::core::pricing::{
    self, Amount, EXAMPLES, GroupNeeds, Model, ModelError, Needs, PeriodUsage, PriceError, Priced, Recorder,
    RoundError, Silent, Step, Terms, Usage,
};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::numeric::{JsonbIn, NumericIn, NumericOut};

#[pg_extern(sql = "")]
fn price(model: Option<JsonbIn<'_>>, quantity: Option<NumericIn<'_>>, currency: Option<&str>) -> Option<NumericOut> {
    let (model, quantity) = (model?, quantity?);
    Some(raise(models::of_jsonb(&model).and_then(|model| {
        let usage = of_quantity(quantity)?;
        let priced = pricing::price(&model, &usage).map_err(|error| unpriceable(error, &usage))?;
        amount_of(&priced, currency)
    })))
}

#[pg_extern(sql = "")]
fn explain_price(model: Option<JsonbIn<'_>>, quantity: Option<NumericIn<'_>>, currency: Option<&str>) -> Option<JsonB> {
    let (model, quantity) = (model?, quantity?);
    let explain = || {
        let model = models::of_jsonb(&model)?;
        let usage = of_quantity(quantity)?;
        explained(&model, &PeriodUsage { usage, terms: Terms::default(), before: None }, currency)
    };
    Some(JsonB(raise(explain())))
}

#[pg_extern(sql = "")]
fn price_usage(model: Option<JsonbIn<'_>>, usage: Option<JsonbIn<'_>>, currency: Option<&str>) -> Option<NumericOut> {
    let (model, usage) = (model?, usage?);
    let price = || {
        let model = models::of_jsonb(&model)?;
        let priced = price_period(&model, &period_usage(&usage.text())?, &mut Silent)?;
        amount_of(&priced, currency)
    };
    Some(raise(price()))
}

#[pg_extern(sql = "")]
fn explain_price_usage(
    model: Option<JsonbIn<'_>>,
    usage: Option<JsonbIn<'_>>,
    currency: Option<&str>,
) -> Option<JsonB> {
    let (model, usage) = (model?, usage?);
    let explain = || explained(&*models::of_jsonb(&model)?, &period_usage(&usage.text())?, currency);
    Some(JsonB(raise(explain())))
}

/// What must be collected to price usage by a model.
#[pg_extern(sql = "")]
fn price_needs(model: JsonbIn<'_>) -> JsonB {
    let model = raise(models::of_jsonb(&model));
    let mut needs = needs(&model.needs());
    needs.insert("meter".to_string(), json!(model.needs_meter()));
    needs.insert("dimensions".to_string(), json!(model.needs().dimensions()));
    needs.insert("commitment_periods".to_string(), json!(model.commitment_periods()));
    JsonB(needs.into())
}

fn needs(needs: &Needs) -> Map<String, Value> {
    let mut members = Map::new();
    for (name, needed) in [("quantity", needs.quantity), ("events", needs.events), ("values", needs.values)] {
        members.extend(needed.then(|| (name.to_string(), json!(true))));
    }
    if let Some(GroupNeeds { dimensions, each }) = &needs.groups {
        let mut groups = self::needs(each);
        groups.insert("by".to_string(), json!(dimensions));
        members.insert("groups".to_string(), groups.into());
    }
    if let Some(each) = &needs.buckets {
        members.insert("buckets".to_string(), self::needs(each).into());
    }
    members
}

#[inline]
fn of_quantity(quantity: NumericIn<'_>) -> Outcome<Usage> {
    quantity.amount().map(Usage::of).map_err(|error| match error {
        // `numeric` holds nothing else that is no number.
        QuantityError::Syntax => Fail::parameter("a quantity must be a finite number")
            .detail(format!("It is {}.", quantity.text()))
            .hint("Find out where it comes from; usage() never returns it."),
        _ => out_of_range(
            "this quantity can not be priced exactly",
            error,
            format!("the quantity is {}", quantity.text()),
        ),
    })
}

fn period_usage(text: &str) -> Outcome<PeriodUsage> {
    PeriodUsage::parse(text).map_err(|error| {
        unsound(error, text, SqlState::ERRCODE_INVALID_PARAMETER_VALUE).hint(
            "For instance {\"quantity\":12}, {\"values\":[10,2.5]}, {\"buckets\":[3,8]} or {\"groups\":[{\"by\":{\"region\":\"eu\"},\"quantity\":12}]}.",
        )
    })
}

fn price_period(model: &Model, period: &PeriodUsage, recorder: &mut impl Recorder) -> Outcome<Priced> {
    let PeriodUsage { usage, terms, before } = period;
    match before {
        None => pricing::price_with(model, usage, terms, recorder),
        Some(earlier) => pricing::price_rest(model, usage, terms, earlier.before(), recorder),
    }
    .map_err(|error| unpriceable(error, usage))
}

fn explained(model: &Model, period: &PeriodUsage, currency: Option<&str>) -> Outcome<serde_json::Value> {
    let mut steps: Vec<Step> = Vec::new();
    let priced = price_period(model, period, &mut steps)?;
    pricing::explain(model, &period.usage, &steps, &priced, currency)
        .map_err(|error| unroundable(error, &priced.amount, currency.unwrap_or_default()))
}

#[inline]
fn amount_of(priced: &Priced, currency: Option<&str>) -> Outcome<NumericOut> {
    match currency {
        None => Ok(NumericOut::from(&priced.amount)),
        Some(code) => {
            let money = priced.in_currency(code).map_err(|error| unroundable(error, &priced.amount, code))?;
            Ok(NumericOut::from(money))
        }
    }
}

/// For the CHECK constraint of `prices`. A row that is restored passes it as it did when it was written.
#[pg_extern(sql = "")]
fn check_price_text(model: Option<&str>, meter_key: Option<&str>) -> bool {
    raise(check(model.unwrap_or("null"), meter_key))
}

fn check(model: &str, meter_key: Option<&str>) -> Outcome<bool> {
    let model = Model::parse(model).map_err(|error| unreadable(error, model, SqlState::ERRCODE_CHECK_VIOLATION))?;
    // Without a meter it is a fee: of the quantity subscribed to, and of nothing else.
    let quantity_only = Needs { quantity: true, ..Needs::default() };
    if meter_key.is_none() && model.needs() != quantity_only {
        return Err(Fail::new(SqlState::ERRCODE_CHECK_VIOLATION, "this price needs a meter")
            .detail(format!(
                "The model \"{}\" looks at more of usage than a quantity, and meter_key is null.",
                model.name()
            ))
            .hint("Name the meter in meter_key, or use {\"model\":\"flat\",\"amount\":...} for a fee each month."));
    }
    Ok(true)
}

#[pg_extern(sql = "")]
fn currency_digits(currency: &str) -> i32 {
    raise(currency::digits(currency).map(u32::cast_signed).map_err(|error| no_money(error, currency)))
}

fn unpriceable(error: PriceError, usage: &Usage) -> Fail {
    match error {
        PriceError::Range(error) => {
            out_of_range("this price can not be computed exactly", error, format!("the quantity is {}", usage.quantity))
        }
        PriceError::Missing(part) => Fail::parameter("this price needs to know more of the usage")
            .detail(format!("It needs {part}."))
            .hint("Give it to price_usage(model, usage) or explain_price_usage(model, usage)."),
    }
}

fn unreadable(error: ModelError, model: &str, state: SqlState) -> Fail {
    let named = serde_json::from_str::<Value>(model).ok();
    let named = named.as_ref().and_then(|model| model["model"].as_str());
    let hint = match EXAMPLES.iter().find(|(name, _)| Some(*name) == named) {
        Some((_, example)) => format!("For instance {example}."),
        None => format!("The models are {}.", EXAMPLES.map(|(name, _)| name).join(", ")),
    };
    unsound(error, model, state).hint(hint)
}

fn unsound(error: ModelError, json: &str, state: SqlState) -> Fail {
    let place = if error.path.is_empty() { String::new() } else { format!("See \"{}\" in: ", error.path) };
    Fail::new(state, error.message).detail(format!("{place}{json}"))
}

fn unroundable(error: RoundError, amount: &Amount, code: &str) -> Fail {
    match error {
        RoundError::Currency(error) => no_money(error, code),
        RoundError::Range(error) => {
            out_of_range("this price can not be held in money", error, format!("the price is {amount} {code}"))
        }
    }
}

/// The error for a code that is not of a currency.
pub fn no_money(error: CurrencyError, code: &str) -> Fail {
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
