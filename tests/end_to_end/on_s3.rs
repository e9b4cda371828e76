//! The lake in a bucket of a real S3 server, behind a door that lets requests fail:
//! `KARAT_TEST_S3=http://KEY:SECRET@HOST:PORT/BUCKET`.

use std::{fs, time::Duration};

use karat_oracle::{
    Outcome,
    s3::{Door, S3Server, Weather},
};
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    demo::{Watch, printed},
    judged::{BATCH, Judged, publish_until_gone},
    load::Load,
    process::{Folder, PASSWORD},
    report::Report,
    sample::{assert_no_difference, assert_not_modified, assert_served, wait_for_gold},
    wait::until,
};

const UP: [&str; 3] = ["up", "--listen", "127.0.0.1:0"];

/// The environment of an instance with a lake of its own in the bucket, which it reaches at `endpoint`.
pub fn on_s3(server: &S3Server, endpoint: &str) -> Vec<(String, String)> {
    let lake = server.lake(&uuid::Uuid::new_v4().simple().to_string());
    server.variables(endpoint).into_iter().chain([("KARAT__LAKE__LOCATION".to_owned(), lake)]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_serves_the_recorded_figures_from_a_bucket() {
    let Some(server) = S3Server::reached() else { return };
    let folder = Folder::with(on_s3(&server, &server.endpoint()));
    let mut karat = folder.start("karat", &["up", "--demo", "--without-limits", "--listen", "127.0.0.1:0"]);
    let (password, key) = printed(&karat.says("Ctrl-C").await);
    let url = karat.url().await;
    let demo = Client::log_in(&url, "demo", &password).await;
    assert_served(&demo).await;
    assert_not_modified(&demo).await;
    let verify = async || {
        assert_no_difference(&folder.run(&["table", "verify", "--format", "json"]).await.json());
    };
    verify().await;
    let watch = Watch::start(&demo);
    folder.run(&["replay", "start", "etl_runs", "--all"]).await.ok();
    wait_for_gold(&Client::new(&url, &key)).await;
    assert!(watch.stop().await > 0);
    assert_served(&demo).await;
    karat.stop().await;
    verify().await;

    let tables: Value = folder.run(&["table", "ls", "--format", "json"]).await.json();
    assert!(tables.as_array().unwrap().len() > 4, "{tables}");
    folder.run(&["table", "show", "gold.daily_summary"]).await.ok();
    folder.run(&["table", "fsck"]).await.ok();
    let count: Value =
        folder.run(&["query", "SELECT count(*) AS n FROM bronze.karat_events", "--format", "json"]).await.json();
    assert!(count[0]["n"].as_u64() >= Some(1680), "{count}");
    // Nothing of the lake is in the folder, and its state comes back from the bucket.
    assert!(!folder.path("data/lake").exists());
    fs::remove_dir_all(folder.path("data/state")).unwrap();
    let mut karat = folder.start("again", &UP);
    let demo = Client::log_in(&karat.url().await, "demo", &password).await;
    demo.ready().await;
    assert_served(&demo).await;
    karat.stop().await;
    verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_used_is_said_with_the_reason_and_without_the_key() {
    let Some(server) = S3Server::reached() else { return };
    let folder = Folder::with(server.variables(&server.endpoint()));
    let lake = server.lake("x");
    let with = async |lake: &str, variables: &[(&str, &str)]| {
        let mut karat = folder.start_with("refused", &[&UP[..], &["--lake", lake]].concat(), variables);
        let code = until("it ends", async || karat.code()).await;
        let err = karat.err();
        assert!(!err.contains("karat-secret") && !err.contains("canary"), "{err}");
        (code, err)
    };
    let (code, err) = with("s3://there-is-no-such-bucket/x", &[]).await;
    assert!(code == 78 && err.contains("there is no such bucket"), "{code} {err}");
    let (code, err) = with(&lake, &[("AWS_SECRET_ACCESS_KEY", "canary")]).await;
    assert!(code == 78 && err.contains("refuses the key"), "{code} {err}");
    let (code, err) = with(&lake, &[("AWS_ENDPOINT_URL", "http://s3.example.org")]).await;
    assert!(code == 78 && err.contains("AWS_ALLOW_HTTP"), "{code} {err}");
    let (code, err) = with("gs://bucket/x", &[]).await;
    assert!(code == 78 && err.contains("gs://bucket/x"), "{code} {err}");
    // A port that nobody listens on.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (code, err) = with(&lake, &[("AWS_ENDPOINT_URL", &format!("http://{nobody}"))]).await;
    assert!(code == 69 && err.contains("does not answer"), "{code} {err}");
}

/// A PNG of one pixel.
const PNG: &str = "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000\
                   000d4944415478da636460f85f0f0002870180eb47ba920000000049454e44ae426082";

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_accounts_are_in_a_bucket_where_that_is_their_place() {
    let Some(server) = S3Server::reached() else { return };
    let folder = Folder::with(server.variables(&server.endpoint()));
    let place = server.lake(&format!("avatars-{}", uuid::Uuid::new_v4().simple()));
    folder.account("ada", "user").await;
    let words = [&UP[..], &["--avatars", &place]].concat();
    let mut karat = folder.start("first", &words);
    let ada = Client::log_in(&karat.url().await, "ada", PASSWORD).await;
    let set = ada.post("/api/v1/users/avatar").header("content-type", "image/png").body(hex::decode(PNG).unwrap());
    let set = set.send().await.unwrap();
    assert_eq!(set.status(), 200);
    let set: Value = set.json().await.unwrap();
    let path = set["data"]["avatar_url"].as_str().unwrap().to_owned();
    karat.stop().await;
    assert!(!folder.path("data/avatars").exists());
    let mut karat = folder.start("again", &words);
    let picture = reqwest::get(format!("{}{path}", karat.url().await)).await.unwrap();
    assert_eq!(picture.status(), 200);
    assert_eq!(picture.headers()["content-type"], "image/png");
    karat.stop().await;
    let missing = ["--avatars", "s3://there-is-no-such-bucket/x"];
    let said = folder.run(&[&UP[..], &missing].concat()).await;
    assert!(said.code == 78 && said.err.contains("`access.avatars`"), "{said:?}");
    assert!(said.err.contains("there is no such bucket") && !said.err.contains("karat-secret"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_and_double_nothing_in_a_bucket() {
    let Some(server) = S3Server::reached() else { return };
    let mut judged = Judged::with(on_s3(&server, &server.endpoint())).await;
    for round in 0..4 {
        let mut karat = judged.folder.start(&format!("round-{round}"), &UP);
        let client = Client::new(&karat.url().await, &judged.key);
        let publishing = tokio::spawn(publish_until_gone(client, judged.next, ""));
        tokio::time::sleep(Duration::from_millis(150 + 900 * round)).await;
        karat.kill();
        judged.note_all(publishing.await.unwrap());
    }
    judged.end().await;
}

/// What is done to the requests between the process and the bucket, and what it is called in the table.
const WEATHERS: [(Weather, &str); 10] = [
    (Weather::Unavailable { one_in: 3 }, "a third of the requests answered 503"),
    (Weather::FailsAfterwards { one_in: 2 }, "half of the writes carried out and answered 500"),
    (Weather::LosesAnswers { one_in: 2 }, "half of the answers to writes lost"),
    (Weather::Resets { one_in: 5 }, "a fifth of the connections cut"),
    (Weather::CutsReads { one_in: 4 }, "a quarter of the reads cut in the middle"),
    (Weather::CarriesOutLate(Duration::from_millis(700)), "commits cut off, and carried out 0.7 s later"),
    (Weather::Slow(Duration::from_millis(100)), "each answer 100 ms late"),
    (Weather::Storm { one_in: 3 }, "a third of the requests suffer one of these, in turn"),
    // Longer than requests are tried again: the pipelines pause and go on by themselves.
    (Weather::Unavailable { one_in: 1 }, "every request answered 503 for 40 s"),
    (Weather::Stalled, "nothing passes for 40 s"),
];

/// Prints a table: `make chaos LAKE=s3`.
#[tokio::test(flavor = "multi_thread")]
async fn failing_requests_lose_and_double_nothing() {
    let Some(server) = S3Server::reached() else { return };
    let door = Door::open(&server.endpoint()).await.unwrap();
    let mut judged = Judged::with(on_s3(&server, &door.address())).await;
    let mut karat = judged.folder.start("life", &UP);
    let url = karat.url().await;
    let (client, ada) = (Client::new(&url, &judged.key), Client::log_in(&url, "ada", PASSWORD).await);
    let mut report = Report::default();
    for (weather, name) in WEATHERS {
        let is_away = matches!(weather, Weather::Stalled | Weather::Unavailable { one_in: 1 });
        let begin = std::time::Instant::now();
        let pauses = || karat.err().matches("it is tried again").count();
        let paused = pauses();
        let (failed, time) = (door.failed(), Duration::from_secs(if is_away { 40 } else { 3 }));
        door.set(weather);
        let load = Load::whatever_the_answers(&client, judged.next);
        until("requests have failed", async || {
            let has_failed = door.failed() >= failed + 10 || matches!(weather, Weather::Slow(_) | Weather::Stalled);
            (has_failed && begin.elapsed() > time || begin.elapsed() > Duration::from_secs(60)).then_some(())
        })
        .await;
        if is_away {
            until("bronze or the pipeline says that it waits", async || (pauses() > paused).then_some(())).await;
        }
        let told = load.end().await;
        let is_quiet = matches!(weather, Weather::Slow(_) | Weather::Stalled);
        assert!(is_quiet || door.failed() > failed, "{weather:?} did nothing");
        // What was there before is served all the while.
        assert!(
            judged.next == 0 || ada.data("/api/v1/summary?from=2026-05-04&to=2026-05-04").await["totals"]["runs"] != 0
        );
        door.set(Weather::Fair);
        judged.note_all(told);
        karat.assert_alive();
        let healed = std::time::Instant::now();
        until(&format!("everything is in gold after {weather:?}"), async || {
            let events: Vec<Value> = (judged.next..judged.next + BATCH).map(run_event).collect();
            let numbers = judged.next..judged.next + BATCH;
            let answer = client.publish(&events, "?wait=gold").await.unwrap();
            let status = answer.status().as_u16();
            assert!(status < 300, "{status}");
            judged.note_all(numbers.map(|number| (number, Outcome::Acknowledged)).collect());
            (status == 200).then_some(())
        })
        .await;
        eprintln!("{weather:?}: {} requests suffered, drained in {:?}", door.failed() - failed, healed.elapsed());
        let verdict = judged.judge(None).await;
        report.note(name, &verdict, healed.elapsed());
        verdict.assert_clean(&format!("after {weather:?}"));
    }
    karat.stop().await;
    judged.end().await;
    println!("a lake in a bucket; every table then equals its recomputation\n\n{}", report.table());
}
