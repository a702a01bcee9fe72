//! What the tests of other systems expect of wallets: the cases `wallet_balance` and `wallet_realtime_balance` of
//! ../shared/vectors/balance.json go through the verbs and wallet_balance(). Each agrees, or stands in
//! tests/vectors/balance.md with both answers and our reason; a row there that differs in nothing, or says what isn't so,
//! fails as well. What burns and what is allocated is in tests/core/ledger/vectors.rs.
//!
//! How a case is translated, the same for all:
//! - A tenant each. A grant is a top_up, a `free` one a grant_credit; with a `rate` they are of a credit unit that is worth
//!   so much. A usage is a debit, a `manual` one may go below zero.
//! - Meters are sums, used now by a subscriber to a plan with their prices. An allowance of so many units is free units of
//!   the price, one without limit a price that is not there.
//! - Unpaid invoices are of given lines, from before there was credit, paid as far as they are paid. A wallet for `fixed`
//!   only is one for fees.
//! - The real-time balance is what the customer has available in all: a debt that the wallet may not pay is a row of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use postgres::Client;
use serde_json::{Value, json};

use crate::server::{Server, one, project, quote, rows, run, shown, try_rows};

const KINDS: &[&str] = &["wallet_balance", "wallet_realtime_balance"];

type Facts = BTreeMap<String, String>;

#[test]
fn wallets() {
    let file = project().join("../shared/vectors/balance.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        // Not captured as print! is: a skipped test must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED: the peers' balances, for there is no {}", file.display());
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&text).expect("the vectors are JSON");
    let cases: Vec<&Value> = cases.iter().filter(|case| KINDS.contains(&text_of(case, "kind"))).collect();
    let table = std::fs::read_to_string(project().join("tests/vectors/balance.md")).expect("the table");
    let server = Server::start("balances", &[]);
    let mut client = server.create_database("balances");
    let (mut wrong, mut agreed, mut listed) = (Vec::new(), 0, BTreeSet::new());
    for case in &cases {
        let id = text_of(case, "id");
        let (theirs, ours) = differences(&mut client, case);
        let listing: Vec<Vec<&str>> = table_rows(&table).filter(|row| row[0] == id).collect();
        listed.extend(listing.iter().map(|row| row[0]));
        match (listing.as_slice(), theirs == ours) {
            ([], true) => agreed += 1,
            ([], false) => wrong.push(format!("| `{id}` | {theirs} | {ours} | |")),
            (_, true) => wrong.push(format!("{id} is listed, but agrees")),
            ([row], false) if row[1..] == [&theirs, &ours, row[3]] && !row[3].is_empty() => {}
            (listing, false) => wrong.push(format!("{id}: the table says {listing:?}, they {theirs} and we {ours}")),
        }
        let whole = rows(&mut client, "SELECT * FROM meterflow.verify_ledger()");
        assert!(whole.is_empty(), "{id}: {whole:?}");
    }
    let _ =
        writeln!(std::io::stderr(), "{} wallets of peers: {agreed} agree, {} are listed", cases.len(), listed.len());
    assert!(wrong.is_empty() && agreed > 0, "tests/vectors/balance.md:\n{}", wrong.join("\n"));
}

/// Case, what they say, what we say, why. That each is of a case is seen in tests/core.
fn table_rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let row: Vec<&str> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        assert_eq!(row.len(), 4, "four cells: {line}");
        row
    })
}

fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// What they say and what we say, where it isn't the same.
fn differences(client: &mut Client, case: &Value) -> (String, String) {
    let mut theirs = Facts::new();
    facts(client, "", &case["expected"], &mut theirs);
    let ours = answer(client, case);
    let differing: Vec<&String> = theirs.keys().filter(|name| theirs.get(*name) != ours.get(*name)).collect();
    let shown = |facts: &Facts| {
        let one = |name: &&String| format!("{name}: {}", facts.get(*name).map_or("nothing", String::as_str));
        differing.iter().map(one).collect::<Vec<_>>().join("; ")
    };
    (shown(&theirs), shown(&ours))
}

/// Named values; `by_type.free` is the `free` in `by_type`. Numbers as they are shortest.
fn facts(client: &mut Client, name: &str, value: &Value, into: &mut Facts) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                facts(client, &inner, value, into);
            }
        }
        Value::String(text) if name == "error" => drop(into.insert(name.to_string(), text.clone())),
        Value::String(text) => {
            let number = one(client, &format!("SELECT trim_scale({}::numeric)", quote(text)));
            into.insert(name.to_string(), number);
        }
        value => panic!("{name} is {value}"),
    }
}

fn answer(client: &mut Client, case: &Value) -> Facts {
    run(client, &format!("SET meterflow.tenant = {}", quote(text_of(case, "id"))));
    run(client, "INSERT INTO meterflow.customers (id) VALUES ('customer')");
    let rate = case["rate"].as_str();
    if let Some(rate) = rate {
        run(
            client,
            &format!("INSERT INTO meterflow.credit_units (key, currency, rate) VALUES ('credits', 'USD', {rate})"),
        );
    }
    owe(client, case);
    let unit = if rate.is_some() { "credits" } else { "USD" };
    if list(case, "allowed_price_types") == [json!("fixed")] {
        run(
            client,
            "INSERT INTO meterflow.wallets (customer_id, currency, charges) VALUES ('customer', 'USD', '{fee}')",
        );
    }
    let mut verbs = Vec::new();
    for grant in list(case, "grants") {
        assert!(grant["expires_at"].is_null(), "a grant that expires");
        let verb = if grant["type"] == "free" { "grant_credit" } else { "top_up" };
        verbs.push(format!(
            "{verb}('customer', {}, '{unit}', {})",
            text_of(grant, "amount"),
            quote(text_of(grant, "id"))
        ));
    }
    for (n, usage) in list(case, "usage").iter().enumerate() {
        let manual = usage["kind"] == "manual";
        verbs.push(format!(
            "debit('customer', {}, '{unit}', 'usage {n}', allow_overdraft => {manual})",
            text_of(usage, "amount")
        ));
    }
    for verb in verbs {
        if let Err(error) = try_rows(client, &format!("SELECT meterflow.{verb}")) {
            let code = error.code().map_or("", |code| code.code());
            let said = match (code, shown(&error)) {
                ("53400", _) => "insufficient_balance".to_string(),
                ("22023", message) if message.contains("must be a number above zero") => "zero_amount".to_string(),
                (_, message) => message,
            };
            return Facts::from([("error".to_string(), said)]);
        }
    }
    use_meters(client, case);
    let mut ours = Facts::new();
    for (name, sql) in [
        ("balance", "SELECT trim_scale(sum(balance)) FROM meterflow.wallet_balance('customer')"),
        ("credits_balance", "SELECT trim_scale(sum(credits)) FROM meterflow.wallet_balance('customer')"),
        ("realtime_balance", "SELECT trim_scale(sum(available)) FROM meterflow.wallet_balance('customer')"),
        ("current_usage", "SELECT trim_scale(sum(open_usage)) FROM meterflow.wallet_balance('customer')"),
        (
            "by_type.purchased",
            "SELECT trim_scale(sum(remaining)) FROM meterflow.credit_grants WHERE tenant_id = meterflow.current_tenant() AND kind = 'purchased'",
        ),
        (
            "by_type.free",
            "SELECT trim_scale(sum(remaining)) FROM meterflow.credit_grants WHERE tenant_id = meterflow.current_tenant() AND kind = 'promotional'",
        ),
    ] {
        if let Some(number) = rows(client, sql).into_iter().flatten().next().flatten() {
            ours.insert(name.to_string(), number);
        }
    }
    ours
}

/// Invoices that are unpaid, in part.
fn owe(client: &mut Client, case: &Value) {
    for (n, invoice) in list(case, "unpaid_invoices").iter().enumerate() {
        let paid = text_of(invoice, "amount_paid");
        let total = one(client, &format!("SELECT {} + {paid}", text_of(invoice, "amount_remaining")));
        let lines = json!([{ "description": "What was sold", "amount": total }]);
        let id = one(
            client,
            &format!(
                "SELECT meterflow.create_invoice('customer', 'USD', {}, 'invoice {n}')",
                quote(&lines.to_string())
            ),
        );
        if paid != "0" {
            run(client, &format!("SELECT meterflow.record_payment({id}, {paid}, 'payment {n}')"));
        }
    }
}

/// A plan with the meters' prices, a subscriber, and what it has used.
fn use_meters(client: &mut Client, case: &Value) {
    let Some(meters) = case["meters"].as_object() else { return };
    run(client, "INSERT INTO meterflow.plans (key, currency, aligned) VALUES ('plan', 'USD', false)");
    for (key, meter) in meters {
        let name = quote(key);
        run(
            client,
            &format!(
                "INSERT INTO meterflow.meters (key, event_name, aggregation, property) VALUES ({name}, {name}, 'sum', 'n')"
            ),
        );
        let mut model = match meter.get("tiers") {
            Some(tiers) => json!({ "model": "graduated", "tiers": tiers }),
            None => json!({ "model": "per_unit", "unit_amount": meter["unit_amount"] }),
        };
        match case["entitlement"][key].as_str() {
            Some("unlimited") => continue,
            Some(allowance) => model["free_units"] = json!(allowance),
            None => {}
        }
        let model = quote(&model.to_string());
        run(
            client,
            &format!(
                "INSERT INTO meterflow.prices (plan_key, key, meter_key, model) VALUES ('plan', {name}, {name}, {model})"
            ),
        );
    }
    run(
        client,
        "INSERT INTO meterflow.subscriptions (customer_id, plan_key, starts_at) VALUES ('customer', 'plan', now() - interval '1 hour')",
    );
    for (key, meter) in meters {
        let quantity = text_of(meter, "quantity");
        let event = json!({ "transaction_id": key, "customer_id": "customer", "event_name": key, "properties": { "n": quantity } });
        let accepted = one(client, &format!("SELECT accepted FROM meterflow.ingest({})", quote(&event.to_string())));
        assert_eq!(accepted, "1", "{event}");
    }
}
