//! The server that the environment names (tests/cluster sets it), and what travels to it in binary.

// The benches and the demo use different parts.
#![allow(dead_code)]

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use postgres::types::{Json, ToSql};
use postgres::{Client, Config, NoTls};
use serde_json::value::RawValue;

use crate::workload::{self, Event};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

pub fn connect(database: &str) -> Result<Client> {
    let set = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_string());
    let mut config = Config::new();
    config.host(&set("PGHOST", "localhost")).port(set("PGPORT", "5432").parse()?).user(&set("PGUSER", "postgres"));
    if let Ok(password) = std::env::var("PGPASSWORD") {
        config.password(password);
    }
    config.dbname(database).application_name("meterflow bench");
    config.connect(NoTls).map_err(|error| {
        format!("no connection to database {database}: {error}. Start a server: eval \"$(tests/cluster start)\"").into()
    })
}

/// A new database with the extension in it.
pub fn create_database(name: &str) -> Result<Client> {
    drop_database(name)?;
    connect("postgres")?.batch_execute(&format!("CREATE DATABASE {name}"))?;
    let mut client = connect(name)?;
    client.batch_execute("CREATE EXTENSION meterflow")?;
    Ok(client)
}

pub fn drop_database(name: &str) -> Result<()> {
    connect("postgres")?.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
    Ok(())
}

/// Waits until everything ingested is in the rollups.
pub fn settle(client: &mut Client) -> Result<()> {
    wait_until(
        client,
        "NOT EXISTS (SELECT FROM meterflow.batches WHERE batch > (SELECT folded_batch FROM meterflow.fold_state))
         AND NOT EXISTS (SELECT FROM meterflow.dirty_ranges) AND NOT EXISTS (SELECT FROM meterflow.inbox)",
    )
}

/// Waits for the worker to bring something about; does its work on a server that doesn't preload meterflow.
pub fn wait_until(client: &mut Client, condition: &str) -> Result<()> {
    let worker: bool = client.query_one("SELECT meterflow.worker_mode() = 'expected'", &[])?.get(0);
    let condition = client.prepare(&format!("SELECT {condition}"))?;
    while !client.query_one(&condition, &[])?.get::<_, bool>(0) {
        if worker {
            sleep(Duration::from_millis(5));
        } else {
            client.batch_execute("SELECT meterflow.maintain()")?;
        }
    }
    Ok(())
}

/// JSON text for a parameter of type json or jsonb, sent as it is.
pub fn raw(text: String) -> Result<Json<Box<RawValue>>> {
    Ok(Json(RawValue::from_string(text)?))
}

/// Events as the arrays that ingest_rows takes.
#[derive(Default)]
pub struct Arrays {
    pub ids: Vec<String>,
    pub customers: Vec<String>,
    pub names: Vec<&'static str>,
    pub times: Vec<SystemTime>,
    pub properties: Vec<Json<Box<RawValue>>>,
}

impl Arrays {
    pub fn of(events: impl Iterator<Item = Event>) -> Result<Arrays> {
        let mut arrays = Arrays::default();
        for event in events {
            let (mut id, mut properties) = (String::with_capacity(36), String::with_capacity(160));
            event.push_id(&mut id);
            event.push_properties(&mut properties);
            arrays.ids.push(id);
            arrays.customers.push(workload::customer_id(event.customer));
            arrays.names.push(workload::EVENT_NAME);
            arrays.times.push(SystemTime::UNIX_EPOCH + Duration::from_micros(event.at.unsigned_abs()));
            arrays.properties.push(raw(properties)?);
        }
        Ok(arrays)
    }

    pub fn params(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.ids, &self.customers, &self.names, &self.times, &self.properties]
    }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut out = String::from(if number <= -0.5 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
