//! Passkeys as a browser uses them.

use karat_oracle::passkeys::{Authenticator, Page, Signed};

use super::*;

pub(super) const PASSKEYS: &str = "/api/v1/auth/mfa/passkeys";

fn page() -> Page {
    Page::of("karat.example.org")
}

pub(super) async fn app() -> App {
    let named =
        |accounts: AccessSettings| AccessSettings { public_url: "https://karat.example.org".to_owned(), ..accounts };
    App::start_on(AuthSettings::without_limits(), named).await
}

/// Adds a passkey; answers it, and the answer.
pub(super) async fn add(app: &App, token: &str) -> (Authenticator, Reply) {
    let begun = app.call(Method::POST, PASSKEYS, Some(token), Some(json!({"password": PASSWORD}))).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let options = &begun.body["data"]["options"];
    assert_eq!(options["rp"], json!({"id": "karat.example.org", "name": "Karat"}));
    assert_eq!(options["pubKeyCredParams"][0], json!({"type": "public-key", "alg": -7}));
    assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
    assert_eq!((options["timeout"].as_u64(), options["attestation"].as_str()), (Some(300_000), Some("none")));
    let (challenge, user) = (begun.text("/data/options/challenge"), begun.text("/data/options/user/id"));
    let (passkey, made) = Authenticator::make(&page(), challenge, user);
    let body = json!({"client_data_json": made.client_data, "attestation_object": made.attestation, "name": "laptop"});
    let added = app.call(Method::POST, &format!("{PASSKEYS}/confirm"), Some(token), Some(body)).await;
    (passkey, added)
}

fn signed(signed: Signed, name: &str, secret: &str) -> Value {
    let mut body = json!({
        "credential_id": signed.credential_id,
        "client_data_json": signed.client_data,
        "authenticator_data": signed.authenticator_data,
        "signature": signed.signature,
        "user_handle": signed.user_handle,
    });
    body[name] = secret.into();
    body
}

#[tokio::test]
async fn a_browser_adds_a_passkey_logs_in_by_it_and_removes_it() {
    let app = app().await;
    let tokens = app.register("maria_77").await;
    let (mut passkey, added) = add(&app, tokens.access_token()).await;
    assert_eq!((added.status, &added.body["data"]["is_way_in"]), (200, &Value::Bool(true)), "{}", added.body);
    assert_eq!(added.body["data"]["recovery_codes"].as_array().unwrap().len(), 10);

    // Alone, with the token in a cookie.
    let begun = app.post(&format!("{PASSKEYS}/login"), json!({})).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let options = &begun.body["data"]["options"];
    assert_eq!((&options["rpId"], &options["userVerification"]), (&json!("karat.example.org"), &json!("required")));
    let answer = passkey.sign(&page(), begun.text("/data/options/challenge"));
    let mut body = signed(answer, "login_request", begun.text("/data/login_request"));
    body["use_cookie"] = true.into();
    let login = app.post(&format!("{PASSKEYS}/login/confirm"), body.clone()).await;
    assert_eq!((login.status, login.text("/data/user/username")), (200, "maria_77"), "{}", login.body);
    assert!(login.body["data"].get("refresh_token").is_none(), "{}", login.body);
    assert!(login.headers.get_all("set-cookie").iter().count() > 0);
    let again = app.post(&format!("{PASSKEYS}/login/confirm"), body.clone()).await;
    assert_eq!((again.status, again.text("/code")), (401, "invalid_code"));
    body["mfa_token"] = "x".into();
    assert_eq!(app.post(&format!("{PASSKEYS}/login/confirm"), body).await.status, 422);

    // As the second step.
    let first = app.post("/api/v1/auth/login", json!({"username": "maria_77", "password": PASSWORD})).await;
    assert_eq!(first.body["data"]["mfa_methods"], json!(["passkey", "recovery_code"]), "{}", first.body);
    let ticket = first.text("/data/mfa_token");
    let begun = app.post(&format!("{PASSKEYS}/login"), json!({"mfa_token": ticket})).await;
    let options = &begun.body["data"]["options"];
    assert_eq!(options["allowCredentials"].as_array().unwrap().len(), 1, "{}", begun.body);
    let answer = passkey.sign(&page(), begun.text("/data/options/challenge"));
    let second = app.post(&format!("{PASSKEYS}/login/confirm"), signed(answer, "mfa_token", ticket)).await;
    assert_eq!(second.status, 200, "{}", second.body);

    let token = second.access_token();
    let listed = app.call(Method::GET, PASSKEYS, Some(token), None).await;
    assert_eq!((listed.text("/data/0/name"), listed.text("/data/0/id")), ("laptop", added.text("/data/id")));
    assert_eq!(listed.body["data"][0]["is_backed_up"], json!(false), "{}", listed.body);
    let path = format!("{PASSKEYS}/{}", added.text("/data/id"));
    let wrong = app.call(Method::DELETE, &path, Some(token), Some(json!({"password": "wrong"}))).await;
    assert_eq!(wrong.status, 401);
    let removed = app.call(Method::DELETE, &path, Some(token), Some(json!({"password": PASSWORD}))).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    assert_eq!(app.me(login.access_token()).await.status, 401, "the other sessions have ended");
    let none = app.call(Method::DELETE, &format!("{PASSKEYS}/x"), Some(token), Some(json!({}))).await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn a_security_key_is_asked_for_nothing_that_it_may_not_have() {
    let app = app().await;
    let tokens = app.register("maria_77").await;
    let body = json!({"password": PASSWORD, "is_way_in": false});
    let begun = app.call(Method::POST, PASSKEYS, Some(tokens.access_token()), Some(body)).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let asked = json!({"residentKey": "discouraged", "requireResidentKey": false, "userVerification": "discouraged"});
    assert_eq!(begun.body["data"]["options"]["authenticatorSelection"], asked);
}

#[tokio::test]
async fn without_a_public_name_passkeys_are_not_configured() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let password = json!({"password": PASSWORD});
    let begun = app.call(Method::POST, PASSKEYS, Some(tokens.access_token()), Some(password)).await;
    assert_eq!((begun.status, begun.text("/code")), (501, "not_configured"), "{}", begun.body);
    assert!(begun.text("/message").contains("server.public_url"), "{}", begun.body);
    assert_eq!(app.post(&format!("{PASSKEYS}/login"), json!({})).await.status, 501);
}
