//! Asking a provider: over TLS (or on loopback, for tests), without redirects, at most a mebibyte, within seconds.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::AccessError;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1024 * 1024;

#[derive(Clone)]
pub(super) struct Fetch(reqwest::Client);

impl Fetch {
    pub(super) fn new() -> Result<Self, AccessError> {
        let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        Ok(Self(builder.user_agent("karat").build().map_err(|error| failed(&error))?))
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, url: &str, bearer: Option<&str>) -> Result<T, AccessError> {
        let request = self.0.get(allowed(url)?).header("accept", "application/json");
        let request = match bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        read(request).await
    }

    pub(super) async fn post_form<T: DeserializeOwned>(
        &self,
        url: &str,
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<T, AccessError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self
            .0
            .post(allowed(url)?)
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let request = match basic {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        read(request).await
    }
}

/// Plain HTTP only to this very machine.
fn allowed(url: &str) -> Result<url::Url, AccessError> {
    let url = url::Url::parse(url).map_err(|_| refused("an address that is none"))?;
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        _ => Err(refused("an address without TLS")),
    }
}

async fn read<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, AccessError> {
    let mut response = request.send().await.map_err(|error| failed(&error.without_url()))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| failed(&error.without_url()))? {
        if body.len() + part.len() > MAX_BYTES {
            return Err(refused("an answer of more than a mebibyte"));
        }
        body.extend_from_slice(&part);
    }
    if status.is_client_error() {
        // The provider does not take the code: that is the caller's matter.
        tracing::info!(%status, "a provider refused");
        return Err(AccessError::CodeRefused);
    }
    if !status.is_success() {
        return Err(refused(&format!("status {status}")));
    }
    serde_json::from_slice(&body).map_err(|_| refused("an answer of another form"))
}

fn failed(error: &reqwest::Error) -> AccessError {
    AccessError::Delivery { what: "question to the provider", reason: error.to_string() }
}

pub(super) fn refused(what: &str) -> AccessError {
    AccessError::Delivery { what: "question to the provider", reason: format!("it gave {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_52_only_tls_or_this_machine_is_asked() {
        for good in ["https://accounts.example.org/x", "http://127.0.0.1:9/x", "http://[::1]:9/x", "http://localhost/x"]
        {
            assert!(allowed(good).is_ok(), "{good}");
        }
        for bad in [
            "http://example.org",
            "http://10.0.0.1",
            "http://169.254.169.254/",
            "ftp://localhost/",
            "file:///etc/passwd",
            "x",
        ] {
            assert!(allowed(bad).is_err(), "{bad}");
        }
    }
}
