//! Making invoices: drafts and finalized ones, for one payer at a time. Who is due when is told by
//! `subscriptions.next_bill_at`; the loop over payers is `bill_due()` in sql/66_billing.sql.

use pgrx::prelude::*;

use crate::core::subscription::NEVER;
use crate::ledger;
use crate::pg::datum::unix_micros;
use crate::pg::error::{Fail, Outcome, raise};
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::charges::Purpose;
use super::invoice::{self, Bill, Computed, Known, Recipient, Settings};
use super::load::{Account, unreckonable};
use super::reproduce::Replaced;
use super::store;

/// Makes the invoice of a payer for what is due by `bill_at`, and with `finalize` fixes it and moves the subscriptions
/// on; returns its id, or null when there is nothing to charge. One that `replaces` a voided invoice has the same
/// subscriptions and periods.
#[pg_extern(sql = "")]
fn make_invoice(
    payer: &str,
    currency: &str,
    bill_at: TimestampWithTimeZone,
    progressive: Option<i64>,
    finalize: bool,
    issued_at: TimestampWithTimeZone,
    idempotency_key: Option<&str>,
    replaces: Option<i64>,
) -> Option<i64> {
    let (bill_at, issued_at) = (unix_micros(bill_at.into_inner()), unix_micros(issued_at.into_inner()));
    let tenant = settings::tenant();
    let purpose = if progressive.is_some() { Purpose::Progressive } else { Purpose::Due };
    let make = || {
        let replaces = replaces.map(|id| Replaced::read(&tenant, id)).transpose()?;
        let bill = Bill {
            tenant: &tenant,
            payer,
            currency,
            at: bill_at,
            purpose,
            subscription: progressive,
            replaces: replaces.as_ref(),
            issued_at,
        };
        make(&bill, finalize, idempotency_key)
    };
    raise(make())
}

fn make(bill: &Bill<'_>, finalize: bool, key: Option<&str>) -> Outcome<Option<i64>> {
    lock(bill)?;
    ledger::bring_up_to(bill.tenant, bill.payer, bill.currency, bill.issued_at)?;
    let (settings, accounts, computed, known) = spi::in_new_snapshot(|| {
        let settings = Settings::read(bill.tenant)?;
        let (accounts, computed) = invoice::compute(bill, &settings)?;
        Ok((settings, accounts, computed, Known::read()?))
    })?;
    if bill.purpose == Purpose::Progressive && bill.replaces.is_none() && !reaches_threshold(&accounts, &computed)? {
        return Ok(None);
    }
    if bill.replaces.is_none() {
        remove_draft(bill)?;
    }
    let id = if computed.lines.is_empty() {
        None
    } else {
        let kind = if bill.purpose == Purpose::Progressive { "progressive" } else { "period" };
        Some(computed.insert(bill, kind, &settings, Some(&known), bill.replaces.map(|replaced| replaced.id))?)
    };
    if finalize {
        if bill.purpose == Purpose::Due && bill.replaces.is_none() {
            accounts.iter().try_for_each(|account| advance(bill, account, &settings))?;
        }
        if let Some(id) = id {
            fix(bill, id, computed, &settings, key)?;
        }
    }
    Ok(id)
}

/// Step 1 of the protocol.
fn lock(bill: &Bill<'_>) -> Outcome<()> {
    let locked = spi::one(
        "SELECT true FROM meterflow.customers WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE",
        &[bill.tenant.into(), bill.payer.into()],
        See::Write,
        |row| row.bool(0),
    )?;
    if locked.is_none() {
        return Err(Fail::parameter(format!("there is no customer \"{}\"", bill.payer))
            .detail(format!("Tenant {:?} has none with this id.", bill.tenant))
            .hint("INSERT INTO meterflow.customers (id) first."));
    }
    spi::run(
        "SELECT s.id FROM meterflow.subscriptions s WHERE s.tenant_id = $1 AND s.customer_id IN \
           (SELECT c.id FROM meterflow.customers c WHERE c.tenant_id = $1 AND c.payer_id = $2 \
            UNION ALL SELECT c.id FROM meterflow.customers c WHERE c.tenant_id = $1 AND c.id = $2 AND c.payer_id IS NULL) \
          ORDER BY s.id FOR NO KEY UPDATE OF s",
        &[bill.tenant.into(), bill.payer.into()],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(())
}

/// A draft is made anew, not changed.
fn remove_draft(bill: &Bill<'_>) -> Outcome<()> {
    if bill.purpose != Purpose::Due {
        return Ok(());
    }
    let mut drafts = Vec::new();
    spi::run(
        "SELECT id FROM meterflow.invoices WHERE tenant_id = $1 AND customer_id = $2 AND currency = $3 AND bill_at <= $4 AND status = 'draft' AND kind = 'period'",
        &[bill.tenant.into(), bill.payer.into(), bill.currency.into(), spi::time(bill.at)],
        See::Write,
        |row| {
            drafts.push(row.int8(0)?);
            Ok(())
        },
    )?;
    for draft in drafts {
        store::delete_parts(bill.tenant, draft)?;
        let sql = "DELETE FROM meterflow.invoices WHERE tenant_id = $1 AND id = $2";
        spi::run(sql, &[bill.tenant.into(), draft.into()], See::Write, |_| Ok(()))?;
    }
    Ok(())
}

/// Whether the usage of the open period has reached a threshold that lies above what is billed of it.
fn reaches_threshold(accounts: &[Account], computed: &Computed) -> Outcome<bool> {
    let (before, total) = (computed.before, computed.due);
    for threshold in accounts.iter().flat_map(|account| &account.terms).flat_map(|plan| &plan.progressive) {
        let money = threshold.round(computed.digits).map_err(|error| Fail::corrupt(error.to_string()))?;
        let threshold = super::charges::minor(money)?;
        if before < threshold && threshold <= total {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes that a subscription is billed up to here, and when it is due next: at the next beginning or end of a period, or
/// when it has ended, once more after the time for adjustments.
fn advance(bill: &Bill<'_>, account: &Account, settings: &Settings) -> Outcome<()> {
    let timeline = &account.timeline;
    let next = match timeline.next_boundary(&account.plans, bill.at).map_err(unreckonable)? {
        Some(next) => Some(next),
        None if timeline.ends_at == NEVER => None,
        None => Some(timeline.ends_at.saturating_add(settings.adjust_for)).filter(|&last| bill.at < last),
    };
    spi::run(
        "UPDATE meterflow.subscriptions SET billed_to = greatest(billed_to, $3), next_bill_at = $4 WHERE tenant_id = $1 AND id = $2",
        &[bill.tenant.into(), timeline.id.into(), spi::time(bill.at), next.map_or_else(spi::no_time, spi::time)],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(())
}

/// Makes an invoice final: credits are used up, a negative total is put to the payer's credit, and it gets its number.
pub fn fix(bill: &Bill<'_>, id: i64, computed: Computed, settings: &Settings, key: Option<&str>) -> Outcome<()> {
    let recipient = Recipient::read(bill.tenant, bill.payer)?;
    let net_terms = recipient.net_terms.as_deref().unwrap_or(&settings.net_terms);
    let credit = (computed.invoice.account_credit > 0).then(|| computed.money(computed.invoice.account_credit));
    computed.credit.pay(id)?;
    spi::run(
        "SELECT meterflow.issue_invoice($1, $2, $3, $4::interval, $5::numeric, $6)",
        &[bill.tenant.into(), id.into(), spi::time(bill.issued_at), net_terms.into(), credit.into(), key.into()],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(())
}
