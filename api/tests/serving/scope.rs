//! Who sees which rows (decision 32).

use std::collections::HashMap;

use karat_access::Role;

use crate::support::{Run, TestApp, run};

fn runs(user: &str) -> Vec<Run> {
    let of = |run: Run, user: &str| Run { user: Some(user.to_owned()), ..run };
    vec![
        of(run("mine", "own", "load", "2026-01-05T10:00:00Z"), user),
        of(Run { error: Some("secret".into()), ..run("theirs", "other", "load", "2026-01-05T10:00:00Z") }, "somebody"),
        of(run("shared 1", "shared", "load", "2026-01-05T10:00:00Z"), user),
        of(
            Run { error: Some("secret".into()), ..run("shared 2", "shared", "load", "2026-01-05T11:00:00Z") },
            "somebody",
        ),
        run("nobodys", "nobodys", "load", "2026-01-05T10:00:00Z"),
    ]
}

#[tokio::test]
async fn a_user_sees_own_rows_only_on_every_route() {
    let app = TestApp::start().await;
    app.publish(&runs(&app.user_id), 5).await;
    let summary = app.get_as_user("/api/v1/summary?from=2026-01-01&to=2026-01-31&group_by=source").await;
    assert_eq!(summary.column("/data/buckets", "source"), ["own", "shared"], "{}", summary.text);
    assert_eq!(summary.column("/data/buckets", "runs"), [1, 1]);
    assert_eq!(summary.at("/data/totals/runs"), 2);
    let found = app.get_as_user("/api/v1/runs").await;
    assert_eq!(found.column("/data/runs", "run_id"), ["shared 1", "mine"]);
    for hidden in ["/runs?source=other", "/runs?user=somebody", "/jobs/other/load/runs"] {
        let reply = app.get_as_user(&format!("/api/v1{hidden}")).await;
        assert_eq!(reply.at("/data/runs"), &serde_json::json!([]), "{hidden}");
    }
    for id in ["theirs", "shared%202", "nobodys"] {
        assert_eq!(app.get_as_user(&format!("/api/v1/runs/{id}")).await.status, 404, "{id}");
    }
    for route in ["/jobs", "/sync-status"] {
        let reply = app.get_as_user(&format!("/api/v1{route}")).await;
        assert_eq!(reply.column("/data/jobs", "source"), ["own", "shared"], "{route}");
        assert_eq!(reply.column("/data/jobs", "last_run_id"), [serde_json::json!("mine"), serde_json::Value::Null]);
        assert!(!reply.text.contains("secret"), "{}", reply.text);
    }
    assert_eq!(app.get("/api/v1/runs").await.at("/data/runs").as_array().unwrap().len(), 5);
    assert_eq!(app.get("/api/v1/jobs").await.column("/data/jobs", "runs"), [1, 1, 1, 2]);
}

#[tokio::test]
async fn a_source_that_is_granted_to_the_role_is_seen_whole() {
    let granted = HashMap::from([(Role::User, vec!["shared".to_owned()])]);
    let app = TestApp::start_with(|settings| settings.serving.granted_sources = granted).await;
    app.publish(&runs(&app.user_id), 5).await;
    let found = app.get_as_user("/api/v1/runs").await;
    assert_eq!(found.column("/data/runs", "run_id"), ["shared 2", "shared 1", "mine"]);
    let summary = app.get_as_user("/api/v1/summary?from=2026-01-01&to=2026-01-31").await;
    assert_eq!(summary.at("/data/totals/runs"), 3);
    let jobs = app.get_as_user("/api/v1/jobs").await;
    assert_eq!(jobs.column("/data/jobs", "last_run_id"), ["mine", "shared 2"]);
}
