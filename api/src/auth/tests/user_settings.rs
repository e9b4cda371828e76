//! The caller's settings, as a client sees them.

use super::*;

const PATH: &str = "/api/v1/user-settings";

/// An answer with its text: values of JSON here would lose digits.
struct Told {
    status: u16,
    etag: String,
    cache_control: String,
    text: String,
}

impl Told {
    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.text).unwrap();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    fn details(&self) -> Vec<String> {
        let body: Value = serde_json::from_str(&self.text).unwrap();
        body["details"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    }

    /// That these are the settings, in these very characters.
    fn assert_has(&self, settings: &str) {
        assert_eq!(self.status, 200, "{}", self.text);
        assert!(self.text.contains(&format!("\"data\":{settings},\"message\"")), "{}", self.text);
    }
}

async fn ask(app: &App, token: &str, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Told {
    let mut request = Request::builder().method(method).uri_str(path);
    request = request.header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = app.endpoint.get_response(request.body(body.to_owned())).await;
    let header = |name: &str| response.header(name).unwrap_or_default().to_owned();
    let (etag, cache_control) = (header("etag"), header("cache-control"));
    let text = response.take_body().into_string().await.unwrap();
    Told { status: response.status().as_u16(), etag, cache_control, text }
}

const JSON: (&str, &str) = ("content-type", "application/json");

async fn read(app: &App, token: &str) -> Told {
    ask(app, token, Method::GET, PATH, &[], "").await
}

async fn put(app: &App, token: &str, body: &str) -> Told {
    ask(app, token, Method::PUT, PATH, &[JSON], body).await
}

async fn patch(app: &App, token: &str, body: &str) -> Told {
    ask(app, token, Method::PATCH, PATH, &[JSON], body).await
}

#[tokio::test]
async fn settings_are_replaced_merged_and_removed_and_keep_every_digit() {
    let app = App::start().await;
    let (maria, pedro) = (app.register("maria_77").await, app.register("pedro_12").await);
    let token = maria.access_token();
    let empty = read(&app, token).await;
    empty.assert_has("{}");
    assert_eq!(empty.cache_control, "no-store");

    let big = "123456789012345678901234567890";
    let set = put(&app, token, &format!(r#"{{ "n": {big}, "a.b": {{"y": 1.50, "x": null}} }}"#)).await;
    set.assert_has(&format!(r#"{{"a.b":{{"x":null,"y":1.5}},"n":{big}}}"#));
    assert_ne!(set.etag, empty.etag);
    let merged = patch(&app, token, r#"{"a.b": null, "new": [true], "never": null}"#).await;
    merged.assert_has(&format!(r#"{{"n":{big},"new":[true]}}"#));
    let again = read(&app, token).await;
    again.assert_has(&format!(r#"{{"n":{big},"new":[true]}}"#));
    assert_eq!((&again.etag, again.etag.starts_with('"')), (&merged.etag, true));

    let removed = ask(&app, token, Method::DELETE, "/api/v1/user-settings/new", &[], "").await;
    removed.assert_has(&format!(r#"{{"n":{big}}}"#));
    for key in ["new", "a%20b", "%60"] {
        let gone = ask(&app, token, Method::DELETE, &format!("/api/v1/user-settings/{key}"), &[], "").await;
        assert_eq!((gone.status, gone.code().as_str()), (404, "not_found"), "{key}");
    }
    read(&app, pedro.access_token()).await.assert_has("{}");
}

#[tokio::test]
async fn each_broken_rule_of_settings_is_a_line_of_details_and_nothing_is_changed() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let token = tokens.access_token();
    put(&app, token, r#"{"kept":1}"#).await.assert_has(r#"{"kept":1}"#);
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let bad = format!(r#"{{"a b":1,"deep":{deep},"long":"{}","kept":2}}"#, "x".repeat(4095));
    let large = format!("\"{}\"", "x".repeat(4000));
    let many = |num: usize, value: &str| {
        let members: Vec<String> = (0..num).map(|n| format!("\"k{n}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    };
    for (body, words) in [
        (bad, &["`a b`: the key must be", "`deep`: the value may be nested", "`long`: the value may have"][..]),
        (many(101, "1"), &["at most 100 settings"]),
        (many(17, &large), &["at most 65536 bytes"]),
        (r#"{"a":1,"a":2}"#.to_owned(), &["the key `a` stands twice"]),
        (r#"{"a":{"b":1,"b":2}}"#.to_owned(), &["the key `b` stands twice"]),
        ("[".repeat(1000), &["nested deeper than"]),
        ("[1]".to_owned(), &["must be an object"]),
        ("null".to_owned(), &["must be an object"]),
    ] {
        for told in [put(&app, token, &body).await, patch(&app, token, &body).await] {
            assert_eq!((told.status, told.code().as_str()), (422, "validation_error"), "{}", told.text);
            let details = told.details();
            assert_eq!(details.len(), words.len(), "{details:?}");
            assert!(details.iter().zip(words).all(|(line, words)| line.contains(words)), "{details:?}");
        }
    }
    let null = put(&app, token, r#"{"kept":null}"#).await;
    assert_eq!((null.status, null.details().len()), (422, 1), "{}", null.text);
    for (media, body, status, code) in [
        ("application/json", "{", 400, "bad_json"),
        ("application/json", "", 400, "bad_json"),
        ("application/json", r#"{"a":01}"#, 400, "bad_json"),
        ("application/merge-patch+json", "{}", 415, "unsupported_media_type"),
        ("text/plain", "{}", 415, "unsupported_media_type"),
    ] {
        let told = ask(&app, token, Method::PATCH, PATH, &[("content-type", media)], body).await;
        assert_eq!((told.status, told.code().as_str()), (status, code), "{media} {body}");
    }
    let huge = put(&app, token, &" ".repeat(256 * 1024 + 1)).await;
    assert_eq!((huge.status, huge.code().as_str()), (413, "body_too_large"));
    read(&app, token).await.assert_has(r#"{"kept":1}"#);
}

#[tokio::test]
async fn a_change_of_settings_holds_only_for_the_state_that_it_names() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let token = tokens.access_token();
    let first = put(&app, token, r#"{"a":1}"#).await;
    let second = patch(&app, token, r#"{"b":2}"#).await;
    let weak = format!("W/{}", second.etag);
    for stale in [first.etag.as_str(), &weak, "none", ""] {
        for (method, path, body) in [
            (Method::PUT, PATH, "{}"),
            (Method::PATCH, PATH, r#"{"c":3}"#),
            (Method::DELETE, "/api/v1/user-settings/a", ""),
        ] {
            let told = ask(&app, token, method.clone(), path, &[JSON, ("if-match", stale)], body).await;
            assert_eq!((told.status, told.code().as_str()), (412, "settings_changed"), "{method} {stale}");
            assert!(told.details()[0].contains(&second.etag), "{}", told.text);
        }
    }
    // What is not there is not there, whatever the condition.
    let absent = ask(&app, token, Method::DELETE, "/api/v1/user-settings/z", &[("if-match", "none")], "").await;
    assert_eq!(absent.status, 404);
    let either = format!("{}, {}", first.etag, second.etag);
    let third = ask(&app, token, Method::PATCH, PATH, &[JSON, ("if-match", &either)], r#"{"c":3}"#).await;
    third.assert_has(r#"{"a":1,"b":2,"c":3}"#);
    let any = ask(&app, token, Method::DELETE, "/api/v1/user-settings/b", &[("if-match", "*")], "").await;
    any.assert_has(r#"{"a":1,"c":3}"#);
    let same = ask(&app, token, Method::PUT, PATH, &[JSON, ("if-match", &any.etag)], r#"{"c":3,"a":1}"#).await;
    assert_eq!((same.status, &same.etag), (200, &any.etag));
}

#[tokio::test]
async fn parallel_changes_of_different_settings_all_hold() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let token = tokens.access_token();
    let changes = (0..10).map(|n| {
        let app = &app;
        async move { patch(app, token, &format!("{{\"k{n}\":{n}}}")).await }
    });
    for told in futures::future::join_all(changes).await {
        assert_eq!(told.status, 200, "{}", told.text);
    }
    let members: Vec<String> = (0..10).map(|n| format!("\"k{n}\":{n}")).collect();
    read(&app, token).await.assert_has(&format!("{{{}}}", members.join(",")));
}

#[tokio::test]
async fn no_api_key_reads_or_changes_settings() {
    let app = App::start().await;
    let tokens = app.register("maria_77").await;
    let body = json!({"name": "nightly", "scopes": ["publish:*", "read"]});
    let made = app.call(Method::POST, "/api/v1/api-keys", Some(tokens.access_token()), Some(body)).await;
    let key = made.text("/data/key");
    for (method, path, body) in [
        (Method::GET, PATH, ""),
        (Method::PUT, PATH, "no JSON"),
        (Method::PATCH, PATH, "{}"),
        (Method::DELETE, "/api/v1/user-settings/a", ""),
    ] {
        let told = ask(&app, key, method.clone(), path, &[JSON], body).await;
        assert_eq!((told.status, told.code().as_str()), (403, "forbidden"), "{method}");
        let nobody = ask(&app, "", method.clone(), path, &[JSON], body).await;
        assert_eq!(nobody.status, 401, "{method}");
    }
}
