//! Replay: silver and gold are built anew from bronze and take the place of the old ones at once.
//!
//! 1. A second runner of the pipeline, with tables and state of its own, goes through bronze from the start with the
//!    current code. The live runner goes on meanwhile, and readers keep its epochs.
//! 2. When the second is at the live runner's position, its data files are copied beside the live ones, and a note that
//!    names generation and position is written.
//! 3. Each live table is replaced in one commit; the next epoch names all of them, so readers of epochs switch at once.
//! 4. The pipeline goes on with the new state; the old one is removed.
//!
//! A crash before the note leaves the live tables as they were; after it, [`finish_pending`] does steps 3 and 4 again,
//! leaving alone what was replaced already. Doing a replay twice gives the same tables as once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures::future::BoxFuture;
use karat_lake::{Lake, Table, TableSpec, crash, epochs::Epochs, fsck::TableLog};
use karat_schemas::pipelines::Pipeline;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    bronze::{position_name, table_name},
    journal::Journal,
    plan::{PipelinePlan, declaration_number},
    runner::{Runner, RunnerSettings, generation_folder},
    tables::{Position, swap_name},
};

/// Written when a rebuild is ready to be swapped in.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    /// Names this swap in the tables it replaced, whatever generations there were before.
    id: i64,
    generation: u64,
    /// Of the declaration that the rebuild was made with.
    fingerprint: String,
    position: u64,
    hash: i64,
    /// What the epoch says of them.
    positions: BTreeMap<u32, i64>,
    as_of_us: Option<i64>,
}

/// Begins a rebuild beside the live runner with `settings`; leftovers of an earlier one are removed.
pub fn start<'a>(pipeline: &'a Pipeline, settings: &'a RunnerSettings) -> BoxFuture<'a, Result<Runner>> {
    Box::pin(async move {
        let generation = settings.generation + 1;
        clear(settings, generation)?;
        let folder = rebuild_folder(settings);
        fs::create_dir_all(&folder).map_err(|source| file_error(&folder, source))?;
        let shadow = RunnerSettings {
            tables: Lake::at(&folder.display().to_string())?,
            generation,
            writes_epochs: false,
            checkpoints: None,
            publishes_later: true,
            journal: Journal::off(),
            ..settings.clone()
        };
        Runner::open(pipeline, shadow).await
    })
}

/// Puts a finished rebuild in the place of the live tables. Both must be at one position; the live runner, if there is
/// one, must be closed. Afterwards the pipeline is opened again with the next generation.
pub fn swap<'a>(pipeline: &'a Pipeline, live: &'a RunnerSettings, mut shadow: Runner) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        shadow.publish(true).await?;
        let generation = live.generation + 1;
        let position = shadow.position();
        let mut bronze = live.lake.open_at(&table_name(&pipeline.topic), position).await?;
        let id = i64::try_from(uuid::Uuid::new_v4().as_u128() & u128::from(u32::MAX)).unwrap_or(1);
        let (covered, as_of_us) = shadow.covered();
        let positions = positions_in(&mut bronze, &pipeline.topic, covered).await?;
        let fingerprint = shadow.fingerprint().to_owned();
        let ready = Ready {
            id,
            generation,
            fingerprint,
            position,
            hash: bronze.commit_hash(position).await?,
            positions,
            as_of_us,
        };
        shadow.put_in_place(id)?;
        shadow.close()?;
        let note = rebuild_folder(live).join("ready.json");
        let text = serde_json::to_vec(&ready)?;
        crash::point(live.lake.root(), "swap.begin").await;
        write_durably(&note, &text)?;
        crash::point(live.lake.root(), "swap.noted").await;
        finish(pipeline, live, &ready).await
    })
}

/// The next offset of each partition as the version of `bronze` says it. What was read says it too, but for a partition that was
/// moved back and has no rows since: not every merged file tells more than its rows do.
async fn positions_in(bronze: &mut Table, topic: &str, read: BTreeMap<u32, i64>) -> Result<BTreeMap<u32, i64>> {
    let names: Vec<String> = read.keys().map(|partition| position_name(topic, *partition)).collect();
    let found = bronze.positions(&names).await?;
    Ok(read.into_iter().zip(found).map(|((partition, next), found)| (partition, found.unwrap_or(next))).collect())
}

/// Ends a swap that a crash interrupted; true when there was one.
pub fn finish_pending<'a>(pipeline: &'a Pipeline, live: &'a RunnerSettings) -> BoxFuture<'a, Result<bool>> {
    Box::pin(async move {
        let note = rebuild_folder(live).join("ready.json");
        let Ok(text) = fs::read(&note) else { return Ok(false) };
        let ready: Ready = serde_json::from_slice(&text)?;
        let plan = PipelinePlan::new(pipeline).await?;
        if ready.generation != live.generation + 1 || ready.fingerprint != plan.fingerprint {
            clear(live, ready.generation.max(live.generation + 1))?;
            return Ok(false);
        }
        finish(pipeline, live, &ready).await?;
        Ok(true)
    })
}

async fn finish(pipeline: &Pipeline, live: &RunnerSettings, ready: &Ready) -> Result<()> {
    let plan = PipelinePlan::new(pipeline).await?;
    let shadow_lake = Lake::at(&rebuild_folder(live).display().to_string())?;
    // Read before anything is replaced: an owner that came meanwhile has written the next one, and ours is refused.
    let epochs = Epochs::of(&live.lake, &plan.name)?;
    let mut epoch = epochs.latest().await?.unwrap_or_default();
    let mut versions = BTreeMap::new();
    let keyed = plan.keyed_specs().into_iter().map(|(spec, _)| spec);
    for spec in plan.append_specs().into_iter().chain(keyed) {
        let shadow = shadow_lake.open(&spec.name).await?;
        let known = epoch.tables.get(&spec.name).copied();
        let version = match live.tables.open(&spec.name).await {
            Ok(mut table) if known.is_none_or(|known| known <= table.version()) => {
                replace(&mut table, &shadow, ready).await?;
                table.version()
            }
            Err(karat_lake::Error::UnknownTable(_)) if known.is_none() => {
                let mut table = live.tables.open_or_create(&spec).await?;
                replace(&mut table, &shadow, ready).await?;
                table.version()
            }
            opened => replace_damaged(&live.tables, &spec, known, opened.err(), &shadow, ready).await?,
        };
        versions.insert(spec.name, version);
    }
    crash::point(live.lake.root(), "swap.replaced").await;
    if epoch.generation < ready.generation {
        epoch.pipeline.clone_from(&plan.name);
        epoch.epoch += 1;
        epoch.tables = versions;
        epoch.generation = ready.generation;
        epoch.bronze_version = ready.position;
        epoch.positions.extend(&ready.positions);
        epoch.moved = epoch.moved_after(ready.position);
        epoch.as_of_us = ready.as_of_us;
        epoch.written_at_us = crate::bronze::writer::now_us();
        epoch.paused = None;
        if !epochs.put(&epoch).await? {
            return Err(Error::EpochTaken { pipeline: plan.name, epoch: epoch.epoch });
        }
    }
    crash::point(live.lake.root(), "swap.published").await;
    let old = generation_folder(&live.state_folder, live.generation);
    remove(&old)?;
    crash::point(live.lake.root(), "swap.forgotten").await;
    remove(&rebuild_folder(live))
}

async fn replace(table: &mut Table, shadow: &Table, ready: &Ready) -> Result<()> {
    let name = table.name().to_owned();
    if table.position(&swap_name(&name)).await? == Some(ready.id) {
        return Ok(());
    }
    let mut files = Vec::new();
    for file in shadow.files() {
        files.push(table.adopt(shadow, file).await?);
    }
    table.replace_all(shadow.schema(), files, &position(ready).transactions(&name)).await?;
    Ok(())
}

/// A table that lost versions, or cannot be read: its new content does not build on the old. `failure` is why it does not
/// open.
async fn replace_damaged(
    lake: &Lake,
    spec: &TableSpec,
    known: Option<u64>,
    failure: Option<karat_lake::Error>,
    shadow: &Table,
    ready: &Ready,
) -> Result<u64> {
    let (log, known) = (TableLog::read(lake, &spec.name).await?, known.unwrap_or(0));
    if let Some(failure) = failure
        && log.newest().is_some_and(|newest| newest >= known && log.is_readable(newest))
    {
        return Err(failure.into());
    }
    tracing::warn!(table = spec.name, "the table is damaged or lacks versions; its new content takes their place");
    Ok(karat_lake::fsck::replace_damaged(lake, spec, known, shadow, &position(ready).transactions(&spec.name)).await?)
}

fn position(ready: &Ready) -> Position {
    let declaration = declaration_number(&ready.fingerprint);
    Position { version: ready.position, hash: ready.hash, declaration, swap: ready.id }
}

/// Removes what an unfinished rebuild left.
fn clear(settings: &RunnerSettings, generation: u64) -> Result<()> {
    for folder in [rebuild_folder(settings), generation_folder(&settings.state_folder, generation)] {
        remove(&folder)?;
    }
    Ok(())
}

/// Removes a folder, or what damage put in its place.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(folder),
        Ok(_) => fs::remove_file(folder),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|source| file_error(folder, source))
}

/// Beside the state, not in the lake: nobody but this pipeline reads it.
fn rebuild_folder(settings: &RunnerSettings) -> PathBuf {
    settings.state_folder.join("rebuild")
}

/// Writes a small file so that after a crash it is there as before or as now.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let wrap = |source| file_error(path, source);
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes).map_err(wrap)?;
    fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(wrap)?;
    fs::rename(&temporary, path).map_err(wrap)?;
    let folder = path.parent().map_or_else(|| PathBuf::from("."), PathBuf::from);
    fs::File::open(&folder).and_then(|file| file.sync_all()).map_err(wrap)
}

fn file_error(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.display().to_string(), source }
}
