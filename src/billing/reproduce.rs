//! An old invoice computed again: usage from the raw events it knew, prices from the models it kept.

use std::collections::BTreeSet;

use pgrx::prelude::*;

use crate::core::pricing::{self, Amount, PeriodUsage, Silent, price_with};
use crate::core::proration::Method;
use crate::core::ranges::Ranges;
use crate::meters::raw;
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::settings;
use crate::pg::spi::{self, Row, See};
use crate::rating::models;

use super::charges::{self, Priced};
use super::quantities::{self, Wanted};

/// A stored line, as far as its amount depends on it.
struct Kept {
    line: i32,
    customer: String,
    meter_key: Option<String>,
    applies: Ranges,
    cycle: (i64, i64),
    quantity: String,
    usage: Option<String>,
    model: String,
    proration: String,
    timezone: String,
    due: String,
    once: bool,
    credit_rate: Option<Amount>,
}

/// Each line that has a price, with what it comes to when computed again.
#[pg_extern(sql = "")]
fn reproduce_lines(
    invoice_id: i64,
) -> TableIterator<
    'static,
    (
        name!(line, i32),
        name!(quantity, String),
        name!(reproduced_quantity, String),
        name!(due_amount, String),
        name!(reproduced_amount, String),
    ),
> {
    TableIterator::new(raise(reproduce(&settings::tenant(), invoice_id)))
}

fn reproduce(tenant: &str, invoice_id: i64) -> Outcome<Vec<(i32, String, String, String, String)>> {
    let (known, missing, digits, floor) = known(tenant, invoice_id)?;
    let known = raw::Known { last: known, missing: &missing };
    let mut rows = Vec::new();
    for kept in lines(tenant, invoice_id)? {
        if kept.meter_key.is_some() && kept.applies.span().is_some_and(|(start, _)| start < floor) {
            return Err(Fail::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("invoice {invoice_id} can no longer be reproduced"),
            )
            .detail("Raw events of its periods have been dropped by retention.")
            .hint("Its lines keep quantity, model and amounts: see explain_invoice()."));
        }
        let (quantity, due) = kept.again(tenant, known, digits)?;
        let money = pricing::Money::new(due.minor.into(), digits);
        rows.push((kept.line, kept.quantity, quantity, kept.due, money.to_string()));
    }
    Ok(rows)
}

/// The batches the invoice knew, the decimals of its currency, and since when there are raw events.
fn known(tenant: &str, invoice_id: i64) -> Outcome<(i64, Vec<i64>, u32, i64)> {
    let found = spi::one(
        "SELECT i.known_batch, i.known_missing, meterflow.currency_digits(i.currency), s.raw_floor FROM meterflow.invoices i, meterflow.fold_state s \
          WHERE i.tenant_id = $1 AND i.id = $2",
        &[tenant.into(), invoice_id.into()],
        See::Statement,
        |row| {
            let missing = row.get::<Vec<i64>>(1).unwrap_or_default();
            Ok((row.get::<i64>(0).unwrap_or(0), missing, row.int4(2)?.cast_unsigned(), row.time(3)?))
        },
    )?;
    found.ok_or_else(|| {
        Fail::new(SqlState::ERRCODE_FOREIGN_KEY_VIOLATION, format!("there is no invoice {invoice_id}"))
            .hint("SELECT id, number FROM meterflow.invoices lists them.")
    })
}

fn lines(tenant: &str, invoice_id: i64) -> Outcome<Vec<Kept>> {
    let mut lines = Vec::new();
    spi::run(
        "SELECT l.line, l.customer_id, l.meter_key, \
                ARRAY(SELECT (extract(epoch FROM lower(r)) * 1000000)::bigint FROM unnest(l.applies) r), \
                ARRAY(SELECT (extract(epoch FROM upper(r)) * 1000000)::bigint FROM unnest(l.applies) r), \
                l.cycle_start, l.cycle_end, l.quantity::text, l.usage::text, l.model::text, l.proration, l.timezone, l.due_amount::text, coalesce(p.once, false), l.credit_rate::text \
           FROM meterflow.invoice_lines l LEFT JOIN meterflow.prices p ON p.tenant_id = l.tenant_id AND p.id = l.price_id \
          WHERE l.tenant_id = $1 AND l.invoice_id = $2 AND l.model IS NOT NULL AND l.due_amount <> 0 ORDER BY l.line",
        &[tenant.into(), invoice_id.into()],
        See::Statement,
        |row| {
            lines.push(Kept::read(row)?);
            Ok(())
        },
    )?;
    Ok(lines)
}

impl Kept {
    fn read(row: &Row<'_>) -> Outcome<Kept> {
        let text = |column: usize| if row.is_null(column) { Ok(None) } else { row.text(column).map(Some) };
        let (from, to): (Vec<i64>, Vec<i64>) = (row.require(3)?, row.require(4)?);
        Ok(Kept {
            line: row.int4(0)?,
            customer: row.text(1)?,
            meter_key: text(2)?,
            applies: Ranges::union(from.into_iter().zip(to).collect()),
            cycle: (row.time(5)?, row.time(6)?),
            quantity: row.text(7)?,
            usage: text(8)?,
            model: row.text(9)?,
            proration: row.text(10)?,
            timezone: row.text(11)?,
            due: row.text(12)?,
            once: row.bool(13)?,
            credit_rate: text(14)?.map(|rate| charges::stored_amount(&rate)).transpose()?,
        })
    }

    fn again(&self, tenant: &str, known: raw::Known<'_>, digits: u32) -> Outcome<(String, Priced)> {
        let model = models::of_text(&self.model)?;
        let priced = |error| charges::unpriceable("of a line", error);
        let Some(meter_key) = &self.meter_key else {
            let usage = pricing::Usage::of(charges::stored_amount(&self.quantity)?);
            let whole = pricing::price(&model, &usage).map_err(priced)?.amount;
            let whole = charges::worth("of a line", whole, self.credit_rate.as_ref())?;
            let due = if self.once {
                charges::rounded("of a line", whole, digits)?
            } else {
                let method = Method::parse(&self.proration)
                    .ok_or_else(|| Fail::corrupt(format!("line {} has no proration {:?}", self.line, self.proration)))?;
                charges::share_of(&whole, &self.applies, self.cycle, method, &self.timezone, digits)?
            };
            return Ok((usage.quantity.to_string(), due));
        };
        let wanted = Wanted { meter_key, applies: &self.applies, needs: model.needs() };
        let usage = quantities::from_events(tenant, &self.customer, &wanted, known)?;
        let terms = match &self.usage {
            Some(json) => PeriodUsage::parse(json).map_err(|error| Fail::corrupt(format!("kept usage: {error}")))?.terms,
            None => pricing::Terms::default(),
        };
        let amount = price_with(&model, &usage, &terms, &mut Silent).map_err(priced)?.amount;
        let amount = charges::worth("of a line", amount, self.credit_rate.as_ref())?;
        Ok((usage.quantity.to_string(), charges::rounded("of a line", amount, digits)?))
    }
}

/// The subscriptions and the first period of a voided invoice, for the one that takes its place.
pub struct Replaced {
    pub id: i64,
    pub subscriptions: BTreeSet<i64>,
    pub from: i64,
}

impl Replaced {
    pub fn read(tenant: &str, id: i64) -> Outcome<Replaced> {
        let mut replaced = Replaced { id, subscriptions: BTreeSet::new(), from: i64::MAX };
        spi::run(
            "SELECT subscription_id, cycle_start FROM meterflow.invoice_lines WHERE tenant_id = $1 AND invoice_id = $2 AND subscription_id IS NOT NULL",
            &[tenant.into(), id.into()],
            See::Write,
            |row| {
                replaced.subscriptions.insert(row.int8(0)?);
                replaced.from = replaced.from.min(row.time(1)?);
                Ok(())
            },
        )?;
        Ok(replaced)
    }
}
