//! What is to be charged: what every cell of a subscription comes to by all that is known now, less what invoices have
//! charged of it already.
//!
//! # Why it is enough
//! A cell is one price in one billing period (`core::subscription`), and every line of an invoice is of one cell and says
//! which. So the lines of a cell always add up to what the cell came to when it was last billed. Whatever happened
//! since, late or corrected events, a change of plan, quantity or price, a pause, a cancellation, shows as a difference
//! and is charged or given back as one line, an adjustment that names the invoice it adjusts; tiers, packages and
//! minimums are those of the whole cumulative quantity. When nothing happened there is no line: billing again is free.
//!
//! Money is rounded once: a cell's price to its currency's digits. A fee for a part of a period is rounded so that the
//! parts add up to the whole (`core::proration`), so to change and change back within a period costs nothing.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::core::decimal::QuantityError;
use crate::core::pricing::{Amount, Money, PriceError, Silent, Terms, Usage, price_with};
use crate::core::proration::{Method, Proration};
use crate::core::ranges::Ranges;
use crate::core::subscription::{Cell, Charge};
use crate::core::{calendar, pricing};
use crate::pg::error::{Fail, Outcome, SqlState};
use crate::pg::scan::{self, Is, Value};
use crate::pg::spi::{self, See};

use super::load::{Account, PriceTerms, unreckonable};
use super::quantities::{self, Wanted};
use super::tables;

/// Which cells are asked for.
#[derive(Clone, Copy, PartialEq)]
pub enum Purpose {
    /// Everything that has begun: what the open periods cost so far.
    Open,
    /// The same as it was then, by what is known now: later usage is left out, and what later invoices have charged.
    Past,
    /// What is due by then: periods that have ended, fees of those that have begun.
    Due,
    /// Of the usage of open periods what can be billed before they end.
    Progressive,
}

/// One line to be: a cell, and what is left to charge of it.
pub struct Line {
    pub customer: String,
    /// The cell; None for a line that was written by hand.
    pub cell: Option<CellKey>,
    pub price_key: Option<String>,
    pub plan_key: Option<String>,
    pub meter_key: Option<String>,
    pub description: String,
    pub charge: Charge,
    pub applies: Ranges,
    pub model: Option<String>,
    /// What a unit of the model's amounts is worth in money; None when they are money.
    pub credit_rate: Option<Amount>,
    pub proration: Option<String>,
    pub timezone: Option<String>,
    pub usage: Usage,
    /// What the usage was priced on.
    pub terms: Terms,
    pub taxes: Option<Vec<String>>,
    /// What the cell comes to in all.
    pub due: Priced,
    /// What live invoices have charged of it.
    pub before: Priced,
    /// The first invoice that charged it.
    pub adjusts: Option<i64>,
}

#[derive(Clone, Copy, Default)]
pub struct Priced {
    pub unrounded: Amount,
    /// In minor units.
    pub minor: i128,
}

impl Line {
    pub fn minor(&self) -> i128 {
        self.due.minor - self.before.minor
    }

    /// Whether there is anything to charge or to show: a cell that is as it was billed has no line.
    pub fn says_something(&self) -> bool {
        match self.adjusts {
            Some(_) => self.minor() != 0,
            None => self.due.minor != 0 || !self.usage.quantity.is_zero() || !self.due.unrounded.is_zero(),
        }
    }

    pub fn unrounded(&self) -> Outcome<Amount> {
        self.due.unrounded.checked_sub(&self.before.unrounded).map_err(|error| too_large(&self.description, error))
    }
}

/// What live invoices have charged of a cell, summed over their lines; the details are the first line's.
struct Billed {
    priced: Priced,
    first_invoice: i64,
    line: Line,
}

/// Identity of a cell, as lines keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CellKey {
    pub subscription_id: i64,
    /// Of a fee.
    pub item_id: Option<i64>,
    pub price_id: i64,
    /// The whole period: a week and a month may begin alike.
    pub cycle_start: i64,
    pub cycle_end: i64,
}

impl CellKey {
    fn of(account: &Account, cell: &Cell) -> CellKey {
        CellKey {
            subscription_id: account.timeline.id,
            item_id: cell.item.map(|item| account.timeline.items[item].id),
            price_id: account.plans[cell.plan].prices[cell.price].id,
            cycle_start: cell.period.period.start,
            cycle_end: cell.period.period.end,
        }
    }
}

/// The lines of one subscription, in order of period, then as prices are listed; also those with nothing on them, which
/// [`Line::says_something`] tells.
pub fn lines(tenant: &str, account: &Account, at: i64, adjust_for: i64, purpose: Purpose) -> Outcome<Vec<Line>> {
    let from = looked_at_from(account, at, adjust_for);
    let mut billed = billed(tenant, account, from, (purpose == Purpose::Past).then_some(at))?;
    // As far ahead as anything is billed: an invoice that takes the place of an old one comes before others.
    let ahead = billed.keys().map(|cell| cell.cycle_end).fold(at.saturating_add(1), i64::max);
    let asked = |cell: &Cell| {
        let charge = account.plans[cell.plan].prices[cell.price].charge;
        match purpose {
            Purpose::Open | Purpose::Past => cell.period.start <= at,
            Purpose::Due => cell.due_at(charge) <= at,
            Purpose::Progressive => charge == Charge::Usage && cell.period.start <= at && cell.period.end > at,
        }
    };
    // What a commitment over several periods has come to before the open one.
    let told = |cell: &Cell| {
        purpose == Purpose::Progressive && cell.period.end <= at && spans(&account.terms[cell.plan].prices[cell.price])
    };
    let (cells, others): (Vec<Cell>, Vec<Cell>) = account
        .timeline
        .cells(&account.plans, from, ahead)
        .map_err(unreckonable)?
        .into_iter()
        .partition(|cell| asked(cell) || told(cell));
    let wanted: Vec<bool> = cells.iter().map(asked).collect();
    let mut told = Vec::new();
    for (cell, usage) in with_usage(tenant, account, cells, if purpose == Purpose::Past { at } else { i64::MAX })? {
        told.push(line(account, &cell, usage, purpose, &told)?);
    }
    let mut lines: Vec<Line> =
        told.into_iter().zip(wanted).filter_map(|(line, wanted)| wanted.then_some(line)).collect();
    for line in &mut lines {
        if let Some(billed) = line.cell.and_then(|cell| billed.remove(&cell)) {
            line.before = billed.priced;
            line.adjusts = Some(billed.first_invoice);
        }
    }
    // What exists and was not asked for stays as it was billed.
    for cell in &others {
        billed.remove(&CellKey::of(account, cell));
    }
    if purpose != Purpose::Progressive {
        // Charged once, and by what is known now not at all: after a change of the past.
        lines.extend(billed.into_values().map(|billed| Line {
            due: Priced::default(),
            before: billed.priced,
            adjusts: Some(billed.first_invoice),
            ..billed.line
        }));
    }
    Ok(lines)
}

/// Whether a price has a commitment over several periods.
fn spans(price: &PriceTerms) -> bool {
    price.model.commitment_periods().is_some_and(|periods| periods > 1)
}

/// Periods that end after this are looked at: those that nobody has billed, those in which something may still change,
/// and with a commitment over several periods all.
fn looked_at_from(account: &Account, at: i64, adjust_for: i64) -> i64 {
    if account.terms.iter().flat_map(|plan| &plan.prices).any(spans) {
        return i64::MIN;
    }
    account.billed_to.map_or(i64::MIN, |billed_to| billed_to.min(at).saturating_sub(adjust_for))
}

/// `then`: what had been billed at that time.
fn billed(tenant: &str, account: &Account, from: i64, then: Option<i64>) -> Outcome<BTreeMap<CellKey, Billed>> {
    let mut billed: BTreeMap<CellKey, Billed> = BTreeMap::new();
    let live = match then {
        None => "i.status IN ('finalized', 'paid')",
        Some(_) => "i.issued_at <= $4 AND (i.voided_at IS NULL OR i.voided_at > $4)",
    };
    let lines = [
        (0, Is::Equal, Value::Text(tenant)),
        (1, Is::Equal, Value::Int8(account.timeline.id)),
        (2, Is::Above, Value::Time(from)),
    ];
    if !scan::any(&tables::BILLED, &lines)? {
        return Ok(billed);
    }
    let mut args = vec![tenant.into(), account.timeline.id.into(), spi::time(from)];
    args.extend(then.map(spi::time));
    let sql = format!(
        "SELECT l.item_id, l.price_id, l.cycle_start, l.cycle_end, l.amount::text, l.unrounded::text, l.invoice_id, l.customer_id, l.price_key, l.plan_key, \
                l.meter_key, l.description, l.model::text, l.proration, l.timezone, l.period_start, l.period_end, l.taxes::text, l.credit_rate::text \
           FROM meterflow.invoice_lines l JOIN meterflow.invoices i ON i.tenant_id = l.tenant_id AND i.id = l.invoice_id \
          WHERE l.tenant_id = $1 AND l.subscription_id = $2 AND l.cycle_end > $3 AND {live} ORDER BY l.invoice_id, l.line"
    );
    spi::run(&sql, &args, See::Statement, |row| {
        let text = |column: usize| if row.is_null(column) { Ok(None) } else { row.text(column).map(Some) };
        let item_id: Option<i64> = row.get(0);
        let (price_id, cycle) = (row.int8(1)?, (row.time(2)?, row.time(3)?));
        let line =
            Priced { unrounded: stored_amount(&row.text(5)?)?, minor: stored_minor(&row.text(4)?, account.digits)? };
        let invoice = row.int8(6)?;
        let meter_key = text(10)?;
        let charge = match (&meter_key, item_id) {
            (Some(_), _) => Charge::Usage,
            _ => Charge::Advance,
        };
        let cell = CellKey {
            subscription_id: account.timeline.id,
            item_id,
            price_id,
            cycle_start: cycle.0,
            cycle_end: cycle.1,
        };
        let known = billed.entry(cell).or_insert(Billed {
            priced: Priced::default(),
            first_invoice: invoice,
            line: Line {
                customer: row.text(7)?,
                cell: Some(cell),
                price_key: text(8)?,
                plan_key: text(9)?,
                meter_key,
                description: row.text(11)?,
                charge,
                applies: Ranges::of(row.time(15)?, row.time(16)?),
                model: text(12)?,
                credit_rate: text(18)?.map(|rate| stored_amount(&rate)).transpose()?,
                proration: text(13)?,
                timezone: text(14)?,
                usage: Usage::default(),
                terms: Terms::default(),
                taxes: Some(tax_keys(&row.text(17)?)?),
                due: Priced::default(),
                before: Priced::default(),
                adjusts: None,
            },
        });
        known.priced.minor += line.minor;
        known.priced.unrounded =
            known.priced.unrounded.checked_add(&line.unrounded).map_err(|error| too_large("billed", error))?;
        Ok(())
    })?;
    Ok(billed)
}

/// The usage of the cells that charge any, before a time, from as few questions as can be.
fn with_usage(tenant: &str, account: &Account, cells: Vec<Cell>, until: i64) -> Outcome<Vec<(Cell, Usage)>> {
    let known = Ranges::of(i64::MIN, until);
    let applies: Vec<Ranges> = cells.iter().map(|cell| cell.applies.intersect(&known)).collect();
    let mut places = Vec::new();
    let mut wanted = Vec::new();
    for (place, cell) in cells.iter().enumerate() {
        let terms = &account.terms[cell.plan].prices[cell.price];
        if let Some(meter_key) = &terms.meter_key {
            places.push(place);
            wanted.push(Wanted { meter_key, applies: &applies[place], needs: terms.model.needs() });
        }
    }
    let mut usages: FxHashMap<usize, Usage> = FxHashMap::default();
    if !wanted.is_empty() {
        let found = quantities::collect(tenant, &account.timeline.customer, &wanted)?;
        usages = places.into_iter().zip(found).collect();
    }
    let fee = |cell: &Cell| {
        let key = &account.plans[cell.plan].prices[cell.price].key;
        let item = cell.item.map(|item| &account.timeline.items[item]);
        Usage::of(item.map_or(Amount::ZERO, |item| item.quantity(key)))
    };
    let with_usage = |(place, cell): (usize, Cell)| {
        let usage = usages.remove(&place).unwrap_or_else(|| fee(&cell));
        (cell, usage)
    };
    Ok(cells.into_iter().enumerate().map(with_usage).collect())
}

/// What a cell comes to. `earlier` are the lines of the subscription's cells before it, for a commitment that runs on.
fn line(account: &Account, cell: &Cell, usage: Usage, purpose: Purpose, earlier: &[Line]) -> Outcome<Line> {
    let (plan, price) = (&account.plans[cell.plan], &account.plans[cell.plan].prices[cell.price]);
    let terms = &account.terms[cell.plan].prices[cell.price];
    let rate = account.terms[cell.plan].credit_rate.as_ref();
    let mut on = Terms::default();
    let due = match price.charge {
        Charge::Usage => {
            on = usage_terms(account, cell, purpose, earlier)?;
            let priced =
                price_with(&terms.model, &usage, &on, &mut Silent).map_err(|error| unpriceable(&price.key, error))?;
            rounded(&price.key, worth(&price.key, priced.amount, rate)?, account.digits)?
        }
        Charge::Once | Charge::Advance | Charge::Arrears => {
            let whole = pricing::price(&terms.model, &usage).map_err(|error| unpriceable(&price.key, error))?.amount;
            let whole = worth(&price.key, whole, rate)?;
            if price.charge == Charge::Once {
                rounded(&price.key, whole, account.digits)?
            } else {
                let period = (cell.period.period.start, cell.period.period.end);
                share_of(&whole, &cell.applies, period, terms.proration, &account.timeline.timezone, account.digits)
                    .map_err(|fail| fail.detail(format!("The fee is \"{}\".", price.key)))?
            }
        }
    };
    Ok(Line {
        customer: account.timeline.customer.clone(),
        cell: Some(CellKey::of(account, cell)),
        price_key: Some(price.key.clone()),
        plan_key: Some(plan.key.clone()),
        meter_key: terms.meter_key.clone(),
        description: terms.name.clone().unwrap_or_else(|| price.key.clone()),
        charge: price.charge,
        applies: cell.applies.clone(),
        model: Some(terms.model_text.clone()),
        credit_rate: rate.copied(),
        proration: Some(terms.proration_text.clone()),
        timezone: Some(account.timeline.timezone.clone()),
        usage,
        terms: on,
        taxes: terms.taxes.clone(),
        due,
        before: Priced::default(),
        adjusts: None,
    })
}

/// An amount in credit units as money, exactly.
pub fn worth(key: &str, amount: Amount, rate: Option<&Amount>) -> Outcome<Amount> {
    match rate {
        None => Ok(amount),
        Some(rate) => amount.checked_mul(rate).map_err(|error| too_large(key, error)),
    }
}

pub fn rounded(key: &str, unrounded: Amount, digits: u32) -> Outcome<Priced> {
    let money = unrounded.round(digits).map_err(|error| too_large(key, error))?;
    Ok(Priced { unrounded, minor: minor(money)? })
}

/// What a price of usage needs to know besides the usage: whether the period is over, and for a commitment over several
/// periods, which begin with the first the price is charged in, what the earlier ones of them cost.
fn usage_terms(account: &Account, cell: &Cell, purpose: Purpose, earlier: &[Line]) -> Outcome<Terms> {
    let price = &account.plans[cell.plan].prices[cell.price];
    let model = &account.terms[cell.plan].prices[cell.price].model;
    let mut terms = Terms { closing: purpose != Purpose::Progressive, ..Terms::default() };
    if let Some(periods) = model.commitment_periods().filter(|&periods| periods > 1) {
        let before: Vec<&Line> =
            earlier.iter().filter(|line| line.cell.is_some_and(|cell| cell.price_id == price.id)).collect();
        let place = before.len() % periods as usize;
        for line in &before[before.len() - place..] {
            let cost = pricing::price(model, &line.usage).map_err(|error| unpriceable(&price.key, error))?.cost;
            terms.prior_cost = terms.prior_cost.checked_add(&cost).map_err(|error| too_large(&price.key, error))?;
        }
        terms.commitment_closing = place + 1 == periods as usize || cell.period.end >= account.timeline.ends_at;
    }
    Ok(terms)
}

/// A fee's part of its whole period, piece by piece.
pub fn share_of(
    whole: &Amount,
    applies: &Ranges,
    period: (i64, i64),
    method: Method,
    timezone: &str,
    digits: u32,
) -> Outcome<Priced> {
    let zone = calendar::zone(timezone).map_err(unreckonable)?;
    let mut share = Priced::default();
    for &piece in applies.as_slice() {
        let part = Proration::between(piece, period, method, &zone).map_err(unreckonable)?;
        let unrounded = part.unrounded(whole).and_then(|part| share.unrounded.checked_add(&part));
        share.unrounded = unrounded.map_err(|error| too_large("fee", error))?;
        share.minor += minor(part.money(whole, digits).map_err(|error| too_large("fee", error))?)?;
    }
    Ok(share)
}

/// Minor units; more than 38 digits of money are an error.
pub fn minor(money: Money) -> Outcome<i128> {
    i128::try_from(money.minor()).map_err(|_| too_large("the price", QuantityError::TooLarge))
}

pub fn stored_amount(text: &str) -> Outcome<Amount> {
    Amount::parse(text).map_err(|error| Fail::corrupt(format!("the stored amount {text}: {error}")))
}

pub fn stored_minor(text: &str, digits: u32) -> Outcome<i128> {
    let money = stored_amount(text)?
        .round(digits)
        .map_err(|error| Fail::corrupt(format!("the stored amount {text}: {error}")))?;
    minor(money)
}

/// The keys in a line's `taxes`.
fn tax_keys(json: &str) -> Outcome<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Tax {
        key: String,
    }
    let taxes: Vec<Tax> =
        serde_json::from_str(json).map_err(|error| Fail::corrupt(format!("the taxes of an invoice line: {error}")))?;
    Ok(taxes.into_iter().map(|tax| tax.key).collect())
}

pub fn unpriceable(price: &str, error: PriceError) -> Fail {
    match error {
        PriceError::Range(error) => too_large(price, error),
        PriceError::Missing(missing) => Fail::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("price \"{price}\" can not be computed from its meter"),
        )
        .detail(format!("It needs {missing}, which this meter does not have."))
        .hint("Use a meter with buckets for a bucketed price; events that carry values for a percentage of each."),
    }
}

fn too_large(price: &str, error: QuantityError) -> Fail {
    Fail::new(SqlState::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, format!("price \"{price}\" can not be computed exactly"))
        .detail(format!("{error}."))
        .hint("Exact results have up to 76 digits in all.")
}
