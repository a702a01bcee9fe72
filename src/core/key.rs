//! What makes two things the same: events, payloads, values, customers.
//!
//! All hashes are SipHash-2-4 under a secret that each database draws for itself, so nobody outside can craft
//! collisions; a use number keeps the hashes of different uses apart. They are stored, so they must never change:
//! fields are length-prefixed and little endian on every machine.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as SipHasher128};

use super::properties::canonical::{self, Out};
use super::properties::{Tape, Value};

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

/// The first byte of everything hashed.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Use {
    Event = 1,
    Payload = 2,
    Content = 3,
    Digest = 4,
    Subject = 5,
}

/// The identity of an event, as it stands in the dedup index.
///
/// Bytes 0..4 are the seconds embedded in the transaction id when it is a UUIDv7 or a ULID, else zero: neighbours in
/// time become neighbours in the index. They depend on the id alone, so identity is as strict as without them. The
/// sender chooses them: they say nothing about when the event came.
pub fn event_key(secret: &Secret, tenant: &str, source: &str, transaction_id: &str) -> [u8; 16] {
    let mut feed = Feed::new(SipHasher128::new_with_key(&secret.0), Use::Event);
    feed.field(tenant);
    feed.field(source);
    feed.field(transaction_id);
    let mut key = feed.finish().finish128().as_bytes();
    let seconds = embedded_seconds(transaction_id.as_bytes()).unwrap_or(0).to_be_bytes();
    key.iter_mut().zip(seconds).for_each(|(byte, second)| *byte = second);
    key
}

/// The seconds embedded in the id, if it had any.
pub fn locality(key: &[u8; 16]) -> Option<u32> {
    let (seconds, _) = key.split_first_chunk()?;
    Some(u32::from_be_bytes(*seconds)).filter(|seconds| *seconds != 0)
}

/// What was sent, apart from the identity: a retry has the same, another payload under the same id has not. An absent
/// timestamp differs from every timestamp, so that a retry that again leaves it out is a duplicate.
pub fn payload_hash(secret: &Secret, customer: &str, name: &str, timestamp: Option<i64>, content: u64) -> i64 {
    let mut feed = Feed::new(SipHasher24::new_with_key(&secret.0), Use::Payload);
    feed.field(customer);
    feed.field(name);
    feed.bytes(&[u8::from(timestamp.is_some())]);
    feed.bytes(&timestamp.unwrap_or(0).to_le_bytes());
    feed.bytes(&content.to_le_bytes());
    feed.finish().finish().cast_signed()
}

/// A hash of what the properties mean: independent of white space, the order of keys, escapes and the spelling of
/// numbers. The order of arrays counts; of duplicate keys the last one does.
pub fn content_hash(secret: &Secret, tape: &Tape<'_>) -> u64 {
    let mut feed = Feed::new(SipHasher24::new_with_key(&secret.0), Use::Content);
    feed.value(tape.root());
    feed.finish().finish()
}

/// The identity of a value among distinct values: equality of text as in `count(DISTINCT properties #>> path)`, so
/// that 1 and "1" are one value and true and "true" are; but numbers count by value (1.0 is 1), as do numbers inside
/// arrays and objects, which are compared as jsonb compares them.
pub fn digest(secret: &Secret, value: Value<'_>) -> u128 {
    let mut feed = Feed::new(SipHasher128::new_with_key(&secret.0), Use::Digest);
    match value {
        Value::Text(text) => feed.bytes(text.as_bytes()),
        Value::Null | Value::Bool(_) | Value::Number(_) => feed.value(value),
        Value::Array(_) | Value::Object(_) => {
            // No text starts with this byte in UTF-8: containers stay apart from texts that look like them.
            feed.bytes(&[0xff]);
            feed.value(value);
        }
    }
    feed.finish().finish128().as_u128()
}

/// A customer's number in rollups.
pub fn subject(secret: &Secret, tenant: &str, customer: &str) -> i64 {
    let mut feed = Feed::new(SipHasher24::new_with_key(&secret.0), Use::Subject);
    feed.field(tenant);
    feed.field(customer);
    feed.finish().finish().cast_signed()
}

/// Seconds since 1970 that stand in a UUIDv7 or a ULID, as far as they fit 32 bits.
fn embedded_seconds(id: &[u8]) -> Option<u32> {
    let millis = match id.len() {
        36 => uuid_millis(id),
        26 => ulid_millis(id),
        _ => None,
    }?;
    u32::try_from(millis / 1000).ok()
}

fn uuid_millis(id: &[u8]) -> Option<u64> {
    let mut millis = 0;
    for (at, byte) in id.iter().enumerate() {
        match at {
            8 | 13 | 18 | 23 if *byte != b'-' => return None,
            8 | 13 | 18 | 23 => {}
            14 if *byte != b'7' => return None,
            19 if !matches!(byte, b'8' | b'9' | b'a' | b'b' | b'A' | b'B') => return None,
            _ => {
                let digit = char::from(*byte).to_digit(16)?;
                if at < 13 {
                    millis = millis << 4 | u64::from(digit);
                }
            }
        }
    }
    Some(millis)
}

fn ulid_millis(id: &[u8]) -> Option<u64> {
    if !matches!(id.first(), Some(b'0'..=b'7')) {
        return None;
    }
    let mut millis = 0;
    for (at, byte) in id.iter().enumerate() {
        let digit = crockford(*byte)?;
        if at < 10 {
            millis = millis << 5 | u64::from(digit);
        }
    }
    Some(millis)
}

/// Base 32 without I, L, O and U.
fn crockford(byte: u8) -> Option<u8> {
    Some(match byte {
        b'0'..=b'9' => byte - b'0',
        b'A'..=b'H' => byte - b'A' + 10,
        b'J' | b'K' => byte - b'J' + 18,
        b'M' | b'N' => byte - b'M' + 20,
        b'P'..=b'T' => byte - b'P' + 22,
        b'V'..=b'Z' => byte - b'V' + 27,
        _ => return None,
    })
}

/// Gathers small pieces before it hands them to the hasher, whose cost per call would dominate.
struct Feed<H> {
    hasher: H,
    buffer: [u8; 256],
    used: usize,
}

impl<H: Hasher> Feed<H> {
    fn new(hasher: H, purpose: Use) -> Feed<H> {
        let mut buffer = [0; 256];
        buffer[0] = purpose as u8;
        Feed { hasher, buffer, used: 1 }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.get_mut(self.used..self.used + bytes.len()) {
            room.copy_from_slice(bytes);
            self.used += bytes.len();
            return;
        }
        self.flush();
        match self.buffer.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.used = bytes.len();
            }
            None => self.hasher.write(bytes),
        }
    }

    fn field(&mut self, text: &str) {
        self.bytes(&(text.len() as u64).to_le_bytes());
        self.bytes(text.as_bytes());
    }

    fn value(&mut self, value: Value<'_>) {
        // Writing into a hash can't fail.
        let _ = canonical::write(value, self);
    }

    fn flush(&mut self) {
        self.hasher.write(self.buffer.get(..self.used).unwrap_or_default());
        self.used = 0;
    }

    fn finish(mut self) -> H {
        self.flush();
        self.hasher
    }
}

impl<H: Hasher> fmt::Write for Feed<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

impl<H: Hasher> Out for Feed<H> {
    /// A length says where the string ends, at less cost than escaping it.
    fn string(&mut self, text: &str) -> fmt::Result {
        self.bytes(b"\"");
        self.field(text);
        Ok(())
    }
}
