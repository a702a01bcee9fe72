//! What the tests of other systems expect of proration: each case of ../shared/vectors/proration.json is asked of the
//! cycles and prorations here. It agrees, or it stands in tests/vectors/proration.md with both answers and our reason;
//! a row there that differs in nothing, or says what isn't so, fails as well.
//!
//! How a case is translated, the same for all of a rule:
//! - A date is midnight in the case's zone. Lago and flexprice's calculator name the last day of a period, included:
//!   that is our midnight after it. So their "both ends included" is `day`, a period `[start, end)` and nothing else.
//! - A period with an interval is the period of a cycle anchored at its start, not the end that the case gives.
//! - Trial days are cut off the front of what is billed.
//! - Lago's unused days after a termination are `ended_day` from the moment of it, after an upgrade `day`.
//! - Kill Bill's bill cycle day is an anniversary cycle anchored on that day of the month of the start, or of the month
//!   before if it has none; billed in advance is what starts up to the target date. Its terms are rounded to 9 places.
//! - flexprice's seconds, with the end taken a second early, are `second`.
//! - Units that change in a period are prorated like amounts: what each count pays for the time that it holds.
//! - What a credit note does with a prorated item (tax, coupons, what is refunded) is not asked here.

use ethnum::I256;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;

use crate::core::calendar::{Cycle, Interval, Period, Piece, zone};
use crate::core::currency;
use crate::core::pricing::Amount;
use crate::core::proration::{Method, Proration};
use crate::peers::{self, Comparison, Facts};

#[test]
fn peers() {
    let Some(cases) = peers::cases("proration.json") else { return };
    let mut compared = Comparison::by("proration.md");
    for case in cases.iter().map(Case) {
        let (theirs, ours) = (case.theirs(), case.ours());
        assert!(!theirs.0.is_empty(), "{} asks nothing", case.id());
        compared.case(case.id(), theirs == ours, &theirs, &ours);
    }
    compared.finish("prorations");
}

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn rounded(amount: &Amount, digits: u32) -> Amount {
    amount.round(digits).unwrap().into()
}

/// Peers print floats: further digits are theirs alone.
fn digits_of(name: &str) -> u32 {
    match name {
        "precise_amount" => 9,
        "fraction" => 9,
        _ => 24,
    }
}

struct Case<'a>(&'a Value);

impl Case<'_> {
    fn id(&self) -> &str {
        self.text("id").expect("an id")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn amount(&self, name: &str) -> Amount {
        amount(self.text(name).unwrap_or_else(|| panic!("{}: no {name}", self.id())))
    }

    fn zone(&self) -> TimeZone {
        zone(self.text("timezone").unwrap_or("UTC")).unwrap()
    }

    /// A date is its first instant.
    fn instant(&self, text: &str) -> i64 {
        match text.parse::<Timestamp>() {
            Ok(instant) => instant.as_microsecond(),
            Err(_) => self.midnight(text.parse().unwrap_or_else(|error| panic!("{}: {text}: {error}", self.id()))),
        }
    }

    fn midnight(&self, date: Date) -> i64 {
        self.zone().to_timestamp(date.at(0, 0, 0, 0)).unwrap().as_microsecond()
    }

    fn time(&self, name: &str) -> i64 {
        self.instant(self.text(name).unwrap_or_else(|| panic!("{}: no {name}", self.id())))
    }

    /// The midnight after a last day.
    fn after(&self, name: &str) -> i64 {
        let date: Date = self.text(name).unwrap_or_else(|| panic!("{}: no {name}", self.id())).parse().unwrap();
        self.midnight(date + 1.day())
    }

    fn cycle(&self, anchor: DateTime) -> Cycle {
        let interval = match self.text("interval").expect("an interval") {
            "weekly" => Interval::Weeks(1),
            "monthly" => Interval::Months(1),
            "quarterly" => Interval::Months(3),
            "yearly" => Interval::Years(1),
            other => panic!("{other}"),
        };
        Cycle::anniversary(interval, anchor, self.text("timezone").unwrap_or("UTC")).unwrap()
    }

    fn local(&self, name: &str) -> DateTime {
        self.zone().to_datetime(Timestamp::from_microsecond(self.time(name)).unwrap())
    }

    /// Of a case that names the last day of its period.
    fn period(&self) -> (i64, i64) {
        if self.text("interval").is_none() {
            return (self.time("period_start"), self.after("period_end"));
        }
        let Period { start, end, .. } = self.cycle(self.local("period_start")).period(0).unwrap();
        (start, end)
    }

    fn measure(&self, piece: (i64, i64), period: (i64, i64), method: &str) -> Proration {
        let method = Method::parse(method).unwrap_or_else(|| panic!("{method}"));
        Proration::between(piece, period, method, &self.zone()).unwrap()
    }

    /// Decimals of money in this case.
    fn digits(&self) -> u32 {
        match (self.text("round"), self.text("currency")) {
            (Some(digits), _) => digits.parse().unwrap(),
            (None, Some(code)) => currency::digits(code).unwrap(),
            (None, None) => 0,
        }
    }

    fn minor(&self, proration: &Proration, full: &Amount) -> I256 {
        proration.money(full, self.digits()).unwrap().minor()
    }

    fn money(&self, minor: I256) -> Amount {
        Amount::new(minor, self.digits())
    }

    fn theirs(&self) -> Facts {
        let mut facts = Facts::default();
        for (name, value) in self.0["expected"].as_object().expect("what is expected") {
            let value = value.as_str().map(amount).expect("a number");
            match name.as_str() {
                "tax" | "total" | "refund" | "offset" => {}
                "credit" if self.text("rule") == Some("unused_days_inclusive") => {}
                // Written with a sign by one of two.
                "credit" => facts.add(name, self.money(magnitude(&value, self.digits()))),
                _ => facts.add(name, &rounded(&value, digits_of(name).max(self.digits()))),
            }
        }
        facts
    }

    /// What we say, of what they say something about.
    fn ours(&self) -> Facts {
        let mut facts = match self.text("rule").expect("a rule") {
            "days_inclusive" => self.billed_days(),
            "unused_days_inclusive" => self.unused_days(),
            "units_weighted_by_day" => self.units(),
            "duration_ratio" => self.part((self.time("service_start"), self.time("service_end")), "second"),
            "day_based" => self.part((self.time("change_at"), self.time("period_end")), "day"),
            "days_inclusive_both_ends" => self.change(),
            "written_date_days" => self.days("day"),
            "credit_cap" => self.cap(),
            "seconds_end_minus_1" => self.item(),
            "days_exclusive_end" => self.bill_cycles("day"),
            "fixed_days_month" => self.bill_cycles(&format!("day_{}", self.text("fixed_days_in_month").unwrap())),
            other => panic!("{other}"),
        };
        facts.0.retain(|name, _| self.0["expected"].get(name).is_some());
        facts
    }

    fn part(&self, piece: (i64, i64), method: &str) -> Facts {
        let period = (self.time("period_start"), self.time("period_end"));
        let mut facts = Facts::default();
        self.add_part(&mut facts, &self.measure(piece, period, method));
        facts
    }

    fn add_part(&self, facts: &mut Facts, part: &Proration) {
        facts.add("fraction", &rounded(&part.unrounded(&amount("1")).unwrap(), digits_of("fraction")));
        if self.text("plan_amount").is_some() {
            let full = self.amount("plan_amount");
            facts.add("amount", &self.money(self.minor(part, &full)));
            facts.add("precise_amount", &rounded(&part.unrounded(&full).unwrap(), digits_of("precise_amount")));
        }
    }

    fn billed_days(&self) -> Facts {
        let mut piece = (self.time("service_start"), self.after("service_end"));
        if let Some(days) = self.text("trial_days") {
            let trial: Date = self.text("trial_start").unwrap().parse().unwrap();
            piece.0 = piece.0.max(self.midnight(trial + days.parse::<i64>().unwrap().days()));
        }
        let part = self.measure(piece, self.period(), "day");
        let mut facts = Facts::default();
        self.add_part(&mut facts, &part);
        if self.text("already_paid").is_some() {
            let paid = (self.time("already_paid_start"), self.after("already_paid_end"));
            let unused = self.minor(&self.measure(piece, paid, "day"), &self.amount("already_paid"));
            facts.add("amount", &self.money(self.minor(&part, &self.amount("plan_amount")) - unused));
        }
        if self.text("commitment_amount").is_some() {
            let commitment = self.minor(&part, &self.amount("commitment_amount"));
            let fee = commitment - self.minor(&part, &self.amount("plan_amount"));
            facts.add("commitment_fee", &self.money(fee));
        }
        facts
    }

    fn unused_days(&self) -> Facts {
        let upgraded = self.0["source"]["test"] == "upgrade";
        let period = (self.time("period_start"), self.after("period_end"));
        let rest = (self.time("change_at"), period.1);
        let unused = self.measure(rest, period, if upgraded { "day" } else { "ended_day" });
        let full = self.amount("plan_amount");
        let credited = self.text("prior_credited").map_or(I256::ZERO, |text| magnitude(&amount(text), 0));
        let item = creditable(self.minor(&unused, &full), magnitude(&full, 0), credited);
        let mut facts = Facts::default();
        facts.add("item", &self.money(item));
        facts
    }

    /// An event takes the place of earlier recorded ones that take effect with it or after it.
    fn units(&self) -> Facts {
        let date = |event: &Value, name: &str| event[name].as_str().unwrap().parse::<Date>().unwrap();
        let mut events: Vec<&Value> = self.0["unit_events"].as_array().unwrap().iter().collect();
        events.sort_by_key(|event| date(event, "recorded_on"));
        let mut history: Vec<(Date, Amount)> = Vec::new();
        for event in events {
            let effective = date(event, "effective_on");
            history.retain(|(since, _)| *since < effective);
            history.push((effective, amount(event["units"].as_str().unwrap())));
        }
        let ends = history.iter().skip(1).map(|(since, _)| self.midnight(*since)).chain([i64::MAX]);
        let weighted = history.iter().zip(ends).map(|((since, units), end)| {
            let part = self.measure((self.midnight(*since), end), self.period(), "day");
            part.money(units, 12).unwrap().minor()
        });
        let sum = Amount::new(weighted.fold(I256::ZERO, |sum, part| sum + part), 12);
        let mut facts = Facts::default();
        facts.add("units", &self.text("round").map_or(sum, |digits| rounded(&sum, digits.parse().unwrap())));
        facts
    }

    fn change(&self) -> Facts {
        let period = (self.time("period_start"), self.after("period_end"));
        let rest = self.measure((self.time("change_at"), period.1), period, "day");
        let paid = |name: &str| {
            let Some(price) = self.0[name].as_object() else { return I256::ZERO };
            let number = |key: &str| amount(price[key].as_str().unwrap());
            self.minor(&rest, &number("unit_price").checked_mul(&number("quantity")).unwrap())
        };
        let charged =
            self.text("original_amount_paid").map_or(I256::ZERO, |text| magnitude(&amount(text), self.digits()));
        let (credit, charge) = (creditable(paid("old"), charged, I256::ZERO), paid("new"));
        let mut facts = Facts::default();
        facts.add("credit", &self.money(credit));
        facts.add("charge", &self.money(charge));
        facts.add("net", &self.money(charge - credit));
        facts
    }

    fn days(&self, method: &str) -> Facts {
        let all = (self.time("period_start"), self.time("period_end"));
        let mut facts = Facts::default();
        facts.add("days", &Amount::new(self.measure(all, all, method).whole.into(), 0));
        facts
    }

    fn cap(&self) -> Facts {
        let given = |name| magnitude(&self.amount(name), 0);
        let credit = creditable(given("potential_credit"), given("original_amount_paid"), given("previous_credits"));
        let mut facts = Facts::default();
        facts.add("credit", &self.money(credit));
        facts
    }

    fn item(&self) -> Facts {
        let period = (self.time("period_start"), self.time("period_end"));
        let full = self.amount("plan_amount");
        let rest = self.minor(&self.measure((self.time("change_at"), period.1), period, "second"), &full);
        let removed = self.text("action") == Some("remove_item");
        let billed = self.0["billed"].as_array().map_or(&[][..], Vec::as_slice);
        let billed = billed.iter().map(|line| amount(line.as_str().unwrap()).round(self.digits()).unwrap().minor());
        // What was charged, or would have been; and what was taken back of it.
        let (charges, credits): (Vec<I256>, Vec<I256>) = billed.partition(|line| !line.is_negative());
        let sum = |lines: Vec<I256>| lines.into_iter().fold(I256::ZERO, |sum, line| sum + line);
        let charged = if charges.is_empty() { magnitude(&full, self.digits()) } else { sum(charges) };
        let credit = if removed { creditable(rest, charged, -sum(credits)) } else { I256::ZERO };
        let mut facts = Facts::default();
        facts.add("credit", &self.money(credit));
        facts.add("charge", &self.money(if removed { I256::ZERO } else { rest }));
        facts
    }

    /// Kill Bill: what is billed of each period, as a part of it and of the plan's amount.
    fn bill_cycles(&self, method: &str) -> Facts {
        if self.0["expected"].get("days").is_some() {
            return self.days(method);
        }
        let name = |service: &'static str, period| if self.text(service).is_some() { service } else { period };
        let (start, end) = (name("service_start", "period_start"), name("service_end", "period_end"));
        let anchor = match (self.text("stub"), self.text("bill_cycle_day")) {
            (Some("leading"), _) => self.local(end),
            (Some(_), _) => self.local(start),
            (None, None) => self.local("period_start"),
            (None, Some(day)) => {
                let day = day.parse().unwrap();
                let start = self.local(start);
                start.with().day(day).build().unwrap_or_else(|_| (start - 1.month()).with().day(day).build().unwrap())
            }
        };
        let (start, end) = (self.time(start), self.text(end).map_or(i64::MAX, |text| self.instant(text)));
        let target = self.text("target_date").map_or(end, |text| end.min(self.instant(text) + 1));
        let cycle = self.cycle(anchor);
        let pieces = cycle.periods(start, target).unwrap().into_iter().filter_map(|period| period.cut(start, end));
        let measure =
            |piece: Piece| self.measure((piece.start, piece.end), (piece.period.start, piece.period.end), method);
        let parts: Vec<Proration> = pieces.map(measure).collect();
        let sum = |full: &Amount, digits| {
            let paid = parts.iter().map(|part| part.money(full, digits).unwrap().minor());
            Amount::new(paid.fold(I256::ZERO, |sum, part| sum + part), digits)
        };
        let mut facts = Facts::default();
        facts.add("cycles", &sum(&amount("1"), 9));
        facts.add("fraction", &sum(&amount("1"), 9));
        if self.text("plan_amount").is_some() {
            let amount = sum(&self.amount("plan_amount"), self.digits());
            facts.add("amount", &amount);
            if self.text("action") == Some("cancel") {
                let others = magnitude(&self.amount("other_charges"), self.digits());
                facts.add("net", &self.money(others - magnitude(&amount, self.digits())));
            }
        }
        facts
    }
}

/// The peers' common rule of what a credit note may give back, in minor units: what was not used, but never more than
/// was charged and not credited before; never less than nothing. Ours keep to it line by line: [`credit_note`].
///
/// [`credit_note`]: crate::core::invoice::credit_note
fn creditable(unused: I256, charged: I256, credited: I256) -> I256 {
    unused.min(charged.saturating_sub(credited)).max(I256::ZERO)
}

fn magnitude(amount: &Amount, digits: u32) -> I256 {
    amount.round(digits).unwrap().minor().abs()
}
