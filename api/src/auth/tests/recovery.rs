//! Passwords that are forgotten or changed and addresses that are confirmed, by the links that were mailed.

use karat_access::AuditFilter;

use super::outbox::{mail_with, mailed_token, mails, token_of};
use super::*;

const ADDRESS: &str = "maria@example.org";
const OTHER_PASSWORD: &str = "other-Green-8-cars";
const RESET: &str = "/api/v1/auth/reset-password";
const VERIFY: &str = "/api/v1/auth/verify-email";
const CHANGE: &str = "/api/v1/auth/change-password";

const RESET_SUBJECT: &str = "Reset your password";
const VERIFY_SUBJECT: &str = "Confirm your e-mail address";

/// An account with an address that was not confirmed yet.
async fn register_with_address(app: &App) -> Reply {
    let body = json!({"username": "maria_77", "email": ADDRESS, "password": PASSWORD});
    let reply = app.post("/api/v1/auth/register", body).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply
}

async fn log_in(app: &App, password: &str) -> Reply {
    app.post("/api/v1/auth/login", json!({"username": "maria_77", "password": password})).await
}

async fn confirm_reset(app: &App, token: &str, password: &str) -> Reply {
    app.post(&format!("{RESET}/confirm"), json!({"token": token, "new_password": password})).await
}

async fn is_verified(app: &App, tokens: &Reply) -> bool {
    app.me(tokens.access_token()).await.body["data"]["is_verified"] == true
}

#[tokio::test]
async fn a_mailed_link_sets_a_new_password_once_and_ends_what_was_open() {
    let app = App::start().await;
    let tokens = register_with_address(&app).await;
    let body = json!({"name": "nightly", "scopes": ["read"]});
    let key = app.call(Method::POST, "/api/v1/api-keys", Some(tokens.access_token()), Some(body)).await;
    let asked = app.post(RESET, json!({"email": "MARIA@example.org"})).await;
    assert_eq!((asked.status, &asked.body["data"]), (200, &json!(true)), "{}", asked.body);
    let token = mailed_token(&app, RESET_SUBJECT).await;

    assert_eq!(confirm_reset(&app, &"0".repeat(64), OTHER_PASSWORD).await.refusal(), (401, "invalid_code"));
    let weak = confirm_reset(&app, &token, "maria_77").await;
    assert_eq!(weak.refusal(), (422, "validation_error"));
    assert!(weak.body["details"].as_array().unwrap().len() > 1, "each broken rule is a line: {}", weak.body);
    assert_eq!(log_in(&app, PASSWORD).await.status, 200, "nothing was changed so far");

    let done = confirm_reset(&app, &token, OTHER_PASSWORD).await;
    assert_eq!((done.status, &done.body["data"]), (200, &json!(true)), "{}", done.body);
    assert!(done.headers.get("set-cookie").is_none(), "it logs nobody in");
    assert_eq!(app.me(tokens.access_token()).await.refusal(), (401, "token_revoked"));
    let refresh = json!({"refresh_token": tokens.refresh_token()});
    assert_eq!(app.post("/api/v1/auth/refresh", refresh).await.status, 401);
    assert_eq!(log_in(&app, PASSWORD).await.refusal(), (401, "invalid_credentials"));
    let login = log_in(&app, OTHER_PASSWORD).await;
    // Whoever reads the mail of an address has it; what others had set up before goes.
    assert_eq!((login.status, &login.body["data"]["user"]["is_verified"]), (200, &json!(true)), "{}", login.body);
    assert_eq!(app.me(key.text("/data/key")).await.refusal(), (401, "token_revoked"));
    let notice = mail_with(&app, "Your password was reset by a link", 1).await;
    assert!(notice.contains("To: maria@example.org"), "{notice}");
    assert_eq!(confirm_reset(&app, &token, "third-Brown-9-trains").await.refusal(), (401, "invalid_code"));
}

#[tokio::test]
async fn a_reset_of_an_address_that_nobody_has_is_answered_alike_and_mails_nothing() {
    let app = App::start().await;
    register_with_address(&app).await;
    let ask = async |address: &str| {
        let reply = app.post(RESET, json!({"email": address})).await;
        (reply.status, reply.body["data"].clone(), reply.text("/message").to_owned())
    };
    let unknown = ask("nobody@example.org").await;
    assert_eq!(unknown, ask(ADDRESS).await);
    assert_eq!((unknown.0, unknown.2.as_str()), (200, "if an account has this address, a message is on its way"));
    // When this one's mail is there, that of the one before would be too.
    mailed_token(&app, RESET_SUBJECT).await;
    assert!(mails(&app).iter().all(|mail| !mail.contains("nobody")), "{:?}", mails(&app));
}

#[tokio::test]
async fn an_address_is_confirmed_once_by_the_newest_link() {
    let app = App::start().await;
    let tokens = register_with_address(&app).await;
    let again = async || app.call(Method::POST, &format!("{VERIFY}/request"), Some(tokens.access_token()), None).await;
    let verify = async |token: &str| app.post(VERIFY, json!({"token": token})).await;
    let first = mailed_token(&app, VERIFY_SUBJECT).await;
    let asked = again().await;
    assert_eq!((asked.status, &asked.body["data"]), (200, &json!(true)), "{}", asked.body);
    let second = token_of(&mail_with(&app, VERIFY_SUBJECT, 2).await);
    assert_ne!(first, second);

    assert_eq!(verify(&first).await.refusal(), (401, "invalid_code"));
    assert!(!is_verified(&app, &tokens).await);
    let done = verify(&second).await;
    assert_eq!((done.status, &done.body["data"]), (200, &json!(true)), "{}", done.body);
    assert!(is_verified(&app, &tokens).await);
    assert_eq!(verify(&second).await.refusal(), (401, "invalid_code"));

    // There is nothing left to ask for: the answer is the same, and no link is made.
    assert_eq!(again().await.status, 200);
    let action = Some("email_verify_request".to_owned());
    let rows = app.access.audit_log(&AuditFilter { action, ..AuditFilter::default() }, 10).await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let nameless = app.register("pedro_12").await;
    let path = format!("{VERIFY}/request");
    let without = app.call(Method::POST, &path, Some(nameless.access_token()), None).await;
    assert_eq!(without.refusal(), (404, "not_found"), "{}", without.body);
}

#[tokio::test]
async fn where_addresses_are_confirmed_first_the_link_opens_the_account() {
    let strict = |accounts: AccessSettings| AccessSettings { email_verification: true, ..accounts };
    let app = App::start_on(AuthSettings::without_limits(), strict).await;
    let body = json!({"username": "maria_77", "email": ADDRESS, "password": PASSWORD});
    let registered = app.post("/api/v1/auth/register", body).await;
    assert_eq!((registered.status, &registered.body["data"]), (202, &json!({"verification_required": true})));
    assert_eq!(log_in(&app, PASSWORD).await.refusal(), (401, "invalid_credentials"));
    let token = mailed_token(&app, VERIFY_SUBJECT).await;
    assert_eq!(app.post(VERIFY, json!({"token": token})).await.status, 200);
    let login = log_in(&app, PASSWORD).await;
    assert_eq!((login.status, login.text("/data/user/email")), (200, ADDRESS), "{}", login.body);
}

#[tokio::test]
async fn of_links_to_one_address_five_an_hour_are_sent() {
    let app = App::start().await;
    let tokens = register_with_address(&app).await;
    let resets = async || app.post(RESET, json!({"email": ADDRESS})).await;
    let path = format!("{VERIFY}/request");
    let verifications = async || app.call(Method::POST, &path, Some(tokens.access_token()), None).await;
    for n in 1..=6 {
        for (what, reply) in [("reset", resets().await), ("verification", verifications().await)] {
            assert_eq!(reply.status, if n < 6 { 200 } else { 429 }, "{what} {n}: {}", reply.body);
            assert_eq!(reply.headers.contains_key("retry-after"), n == 6, "{what} {n}");
        }
    }
}

#[tokio::test]
async fn a_password_is_changed_with_the_present_one_and_the_other_sessions_end() {
    let app = App::start().await;
    let tokens = register_with_address(&app).await;
    let other = log_in(&app, PASSWORD).await;
    let change = async |body| app.call(Method::POST, CHANGE, Some(tokens.access_token()), Some(body)).await;
    for (body, expected) in [
        (json!({"new_password": OTHER_PASSWORD}), (422, "validation_error")),
        (json!({"current_password": "wrong", "new_password": OTHER_PASSWORD}), (401, "invalid_credentials")),
        (json!({"current_password": PASSWORD, "new_password": "maria_77"}), (422, "validation_error")),
        (json!({"current_password": PASSWORD}), (422, "validation_error")),
    ] {
        assert_eq!(change(body.clone()).await.refusal(), expected, "{body}");
    }
    let changed = change(json!({"current_password": PASSWORD, "new_password": OTHER_PASSWORD})).await;
    assert_eq!((changed.status, &changed.body["data"]), (200, &json!(true)), "{}", changed.body);
    assert_eq!(app.me(tokens.access_token()).await.status, 200, "the session of the call stays");
    assert_eq!(app.me(other.access_token()).await.refusal(), (401, "token_revoked"));
    assert_eq!(log_in(&app, PASSWORD).await.refusal(), (401, "invalid_credentials"));
    assert_eq!(log_in(&app, OTHER_PASSWORD).await.status, 200);
    mail_with(&app, "Your password was changed.", 1).await;
}

#[tokio::test]
async fn the_strength_of_a_password_depends_on_whose_it_is() {
    let app = App::start().await;
    let judge = async |body: Value| app.post("/api/v1/auth/password-strength", body).await;
    let password = "Riverboat-maria-77";
    let alone = judge(json!({"password": password})).await;
    assert_eq!((alone.status, &alone.body["data"]["is_allowed"]), (200, &json!(true)), "{}", alone.body);
    assert!(alone.body["data"]["score"].as_u64() > Some(0), "{}", alone.body);
    for body in [
        json!({"password": password, "username": "riverboat"}),
        json!({"password": password, "email": "riverboat@example.org"}),
        json!({"password": "a".repeat(2_000)}),
    ] {
        let judged = judge(body.clone()).await;
        let data = &judged.body["data"];
        assert_eq!((judged.status, &data["score"], &data["is_allowed"]), (200, &json!(0), &json!(false)), "{body}");
        assert_eq!(data["broken_rules"].as_array().map(Vec::len), Some(1), "{data}");
    }
}
