//! `GET /sync-status`.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use karat_api::serving::{DeclaredJob, freshness::Objective};
use serde_json::{Value, json};

use crate::support::{Run, TestApp, run};

fn minutes_ago(minutes: i64) -> String {
    (Utc::now() - TimeDelta::minutes(minutes)).to_rfc3339()
}

#[tokio::test]
async fn each_job_has_its_state_and_each_pipeline_its_lag() {
    let declared = ["seen", "never"].map(|job| DeclaredJob {
        source: "declared".to_owned(),
        job: job.to_owned(),
        interval: Some(Duration::from_secs(3600)),
    });
    let app = TestApp::start_with(|settings| settings.serving.declared_jobs = declared.to_vec()).await;
    let mut runs = Vec::new();
    for n in 0..5 {
        runs.push(run(&format!("ok {n}"), "a", "ok", &minutes_ago(10 * n + 1)));
        runs.push(run(&format!("late {n}"), "a", "late", &minutes_ago(10 * n + 60)));
    }
    let failed = run("f", "a", "failing", &minutes_ago(1));
    runs.push(Run { status: "failed".into(), error: Some("no space".into()), ..failed });
    runs.push(Run { status: "running".into(), duration_us: None, ..run("r", "a", "running", &minutes_ago(1)) });
    runs.push(run("d", "declared", "seen", &minutes_ago(300)));
    app.publish(&runs, 7).await;
    app.log_ends_at(10);
    let status = app.get("/api/v1/sync-status").await;
    assert_eq!(status.status, 200, "{}", status.text);
    let found: Vec<_> = status
        .at("/data/jobs")
        .as_array()
        .unwrap()
        .iter()
        .map(|job| (job["job"].as_str().unwrap().to_owned(), job["state"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("failing", "failing"),
        ("late", "late"),
        ("ok", "ok"),
        ("running", "running"),
        ("never", "never_run"),
        ("seen", "late"),
    ];
    assert_eq!(found, expected.map(|(job, state)| (job.to_owned(), state.to_owned())));
    assert_eq!(status.at("/data/jobs/0/consecutive_failures"), 1);
    assert_eq!(status.text_at("/data/jobs/0/last_error"), "no space");
    assert_eq!(status.at("/data/jobs/0/expected_interval_seconds"), &Value::Null);
    let interval = status.at("/data/jobs/2/expected_interval_seconds").as_f64().unwrap();
    assert!((interval - 600.0).abs() < 5.0, "{interval}");
    let pipeline = status.at("/data/pipelines/0");
    assert_eq!((&pipeline["pipeline"], &pipeline["state"]), (&json!("etl_runs"), &json!("running")));
    assert_eq!((&pipeline["lag_records"], &pipeline["epoch"]), (&json!(3), &json!(1)));
    assert!(pipeline["versions"]["gold.sync_status"].is_u64());
    let one = app.get("/api/v1/sync-status?source=a&job=ok").await;
    assert_eq!(one.column("/data/jobs", "job"), ["ok"]);
}

#[tokio::test]
async fn a_table_that_misses_its_freshness_objective_makes_data_late() {
    let objectives = [("gold.daily_summary", 3600), ("gold.sync_status", 60)]
        .map(|(table, seconds)| Objective { table: table.to_owned(), fresh_within: Duration::from_secs(seconds) });
    let app = TestApp::start_with(|settings| settings.serving.objectives = objectives.to_vec()).await;
    let status = app.get("/api/v1/sync-status").await;
    assert_eq!(status.at("/data/pipelines/0/objectives/0/is_fresh"), &Value::Null);
    assert_eq!(status.text_at("/data/data_state"), "complete");

    app.publish(&[run("r", "a", "job", &minutes_ago(10))], 1).await;
    app.log_ends_at(1);
    let status = app.get("/api/v1/sync-status").await;
    let objectives = status.at("/data/pipelines/0/objectives");
    let kept = |at: usize| (&objectives[at]["table"], &objectives[at]["is_fresh"]);
    assert_eq!(kept(0), (&json!("gold.daily_summary"), &json!(true)), "{}", status.text);
    assert_eq!(kept(1), (&json!("gold.sync_status"), &json!(false)), "{}", status.text);
    let age = objectives[1]["age_seconds"].as_i64().unwrap();
    assert!((580..660).contains(&age), "{age}");
    assert_eq!(status.text_at("/data/data_state"), "late");
    assert_eq!(app.get("/api/v1/summary").await.text_at("/data/data_state"), "late");
}
