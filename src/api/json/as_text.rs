//! Leaf values (ids, times, tokens) as JSON strings.

use std::fmt::Display;

use serde::{Serialize, Serializer};

/// Serializes a value as the string that its `Display` writes: the same form as in Redis and in logs.
#[derive(Clone, Debug)]
pub(in crate::api) struct AsText<T>(pub(in crate::api) T);

impl<T: Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
