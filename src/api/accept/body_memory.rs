//! The memory that request bodies may take in this process, however many come at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes for all.
#[derive(Debug)]
pub(in crate::api) struct BodyMemory {
    max_bytes: usize,
    reserved: AtomicUsize,
}

/// What one body holds of it; given back when it is dropped.
#[derive(Debug)]
pub(in crate::api) struct MemoryPermit {
    memory: Arc<BodyMemory>,
    bytes: usize,
}

impl BodyMemory {
    pub(super) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(BodyMemory { max_bytes, reserved: AtomicUsize::new(0) })
    }

    /// A share for a body that says it has `bytes`, if there is room. What has not come holds nothing, so that a few
    /// who promise much and send nothing do not keep others out.
    pub(in crate::api) fn permit(self: &Arc<Self>, expected_bytes: usize) -> Option<MemoryPermit> {
        let has_room = self.reserved_bytes().checked_add(expected_bytes).is_some_and(|total| total <= self.max_bytes);
        has_room.then(|| MemoryPermit { memory: self.clone(), bytes: 0 })
    }

    pub(super) fn reserved_bytes(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }
}

impl MemoryPermit {
    /// One that holds nothing of any server's.
    #[cfg(any(test, fuzzing, feature = "pieces"))]
    pub(in crate::api) fn empty() -> Self {
        MemoryPermit { memory: BodyMemory::new(0), bytes: 0 }
    }

    /// Takes `bytes` more; whether there was room.
    pub(in crate::api) fn reserve(&mut self, bytes: usize) -> bool {
        let add = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.memory.max_bytes);
        let is_reserved = self.memory.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        if is_reserved {
            self.bytes += bytes;
        }
        is_reserved
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        self.memory.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crate::api::accept::body_memory::*;

    #[test]
    fn reserved_memory_is_limited_and_returned_on_drop() {
        let memory = BodyMemory::new(10);
        let (mut first, mut second) = (memory.permit(8).unwrap(), memory.permit(8).unwrap());
        assert!(first.reserve(8) && !second.reserve(3) && second.reserve(2));
        assert!(memory.permit(1).is_none() && memory.permit(0).is_some());
        drop(first);
        assert!(second.reserve(8));
        drop(second);
        assert_eq!(memory.reserved_bytes(), 0);
    }
}
