//! The end of a connection: an optional last response, then a lingering close.
//!
//! If a socket is closed while its receive buffer holds unread bytes, the kernel sends a reset. The peer then loses the
//! data that it has not read. A lingering close therefore stops sending first, and then discards input for a limited time.

use std::time::Duration;

use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::socket::ClientStream;

/// How long a lingering close takes, and how many bytes it discards, at most.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 1024 * 1024;
/// The part of `LINGER_TIMEOUT` for sending the last response. If the peer does not read, the rest of it is lost.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Returns the bytes of an HTTP/1.1 response that announces the close of its connection.
pub(super) fn encode_response(response: Response<Bytes>) -> Vec<u8> {
    let (mut parts, body) = response.into_parts();
    let headers = &mut parts.headers;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
    if let Some(date) = date.ok().and_then(|date| HeaderValue::from_str(&date).ok()) {
        headers.insert(header::DATE, date);
    }
    let mut bytes = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in headers.iter() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

/// Sends `response`, closes the sending side, and waits until the peer has closed its side too. Takes at most
/// `LINGER_TIMEOUT`.
pub(super) async fn lingering_close(stream: &mut impl ClientStream, response: &[u8]) {
    let close = async {
        // If the input were not discarded, a reset would also lose the responses that the peer has not read yet.
        let _ = timeout(RESPONSE_TIMEOUT, stream.write_all(response)).await;
        let _ = stream.shutdown().await;
        drain(stream).await;
    };
    let _ = timeout(LINGER_TIMEOUT, close).await;
}

/// Discards input until its end, an error, or `MAX_LINGER_BYTES`.
async fn drain(stream: &mut impl ClientStream) {
    let (mut buffer, mut remaining_bytes) = ([0; 1024], MAX_LINGER_BYTES);
    while remaining_bytes > 0
        && let Ok(length @ 1..) = stream.read(&mut buffer).await
    {
        remaining_bytes = remaining_bytes.saturating_sub(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_server::socket::PeerClose;
    use tokio::io::DuplexStream;

    impl ClientStream for DuplexStream {
        fn peer_half_close(&self) -> PeerClose {
            Box::pin(std::future::pending())
        }

        fn peer_reset(&self) -> PeerClose {
            Box::pin(std::future::pending())
        }

        fn set_zero_linger(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn response_that_does_not_fit_does_not_prevent_the_close() {
        let (mut client, mut server) = tokio::io::duplex(16);
        client.write_all(b"unread input").await.unwrap();

        lingering_close(&mut server, &[b'x'; 64]).await;

        let mut received = Vec::new();
        timeout(LINGER_TIMEOUT, client.read_to_end(&mut received)).await.expect("the sending side is closed").unwrap();
        assert_eq!(received, [b'x'; 16]);
        timeout(LINGER_TIMEOUT, client.write_all(&[b'y'; 16])).await.expect("the input is discarded").unwrap();
    }
}
