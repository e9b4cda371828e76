//! A crash at every named point of an event's life, and of a replay: nothing is lost, nothing is there twice.

use karat_eventlog::NewRecord;
use karat_lake::crash;
use karat_schemas::pipelines::BUILT_IN;

use crate::{
    airline::assert_daily_figures,
    judged::Judged,
    support::{DEADLINE, airline, record},
};

/// Points that a batch of events passes on its way to gold.
const ON_THE_WAY: &[&str] = &[
    "file.before@bronze",
    "file.after@bronze",
    "commit.before@bronze",
    "commit.after@bronze",
    "bronze.committed",
    "bronze.told",
    "bronze.announced",
    "step.computed",
    "file.before@silver/runs",
    "file.after@gold/summary_state",
    "commit.before@gold/daily_summary",
    "commit.after@silver/run_events",
    "commit.after@silver/runs",
    "commit.after@quarantine",
    "commit.after@/gold/:1",
    "commit.after@/gold/:3",
    "step.committed",
    "step.published",
    "step.applied",
];

/// Points that a replay passes.
const IN_A_REPLAY: &[&str] = &[
    "file.after@rebuild",
    "commit.after@rebuild:4",
    "step.computed@rebuild",
    "step.committed@rebuild",
    "step.applied@rebuild",
    "swap.begin",
    "swap.noted",
    "replace.before",
    "replace.after@quarantine",
    "replace.after:3",
    "swap.replaced",
    "swap.published",
    "swap.forgotten",
];

/// The events of one round, and a record that is quarantined.
fn round(events: &[NewRecord], rounds: usize, number: usize) -> Vec<NewRecord> {
    let size = events.len().div_ceil(rounds);
    let bad = record("etl.run.finished", "/crm", &format!("bad-{number}"), "bad", format!("no JSON {number}"), None);
    let mut part: Vec<NewRecord> = events.iter().skip(number * size).take(size).cloned().collect();
    part.push(bad);
    part
}

/// Waits for the armed spot, or says that nothing came by.
pub async fn reached(armed: &crash::Armed, spot: &str) {
    let wait = tokio::time::timeout(DEADLINE, armed.reached());
    assert!(wait.await.is_ok(), "nothing passed `{spot}`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_of_the_way_loses_nothing_and_counts_nothing_twice() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    judged.publish(round(&events, ON_THE_WAY.len() + 1, 0)).await;
    for (number, spot) in ON_THE_WAY.iter().enumerate() {
        let life = judged.live();
        judged.settled(&life, spot).await;
        let armed = judged.arm(spot);
        // What came before comes again with it.
        let again = events.iter().skip(number).step_by(97).take(5).cloned();
        judged.publish(round(&events, ON_THE_WAY.len() + 1, number + 1).into_iter().chain(again).collect()).await;
        reached(&armed, spot).await;
        life.crash().await;
    }
    assert_all_is_well(&mut judged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_of_a_replay_leaves_the_tables_as_before_or_as_after() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    judged.publish(round(&events, IN_A_REPLAY.len() + 1, 0)).await;
    for (number, spot) in IN_A_REPLAY.iter().enumerate() {
        let life = judged.live();
        judged.settled(&life, spot).await;
        let armed = judged.arm(spot);
        life.order_replay(&judged.world.pipeline().name).await;
        judged.publish(round(&events, IN_A_REPLAY.len() + 1, number + 1)).await;
        reached(&armed, spot).await;
        life.crash().await;
    }
    assert_all_is_well(&mut judged).await;
}

/// After the last crash: a process that runs to the end of the log, with the right figures.
async fn assert_all_is_well(judged: &mut Judged) {
    let life = judged.live();
    judged.settled(&life, "the end").await;
    assert_daily_figures(&judged.world).await;
    judged.verified("the end").await;
    life.stop().await;
}
