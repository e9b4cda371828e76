//! What a process tells about itself: figures ([`mod@metrics`]) and spans of traces ([`spans`]).
//!
//! Guarantees:
//! - Nothing here delays or fails the work that it tells of: counting takes a short lock, a span is put into a bounded queue or
//!   dropped, which a figure says.
//! - Labels are bounded: route templates, names of the declaration, layers, kinds. Never what a client sends.
//! - One set of figures a process: whoever counts needs nothing handed in.

pub mod metrics;
mod otlp;
pub mod spans;

use karat_schemas::trace::TraceContext;

pub use metrics::metrics;

/// The first place of a new trace, which is recorded where spans are exported.
pub fn new_trace() -> TraceContext {
    let is_sampled = spans::is_on();
    loop {
        // An id of 0 is none.
        if let Some(context) = TraceContext::new(rand::random(), rand::random(), is_sampled) {
            return context;
        }
    }
}

/// A number for a new span.
pub fn new_span_id() -> u64 {
    rand::random::<u64>().max(1)
}
