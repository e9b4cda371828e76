//! Consent: what people agreed to and took back, and whether their events may be taken.
//!
//! Each step is a row of its own, with version, time, source and address, that nothing changes while the account lives.
//! Where consent is required, the newest step of whoever publishes (a person, or a program with a key of theirs) must
//! have granted the version in force, and so must that of everybody with an account whom a program names. A step holds at
//! once in the process that records it and within five seconds in every other.

use std::collections::HashSet;
use std::time::Instant;

use serde_json::json;
use uuid::Uuid;

use crate::export::shorten;
use crate::known_consents::Finding;
use crate::store::{Consent, ConsentPlace, Store, User};
use crate::{Access, AccessError, Action, AuditEvent, Caller, Origin};

const GRANTED: &str = "granted";
const REVOKED: &str = "revoked";
/// As many characters as the database holds.
const MAX_VERSION_CHARS: usize = 50;
const MAX_SOURCE_CHARS: usize = 100;

/// What consent decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsentRule {
    /// Nothing: it is kept.
    Optional {
        /// The version of the text that is in force, where one is named.
        version: Option<String>,
    },
    /// Whether events are taken.
    Required {
        /// The version of the text that is in force.
        version: String,
    },
}

impl Default for ConsentRule {
    fn default() -> Self {
        Self::Optional { version: None }
    }
}

impl ConsentRule {
    /// The rule with the version of the text that is in force.
    ///
    /// # Errors
    /// What is wrong with the version, for whoever set it.
    pub fn new(is_required: bool, version: Option<&str>) -> Result<Self, String> {
        if version.is_some_and(|version| !fits(version, MAX_VERSION_CHARS)) {
            return Err(format!("must be 1 to {MAX_VERSION_CHARS} characters, and none of them a control character"));
        }
        match (is_required, version.map(str::to_owned)) {
            (true, Some(version)) => Ok(Self::Required { version }),
            (true, None) => Err("is needed where consent is required: it names the text that is in force".to_owned()),
            (false, version) => Ok(Self::Optional { version }),
        }
    }

    /// The version of the text that is in force, where one is named.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Optional { version } => version.as_deref(),
            Self::Required { version } => Some(version.as_str()),
        }
    }

    /// Whether events are refused without consent.
    pub fn is_required(&self) -> bool {
        matches!(self, Self::Required { .. })
    }

    /// Whether events of this user are taken.
    pub(crate) fn is_met_by(&self, user: &User) -> bool {
        match self {
            Self::Optional { .. } => true,
            Self::Required { version } => {
                user.consent_status == GRANTED && user.consent_version.as_deref() == Some(version.as_str())
            }
        }
    }
}

impl Access {
    /// Records that the caller agreed to a version of the text.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] for a version or a source that is empty or too long.
    pub async fn grant_consent(
        &self,
        caller: &Caller,
        version: &str,
        source: &str,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        for (name, text, most) in [("version", version, MAX_VERSION_CHARS), ("source", source, MAX_SOURCE_CHARS)] {
            if !fits(text, most) {
                return Err(AccessError::Invalid(vec![format!("`{name}`: must be 1 to {most} characters")]));
            }
        }
        self.add_consent(caller, (GRANTED, Action::ConsentGrant), version, source, origin).await
    }

    /// Records that the caller took consent back.
    ///
    /// # Errors
    /// [`AccessError::NotFound`] when there is none to take back.
    pub async fn revoke_consent(&self, caller: &Caller, source: &str, origin: &Origin) -> Result<User, AccessError> {
        let user = self.find_user(caller.id).await?.ok_or(AccessError::NotFound { what: "user" })?;
        let version = user.consent_version.filter(|_| user.consent_status == GRANTED);
        let version = version.ok_or(AccessError::NotFound { what: "consent" })?;
        self.add_consent(caller, (REVOKED, Action::ConsentRevoke), &version, source, origin).await
    }

    /// What was agreed to and taken back, or what of it is behind a place, newest first: [`Access::LIST_ROWS`] steps at
    /// most, and where there are more, the place to ask with for them.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn list_consents(
        &self,
        user: Uuid,
        behind: Option<ConsentPlace>,
    ) -> Result<(Vec<Consent>, Option<ConsentPlace>), AccessError> {
        let most = Self::LIST_ROWS + 1;
        let mut steps = self.inner.store.list_consents(user, behind, most).await?;
        let next = if shorten(&mut steps) { steps.last().map(ConsentPlace::from) } else { None };
        Ok((steps, next))
    }

    /// Whether events of this user are taken: always, where consent is not required.
    ///
    /// # Errors
    /// [`AccessError::Store`] when it has to be looked up and cannot be.
    pub async fn has_consented(&self, user: Uuid) -> Result<bool, AccessError> {
        match self.inner.recent.consents.of(user) {
            Some(Finding::Consented) => Ok(true),
            Some(Finding::NotConsented) => Ok(false),
            // Who acts has an account, by now at least.
            // Boxed: the rare way to the database would make the future of every request larger.
            Some(Finding::Nobody) | None => Box::pin(self.look_up_consent(user)).await,
        }
    }

    /// Those of some people whose events are not taken, though they have an account; nobody, where consent is not required.
    /// Who has no account is not among them; who deleted it is, until it is removed for good. Both are remembered as long as a
    /// consent is. The caller bounds how many are asked for.
    ///
    /// # Errors
    /// [`AccessError::Store`] when somebody has to be looked up and cannot be.
    pub async fn without_consent(&self, people: &[Uuid]) -> Result<HashSet<Uuid>, AccessError> {
        let (store, consents) = (&self.inner.store, &self.inner.recent.consents);
        let (mut without, mut unknown) = (HashSet::new(), Vec::new());
        for person in people {
            match consents.of(*person) {
                Some(Finding::Consented | Finding::Nobody) => {}
                Some(Finding::NotConsented) => {
                    without.insert(*person);
                }
                None => unknown.push(*person),
            }
        }
        for some in unknown.chunks(Store::USERS_AT_ONCE) {
            // Before the question: the answer is as old as that at most.
            let at = Instant::now();
            let found = store.find_users(some).await?;
            for id in some.iter().filter(|id| !found.iter().any(|(user, _)| user.id == **id)) {
                consents.note_nobody(*id, at);
            }
            for (user, is_deleted) in &found {
                if *is_deleted {
                    consents.note_deleted(user, at);
                }
                if *is_deleted || !consents.note(user, at) {
                    without.insert(user.id);
                }
            }
        }
        Ok(without)
    }

    /// The error for events that are refused for want of consent; leaves one row a minute for each credential.
    pub async fn refuse_without_consent(&self, caller: &Caller, origin: &Origin) -> AccessError {
        let version = self.inner.settings.consent.version().unwrap_or_default().to_owned();
        self.note_consent_needed(caller, &version, origin).await;
        AccessError::ConsentNeeded { version }
    }

    async fn add_consent(
        &self,
        caller: &Caller,
        (status, action): (&'static str, Action),
        version: &str,
        source: &str,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        let event = AuditEvent::success(caller.into(), action, caller.id, origin)
            .with_details(json!({"version": version, "source": source}));
        let user = self.inner.store.add_consent(caller.id, status, version, source, &event).await?;
        self.inner.recent.consents.note(&user, Instant::now());
        Ok(user)
    }

    async fn look_up_consent(&self, id: Uuid) -> Result<bool, AccessError> {
        // Before the question: the answer is as old as that at most.
        let at = Instant::now();
        let user = self.inner.store.find_user(id).await?;
        Ok(user.is_some_and(|user| self.inner.recent.consents.note(&user, at)))
    }
}

fn fits(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_consent_needs_a_version_that_can_be_recorded() {
        let required = ConsentRule::new(true, Some("2026-11")).unwrap();
        assert_eq!((required.version(), required.is_required()), (Some("2026-11"), true));
        assert!(ConsentRule::new(true, None).unwrap_err().contains("is needed"));
        let named = ConsentRule::new(false, Some("2026-11")).unwrap();
        assert_eq!((named.version(), named.is_required()), (Some("2026-11"), false));
        assert_eq!(ConsentRule::new(false, None), Ok(ConsentRule::default()));
        for bad in ["", "2026\n11", &"x".repeat(51)] {
            assert!(ConsentRule::new(false, Some(bad)).is_err(), "{bad:?}");
        }
    }
}
