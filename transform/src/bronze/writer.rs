//! The loop from the log to the bronze table.
//!
//! It collects records until rows, bytes or latency say so (spec B3), commits them with the next offset of each
//! partition, and only then tells the broker and the pipelines. While a commit is written the log goes on filling, so
//! a busy stage takes larger batches by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::DateTime;
use karat_eventlog::{
    Consumer, ConsumerSettings, EventLog, Fingerprint, NewRecord, PollLimits, Record, StartPositions,
};
use karat_lake::{Committed, Lake, Table, TransactionId, arrow::array::RecordBatch, crash};
pub(crate) use karat_schemas::clock::now_us;
use karat_schemas::{COMMITS_TOPIC, clock, epoch::Notice};
use karat_telemetry::{metrics, spans::Value};
use tokio::sync::{Mutex, mpsc, watch};

use super::{last_record_name, position_name, rows, source, table_spec};
use crate::{
    Error, Result,
    traces::{self, Part},
};

/// When a batch is written: on the first of these.
#[derive(Debug, Clone, Copy)]
pub struct BronzeSettings {
    /// 50,000 rows: where the cost of a commit vanishes beside the rows' own (performance notes, section 4.2).
    pub max_rows: usize,
    /// 32 MiB of payload: bounds memory with large events.
    pub max_bytes: usize,
    /// 100 ms: most of the second that an event may take to become visible is left to the later stages.
    pub max_latency: Duration,
}

impl Default for BronzeSettings {
    fn default() -> Self {
        Self { max_rows: 50_000, max_bytes: 32 << 20, max_latency: Duration::from_millis(100) }
    }
}

/// A committed bronze version, handed on in memory so that the next layer need not read the file back.
#[derive(Debug, Clone)]
pub struct BronzeBatch {
    pub version: u64,
    pub rows: RecordBatch,
    /// Next offset of the partitions that moved.
    pub positions: BTreeMap<u32, i64>,
}

/// Owns the bronze table of one topic in this process.
pub struct BronzeWriter {
    topic: String,
    settings: BronzeSettings,
    log: Arc<dyn EventLog>,
    lake: Lake,
    table: Arc<Mutex<Table>>,
    pipelines: Vec<mpsc::Sender<BronzeBatch>>,
    is_clock_held: AtomicBool,
}

/// Start positions from the table's own transactions (spec L2).
struct FromTable {
    table: Arc<Mutex<Table>>,
}

#[async_trait]
impl StartPositions for FromTable {
    async fn next_offsets(&self, topic: &str, partitions: &[u32]) -> karat_eventlog::Result<BTreeMap<u32, i64>> {
        // A partition may come back after another process wrote it: the log of the table is read first.
        self.table.lock().await.refresh().await.map_err(|error| unreadable(topic, error))?;
        self.newest(topic, partitions, position_name).await
    }

    async fn last_records(
        &self,
        topic: &str,
        partitions: &[u32],
    ) -> karat_eventlog::Result<BTreeMap<u32, Fingerprint>> {
        let known = self.newest(topic, partitions, last_record_name).await?;
        Ok(known.into_iter().map(|(partition, number)| (partition, number.into())).collect())
    }
}

impl FromTable {
    /// What the table says of each partition under the name that `name` gives.
    async fn newest(
        &self,
        topic: &str,
        partitions: &[u32],
        name: fn(&str, u32) -> String,
    ) -> karat_eventlog::Result<BTreeMap<u32, i64>> {
        let names: Vec<String> = partitions.iter().map(|partition| name(topic, *partition)).collect();
        let found = self.table.lock().await.positions(&names).await.map_err(|error| unreadable(topic, error))?;
        Ok(partitions.iter().copied().zip(found).filter_map(|(partition, found)| Some((partition, found?))).collect())
    }
}

/// A lake that does not answer is away, as a broker would be: it is asked again.
fn unreadable(topic: &str, error: karat_lake::Error) -> karat_eventlog::Error {
    let reason = format!("position of topic `{topic}`");
    match error {
        karat_lake::Error::Object(_) | karat_lake::Error::Storage { .. } => {
            karat_eventlog::Error::Unavailable { reason: format!("{reason}: {error}") }
        }
        error => karat_eventlog::Error::internal(reason, error),
    }
}

impl BronzeWriter {
    /// Opens the table. `pipelines` get each committed batch, in order.
    pub async fn open(
        topic: &str,
        settings: BronzeSettings,
        log: Arc<dyn EventLog>,
        lake: &Lake,
        pipelines: Vec<mpsc::Sender<BronzeBatch>>,
    ) -> Result<Self> {
        let table = lake.open_or_create(&table_spec(topic)).await?;
        let table = Arc::new(Mutex::new(table));
        let (topic, lake, is_clock_held) = (topic.to_owned(), lake.clone(), AtomicBool::new(false));
        Ok(Self { topic, settings, log, lake, table, pipelines, is_clock_held })
    }

    /// Runs until `stop` says so; what was collected by then is committed.
    pub async fn run(self, group: &str, mut stop: watch::Receiver<bool>) -> Result<()> {
        let info = self.log.topic(&self.topic).await?;
        let source = source::check(&mut *self.table.lock().await, &info).await?;
        let start = Arc::new(FromTable { table: Arc::clone(&self.table) });
        let settings = ConsumerSettings { group: group.to_owned(), topic: self.topic.clone(), start };
        let mut consumer = self.log.consumer(settings).await?;
        loop {
            let records = self.collect(consumer.as_mut(), &mut stop).await?;
            if !records.is_empty()
                && let Some(batch) = self.commit(records, source.as_ref()).await?
            {
                crash::point(self.lake.root(), "bronze.committed").await;
                consumer.commit_for_display(&batch.positions).await;
                crash::point(self.lake.root(), "bronze.told").await;
                self.announce(batch).await;
                crash::point(self.lake.root(), "bronze.announced").await;
            }
            if *stop.borrow() {
                consumer.close().await;
                return Ok(());
            }
        }
    }

    /// Collects one batch: waits for a first record, then until a bound is met.
    async fn collect(&self, consumer: &mut dyn Consumer, stop: &mut watch::Receiver<bool>) -> Result<Vec<Record>> {
        let mut records: Vec<Record> = Vec::new();
        let (mut bytes, mut deadline) = (0, None);
        loop {
            let now = Instant::now();
            let max_wait = match deadline {
                None => Duration::from_millis(500),
                Some(deadline) if now >= deadline => return Ok(records),
                Some(deadline) => deadline - now,
            };
            let limits = PollLimits {
                max_records: self.settings.max_rows - records.len(),
                max_bytes: self.settings.max_bytes.saturating_sub(bytes).max(1),
                max_wait,
            };
            let polled = tokio::select! {
                polled = consumer.poll(limits) => polled?,
                _ = stop.changed() => return Ok(records),
            };
            if !polled.revoked.is_empty() {
                records.retain(|record| !polled.revoked.contains(&record.partition));
            }
            bytes += polled.records.iter().map(|record| record.payload.len()).sum::<usize>();
            records.extend(polled.records);
            if *stop.borrow() || records.len() >= self.settings.max_rows || bytes >= self.settings.max_bytes {
                return Ok(records);
            }
            if !records.is_empty() && deadline.is_none() {
                deadline = Some(now + self.settings.max_latency);
            }
        }
    }

    /// Commits the records that the table does not have; none when it has them all.
    ///
    /// While partitions change hands, two processes may hold records of one. The one that commits first moves the position,
    /// and the other is fenced: it looks again, and drops what the table has by now.
    async fn commit(&self, records: Vec<Record>, source: Option<&TransactionId>) -> Result<Option<BronzeBatch>> {
        let mut table = self.table.lock().await;
        let mut records = records;
        loop {
            let floor = self.floor(&mut table, &records).await?;
            records.retain(|record| record.offset >= floor[&record.partition]);
            if records.is_empty() {
                return Ok(None);
            }
            let (kept, before) = (Arc::new(records), table.version());
            let committed = self.try_commit(&mut table, Arc::clone(&kept), source).await;
            if !matches!(committed, Err(Error::Lake(karat_lake::Error::Fenced { .. }))) {
                return committed;
            }
            table.refresh().await?;
            if table.version() == before {
                return committed;
            }
            tracing::info!(topic = self.topic, "another process was faster with some partitions; looking again");
            records = Arc::unwrap_or_clone(kept);
        }
    }

    /// The position of each partition that has records: what lies below is in the table.
    async fn floor(&self, table: &mut Table, records: &[Record]) -> Result<BTreeMap<u32, i64>> {
        let mut floor = BTreeMap::new();
        for partition in records.iter().map(|record| record.partition).collect::<BTreeSet<_>>() {
            floor.insert(partition, table.position(&position_name(&self.topic, partition)).await?.unwrap_or(0));
        }
        Ok(floor)
    }

    async fn try_commit(
        &self,
        table: &mut Table,
        records: Arc<Vec<Record>>,
        source: Option<&TransactionId>,
    ) -> Result<Option<BronzeBatch>> {
        let ingest_us = now_us();
        self.say_when_the_clock_jumped();
        let mut last: BTreeMap<u32, &Record> = BTreeMap::new();
        for record in records.iter() {
            let newest = last.entry(record.partition).or_insert(record);
            if record.offset > newest.offset {
                *newest = record;
            }
        }
        let positions: BTreeMap<u32, i64> =
            last.iter().map(|(partition, record)| (*partition, record.offset + 1)).collect();
        let mut transactions: Vec<TransactionId> = Vec::new();
        for (partition, record) in last {
            transactions.push(TransactionId::new(position_name(&self.topic, partition), record.offset + 1));
            // So that another record in this place of the log is noticed.
            transactions
                .push(TransactionId::new(last_record_name(&self.topic, partition), record.fingerprint().into()));
        }
        let began = Instant::now();
        let encode = move || rows::from_records(&records, ingest_us).map(|rows| (traces::of_bronze(&rows), rows));
        let (traces, rows) = tokio::task::spawn_blocking(encode).await??;
        let date = DateTime::from_timestamp_micros(ingest_us).unwrap_or_default().format("%Y-%m-%d").to_string();
        if let Some(source) = source
            && table.position(&source.application).await?.is_none()
        {
            transactions.push(source.clone());
        }
        let partition = [("ingest_date".to_owned(), date)];
        let staged = table.staging().stage("part", &partition, std::slice::from_ref(&rows)).await?;
        let written = Instant::now();
        let files = staged.into_iter().collect();
        let committed = table.commit_traced(Vec::new(), files, &transactions, &traces).await?;
        metrics().committed("bronze", written.elapsed());
        let whole = Part { name: "bronze", began, took: began.elapsed() };
        traces::record(&traces, &whole, &[], &[("karat.table", Value::Text(table.name().to_owned()))]);
        table.checkpoint_when_due();
        Ok(match committed {
            Committed::Now(version) => Some(BronzeBatch { version, rows, positions }),
            // The rows of that version may be another process's, which announces them.
            Committed::Before(_) => None,
        })
    }

    /// Once for each jump: records keep the time that the machine had before it.
    fn say_when_the_clock_jumped(&self) {
        let jump = clock::jump();
        let was_held = self.is_clock_held.swap(jump.is_some(), Ordering::Relaxed);
        match jump {
            Some(seconds) if !was_held => tracing::error!(
                topic = self.topic,
                seconds,
                "the clock of this machine jumped and is not followed: set it right, or restart if it is right now"
            ),
            None if was_held => tracing::info!(topic = self.topic, "the clock of this machine is followed again"),
            _ => {}
        }
    }

    async fn announce(&self, batch: BronzeBatch) {
        let table = super::table_name(&self.topic);
        let notice =
            Notice::Bronze { table: table.clone(), version: batch.version, positions: batch.positions.clone() };
        for pipeline in &self.pipelines {
            // A pipeline that is slow or gone reads the files instead: bronze waits a little for it, not for ever.
            let _ = pipeline.send_timeout(batch.clone(), HAND_OVER_WAIT).await;
        }
        announce(self.log.as_ref(), &table, &notice).await;
    }
}

/// How long bronze waits for a busy pipeline to take a batch from memory.
const HAND_OVER_WAIT: Duration = Duration::from_secs(2);

/// Publishes a commit notice. A lost notice costs a second, never correctness (spec L4), so failures are only logged.
pub(crate) async fn announce(log: &dyn EventLog, key: &str, notice: &Notice) {
    let Ok(payload) = serde_json::to_vec(notice) else { return };
    let record = NewRecord { key: Some(key.to_owned().into()), payload: payload.into(), ..NewRecord::default() };
    if let Err(error) = log.append(COMMITS_TOPIC, vec![record]).await {
        tracing::debug!(%error, key, "commit notice not published");
    }
}
