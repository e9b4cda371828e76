//! [`Access`]: the handle that everything else goes through, and its upkeep in the background.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::authenticate::{CachedKey, CachedToken};
use crate::cache::GenerationCache;
use crate::changes::RecentChanges;
use crate::oidc::Providers;
use crate::password::Hasher;
use crate::refusal_budget::{RefusalBudget, WINDOW};
use crate::refusals::REMEMBERED;
use crate::seal::Seal;
use crate::send::Post;
use crate::store::{Schema, Store};
use crate::time::{as_us, now_us};
use crate::token::{Rotation, SigningKeys, TokenMint, rotate};
use crate::{AccessError, AccessSettings, Action, Actor, AuditEvent, HashLoad, Origin};

/// Ended sessions are kept this long for the session list, then removed.
const KEEP_ENDED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const PURGE_EVERY: Duration = Duration::from_secs(60 * 60);

/// The accounts of one instance. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Access {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub settings: AccessSettings,
    pub store: Store,
    pub hasher: Hasher,
    pub seal: Seal,
    pub post: Post,
    pub providers: Providers,
    pub mint: TokenMint,
    pub recent: RecentChanges,
    pub tokens: GenerationCache<[u8; 32], Arc<CachedToken>>,
    pub keys: GenerationCache<[u8; 32], Arc<CachedKey>>,
    /// When the audit log last got a row about a refusal that anybody can repeat.
    pub refusals: GenerationCache<[u8; 32], Instant>,
    /// How many more rows about such refusals there may be now, whoever was refused.
    pub refusal_budget: RefusalBudget,
    /// Last use of API keys since it was last written to the database.
    pub used_keys: Mutex<HashMap<Uuid, i64>>,
    upkeep: OnceLock<AbortHandle>,
}

impl Access {
    /// Opens the accounts: creates the database, brings its schema up to date and makes the first signing key when
    /// they are absent. Safe to call in several processes at once, and while a server is running.
    ///
    /// Starts one background task (changes of other processes, last-used times, refusals without a row of their own,
    /// checkpoints, removal of what ended), which stops when the last clone is dropped.
    ///
    /// # Errors
    /// [`AccessError::Store`], [`AccessError::Migrate`] and [`AccessError::Keys`] name what cannot be used.
    pub async fn open(settings: AccessSettings) -> Result<Self, AccessError> {
        let store = Store::open(&settings).await?;
        let (folder, activation) = (settings.keys_dir.clone(), settings.key_activation);
        let providers = settings.providers.clone();
        let read = tokio::task::spawn_blocking(move || {
            let keys = SigningKeys::load_or_create(&folder, activation)?;
            Ok::<_, AccessError>((keys, Seal::load_or_create(&folder)?, Providers::new(&providers)?))
        });
        let (keys, seal, providers) = read.await??;
        let inner = Arc::new(Inner {
            seal,
            providers,
            post: Post::new(&settings.mail, &settings.sms)?,
            hasher: Hasher::new(&settings.hashing).await?,
            mint: TokenMint::new(keys, &settings),
            recent: RecentChanges::load(&store, &settings).await?,
            tokens: GenerationCache::new(settings.token_cache_entries),
            keys: GenerationCache::new(settings.key_cache_entries),
            refusals: GenerationCache::new(REMEMBERED),
            refusal_budget: RefusalBudget::default(),
            used_keys: Mutex::default(),
            upkeep: OnceLock::new(),
            store,
            settings,
        });
        let task = tokio::spawn(keep_up(Arc::downgrade(&inner)));
        let _ = inner.upkeep.set(task.abort_handle());
        Ok(Self { inner })
    }

    /// The public signing keys as a JWK set.
    pub fn jwks(&self) -> Value {
        self.inner.mint.keys().jwks()
    }

    /// How busy the hashing of passwords is.
    pub fn hash_load(&self) -> HashLoad {
        self.inner.hasher.load()
    }

    /// The settings that this was opened with.
    pub fn settings(&self) -> &AccessSettings {
        &self.inner.settings
    }

    /// What the database holds: its engine, columns and applied migrations.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn schema(&self) -> Result<Schema, AccessError> {
        self.inner.store.schema().await
    }

    /// Writes what is only in memory (last-used times of API keys, refusals without a row of their own). Call it before the
    /// process ends.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn flush(&self) -> Result<(), AccessError> {
        // One that fails does not keep the other from being written.
        let last_used = self.inner.write_last_used().await;
        self.inner.write_left_out(Duration::ZERO).await.and(last_used)
    }

    /// Removes what ended long ago, deleted accounts included, now instead of at the next turn of the background task.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn purge(&self) -> Result<(), AccessError> {
        self.inner.purge().await
    }

    /// Looks for changes by other processes now instead of at the next turn of the background task.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn catch_up(&self) -> Result<(), AccessError> {
        self.inner.catch_up().await?;
        self.inner.look_at_keys().await
    }

    /// Adds a signing key, which signs when every process knows it, and removes those whose last token has expired.
    ///
    /// # Errors
    /// [`AccessError::Keys`] names what cannot be used, [`AccessError::Store`].
    pub async fn rotate_signing_keys(&self, actor: Actor, origin: &Origin) -> Result<Rotation, AccessError> {
        let AccessSettings { keys_dir, key_activation, access_token_ttl, .. } = self.inner.settings.clone();
        let rotated = tokio::task::spawn_blocking(move || rotate(&keys_dir, key_activation, access_token_ttl));
        let rotated = rotated.await??;
        let event = AuditEvent::success(actor, Action::SigningKeyRotate, rotated.added, origin);
        self.inner.store.append_audit(&event.with_details(json!({"removed": rotated.removed}))).await?;
        self.inner.look_at_keys().await?;
        Ok(rotated)
    }

    /// Writes an audit row for something that was refused, or counts it where the rows of this minute are used up. The
    /// refusal stands even if the row cannot be written.
    pub(crate) async fn audit_refusal(&self, event: AuditEvent) {
        if !self.inner.refusal_budget.has_row_for(&event) {
            return;
        }
        if let Err(error) = self.inner.store.append_audit(&event).await {
            tracing::error!(%error, action = event.action.name(), "cannot write to the audit log");
        }
    }
}

impl Inner {
    async fn catch_up(&self) -> Result<(), AccessError> {
        if self.recent.catch_up(&self.store).await? {
            self.drop_revoked();
        }
        Ok(())
    }

    /// Takes the signing keys as they are in the folder now. A token of a key that is gone is forgotten with it.
    async fn look_at_keys(&self) -> Result<(), AccessError> {
        let (folder, activation) = (self.settings.keys_dir.clone(), self.settings.key_activation);
        let keys = self.mint.keys();
        let changed = tokio::task::spawn_blocking(move || keys.changed(&folder, activation)).await??;
        if let Some(keys) = changed {
            tracing::info!(kid = keys.kid, known = keys.verifying.len(), "the signing keys changed");
            self.mint.replace_keys(keys);
            self.tokens.retain(|_| false);
        }
        Ok(())
    }

    /// Frees what the caches hold of revoked credentials. They are refused with or without this.
    fn drop_revoked(&self) {
        self.tokens.retain(|token| !self.recent.is_session_revoked(token.session));
        self.keys.retain(|key| !self.recent.is_key_revoked(key.id));
    }

    async fn write_last_used(&self) -> Result<(), AccessError> {
        let used: Vec<_> = self.used_keys.lock().drain().collect();
        if used.is_empty() {
            return Ok(());
        }
        self.store.touch_keys(&used).await
    }

    /// Writes how many refusals got no row of their own since so long ago.
    async fn write_left_out(&self, age: Duration) -> Result<(), AccessError> {
        let mut left_out = self.refusal_budget.take_left_out(age).into_iter();
        while let Some(next) = left_out.next() {
            if let Err(error) = self.store.append_audit(&next.event()).await {
                self.refusal_budget.put_back(std::iter::once(next).chain(left_out));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn purge(&self) -> Result<(), AccessError> {
        self.recent.forget_old();
        let before = now_us() - as_us(self.settings.keep_deleted);
        loop {
            let removed = self.store.purge_users(before).await?;
            if removed.is_empty() {
                break;
            }
            for user in removed {
                tracing::info!(%user, "a deleted account was removed for good; its events in the lake stay");
            }
            // Many are due at a time, perhaps; what others revoked does not wait for that.
            self.catch_up().await?;
        }
        self.store.purge_before(now_us(), now_us() - as_us(KEEP_ENDED)).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = self.upkeep.get() {
            task.abort();
        }
    }
}

async fn keep_up(inner: Weak<Inner>) {
    let Some(period) = inner.upgrade().map(|inner| inner.settings.upkeep_interval) else { return };
    let mut turns = tokio::time::interval(period.max(Duration::from_millis(10)));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut purged = tokio::time::Instant::now();
    loop {
        turns.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let is_purge_due = purged.elapsed() >= PURGE_EVERY;
        if is_purge_due {
            purged = tokio::time::Instant::now();
        }
        // One that fails does not keep the others from their turn.
        note_failure("changes of other processes", inner.catch_up().await);
        note_failure("signing keys", inner.look_at_keys().await);
        note_failure("last use of API keys", inner.write_last_used().await);
        note_failure("refusals in the audit log", inner.write_left_out(WINDOW).await);
        note_failure("checkpoint of the database", inner.store.checkpoint().await);
        if is_purge_due {
            note_failure("removal of what ended", inner.purge().await);
        }
    }
}

fn note_failure(what: &str, result: Result<(), AccessError>) {
    if let Err(error) = result {
        tracing::warn!(%error, what, "upkeep of the accounts failed; it is tried again");
    }
}
