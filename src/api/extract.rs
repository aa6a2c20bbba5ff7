//! Extractors: JSON bodies, query parameters, path parameters, wait times.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;

use super::json::fields::Fields;
use super::json::validate::{JsonDefect, validate};
use super::problem::{Code, Problem};
use super::state::Api;
use crate::domain::id::TaskId;
use crate::domain::limits::{self, ValueRange};
use crate::domain::queue::QueueName;
use crate::http_server::{BodyTooSlow, MemoryPermit, Rejection, ServerState};

/// A JSON body of at most `LIMIT` bytes.
#[derive(Debug)]
pub(super) struct JsonBody<const LIMIT: usize>(BodyText);

/// The text of a body. It holds its share of the memory for bodies until it is dropped.
#[derive(Debug)]
struct BodyText {
    text: String,
    _permit: MemoryPermit,
}

/// The body of a request for one task.
pub(super) type SingleBody = JsonBody<{ limits::MAX_BODY_BYTES }>;
/// The body of a request for many tasks.
pub(super) type BatchBody = JsonBody<{ limits::MAX_BATCH_BODY_BYTES }>;

impl<const LIMIT: usize> FromRequest<Api> for JsonBody<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(is_json) {
            return Err(unsupported_media_type(content_type));
        }
        Ok(JsonBody(read_body(request.into_body(), LIMIT, &api.server).await?))
    }
}

/// The body of a request without fields: empty, or `{}`. Its Content-Type is not checked.
#[derive(Debug)]
pub(super) struct EmptyBody;

impl FromRequest<Api> for EmptyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let text = read_body(request.into_body(), 1024, &api.server).await?;
        if !text.text.trim().is_empty() {
            JsonBody::<1024>(text).object()?.deny_unknown()?;
        }
        Ok(EmptyBody)
    }
}

/// Returns the problem of a body that is not sent as JSON. `curl -d` sends the media type of forms, or none.
fn unsupported_media_type(content_type: Option<&str>) -> Problem {
    let detail = match content_type {
        Some(other) if !other.starts_with("application/x-www-form-urlencoded") => {
            format!("the Content-Type is {other:.100}; send the body with Content-Type: application/json")
        }
        _ => "the header Content-Type: application/json is missing; with curl, use --json instead of -d".to_owned(),
    };
    Problem::new(Code::UnsupportedMediaType, detail)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Reads a body of at most `limit` bytes. If its declared length is larger, no byte is read.
async fn read_body(mut body: Body, limit: usize, server: &ServerState) -> Result<BodyText, Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge, format!("the body is over {limit} bytes"));
    let declared_length = usize::try_from(http_body::Body::size_hint(&body).lower()).unwrap_or(usize::MAX);
    if declared_length > limit {
        return Err(too_large());
    }
    let mut permit = server.body_permit(declared_length)?;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.into_inner().is::<BodyTooSlow>() {
            true => server.reject(Rejection::BodyTooSlow).into(),
            false => Problem::new(Code::MalformedJson, "the body ended before its declared length"),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_large());
        }
        if !permit.reserve(data.len()) {
            return Err(server.reject(Rejection::BodyMemory).into());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(BodyText { text: validate_text(bytes)?, _permit: permit })
}

/// Returns the text of a body that may be parsed: UTF-8, nested at most [`limits::MAX_JSON_DEPTH`] deep, without lone
/// surrogates.
fn validate_text(bytes: Vec<u8>) -> Result<String, Problem> {
    let text = String::from_utf8(bytes)
        .map_err(|error| malformed(format!("the body is not UTF-8 at byte {}", error.utf8_error().valid_up_to())))?;
    match validate(text.as_bytes(), limits::MAX_JSON_DEPTH) {
        Ok(()) => Ok(text),
        Err(JsonDefect::TooDeep(index)) => Err(Problem::at(
            "",
            Code::TooDeep,
            format!("the JSON is nested deeper than {} at byte {index}", limits::MAX_JSON_DEPTH),
        )),
        Err(JsonDefect::LoneSurrogate(index)) => {
            let detail =
                format!("the escape at byte {index} is half of a surrogate pair; other JSON parsers reject it");
            Err(Problem::at("", Code::LoneSurrogate, detail))
        }
    }
}

fn malformed(detail: String) -> Problem {
    Problem::at("", Code::MalformedJson, detail)
}

impl<const LIMIT: usize> JsonBody<LIMIT> {
    /// Creates a body of these bytes, without a limit of memory.
    #[cfg(any(test, fuzzing, feature = "pieces"))]
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, Problem> {
        Ok(JsonBody(BodyText { _permit: MemoryPermit::empty(), text: validate_text(bytes)? }))
    }

    /// Parses the body as a JSON object.
    pub(super) fn object(&self) -> Result<Fields<'_>, Problem> {
        let raw: &RawValue = serde_json::from_str(&self.0.text).map_err(|error| malformed(error.to_string()))?;
        Fields::parse(raw, String::new())
    }

    /// Returns the bytes of the body.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

/// The task id in the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathId(pub(super) TaskId);

/// The queue name in the path.
#[derive(Clone, Debug)]
pub(super) struct PathQueue(pub(super) QueueName);

async fn path_parameter<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    let not_found = || Problem::new(Code::RouteNotFound, "the path is malformed");
    let parameters = RawPathParams::from_request_parts(parts, state).await.map_err(|_| not_found())?;
    parameters.iter().next().map(|(_, value)| value.to_owned()).ok_or_else(not_found)
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_parameter(parts, state).await?;
        let invalid = || Problem::at(":id", Code::InvalidId, "id must be the UUID of a task");
        TaskId::parse(&text).map(PathId).ok_or_else(invalid)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathQueue {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_parameter(parts, state).await?;
        QueueName::parse(&text).map(PathQueue).ok_or_else(|| Problem::invalid_queue(":queue"))
    }
}

/// The parameters of the query string.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Query::parse(parts.uri.query().unwrap_or_default())
    }
}

/// Returns the pointer of a query parameter.
fn pointer(name: &str) -> String {
    format!("?{:.100}", name)
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        Query::read(text, None).map(|(query, _)| query)
    }

    /// Parses a query string in which the parameter `repeated` may be repeated. Returns its values in order.
    pub(super) fn parse_with_repeated(text: &str, many: &str) -> Result<(Self, Vec<String>), Problem> {
        Query::read(text, Some(many))
    }

    fn read(text: &str, repeated: Option<&str>) -> Result<(Self, Vec<String>), Problem> {
        let unreadable =
            || Problem::new(Code::InvalidQuery, "the query string is malformed: it must be UTF-8 in percent encoding");
        let (mut parameters, mut values) = (BTreeMap::new(), Vec::new());
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| {
                let text = text.replace('+', " ");
                percent_encoding::percent_decode_str(&text).decode_utf8().map(|text| text.into_owned())
            };
            let (name, value) = (decode(name).map_err(|_| unreadable())?, decode(value).map_err(|_| unreadable())?);
            if repeated == Some(name.as_str()) {
                values.push(value);
            } else if parameters.insert(name.clone(), value).is_some() {
                return Err(Problem::at(pointer(&name), Code::InvalidQuery, "this parameter occurs twice"));
            }
        }
        Ok((Query(parameters), values))
    }

    pub(super) fn optional(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(super) fn int(&mut self, name: &'static str, bound: ValueRange) -> Result<Option<i64>, Problem> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) if (bound.min..=bound.max).contains(&number) => Ok(Some(number)),
            Ok(_) => {
                let detail = format!("{name} must be from {} to {}", bound.min, bound.max);
                Err(Problem::at(pointer(name), Code::OutOfRange, detail))
            }
            Err(_) => Err(Problem::at(pointer(name), Code::WrongType, format!("{name} must be a whole number"))),
        }
    }

    pub(super) fn required(&mut self, name: &'static str) -> Result<String, Problem> {
        let missing = || Problem::at(pointer(name), Code::MissingField, format!("{name} is required"));
        self.optional(name).ok_or_else(missing)
    }

    /// Rejects a parameter that was not read.
    pub(super) fn deny_unknown(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Problem::at(pointer(name), Code::InvalidQuery, "this parameter is unknown")),
        }
    }
}

/// Returns the wait time: `wait_ms` of the request, else the seconds of `Prefer: wait=` (RFC 7240), else zero. With it
/// comes the value of `Preference-Applied`.
pub(super) fn parse_wait(
    wait_ms: Option<i64>,
    headers: &HeaderMap,
) -> Result<(Duration, Option<HeaderValue>), Problem> {
    let from_ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
    if let Some(wait_ms) = wait_ms {
        return Ok((from_ms(wait_ms), None));
    }
    for header in headers.get_all("prefer") {
        let text = header.to_str().unwrap_or_default();
        for preference in text.split([',', ';']) {
            let Some(seconds) = preference.trim().strip_prefix("wait=") else { continue };
            let Ok(seconds) = seconds.trim_matches('"').parse::<i64>() else {
                return Err(Problem::at(
                    "header:Prefer",
                    Code::InvalidHeader,
                    "wait= must be a whole number of seconds",
                ));
            };
            // RFC 7240: a preference may be applied in part.
            let seconds = seconds.clamp(0, limits::WAIT_MS.max / 1000);
            let applied = HeaderValue::from_str(&format!("wait={seconds}")).ok();
            return Ok((from_ms(seconds * 1000), applied));
        }
    }
    Ok((from_ms(limits::WAIT_MS.default), None))
}
