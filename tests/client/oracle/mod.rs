//! Every read is right at every step: random sessions send, repeat, correct and spoil events, make and change meters,
//! fold, rotate keys and drop old data, while readers ask usage() and, in the same snapshot, plain SQL.
//!
//! The truth is the table `sent`: each session writes into it, in its own transaction, what it expects to be accepted.
//! So events are compared with what was sent, and usage with both; and what retention drops, `sent` still knows.

mod maintenance;
mod meters;
mod question;
mod writer;

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;

use crate::rng::{Announce, Rng, rounds, seed};
use crate::server::{Server, assert_verified, now, one, rows, run, until};
use meters::METERS;
use question::{Question, Snapshot, Verdict};

const CUSTOMERS: [&str; 7] = ["acme", "bolt", "c\"quoted'", "Ünïcödé", "e", "f f", "rare"];

const WRITERS: u64 = 3;
const READERS: u64 = 2;

/// Events of long ago are accepted, and stay.
const WIDE: [&str; 5] = [
    "meterflow.backdate_window = '300d'",
    "meterflow.future_window = '1d'",
    "meterflow.retention_days = 0",
    "meterflow.hour_rollup_days = 0",
    "meterflow.day_rollup_days = 0",
];
/// Everything is forgotten as soon as settings allow.
const NARROW: [&str; 5] = [
    "meterflow.backdate_window = '1min'",
    "meterflow.future_window = 0",
    "meterflow.retention_days = 1",
    "meterflow.hour_rollup_days = 20",
    "meterflow.day_rollup_days = 100",
];

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Wide,
    Narrow,
}

/// What the threads share.
struct Shared {
    server: Server,
    seed: u64,
    days: Days,
    /// Held for reading during every step of a writer; for writing while settings change.
    phase: RwLock<Phase>,
    stop: AtomicBool,
    counts: Counts,
}

/// What meterflow's own counters must come to.
#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    duplicates: AtomicU64,
    failed: AtomicU64,
    corrections: AtomicU64,
    snapshots: AtomicU64,
    questions: AtomicU64,
    gone: AtomicU64,
}

/// Times worth sending events of, and asking for.
struct Days {
    /// When clocks changed in the zones that are asked for.
    changes: Vec<i64>,
}

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

impl Days {
    fn time(&self, rng: &mut Rng) -> i64 {
        let now = now();
        match rng.range(0..100) {
            0..35 => now - rng.range(0..20 * MINUTE),
            35..55 => now - rng.range(0..3 * DAY),
            55..80 => rng.pick(&self.changes) + rng.range(-4 * HOUR..4 * HOUR),
            80..90 => now - 37 * DAY * rng.range(1..7) - rng.range(0..DAY),
            // Ties, and the first and last microsecond of an hour.
            _ => {
                let hour = now - rng.range(0..30 * HOUR);
                hour - hour.rem_euclid(HOUR) + rng.range(-1..2)
            }
        }
    }
}

#[test]
fn reads_equal_what_was_sent_at_every_step() {
    let seed = seed();
    let _announce = Announce(seed);
    let settings = [
        "meterflow.fold_interval=50ms",
        "meterflow.dedup_generation=2s",
        "meterflow.launcher_interval=1s",
        "max_locks_per_transaction=256",
    ];
    let server = Server::start("oracle", &settings);
    server.set(&WIDE);
    let mut client = server.create_database("oracle");
    run(
        &mut client,
        "CREATE TABLE sent (source text COLLATE \"C\", id text COLLATE \"C\", customer text COLLATE \"C\", name text, at timestamptz, properties jsonb, line text,
                            voided boolean NOT NULL DEFAULT false, PRIMARY KEY (source, id))",
    );
    run(&mut client, "CREATE INDEX ON sent (line) WHERE line IS NOT NULL");
    for spec in METERS.iter().filter(|spec| spec.early) {
        run(&mut client, &spec.insert());
    }
    let changes = rows(
        &mut client,
        "SELECT DISTINCT (extract(epoch FROM g) * 1000000)::bigint FROM generate_series(date_trunc('hour', now()) - interval '290 days', now(), '1 hour') g, \
                unnest('{Europe/Berlin,America/New_York}'::text[]) z \
          WHERE (g AT TIME ZONE z) - ((g - interval '1 hour') AT TIME ZONE z) <> interval '1 hour'",
    );
    let changes: Vec<i64> =
        changes.into_iter().map(|row| row[0].as_deref().unwrap_or_default().parse().expect("a number")).collect();
    assert!(changes.len() >= 2, "no change of clocks in 290 days");

    let shared = Shared {
        server: server.clone(),
        seed,
        days: Days { changes },
        phase: RwLock::new(Phase::Wide),
        stop: AtomicBool::new(false),
        counts: Counts::default(),
    };
    let shared = &shared;
    std::thread::scope(|scope| {
        let _stop = StopOnPanic(shared);
        for n in 0..WRITERS {
            scope.spawn(move || guarded(shared, || writer::work(shared, n)));
        }
        for n in 0..READERS {
            scope.spawn(move || guarded(shared, || read(shared, 100 + n)));
        }
        scope.spawn(move || guarded(shared, || maintenance::work(shared, 200)));
        scope.spawn(move || guarded(shared, || maintenance::change_meters(shared, 201)));

        wait(shared, Duration::from_secs(rounds(15)));
        enter(shared, Phase::Narrow);
        wait(shared, Duration::from_secs(rounds(50)));
        shared.stop.store(true, Ordering::Relaxed);
    });
    finish(shared, &mut client);
}

fn wait(shared: &Shared, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until && !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Changes the settings while no writer is at work and nothing waits in the inbox.
fn enter(shared: &Shared, phase: Phase) {
    if shared.stop.load(Ordering::Relaxed) {
        return;
    }
    let mut current = shared.phase.write().expect("writers panic elsewhere");
    let mut client = shared.server.connect("oracle");
    until("the inbox is empty", || one(&mut client, "SELECT count(*) FROM meterflow.inbox") == "0");
    shared.server.set(if phase == Phase::Wide { &WIDE } else { &NARROW });
    *current = phase;
}

struct StopOnPanic<'a>(&'a Shared);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn guarded(shared: &Shared, work: impl FnOnce()) {
    let _stop = StopOnPanic(shared);
    work();
}

/// What was accepted and not taken back, as of the snapshot; an inbox line counts from when it has been drained.
const TRUTH: &str = "
    CREATE TEMP TABLE truth ON COMMIT DROP AS
    SELECT s.source, s.id, s.customer, s.name, s.at, s.properties, e.seq
      FROM sent s LEFT JOIN meterflow.events e
        ON e.source = s.source AND e.transaction_id = s.id
           AND NOT EXISTS (SELECT FROM meterflow.event_corrections c WHERE c.tenant_id = e.tenant_id AND c.seq = e.seq)
     WHERE NOT s.voided AND (s.line IS NULL OR NOT EXISTS (SELECT FROM meterflow.inbox i WHERE i.event = s.line))";

/// Stored events that were not sent so, and sent events that are not stored. Below the floor they may be dropped at any
/// moment, or still be there.
fn wrong_events(raw_floor: &str) -> String {
    format!(
        "SELECT source, transaction_id, t.id, e.timestamp, t.at, e.customer_id, t.customer, e.event_name, t.name, e.properties, t.properties
           FROM (SELECT * FROM meterflow.events e
                  WHERE NOT EXISTS (SELECT FROM meterflow.event_corrections c WHERE c.tenant_id = e.tenant_id AND c.seq = e.seq)
                    AND e.timestamp >= '{raw_floor}') e
           FULL JOIN (SELECT *, id AS transaction_id FROM truth WHERE at >= '{raw_floor}') t USING (source, transaction_id)
          WHERE (e.timestamp, e.customer_id, e.event_name, e.properties) IS DISTINCT FROM (t.at, t.customer, t.name, t.properties)
          LIMIT 5"
    )
}

fn read(shared: &Shared, stream: u64) {
    let mut rng = Rng::new(shared.seed, stream);
    let mut client = shared.server.connect("oracle");
    while !shared.stop.load(Ordering::Relaxed) {
        run(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ");
        let snapshot = Snapshot::take(&mut client);
        let old = rng.chance(30);
        if old {
            // What is folded and dropped meanwhile must not show.
            std::thread::sleep(Duration::from_millis(rng.range(0..700) as u64));
        }
        check(shared, &mut client, &mut rng, &snapshot, 10);
        if rng.chance(25) {
            assert_verified(&mut client);
        }
        run(&mut client, "COMMIT");
        shared.counts.snapshots.fetch_add(1, Ordering::Relaxed);
    }
}

fn check(shared: &Shared, client: &mut Client, rng: &mut Rng, snapshot: &Snapshot, questions: usize) {
    run(client, TRUTH);
    run(client, "ANALYZE truth");
    let wrong = rows(client, &wrong_events(&snapshot.raw_floor));
    assert!(wrong.is_empty(), "events are not what was sent: {wrong:#?}");
    for _ in 0..questions {
        let verdict = Question::random(rng, snapshot, &shared.days).check(client, snapshot);
        let count = if verdict == Verdict::Equal { &shared.counts.questions } else { &shared.counts.gone };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Everything is quiet: drained, folded, counted.
fn finish(shared: &Shared, client: &mut Client) {
    until("the inbox is empty", || one(client, "SELECT count(*) FROM meterflow.inbox") == "0");
    let mut rng = Rng::new(shared.seed, 999);
    for _ in 0..2 {
        run(client, "BEGIN ISOLATION LEVEL REPEATABLE READ");
        let snapshot = Snapshot::take(client);
        assert_eq!(snapshot.meters(), METERS.len(), "every meter has been made");
        check(shared, client, &mut rng, &snapshot, 60);
        assert_verified(client);
        run(client, "COMMIT");
        until("all is folded", || {
            run(client, "SELECT meterflow.fold()");
            one(
                client,
                "SELECT (SELECT last_value FROM meterflow.batch_seq) = (SELECT folded_batch FROM meterflow.fold_state) AND NOT EXISTS (SELECT FROM meterflow.dirty_ranges)",
            ) == "t"
        });
    }

    let counts = &shared.counts;
    let counted = |count: &AtomicU64| count.load(Ordering::Relaxed).to_string();
    for (name, count) in
        [("accepted", &counts.accepted), ("duplicates", &counts.duplicates), ("failed", &counts.failed)]
    {
        let value = one(client, &format!("SELECT value FROM meterflow.status() WHERE name = '{name}'"));
        assert_eq!(value, counted(count), "status() counts {name}");
    }
    eprintln!(
        "seed {}: {} events, {} duplicates, {} failed, {} corrections; {} snapshots, {} questions equal, {} gone",
        shared.seed,
        counted(&counts.accepted),
        counted(&counts.duplicates),
        counted(&counts.failed),
        counted(&counts.corrections),
        counted(&counts.snapshots),
        counted(&counts.questions),
        counted(&counts.gone)
    );
    let state = rows(
        client,
        "SELECT s.raw_floor, s.hour_floor, s.day_floor, e.dedup_floor, e.insert_generations, e.probe_generations FROM meterflow.fold_state s, meterflow.engine e",
    );
    eprintln!("raw, hour, day and key floors, generations written and probed: {state:?}");
    assert!(
        one(
            client,
            "SELECT raw_floor > '-infinity' AND hour_floor > '-infinity' AND day_floor > '-infinity' FROM meterflow.fold_state"
        ) == "t"
    );
    // The first generation may have been closed late: it is dropped a minute after that.
    until("a generation of keys has been dropped", || {
        run(client, "SELECT meterflow.rotate_dedup()");
        one(client, "SELECT dedup_floor > '-infinity' FROM meterflow.engine") == "t"
    });
    let unhealthy = "SELECT reasons FROM meterflow.health() WHERE NOT healthy";
    until("health() is content", || {
        let reasons = rows(client, unhealthy);
        if !reasons.is_empty() {
            eprintln!("{reasons:?}");
            std::thread::sleep(Duration::from_secs(2));
        }
        reasons.is_empty()
    });
}
