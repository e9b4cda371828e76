//! [`Download`]: the bytes of a file, as its client reads them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::Stream;
use karat_http::ApiError;
use tokio::sync::mpsc;

/// What the maker of a file sends.
pub(super) enum Piece {
    Bytes(Bytes),
    /// The file is whole. Without it the maker has come to an end of its own, and the file is not.
    End,
    Failed(ApiError),
}

/// A file on its way. Its maker stops soon after this is dropped.
pub struct Download {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Piece>,
    is_over: bool,
}

impl Download {
    /// Waits for the first piece, so that what fails before it can be answered as an error.
    pub(super) async fn begin(mut pieces: mpsc::Receiver<Piece>) -> Result<Self, ApiError> {
        match pieces.recv().await {
            Some(Piece::Bytes(bytes)) => Ok(Self { first: Some(bytes), pieces, is_over: false }),
            Some(Piece::End) => Ok(Self { first: None, pieces, is_over: true }),
            Some(Piece::Failed(error)) => Err(error),
            None => Err(ApiError::internal(CUT_OFF)),
        }
    }
}

const CUT_OFF: &str = "the maker of a file came to no end";

impl Stream for Download {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if this.is_over {
            return Poll::Ready(None);
        }
        let (cause, is_whole) = match ready!(this.pieces.poll_recv(context)) {
            Some(Piece::Bytes(bytes)) => return Poll::Ready(Some(Ok(bytes))),
            Some(Piece::End) => (String::new(), true),
            Some(Piece::Failed(error)) => (format!("{error:?}"), false),
            None => (CUT_OFF.to_owned(), false),
        };
        this.is_over = true;
        if is_whole {
            return Poll::Ready(None);
        }
        tracing::error!(error = cause, "a file broke off on its way");
        // The server ends the connection then, so that the client does not take the part for the whole.
        Poll::Ready(Some(Err(io::Error::other("the file broke off"))))
    }
}
