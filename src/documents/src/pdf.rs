//! PDF by Typst. The same document and template give the same bytes: the clock is the document's own date.

use typst::diag::SourceDiagnostic;
use typst::foundations::{Datetime, Smart};
use typst::syntax::DiagSpan;
use typst::{World, WorldExt};
use typst_layout::PagedDocument;
use typst_pdf::{PdfOptions, Timestamp};

use crate::document::Document;
use crate::fault::{About, Fault};
use crate::world::{Paper, TENANTS};

pub fn render(document: &Document, template: Option<&str>) -> Result<Vec<u8>, Fault> {
    let paper = Paper::new(document, template)?;
    let main = paper.source(paper.main()).map_err(|error| Fault::internal(error.to_string()))?;
    let broken = main.root().errors_and_warnings().0;
    if let Some(error) = broken.first() {
        let diagnostic = SourceDiagnostic::from(error.clone());
        return Err(fault(&paper, &diagnostic, About::Syntax, "this PDF template does not parse"));
    }
    let fails = |errors: &[SourceDiagnostic]| match errors.first() {
        Some(error) => fault(&paper, error, About::Template, "this PDF template fails on this document"),
        None => Fault::internal("Typst failed without a word"),
    };
    let pages: PagedDocument = typst::compile(&paper).output.map_err(|errors| fails(&errors))?;
    let options = PdfOptions {
        ident: Smart::Custom(format!("{}/{}", document.seller.name, document.number.as_deref().unwrap_or_default())),
        creator: Smart::Custom(Some("meterflow".to_string())),
        timestamp: issued(document).map(Timestamp::new_utc),
        ..PdfOptions::default()
    };
    typst_pdf::pdf(&pages, &options).map_err(|errors| fails(&errors))
}

/// The day of issue, where it is written as a date.
pub fn issued(document: &Document) -> Option<Datetime> {
    let mut parts = document.issued_at.as_deref()?.get(..10)?.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    Datetime::from_ymd_hms(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?, 0, 0, 0)
}

fn fault(paper: &Paper, error: &SourceDiagnostic, about: About, message: &str) -> Fault {
    let mut detail = match place(paper, error.span) {
        Some(place) => format!("{place}: {}.", error.message),
        None => format!("{}.", error.message),
    };
    // An error inside the built-in template has its cause in the call.
    for point in error.trace.iter().take(3) {
        if let Some(place) = place(paper, point.span.into()) {
            detail.push_str(&format!(" From {}.", place.to_lowercase()));
        }
    }
    let hints: Vec<String> = error.hints.iter().map(|hint| format!("{}.", hint.v)).collect();
    let hint = if hints.is_empty() {
        "Templates are written for Typst 0.15 and read json(\"document.json\"); #import \"invoice.typ\": invoice gives the built-in one with parameters."
            .to_string()
    } else {
        hints.join(" ")
    };
    Fault::new(about, message).detail(detail).hint(hint)
}

fn place(paper: &Paper, span: DiagSpan) -> Option<String> {
    let id = span.id()?;
    let range = paper.range(span)?;
    let source = paper.source(id).ok()?;
    let (line, column) = source.lines().byte_to_line_column(range.start)?;
    let file = id.vpath().get_without_slash();
    let of = if file == TENANTS { String::new() } else { format!(" of {file}") };
    Some(format!("Line {}, column {}{of}", line + 1, column + 1))
}
