//! Percentiles of measured times.
//!
//! Every measurement is kept (four bytes each), so percentiles are exact: the value of rank ceil(p n).

use std::time::Duration;

use serde::Serialize;

/// Collected times, in microseconds; the largest that is told apart is 71 minutes.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<u32>);

/// What is printed of a set of times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Latencies {
    pub fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Zeros when nothing was measured.
    pub fn percentiles(&self) -> Percentiles {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        Percentiles {
            p50_ms: at(&sorted, 50),
            p95_ms: at(&sorted, 95),
            p99_ms: at(&sorted, 99),
            max_ms: at(&sorted, 100),
        }
    }

    /// Place of the longest time, in order of measuring, from 0.
    pub fn longest_at(&self) -> Option<usize> {
        (0..self.0.len()).max_by_key(|place| self.0[*place])
    }

    /// The median of the measurements in `range`, in milliseconds.
    pub fn median_ms(&self, range: std::ops::Range<usize>) -> f64 {
        let mut sorted = self.0.get(range).unwrap_or_default().to_vec();
        sorted.sort_unstable();
        at(&sorted, 50)
    }
}

fn at(sorted: &[u32], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: impl Iterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        millis.for_each(|millis| latencies.add(Duration::from_millis(millis)));
        latencies
    }

    #[test]
    fn percentiles_are_values_of_rank_ceil_p_n() {
        let percentiles = of((1..=200).rev()).percentiles();
        let expected = Percentiles { p50_ms: 100.0, p95_ms: 190.0, p99_ms: 198.0, max_ms: 200.0 };
        assert_eq!(percentiles, expected);
        assert_eq!(of([7].into_iter()).percentiles().p99_ms, 7.0);
        assert_eq!(of([7, 9, 8].into_iter()).longest_at(), Some(1));
    }

    #[test]
    fn nothing_measured_gives_zeros() {
        assert_eq!(Latencies::default().percentiles().max_ms, 0.0);
        assert_eq!(Latencies::default().median_ms(3..9), 0.0);
    }
}
