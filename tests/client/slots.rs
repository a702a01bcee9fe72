//! Delta slots take turns and are emptied whole while readers hold old snapshots: none of them may miss a delta.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::rng::{Announce, Rng, rounds, seed};
use crate::server::{Server, one, rows, run, shown};

const WRITERS: u64 = 2;

/// Sets, so that deltas outweigh the events they come from.
const METERS: &str = "
    INSERT INTO meterflow.meters (key, event_name, aggregation, property)
    SELECT a || n, 'call', a, CASE WHEN a <> 'count' THEN 'v' END
      FROM (VALUES ('count', 2), ('sum', 2), ('max', 2), ('unique_count', 12)) AS x (a, most), generate_series(1, most) n";

#[test]
fn no_snapshot_misses_a_delta_when_slots_are_emptied() {
    let seed = seed();
    let _announce = Announce(seed);
    let server = Server::start("slots", &["meterflow.fold_interval=20ms"]);
    let mut client = server.create_database("slots");
    run(&mut client, METERS);
    // What each transaction has sent, written by itself.
    run(&mut client, "CREATE TABLE sent (n bigint, total bigint)");
    let stop = AtomicBool::new(false);
    let turns = std::thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        let _stop = StopAtEnd(stop);
        for number in 0..WRITERS {
            scope.spawn(move || {
                let _stop = StopAtEnd(stop);
                let mut client = server.connect("slots");
                for batch in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let sql = format!(
                        "WITH e AS MATERIALIZED (SELECT array_agg('{number}-{batch}-' || g) AS ids, array_agg('c' || g % 100) AS customers, array_agg('call'::text) AS names,
                                array_agg(now() - g * interval '1 second') AS times, array_agg(jsonb_build_object('v', g)) AS properties FROM generate_series(1, 2000) g),
                              i AS (SELECT accepted FROM e, meterflow.ingest_rows(ids, customers, names, times, properties))
                         INSERT INTO sent SELECT accepted, 2000 * 2001 / 2 FROM i"
                    );
                    run(&mut client, &sql);
                }
            });
        }
        for number in 0..2 {
            scope.spawn(move || {
                let _stop = StopAtEnd(stop);
                let mut rng = Rng::new(seed, number);
                let mut client = server.connect("slots");
                while !stop.load(Ordering::Relaxed) {
                    run(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ");
                    let sent = rows(&mut client, "SELECT coalesce(sum(n), 0), coalesce(sum(total), 0) FROM sent").remove(0);
                    for _ in 0..3 {
                        std::thread::sleep(Duration::from_millis(rng.range(0..800) as u64));
                        let total = |meter: &str| format!("SELECT coalesce(sum(value), 0) FROM meterflow.usage('{meter}{}', date_trunc('day', now()) - interval '30 days', date_trunc('day', now()) + interval '1 day', total => true)", 1 + number);
                        assert_eq!(Some(one(&mut client, &total("count"))), sent[0], "count");
                        assert_eq!(Some(one(&mut client, &total("sum"))), sent[1], "sum");
                    }
                    run(&mut client, "COMMIT");
                }
            });
        }
        let began = Instant::now();
        let emptied = "SELECT count(*) FROM meterflow.delta_slots WHERE emptied_batch > 0";
        let (mut turns, mut before) = (0, String::new());
        // A busy machine takes its time to fill the first slot.
        let enough = |turns: u64| Duration::from_secs(if turns < 2 { 180 } else { rounds(30) });
        while !stop.load(Ordering::Relaxed) && began.elapsed() < enough(turns) && turns < rounds(3) {
            let now = one(
                &mut client,
                "SELECT string_agg(emptied_batch::text, ',' ORDER BY slot) FROM meterflow.delta_slots",
            );
            if now != before {
                turns += 1;
                before = now;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_ne!(one(&mut client, emptied), "0", "no slot has been emptied");
        turns
    });
    eprintln!("seed {seed}: {turns} turns of slots, {} events", one(&mut client, "SELECT sum(n) FROM sent"));
    if let Err(error) = crate::server::try_rows(&mut client, "SELECT meterflow.fold()") {
        panic!("{}", shown(&error));
    }
    for meter in ["count1", "sum2", "unique_count3", "max2"] {
        assert!(
            rows(&mut client, &format!("SELECT * FROM meterflow.verify('{meter}')")).is_empty(),
            "verify('{meter}')"
        );
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
