//! Appending, topics, restarts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use karat_eventlog::{Error, Headers, MAX_RECORD_BYTES, NewRecord, Position, TopicSpec};

use crate::harness::{Fixture, keyed, payload, text};

pub async fn returned_positions_are_where_the_records_are_read(fixture: Fixture) {
    fixture.create(3).await;
    let mut written = BTreeMap::new();
    for round in 0..5 {
        let records: Vec<_> = (0..20).map(|i| keyed(format!("key-{i}"), format!("{round}/{i}"))).collect();
        let positions = fixture.log().append(&fixture.topic, records.clone()).await.unwrap();
        assert_eq!(positions.len(), records.len());
        for (position, record) in positions.iter().zip(&records) {
            assert_eq!(position.partition, fixture.log().partition_of(record.key.as_ref().unwrap(), 3));
        }
        written.extend(positions.into_iter().zip(records));
    }
    assert_eq!(written.len(), 100, "two records got one position");
    for record in fixture.read(&[], 100).await {
        let position = Position { partition: record.partition, offset: record.offset };
        assert_eq!(written.remove(&position).unwrap().payload, record.payload);
    }
}

pub async fn keys_headers_and_empty_payloads_come_back_as_they_were(fixture: Fixture) {
    fixture.create(1).await;
    let headers = Headers::from_pairs([("ce_id", &b"1"[..]), ("empty", b""), ("ce_id", b"\xff\x00 again")]);
    let records = vec![
        NewRecord { key: Some(Bytes::from_static(b"k\x00\xff")), headers, payload: Bytes::from_static(b"{}") },
        NewRecord { key: Some(Bytes::new()), ..payload("empty key") },
        payload("no key, no headers"),
        NewRecord { key: Some(Bytes::from_static(b"tombstone")), ..NewRecord::default() },
    ];
    let before_us = now_us();
    fixture.log().append(&fixture.topic, records.clone()).await.unwrap();
    let read = fixture.read(&[], records.len()).await;
    for (index, (read, written)) in read.iter().zip(&records).enumerate() {
        assert_eq!((read.offset, read.partition, &*read.topic), (index as i64, 0, fixture.topic.as_str()));
        assert_eq!(read.key, written.key, "key of record {index}");
        assert_eq!(read.headers, written.headers, "headers of record {index}");
        assert_eq!(read.payload, written.payload, "payload of record {index}");
        // Kafka counts milliseconds.
        assert!(read.timestamp_us >= before_us - 1_000 && read.timestamp_us <= now_us(), "timestamp of {index}");
    }
}

pub async fn concurrent_appends_are_all_there_exactly_once(fixture: Fixture) {
    const TASKS: usize = 50;
    const APPENDS: usize = 20;
    fixture.create(4).await;
    let append_all = |task: usize| {
        let (log, topic) = (fixture.log(), fixture.topic.clone());
        tokio::spawn(async move {
            let mut positions = Vec::new();
            for i in 0..APPENDS {
                let record = match task % 2 {
                    0 => payload(format!("{task}/{i}")),
                    _ => keyed(format!("key-{task}"), format!("{task}/{i}")),
                };
                positions.extend(log.append(&topic, vec![record]).await.unwrap());
            }
            positions
        })
    };
    let tasks: Vec<_> = (0..TASKS).map(append_all).collect();
    let mut positions = BTreeSet::new();
    for task in tasks {
        positions.extend(task.await.unwrap());
    }
    assert_eq!(positions.len(), TASKS * APPENDS);
    let read = fixture.read(&[], TASKS * APPENDS).await;
    let texts: BTreeSet<_> = read.iter().map(text).collect();
    assert_eq!((texts.len(), read.len()), (TASKS * APPENDS, TASKS * APPENDS));
}

pub async fn a_big_append_arrives_whole_and_in_order(fixture: Fixture) {
    const COUNT: usize = 10_000;
    fixture.create(1).await;
    let filler = "x".repeat(1_000);
    let records = (0..COUNT).map(|i| keyed("k", format!("{i} {filler}"))).collect();
    let positions = fixture.log().append(&fixture.topic, records).await.unwrap();
    let expected: Vec<_> = (0..COUNT as i64).map(|offset| Position { partition: 0, offset }).collect();
    assert_eq!(positions, expected);
    for (index, record) in fixture.read(&[], COUNT).await.iter().enumerate() {
        assert_eq!(record.offset, index as i64);
        assert!(text(record).starts_with(&format!("{index} ")));
    }
}

pub async fn a_record_above_the_limit_is_refused_by_name(fixture: Fixture) {
    fixture.create(1).await;
    let largest = NewRecord { payload: vec![b'x'; MAX_RECORD_BYTES].into(), ..NewRecord::default() };
    let too_large = NewRecord { key: Some(Bytes::from_static(b"k")), ..largest.clone() };
    let refused = fixture.log().append(&fixture.topic, vec![payload("small"), too_large]).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { limit: MAX_RECORD_BYTES, .. }), "{refused}");
    // Nothing of the refused append is there.
    let positions = fixture.log().append(&fixture.topic, vec![largest]).await.unwrap();
    assert_eq!(positions, [Position { partition: 0, offset: 0 }]);
    assert_eq!(fixture.read(&[], 1).await[0].payload.len(), MAX_RECORD_BYTES);
}

pub async fn an_append_of_nothing_is_no_error(fixture: Fixture) {
    fixture.create(1).await;
    assert!(fixture.log().append(&fixture.topic, Vec::new()).await.unwrap().is_empty());
}

pub async fn an_unknown_topic_is_an_error_and_is_not_created(fixture: Fixture) {
    let log = fixture.log();
    for _ in 0..2 {
        let appended = log.append(&fixture.topic, vec![payload("x")]).await;
        assert!(matches!(&appended, Err(Error::UnknownTopic { topic }) if *topic == fixture.topic), "{appended:?}");
    }
    assert!(matches!(log.topic(&fixture.topic).await, Err(Error::UnknownTopic { .. })));
    assert!(matches!(log.delete_topic(&fixture.topic).await, Err(Error::UnknownTopic { .. })));
    let opened = fixture.consumer(crate::harness::At::beginning()).await;
    assert!(matches!(opened, Err(Error::UnknownTopic { .. })));
}

pub async fn a_topic_name_that_is_not_allowed_is_refused(fixture: Fixture) {
    let spec = TopicSpec { name: "not allowed/".into(), partitions: 1, retention: None };
    assert!(matches!(fixture.log().ensure_topic(&spec).await, Err(Error::InvalidTopic { .. })));
}

pub async fn ensuring_a_topic_twice_leaves_it_as_it_was(fixture: Fixture) {
    fixture.create(2).await;
    let first = fixture.log().topic(&fixture.topic).await.unwrap();
    fixture.create(5).await;
    assert_eq!(fixture.log().topic(&fixture.topic).await.unwrap(), first);
    assert_eq!(first.partitions.len(), 2);
}

pub async fn a_topic_made_anew_has_another_identity(fixture: Fixture) {
    let log = fixture.log();
    fixture.create(1).await;
    log.append(&fixture.topic, vec![payload("old"), payload("old")]).await.unwrap();
    let old = log.topic(&fixture.topic).await.unwrap();
    assert_eq!((old.partitions[0].begin, old.partitions[0].end), (0, 2));
    log.delete_topic(&fixture.topic).await.unwrap();
    assert!(matches!(log.topic(&fixture.topic).await, Err(Error::UnknownTopic { .. })));
    fixture.create(1).await;
    let new = log.topic(&fixture.topic).await.unwrap();
    assert_ne!(new.id, old.id);
    assert_eq!((new.partitions[0].begin, new.partitions[0].end), (0, 0));
    log.append(&fixture.topic, vec![payload("new")]).await.unwrap();
    assert_eq!(text(&fixture.read(&[], 1).await[0]), "new");
}

pub async fn a_restart_keeps_everything(mut fixture: Fixture) {
    fixture.create(2).await;
    let records = (0..500).map(|i| keyed(format!("{}", i % 7), i.to_string())).collect();
    fixture.log().append(&fixture.topic, records).await.unwrap();
    let (before, read_before) = (fixture.log().topic(&fixture.topic).await.unwrap(), fixture.read(&[], 500).await);
    fixture.restart().await;
    assert_eq!(fixture.log().topic(&fixture.topic).await.unwrap(), before);
    let sorted = |mut records: Vec<karat_eventlog::Record>| {
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    };
    assert_eq!(sorted(fixture.read(&[], 500).await), sorted(read_before));
    // The same key still goes to the same partition, behind what is there.
    let [position] = fixture.log().append(&fixture.topic, vec![keyed("3", "more")]).await.unwrap()[..] else {
        panic!("one record, one position");
    };
    assert_eq!(position.offset, before.partitions[position.partition as usize].end);
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}
