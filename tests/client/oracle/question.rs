//! Questions to usage(), each asked twice in one snapshot: of meterflow, and of the events as they were sent.

use std::collections::BTreeMap;

use postgres::Client;
use postgres::error::SqlState;

use super::meters::{ALL, FILTERS, Filter, GROUPS, METERS, Spec, path};
use super::{CUSTOMERS, Days};
use crate::event::time;
use crate::rng::Rng;
use crate::server::{has_code, now, quote, rows, shown, try_rows};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu"];

pub struct Question {
    spec: &'static Spec,
    start: i64,
    end: i64,
    customer: Option<String>,
    window: Option<&'static str>,
    group_by: &'static [&'static str],
    filter: Filter,
    zone: &'static str,
    total: bool,
}

/// What the snapshot says of meters and of what has been dropped.
pub struct Snapshot {
    /// By meter key: version, valid_from, valid_to, complete_from.
    versions: BTreeMap<String, Vec<(usize, String, String, String)>>,
    pub raw_floor: String,
    hour_floor: String,
    day_floor: String,
}

/// Window start and end, customer and group.
type Key = (String, String, Option<String>, Option<String>);
type Answer = BTreeMap<Key, Option<String>>;

#[derive(PartialEq)]
pub enum Verdict {
    Equal,
    /// meterflow said that it can no longer answer, with reason.
    Gone,
}

impl Snapshot {
    pub fn take(client: &mut Client) -> Snapshot {
        let mut versions: BTreeMap<String, Vec<_>> = BTreeMap::new();
        let sql = "SELECT meter_key, version, valid_from, valid_to, complete_from FROM meterflow.meter_versions ORDER BY meter_key, version";
        for row in rows(client, sql) {
            let [key, version, from, to, complete] =
                <[Option<String>; 5]>::try_from(row).expect("five columns").map(Option::unwrap);
            versions.entry(key).or_default().push((version.parse().expect("a number"), from, to, complete));
        }
        let floors = rows(client, "SELECT raw_floor, hour_floor, day_floor FROM meterflow.fold_state").remove(0);
        let [raw_floor, hour_floor, day_floor] =
            <[Option<String>; 3]>::try_from(floors).expect("three columns").map(Option::unwrap);
        Snapshot { versions, raw_floor, hour_floor, day_floor }
    }

    /// How many of the meters are there.
    pub fn meters(&self) -> usize {
        self.versions.len()
    }
}

impl Question {
    pub fn random(rng: &mut Rng, snapshot: &Snapshot, days: &Days) -> Question {
        let there: Vec<&'static Spec> = METERS.iter().filter(|spec| snapshot.versions.contains_key(spec.key)).collect();
        let spec = *rng.pick(&there);
        let (window, span) = rng.weighted(&[
            (30, (None, 0)),
            (5, (Some("minute"), 2 * HOUR)),
            (8, (Some("15 minutes"), 20 * HOUR)),
            (20, (Some("hour"), 4 * DAY)),
            (20, (Some("day"), 40 * DAY)),
            (6, (Some("week"), 100 * DAY)),
            (6, (Some("month"), 400 * DAY)),
        ]);
        let (start, end) = period(rng, span, days);
        let group_by = if rng.chance(35) { *rng.pick(&GROUPS) } else { &[] };
        let customer = rng.chance(55).then(|| rng.pick(&CUSTOMERS).to_string());
        Question {
            spec,
            start,
            end,
            total: customer.is_none() && rng.chance(40),
            customer,
            window,
            group_by,
            filter: if rng.chance(25) { *rng.pick(&FILTERS) } else { ALL },
            // A quarter of an hour on the local clock: the oracle knows it of whole hours only.
            zone: if window == Some("15 minutes") { "UTC" } else { rng.pick::<&str>(&ZONES) },
        }
    }

    /// Asks both and compares; panics when they differ.
    pub fn check(&self, client: &mut Client, snapshot: &Snapshot) -> Verdict {
        let usage = self.usage();
        let answered = match in_savepoint(client, &usage) {
            Ok(rows) => answer(rows),
            Err(error) if has_code(&error, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                assert!(
                    self.may_be_gone(snapshot, client),
                    "nothing it asks for has been dropped, yet: {}\n{usage}",
                    shown(&error)
                );
                return Verdict::Gone;
            }
            Err(error) => panic!("{}\n{usage}", shown(&error)),
        };
        let naive = self.naive(snapshot);
        let expected = answer(rows(client, &naive));
        let same = |key: &Key| match (expected.get(key), answered.get(key)) {
            (Some(expected), Some(answered)) => self.close(expected.as_deref(), answered.as_deref()),
            _ => false,
        };
        let wrong: Vec<&Key> = expected.keys().chain(answered.keys()).filter(|key| !same(key)).collect();
        if let Some(key) = wrong.first() {
            panic!(
                "usage differs in {} of {} rows; at {key:?} expected {:?}, answered {:?}\n{usage};\nWITH truth ...\n{naive}",
                wrong.len(),
                expected.len(),
                expected.get(*key),
                answered.get(*key)
            );
        }
        Verdict::Equal
    }

    fn usage(&self) -> String {
        let text = |value: Option<&str>| value.map_or("NULL".to_string(), quote);
        let group_by = self.group_by.iter().map(|name| quote(name)).collect::<Vec<_>>().join(",");
        format!(
            "SELECT window_start, window_end, customer_id, group_key, trim_scale(value) FROM meterflow.usage({}, '{}', '{}', {}, {}, ARRAY[{group_by}]::text[], {}, '{}', {})",
            quote(self.spec.key),
            time(self.start),
            time(self.end),
            text(self.customer.as_deref()),
            text(self.window),
            text(Some(self.filter.json).filter(|json| *json != "{}")),
            self.zone,
            self.total
        )
    }

    /// Where the windows begin, as an array.
    fn bounds(&self) -> String {
        let (start, end) = (instant(self.start), instant(self.end));
        match self.window {
            None => format!("SELECT ARRAY[{start}] AS bounds"),
            Some(window) => {
                let trunc = match window {
                    "15 minutes" => "date_bin('15 minutes', g, '2000-01-01Z')".to_string(),
                    unit => format!("date_trunc('{unit}', g, '{}')", self.zone),
                };
                // The step is shorter than any window but a minute.
                let step = if window == "minute" { "20 seconds" } else { "10 minutes" };
                format!(
                    "SELECT array_agg(DISTINCT greatest({trunc}, {start})) AS bounds FROM (SELECT generate_series({start}, {end} - interval '1 microsecond', '{step}') \
                     UNION ALL SELECT {end} - interval '1 microsecond') AS series (g)"
                )
            }
        }
    }

    fn naive(&self, snapshot: &Snapshot) -> String {
        let (start, end, bounds) = (instant(self.start), instant(self.end), self.bounds());
        let values: Vec<String> = snapshot.versions[self.spec.key]
            .iter()
            .map(|(version, from, to, _)| {
                let values = self.spec.values(&self.spec.versions[version - 1]);
                let customer = self.customer.as_deref().map_or(String::new(), |customer| format!("AND t.customer = {}", quote(customer)));
                format!(
                    "{values} AND t.at >= '{from}' AND t.at < '{to}' AND t.at >= {start} AND t.at < {end} AND coalesce({}, false) {customer}",
                    self.filter.sql
                )
            })
            .collect();
        let group = match self.group_by {
            [] => "NULL::jsonb".to_string(),
            names => {
                let members: Vec<String> = names
                    .iter()
                    .map(|name| format!("{}, coalesce(properties#>'{}', 'null')", quote(name), path(name)))
                    .collect();
                format!("jsonb_build_object({})", members.join(", "))
            }
        };
        let customer = if self.total { "NULL" } else { "customer" };
        let (aggregate, empty) = self.spec.aggregate();
        let bucketed = match (self.spec.aggregation, self.spec.bucket) {
            ("bucket_max", Some(size)) => format!(
                "(SELECT w, c, g, s, e, max(v) AS peak FROM windowed GROUP BY w, c, g, s, e, date_bin('{size}', at, '1970-01-05Z'))"
            ),
            _ => "windowed".to_string(),
        };
        let always = if self.group_by.is_empty() && (self.total || self.customer.is_some()) {
            let customer = self.customer.as_deref().map_or("NULL".to_string(), quote);
            format!("UNION SELECT {customer}, NULL")
        } else {
            String::new()
        };
        format!(
            "WITH bound AS MATERIALIZED ({bounds}),
             piece AS (SELECT w, s, coalesce(lead(s) OVER (ORDER BY w), {end}) AS e FROM bound, unnest(bounds) WITH ORDINALITY AS b (s, w)),
             counted AS ({}),
             windowed AS (SELECT x.*, p.s, p.e FROM (SELECT width_bucket(at, (SELECT bounds FROM bound)) AS w, {customer}::text AS c, {group} AS g, * FROM counted) x JOIN piece p USING (w)),
             series AS (SELECT DISTINCT c, g FROM windowed {always}),
             found AS (SELECT w, c, g, {aggregate} AS value FROM {bucketed} AS q GROUP BY w, c, g, s, e)
             SELECT p.s, p.e, series.c, series.g, trim_scale(CASE WHEN found.w IS NULL THEN {empty} ELSE found.value END)
               FROM piece p CROSS JOIN series LEFT JOIN found ON found.w = p.w AND found.c IS NOT DISTINCT FROM series.c AND found.g IS NOT DISTINCT FROM series.g",
            values.join("\nUNION ALL ")
        )
    }

    /// Equal, or as near as the approximate meters promise.
    fn close(&self, expected: Option<&str>, answered: Option<&str>) -> bool {
        if expected == answered || !self.spec.approximate {
            return expected == answered;
        }
        let (Some(expected), Some(answered)) = (expected, answered) else { return false };
        let (expected, answered): (f64, f64) =
            (expected.parse().expect("a number"), answered.parse().expect("a number"));
        let error = match self.spec.aggregation {
            "unique_count" => (0.05 * expected).max(1.0),
            _ => expected.abs() / 128.0,
        };
        (expected - answered).abs() <= error
    }

    /// Whether the question needs raw events that retention has dropped.
    fn may_be_gone(&self, snapshot: &Snapshot, client: &mut Client) -> bool {
        let is = |client: &mut Client, sql: &str| crate::server::one(client, &format!("SELECT {sql}")) == "t";
        let start = format!("'{}'::timestamptz", time(self.start));
        if !is(client, &format!("{start} < '{}'", snapshot.raw_floor)) {
            return false;
        }
        let versions = &snapshot.versions[self.spec.key];
        let asked = self.group_by.iter().chain(self.filter.properties);
        let mut not_kept = false;
        for property in asked {
            not_kept |=
                versions.iter().any(|(version, ..)| !self.spec.versions[version - 1].dimensions.contains(property));
        }
        if not_kept || versions.iter().any(|(_, _, _, complete)| complete != "-infinity") {
            return true;
        }
        // A bound that cuts what is kept of its time: an hour, later a day, at last a month.
        let mut bounds = rows(client, &format!("SELECT unnest(bounds) FROM ({}) AS b", self.bounds())).concat();
        bounds.push(Some(time(self.end)));
        bounds.iter().flatten().any(|bound| {
            let sql = format!(
                "b < '{}' AND b <> date_trunc(CASE WHEN b < '{}' THEN 'month' WHEN b < '{}' THEN 'day' ELSE 'hour' END, b, 'UTC') FROM (SELECT '{bound}'::timestamptz) AS x (b)",
                snapshot.raw_floor, snapshot.day_floor, snapshot.hour_floor
            );
            is(client, &sql)
        })
    }
}

fn instant(at: i64) -> String {
    format!("'{}'::timestamptz", time(at))
}

fn period(rng: &mut Rng, span: i64, days: &Days) -> (i64, i64) {
    let anchor = days.time(rng);
    let span = if span == 0 { *rng.pick(&[1, MINUTE, HOUR, 5 * HOUR, DAY, 31 * DAY, 400 * DAY]) } else { span };
    let length = rng.range(1..span + 1);
    let start = (anchor - rng.range(0..length + 1)).min(now());
    let (mut start, mut end) = (start, start + length);
    match rng.range(0..5) {
        0 => (start, end) = (start - start.rem_euclid(HOUR), end - end.rem_euclid(HOUR) + HOUR),
        1 => (start, end) = (start - start.rem_euclid(DAY), end - end.rem_euclid(DAY) + DAY),
        2 => start -= start.rem_euclid(HOUR),
        _ => {}
    }
    (start, end.max(start + 1))
}

fn answer(rows: Vec<Vec<Option<String>>>) -> Answer {
    let count = rows.len();
    let answer: Answer = rows
        .into_iter()
        .map(|row| {
            let [start, end, customer, group, value] = <[Option<String>; 5]>::try_from(row).expect("five columns");
            ((start.unwrap_or_default(), end.unwrap_or_default(), customer, group), value)
        })
        .collect();
    assert_eq!(answer.len(), count, "two rows of one window, customer and group");
    answer
}

/// An error must not end the snapshot.
fn in_savepoint(client: &mut Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, postgres::Error> {
    crate::server::run(client, "SAVEPOINT question");
    let result = try_rows(client, sql);
    crate::server::run(client, if result.is_ok() { "RELEASE question" } else { "ROLLBACK TO question" });
    result
}
