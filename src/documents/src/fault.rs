//! What went wrong, in the parts of a PostgreSQL error.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The document is not what `Document` says.
    Document,
    /// The template does not parse.
    Syntax,
    /// The template parses, and fails on this document.
    Template,
    /// It would take more than is given.
    Limit,
    /// Our own fault.
    Internal,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Fault {
    pub about: About,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Fault {
    pub fn new(about: About, message: impl Into<String>) -> Fault {
        Fault { about, message: message.into(), detail: None, hint: None }
    }

    pub fn internal(message: impl Into<String>) -> Fault {
        Fault::new(About::Internal, message)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Fault {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}
