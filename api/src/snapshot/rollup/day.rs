//! [`RolledDay`]: one UTC day of one source, at three levels.

use crate::tally::Tally;

const HOURS: u32 = 24;
const QUARTERS: u32 = 4 * HOURS;

/// The quarters, the hours and the whole of a UTC day, each packed. It has at least one quarter.
///
/// An hour of one quarter, and a day of one hour, have no row of their own: it would be the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RolledDay {
    /// Which quarters have runs, by bit.
    quarters: u128,
    /// Which hours have a row of their own.
    hours: u32,
    /// Where each row ends in `rows`: quarters, then hours, then perhaps the day.
    ends: Box<[u32]>,
    rows: Box<[u8]>,
}

#[derive(Default)]
struct Builder {
    quarters: u128,
    hours: u32,
    ends: Vec<u32>,
    rows: Vec<u8>,
}

impl RolledDay {
    /// The day after a change within `hours` (by bit): `fill` adds up one of their quarters again and says whether it has
    /// any run; everything else is taken from `old`. None when no run is left.
    pub(super) fn rebuilt(
        old: Option<&Self>,
        hours: u32,
        fill: &mut dyn FnMut(u32, &mut Tally) -> bool,
        tally: &mut Tally,
    ) -> Option<Self> {
        let mut new = Builder::default();
        for quarter in 0..QUARTERS {
            if hours & (1 << (quarter / 4)) != 0 {
                if fill(quarter, tally) {
                    new.add_quarter(quarter, |rows| tally.pack(rows));
                }
            } else if let Some(row) = old.and_then(|old| old.quarter(quarter)) {
                new.add_quarter(quarter, |rows| rows.extend_from_slice(row));
            }
        }
        let quarters = new.quarters;
        for hour in (0..HOURS).filter(|hour| quarters_of(quarters, *hour).count_ones() > 1) {
            match old.filter(|_| hours & (1 << hour) == 0).and_then(|old| old.hour(hour)) {
                Some(row) => new.rows.extend_from_slice(row),
                None => {
                    let so_far = new.view();
                    (4 * hour..4 * hour + 4)
                        .filter_map(|at| so_far.quarter(at))
                        .for_each(|row| tally.add_packed(row, None));
                    tally.pack(&mut new.rows);
                }
            }
            new.end_row();
            new.hours |= 1 << hour;
        }
        if new.view().busy_hours().count() > 1 {
            let so_far = new.view();
            so_far.busy_hours().filter_map(|hour| so_far.hour(hour)).for_each(|row| tally.add_packed(row, None));
            tally.pack(&mut new.rows);
            new.end_row();
        }
        (new.quarters != 0).then(|| new.finish())
    }

    /// Gives the rows that add up the quarters `from` to before `to`, counted from 0 to 96.
    pub(super) fn visit(&self, from: u32, to: u32, take: &mut impl FnMut(&[u8])) {
        self.view().visit(from, to, take);
    }

    /// Whether any run is within the quarters `from` to before `to`.
    pub(super) fn has_any(&self, from: u32, to: u32) -> bool {
        self.quarters & mask(from, to) != 0
    }

    pub(super) fn quarter(&self, quarter: u32) -> Option<&[u8]> {
        self.view().quarter(quarter)
    }

    pub(super) fn num_bytes(&self) -> usize {
        size_of::<Self>() + 4 * self.ends.len() + self.rows.len()
    }

    fn hour(&self, hour: u32) -> Option<&[u8]> {
        self.view().hour(hour)
    }

    fn view(&self) -> View<'_> {
        View { quarters: self.quarters, hours: self.hours, ends: &self.ends, rows: &self.rows }
    }
}

impl Builder {
    fn add_quarter(&mut self, quarter: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.quarters |= 1 << quarter;
        write(&mut self.rows);
        self.end_row();
    }

    fn end_row(&mut self) {
        // A row is at most some hundred kilobytes, and there are at most 121.
        self.ends.push(self.rows.len() as u32);
    }

    fn view(&self) -> View<'_> {
        View { quarters: self.quarters, hours: self.hours, ends: &self.ends, rows: &self.rows }
    }

    fn finish(self) -> RolledDay {
        let Self { quarters, hours, ends, rows } = self;
        RolledDay { quarters, hours, ends: ends.into(), rows: rows.into() }
    }
}

/// Finds rows, while building too.
#[derive(Clone, Copy)]
struct View<'a> {
    quarters: u128,
    hours: u32,
    ends: &'a [u32],
    rows: &'a [u8],
}

impl<'a> View<'a> {
    fn visit(self, from: u32, to: u32, take: &mut impl FnMut(&[u8])) {
        let wanted = self.quarters & mask(from, to);
        if wanted == 0 {
            return;
        }
        if wanted == self.quarters {
            self.day().into_iter().for_each(take);
            return;
        }
        let mut at = from;
        while at < to {
            let hour = at / 4;
            let end = (4 * hour + 4).min(to);
            let of_hour = quarters_of(self.quarters, hour);
            if of_hour != 0 && of_hour << (4 * hour) == self.quarters & mask(at, end) {
                self.hour(hour).into_iter().for_each(&mut *take);
            } else if of_hour != 0 {
                (at..end).filter_map(|quarter| self.quarter(quarter)).for_each(&mut *take);
            }
            at = end;
        }
    }

    fn quarter(self, quarter: u32) -> Option<&'a [u8]> {
        let is_there = self.quarters & (1 << quarter) != 0;
        is_there.then(|| self.row((self.quarters & mask(0, quarter)).count_ones() as usize))
    }

    fn hour(self, hour: u32) -> Option<&'a [u8]> {
        if self.hours & (1 << hour) != 0 {
            let before = self.hours & ((1 << hour) - 1);
            return Some(self.row((self.quarters.count_ones() + before.count_ones()) as usize));
        }
        let only = quarters_of(self.quarters, hour);
        (only != 0).then(|| self.quarter(4 * hour + only.trailing_zeros())).flatten()
    }

    fn day(self) -> Option<&'a [u8]> {
        let mut busy = self.busy_hours();
        match (busy.next(), busy.next()) {
            (Some(only), None) => self.hour(only),
            (Some(_), Some(_)) => Some(self.row(self.ends.len() - 1)),
            _ => None,
        }
    }

    fn busy_hours(self) -> impl Iterator<Item = u32> {
        (0..HOURS).filter(move |hour| quarters_of(self.quarters, *hour) != 0)
    }

    fn row(self, at: usize) -> &'a [u8] {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.rows[from as usize..self.ends[at] as usize]
    }
}

/// The four quarters of an hour, in the lowest bits.
fn quarters_of(quarters: u128, hour: u32) -> u128 {
    quarters >> (4 * hour) & 0xf
}

/// The bits from `from` to before `to`.
fn mask(from: u32, to: u32) -> u128 {
    let below = |end: u32| if end == 0 { 0 } else { u128::MAX >> (128 - end) };
    below(to) & !below(from)
}
