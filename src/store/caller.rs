//! Callers of scripts, by which a repeated call is recognized.

use std::sync::Arc;

/// The caller of scripts that write: a random id and the number of its last call.
///
/// Calls of one caller never overlap, because each borrows it mutably. A shard therefore remembers only the last call
/// of a caller, and answers a repeated call with the first reply.
#[derive(Debug)]
pub struct Caller {
    id: Arc<str>,
    sequence: u64,
}

impl Caller {
    /// Returns a caller with a new random id.
    pub fn new() -> Self {
        Caller { id: format!("{:016x}", rand::random::<u64>()).into(), sequence: 0 }
    }

    /// Returns the id, and the number of the next call.
    pub(super) fn next_call(&mut self) -> (Arc<str>, u64) {
        self.sequence += 1;
        (self.id.clone(), self.sequence)
    }
}

impl Default for Caller {
    fn default() -> Self {
        Caller::new()
    }
}
