//! Events: what is understood, what is refused and how it is named, and what makes two of them the same.

use proptest::prelude::*;

use crate::core::event::{Code, Event, Fault, Limits, parse, split};
use crate::core::key::{self, Secret};
use crate::core::properties::{Path, Scratch, Value};

const LIMITS: Limits = Limits { max_event_bytes: 10_000, max_depth: 16, max_id_bytes: 64 };
const SECRET: Secret = Secret([7; 16]);

/// A valid event with `fields` added; duplicates win, so they may also replace.
fn with(fields: &str) -> String {
    format!(r#"{{"transaction_id":"t1","customer_id":"c1","event_name":"e1",{fields}}}"#)
}

fn refused(text: &str) -> Fault {
    match parse(text, &LIMITS) {
        Ok(event) => panic!("accepted {text}: {event:?}"),
        Err(fault) => fault,
    }
}

fn accepted(text: &str) -> Event<'_> {
    parse(text, &LIMITS).unwrap_or_else(|fault| panic!("refused {text}: {fault}"))
}

fn at(value: &str) -> i64 {
    accepted(&with(&format!(r#""timestamp":{value}"#))).timestamp.expect("it was sent")
}

#[track_caller]
fn assert_code(text: &str, code: Code, named: &str) {
    let fault = refused(text);
    assert_eq!(fault.code, code, "{text}: {fault}");
    assert!(fault.message.contains(named), "{text}: {:?} does not name {named:?}", fault.message);
}

#[test]
fn splits_arrays_and_single_events() {
    let texts = |text: &str| split(text).map(|raws| raws.iter().map(|raw| raw.get().to_owned()).collect::<Vec<_>>());
    assert_eq!(texts(" [ {\"a\":1} , 5,\"\\ud800\"] ").unwrap(), ["{\"a\":1}", "5", "\"\\ud800\""]);
    assert_eq!(texts("\n{\"a\": [1]}\n").unwrap(), ["{\"a\": [1]}"]);
    assert_eq!(texts("[]").unwrap(), Vec::<String>::new());
    for text in ["", " ", "null", "5", "\"x\"", "[1", "[1] 2", "{} {}", "{\"a\":NaN}", "[1,]", "nonsense"] {
        assert_eq!(split(text).map(|_| ()).unwrap_err().code, Code::InvalidEvent, "{text}");
    }
    // One event nested beyond all reason must not take its batch along.
    let deep = format!("[{}{},1]", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(split(&deep).unwrap().len(), 2);
}

#[test]
fn native_shape() {
    let text = r#" {"transaction_id":"t","customer_id":"c","event_name":"n","source":"s",
        "timestamp":"2026-01-02T03:04:05Z","properties": {"a" : 1} } "#;
    let event = accepted(text);
    assert_eq!((&*event.transaction_id, &*event.customer_id, &*event.event_name, &*event.source), ("t", "c", "n", "s"));
    assert_eq!(event.timestamp, Some(1_767_323_045_000_000));
    assert_eq!(event.properties, r#"{"a" : 1}"#);

    let text = with(r#""ignored":[1,{"x":null}]"#);
    let bare = accepted(&text);
    assert_eq!((bare.timestamp, &*bare.source, &*bare.properties), (None, "", "{}"));
}

#[test]
fn cloud_events_shape() {
    let text = r#"{"specversion":"1.0","id":"i","source":"/svc","type":"api","subject":"cust",
        "time":"2026-01-02T03:04:05.5+01:00","datacontenttype":"application/json","data":{"n":2}}"#;
    let event = accepted(text);
    assert_eq!((&*event.transaction_id, &*event.customer_id, &*event.event_name), ("i", "cust", "api"));
    assert_eq!(
        (&*event.source, &*event.properties, event.timestamp),
        ("/svc", r#"{"n":2}"#, Some(1_767_319_445_500_000))
    );
    assert_code(&with(r#""data_base64":"AAAA""#), Code::InvalidProperties, "data_base64");
}

#[test]
fn flexprice_shape() {
    let event = accepted(r#"{"event_id":"e","event_name":"n","external_customer_id":"x","properties":{}}"#);
    assert_eq!((&*event.transaction_id, &*event.customer_id, &*event.event_name), ("e", "x", "n"));
}

#[test]
fn seed_shapes() {
    let event =
        accepted(r#"{"transaction_id":"t","customer_id":"c","event_type":"api_request","timestamp":1707357600000}"#);
    assert_eq!((&*event.event_name, event.timestamp), ("api_request", Some(1_707_357_600_000_000)));

    let billing = |more: &str| {
        let text = format!(
            r#"{{"organization_id":"o","metric_name":"api_calls","quantity":12.50,"idempotency_key":"k"{more}}}"#
        );
        let event = accepted(&text);
        assert_eq!((&*event.transaction_id, &*event.customer_id, &*event.event_name), ("k", "o", "api_calls"));
        let properties: serde_json::Value = serde_json::from_str(&event.properties).unwrap();
        (event.properties.into_owned(), properties)
    };
    assert_eq!(billing("").0, r#"{"quantity":12.50}"#);
    assert_eq!(billing(r#","properties":{ }"#).1, serde_json::json!({"quantity": 12.5}));
    assert_eq!(billing(r#","properties":{"a":1}"#).1, serde_json::json!({"quantity": 12.5, "a": 1}));
    assert_eq!(billing(r#","properties":{"a":1,"quantity":3}"#).1, serde_json::json!({"quantity": 3, "a": 1}));
    assert_eq!(accepted(&with(r#""quantity":"1\"2""#)).properties, r#"{"quantity":"1\"2"}"#);
    assert_eq!(accepted(&with(r#""quantity":null"#)).properties, "{}");
}

#[test]
fn native_names_win_and_empty_aliases_are_skipped() {
    let text = with(
        r#""id":"x","event_id":"y","subject":"z","type":"w","time":1,"timestamp":2,"data":{"d":1},"properties":{"p":1}"#,
    );
    let event = accepted(&text);
    assert_eq!((&*event.transaction_id, &*event.customer_id, &*event.event_name), ("t1", "c1", "e1"));
    assert_eq!((event.timestamp, &*event.properties), (Some(2000), r#"{"p":1}"#));

    let text = with(
        r#""transaction_id":null,"event_id":"","idempotency_key":"k","customer_id":"","subject":"z",
        "timestamp":null,"time":1,"properties":null,"data":{"d":1}"#,
    );
    let event = accepted(&text);
    assert_eq!((&*event.transaction_id, &*event.customer_id), ("k", "z"));
    assert_eq!((event.timestamp, &*event.properties), (Some(1000), r#"{"d":1}"#));
}

#[test]
fn numbers_as_ids_keep_their_text() {
    let text = with(r#""transaction_id":12345678901234567890123,"customer_id":1.50"#);
    let event = accepted(&text);
    assert_eq!((&*event.transaction_id, &*event.customer_id), ("12345678901234567890123", "1.50"));
}

#[test]
fn escapes_are_read() {
    let text = r#"{"transaction\u005fid":"a\u00e9\ud83d\ude00\n\"\\\/","customer_id":"c","event_name":"n"}"#;
    assert_eq!(accepted(text).transaction_id, "aé😀\n\"\\/");
}

#[test]
fn duplicate_keys_last_wins() {
    let text = with(r#""transaction_id":"t2","properties":{"a":1},"properties":{"a":2}"#);
    let event = accepted(&text);
    assert_eq!((&*event.transaction_id, &*event.properties), ("t2", r#"{"a":2}"#));
}

#[test]
fn missing_and_malformed_fields() {
    for empty in ["", r#","transaction_id":"""#, r#","transaction_id":null"#] {
        let text = format!(r#"{{"customer_id":"c","event_name":"n"{empty}}}"#);
        assert_code(&text, Code::MissingTransactionId, "transaction_id");
        assert_eq!(refused(&text).transaction_id, None);
    }
    assert_code(r#"{"transaction_id":"t","event_name":"n"}"#, Code::MissingCustomerId, "customer_id");
    assert_code(r#"{"transaction_id":"t","customer_id":"c"}"#, Code::MissingEventName, "event_name");
    for value in ["true", "[1]", "{}"] {
        assert_code(&with(&format!(r#""customer_id":{value}"#)), Code::InvalidEvent, value);
        assert_code(&with(&format!(r#""source":{value}"#)), Code::InvalidEvent, "source");
    }
    for text in ["5", "null", "\"t\"", "[]", "[{}]", "", " ", "nonsense"] {
        assert_code(text, Code::InvalidEvent, "");
    }
    for text in [
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":tru}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\t\"}",
        "{\"a\":1} x",
        "{\"a\":[1 2]}",
        "{\"a\":\"",
        "{\"a\":'b'}",
        "{\"a\":\"\\",
    ] {
        assert_code(text, Code::InvalidEvent, "");
    }
}

#[test]
fn a_fault_carries_the_transaction_id_even_if_it_stands_behind() {
    let text = r#"{"properties":{"a":"\u0000"},"customer_id":"c","transaction_id":"late","event_name":"n"}"#;
    assert_eq!(refused(text).transaction_id.as_deref(), Some("late"));
    assert_eq!(refused(&with(r#""properties":5"#)).transaction_id.as_deref(), Some("t1"));
    assert_eq!(refused(r#"{"id":7}"#).transaction_id.as_deref(), Some("7"));
    // What PostgreSQL could not store must not be in the report either.
    assert_eq!(refused(r#"{"transaction_id":"a\u0000"}"#).transaction_id, None);
}

#[test]
fn properties_are_an_object() {
    for value in ["[]", "5", "\"\"", "\"{}\"", "true"] {
        assert_code(&with(&format!(r#""properties":{value}"#)), Code::InvalidProperties, value.trim_matches('"'));
    }
}

#[test]
fn text_that_jsonb_refuses() {
    for bad in ["\\u0000", "\\ud800", "\\udc00", "\\ud800x", "\\ud800\\u0041", "\\udc00\\ud800", "\\ud800\\ud800"] {
        assert_code(&with(&format!(r#""properties":{{"a":"x{bad}"}}"#)), Code::InvalidText, bad);
        assert_code(&with(&format!(r#""properties":{{"x{bad}":1}}"#)), Code::InvalidText, bad);
        assert_code(&with(&format!(r#""source":"{bad}""#)), Code::InvalidText, bad);
    }
    accepted(&with(r#""properties":{"a":"\ud83d\ude00","b":"\\u0000"}"#));
}

#[test]
fn numbers_that_numeric_refuses() {
    let digits = "9".repeat(1001);
    for bad in ["1e1001", "1e-1001", "-2.5E+99999999999999999999999", "0e5000", "NaN", "Infinity", "-Infinity", &digits]
    {
        let named = bad.get(..4).unwrap_or(bad).trim_start_matches('-');
        assert_code(&with(&format!(r#""properties":{{"a":{bad}}}"#)), Code::InvalidNumber, named.get(..1).unwrap());
    }
    for good in ["1e1000", "1e-1000", "-0", "0.000", "-0.0e-0", "9".repeat(1000).as_str()] {
        accepted(&with(&format!(r#""properties":{{"a":{good}}}"#)));
    }
}

#[test]
fn size_depth_and_id_limits() {
    let long = with(&format!(r#""properties":{{"a":"{}"}}"#, "x".repeat(10_000)));
    assert_code(&long, Code::TooLarge, "10000");
    assert_eq!(refused(&long).transaction_id.as_deref(), Some("t1"));
    let nested = |levels: usize| with(&format!(r#""properties":{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels)));
    accepted(&nested(14));
    assert_code(&nested(15), Code::TooDeep, "[");
    let unlimited = Limits { max_event_bytes: usize::MAX, max_depth: usize::MAX, max_id_bytes: usize::MAX };
    assert_eq!(parse(&nested(1_000_000), &unlimited).unwrap_err().code, Code::TooDeep);
    accepted(&with(&format!(r#""transaction_id":"{}""#, "é".repeat(32))));
    assert_code(&with(&format!(r#""transaction_id":"é{}""#, "é".repeat(32))), Code::TooLarge, "66");
}

#[test]
fn timestamps() {
    assert_eq!(at(r#""1970-01-01T00:00:00Z""#), 0);
    assert_eq!(at(r#""1969-12-31T23:59:59.9999999z""#), -1);
    assert_eq!(at(r#""2026-01-02 03:04:05.1234567890+05:30""#), 1_767_303_245_123_456);
    assert_eq!(at(r#""2026-01-02t03:04:05.1-00:00""#), 1_767_323_045_100_000);
    assert_eq!(at(r#""2026-01-02 03:04:05+00""#), at(r#""2026-01-02T04:34:05+0130""#));
    assert_eq!(at(r#""2024-02-29T00:00:00Z""#), 1_709_164_800_000_000);
    assert_eq!(at(r#""2000-02-29T00:00:00Z""#), 951_782_400_000_000);
    // A leap second is the second after it.
    assert_eq!(at(r#""2016-12-31T23:59:60.5Z""#), at(r#""2017-01-01T00:00:00.5Z""#));
    assert_eq!(at(r#""0001-01-01T00:00:00Z""#), -62_135_596_800_000_000);
    assert_eq!(at(r#""9999-12-31T23:59:59.999999Z""#), 253_402_300_799_999_999);
    for (millis, micros) in [
        ("1707357600000", 1_707_357_600_000_000),
        ("\"1707357600000\"", 1_707_357_600_000_000),
        ("1707357600000.1239", 1_707_357_600_000_123),
        ("1.7073576e12", 1_707_357_600_000_000),
        ("-1", -1000),
        ("-0.0001", -1),
        ("0", 0),
    ] {
        assert_eq!(at(millis), micros, "{millis}");
    }
}

#[test]
fn bad_timestamps() {
    for bad in [
        "",
        " ",
        "now",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04Z",
        "2026-01-02T03:04:05 UTC",
        "2026-02-30T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+01:60",
        "2026-01-01T00:00:00+1",
        "2026-01-01T00:00:00Zx",
        "2026/01/01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:60Z",
        "+2026-01-01T00:00:00Z",
        "-2026-01-01T00:00:00Z",
        "20260101T000000Z",
        "infinity",
        "NaN",
        "1e400",
        "２０２６-01-01T00:00:00Z",
        "2026-01-0１T00:00:00Z",
        "253402300800000",
        "--5",
    ] {
        assert_code(&with(&format!(r#""timestamp":"{bad}""#)), Code::InvalidTimestamp, bad);
    }
    for bad in ["true", "{}", "[1]", "1e30", "-62135596800001", "253402300800000", "9223372036854775807"] {
        assert_code(&with(&format!(r#""timestamp":{bad}"#)), Code::InvalidTimestamp, bad);
    }
}

fn content(properties: &str) -> u64 {
    let mut scratch = Scratch::default();
    key::content_hash(&SECRET, &scratch.read(properties, 64).unwrap())
}

#[test]
fn content_hash_is_canonical() {
    for (left, right) in [
        (r#"{"a":1,"b":[true,null]}"#, " { \"b\" : [ true , null ] , \"a\" : 1.0 } "),
        (r#"{"a":1}"#, r#"{"a":1e0}"#),
        (r#"{"a":100}"#, r#"{"a":1E+2}"#),
        (r#"{"a":0}"#, r#"{"a":-0.00e7}"#),
        (r#"{"a":-0.015}"#, r#"{"a":-150e-4}"#),
        (r#"{"a":1e900}"#, r#"{"a":10.0e899}"#),
        (r#"{"a":"é\n"}"#, r#"{"\u0061":"\u00e9\u000a"}"#),
        (r#"{"a":2}"#, r#"{"a":1,"a":2}"#),
        (r#"{"x":{"a":1,"b":2}}"#, r#"{"x":{"b":2,"a":3,"a":1}}"#),
    ] {
        assert_eq!(content(left), content(right), "{left} {right}");
    }
    let different = [
        r#"{}"#,
        r#"{"a":1}"#,
        r#"{"a":"1"}"#,
        r#"{"a":10}"#,
        r#"{"a":null}"#,
        r#"{"a":[1]}"#,
        r#"{"a":[1,2]}"#,
        r#"{"a":[2,1]}"#,
        r#"{"a":{}}"#,
        r#"{"a":[]}"#,
        r#"{"a":true}"#,
        r#"{"a":"true"}"#,
        r#"{"a":"b\",\"c"}"#,
        r#"{"a":"b","c":""}"#,
        r#"{"a":-1}"#,
        r#"{"a":0.1}"#,
        r#"{"a":1e900}"#,
        r#"{"a":1e901}"#,
        r#"{"a":[[1],2]}"#,
        r#"{"a":[[1,2]]}"#,
    ];
    for (index, left) in different.iter().enumerate() {
        for right in different.iter().skip(index + 1) {
            assert_ne!(content(left), content(right), "{left} {right}");
        }
    }
}

#[test]
fn objects_of_any_size_are_sorted() {
    for count in [23, 24, 25, 26, 200] {
        let forward: Vec<String> = (0..count).map(|n| format!("\"k{n}\":{n}")).collect();
        let mut backward = forward.clone();
        backward.reverse();
        backward.insert(0, "\"k0\":9".to_owned());
        assert_eq!(
            content(&format!("{{{}}}", forward.join(","))),
            content(&format!("{{{}}}", backward.join(","))),
            "{count}"
        );
    }
}

#[test]
fn paths() {
    let text = r#"{"a":1,"u":{"t":{"in":2},"t.x":3,"e":{}},"u.t":{"in":4,"out":5},"a":6,"é\n":7,"l":[1]}"#;
    let mut scratch = Scratch::default();
    let tape = scratch.read(text, 64).unwrap();
    let get = |path: &str| match tape.get(&Path::parse(path).unwrap()) {
        Some(Value::Number(text)) => Some(text.to_owned()),
        Some(value) => Some(value.kind().to_owned()),
        None => None,
    };
    assert_eq!(get("a").as_deref(), Some("6"));
    assert_eq!(get("u.t.in").as_deref(), Some("4"), "a key with dots wins");
    assert_eq!(get("u.t.x").as_deref(), Some("3"));
    assert_eq!(get("u.e").as_deref(), Some("an object"));
    assert_eq!(get("é\n").as_deref(), Some("7"));
    for absent in ["b", "a.b", "u.t.none", "l.0", ".", "u.", ".u", "in"] {
        assert_eq!(get(absent), None, "{absent}");
    }
    assert!(
        Path::parse("").is_err()
            && Path::parse(&"x".repeat(513)).is_err()
            && Path::parse("a.b.c.d.e.f.g.h.i.j").is_err()
    );
}

#[test]
fn event_keys() {
    let key = |tenant, source, id| key::event_key(&SECRET, tenant, source, id);
    assert_eq!(key("t", "s", "x"), key("t", "s", "x"));
    let keys = [
        key("t", "s", "x"),
        key("ts", "", "x"),
        key("t", "", "sx"),
        key("", "ts", "x"),
        key("t", "sx", ""),
        key("t", "s", "y"),
    ];
    for (index, left) in keys.iter().enumerate() {
        assert!(keys.iter().skip(index + 1).all(|right| left != right));
        assert_eq!(key::locality(left), None);
        assert_eq!(left[..4], [0; 4]);
    }
    assert_ne!(key("t", "s", "x"), key::event_key(&Secret([8; 16]), "t", "s", "x"));

    let embedded = |id| key::locality(&key("t", "", id));
    // Examples of RFC 9562 and of the ULID specification.
    assert_eq!(embedded("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), Some(1_645_557_742));
    assert_eq!(embedded("017F22E2-79B0-7CC3-98C4-DC0C0C07398F"), Some(1_645_557_742));
    assert_eq!(embedded("01ARZ3NDEKTSV4RRFFQ69G5FAV"), Some(1_469_922_850));
    for opaque in [
        "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "017f22e2x79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e279b07cc398c4dc0c0c07398f",
        "00000000-0001-7cc3-98c4-dc0c0c07398f",
        "ffffffff-ffff-7cc3-98c4-dc0c0c07398f",
        "01ARZ3NDEKTSV4RRFFQ69G5FAU",
        "01arz3ndektsv4rrffq69g5fav",
        "81ARZ3NDEKTSV4RRFFQ69G5FAV",
        "7ZZZZZZZZZTSV4RRFFQ69G5FAV",
        "",
    ] {
        assert_eq!(embedded(opaque), None, "{opaque}");
    }
}

#[test]
fn siphash_reference_vectors() {
    use siphasher::sip::SipHasher24;
    use siphasher::sip128::SipHasher24 as SipHasher128;
    let secret: [u8; 16] = std::array::from_fn(|n| n as u8);
    let input: Vec<u8> = (0..15).collect();
    // From the reference implementation, vectors_sip64[15] and vectors_sip128[0..=1].
    assert_eq!(SipHasher24::new_with_key(&secret).hash(&input), 0xa129_ca61_49be_45e5);
    let hex = |input: &[u8]| {
        SipHasher128::new_with_key(&secret).hash(input).as_bytes().map(|byte| format!("{byte:02x}")).concat()
    };
    assert_eq!(hex(&[]), "a3817f04ba25a8e66df67214c7550293");
    assert_eq!(hex(&[0]), "da87c1d86b99af44347659119b22fc45");
}

/// Stored hashes: a change here would make every retry of an accepted event a new event.
#[test]
fn hashes_are_stable() {
    let secret = Secret(std::array::from_fn(|n| n as u8));
    let mut scratch = Scratch::default();
    let tape = scratch.read(r#"{"model":"gpt-4","tokens":12.50,"tags":["a",null,true]}"#, 64).unwrap();
    let content = key::content_hash(&secret, &tape);
    let stored = [
        u128::from_be_bytes(key::event_key(&secret, "default", "svc", "t-1")),
        key::payload_hash(&secret, "c", "n", Some(5), content).cast_unsigned().into(),
        content.into(),
        key::digest(&secret, Value::Text("x")),
        key::subject(&secret, "default", "c").cast_unsigned().into(),
    ];
    assert_eq!(stored.map(|hash| format!("{hash:x}")), GOLDEN);
}

const GOLDEN: [&str; 5] = [
    "a65800594d48d70975a72857",
    "b42aa089f2ab4c64",
    "bb34111d9c14fc4",
    "5effad3a0526b056f9cbe3627a08cd0b",
    "a89a6fd6f666ff71",
];

#[test]
fn long_input_hashes_like_short_input() {
    // The pieces are gathered in a buffer of 256 bytes: neither its edge nor its overflow may show.
    let hashes: Vec<u64> =
        (0..600).map(|length| content(&format!(r#"{{"a":"{}","b":1}}"#, "x".repeat(length)))).collect();
    let distinct: std::collections::HashSet<&u64> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len());
}

#[test]
fn payload_hashes() {
    let hash = |customer, name, at| key::payload_hash(&SECRET, customer, name, at, 1);
    let hashes = [
        hash("c", "n", None),
        hash("c", "n", Some(0)),
        hash("c", "n", Some(1)),
        hash("cn", "", None),
        hash("", "cn", None),
    ];
    for (index, left) in hashes.iter().enumerate() {
        assert!(hashes.iter().skip(index + 1).all(|right| left != right));
    }
    assert_ne!(hash("c", "n", None), key::payload_hash(&SECRET, "c", "n", None, 2));
    assert_ne!(key::subject(&SECRET, "ab", "c"), key::subject(&SECRET, "a", "bc"));
}

/// JSON texts, half of them damaged.
fn jsonish() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        "-?[0-9]{1,3}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?",
        "[a-z\\PC]{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\"(\\\\u[0-9a-fA-F]{4}|\\\\[nrt\"\\\\/]|[a-z]){0,4}\"",
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            proptest::collection::vec(("[a-c.]{0,2}", inner), 0..4).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,60}", damage in any::<String>()) {
        let _ = parse(&text, &LIMITS);
        let _ = split(&text);
        let _ = parse(&with(&format!("\"properties\":{text}")), &LIMITS);
        let _ = parse(&with(&format!("\"timestamp\":\"{damage}\"")), &LIMITS);
        let _ = parse(&damage, &LIMITS);
    }

    #[test]
    fn accepts_what_serde_json_accepts(value in jsonish(), cut in 0_usize..200, damage in prop_oneof![Just(""), Just("\""), Just("{"), Just("\\u"), Just("e"), Just("]")]) {
        let mut value = value;
        if !damage.is_empty() {
            let at = value.floor_char_boundary(cut % (value.len() + 1));
            value.insert_str(at, damage);
        }
        let text = with(&format!(r#""properties":{{"a":{value}}}"#));
        // serde_json can't hold numbers beyond f64, which we can; it takes \u0000, which we refuse.
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match parse(&text, &LIMITS) {
            Ok(event) => {
                if let Err(error) = serde_json::from_str::<serde_json::Value>(&event.properties) {
                    prop_assert!(error.to_string().contains("number out of range"), "{}: {}", text, error);
                }
                let mut scratch = Scratch::default();
                let tape = scratch.read(&event.properties, LIMITS.max_depth);
                prop_assert!(tape.is_ok());
            }
            Err(fault) if fault.code == Code::InvalidEvent => prop_assert!(theirs.is_err(), "{}: {}", text, fault),
            Err(fault) => prop_assert!(
                matches!(fault.code, Code::InvalidText | Code::InvalidNumber | Code::InvalidProperties), "{}: {}", text, fault
            ),
        }
    }

    #[test]
    fn equal_meaning_hashes_equally(value in jsonish()) {
        let text = format!(r#"{{"a":{value}}}"#);
        let mut scratch = Scratch::default();
        if let (Ok(parsed), Ok(tape)) = (serde_json::from_str::<serde_json::Value>(&text), scratch.read(&text, 64)) {
            // serde_json sorts keys and drops duplicates; texts without fractions survive it exactly.
            if !text.contains(['.', 'e', 'E']) {
                prop_assert_eq!(key::content_hash(&SECRET, &tape), content(&parsed.to_string()), "{}", text);
            }
        }
    }

    #[test]
    fn timestamps_agree_with_jiff(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000, offset in -1439_i32..1440) {
        let instant = jiff::Timestamp::from_microsecond(micros).unwrap();
        let zone = jiff::tz::Offset::from_seconds(offset * 60).unwrap();
        let local = zone.to_datetime(instant);
        prop_assume!(local.year() >= 1 && local.year() <= 9999);
        let sign = if offset < 0 { '-' } else { '+' };
        let text = format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}{sign}{:02}:{:02}", local.year(), local.month(), local.day(),
            local.hour(), local.minute(), local.second(), local.subsec_nanosecond() / 1000, offset.abs() / 60, offset.abs() % 60);
        prop_assert_eq!(at(&format!("\"{text}\"")), micros, "{}", text);
    }
}
