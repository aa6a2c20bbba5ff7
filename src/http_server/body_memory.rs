//! The limit of the memory that all request bodies of the process hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory for request bodies.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    max_bytes: usize,
    reserved: AtomicUsize,
}

/// The memory that one body holds. Returned on drop.
#[derive(Debug)]
pub(crate) struct MemoryPermit {
    memory: Arc<BodyMemory>,
    bytes: usize,
}

impl BodyMemory {
    pub(super) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(BodyMemory { max_bytes, reserved: AtomicUsize::new(0) })
    }

    /// Returns a permit for a body that announces `expected_bytes`, or `None` if they exceed the free memory. The permit
    /// reserves nothing yet: clients that announce large bodies and send nothing cannot exhaust the memory.
    pub(super) fn permit(self: &Arc<Self>, expected_bytes: usize) -> Option<MemoryPermit> {
        let has_room = self.reserved_bytes().checked_add(expected_bytes).is_some_and(|total| total <= self.max_bytes);
        has_room.then(|| MemoryPermit { memory: self.clone(), bytes: 0 })
    }

    pub(super) fn reserved_bytes(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }
}

impl MemoryPermit {
    /// Reserves `bytes` more. Returns whether there was room; if not, reserves nothing.
    pub(crate) fn reserve(&mut self, bytes: usize) -> bool {
        let add = |reserved: usize| reserved.checked_add(bytes).filter(|total| *total <= self.memory.max_bytes);
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
    use super::*;

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
