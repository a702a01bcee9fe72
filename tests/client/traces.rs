//! Two hours of real requests to large language models (../shared/data) through both doors: the totals are known, and
//! sending them again adds nothing.

use std::collections::BTreeMap;
use std::io::Write;

use postgres::Client;

use crate::event::{Event, array};
use crate::server::{Server, assert_verified, ingest, one, project, rows, run, until};

/// File, events, context tokens, generated tokens.
const TRACES: [(&str, i64, i64, i64); 2] =
    [("azure_llm_code.csv", 8_819, 18_059_974, 245_896), ("azure_llm_conv.csv", 19_366, 22_361_870, 4_088_665)];

struct Request {
    id: String,
    customer: String,
    /// As in the file, with the T and Z of RFC 3339: seven decimals.
    time: String,
    context: i64,
    generated: i64,
}

impl Request {
    fn json(&self) -> String {
        let properties = format!("{{\"context_tokens\":{},\"generated_tokens\":{}}}", self.context, self.generated);
        let event = Event {
            id: self.id.clone(),
            source: "azure".into(),
            customer: self.customer.clone(),
            name: "llm_request".into(),
            at: None,
            properties,
        };
        let json = event.json(crate::event::Shape::Native);
        format!("{},\"timestamp\":\"{}\"}}", &json[..json.len() - 1], self.time)
    }
}

fn read(name: &str) -> Option<Vec<Request>> {
    let text = std::fs::read_to_string(project().join("../shared/data").join(name)).ok()?;
    let requests = text.lines().skip(1).enumerate().map(|(row, line)| {
        let mut fields = line.trim().split(',');
        let mut field = || fields.next().expect("three columns");
        Request {
            id: format!("{name}:{row}"),
            customer: format!("customer {}", row % 7),
            time: field().replace(' ', "T") + "Z",
            context: field().parse().expect("a number"),
            generated: field().parse().expect("a number"),
        }
    });
    Some(requests.collect())
}

#[test]
fn real_traces_sum_up_to_what_is_known() {
    let mut requests = Vec::new();
    for (name, ..) in TRACES {
        let Some(found) = read(name) else {
            eprintln!("SKIPPED: ../shared/data/{name} is not there");
            return;
        };
        requests.extend(found);
    }
    // The requests are of November 2023.
    let server = Server::start("traces", &["meterflow.backdate_window=20000d", "meterflow.fold_interval=100ms"]);

    let mut client = prepare(&server, "by_ingest");
    send(&mut client, &requests, requests.len());
    compare(&mut client, &requests);
    send(&mut client, &requests, 0);
    compare(&mut client, &requests);
    assert_verified(&mut client);

    let mut client = prepare(&server, "by_inbox");
    copy(&mut client, &requests);
    compare(&mut client, &requests);
    copy(&mut client, &requests);
    compare(&mut client, &requests);
    assert_eq!(one(&mut client, "SELECT count(*) FROM meterflow.rejected_events"), "0");
    assert_verified(&mut client);
}

fn prepare(server: &Server, database: &str) -> Client {
    let mut client = server.create_database(database);
    run(
        &mut client,
        "INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES
           ('requests', 'llm_request', 'count', NULL),
           ('context', 'llm_request', 'sum', 'context_tokens'),
           ('generated', 'llm_request', 'sum', 'generated_tokens')",
    );
    client
}

fn send(client: &mut Client, requests: &[Request], new: usize) {
    let mut accepted = 0;
    for batch in requests.chunks(1000) {
        let outcome = ingest(client, &array(batch.iter().map(Request::json))).expect("a sound batch");
        assert_eq!(outcome.failed, []);
        accepted += outcome.accepted as usize;
    }
    assert_eq!(accepted, new);
}

fn copy(client: &mut Client, requests: &[Request]) {
    let mut copy = client.copy_in("COPY meterflow.inbox (event) FROM STDIN").expect("a COPY");
    for request in requests {
        writeln!(copy, "{}", request.json()).expect("a COPY takes it");
    }
    assert_eq!(copy.finish().expect("a sound COPY"), requests.len() as u64);
    until("the inbox is empty", || {
        run(client, "SELECT * FROM meterflow.maintain()");
        one(client, "SELECT count(*) FROM meterflow.inbox") == "0"
    });
}

fn compare(client: &mut Client, requests: &[Request]) {
    for (name, events, context, generated) in TRACES {
        let of_file = |request: &&Request| request.id.starts_with(name);
        assert_eq!(requests.iter().filter(of_file).count() as i64, events, "{name}");
        assert_eq!(requests.iter().filter(of_file).map(|request| request.context).sum::<i64>(), context, "{name}");
        assert_eq!(requests.iter().filter(of_file).map(|request| request.generated).sum::<i64>(), generated, "{name}");
    }
    let sum = |part: fn(&(&str, i64, i64, i64)) -> i64| TRACES.iter().map(part).sum::<i64>().to_string();
    let known =
        [("requests", sum(|trace| trace.1)), ("context", sum(|trace| trace.2)), ("generated", sum(|trace| trace.3))];
    let value: [fn(&Request) -> i64; 3] = [|_| 1, |request| request.context, |request| request.generated];
    for ((meter, known), value) in known.into_iter().zip(value) {
        for period in
            ["'2023-11-16', '2023-11-17'", "'2023-11-01', '2023-12-01'", "'2023-11-16 18:15:46', '2023-11-16 19:14:20'"]
        {
            let usage = |more: &str| format!("FROM meterflow.usage('{meter}', {period}, {more})");
            assert_eq!(
                one(client, &format!("SELECT value::bigint {}", usage("total => true"))),
                known,
                "{meter}, {period}"
            );
            assert_eq!(
                one(client, &format!("SELECT sum(value)::bigint {}", usage("NULL"))),
                known,
                "{meter}, {period}"
            );
        }
        for (window, length) in [("minute", "2023-11-16T18:17".len()), ("hour", "2023-11-16T18".len())] {
            let mut expected: BTreeMap<(String, String), i64> = BTreeMap::new();
            for request in requests {
                *expected.entry((request.customer.clone(), request.time[..length].to_string())).or_default() +=
                    value(request);
            }
            let format = if window == "minute" { "YYYY-MM-DD\"T\"HH24:MI" } else { "YYYY-MM-DD\"T\"HH24" };
            let sql = format!(
                "SELECT customer_id, to_char(window_start, '{format}'), value::bigint \
                   FROM meterflow.usage('{meter}', '2023-11-16 18:00', '2023-11-16 20:00', window_size => '{window}') WHERE value <> 0"
            );
            let found: BTreeMap<(String, String), i64> = rows(client, &sql)
                .into_iter()
                .map(|row| {
                    let [customer, start, value] =
                        <[Option<String>; 3]>::try_from(row).expect("three columns").map(Option::unwrap);
                    ((customer, start), value.parse().expect("a number"))
                })
                .collect();
            // A request may have measured nothing.
            expected.retain(|_, value| *value != 0);
            assert_eq!(found, expected, "{meter} by {window}");
        }
    }
}
