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

    /// Removes attempts that are forgotten by now, codes of nobody that are over, and sessions and codes that ended and
    /// changes that were made before a time.
    pub(crate) async fn purge_before(&self, now: i64, before: i64) -> Result<(), AccessError> {
        for (sql, at) in [
            ("DELETE FROM attempts WHERE expires_at < ?", now),
            // Anybody has them made, and they are in nobody's copy of the own data.
            ("DELETE FROM one_time_codes WHERE user_id IS NULL AND expires_at < ?", now),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::{PASSKEY_LOGIN, RESET};
    use crate::store::NewCodeRow;
    use crate::store::testing::{USER, store};

    #[tokio::test]
    async fn codes_of_nobody_go_when_they_are_over_and_those_of_somebody_are_kept_until_later() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let somebody: Uuid = USER.parse().unwrap();
        let codes = [
            ("over", PASSKEY_LOGIN, None, 10),
            ("open", PASSKEY_LOGIN, None, 1_000),
            ("of somebody", RESET, Some(somebody), 10),
        ];
        for (name, purpose, user, expires_at) in codes {
            let (address, code_hash) = (name.to_owned(), name.to_owned());
            let row = NewCodeRow { id: Uuid::now_v7(), purpose, user, address, code_hash, tries: 1, at: 1, expires_at };
            store.create_code(&row).await.unwrap();
        }
        let left = async || {
            let sql = "SELECT address FROM one_time_codes ORDER BY address";
            let rows = store.database.rows(sql, args![]).await.unwrap();
            rows.iter().map(|row| row.text("address").unwrap()).collect::<Vec<_>>()
        };
        store.purge_before(100, 5).await.unwrap();
        assert_eq!(left().await, ["of somebody", "open"]);
        store.purge_before(100, 50).await.unwrap();
        assert_eq!(left().await, ["open"]);
    }
}
