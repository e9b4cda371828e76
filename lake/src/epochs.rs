//! Epoch manifests: `_karat/epochs/<pipeline>/<number>.json`, written put-if-absent (decision 9).
//!
//! A manifest is the only thing that makes new versions of several tables visible together. Readers try the next
//! number; a missed notice costs a poll, never correctness.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use karat_schemas::epoch::Epoch;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use crate::{Error, Lake, Result};

/// Manifests that are read at once.
const IN_FLIGHT: usize = 16;

/// The manifests of one pipeline.
#[derive(Clone)]
pub struct Epochs {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    pipeline: String,
}

/// A manifest that says nothing, or something of another epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedEpoch {
    pub epoch: u64,
    pub wrong: String,
}

/// What the folder of a pipeline holds.
#[derive(Debug, Default)]
pub struct InspectedEpochs {
    /// The largest number, whether its manifest reads or not.
    pub newest: Option<u64>,
    /// The newest that reads.
    pub newest_readable: Option<Epoch>,
    pub damaged: Vec<DamagedEpoch>,
}

impl Epochs {
    pub fn of(lake: &Lake, pipeline: &str) -> Result<Self> {
        let folder = Path::from("_karat").join("epochs").join(pipeline);
        Ok(Self { store: lake.store("_karat/epochs")?, folder, pipeline: pipeline.to_owned() })
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
    ///
    /// # Errors
    /// [`Error::Damaged`] when the manifest does not say what it was written to say.
    pub async fn get(&self, number: u64) -> Result<Option<Epoch>> {
        let bytes = match self.store.get(&self.path(number)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.parse(number, &bytes).map(Some).map_err(|reason| Error::Damaged {
            table: self.folder.to_string(),
            file: file_name(number),
            reason,
        })
    }

    fn parse(&self, number: u64, bytes: &[u8]) -> std::result::Result<Epoch, String> {
        if bytes.is_empty() {
            return Err("the manifest is empty".to_owned());
        }
        let epoch: Epoch = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if (epoch.epoch, &epoch.pipeline) != (number, &self.pipeline) {
            return Err(format!("the manifest is of epoch {} of pipeline `{}`", epoch.epoch, epoch.pipeline));
        }
        Ok(epoch)
    }

    /// Reads every manifest.
    ///
    /// # Errors
    /// The folder cannot be listed, or a file in it not be read.
    pub async fn inspect(&self) -> Result<InspectedEpochs> {
        let listed: Vec<_> = self.store.list(Some(&self.folder)).try_collect().await?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|object| number(&object.location)).collect();
        numbers.sort_unstable();
        let mut inspected = InspectedEpochs { newest: numbers.last().copied(), ..InspectedEpochs::default() };
        let reads = numbers.into_iter().map(|number| async move { (number, self.get(number).await) });
        let mut reads = stream::iter(reads).buffered(IN_FLIGHT);
        while let Some((epoch, read)) = reads.next().await {
            match read {
                Ok(Some(readable)) => inspected.newest_readable = Some(readable),
                // Cleaned up meanwhile.
                Ok(None) => {}
                Err(Error::Damaged { reason, .. }) => inspected.damaged.push(DamagedEpoch { epoch, wrong: reason }),
                Err(error) => return Err(error),
            }
        }
        Ok(inspected)
    }

    /// Removes one manifest, for repairs.
    pub async fn remove(&self, number: u64) -> Result<()> {
        match self.store.delete(&self.path(number)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the manifests are, below the lake.
    pub fn location(&self) -> String {
        self.folder.to_string()
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
        self.folder.clone().join(file_name(number))
    }
}

/// Name of a manifest in the folder of its pipeline.
pub fn file_name(number: u64) -> String {
    format!("{number:020}.json")
}

fn number(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}
