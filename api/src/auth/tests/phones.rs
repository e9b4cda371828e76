//! Telephone numbers: logging in by a code, and adding a number to an account.

use karat_access::SmsSettings;
use karat_oracle::plain_http::{answer, read_request};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

pub(super) const PHONE: &str = "+34600123456";

const REQUEST: &str = "/api/v1/auth/phone/request";
const VERIFY: &str = "/api/v1/auth/phone/verify";
const LINK: &str = "/api/v1/auth/phone/link";
const UNLINK: &str = "/api/v1/auth/phone/unlink";

/// An application that sends text messages through a service on loopback, and what is sent through it.
pub(super) async fn start_service() -> (App, mpsc::Receiver<String>) {
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
    let sms = SmsSettings::Http { base_url, account, token, from };
    let with_sms = |accounts: AccessSettings| AccessSettings { sms, ..accounts };
    (App::start_on(AuthSettings::without_limits(), with_sms).await, received)
}

/// Asks for a code to [`PHONE`]; answers the request for it, and the code that was sent.
pub(super) async fn ask_for_code(app: &App, messages: &mut mpsc::Receiver<String>) -> (String, String) {
    let asked = app.post(REQUEST, json!({"phone": PHONE})).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    let message = tokio::time::timeout(Duration::from_secs(60), messages.recv()).await.unwrap().unwrap();
    assert!(message.contains("To=%2B34600123456"), "{message}");
    let code = &message.split("Body=").nth(1).unwrap()[..6];
    (asked.text("/data/code_request").to_owned(), code.to_owned())
}

async fn log_in(app: &App, messages: &mut mpsc::Receiver<String>) -> Reply {
    let (code_request, code) = ask_for_code(app, messages).await;
    app.post(VERIFY, json!({"phone": PHONE, "code_request": code_request, "code": code})).await
}

#[tokio::test]
async fn a_number_is_a_way_in_from_its_code_until_it_is_removed() {
    let (app, mut messages) = start_service().await;
    let (maria, pedro) = (app.register("maria_77").await, app.register("pedro_12").await);
    let (code_request, code) = ask_for_code(&app, &mut messages).await;
    let right = json!({"phone": PHONE, "code_request": code_request, "code": code, "password": PASSWORD});
    let link = async |caller: &Reply, body| app.call(Method::POST, LINK, Some(caller.access_token()), Some(body)).await;
    let another = format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000);
    for (field, value, expected) in [
        ("password", json!(null), (422, "validation_error")),
        ("password", json!("wrong"), (401, "invalid_credentials")),
        ("phone", json!("12"), (422, "validation_error")),
        ("code_request", json!("another"), (401, "invalid_code")),
        ("code", json!(another), (401, "invalid_code")),
    ] {
        let mut body = right.clone();
        body[field] = value;
        let refused = link(&maria, body).await;
        assert_eq!(refused.refusal(), expected, "{field}: {}", refused.body);
    }
    assert!(app.me(maria.access_token()).await.body["data"].get("phone").is_none());
    let linked = link(&maria, right.clone()).await;
    assert_eq!((linked.status, linked.text("/data/phone")), (200, PHONE), "{}", linked.body);
    assert_eq!(app.me(maria.access_token()).await.text("/data/phone"), PHONE);
    assert_eq!(link(&maria, right).await.refusal(), (401, "invalid_code"), "a code works once");

    let by_phone = log_in(&app, &mut messages).await;
    assert_eq!(by_phone.status, 200, "{}", by_phone.body);
    assert_eq!(by_phone.text("/data/user/id"), maria.text("/data/user/id"));
    let (code_request, code) = ask_for_code(&app, &mut messages).await;
    let body = json!({"phone": PHONE, "code_request": code_request, "code": code, "password": PASSWORD});
    assert_eq!(link(&pedro, body).await.refusal(), (409, "already_taken"));

    let unlink = async || {
        app.call(Method::DELETE, UNLINK, Some(maria.access_token()), Some(json!({"password": PASSWORD}))).await
    };
    let removed = unlink().await;
    assert_eq!((removed.status, removed.body["data"].get("phone")), (200, None), "{}", removed.body);
    assert_eq!(app.me(by_phone.access_token()).await.refusal(), (401, "token_revoked"), "every other session ends");
    assert_eq!(app.me(maria.access_token()).await.status, 200);
    assert_eq!(unlink().await.refusal(), (404, "not_found"));
}

#[tokio::test]
async fn an_account_that_came_by_its_number_keeps_it_until_it_has_a_password() {
    let (app, mut messages) = start_service().await;
    let tokens = log_in(&app, &mut messages).await;
    assert_eq!((tokens.status, tokens.text("/data/user/phone")), (200, PHONE), "{}", tokens.body);
    assert!(!tokens.text("/data/user/username").contains("600123456"), "a name is public");
    let ask = async |method, path, body| app.call(method, path, Some(tokens.access_token()), Some(body)).await;
    // The log-in is fresh and stands for the password that there is not.
    assert_eq!(ask(Method::DELETE, UNLINK, json!({})).await.refusal(), (409, "last_way_in"));
    let first = ask(Method::POST, "/api/v1/auth/change-password", json!({"new_password": PASSWORD})).await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(ask(Method::DELETE, UNLINK, json!({})).await.refusal(), (422, "validation_error"));
    assert_eq!(ask(Method::DELETE, UNLINK, json!({"password": PASSWORD})).await.status, 200);
    let body = json!({"username": tokens.text("/data/user/username"), "password": PASSWORD});
    assert_eq!(app.post("/api/v1/auth/login", body).await.status, 200);
}

#[tokio::test]
async fn a_code_is_refused_for_another_number_and_in_another_request() {
    let (app, mut messages) = start_service().await;
    let (code_request, code) = ask_for_code(&app, &mut messages).await;
    for (phone, request, expected) in [
        ("+34600123457", code_request.as_str(), (401, "invalid_code")),
        (PHONE, "another", (401, "invalid_code")),
        ("600", code_request.as_str(), (422, "validation_error")),
    ] {
        let refused = app.post(VERIFY, json!({"phone": phone, "code_request": request, "code": code})).await;
        assert_eq!(refused.refusal(), expected, "{phone} {request}");
    }
    let right = app.post(VERIFY, json!({"phone": PHONE, "code_request": code_request, "code": code})).await;
    assert_eq!(right.status, 200, "{}", right.body);
}

#[tokio::test]
async fn codes_are_asked_for_in_international_form_five_an_hour_and_where_messages_can_be_sent() {
    let app = App::start().await;
    let request = async |phone: &str| app.post(REQUEST, json!({"phone": phone})).await;
    for phone in ["", "600123456", "+", "+34 600 no", "+0123456789", "+3460012345678901234"] {
        assert_eq!(request(phone).await.refusal(), (422, "validation_error"), "{phone}");
    }
    for _ in 0..5 {
        assert_eq!(request(PHONE).await.status, 200);
    }
    let sixth = request(PHONE).await;
    assert_eq!(sixth.refusal(), (429, "too_many_requests"));
    let seconds: u64 = sixth.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");

    let silent = |accounts: AccessSettings| AccessSettings { sms: SmsSettings::Off, ..accounts };
    let app = App::start_on(AuthSettings::without_limits(), silent).await;
    assert_eq!(app.post(REQUEST, json!({"phone": PHONE})).await.refusal(), (501, "not_configured"));
}
