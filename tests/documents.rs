//! The program that renders documents, run as the backend runs it, its pages read back by poppler's tools. What SQL adds
//! to it — settings, templates in tables, cancelling — is in pg_regress and client.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Built by `make install`, which comes first in tests/run.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/documents/documents/meterflow_documents");

#[derive(Debug)]
enum Fails {
    Fault(Value),
    Signal(i32),
}

fn limited(format: &str, document: &Value, template: Option<&str>, seconds: u64) -> Result<Vec<u8>, Fails> {
    let request = json!({
        "format": format, "template": template, "document": document.to_string(),
        "max_seconds": seconds, "max_bytes": 1_u64 << 30,
    });
    let mut program = Command::new(PROGRAM)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{PROGRAM}: {error}; make install builds it"));
    program.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = program.wait_with_output().unwrap();
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        Some(1) => Err(Fails::Fault(serde_json::from_slice(&output.stdout).unwrap())),
        _ => Err(Fails::Signal(output.status.signal().unwrap())),
    }
}

fn pdf(document: &Value) -> Vec<u8> {
    limited("pdf", document, None, 30).unwrap()
}

fn html(document: &Value) -> String {
    String::from_utf8(limited("html", document, None, 30).unwrap()).unwrap()
}

/// HTML as it is read: the engine also escapes what only matters in attributes.
fn shown(html: String) -> String {
    html.replace("&#x2f;", "/").replace("&#x27;", "'")
}

/// What the program says of this template: about what, and in which words.
fn fault(format: &str, template: &str) -> (String, String) {
    match limited(format, &sample(), Some(template), 30).unwrap_err() {
        Fails::Fault(fault) => {
            (fault["about"].as_str().unwrap().to_string(), fault["detail"].as_str().unwrap().to_string())
        }
        Fails::Signal(signal) => panic!("ended by signal {signal}"),
    }
}

/// The document that SQL's sample_document() returns.
fn sample() -> Value {
    let sql = include_str!("../sql/75_documents.sql");
    let (_, from) = sql.split_once("RETURN '{").unwrap();
    let (text, _) = from.split_once("}'::jsonb").unwrap();
    serde_json::from_str(&format!("{{{text}}}")).unwrap()
}

/// One of poppler's tools, with the document on its input.
fn poppler(tool: &str, arguments: &[&str], pdf: &[u8]) -> String {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool}: {error}; tests/setup/packages poppler-utils"));
    let mut stdin = child.stdin.take().unwrap();
    let bytes = pdf.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    // Poppler 22 takes a false in the place that the standard gives it for an error, and says so.
    let said = String::from_utf8(output.stderr).unwrap();
    let other = said.lines().find(|line| !line.is_empty() && !line.contains("Suspects object is wrong type"));
    assert!(output.status.success() && other.is_none(), "{tool}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// As one sees it: without the places where a long word may break.
fn text(pdf: &[u8]) -> String {
    poppler("pdftotext", &["-layout", "-", "-"], pdf).replace('\u{200b}', "")
}

/// Every text that the document shows, wherever it stands in it.
fn texts(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::String(text) if !["kind", "status"].contains(&path) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, path, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| texts(value, name, found)),
        _ => {}
    }
}

#[test]
fn everything_in_a_document_is_on_the_page() {
    let mut document = sample();
    // These are shown by the lists that they are sums of.
    for sum in ["discounts", "credits", "tax", "paid"] {
        document["totals"].as_object_mut().unwrap().remove(sum);
    }
    let mut expected = Vec::new();
    texts(&document, "", &mut expected);
    assert!(expected.len() > 70, "the sample has something of everything");
    let page = text(&pdf(&document)).replace('\u{2212}', "-");
    let mail = shown(html(&document)).replace('\u{2212}', "-");
    for word in expected {
        assert!(page.contains(&word), "{word:?} is not in the PDF:\n{page}");
        assert!(mail.contains(&word), "{word:?} is not in the HTML:\n{mail}");
    }
}

#[test]
fn the_same_document_is_the_same_file() {
    let first = pdf(&sample());
    std::thread::sleep(Duration::from_millis(1100));
    assert!(first == pdf(&sample()), "two renderings differ");
    let information = poppler("pdfinfo", &["-isodates", "-"], &first);
    for line in
        ["Title:           Invoice INV-2026-0042", "CreationDate:    2026-12-01T00:00:00Z", "Pages:           1"]
    {
        assert!(information.contains(line), "{line:?} is not in:\n{information}");
    }
    let fonts = poppler("pdffonts", &["-"], &first);
    let fonts: Vec<&str> = fonts.lines().skip(2).collect();
    assert!(
        !fonts.is_empty() && fonts.iter().all(|font| font.contains("yes yes yes")),
        "embedded, subset, readable: {fonts:?}"
    );
}

#[test]
fn long_documents_repeat_their_heading_and_count_their_pages() {
    let mut document = sample();
    let lines = document["lines"].as_array().unwrap().clone();
    let many: Vec<Value> = (0..60)
        .map(|i| {
            let mut line = lines[i % lines.len()].clone();
            line["description"] = format!("Line number {i}.").into();
            line
        })
        .collect();
    document["lines"] = many.into();
    let bytes = pdf(&document);
    let pages: Vec<String> = text(&bytes).split('\u{c}').map(str::to_string).filter(|page| !page.is_empty()).collect();
    assert!(pages.len() >= 3, "{} pages", pages.len());
    for (i, page) in pages.iter().enumerate() {
        assert!(page.contains(&format!("Page {} of {}", i + 1, pages.len())), "{page}");
        assert!(page.contains("DESCRIPTION"), "page {}:\n{page}", i + 1);
        // A page begins with a line, never with a step of a line on the page before.
        let first = page
            .lines()
            .skip_while(|line| !line.contains("DESCRIPTION"))
            .skip(1)
            .find(|line| !line.is_empty())
            .unwrap();
        assert!(first.contains("Line number") || i + 1 == pages.len(), "page {} begins with {first:?}", i + 1);
    }
    let whole = pages.concat();
    for i in 0..60 {
        assert_eq!(whole.matches(&format!("Line number {i}.")).count(), 1);
    }
}

#[test]
fn text_of_others_is_text() {
    let hostile = [
        "<script>alert(1)</script>",
        "#panic(\"x\")",
        "*b* _i_ $x$ @ref <l>",
        "{{ 7 * 7 }} {% x %}",
        "\" onload=\"x",
        "a\\b // c",
    ];
    for word in hostile {
        let mut document = sample();
        document["customer"]["name"] = word.into();
        document["lines"][0]["description"] = word.into();
        document["notes"] = json!([word]);
        let page = text(&pdf(&document));
        assert!(page.matches(word).count() == 3, "{word:?} is not there as it is:\n{page}");
        let mail = html(&document);
        assert!(!mail.contains("<script") && !mail.contains("\" onload") && !mail.contains("49 "), "{mail}");
    }
    assert!(html(&json!({"kind": "invoice", "status": "draft", "currency": "USD", "seller": {"name": "a&b"}, "customer": {"name": "<b>"},
        "totals": {"subtotal": "0", "total": "0", "due": "0"}}))
    .contains("&lt;b&gt;"));
}

#[test]
fn names_in_many_scripts_are_drawn() {
    for name in ["株式会社サンプル", "北京示例有限公司", "한국전자", "Ελληνικά", "Київстар", "Đặng", "ทดสอบ", "हिन्दी"]
    {
        let mut document = sample();
        document["customer"]["name"] = name.into();
        let bytes = pdf(&document);
        assert!(text(&bytes).contains(name), "{name} is not in:\n{}", text(&bytes));
    }
    // From right to left poppler's order of letters is its own; the font tells that they were drawn.
    for (name, font) in [("شركة المثال", "NotoSansArabic"), ("שלום", "NotoSansHebrew")] {
        let mut document = sample();
        document["customer"]["name"] = name.into();
        assert!(poppler("pdffonts", &["-"], &pdf(&document)).contains(font), "{name}");
    }
}

#[test]
fn kinds_and_states_look_different() {
    let mut note = sample();
    (note["kind"], note["number"], note["original_number"]) =
        (json!("credit_note"), json!("CN-7"), json!("INV-2026-0042"));
    (note["currency"], note["totals"]["total"]) = (json!("KWD"), json!("-12.500"));
    let page = text(&pdf(&note));
    assert!(
        page.contains("Credit note") && page.contains("KWD \u{2212}12.500") && page.contains("Amount credited"),
        "{page}"
    );
    assert!(!page.contains("Amount due"), "{page}");
    for (status, word) in [("draft", "DRAFT"), ("void", "VOID"), ("paid", "PAID")] {
        let mut document = sample();
        document["status"] = status.into();
        assert!(text(&pdf(&document)).contains(word));
        assert!(html(&document).to_uppercase().contains(word));
        assert!(!text(&pdf(&sample())).contains(word));
    }
    // Words in another language, and the least that is a document.
    let least = json!({"kind": "invoice", "status": "draft", "currency": "JPY", "seller": {"name": "S"}, "customer": {"name": "C"},
        "totals": {"subtotal": "0", "total": "0", "due": "1,235"}, "labels": {"invoice": "Rechnung"}});
    assert!(text(&pdf(&least)).contains("Rechnung") && text(&pdf(&least)).contains("JPY 1,235"));
    assert!(html(&least).contains("Rechnung"));
}

#[test]
fn a_logo_is_drawn_from_the_document_and_nothing_is_fetched() {
    let mut document = sample();
    document["seller"]["logo"] =
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==".into();
    assert!(poppler("pdfimages", &["-list", "-"], &pdf(&document)).lines().count() > 2);
    assert!(shown(html(&document)).contains("<img src=\"data:image/png;base64,"));
    for logo in
        ["https://example.com/logo.png", "file:///etc/passwd", "data:text/html;base64,AAAA", "data:image/png;base64,%%"]
    {
        document["seller"]["logo"] = logo.into();
        let Err(Fails::Fault(fault)) = limited("pdf", &document, None, 30) else { panic!("{logo} was taken") };
        assert_eq!(fault["about"], "document");
    }
    let mail = html(&sample());
    for outside in ["http:", "https:", "src=", "<script", "<link", "@import", "url("] {
        assert!(!mail.contains(outside), "{outside} is in the HTML");
    }
}

#[test]
fn templates_reach_nothing() {
    for template in [
        "#read(\"/etc/passwd\")",
        "#image(\"/etc/hostname\")",
        "#import \"@preview/cetz:0.3.4\"",
        "#include \"other.typ\"",
    ] {
        let (about, detail) = fault("pdf", template);
        assert!(
            about == "template" && ["there is no", "no packages", "escape"].iter().any(|why| detail.contains(why)),
            "{template}: {detail}"
        );
    }
    for template in
        ["{% include \"/etc/passwd\" %}", "{% extends \"../Cargo.toml\" %}", "{% import \"template.typ\" as x %}"]
    {
        assert_eq!(fault("html", template).0, "template", "{template}");
    }
    // What would switch off escaping is not there.
    assert!(["syntax", "template"].contains(&fault("html", "{{ document.customer.name|safe }}").0.as_str()));
}

#[test]
fn faults_name_their_place() {
    let expected = [
        ("pdf", "= Title\n#let x = (", "syntax", "Line 2, column 10: "),
        ("pdf", "#let doc = json(\"document.json\")\n#doc.nothing", "template", "Line 2, column 6: "),
        ("pdf", "#import \"invoice.typ\": invoice\n#invoice((:))", "template", "From line 2, column 2."),
        ("html", "a\nb {{ document.number", "syntax", "Line 2: "),
        ("html", "a\n\n{{ document.nothing }}", "template", "Line 3: "),
        (
            "html",
            "{% extends \"invoice.html\" %}\n{% block footer %}{{ nothing }}{% endblock %}",
            "template",
            "Line 2: ",
        ),
    ];
    for (format, template, about, place) in expected {
        let found = fault(format, template);
        assert!(found.0 == about && found.1.contains(place), "{template}: {found:?}");
    }
}

#[test]
fn templates_that_never_end_are_ended() {
    let greedy = [
        ("pdf", "#while true {}"),
        ("pdf", "#let f(x) = f(x + 1)\n#f(0)"),
        ("pdf", "#for a in range(100000) { for b in range(100000) { for c in range(100000) { let x = a + b + c } } }"),
        ("pdf", "#{ let x = \"aaaaaaaa\"; for i in range(60) { x = x + x }; x }"),
        ("pdf", "#{ let x = (1,) * 100000000000; x.len() }"),
        ("html", "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}"),
        (
            "html",
            "{% set n = namespace(x=\"aaaaaaaa\") %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        ),
        ("html", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    ];
    for (format, template) in greedy {
        let start = Instant::now();
        match limited(format, &sample(), Some(template), 2) {
            Ok(_) => panic!("{template} was rendered"),
            Err(Fails::Fault(fault)) => assert_ne!(fault["about"], "document", "{template}: {fault}"),
            Err(Fails::Signal(signal)) => assert!([6, 9, 24].contains(&signal), "{template}: signal {signal}"),
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{template} took {:?}", start.elapsed());
    }
}

#[test]
fn tenants_templates_can_begin_with_the_built_in_one() {
    let template = "#import \"invoice.typ\": invoice\n#invoice(json(\"document.json\"), accent: rgb(\"#7a1f3d\"), labels: (invoice: \"Facture\"), footer: [RCS 123])";
    let page = text(&limited("pdf", &sample(), Some(template), 30).unwrap());
    assert!(page.contains("Facture") && page.contains("RCS 123") && page.contains("321.00"), "{page}");
    let template = "{% set accent = \"#7a1f3d\" %}{% set words = {\"invoice\": \"Facture\"} %}{% extends \"invoice.html\" %}\n{% block footer %}RCS 123{% endblock %}";
    let mail = String::from_utf8(limited("html", &sample(), Some(template), 30).unwrap()).unwrap();
    assert!(
        mail.contains("Facture") && mail.contains("RCS 123") && mail.contains("#7a1f3d") && mail.contains("321.00"),
        "{mail}"
    );
}

#[test]
fn documents_that_are_none_say_where() {
    let mut cases: Vec<(Value, &str)> = vec![(json!([]), "the document itself"), (json!({}), "the document itself")];
    let mut change = |path: &str, value: Value, place: &'static str| {
        let mut document = sample();
        *document.pointer_mut(path).unwrap() = value;
        cases.push((document, place));
    };
    change("/kind", json!("bill"), "\"kind\"");
    change("/lines/1/amount", json!(186.8), "\"lines[1].amount\"");
    change("/lines/1/details/2/description", Value::Null, "\"lines[1].details[2].description\"");
    change("/totals/due", json!({}), "\"totals.due\"");
    change("/customer/address", json!("1 Riverside Walk"), "\"customer.address\"");
    for (document, place) in cases {
        let Err(Fails::Fault(fault)) = limited("html", &document, None, 30) else { panic!("{document} was taken") };
        assert_eq!(fault["about"], "document");
        assert!(fault["detail"].as_str().unwrap().contains(place), "{fault}");
    }
}
