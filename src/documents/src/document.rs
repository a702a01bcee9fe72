//! The document: the contract between whoever writes invoices and whoever draws them.
//!
//! Everything that is shown stands in it, as text that is shown as it is: amounts are formatted by SQL's
//! `format_amount` and `format_quantity`, dates are written as the customer's calendar has them. No template rounds,
//! adds or converts. Templates see it as `document`, with absent lists empty and absent texts null, so they need not
//! ask whether a field exists. Fields not named here are kept for templates that know them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fault::{About, Fault};

type Extra = Map<String, Value>;

#[derive(Debug, Serialize, Deserialize)]
pub struct Document {
    pub kind: Kind,
    pub status: Status,
    /// Null while it is a draft.
    pub number: Option<String>,
    /// ISO 4217 code; of every amount that has no other.
    pub currency: String,
    /// IETF tag, for hyphenation and direction: `en` when null.
    pub language: Option<String>,
    /// Of a PDF: `a4` (when null) or `us-letter`, or any name that Typst knows.
    pub paper: Option<String>,
    pub seller: Party,
    pub customer: Party,
    pub issued_at: Option<String>,
    pub due_at: Option<String>,
    pub period: Option<Period>,
    /// Zone of the dates.
    pub timezone: Option<String>,
    /// Of a credit note: the number of the invoice it corrects.
    pub original_number: Option<String>,
    /// Of a credit note: why.
    pub reason: Option<String>,
    #[serde(default)]
    pub lines: Vec<Line>,
    #[serde(default)]
    pub discounts: Vec<Item>,
    /// Prepaid or promotional credit that was used.
    #[serde(default)]
    pub credits: Vec<Item>,
    #[serde(default)]
    pub taxes: Vec<Tax>,
    pub totals: Totals,
    /// Payments received so far.
    #[serde(default)]
    pub payments: Vec<Item>,
    /// One paragraph each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// One line each: bank, account, reference.
    #[serde(default)]
    pub payment_instructions: Vec<String>,
    /// Words to use in place of the templates' own: `{"invoice": "Rechnung"}`.
    #[serde(default)]
    pub labels: Map<String, Value>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Invoice,
    CreditNote,
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Draft,
    Finalized,
    Paid,
    Void,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Party {
    pub name: String,
    pub id: Option<String>,
    /// Lines, as on an envelope.
    #[serde(default)]
    pub address: Vec<String>,
    pub tax_id: Option<String>,
    pub email: Option<String>,
    /// Of the seller: `data:image/png;base64,...`, also jpeg or svg+xml.
    pub logo: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Both days belong to it, although periods in tables end before their end: this is for people.
#[derive(Debug, Serialize, Deserialize)]
pub struct Period {
    pub start: String,
    pub end: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    pub description: String,
    /// When it differs from the document's.
    pub period: Option<Period>,
    pub quantity: Option<String>,
    pub unit: Option<String>,
    /// Null where there is no single price, as with tiers: see `details`.
    pub unit_amount: Option<String>,
    /// After the line's discount.
    pub amount: String,
    pub discount: Option<String>,
    /// For instance `19 %`.
    pub tax_rate: Option<String>,
    /// Of a late correction: the period that was billed before and is corrected here.
    pub adjusts: Option<Period>,
    /// How the amount comes about: one for each tier or step.
    #[serde(default)]
    pub details: Vec<Detail>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Detail {
    pub description: String,
    pub quantity: Option<String>,
    pub unit_amount: Option<String>,
    pub amount: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Item {
    pub name: String,
    pub amount: String,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Tax {
    pub name: String,
    pub rate: Option<String>,
    /// What it is a part of.
    pub base: Option<String>,
    pub amount: String,
    /// Contained in the amounts of the lines, and not added to them.
    #[serde(default)]
    pub inclusive: bool,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Totals {
    pub subtotal: String,
    pub discounts: Option<String>,
    pub credits: Option<String>,
    pub tax: Option<String>,
    pub total: String,
    pub paid: Option<String>,
    pub due: String,
    #[serde(flatten)]
    pub extra: Extra,
}

/// The longest invoice that the renderer's memory is sure to hold: two hundred and fifty pages.
const MAX_LINES: usize = 5_000;

impl Document {
    pub fn parse(text: &str) -> Result<Document, Fault> {
        let mut json = serde_json::Deserializer::from_str(text);
        let document: Document = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { "the document itself".to_string() } else { format!("\"{path}\"") };
            // Its line and column count in a text that nobody has seen.
            let said = error.inner().to_string();
            let said = said.split(" at line ").next().unwrap_or_default().to_string();
            Fault::new(About::Document, "this is no document that can be drawn")
                .detail(format!("At {place}: {said}."))
                .hint("COMMENT ON FUNCTION meterflow.render_html says what a document holds; SELECT meterflow.sample_document() shows one.")
        })?;
        let lines = document.lines.len();
        if lines > MAX_LINES {
            return Err(Fault::new(About::Limit, "this document has too many lines")
                .detail(format!("It has {lines}, of at most {MAX_LINES}."))
                .hint("Combine lines, or attach the details as data."));
        }
        document.logo()?;
        Ok(document)
    }

    /// The seller's logo and the name of the file that it is to a template.
    pub fn logo(&self) -> Result<Option<(&'static str, Vec<u8>)>, Fault> {
        let Some(uri) = self.seller.logo.as_deref() else { return Ok(None) };
        let kinds = [
            ("logo.png", "data:image/png;base64,"),
            ("logo.jpg", "data:image/jpeg;base64,"),
            ("logo.svg", "data:image/svg+xml;base64,"),
        ];
        kinds
            .iter()
            .find_map(|(file, prefix)| Some((*file, STANDARD.decode(uri.strip_prefix(prefix)?).ok()?)))
            .map(Some)
            .ok_or_else(|| {
                let start: String = uri.chars().take(40).collect();
                Fault::new(About::Document, "this logo can not be drawn")
                    .detail(format!("At \"seller.logo\": it begins with \"{start}\"."))
                    .hint("A logo is data:image/png;base64,... or the same of jpeg or svg+xml: nothing is fetched.")
            })
    }
}
