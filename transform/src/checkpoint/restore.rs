//! From the checkpoint to a state store.

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use karat_lake::{Lake, Table};

use super::{Facts, rows::from_rows, table_name, writer::version_of};
use crate::{
    Error, Result,
    plan::PipelinePlan,
    rebuild::remove,
    runner::{BRONZE_HASH, FINGERPRINT, POSITION},
    state::{META, StateStore, Writes},
};

/// The bronze version that the checkpoint in the lake stands for; none when there is none of this state.
pub(crate) async fn position_of(lake: &Lake, plan: &PipelinePlan, facts: Facts) -> Result<Option<u64>> {
    let name = table_name(&plan.name);
    let mut table = match lake.open(&name).await {
        Ok(table) => table,
        Err(karat_lake::Error::UnknownTable(_)) => return Ok(None),
        Err(error) => return unusable(&name, error.into()).map(|_| None),
    };
    Ok(facts.position_in(&mut table).await?)
}

/// Makes the state store in `folder` from the checkpoint in the lake, in place of what a half-made one left. False when the
/// lake has none of this state; a store that is not whole has no position, so a crash in here is made good by the next try.
pub(crate) async fn restore(
    lake: &Lake,
    plan: &PipelinePlan,
    facts: Facts,
    bronze: &Table,
    folder: &Path,
) -> Result<bool> {
    let began = Instant::now();
    let name = table_name(&plan.name);
    let mut table = match lake.open(&name).await {
        Ok(table) => table,
        Err(karat_lake::Error::UnknownTable(_)) => return Ok(false),
        Err(error) => return unusable(&name, error.into()),
    };
    let Some(position) = facts.position_in(&mut table).await? else { return Ok(false) };
    if position == 0 || position > bronze.version() {
        return Ok(false);
    }
    remove(folder)?;
    fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.display().to_string(), source })?;
    let mut store = StateStore::open(folder, &plan.keyspaces())?;
    let (meta, rows) = match read_into(&mut store, &table, position).await {
        Ok(read) => read,
        Err(error) => {
            drop(store);
            remove(folder)?;
            return unusable(&name, error);
        }
    };
    if !is_of(&meta, plan, bronze, position).await? {
        drop(store);
        tracing::warn!(table = name, position, "the checkpoint is of another state and is left alone");
        remove(folder)?;
        return Ok(false);
    }
    // Synced before the position is there: that is what says that the store is whole.
    store.sync()?;
    let mut writes = Writes::default();
    meta.into_iter().for_each(|(key, value)| writes.set(META, key, Some(value)));
    store.apply(&writes)?;
    store.sync()?;
    tracing::info!(
        pipeline = plan.name,
        position,
        rows,
        took = ?began.elapsed(),
        "the state is restored from the checkpoint in the lake"
    );
    Ok(true)
}

/// A checkpoint that is damaged is as good as none: everything in it is in bronze.
fn unusable(table: &str, error: Error) -> Result<bool> {
    match error {
        Error::Lake(
            karat_lake::Error::Damaged { .. } | karat_lake::Error::Storage { .. } | karat_lake::Error::Object(_),
        )
        | Error::DamagedState(_) => {
            tracing::warn!(table, %error, "the checkpoint cannot be read; the tables are rebuilt from bronze");
            Ok(false)
        }
        error => Err(error),
    }
}

/// The store's own values, which are not written yet, and how many rows there were.
pub(super) async fn read_into(
    store: &mut StateStore,
    table: &Table,
    position: u64,
) -> Result<(BTreeMap<Vec<u8>, Vec<u8>>, usize)> {
    let (mut meta, mut rows) = (BTreeMap::new(), 0);
    // By path: the order in which the files were written. Those of later versions wait for a whole state that they follow.
    for file in table.files().filter(|file| version_of(file.path()) <= position) {
        karat_lake::crash::point(table.url(), "restore.file").await;
        for batch in table.read(file, None).await? {
            let mut writes = Writes::default();
            from_rows(&batch, &mut writes, &mut meta)?;
            rows += batch.num_rows();
            store.apply(&writes)?;
        }
    }
    Ok((meta, rows))
}

/// Whether the values say what the commit said, and bronze is the one that they were made from.
async fn is_of(meta: &BTreeMap<Vec<u8>, Vec<u8>>, plan: &PipelinePlan, bronze: &Table, position: u64) -> Result<bool> {
    let says = |name: &str, value: String| meta.get(name.as_bytes()) == Some(&value.into_bytes());
    let hash = bronze.commit_hash(position).await?;
    Ok(says(POSITION, serde_json::to_string(&position)?)
        && says(FINGERPRINT, serde_json::to_string(&plan.fingerprint)?)
        && says(BRONZE_HASH, serde_json::to_string(&hash)?))
}
