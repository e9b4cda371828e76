//! What the last versions of a table did, as its log tells.

use deltalake::kernel::Action;
use futures::{StreamExt, stream};

use super::{DataFile, Table};
use crate::Result;

/// Commits that are read at once.
const IN_FLIGHT: usize = 8;

/// What one version did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSummary {
    pub version: u64,
    /// When it was written, milliseconds since 1970 UTC, if its commit says so.
    pub written_at_ms: Option<i64>,
    pub files_added: u64,
    pub files_removed: u64,
    /// Rows of the files that it added: rows that were only rewritten are counted too.
    pub rows_added: u64,
}

impl Table {
    /// The last versions up to this one, newest first and at most `limit`; fewer where older commits were cleaned up.
    pub async fn history(&self, limit: u64) -> Result<Vec<VersionSummary>> {
        let oldest = (self.version + 1).saturating_sub(limit);
        let read = (oldest..=self.version).rev().map(|version| async move { (version, self.actions(version).await) });
        let mut commits = stream::iter(read).buffered(IN_FLIGHT);
        let mut summaries = Vec::new();
        while let Some((version, actions)) = commits.next().await {
            let Some(actions) = actions? else { break };
            summaries.push(summary(version, actions));
        }
        Ok(summaries)
    }
}

fn summary(version: u64, actions: Vec<Action>) -> VersionSummary {
    let mut summary = VersionSummary { version, written_at_ms: None, files_added: 0, files_removed: 0, rows_added: 0 };
    for action in actions {
        match action {
            Action::Add(add) => {
                summary.files_added += 1;
                summary.rows_added += DataFile::from(add).rows().unwrap_or(0);
            }
            Action::Remove(_) => summary.files_removed += 1,
            Action::CommitInfo(commit) => summary.written_at_ms = commit.timestamp,
            _ => {}
        }
    }
    summary
}
