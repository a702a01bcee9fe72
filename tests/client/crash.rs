//! Nothing is lost and nothing counts twice when the server dies: clients load it, and send again with the same ids
//! what was not acknowledged, while a backend, the worker or the postmaster is killed, or all of it stopped at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;

use crate::event::{Event, Shape, array, time};
use crate::rng::{Announce, Rng, rounds, seed};
use crate::server::{Server, assert_verified, ingest, kill, now, one, rows, run, shown, until};

const CLIENTS: u64 = 3;

const METERS: &str = "
    INSERT INTO meterflow.meters (key, event_name, aggregation, property, dimensions) VALUES
      ('events', 'call', 'count', NULL, '{}'),
      ('units', 'call', 'sum', 'units', '{model}'),
      ('highest', 'call', 'max', 'units', '{}'),
      ('users', 'call', 'unique_count', 'user', '{}')";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    KillBackend,
    KillWorker,
    KillPostmaster,
    StopImmediate,
}

#[test]
fn every_event_counts_once_after_any_crash() {
    let seed = seed();
    let _announce = Announce(seed);
    let settings = [
        "meterflow.fold_interval=50ms",
        "meterflow.launcher_interval=1s",
        "meterflow.dedup_generation=3s",
        "restart_after_crash=on",
    ];
    let server = Server::start("crash", &settings);
    let mut client = server.create_database("crash");
    run(&mut client, METERS);
    drop(client);

    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let retries = AtomicU64::new(0);
    let done = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (server, stop, sent, retries) = (&server, &stop, &sent, &retries);
                scope.spawn(move || load(server, seed, number, stop, sent, retries))
            })
            .collect();
        let chaos = scope.spawn(|| {
            let _stop = StopAtEnd(&stop);
            let mut rng = Rng::new(seed, 1000);
            for round in 0..rounds(10) {
                let all = [Fault::KillBackend, Fault::KillWorker, Fault::KillPostmaster, Fault::StopImmediate];
                // Each at least once in a short run.
                let fault = if round < 4 { all[round as usize] } else { *rng.pick(&all) };
                let before = sent.load(Ordering::Relaxed);
                until("clients are at work again", || {
                    sent.load(Ordering::Relaxed) > before + 3 || stop.load(Ordering::Relaxed)
                });
                std::thread::sleep(Duration::from_millis(rng.range(0..700) as u64));
                let began = Instant::now();
                strike(&server, fault);
                let mut client = wait_for_server(&server);
                let back = began.elapsed();
                assert_verified(&mut client);
                eprintln!("{fault:?}: back after {back:.1?}, verified in {:.1?}", began.elapsed() - back);
            }
        });
        let done: Vec<Done> = clients.into_iter().map(|it| it.join().expect("a client that never fails")).collect();
        chaos.join().expect("a server that comes back");
        done
    });

    let mut client = wait_for_server(&server);
    run(&mut client, "SELECT * FROM meterflow.maintain()");
    until("the inbox is empty", || one(&mut client, "SELECT count(*) FROM meterflow.inbox") == "0");
    compare(&mut client, seed, &done);
    assert_verified(&mut client);
    until("health() is content", || {
        let reasons = rows(&mut client, "SELECT reasons FROM meterflow.health() WHERE NOT healthy");
        if !reasons.is_empty() {
            eprintln!("{reasons:?}");
            std::thread::sleep(Duration::from_secs(1));
        }
        reasons.is_empty()
    });
    eprintln!("seed {seed}: {} batches, {} sent again", sent.load(Ordering::Relaxed), retries.load(Ordering::Relaxed));
    assert!(retries.load(Ordering::Relaxed) > 0, "no batch was ever in doubt");
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The n-th batch of a client: the same whenever it is made.
fn batch(seed: u64, client: u64, number: u64, base: i64) -> Vec<Event> {
    let mut rng = Rng::new(seed, client << 32 | number);
    let size = *rng.pick(&[1, 5, 20, 60]);
    (0..size)
        .map(|i| Event {
            id: format!("{client}-{number}-{i}"),
            source: String::new(),
            customer: format!("customer {}", rng.range(0..40)),
            name: "call".to_string(),
            at: Some(base - rng.range(0..3 * 86_400) * 1_000_000),
            properties: format!(
                "{{\"units\":{},\"model\":\"m{}\",\"user\":\"u{}\"}}",
                rng.range(1..1000),
                rng.range(0..3),
                rng.range(0..500)
            ),
        })
        .collect()
}

/// Sends batch after batch, each until it is acknowledged.
fn load(server: &Server, seed: u64, number: u64, stop: &AtomicBool, sent: &AtomicU64, retries: &AtomicU64) -> Done {
    let mut rng = Rng::new(seed, number);
    let mut client: Option<Client> = None;
    let mut voided = Vec::new();
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) || next == 0 {
        let events = batch(seed, number, next, base());
        let by_inbox = rng.chance(15);
        let void = rng.chance(30).then(|| rng.index(events.len()));
        let mut tries = 0;
        loop {
            let connected = match &mut client {
                Some(client) => client,
                None => match server.try_connect("crash", "load") {
                    Ok(new) => client.insert(new),
                    Err(_) => {
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    }
                },
            };
            if tries > 0 {
                retries.fetch_add(1, Ordering::Relaxed);
            }
            tries += 1;
            match send(connected, &events, by_inbox, void) {
                Ok(()) => break,
                Err(error) if error.is_closed() || dying(&error) => client = None,
                Err(error) => panic!("{}", shown(&error)),
            }
        }
        if let Some(void) = void.filter(|_| !by_inbox) {
            voided.push(events[void].clone());
        }
        next += 1;
        sent.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(rng.range(0..25) as u64));
    }
    Done { batches: next, voided }
}

/// How far a client came, and which events it has taken back.
struct Done {
    batches: u64,
    voided: Vec<Event>,
}

fn base() -> i64 {
    static BASE: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    *BASE.get_or_init(now)
}

/// The server went away: the connection broke, or it said that it is going.
fn dying(error: &postgres::Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57P"))
}

fn send(client: &mut Client, events: &[Event], by_inbox: bool, void: Option<usize>) -> Result<(), postgres::Error> {
    let text = array(events.iter().map(|event| event.json(Shape::Native)));
    if by_inbox {
        client.execute("INSERT INTO meterflow.inbox (event) VALUES ($1)", &[&text])?;
        return Ok(());
    }
    let Some(void) = void else {
        let outcome = ingest(client, &text)?;
        assert_eq!(outcome.accepted + outcome.duplicates, events.len() as i32, "{outcome:?}");
        // A batch is a whole: all of it is known, or none.
        assert!(outcome.accepted == 0 || outcome.duplicates == 0, "half of a batch was known: {outcome:?}");
        return Ok(());
    };
    let mut transaction = client.transaction()?;
    let (first, second) = events.split_at(events.len() / 2);
    for part in [first, second] {
        let outcome = ingest(&mut transaction, &array(part.iter().map(|event| event.json(Shape::Native))))?;
        assert_eq!(outcome.accepted + outcome.duplicates, part.len() as i32, "{outcome:?}");
    }
    transaction.query_one("SELECT meterflow.void_event($1, 'a test')", &[&events[void].id])?;
    transaction.commit()
}

fn strike(server: &Server, fault: Fault) {
    let pid_of = |condition: &str| {
        let mut client = server.connect("crash");
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = 'crash' AND {condition} ORDER BY state = 'active' DESC NULLS LAST, pid LIMIT 1"
        );
        rows(&mut client, &sql).first().and_then(|row| row[0].as_deref()?.parse().ok())
    };
    match fault {
        Fault::KillBackend => {
            let mut pid = None;
            until("a client is connected", || {
                pid = pid_of("application_name = 'load'");
                pid.is_some()
            });
            kill(pid.expect("just found"));
        }
        Fault::KillWorker => {
            let mut pid = None;
            until("the worker runs", || {
                pid = pid_of("application_name = 'meterflow worker'");
                pid.is_some()
            });
            kill(pid.expect("just found"));
        }
        Fault::KillPostmaster => {
            kill(server.postmaster());
            server.start_again();
        }
        Fault::StopImmediate => {
            server.stop("immediate");
            server.start_again();
        }
    }
}

fn wait_for_server(server: &Server) -> Client {
    let mut found = None;
    until("the server is back", || {
        // A connection may still be one to the server that is about to go down.
        found = server.try_connect("crash", "test").ok();
        found.as_mut().is_some_and(|client: &mut Client| {
            std::thread::sleep(Duration::from_millis(300));
            client.simple_query("SELECT 1").is_ok()
        })
    });
    found.expect("just made")
}

/// All that was acknowledged is there once, with its sums; nothing else is.
fn compare(client: &mut Client, seed: u64, done: &[Done]) {
    let mut expected: BTreeMap<String, Event> = BTreeMap::new();
    for (client, done) in done.iter().enumerate() {
        for number in 0..done.batches {
            expected
                .extend(batch(seed, client as u64, number, base()).into_iter().map(|event| (event.id.clone(), event)));
        }
    }
    let stored = rows(client, "SELECT transaction_id, count(*) FROM meterflow.events GROUP BY 1");
    assert_eq!(stored.len(), expected.len(), "events stored");
    for row in &stored {
        let id = row[0].as_deref().unwrap_or_default();
        assert!(expected.contains_key(id), "{id} was never sent");
        assert_eq!(row[1].as_deref(), Some("1"), "{id} is stored more than once");
    }
    for event in done.iter().flat_map(|done| &done.voided) {
        expected.remove(&event.id);
    }

    let mut sums: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
    let mut peaks: BTreeMap<String, i64> = BTreeMap::new();
    for event in expected.values() {
        let properties: serde_json::Value = serde_json::from_str(&event.properties).expect("JSON of our own");
        let (units, model) =
            (properties["units"].as_i64().expect("a number"), properties["model"].as_str().expect("a text"));
        let sum = sums.entry((event.customer.clone(), model.to_string())).or_default();
        *sum = (sum.0 + 1, sum.1 + units);
        let peak = peaks.entry(event.customer.clone()).or_default();
        *peak = units.max(*peak);
    }
    let (from, to) = (time(base() - 10 * 86_400_000_000), time(base() + 86_400_000_000));
    let usage = |client: &mut Client, meter: &str, group: &str| {
        let sql = format!(
            "SELECT customer_id, group_key->>'model', trim_scale(value) FROM meterflow.usage('{meter}', '{from}', '{to}', group_by => {group})"
        );
        rows(client, &sql)
            .into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let found = usage(client, "units", "'{model}'");
    assert_eq!(found.len(), sums.len());
    for row in found {
        assert_eq!(row[2], sums[&(row[0].clone(), row[1].clone())].1.to_string(), "units of {row:?}");
    }
    let mut count = 0;
    for row in usage(client, "events", "NULL") {
        let expected: i64 = sums.iter().filter(|((customer, _), _)| *customer == row[0]).map(|(_, sum)| sum.0).sum();
        assert_eq!(row[2], expected.to_string(), "events of {row:?}");
        count += expected;
    }
    assert_eq!(count, expected.len() as i64);
    for row in usage(client, "highest", "NULL") {
        assert_eq!(row[2], peaks[&row[0]].to_string(), "highest of {row:?}");
    }
}
