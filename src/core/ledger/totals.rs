//! What is kept beside the ledger so that a balance costs the same however many grants and holds there are: sums. A cache
//! of the ledger, changed with it; `verify` compares them.
//!
//! # Sums of grants
//! All grants that have begun when they are written down are in sums, by wallet, priority and kind: those that never
//! expire in one, the others in as many as it takes for each to have some hundred grants that expire one after the other.
//! So expiries of sums of the same wallet, priority and kind do not overlap, and a time is within one of them at most. That
//! one is read grant by grant, and so is one between whose grants something else burns; of most others the sum is enough
//! ([`Purse::sums_to_open`](super::Purse::sums_to_open) says which).

use serde::{Deserialize, Serialize};

use crate::core::decimal::QuantityError;
use crate::core::pricing::Amount;

use super::purse::{Life, Lot, Source};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Totals {
    /// What is left of grants that had begun when they were written down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sums: Vec<Sum>,
    /// Of the other grants none expires after this time; Unix microseconds. None: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub later_until: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overdrafts: Vec<Overdraft>,
    /// Of holds that have not been closed, expired ones too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
    /// Of the holds that are held none expires before this time; Unix microseconds. None: nobody knows, or there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_until: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    pub wallet: i64,
    pub priority: i32,
    pub promotional: bool,
    #[serde(with = "text")]
    pub amount: Amount,
    /// None: its grants never expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dated: Option<Dated>,
}

/// Of which grants a sum is; Unix microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dated {
    /// They expire from this time to that.
    pub first: i64,
    pub last: i64,
    /// When the last of them began.
    pub begun: i64,
    /// How many they were when the sum was made, and were added since.
    pub grants: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overdraft {
    pub wallet: i64,
    #[serde(with = "text")]
    pub amount: Amount,
    /// When it last became more; Unix microseconds.
    pub since: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// What it is held for; None: anything.
    pub meter: Option<String>,
    /// Of that meter, of holds for a quantity, which are kept apart from those of an amount.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text_if_any")]
    pub quantity: Option<Amount>,
    /// In the currency.
    #[serde(with = "text")]
    pub amount: Amount,
    /// When the oldest of them was made, or before; Unix microseconds.
    pub since: i64,
}

impl Sum {
    /// Whether it is of a wallet's grants of this priority and kind.
    pub fn is_of(&self, wallet: i64, life: &Life) -> bool {
        (self.wallet, self.priority, self.promotional) == (wallet, life.priority, life.promotional)
    }

    /// As what burns as one; `wallet`: its place in the purse.
    pub fn as_lot(&self, wallet: usize) -> Lot {
        let lasting = (i64::MAX, i64::MAX, i64::MIN);
        let (first, last, begun) = self.dated.map_or(lasting, |dated| (dated.first, dated.last, dated.begun));
        Lot {
            source: Source::Sum { last },
            wallet,
            priority: self.priority,
            promotional: self.promotional,
            effective_at: begun,
            expires_at: first,
            created_at: i64::MIN,
            summed: true,
            remaining: self.amount,
        }
    }

    /// Whether it is to be divided: of what expires at once, or has expired, a sum may be of any number of grants.
    pub fn is_too_large(&self, most: u32, now: i64) -> bool {
        let too_large = |dated: Dated| dated.grants > most && dated.first < dated.last && dated.last > now;
        self.dated.is_some_and(too_large)
    }

    /// Two sums as one.
    fn with(mut self, other: Sum) -> Result<Sum, QuantityError> {
        self.amount = self.amount.checked_add(&other.amount)?.shortest();
        self.dated = self.dated.zip(other.dated).map(|(one, two)| Dated {
            first: one.first.min(two.first),
            last: one.last.max(two.last),
            begun: one.begun.max(two.begun),
            grants: one.grants.saturating_add(two.grants),
        });
        Ok(self)
    }

    /// As sums of at most half as many grants each, unless more expire at once. `grants`: all of it that have something left,
    /// in order of expiry, and what that is.
    pub fn divided(&self, grants: &[(Life, Amount)], most: u32) -> Result<Vec<Sum>, QuantityError> {
        let mut sums: Vec<Sum> = Vec::new();
        for same in grants.chunk_by(|(a, _), (b, _)| a.expires_at == b.expires_at) {
            let mut together: Option<Sum> = None;
            for (life, left) in same {
                let (at, begun) = (life.expires_at, life.effective_at);
                let dated = Some(Dated { first: at, last: at, begun, grants: 1 });
                let one = Sum { amount: *left, dated, ..self.clone() };
                together = Some(match together {
                    Some(sum) => sum.with(one)?,
                    None => one,
                });
            }
            let Some(together) = together else { continue };
            let count = |sum: &Sum| sum.dated.map_or(0, |dated| dated.grants);
            let more = count(&together);
            let joined = match sums.pop_if(|sum| count(sum).saturating_add(more) <= (most / 2).max(1)) {
                Some(sum) => sum.with(together)?,
                None => together,
            };
            sums.push(joined);
        }
        Ok(sums)
    }
}

impl Held {
    /// Whether it is of holds for this, of a quantity or of an amount.
    pub fn is_for(&self, meter: Option<&str>, of_quantity: bool) -> bool {
        self.meter.as_deref() == meter && self.quantity.is_some() == of_quantity
    }
}

impl Totals {
    /// Writes down a grant of an amount; `now`: when. It is in a sum if it has begun.
    pub fn add_grant(&mut self, wallet: i64, life: &Life, amount: &Amount, now: i64) -> Result<(), QuantityError> {
        if life.effective_at <= now {
            return self.change_sum(wallet, life, amount, now, 1);
        }
        self.later_until = self.later_until.max(Some(life.expires_at));
        Ok(())
    }

    /// Changes what is left of a summed grant.
    pub fn change_grant(&mut self, wallet: i64, life: &Life, change: &Amount, now: i64) -> Result<(), QuantityError> {
        self.change_sum(wallet, life, change, now, 0)
    }

    fn change_sum(
        &mut self,
        wallet: i64,
        life: &Life,
        change: &Amount,
        now: i64,
        grants: u32,
    ) -> Result<(), QuantityError> {
        let at = life.expires_at;
        match self.sum_for(wallet, life, now) {
            Some(place) => {
                let sum = &mut self.sums[place];
                sum.amount = sum.amount.checked_add(change)?.shortest();
                if let Some(dated) = &mut sum.dated {
                    *dated = Dated {
                        first: dated.first.min(at),
                        last: dated.last.max(at),
                        begun: dated.begun.max(life.effective_at),
                        grants: dated.grants.saturating_add(grants),
                    };
                }
            }
            None => {
                let dated = Dated { first: at, last: at, begun: life.effective_at, grants: 1 };
                let dated = (at < i64::MAX).then_some(dated);
                let Life { priority, promotional, .. } = *life;
                self.sums.push(Sum { wallet, priority, promotional, amount: change.shortest(), dated });
            }
        }
        self.sums.retain(|sum| !sum.amount.is_zero());
        self.bury(wallet, life, now)
    }

    /// The sum that a grant is in, or is to be in. What has expired and what has not are kept apart.
    fn sum_for(&self, wallet: i64, life: &Life, now: i64) -> Option<usize> {
        let at = life.expires_at;
        let own = || self.sums.iter().enumerate().filter(|(_, sum)| sum.is_of(wallet, life));
        if at == i64::MAX {
            return own().find(|(_, sum)| sum.dated.is_none()).map(|(place, _)| place);
        }
        let dated = || own().filter_map(|(place, sum)| Some((place, sum.dated?)));
        if let Some((place, _)) = dated().find(|(_, dated)| dated.first <= at && at <= dated.last) {
            return Some(place);
        }
        let beside = || dated().filter(|(_, dated)| (dated.last > now) == (at > now));
        let before = beside().filter(|(_, dated)| dated.last < at).max_by_key(|(_, dated)| dated.last);
        let after = || beside().filter(|(_, dated)| dated.first > at).min_by_key(|(_, dated)| dated.first);
        before.or_else(after).map(|(place, _)| place)
    }

    /// Of what has expired there is one sum.
    fn bury(&mut self, wallet: i64, life: &Life, now: i64) -> Result<(), QuantityError> {
        let is_dead = |sum: &Sum| sum.is_of(wallet, life) && sum.dated.is_some_and(|dated| dated.last <= now);
        if self.sums.iter().filter(|sum| is_dead(sum)).count() > 1 {
            let (dead, rest): (Vec<Sum>, Vec<Sum>) = std::mem::take(&mut self.sums).into_iter().partition(is_dead);
            self.sums = rest;
            let mut dead = dead.into_iter();
            if let Some(first) = dead.next() {
                self.sums.push(dead.try_fold(first, Sum::with)?);
            }
        }
        Ok(())
    }

    /// `now`: when it changes.
    pub fn add_overdraft(&mut self, wallet: i64, change: &Amount, now: i64) -> Result<(), QuantityError> {
        match self.overdrafts.iter_mut().find(|sum| sum.wallet == wallet) {
            Some(sum) => {
                sum.amount = sum.amount.checked_add(change)?.shortest();
                if change.is_positive() {
                    sum.since = now;
                }
            }
            None => self.overdrafts.push(Overdraft { wallet, amount: *change, since: now }),
        }
        self.overdrafts.retain(|sum| !sum.amount.is_zero());
        Ok(())
    }

    /// A new hold: of an amount, or of what a quantity costs; with the times at which it was made and will expire.
    pub fn add_hold(
        &mut self,
        meter: Option<&str>,
        quantity: Option<&Amount>,
        amount: &Amount,
        (made, ends): (i64, i64),
    ) -> Result<(), QuantityError> {
        self.held_until = if self.held.is_empty() { Some(ends) } else { self.held_until.map(|first| first.min(ends)) };
        self.change_held(meter, quantity, amount, made)
    }

    /// Ends a hold.
    pub fn end_hold(
        &mut self,
        meter: Option<&str>,
        quantity: Option<&Amount>,
        amount: &Amount,
        made: i64,
    ) -> Result<(), QuantityError> {
        self.change_held(meter, quantity.map(|quantity| -*quantity).as_ref(), &-*amount, made)
    }

    /// `since`: when the hold was made.
    fn change_held(
        &mut self,
        meter: Option<&str>,
        quantity: Option<&Amount>,
        change: &Amount,
        since: i64,
    ) -> Result<(), QuantityError> {
        match self.held.iter_mut().find(|sum| sum.is_for(meter, quantity.is_some())) {
            Some(sum) => {
                sum.amount = sum.amount.checked_add(change)?.shortest();
                sum.since = sum.since.min(since);
                if let Some((sum, more)) = sum.quantity.as_mut().zip(quantity) {
                    *sum = sum.checked_add(more)?.shortest();
                }
            }
            None => {
                let (meter, quantity) = (meter.map(str::to_string), quantity.copied());
                self.held.push(Held { meter, quantity, amount: *change, since });
            }
        }
        self.held.retain(|sum| !sum.amount.is_zero() || sum.quantity.is_some_and(|quantity| !quantity.is_zero()));
        if self.held.is_empty() {
            self.held_until = None;
        }
        Ok(())
    }
}

/// Amounts as JSON strings: no reader takes them for floating point.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::core::pricing::Amount;

    pub fn serialize<S: Serializer>(amount: &Amount, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(amount)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Amount, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Amount::parse(&text).map_err(D::Error::custom)
    }
}

/// The same of one that may not be there.
mod text_if_any {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::core::pricing::Amount;

    pub fn serialize<S: Serializer>(amount: &Option<Amount>, to: S) -> Result<S::Ok, S::Error> {
        match amount {
            Some(amount) => super::text::serialize(amount, to),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Amount>, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.map(|text| Amount::parse(&text).map_err(D::Error::custom)).transpose()
    }
}
