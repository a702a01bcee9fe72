//! What a batch adds to usage: its samples aggregated per customer, meter, hour and group, and the packed form that
//! carries them until they are folded.
//!
//! A row of deltas holds customers of one bucket (a hash of the customer): customer by customer `length, customer,
//! length, entries`, and entry by entry `meter, hour, length, group, length, state`. Integers are LEB128, the hour
//! zigzag and counted from the Unix epoch; order carries no meaning. A row a customer would be simpler, but its index
//! entry cost as much as the rest of the delta; a row a batch would make every reader unpack everybody's.

use rustc_hash::FxHashMap;

use super::state::codec::{put_int, put_unsigned, take_int, take_unsigned};
use super::state::{Kind, Sample, State, StateError};

pub const HOUR: i64 = 3_600_000_000;

/// Start of the hour of a time, Unix microseconds.
pub fn hour_of(at: i64) -> i64 {
    at - at.rem_euclid(HOUR)
}

/// One packed entry.
#[derive(Debug)]
pub struct Entry<'a> {
    pub meter: i32,
    /// Start of the hour, Unix microseconds.
    pub bucket: i64,
    pub group: &'a str,
    pub state: &'a [u8],
}

/// Aggregates the samples of a batch. Customers and groups are numbered by the caller.
#[derive(Default)]
pub struct Accumulator {
    states: FxHashMap<(u32, i32, i64, u32), State>,
}

impl Accumulator {
    pub fn add(
        &mut self,
        customer: u32,
        meter: i32,
        kind: Kind,
        group: u32,
        sample: &Sample,
    ) -> Result<(), StateError> {
        self.states
            .entry((customer, meter, hour_of(sample.at), group))
            .or_insert_with(|| State::empty(kind))
            .add(sample)
    }

    /// Hands out the packed entries of each customer once, in order of customer number.
    pub fn pack(&mut self, groups: &[String], mut each: impl FnMut(u32, &[u8])) {
        let mut entries: Vec<_> = self.states.drain().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        let mut packed = Vec::new();
        let mut scratch = Vec::new();
        let mut current = None;
        for ((customer, meter, bucket, group), state) in entries {
            if current.is_some_and(|previous| previous != customer) {
                if let Some(previous) = current {
                    each(previous, &packed);
                }
                packed.clear();
            }
            current = Some(customer);
            scratch.clear();
            state.encode(&mut scratch);
            let group = groups.get(group as usize).map_or("", String::as_str);
            put(&mut packed, meter, bucket, group, &scratch);
        }
        if let Some(last) = current {
            each(last, &packed);
        }
    }
}

/// Buckets customers are spread over. A batch of a thousand events and customers fills 128 rows of about a kilobyte:
/// an eighth of the index entries, and a reader unpacks some eight customers to find one.
pub const BUCKETS: i64 = 128;

/// Bytes after which a row is full: rows stay below what PostgreSQL would move out of line.
pub const ROW_BYTES: usize = 1_700;

/// The bucket of a customer, from its subject hash.
pub fn bucket_of(subject: i64) -> i16 {
    subject.rem_euclid(BUCKETS) as i16
}

/// Appends a customer with its packed entries to a row.
pub fn put_customer(row: &mut Vec<u8>, customer: &str, packed: &[u8]) {
    put_unsigned(customer.len() as u64, row);
    row.extend_from_slice(customer.as_bytes());
    put_unsigned(packed.len() as u64, row);
    row.extend_from_slice(packed);
}

/// Reads the customers of a row and their packed entries; an error ends the iteration.
pub fn customers(row: &[u8]) -> impl Iterator<Item = Result<(&str, &[u8]), StateError>> {
    until_error(row, take_customer)
}

fn take_customer<'a>(rest: &mut &'a [u8]) -> Result<(&'a str, &'a [u8]), StateError> {
    let customer = std::str::from_utf8(take_bytes(rest)?).map_err(|_| MALFORMED)?;
    Ok((customer, take_bytes(rest)?))
}

/// Appends one entry.
pub fn put(out: &mut Vec<u8>, meter: i32, bucket: i64, group: &str, state: &[u8]) {
    put_unsigned(u64::from(meter.cast_unsigned()), out);
    put_int(bucket.div_euclid(HOUR), out);
    put_unsigned(group.len() as u64, out);
    out.extend_from_slice(group.as_bytes());
    put_unsigned(state.len() as u64, out);
    out.extend_from_slice(state);
}

/// Reads the entries of a packed row; an error ends the iteration.
pub fn entries(packed: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, StateError>> {
    until_error(packed, take)
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<Entry<'a>, StateError> {
    let meter = u32::try_from(take_unsigned(rest)?).map_err(|_| MALFORMED)?.cast_signed();
    let bucket = take_int(rest)?.checked_mul(HOUR).ok_or(MALFORMED)?;
    let group = std::str::from_utf8(take_bytes(rest)?).map_err(|_| MALFORMED)?;
    let state = take_bytes(rest)?;
    Ok(Entry { meter, bucket, group, state })
}

/// Takes one after the other until nothing is left, or what is left can't be read.
fn until_error<'a, T>(
    mut rest: &'a [u8],
    take: fn(&mut &'a [u8]) -> Result<T, StateError>,
) -> impl Iterator<Item = Result<T, StateError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take(&mut rest);
        if taken.is_err() {
            rest = &[];
        }
        Some(taken)
    })
}

const MALFORMED: StateError = StateError::Malformed("packed delta");

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], StateError> {
    let len = usize::try_from(take_unsigned(rest)?).map_err(|_| MALFORMED)?;
    let (bytes, tail) = rest.split_at_checked(len).ok_or(MALFORMED)?;
    *rest = tail;
    Ok(bytes)
}
