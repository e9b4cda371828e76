//! Scopes of API keys: `publish:<event type>`, `publish:<prefix>.*`, `publish:*`, `publish_for_others`, `read`, and
//! `route:<path>`, `route:<path>/*`.
//!
//! The first ones give a key rights that its owner has. Those of routes give none: a key with any of them is refused on
//! every other route, and one without them may call each route that its rights reach.

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
    /// Call the route at this path, which is written without the prefix of the API.
    Route(String),
    /// Call the routes whose paths start with this (it ends with a slash).
    RoutePrefix(String),
}

impl Scope {
    fn is_of_routes(&self) -> bool {
        matches!(self, Self::Route(_) | Self::RoutePrefix(_))
    }
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
        if problems.is_empty() && !scopes.is_empty() && scopes.iter().all(Scope::is_of_routes) {
            let line = "`scopes`: those of routes give no right: add `read` or a scope that publishes";
            problems.push(line.to_owned());
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
            Scope::PublishForOthers | Scope::Read | Scope::Route(_) | Scope::RoutePrefix(_) => false,
        })
    }

    /// Whether the route at this path, without the prefix of the API, may be called.
    pub fn allow_route(&self, path: &str) -> bool {
        let mut routes = self.0.iter().filter(|scope| scope.is_of_routes()).peekable();
        routes.peek().is_none()
            || routes.any(|scope| match scope {
                Scope::Route(exact) => exact == path,
                Scope::RoutePrefix(prefix) => path.starts_with(prefix.as_str()),
                _ => false,
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
            Self::Route(path) => write!(f, "route:{path}"),
            Self::RoutePrefix(prefix) => write!(f, "route:{prefix}*"),
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
        if let Some(path) = text.strip_prefix("route:") {
            return route(path).ok_or_else(|| {
                format!(
                    "`scopes`: `{}` is no scope of a route: expected `route:` with a path such as `/runs`, or `/runs/*` \
                     for what is below it, without the `/api/v1` before it",
                    text.escape_debug()
                )
            });
        }
        let event_type = text.strip_prefix("publish:").unwrap_or_default();
        let (name, is_prefix) = match event_type.strip_suffix(".*") {
            Some(prefix) => (prefix, true),
            None => (event_type, false),
        };
        if !is_event_type(name) {
            return Err(format!(
                "`scopes`: `{}` is not a scope: expected `read`, `publish_for_others`, `publish:*`, \
                 `publish:<event type>`, `publish:<prefix>.*`, `route:<path>` or `route:<path>/*`",
                text.escape_debug()
            ));
        }
        Ok(if is_prefix { Self::PublishPrefix(format!("{name}.")) } else { Self::Publish(name.to_owned()) })
    }
}

/// The scope of a path. None of a form that no route has: it would refuse everything.
fn route(path: &str) -> Option<Scope> {
    let (name, is_prefix) = match path.strip_suffix("/*") {
        Some(name) => (name, true),
        None => (path, false),
    };
    let mut parts = name.strip_prefix('/')?.split('/');
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~'))
    };
    let is_whole = name.len() <= 200 && parts.clone().all(is_part) && parts.next() != Some("api");
    is_whole.then(|| if is_prefix { Scope::RoutePrefix(format!("{name}/")) } else { Scope::Route(name.to_owned()) })
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
        let texts =
            ["publish:*", "publish:a.*", "publish:a.b", "publish_for_others", "read", "route:/runs", "route:/a/b/*"];
        assert_eq!(scopes(&texts).to_texts(), texts);
    }

    #[test]
    fn scopes_of_routes_refuse_the_others_and_a_key_without_them_may_call_all() {
        let narrow = scopes(&["read", "route:/jobs", "route:/runs/*"]);
        for (path, is_allowed) in [
            ("/jobs", true),
            ("/jobs/a/b/runs", false),
            ("/jobsx", false),
            ("/runs/1", true),
            ("/runs/1/2", true),
            ("/runs", false),
            ("/runsx", false),
            ("", false),
            ("/", false),
        ] {
            assert_eq!(narrow.allow_route(path), is_allowed, "{path}");
        }
        assert!(scopes(&["read"]).allow_route("/anything"));
    }

    #[test]
    fn paths_that_no_route_has_are_refused() {
        for bad in
            ["", "/", "/*", "*", "runs", "/runs/", "//runs", "/runs//*", "/a b", "/%72uns", "/api/v1/runs", "/r?x=1"]
        {
            assert!(Scopes::parse(["read", &format!("route:{bad}")]).is_err(), "{bad}");
        }
        assert!(Scopes::parse(["read", "route:/api-keys"]).is_ok());
        let only = Scopes::parse(["route:/runs"]).unwrap_err();
        assert!(only.len() == 1 && only[0].contains("give no right"), "{only:?}");
    }

    #[test]
    fn every_unknown_scope_gets_its_own_line() {
        let problems = Scopes::parse(["admin", "publish:", "publish:a b", "read"]).unwrap_err();
        assert_eq!(problems.len(), 3);
        assert!(Scopes::parse(Vec::<String>::new()).is_err());
    }
}
