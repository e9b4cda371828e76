//! The feed of changes that other processes read, and removing what ended.

use uuid::Uuid;

use super::engine::{Row, args};
use super::{Change, ChangeKind, Store};
use crate::AccessError;

impl Store {
    /// Changes after a position, oldest first.
    pub(crate) async fn changes_after(&self, seq: i64) -> Result<Vec<Change>, AccessError> {
        let sql = "SELECT seq, kind, subject_id FROM access_changes WHERE seq > ? ORDER BY seq";
        self.database.rows(sql, args![seq]).await?.iter().map(change).collect()
    }

    /// Changes since a time, oldest first, and the newest position of all.
    pub(crate) async fn changes_since(&self, at: i64) -> Result<(Vec<Change>, i64), AccessError> {
        let newest = self.database.row("SELECT max(seq) AS newest FROM access_changes", args![]).await?;
        let newest = newest.map(|row| row.int_or_null("newest")).transpose()?.flatten().unwrap_or(0);
        // What comes in between is read again with the next look at the feed.
        let sql = "SELECT seq, kind, subject_id FROM access_changes WHERE at >= ? AND seq <= ? ORDER BY seq";
        let changes = self.database.rows(sql, args![at, newest]).await?;
        Ok((changes.iter().map(change).collect::<Result<_, _>>()?, newest))
    }

    /// Removes attempts that are forgotten by now, and sessions and codes that ended and changes that were made before a
    /// time.
    pub(crate) async fn purge_before(&self, now: i64, before: i64) -> Result<(), AccessError> {
        for (sql, at) in [
            ("DELETE FROM attempts WHERE expires_at < ?", now),
            ("DELETE FROM sessions WHERE expires_at < ?", before),
            ("DELETE FROM one_time_codes WHERE expires_at < ?", before),
            ("DELETE FROM access_changes WHERE at < ?", before),
        ] {
            // One transaction each, so that none holds several tables for long.
            let mut tx = self.database.write().await?;
            tx.execute(sql, args![at]).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

fn change(row: &Row) -> Result<Change, AccessError> {
    let (seq, kind, subject) = (row.int("seq")?, row.text("kind")?, row.text("subject_id")?);
    let what = ChangeKind::from_name(&kind).zip(Uuid::parse_str(&subject).ok());
    if what.is_none() {
        tracing::error!(seq, ?kind, ?subject, "a change by another process cannot be read; it is passed over");
    }
    Ok(Change { seq, what })
}
