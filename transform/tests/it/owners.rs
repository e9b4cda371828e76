//! Several workers on one lake: each partition and each pipeline has one owner, and one that is out of date is refused.

use std::path::PathBuf;

use karat_schemas::pipelines::BUILT_IN;
use karat_transform::{
    Error,
    bronze::BronzeWriter,
    runner::Runner,
    worker::{WorkerSettings, runner_settings},
};
use tokio::sync::watch;

use crate::{
    judged::Judged,
    support::{DEADLINE, Running, World, airline, start},
};

/// Another machine: a state folder of its own.
fn elsewhere(world: &World, name: &str) -> WorkerSettings {
    WorkerSettings { state_folder: world.folder().join(name), ..world.settings.clone() }
}

/// Takes everything that is in the log into bronze, and no further.
async fn fill_bronze(world: &World) {
    let settings = &world.settings;
    let topic = &world.pipeline().topic;
    let (stop, stopped) = watch::channel(false);
    let writer =
        BronzeWriter::open(topic, settings.bronze, settings.log.clone(), &settings.lake, Vec::new()).await.unwrap();
    let writing = tokio::spawn(async move { writer.run("bronze", stopped).await });
    let ends = settings.log.topic(topic).await.unwrap().partitions;
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let mut table = settings.lake.open(&karat_transform::bronze::table_name(topic)).await.unwrap();
        let mut is_behind = false;
        for (partition, range) in ends.iter().enumerate() {
            let name = karat_transform::bronze::position_name(topic, u32::try_from(partition).unwrap());
            is_behind |= table.position(&name).await.unwrap().unwrap_or(0) < range.end;
        }
        if !is_behind {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "bronze does not get everything");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stop.send(true).unwrap();
    writing.await.unwrap().unwrap();
}

/// The embedded log gives everything to each of them, as a group would that cannot decide: the worst that can happen, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_both_own_everything_lose_and_double_nothing() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    let others: Vec<Running> = ["one", "two"].map(|name| start(elsewhere(&judged.world, name))).into_iter().collect();
    for part in events[..600].chunks(50) {
        judged.publish(part.to_vec()).await;
        tokio::task::yield_now().await;
    }
    judged.world.settled(&others[0]).await;
    for other in others {
        other.stop().await;
    }
    // One of them alone makes good what the last quarrel left half done.
    let life = judged.live();
    judged.publish(events[600..650].to_vec()).await;
    judged.settled(&life, "after two owners").await;
    life.stop().await;
    judged.verified("after two owners").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_an_owner_that_is_out_of_date_is_refused() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    let life = judged.live();
    judged.publish(events[..200].to_vec()).await;
    judged.settled(&life, "first").await;
    life.stop().await;
    judged.publish(events[200..400].to_vec()).await;
    fill_bronze(&judged.world).await;

    let world = &judged.world;
    let open = async |folder: PathBuf| {
        let settings = runner_settings(world.pipeline(), &world.settings.pipelines, &world.settings.lake, &folder);
        Runner::open(world.pipeline(), settings.await.unwrap()).await.unwrap()
    };
    // The first is frozen here, with its tables open; a copy of its state, as the checkpoint is, goes to the next owner.
    let copy = world.folder().join("next-owner");
    copy_folder(&world.settings.state_folder, &copy);
    let mut stale = open(world.settings.state_folder.clone()).await;
    let mut owner = open(copy).await;
    assert!(owner.catch_up().await.unwrap());
    let error = stale.catch_up().await.unwrap_err();
    assert!(error.is_other_owner(), "{error}");
    assert!(matches!(error, Error::Lake(karat_lake::Error::Fenced { .. }) | Error::EpochTaken { .. }));
    // It can begin again, from what the tables say.
    drop((stale, owner));
    let life = judged.live();
    judged.publish(events[400..450].to_vec()).await;
    judged.settled(&life, "again").await;
    life.stop().await;
    judged.verified("again").await;
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_owner_never_goes_on_from_its_old_state() {
    for with_checkpoints in [true, false] {
        let mut judged = Judged::new(BUILT_IN).await;
        if !with_checkpoints {
            judged.world.settings.checkpoints = None;
        }
        let events = airline();
        let homes = ["one", "two"].map(|name| judged.world.folder().join(name));
        // Each in turn, with repeats of what the other one had.
        for (turn, part) in events[..1000].chunks(200).enumerate() {
            judged.world.settings.state_folder.clone_from(&homes[turn % 2]);
            let life = judged.live();
            let repeats = (turn * 200).saturating_sub(30)..turn * 200;
            judged.publish(events[repeats].to_vec()).await;
            judged.publish(part.to_vec()).await;
            judged.settled(&life, &format!("turn {turn}")).await;
            life.stop().await;
        }
        judged.verified("the end").await;
        let epoch = judged.world.epochs().latest().await.unwrap().unwrap();
        // Without a checkpoint each finds tables that its state does not go with.
        assert_eq!(epoch.generation, if with_checkpoints { 0 } else { 4 }, "how often it was rebuilt");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_another_machine_left_half_done_is_noticed() {
    let mut judged = Judged::new(BUILT_IN).await;
    let events = airline();
    let homes = ["one", "two"].map(|name| judged.world.folder().join(name));
    judged.world.settings.state_folder.clone_from(&homes[0]);
    let life = judged.live();
    judged.publish(events[..300].to_vec()).await;
    judged.settled(&life, "first").await;
    let armed = judged.arm("replace.after@/gold/:1");
    life.order_replay("etl_runs").await;
    tokio::time::timeout(DEADLINE, armed.reached()).await.unwrap();
    life.crash().await;
    drop(armed);
    judged.world.settings.state_folder.clone_from(&homes[1]);
    let life = judged.live();
    judged.publish(events[300..400].to_vec()).await;
    judged.settled(&life, "on another machine").await;
    life.stop().await;
    judged.verified("on another machine").await;
    // The first comes back with its half of the replay, and leaves it.
    judged.world.settings.state_folder.clone_from(&homes[0]);
    let life = judged.live();
    judged.publish(events[400..500].to_vec()).await;
    judged.settled(&life, "back again").await;
    life.stop().await;
    judged.verified("back again").await;
}
