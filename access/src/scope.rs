//! Scopes of API keys: `publish:<event type>`, `publish:<prefix>.*`, `publish:*`, `publish_for_others`, `read`.

use std::fmt;
use std::str::FromStr;

/// One scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Publish every event type.
    PublishAll,
    /// Publish event types that start with this prefix (it ends with a dot).
    PublishPrefix(String),
    /// Publish this event type.
    Publish(String),
    /// `user_id` in a payload is honoured.
    PublishForOthers,
    /// Read what the key's owner may read.
    Read,
}

/// The scopes of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// More scopes than this are refused: they are checked for every event.
    pub const MAX: usize = 64;

    /// Parses scope texts.
    ///
    /// # Errors
    /// A line for each scope that is not understood.
    pub fn parse<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self, Vec<String>> {
        let (mut scopes, mut problems) = (Vec::new(), Vec::new());
        for text in texts {
            match text.as_ref().parse() {
                Ok(scope) if scopes.contains(&scope) => {}
                Ok(scope) => scopes.push(scope),
                Err(problem) => problems.push(problem),
            }
        }
        if scopes.is_empty() && problems.is_empty() {
            problems.push("`scopes`: at least one scope is needed".to_owned());
        }
        if scopes.len() > Self::MAX {
            problems.push(format!("`scopes`: found {}, at most {} are allowed", scopes.len(), Self::MAX));
        }
        if problems.is_empty() { Ok(Self(scopes)) } else { Err(problems) }
    }

    /// Whether events of this type may be published.
    pub fn allow_publishing(&self, event_type: &str) -> bool {
        self.0.iter().any(|scope| match scope {
            Scope::PublishAll => true,
            Scope::PublishPrefix(prefix) => event_type.starts_with(prefix.as_str()),
            Scope::Publish(exact) => exact == event_type,
            Scope::PublishForOthers | Scope::Read => false,
        })
    }

    /// Whether any event may be published.
    pub fn allow_any_publishing(&self) -> bool {
        self.0.iter().any(|s| matches!(s, Scope::PublishAll | Scope::PublishPrefix(_) | Scope::Publish(_)))
    }

    /// Whether this scope is among them.
    pub fn contains(&self, scope: &Scope) -> bool {
        self.0.contains(scope)
    }

    /// As texts, in the order given.
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(Scope::to_string).collect()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublishAll => f.write_str("publish:*"),
            Self::PublishPrefix(prefix) => write!(f, "publish:{prefix}*"),
            Self::Publish(event_type) => write!(f, "publish:{event_type}"),
            Self::PublishForOthers => f.write_str("publish_for_others"),
            Self::Read => f.write_str("read"),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => return Ok(Self::Read),
            "publish_for_others" => return Ok(Self::PublishForOthers),
            "publish:*" => return Ok(Self::PublishAll),
            _ => {}
        }
        let event_type = text.strip_prefix("publish:").unwrap_or_default();
        let (name, is_prefix) = match event_type.strip_suffix(".*") {
            Some(prefix) => (prefix, true),
            None => (event_type, false),
        };
        if !is_event_type(name) {
            return Err(format!(
                "`scopes`: `{}` is not a scope: expected `read`, `publish_for_others`, `publish:*`, \
                 `publish:<event type>` or `publish:<prefix>.*`",
                text.escape_debug()
            ));
        }
        Ok(if is_prefix { Self::PublishPrefix(format!("{name}.")) } else { Self::Publish(name.to_owned()) })
    }
}

fn is_event_type(name: &str) -> bool {
    (1..=200).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(texts: &[&str]) -> Scopes {
        Scopes::parse(texts).unwrap()
    }

    #[test]
    fn a_scope_covers_exactly_what_it_names() {
        let exact = scopes(&["publish:etl.run.finished"]);
        assert!(exact.allow_publishing("etl.run.finished"));
        assert!(!exact.allow_publishing("etl.run.finished2") && !exact.allow_publishing("etl.run"));
        let prefix = scopes(&["publish:etl.run.*"]);
        assert!(prefix.allow_publishing("etl.run.started"));
        assert!(!prefix.allow_publishing("etl.runs") && !prefix.allow_publishing("etl.run"));
        assert!(scopes(&["publish:*"]).allow_publishing("anything"));
        assert!(!scopes(&["read", "publish_for_others"]).allow_any_publishing());
    }

    #[test]
    fn scopes_read_back_as_they_were_written() {
        let texts = ["publish:*", "publish:a.*", "publish:a.b", "publish_for_others", "read"];
        assert_eq!(scopes(&texts).to_texts(), texts);
    }

    #[test]
    fn every_unknown_scope_gets_its_own_line() {
        let problems = Scopes::parse(["admin", "publish:", "publish:a b", "read"]).unwrap_err();
        assert_eq!(problems.len(), 3);
        assert!(Scopes::parse(Vec::<String>::new()).is_err());
    }
}
