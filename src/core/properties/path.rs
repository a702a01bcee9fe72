//! Names of properties, and the error that explains a definition that can't be used.

use std::fmt;

use super::{Branch, Value};

const MAX_BYTES: usize = 512;
/// Every dot is a place where a key may end; a lookup may try them all.
const MAX_DOTS: usize = 8;

/// What is wrong in a definition, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionError {
    /// The column, or the place inside its JSON: `filters.bytes.gte`.
    pub path: String,
    pub message: String,
}

impl DefinitionError {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> DefinitionError {
        DefinitionError { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for DefinitionError {}

/// The name of a property; dots lead into nested objects: `usage.tokens.input`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    pub fn parse(name: &str) -> Result<Path, DefinitionError> {
        let refuse = |message: &str| Err(DefinitionError::new(name, message));
        if name.is_empty() {
            return refuse("is empty; write the name of a property");
        }
        if name.len() > MAX_BYTES {
            return refuse("is longer than 512 bytes");
        }
        if name.bytes().filter(|byte| *byte == b'.').count() > MAX_DOTS {
            return refuse("has more than 8 dots");
        }
        Ok(Path(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Finds `name` in an object. At every level a key that has the dots in it wins over a nested object, and a longer
/// such key over a shorter one.
pub(super) fn find<'t>(object: Branch<'t>, name: &str) -> Option<Value<'t>> {
    if let Some(value) = object.member(name) {
        return Some(value);
    }
    name.rmatch_indices('.').find_map(|(dot, _)| match object.member(name.get(..dot)?) {
        Some(Value::Object(inner)) => find(inner, name.get(dot + 1..)?),
        _ => None,
    })
}
