//! What is sold in the simulation, and what it costs, said a second time in `rust_decimal`.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::{DAY, START};

pub fn dec(text: &str) -> Decimal {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[derive(Clone, Copy, PartialEq)]
pub enum Interval {
    Month(i32),
    Week,
}

pub struct Phase {
    pub name: &'static str,
    /// Months and days; none for good.
    pub length: Option<(i32, i32)>,
    pub free: bool,
}

pub struct Plan {
    pub key: &'static str,
    pub currency: &'static str,
    pub interval: Interval,
    pub aligned: bool,
    pub phases: Vec<Phase>,
    pub progressive: &'static str,
    pub prices: Vec<Price>,
}

pub struct Price {
    pub key: &'static str,
    pub meter: Option<&'static str>,
    pub model: Model,
    pub charge: Charge,
    pub proration: &'static str,
    pub phase: Option<&'static str>,
    pub group: Option<&'static str>,
    /// Of one subscription.
    pub subscription: Option<String>,
    pub valid: (i64, i64),
    pub taxes: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Charge {
    Usage,
    Advance,
    Arrears,
    Once,
}

type Tier = (Option<i64>, &'static str, &'static str);

pub enum Model {
    Flat(&'static str),
    PerUnit(&'static str),
    /// At least so much a period.
    Minimum(&'static str, &'static str),
    /// An amount over so many periods, what is above at a factor, the rest at the end.
    Committed {
        unit: &'static str,
        amount: &'static str,
        periods: usize,
        factor: &'static str,
    },
    Graduated(Vec<Tier>),
    Volume(Vec<Tier>),
    Package(&'static str, i64),
    Percentage(&'static str, &'static str),
    Matrix(Vec<(&'static str, &'static str)>, &'static str),
    Bucketed(&'static str),
}

/// What was used in a cell.
#[derive(Default)]
pub struct Used {
    pub quantity: Decimal,
    pub events: u64,
    pub by_region: BTreeMap<Option<&'static str>, Decimal>,
    pub buckets: BTreeMap<i64, Decimal>,
}

impl Model {
    pub fn json(&self) -> String {
        let tiers = |tiers: &[Tier]| {
            let tier = |(up_to, unit, flat): &Tier| {
                let up_to = up_to.map_or("null".to_string(), |up_to| format!("\"{up_to}\""));
                format!(r#"{{"up_to":{up_to},"unit_amount":"{unit}","flat_amount":"{flat}"}}"#)
            };
            tiers.iter().map(tier).collect::<Vec<_>>().join(",")
        };
        match self {
            Model::Flat(amount) => format!(r#"{{"model":"flat","amount":"{amount}"}}"#),
            Model::PerUnit(unit) => format!(r#"{{"model":"per_unit","unit_amount":"{unit}"}}"#),
            Model::Minimum(unit, minimum) => {
                format!(r#"{{"model":"per_unit","unit_amount":"{unit}","minimum_spend":"{minimum}"}}"#)
            }
            Model::Committed { unit, amount, periods, factor } => format!(
                r#"{{"model":"per_unit","unit_amount":"{unit}","commitment":{{"amount":"{amount}","periods":{periods},"overage_factor":"{factor}","true_up":true}}}}"#
            ),
            Model::Graduated(list) => format!(r#"{{"model":"graduated","tiers":[{}]}}"#, tiers(list)),
            Model::Volume(list) => format!(r#"{{"model":"volume","tiers":[{}]}}"#, tiers(list)),
            Model::Package(amount, size) => {
                format!(r#"{{"model":"package","amount":"{amount}","package_size":"{size}"}}"#)
            }
            Model::Percentage(rate, fixed) => {
                format!(r#"{{"model":"percentage","rate":"{rate}","fixed_amount":"{fixed}"}}"#)
            }
            Model::Matrix(cells, default) => {
                let cell = |(region, unit): &(&str, &str)| {
                    format!(r#"{{"match":{{"region":"{region}"}},"unit_amount":"{unit}"}}"#)
                };
                let cells = cells.iter().map(cell).collect::<Vec<_>>().join(",");
                format!(r#"{{"model":"matrix","cells":[{cells}],"default":{{"unit_amount":"{default}"}}}}"#)
            }
            Model::Bucketed(unit) => {
                format!(r#"{{"model":"bucketed","price":{{"model":"per_unit","unit_amount":"{unit}"}}}}"#)
            }
        }
    }

    /// What a period of it costs, before a commitment.
    pub fn cost(&self, used: &Used) -> Decimal {
        let quantity = used.quantity;
        match self {
            Model::Flat(amount) => {
                if quantity > Decimal::ZERO {
                    dec(amount)
                } else {
                    Decimal::ZERO
                }
            }
            Model::PerUnit(unit) | Model::Committed { unit, .. } => quantity * dec(unit),
            Model::Minimum(unit, minimum) => (quantity * dec(unit)).max(dec(minimum)),
            Model::Graduated(tiers) => {
                let (mut sum, mut from) = (Decimal::ZERO, Decimal::ZERO);
                for (up_to, unit, flat) in tiers {
                    if quantity > from {
                        let to = up_to.map_or(quantity, |up_to| quantity.min(Decimal::from(up_to)));
                        sum += (to - from) * dec(unit) + dec(flat);
                        from = to;
                    }
                }
                sum
            }
            Model::Volume(tiers) => {
                let tier = tiers.iter().find(|tier| tier.0.is_none_or(|up_to| quantity <= Decimal::from(up_to)));
                let (_, unit, flat) = tier.expect("the last has no bound");
                if quantity.is_zero() { Decimal::ZERO } else { quantity * dec(unit) + dec(flat) }
            }
            Model::Package(amount, size) => (quantity / Decimal::from(*size)).ceil() * dec(amount),
            Model::Percentage(rate, fixed) => {
                quantity * dec(rate) / Decimal::from(100) + Decimal::from(used.events) * dec(fixed)
            }
            Model::Matrix(cells, default) => {
                let unit = |region: &Option<&str>| {
                    cells.iter().find(|cell| Some(cell.0) == *region).map_or(*default, |cell| cell.1)
                };
                used.by_region.iter().map(|(region, quantity)| quantity * dec(unit(region))).sum()
            }
            Model::Bucketed(unit) => used.buckets.values().map(|quantity| quantity * dec(unit)).sum(),
        }
    }
}

fn fee(key: &'static str, model: Model, charge: Charge, proration: &'static str) -> Price {
    Price {
        key,
        meter: None,
        model,
        charge,
        proration,
        phase: None,
        group: None,
        subscription: None,
        valid: (i64::MIN, i64::MAX),
        taxes: None,
    }
}

pub fn usage(meter: &'static str, model: Model) -> Price {
    Price { meter: Some(meter), ..fee(meter, model, Charge::Usage, "second") }
}

pub fn plans() -> Vec<Plan> {
    use Charge::{Advance, Arrears, Once};
    let autumn = START + 110 * DAY + 5 * 3_600_000_000;
    let graduated =
        |first| Model::Graduated(vec![(Some(5), first, "0"), (Some(20), "0.35", "1.5"), (None, "0.123", "0")]);
    let phase = |name, length, free| Phase { name, length, free };
    vec![
        Plan {
            key: "base",
            currency: "EUR",
            interval: Interval::Month(1),
            aligned: true,
            phases: Vec::new(),
            progressive: "{}",
            prices: vec![
                fee("base", Model::Flat("20"), Advance, "second"),
                fee("seats", Model::PerUnit("7.53"), Advance, "second"),
                fee("support", Model::Flat("9.99"), Arrears, "day"),
                fee("setup", Model::Flat("50"), Once, "second"),
                Price { valid: (i64::MIN, autumn), ..usage("calls", graduated("0.5")) },
                Price { valid: (autumn, i64::MAX), taxes: Some("{gst}"), ..usage("calls", graduated("0.61")) },
                Price { group: Some("vip"), ..usage("calls", Model::PerUnit("0.20")) },
                usage("tokens", Model::Package("0.77", 100)),
            ],
        },
        Plan {
            key: "anniversary",
            currency: "EUR",
            interval: Interval::Month(1),
            aligned: false,
            phases: Vec::new(),
            progressive: "{15,40}",
            prices: vec![
                fee("seats", Model::PerUnit("11"), Advance, "second"),
                usage("calls", Model::Volume(vec![(Some(10), "0.6", "0"), (None, "0.4", "2")])),
                usage("tokens", Model::Matrix(vec![("eu", "0.012"), ("us", "0.0095")], "0.02")),
                usage("payments", Model::Percentage("2.9", "0.30")),
            ],
        },
        Plan {
            key: "weekly",
            currency: "EUR",
            interval: Interval::Week,
            aligned: true,
            phases: Vec::new(),
            progressive: "{}",
            prices: vec![
                Price { taxes: Some("{gst,vat}"), ..fee("base", Model::Flat("3.10"), Advance, "day") },
                usage("calls", Model::Minimum("0.333", "1.25")),
            ],
        },
        Plan {
            key: "quarter",
            currency: "EUR",
            interval: Interval::Month(3),
            aligned: true,
            phases: Vec::new(),
            progressive: "{}",
            prices: vec![
                fee("base", Model::Flat("61.01"), Arrears, "second"),
                fee("support", Model::Flat("13"), Advance, "none"),
                fee("seats", Model::PerUnit("19.99"), Arrears, "second"),
                usage("payments", Model::Percentage("1.75", "0.11")),
            ],
        },
        Plan {
            key: "committed",
            currency: "EUR",
            interval: Interval::Month(1),
            aligned: true,
            phases: vec![
                phase("trial", Some((0, 14)), true),
                phase("ramp", Some((2, 0)), false),
                phase("full", None, false),
            ],
            progressive: "{}",
            prices: vec![
                Price { phase: Some("ramp"), ..fee("base", Model::Flat("10"), Advance, "second") },
                Price { phase: Some("full"), ..fee("base", Model::Flat("25"), Advance, "second") },
                fee("seats", Model::PerUnit("2.5"), Arrears, "second"),
                usage("calls", Model::Committed { unit: "0.7", amount: "30", periods: 3, factor: "1.5" }),
            ],
        },
        Plan {
            key: "peak",
            currency: "JPY",
            interval: Interval::Month(1),
            aligned: false,
            phases: vec![phase("trial", Some((1, 0)), true)],
            progressive: "{}",
            prices: vec![
                fee("seats", Model::PerUnit("901"), Advance, "second"),
                usage("peak", Model::Bucketed("3.5")),
                usage("tokens", Model::Matrix(vec![("eu", "1.5"), ("us", "1")], "2.25")),
            ],
        },
        Plan {
            key: "extra",
            currency: "EUR",
            interval: Interval::Month(1),
            aligned: true,
            phases: Vec::new(),
            progressive: "{}",
            prices: vec![
                fee("extra setup", Model::Flat("12.34"), Once, "second"),
                fee("extra seats", Model::PerUnit("4.01"), Advance, "second"),
                usage("tokens", Model::Matrix(vec![("eu", "0.003")], "0.001")),
            ],
        },
    ]
}

/// SQL literal of a time, which may be none.
pub fn stamp(at: i64) -> String {
    match at {
        i64::MIN => "'-infinity'".to_string(),
        i64::MAX => "'infinity'".to_string(),
        at => format!("'{}'", crate::event::time(at)),
    }
}

pub const METERS: &str = "
    INSERT INTO meterflow.meters (key, event_name, aggregation, property, dimensions, bucket_size) VALUES
      ('calls', 'call', 'count', NULL, '{}', NULL), ('tokens', 'call', 'sum', 'value', '{region}', NULL),
      ('payments', 'payment', 'sum', 'value', '{}', NULL), ('peak', 'users', 'bucket_max', 'value', '{}', '1 hour');
    INSERT INTO meterflow.taxes (key, name, rate, inclusive, is_default) VALUES
      ('vat', 'VAT', 19, false, true), ('gst', 'GST', 10, true, false), ('city', 'City', 2.5, false, false);
    INSERT INTO meterflow.coupons (code, kind, value, currency, level, meters, periods) VALUES
      ('tenth', 'percentage', 10, NULL, 'invoice', NULL, NULL), ('gift', 'fixed', 25, 'EUR', 'invoice', NULL, 1),
      ('calls', 'percentage', 50, NULL, 'line', '{calls}', 3);";

/// Statements that make the plans.
pub fn insert(plan: &Plan) -> Vec<String> {
    let (unit, count) = match plan.interval {
        Interval::Month(count) => ("month", count),
        Interval::Week => ("week", 1),
    };
    let mut sql = vec![format!(
        "INSERT INTO meterflow.plans (key, currency, interval_unit, interval_count, aligned, progressive) VALUES ('{}', '{}', '{unit}', {count}, {}, '{}')",
        plan.key, plan.currency, plan.aligned, plan.progressive
    )];
    for (ordinal, phase) in plan.phases.iter().enumerate() {
        let duration =
            phase.length.map_or("NULL".to_string(), |(months, days)| format!("'{months} months {days} days'"));
        sql.push(format!(
            "INSERT INTO meterflow.plan_phases (plan_key, ordinal, name, duration, free) VALUES ('{}', {}, '{}', {duration}, {})",
            plan.key, ordinal + 1, phase.name, phase.free
        ));
    }
    sql.extend(plan.prices.iter().map(|price| insert_price(plan.key, price)));
    sql
}

pub fn insert_price(plan: &str, price: &Price) -> String {
    let text = |text: Option<&str>| text.map_or("NULL".to_string(), |text| format!("'{text}'"));
    let subscription = price
        .subscription
        .as_ref()
        .map_or("NULL".to_string(), |key| format!("(SELECT id FROM meterflow.subscriptions WHERE key = '{key}')"));
    format!(
        "INSERT INTO meterflow.prices (plan_key, key, meter_key, model, advance, once, proration, phase, price_group, subscription_id, taxes, valid_from, valid_to) \
         VALUES ('{plan}', '{}', {}, '{}', {}, {}, '{}', {}, {}, {subscription}, {}, {}, {})",
        price.key,
        text(price.meter),
        price.model.json(),
        price.charge == Charge::Advance,
        price.charge == Charge::Once,
        price.proration,
        text(price.phase),
        text(price.group),
        text(price.taxes),
        stamp(price.valid.0),
        stamp(price.valid.1)
    )
}
