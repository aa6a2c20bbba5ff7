//! Callers of scripts, by which a repeated call is recognized.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

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
        self.last_call()
    }

    /// Returns the id, and the number of the last call.
    pub(super) fn last_call(&self) -> (Arc<str>, u64) {
        (self.id.clone(), self.sequence)
    }
}

impl Default for Caller {
    fn default() -> Self {
        Caller::new()
    }
}

/// Callers for operations without a loop of their own. Each call leaves a record of its caller in Redis, so callers are used
/// again.
#[derive(Default, Debug)]
pub struct CallerPool(Mutex<Vec<Caller>>);

impl CallerPool {
    /// Returns a caller that no other operation uses.
    pub fn take(&self) -> PooledCaller<'_> {
        let caller = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        PooledCaller { caller, pool: self }
    }
}

/// A caller that returns to its pool when it is dropped. A call of it that is still on its way is rejected after the next
/// one, as that of any caller.
#[derive(Debug)]
pub struct PooledCaller<'a> {
    caller: Caller,
    pool: &'a CallerPool,
}

impl Deref for PooledCaller<'_> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl DerefMut for PooledCaller<'_> {
    fn deref_mut(&mut self) -> &mut Caller {
        &mut self.caller
    }
}

impl Drop for PooledCaller<'_> {
    fn drop(&mut self) {
        let caller = std::mem::take(&mut self.caller);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(caller);
    }
}
