//! Bad input: each case has its clear answer, and good events beside it are still taken.

use bytes::Bytes;
use futures::stream;
use poem::Body;
use serde_json::{Value, json};

use crate::app::{App, event};

const CE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const NDJSON: &str = "application/x-ndjson";

/// A good event with another value at a JSON Pointer.
fn with(pointer: &str, value: Value) -> String {
    let mut event = event("bad");
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    event.pointer_mut(parent).unwrap()[name] = value;
    event.to_string()
}

fn with_data(data: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"bad","source":"/s","type":"any","data":{data}}}"#)
}

/// Name, event, and the code and path of its rejection.
fn bad_events() -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
    let nulls = json!({"specversion": null, "id": null, "source": null, "type": null, "data": null}).to_string();
    let data_nulls = with("/data", json!({"run_id": null, "source": null, "job": null, "status": null}));
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("unknown type", with("/type", json!("never.heard")).into(), "unknown_type", "/type"),
        ("broken", "{broken".into(), "invalid_json", ""),
        ("not an object", "17".into(), "invalid_json", ""),
        ("invalid UTF-8", b"{\"id\":\"\xc3\x28\"}".to_vec(), "invalid_utf8", ""),
        ("number where text belongs", with("/data/run_id", json!(5)).into(), "contract_violation", "/data/run_id"),
        (
            "text where a number belongs",
            with("/data/records_read", json!("5")).into(),
            "contract_violation",
            "/data/records_read",
        ),
        ("array where text belongs", with("/data/job", json!(["j"])).into(), "contract_violation", "/data/job"),
        ("negative count", with("/data/records_read", json!(-1)).into(), "contract_violation", "/data/records_read"),
        ("number as attribute", with("/id", json!(5)).into(), "invalid_attribute", "/id"),
        ("null everywhere", nulls.into(), "missing_attribute", "/specversion"),
        ("null all over the data", data_nulls.into(), "contract_violation", "/data"),
        (
            "10,000 levels",
            with_data(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))).into(),
            "too_deep",
            "/data/0",
        ),
        ("duplicate key", with_data(r#"{"a":1,"b":{"a":1,"a":2}}"#).into(), "duplicate_key", "/data/b/a"),
        ("not a time", with("/time", json!("2026-02-30T00:00:00Z")).into(), "invalid_attribute", "/time"),
        ("control characters", with("/id", json!("a\r\nb")).into(), "invalid_attribute", "/id"),
        ("NaN", with_data("NaN").into(), "invalid_json", "/data"),
        ("lone surrogate", with_data(r#""\ud800""#).into(), "invalid_json", "/data"),
        ("too large", with("/data/error", json!("x".repeat(1 << 20))).into(), "event_too_large", ""),
    ];
    cases
}

/// Strange, and yet good.
fn odd_events() -> Vec<(&'static str, String)> {
    vec![
        ("ten levels", with_data(&format!("{}1{}", "{\"a\":".repeat(10), "}".repeat(10)))),
        ("year 9999", with("/time", json!("9999-12-31T23:59:59Z"))),
        ("huge integer", with_data("1000000000000000000000000000000000000001")),
        ("number beyond a double", with_data("1e400")),
        ("NUL as an escape", with_data(r#""\u0000""#)),
        ("empty keys", with_data(r#"{"":{"":1}}"#)),
        ("byte order mark", format!("\u{feff}{}", event("bom"))),
        ("no data", r#"{"specversion":"1.0","id":"n","source":"/s","type":"any"}"#.to_owned()),
        ("null data", with_data("null")),
    ]
}

#[tokio::test]
async fn security_65_each_bad_event_alone_is_refused_with_its_code_and_place() {
    let app = App::start().await;
    for (name, body, code, path) in bad_events() {
        let answered = app.publish("events", CE, body).await;
        if code == "event_too_large" {
            assert_eq!((answered.status, &answered.body["code"]), (413, &json!(code)), "{name}");
            assert!(answered.body["message"].as_str().unwrap().contains("1048576"));
            continue;
        }
        let error = &answered.body["data"]["errors"][0];
        assert_eq!((answered.status, &answered.body["code"]), (422, &json!("events_refused")), "{name}");
        assert_eq!(error["code"], code, "{name}: {error}");
        assert!(error["path"].as_str().unwrap().starts_with(path), "{name}: {error}");
        assert_eq!(answered.body["data"]["rejected"], 1);
        assert!(!answered.body["details"].as_array().unwrap().is_empty());
    }
    assert!(app.records().await.is_empty());
}

#[tokio::test]
async fn good_events_beside_bad_ones_are_taken() {
    let app = App::start().await;
    let mut body: Vec<u8> = Vec::new();
    let cases = bad_events();
    for (at, (_, bad, _, _)) in cases.iter().enumerate() {
        body.extend_from_slice(format!("{}\n", event(&at.to_string())).as_bytes());
        body.extend_from_slice(bad);
        body.push(b'\n');
    }
    let answered = app.publish("events", NDJSON, body).await;
    assert_eq!(answered.status, 207, "{}", answered.body);
    let errors = answered.body["data"]["errors"].as_array().unwrap();
    let found: Vec<(u64, &str)> =
        errors.iter().map(|e| (e["index"].as_u64().unwrap(), e["code"].as_str().unwrap())).collect();
    let expected: Vec<(u64, &str)> = cases.iter().zip(0..).map(|(case, at)| (2 * at + 1, case.2)).collect();
    assert_eq!(found, expected);
    assert_eq!(app.records().await.len(), cases.len());
}

#[tokio::test]
async fn odd_events_that_break_no_rule_are_taken() {
    let app = App::start().await;
    for (name, body) in odd_events() {
        let answered = app.publish("events", CE, body).await;
        assert_eq!(answered.status, 202, "{name}: {}", answered.body);
    }
    assert_eq!(app.records().await.len(), odd_events().len());
}

#[tokio::test]
async fn a_broken_line_among_ten_thousand_is_refused_alone() {
    let app = App::start().await;
    let mut lines: Vec<String> = (0..10_000).map(|n| event(&n.to_string()).to_string()).collect();
    lines[5_000].truncate(40);
    let answered = app.publish("events", NDJSON, lines.join("\n")).await;
    assert_eq!(answered.status, 207);
    assert_eq!(answered.body["data"]["accepted"], 9_999);
    assert_eq!(answered.body["data"]["errors"][0]["index"], 5_000);
    assert_eq!(app.records().await.len(), 9_999);
}

#[tokio::test]
async fn bodies_whose_events_cannot_be_told_apart_are_refused_whole() {
    let app = App::start().await;
    let many = "{}\n".repeat(10_001);
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        ("empty", CE, String::new(), 400, "empty_body"),
        ("blank lines", NDJSON, " \n\r\n".into(), 400, "empty_body"),
        ("object as batch", BATCH, event("1").to_string(), 400, "invalid_json"),
        ("cut batch", BATCH, format!("[{},", event("1")), 400, "invalid_json"),
        ("too many", NDJSON, many, 413, "too_many_events"),
        ("text", "text/plain", event("1").to_string(), 415, "unsupported_media_type"),
        ("form", "application/x-www-form-urlencoded", "a=b".into(), 415, "unsupported_media_type"),
        ("latin-1", "application/json; charset=iso-8859-1", event("1").to_string(), 415, "unsupported_media_type"),
    ];
    for (name, content_type, body, status, code) in cases {
        let answered = app.publish("events", content_type, body).await;
        assert_eq!((answered.status, &answered.body["code"]), (status, &json!(code)), "{name}");
    }
    let answered = app.send(app.post("events").body(event("1").to_string())).await;
    assert_eq!(answered.status, 415);
    assert!(app.records().await.is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_however_it_is_sent() {
    let app = App::start().await;
    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    let declared =
        app.post("events").content_type(NDJSON).header("content-length", "10485761").body(vec![b' '; 10_485_761]);
    let chunks = stream::iter((0..11).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let chunked = app.post("events").content_type(NDJSON).body(Body::from_bytes_stream(chunks));
    let bomb = zstd::encode_all(std::io::Cursor::new(vec![b' '; 64 << 20]), 3).unwrap();
    assert!(bomb.len() < 64 << 10);
    let bomb = app.post("events").content_type(NDJSON).header("content-encoding", "zstd").body(bomb);
    for (name, request) in [("declared", declared), ("chunked", chunked), ("bomb", bomb)] {
        let answered = app.send(request).await;
        assert_eq!((answered.status, &answered.body["code"]), (413, &json!("body_too_large")), "{name}");
        assert!(answered.body["message"].as_str().unwrap().contains("10485760"), "{}", answered.body);
    }
}

#[tokio::test]
async fn broken_compression_is_named() {
    let app = App::start().await;
    for (encoding, status, code) in
        [("gzip", 400, "bad_compression"), ("zstd", 400, "bad_compression"), ("br", 415, "unsupported_media_type")]
    {
        let request =
            app.post("events").content_type(NDJSON).header("content-encoding", encoding).body("not compressed");
        let answered = app.send(request).await;
        assert_eq!((answered.status, &answered.body["code"]), (status, &json!(code)), "{encoding}");
    }
}

#[tokio::test]
async fn refusals_come_as_problem_details_when_asked_for() {
    let app = App::start().await;
    let request = app.post("events").content_type(CE).header("accept", "application/problem+json").body("{}");
    let response = poem::Endpoint::get_response(&app.endpoint, request).await;
    assert_eq!(response.status().as_u16(), 422);
    assert_eq!(response.content_type(), Some("application/problem+json"));
}
