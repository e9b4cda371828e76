//! The audit log and the feed of changes that other processes read.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::{Sqlite, decode};
use crate::store::{Change, ChangeKind};
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

impl Sqlite {
    pub(in crate::store) async fn changes_after(&self, seq: i64) -> Result<Vec<Change>, AccessError> {
        let sql = "SELECT seq, at, kind, subject_id FROM access_changes WHERE seq > ? ORDER BY seq";
        let rows = sqlx::query(sql).bind(seq).fetch_all(&self.readers).await?;
        rows.iter().map(change).collect()
    }

    pub(in crate::store) async fn changes_since(&self, at: i64) -> Result<(Vec<Change>, i64), AccessError> {
        let mut transaction = self.readers.begin().await?;
        let newest: i64 =
            sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM access_changes").fetch_one(&mut *transaction).await?;
        let sql = "SELECT seq, at, kind, subject_id FROM access_changes WHERE at >= ? AND seq <= ? ORDER BY seq";
        let rows = sqlx::query(sql).bind(at).bind(newest).fetch_all(&mut *transaction).await?;
        Ok((rows.iter().map(change).collect::<Result<_, _>>()?, newest))
    }

    pub(in crate::store) async fn purge_before(&self, at: i64) -> Result<(), AccessError> {
        let mut transaction = self.write().await?;
        for sql in ["DELETE FROM sessions WHERE expires_at < ?", "DELETE FROM access_changes WHERE at < ?"] {
            sqlx::query(sql).bind(at).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(in crate::store) async fn append_audit(&self, event: &AuditEvent) -> Result<(), AccessError> {
        let mut transaction = self.write().await?;
        audit(&mut transaction, event).await?;
        Ok(transaction.commit().await?)
    }
}

pub(super) async fn audit(connection: &mut SqliteConnection, event: &AuditEvent) -> Result<(), AccessError> {
    let (actor_kind, actor_id) = event.actor.columns();
    sqlx::query(
        "INSERT INTO audit_log (at, actor_kind, actor_id, action, target_id, outcome, ip, user_agent, request_id, \
         details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(now_us())
    .bind(actor_kind)
    .bind(actor_id.map(|id| id.to_string()))
    .bind(event.action.name())
    .bind(event.target.map(|id| id.to_string()))
    .bind(event.outcome.name())
    .bind(event.origin.ip_text())
    .bind(event.origin.user_agent.as_deref())
    .bind(event.origin.request_id.as_deref())
    .bind(event.details.as_ref().map(ToString::to_string))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn announce(
    connection: &mut SqliteConnection,
    kind: ChangeKind,
    subject: Uuid,
) -> Result<(), AccessError> {
    sqlx::query("INSERT INTO access_changes (at, kind, subject_id) VALUES (?, ?, ?)")
        .bind(now_us())
        .bind(kind.name())
        .bind(subject.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

fn change(row: &SqliteRow) -> Result<Change, AccessError> {
    let kind: String = row.try_get("kind")?;
    let kind = ChangeKind::from_name(&kind)
        .ok_or_else(|| AccessError::Corrupt { column: "access_changes.kind", found: kind })?;
    Ok(Change { seq: row.try_get("seq")?, at: row.try_get("at")?, kind, subject: decode::id(row, "subject_id")? })
}
