//! What earlier stages left of the lines, and how a coupon or credit takes from it.

use super::arithmetic::{spread, sum};
use super::{InvoiceError, Line, Scope, Share};

pub(super) struct Pool<'a> {
    lines: &'a [Line],
    /// What is left of each line.
    pub open: Vec<i128>,
}

/// What was taken, and of how much.
pub(super) struct Taken {
    pub base: i128,
    pub used: i128,
    pub shares: Vec<Share>,
}

impl<'a> Pool<'a> {
    pub fn new(lines: &'a [Line], open: Vec<i128>) -> Pool<'a> {
        Pool { lines, open }
    }

    /// The places of the lines that a scope covers.
    pub fn covered(&self, scope: &Scope) -> Vec<usize> {
        self.lines.iter().enumerate().filter(|(_, line)| scope.covers(line)).map(|(place, _)| place).collect()
    }

    /// Takes from some of the lines as much of their base as `wanted` says. The base is what is left of them, negative
    /// ones subtracted; no more is taken than that, nor than is left of the invoice. The positive ones give in
    /// proportion.
    pub fn take(
        &mut self,
        places: &[usize],
        wanted: impl FnOnce(i128) -> Result<i128, InvoiceError>,
    ) -> Result<Taken, InvoiceError> {
        let base = sum(places.iter().map(|place| self.open[*place]))?.max(0);
        let most = sum(self.open.iter().copied())?.clamp(0, base);
        let used = wanted(base)?.clamp(0, most);
        if used == 0 {
            return Ok(Taken { base, used, shares: Vec::new() });
        }
        // Their sum is at least the base, so that no line gives more than it has.
        let weights: Vec<i128> = places.iter().map(|place| self.open[*place].max(0)).collect();
        let mut shares = Vec::new();
        for (place, amount) in places.iter().zip(spread(used, &weights)?) {
            if amount != 0 {
                self.open[*place] -= amount; // never below 0
                shares.push(Share { line: *place, amount });
            }
        }
        Ok(Taken { base, used, shares })
    }
}
