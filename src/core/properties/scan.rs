//! A strict JSON scanner. What it accepts, jsonb_in accepts: one bad event must fail alone, and an error raised by
//! jsonb_in would fail its whole batch. So it also refuses what JSON's grammar allows and jsonb does not (NUL
//! characters, lone surrogates, numbers that numeric can't hold) and nesting that would exhaust the stack.

use crate::core::event::Code;

/// More digits than this, or a larger exponent, is no measurement; spelled out it is a way to fill a disk.
const MAX_DIGITS: usize = 1000;
const MAX_EXPONENT: usize = 1000;

/// The scanner recurses once per level; this bounds the stack whatever the settings say.
const MAX_DEPTH: usize = 512;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Absent,
    Null,
    False,
    True,
    Number,
    Text,
    Array,
    Object,
}

/// A stretch of the text; for strings what stands between the quotes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    pub from: u32,
    pub to: u32,
    /// The stretch has escapes: it must be unescaped before it is compared or shown.
    pub escaped: bool,
}

impl Span {
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.from as usize..self.to as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub shape: Shape,
    pub span: Span,
}

/// Why the text was refused, and from which byte on.
#[derive(Clone, Copy, Debug)]
pub struct Flaw {
    pub code: Code,
    pub what: &'static str,
    pub at: usize,
}

/// Receives values in the order they are met: containers before their members.
pub trait Sink {
    /// Returns a handle for `close`.
    fn open(&mut self, key: Span, shape: Shape) -> usize;
    fn close(&mut self, handle: usize, span: Span);
    fn scalar(&mut self, key: Span, seen: Seen);
}

/// Validates only.
pub struct Ignore;

impl Sink for Ignore {
    fn open(&mut self, _: Span, _: Shape) -> usize {
        0
    }
    fn close(&mut self, _: usize, _: Span) {}
    fn scalar(&mut self, _: Span, _: Seen) {}
}

pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    levels_left: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str, max_depth: usize) -> Result<Scanner<'a>, Flaw> {
        if u32::try_from(text.len()).is_err() {
            return Err(Flaw { code: Code::TooLarge, what: "text of more than 4 GiB", at: 0 });
        }
        Ok(Scanner { bytes: text.as_bytes(), at: 0, levels_left: max_depth.min(MAX_DEPTH) })
    }

    /// The next byte that is not white space.
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    pub fn finish(&mut self) -> Result<(), Flaw> {
        if self.peek().is_none() { Ok(()) } else { Err(self.malformed("text after the end of the JSON value")) }
    }

    pub fn malformed(&self, what: &'static str) -> Flaw {
        Flaw { code: Code::InvalidEvent, what, at: self.at }
    }

    pub fn value<S: Sink>(&mut self, key: Span, sink: &mut S) -> Result<Seen, Flaw> {
        let first = self.peek();
        let from = self.at;
        let shape = match first {
            Some(b'"') => Shape::Text,
            Some(b'{') => Shape::Object,
            Some(b'[') => Shape::Array,
            Some(b't') => Shape::True,
            Some(b'f') => Shape::False,
            Some(b'n') => Shape::Null,
            _ => Shape::Number,
        };
        let span = match shape {
            Shape::Text => self.string()?,
            Shape::Object | Shape::Array => {
                let handle = sink.open(key, shape);
                if shape == Shape::Object {
                    self.members(|scanner, key| scanner.value(key, sink).map(|_| ()))?;
                } else {
                    self.items(|scanner| scanner.value(Span::default(), sink).map(|_| ()))?;
                }
                let span = self.span(from);
                sink.close(handle, span);
                return Ok(Seen { shape, span });
            }
            Shape::True => self.word(b"true")?,
            Shape::False => self.word(b"false")?,
            Shape::Null => self.word(b"null")?,
            Shape::Number | Shape::Absent => self.number()?,
        };
        let seen = Seen { shape, span };
        sink.scalar(key, seen);
        Ok(seen)
    }

    /// Walks an object; `each` must consume one value.
    pub fn members(&mut self, mut each: impl FnMut(&mut Self, Span) -> Result<(), Flaw>) -> Result<(), Flaw> {
        self.enter()?;
        if self.peek() == Some(b'}') {
            return self.leave();
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.malformed("a property name in double quotes is expected"));
            }
            let key = self.string()?;
            if self.peek() != Some(b':') {
                return Err(self.malformed("a colon is expected"));
            }
            self.at += 1;
            each(self, key)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.leave(),
                _ => return Err(self.malformed("a comma or a closing brace is expected")),
            }
        }
    }

    fn items(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), Flaw>) -> Result<(), Flaw> {
        self.enter()?;
        if self.peek() == Some(b']') {
            return self.leave();
        }
        loop {
            each(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.leave(),
                _ => return Err(self.malformed("a comma or a closing bracket is expected")),
            }
        }
    }

    fn enter(&mut self) -> Result<(), Flaw> {
        if self.levels_left == 0 {
            return Err(Flaw { code: Code::TooDeep, what: "nested too deeply", at: self.at });
        }
        self.levels_left -= 1;
        self.at += 1;
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Flaw> {
        self.levels_left += 1;
        self.at += 1;
        Ok(())
    }

    fn span(&self, from: usize) -> Span {
        // `new` has made sure that offsets fit.
        Span { from: from as u32, to: self.at as u32, escaped: false }
    }

    fn word(&mut self, word: &[u8]) -> Result<Span, Flaw> {
        let from = self.at;
        if !self.bytes.get(from..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(self.malformed("not a JSON value"));
        }
        self.at += word.len();
        Ok(self.span(from))
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - from
    }

    fn number(&mut self) -> Result<Span, Flaw> {
        let from = self.at;
        let refuse = |what| Flaw { code: Code::InvalidNumber, what, at: from };
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        let zero = self.bytes.get(self.at) == Some(&b'0');
        let whole = self.digits();
        if whole == 0 {
            return Err(match self.bytes.get(self.at) {
                Some(b'N' | b'I') => refuse("numbers must be finite"),
                None => self.malformed("the text ends too early"),
                _ => self.malformed("not a JSON value"),
            });
        }
        if zero && whole > 1 {
            self.at = from;
            return Err(self.malformed("numbers have no leading zeros"));
        }
        let mut fraction = 0;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            fraction = self.digits();
            if fraction == 0 {
                return Err(self.malformed("a digit is expected after the decimal point"));
            }
        }
        if whole + fraction > MAX_DIGITS {
            return Err(refuse("number with more than 1000 digits"));
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            let start = self.at;
            if self.digits() == 0 {
                return Err(self.malformed("a digit is expected in the exponent"));
            }
            let digits = self.bytes.get(start..self.at).unwrap_or_default();
            let exponent = digits
                .iter()
                .fold(0_usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
            if exponent > MAX_EXPONENT {
                return Err(refuse("number with an exponent beyond 1000"));
            }
        }
        Ok(self.span(from))
    }

    /// Reads a string whose opening quote is next.
    fn string(&mut self) -> Result<Span, Flaw> {
        self.at += 1;
        let from = self.at;
        let mut escaped = false;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                Some(_) => return Err(self.malformed("control characters in strings must be escaped")),
                None => {
                    self.at = from;
                    return Err(self.malformed("a string has no end"));
                }
            }
        }
        let span = Span { escaped, ..self.span(from) };
        self.at += 1;
        Ok(span)
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        let at = self.at;
        let refuse = |what| Err(Flaw { code: Code::InvalidText, what, at });
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                return Ok(());
            }
            Some(b'u') => {}
            _ => return Err(self.malformed("unknown escape in a string")),
        }
        match hex(self.bytes, at + 2) {
            None => Err(self.malformed("four hexadecimal digits are expected after \\u")),
            Some(0) => refuse("text can't hold the character \\u0000"),
            Some(0xdc00..=0xdfff) => refuse("low surrogate without a high one before it"),
            Some(0xd800..=0xdbff) => {
                let low = match self.bytes.get(at + 6..at + 8) {
                    Some(b"\\u") => hex(self.bytes, at + 8),
                    _ => None,
                };
                if !matches!(low, Some(0xdc00..=0xdfff)) {
                    return refuse("high surrogate without a low one after it");
                }
                self.at += 12;
                Ok(())
            }
            Some(_) => {
                self.at += 6;
                Ok(())
            }
        }
    }
}

/// Four hexadecimal digits.
fn hex(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |sum, byte| Some(sum * 16 + char::from(*byte).to_digit(16)?))
}

/// Appends the meaning of a string that the scanner has accepted.
pub fn unescape(raw: &str, out: &mut String) {
    let bytes = raw.as_bytes();
    let mut rest = raw;
    while let Some(start) = rest.find('\\') {
        let (plain, tail) = rest.split_at(start);
        out.push_str(plain);
        let at = raw.len() - tail.len();
        let (character, length) = match bytes.get(at + 1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'u') => match (hex(bytes, at + 2), hex(bytes, at + 8)) {
                (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..)) => {
                    (char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).unwrap_or_default(), 12)
                }
                (Some(code), _) => (char::from_u32(code).unwrap_or_default(), 6),
                (None, _) => (char::default(), 2),
            },
            Some(byte) => (char::from(*byte), 2),
            None => return,
        };
        out.push(character);
        rest = tail.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
}
