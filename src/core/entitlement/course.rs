//! What happens to a quota, and when: the phases to know usage of.
//!
//! A course need not begin where the quota does. A reset that forgives overage and leaves the same of every source
//! whatever was used forgets the past: what is after it is a function of it alone. The last such reset is where a course
//! begins, so the usual quota, an amount a month, asks for the usage of one month however old it is.

use super::{NEVER, Quota, Renewal, Rules, Source};
use crate::core::calendar::CalendarError;

/// How far a course goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The state of this time, by usage before it.
    Before(i64),
    /// The state of this time, by all usage of its phase: what is to be known now, though a clock that sends events is
    /// ahead of ours.
    Through(i64),
}

impl Until {
    pub fn at(self) -> i64 {
        match self {
            Until::Before(at) | Until::Through(at) => at,
        }
    }
}

/// What happens at one instant, in this order. Sources are named by their place in the order of burning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// `over`: so does its period, so what follows it takes over nothing.
    End {
        source: usize,
        over: bool,
    },
    Reset {
        keep_overage: bool,
    },
    Renew(usize),
    /// `fresh`: its period begins here, too, so it takes over nothing from what it follows.
    Start {
        source: usize,
        fresh: bool,
    },
    /// The rules change. After a time without any, a period begins.
    Rules {
        fresh: bool,
    },
}

/// Half-open, and empty at most at the end of a course.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    pub from: i64,
    pub to: i64,
    pub events: Vec<Event>,
    /// Whether anything is in effect that usage could count by.
    pub counts: bool,
}

impl Phase {
    pub(super) fn begins_period(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Reset { .. } | Event::Rules { fresh: true }))
    }
}

#[derive(Clone, Debug)]
pub struct Course<'a> {
    /// In the order of burning.
    pub(super) sources: Vec<&'a Source>,
    pub(super) phases: Vec<Phase>,
    /// When the quota is next reset, after the end of the course.
    pub(super) next_reset: Option<i64>,
}

impl<'a> Course<'a> {
    /// The course that says how things stood from `from` on, up to `until`. No phase if nothing has begun by then.
    pub fn of(quota: &'a Quota, from: i64, until: Until) -> Result<Course<'a>, CalendarError> {
        let mut sources: Vec<&Source> = quota.sources.iter().filter(|source| source.from < source.to).collect();
        sources.sort_by_key(|source| source.order());
        let at = until.at();
        let mut course = Course { sources, phases: Vec::new(), next_reset: None };
        let Some(begin) = course.begin(&quota.rules, from.min(at))?.filter(|begin| *begin <= at) else {
            return Ok(course);
        };
        let events = course.events(&quota.rules, begin, at)?;
        let mut cuts: Vec<i64> = events.iter().map(|(time, _)| *time).chain([begin]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let end = match until {
            Until::Before(at) => at,
            Until::Through(at) => course.next_event(&quota.rules, at)?,
        };
        for (place, &from) in cuts.iter().enumerate() {
            let to = cuts.get(place + 1).copied().unwrap_or(end);
            let events = events.iter().filter(|(time, _)| *time == from).map(|(_, event)| *event).collect();
            let counts =
                rules_of(&quota.rules, from).is_some() || course.sources.iter().any(|source| source.is_effective(from));
            course.phases.push(Phase { from, to, events, counts });
        }
        course.next_reset = rules_of(&quota.rules, at).map_or(Ok(None), |rules| rules.resets.next(at))?;
        Ok(course)
    }

    /// What usage is asked for: contiguous and ascending, none empty.
    pub fn windows(&self) -> impl Iterator<Item = (i64, i64)> {
        self.phases.iter().map(|phase| (phase.from, phase.to)).filter(|(from, to)| from < to)
    }

    /// For each window, whether its usage begins a period, of which distinct values are counted anew, and whether it
    /// counts at all.
    pub fn marks(&self) -> impl Iterator<Item = (bool, bool)> {
        self.phases.iter().filter(|phase| phase.from < phase.to).map(|phase| (phase.begins_period(), phase.counts))
    }

    /// The last time at or before `from` that nothing before it matters for; None when nothing ever begins.
    fn begin(&self, rules: &[Rules], from: i64) -> Result<Option<i64>, CalendarError> {
        let first = self.sources.iter().map(|source| source.from).chain(rules.iter().map(|rules| rules.from)).min();
        for rules in rules[..rules.partition_point(|rules| rules.from <= from)].iter().rev() {
            let last = from.min(rules.to.saturating_sub(1));
            if let Some(reset) = rules.resets.last(last)?.filter(|reset| *reset >= rules.from) {
                if self.forgets(rules, reset)? {
                    return Ok(Some(reset));
                }
                for reset in rules.resets.within(rules.from, reset - 1)?.into_iter().rev() {
                    if self.forgets(rules, reset)? {
                        return Ok(Some(reset));
                    }
                }
            }
        }
        Ok(first)
    }

    fn forgets(&self, rules: &Rules, reset: i64) -> Result<bool, CalendarError> {
        if rules.preserve_overage {
            return Ok(false);
        }
        for source in self.sources.iter().filter(|source| source.from < reset && reset < source.to) {
            let forgotten = match &source.renewal {
                Renewal::Once => source.rollover.is_fixed(),
                Renewal::Restored(times) => source.rollover.is_fixed() || times.has(reset)?,
                Renewal::Allowance(times) => {
                    (source.rollover.is_fixed() || source.amount.is_none()) && times.has(reset)?
                }
            };
            if !forgotten {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// In order.
    fn events(&self, rules: &[Rules], begin: i64, at: i64) -> Result<Vec<(i64, Event)>, CalendarError> {
        let mut events = Vec::new();
        for (place, source) in self.sources.iter().enumerate() {
            let times = match &source.renewal {
                Renewal::Once => None,
                Renewal::Restored(times) | Renewal::Allowance(times) => Some(times),
            };
            if (begin..=at).contains(&source.from) {
                let fresh = times.map_or(Ok(false), |times| times.has(source.from))?;
                events.push((source.from, Event::Start { source: place, fresh }));
            }
            if (begin..=at).contains(&source.to) {
                let over = times.map_or(Ok(true), |times| times.has(source.to))?;
                events.push((source.to, Event::End { source: place, over }));
            }
            if let Some(times) = times {
                let (first, last) = (begin.max(source.from.saturating_add(1)), at.min(source.to.saturating_sub(1)));
                events.extend(times.within(first, last)?.into_iter().map(|time| (time, Event::Renew(place))));
            }
        }
        let mut before = None;
        for rules in rules {
            let (first, last) = (begin.max(rules.from), at.min(rules.to.saturating_sub(1)));
            if first <= last {
                let keep_overage = rules.preserve_overage;
                let times = rules.resets.within(first, last)?;
                events.extend(times.into_iter().map(|time| (time, Event::Reset { keep_overage })));
            }
            let fresh = before.is_none_or(|before| before < rules.from);
            for (time, fresh) in [(rules.from, fresh), (rules.to, false)] {
                if (begin..=at).contains(&time) {
                    events.push((time, Event::Rules { fresh }));
                }
            }
            before = Some(rules.to);
        }
        events.sort_unstable();
        Ok(events)
    }

    /// When the phase of `at` ends.
    fn next_event(&self, rules: &[Rules], at: i64) -> Result<i64, CalendarError> {
        let mut next = NEVER;
        let mut see = |time: i64| {
            if time > at {
                next = next.min(time);
            }
        };
        for source in &self.sources {
            see(source.from);
            see(source.to);
            if let Renewal::Restored(times) | Renewal::Allowance(times) = &source.renewal
                && source.is_effective(at)
            {
                times.next(at)?.into_iter().for_each(&mut see);
            }
        }
        for rules in rules {
            see(rules.from);
            see(rules.to);
        }
        if let Some(rules) = rules_of(rules, at) {
            rules.resets.next(at)?.into_iter().for_each(&mut see);
        }
        Ok(next)
    }
}

fn rules_of(rules: &[Rules], at: i64) -> Option<&Rules> {
    rules.iter().find(|rules| (rules.from..rules.to).contains(&at))
}
