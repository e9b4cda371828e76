//! What runs add up to: counts, durations, distinct jobs, revision.
//!
//! A [`Tally`] takes rows in any order and grouping and always gives the same result, so that a year may be added up from
//! its days, its hours or its quarters of an hour. Rows are kept [packed](packed), about 20 bytes for a row of one run.

mod jobs;
pub(crate) mod packed;
mod quantile;

use std::ops::AddAssign;

use jobs::JobSet;
pub(crate) use quantile::Quantiles;

/// The figures that add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) runs: i64,
    pub(crate) completed: i64,
    pub(crate) failed: i64,
    pub(crate) aborted: i64,
    pub(crate) running: i64,
    pub(crate) records_read: i64,
    pub(crate) records_written: i64,
    pub(crate) records_failed: i64,
    pub(crate) bytes_written: i64,
    pub(crate) durations: i64,
    pub(crate) duration_sum_us: i64,
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

/// The numbers of one row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) counts: Counts,
    /// How often the row changed after its bucket had ended.
    pub(crate) revision: i64,
    /// When it last did, microseconds since 1970 UTC.
    pub(crate) revised_at_us: Option<i64>,
}

/// Adds rows up; reused from one result to the next, because its arrays are large.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    numbers: Numbers,
    durations: Quantiles,
    jobs: JobSet,
}

/// What a [`Tally`] came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Sum {
    pub(crate) numbers: Numbers,
    pub(crate) jobs: i64,
    pub(crate) p95_us: Option<i64>,
}

impl Tally {
    /// Adds a stored row, which is of one job; `job` is any number that tells it from the jobs added since
    /// [`Self::end_jobs`].
    pub(crate) fn add_row(&mut self, packed: &[u8], job: u32) {
        self.add_figures(packed);
        self.jobs.add(job);
    }

    /// Adds what [`Self::pack`] wrote; `names` gives each of its jobs another number.
    pub(crate) fn add_packed(&mut self, packed: &[u8], names: Option<&[u32]>) {
        let mut rest = self.add_figures(packed);
        self.jobs.add_packed(&mut rest, names);
    }

    /// Jobs added from here on are others than those before, also when their numbers are the same.
    pub(crate) fn end_jobs(&mut self) {
        self.jobs.end();
    }

    /// Writes everything that was added, and empties this.
    pub(crate) fn pack(&mut self, out: &mut Vec<u8>) {
        packed::write_numbers(out, &std::mem::take(&mut self.numbers));
        self.durations.pack(out);
        self.durations.clear();
        self.jobs.pack(out);
    }

    /// What was added; empties this.
    pub(crate) fn finish(&mut self) -> Sum {
        let p95_us = self.durations.quantile(0.95);
        self.durations.clear();
        Sum { numbers: std::mem::take(&mut self.numbers), jobs: self.jobs.finish(), p95_us }
    }

    fn add_figures<'a>(&mut self, packed: &'a [u8]) -> &'a [u8] {
        let mut rest = packed;
        let numbers = packed::read_numbers(&mut rest);
        self.numbers.counts += numbers.counts;
        self.numbers.revision = self.numbers.revision.max(numbers.revision);
        self.numbers.revised_at_us = self.numbers.revised_at_us.max(numbers.revised_at_us);
        self.durations.add_packed(&mut rest);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stored row of one run.
    fn row(records_read: i64, duration_us: i64) -> Vec<u8> {
        let counts = Counts {
            runs: 1,
            completed: 1,
            records_read,
            durations: 1,
            duration_sum_us: duration_us,
            ..Counts::default()
        };
        let mut out = Vec::new();
        packed::write_numbers(
            &mut out,
            &Numbers { counts, revision: records_read % 3, revised_at_us: (records_read > 5).then_some(records_read) },
        );
        let mut durations = Quantiles::default();
        durations.add(&[(duration_us, 1)], false);
        durations.pack(&mut out);
        out
    }

    #[test]
    fn a_sum_of_packed_sums_is_the_sum_of_the_rows() {
        // Below and above the number of values that are kept exactly.
        for num_rows in [0, 1, 7, 200, 201, 5_000] {
            let rows: Vec<_> = (0..num_rows).map(|n| (row(n, n * n % 90_001), (n % 130) as u32)).collect();
            let (mut whole, mut part, mut parts) = (Tally::default(), Tally::default(), Tally::default());
            for chunk in rows.chunks(90) {
                chunk.iter().for_each(|(row, job)| part.add_row(row, *job));
                let mut packed = Vec::new();
                part.pack(&mut packed);
                parts.add_packed(&packed, None);
            }
            rows.iter().for_each(|(row, job)| whole.add_row(row, *job));
            let sum = whole.finish();
            assert_eq!((sum.numbers.counts.runs, sum.jobs), (num_rows, num_rows.min(130)));
            assert_eq!(parts.finish(), sum, "{num_rows} rows");
            assert_eq!(part.finish(), Sum::default());
        }
    }

    #[test]
    fn jobs_are_counted_apart_after_an_end_and_by_their_other_names() {
        let (mut tally, mut packed) = (Tally::default(), Vec::new());
        [0, 1, 64].iter().for_each(|job| tally.add_row(&row(1, 1), *job));
        tally.pack(&mut packed);
        tally.add_packed(&packed, None);
        tally.end_jobs();
        tally.add_packed(&packed, None);
        assert_eq!(tally.finish().jobs, 6);
        let names: Vec<u32> = (0..65).map(|job| 1000 - job / 2).collect();
        tally.add_packed(&packed, Some(&names));
        assert_eq!(tally.finish().jobs, 2, "0 and 1 have one name");
    }
}
