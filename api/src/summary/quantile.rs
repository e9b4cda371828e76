//! Percentiles of many stored histograms at once, on flat arrays.
//!
//! It gives what merging the [`Histogram`](karat_schemas::histogram::Histogram)s would give (a test compares them):
//! the value of rank ceil(p n), exact up to 200 values, else the middle of its logarithmic bin. Flat arrays make a
//! merge an addition, where the stored form is a tree.

use karat_schemas::histogram::EXACT_VALUES;

/// Bins an octave, as stored histograms have them.
const BINS_PER_OCTAVE_LOG2: u32 = 7;
/// Bins of the positive values: the last holds `i64::MAX`.
const BINS: usize = 57 << BINS_PER_OCTAVE_LOG2;

/// A multiset of whole numbers that grows and is asked for a percentile. Reused from group to group.
#[derive(Debug, Default)]
pub(crate) struct Quantiles {
    exact: Vec<(i64, i64)>,
    /// Counts by bin, negative values below the middle; allocated when first needed.
    bins: Vec<i64>,
    touched: Option<(usize, usize)>,
    total: i64,
    is_binned: bool,
}

impl Quantiles {
    /// Adds the values of one stored histogram, each with its count.
    pub(crate) fn add(&mut self, values: &[(i64, i64)], is_binned: bool) {
        self.total += values.iter().map(|(_, count)| count).sum::<i64>();
        if !self.is_binned && (is_binned || self.total > EXACT_VALUES) {
            self.is_binned = true;
            let exact = std::mem::take(&mut self.exact);
            self.add_to_bins(&exact);
            self.exact = exact;
            self.exact.clear();
        }
        if self.is_binned { self.add_to_bins(values) } else { self.exact.extend_from_slice(values) }
    }

    /// The value of rank ceil(p n), or the middle of its bin; none without values.
    pub(crate) fn quantile(&mut self, p: f64) -> Option<i64> {
        if self.total <= 0 {
            return None;
        }
        let rank = ((p * self.total as f64).ceil() as i64).clamp(1, self.total);
        if self.is_binned {
            let (low, high) = self.touched?;
            let found = rank_of(self.bins[low..=high].iter().copied().enumerate(), rank)?;
            return Some(middle(low + found));
        }
        self.exact.sort_unstable();
        rank_of(self.exact.iter().copied(), rank)
    }

    /// Forgets every value, at the cost of what was added.
    pub(crate) fn clear(&mut self) {
        if let Some((low, high)) = self.touched.take() {
            self.bins[low..=high].fill(0);
        }
        self.exact.clear();
        (self.total, self.is_binned) = (0, false);
    }

    fn add_to_bins(&mut self, values: &[(i64, i64)]) {
        if self.bins.is_empty() {
            self.bins.resize(2 * BINS + 1, 0);
        }
        for (value, count) in values {
            let index = index(*value);
            self.bins[index] += count;
            self.touched = Some(self.touched.map_or((index, index), |(low, high)| (low.min(index), high.max(index))));
        }
    }
}

fn rank_of<T>(counts: impl Iterator<Item = (T, i64)>, rank: i64) -> Option<T> {
    let mut seen = 0;
    for (value, count) in counts {
        seen += count;
        if seen >= rank {
            return Some(value);
        }
    }
    None
}

/// Where `value` is counted: the same order as the values, the same bins as the stored form.
fn index(value: i64) -> usize {
    let magnitude = value.unsigned_abs().min(i64::MAX as u64);
    let shift = (u64::BITS - magnitude.leading_zeros()).saturating_sub(BINS_PER_OCTAVE_LOG2 + 1);
    let offset = ((shift as usize) << BINS_PER_OCTAVE_LOG2) + (magnitude >> shift) as usize;
    if value < 0 { BINS - offset } else { BINS + offset }
}

/// The value that stands for a bin.
fn middle(index: usize) -> i64 {
    let offset = index.abs_diff(BINS);
    let shift = (offset >> BINS_PER_OCTAVE_LOG2).saturating_sub(1);
    let edge = ((offset - (shift << BINS_PER_OCTAVE_LOG2)) as i64) << shift;
    let middle = if shift == 0 { edge } else { edge.saturating_add(1 << (shift - 1)) };
    if index < BINS { -middle } else { middle }
}

#[cfg(test)]
mod tests {
    use karat_schemas::histogram::Histogram;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_merged_histograms(
            parts in prop::collection::vec(prop::collection::vec(prop_oneof![0i64..300, -5000i64..5_000_000, Just(i64::MAX)], 0..260), 0..4),
            p in 0.0f64..=1.0,
        ) {
            let (mut flat, mut merged) = (Quantiles::default(), Histogram::default());
            // Twice, to see that nothing is left after `clear`.
            for _ in 0..2 {
                flat.clear();
                merged = Histogram::default();
                for part in &parts {
                    let mut histogram = Histogram::default();
                    part.iter().for_each(|value| histogram.add(*value, 1));
                    let (values, is_binned) = crate::snapshot::decode_histogram(&histogram.to_bytes()).unwrap();
                    flat.add(&values, is_binned);
                    merged.merge(&histogram);
                }
            }
            prop_assert_eq!(flat.quantile(p), merged.quantile(p));
        }
    }
}
