//! A bucket whose put-if-absent tells our own write from somebody else's.
//!
//! A put that fails may have been carried out: its answer can be lost or late, the server can answer 500 after it, and who
//! then tries again is refused by what he wrote himself. And one that is refused may not be there: S3 answers 409 to two
//! at once. So `object_store`, which tries again blindly, does not here; after any error the object is read: the same bytes
//! mean that it is ours, others that it is not, and none that it has to be tried again. What is put this way has bytes
//! that nobody else writes, or the same meaning whoever wrote it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, aws::AmazonS3, path::Path,
};

use super::{LONGEST_PAUSE, LONGEST_RETRY};

/// Larger objects go in parts of this size, a few at once: each is tried again alone, and has the time of one request.
const PART_BYTES: usize = 8 << 20;
const PARTS_IN_FLIGHT: usize = 4;

/// Pause before an object that is not there after an error is put again; twice as long each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct S3Store {
    inner: AmazonS3,
    /// Asks once.
    once: AmazonS3,
    bucket: String,
}

impl S3Store {
    pub(super) fn new(inner: AmazonS3, once: AmazonS3, bucket: &str) -> Self {
        Self { inner, once, bucket: bucket.to_owned() }
    }

    async fn create(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let error = match self.once.put_opts(location, payload.clone(), options.clone()).await {
                Ok(put) => return Ok(put),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => error,
            };
            match self.read(location).await {
                Ok((found, put)) if is_same(&found, &payload) => return Ok(put),
                Ok(_) => return Err(Error::AlreadyExists { path: location.to_string(), source: error.into() }),
                Err(Error::NotFound { .. }) if begin.elapsed() < LONGEST_RETRY => {}
                // Nobody knows what is there: that it exists must not be said.
                Err(_) => return Err(unknown(location, error)),
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    async fn read(&self, location: &Path) -> Result<(Bytes, PutResult)> {
        let found = self.inner.get(location).await?;
        let put = PutResult { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        Ok((found.bytes().await?, put))
    }

    async fn put_in_parts(&self, location: &Path, payload: &PutPayload, options: PutOptions) -> Result<PutResult> {
        let PutOptions { tags, attributes, extensions, .. } = options;
        let options = PutMultipartOptions { tags, attributes, extensions };
        let mut upload = self.inner.put_multipart_opts(location, options).await?;
        let parts: Vec<_> = in_parts(payload).into_iter().map(|part| upload.put_part(part)).collect();
        let sent: Result<Vec<()>> = stream::iter(parts).buffer_unordered(PARTS_IN_FLIGHT).try_collect().await;
        let done = match sent {
            Ok(_) => upload.complete().await,
            Err(error) => Err(error),
        };
        let Err(error) = done else { return done };
        // The answer to the last request can be lost as well: names of large objects are used once, so one of that length is ours.
        if let Ok(found) = self.inner.head(location).await
            && found.size == payload.content_length() as u64
        {
            return Ok(PutResult { e_tag: found.e_tag, version: found.version });
        }
        // What is left then goes by the rules of the bucket.
        drop(upload.abort().await);
        Err(error)
    }
}

/// Whether a put was refused, whatever is there: asking again changes nothing.
fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. }
            | Error::UnknownConfigurationKey { .. }
    )
}

fn unknown(location: &Path, error: Error) -> Error {
    match error {
        error @ Error::AlreadyExists { .. } => {
            let source = format!("the outcome of creating `{location}` is unknown: {error}").into();
            Error::Generic { store: "S3", source }
        }
        error => error,
    }
}

fn is_same(found: &Bytes, payload: &PutPayload) -> bool {
    let mut rest = &found[..];
    let is_prefix = payload.iter().all(|chunk| match rest.strip_prefix(&chunk[..]) {
        Some(after) => {
            rest = after;
            true
        }
        None => false,
    });
    is_prefix && rest.is_empty()
}

fn in_parts(payload: &PutPayload) -> Vec<PutPayload> {
    let mut parts = Vec::new();
    let (mut part, mut length) = (Vec::new(), 0);
    for chunk in payload {
        let mut chunk = chunk.clone();
        while length + chunk.len() >= PART_BYTES {
            part.push(chunk.split_to(PART_BYTES - length));
            parts.push(PutPayload::from_iter(std::mem::take(&mut part)));
            length = 0;
        }
        length += chunk.len();
        part.push(chunk);
    }
    if length > 0 {
        parts.push(PutPayload::from_iter(part));
    }
    parts
}

impl fmt::Debug for S3Store {
    /// Without the client, which knows keys.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "S3Store({})", self.bucket)
    }
}

impl fmt::Display for S3Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "S3Store({})", self.bucket)
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Create => self.create(location, payload, options).await,
            PutMode::Overwrite if payload.content_length() > 2 * PART_BYTES => {
                self.put_in_parts(location, &payload, options).await
            }
            PutMode::Overwrite | PutMode::Update(_) => self.inner.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(chunks: &[usize]) -> PutPayload {
        let fill = |(number, length): (usize, &usize)| Bytes::from(vec![number as u8; *length]);
        PutPayload::from_iter(chunks.iter().enumerate().map(fill))
    }

    #[test]
    fn bytes_are_the_same_whatever_pieces_they_come_in() {
        let whole = payload(&[3, 2]);
        assert!(is_same(&Bytes::from_static(&[0, 0, 0, 1, 1]), &whole));
        for other in [&[0, 0, 0, 1][..], &[0, 0, 0, 1, 1, 1], &[0, 0, 1, 1, 1], &[]] {
            assert!(!is_same(&Bytes::copy_from_slice(other), &whole), "{other:?}");
        }
    }

    #[test]
    fn parts_are_the_whole_and_of_one_size_but_the_last() {
        for chunks in [&[1][..], &[PART_BYTES], &[PART_BYTES - 1, 2], &[5, 3 * PART_BYTES, 7], &[2 * PART_BYTES, 1]] {
            let whole = payload(chunks);
            let parts = in_parts(&whole);
            let joined: Vec<u8> = parts.iter().flatten().flat_map(|chunk| chunk.to_vec()).collect();
            assert!(is_same(&joined.into(), &whole), "{chunks:?}");
            let lengths: Vec<_> = parts.iter().map(PutPayload::content_length).collect();
            let (last, others) = lengths.split_last().unwrap();
            assert!(
                others.iter().all(|length| *length == PART_BYTES) && (1..=PART_BYTES).contains(last),
                "{lengths:?}"
            );
        }
    }
}
