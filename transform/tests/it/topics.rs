//! A topic that is not the one that the tables know, or has lost records: refused by name, and the named command goes on.

use std::{path::Path, sync::Arc, time::Duration};

use karat_eventlog::{EventLog, NewRecord, TopicSpec, embedded::EmbeddedLog};
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
    let settings = &world.settings;
    accept(settings.log.as_ref(), &settings.lake, &settings.pipelines, &world.pipeline().topic).await.unwrap()
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

/// Publishes to a worker that stops when it has everything.
async fn take(world: &World, events: &[NewRecord]) {
    let running = world.start();
    world.publish(events.to_vec()).await;
    world.settled(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_dropped_what_the_tables_want_next_is_refused_until_that_is_accepted() {
    let mut world = World::new(BUILT_IN).await;
    let events = airline();
    let topic = world.pipeline().topic.clone();
    let log = Arc::new(EmbeddedLog::open(world.folder().join("short")).unwrap());
    let spec = TopicSpec { name: topic.clone(), partitions: 4, retention: Some(Duration::ZERO) };
    log.ensure_topic(&spec).await.unwrap();
    worker::ensure_topics(log.as_ref(), &world.settings.pipelines).await.unwrap();
    world.settings.log = log.clone();
    take(&world, &events[..100]).await;
    world.publish(events[100..160].to_vec()).await;
    log.apply_retention().await.unwrap();
    world.publish(events[160..200].to_vec()).await;
    let reason = refusal(&world).await;
    assert!(reason.contains(&format!("of `{topic}` partition ")), "{reason}");
    let moved = accepted(&world).await;
    assert_eq!(moved.iter().map(|partition| partition.missing).sum::<i64>(), 60, "{moved:?}");
    let running = world.start();
    world.settled(&running).await;
    running.stop().await;
    assert_eq!(silver(&world).await, 140);
    world.assert_verified().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_and_went_on_is_refused_and_what_came_since_is_not_passed_over() {
    let mut world = World::new(BUILT_IN).await;
    let events = airline();
    take(&world, &events[..100]).await;
    // Nobody has the log open while it is copied.
    let elsewhere = Arc::new(EmbeddedLog::open(world.folder().join("elsewhere")).unwrap());
    world.settings.log = elsewhere.clone();
    let (log, kept) = (world.folder().join("log"), world.folder().join("kept"));
    copy(&log, &kept);
    world.settings.log = Arc::new(EmbeddedLog::open(&log).unwrap());
    take(&world, &events[100..160]).await;
    world.settings.log = elsewhere;
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(&kept, &log).unwrap();
    world.settings.log = Arc::new(EmbeddedLog::open(&log).unwrap());
    // It has more by now than the table wants next: no offset is missing.
    world.publish(events[200..600].to_vec()).await;
    let reason = refusal(&world).await;
    assert!(reason.contains("holds another record than was read there"), "{reason}");
    let moved = accepted(&world).await;
    assert!(
        !moved.is_empty() && moved.iter().all(|moved| moved.next < moved.wanted && moved.missing == 0),
        "{moved:?}"
    );
    // The epoch is of before: it covers none of what came since.
    let covers = world.epochs().latest().await.unwrap().unwrap().covers();
    assert!(moved.iter().all(|moved| covers[&moved.partition] == moved.next), "{covers:?} {moved:?}");
    assert_eq!(accepted(&world).await, [], "twice is as once");
    let running = world.start();
    assert_eq!(world.settled(&running).await.moved, None);
    running.stop().await;
    assert_eq!(silver(&world).await, 160 + 400, "what the log lost is in the tables, and what came since too");
    world.assert_verified().await;
    // It starts again as if nothing had been.
    take(&world, &events[600..650]).await;
    assert_eq!(silver(&world).await, 610);
}
