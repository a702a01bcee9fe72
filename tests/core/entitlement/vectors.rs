//! What the tests of other systems expect of quotas: each case of ../shared/vectors/balance.json that is of quantities is
//! computed here; those of money are in the tests of the ledger. It agrees, or it stands in tests/vectors/entitlement.md
//! with what differs and our reason; a row there that differs in nothing, or says what isn't so, fails as well.
//!
//! How a case is translated, the same for all:
//! - A grant of the case is a grant, of the case's first moment if it has no other; deleting it is voiding it. Where
//!   nothing is said of rollover, nothing rolls over. Ids are ordered as texts.
//! - `resets` are resets at those times. Rules begin where usage is measured from, or with the first grant or usage.
//! - A starting snapshot is left out: everything is computed from the grants and usage themselves.
//! - Units are converted by the meter (its multiplier), so before usage is burned.
//! - Usage without a time is used after the grants began. `usage_in_window` of sequential windows is the usage of periods
//!   that follow each other; what is billed is the overage of each, priced by the price model `per_unit`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::*;
use crate::core::pricing::{self, Amount, Model, Usage};
use crate::peers::{self, Comparison, Facts};

const KINDS: [&str; 9] = [
    "grant_burn_down",
    "grant_effective_period",
    "grant_active_at",
    "grant_starting_snapshot",
    "entitlement_reset",
    "entitlement_balance",
    "entitlement_history",
    "entitlement_quota",
    "entitlement_grant_billing",
];

#[test]
fn peers() {
    let Some(cases) = peers::cases("balance.json") else { return };
    let mut compared = Comparison::by("entitlement.md");
    for case in cases.iter().map(Case).filter(|case| KINDS.contains(&case.text("kind"))) {
        let (theirs, ours) = case.differences();
        compared.case(case.text("id"), theirs == ours, &theirs, &ours);
    }
    compared.finish("quotas");
}

struct Case<'a>(&'a Value);

impl Case<'_> {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("{name} of {}", self.0["id"]))
    }

    fn time(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_str).map(at)
    }

    fn list(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// What they say and what we say, where it isn't the same.
    fn differences(&self) -> (Facts, Facts) {
        let mut as_it_is = |_: &str, text: &str| text.to_string();
        let mut theirs = Facts::of(&self.0["expected"], &mut as_it_is);
        // How near is near enough is no fact: we are exact.
        theirs.0.remove("tolerance");
        let ours = Facts::of(&self.answer(), &mut as_it_is).asked_by(&theirs);
        theirs.differing(&ours)
    }

    fn begin(&self) -> i64 {
        let times = self.list("grants").iter().chain(self.list("usage"));
        let first = times.filter_map(|of| of.get("effective_at").or(of.get("at"))?.as_str()).map(at).min();
        self.time("measure_usage_from").or(first).unwrap_or_default()
    }

    fn grants(&self) -> Vec<Source> {
        let mut list: Vec<&Value> = self.list("grants").iter().collect();
        list.sort_by_key(|grant| grant["id"].as_str());
        let number = |grant: &Value, name: &str| grant.get(name).and_then(Value::as_str).map(quantity);
        let time = |grant: &Value, name: &str| grant.get(name).and_then(Value::as_str).map(at);
        let one = |(id, grant): (usize, &&Value)| {
            let expires_at = time(grant, "expires_at").unwrap_or(NEVER);
            let ended = [time(grant, "voided_at"), time(grant, "deleted_at")].into_iter().flatten().min();
            let renewal = grant.get("recurrence").map_or(Renewal::Once, |recurrence| {
                let days = recurrence["interval"].as_str().and_then(|text| text.strip_prefix('P')?.strip_suffix('D'));
                let days = days.and_then(|days| days.parse().ok()).expect("an interval of days");
                let anchor = at(recurrence["anchor"].as_str().expect("an anchor"));
                let cycle = Cycle::at(Interval::Days(days), anchor, false, "UTC").expect("a cycle");
                Renewal::Restored(Schedule { cycle: Some(cycle), also: Vec::new() })
            });
            let rollover = grant.get("rollover").map_or(NOTHING, |rollover| Rollover {
                min: number(rollover, "min").unwrap_or_default(),
                max: number(rollover, "max"),
            });
            Source {
                id: Id::Grant(id as i64),
                amount: Some(number(grant, "amount").unwrap_or(Quantity::ONE)),
                priority: grant["priority"].as_str().map_or(1, |text| text.parse().expect("a priority")),
                from: time(grant, "effective_at").unwrap_or_else(|| self.begin()),
                to: ended.map_or(expires_at, |ended| ended.min(expires_at)),
                expires_at,
                created_at: 0,
                rollover,
                renewal,
            }
        };
        list.iter().enumerate().map(one).collect()
    }

    fn ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.list("grants").iter().filter_map(|grant| grant["id"].as_str()).collect();
        ids.sort_unstable();
        ids
    }

    fn quota(&self) -> Quota {
        let resets: Vec<i64> = self.list("resets").iter().filter_map(Value::as_str).map(at).collect();
        let preserve_overage = self.0.get("preserve_overage").and_then(Value::as_bool).unwrap_or(false);
        let rules =
            Rules { from: self.begin(), to: NEVER, resets: Schedule { cycle: None, also: resets }, preserve_overage };
        Quota { sources: self.grants(), rules: vec![rules] }
    }

    fn used(&self) -> Vec<(i64, Quantity)> {
        let unit = self.0.get("unit_conversion").map_or(Quantity::ONE, |conversion| {
            assert_eq!(conversion["operation"], "divide");
            let factor: i128 = conversion["factor"].as_str().and_then(|text| text.parse().ok()).expect("a factor");
            Quantity::ONE.div_round(factor).expect("a multiplier")
        });
        let one = |usage: &Value| {
            let amount = quantity(usage["amount"].as_str().expect("an amount"));
            (usage["at"].as_str().map_or_else(|| self.begin(), at), amount.checked_mul(unit).expect("a quantity"))
        };
        self.list("usage").iter().map(one).collect()
    }

    fn standing(&self, at: i64) -> Standing {
        standing(&self.quota(), Until::Before(at), &self.used())
            .unwrap_or_else(|| panic!("nothing in {}", self.0["id"]))
    }

    /// All that we can say of the case.
    fn answer(&self) -> Value {
        match self.text("kind") {
            "grant_effective_period" => {
                let grant = self.grants().remove(0);
                let shown = |at: i64| Timestamp::from_microsecond(at).expect("a time").to_string();
                json!({ "from": shown(grant.from), "to": shown(grant.to) })
            }
            "grant_active_at" => {
                json!({ "active": self.grants()[0].is_effective(self.time("query_at").expect("a time")) })
            }
            "entitlement_quota" => {
                let standing = self.standing(self.begin() + 1);
                let exhausted = standing.balance.is_some_and(Quantity::is_zero);
                json!({ "overage": standing.overage.to_string(), "exhausted": exhausted })
            }
            "entitlement_grant_billing" => self.billing(),
            "entitlement_history" => self.history(),
            _ => self.balance(),
        }
    }

    fn balance(&self) -> Value {
        let query_at = self.time("query_at").expect("a time");
        let standing = self.standing(query_at);
        let left: BTreeMap<Id, String> = left(&self.quota(), query_at, &self.used()).into_iter().collect();
        // What is not in effect has nothing left.
        let of = |(id, name): (usize, &&str)| {
            let left = left.get(&Id::Grant(id as i64)).cloned().unwrap_or_else(|| "0".to_string());
            (name.to_string(), Value::from(left))
        };
        let per_grant: Map<String, Value> = self.ids().iter().enumerate().map(of).collect();
        let shown = |quantity: Option<Quantity>| quantity.map(|quantity| quantity.to_string());
        json!({
            "per_grant": per_grant, "overage": standing.overage.to_string(), "balance": shown(standing.balance),
            "usage_in_period": standing.usage.to_string(), "usage_since_reset": standing.usage.to_string(),
            "total_available": shown(standing.quota),
        })
    }

    fn history(&self) -> Value {
        assert_eq!(self.text("window"), "HOUR");
        let (from, to) = (self.time("from").expect("a time"), self.time("query_at").expect("a time"));
        let windows: Vec<i64> = (0..(to - from) / HOUR).map(|hour| from + hour * HOUR).collect();
        let (mut balances, mut usage) = (Map::new(), Map::new());
        for (i, &start) in windows.iter().enumerate() {
            let (opening, closing) = (self.standing(start), self.standing(start + HOUR));
            balances.insert(i.to_string(), opening.balance.map(|balance| balance.to_string()).into());
            let used = closing.usage.checked_sub(opening.usage).expect("a difference");
            usage.insert(i.to_string(), used.to_string().into());
        }
        let segments = segments(&self.quota(), from, Until::Before(to), &self.used());
        json!({
            "window_count": windows.len().to_string(), "balance_at_start": balances, "usage": usage,
            "segment_count": segments.len().to_string(),
        })
    }

    /// Overage of all periods, and what it costs.
    fn billing(&self) -> Value {
        let (mut quota, mut used) = (self.quota(), self.used());
        let mut until = NEVER;
        if self.list("grants").iter().all(|grant| grant.get("usage_in_window").is_some()) {
            for (i, grant) in self.list("grants").iter().enumerate() {
                let from = i as i64 * HOUR;
                used.push((from, quantity(grant["usage_in_window"].as_str().expect("an amount"))));
                let id = self.ids().iter().position(|id| grant["id"] == **id).expect("an id");
                let source = &mut quota.sources[id];
                (source.from, source.to, source.expires_at) = (from, from + HOUR, from + HOUR);
            }
            until = self.list("grants").len() as i64 * HOUR;
            quota.rules[0].resets.also = (0..until).step_by(HOUR as usize).collect();
            quota.rules[0].from = 0;
        }
        let until = until.min(quota.sources.iter().map(|source| source.to).max().expect("a grant"));
        let segments = segments(&quota, i64::MIN, Until::Before(until), &used);
        // What a period ends with: the next begins with forgiving it.
        let forgiven = segments.iter().map(|segment| segment.forgiven);
        let left =
            segments.iter().filter(|segment| segment.to == until && segment.from < until).map(|last| last.overage);
        let overage =
            forgiven.chain(left).fold(Quantity::ZERO, |sum, overage| sum.checked_add(overage).expect("a sum"));
        let model = json!({ "model": "per_unit", "unit_amount": self.text("unit_amount") }).to_string();
        let model = Model::parse(&model).expect("a price");
        let billable = pricing::price(&model, &Usage::of(Amount::from(overage))).expect("a price").amount;
        json!({ "overage": overage.to_string(), "billable_amount": billable.to_string() })
    }
}
