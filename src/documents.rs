//! Invoices on paper: hands a document and a template to the program of src/documents/, which is a crate of its own,
//! and its faults to the user. Why a program: src/documents/src/main.rs.

use pgrx::prelude::*;

use crate::pg::error::{Fail, Outcome, SqlState, raise};

#[pg_extern(sql = "")]
fn render_html_text(document: Option<&str>, template: Option<&str>) -> Option<String> {
    Some(raise(html(document?, template)))
}

#[pg_extern(sql = "")]
fn render_pdf_text(document: Option<&str>, template: Option<&str>) -> Option<Vec<u8>> {
    Some(raise(render("pdf", document?, template)))
}

fn html(document: &str, template: Option<&str>) -> Outcome<String> {
    let bytes = render("html", document, template)?;
    // A template's text came from SQL, and the document too; only a broken program writes anything else.
    String::from_utf8(bytes).map_err(|error| unexpected(&error.to_string()))
}

#[cfg(not(feature = "documents"))]
fn render(_format: &str, _document: &str, _template: Option<&str>) -> Outcome<Vec<u8>> {
    Err(Fail::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, "this build of meterflow renders no documents")
        .detail("It was built without the feature \"documents\".")
        .hint("Build it with make build, which has the feature, or render meterflow.invoice_document() elsewhere."))
}

#[cfg(feature = "documents")]
fn render(format: &str, document: &str, template: Option<&str>) -> Outcome<Vec<u8>> {
    /// Address space. A sample invoice takes 200 MB of it, one of 4,000 lines 750.
    const MAX_BYTES: u64 = 1 << 30;
    const MAX_OUTPUT: usize = 256 << 20;

    #[derive(serde::Serialize)]
    struct Request<'a> {
        format: &'a str,
        template: Option<&'a str>,
        document: &'a str,
        max_seconds: u64,
        max_bytes: u64,
    }

    let time = crate::pg::settings::document_timeout();
    let request = Request { format, template, document, max_seconds: time.as_secs() + 1, max_bytes: MAX_BYTES };
    let request = serde_json::to_vec(&request).map_err(|error| unexpected(&error.to_string()))?;
    let run = crate::pg::program::run("meterflow_documents", &request, time, MAX_OUTPUT)?;
    match run.status.code() {
        Some(0) => Ok(run.output),
        Some(1) => Err(fault(&run.output)),
        _ => Err(Fail::new(
            SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            "this document can not be rendered within its limits",
        )
        .detail(format!("The program that renders it ended with {}.", run.status))
        .hint(format!(
            "Most often a template that grows without end: it may use {} MB of memory. The server is unharmed.",
            MAX_BYTES >> 20
        ))),
    }
}

#[cfg(feature = "documents")]
fn fault(output: &[u8]) -> Fail {
    /// As src/documents/src/fault.rs writes it.
    #[derive(serde::Deserialize)]
    struct Fault {
        about: String,
        message: String,
        detail: Option<String>,
        hint: Option<String>,
    }

    let fault: Fault = match serde_json::from_slice(output) {
        Ok(fault) => fault,
        Err(error) => return unexpected(&error.to_string()),
    };
    let state = match fault.about.as_str() {
        "document" => SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
        "syntax" => SqlState::ERRCODE_SYNTAX_ERROR,
        "template" => SqlState::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
        "limit" => SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        _ => SqlState::ERRCODE_INTERNAL_ERROR,
    };
    let mut fail = Fail::new(state, fault.message);
    if let Some(detail) = fault.detail {
        fail = fail.detail(detail);
    }
    match fault.hint {
        Some(hint) => fail.hint(hint),
        None => fail,
    }
}

fn unexpected(what: &str) -> Fail {
    Fail::new(SqlState::ERRCODE_INTERNAL_ERROR, "this document was not rendered").detail(format!("{what}."))
}
