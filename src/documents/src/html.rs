//! HTML by minijinja. What a template prints is escaped, always; `safe`, which would switch that off, is gone.

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, context};

use crate::document::Document;
use crate::fault::{About, Fault};

/// What tenants' templates can extend: `{% extends "invoice.html" %}`.
const BUILT_IN: (&str, &str) = ("invoice.html", include_str!("../templates/invoice.html"));

/// The name that a tenant's template has in errors.
const TENANTS: &str = "template";

/// Instructions of the template engine. An invoice of a thousand lines takes about 200,000.
const FUEL: u64 = 20_000_000;
const DEPTH: usize = 100;

pub fn render(document: &Document, template: Option<&str>) -> Result<String, Fault> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    environment.remove_filter("safe");
    let (name, text) = BUILT_IN;
    environment.add_template(name, text).map_err(|error| fault(error, About::Syntax))?;
    if let Some(text) = template {
        environment.add_template(TENANTS, text).map_err(|error| fault(error, About::Syntax))?;
    }
    let document = Value::from(Serde(document));
    environment
        .get_template(template.map_or(name, |_| TENANTS))
        .and_then(|template| template.render(context! { document }))
        .map_err(|error| fault(error, About::Template))
}

fn fault(error: minijinja::Error, about: About) -> Fault {
    // The cause that lies deepest stands in the text at fault, and not where it was included.
    let mut error = &error;
    while let Some(cause) = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<minijinja::Error>())
    {
        error = cause;
    }
    let said = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    let place = match (error.name(), error.line()) {
        (Some(TENANTS), Some(line)) => format!("Line {line}: "),
        (Some(name), Some(line)) => format!("Line {line} of {name}: "),
        _ => String::new(),
    };
    let (about, message) = match (error.kind(), about) {
        (ErrorKind::OutOfFuel, _) => (About::Limit, "this HTML template takes too long"),
        (ErrorKind::SyntaxError, _) | (_, About::Syntax) => (About::Syntax, "this HTML template does not parse"),
        _ => (About::Template, "this HTML template fails on this document"),
    };
    Fault::new(about, message).detail(format!("{place}{said}.")).hint(
        "Templates are written for minijinja, in the language of Jinja; {% extends \"invoice.html\" %} begins one that changes only blocks.",
    )
}
