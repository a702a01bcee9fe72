//! Credit that comes and goes: top_up, grant_credit, debit, debit_rows.

use pgrx::prelude::*;

use crate::core::ledger::{Life, Limit, Wallet};
use crate::core::pricing::Rounding;
use crate::ledger::{self, Account, Act, Journal, Portion, covers, locked, too_large};
use crate::meters;
use crate::pg::datum::unix_micros;
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::numeric::NumericIn;
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::args::{Sum, body, key, known, need};
use super::position::{Position, holds, insufficient};

/// Minor units that may be added at once, as on a line of an invoice: sums of credit are far from what does not fit.
const MOST: i128 = 10_i128.pow(30);

/// Puts credit into a wallet as a new grant; returns the transaction and the grant.
#[pg_extern(sql = "")]
#[allow(clippy::too_many_arguments)]
fn add_credit(
    verb: &str,
    customer_id: Option<&str>,
    amount: Option<NumericIn<'_>>,
    currency: Option<&str>,
    idempotency_key: Option<&str>,
    description: Option<&str>,
    wallet: Option<&str>,
    promotional: bool,
    priority: Option<i32>,
    effective_at: Option<TimestampWithTimeZone>,
    expires_at: Option<TimestampWithTimeZone>,
) -> i64 {
    let tenant = settings::tenant();
    let add = || -> Outcome<i64> {
        let customer = need(verb, "customer_id", customer_id)?;
        let sum = Sum::read(&tenant, verb, amount, currency)?;
        let wallet = need(verb, "wallet", wallet.filter(|wallet| !wallet.is_empty()))?;
        let priority = need(verb, "priority", priority)?;
        let idempotency_key = key(verb, idempotency_key)?;
        let at = |time: Option<TimestampWithTimeZone>| time.map(|time| unix_micros(time.into_inner()));
        let (effective_at, expires_at) = (at(effective_at), need(verb, "expires_at", at(expires_at))?);
        if effective_at == Some(i64::MAX) || effective_at == Some(i64::MIN) || expires_at == i64::MIN {
            return Err(Fail::parameter("credit must begin at a time, and end after it or never")
                .detail("A time is infinite.")
                .hint("Leave effective_at out for now, and expires_at for never."));
        }
        let body = body(&[
            &verb,
            &customer,
            &sum.amount,
            &need(verb, "currency", currency)?,
            &wallet,
            &description,
            &i64::from(priority),
            &effective_at,
            &expires_at,
        ]);
        locked(&tenant, customer, &sum.currency, None, |mut account, now| {
            if let Some(id) = known(&tenant, idempotency_key, &body)? {
                return Ok(id);
            }
            let life = Life {
                promotional,
                priority,
                // Not later than any time that a statement after this one asks for.
                effective_at: effective_at.unwrap_or_else(crate::pg::session::statement_time),
                expires_at,
            };
            if life.expires_at <= life.effective_at {
                return Err(Fail::parameter("credit must expire after it begins")
                    .detail("expires_at is not after effective_at.")
                    .hint("It counts from effective_at on, and until before expires_at."));
            }
            let place = open_wallet(&mut account, &sum, wallet)?;
            let minor = account.purse.minor(place, &sum.amount, Rounding::Up).map_err(too_large)?;
            if minor > MOST {
                return Err(Fail::new(
                    SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                    "so much credit can not be added at once",
                )
                .detail(format!("The amount is {}.", sum.text()))
                .hint("There is not so much money: look for a mistake in the unit."));
            }
            let mut journal = Journal::new(&tenant, now);
            let (kind, from) = if verb == "top_up" { ("top_up", "payments") } else { ("grant", "promotions") };
            let act = Act { kind, description, key: Some((idempotency_key, &body)), ..Act::default() };
            let transaction = journal.act(&account, &act)?;
            journal.grant(&mut account, transaction, place, life, sum.amount, from, None)?;
            journal.write([&account])?;
            Ok(transaction)
        })
    };
    raise(add())
}

/// The wallet of this name, made when there is none. It must hold what the sum is in.
fn open_wallet(account: &mut Account, sum: &Sum, name: &str) -> Outcome<usize> {
    if let Some(place) = account.purse.wallets.iter().position(|wallet| wallet.name == name) {
        let holds = account.purse.wallets[place].unit.as_ref().map(|unit| unit.key.as_str());
        if holds != sum.unit.as_deref() {
            return Err(Fail::parameter(format!(
                "wallet \"{name}\" holds {}, not {}",
                holds.unwrap_or(&account.currency),
                sum.unit.as_deref().unwrap_or(&sum.currency)
            ))
            .detail(format!("The amount is {}.", sum.text()))
            .hint("Name another wallet; a new name makes one."));
        }
        return Ok(place);
    }
    spi::run(
        "INSERT INTO meterflow.wallets (tenant_id, customer_id, currency, credit_unit, name) VALUES ($1, $2, $3, $4, $5)",
        &[
            account.tenant.as_str().into(),
            account.customer.as_str().into(),
            account.currency.as_str().into(),
            sum.unit.as_deref().into(),
            name.into(),
        ],
        See::Write,
        |_| Ok(()),
    )?;
    let fresh = spi::in_new_snapshot(|| {
        let now = account.purse.as_of;
        ledger::load(&account.tenant, &account.customer, &account.currency, now, now)
    })?;
    *account = fresh;
    account
        .purse
        .wallets
        .iter()
        .position(|wallet| wallet.name == name)
        .ok_or_else(|| Fail::corrupt(format!("wallet \"{name}\" was not made")))
}

/// Which wallets a debit may take of.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    pub wallet: Option<&'a str>,
    pub meter: Option<&'a str>,
}

impl Of<'_> {
    /// They all pay for the same: one wallet, or all that pay for anything.
    fn are_alike(&self) -> bool {
        self.wallet.is_some() || self.meter.is_none()
    }

    fn covers(&self, wallet: &Wallet) -> bool {
        match self.wallet {
            Some(name) => wallet.name == name,
            None => covers(wallet, self.meter),
        }
    }
}

#[pg_extern(sql = "")]
#[allow(clippy::too_many_arguments)]
fn debit(
    customer_id: Option<&str>,
    amount: Option<NumericIn<'_>>,
    currency: Option<&str>,
    idempotency_key: Option<&str>,
    description: Option<&str>,
    wallet: Option<&str>,
    meter_key: Option<&str>,
    allow_overdraft: Option<bool>,
) -> i64 {
    let tenant = settings::tenant();
    let debit = || -> Outcome<i64> {
        let customer = need("debit", "customer_id", customer_id)?;
        let sum = Sum::read(&tenant, "debit", amount, currency)?;
        let idempotency_key = key("debit", idempotency_key)?;
        let overdraw = allow_overdraft.unwrap_or(false);
        let body = body(&[
            &"debit",
            &customer,
            &sum.amount,
            &need("debit", "currency", currency)?,
            &description,
            &wallet,
            &meter_key,
            &i64::from(overdraw),
        ]);
        locked(&tenant, customer, &sum.currency, None, |account, now| {
            if let Some(id) = known(&tenant, idempotency_key, &body)? {
                return Ok(id);
            }
            if let Some(meter) = meter_key {
                meters::must_exist(&tenant, meter)?;
            }
            let of = Of { wallet, meter: meter_key };
            let mut journal = Journal::new(&tenant, now);
            let mut position = Position::of(account)?;
            if !overdraw {
                require(&position, &sum, of)?;
            }
            let act = Act { kind: "debit", description, key: Some((idempotency_key, &body)), ..Act::default() };
            let transaction = journal.act(&position.account, &act)?;
            spend(&mut position, &mut journal, transaction, &sum, of, overdraw)?;
            journal.write([&position.account])?;
            Ok(transaction)
        })
    };
    raise(debit())
}

/// What a sum is worth in minor units; of a unit rounded up.
pub fn worth(account: &Account, sum: &Sum) -> Outcome<i128> {
    let Some(key) = &sum.unit else { return sum.minor() };
    match account.purse.wallets.iter().position(|wallet| holds(wallet, key)) {
        Some(wallet) => account.purse.minor(wallet, &sum.amount, Rounding::Up).map_err(too_large),
        None => Err(insufficient(account, 0, 0).detail(format!(
            "Customer \"{}\" has no wallet that holds {key}; {} is asked for.",
            account.customer,
            sum.text()
        ))),
    }
}

/// An error unless so much is available.
pub fn require(position: &Position, sum: &Sum, of: Of<'_>) -> Outcome<()> {
    let minor = worth(&position.account, sum)?;
    match &sum.unit {
        None => position.require(minor, |wallet| of.covers(wallet)),
        Some(key) => position.require_units(key, &sum.amount, minor, |wallet| of.covers(wallet)),
    }
}

/// Burns a sum, then lets wallets owe the rest as far as their limits go; `overdraw`: as far as it takes.
pub fn spend(
    position: &mut Position,
    journal: &mut Journal,
    transaction: i64,
    sum: &Sum,
    of: Of<'_>,
    overdraw: bool,
) -> Outcome<()> {
    let now = journal.now;
    let (taken, missing) = match &sum.unit {
        None => position.take(sum.minor()?, of.are_alike(), |minor, purse, taken| {
            purse.burn(minor, now, |wallet| of.covers(wallet), taken)
        })?,
        Some(key) => {
            let in_unit = |wallet: &Wallet| of.covers(wallet) && holds(wallet, key);
            let (taken, missing) = position.take(sum.amount, of.are_alike(), |amount, purse, taken| {
                purse.burn_amount(amount, now, in_unit, taken)
            })?;
            let purse = &position.account.purse;
            let missing = match purse.wallets.iter().position(in_unit) {
                Some(wallet) => purse.minor(wallet, &missing, Rounding::Up).map_err(too_large)?,
                None => worth(&position.account, sum)?,
            };
            (taken, missing)
        }
    };
    let account = &mut position.account;
    for taken in &taken {
        journal.take(account, transaction, taken, "revenue", now)?;
    }
    owe(account, journal, transaction, missing, now, of, overdraw)
}

/// Lets wallets owe for a debt that has this time, each as far as its limit goes; with `overdraw` the first of them what is
/// still missing then. A wallet does not owe while it has credit: what holds have set aside of it goes first, and is then
/// what it can still owe.
fn owe(
    account: &mut Account,
    journal: &mut Journal,
    transaction: i64,
    mut missing: i128,
    debt: i64,
    of: Of<'_>,
    overdraw: bool,
) -> Outcome<()> {
    let asked = missing;
    let places: Vec<usize> =
        (0..account.purse.wallets.len()).filter(|place| of.covers(&account.purse.wallets[*place])).collect();
    let beyond = places.first().filter(|_| overdraw).map(|place| (*place, true));
    for (place, beyond) in places.iter().map(|place| (*place, false)).chain(beyond) {
        let wallet = &account.purse.wallets[place];
        let owed = account.purse.minor(place, &wallet.overdraft, Rounding::Up).map_err(too_large)?;
        let part = match wallet.limit {
            Limit::Of(limit) if !beyond => (account.money(&limit)? - owed).clamp(0, missing),
            _ => missing,
        };
        missing -= part;
        let part = take_aside(account, journal, transaction, part, debt, place)?;
        if part > 0 {
            let lent =
                Portion { amount: account.purse.amount_of(place, part, Rounding::Up).map_err(too_large)?, minor: part };
            journal.owe(account, transaction, place, lent, "revenue", journal.now)?;
        }
    }
    if missing > 0 { Err(insufficient(account, asked, asked - missing)) } else { Ok(()) }
}

/// Spends of a wallet what holds have set aside of it; returns what is missing then.
fn take_aside(
    account: &mut Account,
    journal: &mut Journal,
    transaction: i64,
    mut minor: i128,
    debt: i64,
    wallet: usize,
) -> Outcome<i128> {
    let now = journal.now;
    let mut aside = std::mem::take(&mut account.aside);
    aside.sort_by_key(|aside| aside.lot);
    for aside in aside {
        let lot = &account.purse.lots[aside.lot];
        if minor == 0 || lot.wallet != wallet || !lot.serves(debt, now) {
            account.aside.push(aside);
            continue;
        }
        account.purse.put_back(&[aside]).map_err(too_large)?;
        let taken = account.purse.take(aside.lot, aside.minor.min(minor)).map_err(too_large)?;
        journal.take(account, transaction, &taken, "revenue", now)?;
        minor -= taken.minor;
        if taken.minor < aside.minor {
            let rest = account.purse.take(aside.lot, aside.minor - taken.minor).map_err(too_large)?;
            account.aside.push(rest);
        }
    }
    Ok(minor)
}

/// Spends what a hold had set aside, which has been let go of. It was there when the hold was made, so it is spent whatever
/// has come since.
pub fn capture(
    position: &mut Position,
    journal: &mut Journal,
    transaction: i64,
    minor: i128,
    held_at: i64,
    meter: Option<&str>,
) -> Outcome<()> {
    let now = journal.now;
    let (taken, missing) = position.take(minor, meter.is_none(), |minor, purse, taken| {
        purse.burn(minor, held_at, |wallet| covers(wallet, meter), taken)
    })?;
    let account = &mut position.account;
    for taken in &taken {
        journal.take(account, transaction, taken, "revenue", now)?;
    }
    owe(account, journal, transaction, missing, held_at, Of { wallet: None, meter }, true)
}

/// Many debits in one transaction: what each came to. A debit fails alone, for want of credit or for a key that was used
/// for something else.
#[pg_extern(sql = "")]
fn debit_rows(
    customer_ids: Option<Vec<Option<String>>>,
    amounts: Option<Vec<Option<pgrx::AnyNumeric>>>,
    currency: Option<&str>,
    idempotency_keys: Option<Vec<Option<String>>>,
) -> TableIterator<
    'static,
    (
        name!(ordinal, i32),
        name!(transaction_id, Option<i64>),
        name!(code, Option<String>),
        name!(message, Option<String>),
    ),
> {
    let tenant = settings::tenant();
    let rows = (|| {
        let customers = need("debit_rows", "customer_ids", customer_ids)?;
        let amounts = need("debit_rows", "amounts", amounts)?;
        let currency = need("debit_rows", "currency", currency)?;
        let keys = need("debit_rows", "idempotency_keys", idempotency_keys)?;
        if customers.len() != amounts.len() || customers.len() != keys.len() {
            return Err(Fail::parameter("the arrays of debit_rows must be equally long")
                .detail(format!(
                    "There are {} customers, {} amounts and {} keys.",
                    customers.len(),
                    amounts.len(),
                    keys.len()
                ))
                .hint("One element of each is one debit."));
        }
        super::batch::debits(&tenant, &customers, &amounts, currency, &keys)
    })();
    let rows = raise(rows).into_iter().enumerate().map(|(place, outcome)| {
        let ordinal = i32::try_from(place + 1).unwrap_or(i32::MAX);
        match outcome {
            Ok(id) => (ordinal, Some(id), None, None),
            Err((code, message)) => (ordinal, None, Some(code.to_string()), Some(message)),
        }
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}
