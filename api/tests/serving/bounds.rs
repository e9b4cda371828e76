//! What one question may cost, and which pages belong to it.

use serde_json::Value;

use crate::support::{Run, TestApp, run};

const SUMMARY: &str = "/api/v1/summary?from=2026-01-01&to=2026-01-31&group_by=job";
const RANGE: &str = "from=2026-01-01&to=2026-01-31";

async fn with_runs() -> TestApp {
    let app = TestApp::start().await;
    let user = Some(app.user_id.clone());
    let of = |n: usize| Run {
        user: user.clone(),
        ..run(&format!("run {n}"), "s", &format!("job {n}"), "2026-01-05T10:00:00Z")
    };
    app.publish(&(0..5).map(of).collect::<Vec<_>>(), 5).await;
    app
}

#[tokio::test]
async fn security_64_pages_are_bounded_and_a_cursor_is_ours_and_of_its_caller_and_question() {
    let app = with_runs().await;
    let pages = [SUMMARY, "/api/v1/runs?source=s", "/api/v1/jobs?source=s"];
    for path in pages.iter().chain(&["/api/v1/jobs/s/j/runs?status=failed", "/api/v1/summary/weekly?tz=UTC"]) {
        for limit in ["0", "-1", "10001", "1e3", "99999999999999999999"] {
            let refused = app.get(&format!("{path}&limit={limit}")).await;
            assert_eq!(refused.status, 422, "{path} {limit}: {}", refused.text);
            assert!(refused.text_at("/details/0").starts_with("`limit`: expected a whole number"), "{}", refused.text);
        }
        assert_eq!(app.get(&format!("{path}&limit=10000")).await.status, 200);
        let too_long = app.get(&format!("{path}&cursor={}", "A".repeat(12_289))).await;
        assert_eq!((too_long.status, too_long.text_at("/code")), (400, "cursor_too_long"), "{}", too_long.text);
        let forged = app.get(&format!("{path}&cursor={}", "A".repeat(12_288))).await;
        assert_eq!((forged.status, forged.text_at("/code")), (422, "validation_error"), "{}", forged.text);
    }
    let mut cursors = Vec::new();
    for path in pages {
        let first = app.get(&format!("{path}&limit=2")).await;
        cursors.push(first.text_at("/data/next_cursor").to_owned());
    }
    for (at, path) in pages.iter().enumerate() {
        for (of, cursor) in cursors.iter().enumerate() {
            let next = app.get(&format!("{path}&limit=2&cursor={cursor}")).await;
            assert_eq!(next.status, if at == of { 200 } else { 422 }, "{path} {of}: {}", next.text);
        }
        // The user has the same rows, and other pages all the same.
        let others = app.get_as_user(&format!("{path}&limit=2&cursor={}", cursors[at])).await;
        assert_eq!(others.status, 422, "{path}: {}", others.text);
        let question = app.get(&format!("{}&limit=2&cursor={}", path.replace('=', "=x"), cursors[at])).await;
        assert_eq!(question.status, 422, "{path}: {}", question.text);
    }
}

#[tokio::test]
async fn a_page_may_end_at_names_that_are_longer_than_a_parameter_may_be() {
    let app = TestApp::start().await;
    let long = "n".repeat(4000);
    let of = |n: usize| run(&format!("{n} {long}"), &long, "job", "2026-01-05T10:00:00Z");
    app.publish(&(0..3).map(of).collect::<Vec<_>>(), 3).await;
    let first = app.get("/api/v1/runs?limit=2").await;
    let cursor = first.text_at("/data/next_cursor");
    assert!(cursor.len() > 8000, "{}", cursor.len());
    let next = app.get(&format!("/api/v1/runs?limit=2&cursor={cursor}")).await;
    assert_eq!((next.status, next.at("/data/next_cursor")), (200, &Value::Null), "{}", next.text);
    assert_eq!(next.at("/data/runs").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn security_64_questions_together_take_a_bounded_memory() {
    let app = TestApp::start_with(|settings| settings.serving.query_memory_bytes = 1000).await;
    app.publish(&[Run { user: Some(app.user_id.clone()), ..run("r", "s", "j", "2026-01-05T10:00:00Z") }], 1).await;
    for _ in 0..2 {
        let refused = app.get_as_user(SUMMARY).await;
        assert_eq!((refused.status, refused.text_at("/code")), (503, "query_memory"), "{}", refused.text);
        assert_eq!(refused.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn one_question_in_other_words_is_one_answer() {
    let app = with_runs().await;
    let first = app.get(&format!("/api/v1/summary?{RANGE}")).await;
    for path in [
        "/api/v1/summary?to=2026-01-31&from=2026-01-01".to_owned(),
        format!("/api/v1/summary?{RANGE}&limit=1000&tz=UTC&group_by=none&fill=false&grain=day"),
        format!("/api/summary?{RANGE}&"),
    ] {
        let same = app.get(&path).await;
        assert_eq!((&same.headers["etag"], &same.text), (&first.headers["etag"], &first.text), "{path}");
    }
    for more in ["limit=999", "tz=Europe/Berlin", "group_by=job", "fill=true", "grain=hour", "source=s", "job=s"] {
        let other = app.get(&format!("/api/v1/summary?{RANGE}&{more}")).await;
        assert_ne!(other.headers["etag"], first.headers["etag"], "{more}");
    }
}

#[tokio::test]
async fn a_client_that_has_the_answer_gets_its_headers_alone_and_a_star_asks_whether_there_is_one() {
    let app = with_runs().await;
    let weekly = format!("/api/v1/summary/weekly?{RANGE}");
    // Those with ages are another answer every ten seconds.
    for path in [SUMMARY, weekly.as_str(), "/api/v1/runs", "/api/v1/runs/run%201"] {
        let full = app.get(path).await;
        let tag = &full.headers["etag"];
        for sent in [tag.clone(), format!("W/{tag}"), format!("\"x\",  W/\"y\", {tag}"), "*".to_owned()] {
            let known = app.get_as(&app.admin, path, &[("if-none-match", &sent)]).await;
            assert_eq!((known.status, known.text.as_str()), (304, ""), "{path} {sent}");
            for name in ["etag", "last-modified", "karat-as-of", "cache-control", "vary"] {
                assert_eq!(known.headers[name], full.headers[name], "{path} {sent} {name}");
            }
        }
        assert_eq!(full.headers["cache-control"], "private, no-cache");
    }
    let any = [("if-none-match", "*")];
    assert_eq!(app.get_as(&app.admin, "/api/v1/runs/run%201", &any).await.status, 304);
    assert_eq!(app.get_as(&app.admin, "/api/v1/runs/nobody", &any).await.status, 404);
}
