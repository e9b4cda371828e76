//! What the cases share: a log, a topic of their own, and reading with a deadline.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use karat_eventlog::{
    Consumer, ConsumerSettings, EventLog, NewRecord, PollLimits, Record, Result, StartPositions, TopicSpec,
    embedded::EmbeddedLog,
    kafka::{KafkaLog, KafkaSettings},
};
use tempfile::TempDir;

/// Nothing in a case takes longer, or it fails.
pub const DEADLINE: Duration = Duration::from_secs(240);

enum Place {
    Folder(TempDir),
    Brokers(String),
}

/// A log and a topic name that nobody else uses.
pub struct Fixture {
    place: Place,
    log: Option<Arc<dyn EventLog>>,
    pub topic: String,
}

impl Fixture {
    pub fn embedded(case: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(folder.path()).unwrap());
        Self { place: Place::Folder(folder), log: Some(log), topic: case.into() }
    }

    /// None, with a line that says so, when no broker is named.
    pub async fn kafka(case: &str) -> Option<Self> {
        let Ok(bootstrap) = std::env::var("KARAT_TEST_KAFKA") else {
            eprintln!("not run on Kafka: KARAT_TEST_KAFKA is not set (`dev/kafka.sh start` prints it)");
            return None;
        };
        let log: Arc<dyn EventLog> = Arc::new(connect(&bootstrap).await);
        let topic = format!("contract.{}.{case}", uuid::Uuid::now_v7());
        Some(Self { place: Place::Brokers(bootstrap), log: Some(log), topic })
    }

    pub fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone().unwrap()
    }

    /// Closes the log and opens it again, as a restart of the process would.
    pub async fn restart(&mut self) {
        self.log = None;
        let log: Arc<dyn EventLog> = match &self.place {
            Place::Folder(folder) => Arc::new(EmbeddedLog::open(folder.path()).unwrap()),
            Place::Brokers(bootstrap) => Arc::new(connect(bootstrap).await),
        };
        self.log = Some(log);
    }

    pub async fn create(&self, partitions: u32) {
        let spec = TopicSpec { name: self.topic.clone(), partitions, retention: None };
        self.log().ensure_topic(&spec).await.unwrap();
    }

    pub async fn consumer(&self, start: impl StartPositions) -> Result<Box<dyn Consumer>> {
        let settings =
            ConsumerSettings { group: self.topic.clone(), topic: self.topic.clone(), start: Arc::new(start) };
        self.log().consumer(settings).await
    }

    /// Reads `count` records from the positions on.
    pub async fn read(&self, from: &[(u32, i64)], count: usize) -> Vec<Record> {
        let mut consumer = self.consumer(At::new(from)).await.unwrap();
        read(consumer.as_mut(), count).await
    }
}

async fn connect(bootstrap: &str) -> KafkaLog {
    // Groups notice who comes and goes at heartbeats; frequent ones make the tests quick.
    let properties = BTreeMap::from([("heartbeat.interval.ms".into(), "300".into())]);
    let settings = KafkaSettings { bootstrap: bootstrap.into(), properties, replication: 1 };
    KafkaLog::connect(settings).await.unwrap()
}

/// Fixed start positions.
pub struct At(BTreeMap<u32, i64>);

impl At {
    pub fn new(positions: &[(u32, i64)]) -> Self {
        Self(positions.iter().copied().collect())
    }

    pub fn beginning() -> Self {
        Self::new(&[])
    }
}

#[async_trait]
impl StartPositions for At {
    async fn next_offsets(&self, _topic: &str, _partitions: &[u32]) -> Result<BTreeMap<u32, i64>> {
        Ok(self.0.clone())
    }
}

pub fn limits(max_wait: Duration) -> PollLimits {
    PollLimits { max_records: 10_000, max_bytes: 16 * 1024 * 1024, max_wait }
}

/// Polls until `count` records have come.
pub async fn read(consumer: &mut dyn Consumer, count: usize) -> Vec<Record> {
    let deadline = Instant::now() + DEADLINE;
    let mut records = Vec::new();
    while records.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records came in time", records.len());
        records.extend(consumer.poll(limits(Duration::from_secs(1))).await.unwrap().records);
    }
    records
}

/// Polls until an error comes.
pub async fn read_error(consumer: &mut dyn Consumer) -> karat_eventlog::Error {
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "no error came in time");
        match consumer.poll(limits(Duration::from_secs(1))).await {
            Err(error) => return error,
            Ok(polled) => assert!(polled.records.is_empty(), "records came where an error was expected"),
        }
    }
}

pub fn payload(text: impl Into<String>) -> NewRecord {
    NewRecord { payload: Bytes::from(text.into()), ..NewRecord::default() }
}

pub fn keyed(key: impl Into<String>, text: impl Into<String>) -> NewRecord {
    NewRecord { key: Some(Bytes::from(key.into())), ..payload(text) }
}

pub fn text(record: &Record) -> &str {
    std::str::from_utf8(&record.payload).unwrap()
}
