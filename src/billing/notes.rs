//! What became of an invoice, and credit notes: `core::invoice` asked with the invoice as it is stored. Nothing is
//! written here; sql/68_payments.sql does, under the lock of the payer.

use std::collections::BTreeMap;

use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::core::currency;
use crate::core::invoice::{self, Account, InvoiceError, InvoiceLine, Item, LineTax, NoteTotals};
use crate::core::pricing::{Amount, Money};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::charges;

/// How an invoice stands: balance, what is due, what is over, what can be refunded. No row when there is no invoice.
#[pg_extern(sql = "")]
fn invoice_standing_rows(
    invoice_id: i64,
) -> TableIterator<
    'static,
    (name!(balance, String), name!(amount_due, String), name!(account_credit, String), name!(refundable, String)),
> {
    let standing = || -> Outcome<Vec<_>> {
        let Some(stored) = Stored::read(&settings::tenant(), invoice_id)? else { return Ok(Vec::new()) };
        let standing = stored.account.standing().map_err(|error| stored.refused(&error))?;
        let parts = [standing.balance, standing.amount_due, standing.account_credit, standing.refundable];
        let [balance, due, credit, refundable] = parts.map(|minor| stored.money(minor));
        Ok(vec![(balance, due, credit, refundable)])
    };
    TableIterator::new(raise(standing()))
}

/// What a credit note for parts of lines (`{"1": "12.50"}`; none: for all that is left of the invoice) is worth line by
/// line, and how it is settled; as JSON.
#[pg_extern(sql = "")]
fn credit_note_terms(
    invoice_id: i64,
    lines: Option<&str>,
    refund: Option<&str>,
    credit: Option<&str>,
    offset: Option<&str>,
) -> Option<String> {
    let terms = || -> Outcome<Option<String>> {
        let tenant = settings::tenant();
        let Some(stored) = Stored::read(&tenant, invoice_id)? else { return Ok(None) };
        stored.terms(&tenant, invoice_id, lines, [refund, credit, offset]).map(Some)
    };
    raise(terms())
}

/// An invoice after it was issued.
struct Stored {
    currency: String,
    digits: u32,
    account: Account,
}

struct StoredLine {
    line: InvoiceLine,
    before: i128,
}

#[derive(Serialize)]
struct Note {
    subtotal: String,
    discount: String,
    promotional: String,
    tax: String,
    total: String,
    refund: String,
    credit: String,
    offset: String,
    lines: Vec<NoteLine>,
}

/// The columns of `credit_note_lines` that are computed.
#[derive(Serialize)]
struct NoteLine {
    line: i32,
    amount: String,
    discount: String,
    promotional: String,
    taxable: String,
    tax: String,
    total: String,
    taxes: Vec<Tax>,
}

/// An element of `taxes`, of an invoice's line and of a note's.
#[derive(Serialize, Deserialize)]
struct Tax {
    key: String,
    rate: String,
    inclusive: bool,
    amount: String,
}

impl Stored {
    fn read(tenant: &str, invoice_id: i64) -> Outcome<Option<Stored>> {
        spi::one(
            "SELECT i.currency, i.total::text, i.credited::text, p.paid::text, p.refunded::text, \
                    (p.overpaid + coalesce((SELECT sum(a.amount) FROM meterflow.account_credits a \
                                             WHERE a.tenant_id = i.tenant_id AND a.source = 'invoice' AND a.source_id = i.id), 0))::text, \
                    n.refund::text, n.credit::text, n.offset_amount::text \
               FROM meterflow.invoices i, \
                    LATERAL (SELECT coalesce(sum(p.amount) FILTER (WHERE p.kind = 'payment'), 0) AS paid, coalesce(sum(p.overpaid), 0) AS overpaid, \
                                    coalesce(sum(p.amount) FILTER (WHERE p.kind = 'refund' AND p.credit_note_id IS NULL), 0) AS refunded \
                               FROM meterflow.payments p WHERE p.tenant_id = i.tenant_id AND p.invoice_id = i.id) p, \
                    LATERAL (SELECT coalesce(sum(n.refund), 0) AS refund, coalesce(sum(n.credit), 0) AS credit, coalesce(sum(n.offset_amount), 0) AS offset_amount \
                               FROM meterflow.credit_notes n WHERE n.tenant_id = i.tenant_id AND n.invoice_id = i.id) n \
              WHERE i.tenant_id = $1 AND i.id = $2",
            &[tenant.into(), invoice_id.into()],
            See::Statement,
            |row| {
                let currency = row.text(0)?;
                let digits =
                    currency::digits(&currency).map_err(|error| Fail::corrupt(format!("an invoice: {error}")))?;
                let minor = |column: usize| stored_minor(&row.text(column)?, digits);
                let account = Account {
                    total: minor(1)?,
                    paid_credit: minor(2)?,
                    payments: minor(3)?,
                    refunds: minor(4)?,
                    moved: minor(5)?,
                    notes: NoteTotals { refund: minor(6)?, credit: minor(7)?, offset: minor(8)? },
                };
                Ok(Stored { currency, digits, account })
            },
        )
    }

    fn lines(&self, tenant: &str, invoice_id: i64) -> Outcome<BTreeMap<i32, StoredLine>> {
        let mut lines = BTreeMap::new();
        spi::run(
            "SELECT l.line, l.unrounded::text, l.amount::text, l.discount::text, l.promotional::text, l.taxable::text, l.total::text, l.taxes::text, \
                    coalesce((SELECT sum(n.amount) FROM meterflow.credit_note_lines n \
                               WHERE n.tenant_id = l.tenant_id AND n.invoice_id = l.invoice_id AND n.line = l.line), 0)::text \
               FROM meterflow.invoice_lines l WHERE l.tenant_id = $1 AND l.invoice_id = $2",
            &[tenant.into(), invoice_id.into()],
            See::Statement,
            |row| {
                let place = row.int4(0)?;
                let minor = |column: usize| stored_minor(&row.text(column)?, self.digits);
                let line = InvoiceLine {
                    key: place.to_string(),
                    unrounded: stored_amount(&row.text(1)?)?,
                    amount: minor(2)?,
                    discount: minor(3)?,
                    promotional_credit: minor(4)?,
                    taxable: minor(5)?,
                    taxes: self.taxes(&row.text(7)?)?,
                    total: minor(6)?,
                    paid_credit: 0, // a payment: notes do not take it back line by line
                };
                lines.insert(place, StoredLine { line, before: minor(8)? });
                Ok(())
            },
        )?;
        Ok(lines)
    }

    fn taxes(&self, json: &str) -> Outcome<Vec<LineTax>> {
        let taxes: Vec<Tax> = serde_json::from_str(json)
            .map_err(|error| Fail::corrupt(format!("the taxes of an invoice line: {error}")))?;
        let tax = |tax: Tax| {
            let amount = stored_minor(&tax.amount, self.digits)?;
            Ok(LineTax { percent: stored_amount(&tax.rate)?, key: tax.key, inclusive: tax.inclusive, amount })
        };
        taxes.into_iter().map(tax).collect()
    }

    fn terms(&self, tenant: &str, invoice_id: i64, asked: Option<&str>, settled: [Option<&str>; 3]) -> Outcome<String> {
        let lines = self.lines(tenant, invoice_id)?;
        let mut wanted = asked.map(|asked| self.wanted(asked, &lines)).transpose()?;
        let items: Vec<Item<'_>> = lines
            .iter()
            .map(|(place, StoredLine { line, before })| {
                let amount = match &mut wanted {
                    Some(wanted) => wanted.remove(place).unwrap_or(0),
                    None => line.amount.saturating_sub(*before),
                };
                Item { line, before: *before, amount }
            })
            .collect();
        let note = invoice::credit_note(&items).map_err(|error| self.refused(&error))?;
        if note.total == 0 {
            return Err(Fail::parameter("this credit note would be worth nothing")
                .detail("No line has an amount to credit, or what it credits had not been charged.")
                .hint(
                    "SELECT line, amount, total FROM meterflow.credit_note_lines shows what has been credited before.",
                ));
        }
        let NoteTotals { refund, credit, offset } = self.settlement(note.total, settled)?;
        let line = |line: &invoice::NoteLine| {
            let tax = |tax: &LineTax| Tax {
                key: tax.key.clone(),
                rate: tax.percent.to_string(),
                inclusive: tax.inclusive,
                amount: self.money(tax.amount),
            };
            Ok(NoteLine {
                line: line.key.parse().map_err(|_| Fail::corrupt("a line of an invoice has no number"))?,
                amount: self.money(line.amount),
                discount: self.money(line.discount),
                promotional: self.money(line.promotional_credit),
                taxable: self.money(line.taxable),
                tax: self.money(line.taxes.iter().map(|tax| tax.amount).sum()),
                total: self.money(line.total),
                taxes: line.taxes.iter().map(tax).collect(),
            })
        };
        let note = Note {
            subtotal: self.money(note.amount),
            discount: self.money(note.discount),
            promotional: self.money(note.promotional_credit),
            tax: self.money(note.tax),
            total: self.money(note.total),
            refund: self.money(refund),
            credit: self.money(credit),
            offset: self.money(offset),
            lines: note.lines.iter().map(line).collect::<Outcome<_>>()?,
        };
        serde_json::to_string(&note).map_err(|error| Fail::corrupt(format!("a credit note as JSON: {error}")))
    }

    /// The parts that were asked for, and what is not spoken for as `settle` would have it: off what is due, the rest as
    /// credit. A refund is only made when it is asked for.
    fn settlement(&self, note: i128, asked: [Option<&str>; 3]) -> Outcome<NoteTotals> {
        let [refund, credit, offset] = asked;
        let part = |name: &str, text: Option<&str>| text.map(|text| self.money_in(name, text)).transpose();
        let (refund, credit, offset) = (part("refund", refund)?, part("credit", credit)?, part("offset", offset)?);
        let standing = self.account.standing().map_err(|error| self.refused(&error))?;
        let given = [refund, credit, offset].into_iter().flatten().fold(0_i128, i128::saturating_add);
        let rest = standing.settle(note.saturating_sub(given).max(0));
        // An offset that was asked for leaves its share of the rest to credit; a credit leaves none to offset beyond what
        // is due, and then the parts don't add up.
        let settlement = NoteTotals {
            refund: refund.unwrap_or(0),
            credit: credit.unwrap_or(if offset.is_some() { rest.offset + rest.credit } else { rest.credit }),
            offset: offset.unwrap_or(rest.offset),
        };
        standing.check(note, &settlement).map_err(|error| self.refused(&error))?;
        Ok(settlement)
    }

    /// `{"1": "12.50"}`: line by number, and how much of its amount.
    fn wanted(&self, json: &str, lines: &BTreeMap<i32, StoredLine>) -> Outcome<BTreeMap<i32, i128>> {
        let hint = "For instance {\"1\": \"12.50\", \"3\": \"7\"}: the numbers of lines, and how much of their amounts; null for all that is left of the invoice.";
        // As raw text: a JSON number read as a float would lose digits.
        let asked: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).map_err(|error| {
            Fail::parameter("the lines of a credit note must be an object of amounts")
                .detail(format!("{error}."))
                .hint(hint)
        })?;
        let mut wanted = BTreeMap::new();
        for (place, amount) in asked {
            let Some(number) = place.parse().ok().filter(|number| lines.contains_key(number)) else {
                return Err(Fail::parameter(format!("the invoice has no line \"{place}\""))
                    .detail(format!("Its lines are numbered from 1 to {}.", lines.len()))
                    .hint(hint));
            };
            let minor = self.money_in(&format!("line {place}"), amount.get().trim_matches('"'))?;
            wanted.insert(number, minor);
        }
        Ok(wanted)
    }

    /// An amount that somebody gave, in whole minor units.
    fn money_in(&self, what: &str, text: &str) -> Outcome<i128> {
        let amount = Amount::parse(text).ok();
        let money = amount.and_then(|amount| Some((amount, amount.round(self.digits).ok()?)));
        match money {
            Some((amount, money)) if amount.checked_sub(&Amount::from(money)).is_ok_and(|rest| rest.is_zero()) => {
                charges::minor(money)
            }
            _ => Err(Fail::parameter(format!("the amount for {what} must be money in {}", self.currency))
                .detail(format!("It is {text}."))
                .hint(format!("Money in {} has no more than {} decimals.", self.currency, self.digits))),
        }
    }

    fn money(&self, minor: i128) -> String {
        Money::new(minor.into(), self.digits).to_string()
    }

    /// Why a note can not be given, with the amounts as people write them.
    fn refused(&self, error: &InvoiceError) -> Fail {
        let money = |minor: i128| format!("{} {}", self.money(minor), self.currency);
        let fail = |message: &str, detail: String, hint: &str| Fail::parameter(message).detail(detail).hint(hint);
        match error {
            InvoiceError::ExceedsLine { line, creditable } => fail(
                "a credit note can not credit more than the invoice charged",
                format!("Line {line} has {} left to credit.", money(*creditable)),
                "What is credited has the sign of the line; earlier notes are in meterflow.credit_note_lines.",
            ),
            InvoiceError::ExceedsInvoice { creditable } => fail(
                "a credit note can not credit more than the invoice charged",
                format!("The invoice has {} left to credit.", money(*creditable)),
                "Its negative lines have lowered it: credit these too, or less.",
            ),
            InvoiceError::RaisesInvoice { by } => fail(
                "a credit note can not raise an invoice",
                format!("This one would, by {}.", money(*by)),
                "Charge it by an invoice: meterflow.create_invoice().",
            ),
            InvoiceError::Unbalanced { total } => fail(
                "refund, credit and offset must add up to the credit note",
                format!("It is worth {}, and none of them can be negative.", money(*total)),
                "Leave them null: the note is taken off what is due, and the rest is credit for later invoices.",
            ),
            InvoiceError::ExceedsPaid { refundable } => fail(
                "no more can be refunded than was paid",
                format!("{} can be.", money(*refundable)),
                "Give the rest as credit, or offset it against what is due.",
            ),
            InvoiceError::ExceedsDue { amount_due } => fail(
                "no more can be offset than is due",
                format!("{} is due on the invoice.", money(*amount_due)),
                "Refund the rest, or give it as credit.",
            ),
            _ => Fail::new(
                SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                "the amounts of this invoice can not be computed",
            )
            .detail(format!("{error}.")),
        }
    }
}

fn stored_amount(text: &str) -> Outcome<Amount> {
    Amount::parse(text).map_err(|error| Fail::corrupt(format!("the stored amount {text}: {error}")))
}

fn stored_minor(text: &str, digits: u32) -> Outcome<i128> {
    charges::minor(
        stored_amount(text)?
            .round(digits)
            .map_err(|error| Fail::corrupt(format!("the stored amount {text}: {error}")))?,
    )
}
