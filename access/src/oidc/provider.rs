//! The providers of this instance, and what each is asked.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::apple::ClientKey;
use super::facebook;
use super::fetch::{Fetch, refused};
use super::id_token::{self, Expected};
use crate::AccessError;

/// How long what a provider says about itself is believed.
const BELIEVED: Duration = Duration::from_secs(10 * 60);
/// An unknown key is looked for again at most this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// One provider.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Its name in the routes: letters, digits and hyphens.
    pub name: String,
    /// How it works.
    pub kind: ProviderKind,
    /// Our name there.
    pub client_id: String,
    /// Our password there. Apple has none: it takes what the key of its kind signs.
    pub client_secret: SecretString,
}

/// How a provider works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    /// OpenID Connect: everything else is found at the issuer.
    Oidc {
        /// Its address, exactly as its tokens name it.
        issuer: String,
    },
    /// GitHub, which speaks OAuth 2 only.
    GitHub {
        /// `https://github.com`.
        site: String,
        /// `https://api.github.com`.
        api: String,
    },
    /// Facebook, which speaks OAuth 2 only where the answer comes back to a server.
    Facebook {
        /// `https://www.facebook.com`.
        site: String,
        /// `https://graph.facebook.com`.
        api: String,
    },
    /// Apple: OpenID Connect whose password is signed for each exchange, and whose answer is posted.
    Apple {
        /// `https://appleid.apple.com`.
        issuer: String,
        /// Of the account at Apple.
        team_id: String,
        /// Of the key in the file.
        key_id: String,
        /// The private key as Apple gives it (`.p8`); only its owner and group may read it.
        key_file: PathBuf,
    },
}

impl ProviderKind {
    /// What a person is known by together with the name there.
    fn issuer(&self) -> &str {
        match self {
            Self::Oidc { issuer } | Self::Apple { issuer, .. } => issuer,
            Self::GitHub { site, .. } | Self::Facebook { site, .. } => site,
        }
    }

    /// The providers that are known by name and need nothing but a client and its secret.
    pub fn named(name: &str) -> Option<Self> {
        let oidc = |issuer: &str| Some(Self::Oidc { issuer: issuer.to_owned() });
        match name {
            "google" => oidc("https://accounts.google.com"),
            "github" => {
                Some(Self::GitHub { site: "https://github.com".to_owned(), api: "https://api.github.com".to_owned() })
            }
            "facebook" => Some(Self::Facebook {
                site: "https://www.facebook.com".to_owned(),
                api: "https://graph.facebook.com".to_owned(),
            }),
            _ => None,
        }
    }

    /// Apple, with a key of a team there.
    pub fn apple(team_id: &str, key_id: &str, key_file: PathBuf) -> Self {
        let issuer = "https://appleid.apple.com".to_owned();
        Self::Apple { issuer, team_id: team_id.to_owned(), key_id: key_id.to_owned(), key_file }
    }
}

/// Who a provider says it is.
pub(super) struct Person {
    pub issuer: String,
    pub subject: String,
    pub email: Option<String>,
    pub email_verified: bool,
}

pub(crate) struct Providers(HashMap<String, Arc<Provider>>);

pub(super) struct Provider {
    settings: ProviderSettings,
    fetch: Fetch,
    /// What signs our password, where there is none to know.
    key: Option<ClientKey>,
    found: Mutex<Option<Arc<Found>>>,
}

/// What a provider says about itself, with its keys.
struct Found {
    about: Discovery,
    keys: JwkSet,
    at: Instant,
}

#[derive(Clone, Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// The keys of a provider, each as it is.
#[derive(Deserialize)]
struct Published {
    keys: Vec<serde_json::Value>,
}

impl Published {
    /// Those that are of a kind we know (RFC 7517, 5: others are passed over). One of a new kind beside them keeps
    /// nobody from logging in.
    fn readable(self) -> JwkSet {
        JwkSet { keys: self.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()).collect() }
    }
}

/// GitHub refuses a code with status 200 and says so in the answer only.
#[derive(Deserialize)]
#[serde(untagged)]
enum Exchanged {
    Refused { error: String },
    Tokens(Tokens),
}

#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    id_token: Option<String>,
}

#[derive(Deserialize)]
struct GitHubUser {
    id: u64,
}

#[derive(Deserialize)]
struct GitHubEmail {
    email: String,
    primary: bool,
    verified: bool,
}

impl Discovery {
    /// Of a provider that says nothing about itself.
    fn without(issuer: &str, token_endpoint: String) -> Self {
        Self {
            issuer: issuer.to_owned(),
            authorization_endpoint: String::new(),
            token_endpoint,
            jwks_uri: String::new(),
            token_endpoint_auth_methods_supported: vec!["client_secret_post".to_owned()],
            authorization_response_iss_parameter_supported: false,
        }
    }
}

impl Providers {
    /// Blocks: a key may be in a file.
    pub(crate) fn new(settings: &[ProviderSettings]) -> Result<Self, AccessError> {
        let provider = |settings: &ProviderSettings| -> Result<_, AccessError> {
            let fetch = match &settings.kind {
                ProviderKind::Oidc { issuer } | ProviderKind::Apple { issuer, .. } => Fetch::new(&[issuer.as_str()])?,
                ProviderKind::GitHub { site, api } | ProviderKind::Facebook { site, api } => {
                    Fetch::new(&[site.as_str(), api.as_str()])?
                }
            };
            let key = match &settings.kind {
                ProviderKind::Apple { issuer, team_id, key_id, key_file } => {
                    Some(ClientKey::read(key_file, team_id, key_id, issuer)?)
                }
                _ => None,
            };
            let provider = Provider { settings: settings.clone(), fetch, key, found: Mutex::new(None) };
            Ok((settings.name.clone(), Arc::new(provider)))
        };
        Ok(Self(settings.iter().map(provider).collect::<Result<HashMap<_, _>, _>>()?))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.keys().cloned().collect();
        names.sort();
        names
    }

    pub(crate) fn issuers(&self) -> Vec<String> {
        self.0.values().map(|provider| provider.settings.kind.issuer().to_owned()).collect()
    }

    pub(super) fn find(&self, name: &str) -> Result<Arc<Provider>, AccessError> {
        self.0.get(name).cloned().ok_or(AccessError::NotFound { what: "provider" })
    }
}

impl Provider {
    pub(super) async fn authorize_url(
        &self,
        redirect: &str,
        state: &str,
        nonce: &str,
        challenge: &str,
    ) -> Result<String, AccessError> {
        let (endpoint, scope) = match &self.settings.kind {
            ProviderKind::Oidc { .. } | ProviderKind::Apple { .. } => {
                (self.found(BELIEVED).await?.about.authorization_endpoint.clone(), "openid email")
            }
            ProviderKind::GitHub { site, .. } => (format!("{site}/login/oauth/authorize"), "read:user user:email"),
            ProviderKind::Facebook { site, .. } => (format!("{site}/{}/dialog/oauth", facebook::VERSION), "email"),
        };
        let mut url = url::Url::parse(&endpoint).map_err(|_| refused("an address that is none"))?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", scope)
            .append_pair("state", state)
            .append_pair("nonce", nonce)
            .append_pair("code_challenge", challenge)
            .append_pair("code_challenge_method", "S256");
        if matches!(self.settings.kind, ProviderKind::Apple { .. }) {
            // Apple demands it of whoever asks for an address.
            url.query_pairs_mut().append_pair("response_mode", "form_post");
        }
        Ok(url.into())
    }

    /// Exchanges the code and asks who it is.
    pub(super) async fn person(
        &self,
        code: &SecretString,
        verifier: &str,
        nonce: &str,
        iss: Option<&str>,
        redirect: &str,
    ) -> Result<Person, AccessError> {
        match &self.settings.kind {
            ProviderKind::Oidc { issuer } | ProviderKind::Apple { issuer, .. } => {
                let found = self.found(BELIEVED).await?;
                // RFC 9207: an answer of another provider than the one that was asked.
                let is_missing = iss.is_none() && found.about.authorization_response_iss_parameter_supported;
                if is_missing || iss.is_some_and(|iss| iss != issuer) {
                    return Err(AccessError::CodeRefused);
                }
                let tokens = self.exchange(&found.about.token_endpoint, code, verifier, redirect, &found.about).await?;
                let token = tokens.id_token.ok_or_else(|| refused("no ID token"))?;
                let found = if id_token::has_key(&found.keys, &token) { found } else { self.found(LOOK_AGAIN).await? };
                let expected = Expected { issuer, client_id: &self.settings.client_id, nonce };
                let claims = id_token::check(&found.keys, &token, &expected)?;
                Ok(Person {
                    issuer: issuer.clone(),
                    subject: claims.sub,
                    email_verified: claims.email_verified.is_some_and(|truth| truth.is_true()),
                    email: claims.email,
                })
            }
            ProviderKind::GitHub { site, api } => {
                let about = Discovery::without(site, format!("{site}/login/oauth/access_token"));
                let tokens = self.exchange(&about.token_endpoint, code, verifier, redirect, &about).await?;
                let user: GitHubUser = self.fetch.get(&format!("{api}/user"), Some(&tokens.access_token)).await?;
                let emails: Vec<GitHubEmail> =
                    self.fetch.get(&format!("{api}/user/emails"), Some(&tokens.access_token)).await?;
                let email = emails.into_iter().find(|email| email.primary);
                Ok(Person {
                    issuer: site.clone(),
                    subject: user.id.to_string(),
                    email_verified: email.as_ref().is_some_and(|email| email.verified),
                    email: email.map(|email| email.email),
                })
            }
            ProviderKind::Facebook { site, api } => {
                let about = Discovery::without(site, format!("{api}/{}/oauth/access_token", facebook::VERSION));
                let tokens = self.exchange(&about.token_endpoint, code, verifier, redirect, &about).await?;
                let secret = &self.settings.client_secret;
                facebook::person(&self.fetch, site, api, &tokens.access_token, secret).await
            }
        }
    }

    async fn exchange(
        &self,
        endpoint: &str,
        code: &SecretString,
        verifier: &str,
        redirect: &str,
        about: &Discovery,
    ) -> Result<Tokens, AccessError> {
        let id = self.settings.client_id.as_str();
        let signed = self.key.as_ref().map(|key| key.password(id)).transpose()?;
        let secret = signed.as_ref().unwrap_or(&self.settings.client_secret).expose_secret();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        let methods = &about.token_endpoint_auth_methods_supported;
        // Basic is what a provider takes that says nothing (OpenID Connect Discovery, 3).
        let basic = methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic");
        // One that is signed belongs into the form.
        let basic = basic && signed.is_none();
        if !basic {
            form.extend([("client_id", id), ("client_secret", secret)]);
        }
        let exchanged: Exchanged = self.fetch.post_form(endpoint, &form, basic.then_some((id, secret))).await?;
        match exchanged {
            Exchanged::Tokens(tokens) => Ok(tokens),
            Exchanged::Refused { error } => {
                tracing::info!(?error, "a provider refused");
                Err(AccessError::CodeRefused)
            }
        }
    }

    /// What the provider says about itself, at most so old.
    async fn found(&self, at_most: Duration) -> Result<Arc<Found>, AccessError> {
        let (ProviderKind::Oidc { issuer } | ProviderKind::Apple { issuer, .. }) = &self.settings.kind else {
            return Err(refused("no discovery"));
        };
        if let Some(found) = self.found.lock().clone().filter(|found| found.at.elapsed() < at_most) {
            return Ok(found);
        }
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let about: Discovery = self.fetch.get(&url, None).await?;
        if about.issuer != *issuer {
            return Err(refused("another issuer than the one that was asked"));
        }
        let published: Published = self.fetch.get(&about.jwks_uri, None).await?;
        let found = Arc::new(Found { about, keys: published.readable(), at: Instant::now() });
        *self.found.lock() = Some(found.clone());
        Ok(found)
    }
}
