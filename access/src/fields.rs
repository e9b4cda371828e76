//! Usernames and e-mail addresses: parsed once, their existence is the proof that they are well formed.

use std::fmt;

/// 3 to 30 of `A-Z a-z 0-9 _`; unique without case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username(String);

impl Username {
    /// Parses a username.
    ///
    /// # Errors
    /// The broken rule, as a line for `details`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = (3..=30).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Ok(Self(text.to_owned()));
        }
        Err("`username`: must be 3 to 30 characters out of letters A to Z, digits and `_`".to_owned())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// An e-mail address in ASCII (international domains in their `xn--` form); unique without case.
///
/// ASCII only, because look-alike letters and case folding beyond ASCII make two people's addresses compare alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Longest address that a mail server must accept (RFC 5321, 4.5.3.1.3, less the angle brackets).
    const MAX_CHARS: usize = 254;

    /// Parses an address.
    ///
    /// # Errors
    /// The broken rule, as a line for `details`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let valid = text.len() <= Self::MAX_CHARS
            && text.split_once('@').is_some_and(|(local, domain)| is_local_part(local) && is_domain(domain));
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err("`email`: must be an address such as `name@example.org`, in ASCII, at most 254 characters".to_owned())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `@`.
    pub fn local_part(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// A telephone number in E.164: `+` and 8 to 15 digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phone(String);

impl Phone {
    /// Parses a number; spaces, dots and hyphens between digits are dropped.
    ///
    /// # Errors
    /// The broken rule, as a line for `details`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
        let digits = plain.strip_prefix('+').unwrap_or_default();
        let fits = (8..=15).contains(&digits.len()) && !digits.starts_with('0') && text.len() <= 40;
        if fits && digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self(plain));
        }
        Err("`phone`: must be an international number such as `+34600123456`".to_owned())
    }

    /// In E.164.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text has no control characters. Nothing that is looked for by text has any, and PostgreSQL refuses a
/// statement with a NUL in one of its values.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.contains(char::is_control)
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Dot-atom of RFC 5322; quoted local parts are refused on purpose.
fn is_local_part(local: &str) -> bool {
    let is_atom_char = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    local.len() <= 64 && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_char))
}

/// At least two labels of letters, digits and inner hyphens; the last one is not a number.
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_name = domain.rsplit('.').next().is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
    domain.contains('.') && last_is_name && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_are_three_to_thirty_plain_characters() {
        for good in ["abc", "A_9", &"x".repeat(30)] {
            assert!(Username::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "a b", "a-b", "ünal", "a@b", "abc\n", &"x".repeat(31)] {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn security_39_and_68_addresses_that_could_reach_somebody_else_are_refused() {
        for good in ["a@b.co", "first.last+tag@mail.example.org", "x@xn--bcher-kva.example"] {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        let bad = [
            "",
            "a",
            "a@b",
            "a@",
            "@b.co",
            "a@b.co,c@d.co",
            "a@b.co\r\nBcc:e@y.co",
            "\"a b\"@c.co",
            "a@[127.0.0.1]",
            "mıke@example.org",
            "a@b..co",
            ".a@b.co",
            "a@-b.co",
            "a b@c.co",
            "a@127.0.0.1",
            "a@b@c.co",
        ];
        for bad in bad {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Email::parse(&format!("{}@example.org", "x".repeat(250))).is_err());
    }

    #[test]
    fn numbers_are_international_and_kept_without_decoration() {
        assert_eq!(Phone::parse("+34 600-123.456").unwrap().as_str(), "+34600123456");
        for bad in [
            "",
            "600123456",
            "+0600123456",
            "+34600",
            "+34600123456789012",
            "+34600123456,+1",
            "+34600\n123456",
            "+٣٤٦٠٠١٢٣٤٥٦",
        ] {
            assert!(Phone::parse(bad).is_err(), "{bad:?}");
        }
    }
}
