//! Two processes with data folders of their own on one accounts database, one folder of keys and one Redis.

use std::time::Duration;

use karat_oracle::Redis;
use reqwest::StatusCode;

use crate::{
    client::Client,
    process::{Folder, PASSWORD},
    wait::until,
};

/// What is left of the caller's quota after one more request.
async fn left(client: &Client) -> u64 {
    let answer = client.request("/api/v1/auth/me").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let limit = answer.headers()["ratelimit"].to_str().unwrap();
    let left = limit.split(';').find_map(|part| part.strip_prefix("r="));
    left.unwrap_or_else(|| panic!("{limit}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_limits_and_hear_of_log_outs() {
    let Some(redis) = Redis::start().await.unwrap() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let folder = Folder::new();
    let database = format!("sqlite:{}", folder.text("accounts.db"));
    let shared = ["--database", &database, "--keys-dir", &folder.text("keys")].map(str::to_owned);
    let shared: Vec<&str> = shared.iter().map(String::as_str).collect();
    let create = ["user", "create", "--username", "ada", "--password-stdin"];
    folder.run_with(&[&create[..], &shared].concat(), &format!("{PASSWORD}\n")).await.ok();

    let url = redis.url();
    let words = [&["up", "--listen", "127.0.0.1:0", "--without-pipelines", "--redis", &url][..], &shared].concat();
    let [mut one, mut two] = ["one", "two"].map(|name| folder.start_in(&folder.text(name), name, &words, &[]));
    let (first, second) = (one.url().await, two.url().await);
    let at_first = Client::log_in(&first, "ada", PASSWORD).await;
    // The token of the one is as good at the other.
    let at_second = Client::new(&second, at_first.credential());

    // One request more at the one than at the other in each turn: processes that count alone drift apart.
    until("the limits are shared", async || {
        left(&at_first).await;
        let before = left(&at_first).await;
        let is_shared = left(&at_second).await + 1 == before;
        if !is_shared {
            // A machine that is slow to reach Redis must not use up the quota of the hour meanwhile.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        is_shared.then_some(())
    })
    .await;

    let answer = at_second.post("/api/v1/auth/logout").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    for (client, place) in [(&at_second, "where it was asked for"), (&at_first, "in the other process")] {
        until(&format!("the log-out holds {place}"), async || {
            let answer = client.request("/api/v1/auth/me").send().await.unwrap();
            (answer.status() == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
    }
    for karat in [one, two] {
        karat.stop().await;
    }
}
