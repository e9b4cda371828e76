//! The state of a source and job (decision 30): gold gives the facts, the clock gives the state.

use poem_openapi::Enum;
use serde::Serialize;

use crate::snapshot::SyncRow;

/// Below this many gaps their median says nothing.
const MIN_GAPS: i64 = 3;
const GRACE_US: i64 = 5 * 60 * 1_000_000;
const SILENT_US: i64 = 24 * 60 * 60 * 1_000_000;

/// Whether a job does what is expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum SyncState {
    /// Declared, and no run has been seen.
    NeverRun,
    /// Its newest run has not finished.
    Running,
    /// Its newest finished run completed.
    Ok,
    /// It should have started by now, or has been running without an event for 24 hours.
    Late,
    /// Its newest finished run failed or was aborted.
    Failing,
}

/// A state and when the clock alone will change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assessed {
    pub state: SyncState,
    /// The time from one start to the next; none when not declared and not known.
    pub expected_interval_us: Option<i64>,
    /// From when it counts as late; none when never.
    pub late_after_us: Option<i64>,
}

/// The state at `now_us` of a job with this row. `declared_us` is its declared interval.
pub fn assess(row: &SyncRow, declared_us: Option<i64>, now_us: i64) -> Assessed {
    let expected_interval_us = declared_us.or(row.median_gap_us.filter(|_| row.gaps >= MIN_GAPS));
    let is_running = row.last_status.as_deref() == Some("running");
    let start_due = match (expected_interval_us, row.last_started_at_us) {
        (Some(interval), Some(started)) => {
            Some(started.saturating_add(interval.saturating_mul(2)).saturating_add(GRACE_US))
        }
        _ => None,
    };
    let event_due = row.last_event_at_us.filter(|_| is_running).map(|at| at.saturating_add(SILENT_US));
    let late_after_us = [start_due, event_due].into_iter().flatten().min();
    let state = if row.consecutive_failures > 0 {
        SyncState::Failing
    } else if late_after_us.is_some_and(|due| now_us > due) {
        SyncState::Late
    } else if is_running {
        SyncState::Running
    } else {
        SyncState::Ok
    };
    Assessed { state, expected_interval_us, late_after_us }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;
    const HOUR: i64 = 60 * MINUTE;

    fn row(status: &str, failures: i64, gaps: i64) -> SyncRow {
        SyncRow {
            last_started_at_us: Some(0),
            last_event_at_us: Some(0),
            last_status: Some(status.to_owned()),
            consecutive_failures: failures,
            gaps,
            median_gap_us: Some(HOUR),
            ..SyncRow::default()
        }
    }

    #[test]
    fn states_follow_the_rules_and_the_worst_one_wins() {
        use SyncState::{Failing, Late, Ok, Running};
        let day = 24 * HOUR;
        // Status, failures, gaps, declared interval, now, expected.
        let cases = [
            ("completed", 0, 3, None, 2 * HOUR + 5 * MINUTE, Ok),
            ("completed", 0, 3, None, 2 * HOUR + 5 * MINUTE + 1, Late),
            ("completed", 0, 2, None, 100 * day, Ok),
            ("completed", 0, 2, Some(10 * MINUTE), 26 * MINUTE, Late),
            ("completed", 0, 9, Some(10 * HOUR), 20 * HOUR, Ok),
            ("running", 0, 0, None, day, Running),
            ("running", 0, 0, None, day + 1, Late),
            ("running", 0, 3, None, 3 * HOUR, Late),
            ("running", 2, 3, None, HOUR, Failing),
            ("failed", 1, 3, None, 100 * day, Failing),
        ];
        for (status, failures, gaps, declared, now, expected) in cases {
            let found = assess(&row(status, failures, gaps), declared, now);
            assert_eq!(found.state, expected, "{status} {failures} {gaps} {declared:?} {now}");
        }
    }
}
