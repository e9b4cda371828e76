//! The stream of events as its clients see it.

use std::{sync::Once, time::Duration};

use karat_api::serving::freshness::Objective;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Run, TestApp, run};

const DEADLINE: Duration = Duration::from_secs(120);

/// Of TLS, which the HTTP client asks for whatever it is used for.
pub fn install_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::aws_lc_rs::default_provider().install_default()));
}

/// One that listens.
struct Listener {
    response: reqwest::Response,
    text: String,
}

/// An event.
#[derive(Debug, PartialEq)]
struct Event {
    id: String,
    kind: String,
    data: Value,
}

impl Listener {
    async fn open(app: &TestApp, token: &str, last: Option<&str>) -> Self {
        install_provider();
        let url = format!("http://{}/api/v1/events/stream", app.address);
        let mut request = reqwest::Client::new().get(url).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        let media = response.headers()["content-type"].to_str().unwrap();
        assert_eq!((response.status().as_u16(), media), (200, "text/event-stream"));
        Self { response, text: String::new() }
    }

    /// The next block of lines; none at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let part = timeout(DEADLINE, self.response.chunk()).await.expect("something must come").unwrap()?;
            self.text.push_str(std::str::from_utf8(&part).unwrap());
        }
    }

    /// The next event; comments and waits for coming back are passed over.
    async fn event(&mut self) -> Event {
        loop {
            let block = self.block().await.expect("the stream must go on");
            let field = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
            };
            if let (Some(id), Some(kind), Some(data)) = (field("id"), field("event"), field("data")) {
                return Event { id, kind, data: serde_json::from_str(&data).unwrap() };
            }
        }
    }

    /// The id, kind and run of so many events.
    async fn events(&mut self, count: usize) -> Vec<(String, String, Value)> {
        let mut events = Vec::new();
        while events.len() < count {
            let Event { id, kind, data } = self.event().await;
            events.push((id, kind, data["run_id"].clone()));
        }
        events
    }
}

fn of(id: &str, status: &str, user: &str) -> Run {
    let run = run(id, "crm", "load", "2026-01-05T10:00:00Z");
    Run { user: Some(user.to_owned()), status: status.to_owned(), ..run }
}

fn told(id: &str, kind: &str, run: Option<&str>) -> (String, String, Value) {
    (id.to_owned(), kind.to_owned(), run.map_or(Value::Null, Value::from))
}

#[tokio::test]
async fn a_listener_hears_of_epochs_and_runs_goes_on_where_it_was_and_is_told_what_it_missed() {
    let app = TestApp::start().await;
    app.publish(&[of("a", "running", "x")], 1).await;
    let mut listener = Listener::open(&app, &app.admin, None).await;
    assert_eq!(listener.events(1).await, [told("1", "epoch", None)]);
    app.publish(&[of("a", "completed", "x"), of("b", "running", "y")], 2).await;
    let change = listener.event().await;
    assert_eq!((change.id.as_str(), change.kind.as_str()), ("2.1", "run"));
    for (field, expected) in
        [("status", "completed"), ("previous_status", "running"), ("run_id", "a"), ("source", "crm")]
    {
        assert_eq!(change.data[field], expected, "{change:?}");
    }
    assert_eq!(listener.events(2).await, [told("2.2", "run", Some("b")), told("2", "epoch", None)]);
    drop(listener);

    app.publish(&[of("a", "completed", "x"), of("b", "failed", "y")], 3).await;
    let mut back = Listener::open(&app, &app.admin, Some("2")).await;
    assert_eq!(back.events(2).await, [told("3.1", "run", Some("b")), told("3", "epoch", None)]);
    let mut in_between = Listener::open(&app, &app.admin, Some("2.1")).await;
    let expected = [told("2.1", "run", Some("a")), told("2.2", "run", Some("b")), told("2", "epoch", None)];
    assert_eq!(in_between.events(3).await, expected);
    for lost in ["0", "999"] {
        let mut away = Listener::open(&app, &app.admin, Some(lost)).await;
        assert_eq!(away.events(1).await, [told("3", "missed", None)], "{lost}");
    }
    let wrong = app.get("/api/v1/events/stream?last_event_id=x").await;
    assert_eq!((wrong.status, wrong.text_at("/code")), (422, "validation_error"));
}

#[tokio::test]
async fn a_user_hears_of_own_runs_only() {
    let app = TestApp::start().await;
    app.publish(&[of("mine", "running", &app.user_id), of("theirs", "running", "x")], 1).await;
    let mut listener = Listener::open(&app, &app.user, None).await;
    assert_eq!(listener.events(1).await, [told("1", "epoch", None)]);
    app.publish(&[of("mine", "failed", &app.user_id), of("theirs", "failed", "x")], 2).await;
    assert_eq!(listener.events(2).await, [told("2.1", "run", Some("mine")), told("2", "epoch", None)]);
}

#[tokio::test]
async fn a_promise_that_is_not_kept_is_an_alert() {
    let objective = Objective { table: "gold.daily_summary".to_owned(), fresh_within: Duration::from_secs(60) };
    let app = TestApp::start_with(|settings| settings.serving.objectives = vec![objective]).await;
    app.publish(&[of("old", "completed", "x")], 1).await;
    let mut listener = Listener::open(&app, &app.user, None).await;
    listener.event().await;
    let alert = listener.event().await;
    assert_eq!((alert.id.as_str(), alert.kind.as_str()), ("1", "alert"));
    assert_eq!((&alert.data["table"], &alert.data["state"]), (&json!("gold.daily_summary"), &json!("missed")));
}

#[tokio::test]
async fn a_stream_says_that_it_lives_and_ends_with_the_session_and_the_server() {
    let app = TestApp::start_with(|settings| {
        settings.live.heartbeat_every = Duration::from_millis(50);
        settings.live.look_every = Duration::from_millis(20);
        settings.live.connections_per_user = 1;
    })
    .await;
    let mut listener = Listener::open(&app, &app.user, None).await;
    while listener.block().await.as_deref() != Some(": here") {}
    let second = app.get_as_user("/api/v1/events/stream").await;
    assert_eq!((second.status, second.text_at("/code")), (429, "too_many_streams"));
    let token = format!("Bearer {}", app.user);
    assert_eq!(app.send("POST", "/api/v1/auth/logout", &[("authorization", &token)], "").await.status, 200);
    let end = listener.event().await;
    assert_eq!((end.kind.as_str(), &end.data["code"]), ("end", &json!("token_revoked")));
    assert_eq!(listener.block().await, None);

    let mut listener = Listener::open(&app, &app.admin, None).await;
    listener.event().await;
    let served = app.stop();
    let end = listener.event().await;
    assert_eq!((end.kind.as_str(), &end.data["code"]), ("end", &json!("server_stops")));
    timeout(DEADLINE, served).await.expect("the server must stop").unwrap().unwrap();
}
