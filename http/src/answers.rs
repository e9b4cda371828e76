//! [`error_answers!`]: how an operation documents the errors that it answers.

use std::collections::BTreeSet;

use poem_openapi::payload::{Json, Payload};
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type;

use crate::{ErrorBody, ProblemBody};

/// Declares the error type of one operation: an [`ApiError`](crate::ApiError) whose statuses appear in the OpenAPI
/// document, beside those that the layers around every operation answer: 400, 408, 413, 421, 429, 500 and 503. `?` converts
/// anything that converts into `ApiError`.
///
/// ```ignore
/// karat_http::error_answers! {
///     /// Errors of `POST /auth/login`.
///     pub LoginError: 401, 422, 429, 503;
/// }
/// async fn login(&self, ...) -> Result<Answer<Tokens>, LoginError> { ... }
/// ```
#[macro_export]
macro_rules! error_answers {
    ($($(#[$meta:meta])* $vis:vis $name:ident: $($status:literal),+ $(,)?;)+) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        $vis struct $name($crate::ApiError);

        impl<E: Into<$crate::ApiError>> From<E> for $name {
            fn from(error: E) -> Self {
                Self(error.into())
            }
        }

        impl From<$name> for $crate::__private::poem::Error {
            fn from(error: $name) -> Self {
                error.0.into()
            }
        }

        impl $crate::__private::poem_openapi::ApiResponse for $name {
            fn meta() -> $crate::__private::poem_openapi::registry::MetaResponses {
                $crate::documented_errors(&[$($status),+])
            }

            fn register(registry: &mut $crate::__private::poem_openapi::registry::Registry) {
                $crate::register_errors(registry);
            }
        }
    )+};
}

/// What any operation may be answered by the layers around it: a host that is none, a body that came too slowly or is too large
/// for all, another host's name, a quota that is used up, a fault, and accounts that are away.
const EVERYWHERE: [u16; 7] = [400, 408, 413, 421, 429, 500, 503];

/// The OpenAPI entries for these statuses and those of the layers around every operation; used by [`error_answers!`].
pub fn documented_errors(statuses: &[u16]) -> MetaResponses {
    let statuses: BTreeSet<u16> = statuses.iter().chain(&EVERYWHERE).copied().collect();
    MetaResponses { responses: statuses.into_iter().map(answer).collect() }
}

/// Registers the two error schemas; used by [`error_answers!`].
pub fn register_errors(registry: &mut Registry) {
    ErrorBody::register(registry);
    ProblemBody::register(registry);
}

fn answer(status: u16) -> MetaResponse {
    let content = vec![
        MetaMediaType { content_type: Json::<ErrorBody>::CONTENT_TYPE, schema: ErrorBody::schema_ref() },
        MetaMediaType { content_type: "application/problem+json", schema: ProblemBody::schema_ref() },
    ];
    let headers = headers(status);
    MetaResponse { description: describe(status), status: Some(status), status_range: None, content, headers }
}

fn headers(status: u16) -> Vec<MetaHeader> {
    let header = |name: &str, ty, description: &str| MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: false,
        deprecated: false,
        schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new(ty))),
    };
    match status {
        401 => vec![header("WWW-Authenticate", "string", "The kind of credential that is asked for.")],
        429 | 503 => vec![header("Retry-After", "integer", "Seconds to wait before the next try.")],
        _ => vec![],
    }
}

fn describe(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed: bad JSON, a parameter that cannot be read, or no or two hosts.",
        401 => "No credential, or one that is wrong, expired or revoked.",
        403 => "The caller may not do this.",
        404 => "There is no such thing, or it is not the caller's.",
        406 => "No form of the answer matches `Accept`.",
        408 => "The body came too slowly.",
        409 => "The request conflicts with the present state.",
        410 => "What was asked for is no longer kept.",
        412 => "A precondition does not hold.",
        413 => "The body, or what it decompresses to, is larger than the limit.",
        415 => "The media type or content encoding is not accepted.",
        421 => "This host name is not answered here.",
        422 => "The request breaks a rule; `details` has a line for each.",
        426 => "This path answers requests that open a WebSocket only.",
        429 => "The caller's quota is used up; see `Retry-After`.",
        500 => "The server failed; the log has the cause under `request_id`.",
        501 => "This is not available here.",
        503 => "Something that the server depends on is away; see `Retry-After`.",
        504 => "The answer took longer than its deadline.",
        _ => "The request cannot be answered.",
    }
}
