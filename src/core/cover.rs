//! How a stretch of time is answered: which parts from month, day and hour rollups, which from raw events.
//!
//! The coarsest stored grain wins; the ends inside an hour, and dirty ranges, come from raw events. Pure arithmetic on
//! Unix microseconds, so that the claim "the pieces tile the stretch, none overlap" is a property test.

/// Where a piece is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Raw,
    Hour,
    Day,
    Month,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub from: i64,
    pub to: i64,
    pub source: Source,
}

/// What is stored: days before `closed_day` have day rollups, and the rollup of a month holds its days before
/// `closed_day`; hour rollups, day rollups and raw events older than their floor are gone.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub closed_day: i64,
    pub hour_floor: i64,
    pub day_floor: i64,
    pub raw_floor: i64,
}

/// A stretch that nothing stored can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    pub from: i64,
    pub to: i64,
}

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// Times the calendar arithmetic below is safe for: years 1 to 9999, as for events.
pub const EARLIEST: i64 = -62_135_596_800_000_000;
pub const LATEST: i64 = 253_402_300_799_000_000;

/// Start of the UTC hour, day or month of a time; the time itself for raw.
pub fn floor(source: Source, at: i64) -> i64 {
    match source {
        Source::Raw => at,
        Source::Hour => at - at.rem_euclid(HOUR),
        Source::Day => at - at.rem_euclid(DAY),
        Source::Month => month_start(at),
    }
}

/// First start of an hour, day or month at or after a time.
pub fn ceil(source: Source, at: i64) -> i64 {
    let start = floor(source, at);
    if start == at {
        return at;
    }
    match source {
        Source::Raw => at,
        Source::Hour => start + HOUR,
        Source::Day => start + DAY,
        Source::Month => month_start(start + 32 * DAY),
    }
}

/// Days-to-civil arithmetic (H. Hinnant, "chrono-compatible low-level date algorithms"), for the UTC month.
fn month_start(at: i64) -> i64 {
    let days = at.div_euclid(DAY);
    let shifted = days + 719_468;
    let era_day = shifted.rem_euclid(146_097);
    let year_of_era = (era_day - era_day / 1_460 + era_day / 36_524 - era_day / 146_096) / 365;
    let day_of_year = era_day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    (days - day_of_month) * DAY
}

/// Tiles [from, to). `dirty` is sorted, half-open, and may overlap.
pub fn cover(from: i64, to: i64, dirty: &[(i64, i64)], stored: &Stored) -> Result<Vec<Piece>, Gone> {
    let mut pieces = Vec::new();
    let mut at = from;
    for &(dirty_from, dirty_to) in dirty {
        let (low, high) = (dirty_from.max(at), dirty_to.min(to));
        if low >= high {
            continue;
        }
        clean(at, low, stored, &mut pieces)?;
        raw(low, high, stored, &mut pieces)?;
        at = high;
    }
    clean(at, to, stored, &mut pieces)?;
    Ok(pieces)
}

/// Tiles a stretch of which every whole bucket may be read from rollups.
fn clean(from: i64, to: i64, stored: &Stored, pieces: &mut Vec<Piece>) -> Result<(), Gone> {
    let (first, last) = (ceil(Source::Hour, from), floor(Source::Hour, to));
    if first >= last {
        return raw(from, to, stored, pieces);
    }
    raw(from, first, stored, pieces)?;
    rollups(Source::Month, first, last, stored, pieces)?;
    raw(last, to, stored, pieces)
}

/// Tiles whole hours with `grain` in the middle and finer grains at the ends.
fn rollups(grain: Source, from: i64, to: i64, stored: &Stored, pieces: &mut Vec<Piece>) -> Result<(), Gone> {
    let (finer, gone_before) = match grain {
        Source::Month => (Source::Day, i64::MIN),
        Source::Day => (Source::Hour, stored.day_floor),
        Source::Hour | Source::Raw => return fine(from, to, stored.hour_floor, Source::Hour, stored, pieces),
    };
    // The rollup of the month that closed_day lies in ends there.
    let last = if to >= stored.closed_day { stored.closed_day } else { floor(grain, to) };
    let first = ceil(grain, from);
    if first >= last {
        return rollups(finer, from, to, stored, pieces);
    }
    rollups(finer, from, first, stored, pieces)?;
    fine(first, last, gone_before, grain, stored, pieces)?;
    rollups(finer, last, to, stored, pieces)
}

/// One stretch of one grain; before the grain's floor its rows are gone and raw events must answer.
fn fine(
    from: i64,
    to: i64,
    gone_before: i64,
    grain: Source,
    stored: &Stored,
    pieces: &mut Vec<Piece>,
) -> Result<(), Gone> {
    let split = gone_before.clamp(from, to.max(from));
    raw(from, split, stored, pieces)?;
    push(split, to, grain, pieces);
    Ok(())
}

fn raw(from: i64, to: i64, stored: &Stored, pieces: &mut Vec<Piece>) -> Result<(), Gone> {
    if from < to && from < stored.raw_floor {
        return Err(Gone { from, to: to.min(stored.raw_floor) });
    }
    push(from, to, Source::Raw, pieces);
    Ok(())
}

fn push(from: i64, to: i64, source: Source, pieces: &mut Vec<Piece>) {
    if from >= to {
        return;
    }
    match pieces.last_mut() {
        Some(last) if last.source == source && last.to == from => last.to = to,
        _ => pieces.push(Piece { from, to, source }),
    }
}
