//! Sends one batch over HTTP and reads what became of it; waits and tries again where that helps.

use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::Failure;
use super::batch::Batch;
use super::item::Refusal;

/// Longest answer that is read: 1,000 rejections stay far below.
const MAX_ANSWER_BYTES: usize = 8 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A connection to one server.
pub(super) struct Sender {
    client: Client,
    base: Url,
    key: Option<SecretString>,
    /// How long a batch is tried again before the server counts as unreachable.
    retry_for: Duration,
}

/// What became of one batch.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub accepted: u64,
    pub duplicates: u64,
    /// The place in the file and the reason of each rejected record.
    pub rejected: Vec<(u64, Refusal)>,
}

/// How one attempt ended without success.
enum Attempt {
    /// Try again, not before this.
    Again {
        after: Option<Duration>,
        reason: String,
    },
    Fatal(Failure),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: String,
    data: Option<Counts>,
}

#[derive(Deserialize)]
struct Counts {
    accepted: u64,
    duplicates: u64,
    #[serde(default)]
    errors: Vec<ItemError>,
}

#[derive(Deserialize)]
struct ItemError {
    index: usize,
    code: String,
    path: String,
    message: String,
}

impl Sender {
    /// `url` is the server's address, without the path of the API.
    pub fn new(url: &str, key: Option<SecretString>, retry_for: Duration) -> Result<Self, Failure> {
        let base = if url.ends_with('/') { url.to_owned() } else { format!("{url}/") };
        let base =
            Url::parse(&base).ok().filter(|base| matches!(base.scheme(), "http" | "https")).ok_or_else(|| {
                Failure::Usage(format!("`--url {url}` is not an address such as `http://127.0.0.1:8080`"))
            })?;
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::Unreachable(format!("cannot set up the HTTP client: {error}")))?;
        Ok(Self { client, base, key, retry_for })
    }

    /// Sends a batch until the server has answered for each record.
    pub async fn send(&self, batch: &Batch) -> Result<Sent, Failure> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let (after, reason) = match self.attempt(batch).await {
                Ok(sent) => return Ok(sent),
                Err(Attempt::Fatal(failure)) => return Err(failure),
                Err(Attempt::Again { after, reason }) => (after, reason),
            };
            // Some jitter, so that several publishers do not come back at the same moment.
            let wait = after.unwrap_or_else(|| pause.mul_f64(rand::random_range(0.75..1.25)));
            if started.elapsed().saturating_add(wait) > self.retry_for {
                return Err(Failure::Unreachable(format!("`{}` does not take events: {reason}", self.base)));
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, batch: &Batch) -> Result<Sent, Attempt> {
        let url =
            self.base.join(batch.route.path()).map_err(|error| Attempt::Fatal(Failure::Usage(error.to_string())))?;
        let request = self.client.post(url).header(header::CONTENT_TYPE, "application/x-ndjson");
        let request = match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        };
        let response = request.body(batch.body.clone()).send().await.map_err(|error| again(None, reason_of(&error)))?;
        let (status, after) = (response.status(), retry_after(&response));
        let body = read(response).await.map_err(|error| again(after, reason_of(&error)))?;
        let answer = serde_json::from_slice::<Answer>(&body).ok();
        understand(status, after, answer, batch)
    }
}

fn understand(
    status: StatusCode,
    after: Option<Duration>,
    answer: Option<Answer>,
    batch: &Batch,
) -> Result<Sent, Attempt> {
    let said = answer.as_ref().map_or_else(|| status.to_string(), |answer| format!("{status}: {}", answer.message));
    match (status, answer) {
        (_, Some(Answer { data: Some(counts), .. })) if status.is_success() || status == 422 => {
            Ok(sent(counts, &batch.numbers))
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => Err(again(after, said)),
        (StatusCode::UNAUTHORIZED, _) => {
            let hint = "give a key with `--key` or `KARAT_KEY`";
            Err(Attempt::Fatal(Failure::Refused(format!("the server does not accept the credential ({said}): {hint}"))))
        }
        // The batch as a whole was refused: each of its records was.
        (StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST, Some(answer)) => {
            let refusal = Refusal { code: answer.code, path: String::new(), message: answer.message };
            let rejected = batch.numbers.iter().map(|number| (*number, refusal.clone())).collect();
            Ok(Sent { rejected, ..Sent::default() })
        }
        _ if status.is_server_error() => Err(again(after, said)),
        _ => Err(Attempt::Fatal(Failure::Refused(format!(
            "the server did not answer as Karat does ({said}): check `--url`"
        )))),
    }
}

fn sent(counts: Counts, numbers: &[u64]) -> Sent {
    let rejected = counts.errors.into_iter().map(|error| {
        let number = numbers.get(error.index).copied().unwrap_or_default();
        (number, Refusal { code: error.code, path: error.path, message: error.message })
    });
    Sent { accepted: counts.accepted, duplicates: counts.duplicates, rejected: rejected.collect() }
}

async fn read(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn again(after: Option<Duration>, reason: String) -> Attempt {
    Attempt::Again { after, reason }
}

/// `Retry-After` in seconds, the only form that Karat sends.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

/// The innermost cause: the outer ones repeat the address.
fn reason_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
