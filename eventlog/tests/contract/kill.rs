//! `kill -9`: what the embedded log acknowledged is there afterwards.
//!
//! The test runs its own binary as the victim, with one test name and an environment variable that tells it where the
//! log is; the victim prints each acknowledged record, and is killed in the middle of its work.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use karat_eventlog::{ConsumerSettings, EventLog, TopicSpec, embedded::EmbeddedLog};

use crate::harness::{At, keyed, payload, read, text};

const FOLDER: &str = "KARAT_TEST_VICTIM_FOLDER";
const ROUND: &str = "KARAT_TEST_VICTIM_ROUND";
const MARK: &str = "acknowledged";
const TOPIC: &str = "t";

/// The victim. As a test of its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let (Ok(folder), Ok(round)) = (std::env::var(FOLDER), std::env::var(ROUND)) else { return };
    let log = Arc::new(EmbeddedLog::open(folder).unwrap());
    log.ensure_topic(&TopicSpec { name: TOPIC.into(), partitions: 3, retention: None }).await.unwrap();
    let work = |task: usize| {
        let (log, round) = (log.clone(), round.clone());
        tokio::spawn(async move {
            for i in 0.. {
                let name = format!("{round}/{task}/{i}");
                let records = match task % 3 {
                    0 => vec![payload(format!("{name}/0"))],
                    1 => vec![keyed(name.clone(), format!("{name}/0"))],
                    _ => (0..40).map(|n| keyed(n.to_string(), format!("{name}/{n}"))).collect(),
                };
                let texts: Vec<_> = records.iter().map(|r| String::from_utf8_lossy(&r.payload).into_owned()).collect();
                let positions = log.append(TOPIC, records).await.unwrap();
                let lines: String = positions
                    .iter()
                    .zip(texts)
                    .map(|(position, text)| format!("{MARK} {} {} {text}\n", position.partition, position.offset))
                    .collect();
                std::io::stdout().write_all(lines.as_bytes()).unwrap();
            }
        })
    };
    for task in (0..16).map(work).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Runs the victim until it has acknowledged enough, kills it, and gives all that it acknowledged.
fn run_and_kill(folder: &Path, round: usize) -> BTreeMap<(u32, i64), String> {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::victim", "--nocapture", "--test-threads", "1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeMap::new();
    let enough = 400 * (round + 1);
    for line in BufReader::new(victim.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        // The line that the kill cut short counts for nothing.
        if words.next() != Some(MARK) {
            continue;
        }
        if let (Some(partition), Some(offset), Some(text)) = (words.next(), words.next(), words.next()) {
            acknowledged.insert((partition.parse().unwrap(), offset.parse().unwrap()), text.to_owned());
        }
        if acknowledged.len() == enough {
            // SIGKILL; what it wrote before is still read below.
            victim.kill().unwrap();
        }
    }
    assert!(!victim.wait().unwrap().success());
    assert!(acknowledged.len() >= enough, "the victim died by itself");
    // The last line may have lost its end.
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..3 {
        for (position, text) in run_and_kill(folder.path(), round) {
            assert!(acknowledged.insert(position, text).is_none(), "{position:?} was given twice");
        }
        let log = EmbeddedLog::open(folder.path()).unwrap();
        let ranges = log.topic(TOPIC).await.unwrap().partitions;
        let count: i64 = ranges.iter().map(|range| range.end).sum();
        let start = Arc::new(At::beginning());
        let settings = ConsumerSettings { group: "g".into(), topic: TOPIC.into(), start };
        let mut consumer = log.consumer(settings).await.unwrap();
        let read = read(consumer.as_mut(), count as usize).await;
        let there: BTreeMap<_, _> = read.iter().map(|r| ((r.partition, r.offset), text(r))).collect();
        assert_eq!(there.len() as i64, count, "offsets have gaps or repeats");
        for (position, text) in &acknowledged {
            let found = there.get(position).unwrap_or_else(|| panic!("round {round}: {position:?} {text} is lost"));
            assert!(found.starts_with(text.as_str()), "{position:?} is {found}, acknowledged was {text}");
        }
    }
}
