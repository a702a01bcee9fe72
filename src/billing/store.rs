//! Writing an invoice down. Rows travel as one JSON array and become rows by name (`json_populate_recordset`): one
//! statement however many lines, and a column is named in one place.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::core::invoice::{Level, LineKind};
use crate::core::pricing::Money;
use crate::pg::datum;
use crate::pg::error::{Fail, Outcome};
use crate::pg::spi::{self, See};

use super::invoice::{Bill, Computed, Known, Recipient, Settings, kind};

/// A row of `invoice_lines`.
#[derive(Serialize)]
struct LineRow<'a> {
    tenant_id: &'a str,
    invoice_id: Option<i64>,
    line: usize,
    kind: &'static str,
    description: &'a str,
    customer_id: &'a str,
    subscription_id: Option<i64>,
    item_id: Option<i64>,
    price_id: Option<i64>,
    price_key: Option<&'a str>,
    plan_key: Option<&'a str>,
    meter_key: Option<&'a str>,
    cycle_start: Option<String>,
    cycle_end: Option<String>,
    period_start: Option<String>,
    period_end: Option<String>,
    applies: Option<String>,
    quantity: String,
    usage: Option<serde_json::Value>,
    model: Option<&'a RawValue>,
    credit_rate: Option<String>,
    proration: Option<&'a str>,
    timezone: Option<&'a str>,
    due_unrounded: String,
    due_amount: String,
    billed_before: String,
    unrounded: String,
    amount: String,
    discount: String,
    promotional: String,
    taxable: String,
    tax: String,
    total: String,
    taxes: Vec<LineTax<'a>>,
    adjusts: Option<i64>,
}

#[derive(Serialize)]
struct LineTax<'a> {
    key: &'a str,
    rate: String,
    inclusive: bool,
    amount: String,
}

#[derive(Serialize)]
struct DiscountRow<'a> {
    tenant_id: &'a str,
    invoice_id: i64,
    ordinal: usize,
    redemption_id: i64,
    code: &'a str,
    name: Option<&'a str>,
    level: &'static str,
    amount: String,
}

#[derive(Serialize)]
struct TaxRow<'a> {
    tenant_id: &'a str,
    invoice_id: i64,
    ordinal: usize,
    tax_key: &'a str,
    name: &'a str,
    rate: String,
    inclusive: bool,
    base: String,
    amount: String,
}

#[derive(Serialize)]
struct CreditRow<'a> {
    tenant_id: &'a str,
    invoice_id: i64,
    ordinal: usize,
    source: &'a str,
    source_id: i64,
    promotional: bool,
    amount: String,
}

impl Computed {
    pub fn money(&self, minor: i128) -> String {
        Money::new(minor.into(), self.digits).to_string()
    }

    /// The lines as a JSON array of rows of `invoice_lines`.
    pub fn line_rows(&self, tenant: &str, invoice_id: Option<i64>) -> Outcome<String> {
        let rows = self.lines.iter().zip(&self.invoice.lines).enumerate().map(|(place, (line, computed))| {
            let time = |at: i64| line.cell.map(|_| datum::rfc3339(at));
            let span = line.applies.span();
            let taxes = computed.taxes.iter().map(|tax| LineTax {
                key: &tax.key,
                rate: tax.percent.to_string(),
                inclusive: tax.inclusive,
                amount: self.money(tax.amount),
            });
            let model = line.model.as_deref().map(serde_json::from_str::<&RawValue>).transpose();
            Ok(LineRow {
                tenant_id: tenant,
                invoice_id,
                line: place + 1,
                kind: match kind(line) {
                    LineKind::Usage => "usage",
                    LineKind::Adjustment => "adjustment",
                    LineKind::OneOff => "one_off",
                    LineKind::Fee => "fee",
                },
                description: &line.description,
                customer_id: &line.customer,
                subscription_id: line.cell.map(|cell| cell.subscription_id),
                item_id: line.cell.and_then(|cell| cell.item_id),
                price_id: line.cell.map(|cell| cell.price_id),
                price_key: line.price_key.as_deref(),
                plan_key: line.plan_key.as_deref(),
                meter_key: line.meter_key.as_deref(),
                cycle_start: line.cell.map(|cell| datum::rfc3339(cell.cycle_start)),
                cycle_end: line.cell.map(|cell| datum::rfc3339(cell.cycle_end)),
                period_start: span.and_then(|(start, _)| time(start)),
                period_end: span.and_then(|(_, end)| time(end)),
                applies: line.cell.map(|_| datum::multirange(line.applies.as_slice())),
                quantity: line.usage.quantity.to_string(),
                usage: line.meter_key.as_ref().map(|_| line.usage.to_json(&line.terms)),
                model: model.map_err(|error| Fail::corrupt(format!("a stored price model: {error}")))?,
                credit_rate: line.credit_rate.map(|rate| rate.to_string()),
                proration: line.proration.as_deref(),
                timezone: line.timezone.as_deref(),
                due_unrounded: line.due.unrounded.to_string(),
                due_amount: self.money(line.due.minor),
                billed_before: self.money(line.before.minor),
                unrounded: line.unrounded()?.to_string(),
                amount: self.money(computed.amount),
                discount: self.money(computed.discount),
                promotional: self.money(computed.promotional_credit),
                taxable: self.money(computed.taxable),
                tax: self.money(computed.taxes.iter().map(|tax| tax.amount).sum()),
                total: self.money(computed.total),
                taxes: taxes.collect(),
                adjusts: line.adjusts,
            })
        });
        json(&rows.collect::<Outcome<Vec<_>>>()?)
    }

    /// Inserts the invoice and its parts as a draft; returns its id.
    pub fn insert(
        &self,
        bill: &Bill<'_>,
        kind: &str,
        settings: &Settings,
        known: Option<&Known>,
        replaces: Option<i64>,
    ) -> Outcome<i64> {
        let invoice = &self.invoice;
        let recipient = Recipient::read(bill.tenant, bill.payer)?;
        let id = spi::one(
            "INSERT INTO meterflow.invoices (tenant_id, customer_id, currency, kind, bill_at, subtotal, discount, promotional, tax, total, credited, \
                    amount_due, customer, seller, known_batch, known_missing, replaces) \
             VALUES ($1, $2, $3, $4, $5, $6::numeric, $7::numeric, $8::numeric, $9::numeric, $10::numeric, $11::numeric, $12::numeric, $13::jsonb, $14::jsonb, $15, $16, $17) RETURNING id",
            &[
                bill.tenant.into(),
                bill.payer.into(),
                bill.currency.into(),
                kind.into(),
                spi::time(bill.at),
                self.money(invoice.subtotal).into(),
                self.money(invoice.discount).into(),
                self.money(invoice.promotional_credit).into(),
                self.money(invoice.tax).into(),
                self.money(invoice.total).into(),
                self.money(invoice.paid_credit).into(),
                self.money(invoice.amount_due).into(),
                recipient.document.as_str().into(),
                settings.seller.as_str().into(),
                known.map(|known| known.last).into(),
                known.map(|known| known.missing.clone()).into(),
                replaces.into(),
            ],
            See::Write,
            |row| row.int8(0),
        )?
        .ok_or_else(|| Fail::corrupt("an invoice was not inserted"))?;
        self.insert_parts(bill.tenant, id)?;
        Ok(id)
    }

    /// Replaces the amounts and parts of a draft.
    pub fn rewrite(&self, bill: &Bill<'_>, id: i64) -> Outcome<()> {
        let tenant = bill.tenant;
        let recipient = Recipient::read(tenant, bill.payer)?;
        delete_parts(tenant, id)?;
        let invoice = &self.invoice;
        spi::run(
            "UPDATE meterflow.invoices SET subtotal = $3::numeric, discount = $4::numeric, promotional = $5::numeric, tax = $6::numeric, \
                    total = $7::numeric, credited = $8::numeric, amount_due = $9::numeric, customer = $10::jsonb WHERE tenant_id = $1 AND id = $2",
            &[
                tenant.into(),
                id.into(),
                self.money(invoice.subtotal).into(),
                self.money(invoice.discount).into(),
                self.money(invoice.promotional_credit).into(),
                self.money(invoice.tax).into(),
                self.money(invoice.total).into(),
                self.money(invoice.paid_credit).into(),
                self.money(invoice.amount_due).into(),
                recipient.document.as_str().into(),
            ],
            See::Write,
            |_| Ok(()),
        )?;
        self.insert_parts(tenant, id)
    }

    fn insert_parts(&self, tenant: &str, id: i64) -> Outcome<()> {
        populate("invoice_lines", &self.line_rows(tenant, Some(id))?)?;
        self.insert_discounts(tenant, id)?;
        self.insert_taxes(tenant, id)?;
        self.insert_credits(tenant, id)
    }

    fn insert_discounts(&self, tenant: &str, invoice_id: i64) -> Outcome<()> {
        let used = self.invoice.coupons.iter().filter(|coupon| coupon.used != 0).enumerate();
        let rows = used
            .map(|(place, coupon)| {
                let redemption = self
                    .redemptions
                    .iter()
                    .find(|redemption| redemption.id.to_string() == coupon.key)
                    .ok_or_else(|| Fail::corrupt(format!("a discount of no redemption: {}", coupon.key)))?;
                Ok(DiscountRow {
                    tenant_id: tenant,
                    invoice_id,
                    ordinal: place + 1,
                    redemption_id: redemption.id,
                    code: &redemption.code,
                    name: redemption.name.as_deref(),
                    level: if redemption.level == Level::Line { "line" } else { "invoice" },
                    amount: self.money(coupon.used),
                })
            })
            .collect::<Outcome<Vec<_>>>()?;
        if rows.is_empty() { Ok(()) } else { populate("invoice_discounts", &json(&rows)?) }
    }

    fn insert_taxes(&self, tenant: &str, invoice_id: i64) -> Outcome<()> {
        let rows: Vec<TaxRow<'_>> = self
            .invoice
            .taxes
            .iter()
            .filter(|total| self.invoice.lines.iter().any(|line| line.taxes.iter().any(|tax| tax.key == total.key)))
            .enumerate()
            .map(|(place, total)| TaxRow {
                tenant_id: tenant,
                invoice_id,
                ordinal: place + 1,
                tax_key: &total.key,
                name: self.taxes.iter().find(|tax| tax.key == total.key).map_or(total.key.as_str(), |tax| &tax.name),
                rate: total.percent.to_string(),
                inclusive: total.inclusive,
                base: self.money(total.base),
                amount: self.money(total.amount),
            })
            .collect();
        if rows.is_empty() { Ok(()) } else { populate("invoice_taxes", &json(&rows)?) }
    }

    fn insert_credits(&self, tenant: &str, invoice_id: i64) -> Outcome<()> {
        let rows: Vec<CreditRow<'_>> = self
            .credit
            .used(&self.invoice)?
            .into_iter()
            .enumerate()
            .map(|(place, used)| CreditRow {
                tenant_id: tenant,
                invoice_id,
                ordinal: place + 1,
                source: used.source,
                source_id: used.id,
                promotional: used.promotional,
                amount: self.money(used.minor),
            })
            .collect();
        if rows.is_empty() { Ok(()) } else { populate("invoice_credits", &json(&rows)?) }
    }
}

/// Removes all that belongs to a draft.
pub fn delete_parts(tenant: &str, invoice_id: i64) -> Outcome<()> {
    for table in ["invoice_lines", "invoice_discounts", "invoice_taxes", "invoice_credits"] {
        let sql = format!("DELETE FROM meterflow.{table} WHERE tenant_id = $1 AND invoice_id = $2");
        spi::run(&sql, &[tenant.into(), invoice_id.into()], See::Write, |_| Ok(()))?;
    }
    Ok(())
}

fn populate(table: &str, rows: &str) -> Outcome<()> {
    let sql = format!(
        "INSERT INTO meterflow.{table} SELECT r.* FROM json_populate_recordset(NULL::meterflow.{table}, $1::json) r"
    );
    spi::run(&sql, &[rows.into()], See::Write, |_| Ok(()))?;
    Ok(())
}

fn json<T: Serialize>(rows: &T) -> Outcome<String> {
    serde_json::to_string(rows).map_err(|error| Fail::corrupt(format!("rows can not be written as JSON: {error}")))
}
