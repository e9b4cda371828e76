//! Sessions, cookies, profiles, other people and consent, as a client sees them.

use karat_access::ConsentRule;

use super::*;

pub(super) async fn admin(app: &App, name: &str, role: Role) -> Reply {
    let new = NewUser { username: name.to_owned(), email: None, password: PASSWORD.to_owned().into(), role };
    app.access.create_user(new, Actor::Shell, &Origin::default()).await.unwrap();
    app.post("/api/v1/auth/login", json!({"username": name, "password": PASSWORD})).await
}

#[tokio::test]
async fn security_28_sessions_are_listed_and_ended_by_their_owner_only() {
    let app = App::start().await;
    let first = app.register("maria_77").await;
    let second = app.post("/api/v1/auth/login", json!({"username": "maria_77", "password": PASSWORD})).await;
    let stranger = app.register("pedro_12").await;
    let listed = app.call(Method::GET, "/api/v1/auth/sessions", Some(second.access_token()), None).await;
    assert_eq!(listed.body["data"].as_array().unwrap().len(), 2, "{}", listed.body);
    assert_eq!(listed.body["data"][0]["is_current"], true);
    let path = format!("/api/v1/auth/sessions/{}", listed.text("/data/1/id"));
    assert_eq!(app.call(Method::DELETE, &path, Some(stranger.access_token()), None).await.status, 404);
    assert_eq!(app.call(Method::DELETE, &path, Some(second.access_token()), None).await.status, 200);
    assert_eq!(app.me(first.access_token()).await.status, 401);
    assert_eq!(app.me(second.access_token()).await.status, 200);
}

#[tokio::test]
async fn security_30_the_cookie_of_a_browser_needs_its_guard() {
    let app = App::start().await;
    app.register("maria_77").await;
    let body = json!({"username": "maria_77", "password": PASSWORD, "use_cookie": true, "remember_me": true});
    let login = app.post("/api/v1/auth/login", body).await;
    assert!(login.body["data"].get("refresh_token").is_none(), "{}", login.body);
    let cookies: Vec<&str> = login.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    let refresh = cookies.iter().find(|cookie| cookie.starts_with("__Host-karat-refresh=")).unwrap();
    for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Max-Age="] {
        assert!(refresh.contains(part), "{refresh}");
    }
    let cookie = refresh.split(';').next().unwrap();
    let send = async |headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/refresh");
        request = request.header("cookie", cookie).header("host", "karat.example.org");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        app.endpoint.get_response(request.content_type("application/json").body("{}")).await.status().as_u16()
    };
    let guard = login.text("/data/csrf_token");
    assert_eq!(send(&[]).await, 403);
    assert_eq!(send(&[("x-csrf-token", "0")]).await, 403);
    assert_eq!(send(&[("x-csrf-token", guard), ("origin", "https://evil.example.org")]).await, 403);
    assert_eq!(send(&[("x-csrf-token", guard), ("origin", "https://karat.example.org")]).await, 200);
}

#[tokio::test]
async fn security_30_a_refresh_over_http2_has_its_host_in_the_address() {
    let app = App::start().await;
    app.register("maria_77").await;
    let body = json!({"username": "maria_77", "password": PASSWORD, "use_cookie": true});
    let login = app.post("/api/v1/auth/login", body).await;
    let (cookie, guard) = (refresh_cookie(&login.headers), login.text("/data/csrf_token").to_owned());
    let refresh = async |origin: &str| {
        let request = Request::builder().method(Method::POST);
        let request = request.uri_str("https://karat.example.org/api/v1/auth/refresh").header("origin", origin);
        let request = request.header("cookie", cookie.split(';').next().unwrap()).header("x-csrf-token", &guard);
        app.send(request.content_type("application/json").body("{}")).await.status
    };
    for foreign in
        ["https://evil.example.org", "https://sub.karat.example.org", "null", "https://karat.example.org.evil.org"]
    {
        assert_eq!(refresh(foreign).await, 403, "{foreign}");
    }
    assert_eq!(refresh("https://karat.example.org").await, 200);
}

/// The cookie of the refresh token in an answer.
pub(super) fn refresh_cookie(headers: &poem::http::HeaderMap) -> String {
    let mut cookies = headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    cookies.find(|cookie| cookie.starts_with("__Host-karat-refresh=")).unwrap().to_owned()
}

#[tokio::test]
async fn security_30_a_refresh_keeps_the_life_of_the_cookie_that_the_log_in_asked_for() {
    let app = App::start().await;
    app.register("maria_77").await;
    for remember in [None, Some(false), Some(true)] {
        let body = json!({"username": "maria_77", "password": PASSWORD, "use_cookie": true, "remember_me": remember});
        let login = app.post("/api/v1/auth/login", body).await;
        let mut cookie = refresh_cookie(&login.headers);
        let mut guard = login.text("/data/csrf_token").to_owned();
        assert_eq!(cookie.contains("; Max-Age="), remember == Some(true), "{cookie}");
        for _ in 0..2 {
            let request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/refresh");
            let request = request.header("cookie", cookie.split(';').next().unwrap());
            let request = request.header("x-csrf-token", guard.as_str()).content_type("application/json");
            let mut response = app.endpoint.get_response(request.body("{}")).await;
            assert_eq!(response.status().as_u16(), 200);
            cookie = refresh_cookie(response.headers());
            assert_eq!(cookie.contains("; Max-Age="), remember == Some(true), "{cookie}");
            let text = response.take_body().into_string().await.unwrap();
            let body: Value = serde_json::from_str(&text).unwrap();
            guard = body["data"]["csrf_token"].as_str().unwrap().to_owned();
        }
    }
}

#[tokio::test]
async fn security_41_unlinking_asks_for_the_password() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    for path in ["/api/v1/auth/phone/unlink", "/api/v1/auth/oauth/unlink/github"] {
        let unlink = async |body| app.call(Method::DELETE, path, Some(tokens.access_token()), body).await;
        assert_eq!(unlink(None).await.status, 415, "{path}");
        let without = unlink(Some(json!({}))).await;
        assert_eq!((without.status, without.text("/code")), (422, "validation_error"), "{path}");
        let wrong = unlink(Some(json!({"password": "wrong"}))).await;
        assert_eq!((wrong.status, wrong.text("/code")), (401, "invalid_credentials"), "{path}");
        assert_eq!(unlink(Some(json!({"password": PASSWORD}))).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn people_are_managed_by_those_who_may() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let moderator = admin(&app, "mod_1", Role::Moderator).await;
    let user = app.register("maria_77").await;
    let id = user.text("/data/user/id");
    let path = format!("/api/v1/users/{id}");

    assert_eq!(app.call(Method::GET, "/api/v1/users", Some(user.access_token()), None).await.status, 403);
    let found = app.call(Method::GET, "/api/v1/users?search=maria", Some(moderator.access_token()), None).await;
    assert_eq!(found.text("/data/users/0/id"), id);
    let stranger = app.register("pedro_12").await;
    assert_eq!(app.call(Method::GET, &path, Some(stranger.access_token()), None).await.status, 404);
    assert_eq!(app.call(Method::GET, &path, Some(user.access_token()), None).await.status, 200);

    let disable = json!({"is_active": false, "version": 1});
    let disabled = app.call(Method::PUT, &path, Some(moderator.access_token()), Some(disable.clone())).await;
    assert_eq!((disabled.status, &disabled.body["data"]["is_active"]), (200, &json!(false)), "{}", disabled.body);
    let outdated = app.call(Method::PUT, &path, Some(moderator.access_token()), Some(disable)).await;
    assert_eq!((outdated.status, outdated.text("/code")), (409, "outdated_version"));
    assert_eq!(app.me(user.access_token()).await.status, 401);

    let role = format!("/api/v1/admin/users/{id}/role");
    let body = Some(json!({"role": "operator"}));
    assert_eq!(app.call(Method::PUT, &role, Some(moderator.access_token()), body.clone()).await.status, 403);
    assert_eq!(app.call(Method::PUT, &role, Some(root.access_token()), body).await.text("/data/role"), "operator");
    let own = format!("/api/v1/admin/users/{}/role", root.text("/data/user/id"));
    let body = Some(json!({"role": "user"}));
    assert_eq!(app.call(Method::PUT, &own, Some(root.access_token()), body).await.status, 403);

    let audit = app.call(Method::GET, "/api/v1/admin/audit?action=role_set", Some(root.access_token()), None).await;
    assert_eq!(audit.body["data"]["rows"].as_array().unwrap().len(), 2, "{}", audit.body);
    assert_eq!(app.call(Method::GET, "/api/v1/admin/audit", Some(moderator.access_token()), None).await.status, 403);
    assert_eq!(app.call(Method::DELETE, &path, Some(root.access_token()), None).await.status, 200);
    assert_eq!(app.call(Method::GET, &path, Some(root.access_token()), None).await.status, 404);
}

#[tokio::test]
async fn the_own_account_is_changed_at_its_version_and_deleted_with_the_password() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let token = Some(tokens.access_token());
    let change = json!({"nickname": "Mari", "version": tokens.body["data"]["user"]["version"]});
    let changed = app.call(Method::PUT, "/api/v1/users/me", token, Some(change.clone())).await;
    assert_eq!((changed.status, changed.text("/data/nickname")), (200, "Mari"));
    assert_eq!(app.call(Method::PUT, "/api/v1/auth/me", token, Some(change)).await.status, 409);
    for field in ["role", "is_verified", "id", "created_at", "level", "exp"] {
        let body = json!({"version": 2, field: "admin"});
        assert_eq!(app.call(Method::PUT, "/api/v1/users/me", token, Some(body)).await.status, 422, "{field}");
    }
    let path = "/api/v1/users/me";
    assert_eq!(app.call(Method::DELETE, path, token, Some(json!({"password": "wrong"}))).await.status, 401);
    assert_eq!(app.call(Method::DELETE, path, token, Some(json!({"password": PASSWORD}))).await.status, 200);
    assert_eq!(app.me(tokens.access_token()).await.status, 401);
}

#[tokio::test]
async fn a_password_is_judged_without_an_account() {
    let app = App::start().await;
    let judge = async |password: &str| app.post("/api/v1/auth/password-strength", json!({"password": password})).await;
    let weak = judge("password").await;
    assert_eq!((weak.status, &weak.body["data"]["score"]), (200, &json!(0)));
    assert!(!weak.body["data"]["broken_rules"].as_array().unwrap().is_empty());
    assert_eq!(judge("nine-Blue-7-boats-river").await.body["data"]["is_allowed"], true);
}

#[tokio::test]
async fn consent_is_given_read_and_taken_back() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let consent = async |method, body| app.call(method, "/api/v1/consent", Some(tokens.access_token()), body).await;
    assert_eq!(consent(Method::GET, None).await.text("/data/status"), "none");
    assert_eq!(consent(Method::DELETE, None).await.status, 404);
    assert_eq!(consent(Method::POST, Some(json!({"version": "2026-01"}))).await.text("/data/status"), "granted");
    let revoked = consent(Method::DELETE, None).await;
    assert_eq!((revoked.text("/data/status"), revoked.text("/data/history/1/version")), ("revoked", "2026-01"));
    assert_eq!(
        (&revoked.body["data"]["is_required"], revoked.body["data"].get("version_in_force")),
        (&json!(false), None)
    );
    // Older steps than those that there are.
    let before = async |place: &str| {
        let path = format!("/api/v1/consent?before={place}");
        app.call(Method::GET, &path, Some(tokens.access_token()), None).await
    };
    let older = before("1.00000000-0000-7000-8000-000000000000").await;
    assert_eq!((&older.body["data"]["history"], older.body["data"].get("next_before")), (&json!([]), None));
    for other in ["x", "1", "1.x"] {
        assert_eq!(before(other).await.refusal(), (422, "validation_error"), "{other}");
    }
}

#[tokio::test]
async fn consent_names_the_version_in_force_and_whether_it_is_required() {
    let consent = ConsentRule::new(true, Some("2026-11")).unwrap();
    let strict = |accounts: AccessSettings| AccessSettings { consent, ..accounts };
    let app = App::start_on(AuthSettings::without_limits(), strict).await;
    let tokens = app.register("maria_77").await;
    let body = json!({"version": "2026-10", "source": "web"});
    let given = app.call(Method::POST, "/api/v1/consent", Some(tokens.access_token()), Some(body)).await;
    assert_eq!((given.text("/data/version"), given.text("/data/version_in_force")), ("2026-10", "2026-11"));
    assert_eq!((&given.body["data"]["is_required"], given.text("/data/history/0/source")), (&json!(true), "web"));
}

async fn set_picture(app: &App, token: &str) {
    let reply = avatars::send(app, token, Method::POST, "image/png", avatars::png()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test]
async fn security_60_the_picture_of_a_deleted_account_is_gone() {
    let pictures = tempfile::tempdir().unwrap();
    let avatars = Some(avatars::at(pictures.path().to_str().unwrap()).await);
    let app = App::start_with(AuthSettings { avatars, ..AuthSettings::without_limits() }).await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let (maria, pedro) = (app.register("maria_77").await, app.register("pedro_12").await);
    for user in [&maria, &pedro] {
        set_picture(&app, user.access_token()).await;
    }
    let count = || std::fs::read_dir(pictures.path()).unwrap().count();
    assert_eq!(count(), 2);
    let body = Some(json!({"password": PASSWORD}));
    let own = app.call(Method::DELETE, "/api/v1/users/me", Some(maria.access_token()), body).await;
    assert_eq!((own.status, count()), (200, 1), "{}", own.body);
    let path = format!("/api/v1/users/{}", pedro.text("/data/user/id"));
    let by_admin = app.call(Method::DELETE, &path, Some(root.access_token()), None).await;
    assert_eq!((by_admin.status, count()), (200, 0), "{}", by_admin.body);
}

#[tokio::test]
async fn security_60_of_pictures_that_are_set_at_once_one_stays() {
    let pictures = tempfile::tempdir().unwrap();
    let avatars = Some(avatars::at(pictures.path().to_str().unwrap()).await);
    let app = App::start_with(AuthSettings { avatars, ..AuthSettings::without_limits() }).await;
    let tokens = app.register("maria_77").await;
    futures::future::join_all((0..8).map(|_| set_picture(&app, tokens.access_token()))).await;
    let kept: Vec<_> = std::fs::read_dir(pictures.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let me = app.me(tokens.access_token()).await;
    let named = me.text("/data/avatar_url").rsplit('/').next().unwrap().to_owned();
    assert_eq!(kept, [std::ffi::OsString::from(named)]);
}

#[tokio::test]
async fn security_80_methods_that_no_route_has_are_refused() {
    let app = App::start().await;
    for method in [Method::TRACE, Method::CONNECT, Method::from_bytes(b"BREW").unwrap()] {
        let reply = app.call(method.clone(), "/api/v1/auth/login", None, None).await;
        assert_eq!((reply.status, reply.text("/code")), (405, "method_not_allowed"), "{method}");
    }
}
