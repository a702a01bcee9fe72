//! Worked by hand.

use super::*;

fn balances(quota: &Quota, used: &[(i64, Quantity)], times: &[&str]) -> Vec<String> {
    let one = |time: &&str| {
        let standing = standing(quota, Until::Before(at(time)), used).expect("a standing");
        let balance = standing.balance.map_or("unlimited".to_string(), |balance| balance.to_string());
        format!("{balance} -{} used {}", standing.overage, standing.usage)
    };
    times.iter().map(one).collect()
}

#[test]
fn an_amount_a_month_needs_the_usage_of_one_month() {
    let months = monthly("2024-01-31", "UTC");
    let quota = Quota {
        sources: vec![allowance(1, Some(100), "2024-01-31", NEVER, &months)],
        rules: rules("2024-01-31", &months),
    };
    // The anchor's day, or the month's last.
    for (time, window) in [
        ("2024-02-15", ("2024-01-31", "2024-02-15")),
        ("2024-03-01", ("2024-02-29", "2024-03-01")),
        ("2034-04-30T12:00Z", ("2034-04-30", "2034-04-30T12:00Z")),
    ] {
        let course = Course::of(&quota, at(time), Until::Before(at(time))).expect("a course");
        assert_eq!(course.windows().collect::<Vec<_>>(), [(at(window.0), at(window.1))], "{time}");
    }
    let course = Course::of(&quota, at("2024-02-15"), Until::Through(at("2024-02-15"))).expect("a course");
    assert_eq!(course.windows().collect::<Vec<_>>(), [(at("2024-01-31"), at("2024-02-29"))]);

    let used = [(at("2024-02-10"), number(130)), (at("2024-02-29"), number(1))];
    assert_eq!(
        balances(&quota, &used, &["2024-01-31", "2024-02-10", "2024-02-28", "2024-02-29", "2024-03-01"]),
        ["100 -0 used 0", "100 -0 used 0", "0 -30 used 130", "100 -0 used 0", "99 -0 used 1"]
    );
    let standing = standing(&quota, Until::Before(at("2024-02-28")), &used).expect("a standing");
    assert_eq!((standing.quota, standing.next_reset), (Some(number(100)), Some(at("2024-02-29"))));
    // Before it began there is nothing.
    assert_eq!(super::standing(&quota, Until::Before(at("2024-01-30")), &used), None);
}

#[test]
fn what_never_resets_is_for_a_lifetime() {
    let quota = Quota {
        sources: vec![allowance(1, Some(1000), "2024-01-01", NEVER, &LIFETIME)],
        rules: rules("2024-01-01", &LIFETIME),
    };
    let used: Vec<_> = (1..=12).map(|month| (at(&format!("2024-{month:02}-15")), number(100))).collect();
    assert_eq!(
        balances(&quota, &used, &["2024-02-01", "2024-06-01", "2024-11-01", "2025-01-01"]),
        ["900 -0 used 100", "500 -0 used 500", "0 -0 used 1000", "0 -200 used 1200"]
    );
}

#[test]
fn what_is_left_rolls_over_up_to_a_maximum_and_overage_is_preserved_if_so_agreed() {
    let months = monthly("2024-01-01", "UTC");
    let rolling = |min, max, preserve_overage| {
        let mut source = allowance(1, Some(100), "2024-01-01", NEVER, &months);
        source.rollover = Rollover { min: number(min), max: Some(number(max)) };
        let mut rules = rules("2024-01-01", &months);
        rules[0].preserve_overage = preserve_overage;
        Quota { sources: vec![source], rules }
    };
    let used = [(at("2024-02-10"), number(120)), (at("2024-05-10"), number(300))];
    let times = ["2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01", "2024-06-01", "2024-07-01"];
    // 100 of January, of which 30 go on; February has 130 and uses 120.
    assert_eq!(
        balances(&rolling(0, 30, false), &used, &times),
        ["130 -0 used 0", "110 -0 used 0", "130 -0 used 0", "130 -0 used 0", "100 -0 used 0", "130 -0 used 0"]
    );
    assert_eq!(
        balances(&rolling(0, 30, true), &used, &times),
        ["130 -0 used 0", "110 -0 used 0", "130 -0 used 0", "130 -0 used 0", "0 -70 used 0", "30 -0 used 0"]
    );
    // At least 20, whatever is left.
    assert_eq!(balances(&rolling(20, 30, false), &used, &times[1..2]), ["120 -0 used 0"]);
}

#[test]
fn the_allowance_burns_before_grants_and_those_by_priority_expiry_age_and_id() {
    let months = monthly("2024-01-01", "UTC");
    let mut sources = vec![allowance(9, Some(10), "2024-01-01", NEVER, &months)];
    let mut add = |id, priority, expires: Option<&str>, created_at| {
        let to = expires.map_or(NEVER, at);
        sources.push(Source { priority, to, expires_at: to, created_at, ..grant(id, 10, "2024-01-01") });
    };
    add(5, 50, None, 2);
    add(4, 50, None, 2);
    add(8, 50, None, 1);
    add(3, 50, Some("2024-06-01"), 9);
    add(7, 1, None, 9);
    add(2, -1, None, 9);
    let quota = Quota { sources, rules: rules("2024-01-01", &months) };
    let used = [(at("2024-01-02"), number(65))];
    let expected = [2, 9, 7, 3, 8, 4, 5].map(|id| if id == 9 { Id::Allowance(9) } else { Id::Grant(id) });
    let left = left(&quota, at("2024-01-03"), &used);
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
    assert_eq!(left.iter().map(|(_, left)| left.as_str()).collect::<Vec<_>>(), ["0", "0", "0", "0", "0", "0", "5"]);
}

#[test]
fn a_void_ends_a_grant_and_leaves_what_burned_before() {
    // By its expiry it burns last. Voided before the other expires, it still has.
    let until = |to: &str, expires_at: &str, source| Source { to: at(to), expires_at: at(expires_at), ..source };
    let voided = until("2024-01-10", "2024-03-01", grant(1, 10, "2024-01-01"));
    let other = until("2024-02-01", "2024-02-01", grant(2, 10, "2024-01-01"));
    let quota = Quota { sources: vec![voided, other], rules: Vec::new() };
    let used = [(at("2024-01-02"), number(14)), (at("2024-01-20"), number(1))];
    let shown =
        |list: &[(i64, &str)]| list.iter().map(|(id, left)| (Id::Grant(*id), left.to_string())).collect::<Vec<_>>();
    assert_eq!(left(&quota, at("2024-01-09"), &used), shown(&[(2, "0"), (1, "6")]));
    assert_eq!(left(&quota, at("2024-01-10"), &used), shown(&[(2, "0")]));
    // Usage counts as long as something is in effect.
    let standing = standing(&quota, Until::Before(at("2024-01-31")), &used).expect("a standing");
    assert_eq!((standing.usage, standing.overage), (number(15), number(1)));
}

#[test]
fn another_allowance_takes_over_what_was_used_in_the_period() {
    let months = monthly("2024-01-01", "UTC");
    let changed = at("2024-01-10");
    let mut quota = Quota {
        sources: vec![
            allowance(1, Some(1000), "2024-01-01", changed, &months),
            allowance(2, Some(5000), "2024-01-10", NEVER, &months),
        ],
        rules: rules("2024-01-01", &months),
    };
    let used = [(at("2024-01-05"), number(300)), (at("2024-01-20"), number(10))];
    assert_eq!(
        balances(&quota, &used, &["2024-01-09", "2024-01-10", "2024-01-31", "2024-02-01"]),
        ["700 -0 used 300", "4700 -0 used 300", "4690 -0 used 310", "5000 -0 used 0"]
    );
    let standing = standing(&quota, Until::Before(at("2024-01-31")), &used).expect("a standing");
    assert_eq!(standing.quota, Some(number(5000)));
    // To a smaller one, of which more has been used than there is: nothing is left, and nothing owed.
    quota.sources[1].amount = Some(number(200));
    assert_eq!(balances(&quota, &used[..1], &["2024-01-10", "2024-02-01"]), ["0 -0 used 300", "200 -0 used 0"]);
    // There and back again is no new quota.
    quota.sources[1].to = at("2024-01-15");
    quota.sources.push(allowance(1, Some(1000), "2024-01-15", NEVER, &months));
    assert_eq!(balances(&quota, &used, &["2024-01-15", "2024-01-31"]), ["800 -0 used 300", "790 -0 used 310"]);
    // At the end of a period there is nothing to take over; nor at the beginning of one.
    let quota = Quota {
        sources: vec![
            allowance(1, Some(1000), "2024-01-01", at("2024-02-01"), &months),
            allowance(2, Some(5000), "2024-02-01", NEVER, &LIFETIME),
        ],
        rules: rules("2024-01-01", &LIFETIME),
    };
    assert_eq!(balances(&quota, &used, &["2024-02-01"]), ["5000 -0 used 310"]);
    let anew = monthly("2024-01-10", "UTC");
    let quota = Quota {
        sources: vec![
            allowance(1, Some(1000), "2024-01-01", changed, &months),
            allowance(2, Some(5000), "2024-01-10", NEVER, &anew),
        ],
        rules: vec![
            Rules { to: changed, ..rules("2024-01-01", &months).remove(0) },
            rules("2024-01-10", &anew).remove(0),
        ],
    };
    assert_eq!(balances(&quota, &used, &["2024-01-10", "2024-01-31"]), ["5000 -0 used 0", "4990 -0 used 10"]);
}

#[test]
fn without_limit_nothing_else_burns() {
    let months = monthly("2024-01-01", "UTC");
    let changed = at("2024-03-01");
    let quota = Quota {
        sources: vec![
            allowance(1, None, "2024-01-01", changed, &months),
            allowance(2, Some(50), "2024-03-01", NEVER, &months),
            grant(1, 10, "2024-01-15"),
        ],
        rules: rules("2024-01-01", &months),
    };
    let used = [(at("2024-02-02"), number(1_000_000)), (at("2024-03-02"), number(55))];
    assert_eq!(
        balances(&quota, &used, &["2024-02-03", "2024-03-01", "2024-03-03"]),
        ["unlimited -0 used 1000000", "60 -0 used 0", "5 -0 used 55"]
    );
}

#[test]
fn what_is_taken_back_is_given_back_in_reverse() {
    let quota = Quota {
        sources: vec![
            allowance(1, Some(10), "2024-01-01", NEVER, &LIFETIME),
            Source { to: at("2024-01-10"), expires_at: at("2024-01-10"), ..grant(1, 10, "2024-01-01") },
        ],
        rules: rules("2024-01-01", &LIFETIME),
    };
    let seats = |list: &[(&str, i64)]| list.iter().map(|(time, n)| (at(time), number(*n))).collect::<Vec<_>>();
    let used = seats(&[("2024-01-02", 15), ("2024-01-03", -3), ("2024-01-12", -20)]);
    assert_eq!(balances(&quota, &used, &["2024-01-03", "2024-01-04"]), ["5 -0 used 15", "8 -0 used 12"]);
    // The grant has gone with what was left of it; what is given back beyond what was taken waits for usage to come.
    assert_eq!(balances(&quota, &used, &["2024-01-11", "2024-01-13"]), ["0 -0 used 12", "20 -0 used -8"]);
    // What the grant gave last it is given back first, though something has begun in between.
    let mut between = quota.clone();
    between.sources.push(grant(2, 1, "2024-01-02T12:00Z"));
    let back = left(&between, at("2024-01-04"), &used);
    assert_eq!(back.iter().map(|(_, left)| left.as_str()).collect::<Vec<_>>(), ["0", "8", "1"]);
    let used = seats(&[("2024-01-02", 15), ("2024-01-12", -20), ("2024-01-13", 12)]);
    assert_eq!(balances(&quota, &used, &["2024-01-14"]), ["8 -0 used 7"]);
}

#[test]
fn usage_before_anything_was_in_effect_does_not_count() {
    let months = monthly("2024-01-01", "UTC");
    let mut quota = Quota {
        sources: vec![allowance(1, Some(10), "2024-01-10", NEVER, &months)],
        rules: rules("2024-01-10", &months),
    };
    let used = [(at("2024-01-02"), number(4)), (at("2024-01-11"), number(1)), (at("2024-03-11"), number(3))];
    assert_eq!(balances(&quota, &used, &["2024-01-12"]), ["9 -0 used 1"]);
    // In between, too. Grants need no entitlement to be used, nor does its beginning take them away.
    (quota.sources[0].to, quota.rules[0].to) = (at("2024-01-20"), at("2024-01-20"));
    quota.sources.push(allowance(2, Some(10), "2024-04-02", NEVER, &months));
    quota.rules.push(rules("2024-04-02", &months).remove(0));
    assert_eq!(balances(&quota, &used, &["2024-02-01", "2024-04-03"]), ["0 -0 used 1", "10 -0 used 0"]);
    quota.sources.push(Source { rollover: NOTHING, ..grant(1, 5, "2024-03-01") });
    assert_eq!(
        balances(&quota, &used, &["2024-03-10", "2024-03-12", "2024-04-03", "2024-05-01"]),
        ["5 -0 used 1", "2 -0 used 4", "12 -0 used 0", "10 -0 used 0"]
    );
}
