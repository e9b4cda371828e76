//! Reading: positions, order, waking, limits.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use karat_eventlog::{Error, Fingerprint, PollLimits, Record, Result, StartPositions};

use crate::harness::{At, DEADLINE, Fixture, keyed, limits, payload, read, read_error, text};

pub async fn records_of_a_key_keep_their_order(fixture: Fixture) {
    fixture.create(4).await;
    for i in 0..50 {
        let records = (0..10).map(|key| keyed(format!("key-{key}"), format!("{i}"))).collect();
        fixture.log().append(&fixture.topic, records).await.unwrap();
    }
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in fixture.read(&[], 500).await {
        by_key.entry(record.key.clone().unwrap()).or_default().push((record.partition, text(&record).to_owned()));
    }
    assert_eq!(by_key.len(), 10);
    for (key, seen) in by_key {
        let expected: Vec<_> = (0..50).map(|i| (seen[0].0, i.to_string())).collect();
        assert_eq!(seen, expected, "order of {key:?}");
    }
}

pub async fn reading_starts_where_the_positions_say(fixture: Fixture) {
    fixture.create(2).await;
    let records = (0..200).map(|i| keyed(i.to_string(), i.to_string())).collect();
    fixture.log().append(&fixture.topic, records).await.unwrap();
    let ends: Vec<_> = fixture.log().topic(&fixture.topic).await.unwrap().partitions.iter().map(|p| p.end).collect();
    // The middle of one partition, the end of the other.
    let from = [(0, ends[0] / 2), (1, ends[1])];
    let expected = (ends[0] - ends[0] / 2) as usize;
    let mut consumer = fixture.consumer(At::new(&from)).await.unwrap();
    let records = read(consumer.as_mut(), expected).await;
    let offsets: Vec<_> = records.iter().map(|record| (record.partition, record.offset)).collect();
    assert_eq!(offsets, (ends[0] / 2..ends[0]).map(|offset| (0, offset)).collect::<Vec<_>>());
    let more = consumer.poll(limits(Duration::from_millis(200))).await.unwrap();
    assert!(more.records.is_empty());
    // Broker-side positions, written for displays, change nothing for the next consumer.
    consumer.commit_for_display(&BTreeMap::from([(0, ends[0]), (1, ends[1])])).await;
    consumer.poll(limits(Duration::from_millis(200))).await.unwrap();
    drop(consumer);
    assert_eq!(fixture.read(&[], 200).await.len(), 200);
}

pub async fn a_position_above_the_end_is_named(fixture: Fixture) {
    fixture.create(1).await;
    fixture.log().append(&fixture.topic, vec![payload("a"), payload("b")]).await.unwrap();
    let error = open_and_read_error(&fixture, At::new(&[(0, 3)])).await;
    assert!(
        matches!(&error, Error::OffsetOutOfRange { topic, partition: 0, wanted: 3, begin: 0, end: 2 }
            if *topic == fixture.topic),
        "{error}"
    );
}

pub async fn a_position_below_the_begin_of_an_empty_topic_is_named(fixture: Fixture) {
    fixture.create(1).await;
    let error = open_and_read_error(&fixture, At::new(&[(0, -1)])).await;
    assert!(matches!(error, Error::OffsetOutOfRange { wanted: -1, begin: 0, end: 0, .. }), "{error}");
}

/// A table that has read up to an offset of partition 0, and knows the record before it.
struct Knows(i64, Fingerprint);

#[async_trait]
impl StartPositions for Knows {
    async fn next_offsets(&self, _: &str, _: &[u32]) -> Result<BTreeMap<u32, i64>> {
        Ok([(0, self.0)].into())
    }

    async fn last_records(&self, _: &str, _: &[u32]) -> Result<BTreeMap<u32, Fingerprint>> {
        Ok([(0, self.1)].into())
    }
}

pub async fn another_record_where_one_was_read_is_named(mut fixture: Fixture) {
    fixture.create(1).await;
    fixture.log().append(&fixture.topic, vec![payload("a"), payload("b"), payload("c")]).await.unwrap();
    let records = fixture.read(&[], 3).await;
    // The one that was read, again, and nothing else: at the end of the log, and before records that are new.
    for next in [2, 3] {
        let last = records[next - 1].fingerprint();
        fixture.restart().await;
        let mut consumer = fixture.consumer(Knows(next as i64, last)).await.unwrap();
        let more = fixture.log().append(&fixture.topic, vec![payload("more")]).await.unwrap();
        let offsets = read(consumer.as_mut(), more[0].offset as usize + 1 - next).await;
        let offsets: Vec<_> = offsets.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (next as i64..=more[0].offset).collect::<Vec<_>>());
        consumer.close().await;
    }
    // One of another place says nothing.
    let mut consumer = fixture.consumer(Knows(2, records[2].fingerprint())).await.unwrap();
    read(consumer.as_mut(), 3).await;
    consumer.close().await;
    // What was read at offset 1 is another record than the one that is there, as after an end that was lost.
    let other = Record { payload: "another".into(), ..records[1].clone() };
    let error = open_and_read_error(&fixture, Knows(2, other.fingerprint())).await;
    assert!(
        matches!(&error, Error::LogReplaced { topic, partition: 0, offset: 1 } if *topic == fixture.topic),
        "{error}"
    );
}

pub async fn a_failing_position_table_fails_the_consumer(fixture: Fixture) {
    struct Broken;
    #[async_trait]
    impl StartPositions for Broken {
        async fn next_offsets(&self, _: &str, _: &[u32]) -> Result<BTreeMap<u32, i64>> {
            Err(Error::internal("the table cannot be read", "no such file"))
        }
    }
    fixture.create(1).await;
    fixture.log().append(&fixture.topic, vec![payload("a")]).await.unwrap();
    let error = open_and_read_error(&fixture, Broken).await;
    assert_eq!(error.to_string(), "the table cannot be read: no such file");
}

/// The embedded log says it at opening, Kafka when partitions are assigned.
async fn open_and_read_error(fixture: &Fixture, start: impl StartPositions) -> Error {
    match fixture.consumer(start).await {
        Err(error) => error,
        Ok(mut consumer) => read_error(consumer.as_mut()).await,
    }
}

pub async fn an_idle_consumer_wakes_at_once(fixture: Fixture) {
    fixture.create(1).await;
    let mut consumer = fixture.consumer(At::beginning()).await.unwrap();
    fixture.log().append(&fixture.topic, vec![payload("first")]).await.unwrap();
    read(consumer.as_mut(), 1).await;
    let mut took = Vec::new();
    for _ in 0..10 {
        let waiting = tokio::spawn(async move {
            let polled = consumer.poll(limits(DEADLINE)).await.unwrap();
            (consumer, polled, Instant::now())
        });
        tokio::task::yield_now().await;
        fixture.log().append(&fixture.topic, vec![payload("wake up")]).await.unwrap();
        let appended = Instant::now();
        let (back, polled, woken) = waiting.await.unwrap();
        assert_eq!(polled.records.len(), 1);
        took.push(woken.saturating_duration_since(appended));
        consumer = back;
    }
    took.sort_unstable();
    println!("ten records were read so long after their appends were answered: {took:?}");
    // The machine may stand still once, and not each time.
    assert!(took[took.len() / 2] < Duration::from_secs(2), "{took:?}");
}

pub async fn an_idle_poll_ends_at_its_deadline(fixture: Fixture) {
    fixture.create(1).await;
    let mut consumer = fixture.consumer(At::beginning()).await.unwrap();
    let started = Instant::now();
    let polled = consumer.poll(limits(Duration::from_millis(50))).await.unwrap();
    assert!(polled.records.is_empty() && started.elapsed() >= Duration::from_millis(50));
    assert!(started.elapsed() < DEADLINE / 4, "{:?}", started.elapsed());
}

pub async fn limits_of_a_poll_hold_and_nothing_is_skipped(fixture: Fixture) {
    fixture.create(1).await;
    let records = (0..100).map(|i| payload(format!("{i:0100}"))).collect();
    fixture.log().append(&fixture.topic, records).await.unwrap();
    let mut consumer = fixture.consumer(At::beginning()).await.unwrap();
    let mut seen = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while seen.len() < 100 && Instant::now() < deadline {
        // By number, then by bytes: the one that reaches the bound is the last.
        let (max_records, max_bytes, most) = if seen.len() < 50 { (7, usize::MAX, 7) } else { (100, 250, 3) };
        let limits = PollLimits { max_records, max_bytes, max_wait: Duration::from_secs(1) };
        let records = consumer.poll(limits).await.unwrap().records;
        assert!(records.len() <= most, "{} records at once", records.len());
        seen.extend(records.iter().map(|record| record.offset));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

pub async fn a_dropped_poll_loses_nothing(fixture: Fixture) {
    fixture.create(2).await;
    let mut consumer = fixture.consumer(At::beginning()).await.unwrap();
    let mut seen = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    let (mut appended, mut patience) = (0, Duration::from_micros(300));
    while seen.len() < 300 && Instant::now() < deadline {
        if appended < 300 {
            let record = keyed(appended.to_string(), appended.to_string());
            fixture.log().append(&fixture.topic, vec![record]).await.unwrap();
            appended += 1;
        }
        let poll = consumer.poll(limits(Duration::from_secs(1)));
        // Longer each time, so that a slow machine gets on too.
        patience += Duration::from_micros(5);
        if let Ok(polled) = tokio::time::timeout(patience, poll).await {
            seen.extend(polled.unwrap().records.iter().map(|record| text(record).parse::<i32>().unwrap()));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
}

pub async fn a_slow_consumer_gets_everything(fixture: Fixture) {
    // More than the buffers on the way hold (8 bundles of 1 MiB on Kafka), then nobody reads for a while.
    const COUNT: usize = 24_000;
    fixture.create(2).await;
    let filler = "x".repeat(1_000);
    let mut consumer = fixture.consumer(At::beginning()).await.unwrap();
    for chunk in 0..COUNT / 4_000 {
        let records = (0..4_000).map(|i| keyed(i.to_string(), format!("{} {filler}", chunk * 4_000 + i))).collect();
        fixture.log().append(&fixture.topic, records).await.unwrap();
    }
    let first = read(consumer.as_mut(), 1).await;
    // Long enough for reading to be paused; a condition to wait for does not show from outside.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let rest = read(consumer.as_mut(), COUNT - first.len()).await;
    let mut next: BTreeMap<u32, i64> = BTreeMap::new();
    for record in first.iter().chain(&rest) {
        let next = next.entry(record.partition).or_default();
        assert_eq!(record.offset, *next, "partition {}", record.partition);
        *next += 1;
    }
    assert_eq!(next.values().sum::<i64>(), COUNT as i64);
}
