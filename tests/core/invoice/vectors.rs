//! What the tests of other systems expect of invoices: each case of ../shared/vectors/invoice.json is computed here. It
//! agrees, or it stands in tests/vectors/invoice.md with what differs and our reason; a row there that differs in nothing,
//! or says what isn't so, fails as well.
//!
//! How a case is translated, the same for all:
//! - A fee is a line, with an exclusive tax for each of its rates. A coupon of no level is an invoice coupon. Coupons of
//!   another currency and credits that are switched off are not of the invoice.
//! - Credit is promotional where the peer applies it before tax (flexprice, there to usage only; OpenMeter), and paid
//!   where it applies it after tax (credit notes, account credit, Lago's wallets).
//! - What progressive billing has invoiced of a fee, and a credit adjustment, are negative lines with the fee's taxes. Of
//!   several progressive invoices of a period the last has it all: they are cumulative.
//! - An invoice amount that the fees don't explain is explained by a line that no coupon covers (if it is more), or by a
//!   coupon (if a total is less). Coupons of which only the shares are given are one coupon for those fees.
//! - The total of a peer is what remains after credits; `total_before_prepaid` and `invoice_total` are our total.
//! - A parent's payment of a child's invoice is paid credit of it.
//! - Values that a peer keeps unrounded beside its own (`precise_…`, `rounding_adjustment`) are left out: what they are
//!   good for, that notes add up, is in the rounded ones.

use ethnum::I256;
use serde_json::{Map, Value, json};

use super::*;
use crate::core::currency;
use crate::peers::{self, Comparison, Facts};

#[test]
fn peers() {
    let Some(cases) = peers::cases("invoice.json") else { return };
    let mut compared = Comparison::by("invoice.md");
    for case in cases.iter().map(Case) {
        let (theirs, ours) = case.differences();
        compared.case(case.text("id"), theirs == ours, &theirs, &ours);
    }
    compared.finish("invoices");
}

/// What a case does with the credit of this kind.
#[derive(PartialEq)]
enum Use {
    Promotional,
    Paid,
    NegativeLine,
}

struct Case<'a>(&'a Value);

impl Case<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("{name} of {}", self.0["id"]))
    }

    fn list(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn digits(&self) -> u32 {
        currency::digits(self.text("currency")).expect("a currency")
    }

    /// In major units.
    fn amount(&self, text: &str) -> Amount {
        let amount = amount(text);
        let shift = if self.text("unit") == "minor" { self.digits() } else { 0 };
        Amount::new(amount.coefficient(), amount.scale() + shift)
    }

    fn minor(&self, text: &str) -> i128 {
        self.amount(text).round(self.digits()).expect("money").minor().as_i128()
    }

    /// Minor units in the case's unit.
    fn shown(&self, minor: i128) -> Value {
        let digits = if self.text("unit") == "minor" { 0 } else { self.digits() };
        Value::from(Amount::new(I256::new(minor), digits).to_string())
    }

    /// What they say and what we say, where it isn't the same.
    fn differences(&self) -> (Facts, Facts) {
        // 17.0 and 17.00 are one number.
        let mut number =
            |_: &str, text: &str| Amount::parse(text).map_or_else(|_| text.to_string(), |number| number.to_string());
        let unrounded = |name: &str| {
            name.rsplit('.').next().is_some_and(|name| name.starts_with("precise_") || name == "rounding_adjustment")
        };
        let mut theirs = Facts::of(&self.0["expected"], &mut number);
        theirs.0.retain(|name, _| !unrounded(name));
        let ours = Facts::of(&self.answer(), &mut number).asked_by(&theirs);
        theirs.differing(&ours)
    }

    /// All that we can say of the case.
    fn answer(&self) -> Value {
        match self.text("kind") {
            "rounding" => {
                let values = self.0["values"].as_object().expect("values");
                let rounded = values.iter().map(|(name, value)| {
                    let mut line = line(name, 0, &[]);
                    line.unrounded = self.amount(value.as_str().expect("a number"));
                    let invoice = computed(&Draft { digits: self.digits(), lines: vec![line], ..Draft::default() });
                    (name.clone(), self.shown(invoice.total))
                });
                Value::from(rounded.collect::<Map<_, _>>())
            }
            "commitment_true_up" => {
                // What the lines, as they were rounded, leave of the commitment: rounded by itself it could miss it.
                let missing = self.minor(self.text("commitment")) - computed(&self.draft()).subtotal;
                json!({ "true_up": self.shown(missing.max(0)) })
            }
            "parent_child" => {
                let paid = self.list("fees").iter().filter(|fee| fee.get("child").is_none());
                let paid_credit = paid.map(|fee| self.minor(fee["amount"].as_str().expect("an amount"))).sum();
                let total = self.minor(self.text("child_charged"));
                let standing = Account { total, paid_credit, ..Account::default() }.standing().expect("a standing");
                json!({ "balance": self.shown(standing.balance) })
            }
            _ => self.invoice(),
        }
    }

    fn invoice(&self) -> Value {
        let draft = self.draft();
        let invoice = computed(&draft);
        let shown = |minor: i128| self.shown(minor);
        let negative: i128 = if self.credits_are(&Use::NegativeLine) {
            -invoice.lines.iter().map(|line| line.amount.min(0)).sum::<i128>()
        } else {
            0
        };
        let credits: Vec<&CreditUse> = invoice.promotional_credits.iter().chain(&invoice.paid_credits).collect();
        let (payments, refunds): (Vec<i128>, Vec<i128>) = self
            .list("payments")
            .iter()
            .chain(self.0.get("paid"))
            .map(|payment| self.minor(payment.as_str().expect("an amount")))
            .partition(|payment| *payment >= 0);
        let account = Account {
            total: invoice.total,
            paid_credit: invoice.paid_credit,
            payments: payments.iter().sum(),
            refunds: -refunds.iter().sum::<i128>(),
            ..Account::default()
        };
        let standing = account.standing().expect("a standing");
        let by_line = |part: &dyn Fn(&InvoiceLine) -> i128| -> Value {
            let fees = invoice.lines.iter().filter(|line| !line.key.starts_with('-'));
            Value::from(fees.map(|line| (line.key.clone(), shown(part(line)))).collect::<Map<_, _>>())
        };
        let taken_off = |key: &str| -> i128 {
            let off = invoice.lines.iter().filter(|line| line.key.strip_prefix('-') == Some(key));
            -off.map(|line| line.amount).sum::<i128>()
        };
        let mut said = json!({
            "subtotal": shown(invoice.subtotal + negative),
            "coupons": shown(invoice.discount),
            "coupons_used": invoice.coupons.iter().filter(|coupon| coupon.used > 0).count().to_string(),
            "subtotal_after_coupons": shown(invoice.subtotal - invoice.discount),
            "tax": shown(invoice.tax),
            "invoice_tax": shown(invoice.tax),
            "total": shown(invoice.total - invoice.paid_credit),
            "invoice_total": shown(invoice.total),
            "total_before_prepaid": shown(invoice.total),
            "prepaid": shown(invoice.paid_credit),
            "wallet_left": shown(invoice.paid_credits.iter().map(|credit| credit.left).sum()),
            "credits": shown(invoice.promotional_credit + invoice.paid_credit + negative),
            "credits_count": credits.iter().filter(|credit| credit.used > 0).count().to_string(),
            "credit_used": credits.iter().filter(|credit| credit.used > 0).map(|credit| shown(credit.used)).collect::<Vec<_>>(),
            "credit_left": credits.iter().map(|credit| shown(credit.left)).collect::<Vec<_>>(),
            "credit_left_first": credits.first().map(|credit| shown(credit.left)),
            "credit_note_for_rest": shown(invoice.account_credit),
            "fee_coupon_share": by_line(&|line| line.discount),
            "fee_credit_share": by_line(&|line| line.promotional_credit + line.paid_credit + taken_off(&line.key)),
            "fee_tax": by_line(&|line| line.taxes.iter().map(|tax| tax.amount).sum()),
            "balance": shown(if self.text("kind") == "invoice_credit" { standing.amount_due } else { standing.balance }),
            "amount_remaining": shown(standing.amount_due),
            "account_credit": shown(standing.account_credit),
            "account_credit_created": standing.account_credit > 0,
        });
        if let Some(last) = credits.last() {
            let shares = last.shares.iter().map(|share| (invoice.lines[share.line].key.clone(), shown(share.amount)));
            said["fee_credit_added"] = Value::from(shares.collect::<Map<_, _>>());
        }
        let notes = self.notes(&invoice);
        let in_note = |note: &CreditNote| {
            json!({
                "item": shown(note.amount),
                "coupon": shown(note.discount),
                "tax": shown(note.tax),
                "total": shown(note.total),
            })
        };
        said["credit_notes"] = notes.iter().map(in_note).collect();
        if let Some(note) = notes.last() {
            said["credit_note"] = in_note(note);
            if self.text("kind") == "credit_note_estimate" {
                let subtotal = note.amount - note.discount;
                let percent = Amount::new(I256::new(note.tax * 100), 0).round_ratio(1, subtotal as i64, 5);
                said["coupons_adjustment"] = shown(note.discount);
                said["subtotal"] = shown(subtotal);
                said["tax"] = shown(note.tax);
                said["total"] = shown(note.total);
                said["max_refundable"] = shown(standing.refundable.min(note.total));
                said["effective_rate"] = Value::from(Amount::new(percent.expect("a percentage"), 5).to_string());
            }
        }
        said
    }

    /// The credit notes of the case, one after the other.
    fn notes(&self, invoice: &Invoice) -> Vec<CreditNote> {
        let places = || 0..invoice.lines.len();
        let whole = |place: usize| places().map(|at| if at == place { invoice.lines[at].amount } else { 0 }).collect();
        let wanted: Vec<Vec<i128>> = if let Some(fraction) = self.get("credited_fraction") {
            let (part, whole) = fraction.split_once('/').expect("a fraction");
            let (part, whole) = (part.parse().expect("a number"), whole.parse().expect("a number"));
            let of =
                |line: &InvoiceLine| line.unrounded.round_ratio(part, whole, self.digits()).expect("money").as_i128();
            vec![invoice.lines.iter().map(of).collect()]
        } else if let Some(items) = self.0.get("credited_items") {
            let of = |line: &InvoiceLine| items[&line.key].as_str().map_or(0, |amount| self.minor(amount));
            vec![invoice.lines.iter().map(of).collect()]
        } else if self.0.get("credited_item").is_some() {
            (0..=self.list("prior_credit_notes").len()).map(whole).collect()
        } else {
            places().map(whole).collect()
        };
        let mut before = vec![0; invoice.lines.len()];
        let mut notes = Vec::new();
        for amounts in wanted {
            let each = invoice.lines.iter().zip(&before).zip(&amounts);
            let items: Vec<Item> =
                each.map(|((line, before), amount)| Item { line, before: *before, amount: *amount }).collect();
            // A case with negative lines asks for no notes.
            notes.extend(credit_note(&items));
            before.iter_mut().zip(&amounts).for_each(|(before, amount)| *before += amount);
        }
        notes
    }

    fn credits_are(&self, wanted: &Use) -> bool {
        self.list("credits").iter().any(|credit| self.use_of(credit) == *wanted)
    }

    fn use_of(&self, credit: &Value) -> Use {
        match credit["kind"].as_str().expect("a kind") {
            "progressive_billing" | "credit_adjustment" => Use::NegativeLine,
            "credit" => Use::Promotional,
            "prepaid" if self.0["source"]["repo"] == "flexprice/flexprice" => Use::Promotional,
            "prepaid" | "credit_note" | "account_credit" => Use::Paid,
            kind => panic!("credit of kind {kind}"),
        }
    }

    fn draft(&self) -> Draft {
        let mut draft = Draft { digits: self.digits(), ..Draft::default() };
        for fee in self.list("fees") {
            self.add_fee(&mut draft, fee);
        }
        if let Some(computed) = self.0.get("computed") {
            // 2 of 8 are 25 %.
            let [item, tax] = ["item", "tax"].map(|name| self.minor(computed[name].as_str().expect("an amount")));
            let percent = Amount::new(I256::new(tax * 10_000 / item), 2).to_string();
            self.add_fee(&mut draft, &json!({ "id": "item", "amount": item.to_string(), "taxes": [percent] }));
        }
        if let Some(rest) = self.get("invoice_amount").map(|amount| self.minor(amount)) {
            let fees: i128 = computed(&draft).subtotal;
            draft.lines.push(line("rest", rest - fees, &[]));
        }
        self.add_coupons(&mut draft);
        let enabled = self.0.get("credits_enabled") != Some(&json!(false));
        for (n, credit) in self.list("credits").iter().enumerate().filter(|_| enabled) {
            let amount = || self.minor(credit["amount"].as_str().expect("an amount"));
            let key = format!("credit {n}");
            match self.use_of(credit) {
                Use::NegativeLine => self.add_negative_line(&mut draft, credit),
                Use::Paid => {
                    let scope = Scope { meters: strings(&credit["metrics"]), ..Scope::default() };
                    draft.paid_credits.push(Credit { key, left: amount(), scope });
                }
                Use::Promotional => {
                    let usage_only = credit["kind"] == "prepaid";
                    let kinds = if usage_only { vec![LineKind::Usage] } else { Vec::new() };
                    let scope = Scope { kinds, ..Scope::default() };
                    draft.promotional_credits.push(Credit { key, left: amount(), scope });
                }
            }
        }
        draft
    }

    fn add_fee(&self, draft: &mut Draft, fee: &Value) {
        let id = fee["id"].as_str().expect("an id");
        let text = |name: &str| fee.get(name).and_then(Value::as_str);
        let repeat: usize = self.get("repeat").map_or(1, |times| times.parse().expect("a number"));
        let common = strings(&self.0["taxes"]);
        let rates = common.iter().flat_map(|rate| std::iter::repeat_n(rate.clone(), repeat));
        let mut taxes: Vec<String> = Vec::new();
        for rate in rates.chain(strings(&fee["taxes"])) {
            // The same rate of two fees is one tax; twice on one fee, it is two.
            let nth = (0..).find(|nth| !taxes.contains(&format!("{rate} % {nth}"))).expect("a number");
            let key = format!("{rate} % {nth}");
            if draft.taxes.iter().all(|tax| tax.key != key) {
                draft.taxes.push(tax(&key, &rate, false));
            }
            taxes.push(key);
        }
        if let Some(credited) = text("credits_already") {
            let scope = Scope { lines: texts(&[id]), ..Scope::default() };
            let credit = Credit { key: format!("already on {id}"), left: self.minor(credited), scope };
            draft.promotional_credits.push(credit);
        }
        draft.lines.push(Line {
            key: id.to_string(),
            kind: if text("price_type") == Some("usage") { LineKind::Usage } else { LineKind::Fee },
            plans: text("plan").map(str::to_string).into_iter().collect(),
            meter: text("metric").map(str::to_string),
            price: text("price").map(str::to_string),
            unrounded: self.amount(text("precise_amount").or(text("amount")).expect("an amount")),
            taxes,
        });
    }

    fn add_coupons(&self, draft: &mut Draft) {
        let of_case = |coupon: &&Value| coupon.get("currency").is_none_or(|code| *code == self.0["currency"]);
        for (n, coupon) in self.list("coupons").iter().enumerate().filter(|(_, coupon)| of_case(coupon)) {
            let value = coupon["value"].as_str().expect("a value");
            let used = coupon["already_used"].as_str().map_or(0, |used| self.minor(used));
            let target = coupon["target"].as_str();
            draft.coupons.push(Coupon {
                key: format!("coupon {n}"),
                level: if coupon["level"] == "line" { Level::Line } else { Level::Invoice },
                scope: Scope {
                    lines: target.map(str::to_string).into_iter().collect(),
                    meters: strings(&coupon["metrics"]),
                    plans: strings(&coupon["plans"]),
                    ..Scope::default()
                },
                discount: match coupon["type"].as_str().expect("a type") {
                    "fixed" => Discount::Fixed { left: self.minor(value) - used },
                    "percentage" => Discount::Percentage(amount(value)),
                    kind => panic!("a {kind} coupon"),
                },
            });
        }
        let given = |fee: &Value| Some((fee["id"].as_str()?.to_string(), fee["coupon_share"].as_str()?.to_string()));
        let (lines, shares): (Vec<String>, Vec<String>) = self.list("fees").iter().filter_map(given).unzip();
        let thousandths = shares.iter().map(|share| self.amount(share).round(self.digits() + 6).expect("money"));
        let all: i128 = thousandths.map(|share| share.minor().as_i128()).sum();
        let less = self.get("invoice_total").map_or(0, |total| computed(draft).total - self.minor(total));
        for (left, lines) in [(rounded(all, 1_000_000), lines), (less, Vec::new())] {
            if left > 0 {
                let scope = Scope { lines, ..Scope::default() };
                let discount = Discount::Fixed { left };
                draft.coupons.push(Coupon { key: "given".to_string(), level: Level::Invoice, scope, discount });
            }
        }
    }

    /// Its key is that of the fee it is of, after a minus.
    fn add_negative_line(&self, draft: &mut Draft, credit: &Value) {
        let by_fee = match credit["fees"].as_object() {
            Some(fees) => fees.clone(),
            None => Map::from_iter([("all".to_string(), credit["amount"].clone())]),
        };
        for (fee, amount) in by_fee {
            let key = format!("-{fee}");
            draft.lines.retain(|line| line.key != key);
            let taxes = draft.lines.iter().find(|line| line.key == fee).map(|line| line.taxes.clone());
            let mut off = line(&key, 0, &[]);
            off.kind = LineKind::Adjustment;
            off.unrounded = self.amount(&format!("-{}", amount.as_str().expect("an amount")));
            off.taxes = taxes.unwrap_or_default();
            draft.lines.push(off);
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|text| text.as_str().expect("a text").to_string()).collect()
}
