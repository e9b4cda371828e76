//! Which state store a runner begins with, and whether it can go on from there.
//!
//! The local one, unless the checkpoint in the lake is newer: then another process owned the pipeline since. Either is at
//! or before the tables, and the steps that it lacks are run again. A local one that goes with other tables than those in place is
//! removed: it is of a replay that was given up here, or of before one that another process made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use karat_lake::Table;

use super::{POSITION, Runner, RunnerSettings, SWAP};
use crate::{
    Error, Result,
    checkpoint::{self, Facts},
    plan::PipelinePlan,
    rebuild::remove,
    state::StateStore,
};

/// The folder of one generation's state.
pub(crate) fn generation_folder(state: &Path, generation: u64) -> PathBuf {
    state.join(format!("g{generation}"))
}

/// Opens the state store that goes with the tables that the replay `swap` put in place.
pub(super) async fn open_store(
    settings: &RunnerSettings,
    plan: &PipelinePlan,
    bronze: &Table,
    swap: Option<i64>,
) -> Result<StateStore> {
    let folder = generation_folder(&settings.state_folder, settings.generation);
    let mut store = open(&folder, plan)?;
    if !settings.writes_epochs {
        return Ok(store);
    }
    store = without_foreign(store, &folder, plan, swap)?;
    if settings.checkpoints.is_none() {
        return Ok(store);
    }
    let facts = Facts::new(settings, plan);
    let local = store.meta::<u64>(POSITION)?;
    let newest = checkpoint::position_of(&settings.lake, plan, facts).await?;
    if newest.is_none() || newest <= local {
        return Ok(store);
    }
    drop(store);
    // Kept until the other one is there: the checkpoint may be damaged.
    let aside = folder.with_extension("old");
    remove(&aside)?;
    fs::rename(&folder, &aside).map_err(|source| file_error(&folder, source))?;
    let is_restored = checkpoint::restore(&settings.lake, plan, facts, bronze, &folder).await;
    if local.is_some() && !matches!(is_restored, Ok(true)) {
        remove(&folder)?;
        fs::rename(&aside, &folder).map_err(|source| file_error(&folder, source))?;
    }
    is_restored?;
    remove(&aside)?;
    without_foreign(open(&folder, plan)?, &folder, plan, swap)
}

/// An empty store in the place of one that goes with other tables.
fn without_foreign(store: StateStore, folder: &Path, plan: &PipelinePlan, swap: Option<i64>) -> Result<StateStore> {
    if swap.is_none() || store.meta::<i64>(SWAP)?.is_none_or(|of| Some(of) == swap) {
        return Ok(store);
    }
    tracing::info!(pipeline = plan.name, "the state goes with other tables and is not used");
    drop(store);
    remove(folder)?;
    open(folder, plan)
}

/// Opens or creates the store in `folder`.
fn open(folder: &Path, plan: &PipelinePlan) -> Result<StateStore> {
    fs::create_dir_all(folder).map_err(|source| file_error(folder, source))?;
    StateStore::open(folder, &plan.keyspaces())
}

fn file_error(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.display().to_string(), source }
}

impl Runner {
    /// Whether a table is not as new as the epoch says, or the epochs are gone that the state went with.
    pub(super) fn lacks_tables(&self) -> bool {
        let versions = self.tables.versions();
        let is_older = |(table, known): (&String, &u64)| versions.get(table).is_some_and(|version| version < known);
        let has_no_epoch = self.position > 0 && self.last.epoch == 0;
        self.settings.writes_epochs && (has_no_epoch || self.last.tables.iter().any(is_older))
    }

    /// Whether bronze versions that the store lacks are merged by now: its steps cannot be run again one by one. That is an old
    /// store, of a process whose pipeline another one had, when the copy in the lake is not there to take its place.
    pub(super) fn is_left_behind(&self) -> bool {
        self.settings.writes_epochs && self.position > 0 && self.position < self.bronze.merged_to()
    }
}
