//! `karat replay plan|start`: through the running instance, or on the folder itself when none runs.

use std::{process::ExitCode, time::Duration};

use karat_api::replays::LOCAL_HEADER;
use karat_lake::epochs::Epochs;
use karat_transform::{bronze::table_name, plan::PipelinePlan, rebuild};
use serde::Serialize;

use crate::{
    cli::{Format, InstanceArgs, ReplayCommand},
    failure::{FAILED, Failure, Result},
    instance::{Instance, Note},
};

pub async fn run(command: ReplayCommand) -> Result<ExitCode> {
    match command {
        ReplayCommand::Plan { pipeline, instance, format, all: _ } => plan(&pipeline, &instance, format).await,
        ReplayCommand::Start { pipeline, instance, all: _ } => start(&pipeline, &instance).await,
    }
}

#[derive(Serialize)]
struct Planned {
    pipeline: String,
    reads: Reads,
    rebuilds: Vec<String>,
}

#[derive(Serialize)]
struct Reads {
    table: String,
    versions: u64,
    files: usize,
    rows: u64,
    bytes: i64,
}

async fn plan(name: &str, arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    let pipeline = instance.pipeline(name)?;
    let lake = instance.lake()?;
    let bronze = lake.open(&table_name(&pipeline.topic)).await?;
    let plan = PipelinePlan::new(pipeline).await?;
    let appends = plan.append_specs().into_iter().map(|spec| spec.name);
    let planned = Planned {
        pipeline: name.to_owned(),
        reads: Reads {
            table: bronze.name().to_owned(),
            versions: bronze.version(),
            files: bronze.files().len(),
            rows: bronze.files().filter_map(karat_lake::DataFile::rows).sum(),
            bytes: bronze.files().map(karat_lake::DataFile::size_bytes).sum(),
        },
        rebuilds: appends.chain(plan.keyed_specs().into_iter().map(|(spec, _)| spec.name)).collect(),
    };
    if format == Format::Json {
        super::print_json(&planned)?;
        return Ok(ExitCode::SUCCESS);
    }
    let reads = &planned.reads;
    super::print(&format!("reads {}: {} rows, {} files, {} bytes", reads.table, reads.rows, reads.files, reads.bytes));
    super::print("rebuilds, in this order, and swaps them in one epoch:");
    planned.rebuilds.iter().for_each(|table| super::print(&format!("  {table}")));
    Ok(ExitCode::SUCCESS)
}

async fn start(name: &str, arguments: &InstanceArgs) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    instance.pipeline(name)?;
    match instance.running().await {
        Some(note) => order(&instance, name, &note).await?,
        None => on_the_folder(&instance, name).await?,
    }
    super::print(&format!("{name}: silver and gold are rebuilt"));
    Ok(ExitCode::SUCCESS)
}

/// Tells the running instance, then waits until its epoch has a new generation.
async fn order(instance: &Instance, name: &str, note: &Note) -> Result<()> {
    let epochs = Epochs::of(&instance.lake()?, name)?;
    let before = epochs.latest().await?.map_or(0, |epoch| epoch.generation);
    let body = serde_json::json!({"pipeline": name});
    let request = reqwest::Client::new().post(format!("{}/api/v1/admin/replays", note.url));
    let answer = request.header(LOCAL_HEADER, &note.local).json(&body).send().await.map_err(Failure::unreachable)?;
    if !answer.status().is_success() {
        let status = answer.status();
        return Err(Failure::new(
            FAILED,
            format!("the instance refused the replay ({status}): {}", answer.text().await.unwrap_or_default()),
        ));
    }
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if epochs.latest().await?.map_or(0, |epoch| epoch.generation) > before {
            return Ok(());
        }
        if instance.running().await.is_none() {
            return Err(Failure::new(
                FAILED,
                "the instance stopped before the replay was done; it goes on at its next start",
            ));
        }
    }
}

async fn on_the_folder(instance: &Instance, name: &str) -> Result<()> {
    let _lock = instance.lock()?;
    let pipeline = instance.pipeline(name)?;
    let lake = instance.lake()?;
    rebuild::finish_pending(pipeline, &instance.runner(pipeline, &lake).await?).await?;
    let settings = instance.runner(pipeline, &lake).await?;
    let mut shadow = rebuild::start(pipeline, &settings).await?;
    while shadow.catch_up().await? {}
    Ok(rebuild::swap(pipeline, &settings, shadow).await?)
}
