//! What has been acknowledged, done again with the model in the order in which it was committed: every transaction took
//! and gave, grant by grant, what the model does at that time, and was allowed; every act is there once, nothing else is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postgres::Client;

use super::acts::{API_PRICE, Act, CUSTOMERS, DAY, Done, IMG_PRICE, Of, TOKEN, Usage, is_forced, money};
use super::model::{Account, Charge, Grant, Hold, NEVER, Share, Taken, Wallet};
use crate::event::time;
use crate::rng::Rng;
use crate::server::{one, rows};

type Fields = Vec<Option<String>>;
/// Cents by wallet and grant (0: lent), as entries have them.
type Entries = BTreeMap<(i64, i64), i64>;

pub struct Replay {
    accounts: Vec<Account>,
    rules: Vec<Rule>,
    started: i64,
    used: Vec<(Usage, i64)>,
    done: HashMap<String, Done>,
    invoices: BTreeMap<i64, Invoice>,
    /// By transaction: whose, and what it took and has not given back.
    taken: BTreeMap<i64, (usize, Taken)>,
    /// The grant of a top-up.
    top_ups: BTreeMap<i64, (usize, usize)>,
    seen: BTreeSet<(u8, i64)>,
    /// The time of a customer's last event, and states to ask for again.
    last: Vec<i64>,
    past: Vec<(usize, i64, Account)>,
    rng: Rng,
}

struct Rule {
    id: i64,
    customer: usize,
    wallet: usize,
    cents: i64,
    promotional: bool,
    starts: i64,
    least: i64,
    most: Option<i64>,
    given: i64,
}

struct Invoice {
    customer: usize,
    due: i64,
    /// Meter, day, cents.
    lines: Vec<(bool, i64, i64)>,
    expected: Entries,
    taken: Taken,
    live: bool,
    created: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Held(i64),
    Invoiced(i64),
    Transaction(i64),
    Closed(i64),
    Voided(i64),
}

fn micros(column: &str) -> String {
    format!("CASE WHEN isfinite({column}) THEN (extract(epoch FROM {column}) * 1000000)::bigint ELSE {NEVER} END")
}

fn cents(column: &str, unit: &str) -> String {
    format!("trim_scale({column} * CASE WHEN {unit} IS NULL THEN 100 ELSE {TOKEN} END)")
}

fn number(row: &Fields, column: usize) -> i64 {
    let text = row[column].as_deref().unwrap_or("0");
    text.parse().unwrap_or_else(|_| panic!("{text} is no whole number, in {row:?}"))
}

fn text(row: &Fields, column: usize) -> String {
    row[column].clone().unwrap_or_default()
}

/// The rows of a table by the number in their first column.
fn by_id(client: &mut Client, sql: &str) -> BTreeMap<i64, Fields> {
    rows(client, sql).into_iter().map(|row| (number(&row, 0), row)).collect()
}

struct Found {
    transactions: BTreeMap<i64, Fields>,
    entries: HashMap<i64, Entries>,
    grants: BTreeMap<i64, Fields>,
    grants_of: HashMap<i64, Vec<i64>>,
    holds: BTreeMap<i64, Fields>,
    invoices: BTreeMap<i64, Fields>,
    lines: HashMap<i64, Vec<Fields>>,
}

impl Found {
    fn read(client: &mut Client) -> Found {
        let transactions = by_id(
            client,
            &format!(
                "SELECT id, substr(customer_id, 2), kind, {}, reverses, invoice_id, hold_id, idempotency_key, {} FROM meterflow.wallet_transactions",
                cents("amount", "NULL"),
                micros("created_at")
            ),
        );
        let mut entries: HashMap<i64, Entries> = HashMap::new();
        for row in rows(
            client,
            &format!(
                "SELECT e.transaction_id, e.wallet_id, coalesce(e.grant_id, 0), {}, {} FROM meterflow.ledger_entries e JOIN meterflow.wallets w ON w.id = e.wallet_id",
                cents("e.amount", "w.credit_unit"),
                cents("e.worth", "NULL")
            ),
        ) {
            assert_eq!(number(&row, 3), number(&row, 4), "an entry is worth something else: {row:?}");
            let place = (number(&row, 1), number(&row, 2));
            *entries.entry(number(&row, 0)).or_default().entry(place).or_default() += number(&row, 3);
        }
        for of_one in entries.values_mut() {
            of_one.retain(|_, cents| *cents != 0);
        }
        let grants = by_id(
            client,
            &format!(
                "SELECT g.id, g.wallet_id, g.transaction_id, g.kind, {}, g.priority, {}, {}, {}, {}, g.recurring_id, g.occurrence, g.lasting
                   FROM meterflow.credit_grants g JOIN meterflow.wallets w ON w.id = g.wallet_id",
                cents("g.amount", "w.credit_unit"),
                micros("g.effective_at"),
                micros("g.expires_at"),
                micros("g.created_at"),
                cents("g.remaining", "w.credit_unit"),
            ),
        );
        let mut grants_of: HashMap<i64, Vec<i64>> = HashMap::new();
        for (id, row) in &grants {
            grants_of.entry(number(row, 2)).or_default().push(*id);
        }
        let holds = by_id(
            client,
            &format!(
                "SELECT id, substr(customer_id, 2), {}, meter_key, {}, status, {}, transaction_id, {}, idempotency_key, {} FROM meterflow.holds",
                cents("amount", "NULL"),
                micros("expires_at"),
                cents("captured", "NULL"),
                micros("closed_at"),
                micros("created_at")
            ),
        );
        let invoices = by_id(
            client,
            &format!(
                "SELECT id, substr(customer_id, 2), status, {}, {}, {}, {} FROM meterflow.invoices",
                cents("amount_due", "NULL"),
                micros("created_at"),
                micros("issued_at"),
                micros("voided_at")
            ),
        );
        let mut lines: HashMap<i64, Vec<Fields>> = HashMap::new();
        for row in rows(
            client,
            &format!(
                "SELECT invoice_id, meter_key, {}, {} FROM meterflow.invoice_lines ORDER BY invoice_id, line",
                cents("amount", "NULL"),
                micros("cycle_end")
            ),
        ) {
            lines.entry(number(&row, 0)).or_default().push(row);
        }
        Found { transactions, entries, grants, grants_of, holds, invoices, lines }
    }
}

impl Replay {
    pub fn new(client: &mut Client, seed: u64, started: i64) -> Replay {
        let mut replay = Replay {
            accounts: vec![Account::default(); CUSTOMERS],
            rules: Vec::new(),
            started,
            used: Vec::new(),
            done: HashMap::new(),
            invoices: BTreeMap::new(),
            taken: BTreeMap::new(),
            top_ups: BTreeMap::new(),
            seen: BTreeSet::new(),
            last: vec![0; CUSTOMERS],
            past: Vec::new(),
            rng: Rng::new(seed, 77),
        };
        replay.wallets(client);
        for row in rows(
            client,
            &format!(
                "SELECT r.id, substr(w.customer_id, 2), w.id, {}, r.kind = 'promotional', {}, {}, {} FROM meterflow.recurring_grants r JOIN meterflow.wallets w ON w.id = r.wallet_id ORDER BY r.id",
                cents("r.amount", "NULL"),
                micros("r.starts_at"),
                cents("r.rollover_min", "NULL"),
                cents("r.rollover_max", "NULL")
            ),
        ) {
            let customer = number(&row, 1) as usize;
            replay.rules.push(Rule {
                id: number(&row, 0),
                customer,
                wallet: replay.wallet(customer, number(&row, 2)),
                cents: number(&row, 3),
                promotional: text(&row, 4) == "t",
                starts: number(&row, 5),
                least: number(&row, 6),
                most: row[7].is_some().then(|| number(&row, 7)),
                given: 0,
            });
        }
        replay
    }

    fn wallet(&self, customer: usize, id: i64) -> usize {
        let found = self.accounts[customer].wallets.iter().position(|wallet| wallet.id == id);
        found.unwrap_or_else(|| panic!("c{customer} has no wallet {id}"))
    }

    /// Wallets that top-ups have made come to those there were.
    fn wallets(&mut self, client: &mut Client) {
        for row in rows(
            client,
            "SELECT id, substr(customer_id, 2), name, priority, cardinality(meters) > 0, (coalesce(credit_limit, 0) * 100)::bigint
               FROM meterflow.wallets ORDER BY id",
        ) {
            let account = &mut self.accounts[number(&row, 1) as usize];
            if account.wallets.iter().all(|wallet| wallet.id != number(&row, 0)) {
                account.wallets.push(Wallet {
                    id: number(&row, 0),
                    name: text(&row, 2),
                    priority: number(&row, 3),
                    limited: text(&row, 4) == "t",
                    limit: number(&row, 5),
                    owed: 0,
                    owes_since: i64::MIN,
                });
            }
        }
    }

    /// Goes on from where it was, with what sessions have done since.
    pub fn go_on(&mut self, client: &mut Client, done: Vec<Done>) {
        for done in done {
            let of = |usage: &Vec<Usage>| usage.clone().into_iter().map(|it| (it, done.acknowledged));
            match &done.act {
                Act::Use(usage) => self.used.extend(of(usage)),
                Act::CaptureUsage { usage, .. } if done.came_of_it[0].is_ok() => self.used.extend(of(usage)),
                _ => {}
            }
            self.done.insert(done.key.clone(), done);
        }
        self.wallets(client);
        let found = Found::read(client);
        let mut events = Vec::new();
        for (id, row) in &found.transactions {
            events.push((number(row, 8), 1, *id, Event::Transaction(*id)));
        }
        for (id, row) in &found.holds {
            // What was written down before it is of the same moment.
            events.push((number(row, 10), 2, *id, Event::Held(*id)));
            let closed = text(row, 5);
            if (closed == "captured" || closed == "released") && row[7].is_none() {
                events.push((number(row, 8), 2, *id, Event::Closed(*id)));
            }
        }
        for (id, row) in &found.invoices {
            assert_ne!(text(row, 2), "draft", "invoice {id}");
            events.push((number(row, 4), 0, *id, Event::Invoiced(*id)));
            let by_wallet = found.transactions.values().any(|it| text(it, 2) == "invoice_void" && number(it, 5) == *id);
            if text(row, 2) == "void" && !by_wallet {
                events.push((number(row, 6), 2, *id, Event::Voided(*id)));
            }
        }
        events.sort_unstable();
        for (at, _, id, event) in events {
            let kind = match event {
                Event::Held(_) => 0,
                Event::Invoiced(_) => 1,
                Event::Transaction(_) => 2,
                Event::Closed(_) => 3,
                Event::Voided(_) => 4,
            };
            if self.seen.insert((kind, id)) {
                self.step(&found, at, event);
            }
        }
        self.every_act_once(&found);
        self.grants_are_equal(&found);
    }

    fn step(&mut self, found: &Found, at: i64, event: Event) {
        let customer = match event {
            Event::Transaction(id) => number(&found.transactions[&id], 1),
            Event::Held(id) | Event::Closed(id) => number(&found.holds[&id], 1),
            Event::Invoiced(id) | Event::Voided(id) => number(&found.invoices[&id], 1),
        } as usize;
        if at > self.last[customer] {
            // Not between an invoice and its payment.
            let paying = |invoice: &Invoice| invoice.customer == customer && !invoice.expected.is_empty();
            if self.last[customer] > 0 && self.rng.chance(3) && !self.invoices.values().any(paying) {
                self.past.push((customer, self.last[customer], self.accounts[customer].clone()));
            }
            self.last[customer] = at;
        }
        match event {
            Event::Transaction(id) => self.transaction(found, customer, id, at),
            Event::Held(id) => self.held(found, customer, id, at),
            Event::Closed(id) => {
                self.accounts[customer].holds.remove(&id).expect("a hold is closed once");
            }
            Event::Invoiced(id) => self.invoiced(found, customer, id, at),
            Event::Voided(id) => {
                let invoice = self.invoices.get_mut(&id).expect("a void invoice that was made");
                assert!(invoice.taken.is_empty(), "invoice {id} is void and gave nothing back");
                invoice.live = false;
            }
        }
        for wallet in &self.accounts[customer].wallets {
            assert!(
                wallet.owed <= wallet.limit || is_forced(customer),
                "{event:?} of c{customer} at {}: wallet {} owes {}",
                time(at),
                wallet.name,
                wallet.owed
            );
        }
    }

    /// All that had begun by then was written down before.
    fn is_up_to_date(&self, customer: usize, at: i64, what: &str) {
        let account = &self.accounts[customer];
        for rule in self.rules.iter().filter(|rule| rule.customer == customer) {
            let starts = rule.starts + rule.given * DAY;
            assert!(starts > at || starts + DAY <= at, "{what}: rule {} was due at {}", rule.id, time(starts));
        }
        let paid = account.clone().settle(at);
        assert!(paid.is_empty(), "{what}: {paid:?} was to be paid\n{:?}\n{:#?}", account.named(), account.grants);
    }

    fn grant(&self, found: &Found, customer: usize, id: i64) -> Grant {
        let row = &found.grants[&id];
        Grant {
            id,
            wallet: self.wallet(customer, number(row, 1)),
            priority: number(row, 5),
            promotional: text(row, 3) == "promotional",
            starts: number(row, 6),
            ends: number(row, 7),
            created: number(row, 8),
            left: number(row, 4),
            paid: 0,
        }
    }

    /// The act that has this key, which must have been acknowledged with this id.
    fn act(&self, key: &str, id: i64) -> (&Act, i64, i64) {
        let (act, place) = match key.rsplit_once('/') {
            Some((batch, place)) if self.done.get(batch).is_some_and(|done| matches!(done.act, Act::Debits(_))) => {
                (batch, place.parse().expect("a place"))
            }
            _ => (key, 0),
        };
        let done = self.done.get(act).unwrap_or_else(|| panic!("nobody has sent {key}"));
        // grant_credit() returns its grant.
        if !matches!(done.act, Act::Credit { promotional: true, .. }) {
            assert_eq!(done.came_of_it[place], Ok(id), "{key}: {:?}", done.act);
        }
        (&done.act, place as i64, done.sent)
    }

    fn entries(&self, customer: usize, taken: &Taken, sign: i64) -> Entries {
        let account = &self.accounts[customer];
        let mut entries = Entries::new();
        for (wallet, grant, cents) in taken {
            let place = (account.wallets[*wallet].id, grant.map_or(0, |place| account.grants[place].id));
            *entries.entry(place).or_default() += sign * cents;
        }
        entries
    }

    fn transaction(&mut self, found: &Found, customer: usize, id: i64, at: i64) {
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
                self.must_be_available(customer, cents, at, covers, force, &what);
                let taken = self.accounts[customer].spend(cents, at, at, covers, force);
                self.took(customer, id, taken, &what)
            }
            "capture" => {
                let hold = number(row, 6);
                let cents = -number(row, 3);
                assert!(cents <= self.accounts[customer].holds[&hold].cents, "{what}");
                assert!(at < self.accounts[customer].holds[&hold].ends, "{what}: it had expired");
                let taken = self.accounts[customer].capture(hold, cents, at);
                self.took(customer, id, taken, &what)
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
                assert!(std::mem::take(&mut invoice.live), "{what}: it is void already");
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

    fn took(&mut self, customer: usize, id: i64, taken: Result<Taken, i64>, what: &str) -> Entries {
        let taken = taken.unwrap_or_else(|missing| panic!("{what}: {} was not there", money(missing)));
        let mut merged = Taken::new();
        for (wallet, grant, cents) in taken {
            match merged.iter_mut().find(|(a, b, _)| (*a, *b) == (wallet, grant)) {
                Some((.., sum)) => *sum += cents,
                None => merged.push((wallet, grant, cents)),
            }
        }
        let entries = self.entries(customer, &merged, -1);
        self.taken.insert(id, (customer, merged));
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
        let covers = |wallet: &Wallet| wallet.id == from;
        self.must_be_available(customer, cents, at, covers, false, what);
        let mut spare = self.accounts[customer].clone();
        let from_place = self.wallet(customer, from);
        // It moves what is there, and never lends.
        spare.wallets[from_place].limit = spare.wallets[from_place].owed;
        let taken = spare.spend(cents, at, at, covers, false);
        spare.wallets[from_place].limit = self.accounts[customer].wallets[from_place].limit;
        let taken = taken.unwrap_or_else(|missing| panic!("{what}: {} was not there", money(missing)));
        self.accounts[customer] = spare;
        let mut entries = self.entries(customer, &taken, -1);
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

    fn held(&mut self, found: &Found, customer: usize, id: i64, at: i64) {
        let row = &found.holds[&id];
        let what = format!("hold {id} of c{customer} at {}", time(at));
        let (act, _, _) = self.act(&text(row, 9), id);
        let (cents, api, millis) = match act {
            Act::Hold { cents, api, millis, .. } => (*cents, *api, *millis),
            Act::HoldUsage { quantity, millis, .. } => (quantity * API_PRICE, true, *millis),
            other => panic!("{what}: {other:?}"),
        };
        let hold = Hold { cents, for_api: api, made: at, ends: at + millis * 1000 };
        assert_eq!((number(row, 2), number(row, 4)), (cents, hold.ends), "{what}");
        self.is_up_to_date(customer, at, &what);
        self.must_be_available(customer, cents, at, |wallet| api || !wallet.limited, false, &what);
        self.accounts[customer].holds.insert(id, hold);
    }

    fn invoiced(&mut self, found: &Found, customer: usize, id: i64, at: i64) {
        let row = &found.invoices[&id];
        let what = format!("invoice {id} of c{customer} at {}", time(at));
        let issued = number(row, 5);
        let (mut charges, mut lines) = (Vec::new(), Vec::new());
        for line in found.lines.get(&id).into_iter().flatten() {
            let (api, cents) = (line[1].as_deref() == Some("api"), number(line, 2));
            let charge_at = if line[1].is_some() { issued.min(number(line, 3) - 1) } else { issued };
            charges.push(Charge { cents, at: charge_at, api });
            if line[1].is_some() {
                lines.push((api, (number(line, 3) - self.started) / DAY - 1, cents));
            }
        }
        self.is_up_to_date(customer, issued, &what);
        let (taken, due) = self.accounts[customer].pay(&charges, issued, true);
        assert_eq!(number(row, 3), due, "{what}: what is due of {charges:?}");
        let expected = self.entries(customer, &taken, -1);
        if taken.is_empty() {
            let paid = found.transactions.values().find(|it| text(it, 2) == "invoice" && number(it, 5) == id);
            assert!(paid.is_none(), "{what}: {paid:?}");
        }
        self.invoices.insert(id, Invoice { customer, due, lines, expected, taken, live: true, created: at });
    }

    /// Usage that nobody has billed, by what was acknowledged by then: others may have been there, too.
    fn open(&self, customer: usize, at: i64) -> Vec<Charge> {
        let mut cells: BTreeMap<(i64, bool), i64> = BTreeMap::new();
        for (usage, acknowledged) in self.used.iter().filter(|(usage, _)| usage.customer == customer) {
            if *acknowledged < at {
                let price = if usage.api { API_PRICE } else { IMG_PRICE };
                *cells.entry(((usage.at - self.started) / DAY, !usage.api)).or_default() += usage.quantity * price;
            }
        }
        for invoice in self.invoices.values().filter(|it| it.live && it.customer == customer && it.created <= at) {
            for (api, day, cents) in &invoice.lines {
                *cells.entry((*day, !*api)).or_default() -= cents;
            }
        }
        let charge = |((day, image), cents): ((i64, bool), i64)| Charge {
            cents: cents.max(0),
            at: at.min(self.started + (day + 1) * DAY - 1),
            api: !image,
        };
        cells.into_iter().map(charge).filter(|charge| charge.cents > 0).collect()
    }

    fn unpaid(&self, customer: usize, at: i64) -> i64 {
        let live = self.invoices.values().filter(|it| it.live && it.customer == customer && it.created <= at);
        live.map(|invoice| invoice.due).sum()
    }

    fn must_be_available(
        &self,
        customer: usize,
        cents: i64,
        at: i64,
        covers: impl Fn(&Wallet) -> bool,
        force: bool,
        what: &str,
    ) {
        if !force {
            let (open, unpaid) = (self.open(customer, at), self.unpaid(customer, at));
            let (_, available) = self.accounts[customer].position(&open, unpaid, at, covers);
            assert!(cents <= available, "{what}: {} given, {} were there", money(cents), available);
        }
    }

    fn every_act_once(&self, found: &Found) {
        let mut keys: BTreeSet<String> = found.transactions.values().filter_map(|row| row[7].clone()).collect();
        keys.extend(found.holds.values().map(|row| text(row, 9)));
        for done in self.done.values() {
            let known = |key: &str| keys.contains(key);
            match &done.act {
                Act::Debits(debits) => {
                    assert_eq!(done.came_of_it.len(), debits.len(), "{}", done.key);
                    for (place, came_of_it) in done.came_of_it.iter().enumerate() {
                        assert_eq!(known(&format!("{}/{place}", done.key)), came_of_it.is_ok(), "{} {place}", done.key);
                    }
                }
                Act::Credit { .. }
                | Act::Debit { .. }
                | Act::Hold { .. }
                | Act::HoldUsage { .. }
                | Act::Transfer { .. }
                | Act::Refund { .. }
                | Act::End { .. } => assert_eq!(known(&done.key), done.came_of_it[0].is_ok(), "{done:?}"),
                Act::Capture { hold, cents } if done.came_of_it[0].is_ok() => {
                    let row = &found.holds[hold];
                    let wanted = cents.unwrap_or_else(|| number(row, 2));
                    assert_eq!((text(row, 5).as_str(), number(row, 6)), ("captured", wanted), "{done:?}");
                }
                Act::CaptureUsage { hold, .. } if done.came_of_it[0].is_ok() => {
                    let row = &found.holds[hold];
                    assert_eq!((text(row, 5).as_str(), number(row, 6)), ("captured", 0), "{done:?}");
                }
                Act::Release { hold } if done.came_of_it[0].is_ok() => {
                    assert_eq!(text(&found.holds[hold], 5), "released", "{done:?}");
                }
                Act::Void { invoice } if done.came_of_it[0].is_ok() => {
                    assert_eq!(text(&found.invoices[invoice], 2), "void", "{done:?}");
                }
                Act::Bill => {
                    for code in done.came_of_it.iter().filter_map(|it| it.as_ref().err()) {
                        assert!(["nothing to charge"].contains(&code.as_str()), "{done:?}");
                    }
                }
                _ => {}
            }
        }
    }

    /// What is left of each grant, and what each wallet owes.
    fn grants_are_equal(&self, found: &Found) {
        let mut known = 0;
        for account in &self.accounts {
            for grant in &account.grants {
                assert_eq!(number(&found.grants[&grant.id], 9), grant.left, "what is left of {grant:?}");
                known += 1;
            }
        }
        assert_eq!(known, found.grants.len(), "grants that the model does not know");
    }

    /// What wallet_balance() says of every wallet is what the model says at that time.
    pub fn balances_are_equal(&self, client: &mut Client) {
        for customer in 0..CUSTOMERS {
            let sql = format!(
                "SELECT {}, wallet_id, (balance * 100)::bigint, (open_usage * 100)::bigint, (unpaid * 100)::bigint, (held * 100)::bigint, (available * 100)::bigint
                   FROM meterflow.wallet_balance('c{customer}', 'USD')",
                micros("as_of")
            );
            let found = rows(client, &sql);
            let at = number(&found[0], 0);
            let mut account = self.accounts[customer].clone();
            for rule in self.rules.iter().filter(|rule| rule.customer == customer) {
                rule.give(&mut account, at);
            }
            let (open, unpaid) = (self.open(customer, at), self.unpaid(customer, at));
            let (shares, _) = account.position(&open, unpaid, at, |_| true);
            assert_eq!(found.len(), account.wallets.len());
            for row in found {
                let place = self.wallet(customer, number(&row, 1));
                let share = Share {
                    balance: number(&row, 2),
                    usage: number(&row, 3),
                    unpaid: number(&row, 4),
                    held: number(&row, 5),
                };
                let what = format!("c{customer}, wallet {} at {}", account.wallets[place].name, time(at));
                assert_eq!(share, shares[place], "{what}");
                let Share { balance, usage, unpaid, held } = share;
                let available = balance - usage - unpaid - held + account.wallets[place].limit;
                assert_eq!(number(&row, 6), available, "{what}: available");
            }
        }
    }

    /// What was so at moments of the past, by what was known then.
    pub fn past_is_as_it_was(&self, client: &mut Client) {
        assert!(self.past.len() > 5, "{} moments of the past are no test", self.past.len());
        for (customer, at, account) in &self.past {
            let moment = format!("timestamptz 'epoch' + {at} * interval '1 microsecond'");
            let found = rows(
                client,
                &format!(
                    "SELECT b.wallet_id, coalesce(b.grant_id, 0), {} FROM meterflow.ledger_balance('c{customer}', 'USD', {moment}, {moment}) b JOIN meterflow.wallets w ON w.id = b.wallet_id",
                    cents("b.remaining", "w.credit_unit")
                ),
            );
            let mut found: Entries =
                found.iter().map(|row| ((number(row, 0), number(row, 1)), number(row, 2))).collect();
            found.retain(|_, cents| *cents != 0);
            let mut expected: Entries = account
                .grants
                .iter()
                .filter(|grant| grant.starts <= *at)
                .map(|grant| ((account.wallets[grant.wallet].id, grant.id), grant.left))
                .collect();
            expected.extend(account.wallets.iter().map(|wallet| ((wallet.id, 0), -wallet.owed)));
            expected.retain(|_, cents| *cents != 0);
            assert_eq!(found, expected, "c{customer} at {}", time(*at));
        }
    }

    /// To the cent: all that is available can be held, and no more.
    pub fn limits_are_exact(&self, client: &mut Client, round: u64) {
        for customer in (0..CUSTOMERS).filter(|customer| !self.rules.iter().any(|rule| rule.customer == *customer)) {
            let available = || {
                format!(
                    "SELECT (sum(available) * 100)::bigint FROM meterflow.wallet_balance('c{customer}', 'USD') b JOIN meterflow.wallets w ON w.id = b.wallet_id WHERE w.meters = '{{}}'"
                )
            };
            let there: i64 = one(client, &available()).parse().expect("a number");
            let hold = |cents: i64| {
                format!(
                    "SELECT meterflow.hold('c{customer}', {}, 'USD', '1 minute', 'probe {customer} {round}')",
                    money(cents)
                )
            };
            // Something may expire in between: then it is for the next time.
            let refused = crate::server::try_rows(client, &hold(there.max(0) + 1)).expect_err("more than there is");
            assert_eq!(refused.code().map(|code| code.code()), Some("53400"));
            let mut transaction = client.transaction().expect("a session");
            if there > 0
                && let Err(error) = transaction.simple_query(&hold(there))
            {
                drop(transaction);
                let now: i64 = one(client, &available()).parse().expect("a number");
                assert!(now < there, "c{customer}: {} are available: {}", money(there), crate::server::shown(&error));
            }
        }
    }

    pub fn said(&self) -> String {
        let grants: usize = self.accounts.iter().map(|account| account.grants.len()).sum();
        let refused = self.done.values().filter(|done| done.came_of_it.iter().any(Result::is_err)).count();
        format!(
            "{} acts, {refused} of them refused, {grants} grants, {} invoices, {} states of the past",
            self.done.len(),
            self.invoices.len(),
            self.past.len()
        )
    }
}

fn id_of(account: &Account, wallet: usize) -> i64 {
    account.wallets[wallet].id
}

impl Rule {
    /// Cents, end and how much later it burns. What rolls over lives as many periods longer as hold so much.
    fn parts(&self, starts: i64) -> Vec<(i64, i64, i64)> {
        let mut parts = match self.most {
            None => vec![(self.cents, NEVER, 0)],
            Some(most) => {
                let (whole, longer) = ((most - self.least) / self.cents, (most - self.least) % self.cents);
                let end = |periods: i64| starts + (periods + 1) * DAY;
                vec![(self.cents - longer, end(whole), 0), (longer, end(whole + 1), 0)]
            }
        };
        parts.push((self.least, starts + DAY, 1));
        parts.retain(|(cents, ..)| *cents > 0);
        parts
    }

    /// What has begun by then and nobody has written down.
    fn give(&self, account: &mut Account, at: i64) {
        let mut number = self.given;
        while self.starts + number * DAY <= at {
            let starts = self.starts + number * DAY;
            for (cents, ends, later) in self.parts(starts) {
                account.grants.push(Grant {
                    id: NEVER,
                    wallet: self.wallet,
                    priority: 50 + later,
                    promotional: self.promotional,
                    starts,
                    ends,
                    created: starts,
                    left: cents,
                    paid: 0,
                });
            }
            number += 1;
        }
    }
}

impl Account {
    /// For a look.
    fn named(&self) -> Vec<(i64, &str, i64)> {
        self.wallets.iter().map(|wallet| (wallet.id, wallet.name.as_str(), wallet.owed)).collect()
    }
}
