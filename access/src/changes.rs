//! What was revoked or changed recently, in memory.
//!
//! Access tokens are checked without the database, so a process must itself know which sessions, users and keys are
//! not what the token says any more. Changes made here are noted at once; changes by other processes are read from the
//! database's feed. An entry is kept as long as a token from before it could still be valid.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use uuid::Uuid;

use crate::known_consents::KnownConsents;
use crate::store::{Change, ChangeKind, Store, User};
use crate::time::{as_us, now_us};
use crate::{AccessError, AccessSettings, Role};

/// How far a change's time may lie behind its place in the feed: a writer takes its time before it commits.
const FEED_SLACK: Duration = Duration::from_secs(60);

pub(crate) struct RecentChanges {
    keep_us: i64,
    position: AtomicI64,
    sessions: RwLock<HashMap<Uuid, i64>>,
    keys: RwLock<HashMap<Uuid, i64>>,
    users: RwLock<HashMap<Uuid, Standing>>,
    pub consents: KnownConsents,
}

/// What a user is now, when that changed recently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub role: Role,
    pub is_active: bool,
    noted_at: i64,
}

impl RecentChanges {
    /// Reads what tokens from before this process started could still get wrong.
    pub(crate) async fn load(store: &Store, settings: &AccessSettings) -> Result<Self, AccessError> {
        let keep_us = as_us(settings.access_token_ttl + FEED_SLACK);
        let (changes, position) = store.changes_since(now_us() - keep_us).await?;
        let recent = Self {
            keep_us,
            position: AtomicI64::new(position),
            sessions: RwLock::default(),
            keys: RwLock::default(),
            users: RwLock::default(),
            consents: KnownConsents::new(settings),
        };
        recent.apply(store, &changes).await?;
        Ok(recent)
    }

    /// Notes what other processes changed; answers whether there was anything.
    pub(crate) async fn catch_up(&self, store: &Store) -> Result<bool, AccessError> {
        let changes = store.changes_after(self.position.load(Ordering::Acquire)).await?;
        self.apply(store, &changes).await?;
        if let Some(last) = changes.last() {
            self.position.fetch_max(last.seq, Ordering::AcqRel);
        }
        Ok(!changes.is_empty())
    }

    pub(crate) fn session_revoked(&self, session: Uuid) {
        self.sessions.write().insert(session, now_us());
    }

    pub(crate) fn key_revoked(&self, key: Uuid) {
        self.keys.write().insert(key, now_us());
    }

    pub(crate) fn user_changed(&self, user: &User) {
        let standing = Standing { role: user.role, is_active: user.is_active, noted_at: now_us() };
        self.users.write().insert(user.id, standing);
        self.consents.note(user, Instant::now());
    }

    pub(crate) fn is_session_revoked(&self, session: Uuid) -> bool {
        self.sessions.read().contains_key(&session)
    }

    pub(crate) fn is_key_revoked(&self, key: Uuid) -> bool {
        self.keys.read().contains_key(&key)
    }

    pub(crate) fn standing(&self, user: Uuid) -> Option<Standing> {
        self.users.read().get(&user).copied()
    }

    /// Forgets what no valid token can be older than.
    pub(crate) fn forget_old(&self) {
        let oldest = now_us() - self.keep_us;
        self.sessions.write().retain(|_, noted_at| *noted_at >= oldest);
        self.keys.write().retain(|_, noted_at| *noted_at >= oldest);
        self.users.write().retain(|_, standing| standing.noted_at >= oldest);
    }

    async fn apply(&self, store: &Store, changes: &[Change]) -> Result<(), AccessError> {
        for (kind, subject) in changes.iter().filter_map(|change| change.what) {
            match kind {
                ChangeKind::Session => self.session_revoked(subject),
                ChangeKind::ApiKey => self.key_revoked(subject),
                ChangeKind::User => match store.find_user(subject).await {
                    Ok(Some(user)) => self.user_changed(&user),
                    Ok(None) => self.user_gone(subject),
                    // A role of a newer version, for example: what cannot be judged is let in to nothing.
                    Err(error @ AccessError::Corrupt { .. }) => {
                        tracing::error!(%error, user = %subject, "a changed account cannot be read; it is shut out here");
                        self.user_gone(subject);
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(())
    }

    pub(crate) fn user_gone(&self, user: Uuid) {
        let standing = Standing { role: Role::User, is_active: false, noted_at: now_us() };
        self.users.write().insert(user, standing);
        self.consents.forget(user);
    }
}
