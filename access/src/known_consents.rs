//! What is known of people's consent without asking the database: looked up lately, or changed here or by another process.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::AccessSettings;
use crate::cache::GenerationCache;
use crate::consent::ConsentRule;
use crate::store::User;

/// Below that of every account, so that whatever is heard of one replaces that there is none.
const NO_VERSION: i64 = i64::MIN;

/// Whether people have consented as the rule asks, for those of whom that is known.
pub(crate) struct KnownConsents {
    rule: ConsentRule,
    /// How long the database is not asked again.
    believed: Duration,
    known: GenerationCache<Uuid, Known>,
}

/// What an id stands for, where consent is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    Consented,
    /// Never, to another version, not any more, or the account waits for its purge.
    NotConsented,
    /// There is no account.
    Nobody,
}

#[derive(Clone, Copy)]
struct Known {
    finding: Finding,
    /// Of the account.
    version: i64,
    at: Instant,
}

impl KnownConsents {
    pub(crate) fn new(settings: &AccessSettings) -> Self {
        let AccessSettings { consent, key_cache_ttl, token_cache_entries, .. } = settings;
        let known = GenerationCache::new(*token_cache_entries);
        Self { rule: consent.clone(), believed: *key_cache_ttl, known }
    }

    /// Notes an account as it was at a time, and answers whether its events are taken. An older state changes nothing:
    /// two changes, or a change and a look-up, may be noted in another order than they were made.
    pub(crate) fn note(&self, user: &User, at: Instant) -> bool {
        let has_consented = self.rule.is_met_by(user);
        self.put(user, if has_consented { Finding::Consented } else { Finding::NotConsented }, at);
        has_consented
    }

    /// Notes an account that was deleted and waits for its purge.
    pub(crate) fn note_deleted(&self, user: &User, at: Instant) {
        self.put(user, Finding::NotConsented, at);
    }

    /// Notes that no account had an id at a time. What is believed of an account stays: it was there then or came after that.
    pub(crate) fn note_nobody(&self, id: Uuid, at: Instant) {
        if self.rule.is_required() {
            let known = Known { finding: Finding::Nobody, version: NO_VERSION, at };
            self.known.replace_if(id, known, |held| held.version == NO_VERSION || !self.is_believed(held));
        }
    }

    pub(crate) fn forget(&self, user: Uuid) {
        self.known.remove(&user);
    }

    /// None when it has to be looked up.
    pub(crate) fn of(&self, user: Uuid) -> Option<Finding> {
        if !self.rule.is_required() {
            return Some(Finding::Consented);
        }
        self.known.get(&user).filter(|known| self.is_believed(known)).map(|known| known.finding)
    }

    fn put(&self, user: &User, finding: Finding, at: Instant) {
        if self.rule.is_required() {
            let known = Known { finding, version: user.version, at };
            self.known.replace_if(user.id, known, |held| held.version <= user.version);
        }
    }

    fn is_believed(&self, known: &Known) -> bool {
        known.at.elapsed() < self.believed
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Role;

    fn user(version: i64, consent_status: &str) -> User {
        User {
            id: Uuid::from_u128(1),
            username: "maria_77".to_owned(),
            email: None,
            nickname: None,
            full_name: None,
            role: Role::User,
            avatar_url: None,
            is_active: true,
            is_verified: false,
            phone: None,
            consent_status: consent_status.to_owned(),
            consent_version: Some("2026-11".to_owned()),
            created_at_us: 0,
            updated_at_us: 0,
            version,
        }
    }

    fn consents(key_cache_ttl: Duration) -> KnownConsents {
        let consent = ConsentRule::new(true, Some("2026-11")).unwrap();
        KnownConsents::new(&AccessSettings { consent, key_cache_ttl, ..AccessSettings::in_folder(Path::new("none")) })
    }

    /// None of it is too old to be believed while a test runs.
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn of_two_changes_the_later_one_counts_in_whatever_order_they_are_noted() {
        let (granted, revoked) = (user(2, "granted"), user(3, "revoked"));
        for order in [[&granted, &revoked], [&revoked, &granted]] {
            let consents = consents(LONG);
            assert_eq!(consents.of(granted.id), None);
            for user in order {
                consents.note(user, Instant::now());
            }
            assert_eq!(consents.of(granted.id), Some(Finding::NotConsented));
            consents.forget(granted.id);
            assert_eq!(consents.of(granted.id), None);
        }
    }

    #[test]
    fn that_an_id_is_nobodys_is_remembered_until_there_is_an_account() {
        let (consents, account) = (consents(LONG), user(1, "none"));
        consents.note_nobody(account.id, Instant::now());
        assert_eq!(consents.of(account.id), Some(Finding::Nobody));
        assert!(!consents.note(&account, Instant::now()));
        assert_eq!(consents.of(account.id), Some(Finding::NotConsented));
        // From a question that was asked before the account was made.
        consents.note_nobody(account.id, Instant::now());
        assert_eq!(consents.of(account.id), Some(Finding::NotConsented));
        consents.note(&user(2, "granted"), Instant::now());
        assert_eq!(consents.of(account.id), Some(Finding::Consented));
        consents.note_deleted(&user(3, "granted"), Instant::now());
        assert_eq!(consents.of(account.id), Some(Finding::NotConsented));
    }

    #[test]
    fn what_is_too_old_to_be_believed_gives_way_to_there_being_nobody() {
        let (consents, account) = (consents(Duration::ZERO), user(1, "granted"));
        let held = || consents.known.get(&account.id).map(|known| known.finding);
        consents.note(&account, Instant::now());
        assert_eq!((consents.of(account.id), held()), (None, Some(Finding::Consented)));
        // It was purged meanwhile.
        consents.note_nobody(account.id, Instant::now());
        assert_eq!((consents.of(account.id), held()), (None, Some(Finding::Nobody)));
    }
}
