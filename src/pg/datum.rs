//! Between PostgreSQL's values and ours: times, texts and numerics.

use pgrx::pg_sys;

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const PG_EPOCH: i64 = 946_684_800_000_000;

/// Unix microseconds of a `timestamptz`; the infinities stay the ends of the range.
pub fn unix_micros(pg: i64) -> i64 {
    match pg {
        i64::MIN | i64::MAX => pg,
        _ => pg.saturating_add(PG_EPOCH),
    }
}

/// `timestamptz` of Unix microseconds.
pub fn pg_micros(unix: i64) -> i64 {
    match unix {
        i64::MIN | i64::MAX => unix,
        _ => unix.saturating_sub(PG_EPOCH),
    }
}

/// Writes texts as short varlenas into one buffer: five small allocations an event are worth avoiding.
#[derive(Default)]
pub struct TextArena {
    bytes: Vec<u8>,
}

/// Where a value lies in its arena; addresses are taken only once the arena no longer grows.
#[derive(Clone, Copy)]
pub struct Slice {
    start: usize,
}

impl TextArena {
    /// Stores `payload` with a varlena header: one byte for up to 126 bytes, else four (which asks for alignment).
    pub fn push(&mut self, payload: &[u8]) -> Slice {
        const SHORT_MAX: usize = 126;
        let len = payload.len();
        if len <= SHORT_MAX {
            let start = self.bytes.len();
            let header = (len + 1) as u8;
            self.bytes.push(if cfg!(target_endian = "little") { (header << 1) | 1 } else { header | 0x80 });
            self.bytes.extend_from_slice(payload);
            Slice { start }
        } else {
            // The buffer itself is at least 4-aligned only if its base is: pad to 8 and keep the base 8-aligned.
            while !self.bytes.len().is_multiple_of(8) {
                self.bytes.push(0);
            }
            let start = self.bytes.len();
            let total = (len + 4) as u32;
            let header = if cfg!(target_endian = "little") { (total << 2).to_le_bytes() } else { total.to_be_bytes() };
            self.bytes.extend_from_slice(&header);
            self.bytes.extend_from_slice(payload);
            Slice { start }
        }
    }

    /// Stores what `write` appends, which must be a whole varlena, at a multiple of four.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Slice {
        while !self.bytes.len().is_multiple_of(8) {
            self.bytes.push(0);
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        Slice { start }
    }

    pub fn with_capacity(bytes: usize) -> TextArena {
        TextArena { bytes: Vec::with_capacity(bytes) }
    }

    /// The datum of a stored value; valid until the arena is cleared or grows.
    pub fn datum(&self, slice: Slice) -> pg_sys::Datum {
        // SAFETY: `slice.start` was returned by push of this arena, so it lies inside the buffer.
        unsafe { pg_sys::Datum::from(self.bytes.as_ptr().add(slice.start)) }
    }
}

/// Unix microseconds as PostgreSQL reads them in text, whatever its settings.
pub fn rfc3339(unix: i64) -> String {
    match unix {
        i64::MIN => "-infinity".to_string(),
        i64::MAX => "infinity".to_string(),
        _ => jiff::Timestamp::from_microsecond(unix).map_or_else(|_| "infinity".to_string(), |time| time.to_string()),
    }
}

/// Half-open ranges of Unix microseconds as the text of a `tstzmultirange`.
pub fn multirange(ranges: &[(i64, i64)]) -> String {
    let parts: Vec<String> = ranges.iter().map(|&(from, to)| format!("[{},{})", rfc3339(from), rfc3339(to))).collect();
    format!("{{{}}}", parts.join(","))
}

/// A `timestamptz` of Unix microseconds, to be returned to SQL.
pub fn timestamptz(unix: i64) -> pgrx::datum::TimestampWithTimeZone {
    use pgrx::FromDatum;
    // SAFETY: a timestamptz is any i64, passed by value.
    unsafe { pgrx::datum::TimestampWithTimeZone::from_datum(pg_sys::Datum::from(pg_micros(unix)), false) }
        .unwrap_or_else(pgrx::datum::TimestampWithTimeZone::positive_infinity)
}

/// SHA-256, as SQL's `sha256(convert_to(text, 'UTF8'))`: all that is stored here is UTF-8.
pub fn sha256(text: &str) -> Vec<u8> {
    use pgrx::IntoDatum;
    // SAFETY: sha256_bytea takes a bytea and returns one.
    unsafe { pgrx::direct_function_call(pg_sys::sha256_bytea, &[text.as_bytes().into_datum()]) }.unwrap_or_default()
}
