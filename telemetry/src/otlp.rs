//! Sends spans by OTLP: JSON over HTTP, to `/v1/traces` of a collector.
//!
//! Written here, because the crates of OpenTelemetry would bring a second HTTP client and the code of its messages for gRPC
//! into every build, for one body of which this is all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::{StatusCode, Url, header::CONTENT_TYPE, redirect::Policy};
use serde_json::{Value as Json, json};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use crate::{
    metrics,
    spans::{Span, Value},
};

/// Spans of one request.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_millis(500);

/// Time of one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a stop waits for the last spans to be taken.
const LAST: Duration = Duration::from_secs(2);

/// Requests that are tried for one batch, and how long the second one waits: twice as long before each further one.
const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);

pub(crate) struct Sender {
    client: reqwest::Client,
    url: Url,
    resource: Json,
}

/// What a collector made of a batch.
enum Outcome {
    Taken,
    /// It may take it later.
    Away(String),
    Refused(String),
}

impl Sender {
    /// # Errors
    /// What is wrong with the address.
    pub(crate) fn new(address: &str) -> Result<Self, String> {
        let url = Url::parse(address).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("expected http://HOST:PORT or https://HOST:PORT".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the address takes no user and no password: settings are shown".to_owned());
        }
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        let mut url = url;
        url.set_path(&path);
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build();
        let attribute = |key: &str, value: String| json!({"key": key, "value": {"stringValue": value}});
        let resource = json!({"attributes": [
            attribute("service.name", "karat".to_owned()),
            attribute("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            attribute("service.instance.id", format!("{:032x}", rand::random::<u128>())),
        ]});
        Ok(Self { client: client.map_err(|error| error.to_string())?, url, resource })
    }

    /// Sends until `closing`, then what is left, for a while. What is not taken is counted.
    pub(crate) async fn run(self, mut queue: mpsc::Receiver<Span>, mut closing: watch::Receiver<bool>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let is_open = tokio::select! {
                biased;
                () = closed(&mut closing) => false,
                () = gather(&mut queue, &mut batch) => true,
            };
            if !is_open {
                break;
            }
            self.deliver(&mut batch, &mut closing).await;
        }
        let until = Instant::now() + LAST;
        loop {
            while batch.len() < BATCH
                && let Ok(span) = queue.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            match timeout_at(until, self.send(&batch)).await {
                Ok(Outcome::Taken) => count(&mut batch, true),
                Ok(Outcome::Refused(reason)) => refused(&mut batch, &reason),
                Ok(Outcome::Away(_)) if Instant::now() + FIRST_WAIT < until => tokio::time::sleep(FIRST_WAIT).await,
                Ok(Outcome::Away(_)) | Err(_) => break,
            }
        }
        while let Ok(span) = queue.try_recv() {
            batch.push(span);
        }
        refused(&mut batch, "not in time at the stop");
    }

    /// Sends a batch, more than once when the collector is away, and empties it. Left as it is when it is time to close, also
    /// while an answer is waited for: spans that come twice have one number.
    async fn deliver(&self, batch: &mut Vec<Span>, closing: &mut watch::Receiver<bool>) {
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            let outcome = tokio::select! {
                biased;
                () = closed(closing) => return,
                outcome = self.send(batch) => outcome,
            };
            let reason = match outcome {
                Outcome::Taken => return count(batch, true),
                Outcome::Away(reason) if attempt < ATTEMPTS => reason,
                Outcome::Away(reason) | Outcome::Refused(reason) => return refused(batch, &reason),
            };
            tracing::debug!(reason, attempt, "spans are sent again");
            tokio::select! {
                biased;
                () = closed(closing) => return,
                () = tokio::time::sleep(wait) => wait *= 2,
            }
        }
    }

    async fn send(&self, batch: &[Span]) -> Outcome {
        let body = self.body(batch).to_string();
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Outcome::Taken,
            Ok(answer) if may_pass(answer.status()) => Outcome::Away(answer.status().to_string()),
            Ok(answer) => Outcome::Refused(answer.status().to_string()),
            Err(error) => Outcome::Away(error.without_url().to_string()),
        }
    }

    fn body(&self, batch: &[Span]) -> Json {
        let scope = json!({"name": "karat", "version": env!("CARGO_PKG_VERSION")});
        let spans: Vec<Json> = batch.iter().map(span).collect();
        json!({"resourceSpans": [{"resource": self.resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
    }
}

/// Whoever dropped the other end closed it.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Waits for a span, then a while for others.
async fn gather(queue: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    let Some(first) = queue.recv().await else { return std::future::pending().await };
    batch.push(first);
    let until = Instant::now() + GATHER;
    while batch.len() < BATCH
        && let Ok(Some(span)) = timeout_at(until, queue.recv()).await
    {
        batch.push(span);
    }
}

fn refused(batch: &mut Vec<Span>, reason: &str) {
    tracing::warn!(spans = batch.len(), reason, "the collector does not take spans; they are dropped");
    count(batch, false);
}

fn count(batch: &mut Vec<Span>, are_taken: bool) {
    let counter = if are_taken { &metrics().spans_exported } else { &metrics().spans_dropped };
    counter.inc_by(batch.len() as u64);
    batch.clear();
}

/// Those that the specification of OTLP names.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn span(span: &Span) -> Json {
    let nanos = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let attributes: Vec<Json> = span
        .attributes
        .iter()
        .map(|(key, value)| match value {
            Value::Text(text) => json!({"key": key, "value": {"stringValue": text}}),
            // Numbers of 64 bits are texts in the JSON of OTLP.
            Value::Number(number) => json!({"key": key, "value": {"intValue": number.to_string()}}),
        })
        .collect();
    let mut written = json!({
        "traceId": span.context.trace_id_text(),
        "spanId": format!("{:016x}", span.context.span_id()),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": nanos(span.begin),
        "endTimeUnixNano": nanos(span.begin + span.took),
        "attributes": attributes,
    });
    if let Some(parent) = span.parent {
        written["parentSpanId"] = format!("{parent:016x}").into();
    }
    if span.has_failed {
        written["status"] = json!({"code": 2});
    }
    written
}

#[cfg(test)]
mod tests {
    use std::sync::Once;

    use karat_schemas::trace::TraceContext;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    use super::*;
    use crate::spans::Kind;

    /// A request of a sender, and the connection to answer it on.
    async fn request(listener: &TcpListener) -> (String, TcpStream) {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
                });
                if body.len() >= length.unwrap() {
                    return (body.to_owned(), socket);
                }
            }
            assert!(socket.read_buf(&mut read).await.unwrap() > 0, "{text}");
        }
    }

    async fn answer(mut socket: TcpStream, status: &str) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
    }

    fn named(name: &'static str) -> Span {
        let context = TraceContext::new(0xabc, 7, true).unwrap();
        Span::ending_now(context, None, name, Kind::Internal, Duration::from_millis(5))
    }

    struct Sending {
        listener: TcpListener,
        queue: mpsc::Sender<Span>,
        close: watch::Sender<bool>,
        task: JoinHandle<()>,
    }

    impl Sending {
        async fn start() -> Self {
            // The client needs one, though nothing here is encrypted.
            static PROVIDER: Once = Once::new();
            PROVIDER.call_once(|| drop(rustls::crypto::aws_lc_rs::default_provider().install_default()));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let sender = Sender::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
            let (queue, waiting) = mpsc::channel(16);
            let (close, closing) = watch::channel(false);
            let task = tokio::spawn(sender.run(waiting, closing));
            Self { listener, queue, close, task }
        }

        async fn ends(self) {
            let ended = tokio::time::timeout(Duration::from_secs(30), self.task).await;
            ended.expect("it does not end").unwrap();
        }
    }

    #[tokio::test]
    async fn a_stop_during_a_request_that_hangs_sends_all_that_waits_also_to_a_collector_that_is_away_for_a_moment() {
        let sending = Sending::start().await;
        sending.queue.try_send(named("first")).unwrap();
        let (body, _hangs) = request(&sending.listener).await;
        assert!(body.contains("first"), "{body}");
        sending.queue.try_send(named("second")).unwrap();
        sending.close.send(true).unwrap();
        let (_, socket) = request(&sending.listener).await;
        answer(socket, "503 Service Unavailable").await;
        let (body, socket) = request(&sending.listener).await;
        assert!(body.contains("first") && body.contains("second"), "{body}");
        answer(socket, "200 OK").await;
        sending.ends().await;
    }

    #[tokio::test]
    async fn spans_that_a_stop_cannot_send_in_time_are_counted_as_dropped() {
        let before = metrics().spans_dropped.get();
        let sending = Sending::start().await;
        for name in ["first", "second", "third"] {
            sending.queue.try_send(named(name)).unwrap();
        }
        let _hangs = request(&sending.listener).await;
        sending.close.send(true).unwrap();
        // The last request hangs too: nobody takes its connection.
        sending.ends().await;
        assert!(metrics().spans_dropped.get() >= before + 3);
    }

    #[test]
    fn a_span_is_written_as_the_json_of_otlp() {
        let context = TraceContext::new(0xabc, 7, true).unwrap();
        let mut one = Span::ending_now(context, Some(9), "request", Kind::Server, Duration::from_millis(5))
            .with("http.route", Value::Text("/runs".to_owned()))
            .with("http.response.status_code", Value::Number(503));
        (one.begin, one.has_failed) = (UNIX_EPOCH + Duration::from_secs(1), true);
        assert_eq!(
            span(&one),
            json!({
                "traceId": "00000000000000000000000000000abc",
                "spanId": "0000000000000007",
                "parentSpanId": "0000000000000009",
                "name": "request",
                "kind": 2,
                "startTimeUnixNano": "1000000000",
                "endTimeUnixNano": "1005000000",
                "attributes": [
                    {"key": "http.route", "value": {"stringValue": "/runs"}},
                    {"key": "http.response.status_code", "value": {"intValue": "503"}},
                ],
                "status": {"code": 2},
            })
        );
    }

    #[test]
    fn addresses_are_of_http_and_without_a_password() {
        let failed = |address: &str| Sender::new(address).err();
        for bad in ["collector:4318", "ftp://collector", "http://", "http://a:b@collector:4318", ""] {
            assert!(failed(bad).is_some(), "{bad}");
        }
    }
}
