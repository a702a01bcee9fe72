//! What sessions do to credit, as SQL; and what is there before they do.

use postgres::Client;

use crate::event::time;
use crate::server::rows;

pub const DAY: i64 = 86_400_000_000;
pub const CUSTOMERS: usize = 6;
/// Wallets that top-ups make or use; `tok` holds tokens of 25 cents, `api` pays for that meter only.
pub const WALLETS: [&str; 5] = ["first", "default", "api", "tok", "later"];
/// Cents for one unit of usage.
pub const API_PRICE: i64 = 3;
pub const IMG_PRICE: i64 = 11;
pub const TOKEN: i64 = 25;

/// Who buys by subscription.
pub fn subscribes(customer: usize) -> bool {
    customer % 2 == 1
}

/// Whose debits are allowed to take more than there is.
pub fn is_forced(customer: usize) -> bool {
    customer == 4 || customer == 5
}

#[derive(Clone, Debug)]
pub struct Usage {
    pub customer: usize,
    pub api: bool,
    pub quantity: i64,
    pub at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Of {
    Anything,
    Api,
    Wallet(&'static str),
}

#[derive(Clone, Debug)]
pub enum Act {
    Credit {
        promotional: bool,
        customer: usize,
        wallet: &'static str,
        cents: i64,
        priority: i64,
        starts: Option<i64>,
        ends: Option<i64>,
    },
    Debit {
        customer: usize,
        cents: i64,
        of: Of,
        force: bool,
    },
    /// Customer and cents; each with a key of its own.
    Debits(Vec<(usize, i64)>),
    Hold {
        customer: usize,
        cents: i64,
        api: bool,
        millis: i64,
    },
    /// For so many units of the meter api.
    HoldUsage {
        customer: usize,
        quantity: i64,
        millis: i64,
    },
    Capture {
        hold: i64,
        cents: Option<i64>,
    },
    CaptureUsage {
        hold: i64,
        usage: Vec<Usage>,
    },
    Release {
        hold: i64,
    },
    End {
        grant: i64,
        expire: bool,
    },
    Refund {
        transaction: i64,
        cents: Option<i64>,
    },
    Transfer {
        from: i64,
        to: i64,
        cents: i64,
    },
    Use(Vec<Usage>),
    Bill,
    OneOff {
        customer: usize,
        cents: i64,
    },
    Void {
        invoice: i64,
    },
}

/// An act that has been acknowledged: with the ids it made, or the codes of why not.
#[derive(Debug)]
pub struct Done {
    pub key: String,
    pub act: Act,
    pub came_of_it: Vec<Result<i64, String>>,
    /// Client's time, which is the server's.
    pub sent: i64,
    pub acknowledged: i64,
}

pub fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn at(micros: i64) -> String {
    format!("'{}'::timestamptz", time(micros))
}

impl Act {
    pub fn sql(&self, key: &str) -> String {
        let or_null = |time: &Option<i64>| time.map_or("NULL".to_string(), at);
        let amount = |wallet: Option<&str>, cents: i64| match wallet {
            Some("tok") => format!("{}, 'TOK'", cents / TOKEN),
            _ => format!("{}, 'USD'", money(cents)),
        };
        match self {
            Act::Credit { promotional, customer, wallet, cents, priority, starts, ends } => {
                let verb = if *promotional { "grant_credit" } else { "top_up" };
                format!(
                    "SELECT meterflow.{verb}('c{customer}', {}, '{key}', wallet => '{wallet}', priority => {priority}, effective_at => {}, expires_at => {})",
                    amount(Some(wallet), *cents),
                    or_null(starts),
                    ends.map_or("'infinity'".to_string(), at)
                )
            }
            Act::Debit { customer, cents, of, force } => {
                let (wallet, of) = match of {
                    Of::Anything => (None, String::new()),
                    Of::Api => (None, ", meter_key => 'api'".to_string()),
                    Of::Wallet(name) => (Some(*name), format!(", wallet => '{name}'")),
                };
                format!(
                    "SELECT meterflow.debit('c{customer}', {}, '{key}'{of}, allow_overdraft => {force})",
                    amount(wallet, *cents)
                )
            }
            Act::Debits(debits) => {
                let list = |of: &dyn Fn(usize, &(usize, i64)) -> String| {
                    let items: Vec<String> = debits.iter().enumerate().map(|(place, it)| of(place, it)).collect();
                    format!("'{{{}}}'", items.join(","))
                };
                format!(
                    "SELECT transaction_id, code FROM meterflow.debit_rows({}, {}, 'USD', {}) ORDER BY ordinal",
                    list(&|_, (customer, _)| format!("c{customer}")),
                    list(&|_, (_, cents)| money(*cents)),
                    list(&|place, _| format!("{key}/{place}"))
                )
            }
            Act::Hold { customer, cents, api, millis } => {
                let meter = if *api { ", 'api'" } else { "" };
                format!("SELECT meterflow.hold('c{customer}', {}, 'USD', '{millis} ms', '{key}'{meter})", money(*cents))
            }
            Act::HoldUsage { customer, quantity, millis } => {
                format!("SELECT meterflow.hold('c{customer}', NULL, 'USD', '{millis} ms', '{key}', 'api', {quantity})")
            }
            Act::Capture { hold, cents } => {
                format!("SELECT meterflow.capture({hold}, {})", cents.map_or("NULL".to_string(), money))
            }
            Act::CaptureUsage { hold, usage } => {
                format!("SELECT meterflow.capture({hold}, events => '{}')", events(key, usage))
            }
            Act::Release { hold } => format!("SELECT meterflow.release({hold})"),
            Act::End { grant, expire } => {
                let verb = if *expire { "expire_now" } else { "void_grant" };
                format!("SELECT meterflow.{verb}({grant}, '{key}', 'simulated')")
            }
            Act::Refund { transaction, cents } => {
                format!("SELECT meterflow.refund({transaction}, '{key}', {})", cents.map_or("NULL".to_string(), money))
            }
            Act::Transfer { from, to, cents } => format!(
                "SELECT meterflow.transfer({from}, {to}, (SELECT {} FROM meterflow.wallets WHERE id = {from}), '{key}')",
                format_args!("CASE WHEN credit_unit IS NULL THEN {} ELSE {} END", money(*cents), cents / TOKEN)
            ),
            Act::Use(usage) => {
                format!("SELECT accepted + duplicates FROM meterflow.ingest('{}')", events(key, usage))
            }
            Act::Bill => {
                "SELECT invoice_id, nullif(outcome, 'finalized') FROM meterflow.bill_due(now(), 3)".to_string()
            }
            Act::OneOff { customer, cents } => format!(
                "SELECT meterflow.create_invoice('c{customer}', 'USD', '[{{\"description\":\"Work\",\"amount\":\"{}\"}}]', '{key}')",
                money(*cents)
            ),
            Act::Void { invoice } => format!("SELECT meterflow.void_invoice({invoice}, 'simulated')"),
        }
    }

    /// The same with another body.
    pub fn altered(&self) -> Option<Act> {
        let mut other = self.clone();
        match &mut other {
            Act::Credit { cents, .. } | Act::Debit { cents, .. } | Act::Hold { cents, .. } => *cents += TOKEN,
            Act::HoldUsage { quantity, .. } => *quantity += 1,
            Act::OneOff { cents, .. } => *cents += 1,
            Act::End { grant, .. } => *grant -= 1,
            _ => return None,
        }
        Some(other)
    }

    pub fn has_key(&self) -> bool {
        !matches!(
            self,
            Act::Capture { .. } | Act::CaptureUsage { .. } | Act::Release { .. } | Act::Bill | Act::Void { .. }
        )
    }
}

fn events(key: &str, usage: &[Usage]) -> String {
    let event = |(place, it): (usize, &Usage)| {
        let name = if it.api { "call" } else { "image" };
        format!(
            r#"{{"transaction_id":"{key}/{place}","customer_id":"c{}","event_name":"{name}","timestamp":"{}","properties":{{"n":{}}}}}"#,
            it.customer,
            time(it.at),
            it.quantity
        )
    };
    crate::event::array(usage.iter().enumerate().map(event))
}

/// Everything that the acts need.
pub fn prepare(client: &mut Client, started: i64, rules_from: i64) {
    let mut sql = format!(
        r#"INSERT INTO meterflow.credit_units (key, currency, rate) VALUES ('TOK', 'USD', 0.25);
           INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ('api', 'call', 'sum', 'n'), ('img', 'image', 'sum', 'n');
           INSERT INTO meterflow.customers (id) SELECT 'c' || i FROM generate_series(0, {}) i;
           INSERT INTO meterflow.plans (key, currency, interval_unit, aligned) VALUES ('daily', 'USD', 'day', false);
           INSERT INTO meterflow.prices (plan_key, meter_key, model) VALUES
             ('daily', 'api', '{{"model":"per_unit","unit_amount":"{}"}}'), ('daily', 'img', '{{"model":"per_unit","unit_amount":"{}"}}');"#,
        CUSTOMERS - 1,
        money(API_PRICE),
        money(IMG_PRICE)
    );
    for customer in 0..CUSTOMERS {
        sql += &format!(
            "INSERT INTO meterflow.wallets (customer_id, currency, credit_unit, name, kind, credit_limit, priority, meters) VALUES
               ('c{customer}', 'USD', NULL, 'first', 'prepaid', NULL, 10, '{{}}'), ('c{customer}', 'USD', NULL, 'api', 'prepaid', NULL, 20, '{{api}}'),
               ('c{customer}', 'USD', 'TOK', 'tok', 'prepaid', NULL, 30, '{{}}');"
        );
        // `default` is made by its first top-up, `later` may owe.
        if customer % 3 != 0 {
            sql += &format!(
                "INSERT INTO meterflow.wallets (customer_id, currency, name, kind, credit_limit, priority) VALUES ('c{customer}', 'USD', 'later', 'postpaid', 20, 90);"
            );
        }
        if subscribes(customer) {
            sql += &format!(
                "INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('c{customer}', 'daily', {});",
                at(started)
            );
        }
    }
    // Allowances of a day: some periods lie in the past, and the next begins in a few seconds.
    for (customer, wallet, seconds, cents, kind, least, most) in [
        (0, "first", 4, 700, "promotional", "0", "0"),
        (2, "api", 7, 1000, "purchased", "2", "15"),
        (3, "first", 10, 300, "promotional", "0", "7.5"),
        (4, "first", 13, 900, "promotional", "1", "NULL"),
        (5, "first", 5, 400, "purchased", "0", "2"),
    ] {
        sql += &format!(
            "INSERT INTO meterflow.recurring_grants (wallet_id, amount, kind, interval_unit, starts_at, rollover_min, rollover_max)
             SELECT id, {}, '{kind}', 'day', {}, {least}, {most} FROM meterflow.wallets WHERE customer_id = 'c{customer}' AND name = '{wallet}';",
            money(cents),
            at(rules_from + seconds * 1_000_000)
        );
    }
    rows(client, &sql);
}
