//! Secrets stand in no line of the log, however much is logged, and what a person sends cannot forge a line.

mod others;
mod settings;

use std::{fs, time::SystemTime};

use karat_oracle::databases::tamper;
use reqwest::{RequestBuilder, header, redirect::Policy};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use self::others::{PROVIDERS_TOKEN, Web};
use crate::{client::http, process::Folder, wait::until};

const PASSWORD: &str = "Canary-Horse-91-Staple";
const NEXT_PASSWORD: &str = "Canary-Zebra-92-Staple";

/// Every crate of ours, and the libraries that see requests and statements, as much as they can say.
const LEVELS: &str = "trace,librdkafka=off";

const PHONE: &str = "+34600123456";

/// What may be in no log: its name, and the text.
type Secrets = Vec<(&'static str, String)>;

/// What requests have told, and where to send them.
struct Person {
    url: String,
    secrets: Secrets,
    /// Six digits each, which are looked for as a number of its own.
    codes: Secrets,
}

impl Person {
    fn keep(&mut self, name: &'static str, text: &str) {
        assert!(text.len() >= 16, "{name}: too short to be looked for: {text}");
        self.secrets.push((name, text.to_owned()));
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        http().post(format!("{}/api/v1{path}", self.url)).json(body)
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// The token of the newest mail with this subject.
async fn mailed_token(folder: &Folder, subject: &str) -> String {
    until("a mail with a link", async || {
        let files = fs::read_dir(folder.path("data/outbox")).ok()?.flatten();
        // Quoted-printable breaks long lines and writes `=` as `=3D`.
        let mut mails = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        let mail = mails.find(|mail| mail.contains(subject))?.replace("=\r\n", "").replace("=3D", "=");
        let token = mail.split("#token=").nth(1)?;
        Some(token.chars().take_while(char::is_ascii_hexdigit).collect())
    })
    .await
}

/// Everything that the process said, in which none of the secrets may be.
fn log_without(folder: &Folder, secrets: &[(&'static str, String)]) -> String {
    let said = ["karat.err", "karat.out"].map(|name| fs::read_to_string(folder.path(name)).unwrap());
    let log = said.concat();
    assert!(log.lines().count() > 500, "as much as can be said: {} lines", log.lines().count());
    for (name, secret) in secrets {
        let line = log.lines().find(|line| line.contains(secret.as_str()));
        assert!(line.is_none(), "the {name} is in the log: {}", line.unwrap_or_default());
    }
    log
}

/// Whether a line has these digits as a number of their own, beside its time, which has any digits.
fn has_number(line: &str, digits: &str) -> bool {
    let text = line.split_once(' ').map_or("", |(_, text)| text);
    let is_part = |near: Option<char>| near.is_some_and(|near| near.is_ascii_alphanumeric() || "._-".contains(near));
    text.match_indices(digits)
        .any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + digits.len()..].chars().next()))
}

#[test]
fn a_number_is_found_in_a_line_and_not_in_the_time_or_inside_of_others() {
    for line in ["t body=Body=123456+is", "t code: \"123456\",", "t 123456", "t (123456)"] {
        assert!(has_number(line, "123456"), "{line}");
    }
    for line in ["2026-01-01T00:00:00.123456Z x", "t took=0.123456", "t 1234567", "t a123456", "t 0-123456-7", "123456"]
    {
        assert!(!has_number(line, "123456"), "{line}");
    }
}

/// An authenticator is set up, and a recovery code is the second step of a log-in.
async fn second_factor(person: &mut Person) {
    let account = json!({"username": "bob", "password": PASSWORD});
    let (status, tokens) = answer(person.post("/auth/register", &account)).await;
    assert_eq!(status, 201, "{tokens}");
    let access = tokens["data"]["access_token"].as_str().unwrap();
    let enroll = person.post("/auth/mfa/totp", &json!({"password": PASSWORD})).bearer_auth(access);
    let (status, factor) = answer(enroll).await;
    assert_eq!(status, 200, "{factor}");
    let secret = factor["data"]["secret"].as_str().unwrap();
    person.keep("secret of the authenticator", secret);
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let code = totp.generate(now).to_string();
    let confirm = person.post("/auth/mfa/totp/confirm", &json!({"code": code})).bearer_auth(access);
    person.codes.push(("code of the authenticator", code));
    let (status, recovery) = answer(confirm).await;
    assert_eq!(status, 200, "{recovery}");
    let recovery = recovery["data"]["recovery_codes"].as_array().unwrap();
    for code in recovery {
        person.keep("recovery code", code.as_str().unwrap());
    }
    let (status, ticket) = answer(person.post("/auth/login", &json!({"username": "bob", "password": PASSWORD}))).await;
    assert_eq!(status, 200, "{ticket}");
    let ticket = ticket["data"]["mfa_token"].as_str().unwrap();
    person.keep("ticket for the second step", ticket);
    let second = json!({"mfa_token": ticket, "code": recovery[0]});
    let (status, tokens) = answer(person.post("/auth/login/mfa", &second)).await;
    assert_eq!(status, 200, "{tokens}");
    person.keep("refresh token of the second step", tokens["data"]["refresh_token"].as_str().unwrap());
}

/// A log-in by a code to a telephone.
async fn phone(person: &mut Person, web: &Web) {
    let (status, asked) = answer(person.post("/auth/phone/request", &json!({"phone": PHONE}))).await;
    assert_eq!(status, 200, "{asked}");
    let message = web.request("/2010-04-01/").await;
    let code = message.split("Body=").nth(1).unwrap()[..6].to_owned();
    person.keep("credentials at the service for messages", &web.credentials("/2010-04-01/").await);
    let verify = json!({"phone": PHONE, "code_request": asked["data"]["code_request"], "code": code});
    person.codes.push(("code to a telephone", code));
    let (status, tokens) = answer(person.post("/auth/phone/verify", &verify)).await;
    assert_eq!(status, 200, "{tokens}");
    person.keep("refresh token by telephone", tokens["data"]["refresh_token"].as_str().unwrap());
}

/// A log-in at a provider, up to the token that it gives for the code: that one names nobody.
async fn provider_login(person: &mut Person, web: &Web) {
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let start = format!("{}/api/v1/auth/oauth/own", person.url);
    let begun = client.get(format!("{start}/authorize")).send().await.unwrap();
    assert_eq!(begun.status(), 302);
    let text = |name: header::HeaderName| begun.headers()[name].to_str().unwrap().to_owned();
    let cookie = text(header::SET_COOKIE).split(';').next().unwrap().to_owned();
    let location = url::Url::parse(&text(header::LOCATION)).unwrap();
    let state = location.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    person.keep("cookie of the log-in at a provider", cookie.split_once('=').unwrap().1);
    person.keep("state of the log-in at a provider", &state);
    let code = "canary-code-of-the-provider";
    person.keep("code of the provider", code);
    person.keep("token of the provider", PROVIDERS_TOKEN);
    let back = client.get(format!("{start}/callback?code={code}&state={state}")).header(header::COOKIE, cookie);
    let (status, refused) = answer(back).await;
    assert_eq!(status, 401, "its token is none: {refused}");
    let exchange = web.request("/token").await;
    assert!(exchange.contains(code), "{exchange}");
    person.keep("credentials at the provider", &web.credentials("/token").await);
    let verifier = exchange.split("code_verifier=").nth(1).unwrap();
    person.keep("verifier", verifier.split('&').next().unwrap());
}

/// Errors of the server itself, with secrets in the requests. After this nobody can log in.
async fn failures(folder: &Folder, person: &Person, refresh_token: &str) {
    let file = folder.path("data/accounts.db");
    tamper(&file, "ALTER TABLE sessions RENAME TO sessions_that_are_away").await.unwrap();
    for (path, body) in [
        ("/auth/login", json!({"username": "ada", "password": NEXT_PASSWORD})),
        ("/auth/refresh", json!({"refresh_token": refresh_token})),
    ] {
        let (status, said) = answer(person.post(path, &body)).await;
        assert_eq!(status, 500, "{path}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_29_and_81_no_secret_is_in_the_log_and_no_text_of_a_person_forges_a_line() {
    no_secret_is_in_a_log_of("text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_29_and_81_no_secret_is_in_the_log_as_json_and_no_text_of_a_person_forges_a_line() {
    let folder = no_secret_is_in_a_log_of("json").await;
    for line in fs::read_to_string(folder.path("karat.err")).unwrap().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line["timestamp"].is_string()), "{line}");
    }
}

/// Everything that a person can do with secrets, and then the log of all of it.
async fn no_secret_is_in_a_log_of(format: &str) -> Folder {
    let folder = Folder::new();
    let words = ["up", "--listen", "127.0.0.1:0", "--without-limits", "--log-levels", LEVELS];
    let words = [&words[..], &["--sms-from", "+15005550006", "--log-format", format]].concat();
    let web = Web::start().await;
    let (sms, provider) =
        (web.url.replace("://", "://AC1:canary-sms-token@"), format!("own=karat:canary-client-secret@{}", web.url));
    let variables = [("KARAT__SMS__URL", sms.as_str()), ("KARAT__ACCESS__PROVIDERS", provider.as_str())];
    let mut karat = folder.start_with("karat", &words, &variables);
    let mut person = Person { url: karat.url().await, secrets: Vec::new(), codes: Vec::new() };
    let url = person.url.clone();
    person.keep("token of the service for messages", "canary-sms-token");
    person.keep("client secret", "canary-client-secret");
    person.keep("password", PASSWORD);
    person.keep("next password", NEXT_PASSWORD);

    let account = json!({"username": "ada", "email": "ada@example.org", "password": PASSWORD});
    assert_eq!(answer(person.post("/auth/register", &account)).await.0, 201);
    // Wrong ones are secrets too: people mistype, and send the password of another place.
    person.keep("wrong password", "Canary-Mouse-93-Staple");
    let wrong = json!({"username": "ada", "password": "Canary-Mouse-93-Staple"});
    assert_eq!(answer(person.post("/auth/login", &wrong)).await.0, 401);
    let (status, tokens) = answer(person.post("/auth/login", &json!({"username": "ada", "password": PASSWORD}))).await;
    assert_eq!(status, 200, "{tokens}");
    let access = tokens["data"]["access_token"].as_str().unwrap().to_owned();
    let refresh = tokens["data"]["refresh_token"].as_str().unwrap().to_owned();
    person.keep("access token", &access);
    person.keep("signature of the access token", access.rsplit('.').next().unwrap());
    person.keep("refresh token", &refresh);
    let key = json!({"name": "canary", "scopes": ["publish:*"]});
    let (status, key) = answer(person.post("/api-keys", &key).bearer_auth(&access)).await;
    assert_eq!(status, 201, "{key}");
    let key = key["data"]["key"].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
    person.keep("API key", &key);

    // In a header, in an address where it does not belong, and under a wrong name.
    for request in [
        http().get(format!("{url}/api/v1/auth/me")).bearer_auth(&access),
        http().get(format!("{url}/api/v1/auth/me?access_token={access}&password={PASSWORD}")),
        http().get(format!("{url}/api/v1/{access}")),
        http().get(format!("{url}/api/v1/receipts/{key}")).header("x-api-key", &key),
        person.post("/events", &json!([{"token": access}])).header("x-api-key", &key),
        person.post("/auth/refresh", &json!({"refresh_token": refresh, "password": PASSWORD})),
        person.post("/auth/verify-email", &json!({"token": access})),
        http().get(format!("{url}/api/v1/auth/oauth/none/callback?code={access}&state={refresh}")),
    ] {
        let (status, said) = answer(request).await;
        assert!(status < 500, "{status} {said}");
        let said = said.to_string();
        let is_own = |secret: &&(&str, String)| said.contains(secret.1.as_str());
        assert!(person.secrets.iter().find(is_own).is_none(), "an answer repeats a secret: {said}");
    }
    let (status, pair) = answer(person.post("/auth/refresh", &json!({"refresh_token": refresh}))).await;
    assert_eq!(status, 200, "{pair}");
    person.keep("second refresh token", pair["data"]["refresh_token"].as_str().unwrap());

    answer(person.post("/auth/reset-password", &json!({"email": "ada@example.org"}))).await;
    let token = mailed_token(&folder, "Reset your password").await;
    person.keep("token of a link", &token);
    let reset = json!({"token": token, "new_password": NEXT_PASSWORD});
    assert_eq!(answer(person.post("/auth/reset-password/confirm", &reset)).await.0, 200);

    second_factor(&mut person).await;
    phone(&mut person, &web).await;
    provider_login(&mut person, &web).await;
    failures(&folder, &person, pair["data"]["refresh_token"].as_str().unwrap()).await;

    // A line of its own, and colours, by names that a person chooses.
    let forged = "nobody\r\n2026-01-01T00:00:00Z  INFO forged=true \u{1b}[31mred";
    answer(person.post("/auth/login", &json!({"username": forged, "password": PASSWORD}))).await;
    let agent = http().get(format!("{url}/api/v1/auth/me")).header("user-agent", "forged=true\tagent");
    answer(agent).await;
    karat.stop().await;

    let log = log_without(&folder, &person.secrets);
    for (name, code) in &person.codes {
        let line = log.lines().find(|line| has_number(line, code));
        assert!(line.is_none(), "the {name} is in the log: {}", line.unwrap_or_default());
    }
    assert!(
        !log.contains('\u{1b}') && !log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")),
        "a forged line"
    );
    folder
}
