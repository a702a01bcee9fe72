//! How errors reach the user: a standard SQLSTATE, what was wrong in DETAIL, the way out in HINT.

use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe};

pub use pgrx::PgSqlErrorCode as SqlState;
use pgrx::pg_sys::panic::ErrorReport;

/// An error on its way to the user; `?` in a `#[pg_extern]` that returns `Result<_, Fail>` raises it.
#[derive(Debug)]
pub struct Fail {
    state: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

pub type Outcome<T> = Result<T, Fail>;

impl Fail {
    pub fn new(state: SqlState, message: impl Into<String>) -> Fail {
        Fail { state, message: message.into(), detail: None, hint: None }
    }

    /// A parameter that can't be used: 22023.
    pub fn parameter(message: impl Into<String>) -> Fail {
        Fail::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    /// Stored data or catalogue that can't be: XX001. Says what was found; never the user's fault.
    pub fn corrupt(message: impl Into<String>) -> Fail {
        Fail::new(SqlState::ERRCODE_DATA_CORRUPTED, message)
            .hint("Run SELECT * FROM meterflow.verify() and report this.")
    }

    pub fn state(&self) -> SqlState {
        self.state
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// Message and detail as one text, for errors that are told in a row.
    pub fn explained(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.message),
            None => self.message.clone(),
        }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Fail {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Fail {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Fail> for ErrorReport {
    fn from(fail: Fail) -> ErrorReport {
        let mut report = ErrorReport::new(fail.state, fail.message, "meterflow");
        if let Some(detail) = fail.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = fail.hint {
            report = report.set_hint(hint);
        }
        report
    }
}

/// Raises the error of a verb: the one place where a `Fail` becomes a PostgreSQL ERROR.
pub fn raise<T>(outcome: Outcome<T>) -> T {
    match outcome {
        Ok(value) => value,
        Err(fail) => {
            ErrorReport::from(fail).report(pgrx::PgLogLevel::ERROR);
            unreachable!("ERROR does not return")
        }
    }
}

/// Does the work, and where a unique index refuses a row of it, says why in words of its own. Nothing goes on after that:
/// what the error has left half done goes with the transaction.
pub fn or_if_taken<T>(
    work: impl FnOnce() -> Outcome<T>,
    why: impl Fn() -> Fail + UnwindSafe + RefUnwindSafe,
) -> Outcome<T> {
    pgrx::PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_when(SqlState::ERRCODE_UNIQUE_VIOLATION, |_| raise(Err(why())))
        .execute()
}
