//! The audit log: adding a row by itself, reading, checking the chain.

use super::Store;
use super::engine::{Row, args};
use crate::audit::chain::{Link, TEXTS};
use crate::audit::{AuditFilter, AuditRow, ChainBreak, ChainReport};
use crate::fields::is_plain;
use crate::{AccessError, AuditEvent};

/// Rows read at a time when the chain is checked.
const PAGE: i64 = 1_000;

macro_rules! audit_columns {
    () => {
        "seq, at, actor_kind, actor_id, action, target_id, outcome, ip, user_agent, request_id, details, hash"
    };
}
pub(super) use audit_columns;

impl Store {
    /// Adds a row to the audit log by itself, for things that were refused.
    pub(crate) async fn append_audit(&self, event: &AuditEvent) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        tx.audit(event);
        tx.commit().await
    }

    /// Rows of the audit log, newest first.
    pub(crate) async fn audit_rows(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditRow>, AccessError> {
        let sql = concat!(
            "SELECT ",
            audit_columns!(),
            " FROM audit_log WHERE seq < ? AND at >= ? AND at < ? AND (? = '' OR actor_id = ?) \
             AND (? = '' OR target_id = ?) AND (? = '' OR action = ?) AND (? = '' OR outcome = ?) \
             ORDER BY seq DESC LIMIT ?"
        );
        if ![&filter.action, &filter.outcome].into_iter().flatten().all(|text| is_plain(text)) {
            return Ok(Vec::new());
        }
        let actor = filter.actor.map(|id| id.to_string()).unwrap_or_default();
        let target = filter.target.map(|id| id.to_string()).unwrap_or_default();
        let action = filter.action.clone().unwrap_or_default();
        let outcome = filter.outcome.clone().unwrap_or_default();
        let values = args![
            filter.before.unwrap_or(i64::MAX),
            filter.from_us.unwrap_or(0),
            filter.to_us.unwrap_or(i64::MAX),
            &actor,
            &actor,
            &target,
            &target,
            &action,
            &action,
            &outcome,
            &outcome,
            limit,
        ];
        self.database.rows(sql, values).await?.iter().map(audit_row).collect()
    }

    /// Recomputes every hash in order. Rows that are added meanwhile are checked too.
    pub(crate) async fn verify_chain(&self) -> Result<ChainReport, AccessError> {
        let head = self.database.row("SELECT first_seq FROM audit_head WHERE id = 1", args![]).await?;
        let first = head.map(|row| row.int("first_seq")).transpose()?.unwrap_or(1);
        let sql = "SELECT count(*) AS n FROM audit_log WHERE seq < ?";
        let unchained = self.database.row(sql, args![first]).await?.map(|row| row.int("n")).transpose()?.unwrap_or(0);
        let unchained = u64::try_from(unchained).unwrap_or(0);
        let mut report = ChainReport { rows: 0, unchained, head: String::new(), broken: None };
        let mut next = first;
        loop {
            let sql = concat!("SELECT ", audit_columns!(), " FROM audit_log WHERE seq >= ? ORDER BY seq LIMIT ?");
            let page = self.database.rows(sql, args![next, PAGE]).await?;
            for row in &page {
                report.broken = check(row, next, &mut report.head)?;
                if report.broken.is_some() {
                    return Ok(report);
                }
                report.rows += 1;
                next += 1;
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(0) {
                break;
            }
        }
        report.broken = self.check_head(next - 1, &report.head).await?;
        Ok(report)
    }

    /// The head may have moved on since the last row was read, but never back, and never to another hash.
    async fn check_head(&self, last: i64, hash: &str) -> Result<Option<ChainBreak>, AccessError> {
        let sql =
            "SELECT h.seq, h.hash, (SELECT max(a.seq) FROM audit_log a) AS newest FROM audit_head h WHERE h.id = 1";
        let Some(row) = self.database.row(sql, args![]).await? else {
            return Ok(Some(ChainBreak::Head { expected: 0, found: last }));
        };
        let (seq, newest) = (row.int("seq")?, row.int_or_null("newest")?.unwrap_or(0));
        let is_same = seq != last || row.text("hash")? == hash;
        Ok((seq < last || newest < seq || !is_same)
            .then_some(ChainBreak::Head { expected: seq, found: newest.min(last) }))
    }
}

fn check(row: &Row, expected: i64, head: &mut String) -> Result<Option<ChainBreak>, AccessError> {
    let seq = row.int("seq")?;
    if seq != expected {
        return Ok(Some(ChainBreak::Missing { seq: expected }));
    }
    let mut texts: [Option<String>; 9] = Default::default();
    for (text, column) in texts.iter_mut().zip(TEXTS) {
        *text = row.text_or_null(column)?;
    }
    let hash = Link { seq, at: row.int("at")?, texts }.hash(head);
    if hash != row.text("hash")? {
        return Ok(Some(ChainBreak::Changed { seq }));
    }
    *head = hash;
    Ok(None)
}

pub(super) fn audit_row(row: &Row) -> Result<AuditRow, AccessError> {
    let details = row.text_or_null("details")?;
    Ok(AuditRow {
        seq: row.int("seq")?,
        at_us: row.int("at")?,
        actor_kind: row.text("actor_kind")?,
        actor_id: row.id_or_null("actor_id")?,
        action: row.text("action")?,
        target_id: row.id_or_null("target_id")?,
        outcome: row.text("outcome")?,
        ip: row.text_or_null("ip")?,
        user_agent: row.text_or_null("user_agent")?,
        request_id: row.text_or_null("request_id")?,
        details: details.and_then(|text| serde_json::from_str(&text).ok()),
        hash: row.text("hash")?,
    })
}
