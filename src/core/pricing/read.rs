//! Reading definitions of prices and usage. A definition is read once and strictly: a field that nobody would look at is
//! a price that nobody meant, so it is refused by name.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;

use super::Amount;

/// What is wrong with a definition, and where: `path` names the field, as in `tiers[2].up_to`, and is empty for the
/// definition as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelError {
    pub path: String,
    pub message: String,
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ModelError {}

/// The members of an object that have not been asked for yet. Raw, because a JSON number must reach the decimal
/// parser as it was written, not by way of a float.
pub(super) struct Fields<'a> {
    /// Where the object stands in the definition, with what joins a field to it: "tiers[2].".
    prefix: String,
    /// Whose fields these are, in messages: "a price".
    of: &'static str,
    members: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// The object that is the whole definition `of` something.
    pub fn whole(json: &'a str, of: &'static str, what: &str) -> Result<Fields<'a>, ModelError> {
        Fields::object(json, String::new(), of, what)
    }

    fn object(json: &'a str, path: String, of: &'static str, what: &str) -> Result<Fields<'a>, ModelError> {
        match serde_json::from_str(json) {
            Ok(members) => {
                let dot = if path.is_empty() { "" } else { "." };
                Ok(Fields { prefix: format!("{path}{dot}"), of, members })
            }
            Err(_) => Err(ModelError { path, message: format!("{what} must be a JSON object") }),
        }
    }

    /// A fault of the field `name`; the message goes on after its name.
    pub fn fault(&self, name: &str, message: &str) -> ModelError {
        ModelError { path: format!("{}{name}", self.prefix), message: format!("the {name} of {} {message}", self.of) }
    }

    /// A number that may be left out, written as a number or as a string that holds one.
    pub fn optional_number(&mut self, name: &str) -> Result<Option<Amount>, ModelError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        number(raw).map(Some).map_err(|why| self.fault(name, &why))
    }

    /// A required number that is not below zero: a price, a bound, an amount.
    pub fn amount(&mut self, name: &str) -> Result<Amount, ModelError> {
        self.optional_amount(name)?.ok_or_else(|| self.fault(name, "is missing"))
    }

    pub fn optional_amount(&mut self, name: &str) -> Result<Option<Amount>, ModelError> {
        let amount = self.optional_number(name)?;
        if amount.is_some_and(|amount| amount.is_negative()) {
            return Err(self.fault(name, "must not be negative"));
        }
        Ok(amount)
    }

    /// A number above zero that may be left out: a divisor, a size.
    pub fn optional_size(&mut self, name: &str) -> Result<Option<Amount>, ModelError> {
        let size = self.optional_number(name)?;
        if size.is_some_and(|size| !size.is_positive()) {
            return Err(self.fault(name, "must be above zero"));
        }
        Ok(size)
    }

    /// A whole number in a range that may be left out.
    pub fn optional_count(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, ModelError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        let text = if raw.starts_with('"') { string(raw).unwrap_or_default() } else { raw.to_string() };
        match text.parse() {
            Ok(count) if range.contains(&count) => Ok(Some(count)),
            _ => Err(self.fault(name, &format!("must be a whole number from {} to {}", range.start(), range.end()))),
        }
    }

    /// `true` or `false`, which it is when left out.
    pub fn flag(&mut self, name: &str) -> Result<bool, ModelError> {
        Ok(self.optional_flag(name)?.unwrap_or(false))
    }

    pub fn optional_flag(&mut self, name: &str) -> Result<Option<bool>, ModelError> {
        match self.take(name) {
            None => Ok(None),
            Some("false") => Ok(Some(false)),
            Some("true") => Ok(Some(true)),
            Some(_) => Err(self.fault(name, "must be true or false")),
        }
    }

    pub fn optional_text(&mut self, name: &str) -> Result<Option<String>, ModelError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        string(raw).map(Some).ok_or_else(|| self.fault(name, "must be a string"))
    }

    /// One of a few words, or nothing.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ModelError> {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                Err(self.fault(name, &format!("must be {}", words.join(" or "))))
            }
        }
    }

    pub fn optional_object(&mut self, name: &str) -> Result<Option<Fields<'a>>, ModelError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        let what = format!("the {name} of {}", self.of);
        Fields::object(raw, format!("{}{name}", self.prefix), self.of, &what).map(Some)
    }

    /// The objects of a list that may be left out.
    pub fn optional_objects(&mut self, name: &str) -> Result<Option<Vec<Fields<'a>>>, ModelError> {
        let items = self.optional_items(name)?;
        items.map(|items| items.into_iter().map(Item::object).collect()).transpose()
    }

    /// The items of a list that may be left out.
    pub fn optional_items(&mut self, name: &str) -> Result<Option<Vec<Item<'a>>>, ModelError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        let items: Vec<&'a RawValue> = serde_json::from_str(raw).map_err(|_| self.fault(name, "must be a list"))?;
        let item = |(i, raw): (usize, &'a RawValue)| Item {
            path: format!("{}{name}[{i}]", self.prefix),
            what: format!("each of the {name} of {}", self.of),
            of: self.of,
            raw: raw.get(),
        };
        Ok(Some(items.into_iter().enumerate().map(item).collect()))
    }

    /// The strings of a list that may be left out.
    pub fn optional_texts(&mut self, name: &str) -> Result<Option<Vec<String>>, ModelError> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        serde_json::from_str(raw).map(Some).map_err(|_| self.fault(name, "must be a list of strings"))
    }

    /// All members that are left, as they are written.
    pub fn rest(&mut self) -> Vec<(String, &'a str)> {
        std::mem::take(&mut self.members).into_iter().map(|(name, raw)| (name, raw.get())).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|raw| raw.get() != "null")
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        self.members.remove(name).map(RawValue::get).filter(|raw| *raw != "null")
    }

    /// Nothing may be left that nobody asked for.
    pub fn finish(self, what: &str) -> Result<(), ModelError> {
        match self.members.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(ModelError { path: format!("{}{name}", self.prefix), message: format!("{what} has no \"{name}\"") })
            }
        }
    }
}

/// An item of a list.
pub(super) struct Item<'a> {
    path: String,
    what: String,
    of: &'static str,
    pub raw: &'a str,
}

impl<'a> Item<'a> {
    pub fn object(self) -> Result<Fields<'a>, ModelError> {
        Fields::object(self.raw, self.path, self.of, &self.what)
    }

    pub fn number(self) -> Result<Amount, ModelError> {
        number(self.raw).map_err(|why| ModelError { path: self.path, message: format!("{} {why}", self.what) })
    }
}

/// A number, or what is wrong with it.
fn number(raw: &str) -> Result<Amount, String> {
    let text = if raw.starts_with('"') { string(raw) } else { Some(raw.to_string()) };
    let text = text.ok_or("is not a decimal number")?;
    Amount::parse(&text).map_err(|error| format!("is not usable: {error}"))
}

pub(super) fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}
