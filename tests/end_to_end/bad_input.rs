//! Hostile and broken requests: each has a clear answer, and what was good in them or beside them counts.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    client::{Client, run_event},
    process::{Folder, PASSWORD},
    sample::assert_no_difference,
    wait::until,
};

/// Sends a body as it is.
async fn send(client: &Client, content_type: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
    answer(client.post("/api/v1/events").header("content-type", content_type).body(body).send().await.unwrap()).await
}

async fn answer(answer: Response) -> (StatusCode, Value) {
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} without the envelope: {text}"));
    assert_eq!(body["status"], if status.is_success() { "success" } else { "error" }, "{body}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    (status, body)
}

fn with_data(number: u64, field: &str, value: Value) -> Value {
    let mut event = run_event(number);
    event["data"][field] = value;
    event
}

const NDJSON: &str = "application/x-ndjson";

/// One broken line of each kind among 10,000 good ones.
async fn broken_lines(client: &Client) {
    let deep = (0..10).fold(json!("bottom"), |value, _| json!({"down": value}));
    let nulls: Value =
        run_event(1)["data"].as_object().unwrap().keys().map(|name| (name.clone(), Value::Null)).collect();
    let mut all_null = run_event(20_000);
    all_null["data"] = nulls;
    let mut unknown = run_event(20_001);
    unknown["type"] = json!("no.such.type");
    let broken: Vec<(Vec<u8>, &str)> = vec![
        (b"{\"specversion\": ".to_vec(), "invalid_json"),
        (b"{\"specversion\": \"1.0\", \"id\": \"\xff\"}".to_vec(), "invalid_utf8"),
        (unknown.to_string().into(), "unknown_type"),
        (all_null.to_string().into(), "contract_violation"),
        (with_data(20_002, "job", json!(7)).to_string().into(), "contract_violation"),
        (with_data(20_003, "job", deep).to_string().into(), "contract_violation"),
        (with_data(20_004, "records_written", json!(1.5)).to_string().into(), "contract_violation"),
        (br#"{"specversion": "1.0", "id": "x", "id": "y"}"#.to_vec(), "duplicate_key"),
    ];
    let mut lines: Vec<Vec<u8>> = (0..9_992).map(|number| run_event(number).to_string().into_bytes()).collect();
    let mut expected = Vec::new();
    for (index, (line, code)) in broken.into_iter().enumerate() {
        let place = index * 1_237;
        lines.insert(place, line);
        expected.push((place, code));
    }
    let (status, body) = send(client, NDJSON, lines.join(&b'\n')).await;
    let data = &body["data"];
    assert_eq!((status, &data["accepted"], &data["rejected"]), (StatusCode::MULTI_STATUS, &9_992.into(), &8.into()));
    let errors = data["errors"].as_array().unwrap();
    let found: Vec<(usize, &str)> = errors
        .iter()
        .map(|error| (usize::try_from(error["index"].as_u64().unwrap()).unwrap(), error["code"].as_str().unwrap()))
        .collect();
    let mut distinct = found.clone();
    distinct.dedup();
    assert_eq!(distinct, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_clear_answers_and_harm_nothing() {
    let folder = Folder::new();
    let key = folder.account("ada", "operator").await;
    let mut karat = folder.start("karat", &["up", "--listen", "127.0.0.1:0"]);
    let url = karat.url().await;
    let client = Client::new(&url, &key);

    broken_lines(&client).await;

    let good = run_event(30_000).to_string();
    let (status, _) = send(&client, "text/csv", good.clone()).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    // One event that cannot be read is refused; of a broken list nobody knows where an event ends.
    let (status, body) = send(&client, "application/json", "{\"specversion\":").await;
    assert_eq!(
        (status, &body["data"]["errors"][0]["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &"invalid_json".into())
    );
    let (status, _) = send(&client, "application/cloudevents-batch+json", format!("[{good},")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, body) = send(&client, NDJSON, vec![b' '; (10 << 20) + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body["message"].as_str().unwrap().contains("10485760"), "the limit is named: {body}");
    let (status, _) = send(&client, NDJSON, format!("{good}\n").repeat(10_001)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let large = with_data(30_001, "error", json!("x".repeat(1 << 20))).to_string();
    let (status, body) = send(&client, NDJSON, large.clone()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body["message"].as_str().unwrap().contains("1048576"), "the limit is named: {body}");
    let (status, body) = send(&client, NDJSON, format!("{large}\n{}", run_event(9_992))).await;
    assert_eq!((status, &body["data"]["errors"][0]["code"]), (StatusCode::MULTI_STATUS, &"event_too_large".into()));
    let nameless = Client::new(&url, "kk_000000000000_0000").publish(&[run_event(30_002)], "").await.unwrap();
    assert_eq!(answer(nameless).await.0, StatusCode::UNAUTHORIZED);

    // The door lets these through, and silver does not.
    let late = [
        with_data(30_003, "finished_at", json!("9999-12-31T23:59:59Z")),
        with_data(30_004, "started_at", json!("1979-01-01T00:00:00Z")),
    ];
    let receipt = client.arrive(&late, "gold").await;
    assert_eq!((&receipt["state"], &receipt["quarantined"]), (&"quarantined".into(), &2.into()), "{receipt}");
    let reasons = "SELECT ce_id, rules FROM quarantine.etl_runs ORDER BY ce_id";
    let reasons = folder.run(&["query", reasons, "--format", "json"]).await.json();
    assert_eq!(
        reasons,
        json!([{"ce_id": "run-030003", "rules": "time_in_future"}, {"ce_id": "run-030004", "rules": "time_too_old"}])
    );

    // Of a batch in part: what others sent between its records does not count.
    let mixed =
        [run_event(0), run_event(1), with_data(30_005, "started_at", json!("1979-01-01T00:00:00Z")), run_event(2)];
    let (receipt, beside) = tokio::join!(client.arrive(&mixed, "gold"), client.arrive(&late[..1], "gold"));
    assert_eq!(
        (&receipt["state"], &receipt["records"], &receipt["quarantined"]),
        (&"gold".into(), &4.into(), &1.into())
    );
    assert_eq!((&beside["state"], &beside["quarantined"]), (&"gold".into(), &0.into()), "a repeat is a duplicate");

    let ada = Client::log_in(&url, "ada", PASSWORD).await;
    let totals = until("every good run is served", async || {
        let mut answer = ada.data("/api/v1/summary?from=1970-01-01&to=2030-12-31").await;
        (answer["totals"]["runs"] == 9_993).then(|| answer["totals"].take())
    })
    .await;
    assert_eq!(totals["records_written"], (0..9_993).map(|number| number % 100).sum::<u64>());
    karat.assert_alive();
    karat.stop().await;
    assert_no_difference(&folder.run(&["table", "verify", "--format", "json"]).await.json());
}
