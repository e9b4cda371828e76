//! Asking a virus scanner, in clamd's protocol (`INSTREAM`). A scanner that does not answer refuses: what was not
//! looked at is not kept.

use std::time::Duration;

use karat_http::ApiError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);
const CHUNK_BYTES: usize = 64 * 1024;
const MAX_ANSWER_BYTES: u64 = 4096;

/// # Errors
/// 422 when something was found; 503 when the scanner cannot be asked.
pub(super) async fn scan(address: &str, bytes: &[u8]) -> Result<(), ApiError> {
    let away = |reason: String| {
        ApiError::unavailable("scanner_unavailable", "uploads are not taken now: the scanner does not answer")
            .retry_after(Duration::from_secs(30))
            .caused_by(reason)
    };
    let answer = tokio::time::timeout(PATIENCE, ask(address, bytes)).await;
    let answer = answer.map_err(|_| away("no answer in time".to_owned()))?.map_err(|error| away(error.to_string()))?;
    match answer.trim_end_matches('\0').trim() {
        "stream: OK" => Ok(()),
        found if found.ends_with("FOUND") => {
            tracing::warn!(found, "the scanner refused an upload");
            Err(ApiError::validation(vec!["the file was refused by the scanner".to_owned()]))
        }
        other => Err(away(format!("it answered `{}`", other.escape_debug()))),
    }
}

async fn ask(address: &str, bytes: &[u8]) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"zINSTREAM\0").await?;
    for chunk in bytes.chunks(CHUNK_BYTES) {
        let length = u32::try_from(chunk.len()).map_err(std::io::Error::other)?;
        socket.write_all(&length.to_be_bytes()).await?;
        socket.write_all(chunk).await?;
    }
    socket.write_all(&0_u32.to_be_bytes()).await?;
    let mut answer = String::new();
    socket.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A scanner that finds the word `virus`.
    pub(in crate::auth) async fn stand_in() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut command = [0; 10];
                socket.read_exact(&mut command).await.unwrap();
                assert_eq!(&command, b"zINSTREAM\0");
                let mut seen = Vec::new();
                loop {
                    let length = socket.read_u32().await.unwrap();
                    if length == 0 {
                        break;
                    }
                    let mut chunk = vec![0; usize::try_from(length).unwrap()];
                    socket.read_exact(&mut chunk).await.unwrap();
                    seen.extend(chunk);
                }
                let is_found = seen.windows(5).any(|window| window == b"virus");
                let answer: &[u8] = if is_found { b"stream: Test FOUND\0" } else { b"stream: OK\0" };
                socket.write_all(answer).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn what_the_scanner_finds_is_refused_and_the_rest_passes() {
        let address = stand_in().await;
        assert!(scan(&address, &[7; 200_000]).await.is_ok());
        assert_eq!(scan(&address, b"a virus").await.unwrap_err().status().as_u16(), 422);
    }

    #[tokio::test]
    async fn without_an_answer_nothing_is_taken() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert_eq!(scan(&free, b"x").await.unwrap_err().status().as_u16(), 503);
    }
}
