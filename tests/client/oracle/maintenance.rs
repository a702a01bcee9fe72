//! Sessions that keep house while others write: jobs called by hand beside the worker, and changes of meters.

use std::sync::atomic::Ordering;
use std::time::Duration;

use postgres::error::SqlState;

use super::Shared;
use super::meters::METERS;
use crate::rng::Rng;
use crate::server::{has_code, rows, run, shown, try_rows};

pub fn work(shared: &Shared, stream: u64) {
    let mut rng = Rng::new(shared.seed, stream);
    let mut client = shared.server.connect("oracle");
    // Longer than most snapshots of the readers: dropping waits for them.
    run(&mut client, "SET lock_timeout = '4s'");
    while !shared.stop.load(Ordering::Relaxed) {
        let call = rng.weighted(&[
            (10, "fold()"),
            (20, "fold(SOME)"),
            (10, "drain_inbox(SOME)"),
            (25, "rotate_dedup()"),
            (5, "prepare_partitions()"),
            (15, "apply_retention()"),
            (5, "maintain()"),
        ]);
        let call = call.replace("SOME", &rng.range(1..40).to_string());
        // What can't have its lock soon is tried again later.
        match try_rows(&mut client, &format!("SELECT * FROM meterflow.{call}")) {
            Ok(rows) if call == "maintain()" => {
                for row in rows {
                    let outcome = row[1].as_deref().unwrap_or_default();
                    assert!(!outcome.starts_with("error") || outcome.starts_with("error 55P03"), "maintain(): {row:?}");
                }
            }
            Ok(_) => {}
            Err(error) if has_code(&error, &SqlState::LOCK_NOT_AVAILABLE) => {}
            Err(error) => panic!("{call}: {}", shown(&error)),
        }
        std::thread::sleep(Duration::from_millis(rng.range(0..150) as u64));
    }
}

/// Makes, changes and archives meters, in transactions that take their time; all of it in the first phase.
pub fn change_meters(shared: &Shared, stream: u64) {
    let mut rng = Rng::new(shared.seed, stream);
    let mut client = shared.server.connect("oracle");
    let mut changes: Vec<String> = Vec::new();
    for spec in METERS.iter().filter(|spec| !spec.early) {
        changes.insert(rng.index(changes.len() + 1), spec.insert());
    }
    // In their order, at random places between the others.
    let mut sequences: Vec<Vec<String>> = METERS
        .iter()
        .filter(|spec| spec.early)
        .map(|spec| (2..=spec.versions.len()).map(|version| spec.update(version)).collect())
        .collect();
    let archive = |value: &str| format!("UPDATE meterflow.meters SET archived_at = {value} WHERE key = 'archived'");
    sequences.push(vec![archive("now()"), archive("NULL"), archive("clock_timestamp() - interval '3 seconds'")]);
    for sequence in sequences {
        let mut at = 0;
        for change in sequence {
            at = rng.range(at as i64..changes.len() as i64 + 1) as usize;
            changes.insert(at, change);
            at += 1;
        }
    }
    for change in changes {
        loop {
            std::thread::sleep(Duration::from_millis(rng.range(100..1000) as u64));
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            run(&mut client, "BEGIN");
            run(&mut client, &change);
            rows(&mut client, &format!("SELECT pg_sleep({})", *rng.pick(&[0.0, 0.1, 0.5])));
            if rng.chance(15) {
                run(&mut client, "ROLLBACK");
            } else {
                run(&mut client, "COMMIT");
                break;
            }
        }
    }
}
