//! A topic of a real broker that was deleted and created again, or lost its front before it was read: refused by name, and the
//! named command goes on.

use karat_eventlog::{
    EventLog, TopicSpec,
    kafka::{KafkaLog, KafkaSettings},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

use crate::{
    client::run_event,
    fleet::{Fleet, PARTITIONS, broker},
    judged::BATCH,
    process::run,
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

/// Starts a process that must refuse, and runs the command that it prints as it is. What that says, in JSON.
async fn accept_by_the_printed_command(fleet: &mut Fleet) -> Vec<serde_json::Value> {
    fleet.start(0);
    let said = fleet.transforms.remove(&0).unwrap().fails().await;
    let command =
        said.rsplit('`').find(|part| part.starts_with("karat topic accept ")).unwrap_or_else(|| panic!("{said}"));
    assert!(command.starts_with(&format!("karat topic accept {} --data-dir ", fleet.topic)), "{command}");
    let words: Vec<&str> = command.split_whitespace().skip(1).chain(["--format", "json"]).collect();
    let moved = run(&words).await.json();
    assert!(moved.as_array().is_some_and(|moved| !moved.is_empty()), "{moved}");
    moved.as_array().cloned().unwrap()
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
    accept_by_the_printed_command(&mut fleet).await;
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
    let moved = accept_by_the_printed_command(&mut fleet).await;
    let missing: u64 = moved.iter().map(|partition| partition["missing"].as_u64().unwrap()).sum();
    assert_eq!(missing, 4 * BATCH, "{moved:?}");
    goes_on(&mut fleet, before + 2 * BATCH).await;
}
