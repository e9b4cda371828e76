//! Whose request this is: one name, by the rules of RFC 9112 (3.2) and RFC 9113 (8.3.1).
//!
//! hyper passes requests on without a look at `Host`. A proxy and this server that read two names differently could be played
//! against each other, so a request with none where one is due, with two, with an empty or malformed one, with another one
//! than its target has, or with a user beside it, is answered 400 and its connection is closed.

use poem::http::{HeaderMap, Uri, Version, header, uri::Authority};

use crate::ApiError;

/// What is wrong with the host of a request; kept with it by the server for [`crate::harden_with`], which answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongHost(&'static str);

impl WrongHost {
    /// Looks at the host of a request.
    pub(crate) fn of(version: Version, target: &Uri, headers: &HeaderMap) -> Option<Self> {
        if target.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Some(Self("the request's target names a user beside the host"));
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => return Some(Self("the request has more than one `Host`")),
            (None, _) if version == Version::HTTP_11 => return Some(Self("the request has no `Host`")),
            (None, _) if version == Version::HTTP_2 && target.authority().is_none() => {
                return Some(Self("the request has no `:authority`"));
            }
            (None, _) => return None,
            (Some(host), None) => host,
        };
        let Some(host) = Authority::try_from(host.as_bytes()).ok().filter(|host| !host.as_str().contains('@')) else {
            return Some(Self("`Host` is not a host name with or without a port"));
        };
        let is_other = target.host().is_some_and(|target| !target.eq_ignore_ascii_case(host.host()));
        is_other.then_some(Self("`Host` is another one than that of the request's target"))
    }

    /// 400 `bad_host`.
    pub(crate) fn refusal(self) -> ApiError {
        ApiError::bad_request("bad_host", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wrong(version: Version, target: &'static str, hosts: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        WrongHost::of(version, &Uri::from_static(target), &headers).is_some()
    }

    #[test]
    fn a_request_has_one_host() {
        for good in ["example.org", "example.org:8080", "EXAMPLE.org", "[::1]:8080", "127.0.0.1", "a_b"] {
            assert!(!is_wrong(Version::HTTP_11, "/", &[good]), "{good}");
        }
        for bad in ["", " ", "a b", "user@example.org", "example.org/x", "[::1"] {
            assert!(is_wrong(Version::HTTP_11, "/", &[bad]), "{bad}");
        }
        assert!(is_wrong(Version::HTTP_11, "/", &[]));
        assert!(!is_wrong(Version::HTTP_10, "/", &[]), "older clients name none");
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert!(is_wrong(version, "/", &["a", "a"]), "{version:?}");
        }
    }

    #[test]
    fn the_target_and_host_name_the_same() {
        assert!(!is_wrong(Version::HTTP_2, "https://example.org/x", &[]));
        assert!(!is_wrong(Version::HTTP_2, "https://example.org/x", &["Example.org:443"]));
        assert!(is_wrong(Version::HTTP_2, "https://example.org/x", &["other.example.org"]));
        assert!(is_wrong(Version::HTTP_11, "http://example.org/x", &["other.example.org"]));
        assert!(is_wrong(Version::HTTP_2, "/x", &[]), "neither names one");
        assert!(is_wrong(Version::HTTP_2, "https://user@example.org/x", &[]), "a user is part of no host");
        assert!(is_wrong(Version::HTTP_11, "https://user@example.org/x", &["example.org"]));
    }
}
