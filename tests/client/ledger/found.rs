//! The tables of the ledger, read into memory by their ids.

use std::collections::{BTreeMap, HashMap};

use postgres::Client;

use super::acts::TOKEN;
use super::model::NEVER;
use crate::server::rows;

pub type Fields = Vec<Option<String>>;
/// Cents by wallet and grant (0: lent), as entries have them.
pub type Entries = BTreeMap<(i64, i64), i64>;

pub fn micros(column: &str) -> String {
    format!("CASE WHEN isfinite({column}) THEN (extract(epoch FROM {column}) * 1000000)::bigint ELSE {NEVER} END")
}

pub fn cents(column: &str, unit: &str) -> String {
    format!("trim_scale({column} * CASE WHEN {unit} IS NULL THEN 100 ELSE {TOKEN} END)")
}

pub fn number(row: &Fields, column: usize) -> i64 {
    let text = row[column].as_deref().unwrap_or("0");
    text.parse().unwrap_or_else(|_| panic!("{text} is no whole number, in {row:?}"))
}

pub fn text(row: &Fields, column: usize) -> String {
    row[column].clone().unwrap_or_default()
}

/// The rows of a table by the number in their first column.
pub fn by_id(client: &mut Client, sql: &str) -> BTreeMap<i64, Fields> {
    rows(client, sql).into_iter().map(|row| (number(&row, 0), row)).collect()
}

pub struct Found {
    pub transactions: BTreeMap<i64, Fields>,
    pub entries: HashMap<i64, Entries>,
    pub grants: BTreeMap<i64, Fields>,
    pub grants_of: HashMap<i64, Vec<i64>>,
    pub holds: BTreeMap<i64, Fields>,
    pub invoices: BTreeMap<i64, Fields>,
    pub lines: HashMap<i64, Vec<Fields>>,
}

impl Found {
    pub fn read(client: &mut Client) -> Found {
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
                "SELECT g.id, g.wallet_id, g.transaction_id, g.kind, {}, g.priority, {}, {}, {}, {}, g.recurring_id, g.occurrence
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
