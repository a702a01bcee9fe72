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

/// What a customer owes besides, before anything is held: usage that nobody has billed, and invoices to pay.
#[derive(Clone, Debug, Default)]
pub struct Debts {
    pub usage: Vec<Charge>,
    pub unpaid: i64,
}

/// Cents taken of a wallet's grant, by its place; None: lent by the wallet.
pub type Taken = Vec<(usize, Option<usize>, i64)>;

/// What is available for anything, and what each wallet carries.
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
            // What is lasting burns wallet by wallet, the oldest first.
            let began = (grant.began(), if grant.lasting() { i64::MIN } else { grant.created });
            let ranks = (wallet.priority, grant.priority, grant.ends, !grant.promotional);
            (ranks, began, wallet.id, grant.starts, grant.created, grant.id)
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
            if grant.began() <= now && (now < grant.ends || grant.starts > wallet.owes_since) {
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

    /// Takes out what holds rely on: what has ended, then limited wallets, then the rest; of these what burns last.
    /// Returns what no credit is there for, too.
    fn set_aside(&mut self, now: i64) -> (Taken, i64) {
        let (mut aside, mut missing) = (Taken::new(), 0);
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
            missing += self.take(order, hold.cents, usable, &mut aside);
        }
        (aside, missing)
    }

    /// Takes out what is owed: usage as its invoice would, then invoices. Returns what of each no credit is there for.
    fn claim(&mut self, debts: &Debts, now: i64) -> (Taken, i64, i64) {
        let (mut taken, usage_missing) = self.pay(&debts.usage, now);
        let any = |grant: &Grant, wallet: &Wallet| grant.lives(now) && !wallet.limited;
        let unpaid_missing = self.take(self.order(), debts.unpaid, any, &mut taken);
        (taken, usage_missing, unpaid_missing)
    }

    fn put_back(&mut self, taken: &Taken) {
        for (_, grant, cents) in taken {
            if let Some(place) = grant {
                self.grants[*place].left += cents;
            }
        }
    }

    /// Spends, in burn order. Wallets that all pay for the same only have to have enough left: if no ended period is to be
    /// billed, what burns first is taken of all that no hold has. Else of what debts leave, and then of what they would have
    /// had. What is missing wallets owe, and have nothing left then.
    pub fn spend(
        &mut self,
        cents: i64,
        debt: i64,
        debts: &Debts,
        now: i64,
        covers: impl Fn(&Wallet) -> bool,
        alike: bool,
        force: bool,
    ) -> Result<Taken, i64> {
        let mut plan = self.clone();
        let (claimed, ..) = plan.claim(debts, now);
        let (mut aside, _) = plan.set_aside(now);
        let usable = |grant: &Grant, wallet: &Wallet| grant.serves(debt, now) && covers(wallet);
        let (mut taken, mut missing) = (Taken::new(), cents);
        if !alike || debts.usage.iter().any(|charge| charge.at < now) {
            missing = plan.take(plan.order(), missing, usable, &mut taken);
        }
        plan.put_back(&claimed);
        plan.put_back(&aside);
        (aside, _) = plan.set_aside(now);
        missing = plan.take(plan.order(), missing, usable, &mut taken);
        plan.put_back(&aside);
        let covered: Vec<usize> = self.ranked().into_iter().filter(|place| covers(&self.wallets[*place])).collect();
        let beyond = covered.first().filter(|_| force).map(|place| (*place, true));
        for (place, beyond) in covered.iter().map(|place| (*place, false)).chain(beyond) {
            let wallet = &plan.wallets[place];
            let part = if beyond { missing } else { (wallet.limit - wallet.owed).clamp(0, missing) };
            missing -= part;
            let own = |grant: &Grant, _: &Wallet| grant.wallet == place && grant.serves(debt, now);
            let lent = plan.take(plan.order(), part, own, &mut taken);
            plan.wallets[place].owed += lent;
            taken.push((place, None, lent));
        }
        if missing > 0 { Err(missing) } else { Ok(self.burn(&taken, now)) }
    }

    /// What a debit, a capture or a transfer takes. Lasting grants of one wallet, priority and kind are as one, of which the
    /// oldest goes first.
    fn burn(&mut self, planned: &Taken, now: i64) -> Taken {
        let mut taken = Taken::new();
        for (wallet, grant, cents) in planned.iter().filter(|(.., cents)| *cents > 0) {
            if let Some(place) = grant {
                let lot = self.order().into_iter().filter(|other| self.lot(*other) == self.lot(*place)).collect();
                let missing = self.take(lot, *cents, |_, _| true, &mut taken);
                assert_eq!(missing, 0, "what is planned is there");
            } else {
                self.wallets[*wallet].owed += cents;
                self.wallets[*wallet].owes_since = now;
                taken.push((*wallet, None, *cents));
            }
        }
        taken
    }

    fn lot(&self, place: usize) -> (usize, i64, bool, Option<usize>) {
        let grant = &self.grants[place];
        (grant.wallet, grant.priority, grant.promotional, if grant.lasting() { None } else { Some(place) })
    }

    /// Moves what debts and holds leave of a wallet.
    pub fn transfer(&mut self, cents: i64, from: usize, debts: &Debts, now: i64) -> Result<Taken, i64> {
        let mut plan = self.clone();
        plan.claim(debts, now);
        plan.set_aside(now);
        let mut taken = Taken::new();
        let own = |grant: &Grant, _: &Wallet| grant.wallet == from && grant.lives(now);
        let missing = plan.take(plan.order(), cents, own, &mut taken);
        if missing > 0 { Err(missing) } else { Ok(self.burn(&taken, now)) }
    }

    pub fn capture(&mut self, hold: i64, cents: i64, debts: &Debts, now: i64) -> Result<Taken, i64> {
        let Hold { for_api, made, .. } = self.holds.remove(&hold).expect("a hold that was made");
        self.spend(cents, made, debts, now, |wallet| for_api || !wallet.limited, !for_api, true)
    }

    /// Pays an invoice of what no hold has.
    pub fn invoice(&mut self, charges: &[Charge], now: i64) -> (Taken, i64) {
        let (aside, _) = self.set_aside(now);
        let paid = self.pay(charges, now);
        self.put_back(&aside);
        paid
    }

    /// Promotional credit, then what was bought, each in burn order, spread over the lines in proportion to what is left of
    /// them. Returns what is due besides.
    fn pay(&mut self, charges: &[Charge], now: i64) -> (Taken, i64) {
        let mut open: Vec<i64> = charges.iter().map(|charge| charge.cents).collect();
        let mut taken = Taken::new();
        for promotional in [true, false] {
            let order: Vec<usize> =
                self.order().into_iter().filter(|place| self.grants[*place].promotional == promotional).collect();
            let same = |a: &usize, b: &usize| self.lot(*a) == self.lot(*b);
            let lots: Vec<Vec<usize>> = order.chunk_by(same).map(<[usize]>::to_vec).collect();
            for lot in lots {
                let (first, limited) = (&self.grants[lot[0]], self.wallets[self.grants[lot[0]].wallet].limited);
                let pays = |charge: &Charge| {
                    let begun_by = if promotional { charge.at } else { now };
                    (charge.api || !limited) && first.serves(charge.at, now) && first.began() <= begun_by
                };
                let weights: Vec<i64> =
                    charges.iter().zip(&open).map(|(charge, left)| if pays(charge) { *left } else { 0 }).collect();
                let left: i64 = lot.iter().map(|place| self.grants[*place].left).sum();
                let used = weights.iter().sum::<i64>().min(left);
                for (open, part) in open.iter_mut().zip(split(used, &weights)) {
                    *open -= part;
                }
                self.take(lot, used, |_, _| true, &mut taken);
            }
        }
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

    /// Wallet by wallet what there is and what debts take of it, those that no credit covers with the last; and what is
    /// available for what `covers` says.
    pub fn position(&self, debts: &Debts, now: i64, covers: impl Fn(&Wallet) -> bool) -> (Vec<Share>, i64) {
        let mut account = self.clone();
        account.settle(now);
        let mut shares = vec![Share::default(); account.wallets.len()];
        let live = |account: &Account| -> Vec<i64> {
            let of = |wallet| account.grants.iter().filter(move |grant| grant.wallet == wallet && grant.lives(now));
            (0..account.wallets.len()).map(|wallet| of(wallet).map(|grant| grant.left).sum()).collect()
        };
        let start = live(&account);
        let used = Debts { usage: debts.usage.clone(), unpaid: 0 };
        let (_, usage_missing, _) = account.claim(&used, now);
        let after_usage = live(&account);
        let (_, _, unpaid_missing) = account.claim(&Debts { usage: Vec::new(), unpaid: debts.unpaid }, now);
        let after_unpaid = live(&account);
        let (_, held_missing) = account.set_aside(now);
        let end = live(&account);
        let last = account.ranked().into_iter().rfind(|place| !account.wallets[*place].limited);
        for (place, wallet) in account.wallets.iter().enumerate() {
            let share = &mut shares[place];
            share.balance = start[place] - wallet.owed;
            share.usage = start[place] - after_usage[place];
            share.unpaid = after_usage[place] - after_unpaid[place];
            share.held = after_unpaid[place] - end[place];
        }
        let last = &mut shares[last.expect("a wallet that pays for anything")];
        last.usage += usage_missing;
        last.unpaid += unpaid_missing;
        last.held += held_missing;
        let room = |(place, wallet): (usize, &Wallet)| {
            if covers(wallet) { end[place] - wallet.owed + wallet.limit } else { 0 }
        };
        let available: i64 = account.wallets.iter().enumerate().map(room).sum();
        (shares, available - usage_missing - unpaid_missing - held_missing)
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
