//! Recurring grants are grants with a later expiry for what rolls over. That this is the same as an engine that looks at
//! the end of each period what is left, is shown here: the engine is a page long.

use super::*;

/// A day of ten moments.
const PERIOD: i64 = 10;

/// What there is, by itself: the amount comes; and at the beginning of each period but the first,
/// min(max, max(min, what is left)) of what was there before stays.
struct Engine {
    amount: i128,
    min: i128,
    max: Option<i128>,
    left: i128,
}

impl Engine {
    fn begin(&mut self, first: bool) {
        let rolls = if first { 0 } else { self.left.max(self.min) };
        self.left = self.amount + self.max.map_or(rolls, |max| rolls.min(max));
    }

    /// Returns what is missing.
    fn burn(&mut self, minor: i128) -> i128 {
        let part = minor.min(self.left);
        self.left -= part;
        minor - part
    }
}

/// All that recurs by the end of the last period, as lots.
fn credit(rule: &Recurring, periods: i64) -> Purse {
    let mut lots = Vec::new();
    for number in 0..periods {
        let parts = parts(rule, number == 0).expect("parts");
        for (place, part) in parts.iter().enumerate() {
            let expires_at = part.outlives.map_or(i64::MAX, |later| (number + 1 + later) * PERIOD);
            lots.push(Lot {
                source: Source::Coming { rule: 1, occurrence: number, part: place as i16 },
                priority: 50 + part.priority,
                promotional: true,
                effective_at: number * PERIOD,
                expires_at,
                created_at: number * PERIOD,
                ..lot(0, part.amount)
            });
        }
    }
    purse(vec![wallet(1, 1, None)], lots)
}

/// Burns in each period, at its beginning, amidst and at its last moment.
fn burns() -> impl Strategy<Value = Vec<[i128; 3]>> {
    let burn = || prop_oneof![Just(0), 0..30_i128, 0..500_i128];
    vec((burn(), burn(), burn()).prop_map(|(a, b, c)| [a, b, c]), 1..12)
}

/// Below the amount, equal to it, several times it, and none.
fn rule() -> impl Strategy<Value = (i128, i128, Option<i128>)> {
    let max = |amount: i128| {
        prop_oneof![
            Just(Some(0)),
            (0..amount).prop_map(Some),
            Just(Some(amount)),
            (amount..amount * 4).prop_map(Some),
            Just(Some(amount * 3)),
            Just(None),
        ]
    };
    (1..200_i128)
        .prop_flat_map(move |amount| (Just(amount), max(amount)))
        .prop_flat_map(|(amount, max)| (Just(amount), 0..=max.unwrap_or(amount * 2), Just(max)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn rollover_needs_nobody_to_look((amount, min, max) in rule(), burns in burns()) {
        let terms = Recurring { amount: cents(amount), rollover_min: cents(min), rollover_max: max.map(cents) };
        let mut purse = credit(&terms, burns.len() as i64);
        let mut engine = Engine { amount, min, max, left: 0 };
        for (number, at_once) in burns.iter().enumerate() {
            engine.begin(number == 0);
            for (moment, minor) in [0, PERIOD / 2, PERIOD - 1].into_iter().zip(at_once) {
                purse.as_of = number as i64 * PERIOD + moment;
                prop_assert_eq!(purse.left(|_| true), Ok(engine.left), "at {} of {}", purse.as_of, terms.amount);
                let now = purse.as_of;
                prop_assert_eq!(purse.burn(*minor, now, |_| true, &mut Vec::new()), Ok(engine.burn(*minor)));
                prop_assert_eq!(purse.left(|_| true), Ok(engine.left));
            }
        }
    }

    #[test]
    fn parts_are_the_amount_and_the_minimum((amount, min, max) in rule()) {
        let terms = Recurring { amount: cents(amount), rollover_min: cents(min), rollover_max: max.map(cents) };
        let first = parts(&terms, true).expect("parts");
        prop_assert_eq!(sum(first.iter().map(|part| part.amount)), cents(amount));
        let parts = parts(&terms, false).expect("parts");
        prop_assert_eq!(sum(parts.iter().map(|part| part.amount)), cents(amount + min));
        prop_assert!(parts.iter().all(|part| part.amount.is_positive()) && parts.len() <= 3);
        // In burn order they expire in order, but for the minimum, which goes last and with its period.
        let given: Vec<_> = parts.iter().filter(|part| part.priority == 0).collect();
        prop_assert!(given.windows(2).all(|pair| pair[0].outlives < pair[1].outlives));
    }
}

#[test]
fn rollover_by_example() {
    let of = |first: bool, amount_: &str, min: &str, max: Option<&str>| -> Vec<String> {
        let terms = Recurring { amount: amount(amount_), rollover_min: amount(min), rollover_max: max.map(amount) };
        let parts = parts(&terms, first).expect("parts").into_iter();
        parts.map(|part| format!("{} {:?} {}", part.amount, part.outlives, part.priority)).collect()
    };
    let shown = |amount: &str, min: &str, max: Option<&str>| of(false, amount, min, max);
    assert_eq!(of(true, "100", "10", Some("30")), ["70 Some(0) 0", "20 Some(1) 0", "10 Some(0) 1"]);
    assert_eq!(of(true, "100", "10", None), ["90 None 0", "10 Some(0) 1"]);
    assert_eq!(of(true, "5", "10", Some("30")), ["5 Some(0) 1"]);
    assert_eq!(shown("100", "0", Some("0")), ["100 Some(0) 0"]);
    assert_eq!(shown("100", "0", Some("30")), ["70 Some(0) 0", "30 Some(1) 0"]);
    assert_eq!(shown("100", "0", Some("100")), ["100 Some(1) 0"]);
    assert_eq!(shown("100", "0", Some("250")), ["50 Some(2) 0", "50 Some(3) 0"]);
    assert_eq!(shown("100", "0", None), ["100 None 0"]);
    assert_eq!(shown("100", "10", Some("30")), ["80 Some(0) 0", "20 Some(1) 0", "10 Some(0) 1"]);
    assert_eq!(shown("100", "30", Some("30")), ["100 Some(0) 0", "30 Some(0) 1"]);
    assert_eq!(shown("0.5", "0", Some("0.75")), ["0.25 Some(1) 0", "0.25 Some(2) 0"]);
}
