//! From usage to what is owed: charges of open periods, invoices, the billing run.
//!
//! ```text
//! load.rs ─ charges.rs ─ invoice.rs ─ store.rs
//!             └ quantities.rs (usage)    ├ run.rs: who is due, drafts and finalizing
//!                                        └ one_off.rs: lines given by hand
//! notes.rs: what became of an invoice, credit notes
//! ```
//! One computation serves them all: `current_charges`, `wallet_balance` and `preview_invoice` show what an invoice would
//! say. All verbs run with their caller's rights.

mod charges;
mod credit;
mod invoice;
mod load;
mod notes;
mod one_off;
mod open;
mod quantities;
mod reproduce;
#[allow(clippy::too_many_arguments)] // make_invoice() is called from SQL alone
mod run;
mod store;
mod tables;

use pgrx::prelude::*;

use crate::pg::datum::{timestamptz, unix_micros};
use crate::pg::error::{Outcome, raise};
use crate::pg::settings;

pub use load::{customers_of, plan_currency};
pub use open::{cost, open, reserve};

use charges::Purpose;
use invoice::{Bill, Settings};
use load::Whose;

/// What a customer's open periods cost so far, line by line; numbers as text.
#[pg_extern(sql = "")]
fn open_charge_rows(
    of_customer: &str,
    in_currency: Option<&str>,
    as_of: TimestampWithTimeZone,
) -> TableIterator<
    'static,
    (
        name!(subscription_id, Option<i64>),
        name!(price_id, Option<i64>),
        name!(meter_key, Option<String>),
        name!(period_start, Option<TimestampWithTimeZone>),
        name!(period_end, Option<TimestampWithTimeZone>),
        name!(quantity, String),
        name!(unrounded, String),
        name!(amount, String),
        name!(currency, String),
    ),
> {
    let at = unix_micros(as_of.into_inner());
    let rows = (|| {
        let tenant = settings::tenant();
        let adjust_for = Settings::read(&tenant)?.adjust_for;
        let mut rows = Vec::new();
        for account in load::accounts(&tenant, Whose::Customer(of_customer))? {
            if in_currency.is_some_and(|currency| currency != account.currency) || account.timeline.starts_at > at {
                continue;
            }
            let lines = charges::lines(&tenant, &account, at, adjust_for, Purpose::Open)?;
            for line in lines.into_iter().filter(charges::Line::says_something) {
                let span = line.applies.span();
                let money = crate::core::pricing::Money::new(line.minor().into(), account.digits);
                rows.push((
                    line.cell.map(|cell| cell.subscription_id),
                    line.cell.map(|cell| cell.price_id),
                    line.meter_key.clone(),
                    span.map(|(start, _)| timestamptz(start)),
                    span.map(|(_, end)| timestamptz(end)),
                    line.usage.quantity.to_string(),
                    line.unrounded()?.to_string(),
                    money.to_string(),
                    account.currency.clone(),
                ));
            }
        }
        Ok(rows)
    })();
    TableIterator::new(raise(rows))
}

/// The next invoice of a subscription as it would be at a time: rows of invoice_lines, as a JSON array.
#[pg_extern(sql = "")]
fn preview_invoice_rows(subscription_id: i64, payer: &str, currency: &str, at: TimestampWithTimeZone) -> String {
    let at = unix_micros(at.into_inner());
    let preview = || -> Outcome<String> {
        let tenant = settings::tenant();
        let bill = Bill {
            tenant: &tenant,
            payer,
            currency,
            at,
            purpose: Purpose::Due,
            subscription: Some(subscription_id),
            replaces: None,
            issued_at: at,
        };
        let (_, computed) = invoice::compute(&bill, &Settings::read(&tenant)?)?;
        computed.line_rows(&tenant, None)
    };
    raise(preview())
}
