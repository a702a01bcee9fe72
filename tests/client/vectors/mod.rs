//! What the tests of other systems expect of usage: each case of ../shared/vectors/aggregation.json goes through a
//! meter, ingest and usage(). It agrees, or it stands in tests/vectors/aggregation.md with both answers and our reason;
//! a row there that differs in nothing, or says what isn't so, fails as well.
//!
//! How a case is translated, the same for all:
//! - A tenant each. Its meter has the case's filters and groups as filters and dimensions; a second meter has neither
//!   and gets them with the question. Both must say the same, before a fold and after it.
//! - A subject is a customer; without one there is a single customer. A value is asked of all customers as one.
//! - Lago ends a period at 23:59:59(.999), included: that is our midnight after it. A recurring metric begins with the
//!   first event; what was before the period (initial value, prior events) is sent as events of that time.
//! - A case without a period is asked for that of its expected rows, else for all time.
//! - flexprice's window with one value is a meter with buckets.
//! - events_count is what a count of the events that have the property says.

mod balance;
mod case;

use postgres::Client;
use serde_json::{Map, Value, json};

use case::{Case, TIME, array, name_of, shown_time, text_of};

use crate::peers::{self, Comparison, Facts};
use crate::server::{Server, one, quote, rows, run, shown, try_rows};

#[test]
fn peers() {
    let Some(cases) = peers::cases("aggregation.json") else { return };
    let server = Server::start("vectors", &["meterflow.backdate_window=20000d", "meterflow.hour_rollup_days=0"]);
    let mut client = server.create_database("vectors");

    let mut sent = Vec::new();
    for case in &cases {
        let case = Case(case);
        run(&mut client, &format!("SET meterflow.tenant = {}", quote(case.id())));
        sent.push(send(&mut client, &case));
    }
    let unfolded = answers(&mut client, &cases, &sent);
    run(&mut client, "SELECT meterflow.pause_worker()");
    let jobs =
        rows(&mut client, "SELECT * FROM meterflow.maintain() WHERE outcome NOT LIKE 'ok%' OR outcome LIKE '%more%'");
    assert!(jobs.is_empty(), "{jobs:?}");
    let folded = answers(&mut client, &cases, &sent);
    for (case, (before, after)) in cases.iter().zip(unfolded.iter().zip(&folded)) {
        assert_eq!(before, after, "{}: another answer after the fold", Case(case).id());
    }
    let mut compared = Comparison::by("aggregation.md");
    for (case, ours) in cases.iter().map(Case).zip(&folded) {
        let theirs = case.expected(&mut client);
        let refused_as_wanted = theirs.0.contains_key("error") && ours.0.contains_key("refused");
        compared.case(case.id(), refused_as_wanted || theirs == *ours, &summary(&theirs), &summary(ours));
    }
    compared.finish("usages");
}

fn summary(answer: &Facts) -> String {
    match answer.0.len() {
        0 => "no rows".to_string(),
        ..5 => answer.to_string(),
        many => format!("{many} values"),
    }
}

/// Makes the meters and sends the events; what was refused, if that is the answer.
fn send(client: &mut Client, case: &Case<'_>) -> Option<Facts> {
    let mut refused = Facts::default();
    let (filters, groups) = (case.filters().to_string(), case.groups());
    let sql = |text: Option<&str>| text.map_or("NULL".to_string(), quote);
    let aggregation =
        case.bucket().map_or(case.aggregation().to_string(), |_| format!("bucket_{}", case.aggregation()));
    let bucket = case.bucket().map(|size| format!("1 {size}"));
    for (key, filters, groups) in [("m", filters.as_str(), groups.as_slice()), ("bare", "{}", &[])] {
        let meter = format!(
            "INSERT INTO meterflow.meters (key, event_name, aggregation, property, filters, dimensions, multiplier, bucket_size) VALUES ({}, 'event', {}, {}, {}, {}, {}, {})",
            quote(key),
            quote(&aggregation),
            sql(case.field()),
            quote(filters),
            array(groups),
            sql(case.text("multiplier")),
            sql(bucket.as_deref()),
        );
        if let Err(error) = try_rows(client, &meter) {
            assert!(shown(&error).contains("is unknown; write one of"), "{}: {}", case.id(), shown(&error));
            refused.add("refused", "no such aggregation");
            return Some(refused);
        }
    }
    let mut counted: Map<String, Value> = serde_json::from_str(&filters).expect("an object");
    if let Some(field) = case.text("field").filter(|_| case.aggregation() != "count") {
        counted.insert(field.to_string(), json!({ "exists": true }));
    }
    run(
        client,
        &format!(
            "INSERT INTO meterflow.meters (key, event_name, aggregation, filters) VALUES ('events', 'event', 'count', {})",
            quote(&Value::from(counted).to_string())
        ),
    );

    let before = case.0.get("initial_value").map(|value| {
        let at = one(client, &format!("SELECT to_json({} - interval '1 second')#>>'{{}}'", case.period().0));
        json!({ "timestamp": at, "properties": { case.field().unwrap_or_default(): value } })
    });
    let events: Vec<Value> = before
        .iter()
        .chain(case.list("prior_events"))
        .chain(case.list("events"))
        .enumerate()
        .map(|(i, event)| event_of(case, i, event))
        .collect();
    let failed = rows(
        client,
        &format!(
            "SELECT DISTINCT f->>'code' FROM meterflow.ingest({}), jsonb_array_elements(failed) AS f ORDER BY 1",
            quote(&Value::from(events).to_string())
        ),
    );
    // A second event of one key counts no more than a duplicate does.
    let codes: Vec<String> =
        failed.into_iter().filter_map(|mut row| row.remove(0)).filter(|code| code != "conflict").collect();
    if codes.is_empty() {
        return None;
    }
    refused.add("refused", codes.join(" "));
    Some(refused)
}

fn event_of(case: &Case<'_>, i: usize, event: &Value) -> Value {
    let mut sent = json!({ "transaction_id": format!("event {i}"), "customer_id": "customer", "event_name": "event" });
    for (name, value) in event.as_object().expect("an event") {
        match name.as_str() {
            "subject" => sent["customer_id"] = value.clone(),
            "stored_at" => {} // the server's own to say
            "unique_value" => {}
            "properties" if event.get("data").is_some() => {}
            _ => sent[name] = value.clone(),
        }
    }
    if let Some(value) = event.get("unique_value") {
        sent["properties"][case.field().unwrap_or_default()] = value.clone();
    }
    sent
}

fn answers(client: &mut Client, cases: &[Value], sent: &[Option<Facts>]) -> Vec<Facts> {
    let mut answers = Vec::new();
    for (case, refused) in cases.iter().zip(sent) {
        let case = Case(case);
        run(client, &format!("SET meterflow.tenant = {}", quote(case.id())));
        answers.push(refused.clone().unwrap_or_else(|| {
            let configured = answer(client, &case, "m");
            let asked = answer(client, &case, "bare");
            assert_eq!(configured, asked, "{}: filters and groups of the meter, and of the question", case.id());
            configured
        }));
    }
    answers
}

/// What we say to all that the case expects.
fn answer(client: &mut Client, case: &Case<'_>, meter: &str) -> Facts {
    let mut facts = Facts::default();
    let (from, to) = case.period();
    let groups = case.groups();
    let question = |client: &mut Client,
                    meter: &str,
                    windows: bool,
                    total: bool,
                    grouped: bool,
                    digits: Option<u32>|
     -> Vec<Vec<Option<String>>> {
        let value = digits.map_or("value".to_string(), |digits| format!("round(value, {digits})"));
        let window = case.text("window").filter(|_| windows).map_or("NULL".to_string(), quote);
        let filters = if meter == "bare" { quote(&case.filters().to_string()) } else { "NULL".to_string() };
        let by = if grouped { array(&groups) } else { "NULL".to_string() };
        let subjects = case.0["filters"]["subject"].as_array();
        let customers =
            subjects.map_or(vec!["NULL".to_string()], |names| names.iter().map(|name| quote(&text_of(name))).collect());
        let sql = |customer: &String| {
            format!(
                "SELECT {}, {}, customer_id, group_key::text, trim_scale({value})::text FROM meterflow.usage({}, {from}, {to}, {customer}, {window}, {by}, {filters}, {}, {total}) WITH ORDINALITY ORDER BY ordinality",
                TIME.replace('$', "window_start"),
                TIME.replace('$', "window_end"),
                quote(meter),
                quote(case.text("timezone").unwrap_or("UTC")),
            )
        };
        customers.iter().flat_map(|customer| rows(client, &sql(customer))).collect()
    };
    let by = |row: &[Option<String>]| -> Option<Map<String, Value>> {
        row[3].as_deref().map(|text| serde_json::from_str(text).expect("a group is an object"))
    };
    let value = |row: &[Option<String>]| row[4].clone().unwrap_or_else(|| "null".to_string());
    let expected = case.0["expected"].as_object().expect("what is expected");
    let together = !case.by_customer() && case.customers().len() > 1;
    for key in expected.keys() {
        match key.as_str() {
            "value" | "value_rounded_5" | "value_rounded_3" => {
                let (_, digits) = Case::rounded(&case.0["expected"]);
                let grouped = expected.contains_key("group_by");
                for row in question(client, meter, false, true, grouped, digits) {
                    facts.add(
                        if grouped { name_of(by(&row).as_ref(), &groups) } else { "value".to_string() },
                        value(&row),
                    );
                }
            }
            "value_string" | "groups" => {
                let (_, digits) =
                    expected[key].as_array().and_then(|groups| groups.first()).map_or(("value", None), Case::rounded);
                for row in question(client, meter, false, true, true, digits) {
                    facts.add(name_of(by(&row).as_ref(), &groups), value(&row));
                }
            }
            "error" => {
                for row in question(client, meter, false, true, false, None) {
                    facts.add("value", value(&row));
                }
            }
            "events_count" => {
                for row in question(client, "events", false, true, false, None) {
                    facts.add("events", value(&row));
                }
            }
            "rows" => {
                for row in question(client, meter, true, together, false, None) {
                    let customer = row[2]
                        .as_deref()
                        .filter(|_| case.by_customer())
                        .map(|name| format!("{name} "))
                        .unwrap_or_default();
                    facts.add(format!("{customer}{} to {}", shown_time(&row[0]), shown_time(&row[1])), value(&row));
                }
            }
            "row_count" | "windows_contiguous" | "row_index_3" => {
                let rows = question(client, meter, true, together, false, None);
                match key.as_str() {
                    "row_count" => facts.add("rows", rows.len().to_string()),
                    "windows_contiguous" => {
                        facts.add("contiguous", rows.windows(2).all(|pair| pair[0][1] == pair[1][0]).to_string())
                    }
                    _ => facts.add(
                        "row 3",
                        rows.get(3)
                            .map_or(String::new(), |row| format!("{} to {}", shown_time(&row[0]), shown_time(&row[1]))),
                    ),
                }
            }
            _ => {}
        }
    }
    facts
}
