//! What every data answer says about itself.

use crate::{serving::freshness::Freshness, snapshot::Snapshot, summary::rfc3339_utc};

/// The epoch and the freshness of an answer.
#[derive(Debug, Clone)]
pub(super) struct Cover {
    pub(super) epoch: u64,
    pub(super) as_of: Option<String>,
    pub(super) freshness: Freshness,
}

impl Cover {
    pub(super) fn of(snapshot: &Snapshot, freshness: Freshness) -> Self {
        let as_of = snapshot.epoch.as_of_us.and_then(rfc3339_utc);
        Self { epoch: snapshot.epoch.epoch, as_of, freshness }
    }
}
