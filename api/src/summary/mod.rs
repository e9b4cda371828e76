//! The fold: from the slices of one snapshot to the buckets and totals of one question.
//!
//! Everything here is pure: slices and a [`Selection`] in, a [`Folded`] out, no clock and no I/O; [`Work`] bounds what
//! it takes. One stored state serves buckets of every length and zone, so they agree with each other by construction.
//! Where a question takes all runs of a source, they come from its roll-ups; else from its rows. A test compares both
//! with a count over the runs.
//!
//! Vocabulary: *finished* = completed + failed + aborted; a *cell* is one bucket of one group.

pub mod calendar;
mod figures;
mod fold;
mod pick;
mod slices;
#[cfg(test)]
mod tests;
mod work;

use std::ops::Range;

pub use figures::Figures;
pub(crate) use figures::rfc3339_utc;
pub use fold::fold;
pub(crate) use slices::Slices;
pub(crate) use work::STRIDE;
pub use work::{Stopped, Waiting, Work, WorkMemory};

use calendar::Span;

/// Which rows a caller may see (decision 32).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Visible {
    /// Everybody's.
    All,
    /// Those of one user, and of the granted sources.
    Own { user: String, granted: Vec<String> },
}

/// What the buckets are split by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum GroupBy {
    #[default]
    Nothing,
    Source,
    /// Jobs are told apart by source and name.
    Job,
}

/// One question to the fold.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The buckets, oldest first and without holes.
    pub spans: Vec<Span>,
    pub source: Option<String>,
    /// Jobs of this name, in any source that is selected.
    pub job: Option<String>,
    /// Only runs without a parent.
    pub top_level_only: bool,
    pub group_by: GroupBy,
    /// Give empty buckets too: each span for each group that has runs in the range.
    pub fill: bool,
    pub visible: Visible,
    /// The cells wanted, counted over the whole answer in its order: by time, then by name of the group.
    pub page: Range<usize>,
}

/// One cell of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Position in [`Selection::spans`].
    pub span: usize,
    pub source: Option<String>,
    pub job: Option<String>,
    pub figures: Figures,
}

/// The answer to a [`Selection`].
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// The cells of the page.
    pub cells: Vec<Cell>,
    /// Over the whole selection, whatever the page.
    pub totals: Figures,
    /// Cells on all pages.
    pub num_cells: usize,
}
