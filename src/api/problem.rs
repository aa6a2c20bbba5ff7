//! What is answered when something is wrong: RFC 9457 problems, their codes in one table.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use super::json::response;
use super::request_id::RequestId;
use crate::dispatch::Rejection;
use crate::domain::state::State;
use crate::store;

/// Defines [`Code`] from the one table of codes.
macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $status:ident;)*) => {
        /// A stable name of what is wrong.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// Its text, as in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$name => $text,)*
                }
            }

            /// The status it is answered with.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Code::$name => StatusCode::$status,)*
                }
            }

            /// What it means, for people.
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
    /// The JSON is nested too deep
    TooDeep = "too_deep", BAD_REQUEST;
    /// The query string cannot be read or has an unknown parameter
    InvalidQuery = "invalid_query", BAD_REQUEST;
    /// The id is no UUID
    InvalidId = "invalid_id", BAD_REQUEST;
    /// The cursor is not one that a list has given
    InvalidCursor = "invalid_cursor", BAD_REQUEST;
    /// A header cannot be read
    InvalidHeader = "invalid_header", BAD_REQUEST;
    /// In a batch each item has its own idempotency_key
    IdempotencyInBatch = "idempotency_in_batch", BAD_REQUEST;
    /// The request is not HTTP, or can be read in two ways
    MalformedRequest = "malformed_request", BAD_REQUEST;
    /// A field has the wrong type
    WrongType = "wrong_type", UNPROCESSABLE_ENTITY;
    /// A field is not known here
    UnknownField = "unknown_field", UNPROCESSABLE_ENTITY;
    /// A field stands twice in one object
    DuplicateField = "duplicate_field", UNPROCESSABLE_ENTITY;
    /// A field that is needed is missing
    MissingField = "missing_field", UNPROCESSABLE_ENTITY;
    /// A number is out of its range
    OutOfRange = "out_of_range", UNPROCESSABLE_ENTITY;
    /// A string, list or map is over its limit
    TooLong = "too_long", UNPROCESSABLE_ENTITY;
    /// The name is none that a queue can have
    InvalidQueue = "invalid_queue", UNPROCESSABLE_ENTITY;
    /// The value is none of those allowed
    InvalidValue = "invalid_value", UNPROCESSABLE_ENTITY;
    /// The time cannot be read or lies too far away
    InvalidTime = "invalid_time", UNPROCESSABLE_ENTITY;
    /// The Idempotency-Key came with another body before
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY;
    /// A document is over its limit
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE;
    /// A batch has too many items
    BatchTooLarge = "batch_too_large", PAYLOAD_TOO_LARGE;
    /// The body is over its limit
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// The body is not sent as application/json
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// The head of the request is over its limit
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The request did not arrive in time
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT;
    /// The request comes from a page of another site
    CrossSite = "cross_site", FORBIDDEN;
    /// There is nothing at this path
    RouteNotFound = "route_not_found", NOT_FOUND;
    /// The path does not take this method
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// There is no such task
    TaskNotFound = "task_not_found", NOT_FOUND;
    /// There is no such queue
    QueueNotFound = "queue_not_found", NOT_FOUND;
    /// The lease is not, or no longer, this worker's
    LeaseLost = "lease_lost", CONFLICT;
    /// The task has ended already
    AlreadyEnded = "already_ended", CONFLICT;
    /// The task has not ended
    NotEnded = "not_ended", CONFLICT;
    /// Only a dead, cancelled or expired task can be retried
    NotRetryable = "not_retryable", CONFLICT;
    /// Another task holds the dedupe key
    DedupeConflict = "dedupe_conflict", CONFLICT;
    /// Redis has no memory left for new tasks
    StoreFull = "store_full", INSUFFICIENT_STORAGE;
    /// Redis does not answer
    Unavailable = "unavailable", SERVICE_UNAVAILABLE;
    /// Redis cannot write to its disk
    DiskError = "disk_error", SERVICE_UNAVAILABLE;
    /// The data in Redis is not what this server knows
    DataLost = "data_lost", SERVICE_UNAVAILABLE;
    /// Too few replicas have it
    NotReplicated = "not_replicated", SERVICE_UNAVAILABLE;
    /// There are as many connections as there may be
    TooManyConnections = "too_many_connections", SERVICE_UNAVAILABLE;
    /// As many requests wait as may wait
    TooManyWaiting = "too_many_waiting", SERVICE_UNAVAILABLE;
    /// Request bodies take all the memory that they may take
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// The server is going down
    Stopping = "stopping", SERVICE_UNAVAILABLE;
    /// Something went wrong that should not have
    Internal = "internal", INTERNAL_SERVER_ERROR;
}

/// One fault of a request.
#[derive(Clone, Debug, Serialize)]
pub struct FieldError {
    pointer: String,
    code: &'static str,
    detail: String,
}

/// A problem.
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
    /// A problem with the request as a whole, or with what it is about.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem { code, detail: detail.into(), errors: Vec::new(), state: None }
    }

    /// A problem with the part of the request at `pointer`.
    pub fn at(pointer: impl Into<String>, code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let fault = FieldError { pointer: pointer.into(), code: code.as_str(), detail: detail.clone() };
        Problem { code, detail, errors: vec![fault], state: None }
    }

    /// With the state of the task that it is about.
    pub fn with_state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// The same problem of a request that is one item of a batch, which stands at `item` in the body.
    pub fn in_batch_item(mut self, item_pointer: &str) -> Self {
        for fault in &mut self.errors {
            fault.pointer = match fault.pointer.strip_prefix("header:Idempotency-Key") {
                Some(_) => format!("{item_pointer}/idempotency_key"),
                None => format!("{item_pointer}{}", fault.pointer),
            };
        }
        self
    }

    /// What stands at `pointer` is no queue's name.
    pub fn invalid_queue(pointer: impl Into<String>) -> Self {
        let rule = "a queue's name has 1 to 128 letters, digits, '.', '_' and '-', and begins with a letter or digit";
        Problem::at(pointer, Code::InvalidQueue, rule)
    }

    /// No task has the id.
    pub fn task_not_found() -> Self {
        Problem::new(Code::TaskNotFound, "no task has this id; ended ones are dropped after their retention")
    }

    /// The token is not that of a live lease.
    pub fn lease_lost(state: State) -> Self {
        let detail = format!("the token is not, or no longer, that of a live lease; the task is {state}");
        Problem::new(Code::LeaseLost, detail).with_state(state)
    }

    /// As bytes of JSON.
    pub(super) fn to_json(&self) -> Bytes {
        response::encode(self)
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its status.
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
            // Spread, so that those who were turned away together do not come back together.
            let seconds = rand::random_range(1..=3u16);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Rejection> for Problem {
    fn from(refusal: Rejection) -> Self {
        match refusal {
            Rejection::TooManyWaiting => {
                Problem::new(Code::TooManyWaiting, "nothing was there at once, and too many wait")
            }
            Rejection::Store(error) => error.into(),
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(why) => {
                // Said once, when it is found out (`store/gate.rs`): here it would be said for each request.
                tracing::debug!(why, "Redis is not available");
                Problem::new(
                    Code::Unavailable,
                    "Redis is away or refuses writes; whether the request took effect is not known",
                )
            }
            store::Error::Full(why) => {
                tracing::warn!(why, "Redis is full");
                Problem::new(Code::StoreFull, "nothing was stored; workers can go on")
            }
            store::Error::Disk(why) => {
                tracing::debug!(why, "Redis cannot write to its disk");
                Problem::new(Code::DiskError, "nothing was changed; it goes on once the disk takes writes again")
            }
            store::Error::DataLoss(loss) => Problem::new(Code::DataLost, loss.explain()),
            store::Error::Stopping => {
                Problem::new(Code::Stopping, "the server is stopping; whether a write took effect is not known")
            }
            store::Error::Unconfirmed(why) => {
                tracing::warn!(why, "too few replicas have a submit");
                Problem::new(
                    Code::NotReplicated,
                    "it may be stored, and may be lost with this Redis; with an Idempotency-Key it can be sent again",
                )
            }
            store::Error::Unexpected(why) => {
                tracing::error!(why, "an answer of Redis was not expected");
                Problem::new(Code::Internal, "the server's log says more")
            }
        }
    }
}
