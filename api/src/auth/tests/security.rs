//! Attacks on the account routes, by their number in the checklist.

use karat_access::{AuditFilter, ProviderKind, ProviderSettings, derived_guard};

use super::factors::{code, enroll};
use super::outbox::{mailed_token, mails};
use super::people::admin;
use super::*;

/// Routes for whoever is logged in.
const OWN: [&str; 7] = [
    "/api/v1/auth/me",
    "/api/v1/users/me",
    "/api/v1/users/me/export",
    "/api/v1/auth/sessions",
    "/api/v1/api-keys",
    "/api/v1/consent",
    "/api/v1/auth/oauth/identities",
];

/// An answer without what is new in each.
fn comparable(reply: Reply) -> (u16, Vec<(String, String)>, Value) {
    let mut body = reply.body;
    for name in ["request_id", "timestamp"] {
        body[name].take();
    }
    let others = reply.headers.iter().filter(|(name, _)| *name != "x-request-id");
    let mut headers: Vec<(String, String)> =
        others.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (reply.status, headers, body)
}

#[tokio::test]
async fn security_10_a_refused_log_in_tells_nothing_about_the_account() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    app.register("maria_77").await;
    let (disabled, deleted) = (app.register("pedro_12").await, app.register("ana_33").await);
    let path = format!("/api/v1/users/{}", disabled.text("/data/user/id"));
    let change = json!({"is_active": false, "version": disabled.body["data"]["user"]["version"]});
    assert_eq!(app.call(Method::PUT, &path, Some(root.access_token()), Some(change)).await.status, 200);
    let path = format!("/api/v1/users/{}", deleted.text("/data/user/id"));
    assert_eq!(app.call(Method::DELETE, &path, Some(root.access_token()), None).await.status, 200);

    let wrong = json!({"username": "maria_77", "password": "wrong"});
    let wrong = comparable(app.post("/api/v1/auth/login", wrong).await);
    assert_eq!((wrong.0, wrong.2["code"].as_str()), (401, Some("invalid_credentials")));
    for body in [
        json!({"username": "nobody_1", "password": PASSWORD}),
        json!({"email": "nobody@example.org", "password": PASSWORD}),
        json!({"username": "pedro_12", "password": PASSWORD}),
        json!({"username": "pedro_12", "password": "wrong"}),
        json!({"username": "ana_33", "password": PASSWORD}),
        json!({"username": "not a name", "password": PASSWORD}),
    ] {
        assert_eq!(comparable(app.post("/api/v1/auth/login", body.clone()).await), wrong, "{body}");
    }

    let strict = |accounts: AccessSettings| AccessSettings { email_verification: true, ..accounts };
    let app = App::start_on(AuthSettings::without_limits(), strict).await;
    let body = json!({"username": "maria_77", "email": "maria@example.org", "password": PASSWORD});
    assert_eq!(app.post("/api/v1/auth/register", body).await.status, 202);
    let unverified = json!({"username": "maria_77", "password": PASSWORD});
    assert_eq!(comparable(app.post("/api/v1/auth/login", unverified).await), wrong);
}

#[tokio::test]
async fn security_17_and_18_one_password_on_many_accounts_is_stopped_whatever_its_sender_claims_to_be() {
    let app = App::start_with(AuthSettings::default()).await;
    let mut looked_at = 0;
    for n in 0..100 {
        let address = format!("203.0.113.{n}");
        let body = json!({"username": format!("person_{n}"), "password": PASSWORD});
        let request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/login");
        let request = request.header("x-forwarded-for", address.as_str()).header("x-real-ip", address.as_str());
        let request = request.header("forwarded", format!("for={address}")).content_type("application/json");
        let reply = app.send(request.body(body.to_string())).await;
        match reply.status {
            401 => looked_at += 1,
            status => assert_eq!((status, reply.text("/code")), (429, "too_many_requests")),
        }
    }
    assert_eq!(looked_at, 10);
    let denied =
        AuditFilter { action: Some("login".to_owned()), outcome: Some("denied".to_owned()), ..AuditFilter::default() };
    let rows = app.access.audit_log(&denied, 200).await.unwrap();
    assert_eq!(rows.len(), 10);
    assert!(rows.iter().all(|row| row.ip.is_none()), "an address is on record that was only claimed: {rows:?}");
}

#[tokio::test]
async fn security_21_no_other_token_is_an_access_token_nor_one_of_another_kind() {
    let app = App::start().await;
    let body = json!({"username": "maria_77", "email": "maria@example.org", "password": PASSWORD});
    let tokens = app.post("/api/v1/auth/register", body).await;
    let asked = app.post("/api/v1/auth/reset-password", json!({"email": "maria@example.org"})).await;
    assert_eq!(asked.status, 200);
    let reset = mailed_token(&app, "Reset your password").await;
    let verify = mailed_token(&app, "Confirm your e-mail address").await;
    let elsewhere = App::start().await.register("maria_77").await;
    for (kind, token) in [
        ("a link to reset", reset.as_str()),
        ("a link to confirm", verify.as_str()),
        ("a refresh token", tokens.refresh_token()),
        ("an access token of another service", elsewhere.access_token()),
    ] {
        for path in OWN {
            let reply = app.call(Method::GET, path, Some(token), None).await;
            assert_eq!((reply.status, reply.text("/code")), (401, "invalid_token"), "{kind} {path}");
        }
    }
    for (path, body) in [
        ("verify-email", json!({"token": reset})),
        ("reset-password/confirm", json!({"token": verify, "new_password": "other-Green-8-cars"})),
        ("login/mfa", json!({"mfa_token": reset, "code": "000000"})),
        ("refresh", json!({"refresh_token": reset})),
        ("refresh", json!({"refresh_token": tokens.access_token()})),
    ] {
        let reply = app.post(&format!("/api/v1/auth/{path}"), body).await;
        assert_eq!(reply.status, 401, "{path}: {}", reply.body);
    }
    assert_eq!(app.me(tokens.access_token()).await.status, 200);
}

#[tokio::test]
async fn security_27_a_cookie_that_was_there_before_the_log_in_is_not_adopted() {
    let app = App::start().await;
    let mallory = app.register("mallory_1").await;
    app.register("maria_77").await;
    let planted = format!("__Host-karat-refresh={}", mallory.refresh_token());
    let body = json!({"username": "maria_77", "password": PASSWORD, "use_cookie": true});
    let request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/login").header("cookie", planted);
    let login = app.send(request.content_type("application/json").body(body.to_string())).await;
    assert_eq!(login.status, 200, "{}", login.body);
    let cookies: Vec<&str> = login.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(cookies.iter().any(|cookie| cookie.starts_with("__Host-karat-refresh=")), "{cookies:?}");
    assert!(cookies.iter().all(|cookie| !cookie.contains(mallory.refresh_token())), "{cookies:?}");
    assert_eq!(app.me(login.access_token()).await.text("/data/username"), "maria_77");
    for (token, sessions) in [(mallory.access_token(), 1), (login.access_token(), 2)] {
        let listed = app.call(Method::GET, "/api/v1/auth/sessions", Some(token), None).await;
        assert_eq!(listed.body["data"].as_array().unwrap().len(), sessions, "{}", listed.body);
    }
    // One that somebody invented begins no session, though its guard is right.
    let guard = derived_guard(&"invented".to_owned().into());
    let request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/refresh");
    let request = request.header("cookie", "__Host-karat-refresh=invented").header("x-csrf-token", guard);
    let refused = app.send(request.content_type("application/json").body("{}")).await;
    assert_eq!((refused.status, refused.text("/code")), (401, "invalid_refresh_token"));
}

#[tokio::test]
async fn security_28_an_admin_ends_the_sessions_of_another() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let moderator = admin(&app, "mod_1", Role::Moderator).await;
    let first = app.register("maria_77").await;
    let body = json!({"username": "maria_77", "password": PASSWORD});
    let second = app.post("/api/v1/auth/login", body.clone()).await;
    let path = format!("/api/v1/admin/users/{}/sessions", first.text("/data/user/id"));
    for caller in [&moderator, &first] {
        assert_eq!(app.call(Method::DELETE, &path, Some(caller.access_token()), None).await.status, 403);
    }
    assert_eq!(app.me(first.access_token()).await.status, 200);
    assert_eq!(app.call(Method::DELETE, &path, Some(root.access_token()), None).await.status, 200);
    for ended in [&first, &second] {
        let me = app.me(ended.access_token()).await;
        assert_eq!((me.status, me.text("/code")), (401, "token_revoked"));
        let refresh = json!({"refresh_token": ended.refresh_token()});
        assert_eq!(app.post("/api/v1/auth/refresh", refresh).await.status, 401);
    }
    assert_eq!(app.me(root.access_token()).await.status, 200);
    assert_eq!(app.post("/api/v1/auth/login", body).await.status, 200);
}

#[tokio::test]
async fn security_34_the_first_step_tells_nothing_and_its_ticket_reaches_only_the_second() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let (secret, _) = enroll(&app, tokens.access_token()).await;
    let body = json!({"username": "maria_77", "password": PASSWORD, "use_cookie": true});
    let first = app.post("/api/v1/auth/login", body).await;
    let mut names: Vec<&String> = first.body["data"].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["expires_in", "mfa_methods", "mfa_required", "mfa_token"]);
    assert!(first.headers.get("set-cookie").is_none());

    let ticket = first.text("/data/mfa_token");
    for path in OWN {
        let reply = app.call(Method::GET, path, Some(ticket), None).await;
        assert_eq!((reply.status, reply.text("/code")), (401, "invalid_token"), "{path}");
    }
    for (path, body) in [
        ("refresh", json!({"refresh_token": ticket})),
        ("verify-email", json!({"token": ticket})),
        ("reset-password/confirm", json!({"token": ticket, "new_password": "other-Green-8-cars"})),
    ] {
        assert_eq!(app.post(&format!("/api/v1/auth/{path}"), body).await.status, 401, "{path}");
    }
    let step = async |code: &str| app.post("/api/v1/auth/login/mfa", json!({"mfa_token": ticket, "code": code})).await;
    let wrong = step("000000").await;
    assert_eq!((wrong.status, wrong.text("/code")), (401, "invalid_code"));
    let right = step(&code(&secret, 1)).await;
    assert_eq!(right.status, 200, "{}", right.body);
    assert_eq!(app.me(right.access_token()).await.text("/data/username"), "maria_77");
    assert_eq!(step(&code(&secret, 1)).await.status, 401);
}

#[tokio::test]
async fn security_39_a_reset_is_mailed_to_one_address_whatever_shape_is_sent() {
    let app = App::start().await;
    let body = json!({"username": "maria_77", "email": "maria@example.org", "password": PASSWORD});
    assert_eq!(app.post("/api/v1/auth/register", body).await.status, 201);
    for body in [
        r#"{"email": ["maria@example.org", "evil@example.org"]}"#,
        r#"{"email": "maria@example.org", "email": "evil@example.org"}"#,
        r#"{"email": "maria@example.org", "to": "evil@example.org"}"#,
        r#"{"email": {"address": "maria@example.org", "cc": "evil@example.org"}}"#,
        r#"{"email": {"$ne": 1}}"#,
        r#"{"email": "maria@example.org,evil@example.org"}"#,
        r#"{"email": "maria@example.org evil@example.org"}"#,
        r#"{"email": "maria@example.org\r\nBcc: evil@example.org"}"#,
        r#"{"email": "maria@example.org\u0000"}"#,
        r#"{"email": "m\u0131ke@example.org"}"#,
        r#"{"email": null}"#,
        r#"["maria@example.org"]"#,
        "{}",
    ] {
        let request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/reset-password");
        let reply = app.send(request.content_type("application/json").body(body)).await;
        assert_eq!((reply.status, reply.text("/code")), (422, "validation_error"), "{body}");
    }
    // A good one afterwards: when its mail is there, those before it would be too.
    assert_eq!(app.post("/api/v1/auth/reset-password", json!({"email": "maria@example.org"})).await.status, 200);
    mailed_token(&app, "Reset your password").await;
    let mails = mails(&app);
    assert_eq!(mails.iter().filter(|mail| mail.contains("Reset your password")).count(), 1, "{mails:?}");
    assert!(mails.iter().all(|mail| mail.contains("To: maria@example.org") && !mail.contains("evil")), "{mails:?}");
}

#[tokio::test]
async fn security_50_nothing_in_a_request_decides_where_the_browser_goes() {
    let provider = ProviderSettings {
        name: "github".to_owned(),
        kind: ProviderKind::named("github").unwrap(),
        client_id: "karat".to_owned(),
        client_secret: "a secret of the tests".to_owned().into(),
    };
    let public_url = "https://karat.example.org".to_owned();
    let with_provider = |accounts: AccessSettings| AccessSettings { providers: vec![provider], public_url, ..accounts };
    let app = App::start_on(AuthSettings::without_limits(), with_provider).await;
    let get = async |path: &str| {
        let request = Request::builder().uri_str(path).header("host", "evil.example.org");
        let request =
            request.header("x-forwarded-host", "evil.example.org").header("origin", "https://evil.example.org");
        app.send(request.header("referer", "https://evil.example.org/").finish()).await
    };
    for place in [
        "%2F%2Fevil.example.org",
        "%5C%5Cevil.example.org",
        "%2F%5Cevil.example.org",
        "https%3A%2F%2Fevil.example.org",
        "https%3A%2F%2Fkarat.example.org%40evil.example.org",
        "https%3A%2F%2Fkarat.example.org.evil.example.org",
        "https%3A%2F%2Fkarat.example.org%2F..%2Fevil",
        "%252F%252Fevil.example.org",
        "javascript%3Aevil",
    ] {
        for name in ["return_to", "redirect_uri", "redirect", "next", "url", "continue"] {
            let reply = get(&format!("/api/v1/auth/oauth/github/authorize?{name}={place}")).await;
            assert_eq!(reply.status, 302, "{}", reply.body);
            let location = url::Url::parse(reply.headers["location"].to_str().unwrap()).unwrap();
            assert_eq!((location.host_str(), location.path()), (Some("github.com"), "/login/oauth/authorize"));
            let pairs = location.query_pairs().filter(|(name, _)| name == "redirect_uri");
            let back: Vec<String> = pairs.map(|(_, value)| value.into_owned()).collect();
            assert_eq!(back, ["https://karat.example.org/api/v1/auth/oauth/github/callback"]);
            assert!(!reply.body.to_string().contains("evil"), "{name}={place}: {}", reply.body);

            let reply = get(&format!("/api/v1/auth/oauth/github/callback?code=x&state=y&{name}={place}")).await;
            assert_eq!((reply.status, reply.text("/code")), (401, "oauth_refused"));
            assert!(reply.headers.get("location").is_none(), "{name}={place}");
        }
    }
}

#[tokio::test]
async fn security_56_who_acts_is_told_by_the_credential_alone() {
    let app = App::start().await;
    let (victim, mallory) = (app.register("maria_77").await, app.register("mallory_1").await);
    let id = victim.text("/data/user/id");
    let key = json!({"name": "nightly", "scopes": ["read"]});
    for field in ["user_id", "userId", "user", "owner", "owner_id", "sub", "created_by"] {
        let mut body = key.clone();
        body[field] = json!(id);
        let without = app.post("/api/v1/api-keys", body.clone()).await;
        assert_eq!((without.status, without.text("/code")), (401, "unauthenticated"), "{field}");
        let with = app.call(Method::POST, "/api/v1/api-keys", Some(mallory.access_token()), Some(body)).await;
        assert_eq!((with.status, with.text("/code")), (422, "validation_error"), "{field}");
    }
    let path = format!("/api/v1/api-keys?user_id={id}&owner={id}");
    let request = Request::builder().method(Method::POST).uri_str(&path).header("x-user-id", id);
    let request = request.header("authorization", format!("Bearer {}", mallory.access_token()));
    let made = app.send(request.content_type("application/json").body(key.to_string())).await;
    assert_eq!(made.status, 201, "{}", made.body);
    for (caller, keys) in [(&victim, 0), (&mallory, 1)] {
        let path = format!("/api/v1/api-keys?user_id={id}");
        let listed = app.call(Method::GET, &path, Some(caller.access_token()), None).await;
        assert_eq!(listed.body["data"].as_array().unwrap().len(), keys, "{}", listed.body);
    }
    let deleting = app.call(Method::DELETE, &format!("/api/v1/users/me?user_id={id}"), None, None).await;
    assert_eq!(deleting.status, 401);
}
