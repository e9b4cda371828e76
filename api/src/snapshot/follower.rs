//! [`follow`]: moves the snapshot to each new epoch.
//!
//! It looks for the next manifest every second and whenever it is poked, so a lost notice costs a second. When the next
//! number stays away it asks for the newest, since manifests between may have been cleaned up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{FollowHealth, Snapshot, Snapshots, loader::Loader};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks for the next number before the folder is listed instead.
const LOOKS_BEFORE_LISTING: u32 = 10;

/// Tells the follower that there may be a new epoch.
pub type Poke = Arc<Notify>;

/// Epochs before the newest that are tried at the start, when that cannot be loaded: a table of it may be damaged.
const OLDER_TRIED: u64 = 16;

/// Follows the epochs until it is dropped. Failures are logged when they begin and tried again; the last snapshot stays, and at
/// the start one of the last epochs that can be loaded is taken.
pub async fn follow(snapshots: Arc<Snapshots>, poke: Poke) {
    let mut looks = LOOKS_BEFORE_LISTING;
    loop {
        let result = look(&snapshots, &mut looks).await;
        let has_failed = result.is_err();
        let before = std::mem::replace(
            &mut *snapshots.health.lock(),
            FollowHealth { last_looked: Some(Instant::now()), has_failed },
        );
        match result {
            Err(error) if !before.has_failed => {
                tracing::error!(%error, "the next epoch cannot be loaded: answers stay at the last one");
            }
            _ => {}
        }
        // A poke that came meanwhile is remembered by the notify, and answered at once.
        let _ = tokio::time::timeout(LOOK_EVERY, poke.notified()).await;
    }
}

async fn look(snapshots: &Snapshots, looks: &mut u32) -> karat_lake::Result<()> {
    let at = snapshots.current().epoch.epoch;
    let mut loader = snapshots.loader.lock().await;
    let mut newest = None;
    if at == 0 || *looks >= LOOKS_BEFORE_LISTING {
        *looks = 0;
        newest = loader.epochs().latest().await?.filter(|epoch| epoch.epoch > at);
    }
    let mut next = newest.as_ref().map_or(at, |epoch| epoch.epoch) + 1;
    while let Some(epoch) = loader.epochs().get(next).await? {
        newest = Some(epoch);
        next += 1;
    }
    *looks += 1;
    let Some(epoch) = newest else { return Ok(()) };
    *looks = 0;
    let number = epoch.epoch;
    let snapshot = match loader.load(epoch).await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            // The newest is tried again at the next look.
            if at == 0
                && let Some(older) = older(&mut loader, number).await?
            {
                loader.keep_only(&older);
                snapshots.publish(older);
            }
            return Err(error);
        }
    };
    loader.keep_only(&snapshot);
    drop(loader);
    tracing::debug!(epoch = snapshot.epoch.epoch, "answering from a new epoch");
    snapshots.publish(snapshot);
    Ok(())
}

/// The last epoch before `number` that can be loaded.
async fn older(loader: &mut Loader, number: u64) -> karat_lake::Result<Option<Snapshot>> {
    for number in (number.saturating_sub(OLDER_TRIED).max(1)..number).rev() {
        let loaded = loader.load_number(number).await?;
        if loaded.is_some() {
            return Ok(loaded);
        }
    }
    Ok(None)
}
