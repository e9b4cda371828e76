//! One event's trace: from the request through the log into the commits of the tables, and to a collector.

use std::sync::Arc;

use karat_oracle::plain_http::{self, read_request};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{PARENT_ID, TRACE_ID, figures, served, traceparent, value};
use crate::{client::run_event, process::Folder, wait::until};

/// Takes spans as a collector of OpenTelemetry does.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { url: format!("http://{}", listener.local_addr().unwrap()), spans: Arc::default() };
        let spans = Arc::clone(&collector.spans);
        tokio::spawn(async move {
            let mut is_away = true;
            while let Ok((mut socket, _)) = listener.accept().await {
                let request = read_request(&mut socket).await;
                // The first request is to be sent again.
                if std::mem::take(&mut is_away) {
                    plain_http::answer(&mut socket, "503 Service Unavailable", "").await;
                    continue;
                }
                assert!(request.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{request}");
                let (head, body) = request.split_once("\r\n\r\n").unwrap();
                assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
                spans.lock().extend(spans_of(&serde_json::from_str(body).unwrap()));
                plain_http::answer(&mut socket, "200 OK", "{}").await;
            }
        });
        collector
    }

    /// The span of that name in the trace of the test.
    async fn span(&self, name: &str) -> Value {
        until(&format!("the span `{name}`"), async || {
            let is_it = |span: &&Value| span["name"] == name && span["traceId"] == TRACE_ID;
            self.spans.lock().iter().find(is_it).cloned()
        })
        .await
    }
}

fn spans_of(body: &Value) -> Vec<Value> {
    let items = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let scopes = items(body, "resourceSpans").into_iter().flat_map(|of| items(&of, "scopeSpans"));
    scopes.flat_map(|scope| items(&scope, "spans")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_request_goes_with_its_event_into_the_log_the_tables_and_the_collector() {
    let collector = Collector::start().await;
    let folder = Folder::new();
    let (mut karat, client) = served(&folder, &["--otlp", &collector.url]).await;
    let metrics = karat.metrics_url().await;
    let publish = client.post("/api/v1/events?wait=gold").header("content-type", "application/cloudevents+json");
    let publish = publish.header("traceparent", traceparent()).header("tracestate", "vendor=1");
    let answer = publish.body(run_event(1).to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());

    let request = until("the span of the request that published", async || {
        let is_it = |span: &&Value| span["traceId"] == TRACE_ID && span["parentSpanId"] == PARENT_ID;
        collector.spans.lock().iter().find(is_it).cloned()
    })
    .await;
    assert_eq!((&request["name"], &request["kind"]), (&json!("request"), &json!(2)));
    let published = collector.span("publish").await;
    assert_eq!(published["parentSpanId"], request["spanId"]);
    for name in ["bronze", "step"] {
        assert_eq!(collector.span(name).await["parentSpanId"], published["spanId"], "{name}");
    }
    let step = collector.span("step").await;
    for name in ["gold", "epoch"] {
        let part = collector.span(name).await;
        assert_eq!(part["parentSpanId"], step["spanId"], "{name}");
        let at = |span: &Value, edge: &str| span[edge].as_str().unwrap().parse::<u64>().unwrap();
        assert!(at(&part, "startTimeUnixNano") <= at(&part, "endTimeUnixNano"), "{part}");
    }
    until("the figures say so", async || {
        value(&figures(&metrics).await, "karat_spans_exported_total").filter(|count| *count >= 6.0)
    })
    .await;

    let rows = folder.run(&["query", "SELECT headers FROM bronze.karat_events", "--format", "json"]).await.json();
    let headers: Value = serde_json::from_str(rows[0]["headers"].as_str().unwrap()).unwrap();
    let parent = format!("00-{TRACE_ID}-{}-01", published["spanId"].as_str().unwrap());
    assert_eq!((&headers["traceparent"], &headers["tracestate"]), (&json!(parent), &json!("vendor=1")));
    for table in ["bronze.karat_events", "gold.summary_state"] {
        let shown = folder.run(&["table", "show", table, "--format", "json"]).await.json();
        assert_eq!((&shown["traces"][0], &shown["traced_records"]), (&json!(TRACE_ID), &json!(1)), "{table}: {shown}");
    }
    karat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_before_a_stop_is_at_the_collector_when_the_process_has_ended() {
    let collector = Collector::start().await;
    let folder = Folder::new();
    let (karat, client) = served(&folder, &["--otlp", &collector.url]).await;
    // Whatever it is answered: there are no tables yet.
    client.request("/api/v1/runs").header("traceparent", traceparent()).send().await.unwrap();
    karat.stop().await;
    let spans = collector.spans.lock();
    let is_its = |span: &Value| span["traceId"] == TRACE_ID && span["parentSpanId"] == PARENT_ID;
    assert!(spans.iter().any(is_its), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let folder = Folder::new();
    // Nobody listens there.
    let (mut karat, client) = served(&folder, &["--otlp", "http://127.0.0.1:1"]).await;
    let metrics = karat.metrics_url().await;
    client.arrive(&[run_event(1)], "gold").await;
    until("spans are dropped and counted", async || {
        value(&figures(&metrics).await, "karat_spans_dropped_total").filter(|count| *count > 0.0)
    })
    .await;
    karat.stop().await;

    for address in ["collector:4318", "http://user:secret@127.0.0.1:1"] {
        let said = folder.run(&["up", "--listen", "127.0.0.1:0", "--otlp", address]).await;
        assert!(said.code == 78 && said.err.contains("telemetry.otlp") && !said.err.contains("secret"), "{said:?}");
    }
}
