//! A topic that is deleted and created again on a real broker: refused by name, and the named command goes on.

use karat_eventlog::{
    EventLog, TopicSpec,
    kafka::{KafkaLog, KafkaSettings},
};

use crate::{
    fleet::{Fleet, broker},
    judged::BATCH,
    process::run,
    wait::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_on_the_broker_is_refused_until_the_named_command_accepts_it() {
    let Some(broker) = broker() else { return };
    let mut fleet = Fleet::new(&broker, &broker).await;
    fleet.start(0);
    fleet.drain("at first").await;
    let silver = async |fleet: &Fleet| {
        let sql = "SELECT count(*) AS events FROM silver.run_events";
        fleet.run(&["query", sql, "--format", "json"]).await.json()[0]["events"].as_u64().unwrap()
    };
    let before = silver(&fleet).await;
    assert_eq!(before, fleet.judged.next);
    fleet.stop(0).await;

    let settings = KafkaSettings { bootstrap: broker, properties: Default::default(), replication: 1 };
    let log = KafkaLog::connect(settings).await.unwrap();
    log.delete_topic(&fleet.topic).await.unwrap();
    let spec = TopicSpec { name: fleet.topic.clone(), partitions: 8, retention: None };
    log.ensure_topic(&spec).await.unwrap();
    // More than there was: no offset that the table wants is missing.
    for _ in 0..4 {
        let numbers = fleet.judged.next..fleet.judged.next + BATCH;
        let events: Vec<_> = numbers.map(crate::client::run_event).collect();
        until("the doors find the new topic", async || {
            let answer = fleet.client.publish(&events, "").await.unwrap();
            (answer.status() == 202).then_some(())
        })
        .await;
        fleet.judged.next += BATCH;
    }
    fleet.start(0);
    let refused = fleet.transforms.remove(&0).unwrap();
    let said = refused.fails().await;
    // The last thing that it said is a command to be run as it is.
    let command =
        said.rsplit('`').find(|part| part.starts_with("karat topic accept ")).unwrap_or_else(|| panic!("{said}"));
    assert!(command.starts_with(&format!("karat topic accept {} --data-dir ", fleet.topic)), "{command}");
    let words: Vec<&str> = command.split_whitespace().skip(1).chain(["--format", "json"]).collect();
    let moved = run(&words).await.json();
    assert!(moved.as_array().is_some_and(|moved| !moved.is_empty()), "{moved}");
    fleet.start(0);
    until("everything of both topics is there", async || (silver(&fleet).await == before + 4 * BATCH).then_some(()))
        .await;
    fleet.stop(0).await;
    let report = fleet.run(&["table", "verify", "--format", "json"]).await.json();
    crate::sample::assert_no_difference(&report);
}
