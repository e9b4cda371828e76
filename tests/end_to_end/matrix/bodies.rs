//! Fields that the server alone decides are in no body.

use serde_json::{Value, json};

use super::{document, operations, rule};
use crate::{
    client::Client,
    process::{Folder, PASSWORD},
};

const FIELDS: [&str; 16] = [
    "avatar_url",
    "consent_status",
    "created_at",
    "deleted_at",
    "email_verified",
    "exp",
    "id",
    "is_active",
    "is_admin",
    "is_verified",
    "level",
    "owner",
    "password_hash",
    "role",
    "updated_at",
    "user_id",
];

/// Where one of them is what the operation is for; who may do that is in the matrix.
const MEANT: [(&str, &str); 4] = [
    ("admin_change_user", "is_active"),
    ("admin_create_user", "role"),
    ("change_user", "is_active"),
    ("set_user_role", "role"),
];

/// Bodies that are the callers' own data: events, a picture, settings, and the form of a provider, which may add to it: of that one only
/// what the callback needs is passed on.
const DATA: [&str; 7] = [
    "publish_events",
    "publish_lineage",
    "publish_lineage_batch",
    "set_avatar",
    "replace_user_settings",
    "change_user_settings",
    "oauth_posted_callback",
];

#[tokio::test]
async fn security_55_no_body_takes_a_field_that_nobody_may_set() {
    let document = document().await;
    let folder = Folder::new();
    folder.account("the_admin", "admin").await;
    let mut karat = folder.start("up", &["up", "--listen", "127.0.0.1:0", "--without-limits", "--without-pipelines"]);
    // Who may do everything: what is refused here is refused for the field.
    let admin = Client::log_in(&karat.url().await, "the_admin", PASSWORD).await;
    let mut problems = Vec::new();
    let mut refused = 0;
    for operation in operations(&document) {
        let id = operation.id.as_str();
        let Some(content) = operation.declared.pointer("/requestBody/content") else { continue };
        if DATA.contains(&id) {
            continue;
        }
        let Some(schema) = content.pointer("/application~1json/schema/$ref").and_then(Value::as_str) else {
            problems.push(format!("{id}: its body has no schema of its own"));
            continue;
        };
        let properties = &document.pointer(schema.trim_start_matches('#')).unwrap()["properties"];
        let (_, body) = rule(id).unwrap();
        for field in FIELDS.into_iter().filter(|field| !MEANT.contains(&(id, *field))) {
            if !properties[field].is_null() {
                problems.push(format!("{id}: takes `{field}`"));
            }
            let mut body = body.clone();
            body[field] = json!("x");
            let path = format!("/api/v1{}", super::filled(&operation.path));
            let answer = admin.call(operation.method.clone(), &path).json(&body).send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            if status == 422 && text.contains(&format!("`{field}`")) {
                refused += 1;
            } else {
                problems.push(format!("{id} with `{field}`: {status} {text}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(refused > 20 * FIELDS.len(), "{refused}");
    karat.stop().await;
}
