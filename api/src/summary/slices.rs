//! [`Slices`]: every cell of a selection, some spans at a time, so that memory does not follow the length of the range.
//!
//! The cells are those that one fold gives, in its order. A fold that fills needs the groups of the whole range; here they
//! are learned first, in a pass of slices without cells.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use super::{Cell, Figures, GroupBy, Selection, Stopped, Waiting, Work, calendar::Span, fold};
use crate::snapshot::Snapshot;

/// Cells for which a slice is made wide enough.
const CELLS: usize = 8 * 1024;
const MAX_WIDTH: usize = 1024;

/// The source and the job of a cell.
type Group = (Option<String>, Option<String>);

/// The cells of a selection. Holds the snapshot that they are of.
pub(crate) struct Slices<W> {
    snapshot: Arc<Snapshot>,
    spans: Vec<Span>,
    /// Without its spans, unfilled.
    selection: Selection,
    fill: Fill,
    /// Gives what the next fold may use.
    work: W,
    next: usize,
    width: usize,
}

enum Fill {
    No,
    Learning(BTreeSet<Group>),
    With(Vec<Group>),
}

impl<W: FnMut() -> (Work, Waiting)> Slices<W> {
    /// All pages of `selection`.
    pub(crate) fn new(snapshot: Arc<Snapshot>, selection: Selection, work: W) -> Self {
        let fill = match (selection.fill, selection.group_by) {
            (false, _) => Fill::No,
            (true, GroupBy::Nothing) => Fill::With(vec![(None, None)]),
            (true, GroupBy::Source | GroupBy::Job) => Fill::Learning(BTreeSet::new()),
        };
        let spans = selection.spans;
        let selection = Selection { spans: Vec::new(), fill: false, page: 0..usize::MAX, ..selection };
        Self { snapshot, spans, selection, fill, work, next: 0, width: 1 }
    }

    /// The cells of the next spans, which are numbered over the whole selection.
    fn slice(&mut self) -> Result<(Range<usize>, Vec<Cell>), Stopped> {
        loop {
            let range = self.next..self.next.saturating_add(self.width).min(self.spans.len());
            let selection = Selection { spans: self.spans[range.clone()].to_vec(), ..self.selection.clone() };
            let (work, waiting) = (self.work)();
            let folded = fold(&self.snapshot.summary, &selection, &work);
            drop(waiting);
            match folded {
                // A narrower one takes less.
                Err(Stopped::MemoryIsUsedUp) if range.len() > 1 => self.width = range.len() / 2,
                Err(stopped) => return Err(stopped),
                Ok(folded) => {
                    self.next = range.end;
                    self.adapt(range.len(), folded.num_cells);
                    let first = range.start;
                    let cells = folded.cells.into_iter().map(|cell| Cell { span: cell.span + first, ..cell });
                    return Ok((range, cells.collect()));
                }
            }
        }
    }

    fn adapt(&mut self, width: usize, num_cells: usize) {
        let cells = match &self.fill {
            Fill::With(groups) => width.saturating_mul(groups.len()),
            Fill::No | Fill::Learning(_) => num_cells,
        };
        if cells > CELLS {
            self.width = (width / 2).max(1);
        } else if cells <= CELLS / 2 {
            self.width = (width * 2).min(MAX_WIDTH);
        }
    }
}

impl<W: FnMut() -> (Work, Waiting)> Iterator for Slices<W> {
    type Item = Result<Vec<Cell>, Stopped>;

    /// May give no cells although there are more to come.
    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.spans.len() {
            let Fill::Learning(groups) = &mut self.fill else { return None };
            self.fill = Fill::With(std::mem::take(groups).into_iter().collect());
            self.next = 0;
            return Some(Ok(Vec::new()));
        }
        let (range, cells) = match self.slice() {
            Ok(slice) => slice,
            Err(stopped) => {
                (self.next, self.fill) = (self.spans.len(), Fill::No);
                return Some(Err(stopped));
            }
        };
        let cells = match &mut self.fill {
            Fill::No => cells,
            Fill::Learning(groups) => {
                groups.extend(cells.into_iter().map(|cell| (cell.source, cell.job)));
                Vec::new()
            }
            Fill::With(groups) => filled(range, cells, groups),
        };
        Some(Ok(cells))
    }
}

/// A cell of each span and group, with the figures of those that are among `cells`, which are in this order.
fn filled(range: Range<usize>, cells: Vec<Cell>, groups: &[Group]) -> Vec<Cell> {
    let mut found = cells.into_iter().peekable();
    let mut all = Vec::with_capacity(range.len().saturating_mul(groups.len()));
    for span in range {
        for (source, job) in groups {
            let is_here = |cell: &Cell| cell.span == span && cell.source == *source && cell.job == *job;
            let empty = || Cell { span, source: source.clone(), job: job.clone(), figures: Figures::default() };
            all.push(found.next_if(is_here).unwrap_or_else(empty));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;
    use crate::{
        summary::{
            Visible, WorkMemory,
            calendar::{Grain, spans},
            tests::state_of,
        },
        testing::Run,
    };

    const HOUR_US: i64 = 3_600_000_000;

    fn snapshot() -> Arc<Snapshot> {
        let runs: Vec<Run> = (0..300)
            .map(|n: i64| Run {
                id: n.to_string(),
                source: format!("s{}", n % 7),
                job: format!("j{}", n % 3),
                status: "completed".to_owned(),
                started_at_us: n * n * HOUR_US / 9,
                ..Run::default()
            })
            .collect();
        Arc::new(Snapshot { summary: state_of(&runs, 3), ..Snapshot::default() })
    }

    fn selection(group_by: GroupBy, fill: bool) -> Selection {
        Selection {
            spans: spans(Tz::UTC, "1970-01-01".parse().unwrap(), "1971-06-30".parse().unwrap(), Grain::Day),
            source: None,
            job: None,
            top_level_only: false,
            group_by,
            fill,
            visible: Visible::All,
            page: 0..usize::MAX,
        }
    }

    #[test]
    fn slices_together_are_what_one_fold_gives() {
        let snapshot = snapshot();
        for group_by in [GroupBy::Nothing, GroupBy::Source, GroupBy::Job] {
            for fill in [false, true] {
                let selection = selection(group_by, fill);
                let whole = fold(&snapshot.summary, &selection, &Work::unbounded()).unwrap().cells;
                let memory = WorkMemory::of_bytes(64 << 20);
                let slices = Slices::new(Arc::clone(&snapshot), selection, || Work::within(&memory));
                let slices: Vec<Vec<Cell>> = slices.map(Result::unwrap).collect();
                assert!(slices.len() > 3, "{group_by:?} {fill}");
                assert_eq!(slices.concat(), whole, "{group_by:?} {fill}");
            }
        }
    }

    #[test]
    fn without_memory_for_one_span_there_is_an_end_and_an_error() {
        let memory = WorkMemory::of_bytes(1000);
        let found: Vec<_> = Slices::new(snapshot(), selection(GroupBy::Job, true), || Work::within(&memory)).collect();
        assert!(found[..found.len() - 1].iter().all(Result::is_ok));
        assert_eq!(found.last().unwrap().as_ref().unwrap_err(), &Stopped::MemoryIsUsedUp);
    }
}
