//! The cookie of a browser after every way in.

use karat_access::SmsSettings;
use karat_oracle::plain_http::{answer, read_request};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::oauth::{AUTHORIZE, begin, come_back};
use super::people::refresh_cookie;
use super::*;

const PHONE: &str = "+34600123456";

/// A service for text messages on loopback, and what is sent through it.
async fn start_service() -> (SmsSettings, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let (sent, received) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let request = read_request(&mut socket).await;
            answer(&mut socket, "201 Created", "{}").await;
            let _ = sent.send(request).await;
        }
    });
    let (account, token, from) = ("AC1".to_owned(), "canary".to_owned().into(), "+15005550006".to_owned());
    (SmsSettings::Http { base_url, account, token, from }, received)
}

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
    let (sms, mut messages) = start_service().await;
    let app =
        App::start_on(AuthSettings::without_limits(), |accounts: AccessSettings| AccessSettings { sms, ..accounts });
    let app = app.await;
    for (use_cookie, remember) in [(Some(true), None), (Some(true), Some(true)), (None, Some(true))] {
        let asked = app.post("/api/v1/auth/phone/request", json!({"phone": PHONE})).await;
        assert_eq!(asked.status, 200, "{}", asked.body);
        let message = tokio::time::timeout(Duration::from_secs(20), messages.recv()).await.unwrap().unwrap();
        let code = &message.split("Body=").nth(1).unwrap()[..6];
        let code_request = asked.text("/data/code_request");
        let body = json!({"phone": PHONE, "code_request": code_request, "code": code, "use_cookie": use_cookie, "remember_me": remember});
        let reply = app.post("/api/v1/auth/phone/verify", body).await;
        match use_cookie {
            Some(_) => assert_in_cookie(&app, &reply, remember == Some(true)).await,
            None => assert_in_answer(&reply),
        }
    }
}
