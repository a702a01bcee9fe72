//! A customer's credit as it was: from the entries themselves, which say from when on they count.

use pgrx::datum::DatumWithOid;

use crate::core::ledger::{Lot, Source};
use crate::core::pricing::Amount;
use crate::pg::error::Outcome;
use crate::pg::spi::{self, See};

use super::account::{Account, Reserve, load};
use super::stored;

/// As [`load`], at a time of the past. Costs a look at every entry of the wallets; what it returns is for reading only.
pub fn load_past(tenant: &str, customer: &str, currency: &str, as_of: i64, since: i64) -> Outcome<Account> {
    let mut account = load(tenant, customer, currency, as_of, since)?;
    let at = || -> [DatumWithOid<'_>; 4] { [tenant.into(), customer.into(), currency.into(), spi::time(as_of)] };
    // What no verb had written down by then, nobody had burned either.
    account.purse.lots.retain(|lot| matches!(lot.source, Source::Coming { .. }));
    for wallet in &mut account.purse.wallets {
        wallet.overdraft = Amount::ZERO;
    }
    let purse = &mut account.purse;
    spi::run(
        "SELECT e.wallet_id, e.grant_id, sum(e.amount), max(g.priority), bool_or(g.kind = 'promotional'), max(g.effective_at), max(g.expires_at), max(g.created_at), max(e.effective_at) FILTER (WHERE e.amount < 0) \
           FROM meterflow.wallets w JOIN meterflow.ledger_entries e ON e.tenant_id = w.tenant_id AND e.wallet_id = w.id AND e.effective_at <= $4 \
           LEFT JOIN meterflow.credit_grants g ON g.tenant_id = e.tenant_id AND g.id = e.grant_id \
          WHERE w.tenant_id = $1 AND w.customer_id = $2 AND w.currency = $3 GROUP BY e.wallet_id, e.grant_id HAVING sum(e.amount) <> 0",
        &at(),
        See::Statement,
        |row| {
            let id = row.int8(0)?;
            let Some(wallet) = purse.wallets.iter().position(|wallet| wallet.id == id) else { return Ok(()) };
            let remaining = stored(row, 2)?;
            match row.get::<i64>(1) {
                None => {
                    purse.wallets[wallet].overdraft = -remaining;
                    purse.wallets[wallet].owes_since = row.time(8)?;
                }
                Some(grant) => purse.lots.push(Lot {
                    source: Source::Grant(grant),
                    wallet,
                    priority: row.int4(3)?,
                    promotional: row.bool(4)?,
                    effective_at: row.time(5)?,
                    expires_at: row.time(6)?,
                    created_at: row.time(7)?,
                    summed: false,
                    remaining,
                }),
            }
            Ok(())
        },
    )?;
    account.purse.lots.retain(|lot| lot.expires_at > since);
    account.purse.sort();
    let mut held = Vec::new();
    spi::run(
        "SELECT meter_key, amount, created_at FROM meterflow.holds \
          WHERE tenant_id = $1 AND customer_id = $2 AND currency = $3 AND created_at <= $4 AND expires_at > $4 AND (closed_at IS NULL OR closed_at > $4) \
          ORDER BY created_at, id",
        &at(),
        See::Statement,
        |row| {
            let meter = if row.is_null(0) { None } else { Some(row.text(0)?) };
            held.push((meter, stored(row, 1)?, row.time(2)?));
            Ok(())
        },
    )?;
    account.held = held
        .into_iter()
        .map(|(meter, amount, at)| Ok(Reserve { meter, minor: account.money(&amount)?, at }))
        .collect::<Outcome<Vec<_>>>()?;
    (account.owes, account.past, account.promised) = (true, true, Vec::new());
    Ok(account)
}
