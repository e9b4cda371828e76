//! The judge finds what was planted: without this, a clean verdict says nothing.

// Helpers of tests are tests: what fails there fails the case.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use karat_eventlog::{EventLog, Headers, NewRecord, TopicSpec, embedded::EmbeddedLog};
use karat_lake::{
    Lake, Table, TableSpec, TransactionId,
    arrow::{
        array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
};
use karat_oracle::{Ledger, LogCopy, Outcome, Verdict, Watched, judge};

const EVENTS: i64 = 20;

struct World {
    _folder: tempfile::TempDir,
    lake: Lake,
    ledger: Ledger,
    bronze: Table,
    silver: Table,
    quarantine: Table,
}

fn spec(name: &str, columns: &[(&str, DataType)]) -> TableSpec {
    let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
    TableSpec {
        name: name.to_owned(),
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        partition_by: Vec::new(),
        stats_columns: Vec::new(),
        append_only: false,
    }
}

fn payload(number: i64) -> Vec<u8> {
    format!("payload {number}").into_bytes()
}

/// Bronze rows of the events with these numbers at these offsets.
fn bronze_rows(events: &[(i64, i64)]) -> RecordBatch {
    let payloads: Vec<Vec<u8>> = events.iter().map(|(number, _)| payload(*number)).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("partition", Arc::new(Int32Array::from(vec![0; events.len()]))),
        ("offset", Arc::new(Int64Array::from_iter_values(events.iter().map(|(_, offset)| *offset)))),
        ("payload", Arc::new(BinaryArray::from_iter_values(payloads))),
        ("ce_source", Arc::new(StringArray::from(vec!["/s"; events.len()]))),
        ("ce_id", Arc::new(StringArray::from_iter_values(events.iter().map(|(number, _)| format!("e{number}"))))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn places(names: [&'static str; 2], offsets: &[i64]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        (names[0], Arc::new(Int32Array::from(vec![0; offsets.len()]))),
        (names[1], Arc::new(Int64Array::from(offsets.to_vec()))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

const SILVER: [&str; 2] = ["_partition", "_offset"];
const QUARANTINE: [&str; 2] = ["partition", "offset"];

impl World {
    /// Twenty acknowledged events, each once in bronze; the last in quarantine, the others in silver.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let [partition, offset] = [DataType::Int32, DataType::Int64];
        let columns = [
            ("partition", partition.clone()),
            ("offset", offset.clone()),
            ("payload", DataType::Binary),
            ("ce_source", DataType::Utf8),
            ("ce_id", DataType::Utf8),
        ];
        let bronze = lake.open_or_create(&spec("bronze.t", &columns)).await.unwrap();
        let silver = [(SILVER[0], partition.clone()), (SILVER[1], offset.clone())];
        let silver = lake.open_or_create(&spec("silver.t", &silver)).await.unwrap();
        let quarantine = [(QUARANTINE[0], partition), (QUARANTINE[1], offset)];
        let quarantine = lake.open_or_create(&spec("quarantine.p", &quarantine)).await.unwrap();
        let mut world = Self { _folder: folder, lake, ledger: Ledger::default(), bronze, silver, quarantine };
        for number in 0..EVENTS {
            world.note(number, Outcome::Acknowledged);
        }
        world.add_bronze(&(0..EVENTS).map(|number| (number, number)).collect::<Vec<_>>(), EVENTS).await;
        let offsets: Vec<i64> = (0..EVENTS - 1).collect();
        world.silver.append(&[places(SILVER, &offsets)], &[]).await.unwrap();
        world.quarantine.append(&[places(QUARANTINE, &[EVENTS - 1])], &[]).await.unwrap();
        world
    }

    fn note(&mut self, number: i64, outcome: Outcome) {
        self.ledger.note("p", "/s", &format!("e{number}"), &payload(number), outcome);
    }

    async fn add_bronze(&mut self, events: &[(i64, i64)], next: i64) {
        self.bronze.append(&[bronze_rows(events)], &[TransactionId::new("t/0", next)]).await.unwrap();
    }

    async fn judge(&self) -> Verdict {
        self.judge_beside(None).await
    }

    async fn judge_beside(&self, log: Option<&LogCopy>) -> Verdict {
        let watched = Watched {
            bronze: "bronze.t".to_owned(),
            silver: vec!["silver.t".to_owned()],
            quarantine: "quarantine.p".to_owned(),
        };
        judge(&self.lake, &watched, &self.ledger, log).await.unwrap()
    }

    /// How many sentences of each kind there are.
    async fn counts(&self) -> (usize, usize, usize) {
        let verdict = self.judge().await;
        (verdict.lost.len(), verdict.duplicated.len(), verdict.wrong.len())
    }
}

#[tokio::test]
async fn a_world_in_order_is_clean() {
    let world = World::new().await;
    let verdict = world.judge().await;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.acknowledged, verdict.found), (EVENTS as u64, EVENTS as u64));
}

#[tokio::test]
async fn an_acknowledged_event_that_is_not_in_bronze_is_lost() {
    let mut world = World::new().await;
    world.note(EVENTS, Outcome::Acknowledged);
    assert_eq!(world.counts().await, (1, 0, 0));
    assert!(world.judge().await.to_string().contains("(/s, e20)"));
}

#[tokio::test]
async fn a_row_that_is_removed_from_silver_is_lost() {
    let mut world = World::new().await;
    let files = world.silver.files().map(|file| file.path().to_owned()).collect();
    let offsets: Vec<i64> = (1..EVENTS - 1).collect();
    let staged = world.silver.staging().stage("part", &[], &[places(SILVER, &offsets)]).await.unwrap();
    world.silver.commit(files, staged.into_iter().collect(), &[]).await.unwrap();
    assert_eq!(world.counts().await, (1, 0, 0));
}

#[tokio::test]
async fn a_gap_in_bronze_is_a_loss() {
    let mut world = World::new().await;
    world.note(EVENTS, Outcome::Acknowledged);
    world.add_bronze(&[(EVENTS, EVENTS + 1)], EVENTS + 2).await;
    world.silver.append(&[places(SILVER, &[EVENTS + 1])], &[]).await.unwrap();
    assert_eq!(world.counts().await, (1, 0, 0));
}

#[tokio::test]
async fn a_bronze_row_that_is_there_twice_is_a_duplicate() {
    let mut world = World::new().await;
    world.add_bronze(&[(3, 3)], EVENTS).await;
    // Too many for the ledger, twice at one place, and of its places two are in silver.
    assert_eq!(world.counts().await, (0, 3, 0));
}

#[tokio::test]
async fn a_silver_row_that_is_there_twice_is_a_duplicate_wherever_it_came_from() {
    let mut world = World::new().await;
    world.silver.append(&[places(SILVER, &[3])], &[]).await.unwrap();
    assert_eq!(world.counts().await, (0, 1, 0));
    // The same event, sent again: both of its bronze rows are in silver.
    let mut world = World::new().await;
    world.note(3, Outcome::Acknowledged);
    world.add_bronze(&[(3, EVENTS)], EVENTS + 1).await;
    assert_eq!(world.counts().await, (0, 0, 0));
    world.silver.append(&[places(SILVER, &[EVENTS])], &[]).await.unwrap();
    assert_eq!(world.counts().await, (0, 1, 0));
}

#[tokio::test]
async fn a_place_that_is_put_aside_twice_or_is_in_silver_too_is_a_duplicate() {
    for offset in [EVENTS - 1, 3] {
        let mut world = World::new().await;
        world.quarantine.append(&[places(QUARANTINE, &[offset])], &[]).await.unwrap();
        assert_eq!(world.counts().await, (0, 1, 0), "{offset}");
    }
}

#[tokio::test]
async fn a_refused_event_that_is_there_is_too_many_and_one_without_an_answer_may_be_there_once() {
    for (outcome, duplicated) in [(Outcome::Refused, 1), (Outcome::Unknown, 0)] {
        let mut world = World::new().await;
        world.note(EVENTS, outcome);
        assert_eq!(world.counts().await, (0, 0, 0), "{outcome:?}");
        world.add_bronze(&[(EVENTS, EVENTS)], EVENTS + 1).await;
        world.silver.append(&[places(SILVER, &[EVENTS])], &[]).await.unwrap();
        assert_eq!(world.counts().await, (0, duplicated, 0), "{outcome:?}");
    }
}

#[tokio::test]
async fn what_nobody_sent_a_stray_row_and_a_position_that_falls_are_wrong() {
    let mut world = World::new().await;
    world.add_bronze(&[(EVENTS, EVENTS)], EVENTS - 5).await;
    world.silver.append(&[places(SILVER, &[EVENTS, EVENTS + 7])], &[]).await.unwrap();
    assert_eq!(world.counts().await, (0, 0, 3));
    let mut verdict = world.judge().await;
    verdict.differs("gold.t", 0);
    verdict.differs("gold.t", 2);
    assert_eq!(verdict.wrong.len(), 4);
}

/// A log with the events of these numbers, one after another.
async fn log_of(numbers: impl IntoIterator<Item = i64>) -> LogCopy {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path()).unwrap();
    log.ensure_topic(&TopicSpec { name: "t".to_owned(), partitions: 1, retention: None }).await.unwrap();
    let record = |number: i64| NewRecord {
        key: None,
        headers: Headers::from_pairs([("ce_source", b"/s".as_slice()), ("ce_id", format!("e{number}").as_bytes())]),
        payload: payload(number).into(),
    };
    log.append("t", numbers.into_iter().map(record).collect()).await.unwrap();
    LogCopy::read(&log, "t", "judge").await.unwrap()
}

#[tokio::test]
async fn a_log_with_the_same_events_in_the_same_places_is_clean() {
    let verdict = World::new().await.judge_beside(Some(&log_of(0..EVENTS).await)).await;
    assert!(verdict.is_clean(), "{verdict}");
}

#[tokio::test]
async fn whether_the_log_has_a_lost_event_is_said() {
    let mut world = World::new().await;
    world.note(EVENTS, Outcome::Acknowledged);
    let verdict = world.judge_beside(Some(&log_of(0..EVENTS).await)).await;
    assert_eq!((verdict.lost.len(), verdict.wrong.len()), (1, 0), "{verdict}");
    assert!(verdict.lost[0].ends_with("not in the log"), "{verdict}");
    let verdict = world.judge_beside(Some(&log_of(0..=EVENTS).await)).await;
    assert_eq!((verdict.lost.len(), verdict.wrong.len()), (2, 0), "{verdict}");
    assert!(verdict.lost[0].ends_with("in the log at 0/20"), "{verdict}");
    assert!(verdict.lost[1].contains("1 records from 20 to 20"), "{verdict}");
}

#[tokio::test]
async fn another_event_in_a_place_of_the_log_is_wrong_and_so_is_none() {
    let world = World::new().await;
    let verdict = world.judge_beside(Some(&log_of((0..EVENTS - 1).chain([77])).await)).await;
    assert_eq!((verdict.lost.len(), verdict.wrong.len()), (0, 1), "{verdict}");
    let verdict = world.judge_beside(Some(&log_of(0..EVENTS - 2).await)).await;
    assert_eq!((verdict.lost.len(), verdict.wrong.len()), (0, 2), "{verdict}");
}
