//! The rows of `gold.sync_status`: the newest facts about each source and job.

use karat_lake::arrow::{array::RecordBatch, error::ArrowError};

use super::Columns;

/// One source and job. Times are microseconds since 1970 UTC.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncRow {
    pub source: String,
    pub job: String,
    pub last_started_at_us: Option<i64>,
    pub last_event_at_us: Option<i64>,
    pub last_run_id: Option<String>,
    pub last_status: Option<String>,
    pub last_success_at_us: Option<i64>,
    pub consecutive_failures: i64,
    /// Gaps between starts that `median_gap_us` is the median of: at most the newest ten.
    pub gaps: i64,
    pub median_gap_us: Option<i64>,
    pub last_error: Option<String>,
}

impl SyncRow {
    /// Takes over the rows of a file.
    ///
    /// # Errors
    /// When a column is missing or has another type.
    pub fn from_batches(batches: &[RecordBatch]) -> Result<Vec<Self>, ArrowError> {
        let mut rows = Vec::new();
        for batch in batches {
            add_batch(&Columns::of(batch), batch.num_rows(), &mut rows)?;
        }
        Ok(rows)
    }
}

fn add_batch(columns: &Columns<'_>, num_rows: usize, rows: &mut Vec<SyncRow>) -> Result<(), ArrowError> {
    let (sources, jobs) = (columns.texts("source")?, columns.texts("job")?);
    let (started, last_event) = (columns.instants("last_started_at")?, columns.instants("last_event_at")?);
    let (run_ids, statuses) = (columns.texts("last_run_id")?, columns.texts("last_status")?);
    let success = columns.instants("last_success_at")?;
    let (failures, gaps) = (columns.numbers("consecutive_failures")?, columns.numbers("gaps")?);
    let (median, errors) = (columns.numbers("median_gap_us")?, columns.texts("last_error")?);
    rows.extend((0..num_rows).map(|at| SyncRow {
        source: sources.owned(at).unwrap_or_default(),
        job: jobs.owned(at).unwrap_or_default(),
        last_started_at_us: started.get(at),
        last_event_at_us: last_event.get(at),
        last_run_id: run_ids.owned(at),
        last_status: statuses.owned(at),
        last_success_at_us: success.get(at),
        consecutive_failures: failures.get_or_0(at),
        gaps: gaps.get_or_0(at),
        median_gap_us: median.get(at),
        last_error: errors.owned(at),
    }));
    Ok(())
}
