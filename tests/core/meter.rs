//! Meters and their filters: definitions that explain themselves, what an event is worth, and its group.

use std::cmp::Ordering;

use proptest::prelude::*;

use crate::core::decimal::Quantity;
use crate::core::event::{Code, Fault};
use crate::core::filter::Filter;
use crate::core::key::{self, Secret};
use crate::core::meter::{Definition, Meter};
use crate::core::properties::number::Number;
use crate::core::properties::{DefinitionError, Path, Scratch, Value};
use crate::core::state::{Kind, Sample};

const SECRET: Secret = Secret([7; 16]);
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1440 * MINUTE;

fn definition(aggregation: &'static str) -> Definition<'static> {
    Definition {
        key: "m",
        event_name: "e",
        aggregation,
        property: if aggregation == "count" { None } else { Some("n") },
        filters: None,
        dimensions: &[],
        multiplier: None,
        bucket_size: if aggregation.starts_with("bucket") { Some(60 * MINUTE) } else { None },
        percentile: if aggregation == "percentile" { Some("0.95") } else { None },
        approximate: false,
    }
}

fn compile(definition: &Definition<'_>) -> Result<Meter, DefinitionError> {
    Meter::compile(1, definition, 0, 100)
}

fn sample(meter: &Meter, properties: &str) -> Result<Option<Sample>, Fault> {
    let mut scratch = Scratch::default();
    let tape = scratch.read(properties, 64).expect("the test's properties are valid");
    meter.sample(&tape, 1000, 7, &SECRET)
}

fn group(dimensions: &[&str], properties: &str) -> String {
    let dimensions: Vec<String> = dimensions.iter().map(|name| (*name).to_owned()).collect();
    let meter = compile(&Definition { dimensions: &dimensions, ..definition("count") }).unwrap();
    let mut scratch = Scratch::default();
    let mut text = String::new();
    meter.group(&scratch.read(properties, 64).unwrap(), &mut text);
    text
}

#[track_caller]
fn assert_refused(definition: Definition<'_>, path: &str, named: &str) {
    let error = compile(&definition).expect_err("the definition is wrong");
    assert_eq!(error.path, path, "{error}");
    assert!(error.message.contains(named), "{error} does not name {named:?}");
}

#[test]
fn every_aggregation_compiles() {
    for (name, approximate, kind) in [
        ("count", false, Kind::Count),
        ("sum", false, Kind::Sum),
        ("avg", false, Kind::Avg),
        ("min", false, Kind::Min),
        ("max", false, Kind::Max),
        ("latest", false, Kind::Latest),
        ("unique_count", false, Kind::Unique),
        ("unique_count", true, Kind::ApproxUnique),
        ("weighted_sum", false, Kind::WeightedSum),
        ("percentile", false, Kind::Percentile),
        ("percentile", true, Kind::ApproxPercentile),
        ("bucket_sum", false, Kind::BucketSum),
        ("bucket_max", false, Kind::BucketMax),
    ] {
        let meter = compile(&Definition { approximate, ..definition(name) }).unwrap();
        assert_eq!(meter.kind, kind);
        assert_eq!(meter.percentile.to_string(), if name == "percentile" { "0.95" } else { "0" });
    }
}

#[test]
fn definitions_explain_themselves() {
    assert_refused(Definition { key: "", ..definition("count") }, "key", "empty");
    assert_refused(Definition { event_name: "", ..definition("count") }, "event_name", "empty");
    assert_refused(definition("total"), "aggregation", "unique_count");
    assert_refused(
        Definition { aggregation: "approx_unique_count", ..definition("sum") },
        "aggregation",
        "unique_count with approximate",
    );
    assert_refused(Definition { approximate: true, ..definition("sum") }, "approximate", "unique_count");
    assert_refused(Definition { property: None, ..definition("sum") }, "property", "sum needs");
    assert_refused(Definition { property: Some(""), ..definition("sum") }, "property", "empty");
    assert_refused(Definition { property: Some("n"), ..definition("count") }, "property", "count counts events");
    assert_refused(Definition { multiplier: Some("2"), ..definition("count") }, "multiplier", "count");
    assert_refused(Definition { multiplier: Some("x"), ..definition("sum") }, "multiplier", "0.001");
    assert_refused(Definition { multiplier: Some("0"), ..definition("sum") }, "multiplier", "0");
    assert_refused(Definition { percentile: None, ..definition("percentile") }, "percentile", "0.95");
    assert_refused(Definition { percentile: Some("0.5"), ..definition("sum") }, "percentile", "null");
    for bad in ["95", "0", "-0.1", "x", "1.0001"] {
        assert_refused(Definition { percentile: Some(bad), ..definition("percentile") }, "percentile", "0.95");
    }
    let twice = ["a".to_owned(), "b".to_owned(), "a".to_owned()];
    assert_refused(Definition { dimensions: &twice, ..definition("count") }, "dimensions[3]", "twice");
    assert_refused(Definition { dimensions: &[String::new()], ..definition("count") }, "dimensions[1]", "empty");
    assert_refused(
        Definition { filters: Some(r#"{"a":{"gte":null}}"#), ..definition("count") },
        "filters.a.gte",
        "number",
    );
}

#[test]
fn bucket_sizes() {
    assert_refused(Definition { bucket_size: None, ..definition("bucket_sum") }, "bucket_size", "1 hour");
    assert_refused(Definition { bucket_size: Some(MINUTE), ..definition("sum") }, "bucket_size", "bucket_max");
    for bad in [0, -MINUTE, 1, MINUTE - 1, MINUTE + 1, 7 * MINUTE, 25 * 60 * MINUTE, 32 * DAY, i64::MAX, i64::MIN] {
        assert_refused(Definition { bucket_size: Some(bad), ..definition("bucket_max") }, "bucket_size", "");
    }
    let bucket = |size, at| {
        let meter = compile(&Definition { bucket_size: Some(size), ..definition("bucket_max") }).unwrap();
        let mut scratch = Scratch::default();
        let tape = scratch.read(r#"{"n":1}"#, 64).unwrap();
        meter.sample(&tape, at, 0, &SECRET).unwrap().unwrap().bucket
    };
    assert_eq!(bucket(15 * MINUTE, 16 * MINUTE), 15 * MINUTE);
    assert_eq!(bucket(15 * MINUTE, 15 * MINUTE), 15 * MINUTE);
    assert_eq!(bucket(15 * MINUTE, -1), -15 * MINUTE);
    assert_eq!(bucket(DAY, DAY + 1), DAY);
    // 1970-01-05 and 2026-01-05 are Mondays.
    assert_eq!(bucket(7 * DAY, 4 * DAY - 1), -3 * DAY);
    assert_eq!(bucket(7 * DAY, 1_767_700_000_000_000), 1_767_571_200_000_000);
    assert_eq!(bucket(31 * DAY, 4 * DAY), 4 * DAY);
}

#[test]
fn applies_half_open() {
    let meter = Meter::compile(1, &definition("count"), 10, 20).unwrap();
    assert!(meter.applies("e", 10) && meter.applies("e", 19));
    assert!(!meter.applies("e", 9) && !meter.applies("e", 20) && !meter.applies("f", 15));
}

#[test]
fn samples_numbers() {
    let meter = compile(&definition("sum")).unwrap();
    let value = |properties: &str| sample(&meter, properties).unwrap().map(|sample| sample.value.to_string());
    for (number, expected) in [
        ("100", "100"),
        ("\"100\"", "100"),
        ("42.5", "42.5"),
        ("\"123.456\"", "123.456"),
        ("-3", "-3"),
        ("1e3", "1000"),
        ("\" +5 \"", "5"),
        ("0", "0"),
    ] {
        assert_eq!(value(&format!(r#"{{"n":{number}}}"#)).as_deref(), Some(expected), "{number}");
    }
    assert_eq!(value(r#"{"n":1,"n":2}"#).as_deref(), Some("2"));
    // Passed over, never a silent zero.
    assert_eq!(value("{}"), None);
    assert_eq!(value(r#"{"n":null}"#), None);
    let found = sample(&meter, r#"{"n":1}"#).unwrap().unwrap();
    assert_eq!((found.at, found.seq, found.digest), (1000, 7, 0));
}

#[test]
fn refuses_what_is_no_number() {
    let meter = compile(&definition("avg")).unwrap();
    let many_decimals = format!("0.{}1", "0".repeat(24));
    for bad in [
        "true",
        "[1]",
        r#"{"a":1}"#,
        "\"abc\"",
        "\"\"",
        "\"Inf\"",
        "\"+Inf\"",
        "\"-Inf\"",
        "\"NaN\"",
        "\"0x10\"",
        "\"1,5\"",
        "1e30",
        "1e999",
        &many_decimals,
    ] {
        let fault = sample(&meter, &format!(r#"{{"n":{bad}}}"#)).expect_err(bad);
        assert_eq!(fault.code, Code::InvalidValue);
        assert!(fault.message.contains("property n") && fault.message.contains(bad.trim_matches('"')), "{fault}");
    }
    // A filter that refuses the event comes first.
    let filtered = compile(&Definition { filters: Some(r#"{"ok":true}"#), ..definition("avg") }).unwrap();
    assert_eq!(sample(&filtered, r#"{"n":"abc"}"#), Ok(None));
    assert!(sample(&filtered, r#"{"n":"abc","ok":true}"#).is_err());
}

#[test]
fn multiplies_exactly() {
    let meter = compile(&Definition { multiplier: Some("1.5"), ..definition("sum") }).unwrap();
    assert_eq!(sample(&meter, r#"{"n":100}"#).unwrap().unwrap().value, Quantity::from_i64(150));
    let fine = compile(&Definition { multiplier: Some("1e-20"), ..definition("sum") }).unwrap();
    assert_eq!(sample(&fine, r#"{"n":0.00001}"#).unwrap_err().code, Code::InvalidValue);
}

#[test]
fn counts_need_no_property() {
    let meter = compile(&definition("count")).unwrap();
    assert_eq!(sample(&meter, "{}").unwrap().unwrap().value, Quantity::ONE);
}

#[test]
fn unique_values() {
    let meter = compile(&definition("unique_count")).unwrap();
    let digest = |value: &str| sample(&meter, &format!(r#"{{"n":{value}}}"#)).unwrap().map(|sample| sample.digest);
    for (left, right) in [
        ("1", "1.0"),
        ("1", "\"1\""),
        ("100", "1e2"),
        ("true", "\"true\""),
        (r#"{"a":1,"b":2}"#, r#"{ "b":2.0, "a":1 }"#),
        ("[1, 2]", "[1.0,2]"),
        ("\"a\\u0062\"", "\"ab\""),
    ] {
        assert_eq!(digest(left), digest(right), "{left} {right}");
    }
    for (left, right) in [
        ("1", "2"),
        ("1", "\"1.0\""),
        ("1", "true"),
        ("[1,2]", "[2,1]"),
        ("[]", "{}"),
        ("[1]", "\"[1]\""),
        ("[\"1\"]", "[1]"),
        ("\"a\"", "\"A\""),
        ("-1", "1"),
    ] {
        assert_ne!(digest(left), digest(right), "{left} {right}");
    }
    assert_eq!(digest("null"), None);
    assert!(digest("\"\"").is_some());
}

#[test]
fn groups_are_canonical() {
    assert_eq!(group(&[], r#"{"a":1}"#), "");
    assert_eq!(group(&["model", "x", "n"], r#"{"n":4.0,"model":"gpt-4","x":null}"#), r#"["gpt-4",null,4]"#);
    assert_eq!(group(&["absent"], "{}"), "[null]");
    assert_eq!(group(&["a", "b", "c", "d"], r#"{"a":-0,"b":1.50,"c":1e3,"d":12e-3}"#), "[0,1.5,1000,0.012]");
    assert_eq!(
        group(&["a", "b"], r#"{"a":{"z":[1.0, true],"b":"x","b":"y"},"b":[]}"#),
        r#"[{"b":"y","z":[1,true]},[]]"#
    );
    assert_eq!(group(&["u.t"], r#"{"u":{"t":"in"}}"#), r#"["in"]"#);
    for text in ["\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}é😀", "", "plain"] {
        let json = serde_json::to_string(text).unwrap();
        assert_eq!(group(&["a"], &format!("{{\"a\":{json}}}")), format!("[{json}]"));
    }
}

fn matches(filter: &str, properties: &str) -> bool {
    let filter = Filter::compile(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let mut scratch = Scratch::default();
    filter.matches(&scratch.read(properties, 64).unwrap())
}

#[test]
fn filters() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("{}", &["{}", r#"{"a":1}"#], &[]),
        (
            r#"{"a":"x"}"#,
            &[r#"{"a":"x"}"#, r#"{"a":"\u0078"}"#],
            &["{}", r#"{"a":"X"}"#, r#"{"a":["x"]}"#, r#"{"a":null}"#, r#"{"b":"x"}"#],
        ),
        (r#"{"a":["x","y",null]}"#, &[r#"{"a":"y"}"#, "{}", r#"{"a":null}"#], &[r#"{"a":"z"}"#, r#"{"a":""}"#]),
        (r#"{"a":null}"#, &["{}", r#"{"a":null}"#], &[r#"{"a":0}"#, r#"{"a":false}"#]),
        (r#"{"a":true}"#, &[r#"{"a":true}"#], &[r#"{"a":false}"#, r#"{"a":"true"}"#, r#"{"a":1}"#, "{}"]),
        (
            r#"{"a":1}"#,
            &[r#"{"a":1.0}"#, r#"{"a":"1"}"#, r#"{"a":"1.00"}"#, r#"{"a":10e-1}"#],
            &[r#"{"a":2}"#, r#"{"a":"x"}"#, r#"{"a":true}"#],
        ),
        (r#"{"a":"1"}"#, &[r#"{"a":1}"#, r#"{"a":1.0}"#, r#"{"a":"1"}"#], &[r#"{"a":"1.0"}"#, r#"{"a":2}"#]),
        (r#"{"a":{"eq":1}}"#, &[r#"{"a":1}"#], &["{}"]),
        (r#"{"a":{"ne":1}}"#, &[r#"{"a":2}"#, "{}", r#"{"a":null}"#, r#"{"a":[]}"#], &[r#"{"a":1}"#, r#"{"a":"1.0"}"#]),
        (r#"{"a":{"ne":null}}"#, &[r#"{"a":0}"#], &["{}", r#"{"a":null}"#]),
        (r#"{"a":{"in":[1,"x"]}}"#, &[r#"{"a":1}"#, r#"{"a":"x"}"#], &["{}"]),
        (r#"{"a":{"nin":[1,"x"]}}"#, &["{}", r#"{"a":"y"}"#], &[r#"{"a":1}"#, r#"{"a":"x"}"#]),
        (r#"{"a":{"nin":[1,null]}}"#, &[r#"{"a":2}"#], &["{}", r#"{"a":1}"#]),
        (
            r#"{"a":{"gte":100,"lt":200}}"#,
            &[r#"{"a":100}"#, r#"{"a":"150"}"#, r#"{"a":199.99999999999999999999999999999999}"#],
            &[r#"{"a":200}"#, r#"{"a":99.9}"#, "{}", r#"{"a":"x"}"#, r#"{"a":true}"#, r#"{"a":null}"#],
        ),
        (
            r#"{"a":{"gt":-1,"lte":1e40}}"#,
            &[r#"{"a":-0.5}"#, r#"{"a":10000000000000000000000000000000000000000}"#],
            &[r#"{"a":-1}"#, r#"{"a":10000000000000000000000000000000000000001}"#],
        ),
        (
            r#"{"a":{"gt":"b"}}"#,
            &[r#"{"a":"c"}"#, r#"{"a":"ba"}"#],
            &[r#"{"a":"b"}"#, r#"{"a":"a"}"#, r#"{"a":5}"#, "{}"],
        ),
        (r#"{"a":{"lt":"10"}}"#, &[r#"{"a":9}"#, r#"{"a":"1"}"#], &[r#"{"a":"9"}"#, r#"{"a":10}"#]),
        (r#"{"a":{"exists":true}}"#, &[r#"{"a":0}"#, r#"{"a":""}"#, r#"{"a":{}}"#], &["{}", r#"{"a":null}"#]),
        (r#"{"a":{"exists":false}}"#, &["{}", r#"{"a":null}"#], &[r#"{"a":0}"#]),
        (
            r#"{"u.t":{"in":["pro"]}}"#,
            &[r#"{"u":{"t":"pro"}}"#, r#"{"u.t":"pro"}"#],
            &[r#"{"u":{"t":"free"}}"#, r#"{"u":"pro"}"#, "{}"],
        ),
        (r#"{"a":1,"b":2}"#, &[r#"{"a":1,"b":2}"#], &[r#"{"a":1}"#, r#"{"b":2}"#]),
        (r#"{"or":[{"a":1},{"b":2}]}"#, &[r#"{"a":1}"#, r#"{"b":2}"#], &["{}", r#"{"a":2,"b":1}"#]),
        (
            r#"{"c":3,"or":[{"a":1},{"and":[{"b":2},{"b":{"exists":true}}]}]}"#,
            &[r#"{"a":1,"c":3}"#, r#"{"b":2,"c":3}"#],
            &[r#"{"a":1}"#, r#"{"c":3}"#],
        ),
    ];
    for (filter, yes, no) in cases {
        for properties in *yes {
            assert!(matches(filter, properties), "{filter} {properties}");
        }
        for properties in *no {
            assert!(!matches(filter, properties), "{filter} {properties}");
        }
    }
}

#[test]
fn bad_filters_name_the_place() {
    for (filter, path, named) in [
        ("", "filters", ""),
        ("[]", "filters", "an array"),
        ("5", "filters", "a number"),
        (r#"{"a":[]}"#, "filters.a", "empty list"),
        (r#"{"a":[1,[2]]}"#, "filters.a[1]", "an array"),
        (r#"{"a":{}}"#, "filters.a", "gte"),
        (r#"{"a":{"like":"x"}}"#, "filters.a.like", "nin"),
        (r#"{"a":{"eq":{"b":1}}}"#, "filters.a.eq", "an object"),
        (r#"{"a":{"in":1}}"#, "filters.a.in", "list"),
        (r#"{"a":{"nin":[]}}"#, "filters.a.nin", "empty list"),
        (r#"{"a":{"lt":true}}"#, "filters.a.lt", "a boolean"),
        (r#"{"a":{"gte":[1]}}"#, "filters.a.gte", "an array"),
        (r#"{"a":{"exists":"yes"}}"#, "filters.a.exists", "true or false"),
        (r#"{"or":{}}"#, "filters.or", "list"),
        (r#"{"and":[]}"#, "filters.and", "empty list"),
        (r#"{"or":[{"a":1},5]}"#, "filters.or[1]", "a number"),
        (r#"{"or":[{"b":{"x":1}}]}"#, "filters.or[0].b.x", "operator"),
        (r#"{"":1}"#, "filters.", "empty"),
        (r#"{"a":1e9999}"#, "filters", "1000"),
        (r#"{"a":"\u0000"}"#, "filters", "u0000"),
    ] {
        let error = Filter::compile(filter).expect_err(filter);
        assert_eq!(error.path, path, "{filter}: {error}");
        assert!(error.message.contains(named), "{filter}: {error} does not name {named:?}");
    }
    let deep = format!("{}{{}}{}", "{\"or\":[".repeat(10_000), "]}".repeat(10_000));
    assert_eq!(Filter::compile(&deep).unwrap_err().path, "filters");
}

#[test]
fn filters_answer_from_groups() {
    let paths = |names: &[&str]| names.iter().map(|name| Path::parse(name).unwrap()).collect::<Vec<_>>();
    let filter = Filter::compile(
        r#"{"model":["gpt-4",null],"or":[{"u.tier":"pro"},{"model":{"exists":false}},{"n":{"gt":3}}]}"#,
    )
    .unwrap();
    let names: Vec<String> = filter.references().iter().map(|path| path.as_str().to_owned()).collect();
    assert_eq!(names, ["model", "n", "u.tier"]);
    let dimensions = paths(&["n", "model", "u.tier"]);
    assert_eq!(filter.matches_group(&dimensions, &[Some("4"), Some("\"gpt-4\""), None]), Some(true));
    assert_eq!(filter.matches_group(&dimensions, &[Some("3"), Some("\"gpt-\\u0034\""), None]), Some(false));
    assert_eq!(filter.matches_group(&dimensions, &[None, Some("null"), None]), Some(true));
    assert_eq!(filter.matches_group(&dimensions, &[None, Some("\"gpt-4\""), Some("\"pro\"")]), Some(true));
    assert_eq!(filter.matches_group(&dimensions, &[None, Some("{\"a\":1}"), Some("\"pro\"")]), Some(false));
    assert_eq!(filter.matches_group(&paths(&["n", "model", "u"]), &[None, None, Some("{\"tier\":\"pro\"}")]), None);
    assert_eq!(Filter::all().matches_group(&[], &[]), Some(true));
}

fn json() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        (-20_i32..20).prop_map(|n| n.to_string()),
        (-20_i32..20).prop_map(|n| format!("{}.{}", n, n.abs())),
        "\"[ab0-9]{0,2}\"",
        Just("[1,\"a\"]".to_owned()),
        Just("{\"b\":1.0}".to_owned()),
    ]
}

fn check() -> impl Strategy<Value = String> {
    let scalar = || {
        prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            (-20_i32..20).prop_map(|n| n.to_string()),
            "\"[ab0-9]{0,2}\""
        ]
    };
    let ordered = || prop_oneof![(-20_i32..20).prop_map(|n| n.to_string()), "\"[ab0-9]{0,2}\""];
    prop_oneof![
        scalar(),
        proptest::collection::vec(scalar(), 1..3).prop_map(|items| format!("[{}]", items.join(","))),
        (prop_oneof![Just("lt"), Just("lte"), Just("gt"), Just("gte")], ordered())
            .prop_map(|(name, value)| format!("{{\"{name}\":{value}}}")),
        (prop_oneof![Just("eq"), Just("ne")], scalar()).prop_map(|(name, value)| format!("{{\"{name}\":{value}}}")),
        Just("{\"exists\":true}".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A rollup's group must answer as the events in it would have.
    #[test]
    fn group_and_event_agree(a in json(), b in json(), on_a in check(), on_b in check()) {
        let properties = format!(r#"{{"a":{a},"b":{b}}}"#);
        let filter = Filter::compile(&format!(r#"{{"a":{on_a},"or":[{{"b":{on_b}}},{{"a":{on_b}}}]}}"#)).unwrap();
        let texts = [group(&["a"], &properties), group(&["b"], &properties)];
        let values = texts.each_ref().map(|text| text.strip_prefix('[').and_then(|text| text.strip_suffix(']')));
        let dimensions = [Path::parse("a").unwrap(), Path::parse("b").unwrap()];
        let mut scratch = Scratch::default();
        let tape = scratch.read(&properties, 64).unwrap();
        prop_assert_eq!(filter.matches_group(&dimensions, &values), Some(filter.matches(&tape)), "{}", properties);
    }

    #[test]
    fn filters_never_panic(text in "\\PC{0,40}", check in check()) {
        let _ = Filter::compile(&text);
        let _ = Filter::compile(&format!(r#"{{"a":{text}}}"#));
        let valid = format!(r#"{{"a":{check}}}"#);
        prop_assert!(Filter::compile(&valid).is_ok());
    }

    #[test]
    fn numbers_order_as_quantities(left in "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,4})?(e[+-]?[0-9])?", right in "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,4})?(e[+-]?[0-9])?") {
        let (one, other) = (Number::parse(&left).unwrap(), Number::parse(&right).unwrap());
        let expected = Quantity::parse(&left).unwrap().cmp(&Quantity::parse(&right).unwrap());
        prop_assert_eq!(one.cmp(&other), expected);
        prop_assert_eq!(one.cmp(&one), Ordering::Equal);
        prop_assert_eq!(one.to_string(), Quantity::parse(&left).unwrap().to_string());
        prop_assert_eq!(one.to_string() == other.to_string(), expected == Ordering::Equal);
    }

    /// Far beyond quantities the canonical text is still a function of the value and still says the value.
    #[test]
    fn large_numbers_are_canonical(digits in "[1-9][0-9]{0,90}", zeros in 0_usize..5, exponent in -900_i64..900) {
        let plain = format!("{digits}e{exponent}");
        let padded = format!("{digits}{}.0e{}", "0".repeat(zeros), exponent - zeros as i64);
        let (one, other) = (Number::parse(&plain).unwrap(), Number::parse(&padded).unwrap());
        prop_assert_eq!(one, other);
        let text = one.to_string();
        prop_assert_eq!(&text, &other.to_string());
        prop_assert_eq!(Number::parse(&text).unwrap(), one);
        prop_assert_eq!(key::digest(&SECRET, Value::Number(&plain)), key::digest(&SECRET, Value::Number(&text)));
        let tenfold = format!("{digits}e{}", exponent + 1);
        prop_assert!(Number::parse(&tenfold).unwrap() > one);
    }
}
