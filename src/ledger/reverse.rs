//! Taking transactions back: entries that name the original and go the other way, to the same grants.

use pgrx::prelude::*;

use crate::core::decimal::QuantityError;
use crate::core::pricing::{Amount, Rounding};
use crate::pg::error::{Fail, Outcome, raise};
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::account::Account;
use super::journal::{Act, Journal, Life, Sum};
use super::locked::locked;
use super::{stored, too_large};

/// What a transaction took of one grant, or lent (no grant), less what has been given back of it.
pub struct Given {
    pub wallet: usize,
    pub grant: Option<(i64, Option<Life>)>,
    pub expires_at: i64,
    /// In the wallet's unit.
    pub amount: Amount,
    /// In minor units.
    pub minor: i128,
}

impl Given {
    /// What a transaction took and has not given back, in the order in which it took it.
    pub fn of(account: &Account, transaction: i64) -> Outcome<Vec<Given>> {
        let mut given = Vec::new();
        spi::run(
            "SELECT e.wallet_id, e.grant_id, -sum(e.amount), -sum(e.worth), bool_or(g.lasting), max(g.priority), bool_or(g.kind = 'promotional'), max(g.effective_at), max(g.expires_at) \
               FROM meterflow.ledger_entries e LEFT JOIN meterflow.credit_grants g ON g.tenant_id = e.tenant_id AND g.id = e.grant_id \
              WHERE e.tenant_id = $1 AND e.account <> 'overdraft' \
                AND e.transaction_id IN (SELECT t.id FROM meterflow.wallet_transactions t WHERE t.tenant_id = $1 AND (t.id = $2 OR t.reverses = $2)) \
              GROUP BY e.wallet_id, e.grant_id HAVING sum(e.amount) <> 0 ORDER BY min(e.entry) FILTER (WHERE e.transaction_id = $2)",
            &[account.tenant.as_str().into(), transaction.into()],
            See::Statement,
            |row| {
                let id = row.int8(0)?;
                let wallet =
                    account.purse.wallets.iter().position(|wallet| wallet.id == id).ok_or_else(|| {
                        Fail::corrupt(format!("wallet {id} of transaction {transaction} is another's"))
                    })?;
                let grant = match row.get::<i64>(1) {
                    None => None,
                    Some(grant) => {
                        let life = Life {
                            promotional: row.bool(6)?,
                            priority: row.int4(5)?,
                            effective_at: row.time(7)?,
                            expires_at: row.time(8)?,
                        };
                        Some((grant, row.bool(4)?.then_some(life)))
                    }
                };
                let expires_at = if row.is_null(8) { i64::MAX } else { row.time(8)? };
                given.push(Given {
                    wallet,
                    grant,
                    expires_at,
                    amount: stored(row, 2)?,
                    minor: account.money(&stored(row, 3)?)?,
                });
                Ok(())
            },
        )?;
        Ok(given)
    }

    /// The part of it that is worth so many minor units.
    pub fn part(&self, account: &Account, minor: i128) -> Result<Amount, QuantityError> {
        if minor >= self.minor {
            return Ok(self.amount);
        }
        let money = Amount::new(minor.into(), account.purse.digits);
        match &account.purse.wallets[self.wallet].unit {
            None => Ok(money),
            Some(unit) => money.div_round(&unit.rate, 12, Rounding::Down),
        }
    }
}

/// Gives so many minor units of what a transaction took back to the grants it took them of, the last first: what it had
/// reached for last returns first.
pub fn give_back(
    account: &mut Account,
    journal: &mut Journal,
    transaction: i64,
    given: &[Given],
    mut minor: i128,
    from: &'static str,
) -> Outcome<()> {
    let now = journal.now;
    for part in given.iter().rev().filter(|part| part.amount.is_positive()) {
        if minor <= 0 {
            break;
        }
        let worth = part.minor.min(minor);
        let sum = Sum { amount: part.part(account, minor).map_err(too_large)?, minor: worth };
        minor -= worth;
        if sum.amount.is_zero() {
            continue;
        }
        let Some(grant) = part.grant else {
            journal.owe(account, transaction, part.wallet, -sum, from, now)?;
            unsettle(account, journal, transaction, part.wallet)?;
            continue;
        };
        journal.of_grant(account, transaction, part.wallet, grant, sum, from, now)?;
        // A wallet that owes has nothing left that lives: so it is with what comes back.
        let owed = account.purse.wallets[part.wallet].overdraft;
        if owed.is_positive() && part.expires_at > now {
            let paid = if owed.cmp(&sum.amount).is_gt() { sum.amount } else { owed };
            let minor = account.purse.minor(part.wallet, &paid, Rounding::HalfUp).map_err(too_large)?;
            let paid = Sum { amount: paid, minor };
            journal.of_grant(account, transaction, part.wallet, grant, -paid, "overdraft", now)?;
            journal.owe(account, transaction, part.wallet, -paid, "overdraft", now)?;
        }
    }
    Ok(())
}

/// Where a grant has paid an overdraft that is taken back now, the grant gets it back: the youngest first.
fn unsettle(account: &mut Account, journal: &mut Journal, transaction: i64, wallet: usize) -> Outcome<()> {
    let too_much = -account.purse.wallets[wallet].overdraft;
    if !too_much.is_positive() {
        return Ok(());
    }
    let mut paid: Vec<(i64, Option<Life>, Amount)> = Vec::new();
    spi::run(
        "SELECT e.grant_id, -sum(e.amount), bool_or(g.lasting), max(g.priority), bool_or(g.kind = 'promotional'), max(g.effective_at), max(g.expires_at) \
           FROM meterflow.ledger_entries e JOIN meterflow.credit_grants g ON g.tenant_id = e.tenant_id AND g.id = e.grant_id \
          WHERE e.tenant_id = $1 AND e.wallet_id = $2 AND e.account = 'overdraft' \
          GROUP BY e.grant_id HAVING sum(e.amount) < 0 ORDER BY e.grant_id DESC",
        &[account.tenant.as_str().into(), account.purse.wallets[wallet].id.into()],
        See::Statement,
        |row| {
            let life = Life {
                promotional: row.bool(4)?,
                priority: row.int4(3)?,
                effective_at: row.time(5)?,
                expires_at: row.time(6)?,
            };
            paid.push((row.int8(0)?, row.bool(2)?.then_some(life), stored(row, 1)?));
            Ok(())
        },
    )?;
    let now = journal.now;
    let mut left = too_much;
    for (grant, lasting, amount) in paid {
        let amount = if amount.cmp(&left).is_gt() { left } else { amount };
        if amount.is_positive() {
            let minor = account.purse.minor(wallet, &amount, Rounding::HalfUp).map_err(too_large)?;
            let sum = Sum { amount, minor };
            journal.of_grant(account, transaction, wallet, (grant, lasting), sum, "overdraft", now)?;
            journal.owe(account, transaction, wallet, sum, "overdraft", now)?;
            left = left.checked_sub(&amount).map_err(too_large)?;
        }
    }
    if left.is_positive() {
        return Err(Fail::corrupt(format!(
            "more was lent by wallet {} than its grants have paid",
            account.purse.wallets[wallet].id
        ))
        .detail(format!("{left} is too much.")));
    }
    Ok(())
}

/// Gives back what an invoice took of wallets, because it is void. Whoever calls has locked the payer.
#[pg_extern(sql = "")]
fn give_back_invoice(invoice_id: i64, customer_id: &str, currency: &str) {
    let tenant = settings::tenant();
    let work = locked(&tenant, customer_id, currency, None, |mut account, now| {
        let taken = spi::one(
            "SELECT id FROM meterflow.wallet_transactions WHERE tenant_id = $1 AND invoice_id = $2 AND kind = 'invoice'",
            &[tenant.as_str().into(), invoice_id.into()],
            See::Statement,
            |row| row.int8(0),
        )?;
        let Some(taken) = taken else { return Ok(()) };
        let given = Given::of(&account, taken)?;
        let minor = given.iter().map(|part| part.minor).sum::<i128>();
        let mut journal = Journal::new(&tenant, now);
        let act = Act { kind: "invoice_void", invoice: Some(invoice_id), reverses: Some(taken), ..Act::default() };
        let transaction = journal.act(&account, &act)?;
        give_back(&mut account, &mut journal, transaction, &given, minor, "invoices")?;
        journal.write([&account])
    });
    raise(work)
}
