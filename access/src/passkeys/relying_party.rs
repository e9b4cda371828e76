//! Who passkeys are made for: the host and the origin of the configured public address, whatever a request says.

use serde::Deserialize;
use serde::de::IgnoredAny;
use url::{Host, Url};

use super::fault::Fault;
use crate::AccessError;
use crate::secret::sha256;

/// What is missing where passkeys cannot be used: browsers know no passkeys of bare addresses and plain text.
const NEEDED: &str =
    "a public address with a name (`server.public_url`, such as `https://karat.example.org`), which passkeys need,";

/// This instance, as browsers and authenticators know it.
pub(super) struct RelyingParty {
    /// The host's name.
    pub(super) id: String,
    origin: String,
}

/// What a browser says of the page that asked, signed by the passkey.
#[derive(Deserialize)]
pub(super) struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    /// As it was answered when the attempt began.
    pub(super) challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin")]
    is_cross_origin: Option<bool>,
    /// The page around that one; there where it is one of others.
    #[serde(rename = "topOrigin")]
    around: Option<IgnoredAny>,
}

/// What a passkey was asked for. What was signed for one counts for no other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ceremony {
    Create,
    Get,
}

impl RelyingParty {
    /// # Errors
    /// [`AccessError::Unconfigured`] when the address has no name for a host, or is not one of TLS; `localhost` is.
    pub(super) fn at(public_url: &str) -> Result<Self, AccessError> {
        let unusable = || AccessError::Unconfigured { what: NEEDED };
        let url = Url::parse(public_url).map_err(|_| unusable())?;
        let Some(Host::Domain(host)) = url.host() else { return Err(unusable()) };
        let is_local = host == "localhost" || host.ends_with(".localhost");
        if url.scheme() != "https" && !(url.scheme() == "http" && is_local) {
            return Err(unusable());
        }
        Ok(Self { id: host.to_owned(), origin: url.origin().ascii_serialization() })
    }

    /// What authenticators sign in place of the name.
    pub(super) fn hash(&self) -> [u8; 32] {
        sha256(&self.id)
    }

    /// Whether a page of this instance asked, itself and not inside a page of others, and for this.
    pub(super) fn check(&self, client: &ClientData, ceremony: Ceremony) -> Result<(), Fault> {
        let kind = match ceremony {
            Ceremony::Create => "webauthn.create",
            Ceremony::Get => "webauthn.get",
        };
        if client.kind != kind {
            return Err(Fault::Malformed);
        }
        let is_inside = client.is_cross_origin == Some(true) || client.around.is_some();
        let is_ours = client.origin == self.origin && !is_inside;
        if is_ours { Ok(()) } else { Err(Fault::Origin) }
    }
}

impl ClientData {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(bytes).map_err(|_| Fault::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passkeys_are_for_the_name_of_the_public_address() {
        for (address, id, origin) in [
            ("https://karat.example.org", "karat.example.org", "https://karat.example.org"),
            ("https://karat.example.org/", "karat.example.org", "https://karat.example.org"),
            ("https://Karat.example.org:443/app/", "karat.example.org", "https://karat.example.org"),
            ("https://karat.example.org:8443", "karat.example.org", "https://karat.example.org:8443"),
            ("http://localhost:8080", "localhost", "http://localhost:8080"),
        ] {
            let party = RelyingParty::at(address).unwrap();
            assert_eq!((party.id.as_str(), party.origin.as_str()), (id, origin), "{address}");
        }
        for address in
            ["http://127.0.0.1:8080", "https://[::1]:8080", "http://karat.example.org", "ftp://localhost", "karat", ""]
        {
            let refused = RelyingParty::at(address).map(|party| party.id);
            assert!(matches!(refused, Err(AccessError::Unconfigured { .. })), "{address}: {refused:?}");
        }
    }

    #[test]
    fn a_page_of_others_and_another_ceremony_are_refused() {
        let party = RelyingParty::at("https://karat.example.org").unwrap();
        let check = |text: &str| party.check(&ClientData::read(text.as_bytes())?, Ceremony::Get);
        let said = |kind: &str, origin: &str, more: &str| {
            format!(r#"{{"type":"{kind}","challenge":"abc","origin":"{origin}"{more},"later":{{"more":[1]}}}}"#)
        };
        let (ours, get) = ("https://karat.example.org", "webauthn.get");
        assert_eq!(check(&said(get, ours, "")), Ok(()));
        assert_eq!(check(&said(get, ours, r#","crossOrigin":false"#)), Ok(()));
        assert_eq!(check(&said(get, ours, r#","crossOrigin":true"#)), Err(Fault::Origin));
        assert_eq!(check(&said(get, ours, r#","topOrigin":"https://evil.example.org""#)), Err(Fault::Origin));
        assert_eq!(check(&said("webauthn.create", ours, "")), Err(Fault::Malformed));
        for other in [
            "http://karat.example.org",
            "https://karat.example.org:8443",
            "https://karat.example.org.evil.example",
            "https://example.org",
            "https://sub.karat.example.org",
            "null",
            "",
        ] {
            assert_eq!(check(&said(get, other, "")), Err(Fault::Origin), "{other}");
        }
        for broken in ["", "{}", "[]", r#"{"type":"webauthn.get"}"#, "\u{1}"] {
            assert_eq!(check(broken), Err(Fault::Malformed), "{broken}");
        }
    }
}
