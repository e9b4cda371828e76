//! Keeps tables small by itself (spec M1): what no kept version needs is removed, every few minutes, beside everything else.
//!
//! It removes files and never commits, so it conflicts with nobody. The newest epoch of a pipeline, and everything younger
//! than the declared ages, stays readable: an older version that a reader still holds is then gone, which readers of the
//! API are told with 410. Small files are merged elsewhere ([`crate::compaction`]), and logs get their checkpoints from
//! whoever commits.
//!
//! The log of bronze stays whole: a replay reads it commit by commit from the first one.

use std::time::Duration;

use karat_lake::{Cleaned, Kept, Lake, epochs::Epochs};
use karat_schemas::pipelines::Pipeline;
use tokio::sync::watch;

use crate::{Result, bronze, checkpoint, journal::TABLE as EVENT_LOG, plan::PipelinePlan, worker::WorkerSettings};

/// What is kept, and how often the rest is removed.
#[derive(Debug, Clone, Copy)]
pub struct MaintenanceSettings {
    /// Ten minutes: the files of an hour are listed in less than a second.
    pub every: Duration,
    /// An hour of old versions of keyed tables, gold and checkpoints, which rewrite their files all the time. Also how long
    /// a file may take from being written to its commit.
    pub rewritten: Duration,
    /// Seven days of tables that are only appended to: there only merged files and leftovers of crashes go.
    pub appended: Duration,
}

impl Default for MaintenanceSettings {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { every: Duration::from_secs(600), rewritten: day / 24, appended: 7 * day }
    }
}

/// Runs until `stop`. A table that cannot be cleaned is a line in the log, and is tried again.
pub(crate) async fn run(settings: WorkerSettings, mut stop: watch::Receiver<bool>) -> Result<()> {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(settings.maintenance.every) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = clean_all(&settings) => {}
        }
    }
}

async fn clean_all(settings: &WorkerSettings) {
    for pipeline in &settings.pipelines.pipelines {
        match tables_of(pipeline, &settings.lake, &settings.maintenance).await {
            Ok(tables) => {
                for (table, kept) in tables {
                    clean(&settings.lake, &table, &kept).await;
                }
            }
            Err(error) => tracing::debug!(pipeline = pipeline.name, %error, "not cleaned"),
        }
    }
    let kept = Kept { age: settings.maintenance.appended, version: None, cleans_log: true };
    clean(&settings.lake, EVENT_LOG, &kept).await;
}

async fn clean(lake: &Lake, table: &str, kept: &Kept) {
    match lake.clean(table, kept).await {
        Ok(cleaned) if cleaned == Cleaned::default() => {}
        Ok(Cleaned { files, bytes, log_entries }) => {
            tracing::info!(table, files, bytes, log_entries, "removed what no kept version needs");
        }
        Err(karat_lake::Error::UnknownTable(_)) => {}
        Err(error) => tracing::warn!(table, %error, "not cleaned; it is tried again"),
    }
}

/// The tables of a pipeline, its bronze and checkpoint included, and what stays of each.
async fn tables_of(pipeline: &Pipeline, lake: &Lake, settings: &MaintenanceSettings) -> Result<Vec<(String, Kept)>> {
    let plan = PipelinePlan::new(pipeline).await?;
    let epoch = Epochs::of(lake, &pipeline.name)?.latest().await?.unwrap_or_default();
    let kept = |table: &str, age| Kept { age, version: epoch.tables.get(table).copied(), cleans_log: true };
    let appended = plan.append_specs().into_iter().map(|spec| (kept(&spec.name, settings.appended), spec.name));
    let keyed = plan.keyed_specs().into_iter().map(|(spec, _)| (kept(&spec.name, settings.rewritten), spec.name));
    let mut tables: Vec<(String, Kept)> = appended.chain(keyed).map(|(kept, name)| (name, kept)).collect();
    let checkpoint = checkpoint::table_name(&pipeline.name);
    tables.push((checkpoint, Kept { age: settings.rewritten, version: None, cleans_log: true }));
    let bronze = bronze::table_name(&pipeline.topic);
    tables.push((bronze, Kept { age: settings.appended, version: None, cleans_log: false }));
    Ok(tables)
}
