//! How usage burns down the sources of a quota.

use super::course::{Course, Event, Phase};
use super::{Renewal, Source};
use crate::core::decimal::{Quantity, QuantityError};

/// A phase as it went. With R the sum of what is left of limited sources, and D the overage at its end, R − D is that of
/// the segment before, and `granted` + `forgiven` − `lapsed` − `usage`.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub from: i64,
    pub to: i64,
    /// What it began with.
    pub events: Vec<Event>,
    /// Of limited sources: what began, was renewed or rolled over beyond what was left; and what of them went unused.
    pub granted: Quantity,
    pub lapsed: Quantity,
    /// Overage that a reset forgave.
    pub forgiven: Quantity,
    pub usage: Quantity,
    /// Those in effect, in the order of burning.
    pub parts: Vec<Part>,
    /// What no source was left for. Below zero: what was given back beyond all that was taken; usage to come is set off
    /// against it first.
    pub overage: Quantity,
    /// When the period began, and what has been used of it by the end of this segment.
    pub period_start: i64,
    pub period_usage: Quantity,
}

/// What a segment took from a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Place in the order of burning.
    pub source: usize,
    /// None: without limit.
    pub opening: Option<Quantity>,
    pub used: Quantity,
    pub closing: Option<Quantity>,
}

/// How things stand at the end of a course.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// What there was and is to use in the period, usage + balance − overage; None: without limit.
    pub quota: Option<Quantity>,
    pub usage: Quantity,
    /// None: without limit.
    pub balance: Option<Quantity>,
    pub overage: Quantity,
    pub period_start: i64,
    pub next_reset: Option<i64>,
}

/// What is left of each source.
struct State<'c> {
    sources: &'c [&'c Source],
    effective: Vec<bool>,
    left: Vec<Quantity>,
    used: Vec<Quantity>,
    overage: Quantity,
    period_start: i64,
    period_usage: Quantity,
}

impl Course<'_> {
    /// Each phase, given the usage of each of its [`windows`](Course::windows).
    pub fn run(&self, usage: &[Quantity]) -> Result<Vec<Segment>, QuantityError> {
        let Some(begin) = self.phases.first().map(|phase| phase.from) else { return Ok(Vec::new()) };
        let none = vec![Quantity::ZERO; self.sources.len()];
        let mut state = State {
            sources: &self.sources,
            // What was there before has no past: a course begins where none of it matters.
            effective: self.sources.iter().map(|source| source.from < begin && begin < source.to).collect(),
            left: none.clone(),
            used: none,
            overage: Quantity::ZERO,
            period_start: begin,
            period_usage: Quantity::ZERO,
        };
        let mut usage = usage.iter().copied();
        self.phases
            .iter()
            .map(|phase| {
                let used = if phase.from < phase.to { usage.next().unwrap_or(Quantity::ZERO) } else { Quantity::ZERO };
                state.segment(phase, if phase.counts { used } else { Quantity::ZERO })
            })
            .collect()
    }

    /// The source at a place in the order of burning.
    pub fn source(&self, place: usize) -> &Source {
        self.sources[place]
    }

    /// How things stand after the last of the segments; None if nothing has begun.
    pub fn standing(&self, segments: &[Segment]) -> Result<Option<Standing>, QuantityError> {
        let Some(last) = segments.last() else { return Ok(None) };
        let given_back = -last.overage.min(Quantity::ZERO);
        let mut balance = Some(given_back);
        for part in &last.parts {
            balance = match (balance, part.closing) {
                (Some(balance), Some(closing)) => Some(balance.checked_add(closing)?),
                _ => None,
            };
        }
        let overage = last.overage.max(Quantity::ZERO);
        // What preserved overage has taken beforehand is no part of it.
        let quota = |balance: Quantity| last.period_usage.checked_add(balance)?.checked_sub(overage);
        Ok(Some(Standing {
            quota: balance.map(quota).transpose()?.map(|quota| quota.max(Quantity::ZERO)),
            usage: last.period_usage,
            balance,
            overage,
            period_start: last.period_start,
            next_reset: self.next_reset,
        }))
    }
}

impl State<'_> {
    fn segment(&mut self, phase: &Phase, usage: Quantity) -> Result<Segment, QuantityError> {
        let before = self.overage;
        let (mut granted, mut lapsed) = (Quantity::ZERO, Quantity::ZERO);
        // Of allowances that end here: what was used of them in their period.
        let mut succeeded = Quantity::ZERO;
        if phase.begins_period() {
            (self.period_start, self.period_usage) = (phase.from, Quantity::ZERO);
        }
        for event in &phase.events {
            let (source, left) = match *event {
                Event::End { source, over } => {
                    if !over && matches!(self.sources[source].renewal, Renewal::Allowance(_)) {
                        succeeded = succeeded.checked_add(self.used[source])?;
                    }
                    self.effective[source] = false;
                    (source, Quantity::ZERO)
                }
                Event::Reset { keep_overage } => {
                    // What was given back beyond all that was taken is of its period, too.
                    self.overage = if keep_overage { self.overage.max(Quantity::ZERO) } else { Quantity::ZERO };
                    for place in 0..self.sources.len() {
                        if self.effective[place] && !matches!(self.sources[place].renewal, Renewal::Allowance(_)) {
                            let left = self.sources[place].rollover.of(self.left[place]);
                            self.set(place, left, &mut granted, &mut lapsed)?;
                        }
                    }
                    continue;
                }
                Event::Renew(source) => match (self.sources[source].amount, &self.sources[source].renewal) {
                    (Some(amount), Renewal::Allowance(_)) => {
                        (source, self.sources[source].rollover.of(self.left[source]).checked_add(amount)?)
                    }
                    (Some(amount), _) => (source, amount),
                    (None, _) => (source, Quantity::ZERO),
                },
                Event::Start { source, fresh } => {
                    self.effective[source] = true;
                    let amount = self.sources[source].amount;
                    let succeeds = !fresh && matches!(self.sources[source].renewal, Renewal::Allowance(_));
                    let taken = amount.map_or(succeeded, |amount| amount.min(succeeded));
                    let taken = if succeeds { taken } else { Quantity::ZERO };
                    succeeded = succeeded.checked_sub(taken)?;
                    let left = amount.map_or(Ok(Quantity::ZERO), |amount| amount.checked_sub(taken))?;
                    self.set(source, left, &mut granted, &mut lapsed)?;
                    self.used[source] = taken;
                    continue;
                }
                Event::Rules { fresh: true } => {
                    self.overage = Quantity::ZERO;
                    continue;
                }
                Event::Rules { fresh: false } => continue,
            };
            self.set(source, left, &mut granted, &mut lapsed)?;
        }
        let forgiven = before.checked_sub(self.overage)?;
        let opening = self.shown();
        let overage = std::mem::replace(&mut self.overage, Quantity::ZERO);
        self.take(overage)?;
        self.take(usage)?;
        if phase.counts {
            self.period_usage = self.period_usage.checked_add(usage)?;
        }
        let closing = self.shown();
        let parts = opening.into_iter().zip(closing).map(|((source, opening, used), (_, closing, after))| {
            Ok(Part { source, opening, used: after.checked_sub(used)?, closing })
        });
        Ok(Segment {
            from: phase.from,
            to: phase.to,
            events: phase.events.clone(),
            granted,
            lapsed,
            forgiven,
            usage,
            parts: parts.collect::<Result<_, QuantityError>>()?,
            overage: self.overage,
            period_start: self.period_start,
            period_usage: self.period_usage,
        })
    }

    /// What is left of a source from now on, and nothing of that used yet.
    fn set(
        &mut self,
        place: usize,
        left: Quantity,
        granted: &mut Quantity,
        lapsed: &mut Quantity,
    ) -> Result<(), QuantityError> {
        let change = left.checked_sub(self.left[place])?;
        if change.is_negative() {
            *lapsed = lapsed.checked_sub(change)?;
        } else {
            *granted = granted.checked_add(change)?;
        }
        self.left[place] = left;
        self.used[place] = Quantity::ZERO;
        Ok(())
    }

    /// Source, what is left of it, and what has been used, of all in effect.
    fn shown(&self) -> Vec<(usize, Option<Quantity>, Quantity)> {
        let left = |place: usize| self.sources[place].amount.map(|_| self.left[place]);
        let effective = (0..self.sources.len()).filter(|place| self.effective[*place]);
        effective.map(|place| (place, left(place), self.used[place])).collect()
    }

    /// Takes from the sources in order; a negative quantity is given back in the reverse order.
    fn take(&mut self, quantity: Quantity) -> Result<(), QuantityError> {
        let mut rest = quantity;
        let effective: Vec<usize> = (0..self.sources.len()).filter(|place| self.effective[*place]).collect();
        if quantity.is_negative() {
            rest = self.settle(rest)?;
            for &place in effective.iter().rev() {
                let back = self.used[place].min(-rest);
                self.move_by(place, -back)?;
                rest = rest.checked_add(back)?;
            }
        } else {
            rest = self.settle(rest)?;
            for &place in &effective {
                let taken = if self.sources[place].amount.is_some() { self.left[place].min(rest) } else { rest };
                self.move_by(place, taken)?;
                rest = rest.checked_sub(taken)?;
            }
        }
        self.overage = self.overage.checked_add(rest)?;
        Ok(())
    }

    /// Sets a quantity off against overage of the other sign, and returns the rest.
    fn settle(&mut self, quantity: Quantity) -> Result<Quantity, QuantityError> {
        let sum = self.overage.checked_add(quantity)?;
        if self.overage.is_zero() || self.overage.is_negative() == quantity.is_negative() {
            return Ok(quantity);
        }
        // They cancel out as far as the smaller goes.
        if sum.is_negative() == quantity.is_negative() {
            self.overage = Quantity::ZERO;
            Ok(sum)
        } else {
            self.overage = sum;
            Ok(Quantity::ZERO)
        }
    }

    fn move_by(&mut self, place: usize, taken: Quantity) -> Result<(), QuantityError> {
        if self.sources[place].amount.is_some() {
            self.left[place] = self.left[place].checked_sub(taken)?;
        }
        self.used[place] = self.used[place].checked_add(taken)?;
        Ok(())
    }
}
