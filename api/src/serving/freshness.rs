//! How fresh an answer is: `as_of`, `epoch` and `data_state` (decision 29).

use std::time::Duration;

use karat_schemas::{
    epoch::Epoch,
    pipelines::{Gold, Pipeline},
};
use poem_openapi::Enum;
use serde::Serialize;

use crate::lag::Lag;

// The least complete is the greatest.
/// Whether an answer has everything that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum DataState {
    /// Everything in the log is folded in.
    Complete,
    /// Some records of the log are still on their way.
    Partial,
    /// They have been on their way for longer than the objective allows, or the newest event is older than a table
    /// promises.
    Late,
}

impl DataState {
    /// As answers write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Late => "late",
        }
    }
}

/// What a gold table promises: its newest event is at most this old (spec G6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objective {
    /// Full name, such as `gold.daily_summary`.
    pub table: String,
    pub fresh_within: Duration,
}

impl Objective {
    /// What the golds of `pipeline` promise.
    pub fn of(pipeline: &Pipeline) -> Vec<Self> {
        let declared = |gold: &Gold| {
            gold.fresh_within.map(|fresh_within| Self { table: format!("gold.{}", gold.name), fresh_within })
        };
        pipeline.gold.iter().filter_map(declared).collect()
    }

    /// Whether the promise is kept at `now_us`; none before there is an event. `as_of_us` is the newest event time.
    pub fn is_met(&self, as_of_us: Option<i64>, now_us: i64) -> Option<bool> {
        // A newest event of the future has no age.
        as_of_us.map(|as_of| Duration::from_micros(u64::try_from(now_us - as_of).unwrap_or(0)) <= self.fresh_within)
    }
}

/// The state of a pipeline against its log, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    pub data_state: DataState,
    /// Records that the log has and the epoch does not; `None` while the log is not known.
    pub lag_records: Option<u64>,
    pub lag_bytes: Option<u64>,
    /// How long the oldest record that waits has waited, else 0; where that is not known, how long ago the epoch was written.
    pub lag: Duration,
}

impl Freshness {
    /// Looks at the log now.
    pub fn of(epoch: &Epoch, lag: &dyn Lag, objective: Option<Duration>, now_us: i64) -> Self {
        let covered = epoch.covers();
        let lag_records = lag.records_after(&epoch.pipeline, &covered);
        let lag_bytes = lag.bytes_after(&epoch.pipeline, &covered);
        let is_behind = lag_records.is_some_and(|records| records > 0);
        let since_us = lag.waiting_since_us(&epoch.pipeline, &covered).unwrap_or(epoch.written_at_us);
        let waited_us = u64::try_from(now_us - since_us).unwrap_or(0);
        let lag = if is_behind && epoch.epoch > 0 { Duration::from_micros(waited_us) } else { Duration::ZERO };
        let data_state = match is_behind {
            true if objective.is_some_and(|objective| lag > objective) => DataState::Late,
            true => DataState::Partial,
            false => DataState::Complete,
        };
        Self { data_state, lag_records, lag_bytes, lag }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lag::records_behind;

    /// The end of the one partition, and since when records wait.
    struct Ends(i64, Option<i64>);

    impl Lag for Ends {
        fn records_after(&self, _: &str, positions: &BTreeMap<u32, i64>) -> Option<u64> {
            Some(records_behind(&BTreeMap::from([(0, self.0)]), positions))
        }

        fn waiting_since_us(&self, _: &str, _: &BTreeMap<u32, i64>) -> Option<i64> {
            self.1
        }
    }

    #[test]
    fn a_promise_is_kept_while_the_newest_event_is_young_enough() {
        let objective = Objective { table: "gold.t".to_owned(), fresh_within: Duration::from_secs(60) };
        let at = |now_s: i64| objective.is_met(Some(5_000_000), now_s * 1_000_000);
        assert_eq!((at(0), at(65), at(66)), (Some(true), Some(true), Some(false)));
        assert_eq!(objective.is_met(None, 0), None);
    }

    #[test]
    fn data_is_partial_while_records_wait_and_late_when_they_wait_too_long() {
        let epoch = Epoch { epoch: 1, positions: BTreeMap::from([(0, 5)]), written_at_us: 0, ..Epoch::default() };
        let state =
            |end, now_s: i64| Freshness::of(&epoch, &Ends(end, None), Some(Duration::from_secs(60)), now_s * 1_000_000);
        assert_eq!(state(5, 1000).data_state, DataState::Complete);
        assert_eq!(state(8, 30).data_state, DataState::Partial);
        assert_eq!(state(8, 61).data_state, DataState::Late);
        assert_eq!((state(8, 61).lag_records, state(8, 61).lag.as_secs()), (Some(3), 61));
        assert_eq!(state(5, 1000).lag, Duration::ZERO);
    }

    #[test]
    fn a_record_after_a_quiet_time_is_not_late_because_the_epoch_is_old() {
        let epoch = Epoch { epoch: 1, positions: BTreeMap::from([(0, 5)]), written_at_us: 0, ..Epoch::default() };
        let ends = Ends(6, Some(1_000_000_000));
        let at = |now_s: i64| Freshness::of(&epoch, &ends, Some(Duration::from_secs(60)), now_s * 1_000_000);
        assert_eq!((at(1_001).data_state, at(1_001).lag.as_secs()), (DataState::Partial, 1));
        assert_eq!((at(1_061).data_state, at(1_061).lag.as_secs()), (DataState::Late, 61));
    }
}
