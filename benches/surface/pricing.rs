//! price() over a million rows of a table, each model beside the SQL that a careful person writes for it by hand. Both
//! answers are the same, to the last digit: that is checked first.

use std::time::Instant;

use postgres::Client;

use crate::race::percentile;
use crate::server::{self, Result};

struct Model {
    name: &'static str,
    /// What prices a row.
    ours: &'static str,
    /// The same by hand.
    plain: &'static str,
}

/// A row has a quantity q of cents below a thousand, a region and the usage of two regions as JSON.
const TABLE: &str = "
    CREATE UNLOGGED TABLE quantities AS
    SELECT (n::bigint * 7919 % 100000)::numeric / 100 AS q, (ARRAY['eu', 'us', 'asia'])[1 + n % 3] AS region,
           (n % 7 + 1)::numeric AS events
      FROM generate_series(1, $rows) AS n;
    ALTER TABLE quantities ADD COLUMN usage jsonb, ADD COLUMN buckets jsonb;
    UPDATE quantities SET
      usage = jsonb_build_object('groups', jsonb_build_array(jsonb_build_object('by', jsonb_build_object('region', region), 'quantity', q))),
      buckets = jsonb_build_object('buckets', jsonb_build_array(q, events));
    VACUUM (FULL, ANALYZE) quantities";

const MODELS: [Model; 12] = [
    Model {
        name: "flat",
        ours: r#"price('{"model":"flat","amount":20}', q)"#,
        plain: "CASE WHEN q > 0 THEN 20.0 ELSE 0 END",
    },
    Model { name: "per_unit", ours: r#"price('{"model":"per_unit","unit_amount":"0.10"}', q)"#, plain: "q * 0.10" },
    Model {
        name: "per_unit, in USD",
        ours: r#"price('{"model":"per_unit","unit_amount":"0.10"}', q, 'USD')"#,
        plain: "round(q * 0.10, 2)",
    },
    Model {
        name: "graduated, 3 tiers",
        ours: r#"price('{"model":"graduated","tiers":[{"up_to":100,"unit_amount":"0.10","flat_amount":5},{"up_to":500,"unit_amount":"0.07"},{"unit_amount":"0.05"}]}', q)"#,
        plain: "CASE WHEN q <= 0 THEN 0 ELSE least(q, 100) * 0.10 + 5 + greatest(least(q, 500) - 100, 0) * 0.07 + greatest(q - 500, 0) * 0.05 END",
    },
    Model {
        name: "graduated, tiers in a table",
        ours: r#"price('{"model":"graduated","tiers":[{"up_to":100,"unit_amount":"0.10","flat_amount":5},{"up_to":500,"unit_amount":"0.07"},{"unit_amount":"0.05"}]}', q)"#,
        plain: "(SELECT coalesce(sum((least(q, t.up_to) - t.above) * t.unit_amount + t.flat_amount), 0) FROM tiers AS t WHERE q > t.above)",
    },
    Model {
        name: "volume, 3 tiers",
        ours: r#"price('{"model":"volume","tiers":[{"up_to":100,"unit_amount":"0.10","flat_amount":5},{"up_to":500,"unit_amount":"0.07"},{"unit_amount":"0.05"}]}', q)"#,
        plain: "CASE WHEN q <= 0 THEN 0 WHEN q <= 100 THEN q * 0.10 + 5 WHEN q <= 500 THEN q * 0.07 ELSE q * 0.05 END",
    },
    Model {
        name: "package",
        ours: r#"price('{"model":"package","amount":5,"package_size":100}', q)"#,
        plain: "ceil(q / 100) * 5",
    },
    Model {
        name: "graduated_percentage",
        ours: r#"price('{"model":"graduated_percentage","tiers":[{"up_to":500,"rate":2},{"rate":1}]}', q)"#,
        plain: "CASE WHEN q <= 0 THEN 0 ELSE least(q, 500) * 0.02 + greatest(q - 500, 0) * 0.01 END",
    },
    Model {
        name: "percentage, discount, limits",
        ours: r#"price('{"model":"percentage","rate":3,"percentage_discount":10,"minimum_spend":1,"maximum_spend":20}', q)"#,
        plain: "greatest(least(q * 0.03 * 0.9, 20), 1)",
    },
    Model {
        name: "dynamic, free units, commitment",
        ours: r#"price('{"model":"dynamic","multiplier":"1.2","free_units":50,"commitment":{"amount":100,"overage_factor":2}}', q)"#,
        plain: "least(greatest(q - 50, 0) * 1.2, 100) + greatest(greatest(q - 50, 0) * 1.2 - 100, 0) * 2",
    },
    Model {
        name: "matrix (usage as jsonb)",
        ours: r#"price_usage('{"model":"matrix","cells":[{"match":{"region":"eu"},"unit_amount":"0.12"},{"match":{"region":"us"},"unit_amount":"0.11"}],"default":{"unit_amount":"0.10"}}', usage)"#,
        plain: "(SELECT sum((g->>'quantity')::numeric * CASE g->'by'->>'region' WHEN 'eu' THEN 0.12 WHEN 'us' THEN 0.11 ELSE 0.10 END) FROM jsonb_array_elements(usage->'groups') AS g)",
    },
    Model {
        name: "bucketed (usage as jsonb)",
        ours: r#"price_usage('{"model":"bucketed","price":{"model":"package","amount":5,"package_size":100}}', buckets)"#,
        plain: "(SELECT sum(ceil(b::numeric / 100) * 5) FROM jsonb_array_elements_text(buckets->'buckets') AS b)",
    },
];

/// Seconds on a CPU in the backend and on the clock.
fn timed(client: &mut Client, expression: &str, cpu: &dyn Fn() -> f64) -> Result<(f64, f64)> {
    let (began, before) = (Instant::now(), cpu());
    client.execute(&format!("SELECT count({expression}) FROM quantities"), &[])?;
    Ok((cpu() - before, began.elapsed().as_secs_f64()))
}

pub fn measure(rows: u64, rounds: usize) -> Result<()> {
    let mut client = server::create_database(crate::DATABASE)?;
    for statement in TABLE.replace("$rows", &rows.to_string()).split(';') {
        client.batch_execute(statement)?;
    }
    client.batch_execute(
        "SET max_parallel_workers_per_gather = 0; SET jit = off; SET search_path = meterflow, public;
         CREATE TABLE tiers (above numeric, up_to numeric, unit_amount numeric, flat_amount numeric);
         INSERT INTO tiers VALUES (0, 100, 0.10, 5), (100, 500, 0.07, 0), (500, NULL, 0.05, 0)",
    )?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let cpu = || crate::machine::on_cpu(pid);
    println!(
        "\nprice() of {} rows; nanoseconds of CPU a row, without what reading the row takes; medians of {rounds} rounds",
        server::grouped(rows as f64)
    );
    println!("{:<34} {:>8} {:>10} {:>7} {:>14}", "", "price()", "plain SQL", "ratio", "ratio by clock");
    for model in &MODELS {
        let differ: i64 = client
            .query_one(
                &format!("SELECT count(*) FROM quantities WHERE ({}) IS DISTINCT FROM ({})", model.ours, model.plain),
                &[],
            )?
            .get(0);
        if differ > 0 {
            return Err(format!("{}: {differ} rows differ from plain SQL", model.name).into());
        }
        let mut samples = [const { Vec::new() }; 3];
        let mut clocks = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (i, expression) in ["q", model.ours, model.plain].into_iter().enumerate() {
                let (cpu, clock) = timed(&mut client, expression, &cpu)?;
                samples[i].push(cpu);
                clocks[i].push(clock);
            }
        }
        let net = |of: &[Vec<f64>; 3], i: usize| percentile(&of[i], 0.5) - percentile(&of[0], 0.5);
        let nanos = |i| net(&samples, i) * 1e9 / rows as f64;
        println!(
            "{:<34} {:>8.0} {:>10.0} {:>7.2} {:>14.2}",
            model.name,
            nanos(1),
            nanos(2),
            nanos(1) / nanos(2),
            net(&clocks, 1) / net(&clocks, 2),
        );
    }
    drop(client);
    server::drop_database(crate::DATABASE)
}
