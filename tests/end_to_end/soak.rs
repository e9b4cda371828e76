//! `make soak`: requests at a pace that keeps bronze committing, nine times a second, beside maintenance, for as long as it is
//! told. What must stay flat is printed as a table, minute after minute, and compared.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use karat_lake::Lake;
use karat_oracle::Outcome;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    client::{Client, run_event},
    judged::Judged,
    process::Karat,
    wait::until,
};

/// Between two requests. Those that come while bronze commits share the next commit.
const TICK: Duration = Duration::from_millis(50);

/// Events of a request.
const EVENTS: u64 = 5;

/// Of so many requests, one waits for bronze, and another one for gold.
const WAITING: u64 = 10;

/// Minutes after which what is flat is compared.
const WARM_UP: usize = 10;

/// Events before the first minute: more than the caches and buffers of the log, of identities and of the state hold, which at the
/// pace of the soak would fill for hours. In requests of so many.
const FILLING: u64 = 600_000;
const FILLING_REQUEST: u64 = 5_000;

/// One look at the instance.
#[derive(Debug, Clone, Default)]
struct Look {
    version: u64,
    commits: u64,
    bronze_files: usize,
    bronze_log: usize,
    silver_files: usize,
    gold_files: usize,
    open_bronze: Duration,
    open_gold: Duration,
    bronze: Waits,
    gold: Waits,
    memory_mib: u64,
}

/// How long requests waited for a layer.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    median: Duration,
    longest: Duration,
}

/// Requests that wait, and how long those took that are answered.
#[derive(Default)]
struct Waiting {
    requests: JoinSet<(Layer, Duration)>,
    bronze: Vec<Duration>,
    gold: Vec<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Layer {
    Bronze,
    Gold,
}

impl Waiting {
    fn send(&mut self, client: &Client, events: Vec<Value>, layer: Layer) {
        let client = client.clone();
        self.requests.spawn(async move {
            let query = match layer {
                Layer::Bronze => "?wait=bronze",
                Layer::Gold => "?wait=gold",
            };
            let began = Instant::now();
            let answer = client.publish(&events, query).await.unwrap();
            let (status, took) = (answer.status(), began.elapsed());
            // 202 is the answer of one that waited in vain.
            assert_eq!(status, 200, "{query} after {took:?}: {}", answer.text().await.unwrap());
            (layer, took)
        });
    }

    fn take_answered(&mut self) {
        while let Some(answered) = self.requests.try_join_next() {
            match answered.unwrap() {
                (Layer::Bronze, took) => self.bronze.push(took),
                (Layer::Gold, took) => self.gold.push(took),
            }
        }
    }
}

impl Waits {
    fn of(waits: &mut Vec<Duration>) -> Self {
        waits.sort_unstable();
        let median = waits.get(waits.len() / 2).copied().unwrap_or_default();
        let longest = waits.last().copied().unwrap_or_default();
        waits.clear();
        Self { median, longest }
    }
}

fn count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let count_one = |path: &Path| if path.is_dir() { count(path) } else { 1 };
    // Files come and go meanwhile.
    entries.flatten().map(|entry| count_one(&entry.path())).sum()
}

/// The version of a table, and how long opening it takes: the shortest of some times, as this process is one of those that
/// keep the machine busy.
async fn open(lake: &Lake, table: &str) -> (u64, Duration) {
    let (mut version, mut shortest) = (0, Duration::MAX);
    for _ in 0..3 {
        let began = Instant::now();
        version = lake.open(table).await.unwrap().version();
        shortest = shortest.min(began.elapsed());
    }
    (version, shortest)
}

/// Memory of the process itself, without pages of files.
fn memory_mib(karat: &Karat) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", karat.pid())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

async fn look(judged: &Judged, karat: &Karat, waiting: &mut Waiting, before: u64) -> Look {
    let folder = judged.folder.path("data/lake");
    let lake = Lake::at(folder.to_str().unwrap()).unwrap();
    let (version, open_bronze) = open(&lake, "bronze.karat_events").await;
    let (_, open_gold) = open(&lake, "gold.daily_summary").await;
    let bronze = folder.join("bronze/karat_events");
    let bronze_log = count(&bronze.join("_delta_log"));
    Look {
        version,
        commits: version - before,
        bronze_files: count(&bronze) - bronze_log,
        bronze_log,
        silver_files: count(&folder.join("silver")),
        gold_files: count(&folder.join("gold")),
        open_bronze,
        open_gold,
        bronze: Waits::of(&mut waiting.bronze),
        gold: Waits::of(&mut waiting.gold),
        memory_mib: memory_mib(karat),
    }
}

/// Sends what fills the caches, and waits until gold has it.
async fn fill(judged: &mut Judged, client: &Client) {
    while judged.next < FILLING {
        let numbers = judged.next..judged.next + FILLING_REQUEST;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        until("the events are taken", async || {
            let answer = client.publish(&events, "").await.unwrap();
            (answer.status() == 202).then_some(())
        })
        .await;
        judged.note_all(numbers.map(|number| (number, Outcome::Acknowledged)).collect());
    }
    // Each partition has some of these.
    let numbers = judged.next..judged.next + FILLING_REQUEST;
    let events: Vec<Value> = numbers.clone().map(run_event).collect();
    client.arrive(&events, "gold").await;
    judged.note_all(numbers.map(|number| (number, Outcome::Acknowledged)).collect());
}

const COLUMNS: &str = "| minute | bronze version | commits/s | its files | its log | silver | gold | open bronze, ms | \
    open gold, ms | to bronze, ms | longest | to gold, ms | longest | memory, MiB |\n\
    |---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

fn shown(minute: usize, look: &Look, took: Duration) -> String {
    let Look { version, bronze_files, bronze_log, silver_files, gold_files, memory_mib, .. } = look;
    let ms = |time: Duration| time.as_millis();
    format!(
        "| {minute} | {version} | {:.1} | {bronze_files} | {bronze_log} | {silver_files} | {gold_files} | {} | {} | {} | {} \
         | {} | {} | {memory_mib} |",
        look.commits as f64 / took.as_secs_f64(),
        ms(look.open_bronze),
        ms(look.open_gold),
        ms(look.bronze.median),
        ms(look.bronze.longest),
        ms(look.gold.median),
        ms(look.gold.longest),
    )
}

/// What was found at the end of the warm-up may not be much less than what is found in the end.
fn assert_flat(looks: &[Look]) {
    let Some(warm) = looks.len().checked_sub(1).and_then(|last| looks.get(WARM_UP.min(last / 2))) else { return };
    let mean = |of: &dyn Fn(&Look) -> f64, looks: &[Look]| looks.iter().map(of).sum::<f64>() / looks.len() as f64;
    let last = &looks[looks.len() - looks.len().div_ceil(6)..];
    let grows = |what: &str, of: &dyn Fn(&Look) -> f64, room: f64| {
        let (from, to) = (of(warm), mean(of, last));
        assert!(to <= from * 1.25 + room, "{what}: {from} when warm, {to} in the end");
    };
    grows("files of bronze", &|look| look.bronze_files as f64, 700.0);
    grows("log of bronze", &|look| look.bronze_log as f64, 700.0);
    grows("files of silver", &|look| look.silver_files as f64, 700.0);
    grows("files of gold", &|look| look.gold_files as f64, 700.0);
    grows("opening bronze", &|look| look.open_bronze.as_secs_f64(), 0.5);
    grows("opening gold", &|look| look.open_gold.as_secs_f64(), 0.5);
    grows("commit", &|look| look.bronze.median.as_secs_f64(), 0.1);
    if looks.len() > WARM_UP {
        grows("memory", &|look| look.memory_mib as f64, 32.0);
    }
}

/// `make soak` (MINUTES).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make soak"]
async fn soak() {
    let minutes: usize = std::env::var("KARAT_SOAK_MINUTES").map_or(8, |minutes| minutes.parse().unwrap());
    let mut judged = Judged::new().await;
    let mut karat = judged.folder.start("soak", &["up", "--listen", "127.0.0.1:0", "--keep-versions", "60"]);
    let client = Client::new(&karat.url().await, &judged.key);
    fill(&mut judged, &client).await;
    println!("{COLUMNS}");
    let (mut looks, mut waiting) = (Vec::<Look>::new(), Waiting::default());
    let mut ticks = tokio::time::interval(TICK);
    let (mut number, mut last_look) = (0_u64, Instant::now());
    while looks.len() < minutes {
        ticks.tick().await;
        karat.assert_alive();
        let numbers = judged.next..judged.next + EVENTS;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        number += 1;
        match number % WAITING {
            0 => waiting.send(&client, events, Layer::Bronze),
            5 => waiting.send(&client, events, Layer::Gold),
            _ => {
                let answer = client.publish(&events, "").await.unwrap();
                assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
            }
        }
        waiting.take_answered();
        judged.note_all(numbers.map(|number| (number, Outcome::Acknowledged)).collect());
        let took = last_look.elapsed();
        if took >= Duration::from_secs(60) {
            last_look = Instant::now();
            let before = looks.last().map_or(0, |look| look.version);
            let look = look(&judged, &karat, &mut waiting, before).await;
            looks.push(look);
            println!("{}", shown(looks.len(), looks.last().unwrap(), took));
        }
    }
    while !waiting.requests.is_empty() {
        waiting.take_answered();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What it had to say: pauses, refusals, what was not cleaned.
    karat
        .err()
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .for_each(|line| println!("{line}"));
    karat.stop().await;
    assert_flat(&looks);
    judged.end().await;
}
