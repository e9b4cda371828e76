//! The id of what belongs to somebody else names nothing.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{Operation, PEOPLE, Right, document, filled, operations, rule};
use crate::{
    client::{Client, run_event},
    process::{Folder, PASSWORD},
    wait::until,
};

/// Of the events that [`run_event`] makes.
const RUN: &str = "run-000001";
const LISTS: [&str; 2] =
    ["/runs?from=2026-05-01&to=2026-05-31", "/jobs/generated/job-1/runs?from=2026-05-01&to=2026-05-31"];

/// Nobody's own: operators order replays, and all of them may see how one ended. And what only somebody with an authenticator
/// has: the suite of the accounts shows that a passkey of another is not found.
const NOT_HERE: [&str; 2] = ["getReplay", "remove_passkey"];

/// Ids of what one person has.
struct Owned {
    user: String,
    session: String,
    key: String,
    receipt: String,
}

impl Owned {
    /// A path with the id of what this person has there; none where it names nothing of a person.
    fn path(&self, operation: &Operation) -> Option<String> {
        let path = operation.path.as_str();
        let id = match path.split('/').nth(1)? {
            "auth" => &self.session,
            "api-keys" => &self.key,
            "receipts" => &self.receipt,
            "users" | "admin" => &self.user,
            "runs" => return Some(path.replace("{run_id}", RUN)),
            _ => return None,
        };
        Some(path.replace("{id}", id))
    }
}

async fn send(client: &Client, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let mut request = client.call(method.clone(), &format!("/api/v1{path}"));
    if !body.is_null() {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn first_id(client: &Client, path: &str) -> String {
    let list = client.data(path).await;
    list[0]["id"].as_str().unwrap_or_else(|| panic!("{list}")).to_owned()
}

#[tokio::test]
async fn security_54_every_id_of_another_is_not_found() {
    let folder = Folder::new();
    let key = folder.account("the_owner", "user").await;
    folder.account("the_stranger", "user").await;
    folder.account("the_admin", "admin").await;
    let mut karat = folder.start("up", &["up", "--listen", "127.0.0.1:0", "--without-limits"]);
    let url = karat.url().await;
    let owner = Client::log_in(&url, "the_owner", PASSWORD).await;
    let stranger = Client::log_in(&url, "the_stranger", PASSWORD).await;
    let admin = Client::log_in(&url, "the_admin", PASSWORD).await;
    let receipt = Client::new(&url, &key).arrive(&[run_event(1)], "gold").await;
    let owned = Owned {
        user: owner.data("/api/v1/users/me").await["id"].as_str().unwrap().to_owned(),
        session: first_id(&owner, "/api/v1/auth/sessions").await,
        key: first_id(&owner, "/api/v1/api-keys").await,
        receipt: receipt["receipt"].as_str().unwrap().to_owned(),
    };
    until("the run is served to its owner", async || {
        let (status, _) = send(&owner, &Method::GET, &format!("/runs/{RUN}"), &Value::Null).await;
        (status == StatusCode::OK).then_some(())
    })
    .await;
    let standing = |me: &Value| ["version", "role", "is_active"].map(|field| me[field].clone());
    let before = standing(&owner.data("/api/v1/users/me").await);

    let (mut asked, mut problems) = (0, Vec::new());
    let all = operations(&document().await);
    for operation in
        all.iter().filter(|operation| operation.path.contains("id}") && !NOT_HERE.contains(&operation.id.as_str()))
    {
        let id = operation.id.as_str();
        let (right, body) = rule(id).unwrap();
        let Some(path) = owned.path(operation) else {
            problems.push(format!("{id}: not listed: say in tests/end_to_end/matrix/ids.rs what its id names"));
            continue;
        };
        // Who may do nothing there is told so, and not whether there is something. An admin may see what everybody has,
        // and has no more right to sessions and keys than others.
        let (expected, others) = match right {
            Right::Roles(_) if right != PEOPLE || operation.method != Method::GET => (403, vec![&stranger]),
            Right::Session => (404, vec![&stranger, &admin]),
            _ => (404, vec![&stranger]),
        };
        for other in others {
            let (status, answer) = send(other, &operation.method, &path, &body).await;
            let (_, of_none) = send(other, &operation.method, &filled(&operation.path), &body).await;
            if status != expected || answer["code"] != of_none["code"] {
                problems.push(format!("{id}: {status} {answer}, and without such a thing {of_none}"));
            }
            asked += 1;
        }
    }
    let by_user = format!("{}&user={}", LISTS[0], owned.user);
    for path in LISTS.into_iter().chain([by_user.as_str()]) {
        let (_, seen) = send(&owner, &Method::GET, path, &Value::Null).await;
        let (_, answer) = send(&stranger, &Method::GET, path, &Value::Null).await;
        if !seen.to_string().contains(RUN) || answer.to_string().contains(RUN) {
            problems.push(format!("{path}: its owner sees {seen}, somebody else {answer}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(asked >= 12, "{asked}");

    // Nothing was done to any of it, and every id was a real one.
    assert_eq!(standing(&owner.data("/api/v1/users/me").await), before);
    for (method, path) in [
        (Method::GET, format!("/users/{}", owned.user)),
        (Method::GET, format!("/receipts/{}", owned.receipt)),
        (Method::GET, format!("/runs/{RUN}")),
        (Method::DELETE, format!("/api-keys/{}", owned.key)),
        (Method::DELETE, format!("/auth/sessions/{}", owned.session)),
    ] {
        let (status, answer) = send(&owner, &method, &path, &Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
    }
    karat.stop().await;
}
