//! [`Ends`]: where a topic of the log ends, and when it was seen to end there, so that it is known since when records wait.

use std::collections::{BTreeMap, VecDeque};

use karat_api::lag::records_behind;

/// Ends that are kept. When there are more, every second one goes: what came between them counts as a little younger.
const MOST: usize = 512;

/// The ends of one topic, next offsets by partition, for one pipeline.
#[derive(Debug, Default)]
pub struct Ends {
    /// Oldest first, with the time at which each was seen first, in microseconds since 1970 UTC. In front is the newest that
    /// the pipeline had got to.
    seen: VecDeque<(i64, BTreeMap<u32, i64>)>,
}

impl Ends {
    /// The topic ends at `ends` now, and the pipeline has got to `covered`.
    pub fn see(&mut self, ends: BTreeMap<u32, i64>, covered: &BTreeMap<u32, i64>, now_us: i64) {
        if let Some((_, last)) = self.seen.back() {
            // A log that lost its end: what waited then is gone.
            if records_behind(last, &ends) > 0 {
                self.seen.clear();
            }
        }
        if self.seen.back().is_none_or(|(_, last)| *last != ends) {
            if self.seen.len() == MOST {
                // The first two say since when something waits now.
                let mut place = 0;
                self.seen.retain(|_| {
                    place += 1;
                    place <= 2 || place % 2 == 0
                });
            }
            self.seen.push_back((now_us, ends));
        }
        while self.seen.get(1).is_some_and(|(_, next)| records_behind(next, covered) == 0) {
            self.seen.pop_front();
        }
    }

    /// Records behind `positions`; `None` before the ends are known.
    pub fn records_after(&self, positions: &BTreeMap<u32, i64>) -> Option<u64> {
        self.seen.back().map(|(_, ends)| records_behind(ends, positions))
    }

    /// When the oldest record behind `positions` was seen first; `None` when there is none, or when it was there before
    /// anybody looked.
    pub fn waiting_since_us(&self, positions: &BTreeMap<u32, i64>) -> Option<i64> {
        let (_, first) = self.seen.front()?;
        if records_behind(first, positions) > 0 {
            return None;
        }
        self.seen.iter().find(|(_, ends)| records_behind(ends, positions) > 0).map(|(at_us, _)| *at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: i64) -> BTreeMap<u32, i64> {
        BTreeMap::from([(0, next)])
    }

    #[test]
    fn a_record_after_a_quiet_day_waits_since_it_came_and_not_since_the_last_epoch() {
        let day_us = 24 * 3_600 * 1_000_000;
        let mut ends = Ends::default();
        assert_eq!((ends.records_after(&at(0)), ends.waiting_since_us(&at(0))), (None, None));
        ends.see(at(5), &at(5), 10);
        ends.see(at(5), &at(5), day_us);
        assert_eq!((ends.records_after(&at(5)), ends.waiting_since_us(&at(5))), (Some(0), None));
        ends.see(at(6), &at(5), day_us + 1);
        ends.see(at(9), &at(5), day_us + 2);
        assert_eq!((ends.records_after(&at(5)), ends.waiting_since_us(&at(5))), (Some(4), Some(day_us + 1)));
        // An epoch that covers some of what waits: the oldest of the others.
        ends.see(at(9), &at(6), day_us + 3);
        assert_eq!(ends.waiting_since_us(&at(6)), Some(day_us + 2));
        ends.see(at(9), &at(9), day_us + 4);
        assert_eq!(ends.waiting_since_us(&at(9)), None);
    }

    #[test]
    fn what_waited_before_anybody_looked_has_no_time_that_is_known() {
        let mut ends = Ends::default();
        ends.see(at(9), &at(5), 10);
        assert_eq!((ends.records_after(&at(5)), ends.waiting_since_us(&at(5))), (Some(4), None));
        ends.see(at(12), &at(9), 20);
        assert_eq!(ends.waiting_since_us(&at(9)), Some(20));
        // The pages of an older epoch.
        assert_eq!(ends.waiting_since_us(&at(5)), None);
    }

    #[test]
    fn the_ends_that_are_kept_are_bounded_and_the_oldest_that_counts_stays() {
        let mut ends = Ends::default();
        for number in 0..10_000 {
            ends.see(at(number), &at(0), number * 10);
            assert!(ends.seen.len() <= MOST);
        }
        assert_eq!(ends.waiting_since_us(&at(0)), Some(10));
    }

    #[test]
    fn a_log_that_lost_its_end_lets_nothing_wait_that_is_gone() {
        let mut ends = Ends::default();
        ends.see(at(5), &at(5), 10);
        ends.see(at(9), &at(5), 20);
        ends.see(at(5), &at(5), 30);
        ends.see(at(6), &at(5), 40);
        assert_eq!((ends.records_after(&at(5)), ends.waiting_since_us(&at(5))), (Some(1), Some(40)));
    }
}
