//! An authenticator as the second factor: set up, used, and removed.

use std::time::{SystemTime, UNIX_EPOCH};

use totp_rs::{Builder, Secret};

use super::*;

const TOTP: &str = "/api/v1/auth/mfa/totp";
const CONFIRM: &str = "/api/v1/auth/mfa/totp/confirm";
const RENEW: &str = "/api/v1/auth/mfa/recovery-codes";

/// What an authenticator shows so many steps of time from now.
pub(super) fn code(base32: &str, steps: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let totp = Builder::new().with_secret(Secret::try_from_base32(base32).unwrap()).build().unwrap();
    totp.generate(now.checked_add_signed(steps * 30).unwrap()).to_string()
}

/// Sets up a second factor; answers its secret and the recovery codes.
pub(super) async fn enroll(app: &App, token: &str) -> (String, Vec<String>) {
    let made = app.call(Method::POST, TOTP, Some(token), Some(json!({"password": PASSWORD}))).await;
    let secret = made.text("/data/secret").to_owned();
    let first = json!({"code": code(&secret, 0)});
    let confirmed = app.call(Method::POST, CONFIRM, Some(token), Some(first)).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.body);
    (secret, recovery_codes(&confirmed))
}

fn recovery_codes(reply: &Reply) -> Vec<String> {
    serde_json::from_value(reply.body["data"]["recovery_codes"].clone()).unwrap()
}

async fn log_in(app: &App) -> Reply {
    app.post("/api/v1/auth/login", json!({"username": "maria_77", "password": PASSWORD})).await
}

#[tokio::test]
async fn an_authenticator_is_asked_for_from_its_first_code_until_it_is_removed() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let ask = async |method, path, body| app.call(method, path, Some(tokens.access_token()), Some(body)).await;

    assert_eq!(ask(Method::POST, CONFIRM, json!({"code": "000000"})).await.refusal(), (404, "not_found"));
    assert_eq!(ask(Method::POST, TOTP, json!({})).await.refusal(), (422, "validation_error"));
    let wrong = json!({"password": "wrong"});
    assert_eq!(ask(Method::POST, TOTP, wrong.clone()).await.refusal(), (401, "invalid_credentials"));

    let begun = ask(Method::POST, TOTP, json!({"password": PASSWORD})).await;
    let secret = begun.text("/data/secret");
    assert_eq!(begun.text("/data/uri"), format!("otpauth://totp/Karat:maria_77?secret={secret}&issuer=Karat"));
    assert!(!log_in(&app).await.access_token().is_empty(), "it is not asked for before it is confirmed");
    assert_eq!(ask(Method::POST, CONFIRM, json!({"code": "wrong"})).await.refusal(), (401, "invalid_code"));
    let confirmed = ask(Method::POST, CONFIRM, json!({"code": code(secret, 0)})).await;
    let codes = recovery_codes(&confirmed);
    assert_eq!((confirmed.status, codes.len()), (200, 10), "{}", confirmed.body);
    for code in &codes {
        let groups: Vec<_> = code.split('-').map(str::len).collect();
        assert_eq!(groups, [5; 4], "{code}");
    }
    let second = ask(Method::POST, TOTP, json!({"password": PASSWORD})).await;
    assert_eq!(second.refusal(), (409, "already_taken"));
    let first_step = log_in(&app).await;
    assert_eq!(first_step.body["data"]["mfa_methods"], json!(["totp", "recovery_code"]), "{}", first_step.body);
    assert_eq!(first_step.body["data"]["expires_in"], 300);

    assert_eq!(ask(Method::DELETE, TOTP, wrong).await.refusal(), (401, "invalid_credentials"));
    let removed = ask(Method::DELETE, TOTP, json!({"password": PASSWORD})).await;
    assert_eq!((removed.status, &removed.body["data"]), (200, &json!(true)), "{}", removed.body);
    assert!(!log_in(&app).await.access_token().is_empty());
    assert_eq!(ask(Method::DELETE, TOTP, json!({"password": PASSWORD})).await.refusal(), (404, "not_found"));
}

#[tokio::test]
async fn a_recovery_code_works_once_and_until_there_are_new_ones() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let renew = async |body| app.call(Method::POST, RENEW, Some(tokens.access_token()), Some(body)).await;
    let without = renew(json!({"code": "000000", "password": PASSWORD})).await;
    assert_eq!(without.refusal(), (404, "not_found"));
    let (secret, codes) = enroll(&app, tokens.access_token()).await;
    let second_step = async |code: &str| {
        let first = log_in(&app).await;
        let body = json!({"mfa_token": first.text("/data/mfa_token"), "code": code});
        app.post("/api/v1/auth/login/mfa", body).await
    };
    let login = second_step(&codes[0]).await;
    assert_eq!((login.status, login.text("/data/user/username")), (200, "maria_77"), "{}", login.body);
    assert_eq!(app.me(login.access_token()).await.status, 200);
    assert_eq!(second_step(&codes[0]).await.refusal(), (401, "invalid_code"));

    // The next step: the present one was used up by the confirmation.
    let present = code(&secret, 1);
    for (body, expected) in [
        (json!({"code": present}), (422, "validation_error")),
        (json!({"code": present, "password": "wrong"}), (401, "invalid_credentials")),
        (json!({"code": codes[1], "password": PASSWORD}), (401, "invalid_code")),
    ] {
        assert_eq!(renew(body.clone()).await.refusal(), expected, "{body}");
    }
    let renewed = renew(json!({"code": present, "password": PASSWORD})).await;
    assert_eq!(renewed.status, 200, "{}", renewed.body);
    let new = recovery_codes(&renewed);
    assert_eq!((new.len(), new.iter().any(|code| codes.contains(code))), (10, false));
    assert_eq!(second_step(&codes[1]).await.refusal(), (401, "invalid_code"));
    assert_eq!(second_step(&new[0]).await.status, 200);
}

#[tokio::test]
async fn a_password_and_a_code_log_in_in_one_step() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let (secret, _) = enroll(&app, tokens.access_token()).await;
    let log_in = async |password: &str, code: &str| {
        let body = json!({"username": "maria_77", "password": password, "code": code, "use_cookie": true});
        app.post("/api/v1/auth/login", body).await
    };
    let present = code(&secret, 1);
    assert_eq!(log_in("wrong", &present).await.refusal(), (401, "invalid_credentials"));
    assert_eq!(log_in(PASSWORD, "000000").await.refusal(), (401, "invalid_code"));
    let login = log_in(PASSWORD, &present).await;
    assert_eq!((login.status, login.text("/data/user/username")), (200, "maria_77"), "{}", login.body);
    assert!(login.headers.get_all("set-cookie").iter().count() > 0);
    assert_eq!(app.me(login.access_token()).await.status, 200);
    assert_eq!(log_in(PASSWORD, &present).await.refusal(), (401, "invalid_code"), "a code works once");
}
