//! Times at which something is reset or renewed.

use crate::core::calendar::{CalendarError, Cycle};

#[derive(Clone, Debug)]
pub enum Schedule {
    Never,
    /// The start of each period.
    Every(Cycle),
    /// Ascending.
    At(Vec<i64>),
}

impl Schedule {
    /// The last time at or before `at`.
    pub fn last(&self, at: i64) -> Result<Option<i64>, CalendarError> {
        Ok(match self {
            Schedule::Never => None,
            Schedule::Every(cycle) => Some(cycle.containing(at)?.start),
            Schedule::At(times) => times[..times.partition_point(|&time| time <= at)].last().copied(),
        })
    }

    /// The first time after `at`.
    pub fn next(&self, at: i64) -> Result<Option<i64>, CalendarError> {
        Ok(match self {
            Schedule::Never => None,
            Schedule::Every(cycle) => Some(cycle.containing(at)?.end),
            Schedule::At(times) => times.get(times.partition_point(|&time| time <= at)).copied(),
        })
    }

    /// The times in `[from, to]`, ascending.
    pub fn within(&self, from: i64, to: i64) -> Result<Vec<i64>, CalendarError> {
        let times = match self {
            Schedule::Never => Vec::new(),
            _ if from > to => Vec::new(),
            // One microsecond more: `to` itself may be one.
            Schedule::Every(cycle) => cycle.periods(from, to.saturating_add(1))?.iter().map(|p| p.start).collect(),
            Schedule::At(times) => times.clone(),
        };
        Ok(times.into_iter().filter(|time| (from..=to).contains(time)).collect())
    }

    pub fn has(&self, at: i64) -> Result<bool, CalendarError> {
        Ok(self.last(at)? == Some(at))
    }
}
