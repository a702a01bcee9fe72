//! The lock of a customer's credit in a currency: its row of totals.

use crate::core::ledger::Totals;
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::scan::Value;
use crate::pg::spi::{self, Row, See, Tid};

use super::tables;

/// Totals, and where they were read: under the lock whoever changes them need not look for them again.
#[derive(Default)]
pub struct Locked {
    pub(super) totals: Totals,
    pub(super) at: Option<Tid>,
}

impl Locked {
    /// `customer`: whose it is, for an error.
    pub(super) fn read(row: &Row<'_>, column: usize, customer: impl FnOnce() -> Outcome<String>) -> Outcome<Locked> {
        match serde_json::from_slice(&row.bytes(column)?) {
            Ok(totals) => Ok(Locked { totals, at: row.tid() }),
            Err(error) => Err(Fail::corrupt(format!("the totals of customer \"{}\": {error}", customer()?))),
        }
    }
}

/// Locks the credit of a customer in a currency, making it when there is none yet.
pub fn lock(tenant: &str, customer: &str, currency: &str) -> Outcome<Locked> {
    if let Some(locked) = lock_if_customer(tenant, customer, currency)? {
        return Ok(locked);
    }
    Err(Fail::new(SqlState::ERRCODE_FOREIGN_KEY_VIOLATION, format!("there is no customer \"{customer}\""))
        .detail(format!("Tenant \"{tenant}\" has none with this id."))
        .hint("INSERT INTO meterflow.customers (id) first."))
}

/// As [`lock`]; None: there is no such customer.
fn lock_if_customer(tenant: &str, customer: &str, currency: &str) -> Outcome<Option<Locked>> {
    if let Some(locked) = lock_if_any(tenant, customer, currency)? {
        return Ok(Some(locked));
    }
    let known = spi::one(
        "SELECT true FROM meterflow.customers WHERE tenant_id = $1 AND id = $2",
        &[tenant.into(), customer.into()],
        See::Latest,
        |row| row.bool(0),
    )?;
    if known.is_none() {
        return Ok(None);
    }
    spi::run(
        "INSERT INTO meterflow.wallet_totals (tenant_id, customer_id, currency) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        &[tenant.into(), customer.into(), currency.into()],
        See::Write,
        |_| Ok(()),
    )?;
    if let Some(locked) = lock_if_any(tenant, customer, currency)? {
        return Ok(Some(locked));
    }
    // Under REPEATABLE READ: another transaction has made it since our snapshot.
    Err(Fail::new(SqlState::ERRCODE_T_R_SERIALIZATION_FAILURE, "could not lock the credit of a customer")
        .detail(format!("Another transaction has begun to use the wallets of \"{customer}\" meanwhile."))
        .hint("Retry the transaction."))
}

/// Locks the credit of a customer if there is any.
fn lock_if_any(tenant: &str, customer: &str, currency: &str) -> Outcome<Option<Locked>> {
    let mut locked = None;
    lock_each([key(tenant, customer, currency)], |found| locked = Some(found))?;
    Ok(locked)
}

/// Locks the credit of customers, who are given in order of their ids, making it where there is none yet; returns those
/// that exist.
pub fn lock_all<'a>(tenant: &str, customers: &[&'a str], currency: &str) -> Outcome<Vec<(&'a str, Locked)>> {
    let mut locked = Vec::with_capacity(customers.len());
    let mut rest = customers.iter();
    loop {
        let mut found = Vec::with_capacity(rest.len());
        lock_each(rest.clone().map(|customer| key(tenant, customer, currency)), |one| found.push(one))?;
        locked.extend(found.into_iter().zip(rest.by_ref()).map(|(one, customer)| (*customer, one)));
        // The first that has never had credit.
        let Some(first) = rest.next() else { return Ok(locked) };
        locked.extend(lock_if_customer(tenant, first, currency)?.map(|one| (*first, one)));
    }
}

fn key<'a>(tenant: &'a str, customer: &'a str, currency: &'a str) -> [Value<'a>; 3] {
    [Value::Text(tenant), Value::Text(customer), Value::Text(currency)]
}

/// Locks rows of totals one after the other, until one is not there.
fn lock_each<'a>(keys: impl IntoIterator<Item = [Value<'a>; 3]>, mut each: impl FnMut(Locked)) -> Outcome<()> {
    tables::WRITE_TOTALS.lock(keys, |row| {
        let customer = || row.text(tables::LOCKED_CUSTOMER);
        Locked::read(row, tables::LOCKED_TOTALS, customer).map(&mut each)
    })
}
