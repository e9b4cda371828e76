//! Several transform processes on one lake and one topic of eight partitions, on a real broker, under a load that the
//! judge watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

use karat_eventlog::{
    EventLog,
    kafka::{KafkaLog, KafkaSettings},
};
use karat_oracle::{LogCopy, Outcome, Verdict};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    client::{Client, run_event},
    judged::{BATCH, Judged},
    kafka::on_own_topic,
    load::Load,
    process::{Karat, Said},
    sample::assert_no_difference,
    wait::{DEADLINE, until_else},
};

/// Everything must be in gold so long after the fault is over. The time after which a dead member is thrown out of its
/// group is in it.
const LONGEST_DRAIN: Duration = DEADLINE;

pub const PARTITIONS: u32 = 8;

/// How long a group waits for a silent member: the shortest that brokers allow.
pub const SESSION: Duration = Duration::from_secs(6);

/// What the processes write of themselves.
const LOG: [(&str, &str); 1] =
    [("KARAT__LOG__LEVELS", "warn,karat=info,karat_transform=info,karat_eventlog=debug,librdkafka=info")];

/// One process with the doors, and any number of processes with the pipelines, each with a data folder of its own.
pub struct Fleet {
    pub judged: Judged,
    pub client: Client,
    pub transforms: BTreeMap<usize, Karat>,
    pub ingest: Karat,
    pub topic: String,
    log: KafkaLog,
    common: Vec<String>,
    doors: Vec<String>,
    starts: usize,
    /// One fleet at a time: each has up to five processes.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::const_new(());

/// The broker that tests may use; says so when there is none.
pub fn broker() -> Option<String> {
    let broker = std::env::var("KARAT_TEST_KAFKA").ok();
    if broker.is_none() {
        eprintln!("left out, because KARAT_TEST_KAFKA names no broker: `make test-services` starts one");
    }
    broker
}

impl Fleet {
    /// The doors reach the log at `door`, the pipelines at `log`.
    pub async fn new(door: &str, log: &str) -> Self {
        Self::with(Judged::new().await, door, log).await
    }

    /// The same around an instance whose lake may be elsewhere.
    pub async fn with(mut judged: Judged, door: &str, log: &str) -> Self {
        let turn = TURN.lock().await;
        let (topic, declared) = on_own_topic();
        judged.bronze = karat_transform::bronze::table_name(&topic);
        let pipelines = judged.folder.text("pipelines.toml");
        std::fs::write(&pipelines, declared.replacen("partitions = 4", &format!("partitions = {PARTITIONS}"), 1))
            .unwrap();
        let lake = judged.folder.location();
        let session = format!("session.timeout.ms={}", SESSION.as_millis());
        let common = |broker: &str| -> Vec<String> {
            let mut words = vec!["--kafka", broker, "--pipelines", &pipelines, "--lake", &lake];
            for property in [&session, "heartbeat.interval.ms=500", "message.timeout.ms=5000"] {
                words.extend(["--kafka-property", property]);
            }
            words.into_iter().map(str::to_owned).collect()
        };
        let doors = common(door);
        let (ingest, client) = door_of(&judged, &doors).await;
        let settings = KafkaSettings { bootstrap: log.to_owned(), properties: BTreeMap::new(), replication: 1 };
        let log_of_judge = KafkaLog::connect(settings).await.unwrap();
        Self {
            judged,
            client,
            transforms: BTreeMap::new(),
            ingest,
            topic,
            log: log_of_judge,
            common: common(log),
            doors,
            starts: 0,
            _turn: turn,
        }
    }

    /// Starts the process `number`, whose data folder stays when it ends.
    pub fn start(&mut self, number: usize) {
        self.start_with(number, &[]);
    }

    /// The same, with variables in its environment.
    pub fn start_with(&mut self, number: usize, variables: &[(&str, &str)]) {
        self.starts += 1;
        let folder = &self.judged.folder;
        let (data, name) = (folder.text(&format!("machine-{number}")), format!("transform-{number}-{}", self.starts));
        let words: Vec<&str> = ["transform"].into_iter().chain(self.common.iter().map(String::as_str)).collect();
        let karat = folder.start_in(&data, &name, &words, &[&LOG, variables].concat());
        assert!(self.transforms.insert(number, karat).is_none(), "{number} runs already");
    }

    /// SIGKILL for the process with the doors, and another one.
    pub async fn replace_door(&mut self) {
        self.ingest.signal("KILL");
        (self.ingest, self.client) = door_of(&self.judged, &self.doors).await;
    }

    /// Starts a process with the API alone.
    pub fn start_api(&self) -> Karat {
        let words = ["api", "--listen", "127.0.0.1:0", "--without-limits"]
            .into_iter()
            .chain(self.common.iter().map(String::as_str));
        self.judged.folder.start("api", &words.collect::<Vec<_>>())
    }

    pub fn kill(&mut self, number: usize) {
        self.transforms.remove(&number).unwrap().kill();
    }

    pub async fn stop(&mut self, number: usize) {
        let karat = self.transforms.remove(&number).unwrap();
        karat.has_begun().await;
        karat.stop().await;
    }

    /// The processes that believe to own the pipeline of the runs; another one may own the other pipelines.
    pub fn owners(&self) -> Vec<usize> {
        let owns = |karat: &Karat| {
            let err = karat.err();
            let is_of_runs =
                |line: &&str| line.contains("the owner of a pipeline changed") && line.contains("etl_runs");
            let last = err.lines().rfind(is_of_runs);
            last.is_some_and(|line| line.contains("owned=true"))
        };
        self.transforms.iter().filter(|(_, karat)| owns(karat)).map(|(number, _)| *number).collect()
    }

    pub async fn owner(&self) -> usize {
        self.owner_but(None).await
    }

    /// The one process, not counting `other`, that owns the pipeline.
    pub async fn owner_but(&self, other: Option<usize>) -> usize {
        let only = async || {
            let owners: Vec<usize> = self.owners().into_iter().filter(|owner| Some(*owner) != other).collect();
            if let [owner] = owners[..] { Some(owner) } else { None }
        };
        until_else("one process owns the pipeline", || self.last_words(), only).await
    }

    /// Publishes until it is ended, whatever the answers.
    pub fn load(&self) -> Load {
        Load::whatever_the_answers(&self.client, self.judged.next)
    }

    /// The next events, so many that each partition gets some. That they are in gold says of each partition that what came
    /// before is too; of a partition without one, whose owner may still be on its way back to the broker, it would say nothing.
    fn of_every_partition(&self) -> Range<u64> {
        let (first, mut end) = (self.judged.next, self.judged.next);
        let mut missing: BTreeSet<u32> = (0..PARTITIONS).collect();
        while !missing.is_empty() || end < first + BATCH {
            let event = run_event(end);
            let key = event["data"]["run_id"].as_str().unwrap();
            missing.remove(&self.log.partition_of(key.as_bytes(), PARTITIONS));
            end += 1;
        }
        first..end
    }

    /// Waits until everything is in gold, and asks the judge. How long that took, too.
    pub async fn drain(&mut self, context: &str) -> (Verdict, Duration) {
        let began = Instant::now();
        loop {
            self.transforms.values_mut().for_each(Karat::assert_alive);
            let numbers = self.of_every_partition();
            let events: Vec<Value> = numbers.clone().map(run_event).collect();
            let answer = self.client.publish(&events, "?wait=gold").await.unwrap();
            let status = answer.status().as_u16();
            let outcome = if status < 300 { Outcome::Acknowledged } else { Outcome::Unknown };
            self.judged.note_all(numbers.map(|number| (number, outcome)).collect());
            if status == 200 {
                break;
            }
            assert!(began.elapsed() < LONGEST_DRAIN, "{context}: not drained in time\n{}", self.last_words());
        }
        let drained = began.elapsed();
        let verdict = self.judge().await;
        verdict.assert_clean(context);
        (verdict, drained)
    }

    /// Compares the tables with what was told, and with what the log holds.
    async fn judge(&self) -> Verdict {
        let group = uuid::Uuid::new_v4().to_string();
        let copy = LogCopy::read(&self.log, &self.topic, &group).await.unwrap();
        self.judged.judge(Some(&copy)).await
    }

    /// Who owns the pipeline, and the end of what each process said.
    fn last_words(&self) -> String {
        let mut words = format!("owners: {:?}", self.owners());
        for (number, karat) in &self.transforms {
            let err = karat.err();
            let lines: Vec<&str> = err.lines().collect();
            words += &format!("\n-- {number}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        words
    }

    /// Runs a command on the lake and the log of the fleet.
    pub async fn run(&self, words: &[&str]) -> Said {
        let words: Vec<&str> = words.iter().copied().chain(self.common.iter().map(String::as_str)).collect();
        self.judged.folder.run(&words).await
    }

    /// Ends everything, and verifies every table.
    pub async fn end(mut self) {
        self.drain("in the end").await;
        for (_, karat) in std::mem::take(&mut self.transforms) {
            karat.stop().await;
        }
        assert_no_difference(&self.run(&["table", "verify", "--format", "json"]).await.json());
        assert!(self.judged.ledger.acknowledged() > 0, "nothing was acknowledged");
        self.judge().await.assert_clean("after the end");
        self.ingest.stop().await;
    }
}

/// A process with the doors, and a client of it.
async fn door_of(judged: &Judged, doors: &[String]) -> (Karat, Client) {
    let words: Vec<&str> = ["ingest", "--listen", "127.0.0.1:0", "--without-limits"]
        .into_iter()
        .chain(doors.iter().map(String::as_str))
        .collect();
    let mut ingest = judged.folder.start_with("ingest", &words, &LOG);
    let client = Client::new(&ingest.url().await, &judged.key);
    (ingest, client)
}
