//! The rows of `gold.summary_state` as the fold wants them: numbers, sorted by source and time.
//!
//! One [`StateFile`] holds the rows of one data file. Data files never change, so it is built once and shared by every
//! snapshot that has the file.

use std::ops::{AddAssign, Range};

use karat_lake::arrow::{array::RecordBatch, error::ArrowError};

use super::{columns::Columns, names::Names};

/// Who has no user.
pub const NO_USER: u32 = u32::MAX;

/// The figures that add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub runs: i64,
    pub completed: i64,
    pub failed: i64,
    pub aborted: i64,
    pub running: i64,
    pub records_read: i64,
    pub records_written: i64,
    pub records_failed: i64,
    pub bytes_written: i64,
    pub durations: i64,
    pub duration_sum_us: i64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.completed += other.completed;
        self.failed += other.failed;
        self.aborted += other.aborted;
        self.running += other.running;
        // Figures that publishers name may be as large as they like.
        self.records_read = self.records_read.saturating_add(other.records_read);
        self.records_written = self.records_written.saturating_add(other.records_written);
        self.records_failed = self.records_failed.saturating_add(other.records_failed);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
        self.durations += other.durations;
        self.duration_sum_us = self.duration_sum_us.saturating_add(other.duration_sum_us);
    }
}

/// One row: the runs of one job, user and level that started within one quarter of an hour.
#[derive(Debug, Clone)]
pub struct StateRow {
    /// Start of the quarter, microseconds since 1970 UTC.
    pub bucket_start_us: i64,
    pub source: u32,
    pub job: u32,
    /// Or [`NO_USER`].
    pub user: u32,
    pub is_top_level: bool,
    /// The durations are counted by bin.
    pub is_binned: bool,
    /// Where its durations are in [`StateFile::durations`].
    durations: (u32, u32),
    pub counts: Counts,
    pub revision: i64,
    pub revised_at_us: Option<i64>,
}

/// The rows of one data file.
#[derive(Debug, Default)]
pub struct StateFile {
    /// By source, then by time.
    rows: Vec<StateRow>,
    sources: Vec<(u32, Range<usize>)>,
    /// Durations in microseconds and how often each occurred.
    durations: Vec<(i64, i64)>,
}

impl StateFile {
    /// Takes over the rows of a file, giving ids to new names.
    ///
    /// # Errors
    /// When a column is missing or has another type, or a histogram does not parse.
    pub fn from_batches(batches: &[RecordBatch], names: &mut Names) -> Result<Self, ArrowError> {
        let mut file = Self::default();
        for batch in batches {
            file.add_batch(&Columns::of(batch), batch.num_rows(), names)?;
        }
        file.rows.sort_by_key(|row| (row.source, row.bucket_start_us));
        let mut start = 0;
        for rows in file.rows.chunk_by(|left, right| left.source == right.source) {
            file.sources.push((rows[0].source, start..start + rows.len()));
            start += rows.len();
        }
        Ok(file)
    }

    /// The rows of each source, oldest first.
    pub fn by_source(&self) -> impl Iterator<Item = (u32, Range<usize>)> + '_ {
        self.sources.iter().cloned()
    }

    /// All rows, by source and then by time.
    pub fn rows(&self) -> &[StateRow] {
        &self.rows
    }

    /// The durations of one of this file's rows in microseconds, each with its count.
    pub fn durations(&self, row: &StateRow) -> &[(i64, i64)] {
        &self.durations[row.durations.0 as usize..row.durations.1 as usize]
    }

    fn add_batch(&mut self, columns: &Columns<'_>, num_rows: usize, names: &mut Names) -> Result<(), ArrowError> {
        let bucket_start = columns.instants("bucket_start")?;
        let (sources, jobs) = (columns.texts("source")?, columns.texts("job")?);
        let (users, top_level) = (columns.texts("user_id")?, columns.flags("is_top_level")?);
        let number = |name| columns.numbers(name);
        let (runs, completed, failed) = (number("runs")?, number("completed")?, number("failed")?);
        let (aborted, running) = (number("aborted")?, number("running")?);
        let (read, written) = (number("records_read")?, number("records_written")?);
        let (records_failed, bytes) = (number("records_failed")?, number("bytes_written")?);
        let (durations, sums) = (number("durations")?, number("duration_sum_us")?);
        let histograms = columns.bytes("duration_histogram_us")?;
        let (revisions, revised) = (number("revision")?, columns.instants("revised_at")?);
        self.rows.reserve(num_rows);
        for at in 0..num_rows {
            let source = names.add_source(sources.get(at).unwrap_or_default());
            let from = self.durations.len();
            let is_binned = match histograms.get(at) {
                Some(bytes) => decode_into(bytes, &mut self.durations).ok_or_else(bad_histogram)?,
                None => false,
            };
            self.rows.push(StateRow {
                bucket_start_us: bucket_start.get(at).unwrap_or_default(),
                source,
                job: names.add_job(source, jobs.get(at).unwrap_or_default()),
                user: users.get(at).map_or(NO_USER, |user| names.add_user(user)),
                is_top_level: top_level.get(at).unwrap_or_default(),
                is_binned,
                durations: (from as u32, u32::try_from(self.durations.len()).map_err(|_| bad_histogram())?),
                counts: Counts {
                    runs: runs.get_or_0(at),
                    completed: completed.get_or_0(at),
                    failed: failed.get_or_0(at),
                    aborted: aborted.get_or_0(at),
                    running: running.get_or_0(at),
                    records_read: read.get_or_0(at),
                    records_written: written.get_or_0(at),
                    records_failed: records_failed.get_or_0(at),
                    bytes_written: bytes.get_or_0(at),
                    durations: durations.get_or_0(at),
                    duration_sum_us: sums.get_or_0(at),
                },
                revision: revisions.get_or_0(at),
                revised_at_us: revised.get(at),
            });
        }
        Ok(())
    }
}

fn bad_histogram() -> ArrowError {
    ArrowError::ParseError("column `duration_histogram_us` holds no histogram".to_owned())
}

/// The pairs of value and count in the stored form of a histogram, and whether it counts by bin.
#[cfg(test)]
pub(crate) fn decode_histogram(bytes: &[u8]) -> Option<(Vec<(i64, i64)>, bool)> {
    let mut values = Vec::new();
    let is_binned = decode_into(bytes, &mut values)?;
    Some((values, is_binned))
}

/// Reads `karat_schemas::histogram::Histogram::to_bytes`: a flag, then pairs of zigzag varints, the values as deltas.
fn decode_into(bytes: &[u8], values: &mut Vec<(i64, i64)>) -> Option<bool> {
    let (flag, mut rest) = bytes.split_first()?;
    let mut value = 0i64;
    while !rest.is_empty() {
        value = value.wrapping_add(read_varint(&mut rest)?);
        values.push((value, read_varint(&mut rest)?));
    }
    Some(*flag == 1)
}

fn read_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(((value >> 1) as i64) ^ -((value & 1) as i64));
        }
    }
    None
}
