//! A session that sends: new events, the same again, spoilt ones, corrections; and knows what must come of each.

use std::io::Write;
use std::sync::atomic::Ordering;

use postgres::error::SqlState;
use postgres::{Client, Transaction};

use super::{CUSTOMERS, DAY, HOUR, MINUTE, Phase, Shared};
use crate::event::{Event, Shape, array, time};
use crate::rng::Rng;
use crate::server::{OUTCOME, Outcome, has_code, ingest, now, one, outcome, quote, shown};

const SECOND: i64 = 1_000_000;

struct Writer<'a> {
    shared: &'a Shared,
    rng: Rng,
    number: u64,
    client: Client,
    phase: Phase,
    ids: u64,
    /// What this session has sent and knows to be accepted.
    own: Vec<Own>,
    /// Sent in transactions that were rolled back: as good as never sent.
    unborn: Vec<Event>,
}

#[derive(Clone)]
struct Own {
    /// As first sent.
    event: Event,
    /// When, and the time it counts for now.
    sent: i64,
    at: i64,
    voided: bool,
    /// The inbox line that it came by, until it is known to have been drained.
    line: Option<String>,
}

/// What must come of an event.
#[derive(Clone, Debug, PartialEq)]
enum Expect {
    Accepted,
    Duplicate,
    Failed(&'static str),
    /// Accepted or failed: a meter that can't take it may be there, or not yet.
    MaybeInvalid,
    /// Accepted, duplicate or failed: other sessions send it, too, and with another payload.
    MaybeConflict,
}

struct Item {
    event: Option<Event>,
    text: String,
    expect: Expect,
}

pub fn work(shared: &Shared, number: u64) {
    let client = shared.server.connect("oracle");
    let mut writer = Writer {
        shared,
        rng: Rng::new(shared.seed, number),
        number,
        client,
        phase: Phase::Wide,
        ids: 0,
        own: Vec::new(),
        unborn: Vec::new(),
    };
    while !shared.stop.load(Ordering::Relaxed) {
        {
            let phase = shared.phase.read().expect("it is changed without panic");
            writer.phase = *phase;
            writer.step();
        }
        let pause = writer.rng.range(0..40) as u64;
        std::thread::sleep(std::time::Duration::from_millis(pause));
    }
}

impl Writer<'_> {
    fn step(&mut self) {
        match self.rng.range(0..100) {
            0..72 => self.send(),
            72..87 => self.copy(),
            87..94 => self.void(),
            _ => self.amend(),
        }
    }

    // Events.

    fn fresh(&mut self) -> Event {
        if let Some(event) = self.unborn.pop().filter(|_| self.phase == Phase::Wide) {
            return event;
        }
        self.ids += 1;
        let mut id = format!("w{}-{}", self.number, self.ids);
        let mut source = if self.rng.chance(70) { String::new() } else { "sdk".to_string() };
        if self.rng.chance(5) && !self.own.is_empty() {
            // The same id from elsewhere is another event.
            id = self.rng.pick(&self.own).event.id.clone();
            source = format!("source-{}", self.ids);
        }
        let name = self.rng.weighted(&[(60, "llm"), (35, "api"), (5, "unmetered")]).to_string();
        let properties = properties(&mut self.rng, &name);
        Event { id, source, customer: self.customer(), name, at: self.rng.chance(90).then(|| self.time()), properties }
    }

    fn customer(&mut self) -> String {
        let few = if self.rng.chance(3) { CUSTOMERS.len() } else { CUSTOMERS.len() - 1 };
        CUSTOMERS[self.rng.index(few)].to_string()
    }

    fn time(&mut self) -> i64 {
        match self.phase {
            Phase::Narrow => now() - self.rng.range(SECOND..20 * SECOND),
            // Not far ahead: a generation of keys is kept until the latest of its events is out of the window.
            Phase::Wide if self.rng.chance(3) => now() + self.rng.range(0..3 * SECOND),
            Phase::Wide => self.shared.days.time(&mut self.rng),
        }
    }

    /// An event that every session knows, without having been told.
    fn common(&mut self) -> (Event, Expect) {
        let number = self.rng.range(0..2000) as u64;
        let mut rng = Rng::new(self.shared.seed, 1_000_000 + number);
        let properties = properties(&mut rng, "llm");
        let at = self.shared.days.changes[0] + rng.range(0..6 * HOUR);
        let mut event = Event {
            id: format!("common-{number}"),
            source: "pool".to_string(),
            customer: "acme".to_string(),
            name: "llm".to_string(),
            at: Some(at),
            properties,
        };
        if self.rng.chance(20) {
            event.customer = "bolt".to_string();
        }
        (event, Expect::MaybeConflict)
    }

    fn item(&mut self, batch: &[Item]) -> Item {
        let kind = self.rng.range(0..100);
        let known = if self.own.is_empty() { None } else { Some(self.rng.index(self.own.len())) };
        match (kind, known) {
            (..8, Some(known)) if self.repeatable(&self.own[known]).is_some() => {
                let own = &self.own[known];
                let expect = self.repeatable(own).expect("just asked");
                let event = own.event.clone();
                self.of(event, expect)
            }
            (8..12, Some(known)) if self.phase == Phase::Wide && self.own[known].line.is_none() => {
                let mut event = self.own[known].event.clone();
                match self.rng.range(0..3) {
                    0 => event.properties = format!("{{\"other\":{},\"latency\":1}}", self.ids),
                    1 => event.customer.push('x'),
                    _ => event.at = Some(event.at.map_or(now() - 5, |at| at - 1)),
                }
                if event.properties.contains("oops") {
                    event.properties = "{}".to_string();
                }
                self.of(event, Expect::Failed("conflict"))
            }
            (12..17, _) if !batch.is_empty() => {
                let earlier = &batch[self.rng.index(batch.len())];
                match (&earlier.event, &earlier.expect) {
                    (Some(event), Expect::Accepted) => self.of(event.clone(), Expect::Duplicate),
                    _ => self.new_item(),
                }
            }
            (17..23, _) if self.phase == Phase::Wide => {
                let (event, expect) = self.common();
                if batch.iter().any(|item| item.event.as_ref().is_some_and(|it| it.id == event.id)) {
                    return self.new_item();
                }
                self.of(event, expect)
            }
            (23..30, _) => self.spoilt(),
            _ => self.new_item(),
        }
    }

    fn new_item(&mut self) -> Item {
        let event = self.fresh();
        let expect = if event.properties.contains("oops") { Expect::MaybeInvalid } else { Expect::Accepted };
        self.of(event, expect)
    }

    fn of(&mut self, event: Event, expect: Expect) -> Item {
        let shape = *self.rng.pick(&[Shape::Native, Shape::Native, Shape::CloudEvents, Shape::Flexprice]);
        Item { text: event.json(shape), event: Some(event), expect }
    }

    /// What sending it again leads to; None: too near to a limit to tell.
    fn repeatable(&self, own: &Own) -> Option<Expect> {
        if own.line.is_some() {
            return None;
        }
        let now = now();
        match (self.phase, own.event.at) {
            (Phase::Wide, _) => Some(Expect::Duplicate),
            (Phase::Narrow, Some(at)) if at < now - 10 * MINUTE => Some(Expect::Failed("too_old")),
            (Phase::Narrow, at)
                if own.sent > now - 25 * SECOND && at.is_none_or(|at| at > now - 30 * SECOND && at < now) =>
            {
                Some(Expect::Duplicate)
            }
            _ => None,
        }
    }

    fn spoilt(&mut self) -> Item {
        let mut event = self.fresh();
        event.name = "llm".to_string();
        // The id is spent: what failed once must not be taken for accepted.
        let id = serde_json::Value::from(event.id.as_str());
        let whole = |fields: &str| {
            format!("{{\"transaction_id\":{id},\"customer_id\":\"acme\",\"event_name\":\"llm\",{fields}}}")
        };
        let far = time(now() + 3 * DAY);
        let (text, code) = match self.rng.range(0..10) {
            0 => ("{\"customer_id\":\"acme\",\"event_name\":\"llm\"}".to_string(), "missing_transaction_id"),
            1 => (
                format!("{{\"transaction_id\":{id},\"customer_id\":\"\",\"event_name\":\"llm\"}}"),
                "missing_customer_id",
            ),
            2 => (format!("{{\"transaction_id\":{id},\"customer_id\":\"acme\"}}"), "missing_event_name"),
            3 => (whole("\"timestamp\":\"yesterday\""), "invalid_timestamp"),
            4 => (whole("\"timestamp\":\"1999-12-31T23:59:59Z\""), "too_old"),
            5 => (whole(&format!("\"timestamp\":\"{far}\"")), "in_future"),
            6 => (whole("\"properties\":[1]"), "invalid_properties"),
            7 => (whole("\"properties\":{\"usage\":{\"tokens\":\"many\"}}"), "invalid_value"),
            8 => (whole("\"properties\":{\"latency\":true}"), "invalid_value"),
            _ => ("17".to_string(), "invalid_event"),
        };
        Item { text, event: None, expect: Expect::Failed(code) }
    }

    // Steps.

    fn send(&mut self) {
        let size = *self.rng.pick(&[1, 1, 3, 10, 40]);
        let mut batch: Vec<Item> = Vec::new();
        for _ in 0..size {
            let item = self.item(&batch);
            batch.push(item);
        }
        let by_rows = self.rng.chance(25);
        if by_rows {
            batch.retain(|item| item.event.is_some());
        }
        if batch.is_empty() {
            return;
        }
        let abort = self.rng.chance(5);
        let own_read = self.rng.chance(10);
        let began = now();
        let mut transaction = self.client.transaction().expect("a transaction");
        let result = if by_rows {
            ingest_rows(&mut transaction, &batch)
        } else {
            ingest(&mut transaction, &array(batch.iter().map(|item| item.text.clone())))
        };
        let unsent = |batch: Vec<Item>| {
            batch.into_iter().filter(|item| item.expect == Expect::Accepted).filter_map(|item| item.event)
        };
        let result = match result {
            Ok(result) => result,
            // One transaction of maintain() may have made a partition and then wait for us, who wait to make one.
            Err(error) if has_code(&error, &SqlState::T_R_DEADLOCK_DETECTED) => {
                transaction.rollback().expect("a rollback");
                self.unborn.extend(unsent(batch));
                return;
            }
            Err(error) => panic!("ingest: {}", shown(&error)),
        };
        let taken = settle(&batch, &result);
        let stored = record(&mut transaction, &taken, None);
        assert_eq!(stored as i32, result.accepted, "accepted events were not sent before: {result:?}");
        if own_read {
            let sql = "SELECT (SELECT value FROM meterflow.usage('requests', now() - interval '20 hours', now() + interval '2 days', total => true)),
                              (SELECT count(*) FROM meterflow.events e WHERE e.event_name = 'llm' AND e.timestamp >= now() - interval '20 hours'
                                  AND NOT EXISTS (SELECT FROM meterflow.event_corrections c WHERE c.tenant_id = e.tenant_id AND c.seq = e.seq))";
            let sql = format!("SELECT concat_ws(' instead of ', u, n) FROM ({sql}) AS x (u, n) WHERE u <> n");
            let row = transaction.query_opt(&sql, &[]).unwrap_or_else(|error| panic!("{}", shown(&error)));
            assert!(row.is_none(), "a transaction reads its own events: {:?}", row.map(|row| row.get::<_, String>(0)));
        }
        if abort {
            transaction.rollback().expect("a rollback");
            self.unborn.extend(unsent(batch));
            return;
        }
        transaction.commit().unwrap_or_else(|error| panic!("commit: {}", shown(&error)));
        let ended = now();
        for event in taken.iter().filter(|event| event.source != "pool") {
            if !self.own.iter().rev().take(200).any(|own| own.event.id == event.id && own.event.source == event.source)
            {
                self.own.push(Own {
                    event: (*event).clone(),
                    sent: began,
                    at: event.at.unwrap_or(ended),
                    voided: false,
                    line: None,
                });
            }
        }
        let counts = &self.shared.counts;
        counts.accepted.fetch_add(result.accepted as u64, Ordering::Relaxed);
        counts.duplicates.fetch_add(result.duplicates as u64, Ordering::Relaxed);
        counts.failed.fetch_add(result.failed.len() as u64, Ordering::Relaxed);
    }

    fn copy(&mut self) {
        let mut lines: Vec<(String, Vec<Event>)> = Vec::new();
        let received = now();
        let (mut duplicates, mut failed) = (0, 0);
        for _ in 0..self.rng.range(1..15) {
            let mut events = vec![self.fresh()];
            if self.rng.chance(20) {
                events.push(self.fresh());
            }
            events
                .iter_mut()
                .filter(|event| event.properties.contains("oops"))
                .for_each(|event| event.properties = "{}".to_string());
            let text = match &events[..] {
                [event] => event.json(Shape::Native),
                events => array(events.iter().map(|event| event.json(Shape::Flexprice))),
            };
            lines.push((text, events));
        }
        if self.rng.chance(30) {
            lines.push((self.spoilt().text, Vec::new()));
            failed += 1;
        }
        if self.rng.chance(10) {
            lines.push((format!("not JSON {}", self.ids), Vec::new()));
            failed += 1;
        }
        let known = (self.phase == Phase::Wide && !self.own.is_empty()).then(|| self.rng.index(self.own.len()));
        if let Some(known) = known.filter(|known| self.own[*known].line.is_none()) {
            lines.push((self.own[known].event.json(Shape::CloudEvents), Vec::new()));
            duplicates += 1;
        }
        let mut transaction = self.client.transaction().expect("a transaction");
        let mut copy = transaction.copy_in("COPY meterflow.inbox (event, received_at) FROM STDIN").expect("a COPY");
        for (line, _) in &lines {
            let escaped = line.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
            writeln!(copy, "{escaped}\t{}", time(received)).expect("a COPY takes it");
        }
        copy.finish().unwrap_or_else(|error| panic!("COPY: {}", shown(&error)));
        let mut accepted = 0;
        for (line, events) in &lines {
            let timed: Vec<Event> =
                events.iter().map(|event| Event { at: event.at.or(Some(received)), ..event.clone() }).collect();
            accepted += record(&mut transaction, &timed.iter().collect::<Vec<_>>(), Some(line));
        }
        if self.rng.chance(5) {
            transaction.rollback().expect("a rollback");
            return;
        }
        transaction.commit().unwrap_or_else(|error| panic!("commit: {}", shown(&error)));
        for (line, events) in lines {
            for event in events {
                let at = event.at.unwrap_or(received);
                self.own.push(Own { event, sent: received, at, voided: false, line: Some(line.clone()) });
            }
        }
        self.shared.counts.accepted.fetch_add(accepted, Ordering::Relaxed);
        self.shared.counts.duplicates.fetch_add(duplicates, Ordering::Relaxed);
        self.shared.counts.failed.fetch_add(failed, Ordering::Relaxed);
    }

    /// An event of ours that is stored by now.
    fn stored(&mut self) -> Option<usize> {
        if self.own.is_empty() {
            return None;
        }
        // Retention waits until corrections of old events are folded.
        let recent = if self.phase == Phase::Narrow { 97 } else { 50 };
        let recent = self.own.len().saturating_sub(if self.rng.chance(recent) { 30 } else { usize::MAX });
        let index = recent + self.rng.index(self.own.len() - recent);
        if let Some(line) = self.own[index].line.clone() {
            let sql = format!("SELECT count(*) FROM meterflow.inbox WHERE event = {}", quote(&line));
            if one(&mut self.client, &sql) != "0" {
                return None;
            }
            self.own[index].line = None;
        }
        Some(index)
    }

    fn void(&mut self) {
        let Some(index) = self.stored() else { return };
        let own = self.own[index].clone();
        let mut transaction = self.client.transaction().expect("a transaction");
        let call = "SELECT meterflow.void_event($1, 'a test', $2)";
        match transaction.query_one(call, &[&own.event.id, &own.event.source]) {
            Ok(_) => {
                transaction
                    .execute(
                        "UPDATE sent SET voided = true WHERE source = $1 AND id = $2",
                        &[&own.event.source, &own.event.id],
                    )
                    .expect("an UPDATE");
                if self.rng.chance(10) {
                    transaction.rollback().expect("a rollback");
                    return;
                }
                transaction.commit().unwrap_or_else(|error| panic!("commit: {}", shown(&error)));
                self.own[index].voided = true;
                self.shared.counts.corrections.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                transaction.rollback().expect("a rollback");
                self.assert_too_old(&error, &own, "void_event");
            }
        }
    }

    fn amend(&mut self) {
        let Some(index) = self.stored() else { return };
        let own = self.own[index].clone();
        if own.event.properties.contains("oops") {
            return;
        }
        let mut fields: Vec<String> = Vec::new();
        let mut sets: Vec<String> = Vec::new();
        let mut at = own.at;
        if self.rng.chance(60) {
            let new = properties(&mut self.rng, "amended");
            fields.push(format!("\"properties\":{new}"));
            sets.push(format!("properties = {}", quote(&new)));
        }
        if self.rng.chance(30) {
            let customer = self.customer();
            fields.push(format!("\"customer_id\":{}", serde_json::Value::from(customer.as_str())));
            sets.push(format!("customer = {}", quote(&customer)));
        }
        if self.rng.chance(30) || fields.is_empty() {
            at = self.time();
            fields.push(format!("\"timestamp\":\"{}\"", time(at)));
            sets.push(format!("at = '{}'", time(at)));
        }
        let mut transaction = self.client.transaction().expect("a transaction");
        let call = "SELECT meterflow.amend_event($1, $2::text::json, 'a test', $3)";
        match transaction.query_one(call, &[&own.event.id, &format!("{{{}}}", fields.join(",")), &own.event.source]) {
            Ok(_) => {
                assert!(!own.voided, "a voided event can not be amended: {own:?}", own = own.event);
                let sql = format!("UPDATE sent SET {} WHERE source = $1 AND id = $2", sets.join(", "));
                transaction
                    .execute(&sql, &[&own.event.source, &own.event.id])
                    .unwrap_or_else(|error| panic!("{}", shown(&error)));
                transaction.commit().unwrap_or_else(|error| panic!("commit: {}", shown(&error)));
                self.own[index].at = at;
                self.shared.counts.corrections.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                transaction.rollback().expect("a rollback");
                if own.voided && has_code(&error, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) {
                    return;
                }
                // The amended event must be of the window, as any event.
                let why = shown(&error);
                let outside = self.phase == Phase::Narrow
                    && (at < now() - 55 * SECOND && why.contains("too_old")
                        || at > now() - SECOND && why.contains("in_future"));
                if !outside {
                    self.assert_too_old(&error, &own, "amend_event");
                }
            }
        }
    }

    /// Only what retention or downsampling has touched may refuse a correction.
    fn assert_too_old(&mut self, error: &postgres::Error, own: &Own, verb: &str) {
        let gone = [SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, SqlState::NO_DATA_FOUND]
            .iter()
            .any(|code| has_code(error, code));
        let floor = "SELECT (extract(epoch FROM greatest(hour_floor, raw_floor, '2000-01-01')) * 1000000)::bigint FROM meterflow.fold_state";
        let floor: i64 = one(&mut self.client, floor).parse().expect("a number");
        assert!(gone && own.at < floor, "{verb} of {:?}: {}", own.event, shown(error));
    }
}

/// Compares what ingest said with what was expected; returns the events that are stored now, each once.
fn settle<'b>(batch: &'b [Item], result: &Outcome) -> Vec<&'b Event> {
    let failed =
        |index: usize| result.failed.iter().find(|(failed, _)| *failed == index).map(|(_, code)| code.as_str());
    let mut stored = Vec::new();
    let mut sure = 0;
    for (index, item) in batch.iter().enumerate() {
        let fits = match (&item.expect, failed(index)) {
            (Expect::Failed(code), found) => found == Some(code),
            (Expect::MaybeInvalid, found) => matches!(found, None | Some("invalid_value")),
            (Expect::MaybeConflict, found) => matches!(found, None | Some("conflict")),
            (_, found) => found.is_none(),
        };
        assert!(fits, "{:?} became {:?}: {}", item.expect, failed(index), item.text);
        if failed(index).is_none() {
            match item.expect {
                Expect::Accepted | Expect::MaybeInvalid => {
                    sure += 1;
                    stored.extend(&item.event);
                }
                Expect::Duplicate => {}
                _ => stored.extend(&item.event),
            }
        }
    }
    assert!(result.accepted >= sure, "{sure} new events at least: {result:?}");
    assert_eq!(result.accepted as usize + result.duplicates as usize + result.failed.len(), batch.len(), "{result:?}");
    stored
}

/// Writes down what must be stored now; returns how much of it was not there before.
fn record(transaction: &mut Transaction<'_>, events: &[&Event], line: Option<&str>) -> u64 {
    let column = |field: fn(&Event) -> String| events.iter().map(|event| field(event)).collect::<Vec<_>>();
    let times: Vec<Option<String>> = events.iter().map(|event| event.at.map(time)).collect();
    let stored = transaction
        .execute(
            "INSERT INTO sent (source, id, customer, name, at, properties, line) \
             SELECT s, i, c, n, t::timestamptz, p::jsonb, $7 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) AS x (s, i, c, n, t, p) \
             ON CONFLICT DO NOTHING",
            &[
                &column(|event| event.source.clone()),
                &column(|event| event.id.clone()),
                &column(|event| event.customer.clone()),
                &column(|event| event.name.clone()),
                &times,
                &column(|event| event.properties.clone()),
                &line,
            ],
        )
        .unwrap_or_else(|error| panic!("{}", shown(&error)));
    if events.iter().any(|event| event.at.is_none()) {
        // Of the time it arrived.
        let unknown = column(|event| format!("{}/{}", event.source, event.id));
        let sql = "UPDATE sent s SET at = e.timestamp FROM meterflow.events e \
                    WHERE s.at IS NULL AND s.source || '/' || s.id = ANY ($1) AND e.source = s.source AND e.transaction_id = s.id \
                      AND e.tenant_id = 'default' AND e.customer_id = s.customer AND e.timestamp BETWEEN now() AND clock_timestamp()";
        transaction.execute(sql, &[&unknown]).unwrap_or_else(|error| panic!("{}", shown(&error)));
        let row = transaction
            .query_one("SELECT count(*) FROM sent WHERE at IS NULL AND source || '/' || id = ANY ($1)", &[&unknown]);
        assert_eq!(row.expect("a count").get::<_, i64>(0), 0, "events without a time are of the time they arrived");
    }
    stored
}

fn ingest_rows(transaction: &mut Transaction<'_>, batch: &[Item]) -> Result<Outcome, postgres::Error> {
    let events: Vec<&Event> = batch.iter().filter_map(|item| item.event.as_ref()).collect();
    let column = |field: fn(&Event) -> String| events.iter().map(|event| field(event)).collect::<Vec<_>>();
    let times: Vec<Option<String>> = events.iter().map(|event| event.at.map(time)).collect();
    let row = transaction.query_one(
        &format!("SELECT {OUTCOME} FROM meterflow.ingest_rows($1, $2, $3, $4::text[]::timestamptz[], $5::text[]::jsonb[], $6)"),
        &[
            &column(|event| event.id.clone()),
            &column(|event| event.customer.clone()),
            &column(|event| event.name.clone()),
            &times,
            &column(|event| event.properties.clone()),
            &column(|event| event.source.clone()),
        ],
    )?;
    Ok(outcome(&row))
}

/// Everything that the meters look at, some of it missing.
fn properties(rng: &mut Rng, name: &str) -> String {
    let mut fields: Vec<String> = Vec::new();
    if rng.chance(85) {
        fields.push(format!("\"model\":\"{}\"", rng.pick(&["gpt-4", "gpt-4o", "claude"])));
    }
    match rng.range(0..10) {
        ..8 => fields.push(format!("\"region\":\"{}\"", rng.pick(&["eu", "us", "ap"]))),
        8 => fields.push("\"region\":null".to_string()),
        _ => {}
    }
    let tokens = match rng.range(0..10) {
        ..6 => rng.range(0..5000).to_string(),
        6 => format!("\"{}\"", rng.range(0..5000)),
        7 => format!("{}.{:06}e2", rng.range(-9..10), rng.range(0..1_000_000)),
        8 => "null".to_string(),
        _ => format!("-{}.5", rng.range(0..100)),
    };
    fields.push(format!("\"usage\":{{\"tokens\":{tokens},\"tier\":\"{}\"}}", rng.pick(&["a", "b", "c"])));
    if rng.chance(80) {
        fields.push(format!("\"latency\":{}.{:03}", rng.range(0..12), rng.range(0..1000)));
    }
    if rng.chance(80) {
        fields.push(format!("\"level\":{}{}.{}", rng.pick(&["", "-"]), rng.range(0..50), rng.range(0..100)));
    }
    match rng.range(0..10) {
        ..7 => fields.push(format!("\"user\":\"u{}\"", rng.range(0..60))),
        7 => fields.push(format!("\"user\":{}", rng.range(0..5))),
        8 => fields.push("\"user\":true".to_string()),
        _ => {}
    }
    match rng.range(0..20) {
        ..10 => fields.push(format!("\"late\":{}", rng.range(-5..100))),
        10 if name == "api" => fields.push("\"late\":\"oops\"".to_string()),
        _ => {}
    }
    // The order of the members means nothing.
    let turn = rng.index(fields.len());
    fields.rotate_left(turn);
    format!("{{{}}}", fields.join(","))
}
