//! A streaming standby answers the same usage, read-only, also while the primary ingests and folds; promoted, it goes
//! on ingesting and folding.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use postgres::Client;
use postgres::error::SqlState;

use crate::event::{Event, Shape, array};
use crate::rng::{Announce, Rng, seed};
use crate::server::{
    Place, Server, assert_verified, has_code, ingest, kill, now, one, quietly, rows, run, shown, try_rows, until,
};

const DAY: i64 = 86_400_000_000;

const METERS: &str = "
    INSERT INTO meterflow.meters (key, event_name, aggregation, property, dimensions) VALUES
      ('events', 'call', 'count', NULL, '{}'),
      ('units', 'call', 'sum', 'units', '{model}'),
      ('highest', 'call', 'max', 'units', '{}'),
      ('users', 'call', 'unique_count', 'user', '{}')";

fn events(rng: &mut Rng, prefix: &str, count: usize) -> Vec<Event> {
    (0..count)
        .map(|i| Event {
            id: format!("{prefix}-{i}"),
            source: String::new(),
            customer: format!("customer {}", rng.range(0..20)),
            name: "call".to_string(),
            at: Some(now() - rng.range(0..5 * DAY)),
            properties: format!(
                "{{\"units\":{},\"model\":\"m{}\",\"user\":\"u{}\"}}",
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

fn usage(client: &mut Client, until: i64) -> Vec<Vec<Option<String>>> {
    let until = crate::event::time(until);
    let mut all = Vec::new();
    for meter in ["events", "units", "highest", "users"] {
        for question in [
            format!("'{until}'::timestamptz - interval '40 days', '{until}'"),
            format!(
                "'{until}'::timestamptz - interval '4 days 03:17', '{until}', window_size => 'day', timezone => 'America/New_York'"
            ),
            format!("'{until}'::timestamptz - interval '40 days', '{until}', total => true, group_by => '{{model}}'"),
            format!("'{until}'::timestamptz - interval '20 hours', '{until}', 'customer 2', window_size => 'hour'"),
        ] {
            all.extend(rows(
                client,
                &format!("SELECT '{meter}', * FROM meterflow.usage('{meter}', {question}) ORDER BY 2, 4, 5"),
            ));
        }
    }
    all
}

/// The standby: a server beside the test's own, that ends with the test.
struct Standby {
    place: Place,
    data: PathBuf,
}

impl Standby {
    fn start(primary: &Server) -> Standby {
        let mut place = primary.place();
        let data = place.data.parent().expect("a cluster has a home").join("standby");
        quietly(place.tool_as_owner("pg_basebackup").args(["-c", "fast", "-R", "-X", "stream", "-D"]).arg(&data));
        // Its socket's name holds its port; nothing listens on the network.
        let port = (1..)
            .map(|n| place.port + n)
            .find(|port| !PathBuf::from(format!("{}/.s.PGSQL.{port}", place.host)).exists())
            .expect("a port");
        let log = data.with_extension("log");
        let options = format!("-c port={port} -c listen_addresses='' -c cluster_name='standby'");
        quietly(
            place
                .tool_as_owner("pg_ctl")
                .args(["-s", "-w", "-t", "60", "start", "-o", &options, "-l"])
                .arg(&log)
                .arg("-D")
                .arg(&data),
        );
        place.port = port;
        Standby { place, data }
    }

    fn connect(&self) -> Client {
        self.place.try_connect("standby", "test").unwrap_or_else(|error| panic!("{}", shown(&error)))
    }

    fn promote(&self) {
        quietly(self.place.tool_as_owner("pg_ctl").args(["-s", "-w", "-t", "60", "promote", "-D"]).arg(&self.data));
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let _ = self
            .place
            .tool_as_owner("pg_ctl")
            .args(["-s", "-w", "-m", "immediate", "stop", "-D"])
            .arg(&self.data)
            .output();
    }
}

fn wait_for_replay(primary: &mut Client, standby: &mut Client) {
    let written = one(primary, "SELECT pg_current_wal_flush_lsn()");
    until("the standby has caught up", || {
        one(standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t"
    });
}

#[test]
fn a_standby_answers_alike_and_takes_over() {
    let seed = seed();
    let _announce = Announce(seed);
    let mut rng = Rng::new(seed, 0);
    // Replay compares every page it makes with that of the primary.
    let settings = [
        "meterflow.fold_interval=20ms",
        "meterflow.launcher_interval=1s",
        "meterflow.dedup_generation=2s",
        "wal_consistency_checking=all",
        "max_standby_streaming_delay=2s",
    ];
    let server = Server::start("standby", &settings);
    let mut primary = server.create_database("standby");
    run(&mut primary, METERS);
    let mut sent = events(&mut rng, "before", 2000);
    ingest(&mut primary, &json(&sent)).expect("a sound batch");
    run(&mut primary, "SELECT meterflow.fold()");

    let standby = Standby::start(&server);
    let mut replica = standby.connect();
    wait_for_replay(&mut primary, &mut replica);

    // While the primary is busy.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (server, done) = (&server, &done);
        let writer = scope.spawn(move || {
            let mut client = server.connect("standby");
            let mut rng = Rng::new(seed, 1);
            let mut sent = Vec::new();
            for batch in 0..150 {
                let batch = events(&mut rng, &format!("busy{batch}"), 20);
                ingest(&mut client, &json(&batch)).unwrap_or_else(|error| panic!("{}", shown(&error)));
                if rng.chance(30) {
                    run(&mut client, &format!("SELECT meterflow.void_event('{}', 'a test')", batch[3].id));
                }
                if rng.chance(20) {
                    run(&mut client, "SELECT meterflow.rotate_dedup()");
                }
                sent.extend(batch);
            }
            done.store(true, Ordering::Relaxed);
            sent
        });
        let (mut equal, mut refused) = (0, 0);
        while !done.load(Ordering::Relaxed) && !writer.is_finished() {
            match same_snapshot(&mut replica) {
                Ok(()) => equal += 1,
                // Replay may cancel a query, and so may meterflow one whose deltas have been dropped.
                Err(error) if has_code(&error, &SqlState::T_R_SERIALIZATION_FAILURE) => refused += 1,
                // Between two statements of a transaction there is no query to cancel: replay ends the session.
                Err(_) if replica.is_closed() => {
                    replica = standby.connect();
                    refused += 1;
                }
                Err(error) => panic!("{}", shown(&error)),
            }
        }
        sent.extend(writer.join().expect("a writer that never fails"));
        assert!(equal > 0, "the standby never answered");
        eprintln!("{equal} snapshots equal while the primary was busy, {refused} refused");
    });

    // With nothing left to fold, a verb that only looks would find no reason to write.
    until("all is folded", || {
        one(
            &mut primary,
            "SELECT (SELECT last_value FROM meterflow.batch_seq) = (SELECT folded_batch FROM meterflow.fold_state) AND NOT EXISTS (SELECT FROM meterflow.dirty_ranges)",
        ) == "t"
    });
    wait_for_replay(&mut primary, &mut replica);
    let asked_at = now();
    let expected = usage(&mut primary, asked_at);
    assert_eq!(usage(&mut replica, asked_at), expected);
    assert_verified(&mut replica);
    let read_only =
        |error: postgres::Error| assert!(has_code(&error, &SqlState::READ_ONLY_SQL_TRANSACTION), "{}", shown(&error));
    read_only(ingest(&mut replica, &json(&sent[..1])).expect_err("a standby takes no events"));
    for verb in ["maintain()", "fold()", "rotate_dedup()", "drain_inbox()", "void_event('busy1-1', 'a test')"] {
        match try_rows(&mut replica, &format!("SELECT * FROM meterflow.{verb}")) {
            Err(error) => read_only(error),
            Ok(rows) => panic!("{verb} on a standby returned {rows:?}"),
        }
    }
    let worker = one(&mut replica, "SELECT detail FROM meterflow.status() WHERE name = 'worker'");
    assert!(worker.contains("standby"), "status() of the worker: {worker}");
    let reasons = rows(&mut replica, "SELECT reasons FROM meterflow.health() WHERE NOT healthy");
    assert!(reasons.is_empty(), "{reasons:?}");

    drop(primary);
    kill(server.postmaster());
    standby.promote();
    assert_eq!(usage(&mut replica, asked_at), expected);
    for batch in sent.chunks(1000) {
        let again = ingest(&mut replica, &json(batch)).unwrap_or_else(|error| panic!("{}", shown(&error)));
        assert_eq!((again.accepted, again.duplicates as usize), (0, batch.len()));
    }
    let new = events(&mut rng, "after", 500);
    assert_eq!(ingest(&mut replica, &json(&new)).expect("a sound batch").accepted, 500);
    assert_verified(&mut replica);
    let later = now();
    let expected = usage(&mut replica, later);
    until("the worker of the new primary has folded all", || {
        one(
            &mut replica,
            "SELECT (SELECT last_value FROM meterflow.batch_seq) <= (SELECT folded_batch FROM meterflow.fold_state)",
        ) == "t"
    });
    assert_eq!(usage(&mut replica, later), expected);
    assert_eq!(
        one(
            &mut replica,
            "SELECT value FROM meterflow.usage('events', now() - interval '20 days', now() + interval '1 day', total => true)"
        ),
        one(
            &mut replica,
            "SELECT count(*) FROM meterflow.events e WHERE NOT EXISTS (SELECT FROM meterflow.event_corrections c WHERE c.seq = e.seq)"
        ),
    );
    assert_verified(&mut replica);
    until("health() is content", || one(&mut replica, "SELECT healthy FROM meterflow.health()") == "t");
}

/// usage() and plain SQL in one snapshot of the standby.
fn same_snapshot(client: &mut Client) -> Result<(), postgres::Error> {
    let mut transaction =
        client.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).read_only(true).start()?;
    let live = "FROM meterflow.events e WHERE NOT EXISTS (SELECT FROM meterflow.event_corrections c WHERE c.tenant_id = e.tenant_id AND c.seq = e.seq)";
    for (meter, naive) in [
        ("events", "count(*)::numeric"),
        ("units", "sum((properties->>'units')::numeric)"),
        ("highest", "max((properties->>'units')::numeric)"),
        ("users", "count(DISTINCT properties->>'user')::numeric"),
    ] {
        let sql = format!(
            "SELECT customer_id, trim_scale(value)::text FROM meterflow.usage('{meter}', now() - interval '30 days', now() + interval '2 hours') ORDER BY 1"
        );
        let answered = transaction.query(&sql, &[])?;
        let sql = format!("SELECT customer_id, trim_scale({naive})::text {live} GROUP BY 1 ORDER BY 1");
        let expected = transaction.query(&sql, &[])?;
        let texts = |rows: Vec<postgres::Row>| {
            rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1))).collect::<Vec<_>>()
        };
        assert_eq!(texts(answered), texts(expected), "{meter} on the standby");
    }
    transaction.commit()
}
