//! What has been acknowledged, done again with the model in the order in which it was committed: every transaction took
//! and gave, grant by grant, what the model does at that time, and was allowed; every act is there once, nothing else is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postgres::Client;

use super::acts::{API_PRICE, Act, CUSTOMERS, DAY, Done, IMG_PRICE, Usage, is_forced, money};
use super::found::{Entries, Found, cents, micros, number, text};
use super::model::{Account, Charge, Debts, Grant, Hold, NEVER, Taken, Wallet};
use crate::event::time;
use crate::rng::Rng;
use crate::server::rows;

pub struct Replay {
    pub(super) accounts: Vec<Account>,
    pub(super) rules: Vec<Rule>,
    pub(super) started: i64,
    pub(super) used: Vec<Used>,
    pub(super) done: HashMap<String, Done>,
    pub(super) invoices: BTreeMap<i64, Invoice>,
    /// By transaction: whose, and what it took and has not given back.
    pub(super) taken: BTreeMap<i64, (usize, Taken)>,
    /// The grant of a top-up.
    pub(super) top_ups: BTreeMap<i64, (usize, usize)>,
    pub(super) seen: BTreeSet<(u8, i64)>,
    /// The time of a customer's last event, and states to ask for again.
    pub(super) last: Vec<i64>,
    pub(super) past: Vec<(usize, i64, Account)>,
    pub(super) rng: Rng,
}

/// Usage that was sent at once.
pub(super) struct Used {
    usage: Vec<Usage>,
    /// By customer: nobody saw it before the one, and everybody after the other.
    between: Vec<(i64, i64)>,
}

/// Longest time from when an act reads the clock until it has looked: it may see what was sent after that.
const LOOKS: i64 = 50_000;

/// What may have been there or not.
#[derive(Clone, Copy, PartialEq)]
enum Doubt {
    Used(usize),
    Voided(i64),
}

pub(super) struct Rule {
    pub(super) id: i64,
    pub(super) customer: usize,
    pub(super) wallet: usize,
    pub(super) cents: i64,
    pub(super) promotional: bool,
    pub(super) starts: i64,
    pub(super) least: i64,
    pub(super) most: Option<i64>,
    pub(super) given: i64,
}

pub(super) struct Invoice {
    pub(super) customer: usize,
    pub(super) due: i64,
    /// Meter, day, cents.
    pub(super) lines: Vec<(bool, i64, i64)>,
    pub(super) expected: Entries,
    pub(super) taken: Taken,
    /// When it was voided: nobody saw that before the one, and everybody after the other.
    pub(super) voided: Option<(i64, i64)>,
    pub(super) created: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Held(i64),
    Invoiced(i64),
    Transaction(i64),
    Closed(i64),
    Voided(i64),
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

    pub(super) fn wallet(&self, customer: usize, id: i64) -> usize {
        let found = self.accounts[customer].wallets.iter().position(|wallet| wallet.id == id);
        found.unwrap_or_else(|| panic!("c{customer} has no wallet {id}"))
    }

    /// Wallets that top-ups have made come to those there were.
    fn wallets(&mut self, client: &mut Client) {
        for row in rows(
            client,
            "SELECT id, substr(customer_id, 2), name, priority, cardinality(meters) > 0, (coalesce(credit_limit, 0) * 100)::bigint, credit_unit IS NOT NULL
               FROM meterflow.wallets ORDER BY id",
        ) {
            let account = &mut self.accounts[number(&row, 1) as usize];
            if account.wallets.iter().all(|wallet| wallet.id != number(&row, 0)) {
                account.wallets.push(Wallet {
                    id: number(&row, 0),
                    name: text(&row, 2),
                    priority: number(&row, 3),
                    limited: text(&row, 4) == "t",
                    units: text(&row, 6) == "t",
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
            let usage = match &done.act {
                Act::Use(usage) => usage.clone(),
                Act::CaptureUsage { usage, .. } if done.came_of_it[0].is_ok() => usage.clone(),
                _ => Vec::new(),
            };
            if !usage.is_empty() {
                self.used.push(Used { usage, between: vec![(done.sent - LOOKS, done.acknowledged); CUSTOMERS] });
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
                // It took no lock that others would have waited for.
                let voids =
                    self.done.values().filter(|done| matches!(done.act, Act::Void { invoice } if invoice == id));
                let acknowledged = voids.filter(|done| done.came_of_it[0].is_ok()).map(|done| done.acknowledged).min();
                let invoice = self.invoices.get_mut(&id).expect("a void invoice that was made");
                assert!(invoice.taken.is_empty(), "invoice {id} is void and gave nothing back");
                invoice.voided = Some((at, acknowledged.expect("somebody voided it")));
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
    pub(super) fn is_up_to_date(&self, customer: usize, at: i64, what: &str) {
        let account = &self.accounts[customer];
        for rule in self.rules.iter().filter(|rule| rule.customer == customer) {
            let starts = rule.starts + rule.given * DAY;
            assert!(starts > at || starts + DAY <= at, "{what}: rule {} was due at {}", rule.id, time(starts));
        }
        let paid = account.clone().settle(at);
        assert!(paid.is_empty(), "{what}: {paid:?} was to be paid\n{:?}\n{:#?}", account.named(), account.grants);
    }

    pub(super) fn grant(&self, found: &Found, customer: usize, id: i64) -> Grant {
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
    pub(super) fn act(&self, key: &str, id: i64) -> (&Act, i64, i64) {
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

    pub(super) fn entries(&self, customer: usize, taken: &Taken, sign: i64) -> Entries {
        let account = &self.accounts[customer];
        let mut entries = Entries::new();
        for (wallet, grant, cents) in taken {
            let place = (account.wallets[*wallet].id, grant.map_or(0, |place| account.grants[place].id));
            *entries.entry(place).or_default() += sign * cents;
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
        let covers = |wallet: &Wallet| api || !wallet.limited;
        self.with_some(customer, at, |replay, debts| {
            replay.available(customer, cents, at, debts, covers).map_err(|error| format!("{what}: {error}"))
        });
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
        self.invoices.insert(id, Invoice { customer, due, lines, expected, taken, voided: None, created: at });
    }

    /// What was owed, with all that had been acknowledged, and what is `said` to have been done as well.
    fn debts_with(&self, customer: usize, at: i64, said: &[Doubt]) -> Debts {
        let mut cells: BTreeMap<(i64, bool), i64> = BTreeMap::new();
        for (place, used) in self.used.iter().enumerate() {
            if used.between[customer].1 < at || said.contains(&Doubt::Used(place)) {
                for usage in used.usage.iter().filter(|usage| usage.customer == customer) {
                    let price = if usage.api { API_PRICE } else { IMG_PRICE };
                    *cells.entry(((usage.at - self.started) / DAY, !usage.api)).or_default() += usage.quantity * price;
                }
            }
        }
        let is_void = |id: i64, invoice: &Invoice| {
            invoice.voided.is_some_and(|(_, not_after)| not_after < at) || said.contains(&Doubt::Voided(id))
        };
        let mut unpaid = 0;
        for (id, invoice) in self.invoices.iter().filter(|(_, it)| it.customer == customer && it.created <= at) {
            if !is_void(*id, invoice) {
                unpaid += invoice.due;
                for (api, day, cents) in &invoice.lines {
                    *cells.entry((*day, !*api)).or_default() -= cents;
                }
            }
        }
        let charge = |((day, image), cents): ((i64, bool), i64)| Charge {
            cents: cents.max(0),
            at: at.min(self.started + (day + 1) * DAY - 1),
            api: !image,
        };
        Debts { open: cells.into_iter().map(charge).filter(|charge| charge.cents > 0).collect(), unpaid }
    }

    pub(super) fn debts(&self, customer: usize, at: i64) -> Debts {
        self.debts_with(customer, at, &[])
    }

    /// What was on its way to a customer: others may have seen it or not.
    fn doubts(&self, customer: usize, at: i64) -> Vec<Doubt> {
        let used = |(place, used): (usize, &Used)| {
            let concerns = used.between[customer].0 <= at && at <= used.between[customer].1;
            (concerns && used.usage.iter().any(|it| it.customer == customer)).then_some(Doubt::Used(place))
        };
        let voided = |(id, invoice): (&i64, &Invoice)| {
            let concerns = invoice.voided.is_some_and(|(from, to)| from <= at && at <= to);
            (concerns && invoice.customer == customer).then_some(Doubt::Voided(*id))
        };
        self.used.iter().enumerate().filter_map(used).chain(self.invoices.iter().filter_map(voided)).collect()
    }

    /// `holds` must be so with what had been done for sure and some of what was on its way; what has been seen once is seen
    /// by all who have the customer's lock later. Returns what it returned for the first such.
    pub(super) fn with_some<T>(
        &mut self,
        customer: usize,
        at: i64,
        holds: impl Fn(&Replay, &Debts) -> Result<T, String>,
    ) -> T {
        let doubts = self.doubts(customer, at);
        assert!(doubts.len() < 10, "{} acts are on their way at once", doubts.len());
        let mut first = None;
        let (mut always, mut never, mut why) = (doubts.clone(), doubts.clone(), String::new());
        for mask in 0..1_u32 << doubts.len() {
            let picked = |(bit, doubt): (usize, &Doubt)| (mask & 1 << bit != 0).then_some(*doubt);
            let said: Vec<Doubt> = doubts.iter().enumerate().filter_map(picked).collect();
            match holds(self, &self.debts_with(customer, at, &said)) {
                Ok(outcome) => {
                    always.retain(|doubt| said.contains(doubt));
                    never.retain(|doubt| !said.contains(doubt));
                    first = first.or(Some(outcome));
                }
                Err(error) => why = error,
            }
        }
        let Some(first) = first else { panic!("with none of {} doubts: {why}", doubts.len()) };
        for doubt in doubts {
            let between = match doubt {
                Doubt::Used(place) => &mut self.used[place].between[customer],
                Doubt::Voided(id) => {
                    self.invoices.get_mut(&id).and_then(|it| it.voided.as_mut()).expect("a void invoice")
                }
            };
            if always.contains(&doubt) {
                between.1 = at - 1;
            } else if never.contains(&doubt) {
                between.0 = at + 1;
            }
        }
        first
    }

    /// An error where less was available.
    pub(super) fn available(
        &self,
        customer: usize,
        cents: i64,
        at: i64,
        debts: &Debts,
        covers: impl Fn(&Wallet) -> bool,
    ) -> Result<(), String> {
        let (_, available) = self.accounts[customer].position(debts, at, covers);
        if cents <= available { Ok(()) } else { Err(format!("{} given, {available} cents were there", money(cents))) }
    }
}

impl Rule {
    /// Cents, end and how much later it burns. What rolls over lives as many periods longer as hold so much. The least that
    /// does comes with each period, and with the first as a part of it.
    pub(super) fn parts(&self, starts: i64) -> Vec<(i64, i64, i64)> {
        let first = starts == self.starts;
        let stays = if first { self.least.min(self.cents) } else { self.least };
        let cents = if first { self.cents - stays } else { self.cents };
        let mut parts = match self.most {
            None => vec![(cents, NEVER, 0)],
            Some(most) => {
                let (whole, longer) = ((most - self.least) / self.cents, (most - self.least) % self.cents);
                let end = |periods: i64| starts + (periods + 1) * DAY;
                let longer = longer.min(cents);
                vec![(cents - longer, end(whole), 0), (longer, end(whole + 1), 0)]
            }
        };
        parts.push((stays, starts + DAY, 1));
        parts.retain(|(cents, ..)| *cents > 0);
        parts
    }

    /// What has begun by then and nobody has written down.
    pub(super) fn give(&self, account: &mut Account, at: i64) {
        let mut number = self.given;
        while self.starts + number * DAY <= at {
            let starts = self.starts + number * DAY;
            for (cents, ends, later) in self.parts(starts) {
                account.grants.push(Grant {
                    // After all that are written down.
                    id: NEVER - 1_000_000 + account.grants.len() as i64,
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
    pub(super) fn named(&self) -> Vec<(i64, &str, i64)> {
        self.wallets.iter().map(|wallet| (wallet.id, wallet.name.as_str(), wallet.owed)).collect()
    }
}
