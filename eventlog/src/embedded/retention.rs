//! Which batches have outlived their topic's retention. Whole batches from the front go; a batch counts by the time
//! at which the log took it.

use std::time::Duration;

use super::store::BatchHead;

/// Batches looked at and dropped in one change.
pub(super) const AT_ONCE: usize = 1_000;

/// Batches from before this are dropped; `None` when the topic keeps everything.
pub(super) fn oldest_kept_us(retention: Option<Duration>, now_us: i64) -> Option<i64> {
    let keep_us = i64::try_from(retention?.as_micros()).ok()?;
    Some(now_us.saturating_sub(keep_us))
}

/// How many batches at the front are too old. Stops at the first that is kept, so offsets stay without gaps even if
/// the clock jumped.
pub(super) fn num_expired(heads: &[BatchHead], oldest_kept_us: i64) -> usize {
    heads.iter().take_while(|head| head.timestamp_us < oldest_kept_us).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(timestamps: &[i64]) -> Vec<BatchHead> {
        timestamps.iter().map(|&timestamp_us| BatchHead { base: 0, count: 1, timestamp_us }).collect()
    }

    #[test]
    fn only_the_front_expires() {
        assert_eq!(num_expired(&heads(&[1, 2, 9, 3]), 5), 2);
        assert_eq!(num_expired(&heads(&[5, 6]), 5), 0);
        assert_eq!(num_expired(&[], 5), 0);
    }

    #[test]
    fn no_retention_keeps_everything() {
        assert_eq!(oldest_kept_us(None, 100), None);
        assert_eq!(oldest_kept_us(Some(Duration::MAX), 100), None);
        assert_eq!(oldest_kept_us(Some(Duration::from_micros(30)), 100), Some(70));
    }
}
