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

use super::key::Key;
use crate::summary::rfc3339_utc;

const KARAT_AS_OF: HeaderName = HeaderName::from_static("karat-as-of");
/// Those of the layers around too: a map that grows is put together anew each time.
const MOST_HEADERS: usize = 20;

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

/// An answer as it is sent, and kept.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    pub(crate) body: Bytes,
    pub(crate) validators: Arc<Validators>,
}

impl Rendered {
    /// Without the room that was left at the end of `body`, so that its length is the memory that it takes.
    pub(crate) fn new(body: Vec<u8>, validators: Validators) -> Self {
        Self { body: body.into_boxed_slice().into(), validators: Arc::new(validators) }
    }
}

impl Validators {
    /// Strong: `key` is a hash of everything that the body depends on.
    pub(crate) fn of(key: &Key, epoch: &Epoch) -> Result<Self, ApiError> {
        let written = DateTime::from_timestamp_micros(epoch.written_at_us).filter(|_| epoch.epoch > 0);
        let last_modified = written.map(|at| at.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let header = |text: String| HeaderValue::try_from(text).map_err(ApiError::internal);
        Ok(Self {
            etag: HeaderValue::from_bytes(&key.etag()).map_err(ApiError::internal)?,
            last_modified: last_modified.map(header).transpose()?,
            as_of: epoch.as_of_us.and_then(rfc3339_utc).map(header).transpose()?,
        })
    }

    /// Weak: the same rows may come in another order.
    pub(crate) fn weak(key: &Key, epoch: &Epoch) -> Result<Self, ApiError> {
        let etag = [b"W/".as_slice(), &key.etag()].concat();
        let etag = HeaderValue::from_bytes(&etag).map_err(ApiError::internal)?;
        Ok(Self { etag, ..Self::of(key, epoch)? })
    }

    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(header::ETAG, self.etag.clone());
        // Clients keep it and ask each time whether it still holds, which costs no scan.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.insert(header::VARY, HeaderValue::from_static("Authorization, X-Api-Key, Accept"));
        if let Some(value) = &self.last_modified {
            headers.insert(header::LAST_MODIFIED, value.clone());
        }
        if let Some(value) = &self.as_of {
            headers.insert(KARAT_AS_OF, value.clone());
        }
    }
}

/// What a client says that it has (RFC 9110, 13.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Has {
    /// Another answer, or none.
    Nothing,
    /// This answer, by its tag.
    This,
    /// Whatever there is (`*`): it is to be found out whether there is something.
    Anything,
}

impl Has {
    /// Compares weakly: `W/` before a tag does not count.
    pub(crate) fn of(headers: &HeaderMap, key: &Key) -> Self {
        let values = headers.get_all(header::IF_NONE_MATCH);
        if values.iter().next().is_none() {
            return Self::Nothing;
        }
        let etag = key.etag();
        let is_this = |one: &[u8]| {
            let tag = one.trim_ascii();
            tag.strip_prefix(b"W/").unwrap_or(tag) == etag
        };
        // Tags of ours hold no comma, and one of another's that does matches in no part: it has a quote too few.
        if values.iter().any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_this)) {
            return Self::This;
        }
        let is_any = values.iter().any(|value| value.as_bytes().trim_ascii() == b"*");
        if is_any { Self::Anything } else { Self::Nothing }
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
        let has_body = self.body.is_some();
        let mut response = self.body.map_or_else(|| Response::from(StatusCode::NOT_MODIFIED), Response::from);
        let headers = response.headers_mut();
        headers.reserve(MOST_HEADERS);
        if has_body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        }
        self.validators.put(headers);
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
            headers: fresh_headers("Strong; for `If-None-Match`."),
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

/// The headers of every data answer, for the document.
pub(crate) fn fresh_headers(etag: &str) -> Vec<MetaHeader> {
    vec![
        text_header("ETag", etag),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::key::KeyParts;

    #[test]
    fn a_client_has_an_answer_by_its_tag_in_any_list_or_by_a_star() {
        let key = KeyParts::default().key();
        let tag = String::from_utf8(key.etag().to_vec()).unwrap();
        let other = KeyParts::of("other").key();
        let cases = [
            (vec![], Has::Nothing),
            (vec![String::new()], Has::Nothing),
            (vec!["\"x\"".to_owned()], Has::Nothing),
            (vec![tag.clone()], Has::This),
            (vec![format!("W/{tag}")], Has::This),
            (vec![format!("\"x\" , W/{tag},\"y\"")], Has::This),
            (vec!["\"x\"".to_owned(), tag.clone()], Has::This),
            (vec![format!("W/W/{tag}")], Has::Nothing),
            (vec![format!("w/{tag}")], Has::Nothing),
            (vec![tag.replace('"', "")], Has::Nothing),
            (vec![" * ".to_owned()], Has::Anything),
            (vec!["\"*\"".to_owned()], Has::Nothing),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            assert_eq!(Has::of(&headers, &key), expected, "{values:?}");
            assert_ne!(Has::of(&headers, &other), Has::This, "{values:?}");
        }
        let mut odd = HeaderMap::new();
        let bytes = [b"\"\xff\", ".as_slice(), tag.as_bytes()].concat();
        odd.append(header::IF_NONE_MATCH, HeaderValue::from_bytes(&bytes).unwrap());
        assert_eq!(Has::of(&odd, &key), Has::This);
    }

    #[test]
    fn both_forms_of_an_answer_have_the_same_headers() {
        let epoch = Epoch { epoch: 1, written_at_us: 1_700_000_000_000_000, as_of_us: Some(0), ..Epoch::default() };
        let validators = Arc::new(Validators::of(&KeyParts::default().key(), &epoch).unwrap());
        let full = DataAnswer::<String>::full(Bytes::from_static(b"{}"), Arc::clone(&validators)).into_response();
        let known = DataAnswer::<String>::not_modified(validators).into_response();
        assert_eq!((full.status().as_u16(), known.status().as_u16()), (200, 304));
        for name in ["etag", "cache-control", "vary", "last-modified", "karat-as-of"] {
            let value = full.headers().get(name).unwrap();
            assert_eq!(known.headers().get(name), Some(value), "{name}");
        }
        assert_eq!(full.headers()["last-modified"], "Tue, 14 Nov 2023 22:13:20 GMT");
    }
}
