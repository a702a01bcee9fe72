//! Billing runs: to the end in one session, or by two at once, or with a backend or the whole server killed in between.

use std::time::{Duration, Instant};

use postgres::{Client, Error};

use super::catalogue::stamp;
use crate::rng::Rng;
use crate::server::{Server, kill, shown, try_rows, until};

pub struct Runs<'a> {
    server: &'a Server,
    database: &'a str,
    chaos: Option<Rng>,
    step: usize,
    /// How many runs were disturbed in each way, and in how many of them the work was cut short.
    counts: [u32; 4],
    cut_short: u32,
    spent: Duration,
}

const WAYS: [&str; 4] = ["two at once", "terminated", "backends killed", "servers killed"];

impl<'a> Runs<'a> {
    pub fn new(server: &'a Server, database: &'a str, chaos: Option<Rng>) -> Runs<'a> {
        Runs { server, database, chaos, step: 0, counts: [0; 4], cut_short: 0, spent: Duration::ZERO }
    }

    pub fn said(&self) -> String {
        let counts =
            WAYS.iter().zip(self.counts).map(|(way, count)| format!("{count} {way}")).collect::<Vec<_>>().join(", ");
        format!("{counts}; {} cut short, {:.1?} in runs", self.cut_short, self.spent)
    }

    /// Bills all that is due by then, however often it takes.
    pub fn bill(&mut self, client: Client, at: i64) -> Client {
        let began = Instant::now();
        let client = self.bill_somehow(client, at);
        self.spent += began.elapsed();
        client
    }

    fn bill_somehow(&mut self, client: Client, at: i64) -> Client {
        self.step += 1;
        let Some(mut rng) = self.chaos.take() else { return self.finish(client, at) };
        // Each way at least once in a short run; a crash of the server takes seconds, so those are few.
        let way = match self.step {
            12 | 33 => Some(2),
            22 => Some(3),
            _ => rng.weighted(&[(4, None), (3, Some(0)), (3, Some(1))]),
        };
        let client = match way {
            Some(way) => {
                self.counts[way] += 1;
                self.disturbed(client, at, way, &mut rng)
            }
            None => client,
        };
        self.chaos = Some(rng);
        self.finish(client, at)
    }

    fn finish(&self, mut client: Client, at: i64) -> Client {
        bill_all(&mut client, at, 1000).unwrap_or_else(|error| panic!("{}", shown(&error)));
        client
    }

    fn disturbed(&mut self, client: Client, at: i64, way: usize, rng: &mut Rng) -> Client {
        let batch = rng.range(1..9);
        let connect = |name: &str| {
            let mut client =
                self.server.try_connect(self.database, name).unwrap_or_else(|error| panic!("{}", shown(&error)));
            let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).expect("a session").get(0);
            (client, pid as u32)
        };
        let ((mut first, pid), (mut second, _)) = (connect("first"), connect("second"));
        let pause = Duration::from_millis(rng.range(1..120) as u64);
        let ended = std::thread::scope(|scope| {
            let first = scope.spawn(move || bill_all(&mut first, at, batch));
            if way == 0 {
                bill_all(&mut second, at, 1000).unwrap_or_else(|error| panic!("{}", shown(&error)));
            } else {
                std::thread::sleep(pause);
                match way {
                    1 => {
                        let _ = second.query("SELECT pg_terminate_backend($1)", &[&(pid as i32)]);
                    }
                    2 => kill(pid),
                    _ => kill(self.server.postmaster()),
                }
            }
            first.join().expect("a session that only fails")
        });
        match ended {
            Err(error) if way == 0 => panic!("{}", shown(&error)),
            Err(_) => self.cut_short += 1,
            Ok(()) => {}
        }
        if way < 2 {
            return client;
        }
        drop(client);
        if way == 3 {
            self.server.start_again();
        }
        let mut found = None;
        until("the server is back", || {
            // A connection may still be one to the server that is about to go down.
            std::thread::sleep(Duration::from_millis(200));
            found = self.server.try_connect(self.database, "test").ok();
            std::thread::sleep(Duration::from_millis(200));
            found.as_mut().is_some_and(|client| client.simple_query("SELECT 1").is_ok())
        });
        found.expect("just made")
    }
}

/// As CALL run_billing() does, and looks at what it says.
fn bill_all(client: &mut Client, at: i64, batch: i64) -> Result<(), Error> {
    for _ in 0..1_000 {
        let sql = format!(
            "SELECT CASE WHEN outcome = 'draft' AND invoice_id IS NOT NULL THEN 'new draft' ELSE outcome END, customer_id FROM meterflow.bill_due({}, {batch})",
            stamp(at)
        );
        let made = try_rows(client, &sql)?;
        let outcome = |row: &Vec<Option<String>>| row[0].clone().unwrap_or_default();
        let wrong = made.iter().find(|row| outcome(row).starts_with("error"));
        assert!(wrong.is_none(), "{wrong:?}");
        if !made.iter().any(|row| ["finalized", "nothing to charge", "new draft"].contains(&outcome(row).as_str())) {
            try_rows(client, &format!("SELECT * FROM meterflow.bill_progressive({})", stamp(at)))?;
            return Ok(());
        }
    }
    panic!("the billing run has no end");
}
