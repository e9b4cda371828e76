//! [`FormBody`]: the body of a form that a browser sends, under a limit.
//!
//! As [`JsonBody`](crate::JsonBody), with one difference: fields that the type does not know are left out, for who made the
//! form may add to it. A field that comes twice is refused.

use poem::web::Form;
use poem::{Body, FromRequest, Request, RequestBody, Result};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;

use crate::{ApiError, limited_body};

const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// A form of type `T`, at most `LIMIT` bytes (8 KiB unless said otherwise).
#[derive(Debug)]
pub struct FormBody<T, const LIMIT: u64 = 8_192>(pub T);

impl<'a, T: Type + DeserializeOwned, const LIMIT: u64> ApiExtractor<'a> for FormBody<T, LIMIT> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType { content_type: MEDIA_TYPE, schema: T::schema_ref() }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> Result<Self> {
        if !request.content_type().is_some_and(is_form) {
            return Err(ApiError::unsupported_media_type("the body must be sent as a form").into());
        }
        let bytes = limited_body(request.headers(), body.take()?, LIMIT).await?;
        match <Form<T> as FromRequest>::from_request(request, &mut RequestBody::new(Body::from(bytes))).await {
            Ok(Form(form)) => Ok(Self(form)),
            Err(cause) => Err(ApiError::bad_request("bad_form", "the form cannot be read").caused_by(cause).into()),
        }
    }
}

fn is_form(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}
