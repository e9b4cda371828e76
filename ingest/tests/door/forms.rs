//! Every way to send events leads to the same records.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::app::{App, event, header, run_event};

fn counts(body: &Value) -> [u64; 3] {
    ["accepted", "duplicates", "rejected"].map(|name| body["data"][name].as_u64().unwrap())
}

#[tokio::test]
async fn a_structured_event_is_on_the_log_when_it_is_answered() {
    let app = App::start().await;
    let mut sent = event("r1");
    sent["time"] = json!("2026-01-31T10:00:05Z");
    sent["traceparent"] = json!("00-abc");
    let answered = app.publish("events", "application/cloudevents+json", sent.to_string()).await;
    assert_eq!((answered.status, counts(&answered.body)), (202, [1, 0, 0]));
    assert_eq!(answered.body["data"]["layer"], "logged");

    let records = app.records().await;
    let record = &records[0];
    assert_eq!(record.payload, sent["data"].to_string().as_bytes());
    assert_eq!(record.key.as_deref(), Some(&b"r1"[..]));
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "r1"),
        ("ce_source", "/crm"),
        ("ce_type", "etl.run.finished"),
        ("ce_time", "2026-01-31T10:00:05Z"),
        ("ce_traceparent", "00-abc"),
        ("content-type", "application/json"),
        ("karat_publisher", &app.owner()),
        ("karat_door", "http"),
    ];
    for (name, value) in expected {
        assert_eq!(header(record, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(header(record, "karat_publish_for_others"), None);
    assert!(header(record, "karat_receipt").is_some());
}

#[tokio::test]
async fn batched_lines_and_binary_mode_give_the_same_records() {
    let app = App::start().await;
    let (one, two) = (event("r1"), event("r2"));
    let batch = json!([one, two]).to_string();
    assert_eq!(
        app.publish("events", "application/cloudevents-batch+json; charset=utf-8", batch.clone()).await.status,
        202
    );
    assert_eq!(app.publish("events", "application/json", batch).await.status, 202);
    assert_eq!(app.publish("events", "application/x-ndjson", format!("{one}\r\n\r\n{two}")).await.status, 202);
    for sent in [&one, &two] {
        let mut request = app.post("events").content_type("application/json");
        for name in ["specversion", "id", "source", "type"] {
            request = request.header(format!("ce-{name}"), sent[name].as_str().unwrap());
        }
        assert_eq!(app.send(request.body(sent["data"].to_string())).await.status, 202);
    }
    let mut seen: Vec<(String, Vec<u8>)> =
        app.records().await.iter().map(|r| (header(r, "ce_id").unwrap(), r.payload.to_vec())).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn compressed_bodies_are_understood() {
    let app = App::start().await;
    let lines: String = (0..500).map(|n| format!("{}\n", event(&n.to_string()))).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let zstd = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    for (encoding, body) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd)] {
        let request = app.post("events").content_type("application/x-ndjson").header("content-encoding", encoding);
        let answered = app.send(request.body(body)).await;
        assert_eq!((answered.status, counts(&answered.body)), (202, [500, 0, 0]), "{encoding}");
    }
}

#[tokio::test]
async fn lineage_is_taken_as_the_public_clients_send_it() {
    let app = App::start().await;
    let sent = run_event("r7");
    let answered = app.publish("lineage", "application/json", sent.to_string()).await;
    assert_eq!((answered.status, counts(&answered.body)), (202, [1, 0, 0]));
    let pretty = serde_json::to_string_pretty(&json!([sent, run_event("r8"), {}])).unwrap();
    let answered = app.publish("lineage/batch", "application/json", pretty).await;
    assert_eq!((answered.status, counts(&answered.body)), (207, [2, 0, 1]));
    assert_eq!(answered.body["data"]["errors"][0]["index"], 2);
    let records = app.records().await;
    let same: Vec<_> = records.iter().filter(|record| record.key.as_deref() == Some(b"r7")).collect();
    assert_eq!(same.len(), 2);
    assert_eq!(header(same[0], "ce_id"), header(same[1], "ce_id"));
    assert_eq!(
        (header(same[0], "ce_source").as_deref(), header(same[0], "karat_door").as_deref()),
        (Some("crm"), Some("lineage"))
    );
}

#[tokio::test]
async fn repeats_in_one_request_are_counted_and_conflicts_reach_silver() {
    let app = App::start().await;
    let mut conflict = event("r1");
    conflict["data"]["job"] = json!("another");
    let batch = json!([event("r1"), event("r1"), conflict, event("r2")]).to_string();
    let answered = app.publish("events", "application/cloudevents-batch+json", batch).await;
    assert_eq!((answered.status, counts(&answered.body)), (202, [2, 2, 0]));
    assert_eq!(app.records().await.len(), 3);
}

#[tokio::test]
async fn an_empty_batch_is_fine_and_has_no_receipt() {
    let app = App::start().await;
    let answered = app.publish("events", "application/cloudevents-batch+json", "[]").await;
    assert_eq!((answered.status, counts(&answered.body)), (202, [0, 0, 0]));
    assert!(answered.body["data"]["receipt"].is_null());
}
