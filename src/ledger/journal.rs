//! What a verb writes: transactions, their entries, and the copies that go with them, gathered and then written at once
//! (`write.rs`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use crate::core::ledger::{Life, Source, Taken};
use crate::core::pricing::{Amount, Money, Rounding};
use crate::pg::datum::sha256;
use crate::pg::error::{Fail, Outcome};
use crate::pg::scan::{Is, Reader, Value};
use crate::pg::session;
use crate::pg::spi::{Row, Tid};

use super::account::{Account, grant, opened};
use super::{tables, too_large};

/// Grants fetched at first; each further time twice as many.
const FETCH: usize = 8;

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
pub struct Portion {
    pub amount: Amount,
    pub minor: i128,
}

impl std::ops::Neg for Portion {
    type Output = Portion;

    fn neg(self) -> Portion {
        Portion { amount: -self.amount, minor: -self.minor }
    }
}

/// When a grant lives, from four columns: kind, priority, effective_at, expires_at.
pub fn life(row: &Row<'_>, first: usize) -> Outcome<Life> {
    Ok(Life {
        promotional: row.is(first, kind(true))?,
        priority: row.int4(first + 1)?,
        effective_at: row.time(first + 2)?,
        expires_at: row.time(first + 3)?,
    })
}

/// The rule, the occurrence and the part of it that a grant is.
pub type Origin = (i64, i64, i16);

pub(super) struct Transaction {
    pub(super) id: i64,
    pub(super) customer: String,
    pub(super) currency: String,
    pub(super) kind: &'static str,
    /// What its entries are worth to the customer, in minor units; overdrafts that it pays do not count.
    pub(super) worth: i128,
    pub(super) digits: u32,
    pub(super) description: Option<String>,
    pub(super) reverses: Option<i64>,
    pub(super) invoice: Option<i64>,
    pub(super) hold: Option<i64>,
    pub(super) key: Option<String>,
    pub(super) body_hash: Option<Vec<u8>>,
}

pub(super) struct Entry {
    pub(super) transaction: i64,
    pub(super) number: i32,
    pub(super) wallet: i64,
    pub(super) grant: Option<i64>,
    pub(super) other_side: &'static str,
    pub(super) amount: Amount,
    pub(super) worth: Money,
    pub(super) effective_at: i64,
}

pub(super) struct NewGrant {
    pub(super) id: i64,
    pub(super) wallet: i64,
    pub(super) transaction: i64,
    pub(super) life: Life,
    pub(super) amount: Amount,
    pub(super) origin: Option<Origin>,
}

/// What was taken of one grant, in the wallet's unit.
pub struct Part {
    pub grant: i64,
    pub life: Life,
    pub amount: Amount,
}

/// Grants that are alike, what burns first comes first, as they are before this journal: what is left, and where it was read.
#[derive(Default)]
struct Queue {
    grants: Vec<(Part, Option<Tid>)>,
    next: usize,
    at_end: bool,
}

pub struct Journal {
    pub(super) tenant: String,
    /// The clock, read under the lock; Unix microseconds.
    pub now: i64,
    pub(super) transactions: Vec<Transaction>,
    pub(super) entries: Vec<Entry>,
    pub(super) grants: Vec<NewGrant>,
    /// What has been taken of grants (below zero: given back).
    pub(super) taken: BTreeMap<i64, Amount>,
    /// Where those of sums were read.
    pub(super) grants_at: Vec<(i64, Tid)>,
    /// By wallet, priority, kind, and whether they never expire.
    queues: FxHashMap<(i64, i32, bool, bool), Queue>,
    /// What finds them, once it is needed.
    summed: Option<Reader>,
}

impl Journal {
    pub fn new(tenant: &str, now: i64) -> Journal {
        Journal {
            tenant: tenant.to_string(),
            now,
            transactions: Vec::new(),
            entries: Vec::new(),
            grants: Vec::new(),
            taken: BTreeMap::new(),
            grants_at: Vec::new(),
            queues: FxHashMap::default(),
            summed: None,
        }
    }

    /// Begins a transaction; what follows with its id is part of it.
    pub fn act(&mut self, account: &Account, act: &Act<'_>) -> Outcome<i64> {
        let id = session::next_value(session::relation("wallet_transactions_id_seq")?);
        self.transactions.push(Transaction {
            id,
            customer: account.customer.clone(),
            currency: account.currency.clone(),
            kind: act.kind,
            worth: 0,
            digits: account.purse.digits,
            description: act.description.map(str::to_string),
            reverses: act.reverses,
            invoice: act.invoice,
            hold: act.hold,
            key: act.key.map(|(key, _)| key.to_string()),
            body_hash: act.key.map(|(_, body)| sha256(body)),
        });
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
        from: &'static str,
        origin: Option<Origin>,
    ) -> Outcome<i64> {
        let id = session::next_value(session::relation("credit_grants_id_seq")?);
        let wallet_id = account.purse.wallets[wallet].id;
        let portion = self.portion(account, wallet, amount)?;
        self.entry(account, transaction, wallet, Some(id), from, portion, life.effective_at)?;
        self.grants.push(NewGrant { id, wallet: wallet_id, transaction, life, amount, origin });
        account.totals.add_grant(wallet_id, &life, &amount, self.now).map_err(too_large)?;
        let lives = life.effective_at <= self.now && self.now < life.expires_at;
        if lives && origin.is_none() {
            self.pay_overdraft(account, transaction, wallet, (id, Some(life)), amount)?;
        }
        Ok(id)
    }

    /// Lets what is in a grant pay what its wallet owes, as far as it goes.
    pub fn pay_overdraft(
        &mut self,
        account: &mut Account,
        transaction: i64,
        wallet: usize,
        grant: (i64, Option<Life>),
        amount: Amount,
    ) -> Outcome<()> {
        let paid = amount.min(account.purse.wallets[wallet].overdraft);
        if paid.is_positive() {
            let paid = self.portion(account, wallet, paid)?;
            self.settle(account, transaction, wallet, grant, paid, self.now)?;
        }
        Ok(())
    }

    /// Moves so much of a grant to what its wallet owes, which becomes less (below zero: back).
    pub fn settle(
        &mut self,
        account: &mut Account,
        transaction: i64,
        wallet: usize,
        grant: (i64, Option<Life>),
        paid: Portion,
        effective_at: i64,
    ) -> Outcome<()> {
        self.of_grant(account, transaction, wallet, grant, -paid, "overdraft", effective_at)?;
        self.owe(account, transaction, wallet, -paid, "overdraft", effective_at)
    }

    /// Takes what the purse has taken of a lot out of its grants, to an account. Of lots that are alike the first to expire
    /// gives it, whichever of them the purse had taken it of. Returns what it took.
    pub fn take(
        &mut self,
        account: &mut Account,
        transaction: i64,
        taken: &Taken,
        to: &'static str,
        effective_at: i64,
    ) -> Outcome<Vec<Part>> {
        let lot = &account.purse.lots[taken.lot];
        if !lot.is_alike(account.purse.as_of, account.charged_since) {
            return self.take_lot(account, transaction, taken, to, effective_at);
        }
        let (wallet, of) = (lot.wallet, (lot.life(), lot.is_lasting()));
        let parts = self.first(account, wallet, of, taken.amount)?;
        // What they are worth together is what was asked for, however units divide.
        let (mut amount, mut minor) = (Amount::ZERO, 0);
        for (place, part) in parts.iter().enumerate() {
            amount = amount.checked_add(&part.amount).map_err(too_large)?;
            let until = if place + 1 == parts.len() {
                taken.minor
            } else {
                account.purse.minor(wallet, &amount, Rounding::Down).map_err(too_large)?.min(taken.minor)
            };
            let portion = Portion { amount: part.amount, minor: until - minor };
            minor = until;
            self.of_grant(account, transaction, wallet, (part.grant, Some(part.life)), -portion, to, effective_at)?;
        }
        Ok(parts)
    }

    /// As [`Journal::take`], of the very lot, which is a grant.
    pub fn take_lot(
        &mut self,
        account: &mut Account,
        transaction: i64,
        taken: &Taken,
        to: &'static str,
        effective_at: i64,
    ) -> Outcome<Vec<Part>> {
        let lot = &account.purse.lots[taken.lot];
        let (wallet, life, summed) = (lot.wallet, lot.life(), lot.summed);
        match lot.source {
            Source::Grant(grant) => {
                let portion = Portion { amount: taken.amount, minor: taken.minor };
                let of = (grant, summed.then_some(life));
                self.of_grant(account, transaction, wallet, of, -portion, to, effective_at)?;
                Ok(vec![Part { grant, life, amount: taken.amount }])
            }
            Source::Sum { .. } => Err(Fail::corrupt("a sum of grants was to be burned as a grant")),
            Source::Coming { rule, .. } => {
                Err(Fail::corrupt(format!("recurring grant {rule} was to be burned before it was given")))
            }
        }
    }

    /// Changes a grant by a portion that comes from an account (below zero: goes to it). `grant`: its id, and what its sum is
    /// found by, if it is in one.
    pub fn of_grant(
        &mut self,
        account: &mut Account,
        transaction: i64,
        wallet: usize,
        grant: (i64, Option<Life>),
        portion: Portion,
        other_side: &'static str,
        effective_at: i64,
    ) -> Outcome<()> {
        let (id, summed) = grant;
        self.entry(account, transaction, wallet, Some(id), other_side, portion, effective_at)?;
        let taken = self.taken.entry(id).or_default();
        *taken = taken.checked_sub(&portion.amount).map_err(too_large)?;
        if let Some(life) = summed {
            let wallet = account.purse.wallets[wallet].id;
            account.totals.change_grant(wallet, &life, &portion.amount, self.now).map_err(too_large)?;
        }
        Ok(())
    }

    /// Lets a wallet owe more (below zero: less), to an account.
    pub fn owe(
        &mut self,
        account: &mut Account,
        transaction: i64,
        wallet: usize,
        portion: Portion,
        to: &'static str,
        effective_at: i64,
    ) -> Outcome<()> {
        self.entry(account, transaction, wallet, None, to, -portion, effective_at)?;
        let owing = &mut account.purse.wallets[wallet];
        owing.overdraft = owing.overdraft.checked_add(&portion.amount).map_err(too_large)?;
        account.totals.add_overdraft(owing.id, &portion.amount, self.now).map_err(too_large)
    }

    /// An amount in a wallet's unit, with what it is worth.
    pub fn portion(&self, account: &Account, wallet: usize, amount: Amount) -> Outcome<Portion> {
        let minor = account.purse.minor(wallet, &amount, Rounding::HalfUp).map_err(too_large)?;
        Ok(Portion { amount, minor })
    }

    fn entry(
        &mut self,
        account: &Account,
        transaction: i64,
        wallet: usize,
        grant: Option<i64>,
        other_side: &'static str,
        portion: Portion,
        effective_at: i64,
    ) -> Outcome<()> {
        if other_side != "overdraft"
            && let Some(whole) = self.transactions.iter_mut().rfind(|known| known.id == transaction)
        {
            whole.worth += portion.minor;
        }
        // The entries of a transaction follow each other.
        let before =
            self.entries.last().filter(|entry| entry.transaction == transaction).map_or(0, |entry| entry.number);
        self.entries.push(Entry {
            transaction,
            number: before + 1,
            wallet: account.purse.wallets[wallet].id,
            grant,
            other_side,
            amount: portion.amount,
            worth: Money::new(portion.minor.into(), account.purse.digits),
            effective_at,
        });
        Ok(())
    }

    /// The grants that an amount is in of those that are alike, which have this wallet, priority and kind, and expire or
    /// never do: the first of them that have something left.
    fn first(
        &mut self,
        account: &Account,
        wallet: usize,
        (life, lasting): (Life, bool),
        mut amount: Amount,
    ) -> Outcome<Vec<Part>> {
        let wallet_id = account.purse.wallets[wallet].id;
        let queue = self.queues.entry((wallet_id, life.priority, life.promotional, lasting)).or_default();
        let mut parts = Vec::new();
        while amount.is_positive() {
            let Some((Part { grant, life, amount: remaining }, read_at)) = queue.grants.get(queue.next) else {
                if queue.at_end {
                    return Err(Fail::corrupt(format!("wallet {wallet_id} has less credit than its totals say"))
                        .detail(format!("{amount} is missing.")));
                }
                let reader = opened(&mut self.summed, &tables::BURNING)?;
                queue.fetch(reader, account, (wallet, life, lasting))?;
                continue;
            };
            let used = self.taken.get(grant).copied().unwrap_or_default();
            let left = remaining.checked_sub(&used).map_err(too_large)?;
            let part = left.min(amount);
            if part.is_positive() {
                // What this call takes is in `taken` only once its entry has been made: one part a grant and call.
                parts.push(Part { grant: *grant, life: *life, amount: part });
                self.grants_at.extend(read_at.map(|tid| (*grant, tid)));
                amount = amount.checked_sub(&part).map_err(too_large)?;
            }
            if amount.is_positive() || part == left {
                queue.next += 1;
            }
        }
        Ok(parts)
    }
}

impl Queue {
    /// Reads as many again as it has, and some at first.
    fn fetch(
        &mut self,
        reader: &mut Reader,
        account: &Account,
        (wallet, life, lasting): (usize, Life, bool),
    ) -> Outcome<()> {
        let (as_of, charged_since) = (account.purse.as_of, account.charged_since);
        let expiry = if lasting { (4, Is::Equal, Value::Time(i64::MAX)) } else { (4, Is::Above, Value::Time(as_of)) };
        let terms = [
            (0, Is::Equal, Value::Text(&account.tenant)),
            (1, Is::Equal, Value::Int8(account.purse.wallets[wallet].id)),
            (2, Is::Equal, Value::Int4(life.priority)),
            (3, Is::Equal, Value::Text(kind(life.promotional))),
            expiry,
        ];
        let fetched = self.grants.len();
        let limit = fetched + FETCH.max(fetched);
        let mut passed = 0;
        reader.until(&terms, |row| {
            let (grant, lot) = grant(row, wallet, true)?;
            if lot.is_lasting() != lasting {
                return Ok(ControlFlow::Break(()));
            }
            if lot.is_alike(as_of, charged_since) {
                passed += 1;
                if passed > fetched {
                    self.grants.push((Part { grant, life: lot.life(), amount: lot.remaining }, row.tid()));
                }
            }
            Ok(if passed < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        self.at_end = self.grants.len() < limit;
        Ok(())
    }
}

pub(super) fn kind(promotional: bool) -> &'static str {
    if promotional { "promotional" } else { "purchased" }
}
