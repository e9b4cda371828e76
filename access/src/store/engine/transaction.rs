//! Writing transactions, and what every one of them leaves behind: news for other processes and audit rows.

use sqlx::{AssertSqlSafe, MySql, Postgres, Sqlite, Transaction};
use uuid::Uuid;

use super::database::{bound, numbered};
use super::{Database, Row, Value, args};
use crate::audit::chain;
use crate::store::ChangeKind;
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

/// The most statements that go to SQLite at once. It keeps each text prepared, and there must not be too many different ones.
const BATCH: usize = 16;

/// One writing transaction. Dropped without [`Tx::commit`], it leaves no trace.
pub(crate) struct Tx {
    inner: Inner,
    /// What runs before anything else does.
    waiting: Vec<(&'static str, Vec<Value>)>,
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
        Ok(Self { inner, waiting: Vec::new(), changes: Vec::new(), events: Vec::new() })
    }

    /// Runs a statement; answers how many rows it matched.
    pub(crate) async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, AccessError> {
        self.try_execute(sql, values).await.map_err(AccessError::Store)
    }

    /// As [`Tx::execute`], with the database's own error, for callers that can tell what it means.
    pub(crate) async fn try_execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        self.run_waiting().await?;
        self.run(sql.to_owned(), values).await
    }

    /// Runs a statement of whose outcome nobody wants to know more than that it did not fail: in its place before whatever
    /// comes next, and together with its neighbours where the engine takes several at a time.
    pub(crate) fn later(&mut self, sql: &'static str, values: Vec<Value>) {
        self.waiting.push((sql, values));
    }

    /// Reads.
    pub(crate) async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, AccessError> {
        self.fetch(sql.to_owned(), values).await
    }

    /// Reads rows and keeps every other writer from them until the transaction ends. Lock users before sessions, and
    /// those before anything else, so that no two transactions wait for each other.
    pub(crate) async fn rows_locked(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, AccessError> {
        self.fetch(self.locking(sql), values).await
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
            self.add_news().await?;
        }
        self.run_waiting().await?;
        match self.inner {
            Inner::Sqlite(tx) => tx.commit().await?,
            Inner::Postgres(tx) => tx.commit().await?,
            Inner::MySql(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// The head is locked first and last of all: whoever holds it commits next.
    async fn add_news(&mut self) -> Result<(), AccessError> {
        // On a server everybody who commits waits for whoever holds the head, so nothing else is left for then. SQLite has
        // one writer anyway, and takes what waits and the news at once.
        if !self.is_sqlite() {
            self.run_waiting().await?;
        }
        let sql = self.locking("SELECT seq, hash FROM audit_head WHERE id = 1");
        let head = self.fetch_now(sql, args![]).await?.into_iter().next();
        let head = head.ok_or_else(|| AccessError::Corrupt { column: "audit_head", found: "no row".to_owned() })?;
        let (mut seq, mut hash) = (head.int("seq")?, head.text("hash")?);
        for (kind, subject) in std::mem::take(&mut self.changes) {
            let sql = "INSERT INTO access_changes (at, kind, subject_id) VALUES (?, ?, ?)";
            self.later(sql, args![now_us(), kind.name(), subject]);
        }
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            seq += 1;
            hash = self.add_audit(seq, &hash, event);
        }
        self.later("UPDATE audit_head SET seq = ?, hash = ? WHERE id = 1", args![seq, hash]);
        Ok(())
    }

    fn add_audit(&mut self, seq: i64, before: &str, event: &AuditEvent) -> String {
        let link = chain::Link::of(seq, now_us(), event);
        let hash = link.hash(before);
        let sql = "INSERT INTO audit_log (seq, at, actor_kind, actor_id, action, target_id, outcome, ip, user_agent, \
                   request_id, details, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let mut values = args![link.seq, link.at];
        values.extend(link.texts.into_iter().map(Value::Text));
        values.push(Value::from(&hash));
        self.later(sql, values);
        hash
    }

    fn is_sqlite(&self) -> bool {
        matches!(self.inner, Inner::Sqlite(_))
    }

    /// A reading statement that keeps other writers from what it reads. SQLite has one writer at a time anyway.
    fn locking(&self, sql: &str) -> String {
        let lock = if self.is_sqlite() { "" } else { " FOR UPDATE" };
        format!("{sql}{lock}")
    }

    async fn fetch(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, AccessError> {
        self.run_waiting().await?;
        self.fetch_now(sql, values).await
    }

    async fn fetch_now(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, AccessError> {
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => bound!(sql, values).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect(),
            Inner::Postgres(tx) => {
                bound!(numbered(&sql), values).fetch_all(&mut **tx).await?.into_iter().map(Row::Postgres).collect()
            }
            Inner::MySql(tx) => bound!(sql, values).fetch_all(&mut **tx).await?.into_iter().map(Row::MySql).collect(),
        })
    }

    /// Every call to SQLite goes to the thread of its connection and back, which takes longer than most statements: it gets
    /// them together, as one text whose places are filled in order. The servers take one at a time.
    async fn run_waiting(&mut self) -> Result<(), sqlx::Error> {
        let at_once = if self.is_sqlite() { BATCH } else { 1 };
        let mut waiting = std::mem::take(&mut self.waiting).into_iter().peekable();
        while waiting.peek().is_some() {
            let (texts, values): (Vec<&str>, Vec<Vec<Value>>) = waiting.by_ref().take(at_once).unzip();
            self.run(texts.join("; "), values.into_iter().flatten().collect()).await?;
        }
        Ok(())
    }

    async fn run(&mut self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => bound!(sql, values).execute(&mut **tx).await?.rows_affected(),
            Inner::Postgres(tx) => bound!(numbered(&sql), values).execute(&mut **tx).await?.rows_affected(),
            Inner::MySql(tx) => bound!(sql, values).execute(&mut **tx).await?.rows_affected(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::testing::store;

    const ADD: &str = "INSERT INTO attempts (name, failures, next_at, expires_at) VALUES (?, ?, 0, 0)";

    /// How many attempts are counted, and the smallest count.
    async fn counted(store: &Store) -> (i64, Option<i64>) {
        let sql = "SELECT count(*) AS n, min(failures) AS least FROM attempts";
        let row = store.database.row(sql, args![]).await.unwrap().unwrap();
        (row.int("n").unwrap(), row.int_or_null("least").unwrap())
    }

    #[tokio::test]
    async fn statements_for_later_run_in_their_order_and_before_what_comes_after_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let mut tx = store.database.write().await.unwrap();
        // More than go to SQLite at once.
        for n in 0..40_i64 {
            tx.later(ADD, args![format!("name {n}"), n]);
            tx.later("UPDATE attempts SET failures = failures + 100 WHERE name = ?", args![format!("name {n}")]);
        }
        let rows = tx.rows("SELECT min(failures) AS least FROM attempts", args![]).await.unwrap();
        assert_eq!(rows[0].int("least").unwrap(), 100);
        tx.later("DELETE FROM attempts WHERE name = ?", args!["name 0"]);
        assert_eq!(tx.execute("DELETE FROM attempts WHERE name = ?", args!["name 0"]).await.unwrap(), 0);
        tx.later("DELETE FROM attempts WHERE name = ?", args!["name 1"]);
        assert_eq!(counted(&store).await, (0, None), "nothing is seen before the commit");
        tx.commit().await.unwrap();
        assert_eq!(counted(&store).await, (38, Some(102)));
    }

    #[tokio::test]
    async fn a_statement_for_later_that_fails_takes_its_whole_transaction_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let mut tx = store.database.write().await.unwrap();
        tx.execute(ADD, args!["first", 1_i64]).await.unwrap();
        // The last of three that go together.
        for name in ["second", "third", "first"] {
            tx.later(ADD, args![name, 1_i64]);
        }
        assert!(matches!(tx.commit().await, Err(AccessError::Store(_))));
        assert_eq!(counted(&store).await, (0, None));
    }
}
