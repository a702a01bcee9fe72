//! Who buys what in the simulation, what they use, and what they change: each step done with the verbs, and noted.

use std::collections::BTreeMap;

use postgres::Client;
use rust_decimal::Decimal;

use super::catalogue::{Charge, Model, Plan, Price, insert, insert_price, plans, stamp, usage};
use super::{DAY, END, HOUR, LATE, START};
use crate::event::{array, time};
use crate::rng::Rng;
use crate::server::{one, quote, run};

pub struct World {
    pub plans: Vec<Plan>,
    pub customers: Vec<Customer>,
    pub subscriptions: BTreeMap<String, Subscription>,
    /// Positions of plan and price by id.
    pub price_ids: BTreeMap<i64, (usize, usize)>,
    keys: u64,
}

pub struct Customer {
    pub id: String,
    pub zone: &'static str,
    pub group: Option<&'static str>,
    pub events: Vec<Event>,
    /// Made and not sent yet, with when to.
    held: Vec<(i64, Event)>,
}

#[derive(Clone)]
pub struct Event {
    id: String,
    pub name: &'static str,
    pub at: i64,
    pub value: Decimal,
    pub region: Option<&'static str>,
    voided: bool,
    /// Came after the time for adjustments.
    too_late: bool,
}

pub struct Subscription {
    pub key: String,
    pub id: i64,
    pub customer: usize,
    pub zone: String,
    pub starts: i64,
    pub ends: Option<i64>,
    pub paused: Vec<(i64, Option<i64>)>,
    pub items: Vec<Item>,
}

pub struct Item {
    pub plan: usize,
    pub add_on: bool,
    pub starts: i64,
    pub ends: Option<i64>,
    pub anchor: i64,
    pub phases_from: i64,
    quantities: BTreeMap<&'static str, Decimal>,
}

const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"];
/// What is changed to and from, and which plan has a calendar day that not every month has.
const SWITCHABLE: [usize; 5] = [0, 1, 2, 3, 4];
const PEAK: usize = 5;
const EXTRA: usize = 6;

impl Event {
    pub fn counts(&self) -> bool {
        !self.voided && !self.too_late
    }

    fn json(&self, customer: &str) -> String {
        format!(
            r#"{{"transaction_id":"{}","customer_id":"{customer}","event_name":"{}","timestamp":"{}","properties":{}}}"#,
            self.id,
            self.name,
            time(self.at),
            self.properties()
        )
    }

    fn properties(&self) -> String {
        let region = self.region.map(|region| format!(r#","region":"{region}""#)).unwrap_or_default();
        format!(r#"{{"value":{}{region}}}"#, self.value)
    }
}

impl Item {
    pub fn quantity(&self, key: &str) -> Decimal {
        self.quantities.get(key).copied().unwrap_or(Decimal::ONE)
    }
}

impl Subscription {
    /// From when on its plan may be changed: nothing is scheduled later.
    fn free_from(&self) -> i64 {
        self.items.iter().filter(|item| !item.add_on).map(|item| item.starts).max().unwrap_or(self.starts) + 1
    }

    fn replace(
        &mut self,
        position: usize,
        plans: &[Plan],
        at: i64,
        plan: usize,
        quantities: BTreeMap<&'static str, Decimal>,
    ) {
        let old = &mut self.items[position];
        old.ends = Some(at);
        let counted = |plan: usize| (plans[plan].interval, plans[plan].aligned);
        let next = Item {
            plan,
            add_on: old.add_on,
            starts: at,
            ends: None,
            anchor: if counted(old.plan) == counted(plan) { old.anchor } else { at },
            phases_from: if old.plan == plan { old.phases_from } else { at },
            quantities,
        };
        self.items.push(next);
    }

    fn open(&self, add_on: bool) -> Option<usize> {
        self.items.iter().position(|item| item.add_on == add_on && item.ends.is_none())
    }
}

impl World {
    pub fn make(client: &mut Client, customers: usize) -> World {
        let mut world = World {
            plans: plans(),
            customers: Vec::new(),
            subscriptions: BTreeMap::new(),
            price_ids: BTreeMap::new(),
            keys: 0,
        };
        run(client, super::catalogue::METERS);
        for plan in &world.plans {
            for sql in insert(plan) {
                run(client, &sql);
            }
        }
        let ids = crate::server::rows(client, "SELECT id, plan_key FROM meterflow.prices ORDER BY id");
        let places =
            world.plans.iter().enumerate().flat_map(|(plan, it)| (0..it.prices.len()).map(move |price| (plan, price)));
        world.price_ids =
            ids.iter().map(|row| row[0].as_deref().unwrap_or_default().parse().expect("an id")).zip(places).collect();
        for number in 0..customers {
            let customer = Customer {
                id: format!("c{number:03}"),
                zone: ZONES[number % ZONES.len()],
                group: (number % 6 == 2).then_some("vip"),
                events: Vec::new(),
                held: Vec::new(),
            };
            // Some are paid for by the one before them.
            let payer = if number % 10 == 7 { format!("'c{:03}'", number - 1) } else { "NULL".to_string() };
            let taxes = ["NULL", "NULL", "'{vat,city}'", "'{}'"][number % 4];
            run(
                client,
                &format!(
                    "INSERT INTO meterflow.customers (id, name, timezone, payer_id, price_group, taxes, tax_exempt) VALUES ('{}', 'Customer {number}', '{}', {payer}, {}, {taxes}, {})",
                    customer.id,
                    customer.zone,
                    customer.group.map_or("NULL".to_string(), |group| format!("'{group}'")),
                    number % 13 == 5
                ),
            );
            world.customers.push(customer);
        }
        world
    }

    /// The next idempotency key.
    fn key(&mut self) -> String {
        self.keys += 1;
        format!("'k{}'", self.keys)
    }

    /// When each customer subscribes to what.
    pub fn starts(&self, rng: &mut Rng) -> Vec<(i64, usize, usize, i64)> {
        let mut starts = Vec::new();
        for customer in 0..self.customers.len() {
            for number in 0..if customer % 8 == 3 { 2 } else { 1 } {
                // The customer who is too late stays with the plan that looks back only so far.
                let plan = if customer == 0 {
                    0
                } else if (customer + number) % 6 == 5 {
                    PEAK
                } else {
                    *rng.pick(&SWITCHABLE)
                };
                let starts_at = match rng.range(0..3) {
                    0 if customer > 0 => super::oracle::instant(
                        self.customers[customer].zone,
                        jiff::civil::date(2025, 7, 31).at(9, 30, 0, 0),
                    ),
                    1 if customer > 0 => START + rng.range(0..200 * DAY),
                    _ => START + rng.range(0..20) * DAY,
                };
                // Begun in the past or to begin.
                starts.push((starts_at + rng.range(-10..10) * DAY, customer, plan, starts_at));
            }
        }
        starts
    }

    pub fn subscribe(&mut self, client: &mut Client, rng: &mut Rng, customer: usize, plan: usize, starts: i64) {
        let key = format!("s{}", self.subscriptions.len());
        let seats = rng.range(1..9);
        let zone = self.customers[customer].zone.to_string();
        let id = one(
            client,
            &format!(
                "INSERT INTO meterflow.subscriptions (key, customer_id, plan_key, starts_at, quantities) VALUES ('{key}', '{}', '{}', {}, '{{\"seats\":{seats}}}') RETURNING id",
                self.customers[customer].id,
                self.plans[plan].key,
                stamp(starts)
            ),
        );
        let item = Item {
            plan,
            add_on: false,
            starts,
            ends: None,
            anchor: starts,
            phases_from: starts,
            quantities: BTreeMap::from([("seats", Decimal::from(seats))]),
        };
        let id = id.parse().expect("an id");
        let subscription = Subscription {
            key: key.clone(),
            id,
            customer,
            zone,
            starts,
            ends: None,
            paused: Vec::new(),
            items: vec![item],
        };
        self.subscriptions.insert(key.clone(), subscription);
        if rng.chance(15) && plan < 3 && customer > 0 {
            let model = Model::PerUnit("0.17");
            let price = Price {
                subscription: Some(key),
                valid: (starts + 50 * DAY, starts + 170 * DAY),
                ..usage("calls", model)
            };
            let sql = insert_price(self.plans[plan].key, &price);
            let id = one(client, &format!("{sql} RETURNING id")).parse().expect("an id");
            self.plans[plan].prices.push(price);
            self.price_ids.insert(id, (plan, self.plans[plan].prices.len() - 1));
        }
    }

    /// What is used between two steps, some of it sent later; and corrections of what was sent.
    pub fn use_up(&mut self, client: &mut Client, rng: &mut Rng, from: i64, to: i64, per_step: i64) {
        let mut batch = Vec::new();
        for (number, customer) in self.customers.iter_mut().enumerate() {
            for _ in 0..rng.range(0..per_step + 1) {
                let name = rng.weighted(&[(6, "call"), (2, "payment"), (2, "users")]);
                let value = match name {
                    "payment" => Decimal::new(rng.range(1..20_000), 2),
                    "users" => Decimal::from(rng.range(1..40)),
                    _ => Decimal::new(rng.range(1..100_000), 2),
                };
                // Also the first and last microsecond of a day.
                let at = rng.range(from..to);
                let at = if rng.chance(10) { (at.div_euclid(DAY) * DAY - rng.range(0..2)).max(from) } else { at };
                let region = *rng.pick(&[Some("eu"), Some("us"), None]);
                let id = format!("{number}-{}-{}", customer.events.len() + customer.held.len(), at);
                let event = Event { id, name, at, value, region, voided: false, too_late: false };
                if rng.chance(12) {
                    customer.held.push((at + rng.range(0..LATE - 11 * DAY), event));
                } else {
                    batch.push(event.json(&customer.id));
                    customer.events.push(event);
                }
            }
            let due: Vec<Event> =
                customer.held.extract_if(.., |(at, _)| *at <= to || END <= to).map(|(_, event)| event).collect();
            batch.extend(due.iter().map(|event| event.json(&customer.id)));
            customer.events.extend(due);
        }
        self.send(client, &batch);
        for _ in 0..self.customers.len() / 5 + 1 {
            let number = rng.index(self.customers.len());
            let customer = &mut self.customers[number];
            let recent: Vec<usize> = (0..customer.events.len())
                .filter(|&event| customer.events[event].at > to - LATE + DAY && customer.events[event].counts())
                .collect();
            if recent.is_empty() {
                continue;
            }
            let event = &mut customer.events[*rng.pick(&recent)];
            if rng.chance(50) {
                event.voided = true;
                run(client, &format!("SELECT meterflow.void_event('{}', 'simulated')", event.id));
            } else {
                event.value += Decimal::from(rng.range(1..50));
                let changed = format!(r#"{{"properties":{}}}"#, event.properties());
                run(client, &format!("SELECT meterflow.amend_event('{}', {}, 'simulated')", event.id, quote(&changed)));
            }
        }
    }

    fn send(&self, client: &mut Client, batch: &[String]) {
        for part in batch.chunks(500) {
            let outcome = crate::server::ingest(client, &array(part.iter().cloned()))
                .unwrap_or_else(|error| panic!("{}", crate::server::shown(&error)));
            assert_eq!(outcome.accepted as usize, part.len(), "{outcome:?}");
        }
    }

    /// What the first customer sends when nobody looks back that far any more.
    pub fn send_too_late(&mut self, client: &mut Client) {
        let at = START + 40 * DAY;
        let event = |number| Event {
            id: format!("too late {number}"),
            name: "call",
            at: at + number * HOUR,
            value: Decimal::from(1000),
            region: None,
            voided: false,
            too_late: true,
        };
        let events: Vec<Event> = (0..3).map(event).collect();
        let batch: Vec<String> = events.iter().map(|event| event.json(&self.customers[0].id)).collect();
        self.send(client, &batch);
        self.customers[0].events.extend(events);
    }

    /// A few subscriptions change: for a time not long ago, or to come.
    pub fn change(&mut self, client: &mut Client, rng: &mut Rng, now: i64) {
        let keys: Vec<String> = self.subscriptions.keys().cloned().collect();
        for key in keys {
            let at = now + rng.range(-18 * DAY..18 * DAY);
            let kind = rng.weighted(&[
                (60, "nothing"),
                (6, "quantity"),
                (6, "plan"),
                (3, "pause"),
                (4, "add-on"),
                (1, "cancel"),
            ]);
            let subscription = &self.subscriptions[&key];
            if subscription.ends.is_some() || subscription.customer == 0 || at < subscription.free_from() || at >= END {
                continue;
            }
            match kind {
                "quantity" => self.change_quantity(client, rng, &key, at),
                "plan" => self.change_plan(client, rng, &key, at),
                "pause" => self.pause(client, rng, &key, at, now),
                "add-on" => self.add_on(client, rng, &key, at),
                "cancel" => self.cancel(client, &key, at),
                _ => {}
            }
        }
    }

    fn change_quantity(&mut self, client: &mut Client, rng: &mut Rng, key: &str, at: i64) {
        let idempotency = self.key();
        let plans = &self.plans;
        let subscription = self.subscriptions.get_mut(key).expect("a subscription");
        let position = subscription.open(false).expect("an item that goes on");
        let item = &subscription.items[position];
        // Not only whole ones; and now and then the same again.
        let seats = Decimal::new(rng.range(0..18), 0) / Decimal::from(2);
        if !plans[item.plan].prices.iter().any(|price| price.key == "seats" && price.charge != Charge::Usage) {
            return;
        }
        run(
            client,
            &format!(
                "SELECT meterflow.change_quantity({}, 'seats', {seats}, {idempotency}, at => {}, bill => '{}')",
                subscription.id,
                stamp(at),
                rng.pick(&["now", "next"])
            ),
        );
        let (plan, mut quantities) = (item.plan, item.quantities.clone());
        quantities.insert("seats", seats);
        subscription.replace(position, plans, at, plan, quantities);
    }

    fn change_plan(&mut self, client: &mut Client, rng: &mut Rng, key: &str, at: i64) {
        let idempotency = self.key();
        let plans = &self.plans;
        let subscription = self.subscriptions.get_mut(key).expect("a subscription");
        let position = subscription.open(false).expect("an item that goes on");
        let item = &subscription.items[position];
        let plan = *rng.pick(&SWITCHABLE);
        if plan == item.plan || item.plan == PEAK {
            return;
        }
        let sql = format!(
            "SELECT meterflow.change_plan({}, '{}', {idempotency}, at => {})",
            subscription.id,
            plans[plan].key,
            stamp(at)
        );
        // Again with the same key is the same change.
        assert_eq!(one(client, &sql), one(client, &sql));
        let quantities = item.quantities.clone();
        subscription.replace(position, plans, at, plan, quantities);
    }

    fn pause(&mut self, client: &mut Client, rng: &mut Rng, key: &str, at: i64, now: i64) {
        let idempotency = self.key();
        let subscription = self.subscriptions.get_mut(key).expect("a subscription");
        let id = subscription.id;
        if let Some((from, until)) = subscription.paused.last_mut().filter(|pause| pause.1.is_none()) {
            let at = at.max(*from + HOUR).max(now - 10 * DAY);
            run(client, &format!("SELECT meterflow.resume_subscription({id}, {idempotency}, {})", stamp(at)));
            *until = Some(at);
            return;
        }
        if subscription.paused.last().is_some_and(|pause| pause.1.is_none_or(|until| at <= until)) {
            return;
        }
        let until = rng.chance(60).then(|| at + rng.range(HOUR..40 * DAY));
        let text = until.map_or("NULL".to_string(), stamp);
        run(
            client,
            &format!("SELECT meterflow.pause_subscription({id}, {idempotency}, at => {}, until => {text})", stamp(at)),
        );
        subscription.paused.push((at, until));
    }

    fn add_on(&mut self, client: &mut Client, rng: &mut Rng, key: &str, at: i64) {
        let idempotency = self.key();
        let plans = &self.plans;
        let subscription = self.subscriptions.get_mut(key).expect("a subscription");
        let id = subscription.id;
        if subscription.items[0].plan == PEAK {
            return;
        }
        let last =
            subscription.items.iter().filter(|item| item.add_on).map(|item| item.ends.unwrap_or(item.starts)).max();
        if last.is_some_and(|last| at <= last) {
            return;
        }
        let Some(position) = subscription.open(true) else {
            run(
                client,
                &format!(
                    "SELECT meterflow.add_add_on({id}, 'extra', {idempotency}, at => {}, quantities => '{{\"extra seats\":2}}')",
                    stamp(at)
                ),
            );
            let quantities = BTreeMap::from([("extra seats", Decimal::TWO)]);
            subscription.items.push(Item {
                plan: EXTRA,
                add_on: true,
                starts: at,
                ends: None,
                anchor: at,
                phases_from: at,
                quantities,
            });
            return;
        };
        if rng.chance(50) {
            run(client, &format!("SELECT meterflow.remove_add_on({id}, 'extra', {idempotency}, at => {})", stamp(at)));
            subscription.items[position].ends = Some(at);
        } else {
            run(
                client,
                &format!(
                    "SELECT meterflow.change_quantity({id}, 'extra seats', 5, {idempotency}, at => {})",
                    stamp(at)
                ),
            );
            subscription.replace(position, plans, at, EXTRA, BTreeMap::from([("extra seats", Decimal::from(5))]));
        }
    }

    fn cancel(&mut self, client: &mut Client, key: &str, at: i64) {
        let idempotency = self.key();
        let subscription = self.subscriptions.get_mut(key).expect("a subscription");
        run(
            client,
            &format!("SELECT meterflow.cancel_subscription({}, {idempotency}, at => {})", subscription.id, stamp(at)),
        );
        subscription.ends = Some(at);
    }

    /// Whoever is still subscribed leaves.
    pub fn end(&mut self, client: &mut Client) {
        let keys: Vec<String> =
            self.subscriptions.values().filter(|it| it.ends.is_none()).map(|it| it.key.clone()).collect();
        for key in keys {
            self.cancel(client, &key, END);
        }
    }

    /// Coupons and money in advance, for anybody.
    pub fn give(&mut self, client: &mut Client, rng: &mut Rng) {
        let customer = self.customers[rng.index(self.customers.len())].id.clone();
        let key = self.key();
        if rng.chance(60) {
            let code = *rng.pick(&["tenth", "gift", "calls"]);
            // Coupons are of invoices, so it is who pays that redeems them.
            let payer = format!("(SELECT coalesce(payer_id, id) FROM meterflow.customers WHERE id = '{customer}')");
            run(client, &format!("SELECT meterflow.redeem_coupon({payer}, '{code}', {key})"));
        } else {
            let currency = *rng.pick(&["EUR", "JPY"]);
            run(client, &format!("SELECT meterflow.top_up('{customer}', {}, '{currency}', {key})", rng.range(1..200)));
        }
    }
}
