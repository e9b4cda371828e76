//! Kafka only: partitions change hands while records flow.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use karat_eventlog::{Consumer, Error, EventLog, Result, StartPositions};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::harness::{DEADLINE, Fixture, keyed, limits, payload, read, read_error};

/// How far the publisher may run ahead of the table.
const AHEAD: usize = 3_000;

/// Stands for a table: records and positions in one step, and a stale writer is recognised.
#[derive(Default)]
struct Table {
    next: BTreeMap<u32, i64>,
    texts: BTreeSet<Vec<u8>>,
    num_repeats: usize,
}

#[derive(Default)]
struct Scene {
    table: Mutex<Table>,
    num_published: AtomicUsize,
    num_committed: AtomicUsize,
    is_published: AtomicBool,
}

struct Positions(Arc<Scene>);

#[async_trait]
impl StartPositions for Positions {
    async fn next_offsets(&self, _: &str, _: &[u32]) -> Result<BTreeMap<u32, i64>> {
        Ok(self.0.table.lock().await.next.clone())
    }
}

/// A consumer at work, and what it has seen.
struct Worker {
    task: JoinHandle<()>,
    num_committed: Arc<AtomicUsize>,
    num_revoked: Arc<AtomicUsize>,
}

impl Worker {
    async fn join(fixture: &Fixture, scene: &Arc<Scene>) -> Self {
        let consumer = fixture.consumer(Positions(scene.clone())).await.unwrap();
        let (num_committed, num_revoked) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let task = tokio::spawn(work(consumer, scene.clone(), num_committed.clone(), num_revoked.clone()));
        Self { task, num_committed, num_revoked }
    }
}

/// Reads and commits until the table has everything that was published.
async fn work(
    mut consumer: Box<dyn Consumer>,
    scene: Arc<Scene>,
    num_committed: Arc<AtomicUsize>,
    num_revoked: Arc<AtomicUsize>,
) {
    while !scene.is_published.load(SeqCst) || scene.num_committed.load(SeqCst) < scene.num_published.load(SeqCst) {
        let polled = consumer.poll(limits(Duration::from_millis(100))).await.unwrap();
        num_revoked.fetch_add(polled.revoked.len(), SeqCst);
        let mut table = scene.table.lock().await;
        for record in polled.records {
            let next = table.next.entry(record.partition).or_default();
            if record.offset < *next {
                // The fence of a table: the partition's new owner was faster.
                table.num_repeats += 1;
                continue;
            }
            assert_eq!(record.offset, *next, "a gap in partition {}", record.partition);
            *next += 1;
            assert!(table.texts.insert(record.payload.to_vec()));
            scene.num_committed.fetch_add(1, SeqCst);
            num_committed.fetch_add(1, SeqCst);
        }
    }
}

async fn publish(log: Arc<dyn EventLog>, topic: String, scene: Arc<Scene>, is_enough: Arc<AtomicBool>) {
    while !is_enough.load(SeqCst) {
        let first = scene.num_published.load(SeqCst);
        let records = (first..first + 100).map(|i| keyed(i.to_string(), i.to_string())).collect();
        log.append(&topic, records).await.unwrap();
        scene.num_published.fetch_add(100, SeqCst);
        while scene.num_published.load(SeqCst) > scene.num_committed.load(SeqCst) + AHEAD {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    scene.is_published.store(true, SeqCst);
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_consumers_come_and_go() {
    let Some(fixture) = Fixture::kafka("rebalance").await else { return };
    fixture.create(6).await;
    let (scene, is_enough) = (Arc::new(Scene::default()), Arc::new(AtomicBool::new(false)));
    let publisher = tokio::spawn(publish(fixture.log(), fixture.topic.clone(), scene.clone(), is_enough.clone()));
    let first = Worker::join(&fixture, &scene).await;
    until("the first consumer reads", || first.num_committed.load(SeqCst) > 0).await;
    let second = Worker::join(&fixture, &scene).await;
    until("the second consumer reads", || second.num_committed.load(SeqCst) > 1_000).await;
    assert!(first.num_revoked.load(SeqCst) > 0, "it got partitions that nobody lost");
    let leaving = Worker::join(&fixture, &scene).await;
    until("the third consumer reads", || leaving.num_committed.load(SeqCst) > 1_000).await;
    leaving.task.abort();
    // Nobody gets past AHEAD before the partitions of the third are taken over.
    let now = scene.num_committed.load(SeqCst);
    until("the others take over", || scene.num_committed.load(SeqCst) > now + 4 * AHEAD).await;
    is_enough.store(true, SeqCst);
    publisher.await.unwrap();
    first.task.await.unwrap();
    second.task.await.unwrap();
    let table = scene.table.lock().await;
    println!("{} records; {} were read twice and fenced", table.texts.len(), table.num_repeats);
    assert_eq!(table.texts.len(), scene.num_published.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_under_a_consumer_is_named() {
    let Some(fixture) = Fixture::kafka("recreated").await else { return };
    fixture.create(1).await;
    fixture.log().append(&fixture.topic, vec![payload("old")]).await.unwrap();
    let old = fixture.log().topic(&fixture.topic).await.unwrap().id;
    let mut consumer = fixture.consumer(crate::harness::At::beginning()).await.unwrap();
    read(consumer.as_mut(), 1).await;
    fixture.log().delete_topic(&fixture.topic).await.unwrap();
    fixture.create(1).await;
    let error = read_error(consumer.as_mut()).await;
    assert!(
        matches!(&error, Error::TopicRecreated { expected, .. } if *expected == old)
            || matches!(error, Error::UnknownTopic { .. }),
        "{error}"
    );
}
