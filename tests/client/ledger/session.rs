//! A session: chooses an act at random, sends it until it is acknowledged, and notes what came of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postgres::{Client, Error};

use super::acts::{Act, CUSTOMERS, DAY, Done, Of, TOKEN, Usage, WALLETS, is_forced, subscribes};
use crate::rng::Rng;
use crate::server::{Server, now, shown, try_rows};

fn usage(rng: &mut Rng, started: i64, customer: Option<usize>) -> Vec<Usage> {
    let one = |rng: &mut Rng| Usage {
        customer: customer.unwrap_or_else(|| *rng.pick(&[1, 3, 5])),
        api: rng.chance(60),
        quantity: rng.range(1..40),
        // Mostly of now, some for days that have been billed.
        at: now() - if rng.chance(50) { 0 } else { rng.range(0..now() - started) },
    };
    (0..rng.range(1..4)).map(|_| one(rng)).collect()
}

/// What to do next. None: there is nothing to do it to.
fn choose(client: &mut Client, rng: &mut Rng, started: i64) -> Result<Option<Act>, Error> {
    let mut any = |from: &str| -> Result<Option<i64>, Error> {
        let found = try_rows(client, &format!("SELECT id FROM meterflow.{from} ORDER BY random() LIMIT 1"))?;
        Ok(found.first().and_then(|row| row[0].as_deref()?.parse().ok()))
    };
    let customer = rng.index(CUSTOMERS);
    let tokens = |rng: &mut Rng| rng.range(1..120) * TOKEN;
    let soon = |rng: &mut Rng| now() + rng.range(200_000..5_000_000);
    Ok(match rng.range(0..100) {
        0..22 => {
            let (promotional, wallet) = (rng.chance(40), *rng.pick(&WALLETS));
            let starts = match rng.range(0..10) {
                0..7 => None,
                7..9 => Some(soon(rng)),
                _ => Some(now() - 15 * DAY),
            };
            let ends = match rng.range(0..10) {
                0..5 => None,
                5 => Some(now() - 3 * DAY).filter(|ends| starts.is_some_and(|starts| starts < *ends)),
                _ => Some(starts.unwrap_or_else(now).max(now()) + rng.range(300_000..6_000_000)),
            };
            let (cents, priority) = (tokens(rng), *rng.pick(&[50, 50, 10]));
            Some(Act::Credit { promotional, customer, wallet, cents, priority, starts, ends })
        }
        22..37 => {
            let of = match rng.range(0..10) {
                0..6 => Of::Anything,
                6..8 => Of::Api,
                _ => Of::Wallet(*rng.pick(&WALLETS)),
            };
            let force = is_forced(customer) && rng.chance(15);
            let cents = if of == Of::Wallet("tok") { rng.range(1..40) * TOKEN } else { rng.range(1..1500) };
            Some(Act::Debit { customer, cents, of, force })
        }
        37..42 => Some(Act::Debits((0..rng.range(1..7)).map(|_| (rng.index(CUSTOMERS), rng.range(1..800))).collect())),
        42..54 => {
            let millis = if rng.chance(70) { rng.range(200..5_000) } else { 60_000 };
            if subscribes(customer) && rng.chance(40) {
                Some(Act::HoldUsage { customer, quantity: rng.range(1..200), millis })
            } else {
                Some(Act::Hold { customer, cents: rng.range(1..1500), api: rng.chance(30), millis })
            }
        }
        54..66 => {
            let Some(hold) = any("holds WHERE status = 'open'")? else { return Ok(None) };
            let found = try_rows(
                client,
                &format!(
                    "SELECT (amount * 100)::bigint, substr(customer_id, 2) FROM meterflow.holds WHERE id = {hold}"
                ),
            )?;
            let number =
                |column: usize| found[0][column].as_deref().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
            let (cents, customer) = (number(0), number(1) as usize);
            Some(match rng.range(0..10) {
                0..4 => Act::Capture { hold, cents: None },
                4..6 => Act::Capture { hold, cents: Some(rng.range(0..cents + 1)) },
                6..8 if subscribes(customer) => Act::CaptureUsage { hold, usage: usage(rng, started, Some(customer)) },
                _ => Act::Release { hold },
            })
        }
        66..71 => {
            let id = any("credit_grants WHERE NOT spent")?;
            id.map(|grant| Act::End { grant, expire: rng.chance(40) })
        }
        71..80 => {
            let id = any("wallet_transactions WHERE kind IN ('debit', 'debit', 'capture', 'top_up')")?;
            let cents = rng.chance(40).then(|| rng.range(1..400));
            id.map(|transaction| Act::Refund { transaction, cents })
        }
        80..87 => {
            let pair = try_rows(
                client,
                "SELECT a.id, b.id FROM meterflow.wallets a, meterflow.wallets b
                  WHERE a.id <> b.id AND a.credit_unit IS NOT DISTINCT FROM b.credit_unit ORDER BY random() LIMIT 1",
            )?;
            let id = |column: usize| pair.first().and_then(|row| row[column].as_deref()?.parse().ok());
            match (id(0), id(1)) {
                (Some(from), Some(to)) => Some(Act::Transfer { from, to, cents: rng.range(1..40) * TOKEN }),
                _ => None,
            }
        }
        87..92 => Some(Act::Use(usage(rng, started, None))),
        92..95 => Some(Act::Bill),
        95..98 => Some(Act::OneOff { customer, cents: rng.range(1..900) }),
        _ => {
            let id = any("invoices WHERE status IN ('finalized', 'paid')")?;
            id.map(|invoice| Act::Void { invoice })
        }
    })
}

/// What came of it, row by row.
fn send(client: &mut Client, act: &Act, key: &str) -> Result<Vec<Result<i64, String>>, Error> {
    let found = try_rows(client, &act.sql(key))?;
    let outcome = |row: &Vec<Option<String>>| {
        let id = row[0].as_deref().and_then(|text| text.parse().ok());
        match row.get(1).and_then(Option::as_deref) {
            Some(code) => Err(code.to_string()),
            None => Ok(id.unwrap_or(0)),
        }
    };
    Ok(found.iter().map(outcome).collect())
}

/// The connection broke, the server is on its way down or up, or another session was to go first.
fn try_again(error: &Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57P") || ["40001", "40P01"].contains(&code.code()))
}

/// Why an act may be refused: for want of credit, because something is not so any more, or asked for too much.
const REFUSED: [&str; 3] = ["53400", "55000", "22023"];

pub struct Session<'a> {
    pub server: &'a Server,
    pub database: &'a str,
    pub rng: Rng,
    pub name: String,
    /// When the subscriptions began.
    pub started: i64,
    pub acts: &'a AtomicU64,
    pub retries: &'a AtomicU64,
}

impl Session<'_> {
    /// Acts until the time is over; all that it began is acknowledged then.
    pub fn work(&mut self, until: Instant) -> Vec<Done> {
        let mut client: Option<Client> = None;
        let mut done: Vec<Done> = Vec::new();
        let mut number = 0;
        while Instant::now() < until {
            let Some(connected) = self.connected(&mut client) else { continue };
            let act = match choose(connected, &mut self.rng, self.started) {
                Ok(Some(act)) => act,
                Ok(None) => continue,
                Err(error) if try_again(&error) => {
                    client = None;
                    continue;
                }
                Err(error) => panic!("{}", shown(&error)),
            };
            number += 1;
            let key = format!("{}/{number}", self.name);
            let sent = now();
            let came_of_it = self.until_acknowledged(&mut client, &act, &key);
            let acknowledged = now();
            done.push(Done { key, act, came_of_it, sent, acknowledged });
            self.acts.fetch_add(1, Ordering::Relaxed);
            if self.rng.chance(8) {
                let place = self.rng.index(done.len());
                self.again(&mut client, &done[place]);
            }
        }
        done
    }

    fn connected<'c>(&self, client: &'c mut Option<Client>) -> Option<&'c mut Client> {
        if client.as_ref().is_none_or(Client::is_closed) {
            *client = self.server.try_connect(self.database, "load").ok();
            if client.is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        client.as_mut()
    }

    fn until_acknowledged(&self, client: &mut Option<Client>, act: &Act, key: &str) -> Vec<Result<i64, String>> {
        loop {
            let Some(connected) = self.connected(client) else { continue };
            match send(connected, act, key) {
                Ok(came_of_it) => return came_of_it,
                Err(error) if try_again(&error) => {
                    self.retries.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    let code = error.code().map(|code| code.code().to_string()).unwrap_or_default();
                    assert!(REFUSED.contains(&code.as_str()), "{act:?}: {}", shown(&error));
                    return vec![Err(code)];
                }
            }
        }
    }

    /// A retry of what was acknowledged gives the same, and with another body nothing.
    fn again(&self, client: &mut Option<Client>, done: &Done) {
        if !done.act.has_key() || done.came_of_it.iter().any(Result::is_err) {
            return;
        }
        let came_of_it = self.until_acknowledged(client, &done.act, &done.key);
        assert_eq!(came_of_it, done.came_of_it, "{:?} with key {} again", done.act, done.key);
        let Some(other) = done.act.altered() else { return };
        let Some(connected) = self.connected(client) else { return };
        match send(connected, &other, &done.key) {
            Err(error) if try_again(&error) => {}
            // Of another customer's grant the key is looked for in its own turn.
            Err(error) if ["23505", "23503"].contains(&error.code().map_or("", |code| code.code())) => {}
            Err(error) => panic!("{other:?} with key {}: {}", done.key, shown(&error)),
            Ok(came_of_it) => panic!("{other:?} with the key {} of {:?} gave {came_of_it:?}", done.key, done.act),
        }
    }
}
