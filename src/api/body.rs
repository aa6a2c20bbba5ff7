//! Extractors of bodies: JSON of a limited size, without defects. The body of a report may have some. A body brings the
//! headers of its request, which an extractor of their own would copy.

use std::string::FromUtf8Error;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;

use super::extract::single_header;
use super::json::adjusted::Adjusted;
use super::json::fields::Fields;
use super::json::pointer::pointer_at;
use super::json::rewrite::without_non_numbers;
use super::json::validate::{JsonDefect, validate};
use super::problem::{Code, Problem};
use super::state::Api;
use crate::domain::limits;
use crate::http_server::{BodyTooSlow, MemoryPermit, Rejection, ServerState};

/// A JSON body of at most `LIMIT` bytes. It holds its share of the memory for bodies until it is dropped.
#[derive(Debug)]
pub(super) struct JsonBody<const LIMIT: usize> {
    headers: HeaderMap,
    body: BodyText,
    _permit: Option<MemoryPermit>,
}

/// The JSON body of a report, of at most [`limits::MAX_BATCH_BODY_BYTES`]. Its fields are read with the [`Adjusted`]
/// that it makes: a value with a defect is changed.
#[derive(Debug)]
pub(super) struct ReportBody {
    headers: HeaderMap,
    body: BodyText,
    /// Whether U+FFFD took the place of bytes that are not UTF-8, or null that of `NaN`.
    has_substitutes: bool,
    _permit: Option<MemoryPermit>,
}

/// The text of a body.
#[derive(Debug)]
struct BodyText {
    text: String,
    /// Its first defect, apart from malformed JSON.
    defect: Option<JsonDefect>,
}

/// The body of a request for one task.
pub(super) type SingleBody = JsonBody<{ limits::MAX_BODY_BYTES }>;
/// The body of a request for many tasks.
pub(super) type BatchBody = JsonBody<{ limits::MAX_BATCH_BODY_BYTES }>;

impl<const LIMIT: usize> FromRequest<Api> for JsonBody<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        let (Parts { headers, .. }, body) = request.into_parts();
        let (bytes, permit) = read_body(body, LIMIT, &api.server).await?;
        Ok(JsonBody { headers, body: BodyText::new(text_of(bytes)?), _permit: Some(permit) })
    }
}

impl FromRequest<Api> for ReportBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        let (Parts { headers, .. }, body) = request.into_parts();
        let (bytes, mut permit) = read_body(body, limits::MAX_BATCH_BODY_BYTES, &api.server).await?;
        let length = bytes.len();
        let report = match ReportBody::new(bytes) {
            Ok(report) => report,
            Err(bytes) if permit.reserve(2 * length) => ReportBody::with_substitutes(&bytes),
            Err(_) => return Err(api.server.reject(Rejection::BodyMemory).into()),
        };
        Ok(ReportBody { headers, _permit: Some(permit), ..report })
    }
}

/// The body of a request without fields: empty, `null`, or `{}`. Its Content-Type is not checked.
#[derive(Debug)]
pub(super) struct EmptyBody;

impl FromRequest<Api> for EmptyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        check_encoding(request.headers())?;
        let (bytes, permit) = read_body(request.into_body(), 1024, &api.server).await?;
        let text = text_of(bytes)?;
        if !matches!(text.trim(), "" | "null") {
            let body = BodyText::new(text);
            JsonBody::<1024> { headers: HeaderMap::new(), body, _permit: Some(permit) }.object()?.deny_unknown()?;
        }
        Ok(EmptyBody)
    }
}

/// The body of a request whose fields are all optional: empty, `null`, or an object.
#[derive(Debug)]
pub(super) struct OptionalBody(JsonBody<1024>);

impl FromRequest<Api> for OptionalBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        check_encoding(request.headers())?;
        let problem = check_media_type(request.headers()).err();
        let (bytes, permit) = read_body(request.into_body(), 1024, &api.server).await?;
        let text = match (text_of(bytes)?, problem) {
            (text, _) if text.trim().is_empty() => "{}".to_owned(),
            (_, Some(problem)) => return Err(problem),
            (text, None) if text.trim() == "null" => "{}".to_owned(),
            (text, None) => text,
        };
        let body = BodyText::new(text);
        Ok(OptionalBody(JsonBody { headers: HeaderMap::new(), body, _permit: Some(permit) }))
    }
}

impl OptionalBody {
    /// Parses the body as a JSON object. An empty body has no fields.
    pub(super) fn object(&self) -> Result<Fields<'_>, Problem> {
        self.0.object()
    }
}

/// Requires JSON that is not compressed.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type =
        single_header(headers, &header::CONTENT_TYPE, "Content-Type")?.and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(is_json) {
        return Err(unsupported_media_type(content_type));
    }
    check_encoding(headers)
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let is_other = |encoding: &&[u8]| !encoding.trim_ascii().eq_ignore_ascii_case(b"identity");
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.as_bytes());
    let Some(encoding) = encodings.filter(|value| !value.trim_ascii().is_empty()).find(is_other) else { return Ok(()) };
    let encoding = String::from_utf8_lossy(encoding);
    let detail = format!("the Content-Encoding is {encoding:.100}; send the body without compression");
    Err(Problem::at("header:Content-Encoding", Code::UnsupportedMediaType, detail))
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
async fn read_body(mut body: Body, limit: usize, server: &ServerState) -> Result<(Vec<u8>, MemoryPermit), Problem> {
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
    Ok((bytes, permit))
}

fn text_of(bytes: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(bytes)
        .map_err(|error| malformed(format!("the body is not UTF-8 at byte {}", error.utf8_error().valid_up_to())))
}

fn malformed(detail: String) -> Problem {
    Problem::at("", Code::MalformedJson, detail)
}

/// Returns the problem of a defect in `json`, which is at `base` in the body.
fn problem_of(defect: JsonDefect, base: &str, json: &str) -> Problem {
    let at = |code: Code, position: usize, what: &str| {
        Problem::at(pointer_at(base, json, position), code, format!("the {what} at byte {position}"))
    };
    match defect {
        JsonDefect::TooDeep(index) => {
            let detail = format!("the JSON is nested deeper than {} at byte {index}", limits::MAX_JSON_DEPTH);
            Problem::at(base, Code::TooDeep, detail)
        }
        JsonDefect::LoneSurrogate(index) => {
            at(Code::LoneSurrogate, index, "JSON has half of a surrogate pair, which other parsers reject,")
        }
        JsonDefect::NumberOverflow(index) => {
            at(Code::NumberOverflow, index, "JSON has a number beyond the range of a double")
        }
        JsonDefect::DuplicateName(index) => at(Code::DuplicateField, index, "JSON has the second field of one name"),
        JsonDefect::NotANumber(index) => malformed(format!("NaN and Infinity are not JSON, at byte {index}")),
    }
}

impl BodyText {
    fn new(text: String) -> Self {
        let defect = validate(text.as_bytes(), limits::MAX_JSON_DEPTH).err();
        BodyText { text, defect }
    }

    /// Parses the body as a JSON object, whatever its defect.
    fn object(&self) -> Result<Fields<'_>, Problem> {
        Fields::parse_body(&self.text)
    }
}

impl<const LIMIT: usize> JsonBody<LIMIT> {
    /// Creates a body of these bytes, without a limit of memory.
    #[cfg(any(test, fuzzing, feature = "pieces"))]
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, Problem> {
        Ok(JsonBody { headers: HeaderMap::new(), body: BodyText::new(text_of(bytes)?), _permit: None })
    }

    /// Returns the headers of the request.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Parses the body as a JSON object without defects.
    pub(super) fn object(&self) -> Result<Fields<'_>, Problem> {
        self.check_all()?;
        self.body.object()
    }

    /// Parses the body as an object with a list of items, each of which may have a defect.
    pub(super) fn object_of_items(&self) -> Result<Fields<'_>, Problem> {
        self.body.object()
    }

    /// Requires an item without defects: `json`, which is at `pointer` in a list of the body.
    pub(super) fn check_item(&self, json: &str, pointer: &str) -> Result<(), Problem> {
        if self.body.defect.is_none() {
            return Ok(());
        }
        let checked = validate(json.as_bytes(), limits::MAX_JSON_DEPTH - 2);
        checked.map_err(|defect| problem_of(defect, pointer, json))
    }

    /// Requires a body without defects.
    pub(super) fn check_all(&self) -> Result<(), Problem> {
        self.body.defect.map_or(Ok(()), |defect| Err(problem_of(defect, "", &self.body.text)))
    }

    /// Returns the text of the body.
    pub(super) fn text(&self) -> &str {
        &self.body.text
    }
}

impl ReportBody {
    /// Creates the body of these bytes. Returns them if the parser needs substitutes.
    fn new(bytes: Vec<u8>) -> Result<Self, Vec<u8>> {
        let body = BodyText::new(String::from_utf8(bytes).map_err(FromUtf8Error::into_bytes)?);
        if body.defect.is_some() && serde_json::from_str::<&RawValue>(&body.text).is_err() {
            return Err(body.text.into_bytes());
        }
        Ok(ReportBody { headers: HeaderMap::new(), body, has_substitutes: false, _permit: None })
    }

    /// The same with U+FFFD for what is not UTF-8, and null for `NaN` and `Infinity`.
    fn with_substitutes(bytes: &[u8]) -> Self {
        let body = BodyText::new(without_non_numbers(&String::from_utf8_lossy(bytes)));
        ReportBody { headers: HeaderMap::new(), body, has_substitutes: true, _permit: None }
    }

    /// Creates a body of these bytes, without a limit of memory.
    #[cfg(any(test, fuzzing))]
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        ReportBody::new(bytes).unwrap_or_else(|bytes| ReportBody::with_substitutes(&bytes))
    }

    /// Returns the headers of the request.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Parses the body as a JSON object.
    pub(super) fn object(&self) -> Result<Fields<'_>, Problem> {
        self.body.object()
    }

    /// Returns the list of adjustments to read its fields with.
    pub(super) fn adjusted(&self) -> Adjusted {
        Adjusted::new(self.body.defect.is_some(), self.has_substitutes)
    }
}
