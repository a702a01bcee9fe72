//! A year of billing in five time zones, with late events, corrections, changes of all kinds, voided invoices and
//! crashes: what the invoices add up to is what the raw events and the timelines cost. Done again without a crash, by
//! one session, it gives the same invoices to the last digit.
//!
//! MF_ROUNDS=5 is the full run: 100 customers with more events each.

mod catalogue;
mod check;
mod oracle;
mod runs;
mod world;

use std::time::Instant;

use postgres::Client;

use crate::rng::{Announce, Rng, rounds, seed};
use crate::server::{Server, has_code, one, rows, run, shown, try_rows};
use runs::Runs;
use world::World;

pub const HOUR: i64 = 3_600_000_000;
pub const DAY: i64 = 24 * HOUR;
/// 2025-07-01 and 2026-07-01, UTC.
pub const START: i64 = 20_270 * DAY;
pub const END: i64 = START + 365 * DAY;
/// How late events come, and how long after periods they are still billed: with a quarter in between.
pub const LATE: i64 = 35 * DAY;
const ADJUST_DAYS: i64 = 130;

const SETTINGS: [&str; 7] = [
    // Processes are killed, not the machine: what has been written is there.
    "fsync=off",
    "meterflow.backdate_window=10000d",
    "meterflow.retention_days=0",
    "meterflow.hour_rollup_days=0",
    "meterflow.day_rollup_days=0",
    "meterflow.launcher_interval=1s",
    "restart_after_crash=on",
];

#[test]
fn a_year_of_invoices_is_what_the_events_cost() {
    let seed = seed();
    let _announce = Announce(seed);
    let size = rounds(1);
    let (customers, per_step) = if size == 1 { (30, 2) } else { (100, size as i64) };
    let server = Server::start("billing", &SETTINGS);
    let chaotic = simulate(&server, "chaotic", seed, customers, per_step, true);
    let calm = simulate(&server, "calm", seed, customers, per_step, false);
    for (number, (chaotic, calm)) in chaotic.iter().zip(&calm).enumerate() {
        assert_eq!(chaotic, calm, "row {number} of the two runs");
    }
    assert_eq!(chaotic.len(), calm.len());
}

/// Usage that has not grown since counts towards the next threshold, and earlier periods towards a commitment.
#[test]
fn thresholds_count_what_is_billed_already() {
    let server = Server::start("threshold", &SETTINGS);
    let mut client = server.create_database("threshold");
    run(&mut client, catalogue::METERS);
    run(
        &mut client,
        r#"INSERT INTO meterflow.customers (id, taxes) VALUES ('acme', '{}'), ('bolt', '{}');
           INSERT INTO meterflow.plans (key, currency, progressive) VALUES ('free', 'EUR', '{50,100}'), ('committed', 'EUR', '{50}');
           INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('free', 'tokens', '{"model":"per_unit","unit_amount":"1"}'),
             ('free', 'payments', '{"model":"per_unit","unit_amount":"1"}'),
             ('committed', 'tokens', '{"model":"per_unit","unit_amount":"1","commitment":{"amount":"100","periods":2,"overage_factor":"2"}}');
           INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('acme', 'free', '2025-07-01'), ('bolt', 'committed', '2025-07-01')"#,
    );
    let mut use_and_bill = |day: &str, customer: &str, name: &str, value: u32| {
        let event = format!(
            r#"{{"transaction_id":"{day} {name} {value}","customer_id":"{customer}","event_name":"{name}","timestamp":"{day}","properties":{{"value":{value}}}}}"#
        );
        crate::server::ingest(&mut client, &event).expect("an event");
        rows(&mut client, &format!("SELECT * FROM meterflow.bill_due('{day}')"));
        let made = rows(&mut client, &format!("SELECT invoice_id FROM meterflow.bill_progressive('{day}')"));
        let id = |row: &Vec<Option<String>>| row[0].clone().unwrap_or_default();
        made.iter()
            .map(|row| one(&mut client, &format!("SELECT total FROM meterflow.invoices WHERE id = {}", id(row))))
            .collect::<Vec<_>>()
    };
    let nothing = Vec::<String>::new();
    assert_eq!(use_and_bill("2025-07-02T00:00:00Z", "acme", "call", 49), nothing);
    assert_eq!(use_and_bill("2025-07-03T00:00:00Z", "acme", "call", 11), ["60.00"]);
    assert_eq!(use_and_bill("2025-07-04T00:00:00Z", "acme", "payment", 39), nothing);
    assert_eq!(use_and_bill("2025-07-05T00:00:00Z", "acme", "payment", 1), ["40.00"]);
    assert_eq!(use_and_bill("2025-07-06T00:00:00Z", "acme", "payment", 500), nothing);
    // Of a commitment to 100 in two months 80 are used in the first: of 60 in the second, 40 cost double.
    assert_eq!(use_and_bill("2025-07-07T00:00:00Z", "bolt", "call", 80), ["80.00"]);
    assert_eq!(use_and_bill("2025-08-02T00:00:00Z", "bolt", "call", 60), ["100.00"]);
}

/// Neither a price that comes nor one that ends changes an invoice that has been made.
#[test]
fn a_price_changes_nothing_that_is_billed() {
    let server = Server::start("price", &SETTINGS);
    let mut client = server.create_database("price");
    run(
        &mut client,
        r#"INSERT INTO meterflow.customers (id, price_group) VALUES ('acme', NULL), ('vip', 'vip');
           INSERT INTO meterflow.plans (key, currency) VALUES ('pro', 'EUR');
           INSERT INTO meterflow.prices (plan_key, key, model, advance) VALUES ('pro', 'base', '{"model":"flat","amount":"20"}', true);
           INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('acme', 'pro', '2026-01-01'), ('vip', 'pro', '2026-05-01');
           SELECT * FROM meterflow.bill_due('2026-01-01')"#,
    );
    let price = |columns: &str, values: &str| {
        format!(
            r#"INSERT INTO meterflow.prices (plan_key, key, model, advance, {columns}) VALUES ('pro', 'new', '{{"model":"flat","amount":"5"}}', true, {values})"#
        )
    };
    run(&mut client, "CALL meterflow.run_billing('2026-03-10')");
    for refused in [
        price("valid_from", "'-infinity'"),
        price("valid_from", "'2026-02-28'"),
        price("subscription_id", "1"),
        "UPDATE meterflow.prices SET valid_to = '2026-02-01' WHERE key = 'base'".to_string(),
    ] {
        let error = try_rows(&mut client, &refused).expect_err(&refused);
        assert!(has_code(&error, &postgres::error::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{}", shown(&error));
    }
    for accepted in [
        price("valid_from", "'2026-03-15'"),
        // Nobody of this group has been billed.
        price("price_group", "'vip'"),
        price("subscription_id", "2"),
        "UPDATE meterflow.prices SET valid_to = '2026-04-01' WHERE key = 'base'".to_string(),
    ] {
        run(&mut client, &accepted);
    }
    let preview = "SELECT count(*) FROM meterflow.preview_invoice(1, '2026-04-01') WHERE kind = 'adjustment' OR cycle_start < '2026-03-01'";
    assert_eq!(one(&mut client, preview), "0");
}

/// A year and what follows; returns all invoices as text.
fn simulate(server: &Server, database: &str, seed: u64, customers: usize, per_step: i64, chaos: bool) -> Vec<String> {
    let began = Instant::now();
    let mut client = server.create_database(database);
    run(
        &mut client,
        &format!(
            "INSERT INTO meterflow.billing_settings (adjust_for, grace_period) VALUES ('{ADJUST_DAYS} days', '2 days')"
        ),
    );
    if one(&mut client, "SELECT to_regclass('meterflow.credit_notes')").is_empty() {
        // void_invoice() asks it, and it comes with payments.
        run(&mut client, "CREATE TABLE meterflow.credit_notes (tenant_id text, invoice_id bigint)");
    }
    let mut rng = Rng::new(seed, 0);
    let mut world = World::make(&mut client, customers);
    let mut starts = world.starts(&mut rng);
    let mut runs = Runs::new(server, database, chaos.then(|| Rng::new(seed, 1)));
    let (mut before, mut now, mut too_late, mut voided) = (START - 10 * DAY, START, false, 0);
    while before < END {
        let due: Vec<_> = starts.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, customer, plan, starts_at) in due {
            world.subscribe(&mut client, &mut rng, customer, plan, starts_at);
        }
        world.use_up(&mut client, &mut rng, before, now, per_step);
        world.change(&mut client, &mut rng, now);
        if rng.chance(70) {
            world.give(&mut client, &mut rng);
        }
        if now > START + 300 * DAY && !too_late {
            world.send_too_late(&mut client);
            too_late = true;
        }
        finalize(&mut client, &mut rng);
        voided += void(&mut client, &mut rng, now);
        if now == END {
            world.end(&mut client);
        }
        client = runs.bill(client, now);
        before = now;
        now = (now + rng.range(3 * DAY..11 * DAY)).min(END);
    }
    // Late ones still come after the end; what follows takes all that is left.
    world.use_up(&mut client, &mut rng, END, END + DAY, 0);
    let last = END + (ADJUST_DAYS + 10) * DAY;
    client = runs.bill(client, last);
    let billed = began.elapsed();
    let again = rows(&mut client, &format!("SELECT * FROM meterflow.bill_due({})", catalogue::stamp(last + 365 * DAY)));
    assert!(again.is_empty(), "billed again: {:?}", again[0]);
    let invoices = check::all(&mut client, &world);
    eprintln!(
        "seed {seed}, {database}: {} subscriptions, {invoices} invoices, {voided} voided, billed in {billed:.1?} with {}, checked in {:.1?}",
        world.subscriptions.len(),
        runs.said(),
        began.elapsed() - billed
    );
    check::dump(&mut client)
}

/// Someone doesn't wait for the end of a draft's grace.
fn finalize(client: &mut Client, rng: &mut Rng) {
    let drafts = rows(
        client,
        "SELECT id FROM meterflow.invoices WHERE status = 'draft' ORDER BY customer_id, currency, bill_at",
    );
    let choice = rng.next();
    if let Some(row) = drafts.get((choice % (3 * drafts.len().max(1)) as u64) as usize) {
        let id = row[0].as_deref().unwrap_or_default();
        let sql = format!("SELECT meterflow.finalize_invoice({id}, 'by hand {id}')");
        let first = one(client, &sql);
        // When nothing was left to charge, nobody remembers the key.
        assert!(first.is_empty() || first == one(client, &sql));
    }
}

/// Takes back an invoice now and then; what it charged comes with the next one, or at once.
fn void(client: &mut Client, rng: &mut Rng, now: i64) -> u32 {
    let mut voided = 0;
    for _ in 0..2 {
        let (choice, regenerate) = (rng.next(), rng.chance(60));
        if rng.chance(40) {
            continue;
        }
        // Not of the customer for whom nobody looks back: an invoice in the place of an old one would.
        let candidates = rows(
            client,
            &format!(
                "SELECT i.id, i.kind, (SELECT bool_and(s.next_bill_at IS NOT NULL) AND min(l.cycle_end) > {}::timestamptz - interval '{} days'
                                 FROM meterflow.invoice_lines l JOIN meterflow.subscriptions s ON s.id = l.subscription_id WHERE l.invoice_id = i.id)
                   FROM meterflow.invoices i WHERE i.status IN ('finalized', 'paid') AND i.customer_id <> 'c000' AND i.bill_at > {}::timestamptz - interval '100 days'
                  ORDER BY i.customer_id, i.currency, i.bill_at, i.kind, i.total",
                catalogue::stamp(now), ADJUST_DAYS - 10, catalogue::stamp(now)
            ),
        );
        let Some(row) = candidates.get((choice % candidates.len().max(1) as u64) as usize) else { continue };
        let (id, next_is_due) = (row[0].clone().unwrap_or_default(), row[2].as_deref() == Some("t"));
        if row[1].as_deref() == Some("progressive") && !next_is_due {
            // Made again it bills ahead of the end of a period, and nobody would bill the end.
            continue;
        }
        match try_rows(client, &format!("SELECT meterflow.void_invoice({id}, 'simulated')")) {
            Ok(_) => voided += 1,
            // Others build on it.
            Err(error) if has_code(&error, &postgres::error::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => continue,
            Err(error) => panic!("{}", shown(&error)),
        }
        if regenerate || !next_is_due {
            let sql = format!("SELECT meterflow.regenerate_invoice({id}, 'again {id}')");
            assert_eq!(one(client, &sql), one(client, &sql));
        }
    }
    voided
}
