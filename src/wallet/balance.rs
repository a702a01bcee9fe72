//! `wallet_balance()`: one statement, one snapshot, no lock, nothing written.

use std::collections::BTreeSet;

use pgrx::prelude::*;

use crate::billing;
use crate::core::ledger::{Limit, Purse, Wallet};
use crate::core::pricing::{Amount, Money, Rounding};
use crate::ledger::tables::{SUBSCRIPTIONS, UNPAID, WALLETS};
use crate::ledger::{load, load_past, too_large};
use crate::pg::datum::unix_micros;
use crate::pg::error::{Outcome, raise};
use crate::pg::scan::{Is, Reader, Table, Value};
use crate::pg::settings;

use super::position::Position;

/// All invoices of a customer.
static INVOICES: Table = Table {
    name: "invoices",
    parts: &[("invoices", "invoices_customer_idx")],
    key: &["tenant_id", "customer_id", "bill_at"],
    columns: &["currency"],
    ..Table::PLAIN
};

type BalanceRow = (
    Option<i64>,
    Option<String>,
    String,
    Option<String>,
    String,
    Option<String>,
    String,
    String,
    String,
    Option<String>,
    String,
);

/// A customer's wallets at a time, past or to come, in burn order; numbers as text.
#[pg_extern(sql = "")]
fn balance_rows(
    customer_id: &str,
    currency: Option<&str>,
    as_of: TimestampWithTimeZone,
) -> TableIterator<
    'static,
    (
        name!(wallet_id, Option<i64>),
        name!(name, Option<String>),
        name!(currency, String),
        name!(credit_unit, Option<String>),
        name!(balance, String),
        name!(credits, Option<String>),
        name!(open_usage, String),
        name!(unpaid, String),
        name!(held, String),
        name!(credit_limit, Option<String>),
        name!(available, String),
    ),
> {
    let as_of = unix_micros(as_of.into_inner());
    let rows = (|| {
        let tenant = settings::tenant();
        let mut rows = Vec::new();
        let past = as_of < crate::pg::session::statement_time();
        for currency in currencies(&tenant, customer_id, currency, past)? {
            let read = if past { load_past } else { load };
            let mut account = read(&tenant, customer_id, &currency, as_of, as_of)?;
            account.purse.settle().map_err(too_large)?;
            let wallets = before_debts(&account.purse)?;
            rows.extend(of_position(wallets, &Position::of(account)?, &currency)?);
        }
        Ok(rows)
    })();
    TableIterator::new(raise(rows))
}

/// The currencies that a customer has wallets or debts in.
fn currencies(tenant: &str, customer: &str, asked: Option<&str>, past: bool) -> Outcome<BTreeSet<String>> {
    if let Some(currency) = asked {
        return Ok(BTreeSet::from([currency.to_string()]));
    }
    let mut currencies = BTreeSet::new();
    let of = [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Text(customer))];
    // What is paid by now may have been a debt then.
    let debts = if past { &INVOICES } else { &UNPAID };
    for (table, column) in [(&WALLETS, 10), (debts, 0)] {
        Reader::open(table)?.rows(&of, |row| {
            currencies.insert(row.text(column)?);
            Ok(())
        })?;
    }
    let mut plans = BTreeSet::new();
    let mut subscriptions = Reader::open(&SUBSCRIPTIONS)?;
    for customer in billing::customers_of(tenant, customer)? {
        let of = [of[0], (1, Is::Equal, Value::Text(&customer))];
        subscriptions.rows(&of, |row| {
            plans.insert((row.text(0)?, row.int4(1)?));
            Ok(())
        })?;
    }
    for (key, version) in plans {
        currencies.extend(billing::plan_currency(tenant, &key, version)?);
    }
    Ok(currencies)
}

/// A wallet before debts have taken of it.
struct Before {
    wallet: Wallet,
    /// What it holds less what it owes, in its unit.
    balance: Amount,
    /// What it owes, in minor units.
    owed: i128,
}

fn before_debts(purse: &Purse) -> Outcome<Vec<Before>> {
    let one = |(place, wallet): (usize, &Wallet)| {
        let owed = purse.minor(place, &wallet.overdraft, Rounding::Up)?;
        Ok(Before { wallet: wallet.clone(), balance: purse.balance(place)?, owed })
    };
    purse.wallets.iter().enumerate().map(one).collect::<Result<_, _>>().map_err(too_large)
}

fn of_position(wallets: Vec<Before>, position: &Position, currency: &str) -> Outcome<Vec<BalanceRow>> {
    let digits = position.account.purse.digits;
    let money = |minor: i128| Money::new(minor.into(), digits).to_string();
    let mut rows = Vec::new();
    // What no wallet carries is the last's that can carry anything: a debt must not vanish for want of credit.
    let last = wallets.iter().rposition(|before| crate::ledger::covers(&before.wallet, None));
    // What will be given back is no credit before it has been.
    let mut rest = position.shares.last().copied().unwrap_or_default();
    rest.open_usage = rest.open_usage.max(0);
    for (place, Before { wallet, balance, owed }) in wallets.into_iter().enumerate() {
        let mut share = position.shares[place];
        if last == Some(place) {
            share.open_usage += rest.open_usage;
            share.unpaid += rest.unpaid;
            share.held += rest.held;
        }
        let worth = position.worth[place] - owed;
        let left = worth - share.open_usage - share.unpaid - share.held;
        let limit = match wallet.limit {
            Limit::Unlimited => None,
            Limit::Of(limit) => Some(crate::core::ledger::minor_of(&limit, digits, Rounding::Down).map_err(too_large)?),
        };
        let postpaid = wallet.limit != Limit::Of(Amount::ZERO);
        rows.push((
            Some(wallet.id),
            Some(wallet.name),
            currency.to_string(),
            wallet.unit.as_ref().map(|unit| unit.key.clone()),
            money(worth),
            wallet.unit.as_ref().map(|_| balance.shortest().to_string()),
            money(share.open_usage),
            money(share.unpaid),
            money(share.held),
            limit.filter(|_| postpaid).map(money),
            limit.map_or_else(|| "Infinity".to_string(), |limit| money(left + limit)),
        ));
    }
    if last.is_none() && rest.open_usage + rest.unpaid + rest.held != 0 {
        rows.push((
            None,
            None,
            currency.to_string(),
            None,
            money(0),
            None,
            money(rest.open_usage),
            money(rest.unpaid),
            money(rest.held),
            None,
            money(-rest.open_usage - rest.unpaid - rest.held),
        ));
    }
    Ok(rows)
}
