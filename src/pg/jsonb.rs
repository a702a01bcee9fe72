//! jsonb as it is stored, written straight from the tape: `jsonb_in` parses the text a second time and builds a tree,
//! which costs more than the rest of an event's row.
//!
//! Source of the format: PostgreSQL, `utils/jsonb.h` and `utils/adt/jsonb_util.c` (unchanged since 9.5, shared by
//! pg_upgrade'd clusters), and for numbers `utils/adt/numeric.c`. An object's keys are sorted by length, then bytes; of
//! equal keys the last one counts. Every 32nd entry of a container holds its end offset instead of its length.
//!
//! Proof: tests/pg_regress/sql/12_jsonb.sql compares with `jsonb_in`, byte for byte.

use std::ffi::CString;

use pgrx::pg_sys;

use crate::core::properties::{Branch, Value};

const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

const STRING: u32 = 0x0000_0000;
const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;
const TYPE: u32 = 0x7000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
const OFFSET_STRIDE: usize = 32;

/// Appends the jsonb datum of an object or array: a four-byte varlena header, then the container. The buffer must be
/// at a multiple of four; values are aligned relative to its start.
pub fn write(value: Value<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match value {
        Value::Object(branch) => object(branch, out),
        Value::Array(branch) => array(branch, out),
        // Properties are always an object; a scalar is none of ours to store.
        _ => header(OBJECT, 0, out),
    }
    let total = out.len() - start;
    put(out, start, varlena_header(total));
}

fn varlena_header(total: usize) -> u32 {
    if cfg!(target_endian = "little") { (total as u32) << 2 } else { total as u32 }
}

fn put(out: &mut [u8], at: usize, word: u32) {
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}

fn header(kind: u32, count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(kind | count as u32).to_ne_bytes());
}

fn pad(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}

fn object(branch: Branch<'_>, out: &mut Vec<u8>) {
    pad(out);
    let mut members: Vec<(&str, Value<'_>)> = branch.children().collect();
    members.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
    // The sort is stable, so of equal keys the last written stands last.
    let mut kept = 0;
    for i in 0..members.len() {
        if i + 1 < members.len() && members[i].0 == members[i + 1].0 {
            continue;
        }
        members.swap(kept, i);
        kept += 1;
    }
    members.truncate(kept);
    header(OBJECT, members.len(), out);
    let mut entries = Entries::new(members.len() * 2, out);
    for (key, _) in &members {
        out.extend_from_slice(key.as_bytes());
        entries.add(STRING, out);
    }
    for (_, value) in members {
        let kind = scalar_or_container(value, out);
        entries.add(kind, out);
    }
}

fn array(branch: Branch<'_>, out: &mut Vec<u8>) {
    pad(out);
    let count = branch.children().count();
    header(ARRAY, count, out);
    let mut entries = Entries::new(count, out);
    for (_, value) in branch.children() {
        let kind = scalar_or_container(value, out);
        entries.add(kind, out);
    }
}

/// The entry words of a container, reserved before its data and filled in as the data grows.
struct Entries {
    at: usize,
    index: usize,
    data: usize,
    end: usize,
}

impl Entries {
    fn new(count: usize, out: &mut Vec<u8>) -> Entries {
        let at = out.len();
        out.resize(at + count * 4, 0);
        Entries { at, index: 0, data: out.len(), end: out.len() }
    }

    /// Closes the entry whose data (padding included) is what has been appended since the last one.
    fn add(&mut self, kind: u32, out: &mut [u8]) {
        let length = out.len() - self.end;
        self.end = out.len();
        let word = if self.index.is_multiple_of(OFFSET_STRIDE) {
            (kind & TYPE) | HAS_OFFSET | (self.end - self.data) as u32
        } else {
            (kind & TYPE) | length as u32
        };
        put(out, self.at + self.index * 4, word);
        self.index += 1;
    }
}

/// Appends the data of a value; returns its type.
fn scalar_or_container(value: Value<'_>, out: &mut Vec<u8>) -> u32 {
    match value {
        Value::Null => NULL,
        Value::Bool(false) => FALSE,
        Value::Bool(true) => TRUE,
        Value::Text(text) => {
            out.extend_from_slice(text.as_bytes());
            STRING
        }
        Value::Number(text) => {
            pad(out);
            if !plain_numeric(text, out) {
                general_numeric(text, out);
            }
            NUMERIC
        }
        Value::Array(branch) => {
            array(branch, out);
            CONTAINER
        }
        Value::Object(branch) => {
            object(branch, out);
            CONTAINER
        }
    }
}

/// Longest number written here; beyond it digits would not fit the short form for sure.
const PLAIN_DIGITS: usize = 60;

/// Appends the numeric of digits with at most a sign and a point; false for anything else.
///
/// Short form: varlena header, a word of sign, display scale and weight, then digits in base 10,000, the first one
/// worth 10,000^weight, leading and trailing zero digits left out.
fn plain_numeric(text: &str, out: &mut Vec<u8>) -> bool {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.len() > PLAIN_DIGITS {
        return false;
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let mut words = [0u16; PLAIN_DIGITS / 2];
    let mut count = 0;
    let mut push = |group: &[u8], shift: u32| {
        let value = group.iter().fold(0u16, |value, byte| value * 10 + u16::from(byte - b'0'));
        words[count] = value * 10u16.pow(shift);
        count += 1;
    };
    let (head, tail) = whole.as_bytes().split_at(whole.len() % 4);
    if !head.is_empty() {
        push(head, 0);
    }
    tail.chunks(4).for_each(|group| push(group, 0));
    let whole_words = whole.len().div_ceil(4);
    fraction.as_bytes().chunks(4).for_each(|group| push(group, 4 - group.len() as u32));

    let first = words[..count].iter().position(|&word| word != 0).unwrap_or(count);
    let last = words[..count].iter().rposition(|&word| word != 0).map_or(first, |last| last + 1);
    let weight = if first == last { 0 } else { whole_words as i32 - 1 - first as i32 };
    let scale = fraction.len() as u16;
    let sign = negative && first != last;
    let word = 0x8000
        | if sign { 0x2000 } else { 0 }
        | (scale << 7)
        | if weight < 0 { 0x0040 } else { 0 }
        | (weight as u16 & 0x003f);
    let words = &words[first..last];
    out.extend_from_slice(&varlena_header(6 + words.len() * 2).to_ne_bytes());
    out.extend_from_slice(&word.to_ne_bytes());
    for digit in words {
        out.extend_from_slice(&digit.to_ne_bytes());
    }
    true
}

/// Numbers with an exponent, or very long ones, by PostgreSQL itself.
fn general_numeric(text: &str, out: &mut Vec<u8>) {
    let text = CString::new(text).unwrap_or_default();
    let args = [
        Some(pg_sys::Datum::from(text.as_ptr())),
        Some(pg_sys::Datum::from(pg_sys::InvalidOid)),
        Some(pg_sys::Datum::from(-1i32)),
    ];
    // SAFETY: numeric_in takes a C string, an oid and a typmod, and returns a plain (never toasted) varlena; the
    // parser has refused what it would raise an ERROR for.
    unsafe {
        if let Some(datum) = pgrx::direct_function_call_as_datum(pg_sys::numeric_in, &args) {
            let numeric: *const pg_sys::varlena = datum.cast_mut_ptr();
            let size = pgrx::varlena::varsize_any(numeric);
            out.extend_from_slice(std::slice::from_raw_parts(numeric.cast::<u8>(), size));
        }
    }
}
