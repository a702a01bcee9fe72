//! Work on a customer's credit under its lock, with all written down that time has brought.

use crate::pg::error::Outcome;
use crate::pg::session;
use crate::pg::settings;
use crate::pg::spi;

use super::account::{Account, Books, load};
use super::coming::Due;
use super::journal::{Act, Journal, Portion};
use super::lock::lock;
use super::too_large;
use super::write::write_totals;

/// Locks a customer's credit and works on it in one snapshot, as it is now. `since`: the time of the oldest debt to be
/// paid; none: now. The work gets the account and the clock.
pub fn locked<T>(
    tenant: &str,
    customer: &str,
    currency: &str,
    since: Option<i64>,
    work: impl FnOnce(Account, i64) -> Outcome<T>,
) -> Outcome<T> {
    let mut found = Some(lock(tenant, customer, currency)?);
    let now = session::now();
    let since = since.unwrap_or(now);
    let mut work = Some(work);
    loop {
        let done = spi::in_new_snapshot(|| {
            let mut account = Books::open()?.account(tenant, customer, currency, (now, since), found.take())?;
            if catch_up(&mut account, now)? {
                return Ok(None);
            }
            work.take().map(|work| work(account, now)).transpose()
        })?;
        if let Some(done) = done {
            return Ok(done);
        }
    }
}

/// Locks a customer's credit and writes down what time has brought until `as_of`. What is read after it in a new snapshot
/// stays so until the transaction ends; that of a customer who had no credit, too.
pub fn bring_up_to(tenant: &str, customer: &str, currency: &str, as_of: i64) -> Outcome<()> {
    lock(tenant, customer, currency)?;
    let has_any = spi::one(
        "SELECT EXISTS (SELECT FROM meterflow.wallets WHERE tenant_id = $1 AND customer_id = $2 AND currency = $3)",
        &[tenant.into(), customer.into(), currency.into()],
        spi::See::Latest,
        |row| row.bool(0),
    )?;
    if has_any == Some(true) { bring_locked_up_to(tenant, customer, currency, as_of, session::now()) } else { Ok(()) }
}

/// As [`bring_up_to`], of a customer whose credit is locked, by the clock as it has been read.
pub fn bring_locked_up_to(tenant: &str, customer: &str, currency: &str, as_of: i64, now: i64) -> Outcome<()> {
    while spi::in_new_snapshot(|| catch_up(&mut load(tenant, customer, currency, as_of, as_of)?, now))? {}
    Ok(())
}

/// Writes occurrences of recurring grants that have begun, or else overdrafts that grants have paid by beginning, or else
/// sums that have become too large as several; whether there were any.
fn catch_up(account: &mut Account, now: i64) -> Outcome<bool> {
    let mut due: Vec<Due> = Vec::new();
    if account.has_coming() {
        for wallet in account.purse.wallets.iter().map(|wallet| wallet.id).collect::<Vec<_>>() {
            due.extend(account.due(wallet, i64::MIN)?);
        }
    }
    let mut journal = Journal::new(&account.tenant, now);
    if !due.is_empty() {
        due.sort_by_key(|due| due.lots.first().map(|(_, lot)| lot.effective_at));
        for occurrence in &due {
            give(account, &mut journal, occurrence)?;
        }
        journal.write([&*account])?;
        return written_down(account, &due).map(|()| true);
    }
    let paid = account.purse.settle().map_err(too_large)?;
    if paid.is_empty() {
        let most = settings::grants_per_sum();
        let too_large = account.totals.sums.iter().any(|sum| sum.is_too_large(most, now));
        if too_large && Books::open()?.divide_sums(account, most, now)? {
            write_totals(&account.tenant, &[&*account])?;
            return Ok(true);
        }
        return Ok(false);
    }
    let transaction = journal.act(account, &Act { kind: "settlement", ..Act::default() })?;
    for taken in &paid {
        let (wallet, began) = (account.purse.lots[taken.lot].wallet, account.purse.lots[taken.lot].effective_at);
        // When both were there: the credit and the debt.
        let when = began.max(account.created(taken)).max(account.purse.wallets[wallet].owes_since);
        // The purse has both taken and paid already.
        account.purse.wallets[wallet].overdraft =
            account.purse.wallets[wallet].overdraft.checked_add(&taken.amount).map_err(too_large)?;
        journal.take_lot(account, transaction, taken, "overdraft", when)?;
        let paid = Portion { amount: taken.amount, minor: taken.minor };
        journal.owe(account, transaction, wallet, -paid, "overdraft", when)?;
    }
    journal.write([&*account])?;
    Ok(true)
}

/// One occurrence of a recurring grant, as a transaction of its own.
fn give(account: &mut Account, journal: &mut Journal, due: &Due) -> Outcome<()> {
    let Some((_, first)) = due.lots.first() else { return Ok(()) };
    let (wallet, other_side) = (first.wallet, if first.promotional { "promotions" } else { "payments" });
    let transaction = journal.act(account, &Act { kind: "recurring", ..Act::default() })?;
    for (part, (_, lot)) in due.lots.iter().enumerate() {
        let origin = Some((due.rule, due.occurrence, part as i16));
        journal.grant(account, transaction, wallet, lot.life(), lot.remaining, other_side, origin)?;
    }
    Ok(())
}

fn written_down(account: &Account, due: &[Due]) -> Outcome<()> {
    for occurrence in due {
        spi::run(
            "UPDATE meterflow.recurring_grants SET given = greatest(given, $3) WHERE tenant_id = $1 AND id = $2",
            &[account.tenant.as_str().into(), occurrence.rule.into(), (occurrence.occurrence + 1).into()],
            spi::See::Write,
            |_| Ok(()),
        )?;
    }
    Ok(())
}
