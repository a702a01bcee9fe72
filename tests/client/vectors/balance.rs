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

use postgres::Client;
use serde_json::{Value, json};

use crate::peers::{self, Comparison, Facts};
use crate::server::{Server, one, quote, rows, run, shown, try_rows};

const KINDS: &[&str] = &["wallet_balance", "wallet_realtime_balance"];

#[test]
fn wallets() {
    let Some(cases) = peers::cases("balance.json") else { return };
    let (ours, others): (Vec<&Value>, Vec<&Value>) =
        cases.iter().partition(|case| KINDS.contains(&text_of(case, "kind")));
    let server = Server::start("balances", &[]);
    let mut client = server.create_database("balances");
    let mut compared = Comparison::by("balance.md").without(|id| others.iter().any(|case| text_of(case, "id") == id));
    for case in ours {
        let id = text_of(case, "id");
        let (theirs, ours) = differences(&mut client, case);
        compared.case(id, theirs == ours, &theirs, &ours);
        let whole = rows(&mut client, "SELECT * FROM meterflow.verify_ledger()");
        assert!(whole.is_empty(), "{id}: {whole:?}");
    }
    compared.finish("wallets");
}

fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// What they say and what we say, where it isn't the same. Numbers as they are shortest.
fn differences(client: &mut Client, case: &Value) -> (Facts, Facts) {
    let theirs = Facts::of(&case["expected"], &mut |name, text| match name {
        "error" => text.to_string(),
        _ => one(client, &format!("SELECT trim_scale({}::numeric)", quote(text))),
    });
    let ours = answer(client, case).asked_by(&theirs);
    theirs.differing(&ours)
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
            let mut refused = Facts::default();
            refused.add("error", said);
            return refused;
        }
    }
    use_meters(client, case);
    let mut ours = Facts::default();
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
            ours.add(name, number);
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
