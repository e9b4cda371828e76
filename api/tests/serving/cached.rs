//! What is answered from memory belongs to one caller, one role and one question.

use serde_json::json;

use crate::support::{Run, TestApp, run};

const SUMMARY: &str = "/api/v1/summary?from=2026-01-01&to=2026-01-31";

fn of(user: &str, id: &str) -> Run {
    Run { user: Some(user.to_owned()), ..run(id, "s", "j", "2026-01-05T10:00:00Z") }
}

#[tokio::test]
async fn security_79_a_cached_answer_is_of_its_caller_role_and_question_and_errors_are_not_cached() {
    let app = TestApp::start().await;
    let (user, role) = (app.user_id.clone(), format!("/api/v1/admin/users/{}/role", app.user_id));
    app.publish(&[of(&user, "mine"), of("somebody", "theirs"), of("somebody", "theirs too")], 3).await;
    let own = app.get_as_user(SUMMARY).await;
    assert_eq!(own.at("/data/totals/runs"), 1);
    assert_eq!(app.get(SUMMARY).await.at("/data/totals/runs"), 3);
    assert_eq!(app.get_as_user(SUMMARY).await.text, own.text, "from memory, and the same as before");
    assert_eq!(app.get_as_user(&format!("{SUMMARY}&source=other")).await.at("/data/totals/runs"), 0);

    // Another role sees other rows at once, with the same token.
    for (name, runs) in [("moderator", 3), ("user", 1)] {
        let token = format!("Bearer {}", app.admin);
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let given = app.send("PUT", &role, &headers, &json!({"role": name}).to_string()).await;
        assert_eq!(given.status, 200, "{}", given.text);
        assert_eq!(app.get_as_user(SUMMARY).await.at("/data/totals/runs"), runs, "{name}");
    }

    // What was refused or not there is asked for anew, and nobody on the way keeps it.
    for (path, status) in [("/summary?from=never", 422), ("/runs/later", 404), ("/nowhere", 404)] {
        for _ in 0..2 {
            let reply = app.get(&format!("/api/v1{path}")).await;
            assert_eq!((reply.status, reply.headers["cache-control"].as_str()), (status, "no-store"), "{path}");
            assert!(!reply.headers.contains_key("etag"), "{path}");
        }
    }
    app.publish(&[of(&user, "later")], 4).await;
    assert_eq!(app.get("/api/v1/runs/later").await.status, 200);
    for path in [
        "/auth/me",
        "/users/me",
        "/users/me/export",
        "/auth/sessions",
        "/api-keys",
        "/auth/oauth/identities",
        "/consent",
        "/user-settings",
    ] {
        let reply = app.get_as_user(&format!("/api/v1{path}")).await;
        assert_eq!(
            (reply.status, reply.headers["cache-control"].as_str()),
            (200, "no-store"),
            "{path}: {}",
            reply.text
        );
    }
}
