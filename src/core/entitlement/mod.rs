//! What a customer may still use of a feature: quota burned down by usage, as a function of time.
//!
//! A quota is sources: the allowances that entitlements give in each of their periods, and grants beside them. Usage takes
//! from the sources that are in effect, in one total order; what no source is left for is overage. Nothing is stored of
//! this: it is computed from the sources and from usage, so a late event, a void or a changed entitlement needs no repair.
//!
//! # At one instant
//! Things that happen at the same time happen in this order, which is that of [`Event`]:
//! 1. A source ends: its expiry is exclusive. What is left of it lapses.
//! 2. Reset: of each grant min(max, max(min, left)) rolls over; overage is forgiven unless it is preserved.
//! 3. A source is renewed: a grant that recurs is full again, whatever the reset left of it; an allowance is what rolls
//!    over, and its amount again.
//! 4. A source begins: its start is inclusive, so a grant that begins with a period is untouched by its reset.
//! 5. Overage is taken from what is there now.
//!
//! # Why parts of time don't matter
//! Between two such instants, a phase, the order of sources is fixed and only the sum of usage counts. So a phase is
//! computed from the state at its beginning and the usage since then: asking in the middle of it, or often, changes
//! nothing. Where usage falls (a sum of negative values), it is given back in the reverse order, never more than was taken.
//!
//! # Succession
//! An allowance that begins where another ends, as at a change of plan, and within its own period, begins with what was
//! used of that one in its period: changing to and fro is no way to have a quota twice.
//!
//! Proof: tests/core/entitlement.

mod burn;
mod course;
mod schedule;

pub use burn::{Segment, Standing};
pub use course::{Course, Event, Until};
pub use schedule::Schedule;

use super::decimal::Quantity;

/// Unix microseconds that nothing reaches: the end of what has no end.
pub const NEVER: i64 = i64::MAX;

/// All that decides what may be used of one feature.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    pub sources: Vec<Source>,
    /// Disjoint, in order of time. Where there are none and no source is in effect, usage does not count.
    pub rules: Vec<Rules>,
}

/// When a quota is reset, in `[from, to)`.
#[derive(Clone, Debug)]
pub struct Rules {
    pub from: i64,
    pub to: i64,
    pub resets: Schedule,
    /// What was used beyond the quota is taken from that of the next period.
    pub preserve_overage: bool,
}

/// Something that usage is taken from, in `[from, to)`.
#[derive(Clone, Debug)]
pub struct Source {
    pub id: Id,
    /// None: without limit.
    pub amount: Option<Quantity>,
    /// Lower burns first.
    pub priority: i32,
    pub from: i64,
    pub to: i64,
    /// When it was to end, [`NEVER`] if it was not: a void ends it earlier, and must not change what burned before it.
    pub expires_at: i64,
    pub created_at: i64,
    pub rollover: Rollover,
    pub renewal: Renewal,
}

/// The last word in the order of burning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    Allowance(i64),
    Grant(i64),
}

#[derive(Clone, Debug)]
pub enum Renewal {
    /// A grant that is given once.
    Once,
    /// A grant that is full again at these times.
    Restored(Schedule),
    /// Of an entitlement: each period of its own begins with the amount, and with what rolls over.
    Allowance(Schedule),
}

/// How much of what is left is there after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollover {
    pub min: Quantity,
    /// None: all of it.
    pub max: Option<Quantity>,
}

impl Rollover {
    pub fn of(&self, left: Quantity) -> Quantity {
        let left = left.max(self.min);
        self.max.map_or(left, |max| left.min(max))
    }

    /// Whether it comes to the same whatever is left.
    fn is_fixed(&self) -> bool {
        self.max.is_some_and(|max| max <= self.min)
    }
}

impl Source {
    /// The order of burning: total, and the same whatever the order in which sources are given.
    fn order(&self) -> (i32, i64, i64, Id, i64) {
        (self.priority, self.expires_at, self.created_at, self.id, self.from)
    }

    pub fn is_effective(&self, at: i64) -> bool {
        (self.from..self.to).contains(&at)
    }
}
