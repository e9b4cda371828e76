//! Incremental gold equals batch gold: random events in random batches, and after them every gold table is what its SQL
//! gives over the whole silver table, whatever refresh serves it.
//!
//! The seed of a failure is in its message; `KARAT_SEED` runs that one alone.
//!
//! Pipelines with a random choice of the tables crash at random points besides.

mod declaration;
mod events;

use std::{cmp::Ordering, fs, path::Path, sync::Arc, time::Duration};

use karat_lake::{
    Lake, TransactionId,
    arrow::{
        array::{ArrayRef, RecordBatch},
        compute::{cast, concat_batches},
    },
    crash,
    datafusion::{datasource::MemTable, prelude::SessionContext},
};
use karat_schemas::pipelines::{self, Pipeline};
use karat_transform::{
    bronze,
    checkpoint::CheckpointSettings,
    functions,
    journal::Journal,
    plan::PipelinePlan,
    runner::{Runner, RunnerSettings},
    value::{self, Value},
    verify::verify,
};

use self::{
    declaration::{GOLD, TOPIC, Table},
    events::{Events, Random},
};
use crate::support::DEADLINE;

const STEPS: usize = 8;

/// Points that a step passes.
const POINTS: &[&str] = &[
    "file.before",
    "file.after",
    "commit.before",
    "commit.after",
    "step.computed",
    "step.committed",
    "step.published",
    "step.applied",
    "publish.committed",
];

#[tokio::test(flavor = "multi_thread")]
async fn incremental_gold_is_batch_gold_whatever_arrives() {
    for seed in seeds(&[1, 2]) {
        World::new(seed, GOLD.iter().collect()).await.run().await;
    }
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn random_pipelines_that_crash_at_random_points_are_batch_gold_too() {
    for seed in seeds(&[11, 12]) {
        let mut random = Random::new(seed);
        let tables = GOLD.iter().filter(|_| random.below(4) == 0).collect();
        let mut world = World::new(seed, tables).await;
        world.crashes = true;
        world.run().await;
    }
}

/// The seed of the environment, or these.
fn seeds(usual: &[u64]) -> Vec<u64> {
    std::env::var("KARAT_SEED").map_or(usual.to_vec(), |seed| vec![seed.parse().unwrap()])
}

#[tokio::test]
async fn each_of_the_random_tables_is_refreshed_as_it_says() {
    let plan = PipelinePlan::new(&pipeline(&GOLD.iter().collect::<Vec<_>>())).await.unwrap();
    for (gold, (name, refresh, ..)) in plan.golds.iter().zip(GOLD) {
        assert_eq!((gold.name.as_str(), gold.plan.refresh()), (*name, *refresh), "{}", gold.plan.reason());
    }
    let finer = |name: &str| {
        let (finer, _) = plan.golds.iter().find(|gold| gold.name == name)?.finer.as_ref()?;
        Some(plan.golds[*finer].name.as_str())
    };
    let found = ["reading_months", "reading_weeks", "reading_days", "turnover_weeks", "everything"].map(finer);
    assert_eq!(found, [Some("reading_days"), Some("reading_days"), None, Some("turnover_days"), None]);
    let modes = ["merge", "keys", "full"].map(|mode| GOLD.iter().filter(|(_, refresh, ..)| *refresh == mode).count());
    assert!(GOLD.len() >= 20 && modes.iter().all(|count| *count >= 4), "{modes:?}");
}

fn pipeline(tables: &[&Table]) -> Pipeline {
    let mut file = pipelines::parse(&declaration::text(tables)).map_err(|problems| problems.to_string()).unwrap();
    file.pipelines.remove(0)
}

struct World {
    seed: u64,
    random: Random,
    events: Events,
    folder: tempfile::TempDir,
    lake: Lake,
    pipeline: Pipeline,
    tables: Vec<&'static Table>,
    /// Whether steps crash at any point, often.
    crashes: bool,
    /// Whether keyed silver tables take their changes now and then, and not with each step.
    puts_off: bool,
}

impl World {
    async fn new(seed: u64, tables: Vec<&'static Table>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap();
        lake.open_or_create(&bronze::table_spec(TOPIC)).await.unwrap();
        let (random, events, pipeline) = (Random::new(seed), Events::new(seed), pipeline(&tables));
        Self { seed, random, events, folder, lake, pipeline, tables, crashes: false, puts_off: seed.is_multiple_of(2) }
    }

    async fn run(mut self) {
        let mut runner = self.open().await;
        for step in 0..STEPS {
            let versions = 1 + self.random.below(3);
            for _ in 0..versions {
                self.bronze_version().await;
            }
            // The first step has no state to lose: what has none at all is rebuilt, which is tested elsewhere.
            runner = if self.crashes && step > 0 && self.random.below(4) > 0 {
                self.step_that_crashes_anywhere(runner).await
            } else if step > 0 && self.random.below(4) == 0 {
                self.step_that_crashes(runner).await
            } else {
                while runner.catch_up().await.unwrap() {}
                runner
            };
            if step % 3 == 0 || step + 1 == STEPS {
                runner.publish(true).await.unwrap();
                self.compare(step).await;
            }
        }
        runner.close().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        for report in verify(&self.pipeline, &self.settings(), scratch.path()).await.unwrap() {
            assert_eq!(report.differences, 0, "seed {}: {report:?}", self.seed);
        }
    }

    fn settings(&self) -> RunnerSettings {
        RunnerSettings {
            lake: self.lake.clone(),
            tables: self.lake.clone(),
            state_folder: self.state_folder(),
            generation: 0,
            declared: None,
            writes_epochs: true,
            // Small enough that some steps give a whole one.
            checkpoints: self.crashes.then(|| CheckpointSettings {
                every: Duration::from_millis(5),
                max_bytes: 4000,
                min_appended: 20_000,
                rest: u32::from(self.seed.is_multiple_of(3)),
                part_bytes: 4000,
            }),
            publishes_later: self.puts_off,
            journal: Journal::off(),
        }
    }

    fn state_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("state")
    }

    async fn open(&self) -> Runner {
        Runner::open(&self.pipeline, self.settings()).await.unwrap()
    }

    /// The tables get the step, the state store loses it: what a crash between the two leaves.
    async fn step_that_crashes(&self, runner: Runner) -> Runner {
        runner.close().unwrap();
        let copy = self.folder.path().join("copy");
        copy_folder(&self.state_folder(), &copy);
        let mut runner = self.open().await;
        assert!(runner.catch_up().await.unwrap());
        runner.close().unwrap();
        fs::remove_dir_all(self.state_folder()).unwrap();
        fs::rename(&copy, self.state_folder()).unwrap();
        let mut runner = self.open().await;
        assert!(runner.is_current().await.unwrap());
        while runner.catch_up().await.unwrap() {}
        runner
    }

    /// The work ends at a random point, sometimes behind its end; then it is taken up again.
    async fn step_that_crashes_anywhere(&mut self, runner: Runner) -> Runner {
        if self.random.below(3) == 0 {
            // The disk is lost besides; the checkpoint is in the lake.
            runner.finish().await.unwrap();
            fs::remove_dir_all(self.state_folder()).unwrap();
        } else {
            runner.close().unwrap();
        }
        let spot = format!("{}:{}", POINTS[self.random.below(POINTS.len())], 1 + self.random.below(5));
        let armed = crash::arm(self.folder.path(), &spot);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (pipeline, settings) = (self.pipeline.clone(), self.settings());
        let work = runtime.spawn(async move {
            let mut runner = Runner::open(&pipeline, settings).await.unwrap();
            while runner.catch_up().await.unwrap() {}
            runner.publish(true).await.unwrap();
        });
        tokio::select! {
            () = armed.reached() => {}
            done = work => done.unwrap(),
        }
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
        drop(armed);
        let mut runner = self.open().await;
        assert!(runner.is_current().await.unwrap(), "seed {}, {spot}", self.seed);
        while runner.catch_up().await.unwrap() {}
        runner
    }

    /// Commits a batch of random events to bronze; sometimes none.
    async fn bronze_version(&mut self) {
        let count = [0, 1, 3, 20, 60][self.random.below(5)];
        let records: Vec<_> = (0..count).map(|_| self.events.next()).collect();
        let rows = bronze::rows::from_records(&records, 1_790_000_000_000_000).unwrap();
        let mut table = self.lake.open(&bronze::table_name(TOPIC)).await.unwrap();
        let date = [("ingest_date".to_owned(), "2026-09-21".to_owned())];
        let staged = table.staging().stage("part", &date, &[rows]).await.unwrap();
        let positions: Vec<TransactionId> = self
            .events
            .next_offsets()
            .map(|(partition, next)| TransactionId::new(bronze::position_name(TOPIC, partition), next))
            .collect();
        table.commit(Vec::new(), staged.into_iter().collect(), &positions).await.unwrap();
    }

    async fn compare(&self, step: usize) {
        let context = SessionContext::new();
        functions::register(&context);
        for table in ["readings", "orders", "sensors"] {
            let rows = self.rows(&format!("silver.{table}")).await;
            let table_rows = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
            context.register_table(table, Arc::new(table_rows)).unwrap();
        }
        for (name, refresh, _, sql, batch_sql) in &self.tables {
            let found = self.rows(&format!("gold.{name}")).await;
            let sql = batch_sql.unwrap_or(sql);
            let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
            let (found, expected) = (rows_of(&found, &found), rows_in(&batches, &found));
            let place = format!("seed {}, step {step}, gold table `{name}` by {refresh}", self.seed);
            let shown = || format!("{place}:\nfound    {found:?}\nexpected {expected:?}");
            assert_eq!(found.len(), expected.len(), "{}", shown());
            for (found_row, expected_row) in found.iter().zip(&expected) {
                let is_same = found_row.iter().zip(expected_row).all(|(a, b)| same(a, b));
                assert!(is_same, "{place}: found {found_row:?}, expected {expected_row:?}");
            }
        }
    }

    async fn rows(&self, table: &str) -> RecordBatch {
        let table = self.lake.open(table).await.unwrap();
        concat_batches(table.schema(), &table.read_all().await.unwrap()).unwrap()
    }
}

/// The rows of `batches` in the types and columns of `like`, sorted.
fn rows_in(batches: &[RecordBatch], like: &RecordBatch) -> Vec<Vec<Value>> {
    let Some(first) = batches.first() else { return Vec::new() };
    let all = concat_batches(&first.schema(), batches).unwrap();
    rows_of(&all, like)
}

fn rows_of(rows: &RecordBatch, like: &RecordBatch) -> Vec<Vec<Value>> {
    let schema = like.schema();
    let fields = schema.fields().iter().filter(|field| !["revision", "revised_at"].contains(&field.name().as_str()));
    let columns: Vec<value::Column> = fields
        .map(|field| {
            let column: &ArrayRef = &rows[field.name().as_str()];
            value::Column::new(&cast(column, field.data_type()).unwrap()).unwrap()
        })
        .collect();
    let row = |row| columns.iter().map(|column| column.value(row)).collect();
    let mut rows: Vec<Vec<Value>> = (0..rows.num_rows()).map(row).collect();
    rows.sort_by(|a, b| by_exact_values_first(a, b));
    rows
}

/// Floats that differ in the last digit must not change the order.
fn by_exact_values_first(a: &[Value], b: &[Value]) -> Ordering {
    let exact =
        |row: &[Value]| row.iter().filter(|value| !matches!(value, Value::Float(_))).cloned().collect::<Vec<_>>();
    exact(a).cmp(&exact(b)).then_with(|| a.cmp(b))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => {
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        }
        (a, b) => a == b,
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}
