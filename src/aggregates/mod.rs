//! Two-step aggregates over usage states, for rollups and for analysts' own tables.
//!
//! `<kind>_state(...)` aggregates rows into a state, `merge(state)` combines states in any order and grouping, and
//! `value(state, ...)` finishes one. Transition states live in Rust (`internal`); between parallel workers they travel
//! in their stored form. The states are those of `core::state`, one file an aggregation; this is only the glue.

use std::ffi::{CStr, CString};

use pgrx::prelude::*;
use pgrx::{AnyNumeric, Internal};

use crate::core::decimal::Quantity;
use crate::core::state::{Ask, Kind, Sample, State, StateError};
use crate::pg::datum::{timestamptz, unix_micros};
use crate::pg::error::{Fail, Outcome, SqlState, raise};
use crate::pg::transition;

fn unusable(error: StateError) -> Fail {
    match error {
        StateError::Overflow => {
            Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "aggregate out of range").detail(error.to_string())
        }
        _ => Fail::parameter("these usage states can not be used so").detail(error.to_string()),
    }
}

fn decoded(bytes: &[u8]) -> Outcome<State> {
    State::decode(bytes).map_err(|error| {
        Fail::new(SqlState::ERRCODE_INVALID_BINARY_REPRESENTATION, "not a usage state")
            .detail(error.to_string())
            .hint("Usage states come from meterflow's *_state() aggregates and from meterflow.rollups.")
    })
}

fn encoded(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    bytes
}

#[pg_extern(sql = "")]
fn usage_state_in(text: &CStr) -> Vec<u8> {
    raise((|| {
        let text = text.to_str().unwrap_or_default();
        let digits = text.strip_prefix("\\x").unwrap_or(text).as_bytes();
        let nibble = |byte: u8| char::from(byte).to_digit(16);
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some((nibble(*high)? * 16 + nibble(*low)?) as u8),
                _ => None,
            })
            .collect();
        let bytes = bytes.ok_or_else(|| {
            Fail::new(
                SqlState::ERRCODE_INVALID_TEXT_REPRESENTATION,
                "invalid input syntax for type meterflow.usage_state",
            )
            .detail("The text form is an even number of hexadecimal digits, after \\x.")
        })?;
        decoded(&bytes)?;
        Ok(bytes)
    })())
}

#[pg_extern(sql = "")]
fn usage_state_out(bytes: &[u8]) -> CString {
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    // Hexadecimal digits contain no NUL.
    CString::new(text).unwrap_or_default()
}

#[pg_extern(sql = "")]
fn merge_states(left: &[u8], right: &[u8]) -> Vec<u8> {
    raise((|| {
        let mut state = decoded(left)?;
        state.merge(&decoded(right)?).map_err(unusable)?;
        Ok(encoded(&state))
    })())
}

#[pg_extern(sql = "")]
fn state_value(
    bytes: Option<&[u8]>,
    percentile: Option<AnyNumeric>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: Option<TimestampWithTimeZone>,
) -> Option<AnyNumeric> {
    let bytes = bytes?;
    raise((|| {
        let state = decoded(bytes)?;
        let time = |at: Option<TimestampWithTimeZone>| at.map_or(0, |at| unix_micros(at.into_inner()));
        let ask = Ask {
            from: time(from_time),
            to: time(to_time),
            percentile: percentile.as_ref().map_or(Ok(Quantity::ZERO), quantity)?,
        };
        match (state.kind(), &percentile, from_time.is_some() && to_time.is_some()) {
            (Kind::Percentile | Kind::ApproxPercentile, None, _) => {
                return Err(Fail::parameter("a percentile state needs to be told which percentile")
                    .hint("Write meterflow.value(state, 0.95)."));
            }
            (Kind::WeightedSum, _, false) => {
                return Err(Fail::parameter("a weighted sum needs its period")
                    .hint("Write meterflow.value(state, from_time => ..., to_time => ...)."));
            }
            _ => {}
        }
        state.value(&ask).map_err(unusable)?.map(numeric).transpose()
    })())
}

/// The value of each of the meter's own buckets: what peak billing prices.
#[pg_extern(sql = "")]
fn state_buckets(
    bytes: &[u8],
) -> TableIterator<'static, (name!(bucket, TimestampWithTimeZone), name!(value, AnyNumeric))> {
    let buckets = raise(decoded(bytes)).buckets();
    TableIterator::new(buckets.into_iter().map(|(start, value)| (timestamptz(start), raise(numeric(value)))))
}

#[pg_extern(sql = "")]
fn state_kind(bytes: &[u8]) -> &'static str {
    raise(decoded(bytes)).kind().name()
}

fn numeric(quantity: Quantity) -> Outcome<AnyNumeric> {
    AnyNumeric::try_from(quantity.to_string().as_str()).map_err(|error| Fail::corrupt(error.to_string()))
}

fn quantity(value: &AnyNumeric) -> Outcome<Quantity> {
    let text = value.to_string();
    Quantity::parse_sum(&text).map_err(|error| {
        Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "this number can not be aggregated exactly")
            .detail(format!("{text}: {error}."))
    })
}

/// Adds a sample to the transition state, which is made on first use. Nulls are passed over, as SQL aggregates do.
fn accumulate(
    mut transition: Internal,
    kind: Kind,
    sample: Option<Sample>,
    call: pg_sys::FunctionCallInfo,
) -> Internal {
    let state = transition::state_in(&mut transition, kind, call);
    if let Some(sample) = sample {
        raise(state.add(&sample).map_err(unusable));
    }
    transition
}

fn of_value(value: Option<AnyNumeric>) -> Option<Sample> {
    value.map(|value| Sample { value: raise(quantity(&value)), digest: 0, at: 0, seq: 0, bucket: 0 })
}

fn of_moment(value: Option<AnyNumeric>, at: Option<TimestampWithTimeZone>) -> Option<Sample> {
    let at = at.map(|at| unix_micros(at.into_inner()))?;
    of_value(value).map(|sample| Sample { at, ..sample })
}

/// A fixed key: states over analysts' own tables must merge across sessions and databases.
fn of_text(value: Option<&str>) -> Option<Sample> {
    use siphasher::sip128::{Hasher128, SipHasher24};
    use std::hash::Hasher;
    value.map(|value| {
        let mut hasher = SipHasher24::new_with_keys(0, 0);
        hasher.write(value.as_bytes());
        Sample { value: Quantity::ONE, digest: hasher.finish128().as_u128(), at: 0, seq: 0, bucket: 0 }
    })
}

macro_rules! transitions {
    ($($name:ident = $kind:ident ($($arg:ident: $type:ty),*) => $sample:expr;)*) => {
        $(
            #[pg_extern(sql = "")]
            fn $name(state: Internal, $($arg: $type,)* call: pg_sys::FunctionCallInfo) -> Internal {
                accumulate(state, Kind::$kind, $sample, call)
            }
        )*
    };
}

transitions! {
    count_step = Count() => Some(Sample { value: Quantity::ONE, digest: 0, at: 0, seq: 0, bucket: 0 });
    sum_step = Sum(value: Option<AnyNumeric>) => of_value(value);
    avg_step = Avg(value: Option<AnyNumeric>) => of_value(value);
    min_step = Min(value: Option<AnyNumeric>) => of_value(value);
    max_step = Max(value: Option<AnyNumeric>) => of_value(value);
    latest_step = Latest(value: Option<AnyNumeric>, at: Option<TimestampWithTimeZone>) => of_moment(value, at);
    weighted_sum_step = WeightedSum(value: Option<AnyNumeric>, at: Option<TimestampWithTimeZone>) => of_moment(value, at);
    unique_step = Unique(value: Option<&str>) => of_text(value);
    approx_unique_step = ApproxUnique(value: Option<&str>) => of_text(value);
    percentile_step = Percentile(value: Option<AnyNumeric>) => of_value(value);
    approx_percentile_step = ApproxPercentile(value: Option<AnyNumeric>) => of_value(value);
}

#[pg_extern(sql = "")]
fn merge_step(transition: Internal, bytes: Option<&[u8]>, call: pg_sys::FunctionCallInfo) -> Internal {
    let Some(bytes) = bytes else { return transition };
    let other = raise(decoded(bytes));
    merged(transition, &other, call)
}

fn merged(mut transition: Internal, other: &State, call: pg_sys::FunctionCallInfo) -> Internal {
    let state = transition::state_in(&mut transition, other.kind(), call);
    raise(state.merge(other).map_err(unusable));
    transition
}

#[pg_extern(sql = "")]
fn state_combine(left: Internal, right: Internal, call: pg_sys::FunctionCallInfo) -> Internal {
    match transition::state_of(&right) {
        None => left,
        Some(other) => merged(left, other, call),
    }
}

#[pg_extern(sql = "")]
fn state_serialize(transition: Internal) -> Vec<u8> {
    transition::state_of(&transition).map(encoded).unwrap_or_default()
}

#[pg_extern(sql = "")]
fn state_deserialize(bytes: &[u8], _unused: Internal, call: pg_sys::FunctionCallInfo) -> Internal {
    merged(Internal::default(), &raise(decoded(bytes)), call)
}

/// The finished state; null when there were no rows.
#[pg_extern(sql = "")]
fn state_final(transition: Internal) -> Option<Vec<u8>> {
    transition::state_of(&transition).map(encoded)
}
