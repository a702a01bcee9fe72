//! A customer's credit in one currency, locked and read.

use std::ops::ControlFlow;

use pgrx::datum::DatumWithOid;

use crate::core::currency;
use crate::core::invoice::{LineKind, Scope};
use crate::core::ledger::{Life, Limit, Lot, Purse, Source, Sum, Taken, Totals, Unit, Wallet};
use crate::core::pricing::{Amount, Rounding};
use crate::pg::error::{Fail, Outcome};
use crate::pg::scan::{Is, Reader, Table, Term, Value};
use crate::pg::spi::{self, Row, See, Tid};
use crate::rating::no_money;

use super::journal::{kind, life};
use super::lock::Locked;
use super::{stored, tables, too_large};

#[derive(Clone)]
pub struct Account {
    pub tenant: String,
    pub customer: String,
    pub currency: String,
    pub totals: Totals,
    pub purse: Purse,
    /// What holds that are active at the time have set aside, by what they are for.
    pub held: Vec<Reserve>,
    /// What of it is for quantities of meters; nothing is set aside for one that is free.
    pub promised: Vec<Promised>,
    /// What has been taken out of the purse for them.
    pub aside: Vec<Taken>,
    /// There are holds that have expired and are still marked as open.
    pub expired_holds: bool,
    /// The customer is or pays for a subscriber, or has an invoice to pay.
    pub owes: bool,
    /// It is as it was at a time of the past.
    pub past: bool,
    /// The time of the oldest charge that is open or to be paid.
    pub charged_since: i64,
    /// Where its totals and the grants that are lots were read: whoever changes them need not look for them again.
    pub(super) totals_at: Option<Tid>,
    pub(super) grants_at: Vec<(i64, Tid)>,
}

/// Money set aside for a meter, or for anything.
#[derive(Clone)]
pub struct Reserve {
    pub meter: Option<String>,
    /// In minor units.
    pub minor: i128,
    /// The debt's time: what expires later can pay it.
    pub at: i64,
}

/// A quantity of a meter that holds are for, and what they have set aside for it.
#[derive(Clone)]
pub struct Promised {
    pub meter: String,
    pub quantity: Amount,
    /// In minor units.
    pub minor: i128,
}

/// The tables that credit is read from, open in the statement's snapshot.
pub struct Books {
    totals: Option<Reader>,
    wallets: Reader,
    later: Option<Reader>,
    summed: Option<Reader>,
    recurring: Reader,
    subscriptions: Reader,
    paid_for: Option<Reader>,
    unpaid: Reader,
}

/// Reads a customer's credit in the statement's snapshot, as it is at a time: grants that begin or come again by then, and
/// none that expired by `since`, which is the time of the oldest debt to be paid.
pub fn load(tenant: &str, customer: &str, currency: &str, as_of: i64, since: i64) -> Outcome<Account> {
    Books::open()?.account(tenant, customer, currency, (as_of, since), None)
}

impl Books {
    pub fn open() -> Outcome<Books> {
        Ok(Books {
            totals: None,
            wallets: Reader::open(&tables::WALLETS)?,
            later: None,
            summed: None,
            recurring: Reader::open(&tables::RECURRING)?,
            subscriptions: Reader::open(&tables::SUBSCRIPTIONS)?,
            paid_for: None,
            unpaid: Reader::open(&tables::UNPAID)?,
        })
    }

    /// As [`load`]; `locked`: what the lock has found, if nothing has been written since.
    pub fn account(
        &mut self,
        tenant: &str,
        customer: &str,
        currency: &str,
        (as_of, since): (i64, i64),
        locked: Option<Locked>,
    ) -> Outcome<Account> {
        let digits = currency::digits(currency).map_err(|error| no_money(error, currency))?;
        let who = [
            (0, Is::Equal, Value::Text(tenant)),
            (1, Is::Equal, Value::Text(customer)),
            (2, Is::Equal, Value::Text(currency)),
        ];
        let mut found = locked.unwrap_or_default();
        if found.at.is_none() {
            opened(&mut self.totals, &tables::TOTALS)?.rows(&who, |row| {
                found = Locked::read(row, 0, || Ok(customer.to_string()))?;
                Ok(())
            })?;
        }
        let Locked { totals, at: totals_at } = found;
        let mut grants_at = Vec::new();

        let mut purse = Purse { digits, wallets: Vec::new(), lots: Vec::new(), as_of };
        self.wallets.rows(&who, |row| {
            purse.wallets.push(wallet(tenant, row, &totals)?);
            Ok(())
        })?;
        purse.wallets.sort_by_key(|wallet| (wallet.priority, wallet.id));
        let charged_since = since;
        // Dead lots pay for holds that were made while they lived, and paid at their start what was owed then.
        let since = totals.held.iter().map(|held| held.since).fold(since, i64::min);
        let since = totals.overdrafts.iter().map(|owed| owed.since).fold(since, i64::min);
        let mut recurring = Vec::new();
        for (place, wallet) in purse.wallets.iter().enumerate() {
            let of = [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Int8(wallet.id))];
            if self.recurring.any(&of)? {
                recurring.push(wallet.id);
            }
            if totals.later_until.is_some_and(|until| until > since) {
                let alive = [of[0], of[1], (2, Is::Above, Value::Time(since))];
                opened(&mut self.later, &tables::LATER)?.rows(&alive, |row| {
                    let (id, lot) = grant(row, place, false)?;
                    grants_at.extend(row.tid().map(|tid| (id, tid)));
                    purse.lots.push(lot);
                    Ok(())
                })?;
            }
        }
        for sum in totals.sums.iter().filter(|sum| sum.dated.is_none_or(|dated| dated.last > since)) {
            let wallet = purse.wallets.iter().position(|wallet| wallet.id == sum.wallet);
            let wallet = wallet.ok_or_else(|| Fail::corrupt(format!("wallet {} is gone", sum.wallet)))?;
            purse.lots.push(sum.as_lot(wallet));
        }
        let mut account = Account {
            tenant: tenant.to_string(),
            customer: customer.to_string(),
            currency: currency.to_string(),
            totals,
            purse,
            held: Vec::new(),
            promised: Vec::new(),
            aside: Vec::new(),
            expired_holds: false,
            owes: self.owes(tenant, customer)?,
            past: false,
            charged_since: as_of,
            totals_at,
            grants_at,
        };
        for wallet in recurring {
            for due in account.due(wallet, since)? {
                account.purse.lots.extend(due.lots.into_iter().map(|(_, lot)| lot));
            }
        }
        for place in account.purse.sums_to_open(charged_since).into_iter().rev() {
            let sum = account.purse.lots.swap_remove(place);
            self.read_sum(&mut account, &sum, since)?;
        }
        account.purse.sort();
        account.active_holds()?;
        Ok(account)
    }

    /// Adds the grants of a sum that have not expired by a time, as lots.
    fn read_sum(&mut self, account: &mut Account, sum: &Lot, since: i64) -> Outcome<()> {
        let Source::Sum { last } = sum.source else { return Ok(()) };
        let terms = [
            (0, Is::Equal, Value::Text(&account.tenant)),
            (1, Is::Equal, Value::Int8(account.purse.wallets[sum.wallet].id)),
            (2, Is::Equal, Value::Int4(sum.priority)),
            (3, Is::Equal, Value::Text(kind(sum.promotional))),
            (4, Is::AtLeast, Value::Time(sum.expires_at.max(since.saturating_add(1)))),
            (4, Is::AtMost, Value::Time(last)),
        ];
        let Account { purse, grants_at, .. } = account;
        opened(&mut self.summed, &tables::SUMMED)?.rows(&terms, |row| {
            let (id, lot) = grant(row, sum.wallet, true)?;
            grants_at.extend(row.tid().map(|tid| (id, tid)));
            purse.lots.push(lot);
            Ok(())
        })
    }

    /// Divides sums that are of too many grants; whether that changes any, which is then to be written.
    pub(super) fn divide_sums(&mut self, account: &mut Account, most: u32, now: i64) -> Outcome<bool> {
        let (large, mut sums): (Vec<Sum>, Vec<Sum>) =
            account.totals.sums.iter().cloned().partition(|sum| sum.is_too_large(most, now));
        for sum in &large {
            let wallet = account.purse.wallets.iter().position(|wallet| wallet.id == sum.wallet).unwrap_or_default();
            let mut of_sum = account.named();
            of_sum.purse.wallets = account.purse.wallets.clone();
            self.read_sum(&mut of_sum, &sum.as_lot(wallet), i64::MIN)?;
            let grants: Vec<_> = of_sum.purse.lots.iter().map(|lot| (lot.life(), lot.remaining)).collect();
            sums.extend(sum.divided(&grants, most).map_err(too_large)?);
        }
        let changes = sums.iter().any(|sum| !account.totals.sums.contains(sum));
        account.totals.sums = sums;
        Ok(changes)
    }

    /// Whether the customer is or pays for a subscriber, or has an invoice to pay.
    fn owes(&mut self, tenant: &str, customer: &str) -> Outcome<bool> {
        let of = [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Text(customer))];
        let mut owes = self.unpaid.any(&of)? || self.subscriptions.any(&of)?;
        if !owes && !self.subscriptions.is_empty() {
            let subscriptions = &mut self.subscriptions;
            opened(&mut self.paid_for, &tables::PAID_FOR)?.until(&of, |row| {
                let other = row.text(0)?;
                owes = subscriptions.any(&[of[0], (1, Is::Equal, Value::Text(&other))])?;
                Ok(if owes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        Ok(owes)
    }
}

/// What finds rows of a table, opened at first use.
pub(super) fn opened<'a>(reader: &'a mut Option<Reader>, table: &'static Table) -> Outcome<&'a mut Reader> {
    let open = match reader.take() {
        Some(open) => open,
        None => Reader::open(table)?,
    };
    Ok(reader.insert(open))
}

/// A grant by itself: its id, and what it is as a lot.
pub(super) fn grant(row: &Row<'_>, wallet: usize, summed: bool) -> Outcome<(i64, Lot)> {
    let (id, Life { promotional, priority, effective_at, expires_at }) = (row.int8(0)?, life(row, 2)?);
    let (source, remaining, created_at) = (Source::Grant(id), stored(row, 1)?, row.time(6)?);
    Ok((id, Lot { source, wallet, priority, promotional, effective_at, expires_at, created_at, summed, remaining }))
}

fn wallet(tenant: &str, row: &Row<'_>, totals: &Totals) -> Outcome<Wallet> {
    let id = row.int8(0)?;
    let unit = if row.is_null(1) { None } else { Some(unit(tenant, row.text(1)?)?) };
    let limit = match (row.is(3, "postpaid")?, row.is_null(4)) {
        (false, _) => Limit::Of(Amount::ZERO),
        (true, true) => Limit::Unlimited,
        (true, false) => Limit::Of(stored(row, 4)?),
    };
    let list = |column: usize| row.get::<Vec<String>>(column).unwrap_or_default();
    let kinds = list(9).into_iter().filter_map(|kind| match kind.as_str() {
        "usage" => Some(LineKind::Usage),
        "fee" => Some(LineKind::Fee),
        "one_off" => Some(LineKind::OneOff),
        "adjustment" => Some(LineKind::Adjustment),
        _ => None,
    });
    let scope = Scope { meters: list(6), prices: list(7), plans: list(8), kinds: kinds.collect(), lines: Vec::new() };
    let owed = totals.overdrafts.iter().find(|sum| sum.wallet == id);
    Ok(Wallet {
        id,
        name: row.text(2)?,
        priority: row.int4(5)?,
        unit,
        scope,
        limit,
        overdraft: owed.map(|sum| sum.amount).unwrap_or_default(),
        owes_since: owed.map(|sum| sum.since).unwrap_or_default(),
    })
}

fn unit(tenant: &str, key: String) -> Outcome<Unit> {
    let mut rate = None;
    let terms = [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Text(&key))];
    Reader::open(&tables::CREDIT_UNITS)?.rows(&terms, |row| {
        rate = Some(stored(row, 0)?);
        Ok(())
    })?;
    let rate = rate.ok_or_else(|| Fail::corrupt(format!("credit unit \"{key}\" is gone")))?;
    Ok(Unit { key, rate })
}

impl Account {
    /// Finds what active holds have set aside. Sums, but for those that credit which has expired since can pay: these are
    /// looked at one by one.
    fn active_holds(&mut self) -> Outcome<()> {
        if self.totals.held.is_empty() {
            return Ok(());
        }
        let as_of = self.purse.as_of;
        let who = [self.tenant.as_str(), self.customer.as_str(), self.currency.as_str()];
        let mut sums = self.totals.held.clone();
        let mut any_expired = false;
        if self.totals.held_until.is_none_or(|first| first <= as_of) {
            let terms: Vec<Term<'_>> =
                who.into_iter().enumerate().map(|(column, name)| (column, Is::Equal, Value::Text(name))).collect();
            let mut first = None;
            Reader::open(&tables::OPEN_HOLDS)?.until(&terms, |row| {
                let expires_at = row.time(2)?;
                if expires_at > as_of {
                    first = Some(expires_at);
                    return Ok(ControlFlow::Break(()));
                }
                let meter = if row.is_null(1) { None } else { Some(row.text(1)?) };
                let quantity = if row.is_null(3) { None } else { Some(stored(row, 3)?) };
                if let Some(sum) = sums.iter_mut().find(|sum| sum.is_for(meter.as_deref(), quantity.is_some())) {
                    sum.amount = sum.amount.checked_sub(&stored(row, 0)?).map_err(too_large)?;
                    if let Some((sum, expired)) = sum.quantity.as_mut().zip(quantity) {
                        *sum = sum.checked_sub(&expired).map_err(too_large)?;
                    }
                }
                any_expired = true;
                Ok(ControlFlow::Continue(()))
            })?;
            // Those that have expired are still marked as open: whoever marks them looks again.
            if !any_expired {
                self.totals.held_until = first;
            }
        }
        let mut promised = Vec::new();
        for (meter, quantity, amount) in
            sums.iter().filter_map(|sum| Some((sum.meter.as_ref()?, sum.quantity?, sum.amount)))
        {
            if quantity.is_positive() {
                promised.push(Promised { meter: meter.clone(), quantity, minor: self.money(&amount)? });
            }
        }
        self.promised = promised;
        let mut held = Vec::new();
        let dead = self.purse.lots.iter().filter(|lot| lot.expires_at <= as_of).map(|lot| lot.expires_at).max();
        if let Some(died) = dead.filter(|died| sums.iter().any(|sum| sum.since < *died)) {
            let args = who.into_iter().map(DatumWithOid::from).chain([spi::time(as_of), spi::time(died)]);
            let args: Vec<DatumWithOid<'_>> = args.collect();
            spi::run(
                "SELECT meter_key, amount, created_at, quantity IS NOT NULL FROM meterflow.holds WHERE tenant_id = $1 AND customer_id = $2 AND currency = $3 \
                    AND status = 'open' AND expires_at > $4 AND created_at < $5 ORDER BY created_at, id",
                &args,
                See::Statement,
                |row| {
                    let meter = if row.is_null(0) { None } else { Some(row.text(0)?) };
                    let (amount, of_quantity) = (stored(row, 1)?, row.bool(3)?);
                    if let Some(sum) = sums.iter_mut().find(|sum| sum.is_for(meter.as_deref(), of_quantity)) {
                        sum.amount = sum.amount.checked_sub(&amount).map_err(too_large)?;
                    }
                    held.push(Reserve { meter, minor: self.money(&amount)?, at: row.time(2)? });
                    Ok(())
                },
            )?;
        }
        for sum in sums {
            held.push(Reserve { minor: self.money(&sum.amount)?, meter: sum.meter, at: as_of });
        }
        held.retain(|reserve| reserve.minor != 0);
        // One order, whatever came first: what is held for anything, and then by meter.
        held.sort_by(|a, b| a.meter.cmp(&b.meter));
        (self.held, self.expired_holds) = (held, any_expired);
        Ok(())
    }

    /// Reads credit again that has expired since a time. Holds stay as they are: whoever asks may have let go of one.
    pub fn bring_back(&mut self, since: i64) -> Outcome<()> {
        let load = if self.past { super::load_past } else { load };
        let (held, promised) = (std::mem::take(&mut self.held), std::mem::take(&mut self.promised));
        *self = load(&self.tenant, &self.customer, &self.currency, self.purse.as_of, since)?;
        (self.held, self.promised, self.charged_since) = (held, promised, since);
        self.purse.settle().map_err(too_large)?;
        Ok(())
    }

    /// Whose it is and of when, without what is in it.
    pub fn named(&self) -> Account {
        let purse = Purse { digits: self.purse.digits, wallets: Vec::new(), lots: Vec::new(), as_of: self.purse.as_of };
        Account {
            tenant: self.tenant.clone(),
            customer: self.customer.clone(),
            currency: self.currency.clone(),
            totals: Totals::default(),
            purse,
            held: Vec::new(),
            promised: Vec::new(),
            aside: Vec::new(),
            grants_at: Vec::new(),
            ..*self
        }
    }

    /// Takes out of the purse what active holds have set aside, so that what burns now keeps what it can use. Holds for
    /// anything go first, those for a meter have limited wallets too. Returns what no credit is there for, in minor units.
    pub fn set_aside(&mut self) -> Outcome<i128> {
        let held = std::mem::take(&mut self.held);
        let mut nowhere = 0;
        for Reserve { meter, minor, at } in &held {
            let covered = |wallet: &Wallet| covers(wallet, meter.as_deref());
            nowhere += self
                .purse
                .reserve(*minor, *at, covered, |wallet| covers(wallet, None), &mut self.aside)
                .map_err(too_large)?;
        }
        self.held = held;
        Ok(nowhere)
    }

    /// How far wallets that pay for anything may still go below zero, in minor units.
    pub fn may_owe(&self) -> Outcome<i128> {
        let mut sum = 0_i128;
        for (place, wallet) in self.purse.wallets.iter().enumerate().filter(|(_, wallet)| covers(wallet, None)) {
            let owed = self.purse.minor(place, &wallet.overdraft, Rounding::Up).map_err(too_large)?;
            sum = match wallet.limit {
                Limit::Unlimited => i128::MAX,
                Limit::Of(limit) => sum.saturating_add(self.money(&limit)?.saturating_sub(owed).max(0)),
            };
        }
        Ok(sum)
    }

    /// Takes a hold out of what active holds have set aside.
    pub fn let_go(
        &mut self,
        amount: &Amount,
        meter: Option<&str>,
        quantity: Option<&Amount>,
        made_at: i64,
    ) -> Outcome<()> {
        let mut minor = self.money(amount)?;
        let promised = self.promised.iter_mut().find(|promised| meter == Some(promised.meter.as_str()));
        if let Some((promised, quantity)) = promised.zip(quantity) {
            promised.quantity = promised.quantity.checked_sub(quantity).map_err(too_large)?;
            promised.minor -= minor;
        }
        // One by one those that dead lots can pay, else in a sum, which comes after these.
        let own = |reserve: &&mut Reserve| {
            reserve.meter.as_deref() == meter && reserve.at == made_at && reserve.minor == minor
        };
        if let Some(reserve) = self.held.iter_mut().find(own) {
            reserve.minor = 0;
            return Ok(());
        }
        let same = |reserve: &&mut Reserve| reserve.meter.as_deref() == meter && reserve.minor > 0;
        for reserve in self.held.iter_mut().rev().filter(same) {
            let part = minor.min(reserve.minor);
            reserve.minor -= part;
            minor -= part;
        }
        Ok(())
    }

    pub fn has_coming(&self) -> bool {
        self.purse.lots.iter().any(|lot| matches!(lot.source, Source::Coming { .. }))
    }

    /// When the grant that something was taken of was made.
    pub fn created(&self, taken: &Taken) -> i64 {
        self.purse.lots[taken.lot].created_at
    }

    /// Minor units of an amount that is whole in them.
    pub fn money(&self, amount: &Amount) -> Outcome<i128> {
        crate::core::ledger::minor_of(amount, self.purse.digits, Rounding::HalfUp).map_err(too_large)
    }

    /// An amount in the currency, with all its decimals.
    pub fn shown(&self, minor: i128) -> String {
        crate::core::pricing::Money::new(minor.into(), self.purse.digits).to_string()
    }
}

/// Whether a wallet pays for usage of a meter; `None`: for anything, which a limited wallet does not.
pub fn covers(wallet: &Wallet, meter: Option<&str>) -> bool {
    let scope = &wallet.scope;
    let usage = scope.kinds.is_empty() || scope.kinds.contains(&LineKind::Usage);
    match meter {
        None => scope.meters.is_empty() && scope.prices.is_empty() && scope.plans.is_empty() && scope.kinds.is_empty(),
        Some(meter) => {
            usage
                && (scope.meters.is_empty() || scope.meters.iter().any(|known| known == meter))
                && scope.prices.is_empty()
                && scope.plans.is_empty()
        }
    }
}
