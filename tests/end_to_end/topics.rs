//! A topic of a real broker that was deleted and created again, or lost its front before it was read, and an embedded log that
//! lost its end: refused by name, and the named command goes on.

use std::{fs, ops::Range, path::Path};

use karat_eventlog::{
    EventLog, TopicSpec,
    kafka::{KafkaLog, KafkaSettings},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    fleet::{Fleet, PARTITIONS, broker},
    judged::BATCH,
    process::{Folder, run},
    sample::assert_no_difference,
    wait::until,
};

/// How many events silver has.
async fn silver(fleet: &Fleet) -> u64 {
    let sql = "SELECT count(*) AS events FROM silver.run_events";
    fleet.run(&["query", sql, "--format", "json"]).await.json()[0]["events"].as_u64().unwrap()
}

/// Publishes so many batches; the doors may have to find the topic anew.
async fn publish(fleet: &mut Fleet, batches: u64) {
    for _ in 0..batches {
        let numbers = fleet.judged.next..fleet.judged.next + BATCH;
        let events: Vec<_> = numbers.map(run_event).collect();
        until("the doors take events", async || {
            let answer = fleet.client.publish(&events, "").await.unwrap();
            (answer.status() == 202).then_some(())
        })
        .await;
        fleet.judged.next += BATCH;
    }
}

/// The words of the command that a process that refuses prints, to be run as it is, without `karat` itself.
fn printed_command(said: &str, topic: &str) -> Vec<String> {
    let command = said.rsplit('`').find(|part| part.starts_with("karat topic accept "));
    let command = command.unwrap_or_else(|| panic!("{said}"));
    assert!(command.starts_with(&format!("karat topic accept {topic} --data-dir ")), "{command}");
    command.split_whitespace().skip(1).map(str::to_owned).collect()
}

/// Runs the command that `said` has. What it says, by partition.
async fn accept_by_the_printed_command(said: &str, topic: &str) -> Vec<Value> {
    let command = printed_command(said, topic);
    let words: Vec<&str> = command.iter().map(String::as_str).chain(["--format", "json"]).collect();
    let moved = run(&words).await.json();
    assert!(moved.as_array().is_some_and(|moved| !moved.is_empty()), "{moved}");
    moved.as_array().cloned().unwrap()
}

/// Starts a process that must refuse; what it says.
async fn refusal(fleet: &mut Fleet) -> String {
    fleet.start(0);
    fleet.transforms.remove(&0).unwrap().fails().await
}

/// Starts a process that must bring silver to so many events, and verifies.
async fn goes_on(fleet: &mut Fleet, events: u64) {
    fleet.start(0);
    until("everything is there", async || (silver(fleet).await == events).then_some(())).await;
    fleet.stop(0).await;
    assert_no_difference(&fleet.run(&["table", "verify", "--format", "json"]).await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_on_the_broker_is_refused_until_the_named_command_accepts_it() {
    let Some(broker) = broker() else { return };
    let mut fleet = Fleet::new(&broker, &broker).await;
    fleet.start(0);
    fleet.drain("at first").await;
    let before = silver(&fleet).await;
    assert_eq!(before, fleet.judged.next);
    fleet.stop(0).await;

    let settings = KafkaSettings { bootstrap: broker, properties: Default::default(), replication: 1 };
    let log = KafkaLog::connect(settings).await.unwrap();
    log.delete_topic(&fleet.topic).await.unwrap();
    let spec = TopicSpec { name: fleet.topic.clone(), partitions: PARTITIONS, retention: None };
    log.ensure_topic(&spec).await.unwrap();
    // More than there was: no offset that the table wants is missing.
    publish(&mut fleet, 4).await;
    let said = refusal(&mut fleet).await;
    accept_by_the_printed_command(&said, &fleet.topic).await;
    goes_on(&mut fleet, before + 4 * BATCH).await;
}

/// Removes everything that the broker has of the topic, as retention would.
async fn remove_records(broker: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker).create().unwrap();
    let mut ends = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        ends.add_partition_offset(topic, partition.cast_signed(), Offset::End).unwrap();
    }
    let removed = admin.delete_records(&ends, &AdminOptions::new()).await.unwrap();
    removed.elements().iter().for_each(|partition| partition.error().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_lost_records_before_they_were_read_is_refused_and_what_is_missing_is_counted() {
    let Some(broker) = broker() else { return };
    let mut fleet = Fleet::new(&broker, &broker).await;
    fleet.start(0);
    fleet.drain("at first").await;
    let before = silver(&fleet).await;
    fleet.stop(0).await;

    publish(&mut fleet, 4).await;
    remove_records(&broker, &fleet.topic).await;
    publish(&mut fleet, 2).await;
    let said = refusal(&mut fleet).await;
    let moved = accept_by_the_printed_command(&said, &fleet.topic).await;
    let missing: u64 = moved.iter().map(|partition| partition["missing"].as_u64().unwrap()).sum();
    assert_eq!(missing, 4 * BATCH, "{moved:?}");
    goes_on(&mut fleet, before + 2 * BATCH).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// One life of an instance, in which these events arrive in gold.
async fn live(folder: &Folder, key: &str, name: &str, numbers: Range<u64>) {
    let mut karat = folder.start(name, &["up", "--listen", "127.0.0.1:0"]);
    let events: Vec<Value> = numbers.map(run_event).collect();
    Client::new(&karat.url().await, key).arrive(&events, "gold").await;
    karat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_log_that_came_back_without_its_end_is_refused_until_the_printed_command_accepts_it() {
    let folder = Folder::new();
    let key = folder.account("ada", "operator").await;
    live(&folder, &key, "first", 0..200).await;
    let (log, older) = (folder.path("data/log"), folder.path("older"));
    copy(&log, &older);
    live(&folder, &key, "second", 200..400).await;
    // The disk of the log is restored from a copy that is older than the tables.
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&older, &log).unwrap();
    let said = folder.start("refuses", &["up", "--listen", "127.0.0.1:0"]).fails().await;
    let moved = accept_by_the_printed_command(&said, "karat.events").await;
    assert!(moved.iter().all(|partition| partition["missing"] == 0), "{moved:?}");
    // What came while the log was whole is in the tables, and what comes now finds its place behind it.
    live(&folder, &key, "third", 400..500).await;
    let count = folder.run(&["query", "SELECT count(*) AS events FROM silver.run_events", "--format", "json"]).await;
    assert_eq!(count.json()[0]["events"], 500);
    assert_no_difference(&folder.run(&["table", "verify", "--format", "json"]).await.json());
}
