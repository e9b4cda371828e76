//! [`Node`] as validators of JSON Schema see it, so that what was read strictly is checked as it is, without a copy of it.

use std::{borrow::Cow, slice};

use jsonschema::{
    JsonType,
    json::{Array, Json, Node as Checked, NodeIdentity, Object, cmp},
};
use serde_json::{Number, Value};

use super::{Node, number_of};

/// The form of JSON that validators are compiled for.
pub struct Strict;

type Fields<'n> = &'n [(Cow<'n, str>, Node<'n>)];

impl Json for Strict {
    type Node<'n> = &'n Node<'n>;
    type PreparedKey = String;
    type StringBuffer = ();

    // A lookup goes through the fields: a few of them cost less than one allocation did.
    const KEYS_PER_LOOKUP: usize = 2;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(_: &mut (), string: &str, f: impl FnOnce(Self::Node<'_>) -> T) -> T {
        f(&Node::Text(Cow::Borrowed(string)))
    }
}

impl<'n> Checked<'n, Strict> for &'n Node<'n> {
    type Object = Fields<'n>;
    type Array = &'n [Node<'n>];
    type Number = Number;

    fn as_object(&self) -> Option<Fields<'n>> {
        match *self {
            Node::Object(fields) => Some(fields.as_slice()),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<&'n [Node<'n>]> {
        match *self {
            Node::Array(items) => Some(items.as_slice()),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'n, str>> {
        match *self {
            Node::Text(text) => Some(Cow::Borrowed(&**text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Number> {
        match *self {
            Node::Number(digits) => number_of(digits),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match *self {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        Checked::json_type(self) == JsonType::Null
    }

    fn json_type(&self) -> JsonType {
        match *self {
            // As in `into_value`, which error messages are made of.
            Node::Number(digits) if number_of(digits).is_none() => JsonType::Null,
            Node::Null => JsonType::Null,
            Node::Bool(_) => JsonType::Boolean,
            Node::Number(_) => JsonType::Number,
            Node::Text(_) => JsonType::String,
            Node::Array(_) => JsonType::Array,
            Node::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match *self {
            Node::Text(text) => expected.as_str() == Some(&**text),
            _ => cmp::equal(&Checked::to_value(self), expected),
        }
    }

    fn to_value(&self) -> Cow<'n, Value> {
        Cow::Owned(Node::clone(self).into_value())
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Node<'n>>(self) as usize))
    }
}

impl<'n> Object<'n, Strict> for Fields<'n> {
    type Node = &'n Node<'n>;
    type MemberName = &'n str;
    type MembersIter = Members<'n>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn get(&self, key: &String) -> Option<&'n Node<'n>> {
        let fields = *self;
        fields.iter().find(|(name, _)| *name == key.as_str()).map(|(_, value)| value)
    }

    fn members(&self) -> Members<'n> {
        let fields = *self;
        Members(fields.iter())
    }
}

/// The fields of an object.
pub struct Members<'n>(slice::Iter<'n, (Cow<'n, str>, Node<'n>)>);

impl<'n> Iterator for Members<'n> {
    type Item = (&'n str, &'n Node<'n>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (&**name, value))
    }
}

impl<'n> Array<'n, Strict> for &'n [Node<'n>] {
    type Node = &'n Node<'n>;
    type ElementsIter = slice::Iter<'n, Node<'n>>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn elements(&self) -> slice::Iter<'n, Node<'n>> {
        let items = *self;
        items.iter()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::json::parse;

    /// What is wrong with a text, by our form and by that of `serde_json`.
    fn problems(schema: &Value, text: &str) -> [Vec<String>; 2] {
        let ours = jsonschema::options_for::<Strict>().should_validate_formats(true).build(schema).unwrap();
        let theirs = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
        let node = parse(text).unwrap();
        let value = node.clone().into_value();
        assert_eq!(ours.is_valid(&node), theirs.is_valid(&value), "{text}");
        let line = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
        let mut both: [Vec<String>; 2] =
            [ours.iter_errors(&node).map(line).collect(), theirs.iter_errors(&value).map(line).collect()];
        both.iter_mut().for_each(|lines| lines.sort_unstable());
        both
    }

    #[test]
    fn what_is_valid_and_why_not_is_the_same_as_for_a_copy() {
        let schema = json!({
            "type": "object", "required": ["id", "kind"], "additionalProperties": false,
            "propertyNames": {"maxLength": 8}, "maxProperties": 6,
            "properties": {
                "id": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-zé]+$"},
                "kind": {"enum": ["one", 2, null, [1], {"a": 1}]},
                "at": {"type": ["string", "null"], "format": "date-time"},
                "count": {"type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991_u64},
                "share": {"type": "number", "exclusiveMaximum": 1, "multipleOf": 0.25},
                "is_on": {"const": true},
                "items": {"type": "array", "uniqueItems": true, "items": {"$ref": "#"}, "contains": {"type": "object"}}
            }
        });
        for text in [
            r#"{"id":"abc","kind":"one"}"#,
            r#"{"id":"é\u00e9","kind":2.0,"at":null,"count":0,"share":0.5,"is_on":true}"#,
            r#"{"id":"a","kind":"two","at":"yesterday","count":1.5,"share":1.0,"is_on":1}"#,
            r#"{"id":"ABCDE","kind":null,"count":9007199254740992,"share":0.3}"#,
            r#"{"id":"abc","kind":[1.0],"count":1e2,"at":"2026-01-31T10:00:00Z"}"#,
            r#"{"id":"abc","kind":{"a":1},"count":-1,"share":1e400}"#,
            r#"{"id":"abc","kind":[2],"count":123456789012345678901234567890}"#,
            r#"{"id":7,"kind":true,"a long name":1,"other":[]}"#,
            r#"{"id":"abc","kind":2,"items":[{"id":"ab","kind":2},{"id":"ab","kind":2}]}"#,
            r#"{"id":"abc","kind":2,"items":[{"id":"ab"},3,"x",null]}"#,
            "[]",
            "null",
            "1e400",
            r#""text""#,
        ] {
            let [ours, theirs] = problems(&schema, text);
            assert_eq!(ours, theirs, "{text}");
        }
    }
}
