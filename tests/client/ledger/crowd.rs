//! 64 sessions on one wallet: holds, captures and debits of what is there, to the last cent and not one more.

use std::time::{Duration, Instant};

use postgres::Client;

use super::acts::money;
use crate::rng::{Announce, Rng, rounds, seed};
use crate::server::{Server, assert_verified, one, run, shown, try_rows};

const CROWD: u64 = 64;

#[test]
fn sixty_four_sessions_do_not_overspend() {
    let seed = seed();
    let _announce = Announce(seed);
    let server = Server::start("crowd", &["fsync=off", "meterflow.workers=off"]);
    let mut client = server.create_database("crowd");
    run(&mut client, "INSERT INTO meterflow.customers (id) VALUES ('hot')");
    // Lasting credit and such with an end, promotional and bought: 3000.00 in all, and 5.00 that may be owed.
    run(
        &mut client,
        "INSERT INTO meterflow.wallets (customer_id, currency, name, kind, credit_limit, priority) VALUES ('hot', 'USD', 'owing', 'postpaid', 5, 60);
         SELECT meterflow.top_up('hot', 100, 'USD', 'top ' || i) FROM generate_series(1, 15) i;
         SELECT meterflow.grant_credit('hot', 100, 'USD', 'grant ' || i, expires_at => now() + i * interval '1 hour') FROM generate_series(1, 15) i",
    );
    for round in 0..rounds(1) {
        let spent = crowd(&server, seed, round);
        let refill = money(spent);
        assert_verified(&mut client);
        let left =
            one(&mut client, "SELECT (sum(available) * 100)::bigint FROM meterflow.wallet_balance('hot', 'USD')");
        // Whoever was refused last asked for a cent.
        assert_eq!(
            (left.as_str(), spent),
            ("0", if round == 0 { 300_500 } else { spent }),
            "cents available and spent"
        );
        let by_ledger =
            "SELECT (-sum(amount) * 100)::bigint FROM meterflow.wallet_transactions WHERE kind IN ('debit', 'capture')";
        let keys = "SELECT count(*) <> count(DISTINCT idempotency_key) FROM meterflow.wallet_transactions WHERE kind = 'debit'";
        assert_eq!(one(&mut client, keys), "f");
        if round == 0 {
            assert_eq!(one(&mut client, by_ledger), spent.to_string());
        }
        run(&mut client, &format!("SELECT meterflow.top_up('hot', {refill}, 'USD', 'refill {round}')"));
    }
}

/// Lets them spend until nothing is left; what was acknowledged as spent, in cents.
fn crowd(server: &Server, seed: u64, round: u64) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..CROWD)
            .map(|number| {
                scope.spawn(move || {
                    let mut client = server.connect("crowd");
                    let mut rng = Rng::new(seed, round << 32 | number);
                    let (mut spent, mut most, mut acts) = (0, 3_000, 0);
                    // Refused, it asks for less; refused a cent, it is done, unless a hold may still be let go.
                    while most > 0 {
                        assert!(Instant::now() < deadline, "session {number} still asks for {most} cents");
                        acts += 1;
                        let cents = rng.range(1..most + 1);
                        match spend(&mut client, &mut rng, &format!("{round} {number} {acts}"), cents) {
                            Some(cents) => spent += cents,
                            None => most = cents - 1,
                        }
                        if most == 0 && one(&mut client, "SELECT count(*) FROM meterflow.active_holds") != "0" {
                            most = 1;
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                    spent
                })
            })
            .collect();
        sessions.into_iter().map(|it| it.join().expect("a session that is only refused")).sum()
    })
}

/// What it spent in the end; None: so much was not there.
fn spend(client: &mut Client, rng: &mut Rng, key: &str, cents: i64) -> Option<i64> {
    let mut number = |sql: &str| -> Option<i64> {
        match try_rows(client, sql) {
            Ok(rows) => Some(rows[0][0].as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)),
            Err(error) if error.code().is_some_and(|code| code.code() == "53400") => None,
            Err(error) => panic!("{sql}: {}", shown(&error)),
        }
    };
    let amount = money(cents);
    match rng.range(0..10) {
        0..4 => number(&format!("SELECT meterflow.debit('hot', {amount}, 'USD', '{key}')")).map(|_| cents),
        4..6 => {
            let sql = format!(
                "SELECT count(transaction_id) FROM meterflow.debit_rows('{{hot,hot}}', '{{{amount},{amount}}}', 'USD', '{{{key} a,{key} b}}')"
            );
            number(&sql).filter(|count| *count > 0).map(|count| count * cents)
        }
        kind => {
            let hold = number(&format!("SELECT meterflow.hold('hot', {amount}, 'USD', '1 minute', '{key}')"))?;
            let part = match kind {
                6..8 => cents,
                8 => rng.range(0..cents + 1),
                _ => 0,
            };
            // A hold is a promise: what is captured of it is there.
            let verb = if kind == 9 { format!("release({hold})") } else { format!("capture({hold}, {})", money(part)) };
            number(&format!("SELECT meterflow.{verb}")).expect("a hold can be captured");
            Some(part)
        }
    }
}
