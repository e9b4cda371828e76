//! [`DataAnswer`]: an answer from gold, as bytes that may come from the cache, or 304.

use std::{marker::PhantomData, sync::Arc};

use bytes::Bytes;
use chrono::DateTime;
use karat_http::{ApiError, Envelope, timestamp};
use karat_schemas::epoch::Epoch;
use poem::{
    IntoResponse, Response,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse,
    payload::{Json, Payload},
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
    types::{ParseFromJSON, ToJSON, Type},
};
use serde::Serialize;

use crate::summary::rfc3339_utc;

const KARAT_AS_OF: HeaderName = HeaderName::from_static("karat-as-of");

/// A 200 answer with `T` in the envelope, or a 304. Either way with the headers that say how fresh it is.
pub struct DataAnswer<T> {
    body: Option<Bytes>,
    validators: Arc<Validators>,
    data: PhantomData<fn() -> T>,
}

/// The headers by which a client knows an answer again.
#[derive(Debug)]
pub(crate) struct Validators {
    etag: HeaderValue,
    last_modified: Option<HeaderValue>,
    as_of: Option<HeaderValue>,
}

impl Validators {
    /// Strong: `key` is a hash of everything that the body depends on.
    pub(crate) fn of(key: u128, epoch: &Epoch) -> Result<Self, ApiError> {
        let written = DateTime::from_timestamp_micros(epoch.written_at_us).filter(|_| epoch.epoch > 0);
        let last_modified = written.map(|at| at.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let header = |text: String| HeaderValue::from_str(&text).map_err(ApiError::internal);
        Ok(Self {
            etag: header(format!("\"{key:032x}\""))?,
            last_modified: last_modified.map(header).transpose()?,
            as_of: epoch.as_of_us.and_then(rfc3339_utc).map(header).transpose()?,
        })
    }

    /// Whether the client has this answer already (RFC 9110, 13.1.2: a weak comparison).
    pub(crate) fn is_known_to(&self, headers: &HeaderMap) -> bool {
        let etag = self.etag.to_str().unwrap_or_default();
        headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.trim() == "*" || value.split(',').any(|one| one.trim().trim_start_matches("W/") == etag))
    }
}

impl<T> DataAnswer<T> {
    pub(crate) fn full(body: Bytes, validators: Arc<Validators>) -> Self {
        Self { body: Some(body), validators, data: PhantomData }
    }

    pub(crate) fn not_modified(validators: Arc<Validators>) -> Self {
        Self { body: None, validators, data: PhantomData }
    }
}

/// The bytes of the success envelope around `data`.
///
/// # Errors
/// When `data` cannot be written as JSON.
pub(crate) fn envelope<T: Serialize>(data: &T, message: &str) -> Result<Vec<u8>, ApiError> {
    #[derive(Serialize)]
    struct Success<'a, T> {
        status: &'static str,
        data: &'a T,
        message: &'a str,
        timestamp: String,
    }
    serde_json::to_vec(&Success { status: "success", data, message, timestamp: timestamp() })
        .map_err(ApiError::internal)
}

impl<T: Send> IntoResponse for DataAnswer<T> {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => Response::builder().content_type("application/json; charset=utf-8").body(body),
            None => Response::builder().status(StatusCode::NOT_MODIFIED).finish(),
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.validators.etag.clone());
        // Clients keep it and ask each time whether it still holds, which costs no scan.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.insert(header::VARY, HeaderValue::from_static("Authorization, X-Api-Key, Accept"));
        if let Some(value) = &self.validators.last_modified {
            headers.insert(header::LAST_MODIFIED, value.clone());
        }
        if let Some(value) = &self.validators.as_of {
            headers.insert(KARAT_AS_OF, value.clone());
        }
        response
    }
}

impl<T: Type + ParseFromJSON + ToJSON> ApiResponse for DataAnswer<T> {
    fn meta() -> MetaResponses {
        let content = MetaMediaType {
            content_type: Json::<Envelope<T>>::CONTENT_TYPE,
            schema: <Json<Envelope<T>> as Payload>::schema_ref(),
        };
        let answer = |description, status, content| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content,
            headers: headers(),
        };
        MetaResponses {
            responses: vec![
                answer("", 200, vec![content]),
                answer("The client has this answer already, by its `If-None-Match`.", 304, vec![]),
            ],
        }
    }

    fn register(registry: &mut Registry) {
        <Json<Envelope<T>> as Payload>::register(registry);
    }
}

fn headers() -> Vec<MetaHeader> {
    vec![
        text_header("ETag", "Strong; for `If-None-Match`."),
        text_header("Last-Modified", "When the epoch was written."),
        text_header("Karat-As-Of", "The newest event time that is folded in."),
    ]
}

/// A header of an answer, for the document.
pub(crate) fn text_header(name: &str, description: &str) -> MetaHeader {
    MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: false,
        deprecated: false,
        schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
    }
}
