//! Writing transactions, and what every one of them leaves behind: news for other processes and audit rows.

use sqlx::{AssertSqlSafe, MySql, Postgres, Sqlite, Transaction};
use uuid::Uuid;

use super::database::{bound, numbered};
use super::{Database, Row, Value, args};
use crate::audit::chain;
use crate::store::ChangeKind;
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

/// One writing transaction. Dropped without [`Tx::commit`], it leaves no trace.
pub(crate) struct Tx {
    inner: Inner,
    changes: Vec<(ChangeKind, Uuid)>,
    events: Vec<AuditEvent>,
}

enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
    MySql(Transaction<'static, MySql>),
}

impl Tx {
    pub(super) async fn begin(database: &Database) -> Result<Self, AccessError> {
        let inner = match database {
            Database::Sqlite { writer, .. } => Inner::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Database::Postgres(pool) => Inner::Postgres(pool.begin().await?),
            Database::MySql(pool) => Inner::MySql(pool.begin().await?),
        };
        Ok(Self { inner, changes: Vec::new(), events: Vec::new() })
    }

    /// Runs a statement; answers how many rows it matched.
    pub(crate) async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, AccessError> {
        self.try_execute(sql, values).await.map_err(AccessError::Store)
    }

    /// As [`Tx::execute`], with the database's own error, for callers that can tell what it means.
    pub(crate) async fn try_execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => bound!(sql, values).execute(&mut **tx).await?.rows_affected(),
            Inner::Postgres(tx) => bound!(numbered(sql), values).execute(&mut **tx).await?.rows_affected(),
            Inner::MySql(tx) => bound!(sql, values).execute(&mut **tx).await?.rows_affected(),
        })
    }

    /// Reads.
    pub(crate) async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, AccessError> {
        self.fetch(sql.to_owned(), values).await
    }

    /// Reads rows and keeps every other writer from them until the transaction ends. Lock users before sessions, and
    /// those before anything else, so that no two transactions wait for each other.
    pub(crate) async fn rows_locked(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, AccessError> {
        // SQLite has one writer at a time anyway.
        let lock = if matches!(self.inner, Inner::Sqlite(_)) { "" } else { " FOR UPDATE" };
        self.fetch(format!("{sql}{lock}"), values).await
    }

    /// The first locked row, if there is one.
    pub(crate) async fn row_locked(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Option<Row>, AccessError> {
        Ok(self.rows_locked(sql, values).await?.into_iter().next())
    }

    /// Tells other processes of a change when the transaction commits.
    pub(crate) fn announce(&mut self, kind: ChangeKind, subject: Uuid) {
        self.changes.push((kind, subject));
    }

    /// Adds an audit row when the transaction commits.
    pub(crate) fn audit(&mut self, event: &AuditEvent) {
        self.events.push(event.clone());
    }

    /// Writes the announcements and audit rows and commits. All of it is on disk afterwards, or nothing is.
    pub(crate) async fn commit(mut self) -> Result<(), AccessError> {
        if !self.changes.is_empty() || !self.events.is_empty() {
            self.write_news().await?;
        }
        match self.inner {
            Inner::Sqlite(tx) => tx.commit().await?,
            Inner::Postgres(tx) => tx.commit().await?,
            Inner::MySql(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// The head is locked first and last of all: whoever holds it commits next.
    async fn write_news(&mut self) -> Result<(), AccessError> {
        let head = self.row_locked("SELECT seq, hash FROM audit_head WHERE id = 1", args![]).await?;
        let head = head.ok_or_else(|| AccessError::Corrupt { column: "audit_head", found: "no row".to_owned() })?;
        let (mut seq, mut hash) = (head.int("seq")?, head.text("hash")?);
        for (kind, subject) in std::mem::take(&mut self.changes) {
            let sql = "INSERT INTO access_changes (at, kind, subject_id) VALUES (?, ?, ?)";
            self.execute(sql, args![now_us(), kind.name(), subject]).await?;
        }
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            seq += 1;
            hash = self.write_audit(seq, &hash, event).await?;
        }
        self.execute("UPDATE audit_head SET seq = ?, hash = ? WHERE id = 1", args![seq, hash]).await?;
        Ok(())
    }

    async fn write_audit(&mut self, seq: i64, before: &str, event: &AuditEvent) -> Result<String, AccessError> {
        let link = chain::Link::of(seq, now_us(), event);
        let hash = link.hash(before);
        let sql = "INSERT INTO audit_log (seq, at, actor_kind, actor_id, action, target_id, outcome, ip, user_agent, \
                   request_id, details, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut values = args![link.seq, link.at];
        values.extend(link.texts.into_iter().map(Value::Text));
        values.push(Value::from(&hash));
        self.execute(sql, values).await?;
        Ok(hash)
    }

    async fn fetch(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, AccessError> {
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => bound!(sql, values).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect(),
            Inner::Postgres(tx) => {
                bound!(numbered(&sql), values).fetch_all(&mut **tx).await?.into_iter().map(Row::Postgres).collect()
            }
            Inner::MySql(tx) => bound!(sql, values).fetch_all(&mut **tx).await?.into_iter().map(Row::MySql).collect(),
        })
    }
}
