//! Every operation of the OpenAPI document by every kind of caller. An operation that is not listed here fails the
//! test: whoever adds a route says who may call it. Beside them: the paths outside the document, ids of others, fields that
//! nobody may set, bodies that are too large, and that reading changes nothing.

mod bodies;
mod ids;
mod outside;
mod reads;
mod sizes;

use std::{collections::HashMap, time::Duration};

use karat_access::{Access, AccessSettings, LoginOutcome, Origin};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::process::{Folder, PASSWORD, run};

/// Who may call an operation. `Anybody` needs no credential, `Session` the access token of a log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Anybody,
    /// Anybody with a credential, whatever it is for.
    Credential,
    Session,
    Publish,
    Read,
    /// Roles that ask in SQL, also by a key that reads.
    Query,
    /// Roles, of log-ins only.
    Roles(&'static [&'static str]),
}

use Right::{Anybody, Credential, Publish, Query, Read, Roles, Session};

const PEOPLE: Right = Roles(&["moderator", "admin"]);
const ADMIN: Right = Roles(&["admin"]);
const OPERATE: Right = Roles(&["operator", "admin"]);

/// Who may, and a body that is well formed.
fn rule(operation: &str) -> Option<(Right, Value)> {
    let none = Value::Null;
    let password = || json!({"password": "wrong"});
    let code = || json!({"phone": "+34600123456", "code_request": "x", "code": "000000"});
    Some(match operation {
        "read_daily_summary"
        | "read_weekly_summary"
        | "read_monthly_summary"
        | "read_sync_status"
        | "list_runs"
        | "list_job_runs"
        | "read_run"
        | "list_jobs"
        | "export_summary"
        | "export_runs"
        | "read_user_vitals"
        | "list_tables"
        | "read_table"
        | "read_table_rows"
        | "watch_chart"
        | "chat"
        | "read_event_stream"
        | "list_profits" => (Read, none),
        "query" => (Query, json!({"sql": "SELECT 1"})),
        "register" => (Anybody, json!({"username": "x", "password": "x"})),
        "login" => (Anybody, json!({"username": "nobody_1", "password": "wrong"})),
        "login_with_factor" => (Anybody, json!({"mfa_token": "x", "code": "000000"})),
        "refresh" => (Anybody, json!({"refresh_token": "x"})),
        "request_password_reset" => (Anybody, json!({"email": "nobody@example.org"})),
        "confirm_password_reset" => (Anybody, json!({"token": "x", "new_password": "x"})),
        "verify_email" => (Anybody, json!({"token": "x"})),
        "password_strength" => (Anybody, password()),
        "request_phone_code" => (Anybody, json!({"phone": "x"})),
        "login_by_phone" => (Anybody, code()),
        "oauth_authorize" | "oauth_callback" | "oauth_posted_callback" | "read_avatar" => (Anybody, none),
        "read_own_account"
        | "read_own_user"
        | "list_sessions"
        | "end_session"
        | "list_api_keys"
        | "revoke_api_key"
        | "request_email_verification"
        | "read_consent"
        | "revoke_consent"
        | "export_own_data"
        | "list_identities"
        | "list_passkeys"
        | "delete_avatar"
        | "read_user_settings"
        | "delete_user_setting"
        | "create_ws_ticket"
        | "set_avatar" => (Session, none),
        // Who has no right to other accounts is told that there is none.
        "read_user" => (PEOPLE, none),
        // A key is answered that it has no session.
        "logout" | "logout_all" => (Credential, none),
        "change_own_account" | "change_own_user" => (Session, json!({"version": 999})),
        "delete_own_user" | "enroll_totp" | "remove_totp" | "unlink_phone" | "oauth_unlink" => (Session, password()),
        "begin_passkey" | "remove_passkey" => (Session, password()),
        "confirm_passkey" => (Session, json!({"client_data_json": "x", "attestation_object": "x"})),
        "begin_passkey_login" => (Anybody, json!({})),
        "login_by_passkey" => {
            let signed = json!({"login_request": "x", "credential_id": "x", "client_data_json": "x",
                "authenticator_data": "x", "signature": "x"});
            (Anybody, signed)
        }
        "confirm_totp" => (Session, json!({"code": "000000"})),
        "renew_recovery_codes" => (Session, json!({"code": "000000", "password": "wrong"})),
        "change_password" => (Session, json!({"current_password": "wrong", "new_password": "x"})),
        "link_phone" => {
            let body = json!({"phone": "+34600123456", "code_request": "x", "code": "000000", "password": "wrong"});
            (Session, body)
        }
        "oauth_link" => (Session, json!({"provider": "none", "password": "wrong"})),
        "replace_user_settings" | "change_user_settings" => (Session, json!({})),
        "grant_consent" => (Session, json!({"version": ""})),
        "create_api_key" => (Session, json!({"name": "", "scopes": ["read"]})),
        "list_users" | "admin_list_users" => (PEOPLE, none),
        "change_user" | "admin_change_user" => (PEOPLE, json!({"version": 1, "is_active": true})),
        "admin_create_user" => (ADMIN, json!({"username": "x", "password": "x"})),
        "set_user_role" => (ADMIN, json!({"role": "user"})),
        "delete_user" | "admin_delete_user" | "admin_end_sessions" | "read_audit_log" => (ADMIN, none),
        "publish_events" => (Publish, json!([])),
        "publish_lineage" => (Publish, json!({})),
        "publish_lineage_batch" => (Publish, json!([])),
        "get_receipt" => (Credential, none),
        "startReplay" => (OPERATE, json!({"pipeline": "none"})),
        "getReplay" => (OPERATE, none),
        _ => return None,
    })
}

/// One kind of caller.
struct Caller {
    name: &'static str,
    credential: Option<String>,
    role: &'static str,
    is_session: bool,
    scopes: &'static [&'static str],
}

impl Caller {
    fn may(&self, right: Right) -> bool {
        match right {
            Anybody => true,
            _ if self.credential.is_none() || self.role.is_empty() => false,
            Credential => true,
            Session => self.is_session,
            Roles(roles) => self.is_session && roles.contains(&self.role),
            Publish => self.is_session || self.scopes.contains(&"publish:*"),
            Read => self.is_session || self.scopes.contains(&"read"),
            Query => ["operator", "admin"].contains(&self.role) && (self.is_session || self.scopes.contains(&"read")),
        }
    }

    /// The same at a path: a key with routes is refused on the others.
    fn may_at(&self, right: Right, path: &str) -> bool {
        let mut routes = self.scopes.iter().filter_map(|scope| scope.strip_prefix("route:")).peekable();
        let is_covered = |route: &str| match route.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == route,
        };
        self.may(right) && (right == Anybody || routes.peek().is_none() || routes.any(is_covered))
    }
}

#[tokio::test]
async fn security_53_every_operation_answers_those_who_may_and_refuses_the_others() {
    let folder = Folder::new();
    let callers = callers(&folder).await;
    let mut karat = folder.start("up", &["up", "--listen", "127.0.0.1:0", "--without-limits"]);
    let url = karat.url().await;
    let mut tokens = HashMap::new();
    let mut problems = Vec::new();
    let operations = operations(&document().await);
    for operation in &operations {
        let id = operation.id.as_str();
        let Some((right, body)) = rule(id) else {
            problems.push(format!("{id}: not listed: say in tests/end_to_end/matrix.rs who may call it"));
            continue;
        };
        for caller in &callers {
            let (refusal, text) = ask(&url, operation, &body, caller, &mut tokens).await;
            let may = caller.may_at(right, &filled(&operation.path));
            if may == refusal {
                problems.push(format!("{id} by {}: expected {may}, got {text}", caller.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(operations.len() > 50, "{}", operations.len());
}

/// One operation of the document.
struct Operation {
    id: String,
    method: Method,
    /// With the names of its parameters in braces.
    path: String,
    /// As the document has it.
    declared: Value,
}

async fn document() -> Value {
    serde_json::from_str(&run(&["openapi"]).await.ok()).unwrap()
}

fn operations(document: &Value) -> Vec<Operation> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, declared)| Operation {
            id: declared["operationId"].as_str().unwrap().to_owned(),
            method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
            path: path.clone(),
            declared: declared.clone(),
        })
    });
    operations.collect()
}

/// A path whose parameters name nothing that is there.
fn filled(path: &str) -> String {
    let path = path.replace("{id}", "00000000-0000-7000-8000-000000000000");
    let path = path.replace("{chart}", "line");
    let parameters = ["{run_id}", "{name}", "{provider}", "{source}", "{job}", "{key}", "{table}"];
    parameters.iter().fold(path, |path, parameter| path.replace(parameter, "none"))
}

async fn callers(folder: &Folder) -> Vec<Caller> {
    let mut callers = vec![Caller { name: "nobody", credential: None, role: "", is_session: false, scopes: &[] }];
    for role in ["user", "moderator", "operator", "admin"] {
        let name = format!("the_{role}");
        folder.account(&name, role).await;
        callers.push(Caller { name: role, credential: Some(name), role, is_session: true, scopes: &[] });
    }
    let keys: [(&str, &'static [&'static str]); 3] = [
        ("key that publishes", &["publish:*"]),
        ("key that reads", &["read"]),
        ("key of some routes", &["read", "publish:*", "route:/events", "route:/jobs", "route:/runs/*", "route:/users"]),
    ];
    for (name, scopes) in keys {
        let mut words = vec!["key", "create", "--owner", "the_admin"];
        words.extend(scopes.iter().flat_map(|scope| ["--scope", *scope]));
        let key = folder.run(&words).await.ok();
        callers.push(Caller { name, credential: Some(key), role: "admin", is_session: false, scopes });
    }
    let made_up = "eyJhbGciOiJub25lIn0.e30.".to_owned();
    for (name, token) in [("token that is none", made_up), ("expired token", expired_token(folder).await)] {
        callers.push(Caller { name, credential: Some(token), role: "", is_session: false, scopes: &[] });
    }
    callers
}

/// A token of the admin that the instance itself has signed, and that has expired.
async fn expired_token(folder: &Folder) -> String {
    let settings = AccessSettings::in_folder(&folder.path("data"));
    let access = Access::open(AccessSettings { access_token_ttl: Duration::ZERO, ..settings }).await.unwrap();
    let outcome = access.login("the_admin", PASSWORD.into(), &Origin::default()).await.unwrap();
    let LoginOutcome::Tokens(pair) = outcome else { panic!("no second factor was set up") };
    pair.access_token.expose_secret().to_owned()
}

/// Whether it was refused for who asks, and what was answered.
async fn ask(
    url: &str,
    operation: &Operation,
    body: &Value,
    caller: &Caller,
    tokens: &mut HashMap<String, String>,
) -> (bool, String) {
    let (id, path) = (operation.id.as_str(), filled(&operation.path));
    let credential = match &caller.credential {
        Some(name) if caller.is_session => {
            if !tokens.contains_key(name) {
                tokens.insert(name.clone(), log_in(url, name).await);
            }
            let token = tokens[name].clone();
            if id.starts_with("logout") {
                tokens.remove(name);
            }
            Some(token)
        }
        other => other.clone(),
    };
    let client = crate::client::http();
    let mut request = client.request(operation.method.clone(), format!("{url}/api/v1{path}"));
    if let Some(credential) = credential {
        request = request.bearer_auth(credential);
    }
    if !body.is_null() {
        let media = if id == "publish_events" { "application/cloudevents-batch+json" } else { "application/json" };
        request = request.header("content-type", media).body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    // A stream that is given has no end.
    let is_endless = answer.headers().get("content-type").is_some_and(|media| media == "text/event-stream");
    let text = if is_endless { String::new() } else { answer.text().await.unwrap() };
    assert!(
        !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED,
        "{id} by {}: {status} {text}",
        caller.name
    );
    let code = serde_json::from_str::<Value>(&text).ok().and_then(|body| Some(body["code"].as_str()?.to_owned()));
    let code = code.unwrap_or_default();
    if caller.name == "expired token" {
        assert!(!["unauthenticated", "invalid_token"].contains(&code.as_str()), "{id}: {text}");
    }
    let refusals = ["unauthenticated", "invalid_token", "token_revoked", "token_expired", "forbidden"];
    // Another person's account is not there for those who may not see it.
    let is_hidden = id == "read_user" && code == "not_found" && !["moderator", "admin"].contains(&caller.name);
    (refusals.contains(&code.as_str()) || is_hidden, format!("{status} {text}"))
}

async fn log_in(url: &str, name: &str) -> String {
    let body = json!({"username": name, "password": PASSWORD});
    let answer = crate::client::http().post(format!("{url}/api/v1/auth/login")).json(&body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer["data"]["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}
