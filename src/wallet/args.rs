//! Arguments of the verbs: what must be given, amounts and what they are in, and idempotency keys.

use crate::core::currency;
use crate::core::pricing::Amount;
use crate::ledger::{self, tables};
use crate::pg::datum::{rfc3339, sha256};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::numeric::NumericIn;
use crate::pg::scan::{Is, Reader, Table, Value};
use crate::pg::spi::{self, See};

/// An argument that must not be null.
pub fn need<T>(verb: &str, name: &str, value: Option<T>) -> Outcome<T> {
    value.ok_or_else(|| {
        Fail::new(SqlState::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{verb} needs its {name}"))
            .detail(format!("Missing: {name}."))
            .hint(format!("\\df+ meterflow.{verb} tells what it takes."))
    })
}

/// An idempotency key: not null and not empty.
pub fn key<'a>(verb: &str, key: Option<&'a str>) -> Outcome<&'a str> {
    key.filter(|key| !key.is_empty()).ok_or_else(|| {
        Fail::new(SqlState::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{verb} needs its idempotency_key"))
            .detail("Missing: idempotency_key.")
            .hint("It names this act: a retry with the same key never does it twice.")
    })
}

/// So much of a currency, or of a credit unit.
#[derive(Clone)]
pub struct Sum {
    /// The currency, or that of the unit.
    pub currency: String,
    pub unit: Option<String>,
    /// Decimals of the currency.
    pub digits: u32,
    pub amount: Amount,
}

impl Sum {
    /// More than zero, and money with no more decimals than its currency has.
    pub fn read(tenant: &str, verb: &str, amount: Option<NumericIn<'_>>, unit: Option<&str>) -> Outcome<Sum> {
        let given = need(verb, "amount", amount)?;
        let unit = need(verb, "currency", unit)?;
        let amount = given.amount().ok().filter(Amount::is_positive).ok_or_else(|| {
            Fail::parameter("an amount of credit must be a number above zero")
                .detail(format!("It is {}.", given.text()))
                .hint("A verb says by its name where credit goes; up to 24 decimals are kept.")
        })?;
        if let Ok(digits) = currency::digits(unit) {
            if amount.shortest().scale() > digits {
                return Err(Fail::parameter(format!("money in {unit} has no more than {digits} decimals"))
                    .detail(format!("The amount is {}.", given.text()))
                    .hint("Round the amount to what can be paid."));
            }
            return Ok(Sum { currency: unit.to_string(), unit: None, digits, amount });
        }
        let currency = spi::one(
            "SELECT currency FROM meterflow.credit_units WHERE tenant_id = $1 AND key = $2",
            &[tenant.into(), unit.into()],
            See::Latest,
            |row| row.text(0),
        )?
        .ok_or_else(|| {
            Fail::parameter(format!("\"{unit}\" is neither a currency nor a credit unit"))
                .detail(format!("Tenant \"{tenant}\" has no credit unit of this name."))
                .hint("Currencies are ISO 4217 codes; INSERT INTO meterflow.credit_units for units of your own.")
        })?;
        let digits = currency::digits(&currency)
            .map_err(|error| Fail::corrupt(format!("the currency of credit unit \"{unit}\": {error}")))?;
        Ok(Sum { currency, unit: Some(unit.to_string()), digits, amount })
    }

    /// In minor units; of a unit what it is worth is told by the purse.
    pub fn minor(&self) -> Outcome<i128> {
        crate::core::ledger::minor_of(&self.amount, self.digits, crate::core::pricing::Rounding::HalfUp)
            .map_err(ledger::too_large)
    }

    /// As users write it: 12.50 USD.
    pub fn text(&self) -> String {
        format!("{} {}", self.amount, self.unit.as_deref().unwrap_or(&self.currency))
    }
}

/// What a verb was asked, in a form that is equal for equal calls.
pub fn body(parts: &[&dyn ToBody]) -> String {
    let parts: Vec<serde_json::Value> = parts.iter().map(|part| part.to_body()).collect();
    serde_json::Value::Array(parts).to_string()
}

pub trait ToBody {
    fn to_body(&self) -> serde_json::Value;
}

impl ToBody for &str {
    fn to_body(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl ToBody for Option<&str> {
    fn to_body(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl ToBody for i64 {
    fn to_body(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl ToBody for Option<i64> {
    fn to_body(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl ToBody for Amount {
    fn to_body(&self) -> serde_json::Value {
        self.shortest().to_string().into()
    }
}

/// The transaction that has this key, in the statement's snapshot; an error if it was made for something else.
pub fn known(tenant: &str, key: &str, body: &str) -> Outcome<Option<i64>> {
    known_in(&tables::TRANSACTION_KEYS, "Wallet transaction", tenant, key, body)
}

/// As [`known`], of holds.
pub fn known_hold(tenant: &str, key: &str, body: &str) -> Outcome<Option<i64>> {
    known_in(&tables::HOLD_KEYS, "Hold", tenant, key, body)
}

fn known_in(table: &'static Table, noun: &str, tenant: &str, key: &str, body: &str) -> Outcome<Option<i64>> {
    let mut found = None;
    Reader::open(table)?.rows(&[(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Text(key))], |row| {
        let same = !row.is_null(1) && *row.bytes(1)? == *sha256(body);
        found = Some((row.int8(0)?, same, row.time(2)?));
        Ok(())
    })?;
    match found {
        None => Ok(None),
        Some((id, true, _)) => Ok(Some(id)),
        Some((id, false, at)) => {
            Err(used_otherwise(key).detail(format!("{noun} {id} of {} has this key.", rfc3339(at))))
        }
    }
}

/// The error for an idempotency key that has been used for something else.
pub fn used_otherwise(key: &str) -> Fail {
    Fail::new(SqlState::ERRCODE_UNIQUE_VIOLATION, format!("idempotency key \"{key}\" has been used for something else"))
        .hint("Send a retry just as the first call was; give another act a key of its own.")
}
