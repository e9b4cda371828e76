//! [`Series`]: the rolled-up days of one source, in order.

use std::sync::Arc;

use super::{QUARTERS_A_DAY, day::RolledDay};

/// Days that are copied together when one of them changes.
const BLOCK: i32 = 32;

/// Copies share their blocks, so that a new epoch costs a block for each that it touches and a pointer for each other.
#[derive(Debug, Default, Clone)]
pub(crate) struct Series {
    /// By number, counted in blocks since 1970.
    blocks: Vec<(i32, Arc<Block>)>,
}

#[derive(Debug, Default, Clone)]
struct Block([Option<Arc<RolledDay>>; BLOCK as usize]);

impl Series {
    pub(super) fn day(&self, day: i32) -> Option<&Arc<RolledDay>> {
        let at = self.blocks.binary_search_by_key(&day.div_euclid(BLOCK), |(number, _)| *number).ok()?;
        self.blocks[at].1.0[day.rem_euclid(BLOCK) as usize].as_ref()
    }

    pub(super) fn set(&mut self, day: i32, rolled: Option<Arc<RolledDay>>) {
        let number = day.div_euclid(BLOCK);
        let found = self.blocks.binary_search_by_key(&number, |(number, _)| *number);
        let at = found.unwrap_or_else(|at| {
            self.blocks.insert(at, (number, Arc::default()));
            at
        });
        let block = Arc::make_mut(&mut self.blocks[at].1);
        block.0[day.rem_euclid(BLOCK) as usize] = rolled;
        if block.0.iter().all(Option::is_none) {
            self.blocks.remove(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Gives the rows that add up the quarters of an hour `from` to before `to`, counted since 1970, as few as there are.
    pub(crate) fn visit(&self, from: i64, to: i64, mut take: impl FnMut(&[u8])) {
        for (day, rolled) in self.days(from, to) {
            let (begin, end) = within(day, from, to);
            rolled.visit(begin, end, &mut take);
        }
    }

    /// Gives the position of each of `spans`, ranges of quarters in order and apart, that has any run.
    pub(crate) fn busy_spans(&self, spans: &[(i64, i64)], mut take: impl FnMut(usize)) {
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return };
        let (mut at, mut taken) = (0, None);
        for (day, rolled) in self.days(first.0, last.1) {
            let start = i64::from(day) * QUARTERS_A_DAY;
            at += spans[at..].partition_point(|span| span.1 <= start);
            let of_day = spans[at..].iter().take_while(|span| span.0 < start + QUARTERS_A_DAY).enumerate();
            for (after, span) in of_day {
                let (begin, end) = within(day, span.0, span.1);
                if taken != Some(at + after) && rolled.has_any(begin, end) {
                    taken = Some(at + after);
                    take(at + after);
                }
            }
        }
    }

    pub(super) fn num_bytes(&self) -> usize {
        let days = |block: &Block| -> usize { block.0.iter().flatten().map(|day| day.num_bytes() + 16).sum() };
        self.blocks.iter().map(|(_, block)| size_of::<Block>() + 32 + days(block)).sum()
    }

    /// The days that have runs and overlap a range of quarters.
    fn days(&self, from: i64, to: i64) -> impl Iterator<Item = (i32, &RolledDay)> {
        let day = |quarter: i64| quarter.div_euclid(QUARTERS_A_DAY);
        let (first, last) = (day(from), day(to - 1).max(day(from) - 1));
        let block = i64::from(BLOCK);
        let begin = self.blocks.partition_point(|(number, _)| i64::from(*number) < first.div_euclid(block));
        let blocks =
            self.blocks[begin..].iter().take_while(move |(number, _)| i64::from(*number) <= last.div_euclid(block));
        blocks.flat_map(move |(number, block)| {
            let start = i64::from(*number) * i64::from(BLOCK);
            let at = |day: i64| (day - start).clamp(0, i64::from(BLOCK)) as usize;
            let wanted = at(first)..at(last + 1);
            let start = number * BLOCK + wanted.start as i32;
            (start..).zip(&block.0[wanted]).filter_map(|(day, rolled)| Some((day, &**rolled.as_ref()?)))
        })
    }
}

/// The part of a range that is within a day, as quarters of the day.
fn within(day: i32, from: i64, to: i64) -> (u32, u32) {
    let start = i64::from(day) * QUARTERS_A_DAY;
    let clamp = |quarter: i64| (quarter - start).clamp(0, QUARTERS_A_DAY) as u32;
    (clamp(from), clamp(to))
}
