//! What a caller sees of each job: decision 32 is about runs, and a job's status is made of runs.

use crate::{
    snapshot::{Names, SummaryState},
    summary::{STRIDE, Stopped, Visible, Work},
};

/// How much of a job a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    /// Some of its runs are the caller's: that the job exists and how it stands, but nothing that names a run.
    Shared,
    Whole,
}

/// For each job, what one caller sees, and of how many runs.
pub(super) struct JobsSeen<'a> {
    names: &'a Names,
    sees_all: bool,
    granted: &'a [String],
    /// By job id: runs that are seen, and whether others have runs too.
    by_job: Vec<(i64, bool)>,
}

impl<'a> JobsSeen<'a> {
    /// # Errors
    /// When `work` is stopped, or has not the memory for it.
    pub(super) fn of(state: &'a SummaryState, visible: &'a Visible, work: &Work) -> Result<Self, Stopped> {
        let names = &*state.names;
        let (sees_all, user, granted) = match visible {
            Visible::All => (true, None, &[][..]),
            Visible::Own { user, granted } => (false, names.find_user(user), &granted[..]),
        };
        let granted_ids: Vec<u32> = granted.iter().filter_map(|name| names.find_source(name)).collect();
        work.take(names.num_jobs() * size_of::<(i64, bool)>())?;
        let mut by_job = vec![(0, false); names.num_jobs()];
        for file in &state.files {
            for (source, rows) in file.by_source() {
                let sees_source = sees_all || granted_ids.contains(&source);
                for row in rows {
                    if row.is_multiple_of(STRIDE) {
                        work.check()?;
                    }
                    let (runs, has_others) = &mut by_job[file.job(row) as usize];
                    if sees_source || user == Some(file.user(row)) {
                        *runs += file.runs(row);
                    } else {
                        *has_others = true;
                    }
                }
            }
        }
        Ok(Self { names, sees_all, granted, by_job })
    }

    /// What the caller sees of this job, and of how many of its runs.
    pub(super) fn of_job(&self, source: &str, job: &str) -> (Seen, i64) {
        let id = self.names.find_source(source).and_then(|source| self.names.find_job(source, job));
        let (runs, has_others) = id.map_or((0, false), |id| self.by_job[id as usize]);
        let seen = match (self.sees_all || self.granted.iter().any(|name| name == source), runs > 0, has_others) {
            (true, _, _) | (false, true, false) => Seen::Whole,
            (false, true, true) => Seen::Shared,
            (false, false, _) => Seen::Nothing,
        };
        (seen, runs)
    }
}
