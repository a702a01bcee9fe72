//! What the tests of other systems expect of prepaid credit: which grant pays what (`wallet_burn_down`), and which wallet
//! pays for which fee (`wallet_allocation`), of ../shared/vectors/balance.json. A case agrees, or it stands in
//! tests/vectors/balance.md with both answers and our reason; a row there that differs in nothing, or says what isn't so,
//! fails as well. What needs verbs and usage is in tests/client/vectors/balance.rs, by the same table.
//!
//! How a case is translated, the same for all:
//! - A grant is a lot, `granted` is promotional; of times only their order matters. What it `applies_to` is the meter of
//!   its wallet. With a `rate` the wallet holds a unit that is worth so much.
//! - A usage is burned at its time, of wallets for its metric; a void too. What is not there is an error, and nothing burns.
//! - Of an allocation the unit is the cent: a currency without decimals. `charge` is usage, `subscription` a fee; a tax
//!   that is given as an amount is a rate that comes to it. A wallet in another currency is not of the invoice.

use serde_json::{Map, Value, json};

use super::*;
use crate::core::invoice::{Credit, Draft, Line, LineKind, Tax, compute};
use crate::core::pricing::Rounding;
use crate::peers::{self, Comparison, Facts};

const KINDS: &[&str] = &["wallet_burn_down", "wallet_allocation"];

/// The others of the table are of tests/client/vectors/balance.rs.
const KINDS_OF_VERBS: &[&str] = &["wallet_balance", "wallet_realtime_balance"];

#[test]
fn peers() {
    let Some(cases) = peers::cases("balance.json") else { return };
    let of = |kinds: &[&str]| -> Vec<&Value> {
        cases.iter().filter(|case| kinds.contains(&text_of(case, "kind"))).collect()
    };
    let others = of(KINDS_OF_VERBS);
    let mut compared = Comparison::by("balance.md").without(|id| others.iter().any(|case| text_of(case, "id") == id));
    for case in of(KINDS) {
        let (theirs, ours) = differences(case);
        compared.case(text_of(case, "id"), theirs == ours, &theirs, &ours);
    }
    compared.finish("wallets, burned and allocated,");
}

fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// What they say and what we say, where it isn't the same.
fn differences(case: &Value) -> (Facts, Facts) {
    let answer = match text_of(case, "kind") {
        "wallet_burn_down" => burned(case),
        _ => allocated(case),
    };
    let mut shortest = |_: &str, text: &str| {
        Amount::parse(text).map_or_else(|_| text.to_string(), |number| number.shortest().to_string())
    };
    let theirs = Facts::of(&case["expected"], &mut shortest);
    let mut ours = Facts::of(&answer, &mut shortest);
    // What it is not asked for is left out; that something is spent that they don't know of is not.
    let spent = case["expected"]["from"].is_object();
    ours.0.retain(|name, _| theirs.0.contains_key(name) || spent && name.starts_with("from"));
    theirs.differing(&ours)
}

fn burned(case: &Value) -> Value {
    let mut times: Vec<&str> = list(case, "grants").iter().map(|grant| text_of(grant, "effective_at")).collect();
    times.extend(list(case, "usage").iter().filter_map(|usage| usage["at"].as_str()));
    times.sort_unstable();
    times.dedup();
    let at = |time: &Value| {
        let time = time.as_str();
        times.iter().position(|known| Some(*known) == time).unwrap_or(times.len()) as i64
    };
    let (mut wallets, mut lots, mut names) = (Vec::<Wallet>::new(), Vec::new(), Vec::new());
    for (n, grant) in list(case, "grants").iter().enumerate() {
        let name = grant["wallet"].as_str().unwrap_or("default");
        let place = wallets.iter().position(|wallet| wallet.name == name).unwrap_or_else(|| {
            let meters = grant["applies_to"].as_str().map(str::to_string).into_iter().collect();
            let scope = Scope { meters, ..Scope::default() };
            let id = wallets.len() as i64;
            wallets.push(Wallet { name: name.to_string(), scope, ..wallet(id, 50, case["rate"].as_str()) });
            wallets.len() - 1
        });
        assert!(grant["expires_at"].is_null(), "a grant that expires");
        names.push(text_of(grant, "id"));
        lots.push(Lot {
            wallet: place,
            priority: text_of(grant, "priority").parse().expect("a number"),
            promotional: grant["type"] == "granted",
            effective_at: at(&grant["effective_at"]),
            created_at: n as i64,
            ..lot(n as i64, amount(text_of(grant, "amount")))
        });
    }
    let mut purse = purse(wallets, lots);
    let name = |lot: &Lot| match lot.source {
        Source::Grant(n) => names[n as usize],
        _ => unreachable!("all are grants"),
    };
    let worth = |purse: &Purse| -> Value {
        purse
            .lots
            .iter()
            .map(|lot| (name(lot).to_string(), json!(money(&purse.wallets[lot.wallet], &lot.remaining).to_string())))
            .collect::<Map<_, _>>()
            .into()
    };
    let initially = worth(&purse);
    let (mut consumption, mut all) = (Vec::new(), Vec::new());
    for (n, usage) in list(case, "usage").iter().enumerate() {
        purse.as_of = at(&usage["at"]);
        let now = purse.as_of;
        let metric = usage["metric"].as_str();
        let covers = |wallet: &Wallet| {
            wallet.scope.meters.is_empty() || wallet.scope.meters.iter().any(|meter| Some(meter.as_str()) == metric)
        };
        let asked = amount(text_of(usage, "amount"));
        let mut taken = Vec::new();
        let missing = if usage["unit"] == "credits" {
            purse.burn_amount(asked, now, covers, &mut taken).expect("a burn")
        } else {
            let minor = minor_of(&asked, 2, Rounding::HalfUp).expect("money");
            cents(purse.burn(minor, now, covers, &mut taken).expect("a burn"))
        };
        if missing.is_positive() {
            return json!({ "error": "insufficient_balance" });
        }
        let total = cents(taken.iter().map(|taken| taken.minor).sum());
        let from =
            taken.iter().map(|taken| (name(&purse.lots[taken.lot]).to_string(), json!(cents(taken.minor).to_string())));
        consumption.push(match case["rate"].as_str() {
            Some(_) => json!(total.to_string()),
            None => json!({ "usage": n.to_string(), "from": Value::from(from.collect::<Map<_, _>>()) }),
        });
        all.extend(taken);
    }
    let spent = |promotional: Option<bool>| {
        let own = all.iter().filter(|taken| promotional.is_none_or(|is| purse.lots[taken.lot].promotional == is));
        cents(own.map(|taken| taken.minor).sum()).to_string()
    };
    let left: i128 = purse.left(|_| true).expect("a sum");
    json!({
        "per_grant_initial": initially,
        "per_grant": worth(&purse),
        "consumption": consumption,
        "by_type": { "granted": spent(Some(true)), "purchased": spent(Some(false)) },
        "prepaid_total": spent(None),
        "balance": cents(left).to_string(),
        // All of it was there.
        "invoice_total": "0",
    })
}

fn allocated(case: &Value) -> Value {
    let usage = &list(case, "usage")[0];
    let mut draft = Draft::default();
    for (n, fee) in list(usage, "fees").iter().enumerate() {
        let (net, tax) = (amount(text_of(fee, "amount")), amount(text_of(fee, "tax")));
        let percent = tax.checked_mul(&amount("100")).and_then(|tax| tax.div_round(&net, 12, Rounding::HalfUp));
        let key = format!("tax {n}");
        draft.taxes.push(Tax { key: key.clone(), percent: percent.expect("a percentage"), inclusive: false });
        draft.lines.push(Line {
            key: n.to_string(),
            kind: if fee["type"] == "charge" { LineKind::Usage } else { LineKind::Fee },
            plans: Vec::new(),
            meter: fee["metric"].as_str().map(str::to_string),
            price: None,
            unrounded: net,
            taxes: vec![key],
        });
    }
    let (mut wallets, mut lots) = (Vec::new(), Vec::new());
    let ours =
        list(case, "grants").iter().filter(|grant| grant["currency"].as_str().is_none_or(|currency| currency == "EUR"));
    for (n, grant) in ours.enumerate() {
        let strings = |name: &str| {
            list(grant, name).iter().map(|text| text.as_str().expect("a text").to_string()).collect::<Vec<_>>()
        };
        let kind = |name: &String| if name == "charge" { LineKind::Usage } else { LineKind::Fee };
        let scope = Scope {
            kinds: strings("fee_types").iter().map(kind).collect(),
            meters: strings("metrics"),
            ..Scope::default()
        };
        let priority = text_of(grant, "priority").parse().expect("a number");
        wallets.push(Wallet { name: text_of(grant, "id").to_string(), scope, ..wallet(n as i64, priority, None) });
        lots.push(Lot { wallet: n, ..lot(n as i64, amount(text_of(grant, "amount"))) });
    }
    let mut purse = purse(wallets, lots);
    purse.digits = 0;
    let credit = |lot: &Lot| {
        let wallet = &purse.wallets[lot.wallet];
        Credit { key: wallet.name.clone(), left: purse.worth(lot).expect("worth"), scope: wallet.scope.clone() }
    };
    draft.paid_credits = purse.lots.iter().map(credit).collect();
    let invoice = compute(&draft).expect("an invoice");
    let used = invoice.paid_credits.iter().filter(|credit| credit.used > 0);
    json!({ "from": Value::from(used.map(|credit| (credit.key.clone(), json!(credit.used.to_string()))).collect::<Map<_, _>>()) })
}
