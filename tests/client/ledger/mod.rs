//! The ledger against a model of a few pages: several sessions do to the credit of several customers whatever can be done,
//! while backends and the server are killed; all that was acknowledged is then done again by the model, in the order in
//! which it was committed, and has to have taken and given the same, grant by grant. And 64 sessions at one wallet.
//!
//! MF_ROUNDS=10 is ten times as long, MF_SEED=... repeats the choices of one run; how sessions interleave it does not.

mod acts;
mod check;
mod crowd;
mod found;
mod model;
mod replay;
mod session;
mod transactions;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;

use crate::rng::{Announce, Rng, rounds, seed};
use crate::server::{Server, assert_verified, kill, now, one, rows, shown, try_rows, until};
use acts::{CUSTOMERS, DAY, is_forced, prepare, subscribes};
use replay::Replay;
use session::Session;

const SESSIONS: u64 = 4;
const SECONDS: u64 = 5;

#[test]
fn credit_is_what_a_model_of_it_says() {
    let seed = seed();
    let _announce = Announce(seed);
    // Processes are killed, not the machine: what has been written is there. Sums of few grants are divided often.
    let settings =
        ["fsync=off", "meterflow.backdate_window=10000d", "restart_after_crash=on", "meterflow.grants_per_sum=3"];
    let server = Server::start("ledger", &settings);
    let mut client = server.create_database("ledger");
    let started = now() - 30 * DAY - DAY / 2;
    prepare(&mut client, started, now() - 5 * DAY);
    let mut replay = Replay::new(&mut client, seed, started);
    let (acts, retries, looks) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut chaos = Rng::new(seed, 1000);
    let mut replayed = Duration::ZERO;
    for round in 0..rounds(4) {
        let (until, stop) = (Instant::now() + Duration::from_secs(SECONDS), AtomicBool::new(false));
        let done: Vec<acts::Done> = std::thread::scope(|scope| {
            let sessions: Vec<_> = (0..SESSIONS)
                .map(|number| {
                    let mut session = Session {
                        server: &server,
                        database: "ledger",
                        rng: Rng::new(seed, round * SESSIONS + number),
                        name: format!("{round}/{number}"),
                        started,
                        acts: &acts,
                        retries: &retries,
                    };
                    scope.spawn(move || session.work(until))
                })
                .collect();
            let watcher = scope.spawn(|| watch(&server, &stop, &looks));
            strike(&server, &mut chaos, round);
            let done = sessions.into_iter().flat_map(|it| it.join().expect("a session that never fails")).collect();
            stop.store(true, Ordering::Relaxed);
            watcher.join().expect("a watcher that finds nothing");
            done
        });
        let began = Instant::now();
        let mut client = wait_for_server(&server);
        assert_verified(&mut client);
        replay.go_on(&mut client, done);
        replay.balances_are_equal(&mut client);
        replay.limits_are_exact(&mut client);
        replayed += began.elapsed();
    }
    let mut client = wait_for_server(&server);
    replay.past_is_as_it_was(&mut client);
    covers(&mut client);
    let [retries, looks] = [&retries, &looks].map(|count| count.load(Ordering::Relaxed));
    eprintln!(
        "seed {seed}: {}, {retries} sent again, {looks} looks meanwhile, replayed in {replayed:.1?}",
        replay.said()
    );
    assert!(retries > 0, "no act was ever in doubt");
}

/// In the middle of a round a backend is killed, or the server.
fn strike(server: &Server, rng: &mut Rng, round: u64) {
    std::thread::sleep(Duration::from_millis(1000 + rng.range(0..1500) as u64));
    if round % 2 == 0 {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = 'ledger' AND application_name = 'load' ORDER BY state = 'active' DESC, pid LIMIT 1";
        let found = rows(&mut server.connect("ledger"), sql);
        if let Some(pid) = found.first().and_then(|row| row[0].as_deref()?.parse().ok()) {
            kill(pid);
        }
    } else {
        kill(server.postmaster());
        server.start_again();
    }
}

fn wait_for_server(server: &Server) -> Client {
    let mut found = None;
    until("the server is back", || {
        found = server.try_connect("ledger", "test").ok();
        found.as_mut().is_some_and(|client: &mut Client| client.simple_query("SELECT 1").is_ok())
    });
    found.expect("just made")
}

/// At any moment, for whoever looks: the ledger adds up, and no balance is below its limit.
fn watch(server: &Server, stop: &AtomicBool, looks: &AtomicU64) {
    let mut client: Option<Client> = None;
    let mut customer = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = &mut client else {
            client = server.try_connect("ledger", "watch").ok();
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        customer = (customer + 1) % CUSTOMERS;
        let sql = format!(
            "SELECT 'ledger', problem || ' ' || detail FROM meterflow.verify_ledger()
             UNION ALL
             SELECT 'below its limit', b::text FROM meterflow.wallet_balance('c{customer}', 'USD') b JOIN meterflow.wallets w ON w.id = b.wallet_id
              WHERE NOT {} AND (b.balance < -coalesce(b.credit_limit, 0) OR NOT {} AND (SELECT count(*) FROM meterflow.invoices i WHERE i.customer_id = 'c{customer}') = 0 AND b.available < 0)",
            is_forced(customer),
            subscribes(customer)
        );
        match try_rows(connected, &sql) {
            Ok(found) => assert!(found.is_empty(), "{found:?}"),
            Err(error) if error.code().is_none_or(|code| code.code().starts_with("57P")) => client = None,
            Err(error) => panic!("{}", shown(&error)),
        }
        looks.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What has happened at all, or nothing is shown.
fn covers(client: &mut Client) {
    let kinds = rows(client, "SELECT kind, count(*) FROM meterflow.wallet_transactions GROUP BY 1 ORDER BY 1");
    let said: Vec<String> = kinds.iter().flatten().flatten().cloned().collect();
    eprintln!("{}", said.join(" "));
    for kind in ["top_up", "grant", "recurring", "debit", "capture", "transfer", "invoice", "refund", "void", "expiry"]
    {
        assert!(said.iter().any(|it| it == kind), "there was no {kind}");
    }
    for (what, sql) in [
        (
            "grants that expired with something left",
            "SELECT count(*) FROM meterflow.credit_grants WHERE expires_at < now() AND NOT spent",
        ),
        (
            "holds that expired",
            "SELECT count(*) FROM meterflow.holds WHERE expires_at < now() AND status IN ('open', 'expired')",
        ),
        (
            "holds captured in part",
            "SELECT count(*) FROM meterflow.holds WHERE captured BETWEEN 0.01 AND amount - 0.01",
        ),
        ("holds for usage", "SELECT count(*) FROM meterflow.holds WHERE quantity IS NOT NULL"),
        (
            "credit of tokens burned",
            "SELECT count(*) FROM meterflow.ledger_entries e JOIN meterflow.wallets w ON w.id = e.wallet_id WHERE w.credit_unit IS NOT NULL AND e.account = 'revenue'",
        ),
        ("overdrafts", "SELECT count(*) FROM meterflow.ledger_entries WHERE grant_id IS NULL AND account = 'revenue'"),
        (
            "overdrafts that were paid",
            "SELECT count(*) FROM meterflow.ledger_entries WHERE grant_id IS NULL AND account = 'overdraft'",
        ),
    ] {
        assert_ne!(one(client, sql), "0", "there were no {what}");
    }
}
