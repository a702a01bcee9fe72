//! Holds: credit set aside until it is captured, released or expires. A hold is only given when the credit is there after
//! all debts, under the account's lock, so holds together never set aside what does not exist.
//!
//! A hold counts until before its expiry and not after, whether or not its row says so: writers mark expired ones as they
//! come by, a hundred at a time, and readers subtract those that nobody has marked.

use pgrx::prelude::*;

use crate::core::pricing::{Amount, Money};
use crate::ledger::{Account, Act, Journal, covers, locked, stored, tables};
use crate::meters;
use crate::pg::cell::Cell;
use crate::pg::datum::{rfc3339, sha256};
use crate::pg::error::{Fail, Outcome, SqlState, or_if_taken, raise};
use crate::pg::numeric::{NumericIn, NumericOut};
use crate::pg::scan::{Is, Reader, Value};
use crate::pg::session;
use crate::pg::settings;
use crate::pg::spi::{self, See, Tid};
use crate::pg::write::At;

use super::args::{Sum, body, key, known_hold, need, used_otherwise};
use super::position::{Position, cost};
use super::verbs;

/// Expired holds that one writer marks.
const SWEEP: i64 = 100;

#[pg_extern(sql = "")]
#[allow(clippy::too_many_arguments)]
fn hold(
    customer_id: Option<&str>,
    amount: Option<NumericIn<'_>>,
    currency: Option<&str>,
    ttl: Option<Interval>,
    idempotency_key: Option<&str>,
    meter_key: Option<&str>,
    quantity: Option<NumericIn<'_>>,
) -> i64 {
    let tenant = settings::tenant();
    let hold = || -> Outcome<i64> {
        let customer = need("hold", "customer_id", customer_id)?;
        let currency = need("hold", "currency", currency)?;
        let idempotency_key = key("hold", idempotency_key)?;
        let span = need("hold", "ttl", ttl)?;
        let ttl = i64::try_from(span.as_micros()).ok().filter(|ttl| *ttl > 0).ok_or_else(|| {
            Fail::parameter("a hold must last for some time")
                .detail("Its ttl is zero or less.")
                .hint("For instance '5 minutes'.")
        })?;
        let asked = match (amount, quantity) {
            (amount, None) => Asked::Amount(Sum::read(&tenant, "hold", amount, Some(currency))?),
            (None, Some(quantity)) => Asked::Quantity(
                need("hold", "meter_key", meter_key)?,
                quantity.amount().ok().filter(Amount::is_positive).ok_or_else(|| {
                    Fail::parameter("a quantity to hold for must be a number above zero")
                        .detail(format!("It is {}.", quantity.text()))
                        .hint("It is in the unit of the meter.")
                })?,
            ),
            (Some(_), Some(_)) => {
                return Err(Fail::parameter("a hold is of an amount, or for a quantity of a meter")
                    .detail("Both are given.")
                    .hint("For a quantity the amount is what it costs the customer."));
            }
        };
        let texts = (amount.map(|amount| amount.text()), quantity.map(|quantity| quantity.text()));
        let body = body(&[&"hold", &customer, &texts.0.as_deref(), &currency, &ttl, &meter_key, &texts.1.as_deref()]);
        let money_currency = match &asked {
            Asked::Amount(sum) => sum.currency.clone(),
            Asked::Quantity(..) => currency.to_string(),
        };
        locked(&tenant, customer, &money_currency, None, |account, now| {
            if let Some(id) = known_hold(&tenant, idempotency_key, &body)? {
                return Ok(id);
            }
            if let Some(meter) = meter_key {
                meters::must_exist(&tenant, meter)?;
            }
            let (minor, held_for) = match &asked {
                Asked::Amount(sum) => (verbs::worth(&account, sum)?, None),
                Asked::Quantity(meter, quantity) => (cost(&account, meter, quantity)?, Some(quantity)),
            };
            let position = Position::of(account)?;
            // A quantity that costs nothing is there whatever is owed; its hold counts for what the next one costs.
            if minor > 0 {
                position.require(minor, |wallet| covers(wallet, meter_key))?;
            }
            let mut account = position.account;
            sweep(&mut account, now)?;
            let money = Money::new(minor.into(), account.purse.digits);
            let ends = now.saturating_add(ttl);
            account
                .totals
                .add_hold(meter_key, held_for, &money.into(), (now, ends))
                .map_err(crate::ledger::too_large)?;
            let id = insert(&account, money, meter_key, held_for, ends, now, (idempotency_key, &body))?;
            Journal::new(&tenant, now).write([&account])?;
            Ok(id)
        })
    };
    raise(hold())
}

enum Asked<'a> {
    Amount(Sum),
    Quantity(&'a str, Amount),
}

fn insert(
    account: &Account,
    money: Money,
    meter: Option<&str>,
    quantity: Option<&Amount>,
    expires_at: i64,
    now: i64,
    key: (&str, &str),
) -> Outcome<i64> {
    let id = session::next_value(session::relation("holds_id_seq")?);
    let row = [
        Cell::Text(&account.tenant),
        Cell::Int8(id),
        Cell::Text(&account.customer),
        Cell::Text(&account.currency),
        Cell::Numeric(money.into()),
        meter.into(),
        quantity.map(NumericOut::from).into(),
        Cell::Time(expires_at),
        Cell::Text("open"),
        Cell::Numeric((&Amount::ZERO).into()),
        Cell::Null,
        Cell::Null,
        Cell::Text(key.0),
        Cell::Bytes(&sha256(key.1)),
        Cell::Time(now),
        Cell::Text(&session::user()),
    ];
    or_if_taken(
        || tables::WRITE_HOLDS.insert([row]),
        // Looked up under this customer's lock: another customer's, just committed.
        || used_otherwise(key.0).detail("Another session has used it at this moment, for another customer."),
    )?;
    Ok(id)
}

/// Marks holds that have expired.
fn sweep(account: &mut Account, now: i64) -> Outcome<()> {
    if !account.expired_holds {
        return Ok(());
    }
    let mut expired: Vec<(Option<String>, Option<Amount>, Amount)> = Vec::new();
    spi::run(
        "UPDATE meterflow.holds h SET status = 'expired', closed_at = h.expires_at \
          WHERE h.tenant_id = $1 AND h.id IN (SELECT o.id FROM meterflow.holds o WHERE o.tenant_id = $1 AND o.customer_id = $2 AND o.currency = $3 \
                                                 AND o.status = 'open' AND o.expires_at <= $4 ORDER BY o.expires_at LIMIT $5) \
         RETURNING h.meter_key, h.amount, h.quantity",
        &[
            account.tenant.as_str().into(),
            account.customer.as_str().into(),
            account.currency.as_str().into(),
            spi::time(now),
            SWEEP.into(),
        ],
        See::Write,
        |row| {
            let meter = if row.is_null(0) { None } else { Some(row.text(0)?) };
            let quantity = if row.is_null(2) { None } else { Some(stored(row, 2)?) };
            expired.push((meter, quantity, stored(row, 1)?));
            Ok(())
        },
    )?;
    for (meter, quantity, amount) in expired {
        let ended = account.totals.end_hold(meter.as_deref(), quantity.as_ref(), &amount, now);
        ended.map_err(crate::ledger::too_large)?;
    }
    Ok(())
}

struct Held {
    customer: String,
    currency: String,
    amount: Amount,
    meter: Option<String>,
    quantity: Option<Amount>,
    expires_at: i64,
    created_at: i64,
    status: String,
    captured: Amount,
    transaction: Option<i64>,
    read_at: Option<Tid>,
}

impl Held {
    /// In the statement's snapshot.
    fn read(tenant: &str, hold_id: i64) -> Outcome<Held> {
        let mut found = None;
        let terms = [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Int8(hold_id))];
        Reader::open(&tables::HOLDS)?.rows(&terms, |row| {
            found = Some(Held {
                customer: row.text(0)?,
                currency: row.text(1)?,
                amount: stored(row, 2)?,
                meter: if row.is_null(3) { None } else { Some(row.text(3)?) },
                expires_at: row.time(4)?,
                status: row.text(5)?,
                captured: stored(row, 6)?,
                transaction: row.get(7),
                created_at: row.time(8)?,
                quantity: if row.is_null(9) { None } else { Some(stored(row, 9)?) },
                read_at: row.tid(),
            });
            Ok(())
        })?;
        found.ok_or_else(|| {
            Fail::new(SqlState::ERRCODE_FOREIGN_KEY_VIOLATION, format!("there is no hold {hold_id}"))
                .detail(format!("Tenant \"{tenant}\" has none with this id."))
                .hint("SELECT id, customer_id, amount, status FROM meterflow.holds lists them.")
        })
    }

    /// An error unless it can still be captured or released.
    fn must_be_open(&self, hold_id: i64, now: i64) -> Outcome<()> {
        let why = match self.status.as_str() {
            "open" if now < self.expires_at => return Ok(()),
            "open" | "expired" => format!("It expired at {}.", rfc3339(self.expires_at)),
            "captured" => format!("{} {} of it has been captured.", self.captured, self.currency),
            other => format!("It is {other}."),
        };
        Err(Fail::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("hold {hold_id} is not open"))
            .detail(why)
            .hint("Debit what was used, or make another hold."))
    }
}

/// Ends a hold: spends so much of it (nothing: releases it) and lets go of the rest. Returns the transaction, if it spent
/// anything. `paid_by_usage`: events pay for it, as open usage.
#[pg_extern(sql = "")]
fn close_hold(
    verb: &str,
    hold_id: Option<i64>,
    amount: Option<NumericIn<'_>>,
    description: Option<&str>,
    paid_by_usage: bool,
) -> Option<i64> {
    let tenant = settings::tenant();
    let close = || -> Outcome<Option<i64>> {
        let hold_id = need(verb, "hold_id", hold_id)?;
        let first = spi::in_new_snapshot(|| Held::read(&tenant, hold_id))?;
        let (customer, currency) = (first.customer.clone(), first.currency.clone());
        locked(&tenant, &customer, &currency, Some(first.created_at), |mut account, now| {
            let held = Held::read(&tenant, hold_id)?;
            let spent = match (verb, amount) {
                ("release", _) => Amount::ZERO,
                _ if paid_by_usage => Amount::ZERO,
                (_, None) => held.amount,
                (_, Some(amount)) => amount
                    .amount()
                    .ok()
                    .filter(|spent| !spent.is_negative() && spent.shortest().scale() <= account.purse.digits)
                    .filter(|spent| spent.cmp(&held.amount).is_le())
                    .ok_or_else(|| {
                        Fail::parameter("a capture takes from nothing to all of its hold")
                            .detail(format!(
                                "{} is asked for, the hold is of {} {currency}.",
                                amount.text(),
                                held.amount
                            ))
                            .hint("Debit what goes beyond the hold.")
                    })?,
            };
            let outcome = if verb == "release" { "released" } else { "captured" };
            // A retry of what has been done.
            if held.status == outcome && held.captured == spent {
                return Ok(held.transaction);
            }
            // It has let go by itself.
            if verb == "release" && held.status != "captured" && held.expires_at <= now {
                return Ok(None);
            }
            held.must_be_open(hold_id, now)?;
            let minor = account.money(&spent)?;
            let mut journal = Journal::new(&tenant, now);
            let mut transaction = None;
            if minor > 0 {
                account.let_go(&held.amount, held.meter.as_deref(), held.quantity.as_ref(), held.created_at)?;
                let mut position = Position::of(account)?;
                let act = Act { kind: "capture", description, hold: Some(hold_id), ..Act::default() };
                let id = journal.act(&position.account, &act)?;
                verbs::capture(&mut position, &mut journal, id, minor, held.created_at, held.meter.as_deref())?;
                account = position.account;
                transaction = Some(id);
            }
            account
                .totals
                .end_hold(held.meter.as_deref(), held.quantity.as_ref(), &held.amount, held.created_at)
                .map_err(crate::ledger::too_large)?;
            sweep(&mut account, now)?;
            let at = At { key: [Value::Text(&tenant), Value::Int8(hold_id)], read_at: held.read_at };
            tables::WRITE_HOLDS.update(
                &["status", "captured", "transaction_id", "closed_at"],
                [(at, ())],
                |(), _| Ok([Cell::Text(outcome), Cell::Numeric((&spent).into()), transaction.into(), Cell::Time(now)]),
            )?;
            journal.write([&account])?;
            Ok(transaction)
        })
    };
    raise(close())
}
