//! Whoever waits for a customer's credit to change is told in the transaction that changes it: the outbox, alerts, top-up
//! rules (sql/79_alerts.sql). Nobody waits, most of the time: then it is one look.

use std::cell::RefCell;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::pg::error::{Fail, Outcome};
use crate::pg::kept::{Cache, kept};
use crate::pg::scan::{Is, Reader, Value};
use crate::pg::spi::{self, See};

use super::account::Account;
use super::tables;

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
pub fn tell<'a>(tenant: &str, accounts: &[&Account], changes: impl Fn(&Account) -> Vec<Change<'a>>) -> Outcome<()> {
    if !is_watched(tenant)? {
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

thread_local! {
    /// Whether there is anybody to tell.
    static WATCHED: Cache<bool> = RefCell::default();
}

/// The tables that it is read from; their triggers announce what changes.
const WATCHERS: &[&str] = &["alerts", "top_up_rules", "outbox_consumers"];

/// Whether there is anybody to tell: an alert of a balance, a rule of top-ups, a consumer that wants every change.
fn is_watched(tenant: &str) -> Outcome<bool> {
    WATCHED.with(|known| kept(known, WATCHERS, tenant, || look_for_watchers(tenant)))
}

fn look_for_watchers(tenant: &str) -> Outcome<bool> {
    let of = (0, Is::Equal, Value::Text(tenant));
    let mut watched = Reader::open_as_owner(&tables::ALERTS)?.any(&[of, (1, Is::Equal, Value::Text("balance"))])?;
    let mut each = |wants: bool| {
        watched = watched || wants;
        if watched { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    Reader::open_as_owner(&tables::TOP_UP_RULES)?.until(&[of], |row| Ok(each(row.bool(0)?)))?;
    Reader::open_as_owner(&tables::CONSUMERS)?.until(&[of], |row| {
        let kinds = row.get::<Vec<Option<String>>>(0);
        Ok(each(kinds.is_none_or(|kinds| kinds.iter().flatten().any(|kind| kind == "wallet_balance_changed"))))
    })?;
    Ok(watched)
}
