//! [`JsonBody`]: a JSON request body that is read strictly and under a limit.
//!
//! It is the `Json` payload of poem-openapi with four differences: the body has a limit, it is an object and no list of
//! a type's fields in order, which serde would take as well, unknown and duplicate fields are refused when the type says
//! `deny_unknown_fields` (serde refuses duplicates by itself), and errors name the field without echoing what was sent.

use std::ops::Deref;

use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;

use crate::{ApiError, limited_body, translate};

/// Stands in a schema for "no other fields", which the framework's schemas cannot say.
const NO_OTHER_FIELDS: &str = "no-other-fields";
/// How the framework writes that into the document, where the schemas of bodies are.
const MARK: &str = "{\n          \"format\": \"no-other-fields\"\n        }";

/// The document, or a page that holds it, with `additionalProperties: false` in the schemas of all [`JsonBody`]s.
pub fn closed(document: &str) -> String {
    document.replace(MARK, "false")
}

/// A request body of type `T`, at most `LIMIT` bytes (64 KiB unless said otherwise). The document says that it has no
/// other fields than those of `T`, so `T` says `deny_unknown_fields`.
#[derive(Debug)]
pub struct JsonBody<T, const LIMIT: u64 = 65_536>(pub T);

impl<T, const LIMIT: u64> Deref for JsonBody<T, LIMIT> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'a, T: Type + DeserializeOwned, const LIMIT: u64> ApiExtractor<'a> for JsonBody<T, LIMIT> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
        if let Some(schema) = registry.schemas.get_mut(&*T::name()) {
            let mark = MetaSchema { format: Some(NO_OTHER_FIELDS), ..MetaSchema::ANY };
            schema.additional_properties = Some(Box::new(MetaSchemaRef::Inline(Box::new(mark))));
        }
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType { content_type: "application/json", schema: T::schema_ref() }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> Result<Self> {
        let is_json = request.content_type().is_some_and(is_json);
        if !is_json {
            return Err(ApiError::unsupported_media_type("the body must be sent as `application/json`").into());
        }
        let body = body.take()?;
        let bytes = limited_body(request.headers(), body, LIMIT).await?;
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Err(ApiError::validation(vec!["the body must be an object, not a list".to_owned()]).into());
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|cause| translate::json_error(&cause).into())
    }
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}
