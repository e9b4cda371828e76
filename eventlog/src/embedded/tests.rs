//! What only the embedded log can show: locking, group commit under failure, memory bounds, retention, repair.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    sync::atomic::Ordering,
};

use bytes::Bytes;
use karat_schemas::clock;

use super::*;
use crate::{PollLimits, Record, StartPositions};

struct At(BTreeMap<u32, i64>);

#[async_trait]
impl StartPositions for At {
    async fn next_offsets(&self, _: &str, _: &[u32]) -> Result<BTreeMap<u32, i64>> {
        Ok(self.0.clone())
    }
}

fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec { name: name.into(), partitions, retention: None }
}

fn payload(text: impl Into<String>) -> NewRecord {
    NewRecord { payload: Bytes::from(text.into()), ..NewRecord::default() }
}

fn keyed(key: &'static str, text: impl Into<String>) -> NewRecord {
    NewRecord { key: Some(Bytes::from_static(key.as_bytes())), ..payload(text) }
}

async fn read_from(log: &EmbeddedLog, topic: &str, from: &[(u32, i64)], count: usize) -> Result<Vec<Record>> {
    let start = Arc::new(At(from.iter().copied().collect()));
    let mut consumer = log.consumer(ConsumerSettings { group: "g".into(), topic: topic.into(), start }).await?;
    let limits = PollLimits { max_records: 7, max_bytes: 1 << 20, max_wait: Duration::from_secs(10) };
    let mut records = Vec::new();
    while records.len() < count {
        let polled = consumer.poll(limits).await?;
        assert!(!polled.records.is_empty(), "only {} of {count} records came", records.len());
        assert!(polled.records.len() <= 7);
        records.extend(polled.records);
    }
    Ok(records)
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect()
}

#[tokio::test]
async fn a_second_open_of_the_same_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedLog::open(folder.path()).unwrap();
    assert!(matches!(EmbeddedLog::open(folder.path()), Err(Error::Locked { path }) if path == folder.path()));
    drop(first);
    EmbeddedLog::open(folder.path()).unwrap();
}

#[test]
fn stable_hash_of_keys() {
    // Changing the hash would break the order of a key across an upgrade.
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let row = store::TopicRow { id: uuid::Uuid::nil(), partitions: 1_000, retention_ms: None };
    let topic = Topic::load("t", row, &store).unwrap();
    assert_eq!((topic.partition_of(b""), topic.partition_of(b"order-17")), (138, 198));
}

#[tokio::test]
async fn after_a_failed_write_every_append_fails_by_name_until_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path()).unwrap();
    log.ensure_topic(&spec("t", 1)).await.unwrap();
    log.append("t", vec![payload("kept")]).await.unwrap();
    log.fail_next_commit.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert!(matches!(log.append("t", vec![payload("lost")]).await, Err(Error::Poisoned)));
    }
    assert!(matches!(log.ensure_topic(&spec("u", 1)).await, Err(Error::Poisoned)));
    drop(log);
    let log = EmbeddedLog::open(folder.path()).unwrap();
    log.append("t", vec![payload("new")]).await.unwrap();
    assert_eq!(texts(&read_from(&log, "t", &[], 2).await.unwrap()), ["kept", "new"]);
}

#[tokio::test]
async fn a_full_queue_answers_busy_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { queue_bytes: 1, ..EmbeddedOptions::default() };
    let log = EmbeddedLog::open_with(folder.path(), options).unwrap();
    log.ensure_topic(&spec("t", 1)).await.unwrap();
    let all = log.queue_bytes.available_permits();
    let held = log.queue_bytes.clone().try_acquire_many_owned(u32::try_from(all).unwrap()).unwrap();
    let refused = log.append("t", vec![payload("x")]).await.unwrap_err();
    assert!(matches!(refused, Error::Busy) && refused.is_retriable());
    drop(held);
    log.append("t", vec![payload("x")]).await.unwrap();
}

#[tokio::test]
async fn what_left_memory_is_read_from_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { tail_bytes: 100, ..EmbeddedOptions::default() };
    let log = EmbeddedLog::open_with(folder.path(), options).unwrap();
    log.ensure_topic(&spec("t", 2)).await.unwrap();
    for round in 0..50 {
        let records = (0..4).map(|i| keyed(["a", "b", "c", "d"][i], format!("{round}-{i}"))).collect();
        log.append("t", records).await.unwrap();
    }
    let topic = log.find("t").unwrap();
    assert!(topic.partitions.iter().all(|partition| partition.tail_batch(0).is_none()));
    let mut seen = texts(&read_from(&log, "t", &[], 200).await.unwrap());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 200);
}

#[tokio::test]
async fn reading_starts_in_the_middle_of_a_stored_batch() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path()).unwrap();
    log.ensure_topic(&spec("t", 1)).await.unwrap();
    log.append("t", (0..100).map(|i| payload(i.to_string())).collect()).await.unwrap();
    drop(log);
    let log = EmbeddedLog::open(folder.path()).unwrap();
    let records = read_from(&log, "t", &[(0, 42)], 58).await.unwrap();
    assert_eq!(texts(&records), (42..100).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn retention_drops_old_batches_and_keeps_offsets() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path()).unwrap();
    let spec = TopicSpec { retention: Some(Duration::ZERO), ..spec("t", 1) };
    log.ensure_topic(&spec).await.unwrap();
    for i in 0..3 {
        log.append("t", vec![payload(i.to_string())]).await.unwrap();
    }
    let written_us = clock::now_us();
    while clock::now_us() <= written_us {
        std::hint::spin_loop();
    }
    assert_eq!(log.apply_retention().await.unwrap(), 3);
    drop(log);
    let log = EmbeddedLog::open(folder.path()).unwrap();
    let range = log.topic("t").await.unwrap().partitions[0];
    assert_eq!((range.begin, range.end), (3, 3));
    let gone = read_from(&log, "t", &[(0, 1)], 1).await.unwrap_err();
    assert!(matches!(gone, Error::OffsetOutOfRange { wanted: 1, begin: 3, end: 3, .. }), "{gone}");
    assert_eq!(log.append("t", vec![payload("next")]).await.unwrap(), [Position { partition: 0, offset: 3 }]);
}

#[tokio::test]
async fn what_a_crash_left_of_a_deleted_topic_is_removed_at_open() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path()).unwrap();
    for name in ["gone", "kept"] {
        log.ensure_topic(&spec(name, 1)).await.unwrap();
        log.append(name, vec![payload(name)]).await.unwrap();
    }
    let gone = log.find("gone").unwrap().partitions[0].key;
    let mut changes = log.store.changes();
    log.store.remove_topic(&mut changes, "gone");
    log.store.commit(changes).unwrap();
    drop(log);
    let log = EmbeddedLog::open(folder.path()).unwrap();
    assert!(log.store.heads(gone, 10).unwrap().is_empty());
    assert_eq!(texts(&read_from(&log, "kept", &[], 1).await.unwrap()), ["kept"]);
}

/// Overwrites the last occurrence of `needle` in the journal with zeros, as a page that never reached the disk.
fn lose_page(folder: &Path, needle: &[u8]) {
    let journal = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(journal).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let at = bytes.windows(needle.len()).rposition(|window| window == needle).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&vec![0; needle.len()]).unwrap();
}

#[tokio::test]
async fn a_torn_last_write_is_cut_off_and_a_damaged_earlier_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path()).unwrap();
    log.ensure_topic(&spec("t", 1)).await.unwrap();
    for text in ["first record", "second record", "third record"] {
        log.append("t", vec![payload(text)]).await.unwrap();
    }
    drop(log);
    lose_page(folder.path(), b"third record");
    let log = EmbeddedLog::open(folder.path()).unwrap();
    assert_eq!(texts(&read_from(&log, "t", &[], 2).await.unwrap()), ["first record", "second record"]);
    assert_eq!(log.topic("t").await.unwrap().partitions[0].end, 2);
    drop(log);
    lose_page(folder.path(), b"first record");
    assert!(matches!(EmbeddedLog::open(folder.path()), Err(Error::Internal { .. })));
}
