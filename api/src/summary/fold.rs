//! [`fold`]: takes the picks of a selection, orders them by cell, and adds up each cell.
//!
//! The cost follows the picks: rows that are taken, and days, hours and quarters of an hour of roll-ups.

use super::{
    Cell, Figures, Folded, GroupBy, STRIDE, Selection, Stopped, Work,
    pick::{Pick, Picks, ROLLED},
};
use crate::{
    snapshot::{Names, SummaryState},
    tally::Tally,
};

/// Answers `selection` from one snapshot.
///
/// # Errors
/// When `work` is stopped, or has not the memory for it.
pub fn fold(state: &SummaryState, selection: &Selection, work: &Work) -> Result<Folded, Stopped> {
    let mut picks = Picks::of(state, selection, work)?;
    let groups = Groups::of(&picks.list, &state.names, selection.group_by);
    let list = std::mem::take(&mut picks.list);
    let list = by_cell(list, selection.spans.len(), &groups, work)?;
    let adder = Adder { state, selection, picks: &picks, work };
    gather(&adder, &list, &groups)
}

/// Up to this many cells are counted one by one (8 MB), which is several times as fast as sorting.
const MAX_COUNTED_CELLS: usize = 2 << 20;

/// Orders picks by span and then by rank of the group, keeping the order of equals. The memory of the copy is in what
/// the picks took.
fn by_cell(mut picks: Vec<Pick>, num_spans: usize, groups: &Groups, work: &Work) -> Result<Vec<Pick>, Stopped> {
    work.check()?;
    let num_cells = num_spans * groups.in_order.len();
    if num_cells > MAX_COUNTED_CELLS {
        picks.sort_by_key(|pick| (pick.span, groups.rank(pick.group)));
        return Ok(picks);
    }
    work.take(num_cells * size_of::<u32>())?;
    let cell = |pick: &Pick| pick.span as usize * groups.in_order.len() + groups.rank(pick.group) as usize;
    let mut next = vec![0u32; num_cells + 1];
    picks.iter().for_each(|pick| next[cell(pick) + 1] += 1);
    for at in 1..next.len() {
        next[at] += next[at - 1];
    }
    let mut ordered = vec![Pick::default(); picks.len()];
    for pick in picks {
        let next = &mut next[cell(&pick)];
        ordered[*next as usize] = pick;
        *next += 1;
    }
    Ok(ordered)
}

/// The groups that have rows, by name.
struct Groups {
    in_order: Vec<u32>,
    ranks: Vec<u32>,
}

impl Groups {
    fn of(picks: &[Pick], names: &Names, group_by: GroupBy) -> Self {
        let mut in_order = match group_by {
            GroupBy::Nothing => vec![0],
            GroupBy::Source | GroupBy::Job => seen(picks),
        };
        match group_by {
            GroupBy::Nothing => {}
            GroupBy::Source => in_order.sort_by_key(|id| names.source(*id)),
            GroupBy::Job => in_order.sort_by_key(|id| names.job(*id)),
        }
        let mut ranks = vec![0; in_order.iter().max().map_or(0, |id| *id as usize + 1)];
        in_order.iter().enumerate().for_each(|(rank, id)| ranks[*id as usize] = rank as u32);
        Self { in_order, ranks }
    }

    fn rank(&self, group: u32) -> u32 {
        self.ranks[group as usize]
    }
}

fn seen(picks: &[Pick]) -> Vec<u32> {
    let mut is_seen = Vec::new();
    for pick in picks {
        let at = pick.group as usize;
        if is_seen.len() <= at {
            is_seen.resize(at + 1, false);
        }
        is_seen[at] = true;
    }
    is_seen.iter().enumerate().filter(|(_, seen)| **seen).map(|(id, _)| id as u32).collect()
}

/// Adds picks up.
struct Adder<'a> {
    state: &'a SummaryState,
    selection: &'a Selection,
    picks: &'a Picks,
    work: &'a Work,
}

impl Adder<'_> {
    /// Everything of a source within a range of quarters of an hour.
    fn add_rolled(&self, tally: &mut Tally, source: u32, (from, to): (i64, i64)) {
        for series in self.state.rollups.of_source(source, self.selection.top_level_only) {
            series.visit(from, to, |row| tally.add_packed(row, None));
        }
        // Jobs of roll-ups are numbered within their source.
        tally.end_jobs();
    }

    fn add_row(&self, tally: &mut Tally, pick: &Pick) {
        let file = &self.state.files[pick.file as usize];
        tally.add_row(file.figures(pick.row as usize), file.job(pick.row as usize));
    }

    /// The picks of one cell, those of roll-ups first.
    fn add_cell(&self, tally: &mut Tally, of_cell: &[Pick]) -> Result<(), Stopped> {
        let same_source =
            |left: &Pick, right: &Pick| left.file == ROLLED && (left.file, left.row) == (right.file, right.row);
        for (at, same) in of_cell.chunk_by(same_source).enumerate() {
            if at.is_multiple_of(STRIDE) {
                self.work.check()?;
            }
            match same[0].file {
                ROLLED => self.add_rolled(tally, same[0].row, self.picks.quarters[same[0].span as usize]),
                _ => self.add_row(tally, &same[0]),
            }
        }
        Ok(())
    }

    fn totals(&self, list: &[Pick]) -> Result<Figures, Stopped> {
        let mut tally = Tally::default();
        for source in &self.picks.rolled_totals {
            self.work.check()?;
            self.add_rolled(&mut tally, *source, self.picks.range());
        }
        for some in list.chunks(STRIDE) {
            self.work.check()?;
            some.iter().filter(|pick| pick.file != ROLLED).for_each(|pick| self.add_row(&mut tally, pick));
        }
        Ok(tally.finish().into())
    }
}

fn gather(adder: &Adder<'_>, list: &[Pick], groups: &Groups) -> Result<Folded, Stopped> {
    let (names, selection) = (&adder.state.names, adder.selection);
    let num_groups = groups.in_order.len();
    let name = |span: usize, rank: usize, figures: Figures| {
        let (source, job) = group_names(names, selection.group_by, groups.in_order[rank]);
        Cell { span, source, job, figures }
    };
    let (mut cells, mut num_cells) = (Vec::new(), 0);
    if selection.fill {
        num_cells = selection.spans.len() * num_groups;
        let page = selection.page.start.min(num_cells)..selection.page.end.min(num_cells);
        cells.extend(page.map(|at| name(at / num_groups, at % num_groups, Figures::default())));
    }
    let mut tally = Tally::default();
    let by_cell = list.chunk_by(|left, right| (left.span, left.group) == (right.span, right.group));
    for (ordinal, of_cell) in by_cell.enumerate() {
        let (span, rank) = (of_cell[0].span as usize, groups.rank(of_cell[0].group) as usize);
        let position = if selection.fill { span * num_groups + rank } else { ordinal };
        if selection.page.contains(&position) {
            adder.add_cell(&mut tally, of_cell)?;
            let figures = tally.finish().into();
            match selection.fill {
                true => cells[position - selection.page.start].figures = figures,
                false => cells.push(name(span, rank, figures)),
            }
        } else if ordinal.is_multiple_of(STRIDE) {
            adder.work.check()?;
        }
        if !selection.fill {
            num_cells = ordinal + 1;
        }
    }
    Ok(Folded { cells, totals: adder.totals(list)?, num_cells })
}

fn group_names(names: &Names, group_by: GroupBy, group: u32) -> (Option<String>, Option<String>) {
    match group_by {
        GroupBy::Nothing => (None, None),
        GroupBy::Source => (Some(names.source(group).to_string()), None),
        GroupBy::Job => {
            let (source, job) = names.job(group);
            (Some(source.to_string()), Some(job.to_string()))
        }
    }
}
