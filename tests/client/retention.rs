//! What is dropped, and what is forgotten, must not change an answer: not that of a snapshot from before, not one
//! that a correction touches at the same moment, and not when settings are narrowed.

use std::thread::sleep;
use std::time::Duration;

use postgres::Client;
use postgres::error::SqlState;

use crate::event::{Event, Shape, array};
use crate::rng::rounds;
use crate::server::{Server, assert_verified, has_code, ingest, now, one, rows, run, shown, try_rows, until};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

fn event(id: &str, at: i64, value: i64) -> Event {
    Event {
        id: id.to_string(),
        source: String::new(),
        customer: "acme".to_string(),
        name: "call".to_string(),
        at: Some(at),
        properties: format!("{{\"v\":{value}}}"),
    }
}

/// Events on each of the last days, at noon, ten minutes later, and at three: 267.
fn fill(client: &mut Client) {
    run(
        client,
        "INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('events', 'call', 'count', NULL), ('highest', 'call', 'max', 'v'), ('archived', 'call', 'count', NULL)",
    );
    let midnight = now() - now().rem_euclid(DAY);
    let events = (1..90).flat_map(|day| {
        let start = midnight - day * DAY;
        [
            event(&format!("noon{day}"), start + 12 * HOUR, 100 + day),
            event(&format!("later{day}"), start + 12 * HOUR + HOUR / 6, 1),
            event(&format!("three{day}"), start + 15 * HOUR, day),
        ]
    });
    let outcome = ingest(client, &array(events.map(|event| event.json(Shape::Native)))).expect("a sound batch");
    assert_eq!(outcome.accepted, 267, "{outcome:?}");
    fold(client);
}

fn fold(client: &mut Client) {
    until("all is folded", || {
        run(client, "SELECT meterflow.fold()");
        one(
            client,
            "SELECT NOT EXISTS (SELECT FROM meterflow.dirty_ranges) AND (SELECT last_value FROM meterflow.batch_seq) = (SELECT folded_batch FROM meterflow.fold_state)",
        ) == "t"
    });
}

fn start(name: &str) -> (Server, Client) {
    // No workers: each step is taken when the test says so.
    let server = Server::start(
        name,
        &["meterflow.workers=off", "meterflow.backdate_window=100d", "max_locks_per_transaction=256"],
    );
    let mut client = server.create_database("retention");
    fill(&mut client);
    (server, client)
}

/// Takes all steps of retention, however many calls they need.
fn retain(client: &mut Client) {
    for _ in 0..5 {
        run(client, "SELECT meterflow.apply_retention()");
    }
}

const ALL_EVENTS: &str = "SELECT value FROM meterflow.usage('events', date_trunc('day', now(), 'UTC') - interval '100 days', now(), total => true)";
/// The edges of this period are inside an hour: only raw events tell.
const SOME_EVENTS: &str = "SELECT value FROM meterflow.usage('events', date_trunc('day', now(), 'UTC') - interval '60 days' + interval '12:00:01', date_trunc('day', now(), 'UTC') - interval '50 days' + interval '12:00:01', total => true)";

#[test]
fn a_snapshot_from_before_a_drop_answers_as_before_or_says_that_it_can_not() {
    let (server, mut client) = start("dropped");
    let mut reader = server.connect("retention");
    run(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    run(&mut reader, "SELECT count(*) FROM meterflow.meters");
    server.set(&["meterflow.backdate_window = '1d'", "meterflow.retention_days = 10"]);
    run(&mut client, "SET lock_timeout = '1s'");
    for _ in 0..5 {
        // It may have to wait until the snapshot is gone.
        if let Err(error) = try_rows(&mut client, "SELECT meterflow.apply_retention()") {
            assert!(has_code(&error, &SqlState::LOCK_NOT_AVAILABLE), "{}", shown(&error));
        }
    }
    match try_rows(&mut reader, SOME_EVENTS) {
        Ok(rows) => assert_eq!(
            rows[0][0].as_deref(),
            Some("30"),
            "ten days of three events, from after one noon to just after another"
        ),
        Err(error) => assert!(
            has_code(&error, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
                || has_code(&error, &SqlState::T_R_SERIALIZATION_FAILURE),
            "{}",
            shown(&error)
        ),
    }
    let _ = try_rows(&mut reader, "ROLLBACK");
    retain(&mut client);
    assert_eq!(one(&mut client, "SELECT count(*) < 30 FROM meterflow.event_partitions()"), "t");
    assert_eq!(one(&mut client, ALL_EVENTS), "267");
    let error = try_rows(&mut client, SOME_EVENTS).expect_err("the raw events are gone");
    assert!(has_code(&error, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{}", shown(&error));
    assert_verified(&mut client);
}

/// A correction that is under way when its hour is dropped.
fn correct_while(name: &str, settings: &[&str]) {
    let (server, mut client) = start(name);
    server.set(settings);
    let mut corrector = server.connect("retention");
    run(&mut corrector, "BEGIN");
    run(&mut corrector, "SELECT meterflow.void_event('noon60', 'a test')");
    let other = server.clone();
    let retention = std::thread::spawn(move || retain(&mut other.connect("retention")));
    sleep(Duration::from_millis(1500));
    run(&mut corrector, "COMMIT");
    retention.join().expect("retention waits for what is under way, and goes on");
    retain(&mut client);
    fold(&mut client);
    retain(&mut client);
    let day = |n: i64| format!("date_trunc('day', now(), 'UTC') - interval '{n} days'");
    let value = |client: &mut Client, meter: &str| {
        one(client, &format!("SELECT value FROM meterflow.usage('{meter}', {}, {}, total => true)", day(60), day(59)))
    };
    assert_eq!(value(&mut client, "events"), "2", "two of the three events of that day are left");
    assert_eq!(value(&mut client, "highest"), "60", "the highest of that day is that of three o'clock");
    assert_eq!(one(&mut client, ALL_EVENTS), "266");
    assert_verified(&mut client);
}

#[test]
fn a_correction_under_way_outlives_the_drop_of_its_partition() {
    correct_while("corrected", &["meterflow.backdate_window = '1d'", "meterflow.retention_days = 10"]);
}

#[test]
fn a_correction_under_way_outlives_downsampling() {
    correct_while("downsampled", &["meterflow.backdate_window = '1d'", "meterflow.hour_rollup_days = 10"]);
}

#[test]
fn a_meter_archived_in_a_downsampled_past_keeps_what_came_before() {
    let (server, mut client) = start("archived");
    server.set(&[
        "meterflow.backdate_window = '1d'",
        "meterflow.hour_rollup_days = 10",
        "meterflow.day_rollup_days = 40",
    ]);
    retain(&mut client);
    run(
        &mut client,
        "UPDATE meterflow.meters SET archived_at = date_trunc('day', now(), 'UTC') - interval '60 days' + interval '14 hours' WHERE key = 'archived'",
    );
    let counted = "SELECT value FROM meterflow.usage('archived', date_trunc('month', now(), 'UTC') - interval '8 months', now(), total => true)";
    assert_eq!(one(&mut client, counted), "89", "all of 29 days, and two of the last");
    fold(&mut client);
    assert_eq!(one(&mut client, counted), "89", "and when it is folded");
    run(&mut client, "UPDATE meterflow.meters SET archived_at = NULL WHERE key = 'archived'");
    assert_eq!(one(&mut client, counted), "267", "as if it had not been archived");
    fold(&mut client);
    assert_eq!(one(&mut client, counted), "267", "and when that is folded");
    assert_verified(&mut client);
}

#[test]
fn a_meter_made_between_announcement_and_drop_counts_what_stays() {
    let (server, mut client) = start("announced");
    server.set(&["meterflow.backdate_window = '1d'", "meterflow.retention_days = 10"]);
    run(&mut client, "SELECT meterflow.apply_retention()");
    let events_below = "SELECT count(*) > 0 FROM meterflow.events, meterflow.fold_state WHERE timestamp < raw_floor";
    assert_eq!(one(&mut client, events_below), "t", "announced, and not dropped yet");
    run(
        &mut client,
        "INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('new', 'call', 'sum', 'v')",
    );
    assert_verified(&mut client);
    fold(&mut client);
    assert_verified(&mut client);
    let kept = "SELECT value = (SELECT sum((properties->>'v')::numeric) FROM meterflow.events WHERE timestamp >= raw_floor) \
                  FROM meterflow.fold_state, meterflow.usage('new', raw_floor, now(), total => true)";
    assert_eq!(one(&mut client, kept), "t");
    let more = ALL_EVENTS.replace("events", "new");
    let error = try_rows(&mut client, &more).expect_err("it can't know what came before");
    assert!(has_code(&error, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{}", shown(&error));
    retain(&mut client);
    assert_eq!(one(&mut client, events_below), "f");
    assert_eq!(one(&mut client, kept), "t");
    assert_verified(&mut client);
}

#[test]
fn a_narrowed_window_accepts_no_event_twice() {
    if rounds(1) == 1 {
        eprintln!("SKIPPED: the shortest window is a minute; MF_ROUNDS=2 waits for it");
        return;
    }
    let server = Server::start(
        "narrowed",
        &[
            "meterflow.workers=off",
            "meterflow.dedup_generation=1s",
            "meterflow.future_window=1h",
            "meterflow.backdate_window=1min",
        ],
    );
    let mut client = server.create_database("retention");
    let early = event("early", now() + 80_000_000, 1).json(Shape::Native);
    assert_eq!(ingest(&mut client, &early).expect("a sound event").accepted, 1);
    let generation = "SELECT min(generation) > 1 FROM meterflow.dedup_generations";
    server.set(&["meterflow.future_window = 0"]);
    let began = now();
    // Until its key has been forgotten, or its time has come.
    while one(&mut client, generation) != "t" && now() < began + 75_000_000 {
        sleep(Duration::from_secs(1));
        run(&mut client, "SELECT meterflow.rotate_dedup()");
    }
    sleep(Duration::from_micros((began + 81_000_000 - now()).max(0) as u64));
    let again = ingest(&mut client, &early).expect("a batch");
    assert_eq!(again.accepted, 0, "{again:?}");
    assert_eq!(rows(&mut client, "SELECT count(*) FROM meterflow.events")[0][0].as_deref(), Some("1"));
}
