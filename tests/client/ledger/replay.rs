//! What has been acknowledged, done again with the model in the order in which it was committed: every transaction took
//! and gave, grant by grant, what the model does at that time, and was allowed; every act is there once, nothing else is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postgres::Client;

use super::acts::{API_PRICE, Act, CUSTOMERS, DAY, Done, IMG_PRICE, Usage, is_forced};
use super::found::{Entries, Found, cents, micros, number, text};
use super::model::{Account, Charge, Debts, Grant, Hold, NEVER, Taken, Wallet};
use crate::event::time;
use crate::rng::Rng;
use crate::server::rows;

/// A writer's snapshot is a little younger than the time it writes down.
const AFTER_THE_CLOCK: i64 = 50_000;

pub struct Replay {
    pub(super) accounts: Vec<Account>,
    pub(super) rules: Vec<Rule>,
    pub(super) started: i64,
    /// When it was sent and acknowledged.
    pub(super) used: Vec<(Usage, i64, i64)>,
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
    pub(super) live: bool,
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
            let of = |usage: &Vec<Usage>| usage.clone().into_iter().map(|it| (it, done.sent, done.acknowledged));
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
        let available = |debts| self.accounts[customer].position(debts, at, |wallet| api || !wallet.limited).1;
        let available: Vec<i64> = self.debts(customer, at).iter().map(available).collect();
        assert!(available.iter().any(|there| cents <= *there), "{what}: {cents} given, {available:?} were there");
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
        let (taken, due) = self.accounts[customer].invoice(&charges, issued);
        assert_eq!(number(row, 3), due, "{what}: what is due of {charges:?}");
        let expected = self.entries(customer, &taken, -1);
        if taken.is_empty() {
            let paid = found.transactions.values().find(|it| text(it, 2) == "invoice" && number(it, 5) == id);
            assert!(paid.is_none(), "{what}: {paid:?}");
        }
        self.invoices.insert(id, Invoice { customer, due, lines, expected, taken, live: true, created: at });
    }

    /// What a customer owed, as whoever wrote at that time may have seen it: with usage that was acknowledged by then, and
    /// whichever of that which was on its way.
    pub(super) fn debts(&self, customer: usize, at: i64) -> Vec<Debts> {
        let on_its_way: Vec<i64> = self
            .used
            .iter()
            .filter(|(usage, sent, acknowledged)| {
                usage.customer == customer && at <= *acknowledged && *sent < at + AFTER_THE_CLOCK
            })
            .map(|(_, sent, _)| *sent)
            .collect::<BTreeSet<i64>>()
            .into_iter()
            .collect();
        assert!(on_its_way.len() < 12, "{} acts at once", on_its_way.len());
        let seen = |choice: usize, it: &i64| {
            on_its_way.iter().position(|sent| sent == it).is_some_and(|place| choice >> place & 1 == 1)
        };
        let debts = |choice: usize| Debts {
            usage: self.open(customer, at, |sent, acknowledged| acknowledged < at || seen(choice, &sent)),
            unpaid: self.unpaid(customer, at),
        };
        (0..1 << on_its_way.len()).map(debts).collect()
    }

    /// Usage that nobody has billed, of what was `seen`, by when it was sent and acknowledged.
    fn open(&self, customer: usize, at: i64, seen: impl Fn(i64, i64) -> bool) -> Vec<Charge> {
        let mut cells: BTreeMap<(i64, bool), i64> = BTreeMap::new();
        for (usage, sent, acknowledged) in self.used.iter().filter(|(usage, ..)| usage.customer == customer) {
            if seen(*sent, *acknowledged) {
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
}

impl Rule {
    /// Cents, end and how much later it burns. What rolls over lives as many periods longer as hold so much.
    pub(super) fn parts(&self, starts: i64) -> Vec<(i64, i64, i64)> {
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
    pub(super) fn give(&self, account: &mut Account, at: i64) {
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
    pub(super) fn named(&self) -> Vec<(i64, &str, i64)> {
        self.wallets.iter().map(|wallet| (wallet.id, wallet.name.as_str(), wallet.owed)).collect()
    }
}
