//! The outbox when everything dies: writers whose transactions overlap, two readers of one consumer who forget, give back
//! and acknowledge, while sessions and the server are killed. Every message that was committed is handed out, and those
//! of a customer in the order of its account and to one reader at a time.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;

use crate::rng::{Announce, Rng, rounds, seed};
use crate::server::{Server, kill, one, rows, run, shown, until};

const WRITERS: u64 = 4;
const READERS: u64 = 2;
const CUSTOMERS: i64 = 6;

/// How long a reader may keep what it has read.
const LEASE: Duration = Duration::from_millis(200);

/// Of each customer: the newest number that has been handed out, and which reader has messages of it until when.
type Seen = Mutex<BTreeMap<String, (i64, u64, Instant)>>;

#[test]
fn every_message_comes_in_order_whatever_dies() {
    let seed = seed();
    let _announce = Announce(seed);
    let server = Server::start("outbox", &["restart_after_crash=on", "meterflow.workers=off"]);
    let mut client = server.create_database("outbox");
    run(
        &mut client,
        &format!(
            "CREATE TABLE account (customer text PRIMARY KEY, n bigint NOT NULL);
             INSERT INTO account SELECT 'c' || i, 0 FROM generate_series(1, {CUSTOMERS}) i;
             INSERT INTO meterflow.outbox_consumers (name) VALUES ('w')"
        ),
    );
    drop(client);

    let (stop, written, again, seen) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), Seen::default());
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in 0..WRITERS + READERS {
            let (server, stop, written, again, seen) = (&server, &stop, &written, &again, &seen);
            threads.push(scope.spawn(move || {
                let mut rng = Rng::new(seed, number);
                let mut client = None;
                while !stop.load(Ordering::Relaxed) {
                    let outcome = with(server, &mut client, |client| match number < WRITERS {
                        true => write(client, &mut rng, written),
                        false => read(client, number, &mut rng, seen, again),
                    });
                    if let Err(error) = outcome {
                        panic!("{}", shown(&error));
                    }
                }
            }));
        }
        let mut rng = Rng::new(seed, 1000);
        for round in 0..rounds(6) {
            let before = written.load(Ordering::Relaxed);
            until("writers are at work", || {
                written.load(Ordering::Relaxed) > before + 50 || threads.iter().any(|it| it.is_finished())
            });
            std::thread::sleep(Duration::from_millis(rng.range(0..500) as u64));
            if round % 2 == 0 {
                strike(&server);
            } else {
                server.stop("immediate");
                server.start_again();
            }
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a thread that never fails");
        }
    });

    let mut client = server.connect("outbox");
    let mut rng = Rng::new(seed, 2000);
    let accounts = |client: &mut Client| -> BTreeMap<String, i64> {
        rows(client, "SELECT customer, n FROM account WHERE n > 0")
            .into_iter()
            .map(|row| {
                (row[0].clone().unwrap_or_default(), row[1].as_deref().map_or(0, |n| n.parse().expect("a number")))
            })
            .collect()
    };
    until("all has been read", || {
        read(&mut client, 1000, &mut rng, &seen, &again).unwrap_or_else(|error| panic!("{}", shown(&error)));
        let seen = seen.lock().expect("no thread panics with it");
        let newest: BTreeMap<String, i64> = seen.iter().map(|(customer, it)| (customer.clone(), it.0)).collect();
        newest == accounts(&mut client)
    });
    let total: i64 = accounts(&mut client).values().sum();
    assert_eq!(one(&mut client, "SELECT count(*) FROM meterflow.outbox"), total.to_string(), "messages written");
    until("all is acknowledged", || {
        run(&mut client, "SELECT meterflow.outbox_ack('w', array_agg(id)) FROM meterflow.outbox_read('w')");
        one(&mut client, "SELECT count(*) FROM meterflow.outbox_deliveries") == "0"
    });
    eprintln!("seed {seed}: {total} messages, {} handed out again", again.load(Ordering::Relaxed));
    assert!(again.load(Ordering::Relaxed) > 0, "no message was ever handed out again");
}

/// Does a piece of work, unless the server goes away meanwhile, or there is none.
fn with(
    server: &Server,
    client: &mut Option<Client>,
    work: impl FnOnce(&mut Client) -> Result<(), postgres::Error>,
) -> Result<(), postgres::Error> {
    let connected = match client {
        Some(client) => client,
        None => match server.try_connect("outbox", "load") {
            Ok(new) => client.insert(new),
            Err(_) => {
                std::thread::sleep(Duration::from_millis(50));
                return Ok(());
            }
        },
    };
    match work(connected) {
        Err(error) if error.is_closed() || error.code().is_none_or(|code| code.code().starts_with("57P")) => {
            *client = None;
            Ok(())
        }
        outcome => outcome,
    }
}

/// A transaction that counts on some accounts, one after the other, and says so; kept or not.
fn write(client: &mut Client, rng: &mut Rng, written: &AtomicU64) -> Result<(), postgres::Error> {
    let mut transaction = client.transaction()?;
    let mut customers: Vec<i64> = (0..rng.range(1..4)).map(|_| rng.range(1..CUSTOMERS + 1)).collect();
    customers.sort_unstable(); // as everybody does: no deadlocks
    for customer in customers {
        let undo = rng.chance(20);
        let mut part = transaction.savepoint("part")?;
        let customer = format!("c{customer}");
        let n: i64 =
            part.query_one("UPDATE account SET n = n + 1 WHERE customer = $1 RETURNING n", &[&customer])?.get(0);
        part.execute("SELECT meterflow.emit('default', $1, 'low_balance', to_jsonb($2::bigint))", &[&customer, &n])?;
        if undo {
            part.rollback()?
        } else {
            part.commit()?
        }
        std::thread::sleep(Duration::from_millis(rng.range(0..10) as u64));
    }
    if rng.chance(20) {
        return transaction.rollback();
    }
    transaction.commit()?;
    written.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Reads some messages; then acknowledges them, gives them back, or forgets them.
fn read(
    client: &mut Client,
    reader: u64,
    rng: &mut Rng,
    seen: &Seen,
    again: &AtomicU64,
) -> Result<(), postgres::Error> {
    let until = Instant::now() + LEASE;
    let got = client.query(
        "SELECT id, customer_id, (payload #>> '{}')::bigint, attempts FROM meterflow.outbox_read('w', $1, make_interval(secs => $2))",
        &[&(rng.range(1..20) as i32), &LEASE.as_secs_f64()],
    )?;
    let lock = || seen.lock().expect("no thread panics with it");
    for row in &got {
        let (customer, n, attempts): (String, i64, i32) = (row.get(1), row.get(2), row.get(3));
        let mut seen = lock();
        let (last, owner, theirs) = seen.get(&customer).copied().unwrap_or((0, reader, until));
        assert!(n <= last + 1, "message {n} of {customer} comes after {last}");
        assert!(owner == reader || Instant::now() > theirs, "messages of {customer} are in two hands");
        seen.insert(customer, (n.max(last), reader, until));
        again.fetch_add(u64::from(attempts > 1), Ordering::Relaxed);
    }
    std::thread::sleep(Duration::from_millis(rng.range(0..40) as u64));
    let ids: Vec<i64> = got.iter().map(|row| row.get(0)).collect();
    let choice = rng.range(0..100);
    if choice < 90 {
        // From here on another may have them.
        for entry in lock().values_mut().filter(|entry| entry.1 == reader) {
            entry.2 = Instant::now();
        }
    }
    match choice {
        0..70 => client.execute("SELECT meterflow.outbox_ack('w', $1)", &[&ids])?,
        70..80 => client.execute("SELECT meterflow.outbox_ack('w', $1)", &[&&ids[..ids.len() / 2]])?,
        80..90 => client.execute("SELECT meterflow.outbox_nack('w', $1, '20 milliseconds')", &[&ids])?,
        _ => 0,
    };
    Ok(())
}

/// Kills a backend, which makes the server start anew.
fn strike(server: &Server) {
    let mut victim = None;
    until("a client is connected", || {
        victim = server.try_connect("outbox", "test").ok().and_then(|mut client| {
            let sql = "SELECT pid FROM pg_stat_activity WHERE datname = 'outbox' AND application_name = 'load' ORDER BY random() LIMIT 1";
            rows(&mut client, sql).first().and_then(|row| row[0].as_deref()?.parse().ok())
        });
        victim.is_some()
    });
    kill(victim.expect("just found"));
}
