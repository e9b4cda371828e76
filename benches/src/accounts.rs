//! Sessions of made-up people, and what they ask of the account routes.
//!
//! None of the [`Route`]s hashes a password. Registering and logging in do, so that comes before what is measured. One route
//! asks nothing of the accounts, for comparison.

use serde_json::{Value, json};

use crate::{
    Error, Result,
    connection::{Answer, Connection, Target},
};

/// Where the routes are.
const PREFIX: &str = "/api/v1";
const PASSWORD: &str = "Only 4 one measurement!";
/// The most refreshes that a server lets a session have in an hour, whatever else is lifted.
pub const REFRESHES_PER_HOUR: u32 = 20;

/// A route of the accounts that costs no hash, or [`Route::Health`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Says that the process lives: what an answer takes of which nothing is asked.
    Health,
    Account,
    Sessions,
    Keys,
    Consent,
    Strength,
    Refresh,
}

/// One log-in.
pub struct Session {
    access_token: String,
    refresh_token: String,
}

impl Route {
    pub const ALL: [Self; 7] =
        [Self::Health, Self::Account, Self::Sessions, Self::Keys, Self::Consent, Self::Strength, Self::Refresh];

    /// Whether it is of the accounts, and its time something to judge.
    pub fn is_of_accounts(self) -> bool {
        self != Self::Health
    }

    /// Method and path; that of a route of the accounts is behind the API's prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "GET /health",
            Self::Account => "GET /auth/me",
            Self::Sessions => "GET /auth/sessions",
            Self::Keys => "GET /api-keys",
            Self::Consent => "GET /consent",
            Self::Strength => "POST /auth/password-strength",
            Self::Refresh => "POST /auth/refresh",
        }
    }
}

impl Session {
    /// Registers `num_people`, gives each an API key to list, and logs them in, in turn, until there are
    /// `num_sessions`. One after the other: a server refuses log-ins while too many passwords wait to be hashed.
    ///
    /// # Errors
    /// [`Error::Server`] with the server's answer and what to do about it.
    pub async fn open(server: &Target, num_people: u32, num_sessions: u32) -> Result<Vec<Self>> {
        let mut connection = Connection::open(server).await?;
        let nonce = chrono::Utc::now().timestamp_millis();
        let name_of = |person: u32| format!("load_{nonce:x}_{person}");
        for person in 0..num_people {
            let account = json!({"username": name_of(person), "password": PASSWORD});
            let request = request_to(server, "POST /auth/register", None, Some(&account));
            let session = Self::from_answer(data_of(server, connection.ask(&request).await?, 201)?)?;
            let key = json!({"name": "bench", "scopes": ["read"]});
            let request = session.authorised(server, "POST /api-keys", Some(&key));
            data_of(server, connection.ask(&request).await?, 201)?;
        }
        let mut sessions = Vec::new();
        for number in 0..num_sessions {
            let login = json!({"username": name_of(number % num_people), "password": PASSWORD});
            let request = request_to(server, "POST /auth/login", None, Some(&login));
            sessions.push(Self::from_answer(data_of(server, connection.ask(&request).await?, 200)?)?);
        }
        Ok(sessions)
    }

    /// The request of this session to a route.
    pub fn request(&self, server: &Target, route: Route) -> Vec<u8> {
        match route {
            Route::Refresh => {
                request_to(server, route.name(), None, Some(&json!({"refresh_token": self.refresh_token})))
            }
            Route::Health => server.at("/health").head("GET", None, &[]).into_bytes(),
            Route::Strength => request_to(server, route.name(), None, Some(&json!({"password": PASSWORD}))),
            Route::Account | Route::Sessions | Route::Keys | Route::Consent => {
                self.authorised(server, route.name(), None)
            }
        }
    }

    /// Goes on with the tokens of an answer to [`Route::Refresh`].
    ///
    /// # Errors
    /// [`Error::Json`] when it is no JSON, [`Error::WrongResult`] when no tokens are in it; those there were stay.
    pub fn renew(&mut self, body: &[u8]) -> Result<()> {
        *self = Self::from_answer(data_in(body)?)?;
        Ok(())
    }

    fn authorised(&self, server: &Target, route: &str, body: Option<&Value>) -> Vec<u8> {
        request_to(server, route, Some(&self.access_token), body)
    }

    fn from_answer(data: Value) -> Result<Self> {
        let token = |name: &str| data[name].as_str().map(str::to_owned);
        let tokens = token("access_token").zip(token("refresh_token"));
        let (access_token, refresh_token) =
            tokens.ok_or_else(|| Error::WrongResult("an answer without tokens".to_owned()))?;
        Ok(Self { access_token, refresh_token })
    }
}

/// A whole request; `route` is the method and the path behind the prefix.
fn request_to(server: &Target, route: &str, credential: Option<&str>, body: Option<&Value>) -> Vec<u8> {
    let (method, path) = route.split_once(' ').unwrap_or(("GET", route));
    let target = server.at(format!("{PREFIX}{path}"));
    let Some(body) = body.map(Value::to_string) else { return target.head(method, credential, &[]).into_bytes() };
    let length = body.len().to_string();
    let more = [("Content-Type", "application/json"), ("Content-Length", length.as_str())];
    (target.head(method, credential, &more) + &body).into_bytes()
}

/// What an answer holds, when it has the status that it must have.
fn data_of(server: &Target, answer: Answer<'_>, expected: u16) -> Result<Value> {
    if answer.status == expected {
        return data_in(answer.body);
    }
    let advice = match answer.status {
        202 => " (the server wants addresses confirmed: start it with `--email-verification false`)",
        403 => " (registration is closed there: open it for the measurement)",
        429 => " (a quota is used up: start the server with `--without-limits`, and say so beside the figures)",
        _ => "",
    };
    let body: String = String::from_utf8_lossy(answer.body).chars().take(500).collect();
    let reason = format!("making accounts was answered with {}{advice}: {body}", answer.status);
    Err(Error::Server { address: server.address.clone(), reason })
}

/// The data of an envelope; null when there is none.
fn data_in(body: &[u8]) -> Result<Value> {
    let mut envelope: Value = serde_json::from_slice(body)?;
    Ok(envelope.pointer_mut("/data").map(Value::take).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session { access_token: "first".to_owned(), refresh_token: "once".to_owned() }
    }

    #[test]
    fn each_route_is_asked_with_what_it_needs_and_nothing_else() {
        let server = Target::parse("http://localhost:1").unwrap();
        for route in Route::ALL {
            let text = String::from_utf8(session().request(&server, route)).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let (method, path) = route.name().split_once(' ').unwrap();
            let prefix = if route.is_of_accounts() { "/api/v1" } else { "" };
            assert!(head.starts_with(&format!("{method} {prefix}{path} HTTP/1.1\r\n")), "{head}");
            let is_own = method == "GET" && route.is_of_accounts();
            assert_eq!(head.contains("Authorization: Bearer first"), is_own, "{head}");
            assert_eq!(head.contains(&format!("Content-Length: {}", body.len())), method == "POST", "{head}");
        }
    }

    #[test]
    fn a_refresh_replaces_both_tokens_and_an_answer_without_them_none() {
        let server = Target::parse("http://localhost:1").unwrap();
        let mut session = session();
        session.renew(br#"{"data":{"access_token":"second","refresh_token":"next"}}"#).unwrap();
        let text = |route| String::from_utf8(session.request(&server, route)).unwrap();
        assert!(text(Route::Account).contains("Bearer second"));
        assert!(text(Route::Refresh).ends_with(r#"{"refresh_token":"next"}"#));
        for wrong in [&b"{}"[..], b"7", br#"{"data":{"access_token":"third"}}"#, b"not JSON"] {
            assert!(session.renew(wrong).is_err());
        }
        assert!(session.access_token == "second" && session.refresh_token == "next");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let server = Target::parse("http://localhost:1").unwrap();
        let refused =
            |status| data_of(&server, Answer { status, head: b"", body: b"why" }, 201).unwrap_err().to_string();
        assert!(refused(429).contains("--without-limits") && refused(429).ends_with("why"));
        assert!(refused(202).contains("--email-verification"));
        let answer = Answer { status: 201, head: b"", body: br#"{"data":7}"# };
        assert_eq!(data_of(&server, answer, 201).unwrap(), 7);
    }
}
