//! Credit that moves from one wallet to another.

use pgrx::prelude::*;

use crate::core::ledger::{Life, Wallet};
use crate::core::pricing::{Amount, Rounding};
use crate::ledger::{self, Account, Act, Journal, locked, too_large};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::numeric::NumericIn;
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::args::{Sum, body, key, known, need};
use super::position::{Position, insufficient};
use super::verbs::{Of, require, worth};

/// Moves credit between two wallets in one currency or unit, of one customer or of two. It stays what it is: kind,
/// priority and expiry go with it.
#[pg_extern(sql = "")]
fn transfer(
    from_wallet: Option<i64>,
    to_wallet: Option<i64>,
    amount: Option<NumericIn<'_>>,
    idempotency_key: Option<&str>,
    description: Option<&str>,
) -> i64 {
    let tenant = settings::tenant();
    let transfer = || -> Outcome<i64> {
        let from = owner(&tenant, need("transfer", "from_wallet", from_wallet)?)?;
        let to = owner(&tenant, need("transfer", "to_wallet", to_wallet)?)?;
        let idempotency_key = key("transfer", idempotency_key)?;
        if from.id == to.id || (&from.currency, &from.unit) != (&to.currency, &to.unit) {
            return Err(Fail::parameter(
                "credit can only be transferred to another wallet in the same currency or unit",
            )
            .detail(format!("Wallet {} is in {}, wallet {} in {}.", from.id, from.holds(), to.id, to.holds()))
            .hint("For another currency, debit the one and top up the other."));
        }
        let sum = Sum::read(&tenant, "transfer", amount, Some(from.holds()))?;
        let body = body(&[&"transfer", &from.id, &to.id, &sum.amount, &description]);
        // Two customers are locked in order of their ids.
        for customer in [from.customer.as_str().min(&to.customer), from.customer.as_str().max(&to.customer)] {
            ledger::lock(&tenant, customer, &from.currency)?;
            ledger::bring_up_to(&tenant, customer, &from.currency, crate::pg::session::now())?;
        }
        locked(&tenant, &from.customer, &from.currency, None, |giver, now| {
            if let Some(id) = known(&tenant, idempotency_key, &body)? {
                return Ok(id);
            }
            let name = wallet_of(&giver, from.id)?.name.clone();
            let position = Position::of(giver)?;
            require(&position, &sum, Of { wallet: Some(&name), meter: None })?;
            let mut giver = position.account;
            let mut journal = Journal::new(&tenant, now);
            let act = Act { kind: "transfer", description, key: Some((idempotency_key, &body)), ..Act::default() };
            let transaction = journal.act(&giver, &act)?;
            let mut taken = Vec::new();
            let missing = giver
                .purse
                .burn_amount(sum.amount, now, |wallet| wallet.id == from.id, &mut taken)
                .map_err(too_large)?;
            if missing.is_positive() {
                let short = giver.purse.minor(place_of(&giver, from.id)?, &missing, Rounding::Up).map_err(too_large)?;
                let minor = worth(&giver, &sum)?;
                return Err(insufficient(&giver, minor, minor - short));
            }
            let mut moved: Vec<(Life, Amount)> = Vec::new();
            for taken in &taken {
                let lasting = giver.purse.lots[taken.lot].is_lasting();
                for part in journal.take(&mut giver, transaction, taken, "transfers", now)? {
                    // What lasts begins again, as one.
                    let life = if lasting { Life { effective_at: now, ..part.life } } else { part.life };
                    match moved.last_mut().filter(|(last, _)| *last == life) {
                        Some((_, amount)) => *amount = amount.checked_add(&part.amount).map_err(too_large)?,
                        None => moved.push((life, part.amount)),
                    }
                }
            }
            if from.customer == to.customer {
                let place = place_of(&giver, to.id)?;
                for (life, amount) in moved {
                    journal.grant(&mut giver, transaction, place, life, amount, "transfers", None)?;
                }
                journal.write([&giver])?;
                return Ok(transaction);
            }
            // By the same clock as the giver.
            ledger::bring_locked_up_to(&tenant, &to.customer, &to.currency, now, now)?;
            let mut taker = spi::in_new_snapshot(|| ledger::load(&tenant, &to.customer, &to.currency, now, now))?;
            let place = place_of(&taker, to.id)?;
            let received = journal.act(&taker, &Act { kind: "transfer", description, ..Act::default() })?;
            for (life, amount) in moved {
                journal.grant(&mut taker, received, place, life, amount, "transfers", None)?;
            }
            journal.write([&giver, &taker])?;
            Ok(transaction)
        })
    };
    raise(transfer())
}

struct Owner {
    id: i64,
    customer: String,
    currency: String,
    unit: Option<String>,
}

impl Owner {
    fn holds(&self) -> &str {
        self.unit.as_deref().unwrap_or(&self.currency)
    }
}

fn owner(tenant: &str, id: i64) -> Outcome<Owner> {
    spi::one(
        "SELECT customer_id, currency, credit_unit FROM meterflow.wallets WHERE tenant_id = $1 AND id = $2",
        &[tenant.into(), id.into()],
        See::Latest,
        |row| {
            let unit = if row.is_null(2) { None } else { Some(row.text(2)?) };
            Ok(Owner { id, customer: row.text(0)?, currency: row.text(1)?, unit })
        },
    )?
    .ok_or_else(|| {
        Fail::new(SqlState::ERRCODE_FOREIGN_KEY_VIOLATION, format!("there is no wallet {id}"))
            .detail(format!("Tenant \"{tenant}\" has none with this id."))
            .hint("SELECT id, customer_id, currency, name FROM meterflow.wallets lists them.")
    })
}

fn place_of(account: &Account, id: i64) -> Outcome<usize> {
    account
        .purse
        .wallets
        .iter()
        .position(|wallet| wallet.id == id)
        .ok_or_else(|| Fail::corrupt(format!("wallet {id} is gone")))
}

fn wallet_of(account: &Account, id: i64) -> Outcome<&Wallet> {
    place_of(account, id).map(|place| &account.purse.wallets[place])
}
