//! The success envelope: `{"status":"success","data":...,"message":"...","timestamp":"..."}`.

use std::borrow::Cow;

use chrono::{SecondsFormat, Utc};
use poem_openapi::payload::Json;
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;

/// The form of every successful JSON answer.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Envelope<T: Type + ParseFromJSON + ToJSON> {
    /// Always `success`.
    pub status: String,
    /// What was asked for.
    pub data: T,
    /// One sentence for people.
    pub message: String,
    /// The time of rendering, RFC 3339 in UTC.
    pub timestamp: String,
}

/// A 200 answer in the envelope.
pub type Answer<T> = Json<Envelope<T>>;

/// A 201 answer in the envelope.
#[derive(ApiResponse)]
pub enum Created<T: Type + ParseFromJSON + ToJSON> {
    /// It was created.
    #[oai(status = 201)]
    Created(Json<Envelope<T>>),
}

/// Wraps `data` for a 200 answer.
pub fn ok<T: Type + ParseFromJSON + ToJSON>(data: T, message: impl Into<Cow<'static, str>>) -> Answer<T> {
    let message = message.into().into_owned();
    Json(Envelope { status: "success".to_owned(), data, message, timestamp: timestamp() })
}

/// Wraps `data` for a 201 answer.
pub fn created<T: Type + ParseFromJSON + ToJSON>(data: T, message: impl Into<Cow<'static, str>>) -> Created<T> {
    Created::Created(ok(data, message))
}

/// Now, as the envelope writes it: RFC 3339, UTC, milliseconds.
pub fn timestamp() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}
