//! HTTP/2 by hand, for what no well-behaved client sends (RFC 9113, 4 and 6).

/// What a connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags][..], &stream.to_be_bytes()[..], payload].concat()
}

/// What a client says first, with the given settings: identifiers of two bytes and values of four.
pub fn connection(settings: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, settings)[..]].concat()
}

/// `GET`, or `POST` with a body to come, as a block of headers (RFC 7541).
fn head(path: &str, has_body: bool) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    // Method and scheme by their numbers; path and authority by their numbers with values that are not remembered.
    let method = if has_body { 0x83 } else { 0x82 };
    [&[method, 0x86, 0x04, length][..], path.as_bytes(), &[0x01, 1, b'x'][..]].concat()
}

pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(path, false))
}

pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head(path, true))
}

pub fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, bytes)
}

pub fn reset(stream: u32) -> Vec<u8> {
    // CANCEL
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// So much more may be sent, on a stream or on the whole connection (0).
pub fn room(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// A head that goes on.
pub fn get_unfinished(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &head(path, false))
}

/// More of it, and not its end: `a: b` again and again.
pub fn continuation(stream: u32) -> Vec<u8> {
    frame(CONTINUATION, 0, stream, &[0x00, 1, b'a', 1, b'b'].repeat(3_000))
}
