//! Picks: what of a snapshot a question is answered from.
//!
//! A pick is a row, or everything of one source within one span, which its roll-ups add up. Which of the two is decided
//! for each source: roll-ups, unless the question tells its jobs or its users apart.

use super::{GroupBy, STRIDE, Selection, Stopped, Visible, Work, calendar::Span};
use crate::snapshot::{ALL, Names, QUARTER_US, StateFile, SummaryState};

/// [`Pick::file`] of a source that is taken from its roll-ups, whose id is in [`Pick::row`].
pub(super) const ROLLED: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pick {
    pub(super) span: u32,
    pub(super) group: u32,
    pub(super) file: u32,
    pub(super) row: u32,
}

/// What a question takes, by span and group.
pub(super) struct Picks {
    pub(super) list: Vec<Pick>,
    /// Sources whose roll-ups over the whole range are in the totals, beside the rows that were picked.
    pub(super) rolled_totals: Vec<u32>,
    /// The spans, as ranges of quarters of an hour since 1970.
    pub(super) quarters: Vec<(i64, i64)>,
}

impl Picks {
    pub(super) fn of(state: &SummaryState, selection: &Selection, work: &Work) -> Result<Self, Stopped> {
        let filter = Filter::of(&state.names, selection);
        let quarters = selection.spans.iter().map(quarters_of).collect();
        let mut picks = Self { list: Vec::new(), rolled_totals: Vec::new(), quarters };
        picks.add_rolled(state, selection, &filter, work)?;
        if !filter.rolls_all() {
            for (at, file) in state.files.iter().enumerate() {
                picks.add_rows(file, at as u32, selection, &filter, work)?;
            }
        }
        Ok(picks)
    }

    /// The first and the last quarter of an hour of the whole range.
    pub(super) fn range(&self) -> (i64, i64) {
        self.quarters.first().zip(self.quarters.last()).map_or((0, 0), |(first, last)| (first.0, last.1))
    }

    fn add_rolled(
        &mut self,
        state: &SummaryState,
        selection: &Selection,
        filter: &Filter,
        work: &Work,
    ) -> Result<(), Stopped> {
        let is_all = filter.rolls_all() && filter.source.is_none() && !filter.nothing;
        let mut rolled: Vec<u32> =
            state.rollups.sources().filter(|id| filter.takes_source(*id) && filter.rolls(*id)).collect();
        self.rolled_totals = if is_all { vec![ALL] } else { rolled.clone() };
        if is_all && selection.group_by == GroupBy::Nothing {
            rolled = vec![ALL];
        }
        for source in rolled {
            let group = if selection.group_by == GroupBy::Nothing { 0 } else { source };
            work.check()?;
            for series in state.rollups.of_source(source, selection.top_level_only) {
                let mut pushed = Ok(());
                // A span that both series have is picked twice, and gathered once.
                series.busy_spans(&self.quarters, |span| {
                    if pushed.is_ok() {
                        let pick = Pick { span: span as u32, group, file: ROLLED, row: source };
                        pushed = push(&mut self.list, pick, work);
                    }
                });
                pushed?;
            }
        }
        Ok(())
    }

    fn add_rows(
        &mut self,
        file: &StateFile,
        file_at: u32,
        selection: &Selection,
        filter: &Filter,
        work: &Work,
    ) -> Result<(), Stopped> {
        let (first, last) = self.range();
        for (source, range) in file.by_source().filter(|(id, _)| filter.takes_source(*id) && !filter.rolls(*id)) {
            let only_user = filter.only_user(source);
            let quarters = &file.quarters()[range.clone()];
            let begin = quarters.partition_point(|quarter| i64::from(*quarter) < first);
            let mut span = 0;
            for (at, quarter) in quarters.iter().enumerate().skip(begin) {
                if i64::from(*quarter) >= last {
                    break;
                }
                if at.is_multiple_of(STRIDE) {
                    work.check()?;
                }
                while i64::from(*quarter) >= self.quarters[span].1 {
                    span += 1;
                }
                let row = range.start + at;
                if filter.takes(file, row, only_user) {
                    let group = match selection.group_by {
                        GroupBy::Nothing => 0,
                        GroupBy::Source => source,
                        GroupBy::Job => file.job(row),
                    };
                    let pick = Pick { span: span as u32, group, file: file_at, row: row as u32 };
                    push(&mut self.list, pick, work)?;
                }
            }
        }
        Ok(())
    }
}

/// Adds a pick. Memory is taken twice: a list that grows is copied, and so is one that is put in order.
fn push(list: &mut Vec<Pick>, pick: Pick, work: &Work) -> Result<(), Stopped> {
    const FIRST: usize = 4096;
    if list.len() == list.capacity() {
        work.check()?;
        let more = list.len().max(FIRST);
        work.take(2 * more * size_of::<Pick>())?;
        list.reserve_exact(more);
    }
    list.push(pick);
    Ok(())
}

/// Slices count by their start.
fn quarters_of(span: &Span) -> (i64, i64) {
    let first_from = |us: i64| us.div_euclid(QUARTER_US) + i64::from(us.rem_euclid(QUARTER_US) > 0);
    (first_from(span.from_us), first_from(span.to_us))
}

/// A selection in terms of ids.
struct Filter {
    source: Option<u32>,
    /// By job id; every job when absent.
    jobs: Option<Vec<bool>>,
    user: Option<Option<u32>>,
    granted: Vec<u32>,
    top_level_only: bool,
    tells_jobs_apart: bool,
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
        Self {
            source: source.flatten(),
            tells_jobs_apart: jobs.is_some() || selection.group_by == GroupBy::Job,
            jobs,
            user,
            granted,
            top_level_only: selection.top_level_only,
            nothing: source == Some(None),
        }
    }

    fn takes_source(&self, source: u32) -> bool {
        !self.nothing && self.source.is_none_or(|wanted| wanted == source)
    }

    /// Whether the roll-ups of a source have what is asked of it.
    fn rolls(&self, source: u32) -> bool {
        !self.tells_jobs_apart && self.only_user(source).is_none()
    }

    fn rolls_all(&self) -> bool {
        !self.tells_jobs_apart && self.user.is_none()
    }

    /// The user whose rows of `source` are seen; `None` for everybody's.
    fn only_user(&self, source: u32) -> Option<Option<u32>> {
        self.user.filter(|_| !self.granted.contains(&source))
    }

    fn takes(&self, file: &StateFile, row: usize, only_user: Option<Option<u32>>) -> bool {
        self.jobs.as_ref().is_none_or(|jobs| jobs[file.job(row) as usize])
            && (!self.top_level_only || file.is_top_level(row))
            && only_user.is_none_or(|user| user == Some(file.user(row)))
    }
}
