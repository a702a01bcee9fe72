//! A dump restores to a database that goes on where the first one was: same usage, same keys, same meters.

use std::process::Stdio;

use postgres::Client;

use crate::event::{Event, Shape, array};
use crate::rng::{Announce, Rng, seed};
use crate::server::{Server, assert_verified, ingest, now, one, quietly, rows, run, until};

const DAY: i64 = 86_400_000_000;

const METERS: &str = "
    INSERT INTO meterflow.meters (key, event_name, aggregation, property, filters, dimensions, percentile, bucket_size, approximate) VALUES
      ('events', 'call', 'count', NULL, '{}', '{}', NULL, NULL, false),
      ('units', 'call', 'sum', 'units', '{}', '{model}', NULL, NULL, false),
      ('units_m1', 'call', 'sum', 'units', '{\"model\":\"m1\"}', '{}', NULL, NULL, false),
      ('mean', 'call', 'avg', 'units', '{}', '{}', NULL, NULL, false),
      ('lowest', 'call', 'min', 'units', '{}', '{}', NULL, NULL, false),
      ('highest', 'call', 'max', 'units', '{}', '{model}', NULL, NULL, false),
      ('latest', 'call', 'latest', 'units', '{}', '{}', NULL, NULL, false),
      ('users', 'call', 'unique_count', 'user', '{}', '{}', NULL, NULL, false),
      ('users_approx', 'call', 'unique_count', 'user', '{}', '{}', NULL, NULL, true),
      ('level', 'call', 'weighted_sum', 'units', '{}', '{}', NULL, NULL, false),
      ('p90', 'call', 'percentile', 'units', '{}', '{}', 0.9, NULL, false),
      ('peak', 'call', 'bucket_max', 'units', '{}', '{}', NULL, '15 min', false)";

/// Tables that must come back row by row.
const TABLES: [&str; 36] = [
    "events",
    "batches",
    "dedup_keys",
    "dedup_generations",
    "event_corrections",
    "rejected_events",
    "inbox",
    "meter_groups",
    "deltas",
    "rollups",
    "dirty_ranges",
    "meters",
    "meter_versions",
    "fold_state",
    "customers",
    "plans",
    "prices",
    "wallets",
    "wallet_transactions",
    "ledger_entries",
    "credit_grants",
    "recurring_grants",
    "holds",
    "wallet_totals",
    "top_up_rules",
    "top_up_requests",
    "outbox",
    "outbox_consumers",
    "outbox_deliveries",
    "alerts",
    "alert_states",
    "features",
    "entitlements",
    "entitlement_grants",
    "entitlement_resets",
    "document_templates",
];

fn events(rng: &mut Rng, prefix: &str, count: usize) -> Vec<Event> {
    (0..count)
        .map(|i| Event {
            id: format!("{prefix}-{i}"),
            source: if i % 3 == 0 { "sdk".to_string() } else { String::new() },
            customer: format!("customer {}", rng.range(0..5)),
            name: "call".to_string(),
            at: Some(now() - rng.range(0..9 * DAY)),
            properties: format!(
                "{{\"units\":{}.5,\"model\":\"m{}\",\"user\":\"u{}\"}}",
                rng.range(1..1000),
                rng.range(0..3),
                rng.range(0..90)
            ),
        })
        .collect()
}

fn json(events: &[Event]) -> String {
    array(events.iter().map(|event| event.json(Shape::Native)))
}

/// All that can be asked in short, as text.
fn usage(client: &mut Client) -> Vec<Vec<Option<String>>> {
    let mut all = Vec::new();
    for meter in rows(client, "SELECT key FROM meterflow.meters ORDER BY 1") {
        let meter = meter[0].clone().unwrap_or_default();
        for question in [
            "date_trunc('day', '@'::timestamptz) - interval '40 days', '@'::timestamptz + interval '1 day'",
            "'@'::timestamptz - interval '5 days 03:17', '@'::timestamptz - interval '00:11', window_size => 'day', timezone => 'Europe/Berlin'",
            "'@'::timestamptz - interval '40 days', '@', total => true, window_size => 'month'",
            "'@'::timestamptz - interval '20 days', '@', 'customer 1', group_by => '{model}'",
            "'@'::timestamptz - interval '30 hours', '@', 'customer 2', window_size => 'hour'",
        ] {
            let question = question.replace('@', &crate::event::time(asked_at()));
            all.extend(rows(
                client,
                &format!("SELECT '{meter}', * FROM meterflow.usage('{meter}', {question}) ORDER BY 2, 4, 5"),
            ));
        }
    }
    all
}

/// Both databases are asked for the same periods.
fn asked_at() -> i64 {
    static AT: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    *AT.get_or_init(now)
}

fn contents(client: &mut Client, table: &str) -> Vec<Vec<Option<String>>> {
    rows(client, &format!("SELECT t::text FROM meterflow.{table} t ORDER BY 1"))
}

struct Source {
    stored: Vec<Event>,
    waiting: Vec<Event>,
}

/// A database in the middle of its work.
fn fill(client: &mut Client, rng: &mut Rng) -> Source {
    run(client, METERS);
    run(
        client,
        "INSERT INTO meterflow.customers (id, name) VALUES ('customer 1', 'One');
         INSERT INTO meterflow.plans (key, name, currency) VALUES ('basic', 'Basic', 'EUR');
         INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('basic', 'units', '{\"model\":\"per_unit\",\"unit_amount\":\"0.01\"}');
         SELECT meterflow.top_up('customer 1', 100, 'EUR', 'first');
         INSERT INTO meterflow.features (key, kind, meter_key) VALUES ('units', 'metered', 'units'), ('sso', 'boolean', NULL);
         INSERT INTO meterflow.entitlements (feature_key, plan_key, amount) VALUES ('units', 'basic', 10);
         INSERT INTO meterflow.entitlements (feature_key, customer_id) VALUES ('sso', 'customer 1');
         SELECT meterflow.void_quota(meterflow.grant_quota('customer 1', 'units', 5, 'first'), 'a test');
         SELECT meterflow.reset_quota('customer 1', 'units', 'first')",
    );
    run(client, CREDIT);
    // As an earlier renderer may have taken it: what was kept comes back, even where nothing could render it.
    run(
        client,
        "SET row_security = off;
         INSERT INTO meterflow.document_templates (kind, body) VALUES ('html', '{% if %}');
         RESET row_security",
    );
    let mut stored = Vec::new();
    let mut generation = 1;
    for part in 0..4 {
        let batch = events(rng, &format!("part{part}"), 300);
        assert_eq!(ingest(client, &json(&batch)).expect("a sound batch").accepted, 300);
        stored.extend(batch);
        // Two steps to the next generation of keys; the last time only the first of them.
        let steps = if part == 3 { 1 } else { 2 };
        std::thread::sleep(std::time::Duration::from_millis(1100));
        for _ in 0..steps {
            assert_eq!(one(client, "SELECT meterflow.rotate_dedup()"), "t");
        }
        generation += 1;
        run(
            client,
            &format!(
                "SELECT meterflow.void_event('part{part}-1', 'a test'), meterflow.amend_event('part{part}-2', '{{\"properties\":{{\"units\":7,\"model\":\"m1\"}}}}', 'a test')"
            ),
        );
        if part < 2 {
            run(client, "SELECT meterflow.fold()");
        }
    }
    assert_eq!(one(client, "SELECT count(*) FROM meterflow.dedup_generations"), generation.to_string());
    run(client, "UPDATE meterflow.meters SET filters = '{\"model\":\"m2\"}' WHERE key = 'units_m1'");
    run(client, "UPDATE meterflow.meters SET archived_at = now() WHERE key = 'mean'");
    run(client, "INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('young', 'call', 'count')");
    let spoilt = "[{\"transaction_id\":\"x\"}, 5, {\"transaction_id\":\"y\",\"customer_id\":\"c\",\"event_name\":\"call\",\"properties\":{\"units\":\"many\"}}]";
    assert_eq!(ingest(client, spoilt).expect("a batch").failed.len(), 3);
    run(client, BILLED);
    let waiting = events(rng, "waiting", 20);
    for event in &waiting {
        client
            .execute("INSERT INTO meterflow.inbox (event) VALUES ($1)", &[&event.json(Shape::CloudEvents)])
            .expect("an INSERT");
    }
    for (what, sql) in [
        (
            "deltas to fold",
            "SELECT count(*) FROM meterflow.deltas d, meterflow.fold_state s WHERE d.batch > s.folded_batch",
        ),
        ("dirty ranges", "SELECT count(*) FROM meterflow.dirty_ranges"),
        ("rollups", "SELECT count(*) FROM meterflow.rollups"),
        ("rejected events", "SELECT count(*) FROM meterflow.rejected_events"),
        ("two generations to write", "SELECT count(*) FROM meterflow.engine WHERE cardinality(insert_generations) = 2"),
    ] {
        assert_ne!(one(client, sql), "0", "there are no {what}");
    }
    Source { stored, waiting }
}

#[test]
fn a_restored_dump_goes_on_where_it_was() {
    let seed = seed();
    let _announce = Announce(seed);
    let mut rng = Rng::new(seed, 0);
    // No workers: what is pending must still be so when it is compared.
    let server = Server::start(
        "restore",
        &["meterflow.workers=off", "meterflow.dedup_generation=1s", "meterflow.fold_interval=100ms"],
    );
    let place = server.place();
    let mut source = server.create_database("source");
    let sent = fill(&mut source, &mut rng);
    assert_verified(&mut source);
    let before = usage(&mut source);
    let dump = place.data.join("../source.dump");
    let plain = place.data.join("../source.sql");
    quietly(place.tool("pg_dump").args(["-Fc", "-d", "source", "-f"]).arg(&dump));
    quietly(place.tool("pg_dump").args(["-d", "source", "-f"]).arg(&plain));
    let counters = "SELECT name, value FROM meterflow.status() WHERE name IN ('accepted', 'duplicates', 'failed', 'pending batches', 'dirty ranges', 'rejected events kept', 'inbox waiting')";

    for target in ["custom", "plain", "working"] {
        eprintln!("restoring: {target}");
        // The worker waits until the restore is over, and then starts on what it finds.
        server.set(&[if target == "working" { "meterflow.workers = on" } else { "meterflow.workers = off" }]);
        run(&mut server.connect("postgres"), &format!("CREATE DATABASE {target}"));
        match target {
            "plain" => quietly(
                place
                    .tool("psql")
                    .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", target, "-f"])
                    .arg(&plain)
                    .stdout(Stdio::null()),
            ),
            _ => quietly(place.tool("pg_restore").args(["-d", target]).arg(&dump)),
        }
        let mut client = server.connect(target);
        if target != "working" {
            for table in TABLES {
                assert_eq!(contents(&mut client, table), contents(&mut source, table), "meterflow.{table}");
            }
            assert_eq!(rows(&mut client, counters), rows(&mut source, counters));
            assert_eq!(usage(&mut client), before);
            assert_verified(&mut client);
        }
        go_on(&mut client, &sent, &mut rng);
        bill(&mut client);
    }
}

/// Credit in all its states, and who is told of it.
const CREDIT: &str = r#"
    INSERT INTO meterflow.customers (id) VALUES ('purse');
    INSERT INTO meterflow.outbox_consumers (name) VALUES ('hooks');
    INSERT INTO meterflow.alerts (key, what, currency, warning) VALUES ('low', 'balance', 'EUR', 40);
    SELECT meterflow.top_up('purse', 50, 'EUR', 'purse 1'), meterflow.grant_credit('purse', 9, 'EUR', 'purse 2', expires_at => now() + interval '1 year');
    INSERT INTO meterflow.recurring_grants (wallet_id, amount, rollover_max, starts_at) SELECT id, 3, 2, now() - interval '40 days' FROM meterflow.wallets WHERE customer_id = 'purse';
    INSERT INTO meterflow.top_up_rules (wallet_id, threshold, amount) SELECT id, 60, 10 FROM meterflow.wallets WHERE customer_id = 'purse';
    SELECT meterflow.debit('purse', 20, 'EUR', 'purse 3');
    SELECT meterflow.refund(max(id), 'purse 4', 1) FROM meterflow.wallet_transactions WHERE kind = 'debit';
    SELECT meterflow.hold('purse', 7, 'EUR', '1 year', 'purse 5'), meterflow.hold('purse', 8, 'EUR', '1 year', 'purse 6');
    SELECT meterflow.capture(min(id), 5) FROM meterflow.holds;
    SELECT count(*) FROM meterflow.outbox_read('hooks', 2)"#;

/// Rows that name rows of their own table, or of tables that a dump may load later.
const BILLED: &str = r#"
    INSERT INTO meterflow.taxes (key, name, rate, is_default) VALUES ('vat', 'VAT', 20, true);
    INSERT INTO meterflow.customers (id, payer_id, taxes) VALUES ('head', NULL, '{vat}'), ('branch', 'head', NULL);
    INSERT INTO meterflow.plans (key, currency) VALUES ('monthly', 'EUR');
    INSERT INTO meterflow.plan_phases (plan_key, ordinal, name, duration) VALUES ('monthly', 1, 'first', '1 month');
    INSERT INTO meterflow.prices (plan_key, key, model, advance, phase, taxes) VALUES
        ('monthly', 'seat', '{"model": "per_unit", "unit_amount": "7"}', true, NULL, '{vat}'), ('monthly', 'welcome', '{"model": "flat", "amount": "1"}', true, 'first', NULL);
    INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at, quantities) VALUES ('branch', 'monthly', now() - interval '70 days', '{"seat": 3}');
    SELECT * FROM meterflow.bill_due(); SELECT * FROM meterflow.bill_due(); SELECT * FROM meterflow.bill_due(); SELECT * FROM meterflow.bill_due();
    SELECT meterflow.change_quantity(1, 'seat', 5, 'two more');
    SELECT meterflow.void_invoice(2, 'a test'), meterflow.regenerate_invoice(2, 'again');
    SELECT meterflow.record_payment(1, 5, 'paid'), meterflow.refund_payment(1, 2, 'given back'), meterflow.create_credit_note(3, 'note', 'a test')"#;

/// The next invoice has the next number, and charges what has changed.
fn bill(client: &mut Client) {
    let last = one(client, "SELECT max(sequence) FROM meterflow.invoices").parse::<i64>().expect("a number");
    let made = rows(client, "SELECT outcome FROM meterflow.bill_due(now() + interval '40 days')");
    assert!(made.iter().any(|row| row[0].as_deref() == Some("finalized")), "{made:?}");
    assert_eq!(
        one(client, "SELECT min(sequence) FROM meterflow.invoices WHERE issued_at > now()"),
        (last + 1).to_string()
    );
    assert_ne!(one(client, "SELECT count(*) FROM meterflow.invoice_lines WHERE kind = 'adjustment'"), "0");
    assert_eq!(
        one(client, "SELECT meterflow.change_quantity(1, 'seat', 5, 'two more') > 0"),
        "t",
        "keys are remembered"
    );
    assert_verified(client);
}

/// What a database must be able to do after it was restored.
fn go_on(client: &mut Client, sent: &Source, rng: &mut Rng) {
    until("the inbox is empty", || {
        let outcomes = rows(client, "SELECT job, outcome FROM meterflow.maintain() WHERE outcome LIKE 'error%'");
        assert!(outcomes.is_empty(), "maintain(): {outcomes:?}");
        one(client, "SELECT count(*) FROM meterflow.inbox") == "0"
    });
    assert_verified(client);
    let count =
        |client: &mut Client| one(client, "SELECT count(*) FROM meterflow.events").parse::<usize>().expect("a number");
    let stored = count(client);

    // Keys, of every generation, of events taken back, and of those that came by the inbox.
    for batch in [&sent.stored, &sent.waiting] {
        let again = ingest(client, &json(batch)).expect("a sound batch");
        assert_eq!(
            (again.accepted, again.duplicates as usize),
            (0, batch.len()),
            "events sent again: {:?}",
            again.failed
        );
    }
    let mut other = sent.stored[5].clone();
    other.customer = "another".to_string();
    let conflict = ingest(client, &json(&[other])).expect("a batch");
    assert_eq!(conflict.failed, [(0, "conflict".to_string())]);
    let spoilt = ingest(client, "[{\"transaction_id\":\"new\"}, {\"transaction_id\":\"x\"}, {}]").expect("a batch");
    assert_eq!(spoilt.failed.len(), 3);
    assert_eq!(count(client), stored);

    let new = events(rng, "new", 200);
    assert_eq!(ingest(client, &json(&new)).expect("a sound batch").accepted, 200);
    run(
        client,
        "SELECT meterflow.void_event('new-1', 'a test'), meterflow.void_event('part0-4', 'a test'), meterflow.amend_event('part1-5', '{\"customer_id\":\"customer 3\"}', 'a test')",
    );
    assert_verified(client);
    assert_eq!(
        one(
            client,
            "SELECT value FROM meterflow.usage('events', now() - interval '20 days', now() + interval '1 day', total => true)"
        ),
        one(
            client,
            "SELECT count(*) FROM meterflow.events e WHERE NOT EXISTS (SELECT FROM meterflow.event_corrections c WHERE c.seq = e.seq)"
        ),
    );
    assert_eq!(
        one(client, "SELECT count(*) <> count(DISTINCT seq) FROM meterflow.events"),
        "f",
        "arrival numbers are used once"
    );

    // A changed meter gets its next version, a new one an id of its own.
    run(client, "UPDATE meterflow.meters SET filters = '{}' WHERE key = 'units_m1'");
    run(client, "INSERT INTO meterflow.meters (key, event_name, aggregation) VALUES ('made_later', 'call', 'count')");
    assert_eq!(one(client, "SELECT version FROM meterflow.meters WHERE key = 'units_m1'"), "3");
    assert_eq!(
        one(
            client,
            "SELECT string_agg(version::text, ',' ORDER BY version) FROM meterflow.meter_versions WHERE meter_key = 'units_m1'"
        ),
        "1,2,3"
    );
    assert_eq!(one(client, "SELECT count(*) FROM meterflow.meter_versions WHERE meter_key = 'made_later'"), "1");
    let usage_before = usage(client);
    until("all is folded", || {
        run(client, "SELECT meterflow.fold()");
        one(
            client,
            "SELECT NOT EXISTS (SELECT FROM meterflow.dirty_ranges) AND (SELECT last_value FROM meterflow.batch_seq) = (SELECT folded_batch FROM meterflow.fold_state)",
        ) == "t"
    });
    assert_eq!(usage(client), usage_before);
    for _ in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(300));
        run(client, "SELECT meterflow.rotate_dedup()");
        let again = ingest(client, &json(&new)).expect("a sound batch");
        assert_eq!((again.accepted, again.duplicates), (0, 200), "keys rotate on");
    }
    run(
        client,
        "SELECT meterflow.top_up('customer 1', 50, 'EUR', 'second'), meterflow.top_up('customer 1', 100, 'EUR', 'first')",
    );
    assert_eq!(one(client, "SELECT balance::int FROM meterflow.wallet_balance('customer 1')"), "150");
    let before = one(client, "SELECT available FROM meterflow.wallet_balance('purse')");
    run(client, "SELECT meterflow.capture(max(id)) FROM meterflow.holds");
    assert_eq!(one(client, "SELECT available FROM meterflow.wallet_balance('purse')"), before, "it had been set aside");
    run(client, "SELECT meterflow.confirm_top_up(max(id)) FROM meterflow.top_up_requests");
    assert_eq!(one(client, &format!("SELECT available - {before} FROM meterflow.wallet_balance('purse')")), "10.00");
    assert_verified(client);
}
