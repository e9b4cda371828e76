//! What became of the events of one request.

use std::collections::BTreeMap;

use crate::{event::Rejection, receipt::Receipt};

/// The next offset of each partition of each topic: the log holds a batch up to there.
pub type Positions = BTreeMap<String, BTreeMap<u32, i64>>;

/// Every event of the request is counted once: accepted, duplicate or rejected.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Durable in the log.
    pub accepted: usize,
    /// Identities that came twice in this request. Equal ones were left out; ones that differ in payload are in the log
    /// too, and silver quarantines them as conflicts (spec P3). Repeats of other requests are found by silver alone.
    pub duplicates: usize,
    pub rejected: usize,
    /// One for each rejected event, in the order sent.
    pub errors: Vec<Rejection>,
    /// Where the log stood behind this batch; empty when nothing was appended.
    pub positions: Positions,
    /// Absent when nothing was appended.
    pub receipt: Option<Receipt>,
}

/// Why a request could not be published. What the log holds of it is unknown; publishing it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The log's queue is full: come back in a moment.
    #[error("the event log is busy")]
    Busy,
    /// The log does not take events now.
    #[error("the event log does not take events: {0}")]
    Unavailable(karat_eventlog::Error),
}

impl From<karat_eventlog::Error> for PublishError {
    fn from(error: karat_eventlog::Error) -> Self {
        match error {
            karat_eventlog::Error::Busy => Self::Busy,
            other => Self::Unavailable(other),
        }
    }
}
