//! What a verb writes: transactions, their entries, and the copies that go with them, gathered and then written in a few
//! statements, however many there are.

use std::collections::BTreeMap;

use pgrx::datum::DatumWithOid;
use rustc_hash::FxHashMap;

use crate::core::ledger::{Lot, Source, Taken};
use crate::core::pricing::{Amount, Money, Rounding};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::session;
use crate::pg::spi::{self, See};

use super::account::Account;
use super::tell::{Change, tell};
use super::{stored, too_large};

/// Grants fetched at first; each further time twice as many.
const FETCH: i64 = 8;

/// One transaction of the ledger.
#[derive(Clone, Copy, Default)]
pub struct Act<'a> {
    pub kind: &'static str,
    pub description: Option<&'a str>,
    pub reverses: Option<i64>,
    pub invoice: Option<i64>,
    pub hold: Option<i64>,
    /// The idempotency key, and what it was first used for.
    pub key: Option<(&'a str, &'a str)>,
}

/// An amount in a wallet's unit, and what it is worth in minor units of the currency.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    pub amount: Amount,
    pub minor: i128,
}

impl std::ops::Neg for Sum {
    type Output = Sum;

    fn neg(self) -> Sum {
        Sum { amount: -self.amount, minor: -self.minor }
    }
}

/// When a grant lives and where it stands in the burn order.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub promotional: bool,
    pub priority: i32,
    pub effective_at: i64,
    pub expires_at: i64,
}

/// The rule, the occurrence and the part of it that a grant is.
pub type Origin = (i64, i64, i16);

#[derive(Default)]
struct Transactions {
    ids: Vec<i64>,
    customers: Vec<String>,
    currencies: Vec<String>,
    kinds: Vec<String>,
    /// What its entries are worth to the customer, in minor units; overdrafts that it pays do not count.
    worth: Vec<i128>,
    digits: Vec<u32>,
    descriptions: Vec<Option<String>>,
    reverses: Vec<Option<i64>>,
    invoices: Vec<Option<i64>>,
    holds: Vec<Option<i64>>,
    keys: Vec<Option<String>>,
    bodies: Vec<Option<String>>,
}

#[derive(Default)]
struct Entries {
    transactions: Vec<i64>,
    entries: Vec<i32>,
    wallets: Vec<i64>,
    grants: Vec<Option<i64>>,
    accounts: Vec<String>,
    amounts: Vec<String>,
    worth: Vec<String>,
    effective_at: Vec<i64>,
}

struct NewGrant {
    id: i64,
    wallet: i64,
    transaction: i64,
    life: Life,
    amount: Amount,
    lasting: bool,
    origin: Option<Origin>,
}

/// Lasting grants of one wallet, priority and kind, as they are before this journal.
#[derive(Default)]
struct Queue {
    grants: Vec<(i64, Amount)>,
    next: usize,
    at_end: bool,
}

pub struct Journal {
    tenant: String,
    /// The clock, read under the lock; Unix microseconds.
    pub now: i64,
    transactions: Transactions,
    entries: Entries,
    grants: Vec<NewGrant>,
    /// What has been taken of grants (below zero: given back).
    taken: BTreeMap<i64, Amount>,
    queues: FxHashMap<(i64, i32, bool), Queue>,
}

impl Journal {
    pub fn new(tenant: &str, now: i64) -> Journal {
        Journal {
            tenant: tenant.to_string(),
            now,
            transactions: Transactions::default(),
            entries: Entries::default(),
            grants: Vec::new(),
            taken: BTreeMap::new(),
            queues: FxHashMap::default(),
        }
    }

    /// Begins a transaction; what follows with its id is part of it.
    pub fn act(&mut self, account: &Account, act: &Act<'_>) -> Outcome<i64> {
        let id = session::next_value(session::relation("wallet_transactions_id_seq")?);
        let list = &mut self.transactions;
        list.ids.push(id);
        list.customers.push(account.customer.clone());
        list.currencies.push(account.currency.clone());
        list.kinds.push(act.kind.to_string());
        list.worth.push(0);
        list.digits.push(account.purse.digits);
        list.descriptions.push(act.description.map(str::to_string));
        list.reverses.push(act.reverses);
        list.invoices.push(act.invoice);
        list.holds.push(act.hold);
        list.keys.push(act.key.map(|(key, _)| key.to_string()));
        list.bodies.push(act.key.map(|(_, body)| body.to_string()));
        Ok(id)
    }

    /// Puts credit into a wallet, from an account. What the wallet owes is paid of it at once, when it lives. What begins
    /// later, or recurs, pays in order of its beginning: [`Purse::settle`](crate::core::ledger::Purse::settle).
    pub fn grant(
        &mut self,
        account: &mut Account,
        transaction: i64,
        wallet: usize,
        life: Life,
        amount: Amount,
        from: &str,
        origin: Option<Origin>,
    ) -> Outcome<i64> {
        let id = session::next_value(session::relation("credit_grants_id_seq")?);
        let wallet_id = account.purse.wallets[wallet].id;
        let sum = self.sum(account, wallet, amount)?;
        self.entry(account, transaction, wallet, Some(id), from, sum, life.effective_at)?;
        let lasting = life.effective_at <= self.now && life.expires_at == i64::MAX;
        self.grants.push(NewGrant { id, wallet: wallet_id, transaction, life, amount, lasting, origin });
        if lasting {
            account.totals.add_lasting(wallet_id, life.priority, life.promotional, &amount).map_err(too_large)?;
        }
        let owed = account.purse.wallets[wallet].overdraft;
        let lives = life.effective_at <= self.now && self.now < life.expires_at;
        if owed.is_positive() && lives && origin.is_none() {
            let paid = if owed.cmp(&amount).is_gt() { amount } else { owed };
            let sum = self.sum(account, wallet, paid)?;
            self.of_grant(account, transaction, wallet, (id, lasting.then_some(life)), -sum, "overdraft", self.now)?;
            self.owe(account, transaction, wallet, -sum, "overdraft", self.now)?;
        }
        Ok(id)
    }

    /// Takes what the purse has taken of a lot out of its grants, to an account.
    pub fn take(
        &mut self,
        account: &mut Account,
        transaction: i64,
        taken: &Taken,
        to: &str,
        effective_at: i64,
    ) -> Outcome<()> {
        let Lot { source, wallet, priority, promotional, effective_at: start, expires_at, .. } =
            account.purse.lots[taken.lot];
        let life = Life { promotional, priority, effective_at: start, expires_at };
        match source {
            Source::Grant(id) => {
                let sum = Sum { amount: taken.amount, minor: taken.minor };
                self.of_grant(account, transaction, wallet, (id, None), -sum, to, effective_at)
            }
            Source::Lasting => {
                let parts = self.oldest(account.purse.wallets[wallet].id, life, taken.amount)?;
                // What they are worth together is what was asked for, however units divide.
                let (mut amount, mut minor) = (Amount::ZERO, 0);
                for (place, (id, part)) in parts.iter().enumerate() {
                    amount = amount.checked_add(part).map_err(too_large)?;
                    let until = if place + 1 == parts.len() {
                        taken.minor
                    } else {
                        account.purse.minor(wallet, &amount, Rounding::Down).map_err(too_large)?.min(taken.minor)
                    };
                    let sum = Sum { amount: *part, minor: until - minor };
                    minor = until;
                    self.of_grant(account, transaction, wallet, (*id, Some(life)), -sum, to, effective_at)?;
                }
                Ok(())
            }
            Source::Coming { rule, .. } => {
                Err(Fail::corrupt(format!("recurring grant {rule} was to be burned before it was given")))
            }
        }
    }

    /// Changes a grant by a sum that comes from an account (below zero: goes to it). `grant`: its id, and where its
    /// lasting credit is summed.
    pub fn of_grant(
        &mut self,
        account: &mut Account,
        transaction: i64,
        wallet: usize,
        grant: (i64, Option<Life>),
        sum: Sum,
        other_side: &str,
        effective_at: i64,
    ) -> Outcome<()> {
        let (id, lasting) = grant;
        self.entry(account, transaction, wallet, Some(id), other_side, sum, effective_at)?;
        let taken = self.taken.entry(id).or_default();
        *taken = taken.checked_sub(&sum.amount).map_err(too_large)?;
        if let Some(life) = lasting {
            let wallet = account.purse.wallets[wallet].id;
            account.totals.add_lasting(wallet, life.priority, life.promotional, &sum.amount).map_err(too_large)?;
        }
        Ok(())
    }

    /// Lets a wallet owe more (below zero: less), to an account.
    pub fn owe(
        &mut self,
        account: &mut Account,
        transaction: i64,
        wallet: usize,
        sum: Sum,
        to: &str,
        effective_at: i64,
    ) -> Outcome<()> {
        self.entry(account, transaction, wallet, None, to, -sum, effective_at)?;
        let owing = &mut account.purse.wallets[wallet];
        owing.overdraft = owing.overdraft.checked_add(&sum.amount).map_err(too_large)?;
        account.totals.add_overdraft(owing.id, &sum.amount, self.now).map_err(too_large)
    }

    /// An amount in a wallet's unit, with what it is worth.
    fn sum(&self, account: &Account, wallet: usize, amount: Amount) -> Outcome<Sum> {
        let minor = account.purse.minor(wallet, &amount, Rounding::HalfUp).map_err(too_large)?;
        Ok(Sum { amount, minor })
    }

    fn entry(
        &mut self,
        account: &Account,
        transaction: i64,
        wallet: usize,
        grant: Option<i64>,
        other_side: &str,
        sum: Sum,
        effective_at: i64,
    ) -> Outcome<()> {
        if other_side != "overdraft"
            && let Some(place) = self.transactions.ids.iter().rposition(|id| *id == transaction)
        {
            self.transactions.worth[place] += sum.minor;
        }
        let list = &mut self.entries;
        let number = list.transactions.iter().rev().take_while(|id| **id == transaction).count();
        list.transactions.push(transaction);
        list.entries.push(i32::try_from(number + 1).unwrap_or(i32::MAX));
        list.wallets.push(account.purse.wallets[wallet].id);
        list.grants.push(grant);
        list.accounts.push(other_side.to_string());
        list.amounts.push(sum.amount.to_string());
        list.worth.push(account.shown(sum.minor));
        list.effective_at.push(effective_at);
        Ok(())
    }

    /// The grants that an amount of lasting credit is in: the oldest that have something left.
    fn oldest(&mut self, wallet: i64, life: Life, mut amount: Amount) -> Outcome<Vec<(i64, Amount)>> {
        let queue = self.queues.entry((wallet, life.priority, life.promotional)).or_default();
        let mut parts = Vec::new();
        while amount.is_positive() {
            let Some((id, remaining)) = queue.grants.get(queue.next).copied() else {
                if queue.at_end {
                    return Err(Fail::corrupt(format!("wallet {wallet} has less credit than its totals say"))
                        .detail(format!("{amount} is missing.")));
                }
                let fetched = queue.grants.len();
                let limit = FETCH.max(fetched as i64);
                let kind = if life.promotional { "promotional" } else { "purchased" };
                spi::run(
                    "SELECT id, remaining FROM meterflow.credit_grants \
                      WHERE tenant_id = $1 AND wallet_id = $2 AND priority = $3 AND kind = $4 AND lasting AND NOT spent \
                      ORDER BY effective_at, created_at, id OFFSET $5 LIMIT $6",
                    &[
                        self.tenant.as_str().into(),
                        wallet.into(),
                        life.priority.into(),
                        kind.into(),
                        (fetched as i64).into(),
                        limit.into(),
                    ],
                    See::Statement,
                    |row| {
                        queue.grants.push((row.int8(0)?, stored(row, 1)?));
                        Ok(())
                    },
                )?;
                queue.at_end = queue.grants.len() < fetched + limit as usize;
                continue;
            };
            let used = self.taken.get(&id).copied().unwrap_or_default();
            let left = remaining.checked_sub(&used).map_err(too_large)?;
            let part = if left.cmp(&amount).is_gt() { amount } else { left };
            if part.is_positive() {
                // What this call takes is in `taken` only once its entry has been made: one part a grant and call.
                parts.push((id, part));
                amount = amount.checked_sub(&part).map_err(too_large)?;
            }
            if amount.is_positive() || part == left {
                queue.next += 1;
            }
        }
        Ok(parts)
    }

    /// Writes it all. `accounts`: those that were changed.
    pub fn write(self, accounts: &[&Account]) -> Outcome<()> {
        self.write_transactions()?;
        self.write_entries()?;
        let taken = self.write_grants()?;
        self.write_taken(&taken)?;
        for account in accounts {
            let totals = serde_json::to_string(&account.totals)
                .map_err(|error| Fail::corrupt(format!("totals as JSON: {error}")))?;
            spi::run(
                "UPDATE meterflow.wallet_totals SET totals = $4::json WHERE tenant_id = $1 AND customer_id = $2 AND currency = $3",
                &[
                    self.tenant.as_str().into(),
                    account.customer.as_str().into(),
                    account.currency.as_str().into(),
                    totals.into(),
                ],
                See::Write,
                |_| Ok(()),
            )?;
        }
        tell(accounts, |account| self.changes(account))
    }

    /// What has been written of an account; of holds, which have no transaction, that they have changed.
    fn changes(&self, account: &Account) -> Vec<Change<'_>> {
        let list = &self.transactions;
        let of_account = (0..list.ids.len())
            .filter(|place| list.customers[*place] == account.customer && list.currencies[*place] == account.currency);
        let mut changes: Vec<Change<'_>> = of_account
            .map(|place| Change {
                kind: &list.kinds[place],
                transaction_id: Some(list.ids[place]),
                amount: Some(account.shown(list.worth[place])),
            })
            .collect();
        if list.ids.is_empty() {
            changes.push(Change { kind: "hold", transaction_id: None, amount: None });
        }
        changes
    }

    fn write_transactions(&self) -> Outcome<()> {
        let list = &self.transactions;
        if list.ids.is_empty() {
            return Ok(());
        }
        let written = spi::run(
            "INSERT INTO meterflow.wallet_transactions (tenant_id, id, customer_id, currency, kind, amount, description, reverses, invoice_id, hold_id, idempotency_key, body_hash, created_at) \
             OVERRIDING SYSTEM VALUE \
             SELECT $1, t.id, t.customer_id, t.currency, t.kind, t.amount::numeric, t.description, t.reverses, t.invoice_id, t.hold_id, t.idempotency_key, sha256(convert_to(t.body, 'UTF8')), $12 \
               FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $13::text[]) \
                 AS t (id, customer_id, currency, kind, amount, description, reverses, invoice_id, hold_id, idempotency_key, body) \
             ON CONFLICT ON CONSTRAINT wallet_transactions_idempotency_key DO NOTHING",
            &[
                self.tenant.as_str().into(),
                list.ids.clone().into(),
                list.customers.clone().into(),
                list.currencies.clone().into(),
                list.kinds.clone().into(),
                list.worth
                    .iter()
                    .zip(&list.digits)
                    .map(|(minor, digits)| Money::new((*minor).into(), *digits).to_string())
                    .collect::<Vec<_>>()
                    .into(),
                list.descriptions.clone().into(),
                list.reverses.clone().into(),
                list.invoices.clone().into(),
                list.holds.clone().into(),
                list.keys.clone().into(),
                spi::time(self.now),
                list.bodies.clone().into(),
            ],
            See::Write,
            |_| Ok(()),
        )?;
        if written == list.ids.len() as u64 {
            return Ok(());
        }
        // Looked up under this customer's lock, so the key belongs to a transaction of another, which has just committed.
        let keys: Vec<&str> = list.keys.iter().flatten().map(String::as_str).collect();
        Err(Fail::new(SqlState::ERRCODE_UNIQUE_VIOLATION, "an idempotency key has been used for something else")
            .detail(format!("One of \"{}\" was used by another session at this moment.", keys.join("\", \"")))
            .hint("Send a retry just as the first call was; give another payment a key of its own."))
    }

    fn write_entries(&self) -> Outcome<()> {
        let list = &self.entries;
        if list.transactions.is_empty() {
            return Ok(());
        }
        spi::run(
            "INSERT INTO meterflow.ledger_entries (tenant_id, transaction_id, entry, wallet_id, grant_id, account, amount, worth, effective_at, created_at) \
             SELECT $1, e.transaction_id, e.entry, e.wallet_id, e.grant_id, e.account, e.amount::numeric, e.worth::numeric, e.effective_at, $10 \
               FROM unnest($2::bigint[], $3::integer[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::timestamptz[]) \
                 AS e (transaction_id, entry, wallet_id, grant_id, account, amount, worth, effective_at)",
            &[
                self.tenant.as_str().into(),
                list.transactions.clone().into(),
                list.entries.clone().into(),
                list.wallets.clone().into(),
                list.grants.clone().into(),
                list.accounts.clone().into(),
                list.amounts.clone().into(),
                list.worth.clone().into(),
                spi::times(&list.effective_at),
                spi::time(self.now),
            ],
            See::Write,
            |_| Ok(()),
        )?;
        Ok(())
    }

    /// Inserts the new grants, with what was taken of them already; returns what was taken of others.
    fn write_grants(&self) -> Outcome<BTreeMap<i64, Amount>> {
        let mut taken = self.taken.clone();
        for grant in &self.grants {
            let used = taken.remove(&grant.id).unwrap_or_default();
            let remaining = grant.amount.checked_sub(&used).map_err(too_large)?;
            let (rule, occurrence, part) = match grant.origin {
                Some((rule, occurrence, part)) => (Some(rule), Some(occurrence), Some(part)),
                None => (None, None, None),
            };
            let args: [DatumWithOid<'_>; 15] = [
                self.tenant.as_str().into(),
                grant.id.into(),
                grant.wallet.into(),
                grant.transaction.into(),
                (if grant.life.promotional { "promotional" } else { "purchased" }).into(),
                grant.amount.to_string().into(),
                remaining.to_string().into(),
                grant.life.priority.into(),
                spi::time(grant.life.effective_at),
                spi::time(grant.life.expires_at),
                grant.lasting.into(),
                rule.into(),
                occurrence.into(),
                part.into(),
                spi::time(self.now),
            ];
            spi::run(
                "INSERT INTO meterflow.credit_grants (tenant_id, id, wallet_id, transaction_id, kind, amount, remaining, spent, priority, effective_at, expires_at, lasting, recurring_id, occurrence, part, created_at) \
                 OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6::numeric, $7::numeric, $7::numeric = 0, $8, $9, $10, $11, $12, $13, $14, $15)",
                &args,
                See::Write,
                |_| Ok(()),
            )?;
        }
        Ok(taken)
    }

    fn write_taken(&self, taken: &BTreeMap<i64, Amount>) -> Outcome<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = taken.keys().copied().collect();
        let amounts: Vec<String> = taken.values().map(Amount::to_string).collect();
        let changed = spi::run(
            "UPDATE meterflow.credit_grants g SET remaining = g.remaining - t.amount::numeric, spent = (g.remaining - t.amount::numeric = 0) \
               FROM unnest($2::bigint[], $3::text[]) AS t (id, amount) WHERE g.tenant_id = $1 AND g.id = t.id",
            &[self.tenant.as_str().into(), ids.clone().into(), amounts.into()],
            See::Write,
            |_| Ok(()),
        )?;
        if changed != ids.len() as u64 {
            return Err(Fail::corrupt("a grant that was to be burned is gone").detail(format!("Of grants {ids:?}.")));
        }
        Ok(())
    }
}
