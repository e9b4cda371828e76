//! [`OnceAnswer`]: an answer that is written once and that nobody keeps.

use std::marker::PhantomData;

use karat_http::Envelope;
use poem::{IntoResponse, Response, http::header};
use poem_openapi::{
    ApiResponse,
    payload::{Json, Payload},
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{ParseFromJSON, ToJSON, Type},
};

/// A 200 answer with `T` in the envelope, as bytes.
pub struct OnceAnswer<T> {
    body: Vec<u8>,
    data: PhantomData<fn() -> T>,
}

impl<T> OnceAnswer<T> {
    /// `body` is an envelope, as `envelope` writes it.
    pub(crate) fn of(body: Vec<u8>) -> Self {
        Self { body, data: PhantomData }
    }
}

impl<T: Send> IntoResponse for OnceAnswer<T> {
    fn into_response(self) -> Response {
        let response = Response::builder().content_type("application/json; charset=utf-8");
        response.header(header::CACHE_CONTROL, "no-store").body(self.body)
    }
}

impl<T: Type + ParseFromJSON + ToJSON> ApiResponse for OnceAnswer<T> {
    fn meta() -> MetaResponses {
        let content = MetaMediaType {
            content_type: Json::<Envelope<T>>::CONTENT_TYPE,
            schema: <Json<Envelope<T>> as Payload>::schema_ref(),
        };
        let answer = MetaResponse {
            description: "",
            status: Some(200),
            status_range: None,
            content: vec![content],
            headers: vec![],
        };
        MetaResponses { responses: vec![answer] }
    }

    fn register(registry: &mut Registry) {
        <Json<Envelope<T>> as Payload>::register(registry);
    }
}
