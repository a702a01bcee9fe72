//! Points in time as senders write them: RFC 3339, or milliseconds since 1970. Both are cut to microseconds, towards
//! the past, as PostgreSQL stores no more.

/// Years 1 to 9999: what every calendar we hand them to can express.
pub const FIRST: i64 = -62_135_596_800_000_000;
pub const LAST: i64 = 253_402_300_799_999_999;

const SECOND: i64 = 1_000_000;

/// Reads text: RFC 3339 with an offset, or a number of milliseconds.
pub fn of_text(text: &str) -> Result<i64, &'static str> {
    let year = text.as_bytes().get(..5);
    if year.is_some_and(|year| year.ends_with(b"-") && !year.starts_with(b"-")) {
        rfc3339(text.as_bytes())
    } else {
        of_millis(text)
    }
}

/// Also accepted, as PostgreSQL and ISO 8601 write them: a space for the T, offsets without a colon or minutes. A leap
/// second (`:60`) is the second after it, as in PostgreSQL.
fn rfc3339(text: &[u8]) -> Result<i64, &'static str> {
    const SHAPE: &str = "is not a time like 2026-01-31T12:00:00Z";
    let (Some(head), Some(mut rest)) = (text.first_chunk::<19>(), text.get(19..)) else {
        return Err(SHAPE);
    };
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T' | b't' | b' ', h1, h2, b':', n1, n2, b':', s1, s2] = *head
    else {
        return Err(SHAPE);
    };
    let pair = |tens: u8, ones: u8| {
        (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    };
    let (Some(century), Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) =
        (pair(y1, y2), pair(y3, y4), pair(m1, m2), pair(d1, d2), pair(h1, h2), pair(n1, n2), pair(s1, s2))
    else {
        return Err(SHAPE);
    };
    let year = century * 100 + year;
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return Err("names a day that does not exist");
    }
    if hour > 23 || minute > 59 || second > 60 {
        return Err("names a time of day that does not exist");
    }
    let mut micros = 0;
    if let Some((b'.', after)) = rest.split_first() {
        let length = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, after) = after.split_at(length);
        if digits.is_empty() {
            return Err(SHAPE);
        }
        micros = (0..6).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| i64::from(digit - b'0')));
        rest = after;
    }
    let offset = match *rest {
        [] => return Err("has no offset from UTC; add Z or, for example, +02:00"),
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, ref minutes @ ..] => {
            let minutes = match *minutes {
                [] => Some(0),
                [b':', m1, m2] | [m1, m2] => pair(m1, m2),
                _ => None,
            };
            match (pair(h1, h2), minutes) {
                (Some(hours @ 0..=23), Some(minutes @ 0..=59)) => {
                    Some((hours * 60 + minutes) * if sign == b'-' { -60 } else { 60 })
                }
                _ => None,
            }
        }
        _ => None,
    };
    let offset = offset.ok_or("has an offset from UTC that is not Z or like +02:00")?;
    let seconds = days_before(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    in_range(seconds * SECOND + micros)
}

/// Reads a number of milliseconds since 1970; fractions and exponents are exact.
pub fn of_millis(text: &str) -> Result<i64, &'static str> {
    const SHAPE: &str = "is neither a time like 2026-01-31T12:00:00Z nor a number of milliseconds since 1970";
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let millis = digits.bytes().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        return in_range(if negative { -millis } else { millis } * 1_000);
    }
    let quantity = crate::core::decimal::Quantity::parse(text).map_err(|_| SHAPE)?;
    // A mantissa counts 10^-24 milliseconds, 10^21 of which make a microsecond.
    let micros = quantity.mantissa().div_euclid(ethnum::I256::new(10_i128.pow(21)));
    i64::try_from(micros).map_err(|_| OUT_OF_RANGE).and_then(in_range)
}

const OUT_OF_RANGE: &str = "is outside of the years 1 to 9999";

fn in_range(micros: i64) -> Result<i64, &'static str> {
    if (FIRST..=LAST).contains(&micros) { Ok(micros) } else { Err(OUT_OF_RANGE) }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the given day. Years are counted from March, so that the leap day ends them.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}
