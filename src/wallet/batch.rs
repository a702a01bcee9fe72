//! Many debits at once: one lock, one read and a few writes for all of them, however many there are of a customer.

use std::collections::{BTreeMap, HashMap};

use pgrx::datum::DatumWithOid;

use crate::core::currency;
use crate::core::pricing::Amount;
use crate::ledger::{self, Account, Act, Journal, covers};
use crate::pg::error::{Fail, Outcome};
use crate::pg::session;
use crate::pg::spi::{self, See};

use super::args::{body, used_otherwise};
use super::position::{capacity, insufficient};
use super::verbs::{Of, spend};

/// The transaction of a debit, or why there is none: code and message.
pub type Debited = Result<i64, (&'static str, String)>;

struct Asked<'a> {
    customer: &'a str,
    amount: Amount,
    key: &'a str,
    body: String,
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
        Fail::parameter(format!("\"{currency}\" is not a currency that money can be in: {error}"))
            .hint("debit_rows() takes money; debit() also takes credit units.")
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
    let missing = lock_all(tenant, &names, currency)?;
    let now = session::now();
    let mut accounts = spi::in_new_snapshot(|| load_all(tenant, &names, currency, now))?;
    for (name, account) in &mut accounts {
        if account.has_coming() || account.purse.wallets.iter().any(|wallet| wallet.overdraft.is_positive()) {
            ledger::bring_locked_up_to(tenant, name, currency, now, now)?;
            *account = spi::in_new_snapshot(|| ledger::load(tenant, name, currency, now, now))?;
        }
    }
    spi::in_new_snapshot(|| {
        let mut known = known_keys(tenant, asked.iter().flatten())?;
        let mut debtors = BTreeMap::new();
        for (name, account) in accounts {
            debtors.insert(name, Debtor::of(account, now)?);
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
            let Some(debtor) = debtors.get_mut(asked.customer).filter(|_| !missing.contains(&asked.customer)) else {
                outcomes.push(Err(("unknown_customer", format!("there is no customer \"{}\"", asked.customer))));
                continue;
            };
            let outcome = debit(debtor, &mut journal, &asked)?;
            if let Ok(id) = outcome {
                known.insert(asked.key.to_string(), (id, asked.body));
            }
            outcomes.push(outcome);
        }
        journal.write(&debtors.values().map(|debtor| &debtor.account).collect::<Vec<_>>())?;
        Ok(outcomes)
    })
}

/// A customer whose debits these are.
struct Debtor {
    /// Without what holds have set aside.
    account: Account,
    /// What can still be spent; None: without limit. Told once: each debit takes of it what it takes.
    capacity: Option<i128>,
}

const ANY: Of<'_> = Of { wallet: None, meter: None };

impl Debtor {
    fn of(mut account: Account, now: i64) -> Outcome<Debtor> {
        let capacity = capacity(&account, |wallet| ANY.covers(wallet))?;
        account.set_aside(|lot, wallet| lot.is_live(now) && covers(wallet, None))?;
        Ok(Debtor { account, capacity })
    }
}

fn debit(debtor: &mut Debtor, journal: &mut Journal, asked: &Asked<'_>) -> Outcome<Debited> {
    let account = &mut debtor.account;
    let minor = account.money(&asked.amount)?;
    if let Some(capacity) = &mut debtor.capacity {
        if *capacity < minor {
            return Ok(Err(("insufficient_credit", insufficient(account, minor, *capacity).explained())));
        }
        *capacity -= minor;
    }
    let sum = super::args::Sum {
        currency: account.currency.clone(),
        unit: None,
        digits: account.purse.digits,
        amount: asked.amount,
    };
    let act = Act { kind: "debit", key: Some((asked.key, &asked.body)), ..Act::default() };
    let transaction = journal.act(account, &act)?;
    spend(account, journal, transaction, &sum, minor, ANY, false)?;
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

/// Locks customers in order; returns those that are not there.
fn lock_all<'a>(tenant: &str, names: &[&'a str], currency: &str) -> Outcome<Vec<&'a str>> {
    let list: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
    let ours = "FROM meterflow.wallet_totals WHERE tenant_id = $1 AND customer_id = ANY ($2) AND currency = $3";
    let args = || -> [DatumWithOid<'_>; 3] { [tenant.into(), list.clone().into(), currency.into()] };
    if spi::run(&format!("SELECT {ours}"), &args(), See::Latest, |_| Ok(()))? == names.len() as u64 {
        let sql = format!("SELECT {ours} ORDER BY customer_id FOR NO KEY UPDATE");
        spi::run(&sql, &args(), See::Write, |_| Ok(()))?;
        return Ok(Vec::new());
    }
    // Some have never had credit: these are opened, each in its turn.
    let mut missing = Vec::new();
    for name in names {
        if !ledger::lock_if_customer(tenant, name, currency)? {
            missing.push(*name);
        }
    }
    Ok(missing)
}

fn load_all<'a>(tenant: &str, names: &[&'a str], currency: &str, now: i64) -> Outcome<BTreeMap<&'a str, Account>> {
    names.iter().map(|name| Ok((*name, ledger::load(tenant, name, currency, now, now)?))).collect()
}

/// Transactions that have these keys, with the body where it is ours.
fn known_keys<'a>(tenant: &str, asked: impl Iterator<Item = &'a Asked<'a>>) -> Outcome<HashMap<String, (i64, String)>> {
    let (mut keys, mut bodies) = (Vec::new(), Vec::new());
    for asked in asked {
        keys.push(asked.key.to_string());
        bodies.push(asked.body.clone());
    }
    let mut known = HashMap::new();
    let args: [DatumWithOid<'_>; 3] = [tenant.into(), keys.into(), bodies.into()];
    spi::run(
        "SELECT t.id, t.idempotency_key, CASE WHEN t.body_hash = sha256(convert_to(a.body, 'UTF8')) THEN a.body ELSE '' END \
           FROM unnest($2::text[], $3::text[]) AS a (key, body) \
           JOIN meterflow.wallet_transactions t ON t.tenant_id = $1 AND t.idempotency_key = a.key",
        &args,
        See::Statement,
        |row| {
            // A key may be asked for with several bodies: the one it was used for counts.
            let body = row.text(2)?;
            if !body.is_empty() || !known.contains_key(&row.text(1)?) {
                known.insert(row.text(1)?, (row.int8(0)?, body));
            }
            Ok(())
        },
    )?;
    Ok(known)
}
