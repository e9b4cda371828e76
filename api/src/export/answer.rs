//! [`ExportAnswer`]: a file under the media type and the name that it has, or 304.

use karat_http::ApiError;
use poem::{
    Body, IntoResponse, Response,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse,
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
};

use super::{Download, Form, Format};
use crate::serving::{Validators, fresh_headers, text_header};

const KARAT_EPOCH: HeaderName = HeaderName::from_static("karat-epoch");
const KARAT_DATA_STATE: HeaderName = HeaderName::from_static("karat-data-state");

/// Longer names are cut: file systems take 255 bytes, and a character may have four.
const MAX_NAME_CHARS: usize = 60;

/// What a file is to be.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Without the ending; any text, made harmless when it is sent.
    pub(crate) name: String,
    pub(crate) form: Form,
}

/// A 200 answer with a file, or a 304. Either way with the headers that say how fresh it is.
pub struct ExportAnswer {
    file: Option<(Download, File)>,
    headers: HeaderMap,
}

impl ExportAnswer {
    /// The 304, from which [`Self::with`] makes the 200.
    pub(crate) fn not_modified(validators: &Validators, epoch: u64, data_state: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        validators.put(&mut headers);
        // A file that something on the way compresses or rewrites is another one.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache, no-transform"));
        headers.insert(KARAT_EPOCH, HeaderValue::from(epoch));
        headers.insert(KARAT_DATA_STATE, HeaderValue::from_static(data_state));
        Self { file: None, headers }
    }

    /// # Errors
    /// When the name makes no header, which it does whatever it is.
    pub(crate) fn with(mut self, download: Download, file: File) -> Result<Self, ApiError> {
        let name = attachment(&file.name, file.form.format.extension());
        let name = HeaderValue::try_from(name).map_err(ApiError::internal)?;
        self.headers.insert(header::CONTENT_DISPOSITION, name);
        Ok(Self { file: Some((download, file)), ..self })
    }
}

impl IntoResponse for ExportAnswer {
    fn into_response(self) -> Response {
        let mut response = match self.file {
            Some((download, file)) => {
                Response::builder().content_type(file.form.format.media_type()).body(Body::from_bytes_stream(download))
            }
            None => Response::builder().status(StatusCode::NOT_MODIFIED).finish(),
        };
        response.headers_mut().extend(self.headers);
        response
    }
}

impl ApiResponse for ExportAnswer {
    fn meta() -> MetaResponses {
        let media = |(_, format): (&str, Format)| MetaMediaType {
            content_type: format.media_type(),
            schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "binary"))),
        };
        let answer = |description, status, content: Vec<MetaMediaType>| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            headers: documented_headers(!content.is_empty()),
            content,
        };
        let whole = "The file. Read it to its end: one that breaks off is not whole.";
        let known = "The client has this file already, by its `If-None-Match`.";
        MetaResponses { responses: vec![answer(whole, 200, Format::ALL.map(media).into()), answer(known, 304, vec![])] }
    }

    fn register(_registry: &mut Registry) {}
}

fn documented_headers(has_file: bool) -> Vec<MetaHeader> {
    let mut headers = fresh_headers("Weak: of the same rows, in whatever order; for `If-None-Match`.");
    headers.push(text_header("Karat-Epoch", "The epoch that the rows are of."));
    headers.push(text_header("Karat-Data-State", "As `data_state` of other answers."));
    if has_file {
        headers.push(text_header("Content-Disposition", "The name of the file."));
    }
    headers
}

/// `Content-Disposition` for a file of this name (RFC 6266): plain characters, and once more with all of them encoded.
pub(super) fn attachment(name: &str, extension: &str) -> String {
    // Letters and digits of any script, and few others: no quotes, separators, line ends or marks that turn the direction.
    let is_kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.');
    let kept: String = name.chars().take(MAX_NAME_CHARS).map(|c| if is_kept(c) { c } else { '_' }).collect();
    let kept = kept.trim_matches([' ', '.']);
    let kept = if kept.is_empty() { "export" } else { kept };
    let plain: String = kept.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect();
    let mut encoded = String::new();
    for byte in kept.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}.{extension}\"; filename*=UTF-8''{encoded}.{extension}")
}
