//! Percentiles of many stored histograms at once, on flat arrays.
//!
//! It gives what merging the [`Histogram`](karat_schemas::histogram::Histogram)s would give (a test compares them):
//! the value of rank ceil(p n), exact up to 200 values, else the middle of its logarithmic bin. Flat arrays make a
//! merge an addition, where the stored form is a tree.
//!
//! Packed, few values are pairs of value and count, and many are bins: pairs too where bins are sparse, else an array of
//! counts as narrow as they allow, which is added at the speed of memory.

use karat_schemas::histogram::EXACT_VALUES;

use super::packed::{read, read_signed, take, write, write_signed};

/// Bins an octave, as stored histograms have them.
const BINS_PER_OCTAVE_LOG2: u32 = 7;
/// Bins of the positive values: the last holds `i64::MAX`.
const BINS: usize = 57 << BINS_PER_OCTAVE_LOG2;

/// The packed forms, by their first byte. A dense one has the width of a count, as a power of two, added to it.
const EMPTY: u8 = 0;
const EXACT: u8 = 1;
const SPARSE: u8 = 2;
const DENSE: u8 = 3;
/// An array is chosen up to so many times the bytes of pairs, since it is added many times as fast.
const DENSE_MAY_COST: usize = 2;

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
        self.grow(values.iter().map(|(_, count)| count).sum(), is_binned);
        if self.is_binned {
            values.iter().for_each(|(value, count)| self.add_to_bin(index(*value), *count));
        } else {
            self.exact.extend_from_slice(values);
        }
    }

    /// Adds what [`Self::pack`] wrote, and moves `bytes` behind it.
    pub(super) fn add_packed(&mut self, bytes: &mut &[u8]) {
        let form = take(bytes);
        if form == EMPTY {
            return;
        }
        self.grow(read(bytes) as i64, form != EXACT);
        match form {
            EXACT => self.add_exact(bytes),
            SPARSE => self.add_sparse(bytes),
            _ => self.add_dense(form - DENSE, bytes),
        }
    }

    /// Writes every value. The order in which they were added does not show.
    pub(crate) fn pack(&mut self, out: &mut Vec<u8>) {
        match self.touched {
            None if self.exact.is_empty() => out.push(EMPTY),
            None => self.pack_exact(out),
            Some((low, high)) => self.pack_bins(low, high, out),
        }
    }

    /// The value of rank ceil(p n), or the middle of its bin; none without values.
    pub(crate) fn quantile(&mut self, p: f64) -> Option<i64> {
        if self.total <= 0 {
            return None;
        }
        let rank = ((p * self.total as f64).ceil() as i64).clamp(1, self.total);
        // Counted from above, because the percentiles that are asked for are high.
        let rank_from_above = self.total - rank + 1;
        if self.is_binned {
            let (low, high) = self.touched?;
            let found = rank_of(self.bins[low..=high].iter().copied().enumerate().rev(), rank_from_above)?;
            return Some(middle(low + found));
        }
        self.exact.sort_unstable();
        rank_of(self.exact.iter().rev().copied(), rank_from_above)
    }

    /// Forgets every value, at the cost of what was added.
    pub(crate) fn clear(&mut self) {
        if let Some((low, high)) = self.touched.take() {
            self.bins[low..=high].fill(0);
        }
        self.exact.clear();
        (self.total, self.is_binned) = (0, false);
    }

    /// Makes ready for `count` more values.
    fn grow(&mut self, count: i64, is_binned: bool) {
        self.total += count;
        if !self.is_binned && (is_binned || self.total > EXACT_VALUES) {
            self.is_binned = true;
            let exact = std::mem::take(&mut self.exact);
            exact.iter().for_each(|(value, count)| self.add_to_bin(index(*value), *count));
            self.exact = exact;
            self.exact.clear();
        }
    }

    fn add_to_bin(&mut self, bin: usize, count: i64) {
        self.touch(bin, bin);
        self.bins[bin] += count;
    }

    fn touch(&mut self, from: usize, to: usize) {
        if self.bins.is_empty() {
            self.bins.resize(2 * BINS + 1, 0);
        }
        self.touched = Some(self.touched.map_or((from, to), |(low, high)| (low.min(from), high.max(to))));
    }

    fn add_exact(&mut self, bytes: &mut &[u8]) {
        let mut value = 0i64;
        for _ in 0..read(bytes) {
            value = value.wrapping_add(read_signed(bytes));
            let count = read(bytes) as i64;
            if self.is_binned {
                self.add_to_bin(index(value), count);
            } else {
                self.exact.push((value, count));
            }
        }
    }

    fn add_sparse(&mut self, bytes: &mut &[u8]) {
        let mut bin = 0;
        for _ in 0..read(bytes) {
            bin += read(bytes) as usize;
            self.add_to_bin(bin.min(2 * BINS), read(bytes) as i64);
        }
    }

    fn add_dense(&mut self, width_log2: u8, bytes: &mut &[u8]) {
        let (low, num) = (read(bytes) as usize, read(bytes) as usize);
        let Some((counts, rest)) = bytes.split_at_checked(num << width_log2) else { return };
        *bytes = rest;
        if num == 0 || low + num > 2 * BINS + 1 {
            return;
        }
        self.touch(low, low + num - 1);
        let bins = &mut self.bins[low..low + num];
        match width_log2 {
            0 => bins.iter_mut().zip(counts).for_each(|(bin, count)| *bin += i64::from(*count)),
            1 => add_wide(bins, counts, |count| i64::from(u16::from_le_bytes(count))),
            2 => add_wide(bins, counts, |count| i64::from(u32::from_le_bytes(count))),
            _ => add_wide(bins, counts, i64::from_le_bytes),
        }
    }

    fn pack_exact(&mut self, out: &mut Vec<u8>) {
        self.exact.sort_unstable();
        let distinct = || self.exact.chunk_by(|left, right| left.0 == right.0);
        out.push(EXACT);
        write(out, self.total as u64);
        write(out, distinct().count() as u64);
        let mut previous = 0i64;
        for same in distinct() {
            write_signed(out, same[0].0.wrapping_sub(previous));
            write(out, same.iter().map(|(_, count)| count).sum::<i64>() as u64);
            previous = same[0].0;
        }
    }

    fn pack_bins(&self, low: usize, high: usize, out: &mut Vec<u8>) {
        let bins = &self.bins[low..=high];
        let largest = bins.iter().map(|count| *count as u64).max().unwrap_or_default();
        let width_log2 = match largest {
            0..=0xff => 0,
            0x100..=0xffff => 1,
            0x1_0000..=0xffff_ffff => 2,
            _ => 3,
        };
        let num_used = bins.iter().filter(|count| **count != 0).count();
        let is_dense = bins.len() << width_log2 <= DENSE_MAY_COST * 2 * num_used;
        out.push(if is_dense { DENSE + width_log2 } else { SPARSE });
        write(out, self.total as u64);
        if is_dense {
            write(out, low as u64);
            write(out, bins.len() as u64);
            bins.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()[..1 << width_log2]));
            return;
        }
        write(out, num_used as u64);
        let mut previous = 0;
        for (at, count) in bins.iter().enumerate().filter(|(_, count)| **count != 0) {
            write(out, (low + at - previous) as u64);
            write(out, *count as u64);
            previous = low + at;
        }
    }
}

fn add_wide<const N: usize>(bins: &mut [i64], counts: &[u8], number: impl Fn([u8; N]) -> i64) {
    let (counts, _) = counts.as_chunks::<N>();
    bins.iter_mut().zip(counts).for_each(|(bin, count)| *bin += number(*count));
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

    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![0i64..300, 1_000_000i64..1_100_000, -5000i64..5_000_000, Just(i64::MAX)]
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_merged_histograms_packed_or_not(
            parts in prop::collection::vec(prop::collection::vec(value(), 0..400), 0..5),
            repeats in 1..2000i64,
            p in 0.0f64..=1.0,
        ) {
            let (mut flat, mut packed, mut merged) = (Quantiles::default(), Quantiles::default(), Histogram::default());
            let mut part_of = Quantiles::default();
            // Twice, to see that nothing is left after `clear`.
            for _ in 0..2 {
                flat.clear();
                packed.clear();
                merged = Histogram::default();
                for part in &parts {
                    let mut histogram = Histogram::default();
                    part.iter().for_each(|value| histogram.add(*value, 1 + value.rem_euclid(2) * repeats));
                    let (values, is_binned) = crate::snapshot::decode_histogram(&histogram.to_bytes()).unwrap();
                    flat.add(&values, is_binned);
                    part_of.clear();
                    part_of.add(&values, is_binned);
                    let mut bytes = Vec::new();
                    part_of.pack(&mut bytes);
                    bytes.push(9);
                    let mut rest = &bytes[..];
                    packed.add_packed(&mut rest);
                    prop_assert_eq!(rest, &[9u8][..]);
                    merged.merge(&histogram);
                }
            }
            prop_assert_eq!(flat.quantile(p), merged.quantile(p));
            prop_assert_eq!(packed.quantile(p), merged.quantile(p));
            let (mut left, mut right) = (Vec::new(), Vec::new());
            flat.pack(&mut left);
            packed.pack(&mut right);
            prop_assert_eq!(left, right, "equal values have equal bytes");
        }
    }
}
