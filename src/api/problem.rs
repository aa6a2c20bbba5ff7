//! Error responses: RFC 9457 problems, with one table of codes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use super::request_id::RequestId;
use super::response;
use crate::dispatch::{Rejection, SubmitError};
use crate::domain::state::State;
use crate::store;

/// Defines [`Code`] from the one table of codes.
macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $status:ident;)*) => {
        /// The stable code of a problem.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// Returns the code as in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$name => $text,)*
                }
            }

            /// Returns the status of its responses.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Code::$name => StatusCode::$status,)*
                }
            }

            /// Returns the title: what the code means, for people.
            pub fn title(self) -> &'static str {
                match self {
                    $(Code::$name => concat!($($doc),*).trim_ascii(),)*
                }
            }
        }
    };
}

codes! {
    /// The body is not JSON in UTF-8
    MalformedJson = "malformed_json", BAD_REQUEST;
    /// A JSON string has half of a surrogate pair
    LoneSurrogate = "lone_surrogate", BAD_REQUEST;
    /// The JSON is nested too deeply
    TooDeep = "too_deep", BAD_REQUEST;
    /// The query string is malformed or has an unknown parameter
    InvalidQuery = "invalid_query", BAD_REQUEST;
    /// The id is not a UUID
    InvalidId = "invalid_id", BAD_REQUEST;
    /// The cursor is not the next_cursor of a list
    InvalidCursor = "invalid_cursor", BAD_REQUEST;
    /// A header is malformed
    InvalidHeader = "invalid_header", BAD_REQUEST;
    /// A batch takes an idempotency_key in each item, not the header
    IdempotencyInBatch = "idempotency_in_batch", BAD_REQUEST;
    /// The request is not valid HTTP, or is ambiguous
    MalformedRequest = "malformed_request", BAD_REQUEST;
    /// A field has the wrong type
    WrongType = "wrong_type", UNPROCESSABLE_ENTITY;
    /// A field is not known
    UnknownField = "unknown_field", UNPROCESSABLE_ENTITY;
    /// A number exceeds the range of a double
    NumberOverflow = "number_overflow", UNPROCESSABLE_ENTITY;
    /// A field occurs twice in one object
    DuplicateField = "duplicate_field", UNPROCESSABLE_ENTITY;
    /// A required field is missing
    MissingField = "missing_field", UNPROCESSABLE_ENTITY;
    /// A number is out of its range
    OutOfRange = "out_of_range", UNPROCESSABLE_ENTITY;
    /// A string, list or map exceeds its limit
    TooLong = "too_long", UNPROCESSABLE_ENTITY;
    /// The queue name is invalid
    InvalidQueue = "invalid_queue", UNPROCESSABLE_ENTITY;
    /// The value is not one of the accepted values
    InvalidValue = "invalid_value", UNPROCESSABLE_ENTITY;
    /// The time is malformed, too far away, or not before the expiry
    InvalidTime = "invalid_time", UNPROCESSABLE_ENTITY;
    /// The Idempotency-Key was used with another body
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY;
    /// The claim_id was used for other queues
    ClaimIdMismatch = "claim_id_mismatch", UNPROCESSABLE_ENTITY;
    /// A JSON value of the client exceeds its limit
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE;
    /// A batch has too many items
    BatchTooLarge = "batch_too_large", PAYLOAD_TOO_LARGE;
    /// The body exceeds its limit
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// The Content-Type is not application/json
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// The head of the request exceeds its limit
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The request did not arrive in time
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT;
    /// The request comes from a page of another site
    CrossSite = "cross_site", FORBIDDEN;
    /// No route has this path
    RouteNotFound = "route_not_found", NOT_FOUND;
    /// The path does not accept this method
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// No task has this id
    TaskNotFound = "task_not_found", NOT_FOUND;
    /// No queue has this name
    QueueNotFound = "queue_not_found", NOT_FOUND;
    /// The token does not hold a live lease of this task
    LeaseLost = "lease_lost", CONFLICT;
    /// The task has already ended
    AlreadyEnded = "already_ended", CONFLICT;
    /// The task has not ended
    NotEnded = "not_ended", CONFLICT;
    /// Tasks of the queue wait or are leased
    QueueNotEmpty = "queue_not_empty", CONFLICT;
    /// Only a dead, cancelled or expired task can be retried
    NotRetryable = "not_retryable", CONFLICT;
    /// The task is leased or has ended
    NotWaiting = "not_waiting", CONFLICT;
    /// The task is not leased, or not by the delivery that the request names
    NotLeased = "not_leased", CONFLICT;
    /// Another task holds the dedupe key
    DedupeConflict = "dedupe_conflict", CONFLICT;
    /// Redis has no memory left for new tasks
    StoreFull = "store_full", INSUFFICIENT_STORAGE;
    /// Redis is unavailable
    Unavailable = "unavailable", SERVICE_UNAVAILABLE;
    /// Redis cannot write to its disk
    DiskError = "disk_error", SERVICE_UNAVAILABLE;
    /// Data in Redis was lost or replaced
    DataLost = "data_lost", SERVICE_UNAVAILABLE;
    /// Too few replicas confirmed the write
    NotReplicated = "not_replicated", SERVICE_UNAVAILABLE;
    /// The limit of connections is reached
    TooManyConnections = "too_many_connections", SERVICE_UNAVAILABLE;
    /// The limit of waiting requests is reached
    TooManyWaiting = "too_many_waiting", SERVICE_UNAVAILABLE;
    /// The memory for request bodies is used up
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// The server is stopping
    Stopping = "stopping", SERVICE_UNAVAILABLE;
    /// An unexpected error occurred
    Internal = "internal", INTERNAL_SERVER_ERROR;
}

/// One invalid part of a request.
#[derive(Clone, Debug, Serialize)]
pub struct FieldError {
    pointer: String,
    code: &'static str,
    detail: String,
}

/// A problem: code, detail, the invalid parts of the request, and the state of the task it is about.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    state: Option<State>,
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    errors: &'a [FieldError],
    state: Option<&'a str>,
    request_id: Option<RequestId>,
}

impl Problem {
    /// Creates a problem with the request as a whole or with its task.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem { code, detail: detail.into(), errors: Vec::new(), state: None }
    }

    /// Creates a problem with the part of the request at `pointer`: a JSON pointer, `?name`, `:name` or `header:Name`.
    pub fn at(pointer: impl Into<String>, code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let error = FieldError { pointer: pointer.into(), code: code.as_str(), detail: detail.clone() };
        Problem { code, detail, errors: vec![error], state: None }
    }

    /// Adds the state of the task.
    pub fn with_state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Turns the problem of a request into that of a batch item: `item_pointer` is prepended to its pointers.
    pub fn in_batch_item(mut self, item_pointer: &str) -> Self {
        for error in &mut self.errors {
            error.pointer = match error.pointer.strip_prefix("header:Idempotency-Key") {
                Some(_) => format!("{item_pointer}/idempotency_key"),
                None => format!("{item_pointer}{}", error.pointer),
            };
        }
        self
    }

    /// Returns the problem of an invalid queue name at `pointer`.
    pub fn invalid_queue(pointer: impl Into<String>) -> Self {
        let rule = "a queue name has 1 to 128 letters, digits, '.', '_' and '-', and begins with a letter or digit";
        Problem::at(pointer, Code::InvalidQueue, rule)
    }

    /// Returns the problem of an id that no task has.
    pub fn task_not_found() -> Self {
        Problem::new(Code::TaskNotFound, "no task has this id; an ended task is deleted after its retention")
    }

    /// Returns the problem of a token that does not hold a live lease; the task has `state`.
    pub fn lease_lost(state: State) -> Self {
        let detail = format!("the token does not hold a live lease of this task; the task is {state}");
        Problem::new(Code::LeaseLost, detail).with_state(state)
    }

    /// Returns the problem of an error that only the log explains.
    pub(super) fn internal() -> Self {
        Problem::new(Code::Internal, "the server's log has the cause; search it for this request_id")
    }

    /// Returns the problem as JSON.
    pub(super) fn to_json(&self) -> Bytes {
        response::encode(self)
    }

    /// Returns its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns its status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ProblemJson {
            r#type: format!("urn:slotwheel:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.status().as_u16(),
            code: self.code.as_str(),
            detail: &self.detail,
            errors: &self.errors,
            state: self.state.map(State::as_str),
            request_id: RequestId::current(),
        }
        .serialize(serializer)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = response::json(self.status(), &self);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
            // Random, so that clients rejected together do not return together.
            let seconds = rand::random_range(1..=3u16);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::TooManyWaiting => Problem::new(
                Code::TooManyWaiting,
                "the request would have to wait, and the limit of waiting requests is reached; retry later",
            ),
            Rejection::ClaimIdMismatch => {
                let detail = "claim_id has live leases of other queues; use a new id for each claim";
                Problem::at("/claim_id", Code::ClaimIdMismatch, detail)
            }
            Rejection::Store(error) => error.into(),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::BodyMismatch => {
                let detail = "this key came with another body to this queue within the last 24 hours";
                Problem::at("header:Idempotency-Key", Code::IdempotencyMismatch, detail)
            }
            SubmitError::RunAtTooFar => {
                Problem::at("/run_at", Code::InvalidTime, "run_at must lie within 10 years of now")
            }
            SubmitError::RunAtPastExpiry => {
                let detail = "run_at, or the time of the task that is replaced, must lie before the expiry, which is expires_in_ms from now";
                Problem::at("/run_at", Code::InvalidTime, detail)
            }
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(reason) => {
                // The circuit breaker logs the outage once; here it would be logged for each request.
                tracing::debug!(reason, "Redis unavailable");
                Problem::new(
                    Code::Unavailable,
                    "Redis is unavailable or rejects writes; the request may or may not have taken effect",
                )
            }
            store::Error::Full(reason) => {
                tracing::warn!(reason, "write rejected: Redis is out of memory");
                Problem::new(
                    Code::StoreFull,
                    "nothing was stored; workers can still complete tasks, which frees memory",
                )
            }
            store::Error::Disk(reason) => {
                tracing::debug!(reason, "write rejected: Redis cannot write to its disk");
                Problem::new(Code::DiskError, "nothing was changed; writes resume when the disk accepts writes")
            }
            store::Error::Unauthenticated(reason) => {
                tracing::debug!(reason, "Redis rejects the user or the password");
                Problem::new(
                    Code::Unavailable,
                    "Redis rejects the user or the password of this server (authentication failed); requests are served \
                     again when Redis accepts those of redis_url",
                )
            }
            store::Error::Denied(permission) => Problem::new(
                Code::Unavailable,
                format!("the Redis user of this server lacks a permission: {permission}"),
            ),
            store::Error::DataLoss(loss) => Problem::new(Code::DataLost, loss.explain()),
            store::Error::Stopping => Problem::new(
                Code::Stopping,
                "the server is stopping; a write may or may not have taken effect; retry at another server",
            ),
            store::Error::Unconfirmed(reason) => {
                tracing::warn!(reason, "submit not confirmed by enough replicas");
                Problem::new(
                    Code::NotReplicated,
                    "the task may be stored, and may be lost in a failover; repeat it with the same Idempotency-Key",
                )
            }
            store::Error::Unexpected(reason) => {
                tracing::error!(reason, "unexpected answer from Redis");
                Problem::internal()
            }
        }
    }
}
