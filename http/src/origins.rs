//! The pages of other hosts that may call this one: an exact list, never a pattern.

use std::str::FromStr;
use std::sync::Arc;

use poem::Request;
use poem::http::header;

/// Allowed origins, such as `https://app.example.org`. Empty by default: then only pages of this host work.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<[String]>);

impl Origins {
    /// Reads a list.
    ///
    /// # Errors
    /// A line for each entry that is no origin: `*` and `null` are none, nor is one with a path.
    pub fn parse<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self, Vec<String>> {
        let (mut origins, mut problems) = (Vec::new(), Vec::new());
        for text in texts {
            match parse(text.as_ref().trim()) {
                Some(origin) => origins.push(origin),
                None => problems.push(format!(
                    "`{}` is no origin: expected `https://HOST` or `https://HOST:PORT`, without a path",
                    text.as_ref().escape_debug()
                )),
            }
        }
        if problems.is_empty() { Ok(Self(origins.into())) } else { Err(problems) }
    }

    /// Whether a request comes from a page of this host or of an origin in the list, or from no page at all. Where a
    /// browser adds by itself what makes a request count, a cookie for one, or lets a page read what another host answers, as
    /// with WebSockets, nothing else keeps the pages of others away.
    pub fn admits(&self, request: &Request) -> bool {
        let Some(origin) = request.headers().get(header::ORIGIN) else { return true };
        origin.to_str().is_ok_and(|origin| is_own(request, origin) || self.contains(origin))
    }

    /// Whether exactly this origin is in the list.
    pub fn contains(&self, origin: &str) -> bool {
        self.0.iter().any(|allowed| allowed == origin)
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text.split(',').filter(|part| !part.trim().is_empty())).map_err(|problems| problems.join("; "))
    }
}

fn is_own(request: &Request, origin: &str) -> bool {
    // HTTP/2 has the host in the address.
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let origin_host = origin.split_once("://").map(|(_, host)| host);
    host.is_some() && origin_host == host
}

/// Lower-case scheme and host, as browsers send them.
fn parse(text: &str) -> Option<String> {
    let (scheme, host) = text.split_once("://")?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | ':' | '[' | ']');
    (matches!(scheme, "http" | "https") && !host.is_empty() && host.chars().all(is_plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_this_host_and_of_the_list_are_admitted_and_so_is_what_no_page_sends() {
        let origins: Origins = "https://app.example.org".parse().unwrap();
        let from = |origin: &str| {
            let request = Request::builder().header("host", "karat.example.org:8080").header("origin", origin);
            origins.admits(&request.finish())
        };
        assert!(from("https://app.example.org") && from("http://karat.example.org:8080"));
        for foreign in ["https://evil.example.org", "http://karat.example.org", "null", "", "karat.example.org:8080"] {
            assert!(!from(foreign), "{foreign}");
        }
        assert!(origins.admits(&Request::builder().header("host", "karat.example.org").finish()));
    }

    #[test]
    fn security_78_only_exact_origins_are_contained_and_patterns_are_refused() {
        let origins: Origins = "https://app.example.org, http://localhost:3000".parse().unwrap();
        assert!(origins.contains("https://app.example.org") && origins.contains("http://localhost:3000"));
        for look_alike in [
            "null",
            "https://app.example.org.evil.org",
            "https://evil-app.example.org",
            "http://app.example.org",
            "https://app.example.org:444",
            "",
        ] {
            assert!(!origins.contains(look_alike), "{look_alike}");
        }
        for bad in ["*", "null", "https://*.example.org", "https://a.org/path", "ftp://a.org", "https://"] {
            assert!(bad.parse::<Origins>().is_err(), "{bad}");
        }
    }
}
