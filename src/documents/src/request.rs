//! What the backend asks for, and the way to its answer.

use serde::Deserialize;

use crate::document::Document;
use crate::fault::{About, Fault};
use crate::{html, pdf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Html,
    Pdf,
}

/// As src/documents.rs of the extension writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub format: Format,
    /// None: the built-in one.
    pub template: Option<String>,
    /// JSON as it was written, inside a string: read once, and with a place for each fault.
    pub document: String,
    pub max_seconds: u64,
    pub max_bytes: u64,
}

/// Larger ones are no templates; a logo belongs in the document.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;

pub fn render(request: &Request) -> Result<Vec<u8>, Fault> {
    let template = request.template.as_deref();
    if let Some(text) = template
        && text.len() > MAX_TEMPLATE_BYTES
    {
        return Err(Fault::new(About::Limit, "this template is too large")
            .detail(format!("It has {} bytes, of at most {MAX_TEMPLATE_BYTES}.", text.len())));
    }
    let document = Document::parse(&request.document)?;
    match request.format {
        Format::Html => html::render(&document, template).map(String::into_bytes),
        Format::Pdf => pdf::render(&document, template),
    }
}
