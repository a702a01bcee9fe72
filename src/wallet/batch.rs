//! Many debits at once: one lock, one read and a few writes for all of them, however many there are of a customer.

use std::collections::{BTreeMap, HashMap};

use crate::core::currency;
use crate::core::pricing::Amount;
use crate::ledger::{self, Account, Act, Books, Journal, Locked, covers, tables};
use crate::pg::datum::sha256;
use crate::pg::error::Outcome;
use crate::pg::scan::{Is, Reader, Value};
use crate::pg::session;
use crate::pg::spi;
use crate::rating::no_money;

use super::args::{Sum, body, used_otherwise};
use super::position::{Position, insufficient};
use super::verbs::{Of, spend};

/// The transaction of a debit, or why there is none: code and message.
pub type Debited = Result<i64, (&'static str, String)>;

struct Asked<'a> {
    customer: &'a str,
    amount: Amount,
    key: &'a str,
    body: String,
}

struct Payer {
    position: Position,
    /// What the debits before have left of what can be spent; None: without limit.
    capacity: Option<i128>,
    /// Whether there were any.
    debited: bool,
}

/// Debits money, item by item in the order given.
pub fn debits(
    tenant: &str,
    customers: &[Option<String>],
    amounts: &[Option<pgrx::AnyNumeric>],
    currency: &str,
    keys: &[Option<String>],
) -> Outcome<Vec<Debited>> {
    let digits = currency::digits(currency).map_err(|error| {
        no_money(error, currency).hint("debit_rows() takes money; debit() also takes credit units.")
    })?;
    let asked: Vec<Result<Asked<'_>, (&'static str, String)>> = customers
        .iter()
        .zip(amounts)
        .zip(keys)
        .map(|((customer, amount), key)| read(customer.as_deref(), amount.as_ref(), key.as_deref(), currency, digits))
        .collect();

    let mut names: Vec<&str> = asked.iter().flatten().map(|asked| asked.customer).collect();
    names.sort_unstable();
    names.dedup();
    // Of others nothing can be debited, and nobody has to be kept from it.
    let locked = ledger::lock_all(tenant, &names, currency)?;
    let now = session::now();
    let mut accounts = spi::in_new_snapshot(|| load_all(tenant, locked, currency, now))?;
    for (name, account) in &mut accounts {
        if account.has_coming() || account.purse.wallets.iter().any(|wallet| wallet.overdraft.is_positive()) {
            ledger::bring_locked_up_to(tenant, name, currency, now, now)?;
            *account = spi::in_new_snapshot(|| ledger::load(tenant, name, currency, now, now))?;
        }
    }
    spi::in_new_snapshot(|| {
        let mut known = known_keys(tenant, asked.iter().flatten())?;
        let mut payers = BTreeMap::new();
        for (name, account) in accounts {
            let position = Position::of(account)?;
            let capacity = position.capacity(|wallet| covers(wallet, None))?;
            payers.insert(name, Payer { position, capacity, debited: false });
        }
        let mut journal = Journal::new(tenant, now);
        let mut outcomes = Vec::with_capacity(asked.len());
        for asked in asked {
            let asked = match asked {
                Ok(asked) => asked,
                Err(refused) => {
                    outcomes.push(Err(refused));
                    continue;
                }
            };
            match known.get(asked.key) {
                Some((id, body)) if *body == asked.body => {
                    outcomes.push(Ok(*id));
                    continue;
                }
                Some(_) => {
                    outcomes.push(Err(("conflict", used_otherwise(asked.key).message().to_string())));
                    continue;
                }
                None => {}
            }
            let Some(payer) = payers.get_mut(asked.customer) else {
                outcomes.push(Err(("unknown_customer", format!("there is no customer \"{}\"", asked.customer))));
                continue;
            };
            let outcome = debit(payer, &mut journal, &asked)?;
            if let Ok(id) = outcome {
                known.insert(asked.key.to_string(), (id, asked.body));
            }
            outcomes.push(outcome);
        }
        let debited: Vec<&Account> =
            payers.values().filter(|payer| payer.debited).map(|payer| &payer.position.account).collect();
        // Refusals and retries write nothing, and nobody is told of them.
        if !debited.is_empty() {
            journal.write(debited)?;
        }
        Ok(outcomes)
    })
}

fn debit(payer: &mut Payer, journal: &mut Journal, asked: &Asked<'_>) -> Outcome<Debited> {
    let Payer { position, capacity, debited } = payer;
    let of = Of { wallet: None, meter: None };
    let sum = Sum {
        currency: position.account.currency.clone(),
        unit: None,
        digits: position.account.purse.digits,
        amount: asked.amount,
    };
    let minor = sum.minor()?;
    if let Some(capacity) = capacity {
        if *capacity < minor {
            return Ok(Err(("insufficient_credit", insufficient(&position.account, minor, *capacity).explained())));
        }
        *capacity -= minor;
    }
    let act = Act { kind: "debit", key: Some((asked.key, &asked.body)), ..Act::default() };
    let transaction = journal.act(&position.account, &act)?;
    spend(position, journal, transaction, &sum, of, false)?;
    *debited = true;
    Ok(Ok(transaction))
}

fn read<'a>(
    customer: Option<&'a str>,
    amount: Option<&pgrx::AnyNumeric>,
    key: Option<&'a str>,
    currency: &str,
    digits: u32,
) -> Result<Asked<'a>, (&'static str, String)> {
    let (Some(customer), Some(amount), Some(key)) = (customer, amount, key.filter(|key| !key.is_empty())) else {
        return Err(("missing", "a debit needs a customer, an amount and an idempotency key".to_string()));
    };
    let text = amount.to_string();
    let amount = Amount::parse(&text).ok().filter(|amount| amount.is_positive() && amount.shortest().scale() <= digits);
    let Some(amount) = amount else {
        return Err(("invalid_amount", format!("{text} is not an amount of {currency} above zero")));
    };
    // As debit() writes it, so that either is a retry of the other.
    let none: Option<&str> = None;
    let body = body(&[&"debit", &customer, &amount, &currency, &none, &none, &none, &0_i64]);
    Ok(Asked { customer, amount, key, body })
}

fn load_all<'a>(
    tenant: &str,
    locked: Vec<(&'a str, Locked)>,
    currency: &str,
    now: i64,
) -> Outcome<BTreeMap<&'a str, Account>> {
    let mut books = Books::open()?;
    let account = |(name, found)| Ok((name, books.account(tenant, name, currency, (now, now), Some(found))?));
    locked.into_iter().map(account).collect()
}

/// Transactions that have these keys, with the body where it is ours.
fn known_keys<'a>(tenant: &str, asked: impl Iterator<Item = &'a Asked<'a>>) -> Outcome<HashMap<String, (i64, String)>> {
    let mut known = HashMap::new();
    let mut transactions = Reader::open(&tables::TRANSACTION_KEYS)?;
    for asked in asked {
        let key = [(0, Is::Equal, Value::Text(tenant)), (1, Is::Equal, Value::Text(asked.key))];
        transactions.rows(&key, |row| {
            // Another debit of the batch may have the key too, and be what it was first used for.
            if !row.is_null(1) && *row.bytes(1)? == *sha256(&asked.body) {
                known.insert(asked.key.to_string(), (row.int8(0)?, asked.body.clone()));
            } else {
                known.entry(asked.key.to_string()).or_insert((row.int8(0)?, String::new()));
            }
            Ok(())
        })?;
    }
    Ok(known)
}
