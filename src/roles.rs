//! Roles and their wiring: what runs in this process, and how it stops.
//!
//! `up` runs all three over one log; `ingest`, `transform` and `api` run one each and meet in Kafka and the lake.

mod demo;
mod descriptors;
mod ends;
mod metrics;
mod notices;
mod postgres;
mod process;
mod secret;
mod spans;

use std::{collections::HashSet, net::TcpListener, process::ExitCode, sync::Arc, time::Duration};

use karat_access::Access;
use karat_api::{
    ApiSettings, Doors, Parts, app,
    auth::{AuthSettings, AvatarSettings},
    endpoints::PlannedEndpoint,
    export::ExportSettings,
    lakehouse::declared::DeclaredTable,
    replays::ReplaysApi,
    serving::{ServingCounters, freshness::Objective},
    snapshot::{Poke, Snapshots, follow},
};
use karat_eventlog::EventLog;
use karat_http::{EventRates, SharedCounts};
use karat_ingest::{Publisher, ReceiptKey, door::IngestApi};
use karat_lake::{Lake, objects};
use karat_transform::worker;
use prometheus_client::collector::Collector;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, watch};

use self::{metrics::MetricsServer, process::Work, spans::exporting};
use crate::{
    cli::{AccessArgs, Environment, ServeArgs, TransformArgs, UpArgs},
    config::{Settings, production},
    endpoints,
    failure::{Failure, Result},
    instance::{Instance, Note},
};

/// The pipeline whose tables the data routes serve.
const SERVED_PIPELINE: &str = "etl_runs";

/// Runs every role.
pub async fn up(arguments: UpArgs, settings: &Settings) -> Result<ExitCode> {
    production::require_fit(&arguments.serve, arguments.demo, settings)?;
    if arguments.demo && arguments.serve.access.tls_certificate.is_some() {
        return Err(Failure::configuration(
            "`--demo` publishes to this server without TLS: leave `server.tls_certificate` out",
        ));
    }
    if arguments.demo && arguments.serve.access.requires_consent() {
        return Err(Failure::configuration("nobody consents for `--demo`: leave `access.consent` out"));
    }
    let instance = Instance::new(&arguments.serve.instance)?;
    let start = async |work: &mut Work| {
        work.hold(instance.lock()?);
        let log = connect(&instance).await?;
        let served = Server::new(&instance, &arguments.serve, &log, Door::All).await?;
        if !arguments.without_pipelines {
            start_transform(&instance, &log, work)?;
        }
        let (url, access) = (served.note.url.clone(), served.access.clone());
        work.keep_until_stopped(instance.leave_note(&served.note)?);
        work.spawn(served.run(work.stopped()));
        if arguments.demo { demo::run(&instance, &access, &url).await } else { demo::welcome(&url) }
    };
    let ended = exporting(&arguments.serve.telemetry, Work::run(start)).await;
    ended.map_err(|failure| failure.with_settings(&arguments.serve.instance.place()))
}

/// Runs the doors.
pub async fn ingest(arguments: ServeArgs, settings: &Settings) -> Result<ExitCode> {
    production::require_fit(&arguments, false, settings)?;
    serve_role(arguments, Door::Ingest, "ingest").await
}

/// Runs the query API.
pub async fn api(arguments: ServeArgs, settings: &Settings) -> Result<ExitCode> {
    production::require_fit(&arguments, false, settings)?;
    serve_role(arguments, Door::Api, "api").await
}

/// Runs the pipelines.
pub async fn transform(arguments: TransformArgs, settings: &Settings) -> Result<ExitCode> {
    production::require_fit_without_server(&arguments.instance, settings)?;
    let instance = Instance::new(&arguments.instance)?;
    instance.require_kafka("transform")?;
    let start = async |work: &mut Work| {
        work.hold(instance.lock()?);
        let log = connect(&instance).await?;
        if let Some(address) = arguments.telemetry.metrics_listen {
            let server = MetricsServer::new(address, vec![Box::new(metrics::Log(Arc::clone(&log)))])?;
            work.spawn(server.run(work.stopped()));
        }
        start_transform(&instance, &log, work)
    };
    let ended = exporting(&arguments.telemetry, Work::run(start)).await;
    ended.map_err(|failure| failure.with_settings(&arguments.instance.place()))
}

async fn serve_role(arguments: ServeArgs, door: Door, role: &str) -> Result<ExitCode> {
    let instance = Instance::new(&arguments.instance)?;
    instance.require_kafka(role)?;
    let start = async |work: &mut Work| {
        instance.create_folder()?;
        let log = connect(&instance).await?;
        let served = Server::new(&instance, &arguments, &log, door).await?;
        demo::welcome(&served.note.url)?;
        work.spawn(served.run(work.stopped()));
        Ok(())
    };
    exporting(&arguments.telemetry, Work::run(start)).await
}

/// The log, with every declared topic, once the lake is known to be there.
async fn connect(instance: &Instance) -> Result<Arc<dyn EventLog>> {
    instance.lake()?.require_usable().await?;
    let log = instance.log().await?;
    worker::ensure_topics(log.as_ref(), &instance.pipelines).await?;
    Ok(log)
}

fn start_transform(instance: &Instance, log: &Arc<dyn EventLog>, work: &mut Work) -> Result<()> {
    let settings = instance.worker(Arc::clone(log))?;
    // Orders come through the log.
    let (_, received) = mpsc::channel(1);
    let stop = work.stopped();
    let engine = Engine::new()?;
    work.spawn(async move {
        let worked = engine.handle().spawn(worker::run(settings, stop, received)).await;
        drop(engine);
        Ok(worked??)
    });
    Ok(())
}

/// The threads of the pipelines. Steps keep a thread busy for tens of milliseconds; requests must not wait behind them.
struct Engine(Option<tokio::runtime::Runtime>);

impl Engine {
    fn new() -> Result<Self> {
        let runtime = crate::runtime::threads().thread_name("transform").build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().map_or_else(tokio::runtime::Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Engine {
    /// A runtime may not wait for its threads inside of another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Which routes a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    All,
    Ingest,
    Api,
}

/// A server, bound and ready to run.
struct Server {
    doors: Doors,
    note: Note,
    access: Access,
    log: Arc<dyn EventLog>,
    parts: Parts,
    settings: ApiSettings,
    metrics: Option<MetricsServer>,
    /// Operations of others than the API.
    beside: (Option<IngestApi>, ReplaysApi),
    /// Epochs that this server answers from, each with what wakes its follower.
    followed: Vec<(Arc<Snapshots>, Poke)>,
    watcher: Arc<notices::Watcher>,
}

impl Server {
    async fn new(instance: &Instance, arguments: &ServeArgs, log: &Arc<dyn EventLog>, door: Door) -> Result<Self> {
        let lake = instance.lake()?;
        let listener = TcpListener::bind(arguments.listen)
            .map_err(|error| Failure::configuration(format!("cannot listen on `{}`: {error}", arguments.listen)))?;
        let serving = arguments.access.serving(descriptors::room_for_connections())?;
        let scheme = if serving.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr()?);
        let mut accounts = instance.access()?;
        let environment = arguments.instance.environment;
        arguments.access.apply(&mut accounts, environment, &url)?;
        let access = Access::open(accounts).await?;
        let secret = secret::load_or_create(&instance.keys())?;
        let host = arguments.access.allowed_hosts.first().cloned();
        let note = Note { url, host, local: hex::encode(rand::random::<[u8; 32]>()) };
        let snapshots = Snapshots::new(lake.clone(), SERVED_PIPELINE)?;
        let endpoints = endpoints(instance).await?;
        let others = others(instance, &lake)?;
        let followed: Vec<(Arc<Snapshots>, Poke)> =
            [&snapshots].into_iter().chain(&others).map(|of| (Arc::clone(of), Poke::default())).collect();
        let pokes = followed.iter().map(|(_, poke)| Arc::clone(poke)).collect();
        let watcher = notices::Watcher::new(Arc::clone(log), &lake, &instance.pipelines, pokes)?;
        let receipts = ReceiptKey::new(&secret);
        let publisher = Publisher::new(Arc::clone(log), Arc::new(instance.contracts()?), receipts);
        let redis = arguments.access.redis.address()?;
        let rates = EventRates::new(redis.as_ref().map(SharedCounts::new).transpose()?);
        let ingest = (door != Door::Api).then(|| IngestApi::new(publisher, Some(watcher.clone())).with_rates(rates));
        let counters = Arc::<ServingCounters>::default();
        let mut loads: Vec<Box<dyn Collector>> = vec![
            Box::new(metrics::Hashing(access.clone())),
            Box::new(metrics::Log(Arc::clone(log))),
            Box::new(metrics::Pipelines(Arc::clone(&watcher))),
            Box::new(metrics::Serving(Arc::clone(&counters))),
            Box::new(serving.counts.clone()),
        ];
        if let Some(ingest) = &ingest {
            loads.push(Box::new(metrics::Door(ingest.budget())));
        }
        let address = arguments.telemetry.metrics_listen;
        let metrics = address.map(|address| MetricsServer::new(address, loads)).transpose()?;
        let names = instance.pipelines.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect();
        let replays = ReplaysApi::new(Arc::clone(log), lake.clone(), names, Some(note.local()))?;
        let mut settings = ApiSettings {
            cursor_key: Some(SecretString::from(hex::encode(secret.expose_secret()))),
            docs_are_public: environment != Environment::Production,
            ..ApiSettings::default()
        };
        let served = instance.pipelines.pipelines.iter().find(|pipeline| pipeline.name == SERVED_PIPELINE);
        settings.serving.objectives = served.map(Objective::of).unwrap_or_default();
        settings.serving.query_deadline = Duration::from_secs(arguments.query_deadline);
        settings.serving.cache_bytes = arguments.answer_cache.saturating_mul(1 << 20);
        settings.serving.exports = ExportSettings {
            at_a_time: arguments.exports.into(),
            deadline: Duration::from_secs(arguments.export_deadline),
            scratch: instance.data.join("scratch"),
            ..ExportSettings::default()
        };
        settings.serving.tables = instance.pipelines.pipelines.iter().flat_map(DeclaredTable::of).collect();
        settings.serving.sql = arguments.sql.settings();
        if arguments.without_limits {
            settings.auth = AuthSettings::without_limits();
        }
        settings.auth.redis = redis;
        settings.auth.avatars = Some(avatars(instance, &arguments.access).await?);
        settings.auth.experience = arguments.access.experience();
        settings.auth.origins = arguments.access.origins()?;
        arguments.access.harden(&mut settings.harden)?;
        arguments.live.apply(&mut settings.live)?;
        let doors = postgres::open(
            arguments.sql.postgres_listen,
            Doors::new(listener, serving.clone()),
            &access,
            &settings,
            &serving,
        )?;
        let parts = Parts {
            access: access.clone(),
            lake,
            snapshots,
            lag: watcher.clone(),
            checks: vec![watcher.ready_check()],
            others,
            endpoints,
            counters,
        };
        Ok(Self {
            doors,
            note,
            access,
            log: Arc::clone(log),
            parts,
            settings,
            metrics,
            beside: (ingest, replays),
            followed,
            watcher,
        })
    }

    async fn run(self, stop: watch::Receiver<bool>) -> Result<()> {
        let follow_each = |(snapshots, poke)| tokio::spawn(follow(snapshots, poke));
        let following: Vec<_> = self.followed.into_iter().map(follow_each).collect();
        let watching = tokio::spawn(self.watcher.run(self.log));
        let counting = self.metrics.map(|metrics| tokio::spawn(metrics.run(stop.clone())));
        let served = match self.beside {
            (Some(ingest), replays) => self.doors.serve(app(self.settings, self.parts, (ingest, replays))?, stop).await,
            (None, replays) => self.doors.serve(app(self.settings, self.parts, replays)?, stop).await,
        };
        following.iter().for_each(tokio::task::JoinHandle::abort);
        watching.abort();
        if let Some(counting) = counting {
            counting.abort();
        }
        self.access.flush().await?;
        Ok(served?)
    }
}

/// The declared endpoints; all of them work, or the start ends.
async fn endpoints(instance: &Instance) -> Result<Vec<Arc<PlannedEndpoint>>> {
    let (planned, problems) = endpoints::planned(&instance.pipelines, &HashSet::new()).await;
    if problems.is_empty() { Ok(planned) } else { Err(instance.invalid(&problems)) }
}

/// The epochs of the pipelines beside that of the runs: tables of each are asked.
fn others(instance: &Instance, lake: &Lake) -> Result<Vec<Arc<Snapshots>>> {
    let declared = &instance.pipelines.pipelines;
    let others = declared.iter().filter(|pipeline| pipeline.name != SERVED_PIPELINE);
    others.map(|pipeline| Ok(Snapshots::of_epochs(lake.clone(), &pipeline.name)?)).collect()
}

/// The place of the pictures of accounts, and who looks at them first.
async fn avatars(instance: &Instance, arguments: &AccessArgs) -> Result<AvatarSettings> {
    let folder = || instance.data.join("avatars").display().to_string();
    let location = arguments.avatars.clone().unwrap_or_else(folder);
    let store = objects::open(&location).await.map_err(|error| {
        let failure = Failure::from(error);
        Failure::new(failure.code, format!("`access.avatars`: {}", failure.message()))
    })?;
    Ok(AvatarSettings { store, scanner: arguments.scanner.clone() })
}
