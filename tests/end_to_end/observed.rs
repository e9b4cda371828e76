//! What a running server tells of itself: health, figures, lines of the log.

mod traces;

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    client::{Client, http, run_event},
    process::{Folder, Karat, PASSWORD},
    wait::until,
};

/// Where the figures are explained.
const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");

/// The trace of a client, by its standard.
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";

fn traceparent() -> String {
    format!("00-{TRACE_ID}-{PARENT_ID}-01")
}

async fn figures(url: &str) -> String {
    http().get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap()
}

/// Names and labels of every series, without the values.
fn series(figures: &str) -> BTreeSet<String> {
    let lines = figures.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

fn value(figures: &str, series: &str) -> Option<f64> {
    figures.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Every series has its type and its help, and every family stands in the documentation.
fn assert_described(figures: &str) {
    let named = |word: &str| -> BTreeSet<&str> {
        figures.lines().filter_map(|line| line.strip_prefix(word)?.split(' ').next()).collect()
    };
    let (types, helps) = (named("# TYPE "), named("# HELP "));
    assert_eq!(types, helps);
    for one in series(figures) {
        let name = one.split('{').next().unwrap();
        let ends = ["", "_total", "_bucket", "_sum", "_count", "_info"];
        let is_of = |end: &&str| name.strip_suffix(*end).is_some_and(|family| types.contains(family));
        assert!(ends.iter().any(is_of), "no type of {one}");
    }
    for family in types {
        let is_listed = ["", "_total", "_info"].iter().any(|end| DOCUMENT.contains(&format!("`{family}{end}`")));
        assert!(is_listed, "`{family}` is not in docs/OPERATIONS.md");
    }
}

/// Texts that would break a format, or make a series each.
fn hostile(number: u64) -> String {
    format!("evil\"{{x=\"{number}\"}} \\ ñ # {number}")
}

async fn served(folder: &Folder, more: &[&str]) -> (Karat, Client) {
    let key = folder.account("ada", "operator").await;
    let words = ["up", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let mut karat = folder.start("karat", &[&words[..], more].concat());
    let client = Client::new(&karat.url().await, &key);
    client.ready().await;
    (karat, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_count_every_event_and_what_clients_send_makes_no_series() {
    let folder = Folder::new();
    let (mut karat, client) = served(&folder, &["--without-limits"]).await;
    let metrics = karat.metrics_url().await;
    let url = client.url().to_owned();
    let hostile_event = |number: u64| {
        let mut event = run_event(number);
        event["id"] = json!(hostile(number));
        event["data"]["job"] = json!(hostile(number));
        event["data"]["source"] = json!(hostile(number + 1));
        event
    };
    let hostile_requests = async |number: u64| {
        for path in [format!("/made-up-{number}"), format!("/api/v1/{number}/x"), format!("/api/v1/runs/r-{number}")] {
            http().get(format!("{url}{path}")).send().await.unwrap();
        }
        let method = Method::from_bytes(format!("MADE{number}").as_bytes()).unwrap();
        http().request(method, format!("{url}/api/v1/runs")).send().await.unwrap();
    };
    // One of each kind, so that every series that there can be is there.
    client.arrive(&[hostile_event(1)], "gold").await;
    client.arrive(&[hostile_event(1)], "gold").await;
    hostile_requests(0).await;
    let reached = async |count: f64| {
        until("every event is counted", async || {
            let text = figures(&metrics).await;
            let counted = value(&text, "karat_event_to_gold_seconds_count{pipeline=\"etl_runs\"}");
            (counted == Some(count)).then_some(text)
        })
        .await
    };
    // Reading them is a request that is counted too.
    figures(&metrics).await;
    let before = reached(2.0).await;
    assert_described(&before);
    for name in [
        "karat_http_requests_total{method=\"other\",",
        "karat_http_request_duration_seconds_bucket{",
        "karat_commit_duration_seconds_count{layer=\"bronze\"}",
        "karat_commit_duration_seconds_count{layer=\"gold\"}",
        "karat_commit_duration_seconds_count{layer=\"epoch\"}",
        "karat_pipeline_events_total{pipeline=\"etl_runs\",outcome=\"duplicate\"}",
        "karat_pipeline_lag_records{",
        "karat_pipeline_as_of_timestamp_seconds{",
        "karat_answer_cache_misses_total",
        "karat_questions_running",
        "karat_connections_open",
        "karat_connections_overdue_total{reason=\"idle\"}",
        "karat_door_budget_bytes",
        "karat_log_waiting_bytes",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(series(&before).iter().any(|one| one.starts_with(name)), "no {name} in\n{before}");
    }

    for batch in 0..4 {
        let events: Vec<Value> = (0..50).map(|event| hostile_event(1_000 + batch * 50 + event)).collect();
        client.arrive(&events, "gold").await;
    }
    for number in 1..=200 {
        hostile_requests(number).await;
    }
    let after = reached(202.0).await;
    assert!(!after.contains("evil") && !after.contains("made-up") && !after.contains("MADE"), "{after}");
    let known = series(&before);
    let new: Vec<String> = series(&after).into_iter().filter(|one| !known.contains(one)).collect();
    // How long something took decides nothing: every bucket is written from the beginning.
    assert!(new.is_empty(), "{new:?}");
    let accepted = "karat_events_published_total{door=\"http\",outcome=\"accepted\"}";
    assert_eq!(value(&after, accepted), Some(202.0), "{after}");
    assert_eq!(value(&after, "karat_pipeline_lag_records{pipeline=\"etl_runs\"}"), Some(0.0), "{after}");
    karat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_asked_by_head_too_without_a_log_in_and_tells_names_and_states_alone() {
    let folder = Folder::new();
    let (karat, client) = served(&folder, &[]).await;
    for path in ["/health", "/livez", "/ready", "/readyz", "/readyz?verbose"] {
        for method in [Method::GET, Method::HEAD] {
            // A machine that stands still for two seconds is not ready for a moment.
            let answer = until(&format!("{method} {path}"), async || {
                let answer = http().request(method.clone(), format!("{}{path}", client.url())).send().await.unwrap();
                (answer.status() != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
            })
            .await;
            assert_eq!(answer.status(), StatusCode::OK, "{method} {path}");
            assert!(answer.headers().get("ratelimit").is_none(), "{path} costs nothing");
            let body = answer.text().await.unwrap();
            assert_eq!(body.is_empty(), method == Method::HEAD, "{method} {path}: {body}");
        }
    }
    let ready: Value = client.request("/readyz?verbose").send().await.unwrap().json().await.unwrap();
    let checks = ready["data"]["checks"].as_array().unwrap();
    let names: BTreeSet<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["lake", "log"]));
    for check in checks {
        assert_eq!(check.as_object().unwrap().keys().collect::<Vec<_>>(), ["name", "ok"]);
    }
    karat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_a_request_has_its_ids_and_a_bad_parent_begins_a_new_trace() {
    let folder = Folder::new();
    let levels = "debug,karat_http::access=info,hyper=warn";
    let (karat, client) = served(&folder, &["--log-format", "json", "--log-levels", levels]).await;
    let person = Client::log_in(client.url(), "ada", PASSWORD).await;
    let ask = async |request_id: &str, traceparent: &str| {
        let request = person.request("/api/v1/auth/me").header("x-request-id", request_id);
        request.header("traceparent", traceparent).send().await.unwrap().json::<Value>().await.unwrap()
    };
    let me = ask("good-parent", &traceparent()).await;
    ask("bad-parent", &traceparent().to_uppercase()).await;
    let path = folder.path("karat.err");
    let text = || std::fs::read_to_string(&path).unwrap();
    let answered = async |request_id: &str| {
        until("the request is in the log", async || {
            let is_its =
                |line: &Value| line["fields"]["message"] == "answered" && line["fields"]["request_id"] == request_id;
            // The last line may be on its way.
            text().lines().filter_map(|line| serde_json::from_str(line).ok()).find(is_its)
        })
        .await
    };
    let good = answered("good-parent").await;
    assert_eq!(good["fields"]["trace_id"], TRACE_ID, "{good}");
    assert_eq!(good["fields"]["user_id"], me["data"]["id"], "{good}");
    assert_eq!(good["fields"]["route"], "/api/v1/auth/me", "{good}");
    let bad = answered("bad-parent").await;
    let begun = bad["fields"]["trace_id"].as_str().unwrap();
    assert!(begun.len() == 32 && !begun.eq_ignore_ascii_case(TRACE_ID), "{bad}");
    karat.stop().await;
    for line in text().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let spans = line["spans"].as_array().into_iter().flatten();
        for request in spans.filter(|span| span["name"] == "request") {
            assert!(request["request_id"].is_string() && request["trace_id"].is_string(), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_open_is_a_request_that_is_counted_once_when_it_is_opened() {
    let folder = Folder::new();
    let (mut karat, client) = served(&folder, &[]).await;
    let metrics = karat.metrics_url().await;
    let person = Client::log_in(client.url(), "ada", PASSWORD).await;
    let counted = async |route: &str, status: &str| {
        let text = figures(&metrics).await;
        let is_its = |one: &String| one.starts_with("karat_http_requests_total{") && one.contains(route);
        let found: Vec<String> = series(&text).into_iter().filter(is_its).collect();
        assert!(found.len() == 1 && found[0].contains(status), "{found:?}");
        value(&text, &found[0])
    };
    for opened in 1..=2 {
        let stream = person.request("/api/v1/events/stream").send().await.unwrap();
        let socket = person
            .request("/api/v1/charts/line")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let socket = socket.send().await.unwrap();
        assert_eq!((stream.status(), socket.status()), (StatusCode::OK, StatusCode::SWITCHING_PROTOCOLS));
        // Both are open still, and the ones of before have ended.
        assert_eq!(counted("/events/stream", "2xx").await, Some(f64::from(opened)));
        assert_eq!(counted("/charts/", "1xx").await, Some(f64::from(opened)));
    }
    karat.stop().await;
}
