//! Reading on behind a refusal.
//!
//! A connection that is closed while its client still sends is reset, and the client never sees why. So the rest of a
//! refused body is read and thrown away, within bounds, before the answer goes out; whoever refused it, and however much
//! of it was read by then.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use poem::{
    Body, Request,
    http::{HeaderMap, header},
};

/// What is read on at most: most bodies that are too large are so by little.
const LINGER_BYTES: usize = 32 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(5);
/// Bodies of at most this size are in the buffers of the connection when the answer goes out.
const SMALL_BYTES: u64 = 16 * 1024;

type BodyStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What nobody has read yet of the body of a request.
pub(crate) struct Rest {
    shared: Arc<Mutex<Shared>>,
    /// The client sends nothing before it is told to, and it is told by the first read.
    waits_for_continue: bool,
}

struct Shared {
    /// None at its end.
    body: Option<BodyStream>,
    is_begun: bool,
}

impl Rest {
    /// Takes a share in the body of `request`, whose readers see no difference. None when it is small or there is none.
    pub(crate) fn of(request: &mut Request) -> Option<Self> {
        if declared_length(request.headers()).is_some_and(|length| length <= SMALL_BYTES) {
            return None;
        }
        let body = request.take_body();
        if body.is_empty() {
            request.set_body(body);
            return None;
        }
        let body: BodyStream = Box::pin(body.into_bytes_stream());
        let shared = Arc::new(Mutex::new(Shared { body: Some(body), is_begun: false }));
        let reader = Arc::clone(&shared);
        request.set_body(Body::from_bytes_stream(stream::poll_fn(move |context| reader.lock().poll(context))));
        let waits_for_continue = request.headers().contains_key(header::EXPECT);
        Some(Self { shared, waits_for_continue })
    }

    /// Reads the body to its end, or to the bounds. The request must have been dropped.
    pub(crate) async fn linger(self) {
        if self.waits_for_continue && !self.shared.lock().is_begun {
            return;
        }
        let Some(mut body) = self.shared.lock().body.take() else { return };
        let reading = async {
            let mut seen = 0;
            while let Some(Ok(chunk)) = body.next().await {
                seen += chunk.len();
                if seen > LINGER_BYTES {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, reading).await;
    }
}

impl Shared {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.is_begun = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }
}

/// The declared length of a body.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
