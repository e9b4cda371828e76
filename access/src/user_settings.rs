//! Settings of people: what programs that show things remember for them, a key and a JSON value each.
//!
//! A value means nothing here and is given back as it was understood: kept as canonical JSON, in which integers have every
//! digit. [`SettingsChange`] is a change that keeps the rules of a request; what only the whole can break (how many, how large)
//! is checked where it is made.

use std::collections::BTreeMap;

use karat_schemas::json::{Node, canonical};
use uuid::Uuid;

use crate::secret::sha256_hex;
use crate::{Access, AccessError, Caller};

/// Most settings of one person.
const MAX_SETTINGS: usize = 100;
const MAX_KEY_CHARS: usize = 64;
/// Largest value, in bytes of canonical JSON.
const MAX_VALUE_BYTES: usize = 4 * 1024;
/// Deepest nesting of one value.
const MAX_VALUE_DEPTH: usize = 32;
/// All of them together, in bytes of canonical JSON.
const MAX_BYTES: usize = 64 * 1024;

/// The settings of one person: canonical JSON by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserSettings(BTreeMap<String, String>);

/// Canonical JSON by key; nothing where null was said.
type Members = BTreeMap<String, Option<String>>;

/// What to make of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsChange {
    /// These and no others.
    Replace(UserSettings),
    /// These are set, or removed where there is no value; the others stay.
    Merge(Members),
    /// This one goes.
    Remove(String),
}

impl UserSettings {
    /// As the database has them.
    pub(crate) fn of(by_key: BTreeMap<String, String>) -> Self {
        Self(by_key)
    }

    pub(crate) fn by_key(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Each key with its value as canonical JSON, in order of the keys.
    pub fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// One JSON object, with the keys in order.
    pub fn to_json(&self) -> String {
        // Keys have no characters that JSON escapes.
        let members: Vec<String> = self.0.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    /// Tells this state from every other one.
    pub fn revision(&self) -> String {
        sha256_hex(&self.to_json())
    }

    fn check(&self) -> Result<(), AccessError> {
        let mut lines = Vec::new();
        if self.0.len() > MAX_SETTINGS {
            lines.push(format!("there may be at most {MAX_SETTINGS} settings, and would be {}", self.0.len()));
        }
        let bytes = self.to_json().len();
        if bytes > MAX_BYTES {
            lines.push(format!("all settings together may have at most {MAX_BYTES} bytes, and would have {bytes}"));
        }
        if lines.is_empty() { Ok(()) } else { Err(AccessError::Invalid(lines)) }
    }
}

impl SettingsChange {
    /// Replaces all settings by the members of an object.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] with every broken rule.
    pub fn replacing(node: &Node<'_>) -> Result<Self, AccessError> {
        let (members, mut lines) = read(node)?;
        let mut settings = BTreeMap::new();
        for (key, value) in members {
            match value {
                Some(value) => drop(settings.insert(key, value)),
                None => lines.push(format!("`{key}`: must have a value, and null is none: leave the key out")),
            }
        }
        if lines.is_empty() { Ok(Self::Replace(UserSettings(settings))) } else { Err(AccessError::Invalid(lines)) }
    }

    /// Sets each member of an object; null removes that setting.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] with every broken rule.
    pub fn merging(node: &Node<'_>) -> Result<Self, AccessError> {
        let (members, lines) = read(node)?;
        if lines.is_empty() { Ok(Self::Merge(members)) } else { Err(AccessError::Invalid(lines)) }
    }

    /// What `before` becomes. [`AccessError::NotFound`] when the one that goes is not there; [`AccessError::Invalid`] when there
    /// would be too many or too much.
    pub(crate) fn applied_to(&self, before: &UserSettings) -> Result<UserSettings, AccessError> {
        let after = match self {
            Self::Replace(settings) => settings.clone(),
            Self::Merge(members) => {
                let mut after = before.clone();
                for (key, value) in members {
                    match value {
                        Some(value) => drop(after.0.insert(key.clone(), value.clone())),
                        None => drop(after.0.remove(key)),
                    }
                }
                after
            }
            Self::Remove(key) => {
                let mut after = before.clone();
                after.0.remove(key).ok_or(AccessError::NotFound { what: "setting" })?;
                // What is less keeps every bound, or comes nearer to it.
                return Ok(after);
            }
        };
        after.check()?;
        Ok(after)
    }
}

impl Access {
    /// The settings of a user.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn user_settings(&self, user: Uuid) -> Result<UserSettings, AccessError> {
        self.inner.store.user_settings(user).await
    }

    /// Changes the caller's settings, all of the change or nothing; answers what they are now. Changes made at the same time
    /// come one after the other. With `expected`, only when they are at one of those [revisions](UserSettings::revision).
    ///
    /// # Errors
    /// [`AccessError::SettingsChanged`] when they are at another one; [`AccessError::NotFound`] for one that goes and is not
    /// there; [`AccessError::Invalid`] when there would be too many or too much; [`AccessError::NotAuthenticated`] when the
    /// caller's session has ended.
    pub async fn change_user_settings(
        &self,
        caller: &Caller,
        change: &SettingsChange,
        expected: Option<&[String]>,
    ) -> Result<UserSettings, AccessError> {
        self.inner.store.change_user_settings(caller.id, caller.require_session()?, change, expected).await
    }
}

/// The members of an object, with their canonical values where they have one, and every rule that one of them breaks.
fn read(node: &Node<'_>) -> Result<(Members, Vec<String>), AccessError> {
    let invalid = |line: String| Err(AccessError::Invalid(vec![line]));
    let Node::Object(members) = node else {
        return invalid(format!("the body must be an object of keys and values, and is {}", node.kind()));
    };
    // As many lines as somebody reads, and a bound on the work.
    if members.len() > MAX_SETTINGS {
        return invalid(format!("a request may name at most {MAX_SETTINGS} settings, and names {}", members.len()));
    }
    let (mut read, mut lines) = (BTreeMap::new(), Vec::new());
    for (key, value) in members {
        let name = shown(key);
        if !is_key(key) {
            let rule = format!("must be 1 to {MAX_KEY_CHARS} of letters A to Z, digits, `_`, `.` and `-`");
            lines.push(format!("`{name}`: the key {rule}"));
        }
        match value_of(value) {
            Ok(value) => drop(read.insert(name, value)),
            Err(rule) => lines.push(format!("`{name}`: {rule}")),
        }
    }
    Ok((read, lines))
}

/// The canonical form; none of null. Else the rule that is broken.
fn value_of(node: &Node<'_>) -> Result<Option<String>, String> {
    if matches!(node, Node::Null) {
        return Ok(None);
    }
    let depth = node.depth();
    if depth > MAX_VALUE_DEPTH {
        return Err(format!("the value may be nested at most {MAX_VALUE_DEPTH} levels deep, and is {depth}"));
    }
    let value = canonical(node).map_err(|fault| fault.message)?;
    if value.len() > MAX_VALUE_BYTES {
        let bytes = value.len();
        return Err(format!("the value may have at most {MAX_VALUE_BYTES} bytes of JSON, and has {bytes}"));
    }
    Ok(Some(value))
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY_CHARS).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// A key as messages show it: its beginning, with nothing in it that could forge a line. A right key is shown as it is.
fn shown(key: &str) -> String {
    key.chars().take(MAX_KEY_CHARS).map(|c| if c.is_control() || c == '`' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use karat_schemas::json::parse;

    use super::*;

    fn lines(result: Result<SettingsChange, AccessError>) -> Vec<String> {
        match result {
            Err(AccessError::Invalid(lines)) => lines,
            other => panic!("expected broken rules, found {other:?}"),
        }
    }

    fn replacing(text: &str) -> Result<SettingsChange, AccessError> {
        SettingsChange::replacing(&parse(text).unwrap())
    }

    #[test]
    fn values_are_kept_in_one_spelling_and_integers_with_every_digit() {
        let text = r#" {"b": [1.50, {"y": null, "x": "\u0041"}], "a-1": 123456789012345678901234567890 } "#;
        let SettingsChange::Replace(settings) = replacing(text).unwrap() else { panic!("another change") };
        let expected = r#"{"a-1":123456789012345678901234567890,"b":[1.5,{"x":"A","y":null}]}"#;
        assert_eq!(settings.to_json(), expected);
        let SettingsChange::Replace(same) = replacing(expected).unwrap() else { panic!("another change") };
        assert_eq!(same.revision(), settings.revision());
        assert_ne!(settings.revision(), UserSettings::default().revision());
    }

    #[test]
    fn every_broken_rule_is_a_line_that_names_its_key() {
        let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
        let text = format!(
            r#"{{"": 1, "a b": 1, "a`\n": 1, "{}": 1, "deep": {deep}, "long": "{}", "huge": [1e999], "none": null}}"#,
            "k".repeat(65),
            "x".repeat(4095),
        );
        let found = lines(replacing(&text));
        let expected = [
            ("``: ", "the key must be 1 to 64"),
            ("`a b`: ", "the key must be"),
            ("`a??`: ", "the key must be"),
            ("`kkk", "the key must be"),
            ("`deep`: ", "at most 32 levels deep, and is 33"),
            ("`long`: ", "at most 4096 bytes of JSON, and has 4097"),
            ("`huge`: ", "larger than a double can hold"),
            ("`none`: ", "null is none"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (line, (begin, words)) in found.iter().zip(expected) {
            assert!(line.starts_with(begin) && line.contains(words), "{line}");
        }
        assert_eq!(lines(replacing("[1]")), ["the body must be an object of keys and values, and is an array"]);
    }

    #[test]
    fn what_is_at_a_bound_is_taken() {
        let deep = format!("{}{}", "[".repeat(32), "]".repeat(32));
        let text = format!(r#"{{"{}": {deep}, "long": "{}"}}"#, "k".repeat(64), "x".repeat(4094));
        replacing(&text).unwrap();
        let many = |num: usize| (0..num).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(",");
        replacing(&format!("{{{}}}", many(100))).unwrap();
        let found = lines(replacing(&format!("{{{}}}", many(101))));
        assert_eq!(found, ["a request may name at most 100 settings, and names 101"]);
    }

    #[test]
    fn a_merge_sets_removes_and_leaves_and_keeps_the_bounds_of_the_whole() {
        let settings = |num: usize, bytes: usize| {
            UserSettings((0..num).map(|n| (format!("k{n:02}"), format!("\"{}\"", "x".repeat(bytes)))).collect())
        };
        let merge = |text: &str| SettingsChange::merging(&parse(text).unwrap()).unwrap();
        let before = settings(2, 1);
        let after = merge(r#"{"k00": null, "k01": 7, "new": true, "never": null}"#).applied_to(&before).unwrap();
        assert_eq!(after.to_json(), r#"{"k01":7,"new":true}"#);

        let full = settings(100, 1);
        let refused = lines(merge(r#"{"new": 1}"#).applied_to(&full).map(SettingsChange::Replace));
        assert_eq!(refused, ["there may be at most 100 settings, and would be 101"]);
        assert!(merge(r#"{"new": 1, "k00": null}"#).applied_to(&full).is_ok());

        // 16 values of 4 KiB are 64 KiB without their keys.
        let large = settings(16, 4094);
        let refused = lines(merge(r#"{"new": 1}"#).applied_to(&large).map(SettingsChange::Replace));
        assert!(refused[0].contains("at most 65536 bytes") && refused.len() == 1, "{refused:?}");
        let gone = SettingsChange::Remove("never".to_owned()).applied_to(&before);
        assert!(matches!(gone, Err(AccessError::NotFound { what: "setting" })), "{gone:?}");
    }
}
