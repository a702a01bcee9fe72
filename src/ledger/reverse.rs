//! Taking transactions back: entries that name the original and go the other way, to the same grants.

use pgrx::prelude::*;

use crate::core::decimal::QuantityError;
use crate::core::ledger::Life;
use crate::core::pricing::{Amount, Rounding};
use crate::pg::error::{Fail, Outcome, raise};
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::account::Account;
use super::journal::{Act, Journal, Portion, life};
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
            "SELECT e.wallet_id, e.grant_id, -sum(e.amount), -sum(e.worth), g.summed, g.kind, g.priority, g.effective_at, g.expires_at \
               FROM meterflow.ledger_entries e LEFT JOIN meterflow.credit_grants g ON g.tenant_id = e.tenant_id AND g.id = e.grant_id \
              WHERE e.tenant_id = $1 AND e.account <> 'overdraft' \
                AND e.transaction_id IN (SELECT t.id FROM meterflow.wallet_transactions t WHERE t.tenant_id = $1 AND (t.id = $2 OR t.reverses = $2)) \
              GROUP BY 1, 2, 5, 6, 7, 8, 9 HAVING sum(e.amount) <> 0 ORDER BY min(e.entry) FILTER (WHERE e.transaction_id = $2)",
            &[account.tenant.as_str().into(), transaction.into()],
            See::Statement,
            |row| {
                let id = row.int8(0)?;
                let wallet =
                    account.purse.wallets.iter().position(|wallet| wallet.id == id).ok_or_else(|| {
                        Fail::corrupt(format!("wallet {id} of transaction {transaction} is another's"))
                    })?;
                let (mut grant, mut expires_at) = (None, i64::MAX);
                if let Some(id) = row.get::<i64>(1) {
                    let life = life(row, 5)?;
                    (grant, expires_at) = (Some((id, row.bool(4)?.then_some(life))), life.expires_at);
                }
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
        if minor >= self.minor { Ok(self.amount) } else { account.purse.amount_of(self.wallet, minor, Rounding::Down) }
    }
}

/// Gives so many minor units of what a transaction took back to the grants it took them of, the last first: what it had
/// reached for last returns first. With the last of them whatever was worth nothing by itself.
pub fn give_back(
    account: &mut Account,
    journal: &mut Journal,
    transaction: i64,
    given: &[Given],
    mut minor: i128,
    from: &'static str,
) -> Outcome<()> {
    let now = journal.now;
    let all = given.iter().map(|part| part.minor).sum::<i128>() <= minor;
    for part in given.iter().rev().filter(|part| part.amount.is_positive()) {
        if minor <= 0 && !all {
            break;
        }
        let worth = part.minor.min(minor);
        let back = Portion { amount: part.part(account, minor).map_err(too_large)?, minor: worth };
        minor -= worth;
        if back.amount.is_zero() {
            continue;
        }
        let Some(grant) = part.grant else {
            journal.owe(account, transaction, part.wallet, -back, from, now)?;
            unsettle(account, journal, transaction, part.wallet)?;
            continue;
        };
        journal.of_grant(account, transaction, part.wallet, grant, back, from, now)?;
        // A wallet that owes has nothing left that lives: so it is with what comes back.
        if part.expires_at > now {
            journal.pay_overdraft(account, transaction, part.wallet, grant, back.amount)?;
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
        "SELECT e.grant_id, -sum(e.amount), g.summed, g.kind, g.priority, g.effective_at, g.expires_at \
           FROM meterflow.ledger_entries e JOIN meterflow.credit_grants g ON g.tenant_id = e.tenant_id AND g.id = e.grant_id \
          WHERE e.tenant_id = $1 AND e.wallet_id = $2 AND e.account = 'overdraft' \
          GROUP BY 1, 3, 4, 5, 6, 7 HAVING sum(e.amount) < 0 ORDER BY e.grant_id DESC",
        &[account.tenant.as_str().into(), account.purse.wallets[wallet].id.into()],
        See::Statement,
        |row| {
            let life = life(row, 3)?;
            paid.push((row.int8(0)?, row.bool(2)?.then_some(life), stored(row, 1)?));
            Ok(())
        },
    )?;
    let now = journal.now;
    let mut left = too_much;
    for (grant, summed, amount) in paid {
        let amount = amount.min(left);
        if amount.is_positive() {
            let back = -journal.portion(account, wallet, amount)?;
            journal.settle(account, transaction, wallet, (grant, summed), back, now)?;
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
