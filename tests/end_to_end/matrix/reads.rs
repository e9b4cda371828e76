//! Reading changes nothing: a link that somebody is sent to does nothing in their name.

use std::collections::BTreeMap;

use karat_oracle::databases::rows_of;
use reqwest::Method;
use serde_json::json;

use super::{document, filled, operations};
use crate::{
    client::Client,
    process::{Folder, PASSWORD},
};

/// They begin and end a log-in at another provider, in the browser that began it.
const BY_BROWSERS: [&str; 2] = ["oauth_authorize", "oauth_callback"];

type Rows = BTreeMap<String, Vec<String>>;

/// The tables in which something is otherwise.
fn changed(before: &Rows, after: &Rows) -> Vec<String> {
    after.iter().filter(|(table, rows)| before.get(*table) != Some(*rows)).map(|(table, _)| table.clone()).collect()
}

#[tokio::test]
async fn security_30_no_get_changes_a_row() {
    let folder = Folder::new();
    folder.account("the_admin", "admin").await;
    let mut karat = folder.start("up", &["up", "--listen", "127.0.0.1:0", "--without-limits"]);
    let admin = Client::log_in(&karat.url().await, "the_admin", PASSWORD).await;
    admin.ready().await;
    let file = folder.path("data/accounts.db");
    let mut before = rows_of(&file).await.unwrap();
    let me = admin.data("/api/v1/users/me").await;
    let change = json!({"version": me["version"], "nickname": "Ada"});
    let answer = admin.call(Method::PUT, "/api/v1/users/me").json(&change).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut after = rows_of(&file).await.unwrap();
    assert!(changed(&before, &after).contains(&"users".to_owned()), "a change is seen");

    let mut problems = Vec::new();
    let (mut asked, mut left_out) = (0, 0);
    for operation in operations(&document().await).into_iter().filter(|operation| operation.method == Method::GET) {
        if BY_BROWSERS.contains(&operation.id.as_str()) {
            left_out += 1;
            continue;
        }
        let path = operation.path.replace("/users/{id}", &format!("/users/{}", me["id"].as_str().unwrap()));
        before = after;
        for method in [Method::GET, Method::HEAD, Method::GET] {
            let answer = admin.call(method, &format!("/api/v1{}", filled(&path))).send().await.unwrap();
            let status = answer.status();
            assert!(!status.is_server_error(), "{}: {status}", operation.id);
        }
        after = rows_of(&file).await.unwrap();
        let changed = changed(&before, &after);
        if !changed.is_empty() {
            problems.push(format!("{} changes {}", operation.id, changed.join(", ")));
        }
        asked += 1;
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(asked > 20, "{asked}");
    assert_eq!(left_out, BY_BROWSERS.len());
    karat.stop().await;
}
