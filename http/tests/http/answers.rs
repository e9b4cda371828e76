//! Every answer conforms, whoever makes it.

use karat_http::{
    Answer, ApiError, FormBody, HardenSettings, JsonBody, closed, error_answers, harden, harden_with, ok,
};
use poem::http::{Method, StatusCode, header};
use poem::{Body, Endpoint, EndpointExt, IntoResponse, Request, Response, Route, endpoint, get, handler};
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi, OpenApiService};
use serde::Deserialize;
use serde_json::Value;

#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    age: Option<u8>,
}

error_answers! {
    /// Errors of the sample operations.
    SampleError: 400, 404, 409, 422;
}

struct Api;

#[OpenApi]
impl Api {
    /// Greet
    #[oai(path = "/people/:id", method = "get", operation_id = "greet")]
    async fn greet(&self, id: Path<u32>, times: Query<Option<u8>>) -> Result<Answer<String>, SampleError> {
        match id.0 {
            1 => Ok(ok(format!("hello x{}", times.0.unwrap_or(1)), "greeted")),
            2 => Err(ApiError::conflict("name_taken", "the name is taken").detail("`name`: is taken"))?,
            _ => Err(ApiError::internal("SELECT secret FROM /var/lib/thing"))?,
        }
    }

    /// Add
    #[oai(path = "/people", method = "post", operation_id = "add")]
    async fn add(&self, body: JsonBody<Person, 64>) -> Result<Answer<String>, SampleError> {
        let age = body.age.unwrap_or(0);
        Ok(ok(format!("{} {age}", body.name), "added"))
    }

    /// Add by a form
    #[oai(path = "/people/form", method = "post", operation_id = "add_by_form")]
    async fn add_by_form(&self, body: FormBody<Person, 64>) -> Result<Answer<String>, SampleError> {
        let FormBody(person) = body;
        Ok(ok(format!("{} {}", person.name, person.age.unwrap_or(0)), "added"))
    }
}

#[handler]
fn panics() -> Response {
    panic!("secret in a panic")
}

fn app() -> impl Endpoint<Output = Response> {
    let routes = Route::new()
        .nest("/api", OpenApiService::new(Api, "sample", "1"))
        .at("/panic", get(panics))
        .at("/text", get(endpoint::make_sync(|_| (StatusCode::IM_A_TEAPOT, "internal words"))))
        .at("/page", get(endpoint::make_sync(|_| poem::web::Html("<p>hi</p>"))));
    harden(routes)
}

async fn send(request: Request) -> (Response, Value) {
    let mut response = app().get_response(request).await;
    let text = response.take_body().into_string().await.unwrap();
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (response, value)
}

async fn fetch(method: Method, path: &str) -> (Response, Value) {
    send(Request::builder().method(method).uri_str(path).finish()).await
}

async fn post(content_type: &str, body: &str) -> (Response, Value) {
    let request = Request::builder().method(Method::POST).uri_str("/api/people").content_type(content_type);
    send(request.body(body.to_owned())).await
}

fn assert_envelope(response: &Response, body: &Value, status: u16, code: &str) {
    assert_eq!((response.status().as_u16(), body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(body["status"], "error");
    assert_eq!(response.content_type(), Some("application/json; charset=utf-8"));
    assert_eq!(body["request_id"].as_str(), response.header("x-request-id"));
    for key in ["error", "message", "details", "timestamp"] {
        assert!(!body[key].is_null(), "{key} in {body}");
    }
}

#[tokio::test]
async fn success_has_the_envelope() {
    let (response, body) = fetch(Method::GET, "/api/people/1?times=3").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((body["status"].as_str(), body["data"].as_str()), (Some("success"), Some("hello x3")));
    assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn security_67_errors_made_by_the_framework_are_in_the_envelope() {
    let cases = [
        (Method::GET, "/nowhere", 404, "not_found"),
        (Method::GET, "/api/nowhere", 404, "not_found"),
        (Method::DELETE, "/api/people/1", 405, "method_not_allowed"),
        (Method::TRACE, "/page", 405, "method_not_allowed"),
        (Method::GET, "/api/people/one", 400, "invalid_parameter"),
        (Method::GET, "/api/people/1?times=1000", 400, "invalid_parameter"),
        (Method::GET, "/panic", 500, "internal_error"),
        (Method::GET, "/text", 418, "bad_request"),
    ];
    for (method, path, status, code) in cases {
        let (response, body) = fetch(method, path).await;
        assert_envelope(&response, &body, status, code);
    }
}

#[tokio::test]
async fn security_65_and_67_bodies_of_the_wrong_kind_are_in_the_envelope_and_name_the_field() {
    let json = "application/json";
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(100));
    let cases = [
        ("text/plain", "{}", 415, "unsupported_media_type", ""),
        (json, "{", 400, "bad_json", ""),
        (json, "", 400, "bad_json", ""),
        (json, "{\"age\":1}", 422, "validation_error", "name"),
        (json, "{\"name\":\"a\",\"role\":\"admin\"}", 422, "validation_error", "role"),
        (json, "{\"name\":\"a\",\"name\":\"b\"}", 422, "validation_error", "name"),
        (json, "{\"name\":12345}", 422, "validation_error", "a string"),
        (json, "{\"name\":\"a\",\"age\":300}", 422, "validation_error", "u8"),
        (json, long.as_str(), 413, "body_too_large", ""),
    ];
    for (content_type, sent, status, code, detail) in cases {
        let (response, body) = post(content_type, sent).await;
        assert_envelope(&response, &body, status, code);
        assert!(body["details"].to_string().contains(detail), "{sent}: {body}");
        assert!(!body.to_string().contains("12345"), "what was sent is not echoed: {body}");
    }
    assert_eq!(post("application/vnd.x+json", "{\"name\":\"a\"}").await.0.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_form_is_read_under_its_limit_and_one_that_is_none_is_refused_in_the_envelope() {
    let form = "application/x-www-form-urlencoded";
    let send_form = async |content_type: &str, sent: &str| {
        let request = Request::builder().method(Method::POST).uri_str("/api/people/form").content_type(content_type);
        send(request.body(sent.to_owned())).await
    };
    let (response, body) = send_form(&format!("{form}; charset=utf-8"), "name=Mar%C3%ADa+L&age=7").await;
    assert_eq!((response.status(), body["data"].as_str()), (StatusCode::OK, Some("María L 7")), "{body}");
    let long = format!("name={}", "x".repeat(60));
    for (content_type, sent, status, code) in [
        ("application/json", "{}", 415, "unsupported_media_type"),
        (form, "age=7", 400, "bad_form"),
        (form, "name=a&name=12345", 400, "bad_form"),
        (form, "name=a&age=12345", 400, "bad_form"),
        (form, long.as_str(), 413, "body_too_large"),
    ] {
        let (response, body) = send_form(content_type, sent).await;
        assert_envelope(&response, &body, status, code);
        assert!(!body.to_string().contains("12345"), "what was sent is not echoed: {body}");
    }
}

#[tokio::test]
async fn an_error_of_our_own_keeps_its_code_and_details() {
    let (response, body) = fetch(Method::GET, "/api/people/2").await;
    assert_envelope(&response, &body, 409, "name_taken");
    assert_eq!(body["details"][0], "`name`: is taken");
}

#[tokio::test]
async fn security_67_internal_text_never_leaves() {
    for path in ["/api/people/3", "/panic", "/text"] {
        let (_, body) = fetch(Method::GET, path).await;
        for secret in ["SELECT", "secret", "/var", "internal words"] {
            assert!(!body.to_string().contains(secret), "{path}: {body}");
        }
    }
}

#[tokio::test]
async fn accept_chooses_problem_details() {
    for path in ["/nowhere", "/api/people/2", "/panic"] {
        let accept = "application/problem+json";
        let request = Request::builder().uri_str(path).header(header::ACCEPT, accept).finish();
        let (response, body) = send(request).await;
        assert_eq!(response.content_type(), Some(accept));
        assert_eq!(body["status"].as_u64(), Some(u64::from(response.status().as_u16())));
        let code = body["code"].as_str().unwrap();
        assert_eq!(body["type"], format!("urn:karat:error:{code}"));
        assert!(body["title"].is_string() && body["detail"].is_string() && body["instance"].is_string());
    }
}

#[tokio::test]
async fn a_good_request_id_is_taken_over_and_a_bad_one_replaced() {
    for (given, is_kept) in [("trace-7.A_b", true), ("a b", false), ("<script>", false)] {
        let request = Request::builder().uri_str("/nowhere").header("x-request-id", given).finish();
        let (response, body) = send(request).await;
        assert_eq!(response.header("x-request-id") == Some(given), is_kept, "{given}");
        assert_eq!(body["request_id"].as_str(), response.header("x-request-id"));
    }
}

#[tokio::test]
async fn security_67_and_78_every_answer_has_the_security_headers() {
    for path in ["/api/people/1", "/nowhere", "/panic", "/page"] {
        let (response, _) = fetch(Method::GET, path).await;
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("x-frame-options"), Some("DENY"));
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(response.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
        assert_eq!(response.header("strict-transport-security"), None);
        assert_eq!(response.header("server"), None);
    }
}

#[tokio::test]
async fn security_78_strict_transport_security_is_sent_only_when_tls_is_in_use() {
    let settings = HardenSettings { behind_tls: true, ..HardenSettings::default() };
    let app = harden_with(endpoint::make_sync(|_| "ok"), settings);
    let response = app.get_response(Request::default()).await;
    assert!(response.header("strict-transport-security").is_some());
}

#[tokio::test]
async fn a_handlers_own_headers_win() {
    let app = harden(endpoint::make_sync(|_| "ok".with_header("cache-control", "private")));
    let response = app.get_response(Request::default()).await;
    assert_eq!(response.header("cache-control"), Some("private"));
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_at_the_limit() {
    let settings = HardenSettings { max_body_bytes: 10, ..HardenSettings::default() };
    let count = endpoint::make(|mut request: Request| async move {
        Ok::<_, poem::Error>(request.take_body().into_vec().await?.len().to_string())
    });
    let app = harden_with(count, settings);
    for (chunks, status) in [(5, 200), (6, 413)] {
        let chunks = (0..chunks).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"xy")));
        let body = Body::from_bytes_stream(futures::stream::iter(chunks));
        let response = app.get_response(Request::builder().body(body)).await;
        assert_eq!(response.status().as_u16(), status);
    }
    let declared = Request::builder().header("content-length", "11").body(vec![b'x'; 11]);
    assert_eq!(app.get_response(declared).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn security_67_errors_inside_other_middleware_still_conform() {
    let app = harden(Route::new().at("/", get(panics)).catch_all_error(|error: poem::Error| async move {
        // What a careless wrapper does: the framework's text as the body.
        error.into_response()
    }));
    let mut response = app.get_response(Request::builder().uri_str("/lost").finish()).await;
    let body: Value = response.take_body().into_json().await.unwrap();
    assert_envelope(&response, &body, 404, "not_found");
}

#[test]
fn every_error_answer_is_documented() {
    let document: Value = serde_json::from_str(&OpenApiService::new(Api, "sample", "1").spec()).unwrap();
    let responses = &document["paths"]["/people"]["post"]["responses"];
    // The last seven are those of the layers around every operation.
    for status in ["200", "404", "409", "422", "400", "408", "413", "421", "429", "500", "503"] {
        assert!(responses[status]["content"].is_object(), "{status}: {responses}");
    }
    for status in ["429", "503"] {
        assert!(responses[status]["headers"]["Retry-After"].is_object(), "{status}: {responses}");
    }
    assert!(document["components"]["schemas"]["ErrorBody"].is_object());
    assert!(document["components"]["schemas"]["ProblemBody"].is_object());
}

#[test]
fn the_document_says_that_a_body_has_no_other_fields() {
    let document: Value = serde_json::from_str(&closed(&OpenApiService::new(Api, "sample", "1").spec())).unwrap();
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["Person"]["additionalProperties"], Value::Bool(false), "{schemas}");
    assert!(schemas["ErrorBody"].get("additionalProperties").is_none(), "{schemas}");
}

#[allow(dead_code, reason = "proves that an ApiError is an answer by itself")]
fn an_error_is_an_answer(error: ApiError) -> Response {
    error.into_response()
}
