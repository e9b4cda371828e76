//! [`Line`]: one WebSocket from its opening to its end.
//!
//! A line hears what its client says, and says one message at a time: it waits for the client to take that, and for no longer than
//! it may. Meanwhile it asks whether the client is there, and looks at its right and at the stop of the server.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use karat_access::Caller;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, Interval, timeout},
};
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes, protocol::CloseFrame};

use super::{
    LiveSettings,
    ending::Ending,
    guard::{Guard, every},
    handshake::Socket,
    places::Place,
};

/// What a client may take to read why its connection ends, and to answer that.
const FAREWELL: Duration = Duration::from_secs(2);
/// Then it has sent everything that was on its way.
const SILENCE: Duration = Duration::from_millis(200);

/// What goes on on a line.
pub(super) trait Talk: Send + 'static {
    /// Goes on until the line has to end.
    fn talk(self, line: &mut Line) -> impl Future<Output = Ending> + Send;
}

/// An open WebSocket.
pub(super) struct Line {
    stream: Socket,
    guard: Guard,
    place: Place,
    settings: Arc<LiveSettings>,
    ping: Interval,
    /// When the answer to a ping is overdue; none while there is none to come.
    pong_due: Option<Instant>,
}

impl Line {
    pub(super) fn new(stream: Socket, guard: Guard, place: Place, settings: Arc<LiveSettings>) -> Self {
        let ping = every(settings.ping_every);
        Self { stream, guard, place, settings, ping, pong_due: None }
    }

    pub(super) fn caller(&self) -> &Arc<Caller> {
        self.guard.caller()
    }

    /// Waits for a message. May be dropped and asked again at any time.
    pub(super) async fn hear(&mut self) -> Result<Utf8Bytes, Ending> {
        loop {
            let pong_due = self.pong_due;
            tokio::select! {
                ending = self.guard.ended() => return Err(ending),
                () = passed(pong_due) => return Err(Ending::Slow),
                _ = self.ping.tick() => self.ask().await?,
                heard = self.stream.next() => match heard {
                    None => return Err(Ending::Gone),
                    Some(Err(error)) => return Err(Ending::from(&error)),
                    Some(Ok(message)) => if let Some(text) = self.take(message)? {
                        return Ok(text);
                    }
                },
            }
        }
    }

    /// Says something, and waits until the client has taken it.
    pub(super) async fn say(&mut self, text: Utf8Bytes) -> Result<(), Ending> {
        self.send(Message::Text(text)).await
    }

    /// Tells the client why, and closes.
    pub(super) async fn end(self, ending: Ending) {
        end(self.stream, ending).await;
    }

    async fn ask(&mut self) -> Result<(), Ending> {
        self.send(Message::Ping(Bytes::new())).await?;
        self.pong_due.get_or_insert(Instant::now() + self.settings.pong_within);
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), Ending> {
        tokio::select! {
            ending = self.guard.ended() => Err(ending),
            sent = timeout(self.settings.send_within, self.stream.send(message)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Ending::from(&error)),
                Err(_) => Err(Ending::Slow),
            },
        }
    }

    /// The text of a message; everything that a client sends unasked is counted.
    fn take(&mut self, message: Message) -> Result<Option<Utf8Bytes>, Ending> {
        match message {
            Message::Pong(_) if self.pong_due.take().is_some() => return Ok(None),
            Message::Close(_) => return Err(Ending::Gone),
            Message::Binary(_) => return Err(Ending::NotText),
            _ => {}
        }
        if !self.place.count_message() {
            return Err(Ending::TooManyMessages);
        }
        match message {
            Message::Text(text) => Ok(Some(text)),
            _ => Ok(None),
        }
    }
}

/// Tells the client why, and closes.
pub(super) async fn end(mut stream: Socket, ending: Ending) {
    let farewell = async {
        if let Some((code, reason)) = ending.close() {
            let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) };
            // Who is gone hears nothing.
            let _ = stream.close(Some(frame)).await;
        }
        while let Some(Ok(_)) = stream.next().await {}
        let socket = stream.get_mut();
        if matches!(ending, Ending::TooLarge | Ending::NotUtf8 | Ending::Malformed) {
            // What the client still sends is taken: a connection that is closed while something is unread is reset, and its
            // client would never read why.
            let mut rest = [0; 4096];
            while timeout(SILENCE, socket.read(&mut rest)).await.is_ok_and(|read| read.is_ok_and(|bytes| bytes > 0)) {}
        }
        let _ = socket.shutdown().await;
    };
    let _ = timeout(FAREWELL, farewell).await;
}

async fn passed(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
