//! What goes wrong around the worker: altered tables, a lost state folder, crashes at any moment.

use std::{collections::HashSet, fs, sync::Arc, time::Duration};

use karat_lake::arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::{Int32Type, Int64Type},
};
use karat_schemas::pipelines::BUILT_IN;
use karat_transform::verify::TableReport;

use crate::{
    airline::assert_daily_figures,
    support::{DEADLINE, World, airline},
};

/// Puts other rows into a published table, as somebody with access to the lake could: a commit and an epoch that names it.
async fn plant(world: &World, table: &str, change: impl Fn(&RecordBatch) -> RecordBatch) {
    let rows = change(&world.rows(table).await);
    let mut altered = world.settings.lake.open(table).await.unwrap();
    let files: Vec<String> = altered.files().map(|file| file.path().to_owned()).collect();
    let staged = altered.staging().stage("slot-00000", &[], &[rows]).await.unwrap();
    altered.commit(files, staged.into_iter().collect(), &[]).await.unwrap();
    let epochs = world.epochs();
    let mut epoch = epochs.latest().await.unwrap().unwrap();
    epoch.epoch += 1;
    epoch.tables.insert(table.to_owned(), altered.version());
    assert!(epochs.put(&epoch).await.unwrap());
}

fn with_column(rows: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    columns[rows.schema().index_of(name).unwrap()] = column;
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

/// The one table that differs.
async fn only_difference(world: &World) -> TableReport {
    let different: Vec<_> = world.verify().await.into_iter().filter(|report| report.differences > 0).collect();
    assert_eq!(different.len(), 1, "{different:?}");
    different.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_changed_a_missing_and_a_planted_row() {
    let world = World::new(BUILT_IN).await;
    let running = world.start();
    world.publish(airline()[..200].to_vec()).await;
    world.settled(&running).await;
    running.stop().await;
    world.assert_verified().await;
    let (gold, original) = ("gold.daily_summary", world.rows("gold.daily_summary").await);

    plant(&world, gold, |rows| {
        let mut failed: Vec<i64> = rows["failed"].as_primitive::<Int64Type>().values().to_vec();
        failed[0] += 1;
        with_column(rows, "failed", Arc::new(Int64Array::from(failed)))
    })
    .await;
    let report = only_difference(&world).await;
    assert_eq!((report.table.as_str(), report.differences), (gold, 1));
    assert_eq!(report.sample[0].column.as_deref(), Some("failed"), "{report:?}");
    let number = |shown: &Option<String>| shown.as_ref().and_then(|shown| shown.parse::<i64>().ok());
    assert_eq!(
        number(&report.sample[0].expected).map(|right| right + 1),
        number(&report.sample[0].found),
        "{report:?}"
    );
    assert!(report.sample[0].key["bucket_start"].starts_with("20"), "{report:?}");

    plant(&world, gold, |_| original.slice(1, original.num_rows() - 1)).await;
    let report = only_difference(&world).await;
    assert_eq!((report.differences, report.rows), (1, original.num_rows() - 1));
    assert!(report.sample[0].to_string().contains("the row is missing"), "{report:?}");

    plant(&world, gold, |_| {
        let first = original.slice(0, 1);
        let foreign = with_column(&first, "source", Arc::new(StringArray::from(vec!["nowhere"])));
        concat_batches(&original.schema(), [&original, &foreign]).unwrap()
    })
    .await;
    let report = only_difference(&world).await;
    assert_eq!(report.differences, 1);
    assert!(report.sample[0].to_string().contains("should not be there"), "{report:?}");

    plant(&world, gold, |_| original.clone()).await;
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_folder_is_made_again_from_the_tables() {
    let world = World::new(BUILT_IN).await;
    let events = airline();
    for part in events.chunks(600) {
        let running = world.start();
        world.publish(part.to_vec()).await;
        world.settled(&running).await;
        running.stop().await;
        fs::remove_dir_all(&world.settings.state_folder).unwrap();
    }
    let running = world.start();
    // Identities are in the lost folder: repeats must still be known.
    world.publish(events.iter().step_by(10).cloned().collect()).await;
    world.settled(&running).await;
    assert_daily_figures(&world).await;
    assert_eq!(world.rows("silver.run_events").await.num_rows(), events.len());
    assert_eq!(world.rows("silver.runs").await.num_rows(), events.len() / 2);
    world.assert_verified().await;
    running.stop().await;
}

/// Every record of the log is in bronze, once.
async fn assert_bronze_is_whole(world: &World) {
    let info = world.settings.log.topic("karat.events").await.unwrap();
    let ends: Vec<i64> = info.partitions.iter().map(|range| range.end).collect();
    let rows = world.rows("bronze.karat_events").await;
    let partitions = rows["partition"].as_primitive::<Int32Type>().values().to_vec();
    let offsets = rows["offset"].as_primitive::<Int64Type>().values().to_vec();
    let places: HashSet<(i32, i64)> = partitions.into_iter().zip(offsets).collect();
    assert_eq!(rows.num_rows(), places.len(), "a record is in bronze twice");
    assert_eq!(i64::try_from(places.len()).unwrap(), ends.iter().sum::<i64>(), "a record is missing from bronze");
}

/// A worker ends with everything in it, at whatever it was doing. What the system was told to write, it still writes.
async fn run_and_crash(world: &World, after: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let running = world.start_on(runtime.handle());
    tokio::time::sleep(after).await;
    assert!(!running.is_over(), "the worker ended by itself");
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_at_any_moment_lose_nothing_and_count_nothing_twice() {
    let world = World::new(BUILT_IN).await;
    let events = airline();
    // Moments from the first milliseconds of a start to well into the work, in no order.
    for (index, part) in events.chunks(105).enumerate() {
        world.publish(part.to_vec()).await;
        run_and_crash(&world, Duration::from_millis(index as u64 * 617 % 1400)).await;
        world.publish(part[..20].to_vec()).await;
    }
    let running = world.start();
    world.settled(&running).await;
    assert_bronze_is_whole(&world).await;
    assert_daily_figures(&world).await;
    assert_eq!(world.rows("silver.run_events").await.num_rows(), events.len());
    world.assert_verified().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_during_replays_leave_the_figures_right() {
    let world = World::new(BUILT_IN).await;
    let events = airline();
    let running = world.start();
    world.publish(events.clone()).await;
    world.settled(&running).await;
    running.stop().await;
    for after in [30, 400, 900, 1500, 2200] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let running = world.start_on(runtime.handle());
        let replay = runtime.spawn(async move { running.replay("etl_runs").await });
        tokio::time::sleep(Duration::from_millis(after)).await;
        drop(replay);
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
        world.publish(events[..10].to_vec()).await;
    }
    let running = world.start();
    world.settled(&running).await;
    assert_daily_figures(&world).await;
    world.assert_verified().await;
    running.stop().await;
}
