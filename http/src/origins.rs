//! The pages of other hosts that may call this one: an exact list, never a pattern.

use std::str::FromStr;
use std::sync::Arc;

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
    fn only_exact_origins_are_contained_and_patterns_are_refused() {
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
