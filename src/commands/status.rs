//! `karat status`: how far each pipeline is.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use karat_api::serving::freshness::Objective;
use karat_lake::epochs::Epochs;
use serde::Serialize;

use crate::{
    cli::{Format, InstanceArgs},
    failure::Result,
    instance::Instance,
};

#[derive(Serialize)]
struct Row {
    pipeline: String,
    running: bool,
    epoch: u64,
    as_of: Option<String>,
    bronze_version: u64,
    records: i64,
    state: String,
    /// Tables with a freshness objective.
    objectives: Vec<Promise>,
}

#[derive(Serialize)]
struct Promise {
    table: String,
    fresh_within_seconds: f64,
    /// None before there is an event.
    is_fresh: Option<bool>,
}

pub async fn run(arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    let lake = instance.lake()?;
    let is_running = instance.running().await.is_some();
    let mut rows = Vec::new();
    for pipeline in &instance.pipelines.pipelines {
        let epoch = Epochs::of(&lake, &pipeline.name)?.latest().await?.unwrap_or_default();
        let as_of = epoch.as_of_us.and_then(DateTime::from_timestamp_micros);
        let now_us = Utc::now().timestamp_micros();
        let objectives: Vec<Promise> = Objective::of(pipeline)
            .into_iter()
            .map(|objective| Promise {
                is_fresh: objective.is_met(epoch.as_of_us, now_us),
                fresh_within_seconds: objective.fresh_within.as_secs_f64(),
                table: objective.table,
            })
            .collect();
        let late: Vec<&str> =
            objectives.iter().filter(|promise| promise.is_fresh == Some(false)).map(|p| p.table.as_str()).collect();
        let moving = if late.is_empty() { "ok".to_owned() } else { format!("late: {}", late.join(", ")) };
        rows.push(Row {
            pipeline: pipeline.name.clone(),
            running: is_running,
            epoch: epoch.epoch,
            as_of: as_of.map(|time| time.to_rfc3339()),
            bronze_version: epoch.bronze_version,
            records: epoch.covers().values().sum(),
            state: epoch.paused.map_or(moving, |reason| format!("paused: {reason}")),
            objectives,
        });
    }
    if format == Format::Json {
        super::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cells = rows.iter().map(|row| {
        let newest = row.as_of.clone().unwrap_or_else(|| "-".to_owned());
        let running = if row.running { "yes" } else { "no" };
        vec![
            row.pipeline.clone(),
            running.to_owned(),
            row.epoch.to_string(),
            newest,
            row.records.to_string(),
            row.state.clone(),
        ]
    });
    super::print_table(
        &["PIPELINE", "RUNNING", "EPOCH", "NEWEST EVENT", "RECORDS", "STATE"],
        &cells.collect::<Vec<_>>(),
    );
    Ok(ExitCode::SUCCESS)
}
