//! A flood of log-ins: memory is bounded, the queue is seen in the metrics, and everything else is answered.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    client::http,
    process::{Folder, is_release},
};

const LOG_INS: usize = 300;

/// Memory of one hash.
const HASH_BYTES: u64 = 19 << 20;

/// What connections, requests and answers may take.
const REST_BYTES: u64 = 96 << 20;

/// What `/health` should take at most beside the flood, at its 99th percentile: of a release build on a quiet machine. Printed
/// beside what it took, and not asserted.
const HEALTH: Duration = Duration::from_millis(50);

/// A number of the metrics.
async fn metric(url: &str, name: &str) -> u64 {
    let text = http().get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("karat_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

/// Whoever wants figures runs it with `--nocapture` and a release build in `KARAT_TEST_BINARY`.
#[tokio::test(flavor = "multi_thread")]
async fn security_07_300_parallel_log_ins_keep_memory_bounded_and_others_are_answered() {
    let folder = Folder::new();
    let words = ["up", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--without-limits"];
    let mut karat = folder.start("karat", &words);
    let url = karat.url().await;
    let metrics = karat.metrics_url().await;
    let parallel = metric(&metrics, "password_hashes_parallel").await;
    let before = karat.memory();
    let client = http();
    let mut flood = JoinSet::new();
    for number in 0..LOG_INS {
        let request = client
            .post(format!("{url}/api/v1/auth/login"))
            .json(&json!({"username": format!("nobody_{number}"), "password": "Wrong-Horse-91-Staple"}));
        flood.spawn(async move { request.send().await.unwrap() });
    }
    let (mut most, mut waiting, mut took, mut statuses) = (before, 0, Vec::new(), Vec::new());
    while statuses.len() < LOG_INS {
        let asked = Instant::now();
        assert_eq!(client.get(format!("{url}/health")).send().await.unwrap().status(), 200);
        took.push(asked.elapsed());
        most = most.max(karat.memory());
        waiting = waiting.max(metric(&metrics, "password_hashes_waiting").await);
        let soon = tokio::time::timeout(Duration::from_millis(20), flood.join_next());
        let mut answered = soon.await.ok().flatten();
        while let Some(answer) = answered {
            let answer = answer.unwrap();
            let says_when = answer.headers().contains_key("retry-after");
            assert!(answer.status() == 401 || answer.status() == 503 && says_when, "{}", answer.status());
            statuses.push(answer.status().as_u16());
            answered = flood.try_join_next();
        }
    }
    took.sort_unstable();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    let p99 = took[took.len() * 99 / 100];
    println!(
        "{LOG_INS} log-ins at once: {refused} refused, {waiting} waited, {} MiB more; /health {} times, median {:?}, p99 {:?}",
        (most - before) >> 20,
        took.len(),
        took[took.len() / 2],
        p99,
    );
    if is_release() {
        let verdict = if p99 < HEALTH { "within" } else { "beyond" };
        println!("/health is {verdict} its bound of {HEALTH:?}");
    }
    assert!(waiting > 0, "the queue is seen");
    assert!(most - before < parallel * HASH_BYTES + REST_BYTES, "from {before} to {most} bytes");
    assert_eq!(metric(&metrics, "password_hashes_waiting").await, 0);
    karat.stop().await;
}
