//! How far the orders on a partition of `karat.commands` are executed: `_karat/orders/<partition>.json`.
//!
//! In the lake, because the process that executes them changes. A position that was lost or written by a process that is
//! out of date costs a look at orders whose outcome is known, nothing else.

use std::sync::Arc;

use object_store::{ObjectStore, ObjectStoreExt, path::Path};

use crate::{Lake, Result};

/// The positions of one lake.
#[derive(Clone)]
pub struct OrderPositions {
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

impl OrderPositions {
    pub fn of(lake: &Lake) -> Result<Self> {
        Ok(Self { store: lake.store("_karat/orders")?, folder: Path::from("_karat").join("orders") })
    }

    /// Offset of the first order that is not known to be executed; none when there never was one.
    pub async fn next(&self, partition: u32) -> Result<Option<i64>> {
        match self.store.get(&self.path(partition)).await {
            Ok(found) => Ok(serde_json::from_slice(&found.bytes().await?).ok()),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn put(&self, partition: u32, next: i64) -> Result<()> {
        self.store.put(&self.path(partition), serde_json::to_vec(&next)?.into()).await?;
        Ok(())
    }

    fn path(&self, partition: u32) -> Path {
        self.folder.clone().join(format!("{partition}.json"))
    }
}
