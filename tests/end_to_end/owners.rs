//! Processes share a topic and its pipeline on a real broker: they come, go, die and freeze, and nothing is lost or doubled.

use std::time::{Duration, Instant};

use karat_oracle::s3::S3Server;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IteratorRandom};
use serde_json::{Value, json};

use crate::{
    client::Client,
    fleet::{Fleet, SESSION, broker},
    judged::Judged,
    on_s3::on_s3,
    process::PASSWORD,
    report::seed,
    wait::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owner_is_replaced_and_refused_when_it_comes_back() {
    let Some(broker) = broker() else { return };
    freeze_the_owner(Fleet::new(&broker, &broker).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owner_is_refused_in_a_bucket_too() {
    let (Some(broker), Some(server)) = (broker(), S3Server::reached()) else { return };
    let judged = Judged::with(on_s3(&server, &server.endpoint())).await;
    freeze_the_owner(Fleet::with(judged, &broker, &broker).await).await;
}

async fn freeze_the_owner(mut fleet: Fleet) {
    fleet.start(0);
    fleet.start(1);
    let load = fleet.load();
    let stale = fleet.owner().await;
    fleet.transforms[&stale].signal("STOP");
    let next = fleet.owner_but(Some(stale)).await;
    let told = load.end().await;
    fleet.judged.note_all(told);
    fleet.drain("one process is frozen").await;
    let load = fleet.load();
    fleet.transforms[&stale].signal("CONT");
    until("the old owner knows that it is none", async || (fleet.owner().await == next).then_some(())).await;
    let told = load.end().await;
    fleet.judged.note_all(told);
    fleet.drain("the old owner is back").await;
    // It takes over again where the other one is, when that one stops.
    fleet.stop(next).await;
    fleet.drain("the other one stopped").await;
    fleet.end().await;
}

/// The last moment before the commit of a step, and before one of bronze; and what who comes too late says.
#[cfg(debug_assertions)]
const BEFORE_COMMITS: [(&str, &str); 2] = [
    ("commit.before@/silver/:2", "was committed to by another writer"),
    ("commit.before@/bronze/:3", "another process was faster with some partitions"),
];

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_after_another_process_took_over_is_refused_by_the_table() {
    let Some(broker) = broker() else { return };
    for (spot, words) in BEFORE_COMMITS {
        // Who wakes up may hear first that its partitions are another's, and then has nothing left to commit.
        let mut is_refused = false;
        for _ in 0..3 {
            is_refused = is_refused || commit_too_late(&broker, spot, words).await;
        }
        assert!(is_refused, "nobody said: {words}");
    }
}

/// Whether a process that was frozen before its commit, and woken up when another one had taken over, says these words.
#[cfg(debug_assertions)]
async fn commit_too_late(broker: &str, spot: &str, words: &str) -> bool {
    let mut fleet = Fleet::new(broker, broker).await;
    fleet.start_with(0, &[("KARAT_FREEZE_AT", spot)]);
    let load = fleet.load();
    fleet.transforms[&0].is_frozen().await;
    fleet.start(1);
    fleet.owner_but(Some(0)).await;
    let told = load.end().await;
    fleet.judged.note_all(told);
    fleet.drain("one process is frozen").await;
    fleet.transforms[&0].signal("CONT");
    until("it has heard of the other one", async || {
        let err = fleet.transforms[&0].err();
        (err.contains(words) || err.contains("owned=false")).then_some(())
    })
    .await;
    fleet.drain("the old owner is back").await;
    let is_said = fleet.transforms[&0].err().contains(words);
    fleet.end().await;
    is_said
}

/// Orders a replay; its id.
async fn order(ada: &Client) -> String {
    let answer = ada.post("/api/v1/admin/replays").json(&json!({"pipeline": "etl_runs"})).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{status} {text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["data"]["id"].as_str().unwrap().to_owned()
}

async fn done(ada: &Client, id: &str) {
    until("the replay is done", async || {
        let replay = ada.data(&format!("/api/v1/admin/replays/{id}")).await;
        assert_ne!(replay["state"], "failed", "{replay}");
        (replay["state"] == "done").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_executed_by_the_owner_of_the_pipeline_whoever_takes_it() {
    let Some(broker) = broker() else { return };
    let mut fleet = Fleet::new(&broker, &broker).await;
    fleet.start(0);
    fleet.start(1);
    let load = fleet.load();
    let owner = fleet.owner().await;
    let other = 1 - owner;
    // The process that takes the order owns nothing, and neither does one of the two that could execute it.
    let mut api = fleet.start_api();
    let ada = Client::log_in(&api.url().await, "ada", PASSWORD).await;
    let told = load.end().await;
    fleet.judged.note_all(told);
    fleet.drain("before the order").await;
    let replays = |fleet: &Fleet, number: usize| fleet.transforms[&number].err().matches("replay done").count();
    let id = order(&ada).await;
    done(&ada, &id).await;
    assert_eq!((replays(&fleet, owner), replays(&fleet, other)), (1, 0));
    fleet.drain("after the replay").await;
    // One that is given while the owner is dead waits for the next one.
    fleet.kill(owner);
    let id = order(&ada).await;
    done(&ada, &id).await;
    assert_eq!(replays(&fleet, other), 1);
    api.stop().await;
    fleet.end().await;
}

/// Where a process aborts, in the order of an event's life, and in maintenance; passings are counted from its start.
#[cfg(debug_assertions)]
const POINTS: [&str; 10] = [
    "file.after@bronze:2",
    "commit.after@bronze:2",
    "bronze.committed:2",
    "bronze.told:2",
    "step.computed:2",
    "commit.after@/gold/:9",
    "step.committed:2",
    "step.published:2",
    "step.applied:2",
    "clean.files@gold",
];

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_point_and_a_door_that_is_killed_lose_and_double_nothing() {
    let Some(broker) = broker() else { return };
    let mut fleet = Fleet::new(&broker, &broker).await;
    for spot in POINTS {
        // Maintenance runs every two seconds.
        fleet.start_with(0, &[("KARAT_CRASH_AT", spot), ("KARAT__LAKE__KEEP_VERSIONS", "12")]);
        let load = fleet.load();
        let dying = fleet.transforms.remove(&0).unwrap();
        dying.ended().await;
        fleet.start(0);
        let told = load.end().await;
        fleet.judged.note_all(told);
        fleet.drain(spot).await;
        fleet.stop(0).await;
    }
    fleet.start(0);
    let load = fleet.load();
    load.is_under_way().await;
    fleet.replace_door().await;
    let told = load.end().await;
    fleet.judged.note_all(told);
    fleet.drain("the door was killed").await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_come_and_go_and_nothing_is_lost_or_doubled() {
    let Some(broker) = broker() else { return };
    let mut fleet = Fleet::new(&broker, &broker).await;
    let mut random = StdRng::seed_from_u64(seed(1));
    fleet.start(0);
    let load = fleet.load();
    storm(&mut fleet, &mut random, Duration::from_secs(20), Duration::from_secs(2)).await;
    let told = load.end().await;
    fleet.judged.note_all(told);
    fleet.drain("after the storm").await;
    fleet.end().await;
}

/// Every `pause` a process starts, stops, dies or freezes past its session; each time the group is shared out anew. How often
/// that was.
pub async fn storm(fleet: &mut Fleet, random: &mut StdRng, time: Duration, pause: Duration) -> u32 {
    let until = Instant::now() + time;
    let (mut changes, mut frozen) = (0, None::<(usize, Instant)>);
    let mut ticks = tokio::time::interval(pause);
    ticks.tick().await;
    while Instant::now() < until {
        ticks.tick().await;
        if let Some((number, since)) = frozen
            && since.elapsed() > SESSION + Duration::from_secs(3)
        {
            fleet.transforms[&number].signal("CONT");
            frozen = None;
        }
        fleet.transforms.iter_mut().for_each(|(_, karat)| karat.assert_alive());
        let idle = (0..4).find(|number| !fleet.transforms.contains_key(number));
        let awake = fleet.transforms.keys().copied().filter(|number| frozen.is_none_or(|(other, _)| other != *number));
        let awake: Vec<usize> = awake.collect();
        // One is always at work; where none can be started, one goes.
        let victim = awake.iter().copied().choose(random).filter(|_| awake.len() > 1);
        match (random.random_range(0..4), victim, idle) {
            (2, Some(victim), _) if frozen.is_none() => {
                fleet.transforms[&victim].signal("STOP");
                frozen = Some((victim, Instant::now()));
            }
            (1, Some(victim), _) => fleet.stop(victim).await,
            (0, Some(victim), _) | (_, Some(victim), None) => fleet.kill(victim),
            (_, _, Some(number)) => fleet.start(number),
            (_, None, None) => continue,
        }
        changes += 1;
    }
    if let Some((number, _)) = frozen {
        fleet.transforms[&number].signal("CONT");
    }
    changes
}
