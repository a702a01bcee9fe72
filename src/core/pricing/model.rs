//! Price models as their JSON definitions say. A definition is read once and strictly: a field that nobody would look
//! at is a price that nobody meant, so it is refused by name.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;

use super::Amount;
use super::flat::Flat;
use super::per_unit::PerUnit;

#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    PerUnit(PerUnit),
    Flat(Flat),
}

/// Models of the design that have no arithmetic yet: they are refused where they are defined, never priced wrongly.
const PLANNED_MODELS: [&str; 8] =
    ["bucketed", "dynamic", "graduated", "graduated_percentage", "matrix", "package", "percentage", "volume"];

/// Fields that the planned models, or every model, will understand.
const PLANNED_FIELDS: [&str; 13] = [
    "fixed_amount",
    "free_units",
    "maximum_spend",
    "minimum_spend",
    "package_size",
    "percentage_discount",
    "per_transaction_max",
    "per_transaction_min",
    "rate",
    "rounding",
    "tiers",
    "unit_conversion",
    "usage_discount",
];

/// What is wrong with a definition, and where: `path` names the field, and is empty for the definition as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelError {
    pub path: String,
    pub message: String,
    pub trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Invalid,
    /// Part of the design, but not of this version.
    NotSupportedYet,
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ModelError {}

impl Model {
    pub fn parse(json: &str) -> Result<Model, ModelError> {
        let mut fields = Fields::read(json)?;
        let name = fields.text("model")?;
        let model = match name.as_str() {
            PER_UNIT => Model::PerUnit(PerUnit::read(&mut fields)?),
            FLAT => Model::Flat(Flat::read(&mut fields)?),
            name if PLANNED_MODELS.contains(&name) => {
                return Err(unsupported("model", format!("the price model \"{name}\" is not supported yet")));
            }
            name => return Err(invalid("model", format!("there is no price model \"{name}\""))),
        };
        fields.finish(model.name())?;
        Ok(model)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Model::PerUnit(_) => PER_UNIT,
            Model::Flat(_) => FLAT,
        }
    }

    /// Whether it needs to know how much was used. A flat price doesn't: without a meter it is a recurring fee.
    pub fn needs_usage(&self) -> bool {
        match self {
            Model::PerUnit(_) => true,
            Model::Flat(_) => false,
        }
    }
}

const PER_UNIT: &str = "per_unit";
const FLAT: &str = "flat";

/// The members of a definition that have not been asked for yet. Raw, because a JSON number must reach the decimal
/// parser as it was written, not by way of a float.
pub(super) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    fn read(json: &'a str) -> Result<Fields<'a>, ModelError> {
        serde_json::from_str(json)
            .map(Fields)
            .map_err(|_| invalid("", "a price model must be a JSON object".to_string()))
    }

    /// A required amount that is not below zero, as a number or a string that holds one.
    pub(super) fn price(&mut self, name: &str) -> Result<Amount, ModelError> {
        let raw = self.required(name)?;
        let text = if raw.starts_with('"') { self::string(raw) } else { Some(raw.to_string()) };
        let amount = text
            .ok_or_else(|| "is not a decimal number".to_string())
            .and_then(|text| Amount::parse(&text).map_err(|error| format!("is not usable: {error}")))
            .map_err(|why| invalid(name, format!("the {name} of a price {why}")))?;
        if amount.is_negative() {
            return Err(invalid(name, format!("the {name} of a price must not be negative")));
        }
        Ok(amount)
    }

    /// An optional `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ModelError> {
        match self.0.remove(name).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(name, format!("the {name} of a price must be true or false"))),
        }
    }

    fn text(&mut self, name: &str) -> Result<String, ModelError> {
        let raw = self.required(name)?;
        self::string(raw).ok_or_else(|| invalid(name, format!("the {name} of a price must be a string")))
    }

    fn required(&mut self, name: &str) -> Result<&'a str, ModelError> {
        match self.0.remove(name).map(RawValue::get) {
            None | Some("null") => Err(invalid(name, format!("the {name} of a price is missing"))),
            Some(raw) => Ok(raw),
        }
    }

    fn finish(self, model: &str) -> Result<(), ModelError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) if PLANNED_FIELDS.contains(&name.as_str()) => {
                Err(unsupported(&name, format!("\"{name}\" of a {model} price is not supported yet")))
            }
            Some(name) => Err(invalid(&name, format!("a {model} price has no \"{name}\""))),
        }
    }
}

fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

fn invalid(path: &str, message: String) -> ModelError {
    ModelError { path: path.to_string(), message, trouble: Trouble::Invalid }
}

fn unsupported(path: &str, message: String) -> ModelError {
    ModelError { path: path.to_string(), message, trouble: Trouble::NotSupportedYet }
}
