//! The pipeline of profits that ships: exact decimals, corrections, and whose record counts.

use std::sync::Arc;

use karat_eventlog::NewRecord;
use karat_schemas::pipelines::BUILT_IN;

use crate::support::{DEADLINE, World, record};

/// The largest amount that a profit holds, without its sign.
const LARGEST: &str = "999999999999999999999999999999999999.99";

/// The pipelines that ship without those of other topics.
async fn world() -> World {
    let mut world = World::new(BUILT_IN).await;
    let mut pipelines = world.settings.pipelines.as_ref().clone();
    pipelines.pipelines.retain(|pipeline| pipeline.name == "finance");
    world.settings.pipelines = Arc::new(pipelines);
    world
}

/// A profit as JSON has it: a number, or text in quotes.
fn profit(id: &str, company: &str, month: i64, profit: &str, day: u32) -> NewRecord {
    let data = format!(r#"{{"company":"{company}","year":2026,"month":{month},"profit":{profit}}}"#);
    let time = format!("2026-11-{day:02}T08:00:00Z");
    record("finance.profit.recorded", "/books", id, company, data, Some(&time))
}

fn profits() -> Vec<NewRecord> {
    vec![
        profit("a1", "alder", 1, "0.1", 2),
        profit("a2", "alder", 2, "0.2", 2),
        // Corrected twice; the one with the latest time counts, and the first comes once more.
        profit("a3", "alder", 3, "\"100.00\"", 2),
        profit("a3-corrected", "alder", 3, "-7.5", 4),
        profit("a3-between", "alder", 3, "55", 3),
        profit("a3", "alder", 3, "\"100.00\"", 2),
        profit("l1", "largest", 1, LARGEST, 2),
        profit("l2", "largest", 2, &format!("\"-{LARGEST}\""), 2),
        // Not amounts, and not a month.
        profit("half-a-cent", "alder", 4, "0.005", 2),
        profit("too-long", "largest", 3, &format!("1{LARGEST}"), 2),
        profit("no-amount", "alder", 5, "\"much\"", 2),
        profit("month-13", "alder", 13, "1", 2),
    ]
}

/// Publishes in parts, each settled before the next.
async fn arrive(events: Vec<NewRecord>, part: usize) {
    let world = world().await;
    let running = world.start();
    for part in events.chunks(part) {
        world.publish(part.to_vec()).await;
        world.settled(&running).await;
    }
    let expected = [
        "alder|2026|1|0.10|2026-11-02T08:00:00Z|tester|/books".to_owned(),
        "alder|2026|2|0.20|2026-11-02T08:00:00Z|tester|/books".to_owned(),
        "alder|2026|3|-7.50|2026-11-04T08:00:00Z|tester|/books".to_owned(),
        format!("largest|2026|1|{LARGEST}|2026-11-02T08:00:00Z|tester|/books"),
        format!("largest|2026|2|-{LARGEST}|2026-11-02T08:00:00Z|tester|/books"),
    ];
    let columns = ["company", "year", "month", "profit", "recorded_at", "user_id", "source"];
    assert_eq!(world.text("gold.profits", &columns).await, expected);
    assert_eq!(world.text("silver.company_profits", &columns).await, expected);
    assert_eq!(
        world.text("quarantine.finance", &["ce_id", "stage", "rules"]).await,
        [
            "half-a-cent|decode|inexact_value",
            "month-13|expectation|month_is_of_the_year",
            "no-amount|decode|inexact_value",
            "too-long|decode|inexact_value",
        ]
    );
    world.assert_verified().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profits_are_exact_when_they_arrive_together() {
    arrive(profits(), 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profits_are_the_same_when_each_arrives_alone_and_backwards() {
    arrive(profits().into_iter().rev().collect(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_pipelines_that_ship_go_on_beside_each_other() {
    let world = World::new(BUILT_IN).await;
    let running = world.start();
    world.settings.log.append("karat.finance", profits()).await.unwrap();
    world.publish(crate::support::airline()[..100].to_vec()).await;
    world.settled(&running).await;
    let epochs = karat_lake::epochs::Epochs::of(&world.settings.lake, "finance").unwrap();
    let wanted = i64::try_from(profits().len()).unwrap();
    let arrived = async {
        while epochs.latest().await.unwrap().is_none_or(|epoch| epoch.positions.get(&0) != Some(&wanted)) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, arrived).await.expect("no epoch has all profits");
    let epoch = world.epochs().latest().await.unwrap().unwrap();
    assert!(epoch.tables.contains_key("gold.daily_summary") && !epoch.tables.contains_key("gold.profits"), "{epoch:?}");
    assert_eq!(world.rows("gold.profits").await.num_rows(), 5);
    running.stop().await;
}
