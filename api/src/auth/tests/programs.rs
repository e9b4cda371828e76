//! What programs may and may not do with their API keys.

use super::people::admin;
use super::*;

const KEYS: &str = "/api/v1/api-keys";

/// A key that may all that a key can; answers it whole.
async fn key_of(app: &App, owner: &Reply) -> String {
    let body = json!({"name": "nightly", "scopes": ["publish:*", "read"]});
    let made = app.call(Method::POST, KEYS, Some(owner.access_token()), Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.text("/data/key").to_owned()
}

/// A body with what the document asks for and no more; none where it is not read before the caller is known.
fn least_body(document: &Value, operation: &Value) -> Option<Value> {
    let name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()?;
    let schema = &document["components"]["schemas"][name.strip_prefix("#/components/schemas/")?];
    let mut body = json!({});
    for field in schema["required"].as_array().into_iter().flatten() {
        let field = field.as_str().unwrap();
        body[field] = match schema["properties"][field]["type"].as_str() {
            Some("string") => json!("x"),
            Some("integer") => json!(1),
            Some("array") => json!(["read"]),
            other => panic!("`{field}` of {name} is {other:?}"),
        };
    }
    Some(body)
}

#[tokio::test]
async fn security_59_no_operation_on_accounts_takes_the_key_of_an_admin() {
    let app = App::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let key = key_of(&app, &root).await;
    let document = app.document();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation.get("security").is_none() {
                continue;
            }
            // Its own id stands for every name in a path: not even the own account is there for it.
            let parts =
                path.split('/').map(|part| if part.starts_with('{') { root.text("/data/user/id") } else { part });
            let path = format!("/api/v1{}", parts.collect::<Vec<_>>().join("/"));
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let reply = app.call(method.clone(), &path, Some(&key), least_body(&document, operation)).await;
            let expected = match operation["operationId"].as_str().unwrap() {
                // There is nothing to end.
                "logout" | "logout_all" => (404, "not_found"),
                _ => (403, "forbidden"),
            };
            assert_eq!(reply.refusal(), expected, "{method} {path}: {}", reply.body);
            asked += 1;
        }
    }
    assert!(asked > 40, "{asked}");
    assert_eq!(app.me(root.access_token()).await.text("/data/role"), "admin");
    let listed = app.call(Method::GET, KEYS, Some(root.access_token()), None).await;
    assert_eq!(listed.body["data"].as_array().map(Vec::len), Some(1), "{}", listed.body);
}

#[tokio::test]
async fn a_key_is_made_as_it_was_asked_for_or_the_broken_rule_is_named() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let make = async |body| app.call(Method::POST, KEYS, Some(tokens.access_token()), Some(body)).await;
    let with = |field: &str, value: Value| {
        let mut body = json!({"name": "nightly", "scopes": ["read"]});
        body[field] = value;
        body
    };
    for (body, line) in [
        (with("expires_in_days", json!(0)), "`expires_in_days`: must be from 1 to 3650"),
        (with("expires_in_days", json!(3_651)), "`expires_in_days`"),
        (with("scopes", json!(["everything"])), "`scopes"),
        (with("scopes", json!([])), "`scopes"),
        (with("name", json!("")), "`name`"),
        (with("events_per_second", json!(0)), "`events_per_second`"),
    ] {
        let refused = make(body.clone()).await;
        assert_eq!(refused.refusal(), (422, "validation_error"), "{body}");
        assert!(refused.text("/details/0").starts_with(line), "{body}: {}", refused.body);
    }
    let forever = make(with("name", json!("forever"))).await;
    assert_eq!((forever.status, forever.body["data"]["details"].get("expires_at")), (201, None), "{}", forever.body);
    let month = make(with("expires_in_days", json!(30))).await;
    let time = |name: &str| {
        let text = month.text(&format!("/data/details/{name}"));
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp()
    };
    let days = (time("expires_at") - time("created_at") + 43_200) / 86_400;
    assert_eq!(days, 30, "{}", month.body);
    for path in [format!("{KEYS}/x"), "/api/v1/auth/sessions/x".to_owned()] {
        let unknown = app.call(Method::DELETE, &path, Some(tokens.access_token()), None).await;
        assert_eq!(unknown.refusal(), (404, "not_found"), "{path}");
    }
}
