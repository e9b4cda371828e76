//! Logging in through Facebook and Apple, which go ways of their own: a stand-in on loopback.

use crate::liar::{CLIENT, Liar, RIGHT, TOKEN, now_s, sign, to_pem};
use crate::support::{Instance, secret, settings};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use karat_access::{
    Access, AccessError, AccessSettings, Callback, CallbackOutcome, LoginOutcome, Origin, ProviderKind,
    ProviderSettings, Redirect, TokenPair,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const SECRET: &str = "a secret of the tests";
const FACEBOOK_TOKEN: &str = "/v23.0/oauth/access_token";
const FACEBOOK_ME: &str = "/v23.0/me";

async fn open(instance: &Instance, name: &str, kind: ProviderKind) -> Result<Access, AccessError> {
    let provider = ProviderSettings {
        name: name.to_owned(),
        kind,
        client_id: CLIENT.to_owned(),
        client_secret: secret(if name == "apple" { "" } else { SECRET }),
    };
    Access::open(AccessSettings { providers: vec![provider], ..settings(&instance.folder) }).await
}

fn parameter(redirect: &Redirect, name: &str) -> Option<String> {
    let url: url::Url = redirect.url.parse().unwrap();
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

async fn come_back(access: &Access, provider: &str, redirect: &Redirect) -> Result<TokenPair, AccessError> {
    let callback = Callback {
        provider: provider.to_owned(),
        code: secret("a code"),
        state: parameter(redirect, "state").unwrap(),
        iss: None,
        cookie: redirect.cookie.clone(),
    };
    match access.finish_oauth(callback, &Origin::default()).await? {
        CallbackOutcome::Login(outcome) => match *outcome {
            LoginOutcome::Tokens(pair) => Ok(*pair),
            LoginOutcome::MfaRequired { .. } => panic!("no second factor was set up"),
        },
        CallbackOutcome::Linked => panic!("nothing was to be linked"),
    }
}

/// The form of a request.
fn form_of(request: &str) -> HashMap<String, String> {
    let (_, form) = request.split_once("\r\n\r\n").unwrap();
    url::form_urlencoded::parse(form.as_bytes()).into_owned().collect()
}

async fn with_facebook() -> (Instance, Liar, Access) {
    let (instance, stand_in) = (Instance::start().await, Liar::start().await);
    let kind = ProviderKind::Facebook { site: stand_in.issuer.clone(), api: stand_in.issuer.clone() };
    let access = open(&instance, "facebook", kind).await.unwrap();
    stand_in.say(FACEBOOK_TOKEN, "200 OK", r#"{"access_token":"EAAB1","token_type":"bearer","expires_in":5183944}"#);
    stand_in.say(FACEBOOK_ME, "200 OK", r#"{"id":"10229","email":"maria@example.org"}"#);
    (instance, stand_in, access)
}

#[tokio::test]
async fn security_45_and_48_a_person_of_facebook_gets_one_account_without_the_address_that_nobody_confirmed() {
    let (_instance, stand_in, access) = with_facebook().await;
    let redirect = access.begin_oauth_login("facebook").await.unwrap();
    let url: url::Url = redirect.url.parse().unwrap();
    assert_eq!((url.path(), parameter(&redirect, "scope").as_deref()), ("/v23.0/dialog/oauth", Some("email")));
    let first = come_back(&access, "facebook", &redirect).await.unwrap();
    assert_eq!((first.user.email.as_deref(), first.user.is_verified), (None, false));
    let identities = access.list_identities(first.user.id).await.unwrap();
    let [identity] = &identities[..] else { panic!("{identities:?}") };
    assert_eq!((identity.subject.as_str(), &identity.issuer), ("10229", &stand_in.issuer));
    assert_eq!(identity.email.as_deref(), Some("maria@example.org"));
    // Those who registered by telephone have no address there.
    stand_in.say(FACEBOOK_ME, "200 OK", r#"{"id":"10229"}"#);
    let again = access.begin_oauth_login("facebook").await.unwrap();
    assert_eq!(come_back(&access, "facebook", &again).await.unwrap().user.id, first.user.id);
}

#[tokio::test]
async fn security_43_facebook_gets_the_verifier_of_the_attempt_and_a_proof_of_the_secret_with_the_token() {
    let (_instance, stand_in, access) = with_facebook().await;
    let redirect = access.begin_oauth_login("facebook").await.unwrap();
    come_back(&access, "facebook", &redirect).await.unwrap();
    let requests = stand_in.requests(FACEBOOK_TOKEN);
    let [exchange] = &requests[..] else { panic!("{requests:?}") };
    assert!(exchange.starts_with("POST ") && !exchange.to_lowercase().contains("\r\nauthorization:"), "{exchange}");
    let form = form_of(exchange);
    assert_eq!((form["code"].as_str(), form["client_id"].as_str()), ("a code", CLIENT));
    assert_eq!(form["client_secret"], SECRET);
    assert_eq!(form["redirect_uri"], "https://karat.example.org/api/v1/auth/oauth/facebook/callback");
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, form["code_verifier"].as_bytes()));
    assert_eq!(parameter(&redirect, "code_challenge"), Some(challenge));
    assert_eq!(parameter(&redirect, "code_challenge_method").as_deref(), Some("S256"));

    let requests = stand_in.requests(FACEBOOK_ME);
    let [asked] = &requests[..] else { panic!("{requests:?}") };
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let proof = hex::encode(hmac::sign(&key, b"EAAB1"));
    assert!(asked.contains(&format!("?fields=id,email&appsecret_proof={proof} ")), "{asked}");
    assert!(asked.contains("Bearer EAAB1"), "{asked}");
}

#[tokio::test]
async fn what_facebook_refuses_or_tells_of_nobody_is_no_log_in() {
    let (_instance, stand_in, access) = with_facebook().await;
    let refusal = r#"{"error":{"message":"Invalid verification code format.","type":"OAuthException","code":100}}"#;
    stand_in.say(FACEBOOK_TOKEN, "400 Bad Request", refusal);
    let redirect = access.begin_oauth_login("facebook").await.unwrap();
    let refused = come_back(&access, "facebook", &redirect).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    stand_in.say(FACEBOOK_TOKEN, "200 OK", r#"{"access_token":"EAAB1","token_type":"bearer"}"#);
    for nobody in [r#"{"id":""}"#, r#"{"id":"10229 "}"#, r#"{"email":"maria@example.org"}"#] {
        stand_in.say(FACEBOOK_ME, "200 OK", nobody);
        let redirect = access.begin_oauth_login("facebook").await.unwrap();
        let refused = come_back(&access, "facebook", &redirect).await;
        assert!(matches!(refused, Err(AccessError::Delivery { .. })), "{nobody}: {refused:?}");
    }
    assert!(access.list_users(None, 10).await.unwrap().is_empty());
}

/// A key as Apple gives it, with its public half.
fn write_key(folder: &Path) -> (PathBuf, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (der, public): (_, &[u8]) = (pair.to_pkcs8v1().unwrap(), pair.public_key().as_ref());
    let file = folder.join("AuthKey.p8");
    write_private(&file, &to_pem(der.as_ref()));
    (file, public.to_vec())
}

fn write_private(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn apple(stand_in: &Liar, key_file: PathBuf) -> ProviderKind {
    let (team_id, key_id) = ("TEAM123456".to_owned(), "KEY1234567".to_owned());
    ProviderKind::Apple { issuer: stand_in.issuer.clone(), team_id, key_id, key_file }
}

#[tokio::test]
async fn apple_gets_a_password_that_was_signed_for_this_exchange() {
    let (instance, stand_in) = (Instance::start().await, Liar::start().await);
    let (file, public) = write_key(instance.folder.path());
    let access = open(&instance, "apple", apple(&stand_in, file)).await.unwrap();
    let redirect = access.begin_oauth_login("apple").await.unwrap();
    assert_eq!(parameter(&redirect, "response_mode").as_deref(), Some("form_post"));
    assert_eq!(parameter(&redirect, "scope").as_deref(), Some("openid email"));
    stand_in.give(&sign(&RIGHT, Some("right"), &stand_in.claims(&parameter(&redirect, "nonce").unwrap())));
    come_back(&access, "apple", &redirect).await.unwrap();

    let requests = stand_in.requests(TOKEN);
    let [exchange] = &requests[..] else { panic!("{requests:?}") };
    assert!(!exchange.to_lowercase().contains("\r\nauthorization:"), "{exchange}");
    let form = form_of(exchange);
    assert_eq!((form["client_id"].as_str(), form["grant_type"].as_str()), (CLIENT, "authorization_code"));
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, form["code_verifier"].as_bytes()));
    assert_eq!(parameter(&redirect, "code_challenge"), Some(challenge));

    let password = &form["client_secret"];
    let header = decode_header(password).unwrap();
    assert_eq!((header.alg, header.kid.as_deref()), (Algorithm::ES256, Some("KEY1234567")));
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&["TEAM123456"]);
    validation.set_audience(&[&stand_in.issuer]);
    validation.sub = Some(CLIENT.to_owned());
    let (x, y) = public[1..].split_at(32);
    let key = DecodingKey::from_ec_components(&URL_SAFE_NO_PAD.encode(x), &URL_SAFE_NO_PAD.encode(y)).unwrap();
    let claims = decode::<Value>(password, &key, &validation).unwrap().claims;
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(iat <= now_s() && exp - iat <= 600, "{claims}");
}

#[tokio::test]
async fn security_44_an_address_of_apple_counts_as_verified_only_when_the_token_says_so() {
    let (instance, stand_in) = (Instance::start().await, Liar::start().await);
    let (file, _) = write_key(instance.folder.path());
    let access = open(&instance, "apple", apple(&stand_in, file)).await.unwrap();
    let log_in = async |subject: &str, email_verified: Value| {
        let redirect = access.begin_oauth_login("apple").await.unwrap();
        let mut claims = stand_in.claims(&parameter(&redirect, "nonce").unwrap());
        claims["sub"] = json!(subject);
        claims["email"] = json!(format!("{subject}@privaterelay.example.org"));
        claims["email_verified"] = email_verified;
        stand_in.give(&sign(&RIGHT, Some("right"), &claims));
        come_back(&access, "apple", &redirect).await.unwrap().user
    };
    for (subject, said, is_verified) in [
        ("a1", json!("true"), true),
        ("a2", json!(true), true),
        ("a3", json!("false"), false),
        ("a4", json!(false), false),
    ] {
        let user = log_in(subject, said.clone()).await;
        assert_eq!((user.is_verified, user.email.is_some()), (is_verified, is_verified), "{said}");
    }
}

#[tokio::test]
async fn a_key_for_apple_that_cannot_sign_or_that_everybody_may_read_is_refused_at_the_start() {
    let (instance, stand_in) = (Instance::start().await, Liar::start().await);
    let (file, _) = write_key(instance.folder.path());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = open(&instance, "apple", apple(&stand_in, file.clone())).await.err().unwrap();
    assert!(matches!(&refused, AccessError::Keys { path, .. } if *path == file), "{refused}");
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
    for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        write_private(&file, text);
        let refused = open(&instance, "apple", apple(&stand_in, file.clone())).await.err().unwrap();
        assert!(matches!(&refused, AccessError::Keys { path, .. } if *path == file), "{refused}");
    }
    let missing = file.with_file_name("none.p8");
    let refused = open(&instance, "apple", apple(&stand_in, missing)).await.err().unwrap();
    assert!(matches!(refused, AccessError::Keys { .. }), "{refused}");
}
