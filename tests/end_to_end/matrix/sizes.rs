//! Bodies that are too large, at every operation that takes one.

use super::{Operation, document, filled, operations};
use crate::{
    client::Client,
    process::{Folder, PASSWORD},
};

/// What an operation takes at most, in bytes.
fn limit(id: &str) -> usize {
    match id {
        "publish_events" | "publish_lineage" | "publish_lineage_batch" => 10 << 20,
        "set_avatar" => 5 << 20,
        "change_user_settings" | "replace_user_settings" => 256 << 10,
        "oauth_posted_callback" => 8 << 10,
        "query" => 6 * 20_000 + 1_024,
        _ => 64 << 10,
    }
}

fn media(operation: &Operation) -> Option<String> {
    let content = operation.declared.pointer("/requestBody/content")?.as_object()?;
    content.keys().next().cloned()
}

#[tokio::test]
async fn security_75_every_operation_with_a_body_refuses_one_over_its_limit() {
    let folder = Folder::new();
    folder.account("the_admin", "admin").await;
    let mut karat = folder.start("up", &["up", "--listen", "127.0.0.1:0", "--without-limits", "--without-pipelines"]);
    let admin = Client::log_in(&karat.url().await, "the_admin", PASSWORD).await;
    let (mut problems, mut refused) = (Vec::new(), 0);
    for operation in operations(&document().await) {
        let Some(media) = media(&operation) else { continue };
        let path = format!("/api/v1{}", filled(&operation.path));
        let body = vec![b' '; limit(&operation.id) + 1];
        let request = admin.call(operation.method.clone(), &path).header("content-type", media).body(body);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        if status == 413 && text.contains("\"code\":\"body_too_large\"") {
            refused += 1;
        } else {
            problems.push(format!("{}: {status} {text}", operation.id));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(refused > 30, "{refused}");
    karat.stop().await;
}
