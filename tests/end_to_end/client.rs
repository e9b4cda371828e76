//! What a dashboard or a publisher does over HTTP.

use std::sync::Once;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::wait::until;

/// A caller with a credential.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    credential: String,
}

static PROVIDER: Once = Once::new();

pub fn http() -> reqwest::Client {
    PROVIDER.call_once(|| drop(rustls::crypto::aws_lc_rs::default_provider().install_default()));
    reqwest::Client::new()
}

impl Client {
    pub fn new(url: &str, credential: &str) -> Self {
        Self { http: http(), url: url.to_owned(), credential: credential.to_owned() }
    }

    pub async fn log_in(url: &str, username: &str, password: &str) -> Self {
        let body = json!({"username": username, "password": password});
        let answer = http().post(format!("{url}/api/v1/auth/login")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await.unwrap();
        Self::new(url, answer["data"]["access_token"].as_str().unwrap())
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn credential(&self) -> &str {
        &self.credential
    }

    pub fn request(&self, path: &str) -> RequestBuilder {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.call(Method::POST, path)
    }

    pub fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.credential)
    }

    /// The `data` of a 200 answer.
    pub async fn data(&self, path: &str) -> Value {
        let answer = self.request(path).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        let mut envelope: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(envelope["status"], "success");
        envelope["data"].take()
    }

    /// Publishes CloudEvents, one a line.
    pub async fn publish(&self, events: &[Value], query: &str) -> reqwest::Result<Response> {
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        let request = self.post(&format!("/api/v1/events{query}"));
        request.header("content-type", "application/x-ndjson").body(lines).send().await
    }

    /// Publishes events that must all be taken, and waits until a layer has them; what their receipt says then.
    pub async fn arrive(&self, events: &[Value], layer: &str) -> Value {
        let answer = self.publish(events, &format!("?wait={layer}")).await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        // The door waits for half a minute; a busy machine may take longer.
        assert!(status == StatusCode::OK || status == StatusCode::ACCEPTED, "{status} {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let receipt = format!("/api/v1/receipts/{}", answer["data"]["receipt"].as_str().unwrap());
        until(&format!("the events are in {layer}"), async || {
            let receipt = self.data(&receipt).await;
            let state = receipt["state"].as_str().unwrap();
            (state == layer || state == "gold" || state == "quarantined").then_some(receipt)
        })
        .await
    }

    /// Waits until the process answers that it is ready.
    pub async fn ready(&self) {
        until("the instance is ready", async || {
            let answer = self.request("/ready").send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
}

/// A finished run as a CloudEvent; its figures follow from its number.
pub fn run_event(number: u64) -> Value {
    let id = format!("run-{number:06}");
    json!({
        "specversion": "1.0", "id": id, "source": "/generator", "type": "etl.run.finished",
        "data": {"run_id": id, "source": "generated", "job": format!("job-{}", number % 7),
                 "status": if number.is_multiple_of(10) { "failed" } else { "completed" },
                 "started_at": "2026-05-04T10:00:00Z", "finished_at": "2026-05-04T10:00:02Z", "records_written": number % 100},
    })
}
