//! A tour of meterflow: a month of traffic of an LLM gateway, ingested, metered, priced and checked. `make demo`.
//!
//! Makes the database meterflow_demo anew on the server that the environment names, and leaves it to be looked at.

mod server;
mod workload;

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use postgres::Client;
use postgres::types::Json;
use serde_json::value::RawValue;

use server::{Result, grouped};
use workload::{DAY, Event, Ids, Workload};

const DATABASE: &str = "meterflow_demo";
/// One in a hundred is a duplicate, so that a million are new.
const EVENTS: u64 = 1_015_000;
const BATCH: u64 = 1_000;
const SESSIONS: usize = 2;
const CUSTOMERS: u32 = 60;
const DAYS: i64 = 30;

const SETUP: &str = r#"
    INSERT INTO meterflow.meters (key, event_name, aggregation, property, dimensions, percentile, bucket_size, description) VALUES
        ('requests', 'llm.request', 'count', NULL, '{}', NULL, NULL, 'Requests'),
        ('tokens', 'llm.request', 'sum', 'tokens', '{model}', NULL, NULL, 'Tokens, by model'),
        ('users', 'llm.request', 'unique_count', 'user', '{}', NULL, NULL, 'Distinct users'),
        ('latency_p95', 'llm.request', 'percentile', 'latency_ms', '{}', 0.95, NULL, '95th percentile of latency'),
        ('peak_tokens', 'llm.request', 'bucket_max', 'tokens', '{}', NULL, '1 day', 'Largest request of each day, added up');
    INSERT INTO meterflow.customers (id, name, currency)
    SELECT format('cust_%s', to_char(n, 'FM0000')), format('%s %s', ('{Acorn,Bluebird,Cobalt,Driftwood,Ember,Fjord,Granite,Harbor,Indigo,Juniper}'::text[])[n % 10 + 1],
                  ('{Labs,Health,Robotics,Media,Finance,Games}'::text[])[n / 10 % 6 + 1]), 'USD'
      FROM generate_series(0, 59) n;
    INSERT INTO meterflow.plans (key, name, currency) VALUES ('pay_as_you_go', 'Pay as you go', 'USD');
    INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES
        ('pay_as_you_go', 'tokens', '{"model": "graduated", "tiers": [{"up_to": "1000000", "unit_amount": "0.000014"},
                                      {"up_to": "10000000", "unit_amount": "0.000012"}, {"up_to": null, "unit_amount": "0.000010"}]}'),
        ('pay_as_you_go', 'requests', '{"model": "per_unit", "unit_amount": "0.0005"}');
    INSERT INTO meterflow.prices (plan_key, key, name, model, advance) VALUES
        ('pay_as_you_go', 'base', 'Platform fee', '{"model": "flat", "amount": "49"}', true);
    UPDATE meterflow.prices SET name = CASE key WHEN 'tokens' THEN 'Tokens' WHEN 'requests' THEN 'Requests' ELSE name END;
    INSERT INTO meterflow.taxes (key, name, rate, is_default) VALUES ('sales', 'Sales tax', 8.25, true);
    INSERT INTO meterflow.coupons (code, name, kind, value, periods) VALUES ('WELCOME', 'Welcome', 'percentage', 10, 3);
    INSERT INTO meterflow.billing_settings (invoice_format, seller) VALUES
        ('DEMO-{year}-{seq:5}', '{"name": "Lumen Gateway, Inc.", "address": ["1 Market Street", "San Francisco, CA 94105"], "email": "billing@lumen.example"}');
    INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at)
    SELECT id, 'pay_as_you_go', date_trunc('month', now() - interval '1 month', 'UTC') FROM meterflow.customers"#;

fn main() -> Result<()> {
    let began = Instant::now();
    let mut client = server::create_database(DATABASE)?;
    client.batch_execute(SETUP)?;
    server::settle(&mut client)?; // the meters are new: the past they could have is looked through once
    let version: String = client.query_one("SELECT current_setting('server_version')", &[])?.get(0);
    println!("meterflow on PostgreSQL {version}: {DAYS} days of an LLM gateway, {CUSTOMERS} customers, five meters");

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros() as i64;
    let start = now - now.rem_euclid(DAY) - (DAYS - 1) * DAY;
    let workload = Workload::new(42, Ids::Random, CUSTOMERS, (start, now), EVENTS);
    ingest(&workload)?;
    replay(&mut client, &workload)?;
    usage(&mut client, start)?;
    spenders(&mut client)?;
    wallets(&mut client, workload)?;
    verify(&mut client)?;
    invoices(&mut client)?;

    title("Look around");
    println!(
        "  It took {:.0} s. All of it is in the database {DATABASE}; try for instance",
        began.elapsed().as_secs_f64()
    );
    println!(
        "    SELECT * FROM meterflow.usage('tokens', now() - interval '1 day', now(), 'cust_0000', 'hour', '{{model}}');"
    );
    println!("    SELECT * FROM meterflow.wallet_history('cust_0061', 'USD');");
    println!("    SELECT kind, description, quantity, amount, total FROM meterflow.preview_invoice(1);");
    println!("    TABLE meterflow.events LIMIT 10;");
    println!("    SELECT * FROM meterflow.status();");
    Ok(())
}

fn title(text: &str) {
    println!("\n{text}\n{}", "-".repeat(text.chars().count()));
}

fn send(client: &mut Client, statement: &postgres::Statement, batch: &Json<Box<RawValue>>) -> Result<(i32, i32)> {
    let row = client.query_one(statement, &[batch])?;
    Ok((row.get(0), row.get(1)))
}

const INGEST: &str = "SELECT accepted, duplicates FROM meterflow.ingest($1)";

/// Sends the whole workload from two sessions, a batch a transaction.
fn ingest(workload: &Workload) -> Result<()> {
    title("Ingest");
    let (next, done, accepted) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let batch = |n: u64| server::raw(workload::json((n * BATCH..(n + 1) * BATCH).map(|i| workload.sent(i))));
    let half = EVENTS / BATCH / 2;
    // Made before the clock runs: it is the database that is to be seen.
    let batches = thread::scope(|scope| -> Result<Vec<_>> {
        let rest = scope.spawn(|| (half..EVENTS / BATCH).map(batch).collect::<Result<Vec<_>>>());
        let mut batches = (0..half).map(batch).collect::<Result<Vec<_>>>()?;
        batches.extend(rest.join().expect("no panics")?);
        Ok(batches)
    })?;
    let work = || -> Result<()> {
        let mut client = server::connect(DATABASE)?;
        let statement = client.prepare(INGEST)?;
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            accepted.fetch_add(u64::try_from(send(&mut client, &statement, batch)?.0)?, Ordering::Relaxed);
            done.fetch_add(BATCH, Ordering::Relaxed);
        }
        Ok(())
    };
    let began = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let sessions: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(work)).collect();
        let terminal = std::io::stdout().is_terminal();
        let mut shown = Instant::now();
        while !sessions.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(50));
            let (every, end) = if terminal { (100, "\r") } else { (2_000, "\n") };
            if shown.elapsed() >= Duration::from_millis(every) {
                shown = Instant::now();
                let share = done.load(Ordering::Relaxed) as f64 / EVENTS as f64;
                let rate = share * EVENTS as f64 / began.elapsed().as_secs_f64();
                print!("  {} {:3.0}%  {:>9} events/s{end}", bar(share, 40, ' '), share * 100.0, grouped(rate));
                std::io::stdout().flush()?;
            }
        }
        sessions.into_iter().try_for_each(|session| session.join().expect("no panics"))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let (sent, accepted) = (EVENTS as f64, accepted.into_inner() as f64);
    println!(
        "  {} events in {seconds:.1} s from {SESSIONS} sessions, {} a transaction: {} events/s{:20}",
        grouped(sent),
        grouped(BATCH as f64),
        grouped(sent / seconds),
        ""
    );
    println!(
        "  {} accepted, {} duplicates refused; usage is exact with each commit",
        grouped(accepted),
        grouped(sent - accepted)
    );
    Ok(())
}

/// A client that isn't sure whether its batches arrived sends them again.
fn replay(client: &mut Client, workload: &Workload) -> Result<()> {
    title("Ten thousand of them sent again");
    let statement = client.prepare(INGEST)?;
    let from = EVENTS / 2;
    let began = Instant::now();
    let (accepted, duplicates) =
        send(client, &statement, &server::raw(workload::json((from..from + 10_000).map(|i| workload.sent(i))))?)?;
    println!("  {accepted} accepted, {duplicates} duplicates, in {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn usage(client: &mut Client, start: i64) -> Result<()> {
    title("Tokens by customer and day");
    let start = SystemTime::UNIX_EPOCH + Duration::from_micros(start.unsigned_abs());
    let began = Instant::now();
    let rows = client.query(
        "SELECT c.name, array_agg(u.value::float8 ORDER BY u.window_start), sum(u.value)::float8
           FROM meterflow.usage('tokens', $1::timestamptz, $1::timestamptz + interval '30 days', window_size => 'day') u
           JOIN meterflow.customers c ON c.tenant_id = 'default' AND c.id = u.customer_id
          GROUP BY c.id, c.name ORDER BY 3 DESC",
        &[&start],
    )?;
    let took = began.elapsed();
    for row in rows.iter().take(8) {
        let days: Vec<f64> = row.get(1);
        println!("  {:18} {} {:>12}", row.get::<_, &str>(0), columns(&days), grouped(row.get(2)));
    }
    println!(
        "  {:18} {:30} {:>12}",
        format!("and {} more", rows.len().saturating_sub(8)),
        "",
        grouped(rows.iter().skip(8).map(|row| row.get::<_, f64>(2)).sum())
    );
    println!("  {} customers, {DAYS} days, {:.0} ms", rows.len(), took.as_secs_f64() * 1e3);

    title("Tokens by model, and the other meters");
    let by_model = client.query(
        "SELECT group_key->>'model', value::float8 FROM meterflow.usage('tokens', $1::timestamptz, $1::timestamptz + interval '30 days', group_by => '{model}', total => true) ORDER BY 2 DESC",
        &[&start],
    )?;
    let total: f64 = by_model.iter().map(|row| row.get::<_, f64>(1)).sum();
    for row in &by_model {
        let tokens: f64 = row.get(1);
        println!(
            "  {:18} {} {:>12} {:4.0}%",
            row.get::<_, &str>(0),
            bar(tokens / total, 30, ' '),
            grouped(tokens),
            tokens / total * 100.0
        );
    }
    for (meter, unit) in [("requests", ""), ("users", ""), ("latency_p95", " ms"), ("peak_tokens", "")] {
        let row = client.query_one(
            "SELECT description, value::float8 FROM meterflow.meters m,
                    meterflow.usage(m.key, $1::timestamptz, $1::timestamptz + interval '30 days', total => true) WHERE m.tenant_id = 'default' AND m.key = $2",
            &[&start, &meter],
        )?;
        println!("  {:49} {:>12}{unit}", row.get::<_, &str>(0), grouped(row.get(1)));
    }
    Ok(())
}

const CHARGES: &str = "
    SELECT c.id, c.name, sum(q.amount)::float8, sum(q.amount) FILTER (WHERE q.meter_key = 'tokens')::float8,
           sum(q.amount) FILTER (WHERE q.meter_key = 'requests')::float8
      FROM meterflow.customers c, meterflow.current_charges(c.id) q GROUP BY c.id, c.name ORDER BY 3 DESC";

fn spenders(client: &mut Client) -> Result<()> {
    title("Top spenders, not invoiced yet");
    let began = Instant::now();
    let rows = client.query(CHARGES, &[])?;
    let took = began.elapsed();
    println!("  {:18} {:>10} {:>10} {:>12}", "", "tokens", "requests", "USD");
    for row in rows.iter().take(5) {
        let amounts: [f64; 3] = [row.get(3), row.get(4), row.get(2)];
        println!("  {:18} {:>10.2} {:>10.2} {:>12.2}", row.get::<_, &str>(1), amounts[0], amounts[1], amounts[2]);
    }
    println!("  {} customers priced in {:.0} ms", rows.len(), took.as_secs_f64() * 1e3);
    Ok(())
}

const PREPAID: &str = r#"
    INSERT INTO meterflow.plans (key, name, currency) VALUES ('prepaid', 'Prepaid', 'USD');
    INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES ('prepaid', 'tokens', '{"model": "per_unit", "unit_amount": "0.00002"}');
    INSERT INTO meterflow.customers (id, name, currency) VALUES ('cust_0060', 'Nimbus Labs', 'USD'), ('cust_0061', 'Orchard Health', 'USD'), ('cust_0062', 'Pixel Games', 'USD');
    INSERT INTO meterflow.subscriptions (customer_id, plan_key) SELECT unnest('{cust_0060,cust_0061,cust_0062}'::text[]), 'prepaid'"#;

/// Three customers pay in advance. What a request may cost is held before it is made, and its event is what the hold pays
/// for; so there is one request at which a customer's money ends.
fn wallets(client: &mut Client, mut workload: Workload) -> Result<()> {
    const REQUESTS: u64 = 40;
    const PAID_IN: [(u32, &str); 3] = [(60, "15.00"), (61, "4.00"), (62, "10.00")];
    title("Three customers on prepaid credit, each request held before it is made");
    client.batch_execute(PREPAID)?;
    let hold = client.prepare("SELECT meterflow.hold($1, NULL, 'USD', '1 minute', $2, 'tokens', $3::int8::numeric)")?;
    let capture = client.prepare("SELECT meterflow.capture($1, events => $2)")?;
    let balance = client.prepare("SELECT available::float8 FROM meterflow.wallet_balance($1, 'USD')")?;
    let (mut took, mut stopped) = ((Vec::new(), Vec::new()), [None; 3]);
    let mut refusals = Vec::new();
    let mut lines = vec![Vec::new(); 3];
    for (customer, amount) in PAID_IN {
        let id = workload::customer_id(customer);
        client.execute("SELECT meterflow.top_up($1, $2::text::numeric, 'USD', 'demo: ' || $1)", &[&id, &amount])?;
    }
    workload.duplicates = 0;
    for request in 1..=REQUESTS {
        for (place, (customer, _)) in PAID_IN.into_iter().enumerate() {
            if stopped[place].is_some() {
                continue;
            }
            let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros() as i64;
            let event = workload.event(EVENTS + request * 3 + place as u64);
            let event = Event { at, customer, tokens: 2_000 + event.tokens * 7 % 14_000, ..event };
            let (id, began) = (workload::customer_id(customer), Instant::now());
            match client.query_one(&hold, &[&id, &format!("{id}: {request}"), &i64::from(event.tokens)]) {
                Ok(held) => {
                    took.0.push(began.elapsed());
                    let began = Instant::now();
                    let events = server::raw(workload::json(std::iter::once(event)))?;
                    client.query_one(&capture, &[&held.get::<_, i64>(0), &events])?;
                    took.1.push(began.elapsed());
                }
                Err(error) => {
                    let refusal = error.as_db_error().filter(|refusal| refusal.message() == "insufficient credit");
                    let detail = refusal.and_then(|refusal| refusal.detail()).map(str::to_string).ok_or(error)?;
                    refusals.push(format!(
                        "Request {request}, of {} tokens, was refused: {detail}",
                        grouped(f64::from(event.tokens))
                    ));
                    stopped[place] = Some(request);
                }
            }
            lines[place].push(client.query_one(&balance, &[&id])?.get::<_, f64>(0));
        }
    }
    println!("  {:18} {:>7}  {:40} {:>6}", "", "paid in", "available after each request", "left");
    for ((line, (customer, amount)), stopped) in lines.iter().zip(PAID_IN).zip(stopped) {
        let name: String = client
            .query_one("SELECT name FROM meterflow.customers WHERE id = $1", &[&workload::customer_id(customer)])?
            .get(0);
        let end = stopped.map_or(String::from("goes on"), |request| format!("stopped at request {request}"));
        println!("  {name:18} {amount:>7}  {:40} {:>6.2}  {end}", columns(line), line.last().unwrap_or(&0.0));
    }
    refusals.iter().for_each(|refusal| println!("  {refusal}"));
    if refusals.len() != 1 || lines.iter().flatten().any(|left| *left < 0.0) {
        return Err(format!("one customer was to be stopped, and none to owe: {refusals:?}").into());
    }
    let half = |took: &mut Vec<Duration>| {
        took.sort_unstable();
        took[took.len() / 2].as_secs_f64() * 1e3
    };
    println!(
        "  half of the holds took under {:.1} ms; half of the captures, with their event, under {:.1} ms",
        half(&mut took.0),
        half(&mut took.1)
    );
    Ok(())
}

fn verify(client: &mut Client) -> Result<()> {
    title("Verify");
    let began = Instant::now();
    let problems: i64 = client.query_one("SELECT count(*) FROM meterflow.verify()", &[])?.get(0);
    let events: i64 = client.query_one("SELECT count(*) FROM meterflow.events", &[])?.get(0);
    let verdict = if problems == 0 { String::from("clean") } else { format!("{problems} differences") };
    println!(
        "  All usage computed again from {} raw events and compared: {verdict}, in {:.1} s",
        grouped(events as f64),
        began.elapsed().as_secs_f64()
    );
    if problems > 0 {
        return Err("verify() found differences: SELECT * FROM meterflow.verify()".into());
    }
    Ok(())
}

/// Bills what is due, and shows the largest invoice, why it says what it says, and on paper.
fn invoices(client: &mut Client) -> Result<()> {
    title("Invoices");
    let top: String = client
        .query_one("SELECT customer_id FROM meterflow.events GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1", &[])?
        .get(0);
    client.execute("SELECT meterflow.redeem_coupon($1, 'WELCOME', 'demo: a coupon for ' || $1)", &[&top])?;
    let (mut finalized, began) = (0, Instant::now());
    loop {
        let row = client.query_one(
            "SELECT count(*), count(*) FILTER (WHERE outcome = 'finalized'), min(outcome) FILTER (WHERE outcome LIKE 'error%') FROM meterflow.bill_due()",
            &[],
        )?;
        if let Some(error) = row.get::<_, Option<String>>(2) {
            return Err(format!("bill_due(): {error}").into());
        }
        finalized += row.get::<_, i64>(1);
        if row.get::<_, i64>(0) == 0 {
            break;
        }
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    println!("  {finalized} invoices finalized in {took:.0} ms; billing again makes none");

    let invoice = client.query_one(
        "SELECT i.id, i.number, c.name, i.subtotal::text, i.discount::text, i.tax::text, i.total::text, i.credited::text, i.amount_due::text, i.currency
           FROM meterflow.invoices i JOIN meterflow.customers c ON c.tenant_id = i.tenant_id AND c.id = i.customer_id
          WHERE i.customer_id = $1 ORDER BY i.id DESC LIMIT 1",
        &[&top],
    )?;
    let id: i64 = invoice.get(0);
    println!("\n  {} for {}", invoice.get::<_, &str>(1), invoice.get::<_, &str>(2));
    let lines = client.query(
        "SELECT description, to_char(period_start AT TIME ZONE 'UTC', 'DD Mon') || ' - ' || to_char(period_end AT TIME ZONE 'UTC', 'DD Mon'),
                quantity::float8, amount::text FROM meterflow.invoice_lines WHERE tenant_id = 'default' AND invoice_id = $1 ORDER BY line",
        &[&id],
    )?;
    for line in &lines {
        println!(
            "    {:14} {:18} {:>14} {:>12}",
            line.get::<_, &str>(0),
            line.get::<_, &str>(1),
            grouped(line.get(2)),
            line.get::<_, &str>(3)
        );
    }
    for (place, name) in
        [(3, "subtotal"), (4, "discount"), (5, "tax"), (6, "total"), (7, "from wallets"), (8, "amount due")]
    {
        println!("    {:48} {:>12}", name, invoice.get::<_, &str>(place));
    }

    println!("\n  Why the tokens cost that, tier by tier");
    let tiers = client.query(
        "SELECT s->>'tier', (s->>'quantity')::float8, coalesce(s->>'unit_amount', ''), s->>'amount'
           FROM meterflow.invoice_lines l, jsonb_array_elements(meterflow.explain_price_usage(l.model, l.usage, 'USD')->'steps') s
          WHERE l.tenant_id = 'default' AND l.invoice_id = $1 AND l.meter_key = 'tokens'",
        &[&id],
    )?;
    for tier in &tiers {
        println!(
            "    tier {} {:>14} at {:>10} {:>12}",
            tier.get::<_, Option<&str>>(0).unwrap_or("-"),
            grouped(tier.get(1)),
            tier.get::<_, &str>(2),
            tier.get::<_, &str>(3)
        );
    }
    let unequal: i64 =
        client.query_one("SELECT count(*) FROM meterflow.reproduce_invoice($1) WHERE NOT equal", &[&id])?.get(0);
    let verdict = if unequal == 0 { "equal" } else { "DIFFERENT" };
    println!("  computed again from the raw events it knew: {verdict}");
    let pdf: Vec<u8> = client.query_one("SELECT meterflow.invoice_pdf($1)", &[&id])?.get(0);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/demo-invoice.pdf");
    std::fs::write(path, &pdf)?;
    println!("  its PDF, {} kB: {path}", pdf.len() / 1024);
    if unequal > 0 {
        return Err("an invoice could not be reproduced".into());
    }
    Ok(())
}

/// A bar of `width` columns, filled to a share.
fn bar(share: f64, width: usize, rest: char) -> String {
    let filled = ((share * width as f64).round() as usize).min(width);
    "█".repeat(filled) + &rest.to_string().repeat(width - filled)
}

/// A column a value, as high as it is compared with the highest.
fn columns(values: &[f64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    values.iter().map(|value| HEIGHTS[((value / highest * 7.0).round() as usize).min(7)]).collect()
}
