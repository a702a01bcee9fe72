//! A customer's credit in one currency at one time, and what debts take of it.

use crate::core::decimal::QuantityError;
use crate::core::invoice::Scope;
use crate::core::pricing::{Amount, Rounding};

/// Decimals to which credit units are counted for an amount of money that they do not divide.
const UNIT_DIGITS: u32 = 12;

/// When a grant lives and where it stands in the burn order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Life {
    pub promotional: bool,
    pub priority: i32,
    /// Unix microseconds.
    pub effective_at: i64,
    /// `i64::MAX`: never.
    pub expires_at: i64,
}

/// Where a lot's credit is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The wallet's summed grants of this priority and kind that expire from the lot's expiry to this time.
    Sum { last: i64 },
    /// One grant.
    Grant(i64),
    /// A part of an occurrence of a recurring grant that no verb has written down yet.
    Coming { rule: i64, occurrence: i64, part: i16 },
}

/// Credit that burns as one.
#[derive(Clone, Debug)]
pub struct Lot {
    pub source: Source,
    /// Its place in [`Purse::wallets`].
    pub wallet: usize,
    pub priority: i32,
    pub promotional: bool,
    /// Unix microseconds; of a sum the last start.
    pub effective_at: i64,
    /// `i64::MAX`: never; of a sum the first expiry.
    pub expires_at: i64,
    pub created_at: i64,
    /// It had begun when it was written down, and so is in the wallet's sums.
    pub summed: bool,
    /// In the wallet's unit.
    pub remaining: Amount,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub key: String,
    /// What one is worth in the currency; more than 0.
    pub rate: Amount,
}

/// How far below zero a wallet may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So far, in the currency. Prepaid wallets: zero.
    Of(Amount),
    Unlimited,
}

#[derive(Clone, Debug)]
pub struct Wallet {
    pub id: i64,
    pub name: String,
    pub priority: i32,
    /// None: it holds money.
    pub unit: Option<Unit>,
    /// What it pays for.
    pub scope: Scope,
    pub limit: Limit,
    /// What it owes, in its unit: 0 or more.
    pub overdraft: Amount,
    /// When that last became more; of one that owes nothing it says nothing.
    pub owes_since: i64,
}

#[derive(Clone, Debug)]
pub struct Purse {
    /// Decimals of the currency.
    pub digits: u32,
    /// In order of priority, then id.
    pub wallets: Vec<Wallet>,
    /// In burn order, once [`Purse::sort`] has been called.
    pub lots: Vec<Lot>,
    /// The time at which it is looked at.
    pub as_of: i64,
}

/// What was taken of a lot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Its place in [`Purse::lots`].
    pub lot: usize,
    /// In the wallet's unit.
    pub amount: Amount,
    /// What that is worth, in minor units of the currency.
    pub minor: i128,
}

impl Lot {
    pub fn life(&self) -> Life {
        let Lot { promotional, priority, effective_at, expires_at, .. } = *self;
        Life { promotional, priority, effective_at, expires_at }
    }

    fn is_sum(&self) -> bool {
        matches!(self.source, Source::Sum { .. })
    }

    /// It began at once and never expires: it is there for whatever is done with it, also as of a moment before.
    pub fn is_lasting(&self) -> bool {
        self.summed && self.expires_at == i64::MAX
    }

    fn begins(&self) -> i64 {
        if self.is_lasting() { i64::MIN } else { self.effective_at }
    }

    pub fn is_live(&self, at: i64) -> bool {
        self.begins() <= at && at < self.expires_at
    }

    /// Whether it can pay what was spent, or set aside to be spent, at this time, looked at as of another.
    pub fn serves(&self, debt: i64, as_of: i64) -> bool {
        self.expires_at > debt && self.begins() <= as_of
    }

    /// Whether it can pay a charge that has this time.
    pub fn pays(&self, charge: i64, as_of: i64) -> bool {
        self.serves(charge, as_of) && (!self.promotional || self.begins() <= charge)
    }

    /// Whether nothing tells it apart from other such lots of its wallet, priority and kind but when it expires: of what is
    /// spent of them together, what expires first is spent first. `charged_since`: the time of the oldest open charge.
    pub fn is_alike(&self, as_of: i64, charged_since: i64) -> bool {
        self.summed && self.is_live(as_of) && self.pays(charged_since, as_of)
    }

    /// In a class of priorities, the first and the last place in burn order that its grants can have, as far as expiry and
    /// kind tell.
    fn span(&self) -> ((i64, bool), (i64, bool)) {
        match self.source {
            Source::Sum { last } if last > self.expires_at => ((self.expires_at, false), (last, true)),
            _ => ((self.expires_at, !self.promotional), (self.expires_at, !self.promotional)),
        }
    }
}

impl Purse {
    /// Brings lots into burn order.
    pub fn sort(&mut self) {
        let wallets = &self.wallets;
        let key = |lot: &Lot| {
            let (of_wallet, kind) = (wallets[lot.wallet].priority, !lot.promotional);
            let ranks = (of_wallet, lot.priority, lot.expires_at, kind);
            // Of two sums, which no grant tells apart, the wallet.
            (ranks, lot.effective_at, lot.created_at, lot.source, lot.wallet)
        };
        self.lots.sort_by_key(key);
    }

    /// The places of sums in whose place their grants have to be, in order: of which some may have expired, have not begun, or
    /// can not pay the oldest charge; which are worth less grant by grant, as each is rounded down; whose wallet owes, as they
    /// pay in the order in which they began; and those between whose grants other lots may burn.
    pub fn sums_to_open(&self, charged_since: i64) -> Vec<usize> {
        let is_one = |lot: &Lot| {
            let wallet = &self.wallets[lot.wallet];
            let whole = lot.is_live(self.as_of) && lot.pays(charged_since, self.as_of);
            wallet.overdraft.is_zero() && (lot.is_lasting() || (whole && wallet.unit.is_none()))
        };
        let mut places = self.mixed();
        places.extend((0..self.lots.len()).filter(|place| self.lots[*place].is_sum() && !is_one(&self.lots[*place])));
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The places of sums that touch other lots in burn order. Credit units that never expire are worth what they are together,
    /// and so burn as one.
    fn mixed(&self) -> Vec<usize> {
        let span = |place: usize| {
            let lot = &self.lots[place];
            let (class, (first, last)) = ((self.wallets[lot.wallet].priority, lot.priority), lot.span());
            ((class, first), (class, last))
        };
        let burns_as_one = |lot: &Lot| lot.is_sum() && lot.is_lasting() && self.wallets[lot.wallet].unit.is_some();
        let mut order: Vec<usize> = (0..self.lots.len()).filter(|place| !burns_as_one(&self.lots[*place])).collect();
        order.sort_by_key(|place| span(*place));
        let mut mixed = Vec::new();
        // Lots that touch follow each other: how many of them there are, which are sums, and where they end.
        let (mut touching, mut sums, mut end) = (0, Vec::new(), None);
        for place in order {
            let (first, last) = span(place);
            if end.is_some_and(|end| end < first) {
                mixed.extend(sums.drain(..).filter(|_| touching > 1));
                (touching, end) = (0, None);
            }
            touching += 1;
            end = end.max(Some(last));
            if self.lots[place].is_sum() {
                sums.push(place);
            }
        }
        mixed.extend(sums.into_iter().filter(|_| touching > 1));
        mixed
    }

    /// Lets grants that have begun pay what their wallets owe, in the order in which they began; returns what they paid.
    ///
    /// Whoever writes does this first, and a wallet only comes to owe when nothing of it is left that lives. So a grant
    /// that has credit left began after that, and paid at its start, even if it has expired since; or it was dead then,
    /// and what it has left is none of this debt's.
    pub fn settle(&mut self) -> Result<Vec<Taken>, QuantityError> {
        let mut paid = Vec::new();
        if self.wallets.iter().all(|wallet| wallet.overdraft.is_zero()) {
            return Ok(paid);
        }
        let pays = |lot: &Lot| {
            let since = self.wallets[lot.wallet].owes_since;
            // An invoice looks as of when it was asked for, which may be before the debt.
            lot.serves(since, self.as_of) && (lot.is_live(self.as_of) || lot.begins() > since)
        };
        let mut order: Vec<usize> = (0..self.lots.len()).filter(|lot| pays(&self.lots[*lot])).collect();
        order.sort_by_key(|lot| (self.lots[*lot].begins(), *lot));
        for place in order {
            let lot = &self.lots[place];
            let wallet = &mut self.wallets[lot.wallet];
            let amount = lot.remaining.min(wallet.overdraft);
            if amount.is_positive() {
                wallet.overdraft = wallet.overdraft.checked_sub(&amount)?;
                paid.push(self.take_amount(place, amount)?);
            }
        }
        Ok(paid)
    }

    /// What a lot is worth in minor units of the currency, a fraction of one left out.
    pub fn worth(&self, lot: &Lot) -> Result<i128, QuantityError> {
        self.minor(lot.wallet, &lot.remaining, Rounding::Down)
    }

    /// Minor units of the currency for an amount of a wallet's unit.
    pub fn minor(&self, wallet: usize, amount: &Amount, rounding: Rounding) -> Result<i128, QuantityError> {
        let money = match &self.wallets[wallet].unit {
            Some(unit) => amount.checked_mul(&unit.rate)?,
            None => *amount,
        };
        minor_of(&money, self.digits, rounding)
    }

    /// An amount of a wallet's unit for minor units of the currency.
    pub fn amount_of(&self, wallet: usize, minor: i128, rounding: Rounding) -> Result<Amount, QuantityError> {
        let money = Amount::new(minor.into(), self.digits);
        match &self.wallets[wallet].unit {
            Some(unit) => money.div_round(&unit.rate, UNIT_DIGITS, rounding),
            None => Ok(money),
        }
    }

    /// Takes so many minor units of a lot, at most what it is worth; of credit units as many as that is, rounded up.
    pub fn take(&mut self, place: usize, minor: i128) -> Result<Taken, QuantityError> {
        let wallet = self.lots[place].wallet;
        let amount = self.amount_of(wallet, minor, Rounding::Up)?;
        let lot = &mut self.lots[place];
        let amount = if self.wallets[wallet].unit.is_some() { amount.min(lot.remaining) } else { amount };
        lot.remaining = lot.remaining.checked_sub(&amount)?;
        Ok(Taken { lot: place, amount, minor })
    }

    /// Takes an amount in the wallet's unit of a lot, at most what is left of it.
    pub fn take_amount(&mut self, place: usize, amount: Amount) -> Result<Taken, QuantityError> {
        let minor = self.minor(self.lots[place].wallet, &amount, Rounding::HalfUp)?;
        let lot = &mut self.lots[place];
        lot.remaining = lot.remaining.checked_sub(&amount)?;
        Ok(Taken { lot: place, amount, minor })
    }

    /// Puts back what was taken.
    pub fn put_back(&mut self, taken: &[Taken]) -> Result<(), QuantityError> {
        for taken in taken {
            let lot = &mut self.lots[taken.lot];
            lot.remaining = lot.remaining.checked_add(&taken.amount)?;
        }
        Ok(())
    }

    /// Takes minor units for a debt that has this time, in burn order of the lots that can pay; returns what is missing.
    pub fn burn(
        &mut self,
        minor: i128,
        debt: i64,
        covers: impl Fn(&Wallet) -> bool,
        taken: &mut Vec<Taken>,
    ) -> Result<i128, QuantityError> {
        let places = 0..self.lots.len();
        self.burn_places(places, minor, debt, covers, taken)
    }

    /// As [`Purse::burn`], from the other end: for what is only set aside, so that what burns now has the first lots.
    /// Before them what fewer debts can use: lots that have expired, as they did, and of wallets that are not `open` to all.
    pub fn reserve(
        &mut self,
        minor: i128,
        debt: i64,
        covers: impl Fn(&Wallet) -> bool,
        open: impl Fn(&Wallet) -> bool,
        taken: &mut Vec<Taken>,
    ) -> Result<i128, QuantityError> {
        let mut places: Vec<usize> = (0..self.lots.len()).rev().collect();
        places.sort_by_key(|place| {
            let lot = &self.lots[*place];
            let live = lot.is_live(self.as_of);
            (live, open(&self.wallets[lot.wallet]), if live { 0 } else { lot.expires_at })
        });
        self.burn_places(places.into_iter(), minor, debt, covers, taken)
    }

    fn burn_places(
        &mut self,
        places: impl Iterator<Item = usize>,
        mut minor: i128,
        debt: i64,
        covers: impl Fn(&Wallet) -> bool,
        taken: &mut Vec<Taken>,
    ) -> Result<i128, QuantityError> {
        for place in places {
            if minor <= 0 {
                break;
            }
            let lot = &self.lots[place];
            if !lot.serves(debt, self.as_of) || !covers(&self.wallets[lot.wallet]) {
                continue;
            }
            let part = self.worth(lot)?.min(minor);
            if part > 0 {
                taken.push(self.take(place, part)?);
                minor -= part;
            }
        }
        Ok(minor.max(0))
    }

    /// Takes an amount in the unit of wallets that all have the same, in burn order of their lots; returns what is missing.
    pub fn burn_amount(
        &mut self,
        mut amount: Amount,
        debt: i64,
        covers: impl Fn(&Wallet) -> bool,
        taken: &mut Vec<Taken>,
    ) -> Result<Amount, QuantityError> {
        for place in 0..self.lots.len() {
            let lot = &self.lots[place];
            if amount.is_positive() && lot.serves(debt, self.as_of) && covers(&self.wallets[lot.wallet]) {
                let part = lot.remaining.min(amount);
                if part.is_positive() {
                    taken.push(self.take_amount(place, part)?);
                    amount = amount.checked_sub(&part)?;
                }
            }
        }
        Ok(amount)
    }

    /// What live lots of the wallets that `covers` says are worth together, in minor units.
    pub fn left(&self, covers: impl Fn(&Wallet) -> bool) -> Result<i128, QuantityError> {
        let mut sum = 0_i128;
        for lot in self.lots.iter().filter(|lot| lot.is_live(self.as_of) && covers(&self.wallets[lot.wallet])) {
            sum = sum.checked_add(self.worth(lot)?).ok_or(QuantityError::TooLarge)?;
        }
        Ok(sum)
    }

    /// What live lots of a wallet hold less what it owes, in its unit.
    pub fn balance(&self, wallet: usize) -> Result<Amount, QuantityError> {
        let live = self.lots.iter().filter(|lot| lot.wallet == wallet && lot.is_live(self.as_of));
        let mut balance = -self.wallets[wallet].overdraft;
        for lot in live {
            balance = balance.checked_add(&lot.remaining)?;
        }
        Ok(balance)
    }
}

/// Money as minor units.
pub fn minor_of(money: &Amount, digits: u32, rounding: Rounding) -> Result<i128, QuantityError> {
    if let Some(minor) = money.whole_units(digits) {
        return Ok(minor);
    }
    let minor = money.round_to(digits, rounding).round(digits)?.minor();
    i128::try_from(minor).map_err(|_| QuantityError::TooLarge)
}
