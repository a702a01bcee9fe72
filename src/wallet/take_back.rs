//! Credit that is taken back or ended: refund, void_grant, expire_now.

use pgrx::prelude::*;

use crate::billing;
use crate::core::ledger::{Life, Lot, Source};
use crate::core::pricing::{Amount, Rounding};
use crate::ledger::{Account, Act, Given, Journal, Portion, give_back, life, locked, stored, too_large};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::numeric::NumericIn;
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::args::{body, key, known, need};

/// A grant as it is now.
struct Grant {
    id: i64,
    wallet: usize,
    customer: String,
    currency: String,
    transaction: i64,
    remaining: Amount,
    life: Life,
    summed: bool,
}

/// Whose a grant is: what never changes of it.
fn owner(tenant: &str, grant_id: i64) -> Outcome<(String, String)> {
    spi::one(
        "SELECT w.customer_id, w.currency FROM meterflow.credit_grants g JOIN meterflow.wallets w ON w.tenant_id = g.tenant_id AND w.id = g.wallet_id \
          WHERE g.tenant_id = $1 AND g.id = $2",
        &[tenant.into(), grant_id.into()],
        See::Latest,
        |row| Ok((row.text(0)?, row.text(1)?)),
    )?
    .ok_or_else(|| {
        Fail::new(SqlState::ERRCODE_FOREIGN_KEY_VIOLATION, format!("there is no credit grant {grant_id}"))
            .detail(format!("Tenant \"{tenant}\" has none with this id."))
            .hint("SELECT id, wallet_id, amount, remaining FROM meterflow.credit_grants lists them.")
    })
}

impl Grant {
    fn read(account: &Account, condition: &str, id: i64) -> Outcome<Grant> {
        let sql = format!(
            "SELECT id, wallet_id, transaction_id, remaining, summed, kind, priority, effective_at, expires_at FROM meterflow.credit_grants \
              WHERE tenant_id = $1 AND {condition} = $2"
        );
        spi::one(&sql, &[account.tenant.as_str().into(), id.into()], See::Statement, |row| {
            let wallet_id = row.int8(1)?;
            let wallet = account.purse.wallets.iter().position(|wallet| wallet.id == wallet_id);
            Ok(Grant {
                id: row.int8(0)?,
                wallet: wallet.ok_or_else(|| Fail::corrupt(format!("wallet {wallet_id} is gone")))?,
                customer: account.customer.clone(),
                currency: account.currency.clone(),
                transaction: row.int8(2)?,
                remaining: stored(row, 3)?,
                life: life(row, 5)?,
                summed: row.bool(4)?,
            })
        })?
        .ok_or_else(|| Fail::corrupt(format!("the credit grant of {id} is gone")))
    }

    /// An error when holds have set aside what would be taken.
    fn free(&self, account: &Account, amount: &Amount) -> Outcome<()> {
        if account.held.is_empty() && account.promised.is_empty() {
            return Ok(());
        }
        let mut with = account.clone();
        billing::reserve(&mut with)?;
        let mut without = with.clone();
        let lots = &mut without.purse.lots;
        let Life { promotional, priority, expires_at, .. } = self.life;
        let own = |lot: &&mut Lot| match lot.source {
            Source::Grant(id) => id == self.id,
            Source::Sum { last } => {
                (lot.wallet, lot.priority, lot.promotional) == (self.wallet, priority, promotional)
                    && (self.summed && lot.expires_at <= expires_at && expires_at <= last)
            }
            Source::Coming { .. } => false,
        };
        if let Some(lot) = lots.iter_mut().find(own) {
            lot.remaining = lot.remaining.checked_sub(amount).map_err(too_large)?;
        }
        // What no credit is set aside for stands on what a postpaid wallet may owe.
        let (with, without) = (with.set_aside()?, without.set_aside()?);
        if without > with && without > account.may_owe()? {
            return Err(Fail::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("credit grant {} is set aside by holds", self.id),
            )
            .detail(format!(
                "Without it, {} {} of what holds of customer \"{}\" have set aside would not be there.",
                account.shown(without - with),
                self.currency,
                self.customer
            ))
            .hint("Release the holds first, or wait until they expire."));
        }
        Ok(())
    }
}

/// Ends a grant before its time: what is left of it goes to `voids` or to `breakage`. Returns the transaction.
#[pg_extern(sql = "")]
fn end_grant(verb: &str, grant_id: Option<i64>, idempotency_key: Option<&str>, reason: Option<&str>) -> i64 {
    let tenant = settings::tenant();
    let end = || -> Outcome<i64> {
        let grant_id = need(verb, "grant_id", grant_id)?;
        let idempotency_key = key(verb, idempotency_key)?;
        let reason = need(verb, "reason", reason.filter(|reason| !reason.is_empty()))?;
        let body = body(&[&verb, &grant_id, &reason]);
        let (customer, currency) = owner(&tenant, grant_id)?;
        locked(&tenant, &customer, &currency, None, |mut account, now| {
            if let Some(id) = known(&tenant, idempotency_key, &body)? {
                return Ok(id);
            }
            let grant = Grant::read(&account, "id", grant_id)?;
            let (kind, to) = if verb == "void_grant" { ("void", "voids") } else { ("expiry", "breakage") };
            let minor = account.purse.minor(grant.wallet, &grant.remaining, Rounding::Down).map_err(too_large)?;
            grant.free(&account, &grant.remaining)?;
            if grant.remaining.is_zero() {
                return Err(Fail::new(
                    SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("nothing is left of credit grant {grant_id}"),
                )
                .detail("It has been spent, refunded or ended.")
                .hint("To give back what was spent of it, refund the transaction that spent it."));
            }
            let mut journal = Journal::new(&tenant, now);
            let act = Act {
                kind,
                description: Some(reason),
                reverses: Some(grant.transaction),
                key: Some((idempotency_key, &body)),
                ..Act::default()
            };
            let transaction = journal.act(&account, &act)?;
            let lot = (grant.id, grant.summed.then_some(grant.life));
            let ended = Portion { amount: grant.remaining, minor };
            // Of a grant to come: when it would have begun.
            let when = now.max(grant.life.effective_at);
            journal.of_grant(&mut account, transaction, grant.wallet, lot, -ended, to, when)?;
            journal.write([&account])?;
            Ok(transaction)
        })
    };
    raise(end())
}

/// Takes a transaction back, as a whole or in part: what a debit or capture took returns to the grants it came from; what a
/// top-up brought and nobody has spent is paid out. Returns the transaction that does it.
#[pg_extern(sql = "")]
fn refund_transaction(
    transaction_id: Option<i64>,
    idempotency_key: Option<&str>,
    amount: Option<NumericIn<'_>>,
    description: Option<&str>,
) -> i64 {
    let tenant = settings::tenant();
    let refund = || -> Outcome<i64> {
        let transaction_id = need("refund", "transaction_id", transaction_id)?;
        let idempotency_key = key("refund", idempotency_key)?;
        let asked = amount.map(|amount| amount.text());
        let body = body(&[&"refund", &transaction_id, &asked.as_deref(), &description]);
        let first = spi::one(
            "SELECT customer_id, currency, kind FROM meterflow.wallet_transactions WHERE tenant_id = $1 AND id = $2",
            &[tenant.as_str().into(), transaction_id.into()],
            See::Latest,
            |row| Ok((row.text(0)?, row.text(1)?, row.text(2)?)),
        )?;
        let (customer, currency, kind) = first.ok_or_else(|| {
            Fail::new(
                SqlState::ERRCODE_FOREIGN_KEY_VIOLATION,
                format!("there is no wallet transaction {transaction_id}"),
            )
            .detail(format!("Tenant \"{tenant}\" has none with this id."))
            .hint("SELECT id, kind, amount FROM meterflow.wallet_transactions lists them.")
        })?;
        if !matches!(kind.as_str(), "debit" | "capture" | "top_up") {
            return Err(Fail::parameter(format!("wallet transaction {transaction_id} can not be refunded"))
                .detail(format!("It is of kind {kind}; a debit, a capture or a top_up can be."))
                .hint("void_invoice() gives back what an invoice took, void_grant() takes a grant back."));
        }
        locked(&tenant, &customer, &currency, None, |mut account, now| {
            if let Some(id) = known(&tenant, idempotency_key, &body)? {
                return Ok(id);
            }
            let minor = |most: i128| -> Outcome<i128> {
                let Some(amount) = amount else { return Ok(most) };
                let given = amount
                    .amount()
                    .ok()
                    .filter(|given| given.is_positive() && given.shortest().scale() <= account.purse.digits);
                let minor = given.map(|given| account.money(&given)).transpose()?;
                minor.filter(|minor| *minor <= most).ok_or_else(|| {
                    Fail::parameter("a refund takes back a part or all of what is left")
                        .detail(format!("{} is asked for, {} {currency} is left.", amount.text(), account.shown(most)))
                        .hint("Leave the amount out to refund all that is left.")
                })
            };
            let mut journal = Journal::new(&tenant, now);
            let act = Act {
                kind: "refund",
                description,
                reverses: Some(transaction_id),
                key: Some((idempotency_key, &body)),
                ..Act::default()
            };
            if kind == "top_up" {
                let grant = Grant::read(&account, "transaction_id", transaction_id)?;
                let most = account.purse.minor(grant.wallet, &grant.remaining, Rounding::Down).map_err(too_large)?;
                let minor = nothing_left(minor(most)?, transaction_id)?;
                let part = if minor == most {
                    grant.remaining
                } else {
                    account.purse.amount_of(grant.wallet, minor, Rounding::Up).map_err(too_large)?
                };
                grant.free(&account, &part)?;
                let transaction = journal.act(&account, &act)?;
                let lot = (grant.id, grant.summed.then_some(grant.life));
                journal.of_grant(
                    &mut account,
                    transaction,
                    grant.wallet,
                    lot,
                    -Portion { amount: part, minor },
                    "payments",
                    now.max(grant.life.effective_at),
                )?;
                journal.write([&account])?;
                return Ok(transaction);
            }
            let given = Given::of(&account, transaction_id)?;
            let minor = nothing_left(minor(given.iter().map(|part| part.minor).sum())?, transaction_id)?;
            let transaction = journal.act(&account, &act)?;
            give_back(&mut account, &mut journal, transaction, &given, minor, "revenue")?;
            journal.write([&account])?;
            Ok(transaction)
        })
    };
    raise(refund())
}

fn nothing_left(minor: i128, transaction: i64) -> Outcome<i128> {
    if minor > 0 {
        return Ok(minor);
    }
    Err(Fail::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("nothing of wallet transaction {transaction} is left to refund"),
    )
    .detail("It has been refunded, or what it brought has been spent.")
    .hint("SELECT * FROM meterflow.wallet_transactions WHERE reverses = its id shows what has been taken back."))
}
