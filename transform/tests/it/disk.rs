//! Disks that are full or broken for a while, at every place where a table is written.

use std::time::Duration;

use karat_lake::faulty;
use karat_schemas::pipelines::BUILT_IN;

use crate::{
    airline::assert_daily_figures,
    judged::Judged,
    support::{DEADLINE, airline},
};

/// Writes that fail, in the order in which an event passes them. A commit is tried four times by itself, so five
/// failures are what the worker notices.
const FAULTS: [&str; 11] = [
    "full@write@bronze/karat_events/ingest_date:1+2",
    "broken@folder@bronze/karat_events/ingest_date:1+1",
    "broken@sync@bronze/karat_events/_delta_log:1+5",
    "broken@folder@bronze/karat_events/_delta_log:1+1",
    "full@write@silver/runs/slot:1+1",
    "full@write@gold/daily_summary/slot:1+2",
    "full@sync@gold/daily_summary/_delta_log:1+5",
    "broken@folder@gold/summary_state/_delta_log:1+1",
    "full@write@_karat/epochs:1+1",
    "broken@folder@_karat/epochs:1+1",
    "full@write@_karat/event_log:1+9",
];

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_fail_anywhere_lose_nothing_and_the_work_goes_on_by_itself() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    let size = events.len().div_ceil(FAULTS.len() + 1);
    let life = judged.live();
    judged.publish(events[..size].to_vec()).await;
    judged.settled(&life, "before").await;
    for (number, fault) in FAULTS.iter().enumerate() {
        let armed = faulty::arm(judged.world.folder(), fault).unwrap();
        let part = events.iter().skip((number + 1) * size).take(size);
        // What came before comes again with it.
        judged.publish(part.chain(events.iter().skip(number).step_by(97).take(5)).cloned().collect()).await;
        let hit = async {
            while armed.passed() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, hit).await.is_ok(), "nothing passed `{fault}`");
        judged.settled(&life, fault).await;
        drop(armed);
    }
    assert_daily_figures(&judged.world).await;
    life.stop().await;
    judged.verified("in the end").await;
}
