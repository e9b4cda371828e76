//! `GET /runs`, one run, and the runs of a job.

use serde_json::{Value, json};

use crate::support::{Run, TestApp, run};

fn runs() -> Vec<Run> {
    let mut runs: Vec<Run> = (0..9).map(|n| run(&format!("r{n}"), "a/b c", "load", "2026-01-05T10:00:00Z")).collect();
    runs.push(run("old", "crm", "load", "2026-01-01T00:00:00Z"));
    runs.push(Run { parent: Some("old".into()), ..run("child", "crm", "step", "2026-01-01T00:00:10Z") });
    runs.push(Run {
        status: "failed".into(),
        error: Some("no space".into()),
        ..run("new", "crm", "load", "2026-01-06T00:00:00Z")
    });
    // Two sources may use one id.
    runs.push(run("r0", "crm", "load", "2026-01-05T10:00:00Z"));
    runs
}

async fn ids(app: &TestApp, path: &str) -> Vec<Value> {
    let reply = app.get(&format!("/api/v1{path}")).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    reply.column("/data/runs", "run_id")
}

#[tokio::test]
async fn runs_come_newest_first_and_filters_are_values() {
    let app = TestApp::start().await;
    app.publish(&runs(), 1).await;
    let all = ids(&app, "/runs").await;
    assert_eq!(all.len(), 13);
    assert_eq!((&all[0], &all[11], &all[12]), (&json!("new"), &json!("child"), &json!("old")));
    assert_eq!(ids(&app, "/runs?status=failed").await, ["new"]);
    assert_eq!(ids(&app, "/runs?source=crm&parent=none").await, ["new", "r0", "old"]);
    assert_eq!(ids(&app, "/runs?job=step").await, ["child"]);
    assert_eq!(ids(&app, "/runs?from=2026-01-06").await, ["new"]);
    assert_eq!(ids(&app, "/runs?to=2025-12-31&tz=America/New_York").await, ["child", "old"]);
    assert_eq!(ids(&app, "/jobs/a%2Fb%20c/load/runs?limit=2").await, ["r8", "r7"]);
    for odd in ["' OR 1=1 --", "\";", "/*", "%"] {
        let odd: String = odd.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert!(ids(&app, &format!("/runs?source={odd}")).await.is_empty());
        assert!(ids(&app, &format!("/runs?user={odd}")).await.is_empty());
    }
}

#[tokio::test]
async fn pages_of_runs_join_to_the_whole_also_among_equal_times() {
    let app = TestApp::start().await;
    app.publish(&runs(), 1).await;
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("/api/v1/runs?limit=2{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text);
        pages.extend(page.at("/data/runs").as_array().unwrap().clone());
        match page.at("/data/next_cursor") {
            Value::Null => break,
            next => cursor = format!("&cursor={}", next.as_str().unwrap()),
        }
    }
    assert_eq!(&Value::from(pages), app.get("/api/v1/runs").await.at("/data/runs"));
}

#[tokio::test]
async fn one_run_comes_with_its_parent_and_children() {
    let app = TestApp::start().await;
    app.publish(&runs(), 1).await;
    let old = app.get("/api/v1/runs/old").await;
    assert_eq!(old.text_at("/data/children/0/run_id"), "child", "{}", old.text);
    assert_eq!(old.at("/data/parent"), &Value::Null);
    assert_eq!(app.get("/api/v1/runs/child").await.text_at("/data/parent/run_id"), "old");
    let new = app.get("/api/v1/runs/new").await;
    assert_eq!(
        new.at("/data/run"),
        &json!({
            "source": "crm", "run_id": "new", "job": "load", "user_id": null, "status": "failed",
            "started_at": "2026-01-06T00:00:00Z", "finished_at": "2026-01-06T00:01:00Z", "duration_ms": 60_000.0,
            "records_read": 10, "records_written": null, "records_failed": null, "bytes_written": null,
            "error_message": "no space", "parent_run_id": null, "last_event_at": "2026-01-06T00:01:00Z", "events": 1,
        })
    );
    let both = app.get("/api/v1/runs/r0").await;
    assert_eq!((both.status, both.text_at("/code")), (409, "ambiguous_run"));
    assert_eq!(app.get("/api/v1/runs/r0?source=crm").await.text_at("/data/run/source"), "crm");
    assert_eq!(app.get("/api/v1/runs/nobody").await.status, 404);
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_a_fault_and_no_cursor_that_expired() {
    let app = TestApp::start().await;
    app.publish(&runs(), 1).await;
    // From here on the version is open, and its lack of files is found by the scan.
    let rows = "/tables/gold.summary_state/rows";
    assert_eq!(app.get(&format!("/api/v1{rows}?limit=1")).await.status, 200);
    for table in ["silver.runs", "gold.summary_state"] {
        let folder = app.lake.table_url(table).unwrap().to_file_path().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
    for path in ["/runs", "/runs/old", "/runs/export", rows] {
        let reply = app.get(&format!("/api/v1{path}")).await;
        assert_eq!(reply.status, 500, "{path}: {}", reply.text);
    }
}
