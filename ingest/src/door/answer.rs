//! Answers of the publishing routes.

use std::time::Duration;

use karat_http::{Answer, ApiError, ProblemBody, ok, request_id, timestamp};
use poem::{
    IntoResponse, Response,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::payload::{Json, Payload};
use poem_openapi::registry::{MetaMediaType, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiResponse, Object, ResponseContent};
use serde::Serialize;

use crate::{
    event::{BodyFault, Code, Rejection},
    limits::{MAX_EVENT_BYTES, MAX_EVENTS},
    outcome::{Outcome, PublishError},
    progress::Layer,
};

/// Lines of `details` in an answer; `data.errors` has all of them.
const MAX_DETAILS: usize = 20;

karat_http::error_answers! {
    /// Errors of the publishing routes.
    pub PublishFailed: 400, 401, 403, 413, 415, 429, 503;
    /// Errors of `GET /receipts/{id}`.
    pub ReceiptFailed: 401, 404;
}

/// What became of the events of a request. Each is counted once.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Published {
    /// Durable in the log.
    pub accepted: u64,
    /// Came twice in this request. Repeats of earlier requests are recognised behind the door and counted nowhere.
    pub duplicates: u64,
    /// Refused; `errors` says why.
    pub rejected: u64,
    /// One for each refused event, in the order sent.
    pub errors: Vec<PublishedError>,
    /// Names the accepted batch in `GET /receipts/{id}`; null when nothing was accepted.
    #[oai(nullable)]
    pub receipt: Option<String>,
    /// The layer that is known to hold the events: `logged`, or up to the one asked for with `wait`.
    pub layer: String,
}

/// Why one event was refused.
#[derive(Debug, Clone, Object, Serialize)]
pub struct PublishedError {
    /// Place in the request, counted from 0; the line for NDJSON, blank lines included.
    pub index: u64,
    /// Stable code such as `contract_violation`.
    pub code: String,
    /// JSON Pointer into the event as sent; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// The error envelope of a request whose events were all refused: the usual fields, and the counts in `data`.
#[derive(Debug, Clone, Object)]
pub struct RefusedBody {
    /// Always `error`.
    pub status: String,
    /// Title of the kind of error.
    pub error: String,
    /// What went wrong, for people.
    pub message: String,
    /// The first reasons, one line each.
    pub details: Vec<String>,
    /// `events_refused`.
    pub code: String,
    /// The counts and every reason, as in an answer of 207.
    pub data: Published,
    /// Id of this request in the server's log.
    pub request_id: String,
    /// RFC 3339 in UTC.
    pub timestamp: String,
}

/// How far the events of a receipt have come.
#[derive(Debug, Clone, Object)]
pub struct ReceiptState {
    /// The receipt that was asked for.
    pub receipt: String,
    /// `logged`, `bronze`, `silver`, `gold`, or `quarantined` when every event of it was put aside.
    pub state: String,
    /// Events of the batch.
    pub records: u64,
    /// Events of the batch in quarantine; null when it is not known.
    #[oai(nullable)]
    pub quarantined: Option<u64>,
}

/// Answers of the publishing routes.
#[derive(ApiResponse)]
pub enum PublishAnswer {
    /// All events are durable, and the layer of `wait` has committed them.
    #[oai(status = 200)]
    Reached(Acceptance),
    /// All events are durable in the log.
    #[oai(status = 202)]
    Accepted(Acceptance),
    /// Some events were refused; the others are durable in the log.
    #[oai(status = 207)]
    Partly(Acceptance),
    /// All events were refused.
    #[oai(status = 422)]
    Refused(Refusal),
}

/// The counts in the envelope. Written as text at once, not by way of a JSON value: it is made for every request.
pub struct Acceptance(Answer<Published>);

impl IntoResponse for Acceptance {
    fn into_response(self) -> Response {
        // A plain struct of strings and numbers: it always serialises.
        let mut response = Response::from(serde_json::to_vec(&self.0.0).unwrap_or_default());
        let media_type = HeaderValue::from_static("application/json; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response
    }
}

impl ResponseContent for Acceptance {
    fn media_types() -> Vec<MetaMediaType> {
        <Answer<Published> as ResponseContent>::media_types()
    }

    fn register(registry: &mut Registry) {
        <Answer<Published> as ResponseContent>::register(registry);
    }
}

/// A refusal with its counts. Where `Accept` asks for problem details, an error is answered in its place.
pub struct Refusal(Json<RefusedBody>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl ResponseContent for Refusal {
    fn media_types() -> Vec<MetaMediaType> {
        vec![
            MetaMediaType { content_type: Json::<RefusedBody>::CONTENT_TYPE, schema: RefusedBody::schema_ref() },
            MetaMediaType { content_type: "application/problem+json", schema: ProblemBody::schema_ref() },
        ]
    }

    fn register(registry: &mut Registry) {
        RefusedBody::register(registry);
        ProblemBody::register(registry);
    }
}

/// The answer for an outcome. `layer` is the one reached, `waited` tells whether it is the one that was asked for.
pub(super) fn answer(
    outcome: Outcome,
    receipt: Option<String>,
    layer: Layer,
    waited: bool,
    wants_problem: bool,
) -> Result<PublishAnswer, ApiError> {
    let (sent, rejected) = (outcome.accepted + outcome.duplicates, outcome.rejected);
    if rejected > 0 && sent == 0 {
        return refused(outcome, wants_problem);
    }
    let data = published(&outcome, receipt, layer);
    let counts = |data, message: String| Acceptance(ok(data, message));
    Ok(if rejected > 0 {
        let message = format!("{sent} events are accepted, {rejected} are refused: see `errors`");
        PublishAnswer::Partly(counts(data, message))
    } else if waited {
        PublishAnswer::Reached(counts(data, format!("{sent} events are accepted and have reached {layer}")))
    } else {
        PublishAnswer::Accepted(counts(data, format!("{sent} events are accepted")))
    })
}

fn refused(outcome: Outcome, wants_problem: bool) -> Result<PublishAnswer, ApiError> {
    let all_are = |code: Code| outcome.errors.iter().all(|rejection| rejection.code == code);
    if all_are(Code::TypeNotAllowed) {
        let error = ApiError::forbidden("the credential may not publish events of these types");
        return Err(error.details(details(&outcome.errors)));
    }
    if all_are(Code::ConsentNeeded) {
        let message = "nobody whom these events name has consented to them";
        let error = ApiError::new(StatusCode::FORBIDDEN, Code::ConsentNeeded.as_str(), message);
        return Err(error.details(details(&outcome.errors)));
    }
    if all_are(Code::EventTooLarge) {
        let message = format!("every event is larger than the limit of {MAX_EVENT_BYTES} bytes");
        let error = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "event_too_large", message);
        return Err(error.details(details(&outcome.errors)));
    }
    let (code, message) = ("events_refused", "every event was refused: nothing was accepted");
    let details = details(&outcome.errors);
    if wants_problem {
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message).details(details));
    }
    let body = RefusedBody {
        status: "error".to_owned(),
        error: "Validation Error".to_owned(),
        message: message.to_owned(),
        details,
        code: code.to_owned(),
        data: published(&outcome, None, Layer::Logged),
        request_id: request_id().map(|id| id.to_string()).unwrap_or_default(),
        timestamp: timestamp(),
    };
    Ok(PublishAnswer::Refused(Refusal(Json(body))))
}

fn published(outcome: &Outcome, receipt: Option<String>, layer: Layer) -> Published {
    let error = |rejection: &Rejection| PublishedError {
        index: rejection.index as u64,
        code: rejection.code.as_str().to_owned(),
        path: rejection.path.clone(),
        message: rejection.message.clone(),
    };
    Published {
        accepted: outcome.accepted as u64,
        duplicates: outcome.duplicates as u64,
        rejected: outcome.rejected as u64,
        errors: outcome.errors.iter().map(error).collect(),
        receipt,
        layer: layer.name().to_owned(),
    }
}

fn details(errors: &[Rejection]) -> Vec<String> {
    let mut lines: Vec<String> = errors.iter().take(MAX_DETAILS).map(Rejection::to_string).collect();
    if errors.len() > MAX_DETAILS {
        lines.push(format!("and {} more", errors.len() - MAX_DETAILS));
    }
    lines
}

impl From<BodyFault> for ApiError {
    fn from(fault: BodyFault) -> Self {
        let message = fault.to_string();
        match fault {
            BodyFault::Empty => Self::bad_request("empty_body", message),
            BodyFault::NotAnArray(_) => Self::bad_request("invalid_json", message),
            BodyFault::TooManyEvents => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", message)
                .detail(format!("limit: {MAX_EVENTS} events")),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Busy => {
                Self::unavailable("log_busy", "the event log is busy: publish again after `Retry-After`")
                    .retry_after(Duration::from_secs(1))
            }
            PublishError::Unavailable(cause) => {
                let message = "the event log does not take events now: publish again after `Retry-After`, which is \
                               safe because an event counts once";
                Self::unavailable("log_unavailable", message).retry_after(Duration::from_secs(5)).caused_by(cause)
            }
        }
    }
}
