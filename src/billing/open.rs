//! What a customer owes by now and has not been billed for, as the invoice that it would be: coupons, promotional credit,
//! taxes and all. The balance of a wallet is what such an invoice leaves of it.

use crate::core::pricing::{Amount, Silent, price_with};
use crate::ledger;
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::rating::models;

use super::charges::{self, Line, Purpose};
use super::credit::{self, Credit};
use super::invoice::{self, Bill, Settings};
use super::load::{self, Whose};

/// An invoice of everything that is open.
pub struct Open {
    /// Wallets with what open charges use taken out; `taken` of each lot, in minor units.
    pub account: ledger::Account,
    /// What no credit pays, in minor units; below zero: what it gives back.
    pub due: i128,
    /// What it comes to with coupons, promotional credit and taxes.
    pub total: i128,
}

/// Computes it in the statement's snapshot, as of a time. `more`: as if so much more of a meter had been used already.
/// `promotional`: with the credit that lowers what it comes to; else without, as if it had been spent.
pub fn open(
    tenant: &str,
    payer: &str,
    currency: &str,
    as_of: i64,
    more: Option<(&str, &Amount)>,
    account: ledger::Account,
    promotional: bool,
) -> Outcome<Open> {
    let bill = Bill {
        tenant,
        payer,
        currency,
        at: as_of,
        purpose: Purpose::Open,
        subscription: None,
        replaces: None,
        issued_at: as_of,
    };
    let mut lines = Vec::new();
    let adjust_for = Settings::read(tenant)?.adjust_for;
    let mut found = more.is_none();
    for account in load::accounts(tenant, Whose::Payer(payer))? {
        if account.currency != currency || account.timeline.starts_at > as_of {
            continue;
        }
        for mut line in charges::lines(tenant, &account, as_of, adjust_for, Purpose::Open)? {
            if let Some((meter, quantity)) = more
                && line.meter_key.as_deref() == Some(meter)
                && line.cell.is_some_and(|cell| cell.cycle_start <= as_of && as_of < cell.cycle_end)
            {
                add_usage(&mut line, quantity, account.digits)?;
                found = true;
            }
            if line.says_something() {
                lines.push(line);
            }
        }
    }
    if !found {
        let meter = more.map(|(meter, _)| meter).unwrap_or_default();
        return Err(Fail::new(
            SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("customer \"{payer}\" has no price for meter \"{meter}\""),
        )
        .detail(format!("None of its subscriptions in {currency} charges for it now."))
        .hint("Subscribe the customer to a plan that does, or hold an amount of money."));
    }
    // Credit that has expired since still pays for periods in which it lived.
    let since = lines.iter().map(|line| credit::time_of(line, as_of)).fold(as_of, i64::min);
    let mut account = if since < as_of {
        let mut account = ledger::load(tenant, payer, currency, as_of, since)?;
        account.purse.settle().map_err(ledger::too_large)?;
        account
    } else {
        account
    };
    account.purse.lots.retain(|lot| promotional || !lot.promotional);
    let computed = invoice::complete(&bill, lines, Credit::with_held(account))?;
    Ok(Open {
        due: computed.invoice.amount_due - computed.invoice.account_credit,
        total: computed.invoice.total,
        account: computed.credit.into_account(),
    })
}

/// Prices a line as if more had been used.
fn add_usage(line: &mut Line, quantity: &Amount, digits: u32) -> Outcome<()> {
    let key = line.price_key.clone().unwrap_or_default();
    let model = models::of_text(line.model.as_deref().unwrap_or_default())?;
    let needs = model.needs();
    if needs.groups.is_some() || needs.buckets.is_some() || needs.values || needs.events {
        return Err(Fail::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("what more usage of price \"{key}\" costs can not be told beforehand"),
        )
        .detail("It depends on more than a quantity: on dimensions, buckets or the value of each event.")
        .hint("Hold an amount of money."));
    }
    let too_large = |error: crate::core::decimal::QuantityError| ledger::too_large(error);
    line.usage.quantity = line.usage.quantity.checked_add(quantity).map_err(too_large)?;
    let priced =
        price_with(&model, &line.usage, &line.terms, &mut Silent).map_err(|error| charges::unpriceable(&key, error))?;
    line.due = charges::rounded(&key, charges::worth(&key, priced.amount, line.credit_rate.as_ref())?, digits)?;
    Ok(())
}
