//! Turns the framework's own errors into [`ApiError`]s with stable codes.
//!
//! The framework's texts name types, echo values and change between its versions, so they go to the log; only the
//! parts that are safe and useful (parameter names, line and column) are kept for the client.

use std::io;

use poem::Error;
use poem::error::{MethodNotAllowedError, NotFoundError, ParseJsonError, ReadBodyError};
use poem::http::StatusCode;
use poem_openapi::error::{
    AuthorizationError, ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError,
};

use crate::ApiError;
use crate::body::LimitExceeded;
use crate::pace::TooSlow;

/// The error as this product's own; one that a handler made passes through unchanged.
pub(crate) fn to_api_error(error: Error) -> ApiError {
    if let Some(own) = error.downcast_ref::<ApiError>() {
        return own.clone();
    }
    known(&error).unwrap_or_else(|| from_status(error.status())).caused_by_if_absent(&error)
}

/// The error for an answer that has a failing status and no body of ours.
pub(crate) fn from_status(status: StatusCode) -> ApiError {
    let (code, message) = match status {
        StatusCode::BAD_REQUEST => ("bad_request", "the request is malformed"),
        StatusCode::UNAUTHORIZED => ("unauthenticated", "this route needs a bearer token or an API key"),
        StatusCode::FORBIDDEN => ("forbidden", "the caller may not do this"),
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this path does not answer this method"),
        StatusCode::NOT_ACCEPTABLE => ("not_acceptable", "no form of this answer matches `Accept`"),
        StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request did not arrive in time"),
        StatusCode::CONFLICT => ("conflict", "the request conflicts with the present state"),
        StatusCode::GONE => ("gone", "what was asked for is no longer kept"),
        StatusCode::LENGTH_REQUIRED => ("length_required", "the request needs a `Content-Length`"),
        StatusCode::PRECONDITION_FAILED => ("precondition_failed", "a precondition of the request does not hold"),
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is larger than this route accepts"),
        StatusCode::URI_TOO_LONG => ("uri_too_long", "the address is too long"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "this route does not accept this media type"),
        StatusCode::RANGE_NOT_SATISFIABLE => ("range_not_satisfiable", "the requested range does not exist"),
        StatusCode::UNPROCESSABLE_ENTITY => ("validation_error", "the request breaks a rule"),
        StatusCode::UPGRADE_REQUIRED => ("upgrade_required", "this route only answers WebSocket upgrades"),
        StatusCode::TOO_MANY_REQUESTS => ("too_many_requests", "too many requests"),
        StatusCode::NOT_IMPLEMENTED => ("not_implemented", "this is not available"),
        StatusCode::BAD_GATEWAY => ("bad_gateway", "a system behind this one gave a bad answer"),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "the service is not ready; try again soon"),
        StatusCode::GATEWAY_TIMEOUT => ("gateway_timeout", "a system behind this one did not answer in time"),
        other if other.is_client_error() => ("bad_request", "the request cannot be answered"),
        _ => return ApiError::internal(format!("answer with status {status} and no envelope")),
    };
    ApiError::new(status, code, message)
}

fn known(error: &Error) -> Option<ApiError> {
    if error.is::<NotFoundError>() {
        return Some(from_status(StatusCode::NOT_FOUND));
    }
    if error.is::<MethodNotAllowedError>() {
        return Some(from_status(StatusCode::METHOD_NOT_ALLOWED));
    }
    if error.is::<AuthorizationError>() {
        return Some(from_status(StatusCode::UNAUTHORIZED));
    }
    if let Some(e) = error.downcast_ref::<ParseParamError>() {
        return Some(invalid_parameter(e.name, &e.reason));
    }
    if let Some(e) = error.downcast_ref::<ParsePathError>() {
        return Some(invalid_parameter(e.name, &e.reason));
    }
    if let Some(e) = error.downcast_ref::<ParseRequestPayloadError>() {
        return Some(payload_error(&e.reason));
    }
    if let Some(e) = error.downcast_ref::<ContentTypeError>() {
        return Some(content_type_error(e));
    }
    if let Some(e) = error.downcast_ref::<ParseJsonError>() {
        return Some(match e {
            ParseJsonError::Parse(cause) => json_error(cause),
            _ => ApiError::unsupported_media_type("the body must be sent as `application/json`"),
        });
    }
    error.downcast_ref::<ReadBodyError>().map(read_body_error)
}

/// 400 `bad_json` for text that is not JSON, 422 for JSON of another shape than the route takes.
pub(crate) fn json_error(error: &serde_json::Error) -> ApiError {
    let place = format!("line {} column {}", error.line(), error.column());
    if error.classify() == serde_json::error::Category::Data {
        return ApiError::validation(vec![shape_detail(&error.to_string())]);
    }
    ApiError::bad_request("bad_json", format!("the body is not valid JSON at {place}"))
}

/// 413 when the limit was the reason, 408 when the body came too slowly, 400 otherwise.
pub(crate) fn read_body_error(error: &ReadBodyError) -> ApiError {
    match error {
        ReadBodyError::PayloadTooLarge => from_status(StatusCode::PAYLOAD_TOO_LARGE),
        ReadBodyError::Utf8(_) => ApiError::bad_request("bad_encoding", "the body is not valid UTF-8"),
        ReadBodyError::Io(cause) => match (inside::<LimitExceeded>(cause), inside::<TooSlow>(cause)) {
            (Some(exceeded), _) => ApiError::too_large("body", exceeded.limit_bytes),
            (None, Some(slow)) => from_status(StatusCode::REQUEST_TIMEOUT).caused_by(slow),
            (None, None) => ApiError::bad_request("incomplete_body", "the body ended before it was complete"),
        },
        ReadBodyError::BodyHasBeenTaken => ApiError::internal("the body was read twice"),
    }
}

/// Our own cause of the I/O error of a body: the framework wraps it in further ones.
fn inside<T: std::error::Error + 'static>(error: &io::Error) -> Option<&T> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<T>().or_else(|| inner.downcast_ref::<io::Error>().and_then(inside::<T>))
}

fn invalid_parameter(name: &str, reason: &str) -> ApiError {
    let message = format!("the parameter `{name}` is missing or has a value that cannot be read");
    ApiError::bad_request("invalid_parameter", message).detail(format!("`{name}`: {}", public_reason(reason)))
}

fn payload_error(reason: &str) -> ApiError {
    // The framework flattens JSON syntax errors into text; the position is how they are told from shape errors.
    match reason.rsplit_once(" at line ") {
        Some((_, place)) if !reason.contains("occurred while parsing") => {
            ApiError::bad_request("bad_json", format!("the body is not valid JSON at line {place}"))
        }
        _ => ApiError::validation(vec![public_reason(reason)]),
    }
}

/// Serde's own words without the value that was sent: it may be a secret in the wrong place.
fn shape_detail(text: &str) -> String {
    match (text.strip_prefix("invalid type: "), text.split_once(", expected ")) {
        (Some(_), Some((_, expected))) => format!("wrong type, expected {expected}"),
        _ => text.to_owned(),
    }
}

/// Keeps the first sentence of the framework's reason and drops the chain of type names and the echoed value.
fn public_reason(reason: &str) -> String {
    let reason = reason.split(" (occurred while parsing").next().unwrap_or(reason);
    if let Some((expected, _)) = reason.split_once(", found ") {
        return expected.replace('"', "`").replace("Expected input type", "expected type");
    }
    match reason.strip_prefix("failed to parse ").and_then(|rest| rest.split_once(": ")) {
        Some((_, text)) => text.to_owned(),
        None => reason.replace('"', "`"),
    }
}

fn content_type_error(error: &ContentTypeError) -> ApiError {
    match error {
        ContentTypeError::ExpectContentType => {
            ApiError::unsupported_media_type("the request has a body but no `Content-Type`")
        }
        ContentTypeError::NotSupported { .. } => from_status(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

impl ApiError {
    fn caused_by_if_absent(self, cause: &Error) -> Self {
        if self.parts().internal.is_some() { self } else { self.caused_by(cause) }
    }
}
