//! The embedded log: what was answered is there, and after a failure nothing more is taken until it is opened again.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use karat_eventlog::{
    ConsumerSettings, Error, EventLog, NewRecord, PollLimits, StartPositions, TopicSpec, embedded::EmbeddedLog,
};

use super::{Shim, child_folder, noise, tell};
use crate::wait::DEADLINE;

const TOPIC: &str = "t";
/// Appends of so many bytes: in the end the buffer of the log is full, and becomes files.
const APPENDS: u64 = 30;
const BYTES: usize = 1_600_000;

fn record(number: u64) -> NewRecord {
    NewRecord { payload: Bytes::from(noise(number, BYTES)), ..NewRecord::default() }
}

/// Appends until the end, and notes what was answered.
#[tokio::test]
#[ignore = "run by calls_that_fail_inside_the_log_cost_nothing_that_was_answered"]
async fn child() {
    let Some(folder) = child_folder() else { return };
    let Ok(log) = EmbeddedLog::open(folder.join("data")) else { return };
    let mut has_failed = false;
    let created = log.ensure_topic(&TopicSpec { name: TOPIC.into(), partitions: 1, retention: None }).await;
    for number in 0..if created.is_ok() { APPENDS } else { 0 } {
        match log.append(TOPIC, vec![record(number)]).await {
            Ok(_) => {
                assert!(!has_failed, "{number} was taken after a failed write");
                tell(&folder, &number.to_string());
            }
            Err(error) => {
                // The first one says why, the others that it is over.
                assert!(!has_failed || matches!(error, Error::Poisoned), "{number}: {error}");
                has_failed = true;
            }
        }
    }
    // Written at once, while it can be: not with what closes it.
    drop(log);
}

struct FromTheBeginning;

#[async_trait]
impl StartPositions for FromTheBeginning {
    async fn next_offsets(&self, _: &str, _: &[u32]) -> karat_eventlog::Result<BTreeMap<u32, i64>> {
        Ok(BTreeMap::new())
    }
}

/// The numbers of the records that the log has, each with the bytes it was sent with.
async fn numbers(log: &EmbeddedLog) -> Vec<u64> {
    let end = log.topic(TOPIC).await.unwrap().partitions[0].end;
    let settings = ConsumerSettings { group: "g".into(), topic: TOPIC.into(), start: Arc::new(FromTheBeginning) };
    let mut consumer = log.consumer(settings).await.unwrap();
    let limits = PollLimits { max_records: 10, max_bytes: 8 << 20, max_wait: DEADLINE };
    let mut found = Vec::new();
    while i64::try_from(found.len()).unwrap() < end {
        let polled = consumer.poll(limits).await.unwrap();
        assert!(!polled.records.is_empty());
        for record in polled.records {
            let number = (0..=APPENDS).find(|number| noise(*number, 16) == record.payload[..16]).unwrap();
            assert_eq!(record.payload, noise(number, BYTES));
            found.push(number);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_inside_the_log_cost_nothing_that_was_answered() {
    let Some(shim) = Shim::compile() else { return };
    let hit = shim
        .each("failing_calls::log::child", async |fault, left| {
            let log = EmbeddedLog::open(&left.data).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            log.ensure_topic(&TopicSpec { name: TOPIC.into(), partitions: 1, retention: None }).await.unwrap();
            let found = numbers(&log).await;
            let told: Vec<u64> = left.told.iter().map(|line| line.parse().unwrap()).collect();
            // At most the one that was being written is there without an answer.
            assert!(found.starts_with(&told) && found.len() <= told.len() + 1, "{fault:?}: {told:?}, {found:?}");
            log.append(TOPIC, vec![record(APPENDS)]).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert_eq!(numbers(&log).await.last(), Some(&APPENDS), "{fault:?}");
        })
        .await;
    assert!(hit > 40, "only {hit} calls failed");
}
