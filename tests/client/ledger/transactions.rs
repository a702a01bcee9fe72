//! What the model makes of each transaction, and that it took and gave the same.

use std::collections::BTreeMap;

use super::acts::{Act, DAY, Of, money};
use super::found::{Entries, Found, number, text};
use super::model::{Account, Debts, Grant, NEVER, Taken, Wallet};
use super::replay::Replay;
use crate::event::time;

impl Replay {
    pub(super) fn transaction(&mut self, found: &Found, customer: usize, id: i64, at: i64) {
        let row = &found.transactions[&id];
        let kind = text(row, 2);
        let what = format!("{kind} {id} of c{customer} at {}", time(at));
        let actual = found.entries.get(&id).cloned().unwrap_or_default();
        let key = row[7].clone();
        if !["recurring", "settlement", "invoice"].contains(&kind.as_str()) {
            self.is_up_to_date(customer, at, &what);
        }
        let before = self.accounts[customer].clone();
        let expected: Entries = match kind.as_str() {
            "top_up" | "grant" => {
                let (act, _, sent) = self.act(&key.expect("a key"), id);
                let Act::Credit { promotional, cents, priority, starts, ends, wallet, .. } = act.clone() else {
                    panic!("{what}: {act:?}")
                };
                let grant = self.grant(found, customer, found.grants_of[&id][0]);
                let asked = (promotional, cents, priority, ends.unwrap_or(NEVER), wallet);
                let name = self.accounts[customer].wallets[grant.wallet].name.as_str();
                assert_eq!((grant.promotional, grant.left, grant.priority, grant.ends, name), asked, "{what}");
                match starts {
                    Some(starts) => assert_eq!(grant.starts, starts, "{what}"),
                    None => assert!((sent..=at).contains(&grant.starts), "{what} begins at {}", time(grant.starts)),
                }
                let entries = self.given(customer, grant, at, false);
                if kind == "top_up" {
                    self.top_ups.insert(id, (customer, self.accounts[customer].grants.len() - 1));
                }
                entries
            }
            "recurring" => {
                let grants: Vec<i64> = found.grants_of[&id].clone();
                let of = |column: usize| number(&found.grants[&grants[0]], column);
                let place = self.rules.iter().position(|rule| rule.id == of(10)).expect("a rule");
                let rule = &mut self.rules[place];
                let starts = rule.starts + of(11) * DAY;
                assert!(of(11) == rule.given && starts <= at, "{what}: occurrence {} of rule {}", of(11), rule.id);
                rule.given += 1;
                let parts = rule.parts(starts);
                assert_eq!(grants.len(), parts.len(), "{what}");
                let mut entries = Entries::new();
                for (grant, (cents, ends, later)) in grants.into_iter().zip(parts) {
                    let grant = self.grant(found, customer, grant);
                    let rule = &self.rules[place];
                    assert_eq!(
                        (grant.left, grant.starts, grant.ends, grant.priority, grant.promotional, grant.wallet),
                        (cents, starts, ends, 50 + later, rule.promotional, rule.wallet),
                        "{what}"
                    );
                    entries.extend(self.given(customer, grant, at, true));
                }
                entries
            }
            "settlement" => {
                let paid = self.accounts[customer].settle(at);
                assert!(!paid.is_empty(), "{what}: nothing was to be paid");
                let mut entries = self.entries(customer, &paid, -1);
                for (wallet, _, cents) in &paid {
                    *entries.entry((self.accounts[customer].wallets[*wallet].id, 0)).or_default() += cents;
                }
                entries
            }
            "debit" => {
                let (act, place, _) = self.act(&key.expect("a key"), id);
                let (cents, of, force) = match act {
                    Act::Debit { cents, of, force, .. } => (*cents, *of, *force),
                    Act::Debits(debits) => (debits[place as usize].1, Of::Anything, false),
                    other => panic!("{what}: {other:?}"),
                };
                let covers = |wallet: &Wallet| match of {
                    Of::Anything => !wallet.limited,
                    Of::Api => true,
                    Of::Wallet(name) => wallet.name == name,
                };
                self.takes(customer, id, at, &actual, |replay, account, debts| {
                    if !force {
                        replay.available(customer, cents, at, debts, covers)?;
                    }
                    account.spend(cents, at, at, debts, covers, force).map_err(missing)
                })
            }
            "capture" => {
                let hold = number(row, 6);
                let cents = -number(row, 3);
                assert!(cents <= self.accounts[customer].holds[&hold].cents, "{what}");
                assert!(at < self.accounts[customer].holds[&hold].ends, "{what}: it had expired");
                self.takes(customer, id, at, &actual, |_, account, debts| {
                    account.capture(hold, cents, at, debts).map_err(missing)
                })
            }
            "transfer" => self.transfer(found, customer, id, at, &what),
            "refund" => {
                let (act, _, _) = self.act(&key.expect("a key"), id);
                let Act::Refund { transaction, cents: asked } = act else { panic!("{what}: {act:?}") };
                let (transaction, asked) = (*transaction, *asked);
                match self.top_ups.get(&transaction) {
                    Some(&(owner, place)) => {
                        let grant = &mut self.accounts[owner].grants[place];
                        let cents = asked.unwrap_or(grant.left);
                        assert!(owner == customer && cents <= grant.left, "{what}: of {}", grant.left);
                        grant.left -= cents;
                        let wallet = grant.wallet;
                        self.entries(customer, &vec![(wallet, Some(place), cents)], -1)
                    }
                    None => self.give_back(customer, transaction, asked, at),
                }
            }
            "void" | "expiry" => {
                let (act, _, _) = self.act(&key.expect("a key"), id);
                let Act::End { grant, .. } = act else { panic!("{what}: {act:?}") };
                let place = self.accounts[customer].grants.iter().position(|it| it.id == *grant).expect("a grant");
                let grant = &mut self.accounts[customer].grants[place];
                let (wallet, cents) = (grant.wallet, std::mem::take(&mut grant.left));
                self.entries(customer, &vec![(wallet, Some(place), cents)], -1)
            }
            "invoice" => {
                let invoice = self.invoices.get_mut(&number(row, 5)).expect("an invoice");
                let (taken, expected) = (invoice.taken.clone(), std::mem::take(&mut invoice.expected));
                self.taken.insert(id, (customer, taken));
                expected
            }
            "invoice_void" => {
                let invoice = self.invoices.get_mut(&number(row, 5)).expect("an invoice");
                assert_eq!(invoice.voided.replace((at, at - 1)), None, "{what}: it is void already");
                self.give_back(customer, number(row, 4), None, at)
            }
            other => panic!("{what}: {other}"),
        };
        let mut expected = expected;
        expected.retain(|_, cents| *cents != 0);
        if expected != actual {
            eprintln!("before: {:#?}\n{:#?}\nholds {:#?}", before.named(), before.grants, before.holds);
            panic!("{what}: wallet, grant and cents\n   expected {expected:?}\n   found    {actual:?}");
        }
    }

    /// New credit, and what of it its wallet owed.
    fn given(&mut self, customer: usize, grant: Grant, at: i64, of_rule: bool) -> Entries {
        let (id, cents, wallet) = (grant.id, grant.left, self.accounts[customer].wallets[grant.wallet].id);
        let paid = self.accounts[customer].add(grant, at, of_rule);
        Entries::from([((wallet, id), cents - paid), ((wallet, 0), paid)])
    }

    /// Does what takes credit, with usage that may have been there, so that it takes what it did.
    fn takes(
        &mut self,
        customer: usize,
        id: i64,
        at: i64,
        actual: &Entries,
        take: impl Fn(&Replay, &mut Account, &Debts) -> Result<Taken, String>,
    ) -> Entries {
        let (account, taken) = self.with_some(customer, at, |replay, debts| {
            let mut account = replay.accounts[customer].clone();
            let what = |error: String| format!("{id} of c{customer} at {}: {error}, {debts:?}", time(at));
            let mut merged = Taken::new();
            for (wallet, grant, cents) in take(replay, &mut account, debts).map_err(what)? {
                match merged.iter_mut().find(|(a, b, _)| (*a, *b) == (wallet, grant)) {
                    Some((.., sum)) => *sum += cents,
                    None => merged.push((wallet, grant, cents)),
                }
            }
            let expected = replay.entries(customer, &merged, -1);
            // A transfer within one customer has other entries besides.
            let taken: Entries = actual.iter().filter(|(_, cents)| **cents < 0).map(|(a, b)| (*a, *b)).collect();
            if expected == taken {
                Ok((account, merged))
            } else {
                Err(what(format!(
                    "expected {expected:?}, found {actual:?}, of {:#?}",
                    replay.accounts[customer].grants
                )))
            }
        });
        self.accounts[customer] = account;
        let entries = self.entries(customer, &taken, -1);
        self.taken.insert(id, (customer, taken));
        entries
    }

    fn give_back(&mut self, customer: usize, transaction: i64, asked: Option<i64>, at: i64) -> Entries {
        let (owner, taken) = self.taken.get_mut(&transaction).expect("a transaction that took");
        assert_eq!(*owner, customer, "whose {transaction} is");
        let left: i64 = taken.iter().map(|(.., cents)| cents).sum();
        let cents = asked.unwrap_or(left);
        assert!(0 < cents && cents <= left, "{} of {transaction} given back, of {}", money(cents), money(left));
        let before = self.accounts[customer].clone();
        let given = self.accounts[customer].give_back(taken, cents, at);
        for (wallet, grant, cents) in given {
            let place = taken.iter_mut().find(|(a, b, _)| (*a, *b) == (wallet, grant)).expect("what was taken");
            place.2 -= cents;
        }
        // With what it paid or no longer paid of an overdraft: the difference.
        let after = &self.accounts[customer];
        let mut entries = Entries::new();
        for (before, after) in before.grants.iter().zip(&after.grants) {
            entries.insert((id_of(&self.accounts[customer], after.wallet), after.id), after.left - before.left);
        }
        for (before, after) in before.wallets.iter().zip(&after.wallets) {
            entries.insert((after.id, 0), before.owed - after.owed);
        }
        entries
    }

    fn transfer(&mut self, found: &Found, customer: usize, id: i64, at: i64, what: &str) -> Entries {
        let row = &found.transactions[&id];
        let Some(key) = row[7].clone() else {
            // What another customer's wallet has sent: its other half has been looked at.
            let mut entries = Entries::new();
            for grant in found.grants_of.get(&id).cloned().unwrap_or_default() {
                let grant = self.grant(found, customer, grant);
                for (place, cents) in self.given(customer, grant, at, false) {
                    *entries.entry(place).or_default() += cents;
                }
            }
            return entries;
        };
        let (act, _, _) = self.act(&key, id);
        let Act::Transfer { from, to, cents } = *act else { panic!("{what}: {act:?}") };
        let from_place = self.wallet(customer, from);
        let actual = found.entries[&id].clone();
        let mut entries = self.takes(customer, id, at, &actual, |_, account, debts| {
            account.send(cents, at, debts, from_place).map_err(missing)
        });
        let taken = self.taken.remove(&id).expect("just taken").1;
        // What arrives is as what went.
        let lives = |account: &Account, grant: &Grant| {
            let starts = if grant.ends == NEVER { 0 } else { grant.starts };
            (account.grants.len(), starts, grant.ends, grant.priority, grant.promotional).to_owned()
        };
        let mut went: BTreeMap<_, i64> = BTreeMap::new();
        for (_, grant, cents) in &taken {
            let account = &self.accounts[customer];
            let (_, starts, ends, priority, promotional) = lives(account, &account.grants[grant.expect("no loan")]);
            *went.entry((starts, ends, priority, promotional)).or_default() += cents;
        }
        let half = |it: &&i64| {
            let half = &found.transactions[*it];
            text(half, 2) == "transfer" && half[7].is_none() && number(half, 8) == at
        };
        let received = if found.grants_of.contains_key(&id) {
            id
        } else {
            *found.transactions.range(id + 1..).map(|(id, _)| id).find(half).expect("the other half")
        };
        let other = number(&found.transactions[&received], 1) as usize;
        let mut came: BTreeMap<_, i64> = BTreeMap::new();
        for grant in &found.grants_of[&received] {
            let grant = self.grant(found, other, *grant);
            assert_eq!(self.accounts[other].wallets[grant.wallet].id, to, "{what}");
            let (_, starts, ends, priority, promotional) = lives(&self.accounts[other], &grant);
            *came.entry((starts, ends, priority, promotional)).or_default() += grant.left;
        }
        assert_eq!(went, came, "{what}");
        if received == id {
            for grant in found.grants_of[&id].clone() {
                let grant = self.grant(found, customer, grant);
                for (place, cents) in self.given(customer, grant, at, false) {
                    *entries.entry(place).or_default() += cents;
                }
            }
        }
        entries
    }
}

fn missing(cents: i64) -> String {
    format!("{} was not there", money(cents))
}

fn id_of(account: &Account, wallet: usize) -> i64 {
    account.wallets[wallet].id
}
