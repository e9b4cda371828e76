//! The accounts database as its operators see it: `karat migrate`, `karat doctor`, and a log that is only read.

use std::fs;

use karat_oracle::databases::{of_an_earlier_version, tamper};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    client::Client,
    process::{Folder, PASSWORD},
};

/// The migrations of the first version.
const FIRST: [(&str, &str); 1] = [("accounts", include_str!("../../access/migrations/sqlite/0001_accounts.sql"))];

#[tokio::test(flavor = "multi_thread")]
async fn security_82_doctor_names_the_row_and_exits_1() {
    for (sql, what) in [
        (
            "DROP TRIGGER audit_log_is_never_updated; UPDATE audit_log SET outcome = 'denied' WHERE seq = 2",
            "row 2 is not what was written",
        ),
        ("DROP TRIGGER audit_log_is_never_deleted; DELETE FROM audit_log WHERE seq = 2", "row 2 is missing"),
        (
            "DROP TRIGGER audit_log_is_never_deleted; DELETE FROM audit_log WHERE seq = 3",
            "the last row should be 3, found 2",
        ),
    ] {
        let folder = Folder::new();
        // Three rows: the account, its key, its role.
        folder.account("ada", "user").await;
        folder.run(&["user", "set-role", "ada", "moderator"]).await.ok();
        let words = ["doctor", "--format", "json"];
        let whole = folder.run(&words).await.json();
        assert_eq!((&whole["audit_log"]["rows"], &whole["audit_log"]["broken"]), (&json!(3), &Value::Null), "{whole}");

        tamper(&folder.path("data/accounts.db"), sql).await.unwrap();
        let said = folder.run(&["doctor"]).await;
        assert_eq!(said.code, 1, "{sql}: {said:?}");
        assert!(said.err.contains(what) && said.out.contains("audit log: "), "{sql}: {said:?}");
        let said = folder.run(&words).await;
        let report: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((said.code, &report["audit_log"]["broken"]), (1, &json!(what)), "{sql}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_82_the_audit_log_is_read_over_http_and_nothing_else() {
    let folder = Folder::new();
    folder.account("ada", "admin").await;
    let mut karat = folder.start("karat", &["up", "--listen", "127.0.0.1:0", "--without-pipelines"]);
    let ada = Client::log_in(&karat.url().await, "ada", PASSWORD).await;
    let path = "/api/v1/admin/audit";
    let before = ada.data(path).await;
    let rows = before["rows"].as_array().unwrap();
    assert!(rows.len() >= 3, "{before}");
    for method in [Method::DELETE, Method::PUT, Method::PATCH, Method::POST] {
        let answer = ada.call(method.clone(), path).json(&rows[0]).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.headers()["allow"], "GET, HEAD", "{method}");
        let one = ada.call(method.clone(), &format!("{path}/{}", rows[0]["seq"])).json(&rows[0]).send().await.unwrap();
        assert_eq!(one.status(), StatusCode::NOT_FOUND, "{method}");
    }
    assert_eq!(ada.data(path).await, before);
    karat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_brings_a_folder_up_to_date() {
    let words = ["migrate", "--format", "json"];
    let new = Folder::new().run(&words).await.json();
    assert!(new["migrations"].as_array().unwrap().len() > FIRST.len(), "{new}");

    let folder = Folder::new();
    let file = folder.path("data/accounts.db");
    fs::create_dir(folder.path("data")).unwrap();
    of_an_earlier_version(&file, &FIRST).await.unwrap();
    let row = "INSERT INTO audit_log (at, actor_kind, action, outcome) VALUES (1, 'shell', 'user_create', 'success')";
    tamper(&file, row).await.unwrap();
    // Again changes nothing.
    for _ in 0..2 {
        let migrated = folder.run(&words).await.json();
        assert_eq!((&migrated["engine"], &migrated["migrations"]), (&json!("SQLite"), &new["migrations"]));
    }
    let said = folder.run(&["migrate"]).await.ok();
    assert!(said.contains("accounts.db: SQLite, schema ") && said.ends_with("up to date"), "{said}");

    // What was there is there, and the tables are those that this version works with.
    folder.account("ada", "user").await;
    let report = folder.run(&["doctor", "--format", "json"]).await.json();
    let log = &report["audit_log"];
    assert_eq!((&log["unchained"], &log["rows"], &log["broken"]), (&json!(1), &json!(2), &Value::Null), "{report}");
}
