//! What is there for a customer after all that it owes: the one answer that the balance, holds and debits ask for.

use crate::billing;
use crate::core::ledger::{Limit, Wallet};
use crate::core::pricing::{Amount, Rounding};
use crate::ledger::{self, Account, covers, too_large};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::spi::{self, See};

/// What one wallet carries of a debt, in minor units.
#[derive(Clone, Copy, Default)]
pub struct Share {
    pub open_usage: i128,
    pub unpaid: i128,
    pub held: i128,
}

pub struct Position {
    /// With all debts taken out of the purse.
    pub account: Account,
    /// By wallet, and last what no wallet carries.
    pub shares: Vec<Share>,
    /// What the account was worth before, by wallet.
    pub worth: Vec<i128>,
}

impl Position {
    /// Of an account that has just been read, in the same snapshot.
    pub fn of(mut account: Account) -> Outcome<Position> {
        account.purse.settle().map_err(too_large)?;
        let before = live(&account)?;
        let mut shares = vec![Share::default(); before.len() + 1];
        let (mut open_due, mut unpaid) = (0, 0);
        if account.owes {
            let (tenant, customer, currency) =
                (account.tenant.clone(), account.customer.clone(), account.currency.clone());
            let open = billing::open(&tenant, &customer, &currency, account.purse.as_of, None, account, true)?;
            (account, open_due) = (open.account, open.due);
            unpaid = unpaid_invoices(&account)?;
        }
        let mut left = live(&account)?;
        fill(&mut shares, &before, &left, open_due, |share, part| share.open_usage += part);

        let as_of = account.purse.as_of;
        let missing =
            account.purse.burn(unpaid, as_of, |wallet| covers(wallet, None), &mut Vec::new()).map_err(too_large)?;
        let mut after = live(&account)?;
        fill(&mut shares, &left, &after, missing, |share, part| share.unpaid += part);
        left = after;

        let mut missing = 0;
        for held in account.held.clone() {
            missing += account
                .purse
                .burn(held.minor, held.at, |wallet| covers(wallet, held.meter.as_deref()), &mut Vec::new())
                .map_err(too_large)?;
        }
        after = live(&account)?;
        fill(&mut shares, &left, &after, missing, |share, part| share.held += part);
        Ok(Position { account, shares, worth: before })
    }

    /// What no credit covers, in minor units; below zero: more will be given back than is owed.
    pub fn missing(&self) -> i128 {
        self.shares.last().map_or(0, |share| share.open_usage + share.unpaid + share.held)
    }

    /// What can still be spent of the wallets that `covers` says, with what they may go below zero; None: without limit.
    pub fn capacity(&self, covers: impl Fn(&Wallet) -> bool) -> Outcome<Option<i128>> {
        let purse = &self.account.purse;
        // What an invoice will give back is no credit before.
        let mut capacity = purse.left(&covers).map_err(too_large)? - self.missing().max(0);
        for (place, wallet) in purse.wallets.iter().enumerate().filter(|(_, wallet)| covers(wallet)) {
            capacity -= purse.minor(place, &wallet.overdraft, Rounding::Up).map_err(too_large)?;
            match wallet.limit {
                Limit::Unlimited => return Ok(None),
                Limit::Of(limit) => capacity += self.account.money(&limit)?,
            }
        }
        Ok(Some(capacity))
    }

    /// An error unless so much can be spent.
    pub fn require(&self, minor: i128, covers: impl Fn(&Wallet) -> bool) -> Outcome<()> {
        match self.capacity(covers)? {
            Some(capacity) if capacity < minor => Err(insufficient(&self.account, minor, capacity)),
            _ => Ok(()),
        }
    }
}

/// What can be spent of an account that has just been read; None: without limit. Without debts, what there is says it.
pub fn capacity(account: &Account, covers: impl Fn(&Wallet) -> bool) -> Outcome<Option<i128>> {
    let position = if account.owes || !account.held.is_empty() {
        Position::of(account.clone())?
    } else {
        Position { account: account.clone(), shares: Vec::new(), worth: Vec::new() }
    };
    position.capacity(covers)
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

/// What a quantity of a meter would cost the customer on top of all it has used, in minor units: with tiers, coupons and
/// taxes as they would be. Promotional credit does not lower it: it is part of what is available, and what is held must
/// be there when another hold or debit has had that credit.
pub fn cost(account: &Account, meter: &str, quantity: &Amount) -> Outcome<i128> {
    let total = |more| {
        let open = billing::open(
            &account.tenant,
            &account.customer,
            &account.currency,
            account.purse.as_of,
            more,
            account.clone(),
            false,
        );
        open.map(|open| open.total)
    };
    Ok((total(Some((meter, quantity)))? - total(None)?).max(0))
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
    let unpaid = spi::one(
        "SELECT coalesce(sum(amount_due - amount_paid - amount_offset), 0) FROM meterflow.invoices \
          WHERE tenant_id = $1 AND customer_id = $2 AND currency = $3 AND status = 'finalized'",
        &[account.tenant.as_str().into(), account.customer.as_str().into(), account.currency.as_str().into()],
        See::Statement,
        |row| account.money(&ledger::stored(row, 0)?),
    )?;
    Ok(unpaid.unwrap_or_default())
}
