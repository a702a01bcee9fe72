//! Times at which something is reset or renewed.

use crate::core::calendar::{CalendarError, Cycle};

/// The start of each period of a cycle, and single times besides.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// None: a lifetime.
    pub cycle: Option<Cycle>,
    /// Ascending.
    pub also: Vec<i64>,
}

impl Schedule {
    /// The last time at or before `at`.
    pub fn last(&self, at: i64) -> Result<Option<i64>, CalendarError> {
        let also = self.also[..self.also.partition_point(|&time| time <= at)].last().copied();
        let start = self.cycle.as_ref().map(|cycle| cycle.containing(at)).transpose()?.map(|period| period.start);
        Ok(start.max(also))
    }

    /// The first time after `at`.
    pub fn next(&self, at: i64) -> Result<Option<i64>, CalendarError> {
        let also = self.also.get(self.also.partition_point(|&time| time <= at)).copied();
        let end = self.cycle.as_ref().map(|cycle| cycle.containing(at)).transpose()?.map(|period| period.end);
        Ok(end.into_iter().chain(also).min())
    }

    /// The times in `[from, to]`, ascending.
    pub fn within(&self, from: i64, to: i64) -> Result<Vec<i64>, CalendarError> {
        if from > to {
            return Ok(Vec::new());
        }
        let mut times = self.also.clone();
        if let Some(cycle) = &self.cycle {
            // One microsecond more: `to` itself may be one.
            times.extend(cycle.periods(from, to.saturating_add(1))?.iter().map(|period| period.start));
        }
        times.retain(|time| (from..=to).contains(time));
        times.sort_unstable();
        times.dedup();
        Ok(times)
    }

    pub fn has(&self, at: i64) -> Result<bool, CalendarError> {
        Ok(self.last(at)? == Some(at))
    }
}
