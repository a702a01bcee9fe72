//! What failed is kept as it came, for repair and retry.

use pgrx::prelude::*;
use rustc_hash::FxHashMap;

use crate::core::event::{Event, Fault};
use crate::core::key::{self, Secret};
use crate::pg::error::{Outcome, raise};
use crate::pg::session::{self, AsOwner};
use crate::pg::settings;
use crate::pg::spi::{self, See};

use super::batch::{self, Rejects, Report, Source};

/// Writes failed events to `rejected_events`; one that failed the same way before counts up.
pub fn keep<'a>(
    tenant: &str,
    secret: &Secret,
    failed: impl Iterator<Item = (&'a Fault, &'a Source<'a>)>,
) -> Outcome<()> {
    let mut at: FxHashMap<[u8; 16], usize> = FxHashMap::default();
    let (mut prints, mut codes, mut messages, mut ids, mut events, mut times) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::<Option<String>>::new(), Vec::new(), Vec::<i64>::new());
    for (fault, source) in failed {
        let text = text_of(source);
        let print = key::event_key(secret, tenant, fault.code.as_str(), &text);
        if let Some(&i) = at.get(&print) {
            times[i] += 1;
            continue;
        }
        at.insert(print, prints.len());
        prints.push(pgrx::Uuid::from_bytes(print));
        codes.push(fault.code.as_str());
        messages.push(fault.message.clone());
        ids.push(fault.transaction_id.clone());
        events.push(text);
        times.push(1);
    }
    spi::run(
        "INSERT INTO meterflow.rejected_events AS r (tenant_id, fingerprint, code, message, transaction_id, event, times) \
         SELECT $1, n.* FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[]) AS n ORDER BY 2 \
         ON CONFLICT (tenant_id, fingerprint) DO UPDATE SET times = r.times + excluded.times, last_seen_at = clock_timestamp()",
        &[tenant.into(), prints.into(), codes.into(), messages.into(), ids.into(), events.into(), times.into()],
        See::Write,
        |_| Ok(()),
    )?;
    Ok(())
}

/// The event as it came; one that came in arrays, as the JSON it stands for.
fn text_of(source: &Source<'_>) -> String {
    match source {
        Source::Json(text) | Source::Inbox(text, _) => (*text).to_string(),
        Source::Row(event) => json_of(event),
    }
}

fn json_of(event: &Event<'_>) -> String {
    let mut fields = serde_json::Map::new();
    for (name, value) in [
        ("transaction_id", &event.transaction_id),
        ("customer_id", &event.customer_id),
        ("event_name", &event.event_name),
        ("source", &event.source),
    ] {
        fields.insert(name.to_string(), value.to_string().into());
    }
    if let Some(time) = event.timestamp.and_then(|at| jiff::Timestamp::from_microsecond(at).ok()) {
        fields.insert("timestamp".to_string(), time.to_string().into());
    }
    // The properties keep their text: numbers in them must not pass through a float.
    let mut text = serde_json::Value::Object(fields).to_string();
    text.truncate(text.len() - 1);
    text + ",\"properties\":" + &event.properties + "}"
}

#[pg_extern(sql = "")]
fn retry_rejected(
    ids: Option<Vec<i64>>,
) -> TableIterator<'static, (name!(accepted, i32), name!(duplicates, i32), name!(failed, pgrx::JsonB))> {
    raise(retry(ids)).row()
}

fn retry(ids: Option<Vec<i64>>) -> Outcome<Report> {
    let _owner = AsOwner::of(session::relation("inbox")?, pg_sys::ACL_INSERT, "retry_rejected")?;
    let tenant = settings::tenant();
    let mut kept: Vec<(i64, String)> = Vec::new();
    spi::run(
        "SELECT id, event FROM meterflow.rejected_events WHERE tenant_id = $1 AND ($2::bigint[] IS NULL OR id = ANY ($2)) ORDER BY id FOR UPDATE",
        &[tenant.as_str().into(), ids.into()],
        See::Write,
        |row| {
            kept.push((row.int8(0)?, row.text(1)?));
            Ok(())
        },
    )?;
    let sources: Vec<Source<'_>> = kept.iter().map(|(_, text)| Source::Json(text)).collect();
    let report = batch::ingest(&tenant, &sources, session::now(), Rejects::Known)?;
    let failed: FxHashMap<usize, &Fault> =
        report.failures.iter().map(|failure| (failure.index, &failure.fault)).collect();
    let gone: Vec<i64> =
        kept.iter().enumerate().filter(|(i, _)| !failed.contains_key(i)).map(|(_, (id, _))| *id).collect();
    spi::run(
        "DELETE FROM meterflow.rejected_events WHERE tenant_id = $1 AND id = ANY ($2)",
        &[tenant.as_str().into(), gone.into()],
        See::Write,
        |_| Ok(()),
    )?;
    for (i, fault) in failed {
        spi::run(
            "UPDATE meterflow.rejected_events SET code = $3, message = $4, times = times + 1, last_seen_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2",
            &[tenant.as_str().into(), kept[i].0.into(), fault.code.as_str().into(), fault.message.clone().into()],
            See::Write,
            |_| Ok(()),
        )?;
    }
    Ok(report)
}
