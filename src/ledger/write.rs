//! How a journal is written: each table opened once, however many rows there are.

use std::collections::BTreeMap;

use crate::core::pricing::{Amount, Money};
use crate::pg::cell::Cell;
use crate::pg::error::{Fail, Outcome, SqlState, or_if_taken};
use crate::pg::numeric::{NumericIn, NumericOut};
use crate::pg::scan::Value;
use crate::pg::session;
use crate::pg::spi::Tid;
use crate::pg::write::At;

use super::account::Account;
use super::journal::{Journal, kind};
use super::tell::{Change, tell};
use super::{stored, tables, too_large};

impl Journal {
    /// Writes it all. `accounts`: those that were changed.
    pub fn write<'a>(self, accounts: impl IntoIterator<Item = &'a Account>) -> Outcome<()> {
        self.write_transactions()?;
        self.write_entries()?;
        let taken = self.write_grants()?;
        let accounts: Vec<&Account> = accounts.into_iter().collect();
        self.write_taken(&taken, &accounts)?;
        write_totals(&self.tenant, &accounts)?;
        tell(&self.tenant, &accounts, |account| self.changes(account))
    }

    /// What has been written of an account; of holds, which have no transaction, that they have changed.
    fn changes(&self, account: &Account) -> Vec<Change<'_>> {
        let of_account =
            self.transactions.iter().filter(|act| act.customer == account.customer && act.currency == account.currency);
        let mut changes: Vec<Change<'_>> = of_account
            .map(|act| Change { kind: act.kind, transaction_id: Some(act.id), amount: Some(account.shown(act.worth)) })
            .collect();
        if self.transactions.is_empty() {
            changes.push(Change { kind: "hold", transaction_id: None, amount: None });
        }
        changes
    }

    fn write_transactions(&self) -> Outcome<()> {
        if self.transactions.is_empty() {
            return Ok(());
        }
        let by = session::user();
        let rows = self.transactions.iter().map(|act| {
            [
                Cell::Text(&self.tenant),
                Cell::Int8(act.id),
                Cell::Text(&act.customer),
                Cell::Text(&act.currency),
                Cell::Text(act.kind),
                Cell::Numeric(Money::new(act.worth.into(), act.digits).into()),
                act.description.as_deref().into(),
                act.reverses.into(),
                act.invoice.into(),
                act.hold.into(),
                act.key.as_deref().into(),
                act.body_hash.as_deref().into(),
                Cell::Time(self.now),
                Cell::Text(&by),
            ]
        });
        or_if_taken(
            || tables::WRITE_TRANSACTIONS.insert(rows),
            || {
                // Looked up under this customer's lock, so the key belongs to a transaction of another, which has just
                // committed.
                let keys: Vec<&str> = self.transactions.iter().filter_map(|act| act.key.as_deref()).collect();
                Fail::new(SqlState::ERRCODE_UNIQUE_VIOLATION, "an idempotency key has been used for something else")
                    .detail(format!("One of \"{}\" was used by another session at this moment.", keys.join("\", \"")))
                    .hint("Send a retry just as the first call was; give another payment a key of its own.")
            },
        )
    }

    fn write_entries(&self) -> Outcome<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        tables::WRITE_ENTRIES.insert(self.entries.iter().map(|entry| {
            [
                Cell::Text(&self.tenant),
                Cell::Int8(entry.transaction),
                Cell::Int4(entry.number),
                Cell::Int8(entry.wallet),
                entry.grant.into(),
                Cell::Text(entry.other_side),
                Cell::Numeric((&entry.amount).into()),
                Cell::Numeric(entry.worth.into()),
                Cell::Time(entry.effective_at),
                Cell::Time(self.now),
            ]
        }))
    }

    /// Inserts the new grants, with what was taken of them already; returns what was taken of others.
    fn write_grants(&self) -> Outcome<BTreeMap<i64, Amount>> {
        let mut taken = self.taken.clone();
        if self.grants.is_empty() {
            return Ok(taken);
        }
        let mut rows = Vec::with_capacity(self.grants.len());
        for grant in &self.grants {
            let used = taken.remove(&grant.id).unwrap_or_default();
            let remaining = left(grant.id, &grant.amount, &used)?;
            let origin = grant.origin;
            rows.push([
                Cell::Text(&self.tenant),
                Cell::Int8(grant.id),
                Cell::Int8(grant.wallet),
                Cell::Int8(grant.transaction),
                Cell::Text(kind(grant.life.promotional)),
                Cell::Numeric((&grant.amount).into()),
                Cell::Numeric((&remaining).into()),
                Cell::Bool(remaining.is_zero()),
                Cell::Int4(grant.life.priority),
                Cell::Time(grant.life.effective_at),
                Cell::Time(grant.life.expires_at),
                Cell::Bool(grant.life.effective_at <= self.now),
                origin.map(|(rule, _, _)| rule).into(),
                origin.map(|(_, occurrence, _)| occurrence).into(),
                origin.map(|(_, _, part)| part).into(),
                Cell::Time(self.now),
            ]);
        }
        tables::WRITE_GRANTS.insert(rows)?;
        Ok(taken)
    }

    fn write_taken(&self, taken: &BTreeMap<i64, Amount>, accounts: &[&Account]) -> Outcome<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let read = accounts.iter().flat_map(|account| &account.grants_at).chain(&self.grants_at);
        let places: BTreeMap<i64, Tid> = read.filter(|(id, _)| taken.contains_key(id)).copied().collect();
        let rows = taken.iter().map(|(id, used)| {
            let key = [Value::Text(&self.tenant), Value::Int8(*id)];
            (At { key, read_at: places.get(id).copied() }, (*id, used))
        });
        let changed = tables::WRITE_GRANTS.update(&["remaining", "spent"], rows, |(id, used), row| {
            let shown = row.require::<NumericIn<'_>>(tables::REMAINING)?.decimals();
            let remaining = left(id, &stored(row, tables::REMAINING)?, used)?;
            Ok([Cell::Numeric(NumericOut::with_decimals(&remaining, shown)), Cell::Bool(remaining.is_zero())])
        })?;
        if changed != taken.len() as u64 {
            let ids: Vec<i64> = taken.keys().copied().collect();
            return Err(Fail::corrupt("a grant that was to be burned is gone").detail(format!("Of grants {ids:?}.")));
        }
        Ok(())
    }
}

/// Writes the totals of accounts.
pub(super) fn write_totals(tenant: &str, accounts: &[&Account]) -> Outcome<()> {
    let mut totals = Vec::with_capacity(accounts.len());
    for account in accounts {
        let json = serde_json::to_string(&account.totals)
            .map_err(|error| Fail::corrupt(format!("totals as JSON: {error}")))?;
        totals.push((account, json));
    }
    let rows = totals.iter().map(|(account, json)| {
        let key = [Value::Text(tenant), Value::Text(&account.customer), Value::Text(&account.currency)];
        (At { key, read_at: account.totals_at }, json.as_str())
    });
    let changed = tables::WRITE_TOTALS.update(&["totals"], rows, |json, _| Ok([Cell::Text(json)]))?;
    if changed != totals.len() as u64 {
        let customers: Vec<&str> = totals.iter().map(|(account, _)| account.customer.as_str()).collect();
        return Err(Fail::corrupt("totals that were locked are gone").detail(format!("Of {customers:?}.")));
    }
    Ok(())
}

/// What is left of a grant. Never less than nothing: the last look before it is written.
fn left(id: i64, amount: &Amount, used: &Amount) -> Outcome<Amount> {
    let left = amount.checked_sub(used).map_err(too_large)?;
    if left.is_negative() {
        return Err(Fail::corrupt(format!("more of grant {id} would be taken than there is"))
            .detail(format!("{used} of {amount}.")));
    }
    Ok(left)
}
