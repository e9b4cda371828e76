//! The answer with a picture: bytes under the media type that they are.

use poem::IntoResponse;
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};

/// What a stored picture can be.
const STORED: [&str; 2] = ["image/png", "image/jpeg"];

/// A stored picture.
pub struct Picture {
    bytes: Vec<u8>,
    media: &'static str,
}

impl Picture {
    /// The picture of this name, which tells what it is.
    pub(super) fn new(name: &str, bytes: Vec<u8>) -> Self {
        let [png, jpeg] = STORED;
        Self { bytes, media: if name.ends_with(".png") { png } else { jpeg } }
    }
}

impl IntoResponse for Picture {
    fn into_response(self) -> poem::Response {
        poem::Response::builder().content_type(self.media).body(self.bytes)
    }
}

impl ApiResponse for Picture {
    fn meta() -> MetaResponses {
        let picture = |content_type| MetaMediaType {
            content_type,
            schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "binary"))),
        };
        let answer = MetaResponse {
            description: "",
            status: Some(200),
            status_range: None,
            content: STORED.map(picture).into(),
            headers: vec![],
        };
        MetaResponses { responses: vec![answer] }
    }

    fn register(_registry: &mut Registry) {}
}
