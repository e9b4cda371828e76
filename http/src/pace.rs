//! [`Paced`]: the body of a request, which must get on.
//!
//! A body may be waited for as long as [`Pace`] allows for what has come of it: a time to begin with, and a second for each so many
//! bytes. Only waiting counts: while the server does something else with what it has, the client owes nothing.
//! Who is slower is answered 408.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// How fast bodies must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// What every body may be waited for.
    pub first: Duration,
    /// A second more for each so many bytes.
    pub bytes_per_second: u64,
}

impl Pace {
    /// How long a body may have been waited for of which so many bytes have come.
    fn allowed(&self, bytes: u64) -> Duration {
        self.first + Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_per_second.max(1))
    }
}

/// The cause inside the I/O error of a body that [`Paced`] gave up.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly: it was given up after {waited_ms} ms of waiting and {bytes} bytes")]
pub(crate) struct TooSlow {
    waited_ms: u128,
    bytes: u64,
}

/// A body under a [`Pace`].
pub(crate) struct Paced {
    body: BoxBody<Bytes, io::Error>,
    pace: Pace,
    bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    /// Made when there is something to wait for, which small bodies do not need.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(crate) fn new(body: BoxBody<Bytes, io::Error>, pace: Pace) -> Self {
        Self { body, pace, bytes: 0, waited: Duration::ZERO, waiting_since: None, sleep: None }
    }

    /// Waits for more, until that has taken too long.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<TooSlow> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let end = since + self.pace.allowed(self.bytes).saturating_sub(self.waited);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if sleep.deadline() != end {
            sleep.as_mut().reset(end);
        }
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(TooSlow { waited_ms: (self.waited + since.elapsed()).as_millis(), bytes: self.bytes })
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_pending() {
            return this.wait(context).map(|slow| Some(Err(io::Error::other(slow))));
        }
        if let Some(since) = this.waiting_since.take() {
            this.waited += since.elapsed();
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_gets_time_by_what_came_of_it() {
        let pace = Pace { first: Duration::from_secs(15), bytes_per_second: 8192 };
        assert_eq!(pace.allowed(0), Duration::from_secs(15));
        assert_eq!(pace.allowed(8192 * 60), Duration::from_secs(75));
        assert_eq!(Pace { bytes_per_second: 0, ..pace }.allowed(1), Duration::from_millis(16_000));
        assert!(pace.allowed(u64::MAX) > pace.first, "no overflow");
    }
}
