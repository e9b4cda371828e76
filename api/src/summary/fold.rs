//! [`fold`]: picks the rows of a selection, orders them by cell, and gathers each cell.
//!
//! Rows are sorted by source and time in their files, so a source or a range is found by binary search and the span of
//! a row by walking along. The cost follows the rows that are picked.

use super::{Cell, Figures, Folded, GroupBy, Selection, Visible, figures::Gatherer};
use crate::snapshot::{Names, StateFile, StateRow, SummaryState};

/// Answers `selection` from the rows of one snapshot.
pub fn fold(state: &SummaryState, selection: &Selection) -> Folded {
    let filter = Filter::of(&state.names, selection);
    let mut picks = Vec::new();
    for (file_at, file) in state.files.iter().enumerate() {
        pick(file, file_at as u32, selection, &filter, &mut picks);
    }
    let groups = Groups::of(&picks, &state.names, selection.group_by);
    let picks = by_cell(picks, selection.spans.len(), &groups);
    gather(state, selection, &picks, &groups)
}

/// Up to this many cells are counted one by one (8 MB), which is several times as fast as sorting.
const MAX_COUNTED_CELLS: usize = 2 << 20;

/// Orders picks by span and then by rank of the group, keeping the order of equals.
fn by_cell(mut picks: Vec<Pick>, num_spans: usize, groups: &Groups) -> Vec<Pick> {
    let num_cells = num_spans * groups.in_order.len();
    if num_cells > MAX_COUNTED_CELLS {
        picks.sort_by_key(|pick| (pick.span, groups.rank(pick.group)));
        return picks;
    }
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
    ordered
}

#[derive(Debug, Clone, Copy, Default)]
struct Pick {
    span: u32,
    group: u32,
    file: u32,
    row: u32,
}

/// A selection in terms of ids.
struct Filter {
    source: Option<u32>,
    /// By job id; every job when absent.
    jobs: Option<Vec<bool>>,
    user: Option<Option<u32>>,
    granted: Vec<u32>,
    top_level_only: bool,
    /// A name that no row has.
    nothing: bool,
}

impl Filter {
    fn of(names: &Names, selection: &Selection) -> Self {
        let source = selection.source.as_deref().map(|name| names.find_source(name));
        let jobs = selection
            .job
            .as_deref()
            .map(|wanted| (0..names.num_jobs()).map(|id| &**names.job(id as u32).1 == wanted).collect::<Vec<_>>());
        let (user, granted) = match &selection.visible {
            Visible::All => (None, Vec::new()),
            Visible::Own { user, granted } => {
                (Some(names.find_user(user)), granted.iter().filter_map(|name| names.find_source(name)).collect())
            }
        };
        let nothing = source == Some(None);
        Self { source: source.flatten(), jobs, user, granted, top_level_only: selection.top_level_only, nothing }
    }

    fn takes_source(&self, source: u32) -> bool {
        !self.nothing && self.source.is_none_or(|wanted| wanted == source)
    }

    /// The user whose rows of `source` are seen; `None` for everybody's.
    fn only_user(&self, source: u32) -> Option<Option<u32>> {
        self.user.filter(|_| !self.granted.contains(&source))
    }

    fn takes(&self, row: &StateRow, only_user: Option<Option<u32>>) -> bool {
        self.jobs.as_ref().is_none_or(|jobs| jobs[row.job as usize])
            && (!self.top_level_only || row.is_top_level)
            && only_user.is_none_or(|user| user == Some(row.user))
    }
}

fn pick(file: &StateFile, file_at: u32, selection: &Selection, filter: &Filter, picks: &mut Vec<Pick>) {
    let (Some(first), Some(last)) = (selection.spans.first(), selection.spans.last()) else { return };
    for (source, range) in file.by_source().filter(|(source, _)| filter.takes_source(*source)) {
        let only_user = filter.only_user(source);
        let rows = &file.rows()[range.clone()];
        let begin = rows.partition_point(|row| row.bucket_start_us < first.from_us);
        let mut span = 0;
        for (at, row) in rows.iter().enumerate().skip(begin) {
            if row.bucket_start_us >= last.to_us {
                break;
            }
            while row.bucket_start_us >= selection.spans[span].to_us {
                span += 1;
            }
            if filter.takes(row, only_user) {
                let group = match selection.group_by {
                    GroupBy::Nothing => 0,
                    GroupBy::Source => row.source,
                    GroupBy::Job => row.job,
                };
                picks.push(Pick { span: span as u32, group, file: file_at, row: (range.start + at) as u32 });
            }
        }
    }
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

fn gather(state: &SummaryState, selection: &Selection, picks: &[Pick], groups: &Groups) -> Folded {
    let num_jobs = state.names.num_jobs();
    let (mut totals, mut cell) = (Gatherer::for_jobs(num_jobs), Gatherer::for_jobs(num_jobs));
    let num_groups = groups.in_order.len();
    let name = |span: usize, rank: usize, figures: Figures| {
        let (source, job) = group_names(&state.names, selection.group_by, groups.in_order[rank]);
        Cell { span, source, job, figures }
    };
    let (mut cells, mut num_cells) = (Vec::new(), 0);
    if selection.fill {
        num_cells = selection.spans.len() * num_groups;
        let page = selection.page.start.min(num_cells)..selection.page.end.min(num_cells);
        cells.extend(page.map(|at| name(at / num_groups, at % num_groups, Figures::default())));
    }
    for (ordinal, of_cell) in
        picks.chunk_by(|left, right| (left.span, left.group) == (right.span, right.group)).enumerate()
    {
        let (span, rank) = (of_cell[0].span as usize, groups.rank(of_cell[0].group) as usize);
        let position = if selection.fill { span * num_groups + rank } else { ordinal };
        let is_wanted = selection.page.contains(&position);
        for pick in of_cell {
            let file = &state.files[pick.file as usize];
            let row = &file.rows()[pick.row as usize];
            totals.add(file, row);
            if is_wanted {
                cell.add(file, row);
            }
        }
        match (is_wanted, selection.fill) {
            (false, _) => {}
            (true, true) => cells[position - selection.page.start].figures = cell.finish(),
            (true, false) => cells.push(name(span, rank, cell.finish())),
        }
        if !selection.fill {
            num_cells = ordinal + 1;
        }
    }
    Folded { cells, totals: totals.finish(), num_cells }
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
