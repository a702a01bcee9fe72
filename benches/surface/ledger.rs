//! What it costs to move credit and to hold it, beside the statement that a plain table takes for it; and what a balance
//! costs, whatever lies behind it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::{Client, Statement};

use crate::doors::Door;
use crate::machine::{self, Cpu, Machine};
use crate::race::median;
use crate::reads::{self, Asker, Calls};
use crate::server::{self, Result, grouped};
use crate::workload::{self, Rng};
use crate::{CUSTOMERS, DATABASE};

pub struct Plan {
    pub sessions: &'static [usize],
    pub rounds: usize,
    /// Of a side in a round.
    pub slice: Duration,
}

/// In the hundredths that every debit and hold is of. Enough that nothing is ever refused.
const PAID_IN: i64 = 100_000_000_000;

const PLAIN: &str = r#"
    CREATE TABLE plain_wallets (customer_id text COLLATE "C" PRIMARY KEY, balance numeric NOT NULL) WITH (fillfactor = 50)"#;

/// Work that takes turns.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Debit,
    Hold,
    HoldAndCapture,
    DebitRows(usize),
    Update,
    UpdateRows(usize),
}

const SIDES: [Side; 8] = [
    Side::Debit,
    Side::Hold,
    Side::HoldAndCapture,
    Side::DebitRows(100),
    Side::DebitRows(1_000),
    Side::Update,
    Side::UpdateRows(100),
    Side::UpdateRows(1_000),
];

impl Side {
    fn name(self) -> String {
        match self {
            Side::Debit => String::from("debit()"),
            Side::Hold => String::from("hold()"),
            Side::HoldAndCapture => String::from("hold(), and capture() of half"),
            Side::DebitRows(rows) => format!("debit_rows() of {}", grouped(rows as f64)),
            Side::Update => String::from("baseline: UPDATE"),
            Side::UpdateRows(rows) => format!("baseline: UPDATE FROM unnest of {}", grouped(rows as f64)),
        }
    }

    /// Hundredths that it takes of the ledger each time.
    fn spends(self) -> i64 {
        match self {
            Side::Debit | Side::HoldAndCapture | Side::DebitRows(_) => 1,
            Side::Hold | Side::Update | Side::UpdateRows(_) => 0,
        }
    }

    /// One row for each customer; of one customer, a row as their sum: an UPDATE changes a row once.
    fn sql(self, hot: bool) -> &'static str {
        match self {
            Side::Debit => "SELECT meterflow.debit($1, 0.01, 'USD', $2)",
            Side::Hold => "SELECT meterflow.hold($1, 0.01, 'USD', '1 hour', $2)",
            Side::HoldAndCapture => "SELECT meterflow.hold($1, 0.02, 'USD', '1 hour', $2)",
            Side::DebitRows(_) => {
                "SELECT count(transaction_id), min(message) FROM meterflow.debit_rows($1, array_fill(0.01::numeric, ARRAY[cardinality($1::text[])]), 'USD', $2)"
            }
            Side::Update => "UPDATE plain_wallets SET balance = balance - 0.01 WHERE customer_id = $1 AND balance >= 0.01",
            Side::UpdateRows(_) if hot => {
                "UPDATE plain_wallets SET balance = balance - s.x FROM (SELECT a.id, sum(a.x) AS x FROM unnest($1::text[], array_fill(0.01::numeric, ARRAY[cardinality($1::text[])])) a (id, x) GROUP BY 1) s
                  WHERE customer_id = s.id AND balance >= s.x"
            }
            Side::UpdateRows(_) => {
                "UPDATE plain_wallets SET balance = balance - a.x FROM unnest($1::text[], array_fill(0.01::numeric, ARRAY[cardinality($1::text[])])) a (id, x)
                  WHERE customer_id = a.id AND balance >= a.x"
            }
        }
    }
}

/// What a side did in its turn.
#[derive(Clone, Copy)]
struct Turn {
    done: f64,
    seconds: f64,
    cpu: Cpu,
    wal: f64,
}

impl Turn {
    fn rate(&self) -> f64 {
        self.done / self.seconds
    }
}

struct Session {
    client: Client,
    statements: Vec<Statement>,
    capture: Statement,
    rng: Rng,
    /// Where the names of its acts go on.
    next: u64,
    number: usize,
}

impl Session {
    fn open(number: usize, hot: bool) -> Result<Session> {
        let mut client = server::connect(DATABASE)?;
        let statements =
            SIDES.iter().map(|side| Ok(client.prepare(side.sql(hot))?)).collect::<Result<Vec<Statement>>>()?;
        let capture = client.prepare("SELECT meterflow.capture($1, 0.01)")?;
        Ok(Session { client, statements, capture, rng: Rng::new(number as u64), next: 0, number })
    }

    fn key(&mut self) -> String {
        self.next += 1;
        format!("session {} act {}", self.number, self.next)
    }

    /// Does it once; returns how many debits or holds that was.
    fn act(&mut self, place: usize, wallets: u64) -> Result<u64> {
        let side = SIDES[place];
        match side {
            Side::Debit | Side::Hold | Side::HoldAndCapture => {
                let (customer, key) = (workload::customer_id(self.rng.below(wallets) as u32), self.key());
                let id: i64 = self.client.query_one(&self.statements[place], &[&customer, &key])?.get(0);
                if side == Side::HoldAndCapture {
                    self.client.query_one(&self.capture, &[&id])?;
                }
                Ok(1)
            }
            Side::Update => {
                let customer = workload::customer_id(self.rng.below(wallets) as u32);
                match self.client.execute(&self.statements[place], &[&customer])? {
                    1 => Ok(1),
                    rows => Err(format!("the baseline changed {rows} rows").into()),
                }
            }
            Side::DebitRows(rows) => {
                let customers = self.customers(rows, wallets);
                let keys: Vec<String> = customers.iter().map(|_| self.key()).collect();
                let row = self.client.query_one(&self.statements[place], &[&customers, &keys])?;
                match (row.get::<_, i64>(0), row.get::<_, Option<String>>(1)) {
                    (done, None) if done == rows as i64 => Ok(rows as u64),
                    (done, why) => Err(format!("{done} of {rows} debits were made: {why:?}").into()),
                }
            }
            Side::UpdateRows(rows) => {
                let customers = self.customers(rows, wallets);
                let changed = if wallets == 1 { 1 } else { rows as u64 };
                loop {
                    match self.client.execute(&self.statements[place], &[&customers]) {
                        Ok(done) if done == changed => return Ok(rows as u64),
                        Ok(done) => return Err(format!("the baseline changed {done} of {changed} rows").into()),
                        // It locks rows in whatever order its plan meets them.
                        Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// So many different customers in order, beginning anywhere; of one wallet always the same.
    fn customers(&mut self, rows: usize, wallets: u64) -> Vec<String> {
        let (first, step) = (self.rng.below(wallets), wallets / rows as u64);
        let mut customers: Vec<String> =
            (0..rows as u64).map(|n| workload::customer_id(((first + n * step) % wallets) as u32)).collect();
        customers.sort_unstable();
        customers
    }
}

pub fn measure(plan: &Plan) -> Result<()> {
    println!(
        "\nCredit: {} rounds, {} ms a side in turns, each call a transaction; medians, ratios against the baseline in the same round:",
        plan.rounds,
        plan.slice.as_millis()
    );
    println!(
        "of one: a plain table's UPDATE ... SET balance = balance - x WHERE balance >= x; of many: the same FROM unnest of as many"
    );
    for wallets in [u64::from(CUSTOMERS), 1] {
        for &sessions in plan.sessions {
            race(plan, wallets, sessions)?;
        }
    }
    Ok(())
}

fn race(plan: &Plan, wallets: u64, count: usize) -> Result<()> {
    let mut control = server::create_database(DATABASE)?;
    control.batch_execute(PLAIN)?;
    control.execute(
        "INSERT INTO meterflow.customers (id) SELECT unnest($1::text[])",
        &[&(0..wallets as u32).map(workload::customer_id).collect::<Vec<_>>()],
    )?;
    control.execute(
        "SELECT count(meterflow.top_up(id, $1::bigint / 100.0, 'USD', 'first payment of ' || id)) FROM meterflow.customers",
        &[&PAID_IN],
    )?;
    control.execute("INSERT INTO plain_wallets SELECT id, $1::bigint / 100.0 FROM meterflow.customers", &[&PAID_IN])?;
    settle(&mut control)?;
    let machine = Machine::of(&mut control)?;
    let mut sessions =
        (0..count).map(|number| Session::open(number, wallets == 1)).collect::<Result<Vec<Session>>>()?;
    let mut turns: Vec<Vec<Turn>> = SIDES.iter().map(|_| Vec::new()).collect();
    let mut spent = 0;
    // The first round is not counted: plans are made in it, and caches filled.
    for round in 0..=plan.rounds {
        for (place, side) in SIDES.iter().enumerate() {
            let slice = if round == 0 { plan.slice / 4 } else { plan.slice };
            let turn = turn(&mut control, &machine, &mut sessions, place, wallets, slice)?;
            spent += side.spends() * turn.done as i64;
            if round > 0 {
                turns[place].push(turn);
            }
        }
    }
    check(&mut control, wallets as i64 * PAID_IN - spent)?;
    print(wallets, count, &turns);
    drop((control, sessions));
    server::drop_database(DATABASE)
}

fn settle(client: &mut Client) -> Result<()> {
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        client.batch_execute(statement)?;
    }
    Ok(())
}

/// All sessions do it until the time is up.
fn turn(
    control: &mut Client,
    machine: &Machine,
    sessions: &mut [Session],
    place: usize,
    wallets: u64,
    slice: Duration,
) -> Result<Turn> {
    let start = Barrier::new(sessions.len() + 1);
    let (cpu, wal) = (machine.cpu(), machine::wal(control)?);
    let work = |session: &mut Session| -> Result<u64> {
        start.wait();
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < slice {
            done += session.act(place, wallets)?;
        }
        Ok(done)
    };
    let (done, seconds) = thread::scope(|scope| -> Result<(u64, f64)> {
        let threads: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(|| work(session))).collect();
        start.wait();
        let began = Instant::now();
        let done = threads.into_iter().map(|thread| thread.join().expect("no panics")).sum::<Result<u64>>()?;
        Ok((done, began.elapsed().as_secs_f64()))
    })?;
    Ok(Turn { done: done as f64, seconds, cpu: machine.cpu() - cpu, wal: machine::wal(control)? - wal })
}

/// The ledger must be whole, and have as many hundredths as clients were told.
fn check(control: &mut Client, left: i64) -> Result<()> {
    control.batch_execute("ANALYZE")?;
    check_ledger(control)?;
    let found: i64 =
        control.query_one("SELECT (sum(remaining) * 100)::bigint FROM meterflow.credit_grants", &[])?.get(0);
    if found != left {
        return Err(format!("{found} hundredths are left, by what clients were told {left}").into());
    }
    Ok(())
}

fn check_ledger(control: &mut Client) -> Result<()> {
    match control.query_opt("SELECT problem || ': ' || detail FROM meterflow.verify_ledger() LIMIT 1", &[])? {
        Some(row) => Err(format!("verify_ledger(): {}", row.get::<_, String>(0)).into()),
        None => Ok(()),
    }
}

fn print(wallets: u64, sessions: usize, turns: &[Vec<Turn>]) {
    let of = |side: Side| SIDES.iter().zip(turns).find(|(known, _)| **known == side).map(|(_, turns)| turns);
    let against = |turns: &[Turn], base: Option<&Vec<Turn>>| match base {
        Some(base) => {
            let ratio = median(turns.iter().zip(base).map(|(turn, base)| turn.rate() / base.rate()).collect());
            format!("{ratio:.2}")
        }
        None => String::new(),
    };
    let title = format!(
        "{sessions} sessions, {}",
        if wallets == 1 { String::from("one wallet") } else { format!("{} wallets", grouped(wallets as f64)) }
    );
    println!("\n{title:38} {:>10} {:>8} {:>8} {:>10} {:>8}", "a second", "of one", "of many", "CPU us", "WAL B");
    for (side, turns) in SIDES.iter().zip(turns) {
        let (one, many) = match side {
            Side::Update | Side::UpdateRows(_) => (None, None),
            Side::DebitRows(rows) => (of(Side::Update), of(Side::UpdateRows(*rows))),
            _ => (of(Side::Update), None),
        };
        println!(
            "  {:36} {:>10} {:>8} {:>8} {:>10.1} {:>8}",
            side.name(),
            grouped(median(turns.iter().map(Turn::rate).collect())),
            against(turns, one),
            against(turns, many),
            median(turns.iter().map(|turn| turn.cpu.server / turn.done * 1e6).collect()),
            grouped(median(turns.iter().map(|turn| turn.wal / turn.done).collect())),
        );
    }
    let all = || turns.iter().flatten();
    let seconds: f64 = all().map(|turn| turn.seconds).sum();
    println!(
        "  verify_ledger() found nothing; meanwhile the client took {:.0}% of a core, work that is none of ours {:.0}%",
        100.0 * all().map(|turn| turn.cpu.client).sum::<f64>() / seconds,
        100.0 * all().map(|turn| turn.cpu.others()).sum::<f64>() / seconds,
    );
}

const CATALOGUE: &str = r#"
    INSERT INTO meterflow.plans (key, currency) VALUES ('standard', 'USD');
    INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES
        ('standard', 'tokens', '{"model": "per_unit", "unit_amount": "0.000002"}'),
        ('standard', 'requests', '{"model": "per_unit", "unit_amount": "0.0004"}')"#;

/// Customers by what lies behind their balance: their name, and what makes it. Each has 1,000 USD besides, and some a
/// subscription.
const BEHIND: [(&str, &str); 12] = [
    ("one grant", ""),
    ("100 grants that never expire", "SELECT count(meterflow.grant_credit($1, 1, 'USD', $1 || n)) FROM generate_series(1, 99) n"),
    ("10,000 grants that never expire", "SELECT count(meterflow.grant_credit($1, 1, 'USD', $1 || n)) FROM generate_series(1, 9999) n"),
    (
        "100 grants that will expire",
        "SELECT count(meterflow.grant_credit($1, 1, 'USD', $1 || n, expires_at => now() + n * interval '1 day')) FROM generate_series(1, 99) n",
    ),
    (
        "10,000 grants that will expire",
        "SELECT count(meterflow.grant_credit($1, 1, 'USD', $1 || n, expires_at => now() + n * interval '1 day')) FROM generate_series(1, 9999) n",
    ),
    (
        "10,000 grants that have expired",
        "SELECT count(meterflow.grant_credit($1, 1, 'USD', $1 || n, effective_at => now() - interval '2 days', expires_at => now() - n * interval '1 second'))
           FROM generate_series(1, 9999) n",
    ),
    (
        "10,000 debits of one grant",
        "SELECT count(d.transaction_id) FROM meterflow.debit_rows(array_fill($1::text, ARRAY[9999]), array_fill(0.01::numeric, ARRAY[9999]), 'USD', ARRAY(SELECT $1 || n FROM generate_series(1, 9999) n)) d",
    ),
    (
        "10,000 grants, one expires each hour",
        "SELECT count(meterflow.grant_credit($1, 1, 'USD', $1 || n, effective_at => now() - interval '300 days', expires_at => now() + (n - 100) * interval '1 hour'))
           FROM generate_series(1, 9999) n",
    ),
    (
        "10,000 grants of two wallets in turn",
        "SELECT count(meterflow.grant_credit($1, 1, 'USD', $1 || n, expires_at => now() + n * interval '1 day', wallet => CASE n % 2 WHEN 0 THEN 'default' ELSE 'other' END))
           FROM generate_series(1, 9999) n",
    ),
    ("10,000 holds", "SELECT count(meterflow.hold($1, 0.01, 'USD', '1 day', $1 || n)) FROM generate_series(1, 9999) n"),
    (
        "10,000 grants, and two prices open",
        "SELECT count(meterflow.grant_credit($1, 1, 'USD', $1 || n, expires_at => now() + n * interval '1 day')) FROM generate_series(1, 9999) n",
    ),
    (
        "10,000 debits, and two prices open",
        "SELECT count(d.transaction_id) FROM meterflow.debit_rows(array_fill($1::text, ARRAY[9999]), array_fill(0.01::numeric, ARRAY[9999]), 'USD', ARRAY(SELECT $1 || n FROM generate_series(1, 9999) n)) d",
    ),
];

/// Wall-clock and CPU time of each balance, while others ingest.
pub fn balances(calls: usize) -> Result<()> {
    let mut client = server::create_database(DATABASE)?;
    client.batch_execute(crate::doors::METERS)?;
    client.batch_execute(CATALOGUE)?;
    server::settle(&mut client)?;
    for (name, behind) in BEHIND {
        client.execute("INSERT INTO meterflow.customers (id) VALUES ($1)", &[&name])?;
        client.execute("SELECT meterflow.top_up($1, 1000, 'USD', 'first payment of ' || $1)", &[&name])?;
        if !behind.is_empty() {
            client.execute(behind, &[&name])?;
        }
    }
    for (seed, (priced, _)) in (9..).zip(BEHIND.iter().filter(|(name, _)| name.ends_with("two prices open"))) {
        client.execute("INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ($1, 'standard', date_trunc('month', now(), 'UTC'))", &[priced])?;
        let hour = (crate::now() - workload::HOUR, crate::now());
        let mut ours = workload::Workload::new(seed, workload::Ids::Random, 1, hour, 1_000);
        ours.duplicates = 0;
        let events = workload::json((0..ours.len).map(|i| ours.event(i))).replace(&workload::customer_id(0), priced);
        client.query("SELECT accepted FROM meterflow.ingest($1)", &[&server::raw(events)?])?;
    }
    settle(&mut client)?;
    check_ledger(&mut client)?;

    let floor = client.prepare("SELECT $1::text")?;
    let balance = client.prepare("SELECT available::text FROM meterflow.wallet_balance($1, 'USD')")?;
    let mut asked_of: Vec<Calls> = (0..=BEHIND.len()).map(|_| Calls::default()).collect();
    let mut asker = Asker::of(&mut client)?;
    let (stop, sent, began) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    thread::scope(|scope| -> Result<()> {
        let ingest = |seed| reads::background(seed, &[Door::Json], &stop, &sent);
        let threads: Vec<_> = (0..reads::BACKGROUND_SESSIONS).map(|n| scope.spawn(move || ingest(n))).collect();
        let asked = asker.ask(calls, |asker, _| {
            asked_of[0].measure(asker, || Ok(client.query_one(&floor, &[&"floor"]).map(|_| ())?))?;
            for ((name, _), calls) in BEHIND.iter().zip(&mut asked_of[1..]) {
                calls.measure(asker, || Ok(client.query(&balance, &[name]).map(|_| ())?))?;
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panics"))?;
        asked
    })?;
    println!(
        "\nwallet_balance, by what lies behind it; {} calls each in turns, while {} sessions ingest {} events/s",
        grouped(calls as f64),
        reads::BACKGROUND_SESSIONS,
        grouped(sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()),
    );
    print!("{:38}", "Milliseconds a call");
    reads::HEAD.iter().for_each(|head| print!(" {head:>8}"));
    println!();
    let names = std::iter::once("SELECT 1, the round trip alone").chain(BEHIND.iter().map(|(name, _)| *name));
    for (name, calls) in names.zip(&asked_of) {
        print!("  {name:36}");
        calls.figures().iter().for_each(|figure| print!(" {figure:>8.3}"));
        println!();
    }
    println!("{}", reads::LEGEND);
    drop(client);
    server::drop_database(DATABASE)
}
