//! [`ConnectionCounts`]: what `/metrics` says about the connections of a server.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::arrival::Overdue;

/// Why a connection was ended: one of three names.
type Reason = [(&'static str, &'static str); 1];

/// Counts of connections; clones count together.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCounts {
    open: Gauge,
    refused: Counter,
    overdue: Family<Reason, Counter>,
}

impl ConnectionCounts {
    /// Adds them to what is answered to who asks for metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections_open", "Connections that are open", self.open.clone());
        let refused = "Connections closed at once because their network had its share";
        registry.register("connections_refused", refused, self.refused.clone());
        let overdue = "Connections ended because a head, a further request or the taking of an answer was overdue";
        registry.register("connections_overdue", overdue, self.overdue.clone());
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

    pub(crate) fn note_overdue(&self, overdue: Overdue) {
        self.overdue.get_or_create(&[("reason", overdue.name())]).inc();
    }
}
