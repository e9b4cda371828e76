//! Bounds what requests in flight may hold in memory (spec P7).
//!
//! A request reserves what its body may come to before it is read, waits a moment when that is not free, and is then
//! turned away. Decoding of large bodies is bounded on its own: it uses a thread.

use std::{sync::Arc, time::Duration};

use karat_http::ApiError;
use poem::http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::MAX_REQUEST_BYTES;

/// A permit stands for this many bytes.
const UNIT: usize = 1_024;
/// How long a request waits for room.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a compressed body of JSON usually comes to; the true size stays under [`MAX_REQUEST_BYTES`] in any case.
const USUAL_RATIO: usize = 16;

/// The memory that bodies in flight may take together.
#[derive(Clone)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    /// Permits when no request is in flight.
    units: usize,
    decoders: Arc<Semaphore>,
    patience: Duration,
}

impl Budget {
    /// A budget of `bytes`, at least that of one largest request.
    pub fn new(bytes: usize) -> Self {
        let units = bytes.max(4 * MAX_REQUEST_BYTES) / UNIT;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let (bytes, decoders) = (Arc::new(Semaphore::new(units)), Arc::new(Semaphore::new(cores)));
        Self { bytes, units, decoders, patience: PATIENCE }
    }

    /// What bodies may take together, in bytes.
    pub fn size_bytes(&self) -> u64 {
        (self.units * UNIT) as u64
    }

    /// What requests in flight have reserved of it, in bytes.
    pub fn reserved_bytes(&self) -> u64 {
        (self.units.saturating_sub(self.bytes.available_permits()) * UNIT) as u64
    }

    /// Reserves room for the body of a request with these headers.
    ///
    /// # Errors
    /// 503 `door_busy` with `Retry-After` when there is no room within two seconds.
    pub(crate) async fn reserve(&self, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(estimate(headers).div_ceil(UNIT)).unwrap_or(u32::MAX);
        if let Ok(permit) = self.bytes.clone().try_acquire_many_owned(units) {
            return Ok(permit);
        }
        let waited = tokio::time::timeout(self.patience, self.bytes.clone().acquire_many_owned(units)).await;
        waited.ok().and_then(Result::ok).ok_or_else(busy)
    }

    /// Runs the decoding of a large body on a blocking thread, as many at a time as there are cores.
    pub(crate) async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = self.decoders.clone().acquire_owned().await.map_err(ApiError::internal)?;
        let run = move || {
            let done = work();
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(run).await.map_err(ApiError::internal)
    }
}

impl Default for Budget {
    /// 256 MiB.
    fn default() -> Self {
        Self::new(256 << 20)
    }
}

fn estimate(headers: &HeaderMap) -> usize {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let sent = declared.map_or(MAX_REQUEST_BYTES, |length| length.min(MAX_REQUEST_BYTES));
    match headers.contains_key(header::CONTENT_ENCODING) {
        true => sent + (sent * USUAL_RATIO).min(MAX_REQUEST_BYTES),
        false => sent,
    }
}

fn busy() -> ApiError {
    ApiError::unavailable("door_busy", "too many large requests are in flight: publish again after `Retry-After`")
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(length: Option<usize>, encoding: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_body_of_unknown_length_reserves_the_most() {
        assert_eq!(estimate(&headers(Some(300), None)), 300);
        assert_eq!(estimate(&headers(None, None)), MAX_REQUEST_BYTES);
        assert_eq!(estimate(&headers(None, Some("gzip"))), 2 * MAX_REQUEST_BYTES);
        assert_eq!(estimate(&headers(Some(1_000), Some("gzip"))), 17_000);
        assert_eq!(estimate(&headers(Some(usize::MAX), Some("zstd"))), 2 * MAX_REQUEST_BYTES);
    }

    #[tokio::test]
    async fn without_room_a_request_is_turned_away_and_room_comes_back() {
        let budget = Budget { patience: Duration::from_millis(10), ..Budget::new(0) };
        let unknown = HeaderMap::new();
        let held = futures::future::join_all((0..4).map(|_| budget.reserve(&unknown))).await;
        let error = budget.reserve(&headers(Some(2_000), None)).await.unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (503, "door_busy"));
        assert_eq!(budget.reserved_bytes(), budget.size_bytes());
        drop(held);
        assert_eq!(budget.reserved_bytes(), 0);
        assert!(budget.reserve(&unknown).await.is_ok());
    }
}
