//! A world whose every record is in the ledger of the judge, and workers in it that can crash.

use std::time::Duration;

use karat_eventlog::NewRecord;
use karat_lake::crash::{self, Armed};
use karat_oracle::{Ledger, Outcome, Watched, judge};
use karat_schemas::{attributes as names, pipelines::SilverMode};
use karat_transform::{
    bronze,
    plan::{quarantine_name, silver_name},
};
use tokio::runtime::Runtime;

use crate::support::{DEADLINE, Running, World};

pub struct Judged {
    pub world: World,
    ledger: Ledger,
}

/// A worker on a runtime of its own.
pub struct Life {
    runtime: Option<Runtime>,
    running: Running,
}

impl Judged {
    pub async fn new(declaration: &str) -> Self {
        Self { world: World::new(declaration).await, ledger: Ledger::default() }
    }

    /// Publishes, and notes that the log has it.
    pub async fn publish(&mut self, records: Vec<NewRecord>) {
        for record in &records {
            let text = |name| record.headers.get(name).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            let (source, id) = (text(names::CE_SOURCE), text(names::CE_ID));
            self.ledger.note("test", &source, &id, &record.payload, Outcome::Acknowledged);
        }
        self.world.publish(records).await;
    }

    /// Publishes part after part, again and again, until the armed spot is reached.
    pub async fn publish_until(&mut self, armed: &Armed, spot: &str, events: &[NewRecord]) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        for part in events.chunks(30).cycle() {
            self.publish(part.to_vec()).await;
            if tokio::time::timeout(Duration::from_millis(60), armed.reached()).await.is_ok() {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "nothing passed `{spot}`");
        }
    }

    pub fn arm(&self, spot: &str) -> Armed {
        crash::arm(self.world.folder(), spot)
    }

    pub fn live(&self) -> Life {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let running = self.world.start_on(runtime.handle());
        Life { runtime: Some(runtime), running }
    }

    /// Waits until everything is in gold, and asks the judge.
    pub async fn settled(&self, life: &Life, context: &str) {
        self.world.settled(&life.running).await;
        judge(&self.world.settings.lake, &self.watched(), &self.ledger, None).await.unwrap().assert_clean(context);
    }

    /// Asks the judge, with a recomputation.
    pub async fn verified(&self, context: &str) {
        let mut verdict = judge(&self.world.settings.lake, &self.watched(), &self.ledger, None).await.unwrap();
        for report in self.world.verify().await {
            verdict.differs(&report.table, report.differences);
        }
        verdict.assert_clean(context);
    }

    fn watched(&self) -> Watched {
        let pipeline = self.world.pipeline();
        let appends = pipeline.silver.iter().filter(|silver| silver.mode == SilverMode::Append);
        Watched {
            bronze: bronze::table_name(&pipeline.topic),
            silver: appends.map(|silver| silver_name(&silver.name)).collect(),
            quarantine: quarantine_name(&pipeline.name),
        }
    }
}

impl Life {
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Ends with everything in it, at whatever it was doing. What the system was told to write, it still writes.
    pub async fn crash(mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
    }

    pub async fn stop(mut self) {
        let runtime = self.runtime.take().unwrap();
        self.running.stop().await;
        runtime.shutdown_background();
    }

    /// Orders a replay and does not wait for it.
    pub async fn order_replay(&self, pipeline: &str) {
        self.running.order_replay(pipeline).await;
    }
}
