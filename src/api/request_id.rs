//! Gives each request an id: the client's, if it is safe to log, else a generated one. The response carries it as a
//! header, a problem also in its body, and so does every log line of the request.
//!
//! The id is a task-local value, not a span: a span that a log at `info` formats would cost each request more than its
//! id.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use tokio::task::futures::TaskLocalFuture;

/// The header of the id.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of a client's id. A longer id is replaced.
const MAX_BYTES: usize = 128;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The id of a request: 1 to 128 bytes of visible ASCII.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id of the request that the current code serves, if any.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Returns the id of a request with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        RequestId::from_headers(headers).unwrap_or_else(RequestId::generate)
    }

    /// Generates a random id.
    pub(super) fn generate() -> Self {
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let mut text = uuid::Uuid::encode_buffer();
        // Digits, letters and hyphens are a valid header value.
        let header = HeaderValue::from_str(id.as_hyphenated().encode_lower(&mut text));
        RequestId(header.unwrap_or(HeaderValue::from_static("none")))
    }

    /// Returns the id in the headers, if it is valid and the only one.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut ids = headers.get_all(HEADER).iter();
        let id = ids.next().filter(|_| ids.next().is_none())?;
        let fits = (1..=MAX_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
        fits.then(|| RequestId(id.clone()))
    }

    /// Runs `operation` with this id as the current one.
    pub(super) fn scope<T>(&self, operation: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), operation)
    }

    /// Runs `future` with this id as the current one. The id can be taken back from the future returned.
    pub(super) fn scope_future<F: Future>(self, future: F) -> TaskLocalFuture<RequestId, F> {
        CURRENT.scope(self, future)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Returns the id as a header value.
    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_header(value: &[u8]) -> Option<RequestId> {
        RequestId::from_headers(&HeaderMap::from_iter([(HEADER, HeaderValue::from_bytes(value).unwrap())]))
    }

    #[test]
    fn client_id_is_kept_if_it_is_safe_to_log() {
        let longest = "x".repeat(MAX_BYTES);
        for id in ["1", "a-b_c.d:e/f=", "\"quoted\"", &longest] {
            assert_eq!(parse_header(id.as_bytes()).unwrap().as_str(), id);
        }
        let too_long = "x".repeat(MAX_BYTES + 1);
        for id in ["", "a b", "a\tb", "ä", "a\u{a0}b", &too_long] {
            assert_eq!(parse_header(id.as_bytes()), None, "{id:?}");
        }
    }

    #[test]
    fn generated_id_is_unique_and_visible_only_in_its_scope() {
        let (first, second) = (RequestId::generate(), RequestId::generate());
        assert_ne!(first, second);
        assert_eq!(first.as_str().len(), 36);
        assert_eq!(first.scope(RequestId::current), Some(first));
        assert_eq!(RequestId::current(), None);
    }
}
