//! The ways events go in, and the baseline's.

use std::io::Write;
use std::ops::Range;

use postgres::types::{Json, ToSql};
use postgres::{Client, Statement};
use serde_json::value::RawValue;

use crate::server::{self, Arrays, Result};
use crate::workload::{self, Event, Workload};

/// Events in a call or COPY.
pub const BATCH: u64 = 1_000;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    Json,
    Rows,
    Inbox,
    /// The baseline of ingest: COPY into a plain table.
    Copy,
    /// The baseline of reads: COPY of what the questions need, a column each, into a plain table.
    Flat,
}

pub enum Batch {
    Json(Json<Box<RawValue>>),
    Rows(Arrays),
    Lines(String),
}

/// What ingest knows of an event and its identity, partitioned alike: the least a table must have to refuse a
/// duplicate, though only one of the very same timestamp.
pub const BASELINE: &str = r#"
    CREATE TABLE raw_events (
        id text COLLATE "C" NOT NULL, tenant_id text COLLATE "C" NOT NULL, customer_id text COLLATE "C" NOT NULL,
        event_name text COLLATE "C" NOT NULL, "timestamp" timestamptz NOT NULL, properties jsonb NOT NULL
    ) PARTITION BY RANGE ("timestamp");
    CREATE UNIQUE INDEX ON raw_events (tenant_id, id, "timestamp");
    DO $$ BEGIN
        FOR day IN -33 .. 2 LOOP
            EXECUTE format('CREATE TABLE raw_events_%s PARTITION OF raw_events FOR VALUES FROM (%L) TO (%L)', day + 33,
                (current_date + day)::timestamp AT TIME ZONE 'UTC', (current_date + day + 1)::timestamp AT TIME ZONE 'UTC');
        END LOOP;
    END $$"#;

/// The five meters of every measurement.
pub const METERS: &str = r#"
    INSERT INTO meterflow.meters (key, event_name, aggregation, property, filters, dimensions) VALUES
        ('requests', 'llm.request', 'count', NULL, '{}', '{}'),
        ('tokens', 'llm.request', 'sum', 'tokens', '{}', '{}'),
        ('tokens_by_model', 'llm.request', 'sum', 'tokens', '{"cached": false}', '{model}'),
        ('users', 'llm.request', 'unique_count', 'user', '{}', '{}'),
        ('slowest', 'llm.request', 'max', 'latency_ms', '{}', '{}')"#;

impl Door {
    /// `events` events of a workload from place `first` on.
    pub fn batches(self, workload: &Workload, first: u64, events: u64) -> Result<Vec<Batch>> {
        (first..first + events).step_by(BATCH as usize).map(|at| self.batch(workload, at..at + BATCH)).collect()
    }

    /// The events of these places. COPY can't tell duplicates: it gets new events in their stead, the baseline of
    /// reads none.
    pub fn batch(self, workload: &Workload, places: Range<u64>) -> Result<Batch> {
        let sent = places.clone().map(|i| workload.sent(i));
        Ok(match self {
            Door::Json => Batch::Json(server::raw(workload::json(sent))?),
            Door::Rows => Batch::Rows(Arrays::of(sent)?),
            Door::Inbox => Batch::Lines(workload::lines(sent, |event, out| {
                event.push_json(out);
                out.push('\n');
            })),
            Door::Copy => Batch::Lines(workload::lines(places.map(|i| workload.event(i)), Event::push_copy)),
            Door::Flat => {
                let fresh = places.filter(|&i| !workload.repeats(i)).map(|i| workload.event(i));
                Batch::Lines(workload::lines(fresh, Event::push_flat))
            }
        })
    }

    pub fn prepare(self, client: &mut Client) -> Result<Statement> {
        Ok(client.prepare(match self {
            Door::Json => "SELECT accepted, duplicates, failed FROM meterflow.ingest($1)",
            Door::Rows => "SELECT accepted, duplicates, failed FROM meterflow.ingest_rows($1, $2, $3, $4, $5)",
            Door::Inbox => "COPY meterflow.inbox (event) FROM STDIN",
            Door::Copy => {
                "COPY raw_events (id, tenant_id, customer_id, event_name, \"timestamp\", properties) FROM STDIN"
            }
            Door::Flat => "COPY raw_usage (tenant_id, customer_id, \"timestamp\", tokens, model, user_id) FROM STDIN",
        })?)
    }
}

/// Sends a batch in a transaction of its own; returns how many events were accepted.
pub fn send(client: &mut Client, statement: &Statement, batch: &Batch) -> Result<u64> {
    let params: &[&(dyn ToSql + Sync)] = match batch {
        Batch::Lines(lines) => {
            let mut writer = client.copy_in(statement)?;
            writer.write_all(lines.as_bytes())?;
            return Ok(writer.finish()?);
        }
        Batch::Json(json) => &[json],
        Batch::Rows(arrays) => &arrays.params(),
    };
    let row = client.query_one(statement, params)?;
    let (accepted, failed): (i32, serde_json::Value) = (row.get(0), row.get(2));
    if failed.as_array().is_none_or(|failed| !failed.is_empty()) {
        return Err(format!("ingest refused events: {failed}").into());
    }
    Ok(u64::try_from(accepted)?)
}
