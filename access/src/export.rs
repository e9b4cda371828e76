//! What the accounts hold of one person, for that person (GDPR, articles 15 and 20).
//!
//! Own data only: no row of another account, and of a row of the audit log that concerns somebody else too, not who that
//! was and where from. No secret and no hash of one. Each list is bounded, and says when something was left out.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use crate::audit::AuditRow;
use crate::store::{Consent, Identity, OwnCode, OwnFactor, OwnSession, Passkey, User};
use crate::{Access, AccessError, ApiKey, Caller, Permission, UserSettings};

/// Everything of one person that the accounts database holds.
#[derive(Debug, Clone)]
pub struct OwnData {
    /// The account.
    pub user: User,
    /// Whether there is a password. Of itself not even the hash is told.
    pub has_password: bool,
    /// Log-ins at other providers.
    pub identities: Vec<Identity>,
    /// Sessions, ended ones included, newest first.
    pub sessions: Vec<OwnSession>,
    /// API keys, live ones first, then those that ended; newest first.
    pub api_keys: Vec<ApiKey>,
    /// Second factors by code.
    pub factors: Vec<OwnFactor>,
    /// Passkeys, without their public keys.
    pub passkeys: Vec<Passkey>,
    /// Recovery codes that were not used.
    pub recovery_codes_left: u64,
    /// Codes and links in messages, newest first.
    pub codes: Vec<OwnCode>,
    /// What was agreed to and taken back, newest first.
    pub consents: Vec<Consent>,
    /// What programs remember for this person.
    pub settings: UserSettings,
    /// What the audit log has of this person, newest first.
    pub events: Vec<OwnEvent>,
    /// With older events behind these: the number to ask with for them.
    pub next_before: Option<i64>,
    /// Lists of which the oldest entries were left out.
    pub cut: Vec<&'static str>,
}

/// One row of the audit log, as the person may see it whom it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnEvent {
    /// Microseconds since 1970, UTC.
    pub at_us: i64,
    /// `anonymous`, `shell`, `user`, `api_key` or `system`.
    pub actor_kind: String,
    /// Whether the person did it, by a session or a key.
    pub is_own_act: bool,
    /// What.
    pub action: String,
    /// `success` or `denied`.
    pub outcome: String,
    /// What it concerned, when that is the person's: the account, a session, a key.
    pub target_id: Option<Uuid>,
    /// From where. This and what follows only where nobody else was part of it.
    pub ip: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// Id of the request in the log.
    pub request_id: Option<String>,
    /// More facts.
    pub details: Option<Value>,
}

impl Access {
    /// Entries of each list about one account at most, here and where a list is asked for by itself.
    pub const LIST_ROWS: u32 = 1_000;

    /// Everything that the database holds of the caller; of the audit log the rows before a number, or the newest.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`] for an API key; [`AccessError::NotFound`] when the account is gone.
    pub async fn export_own_data(&self, caller: &Caller, before: Option<i64>) -> Result<OwnData, AccessError> {
        caller.require(Permission::ManageOwnAccount)?;
        let (store, id) = (&self.inner.store, caller.id);
        let login = store.find_login_of(id).await?.ok_or(AccessError::NotFound { what: "user" })?;
        // One more than is given tells whether there are more.
        let most = Self::LIST_ROWS + 1;
        let mut identities = store.list_identities(id, most).await?;
        let mut sessions = store.own_sessions(id, most).await?;
        let mut api_keys = store.list_keys(id, most).await?;
        let mut codes = store.own_codes(id, most).await?;
        let mut consents = store.list_consents(id, None, most).await?;
        let rows = store.own_audit_rows(id, before.unwrap_or(i64::MAX), most).await?;
        let own: HashSet<Uuid> = [id]
            .into_iter()
            .chain(sessions.iter().map(|own| own.session.id))
            .chain(api_keys.iter().map(|key| key.id))
            .collect();
        let (events, next_before) = page(rows, &own);
        let lists = [
            ("identities", shorten(&mut identities)),
            ("sessions", shorten(&mut sessions)),
            ("api_keys", shorten(&mut api_keys)),
            ("codes", shorten(&mut codes)),
            ("consents", shorten(&mut consents)),
        ];
        Ok(OwnData {
            user: login.user,
            has_password: login.password_hash.is_some(),
            identities,
            sessions,
            api_keys,
            factors: store.own_factors(id).await?,
            passkeys: store.list_passkeys(id).await?,
            recovery_codes_left: store.own_recovery_codes(id).await?,
            codes,
            consents,
            settings: store.user_settings(id).await?,
            events,
            next_before,
            cut: lists.into_iter().filter_map(|(name, is_cut)| is_cut.then_some(name)).collect(),
        })
    }
}

/// Leaves the entries that a list may have; says whether there were more.
pub(crate) fn shorten<T>(list: &mut Vec<T>) -> bool {
    let is_cut = list.len() > Access::LIST_ROWS as usize;
    list.truncate(Access::LIST_ROWS as usize);
    is_cut
}

/// The rows of one page, and the number that the next one begins before.
fn page(mut rows: Vec<AuditRow>, own: &HashSet<Uuid>) -> (Vec<OwnEvent>, Option<i64>) {
    let next = if shorten(&mut rows) { rows.last().map(|row| row.seq) } else { None };
    (rows.into_iter().map(|row| own_event(row, own)).collect(), next)
}

/// What one person may see of a row: whoever else did it, or was concerned by it, has a right to stay unnamed.
fn own_event(row: AuditRow, own: &HashSet<Uuid>) -> OwnEvent {
    let is_own = |id: &Uuid| own.contains(id);
    let is_own_act = row.actor_id.as_ref().is_some_and(is_own);
    let is_whole = is_own_act && row.target_id.as_ref().is_none_or(is_own);
    OwnEvent {
        at_us: row.at_us,
        actor_kind: row.actor_kind,
        is_own_act,
        action: row.action,
        outcome: row.outcome,
        target_id: row.target_id.filter(is_own),
        ip: row.ip.filter(|_| is_whole),
        user_agent: row.user_agent.filter(|_| is_whole),
        request_id: row.request_id.filter(|_| is_whole),
        details: row.details.filter(|_| is_whole),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ME: Uuid = Uuid::from_u128(1);
    const ANOTHER: Uuid = Uuid::from_u128(2);

    fn row(seq: i64, actor: Option<Uuid>, target: Option<Uuid>) -> AuditRow {
        AuditRow {
            seq,
            at_us: 7,
            actor_kind: "user".to_owned(),
            actor_id: actor,
            action: "user_update".to_owned(),
            target_id: target,
            outcome: "success".to_owned(),
            ip: Some("203.0.113.5".to_owned()),
            user_agent: Some("a browser".to_owned()),
            request_id: Some("a-request".to_owned()),
            details: Some(json!({"role": "admin"})),
            hash: "canary".to_owned(),
        }
    }

    #[test]
    fn security_84_a_row_with_somebody_else_in_it_names_nobody_else() {
        let own = HashSet::from([ME]);
        for (actor, target, is_own_act, is_whole) in [
            (Some(ME), Some(ME), true, true),
            (Some(ME), None, true, true),
            (Some(ME), Some(ANOTHER), true, false),
            (Some(ANOTHER), Some(ME), false, false),
            (None, Some(ME), false, false),
        ] {
            let event = own_event(row(1, actor, target), &own);
            let place = format!("{actor:?} {target:?}");
            assert_eq!(event.is_own_act, is_own_act, "{place}");
            assert_eq!(event.target_id, target.filter(|id| *id == ME), "{place}");
            let told = [event.ip.is_some(), event.user_agent.is_some(), event.request_id.is_some()];
            assert_eq!((told, event.details.is_some()), ([is_whole; 3], is_whole), "{place}");
        }
    }

    #[test]
    fn a_page_names_the_row_that_the_next_one_begins_before() {
        let own = HashSet::from([ME]);
        let rows = |count: i64| (0..count).map(|n| row(count - n, Some(ME), None)).collect::<Vec<_>>();
        let (events, next) = page(rows(1_000), &own);
        assert_eq!((events.len(), next), (1_000, None));
        let (events, next) = page(rows(1_001), &own);
        assert_eq!((events.len(), next), (1_000, Some(2)));
    }
}
