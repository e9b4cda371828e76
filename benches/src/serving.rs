//! The server that `serve-load` measures: the product's own application over made-up rows, and beside it routes that do
//! nothing, for comparison.
//!
//! - `fixed` is an operation of the application: a text behind everything that every route of it is behind, log-in and quotas
//!   included.
//! - `carried` is the same text on the connections of this project, with nothing between.
//! - `bare` is the same text on the framework's own server.
//!
//! Quotas count, and are so large that nothing is refused.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use karat_access::{Access, AccessSettings, Actor, NewUser, Origin, Role};
use karat_api::{
    ApiSettings, Parts, app,
    auth::AuthSettings,
    lag::NoLag,
    serving::{ServingCounters, ServingLoad},
    snapshot::{Poke, Snapshots, follow},
};
use karat_http::{Authenticated, ServeSettings, serve};
use karat_lake::{
    Lake, TableSpec,
    arrow::{
        array::RecordBatch,
        datatypes::{Field, Schema},
    },
    epochs::Epochs,
};
use karat_schemas::epoch::Epoch;
use poem::{Endpoint, Response, Route, endpoint::make_sync, listener::TcpAcceptor};
use poem_openapi::{OpenApi, payload::Binary};

use crate::{
    Error, Result,
    slices::{SlicePlan, Slices},
};

/// Who logs in to ask: sees every row.
pub const USERNAME: &str = "bench";
pub const PASSWORD: &str = "Only 4 one measurement!";

const PIPELINE: &str = "etl_runs";
const TABLE: &str = "gold.summary_state";
/// Of one client network, which all connections come from here.
const MAX_CONNECTIONS: usize = 40_000;

/// A running server. It ends with the runtime that it was started on.
pub struct Served {
    pub app: SocketAddr,
    pub carried: SocketAddr,
    pub bare: SocketAddr,
    text: Text,
    counters: Arc<ServingCounters>,
}

/// The fixed text; empty until it is known how long it has to be.
type Text = Arc<OnceLock<Bytes>>;

struct FixedApi(Text);

#[OpenApi]
impl FixedApi {
    /// A fixed text
    #[oai(path = "/fixed", method = "get", operation_id = "read_fixed")]
    async fn fixed(&self, _caller: Authenticated) -> Binary<Bytes> {
        Binary(self.0.get().cloned().unwrap_or_default())
    }
}

impl Served {
    /// Makes the rows, and starts. `folder` is empty, and stays until the end.
    ///
    /// # Errors
    /// What goes wrong in making rows and accounts, and a listener that cannot be had.
    pub async fn start(folder: &Path, plan: SlicePlan) -> Result<Self> {
        let lake = Lake::at(&folder.join("lake").to_string_lossy())?;
        fill(&lake, plan).await?;
        let snapshots = Snapshots::new(lake.clone(), PIPELINE)?;
        let mut moved = snapshots.moved();
        tokio::spawn(follow(Arc::clone(&snapshots), Poke::default()));
        // Its sender is in `snapshots`, so it is never gone.
        let _ = moved.wait_for(|epoch| *epoch > 0).await;
        let access = Access::open(AccessSettings::in_folder(folder)).await?;
        let person = NewUser {
            username: USERNAME.to_owned(),
            email: None,
            password: PASSWORD.to_owned().into(),
            role: Role::Admin,
        };
        access.create_user(person, Actor::Shell, &Origin::default()).await?;
        let (text, counters) = (Text::default(), Arc::<ServingCounters>::default());
        let parts = Parts {
            access,
            lake,
            snapshots,
            lag: Arc::new(NoLag),
            checks: Vec::new(),
            others: Vec::new(),
            endpoints: Vec::new(),
            counters: Arc::clone(&counters),
        };
        let settings = ApiSettings { auth: with_large_quotas(), ..ApiSettings::default() };
        let app = start(app(settings, parts, FixedApi(Arc::clone(&text)))?)?;
        let carried = start(nothing_but(&text))?;
        let bare = start_bare(nothing_but(&text))?;
        Ok(Self { app, carried, bare, text, counters })
    }

    /// Makes the fixed text so long. Said once.
    pub fn set_length(&self, bytes: usize) {
        let _ = self.text.set(Bytes::from(vec![b'x'; bytes]));
    }

    /// How answers were come by.
    pub fn load(&self) -> ServingLoad {
        self.counters.load()
    }
}

fn with_large_quotas() -> AuthSettings {
    let mut auth = AuthSettings::default();
    if let Some(limits) = &mut auth.limits {
        for quota in [&mut limits.anonymous, &mut limits.user, &mut limits.api_key] {
            quota.requests = u32::MAX;
        }
    }
    auth
}

fn nothing_but(text: &Text) -> Route {
    let text = Arc::clone(text);
    Route::new().at("/bare", poem::get(make_sync(move |_| Response::from(text.get().cloned().unwrap_or_default()))))
}

fn start(app: impl Endpoint<Output = Response> + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let settings = ServeSettings {
        max_connections: MAX_CONNECTIONS,
        max_connections_per_network: MAX_CONNECTIONS,
        ..ServeSettings::default()
    };
    tokio::spawn(serve(listener, app, settings, std::future::pending()));
    Ok(address)
}

fn start_bare(app: Route) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    tokio::spawn(poem::Server::new_with_acceptor(TcpAcceptor::from_std(listener)?).run(app));
    Ok(address)
}

/// The table that summaries are folded from, and the epoch that names it.
async fn fill(lake: &Lake, plan: SlicePlan) -> Result<()> {
    let mut slices = Slices::new(plan);
    let nothing = || Error::Usage("there are no rows without days and sources".to_owned());
    let first = with_nulls(&slices.next_file()?.ok_or_else(nothing)?)?;
    let spec = TableSpec {
        name: TABLE.to_owned(),
        schema: first.schema(),
        partition_by: Vec::new(),
        stats_columns: Vec::new(),
        append_only: false,
    };
    let mut table = lake.open_or_create(&spec).await?;
    let staging = table.staging();
    let (mut files, mut next) = (Vec::new(), Some(first));
    while let Some(batch) = next {
        files.extend(staging.stage("part", &[], &[batch]).await?);
        next = slices.next_file()?.map(|batch| with_nulls(&batch)).transpose()?;
    }
    let version = table.commit(Vec::new(), files, &[]).await?.version();
    let now_us = chrono::Utc::now().timestamp_micros();
    let epoch = Epoch {
        pipeline: PIPELINE.to_owned(),
        epoch: 1,
        tables: [(TABLE.to_owned(), version)].into(),
        as_of_us: Some(now_us),
        written_at_us: now_us,
        ..Epoch::default()
    };
    Epochs::of(lake, PIPELINE)?.put(&epoch).await?;
    Ok(())
}

/// The same rows in columns that may hold nulls, as the tables of pipelines have them.
fn with_nulls(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let fields: Vec<Field> = schema.fields().iter().map(|field| Field::clone(field).with_nullable(true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Connection, Target};

    #[tokio::test]
    async fn the_fixed_text_is_bare_and_behind_the_log_in() {
        let folder = tempfile::tempdir().unwrap();
        let plan = SlicePlan { sources: 1, jobs: 1, days: 2, rows_per_slice: 1, runs_per_row: 1 };
        let served = Served::start(folder.path(), plan).await.unwrap();
        served.set_length(100);
        for (address, path, status, length) in [
            (served.bare, "/bare", 200, Some(100)),
            (served.carried, "/bare", 200, Some(100)),
            (served.app, "/api/v1/fixed", 401, None),
        ] {
            let target = Target::parse(&format!("http://{address}{path}")).unwrap();
            let mut connection = Connection::open(&target).await.unwrap();
            let answer = connection.ask(target.head("GET", None, &[]).as_bytes()).await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            assert!(length.is_none_or(|length| answer.body.len() == length), "{path}");
        }
    }
}
