use bytes::Bytes;
use karat_schemas::{events::Contracts, pipelines};
use serde_json::{Value, json};

use super::{Mode, decode};
use crate::{
    event::{BodyFault, Code, Event, Rejection},
    limits::{MAX_EVENT_BYTES, MAX_EVENTS},
};

/// The types that ship, one whose data is anything, and one of its own topic.
fn contracts() -> Contracts {
    let text = format!(
        "{}\n[[event]]\ntype = \"any\"\n[[topic]]\nname = \"other\"\n[[event]]\ntype = \"elsewhere\"\ntopic = \"other\"\n",
        pipelines::BUILT_IN
    );
    Contracts::compile(&pipelines::parse(&text).unwrap(), |_| unreachable!()).map_err(|p| p.join("\n")).unwrap()
}

fn event() -> Value {
    json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "any", "data": {"a": 1}})
}

fn with(name: &str, value: Value) -> Value {
    let mut event = event();
    event[name] = value;
    event
}

fn one(body: impl Into<Bytes>) -> Result<Event, Rejection> {
    let mut decoded = decode(Mode::Structured, &body.into(), &contracts()).unwrap();
    assert_eq!(decoded.len(), 1);
    decoded.remove(0)
}

fn one_json(event: &Value) -> Result<Event, Rejection> {
    one(event.to_string())
}

fn refusal(event: &Value) -> (Code, String) {
    let rejection = one_json(event).unwrap_err();
    (rejection.code, rejection.path)
}

#[test]
fn the_bytes_of_data_go_on_as_they_came() {
    let data = r#"{ "b":1.50,  "a":"é\u00e9", "n":123456789012345678901234567890 }"#;
    let body = format!(r#" {{"specversion":"1.0","id":"1","source":"/s","data": {data} ,"type":"any"}} "#);
    assert_eq!(one(body).unwrap().payload, data.as_bytes());
}

#[test]
fn every_attribute_is_understood() {
    let mut sent = event();
    sent["time"] = json!("2026-01-31T10:00:00.5+02:00");
    sent["subject"] = json!("sub");
    sent["datacontenttype"] = json!("application/json");
    sent["dataschema"] = json!("http://example.com/s");
    sent["partitionkey"] = json!("k");
    sent["flag"] = json!(true);
    sent["count"] = json!(-5);
    sent["unset"] = json!(null);
    let event = one_json(&sent).unwrap();
    assert_eq!((event.time.as_deref(), event.subject.as_deref()), (Some("2026-01-31T10:00:00.5+02:00"), Some("sub")));
    assert_eq!((event.key.as_str(), event.topic.as_str()), ("k", "karat.events"));
    let mut extensions = event.extensions;
    extensions.sort();
    let expected = [("count", "-5"), ("flag", "true"), ("partitionkey", "k")];
    assert_eq!(extensions, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_key_is_partition_key_then_run_id_then_subject_then_id() {
    let mut sent = with("partitionkey", json!("p"));
    sent["subject"] = json!("s");
    sent["data"] = json!({"run_id": "r"});
    let mut keys = Vec::new();
    for remove in ["partitionkey", "data", "subject", "none"] {
        keys.push(one_json(&sent).unwrap().key);
        sent.as_object_mut().unwrap().remove(remove);
    }
    assert_eq!(keys, ["p", "r", "s", "1"]);
    let mut number = event();
    number["data"] = json!({"run_id": 5});
    assert_eq!(one_json(&number).unwrap().key, "1");
}

#[test]
fn a_lineage_event_in_an_envelope_is_keyed_by_its_run() {
    let data = json!({"eventTime": "2026-01-31T10:00:00Z", "run": {"runId": "r9"},
                      "job": {"namespace": "n", "name": "j"}});
    let mut sent = with("type", json!("io.openlineage.event"));
    sent["data"] = data;
    assert_eq!(one_json(&sent).unwrap().key, "r9");
}

#[test]
fn a_missing_null_or_empty_required_attribute_is_named() {
    for name in ["id", "source", "type", "specversion"] {
        let mut without = event();
        without.as_object_mut().unwrap().remove(name);
        for sent in [without, with(name, json!(null)), with(name, json!(""))] {
            assert_eq!(refusal(&sent), (Code::MissingAttribute, format!("/{name}")));
        }
    }
}

#[test]
fn attributes_of_another_kind_are_refused_where_they_stand() {
    for (name, value) in [
        ("id", json!(7)),
        ("source", json!({"a": 1})),
        ("type", json!(["any"])),
        ("subject", json!(true)),
        ("specversion", json!(1.0)),
        ("specversion", json!("0.3")),
        ("time", json!("yesterday")),
        ("time", json!("2026-13-01T00:00:00Z")),
        ("time", json!("10000-01-01T00:00:00Z")),
        ("time", json!(1_700_000_000)),
        ("id", json!("a\nb")),
        ("source", json!("x".repeat(3_000))),
        ("run_id", json!("r")),
        ("Extension", json!("v")),
        ("ext", json!(1.5)),
        ("ext", json!(3_000_000_000_u32)),
        ("ext", json!([1])),
    ] {
        assert_eq!(refusal(&with(name, value.clone())), (Code::InvalidAttribute, format!("/{name}")), "{value}");
    }
}

#[test]
fn times_at_the_edges_of_the_calendar_pass_the_door() {
    for time in
        ["9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00+14:00"]
    {
        assert!(one_json(&with("time", json!(time))).is_ok(), "{time}");
    }
}

#[test]
fn too_many_attributes_are_refused() {
    let mut sent = event();
    for n in 0..40 {
        sent[format!("ext{n}")] = json!("v");
    }
    assert_eq!(refusal(&sent).0, Code::InvalidAttribute);
    let nulls: Vec<String> = (0..50_000).map(|n| format!("\"n{n}\":null")).collect();
    assert_eq!(one(format!("{{{}}}", nulls.join(","))).unwrap_err().code, Code::InvalidAttribute);
}

#[test]
fn an_unknown_type_is_refused_by_name() {
    let rejection = one_json(&with("type", json!("never.heard"))).unwrap_err();
    assert_eq!((rejection.code, rejection.path.as_str()), (Code::UnknownType, "/type"));
    assert!(rejection.message.contains("`never.heard`"));
}

#[test]
fn a_broken_contract_names_the_place_in_the_event() {
    let mut sent = with("type", json!("etl.run.finished"));
    sent["data"] = json!({"run_id": 5, "source": "s", "job": "j", "status": "completed",
                          "started_at": "2026-01-31T10:00:00Z", "finished_at": "2026-01-31T10:00:00Z"});
    assert_eq!(refusal(&sent), (Code::ContractViolation, "/data/run_id".into()));
    sent["data"] = json!(null);
    assert_eq!(refusal(&sent), (Code::ContractViolation, "/data".into()));
    sent.as_object_mut().unwrap().remove("data");
    assert_eq!(refusal(&sent), (Code::ContractViolation, "/data".into()));
    // Another content type is no way around the contract.
    sent["datacontenttype"] = json!("text/plain");
    sent["data"] = json!("{}");
    assert_eq!(refusal(&sent), (Code::ContractViolation, "/data".into()));
}

#[test]
fn strict_json_holds_inside_data_too() {
    let sent = |data: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"any","data":{data}}}"#);
    let refused = |data: &str| {
        let rejection = one(sent(data)).unwrap_err();
        (rejection.code, rejection.path)
    };
    assert_eq!(refused(r#"{"x":{"a":1,"a":2}}"#), (Code::DuplicateKey, "/data/x/a".into()));
    assert_eq!(refused(&"[".repeat(10_000)).0, Code::TooDeep);
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert_eq!(refused(&nested(10_000)).0, Code::TooDeep);
    assert!(one(sent(&nested(10))).is_ok());
    assert_eq!(refused("{").0, Code::InvalidJson);
    assert_eq!(refused(r#"{"a":NaN}"#).0, Code::InvalidJson);
    assert!(one(sent("123456789012345678901234567890")).is_ok());
}

#[test]
fn a_repeated_attribute_is_refused() {
    let body = r#"{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"any"}"#;
    let rejection = one(body).unwrap_err();
    assert_eq!((rejection.code, rejection.path.as_str()), (Code::DuplicateKey, "/id"));
}

#[test]
fn base64_data_is_decoded_and_checked_like_any_other() {
    let mut sent = event();
    sent.as_object_mut().unwrap().remove("data");
    sent["data_base64"] = json!("eyJydW5faWQiOiJyIn0=");
    let event = one_json(&sent).unwrap();
    assert_eq!((event.payload.as_ref(), event.key.as_str()), (&br#"{"run_id":"r"}"#[..], "r"));
    sent["datacontenttype"] = json!("application/octet-stream");
    sent["data_base64"] = json!("/wA=");
    assert_eq!(one_json(&sent).unwrap().payload.as_ref(), b"\xff\x00");
    for bad in [json!("///"), json!(5)] {
        sent["data_base64"] = bad;
        assert_eq!(refusal(&sent), (Code::InvalidAttribute, "/data_base64".into()));
    }
    sent["data_base64"] = json!("/wA=");
    sent["data"] = json!(1);
    assert_eq!(refusal(&sent), (Code::InvalidAttribute, "/data_base64".into()));
}

#[test]
fn text_that_is_not_json_is_unwrapped() {
    let mut sent = with("datacontenttype", json!("text/plain"));
    sent["data"] = json!("line\n\"two\"");
    assert_eq!(one_json(&sent).unwrap().payload.as_ref(), b"line\n\"two\"");
}

#[test]
fn what_is_no_event_object_is_refused() {
    for body in ["[]", "null", "1", "\"x\"", "{", "{}{}", "{\"a\"}"] {
        assert_eq!(one(body).unwrap_err().code, Code::InvalidJson, "{body}");
    }
    let rejection = one(&b"{\"id\":\"\xff\"}"[..]).unwrap_err();
    assert_eq!((rejection.code, rejection.message.as_str()), (Code::InvalidUtf8, "byte 8 is not UTF-8"));
    assert_eq!(one("{}").unwrap_err().code, Code::MissingAttribute);
}

#[test]
fn an_event_over_the_limit_is_refused_by_its_size() {
    let padded = |bytes: usize| {
        let shell = with("data", json!("")).to_string().len();
        with("data", json!("x".repeat(bytes - shell))).to_string()
    };
    assert!(one(padded(MAX_EVENT_BYTES)).is_ok());
    assert_eq!(one(padded(MAX_EVENT_BYTES + 1)).unwrap_err().code, Code::EventTooLarge);
}

#[test]
fn a_broken_line_among_ten_thousand_is_refused_alone() {
    let mut lines: Vec<String> = (0..MAX_EVENTS).map(|n| with("id", json!(n.to_string())).to_string()).collect();
    lines[4_321] = "{broken".to_owned();
    for line_end in ["\n", "\r\n", "\n\n"] {
        let decoded = decode(Mode::Ndjson, &lines.join(line_end).into(), &contracts()).unwrap();
        let bad: Vec<&Rejection> = decoded.iter().filter_map(|event| event.as_ref().err()).collect();
        let line = if line_end == "\n\n" { 8_642 } else { 4_321 };
        assert_eq!((decoded.len(), bad.len(), bad[0].index, bad[0].code), (MAX_EVENTS, 1, line, Code::InvalidJson));
    }
    lines.push(event().to_string());
    assert_eq!(decode(Mode::Ndjson, &lines.join("\n").into(), &contracts()), Err(BodyFault::TooManyEvents));
}

#[test]
fn a_strange_item_of_a_batch_is_refused_alone() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let body = format!("\u{feff}[{}, 5, {deep}, null, {}]", event(), with("id", json!("2")));
    let decoded = decode(Mode::Batched, &body.into(), &contracts()).unwrap();
    let good: Vec<bool> = decoded.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, false, false, true]);
}

#[test]
fn a_body_whose_events_cannot_be_told_apart_is_refused_whole() {
    let contracts = contracts();
    let fault = |mode: Mode, body: &'static str| decode(mode, &body.into(), &contracts).unwrap_err();
    for mode in [Mode::Structured, Mode::Batched, Mode::Ndjson, Mode::AnyJson] {
        for empty in ["", " \n\r\n", "\u{feff}"] {
            assert_eq!(fault(mode.clone(), empty), BodyFault::Empty);
        }
    }
    for body in ["{}", "[{}", "[1,]", "[] []", "nul"] {
        assert!(matches!(fault(Mode::Batched, body), BodyFault::NotAnArray(_)), "{body}");
    }
    assert_eq!(decode(Mode::Batched, &Bytes::from("[]"), &contracts), Ok(vec![]));
    let many = format!("[{}]", vec!["1"; MAX_EVENTS + 1].join(","));
    assert_eq!(decode(Mode::Batched, &many.into(), &contracts), Err(BodyFault::TooManyEvents));
}

#[test]
fn plain_json_is_taken_for_what_it_is() {
    let contracts = contracts();
    let count = |body: String| decode(Mode::AnyJson, &body.into(), &contracts).unwrap().len();
    assert_eq!(count(format!(" [{},{}]", event(), event())), 2);
    assert_eq!(count(event().to_string()), 1);
}

fn binary(headers: &[(&str, &str)], content_type: Option<&str>, body: &'static [u8]) -> Result<Event, Rejection> {
    let attributes = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let mode = Mode::Binary { content_type: content_type.map(str::to_owned), attributes };
    decode(mode, &Bytes::from_static(body), &contracts()).unwrap().remove(0)
}

const HEADERS: [(&str, &str); 4] = [("specversion", "1.0"), ("id", "1"), ("source", "%2Fs%20x"), ("type", "any")];

#[test]
fn binary_mode_takes_attributes_from_headers_and_the_body_as_data() {
    let event = binary(&HEADERS, Some("application/json; charset=utf-8"), b" {\"run_id\":\"r\"}").unwrap();
    assert_eq!((event.source.as_str(), event.key.as_str()), ("/s x", "r"));
    assert_eq!(event.payload.as_ref(), b" {\"run_id\":\"r\"}");
    let event = binary(&HEADERS, Some("avro/binary"), b"\x00\xff").unwrap();
    assert_eq!((event.content_type.as_deref(), event.payload.as_ref()), (Some("avro/binary"), &b"\x00\xff"[..]));
    assert!(binary(&HEADERS, None, b"").unwrap().payload.is_empty());
}

#[test]
fn binary_mode_refuses_what_the_other_modes_refuse() {
    assert_eq!(binary(&HEADERS[1..], None, b"1").unwrap_err().path, "/specversion");
    let more = |name, value| [&HEADERS[..], &[(name, value)]].concat();
    for (name, value) in
        [("time", "now"), ("subject", "%0a"), ("ext", "%e"), ("id", "2"), ("datacontenttype", "a/b"), ("run_id", "r")]
    {
        let rejection = binary(&more(name, value), None, b"1").unwrap_err();
        assert_eq!((rejection.code, rejection.path), (Code::InvalidAttribute, format!("/{name}")));
    }
    assert_eq!(binary(&HEADERS, None, b"{\"a\":}").unwrap_err().code, Code::InvalidJson);
    assert_eq!(binary(&HEADERS, None, b"\xff").unwrap_err().code, Code::InvalidUtf8);
}

#[test]
fn the_topic_is_the_one_of_the_type() {
    assert_eq!(one_json(&with("type", json!("elsewhere"))).unwrap().topic, "other");
}
