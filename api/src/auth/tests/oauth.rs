//! Coming back from a provider, as a browser sees it: the provider is a stand-in for Facebook on loopback.

use karat_access::{ProviderKind, ProviderSettings};
use karat_oracle::plain_http::{self, read_request};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

pub(super) const AUTHORIZE: &str = "/api/v1/auth/oauth/facebook/authorize";
const CALLBACK: &str = "/api/v1/auth/oauth/facebook/callback";
const LINK: &str = "/api/v1/auth/oauth/link";
const UNLINK: &str = "/api/v1/auth/oauth/unlink/facebook";
const IDENTITIES: &str = "/api/v1/auth/oauth/identities";

/// An application with one provider, to which every code is a good one.
pub(super) async fn start() -> App {
    start_with(|accounts| accounts).await
}

/// With other settings of the accounts.
async fn start_with(change: impl FnOnce(AccessSettings) -> AccessSettings) -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    start_at(site, change).await
}

/// With the provider at an address.
async fn start_at(site: String, change: impl FnOnce(AccessSettings) -> AccessSettings) -> App {
    let provider = ProviderSettings {
        name: "facebook".to_owned(),
        kind: ProviderKind::Facebook { site: site.clone(), api: site },
        client_id: "karat".to_owned(),
        client_secret: "a secret of the tests".to_owned().into(),
    };
    let with_provider = |accounts| AccessSettings { providers: vec![provider], ..change(accounts) };
    App::start_on(AuthSettings::without_limits(), with_provider).await
}

async fn answer(mut socket: TcpStream) {
    let text = read_request(&mut socket).await;
    let is_exchange = text.starts_with("POST ");
    let body = if is_exchange { r#"{"access_token":"EAAB1"}"# } else { r#"{"id":"10229"}"# };
    plain_http::answer(&mut socket, "200 OK", body).await;
}

/// What a browser has after it was sent to the provider: its cookie, and the state in the address.
pub(super) async fn begin(app: &App, path: &str) -> (String, String) {
    let reply = app.call(Method::GET, path, None, None).await;
    assert_eq!(reply.status, 302, "{}", reply.body);
    begun(&reply, reply.headers["location"].to_str().unwrap())
}

fn begun(reply: &Reply, location: &str) -> (String, String) {
    let cookie = reply.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let location: url::Url = location.parse().unwrap();
    let state = location.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    (cookie, state)
}

/// A log-in at the provider, whoever has it.
pub(super) async fn log_in(app: &App) -> Reply {
    let (cookie, state) = begin(app, AUTHORIZE).await;
    come_back(app, &format!("code=x&state={state}"), Some(&cookie)).await
}

pub(super) async fn come_back(app: &App, query: &str, cookie: Option<&str>) -> Reply {
    let mut request = Request::builder().uri_str(format!("{CALLBACK}?{query}"));
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    app.send(request.finish()).await
}

async fn post_form(app: &App, path: &str, form: &str) -> Reply {
    let request = Request::builder().method(Method::POST).uri_str(path);
    let request = request.header("origin", "https://appleid.example.org");
    app.send(request.content_type("application/x-www-form-urlencoded").body(form.to_owned())).await
}

#[tokio::test]
async fn security_42_and_49_a_callback_that_is_posted_goes_on_by_get_with_the_same_checks() {
    let app = start().await;
    let (cookie, state) = begin(&app, AUTHORIZE).await;
    let form = format!("state={state}&code=a%26b%0D%0Ac&user=%7B%22name%22%3A%22Maria%22%7D&id_token=x");
    let posted = post_form(&app, CALLBACK, &form).await;
    assert_eq!(posted.status, 303, "{}", posted.body);
    assert!(posted.headers.get("set-cookie").is_none());
    // Relative, so that it stays on this host whatever a request says, and with nothing that was not asked for.
    let location = posted.headers["location"].to_str().unwrap();
    assert_eq!(location, format!("callback?code=a%26b%0D%0Ac&state={state}"));
    let query = location.split_once('?').unwrap().1;
    for (foreign, cookie) in [("no cookie", None), ("another browser's", Some(begin(&app, AUTHORIZE).await.0))] {
        let refused = come_back(&app, query, cookie.as_deref()).await;
        assert_eq!(refused.status, 401, "{foreign}: {}", refused.body);
    }
    let reply = come_back(&app, query, Some(&cookie)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(app.me(reply.access_token()).await.status, 200);
    assert_eq!(come_back(&app, query, Some(&cookie)).await.status, 401);
}

#[tokio::test]
async fn a_posted_callback_is_a_small_form_for_a_provider_that_is_set_up() {
    let app = start().await;
    let refused = post_form(&app, CALLBACK, "error=user_cancelled_authorize&state=x").await;
    assert_eq!(refused.headers["location"], "callback?state=x&error=user_cancelled_authorize");
    let none = post_form(&app, "/api/v1/auth/oauth/none/callback", "state=x").await;
    assert_eq!((none.status, none.text("/code")), (404, "not_found"));
    let twice = post_form(&app, CALLBACK, "state=x&state=y").await;
    assert_eq!((twice.status, twice.text("/code")), (400, "bad_form"));
    let large = post_form(&app, CALLBACK, &format!("state={}", "x".repeat(9_000))).await;
    assert_eq!((large.status, large.text("/code")), (413, "body_too_large"));
    let json = app.post(CALLBACK, json!({"state": "x"})).await;
    assert_eq!((json.status, json.text("/code")), (415, "unsupported_media_type"));
}

#[tokio::test]
async fn a_log_in_at_a_provider_is_added_listed_and_removed() {
    let app = start().await;
    let (maria, pedro) = (app.register("maria_77").await, app.register("pedro_12").await);
    let link = async |caller: &Reply, body| app.call(Method::POST, LINK, Some(caller.access_token()), Some(body)).await;
    for (body, expected) in [
        (json!({"provider": "facebook"}), (422, "validation_error")),
        (json!({"provider": "facebook", "password": "wrong"}), (401, "invalid_credentials")),
        (json!({"provider": "none", "password": PASSWORD}), (404, "not_found")),
    ] {
        assert_eq!(link(&maria, body.clone()).await.refusal(), expected, "{body}");
    }
    let finish = async |asked: &Reply| {
        let (cookie, state) = begun(asked, asked.text("/data/authorize_url"));
        come_back(&app, &format!("code=x&state={state}"), Some(&cookie)).await
    };
    let right = json!({"provider": "facebook", "password": PASSWORD});
    let asked = link(&maria, right.clone()).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    let flow = asked.headers["set-cookie"].to_str().unwrap();
    for part in ["__Host-karat-oauth=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=600"] {
        assert!(flow.contains(part), "{flow}");
    }
    let linked = finish(&asked).await;
    assert_eq!((linked.status, &linked.body["data"]), (200, &json!({})), "it is no log-in: {}", linked.body);
    assert!(linked.headers["set-cookie"].to_str().unwrap().ends_with("; Max-Age=0"));

    let identities = async |caller: &Reply| app.call(Method::GET, IDENTITIES, Some(caller.access_token()), None).await;
    let listed = identities(&maria).await;
    assert_eq!(listed.body["data"].as_array().map(Vec::len), Some(1), "{}", listed.body);
    assert_eq!((listed.text("/data/0/provider"), listed.body["data"][0].get("email")), ("facebook", None));
    assert!(listed.text("/data/0/linked_at").ends_with('Z'), "{}", listed.body);
    assert_eq!(identities(&pedro).await.body["data"], json!([]));

    let login = log_in(&app).await;
    assert_eq!((login.status, login.text("/data/user/id")), (200, maria.text("/data/user/id")), "{}", login.body);
    let anothers = finish(&link(&pedro, right.clone()).await).await;
    assert_eq!(anothers.refusal(), (409, "already_taken"), "{}", anothers.body);
    assert_eq!(finish(&link(&maria, right).await).await.status, 200, "the own one is there already");

    let body = Some(json!({"password": PASSWORD}));
    let removed = app.call(Method::DELETE, UNLINK, Some(maria.access_token()), body).await;
    assert_eq!((removed.status, removed.text("/data")), (200, "facebook"), "{}", removed.body);
    assert_eq!(identities(&maria).await.body["data"], json!([]));
    assert_eq!(app.me(login.access_token()).await.refusal(), (401, "token_revoked"), "every other session ends");
    assert_eq!(app.me(maria.access_token()).await.status, 200);
    let stranger = log_in(&app).await;
    assert_ne!(stranger.text("/data/user/id"), maria.text("/data/user/id"), "whoever logs in there is somebody new");
}

#[tokio::test]
async fn the_only_way_in_is_not_removed() {
    let app = start().await;
    let tokens = log_in(&app).await;
    let unlink = async |body| app.call(Method::DELETE, UNLINK, Some(tokens.access_token()), Some(body)).await;
    // The log-in is fresh and stands for the password that there is not.
    assert_eq!(unlink(json!({})).await.refusal(), (409, "last_way_in"));
    let path = "/api/v1/auth/change-password";
    let body = Some(json!({"new_password": PASSWORD}));
    assert_eq!(app.call(Method::POST, path, Some(tokens.access_token()), body).await.status, 200);
    assert_eq!(unlink(json!({})).await.refusal(), (422, "validation_error"), "now there is one");
    assert_eq!(unlink(json!({"password": PASSWORD})).await.status, 200);
}

#[tokio::test]
async fn a_provider_that_is_unknown_or_away_says_so_without_inner_text() {
    // Nobody listens there, and nobody else gets the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = socket.local_addr().unwrap();
    let app = start_at(format!("http://{nobody}"), |accounts| accounts).await;
    let unknown = app.call(Method::GET, "/api/v1/auth/oauth/none/authorize", None, None).await;
    assert_eq!(unknown.refusal(), (404, "not_found"));
    let away = log_in(&app).await;
    assert_eq!(away.refusal(), (503, "delivery_failed"), "{}", away.body);
    assert_eq!(away.headers["retry-after"], "60");
    for inner in [nobody.to_string().as_str(), "connect", "reqwest", "os error"] {
        assert!(!away.body.to_string().contains(inner), "{inner}: {}", away.body);
    }
}

#[tokio::test]
async fn where_registration_is_closed_a_provider_brings_nobody_new() {
    let app = start_with(|accounts| AccessSettings { registration_open: false, ..accounts }).await;
    let refused = log_in(&app).await;
    assert_eq!(refused.refusal(), (403, "forbidden"), "{}", refused.body);
    assert!(refused.headers.get("set-cookie").is_none(), "{:?}", refused.headers);
    assert_eq!(app.register("maria_77").await.refusal(), (403, "forbidden"));
    let everybody = app.access.search_users(&karat_access::UserFilter::default(), 10).await.unwrap();
    assert!(everybody.is_empty(), "{everybody:?}");
}
