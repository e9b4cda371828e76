//! The first command of README: figures, replay and repeats, with the API answering all the while.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    client::Client,
    process::Folder,
    sample::{RANGE, assert_no_difference, assert_not_modified, assert_served, days, total_runs, wait_for_gold},
    wait::until,
};

/// What the demo prints: the password of `demo` and an API key.
pub fn printed(out: &str) -> (String, String) {
    let after = |mark: &str| out.split(mark).nth(1).unwrap_or_else(|| panic!("no `{mark}` in:\n{out}"));
    let password = after("password `").split('`').next().unwrap().to_owned();
    let key = after("API key").split_whitespace().next().unwrap().to_owned();
    (password, key)
}

/// The profits of the demo: five companies, two years.
async fn assert_profits(client: &Client) {
    let all = until("the API has every profit", async || {
        let answer = client.data("/api/v1/profits").await;
        (answer["totals"]["rows"] == 120).then_some(answer)
    })
    .await;
    let totals = serde_json::json!({"rows": 120, "companies": 5, "profit": "20019248.43"});
    assert_eq!((&all["totals"], &all["pages"]), (&totals, &3.into()), "{all}");
    let loss = client.data("/api/v1/profits?company=Ember%20Labs&year=2025").await;
    assert_eq!((&loss["totals"]["rows"], &loss["totals"]["profit"]), (&12.into(), &"-438290.51".into()), "{loss}");
}

/// The declared endpoint: every run of the demo is the caller's own.
async fn assert_failing_jobs(client: &Client) {
    let answer = client.data("/api/v1/data/failing_jobs?days=365").await;
    let failed: i64 = answer["rows"].as_array().unwrap().iter().map(|row| row["failures"].as_i64().unwrap()).sum();
    let expected: i64 = days().iter().map(|day| day["failed"].as_i64().unwrap()).sum();
    assert!(failed == expected && failed > 0, "{expected} runs failed: {answer}");
}

/// Asks for the totals again and again; every answer must be 200 and say the same.
pub struct Watch {
    stop: Arc<AtomicBool>,
    asked: JoinHandle<u64>,
}

impl Watch {
    pub fn start(client: &Client) -> Self {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), client.clone());
        let asked = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    for grain in ["", "/weekly", "/monthly"] {
                        let answer = client.data(&format!("/api/v1/summary{grain}?{RANGE}")).await;
                        assert_eq!(answer["totals"]["runs"], total_runs());
                    }
                    asked += 1;
                    tokio::task::yield_now().await;
                }
                asked
            }
        });
        Self { stop, asked }
    }

    /// Ends the watch; the number of rounds.
    pub async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.asked.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_serves_the_recorded_figures_through_replay_and_repeats() {
    let folder = Folder::new();
    let mut karat = folder.start("karat", &["up", "--demo", "--without-limits", "--listen", "127.0.0.1:0"]);
    let (password, key) = printed(&karat.says("Ctrl-C").await);
    let url = karat.url().await;
    let demo = Client::log_in(&url, "demo", &password).await;
    assert_served(&demo).await;
    assert_profits(&demo).await;
    assert_failing_jobs(&demo).await;
    assert_not_modified(&demo).await;
    assert_no_difference(&folder.run(&["table", "verify", "--format", "json"]).await.json());

    let watch = Watch::start(&demo);
    folder.run(&["replay", "start", "etl_runs", "--all"]).await.ok();
    let repeated = folder.path("data").join("demo.ndjson.gz");
    let words = ["publish", repeated.to_str().unwrap(), "--url", &url, "--key", &key, "--format", "json"];
    let report: Value = crate::process::run(&words).await.json();
    assert_eq!((&report["records"], &report["rejected"]), (&1680.into(), &0.into()), "{report}");
    wait_for_gold(&Client::new(&url, &key)).await;
    folder.run(&["replay", "start", "etl_runs", "--all"]).await.ok();
    assert!(watch.stop().await > 0);

    assert_served(&demo).await;
    assert_no_difference(&folder.run(&["table", "verify", "--format", "json"]).await.json());
    karat.stop().await;
    assert_no_difference(&folder.run(&["table", "verify", "--format", "json"]).await.json());

    let mut karat = folder.start("again", &["up", "--listen", "127.0.0.1:0"]);
    let demo = Client::log_in(&karat.url().await, "demo", &password).await;
    demo.ready().await;
    assert_served(&demo).await;
    karat.stop().await;
}
