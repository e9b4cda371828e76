//! How commands ended: `_karat/commands/<id>.json`, written put-if-absent.
//!
//! The process that executes a command writes its outcome; whoever gave the command reads it. The newest
//! [`KEPT`] are kept: ids begin with the time (UUID v7), so their order is that of the commands.

use std::sync::Arc;

use futures::TryStreamExt;
use karat_schemas::command::Outcome;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use crate::{Lake, Result};

/// Outcomes that are kept: commands are given by people, who ask within hours.
pub const KEPT: usize = 1000;

/// The outcomes of one lake.
#[derive(Clone)]
pub struct Outcomes {
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

impl Outcomes {
    pub fn of(lake: &Lake) -> Result<Self> {
        Ok(Self { store: lake.store("_karat/commands")?, folder: Path::from("_karat").join("commands") })
    }

    /// How the command ended; none when it has not, or so long ago that the outcome is gone.
    pub async fn get(&self, id: &str) -> Result<Option<Outcome>> {
        match self.store.get(&self.path(id)).await {
            Ok(found) => Ok(Some(serde_json::from_slice(&found.bytes().await?)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an outcome; the first one of a command stays.
    pub async fn put(&self, outcome: &Outcome) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        let body = serde_json::to_vec(outcome)?;
        match self.store.put_opts(&self.path(&outcome.id), body.into(), options).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.remove_beyond(KEPT).await;
        Ok(())
    }

    /// Failures do not matter: the next call tries again.
    async fn remove_beyond(&self, kept: usize) {
        let Ok(listed) = self.store.list(Some(&self.folder)).try_collect::<Vec<_>>().await else { return };
        let mut paths: Vec<Path> = listed.into_iter().map(|object| object.location).collect();
        paths.sort_unstable();
        for path in paths.iter().take(paths.len().saturating_sub(kept)) {
            let _ = self.store.delete(path).await;
        }
    }

    /// `join` takes the id as one part, whatever is in it.
    fn path(&self, id: &str) -> Path {
        self.folder.clone().join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(id: &str, failure: Option<&str>) -> Outcome {
        Outcome { id: id.into(), pipeline: "p".into(), ended_at_us: 7, failure: failure.map(str::to_owned) }
    }

    #[tokio::test]
    async fn the_first_outcome_of_a_command_stays_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let outcomes = Outcomes::of(&Lake::at(folder.path().to_str().unwrap()).unwrap()).unwrap();
        assert_eq!(outcomes.get("b").await.unwrap(), None);
        outcomes.put(&outcome("b", Some("no"))).await.unwrap();
        outcomes.put(&outcome("b", None)).await.unwrap();
        assert_eq!(outcomes.get("b").await.unwrap(), Some(outcome("b", Some("no"))));
        for id in ["c", "a"] {
            outcomes.put(&outcome(id, None)).await.unwrap();
        }
        outcomes.remove_beyond(2).await;
        assert_eq!(outcomes.get("a").await.unwrap(), None);
        assert_eq!(outcomes.get("c").await.unwrap(), Some(outcome("c", None)));
    }

    #[tokio::test]
    async fn an_id_is_a_name_and_no_path() {
        let folder = tempfile::tempdir().unwrap();
        let outcomes = Outcomes::of(&Lake::at(folder.path().to_str().unwrap()).unwrap()).unwrap();
        outcomes.put(&outcome("../../outside", None)).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("_karat/commands")).unwrap().count(), 1);
    }
}
