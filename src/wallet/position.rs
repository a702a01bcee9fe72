//! What is there for a customer after all that it owes: the one answer that the balance, holds and debits ask for.

use crate::billing;
use crate::core::decimal::QuantityError;
use crate::core::ledger::{Limit, Purse, Taken, Wallet};
use crate::core::pricing::{Amount, Rounding};
use crate::ledger::{self, Account, covers, too_large};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::scan::{Is, Reader, Value};
use crate::pg::spi::{self, See};

/// What one wallet carries of a debt, in minor units.
#[derive(Clone, Copy, Default)]
pub struct Share {
    pub open_usage: i128,
    pub unpaid: i128,
    pub held: i128,
}

/// # Why a limit holds
/// Where what is spent comes of wallets that pay for the same, only the sum matters: it burns in burn order, and debts find
/// other credit of these wallets in its place. Where it may come of limited wallets and others, or where a period that has
/// ended is still to be billed, what is spent is what debts leave, lot by lot: each debt takes of each lot in turn what it
/// can get, so whoever takes what is left of the lots changes nothing of what any debt takes.
pub struct Position {
    /// With all debts taken out of the purse.
    pub account: Account,
    /// By wallet, and last what no wallet carries.
    pub shares: Vec<Share>,
    /// What the account was worth before, by wallet.
    pub worth: Vec<i128>,
    /// What open usage and unpaid invoices have taken.
    claimed: Vec<Taken>,
    /// All that is open is of periods that go on: any credit that lives can pay it.
    of_now: bool,
}

impl Position {
    /// Of an account that has just been read, in the same snapshot.
    pub fn of(mut account: Account) -> Outcome<Position> {
        account.purse.settle().map_err(too_large)?;
        let before = live(&account)?;
        let mut shares = vec![Share::default(); before.len() + 1];
        let mut claimed = Vec::new();
        if !account.owes && account.held.is_empty() {
            return Ok(Position { account, shares, worth: before, claimed, of_now: true });
        }
        let charges = if account.owes { Some(billing::open(&account)?) } else { None };
        let as_of = account.purse.as_of;
        let since = charges.as_ref().map_or(as_of, |charges| charges.since);
        if since < as_of {
            account.bring_back(since)?;
        }

        // What is set aside comes first, as it does for invoices.
        billing::reserve(&mut account)?;
        let missing = account.set_aside()?;
        let mut left = live(&account)?;
        fill(&mut shares, &before, &left, missing, |share, part| share.held += part);

        if let Some(charges) = charges {
            let open = charges.invoice(account)?;
            (account, claimed) = (open.account, open.taken);
            let mut after = live(&account)?;
            fill(&mut shares, &left, &after, open.due, |share, part| share.open_usage += part);
            left = after;

            let unpaid = unpaid_invoices(&account)?;
            let missing =
                account.purse.burn(unpaid, as_of, |wallet| covers(wallet, None), &mut claimed).map_err(too_large)?;
            after = live(&account)?;
            fill(&mut shares, &left, &after, missing, |share, part| share.unpaid += part);
        }
        Ok(Position { account, shares, worth: before, claimed, of_now: since == as_of })
    }

    /// What no credit covers, in minor units. What will be given back is not there to be spent yet.
    fn missing(&self) -> i128 {
        self.shares.last().map_or(0, |share| share.open_usage.max(0) + share.unpaid + share.held)
    }

    /// How far the wallets that `covers` says may still go below zero, less what is missing; None: without limit.
    fn room(&self, covers: impl Fn(&Wallet) -> bool) -> Outcome<Option<i128>> {
        let purse = &self.account.purse;
        let mut room = -self.missing();
        for (place, wallet) in purse.wallets.iter().enumerate().filter(|(_, wallet)| covers(wallet)) {
            room -= purse.minor(place, &wallet.overdraft, Rounding::Up).map_err(too_large)?;
            match wallet.limit {
                Limit::Unlimited => return Ok(None),
                Limit::Of(limit) => room += self.account.money(&limit)?,
            }
        }
        Ok(Some(room))
    }

    /// How much can be spent of the wallets that `covers` says, with what they may go below zero; None: without limit.
    pub fn capacity(&self, covers: impl Fn(&Wallet) -> bool) -> Outcome<Option<i128>> {
        let Some(room) = self.room(&covers)? else { return Ok(None) };
        Ok(Some(self.account.purse.left(&covers).map_err(too_large)? + room))
    }

    /// An error unless so much can be spent of the wallets that `covers` says.
    pub fn require(&self, minor: i128, covers: impl Fn(&Wallet) -> bool) -> Outcome<()> {
        match self.capacity(covers)? {
            Some(capacity) if capacity < minor => Err(insufficient(&self.account, minor, capacity)),
            _ => Ok(()),
        }
    }

    /// As [`Position::require`], of a sum of credit units: they can be spent to the last fraction, which no money is worth.
    pub fn require_units(
        &self,
        unit: &str,
        amount: &Amount,
        minor: i128,
        covers: impl Fn(&Wallet) -> bool,
    ) -> Outcome<()> {
        let purse = &self.account.purse;
        let of_unit = |wallet: &Wallet| covers(wallet) && holds(wallet, unit);
        let mut short = *amount;
        for lot in purse.lots.iter().filter(|lot| lot.is_live(purse.as_of) && of_unit(&purse.wallets[lot.wallet])) {
            short = short.checked_sub(&lot.remaining).map_err(too_large)?;
        }
        let Some(room) = self.room(&covers)? else { return Ok(()) };
        let short = match purse.wallets.iter().position(of_unit) {
            Some(wallet) if short.is_positive() => purse.minor(wallet, &short, Rounding::Up).map_err(too_large)?,
            _ => 0,
        };
        if short <= room { Ok(()) } else { self.require(minor, covers) }
    }

    /// Takes what `burn` can get of what is asked: first of what debts leave, if it matters, and then, because the rest is to
    /// be spent all the same, of what no hold needs. `alike`: of wallets that pay for the same. Returns what is missing then;
    /// what can be spent after it the position no longer tells.
    pub fn take<T: Copy + Default + PartialEq>(
        &mut self,
        asked: T,
        alike: bool,
        burn: impl Fn(T, &mut Purse, &mut Vec<Taken>) -> Result<T, QuantityError>,
    ) -> Outcome<(Vec<Taken>, T)> {
        let mut taken = Vec::new();
        if alike && self.of_now {
            self.unclaim()?;
        }
        let mut missing = burn(asked, &mut self.account.purse, &mut taken).map_err(too_large)?;
        if missing != T::default() && !self.claimed.is_empty() {
            self.unclaim()?;
            missing = burn(missing, &mut self.account.purse, &mut taken).map_err(too_large)?;
        }
        Ok((taken, missing))
    }

    /// Gives back what open usage and unpaid invoices have taken.
    fn unclaim(&mut self) -> Outcome<()> {
        self.account.purse.put_back(&std::mem::take(&mut self.claimed)).map_err(too_large)
    }
}

/// Whether a wallet holds a credit unit.
pub fn holds(wallet: &Wallet, unit: &str) -> bool {
    wallet.unit.as_ref().is_some_and(|held| held.key == unit)
}

/// The error for credit that is not there.
pub fn insufficient(account: &Account, minor: i128, capacity: i128) -> Fail {
    Fail::new(SqlState::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "insufficient credit")
        .detail(format!(
            "Customer \"{}\" has {} {} available; {} is asked for.",
            account.customer,
            account.shown(capacity),
            account.currency,
            account.shown(minor)
        ))
        .hint("SELECT * FROM meterflow.wallet_balance(customer_id) shows what uses it; meterflow.top_up() adds to it.")
}

/// What a quantity of a meter would cost the customer on top of all that it has used and that holds are for, in minor units.
pub fn cost(account: &Account, meter: &str, quantity: &Amount) -> Outcome<i128> {
    let held = account.promised.iter().find(|promised| promised.meter == meter);
    billing::cost(account, meter, &held.map(|held| held.quantity).unwrap_or_default(), quantity)
}

/// What live lots of each wallet are worth, in minor units.
fn live(account: &Account) -> Outcome<Vec<i128>> {
    let purse = &account.purse;
    let mut worth = vec![0_i128; purse.wallets.len()];
    for lot in purse.lots.iter().filter(|lot| lot.is_live(purse.as_of)) {
        worth[lot.wallet] += purse.worth(lot).map_err(too_large)?;
    }
    Ok(worth)
}

fn fill(shares: &mut [Share], before: &[i128], after: &[i128], missing: i128, add: impl Fn(&mut Share, i128)) {
    for (share, (before, after)) in shares.iter_mut().zip(before.iter().zip(after)) {
        add(share, before - after);
    }
    if let Some(share) = shares.last_mut() {
        add(share, missing);
    }
}

fn unpaid_invoices(account: &Account) -> Outcome<i128> {
    if account.past {
        return unpaid_then(account);
    }
    let of = [(0, Is::Equal, Value::Text(&account.tenant)), (1, Is::Equal, Value::Text(&account.customer))];
    let mut unpaid = 0;
    Reader::open(&ledger::tables::UNPAID)?.rows(&of, |row| {
        if row.is(0, &account.currency)? {
            let minor = |column| account.money(&ledger::stored(row, column)?);
            unpaid += minor(1)? - minor(2)? - minor(3)?;
        }
        Ok(())
    })?;
    Ok(unpaid)
}

/// At a time of the past, as it is known now.
fn unpaid_then(account: &Account) -> Outcome<i128> {
    let unpaid = spi::one(
        "SELECT coalesce(sum(i.amount_due - coalesce(p.paid, 0) - coalesce(n.offset_amount, 0)), 0) FROM meterflow.invoices i, \
             LATERAL (SELECT sum(CASE WHEN p.kind = 'payment' THEN p.amount - p.overpaid WHEN p.credit_note_id IS NULL THEN -p.amount END) AS paid \
                        FROM meterflow.payments p WHERE p.tenant_id = i.tenant_id AND p.invoice_id = i.id AND p.received_at <= $4) p, \
             LATERAL (SELECT sum(n.offset_amount) AS offset_amount FROM meterflow.credit_notes n WHERE n.tenant_id = i.tenant_id AND n.invoice_id = i.id AND n.issued_at <= $4) n \
       WHERE i.tenant_id = $1 AND i.customer_id = $2 AND i.currency = $3 AND i.issued_at <= $4 AND (i.voided_at IS NULL OR i.voided_at > $4)",
        &[
            account.tenant.as_str().into(),
            account.customer.as_str().into(),
            account.currency.as_str().into(),
            spi::time(account.purse.as_of),
        ],
        See::Statement,
        |row| account.money(&ledger::stored(row, 0)?),
    )?;
    Ok(unpaid.unwrap_or_default())
}
