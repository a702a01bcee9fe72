//! Meters: what is read from an event, and into which group it falls.

use std::fmt::Write;

use super::decimal::Quantity;
use super::event::{Code, Fault, excerpt};
use super::filter::Filter;
use super::key::{self, Secret};
use super::properties::canonical;
use super::properties::{DefinitionError, Path, Tape, Value};
use super::state::{Kind, Sample};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1440 * MINUTE;

/// Monday, 1970-01-05: buckets of whole days are counted from here, so that buckets of seven days are weeks.
const BUCKET_ORIGIN: i64 = 4 * DAY;

/// A row of `meterflow.meters`.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a> {
    pub key: &'a str,
    pub event_name: &'a str,
    pub aggregation: &'a str,
    pub property: Option<&'a str>,
    pub filters: Option<&'a str>,
    pub dimensions: &'a [String],
    pub multiplier: Option<&'a str>,
    /// Microseconds.
    pub bucket_size: Option<i64>,
    pub percentile: Option<&'a str>,
    pub approximate: bool,
}

/// A meter ready to read events, valid from one moment up to another.
#[derive(Clone, Debug)]
pub struct Meter {
    pub id: i32,
    pub event_name: String,
    pub kind: Kind,
    /// Between 0 and 1 for the percentile kinds, else 0.
    pub percentile: Quantity,
    pub valid_from: i64,
    pub valid_to: i64,
    property: Option<Path>,
    filters: Filter,
    dimensions: Vec<Path>,
    multiplier: Option<Quantity>,
    bucket_size: Option<i64>,
}

impl Meter {
    pub fn compile(
        id: i32,
        definition: &Definition<'_>,
        valid_from: i64,
        valid_to: i64,
    ) -> Result<Meter, DefinitionError> {
        if definition.key.is_empty() {
            return Err(DefinitionError::new("key", "is empty; write the name the meter is asked for by"));
        }
        if definition.event_name.is_empty() {
            return Err(DefinitionError::new("event_name", "is empty; write the name of the events to count"));
        }
        let kind = kind(definition)?;
        Ok(Meter {
            id,
            event_name: definition.event_name.to_owned(),
            kind,
            percentile: percentile(definition, kind)?,
            valid_from,
            valid_to,
            property: property(definition, kind)?,
            filters: definition.filters.map_or_else(|| Ok(Filter::all()), Filter::compile)?,
            dimensions: dimensions(definition)?,
            multiplier: multiplier(definition, kind)?,
            bucket_size: bucket_size(definition, kind)?,
        })
    }

    pub fn applies(&self, event_name: &str, at: i64) -> bool {
        (self.valid_from..self.valid_to).contains(&at) && self.event_name == event_name
    }

    pub fn dimensions(&self) -> &[Path] {
        &self.dimensions
    }

    /// Reads an event. The meter passes over an event that its filters refuse or that lacks its property; a property
    /// of the wrong type is a fault, so that the sender learns of it.
    pub fn sample(&self, tape: &Tape<'_>, at: i64, seq: i64, secret: &Secret) -> Result<Option<Sample>, Fault> {
        if !self.filters.matches(tape) {
            return Ok(None);
        }
        let mut sample = Sample { value: Quantity::ONE, digest: 0, at, seq, bucket: self.bucket(at) };
        if let Some(path) = &self.property {
            let value = match tape.get(path) {
                None | Some(Value::Null) => return Ok(None),
                Some(value) => value,
            };
            if self.kind.needs_number() {
                sample.value = self.quantity(path, value)?;
            } else {
                sample.digest = key::digest(secret, value);
            }
        }
        Ok(Some(sample))
    }

    /// Appends the group of an event, see [`write_group`].
    pub fn group(&self, tape: &Tape<'_>, out: &mut String) {
        write_group(&self.dimensions, tape, out);
    }

    /// Start of the meter's own bucket around `at`; `at` itself if it has no buckets.
    fn bucket(&self, at: i64) -> i64 {
        match self.bucket_size {
            Some(size) => at.saturating_sub(at.saturating_sub(BUCKET_ORIGIN).rem_euclid(size)),
            None => at,
        }
    }

    fn quantity(&self, path: &Path, value: Value<'_>) -> Result<Quantity, Fault> {
        let refuse = |why: &dyn std::fmt::Display, shown: &str| {
            let mut message = format!("property {} ", path.as_str());
            let _ = write!(message, "must be a number: {why}: {}", excerpt(shown));
            Fault::new(Code::InvalidValue, message)
        };
        let text = match value {
            Value::Number(text) | Value::Text(text) => text,
            Value::Bool(value) => return Err(refuse(&"a boolean is none", if value { "true" } else { "false" })),
            Value::Array(branch) | Value::Object(branch) => {
                return Err(refuse(&format_args!("{} is none", value.kind()), branch.as_text()));
            }
            Value::Null => return Err(refuse(&"null is none", "null")),
        };
        let quantity = Quantity::parse(text).map_err(|error| refuse(&error, text))?;
        match self.multiplier {
            None => Ok(quantity),
            Some(factor) => {
                quantity.checked_mul(factor).map_err(|error| refuse(&format_args!("times {factor}: {error}"), text))
            }
        }
    }
}

/// Appends the values of the properties as a canonical JSON array; nothing if there are none.
pub fn write_group(dimensions: &[Path], tape: &Tape<'_>, out: &mut String) {
    let mut separator = '[';
    for path in dimensions {
        out.push(separator);
        separator = ',';
        // Writing into a string can't fail.
        let _ = canonical::write(tape.get(path).unwrap_or(Value::Null), out);
    }
    if separator == ',' {
        out.push(']');
    }
}

fn kind(definition: &Definition<'_>) -> Result<Kind, DefinitionError> {
    let kind = match (Kind::parse(definition.aggregation), definition.approximate) {
        (Some(Kind::Unique), true) => Kind::ApproxUnique,
        (Some(Kind::Percentile), true) => Kind::ApproxPercentile,
        (Some(kind @ (Kind::ApproxUnique | Kind::ApproxPercentile)), _) => {
            let exact = if kind == Kind::ApproxUnique { Kind::Unique } else { Kind::Percentile };
            let message = format!("{} is written as {} with approximate set to true", kind.name(), exact.name());
            return Err(DefinitionError::new("aggregation", message));
        }
        (Some(kind), false) => kind,
        (Some(kind), true) => {
            let message =
                format!("{} is always exact; only unique_count and percentile may be approximate", kind.name());
            return Err(DefinitionError::new("approximate", message));
        }
        (None, _) => {
            let names = Kind::ALL.iter().filter(|kind| !matches!(kind, Kind::ApproxUnique | Kind::ApproxPercentile));
            let names: Vec<&str> = names.map(|kind| kind.name()).collect();
            let message = format!("{:?} is unknown; write one of {}", definition.aggregation, names.join(", "));
            return Err(DefinitionError::new("aggregation", message));
        }
    };
    Ok(kind)
}

fn property(definition: &Definition<'_>, kind: Kind) -> Result<Option<Path>, DefinitionError> {
    match (definition.property, kind) {
        (None, Kind::Count) => Ok(None),
        (Some(_), Kind::Count) => {
            let message = "must be null: count counts events; to count values write unique_count, to add them up sum";
            Err(DefinitionError::new("property", message))
        }
        (None, _) => {
            let message = format!("is missing: {} needs the name of the property it reads", kind.name());
            Err(DefinitionError::new("property", message))
        }
        (Some(name), _) => Path::parse(name).map(Some).map_err(|error| DefinitionError::new("property", error.message)),
    }
}

fn dimensions(definition: &Definition<'_>) -> Result<Vec<Path>, DefinitionError> {
    let mut paths = Vec::with_capacity(definition.dimensions.len());
    for (index, name) in definition.dimensions.iter().enumerate() {
        let at = format!("dimensions[{}]", index + 1);
        let path = Path::parse(name).map_err(|error| DefinitionError::new(&at, error.message))?;
        if paths.contains(&path) {
            return Err(DefinitionError::new(at, format!("names {name} twice; leave one out")));
        }
        paths.push(path);
    }
    Ok(paths)
}

fn multiplier(definition: &Definition<'_>, kind: Kind) -> Result<Option<Quantity>, DefinitionError> {
    let Some(text) = definition.multiplier else {
        return Ok(None);
    };
    if !kind.needs_number() {
        let message = format!("must be null: {} has no number to multiply", kind.name());
        return Err(DefinitionError::new("multiplier", message));
    }
    match Quantity::parse(text) {
        Ok(factor) if !factor.is_zero() => Ok(Some(factor)),
        Ok(_) => {
            Err(DefinitionError::new("multiplier", "is 0, which would make every value 0; leave it null for none"))
        }
        Err(error) => Err(DefinitionError::new("multiplier", format!("{error}: {text}; write a number such as 0.001"))),
    }
}

fn bucket_size(definition: &Definition<'_>, kind: Kind) -> Result<Option<i64>, DefinitionError> {
    let refuse = |message: &str| Err(DefinitionError::new("bucket_size", message));
    match (definition.bucket_size, matches!(kind, Kind::BucketSum | Kind::BucketMax)) {
        (None, false) => Ok(None),
        (None, true) => refuse("is missing: write the length of a bucket, such as 1 hour"),
        (Some(_), false) => refuse("must be null: only bucket_sum and bucket_max have buckets"),
        (Some(size), true) if !(MINUTE..=31 * DAY).contains(&size) => refuse("must be between 1 minute and 31 days"),
        (Some(size), true) if size % MINUTE == 0 && (DAY % size == 0 || size % DAY == 0) => Ok(Some(size)),
        (Some(_), true) => refuse("must be whole minutes that divide a day, such as 15 minutes, or whole days"),
    }
}

fn percentile(definition: &Definition<'_>, kind: Kind) -> Result<Quantity, DefinitionError> {
    let refuse = |message: &str| Err(DefinitionError::new("percentile", message));
    match (definition.percentile, matches!(kind, Kind::Percentile | Kind::ApproxPercentile)) {
        (None, false) => Ok(Quantity::ZERO),
        (None, true) => refuse("is missing: write a fraction, 0.95 for the 95th percentile"),
        (Some(_), false) => refuse("must be null: only the aggregation percentile has one"),
        (Some(text), true) => match Quantity::parse(text) {
            Ok(fraction) if fraction > Quantity::ZERO && fraction <= Quantity::ONE => Ok(fraction),
            _ => refuse("must be above 0 and at most 1: 0.95 for the 95th percentile"),
        },
    }
}
