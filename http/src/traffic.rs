//! [`Traffic`]: the socket of a connection, which tells its [`Arrival`] what comes in and goes out, and fails when nothing goes
//! out.
//!
//! It stands below TLS, so that the handshake is watched too. It also holds what the connection takes of the bounds of the
//! server, for as long as the socket is open and whoever has it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use crate::{
    arrival::{Arrival, Overdue},
    counts::ConnectionCounts,
    shares::Share,
};

/// What the kernel holds of an answer beside what is on its way. Without a bound it takes megabytes at once, and a reader of
/// average speed would seem to stand still while they drain. It takes more when half of this has drained: a part of an answer.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 * 1024;

/// A watched socket.
pub(crate) struct Traffic {
    socket: TcpStream,
    arrival: Arc<Arrival>,
    deadline: Duration,
    /// Runs while the client takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    counts: ConnectionCounts,
    _share: Share,
}

impl Traffic {
    /// Watches `socket`; writing to it must get on within `deadline`.
    pub(crate) fn new(
        socket: TcpStream,
        arrival: Arc<Arrival>,
        deadline: Duration,
        counts: ConnectionCounts,
        share: Share,
    ) -> Self {
        set_options(&socket, deadline);
        Self { socket, arrival, deadline, stall: None, counts, _share: share }
    }

    fn judge(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.stall = None;
            if let Ok(bytes) = &written {
                self.arrival.note_written(*bytes);
            }
            return Poll::Ready(written);
        }
        let deadline = self.deadline;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(deadline)));
        ready!(stall.as_mut().poll(context));
        self.stall = None;
        self.counts.note_overdue(Overdue::Answer);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of what is sent")))
    }
}

/// None of these is worth giving up a connection for.
fn set_options(socket: &TcpStream, deadline: Duration) {
    // Answers are written whole; waiting to fill packets only adds delay.
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(socket);
        // For what is in the kernel when the connection ends here: else that is kept for as long as its client answers probes.
        let _ = socket.set_tcp_user_timeout(Some(deadline));
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = deadline;
}

impl AsyncRead for Traffic {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.arrival.note_bytes();
        }
        read
    }
}

impl AsyncWrite for Traffic {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.judge(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(context, parts);
        this.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}
