//! One invoice: its lines put together with coupons, taxes and credits, computed by `core::invoice`, and written down.
//!
//! # Protocol
//! 1. Lock the payer's row, then its subscriptions in order of id. Two runs for one payer, a change of plan, a payment, a
//!    credit note: each waits here, and then sees what the other did.
//! 2. With one new snapshot read all that goes on the invoice. Which batches of events that snapshot has is written down
//!    with it (`known`), so that the invoice can be computed again from the same events.
//! 3. Write. To finalize, in the same transaction: use up credits, advance the subscriptions, and last, so that its lock
//!    is held shortest, take the number.
//!
//! # Crash behaviour
//! The transaction is gone, and with it the number: numbers have no gaps. Nothing is marked as billed but by its lines, so
//! the next run makes the same invoice.
//!
//! Proof: tests/isolation/specs/finalize_twice.spec, finalize_ingest.spec, plan_change_billing.spec; tests/client billing.

use crate::core::invoice::{self, Coupon, Discount, Draft, Level, LineKind, Scope, Tax};
use crate::core::pricing::{Amount, Money};
use crate::core::subscription::Charge;
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::scan::{self, Is, Reader, Value};
use crate::pg::spi::{self, See};
use crate::rating::no_money;

use super::charges::{self, Line, Purpose};
use super::credit::Credit;
use super::load::{self, Account, Whose};
use super::reproduce::Replaced;
use super::tables;

/// Who pays, in what, up to when.
pub struct Bill<'a> {
    pub tenant: &'a str,
    pub payer: &'a str,
    pub currency: &'a str,
    pub at: i64,
    pub purpose: Purpose,
    /// Only this subscription, for a preview; with Progressive, for an invoice.
    pub subscription: Option<i64>,
    /// The voided invoice that it takes the place of.
    pub replaces: Option<&'a Replaced>,
    /// When it is issued: the credit that is there then can pay it.
    pub issued_at: i64,
}

/// A computed invoice.
pub struct Computed {
    pub lines: Vec<Line>,
    /// Of all cells that were looked at, in minor units, also of those that have no line for being as they were billed:
    /// what was charged of them before, and what they come to.
    pub before: i128,
    pub due: i128,
    pub invoice: invoice::Invoice,
    pub taxes: Vec<TaxRate>,
    pub redemptions: Vec<Redemption>,
    /// Wallet credit that it can use, with what it uses taken out.
    pub credit: Credit,
    pub digits: u32,
}

pub struct TaxRate {
    pub key: String,
    pub name: String,
    pub percent: Amount,
    pub inclusive: bool,
    is_default: bool,
}

pub struct Redemption {
    pub id: i64,
    pub code: String,
    pub name: Option<String>,
    pub level: Level,
    discount: Discount,
    scope: Scope,
    subscription: Option<i64>,
}

/// How the customer is taxed who pays.
struct Payer {
    taxes: Option<Vec<String>>,
    exempt: bool,
}

/// What an invoice says of the customer who pays.
pub struct Recipient {
    /// An interval, as text.
    pub net_terms: Option<String>,
    /// JSON, as it is to be printed.
    pub document: String,
}

impl Recipient {
    pub fn read(tenant: &str, payer: &str) -> Outcome<Recipient> {
        spi::one(
            "SELECT net_terms::text, jsonb_strip_nulls(jsonb_build_object('id', id, 'name', name, 'email', email, 'address', address, 'tax_number', tax_number, 'timezone', timezone))::text \
               FROM meterflow.customers WHERE tenant_id = $1 AND id = $2",
            &[tenant.into(), payer.into()],
            // The customer is locked: as the invoice's taxes are, as of the lock.
            See::Latest,
            |row| {
                let net_terms = if row.is_null(0) { None } else { Some(row.text(0)?) };
                Ok(Recipient { net_terms, document: row.text(1)? })
            },
        )?
        .ok_or_else(|| no_customer(payer))
    }
}

fn no_customer(id: &str) -> Fail {
    Fail::new(SqlState::ERRCODE_FOREIGN_KEY_VIOLATION, format!("there is no customer \"{id}\""))
        .hint("INSERT INTO meterflow.customers (id) first.")
}

/// The tenant's `billing_settings`, or the defaults of its columns (sql/60_catalogue.sql).
pub struct Settings {
    pub adjust_for: i64,
    /// An interval, as text.
    pub net_terms: String,
    /// JSON, as it is to be printed.
    pub seller: String,
}

impl Settings {
    pub fn read(tenant: &str) -> Outcome<Settings> {
        let sql = "SELECT (extract(epoch FROM adjust_for) * 1000000)::bigint, net_terms::text, seller::text \
                     FROM meterflow.billing_settings WHERE tenant_id = $1";
        let found = spi::one(sql, &[tenant.into()], See::Statement, |row| {
            Ok(Settings { adjust_for: row.int8(0)?, net_terms: row.text(1)?, seller: row.text(2)? })
        })?;
        Ok(found.unwrap_or_else(|| Settings {
            adjust_for: 62 * 86_400_000_000,
            net_terms: "30 days".to_string(),
            seller: "{}".to_string(),
        }))
    }
}

/// The accounts that a bill is for, and the invoice they make. All in the snapshot of the statement.
pub fn compute(bill: &Bill<'_>, settings: &Settings) -> Outcome<(Vec<Account>, Computed)> {
    let whose = bill.subscription.map_or(Whose::Payer(bill.payer), Whose::Subscription);
    let mut accounts = load::accounts(bill.tenant, whose)?;
    accounts.retain_mut(|account| {
        let due = match bill.replaces {
            None => bill.subscription.is_some() || account.next_bill_at.is_some_and(|next| next <= bill.at),
            Some(replaced) => {
                // However long ago: what it charged is looked at again.
                account.billed_to = account.billed_to.map(|billed_to| billed_to.min(replaced.from));
                replaced.subscriptions.contains(&account.timeline.id)
            }
        };
        due && account.currency == bill.currency
    });
    let mut lines = Vec::new();
    for account in &accounts {
        lines.extend(charges::lines(bill.tenant, account, bill.at, settings.adjust_for, bill.purpose)?);
    }
    let (before, due) =
        lines.iter().fold((0, 0), |(before, due), line| (before + line.before.minor, due + line.due.minor));
    lines.retain(Line::says_something);
    let credit = Credit::of(bill, &lines)?;
    let computed = complete(bill, lines, credit)?;
    Ok((accounts, Computed { before, due, ..computed }))
}

/// Puts lines together with what applies to them.
pub fn complete(bill: &Bill<'_>, lines: Vec<Line>, mut credit: Credit) -> Outcome<Computed> {
    let digits = crate::core::currency::digits(bill.currency).map_err(|error| no_money(error, bill.currency))?;
    let payer = payer(bill)?;
    let taxes = taxes(bill.tenant)?;
    let redemptions = if lines.is_empty() { Vec::new() } else { redemptions(bill, digits)? };
    let keys = |line: &Line| -> Vec<String> {
        match line.taxes.as_ref().or(payer.taxes.as_ref()) {
            Some(keys) => keys.clone(),
            None => taxes.iter().filter(|tax| tax.is_default).map(|tax| tax.key.clone()).collect(),
        }
    };
    let draft_lines: Vec<invoice::Line> = lines
        .iter()
        .enumerate()
        .map(|(place, line)| invoice::Line {
            key: place.to_string(),
            kind: kind(line),
            plans: line.plan_key.clone().into_iter().collect(),
            meter: line.meter_key.clone(),
            price: line.price_key.clone(),
            // Rounded already, as its cell was.
            unrounded: Money::new(line.minor().into(), digits).into(),
            taxes: keys(line),
        })
        .collect();
    let coupons = redemptions
        .iter()
        .map(|redemption| {
            let mut scope = redemption.scope.clone();
            if let Some(subscription) = redemption.subscription {
                let of_it = lines
                    .iter()
                    .enumerate()
                    .filter(|(_, line)| line.cell.is_some_and(|cell| cell.subscription_id == subscription));
                scope.lines = of_it.map(|(place, _)| place.to_string()).collect();
                if scope.lines.is_empty() {
                    return None;
                }
            }
            Some(Coupon {
                key: redemption.id.to_string(),
                level: redemption.level,
                scope,
                discount: redemption.discount.clone(),
            })
        })
        .collect::<Vec<_>>();
    let draft = Draft {
        digits,
        lines: draft_lines,
        coupons: coupons.into_iter().flatten().collect(),
        promotional_credits: credit.promotional(bill, &lines)?,
        taxes: taxes
            .iter()
            .map(|tax| Tax { key: tax.key.clone(), percent: tax.percent, inclusive: tax.inclusive })
            .collect(),
        exempt: payer.exempt,
        paid_credits: credit.paid(bill, &lines)?,
    };
    let invoice = invoice::compute(&draft).map_err(|error| {
        Fail::new(SqlState::ERRCODE_DATA_EXCEPTION, "the invoice can not be computed")
            .detail(format!("{error}."))
            .hint("Look at the taxes named by prices and customers, and at the coupons of the customer.")
    })?;
    credit.use_up(&invoice)?;
    Ok(Computed { lines, before: 0, due: 0, invoice, taxes, redemptions, credit, digits })
}

pub fn kind(line: &Line) -> LineKind {
    match (line.adjusts, line.charge) {
        (Some(_), _) => LineKind::Adjustment,
        (None, _) if line.cell.is_none() => LineKind::OneOff,
        (None, Charge::Usage) => LineKind::Usage,
        (None, _) => LineKind::Fee,
    }
}

fn payer(bill: &Bill<'_>) -> Outcome<Payer> {
    let terms = [(0, Is::Equal, Value::Text(bill.tenant)), (1, Is::Equal, Value::Text(bill.payer))];
    let mut found = None;
    Reader::open(&tables::CUSTOMERS)?.rows(&terms, |row| {
        found = Some(Payer { taxes: row.get(1), exempt: row.bool(2)? });
        Ok(())
    })?;
    found.ok_or_else(|| no_customer(bill.payer))
}

fn taxes(tenant: &str) -> Outcome<Vec<TaxRate>> {
    let mut taxes = Vec::new();
    if !scan::any(&tables::TAXES, &[(0, Is::Equal, Value::Text(tenant))])? {
        return Ok(taxes);
    }
    spi::run(
        "SELECT key, name, rate::text, inclusive, is_default FROM meterflow.taxes WHERE tenant_id = $1 ORDER BY key",
        &[tenant.into()],
        See::Statement,
        |row| {
            let percent = amount(&row.text(2)?)?;
            taxes.push(TaxRate {
                key: row.text(0)?,
                name: row.text(1)?,
                percent,
                inclusive: row.bool(3)?,
                is_default: row.bool(4)?,
            });
            Ok(())
        },
    )?;
    Ok(taxes)
}

/// The coupons that the payer has redeemed and that are not used up, in the order of redemption.
fn redemptions(bill: &Bill<'_>, digits: u32) -> Outcome<Vec<Redemption>> {
    let mut found = Vec::new();
    let terms = [(0, Is::Equal, Value::Text(bill.tenant)), (1, Is::Equal, Value::Text(bill.payer))];
    if !scan::any(&tables::REDEMPTIONS, &terms)? {
        return Ok(found);
    }
    spi::run(
        "SELECT r.id, c.code, c.name, c.kind, c.value::text, c.level, c.plans, c.meters, c.periods, r.subscription_id, u.used::text, u.times \
           FROM meterflow.coupon_redemptions r JOIN meterflow.coupons c ON c.tenant_id = r.tenant_id AND c.code = r.code, \
                LATERAL (SELECT coalesce(sum(d.amount), 0) AS used, count(*) AS times \
                           FROM meterflow.invoice_discounts d JOIN meterflow.invoices i ON i.tenant_id = d.tenant_id AND i.id = d.invoice_id \
                          WHERE d.tenant_id = r.tenant_id AND d.redemption_id = r.id AND d.amount > 0 AND i.status IN ('finalized', 'paid')) u \
          WHERE r.tenant_id = $1 AND r.customer_id = $2 AND (r.ended_at IS NULL OR r.ended_at > $4) AND r.redeemed_at <= greatest($4, now()) \
            AND (c.currency IS NULL OR c.currency = $3) ORDER BY r.redeemed_at, r.id",
        &[bill.tenant.into(), bill.payer.into(), bill.currency.into(), spi::time(bill.at)],
        See::Statement,
        |row| {
            let (periods, times): (Option<i32>, i64) = (row.get(8), row.int8(11)?);
            let value = amount(&row.text(4)?)?;
            let discount = if row.text(3)? == "percentage" {
                Discount::Percentage(value)
            } else {
                let minor = |amount: Amount| {
                    charges::minor(amount.round(digits).map_err(|error| Fail::corrupt(error.to_string()))?)
                };
                let used = if periods == Some(1) { minor(amount(&row.text(10)?)?)? } else { 0 };
                Discount::Fixed { left: (minor(value)? - used).max(0) }
            };
            // A fixed one that applies once is used up by its amount, all others by how often they applied.
            let once = matches!(discount, Discount::Fixed { .. }) && periods == Some(1);
            if !once && periods.is_some_and(|periods| times >= i64::from(periods)) {
                return Ok(());
            }
            let level = if row.text(5)? == "line" { Level::Line } else { Level::Invoice };
            let scope = Scope {
                plans: row.get(6).unwrap_or_default(),
                meters: row.get(7).unwrap_or_default(),
                ..Scope::default()
            };
            let name = if row.is_null(2) { None } else { Some(row.text(2)?) };
            found.push(Redemption {
                id: row.int8(0)?,
                code: row.text(1)?,
                name,
                level,
                discount,
                scope,
                subscription: row.get(9),
            });
            Ok(())
        },
    )?;
    Ok(found)
}

pub(super) fn amount(text: &str) -> Outcome<Amount> {
    Amount::parse(text).map_err(|error| Fail::corrupt(format!("the stored amount {text}: {error}")))
}

/// What the statement's snapshot has of the batches: all up to `last` but `missing`.
pub struct Known {
    pub last: i64,
    pub missing: Vec<i64>,
}

impl Known {
    pub fn read() -> Outcome<Known> {
        let mut known = Known { last: 0, missing: Vec::new() };
        let folded = spi::one("SELECT folded_batch FROM meterflow.fold_state", &[], See::Statement, |row| row.int8(0))?;
        known.last = folded.unwrap_or(0);
        spi::run(
            "SELECT batch FROM meterflow.batches WHERE batch > $1 ORDER BY batch",
            &[known.last.into()],
            See::Statement,
            |row| {
                let batch = row.int8(0)?;
                known.missing.extend(known.last + 1..batch);
                known.last = batch;
                Ok(())
            },
        )?;
        Ok(known)
    }
}
