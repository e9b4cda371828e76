//! Envelope, errors, health, the reference pages.

use crate::support::{Reply, TestApp};

const ROUTES: [&str; 10] = [
    "/summary",
    "/summary/weekly",
    "/summary/monthly",
    "/sync-status",
    "/runs",
    "/jobs",
    "/jobs/a/b/runs",
    "/user-vitals",
    "/tables",
    "/profits",
];

fn assert_error(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{}", reply.text);
    assert_eq!(reply.text_at("/code"), code, "{}", reply.text);
    assert_eq!(reply.text_at("/status"), "error");
    assert_eq!(reply.text_at("/request_id"), reply.headers["x-request-id"]);
    for field in ["/error", "/message", "/timestamp"] {
        assert!(!reply.text_at(field).is_empty());
    }
    assert!(reply.at("/details").is_array());
}

#[tokio::test]
async fn an_empty_lake_answers_every_route_with_nothing_yet() {
    let app = TestApp::start().await;
    for prefix in ["/api/v1", "/api"] {
        for route in ROUTES {
            let reply = app.get(&format!("{prefix}{route}")).await;
            assert_eq!(reply.status, 200, "{route}: {}", reply.text);
            assert_eq!(reply.text_at("/status"), "success");
            assert_eq!(reply.text_at("/data/data_state"), "complete");
            assert_eq!((reply.at("/data/epoch"), reply.at("/data/as_of")), (&0.into(), &serde_json::Value::Null));
        }
    }
    assert_error(&app.get("/api/v1/runs/none").await, 404, "not_found");
}

#[tokio::test]
async fn every_data_route_needs_a_log_in() {
    let app = TestApp::start().await;
    let others = ["/runs/x", "/runs/export", "/summary/export", "/tables/x", "/tables/x/rows"];
    let live = ["/charts/line", "/chat", "/events/stream"];
    for route in ROUTES.iter().chain(&others).chain(&live) {
        assert_error(&app.send("GET", &format!("/api/v1{route}"), &[], "").await, 401, "unauthenticated");
        let wrong = app.get_as("wrong", &format!("/api/v1{route}"), &[]).await;
        assert_error(&wrong, 401, "invalid_token");
    }
}

#[tokio::test]
async fn wrong_parameters_are_named_with_what_was_expected_and_found() {
    let app = TestApp::start().await;
    // Query, words that a line of `details` has.
    let cases = [
        ("/summary?form=2026-01-01", "`form`: expected one of `from`, `to`"),
        ("/summary?from=2026-02-30", "`from`: expected a date like `2026-01-31` from 1970 to 2199, found `2026-02-30`"),
        ("/summary?from=2026-02-02&to=2026-02-01", "`to`: expected a date not before `from`"),
        ("/summary?tz=Europe/Atlantis", "`tz`: expected an IANA time zone"),
        ("/summary?group_by=user", "`group_by`: expected one of `source`, `job`, `none`, found `user`"),
        ("/summary?limit=10001", "`limit`: expected a whole number from 1 to 10000, found `10001`"),
        ("/summary?limit=ten", "found `ten`"),
        ("/summary?fill=1", "`fill`: expected one of `true`, `false`"),
        ("/summary?parent=some", "`parent`: expected `none`"),
        ("/summary?week_start=sunday", "`week_start`: expected one of"),
        ("/summary/weekly?week_start=friday", "`week_start`: expected one of `monday`, `sunday`"),
        ("/summary?cursor=abc", "`cursor`: expected the `next_cursor` of a page"),
        ("/summary?from=2026-01-01&from=2026-01-02", "`from`: expected it once"),
        ("/runs?status=done", "`status`: expected one of `completed`"),
        ("/runs?limit=0", "`limit`"),
        ("/runs?cursor=e30", "`cursor`"),
        ("/jobs?limit=-1", "`limit`"),
        ("/sync-status?tz=UTC", "`tz`: expected one of `source`, `job`, found an unknown parameter"),
        ("/user-vitals?tz=UTC", "`tz`: expected one of `user_id`, found an unknown parameter"),
        (
            "/profits?source=x",
            "`source`: expected one of `company`, `year`, `page`, `size`, found an unknown parameter",
        ),
        ("/profits?size=1001", "`size`: expected a whole number from 1 to 1000, found `1001`"),
        ("/profits?page=0", "`page`: expected a whole number from 1 to 1000000, found `0`"),
        ("/profits?year=2026.5", "`year`: expected a whole number from 1 to 9999, found `2026.5`"),
        ("/user-vitals?user_id=", "`user_id`: expected the id of a user, found an empty value"),
    ];
    for (query, words) in cases {
        let reply = app.get(&format!("/api/v1{query}")).await;
        assert_error(&reply, 422, "validation_error");
        assert!(reply.text_at("/details/0").contains(words), "{query}: {}", reply.text);
    }
    let all = app.get("/api/v1/summary?from=x&to=y&tz=z&limit=0&nope=1").await;
    assert_eq!(all.at("/details").as_array().unwrap().len(), 5, "{}", all.text);
}

#[tokio::test]
async fn security_67_framework_errors_have_the_envelope_and_problem_json_when_asked_for() {
    let app = TestApp::start().await;
    assert_error(&app.get("/api/v1/nothing").await, 404, "not_found");
    // Beside, above and below the prefixes is nothing either.
    for path in ["/nothing", "/summary", "/api", "/api/", "/api/v1", "/api/v1/", "/api/v2/summary", "/apis/summary"] {
        assert_error(&app.get(path).await, 404, "not_found");
    }
    assert_error(&app.send("DELETE", "/api/v1/summary", &[], "").await, 405, "method_not_allowed");
    for (method, path, allowed) in [
        ("DELETE", "/api/v1/summary", "GET, HEAD"),
        ("PUT", "/api/runs/some", "GET, HEAD"),
        ("GET", "/api/v1/query", "POST"),
        ("POST", "/api/v1/api-keys/some", "DELETE"),
        ("GET", "/api/v1/auth/login", "POST"),
        ("POST", "/health", "GET, HEAD"),
    ] {
        let reply = app.send(method, path, &[], "").await;
        assert_error(&reply, 405, "method_not_allowed");
        assert_eq!(reply.headers["allow"], allowed, "{method} {path}");
    }
    let problem = app.get_as(&app.admin, "/api/v1/summary?limit=0", &[("accept", "application/problem+json")]).await;
    assert_eq!(problem.headers["content-type"], "application/problem+json");
    assert_eq!((problem.status, problem.at("/status")), (422, &422.into()));
    assert_eq!(problem.text_at("/type"), "urn:karat:error:validation_error");
}

#[tokio::test]
async fn security_80_paths_outside_the_document_have_no_other_methods() {
    let app = TestApp::start().await;
    for path in ["/docs", "/swagger", "/openapi.json", "/health", "/ready", "/.well-known/jwks.json"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
            let reply = app.send(method, path, &[], "").await;
            assert_error(&reply, 405, "method_not_allowed");
            assert_eq!(reply.headers["allow"], "GET, HEAD", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn health_routes_answer_without_a_log_in() {
    let app = TestApp::start().await;
    app.publish(&[], 0).await;
    for path in ["/health", "/livez", "/ready", "/readyz"] {
        let reply = app.send("GET", path, &[], "").await;
        assert_eq!((reply.status, reply.text_at("/data/status")), (200, "ok"), "{path}: {}", reply.text);
        assert!(reply.at("/data").get("checks").is_none());
    }
    let verbose = app.send("GET", "/readyz?verbose", &[], "").await;
    assert_eq!(verbose.text_at("/data/checks/0/name"), "lake", "{}", verbose.text);
}

#[tokio::test]
async fn the_reference_is_complete_and_closed_where_it_should_be() {
    let app = TestApp::start().await;
    let reply = app.send("GET", "/openapi.json", &[], "").await;
    let paths = reply.at("/paths").as_object().unwrap();
    for route in [
        "/summary",
        "/summary/weekly",
        "/summary/monthly",
        "/sync-status",
        "/runs",
        "/runs/{run_id}",
        "/jobs",
        "/jobs/{source}/{job}/runs",
        "/user-vitals",
        "/profits",
        "/summary/export",
        "/runs/export",
        "/tables",
        "/tables/{table}",
        "/tables/{table}/rows",
    ] {
        let operation = &paths[route]["get"];
        assert!(operation["operationId"].is_string(), "{route}");
        assert!(operation["security"].is_array(), "{route}");
        for status in ["200", "304", "401", "422", "500"] {
            assert!(operation["responses"][status].is_object(), "{route} {status}");
        }
    }
    assert!(reply.text.contains("\"example\""));
    for path in ["/docs", "/swagger"] {
        let page = app.send("GET", path, &[], "").await;
        assert_eq!(page.status, 200);
        assert!(page.headers["content-type"].starts_with("text/html"), "{path}");
        // The framework cannot say it: a mark of ours stands for it until the page is written.
        assert!(page.text.contains("\"additionalProperties\": false"), "{path}");
        assert!(!page.text.contains("no-other-fields"), "{path}");
        assert!(page.text.contains("<head><link rel=\"icon\" href=\"data:,\">"), "{path}");
    }
    let reference = app.send("GET", "/docs", &[], "").await;
    let configured = "<script\n      id=\"api-reference\" data-configuration='{\"withDefaultFonts\":false}'";
    assert!(reference.text.contains(configured), "the reference would ask its maker for fonts");
    let closed = TestApp::start_with(|settings| settings.docs_are_public = false).await;
    for path in ["/openapi.json", "/docs", "/swagger"] {
        assert_error(&closed.send("GET", path, &[], "").await, 401, "unauthenticated");
        assert_eq!(closed.get(path).await.status, 200);
    }
}
