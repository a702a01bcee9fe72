//! A billing run: so many subscriptions with five prices each, invoiced for a month of usage.

use std::time::Instant;

use postgres::Client;

use crate::server::{self, Result, grouped};

/// Events of each customer in the month.
const EVENTS: i32 = 20;
/// Invoices a transaction.
const BATCH: i32 = 200;

const CATALOGUE: &str = r#"
    INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES
        ('requests', 'call', 'count', NULL), ('tokens', 'call', 'sum', 'tokens'), ('bytes', 'call', 'sum', 'bytes'),
        ('users', 'call', 'unique_count', 'user'), ('peak', 'call', 'max', 'tokens');
    INSERT INTO meterflow.plans (key, currency) VALUES ('standard', 'USD');
    INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES
        ('standard', 'requests', '{"model": "per_unit", "unit_amount": "0.0004"}'),
        ('standard', 'tokens', '{"model": "graduated", "tiers": [{"up_to": "1000", "unit_amount": "0.002"}, {"up_to": null, "unit_amount": "0.001"}]}'),
        ('standard', 'bytes', '{"model": "package", "amount": "0.05", "package_size": "1000"}'),
        ('standard', 'users', '{"model": "volume", "tiers": [{"up_to": "5", "unit_amount": "1"}, {"up_to": null, "unit_amount": "0.8"}]}'),
        ('standard', 'peak', '{"model": "per_unit", "unit_amount": "0.001"}')"#;

/// What a careful person would write without meterflow: one pass over an index for each customer, a header, five lines,
/// a number from a counter. It knows no late events, changes, coupons or taxes.
const BASELINE: &str = r#"
    CREATE TABLE plain_events (customer_id text COLLATE "C", at timestamptz, tokens bigint, bytes bigint, user_id text);
    CREATE TABLE plain_invoices (id bigint PRIMARY KEY, customer_id text COLLATE "C", total numeric, issued_at timestamptz);
    CREATE TABLE plain_lines (invoice_id bigint, line int, quantity numeric, amount numeric, PRIMARY KEY (invoice_id, line));
    CREATE TABLE plain_counter (next bigint);
    INSERT INTO plain_counter VALUES (1);
    CREATE FUNCTION plain_run(low timestamptz, high timestamptz, customers text[]) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE customer text; u record; number bigint;
    BEGIN
      FOREACH customer IN ARRAY customers LOOP
        SELECT count(*) AS requests, sum(tokens) AS tokens, sum(bytes) AS bytes, count(DISTINCT user_id) AS users, max(tokens) AS peak INTO u
          FROM plain_events WHERE customer_id = customer AND at >= low AND at < high;
        UPDATE plain_counter SET next = next + 1 RETURNING next - 1 INTO number;
        INSERT INTO plain_lines VALUES (number, 1, u.requests, round(u.requests * 0.0004, 2)),
          (number, 2, u.tokens, round(CASE WHEN u.tokens <= 1000 THEN u.tokens * 0.002 ELSE 2 + (u.tokens - 1000) * 0.001 END, 2)),
          (number, 3, u.bytes, round(ceil(u.bytes / 1000.0) * 0.05, 2)),
          (number, 4, u.users, round(u.users * CASE WHEN u.users <= 5 THEN 1 ELSE 0.8 END, 2)),
          (number, 5, u.peak, round(u.peak * 0.001, 2));
        INSERT INTO plain_invoices SELECT number, customer, sum(amount), now() FROM plain_lines WHERE invoice_id = number;
      END LOOP;
    END $$"#;

pub fn measure(sizes: &[i32]) -> Result<()> {
    println!(
        "\nBilling run: five prices a subscription, {EVENTS} events a customer in the month, {BATCH} invoices a transaction"
    );
    println!("{:>14} {:>14} {:>14} {:>10} {:>9}", "subscriptions", "ms an invoice", "plain SQL, ms", "ratio", "growth");
    let mut first: Option<f64> = None;
    for &size in sizes {
        let mut client = prepare(size)?;
        let plain = plain_run(&mut client, size)?;
        let ours = run(&mut client)?;
        let growth = ours / *first.get_or_insert(ours);
        println!("{:>14} {ours:>14.3} {plain:>14.3} {:>10.2} {growth:>9.2}", grouped(f64::from(size)), ours / plain);
        drop(client);
        server::drop_database(crate::DATABASE)?;
    }
    Ok(())
}

/// Customers, subscriptions and a month of their events, folded, in both schemas.
fn prepare(size: i32) -> Result<Client> {
    let mut client = server::create_database(crate::DATABASE)?;
    client.batch_execute(CATALOGUE)?;
    client.batch_execute(BASELINE)?;
    server::settle(&mut client)?;
    client.execute("INSERT INTO meterflow.customers (id) SELECT 'c' || n FROM generate_series(1, $1) n", &[&size])?;
    client.execute(
        "INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at)
         SELECT 'c' || n, 'standard', date_trunc('month', now(), 'UTC') - interval '1 month' FROM generate_series(1, $1) n",
        &[&size],
    )?;
    // The month before this one, as far as events of it are accepted.
    let fill = client.prepare(
        "WITH e AS (SELECT 'c' || c AS customer, c || '-' || n AS id, greatest(date_trunc('month', now(), 'UTC') - interval '1 month' * n / 25, now() - interval '33 days') AS at,
                           (c * 7 + n * 31) % 400 AS tokens, (c * 13 + n * 17) % 3000 AS bytes, 'u' || (c + n) % 9 AS user_id
                      FROM generate_series($1::int, $2::int) c, generate_series(1, $3::int) n),
              plain AS (INSERT INTO plain_events SELECT customer, at, tokens, bytes, user_id FROM e)
         SELECT accepted FROM (SELECT array_agg(id) AS ids, array_agg(customer) AS customers, array_agg('call'::text) AS names, array_agg(at) AS times,
                                      array_agg(jsonb_build_object('tokens', tokens, 'bytes', bytes, 'user', user_id)) AS properties FROM e) a,
              meterflow.ingest_rows(a.ids, a.customers, a.names, a.times, a.properties)",
    )?;
    for low in (1..=size).step_by(500) {
        let high = (low + 499).min(size);
        client.query_one(&fill, &[&low, &high, &EVENTS])?;
    }
    server::settle(&mut client)?;
    client.batch_execute("CREATE INDEX ON plain_events (customer_id, at) INCLUDE (tokens, bytes, user_id)")?;
    client.batch_execute("VACUUM ANALYZE")?;
    Ok(client)
}

fn plain_run(client: &mut Client, size: i32) -> Result<f64> {
    let run = client.prepare(
        "SELECT plain_run(date_trunc('month', now(), 'UTC') - interval '1 month', date_trunc('month', now(), 'UTC'),
                          (SELECT array_agg('c' || n) FROM generate_series($1::int, $2::int) n))",
    )?;
    let began = Instant::now();
    for low in (1..=size).step_by(BATCH as usize) {
        client.query_one(&run, &[&low, &(low + BATCH - 1).min(size)])?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e3 / f64::from(size))
}

/// Milliseconds an invoice. The first call of each subscription, at its start, has nothing to charge.
fn run(client: &mut Client) -> Result<f64> {
    let due = client.prepare("SELECT count(*) FILTER (WHERE outcome = 'finalized'), count(*) FROM meterflow.bill_due(date_trunc('month', now(), 'UTC') + $2::text::interval, $1)")?;
    let mut bill = |after: &str| -> Result<(i64, f64)> {
        let (mut invoices, began) = (0, Instant::now());
        loop {
            let row = client.query_one(&due, &[&BATCH, &after])?;
            let (made, looked): (i64, i64) = (row.get(0), row.get(1));
            invoices += made;
            if looked == 0 {
                return Ok((invoices, began.elapsed().as_secs_f64() * 1e3));
            }
        }
    };
    bill("-1 day")?;
    let (invoices, took) = bill("0")?;
    if invoices == 0 {
        return Err("the billing run made no invoice".into());
    }
    Ok(took / invoices as f64)
}
