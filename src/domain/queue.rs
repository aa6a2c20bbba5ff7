//! Names and settings of queues.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that matches `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`: the only user-supplied string in Redis keys.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Maximum length of a name, bytes.
    pub const MAX_BYTES: usize = 128;

    /// Parses a name; `None` if it does not match the pattern.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        let has_valid_start = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric());
        let has_valid_rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        (has_valid_start && has_valid_rest && text.len() <= Self::MAX_BYTES).then(|| QueueName(Arc::from(text)))
    }

    /// Returns the queue of a submit or claim that names no queue: `default`.
    pub fn default_queue() -> Self {
        QueueName(Arc::from("default"))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Settings of a queue that can change at run time. `/queues` shows each field by its name.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct QueueSettings {
    /// Claims deliver no tasks of this queue.
    pub paused: bool,
}

impl TryFrom<String> for QueueName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        QueueName::parse(&text).ok_or("not a queue name")
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_collide_with_keys_are_rejected() {
        for bad in ["", ".a", "-a", "_a", "a b", "a:b", "{a}", "a\n", "a\u{e9}", "a#1"] {
            assert!(QueueName::parse(bad).is_none(), "{bad:?}");
        }
        assert!(QueueName::parse(&"a".repeat(129)).is_none());
        assert!(QueueName::parse(&"a".repeat(128)).is_some());
    }

    proptest! {
        #[test]
        fn names_of_the_pattern_are_accepted(name in "[A-Za-z0-9][A-Za-z0-9._-]{0,127}") {
            let parsed = QueueName::parse(&name).unwrap();
            prop_assert_eq!(parsed.as_str(), name.as_str());
        }
    }
}
