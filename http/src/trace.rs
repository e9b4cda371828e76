//! [`RequestTrace`]: the place of a request in a trace (W3C trace context).

use std::sync::Arc;
use std::time::Duration;

use karat_schemas::attributes::{TRACEPARENT, TRACESTATE};
use karat_schemas::trace::{TraceContext, trace_state};
use karat_telemetry::spans::{self, Kind, Span, Value};
use poem::http::{HeaderMap, Method};

/// Which trace a request belongs to: that of its `traceparent`, or one that begins with it.
#[derive(Debug, Clone)]
pub struct RequestTrace {
    own: TraceContext,
    given: Option<TraceContext>,
    state: Option<Arc<str>>,
}

impl RequestTrace {
    /// A `traceparent` that breaks the grammar, or of which there are several, is as none.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let only = parents.next().filter(|_| parents.next().is_none());
        let given = only.and_then(|value| TraceContext::parse(value.to_str().ok()?));
        let Some(given) = given else { return Self::begun() };
        // One value that is no text breaks all of it.
        let values: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
        let state = values.and_then(trace_state).map(Arc::from);
        Self { own: given.at(karat_telemetry::new_span_id()), given: Some(given), state }
    }

    /// One that begins here.
    pub(crate) fn begun() -> Self {
        Self { own: karat_telemetry::new_trace(), given: None, state: None }
    }

    /// The place of this request itself.
    pub fn context(&self) -> TraceContext {
        self.own
    }

    /// What vendors added to the trace.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// What the parts of the work of this request name as their parent. Where no spans are made, that is what the client gave, so
    /// that nobody's parent is missing; none when it gave nothing either.
    pub fn onward(&self) -> Option<TraceContext> {
        if spans::is_on() { Some(self.own) } else { self.given }
    }

    /// The span of the request, which was answered.
    pub(crate) fn answered(&self, method: &Method, route: &str, status: u16, took: Duration) {
        if !spans::is_on() {
            return;
        }
        let parent = self.given.map(|given| given.span_id());
        let mut span = Span::ending_now(self.own, parent, "request", Kind::Server, took)
            .with("http.request.method", Value::Text(method.as_str().chars().take(16).collect()))
            .with("http.route", Value::Text(route.to_owned()))
            .with("http.response.status_code", Value::Number(status.into()));
        span.has_failed = status >= 500;
        spans::record(span);
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_request_goes_on_with_the_trace_of_its_client() {
        let trace = RequestTrace::from_headers(&headers(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]));
        assert_eq!(trace.context().trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(trace.context().span_id(), 0x00f0_67aa_0ba9_02b7);
        assert_eq!(trace.state(), Some("a=1,b=2"));
        // No spans are made in this test: the parent is still the client's.
        assert_eq!(trace.onward().unwrap().to_string(), PARENT);
    }

    #[test]
    fn a_bad_or_repeated_parent_begins_a_new_trace_without_the_state() {
        for bad in [vec![("traceparent", "00-bad")], vec![("traceparent", PARENT), ("traceparent", PARENT)], vec![]] {
            let mut given = bad;
            given.push(("tracestate", "a=1"));
            let trace = RequestTrace::from_headers(&headers(&given));
            assert_ne!(trace.context().trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!((trace.state(), trace.onward()), (None, None));
        }
        assert_ne!(RequestTrace::begun().context().trace_id(), RequestTrace::begun().context().trace_id());
    }
}
