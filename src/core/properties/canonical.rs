//! One way to write every JSON value: keys in byte order, of duplicate keys the last, no white space, strings escaped
//! as little as JSON allows, numbers by value. Two values are the same to us when they are written the same.

use std::fmt::{self, Write};

use super::number::{self, Number};
use super::{Branch, Value};

/// Where canonical JSON goes: into text, or into a hash.
pub trait Out: Write {
    fn string(&mut self, text: &str) -> fmt::Result;
}

impl Out for String {
    /// As serde_json writes it.
    fn string(&mut self, text: &str) -> fmt::Result {
        self.push('"');
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.push_str(text.get(plain..at).unwrap_or_default());
            plain = at + 1;
            match byte {
                b'"' => self.push_str("\\\""),
                b'\\' => self.push_str("\\\\"),
                b'\n' => self.push_str("\\n"),
                b'\r' => self.push_str("\\r"),
                b'\t' => self.push_str("\\t"),
                0x8 => self.push_str("\\b"),
                0xc => self.push_str("\\f"),
                _ => write!(self, "\\u{byte:04x}")?,
            }
        }
        self.push_str(text.get(plain..).unwrap_or_default());
        self.push('"');
        Ok(())
    }
}

pub fn write(value: Value<'_>, out: &mut impl Out) -> fmt::Result {
    match value {
        Value::Null => out.write_str("null"),
        Value::Bool(true) => out.write_str("true"),
        Value::Bool(false) => out.write_str("false"),
        Value::Number(text) => write_number(text, out),
        Value::Text(text) => out.string(text),
        Value::Array(items) => {
            out.write_char('[')?;
            for (index, (_, item)) in items.children().enumerate() {
                if index > 0 {
                    out.write_char(',')?;
                }
                write(item, out)?;
            }
            out.write_char(']')
        }
        Value::Object(object) => write_object(object, out),
    }
}

fn write_number(text: &str, out: &mut impl Write) -> fmt::Result {
    // Nearly every number is.
    if number::is_canonical(text) {
        return out.write_str(text);
    }
    match Number::parse(text) {
        Some(number) => write!(out, "{number}"),
        None => out.write_str(text),
    }
}

/// Objects of up to this many members are sorted without allocating.
const FEW: usize = 24;

fn write_object(object: Branch<'_>, out: &mut impl Out) -> fmt::Result {
    let mut few = [("", 0); FEW];
    let mut many = Vec::new();
    let mut count = 0;
    for member in object.keys() {
        match few.get_mut(count) {
            Some(place) => *place = member,
            None => many.push(member),
        }
        count += 1;
    }
    let members = if count <= FEW {
        few.get_mut(..count).unwrap_or_default()
    } else {
        many.extend_from_slice(&few);
        &mut many
    };
    // The index breaks ties: duplicates stay in the order they were written.
    members.sort_unstable();
    let mut separator = '{';
    for (position, (key, index)) in members.iter().enumerate() {
        if members.get(position + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        out.write_char(separator)?;
        separator = ',';
        out.string(key)?;
        out.write_char(':')?;
        write(object.tape.value(*index), out)?;
    }
    if separator == '{' {
        out.write_char('{')?;
    }
    out.write_char('}')
}
