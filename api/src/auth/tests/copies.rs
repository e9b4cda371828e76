//! The copy that a person gets of everything that the accounts hold.

use super::*;

const COPY: &str = "/api/v1/users/me/export";

/// Something of everything that a person can have; answers the whole API key.
async fn furnish(app: &App, token: &str, name: &str) -> String {
    let consent = json!({"version": "2026-11", "source": format!("page of {name}")});
    assert_eq!(app.call(Method::POST, "/api/v1/consent", Some(token), Some(consent)).await.status, 200);
    let settings = json!({"page": [name]});
    assert_eq!(app.call(Method::PUT, "/api/v1/user-settings", Some(token), Some(settings)).await.status, 200);
    let key = json!({"name": format!("key of {name}"), "scopes": ["publish:*", "read"]});
    let made = app.call(Method::POST, "/api/v1/api-keys", Some(token), Some(key)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.text("/data/key").to_owned()
}

#[tokio::test]
async fn security_84_a_copy_over_http_holds_own_data_only_and_no_secret() {
    let app = App::start().await;
    let (maria, pedro) = (app.register("maria_77").await, app.register("pedro_12").await);
    let her_key = furnish(&app, maria.access_token(), "maria_77").await;
    let his_key = furnish(&app, pedro.access_token(), "pedro_12").await;
    let copy = app.call(Method::GET, COPY, Some(maria.access_token()), None).await;
    assert_eq!((copy.status, copy.headers["cache-control"].to_str().unwrap()), (200, "no-store"), "{}", copy.body);
    let data = &copy.body["data"];
    let id = maria.text("/data/user/id");
    assert_eq!((copy.text("/data/account/id"), copy.text("/data/account/username")), (id, "maria_77"));
    assert_eq!(copy.text("/data/runs"), format!("/api/v1/runs?user={id}"));
    assert_eq!(copy.text("/data/api_keys/0/name"), "key of maria_77");
    assert_eq!(copy.text("/data/consents/0/source"), "page of maria_77");
    assert_eq!(data["settings"], json!([{"key": "page", "value": "[\"maria_77\"]"}]));
    assert_eq!((&data["has_password"], &data["recovery_codes_left"]), (&json!(true), &json!(0)));
    assert_eq!((data["sessions"].as_array().unwrap().len(), &data["cut"]), (1, &json!([])));
    let actions: Vec<_> = data["events"].as_array().unwrap().iter().map(|event| event["action"].as_str()).collect();
    let expected = ["api_key_create", "consent_grant", "login", "register"].map(Some);
    assert_eq!(actions, expected, "newest first");

    let text = copy.body.to_string();
    let secret_of = |key: &str| key.rsplit('_').next().unwrap().to_owned();
    for canary in [
        pedro.text("/data/user/id").to_owned(),
        "pedro_12".to_owned(),
        secret_of(&his_key),
        secret_of(&her_key),
        maria.refresh_token().to_owned(),
        maria.access_token().to_owned(),
        PASSWORD.to_owned(),
        "argon2".to_owned(),
        "hash".to_owned(),
    ] {
        assert!(!text.contains(&canary), "{canary} is in the copy: {text}");
    }

    // A program gets none, however much its key may.
    let by_key = app.call(Method::GET, COPY, Some(&her_key), None).await;
    assert_eq!((by_key.status, by_key.text("/code")), (403, "forbidden"));
}
