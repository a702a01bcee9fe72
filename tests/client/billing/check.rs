//! What must hold of all invoices, whatever has happened.

use std::collections::BTreeMap;

use postgres::Client;

use super::oracle::{Cell, owed};
use super::world::World;
use crate::event::time;
use crate::server::{assert_verified, one, rows};

const MICROS: &str = "(extract(epoch FROM $) * 1000000)::bigint";
const LIVE: &str = "meterflow.invoices i ON i.id = l.invoice_id AND i.status IN ('finalized', 'paid')";

fn none(client: &mut Client, what: &str, sql: &str) {
    let found = rows(client, sql);
    assert!(found.is_empty(), "{what}: {} rows, the first {:?}", found.len(), found[0]);
}

/// Returns how many invoices there are.
pub fn all(client: &mut Client, world: &World) -> usize {
    none(client, "failures", "SELECT * FROM meterflow.billing_failures");
    none(client, "drafts", "SELECT * FROM meterflow.invoices WHERE status = 'draft'");
    lines_are_what_is_owed(client, world);
    invoices_add_up(client);
    let numbered = one(
        client,
        "SELECT count(*) FROM (SELECT number, row_number() OVER (ORDER BY number) AS place FROM meterflow.invoices) n WHERE number <> 'INV-' || lpad(place::text, 6, '0')",
    );
    assert_eq!(numbered, "0", "numbers have a gap");
    none(
        client,
        "reproduced otherwise",
        "SELECT i.number, i.bill_at, i.kind, r.* FROM meterflow.invoices i, LATERAL meterflow.reproduce_invoice(i.id) r WHERE i.status IN ('finalized', 'paid') AND NOT r.equal",
    );
    none(
        client,
        "charges that no invoice will take",
        "SELECT c.id, o.* FROM meterflow.customers c, LATERAL meterflow.current_charges(c.id) o",
    );
    assert_verified(client);
    covers(client);
    one(client, "SELECT count(*) FROM meterflow.invoices").parse().expect("a number")
}

/// What has happened at all, or nothing is shown.
fn covers(client: &mut Client) {
    let of_lines =
        |condition: &str| format!("SELECT count(*) FROM meterflow.invoice_lines l JOIN {LIVE} WHERE {condition}");
    let of_invoices = |condition: &str| format!("SELECT count(*) FROM meterflow.invoices WHERE {condition}");
    for (what, sql) in [
        ("lines", of_lines("true")),
        ("adjustments", of_lines("l.kind = 'adjustment'")),
        ("of them given back", of_lines("l.kind = 'adjustment' AND l.amount < 0")),
        ("in several stretches", of_lines("(SELECT count(*) FROM unnest(l.applies)) > 1")),
        ("discounts", of_lines("l.discount > 0")),
        ("inclusive taxes", "SELECT count(*) FROM meterflow.invoice_taxes WHERE inclusive".to_string()),
        ("credits used", "SELECT count(*) FROM meterflow.invoice_credits".to_string()),
        ("below zero", of_invoices("total < 0")),
        ("progressive", of_invoices("kind = 'progressive'")),
        ("void", of_invoices("status = 'void'")),
        ("made again", of_invoices("replaces IS NOT NULL")),
        ("for others", "SELECT count(*) FROM meterflow.invoice_lines l JOIN meterflow.invoices i ON i.id = l.invoice_id WHERE l.customer_id <> i.customer_id".to_string()),
    ] {
        let count: u64 = one(client, &sql).parse().expect("a number");
        eprint!("{what} {count}, ");
        // A short run has few of these.
        assert!(count > 0 || ["progressive", "below zero"].contains(&what), "there was nothing of the kind: {what}");
    }
    eprintln!();
}

fn lines_are_what_is_owed(client: &mut Client, world: &World) {
    let micros = |column: &str| MICROS.replace('$', column);
    let sql = format!(
        "SELECT s.key, l.price_id, {}, {}, {}, (sum(l.amount) * 10 ^ meterflow.currency_digits(i.currency))::bigint
           FROM meterflow.invoice_lines l JOIN {LIVE} JOIN meterflow.subscriptions s ON s.id = l.subscription_id
           LEFT JOIN meterflow.subscription_items t ON t.id = l.item_id
          GROUP BY 1, 2, 3, 4, 5, i.currency HAVING sum(l.amount) <> 0",
        micros("t.starts_at"),
        micros("l.cycle_start"),
        micros("l.cycle_end")
    );
    let mut billed: BTreeMap<Cell, i128> = BTreeMap::new();
    for row in rows(client, &sql) {
        let number = |column: usize| row[column].as_deref().map(|text| text.parse::<i64>().expect("a number"));
        let (plan, price) = world.price_ids[&number(1).expect("a price")];
        let key = (
            row[0].clone().unwrap_or_default(),
            plan,
            price,
            number(2),
            number(3).expect("a start"),
            number(4).expect("an end"),
        );
        billed.insert(key, i128::from(number(5).expect("an amount")));
    }
    let owed = owed(world);
    assert!(owed.len() > 100, "{} cells are no test", owed.len());
    let mut wrong = Vec::new();
    for cell in owed.keys().chain(billed.keys().filter(|cell| !owed.contains_key(cell))) {
        let (owed, billed) = (owed.get(cell).copied().unwrap_or(0), billed.get(cell).copied().unwrap_or(0));
        if owed != billed {
            let plan = &world.plans[cell.1];
            let item = cell.3.map(time);
            wrong.push(format!(
                "{} {}.{} item {item:?} [{}, {}): owed {owed}, billed {billed}",
                cell.0,
                plan.key,
                plan.prices[cell.2].key,
                time(cell.4),
                time(cell.5)
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cells:\n{}", wrong.len(), owed.len(), wrong[..wrong.len().min(15)].join("\n"));
}

fn invoices_add_up(client: &mut Client) {
    none(
        client,
        "invoices that do not add up",
        "SELECT i.number, i.subtotal, i.discount, i.promotional, i.tax, i.total, i.credited, i.amount_due, l.*, t.*, c.*
           FROM meterflow.invoices i,
                LATERAL (SELECT sum(amount) AS amount, sum(discount) AS discount, sum(total) AS total, sum(tax) AS tax FROM meterflow.invoice_lines WHERE invoice_id = i.id) l,
                LATERAL (SELECT coalesce(sum(amount) FILTER (WHERE NOT inclusive), 0) AS added, coalesce(sum(amount), 0) AS tax FROM meterflow.invoice_taxes WHERE invoice_id = i.id) t,
                LATERAL (SELECT coalesce(sum(amount), 0) AS used FROM meterflow.invoice_credits WHERE invoice_id = i.id) c
          WHERE i.subtotal <> l.amount OR i.discount <> l.discount OR i.total <> l.total OR l.tax <> t.tax
             OR i.total <> i.subtotal - i.discount - i.promotional + t.added OR i.credited <> c.used OR i.amount_due <> greatest(i.total, 0) - i.credited OR i.amount_due < 0",
    );
    none(
        client,
        "coupons that took more than lines say",
        "SELECT i.number FROM meterflow.invoices i WHERE i.discount <> (SELECT coalesce(sum(amount), 0) FROM meterflow.invoice_discounts WHERE invoice_id = i.id)",
    );
    none(
        client,
        "negative invoices that gave no credit",
        "SELECT i.number, i.total, a.amount FROM meterflow.invoices i LEFT JOIN meterflow.account_credits a ON a.source = 'invoice' AND a.source_id = i.id
          WHERE coalesce(a.amount, 0) <> greatest(-i.total, 0)",
    );
    none(
        client,
        "credit used twice",
        "SELECT e.wallet_id, e.grant_id, sum(e.amount) FROM meterflow.ledger_entries e GROUP BY 1, 2 HAVING sum(e.amount) < 0",
    );
    none(
        client,
        "account credit used twice",
        "SELECT a.id FROM meterflow.account_credits a WHERE a.amount < (SELECT coalesce(sum(u.amount), 0) FROM meterflow.invoice_credits u
           JOIN meterflow.invoices i ON i.id = u.invoice_id AND i.status IN ('finalized', 'paid') WHERE u.source = 'account' AND u.source_id = a.id)",
    );
}

/// All invoices as text, without what two runs may differ in: ids, numbers and when they were made.
pub fn dump(client: &mut Client) -> Vec<String> {
    let sql = "
        SELECT concat_ws(' ', i.customer_id, i.currency, i.bill_at, i.kind, i.status, i.subtotal, i.discount, i.promotional, i.tax, i.total, i.credited, i.amount_due, i.replaces IS NOT NULL,
                 (SELECT jsonb_agg(to_jsonb(l) - '{tenant_id,invoice_id,subscription_id,item_id,price_id,adjusts}'::text[]
                                   || jsonb_build_object('subscription', s.key, 'adjusts', a.bill_at) ORDER BY l.line)
                    FROM meterflow.invoice_lines l LEFT JOIN meterflow.subscriptions s ON s.id = l.subscription_id
                    LEFT JOIN meterflow.invoices a ON a.id = l.adjusts WHERE l.invoice_id = i.id),
                 (SELECT jsonb_agg(jsonb_build_array(d.code, d.level, d.amount) ORDER BY d.ordinal) FROM meterflow.invoice_discounts d WHERE d.invoice_id = i.id),
                 (SELECT jsonb_agg(jsonb_build_array(t.tax_key, t.rate, t.base, t.amount) ORDER BY t.ordinal) FROM meterflow.invoice_taxes t WHERE t.invoice_id = i.id),
                 (SELECT jsonb_agg(jsonb_build_array(c.source, c.amount) ORDER BY c.ordinal) FROM meterflow.invoice_credits c WHERE c.invoice_id = i.id))
          FROM meterflow.invoices i WHERE i.status <> 'draft'";
    let mut dump: Vec<String> = rows(client, sql).into_iter().map(|row| row[0].clone().unwrap_or_default()).collect();
    dump.sort_unstable();
    dump
}
