//! What `GET /user-vitals` answers.

use poem_openapi::{Object, types::Example};
use serde::Serialize;

use crate::{serving::freshness::DataState, summary::Figures};

/// The runs of one user on the last days.
#[derive(Debug, Clone, Serialize, Object)]
pub struct VitalsWindow {
    /// Length in UTC days, today included.
    pub days: i64,
    /// First UTC day.
    pub from: String,
    /// Last UTC day: today.
    pub to: String,
    /// UTC days on which a run started.
    pub active_days: u64,
    #[serde(flatten)]
    #[oai(flatten)]
    pub figures: Figures,
}

/// How a user stands.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct UserVitals {
    /// The epoch that the figures are of.
    pub epoch: u64,
    /// Newest event time that is folded in, RFC 3339 in UTC.
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    /// Whose runs these are.
    pub user_id: String,
    /// The last 7, 30 and 90 days.
    pub windows: Vec<VitalsWindow>,
    /// UTC days in a row with a completed run, up to today, or up to yesterday while today has none yet.
    pub streak_days: u64,
    /// Newest UTC day on which a run started; null without one.
    #[oai(nullable)]
    pub last_activity: Option<String>,
    /// Experience, as on the profile.
    pub exp: u64,
    /// The level that follows from it, from 1.
    pub level: u64,
}

impl Example for UserVitals {
    fn example() -> Self {
        let window = |days, from: &str, active_days, runs| VitalsWindow {
            days,
            from: from.to_owned(),
            to: "2026-01-31".to_owned(),
            active_days,
            figures: Figures {
                runs,
                completed: runs - 1,
                failed: 1,
                success_rate: Some((runs - 1) as f64 / runs as f64),
                jobs: 2,
                records_read: runs * 20_000,
                records_written: runs * 20_000,
                bytes_written: runs * 3_145_728,
                avg_duration_ms: Some(41_250.5),
                p95_duration_ms: Some(88_000.0),
                ..Figures::default()
            },
        };
        Self {
            epoch: 412,
            as_of: Some("2026-01-31T22:59:58.120Z".to_owned()),
            data_state: DataState::Complete,
            user_id: "0197b3a2-5c1e-7d40-8a77-2f6f0c1f9d11".to_owned(),
            windows: vec![
                window(7, "2026-01-25", 5, 20),
                window(30, "2026-01-02", 21, 80),
                window(90, "2025-11-03", 60, 240),
            ],
            streak_days: 3,
            last_activity: Some("2026-01-31".to_owned()),
            exp: 2_640,
            level: 6,
        }
    }
}
