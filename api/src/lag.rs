//! [`Lag`]: what the log knows and the lake does not: how far it has got.

use std::collections::BTreeMap;

/// The ends of the log, as the process that holds it sees them.
///
/// Called for every answer, so it must give a value from memory and never wait.
pub trait Lag: Send + Sync + 'static {
    /// Records of the pipeline's topic after `positions`, the next offset of each partition: [`records_behind`] of its ends;
    /// `None` while they are not known.
    fn records_after(&self, pipeline: &str, positions: &BTreeMap<u32, i64>) -> Option<u64>;

    /// When the oldest record after `positions` was seen first, microseconds since 1970 UTC; `None` when there is none, or
    /// nobody knows.
    fn waiting_since_us(&self, _pipeline: &str, _positions: &BTreeMap<u32, i64>) -> Option<i64> {
        None
    }

    /// Bytes of the log after `positions`; `None` when it does not count them.
    fn bytes_after(&self, _pipeline: &str, _positions: &BTreeMap<u32, i64>) -> Option<u64> {
        None
    }
}

/// A log that is not known: nothing is ever said to be behind it.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLag;

impl Lag for NoLag {
    fn records_after(&self, _pipeline: &str, _positions: &BTreeMap<u32, i64>) -> Option<u64> {
        None
    }
}

/// Records between the positions that an epoch covers and the ends of the log.
pub fn records_behind(ends: &BTreeMap<u32, i64>, positions: &BTreeMap<u32, i64>) -> u64 {
    let behind = ends.iter().map(|(partition, end)| end - positions.get(partition).copied().unwrap_or(0));
    behind.filter_map(|records| u64::try_from(records).ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_what_the_log_has_and_the_epoch_does_not() {
        let map = |pairs: &[(u32, i64)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        assert_eq!(records_behind(&map(&[(0, 10), (1, 5), (2, 3)]), &map(&[(0, 7), (1, 5)])), 6);
        // The ends are read now and then, so the epoch may be ahead of them.
        assert_eq!(records_behind(&map(&[(0, 10)]), &map(&[(0, 12)])), 0);
    }
}
