//! `karat openapi`: the document of every route, from the code itself.

use std::{process::ExitCode, sync::Arc};

use karat_access::{Access, AccessSettings};
use karat_api::{ApiSettings, Parts, lag::NoLag, openapi_json, replays::ReplaysApi, snapshot::Snapshots};
use karat_eventlog::{EventLog, embedded::EmbeddedLog};
use karat_ingest::{Publisher, ReceiptKey, door::IngestApi};
use karat_lake::Lake;
use karat_schemas::pipelines::Pipelines;
use secrecy::SecretBox;

use crate::failure::Result;

/// Builds the application over empty folders, which are removed, and asks it for its document.
pub async fn run() -> Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("log");
    let log: Arc<dyn EventLog> = Arc::new(tokio::task::spawn_blocking(move || EmbeddedLog::open(&path)).await??);
    let lake = Lake::at(&folder.path().join("lake").display().to_string())?;
    let contracts = karat_schemas::events::Contracts::compile(&Pipelines::default(), |_| Ok(String::new()));
    let contracts = contracts.map_err(|problems| crate::failure::Failure::configuration(problems.join("\n")))?;
    let receipts = ReceiptKey::new(&SecretBox::new(Box::new([0; 32])));
    let ingest = IngestApi::new(Publisher::new(Arc::clone(&log), Arc::new(contracts), receipts), None);
    let replays = ReplaysApi::new(log, lake.clone(), Vec::new(), None)?;
    let parts = Parts {
        access: Access::open(AccessSettings::in_folder(folder.path())).await?,
        snapshots: Snapshots::new(lake.clone(), "etl_runs")?,
        lake,
        lag: Arc::new(NoLag),
        checks: Vec::new(),
        others: Vec::new(),
        // Those of the code: an instance adds what its pipelines declare.
        endpoints: Vec::new(),
        counters: Arc::default(),
    };
    let document = openapi_json(&ApiSettings::default(), &parts, (ingest, replays))?;
    super::print(&document);
    Ok(ExitCode::SUCCESS)
}
