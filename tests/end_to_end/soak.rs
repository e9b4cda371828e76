//! `make soak`: ten commits a second beside maintenance, for as long as it is told. What must stay flat is printed as a
//! table, minute after minute, and compared.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use karat_lake::Lake;
use karat_oracle::Outcome;
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    judged::Judged,
    process::Karat,
};

/// Between two requests, each of which becomes a commit of bronze.
const TICK: Duration = Duration::from_millis(100);

/// Events of a request.
const EVENTS: u64 = 5;

/// One look at the instance.
#[derive(Debug, Clone, Copy)]
struct Look {
    commits: u64,
    bronze_files: usize,
    bronze_log: usize,
    silver_files: usize,
    gold_files: usize,
    open_bronze: Duration,
    open_gold: Duration,
    commit: Duration,
    memory_mib: u64,
}

fn count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let count_one = |path: &Path| if path.is_dir() { count(path) } else { 1 };
    entries.map(|entry| count_one(&entry.unwrap().path())).sum()
}

async fn open(lake: &Lake, table: &str) -> (u64, Duration) {
    let began = Instant::now();
    let version = lake.open(table).await.unwrap().version();
    (version, began.elapsed())
}

fn memory_mib(karat: &Karat) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", karat.pid())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

async fn look(judged: &Judged, karat: &Karat, waits: &mut Vec<Duration>) -> Look {
    let folder = judged.folder.path("data/lake");
    let lake = Lake::at(folder.to_str().unwrap()).unwrap();
    let (commits, open_bronze) = open(&lake, "bronze.karat_events").await;
    let (_, open_gold) = open(&lake, "gold.daily_summary").await;
    waits.sort_unstable();
    let commit = waits.get(waits.len() / 2).copied().unwrap_or_default();
    waits.clear();
    let bronze = folder.join("bronze/karat_events");
    let bronze_log = count(&bronze.join("_delta_log"));
    Look {
        commits,
        bronze_files: count(&bronze) - bronze_log,
        bronze_log,
        silver_files: count(&folder.join("silver")),
        gold_files: count(&folder.join("gold")),
        open_bronze,
        open_gold,
        commit,
        memory_mib: memory_mib(karat),
    }
}

fn shown(minute: usize, look: &Look) -> String {
    let Look { commits, bronze_files, bronze_log, silver_files, gold_files, memory_mib, .. } = look;
    let (bronze, gold, commit) = (look.open_bronze.as_millis(), look.open_gold.as_millis(), look.commit.as_millis());
    format!(
        "| {minute} | {commits} | {bronze_files} | {bronze_log} | {silver_files} | {gold_files} | {bronze} | {gold} | \
         {commit} | {memory_mib} |"
    )
}

/// `make soak` (MINUTES).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make soak"]
async fn soak() {
    let minutes: usize = std::env::var("KARAT_SOAK_MINUTES").map_or(8, |minutes| minutes.parse().unwrap());
    let mut judged = Judged::new().await;
    let mut karat = judged.folder.start("soak", &["up", "--listen", "127.0.0.1:0", "--keep-versions", "60"]);
    let client = Client::new(&karat.url().await, &judged.key);
    println!(
        "| minute | bronze version | its files | its log | silver | gold | open bronze, ms | open gold, ms | commit, ms | memory, MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let (mut looks, mut waits) = (Vec::new(), Vec::new());
    let mut ticks = tokio::time::interval(TICK);
    let mut number = 0_u64;
    let mut next_look = Instant::now() + Duration::from_secs(60);
    while looks.len() < minutes {
        ticks.tick().await;
        karat.assert_alive();
        let numbers = judged.next..judged.next + EVENTS;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        number += 1;
        // Every tenth request is asked how long its commit takes.
        let (query, began) = (if number.is_multiple_of(10) { "?wait=bronze" } else { "" }, Instant::now());
        let answer = client.publish(&events, query).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        if !query.is_empty() {
            waits.push(began.elapsed());
        }
        judged.note_all(numbers.map(|number| (number, Outcome::Acknowledged)).collect());
        if Instant::now() >= next_look {
            next_look += Duration::from_secs(60);
            let look = look(&judged, &karat, &mut waits).await;
            looks.push(look);
            println!("{}", shown(looks.len(), &look));
        }
    }
    karat.stop().await;
    let ends = (&looks[looks.len() / 2], &looks[looks.len() - 1]);
    let grows = |of: fn(&Look) -> usize| (of(ends.0), of(ends.1));
    for (what, (half, end)) in [
        ("files of bronze", grows(|look| look.bronze_files)),
        ("log of bronze", grows(|look| look.bronze_log)),
        ("files of silver", grows(|look| look.silver_files)),
        ("files of gold", grows(|look| look.gold_files)),
    ] {
        assert!(end <= half + half / 2 + 500, "{what}: {half} at half time, {end} in the end");
    }
    judged.end().await;
}
