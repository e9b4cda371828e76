//! `karat replay plan|start`: through the running instance, or on the folder itself when none runs.
//!
//! An interval says which events a replay is for, and the plan shows them. The rebuild is of the whole tables in any case:
//! a keyed row may depend on events from before the interval, and rows outside it come out as they are.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use karat_api::replays::{LOCAL_HEADER, Replay, ReplayState};
use karat_schemas::pipelines::Pipeline;
use karat_transform::{
    bronze::{
        count::{TypeCount, count_types},
        table_name,
    },
    journal::{self, Entry, Kind},
    plan::PipelinePlan,
    rebuild,
    runner::RunnerSettings,
};
use serde::Serialize;

use crate::{
    cli::{Format, InstanceArgs, ReplayCommand, ReplayRange},
    failure::{FAILED, Failure, Result},
    instance::{Instance, Note},
};

pub async fn run(command: ReplayCommand) -> Result<ExitCode> {
    match command {
        ReplayCommand::Plan { pipeline, range, instance, format } => {
            plan(&pipeline, interval(range)?, &instance, format).await
        }
        ReplayCommand::Start { pipeline, range, instance } => start(&pipeline, interval(range)?, &instance).await,
    }
}

/// From a time to before another; none is the whole history.
type Interval = Option<(DateTime<Utc>, DateTime<Utc>)>;

fn interval(range: ReplayRange) -> Result<Interval> {
    let interval = range.from.zip(range.to);
    if interval.is_some_and(|(from, to)| from >= to) {
        return Err(Failure::usage("`--from` must be before `--to`"));
    }
    Ok(interval)
}

#[derive(Serialize)]
struct Planned {
    pipeline: String,
    reads: Reads,
    /// What the replay is for; absent for the whole history.
    interval: Option<InInterval>,
    /// Whole tables, in this order.
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

/// The bronze rows whose event time is in the interval.
#[derive(Serialize)]
struct InInterval {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    rows: u64,
    /// Of the events' payloads.
    bytes: u64,
    events: Vec<TypeCount>,
}

async fn plan(name: &str, interval: Interval, arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
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
        interval: match interval {
            Some((from, to)) => {
                let events = count_types(&bronze, from..to).await?;
                let (rows, bytes) = (events.iter().map(|count| count.rows).sum(), events.iter().map(|c| c.bytes).sum());
                Some(InInterval { from, to, rows, bytes, events })
            }
            None => None,
        },
        rebuilds: appends.chain(plan.keyed_specs().into_iter().map(|(spec, _)| spec.name)).collect(),
    };
    match format {
        Format::Json => super::print_json(&planned)?,
        Format::Text => show(&planned),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(planned: &Planned) {
    let reads = &planned.reads;
    super::print(&format!("reads {}: {} rows, {} files, {} bytes", reads.table, reads.rows, reads.files, reads.bytes));
    if let Some(interval) = &planned.interval {
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        super::print(&format!(
            "of which {} rows with {} bytes of data have an event time from {} to before {}:",
            interval.rows,
            interval.bytes,
            time(interval.from),
            time(interval.to)
        ));
        for count in &interval.events {
            let name = count.event_type.as_deref().unwrap_or("(no type)");
            super::print(&format!("  {name}: {} rows, {} bytes", count.rows, count.bytes));
        }
    }
    super::print("rebuilds these tables as a whole, in this order, and swaps them in one epoch:");
    planned.rebuilds.iter().for_each(|table| super::print(&format!("  {table}")));
}

async fn start(name: &str, interval: Interval, arguments: &InstanceArgs) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    instance.pipeline(name)?;
    if interval.is_some() {
        super::note("the whole tables are rebuilt, because their rows may depend on events from before the interval");
    }
    match instance.running().await {
        Some(note) => order(&instance, name, &note).await?,
        None => {
            let _lock = instance.lock()?;
            on_the_folder(&instance, name).await?;
        }
    }
    super::print(&format!("{name}: silver and gold are rebuilt"));
    Ok(ExitCode::SUCCESS)
}

/// Tells the running instance, and waits until the replay has ended there.
pub(super) async fn order(instance: &Instance, name: &str, note: &Note) -> Result<()> {
    let client = note.client(ANSWER_WITHIN)?;
    let url = format!("{}/api/v1/admin/replays", note.url);
    let ask = |request: reqwest::RequestBuilder| async {
        let answer = request.header(LOCAL_HEADER, &note.local).send().await.map_err(Failure::unreachable)?;
        let (status, text) = (answer.status(), answer.text().await.map_err(Failure::unreachable)?);
        if !status.is_success() {
            return Err(Failure::new(FAILED, format!("the instance refused the replay ({status}): {text}")));
        }
        Ok(serde_json::from_str::<serde_json::Value>(&text)?)
    };
    let ordered = ask(client.post(&url).json(&serde_json::json!({"pipeline": name}))).await?;
    let id = ordered["data"]["id"].as_str().unwrap_or_default();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let replay = match ask(client.get(format!("{url}/{id}"))).await {
            Ok(mut answer) => serde_json::from_value::<Replay>(answer["data"].take())?,
            Err(failure) if instance.running().await.is_some() => return Err(failure),
            Err(_) => {
                let message = "the instance stopped before the replay was done; it goes on at its next start";
                return Err(Failure::new(FAILED, message));
            }
        };
        match replay.state {
            ReplayState::Pending => {}
            ReplayState::Done => return Ok(()),
            ReplayState::Failed => {
                let reason = replay.failure.unwrap_or_default();
                let message = format!("the replay of `{name}` failed, and its tables are as they were: {reason}");
                return Err(Failure::new(FAILED, message));
            }
        }
    }
}

/// A running instance answers at once; this bounds the wait for one that hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Whoever calls this holds the lock of the folder.
pub(super) async fn on_the_folder(instance: &Instance, name: &str) -> Result<()> {
    let pipeline = instance.pipeline(name)?;
    let lake = instance.lake()?;
    rebuild::finish_pending(pipeline, &instance.runner(pipeline, &lake).await?).await?;
    let settings = instance.runner(pipeline, &lake).await?;
    let (journal, writer) = journal::start(&lake);
    journal.note(Entry::of(Kind::Replay, name).state("started").message("ordered while no worker ran"));
    let began = Instant::now();
    let result = rebuild_whole(pipeline, &settings).await;
    let ended = Entry {
        duration_us: u64::try_from(began.elapsed().as_micros()).ok(),
        ..Entry::of(Kind::Replay, name).state(if result.is_ok() { "done" } else { "failed" })
    };
    journal.note(match &result {
        Ok(()) => ended,
        Err(error) => ended.message(error),
    });
    writer.close().await;
    Ok(result?)
}

async fn rebuild_whole(pipeline: &Pipeline, settings: &RunnerSettings) -> karat_transform::Result<()> {
    let mut shadow = rebuild::start(pipeline, settings).await?;
    while shadow.catch_up().await? {}
    rebuild::swap(pipeline, settings, shadow).await
}
