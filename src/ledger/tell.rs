//! Whoever waits for a customer's credit to change is told in the transaction that changes it: the outbox, alerts, top-up
//! rules (sql/79_alerts.sql). Nobody waits, most of the time: then it is one look.

use serde::Serialize;

use crate::pg::error::{Fail, Outcome};
use crate::pg::spi::{self, See};

use super::account::Account;

/// What has happened to a customer's credit.
#[derive(Serialize)]
pub struct Change<'a> {
    pub kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<i64>,
    /// What it is worth to the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
}

/// Tells of changes that have been written; `changes`: of each account.
pub fn tell<'a>(accounts: &[&Account], changes: impl Fn(&Account) -> Vec<Change<'a>>) -> Outcome<()> {
    let watched = spi::one("SELECT meterflow.credit_is_watched()", &[], See::Write, |row| row.bool(0))?;
    if watched != Some(true) {
        return Ok(());
    }
    for account in accounts {
        let changes = changes(account);
        if changes.is_empty() {
            continue;
        }
        let changes =
            serde_json::to_string(&changes).map_err(|error| Fail::corrupt(format!("changes as JSON: {error}")))?;
        spi::run(
            "SELECT meterflow.credit_changed($1, $2, $3::jsonb)",
            &[account.customer.as_str().into(), account.currency.as_str().into(), changes.into()],
            See::Write,
            |_| Ok(()),
        )?;
    }
    Ok(())
}
