//! The end of a connection: what is said last, and a close that does not take the last answer with it. A socket closed
//! over unread bytes is reset, and a reset throws away what the other side has not read yet.

use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::IntoResponse as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::shutdown_write;
use crate::api::problem::Problem;
use crate::api::request_id;
use crate::api::request_id::RequestId;

/// How long, and for how many bytes, the other side may go on sending after its last answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 1024 * 1024;

/// The problem as an answer of HTTP/1 behind which the connection is closed.
pub(super) fn encode_problem(problem: Problem) -> Vec<u8> {
    let id = RequestId::generate();
    let body = id.scope(|| problem.to_json());
    let mut response = problem.into_response();
    let now = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
    let headers = response.headers_mut();
    headers.insert("content-length", HeaderValue::from(body.len()));
    headers.insert("connection", HeaderValue::from_static("close"));
    headers.insert(request_id::HEADER, id.into_header());
    if let Some(value) = now.ok().and_then(|now| HeaderValue::from_str(&now).ok()) {
        headers.insert("date", value);
    }
    let mut text = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&body);
    text
}

/// Writes the last words, which are short and find room in the socket's buffer or are not said; then waits until the
/// other side has closed too, within bounds.
pub(super) async fn lingering_close(stream: &TcpStream, response: &[u8]) {
    if !response.is_empty() {
        let _ = stream.try_write(response);
    }
    shutdown_write(stream);
    let _ = timeout(LINGER_TIMEOUT, drain(stream)).await;
}

async fn drain(stream: &TcpStream) {
    let (mut bytes, mut remaining_bytes) = ([0; 1024], MAX_LINGER_BYTES);
    while remaining_bytes > 0 && stream.readable().await.is_ok() {
        match stream.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => remaining_bytes = remaining_bytes.saturating_sub(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
