//! Request bodies under a limit, counted in bytes as they arrive and again as they are decompressed.
//!
//! A body is never held beyond its limit: reading stops at the first byte too many, and decompression stops there
//! too, so a small compressed body cannot become a large one in memory.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use poem::http::{HeaderMap, header};
use poem::{Body, Request};

use crate::{ApiError, linger::declared_length};

/// Bodies above this size are decompressed on a blocking thread.
const INLINE_DECODE_BYTES: usize = 16 * 1024;
/// 8 MiB: what zstd's ordinary levels use. A larger window would let one request claim that much memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Limits of one body, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// As sent.
    pub compressed: u64,
    /// After `Content-Encoding` is undone.
    pub decompressed: u64,
}

impl BodyLimits {
    /// The same limit before and after decompression.
    pub fn of(bytes: u64) -> Self {
        Self { compressed: bytes, decompressed: bytes }
    }
}

/// The cause inside the I/O error of a body that [`limit_body`] cut off.
#[derive(Debug, thiserror::Error)]
#[error("body exceeds the limit of {limit_bytes} bytes")]
pub(crate) struct LimitExceeded {
    pub limit_bytes: u64,
}

/// Reads a body of at most `limit` bytes, ignoring `Content-Encoding`.
///
/// # Errors
/// 413 naming the limit; 400 `incomplete_body` when the connection ends early.
pub async fn limited_body(headers: &HeaderMap, body: Body, limit: u64) -> Result<Bytes, ApiError> {
    let declared = declared_length(headers);
    let mut stream = std::pin::pin!(body.into_bytes_stream());
    if declared.is_some_and(|length| length > limit) {
        return Err(ApiError::too_large("body", limit));
    }
    collect(&mut stream, declared, limit).await
}

async fn collect(
    stream: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin),
    declared: Option<u64>,
    limit: u64,
) -> Result<Bytes, ApiError> {
    let Some(first) = stream.next().await.transpose().map_err(read_error)? else { return Ok(Bytes::new()) };
    check_length(first.len(), limit)?;
    let Some(second) = stream.next().await.transpose().map_err(read_error)? else { return Ok(first) };
    let capacity = declared.map_or(0, |length| usize::try_from(length).unwrap_or(0));
    let mut whole = BytesMut::with_capacity(capacity.max(first.len() + second.len()));
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        check_length(whole.len() + chunk.len(), limit)?;
        whole.extend_from_slice(&chunk);
        next = stream.next().await.transpose().map_err(read_error)?;
    }
    Ok(whole.freeze())
}

/// Reads a body and undoes `Content-Encoding` (`gzip`, `zstd`, `identity`) under both limits.
///
/// # Errors
/// 413 naming the limit that was passed; 415 for another encoding; 400 `bad_compression` or `incomplete_body`.
pub async fn read_body(headers: &HeaderMap, body: Body, limits: BodyLimits) -> Result<Bytes, ApiError> {
    let encoding = Encoding::from_headers(headers)?;
    let sent_limit = if encoding == Encoding::Identity { limits.decompressed } else { limits.compressed };
    let sent = limited_body(headers, body, sent_limit).await?;
    if encoding == Encoding::Identity {
        return Ok(sent);
    }
    if sent.len() <= INLINE_DECODE_BYTES {
        return decode(encoding, &sent, limits.decompressed);
    }
    tokio::task::spawn_blocking(move || decode(encoding, &sent, limits.decompressed))
        .await
        .map_err(ApiError::internal)?
}

/// Undoes one content coding in memory; [`read_body`] for bytes that have already been read.
///
/// # Errors
/// As [`read_body`].
pub fn decode_body(content_encoding: &str, sent: &[u8], limit: u64) -> Result<Bytes, ApiError> {
    match Encoding::from_name(content_encoding)? {
        Encoding::Identity => check_length(sent.len(), limit).map(|()| Bytes::copy_from_slice(sent)),
        encoding => decode(encoding, sent, limit),
    }
}

/// Puts a limit on a request's body without reading it: a declared length above it is refused at once, and a body
/// without a declared length fails with an error that renders as 413 when more arrives.
///
/// # Errors
/// 413 naming the limit.
pub fn limit_body(request: &mut Request, limit: u64) -> Result<(), ApiError> {
    match declared_length(request.headers()) {
        Some(length) if length > limit => Err(ApiError::too_large("body", limit)),
        // The server reads exactly the declared length, so there is nothing to count.
        Some(_) => Ok(()),
        None => {
            let body = request.take_body();
            if body.is_empty() {
                request.set_body(body);
            } else {
                request.set_body(Body::from_bytes_stream(counted(body.into_bytes_stream(), limit)));
            }
            Ok(())
        }
    }
}

fn counted(
    stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    limit_bytes: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let mut seen: u64 = 0;
    stream.and_then(move |chunk| {
        seen = seen.saturating_add(chunk.len() as u64);
        let within = seen <= limit_bytes;
        async move { if within { Ok(chunk) } else { Err(io::Error::other(LimitExceeded { limit_bytes })) } }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Self::Identity),
            (Some(one), None) => Self::from_name(one.to_str().unwrap_or("?")),
            (Some(_), Some(_)) => Err(unknown_encoding()),
        }
    }

    fn from_name(name: &str) -> Result<Self, ApiError> {
        let name = name.trim();
        match () {
            () if name.is_empty() || name.eq_ignore_ascii_case("identity") => Ok(Self::Identity),
            () if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => Ok(Self::Gzip),
            () if name.eq_ignore_ascii_case("zstd") => Ok(Self::Zstd),
            () => Err(unknown_encoding()),
        }
    }
}

fn decode(encoding: Encoding, sent: &[u8], limit: u64) -> Result<Bytes, ApiError> {
    let mut out = Vec::with_capacity(sent.len().saturating_mul(4).min(usize::try_from(limit).unwrap_or(usize::MAX)));
    // One byte more than allowed is enough to know.
    let most = limit.saturating_add(1);
    let read = match encoding {
        Encoding::Identity => sent.take(most).read_to_end(&mut out),
        Encoding::Gzip => flate2::read::MultiGzDecoder::new(sent).take(most).read_to_end(&mut out),
        Encoding::Zstd => zstd_reader(sent).and_then(|reader| reader.take(most).read_to_end(&mut out)),
    };
    read.map_err(|cause| {
        ApiError::bad_request("bad_compression", "the body does not match its `Content-Encoding`").caused_by(cause)
    })?;
    if out.len() as u64 > limit {
        return Err(ApiError::too_large("decompressed body", limit));
    }
    Ok(Bytes::from(out))
}

fn zstd_reader(sent: &[u8]) -> io::Result<zstd::stream::read::Decoder<'static, &[u8]>> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(sent)?;
    reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(reader)
}

fn check_length(length: usize, limit: u64) -> Result<(), ApiError> {
    if length as u64 > limit { Err(ApiError::too_large("body", limit)) } else { Ok(()) }
}

fn unknown_encoding() -> ApiError {
    ApiError::unsupported_media_type("unknown `Content-Encoding`: send one of `gzip`, `zstd` or `identity`")
}

fn read_error(cause: io::Error) -> ApiError {
    crate::translate::read_body_error(&poem::error::ReadBodyError::Io(cause))
}
