//! The audit log as the routes fill and answer it.

use karat_access::{AuditFilter, AuditRow};

use super::people::admin;
use super::*;

/// Rows of an action that was refused, oldest first.
async fn denied(app: &App, action: &str) -> Vec<AuditRow> {
    let outcome = Some("denied".to_owned());
    let filter = AuditFilter { action: Some(action.to_owned()), outcome, ..AuditFilter::default() };
    let mut rows = app.access.audit_log(&filter, 100).await.unwrap();
    rows.reverse();
    rows
}

#[tokio::test]
async fn security_81_a_missing_permission_leaves_one_row_a_minute() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let (maria, pedro) = (app.register("maria_77").await, app.register("pedro_12").await);
    let body = json!({"name": "nightly", "scopes": ["read"]});
    let key = app.call(Method::POST, "/api/v1/api-keys", Some(maria.access_token()), Some(body)).await;
    let ask = async |credential: &str, path: &str| {
        let request = Request::builder().uri_str(path).header("authorization", format!("Bearer {credential}"));
        let request = request.header("user-agent", "a browser").header("x-request-id", "a-request");
        assert_eq!(app.send(request.finish()).await.status, 403, "{path}");
    };
    for _ in 0..20 {
        ask(maria.access_token(), "/api/v1/users").await;
    }
    ask(maria.access_token(), "/api/v1/admin/audit").await;
    ask(pedro.access_token(), "/api/v1/users").await;
    ask(key.text("/data/key"), "/api/v1/auth/me").await;

    let id = |reply: &Reply| reply.text("/data/user/id").to_owned();
    let rows = denied(&app, "access_denied").await;
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            let permission = row.details.as_ref().unwrap()["permission"].as_str().unwrap();
            (row.actor_kind.as_str(), row.target_id.unwrap().to_string(), permission)
        })
        .collect();
    let expected = [
        ("user", id(&maria), "read_users"),
        ("user", id(&maria), "read_audit"),
        ("user", id(&pedro), "read_users"),
        ("api_key", id(&maria), "manage_own_account"),
    ];
    assert_eq!(found, expected);
    for row in &rows {
        let from = (row.user_agent.as_deref(), row.request_id.as_deref());
        assert_eq!(from, (Some("a browser"), Some("a-request")), "{row:?}");
    }

    // Where a permission is not all that is asked for, the row of the action is the one.
    let path = format!("/api/v1/admin/users/{}/role", id(&root));
    let body = Some(json!({"role": "user"}));
    assert_eq!(app.call(Method::PUT, &path, Some(root.access_token()), body).await.status, 403);
    assert_eq!((denied(&app, "role_set").await.len(), denied(&app, "access_denied").await.len()), (1, rows.len()));
}

#[tokio::test]
async fn security_81_what_is_refused_before_the_accounts_are_asked_leaves_a_row() {
    let app = App::start().await;
    for query in ["error=access_denied", "code=x&state=y", ""] {
        let path = format!("/api/v1/auth/oauth/github/callback?{query}");
        assert_eq!(app.call(Method::GET, &path, None, None).await.status, 401, "{query}");
    }
    assert_eq!(denied(&app, "oauth_login").await.len(), 1, "one a minute");
    let request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/refresh");
    let request = request.header("cookie", "__Host-karat-refresh=0123").content_type("application/json");
    let reply = app.send(request.body("{}")).await;
    assert_eq!((reply.status, reply.text("/code")), (403, "csrf"));
    assert_eq!(denied(&app, "refresh").await.len(), 1);
}

#[tokio::test]
async fn security_81_a_credential_that_does_not_hold_leaves_one_row_and_none_at_all_leaves_none() {
    let app = App::start().await;
    let ask = async |credential: Option<&str>| app.call(Method::GET, "/api/v1/auth/me", credential, None).await.status;
    assert_eq!(ask(None).await, 401);
    assert_eq!(denied(&app, "credential_refused").await.len(), 0);
    for credential in ["eyJhbGciOiJub25lIn0.e30.", "kk_00_00", "x"] {
        for _ in 0..5 {
            assert_eq!(ask(Some(credential)).await, 401, "{credential}");
        }
    }
    let maria = app.register("maria_77").await;
    assert_eq!(app.call(Method::POST, "/api/v1/auth/logout", Some(maria.access_token()), None).await.status, 200);
    assert_eq!(ask(Some(maria.access_token())).await, 401);
    let rows = denied(&app, "credential_refused").await;
    let reasons: Vec<_> = rows.iter().map(|row| row.details.as_ref().unwrap()["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["invalid", "revoked"]);
    assert!(rows.iter().all(|row| row.actor_kind == "anonymous" && row.request_id.is_some()), "{rows:?}");
}

#[tokio::test]
async fn security_59_and_81_a_key_of_some_routes_is_refused_on_the_others_with_one_row() {
    let app = App::start().await;
    let maria = app.register("maria_77").await;
    let body = json!({"name": "nightly", "scopes": ["read", "route:/api-keys"], "events_per_second": 7});
    let made = app.call(Method::POST, "/api/v1/api-keys", Some(maria.access_token()), Some(body)).await;
    assert_eq!((made.status, &made.body["data"]["details"]["events_per_second"]), (201, &json!(7)), "{}", made.body);
    let key = Some(made.text("/data/key"));
    for _ in 0..5 {
        for path in ["/api/v1/auth/me", "/api/v1/auth/sessions"] {
            let refused = app.call(Method::GET, path, key, None).await;
            assert_eq!((refused.status, refused.text("/code")), (403, "forbidden"), "{path}");
            assert!(refused.text("/message").contains("scopes"), "{}", refused.body);
        }
    }
    let rows = denied(&app, "access_denied").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&*rows[0].actor_kind, &rows[0].details.as_ref().unwrap()["reason"]),
        ("api_key", &json!("route_scope"))
    );
    // Where a route of it leads, its rights decide, which no route adds to.
    let refused = app.call(Method::GET, "/api/v1/api-keys", key, None).await;
    assert!(refused.status == 403 && refused.text("/message").contains("manage_own_keys"), "{}", refused.body);
}

#[tokio::test]
async fn the_audit_log_is_read_between_two_times() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    app.register("maria_77").await;
    let read = async |query: &str| {
        let path = format!("/api/v1/admin/audit?{query}");
        app.call(Method::GET, &path, Some(root.access_token()), None).await
    };
    let count = |reply: &Reply| reply.body["data"]["rows"].as_array().map(Vec::len);
    let all = count(&read("").await);
    assert!(all > Some(2), "{all:?}");
    for (query, expected) in [
        ("from=2000-01-01T00:00:00Z", all),
        ("to=2190-01-01T00:00:00.5%2B02:00", all),
        ("from=2000-01-01T00:00:00Z&to=2190-01-01T00:00:00Z", all),
        ("from=2190-01-01T00:00:00Z", Some(0)),
        ("to=2000-01-01T00:00:00Z", Some(0)),
    ] {
        let reply = read(query).await;
        assert_eq!((reply.status, count(&reply)), (200, expected), "{query}: {}", reply.body);
    }
    for query in [
        "from=yesterday",
        "to=2026-01-31",
        "from=2026-01-31T10:00:00",
        "from=2026-01-31T10:00:00+02:00",
        "from=2026-01-31T10:00:00Z&to=2026-01-31T09:00:00Z",
    ] {
        let reply = read(query).await;
        assert_eq!((reply.status, reply.text("/code")), (422, "validation_error"), "{query}");
    }
}
