//! A case of the vectors, and what it stands for here.

use std::collections::BTreeSet;

use postgres::Client;
use serde_json::{Map, Value, json};

use crate::peers::Facts;
use crate::server::{one, quote};

pub struct Case<'a>(pub &'a Value);

impl Case<'_> {
    pub fn id(&self) -> &str {
        self.0["id"].as_str().expect("an id")
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    pub fn list(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub fn expects(&self, name: &str) -> Option<&Value> {
        self.0["expected"].get(name)
    }

    pub fn aggregation(&self) -> &str {
        match self.text("aggregation").expect("an aggregation") {
            "event_value_parse" => match self.text("meter_aggregation").expect("an aggregation") {
                "sum_with_multiplier" => "sum",
                name => name,
            },
            name => name,
        }
    }

    pub fn field(&self) -> Option<&str> {
        match (self.aggregation(), self.text("field")) {
            ("count", _) => None,
            (_, Some(field)) => Some(field),
            ("unique_count", None) => Some("trace_id"), // OpenMeter's parse cases don't name it
            (_, None) => Some("duration_ms"),
        }
    }

    pub fn bucket(&self) -> Option<&str> {
        let one_value_of_windows = self.expects("value").and(self.text("window"));
        self.text("bucket_size").or(one_value_of_windows).filter(|_| self.aggregation() != "count")
    }

    pub fn groups(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .list("group_by")
            .iter()
            .chain(self.list("breakdown_by"))
            .filter_map(|name| name.as_str().map(str::to_string))
            .collect();
        if let Some(Value::Object(by)) = self.expects("group_by") {
            names.extend(by.keys().cloned());
        }
        if self.expects("value_string").is_some() {
            names.extend(self.field().map(str::to_string));
        }
        names.retain(|name| name != "subject");
        names
    }

    pub fn filters(&self) -> Value {
        let mut filters = self.0["filters"]["match"].as_object().cloned().unwrap_or_default();
        let excluded = self.0["filters"]["exclude_any"].as_array().map_or(&[][..], Vec::as_slice);
        let mut all = Vec::new();
        for set in excluded.iter().filter_map(Value::as_object) {
            let named = set.iter().filter(|(_, values)| values.as_array().is_some_and(|values| !values.is_empty()));
            let other: Vec<Value> = named.map(|(name, values)| json!({ name: { "nin": values } })).collect();
            if !other.is_empty() {
                all.push(json!({ "or": other }));
            }
        }
        if !all.is_empty() {
            filters.insert("and".to_string(), all.into());
        }
        filters.into()
    }

    pub fn customers(&self) -> BTreeSet<&str> {
        self.list("events").iter().filter_map(|event| event["subject"].as_str()).collect()
    }

    pub fn by_customer(&self) -> bool {
        self.list("group_by").iter().any(|name| name == "subject")
    }

    /// As SQL: the start and the end, which does not belong to it.
    pub fn period(&self) -> (String, String) {
        let of_rows = |name: &'static str| {
            self.expects("rows")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(move |row| row[name].as_str())
        };
        let recurring = self.0["recurring"] == true;
        let from = self.text("from").filter(|_| !recurring).or_else(|| of_rows("from").min()).unwrap_or("-infinity");
        let to = self.text("to").or_else(|| of_rows("to").max()).unwrap_or("infinity");
        let included = self.id().starts_with("agg-lago") && to.contains("T23:59:59");
        (
            format!("timestamptz {}", quote(from)),
            if included {
                format!("date_trunc('day', timestamptz {}) + interval '1 day'", quote(to))
            } else {
                format!("timestamptz {}", quote(to))
            },
        )
    }

    /// Digits to which the source rounds before it compares, and the key that says so.
    pub fn rounded(of: &Value) -> (&'static str, Option<u32>) {
        [("value_rounded_5", 5), ("value_rounded_3", 3)]
            .into_iter()
            .find(|(key, _)| of.get(key).is_some())
            .map_or(("value", None), |(key, digits)| (key, Some(digits)))
    }

    pub fn expected(&self, client: &mut Client) -> Facts {
        let mut facts = Facts::default();
        let expected = self.0["expected"].as_object().expect("what is expected");
        for (key, value) in expected {
            match key.as_str() {
                "value" | "value_rounded_5" | "value_rounded_3" if expected.contains_key("group_by") => {
                    facts.add(name_of(expected["group_by"].as_object(), &self.groups()), number(client, value));
                }
                "value" | "value_rounded_5" | "value_rounded_3" => facts.add("value", number(client, value)),
                "value_string" => facts.add(text_of(value), "1"),
                "values_rounded_3" => facts.add("values", value.as_array().map_or(0, Vec::len).to_string()),
                "error" => facts.add("error", text_of(value)),
                "events_count" => facts.add("events", number(client, value)),
                "row_count" => facts.add("rows", number(client, value)),
                "windows_contiguous" => facts.add("contiguous", value.to_string()),
                "row_index_3" => facts.add("row 3", span(client, value)),
                "groups" => {
                    for group in value.as_array().into_iter().flatten() {
                        let (key, _) = Case::rounded(group);
                        facts.add(name_of(group["by"].as_object(), &self.groups()), number(client, &group[key]));
                    }
                }
                "rows" => {
                    for row in value.as_array().into_iter().flatten() {
                        let customer = row["subject"].as_str().map(|name| format!("{name} ")).unwrap_or_default();
                        facts.add(customer + &span(client, row), number(client, &row["value"]));
                    }
                }
                // How the group was asked for, and what is not usage: free units, money, state carried by a subscription.
                "group_by"
                | "free_running_total"
                | "total_cost_at_unit_price_1"
                | "variation"
                | "total_aggregated_units"
                | "current_units"
                | "unprorated"
                | "tolerance" => {}
                _ => panic!("{}: expected.{key} is not understood", self.id()),
            }
        }
        facts
    }
}

/// A time in UTC.
pub const TIME: &str = "to_char($ AT TIME ZONE 'UTC', 'MM-DD HH24:MI:SS')";

pub fn shown_time(time: &Option<String>) -> String {
    time.clone().unwrap_or_default()
}

pub fn span(client: &mut Client, row: &Value) -> String {
    let (from, to) = match row["day"].as_str() {
        Some(day) => (
            format!("timestamptz {}", quote(&format!("{day} 00:00Z"))),
            format!("timestamptz {} + interval '1 day'", quote(&format!("{day} 00:00Z"))),
        ),
        None => (
            format!("timestamptz {}", quote(&text_of(&row["from"]))),
            format!("timestamptz {}", quote(&text_of(&row["to"]))),
        ),
    };
    one(
        client,
        &format!(
            "SELECT {} || ' to ' || {}",
            TIME.replace('$', &format!("({from})")),
            TIME.replace('$', &format!("({to})"))
        ),
    )
}

/// A group by its values, in the order they were asked for.
pub fn name_of(by: Option<&Map<String, Value>>, order: &[String]) -> String {
    let values: Vec<String> = order.iter().filter_map(|name| by?.get(name)).map(text_of).collect();
    values.join(" ")
}

pub fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// As we write numbers; null stays null.
pub fn number(client: &mut Client, value: &Value) -> String {
    match value {
        Value::Null => "null".to_string(),
        value => one(client, &format!("SELECT trim_scale({}::numeric)", quote(&text_of(value)))),
    }
}

pub fn array(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quote(name)).collect();
    format!("ARRAY[{}]::text[]", names.join(", "))
}
