//! Epoch manifests: `_karat/epochs/<pipeline>/<number>.json`, written put-if-absent (decision 9).
//!
//! A manifest is the only thing that makes new versions of several tables visible together. Readers try the next
//! number; a missed notice costs a poll, never correctness.

use std::sync::Arc;

use futures::TryStreamExt;
use karat_schemas::epoch::Epoch;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use crate::{Lake, Result};

/// The manifests of one pipeline.
#[derive(Clone)]
pub struct Epochs {
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

impl Epochs {
    pub fn of(lake: &Lake, pipeline: &str) -> Result<Self> {
        Ok(Self { store: lake.store("_karat/epochs")?, folder: Path::from("_karat").join("epochs").join(pipeline) })
    }

    /// The newest epoch, if any.
    pub async fn latest(&self) -> Result<Option<Epoch>> {
        let listed: Vec<_> = self.store.list(Some(&self.folder)).try_collect().await?;
        let newest = listed.iter().filter_map(|object| number(&object.location)).max();
        match newest {
            Some(number) => self.get(number).await,
            None => Ok(None),
        }
    }

    /// The newest epoch after `known`, or none when there is no newer one. One read a new epoch, where
    /// [`Epochs::latest`] lists the folder.
    pub async fn newer_than(&self, known: u64) -> Result<Option<Epoch>> {
        if known == 0 {
            return self.latest().await;
        }
        let mut newest: Option<Epoch> = None;
        while let Some(next) = self.get(newest.as_ref().map_or(known, |epoch| epoch.epoch) + 1).await? {
            newest = Some(next);
        }
        Ok(newest)
    }

    /// Epoch `number`, or none when it is not written (or was cleaned up).
    pub async fn get(&self, number: u64) -> Result<Option<Epoch>> {
        match self.store.get(&self.path(number)).await {
            Ok(found) => Ok(Some(serde_json::from_slice(&found.bytes().await?)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an epoch unless its number is taken; true when this call wrote it or the same was there.
    pub async fn put(&self, epoch: &Epoch) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        let body = serde_json::to_vec(epoch)?;
        match self.store.put_opts(&self.path(epoch.epoch), body.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(self.get(epoch.epoch).await?.as_ref() == Some(epoch)),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes manifests older than `number`. Failures do not matter: the next call tries again.
    pub async fn remove_before(&self, number: u64) {
        let Ok(listed) = self.store.list(Some(&self.folder)).try_collect::<Vec<_>>().await else { return };
        for object in listed.iter().filter(|object| self::number(&object.location).is_some_and(|n| n < number)) {
            let _ = self.store.delete(&object.location).await;
        }
    }

    fn path(&self, number: u64) -> Path {
        self.folder.clone().join(format!("{number:020}.json"))
    }
}

fn number(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}
