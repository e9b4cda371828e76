//! A histogram of whole numbers that does not depend on order and can be subtracted from.
//!
//! Up to [`EXACT_VALUES`] values answers are exact; above that each value counts in a bin of a logarithmic scale whose
//! middle is within 1 % of it (decision 4). The answers, and [`Histogram::to_bytes`], are a function of the multiset of
//! values alone: merging in any order and any grouping gives the same. The one exception is named by
//! [`Histogram::lost_exactness`]. Values themselves are kept up to [`KEPT_VALUES`], so that a bucket that shrinks a little
//! is exact again by itself.

/// Values up to which answers are exact.
pub const EXACT_VALUES: i64 = 200;

/// Values that are kept as they are, for the day when some are taken away.
pub const KEPT_VALUES: i64 = 4 * EXACT_VALUES;

/// Bins an octave: a bin is at most 1/128 of its values wide, so its middle is within 0.4 %.
const BINS_PER_OCTAVE_LOG2: u32 = 7;

/// Counts by value, or by bin once there are many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// In the order of the values or bins, each once, none with count zero.
    counts: Vec<Count>,
    total: i64,
    is_binned: bool,
}

/// A value, or the lower edge of a bin, and how often it is there.
type Count = (i64, i64);

impl Histogram {
    /// Adds `value` with `weight`: 1 for a new value, -1 to take one away.
    pub fn add(&mut self, value: i64, weight: i64) {
        self.add_all(vec![(value, weight)]);
    }

    /// Adds many values with their weights, in any order.
    pub fn add_all(&mut self, changes: Vec<(i64, i64)>) {
        let total = self.total + changes.iter().map(|change| change.1).sum::<i64>();
        if total.abs() > KEPT_VALUES {
            self.bin_all();
        }
        let changes = combined(changes, self.is_binned);
        self.put(&changes);
    }

    /// Adds every value of `other`.
    pub fn merge(&mut self, other: &Self) {
        // The sum of the counts also covers a difference that is on its way to be merged.
        if other.is_binned || (self.total + other.total).abs() > KEPT_VALUES {
            self.bin_all();
        }
        if self.is_binned && !other.is_binned {
            self.put(&combined(other.counts.clone(), true));
        } else {
            self.put(&other.counts);
        }
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

    /// Values were taken away until few enough remained to be kept, but their bins are all that is known: whoever reads the
    /// rows anyway may as well compute the group again.
    pub fn could_keep_values(&self) -> bool {
        self.is_binned && self.total <= KEPT_VALUES
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
                // Bins are in the order of their values, so the rank falls into the bin of the value that it falls on.
                return Some(if self.is_exact() { *key } else { middle(bin(*key)) });
            }
        }
        None
    }

    /// A compact, canonical form for readers: a flag, then pairs of value (delta) and count as zigzag varints.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.is_exact() || self.is_binned {
            return write(&self.counts, self.is_binned);
        }
        write(&combined(self.counts.clone(), true), true)
    }

    /// The form to go on from: as [`Self::to_bytes`], with every value that is kept.
    pub fn to_state(&self) -> Vec<u8> {
        write(&self.counts, self.is_binned)
    }

    /// Reads what [`Self::to_bytes`] or [`Self::to_state`] wrote; none when the bytes are not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flag, mut rest) = bytes.split_first()?;
        let mut histogram = Self { is_binned: *flag == 1, ..Self::default() };
        let mut value = 0i64;
        while !rest.is_empty() {
            let step = read_varint(&mut rest)?;
            value = value.wrapping_add(step);
            let count = read_varint(&mut rest)?;
            histogram.total = histogram.total.checked_add(count)?;
            histogram.counts.push((value, count));
        }
        histogram.counts.is_sorted_by(|one, next| one.0 < next.0).then_some(histogram)
    }

    fn is_exact(&self) -> bool {
        !self.is_binned && self.total <= EXACT_VALUES
    }

    /// Puts sorted counts among the counts.
    fn put(&mut self, changes: &[Count]) {
        self.total += changes.iter().map(|change| change.1).sum::<i64>();
        if let [(key, count)] = changes {
            match self.counts.binary_search_by_key(key, |known| known.0) {
                Ok(place) if self.counts[place].1 + count == 0 => drop(self.counts.remove(place)),
                Ok(place) => self.counts[place].1 += count,
                Err(place) => self.counts.insert(place, (*key, *count)),
            }
            return;
        }
        let mut merged = Vec::with_capacity(self.counts.len() + changes.len());
        let (mut left, mut right) = (self.counts.iter().peekable(), changes.iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(one), Some(other)) if one.0 == other.0 => (one.0, one.1 + other.1),
                (Some(one), Some(other)) => **if one.0 < other.0 { one } else { other },
                (Some(one), None) => **one,
                (None, Some(other)) => **other,
                (None, None) => break,
            };
            left.next_if(|one| one.0 == next.0);
            right.next_if(|other| other.0 == next.0);
            if next.1 != 0 {
                merged.push(next);
            }
        }
        self.counts = merged;
    }

    fn bin_all(&mut self) {
        if !self.is_binned {
            self.is_binned = true;
            self.counts = combined(std::mem::take(&mut self.counts), true);
        }
    }
}

/// Counts in order, each value or bin once.
fn combined(mut counts: Vec<Count>, is_binned: bool) -> Vec<Count> {
    if is_binned {
        counts.iter_mut().for_each(|count| count.0 = bin(count.0));
    }
    counts.sort_unstable_by_key(|count| count.0);
    counts.dedup_by(|next, kept| {
        let is_same = next.0 == kept.0;
        if is_same {
            kept.1 += next.1;
        }
        is_same
    });
    counts.retain(|count| count.1 != 0);
    counts
}

fn write(counts: &[Count], is_binned: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 4 * counts.len());
    bytes.push(u8::from(is_binned));
    let mut previous = 0i64;
    for (key, count) in counts {
        write_varint(&mut bytes, key.wrapping_sub(previous));
        write_varint(&mut bytes, *count);
        previous = *key;
    }
    bytes
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
        fn any_order_and_grouping_gives_the_same_bytes(mut values in prop::collection::vec(-5_000_000i64..5_000_000, 0..1200), cut in 0usize..1200) {
            let whole = of(&values).to_bytes();
            let cut = cut.min(values.len());
            let mut parts = of(&values[cut..]);
            parts.merge(&of(&values[..cut]));
            prop_assert_eq!(&parts.to_bytes(), &whole);
            values.reverse();
            prop_assert_eq!(&of(&values).to_bytes(), &whole);
        }

        #[test]
        fn state_comes_back_as_it_was_and_bytes_with_the_same_answers(values in prop::collection::vec(any::<i32>(), 0..1200), p in 0.0f64..1.0) {
            let histogram = of(&values.into_iter().map(i64::from).collect::<Vec<_>>());
            let read = Histogram::from_bytes(&histogram.to_bytes()).unwrap();
            prop_assert_eq!((read.total(), read.quantile(p)), (histogram.total(), histogram.quantile(p)));
            prop_assert_eq!(read.to_bytes(), histogram.to_bytes());
            prop_assert_eq!(Histogram::from_bytes(&histogram.to_state()), Some(histogram));
        }

        #[test]
        fn values_that_are_added_together_are_as_if_one_by_one(changes in prop::collection::vec((-500i64..500, 1i64..3), 0..500), gone in 0usize..400) {
            let mut all = changes.clone();
            all.extend(changes.iter().take(gone).map(|(value, weight)| (*value, -weight)));
            let mut together = Histogram::default();
            together.add_all(all);
            let mut kept = Histogram::default();
            changes.iter().skip(gone).for_each(|(value, weight)| kept.add(*value, *weight));
            prop_assert_eq!(together.to_bytes(), kept.to_bytes());
        }

        #[test]
        fn a_bucket_that_shrinks_a_little_is_exact_by_itself(values in prop::collection::vec(any::<i32>(), 201..800), left in 1usize..200) {
            let values: Vec<i64> = values.into_iter().map(i64::from).collect();
            let mut histogram = of(&values);
            histogram.subtract(&of(&values[left..]));
            prop_assert!(!histogram.lost_exactness());
            prop_assert_eq!(histogram.to_bytes(), of(&values[..left]).to_bytes());
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
