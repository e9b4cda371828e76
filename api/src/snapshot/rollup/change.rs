//! [`Touched`]: which hours of which sources differ between two sets of data files.

use std::{cmp::Ordering, collections::HashSet, sync::Arc};

use super::{BTreeMap, BTreeSet, day_of, quarter_of_day};
use crate::snapshot::{StateFile, state::RowKey};

/// The hours in which a row came, went or changed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// By source and UTC day, its hours by bit.
    pub(super) hours: BTreeMap<(u32, i32), u32>,
    pub(super) days: BTreeSet<i32>,
}

impl Touched {
    /// Compares the rows of the files that only one side has.
    pub(super) fn between(old: &[Arc<StateFile>], new: &[Arc<StateFile>]) -> Self {
        let identities = |files: &[Arc<StateFile>]| files.iter().map(Arc::as_ptr).collect::<HashSet<_>>();
        let (in_old, in_new) = (identities(old), identities(new));
        let gone: Vec<&StateFile> =
            old.iter().filter(|file| !in_new.contains(&Arc::as_ptr(file))).map(|file| &**file).collect();
        let came: Vec<&StateFile> =
            new.iter().filter(|file| !in_old.contains(&Arc::as_ptr(file))).map(|file| &**file).collect();
        let mut touched = Self::default();
        match (gone.is_empty(), came.is_empty()) {
            (true, _) => came.iter().for_each(|file| touched.add_file(file)),
            (_, true) => gone.iter().for_each(|file| touched.add_file(file)),
            _ => touched.compare(&rows_of(&gone), &rows_of(&came)),
        }
        touched.days = touched.hours.keys().map(|(_, day)| *day).collect();
        touched
    }

    /// By UTC day, the hours that are touched in any source.
    pub(super) fn hours_of_all(&self) -> BTreeMap<i32, u32> {
        let mut of_all = BTreeMap::new();
        for ((_, day), hours) in &self.hours {
            *of_all.entry(*day).or_insert(0) |= hours;
        }
        of_all
    }

    fn add_file(&mut self, file: &StateFile) {
        for (source, rows) in file.by_source() {
            for of_day in file.quarters()[rows].chunk_by(|left, right| day_of(*left) == day_of(*right)) {
                let hours = of_day.iter().fold(0, |hours, quarter| hours | 1 << (quarter_of_day(*quarter) / 4));
                *self.hours.entry((source, day_of(of_day[0]))).or_insert(0) |= hours;
            }
        }
    }

    fn add(&mut self, key: &RowKey) {
        *self.hours.entry((key.source, day_of(key.quarter))).or_insert(0) |= 1 << (quarter_of_day(key.quarter) / 4);
    }

    /// Both are in order of their keys, which are unique in a table.
    fn compare(&mut self, mut gone: &[(RowKey, &[u8])], mut came: &[(RowKey, &[u8])]) {
        loop {
            let order = match (gone.first(), came.first()) {
                (Some(left), Some(right)) => left.0.cmp(&right.0),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return,
            };
            match order {
                Ordering::Less => self.add(&gone[0].0),
                Ordering::Greater => self.add(&came[0].0),
                Ordering::Equal if gone[0].1 != came[0].1 => self.add(&came[0].0),
                Ordering::Equal => {}
            }
            gone = &gone[usize::from(order != Ordering::Greater)..];
            came = &came[usize::from(order != Ordering::Less)..];
        }
    }
}

fn rows_of<'a>(files: &[&'a StateFile]) -> Vec<(RowKey, &'a [u8])> {
    let mut rows = Vec::with_capacity(files.iter().map(|file| file.num_rows()).sum());
    for file in files {
        for (source, of_source) in file.by_source() {
            rows.extend(of_source.map(|row| (file.key(source, row), file.figures(row))));
        }
    }
    // A stable sort: the rows of each file are in order already, and it makes use of that.
    rows.sort_by_key(|row| row.0);
    rows
}
