//! Aggregation states: what a rollup row stores about the events of one meter, customer and stretch of time.
//!
//! Every state is a commutative monoid under [`State::merge`]: any partition of the same samples, merged in any order,
//! gives the same bytes. That is what lets deltas be folded by a worker, at any time, in any order. The invertible
//! kinds are groups: adding the negated state of a voided event undoes it exactly.
//!
//! Stored form: format version, kind, body. A body has no length of its own; it ends where the bytes end. Integers are
//! zigzag LEB128, quantities as in [`Quantity::encode`], maps are entries in ascending key order. Each state has one
//! encoding and any other bytes are refused, so that states may be compared as bytes.

mod approx_percentile;
mod approx_unique;
mod avg;
mod bucket_max;
mod bucket_sum;
pub(super) mod codec;
mod count;
mod extreme;
mod keyed;
mod latest;
mod max;
mod min;
mod percentile;
mod sum;
mod tally;
mod unique;
mod weighted_sum;

use std::fmt;

use super::decimal::{Quantity, QuantityError};

pub use tally::Tally;

/// First byte of every stored state.
const VERSION: u8 = 1;

/// One event as a meter sees it. A kind reads only the fields it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub value: Quantity,
    /// Hash of the distinct value, for the unique kinds.
    pub digest: u128,
    /// When it happened, Unix microseconds.
    pub at: i64,
    /// Arrival number, unique; orders events of the same instant.
    pub seq: i64,
    /// Start of the meter's own bucket, Unix microseconds, for the bucket kinds.
    pub bucket: i64,
}

/// What a state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Period of a weighted sum, Unix microseconds, half-open.
    pub from: i64,
    pub to: i64,
    /// Between 0 and 1, for the percentile kinds.
    pub percentile: Quantity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    Version(u8),
    Kind(u8),
    Malformed(&'static str),
    Mismatch(Kind, Kind),
    Overflow,
    Percentile,
    Period,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Version(version) => write!(f, "unknown state version {version}"),
            StateError::Kind(code) => write!(f, "unknown state kind {code}"),
            StateError::Malformed(what) => write!(f, "malformed state: {what}"),
            StateError::Mismatch(left, right) => {
                write!(f, "a {} state can't merge a {} state", left.name(), right.name())
            }
            StateError::Overflow => f.write_str("aggregate is too large"),
            StateError::Percentile => f.write_str("percentile is not between 0 and 1"),
            StateError::Period => f.write_str("period of a weighted sum is empty"),
        }
    }
}

impl std::error::Error for StateError {}

impl From<QuantityError> for StateError {
    fn from(error: QuantityError) -> StateError {
        match error {
            QuantityError::Malformed => StateError::Malformed("quantity"),
            _ => StateError::Overflow,
        }
    }
}

/// What each file of this folder implements; `Default` is the empty state, the identity of `merge`.
pub trait Aggregate: Clone + Default + fmt::Debug + PartialEq {
    fn add(&mut self, sample: &Sample) -> Result<(), StateError>;
    fn merge(&mut self, other: &Self) -> Result<(), StateError>;
    fn is_empty(&self) -> bool;
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(input: &mut &[u8]) -> Result<Self, StateError>;
    fn value(&self, ask: &Ask) -> Result<Option<Quantity>, StateError>;

    /// The inverse under `merge`, where there is one.
    fn negate(&self) -> Option<Self> {
        None
    }
}

/// The table of kinds, and whatever must name each of them.
macro_rules! kinds {
    ($($kind:ident = $code:literal, $name:literal, $file:ident;)*) => {
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($kind = $code,)*
        }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $name,)*
                }
            }

            pub fn from_code(code: u8) -> Option<Kind> {
                match code {
                    $($code => Some(Kind::$kind),)*
                    _ => None,
                }
            }
        }

        #[derive(Clone, Debug, PartialEq)]
        pub enum State {
            $($kind($file::$kind),)*
        }

        impl State {
            pub fn empty(kind: Kind) -> State {
                match kind {
                    $(Kind::$kind => State::$kind(Default::default()),)*
                }
            }

            pub fn kind(&self) -> Kind {
                match self {
                    $(State::$kind(_) => Kind::$kind,)*
                }
            }

            /// After an error the state may hold part of the change and must be dropped; so for `merge`.
            pub fn add(&mut self, sample: &Sample) -> Result<(), StateError> {
                match self {
                    $(State::$kind(state) => state.add(sample),)*
                }
            }

            pub fn merge(&mut self, other: &State) -> Result<(), StateError> {
                match (self, other) {
                    $((State::$kind(state), State::$kind(other)) => state.merge(other),)*
                    (state, other) => Err(StateError::Mismatch(state.kind(), other.kind())),
                }
            }

            /// The state that undoes this one when merged; None for kinds that are not invertible.
            pub fn negate(&self) -> Option<State> {
                if !self.kind().invertible() {
                    return None;
                }
                match self {
                    $(State::$kind(state) => state.negate().map(State::$kind),)*
                }
            }

            /// Whether this is the empty state again, so that its row can go.
            pub fn is_empty(&self) -> bool {
                match self {
                    $(State::$kind(state) => state.is_empty(),)*
                }
            }

            /// None where there is no answer, as in SQL; counts of nothing are 0.
            pub fn value(&self, ask: &Ask) -> Result<Option<Quantity>, StateError> {
                match self {
                    $(State::$kind(state) => state.value(ask),)*
                }
            }

            fn encode_body(&self, out: &mut Vec<u8>) {
                match self {
                    $(State::$kind(state) => state.encode(out),)*
                }
            }

            fn decode_body(kind: Kind, input: &mut &[u8]) -> Result<State, StateError> {
                match kind {
                    $(Kind::$kind => Aggregate::decode(input).map(State::$kind),)*
                }
            }
        }
    };
}

// Codes are stored: a kind keeps its code for ever.
kinds! {
    Count = 1, "count", count;
    Sum = 2, "sum", sum;
    Avg = 3, "avg", avg;
    Min = 4, "min", min;
    Max = 5, "max", max;
    Latest = 6, "latest", latest;
    Unique = 7, "unique_count", unique;
    ApproxUnique = 8, "approx_unique_count", approx_unique;
    WeightedSum = 9, "weighted_sum", weighted_sum;
    Percentile = 10, "percentile", percentile;
    ApproxPercentile = 11, "approx_percentile", approx_percentile;
    BucketSum = 12, "bucket_sum", bucket_sum;
    BucketMax = 13, "bucket_max", bucket_max;
}

impl Kind {
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether a void can be merged as the negated state; otherwise the touched rollup is recomputed from raw events.
    pub fn invertible(self) -> bool {
        !matches!(self, Kind::Min | Kind::Max | Kind::Latest | Kind::ApproxUnique | Kind::BucketMax)
    }

    /// Whether the meter's property must be a number.
    pub fn needs_number(self) -> bool {
        !matches!(self, Kind::Count | Kind::Unique | Kind::ApproxUnique)
    }
}

impl State {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[VERSION, self.kind() as u8]);
        self.encode_body(out);
    }

    /// Reads a stored form. Any bytes are safe to pass; memory stays within a small multiple of their length.
    pub fn decode(bytes: &[u8]) -> Result<State, StateError> {
        let (kind, mut body) = State::split(bytes)?;
        let state = State::decode_body(kind, &mut body)?;
        if body.is_empty() { Ok(state) } else { Err(StateError::Malformed("trailing bytes")) }
    }

    /// Kind and body of a stored form.
    fn split(bytes: &[u8]) -> Result<(Kind, &[u8]), StateError> {
        let (&[version, code], body) = bytes.split_first_chunk().ok_or(StateError::Malformed("header"))?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        Ok((Kind::from_code(code).ok_or(StateError::Kind(code))?, body))
    }

    /// The value of each of the meter's own buckets, by start; none for kinds without buckets.
    pub fn buckets(&self) -> Vec<(i64, Quantity)> {
        match self {
            State::BucketSum(state) => state.iter().map(|(start, part)| (*start, part.total)).collect(),
            State::BucketMax(state) => state.iter().filter_map(|(start, part)| Some((*start, part.get()?))).collect(),
            _ => Vec::new(),
        }
    }
}
