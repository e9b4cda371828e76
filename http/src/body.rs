//! Request bodies under a limit, counted in bytes as they arrive and again as they are decompressed.
//!
//! A body is never held beyond its limit: reading stops at the first byte too many, and decompression stops there
//! too, so a small compressed body cannot become a large one in memory. What a body takes follows what came of it, and not what
//! was declared; who shares a bound gives each body a [`Room`], which is asked before more is kept.

use std::io::{self, Read};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use poem::http::{HeaderMap, header};
use poem::{Body, Request};

use crate::{ApiError, linger::declared_length};

/// Bodies above this size are decompressed on a blocking thread.
const INLINE_DECODE_BYTES: usize = 16 * 1024;
/// The memory that a body begins with, in bytes, if it comes in parts; then it doubles, up to the declared length.
const FIRST_BYTES: usize = 16 * 1024;
/// What a compressed body of JSON usually comes to.
const USUAL_RATIO: usize = 16;
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

/// The memory that one body may take, of a bound that bodies share. `()` is without bound.
pub trait Room: Send + Sync {
    /// Makes room for so many bytes in all, before they are kept. Waits for it, within a deadline of its own.
    ///
    /// # Errors
    /// What the request is answered when there is none.
    fn make(&mut self, bytes: usize) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Resolves when the room goes to others, with what the request is answered. Asked while more of the body is waited for.
    fn lost(&self) -> impl Future<Output = ApiError> + Send;
}

impl Room for () {
    async fn make(&mut self, _: usize) -> Result<(), ApiError> {
        Ok(())
    }

    async fn lost(&self) -> ApiError {
        std::future::pending().await
    }
}

/// What a body of so many bytes takes that has a `Content-Encoding`, and is at most `limit` bytes without it.
pub fn unpacked_bytes(sent: usize, limit: usize) -> usize {
    sent.saturating_add(sent.saturating_mul(USUAL_RATIO).min(limit))
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
    body_within(headers, body, limit, &mut ()).await
}

async fn body_within(headers: &HeaderMap, body: Body, limit: u64, room: &mut impl Room) -> Result<Bytes, ApiError> {
    let declared = declared_length(headers);
    let mut stream = std::pin::pin!(body.into_bytes_stream());
    if declared.is_some_and(|length| length > limit) {
        return Err(ApiError::too_large("body", limit));
    }
    collect(&mut stream, declared, limit, room).await
}

async fn collect(
    stream: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin),
    declared: Option<u64>,
    limit: u64,
    room: &mut impl Room,
) -> Result<Bytes, ApiError> {
    let Some(first) = next(stream, room).await? else { return Ok(Bytes::new()) };
    check_length(first.len(), limit)?;
    room.make(first.len()).await?;
    let Some(mut chunk) = next(stream, room).await? else { return Ok(first) };
    let declared = declared.map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let mut whole = Vec::new();
    keep(&mut whole, &first, declared);
    loop {
        check_length(whole.len() + chunk.len(), limit)?;
        room.make(whole.len() + chunk.len()).await?;
        keep(&mut whole, &chunk, declared);
        match next(stream, room).await? {
            Some(next) => chunk = next,
            None => return Ok(Bytes::from(whole)),
        }
    }
}

async fn next(
    stream: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin),
    room: &impl Room,
) -> Result<Option<Bytes>, ApiError> {
    tokio::select! {
        biased;
        chunk = stream.next() => chunk.transpose().map_err(read_error),
        answer = room.lost() => Err(answer),
    }
}

/// Adds a part, in memory that doubles until it is what was declared.
fn keep(whole: &mut Vec<u8>, part: &[u8], declared: usize) {
    let needed = whole.len() + part.len();
    if needed > whole.capacity() {
        let wanted = whole.capacity().saturating_mul(2).max(FIRST_BYTES).min(declared).max(needed);
        whole.reserve_exact(wanted - whole.len());
    }
    whole.extend_from_slice(part);
}

/// Reads a body and undoes `Content-Encoding` (`gzip`, `zstd`, `identity`) under both limits, with as much memory as `room` gives.
///
/// # Errors
/// 413 naming the limit that was passed; 415 for another encoding; 400 `bad_compression` or `incomplete_body`; those of `room`.
pub async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    room: &mut impl Room,
) -> Result<Bytes, ApiError> {
    let encoding = Encoding::from_headers(headers)?;
    let sent_limit = if encoding == Encoding::Identity { limits.decompressed } else { limits.compressed };
    let sent = body_within(headers, body, sent_limit, room).await?;
    if encoding == Encoding::Identity {
        return Ok(sent);
    }
    room.make(unpacked_bytes(sent.len(), usize::try_from(limits.decompressed).unwrap_or(usize::MAX))).await?;
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
