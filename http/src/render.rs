//! Renders an [`ApiError`] as the error envelope, or as RFC 9457 problem details when the request asked for them.
//!
//! This is also the one place where the internal cause of an error is logged.

use karat_access::Permission;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{Body, Response};
use poem_openapi::Object;
use serde::Serialize;

use crate::ApiError;
use crate::context::RequestContext;
use crate::envelope::timestamp;
use crate::limit;

/// The error envelope.
#[derive(Debug, Clone, Serialize, Object)]
pub struct ErrorBody {
    /// Always `error`.
    pub status: String,
    /// Title of the kind of error.
    pub error: String,
    /// What went wrong and what to do, for people.
    pub message: String,
    /// One line for each broken rule; may be empty.
    pub details: Vec<String>,
    /// Stable code for programs.
    pub code: String,
    /// Id of this request in the server's log.
    pub request_id: String,
    /// RFC 3339 in UTC.
    pub timestamp: String,
}

/// Problem details (RFC 9457) with this product's extension members.
#[derive(Debug, Clone, Serialize, Object)]
pub struct ProblemBody {
    /// `urn:karat:error:<code>`.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    pub problem_type: String,
    /// Title of the kind of error.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong and what to do, for people.
    pub detail: String,
    /// `urn:karat:request:<request id>`.
    pub instance: String,
    /// Stable code for programs.
    pub code: String,
    /// One line for each broken rule; may be empty.
    pub details: Vec<String>,
    /// Id of this request in the server's log.
    pub request_id: String,
    /// RFC 3339 in UTC.
    pub timestamp: String,
}

/// Goes with an answer: what the caller lacked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lacked(pub Permission);

pub(crate) fn error_response(error: &ApiError, context: &RequestContext) -> Response {
    let parts = error.parts();
    log_cause(error, context);
    let (content_type, body) = if context.wants_problem {
        ("application/problem+json", to_bytes(&problem_body(error, context)))
    } else {
        ("application/json; charset=utf-8", to_bytes(&error_body(error, context)))
    };
    let mut response = Response::builder().status(parts.status).content_type(content_type).body(body);
    if let Some(permission) = parts.permission {
        response.set_data(Lacked(permission));
    }
    if let Some(quota) = &parts.quota {
        limit::put(&mut response, quota.clone());
    }
    let headers = response.headers_mut();
    if let Some(after) = parts.retry_after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if parts.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"karat\""));
    }
    response
}

fn error_body(error: &ApiError, context: &RequestContext) -> ErrorBody {
    let parts = error.parts();
    ErrorBody {
        status: "error".to_owned(),
        error: title_of(parts.status).to_owned(),
        message: parts.message.clone().into_owned(),
        details: parts.details.clone(),
        code: parts.code.to_owned(),
        request_id: context.request_id.to_string(),
        timestamp: timestamp(),
    }
}

fn problem_body(error: &ApiError, context: &RequestContext) -> ProblemBody {
    let parts = error.parts();
    ProblemBody {
        problem_type: format!("urn:karat:error:{}", parts.code),
        title: title_of(parts.status).to_owned(),
        status: parts.status.as_u16(),
        detail: parts.message.clone().into_owned(),
        instance: format!("urn:karat:request:{}", context.request_id),
        code: parts.code.to_owned(),
        details: parts.details.clone(),
        request_id: context.request_id.to_string(),
        timestamp: timestamp(),
    }
}

fn title_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => "Validation Error",
        other => other.canonical_reason().unwrap_or("Error"),
    }
}

fn to_bytes(body: &impl Serialize) -> Body {
    // Both bodies are plain structs of strings: they always serialise.
    Body::from_vec(serde_json::to_vec(body).unwrap_or_default())
}

fn log_cause(error: &ApiError, context: &RequestContext) {
    let Some(cause) = &error.parts().internal else { return };
    let (code, request_id) = (error.code(), &*context.request_id);
    if error.status().is_server_error() {
        tracing::error!(target: "karat_http::error", request_id, code, cause = %cause.escape_debug(), "request failed");
    } else {
        tracing::debug!(target: "karat_http::error", request_id, code, cause = %cause.escape_debug(), "request refused");
    }
}
