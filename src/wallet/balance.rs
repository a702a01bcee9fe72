//! `wallet_balance()`: one statement, one snapshot, no lock, nothing written.

use pgrx::prelude::*;

use crate::core::ledger::{Limit, Purse};
use crate::core::pricing::{Amount, Money, Rounding};
use crate::ledger::{load, load_past, too_large};
use crate::pg::datum::unix_micros;
use crate::pg::error::{Outcome, raise};
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::position::Position;

type BalanceRow = (
    Option<i64>,
    Option<String>,
    String,
    Option<String>,
    String,
    Option<String>,
    String,
    String,
    String,
    Option<String>,
    String,
);

/// A customer's wallets at a time, past or to come, in burn order; numbers as text.
#[pg_extern(sql = "")]
fn balance_rows(
    customer_id: &str,
    currency: Option<&str>,
    as_of: TimestampWithTimeZone,
) -> TableIterator<
    'static,
    (
        name!(wallet_id, Option<i64>),
        name!(name, Option<String>),
        name!(currency, String),
        name!(credit_unit, Option<String>),
        name!(balance, String),
        name!(credits, Option<String>),
        name!(open_usage, String),
        name!(unpaid, String),
        name!(held, String),
        name!(credit_limit, Option<String>),
        name!(available, String),
    ),
> {
    let as_of = unix_micros(as_of.into_inner());
    let rows = (|| {
        let tenant = settings::tenant();
        let mut rows = Vec::new();
        for currency in currencies(&tenant, customer_id, currency)? {
            let read = if as_of < crate::pg::session::statement_time() { load_past } else { load };
            let account = read(&tenant, customer_id, &currency, as_of, as_of)?;
            let before = account.purse.clone();
            rows.extend(of_position(before, &Position::of(account)?, &currency)?);
        }
        Ok(rows)
    })();
    TableIterator::new(raise(rows))
}

/// The currencies that a customer has wallets or debts in.
fn currencies(tenant: &str, customer: &str, asked: Option<&str>) -> Outcome<Vec<String>> {
    if let Some(currency) = asked {
        return Ok(vec![currency.to_string()]);
    }
    let mut currencies = Vec::new();
    spi::run(
        // Row by row from the customer on, whatever is known of how many there are.
        "SELECT w.currency FROM meterflow.wallets w WHERE w.tenant_id = $1 AND w.customer_id = $2 \
         UNION SELECT i.currency FROM meterflow.invoices i WHERE i.tenant_id = $1 AND i.customer_id = $2 AND i.issued_at IS NOT NULL \
         UNION SELECT (SELECT p.currency FROM meterflow.plans p WHERE p.tenant_id = s.tenant_id AND p.key = s.plan_key AND p.version = s.plan_version) \
                 FROM (SELECT c.id FROM meterflow.customers c WHERE c.tenant_id = $1 AND c.payer_id = $2 \
                       UNION ALL SELECT c.id FROM meterflow.customers c WHERE c.tenant_id = $1 AND c.id = $2 AND c.payer_id IS NULL) c, \
                      LATERAL (SELECT n.* FROM meterflow.subscriptions n WHERE n.tenant_id = $1 AND n.customer_id = c.id OFFSET 0) s \
         ORDER BY 1",
        &[tenant.into(), customer.into()],
        See::Statement,
        |row| {
            currencies.push(row.text(0)?);
            Ok(())
        },
    )?;
    Ok(currencies)
}

fn of_position(mut before: Purse, position: &Position, currency: &str) -> Outcome<Vec<BalanceRow>> {
    before.settle().map_err(too_large)?;
    let digits = before.digits;
    let money = |minor: i128| Money::new(minor.into(), digits).to_string();
    let mut rows = Vec::new();
    // What no wallet carries is the last's that can carry anything: a debt must not vanish for want of credit.
    let last = before.wallets.iter().rposition(|wallet| crate::ledger::covers(wallet, None));
    // What will be given back is no credit before it has been.
    let mut rest = position.shares.last().copied().unwrap_or_default();
    rest.open_usage = rest.open_usage.max(0);
    for (place, wallet) in before.wallets.iter().enumerate() {
        let mut share = position.shares[place];
        if last == Some(place) {
            share.open_usage += rest.open_usage;
            share.unpaid += rest.unpaid;
            share.held += rest.held;
        }
        let held_credits = before.balance(place).map_err(too_large)?;
        let owed = before.minor(place, &wallet.overdraft, Rounding::Up).map_err(too_large)?;
        let balance = position.worth[place] - owed;
        let left = balance - share.open_usage - share.unpaid - share.held;
        let limit = match wallet.limit {
            Limit::Unlimited => None,
            Limit::Of(limit) => Some(crate::core::ledger::minor_of(&limit, digits, Rounding::Down).map_err(too_large)?),
        };
        let postpaid = wallet.limit != Limit::Of(Amount::ZERO);
        rows.push((
            Some(wallet.id),
            Some(wallet.name.clone()),
            currency.to_string(),
            wallet.unit.as_ref().map(|unit| unit.key.clone()),
            money(balance),
            wallet.unit.as_ref().map(|_| held_credits.shortest().to_string()),
            money(share.open_usage),
            money(share.unpaid),
            money(share.held),
            limit.filter(|_| postpaid).map(money),
            limit.map_or_else(|| "Infinity".to_string(), |limit| money(left + limit)),
        ));
    }
    if last.is_none() && rest.open_usage + rest.unpaid + rest.held != 0 {
        rows.push((
            None,
            None,
            currency.to_string(),
            None,
            money(0),
            None,
            money(rest.open_usage),
            money(rest.unpaid),
            money(rest.held),
            None,
            money(-rest.open_usage - rest.unpaid - rest.held),
        ));
    }
    Ok(rows)
}
