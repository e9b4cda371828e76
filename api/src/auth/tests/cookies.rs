//! The cookie of a browser after every way in.

use super::oauth::{AUTHORIZE, begin, come_back};
use super::people::refresh_cookie;
use super::phones::{PHONE, ask_for_code, start_service};
use super::*;

/// That the token is in a cookie that scripts cannot read, which lives as long as was asked for, and is good for a refresh.
async fn assert_in_cookie(app: &App, reply: &Reply, is_remembered: bool) {
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.body["data"].get("refresh_token").is_none(), "{}", reply.body);
    assert_eq!(app.me(reply.access_token()).await.status, 200);
    let cookie = refresh_cookie(&reply.headers);
    for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(cookie.contains("; Max-Age="), is_remembered, "{cookie}");
    let request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/refresh");
    let request = request.header("cookie", cookie.split(';').next().unwrap());
    let request = request.header("x-csrf-token", reply.text("/data/csrf_token"));
    let refreshed = app.send(request.content_type("application/json").body("{}")).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
    assert_eq!(refresh_cookie(&refreshed.headers).contains("; Max-Age="), is_remembered);
}

fn assert_in_answer(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(!reply.refresh_token().is_empty());
    let mut cookies = reply.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    assert!(cookies.all(|cookie| !cookie.starts_with("__Host-karat-refresh=")));
}

#[tokio::test]
async fn security_30_after_a_provider_the_token_is_in_the_cookie_that_the_browser_asked_for() {
    let app = oauth::start().await;
    let log_in = async |query: &str| {
        let (cookie, state) = begin(&app, &format!("{AUTHORIZE}{query}")).await;
        come_back(&app, &format!("code=x&state={state}"), Some(&cookie)).await
    };
    assert_in_cookie(&app, &log_in("?use_cookie=true").await, false).await;
    assert_in_cookie(&app, &log_in("?use_cookie=true&remember_me=true").await, true).await;
    for without in ["", "?use_cookie=false&remember_me=true", "?remember_me=true"] {
        assert_in_answer(&log_in(without).await);
    }
    let unreadable = app.call(Method::GET, &format!("{AUTHORIZE}?use_cookie=perhaps"), None, None).await;
    assert_eq!((unreadable.status, unreadable.text("/code")), (400, "invalid_parameter"));
}

#[tokio::test]
async fn security_30_after_a_code_to_a_telephone_the_token_is_in_the_cookie_that_the_browser_asked_for() {
    let (app, mut messages) = start_service().await;
    for (use_cookie, remember) in [(Some(true), None), (Some(true), Some(true)), (None, Some(true))] {
        let (code_request, code) = ask_for_code(&app, &mut messages).await;
        let body = json!({"phone": PHONE, "code_request": code_request, "code": code, "use_cookie": use_cookie, "remember_me": remember});
        let reply = app.post("/api/v1/auth/phone/verify", body).await;
        match use_cookie {
            Some(_) => assert_in_cookie(&app, &reply, remember == Some(true)).await,
            None => assert_in_answer(&reply),
        }
    }
}

#[tokio::test]
async fn logging_out_removes_both_cookies_and_then_there_is_nothing_to_refresh() {
    let app = App::start().await;
    for (path, name) in [("/api/v1/auth/logout", "maria_77"), ("/api/v1/auth/logout-all", "pedro_12")] {
        let tokens = app.register(name).await;
        let reply = app.call(Method::POST, path, Some(tokens.access_token()), None).await;
        assert_eq!((reply.status, &reply.body["data"]["sessions_ended"]), (200, &json!(1)), "{}", reply.body);
        let mut cookies: Vec<&str> =
            reply.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
        cookies.sort_unstable();
        assert_eq!(
            cookies,
            [
                "__Host-karat-csrf=; Path=/; Secure; SameSite=Strict; Max-Age=0",
                "__Host-karat-refresh=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"
            ]
        );
        assert_eq!(app.me(tokens.access_token()).await.refusal(), (401, "token_revoked"), "{path}");
    }
    let refused = app.post("/api/v1/auth/refresh", json!({})).await;
    assert_eq!(refused.refusal(), (401, "invalid_refresh_token"));
}
