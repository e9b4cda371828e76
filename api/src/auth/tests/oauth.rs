//! Coming back from a provider, as a browser sees it: the provider is a stand-in for Facebook on loopback.

use karat_access::{ProviderKind, ProviderSettings};
use karat_oracle::plain_http::{self, read_request};
use tokio::net::{TcpListener, TcpStream};

use super::*;

pub(super) const AUTHORIZE: &str = "/api/v1/auth/oauth/facebook/authorize";
const CALLBACK: &str = "/api/v1/auth/oauth/facebook/callback";

/// An application with one provider, to which every code is a good one.
pub(super) async fn start() -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    let provider = ProviderSettings {
        name: "facebook".to_owned(),
        kind: ProviderKind::Facebook { site: site.clone(), api: site },
        client_id: "karat".to_owned(),
        client_secret: "a secret of the tests".to_owned().into(),
    };
    let with_provider = |accounts: AccessSettings| AccessSettings { providers: vec![provider], ..accounts };
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
    let cookie = reply.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let location: url::Url = reply.headers["location"].to_str().unwrap().parse().unwrap();
    let state = location.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    (cookie, state)
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
