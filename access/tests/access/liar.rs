//! An OpenID provider on loopback that says whatever a test wants it to, since a real one does not lie.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

pub const DISCOVERY: &str = "/.well-known/openid-configuration";
pub const JWKS: &str = "/jwks";
pub const TOKEN: &str = "/token";
/// Our name at the provider.
pub const CLIENT: &str = "karat";

// Making a key takes a noticeable moment; the tests share them.
/// Signs, under the name `right`.
pub static RIGHT: LazyLock<EncodingKey> = LazyLock::new(new_key);
/// Published beside the other under the name `older`, as while keys are rotated.
pub static OLDER: LazyLock<EncodingKey> = LazyLock::new(new_key);
/// Of somebody else.
pub static STRANGER: LazyLock<EncodingKey> = LazyLock::new(new_key);

/// The provider. It begins honest.
pub struct Liar {
    /// Its address.
    pub issuer: String,
    pages: Arc<Mutex<HashMap<String, String>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let liar = Self { issuer, pages: Arc::default(), requests: Arc::default() };
        let (pages, requests) = (liar.pages.clone(), liar.requests.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let request = karat_oracle::plain_http::read_request(&mut socket).await;
                let page = pages.lock().get(path_of(&request)).cloned();
                requests.lock().push(request);
                let page = page.unwrap_or_else(|| answer("404 Not Found", "{}"));
                let _ = socket.write_all(page.as_bytes()).await;
            }
        });
        liar.be_honest();
        liar
    }

    /// Discovery and keys as they should be.
    pub fn be_honest(&self) {
        self.say(DISCOVERY, "200 OK", &self.discovery().to_string());
        let keys = json!({"keys": [public(&RIGHT, "right"), public(&OLDER, "older")]});
        self.say(JWKS, "200 OK", &keys.to_string());
    }

    /// What it says about itself.
    pub fn discovery(&self) -> Value {
        let issuer = &self.issuer;
        json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}{TOKEN}"),
            "jwks_uri": format!("{issuer}{JWKS}"),
        })
    }

    /// Answers a path so from now on. The status may be followed by lines of the head.
    pub fn say(&self, path: &str, status: &str, body: &str) {
        self.pages.lock().insert(path.to_owned(), answer(status, body));
    }

    /// Gives an ID token for every code.
    pub fn give(&self, id_token: &str) {
        let tokens = json!({"access_token": "of the provider", "token_type": "Bearer", "id_token": id_token});
        self.say(TOKEN, "200 OK", &tokens.to_string());
    }

    /// What was asked of a path, head and form.
    pub fn requests(&self, path: &str) -> Vec<String> {
        self.requests.lock().iter().filter(|request| path_of(request) == path).cloned().collect()
    }

    /// Whether nobody ever connected.
    pub fn is_untouched(&self) -> bool {
        self.requests.lock().is_empty()
    }

    /// The claims of an ID token without a lie.
    pub fn claims(&self, nonce: &str) -> Value {
        json!({
            "iss": self.issuer, "aud": CLIENT, "sub": "maria", "nonce": nonce, "iat": now_s(), "exp": now_s() + 300,
            "email": "maria@example.org", "email_verified": true,
        })
    }
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn sign(key: &EncodingKey, name: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: name.map(str::to_owned), ..Header::new(Algorithm::RS256) };
    encode(&header, claims, key).unwrap()
}

/// The public half of a key, as it is published.
pub fn public(key: &EncodingKey, name: &str) -> Value {
    let mut public = serde_json::to_value(Jwk::from_encoding_key(key, Algorithm::RS256).unwrap()).unwrap();
    public["kid"] = json!(name);
    public
}

fn new_key() -> EncodingKey {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der>::as_der(&pair).unwrap();
    EncodingKey::from_rsa_pem(to_pem(der.as_ref()).as_bytes()).unwrap()
}

/// A private key as it is kept in files.
pub fn to_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n\
         {body}"
    )
}

fn path_of(request: &str) -> &str {
    request.split([' ', '?']).nth(1).unwrap_or_default()
}
