//! A histogram of whole numbers that does not depend on order and can be subtracted from.
//!
//! Up to [`EXACT_VALUES`] values are kept as they are; above that each value counts in a bin of a logarithmic scale
//! whose middle is within 1 % of it (decision 4). The content is a function of the multiset of values alone: merging in
//! any order and any grouping gives the same bytes. The one exception is named by [`Histogram::lost_exactness`].

use std::collections::BTreeMap;

/// Values kept exactly.
pub const EXACT_VALUES: i64 = 200;

/// Bins an octave: a bin is at most 1/128 of its values wide, so its middle is within 0.4 %.
const BINS_PER_OCTAVE_LOG2: u32 = 7;

/// Counts by value, or by bin once there are many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: BTreeMap<i64, i64>,
    total: i64,
    is_binned: bool,
}

impl Histogram {
    /// Adds `value` with `weight`: 1 for a new value, -1 to take one away.
    pub fn add(&mut self, value: i64, weight: i64) {
        let key = if self.is_binned { bin(value) } else { value };
        self.change(key, weight);
        self.bin_when_many();
    }

    /// Adds every value of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.is_binned {
            self.bin_all();
        }
        for (value, count) in &other.counts {
            let key = if self.is_binned { bin(*value) } else { *value };
            self.change(key, *count);
        }
        self.bin_when_many();
    }

    /// Takes every value of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        let negated = Self {
            counts: other.counts.iter().map(|(value, count)| (*value, -count)).collect(),
            total: -other.total,
            is_binned: other.is_binned,
        };
        self.merge(&negated);
    }

    /// Number of values.
    pub fn total(&self) -> i64 {
        self.total
    }

    /// Values were taken away until few enough remained to be exact, but their bins are all that is known: the group
    /// must be computed again from its rows.
    pub fn lost_exactness(&self) -> bool {
        self.is_binned && self.total <= EXACT_VALUES
    }

    /// The value of rank ceil(p n), or the middle of its bin; none when there are no values.
    pub fn quantile(&self, p: f64) -> Option<i64> {
        if self.total <= 0 {
            return None;
        }
        let rank = ((p * self.total as f64).ceil() as i64).clamp(1, self.total);
        let mut seen = 0;
        for (key, count) in &self.counts {
            seen += count;
            if seen >= rank {
                return Some(if self.is_binned { middle(*key) } else { *key });
            }
        }
        None
    }

    /// A compact, canonical form: a flag, then pairs of value (delta) and count as zigzag varints.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_binned)];
        let mut previous = 0i64;
        for (key, count) in &self.counts {
            write_varint(&mut bytes, key.wrapping_sub(previous));
            write_varint(&mut bytes, *count);
            previous = *key;
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; none when the bytes are not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flag, mut rest) = bytes.split_first()?;
        let mut histogram = Self { is_binned: *flag == 1, ..Self::default() };
        let mut previous = 0i64;
        while !rest.is_empty() {
            previous = previous.wrapping_add(read_varint(&mut rest)?);
            histogram.change(previous, read_varint(&mut rest)?);
        }
        Some(histogram)
    }

    fn change(&mut self, key: i64, weight: i64) {
        self.total += weight;
        let count = self.counts.entry(key).or_insert(0);
        *count += weight;
        if *count == 0 {
            self.counts.remove(&key);
        }
    }

    fn bin_when_many(&mut self) {
        // The sum of the absolute counts also covers a difference that is on its way to be merged.
        if self.total.abs() > EXACT_VALUES {
            self.bin_all();
        }
    }

    fn bin_all(&mut self) {
        if self.is_binned {
            return;
        }
        self.is_binned = true;
        let exact = std::mem::take(&mut self.counts);
        self.total = 0;
        for (value, count) in exact {
            self.change(bin(value), count);
        }
    }
}

/// The lower edge of the bin that holds `value`. A bin's own edge maps to itself, so binning twice changes nothing.
fn bin(value: i64) -> i64 {
    let magnitude = value.unsigned_abs();
    let bits = u64::BITS - magnitude.leading_zeros();
    let shift = bits.saturating_sub(BINS_PER_OCTAVE_LOG2 + 1);
    let edge = i64::try_from((magnitude >> shift) << shift).unwrap_or(i64::MAX);
    if value < 0 { -edge } else { edge }
}

fn middle(edge: i64) -> i64 {
    let magnitude = edge.unsigned_abs();
    let bits = u64::BITS - magnitude.leading_zeros();
    let shift = bits.saturating_sub(BINS_PER_OCTAVE_LOG2 + 1);
    let half = if shift == 0 { 0 } else { 1i64 << (shift - 1) };
    if edge < 0 { edge.saturating_sub(half) } else { edge.saturating_add(half) }
}

fn write_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[i64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.add(*value, 1));
        histogram
    }

    #[test]
    fn few_values_give_the_value_of_rank_ceil_p_n() {
        let values: Vec<i64> = (1..=20).map(|n| n * 100).collect();
        assert_eq!(of(&values).quantile(0.95), Some(1900));
        assert_eq!(of(&[7]).quantile(0.95), Some(7));
        assert_eq!(of(&[]).quantile(0.95), None);
    }

    proptest! {
        #[test]
        fn any_order_and_grouping_gives_the_same_bytes(mut values in prop::collection::vec(-5_000_000i64..5_000_000, 0..450), cut in 0usize..450) {
            let whole = of(&values).to_bytes();
            let cut = cut.min(values.len());
            let mut parts = of(&values[cut..]);
            parts.merge(&of(&values[..cut]));
            prop_assert_eq!(&parts.to_bytes(), &whole);
            values.reverse();
            prop_assert_eq!(&of(&values).to_bytes(), &whole);
        }

        #[test]
        fn bytes_come_back_as_they_were(values in prop::collection::vec(any::<i32>(), 0..450)) {
            let histogram = of(&values.into_iter().map(i64::from).collect::<Vec<_>>());
            prop_assert_eq!(Histogram::from_bytes(&histogram.to_bytes()), Some(histogram));
        }

        #[test]
        fn many_values_give_a_quantile_within_one_percent(mut values in prop::collection::vec(0i64..100_000_000, 201..600)) {
            let found = of(&values).quantile(0.95).unwrap() as f64;
            values.sort_unstable();
            let exact = values[(0.95 * values.len() as f64).ceil() as usize - 1] as f64;
            prop_assert!((found - exact).abs() <= exact * 0.01 + 1.0, "{found} for {exact}");
        }

        #[test]
        fn taking_values_away_is_as_if_they_never_came(kept in prop::collection::vec(0i64..100_000, 201..300), gone in prop::collection::vec(0i64..100_000, 0..300)) {
            let mut histogram = of(&kept);
            histogram.merge(&of(&gone));
            histogram.subtract(&of(&gone));
            prop_assert_eq!(histogram.to_bytes(), of(&kept).to_bytes());
        }
    }
}
