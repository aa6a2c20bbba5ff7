//! Decodes the replies of Redis. A malformed reply is an [`Error::Unexpected`].

use std::fmt::{self, Write};

use deadpool_redis::redis::Value;
use rmp::Marker;
use rmp::decode::{read_array_len, read_int, read_str_len};

use crate::domain::id::TaskId;
use crate::domain::state::State;
use crate::domain::time::TimestampMs;
use crate::store::error::{Error, Result};

pub(in crate::store) fn mismatch(expected: &str, actual: &Value) -> Error {
    let mut truncated = Truncated(String::new());
    // An error means that the limit is reached.
    let _ = write!(truncated, "{actual:?}");
    Error::Unexpected(format!("expected {expected}, got {}", truncated.0))
}

/// A text that is cut after about 200 bytes.
struct Truncated(String);

impl Write for Truncated {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.0.len() >= 200 {
                return Err(fmt::Error);
            }
            self.0.push(letter);
        }
        Ok(())
    }
}

/// The maximum nesting of lists: more than any script packs.
const MAX_DEPTH: usize = 8;

/// Decodes a reply that a script packed as MessagePack. One string takes Redis and the client a fraction of the time of
/// nested lists.
pub(in crate::store) fn decode_msgpack(reply: Value) -> Result<Value> {
    let packed = bytes(reply)?;
    let mut rest = packed.as_slice();
    match decode_value(&mut rest, MAX_DEPTH) {
        Some(value) if rest.is_empty() => Ok(value),
        Some(_) | None => Err(mismatch("a reply that can be unpacked", &Value::BulkString(packed))),
    }
}

/// Decodes one value from the front of `rest`. `None`: scripts pack no such value.
fn decode_value(rest: &mut &[u8], depth: usize) -> Option<Value> {
    match Marker::from_u8(*rest.first()?) {
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
            let remaining_depth = depth.checked_sub(1)?;
            let length = usize::try_from(read_array_len(rest).ok()?).ok()?;
            // A value takes at least a byte, whatever the length says.
            let mut list = Vec::with_capacity(length.min(rest.len()));
            for _ in 0..length {
                list.push(decode_value(rest, remaining_depth)?);
            }
            Some(Value::Array(list))
        }
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
            let length = usize::try_from(read_str_len(rest).ok()?).ok()?;
            let (text, tail) = rest.split_at_checked(length)?;
            *rest = tail;
            Some(Value::BulkString(text.to_vec()))
        }
        _ => read_int(rest).ok().map(Value::Int),
    }
}

/// Reads a list from its front.
#[derive(Debug)]
pub(in crate::store) struct ReplyReader(std::vec::IntoIter<Value>);

pub(in crate::store) fn read_list(value: Value) -> Result<ReplyReader> {
    match value {
        Value::Array(list) => Ok(ReplyReader(list.into_iter())),
        Value::Set(list) => Ok(ReplyReader(list.into_iter())),
        other => Err(mismatch("a list", &other)),
    }
}

pub(in crate::store) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        other => Err(mismatch("a string", &other)),
    }
}

pub(in crate::store) fn text(value: Value) -> Result<String> {
    String::from_utf8(bytes(value)?).map_err(|error| Error::Unexpected(error.to_string()))
}

pub(in crate::store) fn int(value: Value) -> Result<i64> {
    let number = match &value {
        Value::Int(number) => Some(*number),
        Value::BulkString(bytes) => parse_int(bytes),
        Value::Double(number) => Some(*number as i64),
        _ => None,
    };
    number.ok_or_else(|| mismatch("a number", &value))
}

/// Parses a list of exactly `expected` lists, each with `parse`.
pub(in crate::store) fn parse_items<T>(
    reply: Value,
    expected: usize,
    parse: impl Fn(ReplyReader) -> Result<T>,
) -> Result<Vec<T>> {
    let list = read_list(reply)?;
    if list.len() != expected {
        return Err(Error::Unexpected(format!("{} replies to {expected} items", list.len())));
    }
    list.map(|item| parse(read_list(item)?)).collect()
}

/// Parses a number as Redis formats it, scores of a zset included.
pub(in crate::store) fn parse_int(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.parse().ok().or_else(|| text.parse::<f64>().ok().map(|number| number as i64))
}

impl ReplyReader {
    /// Returns the next value. Its absence is an error.
    pub(in crate::store) fn value(&mut self) -> Result<Value> {
        self.0.next().ok_or_else(|| Error::Unexpected("a reply is too short".into()))
    }

    pub(in crate::store) fn list(&mut self) -> Result<ReplyReader> {
        read_list(self.value()?)
    }

    pub(in crate::store) fn bytes(&mut self) -> Result<Vec<u8>> {
        bytes(self.value()?)
    }

    pub(in crate::store) fn text(&mut self) -> Result<String> {
        text(self.value()?)
    }

    pub(in crate::store) fn int(&mut self) -> Result<i64> {
        int(self.value()?)
    }

    pub(in crate::store) fn id(&mut self) -> Result<TaskId> {
        let bytes = self.bytes()?;
        TaskId::from_bytes(&bytes).ok_or_else(|| Error::Unexpected("a task id does not have 16 bytes".into()))
    }

    pub(in crate::store) fn state(&mut self) -> Result<State> {
        let text = self.text()?;
        State::parse(&text).ok_or_else(|| Error::Unexpected(format!("invalid state: {text:.40}")))
    }

    /// Returns a time. `None` for the empty string.
    pub(in crate::store) fn optional_time(&mut self) -> Result<Option<TimestampMs>> {
        match self.value()? {
            Value::BulkString(bytes) if bytes.is_empty() => Ok(None),
            other => Ok(Some(TimestampMs(int(other)?))),
        }
    }

    pub(in crate::store) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Iterator for ReplyReader {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.0.next()
    }
}

#[cfg(test)]
mod tests {
    use crate::store::redis::reply::*;

    #[test]
    fn replies_of_scripts_are_decoded_and_others_rejected() {
        let packed = |bytes: &[u8]| decode_msgpack(Value::BulkString(bytes.to_vec()));
        let list = packed(b"\x93\xa2ab\xcd\x01\x00\x91\xd0\xff").unwrap();
        let minus_one = Value::Array(vec![Value::Int(-1)]);
        assert_eq!(list, Value::Array(vec![Value::BulkString(b"ab".to_vec()), Value::Int(256), minus_one]));
        assert_eq!(packed(b"\x90").unwrap(), Value::Array(Vec::new()));
        for broken in
            [&b""[..], b"\x92\x01", b"\xa3ab", b"\x01\x01", b"\xdd\xff\xff\xff\xff\x01", b"\xc0", b"\x81\x01\x01"]
        {
            assert!(packed(broken).is_err(), "{broken:?}");
        }
        assert!(packed(&[0x91; 100_000]).is_err(), "too deep");
    }

    #[test]
    fn error_shows_the_start_of_a_large_reply() {
        let large = Value::Array(vec![Value::Int(7); 1_000_000]);
        let Error::Unexpected(why) = int(large).unwrap_err() else { panic!("another error") };
        assert!(why.starts_with("expected a number, got ") && why.len() < 250, "{why}");
    }
}
