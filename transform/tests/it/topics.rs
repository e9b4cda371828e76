//! A topic that is not the one that the tables know, or has lost records: refused by name, and the named command goes on.

use std::sync::Arc;

use karat_eventlog::embedded::EmbeddedLog;
use karat_lake::TransactionId;
use karat_schemas::pipelines::BUILT_IN;
use karat_transform::{
    bronze::{
        position_name,
        source::{Accepted, accept},
        table_name,
    },
    worker,
};

use crate::support::{World, airline};

/// Starts a worker that must end by itself, and gives its reason.
async fn refusal(world: &World) -> String {
    let error = world.start().ended().await.unwrap_err().to_string();
    let topic = &world.pipeline().topic;
    assert!(error.contains(&format!("`karat topic accept {topic}`")), "{error}");
    error
}

async fn accepted(world: &World) -> Vec<Accepted> {
    accept(world.settings.log.as_ref(), &world.settings.lake, &world.pipeline().topic).await.unwrap()
}

async fn silver(world: &World) -> usize {
    world.rows("silver.run_events").await.num_rows()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_refused_however_many_records_it_has_until_it_is_accepted() {
    let mut world = World::new(BUILT_IN).await;
    let events = airline();
    let running = world.start();
    world.publish(events[..100].to_vec()).await;
    world.settled(&running).await;
    running.stop().await;
    assert_eq!((accepted(&world).await, silver(&world).await), (Vec::new(), 100));
    // More records than the old one had: no offset is missing.
    world.settings.log = Arc::new(EmbeddedLog::open(world.folder().join("another-log")).unwrap());
    worker::ensure_topics(world.settings.log.as_ref(), &world.settings.pipelines).await.unwrap();
    world.publish(events[50..400].to_vec()).await;
    let reason = refusal(&world).await;
    assert!(reason.contains("filled from another topic"), "{reason}");
    let moved = accepted(&world).await;
    assert!(!moved.is_empty() && moved.iter().all(|partition| partition.next == 0), "{moved:?}");
    assert_eq!(accepted(&world).await, [], "twice is as once");
    let running = world.start();
    world.settled(&running).await;
    running.stop().await;
    assert_eq!(silver(&world).await, 400, "each event once, also those of both topics");
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_lost_its_end_is_refused_until_that_is_accepted() {
    let world = World::new(BUILT_IN).await;
    let events = airline();
    let running = world.start();
    world.publish(events[..100].to_vec()).await;
    world.settled(&running).await;
    running.stop().await;
    let topic = &world.pipeline().topic;
    let mut bronze = world.settings.lake.open(&table_name(topic)).await.unwrap();
    let end = world.settings.log.topic(topic).await.unwrap().partitions[0].end;
    // As if the table had taken records that the log lost afterwards.
    let ahead = [TransactionId::new(position_name(topic, 0), end + 7)];
    bronze.commit(Vec::new(), Vec::new(), &ahead).await.unwrap();
    let reason = refusal(&world).await;
    assert!(reason.contains(&format!("offset {} of `{topic}` partition 0", end + 7)), "{reason}");
    assert_eq!(accepted(&world).await, [Accepted { partition: 0, wanted: end + 7, next: end, missing: 0 }]);
    let running = world.start();
    world.publish(events[100..200].to_vec()).await;
    world.settled(&running).await;
    running.stop().await;
    assert_eq!(silver(&world).await, 200);
    world.assert_verified().await;
}
