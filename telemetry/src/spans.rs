//! Spans: named stretches of time in a trace, for a collector of OpenTelemetry.
//!
//! Off until [`start`] is called, once a process; then [`record`] puts spans into a bounded queue and never waits. One task sends
//! what waits in batches, tries again for a while when the collector is away, and drops what it does not take, which
//! `spans_dropped` counts. [`Exporter::close`] sends the rest within two seconds.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use karat_schemas::trace::TraceContext;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{metrics, otlp::Sender};

/// Spans that may wait.
const QUEUE: usize = 4096;

static SPANS: OnceLock<mpsc::Sender<Span>> = OnceLock::new();

/// What a span stands for, as OpenTelemetry numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    /// A request that was answered.
    Server = 2,
    /// A message that others take.
    Producer = 4,
    /// Messages that were taken.
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(u64),
}

/// A stretch of time that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Trace and number of the span.
    pub context: TraceContext,
    /// The span that it is a part of.
    pub parent: Option<u64>,
    pub name: &'static str,
    pub kind: Kind,
    pub begin: SystemTime,
    pub took: Duration,
    pub attributes: Vec<(&'static str, Value)>,
    pub has_failed: bool,
}

impl Span {
    /// A span that ends now.
    pub fn ending_now(
        context: TraceContext,
        parent: Option<u64>,
        name: &'static str,
        kind: Kind,
        took: Duration,
    ) -> Self {
        let begin = SystemTime::now().checked_sub(took).unwrap_or(UNIX_EPOCH);
        Self { context, parent, name, kind, begin, took, attributes: Vec::new(), has_failed: false }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.attributes.push((name, value));
        self
    }
}

/// Whether spans go anywhere: if not, they need not be made.
pub fn is_on() -> bool {
    SPANS.get().is_some()
}

/// Takes a span, if there is room and its trace is recorded.
pub fn record(span: Span) {
    if let Some(queue) = SPANS.get().filter(|_| span.context.is_sampled())
        && queue.try_send(span).is_err()
    {
        metrics().spans_dropped.inc();
    }
}

/// The task that sends spans.
pub struct Exporter {
    close: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Begins to send spans to the collector at `address`, such as `http://collector:4318`.
///
/// # Errors
/// What is wrong with the address, or that spans are sent already.
pub fn start(address: &str) -> Result<Exporter, String> {
    let sender = Sender::new(address)?;
    let (queue, waiting) = mpsc::channel(QUEUE);
    SPANS.set(queue).map_err(|_| "spans are sent already".to_owned())?;
    let (close, closing) = watch::channel(false);
    Ok(Exporter { close, task: tokio::spawn(sender.run(waiting, closing)) })
}

impl Exporter {
    /// Sends what waits and ends; what a collector does not take within two seconds is dropped, and counted.
    pub async fn close(self) {
        let _ = self.close.send(true);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the sender of spans ended early");
        }
    }
}
