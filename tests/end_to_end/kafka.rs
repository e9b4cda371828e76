//! The main scenario with one process a role, on a real broker: `KARAT_TEST_KAFKA=host:port`.

use serde_json::{Value, json};

use crate::{
    client::Client,
    demo::Watch,
    process::{Folder, Karat, PASSWORD, run},
    sample::{assert_no_difference, assert_not_modified, assert_served, wait_for_gold},
    wait::until,
};

/// The pipelines that ship, on a topic of this run alone: the broker may have events of others.
fn pipelines(folder: &Folder) -> String {
    let path = folder.text("pipelines.toml");
    std::fs::write(&path, on_own_topic().1).unwrap();
    path
}

/// A topic of events of this run alone, and the pipelines that ship, on it and on another of its own: members of a group that
/// other tests freeze would hold up who owns a topic of both.
pub fn on_own_topic() -> (String, String) {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let shipped = include_str!("../../pipelines.toml");
    let of_run =
        |declared: String, topic: &str| declared.replace(&format!("\"{topic}\""), &format!("\"{topic}.{run}\""));
    let declared = ["karat.events", "karat.finance"].into_iter().fold(shipped.to_owned(), of_run);
    (format!("karat.events.{run}"), declared)
}

/// The roles of one instance, sharing a data folder.
struct Roles<'f> {
    folder: &'f Folder,
    common: Vec<String>,
}

impl Roles<'_> {
    fn start(&self, role: &str, name: &str) -> Karat {
        let mut words: Vec<&str> = vec![role];
        words.extend(self.common.iter().map(String::as_str));
        if role != "transform" {
            words.extend(["--listen", "127.0.0.1:0", "--without-limits"]);
        }
        self.folder.start(name, &words)
    }

    async fn verify(&self) {
        let words: Vec<&str> =
            ["table", "verify", "--format", "json"].into_iter().chain(self.common.iter().map(String::as_str)).collect();
        assert_no_difference(&self.folder.run(&words).await.json());
    }
}

/// Orders a replay and waits for the epoch that it ends in.
async fn replay(client: &Client) {
    let epoch = async || client.data("/api/v1/summary").await["epoch"].as_u64().unwrap();
    let before = epoch().await;
    let order = client.post("/api/v1/admin/replays").json(&json!({"pipeline": "etl_runs"})).send().await.unwrap();
    assert!(order.status().is_success(), "{}", order.text().await.unwrap());
    until("the replay is in place", async || (epoch().await > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_a_role_serves_the_same_figures_on_kafka() {
    let Ok(broker) = std::env::var("KARAT_TEST_KAFKA") else {
        eprintln!("left out, because KARAT_TEST_KAFKA names no broker: `make test-services` starts one");
        return;
    };
    let folder = Folder::new();
    let common = ["--kafka", &broker, "--pipelines", &pipelines(&folder)].map(str::to_owned).to_vec();
    let roles = Roles { folder: &folder, common };
    let key = folder.account("ada", "operator").await;
    let transform = roles.start("transform", "transform");
    let (mut ingest, mut api) = (roles.start("ingest", "ingest"), roles.start("api", "api"));
    let (doors, url) = (ingest.url().await, api.url().await);
    let publisher = Client::new(&doors, &key);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/openlineage-airline.ndjson.gz");
    let publish = ["publish", sample, "--url", &doors, "--key", &key, "--format", "json"];
    let report: Value = run(&publish).await.json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&1680.into(), &0.into()), "{report}");
    wait_for_gold(&publisher).await;
    let ada = Client::log_in(&url, "ada", PASSWORD).await;
    ada.ready().await;
    assert_served(&ada).await;
    assert_not_modified(&ada).await;
    roles.verify().await;

    let watch = Watch::start(&ada);
    replay(&ada).await;
    // The transform dies in the middle of repeats; another takes over where the tables are.
    let publishing = tokio::spawn(async move { run(&["publish", sample, "--url", &doors, "--key", &key]).await });
    transform.kill();
    let transform = roles.start("transform", "transform-again");
    publishing.await.unwrap().ok();
    wait_for_gold(&publisher).await;
    assert!(watch.stop().await > 0);

    assert_served(&ada).await;
    roles.verify().await;
    for role in [transform, ingest, api] {
        role.stop().await;
    }
    roles.verify().await;
}
