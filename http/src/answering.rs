//! [`Answering`]: the body of an answer on its way, in parts that tell whether the client takes them.
//!
//! On HTTP/2 a client that lets the window of a stream stay full takes nothing, although its connection is well. The body is then
//! not asked for its next part, which is how [`Arrival`](crate::arrival::Arrival) sees it. A body that has nothing to hand
//! out yet, such as a stream of events, owes its client the next part, and not the other way round.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};

use crate::arrival::Running;

/// What is handed out at a time, in bytes, so that who takes some more than two kilobytes a second gets everything within the
/// usual deadline. It costs no copy.
pub(crate) const PART_BYTES: u32 = 32 * 1024;

/// The body of an answer, and that its request runs until it is sent.
pub(crate) struct Answering {
    body: BoxBody<Bytes, io::Error>,
    /// What was not handed out yet of a part of `body`.
    rest: Bytes,
    running: Running,
}

impl Answering {
    pub(crate) fn new(body: BoxBody<Bytes, io::Error>, running: Running) -> Self {
        // Who leaves no room for the first part has to take that an answer is there.
        running.hand_out(0);
        Self { body, rest: Bytes::new(), running }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        this.running.take();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let part = this.rest.split_to(this.rest.len().min(PART_BYTES as usize));
        this.running.hand_out(part.len());
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(body.lower().saturating_add(rest));
        hint
    }
}
