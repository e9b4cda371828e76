//! Tables stay small while events come in, and nothing that is needed goes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use karat_eventlog::NewRecord;
use karat_schemas::pipelines::BUILT_IN;
use karat_transform::{bronze::table_spec, checkpoint::CheckpointSettings, maintenance::MaintenanceSettings};

use crate::{judged::Judged, support::airline};

/// Longer than any file waits for its commit here.
const KEPT: Duration = Duration::from_secs(10);

/// More than a hundred steps, and the time after which files go.
const LONGEST: Duration = Duration::from_secs(900);

fn parquet_files(folder: &Path) -> usize {
    let files = fs::read_dir(folder).into_iter().flatten();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "parquet")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_are_merged_and_old_ones_go_beside_live_appends() {
    let mut judged = Judged::new(BUILT_IN).await;
    judged.world.settings.maintenance = MaintenanceSettings { every: Duration::from_millis(200), kept: KEPT };
    let lake = judged.world.folder().join("lake");
    let events = airline();
    let life = judged.live();
    let deadline = Instant::now() + LONGEST;
    let mut number = 0;
    loop {
        let part: Vec<NewRecord> = events.iter().skip(number * 8 % events.len()).take(8).cloned().collect();
        number += 1;
        judged.publish(part).await;
        // One step each, and none waits for another.
        let epoch = judged.world.settled(life.running()).await;
        let versions = |table: &str| usize::try_from(epoch.tables.get(table).copied().unwrap_or(0)).unwrap();
        let gold = parquet_files(&lake.join("gold/daily_summary"));
        let silver = parquet_files(&lake.join("silver/run_events"));
        if versions("silver.run_events") > 80
            && silver < versions("silver.run_events") / 2
            && gold < versions("gold.daily_summary")
        {
            break;
        }
        assert!(Instant::now() < deadline, "after {number} parts: {silver} silver files, {gold} gold files, {epoch:?}");
    }
    judged.settled(&life, "beside live appends").await;
    life.stop().await;
    judged.verified("in the end").await;
}

/// Points that tables pass on their way to staying small.
const IN_MAINTENANCE: &[&str] = &[
    "clean.before@gold",
    "clean.files@gold",
    "checkpoint.before",
    "exchange.before@silver/run_events",
    "exchange.after@silver/run_events",
    "checkpoint.after",
    "merge.before@bronze",
    "merge.after@bronze",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_anywhere_in_maintenance_loses_nothing_and_counts_nothing_twice() {
    let mut judged = Judged::new(BUILT_IN).await;
    judged.world.settings.maintenance = MaintenanceSettings { every: Duration::from_millis(200), kept: KEPT };
    let mut events = airline().into_iter().cycle();
    judged.publish(events.by_ref().take(2).collect()).await;
    for spot in IN_MAINTENANCE {
        let life = judged.live();
        judged.settled(&life, spot).await;
        let armed = judged.arm(spot);
        let deadline = Instant::now() + LONGEST;
        loop {
            assert!(Instant::now() < deadline, "nothing passed `{spot}`");
            judged.publish(events.by_ref().take(2).collect()).await;
            // One step each, so that there are many small files.
            tokio::select! {
                () = armed.reached() => break,
                _ = judged.world.settled(life.running()) => {}
            }
        }
        life.crash().await;
    }
    let life = judged.live();
    judged.settled(&life, "in the end").await;
    life.stop().await;
    judged.verified("in the end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bronze_is_merged_behind_its_pipelines_and_a_replay_reads_it_all_the_same() {
    let mut judged = Judged::new(BUILT_IN).await;
    judged.world.settings.maintenance = MaintenanceSettings { every: Duration::from_millis(200), kept: KEPT };
    judged.world.settings.checkpoints =
        Some(CheckpointSettings { every: Duration::from_millis(300), ..CheckpointSettings::default() });
    let folder = judged.world.folder().join("lake/bronze/karat_events");
    let life = judged.live();
    let mut bronze = judged.world.settings.lake.open_or_create(&table_spec("karat.events")).await.unwrap();
    // More commits than are merged at once.
    for event in airline().into_iter().take(150) {
        let before = bronze.version();
        judged.publish(vec![event]).await;
        while bronze.version() == before {
            assert!(!life.running().is_over());
            tokio::time::sleep(Duration::from_millis(2)).await;
            bronze.refresh().await.unwrap();
        }
    }
    judged.settled(&life, "before the merge").await;
    // Checkpoints of the log are parquet too.
    let days =
        || fs::read_dir(&folder).unwrap().map(|day| day.unwrap().path()).filter(|day| !day.ends_with("_delta_log"));
    let files = || days().map(|day| parquet_files(&day)).sum::<usize>();
    let deadline = Instant::now() + LONGEST;
    while bronze.merged_to() == 0 || files() > bronze.files().len() {
        assert!(Instant::now() < deadline, "merged to {}, {} files", bronze.merged_to(), files());
        tokio::time::sleep(Duration::from_millis(50)).await;
        bronze.refresh().await.unwrap();
    }
    assert!(bronze.merged_to() >= 128 && files() < 30, "{} of {} files", bronze.merged_to(), files());
    life.running().replay("etl_runs").await;
    judged.publish(airline()[150..160].to_vec()).await;
    judged.settled(&life, "after a replay").await;
    life.stop().await;
    judged.verified("in the end").await;
}
