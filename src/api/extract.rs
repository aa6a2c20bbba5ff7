//! What handlers take out of requests: bodies, query parameters, ids, waits.

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

/// A body's text, which counts as memory of the server's as long as it is there.
#[derive(Debug)]
struct BodyText {
    text: String,
    _permit: MemoryPermit,
}

/// The body of a request about one task or a few.
pub(super) type SingleBody = JsonBody<{ limits::MAX_BODY_BYTES }>;
/// The body of a request about many.
pub(super) type BatchBody = JsonBody<{ limits::MAX_BATCH_BODY_BYTES }>;

impl<const LIMIT: usize> FromRequest<Api> for JsonBody<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(is_json) {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "the body must be sent with Content-Type: application/json",
            ));
        }
        Ok(JsonBody(read_body(request.into_body(), LIMIT, &api.server).await?))
    }
}

/// A body that may be left out, or `{}`: the request has nothing to say beyond its path.
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

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Reads a body of at most `limit` bytes. One that says that it is larger is not read at all.
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
            false => Problem::new(Code::MalformedJson, "the body ended before its end"),
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

/// The text of a body, if it is one that may be parsed: UTF-8, not too deep, no halves of surrogate pairs.
fn validate_text(bytes: Vec<u8>) -> Result<String, Problem> {
    let text = String::from_utf8(bytes)
        .map_err(|error| malformed(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to())))?;
    match validate(text.as_bytes(), limits::MAX_JSON_DEPTH) {
        Ok(()) => Ok(text),
        Err(JsonDefect::TooDeep(at)) => Err(Problem::at(
            "",
            Code::TooDeep,
            format!("byte {at} opens more than {} brackets", limits::MAX_JSON_DEPTH),
        )),
        Err(JsonDefect::LoneSurrogate(at)) => {
            let detail = format!("byte {at} begins half of a surrogate pair, which no other JSON reader would take");
            Err(Problem::at("", Code::LoneSurrogate, detail))
        }
    }
}

fn malformed(detail: String) -> Problem {
    Problem::at("", Code::MalformedJson, detail)
}

impl<const LIMIT: usize> JsonBody<LIMIT> {
    /// The body that has these bytes.
    #[cfg(any(test, fuzzing, feature = "pieces"))]
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, Problem> {
        Ok(JsonBody(BodyText { _permit: MemoryPermit::empty(), text: validate_text(bytes)? }))
    }

    /// The body, which must be an object.
    pub(super) fn object(&self) -> Result<Fields<'_>, Problem> {
        let raw: &RawValue = serde_json::from_str(&self.0.text).map_err(|error| malformed(error.to_string()))?;
        Fields::parse(raw, String::new())
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

/// The id in the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathId(pub(super) TaskId);

/// The queue in the path.
#[derive(Clone, Debug)]
pub(super) struct PathQueue(pub(super) QueueName);

async fn path_parameter<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    let not_found = || Problem::new(Code::RouteNotFound, "the path cannot be read");
    let parameters = RawPathParams::from_request_parts(parts, state).await.map_err(|_| not_found())?;
    parameters.iter().next().map(|(_, value)| value.to_owned()).ok_or_else(not_found)
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_parameter(parts, state).await?;
        let invalid = || Problem::at(":id", Code::InvalidId, "an id is a UUID as a submit answers it");
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

/// How a query parameter is pointed at.
fn pointer(name: &str) -> String {
    format!("?{:.100}", name)
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        Query::read(text, None).map(|(query, _)| query)
    }

    /// The same where `many` may stand more than once; its values, in their order.
    pub(super) fn parse_with_repeated(text: &str, many: &str) -> Result<(Self, Vec<String>), Problem> {
        Query::read(text, Some(many))
    }

    fn read(text: &str, repeated: Option<&str>) -> Result<(Self, Vec<String>), Problem> {
        let unreadable = || Problem::new(Code::InvalidQuery, "the query string cannot be read");
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
                return Err(Problem::at(pointer(&name), Code::InvalidQuery, "this parameter stands twice"));
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
        let missing = || Problem::at(pointer(name), Code::MissingField, format!("{name} is needed"));
        self.optional(name).ok_or_else(missing)
    }

    /// Refuses what was not asked for.
    pub(super) fn deny_unknown(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Problem::at(pointer(name), Code::InvalidQuery, "there is no such parameter here")),
        }
    }
}

/// How long to wait: as the request says (in ms), else as `Prefer: wait=` says (in s, RFC 7240), else not at all;
/// and what the answer says of the preference.
pub(super) fn parse_wait(
    wait_ms: Option<i64>,
    headers: &HeaderMap,
) -> Result<(Duration, Option<HeaderValue>), Problem> {
    let from_ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
    if let Some(asked) = wait_ms {
        return Ok((from_ms(asked), None));
    }
    for header in headers.get_all("prefer") {
        let text = header.to_str().unwrap_or_default();
        for preference in text.split([',', ';']) {
            let Some(seconds) = preference.trim().strip_prefix("wait=") else { continue };
            let Ok(seconds) = seconds.trim_matches('"').parse::<i64>() else {
                return Err(Problem::at("header:Prefer", Code::InvalidHeader, "wait= takes whole seconds"));
            };
            // A preference may be honoured in part.
            let seconds = seconds.clamp(0, limits::WAIT_MS.max / 1000);
            let applied = HeaderValue::from_str(&format!("wait={seconds}")).ok();
            return Ok((from_ms(seconds * 1000), applied));
        }
    }
    Ok((from_ms(limits::WAIT_MS.default), None))
}
