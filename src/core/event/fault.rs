//! Why an event was refused.

use std::fmt;

use crate::core::properties::scan::Flaw;

/// Stable names: senders branch on them and `rejected_events` keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    InvalidEvent,
    MissingTransactionId,
    MissingCustomerId,
    MissingEventName,
    InvalidTimestamp,
    TooOld,
    InFuture,
    InvalidProperties,
    /// Text that PostgreSQL can't store.
    InvalidText,
    InvalidNumber,
    /// A metered property that is not what its meter needs.
    InvalidValue,
    TooLarge,
    TooDeep,
    /// The transaction id was accepted before, with another payload.
    Conflict,
    TooManyGroups,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Code::InvalidEvent => "invalid_event",
            Code::MissingTransactionId => "missing_transaction_id",
            Code::MissingCustomerId => "missing_customer_id",
            Code::MissingEventName => "missing_event_name",
            Code::InvalidTimestamp => "invalid_timestamp",
            Code::TooOld => "too_old",
            Code::InFuture => "in_future",
            Code::InvalidProperties => "invalid_properties",
            Code::InvalidText => "invalid_text",
            Code::InvalidNumber => "invalid_number",
            Code::InvalidValue => "invalid_value",
            Code::TooLarge => "too_large",
            Code::TooDeep => "too_deep",
            Code::Conflict => "conflict",
            Code::TooManyGroups => "too_many_groups",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// For the sender: names the offending value.
    pub message: String,
    pub transaction_id: Option<String>,
}

impl Fault {
    #[cold]
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into(), transaction_id: None }
    }

    #[cold]
    pub(in crate::core) fn of_text(text: &str, flaw: Flaw) -> Fault {
        let rest = text.get(text.floor_char_boundary(flaw.at)..).unwrap_or_default();
        let message = match rest {
            "" => flaw.what.to_owned(),
            _ => format!("{} at byte {}: {}", flaw.what, flaw.at, excerpt(rest)),
        };
        Fault::new(flaw.code, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Fault {}

const EXCERPT: usize = 60;

/// The beginning of a value, enough to recognise it by.
pub fn excerpt(text: &str) -> String {
    match text.get(..text.floor_char_boundary(EXCERPT)) {
        Some(start) if start.len() < text.len() => format!("{start}…"),
        _ => text.to_owned(),
    }
}
