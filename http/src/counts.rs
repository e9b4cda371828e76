//! [`ConnectionCounts`]: what `/metrics` says about the connections of a server.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::arrival::Overdue;

/// Why a connection was ended: one of three names.
type Reason = [(&'static str, &'static str); 1];

/// Counts of connections, collected when somebody asks for metrics; clones count together.
#[derive(Debug, Clone)]
pub struct ConnectionCounts {
    open: Gauge,
    refused: Counter,
    overdue: Family<Reason, Counter>,
}

impl Default for ConnectionCounts {
    fn default() -> Self {
        let overdue = Family::<Reason, Counter>::default();
        // Each reason is there from the beginning, so that a first one is seen as an increase.
        for reason in [Overdue::Head, Overdue::Idle, Overdue::Answer] {
            overdue.get_or_create(&labels(reason)).inc_by(0);
        }
        Self { open: Gauge::default(), refused: Counter::default(), overdue }
    }
}

impl Collector for ConnectionCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut write = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        write("connections_open", "Connections that are open", &self.open)?;
        let refused = "Connections closed at once because their network had its share";
        write("connections_refused", refused, &self.refused)?;
        let overdue =
            "Connections and streams ended because a head, a further request or the taking of an answer was overdue";
        write("connections_overdue", overdue, &self.overdue)
    }
}

impl ConnectionCounts {
    /// Connections that are open now.
    pub fn num_open(&self) -> i64 {
        self.open.get()
    }

    pub(crate) fn note_open(&self) {
        self.open.inc();
    }

    pub(crate) fn note_closed(&self) {
        self.open.dec();
    }

    pub(crate) fn note_refused(&self) {
        self.refused.inc();
    }

    /// A connection, or a stream of one, was ended because this was overdue.
    pub fn note_overdue(&self, overdue: Overdue) {
        self.overdue.get_or_create(&labels(overdue)).inc();
    }
}

fn labels(overdue: Overdue) -> Reason {
    [("reason", overdue.name())]
}
