//! Logging in through a provider that lies: what is not exactly right in its answers leads nowhere.

use crate::liar::{CLIENT, DISCOVERY, JWKS, Liar, OLDER, RIGHT, STRANGER, TOKEN, now_s, public, sign};
use crate::support::{Instance, PASSWORD, secret, settings, who};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use karat_access::{
    Access, AccessError, AccessSettings, Callback, CallbackOutcome, LoginOutcome, Origin, ProviderKind,
    ProviderSettings, Redirect, TokenPair,
};
use serde_json::{Value, json};
use std::collections::HashMap;

struct Setup {
    instance: Instance,
    liar: Liar,
}

impl Setup {
    async fn start() -> Self {
        let (instance, liar) = (Instance::start().await, Liar::start().await);
        let mut setup = Self { instance, liar };
        setup.restart().await;
        setup
    }

    /// Another start, which knows nothing of the provider yet.
    async fn restart(&mut self) {
        let provider = ProviderSettings {
            name: "liar".to_owned(),
            kind: ProviderKind::Oidc { issuer: self.liar.issuer.clone() },
            client_id: CLIENT.to_owned(),
            client_secret: secret("a secret: 100% + more"),
        };
        let settings = AccessSettings { providers: vec![provider], ..settings(&self.instance.folder) };
        self.instance.access = Access::open(settings).await.unwrap();
    }

    async fn begin(&self) -> Result<Redirect, AccessError> {
        self.instance.access.begin_oauth_login("liar").await
    }

    async fn finish(&self, callback: Callback) -> Result<CallbackOutcome, AccessError> {
        self.instance.access.finish_oauth(callback, &Origin::default()).await
    }

    /// The claims for an attempt, without a lie.
    fn claims(&self, redirect: &Redirect) -> Value {
        self.liar.claims(&parameter(redirect, "nonce"))
    }

    /// Comes back to an attempt with an ID token.
    async fn come_back(&self, redirect: &Redirect, id_token: &str) -> Result<CallbackOutcome, AccessError> {
        self.liar.give(id_token);
        self.finish(callback(redirect)).await
    }

    /// A log-in whose claims were changed before they were signed.
    async fn log_in(&self, change: impl FnOnce(&mut Value)) -> Result<TokenPair, AccessError> {
        let redirect = self.begin().await?;
        let mut claims = self.claims(&redirect);
        change(&mut claims);
        self.come_back(&redirect, &sign(&RIGHT, Some("right"), &claims)).await.map(tokens)
    }
}

fn tokens(outcome: CallbackOutcome) -> TokenPair {
    match outcome {
        CallbackOutcome::Login(outcome) => match *outcome {
            LoginOutcome::Tokens(pair) => *pair,
            LoginOutcome::MfaRequired { .. } => panic!("no second factor was set up"),
        },
        CallbackOutcome::Linked => panic!("nothing was to be linked"),
    }
}

fn parameter(redirect: &Redirect, name: &str) -> String {
    let url = url::Url::parse(&redirect.url).unwrap();
    let pairs: HashMap<String, String> = url.query_pairs().into_owned().collect();
    pairs[name].clone()
}

fn callback(redirect: &Redirect) -> Callback {
    Callback {
        provider: "liar".to_owned(),
        code: secret("a code"),
        state: parameter(redirect, "state"),
        iss: None,
        cookie: redirect.cookie.clone(),
    }
}

fn remove(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name);
}

#[tokio::test]
async fn security_44_and_20_every_lie_of_an_id_token_is_refused() {
    type Lie = fn(&mut Value);
    let lies: &[(&str, Lie)] = &[
        ("the nonce of another log-in", |c| c["nonce"] = json!("00".repeat(16))),
        ("no nonce", |c| remove(c, "nonce")),
        ("a nonce that is null", |c| c["nonce"] = Value::Null),
        ("made for another client", |c| c["aud"] = json!("other")),
        ("made for other clients", |c| c["aud"] = json!(["other", "third"])),
        ("made for another client that names us", |c| {
            c["aud"] = json!("other");
            c["azp"] = json!(CLIENT);
        }),
        ("made for several, and for none of them", |c| c["aud"] = json!([CLIENT, "other"])),
        ("given to another client", |c| c["azp"] = json!("other")),
        ("no audience", |c| remove(c, "aud")),
        ("another issuer", |c| c["iss"] = json!("https://accounts.example.org")),
        ("nearly the issuer", |c| c["iss"] = json!(format!("{}/", c["iss"].as_str().unwrap()))),
        ("the issuer among others", |c| c["iss"] = json!([c["iss"].clone(), "https://accounts.example.org"])),
        ("no issuer", |c| remove(c, "iss")),
        ("over", |c| c["exp"] = json!(now_s() - 120)),
        ("no end", |c| remove(c, "exp")),
        ("an end that is text", |c| c["exp"] = json!("9999999999")),
        ("an end before 1970", |c| c["exp"] = json!(-1)),
        ("an end beyond numbers", |c| c["exp"] = json!(1e30)),
        ("made an hour ago", |c| c["iat"] = json!(now_s() - 3600)),
        ("made in an hour", |c| c["iat"] = json!(now_s() + 3600)),
        ("made at the end of time", |c| c["iat"] = json!(u64::MAX)),
        ("made at no time", |c| remove(c, "iat")),
        ("made at a text", |c| c["iat"] = json!("x")),
        ("made before 1970", |c| c["iat"] = json!(-1)),
        ("not valid yet", |c| c["nbf"] = json!(now_s() + 3600)),
        ("valid from a text on", |c| c["nbf"] = json!("x")),
        ("no subject", |c| remove(c, "sub")),
        ("an empty subject", |c| c["sub"] = json!("")),
        ("a subject that is a number", |c| c["sub"] = json!(7)),
        ("a subject that is too long", |c| c["sub"] = json!("m".repeat(256))),
    ];
    let setup = Setup::start().await;
    // Each refusal is for its lie alone: without one, the log-in goes through.
    let honest = setup.log_in(|_| {}).await.unwrap();
    for (name, lie) in lies {
        let refused = setup.log_in(*lie).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{name}: {refused:?}");
    }
    let forms: &[(&str, Lie)] = &[
        ("a list of one", |c| c["aud"] = json!([CLIENT])),
        ("a list of several, and for us of them", |c| {
            c["aud"] = json!(["other", CLIENT]);
            c["azp"] = json!(CLIENT);
        }),
        ("a clock that goes ahead a little", |c| c["iat"] = json!(now_s() + 20)),
    ];
    for (name, form) in forms {
        let same = setup.log_in(*form).await;
        assert!(same.as_ref().is_ok_and(|pair| pair.user.id == honest.user.id), "{name}: {same:?}");
    }
}

#[tokio::test]
async fn security_44_and_19_an_id_token_that_the_provider_did_not_sign_is_refused() {
    type Forgery = fn(&Value) -> String;
    let forgeries: &[(&str, Forgery)] = &[
        ("without a signature", |c| unsigned(&json!({"alg": "none", "kid": "right"}), c)),
        ("with an empty signature", |c| unsigned(&json!({"alg": "RS256", "kid": "right"}), c)),
        ("by the public key as a secret", |c| by_secret(public(&RIGHT, "right")["n"].as_str().unwrap(), c)),
        ("by the published key as a secret", |c| by_secret(&public(&RIGHT, "right").to_string(), c)),
        ("by a stranger", |c| sign(&STRANGER, Some("right"), c)),
        ("by a key that is not published", |c| sign(&STRANGER, Some("stranger"), c)),
        ("by one of several keys, without saying which", |c| sign(&RIGHT, None, c)),
        ("by a key that it brings itself", |c| {
            let jwk = serde_json::from_value(public(&STRANGER, "right")).unwrap();
            let header = Header { kid: Some("right".to_owned()), jwk: Some(jwk), ..Header::new(Algorithm::RS256) };
            encode(&header, c, &STRANGER).unwrap()
        }),
        ("by another algorithm than the key's", |c| {
            let header = Header { kid: Some("right".to_owned()), ..Header::new(Algorithm::RS512) };
            encode(&header, c, &RIGHT).unwrap()
        }),
        ("and changed afterwards", |c| {
            let signed = sign(&RIGHT, Some("right"), c);
            let parts: Vec<&str> = signed.split('.').collect();
            let mut claims = c.clone();
            claims["sub"] = json!("eve");
            format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims.to_string()), parts[2])
        }),
        ("and cut", |c| {
            let signed = sign(&RIGHT, Some("right"), c);
            signed[..signed.len() - 8].to_owned()
        }),
        ("at all", |_| "no token".to_owned()),
    ];
    let setup = Setup::start().await;
    for (name, forge) in forgeries {
        let redirect = setup.begin().await.unwrap();
        let refused = setup.come_back(&redirect, &forge(&setup.claims(&redirect))).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "{name}: {refused:?}");
    }
    // Two keys are published while they are rotated, and both sign.
    let redirect = setup.begin().await.unwrap();
    let by_older = sign(&OLDER, Some("older"), &setup.claims(&redirect));
    assert!(setup.come_back(&redirect, &by_older).await.is_ok());
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

fn by_secret(secret: &str, claims: &Value) -> String {
    let header = Header { kid: Some("right".to_owned()), ..Header::new(Algorithm::HS256) };
    encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

#[tokio::test]
async fn security_44_an_answer_must_come_from_the_provider_that_was_asked() {
    let mut setup = Setup::start().await;
    let come_back = async |setup: &Setup, iss: Option<&str>| {
        let redirect = setup.begin().await.unwrap();
        setup.liar.give(&sign(&RIGHT, Some("right"), &setup.claims(&redirect)));
        setup.finish(Callback { iss: iss.map(str::to_owned), ..callback(&redirect) }).await
    };
    let issuer = setup.liar.issuer.clone();
    assert!(come_back(&setup, None).await.is_ok() && come_back(&setup, Some(issuer.as_str())).await.is_ok());
    let refused = come_back(&setup, Some("https://accounts.example.org")).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");

    // One that always names itself (RFC 9207) is not believed without.
    let mut discovery = setup.liar.discovery();
    discovery["authorization_response_iss_parameter_supported"] = json!(true);
    setup.liar.say(DISCOVERY, "200 OK", &discovery.to_string());
    setup.restart().await;
    assert!(come_back(&setup, Some(issuer.as_str())).await.is_ok());
    let refused = come_back(&setup, None).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");

    // One that says to be another is not asked at all.
    discovery["issuer"] = json!("https://accounts.example.org");
    setup.liar.say(DISCOVERY, "200 OK", &discovery.to_string());
    setup.restart().await;
    assert!(matches!(setup.begin().await, Err(AccessError::Delivery { .. })));
}

#[tokio::test]
async fn security_42_and_43_a_callback_counts_once_and_with_what_its_browser_was_given() {
    let setup = Setup::start().await;
    let (mine, theirs) = (setup.begin().await.unwrap(), setup.begin().await.unwrap());
    for name in ["state", "nonce", "code_challenge"] {
        assert_ne!(parameter(&mine, name), parameter(&theirs, name), "{name}");
    }
    setup.liar.give(&sign(&RIGHT, Some("right"), &setup.claims(&mine)));
    let empty = secret("");
    let state = parameter(&mine, "state");
    for (state, cookie) in [
        (parameter(&theirs, "state"), &mine.cookie),
        (state.clone(), &theirs.cookie),
        (state.clone(), &empty),
        (String::new(), &mine.cookie),
        (state.to_uppercase(), &mine.cookie),
        (format!("{state} "), &mine.cookie),
    ] {
        let mixed = Callback { state: state.clone(), cookie: cookie.clone(), ..callback(&mine) };
        let refused = setup.finish(mixed).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)), "`{state}`: {refused:?}");
    }
    assert!(setup.liar.requests(TOKEN).is_empty(), "nothing of that reaches the provider");
    assert!(setup.finish(callback(&mine)).await.is_ok());
    assert!(matches!(setup.finish(callback(&mine)).await, Err(AccessError::CodeRefused)));

    // What was sent with the code is what the challenge was made of.
    let requests = setup.liar.requests(TOKEN);
    assert_eq!(requests.len(), 1);
    let form = requests[0].split("\r\n\r\n").nth(1).unwrap();
    let form: HashMap<String, String> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, form["code_verifier"].as_bytes());
    assert_eq!(URL_SAFE_NO_PAD.encode(digest), parameter(&mine, "code_challenge"));
    assert_eq!(parameter(&mine, "code_challenge_method"), "S256");
}

#[tokio::test]
async fn our_name_and_secret_reach_the_provider_whatever_characters_they_have() {
    let setup = Setup::start().await;
    setup.log_in(|_| {}).await.unwrap();
    // RFC 6749, 2.3.1: as in a form, and then as HTTP has it.
    let credential = STANDARD.encode(format!("{CLIENT}:a+secret%3A+100%25+%2B+more"));
    let request = setup.liar.requests(TOKEN).remove(0);
    assert!(request.contains(&format!("Basic {credential}\r\n")), "{request}");
}

#[tokio::test]
async fn a_key_of_an_unknown_kind_beside_the_others_keeps_nobody_from_logging_in() {
    let setup = Setup::start().await;
    let odd = [json!({"kid": "without a kind"}), json!({"kty": 7, "kid": "odd"}), json!("no key")];
    let mut keys = vec![public(&RIGHT, "right")];
    keys.extend(odd);
    setup.liar.say(JWKS, "200 OK", &json!({"keys": keys}).to_string());
    setup.log_in(|_| {}).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_set_up_wrong_is_a_failure_and_not_the_callers_fault() {
    let setup = Setup::start().await;
    for path in [DISCOVERY, JWKS] {
        setup.liar.be_honest();
        setup.liar.say(path, "404 Not Found", "{}");
        let refused = setup.begin().await;
        assert!(matches!(refused, Err(AccessError::Delivery { .. })), "{path}: {refused:?}");
    }
}

#[tokio::test]
async fn security_45_a_person_is_the_subject_of_an_issuer_and_not_an_address() {
    let setup = Setup::start().await;
    let first = setup.log_in(|_| {}).await.unwrap().user;
    assert_eq!((first.email.as_deref(), first.is_verified), (Some("maria@example.org"), true));
    let moved = setup.log_in(|c| c["email"] = json!("moved@example.org")).await.unwrap().user;
    assert_eq!((moved.id, moved.email), (first.id, first.email));
    // Somebody else there who has her address by now, confirmed and all.
    let refused = setup.log_in(|c| c["sub"] = json!("eve")).await;
    assert!(matches!(refused, Err(AccessError::Taken { field: "email" })), "{refused:?}");
    let without = setup.log_in(|c| {
        c["sub"] = json!("eve");
        c["email_verified"] = json!("false");
    });
    let without = without.await.unwrap().user;
    assert_eq!((without.email, without.is_verified), (None, false));
    assert_ne!(without.id, first.id);
    // Subjects differ by case.
    let other = setup.log_in(|c| {
        c["sub"] = json!("Maria");
        remove(c, "email");
    });
    assert_ne!(other.await.unwrap().user.id, first.id);
}

#[tokio::test]
async fn security_47_a_link_is_for_one_log_in_and_ends_with_the_session_that_began_it() {
    let setup = Setup::start().await;
    let (access, origin) = (&setup.instance.access, Origin::default());
    let pair = setup.instance.register("maria_77").await;
    let caller = who(access, &pair).await.unwrap();
    let begin = async || access.begin_oauth_link(&caller, "liar", Some(secret(PASSWORD)), &origin).await.unwrap();
    let token_of = |redirect: &Redirect, subject: &str| {
        let mut claims = setup.claims(redirect);
        claims["sub"] = json!(subject);
        sign(&RIGHT, Some("right"), &claims)
    };
    let first = begin().await;
    let linked = setup.come_back(&first, &token_of(&first, "maria")).await.unwrap();
    assert!(matches!(linked, CallbackOutcome::Linked));
    // The same proof with another log-in there.
    let again = setup.come_back(&first, &token_of(&first, "eve")).await;
    assert!(matches!(again, Err(AccessError::CodeRefused)), "{again:?}");
    // The proof of a log-in is none for a link.
    let (login, link) = (setup.begin().await.unwrap(), begin().await);
    let mixed = Callback { state: parameter(&login, "state"), ..callback(&link) };
    assert!(matches!(setup.finish(mixed).await, Err(AccessError::CodeRefused)));
    // One that was begun by a session that has ended.
    let late = begin().await;
    access.logout(&caller, &origin).await.unwrap();
    let refused = setup.come_back(&late, &token_of(&late, "eve")).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    let identities = access.list_identities(pair.user.id).await.unwrap();
    let subjects: Vec<&str> = identities.iter().map(|identity| identity.subject.as_str()).collect();
    assert_eq!(subjects, ["maria"]);
}

#[tokio::test]
async fn security_52_a_provider_cannot_send_us_elsewhere_by_a_redirect() {
    let setup = Setup::start().await;
    let location = format!("location: {}/elsewhere", setup.liar.issuer);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        for path in [DISCOVERY, JWKS] {
            setup.liar.be_honest();
            setup.liar.say(path, &format!("{status}\r\n{location}"), "{}");
            let refused = setup.begin().await;
            assert!(matches!(refused, Err(AccessError::Delivery { .. })), "{status} {path}: {refused:?}");
        }
    }
    setup.liar.be_honest();
    let redirect = setup.begin().await.unwrap();
    setup.liar.say(TOKEN, &format!("307 Temporary Redirect\r\n{location}"), "{}");
    let refused = setup.finish(callback(&redirect)).await;
    assert!(matches!(refused, Err(AccessError::Delivery { .. })), "{refused:?}");
    assert!(setup.liar.requests("/elsewhere").is_empty());
}

#[tokio::test]
async fn security_52_a_provider_cannot_name_what_is_inside_this_network() {
    let mut setup = Setup::start().await;
    let neighbour = Liar::start().await;
    let places = [
        format!("{}/secret", neighbour.issuer),
        neighbour.issuer.replace("http://127.0.0.1", "https://localhost"),
        neighbour.issuer.replace("http://", "https://"),
        "https://10.0.0.1/keys".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://[::1]/keys".to_owned(),
        "http://accounts.example.org/keys".to_owned(),
        "file:///etc/passwd".to_owned(),
    ];
    for place in &places {
        let mut discovery = setup.liar.discovery();
        discovery["jwks_uri"] = json!(place);
        setup.liar.say(DISCOVERY, "200 OK", &discovery.to_string());
        let refused = setup.begin().await;
        assert!(matches!(refused, Err(AccessError::Delivery { .. })), "{place}: {refused:?}");
    }
    // Nor is it given the code and the secret.
    for place in &places {
        let mut discovery = setup.liar.discovery();
        discovery["token_endpoint"] = json!(place);
        setup.liar.say(DISCOVERY, "200 OK", &discovery.to_string());
        setup.restart().await;
        let redirect = setup.begin().await.unwrap();
        let refused = setup.finish(callback(&redirect)).await;
        assert!(matches!(refused, Err(AccessError::Delivery { .. })), "{place}: {refused:?}");
    }
    assert!(neighbour.is_untouched());
}

#[tokio::test]
async fn security_52_answers_that_are_too_long_or_none_are_refused() {
    let setup = Setup::start().await;
    let long = " ".repeat(2 << 20);
    for path in [DISCOVERY, JWKS] {
        setup.liar.be_honest();
        setup.liar.say(path, "200 OK", &format!("{long}{}", setup.liar.discovery()));
        match setup.begin().await {
            Err(AccessError::Delivery { reason, .. }) => assert!(reason.contains("mebibyte"), "{path}: {reason}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    setup.liar.be_honest();
    for (status, body) in [
        ("200 OK", long.as_str()),
        ("200 OK", "nonsense"),
        ("200 OK", r#"{"access_token": "without an ID token"}"#),
        ("500 Internal Server Error", "{}"),
    ] {
        let redirect = setup.begin().await.unwrap();
        setup.liar.say(TOKEN, status, body);
        let refused = setup.finish(callback(&redirect)).await;
        assert!(matches!(refused, Err(AccessError::Delivery { .. })), "{status}: {refused:?}");
    }
    // A provider that does not take the code says so: that is the caller's matter, and nobody's failure.
    let redirect = setup.begin().await.unwrap();
    setup.liar.say(TOKEN, "400 Bad Request", r#"{"error": "invalid_grant"}"#);
    assert!(matches!(setup.finish(callback(&redirect)).await, Err(AccessError::CodeRefused)));
}
