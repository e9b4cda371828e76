//! The chain over the audit log: each row's hash covers the row and the hash before it.
//!
//! SHA-256 over the hash before, the row's number and time, and every text with its length in front (or a mark for
//! none), so that no two rows read alike. Whoever changes, removes or inserts a row must rewrite every later one, and
//! the newest hash, which `karat doctor` prints, no longer is what it was.

use aws_lc_rs::digest::{Context, SHA256};

use crate::AuditEvent;

/// Columns beside number and time, in the order of the table.
pub(crate) const TEXTS: [&str; 9] =
    ["actor_kind", "actor_id", "action", "target_id", "outcome", "ip", "user_agent", "request_id", "details"];

/// What the hash of one row covers.
pub(crate) struct Link {
    pub seq: i64,
    pub at: i64,
    /// In the order of [`TEXTS`].
    pub texts: [Option<String>; 9],
}

impl Link {
    pub(crate) fn of(seq: i64, at: i64, event: &AuditEvent) -> Self {
        let (kind, actor) = event.actor.columns();
        let texts = [
            Some(kind.to_owned()),
            actor.map(|id| id.to_string()),
            Some(event.action.name().to_owned()),
            event.target.map(|id| id.to_string()),
            Some(event.outcome.name().to_owned()),
            event.origin.ip_text(),
            event.origin.user_agent.clone(),
            event.origin.request_id.clone(),
            event.details.as_ref().map(ToString::to_string),
        ];
        Self { seq, at, texts }
    }

    /// The row's hash in lower-case hex.
    pub(crate) fn hash(&self, before: &str) -> String {
        let mut context = Context::new(&SHA256);
        context.update(before.as_bytes());
        context.update(&self.seq.to_be_bytes());
        context.update(&self.at.to_be_bytes());
        for text in &self.texts {
            match text {
                None => context.update(&u64::MAX.to_be_bytes()),
                Some(text) => {
                    context.update(&(text.len() as u64).to_be_bytes());
                    context.update(text.as_bytes());
                }
            }
        }
        hex::encode(context.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(details: Option<&str>, agent: Option<&str>) -> Link {
        let mut texts: [Option<String>; 9] = Default::default();
        texts[6] = agent.map(str::to_owned);
        texts[8] = details.map(str::to_owned);
        Link { seq: 1, at: 2, texts }
    }

    #[test]
    fn rows_that_differ_anywhere_have_other_hashes() {
        let links = [
            link(None, None),
            link(Some(""), None),
            link(None, Some("")),
            link(Some("ab"), Some("c")),
            link(Some("b"), Some("ca")),
            Link { seq: 2, ..link(None, None) },
            Link { at: 3, ..link(None, None) },
        ];
        let mut hashes: Vec<_> = links.iter().map(|link| link.hash("")).collect();
        hashes.push(link(None, None).hash("00"));
        let count = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}
