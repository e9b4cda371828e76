//! Consent at the doors of two processes with data folders of their own on one accounts database.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    client::{Client, run_event},
    process::{Folder, PASSWORD},
    wait::until,
};

/// What publishing comes to: 202, or the code of the refusal.
async fn publish(client: &Client) -> String {
    let answer = client.publish(&[run_event(1)], "").await.unwrap();
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    match status {
        StatusCode::ACCEPTED => "taken".to_owned(),
        StatusCode::FORBIDDEN => body["code"].as_str().unwrap().to_owned(),
        _ => panic!("{status} {body}"),
    }
}

async fn agree(client: &Client, version: &str) {
    let answer = client.post("/api/v1/consent").json(&json!({"version": version})).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn security_84_a_consent_and_its_withdrawal_hold_at_once_in_one_process_and_soon_in_the_other() {
    let folder = Folder::new();
    let database = format!("sqlite:{}", folder.text("accounts.db"));
    let keys = folder.text("keys");
    let shared = ["--database", &database, "--keys-dir", &keys];
    let create = ["user", "create", "--username", "ada", "--password-stdin"];
    folder.run_with(&[&create[..], &shared].concat(), &format!("{PASSWORD}\n")).await.ok();
    let create = ["key", "create", "--owner", "ada", "--scope", "publish:*"];
    let key = folder.run(&[&create[..], &shared].concat()).await.ok();

    let words = ["up", "--listen", "127.0.0.1:0", "--without-pipelines", "--without-limits", "--consent", "required"];
    let said = folder.run(&[&words[..], &shared].concat()).await;
    assert!(said.code == 78 && said.err.contains("access.consent_version"), "{said:?}");

    let words = [&words[..], &["--consent-version", "2026-11"], &shared].concat();
    let [mut one, mut two] = ["one", "two"].map(|name| folder.start_in(&folder.text(name), name, &words, &[]));
    let (first, second) = (one.url().await, two.url().await);
    let person = Client::log_in(&first, "ada", PASSWORD).await;
    let here = [person.clone(), Client::new(&first, &key)];
    let elsewhere = [Client::new(&second, person.credential()), Client::new(&second, &key)];
    for client in here.iter().chain(&elsewhere) {
        assert_eq!(publish(client).await, "consent_needed");
    }
    agree(&person, "2026-10").await;
    for client in here.iter().chain(&elsewhere) {
        assert_eq!(publish(client).await, "consent_needed", "an older version does not count");
    }

    let holds = async |expected: &str| {
        for client in &here {
            assert_eq!(publish(client).await, expected, "where it was said");
        }
        for client in &elsewhere {
            until(&format!("events are `{expected}` in the other process"), async || {
                (publish(client).await == expected).then_some(())
            })
            .await;
        }
    };
    agree(&person, "2026-11").await;
    holds("taken").await;
    let consent = person.data("/api/v1/consent").await;
    assert_eq!((&consent["version_in_force"], &consent["is_required"]), (&json!("2026-11"), &json!(true)));
    let answer = person.call(Method::DELETE, "/api/v1/consent").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    holds("consent_needed").await;
    for karat in [one, two] {
        karat.stop().await;
    }
}
