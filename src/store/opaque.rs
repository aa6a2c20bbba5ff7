//! Opaque values of a task: JSON, or a format byte that begins no JSON and what follows it. Scripts store them and hand them
//! out, and never read them.

use serde_json::value::RawValue;

use super::error::{Error, Result};
use super::redis::reply::parse_int;
use crate::domain::retry::Backoff;
use crate::domain::task::{Attributes, ErrorReport, RawJson, TaskError};
use crate::domain::time::TimestampMs;

/// Format byte of a value that was dropped because Redis was full; nothing follows.
const FORMAT_DROPPED: u8 = 0;
/// Format byte of a document: the length of the attributes in four bytes, the attributes, the payload.
const FORMAT_WITH_ATTRIBUTES: u8 = 1;
/// Format byte of a document with no attribute but a key: the length of the key in two bytes, the key, the payload.
const FORMAT_WITH_KEY: u8 = 2;

/// Encodes JSON as an opaque value.
pub(super) fn encode(document: &RawValue) -> Vec<u8> {
    document.get().into()
}

/// Decodes the result of [`encode`]; `None` for the empty value.
pub(super) fn decode(bytes: &[u8]) -> Option<RawJson> {
    RawValue::from_string(String::from_utf8(bytes.to_vec()).ok()?).ok()
}

/// Returns the opaque value in place of a dropped one.
pub(super) fn encode_dropped() -> Vec<u8> {
    vec![FORMAT_DROPPED]
}

/// Whether the value was dropped because Redis was full.
pub(super) fn is_dropped(bytes: &[u8]) -> bool {
    bytes.first() == Some(&FORMAT_DROPPED)
}

/// Encodes the attributes and the payload of a task as one opaque value.
pub(super) fn encode_document(attributes: &Attributes, payload: &RawValue) -> Result<Vec<u8>> {
    if *attributes == Attributes::default() {
        return Ok(encode(payload));
    }
    if let Attributes { key: Some(key), tags, headers } = attributes
        && tags.is_empty()
        && headers.is_empty()
        && let Ok(length) = u16::try_from(key.len())
    {
        let length = length.to_be_bytes();
        return Ok([&[FORMAT_WITH_KEY], &length[..], key.as_bytes(), payload.get().as_bytes()].concat());
    }
    let attributes = serde_json::to_vec(attributes).map_err(|error| Error::Unexpected(error.to_string()))?;
    let length = (attributes.len() as u32).to_be_bytes();
    Ok([&[FORMAT_WITH_ATTRIBUTES], &length[..], &attributes, payload.get().as_bytes()].concat())
}

/// Decodes the result of [`encode_document`].
pub(super) fn decode_document(bytes: &[u8]) -> Option<(Attributes, RawJson)> {
    match bytes.split_first()? {
        (&FORMAT_WITH_ATTRIBUTES, behind) => {
            let (length, rest) = behind.split_first_chunk::<4>()?;
            let (attributes, payload) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            Some((serde_json::from_slice(attributes).ok()?, decode(payload)?))
        }
        (&FORMAT_WITH_KEY, behind) => {
            let (length, rest) = behind.split_first_chunk::<2>()?;
            let (key, payload) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
            let key = Some(std::str::from_utf8(key).ok()?.to_owned());
            Some((Attributes { key, ..Attributes::default() }, decode(payload)?))
        }
        _ => Some((Attributes::default(), decode(bytes)?)),
    }
}

/// Encodes a reported error as an opaque value.
pub(super) fn encode_report(report: &ErrorReport) -> Result<Vec<u8>> {
    serde_json::to_vec(report).map_err(|error| Error::Unexpected(error.to_string()))
}

/// Encodes an error whose worker is known to the script: the parts before and after the JSON of the worker's name.
pub(super) fn encode_report_around_worker(kind: &str, message: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let (worker, kind, message) = (String::new(), kind.to_owned(), message.to_owned());
    let report = encode_report(&ErrorReport { worker, kind, message, details: None })?;
    // The worker is the first field.
    let at = report.windows(2).position(|pair| pair == b"\"\"");
    let parts = at.and_then(|at| Some((report.get(..at)?.to_vec(), report.get(at + 2..)?.to_vec())));
    parts.ok_or_else(|| Error::Unexpected("an error does not have its worker".into()))
}

/// Decodes an error with its time and attempt, as scripts store it.
pub(super) fn decode_error(bytes: &[u8]) -> Option<TaskError> {
    let mut parts = bytes.splitn(3, |&byte| byte == b' ');
    let at = TimestampMs(parse_int(parts.next()?)?);
    let attempt = u32::try_from(parse_int(parts.next()?)?).ok()?;
    let report = serde_json::from_slice(parts.next()?).ok()?;
    Some(TaskError { at, attempt, report })
}

/// Encodes a backoff as an opaque value.
pub(super) fn encode_backoff(backoff: &Backoff) -> Result<Vec<u8>> {
    serde_json::to_vec(backoff).map_err(|error| Error::Unexpected(error.to_string()))
}

/// Decodes the backoff of a task; the default if it has none or an unreadable one.
pub(super) fn decode_backoff(bytes: &[u8]) -> Backoff {
    serde_json::from_slice(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::store::opaque::*;

    #[test]
    fn documents_round_trip_byte_for_byte() {
        let payload = RawValue::from_string(r#"{"a": 12345678901234567890, "b":[ ]}"#.into()).unwrap();
        let key = Attributes { key: Some("k\u{e9}".into()), ..Attributes::default() };
        let tagged = Attributes { tags: vec!["t".into()], ..key.clone() };
        for attributes in [Attributes::default(), key, tagged] {
            let (decoded, document) = decode_document(&encode_document(&attributes, &payload).unwrap()).unwrap();
            assert_eq!(decoded, attributes);
            assert_eq!(document.get(), payload.get());
        }
    }

    #[test]
    fn error_around_a_name_is_the_error_of_that_worker() {
        let (before, after) = encode_report_around_worker("k", "a \"\" b").unwrap();
        let stored = [b"7 2 ", before.as_slice(), br#""w\\""#, &after].concat();
        let TaskError { at, attempt, report } = decode_error(&stored).unwrap();
        assert_eq!((at, attempt), (TimestampMs(7), 2));
        assert_eq!((&*report.worker, &*report.kind, &*report.message), ("w\\", "k", "a \"\" b"));
    }

    #[test]
    fn record_of_any_bytes_does_not_panic() {
        for bytes in [
            &b""[..],
            b"\0",
            b"{",
            b"\x01",
            b"\x01\0\0\0\xffx",
            b"\x02{}",
            b"\x02\0\x01\xff1",
            b"\x02\0\x09k1",
            b"9abc",
            b"\xff",
        ] {
            assert!(decode_document(bytes).is_none());
            assert!(decode_error(bytes).is_none());
        }
    }
}
