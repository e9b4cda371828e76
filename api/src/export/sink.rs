//! [`Sink`]: where a writer puts the bytes of its file, a piece at a time.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::download::Piece;

/// Large enough that handing over costs nothing, small enough that some of them may wait.
const PIECE_BYTES: usize = 64 << 10;

/// Hands pieces to the client and waits while it does not read. For blocking threads.
pub(super) struct Sink {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Piece>,
    handle: Handle,
    deadline: Instant,
}

impl Sink {
    pub(super) fn new(sender: mpsc::Sender<Piece>, handle: Handle, deadline: Instant) -> Self {
        Self { buffer: Vec::with_capacity(PIECE_BYTES), sender, handle, deadline }
    }

    /// Hands over what is left.
    ///
    /// # Errors
    /// When the client has left, or at the deadline.
    pub(super) fn close(mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES));
        let (sender, deadline) = (&self.sender, self.deadline);
        let sending = async { timeout_at(deadline, sender.send(Piece::Bytes(Bytes::from(piece)))).await };
        match self.handle.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has left")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not read until the deadline")),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES.saturating_sub(self.buffer.len()));
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    /// Nothing: writers flush more often than a piece is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
