//! Bodies under limits, plain and compressed.

use std::io::Write;

use karat_http::{ApiError, BodyLimits, read_body};
use poem::Body;
use poem::http::HeaderMap;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

async fn read(encoding: &str, sent: Vec<u8>, limits: BodyLimits) -> Result<Vec<u8>, ApiError> {
    let mut headers = HeaderMap::new();
    if !encoding.is_empty() {
        headers.insert("content-encoding", encoding.parse().unwrap());
    }
    let chunks: Vec<_> = sent.chunks(7).map(|c| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(c))).collect();
    let body = Body::from_bytes_stream(futures::stream::iter(chunks));
    read_body(&headers, body, limits, &mut ()).await.map(|bytes| bytes.to_vec())
}

fn code<T>(result: Result<T, ApiError>) -> (u16, &'static str) {
    let error = result.err().unwrap();
    (error.status().as_u16(), error.code())
}

#[tokio::test]
async fn plain_gzip_and_zstd_read_back_as_they_were() {
    let text = b"{\"specversion\":\"1.0\"}".repeat(3000);
    let limits = BodyLimits::of(1 << 20);
    for (encoding, sent) in [
        ("", text.clone()),
        ("identity", text.clone()),
        ("gzip", gzip(&text)),
        ("x-gzip", gzip(&text)),
        ("ZSTD", zstd(&text)),
    ] {
        assert_eq!(read(encoding, sent, limits).await.unwrap(), text, "{encoding}");
    }
    let members = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(read("gzip", members, limits).await.unwrap(), b"one two");
    assert_eq!(read("", Vec::new(), limits).await.unwrap(), b"");
}

#[tokio::test]
async fn exactly_the_limit_passes_and_one_byte_more_does_not() {
    let limits = BodyLimits { compressed: 1000, decompressed: 1000 };
    for encode in [gzip as fn(&[u8]) -> Vec<u8>, zstd] {
        let encoding = if encode(b"")[..2] == [0x1f, 0x8b] { "gzip" } else { "zstd" };
        assert_eq!(read(encoding, encode(&[b'x'; 1000]), limits).await.unwrap().len(), 1000);
        assert_eq!(code(read(encoding, encode(&[b'x'; 1001]), limits).await), (413, "body_too_large"));
    }
    assert_eq!(read("", vec![b'x'; 1000], limits).await.unwrap().len(), 1000);
    assert_eq!(code(read("", vec![b'x'; 1001], limits).await), (413, "body_too_large"));
}

#[tokio::test]
async fn a_bomb_is_stopped_at_the_limit_that_the_message_names() {
    let bomb = gzip(&vec![0_u8; 50_000_000]);
    let limits = BodyLimits { compressed: 1 << 20, decompressed: 4096 };
    let error = read("gzip", bomb, limits).await.unwrap_err();
    assert_eq!(error.code(), "body_too_large");
    assert!(error.message().contains("4096"), "{error}");
}

#[tokio::test]
async fn the_sent_bytes_have_a_limit_of_their_own() {
    let noise: Vec<u8> = (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let limits = BodyLimits { compressed: 100, decompressed: 1 << 20 };
    assert_eq!(code(read("gzip", gzip(&noise), limits).await), (413, "body_too_large"));
}

#[tokio::test]
async fn what_does_not_match_its_encoding_is_refused() {
    let limits = BodyLimits::of(1 << 20);
    for (encoding, sent) in [
        ("gzip", b"not gzip".to_vec()),
        ("zstd", b"not zstd".to_vec()),
        ("gzip", gzip(b"cut short")[..15].to_vec()),
        ("gzip", [gzip(b"x"), b"trailing".to_vec()].concat()),
    ] {
        assert_eq!(code(read(encoding, sent, limits).await), (400, "bad_compression"), "{encoding}");
    }
    for encoding in ["br", "deflate", "gzip, gzip", "compress"] {
        assert_eq!(code(read(encoding, Vec::new(), limits).await), (415, "unsupported_media_type"), "{encoding}");
    }
}
