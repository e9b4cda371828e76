//! The trace of a publishing request on its way into the records.

use std::time::Instant;

use karat_http::request_trace;
use karat_schemas::trace::TraceContext;
use karat_telemetry::spans::{self, Kind, Span, Value};

use super::DoorName;

/// What records name as their parent, and the span that it stands for.
pub(super) struct PublishTrace {
    pub(super) onward: Option<TraceContext>,
    pub(super) state: Option<String>,
    /// The span of the request; none where no spans are made.
    parent: Option<u64>,
    began: Instant,
}

impl PublishTrace {
    /// Of the request that the current task answers; without one, or without a trace to pass on, nothing.
    pub(super) fn begin() -> Self {
        let request = request_trace();
        let given = request.as_ref().and_then(|trace| trace.onward());
        let parent = given.filter(|_| spans::is_on()).map(|context| context.span_id());
        let onward = match parent {
            Some(_) => given.map(|context| context.at(karat_telemetry::new_span_id())),
            None => given,
        };
        let state = request.and_then(|trace| trace.state().map(str::to_owned));
        Self { onward, state, parent, began: Instant::now() }
    }

    /// The log has the records, or does not take them.
    pub(super) fn end(&self, door: DoorName, records: usize, has_failed: bool) {
        let (Some(context), Some(parent)) = (self.onward, self.parent) else { return };
        let span = Span::ending_now(context, Some(parent), "publish", Kind::Producer, self.began.elapsed())
            .with("karat.door", Value::Text(door.name().to_owned()))
            .with("karat.records", Value::Number(records as u64));
        spans::record(Span { has_failed, ..span });
    }
}
