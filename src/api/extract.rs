//! Extractors: query parameters, path parameters, headers, wait times.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::problem::{Code, Problem};
use crate::domain::id::TaskId;
use crate::domain::limits::{self, ValueRange};
use crate::domain::queue::QueueName;

static PREFER: HeaderName = HeaderName::from_static("prefer");

/// Returns the header `key`, which a problem calls `name`; a problem if the request has it twice.
pub(super) fn single_header<'h>(
    headers: &'h HeaderMap,
    key: &HeaderName,
    name: &str,
) -> Result<Option<&'h HeaderValue>, Problem> {
    let mut values = headers.get_all(key).iter();
    let value = values.next();
    if values.next().is_some() {
        let detail = format!("the header {name} must not be repeated");
        return Err(Problem::at(format!("header:{name}"), Code::InvalidHeader, detail));
    }
    Ok(value)
}

/// The task id in the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathId(pub(super) TaskId);

/// The queue name in the path.
#[derive(Clone, Debug)]
pub(super) struct PathQueue(pub(super) QueueName);

/// The parameter in the path, still in percent encoding. The router adds it to the extensions of a request.
#[derive(Clone, Debug)]
pub(super) struct PathParameter(pub(super) String);

impl PathParameter {
    fn decode(parts: &Parts) -> Result<Cow<'_, str>, Problem> {
        let decoded = parts
            .extensions
            .get::<PathParameter>()
            .and_then(|PathParameter(value)| percent_encoding::percent_decode_str(value).decode_utf8().ok());
        decoded.ok_or_else(|| Problem::new(Code::RouteNotFound, "the path is malformed"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let text = PathParameter::decode(parts)?;
        let invalid = || Problem::at(":id", Code::InvalidId, "id must be the UUID of a task");
        TaskId::parse(&text).map(PathId).ok_or_else(invalid)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathQueue {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let text = PathParameter::decode(parts)?;
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
                let detail = format!("the parameter {name:.100} occurs twice");
                return Err(Problem::at(pointer(&name), Code::InvalidQuery, detail));
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
            Some(name) => {
                let detail = format!("the parameter {name:.100} is unknown");
                Err(Problem::at(pointer(name), Code::InvalidQuery, detail))
            }
        }
    }
}

/// Returns the wait time: `wait_ms` of the request unless it is absent or 0, else the seconds of `Prefer: wait=` (RFC
/// 7240), else zero. With it comes the value of `Preference-Applied`.
pub(super) fn parse_wait(
    wait_ms: Option<i64>,
    headers: &HeaderMap,
) -> Result<(Duration, Option<HeaderValue>), Problem> {
    let from_ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
    if let Some(wait_ms) = wait_ms.filter(|wait_ms| *wait_ms > 0) {
        return Ok((from_ms(wait_ms), None));
    }
    for header in headers.get_all(&PREFER) {
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
