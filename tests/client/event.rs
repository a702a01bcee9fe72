//! Usage events as senders write them.

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: String,
    pub source: String,
    pub customer: String,
    pub name: String,
    /// Microseconds since 1970; one without is of the time it arrives.
    pub at: Option<i64>,
    /// JSON.
    pub properties: String,
}

/// The forms that ingest understands; an event is the same in each.
#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    Native,
    CloudEvents,
    Flexprice,
}

impl Event {
    pub fn json(&self, shape: Shape) -> String {
        let names = match shape {
            Shape::Native => ["transaction_id", "customer_id", "event_name", "timestamp", "properties"],
            Shape::CloudEvents => ["id", "subject", "type", "time", "data"],
            Shape::Flexprice => ["event_id", "external_customer_id", "event_name", "timestamp", "properties"],
        };
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut fields = vec![
            format!("\"{}\":{}", names[0], text(&self.id)),
            format!("\"{}\":{}", names[1], text(&self.customer)),
            format!("\"{}\":{}", names[2], text(&self.name)),
        ];
        if shape == Shape::CloudEvents {
            fields.push("\"specversion\":\"1.0\"".to_string());
        }
        if !self.source.is_empty() {
            fields.push(format!("\"source\":{}", text(&self.source)));
        }
        if let Some(at) = self.at {
            fields.push(format!("\"{}\":\"{}\"", names[3], time(at)));
        }
        fields.push(format!("\"{}\":{}", names[4], self.properties));
        format!("{{{}}}", fields.join(","))
    }
}

/// A time as RFC 3339 and SQL write it.
pub fn time(at: i64) -> String {
    jiff::Timestamp::from_microsecond(at).expect("a time within the calendar").to_string()
}

pub fn array(events: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", events.into_iter().collect::<Vec<_>>().join(","))
}
