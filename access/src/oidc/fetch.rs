//! Asking a provider: over TLS (or on loopback, for tests), without redirects, at most a mebibyte, within seconds.
//!
//! A provider names the addresses of its own keys and tokens. Those may be anywhere in the internet, and nowhere else:
//! what is inside this network is asked only at the address that the operator configured, whatever a provider or a
//! name server says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::de::DeserializeOwned;
use url::{Host, Url};

use crate::AccessError;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1024 * 1024;

pub(super) struct Fetch {
    client: reqwest::Client,
    homes: Vec<Url>,
}

impl Fetch {
    /// For one provider, which is configured to be at these addresses.
    pub(super) fn new(homes: &[&str]) -> Result<Self, AccessError> {
        Self::within(TIMEOUT, homes)
    }

    fn within(timeout: Duration, homes: &[&str]) -> Result<Self, AccessError> {
        // One that cannot be read is not asked either.
        let homes: Vec<Url> = homes.iter().filter_map(|home| Url::parse(home).ok()).collect();
        let hosts = homes.iter().filter_map(Url::host_str).map(str::to_owned).collect();
        let builder = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(OutwardNames { hosts }))
            // A proxy would resolve the names by itself, past the check.
            .no_proxy()
            .user_agent("karat");
        Ok(Self { client: builder.build().map_err(|error| failed(&error))?, homes })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, url: &str, bearer: Option<&str>) -> Result<T, AccessError> {
        let request = self.client.get(allowed(url, &self.homes)?).header("accept", "application/json");
        let request = match bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        match read(request).await? {
            Answered::Taken(value) => Ok(value),
            Answered::Refused(status) => Err(refused(&format!("status {status}"))),
        }
    }

    /// Hands a code in. What the provider does not take is the caller's matter: [`AccessError::CodeRefused`].
    pub(super) async fn post_form<T: DeserializeOwned>(
        &self,
        url: &str,
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
    ) -> Result<T, AccessError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self
            .client
            .post(allowed(url, &self.homes)?)
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let request = match basic {
            // As in a form (RFC 6749, 2.3.1): a colon in the name would end it, and a strict provider decodes both.
            Some((user, password)) => request.basic_auth(in_form(user), Some(in_form(password))),
            None => request,
        };
        match read(request).await? {
            Answered::Taken(value) => Ok(value),
            // The code (RFC 6749, 5.2); any other refusal is about us, our secret for one.
            Answered::Refused(status) if status == reqwest::StatusCode::BAD_REQUEST => {
                tracing::info!(%status, "a provider refused");
                Err(AccessError::CodeRefused)
            }
            Answered::Refused(status) => Err(refused(&format!("status {status}"))),
        }
    }
}

/// Plain HTTP only to this very machine, and what is inside this network only where it was configured to be. Names
/// are looked at again when they are resolved.
fn allowed(url: &str, homes: &[Url]) -> Result<Url, AccessError> {
    let url = Url::parse(url).map_err(|_| refused("an address that is none"))?;
    let is_home = homes.iter().any(|home| home.origin() == url.origin());
    let is_at_a_home = homes.iter().any(|home| home.host_str() == url.host_str());
    let (is_loopback, is_outside) = match url.host() {
        Some(Host::Ipv4(ip)) => (ip.is_loopback(), is_public(ip.into())),
        Some(Host::Ipv6(ip)) => (ip.is_loopback(), is_public(ip.into())),
        // The configured name may lead inside: then other services of the same machine are behind its other ports.
        Some(Host::Domain(name)) => (name == "localhost", !is_at_a_home),
        None => return Err(refused("an address without a host")),
    };
    match url.scheme() {
        "https" if is_home || is_outside => Ok(url),
        "https" => Err(refused("an address inside this network")),
        "http" if is_home && is_loopback => Ok(url),
        _ => Err(refused("an address without TLS")),
    }
}

/// Finds the addresses of names, and none inside this network but those of the configured hosts.
struct OutwardNames {
    hosts: Vec<String>,
}

impl Resolve for OutwardNames {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let is_configured = self.hosts.contains(&name);
        Box::pin(look_up(name, is_configured))
    }
}

async fn look_up(name: String, is_configured: bool) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    let found = tokio::net::lookup_host((name.clone(), 0_u16)).await?;
    let kept: Vec<_> = found.filter(|address| is_configured || is_public(address.ip())).collect();
    if kept.is_empty() {
        tracing::warn!(host = %name, "a provider names a host that is inside this network; it is not asked");
        return Err("the host has no address outside this network".into());
    }
    Ok(Box::new(kept.into_iter()))
}

/// Whether an address is one of the internet. The standard library's own answer is not stable yet.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match ip.segments() {
            // NAT64 (RFC 6052): the last 32 bits are the address that is really asked.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                is_public_v4(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
            }
            // Protocols such as Teredo, documentation, and 6to4, which has an IPv4 address inside as well.
            [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x2002, ..] | [0x3fff, 0..=0x0fff, ..] => false,
            // Global unicast is 2000::/3 (RFC 4291, 2.4, and the registry of IANA).
            [first, ..] => first & 0xe000 == 0x2000,
        },
    }
}

/// By the registry of special addresses (RFC 6890).
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let is_special = match ip.octets() {
        [0 | 240..=255, ..] | [192, 0, 0, _] => true,
        // Shared by the customers of a carrier; measurements of devices.
        [100, 64..=127, ..] | [198, 18..=19, ..] => true,
        _ => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_documentation(),
    };
    !is_special
}

fn in_form(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What a provider did with a question.
enum Answered<T> {
    Taken(T),
    /// It puts the fault on who asked.
    Refused(reqwest::StatusCode),
}

async fn read<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<Answered<T>, AccessError> {
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
        return Ok(Answered::Refused(status));
    }
    if !status.is_success() {
        return Err(refused(&format!("status {status}")));
    }
    serde_json::from_slice(&body).map(Answered::Taken).map_err(|_| refused("an answer of another form"))
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

    fn is_allowed(url: &str, home: &str) -> bool {
        allowed(url, &[Url::parse(home).unwrap()]).is_ok()
    }

    #[test]
    fn security_52_the_internet_is_asked_over_tls_and_the_configured_address_as_it_is() {
        for (url, home) in [
            ("https://accounts.example.org/x", "https://login.example.org"),
            ("https://8.8.8.8/keys", "https://login.example.org"),
            ("https://[2606:4700::1111]/keys", "https://login.example.org"),
            ("https://idp.internal/keys", "https://idp.internal/realm"),
            ("https://10.1.2.3:8443/keys", "https://10.1.2.3:8443"),
            ("http://127.0.0.1:9/x", "http://127.0.0.1:9"),
            ("http://[::1]:9/x", "http://[::1]:9"),
            ("http://localhost/x", "http://localhost:80"),
        ] {
            assert!(is_allowed(url, home), "{url} of {home}");
        }
    }

    #[test]
    fn security_52_nothing_else_inside_this_network_is_asked() {
        for url in [
            "http://example.org/x",
            "http://10.0.0.1/x",
            "http://169.254.169.254/latest/meta-data",
            "http://127.0.0.1:9/x",
            "http://localhost/x",
            "https://127.0.0.1/x",
            "https://127.1/x",
            "https://0x7f000001/x",
            "https://2130706433/x",
            "https://127.0.0.1./x",
            "https://0.0.0.0/x",
            "https://10.0.0.1/x",
            "https://172.16.0.1/x",
            "https://192.168.1.1/x",
            "https://100.64.0.1/x",
            "https://169.254.169.254/x",
            "https://255.255.255.255/x",
            "https://[::1]/x",
            "https://[::]/x",
            "https://[fd00::1]/x",
            "https://[fe80::1]/x",
            "https://[ff02::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://[64:ff9b::10.0.0.1]/x",
            "https://[2002:a00:1::1]/x",
            "ftp://login.example.org/",
            "file:///etc/passwd",
            "data:application/json,{}",
            "x",
            "",
        ] {
            assert!(!is_allowed(url, "https://login.example.org"), "{url}");
        }
        // Where the configured one is inside itself, its neighbours behind other ports are not asked.
        for (url, home) in [
            ("http://127.0.0.1:6379/x", "http://127.0.0.1:9"),
            ("https://127.0.0.1:9/x", "http://127.0.0.1:9"),
            ("https://idp.internal:6443/x", "https://idp.internal"),
            ("https://10.1.2.4/x", "https://10.1.2.3"),
        ] {
            assert!(!is_allowed(url, home), "{url} of {home}");
        }
    }

    #[tokio::test]
    async fn security_52_a_name_that_leads_inside_is_found_only_when_it_is_configured() {
        assert!(look_up("localhost".to_owned(), false).await.is_err());
        let mut found = look_up("localhost".to_owned(), true).await.unwrap();
        assert!(found.all(|address| address.ip().is_loopback()));
        let fetch = Fetch::new(&["https://login.example.org"]).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
        let answer = fetch.get::<serde_json::Value>(&url, None).await;
        assert!(matches!(answer, Err(AccessError::Delivery { .. })), "{answer:?}");
        assert!(listener.accept().is_err(), "somebody connected");
    }

    #[tokio::test]
    async fn security_52_a_provider_that_says_nothing_is_given_up() {
        // The system takes the connection, and nobody ever reads from it.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let fetch = Fetch::within(Duration::from_millis(50), &[url.as_str()]).unwrap();
        let answer = fetch.get::<serde_json::Value>(&url, None).await;
        assert!(matches!(answer, Err(AccessError::Delivery { .. })), "{answer:?}");
    }
}
