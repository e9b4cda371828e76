//! [`unread_body!`](crate::unread_body): a body that a handler reads itself, once it knows that the caller may send it.

/// Declares the type of such a body with what the OpenAPI document says of it: a description and the media types.
///
/// ```text
/// karat_http::unread_body! {
///     /// The body of a picture.
///     PictureBody: "The picture itself.", vec![...];
/// }
/// async fn set(&self, request: &Request, caller: Authenticated, body: PictureBody) -> ... {
///     let bytes = limited_body(request.headers(), body.0, MAX_BYTES).await?;
/// ```
#[macro_export]
macro_rules! unread_body {
    ($($(#[$meta:meta])* $vis:vis $name:ident: $description:literal, $content:expr;)+) => {$(
        $(#[$meta])*
        $vis struct $name(pub $crate::__private::poem::Body);

        impl<'a> $crate::__private::poem_openapi::ApiExtractor<'a> for $name {
            const TYPES: &'static [$crate::__private::poem_openapi::ApiExtractorType] =
                &[$crate::__private::poem_openapi::ApiExtractorType::RequestObject];

            type ParamType = ();
            type ParamRawType = ();

            fn request_meta() -> Option<$crate::__private::poem_openapi::registry::MetaRequest> {
                Some($crate::__private::poem_openapi::registry::MetaRequest {
                    description: Some($description),
                    content: $content,
                    required: true,
                })
            }

            async fn from_request(
                _request: &'a $crate::__private::poem::Request,
                body: &mut $crate::__private::poem::RequestBody,
                _options: $crate::__private::poem_openapi::ExtractParamOptions<()>,
            ) -> $crate::__private::poem::Result<Self> {
                Ok(Self(body.take()?))
            }
        }
    )+};
}
