//! Roll-ups (decision 36): the rows of each source added up to quarters of an hour, hours and UTC days.
//!
//! A range of time is added up from whole UTC days, hours where a day is cut, and quarters of an hour where an hour is:
//! a day of Berlin is 24 hours, one of Kathmandu 23 hours and four quarters, a month almost only days. Jobs, users and
//! top-level runs are no longer told apart in a roll-up, but for the last: runs with and without a parent are in series
//! of their own. Questions about one job or one user are answered from the rows instead.
//!
//! The unit is a [`RolledDay`]: one source and UTC day, never changed once built. An epoch rebuilds the hours of those in
//! which a row changed, found by comparing the data files that went with those that came, and shares all others with the
//! epoch before: its cost follows the changed rows, not the history. Nothing is subtracted, so the answers are those of
//! adding up the rows, percentiles and largest revisions included. One more series, [`ALL`], adds up all sources, so that
//! a total does not cost more with more sources.
//!
//! Memory, next to 40 bytes for a row of one run: at most 160 bytes for a source and day of a single run, less for each
//! more, and 5 to 6 bytes a run and level (quarter, hour, day) where there are many; a level that would repeat the one
//! below is left out. A year of 100 sources with a run every quarter of an hour (3.5 million rows) takes 131 MiB of rows and
//! 205 MiB of roll-ups (`summary-fold` in benches prints both). A fold costs one packed row for each day, hour and quarter
//! that it takes: 24 for a day of Berlin, 27 for one of Kathmandu, for each source or once for [`ALL`].

mod change;
mod day;
mod series;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use change::Touched;
use day::RolledDay;
use series::Series;

use super::{Names, StateFile};
use crate::tally::Tally;

/// Stands for all sources together.
pub(crate) const ALL: u32 = u32::MAX;

pub(crate) const QUARTERS_A_DAY: i64 = 96;

/// The roll-ups of one snapshot. Cheap to copy: copies share what does not change.
#[derive(Debug, Default, Clone)]
pub(crate) struct RollUps {
    /// By source, and whether the runs have no parent.
    series: BTreeMap<(u32, bool), Arc<Series>>,
}

impl RollUps {
    /// The roll-ups of `new`, when these are those of `old`.
    pub(crate) fn moved(&self, old: &[Arc<StateFile>], new: &[Arc<StateFile>], names: &Names) -> Self {
        let touched = Touched::between(old, new);
        let mut next = self.clone();
        let mut tally = Tally::default();
        let mut cells = Vec::new();
        for (at, file) in new.iter().enumerate() {
            cells_of(file, at, &touched, &mut cells);
        }
        cells.sort_unstable_by_key(|cell| (cell.source, cell.day, cell.file));
        let mut rest = &cells[..];
        for ((source, day), hours) in &touched.hours {
            let num = rest.iter().take_while(|cell| (cell.source, cell.day) == (*source, *day)).count();
            let (of_day, after) = rest.split_at(num);
            rest = after;
            next.rebuild(new, names, of_day, (*source, *day, *hours), &mut tally);
        }
        for (day, hours) in touched.hours_of_all() {
            for is_top_level in [true, false] {
                next.rebuild_all(names, day, is_top_level, hours, &mut tally);
            }
        }
        next
    }

    /// The series of a source, or of [`ALL`].
    pub(crate) fn of_source(&self, source: u32, top_level_only: bool) -> impl Iterator<Item = &Series> {
        let keys = [Some((source, true)), (!top_level_only).then_some((source, false))];
        keys.into_iter().flatten().filter_map(|key| self.series.get(&key).map(|series| &**series))
    }

    /// Every source that has a series.
    pub(crate) fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        let mut last = ALL;
        self.series
            .keys()
            .map(|(source, _)| *source)
            .filter(move |source| std::mem::replace(&mut last, *source) != *source && *source != ALL)
    }

    /// Memory of the series.
    pub(crate) fn num_bytes(&self) -> usize {
        self.series.values().map(|series| series.num_bytes()).sum()
    }

    fn rebuild(
        &mut self,
        files: &[Arc<StateFile>],
        names: &Names,
        cells: &[Cell],
        (source, day, hours): (u32, i32, u32),
        tally: &mut Tally,
    ) {
        let mut rows = Vec::new();
        for cell in cells {
            let file = &files[cell.file];
            rows.extend(cell.rows.clone().map(|row| {
                let quarter = quarter_of_day(file.quarters()[row]);
                (file.is_top_level(row), quarter, cell.file, row)
            }));
        }
        rows.retain(|(_, quarter, ..)| hours & (1 << (quarter / 4)) != 0);
        rows.sort_unstable();
        for is_top_level in [true, false] {
            let mut fill = |quarter, tally: &mut Tally| {
                let from = rows.partition_point(|row| (row.0, row.1) < (is_top_level, quarter));
                let of_quarter = rows[from..].iter().take_while(|row| (row.0, row.1) == (is_top_level, quarter));
                let mut is_any = false;
                for (_, _, file, row) in of_quarter {
                    let file = &files[*file];
                    tally.add_row(file.figures(*row), names.number_in_source(file.job(*row)));
                    is_any = true;
                }
                is_any
            };
            self.replace((source, is_top_level), day, hours, &mut fill, tally);
        }
    }

    fn rebuild_all(&mut self, names: &Names, day: i32, is_top_level: bool, hours: u32, tally: &mut Tally) {
        let of_sources: Vec<(u32, Arc<RolledDay>)> = self
            .series
            .iter()
            .filter(|((source, top), _)| *source != ALL && *top == is_top_level)
            .filter_map(|((source, _), series)| Some((*source, Arc::clone(series.day(day)?))))
            .collect();
        let mut fill = |quarter, tally: &mut Tally| {
            let mut is_any = false;
            for (source, of_source) in &of_sources {
                if let Some(row) = of_source.quarter(quarter) {
                    tally.add_packed(row, Some(names.jobs_of(*source)));
                    is_any = true;
                }
            }
            is_any
        };
        self.replace((ALL, is_top_level), day, hours, &mut fill, tally);
    }

    fn replace(
        &mut self,
        key: (u32, bool),
        day: i32,
        hours: u32,
        fill: &mut dyn FnMut(u32, &mut Tally) -> bool,
        tally: &mut Tally,
    ) {
        let old = self.series.get(&key).and_then(|series| series.day(day));
        let rebuilt = RolledDay::rebuilt(old.map(|day| &**day), hours, fill, tally);
        if rebuilt.is_none() && old.is_none() {
            return;
        }
        let series = self.series.entry(key).or_default();
        Arc::make_mut(series).set(day, rebuilt.map(Arc::new));
        if series.is_empty() {
            self.series.remove(&key);
        }
    }
}

/// The rows of a file that are of one source and day.
struct Cell {
    source: u32,
    day: i32,
    file: usize,
    rows: Range<usize>,
}

/// Finds the rows of a file that are of touched sources and days.
fn cells_of(file: &StateFile, at: usize, touched: &Touched, cells: &mut Vec<Cell>) {
    let Some((first, last)) = file.range() else { return };
    if touched.days.range(day_of(first)..=day_of(last)).next().is_none() {
        return;
    }
    for (source, of_source) in file.by_source() {
        let quarters = &file.quarters()[of_source.clone()];
        let (Some(first), Some(last)) = (quarters.first(), quarters.last()) else { continue };
        for ((_, day), _) in touched.hours.range((source, day_of(*first))..=(source, day_of(*last))) {
            let from = quarters.partition_point(|quarter| day_of(*quarter) < *day);
            let to = from + quarters[from..].partition_point(|quarter| day_of(*quarter) == *day);
            if from < to {
                cells.push(Cell { source, day: *day, file: at, rows: of_source.start + from..of_source.start + to });
            }
        }
    }
}

/// The UTC day of a quarter of an hour, both counted since 1970.
pub(super) fn day_of(quarter: i32) -> i32 {
    quarter.div_euclid(QUARTERS_A_DAY as i32)
}

/// 0 to 95.
pub(super) fn quarter_of_day(quarter: i32) -> u32 {
    quarter.rem_euclid(QUARTERS_A_DAY as i32) as u32
}

#[cfg(test)]
mod tests;
