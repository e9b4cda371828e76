//! Tables stay small while events come in, and nothing that is needed goes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use karat_eventlog::NewRecord;
use karat_schemas::pipelines::BUILT_IN;
use karat_transform::maintenance::MaintenanceSettings;

use crate::{judged::Judged, support::airline};

/// Longer than any file waits for its commit here.
const KEPT: Duration = Duration::from_secs(6);

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
    let deadline = Instant::now() + Duration::from_secs(100);
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
