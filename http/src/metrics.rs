//! [`metrics`]: what a process counts, in the text form that Prometheus reads.

use std::sync::Arc;

use poem::{Endpoint, IntoResponse, Response, Route, endpoint, http::StatusCode};
use prometheus_client::{encoding::text, registry::Registry};

const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /metrics`, for an address of its own: it asks for no log-in.
pub fn metrics(registry: Registry) -> impl Endpoint<Output = Response> + 'static {
    let registry = Arc::new(registry);
    let read = endpoint::make_sync(move |_| {
        let mut body = String::new();
        match text::encode(&mut body, &registry) {
            Ok(()) => Response::builder().content_type(MEDIA_TYPE).body(body),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    });
    crate::harden(Route::new().at("/metrics", poem::get(read)))
}
