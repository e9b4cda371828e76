//! `karat table fsck`: every kind of damage is named, and what was damaged comes back with the same figures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use karat_oracle::Outcome;
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    judged::Judged,
    process::{PASSWORD, Said},
    wait::until,
};

/// Requests, each of which is a commit of bronze.
const REQUESTS: u64 = 6;

/// Events of one request.
const EVENTS: u64 = 5;

/// An instance that has taken some events, and stopped.
async fn filled() -> Judged {
    let mut judged = Judged::new().await;
    let mut karat = judged.folder.start("filling", &["up", "--listen", "127.0.0.1:0"]);
    let client = Client::new(&karat.url().await, &judged.key);
    for _ in 0..REQUESTS {
        publish(&mut judged, &client).await;
    }
    karat.stop().await;
    judged
}

async fn publish(judged: &mut Judged, client: &Client) {
    let numbers = judged.next..judged.next + EVENTS;
    let events: Vec<Value> = numbers.clone().map(run_event).collect();
    client.arrive(&events, "gold").await;
    judged.note_all(numbers.map(|number| (number, Outcome::Acknowledged)).collect());
}

async fn fsck(judged: &Judged, words: &[&str]) -> Said {
    judged.folder.run(&[&["table", "fsck", "--format", "json"], words].concat()).await
}

/// The damage that a check names: table and file.
fn named(said: &Said) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let damaged = report["damaged"].as_array().unwrap().iter();
    damaged.map(|finding| (text(finding, "table"), text(finding, "file"))).collect()
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("_delta_log") {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// One damage: the table, the file, and what is done to it.
#[derive(Debug, Clone, Copy)]
struct Planted {
    table: &'static str,
    file: File,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum File {
    FirstCommit,
    MiddleCommit,
    NewestCommit,
    /// One of the newest version.
    Data,
    /// A log checkpoint of the newest version, and the hint that names it.
    Checkpoint,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Tear,
    Empty,
    Delete,
    Flip,
}

impl Planted {
    /// Damages the file; returns the path below the table of the file that a check names: of a checkpoint that is gone, the hint.
    fn plant(self, lake: &Path) -> String {
        let folder = lake.join(self.table.replacen('.', "/", 1));
        let commits = files(&folder.join("_delta_log"), ".json");
        let path = match self.file {
            File::FirstCommit => commits[0].clone(),
            File::MiddleCommit => commits[commits.len() / 2].clone(),
            File::NewestCommit => commits[commits.len() - 1].clone(),
            File::Data => named_by(&commits[commits.len() - 1], &folder),
            File::Checkpoint => {
                let newest = commits[commits.len() - 1].file_stem().unwrap().to_str().unwrap().to_owned();
                let hint = format!("{{\"version\":{},\"size\":3}}", newest.trim_start_matches('0'));
                fs::write(folder.join("_delta_log/_last_checkpoint"), hint).unwrap();
                let path = folder.join(format!("_delta_log/{newest}.checkpoint.parquet"));
                fs::write(&path, vec![7; 100]).unwrap();
                path
            }
        };
        self.how.damage(&path);
        let is_gone = matches!((self.file, self.how), (File::Checkpoint, How::Delete));
        let path = if is_gone { folder.join("_delta_log/_last_checkpoint") } else { path };
        path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned()
    }
}

impl How {
    fn damage(self, path: &Path) {
        match self {
            Self::Tear => {
                let whole = fs::read(path).unwrap();
                fs::write(path, &whole[..whole.len() / 2]).unwrap();
            }
            Self::Empty => fs::write(path, "").unwrap(),
            Self::Delete => fs::remove_file(path).unwrap(),
            Self::Flip => {
                let mut bytes = fs::read(path).unwrap();
                let middle = bytes.len() / 3;
                bytes[middle] ^= 16;
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// A data file that a commit adds.
fn named_by(commit: &Path, folder: &Path) -> PathBuf {
    let text = fs::read_to_string(commit).unwrap();
    let actions = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let added: Vec<String> = actions.filter_map(|action| Some(action["add"]["path"].as_str()?.to_owned())).collect();
    folder.join(added.last().unwrap_or_else(|| panic!("{} adds nothing", commit.display())))
}

const fn planted(table: &'static str, file: File, how: How) -> Planted {
    Planted { table, file, how }
}

/// Planted together, and repaired together. A table that was mended is read from a new version on, so what comes later
/// must not be in front of that.
const ROUNDS: [&[Planted]; 7] = [
    &[
        planted("gold.monthly_summary", File::Checkpoint, How::Tear),
        planted("gold.daily_summary", File::NewestCommit, How::Tear),
        planted("gold.weekly_summary", File::NewestCommit, How::Delete),
        planted("silver.runs", File::Data, How::Flip),
        planted("gold.sync_status", File::NewestCommit, How::Flip),
        planted("_karat.state_etl_runs", File::NewestCommit, How::Empty),
        planted("_karat.event_log", File::MiddleCommit, How::Tear),
    ],
    &[
        planted("gold.monthly_summary", File::MiddleCommit, How::Empty),
        planted("gold.daily_summary", File::Checkpoint, How::Delete),
        planted("gold.weekly_summary", File::Checkpoint, How::Empty),
        planted("silver.runs", File::FirstCommit, How::Empty),
        planted("silver.run_events", File::Data, How::Tear),
    ],
    &[planted("bronze.karat_events", File::NewestCommit, How::Tear)],
    &[
        planted("bronze.karat_events", File::MiddleCommit, How::Delete),
        planted("silver.run_events", File::Data, How::Delete),
    ],
    &[
        planted("bronze.karat_events", File::FirstCommit, How::Empty),
        planted("bronze.karat_events", File::Data, How::Flip),
    ],
    &[planted("bronze.karat_events", File::NewestCommit, How::Delete)],
    &[
        planted("bronze.karat_events", File::NewestCommit, How::Flip),
        planted("silver.runs", File::NewestCommit, How::Flip),
    ],
];

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_named_and_repaired_with_nothing_lost() {
    let judged = filled().await;
    let lake = judged.folder.path("data/lake");
    assert_eq!(fsck(&judged, &[]).await.ok(), "{\n  \"damaged\": [],\n  \"lost\": []\n}");
    for round in ROUNDS {
        let planted: Vec<(String, String)> =
            round.iter().map(|planted| (planted.table.to_owned(), planted.plant(&lake))).collect();
        let said = fsck(&judged, &[]).await;
        assert_eq!(said.code, 1, "{round:?}: {said:?}");
        let named = named(&said);
        assert!(planted.iter().all(|planted| named.contains(planted)), "{planted:?}: {said:?}");
        let is_planted = |table: &str| planted.iter().any(|(planted, _)| planted == table);
        assert!(named.iter().all(|(table, _)| is_planted(table)), "{planted:?}: {said:?}");
        let said = fsck(&judged, &["--repair"]).await;
        assert_eq!(said.code, 0, "{planted:?}: {said:?}");
        let said = fsck(&judged, &[]).await;
        assert_eq!(said.code, 0, "after {planted:?}: {said:?}");
        judged.judge(None).await.assert_clean(&format!("after {planted:?}"));
    }
    judged.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_instance_serves_the_rest_and_rebuilds_what_is_damaged() {
    let mut judged = filled().await;
    let lake = judged.folder.path("data/lake");
    planted("gold.daily_summary", File::NewestCommit, How::Tear).plant(&lake);
    let mut karat = judged.folder.start("damaged", &["up", "--listen", "127.0.0.1:0"]);
    let client = Client::new(&karat.url().await, &judged.key);
    until("the pipeline pauses", async || {
        let rows = judged.folder.run(&["status", "--format", "json"]).await.json();
        rows[0]["state"].as_str()?.starts_with("paused: ").then_some(())
    })
    .await;
    let runs = judged.folder.run(&["query", "SELECT count(*) AS runs FROM silver.runs", "--format", "json"]).await;
    assert_eq!(runs.json()[0]["runs"], REQUESTS * EVENTS, "another table of the pipeline");
    let answer = client.publish(&[run_event(judged.next)], "?wait=bronze").await.unwrap();
    assert_eq!(answer.status(), 200, "the door goes on");
    judged.note_all(vec![(judged.next, Outcome::Acknowledged)]);

    fsck(&judged, &["--repair"]).await.ok();
    publish(&mut judged, &client).await;
    planted("bronze.karat_events", File::FirstCommit, How::Tear).plant(&lake);
    let said = fsck(&judged, &["--repair"]).await;
    assert!(said.code == 78 && said.err.contains("`bronze.karat_events`: stop it"), "{said:?}");
    karat.stop().await;
    fsck(&judged, &["--repair"]).await.ok();
    judged.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_beside_a_damaged_table_serves_the_epoch_before_until_it_is_repaired() {
    let mut judged = filled().await;
    let lake = judged.folder.path("data/lake");
    planted("gold.summary_state", File::NewestCommit, How::Tear).plant(&lake);
    let mut karat = judged.folder.start("damaged", &["up", "--listen", "127.0.0.1:0", "--without-limits"]);
    let url = karat.url().await;
    let ada = Client::log_in(&url, "ada", PASSWORD).await;
    let summary = async || ada.data("/api/v1/summary?from=2026-05-04&to=2026-05-04").await;
    let runs = until("an older epoch is served", async || {
        let runs = summary().await["totals"]["runs"].as_u64().unwrap();
        (runs > 0).then_some(runs)
    })
    .await;
    assert!(runs < REQUESTS * EVENTS, "{runs}");
    until("it is said", async || karat.err().contains("the next epoch cannot be loaded").then_some(())).await;
    assert_eq!(ada.request("/readyz").send().await.unwrap().status(), 503);
    let client = Client::new(&url, &judged.key);
    client.arrive(&[run_event(judged.next)], "bronze").await;
    judged.note_all(vec![(judged.next, Outcome::Acknowledged)]);
    fsck(&judged, &["--repair"]).await.ok();
    until("everything is served", async || (summary().await["totals"]["runs"] == judged.next).then_some(())).await;
    karat.stop().await;
    judged.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_neither_files_nor_log_hold_are_named_as_lost() {
    let judged = filled().await;
    planted("bronze.karat_events", File::Data, How::Delete).plant(&judged.folder.path("data/lake"));
    fs::remove_dir_all(judged.folder.path("data/log")).unwrap();
    let said = fsck(&judged, &["--repair"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["damaged"], serde_json::json!([]), "{said:?}");
    let offsets = |lost: &Value| lost["last_offset"].as_u64().unwrap() - lost["first_offset"].as_u64().unwrap() + 1;
    let lost: u64 = report["lost"].as_array().unwrap().iter().map(offsets).sum();
    assert_eq!(lost, EVENTS, "{said:?}");
    let runs = judged.folder.run(&["query", "SELECT count(*) AS runs FROM silver.runs", "--format", "json"]).await;
    assert_eq!(runs.json()[0]["runs"], (REQUESTS - 1) * EVENTS);
}

/// The epochs as a check names them: the place, and the manifests, oldest first.
fn epochs(judged: &Judged) -> (String, Vec<PathBuf>) {
    let place = "_karat/epochs/etl_runs";
    (place.to_owned(), files(&judged.folder.path("data/lake").join(place), ".json"))
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_epochs_are_named_and_the_newest_is_written_anew() {
    let mut judged = filled().await;
    let (place, manifests) = epochs(&judged);
    let [first, second, .., newest] = &manifests[..] else { panic!("{manifests:?}") };
    let name = |path: &Path| (place.clone(), path.file_name().unwrap().to_str().unwrap().to_owned());
    // Old ones, of which only readers that hold on to them know.
    How::Empty.damage(first);
    fs::write(second, fs::read(newest).unwrap()).unwrap();
    let said = fsck(&judged, &[]).await;
    assert_eq!((said.code, named(&said)), (1, vec![name(first), name(second)]), "{said:?}");
    fsck(&judged, &["--repair"]).await.ok();
    assert!(!first.exists() && newest.exists());
    // The newest, from which everything goes on.
    How::Tear.damage(newest);
    let said = fsck(&judged, &[]).await;
    assert_eq!((said.code, named(&said)), (1, vec![name(newest)]), "{said:?}");
    fsck(&judged, &["--repair"]).await.ok();
    judged.judge(None).await.assert_clean("after the newest epoch was damaged");
    // Beside a running instance, which has read it already.
    let mut karat = judged.folder.start("running", &["up", "--listen", "127.0.0.1:0"]);
    let client = Client::new(&karat.url().await, &judged.key);
    publish(&mut judged, &client).await;
    let (_, manifests) = epochs(&judged);
    let newest = manifests.last().unwrap();
    fs::write(newest, "{}").unwrap();
    let said = fsck(&judged, &[]).await;
    assert_eq!((said.code, named(&said)), (1, vec![name(newest)]), "{said:?}");
    fsck(&judged, &["--repair"]).await.ok();
    publish(&mut judged, &client).await;
    karat.stop().await;
    judged.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_file_of_bronze_is_made_again_from_the_log() {
    // Files are merged when there are so many, and both the tables and the copy of the state have them behind them.
    const MERGED: u64 = 128;
    let mut judged = Judged::new().await;
    let bronze = judged.folder.path("data/lake/bronze/karat_events");
    let start = |judged: &Judged, name: &str| {
        // Maintenance runs every two seconds.
        judged.folder.start(name, &["up", "--listen", "127.0.0.1:0", "--keep-versions", "10"])
    };
    let mut karat = start(&judged, "filling");
    let client = Client::new(&karat.url().await, &judged.key);
    for _ in 0..MERGED + 12 {
        let numbers = judged.next..judged.next + 2;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        client.arrive(&events, "bronze").await;
        judged.note_all(numbers.map(|number| (number, Outcome::Acknowledged)).collect());
    }
    karat.stop().await;
    let mut karat = start(&judged, "merging");
    karat.url().await;
    let merged = until("files of bronze are merged, and the single ones removed", async || {
        karat.assert_alive();
        let merged: Vec<PathBuf> = files(&bronze, ".parquet")
            .into_iter()
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("merged-"))
            .collect();
        let is_removed = files(&bronze, ".parquet").len() <= 20;
        (!merged.is_empty() && is_removed).then_some(merged)
    })
    .await;
    karat.stop().await;
    // A commit whose rows are in the merged file by now, and whose own file is gone. No checkpoint of the log covers it.
    let commit = "_delta_log/00000000000000000120.json";
    fs::remove_file(bronze.join(commit)).unwrap();
    let said = fsck(&judged, &[]).await;
    assert_eq!((said.code, named(&said)), (1, vec![("bronze.karat_events".to_owned(), commit.to_owned())]), "{said:?}");
    fsck(&judged, &["--repair"]).await.ok();
    judged.judge(None).await.assert_clean("after a commit before a merged file was damaged");
    let name = merged[0].strip_prefix(&bronze).unwrap().to_str().unwrap().to_owned();
    How::Flip.damage(&merged[0]);
    let said = fsck(&judged, &[]).await;
    assert_eq!((said.code, named(&said)), (1, vec![("bronze.karat_events".to_owned(), name)]), "{said:?}");
    fsck(&judged, &["--repair"]).await.ok();
    judged.judge(None).await.assert_clean("after a merged file was damaged");
    judged.end().await;
}
