//! Prepaid credit as one would keep it on paper: a list of grants and a list of holds for each customer, all in cents, and
//! nothing kept beside them. Time is an argument; there are no transactions, locks or sums.

use std::collections::BTreeMap;

pub const NEVER: i64 = i64::MAX;

#[derive(Clone, Default)]
pub struct Account {
    pub wallets: Vec<Wallet>,
    pub grants: Vec<Grant>,
    pub holds: BTreeMap<i64, Hold>,
}

#[derive(Clone)]
pub struct Wallet {
    pub id: i64,
    pub name: String,
    pub priority: i64,
    /// It pays for usage of one meter only.
    pub limited: bool,
    /// It holds credit units.
    pub units: bool,
    /// How far it may go below zero.
    pub limit: i64,
    pub owed: i64,
    pub owes_since: i64,
}

#[derive(Clone, Debug)]
pub struct Grant {
    pub id: i64,
    pub wallet: usize,
    pub priority: i64,
    pub promotional: bool,
    pub starts: i64,
    pub ends: i64,
    pub created: i64,
    pub left: i64,
    /// What it has paid of what its wallet owed.
    pub paid: i64,
}

#[derive(Clone, Debug)]
pub struct Hold {
    pub cents: i64,
    pub for_api: bool,
    pub made: i64,
    pub ends: i64,
}

/// A charge: what it comes to, when it was due, and whether a limited wallet pays for it.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    pub cents: i64,
    pub at: i64,
    pub api: bool,
}

/// Cents taken of a wallet's grant, by its place; None: lent by the wallet.
pub type Taken = Vec<(usize, Option<usize>, i64)>;

/// What is owed beside holds.
#[derive(Clone, Debug, Default)]
pub struct Debts {
    /// Usage that nobody has billed.
    pub open: Vec<Charge>,
    pub unpaid: i64,
}

/// What debts take: of which grants (but for holds), what no credit is there for, and what lives in each wallet before and
/// after each of them.
struct Claims {
    claimed: Taken,
    missing: [i64; 3],
    stages: Vec<Vec<i64>>,
}

/// What a wallet has and carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Share {
    pub balance: i64,
    pub usage: i64,
    pub unpaid: i64,
    pub held: i64,
}

impl Grant {
    /// It began at once and does not end.
    fn lasting(&self) -> bool {
        self.starts <= self.created && self.ends == NEVER
    }

    /// What is lasting is there for whatever is done with it, also as of a moment before.
    fn began(&self) -> i64 {
        if self.lasting() { i64::MIN } else { self.starts }
    }

    fn lives(&self, at: i64) -> bool {
        self.began() <= at && at < self.ends
    }

    fn serves(&self, debt: i64, now: i64) -> bool {
        self.began() <= now && self.ends > debt
    }
}

impl Account {
    /// Wallets in order of priority, then id.
    pub fn ranked(&self) -> Vec<usize> {
        let mut ranked: Vec<usize> = (0..self.wallets.len()).collect();
        ranked.sort_by_key(|place| (self.wallets[*place].priority, self.wallets[*place].id));
        ranked
    }

    /// Burn order.
    fn order(&self) -> Vec<usize> {
        let key = |place: &usize| {
            let grant = &self.grants[*place];
            let wallet = &self.wallets[grant.wallet];
            let ranks = (wallet.priority, grant.priority, grant.ends, !grant.promotional);
            // Units that last burn as one, the oldest first.
            let first = if wallet.units && grant.lasting() { Some(wallet.id) } else { None };
            (ranks, first.is_none(), first, grant.starts, grant.created, grant.id)
        };
        let mut order: Vec<usize> = (0..self.grants.len()).filter(|place| self.grants[*place].left > 0).collect();
        order.sort_by_key(key);
        order
    }

    fn take(
        &mut self,
        order: Vec<usize>,
        mut cents: i64,
        usable: impl Fn(&Grant, &Wallet) -> bool,
        taken: &mut Taken,
    ) -> i64 {
        for place in order {
            let grant = &mut self.grants[place];
            if cents > 0 && usable(grant, &self.wallets[grant.wallet]) {
                let part = grant.left.min(cents);
                grant.left -= part;
                cents -= part;
                taken.push((grant.wallet, Some(place), part));
            }
        }
        cents
    }

    /// Whatever began since a wallet owes pays that, by the time at which it began, though it may have ended.
    pub fn settle(&mut self, now: i64) -> Taken {
        let mut order = self.order();
        order.sort_by_key(|place| self.grants[*place].began());
        let mut paid = Taken::new();
        for place in order {
            let grant = &mut self.grants[place];
            let wallet = &mut self.wallets[grant.wallet];
            if grant.serves(wallet.owes_since, now) && (now < grant.ends || grant.starts > wallet.owes_since) {
                let part = grant.left.min(wallet.owed);
                grant.left -= part;
                grant.paid += part;
                wallet.owed -= part;
                if part > 0 {
                    paid.push((grant.wallet, Some(place), part));
                }
            }
        }
        paid
    }

    /// New credit; what its wallet owes is paid of it, if it lives. Returns how much that is.
    pub fn add(&mut self, grant: Grant, now: i64, of_rule: bool) -> i64 {
        let wallet = &mut self.wallets[grant.wallet];
        let paid = if grant.lives(now) && !of_rule { grant.left.min(wallet.owed) } else { 0 };
        wallet.owed -= paid;
        self.grants.push(Grant { left: grant.left - paid, paid, ..grant });
        paid
    }

    fn active(&self, now: i64) -> Vec<Hold> {
        let mut active: Vec<Hold> = self.holds.values().filter(|hold| now < hold.ends).cloned().collect();
        active.sort_by_key(|hold| (hold.for_api, hold.made));
        active
    }

    /// Takes out what holds rely on: first what has ended, and of limited wallets; of these what burns last. Returns what
    /// no credit is there for.
    fn set_aside(&mut self, now: i64, aside: &mut Taken) -> i64 {
        let mut missing = 0;
        for hold in self.active(now) {
            let mut order = self.order();
            order.reverse();
            order.sort_by_key(|place| {
                let grant = &self.grants[*place];
                let lives = grant.lives(now);
                (lives, !self.wallets[grant.wallet].limited, if lives { 0 } else { grant.ends })
            });
            let usable =
                |grant: &Grant, wallet: &Wallet| grant.serves(hold.made, now) && (hold.for_api || !wallet.limited);
            missing += self.take(order, hold.cents, usable, aside);
        }
        missing
    }

    fn put_back(&mut self, taken: &Taken) {
        for (_, grant, cents) in taken {
            if let Some(place) = grant {
                self.grants[*place].left += cents;
            }
        }
    }

    /// Spends in burn order what holds leave, where it comes of wallets that pay for the same and any credit can pay what is
    /// open; else what all debts leave, and then what open usage and unpaid invoices would have had. Then wallets owe, and
    /// with `force` the first of them beyond its limit.
    pub fn spend(
        &mut self,
        cents: i64,
        debt: i64,
        now: i64,
        debts: &Debts,
        covers: impl Fn(&Wallet) -> bool,
        force: bool,
    ) -> Result<Taken, i64> {
        let mut left = self.clone();
        let claims = left.claim(debts, now);
        let usable = |grant: &Grant, wallet: &Wallet| grant.serves(debt, now) && covers(wallet);
        let mut taken = Taken::new();
        let alike = self.wallets.iter().filter(|wallet| covers(wallet)).all(|wallet| !wallet.limited)
            || self.wallets.iter().filter(|wallet| covers(wallet)).count() == 1;
        let mut missing = cents;
        if !alike || debts.open.iter().any(|charge| charge.at < now) {
            missing = left.take(left.order(), missing, usable, &mut taken);
        }
        left.put_back(&claims.claimed);
        missing = left.take(left.order(), missing, usable, &mut taken);
        let mut taken = self.take_for(&taken, now, debts);
        for beyond in [false, true] {
            for place in self.ranked() {
                let wallet = &self.wallets[place];
                if missing == 0 || !covers(wallet) || (beyond && !force) {
                    continue;
                }
                let part = if beyond { missing } else { (wallet.limit - wallet.owed).clamp(0, missing) };
                missing -= part;
                // It does not owe while it has anything: the hold stands on what it can still owe.
                let own = |grant: &Grant, _: &Wallet| grant.wallet == place && grant.serves(debt, now);
                let part = self.take(self.order(), part, own, &mut taken);
                if part > 0 {
                    self.wallets[place].owed += part;
                    self.wallets[place].owes_since = now;
                    taken.push((place, None, part));
                }
            }
        }
        if missing > 0 { Err(missing) } else { Ok(taken) }
    }

    /// Takes what has been found to be there: of grants that are alike, what burns first.
    fn take_for(&mut self, found: &Taken, now: i64, debts: &Debts) -> Taken {
        let since = debts.open.iter().map(|charge| charge.at).fold(now, i64::min);
        let mut taken = Taken::new();
        for (_, grant, cents) in found {
            let class = self.class(grant.expect("a grant"), now, since);
            let order = self.order().into_iter().filter(|other| self.class(*other, now, since) == class).collect();
            self.take(order, *cents, |_, _| true, &mut taken);
        }
        taken
    }

    /// Grants that are alike: of one wallet, priority and kind, all of which can pay whatever one of them can. They had begun
    /// when they were written down; those that expire and those that never do are apart.
    fn class(&self, place: usize, now: i64, since: i64) -> (usize, i64, bool, bool, i64) {
        let grant = &self.grants[place];
        let alike = grant.starts <= grant.created && grant.lives(now) && (!grant.promotional || grant.began() <= since);
        let own = if alike { 0 } else { grant.id };
        (grant.wallet, grant.priority, grant.promotional, grant.lasting(), own)
    }

    /// As [`Account::spend`], of what debts leave in one wallet alone.
    pub fn send(&mut self, cents: i64, now: i64, debts: &Debts, wallet: usize) -> Result<Taken, i64> {
        let mut left = self.clone();
        left.claim(debts, now);
        let mut taken = Taken::new();
        let usable = |grant: &Grant, _: &Wallet| grant.wallet == wallet && grant.lives(now);
        let missing = left.take(left.order(), cents, usable, &mut taken);
        let taken = self.take_for(&taken, now, debts);
        if missing > 0 { Err(missing) } else { Ok(taken) }
    }

    pub fn capture(&mut self, hold: i64, cents: i64, now: i64, debts: &Debts) -> Result<Taken, i64> {
        let Hold { for_api, made, .. } = self.holds.remove(&hold).expect("a hold that was made");
        self.spend(cents, made, now, debts, |wallet| for_api || !wallet.limited, true)
    }

    /// Pays an invoice: promotional credit, then what was bought, each in burn order, spread over the lines in proportion
    /// to what is left of them. Returns what is due besides.
    pub fn pay(&mut self, charges: &[Charge], now: i64, beside_holds: bool) -> (Taken, i64) {
        let mut aside = Taken::new();
        if beside_holds {
            self.set_aside(now, &mut aside);
        }
        let mut open: Vec<i64> = charges.iter().map(|charge| charge.cents).collect();
        let mut taken = Taken::new();
        for promotional in [true, false] {
            // Neighbours in burn order that pay for the same pay together.
            let mut lots: Vec<((bool, Vec<bool>), Vec<usize>)> = Vec::new();
            for place in self.order() {
                let grant = &self.grants[place];
                let limited = self.wallets[grant.wallet].limited;
                let pays = |charge: &Charge| {
                    let begun_by = if promotional { charge.at } else { now };
                    (charge.api || !limited) && grant.serves(charge.at, now) && grant.began() <= begun_by
                };
                let pays: Vec<bool> = charges.iter().map(pays).collect();
                if grant.promotional != promotional || !pays.contains(&true) {
                    continue;
                }
                match lots.last_mut() {
                    Some((same, lots)) if *same == (limited, pays.clone()) => lots.push(place),
                    _ => lots.push(((limited, pays), vec![place])),
                }
            }
            for ((_, pays), lot) in lots {
                let weights: Vec<i64> =
                    pays.iter().zip(&open).map(|(pays, left)| if *pays { *left } else { 0 }).collect();
                let left: i64 = lot.iter().map(|place| self.grants[*place].left).sum();
                let used = weights.iter().sum::<i64>().min(left);
                for (open, part) in open.iter_mut().zip(split(used, &weights)) {
                    *open -= part;
                }
                self.take(lot, used, |_, _| true, &mut taken);
            }
        }
        self.put_back(&aside);
        (taken, open.iter().sum())
    }

    /// Gives back what a transaction took, the last first. What it had lent is owed no more; where grants had paid that,
    /// they have it again, the youngest first.
    pub fn give_back(&mut self, taken: &Taken, mut cents: i64, now: i64) -> Taken {
        let mut given = Taken::new();
        for (wallet, grant, amount) in taken.iter().rev() {
            let part = cents.min(*amount);
            cents -= part;
            if part == 0 {
                continue;
            }
            given.push((*wallet, *grant, part));
            let owing = &mut self.wallets[*wallet];
            match grant {
                None => {
                    owing.owed -= part;
                    for grant in self.grants.iter_mut().rev().filter(|grant| grant.wallet == *wallet) {
                        let back = (-owing.owed).clamp(0, grant.paid);
                        grant.paid -= back;
                        owing.owed += back;
                        grant.left += back;
                    }
                }
                Some(place) => {
                    let grant = &mut self.grants[*place];
                    let pays = if now < grant.ends { part.min(owing.owed) } else { 0 };
                    owing.owed -= pays;
                    grant.paid += pays;
                    grant.left += part - pays;
                }
            }
        }
        given
    }

    /// Takes out what all debts need: holds, open usage as an invoice would, and unpaid invoices.
    fn claim(&mut self, debts: &Debts, now: i64) -> Claims {
        let live = |account: &Account| -> Vec<i64> {
            let of = |wallet| account.grants.iter().filter(move |grant| grant.wallet == wallet && grant.lives(now));
            (0..account.wallets.len()).map(|wallet| of(wallet).map(|grant| grant.left).sum()).collect()
        };
        let mut stages = vec![live(self)];
        let held = self.set_aside(now, &mut Taken::new());
        stages.push(live(self));
        let (mut claimed, usage) = self.pay(&debts.open, now, false);
        stages.push(live(self));
        let any = |grant: &Grant, wallet: &Wallet| grant.lives(now) && !wallet.limited;
        let unpaid = self.take(self.order(), debts.unpaid, any, &mut claimed);
        stages.push(live(self));
        Claims { claimed, missing: [held, usage, unpaid], stages }
    }

    /// Wallet by wallet what there is and what debts take of it, those that no credit covers with the last; and what is
    /// available for what `covers` says.
    pub fn position(&self, debts: &Debts, now: i64, covers: impl Fn(&Wallet) -> bool) -> (Vec<Share>, i64) {
        let mut account = self.clone();
        account.settle(now);
        let Claims { missing, stages, .. } = account.claim(debts, now);
        let last = account.ranked().into_iter().rfind(|place| !account.wallets[*place].limited);
        let share = |place: usize| {
            let of = |stage: usize| {
                let beside = if Some(place) == last { missing[stage] } else { 0 };
                stages[stage][place] - stages[stage + 1][place] + beside
            };
            let balance = stages[0][place] - account.wallets[place].owed;
            Share { balance, held: of(0), usage: of(1), unpaid: of(2) }
        };
        let room = |(wallet, left): (&Wallet, &i64)| if covers(wallet) { left - wallet.owed + wallet.limit } else { 0 };
        let room: i64 = account.wallets.iter().zip(&stages[3]).map(room).sum();
        ((0..account.wallets.len()).map(share).collect(), room - missing.iter().sum::<i64>())
    }
}

/// Shares of a total in proportion to weights: rounded down, and what is left over to the largest fractions.
fn split(total: i64, weights: &[i64]) -> Vec<i64> {
    let sum = i128::from(weights.iter().sum::<i64>().max(1));
    let exact = |weight: &i64| i128::from(total) * i128::from(*weight);
    let mut parts: Vec<i64> = weights.iter().map(|weight| (exact(weight) / sum) as i64).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(exact(&weights[*place]) % sum));
    let left = (total - parts.iter().sum::<i64>()) as usize;
    for place in order.into_iter().take(left) {
        parts[place] += 1;
    }
    parts
}
