//! The application as its clients see it: a real listener, a lake in a temporary folder, accounts of each kind.

mod client;
pub mod rows;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use karat_access::{Access, AccessSettings, Actor, HashSettings, NewUser, Origin, Role};
use karat_api::{
    ApiSettings, Doors, Parts, app,
    auth::AuthSettings,
    endpoints::PlannedEndpoint,
    lag::{Lag, records_behind},
    snapshot::{Poke, Snapshots, follow},
};
#[cfg(feature = "postgres-wire")]
use karat_http::ConnectionCounts;
use karat_http::ServeSettings;
use karat_lake::{Cleaner, Kept, Lake, TableSpec, arrow::array::RecordBatch, epochs::Epochs};
use karat_schemas::{epoch::Epoch, pipelines};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

pub use client::Reply;
pub use rows::{Profit, Run};

const PASSWORD: &str = "nine-Blue-7-boats";

/// A running application. Ends with the test.
pub struct TestApp {
    pub address: SocketAddr,
    /// Of the port for PostgreSQL clients.
    #[cfg(feature = "postgres-wire")]
    pub postgres: SocketAddr,
    /// Of the connections of all ports.
    #[cfg(feature = "postgres-wire")]
    pub counts: ConnectionCounts,
    /// Sees everything.
    pub admin: String,
    /// Sees own rows.
    pub user: String,
    pub user_id: String,
    pub lake: Lake,
    /// Of the runs and of the profits.
    followed: [Followed; 2],
    log_ends: Arc<LogEnds>,
    /// The last epoch of each pipeline.
    epochs: Mutex<BTreeMap<String, u64>>,
    stop: watch::Sender<bool>,
    served: Mutex<Option<JoinHandle<std::io::Result<()>>>>,
    _folder: tempfile::TempDir,
}

/// The epochs of a pipeline, and what wakes their follower.
struct Followed {
    snapshots: Arc<Snapshots>,
    poke: Poke,
}

impl Followed {
    fn new(snapshots: Arc<Snapshots>) -> Self {
        let poke = Poke::default();
        tokio::spawn(follow(Arc::clone(&snapshots), Arc::clone(&poke)));
        Self { snapshots, poke }
    }

    async fn wait_for(&self, epoch: u64) {
        let mut moved = self.snapshots.moved();
        self.poke.notify_one();
        let arrived = tokio::time::timeout(Duration::from_secs(120), moved.wait_for(|number| *number >= epoch)).await;
        arrived.expect("the epoch was not followed in time").unwrap();
    }
}

#[derive(Default)]
struct LogEnds(Mutex<Option<i64>>);

impl Lag for LogEnds {
    fn records_after(&self, _pipeline: &str, positions: &BTreeMap<u32, i64>) -> Option<u64> {
        self.0.lock().unwrap().map(|end| records_behind(&BTreeMap::from([(0, end)]), positions))
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ApiSettings)) -> Self {
        Self::start_as(|accounts| accounts, change, Vec::new(), true).await
    }

    /// With other settings of the accounts.
    pub async fn start_on(
        accounts: impl FnOnce(AccessSettings) -> AccessSettings,
        change: impl FnOnce(&mut ApiSettings),
    ) -> Self {
        Self::start_as(accounts, change, Vec::new(), true).await
    }

    /// With the endpoints that a file of pipelines declares over the tables of the runs.
    pub async fn start_with_endpoints(declaration: &str) -> Self {
        Self::start_as(|accounts| accounts, |_| {}, planned(declaration).await, true).await
    }

    /// The same where no pipeline but that of the runs is served.
    pub async fn start_with_runs_alone(declaration: &str) -> Self {
        Self::start_as(|accounts| accounts, |_| {}, planned(declaration).await, false).await
    }

    async fn start_as(
        accounts: impl FnOnce(AccessSettings) -> AccessSettings,
        change: impl FnOnce(&mut ApiSettings),
        endpoints: Vec<Arc<PlannedEndpoint>>,
        has_profits: bool,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hashing = HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() };
        let access = AccessSettings { hashing, ..AccessSettings::in_folder(folder.path()) };
        let access = Access::open(accounts(access)).await.unwrap();
        for (name, role) in [("the_admin", Role::Admin), ("maria_77", Role::User)] {
            let new = NewUser { username: name.into(), email: None, password: PASSWORD.to_owned().into(), role };
            access.create_user(new, Actor::Shell, &Origin::default()).await.unwrap();
        }
        let lake = Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap();
        let runs = Followed::new(Snapshots::new(lake.clone(), "etl_runs").unwrap());
        let finance = Followed::new(Snapshots::of_epochs(lake.clone(), "finance").unwrap());
        let log_ends = Arc::<LogEnds>::default();
        let auth = AuthSettings::without_limits();
        let mut settings = ApiSettings { auth, ..ApiSettings::default() };
        change(&mut settings);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // A machine that is busy with other tests is not a client that takes its time.
        let long = Duration::from_secs(600);
        let serving = ServeSettings {
            header_timeout: long,
            body_timeout: long,
            answer_timeout: long,
            ..ServeSettings::default()
        };
        #[cfg(feature = "postgres-wire")]
        let counts = serving.counts.clone();
        let doors = Doors::new(listener, serving.clone());
        #[cfg(feature = "postgres-wire")]
        let (doors, postgres) = {
            let local = "127.0.0.1:0".parse().unwrap();
            let port = karat_api::wire::Port::bind(local, access.clone(), &settings, &serving).unwrap();
            let postgres = port.address().unwrap();
            (doors.with_postgres(port), postgres)
        };
        let parts = Parts {
            access,
            lake: lake.clone(),
            snapshots: Arc::clone(&runs.snapshots),
            lag: log_ends.clone(),
            checks: vec![],
            others: has_profits.then(|| Arc::clone(&finance.snapshots)).into_iter().collect(),
            endpoints,
            counters: Arc::default(),
        };
        let endpoint = app(settings, parts, ()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(doors.serve(endpoint, stopped));
        let mut app = Self {
            address,
            #[cfg(feature = "postgres-wire")]
            postgres,
            #[cfg(feature = "postgres-wire")]
            counts,
            admin: String::new(),
            user: String::new(),
            user_id: String::new(),
            lake,
            followed: [runs, finance],
            log_ends,
            epochs: Mutex::default(),
            stop,
            served: Mutex::new(Some(served)),
            _folder: folder,
        };
        app.admin = app.log_in("the_admin").await.0;
        (app.user, app.user_id) = app.log_in("maria_77").await;
        app
    }

    async fn log_in(&self, name: &str) -> (String, String) {
        let body = json!({"username": name, "password": PASSWORD}).to_string();
        let headers = [("content-type", "application/json")];
        let reply = client::send(self.address, "POST", "/api/v1/auth/login", &headers, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        (reply.text_at("/data/access_token").to_owned(), reply.text_at("/data/user/id").to_owned())
    }

    /// A GET by the admin.
    pub async fn get(&self, path: &str) -> Reply {
        self.get_as(&self.admin, path, &[]).await
    }

    /// A GET by the user.
    pub async fn get_as_user(&self, path: &str) -> Reply {
        self.get_as(&self.user, path, &[]).await
    }

    pub async fn get_as(&self, token: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let token = format!("Bearer {token}");
        let headers: Vec<_> = headers.iter().copied().chain([("authorization", token.as_str())]).collect();
        client::send(self.address, "GET", path, &headers, "").await
    }

    /// A request without a credential.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        client::send(self.address, method, path, headers, body).await
    }

    /// A question in SQL by the admin.
    pub async fn ask(&self, sql: &str) -> Reply {
        self.ask_as(&self.admin, &json!({"sql": sql})).await
    }

    pub async fn ask_as(&self, token: &str, body: &serde_json::Value) -> Reply {
        let token = format!("Bearer {token}");
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        client::send(self.address, "POST", "/api/v1/query", &headers, &body.to_string()).await
    }

    /// Tells the server to stop; the task ends when it has.
    pub fn stop(&self) -> JoinHandle<std::io::Result<()>> {
        self.stop.send_replace(true);
        self.served.lock().unwrap().take().unwrap()
    }

    /// Where the log ends, in records of its one partition.
    pub fn log_ends_at(&self, end: i64) {
        *self.log_ends.0.lock().unwrap() = Some(end);
    }

    /// Makes `runs` everything that the tables hold, in a new epoch that covers `position` records, and waits until it is
    /// answered from.
    pub async fn publish(&self, runs: &[Run], position: i64) -> u64 {
        let tables = vec![
            ("gold.summary_state", rows::summary_state(runs)),
            ("gold.sync_status", rows::sync_status(runs)),
            ("gold.user_days", rows::user_days(runs)),
            ("silver.runs", rows::silver_runs(runs)),
        ];
        let as_of_us = runs.iter().map(|run| run.started_at_us).max();
        let epoch = self.write_epoch("etl_runs", tables, as_of_us, position).await;
        self.followed[0].wait_for(epoch).await;
        epoch
    }

    /// The same of the profits.
    pub async fn publish_profits(&self, profits: &[Profit], position: i64) -> u64 {
        let tables = vec![("gold.profits", rows::profits(profits))];
        let as_of_us = profits.iter().map(|profit| profit.recorded_at_us).max();
        let epoch = self.write_epoch("finance", tables, as_of_us, position).await;
        self.followed[1].wait_for(epoch).await;
        epoch
    }

    async fn write_epoch(
        &self,
        pipeline: &str,
        batches: Vec<(&str, RecordBatch)>,
        as_of_us: Option<i64>,
        position: i64,
    ) -> u64 {
        let mut tables = BTreeMap::new();
        for (name, batch) in batches {
            tables.insert(name.to_owned(), self.replace(name, batch).await);
        }
        let number = {
            let mut epochs = self.epochs.lock().unwrap();
            let epoch = epochs.entry(pipeline.to_owned()).or_default();
            *epoch += 1;
            *epoch
        };
        let epoch = Epoch {
            pipeline: pipeline.to_owned(),
            epoch: number,
            tables,
            as_of_us,
            positions: BTreeMap::from([(0, position)]),
            written_at_us: chrono::Utc::now().timestamp_micros(),
            ..Epoch::default()
        };
        assert!(Epochs::of(&self.lake, pipeline).unwrap().put(&epoch).await.unwrap());
        number
    }

    async fn replace(&self, name: &str, batch: RecordBatch) -> u64 {
        let spec = TableSpec {
            name: name.to_owned(),
            schema: batch.schema(),
            partition_by: vec![],
            stats_columns: vec![],
            append_only: false,
        };
        let mut table = self.lake.open_or_create(&spec).await.unwrap();
        let old = table.files().map(|file| file.path().to_owned()).collect();
        let staged = table.staging().stage("part", &[], &[batch]).await.unwrap();
        table.commit(old, staged.into_iter().collect(), &[]).await.unwrap().version()
    }

    /// Removes what only older versions of a table have, as clean-up does when they are old enough.
    pub async fn clean(&self, table: &str) {
        let kept = Kept { age: Duration::ZERO, version: None, commits_after: None, milestones: None };
        let cleaned = Cleaner::new(self.lake.clone()).clean(table, &kept).await.unwrap();
        assert!(cleaned.files > 0, "no file of {table} is of older versions alone");
    }

    /// Removes every trace of an epoch, as clean-up does with old ones.
    pub async fn forget_epochs_before(&self, number: u64) {
        Epochs::of(&self.lake, "etl_runs").unwrap().remove_before(number).await;
    }
}

/// The endpoints of a file of pipelines, over the tables of the runs.
async fn planned(declaration: &str) -> Vec<Arc<PlannedEndpoint>> {
    let file = pipelines::parse(declaration).unwrap_or_else(|problems| panic!("{problems}"));
    let gold = [("summary_state".to_owned(), rows::summary_state(&[]).schema())];
    let mut planned = Vec::new();
    for endpoint in file.endpoints {
        planned.push(Arc::new(PlannedEndpoint::new(endpoint, &gold).await.unwrap_or_else(|p| panic!("{p:?}"))));
    }
    planned
}

/// Microseconds of an RFC 3339 time.
pub fn at(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

/// A completed run of a minute.
pub fn run(id: &str, source: &str, job: &str, started_at: &str) -> Run {
    Run {
        id: id.to_owned(),
        source: source.to_owned(),
        job: job.to_owned(),
        status: "completed".to_owned(),
        started_at_us: at(started_at),
        duration_us: Some(60_000_000),
        records_read: 10,
        ..Run::default()
    }
}
