//! The bytes of stored records. [`RECORDS`] is the only place that knows them: Rust decodes by it, and scripts write
//! `L.queue.format`, which [`Script::full_text`](super::redis::script::Script::full_text) replaces.
//!
//! A record is a version byte, then its fields, then its tail, if it has one. Numbers are big-endian and not negative. A
//! record of another version or length is unreadable. A later version of a record only adds fields at the end, so that it
//! can read what earlier ones wrote; until then the reserved bytes are kept as they are.

use super::error::{Error, Result};
use crate::domain::digest::KeyDigest;

/// The content of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A number.
    Uint,
    /// Bytes.
    Bytes,
}

/// A field of a record.
#[derive(Debug)]
pub struct RecordField {
    /// Its name in scripts.
    pub name: &'static str,
    /// Its content.
    pub kind: Kind,
    /// Its length in bytes. A number has at most 7, which is what a script can count to.
    pub bytes: usize,
    /// Its meaning.
    pub meaning: &'static str,
}

/// A kind of record.
#[derive(Debug)]
pub struct Record {
    /// Its name in scripts.
    pub name: &'static str,
    /// Its version.
    pub version: u8,
    /// Its fields in the order of their bytes.
    pub fields: &'static [RecordField],
    /// The meaning of the bytes behind the fields; `None`: there are none.
    pub tail: Option<&'static str>,
}

macro_rules! records {
    ($($(#[$doc:meta])* $constant:ident $name:ident = $version:literal {
        $($field:ident: $kind:ident $bytes:literal = $meaning:literal;)*
    } $(=> $tail:literal)?)*) => {
        $(
            $(#[$doc])*
            pub const $constant: Record = Record {
                name: stringify!($name),
                version: $version,
                fields: &[$(RecordField {
                    name: stringify!($field),
                    kind: Kind::$kind,
                    bytes: $bytes,
                    meaning: $meaning,
                }),*],
                tail: records!(@tail $($tail)?),
            };

            /// Places of the fields of a record, by their names in scripts.
            #[allow(non_camel_case_types, missing_docs)]
            pub mod $name {
                /// A field of the record.
                #[derive(Clone, Copy, PartialEq, Eq, Debug)]
                pub enum Field { $(#[doc = $meaning] $field),* }
            }

            impl From<$name::Field> for usize {
                fn from(field: $name::Field) -> usize {
                    field as usize
                }
            }
        )*

        /// All records.
        pub const RECORDS: &[Record] = &[$($constant),*];
    };
    (@tail) => { None };
    (@tail $tail:literal) => { Some($tail) };
}

/// The number of consecutive positions in a piece of a slot queue or of a list of ended tasks. Redis stores a sorted set of at
/// most 128 members as one block of bytes, which it searches from its start: of 32 members, it takes no longer than a skip list
/// (docs/design-notes.md).
pub const PIECE: i64 = 32;

/// The bit in the `options` of a placement of a task without a key.
pub const KEYLESS: u64 = 4;

/// Divides the tail of a placement into the digest of the key, which is empty if the task has none, and the name of the queue.
pub(super) fn split_placement_tail(record: Decoded<'_>) -> (&[u8], &[u8]) {
    let bytes = if record.uint(placement::Field::options) & KEYLESS == 0 { KeyDigest::BYTES } else { 0 };
    record.tail().split_at_checked(bytes).unwrap_or_default()
}

records! {
    /// A queue in a shard: field `queue:<name>` of `callers`. Its first nine fields are those of [`SHARD`].
    QUEUE queue = 1 {
        ready: Uint 6 = "tasks in this state";
        scheduled: Uint 6 = "the same";
        leased: Uint 6 = "the same";
        completed: Uint 6 = "the same";
        dead: Uint 6 = "the same";
        cancelled: Uint 6 = "the same";
        expired: Uint 6 = "the same";
        submitted: Uint 6 = "tasks in all, deleted ones included";
        deleted: Uint 6 = "tasks deleted";
        front: Uint 1 = "1 more than the priority at the front of the wheel; 0: the wheel is empty";
        due: Uint 6 = "score of the queue in `due`, in ms; 0: it is not there";
        flags: Uint 1 = "1: paused; 2, 4, 8, 16: its completed, dead, cancelled, expired tasks are in `ended_due`";
        seq: Uint 6 = "last position in a slot queue";
        completed_ends: Uint 6 = "position of the last end of a completed task";
        dead_ends: Uint 6 = "of a dead one";
        cancelled_ends: Uint 6 = "of a cancelled one";
        expired_ends: Uint 6 = "of an expired one";
        passes: Uint 1 = "passes that are in the middle";
        reserved: Bytes 3 = "zeros";
    } => "a record `pass` for each of them, the latest first; a record `pieces` for each list that may have pieces, slot queues first"

    /// A pass over the keys of a keyed slot queue in which a call has stopped: behind the fields of the record of its queue.
    PASS pass = 1 {
        list: Uint 1 = "20 to 29: a keyed slot queue of this priority, and 20";
        slot: Uint 2 = "slot of the slot queue";
        key_digest: Bytes 8 = "the key that was served last";
        until_seq: Uint 6 = "the pass serves tasks up to this position";
    }

    /// The pieces of a slot queue or of a list of ended tasks: behind the fields of the record of its queue.
    PIECES pieces = 1 {
        list: Uint 1 = "0 to 9: a slot queue of this priority; 10 to 13: the completed, dead, cancelled, expired tasks";
        slot: Uint 2 = "slot of the slot queue; 0";
        first: Uint 5 = "number of the first piece behind the head; a task is in that of its position divided by 32";
        next: Uint 6 = "the next position in the list; pieces have all before it";
    }

    /// A shard: field `shard` of `callers`.
    SHARD shard = 1 {
        ready: Uint 6 = "tasks in this state";
        scheduled: Uint 6 = "the same";
        leased: Uint 6 = "the same";
        completed: Uint 6 = "the same";
        dead: Uint 6 = "the same";
        cancelled: Uint 6 = "the same";
        expired: Uint 6 = "the same";
        submitted: Uint 6 = "tasks in all, deleted ones and those of deleted queues included";
        deleted: Uint 6 = "tasks deleted, those of deleted queues included";
        turn: Uint 7 = "last turn on a wheel";
        ended_at: Uint 6 = "time of the last end of a task, in ms; no later end has an earlier time";
        reserved: Bytes 10 = "zeros";
    }

    /// The position of a task and its limits: field `p` of its hash.
    PLACEMENT placement = 1 {
        priority: Uint 1 = "0 to 9";
        slot: Uint 2 = "slot of its key";
        max_attempts: Uint 2 = "limit of attempts";
        attempts: Uint 2 = "failed attempts";
        options: Uint 1 = "1: has fields that a claim reads, or had a lease; 2: has fields that its end reads; 4: has no key";
        created_at: Uint 6 = "time of creation, in ms";
        ready_at: Uint 6 = "time at which it last became ready, in ms";
        seq: Uint 6 = "position in its slot queue";
    } => "digest of its key, 8 bytes, if it has one; name of its queue"

    /// The last lease of a task: field `l` of its hash.
    LEASE lease = 1 {
        lease_token: Bytes 16 = "token";
        lease_until: Uint 6 = "end, in ms";
        leased_at: Uint 6 = "start, in ms";
        lease_set_at: Uint 6 = "time at which it was last extended or prolonged, in ms; 0: never";
        lease_ms: Uint 4 = "length as asked for, in ms";
        acquired: Uint 4 = "leases of the task so far";
        has_claim: Uint 1 = "1: field `C` has the claim id of this lease";
    } => "worker"

    /// The last end of a lease of a task, and its own end: field `f` of its hash.
    ENDING ending = 1 {
        ended_by: Uint 1 = "number of the word for what ended it; 0: nothing";
        ended_state: Uint 1 = "number of the word for the state from then on; 0: none";
        ended_run_at: Uint 6 = "run_at from then on, in ms; 0: none";
        finished_at: Uint 6 = "time of the task's end, in ms; 0: it has not ended";
        end_seq: Uint 6 = "position of its end among those in its queue and state; 0: it has not ended";
    } => "token of that lease; once the task has ended it is that of the record `lease`"

    /// The last call of a caller: field `<caller>` of `callers`.
    CALL call = 1 {
        sequence: Uint 7 = "number of the call";
        called_at: Uint 6 = "time of the call, in ms";
        counted_at: Uint 6 = "time at which the caller last counted, in ms; 0: never";
        counters_bytes: Uint 2 = "bytes of its counters";
    } => "its counters of the 5 s of that time, see stats_format.lua; the reply"
}

/// The words that a field has a number for, from 1, by the names of the record and the field. `counter` is the first byte of
/// each entry in the counters of a caller.
const WORDS: [(&str, &str, &[&str]); 3] = [
    ("ending", "ended_by", &["complete", "fail", "release", "revoke", "expire"]),
    ("call", "counter", &["submitted", "lease_ends", "waits"]),
    ("ending", "ended_state", &["ready", "scheduled", "completed", "dead", "cancelled", "expired"]),
];

/// A value of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// A number.
    Uint(u64),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl Record {
    /// The length without the tail, in bytes.
    pub fn bytes(&self) -> usize {
        1 + self.fields.iter().map(|field| field.bytes).sum::<usize>()
    }

    /// The format of Redis' `struct`. It does not have the tail.
    pub fn format(&self) -> String {
        format!(">B{}", field_formats(self.fields))
    }

    /// Returns the record with these values, in the order of its fields. A number that is too large is cut, and so are bytes;
    /// what is missing is zero.
    pub fn encode(&self, values: &[Value<'_>], tail: &[u8]) -> Vec<u8> {
        let mut encoded = self.encode_start(values);
        encoded.resize(self.bytes(), 0);
        encoded.extend(tail);
        encoded
    }

    /// Returns the start of such a record: the version and these values.
    pub fn encode_start(&self, values: &[Value<'_>]) -> Vec<u8> {
        let mut encoded = vec![self.version];
        for (field, value) in self.fields.iter().zip(values) {
            let mut bytes = match value {
                Value::Uint(number) => number.to_be_bytes().into_iter().skip(8 - field.bytes.min(8)).collect(),
                Value::Bytes(bytes) => bytes.to_vec(),
            };
            bytes.resize(field.bytes, 0);
            encoded.extend(bytes);
        }
        encoded
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Error::Unexpected`] if its version or length is another.
    pub fn decode<'a>(&'a self, bytes: &'a [u8]) -> Result<Decoded<'a>> {
        let is_whole = if self.tail.is_some() { bytes.len() >= self.bytes() } else { bytes.len() == self.bytes() };
        match bytes.first() {
            Some(version) if *version == self.version && is_whole => Ok(Decoded { record: self, bytes }),
            version => Err(Error::Unexpected(format!(
                "a record of kind {} has version {} and {} bytes, expected {} and {}",
                self.name,
                version.map_or("none".to_owned(), u8::to_string),
                bytes.len(),
                self.version,
                self.bytes()
            ))),
        }
    }

    /// Returns what scripts write for `L.<record>.<name>`: `format`, `bytes`, `version`, or the place of a field in the list
    /// that `struct.unpack` returns, which has a number in the place `behind` the fields. `before_<field>` and `from_<field>`
    /// are the two parts of the format; `byte_<field>` is the place of the field's first byte, `words_<field>` the list of its
    /// words, and `<field>.<word>` the number of a word. `piece` is [`PIECE`].
    pub(super) fn in_script(&self, name: &str) -> Option<String> {
        let place_of = |name| self.fields.iter().position(|field| field.name == name);
        if let Some((before, _)) =
            name.strip_prefix("before_").and_then(|name| self.fields.split_at_checked(place_of(name)?))
        {
            return Some(format!("'>B{}'", field_formats(before)));
        }
        if let Some((_, from)) =
            name.strip_prefix("from_").and_then(|name| self.fields.split_at_checked(place_of(name)?))
        {
            return Some(format!("'>{}'", field_formats(from)));
        }
        if let Some(place) = name.strip_prefix("byte_").and_then(place_of) {
            let before: usize = self.fields.iter().take(place).map(|field| field.bytes).sum();
            return Some((before + 2).to_string());
        }
        let words_of =
            |name| WORDS.iter().find(|(record, field, _)| *record == self.name && *field == name).map(|found| found.2);
        if let Some(words) = name.strip_prefix("words_").and_then(words_of) {
            return Some(format!("{{ '{}' }}", words.join("', '")));
        }
        if let Some((field, word)) = name.split_once('.') {
            return Some((words_of(field)?.iter().position(|known| *known == word)? + 1).to_string());
        }
        match name {
            "piece" => Some(PIECE.to_string()),
            "format" => Some(format!("'{}'", self.format())),
            "bytes" => Some(self.bytes().to_string()),
            "version" => Some(self.version.to_string()),
            "behind" => Some((self.fields.len() + 2).to_string()),
            // The version is the first, and Lua counts from 1.
            name => Some((place_of(name)? + 2).to_string()),
        }
    }
}

fn field_formats(fields: &[RecordField]) -> String {
    let format = |field: &RecordField| match field.kind {
        Kind::Uint => format!("I{}", field.bytes),
        Kind::Bytes => format!("c{}", field.bytes),
    };
    fields.iter().map(format).collect()
}

/// A record that is readable.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    record: &'a Record,
    bytes: &'a [u8],
}

impl<'a> Decoded<'a> {
    /// Returns the bytes of the field at this place.
    pub fn bytes_at(&self, place: usize) -> &'a [u8] {
        let start = 1 + self.record.fields.iter().take(place).map(|field| field.bytes).sum::<usize>();
        let length = self.record.fields.get(place).map_or(0, |field| field.bytes);
        self.bytes.get(start..start + length).unwrap_or_default()
    }

    /// Returns the bytes of a field.
    pub fn bytes(&self, field: impl Into<usize>) -> &'a [u8] {
        self.bytes_at(field.into())
    }

    /// Returns the number in a field.
    pub fn uint(&self, field: impl Into<usize>) -> u64 {
        self.bytes(field).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Returns the bytes behind the fields.
    pub fn tail(&self) -> &'a [u8] {
        self.bytes.get(self.record.bytes()..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_and_shard_have_the_same_counts_in_the_same_places() {
        let names = |record: &Record| record.fields.iter().take(9).map(|field| field.name).collect::<Vec<_>>();
        assert_eq!(names(&QUEUE), names(&SHARD));
        assert_eq!(names(&QUEUE)[8], "deleted");
    }

    #[test]
    fn records_are_found_by_name_and_have_numbers_that_a_script_can_count() {
        for record in RECORDS {
            let found: Vec<&Record> = RECORDS.iter().filter(|other| other.name == record.name).collect();
            assert_eq!(found.len(), 1, "{}", record.name);
            for field in record.fields {
                assert!(field.kind == Kind::Bytes || (1..=7).contains(&field.bytes), "{}", field.name);
                assert!(!["format", "bytes", "version", "behind", "piece"].contains(&field.name), "{}", field.name);
            }
        }
    }

    #[test]
    fn record_of_another_length_or_version_is_unreadable() {
        let whole = SHARD.encode(&[], &[]);
        assert_eq!(SHARD.decode(&whole).unwrap().uint(shard::Field::ready), 0);
        let longer = [whole.clone(), vec![0]].concat();
        let other = [vec![2], whole[1..].to_vec()].concat();
        for unreadable in [&whole[1..], &longer, &other, &[]] {
            assert!(SHARD.decode(unreadable).is_err(), "{unreadable:?}");
        }
        assert_eq!(CALL.decode(&CALL.encode(&[], b"tail")).unwrap().tail(), b"tail");
    }
}
