//! [`ApiError`]: the one error that handlers return.
//!
//! It has an outside (status, title, stable `code`, message, details, retry hint) and an inside (`caused_by`). The
//! inside is written to the log when the error is rendered, under the request id; it never reaches a client.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use karat_access::Permission;
use poem::error::ResponseError;
use poem::http::StatusCode;
use poem::{IntoResponse, Response};

use crate::limit::QuotaHeaders;
use crate::{context, render};

/// An error answer. Cheap to move; build it with a constructor and refine it with the builder methods.
#[derive(Clone)]
pub struct ApiError {
    parts: Box<Parts>,
}

#[derive(Clone)]
pub(crate) struct Parts {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: Cow<'static, str>,
    pub details: Vec<String>,
    pub retry_after: Option<Duration>,
    pub internal: Option<String>,
    /// What the caller lacked.
    pub permission: Option<Permission>,
    /// The quota that is used up.
    pub quota: Option<QuotaHeaders>,
}

impl ApiError {
    /// An error with this status, stable `code` (`snake_case`, never changed once published) and message for the client.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        let parts = Parts {
            status,
            code,
            message,
            details: Vec::new(),
            retry_after: None,
            internal: None,
            permission: None,
            quota: None,
        };
        Self { parts: Box::new(parts) }
    }

    /// 400 with a code that says which rule of the request was broken.
    pub fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401: no credential, or one that does not hold.
    pub fn unauthorized(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// 403 `forbidden`: the caller is known and may not do this.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404 `not_found`. Also the answer for things that exist but belong to somebody else.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409 with a code that names the conflict.
    pub fn conflict(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 422 `validation_error`: one line of `details` for each broken rule.
    pub fn validation(details: Vec<String>) -> Self {
        let message = "the request breaks the rules listed in `details`";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", message).details(details)
    }

    /// 413 `body_too_large`, naming the limit in bytes.
    pub fn too_large(what: &str, limit_bytes: u64) -> Self {
        let message = format!("the {what} is larger than the limit of {limit_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// 415 `unsupported_media_type`.
    pub fn unsupported_media_type(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// 429 `too_many_requests` with `Retry-After`.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        let message = "too many requests: wait for the time in `Retry-After` and try again";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message).retry_after(retry_after)
    }

    /// 503 with a code that names what is away.
    pub fn unavailable(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// 500 `internal_error`. The cause goes to the log only.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let message = "the server could not answer; give the `request_id` when you report it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message).caused_by(cause)
    }

    /// Adds one line to `details`.
    #[must_use]
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.parts.details.push(line.into());
        self
    }

    /// Replaces `details`.
    #[must_use]
    pub fn details(mut self, lines: Vec<String>) -> Self {
        self.parts.details = lines;
        self
    }

    /// Sets `Retry-After` (rounded up to whole seconds, at least 1).
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.parts.retry_after = Some(after);
        self
    }

    /// Sets the internal cause. It is logged once, with the request id, when the answer is rendered.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.parts.internal = Some(cause.to_string());
        self
    }

    /// Names the permission that the caller lacked: the audit log gets a row about it when the answer is sent.
    #[must_use]
    pub(crate) fn lacking(mut self, permission: Permission) -> Self {
        self.parts.permission = Some(permission);
        self
    }

    /// Names the quota that is used up, in the headers of the answer.
    #[must_use]
    pub(crate) fn beyond(mut self, quota: QuotaHeaders) -> Self {
        self.parts.quota = Some(quota);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.parts.code
    }

    /// The message for the client.
    pub fn message(&self) -> &str {
        &self.parts.message
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: {}", self.parts.status.as_u16(), self.parts.code, self.parts.message)
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiError({self}, internal: {:?})", self.parts.internal)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status(&self) -> StatusCode {
        self.parts.status
    }

    fn as_response(&self) -> Response {
        render::error_response(self, &context::current())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.as_response()
    }
}
