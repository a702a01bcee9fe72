//! The meters under test, and what they mean, said a second time in plain SQL.

/// A meter, and the definitions it goes through.
pub struct Spec {
    pub key: &'static str,
    pub aggregation: &'static str,
    pub percentile: Option<&'static str>,
    pub bucket: Option<&'static str>,
    pub approximate: bool,
    /// There before the first event.
    pub early: bool,
    pub versions: &'static [Definition],
}

pub struct Definition {
    pub event: &'static str,
    pub property: Option<&'static str>,
    pub filter: Filter,
    pub dimensions: &'static [&'static str],
    pub multiplier: Option<&'static str>,
}

/// The same condition in meterflow's language and in SQL over `t.properties`.
#[derive(Clone, Copy)]
pub struct Filter {
    pub json: &'static str,
    pub sql: &'static str,
    pub properties: &'static [&'static str],
}

pub const ALL: Filter = Filter { json: "{}", sql: "true", properties: &[] };
pub const GPT4: Filter =
    Filter { json: r#"{"model":"gpt-4"}"#, sql: "t.properties->>'model' = 'gpt-4'", properties: &["model"] };
pub const NOT_CLAUDE: Filter = Filter {
    json: r#"{"model":{"ne":"claude"}}"#,
    sql: "t.properties->>'model' IS DISTINCT FROM 'claude'",
    properties: &["model"],
};
pub const WEST: Filter = Filter {
    json: r#"{"region":["eu","us"]}"#,
    sql: "t.properties->>'region' IN ('eu', 'us')",
    properties: &["region"],
};
pub const NO_REGION: Filter =
    Filter { json: r#"{"region":null}"#, sql: "t.properties->>'region' IS NULL", properties: &["region"] };
pub const SLOW: Filter = Filter {
    json: r#"{"latency":{"gte":1,"lt":5.5}}"#,
    sql: "(t.properties->>'latency')::numeric >= 1 AND (t.properties->>'latency')::numeric < 5.5",
    properties: &["latency"],
};
pub const EITHER: Filter = Filter {
    json: r#"{"or":[{"model":"claude"},{"usage.tier":{"in":["b","c"]}}]}"#,
    sql: "t.properties->>'model' = 'claude' OR t.properties#>>'{usage,tier}' IN ('b', 'c')",
    properties: &["model", "usage.tier"],
};
pub const REGION_SET: Filter = Filter {
    json: r#"{"region":{"exists":true}}"#,
    sql: "t.properties->>'region' IS NOT NULL",
    properties: &["region"],
};
pub const FILTERS: [Filter; 7] = [GPT4, NOT_CLAUDE, WEST, NO_REGION, SLOW, EITHER, REGION_SET];

/// What can be grouped by, dimension of a meter or not.
pub const GROUPS: [&[&str]; 5] = [&["model"], &["region"], &["model", "region"], &["usage.tier"], &["user"]];

const fn simple(event: &'static str, property: Option<&'static str>) -> Definition {
    Definition { event, property, filter: ALL, dimensions: &[], multiplier: None }
}

const fn meter(key: &'static str, aggregation: &'static str, versions: &'static [Definition]) -> Spec {
    Spec { key, aggregation, percentile: None, bucket: None, approximate: false, early: true, versions }
}

const LATENCY: Definition = simple("llm", Some("latency"));
const USER: Definition = simple("llm", Some("user"));
const LEVEL: Definition = simple("api", Some("level"));

pub const METERS: [Spec; 27] = [
    meter("requests", "count", &[simple("llm", None)]),
    meter("requests_west", "count", &[Definition { filter: WEST, dimensions: &["model"], ..simple("llm", None) }]),
    meter("tokens", "sum", &[Definition { dimensions: &["model", "region"], ..simple("llm", Some("usage.tokens")) }]),
    meter(
        "kilotokens",
        "sum",
        &[Definition { multiplier: Some("0.001"), filter: NOT_CLAUDE, ..simple("llm", Some("usage.tokens")) }],
    ),
    meter("latency_avg", "avg", &[Definition { dimensions: &["model"], ..LATENCY }]),
    meter("latency_min", "min", &[LATENCY]),
    meter(
        "latency_max",
        "max",
        &[Definition { dimensions: &["region", "usage.tier"], multiplier: Some("-2.5"), ..LATENCY }],
    ),
    meter("level_latest", "latest", &[Definition { dimensions: &["region"], ..LEVEL }]),
    meter("users", "unique_count", &[Definition { dimensions: &["model"], ..USER }]),
    Spec { approximate: true, ..meter("users_approx", "unique_count", &[USER]) },
    meter("seats", "weighted_sum", &[LEVEL]),
    Spec {
        percentile: Some("0.95"),
        ..meter("latency_p95", "percentile", &[Definition { dimensions: &["model"], ..LATENCY }])
    },
    Spec { percentile: Some("0.5"), ..meter("level_p50", "percentile", &[LEVEL]) },
    Spec { percentile: Some("0.95"), approximate: true, ..meter("latency_p95_approx", "percentile", &[LATENCY]) },
    Spec {
        bucket: Some("15 minutes"),
        ..meter("tokens_bucket_sum", "bucket_sum", &[simple("llm", Some("usage.tokens"))])
    },
    Spec {
        bucket: Some("15 minutes"),
        ..meter("latency_peak", "bucket_max", &[Definition { dimensions: &["model"], ..LATENCY }])
    },
    Spec { bucket: Some("1 day"), ..meter("level_peak", "bucket_max", &[Definition { filter: EITHER, ..LEVEL }]) },
    // Defined anew while events come in.
    meter(
        "changing_sum",
        "sum",
        &[
            simple("llm", Some("usage.tokens")),
            Definition { filter: WEST, ..simple("llm", Some("usage.tokens")) },
            Definition { multiplier: Some("3"), dimensions: &["model"], ..LATENCY },
            Definition { filter: EITHER, ..LEVEL },
            Definition { filter: SLOW, dimensions: &["region"], ..LATENCY },
        ],
    ),
    meter(
        "changing_max",
        "max",
        &[LATENCY, Definition { filter: GPT4, ..LATENCY }, Definition { multiplier: Some("-1"), ..LEVEL }, LEVEL],
    ),
    meter("archived", "count", &[simple("llm", None)]),
    // Made while events come in; what they measure may be no number in events of before.
    Spec { early: false, ..meter("late_sum", "sum", &[simple("api", Some("late"))]) },
    Spec {
        early: false,
        ..meter(
            "late_count",
            "count",
            &[Definition { filter: REGION_SET, dimensions: &["region"], ..simple("llm", None) }],
        )
    },
    Spec { early: false, ..meter("late_users", "unique_count", &[Definition { filter: SLOW, ..USER }]) },
    Spec { early: false, ..meter("late_min", "min", &[Definition { dimensions: &["model"], ..LATENCY }]) },
    Spec { early: false, ..meter("late_latest", "latest", &[LATENCY]) },
    Spec { early: false, percentile: Some("0.9"), ..meter("late_p90", "percentile", &[LATENCY]) },
    Spec { early: false, bucket: Some("1 hour"), ..meter("late_peak", "bucket_max", &[LATENCY]) },
];

impl Spec {
    pub fn insert(&self) -> String {
        let first = &self.versions[0];
        let or_null = |value: Option<&str>| value.map_or("NULL".to_string(), |value| format!("'{value}'"));
        format!(
            "INSERT INTO meterflow.meters (key, event_name, aggregation, property, filters, dimensions, multiplier, percentile, bucket_size, approximate) \
             VALUES ('{}', '{}', '{}', {}, '{}', '{{{}}}', {}, {}, {}, {})",
            self.key,
            first.event,
            self.aggregation,
            or_null(first.property),
            first.filter.json,
            first.dimensions.join(","),
            or_null(first.multiplier),
            or_null(self.percentile),
            or_null(self.bucket),
            self.approximate
        )
    }

    /// The change to a later definition.
    pub fn update(&self, version: usize) -> String {
        let next = &self.versions[version - 1];
        let or_null = |value: Option<&str>| value.map_or("NULL".to_string(), |value| format!("'{value}'"));
        format!(
            "UPDATE meterflow.meters SET event_name = '{}', property = {}, filters = '{}', dimensions = '{{{}}}', multiplier = {} WHERE key = '{}'",
            next.event,
            or_null(next.property),
            next.filter.json,
            next.dimensions.join(","),
            or_null(next.multiplier),
            self.key
        )
    }

    /// Values of one definition from the events of `truth AS t` that it counts.
    pub fn values(&self, definition: &Definition) -> String {
        let value = match definition.property {
            None => "NULL::numeric AS v, NULL::jsonb AS j".to_string(),
            Some(property) => {
                let path = path(property);
                let factor = definition.multiplier.unwrap_or("1");
                format!(
                    "CASE WHEN t.properties#>>'{path}' ~ '{NUMBER}' THEN (t.properties#>>'{path}')::numeric * {factor} END AS v, t.properties#>'{path}' AS j"
                )
            }
        };
        let usable = match definition.property {
            None => "true".to_string(),
            Some(property) if self.aggregation == "unique_count" => {
                format!("t.properties#>>'{}' IS NOT NULL", path(property))
            }
            Some(property) => format!("t.properties#>>'{}' ~ '{NUMBER}'", path(property)),
        };
        format!(
            "SELECT t.customer, t.at, t.seq, t.properties, {value} FROM truth t \
              WHERE t.name = '{}' AND coalesce({}, false) AND coalesce({usable}, false)",
            definition.event, definition.filter.sql
        )
    }

    /// What a window with the values `vs` comes to, and what an empty one is; %s and %e are its bounds.
    pub fn aggregate(&self) -> (String, &'static str) {
        let seconds = |time: &str| format!("extract(epoch FROM {time})");
        match self.aggregation {
            "count" => ("count(*)::numeric".to_string(), "0"),
            "sum" | "bucket_sum" => ("sum(v)".to_string(), "0"),
            "avg" => (format!("round(sum(v) * {FINE} / count(*), 24)"), "NULL"),
            "min" => ("min(v)".to_string(), "NULL"),
            "max" => ("max(v)".to_string(), "NULL"),
            "latest" => ("(array_agg(v ORDER BY at DESC, seq DESC NULLS LAST))[1]".to_string(), "NULL"),
            "unique_count" => ("count(DISTINCT j)::numeric".to_string(), "0"),
            "weighted_sum" => (
                format!(
                    "round(sum(v * ({e} - {at})) * {FINE} / ({e} - {s}), 24)",
                    e = seconds("e"),
                    s = seconds("s"),
                    at = seconds("at")
                ),
                "0",
            ),
            "percentile" => {
                let p = self.percentile.expect("percentile meters have one");
                (format!("(array_agg(v ORDER BY v))[ceil({p}::numeric * count(*))::int]"), "NULL")
            }
            "bucket_max" => ("sum(peak)".to_string(), "0"),
            other => panic!("no oracle for {other}"),
        }
    }
}

/// A one that makes a division exact to 40 decimals.
const FINE: &str = "1.0000000000000000000000000000000000000000";
const NUMBER: &str = r"^[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$";

pub fn path(property: &str) -> String {
    format!("{{{}}}", property.replace('.', ","))
}
