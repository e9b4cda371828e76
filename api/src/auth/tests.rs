//! The account routes as a client sees them, on SQLite or on the server that [`databases`] finds.

mod administration;
mod audit;
mod avatars;
mod bodies;
mod cookies;
mod copies;
mod factors;
mod oauth;
mod outbox;
mod passkeys;
mod people;
mod phones;
mod programs;
mod recovery;
mod security;
mod user_settings;

use std::time::Duration;

use karat_access::{
    Access, AccessSettings, Actor, DatabaseAddress, DatabaseSettings, HashSettings, NewUser, Origin, Role,
};
use karat_http::{closed, harden};
use karat_oracle::databases;
use poem::http::Method;
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Route};
use poem_openapi::OpenApiService;
use serde_json::{Value, json};

use super::{AuthSettings, Experience, auth_apis, jwks};

const PASSWORD: &str = "nine-Blue-7-boats";

struct App {
    folder: tempfile::TempDir,
    access: Access,
    endpoint: Box<dyn poem::endpoint::DynEndpoint<Output = Response>>,
}

struct Reply {
    status: u16,
    headers: poem::http::HeaderMap,
    body: Value,
}

impl App {
    async fn start() -> Self {
        Self::start_with(AuthSettings::without_limits()).await
    }

    async fn start_with(settings: AuthSettings) -> Self {
        Self::start_on(settings, |accounts| accounts).await
    }

    /// With other settings of the accounts.
    async fn start_on(settings: AuthSettings, change: impl FnOnce(AccessSettings) -> AccessSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hashing = HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() };
        let mut access_settings = AccessSettings { hashing, ..AccessSettings::in_folder(folder.path()) };
        databases::create(folder.path()).await.unwrap();
        if let Some(address) = databases::address_of(folder.path()) {
            let address: DatabaseAddress = address.parse().unwrap();
            access_settings.database = DatabaseSettings { max_connections: 4, ..DatabaseSettings::at(address) };
            access_settings.database.acquire_timeout = Duration::from_secs(60);
        }
        let access = Access::open(change(access_settings)).await.unwrap();
        let service = OpenApiService::new(auth_apis(&access, &settings, &Experience::default()), "test", "1");
        let routes = Route::new().at("/.well-known/jwks.json", jwks(&access)).nest("/api/v1", service);
        let limits = settings.limits().unwrap();
        let routes = routes.around(move |routes, request| {
            let limits = limits.clone();
            async move {
                match limits {
                    Some(limits) => limits.call(routes.as_ref(), request).await,
                    None => routes.call(request).await.map(IntoResponse::into_response),
                }
            }
        });
        let endpoint = Box::new(poem::endpoint::ToDynEndpoint(harden(routes.data(access.clone()))));
        Self { folder, access, endpoint }
    }

    async fn call(&self, method: Method, path: &str, credential: Option<&str>, body: Option<Value>) -> Reply {
        let mut request = Request::builder().method(method).uri_str(path);
        if let Some(credential) = credential {
            request = request.header("authorization", format!("Bearer {credential}"));
        }
        let request = match body {
            Some(body) => request.content_type("application/json").body(body.to_string()),
            None => request.finish(),
        };
        self.send(request).await
    }

    async fn send(&self, request: Request) -> Reply {
        let mut response = self.endpoint.get_response(request).await;
        let text = response.take_body().into_string().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"));
        Reply { status: response.status().as_u16(), headers: response.headers().clone(), body }
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, None, Some(body)).await
    }

    async fn me(&self, credential: &str) -> Reply {
        self.call(Method::GET, "/api/v1/auth/me", Some(credential), None).await
    }

    /// The document of these routes.
    fn document(&self) -> Value {
        let apis = auth_apis(&self.access, &AuthSettings::default(), &Experience::default());
        serde_json::from_str(&closed(&OpenApiService::new(apis, "test", "1").spec())).unwrap()
    }

    async fn register(&self, username: &str) -> Reply {
        self.post("/api/v1/auth/register", json!({"username": username, "password": PASSWORD})).await
    }
}

impl Reply {
    fn text(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} in {}", self.body))
    }

    /// The status and the code of a refusal.
    fn refusal(&self) -> (u16, &str) {
        (self.status, self.text("/code"))
    }

    fn access_token(&self) -> &str {
        self.text("/data/access_token")
    }

    fn refresh_token(&self) -> &str {
        self.text("/data/refresh_token")
    }
}

#[tokio::test]
async fn registering_answers_tokens_that_work() {
    let app = App::start().await;
    let reply = app.register("maria_77").await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    assert_eq!((reply.text("/data/token_type"), reply.text("/data/user/role")), ("bearer", "user"));
    assert_eq!(reply.body["data"]["expires_in"], 3600);
    assert!(reply.body["data"]["user"].get("password_hash").is_none());
    let me = app.me(reply.access_token()).await;
    assert_eq!((me.status, me.text("/data/username")), (200, "maria_77"));
    assert_eq!(me.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_taken_name_is_a_conflict_that_names_the_field() {
    let app = App::start().await;
    app.register("maria_77").await;
    let reply = app.register("MARIA_77").await;
    assert_eq!(
        (reply.status, reply.text("/code"), reply.text("/details/0")),
        (409, "already_taken", "`username`: is taken")
    );
}

#[tokio::test]
async fn each_broken_password_rule_is_a_line_of_details() {
    let app = App::start().await;
    let reply = app.post("/api/v1/auth/register", json!({"username": "maria_77", "password": "abcd"})).await;
    assert_eq!(
        (reply.status, reply.text("/code"), reply.text("/error")),
        (422, "validation_error", "Validation Error")
    );
    let details = reply.body["details"].as_array().unwrap();
    for rule in ["8 to 128", "upper-case", "digit", "special", "sequence"] {
        let lines = details.iter().filter(|line| line.as_str().unwrap().contains(rule)).count();
        assert_eq!(lines, 1, "{rule}: {details:?}");
    }
}

#[tokio::test]
async fn security_55_fields_that_nobody_may_set_are_refused() {
    let app = App::start().await;
    for field in ["role", "id", "is_verified", "is_admin", "created_at", "level", "exp"] {
        let mut body = json!({"username": "maria_77", "password": PASSWORD});
        body[field] = json!("admin");
        let reply = app.post("/api/v1/auth/register", body).await;
        assert_eq!((reply.status, reply.text("/code")), (422, "validation_error"), "{field}");
    }
}

#[tokio::test]
async fn security_10_an_unknown_user_and_a_wrong_password_get_the_same_answer() {
    let app = App::start().await;
    app.register("maria_77").await;
    let wrong = app.post("/api/v1/auth/login", json!({"username": "maria_77", "password": "wrong"})).await;
    let unknown = app.post("/api/v1/auth/login", json!({"email": "no@example.org", "password": PASSWORD})).await;
    let without_ids = |reply: Reply| {
        let mut body = reply.body;
        body["request_id"].take();
        body["timestamp"].take();
        (reply.status, body)
    };
    let (wrong, unknown) = (without_ids(wrong), without_ids(unknown));
    assert_eq!(wrong, unknown);
    assert_eq!((wrong.0, wrong.1["code"].as_str()), (401, Some("invalid_credentials")));
}

#[tokio::test]
async fn logging_in_works_by_name_and_by_address() {
    let app = App::start().await;
    let body = json!({"username": "maria_77", "email": "maria@example.org", "password": PASSWORD});
    assert_eq!(app.post("/api/v1/auth/register", body).await.status, 201);
    for name in [json!({"username": "Maria_77"}), json!({"email": "MARIA@example.org"})] {
        let mut body = name;
        body["password"] = json!(PASSWORD);
        assert_eq!(app.post("/api/v1/auth/login", body).await.status, 200);
    }
    let neither = app.post("/api/v1/auth/login", json!({"password": PASSWORD})).await;
    assert_eq!((neither.status, neither.text("/code")), (422, "validation_error"));
}

#[tokio::test]
async fn a_used_refresh_token_ends_the_session() {
    let app = App::start().await;
    let first = app.register("maria_77").await;
    let refresh = |token: &str| app.post("/api/v1/auth/refresh", json!({"refresh_token": token}));
    let second = refresh(first.refresh_token()).await;
    assert_eq!(second.status, 200);
    assert_eq!(app.me(second.access_token()).await.status, 200);
    let reused = refresh(first.refresh_token()).await;
    assert_eq!((reused.status, reused.text("/code")), (401, "refresh_token_reused"));
    let after = app.me(second.access_token()).await;
    assert_eq!((after.status, after.text("/code")), (401, "token_revoked"));
    let child = refresh(second.refresh_token()).await;
    assert_eq!((child.status, child.text("/code")), (401, "invalid_refresh_token"));
}

#[tokio::test]
async fn log_out_kills_the_access_token() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let logout = app.call(Method::POST, "/api/v1/auth/logout", Some(tokens.access_token()), None).await;
    assert_eq!(logout.status, 200, "{}", logout.body);
    let me = app.me(tokens.access_token()).await;
    assert_eq!((me.status, me.text("/code")), (401, "token_revoked"));
}

#[tokio::test]
async fn log_out_everywhere_kills_every_session() {
    let app = App::start().await;
    let first = app.register("maria_77").await;
    let second = app.post("/api/v1/auth/login", json!({"username": "maria_77", "password": PASSWORD})).await;
    let reply = app.call(Method::POST, "/api/v1/auth/logout-all", Some(first.access_token()), None).await;
    assert_eq!(reply.body["data"]["sessions_ended"], 2);
    assert_eq!(app.me(second.access_token()).await.status, 401);
}

#[tokio::test]
async fn a_missing_or_foreign_credential_is_401_with_a_challenge() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let missing = app.call(Method::GET, "/api/v1/auth/me", None, None).await;
    assert_eq!((missing.status, missing.text("/code")), (401, "unauthenticated"));
    assert!(missing.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    for bad in ["x", "a.b.c", tokens.refresh_token(), "kk_00_00"] {
        let reply = app.me(bad).await;
        assert_eq!((reply.status, reply.text("/code")), (401, "invalid_token"), "{bad}");
    }
}

#[tokio::test]
async fn an_api_key_is_shown_once_works_by_its_scopes_and_cannot_manage() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let token = Some(tokens.access_token());
    let body = json!({"name": "nightly", "scopes": ["publish:etl.run.*", "read"], "expires_in_days": 30});
    let made = app.call(Method::POST, "/api/v1/api-keys", token, Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let (key, id) = (made.text("/data/key"), made.text("/data/details/id"));

    let refused = app.me(key).await;
    assert_eq!((refused.status, refused.text("/code")), (403, "forbidden"));
    for (method, path) in [(Method::GET, "/api/v1/api-keys"), (Method::DELETE, "/api/v1/api-keys/x")] {
        assert_eq!(app.call(method, path, Some(key), None).await.status, 403);
    }

    let listed = app.call(Method::GET, "/api/v1/api-keys", token, None).await;
    assert_eq!(listed.text("/data/0/id"), id);
    assert!(!listed.body.to_string().contains(key));

    let path = format!("/api/v1/api-keys/{id}");
    assert_eq!(app.call(Method::DELETE, &path, token, None).await.status, 200);
    let revoked = app.me(key).await;
    assert_eq!((revoked.status, revoked.text("/code")), (401, "token_revoked"));
    assert_eq!(app.call(Method::DELETE, &path, token, None).await.status, 404);
}

#[tokio::test]
async fn security_54_anothers_key_is_not_found() {
    let app = App::start().await;
    let (owner, stranger) = (app.register("maria_77").await, app.register("pedro_12").await);
    let body = json!({"name": "nightly", "scopes": ["read"]});
    let made = app.call(Method::POST, "/api/v1/api-keys", Some(owner.access_token()), Some(body)).await;
    let path = format!("/api/v1/api-keys/{}", made.text("/data/details/id"));
    assert_eq!(app.call(Method::DELETE, &path, Some(stranger.access_token()), None).await.status, 404);
    let listed = app.call(Method::GET, "/api/v1/api-keys", Some(stranger.access_token()), None).await;
    assert_eq!(listed.body["data"], json!([]));
}

#[tokio::test]
async fn a_user_cannot_make_a_key_that_publishes_for_others() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let body = json!({"name": "nightly", "scopes": ["publish_for_others"]});
    let reply = app.call(Method::POST, "/api/v1/api-keys", Some(tokens.access_token()), Some(body)).await;
    assert_eq!((reply.status, reply.text("/code")), (422, "validation_error"));
}

#[tokio::test]
async fn limits_hold_by_client_and_tell_when_to_come_back() {
    let app = App::start_with(AuthSettings::default()).await;
    // Another name each time: guesses at one account are held up before this limit is.
    let body = |n: u32| json!({"username": format!("person_{n}"), "password": "wrong"});
    for n in 0..10 {
        assert_eq!(app.post("/api/v1/auth/login", body(n)).await.status, 401);
    }
    let reply = app.post("/api/v1/auth/login", body(10)).await;
    assert_eq!((reply.status, reply.text("/code")), (429, "too_many_requests"));
    let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&seconds));
    let statuses = [1, 2, 3, 4, 5, 6].map(|n| app.register(if n < 6 { "ab" } else { "maria_77" }));
    let mut last = 0;
    for reply in statuses {
        last = reply.await.status;
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn the_public_keys_are_published_without_private_parts() {
    let app = App::start().await;
    let reply = app.call(Method::GET, "/.well-known/jwks.json", None, None).await;
    let key = &reply.body["keys"][0];
    assert_eq!((key["kty"].as_str(), key["alg"].as_str()), (Some("RSA"), Some("RS256")));
    for private in ["d", "p", "q", "dp", "dq", "qi"] {
        assert!(key.get(private).is_none());
    }
}

#[tokio::test]
async fn security_26_a_role_given_at_the_command_line_holds_for_tokens_already_out() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let new = NewUser {
        username: "shell_admin".to_owned(),
        email: None,
        password: PASSWORD.to_owned().into(),
        role: Role::Admin,
    };
    app.access.create_user(new, Actor::Shell, &Origin::default()).await.unwrap();
    let user = app.access.find_user_by_name("maria_77").await.unwrap().unwrap();
    app.access.set_role(user.id, Role::Operator, Actor::Shell, &Origin::default()).await.unwrap();
    assert_eq!(app.me(tokens.access_token()).await.text("/data/role"), "operator");
}

/// Who calls these has no credential yet, or proves something else.
const PUBLIC: [&str; 15] = [
    "/avatars/{name}",
    "/auth/oauth/{provider}/authorize",
    "/auth/oauth/{provider}/callback",
    "/auth/register",
    "/auth/login",
    "/auth/login/mfa",
    "/auth/refresh",
    "/auth/reset-password",
    "/auth/reset-password/confirm",
    "/auth/verify-email",
    "/auth/password-strength",
    "/auth/phone/request",
    "/auth/phone/verify",
    "/auth/mfa/passkeys/login",
    "/auth/mfa/passkeys/login/confirm",
];

#[tokio::test]
async fn every_operation_has_an_id_and_its_error_answers() {
    let document = App::start().await.document();
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            assert!(operation["operationId"].is_string(), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(operation["responses"]["500"].is_object(), "{method} {path}");
            let is_public = PUBLIC.contains(&path.as_str());
            assert_eq!(operation.get("security").is_none(), is_public, "{method} {path}");
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            if let Some(name) = body.as_str().and_then(|name| name.strip_prefix("#/components/schemas/")) {
                let others = &document["components"]["schemas"][name]["additionalProperties"];
                assert_eq!(others, &Value::Bool(false), "{name}");
            }
        }
    }
    assert_eq!(operations, 65);
}
