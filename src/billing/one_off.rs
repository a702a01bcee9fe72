//! Invoices of lines given by hand. They go through the same `complete()` as those of subscriptions: coupons, taxes and
//! credits apply as ever. Whoever calls holds the lock of the payer (sql/69_one_off.sql).

use pgrx::prelude::*;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::core::currency;
use crate::core::pricing::{Amount, Terms, Usage};
use crate::core::ranges::Ranges;
use crate::core::subscription::Charge;
use crate::ledger;
use crate::pg::datum::unix_micros;
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::settings;
use crate::pg::spi::{self, See};
use crate::rating::no_money;

use super::charges::{self, Line, Priced, Purpose};
use super::credit::Credit;
use super::invoice::{self, Bill, Computed, Settings};
use super::run;

/// Makes an invoice of `lines` for `customer`, to be paid by `payer`; returns its id.
#[pg_extern(sql = "")]
fn make_one_off(
    payer: &str,
    customer: &str,
    currency: &str,
    lines: &str,
    notes: Option<&str>,
    finalize: bool,
    issued_at: TimestampWithTimeZone,
) -> i64 {
    let at = unix_micros(issued_at.into_inner());
    let tenant = settings::tenant();
    let make = || -> Outcome<i64> {
        let lines = read(lines, customer, currency)?;
        let bill = bill(&tenant, payer, currency, at);
        let (settings, computed) = complete(&bill, lines)?;
        let id = computed.insert(&bill, "one_off", &settings, None, None)?;
        if notes.is_some() {
            spi::run(
                "UPDATE meterflow.invoices SET notes = $3 WHERE tenant_id = $1 AND id = $2",
                &[tenant.as_str().into(), id.into(), notes.into()],
                See::Write,
                |_| Ok(()),
            )?;
        }
        if finalize {
            run::fix(&bill, id, computed, &settings, None)?;
        }
        Ok(id)
    };
    raise(make())
}

/// Makes a draft of given lines final: discounts and credits are those of now, the lines stay as they are. It keeps its id.
#[pg_extern(sql = "")]
fn finalize_one_off(invoice_id: i64, idempotency_key: &str, issued_at: TimestampWithTimeZone) -> Option<i64> {
    let at = unix_micros(issued_at.into_inner());
    let tenant = settings::tenant();
    let finalize = || -> Outcome<Option<i64>> {
        let draft = spi::one(
            "SELECT customer_id, currency FROM meterflow.invoices WHERE tenant_id = $1 AND id = $2 AND kind = 'one_off' AND status = 'draft'",
            &[tenant.as_str().into(), invoice_id.into()],
            See::Write,
            |row| Ok((row.text(0)?, row.text(1)?)),
        )?;
        let Some((payer, currency)) = draft else { return Ok(None) };
        let lines = reload(&tenant, invoice_id, &currency)?;
        let bill = bill(&tenant, &payer, &currency, at);
        let (settings, computed) = complete(&bill, lines)?;
        computed.rewrite(&bill, invoice_id)?;
        run::fix(&bill, invoice_id, computed, &settings, Some(idempotency_key))?;
        Ok(Some(invoice_id))
    };
    raise(finalize())
}

fn bill<'a>(tenant: &'a str, payer: &'a str, currency: &'a str, at: i64) -> Bill<'a> {
    Bill { tenant, payer, currency, at, purpose: Purpose::Due, subscription: None, replaces: None, issued_at: at }
}

fn complete(bill: &Bill<'_>, lines: Vec<Line>) -> Outcome<(Settings, Computed)> {
    ledger::bring_up_to(bill.tenant, bill.payer, bill.currency, bill.issued_at)?;
    let (settings, computed) = spi::in_new_snapshot(|| {
        let credit = Credit::of(bill, &lines)?;
        Ok((Settings::read(bill.tenant)?, invoice::complete(bill, lines, credit)?))
    })?;
    if computed.invoice.total < 0 {
        return Err(Fail::parameter("an invoice of given lines can not be negative")
            .detail(format!("Its total would be {} {}.", computed.money(computed.invoice.total), bill.currency))
            .hint(
                "Give money back by a credit note for the invoice that charged it: meterflow.create_credit_note().",
            ));
    }
    Ok((settings, computed))
}

/// A line as it is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    description: String,
    quantity: Option<Box<RawValue>>,
    unit_amount: Option<Box<RawValue>>,
    amount: Option<Box<RawValue>>,
    taxes: Option<Vec<String>>,
}

fn read(json: &str, customer: &str, currency: &str) -> Outcome<Vec<Line>> {
    let hint = "For instance [{\"description\": \"Setup\", \"amount\": \"250\"}, {\"description\": \"Hours\", \"quantity\": \"3.5\", \"unit_amount\": \"120\", \"taxes\": [\"vat\"]}].";
    let refused =
        |detail: String| Fail::parameter("these can not be the lines of an invoice").detail(detail).hint(hint);
    let digits = currency::digits(currency).map_err(|error| no_money(error, currency))?;
    let asked: Vec<Asked> = serde_json::from_str(json).map_err(|error| {
        // Its line and column count in a text that nobody has seen.
        refused(format!("{}.", error.to_string().split(" at line ").next().unwrap_or_default()))
    })?;
    if asked.is_empty() {
        return Err(refused("There are none.".to_string()));
    }
    let lines = asked.into_iter().enumerate().map(|(place, asked)| {
        let number = |name: &str, raw: &RawValue| {
            let text = raw.get().trim_matches('"');
            Amount::parse(text).map_err(|error| refused(format!("[{place}].{name} is {text}: {error}.")))
        };
        if asked.description.trim().is_empty() {
            return Err(refused(format!("[{place}].description is empty.")));
        }
        let quantity = asked.quantity.as_deref().map(|raw| number("quantity", raw)).transpose()?;
        let (quantity, unrounded, model) = match (asked.unit_amount.as_deref(), asked.amount.as_deref()) {
            (Some(unit_amount), None) => {
                let unit_amount = number("unit_amount", unit_amount)?;
                let quantity = quantity.unwrap_or(one());
                let amount = quantity
                    .checked_mul(&unit_amount)
                    .map_err(|error| refused(format!("[{place}] comes to too much: {error}.")))?;
                // As a price would have it: shown on the invoice, and explained.
                let model = json!({ "model": "per_unit", "unit_amount": unit_amount.to_string() });
                (quantity, amount, Some(model.to_string()))
            }
            (None, Some(amount)) => (quantity.unwrap_or(one()), number("amount", amount)?, None),
            (both, _) => {
                let there = if both.is_some() { "both" } else { "neither" };
                return Err(refused(format!("[{place}] has {there} of unit_amount and amount.")));
            }
        };
        let money =
            unrounded.round(digits).map_err(|error| refused(format!("[{place}] comes to too much: {error}.")))?;
        let due = Priced { unrounded, minor: charges::minor(money)? };
        Ok(line(customer.to_string(), asked.description, quantity, model, asked.taxes, due))
    });
    lines.collect()
}

fn one() -> Amount {
    Amount::new(1.into(), 0)
}

fn reload(tenant: &str, invoice_id: i64, currency: &str) -> Outcome<Vec<Line>> {
    let digits = currency::digits(currency).map_err(|error| Fail::corrupt(format!("an invoice: {error}")))?;
    let amount =
        |text: &str| Amount::parse(text).map_err(|error| Fail::corrupt(format!("the stored amount {text}: {error}")));
    let mut lines = Vec::new();
    spi::run(
        "SELECT l.customer_id, l.description, l.quantity::text, l.model::text, l.due_unrounded::text, l.due_amount::text, \
                ARRAY(SELECT t->>'key' FROM jsonb_array_elements(l.taxes) t) \
           FROM meterflow.invoice_lines l WHERE l.tenant_id = $1 AND l.invoice_id = $2 ORDER BY l.line",
        &[tenant.into(), invoice_id.into()],
        See::Write,
        |row| {
            let model = if row.is_null(3) { None } else { Some(row.text(3)?) };
            let money = amount(&row.text(5)?)?.round(digits).map_err(|error| Fail::corrupt(error.to_string()))?;
            let due = Priced { unrounded: amount(&row.text(4)?)?, minor: charges::minor(money)? };
            lines.push(line(row.text(0)?, row.text(1)?, amount(&row.text(2)?)?, model, row.get(6), due));
            Ok(())
        },
    )?;
    if lines.is_empty() {
        return Err(Fail::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("invoice {invoice_id} has no lines"),
        )
        .hint("Delete the draft, and create another with meterflow.create_invoice()."));
    }
    Ok(lines)
}

/// A line of no cell: it is of no subscription, price, plan or period, so coupons limited to these pass it over.
fn line(
    customer: String,
    description: String,
    quantity: Amount,
    model: Option<String>,
    taxes: Option<Vec<String>>,
    due: Priced,
) -> Line {
    Line {
        customer,
        cell: None,
        price_key: None,
        plan_key: None,
        meter_key: None,
        description,
        charge: Charge::Once,
        applies: Ranges::default(),
        model,
        credit_rate: None,
        proration: None,
        timezone: None,
        usage: Usage::of(quantity),
        terms: Terms::default(),
        taxes,
        due,
        before: Priced::default(),
        adjusts: None,
    }
}
