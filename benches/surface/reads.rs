//! How long a customer's usage and balance take to answer while others ingest, against plain SQL over raw events.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use postgres::types::ToSql;
use postgres::{Client, Statement};

use crate::doors::{self, Batch, Door};
use crate::machine;
use crate::race::{Arena, percentile};
use crate::server::{self, Result, grouped};
use crate::workload::{self, DAY, Ids, Rng, Workload};
use crate::{CUSTOMERS, DATABASE, now, sizes};

/// Ingest in the background: each session sends so many events so often.
pub const BACKGROUND_SESSIONS: u64 = 2;
const BACKGROUND_BATCH: u64 = 500;
const BACKGROUND_PAUSE: Duration = Duration::from_millis(100);

/// The columns that the questions need, and an index that answers all of them without the table. Not partitioned:
/// that makes it faster, not slower.
const BASELINE: &str = r#"
    CREATE TABLE raw_usage (
        tenant_id text COLLATE "C" NOT NULL, customer_id text COLLATE "C" NOT NULL, "timestamp" timestamptz NOT NULL,
        tokens bigint NOT NULL, model text COLLATE "C" NOT NULL, user_id text COLLATE "C" NOT NULL)"#;
const BASELINE_INDEX: &str = r#"
    CREATE INDEX raw_usage_idx ON raw_usage (tenant_id, customer_id, "timestamp") INCLUDE (tokens, model, user_id)"#;

/// Every customer is on a plan with two prices and has a wallet.
const BILLING: &str = r#"
    INSERT INTO meterflow.customers (id) SELECT format('cust_%s', to_char(n, 'FM0000')) FROM generate_series(0, 999) n;
    INSERT INTO meterflow.plans (key, currency) VALUES ('standard', 'USD');
    INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES
        ('standard', 'tokens', '{"model": "per_unit", "unit_amount": "0.000002"}'),
        ('standard', 'requests', '{"model": "per_unit", "unit_amount": "0.0004"}');
    INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at)
    SELECT id, 'standard', date_trunc('month', now(), 'UTC') FROM meterflow.customers;
    SELECT count(meterflow.top_up(id, 1000, 'USD', 'first payment of ' || id)) FROM meterflow.customers"#;

struct Question {
    name: &'static str,
    ours: &'static str,
    plain: &'static str,
    /// It takes the month as parameters, and not only the customer.
    month: bool,
}

const QUESTIONS: [Question; 5] = [
    Question {
        name: "usage: tokens",
        ours: "SELECT value::text FROM meterflow.usage('tokens', $2, $3, $1)",
        plain: r#"SELECT sum(tokens)::text FROM raw_usage
                   WHERE tenant_id = 'default' AND customer_id = $1 AND "timestamp" >= $2 AND "timestamp" < $3"#,
        month: true,
    },
    Question {
        name: "usage: requests by day",
        ours: "SELECT value::text FROM meterflow.usage('requests', $2, $3, $1, 'day') ORDER BY window_start",
        plain: r#"SELECT count(tokens)::text FROM generate_series($2::timestamptz, $3::timestamptz - interval '1 day', '1 day') AS d (day)
                    LEFT JOIN raw_usage ON tenant_id = 'default' AND customer_id = $1 AND "timestamp" >= $2 AND "timestamp" < $3
                                       AND date_trunc('day', "timestamp", 'UTC') = day
                   GROUP BY day ORDER BY day"#,
        month: true,
    },
    Question {
        name: "usage: distinct users",
        ours: "SELECT value::text FROM meterflow.usage('users', $2, $3, $1)",
        plain: r#"SELECT count(DISTINCT user_id)::text FROM raw_usage
                   WHERE tenant_id = 'default' AND customer_id = $1 AND "timestamp" >= $2 AND "timestamp" < $3"#,
        month: true,
    },
    Question {
        name: "current_charges",
        ours: "SELECT sum(amount)::text FROM meterflow.current_charges($1)",
        plain: r#"SELECT (round(sum(tokens) * 0.000002, 2) + round(count(*) * 0.0004, 2))::text
                    FROM raw_usage WHERE tenant_id = 'default' AND customer_id = $1
                     AND "timestamp" >= date_trunc('month', now(), 'UTC')
                     AND "timestamp" < date_trunc('month', now(), 'UTC') + interval '1 month'"#,
        month: false,
    },
    Question {
        name: "wallet_balance",
        ours: "SELECT available::text FROM meterflow.wallet_balance($1)",
        plain: r#"SELECT ((SELECT sum(e.worth) FROM meterflow.wallets w JOIN meterflow.ledger_entries e
                             ON e.tenant_id = w.tenant_id AND e.wallet_id = w.id
                            WHERE w.tenant_id = 'default' AND w.customer_id = $1)
                          - round(sum(tokens) * 0.000002, 2) - round(count(*) * 0.0004, 2))::text
                    FROM raw_usage WHERE tenant_id = 'default' AND customer_id = $1
                     AND "timestamp" >= date_trunc('month', now(), 'UTC')
                     AND "timestamp" < date_trunc('month', now(), 'UTC') + interval '1 month'"#,
        month: false,
    },
];

pub struct Plan {
    /// Events stored, ascending.
    pub sizes: Vec<u64>,
    pub calls: usize,
}

/// What calls of a question took, in milliseconds.
#[derive(Default)]
pub struct Calls {
    /// From sending it to having the answer.
    latency: Vec<f64>,
    /// The same, of calls that found a core free.
    at_once: Vec<f64>,
    /// Time on a CPU in its backend: not what a user waits, but free of what else the machine does.
    cpu: Vec<f64>,
}

impl Calls {
    /// Makes a call that the asker's backend answers.
    pub fn measure(&mut self, asker: &Asker, call: impl FnOnce() -> Result<()>) -> Result<()> {
        let (cpu, began) = (machine::on_cpu(asker.backend), Instant::now());
        call()?;
        let latency = if asker.first { &mut self.at_once } else { &mut self.latency };
        latency.push(began.elapsed().as_secs_f64() * 1e3);
        self.cpu.push((machine::on_cpu(asker.backend) - cpu) * 1e3);
        Ok(())
    }

    /// What the columns of [`HEAD`] say.
    pub fn figures(&self) -> [f64; 6] {
        let of = |times: &[f64]| [percentile(times, 0.5), percentile(times, 0.99)];
        let ([a, b], [c, d], [e, f]) = (of(&self.latency), of(&self.at_once), of(&self.cpu));
        [a, b, c, d, e, f]
    }
}

pub const HEAD: [&str; 6] = ["p50", "p99", "once p50", "once p99", "CPU p50", "CPU p99"];
pub const LEGEND: &str =
    "  once: asking and answering go before ingest, so that a core is free; CPU: time that the backend ran";

pub struct Asker {
    backend: i32,
    first: bool,
}

impl Asker {
    pub fn of(client: &mut Client) -> Result<Asker> {
        Ok(Asker { backend: client.query_one("SELECT pg_backend_pid()", &[])?.get(0), first: false })
    }

    /// Asks in two ways, so many times each: as any process that must wait for a core while ingest has them, which says as
    /// much of the machine as of us; and at once.
    pub fn ask(&mut self, calls: usize, mut round: impl FnMut(&Asker, usize) -> Result<()>) -> Result<()> {
        (0..calls).try_for_each(|call| round(self, call))?;
        self.first = machine::go_first(self.backend, true);
        let asked = if self.first { (0..calls).try_for_each(|call| round(self, call)) } else { Ok(()) };
        machine::go_first(self.backend, false);
        asked
    }
}

pub fn measure(plan: &Plan) -> Result<()> {
    let mut arena = Arena::new(DATABASE)?;
    arena.control.batch_execute(BILLING)?;
    arena.control.batch_execute(BASELINE)?;
    let today = now().div_euclid(DAY) * DAY;
    let month = (today - 29 * DAY, today + DAY);
    println!(
        "\nOne customer of {CUSTOMERS}, each as likely, over the last 30 days, while {BACKGROUND_SESSIONS} sessions ingest {} events/s",
        grouped(BACKGROUND_SESSIONS as f64 * BACKGROUND_BATCH as f64 / BACKGROUND_PAUSE.as_secs_f64()),
    );
    let mut measured = Vec::new();
    let mut stored = 0;
    for &size in &plan.sizes {
        load(&mut arena, Workload::new(100 + size, Ids::Random, CUSTOMERS, (month.0, now()), size - stored))?;
        stored = size;
        measured.push(ask(&mut arena.control, plan, month, size)?);
        check(&mut arena.control, month)?;
        sizes::print(&mut arena.control, "over a month", None)?;
    }
    print(plan, &measured);
    arena.end()
}

/// Ingests the workload, which also fills the baseline's table.
fn load(arena: &mut Arena, workload: Workload) -> Result<()> {
    const CHUNK: u64 = 200_000;
    arena.control.batch_execute("DROP INDEX IF EXISTS raw_usage_idx")?;
    let (began, cpu, mut sending) = (Instant::now(), arena.machine.cpu(), 0.0);
    for first in (0..workload.len).step_by(CHUNK as usize) {
        let events = CHUNK.min(workload.len - first);
        sending += arena.send(Door::Json, &Door::Json.batches(&workload, first, events)?)?.0;
        arena.send(Door::Flat, &Door::Flat.batches(&workload, first, events)?)?;
    }
    server::settle(&mut arena.control)?;
    println!(
        "  loaded {} events of 30 days by ingest(json) at {} events/s; folding them took {:.1} s of CPU a million ({:.0} s in all)",
        grouped(workload.len as f64),
        grouped(workload.len as f64 / sending),
        (arena.machine.cpu() - cpu).worker / workload.len as f64 * 1e6,
        began.elapsed().as_secs_f64(),
    );
    arena.control.batch_execute(BASELINE_INDEX)?;
    for statement in ["VACUUM (ANALYZE) raw_usage", "ANALYZE meterflow.rollups", "CHECKPOINT"] {
        arena.control.batch_execute(statement)?;
    }
    Ok(())
}

/// Asks all questions in turn, so that whatever goes on meets them alike.
fn ask(client: &mut Client, plan: &Plan, month: (i64, i64), size: u64) -> Result<Vec<(String, Calls)>> {
    // The baseline is slower and needs fewer calls for as good a picture.
    const BASELINE_EVERY: usize = 4;
    let mut statements =
        vec![(String::from("SELECT 1, the round trip alone"), client.prepare("SELECT $1::text")?, false, 1)];
    for question in &QUESTIONS {
        statements.push((question.name.to_string(), client.prepare(question.ours)?, question.month, 1));
        statements.push((
            String::from("  baseline: plain SQL"),
            client.prepare(question.plain)?,
            question.month,
            BASELINE_EVERY,
        ));
    }
    let mut calls: Vec<Calls> = statements.iter().map(|_| Calls::default()).collect();
    let mut asker = Asker::of(client)?;
    let mut rng = Rng::new(7);
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let began = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..BACKGROUND_SESSIONS)
            .map(|n| {
                scope.spawn({
                    let (stop, sent) = (&stop, &sent);
                    move || background(size * 10 + n, &[Door::Json, Door::Flat], stop, sent)
                })
            })
            .collect();
        thread::sleep(Duration::from_secs(2)); // until its rows are everywhere: table, deltas, rollups
        let asked = asker.ask(plan.calls, |asker, call| {
            let customer = workload::customer_id(rng.below(u64::from(CUSTOMERS)) as u32);
            for ((_, statement, takes_month, every), calls) in statements.iter().zip(&mut calls) {
                if call.is_multiple_of(*every) {
                    let month = takes_month.then_some(month);
                    calls.measure(asker, || answer(client, statement, &customer, month).map(|_| ()))?;
                }
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panics"))?;
        asked
    })?;
    println!(
        "  {} calls each (baseline: a quarter) in {:.0} s; ingest went on at {} events/s",
        grouped(plan.calls as f64),
        began.elapsed().as_secs_f64(),
        grouped(sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()),
    );
    Ok(statements.into_iter().map(|(name, ..)| name).zip(calls).collect())
}

fn answer(
    client: &mut Client,
    statement: &Statement,
    customer: &str,
    month: Option<(i64, i64)>,
) -> Result<Vec<Option<String>>> {
    let time = |at: i64| SystemTime::UNIX_EPOCH + Duration::from_micros(at.unsigned_abs());
    let bounds = month.map(|(start, end)| (time(start), time(end)));
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&customer];
    if let Some((start, end)) = &bounds {
        params.extend([start as &(dyn ToSql + Sync), end]);
    }
    Ok(client.query(statement, &params)?.iter().map(|row| row.get(0)).collect())
}

/// Live events at a steady rate, through each of the doors: into meterflow, and into the baseline's table.
pub fn background(seed: u64, doors: &[Door], stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let mut client = server::connect(DATABASE)?;
    let doors = doors.iter().map(|door| Ok((*door, door.prepare(&mut client)?))).collect::<Result<Vec<_>>>()?;
    let mut workload = Workload::new(seed, Ids::Random, CUSTOMERS, (now(), now() + DAY), u64::MAX);
    workload.duplicates = 0;
    let mut due = Instant::now();
    for batch in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let places = batch * BACKGROUND_BATCH..(batch + 1) * BACKGROUND_BATCH;
        let at = now();
        let events = || places.clone().map(|i| workload::Event { at, ..workload.event(i) });
        for (door, statement) in &doors {
            let batch = match door {
                Door::Flat => Batch::Lines(workload::lines(events(), workload::Event::push_flat)),
                _ => Batch::Json(server::raw(workload::json(events()))?),
            };
            doors::send(&mut client, statement, &batch)?;
        }
        sent.fetch_add(BACKGROUND_BATCH, Ordering::Relaxed);
        due += BACKGROUND_PAUSE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Both sides must say the same.
fn check(client: &mut Client, month: (i64, i64)) -> Result<()> {
    for question in &QUESTIONS {
        let (ours, plain) = (client.prepare(question.ours)?, client.prepare(question.plain)?);
        for customer in (0..CUSTOMERS).step_by(20) {
            let customer = workload::customer_id(customer);
            let month = question.month.then_some(month);
            let (ours, plain) = (answer(client, &ours, &customer, month)?, answer(client, &plain, &customer, month)?);
            if ours != plain {
                return Err(format!(
                    "{}, {customer}: meterflow says {ours:?}, plain SQL says {plain:?}",
                    question.name
                )
                .into());
            }
        }
    }
    println!("  answers compared with the baseline's for {} customers: equal", CUSTOMERS / 20);
    Ok(())
}

fn print(plan: &Plan, measured: &[Vec<(String, Calls)>]) {
    let several = measured.len() > 1;
    print!("\n{:34}", "Milliseconds a call");
    plan.sizes.iter().for_each(|&size| print!(" {:>53}", format!("{} events", grouped(size as f64))));
    print!("{}\n{:34}", if several { "      growth with the events" } else { "" }, "");
    for _ in 0..measured.len() + usize::from(several) {
        HEAD.iter().for_each(|head| print!(" {head:>8}"));
    }
    println!();
    for (i, (name, first)) in measured[0].iter().enumerate() {
        print!("  {name:32}");
        measured.iter().flat_map(|lines| lines[i].1.figures()).for_each(|figure| print!(" {figure:>8.3}"));
        if let Some(last) = measured.last().filter(|_| several) {
            let figures = last[i].1.figures().into_iter().zip(first.figures());
            figures.for_each(|(last, first)| print!(" {:>7.2}x", last / first));
        }
        println!();
    }
    println!("{LEGEND}");
}
