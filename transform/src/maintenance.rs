//! Keeps tables small by itself (spec M1): what no kept version needs is removed, every few minutes, beside everything else.
//!
//! It removes files and never commits, so it conflicts with nobody. The newest epoch of a pipeline, and everything younger
//! than an hour, stays readable: an older version that a reader still holds is then gone, which readers of the
//! API are told with 410. Of bronze and the append tables, single older versions stay for a week. Small files are merged elsewhere (`compaction`), and logs get their checkpoints from
//! whoever commits.
//!
//! Bronze is read version by version, so its log goes only as far as its versions are merged (`bronze::merge`), and that is
//! never further than every pipeline is.

use std::time::{Duration, Instant};

use karat_lake::{Cleaned, Cleaner, Kept, Lake, epochs::Epochs};
use karat_schemas::{clock, pipelines::Pipeline};
use tokio::sync::watch;

use crate::{
    Error, Result,
    bronze::{self, merge},
    checkpoint,
    journal::TABLE as EVENT_LOG,
    plan::PipelinePlan,
    worker::{Owned, WorkerSettings},
};

/// How long single versions of tables that only grow stay readable (decision 12).
const MILESTONES: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is kept, and how often the rest is removed.
#[derive(Debug, Clone, Copy)]
pub struct MaintenanceSettings {
    /// Ten minutes: the files of an hour are listed in less than a second.
    pub every: Duration,
    /// An hour of old versions. Also how long a file may take from being written to its commit.
    pub kept: Duration,
}

impl MaintenanceSettings {
    /// Removes six times within the time that old versions are kept.
    pub fn keeping(kept: Duration) -> Self {
        Self { every: kept / 6, kept }
    }
}

impl Default for MaintenanceSettings {
    fn default() -> Self {
        Self { every: Duration::from_secs(600), kept: Duration::from_secs(3600) }
    }
}

/// Runs until `stop`. A table that cannot be cleaned is a line in the log, and is tried again.
pub(crate) async fn run(settings: WorkerSettings, owned: Owned, mut stop: watch::Receiver<bool>) -> Result<()> {
    let mut cleaner = Cleaner::new(settings.lake.clone());
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(settings.maintenance.every) => {}
        }
        // By a clock that was set, a file that is about to be committed may seem old.
        if !clock::steady(settings.maintenance.kept) {
            tracing::debug!("nothing is removed, because the clock was set");
            continue;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = clean_all(&settings, &owned, &mut cleaner) => {}
        }
    }
}

/// Each pipeline's tables are the owner's to clean; what belongs to none, the owner's of the first pipeline.
async fn clean_all(settings: &WorkerSettings, owned: &Owned, cleaner: &mut Cleaner) {
    let age = settings.maintenance.kept;
    // What is not merged by then was too much to take time over.
    let hurries_from = Instant::now() + settings.maintenance.every / 2;
    for pipeline in settings.pipelines.pipelines.iter().filter(|pipeline| owned.is(&pipeline.name)) {
        match tables_of(pipeline, &settings.lake, age).await {
            Ok(tables) => {
                for (table, kept) in tables {
                    clean(cleaner, &table, &kept).await;
                }
            }
            Err(error) => tracing::debug!(pipeline = pipeline.name, %error, "not cleaned"),
        }
    }
    if !settings.pipelines.pipelines.first().is_some_and(|first| owned.is(&first.name)) {
        return;
    }
    clean(cleaner, EVENT_LOG, &Kept { age, version: None, commits_after: None, milestones: None }).await;
    for topic in &settings.pipelines.topics {
        match merge_bronze(settings, &topic.name, hurries_from).await {
            Ok(merged) => {
                let kept = Kept { age, version: None, commits_after: Some(merged), milestones: Some(MILESTONES) };
                clean(cleaner, &bronze::table_name(&topic.name), &kept).await;
            }
            Err(Error::Lake(karat_lake::Error::UnknownTable(_))) => {}
            Err(error) => tracing::warn!(topic = topic.name, %error, "bronze was not merged; it is tried again"),
        }
    }
}

/// The version up to which bronze is merged now.
async fn merge_bronze(settings: &WorkerSettings, topic: &str, hurries_from: Instant) -> Result<u64> {
    let has_checkpoints = settings.checkpoints.is_some();
    let held = merge::held_from(&settings.lake, &settings.pipelines, topic, has_checkpoints).await?;
    merge::merge(&settings.lake, topic, held, hurries_from).await
}

async fn clean(cleaner: &mut Cleaner, table: &str, kept: &Kept) {
    match cleaner.clean(table, kept).await {
        Ok(cleaned) if cleaned == Cleaned::default() => {}
        Ok(Cleaned { files, bytes, log_entries }) => {
            tracing::info!(table, files, bytes, log_entries, "removed what no kept version needs");
        }
        Err(karat_lake::Error::UnknownTable(_)) => {}
        Err(error) => tracing::warn!(table, %error, "not cleaned; it is tried again"),
    }
}

/// The tables of a pipeline, its checkpoint included, and what stays of each.
async fn tables_of(pipeline: &Pipeline, lake: &Lake, age: Duration) -> Result<Vec<(String, Kept)>> {
    let plan = PipelinePlan::new(pipeline).await?;
    let epoch = Epochs::of(lake, &pipeline.name)?.latest().await?.unwrap_or_default();
    let kept = |name: String, milestones| {
        let version = epoch.tables.get(&name).copied();
        (name, Kept { age, version, commits_after: None, milestones })
    };
    let appends = plan.append_specs().into_iter().map(|spec| kept(spec.name, Some(MILESTONES)));
    let keyed = plan.keyed_specs().into_iter().map(|(spec, _)| spec.name);
    let keyed = keyed.chain([checkpoint::table_name(&pipeline.name)]).map(|name| kept(name, None));
    Ok(appends.chain(keyed).collect())
}
