//! `karat table ls|show|verify`; `fsck` is beside.

use std::process::ExitCode;

use karat_lake::{Lake, Table, epochs::Epochs};
use karat_transform::{
    bronze::table_name,
    journal,
    plan::PipelinePlan,
    verify::{TableReport, verify},
};
use serde::Serialize;

use crate::{
    cli::{Format, InstanceArgs, TableCommand},
    failure::{FAILED, Failure, Result},
    instance::Instance,
};

pub async fn run(command: TableCommand) -> Result<ExitCode> {
    match command {
        TableCommand::Ls { instance, format } => list(&instance, format).await,
        TableCommand::Show { name, instance, format } => show(&name, &instance, format).await,
        TableCommand::Fsck { table, repair, instance, format } => {
            super::fsck::run(table.as_deref(), repair, &instance, format).await
        }
        TableCommand::Verify { pipeline, instance, format } => check(pipeline.as_deref(), &instance, format).await,
    }
}

#[derive(Serialize)]
struct TableRow {
    table: String,
    version: u64,
    files: usize,
    rows: u64,
    bytes: i64,
}

/// Every table of the instance at its published version: bronze and the event log at their newest.
pub async fn versions(instance: &Instance, lake: &Lake) -> Result<Vec<(String, Option<u64>)>> {
    let mut tables = Vec::new();
    for pipeline in &instance.pipelines.pipelines {
        let bronze = (table_name(&pipeline.topic), None);
        if !tables.contains(&bronze) && lake.open(&bronze.0).await.is_ok() {
            tables.push(bronze);
        }
        if let Some(epoch) = Epochs::of(lake, &pipeline.name)?.latest().await? {
            tables.extend(epoch.tables.into_iter().map(|(name, version)| (name, Some(version))));
        }
    }
    if lake.open(journal::TABLE).await.is_ok() {
        tables.push((journal::TABLE.to_owned(), None));
    }
    Ok(tables)
}

/// A table, or a line on standard error that says why there is none: others can be read all the same.
pub async fn open_or_say(lake: &Lake, name: &str, version: Option<u64>) -> Option<Table> {
    let opened = match version {
        Some(version) => lake.open_at(name, version).await,
        None => lake.open(name).await,
    };
    let said = opened.as_ref().err().map(ToString::to_string);
    if let Some(line) = said.as_ref().and_then(|said| said.lines().next()) {
        super::note(&format!("table `{name}` cannot be read and is left out: {line}; see `karat table fsck {name}`"));
    }
    opened.ok()
}

async fn list(arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    let lake = instance.lake()?;
    let (mut rows, mut is_whole) = (Vec::new(), true);
    for (name, version) in versions(&instance, &lake).await? {
        let Some(table) = open_or_say(&lake, &name, version).await else {
            is_whole = false;
            continue;
        };
        rows.push(TableRow {
            table: name,
            version: table.version(),
            files: table.files().len(),
            rows: table.files().filter_map(karat_lake::DataFile::rows).sum(),
            bytes: table.files().map(karat_lake::DataFile::size_bytes).sum(),
        });
    }
    let code = ExitCode::from(if is_whole { 0 } else { FAILED });
    if format == Format::Json {
        super::print_json(&rows)?;
        return Ok(code);
    }
    let cells = rows.iter().map(|row| {
        vec![
            row.table.clone(),
            row.version.to_string(),
            row.files.to_string(),
            row.rows.to_string(),
            row.bytes.to_string(),
        ]
    });
    super::print_table(&["TABLE", "VERSION", "FILES", "ROWS", "BYTES"], &cells.collect::<Vec<_>>());
    Ok(code)
}

#[derive(Serialize)]
struct Shown {
    table: String,
    version: u64,
    /// How a gold table is kept up to date.
    refresh: Option<&'static str>,
    /// Why it is kept so.
    reason: Option<String>,
    key: Vec<String>,
    columns: Vec<(String, String)>,
    files: Vec<(String, Option<u64>, i64)>,
    /// The first few traces of the rows that this version added, and how many records had one.
    traces: Vec<String>,
    traced_records: u64,
}

async fn show(name: &str, arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    let lake = instance.lake()?;
    let found = versions(&instance, &lake).await?.into_iter().find(|(table, _)| table == name);
    let Some((_, version)) = found else {
        return Err(Failure::usage(format!("there is no table `{name}`: `karat table ls` lists them")));
    };
    let table = match version {
        Some(version) => lake.open_at(name, version).await?,
        None => lake.open(name).await?,
    };
    let (traces, traced_records) = table.traces().await?;
    let mut shown = Shown {
        table: name.to_owned(),
        version: table.version(),
        refresh: None,
        reason: None,
        key: Vec::new(),
        columns: table
            .schema()
            .fields()
            .iter()
            .map(|field| (field.name().clone(), field.data_type().to_string()))
            .collect(),
        files: table.files().map(|file| (file.path().to_owned(), file.rows(), file.size_bytes())).collect(),
        traces,
        traced_records,
    };
    for pipeline in &instance.pipelines.pipelines {
        let plan = PipelinePlan::new(pipeline).await?;
        if let Some(gold) = plan.golds.iter().find(|gold| format!("gold.{}", gold.name) == name) {
            shown.refresh = Some(gold.plan.refresh());
            shown.reason = Some(gold.plan.reason().to_owned());
            shown.key = gold.plan.key().to_vec();
        }
    }
    if format == Format::Json {
        super::print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    super::print(&format!("{name}, version {}, {} files", shown.version, shown.files.len()));
    if let Some(refresh) = shown.refresh {
        let reason = shown.reason.unwrap_or_default();
        super::print(&format!("refresh {refresh}, because {reason}"));
        match shown.key.as_slice() {
            [] => super::print("one row"),
            key => super::print(&format!("key ({})", key.join(", "))),
        }
    }
    if !shown.traces.is_empty() {
        super::print(&format!("{} traced records, of {}", shown.traced_records, shown.traces.join(", ")));
    }
    let cells: Vec<Vec<String>> = shown.columns.into_iter().map(|(name, data_type)| vec![name, data_type]).collect();
    super::print_table(&["COLUMN", "TYPE"], &cells);
    Ok(ExitCode::SUCCESS)
}

async fn check(only: Option<&str>, arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    let lake = instance.lake()?;
    let mut reports: Vec<TableReport> = Vec::new();
    let chosen = instance.pipelines.pipelines.iter().filter(|pipeline| only.is_none_or(|only| only == pipeline.name));
    for pipeline in chosen {
        let settings = instance.runner(pipeline, &lake).await?;
        let scratch = tempfile::tempdir()?;
        reports.extend(verify(pipeline, &settings, scratch.path()).await?);
    }
    if reports.is_empty() {
        return Err(Failure::usage("there is nothing to verify: no such pipeline, or no epoch yet"));
    }
    if format == Format::Json {
        super::print_json(&reports)?;
    } else {
        let cells = reports
            .iter()
            .map(|report| vec![report.table.clone(), report.rows.to_string(), report.differences.to_string()]);
        super::print_table(&["TABLE", "ROWS", "DIFFERENCES"], &cells.collect::<Vec<_>>());
        for report in &reports {
            report.sample.iter().for_each(|difference| super::print(&format!("{} {difference}", report.table)));
        }
    }
    let differences: usize = reports.iter().map(|report| report.differences).sum();
    Ok(ExitCode::from(if differences == 0 { 0 } else { FAILED }))
}
