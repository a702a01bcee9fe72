//! Usage events as senders write them.
//!
//! All shapes are understood at once, field by field: our own, CloudEvents 1.0, Flexprice's, and those of two older
//! metering services. Our own name of a field wins; a null or empty field counts as not there. Everything is borrowed
//! from the text, and a fault refuses one event, never its neighbours.

mod fault;
mod timestamp;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

pub use fault::{Code, Fault, excerpt};

use super::properties::scan::{self, Flaw, Ignore, Scanner, Seen, Shape};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_event_bytes: usize,
    pub max_depth: usize,
    pub max_id_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub transaction_id: Cow<'a, str>,
    pub customer_id: Cow<'a, str>,
    pub event_name: Cow<'a, str>,
    pub source: Cow<'a, str>,
    /// Microseconds since 1970, or nothing if the sender left it to us.
    pub timestamp: Option<i64>,
    /// The text of a JSON object that jsonb_in accepts.
    pub properties: Cow<'a, str>,
}

/// The envelope some senders put around a batch.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Splits a batch into its events without looking into them: an array into its elements, `{"events": [...]}` into
/// those, and any other object is a batch of one.
pub fn split(text: &str) -> Result<Vec<&RawValue>, Fault> {
    let batch = match text.trim_ascii_start().as_bytes().first() {
        Some(b'[') => serde_json::from_str(text),
        Some(b'{') => match serde_json::from_str::<Envelope<'_>>(text) {
            Ok(envelope) => Ok(envelope.events),
            Err(_) => serde_json::from_str(text).map(|event| vec![event]),
        },
        _ => {
            return Err(Fault::new(
                Code::InvalidEvent,
                format!("neither a JSON object nor an array of them: {}", excerpt(text)),
            ));
        }
    };
    batch.map_err(|error| Fault::new(Code::InvalidEvent, format!("the text is not JSON: {error}")))
}

/// Reads and validates one event.
pub fn parse<'a>(raw: &'a str, limits: &Limits) -> Result<Event<'a>, Fault> {
    if raw.len() > limits.max_event_bytes {
        let message = format!("the event has {} bytes; at most {} are accepted", raw.len(), limits.max_event_bytes);
        return Err(identified(Fault::new(Code::TooLarge, message), raw, limits));
    }
    let fields = Fields::read(raw, limits.max_depth).map_err(|flaw| Fault::of_text(raw, flaw));
    fields.and_then(|fields| fields.event(limits)).map_err(|fault| identified(fault, raw, limits))
}

/// Validates an event whose fields came apart, as `parse` does one that came as JSON.
pub fn check<'a>(event: Event<'a>, limits: &Limits) -> Result<Event<'a>, Fault> {
    let size = event.transaction_id.len() + event.customer_id.len() + event.event_name.len() + event.source.len();
    if size.saturating_add(event.properties.len()) > limits.max_event_bytes {
        let message = format!("the event has more than the {} bytes accepted", limits.max_event_bytes);
        return Err(Fault::new(Code::TooLarge, message));
    }
    for (field, text, code) in [
        ("transaction_id", &event.transaction_id, Some(Code::MissingTransactionId)),
        ("customer_id", &event.customer_id, Some(Code::MissingCustomerId)),
        ("event_name", &event.event_name, Some(Code::MissingEventName)),
        ("source", &event.source, None),
    ] {
        match code {
            Some(code) if text.is_empty() => return Err(Fault::new(code, format!("{field} is missing or empty"))),
            _ => within(field, text, limits)?,
        }
    }
    if event.timestamp.is_some_and(|at| !(timestamp::FIRST..=timestamp::LAST).contains(&at)) {
        return Err(Fault::new(Code::InvalidTimestamp, "timestamp is not within the years 1 to 9999"));
    }
    let mut scanner =
        Scanner::new(&event.properties, limits.max_depth).map_err(|flaw| Fault::of_text(&event.properties, flaw))?;
    if scanner.peek() != Some(b'{') {
        let message = format!("properties must be a JSON object: {}", excerpt(&event.properties));
        return Err(Fault::new(Code::InvalidProperties, message));
    }
    let whole = scanner.value(scan::Span::default(), &mut Ignore).and_then(|_| scanner.finish());
    whole.map_err(|flaw| Fault::of_text(&event.properties, flaw))?;
    Ok(event)
}

fn within(field: &str, id: &str, limits: &Limits) -> Result<(), Fault> {
    if id.len() <= limits.max_id_bytes {
        return Ok(());
    }
    let message =
        format!("{field} has {} bytes; at most {} are accepted: {}", id.len(), limits.max_id_bytes, excerpt(id));
    Err(Fault::new(Code::TooLarge, message))
}

/// Where the aliases of each field stand in [`Fields::seen`], the preferred name first.
const TRANSACTION: [usize; 4] = [0, 1, 2, 3];
const CUSTOMER: [usize; 4] = [4, 5, 6, 7];
const NAME: [usize; 4] = [8, 9, 10, 11];
const TIME: [usize; 2] = [12, 13];
const PROPERTIES: [usize; 2] = [14, 15];
const ENCODED: usize = 16;
const SOURCE: [usize; 1] = [17];
const QUANTITY: [usize; 1] = [18];
const COUNT: usize = 19;

fn place(name: &str) -> Option<usize> {
    Some(match name {
        "transaction_id" => 0,
        "event_id" => 1,
        "idempotency_key" => 2,
        "id" => 3,
        "customer_id" => 4,
        "external_customer_id" => 5,
        "organization_id" => 6,
        "subject" => 7,
        "event_name" => 8,
        "event_type" => 9,
        "metric_name" => 10,
        "type" => 11,
        "timestamp" => 12,
        "time" => 13,
        "properties" => 14,
        "data" => 15,
        "data_base64" => ENCODED,
        "source" => 17,
        "quantity" => 18,
        _ => return None,
    })
}

/// The fields we know of an event, as they were written.
struct Fields<'a> {
    raw: &'a str,
    seen: [Seen; COUNT],
}

impl<'a> Fields<'a> {
    fn read(raw: &'a str, max_depth: usize) -> Result<Fields<'a>, Flaw> {
        let mut fields = Fields { raw, seen: [Seen::default(); COUNT] };
        let mut scanner = Scanner::new(raw, max_depth)?;
        if scanner.peek() != Some(b'{') {
            return Err(scanner.malformed("an event is a JSON object"));
        }
        scanner.members(|scanner, key| {
            let seen = scanner.value(key, &mut Ignore)?;
            let place = if key.escaped { place(&unescaped(key.of(raw))) } else { place(key.of(raw)) };
            if let Some(field) = place.and_then(|place| fields.seen.get_mut(place)) {
                *field = seen;
            }
            Ok(())
        })?;
        scanner.finish()?;
        Ok(fields)
    }

    fn event(&self, limits: &Limits) -> Result<Event<'a>, Fault> {
        let transaction_id = self.id(&TRANSACTION, "transaction_id", limits)?;
        let customer_id = self.id(&CUSTOMER, "customer_id", limits)?;
        let event_name = self.id(&NAME, "event_name", limits)?;
        Ok(Event {
            transaction_id: transaction_id.ok_or_else(|| {
                missing(Code::MissingTransactionId, "transaction_id", "event_id, idempotency_key or id")
            })?,
            customer_id: customer_id.ok_or_else(|| {
                missing(Code::MissingCustomerId, "customer_id", "external_customer_id, organization_id or subject")
            })?,
            event_name: event_name
                .ok_or_else(|| missing(Code::MissingEventName, "event_name", "event_type, metric_name or type"))?,
            source: self.id(&SOURCE, "source", limits)?.unwrap_or_default(),
            timestamp: self.timestamp()?,
            properties: self.properties()?,
        })
    }

    /// The first alias that is there and neither null nor empty.
    fn first(&self, aliases: &[usize]) -> Option<Seen> {
        aliases.iter().filter_map(|place| self.seen.get(*place)).copied().find(|seen| match seen.shape {
            Shape::Absent | Shape::Null => false,
            Shape::Text => seen.span.from < seen.span.to,
            _ => true,
        })
    }

    fn text(&self, seen: Seen) -> Cow<'a, str> {
        let text = seen.span.of(self.raw);
        if seen.span.escaped { Cow::Owned(unescaped(text)) } else { Cow::Borrowed(text) }
    }

    /// Ids are texts; a number is accepted as the text it was written as.
    fn id(&self, aliases: &[usize], field: &str, limits: &Limits) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(seen) = self.first(aliases) else {
            return Ok(None);
        };
        if !matches!(seen.shape, Shape::Text | Shape::Number) {
            let value = excerpt(seen.span.of(self.raw));
            return Err(Fault::new(Code::InvalidEvent, format!("{field} must be a text: {value}")));
        }
        let id = self.text(seen);
        within(field, &id, limits)?;
        Ok(Some(id))
    }

    fn timestamp(&self) -> Result<Option<i64>, Fault> {
        let Some(seen) = self.first(&TIME) else {
            // Now is a default for what was left out, not for what was lost on the way.
            let empty = TIME.iter().filter_map(|place| self.seen.get(*place)).any(|seen| seen.shape == Shape::Text);
            return if empty { Err(Fault::new(Code::InvalidTimestamp, "timestamp is empty")) } else { Ok(None) };
        };
        let text = self.text(seen);
        let instant = match seen.shape {
            Shape::Text => timestamp::of_text(&text),
            Shape::Number => timestamp::of_millis(&text),
            _ => Err("is neither a text nor a number"),
        };
        instant
            .map(Some)
            .map_err(|what| Fault::new(Code::InvalidTimestamp, format!("timestamp {what}: {}", excerpt(&text))))
    }

    fn properties(&self) -> Result<Cow<'a, str>, Fault> {
        let properties = match self.first(&PROPERTIES) {
            Some(seen) if seen.shape == Shape::Object => seen.span.of(self.raw),
            Some(seen) => {
                let value = excerpt(seen.span.of(self.raw));
                return Err(Fault::new(Code::InvalidProperties, format!("properties must be a JSON object: {value}")));
            }
            None if PROPERTIES
                .iter()
                .filter_map(|place| self.seen.get(*place))
                .any(|seen| seen.shape == Shape::Text) =>
            {
                return Err(Fault::new(Code::InvalidProperties, "properties must be a JSON object: \"\""));
            }
            None if self.first(&[ENCODED]).is_some() => {
                return Err(Fault::new(
                    Code::InvalidProperties,
                    "data_base64 is not understood; send a JSON object in data",
                ));
            }
            None => "{}",
        };
        let Some(quantity) = self.first(&QUANTITY) else {
            return Ok(Cow::Borrowed(properties));
        };
        let text = quantity.span.of(self.raw);
        let quote = if quantity.shape == Shape::Text { "\"" } else { "" };
        let members = properties.strip_prefix('{').unwrap_or_default();
        let comma = if members.trim_ascii_start().starts_with('}') { "" } else { "," };
        // It stands first, so a quantity among the properties wins: of duplicate keys the last counts.
        Ok(Cow::Owned(format!("{{\"quantity\":{quote}{text}{quote}{comma}{members}")))
    }
}

fn unescaped(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    scan::unescape(raw, &mut text);
    text
}

#[cold]
fn missing(code: Code, field: &str, aliases: &str) -> Fault {
    Fault::new(code, format!("{field} is missing or empty (also read: {aliases})"))
}

/// Adds the transaction id, as far as one can be made out in a broken event.
#[cold]
fn identified(fault: Fault, raw: &str, limits: &Limits) -> Fault {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(raw).unwrap_or_default();
    let names = ["transaction_id", "event_id", "idempotency_key", "id"];
    let id = names.iter().filter_map(|name| fields.get(*name)).find_map(|value| {
        match value.get() {
            text if text.starts_with('"') => serde_json::from_str::<String>(text).ok(),
            text if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => Some(text.to_owned()),
            _ => None,
        }
        .filter(|id| !id.is_empty() && !id.contains('\0'))
    });
    let transaction_id = id.map(|mut id| {
        id.truncate(id.floor_char_boundary(limits.max_id_bytes));
        id
    });
    Fault { transaction_id, ..fault }
}
