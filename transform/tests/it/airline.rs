//! Real events, recorded from the public dbt client, against day figures that another engine computed from them.

use karat_lake::arrow::{
    array::AsArray,
    datatypes::{Float64Type, Int64Type, TimestampMicrosecondType},
};
use karat_schemas::pipelines::BUILT_IN;
use serde_json::Value;

use crate::support::{World, airline};

/// Compares `gold.daily_summary` with the recorded figures.
pub async fn assert_daily_figures(world: &World) {
    let expected: Vec<Value> =
        serde_json::from_str(include_str!("../../../examples/openlineage-airline.daily.json")).unwrap();
    let rows = world.rows("gold.daily_summary").await;
    let int = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let starts = rows.column_by_name("bucket_start").unwrap().as_primitive::<TimestampMicrosecondType>();
    let sources = rows.column_by_name("source").unwrap().as_string::<i32>();
    let averages = rows.column_by_name("avg_duration_ms").unwrap().as_primitive::<Float64Type>();
    assert_eq!(rows.num_rows(), expected.len());
    for day in &expected {
        let row = (0..rows.num_rows())
            .find(|row| {
                let start = chrono::DateTime::from_timestamp_micros(starts.value(*row)).unwrap();
                start.format("%Y-%m-%d").to_string() == day["bucket"] && sources.value(*row) == day["source"]
            })
            .unwrap_or_else(|| panic!("no row for {day}"));
        for name in ["runs", "completed", "failed", "aborted", "running", "jobs"] {
            assert_eq!(int(name).value(row), day[name].as_i64().unwrap(), "{name} of {day}");
        }
        let difference = (averages.value(row) - day["avg_duration_ms"].as_f64().unwrap()).abs();
        assert!(difference < 0.001, "average {} of {day}", averages.value(row));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_events_give_the_recorded_figures() {
    let world = World::new(BUILT_IN).await;
    let running = world.start();
    world.publish(airline()).await;
    world.settled(&running).await;
    assert_daily_figures(&world).await;
    world.assert_verified().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shuffled_events_with_a_tenth_sent_twice_give_the_same_figures() {
    let world = World::new(BUILT_IN).await;
    let running = world.start();
    let mut events = airline();
    // A fixed stride visits every event once, far from its neighbours: 1,680 and 1,009 share no factor.
    events = (0..events.len()).map(|index| events[index * 1009 % events.len()].clone()).collect();
    let twice: Vec<_> = events.iter().step_by(10).cloned().collect();
    for part in events.chunks(300) {
        world.publish(part.to_vec()).await;
        world.settled(&running).await;
    }
    world.publish(twice).await;
    world.settled(&running).await;
    assert_daily_figures(&world).await;
    world.assert_verified().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_gives_the_same_figures_once_and_twice_and_after_a_restart() {
    let world = World::new(BUILT_IN).await;
    let running = world.start();
    let events = airline();
    world.publish(events[..900].to_vec()).await;
    world.settled(&running).await;
    running.replay("etl_runs").await;
    world.publish(events[900..].to_vec()).await;
    world.settled(&running).await;
    assert_daily_figures(&world).await;
    running.replay("etl_runs").await;
    let generation = world.settled(&running).await.generation;
    assert_eq!(generation, 2);
    running.stop().await;
    let running = world.start();
    world.settled(&running).await;
    assert_daily_figures(&world).await;
    world.assert_verified().await;
    running.stop().await;
}
