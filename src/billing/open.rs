//! What a customer owes by now and has not been billed for, as the invoice that it would be: coupons, promotional credit,
//! taxes and all. The balance of a wallet is what such an invoice leaves of it.

use crate::core::ledger::Taken;
use crate::core::pricing::{Amount, Silent, price_with};
use crate::ledger::{self, Reserve};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::rating::models;

use super::charges::{self, Line, Purpose};
use super::credit::{self, Credit};
use super::invoice::{self, Bill, Settings};
use super::load::{self, Whose};

/// Everything that is open, by line.
pub struct Charges {
    lines: Vec<Line>,
    /// The time of the oldest: credit that has expired since still pays for periods in which it lived.
    pub since: i64,
}

/// An invoice of everything that is open.
pub struct Open {
    /// Wallets with what open charges use taken out.
    pub account: ledger::Account,
    /// What that is.
    pub taken: Vec<Taken>,
    /// What no credit pays, in minor units; below zero: what it gives back.
    pub due: i128,
}

/// What is open in the statement's snapshot, as of the time of an account, and as it was then if the account is of the past.
pub fn open(account: &ledger::Account) -> Outcome<Charges> {
    let bill = bill(account);
    let lines = lines(&bill, None)??;
    let since = lines.iter().map(|line| credit::time_of(line, bill.at)).fold(bill.at, i64::min);
    Ok(Charges { lines, since })
}

impl Charges {
    /// Computes the invoice, paid with what is in the account's purse.
    pub fn invoice(self, account: ledger::Account) -> Outcome<Open> {
        let named = account.named();
        let computed = invoice::complete(&bill(&named), self.lines, Credit::with_held(account))?;
        let due = computed.invoice.amount_due - computed.invoice.account_credit;
        let (account, taken) = computed.credit.into_account();
        Ok(Open { account, taken, due })
    }
}

/// What more usage comes to, or why that can not be told.
type Told<T> = Result<T, Fail>;

/// What a quantity of a meter costs the customer on top of all it has used and so much more, in minor units: with tiers,
/// coupons and taxes as they would be. Without promotional credit: that is set aside as all credit is, and two who both
/// counted on it would spend it twice.
pub fn cost(account: &ledger::Account, meter: &str, more: &Amount, quantity: &Amount) -> Outcome<i128> {
    told(account, meter, more, quantity)?
}

/// Sets more aside for quantities that holds are for, where they cost more now, on top of all that has been used since, than
/// when they were asked for: a hold that was free may have taken the place of one that was not. Where that can no longer be
/// told, what was set aside is all there is.
pub fn reserve(account: &mut ledger::Account) -> Outcome<()> {
    let promised = std::mem::take(&mut account.promised);
    for promised in promised.into_iter().filter(|promised| promised.quantity.is_positive()) {
        let worth = told(account, &promised.meter, &Amount::ZERO, &promised.quantity)?.unwrap_or_default();
        if worth > promised.minor {
            let (minor, at) = (worth - promised.minor, account.purse.as_of);
            account.held.push(Reserve { meter: Some(promised.meter), minor, at });
        }
    }
    Ok(())
}

fn told(account: &ledger::Account, meter: &str, more: &Amount, quantity: &Amount) -> Outcome<Told<i128>> {
    let mut empty = account.clone();
    empty.purse.lots.clear();
    let bill = bill(account);
    let total = |quantity: &Amount| -> Outcome<Told<i128>> {
        let lines = match lines(&bill, Some((meter, quantity)))? {
            Ok(lines) => lines,
            Err(untold) => return Ok(Err(untold)),
        };
        Ok(Ok(invoice::complete(&bill, lines, Credit::with_held(empty.clone()))?.invoice.total))
    };
    let with = more.checked_add(quantity).map_err(ledger::too_large)?;
    let (with, without) = (total(&with)?, total(more)?);
    Ok(with.and_then(|with| Ok((with - without?).max(0))))
}

fn bill(account: &ledger::Account) -> Bill<'_> {
    let as_of = account.purse.as_of;
    let purpose = if account.past { Purpose::Past } else { Purpose::Open };
    let (tenant, payer, currency) = (&account.tenant, &account.customer, &account.currency);
    Bill { tenant, payer, currency, at: as_of, purpose, subscription: None, replaces: None, issued_at: as_of }
}

/// What is open; `more`: as if so much more of a meter had been used already.
fn lines(bill: &Bill<'_>, more: Option<(&str, &Amount)>) -> Outcome<Told<Vec<Line>>> {
    let mut lines = Vec::new();
    let adjust_for = Settings::read(bill.tenant)?.adjust_for;
    let mut found = more.is_none();
    for account in load::accounts(bill.tenant, Whose::Payer(bill.payer))? {
        if account.currency != bill.currency || account.timeline.starts_at > bill.at {
            continue;
        }
        for mut line in charges::lines(bill.tenant, &account, bill.at, adjust_for, bill.purpose)? {
            if let Some((meter, quantity)) = more
                && line.meter_key.as_deref() == Some(meter)
                && line.cell.is_some_and(|cell| cell.cycle_start <= bill.at && bill.at < cell.cycle_end)
            {
                if let Err(untold) = add_usage(&mut line, quantity, account.digits)? {
                    return Ok(Err(untold));
                }
                found = true;
            }
            if line.says_something() {
                lines.push(line);
            }
        }
    }
    if !found {
        let meter = more.map(|(meter, _)| meter).unwrap_or_default();
        return Ok(Err(Fail::new(
            SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("customer \"{}\" has no price for meter \"{meter}\"", bill.payer),
        )
        .detail(format!("None of its subscriptions in {} charges for it now.", bill.currency))
        .hint("Subscribe the customer to a plan that does, or hold an amount of money.")));
    }
    Ok(Ok(lines))
}

/// Prices a line as if more had been used.
fn add_usage(line: &mut Line, quantity: &Amount, digits: u32) -> Outcome<Told<()>> {
    let key = line.price_key.clone().unwrap_or_default();
    let model = models::of_text(line.model.as_deref().unwrap_or_default())?;
    let needs = model.needs();
    if needs.groups.is_some() || needs.buckets.is_some() || needs.values || needs.events {
        return Ok(Err(Fail::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("what more usage of price \"{key}\" costs can not be told beforehand"),
        )
        .detail("It depends on more than a quantity: on dimensions, buckets or the value of each event.")
        .hint("Hold an amount of money.")));
    }
    let too_large = |error: crate::core::decimal::QuantityError| ledger::too_large(error);
    line.usage.quantity = line.usage.quantity.checked_add(quantity).map_err(too_large)?;
    let priced =
        price_with(&model, &line.usage, &line.terms, &mut Silent).map_err(|error| charges::unpriceable(&key, error))?;
    line.due = charges::rounded(&key, charges::worth(&key, priced.amount, line.credit_rate.as_ref())?, digits)?;
    Ok(Ok(()))
}
