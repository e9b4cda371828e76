//! Secrets stand in no line of the log, however much is logged, and what a person sends cannot forge a line.

use std::fs;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{client::http, process::Folder, wait::until};

const PASSWORD: &str = "Canary-Horse-91-Staple";
const NEXT_PASSWORD: &str = "Canary-Zebra-92-Staple";

/// Every crate of ours, and the libraries that see requests and statements, as much as they can say.
const LEVELS: &str = "trace,librdkafka=off";

/// What requests have told, and where to send them.
struct Person {
    url: String,
    /// What may be in no log: its name, and the text.
    secrets: Vec<(&'static str, String)>,
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

#[tokio::test(flavor = "multi_thread")]
async fn security_29_and_81_no_secret_is_in_the_log_and_no_text_of_a_person_forges_a_line() {
    let folder = Folder::new();
    let words = ["up", "--listen", "127.0.0.1:0", "--without-limits", "--log-levels", LEVELS];
    let mut karat = folder.start("karat", &words);
    let mut person = Person { url: karat.url().await, secrets: Vec::new() };
    let url = person.url.clone();
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

    // A line of its own, and colours, by names that a person chooses.
    let forged = "nobody\r\n2026-01-01T00:00:00Z  INFO forged=true \u{1b}[31mred";
    answer(person.post("/auth/login", &json!({"username": forged, "password": PASSWORD}))).await;
    let agent = http().get(format!("{url}/api/v1/auth/me")).header("user-agent", "forged=true\tagent");
    answer(agent).await;
    karat.stop().await;

    let log =
        fs::read_to_string(folder.path("karat.err")).unwrap() + &fs::read_to_string(folder.path("karat.out")).unwrap();
    assert!(log.lines().count() > 500, "as much as can be said: {} lines", log.lines().count());
    for (name, secret) in &person.secrets {
        let line = log.lines().find(|line| line.contains(secret.as_str()));
        assert!(line.is_none(), "the {name} is in the log: {}", line.unwrap_or_default());
    }
    assert!(
        !log.contains('\u{1b}') && !log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")),
        "a forged line"
    );
}
