//! [`Channel`]: the messages of one connection, each within a bound, and its answers, which the client has to take.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use karat_http::TlsAcceptor;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// Of one message: the characters of a question may take four bytes each, and names stand beside them.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// Of the messages before a log-in.
const MAX_FIRST_BYTES: usize = 8 * 1024;
/// What is read while a question runs. Beyond it, nothing is read until the question has ended.
const MAX_AHEAD_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// What is asked of the socket at a time.
const READ_BYTES: usize = 8 * 1024;
/// Answers are sent in parts of about this size.
const PART_BYTES: usize = 64 * 1024;
/// The longest that a client may take for a part.
const TAKE_WITHIN: Duration = Duration::from_secs(15);

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client left.
    Gone,
    /// It does not take what it is sent.
    Untaken,
    /// What it sent is nothing of the protocol, in words for the client.
    Malformed(&'static str),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// What messages travel on.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// A connection.
pub(super) struct Channel {
    stream: Box<dyn Transport>,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Channel {
    pub(super) fn new(stream: impl Transport + 'static) -> Self {
        Self { stream: Box::new(stream), incoming: BytesMut::new(), outgoing: BytesMut::new() }
    }

    /// The same connection under TLS. Nothing that was sent openly counts.
    pub(super) async fn secured(self, tls: &TlsAcceptor) -> Result<Self, Broken> {
        if !self.incoming.is_empty() {
            return Err(Broken::Malformed("something was sent between the request for TLS and its answer"));
        }
        Ok(Self::new(tls.accept(self.stream).await?))
    }

    /// The next message of those before a log-in, which have no kind. May be dropped and asked again at any time.
    pub(super) async fn first(&mut self) -> Result<Fields, Broken> {
        loop {
            if let Some(fields) = self.take(0, MAX_FIRST_BYTES)? {
                return Ok(fields);
            }
            self.read().await?;
        }
    }

    /// The next message: its kind and what it says. May be dropped and asked again at any time.
    pub(super) async fn next(&mut self, is_logged_in: bool) -> Result<(u8, Fields), Broken> {
        let most = if is_logged_in { MAX_MESSAGE_BYTES } else { MAX_FIRST_BYTES };
        loop {
            let kind = self.incoming.first().copied();
            if let (Some(kind), Some(fields)) = (kind, self.take(1, most)?) {
                return Ok((kind, fields));
            }
            self.read().await?;
        }
    }

    /// Waits until the client leaves; what it sends meanwhile is kept, within a bound. May be dropped and asked again at any time.
    pub(super) async fn gone(&mut self) {
        loop {
            if self.incoming.len() >= MAX_AHEAD_BYTES {
                return std::future::pending().await;
            }
            if self.read().await.is_err() {
                return;
            }
        }
    }

    /// Where answers are written to, for [`Channel::send`].
    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Sends what was written once it is worth a part.
    pub(super) async fn send_parts(&mut self) -> Result<(), Broken> {
        if self.outgoing.len() < PART_BYTES { Ok(()) } else { self.send().await }
    }

    /// Sends what was written.
    pub(super) async fn send(&mut self) -> Result<(), Broken> {
        let Self { stream, outgoing, .. } = self;
        for part in outgoing.chunks(PART_BYTES) {
            in_time(stream.write_all(part)).await?;
        }
        in_time(stream.flush()).await?;
        if outgoing.capacity() > 2 * PART_BYTES {
            // A long row does not keep its memory for as long as the session is open.
            *outgoing = BytesMut::new();
        }
        outgoing.clear();
        Ok(())
    }

    /// Says that nothing follows.
    pub(super) async fn close(mut self) {
        // Whoever does not hear it has left.
        let _ = timeout(TAKE_WITHIN, self.stream.shutdown()).await;
    }

    async fn read(&mut self) -> Result<(), Broken> {
        self.incoming.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.incoming).await? {
            0 => Err(Broken::Gone),
            _ => Ok(()),
        }
    }

    /// What a message says, once it is whole; `before` are the bytes before its length.
    fn take(&mut self, before: usize, most: usize) -> Result<Option<Fields>, Broken> {
        let Some(length) = self.incoming.get(before..before + 4) else { return Ok(None) };
        let length = length.iter().fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
        if !(4..=most).contains(&length) {
            return Err(Broken::Malformed("a message is of no length that is taken here"));
        }
        if self.incoming.len() < before + length {
            return Ok(None);
        }
        let mut message = self.incoming.split_to(before + length);
        message.advance(before + 4);
        Ok(Some(Fields(message.freeze())))
    }
}

/// Waits for the client, for as long as it may take.
async fn in_time(taken: impl Future<Output = io::Result<()>>) -> Result<(), Broken> {
    Ok(timeout(TAKE_WITHIN, taken).await.map_err(|_| Broken::Untaken)??)
}

/// The fields of a message, read one after the other.
pub(super) struct Fields(Bytes);

impl Fields {
    pub(super) fn byte(&mut self) -> Result<u8, Broken> {
        self.0.try_get_u8().map_err(|_| Broken::Malformed(SHORT))
    }

    pub(super) fn int16(&mut self) -> Result<i16, Broken> {
        self.0.try_get_i16().map_err(|_| Broken::Malformed(SHORT))
    }

    pub(super) fn int32(&mut self) -> Result<i32, Broken> {
        self.0.try_get_i32().map_err(|_| Broken::Malformed(SHORT))
    }

    /// A text up to its zero.
    pub(super) fn text(&mut self) -> Result<String, Broken> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Broken::Malformed(SHORT))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.to_vec()).map_err(|_| Broken::Malformed("a text is not UTF-8"))
    }
}

/// Said of a message that ends before its fields do.
const SHORT: &str = "a message ends before its fields do";

/// Writes a message of a kind; its length is found out.
pub(super) fn message(out: &mut BytesMut, kind: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let start = out.len();
    out.put_i32(0);
    write(out);
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes a text with its zero. Zeros inside of it, which the protocol has no form for, are left out.
pub(super) fn text(out: &mut BytesMut, text: &str) {
    text.split('\0').for_each(|part| out.put_slice(part.as_bytes()));
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_message_is_read_when_it_is_whole_and_what_follows_is_kept() {
        let (mut client, server) = duplex(1024);
        let mut channel = Channel::new(server);
        client.write_all(b"Q\0\0\0\x0dSELECT 1\0S\0\0\0\x04P\0\0").await.unwrap();
        let (kind, mut fields) = channel.next(true).await.unwrap();
        assert_eq!((kind, fields.text().unwrap().as_str()), (b'Q', "SELECT 1"));
        assert_eq!(fields.byte(), Err(Broken::Malformed(SHORT)));
        assert_eq!(channel.next(true).await.unwrap().0, b'S');
        drop(client);
        assert_eq!(channel.next(true).await.err(), Some(Broken::Gone), "the last one never became whole");
    }

    #[tokio::test]
    async fn a_message_of_another_length_than_is_taken_is_refused_before_it_is_here() {
        for length in [[0, 0, 0, 3], [0xff, 0xff, 0xff, 0xff], [0x3f, 0xff, 0xff, 0xff]] {
            let (mut client, server) = duplex(1024);
            let mut channel = Channel::new(server);
            client.write_all(&[&b"p"[..], &length[..]].concat()).await.unwrap();
            let refused = channel.next(false).await.err();
            assert!(matches!(refused, Some(Broken::Malformed(_))), "{length:?}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn what_is_longer_than_a_part_is_sent_whole_and_leaves_no_memory_behind() {
        let (mut client, server) = duplex(1024);
        let mut channel = Channel::new(server);
        message(channel.out(), b'D', |out| out.put_bytes(b'x', 10 * PART_BYTES));
        let mut heard = vec![0; 10 * PART_BYTES + 5];
        let (sent, read) = tokio::join!(channel.send(), client.read_exact(&mut heard));
        assert_eq!((sent, read.unwrap()), (Ok(()), heard.len()));
        assert_eq!(channel.outgoing.capacity(), 0);
    }

    #[test]
    fn a_message_is_written_with_its_length_and_texts_without_zeros_inside() {
        let mut out = BytesMut::new();
        message(&mut out, b'C', |out| text(out, "SEL\0ECT"));
        assert_eq!(&out[..], b"C\0\0\0\x0bSELECT\0");
    }
}
