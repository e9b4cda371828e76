//! The caller's settings: what programs that show things remember for somebody.
//!
//! Values do not go through the framework's JSON, which rounds large integers: bodies are read by the strict reader, and
//! answers have the text that is stored.

use karat_access::{Access, AccessError, Permission, SettingsChange, UserSettings};
use karat_http::{ApiError, Authenticated, error_answers, limited_body};
use karat_schemas::json::{self, Fault, FaultKind, Node};
use poem::http::{HeaderMap, HeaderValue, header};
use poem::{IntoResponse, Request, Response};
use poem_openapi::param::{Header, Path};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::value::RawValue;

use super::AuthTag;
use crate::serving::{envelope, text_header};

/// As sent: white space and escapes take room that what is kept does not.
const MAX_BODY_BYTES: u64 = 256 * 1024;
/// Longest line about a body, in characters: it may quote what was sent.
const MAX_LINE_CHARS: usize = 200;

error_answers! {
    /// Errors of reading the own settings.
    pub ReadSettingsError: 401, 403;
    /// Errors of changing the own settings.
    pub ChangeSettingsError: 400, 401, 403, 404, 412, 413, 415, 422;
    /// Errors of removing one of the own settings.
    pub DeleteSettingError: 401, 403, 404, 412;
}

karat_http::unread_body! {
    /// Settings by key, not yet read.
    SettingsBody: "An object of settings by key.", vec![media(settings_schema())];
}

/// A state of the settings, with its `ETag`.
pub struct SettingsAnswer {
    body: Vec<u8>,
    etag: HeaderValue,
}

/// Operations on the caller's settings.
#[derive(Clone)]
pub struct UserSettingsApi {
    access: Access,
}

impl UserSettingsApi {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }

    async fn change(
        &self,
        request: &Request,
        caller: &Authenticated,
        body: SettingsBody,
        understand: fn(&Node<'_>) -> Result<SettingsChange, AccessError>,
    ) -> Result<SettingsAnswer, ApiError> {
        caller.require(Permission::ManageOwnAccount)?;
        // Not `+json` of any kind: a merge patch (RFC 7396) would also merge what is inside of values.
        let media = request.content_type().and_then(|media| media.split(';').next()).unwrap_or_default();
        if !media.trim().eq_ignore_ascii_case("application/json") {
            return Err(ApiError::unsupported_media_type("the body must be sent as `application/json`"));
        }
        let bytes = limited_body(request.headers(), body.0, MAX_BODY_BYTES).await?;
        let change = understood(&bytes, understand)?;
        let expected = expected(request.headers());
        let settings = self.access.change_user_settings(caller, &change, expected.as_deref()).await?;
        SettingsAnswer::of(&settings, "the settings were changed")
    }
}

#[OpenApi(tag = "AuthTag::Accounts")]
impl UserSettingsApi {
    /// Read the caller's settings
    ///
    /// What programs keep for this person, by key. The values mean nothing to the server.
    #[oai(path = "/user-settings", method = "get", operation_id = "read_user_settings")]
    async fn read(&self, caller: Authenticated) -> Result<SettingsAnswer, ReadSettingsError> {
        caller.require(Permission::ManageOwnAccount)?;
        let settings = self.access.user_settings(caller.id).await?;
        Ok(SettingsAnswer::of(&settings, "the caller's settings")?)
    }

    /// Replace the caller's settings
    ///
    /// By those of the body; all others are removed. A key has 1 to 64 of letters A to Z, digits, `_`, `.` and `-`. There are
    /// at most 100 settings of at most 4 KiB of JSON each, nested at most 32 levels deep, and 64 KiB together. Integers keep
    /// every digit; null is no value.
    #[oai(path = "/user-settings", method = "put", operation_id = "replace_user_settings")]
    async fn replace(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Only when the settings are still those with this `ETag`, else 412.
        #[oai(name = "If-Match")]
        _if_match: Header<Option<String>>,
        body: SettingsBody,
    ) -> Result<SettingsAnswer, ChangeSettingsError> {
        Ok(self.change(request, &caller, body, SettingsChange::replacing).await?)
    }

    /// Change some of the caller's settings
    ///
    /// Those of the body are set, or removed where the value is null; the others stay. A value is replaced as a whole. The
    /// rules are those of replacing all.
    #[oai(path = "/user-settings", method = "patch", operation_id = "change_user_settings")]
    async fn merge(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Only when the settings are still those with this `ETag`, else 412.
        #[oai(name = "If-Match")]
        _if_match: Header<Option<String>>,
        body: SettingsBody,
    ) -> Result<SettingsAnswer, ChangeSettingsError> {
        Ok(self.change(request, &caller, body, SettingsChange::merging).await?)
    }

    /// Remove one of the caller's settings
    ///
    /// Answers those that are left.
    #[oai(path = "/user-settings/:key", method = "delete", operation_id = "delete_user_setting")]
    async fn delete(
        &self,
        request: &Request,
        caller: Authenticated,
        /// The key of the setting.
        key: Path<String>,
        /// Only when the settings are still those with this `ETag`, else 412.
        #[oai(name = "If-Match")]
        _if_match: Header<Option<String>>,
    ) -> Result<SettingsAnswer, DeleteSettingError> {
        caller.require(Permission::ManageOwnAccount)?;
        let (change, expected) = (SettingsChange::Remove(key.0), expected(request.headers()));
        let settings = self.access.change_user_settings(&caller, &change, expected.as_deref()).await?;
        Ok(SettingsAnswer::of(&settings, "the setting was removed")?)
    }
}

fn understood(
    bytes: &[u8],
    understand: fn(&Node<'_>) -> Result<SettingsChange, AccessError>,
) -> Result<SettingsChange, ApiError> {
    let node = json::text_of(bytes).and_then(json::parse).map_err(refused)?;
    Ok(understand(&node)?)
}

fn refused(fault: Fault) -> ApiError {
    let message: String = fault.message.chars().take(MAX_LINE_CHARS).collect();
    match fault.kind {
        FaultKind::InvalidUtf8 => ApiError::bad_request("bad_encoding", "the body is not valid UTF-8"),
        FaultKind::InvalidJson => ApiError::bad_request("bad_json", format!("the body is not valid JSON: {message}")),
        FaultKind::DuplicateKey | FaultKind::TooDeep => ApiError::validation(vec![message]),
    }
}

/// The revisions that `If-Match` allows; `None` where any is right. The comparison is a strong one (RFC 9110, 13.1.1): weak
/// tags, and what is no tag, name no revision, and are no reason to forget that there was a condition.
fn expected(headers: &HeaderMap) -> Option<Vec<String>> {
    let lines: Vec<&str> =
        headers.get_all(header::IF_MATCH).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    if lines.is_empty() || lines.iter().any(|line| line.trim() == "*") {
        return None;
    }
    let tags = lines.iter().flat_map(|line| line.split(',')).map(str::trim);
    Some(tags.filter_map(|tag| tag.strip_prefix('"')?.strip_suffix('"')).map(str::to_owned).collect())
}

impl SettingsAnswer {
    fn of(settings: &UserSettings, message: &str) -> Result<Self, ApiError> {
        let data = RawValue::from_string(settings.to_json()).map_err(ApiError::internal)?;
        let etag = HeaderValue::from_str(&format!("\"{}\"", settings.revision())).map_err(ApiError::internal)?;
        Ok(Self { body: envelope(&data, message)?, etag })
    }
}

impl IntoResponse for SettingsAnswer {
    fn into_response(self) -> Response {
        let response = Response::builder().content_type("application/json; charset=utf-8");
        response.header(header::ETAG, self.etag).body(self.body)
    }
}

impl ApiResponse for SettingsAnswer {
    fn meta() -> MetaResponses {
        let text = |description| {
            let schema = MetaSchema { description: Some(description), ..MetaSchema::new("string") };
            MetaSchemaRef::Inline(Box::new(schema))
        };
        let schema = MetaSchema {
            required: vec!["status", "data", "message", "timestamp"],
            properties: vec![
                ("status", text("Always `success`.")),
                ("data", MetaSchemaRef::Inline(Box::new(settings_schema()))),
                ("message", text("One sentence for people.")),
                ("timestamp", text("The time of rendering, RFC 3339 in UTC.")),
            ],
            ..MetaSchema::new("object")
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType { content_type: "application/json; charset=utf-8", ..media(schema) }],
                headers: vec![text_header("ETag", "Of this state of the settings; strong, for `If-Match`.")],
            }],
        }
    }

    fn register(_registry: &mut Registry) {}
}

fn media(schema: MetaSchema) -> MetaMediaType {
    MetaMediaType { content_type: "application/json", schema: MetaSchemaRef::Inline(Box::new(schema)) }
}

/// Any value by key.
fn settings_schema() -> MetaSchema {
    MetaSchema {
        description: Some("Settings by key, each any JSON value."),
        additional_properties: Some(Box::new(MetaSchemaRef::Inline(Box::new(MetaSchema::ANY)))),
        max_properties: Some(100),
        example: Some(serde_json::json!({"theme": "dark", "page_size": 50, "columns": ["source", "runs"]})),
        ..MetaSchema::new("object")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_read_from_all_its_lines_and_never_forgotten() {
        let of = |lines: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::IF_MATCH, HeaderValue::from_bytes(line).unwrap());
            }
            expected(&headers)
        };
        let these = |tags: &[&str]| Some(tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[b"*"]), None);
        assert_eq!(of(&[b"\"a\""]), these(&["a"]));
        assert_eq!(of(&[b"\"a\" , \"b\"", b"\"c\""]), these(&["a", "b", "c"]));
        for nothing in [&b""[..], b"W/\"a\"", b"a", b"\"a", b"\"", b"\xff"] {
            assert_eq!(of(&[nothing]), these(&[]), "{nothing:?}");
        }
    }
}
