//! Reads the fields of a JSON object one by one. An invalid field is a problem with the pointer to it, and a field that
//! no reader asked for is rejected. Arbitrary JSON keeps its bytes.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::pointer::escape_pointer;
use super::validate::skip_number;
use crate::api::problem::{Code, Problem};
use crate::domain::limits;
use crate::domain::limits::ValueRange;
use crate::domain::queue::QueueName;
use crate::domain::task::RawJson;
use crate::domain::time::TimestampMs;

/// The fields of an object, with a mark on each that was read.
pub(in crate::api) struct Fields<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue, Cell<bool>)>,
    pointer: String,
}

/// A value and its position.
pub(in crate::api) struct Field<'o> {
    pub(super) raw: &'o RawValue,
    parent: &'o str,
    name: Cow<'o, str>,
}

/// Fields kept of an object. Every valid object has fewer, so the first 64 fields of a larger object include a duplicate
/// or an unknown field. The other fields cannot change the result, and take no memory.
const MAX_FIELDS: usize = 64;

struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue, Cell<bool>)>);

/// A name, borrowed if it has no escapes.
struct FieldName<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for FieldName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = FieldName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<FieldName<'de>, E> {
                Ok(FieldName(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldName<'de>, E> {
                Ok(FieldName(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while entries.len() < MAX_FIELDS {
                    let Some((name, value)) = map.next_entry::<FieldName<'de>, &'de RawValue>()? else { break };
                    entries.push((name.0, value, Cell::new(false)));
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

impl<'a> Fields<'a> {
    /// Parses a body, which is an object.
    pub(in crate::api) fn parse_body(text: &'a str) -> Result<Self, Problem> {
        match serde_json::from_str(text) {
            Ok(Entries(fields)) => Fields::distinct(fields, String::new()),
            // Malformed, or another value.
            Err(_) => {
                let malformed = |error: serde_json::Error| Problem::at("", Code::MalformedJson, error.to_string());
                Fields::parse(serde_json::from_str(text).map_err(malformed)?, String::new())
            }
        }
    }

    /// Parses the object `raw`, which is at `pointer` in the body.
    pub(in crate::api) fn parse(raw: &'a RawValue, pointer: String) -> Result<Self, Problem> {
        let Ok(Entries(fields)) = serde_json::from_str::<Entries<'a>>(raw.get()) else {
            if raw.get().starts_with('{') {
                return Err(Problem::at(pointer, Code::LoneSurrogate, "a name has half of a surrogate pair"));
            }
            let detail = format!("{} must be an object", label(&pointer));
            return Err(Problem::at(pointer, Code::WrongType, detail));
        };
        Fields::distinct(fields, pointer)
    }

    /// Rejects a field that occurs twice. There are at most [`MAX_FIELDS`].
    fn distinct(fields: Vec<(Cow<'a, str>, &'a RawValue, Cell<bool>)>, pointer: String) -> Result<Self, Problem> {
        let occurs_before = |index: usize, name: &str| fields.iter().take(index).any(|(earlier, _, _)| earlier == name);
        if let Some((_, (name, _, _))) =
            fields.iter().enumerate().find(|(index, (name, _, _))| occurs_before(*index, name))
        {
            let pointer = format!("{pointer}/{}", escape_pointer(name));
            let detail = format!("the field {} occurs twice", label(&pointer));
            return Err(Problem::at(pointer, Code::DuplicateField, detail));
        }
        Ok(Fields { fields, pointer })
    }

    /// Returns the field if it is present. A field that is null counts as absent.
    pub(in crate::api) fn optional(&self, name: &'static str) -> Option<Field<'_>> {
        let (_, raw, used) = self.fields.iter().find(|(candidate, _, _)| candidate == name)?;
        used.set(true);
        let field = Field { raw, parent: &self.pointer, name: Cow::Borrowed(name) };
        (raw.get() != RawValue::NULL.get()).then_some(field)
    }

    /// Returns the field, or a problem if it is missing.
    pub(in crate::api) fn required(&self, name: &'static str) -> Result<Field<'_>, Problem> {
        self.optional(name).ok_or_else(|| self.missing(name))
    }

    /// Returns the problem of a field that is missing or null.
    pub(in crate::api) fn missing(&self, name: &'static str) -> Problem {
        let pointer = format!("{}/{name}", self.pointer);
        let detail = format!("{} is required", label(&pointer));
        Problem::at(pointer, Code::MissingField, detail)
    }

    /// Rejects a field that was not read.
    pub(in crate::api) fn deny_unknown(&self) -> Result<(), Problem> {
        match self.fields.iter().find(|(_, _, used)| !used.get()) {
            None => Ok(()),
            Some((name, _, _)) => {
                let pointer = format!("{}/{}", self.pointer, escape_pointer(name));
                let detail = format!("the field {} is unknown", label(&pointer));
                Err(Problem::at(pointer, Code::UnknownField, detail))
            }
        }
    }

    /// Returns the items of a batch's list: 1 to [`limits::MAX_BATCH_ITEMS`], else a problem.
    pub(in crate::api) fn batch_items(&self, name: &'static str) -> Result<List<'_>, Problem> {
        let field = self.required(name)?;
        let list = field.list(limits::MAX_BATCH_ITEMS, Code::BatchTooLarge)?;
        if list.is_empty() {
            return Err(field.must(Code::InvalidValue, "must not be empty"));
        }
        Ok(list)
    }

    /// Returns a whole number in its range, if the field is present.
    pub(in crate::api) fn optional_int(&self, name: &'static str, range: ValueRange) -> Result<Option<i64>, Problem> {
        self.optional(name).map(|field| field.int(range)).transpose()
    }

    /// Returns a string of 1 to [`limits::MAX_NAME_BYTES`] bytes, if the field is present.
    pub(in crate::api) fn optional_name(&self, name: &'static str) -> Result<Option<String>, Problem> {
        self.optional(name).map(|field| field.nonempty_text(limits::MAX_NAME_BYTES)).transpose()
    }

    /// Returns a whole number in its range, or the default of the range.
    pub(in crate::api) fn int_or_default(&self, name: &'static str, bound: ValueRange) -> Result<i64, Problem> {
        self.optional(name).map_or(Ok(bound.default), |field| field.int(bound))
    }
}

/// Returns the words by which a problem names the value at `pointer`.
pub(super) fn label(pointer: &str) -> &str {
    pointer.strip_prefix('/').unwrap_or("the body")
}

impl<'o> Field<'o> {
    pub(super) fn pointer(&self) -> String {
        format!("{}/{}", self.parent, escape_pointer(&self.name))
    }

    pub(in crate::api) fn invalid(&self, code: Code, detail: impl Into<String>) -> Problem {
        Problem::at(self.pointer(), code, detail)
    }

    /// Returns a problem whose detail is the name of the field and `what`: "must be …", "must not be …", "has …".
    pub(in crate::api) fn must(&self, code: Code, what: impl fmt::Display) -> Problem {
        let pointer = self.pointer();
        let detail = format!("{} {what}", label(&pointer));
        Problem::at(pointer, code, detail)
    }

    pub(super) fn parse<T: Deserialize<'o>>(&self, expected: &str) -> Result<T, Problem> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.must(Code::WrongType, format_args!("must be {expected}")))
    }

    pub(in crate::api) fn int(&self, bound: ValueRange) -> Result<i64, Problem> {
        let number = self.whole_number()?;
        if (bound.min..=bound.max).contains(&number) {
            return Ok(number);
        }
        Err(self.must(Code::OutOfRange, format_args!("must be from {} to {}", bound.min, bound.max)))
    }

    /// Returns a whole number, also one such as `2.0`; the nearest one of 64 bits, if it has more.
    pub(super) fn whole_number(&self) -> Result<i64, Problem> {
        if skip_number(self.raw.get().as_bytes(), 0).is_err() {
            return Ok(if self.raw.get().starts_with('-') { i64::MIN } else { i64::MAX });
        }
        let number: serde_json::Number = self.parse("a whole number")?;
        let float = || number.as_f64().filter(|number| number.fract() == 0.0);
        // A conversion from a float saturates.
        let whole = number.as_i64().or_else(|| float().map(|number| number as i64));
        whole.ok_or_else(|| self.must(Code::WrongType, "must be a whole number"))
    }

    pub(in crate::api) fn float(&self, (min, max): (f64, f64)) -> Result<f64, Problem> {
        let number: f64 = self.parse("a number")?;
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        Err(self.must(Code::OutOfRange, format_args!("must be from {min} to {max}")))
    }

    pub(in crate::api) fn bool(&self) -> Result<bool, Problem> {
        self.parse("true or false")
    }

    /// Returns a string of 1 to `max` bytes.
    pub(in crate::api) fn nonempty_text(&self, max: usize) -> Result<String, Problem> {
        let text = self.text(max)?;
        if text.is_empty() {
            return Err(self.must(Code::InvalidValue, "must not be empty"));
        }
        Ok(text)
    }

    /// Returns a string of at most `max` bytes.
    pub(in crate::api) fn text(&self, max: usize) -> Result<String, Problem> {
        let text: String = self.parse("a string")?;
        if text.len() > max {
            return Err(self.must(Code::TooLong, format_args!("has {} bytes; the limit is {max}", text.len())));
        }
        Ok(text)
    }

    pub(in crate::api) fn queue_name(&self) -> Result<QueueName, Problem> {
        let text: String = self.parse("a string")?;
        QueueName::parse(&text).ok_or_else(|| Problem::invalid_queue(self.pointer()))
    }

    pub(in crate::api) fn timestamp(&self) -> Result<TimestampMs, Problem> {
        let text: String = self.parse("a string")?;
        TimestampMs::parse(&text)
            .ok_or_else(|| self.must(Code::InvalidTime, "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z"))
    }

    /// Returns the value of one of the accepted strings.
    pub(in crate::api) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Problem> {
        let text: String = self.parse("a string")?;
        choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let allowed: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.must(Code::InvalidValue, format_args!("must be one of {}", allowed.join(", ")))
        })
    }

    /// Returns any JSON, byte for byte.
    pub(in crate::api) fn document(&self) -> Result<RawJson, Problem> {
        let length = self.raw.get().len();
        if length > limits::MAX_JSON_BYTES {
            let detail = format_args!("has {length} bytes; the limit is {}", limits::MAX_JSON_BYTES);
            return Err(self.must(Code::PayloadTooLarge, detail));
        }
        Ok(self.raw.to_owned())
    }

    pub(in crate::api) fn object(&self) -> Result<Fields<'o>, Problem> {
        Fields::parse(self.raw, self.pointer())
    }

    /// Returns the values of a list of at most `max`. A longer list is a problem with `limit_code`.
    pub(in crate::api) fn list(&self, max: usize, limit_code: Code) -> Result<List<'o>, Problem> {
        let mut json = serde_json::Deserializer::from_str(self.raw.get());
        let wrong_type = |_| self.must(Code::WrongType, "must be a list");
        let (values, more) = ListVisitor(max).deserialize(&mut json).map_err(wrong_type)?;
        if more > 0 {
            let detail = format_args!("has {} items; the limit is {max}", values.len() + more);
            return Err(self.must(limit_code, detail));
        }
        Ok(List { values, pointer: self.pointer() })
    }

    /// Returns a map of strings with at most `max` entries.
    pub(in crate::api) fn string_map(&self, max: usize) -> Result<BTreeMap<String, String>, Problem> {
        let object = self.object()?;
        if object.fields.len() > max {
            let detail = format_args!("has {} entries; the limit is {max}", object.fields.len());
            return Err(self.must(Code::TooLong, detail));
        }
        let fields = object.fields.iter().map(|(name, raw, _)| {
            let field = Field { raw, parent: &object.pointer, name: Cow::Borrowed(name) };
            Ok((name.clone().into_owned(), field.text(usize::MAX)?))
        });
        fields.collect()
    }
}

/// Reads the first values of a list up to a limit, and counts the others, which take no memory.
struct ListVisitor(usize);

impl<'de> DeserializeSeed<'de> for ListVisitor {
    type Value = (Vec<&'de RawValue>, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListVisitor {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut more) = (Vec::new(), 0);
        while values.len() < self.0 {
            let Some(value) = list.next_element::<&'de RawValue>()? else { return Ok((values, 0)) };
            values.push(value);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            more += 1;
        }
        Ok((values, more))
    }
}

/// The values of a list, in order.
pub(in crate::api) struct List<'o> {
    values: Vec<&'o RawValue>,
    pointer: String,
}

impl<'o> List<'o> {
    pub(in crate::api) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(in crate::api) fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.values.iter().enumerate().map(|(index, raw)| Field {
            raw,
            parent: &self.pointer,
            name: Cow::Owned(index.to_string()),
        })
    }

    /// Returns the bytes of each value.
    pub(in crate::api) fn raw_json(&self) -> impl Iterator<Item = &'o str> {
        self.values.iter().map(|raw| raw.get())
    }
}

#[cfg(test)]
mod tests {
    use crate::api::json::fields::*;

    #[test]
    fn values_over_a_limit_take_no_memory() {
        let many = format!("{{\"list\":[{}1]}}", "1,".repeat(100_000));
        let raw: &RawValue = serde_json::from_str(&many).unwrap();
        let object = Fields::parse(raw, String::new()).unwrap();
        let mut json = serde_json::Deserializer::from_str(object.optional("list").unwrap().raw.get());
        let (values, more) = ListVisitor(10).deserialize(&mut json).unwrap();
        assert_eq!((values.len(), more), (10, 99_991));
        assert!(values.capacity() < 100);

        let fields: Vec<String> = (0..100_000).map(|n| format!("\"f{n}\":1")).collect();
        let many = format!("{{{}}}", fields.join(","));
        let raw: &RawValue = serde_json::from_str(&many).unwrap();
        let object = Fields::parse(raw, String::new()).unwrap();
        assert_eq!(object.fields.len(), MAX_FIELDS);
        assert!(object.deny_unknown().is_err());
    }
}
