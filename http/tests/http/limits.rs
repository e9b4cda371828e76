//! Quotas, in this process and shared through Redis; CORS, host names.

use std::time::{Duration, Instant};

use karat_access::{Access, AccessSettings, Actor, HashSettings, NewApiKey, NewUser, Origin, Role, Scopes};
use karat_http::{HardenSettings, LimitSettings, Limits, Quota, RouteRule, SharedCounts, harden_with};
use karat_oracle::Redis;
use poem::http::{Method, StatusCode};
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Route, endpoint};
use secrecy::ExposeSecret;

fn settings(name: &'static str) -> LimitSettings {
    let quota = |requests| Quota { name, requests, window: Duration::from_secs(60) };
    LimitSettings {
        prefixes: &["/api/v1", "/api"],
        rules: vec![
            RouteRule { method: "POST", path: "/auth/login", quota: quota(2) },
            RouteRule { method: "GET", path: "/pictures/", quota: Quota { name: "pictures", ..quota(4) } },
        ],
        anonymous: quota(3),
        user: quota(5),
        api_key: quota(5),
        publishing: vec![],
        owner: Some(("/owner", "x-owner")),
    }
}

fn app(limits: std::sync::Arc<Limits>) -> impl Endpoint<Output = Response> {
    harden_with(limited(limits), HardenSettings::default())
}

fn limited(limits: std::sync::Arc<Limits>) -> impl Endpoint<Output = Response> {
    let fails = endpoint::make_sync(|_| poem::Error::from_status(StatusCode::CONFLICT).into_response());
    let unchanged = endpoint::make_sync(|_| StatusCode::NOT_MODIFIED.into_response());
    let routes = Route::new()
        .at("/api/v1/auth/login", endpoint::make_sync(|_| "ok"))
        .at("/api/auth/login", endpoint::make_sync(|_| "ok"))
        .at("/api/v1/fails", fails)
        .at("/api/v1/same", unchanged)
        .at("/health", endpoint::make_sync(|_| "ok"));
    routes.around(move |routes, request| {
        let limits = limits.clone();
        async move { limits.call(routes.as_ref(), request).await }
    })
}

async fn send(app: &impl Endpoint<Output = Response>, method: Method, path: &str) -> Response {
    app.get_response(Request::builder().method(method).uri_str(path).finish()).await
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn answers_tell_what_is_left_and_refusals_when_to_come_back() {
    let app = app(Limits::new(settings("login"), None));
    let first = send(&app, Method::POST, "/api/v1/auth/login").await;
    assert_eq!(header(&first, "ratelimit-policy"), "\"login\";q=2;w=60");
    assert_eq!(header(&first, "ratelimit"), "\"login\";r=1;t=60");
    // The other prefix is the same route.
    assert_eq!(send(&app, Method::POST, "/api/auth/login/").await.status(), StatusCode::NOT_FOUND);
    let refused = send(&app, Method::POST, "/api/auth/login").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!((1..=60).contains(&header(&refused, "retry-after").parse::<u64>().unwrap()));
    assert!(header(&refused, "ratelimit").starts_with("\"login\";r=0;"));
    for _ in 0..10 {
        assert_eq!(send(&app, Method::GET, "/health").await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn routes_that_begin_alike_can_share_a_quota() {
    let app = app(Limits::new(settings("anonymous"), None));
    let paths = ["/api/v1/pictures/a", "/api/pictures/b", "/api/v1/pictures/c/d", "/api/v1/pictures/a"];
    for (n, path) in paths.into_iter().enumerate() {
        let answer = send(&app, Method::GET, path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(header(&answer, "ratelimit").starts_with(&format!("\"pictures\";r={};", 3 - n)), "{path}");
    }
    let refused = send(&app, Method::GET, "/api/v1/pictures/e").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    // What begins otherwise, or is another method, does not fall under it.
    for (method, path) in [(Method::GET, "/api/v1/picturesque"), (Method::POST, "/api/v1/pictures/a")] {
        let other = send(&app, method, path).await;
        assert!(header(&other, "ratelimit").starts_with("\"anonymous\";"), "{path}");
    }
}

#[tokio::test]
async fn errors_carry_the_headers_too_and_unchanged_answers_cost_nothing() {
    let app = app(Limits::new(settings("anonymous"), None));
    assert_eq!(header(&send(&app, Method::GET, "/api/v1/nowhere").await, "ratelimit"), "\"anonymous\";r=2;t=60");
    assert_eq!(header(&send(&app, Method::GET, "/api/v1/fails").await, "ratelimit"), "\"anonymous\";r=2;t=60");
    for _ in 0..10 {
        assert_eq!(send(&app, Method::GET, "/api/v1/same").await.status(), StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test]
async fn made_up_keys_reach_the_database_a_few_times_only_and_hold_no_key_that_was_good_before() {
    let folder = tempfile::tempdir().unwrap();
    let hashing = HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() };
    // Every use of a key is looked up again.
    let key_cache_ttl = Duration::ZERO;
    let settings_of = AccessSettings { hashing, key_cache_ttl, ..AccessSettings::in_folder(folder.path()) };
    let access = Access::open(settings_of).await.unwrap();
    let password = "nine-Blue-7-boats".to_owned().into();
    let owner = NewUser { username: "maria_77".to_owned(), email: None, password, role: Role::User };
    let owner = access.create_user(owner, Actor::Shell, &Origin::default()).await.unwrap().id;
    let make = async || {
        let scopes = Scopes::parse(["read"]).unwrap();
        let new = NewApiKey { owner, name: "loader".to_owned(), scopes, expires_in: None, events_per_second: None };
        let key = access.create_api_key(new, Actor::Shell, &Origin::default()).await.unwrap();
        key.secret.expose_secret().to_owned()
    };
    let (known, new) = (make().await, make().await);
    let limits = Limits::new(LimitSettings { api_key: settings("api-key").anonymous, ..settings("anonymous") }, None);
    let app = harden_with(limited(limits).data(access.clone()), HardenSettings::default());
    let ask = async |path: &str, key: &str| {
        let request = Request::builder().uri_str(path).header("x-api-key", key).finish();
        app.get_response(request).await.status().as_u16()
    };
    assert_eq!(ask("/api/v1/same", &known).await, 304);
    for n in 0..3 {
        assert_eq!(ask("/api/v1/nowhere", &format!("kk_00{n}_00")).await, 404, "{n}");
    }
    // Nor by a way that is not counted: what is behind it may look at keys too.
    assert_eq!(ask("/health", "kk_0099_00").await, 429);
    // Also where another window would have room for them. The new key is good: nobody looked.
    for key in ["kk_0099_00", new.as_str()] {
        assert_eq!(ask("/api/v1/same", key).await, 429, "{key}");
    }
    assert_eq!(ask("/api/v1/same", &known).await, 304);
    assert_eq!(send(&app, Method::GET, "/api/v1/same").await.status().as_u16(), 304, "and who shows no key");
}

#[tokio::test]
async fn two_processes_share_their_counts_through_redis() {
    let Ok(url) = std::env::var("KARAT_TEST_REDIS") else {
        eprintln!("skipped: KARAT_TEST_REDIS names no server");
        return;
    };
    // A name of its own: other runs may use the same server.
    let name: &'static str = Box::leak(uuid::Uuid::now_v7().to_string().into_boxed_str());
    // A machine that is busy with other tests is not a server that is away.
    let counts = || SharedCounts::new(&url.clone().into()).unwrap().with_patience(Duration::from_secs(10));
    let process = || app(Limits::new(settings(name), Some(counts())));
    let (first, second) = (process(), process());
    assert_eq!(
        header(&send(&first, Method::POST, "/api/v1/auth/login").await, "ratelimit"),
        format!("\"{name}\";r=1;t=60")
    );
    // How much of the minute is left then, the machine decides.
    assert_eq!(left(&second).await, (200, "r=0".to_owned()));
    for app in [&first, &second] {
        assert_eq!(send(app, Method::POST, "/api/v1/auth/login").await.status(), StatusCode::TOO_MANY_REQUESTS);
    }
    for _ in 0..10 {
        assert_eq!(send(&first, Method::GET, "/api/v1/same").await.status(), StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test]
async fn without_redis_each_process_counts_alone_and_goes_on() {
    // Nothing listens there: the port was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let shared = SharedCounts::new(&format!("redis://{free}").into()).unwrap();
    let app = app(Limits::new(settings("login"), Some(shared)));
    for expected in [200, 200, 429] {
        assert_eq!(send(&app, Method::POST, "/api/v1/auth/login").await.status().as_u16(), expected);
    }
}

/// The status of a log-in, and what is left of its quota.
async fn left(app: &impl Endpoint<Output = Response>) -> (u16, String) {
    let answer = send(app, Method::POST, "/api/v1/auth/login").await;
    let left = header(&answer, "ratelimit").split(';').nth(1).unwrap_or_default().to_owned();
    (answer.status().as_u16(), left)
}

/// What is left once a log-in is allowed.
async fn left_when_allowed(app: &impl Endpoint<Output = Response>) -> String {
    let start = Instant::now();
    loop {
        let (status, left) = left(app).await;
        if status == 200 {
            return left;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "the limits are not shared again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn limits_go_on_when_redis_dies_and_are_shared_again_when_it_is_back() {
    let Some(mut redis) = Redis::start().await.unwrap() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let process = || {
        let shared = SharedCounts::new(&redis.url().into()).unwrap().with_patience(Duration::from_secs(10));
        // No window ends while this runs: then a count that begins anew is another count.
        let mut settings = settings("login");
        settings.rules[0].quota.window = Duration::from_secs(60 * 60);
        app(Limits::new(settings, Some(shared)))
    };
    let processes = [process(), process()];
    let [first, second] = &processes;
    assert_eq!(left(first).await, (200, "r=1".to_owned()));
    assert_eq!(left(second).await, (200, "r=0".to_owned()));
    assert_eq!(left(first).await.0, 429);

    redis.kill().unwrap();
    for app in &processes {
        for expected in [(200, "r=1"), (200, "r=0"), (429, "r=0")] {
            assert_eq!(left(app).await, (expected.0, expected.1.to_owned()), "each counts alone");
        }
    }

    redis.start_again().await.unwrap();
    // The counts of each are used up: who is allowed is counted in Redis again.
    assert_eq!(left_when_allowed(first).await, "r=1");
    assert_eq!(left_when_allowed(second).await, "r=0");
    for app in &processes {
        assert_eq!(left(app).await, (429, "r=0".to_owned()));
    }
}

/// Stands in front of a server: it takes one connection and no other, and passes its bytes on once it is told to.
async fn slow_door(server: &str) -> (std::net::SocketAddr, tokio::sync::oneshot::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, server) = (listener.local_addr().unwrap(), server.to_owned());
    let (open, opened) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        drop(listener);
        opened.await.unwrap();
        let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    });
    (address, open)
}

#[tokio::test]
async fn a_connection_to_redis_that_takes_longer_than_a_request_waits_is_kept() {
    let Some(redis) = Redis::start().await.unwrap() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let (door, open) = slow_door(redis.url().strip_prefix("redis://").unwrap()).await;
    let shared = SharedCounts::new(&format!("redis://{door}").into()).unwrap().with_patience(Duration::from_secs(1));
    // No window ends while this runs: then a count that begins anew is another count.
    let mut quotas = settings("login");
    quotas.rules[0].quota.window = Duration::from_secs(60 * 60);
    let app = app(Limits::new(quotas, Some(shared)));
    for expected in [(200, "r=1"), (200, "r=0"), (429, "r=0")] {
        assert_eq!(left(&app).await, (expected.0, expected.1.to_owned()), "it counts alone meanwhile");
    }
    open.send(()).unwrap();
    // Its own count is used up: who is allowed is counted in Redis, through the only connection that there can be.
    assert_eq!(left_when_allowed(&app).await, "r=1");
}

#[test]
fn an_address_of_redis_may_ask_for_tls() {
    for address in ["redis://:x@cache.example.org/1", "rediss://:x@cache.example.org/1"] {
        assert!(SharedCounts::new(&address.to_owned().into()).is_ok(), "{address}");
    }
    assert!(SharedCounts::new(&"http://cache.example.org".to_owned().into()).is_err());
}

#[tokio::test]
async fn security_78_only_listed_origins_may_read_answers() {
    let settings = HardenSettings { origins: "https://app.example.org".parse().unwrap(), ..HardenSettings::default() };
    let app = harden_with(Route::new().at("/x", endpoint::make_sync(|_| "ok")), settings);
    let send = async |method: Method, origin: &str| {
        let request = Request::builder().method(method).uri_str("/x").header("origin", origin);
        app.get_response(request.header("access-control-request-method", "POST").finish()).await
    };
    let allowed = send(Method::GET, "https://app.example.org").await;
    assert_eq!(header(&allowed, "access-control-allow-origin"), "https://app.example.org");
    assert_eq!(header(&allowed, "vary"), "origin");
    let asked = send(Method::OPTIONS, "https://app.example.org").await;
    assert_eq!((asked.status(), header(&asked, "access-control-max-age")), (StatusCode::NO_CONTENT, "600"));
    for origin in ["null", "https://app.example.org.evil.org", "https://evil.org", "http://app.example.org", "*"] {
        for method in [Method::GET, Method::OPTIONS] {
            let refused = send(method, origin).await;
            assert!(!refused.headers().contains_key("access-control-allow-origin"), "{origin}");
        }
    }
}

#[tokio::test]
async fn a_host_name_that_is_not_ours_is_not_answered() {
    let settings = HardenSettings { allowed_hosts: vec!["karat.example.org".to_owned()], ..HardenSettings::default() };
    let app = harden_with(Route::new().at("/x", endpoint::make_sync(|_| "ok")), settings);
    let send = async |host: &str| {
        app.get_response(Request::builder().uri_str("/x").header("host", host).finish()).await.status().as_u16()
    };
    assert_eq!((send("karat.example.org").await, send("KARAT.example.org:8080").await), (200, 200));
    for host in ["evil.example.org", "karat.example.org.evil.org", "", "[::1]:80"] {
        assert_eq!(send(host).await, 421, "{host}");
    }
}
