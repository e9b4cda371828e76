//! What every data answer says about itself.

use crate::{serving::freshness::Freshness, snapshot::Snapshot, summary::rfc3339_utc};

/// The epoch and the freshness of an answer.
#[derive(Debug, Clone)]
pub(super) struct Cover {
    pub(super) epoch: u64,
    pub(super) freshness: Freshness,
    as_of_us: Option<i64>,
}

impl Cover {
    pub(super) fn of(snapshot: &Snapshot, freshness: Freshness) -> Self {
        Self { epoch: snapshot.epoch.epoch, freshness, as_of_us: snapshot.epoch.as_of_us }
    }

    /// The newest event time, as answers write it: asked for when one is rendered, which most are not.
    pub(super) fn as_of(&self) -> Option<String> {
        self.as_of_us.and_then(rfc3339_utc)
    }
}
