//! A lost state folder: restored from the checkpoint in the lake, or rebuilt from bronze, with the same figures.

use std::{fs, time::Duration};

use karat_eventlog::NewRecord;
use karat_schemas::{epoch::Epoch, pipelines::BUILT_IN};
use karat_transform::{checkpoint::CheckpointSettings, worker::WorkerSettings};

use crate::{
    judged::Judged,
    support::{World, airline},
};

fn lose_state(settings: &WorkerSettings) {
    fs::remove_dir_all(&settings.state_folder).unwrap();
}

fn lose_checkpoint(world: &World) {
    fs::remove_dir_all(world.folder().join("lake/_karat/state_etl_runs")).unwrap();
}

/// Publishes, waits for gold and stops as one should.
async fn life(judged: &mut Judged, events: &[NewRecord], context: &str) -> Epoch {
    let life = judged.live();
    judged.publish(events.to_vec()).await;
    judged.settled(&life, context).await;
    life.stop().await;
    judged.world.epochs().latest().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_restored_from_the_checkpoint_and_without_one_rebuilt() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    life(&mut judged, &events[..400], "first").await;
    lose_state(&judged.world.settings);
    // Repeats must still be known, and runs that were open go on.
    let epoch = life(&mut judged, &events[380..800], "restored").await;
    assert_eq!(epoch.generation, 0, "it was rebuilt");
    judged.verified("restored").await;
    lose_state(&judged.world.settings);
    lose_checkpoint(&judged.world);
    let epoch = life(&mut judged, &events[780..1200], "rebuilt").await;
    assert_eq!(epoch.generation, 1, "it was not rebuilt");
    // The checkpoint of another generation was replaced by one of this.
    lose_state(&judged.world.settings);
    let epoch = life(&mut judged, &events[1180..], "restored again").await;
    assert_eq!(epoch.generation, 1, "it was rebuilt");
    judged.verified("the end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_declaration_is_not_read() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    life(&mut judged, &events[..300], "first").await;
    lose_state(&judged.world.settings);
    judged.world.redeclare(&BUILT_IN.replace("count(DISTINCT job) AS jobs", "count(DISTINCT job) + 0 AS jobs"));
    let epoch = life(&mut judged, &events[300..400], "declared anew").await;
    assert_eq!(epoch.generation, 1);
    judged.verified("declared anew").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_as_good_as_none() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    life(&mut judged, &events[..200], "first").await;
    lose_state(&judged.world.settings);
    let folder = judged.world.folder().join("lake/_karat/state_etl_runs");
    let file = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files = file.filter(|path| path.extension().is_some_and(|end| end == "parquet"));
    fs::write(files.next().unwrap(), "no parquet").unwrap();
    let epoch = life(&mut judged, &events[200..300], "damaged").await;
    assert_eq!(epoch.generation, 1);
    judged.verified("damaged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_tables_are_made_again_whatever_the_state_says() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    life(&mut judged, &events[..300], "first").await;
    for (number, folders) in [vec!["gold"], vec!["gold", "silver", "quarantine", "_karat"]].into_iter().enumerate() {
        for folder in &folders {
            fs::remove_dir_all(judged.world.folder().join("lake").join(folder)).unwrap();
        }
        let more = &events[300 + number * 100..400 + number * 100];
        life(&mut judged, more, "removed").await;
        judged.verified(&format!("without {folders:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_around_the_checkpoint_with_a_lost_disk_leaves_the_figures_right() {
    let mut judged = Judged::new(BUILT_IN).await;
    judged.world.settings.checkpoints =
        Some(CheckpointSettings { every: Duration::from_millis(20), ..CheckpointSettings::default() });
    let events = airline();
    let points = [
        // While the whole state is written for the first time, and again after each crash.
        "checkpoint.part",
        "checkpoint.whole",
        "commit.after@state_",
        "checkpoint.append",
        "commit.after@state_:3",
        // Steps beyond the checkpoint.
        "step.applied:2",
        "commit.after@/gold/:4",
        "step.published",
    ];
    for (number, spot) in points.iter().enumerate() {
        let is_around = !spot.contains("step") && !spot.contains("gold");
        let armed = is_around.then(|| judged.arm(spot));
        let life = judged.live();
        judged.publish(events.iter().skip(number * 180).take(90).cloned().collect()).await;
        let armed = match armed {
            Some(armed) => armed,
            None => {
                judged.settled(&life, spot).await;
                judged.arm(spot)
            }
        };
        let rest: Vec<NewRecord> = events[number * 180 + 90..number * 180 + 180].to_vec();
        judged.publish_until(&armed, spot, &rest).await;
        life.crash().await;
        drop(armed);
        lose_state(&judged.world.settings);
        if !is_around {
            // A disk is lost, and then the process dies while the state is restored.
            self::life(&mut judged, &[], spot).await;
            lose_state(&judged.world.settings);
            let armed = judged.arm("restore.file");
            let life = judged.live();
            crate::crash_points::reached(&armed, "restore.file").await;
            life.crash().await;
        }
    }
    life(&mut judged, &[], "the end").await;
    judged.verified("the end").await;
}
