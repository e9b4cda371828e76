//! The rows of `gold.summary_state` as folds want them: columns, sorted by source and time, figures packed.
//!
//! One [`StateFile`] holds the rows of one data file. Data files never change, so it is built once and shared by every
//! snapshot that has the file. A row takes 17 bytes and its packed figures: about 40 for one run, 6 for each more.

use std::ops::Range;

use karat_lake::arrow::{array::RecordBatch, error::ArrowError};

use super::{columns::Columns, names::Names};
use crate::tally::{
    Counts, Numbers, Quantiles,
    packed::{runs, write_numbers},
};

/// Who has no user.
pub const NO_USER: u32 = u32::MAX;

/// A quarter of an hour: the length of a slice.
pub(crate) const QUARTER_US: i64 = 900_000_000;

/// The rows of one data file, by source, then by time.
#[derive(Debug, Default)]
pub struct StateFile {
    /// Starts of the slices, in quarters of an hour since 1970 UTC.
    quarters: Vec<i32>,
    jobs: Vec<u32>,
    users: Vec<u32>,
    are_top_level: Vec<bool>,
    /// Where the figures of each row end in `figures`.
    ends: Vec<u32>,
    figures: Vec<u8>,
    sources: Vec<(u32, Range<usize>)>,
    /// The earliest and the latest slice.
    range: Option<(i32, i32)>,
}

/// What tells a row of the table from every other one, in the order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowKey {
    pub(crate) source: u32,
    /// Start of the slice, in quarters of an hour since 1970 UTC.
    pub(crate) quarter: i32,
    pub(crate) job: u32,
    /// Or [`NO_USER`].
    pub(crate) user: u32,
    pub(crate) is_top_level: bool,
}

impl StateFile {
    /// Takes over the rows of a file, giving ids to new names.
    ///
    /// # Errors
    /// When a column is missing or has another type, or a histogram does not parse.
    pub fn from_batches(batches: &[RecordBatch], names: &mut Names) -> Result<Self, ArrowError> {
        let mut rows = Unsorted::default();
        for batch in batches {
            rows.add_batch(&Columns::of(batch), batch.num_rows(), names)?;
        }
        Ok(rows.sorted())
    }

    /// The rows of each source, oldest first.
    pub(crate) fn by_source(&self) -> impl Iterator<Item = (u32, Range<usize>)> + '_ {
        self.sources.iter().cloned()
    }

    pub(crate) fn num_rows(&self) -> usize {
        self.quarters.len()
    }

    /// The starts of the slices of all rows, in quarters of an hour since 1970 UTC.
    pub(crate) fn quarters(&self) -> &[i32] {
        &self.quarters
    }

    /// The starts of the earliest and the latest slice; none without rows.
    pub(crate) fn range(&self) -> Option<(i32, i32)> {
        self.range
    }

    pub(crate) fn job(&self, row: usize) -> u32 {
        self.jobs[row]
    }

    /// Or [`NO_USER`].
    pub(crate) fn user(&self, row: usize) -> u32 {
        self.users[row]
    }

    pub(crate) fn is_top_level(&self, row: usize) -> bool {
        self.are_top_level[row]
    }

    /// Number of runs of a row.
    pub(crate) fn runs(&self, row: usize) -> i64 {
        runs(self.figures(row))
    }

    /// The packed figures of a row, for [`Tally::add_row`](crate::tally::Tally::add_row).
    pub(crate) fn figures(&self, row: usize) -> &[u8] {
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.figures[from as usize..self.ends[row] as usize]
    }

    /// The key of a row of `source`.
    pub(crate) fn key(&self, source: u32, row: usize) -> RowKey {
        let (quarter, job, user) = (self.quarters[row], self.jobs[row], self.users[row]);
        RowKey { source, quarter, job, user, is_top_level: self.are_top_level[row] }
    }

    /// Memory of the rows.
    pub fn num_bytes(&self) -> usize {
        self.num_rows() * 17 + self.figures.len()
    }
}

/// Rows in the order of the data file.
#[derive(Default)]
struct Unsorted {
    keys: Vec<(RowKey, Range<u32>)>,
    figures: Vec<u8>,
}

impl Unsorted {
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
        let (mut quantiles, mut values) = (Quantiles::default(), Vec::new());
        self.keys.reserve(num_rows);
        for at in 0..num_rows {
            let source = names.add_source(sources.get(at).unwrap_or_default());
            let key = RowKey {
                source,
                quarter: quarter_of(bucket_start.get(at).unwrap_or_default()),
                job: names.add_job(source, jobs.get(at).unwrap_or_default()),
                user: users.get(at).map_or(NO_USER, |user| names.add_user(user)),
                is_top_level: top_level.get(at).unwrap_or_default(),
            };
            let counts = Counts {
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
            };
            let numbers = Numbers { counts, revision: revisions.get_or_0(at), revised_at_us: revised.get(at) };
            values.clear();
            let is_binned = match histograms.get(at) {
                Some(bytes) => decode_into(bytes, &mut values).ok_or_else(bad_histogram)?,
                None => false,
            };
            quantiles.clear();
            quantiles.add(&values, is_binned);
            let from = self.figures.len();
            write_numbers(&mut self.figures, &numbers);
            quantiles.pack(&mut self.figures);
            let to = u32::try_from(self.figures.len()).map_err(|_| too_large())?;
            self.keys.push((key, from as u32..to));
        }
        Ok(())
    }

    fn sorted(mut self) -> StateFile {
        self.keys.sort_by_key(|(key, _)| *key);
        let num_rows = self.keys.len();
        let mut file = StateFile {
            quarters: Vec::with_capacity(num_rows),
            jobs: Vec::with_capacity(num_rows),
            users: Vec::with_capacity(num_rows),
            are_top_level: Vec::with_capacity(num_rows),
            ends: Vec::with_capacity(num_rows),
            figures: Vec::with_capacity(self.figures.len()),
            sources: Vec::new(),
            range: None,
        };
        for (key, at) in &self.keys {
            file.quarters.push(key.quarter);
            file.jobs.push(key.job);
            file.users.push(key.user);
            file.are_top_level.push(key.is_top_level);
            file.figures.extend_from_slice(&self.figures[at.start as usize..at.end as usize]);
            // All of them fitted into as many bytes before.
            file.ends.push(file.figures.len() as u32);
        }
        let mut start = 0;
        for rows in self.keys.chunk_by(|left, right| left.0.source == right.0.source) {
            file.sources.push((rows[0].0.source, start..start + rows.len()));
            start += rows.len();
        }
        file.range = file.quarters.iter().min().copied().zip(file.quarters.iter().max().copied());
        file
    }
}

/// The quarter of an hour that an instant is in. Fits for 61,000 years.
fn quarter_of(us: i64) -> i32 {
    i32::try_from(us.div_euclid(QUARTER_US)).unwrap_or(if us < 0 { i32::MIN } else { i32::MAX })
}

fn bad_histogram() -> ArrowError {
    ArrowError::ParseError("column `duration_histogram_us` holds no histogram".to_owned())
}

fn too_large() -> ArrowError {
    ArrowError::ParseError(
        "a data file has more than 4 GiB of figures: compact the table with a smaller file size".to_owned(),
    )
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
